"""Postgres: one pool per process and role, SQL statements from files, and the errors that mean "try again later".

jsonb columns are transferred as raw JSON bytes, which msgspec decodes into typed Structs. No session state is set after
connecting, so that a connection returns to the pool without a reset round trip.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias, TypedDict, TypeVar

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

from marketplace.database.logins import Role, login_of
from marketplace.runtime import clock
from marketplace.runtime.errors import Unavailable
from routing.inquiry import Facts
from routing.journey import read_facts

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
"A connection of the caller's own, or one that a pool has lent."
Pool: TypeAlias = asyncpg.Pool
T = TypeVar("T", bound=msgspec.Struct)

ACQUIRE_SECONDS: Final = 2.0
"Longest wait for a free connection, then Unavailable: a longer queue would only prolong an overload."

CONNECT_SECONDS: Final = 10.0
"Longest wait for opening a connection outside a pool."

READY: Final = 4
"Connections opened at the start: opening one takes some 20 ms, which the first leads should not wait for."

COMPOSITE: Final = (
    msgspec.inspect.StructType,
    msgspec.inspect.CollectionType,
    msgspec.inspect.TupleType,
    msgspec.inspect.DictType,
    msgspec.inspect.RawType,
)
"Types of fields that a jsonb column fills."

AT_ONCE: Final = 500
"Rows that are converted on the event loop, in about ten milliseconds; more are converted in a thread."

CLOCK_SECONDS: Final = 60.0
"Interval at which a process compares its clock with the database's, besides on each new connection."

SESSION: Final = {
    "statement_timeout": "10s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "5s",  # a stopped process must not hold a business's locks for longer
    "idle_session_timeout": "0",  # an idle connection of a pool stays
    "synchronous_commit": "on",
    "jit": "off",
    # Defaults of a server, database or role that would change results or refuse statements.
    "search_path": "public, pg_temp",  # a temporary table never hides one of ours
    "row_security": "on",
    "default_transaction_isolation": "read committed",  # the award reads again what it has locked
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "exit_on_error": "off",
    "gin_fuzzy_search_limit": "0",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "default_text_search_config": "pg_catalog.simple",
    "log_parameter_max_length_on_error": "0",  # arguments of failed statements stay out of the log
}
"""Settings of every connection. The doctor checks those that only a superuser may set (UNPINNED)."""

UNPINNED: Final = {
    "session_replication_role": "origin",  # otherwise triggers and foreign keys are silent
    "zero_damaged_pages": "off",
    "ignore_checksum_failure": "off",
    "transaction_timeout": "0",  # PostgreSQL 17 and later; older ones refuse to be asked for it
    "restrict_nonsystem_relation_kind": "",  # releases since August 2024
}
"""Settings that a connection cannot set itself, and the values that the promises depend on."""

OWNER_SESSION: Final = SESSION | {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
"""Settings for migrations, which may take long; each of them bounds its own waiting for locks."""

PLANNING: Final = {
    "marketplace_reports": {"plan_cache_mode": "force_custom_plan"},
    "marketplace_worker": {"plan_cache_mode": "force_generic_plan"},
}
"""Extra settings by role. Report queries have optional filters: planned anew for each call, they use the index of the
filters in use. Planning takes a millisecond. Workers run the same few statements, whose plans suit any arguments:
PostgreSQL would plan the one that takes lists anew for each lead, as it expects longer lists than there are."""

NOT_NOW: Final = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server died during COMMIT: the outcome is unknown, the caller retries
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.ReadOnlySQLTransactionError,
)
"Errors after which the same call may succeed a moment later; whether the commit happened is unknown."


async def open_pool(
    url: str,
    role: Role,
    *,
    size: int,
    at_once: int | None = None,
    master_key: bytes | None = None,
    on_connect: Callable[[Connection], Awaitable[None]] | None = None,
) -> Pool:
    """Open a pool of at most `size` connections that act as `role` alone; `at_once` (READY) are opened at once.

    It authenticates as the login of that role, derived from `master_key`; without one as the user of `url`. An error
    that `on_connect` raises on a new connection is raised to the caller who needed it, and the connection is not used.
    """

    async def prepare(connection: Connection) -> None:
        await set_codecs(connection)
        await correct_clock(connection)
        if on_connect is not None:
            await on_connect(connection)

    return await asyncpg.create_pool(
        url,
        min_size=min(READY if at_once is None else at_once, size),
        max_size=size,
        init=prepare,
        reset=_keep,
        max_inactive_connection_lifetime=0,
        timeout=ACQUIRE_SECONDS,
        command_timeout=15,
        server_settings=_session_of(role),
        **_credentials(role, master_key),
    )


async def connect(
    url: str, role: Role, *, master_key: bytes | None = None, name: str | None = None
) -> asyncpg.Connection:
    """Open one connection like those of `open_pool`, without codecs. `name` is the application_name in Postgres."""
    settings = _session_of(role) | {"application_name": name or role}
    return await asyncpg.connect(
        url, timeout=CONNECT_SECONDS, server_settings=settings, **_credentials(role, master_key)
    )


async def connect_owner(url: str, name: str) -> asyncpg.Connection:
    """Open one connection as the user of `url`, who owns the schema."""
    return await asyncpg.connect(
        url, timeout=CONNECT_SECONDS, server_settings=OWNER_SESSION | {"application_name": name}
    )


async def connect_to_look(url: str, role: Role | None, *, master_key: bytes) -> asyncpg.Connection:
    """Open one connection with the server's own synchronous_commit; as the login of `role`, or as the user of `url`."""
    settings = {name: value for name, value in OWNER_SESSION.items() if name != "synchronous_commit"}
    credentials = _Credentials() if role is None else _credentials(role, master_key)
    return await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings=settings, **credentials)


