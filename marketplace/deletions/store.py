"""The queries of deletion requests as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row
from marketplace.notices.store import NoticeState

SQL = Queries(__file__)


class DeletionState(StrEnum):
    """State of a request to be deleted."""

    open = "open"
    "The request waits to be carried out or refused."
    erased = "erased"
    "All leads of the person are erased; a business that was shown one has time to acknowledge its notice."
    done = "done"
    "All leads are erased, and each notice was acknowledged or is overdue."
    refused = "refused"
    "The request was refused for one of the reasons of a refusal."


class DeletionRefusal(StrEnum):
    """Reasons to refuse a request to be deleted."""

    not_found = "not_found"
    "Nothing is held about this person."
    identity_not_proved = "identity_not_proved"
    "The person did not prove to be the one whose data it is."
    legal_duty_to_keep = "legal_duty_to_keep"
    "A law obliges the marketplace to keep the data."


LATE = "late"
"Filter of a list: requests that have not ended by their deadline."


class LockedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request under its lock, with the keyed hashes of the person and the sealed contact."""

    id: UUID
    mode: str
    state: DeletionState
    keys: tuple[bytes, ...]
    lead_id: UUID | None
    contact: bytes | None
    suppresses: bool


class DeletionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request with the number of its leads, and of the notices to businesses that were shown one.

    `acknowledged` and `overdue` count notices.
    """

    id: UUID
    mode: str
    received_at: datetime
    deadline_at: datetime
    requested_by: str
    lead_id: UUID | None
    suppresses: bool
    state: DeletionState
    refusal: DeletionRefusal | None
    erased_at: datetime | None
    ended_at: datetime | None
    has_contact: bool
    leads: int
    notices: int
    acknowledged: int
    overdue: int

    def is_late(self, now: datetime) -> bool:
        """Return whether the request has not ended by its deadline."""
        return self.ended_at is None and self.deadline_at <= now


class DeletionLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead of a request. `erased_at` is None until it is erased; the business is the one that was shown the lead."""

    lead_id: UUID
    erased_at: datetime | None
    suppressed: bool | None
    business_id: UUID | None
    business_name: str | None
    notice_state: NoticeState | None
    notified_at: datetime | None
    acknowledged_at: datetime | None
    deadline_at: datetime | None


async def insert_request(
    connection: Connection,
    request: LockedRequest,
    *,
    received_at: datetime,
    deadline_at: datetime,
    requested_by: str,
) -> None:
    """Record an open request."""
    await connection.execute(
        SQL["insert_request"],
        request.id,
        request.mode,
        received_at,
        deadline_at,
        requested_by,
        list(request.keys),
        request.lead_id,
        request.contact,
        request.suppresses,
    )


async def list_keys_of_lead(connection: Connection, lead_id: UUID) -> tuple[bytes, ...]:
    """Return the keyed hashes of the person of a lead; none if the person was erased."""
    return tuple(row["key"] for row in await connection.fetch(SQL["list_keys_of_lead"], lead_id))


async def lock_request(connection: Connection, request_id: UUID) -> LockedRequest | None:
    """Lock the request until the transaction ends, and return it; None if there is no such request."""
    return await find_row(connection, SQL["lock_request"], LockedRequest, request_id)


async def list_unnamed_leads(connection: Connection, request: LockedRequest, limit: int) -> tuple[UUID, ...]:
    """Return leads of the person that the request does not name yet."""
    rows = await connection.fetch(
        SQL["list_unnamed_leads"], request.id, request.mode, list(request.keys), request.lead_id, limit
    )
    return tuple(row["id"] for row in rows)


async def name_leads(connection: Connection, request_id: UUID, lead_ids: Sequence[UUID]) -> None:
    """Add leads to the request."""
    await connection.execute(SQL["name_leads"], request_id, list(lead_ids))


async def list_unerased_leads(connection: Connection, request_id: UUID) -> tuple[UUID, ...]:
    """Return the leads of the request that were not erased yet."""
    return tuple(row["lead_id"] for row in await connection.fetch(SQL["list_unerased_leads"], request_id))


async def mark_erased(connection: Connection, request_id: UUID, now: datetime) -> bool:
    """Mark an open request erased; return False if it was not open any more."""
    return await connection.fetchval(SQL["mark_erased"], request_id, now) is not None


async def mark_refused(connection: Connection, request_id: UUID, refusal: DeletionRefusal, now: datetime) -> bool:
    """Refuse an open request and delete its contact; return False if it is not open, or has leads that it names."""
    try:
        return await connection.fetchval(SQL["mark_refused"], request_id, refusal, now) is not None
    except asyncpg.CheckViolationError as error:
        if error.constraint_name == "deletion_request_begun":
            return False
        raise


async def complete(connection: Connection, now: datetime, request_id: UUID | None = None) -> tuple[UUID, ...]:
    """Mark erased requests done of which no notice waits any more, delete their contacts, and return their ids."""
    return tuple(row["id"] for row in await connection.fetch(SQL["complete"], now, request_id))


async def find_request(connection: Connection, request_id: UUID) -> DeletionRow | None:
    """Return the request, or None if there is no such request."""
    return await find_row(connection, SQL["find_request"], DeletionRow, request_id)


async def list_requests(
    connection: Connection, before: UUID | None, state: str | None, now: datetime, mode: str | None, limit: int
) -> tuple[DeletionRow, ...]:
    """Return requests after `before`: those that wait first, by their deadline.

    `state` is a DeletionState or LATE, `mode` limits them to a mode.
    """
    return await fetch_rows(connection, SQL["list_requests"], DeletionRow, before, state, now, mode, limit)


async def list_leads(connection: Connection, request_id: UUID) -> tuple[DeletionLead, ...]:
    """Return the leads of the request, each with the notice to the business that was shown it."""
    return await fetch_rows(connection, SQL["list_leads"], DeletionLead, request_id)
