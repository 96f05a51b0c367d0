"""The statements of receipts as typed functions: one per query, no decision inside."""

from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.db import Connection, Queries

SQL = Queries(__file__)


class ShownLead(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a receipt is about; without an assignment or an exposure, what hangs on it is None."""

    provider_id: UUID
    mode: str
    vertical: str
    business_id: UUID | None
    business_name: str | None
    fields: tuple[str, ...]
    exposed_at: datetime | None
    channel: str | None
    url_sha256: bytes | None
    committed_by: int | None
    exposures: int
    decision_id: UUID | None
    made_at: datetime | None
    vertical_version: int | None
    catalog_version: int | None
    subscription_version: int | None
    evidence: str | None
    evidence_at: datetime | None
    body_sha256: bytes | None


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """Where an exposure stands in the audit chain."""

    block: int
    position: int
    row_sha256: bytes
    seal: bytes


async def find_shown_lead(connection: Connection, lead_id: UUID) -> ShownLead | None:
    row = await connection.fetchrow(SQL["find_shown_lead"], lead_id)
    return msgspec.convert(dict(row), ShownLead) if row else None


async def find_seal(connection: Connection, lead_id: UUID, committed_by: int) -> Seal | None:
    """None while the exposure is not sealed, or when it is not what was sealed."""
    row = await connection.fetchrow(SQL["find_seal"], lead_id, committed_by)
    return msgspec.convert(dict(row), Seal) if row else None
