"""Simulation of the history, lead by lead, by the rules in force.

Time, top-ups, caps, servers and people are simulated. Every decision is made by the live code: `read_inquiry`,
`decide` and `complete`, with the decision record of distribution.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, assert_never
from uuid import UUID

import msgspec

from marketplace.demo.history.endpoints import SimulatedDelivery, SimulatedEndpoint
from marketplace.demo.history.outcomes import POOR_WIN_SHARE, LeadFeedback, SalesTeam
from marketplace.demo.people import DraftKind, InquiryDraft
from marketplace.demo.world import DemoBusiness
from marketplace.distribution.flow import award_decision, decision_without_award, new_assignment
from marketplace.distribution.store import Decision, NewAssignment, RoutingCase
from marketplace.intake.flow import WINDOW_SLACK
from marketplace.intake.postal import PostalArea, postal_key
from marketplace.intake.reading import AcceptedInquiry, decode_inquiry, read_inquiry
from marketplace.intake.shapes import ContactBody
from marketplace.rules.catalog import Rules
from marketplace.runtime import clock
from marketplace.runtime.clock import seeded
from marketplace.text.faults import Fault
from routing.calendar import CapWindow, window_starts
from routing.decision import End, MatchedCandidates, Route, Wait, award_credits, complete, decide
from routing.delivery import EVIDENCE_WINDOW
from routing.inquiry import Mode
from routing.lifecycle import AssignmentState, LeadState
from routing.matching import CapsAndWallet, SubscriptionIndex, Usage

MARK: Final = {"demo_history": "1"}
"""Sub-id of every inquiry of the history."""
SHORTAGE_LEADS: Final = 5
"""Number of leads below which a wallet is low: the business then tops up for TOP_UP_LEADS more."""
TOP_UP_LEADS: Final = 25
POOR_TOP_UP: Final = timedelta(days=9)
"""Time between two payments of a business that pays for a few leads at a time."""


class SimulatedSale(msgspec.Struct, frozen=True, kw_only=True):
    """One award with its delivery and its outcome."""

    new: NewAssignment
    delivery: SimulatedDelivery
    outcome: LeadFeedback = LeadFeedback()

    @property
    def state(self) -> AssignmentState:
        """State of the assignment at the end of the history."""
        given_back = self.outcome.given_back
        return AssignmentState.returned if given_back and given_back.granted_at else self.delivery.state


class SimulatedWalk(msgspec.Struct, frozen=True, kw_only=True):
    """One lead, from its inquiry to its state at the end of the history."""

    lead_id: UUID
    number: int
    provider_id: UUID
    vertical_id: UUID
    request_sha256: bytes
    accepted: AcceptedInquiry
    received_at: datetime
    state: LeadState
    reason: str | None = None
    waits_for: tuple[str, ...] = ()
    due_at: datetime | None = None
    qualified_at: datetime | None = None
    settled_at: datetime | None = None
    protected_until: datetime | None = None
    decisions: tuple[Decision, ...] = ()
    sales: tuple[SimulatedSale, ...] = ()


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """A top-up."""

    business_id: UUID
    amount_minor: int
    made_at: datetime


class SimulatedHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a simulation. Refusals are counted by provider, hour, pointer and code, usage by window."""

    walks: tuple[SimulatedWalk, ...]
    payments: tuple[Payment, ...]
    balances: dict[UUID, int]
    usage: dict[tuple[UUID, CapWindow, datetime], Usage]
    refusals: Counter[tuple[UUID, datetime, str, str]]


class SubscriptionPause(msgspec.Struct, frozen=True, kw_only=True):
    """Time from which a subscription is paused."""

    subscription_id: UUID
    since: datetime


