"""The queries of erasure as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row
from marketplace.notices.store import NoticeState
from routing.lifecycle import LeadState

SQL = Queries(__file__)


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """Erasure of one lead, with its notice. `state` is the present state of the lead."""

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
    notice_id: UUID | None
    notice_state: NoticeState
    notice_due_at: datetime | None
    attempts: int
    notice_result: str | None
    acknowledged_at: datetime | None
    deadline_at: datetime | None


async def become_eraser(connection: Connection) -> None:
    """Take the role that may erase, until the transaction ends."""
    await connection.execute(SQL["become_eraser"])


async def find_lead(connection: Connection, lead_id: UUID, mode: str, provider_id: UUID | None) -> bool:
    """Return whether there is such a lead in this mode, and of this provider if one is passed."""
    return await connection.fetchval(SQL["find_lead"], lead_id, mode, provider_id) is not None


async def list_leads_of_person(
    connection: Connection, keys: Sequence[bytes], mode: str, provider_id: UUID | None, limit: int
) -> tuple[UUID, ...]:
    """Return the leads in this mode that have one of the keyed hashes, of this provider if one is passed."""
    rows = await connection.fetch(SQL["list_leads_of_person"], list(keys), mode, provider_id, limit)
    return tuple(row["id"] for row in rows)


async def lock_lead(connection: Connection, lead_id: UUID) -> LeadState:
    """Lock the lead until the transaction ends, and return its state."""
    return LeadState(await connection.fetchval(SQL["lock_lead"], lead_id))


async def find_held(connection: Connection, lead_id: UUID) -> UUID | None:
    """Return the assignment that holds the lead and was not exposed yet, or None."""
    assignment_id: UUID | None = await connection.fetchval(SQL["find_held"], lead_id)
    return assignment_id


async def suppress_person(connection: Connection, lead_id: UUID, reason: str, source: str, now: datetime) -> bool:
    """Suppress the lead's person by phone and e-mail address; return whether the lead has either of them.

    An existing suppression of the same phone or address is kept as it is.
    """
    await connection.execute(SQL["suppress_person"], lead_id, reason, source, now)
    return bool(await connection.fetchval(SQL["is_known"], lead_id))


async def destroy_person(connection: Connection, lead_id: UUID) -> None:
    """Delete the lead's contact, its data key, its keyed hashes, and every text that people wrote about it."""
    await connection.execute(SQL["destroy_person"], lead_id)


async def insert_erasure(
    connection: Connection,
    lead_id: UUID,
    now: datetime,
    actor: str,
    reason: str,
    suppressed: bool,
    notice_id: UUID | None,
) -> None:
    """Record the erasure, with the notice to the business that was shown the lead, if there is one."""
    await connection.execute(SQL["insert_erasure"], lead_id, now, actor, reason, suppressed, notice_id)


async def find_erasure(connection: Connection, lead_id: UUID) -> Erasure | None:
    """Return the lead's erasure, or None if it was not erased."""
    return await find_row(connection, SQL["find_erasure"], Erasure, lead_id)


async def list_erasures(
    connection: Connection, before: UUID | None, notice_state: NoticeState | None, limit: int, mode: str | None = None
) -> tuple[Erasure, ...]:
    """Return erasures, newest first, after the lead `before`; with `mode`, only those of leads in that mode."""
    return await fetch_rows(connection, SQL["list_erasures"], Erasure, before, notice_state, limit, mode)
