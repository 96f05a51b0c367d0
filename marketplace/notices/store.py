"""The queries of notices as typed functions: one per query, no decision inside."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row
from marketplace.runtime import clock
from routing.contract import Contract
from routing.delivery import EndpointKind

SQL = Queries(__file__)

BUSINESS_DAYS: Final = 10
"""Business days that the business has to act on a notice.

It is the time to act on a revoked consent in the United States (47 CFR 64.1200(a)(10)), shorter than the GDPR's month.
"""


class NoticeKind(StrEnum):
    """Kinds of notices."""

    erased = "erased"
    "The person was erased: the business must delete its data as well."
    revoked = "revoked"
    "The person revoked consent: the business must stop to contact the person."
    updated = "updated"
    "The lead's facts or its contact data changed."


class NoticeState(StrEnum):
    """State of the notice to the one business that was shown the lead."""

    not_needed = "not_needed"
    "No business was shown the lead, so there is no notice."
    due = "due"
    "The notice is sent repeatedly, until the business acknowledges it or the deadline passes."
    acknowledged = "acknowledged"
    "The business answered with a 2xx, or acknowledged the notice in its feed, by the API or in the portal."
    overdue = "overdue"
    "The business did not acknowledge the notice by the deadline: it is reminded daily, and an operator has to call."
    withdrawn = "withdrawn"
    "The person was erased before this change of facts was acknowledged; the notice of the erasure replaces it."


class NoticeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A notice as its business is told of it, without contact data."""

    id: UUID
    lead_id: UUID
    kind: NoticeKind
    assignment_id: UUID
    business_id: UUID
    mode: str
    made_at: datetime
    detail: dict[str, Any]
    deadline_at: datetime


class DueNotice(NoticeEvent, frozen=True, kw_only=True):
    """A notice that is due, with the endpoint to send it to, which is None if the business has no active one."""

    state: NoticeState
    attempts: int
    endpoint_id: UUID | None
    endpoint_kind: EndpointKind | None
    url: str | None
    secret: bytes | None
    previous_secret: bytes | None
    previous_until: datetime | None
    contract: Contract | None
    read_at: datetime
    "Time of the read, by the database's clock."


class NoticeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A notice in a list, with the name of its business."""

    id: UUID
    lead_id: UUID
    kind: NoticeKind
    business_id: UUID
    business_name: str
    mode: str
    made_at: datetime
    detail: dict[str, Any]
    state: NoticeState
    attempts: int
    result: str | None
    acknowledged_at: datetime | None
    deadline_at: datetime


def after_business_days(start: datetime, days: int) -> datetime:
    """Return the same time of day, `days` Mondays to Fridays later, in UTC. Public holidays count as business days."""
    end = start
    while days > 0:
        end += timedelta(days=1)
        days -= end.weekday() < 5
    return end


async def insert_notice(
    connection: Connection, lead_id: UUID, kind: NoticeKind, now: datetime, detail: dict[str, Any]
) -> UUID | None:
    """Insert a notice to the business that was shown the lead, due at once; return its id, or None without an exposure.

    Call it in the transaction of the change, under the lead's lock, so that no exposure can come between. `detail` must
    hold no contact data.
    """
    deadline_at = after_business_days(now, BUSINESS_DAYS)
    notice_id: UUID | None = await connection.fetchval(
        SQL["insert_notice"], clock.new_id(), lead_id, kind, now, msgspec.json.encode(detail), deadline_at
    )
    return notice_id


async def claim_due_notices(connection: Connection, lease: timedelta, most: int) -> tuple[tuple[UUID, UUID], ...]:
    """Lease up to `most` due notices to the caller for `lease`, and return their ids, each with its lead."""
    return tuple((row["id"], row["lead_id"]) for row in await connection.fetch(SQL["claim_due_notices"], lease, most))


async def find_notice(connection: Connection, notice_id: UUID) -> DueNotice | None:
    """Return the notice if it is due or overdue and still repeated, else None."""
    return await find_row(connection, SQL["find_notice"], DueNotice, notice_id)


async def find_event(connection: Connection, notice_id: UUID) -> NoticeEvent | None:
    """Return the notice for its place in the feed, or None if it was withdrawn."""
    return await find_row(connection, SQL["find_event"], NoticeEvent, notice_id)


async def place_notice(connection: Connection, notice: NoticeEvent, event: str, now: datetime) -> None:
    """Place the notice in the business's feed as `event`, once."""
    await connection.execute(SQL["place_notice"], notice.assignment_id, event, now, notice.id)


async def mark_due(connection: Connection, notice_id: UUID, due_at: datetime | None, result: str | None) -> None:
    """Set the time of the next attempt (None: no further one), and the result of the last one if there is one."""
    await connection.execute(SQL["mark_due"], notice_id, due_at, result)


async def mark_overdue(connection: Connection, notice_id: UUID, remind_at: datetime | None) -> bool:
    """Mark a due notice overdue, with the time of the first reminder; return False if it was not due any more."""
    return await connection.fetchval(SQL["mark_overdue"], notice_id, remind_at) is not None


async def mark_acknowledged(
    connection: Connection, notice_id: UUID, now: datetime, how: str
) -> tuple[UUID, NoticeKind] | None:
    """Mark the notice acknowledged with the result `how`; return its lead and kind, or None if it was before."""
    row = await connection.fetchrow(SQL["mark_acknowledged"], notice_id, now, how)
    return None if row is None else (row["lead_id"], NoticeKind(row["kind"]))


async def withdraw_updates(connection: Connection, lead_id: UUID) -> None:
    """Empty the notices of changed facts of an erased lead, and send those that were not acknowledged no more."""
    await connection.execute(SQL["withdraw_updates"], lead_id)


async def list_notices(
    connection: Connection,
    *,
    lead_id: UUID | None = None,
    business_id: UUID | None = None,
    mode: str | None = None,
    state: NoticeState | None = None,
    before: UUID | None = None,
    limit: int,
) -> tuple[NoticeRow, ...]:
    """Return notices, newest first, after the notice `before`, limited by what is passed."""
    return await fetch_rows(
        connection, SQL["list_notices"], NoticeRow, lead_id, business_id, mode, state, before, limit
    )


async def count_open(connection: Connection, business_id: UUID, mode: str) -> int:
    """Return the number of revoked consents and erasures in this mode that the business has not acknowledged."""
    return int(await connection.fetchval(SQL["count_open"], business_id, mode))


async def find_row_of_business(connection: Connection, notice_id: UUID, business_id: UUID) -> NoticeRow | None:
    """Return the notice if it is to this business, else None."""
    return await find_row(connection, SQL["find_of_business"], NoticeRow, notice_id, business_id)
