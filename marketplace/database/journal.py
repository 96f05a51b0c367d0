"""Exposure journal: a second record of every exposure, outside Postgres, on disk before contact data is sent.

A database that was restored from a backup lacks its newest exposures and would sell those persons again; the journal
has them. One file per process, one JSON line with a checksum per exposure; concurrent appends share one fsync. It holds
no contact data: persons are keyed hashes, as in the person windows.

A restored database lacks the end of its history, so it always lacks the newest lines. Each process therefore compares
only those, at its start and on each new connection; `marketplace fence` compares all.
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
"A file of this size, about 70,000 exposures, is followed by a new one."
FILE_AGE: Final = timedelta(days=1)
"A file of this age is followed by a new one, so that old files can be removed."
RETENTION: Final = timedelta(days=35)
"Files last written longer ago are removed. No backup may be restored that is older than this: managed databases keep\
 theirs for at most 35 days, and a person is protected for 30."
NEWEST_FILES: Final = 50
"Files whose ends are compared with the database: more than there are processes writing at a time."
NEWEST_BYTES: Final = 32 * 1024
"Bytes of a file's end that are compared: about 35 exposures, more than a process commits within one fsync."
CHANGED: Final = "a line does not match its checksum"
BATCH: Final = 5_000
"Lines compared in one statement."


class JournalExposure(msgspec.Struct, frozen=True, kw_only=True):
    """One exposure with all columns to write its rows again. `persons` are keyed hashes."""

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
    """Part of a line that the checksum covers. `seq` counts from 1 within a file, so that a missing line is noticed."""

    seq: int
    exposure: JournalExposure


class JournalDamage(msgspec.Struct, frozen=True, kw_only=True):
    """A place that a crash cannot explain: the file was changed after it was written."""

    file: str
    line: int | None
    what: str


class _ChecksummedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line as stored in the file: the CRC-32 of the bytes of `line`."""

    crc32: int
    line: msgspec.Raw


class JournalError(Exception):
    """Raised when an exposure could not be written to the journal: its contact must not be sent now."""


class JournalUnusable(StartError):
    """Raised when the journal's directory cannot be created, read or written."""

    def __init__(self, directory: Path, error: OSError) -> None:
        super().__init__(
            "journal_unusable",
            f"The exposure journal in {directory} cannot be used ({error.strerror or type(error).__name__}).",
            "Make the directory writable, or set MARKETPLACE_JOURNAL to one that is.",
        )


class DatabaseSetBack(StartError):
    """Raised when the database lacks journaled exposures: it was restored from a backup and must not be routed on."""

    def __init__(self, directory: Path, forgotten: int, compared: int) -> None:
        super().__init__(
            "database_set_back",
            f"The database is older than the exposure journal in {directory}: of the newest {compared} exposures it has"
            f" forgotten {forgotten}, and would show those people to a second business.",
            "Run: marketplace fence (or set MARKETPLACE_JOURNAL, if this is the journal of another database).",
        )


class SchemaBehind(StartError):
    """Raised when the database lacks the tables for comparing it with the journal."""

    def __init__(self) -> None:
        super().__init__("schema_behind", "The schema is older than the code.", "Run: marketplace migrate")


# --- writing ----------------------------------------------------------------------------------------------------------


