"""The statements of the feed as typed functions: one per query, no decision inside."""

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from marketplace.db import Connection, Queries
from marketplace.delivery.store import Case, Shown
from routing.lifecycle import AssignmentState

SQL = Queries(__file__)


class EventKind(StrEnum):
    """What a feed tells of."""

    assigned = "lead.assigned"
    "A lead of this business, with its contact: the body of the webhook of the same name."
    erased = "lead.erased"
    "The person behind a lead that this business was shown is to be forgotten."


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One place in a feed, and how its lead stands now. No contact."""

    position: int
    kind: EventKind
    assignment_id: UUID
    lead_id: UUID
    state: AssignmentState


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Whose key a ticket stands for, and how long it was good."""

    key_id: str
    expires_at: datetime


async def find_last(connection: Connection, business_id: UUID, mode: str) -> int:
    """0 while the feed is empty."""
    return int(await connection.fetchval(SQL["find_last"], business_id, mode) or 0)


async def find_oldest_open(connection: Connection, business_id: UUID, mode: str) -> int | None:
    found: int | None = await connection.fetchval(SQL["find_oldest_open"], business_id, mode)
    return found


async def list_entries(
    connection: Connection, business_id: UUID, mode: str, after: int, seen: int, limit: int
) -> tuple[Entry, ...]:
    rows = await connection.fetch(SQL["list_entries"], business_id, mode, after, seen, limit)
    return tuple(msgspec.convert(dict(row), Entry) for row in rows)


async def expose(
    connection: Connection, case: Case, business_id: UUID, reader: str, reader_sha256: bytes, now: datetime,
    evidence_until: datetime,
) -> Shown | None:  # fmt: skip
    """This business may be shown the lead: exposed now, or by a twin that was quicker; None when it is neither."""
    row = await connection.fetchrow(
        SQL["expose"], case.lead_id, case.assignment_id, business_id, reader, reader_sha256, now, evidence_until
    )
    return None if row is None else Shown(position=row["position"])


async def close_breaker(connection: Connection, business_id: UUID) -> None:
    await connection.execute(SQL["close_breaker"], business_id)


async def list_unacknowledged(
    connection: Connection, business_id: UUID, mode: str, through: int, limit: int
) -> tuple[Entry, ...]:
    rows = await connection.fetch(SQL["list_unacknowledged"], business_id, mode, through, limit)
    return tuple(msgspec.convert(dict(row), Entry) for row in rows)


async def find_shown(connection: Connection, lead_id: UUID, business_id: UUID, mode: str) -> UUID | None:
    """The assignment by which this business was shown the lead, if it was."""
    found: UUID | None = await connection.fetchval(SQL["find_shown"], lead_id, business_id, mode)
    return found


async def mark_acknowledged(connection: Connection, assignment_id: UUID, kind: EventKind, now: datetime) -> bool:
    """False when it had been acknowledged before, or is in no feed."""
    return await connection.fetchval(SQL["mark_acknowledged"], assignment_id, kind, now) is not None


async def list_lasts(connection: Connection, feeds: Collection[tuple[UUID, str]]) -> Mapping[tuple[UUID, str], int]:
    """How far each of these feeds has come; the empty ones are missing."""
    rows = await connection.fetch(SQL["list_lasts"], [one for one, _ in feeds], [mode for _, mode in feeds])
    return {(row["business_id"], row["mode"]): row["last_position"] for row in rows}


async def list_ended(connection: Connection, key_ids: Collection[str], now: datetime) -> frozenset[str]:
    """Those of these keys that were revoked, have expired, or are of a business that is not active."""
    return frozenset(row["id"] for row in await connection.fetch(SQL["list_ended"], list(key_ids), now))


async def insert_ticket(connection: Connection, ticket_hash: bytes, ticket: Ticket) -> None:
    await connection.execute(SQL["insert_ticket"], ticket_hash, ticket.key_id, ticket.expires_at)


async def take_ticket(connection: Connection, ticket_hash: bytes) -> Ticket | None:
    row = await connection.fetchrow(SQL["take_ticket"], ticket_hash)
    return msgspec.convert(dict(row), Ticket) if row else None


async def forget_tickets(connection: Connection, before: datetime) -> None:
    await connection.execute(SQL["forget_tickets"], before)
