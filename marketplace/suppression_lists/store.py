"""Statements of lists as typed functions: one per query, without a decision."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row, load_record, violated
from marketplace.suppression_lists.reading import ListRowFault

SQL = Queries(__file__)

PUBLISHING_SECONDS = 900.0
"Limit of a statement that reads or writes a whole list. 5,000,000 members take a minute or two."


class ListKind(StrEnum):
    """Kind of a list, by the consequence for a lead whose person is on it."""

    do_not_contact = "do_not_contact"
    """Nobody gets the lead."""
    own_customers = "own_customers"
    """The business whose list it is does not get the lead."""


class ListImportState(StrEnum):
    """State of the import of a file into a list."""

    running = "running"
    """Rows are being read. The list is still as it was."""
    done = "done"
    """The list has the rows of the file."""
    failed = "failed"
    """The file could not be read to its end. The list is as it was."""
    undone = "undone"
    """The list is as it was before."""


class ImportWay(StrEnum):
    """Effect of a file on the members that the list has already."""

    whole = "whole"
    """The file is the whole list: a member that is not in it leaves the list."""
    add = "add"
    """The rows of the file are added."""


class ContactList(msgspec.Struct, frozen=True, kw_only=True):
    """One list. `number` is its number in the rows of its members; `source` is the file that it is refreshed from."""

    id: UUID
    number: int
    kind: ListKind
    business_id: UUID | None
    name: str
    source: str | None
    refresh_hours: int | None
    maximum_age_days: int
    stops_sales: bool
    version: int
    members: int
    made_at: datetime
    refreshed_at: datetime | None


class ListImport(msgspec.Struct, frozen=True, kw_only=True):
    """Import of one file. `rows` = `readable` + `faulty`; `repeated` counts keys that came a second time."""

    id: UUID
    number: int
    list_id: UUID
    state: ListImportState
    way: ImportWay
    file_name: str
    actor: str
    position: int
    digest: bytes
    rows: int
    readable: int
    faulty: int
    repeated: int
    added: int
    removed: int
    version: int | None
    failure: str | None
    due_at: datetime | None
    made_at: datetime
    ended_at: datetime | None


class NamedImport(ListImport, frozen=True, kw_only=True):
    """An import with the name of its list."""

    list_name: str


class ListTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a list, apart from its kind and name."""

    source: str | None = None
    refresh_hours: int | None = None
    maximum_age_days: int = 31
    stops_sales: bool = False


async def insert_list(
    connection: Connection,
    list_id: UUID,
    kind: ListKind,
    business_id: UUID | None,
    name: str,
    terms: ListTerms,
    now: datetime,
    actor: str,
) -> bool:
    """Insert a list; return False, with nothing written, if there is one with this name."""
    try:
        await connection.execute(
            SQL["insert_list"], list_id, kind, business_id, name, *msgspec.structs.astuple(terms), now, actor
        )
    except asyncpg.UniqueViolationError as error:
        if violated(error) == "contact_list_once":
            return False
        raise
    return True


async def change_list(connection: Connection, list_id: UUID, terms: ListTerms) -> None:
    await connection.execute(SQL["change_list"], list_id, *msgspec.structs.astuple(terms))


async def find_list(connection: Connection, list_id: UUID, business_id: UUID | None) -> ContactList | None:
    """Find a list; with `business_id`, only one of this business."""
    return await find_row(connection, SQL["find_list"], ContactList, list_id, business_id)


async def find_named_list(
    connection: Connection, kind: ListKind, business_id: UUID | None, name: str
) -> ContactList | None:
    return await find_row(connection, SQL["find_named_list"], ContactList, kind, business_id, name)


async def list_lists(
    connection: Connection, kind: ListKind, business_id: UUID | None, before: UUID | None, limit: int
) -> tuple[ContactList, ...]:
    """List up to `limit` lists of a kind that are older than `before`, newest first."""
    return await fetch_rows(connection, SQL["list_lists"], ContactList, kind, business_id, before, limit)


async def find_names_with(connection: Connection, keys: Sequence[bytes]) -> tuple[str, ...]:
    """Find the names of the lists of people who must not be contacted that have a person with one of these keys."""
    return tuple(row["name"] for row in await connection.fetch(SQL["find_names_with"], keys))


async def count_lists(connection: Connection, business_id: UUID) -> int:
    count: int = await connection.fetchval(SQL["count_lists"], business_id)
    return count


async def list_due(connection: Connection, now: datetime) -> tuple[ContactList, ...]:
    """List the lists whose source is to be read again."""
    return await fetch_rows(connection, SQL["list_due"], ContactList, now)


async def insert_import(
    connection: Connection,
    import_id: UUID,
    list_id: UUID,
    way: ImportWay,
    file_name: str,
    actor: str,
    due_at: datetime,
    now: datetime,
) -> bool:
    """Insert a running import; return False, with nothing written, if another file is being read into the list."""
    try:
        await connection.execute(SQL["insert_import"], import_id, list_id, way, file_name, actor, due_at, now)
    except asyncpg.UniqueViolationError as error:
        if violated(error) == "list_import_one_at_a_time":
            return False
        raise
    return True


async def find_running(connection: Connection, list_id: UUID) -> ListImport | None:
    return await find_row(connection, SQL["find_running"], ListImport, list_id)


async def find_import(connection: Connection, import_id: UUID) -> ListImport | None:
    return await find_row(connection, SQL["find_import"], ListImport, import_id)


async def find_published(connection: Connection, list_id: UUID, version: int) -> ListImport | None:
    """Find the import that made a version of a list."""
    return await find_row(connection, SQL["find_published"], ListImport, list_id, version)


