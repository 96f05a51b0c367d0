"""Erase a person, one lead per transaction, and notify the business that may have seen the person.

    lock the lead → end it if nothing was sent (release hold and cap) → destroy → record the erasure → commit

The lock on the lead makes this safe at any time. An exposure was either committed before, and then its business gets a
notice, or it finds the lead ended. What remains (ledger, exposure, decisions, audit) has ids of leads and no personal
data.
"""

from datetime import datetime, timedelta
from typing import Final, assert_never
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.delivery import store as delivery_store
from marketplace.directory.flow import suppress
from marketplace.distribution import store as distribution_store
from marketplace.erasure import store as erasure_store
from marketplace.erasure.store import Erasure, Notice, NoticeState
from marketplace.ledger import money
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.live import Publisher, feed_topic
from marketplace.runtime.log import logger
from marketplace.security import audit
from marketplace.security.auth import CallerKind, Principal
from marketplace.security.sealing import Sealer
from marketplace.webhook.address import AddressRules
from marketplace.webhook.signing import sign
from marketplace.webhook.transport import ConnectionInfo, WebhookMessage, post
from routing.delivery import AnswerReceived, AttemptOutcome, NoAnswer, NotSent, Observation, classify, next_attempt_at
from routing.lifecycle import WAITING_LEAD, WITHDRAWN_LEAD, LeadState

log = logger("erasure")

ERASED: Final = "erased"
"Reason stored with a lead that ended because its person was erased."

MOST_LEADS: Final = 100
"Limit of leads that one call erases. Each takes a transaction of some milliseconds, and a person has few leads."

IN_FEED: Final = "in_feed"
"Result of a notice that was placed in the business's feed, where its reader finds it."

BUSINESS_DAYS: Final = 10
"""Business days that the business has to act on a notice.

It is the time to act on a revoked consent in the United States (47 CFR 64.1200(a)(10)), shorter than the GDPR's month.
"""

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
        await _end_lead(connection, lead_id, state, now)
        suppressed = False
        if also_suppress and caller.mode == "live":
            source = caller.kind if caller.owner_id is None else ids.encode("prov", caller.owner_id)
            suppressed = await erasure_store.suppress_person(connection, lead_id, reason, source, now)
        await erasure_store.destroy_person(connection, lead_id)
        deadline_at = after_business_days(now, BUSINESS_DAYS)
        await erasure_store.insert_erasure(connection, lead_id, now, caller.key_id, reason, suppressed, deadline_at)
        subject = ids.encode("lead", lead_id)
        await audit.record(connection, now, caller.key_id, "lead.erase", subject, state=state, suppressed=suppressed)
        return await _load(connection, lead_id)


async def _end_lead(connection: Connection, lead_id: UUID, state: LeadState, now: datetime) -> None:
    """End a lead that was never sent, and release its hold. A lead that a business may have seen stays as it is."""
    held_id = await erasure_store.find_held(connection, lead_id)
    case = await delivery_store.find_delivery(connection, held_id) if held_id else None
    if case is not None:
        await delivery_store.mark_released(connection, case, ERASED, now, now)
        if case.mode == "live":
            await money.release(connection, case.price, now)
        state = LeadState.prospect
    if state in WAITING_LEAD:
        await distribution_store.mark_ended(connection, lead_id, WITHDRAWN_LEAD[state], ERASED, now)


async def _load(connection: Connection, lead_id: UUID) -> Erasure:
    """Return the erasure of a lead. Raises NotFound."""
    erasure = await erasure_store.find_erasure(connection, lead_id)
    if erasure is None:
        raise errors.NotFound(NOT_THERE)
    return erasure


def after_business_days(start: datetime, days: int) -> datetime:
    """Return the same time of day, `days` Mondays to Fridays later, in UTC. Public holidays count as business days."""
    end = start
    while days > 0:
        end += timedelta(days=1)
        days -= end.weekday() < 5
    return end


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
    await load_erasure(pool, caller, lead_id)
    async with transaction(pool) as connection:
        await mark_acknowledged(connection, lead_id, caller.key_id)
        return await _load(connection, lead_id)


async def mark_acknowledged(connection: Connection, lead_id: UUID, actor: str, how: str = "acknowledged") -> None:
    """Record the first acknowledgement of a lead's erasure, with an audit row; later ones change nothing.

    `how` is stored as the notice's result.
    """
    now = clock.now()
    if await erasure_store.mark_acknowledged(connection, lead_id, now, how):
        await audit.record(connection, now, actor, "erasure.acknowledge", ids.encode("lead", lead_id))


# The notice to the business


class NoticeData(msgspec.Struct, frozen=True, kw_only=True):
    """The lead to erase. The business finds it by `assignment_id`, which was the `webhook-id` of its delivery."""

    lead_id: str
    assignment_id: str
    mode: str
    requested_at: datetime
    deadline_at: datetime


class NoticeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a `lead.erasure_requested` webhook. An answer that would accept a lead acknowledges the erasure."""

    type: str = "lead.erasure_requested"
    timestamp: datetime
    data: NoticeData


def _notice_data(
    lead_id: UUID, assignment_id: UUID, mode: str, requested_at: datetime, deadline_at: datetime
) -> NoticeData:
    return NoticeData(
        lead_id=ids.encode("lead", lead_id),
        assignment_id=ids.encode("asg", assignment_id),
        mode=mode,
        requested_at=requested_at,
        deadline_at=deadline_at,
    )


def compose_notice(erasure: Erasure, now: datetime) -> bytes:
    """Return the body of the `lead.erased` event in a feed, with the same data as the webhook.

    Raises ValueError for the erasure of a lead that no business was shown.
    """
    if erasure.assignment_id is None or erasure.deadline_at is None:
        raise ValueError("there is a notice only for a lead that was shown")
    data = _notice_data(erasure.lead_id, erasure.assignment_id, erasure.mode, erasure.requested_at, erasure.deadline_at)
    return msgspec.json.encode(NoticeEvent(type="lead.erased", timestamp=now, data=data))


class Notices:
    """Sends notices of erasures, one attempt per call, until the business acknowledges or the deadline passes."""

    def __init__(self, pool: Pool, sealer: Sealer, guard: AddressRules, publisher: Publisher | None = None) -> None:
        self._pool = pool
        self._sealer = sealer
        self._guard = guard
        self._publisher = publisher

    async def tell(self, lead_id: UUID) -> NoticeState | None:
        """Make one attempt and return the notice's new state, or None if no notice is due."""
        async with session(self._pool) as connection:
            notice = await erasure_store.find_notice(connection, lead_id)
            if notice is None:
                return None
            time = clock.DatabaseTime(notice.read_at)
            if notice.read_at >= notice.deadline_at:
                if await erasure_store.mark_overdue(connection, lead_id):
                    log.warning("erasure_not_acknowledged", lead=ids.encode("lead", lead_id))
                return NoticeState.overdue
        if notice.endpoint_kind == "feed":
            return await self._place_in_feed(notice, notice.read_at)
        observation = await self._send(notice, time)
        return await self._record_attempt(notice, observation, time)

    async def _place_in_feed(self, notice: Notice, now: datetime) -> NoticeState:
        """Place the notice in the business's feed, once, make it due at its deadline, and wake the feed's readers."""
        async with transaction(self._pool) as connection:
            await erasure_store.place_notice(connection, notice.assignment_id, now)
            await erasure_store.mark_notice_due(connection, notice.lead_id, notice.deadline_at, IN_FEED)
        if self._publisher is not None:
            await self._publisher.publish(feed_topic(notice.business_id), ids.encode("biz", notice.business_id))
        return NoticeState.due

    async def _send(self, notice: Notice, time: clock.DatabaseTime) -> Observation | None:
        """Send the notice and return what was observed; None if the business has no active endpoint."""
        if notice.url is None:
            return None
        data = _notice_data(notice.lead_id, notice.assignment_id, notice.mode, notice.requested_at, notice.deadline_at)
        body = msgspec.json.encode(NoticeEvent(timestamp=time.now(), data=data))

        async def message(_: ConnectionInfo) -> WebhookMessage:
            # There is one erasure per lead, so the lead's UUID gives a message id that is the same for every retry.
            now = time.now()
            signature = sign(self._open_secrets(notice, now), ids.encode("evt", notice.lead_id), now, body)
            return WebhookMessage(headers=(*signature.items(), ("content-type", "application/json")), body=body)

        return (await post(notice.url, guard=self._guard, on_connected=message)).observation

    def _open_secrets(self, notice: Notice, now: datetime) -> tuple[str, ...]:
        """Return the endpoint's current signing secret, and during a rotation the previous one as well."""
        if notice.endpoint_id is None:
            raise ValueError("a notice with a URL has an endpoint")
        rotating = notice.previous_until is not None and now < notice.previous_until
        boxes = (notice.secret, notice.previous_secret if rotating else None)
        return tuple(self._sealer.open_secret(notice.endpoint_id, box) for box in boxes if box is not None)

    async def _record_attempt(
        self, notice: Notice, observation: Observation | None, time: clock.DatabaseTime
    ) -> NoticeState:
        """Record an acknowledgement, or the time of the next attempt, at the latest the deadline."""
        async with transaction(self._pool) as connection:
            if notice.endpoint_id is not None and observation is not None and _acknowledges(observation):
                actor = ids.encode("whe", notice.endpoint_id)
                await mark_acknowledged(connection, notice.lead_id, actor, result_of(observation))
                return NoticeState.acknowledged
            now = time.now()
            retry_after_seconds = observation.retry_after_seconds if isinstance(observation, AnswerReceived) else None
            again_at = next_attempt_at(
                notice.attempts,
                exposed_at=now,  # only the notice's own deadline ends this schedule
                now=now,
                seed=f"erasure:{notice.lead_id}",
                retry_after_seconds=retry_after_seconds,
            )
            due_at = min(again_at or notice.deadline_at, notice.deadline_at)
            await erasure_store.mark_notice_due(connection, notice.lead_id, due_at, result_of(observation))
            return NoticeState.due


def _acknowledges(observation: Observation) -> bool:
    """Return whether the answer to a notice is evidence of receipt, by the same rule as the answer to a lead."""
    return classify(observation, exposed=True).outcome is AttemptOutcome.accepted


def result_of(observation: Observation | None) -> str:
    """Return the result of an attempt as a code for operators, such as `status_404` or `no_active_endpoint`."""
    match observation:
        case None:
            return "no_active_endpoint"
        case NotSent(reason=reason):
            return reason
        case NoAnswer(reason=reason):
            return reason
        case AnswerReceived(status=status) if 200 <= status <= 299 and not _acknowledges(observation):
            return classify(observation, exposed=True).reason
        case AnswerReceived(status=status):
            return f"status_{status}"
        case _:
            assert_never(observation)
