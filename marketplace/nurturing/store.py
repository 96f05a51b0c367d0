"""Statements of the nurture lane as typed functions: one per query, without a decision."""

from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows
from routing.decision import OpenLead
from routing.qualification import WaitsFor

SQL = Queries(__file__)

GIVEN_BACK = "given_back"
"Answer of `give_back` for a lead that it has ended, and the reason that the lead has then."


class LaneFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of the lane that a list is about: of one provider, one vertical or one thing that they wait for.

    None stands for all.
    """

    mode: str
    provider_id: UUID | None = None
    vertical: str | None = None
    waits_for: WaitsFor | None = None


class NurturedLead(OpenLead, frozen=True, kw_only=True):
    """A lead that waits: since when, for what in words, and until when."""

    reason: str | None
    mode: str
    due_at: datetime
    provider_id: UUID
    vertical_id: UUID
    vertical: str
    provider: str
    provider_reference: str | None
    nurtured_at: datetime | None
    waits_for: tuple[str, ...] | None


async def give_back(connection: Connection, lead_id: UUID, provider_id: UUID, mode: str, now: datetime) -> str | None:
    """End a waiting lead and free its person. Return GIVEN_BACK, else the state that it has, or None if not theirs."""
    answer: str | None = await connection.fetchval(SQL["give_back"], lead_id, provider_id, mode, now)
    return answer


async def list_nurtured(
    connection: Connection, filters: LaneFilter, before: UUID | None, limit: int
) -> tuple[NurturedLead, ...]:
    """List up to `limit` waiting leads that pass the filters and are older than `before`, newest first."""
    return await fetch_rows(
        connection,
        SQL["list_nurtured"],
        NurturedLead,
        filters.provider_id,
        filters.mode,
        filters.vertical,
        filters.waits_for,
        before,
        limit,
    )
