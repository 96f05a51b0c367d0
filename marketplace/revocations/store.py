"""The queries of revocations as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row, load_row
from routing.consent import Channel
from routing.lifecycle import LeadState

SQL = Queries(__file__)


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded revocation. `channels` is empty if it is of all channels."""

    id: UUID
    revoked_at: datetime
    channels: tuple[Channel, ...]


class RevocationRow(msgspec.Struct, frozen=True, kw_only=True):
    """A revocation in a list, with the number of its leads, and of the notices to businesses that were shown one."""

    id: UUID
    revoked_at: datetime
    requested_by: str
    mode: str
    channels: tuple[Channel, ...]
    reason: str
    leads: int
    notices: int
    acknowledged: int
    overdue: int


class RevocationHook(msgspec.Struct, frozen=True, kw_only=True):
    """Sealed secrets of a sender of STOP messages; the previous one is valid until `previous_until`."""

    owner_id: UUID
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None


async def insert_revocation(
    connection: Connection,
    revocation: Revocation,
    *,
    requested_by: str,
    provider_id: UUID | None,
    mode: str,
    reason: str,
    message_id: str | None,
) -> bool:
    """Record a revocation; return False if `requested_by` has sent this message before."""
    return (
        await connection.fetchval(
            SQL["insert_revocation"],
            revocation.id,
            revocation.revoked_at,
            requested_by,
            provider_id,
            mode,
            list(revocation.channels),
            reason,
            message_id,
        )
        is not None
    )


async def find_of_message(connection: Connection, requested_by: str, message_id: str) -> Revocation | None:
    """Return the revocation that a signed message of this sender made, or None."""
    return await find_row(connection, SQL["find_of_message"], Revocation, requested_by, message_id)


async def is_settled(connection: Connection, lead_id: UUID, channels: Sequence[Channel]) -> bool:
    """Return whether the lead was erased, or revoked before for these channels."""
    return bool(await connection.fetchval(SQL["is_settled"], lead_id, list(channels)))


async def insert_revoked_lead(
    connection: Connection, lead_id: UUID, revocation_id: UUID, state: LeadState, notice_id: UUID | None
) -> None:
    """Record that a revocation reached the lead, which had this state, with the notice to its business, if any."""
    await connection.execute(SQL["insert_revoked_lead"], lead_id, revocation_id, state, notice_id)


async def list_revocations(
    connection: Connection, before: UUID | None, mode: str | None, limit: int
) -> tuple[RevocationRow, ...]:
    """Return revocations, newest first, after the one `before`; with `mode`, only those in that mode."""
    return await fetch_rows(connection, SQL["list_revocations"], RevocationRow, before, mode, limit)


async def find_hook(connection: Connection, owner_id: UUID) -> RevocationHook | None:
    """Return the secrets of a sender of STOP messages, or None if it has none."""
    return await find_row(connection, SQL["find_hook"], RevocationHook, owner_id)


async def save_hook(
    connection: Connection,
    owner_id: UUID,
    provider_id: UUID | None,
    secret: bytes,
    previous_until: datetime,
    now: datetime,
) -> RevocationHook:
    """Store a new secret. The previous one, if there is one, stays valid until `previous_until`."""
    return await load_row(
        connection, SQL["save_hook"], RevocationHook, owner_id, provider_id, secret, previous_until, now
    )
