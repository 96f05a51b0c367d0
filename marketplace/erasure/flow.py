"""Erasing a person, one lead in one transaction, and telling the one business that may have seen them.

    lock the lead → stop it where nothing has left us (hold and cap given back) → destroy → write down → commit

The lead's lock makes it safe at every step of a walk: an exposure either came before, and then its business gets a
notice, or finds the lead stopped. What remains (ledger, exposure, decisions, audit) names leads and never people.
"""

from datetime import datetime, timedelta
from typing import Final, assert_never
from uuid import UUID

import msgspec

from marketplace import audit, clock, errors, ids, money
from marketplace.auth import Kind, Principal
from marketplace.db import Connection, Pool, session, transaction
from marketplace.delivery import store as deliveries
from marketplace.directory.flow import suppress
from marketplace.distribution import store as leads
from marketplace.erasure import store
from marketplace.erasure.store import Erasure, Notice, NoticeState
from marketplace.live import Publisher, feed_topic
from marketplace.log import logger
from marketplace.sealing import Sealer
from marketplace.webhook.address import Guard
from marketplace.webhook.signing import sign
from marketplace.webhook.transport import Connected, Message, post
from routing.delivery import Answered, NoAnswer, NotSent, Observation, Outcome, classify, next_attempt_at
from routing.lifecycle import WAITING_LEAD, WITHDRAWN_LEAD, LeadState

log = logger("erasure")

ERASED: Final = "erased"
"The reason of a lead that was stopped because its person was erased."

MOST_LEADS: Final = 100
"Leads of one person in one call: each is a transaction of milliseconds, and a person has a handful."

IN_FEED: Final = "in_feed"
"The result of a notice that was put into the business's feed: no server is asked, a reader comes."

BUSINESS_DAYS: Final = 10
"The time to act on a revoked consent in the United States (47 CFR 64.1200(a)(10)), shorter than the GDPR's month."

NOT_THERE: Final = "There is no lead with this id, or it is not yours."


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What one call did; `has_more` when the person has leads beyond MOST_LEADS."""

    erasures: tuple[Erasure, ...]
    has_more: bool = False


async def erase_lead(pool: Pool, caller: Principal, lead_id: UUID, reason: str, *, also_suppress: bool) -> Erased:
    """Erases one lead; a second call gives the first one's outcome. Raises NotFound."""
    async with session(pool) as connection:
        if not await store.find_lead(connection, lead_id, caller.mode, caller.owner_id):
            raise errors.NotFound(NOT_THERE)
    return Erased(erasures=(await _erase(pool, caller, lead_id, reason, also_suppress=also_suppress),))


async def erase_person(
    pool: Pool, sealer: Sealer, caller: Principal, marks: tuple[str, ...], reason: str, *, also_suppress: bool
) -> Erased:
    """Erases every lead that is known by one of `marks` (`phone:+1…`) and that the caller may erase: maybe none.

    The suppression comes first: what comes in from then on is turned away, and what is under way is stopped.
    """
    if also_suppress and caller.mode == "live":
        await suppress(pool, sealer, caller, marks, reason)
    keys = tuple(sealer.keyed_hash("suppression", mark) for mark in marks)
    async with session(pool) as connection:
        found = await store.list_leads_of_person(connection, keys, caller.mode, caller.owner_id, MOST_LEADS + 1)
    erasures = [
        await _erase(pool, caller, lead_id, reason, also_suppress=also_suppress) for lead_id in found[:MOST_LEADS]
    ]
    return Erased(erasures=tuple(erasures), has_more=len(found) > MOST_LEADS)


async def _erase(pool: Pool, caller: Principal, lead_id: UUID, reason: str, *, also_suppress: bool) -> Erasure:
    async with transaction(pool) as connection:
        await store.become_eraser(connection)
        state = await store.lock_lead(connection, lead_id)
        if (earlier := await store.find_erasure(connection, lead_id)) is not None:
            return earlier
        now = clock.now()
        await _stop(connection, lead_id, state, now)
        suppressed = False
        if also_suppress and caller.mode == "live":
            source = caller.kind if caller.owner_id is None else ids.encode("prov", caller.owner_id)
            suppressed = await store.suppress_person(connection, lead_id, reason, source, now)
        await store.destroy_person(connection, lead_id)
        deadline_at = after_business_days(now, BUSINESS_DAYS)
        await store.insert_erasure(connection, lead_id, now, caller.key_id, reason, suppressed, deadline_at)
        subject = ids.encode("lead", lead_id)
        await audit.record(connection, now, caller.key_id, "lead.erase", subject, state=state, suppressed=suppressed)
        return await _load(connection, lead_id)


