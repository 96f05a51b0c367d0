"""Stage 3: deliver one assignment to its business's endpoint, one attempt per call.

    connect → commit the exposure → write the journal, read the contact → send (no transaction open)
    → classify the answer (pure) → commit the outcome and the money

The exposure is committed after the connection is open and before the first byte is sent; by the award itself if a
connection was open then. So a lead whose endpoint
cannot be reached may go to another business, and a lead of which a byte may have been read never does.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, assert_never
from uuid import UUID

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.database.journal import Journal, JournalError, JournalExposure
from marketplace.delivery import store as delivery_store
from marketplace.delivery.event import compose
from marketplace.delivery.mailing import MailSender
from marketplace.delivery.mapped import MappedRequests, PreparedRequest, render_request
from marketplace.delivery.store import AlarmKind, CommittedExposure, DeliveryCase, MailMode, MailTarget
from marketplace.ledger import money
from marketplace.ledger.money import PayoutShare
from marketplace.ledger.shares import load_shares
from marketplace.mail.outbox import enqueue
from marketplace.mail.transport import MailAttempt
from marketplace.mapping.requests import build_request
from marketplace.runtime import clock, failpoints, ids
from marketplace.runtime.errors import Unavailable
from marketplace.runtime.live import OPERATORS, Publisher, feed_topic
from marketplace.runtime.log import logger
from marketplace.security import audit
from marketplace.security.sealing import Sealer
from marketplace.text.answers import private_texts
from marketplace.web import metrics
from marketplace.webhook.address import AddressRules
from marketplace.webhook.kept import KeptConnections
from marketplace.webhook.signing import sign
from marketplace.webhook.transport import Attempt, ConnectionInfo, WebhookMessage, post
from routing.contract import OWN_FORMAT, Contract, shape_of
from routing.delivery import (
    EVIDENCE_WINDOW,
    NEEDS_A_RULE,
    AnswerReceived,
    AttemptOutcome,
    Breaker,
    Classification,
    EndpointKind,
    NotSent,
    NotSentReason,
    classify,
    classify_mail,
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
"Delay after which the sweeper routes a released lead again, if the worker that released it died before doing so."


SETTLE_PAUSES: Final = (0.5, 1.0, 2.0)
"Pauses in seconds between the attempts to record an outcome; after the last, the job is repeated when its lease ends."


class AttemptResult(StrEnum):
    """Result of one call of `Delivery.deliver`."""

    delivered = "delivered"
    "The business confirmed receipt and was charged."
    refused = "refused"
    "The business refused the lead; nothing was charged."
    lapsed = "lapsed"
    "There was no evidence of receipt by the deadline; nothing was charged."
    released = "released"
    "Nothing had been sent: the lead may go to another business."
    retrying = "retrying"
    "The same business is tried again later."
    awaiting_reader = "awaiting_reader"
    "The lead is in the business's feed and waits for the feed to be read."
    nothing_to_do = "nothing_to_do"
    "The assignment had already ended."


Announce = Callable[[DeliveryCase], None]


class Delivery:
    """Makes one attempt per call. A call may be repeated safely: it reads the assignment's state first."""

    def __init__(
        self,
        pool: Pool,
        sealer: Sealer,
        guard: AddressRules,
        journal: Journal,
        publisher: Publisher | None = None,
        connections: KeptConnections | None = None,
        announce: Announce | None = None,
        mail: MailSender | None = None,
    ) -> None:
        """Keep what each attempt needs.

        Without a `publisher`, readers of a feed find new leads by polling, up to a second later. Without
        `connections`, each attempt opens a connection of its own. `announce` is called with each lead that was placed
        in an inbox or mailed as a link to it; it must return at once. Without `mail`, leads for e-mail go on.
        """
        self._pool = pool
        self._sealer = sealer
        self._guard = guard
        self._journal = journal
        self._publisher = publisher
        self._connections = connections
        self._announce = announce
        self._mail = mail
        self._mapped = MappedRequests(sealer, guard, keeps_connections=connections is not None)

    def close(self) -> None:
        """Close the idle connections to mapped endpoints."""
        self._mapped.close()

    async def deliver(self, assignment_id: UUID) -> AttemptResult:
        """Make one attempt, or end the assignment if its deadline has passed.

        For a feed or an inbox the lead is placed in the business's feed, until somebody reads or takes it.
        """
        async with session(self._pool) as connection:
            case = await delivery_store.find_delivery(connection, assignment_id)
        if case is None or case.state not in OPEN_ASSIGNMENT:
            return AttemptResult.nothing_to_do
        progress, now = _Progress(case), case.read_at
        if case.evidence_until is not None and now >= case.evidence_until:
            return await self._lapse(case, now)
        obstacle = _find_obstacle(case, now)
        if obstacle is not None:
            return await self._settle(case, Attempt(observation=obstacle, total_ms=0.0), now, progress)
        await self._claim_probe(case, now)
        match case.endpoint_kind:
            case EndpointKind.push:
                attempt: Attempt | MailAttempt = await self._post(case, progress)
            case EndpointKind.feed | EndpointKind.inbox:
                return await self._place_in_feed(case, now)
            case EndpointKind.email:
                target = await self._find_mail_target(case)
                if target is not None and target.mode is MailMode.link:
                    return await self._mail_link(case, target, now)
                attempt = await self._send_mail(case, target, progress)
            case _:
                assert_never(case.endpoint_kind)
        await failpoints.reach("after_answer_before_settle")
        return await self._settle(case, attempt, now, progress)

    async def _post(self, case: DeliveryCase, progress: "_Progress") -> Attempt:
        """Post the lead to the business's server, and expose it between the connection and the first byte."""
        if case.url is None:
            raise ValueError("an endpoint of kind push has a URL")
        if case.mapping is not None:
            prepared = await self._mapped.prepare(case, case.mapping)
            if isinstance(prepared, NotSent):
                return Attempt(observation=prepared, total_ms=0.0)
            progress.request = prepared
        url_sha256 = sha256(case.url.encode()).digest()

        async def message(to: ConnectionInfo) -> WebhookMessage | None:
            contact = await self._expose(progress, "push", url_sha256, to)
            return None if contact is None else self._build_request(progress, contact)

        attempt = await post(
            case.url,
            guard=self._guard,
            on_connected=message,
            connections=self._connections if progress.request is None else self._mapped.connections,
            assignment_id=case.assignment_id,
        )
        if progress.request is not None:
            self._mapped.note_answer(progress.request, attempt.observation)
        return attempt

    async def _find_mail_target(self, case: DeliveryCase) -> MailTarget | None:
        """Return the recipient of the lead's message; None without a mail server."""
        if self._mail is None:
            return None
        async with session(self._pool) as connection:
            return await delivery_store.find_mail_target(connection, case.assignment_id)

    async def _send_mail(self, case: DeliveryCase, target: MailTarget | None, progress: "_Progress") -> MailAttempt:
        """Send the lead by e-mail, and expose it once the mail server has accepted the recipient."""
        mail = self._mail
        if mail is None or target is None:
            detail = "no mail server is configured"
            obstacle = NotSent(reason=NotSentReason.mail_server_unavailable, detail=detail)
            return MailAttempt(observation=obstacle, total_ms=0.0)
        url_sha256 = sha256(f"mailto:{target.address}".encode()).digest()

        async def message(to: ConnectionInfo) -> bytes | None:
            contact = await self._expose(progress, "email", url_sha256, to)
            if contact is None:
                return None
            content = mail.compose(case, target, contact, progress.time.now())
            progress.body_sha256 = sha256(content).digest()
            return content

        return await mail.send(case, target, message)

    async def _mail_link(self, case: DeliveryCase, target: MailTarget, now: datetime) -> AttemptResult:
        """Place the lead in the business's inbox, and have an alert without contact data sent, once."""
        result = await self._place_in_feed(case, now)
        if case.state is AssignmentState.held and self._mail is not None:
            async with session(self._pool) as connection:
                await enqueue(connection, self._mail.alert(case, target), now)
            self._mail.outbox.wake()
        return result

    async def _place_in_feed(self, case: DeliveryCase, now: datetime) -> AttemptResult:
        """Put the lead in the business's feed and wake its readers. The lead is exposed when the feed is read."""
        async with session(self._pool) as connection:
            is_new = await delivery_store.await_reader(connection, case.assignment_id, now)
            suspension = await self._find_crossed_quota(connection, case, now)
        if suspension is not None:
            async with transaction(self._pool) as connection:
                await delivery_store.lock_subscription(connection, case)
                await self._suspend_over_quota(connection, case, now)
        if self._publisher is not None:
            await self._publisher.publish(feed_topic(case.business_id), ids.encode("biz", case.business_id))
        if is_new and self._announce is not None and case.endpoint_kind is not EndpointKind.feed:
            self._announce(case)
        return AttemptResult.awaiting_reader

    async def _expose(self, progress: "_Progress", channel: str, url_sha256: bytes, to: ConnectionInfo) -> bytes | None:
        """Commit the exposure, then return the contact as JSON, read while the exposure is written to the journal.

        Return None, so that nothing is sent, if the lead may not be exposed any more, if the person has been erased,
        or if the journal could not be written.
        """
        case, now = progress.case, progress.time.now()
        exposure = await self._commit_exposure(case, channel, url_sha256, to, now)
        if exposure is None:
            return None
        progress.exposed_at = case.exposed_at or now
        progress.revision = exposure.revision
        entry = delivery_store.exposure_of(
            case,
            channel,
            url_sha256,
            to.name,
            to.tls_fingerprint,
            progress.exposed_at,
            exposure.position,
        )
        contact, journaled = await asyncio.gather(
            self._read_contact(progress), self._write_journal(case.assignment_id, entry)
        )
        if contact is None or not journaled:
            return None
        await failpoints.reach("after_read_before_write")
        return contact

    async def _commit_exposure(
        self, case: DeliveryCase, channel: str, url_sha256: bytes, to: ConnectionInfo, now: datetime
    ) -> CommittedExposure | None:
        """Commit the exposure, and return it; None if the lead may not be exposed any more.

        The award has committed it a moment ago, if it reserved this connection.
        """
        if to.reserved and case.exposed_at is not None:
            return CommittedExposure(position=case.exposure_position, revision=case.revision)
        await failpoints.reach("after_connect_before_expose")
        async with session(self._pool) as connection:
            exposure = await delivery_store.expose(
                connection, case, url_sha256, to, now, now + EVIDENCE_WINDOW, channel
            )
            if exposure is not None:
                await failpoints.reach("after_expose_before_read", connection)
        return exposure

    async def _read_contact(self, progress: "_Progress") -> bytes | None:
        """Return the contact as JSON, or None if the person has been erased.

        The contact is read in a later transaction than the exposure's: the database function `read_contact` only
        accepts an exposure that was committed before.
        """
        case = progress.case
        async with session(self._pool) as connection:
            sealed = await delivery_store.read_contact(connection, case.lead_id, case.business_id)
        if sealed is None:
            return None
        contact = self._sealer.open_contact(case.lead_id, sealed)
        progress.private = private_texts(contact)
        return contact

    def _build_request(self, progress: "_Progress", contact: bytes) -> WebhookMessage | None:
        """Return the signed request with the contact, or None if the template of a mapped endpoint fails."""
        case, now, request = progress.case, progress.time.now(), progress.request
        body = compose(case, contact, now) if request is None else render_request(request, contact)
        if body is None:
            return None
        progress.body_sha256 = sha256(body).digest()
        secrets = self._sealer.open_secrets(case.endpoint_id, case, now)
        headers = sign(secrets, ids.encode("asg", case.assignment_id), now, body)
        if request is None:
            return WebhookMessage(headers=(*headers.items(), ("content-type", "application/json")), body=body)
        return build_request(request.mapping, body, headers, request.authorization)

    async def _write_journal(self, assignment_id: UUID, entry: JournalExposure) -> bool:
        """Write the exposure to the journal and return whether that succeeded; a failure is counted and logged."""
        try:
            await self._journal.append(entry)
        except JournalError as error:
            metrics.JOURNAL_FAILED.inc()
            log.error("journal_failed", assignment=str(assignment_id), error=str(error))
            return False
        return True

    async def _settle(
        self, case: DeliveryCase, attempt: Attempt | MailAttempt, started_at: datetime, progress: "_Progress"
    ) -> AttemptResult:
        """Record the outcome, repeating it after each of SETTLE_PAUSES while the database is unavailable.

        Otherwise the lead would be sent a second time to a business that has already answered.
        """
        for pause in SETTLE_PAUSES:
            try:
                return await self._settle_once(case, attempt, started_at, progress)
            except Unavailable:
                await asyncio.sleep(pause)
        return await self._settle_once(case, attempt, started_at, progress)

    async def _settle_once(
        self, case: DeliveryCase, attempt: Attempt | MailAttempt, started_at: datetime, progress: "_Progress"
    ) -> AttemptResult:
        """Record the attempt, move the assignment and its money, and return what happened to it."""
        classified = _classify(attempt, progress.exposed_at is not None, case.contract or OWN_FORMAT)
        if classified.outcome is AttemptOutcome.accepted:
            result = await self._settle_accepted(case, attempt, classified, started_at, progress)
        else:
            result = await self._settle_not_accepted(case, attempt, classified, started_at, progress)
        await failpoints.reach("after_settle_commit")
        return result

    async def _settle_accepted(
        self,
        case: DeliveryCase,
        attempt: Attempt | MailAttempt,
        classified: Classification,
        started_at: datetime,
        progress: "_Progress",
    ) -> AttemptResult:
        """Record a delivered lead and charge the business, then its endpoint's health in a transaction of its own."""
        now = progress.time.now()
        shares = await self._load_shares(progress)
        opening = transaction if shares else session
        async with opening(self._pool) as connection:
            statement = delivery_store.settle_accepted(
                connection,
                case,
                attempt,
                classified,
                started_at,
                progress.body_sha256,
                progress.private,
                now,
                shares,
            )
            state = await failpoints.amid("amid_settle", statement, connection)
        if case.breaker != Breaker() or case.alarmed or _new_shape(case, attempt) is not None:
            async with transaction(self._pool) as connection:
                await self._update_breaker(connection, case, classified, now)
                await self._note_answer(connection, case, attempt, classified, progress, now)
        if self._publisher is not None:
            await self._publisher.publish(ids.encode("biz", case.business_id), OPERATORS)
        return AttemptResult.delivered if state is AssignmentState.exposed else AttemptResult.nothing_to_do

    async def _load_shares(self, progress: "_Progress") -> tuple[PayoutShare, ...]:
        """Return the shares of the payout, which only a lead has that was revised before its exposure."""
        if progress.revision == 0 or progress.case.mode != "live":
            return ()
        async with session(self._pool) as connection:
            return await load_shares(connection, progress.case.price)

    async def _settle_not_accepted(
        self,
        case: DeliveryCase,
        attempt: Attempt | MailAttempt,
        classified: Classification,
        started_at: datetime,
        progress: "_Progress",
    ) -> AttemptResult:
        """Record an attempt that was not accepted, apply its outcome, and check the quota, in one transaction."""
        now = progress.time.now()
        async with transaction(self._pool) as connection:
            state = await delivery_store.lock_delivery(connection, case)
            counts = _counts_for_quota(case, classified, progress, now)
            if counts:
                await delivery_store.lock_subscription(connection, case)
            await delivery_store.insert_attempt(
                connection, case, attempt, classified, started_at, progress.body_sha256, progress.private
            )
            result = AttemptResult.nothing_to_do
            if state in OPEN_ASSIGNMENT:
                result = await self._apply_outcome(connection, case, state, classified, progress, now)
            await self._update_breaker(connection, case, classified, now)
            await self._note_answer(connection, case, attempt, classified, progress, now)
            if counts:
                await self._suspend_over_quota(connection, case, now)
        if result is AttemptResult.released and case.url is None and self._publisher is not None:
            await self._publisher.publish(ids.encode("biz", case.business_id))  # its card leaves the open inboxes
        return result

    async def _find_crossed_quota(self, connection: Connection, case: DeliveryCase, now: datetime) -> Suspension | None:
        """Return the quota that the subscription has crossed by the stored counts, or None.

        None as well for a test lead, and for a subscription that is already suspended or has ended.
        """
        if case.mode != "live":
            return None
        quota = await delivery_store.load_quota(connection, case, now)
        return find_crossed(quota.terms, quota.counts) if quota.open else None

    async def _suspend_over_quota(self, connection: Connection, case: DeliveryCase, now: datetime) -> None:
        """Suspend a subscription that has crossed a quota, with an audit row. The caller holds its lock.

        Call it last in the transaction: it raises the catalog's version, whose lock comes after all others.
        """
        suspension = await self._find_crossed_quota(connection, case, now)
        if suspension is not None:
            await delivery_store.suspend(connection, case, suspension, now)
            subject = ids.encode("sub", case.subscription_id)
            await audit.record(
                connection,
                now,
                "marketplace",
                "subscription.suspend",
                subject,
                reason=suspension.reason,
                counted=suspension.counted,
                shown=suspension.leads,
            )

    async def _apply_outcome(
        self,
        connection: Connection,
        case: DeliveryCase,
        state: AssignmentState,
        classified: Classification,
        progress: "_Progress",
        now: datetime,
    ) -> AttemptResult:
        """Move an open assignment by the outcome of an attempt that was not accepted, and return the result."""
        match classified.outcome:
            case AttemptOutcome.refused | AttemptOutcome.gone:
                await self._settle_uncharged(connection, case, AssignmentState.refused, classified.reason, now)
                return AttemptResult.refused
            case AttemptOutcome.not_sent if state is AssignmentState.held and classified.may_release:
                return await self._hold_or_release(connection, case, classified, now)
            case AttemptOutcome.not_sent | AttemptOutcome.unknown | AttemptOutcome.busy | AttemptOutcome.redirect:
                await self._schedule_retry(connection, case, classified, progress, now)
                return AttemptResult.retrying
            case AttemptOutcome.accepted:
                raise AssertionError("an accepted delivery is settled by _settle_accepted")
            case _:
                assert_never(classified.outcome)

    async def _hold_or_release(
        self, connection: Connection, case: DeliveryCase, classified: Classification, now: datetime
    ) -> AttemptResult:
        """Retry a lead that was never sent while it may still be held; after that, release it for another business."""
        reason = NotSentReason(classified.reason)
        again_at = next_hold_attempt_at(case.attempts, reason=reason, held_at=case.awarded_at, now=now)
        if again_at is not None:
            await delivery_store.mark_due(connection, case.assignment_id, again_at, classified.reason)
            return AttemptResult.retrying
        await delivery_store.mark_released(connection, case, classified.reason, now + NEXT_BUSINESS_GRACE, now)
        if case.mode == "live":
            await money.release(connection, case.price, now)
        return AttemptResult.released

    async def _schedule_retry(
        self,
        connection: Connection,
        case: DeliveryCase,
        classified: Classification,
        progress: "_Progress",
        now: datetime,
    ) -> None:
        """Set the time of the next attempt at the same business, with the same webhook id.

        After the last retry, and for a person who has withdrawn, that is the deadline for evidence. While the breaker
        is open, it is not before the end of its cool-down.
        """
        exposed_at = progress.exposed_at or case.exposed_at or now
        again_at = None
        if classified.reason is not NotSentReason.withdrawn:
            again_at = next_attempt_at(
                case.attempts,
                exposed_at=exposed_at,
                now=now,
                retry_after_seconds=classified.retry_after_seconds,
                seed=str(case.assignment_id),
            )
        closes_at = None
        if classified.reason is NotSentReason.breaker_open:
            closes_at = closed_from(case.breaker)
        due_at = max(again_at or exposed_at + EVIDENCE_WINDOW, closes_at or now)
        await delivery_store.mark_due(connection, case.assignment_id, due_at, classified.reason)

    async def _lapse(self, case: DeliveryCase, now: datetime) -> AttemptResult:
        """End an exposed assignment without evidence by its deadline: release the hold and check the quota."""
        async with transaction(self._pool) as connection:
            state = await delivery_store.lock_delivery(connection, case)
            if state is not AssignmentState.exposed:
                return AttemptResult.nothing_to_do
            if case.mode == "live":
                await delivery_store.lock_subscription(connection, case)
            await self._settle_uncharged(connection, case, AssignmentState.lapsed, "no_evidence", now)
            await self._suspend_over_quota(connection, case, now)
        return AttemptResult.lapsed

    async def _settle_uncharged(
        self, connection: Connection, case: DeliveryCase, state: AssignmentState, reason: str, now: datetime
    ) -> None:
        """End the assignment in `state` and return the held price of a live lead to the wallet."""
        await delivery_store.mark_settled(connection, case, state, reason, None, now)
        if case.mode == "live":
            await money.release(connection, case.price, now)

    async def _claim_probe(self, case: DeliveryCase, now: datetime) -> None:
        """Mark this attempt as the probe after a cool-down; no other attempt is made until its outcome is known."""
        if take_probe(case.breaker, now) == case.breaker:
            return
        async with transaction(self._pool) as connection:
            probing = take_probe(await delivery_store.lock_breaker(connection, case.endpoint_id), now)
            await delivery_store.save_breaker(connection, case.endpoint_id, probing, closed_from(probing))

    async def _update_breaker(
        self, connection: Connection, case: DeliveryCase, classified: Classification, now: datetime
    ) -> None:
        """Count the attempt in the endpoint's breaker, and disable an endpoint that answered 410 Gone.

        Nothing is written when a healthy endpoint stays healthy.
        """
        if classified.outcome is AttemptOutcome.gone:
            await delivery_store.disable_endpoint(connection, case.endpoint_id)
        healthy = endpoint_health(classified)
        if case.endpoint_kind is not EndpointKind.push and classified.reason == NotSentReason.hold_over:
            healthy = False  # nobody reads what is placed here; the next lead should not wait as long
        if healthy is None or (healthy and case.breaker == Breaker()):
            return
        before = await delivery_store.lock_breaker(connection, case.endpoint_id)
        after = record(before, healthy, now)
        if after != before:
            await delivery_store.save_breaker(connection, case.endpoint_id, after, closed_from(after))

    async def _note_answer(
        self,
        connection: Connection,
        case: DeliveryCase,
        attempt: Attempt | MailAttempt,
        classified: Classification,
        progress: "_Progress",
        now: datetime,
    ) -> None:
        """Raise or close the alarms about the answer. Call it after `_update_breaker`, which locks the endpoint."""
        answer = attempt.observation
        if not isinstance(answer, AnswerReceived):
            return
        if classified.reason in NEEDS_A_RULE:
            kind = AlarmKind.not_understood
            await delivery_store.raise_answer_alarm(connection, case, kind, answer, progress.private, now)
        elif case.alarmed and 200 <= answer.status <= 299 and not answer.truncated:
            await delivery_store.close_answer_alarm(connection, case.endpoint_id, now)
        shape = _new_shape(case, attempt) if classified.outcome is AttemptOutcome.accepted else None
        if shape is not None:
            await delivery_store.insert_answer_shape(connection, case.endpoint_id, shape)
            if case.answer_shapes:
                kind = AlarmKind.new_shape
                await delivery_store.raise_answer_alarm(connection, case, kind, answer, progress.private, now)


