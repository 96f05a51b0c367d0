"""Import files into lists, undo imports, remove lists.

    read some rows in a thread → in one transaction: their keys into a staging table, the new position → … → in one
    transaction: the difference between the file and the list, its new version, the audit row

So a list changes as a whole or not at all, a file of any length takes the same memory, and an import that was killed
continues at its last position. A lead is checked against the versions that were published when its award began.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.runtime import clock, errors, failpoints, ids
from marketplace.security import audit
from marketplace.security.sealing import Sealer
from marketplace.suppression_lists import source_store
from marketplace.suppression_lists import store as lists_store
from marketplace.suppression_lists.reading import LONGEST_ROW, ListBatch, RowReader, read_batches
from marketplace.suppression_lists.store import (
    ContactList,
    ImportWay,
    ListImport,
    ListImportState,
    ListKind,
    ListTerms,
)
from marketplace.text.faults import Fault

LEASE: Final = timedelta(seconds=30)
"Longer than one batch takes. If a process has not moved the due time by then, it has stopped."
MOST_FAULTS: Final = 100
"Faulty rows of an import that are stored with their numbers; all are counted."
MOST_LISTS: Final = 20
"Limit of the lists of one business."
LEAST_SHARE: Final = 0.5
"A file with fewer rows than this share of the list's members does not replace it, unless that is confirmed."
KEPT_AWAY_DAYS: Final = 30
"Whole days in UTC over which a business sees how many leads its lists kept away."
FEWEST_SHOWN: Final = 5
"A smaller number is not shown: a list of one person would tell whether that person has asked."
HEAD_BYTES: Final = LONGEST_ROW

Progress = Callable[[ListImport], None]
Digest: TypeAlias = Any
"An object of hashlib, whose type has no public name."


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Way in which a file is imported. `expected_rows` is the number of rows that its maker states, if any.

    `country` is that of numbers in national form. With `accepts_smaller`, a file may replace a list of more than twice
    its size; with `confirmed_rows`, one with half of so many rows may, whatever the list has.
    """

    way: ImportWay = ImportWay.whole
    country: str = "US"
    expected_rows: int | None = None
    accepts_smaller: bool = False
    confirmed_rows: int | None = None


class _ListTakenOver(Exception):
    """Raised when another process has taken the import over."""


# Lists.


async def make_list(
    pool: Pool, actor: str, kind: ListKind, business_id: UUID | None, name: str, terms: ListTerms
) -> ContactList:
    """Make a list without members. Raises Conflict for a name that is used, and for more than MOST_LISTS."""
    now, list_id = clock.now(), clock.new_id()
    async with transaction(pool) as connection:
        if business_id is not None and await lists_store.count_lists(connection, business_id) >= MOST_LISTS:
            raise errors.Conflict(f"You have {MOST_LISTS} lists. Remove one, or add the rows to one of them.")
        if not await lists_store.insert_list(connection, list_id, kind, business_id, name, terms, now, actor):
            raise errors.Conflict("There is a list with this name. Choose another name, or import into that list.")
        await audit.record(connection, now, actor, "list.create", ids.encode("list", list_id), kind=kind)
    return await load_list(pool, list_id, business_id)


async def change_list(pool: Pool, actor: str, list_id: UUID, terms: ListTerms) -> ContactList:
    """Change the settings of a list. Raises NotFound."""
    await load_list(pool, list_id, None)
    async with transaction(pool) as connection:
        await lists_store.change_list(connection, list_id, terms)
        await audit.record(
            connection, clock.now(), actor, "list.change", ids.encode("list", list_id), stops_sales=terms.stops_sales
        )
    return await load_list(pool, list_id, None)


async def load_list(pool: Pool, list_id: UUID, business_id: UUID | None) -> ContactList:
    """Return a list. Raises NotFound for an unknown one, and for one that is not the business's, if one is stated."""
    async with session(pool) as connection:
        contact_list = await lists_store.find_list(connection, list_id, business_id)
    if contact_list is None:
        raise errors.NotFound("There is no such list.")
    return contact_list


