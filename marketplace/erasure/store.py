"""The statements of erasure as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from marketplace.db import Connection, Queries
from routing.lifecycle import LeadState

SQL = Queries(__file__)


class NoticeState(StrEnum):
    """How far the one business that may have seen the person has been told."""

    not_needed = "not_needed"
    "No business had seen the lead."
    due = "due"
    "It is being told, again and again until it answers or its deadline comes."
    acknowledged = "acknowledged"
    "It has answered with a 2xx, or acknowledged it here."
    overdue = "overdue"
    "It has not, by its deadline: somebody has to call."


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One lead's erasure and its notice. `state` is the lead's, as it is now."""

    lead_id: UUID
    provider_id: UUID
    mode: str
    state: LeadState
    requested_at: datetime
    requested_by: str
    reason: str
    suppressed: bool
    business_id: UUID | None
    assignment_id: UUID | None
    notice_state: NoticeState
    notice_due_at: datetime | None
    attempts: int
    notice_result: str | None
    acknowledged_at: datetime | None
    deadline_at: datetime | None


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A notice that is due, and the endpoint to send it to; none if every one of the business's is switched off."""

    lead_id: UUID
    assignment_id: UUID
    mode: str
    requested_at: datetime
    deadline_at: datetime
    attempts: int
    business_id: UUID
    endpoint_id: UUID | None
    endpoint_kind: str | None
    url: str | None
    secret: bytes | None
    previous_secret: bytes | None
    previous_until: datetime | None
    read_at: datetime
    "When it was read, by the database's clock."


async def become_eraser(connection: Connection) -> None:
    """Takes the role that may erase, until the transaction ends."""
    await connection.execute(SQL["become_eraser"])


async def find_lead(connection: Connection, lead_id: UUID, mode: str, provider_id: UUID | None) -> bool:
    return await connection.fetchval(SQL["find_lead"], lead_id, mode, provider_id) is not None


async def list_leads_of_person(
    connection: Connection, keys: Sequence[bytes], mode: str, provider_id: UUID | None, limit: int
) -> tuple[UUID, ...]:
    rows = await connection.fetch(SQL["list_leads_of_person"], list(keys), mode, provider_id, limit)
    return tuple(row["id"] for row in rows)


async def lock_lead(connection: Connection, lead_id: UUID) -> LeadState:
    return LeadState(await connection.fetchval(SQL["lock_lead"], lead_id))


async def find_held(connection: Connection, lead_id: UUID) -> UUID | None:
    """The assignment that holds the lead, if nothing has left us yet."""
    found: UUID | None = await connection.fetchval(SQL["find_held"], lead_id)
    return found


async def suppress_person(connection: Connection, lead_id: UUID, reason: str, source: str, now: datetime) -> bool:
    """Whether the lead was known by a phone number or an e-mail address, and its person is suppressed now."""
    await connection.execute(SQL["suppress_person"], lead_id, reason, source, now)
    return bool(await connection.fetchval(SQL["is_known"], lead_id))


async def destroy_person(connection: Connection, lead_id: UUID) -> None:
    await connection.execute(SQL["destroy_person"], lead_id)


async def insert_erasure(
    connection: Connection, lead_id: UUID, now: datetime, actor: str, reason: str, suppressed: bool,
    deadline_at: datetime,
) -> None:  # fmt: skip
    """With a notice due at once where the lead has an exposure."""
    await connection.execute(SQL["insert_erasure"], lead_id, now, actor, reason, suppressed, deadline_at)


async def find_erasure(connection: Connection, lead_id: UUID) -> Erasure | None:
    row = await connection.fetchrow(SQL["find_erasure"], lead_id)
    return msgspec.convert(dict(row), Erasure) if row else None


async def list_erasures(
    connection: Connection, before: UUID | None, notice_state: NoticeState | None, limit: int, mode: str | None = None
) -> tuple[Erasure, ...]:
    """Newest first; with `mode` those of leads of that mode alone."""
    rows = await connection.fetch(SQL["list_erasures"], before, notice_state, limit, mode)
    return tuple(msgspec.convert(dict(row), Erasure) for row in rows)


async def claim_due_notices(connection: Connection, lease: timedelta, most: int) -> tuple[UUID, ...]:
    """Leads whose notice is due; each is leased to the caller."""
    return tuple(row["lead_id"] for row in await connection.fetch(SQL["claim_due_notices"], lease, most))


async def find_notice(connection: Connection, lead_id: UUID) -> Notice | None:
    row = await connection.fetchrow(SQL["find_notice"], lead_id)
    return msgspec.convert(dict(row), Notice) if row else None


async def place_notice(connection: Connection, assignment_id: UUID, now: datetime) -> None:
    await connection.execute(SQL["place_notice"], assignment_id, now)


async def mark_notice_due(connection: Connection, lead_id: UUID, due_at: datetime, result: str) -> None:
    await connection.execute(SQL["mark_notice_due"], lead_id, due_at, result)


async def mark_overdue(connection: Connection, lead_id: UUID) -> bool:
    return await connection.fetchval(SQL["mark_overdue"], lead_id) is not None


async def mark_acknowledged(connection: Connection, lead_id: UUID, now: datetime, how: str) -> bool:
    """False when somebody had acknowledged it before."""
    return await connection.fetchval(SQL["mark_acknowledged"], lead_id, now, how) is not None