class Journal:
    """Writer of exposures. All file work runs in one thread of its own, which slow name lookups cannot block."""

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
        """Return a journal with a new file, and remove files older than RETENTION. Raises JournalUnusable."""
        journal = cls(directory, file_bytes=file_bytes)
        try:
            await asyncio.get_running_loop().run_in_executor(journal._thread, journal._next_file)
        except OSError as error:
            journal._thread.shutdown()
            raise JournalUnusable(directory, error) from error
        return journal

    async def append(self, exposure: JournalExposure) -> None:
        """Return once the line is on disk; concurrent appends share an fsync. Raises JournalError."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((exposure, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        await done

    async def check(self, connection: Connection) -> None:
        """Refuse a database that lacks one of the newest exposures. Raises StartError."""
        newest = await asyncio.to_thread(self._newest)
        if forgotten := await missing(connection, newest):
            raise DatabaseSetBack(self.directory, len(forgotten), len(newest))

    async def close(self) -> None:
        """Close the file; call it after the last append has returned."""
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._leave_file)
        self._thread.shutdown()

    def _newest(self) -> tuple[JournalExposure, ...]:
        try:
            return tuple(entry for entry in read_newest(self.directory) if isinstance(entry, JournalExposure))
        except OSError as error:
            raise JournalUnusable(self.directory, error) from error

    async def _flush(self) -> None:
        """Write all waiting exposures together, until none waits."""
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
        """Write exposures; after a failure begin a new file, as nobody knows what a failed fsync has stored."""
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
        """Close the current file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class _JournalFile:
    """The file being written, named by its start and its process. A crash may leave an incomplete last line."""

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
        """Write the exposures and return once all are on disk."""
        lines = enumerate(exposures, self._seq + 1)
        content = memoryview(b"".join(_encode(JournalLine(seq=seq, exposure=exposure)) for seq, exposure in lines))
        size = 0
        while size < len(content):
            size += os.write(self._descriptor, content[size:])
        os.fsync(self._descriptor)
        self._seq += len(exposures)
        self._bytes += size

    def close(self) -> None:
        """Close the file, and delete it when it has no line."""
        with contextlib.suppress(OSError):  # completed lines are on disk already
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
    """Yield all entries and damages, file by file in order of their start. Raises OSError."""
    for path in sorted(path for _, path in _by_age(directory)):
        with contextlib.suppress(FileNotFoundError):
            yield from _read_file(path)


def read_newest(directory: Path) -> Iterator[JournalExposure | JournalDamage]:
    """Yield the entries and damages at the end of each of the newest files. Raises OSError."""
    for _, path in _by_age(directory)[-NEWEST_FILES:]:
        with contextlib.suppress(FileNotFoundError):
            yield from _read_end(path)


async def missing(connection: Connection, exposures: Iterable[JournalExposure]) -> tuple[JournalExposure, ...]:
    """Return the exposures that the database has neither as exposure nor as fenced lead. Raises SchemaBehind."""
    journaled = list(exposures)
    lacking: list[JournalExposure] = []
    for start in range(0, len(journaled), BATCH):
        batch = journaled[start : start + BATCH]
        try:
            rows = await connection.fetch(SQL["list_remembered"], [exposure.lead_id for exposure in batch])
        except asyncpg.UndefinedTableError as error:
            raise SchemaBehind from error
        remembered = {(row["lead_id"], row["assignment_id"]) for row in rows}
        lacking += [exposure for exposure in batch if (exposure.lead_id, exposure.assignment_id) not in remembered]
    return tuple(lacking)


def _by_age(directory: Path) -> list[tuple[float, Path]]:
    """Return each file with the time of its last write, newest last; files that vanish meanwhile are skipped."""
    files = []
    for path in directory.glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            files.append((path.stat().st_mtime, path))
    return sorted(files)


def _read_file(path: Path) -> Iterator[JournalExposure | JournalDamage]:
    """Yield the entries and damages of one file."""
    expected = 1
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return  # incomplete after a crash: nothing was sent for it
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
    """Yield the entries and damages at the end of one file."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - NEWEST_BYTES, 0))
        raws = file.read(NEWEST_BYTES).split(b"\n")[:-1]  # an incomplete last line is left by a crash
    complete = raws if size <= NEWEST_BYTES else raws[1:]  # the first may be cut here
    for raw in complete:
        line = _decode(raw)
        yield line.exposure if line is not None else JournalDamage(file=path.name, line=None, what=CHANGED)


def _decode(raw: bytes) -> JournalLine | None:
    """Return the line, or None when it does not match its checksum."""
    try:
        checked = msgspec.json.decode(raw, type=_ChecksummedLine)
        if zlib.crc32(checked.line) != checked.crc32:
            return None
        return msgspec.json.decode(checked.line, type=JournalLine)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