def is_stale(contact_list: ContactList, now: datetime) -> bool:
    """Return whether a list is older than its maximum age, or was never filled."""
    limit = timedelta(days=contact_list.maximum_age_days)
    return contact_list.refreshed_at is None or now - contact_list.refreshed_at > limit


async def load_kept_away(connection: Connection, business_id: UUID, now: datetime) -> int | None:
    """Return how many leads a business's lists kept from it in the last whole days; None for few or none."""
    until = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = until - timedelta(days=KEPT_AWAY_DAYS)
    count = await lists_store.count_kept_away(connection, business_id, since, until)
    return count if count >= FEWEST_SHOWN else None


async def remove_list(pool: Pool, actor: str, contact_list: ContactList) -> None:
    """Remove a list and its members: no lead is checked against it any more. Raises NotFound if it was removed."""
    now = clock.now()
    async with transaction(pool) as connection:
        await lists_store.allow_long_statements(connection)
        running = await lists_store.find_running(connection, contact_list.id)
        if not await lists_store.mark_list_removed(connection, contact_list.id, now):
            raise errors.NotFound("There is no such list.")
        if running is not None:
            await lists_store.fail_import(connection, running.id, "list_removed", now)
            await lists_store.delete_staging(connection, running.number)
        await lists_store.delete_members(connection, contact_list.number)
        await source_store.delete_source(connection, contact_list.id)
        serial = await lists_store.raise_serial(connection)
        subject = ids.encode("list", contact_list.id)
        await audit.record(connection, now, actor, "list.remove", subject, members=contact_list.members, serial=serial)


# Imports.


async def import_path(
    pool: Pool,
    sealer: Sealer,
    actor: str,
    contact_list: ContactList,
    path: Path,
    options: ImportOptions,
    progress: Progress = lambda run: None,
) -> ListImport:
    """Import a file, or continue the import of this file that was interrupted, and return the import as it ended.

    Raises InvalidInput if the file is cut off, is not a list, or is much smaller than the list; Conflict if another
    file is being read into the list; OSError if the file cannot be read. The list is then as it was.
    """
    stream = await asyncio.to_thread(path.open, "rb")
    with stream:
        return await _import(pool, sealer, actor, contact_list, stream, path.name, options, progress)


async def import_stream(
    pool: Pool,
    sealer: Sealer,
    actor: str,
    contact_list: ContactList,
    stream: BinaryIO,
    file_name: str,
    options: ImportOptions,
) -> ListImport:
    """Import an uploaded file. Raises the errors of `import_path`."""
    return await _import(pool, sealer, actor, contact_list, stream, file_name, options, lambda run: None)


async def _import(
    pool: Pool,
    sealer: Sealer,
    actor: str,
    contact_list: ContactList,
    stream: BinaryIO,
    file_name: str,
    options: ImportOptions,
    progress: Progress,
) -> ListImport:
    head = await asyncio.to_thread(stream.readline, HEAD_BYTES)
    reader = RowReader(head, sealer, options.country)
    run, digest, lines = await _begin(pool, actor, contact_list, stream, file_name, options)
    try:
        run, is_cut = await _read(pool, run, read_batches(stream, reader, lines + 1), digest, progress)
        _check_end(run, contact_list, options, is_cut=is_cut)
        return await _publish(pool, contact_list, run)
    except errors.InvalidInput as error:
        async with transaction(pool) as connection:
            await _abandon(connection, run, error.faults[0].code)
        raise
    except _ListTakenOver:
        raise errors.Conflict("Another process has taken this import over.") from None