def _session_of(role: Role) -> dict[str, str]:
    return {**SESSION, **PLANNING.get(role, {}), "role": role, "application_name": role}


class _Credentials(TypedDict, total=False):
    """User and password of a connection; without them it has those of the URL."""

    user: str
    password: str


def _credentials(role: Role, master_key: bytes | None) -> _Credentials:
    if master_key is None:
        return {}
    login = login_of(master_key, role)
    return {"user": login.name, "password": login.password}


async def set_codecs(connection: Connection) -> None:
    """Transfer JSON as raw bytes over this connection, which belongs to no pool of `open_pool`."""
    for name, encode, decode in (("jsonb", _encode_jsonb, _decode_jsonb), ("json", bytes, bytes)):
        await connection.set_type_codec(name, schema="pg_catalog", format="binary", encoder=encode, decoder=decode)


def _encode_jsonb(raw: bytes) -> bytes:
    return b"\x01" + raw  # the wire format of jsonb is a version byte and the text


def _decode_jsonb(raw: bytes) -> bytes:
    return raw[1:]


class _Clock:
    """Monotonic time of this process's last comparison of its clock with the database's."""

    compared_at = -CLOCK_SECONDS


async def correct_clock(connection: Connection) -> None:
    """Adjust `clock.now` to the database's clock. An answer slower than clock.TOLERANCE is ignored as too inexact."""
    began = _Clock.compared_at = clock.monotonic()
    database_time = await connection.fetchval(SQL["read_clock"])
    took = timedelta(seconds=clock.monotonic() - began)
    if took < clock.TOLERANCE:
        clock.correct(database_time + took / 2)


async def _keep(connection: Connection) -> None:
    """Reset nothing when a connection returns to the pool: no session state is ever set."""


@asynccontextmanager
async def session(pool: Pool) -> AsyncIterator[Connection]:
    """Yield one connection. Raises Unavailable for every error of NOT_NOW."""
    try:
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            try:
                if clock.monotonic() >= _Clock.compared_at + CLOCK_SECONDS:
                    await correct_clock(connection)
                yield connection
            except asyncio.CancelledError:
                await _end_statement(connection)
                raise
    except NOT_NOW as error:
        raise Unavailable(type(error).__name__) from error


END_SECONDS: Final = 2.0
"Limit on ending what a cancelled task began; after it the connection is lent as it is, and fails if it is broken."


