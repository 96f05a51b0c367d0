"""The statements of intake as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries, violated
from marketplace.runtime import clock
from marketplace.security.sealing import SealedContact
from routing.inquiry import Facts, Touch
from routing.lifecycle import LeadState

SQL = Queries(__file__)

UNIQUE = frozenset({"inquiry_idempotency_key", "inquiry_provider_reference"})


class NewInquiry(msgspec.Struct, frozen=True, kw_only=True):
    """One inquiry as it is written down."""

    id: UUID
    provider_id: UUID
    vertical_id: UUID
    mode: str
    provider_reference: str | None
    idempotency_key: str | None
    request_sha256: bytes
    facts: Facts
    consent_sha256: bytes
    consent_given_at: datetime
    received_at: datetime
    contact_fields: tuple[str, ...]

    @property
    def columns(self) -> tuple[object, ...]:
        """In the order of the statements: what both of them write."""
        return (
            self.id, self.provider_id, self.vertical_id, self.mode, self.provider_reference, self.idempotency_key,
            self.request_sha256, msgspec.json.encode(self.facts), self.consent_sha256, self.consent_given_at,
            self.facts.submitted_at, self.received_at,
        )  # fmt: skip


class EarlierInquiry(msgspec.Struct, frozen=True, kw_only=True):
    """The inquiry that was first under a key or a reference."""

    id: UUID
    mode: str
    received_as: LeadState
    received_at: datetime
    request_sha256: bytes
    same_key: bool


class InquiryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where an inquiry stands, as its provider may know it."""

    id: UUID
    state: LeadState
    reason: str | None
    mode: str
    vertical: str
    provider_reference: str | None
    submitted_at: datetime
    received_at: datetime
    qualified_at: datetime | None
    due_at: datetime | None
    awarded_at: datetime | None
    exposed_at: datetime | None
    acknowledged_at: datetime | None
    settled_at: datetime | None
    payout_minor: int | None
    payout_currency: str | None
    return_state: str | None
    return_reason: str | None
    finding: str | None
    requested_at: datetime | None
    judged_at: datetime | None


async def take_inquiry(
    connection: Connection, new: NewInquiry, sealed: SealedContact, due_at: datetime, *, window_keys: Sequence[bytes],
    person_keys: Sequence[bytes], protected_until: datetime,
) -> LeadState | None:  # fmt: skip
    """Received and on disk, or with nothing written: suppressed, duplicate (the person was here before), or None when
    the key or the reference was used before."""
    try:
        return LeadState(await connection.fetchval(
            SQL["take_inquiry"], *new.columns, new.contact_fields, due_at, sealed.box, sealed.wrapped,
            sealed.master_key_id, window_keys, person_keys, protected_until,
        ))  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        if violated(error) == "person_window_once":
            return LeadState.duplicate
        if violated(error) in UNIQUE:
            return None
        raise


async def insert_turned_away(connection: Connection, new: NewInquiry, state: LeadState) -> bool:
    """False when the key or the reference was used before."""
    try:
        await connection.execute(SQL["insert_turned_away"], *new.columns, state)
    except asyncpg.UniqueViolationError as error:
        if violated(error) in UNIQUE:
            return False
        raise
    return True


async def find_earlier(
    connection: Connection, provider_id: UUID, mode: str, key: str | None, reference: str | None
) -> EarlierInquiry | None:
    row = await connection.fetchrow(SQL["find_earlier"], provider_id, mode, key, reference)
    return msgspec.convert(dict(row), EarlierInquiry) if row else None


async def find_status(connection: Connection, lead_id: UUID, provider_id: UUID, mode: str) -> InquiryStatus | None:
    row = await connection.fetchrow(SQL["find_status"], lead_id, provider_id, mode)
    return msgspec.convert(dict(row), InquiryStatus) if row else None


async def list_statuses(
    connection: Connection, provider_id: UUID, mode: str, before: UUID | None, limit: int
) -> tuple[InquiryStatus, ...]:
    rows = await connection.fetch(SQL["list_statuses"], provider_id, mode, before, limit)
    return tuple(msgspec.convert(dict(row), InquiryStatus) for row in rows)


async def find_state(connection: Connection, lead_id: UUID) -> LeadState:
    return LeadState(await connection.fetchval(SQL["find_state"], lead_id))


async def insert_touches(connection: Connection, lead_id: UUID, touches: Sequence[Touch], now: datetime) -> None:
    """Under the lead's lock, so that what an erasure empties stays empty."""
    await connection.execute(SQL["lock_lead"], lead_id)
    await connection.execute(
        SQL["insert_touches"], [clock.new_id() for _ in touches], lead_id, [touch.kind for touch in touches],
        [touch.at for touch in touches], [touch.detail for touch in touches], now,
    )  # fmt: skip


async def mark_due_now(connection: Connection, lead_id: UUID, now: datetime) -> bool:
    """Whether the lead was being nurtured, and so is due now."""
    return await connection.fetchval(SQL["mark_due_now"], lead_id, now) is not None
