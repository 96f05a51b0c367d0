"""The queries of the board as typed functions: one per query, no decision inside."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows
from marketplace.feedback.store import DispositionSource
from routing.lifecycle import AssignmentState

SQL = Queries(__file__, "board.sql")


class BoardLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead on the board, in the column `column_key` since `since`. The counts are those of the whole column."""

    assignment_id: UUID
    lead_id: UUID
    state: AssignmentState
    exposed_at: datetime
    currency: str
    vertical: str
    region: str | None
    postal_code: str | None
    disposition_id: UUID | None
    source: DispositionSource | None
    recorded_at: datetime | None
    value_minor: int | None
    starts_at: datetime | None
    since: datetime
    action: str | None
    action_due_at: datetime | None
    column_key: str
    stuck: bool
    column_leads: int
    column_minor: int


class UsualStay(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds after which three quarters of the leads that left a stage had left it."""

    stage_id: UUID
    p75_seconds: float


async def list_cards(
    connection: Connection,
    business_id: UUID,
    mode: str,
    since: datetime,
    now: datetime,
    limits: Mapping[str, float],
    *,
    only: str | None,
    column_key: str | None,
    before: UUID | None,
    most: int,
) -> tuple[BoardLead, ...]:
    """Return up to `most` leads of each column, newest first, or of the column `column_key` after `before`.

    `limits` are the seconds after which a lead of a column is stuck. `only` is "stuck", "due" or None for all leads.
    """
    return await fetch_rows(
        connection,
        SQL["list_cards"],
        BoardLead,
        business_id,
        mode,
        since,
        only,
        column_key,
        before,
        most,
        list(limits),
        list(limits.values()),
        now,
    )


async def measure_stays(
    connection: Connection, business_id: UUID, since: datetime, at_least: int
) -> tuple[UsualStay, ...]:
    """Return the usual stay in each stage that `at_least` leads have left since a time."""
    return await fetch_rows(connection, SQL["measure_stays"], UsualStay, business_id, since, at_least)
