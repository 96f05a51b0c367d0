"""Stage 3: carrying one assignment to its business's door.

    connect → one transaction: exposure → journal, contact → send (none open) → classify (pure)
    → one transaction: outcome + money

The exposure is committed exactly between the finished connection and the first byte: a dead endpoint costs nothing,
and a byte that may have been read is never followed by the same lead elsewhere.
"""

import asyncio
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, assert_never
from uuid import UUID

import msgspec

from marketplace import audit, clock, failpoints, ids, metrics, money
from marketplace.answers import private_texts
from marketplace.db import Connection, Pool, session, transaction
from marketplace.delivery import store
from marketplace.delivery.store import Case
from marketplace.errors import Unavailable
from marketplace.journal import Exposure, Journal, JournalError
from marketplace.live import OPERATORS, Publisher, feed_topic
from marketplace.log import logger
from marketplace.sealing import Sealer
from marketplace.webhook.address import Guard
from marketplace.webhook.signing import sign
from marketplace.webhook.transport import Attempt, Connected, Message, post
from routing.delivery import (
    EVIDENCE_WINDOW,
    Breaker,
    Classified,
    NotSent,
    NotSentReason,
    Outcome,
    classify,
    closed_from,
    endpoint_health,
    is_open,
    next_attempt_at,
    next_hold_attempt_at,
    record,
    take_probe,
)
from routing.lifecycle import OPEN_ASSIGNMENT, AssignmentState
from routing.quota import OVERDUE, Suspension, find_crossed

log = logger("delivery")

NEXT_BUSINESS_GRACE: Final = timedelta(seconds=1)
"A released lead is routed again by whoever released it; should that process die, the sweeper does it this much later."


SETTLE_PAUSES: Final = (0.5, 1.0, 2.0)
"Seconds before an outcome that could not be recorded is recorded again; after that the lease ends it."


