"""Import files in batches of some hundred rows, and undo imports in the same way.

    store the file, sealed → read a batch in a thread → in one transaction: insert its valid rows, the outcome of each
    row and the new position → next batch → … → delete the file

So an import holds no lock for long and only one batch in memory. If its process dies, the import's due time passes, and
any API process continues from the last position.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from itertools import islice
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.imports import store as imports_store
from marketplace.imports.store import Import, NewFile, RowJudgement
from marketplace.imports.table import Table, TableRow
from marketplace.imports.wire import SHOWN_ROWS, ImportState, ImportSubject, RowOutcome, RowRefusal
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.log import logger
from marketplace.security import audit
from marketplace.security.sealing import Sealer

log = logger("imports")

BATCH: Final = 500
"Rows of one transaction. It takes about 30 ms and blocks the event loop for less than 10 ms at a time."
AT_ONCE: Final = 2
"Limit of files that one process reads at a time; others wait."
MOST_RUNNING: Final = 5
"Limit of imports of one business that wait or run at a time."
LEASE: Final = timedelta(seconds=30)
"Longer than any batch takes. If a process has not moved the due time by then, it is dead."
MOST_TRIES: Final = 5
"Of an import, or of its undoing, that fails each time: then it ends as failed, and its undoing may be asked for again."
KEPT: Final = timedelta(days=1)
"Time for which a file is stored that was previewed and not imported."
WAIT_SECONDS: Final = 20.0
"Time that a call waits for its import to end before it answers with the progress."
LOOK_SECONDS: Final = 5.0
ACTIONS: Final = {ImportSubject.shared_leads: "shared_leads.import", ImportSubject.dispositions: "disposition.import"}
"Actions in the audit log."


class ImportFile(Protocol):
    """One file of one business, with the way in which it is read."""

    table: Table
    mapping: Any
    "Format of the file, as the Struct of its subject."
    open_questions: tuple[str, ...]
    "Fields of the mapping that the rows leave open and the business must state."
    names: Mapping[str, str]
    "Names of the columns in the file, by field."

    def check_complete(self) -> None:
        """Raise InvalidInput for questions that the rows leave open and the mapping does not answer."""
        ...

    def read(self, lines: Sequence[TableRow]) -> Any:
        """Return the content of the lines. It does no I/O, and is slow enough to be called in a thread."""
        ...

    async def judge(self, connection: Connection, rows: Any) -> list[RowJudgement]:
        """Return the outcome that each row would have. Rows that this reading judged before count as imported."""
        ...

    async def keep(self, connection: Connection, file_import: Import, rows: Any) -> list[RowJudgement]:
        """Store the valid rows, and return the outcome of each row in order."""
        ...


class Importer(Protocol):
    """Reader of the files of one subject, which also stores and removes their rows."""

    async def open(self, pool: Pool, business_id: UUID, mode: str | None, raw: bytes, mapping: bytes) -> ImportFile:
        """Return the reading of a file. An empty `mapping` is decided from the rows.

        Raises NotFound, the errors of Table, and InvalidInput for a mapping that does not fit.
        """
        ...

    async def undo(self, connection: Connection, file_import: Import, most: int) -> int | None:
        """Remove up to `most` rows of the import, and return their number; None if none is left."""
        ...


class FilePreview(msgspec.Struct, frozen=True, kw_only=True):
    """Result that an import would have. `rows` has the first thousand rows of each outcome except `taken`."""

    reading: Any
    counts: Mapping[RowOutcome, int]
    rows: tuple[RowJudgement, ...]
    first: tuple[Any, ...]


class _ImportTakenOver(Exception):
    """Raised when another process has taken the import over."""


class Imports:
    """Imports of one API process: previews, runs and undoes them. `importers` has one for each subject."""

    def __init__(self, pool: Pool, sealer: Sealer, importers: Mapping[ImportSubject, Importer]) -> None:
        self._pool, self._sealer, self._importers = pool, sealer, importers
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._stopping = False

    # Previews

    async def preview(
        self,
        subject: ImportSubject,
        business_id: UUID,
        mode: str | None,
        raw: bytes,
        mapping: bytes = b"",
        every: bool = False,
    ) -> FilePreview:
        """Judge every row and store nothing. With `every`, list all rows that would not be imported.

        Raises the errors of `Importer.open`.
        """
        async with self._reading:
            reading: Any = await self._importers[subject].open(self._pool, business_id, mode, raw, mapping)
            counts: Counter[RowOutcome] = Counter()
            listed: list[RowJudgement] = []
            first: tuple[Any, ...] = ()
            batches = _batches(reading, 0)
            while (rows := await asyncio.to_thread(_next_batch, reading, batches)) is not None:
                async with session(self._pool) as connection:
                    judged = await reading.judge(connection, rows)
                first = first or tuple(rows[:100])
                for row in judged:
                    counts[row.outcome] += 1
                    if row.outcome is not RowOutcome.taken and (every or counts[row.outcome] <= SHOWN_ROWS):
                        listed.append(row)
        return FilePreview(reading=reading, counts=counts, rows=tuple(listed), first=first)

    async def keep_file(
        self, subject: ImportSubject, business_id: UUID, mode: str | None, actor: str, raw: bytes, rows: int
    ) -> UUID:
        """Store a previewed file, sealed, for a day or until the business previews another of this subject."""
        digest = await asyncio.to_thread(_digest, raw, b"")
        new = self._new(subject, business_id, mode, actor, digest, b"", rows, running=False)
        await self._store(new, raw)
        return new.id

    async def save_mapping(self, import_id: UUID, business_id: UUID, mapping: bytes) -> None:
        """Store the mapping of a previewed file."""
        async with transaction(self._pool) as connection:
            await imports_store.save_mapping(connection, import_id, business_id, mapping)

    async def read_file(self, import_id: UUID, business_id: UUID) -> bytes:
        """Return a previewed file. Raises NotFound if it is no longer stored or is not this business's."""
        async with session(self._pool) as connection:
            file_import = await self.load(import_id, business_id)
            box = await imports_store.read_file(connection, import_id)
        if box is None or file_import.state is not ImportState.previewed:
            raise errors.NotFound("This file is not kept any more. Choose it again.")
        return await asyncio.to_thread(self._sealer.open_file, import_id, box)

    # Imports

    async def submit(
        self, subject: ImportSubject, business_id: UUID, mode: str | None, actor: str, raw: bytes, mapping: bytes = b""
    ) -> UUID:
        """Begin to import a file, and return the id of the import. The same file sent while it runs is the same import.

        Raises the errors of `Importer.open`, InvalidInput for open questions, and Conflict for too many imports.
        """
        digest = await asyncio.to_thread(_digest, raw, mapping)
        async with session(self._pool) as connection:
            running = await imports_store.find_running(connection, business_id, subject, digest, mode)
            count = await imports_store.count_running(connection, business_id)
        if running is not None:
            return running
        if count >= MOST_RUNNING:
            raise errors.Conflict(f"{MOST_RUNNING} imports of yours are running. Wait for one of them to end.")
        async with self._reading:
            reading = await self._importers[subject].open(self._pool, business_id, mode, raw, mapping)
        reading.check_complete()
        decided = msgspec.json.encode(reading.mapping)
        new = self._new(subject, business_id, mode, actor, digest, decided, reading.table.rows, running=True)
        await self._store(new, raw)
        self._start(new.id)
        return new.id

    async def begin(self, import_id: UUID, business_id: UUID, actor: str, mapping: bytes = b"") -> None:
        """Begin to import a previewed file. Raises NotFound, the errors of `Importer.open`, and InvalidInput."""
        file_import, raw = await self.load(import_id, business_id), await self.read_file(import_id, business_id)
        async with self._reading:
            reading = await self._importers[file_import.subject].open(
                self._pool, business_id, file_import.mode, raw, mapping
            )
        reading.check_complete()
        decided, now = msgspec.json.encode(reading.mapping), clock.now()
        async with transaction(self._pool) as connection:
            begun = await imports_store.begin_import(connection, import_id, business_id, decided, now + LEASE, actor)
        if begun:
            self._start(import_id)

    async def load(self, import_id: UUID, business_id: UUID | None) -> Import:
        """Return an import. Raises NotFound for an unknown one, and for one that is not the business's."""
        async with session(self._pool) as connection:
            file_import = await imports_store.find_import(connection, import_id, business_id)
        if file_import is None:
            raise errors.NotFound("There is no such import.")
        return file_import

    async def wait(self, import_id: UUID, seconds: float = WAIT_SECONDS) -> Import:
        """Return the import when it has ended, or in its state after `seconds`."""
        deadline = clock.monotonic() + seconds
        while True:
            task = self._tasks.get(import_id)
            if task is not None:
                await asyncio.wait((task,), timeout=max(deadline - clock.monotonic(), 0))
            file_import = await self.load(import_id, None)
            if file_import.state not in (ImportState.running, ImportState.undoing) or clock.monotonic() >= deadline:
                return file_import
            if task is None or task.done():
                await asyncio.sleep(0.1)

    async def results(self, import_id: UUID, outcome: RowOutcome) -> tuple[RowJudgement, ...]:
        """Return the first SHOWN_ROWS rows with this outcome."""
        async with session(self._pool) as connection:
            return await imports_store.list_rows(connection, import_id, 0, outcome, SHOWN_ROWS)

    async def undo(self, import_id: UUID, business_id: UUID | None, actor: str) -> None:
        """Begin to remove all rows of an import. Raises NotFound, and Conflict for one that has not ended."""
        file_import, now = await self.load(import_id, business_id), clock.now()
        async with transaction(self._pool) as connection:
            begun = await imports_store.begin_undo(connection, import_id, business_id, actor, now + LEASE)
            if begun:
                subject = ids.encode("biz", file_import.business_id)
                imported = ids.encode("imp", import_id)
                await audit.record(
                    connection, now, actor, "import.undo", subject, imported=imported, rows=file_import.taken
                )
        if begun:
            self._start(import_id)
        elif file_import.state in (ImportState.running, ImportState.previewed):
            raise errors.Conflict("This import has not ended yet. Wait until it has, and undo it then.")

    # Work in the background

    async def keep_working(self, stopping: asyncio.Event) -> None:
        """Take over imports whose due time has passed, until `stopping`; then make this process's own due at once."""
        while not stopping.is_set():
            try:
                now = clock.now()
                async with transaction(self._pool) as connection:
                    claimed = await imports_store.claim_due(connection, now + LEASE, now)
                if claimed is not None:
                    self._start(claimed)
                    continue
            except errors.Unavailable as error:
                log.warning("imports_unavailable", error=error.detail)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)
        self._stopping = True
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, import_id: UUID) -> None:
        """Start to work on an import, unless this process does so already or is stopping."""
        if import_id not in self._tasks and not self._stopping:
            task = asyncio.create_task(self._work(import_id))
            self._tasks[import_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(import_id, None))

    async def _work(self, import_id: UUID) -> None:
        """Continue an import or its undoing. After a failure it is due again, later each time, MOST_TRIES times."""
        try:
            file_import = await self.load(import_id, None)
            if file_import.state is ImportState.undoing:
                await self._undo(file_import)
            else:
                async with self._reading:
                    await self._import(file_import)
        except _ImportTakenOver:
            return
        except asyncio.CancelledError:
            await self._give_back(import_id)
            raise
        except Exception as error:  # after any error, the import must not wait forever
            log.warning("import_failed", error=type(error).__name__)
            await self._put_off(import_id)

    async def _give_back(self, import_id: UUID) -> None:
        """Let another process take over at once."""
        with contextlib.suppress(errors.Unavailable):
            async with transaction(self._pool) as connection:
                await imports_store.make_due(connection, import_id, clock.now())

    async def _put_off(self, import_id: UUID) -> None:
        """Make a failed import due again after a pause, doubled each time. End it as failed after MOST_TRIES tries."""
        with contextlib.suppress(errors.Unavailable):
            now = clock.now()
            async with transaction(self._pool) as connection:
                file_import = await imports_store.find_import(connection, import_id, None)
                if file_import is None:
                    return
                if file_import.tries < MOST_TRIES:
                    await imports_store.make_due(connection, import_id, now + LEASE * (1 << file_import.tries))
                    return
                await imports_store.give_up(connection, import_id, now)
                await imports_store.delete_file(connection, file_import, now - KEPT)
            log.error("import_given_up", id=ids.encode("imp", import_id), state=file_import.state)

    async def _import(self, file_import: Import) -> None:
        """Import the rows after the import's position, batch by batch. Raises _Lost."""
        async with session(self._pool) as connection:
            box = await imports_store.read_file(connection, file_import.id)
        if box is None:
            raise _ImportTakenOver
        raw = await asyncio.to_thread(self._sealer.open_file, file_import.id, box)
        reading = await self._importers[file_import.subject].open(
            self._pool, file_import.business_id, file_import.mode, raw, file_import.mapping
        )
        batches = _batches(reading, file_import.position)
        while (rows := await asyncio.to_thread(_next_batch, reading, batches)) is not None:
            async with transaction(self._pool) as connection:
                judged = await reading.keep(connection, file_import, rows)
                counts = _count(judged)
                if not await imports_store.advance(connection, file_import, judged, counts, clock.now() + LEASE):
                    raise _ImportTakenOver
            file_import = msgspec.structs.replace(
                file_import,
                position=file_import.position + len(judged),
                taken=file_import.taken + counts[0],
                repeated=file_import.repeated + counts[1],
                conflicts=file_import.conflicts + counts[2],
                refused=file_import.refused + counts[3],
            )
        await self._end(file_import)

    async def _end(self, file_import: Import) -> None:
        """End an import as done, delete its file and write its audit row. Raises _Lost."""
        now = clock.now()
        async with transaction(self._pool) as connection:
            if not await imports_store.end_import(connection, file_import.id, ImportState.done, now):
                raise _ImportTakenOver
            await imports_store.delete_file(connection, file_import, now - KEPT)
            await audit.record(
                connection,
                now,
                file_import.actor,
                ACTIONS[file_import.subject],
                ids.encode("biz", file_import.business_id),
                imported=ids.encode("imp", file_import.id),
                taken=file_import.taken,
                known=file_import.repeated,
                conflicts=file_import.conflicts,
                refused=file_import.refused,
            )

    async def _undo(self, file_import: Import) -> None:
        """Remove the import's rows, batch by batch. Raises _Lost."""
        while True:
            now = clock.now()
            async with transaction(self._pool) as connection:
                undone = await self._importers[file_import.subject].undo(connection, file_import, BATCH)
                if undone is None:
                    await imports_store.end_undo(connection, file_import.id, now)
                    return
                if not await imports_store.advance_undo(connection, file_import.id, undone, now + LEASE):
                    raise _ImportTakenOver

    async def _store(self, new: NewFile, raw: bytes) -> None:
        """Store a new import with its sealed file."""
        box = await asyncio.to_thread(self._sealer.seal_file, new.id, raw)
        async with transaction(self._pool) as connection:
            await imports_store.insert_import(connection, new, box, new.made_at - KEPT)

    def _new(
        self,
        subject: ImportSubject,
        business_id: UUID,
        mode: str | None,
        actor: str,
        digest: bytes,
        mapping: bytes,
        rows: int,
        *,
        running: bool,
    ) -> NewFile:
        now = clock.now()
        due_at = now + LEASE if running else None
        return NewFile(
            id=clock.new_id(),
            business_id=business_id,
            subject=subject,
            mode=mode,
            actor=actor,
            digest=digest,
            mapping=mapping or b"{}",
            rows=rows,
            due_at=due_at,
            made_at=now,
        )


