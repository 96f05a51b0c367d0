"""Erase a person, one lead per transaction, and notify the business that may have seen the person.

    lock the lead → end it if nothing was sent (release hold and cap) → destroy → record the erasure → commit

The lock on the lead makes this safe at any time. An exposure was either committed before, and then its business gets a
notice, or it finds the lead ended. What remains (ledger, exposure, decisions, audit) has ids of leads and no personal
data.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.delivery import store as delivery_store
from marketplace.directory.flow import suppress
from marketplace.distribution import store as distribution_store
from marketplace.erasure import store as erasure_store
from marketplace.erasure.store import Erasure
from marketplace.ledger import money
from marketplace.notices import flow as notices_flow
from marketplace.notices import store as notices_store
from marketplace.notices.store import NoticeKind
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.security.auth import CallerKind, Principal
from marketplace.security.sealing import Sealer
from routing.lifecycle import WAITING_LEAD, WITHDRAWN_LEAD, LeadState

ERASED: Final = "erased"
"Reason stored with a lead that ended because its person was erased."

MOST_LEADS: Final = 100
"Limit of leads that one call erases. Each takes a transaction of some milliseconds, and a person has few leads."

NOT_THERE: Final = "There is no lead with this id, or it is not yours."


class ErasureResult(msgspec.Struct, frozen=True, kw_only=True):
    """Erasures made by one call; `has_more` if the person has more than MOST_LEADS leads."""

    erasures: tuple[Erasure, ...]
    has_more: bool = False


async def erase_lead(
    pool: Pool, caller: Principal, lead_id: UUID, reason: str, *, also_suppress: bool
) -> ErasureResult:
    """Erase one lead; a repeated call returns the erasure of the first. Raises NotFound."""
    async with session(pool) as connection:
        if not await erasure_store.find_lead(connection, lead_id, caller.mode, caller.owner_id):
            raise errors.NotFound(NOT_THERE)
    return ErasureResult(erasures=(await _erase(pool, caller, lead_id, reason, also_suppress=also_suppress),))


async def erase_person(
    pool: Pool, sealer: Sealer, caller: Principal, marks: tuple[str, ...], reason: str, *, also_suppress: bool
) -> ErasureResult:
    """Erase every lead that has one of `marks` (`phone:+1…`) and that the caller may erase, which may be none.

    With `also_suppress`, a live caller's person is suppressed first, so that new inquiries are refused from then on and
    open leads end.
    """
    if also_suppress and caller.mode == "live":
        await suppress(pool, sealer, caller, marks, reason)
    keys = tuple(sealer.keyed_hash("suppression", mark) for mark in marks)
    async with session(pool) as connection:
        lead_ids = await erasure_store.list_leads_of_person(
            connection, keys, caller.mode, caller.owner_id, MOST_LEADS + 1
        )
    erasures = [
        await _erase(pool, caller, lead_id, reason, also_suppress=also_suppress) for lead_id in lead_ids[:MOST_LEADS]
    ]
    return ErasureResult(erasures=tuple(erasures), has_more=len(lead_ids) > MOST_LEADS)


async def _erase(pool: Pool, caller: Principal, lead_id: UUID, reason: str, *, also_suppress: bool) -> Erasure:
    """Erase one lead with its audit row, or return the erasure of an earlier call."""
    async with transaction(pool) as connection:
        await erasure_store.become_eraser(connection)
        state = await erasure_store.lock_lead(connection, lead_id)
        if (earlier := await erasure_store.find_erasure(connection, lead_id)) is not None:
            return earlier
        now = clock.now()
        await end_lead(connection, lead_id, state, ERASED, now)
        suppressed = False
        if also_suppress and caller.mode == "live":
            source = caller.kind if caller.owner_id is None else ids.encode("prov", caller.owner_id)
            suppressed = await erasure_store.suppress_person(connection, lead_id, reason, source, now)
        await erasure_store.destroy_person(connection, lead_id)
        await notices_store.withdraw_updates(connection, lead_id)
        notice_id = await notices_store.insert_notice(connection, lead_id, NoticeKind.erased, now, {})
        await erasure_store.insert_erasure(connection, lead_id, now, caller.key_id, reason, suppressed, notice_id)
        subject = ids.encode("lead", lead_id)
        await audit.record(connection, now, caller.key_id, "lead.erase", subject, state=state, suppressed=suppressed)
        return await _load(connection, lead_id)


async def end_lead(connection: Connection, lead_id: UUID, state: LeadState, reason: str, now: datetime) -> None:
    """End a lead that was never sent, and release its hold. A lead that a business may have seen stays as it is.

    The caller has the lead's lock, which shows its state, and the role of an eraser.
    """
    if await release_hold(connection, lead_id, reason, now):
        state = LeadState.prospect
    if state in WAITING_LEAD:
        await distribution_store.mark_ended(connection, lead_id, WITHDRAWN_LEAD[state], reason, now)


async def release_hold(connection: Connection, lead_id: UUID, reason: str, now: datetime) -> bool:
    """Release the hold on a lead that was never sent, which becomes a prospect again; False if there is no hold.

    The caller has the lead's lock and the role of an eraser.
    """
    held_id = await erasure_store.find_held(connection, lead_id)
    case = await delivery_store.find_delivery(connection, held_id) if held_id else None
    if case is None:
        return False
    await delivery_store.mark_released(connection, case, reason, now, now)
    if case.mode == "live":
        await money.release(connection, case.price, now)
    return True


async def _load(connection: Connection, lead_id: UUID) -> Erasure:
    """Return the erasure of a lead. Raises NotFound."""
    erasure = await erasure_store.find_erasure(connection, lead_id)
    if erasure is None:
        raise errors.NotFound(NOT_THERE)
    return erasure


# Reading and acknowledging an erasure


async def load_erasure(pool: Pool, caller: Principal, lead_id: UUID) -> Erasure:
    """Return a lead's erasure for an operator, the lead's provider, or the business that it was shown to.

    Raises NotFound, with the same text for a lead that was not erased and for one that is not the caller's.
    """
    async with session(pool) as connection:
        erasure = await _load(connection, lead_id)
    owners = {
        CallerKind.operator: None,
        CallerKind.provider: erasure.provider_id,
        CallerKind.business: erasure.business_id,
    }
    owner_id = owners[caller.kind]
    if not caller.sees(erasure.mode) or owner_id != caller.owner_id:
        raise errors.NotFound(NOT_THERE)
    return erasure


async def acknowledge(pool: Pool, caller: Principal, lead_id: UUID) -> Erasure:
    """Record that the business has erased the person as well. A repeated call is no error. Raises NotFound."""
    erasure = await load_erasure(pool, caller, lead_id)
    async with transaction(pool) as connection:
        if erasure.notice_id is not None:
            await notices_flow.mark_acknowledged(connection, erasure.notice_id, caller.key_id)
        return await _load(connection, lead_id)