async def _begin(
    pool: Pool, actor: str, contact_list: ContactList, stream: BinaryIO, file_name: str, options: ImportOptions
) -> tuple[ListImport, Digest, int]:
    """Return a new import, or the interrupted one of the same file, with the digest and the number of its read lines.

    The stream is then behind these lines. An interrupted import of another file is ended. Raises Conflict while a
    process works on an import into this list.
    """
    now = clock.now()
    async with session(pool) as connection:
        earlier = await lists_store.find_running(connection, contact_list.id)
    if earlier is not None:
        async with session(pool) as connection:
            if not await lists_store.claim_import(connection, earlier.id, now + LEASE, now):
                raise errors.Conflict("A file is being read into this list. Wait until it has ended.")
        digest, lines = await asyncio.to_thread(_read_again, stream, earlier.position)
        if digest.digest() == (earlier.digest or sha256().digest()) and earlier.way is options.way:
            return earlier, digest, lines
        async with transaction(pool) as connection:
            await _abandon(connection, earlier, "interrupted")
    await asyncio.to_thread(stream.seek, 0)
    import_id = clock.new_id()
    values = (import_id, contact_list.id, options.way, file_name, actor, now + LEASE, now)
    async with transaction(pool) as connection:
        inserted = await lists_store.insert_import(connection, *values)
    if not inserted:
        raise errors.Conflict("A file is being read into this list. Wait until it has ended.")
    return await load_import(pool, import_id), sha256(), 0


async def load_import(pool: Pool, import_id: UUID) -> ListImport:
    """Return an import. Raises NotFound."""
    async with session(pool) as connection:
        run = await lists_store.find_import(connection, import_id)
    if run is None:
        raise errors.NotFound("There is no such import.")
    return run


async def _abandon(connection: Connection, run: ListImport, failure: str) -> None:
    await lists_store.allow_long_statements(connection)
    await lists_store.fail_import(connection, run.id, failure, clock.now())
    await lists_store.delete_staging(connection, run.number)


def _read_again(stream: BinaryIO, size: int) -> tuple[Digest, int]:
    """Read the first `size` bytes; return their digest and the number of lines in them."""
    stream.seek(0)
    digest, lines = sha256(), 0
    while size > 0 and (part := stream.read(min(size, 1 << 20))):
        digest.update(part)
        lines += part.count(b"\n")
        size -= len(part)
    return digest, lines


async def _read(
    pool: Pool, run: ListImport, batches: Iterator[ListBatch], digest: Digest, progress: Progress
) -> tuple[ListImport, bool]:
    """Read the rows after the import's position, and return whether the last one has no line end and no meaning.

    The next rows are read while the keys of those before are written. Raises _ListTakenOver.
    """
    is_cut = False
    reading = asyncio.create_task(asyncio.to_thread(next, batches, None))
    try:
        while (batch := await reading) is not None:
            reading = asyncio.create_task(asyncio.to_thread(next, batches, None))
            digest.update(batch.text)
            run = await _keep(pool, run, batch, digest.digest())
            is_cut = batch.is_cut and bool(batch.faults) and batch.faults[-1].row == batch.last_row
            await failpoints.reach("after_list_batch")
            progress(run)
    finally:
        await asyncio.gather(reading, return_exceptions=True)  # no thread may read from a stream that is closed
    return run, is_cut


async def _keep(pool: Pool, run: ListImport, batch: ListBatch, digest: bytes) -> ListImport:
    """Store the keys and faults of a batch, and return the import at its new position. Raises _ListTakenOver."""
    moved = msgspec.structs.replace(
        run,
        position=run.position + len(batch.text),
        digest=digest,
        rows=run.rows + batch.rows,
        readable=run.readable + batch.readable,
        faulty=run.faulty + len(batch.faults),
    )
    faults = batch.faults[: max(0, MOST_FAULTS - run.faulty)]
    async with transaction(pool) as connection:
        await lists_store.copy_keys(connection, run.number, batch.keys)
        if faults:
            await lists_store.insert_faults(connection, run.id, faults)
        if not await lists_store.advance(connection, run.position, moved, clock.now() + LEASE):
            raise _ListTakenOver
    return moved