class Simulation:
    """Simulates the history of one marketplace by its `rules`. `businesses` are by id, `areas` by postal code.

    Leads of the provider `poor` are won more seldom than others.
    """

    def __init__(
        self,
        rules: Rules,
        businesses: Mapping[UUID, DemoBusiness],
        areas: Mapping[str, PostalArea],
        pauses: Iterable[SubscriptionPause],
        seed: int,
        until: datetime,
        poor: UUID | None = None,
    ) -> None:
        self._poor = poor
        self._rules = msgspec.structs.replace(rules, index=SubscriptionIndex(rules.index.values()))
        self._businesses = businesses
        self._areas = areas
        self._pauses = sorted(pauses, key=lambda pause: pause.since, reverse=True)
        self._until = until
        self._random = seeded(f"history {seed}")
        self._by_business = {subscription.business_id: subscription for subscription in rules.index.values()}
        self._endpoints = {
            key: SimulatedEndpoint(self._random, business.behaviour) for key, business in businesses.items()
        }
        self.crews = {
            key: SalesTeam(self._random, business, business.vertical, until) for key, business in businesses.items()
        }
        self._balances = dict.fromkeys(businesses, 0)
        self._usage: dict[tuple[UUID, CapWindow, datetime], Usage] = {}
        self._credits: Counter[UUID] = Counter()
        self._persons: dict[tuple[str, str], datetime] = {}
        self._events: list[tuple[datetime, int, UUID, int, bool]] = []
        self._nurtured: list[tuple[datetime, int]] = []
        self._walks: list[SimulatedWalk] = []
        self._topping_up: set[UUID] = set()
        self._payments: list[Payment] = []
        self._refusals: Counter[tuple[UUID, datetime, str, str]] = Counter()

    def run(
        self, drafts: Iterable[tuple[datetime, InquiryDraft]], providers: tuple[UUID, ...], since: datetime
    ) -> SimulatedHistory:
        """Simulate all drafts, each at its time, in order."""
        for business_id in self._businesses:
            self._top_up(business_id, since)
        for at, draft in drafts:
            self._decide_again(at)
            self._catch_up(at)
            if draft.kind is not DraftKind.repeated and (walk := self._accept(draft, at, providers[draft.provider])):
                self._walks.append(walk)
                self._wait(walk, len(self._walks) - 1)
        self._decide_again(self._until)
        self._catch_up(self._until)
        return SimulatedHistory(
            walks=tuple(self._walks),
            payments=tuple(self._payments),
            balances=self._balances,
            usage=self._usage,
            refusals=self._refusals,
        )

    # Time and money.

    def _catch_up(self, now: datetime) -> None:
        """Apply the events that are due by now: payments, refunds, releases and pauses."""
        while self._events and self._events[0][0] <= now:
            at, _order, business_id, amount_minor, paid = heapq.heappop(self._events)
            self._balances[business_id] += amount_minor
            if paid:
                self._topping_up.discard(business_id)
                self._payments.append(Payment(business_id=business_id, amount_minor=amount_minor, made_at=at))
        while self._pauses and self._pauses[-1].since <= now:
            self._pause(self._pauses.pop().subscription_id)

    def _decide_again(self, now: datetime) -> None:
        """Qualify nurtured leads again that are due by now."""
        while self._nurtured and self._nurtured[0][0] <= now:
            due_at, place = heapq.heappop(self._nurtured)
            self._catch_up(due_at)
            lead = msgspec.structs.replace(self._walks[place], due_at=None, reason=None)
            self._walks[place] = self._decide(lead, due_at)
            self._wait(self._walks[place], place)

    def _wait(self, walk: SimulatedWalk, place: int) -> None:
        if walk.due_at is not None and walk.due_at < self._until:
            heapq.heappush(self._nurtured, (walk.due_at, place))

    def _expect(self, at: datetime, business_id: UUID, amount_minor: int, *, paid: bool = False) -> None:
        if at < self._until:
            heapq.heappush(self._events, (at, len(self._events), business_id, amount_minor, paid))

    def _pause(self, subscription_id: UUID) -> None:
        index = self._rules.index
        index.put(msgspec.structs.replace(index[subscription_id], paused=True))

    def _top_up(self, business_id: UUID, at: datetime) -> None:
        """Schedule one payment per shortage; a business that pays for a few leads at a time pays later."""
        if business_id in self._topping_up:
            return
        self._topping_up.add(business_id)
        business = self._businesses[business_id]
        leads, delay = TOP_UP_LEADS, timedelta(minutes=self._random.uniform(3, 90))
        if business.funded_leads is not None:
            leads, delay = 2 * business.funded_leads, POOR_TOP_UP * self._random.uniform(0.6, 1.2)
        if at + delay >= self._until:
            self._topping_up.discard(business_id)
        self._expect(at + delay, business_id, leads * business.definition.price_minor, paid=True)

    # Stage 1.

    def _accept(self, draft: InquiryDraft, submitted_at: datetime, provider_id: UUID) -> SimulatedWalk | None:
        """Return the lead of an inquiry, or None if the inquiry was refused with faults."""
        now = submitted_at + timedelta(seconds=self._random.uniform(0.3, 2.5))
        raw = draft.body(submitted_at)
        body = decode_inquiry(raw)
        if isinstance(body, tuple):
            raise ValueError(f"an invented inquiry is malformed: {body}")
        vertical = self._rules.by_slug[draft.vertical]
        rules, area = vertical.definition.intake_rules(vertical.slug), self._find_area(body.contact)
        accepted = read_inquiry(body, rules, area, mode=Mode.live, now=now)
        if isinstance(accepted, tuple):
            self._refuse(accepted, provider_id, now)
            return None
        marked = {"ad": f"ad-{draft.number % 7}", **MARK}
        facts = msgspec.structs.replace(accepted.facts, sub_ids=marked)
        walk = SimulatedWalk(
            lead_id=clock.id_at(now, self._random),
            number=draft.number,
            provider_id=provider_id,
            vertical_id=vertical.id,
            request_sha256=sha256(raw).digest(),
            accepted=msgspec.structs.replace(accepted, facts=facts),
            received_at=now,
            state=LeadState.received,
            protected_until=now + timedelta(days=vertical.definition.window_days) + WINDOW_SLACK,
        )
        if any(now < self._persons.get((facts.vertical, person), now) for person in accepted.fingerprints):
            return msgspec.structs.replace(walk, state=LeadState.duplicate, settled_at=now, protected_until=None)
        walk = self._decide(walk, now)
        for person in accepted.fingerprints if walk.protected_until else ():
            self._persons[facts.vertical, person] = walk.protected_until or now
        return walk

    def _find_area(self, contact: ContactBody) -> PostalArea | None:
        if not contact.postal_code:
            return None
        return self._areas.get(postal_key(contact.country.upper(), contact.postal_code)[1])

    def _refuse(self, faults: Iterable[Fault], provider_id: UUID, now: datetime) -> None:
        hour = now.replace(minute=0, second=0, microsecond=0)
        for pointer, code in {("*", "refused"), *((fault.pointer, str(fault.code)) for fault in faults)}:
            self._refusals[provider_id, hour, pointer, code] += 1

    # Stage 2.

    def _decide(self, walk: SimulatedWalk, at: datetime) -> SimulatedWalk:
        """Decide as distribution does, business after business, until one was shown the lead or nobody is left."""
        now = at + timedelta(milliseconds=self._random.uniform(6, 24))
        while True:
            case = self._case(walk, now)
            result = self._result(case)
            if not isinstance(result, Route):
                return _unsold(walk, result, decision_without_award(case, self._rules, result))
            walk = msgspec.structs.replace(walk, qualified_at=walk.qualified_at or now)
            subscription = self._rules.index[result.ranked[0].candidate.subscription_id]
            assignment = new_assignment(case, self._rules, subscription, now)
            assignment = msgspec.structs.replace(assignment, id=clock.id_at(now, self._random))
            sale = self._sell(assignment, walk)
            walk = _sold(walk, sale, award_decision(case, self._rules, result, assignment, {}))
            if sale.state is not AssignmentState.released:
                self._credits.update(award_credits(result, (), subscription.id) or {})
                return walk
            now = sale.delivery.settled_at + timedelta(milliseconds=self._random.uniform(5, 20))

    def _case(self, walk: SimulatedWalk, now: datetime) -> RoutingCase:
        return RoutingCase(
            lead_id=walk.lead_id,
            state=walk.state,
            due_at=now,
            received_at=walk.received_at,
            qualified_at=walk.qualified_at,
            provider_id=walk.provider_id,
            vertical_id=walk.vertical_id,
            mode=Mode.live,
            facts=walk.accepted.facts,
            revision=0,
            tried=frozenset(sale.new.business_id for sale in walk.sales),
            catalog_version=self._rules.version,
            withdrawn=False,
            read_at=now,
        )

    def _result(self, case: RoutingCase) -> Route | Wait | End:
        vertical = self._rules.verticals[case.vertical_id]
        result = decide(case, vertical.definition, vertical.version, self._rules.index, case.read_at, vertical.cards)
        if not isinstance(result, MatchedCandidates):
            return result
        standings = {
            subscription.id: self._standing(subscription.id, subscription.business_id, case.read_at)
            for subscription in result.to_read
        }
        return complete(result, standings)

    def _standing(self, subscription_id: UUID, business_id: UUID, now: datetime) -> CapsAndWallet:
        starts = window_starts(now, self._rules.index[subscription_id].definition.zone)
        keys = ((window, (subscription_id, window, start)) for window, start in starts.items())
        return CapsAndWallet(
            usage={window: self._usage[key] for window, key in keys if key in self._usage},
            available_minor=self._balances[business_id],
            share_credit=self._credits[business_id],
        )

    # Stages 3 and 4.

    def _sell(self, new: NewAssignment, walk: SimulatedWalk) -> SimulatedSale:
        delivery = self._endpoints[new.business_id].deliver(
            new, may_lapse=new.awarded_at + 1.1 * EVIDENCE_WINDOW < self._until
        )
        sale = SimulatedSale(new=new, delivery=delivery)
        self._balances[new.business_id] -= new.price_minor
        if self._balances[new.business_id] < SHORTAGE_LEADS * new.price_minor:
            self._top_up(new.business_id, new.awarded_at)
        if delivery.state is AssignmentState.delivered:
            crew = self.crews[new.business_id]
            win_share = POOR_WIN_SHARE if walk.provider_id == self._poor else 1.0
            sale = msgspec.structs.replace(sale, outcome=crew.work(new, delivery, walk.accepted.facts, win_share))
            given_back = sale.outcome.given_back
            if given_back is not None and given_back.granted_at is not None:
                self._expect(given_back.granted_at, new.business_id, new.price_minor)
        else:
            self._expect(delivery.settled_at, new.business_id, new.price_minor)
        if delivery.state is not AssignmentState.released:
            self._count(new)
        return sale

    def _count(self, new: NewAssignment) -> None:
        for window, start in new.window_starts.items():
            used = self._usage.get((new.subscription_id, window, start), Usage())
            self._usage[new.subscription_id, window, start] = Usage(
                count=used.count + 1, amount_minor=used.amount_minor + new.price_minor
            )


