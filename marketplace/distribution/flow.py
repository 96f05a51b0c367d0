"""Stage 2, distribution: award an accepted lead to one business, or record why no business has it.

    load the case (no lock) → decide and complete (routing/decision.py, pure)
    → one statement: lock lead, subscription, wallet (in order), check all conditions, write assignment, hold, decision,
      and the exposure if a connection to the business is open

Ranking reads without locks. The award checks every condition again under lock, so a stale index never spends money.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, assert_never
from uuid import UUID

import msgspec

from billing.pricing import payout_minor
from marketplace.database.db import Pool, session
from marketplace.distribution import store as distribution_store
from marketplace.distribution.store import AwardExposure, AwardStatus, Decision, NewAssignment, RoutingCase
from marketplace.rules.catalog import Catalog, Rules
from marketplace.runtime import clock, failpoints
from marketplace.webhook.transport import Reservations
from routing.awarding import explain_loss
from routing.calendar import window_starts
from routing.certificate import CertificateStanding
from routing.decision import (
    CERTIFICATE_PENDING,
    End,
    MatchedCandidates,
    Route,
    Wait,
    award_credits,
    complete,
    decide,
    end_for_a_later_inquiry,
    leave_open,
    record_candidates,
)
from routing.delivery import EVIDENCE_WINDOW, hold_window
from routing.lifecycle import WAITING_LEAD, LeadState
from routing.matching import Candidate, CapsAndWallet, Failure, Rule, kept_away, open_caps
from routing.subscription import Subscription

MOST_AWARD_TRIES: Final = 8
"Awards tried for one decision: after that many lost races the standings are stale, and the lead is decided again."

AWARDS_AT_ONCE: Final = 4
"""Awards that one process runs at once. Awards to the same business wait for its lock, each with a connection; the
limit leaves connections for exposing and settling."""

LEASE: Final = timedelta(seconds=30)
"Time in which no other worker takes up the delivery: longer than a whole attempt, yet short enough after a crash."

LOST_TO: Final = {
    AwardStatus.withdrawn: Rule.withdrawn,
    AwardStatus.own_customer: Rule.own_customer,
    AwardStatus.unfunded: Rule.wallet_race,
    AwardStatus.capped: Rule.cap_race,
}
"Rule that is recorded for a lost award if the condition it was lost to holds again."


class Distribution:
    """Awards a lead to at most one business. Every call may be repeated: it checks the lead's state first."""

    def __init__(
        self,
        pool: Pool,
        catalog: Catalog,
        on_decided: Callable[[float], None] | None = None,
        reservations: Reservations | None = None,
        claim_certificates: Callable[[UUID], Awaitable[bool]] | None = None,
    ) -> None:
        """Keep what each decision needs.

        `on_decided` is called after the first decision on a lead, with the seconds since the lead was accepted. With
        `reservations`, a lead whose business has an open connection is exposed by its award. `claim_certificates`
        claims the pending certificates of a lead, and returns whether none is pending any more; without it, such a lead
        waits.
        """
        self._pool = pool
        self._catalog = catalog
        self._on_decided = on_decided
        self._reservations = reservations
        self._claim_certificates = claim_certificates
        self._awarding = asyncio.Semaphore(AWARDS_AT_ONCE)

    async def distribute(self, lead_id: UUID) -> UUID | None:
        """Decide about one lead. Return the id of the assignment to deliver now, or None if there is nothing to
        deliver."""
        async with session(self._pool) as connection:
            case = await distribution_store.find_case(connection, lead_id)
        if case is None or case.state not in WAITING_LEAD:
            return None
        rules = await self._catalog.at_least(case.catalog_version)
        vertical = rules.verticals[case.vertical_id]
        result: MatchedCandidates | Route | Wait | End = decide(
            case, vertical.definition, vertical.version, rules.index, case.read_at, vertical.cards
        )
        if isinstance(result, MatchedCandidates):
            if case.customers_of:
                await self._count_kept_away(case, result)
            result = complete(result, await self._load_standings(result))
        assignment_id = None
        if isinstance(result, Route):
            assignment_id = await self._award(case, rules, result)
            await failpoints.reach("after_award_commit")
        else:
            await self._leave(case, rules, result)
        if self._on_decided is not None and case.state is LeadState.received:
            self._on_decided((clock.now() - case.received_at).total_seconds())
        claim = self._claim_certificates
        if claim is not None and isinstance(result, Wait) and waits_for_claim(case, result):
            claimed = await claim(lead_id)
            return await self.distribute(lead_id) if claimed and result.reason == CERTIFICATE_PENDING else None
        return assignment_id

    async def _count_kept_away(self, case: RoutingCase, matched: MatchedCandidates) -> None:
        business_ids = kept_away(matched.candidates)
        if business_ids:
            async with session(self._pool) as connection:
                await distribution_store.insert_kept_away(connection, case.lead_id, business_ids, case.read_at)

    async def _load_standings(self, matched: MatchedCandidates) -> dict[UUID, CapsAndWallet]:
        if not matched.to_read:
            return {}
        async with session(self._pool) as connection:
            strategy = matched.vertical.strategy
            return await distribution_store.list_standings(connection, matched.to_read, matched.now, strategy)

    async def _award(self, case: RoutingCase, rules: Rules, route: Route) -> UUID | None:
        """Give the lead to the first ranked candidate that can still have it by the locked rows.

        Each award is a transaction of its own: one that kept the locks of earlier candidates could deadlock with
        another that takes them in a different order.
        """
        losses: dict[UUID, Failure] = {}
        subscriptions = {subscription.id: subscription for subscription in route.matched.eligible}
        await failpoints.reach("before_award")
        for ranked in route.ranked[:MOST_AWARD_TRIES]:
            candidate = ranked.candidate
            subscription = subscriptions[candidate.subscription_id]
            terms = new_assignment(case, rules, subscription, route.matched.now)
            new = msgspec.structs.replace(
                terms,
                credits=award_credits(route, losses, subscription.id),
                exposure=self._reserve(subscription, terms),
            )
            claim = await self._try_award(case, rules, route, new, subscription, losses)
            if claim is AwardStatus.won:
                return new.id
            if self._reservations is not None:
                self._reservations.cancel(new.id)
            if claim is AwardStatus.moved:
                return None
            losses[subscription.id] = await self._explain_loss(subscription, candidate, claim, case)
        await self._leave(case, rules, leave_open(route, losses))
        return None

    def _reserve(self, subscription: Subscription, terms: NewAssignment) -> AwardExposure | None:
        """Reserve an open connection for the assignment, and return what is to be exposed to; None without one.

        A delivery that begins within the idle time of the connection uses it.
        """
        url = subscription.endpoint_url
        if self._reservations is None or url is None or subscription.breaker_open_until is not None:
            return None
        server = self._reservations.reserve(url, terms.id)
        if server is None:
            return None
        return AwardExposure(
            url_sha256=sha256(url.encode()).digest(),
            address=server.name,
            tls_sha256=server.tls_fingerprint,
            evidence_until=terms.awarded_at + EVIDENCE_WINDOW,
        )

    async def _try_award(
        self,
        case: RoutingCase,
        rules: Rules,
        route: Route,
        new: NewAssignment,
        subscription: Subscription,
        losses: Mapping[UUID, Failure],
    ) -> AwardStatus:
        decision = award_decision(case, rules, route, new, losses)
        caps = open_caps(subscription, route.matched.now)
        async with self._awarding, session(self._pool) as connection:
            claiming = distribution_store.award(connection, new, caps, decision, expected=case.state)
            return await failpoints.amid("amid_award", claiming, connection)

    async def _explain_loss(
        self, matched: Subscription, candidate: Candidate, claim: AwardStatus, case: RoutingCase
    ) -> Failure:
        """Return the condition that no longer holds, or the rule of the status if all conditions hold again."""
        async with session(self._pool) as connection:
            current, standing = await distribution_store.find_current(connection, matched, case.read_at)
        loss = explain_loss(candidate, current, standing, case.read_at)
        return loss or Failure(rule=LOST_TO[claim], detail="lost in the moment of the award")

    async def _leave(self, case: RoutingCase, rules: Rules, result: Wait | End) -> None:
        """Write that the lead waits or has ended. One whose state or facts have changed meanwhile is left as it is.

        A lead that would wait for longer than its person's window ends if a later inquiry of the person has that time.
        """
        decision = decision_without_award(case, rules, result)
        async with session(self._pool) as connection:
            match result:
                case Wait():
                    if not await distribution_store.keep_lead(connection, case, result, decision):
                        return await self._leave(case, rules, end_for_a_later_inquiry(case.state, result))
                case End(state=state):
                    await distribution_store.end_lead(connection, case, state, decision)
                case _:
                    assert_never(result)
        return None