def _check_end(run: ListImport, contact_list: ContactList, options: ImportOptions, *, is_cut: bool) -> None:
    """Raise InvalidInput if the file is cut off, has no list in it, or would shrink the list by more than a half."""
    rows, readable, members = run.rows, run.readable, contact_list.members
    must_be_large = options.way is ImportWay.whole and not options.accepts_smaller
    size = members if options.confirmed_rows is None else min(members, options.confirmed_rows)
    refusal = None
    if is_cut:
        refusal = "file_cut", f"The file ends in the middle of row {rows:,}. Get it again from its source."
    elif options.expected_rows not in (None, rows):
        detail = f"The file has {rows:,} rows and not {options.expected_rows:,}. Get it again from its source."
        refusal = "file_cut", detail
    elif readable == 0:
        refusal = "no_rows", "The file has no phone number, e-mail address or SHA-256 hash."
    elif run.faulty > readable:
        refusal = "mostly_faulty", f"{run.faulty:,} of {rows:,} rows cannot be read. Check the columns of the file."
    elif must_be_large and readable < LEAST_SHARE * size:
        detail = f"The list has {members:,} members and the file {readable:,}. Confirm that the file is complete."
        refusal = "much_smaller", detail
    if refusal is not None:
        code, detail = refusal
        raise errors.InvalidInput((Fault(pointer="", code=code, detail=detail),), detail)


async def _publish(pool: Pool, contact_list: ContactList, run: ListImport) -> ListImport:
    """Make the keys that were read the next version of the list. Raises NotFound, _ListTakenOver."""
    await failpoints.reach("before_list_publication")
    now, number = clock.now(), contact_list.number
    async with transaction(pool) as connection:
        await lists_store.allow_long_statements(connection)
        version = await lists_store.lock_list(connection, contact_list.id)
        if version is None:
            raise errors.NotFound("The list was removed meanwhile.")
        version += 1
        await lists_store.purge_members(connection, number)
        removed = 0
        if run.way is ImportWay.whole:
            removed = await lists_store.end_members(connection, number, version, run.number)
        added, repeated = await lists_store.insert_members(connection, number, version, run.number)
        await lists_store.delete_staging(connection, run.number)
        await lists_store.publish_list(connection, contact_list.id, version, added - removed, now)
        serial = await lists_store.raise_serial(connection)
        if not await lists_store.end_import(connection, run, (repeated, added, removed), version, serial, now):
            raise _ListTakenOver
        await audit.record(
            connection,
            now,
            run.actor,
            "list.import",
            ids.encode("list", contact_list.id),
            version=version,
            rows=run.rows,
            added=added,
            removed=removed,
            faulty=run.faulty,
            serial=serial,
        )
    return await load_import(pool, run.id)


async def undo_import(pool: Pool, actor: str, contact_list: ContactList, import_id: UUID) -> ListImport:
    """Make the list what it was before its last import. Raises NotFound, and Conflict for an earlier import."""
    now, run = clock.now(), await load_import(pool, import_id)
    if run.list_id != contact_list.id:
        raise errors.NotFound("There is no such import.")
    async with transaction(pool) as connection:
        await lists_store.allow_long_statements(connection)
        version = await lists_store.lock_list(connection, contact_list.id)
        if version is None or run.state is not ListImportState.done or run.version != version:
            raise errors.Conflict("Only the last import of a list can be undone, and only once.")
        difference = await lists_store.undo_version(connection, contact_list.number, version)
        await lists_store.publish_list(connection, contact_list.id, version + 1, difference, now)
        serial = await lists_store.raise_serial(connection)
        if not await lists_store.mark_undone(connection, import_id, serial):
            raise errors.Conflict("Only the last import of a list can be undone, and only once.")
        subject = ids.encode("list", contact_list.id)
        await audit.record(connection, now, actor, "list.undo", subject, version=version + 1, serial=serial)
    return await load_import(pool, import_id)


async def undo_last(pool: Pool, actor: str, contact_list: ContactList) -> ListImport:
    """Make the list what it was before its last import. Raises Conflict if there is none that can be undone."""
    async with session(pool) as connection:
        run = await lists_store.find_published(connection, contact_list.id, contact_list.version)
    if run is None:
        raise errors.Conflict("Only the last import of a list can be undone, and only once.")
    return await undo_import(pool, actor, contact_list, run.id)
