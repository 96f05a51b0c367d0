"""Index of all subscriptions by vertical and area, with lookups in microseconds.

An area is a set of equality keys (postal codes, prefixes, countries, and the one-degree cells that a circle touches).
Each key leads to the few subscriptions that have it. A lead is looked up by its own keys, and the match is verified if
the key is coarser than the area.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from math import asin, cos, degrees, floor, inf, radians, sin, sqrt
from typing import Final, NamedTuple

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


class Disc(NamedTuple):
    """A circle prepared for the haversine formula: centre in radians, cosine of its latitude, radius in kilometres."""

    latitude: float
    longitude: float
    cosine: float
    km: float


class Point(NamedTuple):
    """Location of a lead: latitude and longitude in radians, cosine of the latitude, and one-degree cell."""

    latitude: float
    longitude: float
    cosine: float
    row: int
    column: int


class IndexEntry:
    """A subscription with its area prepared for comparison.

    `countries` are the countries in which the area may lie, None for every country. With `anywhere`, they belong to it
    as a whole. Codes, prefixes, roles and sources are normalized for comparison.
    """

    __slots__ = ("anywhere", "codes", "countries", "discs", "prefixes", "roles", "sources", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        area, persona = subscription.definition.area, subscription.definition.persona
        self.subscription = subscription
        parts = area.postal_codes or area.prefixes or area.circles
        self.anywhere = area.anywhere or bool(area.countries and not parts)
        everywhere = area.anywhere and not area.countries
        self.countries = None if everywhere else countries_of(area, subscription.country)
        self.codes = area_codes(area, subscription.country)
        self.prefixes = tuple(map(fold_code, area.prefixes))
        self.discs = tuple(_disc(circle) for circle in area.circles)
        self.roles = frozenset(role.casefold() for role in persona.roles)
        self.sources = frozenset(source.casefold() for source in persona.excluded_sources)

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
        return point is not None and any(km_between(disc, point) <= disc.km for disc in self.discs)


class VerticalIndex:
    """Index of the subscriptions of one vertical and mode. Each key of an area leads to positions in `entries`."""

    def __init__(self, entries: Sequence[IndexEntry]) -> None:
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

    def _add(self, position: int, entry: IndexEntry) -> None:
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
        """Return the positions of the entries whose area contains the lead."""
        positions: set[int] = set()
        if code:
            positions.update(self.by_code.get(code, ()))
            for length in range(1, LONGEST_PREFIX + 1):
                positions.update(self.by_prefix.get(code[:length], ()))
        if point is not None:
            near = self.by_cell.get((point.row, point.column), ())
            positions.update(position for position, disc in near if km_between(disc, point) <= disc.km)
        positions = {position for position in positions if self.entries[position].takes_country(place.country)}
        positions.update(self.anywhere)
        positions.update(self.by_country.get(place.country, ()))
        return positions

    def nearest(self, code: str | None, point: Point | None, excluded: set[int], limit: int) -> set[int]:
        """Return the positions of up to `limit` more entries, those whose areas are nearest to the lead.

        The nearest circles come first, then the codes and prefixes most similar to the lead's.
        """
        positions: set[int] = set()
        if point is not None:
            distances = self._circles_around(point, excluded, limit)
            positions.update(sorted(distances, key=lambda position: (distances[position], position))[:limit])
        if code:
            for position in self._codes_around(code):
                if len(positions) >= limit:
                    break
                if position not in excluded:
                    positions.add(position)
        return positions

    def _circles_around(self, point: Point, excluded: set[int], limit: int) -> dict[int, float]:
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
        after = bisect_left(self.codes, code)
        before = after - 1
        while before >= 0 or after < len(self.codes):
            for index in (before, after):
                if 0 <= index < len(self.codes):
                    neighbour = self.codes[index]
                    yield from self.by_code.get(neighbour, ())
                    yield from self.by_prefix.get(neighbour, ())
            before, after = before - 1, after + 1


class SubscriptionIndex:
    """Index of all subscriptions by vertical, mode and area. It never changes: an edit makes a new index.

    Building it takes time linear in the codes and cells of all areas. The order of the subscriptions does not matter.
    """

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        entries: dict[tuple[str, Mode], list[IndexEntry]] = {}
        for subscription in sorted(subscriptions, key=lambda subscription: subscription.id.int):
            entries.setdefault((subscription.vertical, subscription.mode), []).append(IndexEntry(subscription))
        self._shelves = {shelf: VerticalIndex(members) for shelf, members in entries.items()}

    @property
    def size(self) -> int:
        """Number of subscriptions in the index."""
        return sum(len(shelf.entries) for shelf in self._shelves.values())

    def candidates(self, facts: Facts) -> tuple[Subscription, ...]:
        """Return the subscriptions of the lead's vertical and mode whose area contains it, ordered by id."""
        shelf = self._shelf(facts)
        positions = shelf.holding(facts.place, code_of(facts.place), point_of(facts.place))
        return tuple(map(shelf.subscriptions.__getitem__, sorted(positions)))

    def near(self, facts: Facts) -> tuple[list[IndexEntry], int]:
        """Return the entries to consider for a lead, ordered by id, and the number of others in its vertical and mode.

        They are all entries up to `COMPLETE_UP_TO`; of more, those whose area contains the lead and the nearest others.
        """
        shelf = self._shelf(facts)
        if len(shelf.entries) <= COMPLETE_UP_TO:
            return list(shelf.entries), 0
        code, point = code_of(facts.place), point_of(facts.place)
        positions = shelf.holding(facts.place, code, point)
        if len(positions) < COMPLETE_UP_TO:
            positions |= shelf.nearest(code, point, positions, COMPLETE_UP_TO - len(positions))
        return [shelf.entries[position] for position in sorted(positions)], len(shelf.entries) - len(positions)

    def _shelf(self, facts: Facts) -> VerticalIndex:
        return self._shelves.get((facts.vertical, facts.mode), _EMPTY)


_EMPTY: Final = VerticalIndex(())


def code_of(place: Place) -> str | None:
    """Return a place's postal code, normalized for comparison; None if unknown."""
    return fold_code(place.postal_code) if place.postal_code else None


def point_of(place: Place) -> Point | None:
    """Return a place's coordinates, prepared for distances; None if unknown."""
    if place.latitude is None or place.longitude is None:
        return None
    latitude = radians(place.latitude)
    row, column = floor(place.latitude), floor(place.longitude) % 360
    return Point(latitude, radians(place.longitude), cos(latitude), row, column)


def _disc(circle: Circle) -> Disc:
    latitude = radians(circle.latitude)
    return Disc(latitude, radians(circle.longitude), cos(latitude), circle.km)


def km_between(disc: Disc, point: Point) -> float:
    """Return the great-circle distance from the centre to the point in km, by the haversine formula."""
    across = sin((disc.latitude - point.latitude) / 2)
    along = sin((disc.longitude - point.longitude) / 2)
    return 2 * EARTH_KM * asin(min(1.0, sqrt(across * across + disc.cosine * point.cosine * along * along)))


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