def waits_for_claim(case: RoutingCase, result: Wait) -> bool:
    """Return whether the certificates of a lead are to be claimed now: before its award, or at once if it is nurtured.

    A nurtured lead may wait for longer than its service keeps a certificate that nobody has claimed.
    """
    if case.certificates is not CertificateStanding.pending:
        return False
    return result.reason == CERTIFICATE_PENDING or result.state is LeadState.nurturing


def new_assignment(case: RoutingCase, rules: Rules, subscription: Subscription, now: datetime) -> NewAssignment:
    """Return the assignment of the lead to an eligible subscription, to be written if the award is won at `now`."""
    if subscription.endpoint_id is None:
        raise ValueError("an eligible subscription has an active endpoint")
    definition = subscription.definition
    patience = timedelta(seconds=rules.verticals[case.vertical_id].definition.patience_seconds)
    patience_until = (case.qualified_at or now) + patience
    return NewAssignment(
        id=clock.new_id(),
        lead_id=case.lead_id,
        business_id=subscription.business_id,
        subscription_id=subscription.id,
        subscription_version=subscription.version,
        endpoint_id=subscription.endpoint_id,
        provider_id=case.provider_id,
        mode=case.mode,
        price_minor=definition.price_minor,
        payout_minor=payout_minor(rules.providers[case.provider_id].payout, definition.price_minor),
        currency=definition.currency,
        due_at=now + LEASE,
        awarded_at=now,
        hold_until=now + hold_window(subscription.hold_seconds, patience_until - now),
        window_starts=window_starts(now, definition.zone),
        lists_serial=case.lists_serial,
    )


