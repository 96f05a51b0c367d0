"""Index of all subscriptions by vertical and area, with lookups in microseconds.

An area is a set of equality keys (postal codes, prefixes, countries, and the one-degree cells that a circle touches).
Each key leads to the few subscriptions that have it. A lead is looked up by its own keys, and the match is verified if
the key is coarser than the area.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from math import asin, cos, degrees, floor, inf, radians, sin, sqrt
from operator import itemgetter
from sys import intern
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from routing.consent import fold_sellers
from routing.inquiry import Facts, Mode, Place
from routing.subscription import Circle, Subscription, area_codes, countries_of, fold_code

COMPLETE_UP_TO: Final = 200
"""Largest number of subscriptions of a vertical that are all considered, each with all its reasons. Of more, at least
this many are considered."""
EARTH_KM: Final = 6371.0088
"""Mean radius of the Earth in kilometres (IUGG)."""
RINGS: Final = 5
"""Degrees around a lead in which the nearest circles are searched: about 500 km."""
LONGEST_PREFIX: Final = 5
"""Characters of the longest prefix: a whole postal code of the United States."""
FEW_CODES: Final = 32
"""Codes of an area that are compared one by one, which takes a microsecond at most."""

NOWHERE: Final = -1
"""Position of an entry that is in no index."""

K = TypeVar("K")
T = TypeVar("T", bound=Any)


class Disc(NamedTuple):
    """A circle prepared for comparison: its centre on the unit sphere, the square of the longest chord to a point
    inside it, and its radius in kilometres."""

    x: float
    y: float
    z: float
    chord_squared: float
    km: float


class Point(NamedTuple):
    """Location of a lead: on the unit sphere, and as a row and a column of one-degree cells."""

    x: float
    y: float
    z: float
    row: int
    column: int


class IndexEntry:
    """A subscription with its area prepared for comparison.

    `number` is its id as an integer, `position` its place in the index of its vertical. `countries` are the countries
    in which the area may lie, None for every country. With `anywhere`, they belong to it as a whole. Codes, prefixes,
    roles, sources and the names of its business are normalized for comparison; a few codes are a tuple, which takes a
    tenth of the memory of a set.
    """

    __slots__ = (
        "anywhere",
        "codes",
        "countries",
        "discs",
        "number",
        "position",
        "prefixes",
        "roles",
        "sellers",
        "sources",
        "subscription",
    )

    def __init__(self, subscription: Subscription) -> None:
        area = subscription.definition.area
        self.number = subscription.id.int
        self.position = NOWHERE
        parts = area.postal_codes or area.prefixes or area.circles
        self.anywhere = area.anywhere or bool(area.countries and not parts)
        everywhere = area.anywhere and not area.countries
        self.countries = None if everywhere else countries_of(area, subscription.country)
        codes = area_codes(area, subscription.country)
        shared_codes = map(intern, codes)
        self.codes: Collection[str] = tuple(shared_codes) if len(codes) <= FEW_CODES else frozenset(shared_codes)
        self.prefixes = tuple(set(map(fold_code, area.prefixes))) if area.prefixes else ()
        self.discs = tuple(map(_disc, area.circles)) if area.circles else ()
        self.renew(subscription)

    def renew(self, subscription: Subscription) -> None:
        """Replace the subscription by a version of it with the same area."""
        persona = subscription.definition.persona
        self.subscription = subscription
        self.roles = frozenset(map(str.casefold, persona.roles))
        self.sources = frozenset(map(str.casefold, persona.excluded_sources))
        self.sellers = tuple(map(intern, fold_sellers(subscription.business_names)))

    def takes_country(self, country: str) -> bool:
        """Return whether any part of the area may lie in the country; codes and circles do not count in others."""
        return self.countries is None or country in self.countries

    def holds(self, place: Place, code: str | None, point: Point | None) -> bool:
        """Return whether a place lies in the area, without the index. `code` is normalized by `code_of`."""
        if not self.takes_country(place.country):
            return False
        if self.anywhere:
            return True
        if code and (code in self.codes or (self.prefixes and code.startswith(self.prefixes))):
            return True
        return point is not None and bool(find_inside(enumerate(self.discs), point))

    def cells(self) -> Iterator[tuple[tuple[int, int], Disc]]:
        """Yield each circle with each of the one-degree cells that it touches."""
        if self.discs:
            for circle, disc in zip(self.subscription.definition.area.circles, self.discs, strict=True):
                for cell in _cells(circle):
                    yield cell, disc

    def may_repeat(self) -> bool:
        """Return whether several parts of the area may hold one place, so that a lookup finds the entry repeatedly."""
        if self.anywhere:
            return False
        if bool(self.codes) + bool(self.prefixes) + len(self.discs) > 1:
            return True
        if len(self.prefixes) < 2:
            return False
        return any(longer.startswith(shorter) for shorter, longer in pairwise(sorted(self.prefixes)))


class VerticalIndex:
    """Index of the subscriptions of one vertical and mode. Each key of an area leads to positions in `entries`, sorted.

    Positions follow the order of ids, unless one arrives after a greater id; then lookups sort by id.
    """

    def __init__(self) -> None:
        self.entries: dict[int, IndexEntry] = {}
        self.subscriptions: list[Subscription | None] = []
        self.anywhere: list[int] = []
        self.by_country: defaultdict[str, list[int]] = defaultdict(list)
        self.by_code: defaultdict[str, list[int]] = defaultdict(list)
        self.by_prefix: defaultdict[str, list[int]] = defaultdict(list)
        self.by_cell: defaultdict[tuple[int, int], list[tuple[int, Disc]]] = defaultdict(list)
        self.by_countries: defaultdict[frozenset[str], set[int]] = defaultdict(set)
        self.repeating: set[int] = set()
        self._greatest_number = -1
        self._is_ordered = True
        self._keys: list[str] | None = None

    def add(self, entry: IndexEntry) -> None:
        """Add an entry that the index does not have, at its position or, if it has none, behind all others."""
        place: Callable[[list[int], int], None] = insort
        if entry.position == NOWHERE:
            place = list.append
            entry.position = len(self.subscriptions)
            self.subscriptions.append(None)
            self._is_ordered = self._is_ordered and entry.number > self._greatest_number
            self._greatest_number = max(self._greatest_number, entry.number)
        position = entry.position
        self.entries[position] = entry
        self.subscriptions[position] = entry.subscription
        if entry.countries is None:
            place(self.anywhere, position)
        elif entry.anywhere:
            for country in entry.countries:
                place(self.by_country[country], position)
        if entry.anywhere or entry.countries is None:
            return
        self.by_countries[entry.countries].add(position)
        if entry.may_repeat():
            self.repeating.add(position)
        if self._keys is not None:
            self._keys = _with_keys(self._keys, self._keys_without_others(entry))
        by_code = self.by_code
        for code in entry.codes:
            place(by_code[code], position)
        for prefix in entry.prefixes:
            place(self.by_prefix[prefix], position)
        for cell, disc in entry.cells():
            insort(self.by_cell[cell], (position, disc))

    def renew(self, entry: IndexEntry, subscription: Subscription) -> None:
        """Replace the subscription of an entry by a version of it with the same area."""
        entry.renew(subscription)
        self.subscriptions[entry.position] = subscription

    def remove(self, entry: IndexEntry) -> None:
        """Remove an entry that the index has, and every key that leads to no other."""
        position = entry.position
        del self.entries[position]
        self.subscriptions[position] = None
        if entry.countries is None:
            _delete(self.anywhere, position)
        elif entry.anywhere:
            for country in entry.countries:
                _discard(self.by_country, country, position)
        if entry.anywhere or entry.countries is None:
            return
        self.repeating.discard(position)
        self.by_countries[entry.countries].discard(position)
        if not self.by_countries[entry.countries]:
            del self.by_countries[entry.countries]
        for code in entry.codes:
            _discard(self.by_code, code, position)
        for prefix in entry.prefixes:
            _discard(self.by_prefix, prefix, position)
        if self._keys is not None:
            self._keys = _without_keys(self._keys, self._keys_without_others(entry))
        for cell, disc in entry.cells():
            _discard(self.by_cell, cell, (position, disc))

    def _keys_without_others(self, entry: IndexEntry) -> set[str]:
        """Return the codes and prefixes of an entry, which is not in the index, that no other entry has."""
        keys = {*entry.codes, *entry.prefixes}
        return {key for key in keys if key not in self.by_code and key not in self.by_prefix}

    def holding(self, place: Place, code: str | None, point: Point | None) -> list[int]:
        """Return the positions of the entries whose area contains the lead, in the order of their ids."""
        positions: list[int] = []
        if code:
            positions += self.by_code.get(code, ())
            if self.by_prefix:
                for length in range(1, min(len(code), LONGEST_PREFIX) + 1):
                    positions += self.by_prefix.get(code[:length], ())
        if point is not None and (discs := self.by_cell.get((point.row, point.column))):
            positions += find_inside(discs, point)
        for countries, members in self.by_countries.items():
            if place.country not in countries:
                positions = [position for position in positions if position not in members]
        positions += self.anywhere
        positions += self.by_country.get(place.country, ())
        return self.in_order(set(positions) if self.repeating else positions)

    def in_order(self, positions: Iterable[int]) -> list[int]:
        """Return the positions in the order of the ids."""
        if self._is_ordered:
            return sorted(positions)
        entries = self.entries
        return sorted(positions, key=lambda position: entries[position].number)

    def nearest(self, code: str | None, point: Point | None, excluded: Collection[int], limit: int) -> set[int]:
        """Return the positions of up to `limit` more entries, those whose areas are nearest to the lead.

        The nearest circles come first, then the codes and prefixes most similar to the lead's.
        """
        positions: set[int] = set()
        if point is not None:
            distances = self._circles_around(point, excluded, limit)
            positions.update(sorted(self.in_order(distances), key=distances.__getitem__)[:limit])
        if code:
            for position in self._codes_around(code):
                if len(positions) >= limit:
                    break
                if position not in excluded:
                    positions.add(position)
        return positions

    def _circles_around(self, point: Point, excluded: Collection[int], limit: int) -> dict[int, float]:
        """Return the distance in km to the nearest circle of each entry, by position.

        Searches outwards in rings of cells, until it has `limit` entries or reaches the last ring.
        """
        distances: dict[int, float] = {}
        for ring in range(RINGS + 1):
            for cell in _ring(point, ring):
                for position, disc in self.by_cell.get(cell, ()):
                    if position not in excluded:
                        distances[position] = min(distances.get(position, inf), km_between(disc, point) - disc.km)
            if len(distances) >= limit:
                break
        return distances

    def _codes_around(self, code: str) -> Iterator[int]:
        """Yield positions of entries by code or prefix, outwards from the lead's code in alphabetical order.

        Codes with the same beginning are near each other on the map, as a rule.
        """
        codes = self._keys
        if codes is None:
            codes = self._keys = sorted(self.by_code.keys() | self.by_prefix.keys())
        after = bisect_left(codes, code)
        before = after - 1
        while before >= 0 or after < len(codes):
            for index in (before, after):
                if 0 <= index < len(codes):
                    neighbour = codes[index]
                    yield from self.in_order(self.by_code.get(neighbour, ()))
                    yield from self.in_order(self.by_prefix.get(neighbour, ()))
            before, after = before - 1, after + 1


class SubscriptionIndex(Mapping[UUID, Subscription]):
    """All subscriptions by id, and by vertical, mode and area. After any edits it answers like one built anew.

    Building it takes time linear in the codes and cells of all areas. The order of the subscriptions does not matter.
    """

    def __init__(self, subscriptions: Iterable[Subscription] = ()) -> None:
        self._entries: dict[UUID, IndexEntry] = {}
        self._shelves: dict[tuple[str, Mode], VerticalIndex] = {}
        # One vertical after the other, so that its keys stay in the processor's cache: half the time.
        for subscription in sorted(subscriptions, key=lambda each: (*_shelf_of(each), each.id.int)):
            self.put(subscription)

    def __getitem__(self, id: UUID) -> Subscription:
        return self._entries[id].subscription

    def __iter__(self) -> Iterator[UUID]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, subscription: Subscription) -> None:
        """Add a subscription, or replace the one with its id. One with the same area takes its place in 2 µs."""
        key = _shelf_of(subscription)
        before = self._entries.get(subscription.id)
        if before is not None and _has_same_area(before.subscription, subscription):
            self._shelves[key].renew(before, subscription)
            return
        entry = IndexEntry(subscription)
        if before is not None:
            if _shelf_of(before.subscription) == key:
                entry.position = before.position
            self.discard(subscription.id)
        shelf = self._shelves.get(key)
        if shelf is None:
            shelf = self._shelves[key] = VerticalIndex()
            entry.position = NOWHERE
        shelf.add(entry)
        self._entries[subscription.id] = entry

    def discard(self, id: UUID) -> None:
        """Remove a subscription, if it is there."""
        entry = self._entries.pop(id, None)
        if entry is not None:
            key = _shelf_of(entry.subscription)
            shelf = self._shelves[key]
            shelf.remove(entry)
            if not shelf.entries:
                del self._shelves[key]

    def candidates(self, facts: Facts) -> tuple[Subscription, ...]:
        """Return the subscriptions of the lead's vertical and mode whose area contains it, ordered by id."""
        shelf = self._shelf(facts)
        positions = shelf.holding(facts.place, code_of(facts.place), point_of(facts.place))
        if len(positions) > 1:
            # In a quarter of the time that a loop takes.
            subscriptions: tuple[Subscription, ...] = itemgetter(*positions)(shelf.subscriptions)
            return subscriptions
        return tuple(shelf.entries[position].subscription for position in positions)

    def near(self, facts: Facts) -> tuple[list[IndexEntry], int]:
        """Return the entries to consider for a lead, ordered by id, and the number of others in its vertical and mode.

        They are all entries up to `COMPLETE_UP_TO`; of more, those whose area contains the lead and the nearest others.
        """
        shelf = self._shelf(facts)
        entries = shelf.entries
        if len(entries) <= COMPLETE_UP_TO:
            return [entries[position] for position in shelf.in_order(entries)], 0
        code, point = code_of(facts.place), point_of(facts.place)
        positions = shelf.holding(facts.place, code, point)
        if len(positions) < COMPLETE_UP_TO:
            nearest = shelf.nearest(code, point, frozenset(positions), COMPLETE_UP_TO - len(positions))
            positions = shelf.in_order([*positions, *nearest])
        return [entries[position] for position in positions], len(entries) - len(positions)

    def _shelf(self, facts: Facts) -> VerticalIndex:
        return self._shelves.get((facts.vertical, facts.mode), _EMPTY)


