"""All subscriptions, found by vertical and area in microseconds.

An area is a set of equality keys (postal codes, prefixes, countries, one-degree cells that a circle touches), each
leading to the few subscriptions that named it. Whatever a lead's own keys lead to is verified where the key is
coarser than the area.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from math import asin, cos, degrees, floor, inf, radians, sin, sqrt
from typing import Final, NamedTuple

from routing.inquiry import Facts, Mode, Place
from routing.subscription import Circle, Subscription, countries_of, fold_code

COMPLETE_UP_TO: Final = 200
"""Subscriptions in a vertical up to which every one is a candidate with all its reasons; above it, at least this
many are."""
EARTH_KM: Final = 6371.0088
"""Mean radius of the Earth (IUGG)."""
RINGS: Final = 5
"""How many degrees around a lead circles that miss it are looked for: some 500 km."""
LONGEST_PREFIX: Final = 5
"""Characters; the length of a whole postal code of the United States."""


class Disc(NamedTuple):
    """A circle prepared for the haversine formula: radians, and the cosine that does not change."""

    latitude: float
    longitude: float
    cosine: float
    km: float


class Point(NamedTuple):
    """Where a lead is: radians for distances, and the one-degree cell for the index."""

    latitude: float
    longitude: float
    cosine: float
    row: int
    column: int


class Entry:
    """A subscription with its area prepared for comparison.

    `countries` are those that may take part at all (None: every country); `anywhere` holds all of them.
    """

    __slots__ = ("anywhere", "codes", "countries", "discs", "prefixes", "roles", "sources", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        area, persona = subscription.definition.area, subscription.definition.persona
        self.subscription = subscription
        parts = area.postal_codes or area.prefixes or area.circles
        self.anywhere = area.anywhere or bool(area.countries and not parts)
        everywhere = area.anywhere and not area.countries
        self.countries = None if everywhere else countries_of(area, subscription.country)
        self.codes = frozenset(map(fold_code, area.postal_codes))
        self.prefixes = tuple(map(fold_code, area.prefixes))
        self.discs = tuple(_disc(circle) for circle in area.circles)
        self.roles = frozenset(role.casefold() for role in persona.roles)
        self.sources = frozenset(source.casefold() for source in persona.excluded_sources)

    def takes_country(self, country: str) -> bool:
        """Whether any part of the area lies in the country: codes and circles of another one mean nothing there."""
        return self.countries is None or country in self.countries

    def holds(self, place: Place, code: str | None, point: Point | None) -> bool:
        """Whether the lead lies in the area, without the index."""
        if not self.takes_country(place.country):
            return False
        if self.anywhere:
            return True
        if code and (code in self.codes or (self.prefixes and code.startswith(self.prefixes))):
            return True
        return point is not None and any(km_between(disc, point) <= disc.km for disc in self.discs)


class Shelf:
    """All subscriptions of one vertical and mode; each part of an area leads to where in `entries` they stand."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.subscriptions = [entry.subscription for entry in entries]
        self.anywhere: list[int] = []
        self.by_country: dict[str, list[int]] = {}
        self.by_code: dict[str, list[int]] = {}
        self.by_prefix: dict[str, list[int]] = {}
        self.by_cell: dict[tuple[int, int], list[tuple[int, Disc]]] = {}
        for position, entry in enumerate(entries):
            self._add(position, entry)
        self.codes = sorted(self.by_code.keys() | self.by_prefix.keys())

    def _add(self, position: int, entry: Entry) -> None:
        area = entry.subscription.definition.area
        if entry.countries is None:
            self.anywhere.append(position)
        elif entry.anywhere:
            for country in entry.countries:
                self.by_country.setdefault(country, []).append(position)
        if entry.anywhere:
            return
        for code in entry.codes:
            self.by_code.setdefault(code, []).append(position)
        for prefix in entry.prefixes:
            self.by_prefix.setdefault(prefix, []).append(position)
        for circle, disc in zip(area.circles, entry.discs, strict=True):
            for cell in _cells(circle):
                self.by_cell.setdefault(cell, []).append((position, disc))

    def holding(self, place: Place, code: str | None, point: Point | None) -> set[int]:
        """Positions of the entries whose area holds the lead."""
        found: set[int] = set()
        if code:
            found.update(self.by_code.get(code, ()))
            for length in range(1, LONGEST_PREFIX + 1):
                found.update(self.by_prefix.get(code[:length], ()))
        if point is not None:
            near = self.by_cell.get((point.row, point.column), ())
            found.update(position for position, disc in near if km_between(disc, point) <= disc.km)
        found = {position for position in found if self.entries[position].takes_country(place.country)}
        found.update(self.anywhere)
        found.update(self.by_country.get(place.country, ()))
        return found

    def nearest(self, code: str | None, point: Point | None, found: set[int], wanted: int) -> set[int]:
        """Where up to `wanted` others stand: circles that miss by least, then the codes most alike."""
        chosen: set[int] = set()
        if point is not None:
            outside = self._circles_around(point, found, wanted)
            chosen.update(sorted(outside, key=lambda position: (outside[position], position))[:wanted])
        if code:
            for position in self._codes_around(code):
                if len(chosen) >= wanted:
                    break
                if position not in found:
                    chosen.add(position)
        return chosen

    def _circles_around(self, point: Point, found: set[int], wanted: int) -> dict[int, float]:
        """Ring by ring of cells, until enough were seen: a circle's distance in km by its subscription's place."""
        outside: dict[int, float] = {}
        for ring in range(RINGS + 1):
            for cell in _ring(point, ring):
                for position, disc in self.by_cell.get(cell, ()):
                    if position not in found:
                        outside[position] = min(outside.get(position, inf), km_between(disc, point) - disc.km)
            if len(outside) >= wanted:
                break
        return outside

    def _codes_around(self, code: str) -> Iterator[int]:
        """Outwards from where the code would stand in order, because codes that begin alike lie near each other."""
        after = bisect_left(self.codes, code)
        before = after - 1
        while before >= 0 or after < len(self.codes):
            for neighbour in (before, after):
                if 0 <= neighbour < len(self.codes):
                    like = self.codes[neighbour]
                    yield from self.by_code.get(like, ())
                    yield from self.by_prefix.get(like, ())
            before, after = before - 1, after + 1