def _sold(walk: SimulatedWalk, sale: SimulatedSale, decision: Decision) -> SimulatedWalk:
    """Return the lead after a sale: with the business, or released to the next one."""
    given_back = sale.outcome.given_back
    returned = given_back is not None and sale.state is AssignmentState.returned
    released = sale.state is AssignmentState.released
    state = LeadState.prospect if released else LeadState(sale.state)
    reason = str(given_back.reason) if given_back and returned else sale.delivery.reason
    return msgspec.structs.replace(
        walk,
        decisions=(*walk.decisions, decision),
        sales=(*walk.sales, sale),
        state=state,
        reason=reason,
        settled_at=sale.delivery.settled_at,
    )


def _unsold(walk: SimulatedWalk, result: Wait | End, decision: Decision) -> SimulatedWalk:
    """Return the walk of a lead that waits, or has ended without a business, so that the person may ask again."""
    decisions = (*walk.decisions, decision)
    match result:
        case Wait(state=state, reason=reason, until=until, protected_until=protected_until, waits_for=waits_for):
            qualified_at = walk.qualified_at
            if state is LeadState.prospect:
                qualified_at = qualified_at or decision.made_at
            return msgspec.structs.replace(
                walk,
                state=state,
                reason=reason,
                waits_for=waits_for or walk.waits_for,
                due_at=until,
                qualified_at=qualified_at,
                protected_until=protected_until or walk.protected_until,
                decisions=decisions,
            )
        case End(state=state, reason=reason):
            qualified_at = walk.qualified_at
            if state is LeadState.unsold:
                qualified_at = qualified_at or decision.made_at
            return msgspec.structs.replace(
                walk,
                state=state,
                reason=reason,
                settled_at=decision.made_at,
                qualified_at=qualified_at,
                protected_until=None,
                decisions=decisions,
            )
        case _:
            assert_never(result)
