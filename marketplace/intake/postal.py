"""Postal areas: where a code lies and which zone it keeps, known offline.

The areas of the United States and its territories come from the `zipcodes` package: data of GeoNames
(https://www.geonames.org), used under CC BY 4.0, and of the United States Postal Service. They are loaded into Postgres
once per version; looking one up in the package itself takes a millisecond, and 56 MB in every process.
"""

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Final

import msgspec
import zipcodes

from marketplace.database.db import Connection, Pool, Queries, session
from routing.subscription import ZIP_COUNTRIES

_QUERIES: Final = Queries(__file__, "postal.sql")

SHAPE: Final = 1
"Raised whenever the same data is turned into rows in another way, so that databases load it again."

CACHED_DISTRICTS: Final = 256
"Kept in a process, some fifty areas in each: a few MB, and most of what one marketplace sees in a day."


class PostalArea(msgspec.Struct, frozen=True, kw_only=True):
    """One postal code's centre (degrees, WGS 84) and IANA zone; None where mail has no place, as for armed forces."""

    country: str
    code: str
    city: str
    region: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    time_zone: str | None = None


def postal_key(country: str, code: str) -> tuple[str, str]:
    """How an area is looked up: codes of the United States by their five digits, whichever territory is named."""
    if country in ZIP_COUNTRIES:
        short = re.fullmatch(r"([0-9]{5})[- ]?(?:[0-9]{4})?", code.strip())
        return "US", short[1] if short else ""
    return country, " ".join(code.upper().split())


def has_known_areas(country: str) -> bool:
    """Whether all areas of the country are loaded, so that an unknown code is a wrong one."""
    return country in ZIP_COUNTRIES


class PostalBook:
    """Areas by country and code, the latest kept in the process; what is not in the database is remembered as well.

    Codes of the United States are read a district at a time, the hundred that begin with the same three digits: whoever
    writes from one of them is rarely alone.
    """

    def __init__(self) -> None:
        self._districts: dict[tuple[str, str, str], dict[str, PostalArea]] = {}

    async def find(self, pool: Pool, country: str, code: str) -> PostalArea | None:
        """The area of a code as people write it, or None. Raises Unavailable."""
        country, code = postal_key(country, code)
        if not code:
            return None
        district = (country, code[:3] + "00", code[:3] + "99") if country == "US" else (country, code, code)
        areas = self._districts.pop(district, None)
        if areas is None:
            async with session(pool) as connection:
                rows = await connection.fetch(_QUERIES["list_postal_areas"], *district)
            areas = {row["code"]: msgspec.convert(dict(row), PostalArea) for row in rows}
        self._districts[district] = areas  # the latest used are last
        if len(self._districts) > CACHED_DISTRICTS:
            del self._districts[next(iter(self._districts))]
        return areas.get(code)


async def load_postal_areas(connection: Connection) -> int:
    """Fill `postal_area` unless this version is there; returns how many areas there are. All or nothing, repeatable."""
    wanted = f"zipcodes {version('zipcodes')} shape {SHAPE}"
    async with connection.transaction():
        await connection.execute(_QUERIES["lock_reference_data"])
        loaded = await connection.fetchrow(_QUERIES["find_loaded_version"])
        if loaded and loaded["version"] == wanted:
            return int(loaded["rows"])
        areas = [msgspec.structs.astuple(area) for area in _united_states()]
        await connection.execute(_QUERIES["delete_postal_areas"], "US")
        columns = PostalArea.__struct_fields__
        await connection.copy_records_to_table("postal_area", records=areas, columns=columns)
        await connection.execute(_QUERIES["record_loaded_version"], wanted, len(areas))
    return len(areas)


def _united_states() -> Iterator[PostalArea]:
    """Withdrawn codes too: people go on writing them for years."""
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
    """Nought, nought is how the data says that it does not know."""
    latitude, longitude = float(record["lat"]), float(record["long"])
    return (latitude, longitude) if latitude or longitude else (None, None)
