"""Stage 2: from an accepted lead to the one business that may have it, or to the reason why nobody does.

    load the case (no lock) → qualify → match → rank (pure, one straight line)
    → one statement: lock lead, subscription, wallet (in order), every condition again → assignment, hold, decision

Ranking over many subscriptions needs no lock; spending money does. The index is never trusted with either.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, assert_never
from uuid import UUID

import msgspec

from billing.pricing import payout_minor
from marketplace import clock, failpoints
from marketplace.catalog import Catalog, Rules, Vertical
from marketplace.db import Pool, session
from marketplace.distribution import store
from marketplace.distribution.store import Case, Claim, Decision, NewAssignment
from routing.awarding import Loss, award
from routing.calendar import window_starts
from routing.delivery import HOLD_WINDOW
from routing.lifecycle import WAITING_LEAD, WITHDRAWN_LEAD, LeadState
from routing.matching import (
    Candidate,
    Considered,
    Failure,
    Rule,
    Standing,
    check_standing,
    consider,
    earliest_retry,
    nearest_miss,
)
from routing.qualification import Nurture, Prospect, Rejection, Verdict, qualify
from routing.ranking import Ranked, rank
from routing.subscription import Subscription

MOST_AWARD_TRIES: Final = 8
"Candidates tried under lock for one decision: more than a few lost races in a row mean that the numbers are stale."

AWARDS_AT_ONCE: Final = 4
"""Of one process. Leads that all want the same business wait for its lock one behind the other; if each waited with a
connection in hand, none would be left to expose and settle."""

LEASE: Final = timedelta(seconds=30)
"Whoever takes up work has this long before somebody else may: longer than a whole attempt, short after a crash."

RACE_PAUSE: Final = timedelta(seconds=1)
"When every candidate was lost to a race, look again this much later, with fresh numbers."


LOST_TO: Final = {
    Claim.withdrawn: Rule.withdrawn,
    Claim.unfunded: Rule.wallet_race,
    Claim.capped: Rule.cap_race,
}
"The rule by which an award is recorded as lost when what it was lost to has passed."

HELD: Final = frozenset({LeadState.held})

WITHDRAWN: Final = "withdrawn"
"The reason of a lead whose person has asked, since it came in, not to be contacted."


class Weighed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One candidate as the decision record keeps it: its place, the scores that gave it, and every rule that failed."""

    subscription_id: UUID
    business_id: UUID
    version: int
    price_minor: int
    position: int | None = None
    scores: tuple[tuple[str, float], ...] = ()
    tie_break: str | None = None
    failures: tuple[Failure, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the pure rules say, before anything is locked."""

    case: Case
    rules: Rules
    vertical: Vertical
    verdict: Verdict
    considered: Considered
    ranked: tuple[Ranked, ...]
    now: datetime


class Distribution:
    """Gives a lead to at most one business. Every call may be repeated: it looks at the lead's state first."""

    def __init__(self, pool: Pool, catalog: Catalog) -> None:
        self._pool = pool
        self._catalog = catalog
        self._awarding = asyncio.Semaphore(AWARDS_AT_ONCE)

    async def distribute(self, lead_id: UUID) -> UUID | None:
        """Decides about one lead. The id of the assignment to deliver now, or None when there is nothing to deliver."""
        async with session(self._pool) as connection:
            case = await store.find_case(connection, lead_id)
        if case is None or case.state not in WAITING_LEAD:
            return None
        now = case.read_at
        rules = await self._catalog.at_least(case.catalog_version)
        vertical = rules.verticals[case.vertical_id]
        outcome = qualify(case.facts, vertical.definition.needs, vertical.definition.policy(vertical.version), now)
        if case.withdrawn:
            await self._withdraw(case, rules, vertical, outcome.verdict, now)
            return None
        if case.state is LeadState.prospect:
            outcome = Prospect(verdict=outcome.verdict)  # once a prospect, only its routing is open
        match outcome:
            case Prospect(verdict=verdict):
                assignment_id = await self._route(case, rules, vertical, verdict, now)
                await failpoints.reach("after_award_commit")
                return assignment_id
            case Nurture():
                await self._nurture(case, rules, vertical, outcome, now)
            case Rejection(reason=reason, verdict=verdict):
                decision = new_decision(case, rules, vertical, verdict, now, outcome="rejected", reason=reason)
                await self._end(case, LeadState.rejected, decision)
            case _:
                assert_never(outcome)
        return None

    async def _route(
        self, case: Case, rules: Rules, vertical: Vertical, verdict: Verdict, now: datetime
    ) -> UUID | None:
        considered = consider(rules.index, case.facts, verdict, now, case.tried)
        asked = eligible(rules, considered)
        standings: dict[UUID, Standing] = {}
        if asked:
            async with session(self._pool) as connection:
                standings = await store.list_standings(connection, asked, now)
        plan = plan_route(case, rules, vertical, verdict, considered, standings, now)
        return await self._award(plan)

    async def _award(self, plan: Plan) -> UUID | None:
        """The first ranked candidate that still stands on the locked rows gets the lead.

        Each is asked in a transaction of its own. Two awards that kept the locks of those they lost, and asked in
        another order, would wait for each other in a circle.
        """
        losses: dict[UUID, Failure] = {}
        await failpoints.reach("before_award")
        for ranked in plan.ranked[:MOST_AWARD_TRIES]:
            candidate = ranked.candidate
            new = new_assignment(plan, candidate)
            claim = await self._claim(plan, new, losses)
            if claim is Claim.won:
                return new.id
            if claim is Claim.moved:
                return None
            losses[candidate.subscription_id] = await self._why_lost(plan, candidate, claim)
        await self._leave_open(plan, losses)
        return None

    async def _claim(self, plan: Plan, new: NewAssignment, losses: Mapping[UUID, Failure]) -> Claim:
        decision = new_decision(
            plan.case, plan.rules, plan.vertical, plan.verdict, plan.now, outcome="held",
            weighed=weigh(plan, losses, new.subscription_id), left_out=plan.considered.left_out,
            subscription_id=new.subscription_id, assignment_id=new.id,
        )  # fmt: skip
        expected = tuple(WAITING_LEAD | HELD) if failpoints.ignored("lead_lock") else (plan.case.state,)
        covered = new.mode == "test" or failpoints.ignored("wallet_check")
        caps = plan.rules.subscriptions[new.subscription_id].definition.caps
        async with self._awarding, session(self._pool) as connection:
            claiming = store.award(
                connection, new, caps, decision, expected=expected, cover_minor=None if covered else new.price_minor
            )
            return await failpoints.amid("amid_award", claiming, connection)

    async def _why_lost(self, plan: Plan, candidate: Candidate, claim: Claim) -> Failure:
        """The condition that no longer holds; one that holds again by now is named all the same."""
        async with session(self._pool) as connection:
            terms = await store.find_terms(connection, plan.rules.subscriptions[candidate.subscription_id], plan.now)
        loss = award(candidate, terms, plan.case.facts.mode, plan.now)
        if isinstance(loss, Loss):
            return Failure(rule=loss.rule, detail=loss.detail, distance=loss.distance)
        return Failure(rule=LOST_TO[claim], detail="lost in the moment of the award")

    async def _leave_open(self, plan: Plan, losses: Mapping[UUID, Failure]) -> None:
        """Nobody can take it now: it waits for somebody who soon can, or ends unsold."""
        case, now = plan.case, plan.now
        patience = timedelta(seconds=plan.vertical.definition.patience_seconds)
        deadline = (case.qualified_at or now) + patience
        again_at = now + RACE_PAUSE if losses else earliest_retry(plan.considered.candidates, now, deadline)
        waits = again_at is not None and (again_at <= deadline or bool(losses))
        decision = new_decision(
            case, plan.rules, plan.vertical, plan.verdict, now, outcome="waiting" if waits else "unsold",
            reason=why_open(plan.considered.candidates, losses), weighed=weigh(plan, losses, None),
            left_out=plan.considered.left_out,
        )  # fmt: skip
        if waits and again_at is not None:
            async with session(self._pool) as connection:
                await store.keep_lead(connection, case, LeadState.prospect, again_at, decision)
        else:
            await self._end(case, LeadState.unsold, decision)

    async def _nurture(self, case: Case, rules: Rules, vertical: Vertical, outcome: Nurture, now: datetime) -> None:
        """Waits for its date, the person protected until a window after it. Still too early on that date: expired."""
        limit = case.received_at + timedelta(days=vertical.definition.timing.nurture_limit_days)
        if case.state is LeadState.nurturing and outcome.until > limit:
            decision = new_decision(case, rules, vertical, outcome.verdict, now, outcome="expired", reason=outcome.why)
            await self._end(case, LeadState.expired, decision)
            return
        decision = new_decision(case, rules, vertical, outcome.verdict, now, outcome="nurturing", reason=outcome.why)
        protected_until = outcome.until + timedelta(days=vertical.definition.window_days)
        async with session(self._pool) as connection:
            await store.keep_lead(connection, case, LeadState.nurturing, outcome.until, decision, protected_until)

    async def _withdraw(self, case: Case, rules: Rules, vertical: Vertical, verdict: Verdict, now: datetime) -> None:
        """The person asked not to be contacted while the lead was open: nobody gets it."""
        state = WITHDRAWN_LEAD[case.state]
        await self._end(case, state, new_decision(case, rules, vertical, verdict, now, outcome=state, reason=WITHDRAWN))

    async def _end(self, case: Case, state: LeadState, decision: Decision) -> None:
        async with session(self._pool) as connection:
            await store.end_lead(connection, case, state, decision)


def eligible(rules: Rules, considered: Considered) -> tuple[Subscription, ...]:
    """Those whose caps and wallet are still to be asked for."""
    return tuple(
        rules.subscriptions[candidate.subscription_id] for candidate in considered.candidates if not candidate.failures
    )


def plan_route(
    case: Case, rules: Rules, vertical: Vertical, verdict: Verdict, considered: Considered,
    standings: Mapping[UUID, Standing], now: datetime,
) -> Plan:  # fmt: skip
    """Who may have it and in which order, once it is known how caps and wallets stand. Pure: the same on a replay."""
    checked = tuple(with_standing(candidate, rules, standings, now) for candidate in considered.candidates)
    definitions = {subscription.id: subscription.definition for subscription in eligible(rules, considered)}
    return Plan(
        case=case,
        rules=rules,
        vertical=vertical,
        verdict=verdict,
        considered=Considered(candidates=checked, left_out=considered.left_out),
        ranked=rank(vertical.definition.strategy, checked, definitions, standings, case.lead_id.bytes),
        now=now,
    )


def with_standing(candidate: Candidate, rules: Rules, standings: Mapping[UUID, Standing], now: datetime) -> Candidate:
    standing = standings.get(candidate.subscription_id)
    if candidate.failures or standing is None:
        return candidate
    return check_standing(rules.subscriptions[candidate.subscription_id], candidate, standing, now)


def why_open(candidates: Sequence[Candidate], losses: Mapping[UUID, Failure]) -> str:
    """The first race lost, else the nearest miss's first failing rule."""
    for failure in losses.values():
        return failure.rule
    miss = nearest_miss(candidates)
    return miss.failures[0].rule if miss else "no_subscription"


def weigh(plan: Plan, losses: Mapping[UUID, Failure], winner: UUID | None) -> tuple[Weighed, ...]:
    """All candidates as the record keeps them: those ranked first, in their order, then all others."""
    places = {ranked.candidate.subscription_id: ranked for ranked in plan.ranked}
    rows = []
    for candidate in plan.considered.candidates:
        place = places.get(candidate.subscription_id)
        failures = candidate.failures
        if candidate.subscription_id in losses:
            failures = (losses[candidate.subscription_id],)
        elif place is not None and candidate.subscription_id != winner:
            detail = f"ranked {place.position} of {len(plan.ranked)}"
            failures = (Failure(rule=Rule.outranked, detail=detail, distance=place.position - 1, unit="places"),)
        rows.append(Weighed(
            subscription_id=candidate.subscription_id, business_id=candidate.business_id, version=candidate.version,
            price_minor=candidate.price_minor, position=place.position if place else None,
            scores=place.scores if place else (), tie_break=place.tie_break if place else None, failures=failures,
        ))  # fmt: skip
    return tuple(sorted(rows, key=lambda row: (row.position is None, row.position or 0, row.subscription_id)))


def new_assignment(plan: Plan, candidate: Candidate) -> NewAssignment:
    if candidate.endpoint_id is None:
        raise ValueError("an eligible candidate has an active endpoint")
    case, now = plan.case, plan.now
    definition = plan.rules.subscriptions[candidate.subscription_id].definition
    return NewAssignment(
        id=clock.new_id(),
        lead_id=case.lead_id,
        business_id=candidate.business_id,
        subscription_id=candidate.subscription_id,
        subscription_version=candidate.version,
        endpoint_id=candidate.endpoint_id,
        provider_id=case.provider_id,
        mode=case.mode,
        price_minor=candidate.price_minor,
        payout_minor=payout_minor(plan.rules.providers[case.provider_id].payout, candidate.price_minor),
        currency=definition.currency,
        due_at=now + LEASE,
        awarded_at=now,
        hold_until=now + HOLD_WINDOW,
        window_starts=window_starts(now, definition.zone),
    )


def new_decision(
    case: Case, rules: Rules, vertical: Vertical, verdict: Verdict, now: datetime, *, outcome: str,
    reason: str | None = None, weighed: Sequence[Weighed] = (), left_out: int = 0, subscription_id: UUID | None = None,
    assignment_id: UUID | None = None,
) -> Decision:  # fmt: skip
    return Decision(
        id=clock.new_id(),
        lead_id=case.lead_id,
        made_at=now,
        outcome=outcome,
        reason=reason,
        vertical_version=vertical.version,
        catalog_version=rules.version,
        strategy=vertical.definition.strategy if weighed else None,
        verdict=msgspec.json.encode(verdict),
        candidates=msgspec.json.encode(weighed),
        left_out=left_out,
        subscription_id=subscription_id,
        assignment_id=assignment_id,
    )