async def _end_statement(connection: Connection) -> None:
    """End what a cancelled task began on a connection, so that its pool can lend it again.

    A statement is prepared and then executed. A task that is cancelled in between leaves a transaction open that nobody
    sees: it holds back the cleaning of tables, and the next one cannot choose its isolation.
    """
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await connection.execute("select", timeout=END_SECONDS)


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """Yield a connection in a transaction: committed on leaving, rolled back on any exception."""
    async with session(pool) as connection, connection.transaction():
        yield connection


async def fetch_rows(connection: Connection, statement: str, shape: type[T], *arguments: object) -> tuple[T, ...]:
    """Run a query and return each row as a Struct, as `convert_row` does; more than AT_ONCE rows in a thread."""
    rows = await connection.fetch(statement, *arguments)
    if len(rows) <= AT_ONCE:
        return tuple(convert_row(row, shape) for row in rows)
    return await asyncio.to_thread(lambda: tuple(convert_row(row, shape) for row in rows))


async def find_row(connection: Connection, statement: str, shape: type[T], *arguments: object) -> T | None:
    """Run a query and return its first row as a Struct, as `convert_row` does; None when it has no row."""
    row = await connection.fetchrow(statement, *arguments)
    return None if row is None else convert_row(row, shape)


async def load_row(connection: Connection, statement: str, shape: type[T], *arguments: object) -> T:
    """Run a query and return its first row as a Struct, as `convert_row` does. Raises LookupError for no row."""
    return convert_row(await load_record(connection, statement, *arguments), shape)


async def load_record(connection: Connection, statement: str, *arguments: object) -> asyncpg.Record:
    """Run a query and return its first row, to read by column names. Raises LookupError for no row."""
    row = await connection.fetchrow(statement, *arguments)
    if row is None:
        raise LookupError("The query returned no row.")
    return row


def convert_row(row: asyncpg.Record, shape: type[T]) -> T:
    """Return a row as a Struct that has its columns as fields; a jsonb column is decoded to the type of its field.

    A field of type bytes keeps the JSON text. Columns without a field are ignored. Facts are revised by the journey
    that the function facts_at adds to them. Raises msgspec.ValidationError when a value does not fit.
    """
    fields = dict(row.items())
    for name, decode in _json_fields(shape):
        if type(value := fields.get(name)) is bytes:
            fields[name] = decode(value)
    return msgspec.convert(fields, shape)


@cache
def _json_fields(shape: type) -> tuple[tuple[str, Callable[[bytes], object]], ...]:
    """Return the fields that JSON objects and arrays may fill, each with the decoder of its type."""
    kinds = {field.encode_name: field.type for field in msgspec.structs.fields(shape)}
    return tuple(
        (name, _decoder(kind)) for name, kind in kinds.items() if _is_composite(msgspec.inspect.type_info(kind))
    )


def _decoder(kind: Any) -> Callable[[bytes], object]:
    if kind is Facts:
        return read_facts
    return msgspec.Raw if kind is msgspec.Raw else msgspec.json.Decoder(kind).decode


def _is_composite(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(map(_is_composite, kind.types))
    return isinstance(kind, COMPOSITE)


async def rehearse(connection: Connection, statement: str) -> None:
    """Run a read-only statement with null arguments.

    Its first use on a connection takes some ten milliseconds more, which the first lead then does not wait for.
    """
    prepared = await connection.prepare(statement)
    await connection.fetch(statement, *(None for _ in prepared.get_parameters()))


class Queries:
    """Statements of one .sql file, by the names in their `-- name:` lines.

    Raises KeyError for an unknown name, at import time when modules bind their statements.
    """

    def __init__(self, beside: str, file_name: str = "queries.sql") -> None:
        self.path = Path(beside).with_name(file_name)
        parts = re.split(r"^-- name: (\w+)[^\n]*\n", self.path.read_text(), flags=re.MULTILINE)
        self.statements = {name: text.strip().rstrip(";") for name, text in zip(parts[1::2], parts[2::2], strict=True)}

    def __getitem__(self, name: str) -> str:
        return self.statements[name]


SQL: Final = Queries(__file__, "db.sql")


def violated(error: asyncpg.PostgresError) -> str | None:
    """Return the name of the constraint that a statement violated; stores map it to an error of the domain."""
    return getattr(error, "constraint_name", None)