async def _stop(connection: Connection, lead_id: UUID, state: LeadState, now: datetime) -> None:
    """Where nothing has left us the lead ends, its hold released; what a business may have seen stays as it is."""
    held_id = await store.find_held(connection, lead_id)
    case = await deliveries.find_delivery(connection, held_id) if held_id else None
    if case is not None:
        await deliveries.mark_released(connection, case, ERASED, now, now)
        if case.mode == "live":
            await money.release(connection, case.price, now)
        state = LeadState.prospect
    if state in WAITING_LEAD:
        await leads.mark_ended(connection, lead_id, WITHDRAWN_LEAD[state], ERASED, now)


async def _load(connection: Connection, lead_id: UUID) -> Erasure:
    found = await store.find_erasure(connection, lead_id)
    if found is None:
        raise errors.NotFound(NOT_THERE)
    return found


def after_business_days(start: datetime, days: int) -> datetime:
    """The same time of day so many Mondays to Fridays later, in UTC; a public holiday counts as a business day."""
    end = start
    while days > 0:
        end += timedelta(days=1)
        days -= end.weekday() < 5
    return end


# What has been erased, for whoever has a part in it.


async def load_erasure(pool: Pool, caller: Principal, lead_id: UUID) -> Erasure:
    """Raises NotFound, the same for a lead that was not erased and for one that the caller has no part in."""
    async with session(pool) as connection:
        found = await _load(connection, lead_id)
    whose = {Kind.operator: None, Kind.provider: found.provider_id, Kind.business: found.business_id}[caller.kind]
    if not caller.sees(found.mode) or whose != caller.owner_id:
        raise errors.NotFound(NOT_THERE)
    return found


async def acknowledge(pool: Pool, caller: Principal, lead_id: UUID) -> Erasure:
    """The business says that it has erased the person too; once more is no error. Raises NotFound."""
    await load_erasure(pool, caller, lead_id)
    async with transaction(pool) as connection:
        await mark_acknowledged(connection, lead_id, caller.key_id)
        return await _load(connection, lead_id)


async def mark_acknowledged(connection: Connection, lead_id: UUID, actor: str, how: str = "acknowledged") -> None:
    """The business knows; the first to say so is recorded."""
    now = clock.now()
    if await store.mark_acknowledged(connection, lead_id, now, how):
        await audit.record(connection, now, actor, "erasure.acknowledge", ids.encode("lead", lead_id))


# The notice.


class NoticeData(msgspec.Struct, frozen=True, kw_only=True):
    """Which lead is meant; by `assignment_id` the business finds it, as that was its `webhook-id`."""

    lead_id: str
    assignment_id: str
    mode: str
    requested_at: datetime
    deadline_at: datetime


class NoticeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a `lead.erasure_requested` webhook. A 2xx that would take a lead acknowledges it."""

    type: str = "lead.erasure_requested"
    timestamp: datetime
    data: NoticeData


def _data(lead_id: UUID, assignment_id: UUID, mode: str, requested_at: datetime, deadline_at: datetime) -> NoticeData:
    return NoticeData(
        lead_id=ids.encode("lead", lead_id), assignment_id=ids.encode("asg", assignment_id), mode=mode,
        requested_at=requested_at, deadline_at=deadline_at,
    )  # fmt: skip


def compose_notice(erasure: Erasure, now: datetime) -> bytes:
    """The notice as an event of a feed, with the data of the webhook. For an erasure that a business is told of."""
    if erasure.assignment_id is None or erasure.deadline_at is None:
        raise ValueError("a notice is of a lead that was shown")
    data = _data(erasure.lead_id, erasure.assignment_id, erasure.mode, erasure.requested_at, erasure.deadline_at)
    return msgspec.json.encode(NoticeEvent(type="lead.erased", timestamp=now, data=data))


class Notices:
    """Tells businesses, one attempt per call, until each has answered or its deadline has come."""

    def __init__(self, pool: Pool, sealer: Sealer, guard: Guard, publisher: Publisher | None = None) -> None:
        self._pool = pool
        self._sealer = sealer
        self._guard = guard
        self._publisher = publisher

    async def tell(self, lead_id: UUID) -> NoticeState | None:
        """One attempt; where the notice stands after it, or None when there was nothing to tell."""
        async with session(self._pool) as connection:
            notice = await store.find_notice(connection, lead_id)
            if notice is None:
                return None
            time = clock.DatabaseTime(notice.read_at)
            if notice.read_at >= notice.deadline_at:
                if await store.mark_overdue(connection, lead_id):
                    log.warning("erasure_not_acknowledged", lead=ids.encode("lead", lead_id))
                return NoticeState.overdue
        if notice.endpoint_kind == "feed":
            return await self._place(notice, notice.read_at)
        return await self._note(notice, await self._send(notice, time), time)

    async def _place(self, notice: Notice, now: datetime) -> NoticeState:
        """In the business's feed, once; whoever reads it there acknowledges it, or its deadline comes."""
        async with transaction(self._pool) as connection:
            await store.place_notice(connection, notice.assignment_id, now)
            await store.mark_notice_due(connection, notice.lead_id, notice.deadline_at, IN_FEED)
        if self._publisher is not None:
            await self._publisher.publish(feed_topic(notice.business_id), ids.encode("biz", notice.business_id))
        return NoticeState.due

    async def _send(self, notice: Notice, time: clock.DatabaseTime) -> Observation | None:
        """What the endpoint did; None when there is none to send to."""
        if notice.url is None:
            return None
        data = _data(notice.lead_id, notice.assignment_id, notice.mode, notice.requested_at, notice.deadline_at)
        body = msgspec.json.encode(NoticeEvent(timestamp=time.now(), data=data))

        async def message(_: Connected) -> Message:
            # one erasure per lead, so that the lead's own number makes an id which is the same for every retry
            now = time.now()
            signature = sign(self._secrets(notice, now), ids.encode("evt", notice.lead_id), now, body)
            return Message(headers=(*signature.items(), ("content-type", "application/json")), body=body)

        return (await post(notice.url, guard=self._guard, on_connected=message)).observation

    def _secrets(self, notice: Notice, now: datetime) -> tuple[str, ...]:
        """The current secret, and during a rotation the one before it."""
        if notice.endpoint_id is None:
            raise ValueError("a notice with a URL has an endpoint")
        rotating = notice.previous_until is not None and now < notice.previous_until
        boxes = (notice.secret, notice.previous_secret if rotating else None)
        return tuple(self._sealer.open_secret(notice.endpoint_id, box) for box in boxes if box is not None)

    async def _note(self, notice: Notice, seen: Observation | None, time: clock.DatabaseTime) -> NoticeState:
        async with transaction(self._pool) as connection:
            if notice.endpoint_id is not None and seen is not None and _acknowledges(seen):
                actor = ids.encode("whe", notice.endpoint_id)
                await mark_acknowledged(connection, notice.lead_id, actor, result_of(seen))
                return NoticeState.acknowledged
            now = time.now()
            again_at = next_attempt_at(  # measured from now: this schedule ends with its own deadline alone
                notice.attempts, exposed_at=now, now=now, seed=f"erasure:{notice.lead_id}",
                retry_after_seconds=seen.retry_after_seconds if isinstance(seen, Answered) else None,
            )  # fmt: skip
            due_at = min(again_at or notice.deadline_at, notice.deadline_at)
            await store.mark_notice_due(connection, notice.lead_id, due_at, result_of(seen))
            return NoticeState.due


def _acknowledges(seen: Observation) -> bool:
    """Whether the answer to a notice is evidence of receipt, by the same reading as the answer to a lead."""
    return classify(seen, exposed=True).outcome is Outcome.accepted


def result_of(seen: Observation | None) -> str:
    """What an attempt led to, in one word that an operator can act on."""
    match seen:
        case None:
            return "no_active_endpoint"
        case NotSent(reason=reason):
            return reason
        case NoAnswer(reason=lost):
            return lost
        case Answered(status=status) if 200 <= status <= 299 and not _acknowledges(seen):
            return classify(seen, exposed=True).reason
        case Answered(status=status):
            return f"status_{status}"
        case _:
            assert_never(seen)
