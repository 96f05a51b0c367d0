"""Postgres: one pool per process under its role, SQL read from files by name, and which errors mean "not now".

jsonb columns travel as raw JSON bytes, so that msgspec decodes them straight into typed Structs and nothing else parses
them. No session state is ever set after connecting, so connections go back to the pool without a reset round trip.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg
import msgspec

from marketplace.database.logins import Role, login_of
from marketplace.runtime import clock
from marketplace.runtime.errors import Unavailable

Connection: TypeAlias = Any
"asyncpg's connection or its pool proxy: the driver's boundary."
T = TypeVar("T")
Pool: TypeAlias = Any

ACQUIRE_SECONDS: Final = 2.0
"A caller waits this long for a free connection, then is told to come back: queueing longer only moves the pile-up."

CONNECT_SECONDS: Final = 10.0
"A connection outside a pool is given up after this long."

READY: Final = 4
"Connections open from the start: a new one costs some 20 ms, which the first leads of a busy moment need not pay."

AT_ONCE: Final = 500
"Rows that the event loop converts in one go: ten milliseconds of it. More are converted in a thread."

CLOCK_SECONDS: Final = 60.0
"How often a process compares its clock with the database's, besides on each new connection."

SESSION: Final = {
    "statement_timeout": "10s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "5s",  # a stopped process must not hold a business's locks for longer
    "idle_session_timeout": "0",  # an idle connection of a pool stays
    "synchronous_commit": "on",
    "jit": "off",
    # Whatever a server, a database or a role sets as its default: these would change an answer, or refuse it.
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
    "log_parameter_max_length_on_error": "0",  # what a failed statement was called with stays out of the log
}
"""Settings of every connection. Those that only a superuser may set, the doctor looks at (UNPINNED)."""

UNPINNED: Final = {
    "session_replication_role": "origin",  # otherwise triggers and foreign keys are silent
    "zero_damaged_pages": "off",
    "ignore_checksum_failure": "off",
    "transaction_timeout": "0",  # PostgreSQL 17 and later; older ones refuse to be asked for it
    "restrict_nonsystem_relation_kind": "",  # releases since August 2024
}
"""Settings that a connection cannot make sure of itself, and the values that promises rest on."""

OWNER_SESSION: Final = SESSION | {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
"""For migrations, which may take their time; each of them bounds its own waiting for locks."""

PLANNING: Final = {"marketplace_reports": {"plan_cache_mode": "force_custom_plan"}}
"""What is read for people has filters of which most are not asked for: planned for those that are, each time, it finds
the index that they need. That takes a millisecond, which the hot path is spared."""

NOT_NOW: Final = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server died during COMMIT: the outcome is unknown, the caller asks again
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
"Errors after which the same call may well succeed a moment later; the caller never learns whether a commit happened."


async def open_pool(
    url: str, role: Role, *, size: int, at_once: int | None = None, master_key: bytes | None = None,
    on_connect: Callable[[Connection], Awaitable[None]] | None = None,
) -> Pool:  # fmt: skip
    """A pool whose every connection acts as `role` and nothing more; `size` at most, `at_once` (READY) to begin with.

    It authenticates as the login of that role in the installation of `master_key`; without one as the user of `url`.
    What `on_connect` raises on a new connection keeps that connection from being used, and the caller gets it.
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


async def connect(url: str, role: Role, *, master_key: bytes | None = None, name: str | None = None) -> Connection:
    """One connection as `open_pool` opens them, without its codecs. `name` is shown to the database's operator."""
    settings = _session_of(role) | {"application_name": name or role}
    return await asyncpg.connect(
        url, timeout=CONNECT_SECONDS, server_settings=settings, **_credentials(role, master_key)
    )


async def connect_owner(url: str, name: str) -> Connection:
    """One connection of the login that `url` names, which owns the schema."""
    return await asyncpg.connect(
        url, timeout=CONNECT_SECONDS, server_settings=OWNER_SESSION | {"application_name": name}
    )


async def connect_to_look(url: str, role: Role | None, *, master_key: bytes) -> Connection:
    """One connection that commits as the server has it set; of the login of `role`, or else of the user of `url`."""
    settings = {name: value for name, value in OWNER_SESSION.items() if name != "synchronous_commit"}
    credentials = {} if role is None else _credentials(role, master_key)
    return await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings=settings, **credentials)