class HoldingIndex(SubscriptionIndex):
    """Index that considers only the subscriptions whose area contains the lead.

    The decisions are the same, because no other subscription can ever have the lead; but they have fewer near misses.
    For many decisions that nobody reads one by one: with areas far apart, each takes a fraction of the time.
    """

    def near(self, facts: Facts) -> tuple[list[IndexEntry], int]:
        """Return the entries whose area contains the lead, ordered by id, and the number of others."""
        shelf = self._shelf(facts)
        positions = shelf.holding(facts.place, code_of(facts.place), point_of(facts.place))
        return [shelf.entries[position] for position in positions], len(shelf.entries) - len(positions)


_EMPTY: Final = VerticalIndex()


def _shelf_of(subscription: Subscription) -> tuple[str, Mode]:
    return subscription.vertical, subscription.mode


def _has_same_area(before: Subscription, after: Subscription) -> bool:
    """Return whether both lie in the index under the same keys."""
    return (
        _shelf_of(before) == _shelf_of(after)
        and before.country == after.country
        and before.definition.area == after.definition.area
    )


def _delete(items: list[T], item: T) -> None:
    del items[bisect_left(items, item)]


def _discard(index: dict[K, list[T]], key: K, item: T) -> None:
    """Delete an item under a key, and a key that leads to no other."""
    items = index[key]
    _delete(items, item)
    if not items:
        del index[key]


