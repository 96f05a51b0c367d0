"""Migrations: plain SQL files in order, forward only, each in one transaction, none ever edited once applied.

A file whose first line is `-- no-transaction` holds one statement that PostgreSQL takes only outside a transaction
(CREATE INDEX CONCURRENTLY); it must be harmless to run twice, since a crash may come between it and its record.
After the files come the reference data that ships with the code.
"""

import hashlib
import re
from collections.abc import Sequence
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import msgspec

from marketplace.db import Connection, Queries
from marketplace.settings import StartError

LOCK_TIMEOUT = "5s"  # a migration that waits for a table holds up everybody behind it: better to give way and try again
REFERENCE_DATA = ("marketplace.intake.postal:load_postal_areas",)
"""Functions of a connection that bring shipped data up to date, and do nothing where it is."""

_queries = Queries(__file__, "migrate.sql")
_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")


class MigrationFault(StrEnum):
    """Why a schema is left as it is."""

    SCHEMA_NEWER = "schema_newer"
    """The database has migrations that this code has never heard of."""
    MIGRATION_EDITED = "migration_edited"
    """A file was changed after it had been applied."""
    MIGRATION_MISSING = "migration_missing"
    """A migration that was applied is no longer among the files."""
    MIGRATION_LATE = "migration_late"
    """A file would have to be applied before one that already is."""
    MIGRATION_MISNAMED = "migration_misnamed"
    """A file's name is not NNNN_name.sql, or its number is taken."""
    MIGRATION_FAILED = "migration_failed"
    """PostgreSQL refused a file; nothing of it remains."""
    DATABASE_AWAY = "database_away"
    """PostgreSQL cannot be reached."""


class MigrationError(StartError):
    """The schema was not brought up to date; `code` is a MigrationFault."""


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One file, and whether the database has it."""

    version: int
    name: str
    sha256: str
    path: Path
    applied: bool


async def status(database_url: str, directory: Path | None = None) -> tuple[Migration, ...]:
    """Every migration in order. Changes nothing. Raises MigrationError where files and database do not fit together."""
    connection = await _connect(database_url)
    try:
        return await _compare(connection, directory or migrations_directory())
    finally:
        await connection.close()


async def migrate(
    database_url: str,
    *,
    directory: Path | None = None,
    to: int | None = None,
    reference_data: Sequence[str] = REFERENCE_DATA,
) -> tuple[Migration, ...]:
    """Apply what is missing, up to version `to` where given, and return it. Any number may run this at once.

    Reference data is loaded once the schema is whole. Raises MigrationError, with everything before the failure kept.
    """
    connection = await _connect(database_url)
    try:
        await connection.execute(_queries["lock_schema"])
        known = await _compare(connection, directory or migrations_directory())
        missing = tuple(one for one in known if not one.applied and (to is None or one.version <= to))
        if missing:
            await connection.execute(_queries["create_record"])
        for migration in missing:
            await _apply(connection, migration)
        if to is None:
            await _load(connection, reference_data)
        return missing
    finally:
        await connection.close()  # and with it the lock


def migrations_directory() -> Path:
    """Where the files are: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


async def _connect(database_url: str) -> Connection:
    try:
        return await asyncpg.connect(
            database_url, server_settings={"lock_timeout": "0", "application_name": "marketplace_migrate"}
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise MigrationError(
            MigrationFault.DATABASE_AWAY,
            f"PostgreSQL does not let us in ({type(error).__name__}).",
            "Check that DATABASE_URL names a running server, an existing database and a user who may use it.",
        ) from error


async def _compare(connection: Connection, directory: Path) -> tuple[Migration, ...]:
    rows = []
    if await connection.fetchval(_queries["record_exists"]):
        rows = await connection.fetch(_queries["list_applied"])
    applied = {row["version"]: row for row in rows}
    found = _read(directory, frozenset(applied))
    _refuse_unknown(applied, found)
    for one in found:
        if one.applied and applied[one.version]["sha256"] != one.sha256:
            raise MigrationError(
                MigrationFault.MIGRATION_EDITED,
                f"{one.path.name} was edited after it had been applied.",
                "Put the file back as it was, and make the change in a new migration.",
            )
        if not one.applied and one.version < (newest := max(applied, default=0)):
            raise MigrationError(
                MigrationFault.MIGRATION_LATE,
                f"{one.path.name} comes before {newest:04}, which is already applied.",
                f"Give it a number above {newest:04}.",
            )
    return found


def _refuse_unknown(applied: dict[int, asyncpg.Record], found: Sequence[Migration]) -> None:
    versions = {one.version for one in found}
    for version, row in applied.items():
        if version > max(versions, default=0):
            raise MigrationError(
                MigrationFault.SCHEMA_NEWER,
                f"The database has {row['name']}, which is newer than this code.",
                "Run the release that made it, or a later one.",
            )
        if version not in versions:
            raise MigrationError(
                MigrationFault.MIGRATION_MISSING,
                f"The database has {row['name']}, and there is no such file.",
                "Put the file back as it was.",
            )


def _read(directory: Path, applied: frozenset[int]) -> tuple[Migration, ...]:
    found: dict[int, Migration] = {}
    for path in sorted(directory.glob("*.sql")):
        named = _FILE_NAME.fullmatch(path.name)
        if named is None or int(named[1]) in found:
            raise MigrationError(
                MigrationFault.MIGRATION_MISNAMED,
                f"{path.name} is not a name for a migration, or its number is taken.",
                "Name it NNNN_what_it_does.sql, with the next free number.",
            )
        version = int(named[1])
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        found[version] = Migration(
            version=version, name=path.stem, sha256=sha256, path=path, applied=version in applied
        )
    return tuple(found.values())


async def _apply(connection: Connection, migration: Migration) -> None:
    sql = migration.path.read_text()
    record = (migration.version, migration.name, migration.sha256)
    try:
        if sql.startswith("-- no-transaction"):
            await connection.execute(sql)
            await connection.execute(_queries["insert_applied"], *record)
            return
        async with connection.transaction():
            await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            await connection.execute(sql)
            await connection.execute(_queries["insert_applied"], *record)
    except asyncpg.PostgresError as error:
        raise MigrationError(
            MigrationFault.MIGRATION_FAILED,
            f"{migration.path.name} was refused by PostgreSQL: {error}.",
            "Nothing of it remains: remove the cause and migrate again.",
        ) from error


async def _load(connection: Connection, reference_data: Sequence[str]) -> None:
    for name in reference_data:
        module, attribute = name.split(":")
        if _exists(module):
            await getattr(import_module(module), attribute)(connection)


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
