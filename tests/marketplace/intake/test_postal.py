from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import asyncpg
import pytest

from marketplace.intake import postal
from marketplace.intake.postal import PostalBook, load_postal_areas, postal_key

TABLES = """
create table postal_area (
    country text not null, code text not null, city text not null, region text, latitude float8, longitude float8,
    time_zone text, primary key (country, code)
);
create table reference_data (
    name text primary key, version text not null, rows int not null, loaded_at timestamptz not null
);
"""


@pytest.fixture
async def connection(empty_database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(TABLES)
    yield connection
    await connection.close()


async def test_the_areas_are_loaded_once_quickly_and_counted(connection: Any) -> None:
    started = perf_counter()
    count = await load_postal_areas(connection)
    assert perf_counter() - started < 30
    assert count == await connection.fetchval("select count(*) from postal_area") > 40_000
    first = await connection.fetchrow("select version, rows, loaded_at from reference_data where name = 'postal_area'")
    assert await load_postal_areas(connection) == count
    assert first == await connection.fetchrow("select version, rows, loaded_at from reference_data")
    assert first["version"].startswith("zipcodes ")


async def test_another_version_replaces_the_areas(connection: Any) -> None:
    await load_postal_areas(connection)
    await connection.execute("update reference_data set version = 'older'")
    await connection.execute("insert into postal_area (country, code, city) values ('US', 'gone', 'Nowhere')")
    await load_postal_areas(connection)
    assert await connection.fetchval("select count(*) from postal_area where code = 'gone'") == 0


async def test_areas_have_a_centre_and_a_zone_except_where_mail_has_no_place(pool: Any) -> None:
    async with pool.acquire() as connection:
        await load_postal_areas(connection)
    book = PostalBook()
    chicago = await book.find(pool, "US", "60614-1234")
    assert chicago is not None
    assert (chicago.city, chicago.region, chicago.time_zone) == ("Chicago", "IL", "America/Chicago")
    assert chicago.latitude == pytest.approx(41.9229)
    army = await book.find(pool, "US", "09000")
    assert army is not None
    assert (army.latitude, army.longitude, army.time_zone) == (None, None, None)
    assert await book.find(pool, "US", "00000") is None
    assert await book.find(pool, "PR", "00901") is not None


async def test_a_district_is_loaded_once_and_the_least_used_leaves_the_cache(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postal, "CACHED_DISTRICTS", 2)
    insert = "insert into postal_area (country, code, city) values ('US', $1, 'Town')"
    await pool.executemany(insert, [("00101",), ("00199",), ("00202",), ("00303",)])
    book = PostalBook()
    for code in ("00101", "00202", "00101", "00303"):  # the district of 00202 leaves the cache
        assert await book.find(pool, "US", code) is not None
    await pool.execute("delete from postal_area")
    assert await book.find(pool, "US", "00199") is not None
    assert await book.find(pool, "US", "00202") is None


@pytest.mark.parametrize(
    ("country", "code", "expected"),
    [
        ("US", " 60614 ", ("US", "60614")),
        ("US", "60614-1234", ("US", "60614")),
        ("US", "606141234", ("US", "60614")),
        ("US", "6061", ("US", "")),
        ("PR", "00901", ("US", "00901")),
        ("GB", "sw1a  1aa", ("GB", "SW1A 1AA")),
    ],
)
def test_codes_are_found_in_every_usual_spelling(country: str, code: str, expected: tuple[str, str]) -> None:
    assert postal_key(country, code) == expected