def _session_of(role: Role) -> dict[str, str]:
    return {**SESSION, **PLANNING.get(role, {}), "role": role, "application_name": role}


def _credentials(role: Role, master_key: bytes | None) -> dict[str, str]:
    if master_key is None:
        return {}
    login = login_of(master_key, role)
    return {"user": login.name, "password": login.password}


async def set_codecs(connection: Connection) -> None:
    """Lets JSON travel as raw bytes over a connection that is in no pool of ours."""
    for name in ("jsonb", "json"):
        await connection.set_type_codec(
            name,
            schema="pg_catalog",
            format="binary",
            encoder=_encode_jsonb if name == "jsonb" else bytes,
            decoder=_decode_jsonb if name == "jsonb" else bytes,
        )


def _encode_jsonb(raw: bytes) -> bytes:
    return b"\x01" + raw  # the wire format of jsonb is a version byte and the text


def _decode_jsonb(raw: bytes) -> bytes:
    return raw[1:]


class _Clock:
    """When this process last compared its clock with the database's."""

    looked_at = -CLOCK_SECONDS


async def correct_clock(connection: Connection) -> None:
    """Goes by the database's clock where this machine's is wrong. An answer that was long on its way says nothing."""
    began = _Clock.looked_at = clock.monotonic()
    database_time = await connection.fetchval(SQL["read_clock"])
    took = timedelta(seconds=clock.monotonic() - began)
    if took < clock.TOLERANCE:
        clock.correct(database_time + took / 2)


async def _keep(connection: Connection) -> None:
    """Nothing to reset: see the module's second sentence."""


@asynccontextmanager
async def session(pool: Pool) -> AsyncIterator[Connection]:
    """One connection. Raises Unavailable for every error that means "not now"."""
    try:
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            if clock.monotonic() >= _Clock.looked_at + CLOCK_SECONDS:
                await correct_clock(connection)
            yield connection
    except NOT_NOW as error:
        raise Unavailable(type(error).__name__) from error


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """One transaction on one connection: committed on leaving, rolled back on any exception."""
    async with session(pool) as connection, connection.transaction():
        yield connection


def convert_rows(rows: Iterable[Any], shape: type[T]) -> tuple[T, ...]:
    """Rows whose columns are the fields of a Struct. Raises msgspec.ValidationError for one that is not."""
    return tuple(msgspec.convert(dict(row), shape) for row in rows)


async def convert_many(
    rows: Sequence[Any], shape: type[T], read: Callable[[Any], Mapping[str, Any]] = dict
) -> tuple[T, ...]:
    """As `convert_rows`, for a list that may have thousands of rows: those are converted in a thread.

    `read` makes the columns of one row. The event loop converts some 50 rows in a millisecond.
    """
    if len(rows) <= AT_ONCE:
        return tuple(msgspec.convert(read(row), shape) for row in rows)
    return await asyncio.to_thread(lambda: tuple(msgspec.convert(read(row), shape) for row in rows))


async def rehearse(connection: Connection, statement: str) -> None:
    """Runs a statement that does nothing without a value for its arguments, so that what a connection's first time
    costs, some ten milliseconds, is not paid by whoever comes first."""
    prepared = await connection.prepare(statement)
    await connection.fetch(statement, *(None for _ in prepared.get_parameters()))


class Queries:
    """The statements of one .sql file by their `-- name:` lines; the lines between name and statement say why.

    Raises KeyError for a name that the file does not have, at import time when modules bind their statements.
    """

    def __init__(self, beside: str, file_name: str = "queries.sql") -> None:
        self.path = Path(beside).with_name(file_name)
        parts = re.split(r"^-- name: (\w+)[^\n]*\n", self.path.read_text(), flags=re.MULTILINE)
        self.statements = {name: text.strip().rstrip(";") for name, text in zip(parts[1::2], parts[2::2], strict=True)}

    def __getitem__(self, name: str) -> str:
        return self.statements[name]


SQL: Final = Queries(__file__, "db.sql")


def violated(error: asyncpg.PostgresError) -> str | None:
    """The name of the constraint that a statement ran into: stores turn it into a word of the domain."""
    return getattr(error, "constraint_name", None)
