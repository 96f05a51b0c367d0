"""The exposure journal: every exposure a second time, outside Postgres, on disk before anything is sent.

A database that was set back to a backup has forgotten its newest exposures and would sell those people again. The
journal remembers. One file per process, one JSON line per exposure, each with a checksum; concurrent appends share one
fsync. It holds no contact data: persons are keyed hashes, as in the person windows.

A database that was set back lacks a whole end of its history, so it lacks the newest lines whatever else it lacks.
Asking for those is therefore enough to notice, at each start and on each new connection; `marketplace fence` asks for
all.
"""

import asyncio
import contextlib
import os
import socket
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError

SQL: Final = Queries(__file__, "journal.sql")

FILE_BYTES: Final = 64 * 1024 * 1024
"A file this large, about 70,000 exposures, is followed by the next."
FILE_AGE: Final = timedelta(days=1)
"So is one this old, so that what has had its time can be removed."
RETENTION: Final = timedelta(days=35)
"Files last written longer ago are removed. No backup may be restored that is older than this: managed databases keep\
 theirs for at most 35 days, and a person is protected for 30."
NEWEST_FILES: Final = 50
"Whose ends are looked at to notice a database that was set back: more than there are processes writing at a time."
NEWEST_BYTES: Final = 32 * 1024
"The end of a file that is looked at: about 35 exposures, more than one process commits within one fsync."
CHANGED: Final = "a line does not match its checksum"
BATCH: Final = 5_000
"Lines asked for in one statement."


class JournalExposure(msgspec.Struct, frozen=True, kw_only=True):
    """One exposure with all that is needed to write its rows again. `persons` are keyed hashes, safe until a date."""

    lead_id: UUID
    assignment_id: UUID
    business_id: UUID
    subscription_id: UUID
    subscription_version: int
    endpoint_id: UUID
    provider_id: UUID
    vertical_id: UUID
    mode: str
    channel: str
    price_minor: int
    payout_minor: int
    currency: str
    awarded_at: datetime
    exposed_at: datetime
    position: int | None
    attempt_no: int
    url_sha256: bytes
    address: str
    tls_sha256: bytes | None
    persons: tuple[bytes, ...]
    protected_until: datetime | None


class JournalLine(msgspec.Struct, frozen=True, kw_only=True):
    """What the checksum covers. `seq` counts from 1 within a file, so that a line taken out is missed."""

    seq: int
    exposure: JournalExposure


class JournalDamage(msgspec.Struct, frozen=True, kw_only=True):
    """A place that no crash explains: something has changed the file since it was written."""

    file: str
    line: int | None
    what: str


class _ChecksummedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line as it lies in the file: the CRC-32 of the very bytes that follow it."""

    crc32: int
    line: msgspec.Raw


class JournalError(Exception):
    """The exposure is not safely in the journal: its contact must not be sent now."""


class JournalUnusable(StartError):
    """The journal's directory can be neither made, read nor written."""

    def __init__(self, directory: Path, error: OSError) -> None:
        super().__init__(
            "journal_unusable",
            f"The exposure journal in {directory} cannot be used ({error.strerror or type(error).__name__}).",
            "Make the directory writable, or set MARKETPLACE_JOURNAL to one that is.",
        )


class DatabaseSetBack(StartError):
    """The database is older than the journal: it has forgotten exposures, and must not be routed on."""

    def __init__(self, directory: Path, forgotten: int, asked: int) -> None:
        super().__init__(
            "database_set_back",
            f"The database is older than the exposure journal in {directory}: of the newest {asked} exposures it has"
            f" forgotten {forgotten}, and would show those people to a second business.",
            "Run: marketplace fence (or set MARKETPLACE_JOURNAL, if this is the journal of another database).",
        )


class SchemaBehind(StartError):
    """The database does not have the tables yet that would tell whether it knows the journal."""

    def __init__(self) -> None:
        super().__init__("schema_behind", "The schema is older than the code.", "Run: marketplace migrate")


# --- writing ----------------------------------------------------------------------------------------------------------


class Journal:
    """Appends exposures. All file work happens in one thread of its own, which no slow name lookup can hold up."""

    def __init__(self, directory: Path, *, file_bytes: int = FILE_BYTES) -> None:
        self.directory = directory
        self.fsyncs = 0
        self._file_bytes = file_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._file: _JournalFile | None = None
        self._waiting: list[tuple[JournalExposure, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, directory: Path, *, file_bytes: int = FILE_BYTES) -> Self:
        """A journal that can be written now; what is past its retention is removed. Raises JournalUnusable."""
        journal = cls(directory, file_bytes=file_bytes)
        try:
            await asyncio.get_running_loop().run_in_executor(journal._thread, journal._next_file)
        except OSError as error:
            journal._thread.shutdown()
            raise JournalUnusable(directory, error) from error
        return journal

    async def append(self, exposure: JournalExposure) -> None:
        """Returns once the line is on disk; those who wait at the same time share an fsync. Raises JournalError."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((exposure, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        await done

    async def check(self, connection: Connection) -> None:
        """Refuses a database that has forgotten what was journaled. Raises StartError."""
        newest = await asyncio.to_thread(self._newest)
        if forgotten := await missing(connection, newest):
            raise DatabaseSetBack(self.directory, len(forgotten), len(newest))

    async def close(self) -> None:
        """After the last append has returned."""
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._leave_file)
        self._thread.shutdown()

    def _newest(self) -> tuple[JournalExposure, ...]:
        try:
            return tuple(found for found in read_newest(self.directory) if isinstance(found, JournalExposure))
        except OSError as error:
            raise JournalUnusable(self.directory, error) from error

    async def _flush(self) -> None:
        """Writes whoever waits, all at once, until nobody does."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            failure: JournalError | None = None
            try:
                await loop.run_in_executor(self._thread, self._write, [exposure for exposure, _ in batch])
            except OSError as error:
                failure = JournalError(error.strerror or type(error).__name__)
            for _, done in batch:
                if done.done():
                    continue  # its caller has been cancelled
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)

    def _write(self, exposures: list[JournalExposure]) -> None:
        """After a failure the file is left for a new one: nobody knows what a failed fsync has kept."""
        if self._file is None or self._file.is_full(self._file_bytes):
            self._next_file()
        assert self._file is not None
        try:
            self._file.write(exposures)
            self.fsyncs += 1
        except OSError:
            self._leave_file()
            raise

    def _next_file(self) -> None:
        self._leave_file()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_old(self.directory)
        self._file = _JournalFile(self.directory)

    def _leave_file(self) -> None:
        left, self._file = self._file, None
        if left is not None:
            left.close()