class Result(StrEnum):
    """What one call did."""

    delivered = "delivered"
    "The business has it, and was charged."
    refused = "refused"
    "The business said no; nothing was charged."
    lapsed = "lapsed"
    "No evidence by the deadline; nothing was charged."
    released = "released"
    "Nothing had left us: the lead may go to another business."
    retrying = "retrying"
    "The same business is tried again later."
    awaiting_reader = "awaiting_reader"
    "It is in the business's feed, for whoever reads that."
    nothing_to_do = "nothing_to_do"
    "Somebody else had finished it."


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a `lead.assigned` webhook: `data` is the lead, shipped to this one business."""

    type: str
    timestamp: datetime
    data: dict[str, object]


class Delivery:
    """Makes one attempt per call. Every call may be repeated: it looks at the assignment's state first."""

    def __init__(
        self, pool: Pool, sealer: Sealer, guard: Guard, journal: Journal, publisher: Publisher | None = None
    ) -> None:
        """Without a `publisher` those who read a feed find by themselves, a second later, what is new in it."""
        self._pool = pool
        self._sealer = sealer
        self._guard = guard
        self._journal = journal
        self._publisher = publisher

    async def deliver(self, assignment_id: UUID) -> Result:
        """One attempt, or the deadline's consequence when its time has come."""
        async with session(self._pool) as connection:
            case = await store.find_delivery(connection, assignment_id)
        if case is None or case.state not in OPEN_ASSIGNMENT:
            return Result.nothing_to_do
        visit, now = _Visit(case), case.read_at
        if case.evidence_until is not None and now >= case.evidence_until:
            return await self._lapse(case, now)
        obstacle = _obstacle(case, now)
        if obstacle is not None:
            return await self._settle(case, Attempt(observation=obstacle, total_ms=0.0), now, visit)
        await self._announce_probe(case, now)
        if case.url is None:
            return await self._await_reader(case, now)
        url_sha256 = sha256(case.url.encode()).digest()
        attempt = await post(case.url, guard=self._guard, on_connected=lambda to: self._expose(visit, url_sha256, to))
        await failpoints.reach("after_answer_before_settle")
        return await self._settle(case, attempt, now, visit)

    async def _await_reader(self, case: Case, now: datetime) -> Result:
        """A feed is not knocked at: whoever reads it comes, within the hold window, and is exposed to there."""
        async with session(self._pool) as connection:
            await store.await_reader(connection, case.assignment_id, now)
            crossed = await self._find_crossed(connection, case, now)
        if crossed is not None:
            async with transaction(self._pool) as connection:
                await store.lock_subscription(connection, case)
                await self._hold_to_quota(connection, case, now)
        if self._publisher is not None:
            await self._publisher.publish(feed_topic(case.business_id), ids.encode("biz", case.business_id))
        return Result.awaiting_reader

    async def _expose(self, visit: "_Visit", url_sha256: bytes, to: Connected) -> Message | None:
        """Commits the exposure, then reads the contact and writes what will be sent, while the journal keeps it too."""
        case, now = visit.case, visit.time.now()
        await failpoints.reach("after_connect_before_expose")
        async with session(self._pool) as connection:
            shown = await store.expose(connection, case, url_sha256, to, now, now + EVIDENCE_WINDOW)
            if shown is None:
                return None
            visit.exposed_at = case.exposed_at or now
            await failpoints.reach("after_expose_before_read", connection)
        exposure = store.exposure_of(
            case, "push", url_sha256, store.name_of(to), to.tls_fingerprint, visit.exposed_at, shown.position
        )
        message, journaled = await asyncio.gather(self._message(visit, now), self._journaled(case, exposure))
        if message is None or not journaled:
            return None
        visit.body_sha256 = sha256(message.body).digest()
        await failpoints.reach("after_read_before_write")
        return message

    async def _message(self, visit: "_Visit", now: datetime) -> Message | None:
        """What will be sent, signed. The contact is read in another transaction than the exposure's: the door asks for
        that. None when the person has been erased."""
        case = visit.case
        async with session(self._pool) as connection:
            sealed = await store.read_contact(connection, case.lead_id, case.business_id)
        if sealed is None:
            return None
        contact = self._sealer.open_contact(case.lead_id, sealed)
        visit.private = private_texts(contact)
        body = compose(case, contact, now)
        headers = sign(self._secrets(case, now), ids.encode("asg", case.assignment_id), now, body)
        return Message(headers=(*headers.items(), ("content-type", "application/json")), body=body)

    async def _journaled(self, case: Case, exposure: Exposure) -> bool:
        """Whether this exposure is on disk outside the database too; if not, nothing is sent, and it is tried again."""
        try:
            await self._journal.append(exposure)
        except JournalError as error:
            metrics.JOURNAL_FAILED.inc()
            log.error("journal_failed", assignment=str(case.assignment_id), error=str(error))
            return False
        return True

    def _secrets(self, case: Case, now: datetime) -> tuple[str, ...]:
        """The current secret, and during a rotation the one before it."""
        rotating = case.previous_until is not None and now < case.previous_until
        boxes = (case.secret, case.previous_secret if rotating else None)
        return tuple(self._sealer.open_secret(case.endpoint_id, box) for box in boxes if box is not None)

    async def _settle(self, case: Case, attempt: Attempt, started_at: datetime, visit: "_Visit") -> Result:
        """Tried again while the database is away: a business that has answered should not be asked twice."""
        for pause in SETTLE_PAUSES:
            try:
                return await self._settle_once(case, attempt, started_at, visit)
            except Unavailable:
                await asyncio.sleep(pause)
        return await self._settle_once(case, attempt, started_at, visit)

    async def _settle_once(self, case: Case, attempt: Attempt, started_at: datetime, visit: "_Visit") -> Result:
        """One transaction: the attempt's record, what it means for the assignment, and the money."""
        seen = classify(attempt.observation, visit.exposed_at is not None)
        if seen.outcome is Outcome.accepted:
            result = await self._accept(case, attempt, seen, started_at, visit)
        else:
            result = await self._fall_short(case, attempt, seen, started_at, visit)
        await failpoints.reach("after_settle_commit")
        return result

    async def _accept(
        self, case: Case, attempt: Attempt, seen: Classified, started_at: datetime, visit: "_Visit"
    ) -> Result:
        """The business has it, and is charged; its endpoint is well, which is told apart: it decides nothing here."""
        now = visit.time.now()
        async with session(self._pool) as connection:
            settling = store.settle_accepted(connection, case, attempt, seen, started_at, visit.body_sha256, now)
            state = await failpoints.amid("amid_settle", settling, connection)
        if case.breaker != Breaker():
            async with transaction(self._pool) as connection:
                await self._note_health(connection, case, seen, now)
        if self._publisher is not None:
            await self._publisher.publish(ids.encode("biz", case.business_id), OPERATORS)
        return Result.delivered if state is AssignmentState.exposed else Result.nothing_to_do

    async def _fall_short(
        self, case: Case, attempt: Attempt, seen: Classified, started_at: datetime, visit: "_Visit"
    ) -> Result:
        now = visit.time.now()
        async with transaction(self._pool) as connection:
            state = await store.lock_delivery(connection, case)
            counts = _counts_for_quota(case, seen, visit, now)
            if counts:
                await store.lock_subscription(connection, case)
            await store.insert_attempt(connection, case, attempt, seen, started_at, visit.body_sha256, visit.private)
            result = Result.nothing_to_do
            if state in OPEN_ASSIGNMENT:
                result = await self._move(connection, case, state, seen, visit, now)
            await self._note_health(connection, case, seen, now)
            if counts:
                await self._hold_to_quota(connection, case, now)
        return result

    async def _find_crossed(self, connection: Connection, case: Case, now: datetime) -> Suspension | None:
        """The quota that the subscription has crossed by what is stored, unless it is suspended already."""
        if case.mode != "live":
            return None
        quota = await store.load_quota(connection, case, now)
        return find_crossed(quota.terms, quota.counts) if quota.open else None

    async def _hold_to_quota(self, connection: Connection, case: Case, now: datetime) -> None:
        """Suspend a subscription that reads without paying, under its lock: the next award finds it suspended.

        Last in its transaction, because it bumps the catalog's counter, and only then: every lock comes before it.
        """
        crossed = await self._find_crossed(connection, case, now)
        if crossed is not None:
            await store.suspend(connection, case, crossed, now)
            subject = ids.encode("sub", case.subscription_id)
            await audit.record(
                connection, now, "marketplace", "subscription.suspend", subject, reason=crossed.reason,
                counted=crossed.counted, shown=crossed.shown,
            )  # fmt: skip

    async def _move(
        self, connection: Connection, case: Case, state: AssignmentState, seen: Classified, visit: "_Visit",
        now: datetime,
    ) -> Result:  # fmt: skip
        match seen.outcome:
            case Outcome.refused | Outcome.gone:
                await self._give_back(connection, case, AssignmentState.refused, seen.reason, now)
                return Result.refused
            case Outcome.not_sent if state is AssignmentState.held and seen.may_release:
                return await self._hold_or_release(connection, case, seen, now)
            case Outcome.not_sent | Outcome.unknown | Outcome.busy | Outcome.redirect:
                await self._try_again(connection, case, seen, visit, now)
                return Result.retrying
            case Outcome.accepted:
                raise AssertionError("an accepted delivery is settled by _accept")
            case _:
                assert_never(seen.outcome)

    async def _hold_or_release(self, connection: Connection, case: Case, seen: Classified, now: datetime) -> Result:
        """Nothing has left us: a quick retry or two, then the next business gets its chance."""
        reason = NotSentReason(seen.reason)
        again_at = next_hold_attempt_at(case.attempts, reason=reason, held_at=case.awarded_at, now=now)
        if again_at is not None:
            await store.mark_due(connection, case.assignment_id, again_at, seen.reason)
            return Result.retrying
        await store.mark_released(connection, case, seen.reason, now + NEXT_BUSINESS_GRACE, now)
        if case.mode == "live":
            await money.release(connection, case.price, now)
        return Result.released

    async def _try_again(
        self, connection: Connection, case: Case, seen: Classified, visit: "_Visit", now: datetime
    ) -> None:
        """The same business, with the same webhook id; past the last retry, or with nothing to send, the deadline."""
        exposed_at = visit.exposed_at or case.exposed_at or now
        again_at = None if seen.reason is NotSentReason.withdrawn else next_attempt_at(
            case.attempts, exposed_at=exposed_at, now=now, retry_after_seconds=seen.retry_after_seconds,
            seed=str(case.assignment_id),
        )  # fmt: skip
        reopens = closed_from(case.breaker) if seen.reason is NotSentReason.breaker_open else None
        due_at = max(again_at or exposed_at + EVIDENCE_WINDOW, reopens or now)
        await store.mark_due(connection, case.assignment_id, due_at, seen.reason)

    async def _lapse(self, case: Case, now: datetime) -> Result:
        async with transaction(self._pool) as connection:
            state = await store.lock_delivery(connection, case)
            if state is not AssignmentState.exposed:
                return Result.nothing_to_do
            if case.mode == "live":
                await store.lock_subscription(connection, case)
            await self._give_back(connection, case, AssignmentState.lapsed, "no_evidence", now)
            await self._hold_to_quota(connection, case, now)
        return Result.lapsed

    async def _give_back(
        self, connection: Connection, case: Case, state: AssignmentState, reason: str, now: datetime
    ) -> None:
        await store.mark_settled(connection, case, state, reason, None, now)
        if case.mode == "live":
            await money.release(connection, case.price, now)

    async def _announce_probe(self, case: Case, now: datetime) -> None:
        """The first attempt after a cool-down probes the endpoint; all others stay away until it is well."""
        if take_probe(case.breaker, now) == case.breaker:
            return
        async with transaction(self._pool) as connection:
            probing = take_probe(await store.lock_breaker(connection, case.endpoint_id), now)
            await store.save_breaker(connection, case.endpoint_id, probing, closed_from(probing))

    async def _note_health(self, connection: Connection, case: Case, seen: Classified, now: datetime) -> None:
        """The breaker in line with the attempts; a healthy endpoint that stays healthy is not written."""
        if seen.outcome is Outcome.gone:
            await store.disable_endpoint(connection, case.endpoint_id)
        well = endpoint_health(seen)
        if case.url is None and seen.reason == NotSentReason.hold_over:
            well = False  # nobody reads this feed; the next lead should not wait for it as long
        if well is None or (well and case.breaker == Breaker()):
            return
        before = await store.lock_breaker(connection, case.endpoint_id)
        after = record(before, well, now)
        if after != before:
            await store.save_breaker(connection, case.endpoint_id, after, closed_from(after))


