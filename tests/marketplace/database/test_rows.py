"""Rows of a query become Structs: their columns by name, jsonb by the type of its field, many of them off the loop."""

import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import msgspec
import pytest

from billing.pricing import FixedPayout, Payout, SharePayout
from marketplace.database.db import AT_ONCE, fetch_rows, find_row, load_record, load_row, set_codecs

ID = UUID(int=7)


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    at: datetime
    payout: Payout
    earlier: Payout | None
    notes: dict[str, int]
    tags: frozenset[str]
    steps: tuple[tuple[str, int], ...]
    keys: tuple[bytes, ...]
    text: bytes
    raw: msgspec.Raw
    label: str = "none"


class Number(msgspec.Struct, frozen=True, kw_only=True):
    n: int

    def __post_init__(self) -> None:
        THREADS.add(threading.get_ident())


THREADS: set[int] = set()

OFFER = """
select $1::uuid as id, timestamptz '2026-11-30 12:00Z' as at, '{"type": "fixed", "minor": 5}'::jsonb as payout,
       null::jsonb as earlier, '{"a": 1}'::jsonb as notes, array['x', 'y'] as tags, '[["p", 1]]'::jsonb as steps,
       array['\\x01'::bytea] as keys, '{"kept": 1}'::jsonb as text, '[2]'::jsonb as raw, 'unknown' as other
"""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    await set_codecs(connection)
    yield connection
    await connection.close()


async def test_a_row_becomes_a_struct_and_json_the_type_of_its_field(connection: asyncpg.Connection) -> None:
    offer = await load_row(connection, OFFER, Offer, ID)
    assert offer == Offer(
        id=ID,
        at=datetime(2026, 11, 30, 12, tzinfo=UTC),
        payout=FixedPayout(minor=5),
        earlier=None,
        notes={"a": 1},
        tags=frozenset({"x", "y"}),
        steps=(("p", 1),),
        keys=(b"\x01",),
        text=b'{"kept": 1}',
        raw=msgspec.Raw(b"[2]"),
    )


async def test_an_optional_column_is_decoded_where_it_has_a_value(connection: asyncpg.Connection) -> None:
    statement = OFFER.replace("null::jsonb", """'{"type": "share", "basis_points": 1}'::jsonb""")
    assert (await load_row(connection, statement, Offer, ID)).earlier == SharePayout(basis_points=1)


@pytest.mark.parametrize(
    ("column", "value"), [("$1::uuid", "7"), ('{"type": "fixed", "minor": 5}', '{"type": "fixed", "minor": "x"}')]
)
async def test_a_value_that_does_not_fit_its_field_is_refused(
    connection: asyncpg.Connection, column: str, value: str
) -> None:
    statement = OFFER.replace(column, value)
    arguments = (ID,) if "$1" in statement else ()
    with pytest.raises(msgspec.ValidationError):
        await load_row(connection, statement, Offer, *arguments)


async def test_a_query_without_a_row_gives_none_or_an_error(connection: asyncpg.Connection) -> None:
    nothing = "select 1 as n where false"
    assert await fetch_rows(connection, nothing, Number) == ()
    assert await find_row(connection, nothing, Number) is None
    with pytest.raises(LookupError):
        await load_row(connection, nothing, Number)
    with pytest.raises(LookupError):
        await load_record(connection, nothing)


@pytest.mark.parametrize(("rows", "on_the_loop"), [(AT_ONCE, True), (AT_ONCE + 1, False)])
async def test_many_rows_are_converted_in_a_thread_and_keep_their_order(
    connection: asyncpg.Connection, rows: int, on_the_loop: bool
) -> None:
    THREADS.clear()
    numbers = await fetch_rows(connection, "select generate_series(1, $1::int) as n", Number, rows)
    assert [number.n for number in numbers] == list(range(1, rows + 1))
    assert ({threading.get_ident()} == THREADS) is on_the_loop