class _JournalFile:
    """One file under way, named by when it was begun and by whom. A torn last line is what a crash may leave."""

    def __init__(self, directory: Path) -> None:
        self._opened_at = clock.now()
        begun = self._opened_at.strftime("%Y%m%dT%H%M%S.%fZ")
        self._path = directory / f"{begun}-{socket.gethostname()}-{os.getpid()}-{clock.new_id().hex[-8:]}.jsonl"
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._seq = 0
        self._bytes = 0
        _fsync_directory(directory)

    def is_full(self, most_bytes: int) -> bool:
        return self._bytes >= most_bytes or clock.now() - self._opened_at > FILE_AGE

    def write(self, exposures: list[JournalExposure]) -> None:
        """All on disk when it returns."""
        lines = enumerate(exposures, self._seq + 1)
        content = memoryview(b"".join(_encode(JournalLine(seq=seq, exposure=exposure)) for seq, exposure in lines))
        written = 0
        while written < len(content):
            written += os.write(self._descriptor, content[written:])
        os.fsync(self._descriptor)
        self._seq += len(exposures)
        self._bytes += written

    def close(self) -> None:
        """A file in which nothing was ever promised is not kept."""
        with contextlib.suppress(OSError):  # what was promised was on disk before
            os.close(self._descriptor)
            if self._seq == 0:
                self._path.unlink()


def _encode(line: JournalLine) -> bytes:
    raw = msgspec.json.encode(line)
    return msgspec.json.encode(_ChecksummedLine(crc32=zlib.crc32(raw), line=msgspec.Raw(raw))) + b"\n"


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_old(directory: Path) -> None:
    oldest = (clock.now() - RETENTION).timestamp()
    for written_at, path in _by_age(directory):
        if written_at < oldest:
            path.unlink(missing_ok=True)


# --- reading ----------------------------------------------------------------------------------------------------------


def read(directory: Path) -> Iterator[JournalExposure | JournalDamage]:
    """Everything in the journal, file by file in the order of their beginning. Raises OSError."""
    for path in sorted(path for _, path in _by_age(directory)):
        with contextlib.suppress(FileNotFoundError):
            yield from _read_file(path)


def read_newest(directory: Path) -> Iterator[JournalExposure | JournalDamage]:
    """The end of each of the files written last. Raises OSError."""
    for _, path in _by_age(directory)[-NEWEST_FILES:]:
        with contextlib.suppress(FileNotFoundError):
            yield from _read_end(path)


async def missing(connection: Connection, exposures: Iterable[JournalExposure]) -> tuple[JournalExposure, ...]:
    """Those that the database has neither as an exposure nor, since a fence, as a fenced lead. Raises SchemaBehind."""
    asked = list(exposures)
    found: list[JournalExposure] = []
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        try:
            rows = await connection.fetch(SQL["list_remembered"], [exposure.lead_id for exposure in batch])
        except asyncpg.UndefinedTableError as error:
            raise SchemaBehind from error
        remembered = {(row["lead_id"], row["assignment_id"]) for row in rows}
        found += [one for one in batch if (one.lead_id, one.assignment_id) not in remembered]
    return tuple(found)


def _by_age(directory: Path) -> list[tuple[float, Path]]:
    """Each file and when it was last written, the newest last; a process that leaves takes its empty file with it."""
    found = []
    for path in directory.glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path))
    return sorted(found)


def _read_file(path: Path) -> Iterator[JournalExposure | JournalDamage]:
    expected = 1
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return  # torn by a crash, and so never promised
            line = _decode(raw)
            if line is None:
                yield JournalDamage(file=path.name, line=number, what=CHANGED)
                expected += 1
                continue
            if line.seq != expected:
                yield JournalDamage(
                    file=path.name, line=number, what=f"line {expected} is expected here, not {line.seq}"
                )
            expected = line.seq + 1
            yield line.exposure


def _read_end(path: Path) -> Iterator[JournalExposure | JournalDamage]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - NEWEST_BYTES, 0))
        raws = file.read(NEWEST_BYTES).split(b"\n")[:-1]  # what follows the last line's end was torn by a crash
    for raw in raws if size <= NEWEST_BYTES else raws[1:]:  # the first may have lost its beginning here
        line = _decode(raw)
        yield line.exposure if line is not None else JournalDamage(file=path.name, line=None, what=CHANGED)


def _decode(raw: bytes) -> JournalLine | None:
    try:
        checked = msgspec.json.decode(raw, type=_ChecksummedLine)
        if zlib.crc32(checked.line) != checked.crc32:
            return None
        return msgspec.json.decode(checked.line, type=JournalLine)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
