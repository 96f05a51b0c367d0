"""Migrations: SQL files applied in order, forward only, each in one transaction, never edited once applied.

A file whose first line is `-- no-transaction` holds one statement that PostgreSQL accepts only outside a transaction
(CREATE INDEX CONCURRENTLY); it must be repeatable, because a crash may come between it and its record. After the files,
the reference data that the code ships with is loaded.
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

from marketplace.database import logins
from marketplace.database.db import Connection, Queries, connect, connect_owner
from marketplace.database.engine_errors import database_error
from marketplace.database.logins import Role
from marketplace.runtime.settings import StartError

SCHEMA_FILE = "schema.sql"
"""The schema that all migrations make, generated for people to read; it is never applied."""

CLOSE_SECONDS = 5.0
LOCK_TIMEOUT = "5s"  # a migration that waits for a lock blocks all later statements on the table: give up and retry
REFERENCE_DATA = ("marketplace.intake.postal:load_postal_areas",)
"""Functions of a connection that bring shipped data up to date, and do nothing when it is."""

ROLE_IS_THERE = "exception when duplicate_object or unique_violation then null;"
ROLE_IS_THERE_OR_FORBIDDEN = "exception when duplicate_object or unique_violation or insufficient_privilege then null;"
"""Migrations create roles and continue when they exist. For a login that may not create roles, PostgreSQL reports the
missing privilege before it looks whether they exist. They do by then, so that a migration is applied with the second
text in place of the first."""

_queries = Queries(__file__, "migrate.sql")
_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")


class MigrationFault(StrEnum):
    """Reasons for which the schema is not changed."""

    SCHEMA_NEWER = "schema_newer"
    """The database has migrations that this code does not know."""
    MIGRATION_EDITED = "migration_edited"
    """A file was changed after it had been applied."""
    MIGRATION_MISSING = "migration_missing"
    """A migration that was applied is no longer among the files."""
    MIGRATION_LATE = "migration_late"
    """A file would have to be applied before one that already is."""
    MIGRATION_MISNAMED = "migration_misnamed"
    """A file's name is not NNNN_name.sql, or its number is taken."""
    MIGRATION_FAILED = "migration_failed"
    """PostgreSQL refused a file; it was rolled back."""
    DATABASE_AWAY = "database_away"
    """PostgreSQL cannot be reached."""
    ROLES_MISSING = "roles_missing"
    """Roles are missing, and this login may not create them."""


class MigrationError(StartError):
    """Raised when the schema was not brought up to date; `code` is a MigrationFault."""


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One file, and whether the database has it."""

    version: int
    name: str
    sha256: str
    path: Path
    applied: bool


async def status(
    database_url: str, directory: Path | None = None, *, role: Role | None = None, master_key: bytes | None = None
) -> tuple[Migration, ...]:
    """Return every migration in order, changing nothing. Raises MigrationError when files and database do not match.

    Reads as the owner of the schema, or as the login of `role` in the installation of `master_key`.
    """
    connection = await _connect(database_url, role, master_key)
    try:
        return await compare(connection, directory)
    except asyncpg.PostgresError as error:
        raise _refusal(error) from error
    finally:
        await connection.close(timeout=CLOSE_SECONDS)


async def migrate(
    database_url: str,
    master_key: bytes | None = None,
    *,
    directory: Path | None = None,
    to: int | None = None,
    reference_data: Sequence[str] = REFERENCE_DATA,
) -> tuple[Migration, ...]:
    """Apply the missing migrations, up to version `to` if set, and return them. Several processes may run it at once.

    With `master_key`, creates the installation's roles and logins first. Reference data is loaded once the schema is
    complete. Raises MigrationError; files applied before the failure stay applied.
    """
    connection = await _connect(database_url)
    try:
        await connection.execute(_queries["lock_schema"])
        if master_key is not None:
            await _prepare_logins(connection, master_key)
        missing = tuple(
            migration
            for migration in await compare(connection, directory)
            if not migration.applied and (to is None or migration.version <= to)
        )
        if missing:
            await connection.execute(_queries["create_record"])
        if master_key is not None and await connection.fetchval(_queries["record_exists"]):
            await connection.execute(_queries["let_record_be_read"])
        for migration in missing:
            await _apply(connection, migration)
        if to is None:
            await _load(connection, reference_data)
        return missing
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise _refusal(error) from error
    finally:
        await connection.close(timeout=CLOSE_SECONDS)  # which releases the lock


async def _prepare_logins(connection: asyncpg.Connection, master_key: bytes) -> None:
    try:
        await logins.prepare(connection, master_key)
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            MigrationFault.ROLES_MISSING,
            f"Roles are missing, and this login may not create them: {error}.",
            "Ask somebody who may create roles to run the output of `marketplace migrate --roles`, and migrate again.",
        ) from error


def migrations_directory() -> Path:
    """Return the directory of the files: in the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


async def _connect(database_url: str, role: Role | None = None, master_key: bytes | None = None) -> asyncpg.Connection:
    try:
        if role is not None:
            return await connect(database_url, role, master_key=master_key, name="marketplace_migrate")
        return await connect_owner(database_url, "marketplace_migrate")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError) as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> MigrationError:
    """Return the error for people for a failure of the database."""
    words = database_error(error)
    return MigrationError(words.code, words.sentence, words.remedy)


async def compare(connection: Connection, directory: Path | None = None) -> tuple[Migration, ...]:
    """Return every migration in order, as `status` does, over an open connection."""
    directory = directory or migrations_directory()
    rows = []
    if await connection.fetchval(_queries["record_exists"]):
        rows = await connection.fetch(_queries["list_applied"])
    applied = {row["version"]: row for row in rows}
    migrations = _read(directory, frozenset(applied))
    _refuse_unknown(applied, migrations)
    for migration in migrations:
        if migration.applied and applied[migration.version]["sha256"] != migration.sha256:
            raise MigrationError(
                MigrationFault.MIGRATION_EDITED,
                f"{migration.path.name} was edited after it had been applied.",
                "Put the file back as it was, and make the change in a new migration.",
            )
        if not migration.applied and migration.version < (newest := max(applied, default=0)):
            raise MigrationError(
                MigrationFault.MIGRATION_LATE,
                f"{migration.path.name} comes before {newest:04}, which is already applied.",
                f"Give it a number above {newest:04}.",
            )
    return migrations


def _refuse_unknown(applied: dict[int, asyncpg.Record], migrations: Sequence[Migration]) -> None:
    """Raise MigrationError when the database has a migration that is not among the files."""
    versions = {migration.version for migration in migrations}
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
    """Return the migrations in `directory` in order. Raises MigrationError for a wrong or repeated number."""
    migrations: dict[int, Migration] = {}
    for path in sorted(directory.glob("*.sql")):
        if path.name == SCHEMA_FILE:
            continue
        match = _FILE_NAME.fullmatch(path.name)
        if match is None or int(match[1]) in migrations:
            raise MigrationError(
                MigrationFault.MIGRATION_MISNAMED,
                f"{path.name} is not a name for a migration, or its number is taken.",
                "Name it NNNN_what_it_does.sql, with the next free number.",
            )
        version = int(match[1])
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        migrations[version] = Migration(
            version=version, name=path.stem, sha256=sha256, path=path, applied=version in applied
        )
    return tuple(migrations.values())


async def _apply(connection: Connection, migration: Migration) -> None:
    """Apply one migration and record it. Raises MigrationError."""
    sql = migration.path.read_text().replace(ROLE_IS_THERE, ROLE_IS_THERE_OR_FORBIDDEN)
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
            "It was rolled back: remove the cause and migrate again.",
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
