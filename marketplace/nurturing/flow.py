"""The nurture lane: its leads with what would unlock them, and giving one back.

A page decides a few times about each of its leads, on a thread, so that no other request waits for it.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.database.db import Pool, session, transaction
from marketplace.nurturing import store as nurturing_store
from marketplace.nurturing.store import GIVEN_BACK, LaneFilter, NurturedLead
from marketplace.rules.catalog import Catalog, Rules
from marketplace.runtime import clock, ids
from marketplace.runtime.errors import Conflict, NotFound
from marketplace.security import audit
from marketplace.security.auth import Principal
from routing.lifecycle import LeadState
from routing.unlocking import UnlockSummary, find_unlocks


class LaneEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A lead of the lane, and what would unlock it; None if the present rules would decide about it at once."""

    lead: NurturedLead
    unlocks: UnlockSummary | None


async def give_back(pool: Pool, caller: Principal, lead_id: UUID) -> None:
    """End a waiting lead of the caller before its time, and free its person. A second call changes nothing.

    Raises NotFound, and Conflict for a lead that does not wait.
    """
    async with transaction(pool) as connection:
        now = clock.now()
        answer = await nurturing_store.give_back(connection, lead_id, caller.owner, caller.mode, now)
        if answer == GIVEN_BACK:
            await audit.record(connection, now, caller.key_id, "lead.give_back", ids.encode("lead", lead_id))
    if answer is None:
        raise NotFound("There is no inquiry of yours with this id.")
    if answer not in (GIVEN_BACK, LeadState.expired):
        raise Conflict(f"This lead does not wait: it is {answer}. Only a waiting lead can be given back.")


async def list_waiting(
    pool: Pool, catalog: Catalog, filters: LaneFilter, before: UUID | None, limit: int
) -> tuple[LaneEntry, ...]:
    """List one page of the lane, newest first, each lead with what would unlock it."""
    rules = await catalog.recent()
    async with session(pool) as connection:
        leads = await nurturing_store.list_nurtured(connection, filters, before, limit)
    return await asyncio.to_thread(_with_unlocks, leads, rules, clock.now())


def _with_unlocks(leads: Sequence[NurturedLead], rules: Rules, now: datetime) -> tuple[LaneEntry, ...]:
    waiting = []
    for lead in leads:
        vertical = rules.verticals[lead.vertical_id]
        unlocks = find_unlocks(lead, vertical.definition, vertical.version, rules.index, now)
        waiting.append(LaneEntry(lead=lead, unlocks=unlocks))
    return tuple(waiting)
