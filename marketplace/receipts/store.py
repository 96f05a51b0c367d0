"""The queries of receipts as typed functions: one per query, no decision inside."""

from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row

SQL = Queries(__file__)


class ReceiptLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead with everything that its receipt states. Fields of an absent assignment, exposure or decision are None.

    `committed_by` is the transaction id (xid8) that committed the exposure.
    """

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


class ExposureSeal(msgspec.Struct, frozen=True, kw_only=True):
    """Place of an exposure in the audit chain: its block, position, digest, and the block's seal."""

    block: int
    position: int
    row_sha256: bytes
    seal: bytes


class NoticeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A notice to the business that was shown the lead."""

    kind: str
    made_at: datetime
    deadline_at: datetime
    acknowledged_at: datetime | None


async def find_shown_lead(connection: Connection, lead_id: UUID) -> ReceiptLead | None:
    """Return the lead with its business, exposure and decision, or None if there is no such lead."""
    return await find_row(connection, SQL["find_shown_lead"], ReceiptLead, lead_id)


async def list_notices(connection: Connection, lead_id: UUID) -> tuple[NoticeRecord, ...]:
    """Return the notices to the lead's business, in the order in which they were made."""
    return await fetch_rows(connection, SQL["list_notices"], NoticeRecord, lead_id)


async def find_seal(connection: Connection, lead_id: UUID, committed_by: int) -> ExposureSeal | None:
    """Return the exposure's place in the audit chain; None until it is sealed, or if it was changed afterwards."""
    return await find_row(connection, SQL["find_seal"], ExposureSeal, lead_id, committed_by)
