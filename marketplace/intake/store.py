"""Statements of intake as typed functions: one per query, without a decision."""

from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row, violated
from marketplace.security.sealing import SealedContact
from routing.decision import OpenLead
from routing.inquiry import Facts
from routing.lifecycle import LeadState

SQL = Queries(__file__)

UNIQUE = frozenset({"inquiry_idempotency_key", "inquiry_provider_reference"})
"Constraints that a second submission under the same key or reference violates."


class NewInquiry(msgspec.Struct, frozen=True, kw_only=True):
    """Row of one inquiry to insert."""

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
        """Values for both inserting statements, in the order of their arguments."""
        return (
            self.id,
            self.provider_id,
            self.vertical_id,
            self.mode,
            self.provider_reference,
            self.idempotency_key,
            self.request_sha256,
            msgspec.json.encode(self.facts),
            self.consent_sha256,
            self.consent_given_at,
            self.facts.submitted_at,
            self.received_at,
        )


class PersonKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keyed hashes by which the person of an inquiry is found, and the end of the window that its lead would have.

    `window` are those that no second lead takes inside the window, `shared` those that another person may have as well,
    `person` those of suppressions and erasures.
    """

    window: tuple[bytes, ...]
    shared: tuple[bytes, ...]
    person: tuple[bytes, ...]
    protected_until: datetime


class JoinedLead(msgspec.Struct, frozen=True, kw_only=True):
    """Earlier lead that a repeated inquiry has joined, and the fingerprint of the touch with its answers.

    `revision` is that of the lead with these answers. `waits`: the lead is decided about again. `in_time`: no business
    had been shown the lead, so that the provider of the inquiry has a claim to its payout.
    """

    lead_id: UUID
    touch: bytes
    revision: int
    waits: bool
    in_time: bool


class EarlierInquiry(msgspec.Struct, frozen=True, kw_only=True):
    """First inquiry under an idempotency key or a provider's reference."""

    id: UUID
    mode: str
    received_as: LeadState
    received_at: datetime
    request_sha256: bytes
    same_key: bool
    reason: str | None


class InquiryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Status of an inquiry as its provider may see it: never the business that has the lead."""

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


class NurturedCase(OpenLead, frozen=True, kw_only=True):
    """A waiting lead, and the version that the rules must have at least."""

    vertical_id: UUID
    catalog_version: int


async def find_nurtured(connection: Connection, lead_id: UUID, provider_id: UUID, mode: str) -> NurturedCase | None:
    """Find a lead of this provider that waits; None for any other."""
    return await find_row(connection, SQL["find_nurtured"], NurturedCase, lead_id, provider_id, mode)


async def take_inquiry(
    connection: Connection,
    new: NewInquiry,
    sealed: SealedContact,
    due_at: datetime,
    person: PersonKeys,
) -> LeadState | None:
    """Store the inquiry and return `received`; otherwise write nothing and return the reason.

    The reasons are `suppressed`, `duplicate` (the person's window is open) and None (the key or reference is used).
    """
    try:
        state = await connection.fetchval(
            SQL["take_inquiry"],
            *new.columns,
            new.contact_fields,
            due_at,
            sealed.box,
            sealed.wrapped,
            sealed.master_key_id,
            person.window,
            person.shared,
            person.person,
            person.protected_until,
        )
        return LeadState(state)
    except asyncpg.UniqueViolationError as error:
        if violated(error) == "person_window_once":
            return LeadState.duplicate
        if violated(error) in UNIQUE:
            return None
        raise


async def mark_consent_end(connection: Connection, lead_id: UUID, consent_until: datetime) -> None:
    """Record when the person's consent ends, in the transaction that stores the inquiry."""
    await connection.execute(SQL["mark_consent_end"], lead_id, consent_until)


async def insert_turned_away(
    connection: Connection,
    new: NewInquiry,
    state: LeadState,
    joined: JoinedLead | None = None,
    reason: str | None = None,
) -> bool:
    """Store an inquiry without contact; return False, with nothing written, if the key or the reference is used.

    `joined` is the earlier lead that has its answers, with a claim to its payout if it joined in time; `reason` is what
    its provider is told besides the state.
    """
    joined_lead, joined_touch = (None, None) if joined is None else (joined.lead_id, joined.touch)
    try:
        await connection.execute(SQL["insert_turned_away"], *new.columns, state, joined_lead, joined_touch, reason)
    except asyncpg.UniqueViolationError as error:
        if violated(error) in UNIQUE:
            return False
        raise
    if joined is not None and joined.in_time:
        await connection.execute(SQL["insert_claim"], new.id, joined.lead_id, joined.revision)
    return True


async def find_earlier(
    connection: Connection, provider_id: UUID, mode: str, key: str | None, reference: str | None
) -> EarlierInquiry | None:
    """Find the inquiry that came first under the key or the reference; the key counts before the reference."""
    return await find_row(connection, SQL["find_earlier"], EarlierInquiry, provider_id, mode, key, reference)


async def find_status(connection: Connection, lead_id: UUID, provider_id: UUID, mode: str) -> InquiryStatus | None:
    """Find the status of an inquiry of this provider."""
    return await find_row(connection, SQL["find_status"], InquiryStatus, lead_id, provider_id, mode)


async def list_statuses(
    connection: Connection, provider_id: UUID, mode: str, before: UUID | None, limit: int
) -> tuple[InquiryStatus, ...]:
    """List up to `limit` inquiries of the provider that are older than `before`, newest first."""
    return await fetch_rows(connection, SQL["list_statuses"], InquiryStatus, provider_id, mode, before, limit)


async def find_state(connection: Connection, lead_id: UUID) -> LeadState:
    """Return the state of a lead that exists."""
    return LeadState(await connection.fetchval(SQL["find_state"], lead_id))
