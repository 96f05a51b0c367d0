"""The next action of a lead: what the business means to do, and when to remind it. One for each lead."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, Queries, fetch_rows, find_row, transaction
from marketplace.feedback import flow as feedback_flow
from marketplace.feedback.flow import NOT_THERE, LeadHolder
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.text.faults import Fault

SQL = Queries(__file__, "next_actions.sql")

FARTHEST: Final = timedelta(days=730)
"Time ahead within which an action is due; a later one is a mistyped year."


class Snooze(StrEnum):
    """Times for which a reminder is put off, counted from now."""

    hour = "hour"
    day = "day"
    week = "week"


SNOOZES: Final = {Snooze.hour: timedelta(hours=1), Snooze.day: timedelta(days=1), Snooze.week: timedelta(days=7)}


class ActionFault(StrEnum):
    """Faults of a next action that depend on the time."""

    due_at_out_of_range = "due_at_out_of_range"
    """The action is due in the past, or more than two years ahead."""


class NextAction(msgspec.Struct, frozen=True, kw_only=True):
    """The open next action of a lead. `note` is what a member wrote, and is deleted with the lead's person."""

    assignment_id: UUID
    lead_id: UUID
    note: str
    due_at: datetime


async def set_action(pool: Pool, holder: LeadHolder, lead_id: UUID, note: str, due_at: datetime) -> NextAction:
    """Set the next action of a lead in place of the previous one, with an audit row.

    Raises InvalidInput for a time that is past or more than two years ahead, and NotFound for a lead that the business
    does not hold or whose person was erased.
    """
    now = clock.now()
    if not now <= due_at <= now + FARTHEST:
        detail = "Choose a time from now on, within two years."
        raise errors.InvalidInput((Fault(pointer="/due_at", code=ActionFault.due_at_out_of_range, detail=detail),))
    async with transaction(pool) as connection:
        await connection.execute(SQL["lock_lead"], lead_id)
        action = await find_row(
            connection,
            SQL["save_action"],
            NextAction,
            lead_id,
            holder.business_id,
            holder.mode,
            note,
            due_at,
            now,
            holder.actor,
        )
        return await _record(connection, holder, "next_action.set", action)


async def finish_action(pool: Pool, holder: LeadHolder, lead_id: UUID) -> NextAction:
    """Mark the next action of a lead as done, with an audit row. Raises NotFound if none is open."""
    now = clock.now()
    async with transaction(pool) as connection:
        action = await find_row(connection, SQL["mark_done"], NextAction, lead_id, holder.business_id, holder.mode, now)
        return await _record(connection, holder, "next_action.done", action)


async def snooze_action(pool: Pool, holder: LeadHolder, lead_id: UUID, snooze: Snooze) -> NextAction:
    """Put the reminder of a lead's next action off, with an audit row. Raises NotFound if none is open."""
    due_at = clock.now() + SNOOZES[snooze]
    async with transaction(pool) as connection:
        action = await find_row(
            connection, SQL["mark_snoozed"], NextAction, lead_id, holder.business_id, holder.mode, due_at
        )
        return await _record(connection, holder, "next_action.snooze", action)


async def _record(connection: Connection, holder: LeadHolder, change: str, action: NextAction | None) -> NextAction:
    """Write the audit row of a change, without the note, and return the action. Raises NotFound if there is none."""
    if action is None:
        raise errors.NotFound(NOT_THERE)
    subject = ids.encode("lead", action.lead_id)
    await audit.record(connection, clock.now(), holder.actor, change, subject, due_at=action.due_at.isoformat())
    return action


async def find_action(connection: Connection, business_id: UUID, lead_id: UUID) -> NextAction | None:
    """Return the open next action of a lead of the business, or None."""
    return await find_row(connection, SQL["find_action"], NextAction, lead_id, business_id)


async def load_action(connection: Connection, holder: LeadHolder, lead_id: UUID) -> NextAction:
    """Return the open next action of a lead that the holder sees. Raises NotFound if there is none."""
    lead = await feedback_flow.load_lead(connection, holder, lead_id)
    action = await find_action(connection, holder.business_id, lead.lead_id)
    if action is None:
        raise errors.NotFound("This lead has no open next action.")
    return action


async def list_open(
    connection: Connection,
    business_id: UUID,
    mode: str | None,
    due_before: datetime | None,
    before: UUID | None,
    limit: int,
) -> tuple[NextAction, ...]:
    """Return open actions of the business, those of the newest leads first, from the assignment `before` on.

    With `due_before`, only those that are due before that time.
    """
    return await fetch_rows(connection, SQL["list_open"], NextAction, business_id, mode, due_before, before, limit)


async def list_due(
    connection: Connection, business_id: UUID, mode: str, until: datetime, limit: int
) -> tuple[NextAction, ...]:
    """Return the open actions of the business that are due until a time, the longest due first."""
    return await fetch_rows(connection, SQL["list_due"], NextAction, business_id, mode, until, limit)