def _counts_for_quota(case: Case, seen: Classified, visit: "_Visit", now: datetime) -> bool:
    """Whether this attempt may have crossed a quota: by a refusal, or on a lead that is overdue."""
    if case.mode != "live":
        return False
    overdue = visit.exposed_at is not None and now - visit.exposed_at >= OVERDUE
    return seen.outcome in (Outcome.refused, Outcome.gone) or overdue


class _Visit:
    """What one attempt has learned on its way: when the exposure was committed, which bytes were signed, and the texts
    of the contact, by which an echo of them is masked."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.time = clock.DatabaseTime(case.read_at)
        self.exposed_at = case.exposed_at
        self.body_sha256: bytes | None = None
        self.private: tuple[str, ...] = ()


def _obstacle(case: Case, now: datetime) -> NotSent | None:
    """What forbids even to connect."""
    if case.withdrawn:
        return NotSent(reason=NotSentReason.withdrawn, detail="the person does not want to be contacted")
    if case.state is AssignmentState.held and now >= case.hold_until:
        return NotSent(reason=NotSentReason.hold_over, detail="held for as long as a lead may be held unsent")
    if case.endpoint_state != "active":
        return NotSent(reason=NotSentReason.url_refused, detail="the endpoint is switched off")
    if is_open(case.breaker, now):
        return NotSent(reason=NotSentReason.breaker_open, detail="the endpoint failed repeatedly and is left alone")
    return None


def compose(case: Case, contact: bytes, now: datetime) -> bytes:
    """The webhook's body: contact, verdict and journey as evidence; serialised once, and signed as it is."""
    facts = case.facts
    return msgspec.json.encode(Payload(
        type="lead.assigned",
        timestamp=now,
        data={
            "lead_id": ids.encode("lead", case.lead_id),
            "assignment_id": ids.encode("asg", case.assignment_id),
            "subscription_id": ids.encode("sub", case.subscription_id),
            "mode": case.mode,
            "exclusive": True,
            "vertical": facts.vertical,
            "price": {"minor": case.price_minor, "currency": case.currency},
            "submitted_at": facts.submitted_at,
            "awarded_at": case.awarded_at,
            "contact": msgspec.Raw(contact),
            "place": facts.place,
            "signals": facts.signals,
            "bant": {
                "budget": facts.budget, "authority": facts.authority, "need": facts.need_fields, "timing": facts.timing,
                "verdict": case.verdict,
            },
            "attribution": {
                "source": facts.source, "form": facts.form, "campaign": facts.campaign, "sub_ids": facts.sub_ids,
            },
            "touches": facts.touches,
        },
    ))  # fmt: skip
