"""Decision about one lead: qualify it, match it, rank the businesses, and say what to do with it.

Two pure steps, because the second needs numbers that change with every award:

    decide(lead, vertical, version, index, now) → Matched; or Wait or End where no business has to be considered
    complete(matched, standings)                → Route; or Wait or End where nobody can have it

`standings` are the caps, wallets and credits of `matched.to_read`. `leave_open` answers for a Route whose awards were
all lost.
Everything that decides about a lead, or says how it would be decided, calls these functions: distribution, the routing
explorer, the dry run of a policy, the preview of a subscription, the provider's console and the simulated history.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, assert_never
from uuid import UUID

import msgspec

from routing.certificate import CertificateStanding, FailureConsequence
from routing.consent import is_expired
from routing.expectation import BusinessSales, LeadExpectation, return_share_of
from routing.index import SubscriptionIndex
from routing.inquiry import Facts, Mode
from routing.lifecycle import WITHDRAWN_LEAD, LeadState
from routing.matching import (
    Candidate,
    CapsAndWallet,
    Failure,
    Rule,
    apply_lists,
    check_standing,
    consider,
    earliest_retry,
    nearest_miss,
)
from routing.qualification import Nurture, Prospect, Rejection, Verdict, WaitsFor, qualify
from routing.ranking import RankedCandidate, Strategy, is_drawn, rank, recorded_credit
from routing.scorecard import BUSINESS_FEATURE, CompiledScorecard, FeatureValue, chance, feature_values, reads_business
from routing.shares import business_weights, credit_changes
from routing.subscription import Subscription, SubscriptionDefinition
from routing.vertical import VerticalDefinition

RACE_PAUSE: Final = timedelta(seconds=1)
"Time until the next decision when every award was lost to a race: the numbers are fresh by then."

WITHDRAWN: Final = "withdrawn"
"Reason of a lead whose person has asked, since it came in, not to be contacted."

CONSENT_EXPIRED: Final = "consent_expired"
"Reason of a lead whose person's consent ended before anybody was shown it."

NURTURE_ENDED: Final = "nurture_ended"
"Reason of a lead that waited for a better answer as long as its vertical allows."

ASKED_AGAIN: Final = "asked_again"
"Reason of a lead that would wait beyond its person's window, while a later inquiry of the person has that time."
CERTIFICATE_PENDING: Final = "certificate_pending"
"Reason of a lead that waits until its certificates of consent are claimed."

CERTIFICATE_FAILED: Final = "certificate_failed"
"Reason of a lead whose certificate of consent is not verified, in a vertical that insists on it."

CLAIM_LEASE: Final = timedelta(seconds=30)
"Time until the next decision about a lead whose certificates are being claimed: longer than a claim takes."

DELAYED: Final = "delayed"
"Reason of a lead that waits because it was drawn to show what speed is worth."

NO_SUBSCRIPTION: Final = "no_subscription"
"Reason of a lead that no business of its vertical could be considered for."


class OpenLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead that waits for a decision.

    `state` is received, nurturing or prospect; a prospect is not qualified again. `tried` are the businesses that have
    had their chance at it. `withdrawn`: the person has asked not to be contacted. `certificates` is the standing of its
    certificates of consent, None if it has none. `provider_id` is read by scorecards alone; None where nobody asks for
    a chance. `customers_of` are the businesses that have the person as a customer already. `lists_outdated`: a list of
    people who must not be contacted is outdated, and stops sales.
    """

    lead_id: UUID
    state: LeadState
    facts: Facts
    received_at: datetime
    qualified_at: datetime | None = None
    tried: frozenset[UUID] = frozenset()
    withdrawn: bool = False
    provider_id: UUID | None = None
    certificates: CertificateStanding | None = None
    customers_of: frozenset[UUID] = frozenset()
    lists_outdated: bool = False


class VerticalCards(msgspec.Struct, frozen=True, kw_only=True):
    """Scorecards of a vertical: one that ranks, and one that is only watched, each None if there is none.

    `sales` are those of its businesses, and `return_share` the share of all of them that was given back.
    """

    ranking: CompiledScorecard | None = None
    shadow: CompiledScorecard | None = None
    sales: Mapping[UUID, BusinessSales] = {}
    return_share: float = 0.0