def _new_shape(case: DeliveryCase, attempt: Attempt | MailAttempt) -> str | None:
    """Return the shape of an answer, or None if an accepted answer of the endpoint had it before."""
    answer = attempt.observation
    if not isinstance(answer, AnswerReceived):
        return None
    shape = shape_of(answer.content_type, answer.body)
    return None if shape in case.answer_shapes else shape


def _classify(attempt: Attempt | MailAttempt, exposed: bool, contract: Contract) -> Classification:
    """Return the meaning of an attempt, by the rules of its channel."""
    if isinstance(attempt, MailAttempt):
        return classify_mail(attempt.observation, exposed)
    return classify(attempt.observation, exposed, contract)


def _counts_for_quota(case: DeliveryCase, classified: Classification, progress: "_Progress", now: datetime) -> bool:
    """Return whether this attempt may have crossed a quota: a refusal, or a lead exposed for longer than OVERDUE."""
    if case.mode != "live":
        return False
    overdue = progress.exposed_at is not None and now - progress.exposed_at >= OVERDUE
    return classified.outcome in (AttemptOutcome.refused, AttemptOutcome.gone) or overdue


class _Progress:
    """Facts learned during one attempt: the time of the exposure and the lead's revision then, the hash of the signed
    body, and the contact's texts.

    The texts in `private` are masked where the receiver's answer repeats them. `request` is prepared for a mapped
    endpoint.
    """

    def __init__(self, case: DeliveryCase) -> None:
        self.case = case
        self.time = clock.DatabaseTime(case.read_at)
        self.exposed_at = case.exposed_at
        self.revision = case.revision
        self.body_sha256: bytes | None = None
        self.private: tuple[str, ...] = ()
        self.request: PreparedRequest | None = None


def _find_obstacle(case: DeliveryCase, now: datetime) -> NotSent | None:
    """Return the reason for which no connection may even be opened, or None."""
    if case.withdrawn:
        return NotSent(reason=NotSentReason.withdrawn, detail="the person may not be contacted any more")
    if case.state is AssignmentState.held and now >= case.hold_until:
        return NotSent(reason=NotSentReason.hold_over, detail="held for as long as a lead may be held unsent")
    if case.endpoint_state != "active":
        return NotSent(reason=NotSentReason.url_refused, detail="the endpoint is switched off")
    if is_open(case.breaker, now):
        return NotSent(reason=NotSentReason.breaker_open, detail="the endpoint failed repeatedly and is left alone")
    return None
