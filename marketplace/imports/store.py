"""The queries of imports as typed functions: one per query."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row
from marketplace.imports.wire import ImportState, ImportSubject, RowOutcome

SQL = Queries(__file__)


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """One import and its progress. `mapping` is JSON in the form of its subject."""

    id: UUID
    business_id: UUID
    subject: ImportSubject
    source: str
    mode: str | None
    state: ImportState
    actor: str
    digest: bytes
    mapping: bytes
    rows: int
    position: int
    taken: int
    repeated: int = msgspec.field(name="known")
    "Rows that were imported before."
    conflicts: int
    refused: int
    undone: int
    tries: int
    made_at: datetime
    ended_at: datetime | None
    undone_at: datetime | None


class RowJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of one row. `field` is the one at fault, None for the row as a whole."""

    number: int
    outcome: RowOutcome
    label: str = ""
    field: str | None = None
    code: str | None = None
    detail: str | None = None


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file to be imported, or previewed; `due_at` is None for one that is only previewed."""

    id: UUID
    business_id: UUID
    subject: ImportSubject
    mode: str | None
    actor: str
    digest: bytes
    mapping: bytes
    rows: int
    due_at: datetime | None
    made_at: datetime


async def insert_import(connection: Connection, new: NewFile, box: bytes, stale: datetime) -> None:
    """Store an import with its sealed file.

    Delete files that were previewed before `stale`, and the business's previous preview of this subject.
    """
    state = ImportState.previewed if new.due_at is None else ImportState.running
    await connection.execute(SQL["delete_files"], new.id, stale)
    await connection.execute(SQL["delete_previews"], new.business_id, new.subject)
    await connection.execute(
        SQL["insert_import"],
        new.id,
        new.business_id,
        new.subject,
        "csv",
        new.mode,
        state,
        new.actor,
        new.digest,
        new.mapping,
        new.rows,
        new.due_at,
        new.made_at,
    )
    await connection.execute(SQL["insert_file"], new.id, box, new.made_at)


async def insert_done(
    connection: Connection,
    id: UUID,
    business_id: UUID,
    subject: ImportSubject,
    actor: str,
    counts: tuple[int, int, int],
    now: datetime,
) -> None:
    """Record a call whose rows were imported at once. `counts` are the rows taken, repeated and in conflict."""
    await connection.execute(SQL["insert_done"], id, business_id, subject, actor, b"", *counts, now)


async def delete_file(connection: Connection, file_import: Import, stale: datetime) -> None:
    """Delete the file of an import that has ended, and files that were previewed before `stale`."""
    await connection.execute(SQL["delete_files"], file_import.id, stale)


async def read_file(connection: Connection, import_id: UUID) -> bytes | None:
    """Return the sealed file of an import, or None if it is no longer stored."""
    box: bytes | None = await connection.fetchval(SQL["read_file"], import_id)
    return box


async def find_running(
    connection: Connection, business_id: UUID, subject: ImportSubject, digest: bytes, mode: str | None
) -> UUID | None:
    """Return the running import of this file, or None. `digest` is the hash of file and mapping."""
    running: UUID | None = await connection.fetchval(SQL["find_running"], business_id, subject, digest, mode)
    return running


async def count_running(connection: Connection, business_id: UUID) -> int:
    """Count the imports of a business that run or are being undone."""
    count: int = await connection.fetchval(SQL["count_running"], business_id)
    return count


async def find_import(connection: Connection, import_id: UUID, business_id: UUID | None) -> Import | None:
    """Return an import, of this business if one is passed, or None."""
    return await find_row(connection, SQL["find_import"], Import, import_id, business_id)


async def list_imports(
    connection: Connection,
    business_id: UUID | None,
    mode: str,
    subject: ImportSubject | None,
    before: UUID | None,
    limit: int,
) -> tuple[Import, ...]:
    """Return imports in this mode, newest first, after the import `before`; previews are left out."""
    return await fetch_rows(connection, SQL["list_imports"], Import, business_id, subject, before, limit, mode)


async def claim_due(connection: Connection, until: datetime, now: datetime) -> UUID | None:
    """Lease one import that is due to the caller until a time, and return it; None if none is due."""
    claimed: UUID | None = await connection.fetchval(SQL["claim_due"], until, now)
    return claimed


async def save_mapping(connection: Connection, import_id: UUID, business_id: UUID, mapping: bytes) -> None:
    """Store the mapping of a previewed file."""
    await connection.execute(SQL["save_mapping"], import_id, business_id, mapping)


async def begin_import(
    connection: Connection, import_id: UUID, business_id: UUID, mapping: bytes, due_at: datetime, actor: str
) -> bool:
    """Begin to import a previewed file; return False if it was not in that state."""
    return await connection.fetchval(SQL["begin_import"], import_id, business_id, mapping, due_at, actor) is not None


async def advance(
    connection: Connection,
    file_import: Import,
    rows: Sequence[RowJudgement],
    counts: tuple[int, int, int, int],
    due_at: datetime,
) -> bool:
    """Record the rows of a batch, and move the import's position past them.

    Return False, without recording anything, if another process has taken the import over.
    """
    if await connection.fetchval(SQL["advance"], file_import.id, file_import.position, *counts, due_at) is None:
        return False
    columns = [
        [getattr(row, name) for row in rows] for name in ("number", "outcome", "label", "field", "code", "detail")
    ]
    await connection.execute(SQL["insert_rows"], file_import.id, *columns)
    return True


async def end_import(connection: Connection, import_id: UUID, state: ImportState, now: datetime) -> bool:
    """End a running import in `state`; return False if it was not running any more."""
    return await connection.fetchval(SQL["end_import"], import_id, state, now) is not None


async def give_up(connection: Connection, import_id: UUID, now: datetime) -> None:
    """End an import, or its undoing, as failed."""
    await connection.execute(SQL["give_up"], import_id, now)


async def begin_undo(
    connection: Connection, import_id: UUID, business_id: UUID | None, actor: str, due_at: datetime
) -> bool:
    """Begin to undo an import that has ended; return False for any other state."""
    return await connection.fetchval(SQL["begin_undo"], import_id, business_id, actor, due_at) is not None


async def advance_undo(connection: Connection, import_id: UUID, undone: int, due_at: datetime) -> bool:
    """Add `undone` to the number of rows removed; return False if the import is not being undone any more."""
    return await connection.fetchval(SQL["advance_undo"], import_id, undone, due_at) is not None


async def end_undo(connection: Connection, import_id: UUID, now: datetime) -> bool:
    """End the undoing of an import; return False if it was not being undone any more."""
    return await connection.fetchval(SQL["end_undo"], import_id, now) is not None


async def make_due(connection: Connection, import_id: UUID, at: datetime) -> None:
    """Allow any process to take the import over from `at`."""
    await connection.execute(SQL["make_due"], import_id, at)


async def list_rows(
    connection: Connection, import_id: UUID, after: int, outcome: str | None, limit: int
) -> tuple[RowJudgement, ...]:
    """Return rows after the row number `after`, in order; the `outcome` "left" selects all that were not imported."""
    return await fetch_rows(connection, SQL["list_rows"], RowJudgement, import_id, after, outcome, limit)