def vertical_cards(
    ranking: CompiledScorecard | None, shadow: CompiledScorecard | None, sales: Mapping[UUID, BusinessSales]
) -> VerticalCards:
    """Return the scorecards of a vertical, with the share of its leads that businesses gave back."""
    return VerticalCards(ranking=ranking, shadow=shadow, sales=sales, return_share=return_share_of(sales.values()))


NO_CARDS: Final = VerticalCards()
"Scorecards of a vertical that has none: it is ranked by the terms of subscriptions alone."


class LeadChance(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Chance that a business wins a lead, by the version of a scorecard. It can be computed again from the facts."""

    card: int
    probability: float


class CandidateRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One candidate as the decision record keeps it: its position, the scores behind it, and every rule that failed.

    `among_equals` and `propensity` are those of `RankedCandidate`; records from before these fields have neither.
    `chances` are those with which the business wins the lead, for a candidate that was ranked; that of the ranking card
    first.
    """

    subscription_id: UUID
    business_id: UUID
    version: int
    price_minor: int
    position: int | None = None
    scores: tuple[tuple[str, float], ...] = ()
    tie_break: str | None = None
    among_equals: float | None = None
    propensity: float | None = None
    failures: tuple[Failure, ...] = ()
    chances: tuple[LeadChance, ...] = ()


class MatchedCandidates(msgspec.Struct, frozen=True, kw_only=True):
    """A prospect with every candidate; `eligible` are the subscriptions that may have it if caps and wallet allow.

    `near` are those that one rule alone keeps from a lead that nobody is eligible for. `left_out` counts the
    subscriptions of the vertical that were too far away to be looked at. `chances` are those of each business to win
    the lead, and `expectation` is None unless a scorecard may rank.
    """

    lead: OpenLead
    vertical: VerticalDefinition
    verdict: Verdict
    candidates: tuple[Candidate, ...]
    eligible: tuple[Subscription, ...]
    near: tuple[Subscription, ...] = ()
    left_out: int
    now: datetime
    chances: Mapping[UUID, tuple[LeadChance, ...]] = {}
    expectation: LeadExpectation | None = None

    @property
    def to_read(self) -> tuple[Subscription, ...]:
        """Subscriptions whose caps and wallets have to be read before the lead is routed or ends."""
        return self.eligible or self.near


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Award the lead to the first of `ranked` that can still have it. `matched.candidates` include caps and wallets."""

    matched: MatchedCandidates
    ranked: tuple[RankedCandidate, ...]


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Keep the lead in `state`, nurturing or prospect, and decide again at `until`, for `reason`.

    `outcome` is the word of the decision record. The person's window is extended to `protected_until`, unless it is
    None. `waits_for` says what a nurtured lead lacks.
    """

    state: LeadState
    outcome: str
    reason: str
    until: datetime
    protected_until: datetime | None = None
    waits_for: tuple[WaitsFor, ...] = ()
    verdict: Verdict
    candidates: tuple[CandidateRecord, ...] = ()
    left_out: int = 0


class End(msgspec.Struct, frozen=True, kw_only=True):
    """End the lead in `state` (rejected, expired or unsold), for `reason`: nobody is shown it."""

    state: LeadState
    reason: str
    verdict: Verdict
    candidates: tuple[CandidateRecord, ...] = ()
    left_out: int = 0

    @property
    def outcome(self) -> str:
        """The word of the decision record, which is that of the state."""
        return self.state.value


def end_for_a_later_inquiry(state: LeadState, wait: Wait) -> End:
    """Return the end of a lead that cannot wait as decided, because the person has asked again after its window."""
    return End(state=WITHDRAWN_LEAD[state], reason=ASKED_AGAIN, verdict=wait.verdict)


def decide(
    lead: OpenLead,
    vertical: VerticalDefinition,
    version: int,
    index: SubscriptionIndex,
    now: datetime,
    cards: VerticalCards = NO_CARDS,
) -> MatchedCandidates | Wait | End:
    """Qualify the lead under `version` of the vertical, and match it with the subscriptions of the index.

    The chance of each business to win it is computed by each of the vertical's `cards`.
    """
    outcome = qualify(lead.facts, vertical.needs, vertical.policy(version), now)
    if lead.withdrawn or is_expired(lead.facts.consent, now):
        reason = CONSENT_EXPIRED if is_expired(lead.facts.consent, now) else WITHDRAWN
        return End(state=WITHDRAWN_LEAD[lead.state], reason=reason, verdict=outcome.verdict)
    if lead.state is LeadState.prospect:
        outcome = Prospect(verdict=outcome.verdict)
    match outcome:
        case Prospect(verdict=verdict):
            delayed = _delay(lead, vertical, verdict, now)
            if delayed is not None:
                return delayed
            matched = _match(lead, vertical, verdict, index, now, cards)
            return _certify(lead, vertical, matched) or matched
        case Nurture():
            return _nurture(lead, vertical, outcome, now)
        case Rejection(reason=reason, verdict=verdict):
            return End(state=LeadState.rejected, reason=reason, verdict=verdict)
        case _:
            assert_never(outcome)


def complete(matched: MatchedCandidates, standings: Mapping[UUID, CapsAndWallet]) -> Route | Wait | End:
    """Apply caps and wallets, and rank the candidates that are left.

    `standings` are keyed by subscription id; a candidate without one is taken to have room and money.
    """
    subscriptions = {subscription.id: subscription for subscription in matched.to_read}
    candidates = tuple(
        _with_standing(candidate, subscriptions, standings, matched.now) for candidate in matched.candidates
    )
    definitions = {subscription.id: subscription.definition for subscription in matched.eligible}
    vertical, seed = matched.vertical, matched.lead.lead_id.bytes
    ranked = rank(
        vertical.strategy,
        candidates,
        definitions,
        standings,
        seed,
        matched.expectation,
        explore_per_mille=vertical.explore_per_mille,
    )
    route = Route(matched=msgspec.structs.replace(matched, candidates=candidates), ranked=ranked)
    return route if ranked else leave_open(route, {})


def leave_open(route: Route, losses: Mapping[UUID, Failure]) -> Wait | End:
    """Keep a lead that no business can have now until one may have it, within the vertical's patience, or end it.

    `losses` are the conditions of lost awards by subscription id. If there are any, the lead is decided about again at
    once, even beyond its patience.
    """
    matched = route.matched
    now = matched.now
    deadline = (matched.lead.qualified_at or now) + timedelta(seconds=matched.vertical.patience_seconds)
    until = now + RACE_PAUSE if losses else earliest_retry(matched.candidates, now, deadline)
    reason = _open_reason(matched.candidates, losses)
    candidates = record_candidates(route, losses)
    if until is None:
        return End(
            state=LeadState.unsold,
            reason=reason,
            verdict=matched.verdict,
            candidates=candidates,
            left_out=matched.left_out,
        )
    return Wait(
        state=LeadState.prospect,
        outcome="waiting",
        reason=reason,
        until=until,
        verdict=matched.verdict,
        candidates=candidates,
        left_out=matched.left_out,
    )


def record_candidates(
    route: Route, losses: Mapping[UUID, Failure], winner: UUID | None = None
) -> tuple[CandidateRecord, ...]:
    """Return every candidate as the decision record keeps it: the ranked ones in their order, then the others by id.

    A ranked candidate carries what its award was lost to, or that `winner` outranked it.
    """
    places = {ranked.candidate.subscription_id: ranked for ranked in route.ranked}
    records = []
    for candidate in route.matched.candidates:
        place = places.get(candidate.subscription_id)
        failures = candidate.failures
        if candidate.subscription_id in losses:
            failures = (losses[candidate.subscription_id],)
        elif place is not None and candidate.subscription_id != winner:
            detail = f"ranked {place.position} of {len(route.ranked)}"
            failures = (Failure(rule=Rule.outranked, detail=detail, distance=place.position - 1, unit="places"),)
        chances = route.matched.chances.get(candidate.business_id, ())
        records.append(_record(candidate, place, failures, chances))
    return tuple(sorted(records, key=lambda row: (row.position is None, row.position or 0, row.subscription_id)))


def award_credits(route: Route, losses: Container[UUID], winner: UUID) -> dict[UUID, int] | None:
    """Return by how much an award to the subscription `winner` changes the credit of each business, in billionths.

    None if the vertical's strategy does not rank by credit. `losses` are the subscriptions that turned out not to be
    able to have the lead: their businesses have no part in it.
    """
    if route.matched.vertical.strategy is not Strategy.fair:
        return None
    definitions = {subscription.id: subscription.definition for subscription in route.matched.eligible}
    able = [ranked.candidate for ranked in route.ranked if ranked.candidate.subscription_id not in losses]
    weights = business_weights((candidate.business_id, definitions[candidate.subscription_id]) for candidate in able)
    business_id = next(candidate.business_id for candidate in able if candidate.subscription_id == winner)
    return credit_changes(weights, business_id)


def restore_credits(
    standings: Mapping[UUID, CapsAndWallet], records: Iterable[CandidateRecord]
) -> dict[UUID, CapsAndWallet]:
    """Return the standings with the credits that the records were ranked by, where they have any."""
    restored = dict(standings)
    for record in records:
        credit = recorded_credit(record.scores)
        if credit is not None and record.subscription_id in restored:
            standing = restored[record.subscription_id]
            restored[record.subscription_id] = msgspec.structs.replace(standing, share_credit=credit)
    return restored


def rank_recorded(
    strategy: Strategy,
    records: Iterable[CandidateRecord],
    definitions: Mapping[UUID, SubscriptionDefinition],
    standings: Mapping[UUID, CapsAndWallet],
    lead_id: UUID,
) -> tuple[RankedCandidate, ...]:
    """Rank again recorded candidates that could have had the lead; caps and wallets stay as the record found them.

    The order is that of the strategy, without exploration.
    """
    eligible = (msgspec.structs.replace(_candidate(record), failures=()) for record in records)
    return rank(strategy, eligible, definitions, standings, lead_id.bytes)


def recorded_chances(records: Iterable[CandidateRecord], winner: UUID | None = None) -> tuple[LeadChance, ...]:
    """Return the chances of the subscription `winner` to win the lead, or of the first in the order without a winner.

    None are returned if no scorecard was computed.
    """
    ranked = [record for record in records if record.chances]
    own = (record.chances for record in ranked if record.subscription_id == winner)
    return next(own, ranked[0].chances if ranked else ())


def nearest_recorded(records: Iterable[CandidateRecord], reason: str | None = None) -> CandidateRecord | None:
    """Return the recorded candidate that came closest without being eligible, or None if there is none.

    Those whose first failure is `reason` come before all others: a lost award is nearer than any miss.
    """
    failed = {record.subscription_id: record for record in records if record.failures}
    named = [record for record in failed.values() if record.failures[0].rule == reason]
    miss = nearest_miss(map(_candidate, named or failed.values()))
    return failed[miss.subscription_id] if miss else None


def _delay(lead: OpenLead, vertical: VerticalDefinition, verdict: Verdict, now: datetime) -> Wait | None:
    """Keep a live lead back until `delay_seconds` after it was qualified if it is drawn for that; None if it is not."""
    until = (lead.qualified_at or now) + timedelta(seconds=vertical.delay_seconds)
    drawn = is_drawn(b"delay", lead.lead_id.bytes, vertical.delay_per_mille)
    if not drawn or lead.facts.mode is not Mode.live or now >= until:
        return None
    return Wait(state=LeadState.prospect, outcome="waiting", reason=DELAYED, until=until, verdict=verdict)


def _certify(lead: OpenLead, vertical: VerticalDefinition, matched: MatchedCandidates) -> Wait | End | None:
    """End a lead whose certificates failed, or let it wait for their claim; None if nothing stands in its way.

    A claim costs the operator money, so that it is made only for a lead that a business could have.
    """
    if lead.certificates is CertificateStanding.failed:
        if vertical.certificate.on_failure is FailureConsequence.accept_with_flag:
            return None
        return End(state=WITHDRAWN_LEAD[lead.state], reason=CERTIFICATE_FAILED, verdict=matched.verdict)
    if lead.certificates is CertificateStanding.pending and matched.eligible:
        until = matched.now + CLAIM_LEASE
        return Wait(
            state=LeadState.prospect,
            outcome="waiting",
            reason=CERTIFICATE_PENDING,
            until=until,
            verdict=matched.verdict,
        )
    return None


def _match(
    lead: OpenLead,
    vertical: VerticalDefinition,
    verdict: Verdict,
    index: SubscriptionIndex,
    now: datetime,
    cards: VerticalCards,
) -> MatchedCandidates:
    considered = consider(index, lead.facts, verdict, now, lead.tried, vertical.consent, vertical.price_range)
    considered = apply_lists(considered, lead.customers_of, now, outdated=lead.lists_outdated)
    chances = chances_of(lead, cards, {subscription.business_id for subscription in considered.eligible})
    expectation = None
    if chances and cards.ranking is not None:
        probabilities = {business_id: own[0].probability for business_id, own in chances.items()}
        expectation = LeadExpectation(probabilities=probabilities, sales=cards.sales, return_share=cards.return_share)
    return MatchedCandidates(
        lead=lead,
        vertical=vertical,
        verdict=verdict,
        candidates=considered.candidates,
        eligible=considered.eligible,
        near=considered.near,
        left_out=considered.left_out,
        now=now,
        chances=chances,
        expectation=expectation,
    )


def chances_of(
    lead: OpenLead, cards: VerticalCards, business_ids: Iterable[UUID]
) -> dict[UUID, tuple[LeadChance, ...]]:
    """Return the chances of each business to win the lead, that of the ranking card first.

    None are returned without cards or without the lead's provider.
    """
    compiled = [card for card in (cards.ranking, cards.shadow) if card is not None]
    if not compiled or lead.provider_id is None:
        return {}
    values = feature_values(lead.facts, provider=str(lead.provider_id))
    if not any(reads_business(card) for card in compiled):
        return dict.fromkeys(business_ids, _chances(compiled, values))
    return {
        business_id: _chances(compiled, values | {BUSINESS_FEATURE: str(business_id)}) for business_id in business_ids
    }


def _chances(cards: Iterable[CompiledScorecard], values: Mapping[str, FeatureValue]) -> tuple[LeadChance, ...]:
    return tuple(
        LeadChance(card=card.card.version, probability=round(chance(card, values).probability, 6)) for card in cards
    )


def _nurture(lead: OpenLead, vertical: VerticalDefinition, outcome: Nurture, now: datetime) -> Wait | End:
    """Wait for what the lead lacks, or end it if its time to wait is over.

    A lead that was nurtured already expires if the date that the person named is too far away by now.
    """
    if outcome.until <= now:
        return End(state=WITHDRAWN_LEAD[lead.state], reason=NURTURE_ENDED, verdict=outcome.verdict)
    limit = lead.received_at + vertical.policy(0).longest_wait
    is_late = outcome.starts_at is not None and outcome.starts_at > limit
    if lead.state is LeadState.nurturing and is_late:
        return End(state=LeadState.expired, reason=outcome.why, verdict=outcome.verdict)
    return Wait(
        state=LeadState.nurturing,
        outcome="nurturing",
        reason=outcome.why,
        until=outcome.until,
        protected_until=outcome.until + timedelta(days=vertical.window_days),
        waits_for=outcome.waits_for,
        verdict=outcome.verdict,
    )


def _with_standing(
    candidate: Candidate,
    subscriptions: Mapping[UUID, Subscription],
    standings: Mapping[UUID, CapsAndWallet],
    now: datetime,
) -> Candidate:
    """Return the candidate with the failures of its caps and wallet, if these were to be read and are there."""
    subscription, standing = subscriptions.get(candidate.subscription_id), standings.get(candidate.subscription_id)
    if subscription is None or standing is None:
        return candidate
    return check_standing(subscription, candidate, standing, now)


def _open_reason(candidates: Sequence[Candidate], losses: Mapping[UUID, Failure]) -> str:
    """Return the rule of the first lost award, else the first failed rule of the nearest miss.

    Its provider reads it, so that it never says whose customer the person is.
    """
    for failure in losses.values():
        if failure.rule is not Rule.own_customer:
            return failure.rule
    miss = nearest_miss(candidates)
    return miss.failures[0].rule if miss else NO_SUBSCRIPTION


def _candidate(record: CandidateRecord) -> Candidate:
    """Its endpoint is not on record."""
    return Candidate(
        subscription_id=record.subscription_id,
        business_id=record.business_id,
        endpoint_id=None,
        version=record.version,
        price_minor=record.price_minor,
        failures=record.failures,
    )


def _record(
    candidate: Candidate, place: RankedCandidate | None, failures: tuple[Failure, ...], chances: tuple[LeadChance, ...]
) -> CandidateRecord:
    return CandidateRecord(
        subscription_id=candidate.subscription_id,
        business_id=candidate.business_id,
        version=candidate.version,
        price_minor=candidate.price_minor,
        position=place.position if place else None,
        scores=place.scores if place else (),
        tie_break=place.tie_break if place else None,
        among_equals=round(place.among_equals, 6) if place else None,
        propensity=round(place.propensity, 6) if place else None,
        failures=failures,
        chances=chances if place else (),
    )