async def list_imports(connection: Connection, list_id: UUID, limit: int) -> tuple[ListImport, ...]:
    """List the imports of a list, newest first."""
    return await fetch_rows(connection, SQL["list_imports"], ListImport, list_id, limit)


async def list_named_imports(
    connection: Connection, kind: ListKind, business_id: UUID | None, limit: int
) -> tuple[NamedImport, ...]:
    """List the imports into the lists of a kind, or of one business, newest first."""
    return await fetch_rows(connection, SQL["list_named_imports"], NamedImport, kind, business_id, limit)


async def count_kept_away(connection: Connection, business_id: UUID, since: datetime, until: datetime) -> int:
    """Count the leads that a business would have been offered, were their person not on a list of its own."""
    count: int = await connection.fetchval(SQL["count_kept_away"], business_id, since, until)
    return count


async def claim_import(connection: Connection, import_id: UUID, due_at: datetime, now: datetime) -> bool:
    """Take over an import whose process has stopped; return whether it was taken over."""
    return await connection.fetchval(SQL["claim_import"], import_id, due_at, now) is not None


async def copy_keys(connection: Connection, number: int, keys: Sequence[bytes]) -> None:
    await connection.copy_records_to_table(
        "list_staging", records=((number, key) for key in keys), columns=("import", "key")
    )


async def advance(connection: Connection, position: int, moved: ListImport, due_at: datetime) -> bool:
    """Store an import that was at `position` and has moved; return False if another process has moved it."""
    counts = (moved.rows, moved.readable, moved.faulty)
    values = (moved.id, position, moved.position, moved.digest, *counts, due_at)
    return await connection.fetchval(SQL["advance"], *values) is not None


async def insert_faults(connection: Connection, import_id: UUID, faults: Sequence[ListRowFault]) -> None:
    rows, codes = [fault.row for fault in faults], [fault.code for fault in faults]
    await connection.execute(SQL["insert_faults"], import_id, rows, codes)


async def list_faults(connection: Connection, import_id: UUID) -> tuple[ListRowFault, ...]:
    """List the first faulty rows of an import, in the order of the file."""
    return await fetch_rows(connection, SQL["list_faults"], ListRowFault, import_id)


async def delete_staging(connection: Connection, number: int) -> None:
    await connection.execute(SQL["delete_staging"], number, timeout=PUBLISHING_SECONDS)


async def fail_import(connection: Connection, import_id: UUID, failure: str, now: datetime) -> bool:
    return await connection.fetchval(SQL["fail_import"], import_id, failure, now) is not None


async def lock_list(connection: Connection, list_id: UUID) -> int | None:
    """Lock a list and return its version, None if it was removed."""
    version: int | None = await connection.fetchval(SQL["lock_list"], list_id)
    return version


async def allow_long_statements(connection: Connection) -> None:
    """Let statements of this transaction take PUBLISHING_SECONDS."""
    await connection.execute(f"set local statement_timeout = '{PUBLISHING_SECONDS:.0f}s'; set local work_mem = '32MB'")


async def purge_members(connection: Connection, number: int) -> None:
    await connection.execute(SQL["purge_members"], number, timeout=PUBLISHING_SECONDS)


async def end_members(connection: Connection, number: int, version: int, import_number: int) -> int:
    """End the membership of keys that an import did not have; return their number."""
    values = (number, version, import_number)
    count: int = await connection.fetchval(SQL["end_members"], *values, timeout=PUBLISHING_SECONDS)
    return count


async def insert_members(connection: Connection, number: int, version: int, import_number: int) -> tuple[int, int]:
    """Add the keys of an import; return how many are new, and how many of the file came a second time."""
    values = (number, version, import_number)
    rows = await connection.fetch(SQL["insert_members"], *values, timeout=PUBLISHING_SECONDS)
    return rows[0]["added"], rows[0]["repeated"]


async def raise_serial(connection: Connection) -> int:
    """Raise the number of the last change of any list, and return it. Locks it until the end of the transaction."""
    serial: int = (await load_record(connection, SQL["raise_serial"]))["serial"]
    return serial


async def publish_list(connection: Connection, list_id: UUID, version: int, difference: int, now: datetime) -> None:
    await connection.execute(SQL["publish_list"], list_id, version, difference, now)


async def end_import(
    connection: Connection, run: ListImport, counts: tuple[int, int, int], version: int, serial: int, now: datetime
) -> bool:
    """End an import with its repeated, added and removed keys; False if it does not run any more."""
    return await connection.fetchval(SQL["end_import"], run.id, *counts, version, serial, now) is not None


async def undo_version(connection: Connection, number: int, version: int) -> int:
    """Take back the changes of a list's last version; return by how much its members change."""
    gone: int = await connection.fetchval(SQL["undo_added"], number, version, timeout=PUBLISHING_SECONDS)
    back: int = await connection.fetchval(SQL["undo_removed"], number, version, timeout=PUBLISHING_SECONDS)
    return back - gone


async def mark_undone(connection: Connection, import_id: UUID, serial: int) -> bool:
    return await connection.fetchval(SQL["mark_undone"], import_id, serial) is not None


async def mark_list_removed(connection: Connection, list_id: UUID, now: datetime) -> bool:
    return await connection.fetchval(SQL["mark_list_removed"], list_id, now) is not None


async def delete_members(connection: Connection, number: int) -> None:
    await connection.execute(SQL["delete_members"], number, timeout=PUBLISHING_SECONDS)
