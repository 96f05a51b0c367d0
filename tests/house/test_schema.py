"""migrations/schema.sql, which people read, is what the migrations make."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from marketplace.database.migrate import SCHEMA_FILE, migrations_directory
from tests.house.schema import WIDTH, render, wrap

PRINTED_BY = 18
"""The PostgreSQL of the wheel; others print the same definition in other words."""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_the_printed_schema_is_what_the_migrations_make(connection: asyncpg.Connection) -> None:
    if connection.get_server_version().major != PRINTED_BY:
        pytest.skip(f"PostgreSQL {PRINTED_BY} printed the file")
    printed = (migrations_directory() / SCHEMA_FILE).read_text()
    if await render(connection) != printed:
        pytest.fail(f"migrations/{SCHEMA_FILE} is not what the migrations make. Run: make schema", pytrace=False)


async def test_the_printed_schema_has_every_table_view_and_function(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch(
        "select 'table ' || relname as name from pg_class"
        " where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition"
        " union all select 'view ' || viewname from pg_views where schemaname = 'public'"
        " union all select 'function ' || proname from pg_proc"
        " where pronamespace = 'public'::regnamespace and probin is null"
    )
    printed = (migrations_directory() / SCHEMA_FILE).read_text()
    assert len(rows) > 60
    assert [row["name"] for row in rows if f"create {row['name']}" not in printed] == []


def test_a_long_definition_is_broken_between_words_and_never_inside_a_literal() -> None:
    literal = f"'{'a b ' * 40}'"
    text = f"constraint kinds check (kind in ({', '.join(['word'] * 60)}, {literal}))"
    lines = wrap(text, "    ").split("\n")
    assert len(lines) > 3
    assert all(len(line) <= WIDTH for line in lines if literal not in line)
    assert " ".join(line.strip() for line in lines) == text
