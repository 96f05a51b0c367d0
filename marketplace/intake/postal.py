"""Postal areas: the place and the time zone of a postal code, without a network call.

The areas of the United States and its territories come from the `zipcodes` package: data of GeoNames
(https://www.geonames.org), used under CC BY 4.0, and of the United States Postal Service. They are loaded into Postgres
once per version. The package itself would need 56 MB in every process, and a millisecond for each code.
"""

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Final

import msgspec
import zipcodes

from marketplace.database.db import Connection, Pool, Queries, fetch_rows, session
from routing.subscription import ZIP_COUNTRIES

_QUERIES: Final = Queries(__file__, "postal.sql")

SHAPE: Final = 1
"Version of the conversion to rows: increase it with every change of the rows, so that databases load them again."

CACHED_DISTRICTS: Final = 256
"Districts in the cache of a process, of some fifty areas each: a few MB, and most codes of a day's inquiries."


class PostalArea(msgspec.Struct, frozen=True, kw_only=True):
    """Centre of a postal code (degrees, WGS 84) and its IANA zone; None if mail has no place, as for armed forces."""

    country: str
    code: str
    city: str
    region: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    time_zone: str | None = None


def postal_key(country: str, code: str) -> tuple[str, str]:
    """Return the country and code by which an area is stored: US and five digits for all territories of the States.

    The code is empty if the text cannot be a code of the United States.
    """
    if country in ZIP_COUNTRIES:
        digits = re.fullmatch(r"([0-9]{5})[- ]?(?:[0-9]{4})?", code.strip())
        return "US", digits[1] if digits else ""
    return country, " ".join(code.upper().split())


def has_known_areas(country: str) -> bool:
    """Return whether all areas of the country are loaded, so that an unknown code is a wrong one."""
    return country in ZIP_COUNTRIES


class PostalBook:
    """Postal areas from the database, with a cache of the districts that were last used.

    A district of the United States is the hundred codes with the same three first digits; elsewhere it is one code. A
    district is loaded whole, because its people rarely write alone; codes that do not exist are cached with it.
    """

    def __init__(self) -> None:
        self._districts: dict[tuple[str, str, str], dict[str, PostalArea]] = {}

    async def find(self, pool: Pool, country: str, code: str) -> PostalArea | None:
        """Return the area of a code in any usual spelling, or None. Raises Unavailable."""
        country, code = postal_key(country, code)
        if not code:
            return None
        district = (country, code[:3] + "00", code[:3] + "99") if country == "US" else (country, code, code)
        areas = self._districts.pop(district, None)
        if areas is None:
            async with session(pool) as connection:
                rows = await fetch_rows(connection, _QUERIES["list_postal_areas"], PostalArea, *district)
            areas = {area.code: area for area in rows}
        self._districts[district] = areas  # in order of last use
        if len(self._districts) > CACHED_DISTRICTS:
            del self._districts[next(iter(self._districts))]
        return areas.get(code)


async def load_postal_areas(connection: Connection) -> int:
    """Fill `postal_area` in one transaction, unless it has this version, and return the number of areas."""
    current = f"zipcodes {version('zipcodes')} shape {SHAPE}"
    async with connection.transaction():
        await connection.execute(_QUERIES["lock_reference_data"])
        loaded = await connection.fetchrow(_QUERIES["find_loaded_version"])
        if loaded and loaded["version"] == current:
            return int(loaded["rows"])
        areas = [msgspec.structs.astuple(area) for area in _united_states()]
        await connection.execute(_QUERIES["delete_postal_areas"], "US")
        columns = PostalArea.__struct_fields__
        await connection.copy_records_to_table("postal_area", records=areas, columns=columns)
        await connection.execute(_QUERIES["record_loaded_version"], current, len(areas))
    return len(areas)


def _united_states() -> Iterator[PostalArea]:
    """Yield all areas, withdrawn codes too, because people use those for years."""
    records: list[dict[str, Any]] = zipcodes.list_all()  # type: ignore[no-untyped-call]
    for record in records:
        latitude, longitude = _degrees(record)
        yield PostalArea(
            country="US",
            code=record["zip_code"],
            city=record["city"],
            region=record["state"] or None,
            latitude=latitude,
            longitude=longitude,
            time_zone=record["timezone"] or None,
        )


def _degrees(record: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return latitude and longitude; the data has 0, 0 for an unknown place."""
    latitude, longitude = float(record["lat"]), float(record["long"])
    return (latitude, longitude) if latitude or longitude else (None, None)
