"""Imports of files: some hundred rows in each transaction, and how far it has come in the same one.

    keep the file, sealed → read some hundred rows in a thread → one transaction: what is good in them, what became of
    each, the new position → … → forget the file

So an import holds no lock for long and no more rows than that in memory, and a process that dies leaves a due time: any
api process goes on from the last position. Undoing works in the same way.
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

from marketplace import audit, clock, errors, ids
from marketplace.db import Connection, Pool, session, transaction
from marketplace.imports import store
from marketplace.imports.store import Import, JudgedRow, NewFile
from marketplace.imports.table import Line, Table
from marketplace.imports.wire import SHOWN_ROWS, ImportState, RowOutcome, RowResult, Subject
from marketplace.log import logger
from marketplace.sealing import Sealer

log = logger("imports")

BATCH: Final = 500
"Rows of one transaction: some 30 ms of it, of which the event loop is held for less than ten at a time."
AT_ONCE: Final = 2
"Files that one process reads at a time; others wait."
MOST_RUNNING: Final = 5
"Imports of one business that may wait or run at a time."
LEASE: Final = timedelta(seconds=30)
"Longer than any batch takes: a process that has not moved the due time by then is gone."
MOST_TRIES: Final = 5
KEPT: Final = timedelta(days=1)
"How long a file is kept that was looked at and not imported."
WAIT_SECONDS: Final = 20.0
"How long a call waits for its import to end before it answers with how far it has come."
LOOK_SECONDS: Final = 5.0
ACTIONS: Final = {Subject.shared_leads: "shared_leads.import", Subject.dispositions: "disposition.import"}
"What the audit calls them."


class Reading(Protocol):
    """One file, as one business means it."""

    table: Table
    mapping: Any
    "How the file is read, as its subject's Struct."
    open_questions: tuple[str, ...]
    "What the rows leave open, and the mapping must say."
    names: Mapping[str, str]
    "The file's own names of its columns, by field."

    def check_complete(self) -> None:
        """Raises InvalidInput for what the rows leave open and nobody has said."""
        ...

    def read(self, lines: Sequence[Line]) -> Any:
        """What the lines say; pure, and slow enough to be done in a thread."""
        ...

    async def judge(self, connection: Connection, rows: Any) -> list[JudgedRow]:
        """What would become of the rows. Rows that were judged before by this reading count as kept."""
        ...

    async def keep(self, connection: Connection, one: Import, rows: Any) -> list[JudgedRow]:
        """Keeps what is good; what became of each row, in their order."""
        ...


class Importer(Protocol):
    """How the rows of one subject are read, kept and taken back."""

    async def open(self, pool: Pool, business_id: UUID, mode: str | None, raw: bytes, mapping: bytes) -> Reading:
        """Raises NotFound, and what Table and a mapping that does not fit raise. An empty `mapping` is guessed."""
        ...

    async def undo(self, connection: Connection, one: Import, most: int) -> int | None:
        """Takes back some `most` of the rows that it kept, and returns how many; None where none is left."""
        ...


class FilePreview(msgspec.Struct, frozen=True, kw_only=True):
    """What an import would do. `rows` has those of each outcome but taken, the first thousand of each."""

    reading: Any
    counts: Mapping[RowOutcome, int]
    rows: tuple[JudgedRow, ...]
    first: tuple[Any, ...]


class _Lost(Exception):
    """Another process has taken the import over."""


class Imports:
    """Everything that one api process does about imports; `importers` has one for each subject."""

    def __init__(self, pool: Pool, sealer: Sealer, importers: Mapping[Subject, Importer]) -> None:
        self._pool, self._sealer, self._importers = pool, sealer, importers
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._stopping = False

    # Looking at a file.

    async def preview(
        self, subject: Subject, business_id: UUID, mode: str | None, raw: bytes, mapping: bytes = b"",
        every: bool = False,
    ) -> FilePreview:  # fmt: skip
        """Judges every row and keeps nothing; with `every`, all rows that would not be taken are listed.

        Raises what `Importer.open` raises.
        """
        async with self._reading:
            reading: Any = await self._importers[subject].open(self._pool, business_id, mode, raw, mapping)
            counts: Counter[RowOutcome] = Counter()
            left: list[JudgedRow] = []
            first: tuple[Any, ...] = ()
            batches = _batches(reading, 0)
            while (rows := await asyncio.to_thread(_next_batch, reading, batches)) is not None:
                async with session(self._pool) as connection:
                    judged = await reading.judge(connection, rows)
                first = first or tuple(rows[:100])
                for row in judged:
                    counts[row.outcome] += 1
                    if row.outcome is not RowOutcome.taken and (every or counts[row.outcome] <= SHOWN_ROWS):
                        left.append(row)
        return FilePreview(reading=reading, counts=counts, rows=tuple(left), first=first)

    async def keep_file(
        self, subject: Subject, business_id: UUID, mode: str | None, actor: str, raw: bytes, rows: int
    ) -> UUID:
        """Keeps a file that was looked at, sealed, for a day or until the same business looks at another."""
        digest = await asyncio.to_thread(_digest, raw, b"")
        new = self._new(subject, business_id, mode, actor, digest, b"", rows, running=False)
        await self._store(new, raw)
        return new.id

    async def save_mapping(self, import_id: UUID, business_id: UUID, mapping: bytes) -> None:
        """Keeps how a file that is looked at is to be read."""
        async with transaction(self._pool) as connection:
            await store.save_mapping(connection, import_id, business_id, mapping)

    async def read_file(self, import_id: UUID, business_id: UUID) -> bytes:
        """The file that was looked at. Raises NotFound where it is not kept any more, or not this business's."""
        async with session(self._pool) as connection:
            one = await self.load(import_id, business_id)
            box = await store.read_file(connection, import_id)
        if box is None or one.state is not ImportState.previewed:
            raise errors.NotFound("This file is not kept any more. Choose it again.")
        return await asyncio.to_thread(self._sealer.open_file, import_id, box)

    # Importing one.

    async def submit(
        self, subject: Subject, business_id: UUID, mode: str | None, actor: str, raw: bytes, mapping: bytes = b""
    ) -> UUID:
        """Begins to import a file. The same file, sent again while it runs, is the same import.

        Raises what `Importer.open` raises, InvalidInput for what the rows leave open, Conflict for too many imports.
        """
        digest = await asyncio.to_thread(_digest, raw, mapping)
        async with session(self._pool) as connection:
            running = await store.find_running(connection, business_id, subject, digest, mode)
            count = await store.count_running(connection, business_id)
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
        """Begins to import the file that was looked at. Raises NotFound, and what `submit` raises."""
        one, raw = await self.load(import_id, business_id), await self.read_file(import_id, business_id)
        async with self._reading:
            reading = await self._importers[one.subject].open(self._pool, business_id, one.mode, raw, mapping)
        reading.check_complete()
        decided, now = msgspec.json.encode(reading.mapping), clock.now()
        async with transaction(self._pool) as connection:
            begun = await store.begin_import(connection, import_id, business_id, decided, now + LEASE, actor)
        if begun:
            self._start(import_id)

    async def load(self, import_id: UUID, business_id: UUID | None) -> Import:
        """Raises NotFound for an unknown import, and for one that is not the business's."""
        async with session(self._pool) as connection:
            one = await store.find_import(connection, import_id, business_id)
        if one is None:
            raise errors.NotFound("There is no such import.")
        return one

    async def wait(self, import_id: UUID, seconds: float = WAIT_SECONDS) -> Import:
        """The import when it has ended, or as it is after so many seconds."""
        deadline = clock.monotonic() + seconds
        while True:
            task = self._tasks.get(import_id)
            if task is not None:
                await asyncio.wait((task,), timeout=max(deadline - clock.monotonic(), 0))
            one = await self.load(import_id, None)
            if one.state not in (ImportState.running, ImportState.undoing) or clock.monotonic() >= deadline:
                return one
            if task is None or task.done():
                await asyncio.sleep(0.1)

    async def results(self, import_id: UUID, outcome: RowOutcome) -> tuple[JudgedRow, ...]:
        """The first thousand rows with this outcome."""
        async with session(self._pool) as connection:
            return await store.list_rows(connection, import_id, 0, outcome, SHOWN_ROWS)

    async def undo(self, import_id: UUID, business_id: UUID | None, actor: str) -> None:
        """Begins to take back all that an import has kept. Raises NotFound, and Conflict for one that still runs."""
        one, now = await self.load(import_id, business_id), clock.now()
        async with transaction(self._pool) as connection:
            begun = await store.begin_undo(connection, import_id, business_id, actor, now + LEASE)
            if begun:
                subject = ids.encode("biz", one.business_id)
                imported = ids.encode("imp", import_id)
                await audit.record(connection, now, actor, "import.undo", subject, imported=imported, rows=one.taken)
        if begun:
            self._start(import_id)
        elif one.state in (ImportState.running, ImportState.previewed):
            raise errors.Conflict("This import has not ended yet. Wait until it has, and undo it then.")

    # Working.

    async def keep_working(self, stopping: asyncio.Event) -> None:
        """Takes over what another process has left, until `stopping`; then gives back what it works on itself."""
        while not stopping.is_set():
            try:
                now = clock.now()
                async with transaction(self._pool) as connection:
                    claimed = await store.claim_due(connection, now + LEASE, now)
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
        if import_id not in self._tasks and not self._stopping:
            task = asyncio.create_task(self._work(import_id))
            self._tasks[import_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(import_id, None))

    async def _work(self, import_id: UUID) -> None:
        """Goes on with an import or with its undoing; what fails comes due again, five times."""
        try:
            one = await self.load(import_id, None)
            if one.state is ImportState.undoing:
                await self._undo(one)
            else:
                async with self._reading:
                    await self._import(one)
        except _Lost:
            return
        except asyncio.CancelledError:
            await self._give_back(import_id, timedelta(0))
            raise
        except Exception as error:  # whatever it is, the import must not wait for ever
            log.warning("import_failed", error=type(error).__name__)
            await self._give_back(import_id, LEASE)

    async def _give_back(self, import_id: UUID, after: timedelta) -> None:
        with contextlib.suppress(errors.Unavailable):
            now = clock.now()
            async with transaction(self._pool) as connection:
                one = await store.find_import(connection, import_id, None)
                if one is not None and one.tries >= MOST_TRIES and one.state is ImportState.running:
                    await store.end_import(connection, import_id, ImportState.failed, now)
                    await store.delete_file(connection, one, now - KEPT)
                else:
                    await store.make_due(connection, import_id, now + after)

    async def _import(self, one: Import) -> None:
        async with session(self._pool) as connection:
            box = await store.read_file(connection, one.id)
        if box is None:
            raise _Lost
        raw = await asyncio.to_thread(self._sealer.open_file, one.id, box)
        reading = await self._importers[one.subject].open(self._pool, one.business_id, one.mode, raw, one.mapping)
        batches = _batches(reading, one.position)
        while (rows := await asyncio.to_thread(_next_batch, reading, batches)) is not None:
            async with transaction(self._pool) as connection:
                judged = await reading.keep(connection, one, rows)
                counts = _count(judged)
                if not await store.advance(connection, one, judged, counts, clock.now() + LEASE):
                    raise _Lost
            one = msgspec.structs.replace(
                one, position=one.position + len(judged), taken=one.taken + counts[0], known=one.known + counts[1],
                conflicts=one.conflicts + counts[2], refused=one.refused + counts[3],
            )  # fmt: skip
        await self._end(one)

    async def _end(self, one: Import) -> None:
        now = clock.now()
        async with transaction(self._pool) as connection:
            if not await store.end_import(connection, one.id, ImportState.done, now):
                raise _Lost
            await store.delete_file(connection, one, now - KEPT)
            await audit.record(
                connection, now, one.actor, ACTIONS[one.subject], ids.encode("biz", one.business_id),
                imported=ids.encode("imp", one.id), taken=one.taken, known=one.known, conflicts=one.conflicts,
                refused=one.refused,
            )  # fmt: skip

    async def _undo(self, one: Import) -> None:
        while True:
            now = clock.now()
            async with transaction(self._pool) as connection:
                undone = await self._importers[one.subject].undo(connection, one, BATCH)
                if undone is None:
                    await store.end_undo(connection, one.id, now)
                    return
                if not await store.advance_undo(connection, one.id, undone, now + LEASE):
                    raise _Lost

    async def _store(self, new: NewFile, raw: bytes) -> None:
        box = await asyncio.to_thread(self._sealer.seal_file, new.id, raw)
        async with transaction(self._pool) as connection:
            await store.insert_import(connection, new, box, new.made_at - KEPT)

    def _new(
        self, subject: Subject, business_id: UUID, mode: str | None, actor: str, digest: bytes, mapping: bytes,
        rows: int, *, running: bool,
    ) -> NewFile:  # fmt: skip
        now = clock.now()
        return NewFile(
            id=clock.new_id(), business_id=business_id, subject=subject, mode=mode, actor=actor,
            digest=digest, mapping=mapping or b"{}", rows=rows, due_at=now + LEASE if running else None,
            made_at=now,
        )  # fmt: skip


def results_of(
    rows: Sequence[JudgedRow], outcomes: Sequence[RowOutcome], names: Mapping[str, str]
) -> tuple[RowResult, ...]:
    """The rows with one of these outcomes as they are answered; `names` has the file's own names of its columns."""
    return tuple(
        RowResult(
            row=row.number, column=names.get(row.field or "", row.field), code=row.code or "", detail=row.detail or ""
        )
        for row in rows
        if row.outcome in outcomes
    )


def _count(judged: Sequence[JudgedRow]) -> tuple[int, int, int, int]:
    counts = Counter(row.outcome for row in judged)
    taken, known, conflicts, refused = (counts[outcome] for outcome in RowOutcome)
    return taken, known, conflicts, refused


def _batches(reading: Any, position: int) -> Iterator[Line]:
    return islice(reading.table.lines(), position, None)


def _next_batch(reading: Reading, lines: Iterator[Line]) -> Any:
    batch = tuple(islice(lines, BATCH))
    return reading.read(batch) if batch else None


def _digest(raw: bytes, mapping: bytes) -> bytes:
    return sha256(mapping + b"\0" + raw).digest()
