"""Statements of the sources of lists on the web as typed functions: one per query, without a decision."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row

SQL = Queries(__file__, "sources.sql")

LEASE: Final = timedelta(seconds=60)
"Another process takes a source over if the one that has it has not extended the lease by then."


class SourceFormat(StrEnum):
    """Form of the file of a source. A file in the other form is refused."""

    csv = "csv"
    """Rows of text, as in an uploaded file."""
    csv_gzip = "csv_gzip"
    """The same, compressed by gzip."""


class SourceSchedule(StrEnum):
    """Interval between two refreshes from a source."""

    hourly = "hourly"
    daily = "daily"
    weekly = "weekly"

    @property
    def interval(self) -> timedelta:
        """The time from one refresh to the next."""
        return INTERVALS[self]


INTERVALS: Final = {
    SourceSchedule.hourly: timedelta(hours=1),
    SourceSchedule.daily: timedelta(days=1),
    SourceSchedule.weekly: timedelta(weeks=1),
}


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a source. `country` is that of phone numbers in national form."""

    url: str
    format: SourceFormat
    schedule: SourceSchedule
    country: str = "US"


class SourceRow(SourceSettings, frozen=True, kw_only=True):
    """A source as the page shows it. `failures` counts those since the last success.

    `smaller_rows` is the number of rows of a file that waits for confirmation, since it has less than half of the list;
    `confirmed_rows` the number that an operator has confirmed.
    """

    list_id: UUID
    name: str
    header_name: str | None
    due_at: datetime
    leased_until: datetime | None
    checked_at: datetime | None
    members: int
    failures: int
    failure: str | None
    failed_at: datetime | None
    smaller_rows: int | None
    confirmed_rows: int | None


class ListSource(SourceRow, frozen=True, kw_only=True):
    """A source as a refresh needs it: the sealed header, and what is known of the file that was published last.

    `is_current`: the list is as this source made it last. `was_undone`: that import was undone.
    """

    header_value: bytes | None
    set_at: datetime
    etag: str | None
    last_modified: str | None
    content_sha256: bytes | None
    is_current: bool
    was_undone: bool


class PublishedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The version that a source has made of its list, and what its server said of the file."""

    version: int
    etag: str | None
    last_modified: str | None
    content_sha256: bytes


async def save_source(
    connection: Connection, list_id: UUID, settings: SourceSettings, header: tuple[str, bytes] | None, now: datetime
) -> None:
    """Insert the source of a list, or replace it; `header` is a name and a sealed value."""
    name, value = header or (None, None)
    await connection.execute(SQL["save_source"], list_id, *msgspec.structs.astuple(settings), name, value, now)


async def clear_file_source(connection: Connection, list_id: UUID) -> None:
    """End the refreshing of a list from a file."""
    await connection.execute(SQL["clear_file_source"], list_id)


async def find_source(connection: Connection, list_id: UUID) -> ListSource | None:
    return await find_row(connection, SQL["find_source"], ListSource, list_id)


async def list_sources(connection: Connection, before: UUID | None, limit: int) -> tuple[SourceRow, ...]:
    """List up to `limit` sources of lists that are older than `before`, the newest list first."""
    return await fetch_rows(connection, SQL["list_sources"], SourceRow, before, limit)


async def claim_due(connection: Connection, until: datetime, now: datetime) -> UUID | None:
    """Lease one source that is due, until a time, and return its list; None if none is due."""
    list_id: UUID | None = await connection.fetchval(SQL["claim_due"], until, now)
    return list_id


async def claim_source(connection: Connection, list_id: UUID, until: datetime, now: datetime) -> bool:
    """Lease the source of a list, until a time; False if there is none, or another process has it."""
    return await connection.fetchval(SQL["claim_source"], list_id, until, now) is not None


async def extend_lease(connection: Connection, source: ListSource, until: datetime) -> None:
    await connection.execute(SQL["extend_lease"], source.list_id, source.set_at, until)


async def mark_published(
    connection: Connection, source: ListSource, file: PublishedFile, now: datetime, due_at: datetime
) -> None:
    values = (file.version, file.etag, file.last_modified, file.content_sha256, now, due_at)
    await connection.execute(SQL["mark_published"], source.list_id, source.set_at, *values)


async def mark_unchanged(connection: Connection, source: ListSource, now: datetime, due_at: datetime) -> None:
    await connection.execute(SQL["mark_unchanged"], source.list_id, source.set_at, now, due_at)


async def mark_failed(
    connection: Connection,
    source: ListSource,
    failure: str,
    now: datetime,
    due_at: datetime,
    smaller_rows: int | None,
) -> None:
    """Record a failure; with `smaller_rows`, a file of so many rows waits for confirmation."""
    values = (source.list_id, source.set_at, failure, now, due_at, smaller_rows)
    await connection.execute(SQL["mark_failed"], *values)


async def request_refresh(connection: Connection, list_id: UUID, now: datetime) -> bool:
    """Make a source due; return False if there is none."""
    return await connection.fetchval(SQL["request_refresh"], list_id, now) is not None


async def confirm_smaller(connection: Connection, list_id: UUID, rows: int, now: datetime) -> bool:
    """Confirm that a file with so many rows is complete; return False if none of that number waits."""
    return await connection.fetchval(SQL["confirm_smaller"], list_id, rows, now) is not None


async def delete_source(connection: Connection, list_id: UUID) -> bool:
    return await connection.fetchval(SQL["delete_source"], list_id) is not None
