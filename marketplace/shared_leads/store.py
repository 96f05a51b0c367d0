"""Queries of shared leads as typed functions, one per query."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row
from marketplace.shared_leads.csv_import import SharedLeadRow

SQL = Queries(__file__)
CONTENTS: Final = (
    "vertical",
    "postal_code",
    "received_at",
    "cost_minor",
    "contacted_at",
    "qualified",
    "won_at",
    "won_minor",
    "lost_at",
    "lost",
)


class Buyer(msgspec.Struct, frozen=True, kw_only=True):
    """Time zone and currency of a business: those of times and amounts in its files that state none."""

    zone: str
    currency: str


class NewSharedImport(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a file, or one call. Its outcomes are known up to `at`."""

    id: UUID
    business_id: UUID
    source: str
    refused: int
    currency: str
    at: datetime
    file_import_id: UUID | None = None


class SharedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A stored shared lead."""

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
    lost: bool


async def find_buyer(connection: Connection, business_id: UUID) -> Buyer | None:
    return await find_row(connection, SQL["find_buyer"], Buyer, business_id)


async def list_verticals(connection: Connection) -> dict[str, UUID]:
    return {row["slug"]: row["id"] for row in await connection.fetch(SQL["list_verticals"])}


async def insert_leads(
    connection: Connection,
    new: NewSharedImport,
    rows: Sequence[SharedLeadRow],
    lead_ids: Sequence[UUID],
    verticals: dict[str, UUID],
) -> set[UUID]:
    """Store the new leads and return their ids. Two concurrent calls with the same leads add each of them once."""
    columns = [
        [getattr(row, name) for row in rows]
        for name in (
            "vendor",
            "external_id",
            "postal_code",
            "received_at",
            "cost_minor",
            "contacted_at",
            "qualified",
            "won_at",
            "won_minor",
            "lost_at",
            "lost",
        )
    ]
    vertical_ids = [verticals.get(row.vertical or "") for row in rows]
    added = await connection.fetch(
        SQL["insert_leads"],
        new.id,
        new.business_id,
        new.source,
        new.refused,
        new.currency,
        new.at,
        lead_ids,
        columns[0],
        columns[1],
        vertical_ids,
        *columns[2:],
        new.file_import_id,
    )
    return {row["id"] for row in added}


async def list_known(
    connection: Connection, business_id: UUID, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], SharedLead]:
    """Return the stored leads with these keys, each the vendor and the vendor's id."""
    vendors, external_ids = [key[0] for key in keys], [key[1] for key in keys]
    leads = await fetch_rows(connection, SQL["list_known"], SharedLead, business_id, vendors, external_ids)
    return {(lead.vendor, lead.external_id): lead for lead in leads}


async def undo_part(connection: Connection, file_import_id: UUID, business_id: UUID, now: datetime) -> int | None:
    """Undo one part of an import that was not undone yet; return the number of leads it had added, None without one."""
    part = await connection.fetchrow(SQL["find_part"], file_import_id, business_id)
    if part is None:
        return None
    await connection.execute(SQL["undo_part"], part["id"], business_id, now)
    added: int = part["added"]
    return added


async def list_leads(
    connection: Connection, business_id: UUID, after: UUID | None, limit: int
) -> tuple[SharedLead, ...]:
    return await fetch_rows(connection, SQL["list_leads"], SharedLead, business_id, after, limit)