class Index:
    """All subscriptions, found by vertical, mode and area. Never changed: an edit makes a new index.

    Built in time linear in the codes and cells that areas name; the order in which subscriptions come does not matter.
    """

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        entries: dict[tuple[str, Mode], list[Entry]] = {}
        for subscription in sorted(subscriptions, key=lambda subscription: subscription.id.int):
            entries.setdefault((subscription.vertical, subscription.mode), []).append(Entry(subscription))
        self._shelves = {shelf: Shelf(members) for shelf, members in entries.items()}

    @property
    def size(self) -> int:
        """How many subscriptions it holds."""
        return sum(len(shelf.entries) for shelf in self._shelves.values())

    def candidates(self, facts: Facts) -> tuple[Subscription, ...]:
        """The subscriptions of the lead's vertical and mode whose area holds it, ordered by id."""
        shelf = self._shelf(facts)
        found = shelf.holding(facts.place, code_of(facts.place), point_of(facts.place))
        return tuple(map(shelf.subscriptions.__getitem__, sorted(found)))

    def near(self, facts: Facts) -> tuple[list[Entry], int]:
        """What `consider` looks at, ordered by id, and how many of the vertical it leaves out."""
        shelf = self._shelf(facts)
        if len(shelf.entries) <= COMPLETE_UP_TO:
            return list(shelf.entries), 0
        code, point = code_of(facts.place), point_of(facts.place)
        found = shelf.holding(facts.place, code, point)
        if len(found) < COMPLETE_UP_TO:
            found |= shelf.nearest(code, point, found, COMPLETE_UP_TO - len(found))
        return [shelf.entries[position] for position in sorted(found)], len(shelf.entries) - len(found)

    def _shelf(self, facts: Facts) -> Shelf:
        return self._shelves.get((facts.vertical, facts.mode), _EMPTY)


_EMPTY: Final = Shelf(())


def code_of(place: Place) -> str | None:
    """A place's postal code as areas compare it; None where none is known."""
    return fold_code(place.postal_code) if place.postal_code else None


def point_of(place: Place) -> Point | None:
    """Where a place is, ready for measuring distances; None where that is not known."""
    if place.latitude is None or place.longitude is None:
        return None
    latitude = radians(place.latitude)
    row, column = floor(place.latitude), floor(place.longitude) % 360
    return Point(latitude, radians(place.longitude), cos(latitude), row, column)


def _disc(circle: Circle) -> Disc:
    latitude = radians(circle.latitude)
    return Disc(latitude, radians(circle.longitude), cos(latitude), circle.km)


def km_between(disc: Disc, point: Point) -> float:
    """From the centre to the point along the surface (haversine, exact enough at every distance)."""
    across = sin((disc.latitude - point.latitude) / 2)
    along = sin((disc.longitude - point.longitude) / 2)
    return 2 * EARTH_KM * asin(min(1.0, sqrt(across * across + disc.cosine * point.cosine * along * along)))


def _cells(circle: Circle) -> Iterator[tuple[int, int]]:
    """The one-degree cells that the circle's bounding box touches.

    Meridians draw together towards a pole, so the box is wider in degrees there, and all the way round where it
    holds the pole.
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
    """The cells `ring` steps away from the point's own, round the antimeridian where they reach it."""
    span = range(-ring, ring + 1)
    return {
        (point.row + down, (point.column + right) % 360)
        for down in span
        for right in (span if abs(down) == ring else (-ring, ring))
    }