def results_of(
    rows: Sequence[RowJudgement], outcomes: Sequence[RowOutcome], names: Mapping[str, str]
) -> tuple[RowRefusal, ...]:
    """Return the rows with one of these outcomes in the form that the API returns.

    `names` are the names of the columns in the file, by field.
    """
    return tuple(
        RowRefusal(
            row=row.number, column=names.get(row.field or "", row.field), code=row.code or "", detail=row.detail or ""
        )
        for row in rows
        if row.outcome in outcomes
    )


def _count(judged: Sequence[RowJudgement]) -> tuple[int, int, int, int]:
    """Return the numbers of rows taken, repeated, in conflict and refused."""
    counts = Counter(row.outcome for row in judged)
    taken, repeated, conflicts, refused = (counts[outcome] for outcome in RowOutcome)
    return taken, repeated, conflicts, refused


def _batches(reading: Any, position: int) -> Iterator[TableRow]:
    """Yield the lines of the file after its first `position` rows."""
    return islice(reading.table.lines(), position, None)


def _next_batch(reading: ImportFile, lines: Iterator[TableRow]) -> Any:
    """Read the next BATCH lines; None at the end of the file."""
    batch = tuple(islice(lines, BATCH))
    return reading.read(batch) if batch else None


def _digest(raw: bytes, mapping: bytes) -> bytes:
    return sha256(mapping + b"\0" + raw).digest()
