"""The queries of the feed as typed functions: one per query, no decision inside."""

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row
from marketplace.delivery.store import CommittedExposure, DeliveryCase
from routing.inquiry import Facts
from routing.lifecycle import AssignmentState

SQL = Queries(__file__)


class EventKind(StrEnum):
    """Kinds of events in a feed."""

    assigned = "lead.assigned"
    "A lead of this business, with its contact: the body of the webhook of the same name."
    erased = "lead.erased"
    "An erasure: the business must delete the data of a person whose lead it was shown."
    revoked = "lead.revoked"
    "A revoked consent: the business must stop to contact a person whose lead it was shown."
    updated = "lead.updated"
    "A change of the facts or the contact data of a lead that the business was shown."


class FeedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a feed and the present state of its assignment, without the contact."""

    position: int
    kind: EventKind
    assignment_id: UUID
    lead_id: UUID
    state: AssignmentState
    notice_id: UUID | None


class InboxLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead that a member of the business may take until `hold_until`, without its contact."""

    assignment_id: UUID
    lead_id: UUID
    subscription_id: UUID
    state: AssignmentState
    mode: str
    price_minor: int
    currency: str
    awarded_at: datetime
    hold_until: datetime
    facts: Facts


class TicketRow(msgspec.Struct, frozen=True, kw_only=True):
    """The key in whose name a ticket opens a stream, and its expiry."""

    key_id: str
    expires_at: datetime


async def find_last(connection: Connection, business_id: UUID, mode: str) -> int:
    """Return the last position of the feed; 0 while it is empty."""
    return int(await connection.fetchval(SQL["find_last"], business_id, mode) or 0)


async def find_oldest_open(connection: Connection, business_id: UUID, mode: str) -> int | None:
    """Return the position of the oldest entry that can still be acknowledged, or None."""
    position: int | None = await connection.fetchval(SQL["find_oldest_open"], business_id, mode)
    return position


async def list_entries(
    connection: Connection, business_id: UUID, mode: str, after: int, last_seen: int, limit: int
) -> tuple[FeedEntry, ...]:
    """Return entries after the position `after`, in order; of those up to `last_seen`, only the open ones."""
    return await fetch_rows(connection, SQL["list_entries"], FeedEntry, business_id, mode, after, last_seen, limit)


async def expose(
    connection: Connection,
    case: DeliveryCase,
    business_id: UUID,
    reader: str,
    reader_sha256: bytes,
    now: datetime,
    evidence_until: datetime,
    channel: str,
) -> CommittedExposure | None:
    """Expose the lead to this business, or confirm that a concurrent call has done so; None if it is not allowed.

    `reader` is the id of the key or membership that reads, `reader_sha256` its hash. `channel` is "feed" or "portal";
    the lead's endpoint must be of a kind that is read there.
    """
    return await find_row(
        connection,
        SQL["expose"],
        CommittedExposure,
        case.lead_id,
        case.assignment_id,
        business_id,
        reader,
        reader_sha256,
        now,
        evidence_until,
        channel,
    )


async def list_inbox(connection: Connection, business_id: UUID, mode: str) -> tuple[InboxLead, ...]:
    """Return the leads that a member of the business may take now, newest first; 200 at most."""
    return await fetch_rows(connection, SQL["list_inbox"], InboxLead, business_id, mode)


async def find_inbox_lead(
    connection: Connection, assignment_id: UUID, business_id: UUID, mode: str
) -> InboxLead | None:
    """Return a lead that waits or waited in the business's inbox, in its present state; None if it never did."""
    return await find_row(connection, SQL["find_inbox_lead"], InboxLead, assignment_id, business_id, mode)


async def close_inbox_breaker(connection: Connection, business_id: UUID) -> None:
    """Close the breakers of the business's inboxes."""
    await connection.execute(SQL["close_inbox_breaker"], business_id)


async def close_breaker(connection: Connection, business_id: UUID) -> None:
    """Close the breakers of the business's feeds."""
    await connection.execute(SQL["close_breaker"], business_id)


async def list_unacknowledged(
    connection: Connection, business_id: UUID, mode: str, through: int, limit: int
) -> tuple[FeedEntry, ...]:
    """Return the entries up to the position `through` that were shown and are not acknowledged, in order."""
    return await fetch_rows(connection, SQL["list_unacknowledged"], FeedEntry, business_id, mode, through, limit)


async def find_shown(connection: Connection, lead_id: UUID, business_id: UUID, mode: str) -> UUID | None:
    """Return the assignment by which this business was shown the lead, or None if it was not shown it."""
    assignment_id: UUID | None = await connection.fetchval(SQL["find_shown"], lead_id, business_id, mode)
    return assignment_id


async def mark_acknowledged(connection: Connection, assignment_id: UUID, now: datetime) -> bool:
    """Mark a lead's event acknowledged; return False if it had been acknowledged before or is in no feed."""
    return await connection.fetchval(SQL["mark_acknowledged"], assignment_id, now) is not None


async def mark_notice_acknowledged(connection: Connection, notice_id: UUID, now: datetime) -> bool:
    """Mark a notice's event acknowledged; return False if it had been acknowledged before or is in no feed."""
    return await connection.fetchval(SQL["mark_notice_acknowledged"], notice_id, now) is not None


async def list_lasts(connection: Connection, feeds: Collection[tuple[UUID, str]]) -> Mapping[tuple[UUID, str], int]:
    """Return the last position of each of these feeds, by (business id, mode); empty feeds are missing."""
    business_ids = [business_id for business_id, _ in feeds]
    modes = [mode for _, mode in feeds]
    rows = await connection.fetch(SQL["list_lasts"], business_ids, modes)
    return {(row["business_id"], row["mode"]): row["last_position"] for row in rows}


async def list_ended(connection: Connection, key_ids: Collection[str], now: datetime) -> frozenset[str]:
    """Return those of the keys that are revoked or expired, or whose business is not active."""
    return frozenset(row["id"] for row in await connection.fetch(SQL["list_ended"], list(key_ids), now))


async def insert_ticket(connection: Connection, ticket_hash: bytes, ticket: TicketRow) -> None:
    """Store a new ticket."""
    await connection.execute(SQL["insert_ticket"], ticket_hash, ticket.key_id, ticket.expires_at)


async def take_ticket(connection: Connection, ticket_hash: bytes) -> TicketRow | None:
    """Delete the ticket and return it, or None if there is none, so that it is used only once."""
    return await find_row(connection, SQL["take_ticket"], TicketRow, ticket_hash)


async def forget_tickets(connection: Connection, before: datetime) -> None:
    """Delete the tickets that expired before a time."""
    await connection.execute(SQL["forget_tickets"], before)