def _with_keys(keys: list[str], new: Collection[str]) -> list[str] | None:
    """Return the sorted keys with new ones; None, so that all are sorted again, if there are many."""
    if len(new) > FEW_CODES:
        return None
    for key in new:
        insort(keys, key)
    return keys


def _without_keys(keys: list[str], absent: Collection[str]) -> list[str] | None:
    """Return the sorted keys without some of them; None, so that all are sorted again, if those are many."""
    if len(absent) > FEW_CODES:
        return None
    for key in absent:
        _delete(keys, key)
    return keys


def code_of(place: Place) -> str | None:
    """Return a place's postal code, normalized for comparison; None if unknown."""
    return fold_code(place.postal_code) if place.postal_code else None


def point_of(place: Place) -> Point | None:
    """Return a place's coordinates, prepared for distances; None if unknown."""
    if place.latitude is None or place.longitude is None:
        return None
    x, y, z = _on_sphere(place.latitude, place.longitude)
    return Point(x, y, z, floor(place.latitude), floor(place.longitude) % 360)


def _on_sphere(latitude: float, longitude: float) -> tuple[float, float, float]:
    """Return a place, in degrees, as a point of the unit sphere."""
    north, east = radians(latitude), radians(longitude)
    cosine = cos(north)
    return cosine * cos(east), cosine * sin(east), sin(north)


