"""The statements of shared leads as typed functions: one per query."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.db import Connection, Queries
from marketplace.shared_leads.csv_import import SharedRow

SQL = Queries(__file__)


class Buyer(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of this business means by a time without an offset, and by an amount."""

    zone: str
    currency: str


class NewImport(msgspec.Struct, frozen=True, kw_only=True):
    """One file or call; what it says is known up to `at`."""

    id: UUID
    business_id: UUID
    source: str
    refused: int
    currency: str
    at: datetime


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """How many leads were new, and how many known before."""

    added: int
    known: int


class SharedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A shared lead as it was kept."""

    id: UUID
    vendor: str
    external_id: str
    vertical: str | None
    postal_code: str | None
    received_at: datetime
    observed_until: datetime
    cost_minor: int
    currency: str
    contacted_at: datetime | None
    qualified: bool | None
    won_at: datetime | None
    won_minor: int | None
    lost_at: datetime | None


async def find_buyer(connection: Connection, business_id: UUID) -> Buyer | None:
    row = await connection.fetchrow(SQL["find_buyer"], business_id)
    return msgspec.convert(dict(row), Buyer) if row else None


async def list_verticals(connection: Connection) -> dict[str, UUID]:
    return {row["slug"]: row["id"] for row in await connection.fetch(SQL["list_verticals"])}


async def insert_leads(
    connection: Connection,
    new: NewImport,
    rows: Sequence[SharedRow],
    lead_ids: Sequence[UUID],
    verticals: dict[str, UUID],
) -> Counted:
    """Keeps what is new. Two calls with the same leads at once add each of them once."""
    columns = [
        [getattr(row, name) for row in rows]
        for name in ("vendor", "external_id", "postal_code", "received_at", "cost_minor", "contacted_at", "qualified",
                     "won_at", "won_minor", "lost_at")
    ]  # fmt: skip
    vertical_ids = [verticals.get(row.vertical or "") for row in rows]
    row = await connection.fetchrow(
        SQL["insert_leads"], new.id, new.business_id, new.source, new.refused, new.currency, new.at, lead_ids,
        columns[0], columns[1], vertical_ids, *columns[2:],
    )  # fmt: skip
    return msgspec.convert(dict(row), Counted)


async def list_leads(
    connection: Connection, business_id: UUID, after: UUID | None, limit: int
) -> tuple[SharedLead, ...]:
    rows = await connection.fetch(SQL["list_leads"], business_id, after, limit)
    return tuple(msgspec.convert(dict(row), SharedLead) for row in rows)
