"""The queries of certificates as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.certificates.services import ClaimReason, ClaimResult
from marketplace.database.db import Connection, Queries, fetch_rows, find_row
from marketplace.security.sealing import SealedBox
from routing.certificate import CertificateKind, CertificateState
from routing.lifecycle import LeadState

SQL = Queries(__file__)


class NewCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate to insert: the SHA-256 of its token, and the sealed claim."""

    kind: CertificateKind
    token_sha256: bytes
    box: bytes


class ClaimCase(msgspec.Struct, frozen=True, kw_only=True):
    """A lead whose certificates are to be claimed. `read_at` is the time of the read, by the database's clock."""

    lead_id: UUID
    vertical_id: UUID
    provider_id: UUID
    state: LeadState
    read_at: datetime


class PendingCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that was not claimed yet, sealed, with the attempts so far.

    `corrections` are those of the contact so far, and `revision` is the lead's after the last of them.
    """

    kind: CertificateKind
    attempts: int
    first_tried_at: datetime | None
    box: bytes
    wrapped: bytes
    master_key_id: str
    revision: int
    corrections: tuple[SealedBox, ...] | None


class CertificateEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate as it is kept: no token and no contact data, but their hashes and comparisons.

    `contact_corrected`: the phone number or the address was corrected after it was compared.
    """

    kind: CertificateKind
    state: CertificateState
    token_sha256: bytes
    made_at: datetime
    settled_at: datetime | None
    reason: ClaimReason | None
    response_sha256: bytes | None
    expires_at: datetime | None
    phone_matches: bool | None
    email_matches: bool | None
    page_matches: bool | None
    contact_corrected: bool


class CertificateRow(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate in the operator's list. `waiting`: its lead has not ended and was awarded to nobody yet."""

    lead_id: UUID
    provider: str
    kind: CertificateKind
    state: CertificateState
    made_at: datetime
    settled_at: datetime | None
    reason: ClaimReason | None
    attempts: int
    expires_at: datetime | None
    token_sha256: bytes
    waiting: bool


class CertificateCount(msgspec.Struct, frozen=True, kw_only=True):
    """Number of certificates of one service in one state, for one reason."""

    kind: CertificateKind
    state: CertificateState
    reason: ClaimReason | None
    certificates: int


async def insert_certificates(
    connection: Connection, lead_id: UUID, certificates: Sequence[NewCertificate], now: datetime
) -> None:
    """Insert the certificates of a lead, in the transaction that stores the inquiry."""
    await connection.execute(
        SQL["insert_certificates"],
        lead_id,
        [certificate.kind for certificate in certificates],
        [certificate.token_sha256 for certificate in certificates],
        [certificate.box for certificate in certificates],
        now,
    )


async def find_claim_case(connection: Connection, lead_id: UUID) -> ClaimCase | None:
    """Return the lead of a claim, or None if there is no such lead."""
    return await find_row(connection, SQL["find_claim_case"], ClaimCase, lead_id)


async def read_certificates(connection: Connection, lead_id: UUID) -> tuple[PendingCertificate, ...]:
    """Return the pending certificates of a lead that nobody was shown; none once the person is erased."""
    return await fetch_rows(connection, SQL["read_certificates"], PendingCertificate, lead_id)


async def lock_lead(connection: Connection, lead_id: UUID) -> LeadState:
    """Lock a lead until the transaction ends, and return its state."""
    return LeadState(await connection.fetchval(SQL["lock_lead"], lead_id))


async def note_attempt(
    connection: Connection, lead_id: UUID, kind: CertificateKind, result: ClaimResult, now: datetime
) -> None:
    """Count an attempt without an answer. The caller holds the lead's lock."""
    await connection.execute(SQL["note_attempt"], lead_id, kind, now, result.reason, result.response_sha256)


async def settle(
    connection: Connection,
    lead_id: UUID,
    kind: CertificateKind,
    state: CertificateState,
    result: ClaimResult,
    revision: int,
    now: datetime,
) -> None:
    """Set the final state of a pending certificate, and destroy its sealed claim. The caller holds the lead's lock.

    `revision` is that of the lead whose contact was compared.
    """
    await connection.execute(
        SQL["settle"],
        lead_id,
        kind,
        now,
        state,
        result.reason,
        result.response_sha256,
        result.expires_at,
        result.phone_matches,
        result.email_matches,
        result.page_matches,
        revision,
    )


async def mark_lead_due(connection: Connection, lead_id: UUID, due_at: datetime) -> None:
    """Decide about a waiting lead again at `due_at`."""
    await connection.execute(SQL["mark_lead_due"], lead_id, due_at)


async def list_of_lead(connection: Connection, lead_id: UUID) -> tuple[CertificateEvidence, ...]:
    """Return the certificates of a lead."""
    return await fetch_rows(connection, SQL["list_of_lead"], CertificateEvidence, lead_id)


async def list_newest(
    connection: Connection, before: UUID | None, state: CertificateState | None, leads: int
) -> tuple[CertificateRow, ...]:
    """Return the certificates of the newest `leads` leads before the lead `before`, in one state if it is given."""
    return await fetch_rows(connection, SQL["list_newest"], CertificateRow, before, state, leads)


async def count_states(
    connection: Connection, provider_id: UUID, since: datetime, until: datetime
) -> tuple[CertificateCount, ...]:
    """Count the certificates of a provider's leads that were received in a time, by service, state and reason."""
    return await fetch_rows(connection, SQL["count_states"], CertificateCount, provider_id, since, until)