def _disc(circle: Circle) -> Disc:
    x, y, z = _on_sphere(circle.latitude, circle.longitude)
    return Disc(x, y, z, (2 * sin(circle.km / EARTH_KM / 2)) ** 2, circle.km)


def find_inside(discs: Iterable[tuple[int, Disc]], point: Point) -> list[int]:
    """Return the numbers of the circles in which the point lies, by the chord through the Earth: exact to a
    millimetre."""
    px, py, pz, _, _ = point
    return [
        number
        for number, (x, y, z, chord_squared, _) in discs
        if (x - px) * (x - px) + (y - py) * (y - py) + (z - pz) * (z - pz) <= chord_squared
    ]


def km_between(disc: Disc, point: Point) -> float:
    """Return the great-circle distance from the centre to the point in km, from the chord through the Earth."""
    x, y, z = disc.x - point.x, disc.y - point.y, disc.z - point.z
    return 2 * EARTH_KM * asin(min(1.0, sqrt(x * x + y * y + z * z) / 2))


def _cells(circle: Circle) -> Iterator[tuple[int, int]]:
    """Yield the one-degree cells that the circle's bounding box touches.

    Meridians converge towards the poles, so the box is wider in degrees there, and has all columns if it contains a
    pole.
    """
    angle = circle.km / EARTH_KM + 1e-9
    south, north = circle.latitude - degrees(angle), circle.latitude + degrees(angle)
    columns: Iterable[int] = range(360)
    if south > -90 and north < 90:
        half = degrees(asin(min(1.0, sin(angle) / cos(radians(circle.latitude)))))
        west, east = floor(circle.longitude - half), floor(circle.longitude + half)
        columns = {column % 360 for column in range(west, east + 1)}
    for row in range(max(-90, floor(south)), min(90, floor(north)) + 1):
        for column in columns:
            yield row, column


def _ring(point: Point, ring: int) -> set[tuple[int, int]]:
    """Return the cells exactly `ring` steps from the point's own cell, across the antimeridian too."""
    span = range(-ring, ring + 1)
    return {
        (point.row + down, (point.column + right) % 360)
        for down in span
        for right in (span if abs(down) == ring else (-ring, ring))
    }