def award_decision(
    case: RoutingCase, rules: Rules, route: Route, new: NewAssignment, losses: Mapping[UUID, Failure]
) -> Decision:
    """Return the record of a decision that awards the lead to a business."""
    matched = route.matched
    vertical = rules.verticals[case.vertical_id]
    return Decision(
        id=clock.new_id(),
        lead_id=case.lead_id,
        made_at=matched.now,
        outcome="held",
        reason=None,
        vertical_version=vertical.version,
        catalog_version=rules.version,
        strategy=vertical.definition.strategy,
        verdict=msgspec.json.encode(matched.verdict),
        candidates=msgspec.json.encode(record_candidates(route, losses, new.subscription_id)),
        left_out=matched.left_out,
        subscription_id=new.subscription_id,
        assignment_id=new.id,
        revision=case.revision,
    )


def decision_without_award(case: RoutingCase, rules: Rules, result: Wait | End) -> Decision:
    """Return the record of a decision that awards the lead to nobody."""
    vertical = rules.verticals[case.vertical_id]
    return Decision(
        id=clock.new_id(),
        lead_id=case.lead_id,
        made_at=case.read_at,
        outcome=result.outcome,
        reason=result.reason,
        vertical_version=vertical.version,
        catalog_version=rules.version,
        strategy=vertical.definition.strategy if result.candidates else None,
        verdict=msgspec.json.encode(result.verdict),
        candidates=msgspec.json.encode(result.candidates),
        left_out=result.left_out,
        revision=case.revision,
    )
