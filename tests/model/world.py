"""A marketplace in memory: the rows that the flows would write, moved by exactly the pure rules that the flows ask.

Each flow is cut where another process can come between: what was read without a lock is kept in a Plan or a Visit, and
what a transaction does under its locks is one method. So any order of these methods, with any time between them, is an
order that several api and worker processes could bring about, crashes and stalls included.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final, Literal, assert_never
from uuid import UUID

import msgspec

from billing.pricing import SharePayout, payout_minor
from routing.awarding import explain_loss
from routing.calendar import CapWindow, window_starts
from routing.decision import End, MatchedCandidates, OpenLead, Route, Wait, complete, decide, leave_open
from routing.delivery import (
    EVIDENCE_WINDOW,
    HOLD_WINDOW,
    AnswerReceived,
    AttemptOutcome,
    Breaker,
    Classification,
    NotSent,
    NotSentReason,
    Observation,
    classify,
    closed_from,
    endpoint_health,
    is_open,
    next_attempt_at,
    next_hold_attempt_at,
    record,
    take_probe,
)
from routing.inquiry import Budget, Facts, Mode, Timing, Touch
from routing.journey import CorrectionEntry, JourneyEntry, Supplied, TouchEntry, revise
from routing.lifecycle import (
    ASSIGNMENT_MOVES,
    LEAD_BEGINNINGS,
    LEAD_MOVES,
    OPEN_ASSIGNMENT,
    WAITING_LEAD,
    WITHDRAWN_LEAD,
    AssignmentState,
    LeadState,
)
from routing.matching import Candidate, CapsAndWallet, Failure, SubscriptionIndex, Usage
from routing.ranking import Strategy
from routing.requalifying import LeadStanding, NextStep, next_step
from routing.subscription import Area, Cap, Subscription, SubscriptionDefinition
from routing.vertical import VerticalDefinition
from tests.builders.inquiries import ROOFING_NEEDS, roofing_facts, roofing_policy

ZONE: Final = "America/New_York"
POLICY: Final = roofing_policy()
PAYOUT: Final = SharePayout(basis_points=6_000)
PERSON_WINDOW: Final = timedelta(days=32)
PATIENCE: Final = timedelta(minutes=30)
LEASE: Final = timedelta(seconds=30)
VERTICAL: Final = VerticalDefinition(
    name="Roofing",
    currency=POLICY.currency,
    needs=ROOFING_NEEDS,
    budget=POLICY.budget,
    authority=POLICY.authority,
    need=POLICY.need,
    timing=POLICY.timing,
    minimum_score=POLICY.minimum_score,
    patience_seconds=int(PATIENCE.total_seconds()),
)
PAUSE: Final = timedelta(seconds=1)
"A lost notification, a race lost by everybody, and a release: somebody looks again this much later."

Kind = Literal["ready", "early", "poor"]
TransferKind = Literal["top_up", "hold", "release", "capture", "payout"]
Bucket = tuple[int, CapWindow, datetime]


@dataclass(slots=True)
class Lead:
    """One inquiry and the lead that it became."""

    id: int
    key: str
    person: int
    facts: Facts
    state: LeadState
    received_at: datetime
    due_at: datetime | None = None
    qualified_at: datetime | None = None
    nurtured_until: datetime | None = None
    ended_at: datetime | None = None
    window: tuple[datetime, datetime] | None = None
    contact: bool = True
    erased: bool = False
    inquiry: Facts | None = None
    journey: list[JourneyEntry] = field(default_factory=list)
    revision: int = 0
    reopened_at: datetime | None = None


@dataclass(slots=True)
class Claim:
    """One assignment. `quoted_minor` is the price that the ranking saw, whatever the award made of it.

    `corrected`: a correction took the lead back before it was sent.
    """

    id: int
    lead: Lead
    number: int
    business: int
    mode: Mode
    quoted_minor: int
    price_minor: int
    payout_minor: int
    starts: dict[CapWindow, datetime]
    awarded_at: datetime
    hold_until: datetime
    due_at: datetime | None
    state: AssignmentState = AssignmentState.held
    attempts: int = 1
    exposed_at: datetime | None = None
    evidence_until: datetime | None = None
    evidence_at: datetime | None = None
    settled_at: datetime | None = None
    corrected: bool = False


@dataclass(slots=True)
class Exposure:
    lead: Lead
    claim: Claim
    business: int


@dataclass(slots=True)
class Sighting:
    """Contact data of one lead at one business; `allowed` is whether its exposure was on record by then."""

    lead: Lead
    business: int
    allowed: bool


@dataclass(slots=True)
class Transfer:
    kind: TransferKind
    amount_minor: int
    business: int
    claim: Claim | None = None


@dataclass(slots=True)
class Wallet:
    available_minor: int = 0
    held_minor: int = 0
    credit_limit_minor: int = 0


@dataclass(slots=True)
class Used:
    """One row of cap usage, with the cap that was in force when it was last raised."""

    count: int = 0
    minor: int = 0
    limit_count: int | None = None
    limit_minor: int | None = None


@dataclass(slots=True)
class Order:
    """One subscription's rows, and its business's and its endpoint's."""

    number: int
    business: int
    mode: Mode
    version: int
    definition: SubscriptionDefinition
    paused: bool = False
    breaker: Breaker = field(default_factory=Breaker)
    endpoint_active: bool = True


@dataclass(slots=True)
class Plan:
    """Decision of one process about a lead, made without a lock and not committed yet."""

    lead: Lead
    state: LeadState
    revision: int
    result: Route | Wait | End
    now: datetime


@dataclass(slots=True)
class Visit:
    """One delivery attempt under way, with the assignment as it was when it began."""

    claim: Claim
    attempts: int
    breaker: Breaker
    exposed_at: datetime | None
    obstacle: NotSentReason | None = None
    lapses: bool = False
    connected: bool = False
    sent: bool = False


class World:
    """All rows, and one method per transaction."""

    def __init__(self, now: datetime, strategy: Strategy = Strategy.priority) -> None:
        self.now = now
        self.strategy = strategy
        self.leads: list[Lead] = []
        self.claims: list[Claim] = []
        self.exposures: list[Exposure] = []
        self.sightings: list[Sighting] = []
        self.transfers: list[Transfer] = []
        self.answers: list[tuple[str, int]] = []
        self.suppressed: set[int] = set()
        self.wallets = {business: Wallet() for business in range(3)}
        self.frozen: set[int] = set()
        self.usage: dict[Bucket, Used] = {}
        # businesses 0 and 1 each have one live order, business 2 has two on one wallet, business 0 rehearses besides
        self.orders = [
            Order(number, business, mode, 1, _definition(5_000 + 500 * number, _DAY_OF_TWO))
            for number, (business, mode) in enumerate(
                [(0, Mode.live), (1, Mode.live), (2, Mode.live), (2, Mode.live), (0, Mode.test)]
            )
        ]
        self._known: dict[int, Subscription] = {}
        self._index: SubscriptionIndex | None = None

    # --- intake

    def submit(self, key: str, person: int, kind: Kind, mode: Mode) -> None:
        """A provider posts an inquiry; the answer is remembered as the provider saw it."""
        earlier = next((lead for lead in self.leads if lead.key == key), None)
        if earlier is None:
            earlier = self._take_in(key, person, kind, mode)
            self.leads.append(earlier)
        self.answers.append((key, earlier.id))

    def _take_in(self, key: str, person: int, kind: Kind, mode: Mode) -> Lead:
        state, window = LeadState.received, (self.now, self.now + PERSON_WINDOW)
        if person in self.suppressed:
            state = LeadState.suppressed
        elif self.is_taken(person, mode, window):
            state = LeadState.duplicate
        assert state in LEAD_BEGINNINGS
        taken = state is LeadState.received
        return Lead(
            id=len(self.leads),
            key=key,
            person=person,
            facts=_facts(kind, mode, self.now),
            state=state,
            received_at=self.now,
            due_at=self.now + PAUSE if taken else None,
            ended_at=None if taken else self.now,
            window=window if taken else None,
            contact=taken,
        )

    def is_taken(self, person: int, mode: Mode, window: tuple[datetime, datetime]) -> bool:
        return any(self.overlaps(lead, person, mode, window) for lead in self.leads)

    def overlaps(self, lead: Lead, person: int, mode: Mode, window: tuple[datetime, datetime]) -> bool:
        """Return whether the lead protects this person in a part of the window, as the exclusion constraint does."""
        held, same = lead.window, (lead.person, lead.facts.mode) == (person, mode)
        return held is not None and same and held[0] < window[1] and window[0] < held[1]

    # --- distribution

    def weigh(self, lead: Lead) -> Plan | None:
        """Everything up to the transaction, without a lock; None for a lead that does not wait."""
        if lead.state not in WAITING_LEAD:
            return None
        opened = OpenLead(
            lead_id=UUID(int=lead.id),
            state=lead.state,
            facts=lead.facts,
            received_at=lead.received_at,
            qualified_at=lead.qualified_at,
            tried=frozenset(
                _business_id(claim.business) for claim in self.claims if claim.lead is lead and not claim.corrected
            ),
        )
        vertical = msgspec.structs.replace(VERTICAL, strategy=self.strategy)
        result: MatchedCandidates | Route | Wait | End = decide(
            opened, vertical, POLICY.version, self.index(), self.now
        )
        if isinstance(result, MatchedCandidates):
            standings = {sub.id: self._standing(sub.id.int, self.now) for sub in result.to_read}
            result = complete(result, standings)
        return Plan(lead, lead.state, lead.revision, result, self.now)

    def commit(self, plan: Plan) -> None:
        """The transaction of a decision: nothing at all when the lead was moved or has got new facts meanwhile."""
        lead = plan.lead
        if lead.state is not plan.state or lead.revision != plan.revision:
            return
        match plan.result:
            case Route():
                self._award(plan, plan.result)
            case Wait() | End():
                self._leave(plan, plan.result)
            case _:
                assert_never(plan.result)

    def _award(self, plan: Plan, route: Route) -> None:
        lead = plan.lead
        self._move_lead(lead, LeadState.prospect)
        lead.qualified_at = lead.qualified_at or plan.now
        losses: dict[UUID, Failure] = {}
        for ranked in route.ranked:
            candidate = ranked.candidate
            order = self.orders[candidate.subscription_id.int]
            loss = explain_loss(
                candidate, self._subscription(order), self._standing_at_award(order, plan.now), plan.now
            )
            if loss is None:
                self._claim(plan, order, candidate)
                return
            losses[candidate.subscription_id] = loss
        self._leave(plan, leave_open(route, losses))

    def _leave(self, plan: Plan, result: Wait | End) -> None:
        lead = plan.lead
        if result.state in (LeadState.prospect, LeadState.unsold):
            self._move_lead(lead, LeadState.prospect)
            lead.qualified_at = lead.qualified_at or plan.now
        match result:
            case Wait(state=LeadState.nurturing, until=until):
                self._nurture(lead, until)
            case Wait(until=until):
                lead.due_at = until
            case End(state=state):
                self._end(lead, state)
            case _:
                assert_never(result)

    def _claim(self, plan: Plan, order: Order, candidate: Candidate) -> None:
        lead = plan.lead
        self._move_lead(lead, LeadState.held)
        lead.due_at = None
        claim = Claim(
            id=len(self.claims),
            lead=lead,
            number=order.number,
            business=order.business,
            mode=order.mode,
            quoted_minor=candidate.price_minor,
            price_minor=candidate.price_minor,
            payout_minor=payout_minor(PAYOUT, candidate.price_minor),
            starts=window_starts(plan.now, order.definition.zone),
            awarded_at=plan.now,
            hold_until=plan.now + HOLD_WINDOW,
            due_at=plan.now + LEASE,
        )
        self.claims.append(claim)
        if claim.mode is Mode.live:
            self._count(claim, order.definition.caps)
            self._transfer("hold", claim)

    def _nurture(self, lead: Lead, until: datetime) -> None:
        """Let a lead wait, or end it if a later inquiry of its person has a part of that time."""
        later = until + timedelta(days=30)
        if lead.window is not None and any(
            self.overlaps(other, lead.person, lead.facts.mode, (lead.window[0], later))
            for other in self.leads
            if other is not lead
        ):
            return self._end(lead, WITHDRAWN_LEAD[lead.state])
        self._move_lead(lead, LeadState.nurturing)
        lead.due_at = lead.nurtured_until = until
        if lead.window is not None:
            lead.window = (lead.window[0], max(lead.window[1], until + timedelta(days=30)))

    def _end(self, lead: Lead, state: LeadState) -> None:
        self._move_lead(lead, state)
        lead.due_at, lead.window, lead.ended_at = None, None, self.now

    # --- delivery

    def take_up(self, claim: Claim) -> None:
        """The sweeper's lease on due work."""
        if claim.state in OPEN_ASSIGNMENT and claim.due_at is not None and claim.due_at <= self.now:
            claim.due_at = self.now + LEASE
            claim.attempts += 1

    def begin(self, claim: Claim) -> Visit | None:
        """The assignment as one attempt reads it; None when there is nothing to do."""
        if claim.state not in OPEN_ASSIGNMENT:
            return None
        order = self.orders[claim.number]
        visit = Visit(claim, claim.attempts, order.breaker, claim.exposed_at)
        if claim.evidence_until is not None and self.now >= claim.evidence_until:
            visit.lapses = True
        elif claim.lead.erased:
            visit.obstacle = NotSentReason.withdrawn
        elif claim.state is AssignmentState.held and self.now >= claim.hold_until:
            visit.obstacle = NotSentReason.hold_over
        elif not order.endpoint_active:
            visit.obstacle = NotSentReason.url_refused
        elif is_open(order.breaker, self.now):
            visit.obstacle = NotSentReason.breaker_open
        else:
            order.breaker = take_probe(order.breaker, self.now)
        return visit

    def expose(self, visit: Visit) -> bool:
        """Expose the lead between connection and first byte. Return whether the message may be sent."""
        claim = visit.claim
        visit.connected = True
        if claim.state is AssignmentState.held and self.now < claim.hold_until:
            self._move_lead(claim.lead, LeadState.exposed)
            self._move_claim(claim, AssignmentState.exposed)
            claim.exposed_at, claim.evidence_until = self.now, self.now + EVIDENCE_WINDOW
            self.exposures.append(Exposure(claim.lead, claim, claim.business))
        elif claim.state is not AssignmentState.exposed:
            return False
        visit.exposed_at = visit.exposed_at or self.now
        return claim.lead.contact  # read by read_contact(); an erased person's is gone

    def send(self, visit: Visit) -> None:
        """The first byte."""
        lead, business = visit.claim.lead, visit.claim.business
        allowed = any(e.lead is lead and e.business == business for e in self.exposures)
        visit.sent = True
        self.sightings.append(Sighting(lead, business, allowed))

    def settle(self, visit: Visit, observation: Observation) -> None:
        """The transaction after an attempt: what it means for the assignment, the money, and the endpoint's health."""
        claim = visit.claim
        result = self.read(observation, visit)
        if claim.state in OPEN_ASSIGNMENT:
            self._conclude(visit, result)
        order = self.orders[claim.number]
        if result.outcome is AttemptOutcome.gone:
            order.endpoint_active = False
        well = endpoint_health(result)
        if well is not None and not (well and visit.breaker == Breaker()):
            order.breaker = record(order.breaker, well, self.now)

    def read(self, observation: Observation, visit: Visit) -> Classification:
        return classify(observation, visit.exposed_at is not None)

    def _conclude(self, visit: Visit, result: Classification) -> None:
        claim = visit.claim
        match result.outcome:
            case AttemptOutcome.accepted:
                claim.evidence_at = self.now
                self._settled(claim, AssignmentState.delivered, LeadState.delivered, "capture")
            case AttemptOutcome.refused | AttemptOutcome.gone:
                self._settled(claim, AssignmentState.refused, LeadState.refused, "release")
            case AttemptOutcome.not_sent if claim.state is AssignmentState.held and result.may_release:
                reason = NotSentReason(result.reason)
                again_at = next_hold_attempt_at(visit.attempts, reason=reason, held_at=claim.awarded_at, now=self.now)
                if again_at is None:
                    self.release(claim)
                else:
                    claim.due_at = again_at
            case AttemptOutcome.not_sent | AttemptOutcome.unknown | AttemptOutcome.busy | AttemptOutcome.redirect:
                self._try_again(visit, result)
            case _:
                assert_never(result.outcome)

    def _try_again(self, visit: Visit, result: Classification) -> None:
        claim = visit.claim
        exposed_at = visit.exposed_at or claim.exposed_at or self.now
        again_at = None
        if result.reason is not NotSentReason.withdrawn:
            again_at = next_attempt_at(
                visit.attempts,
                exposed_at=exposed_at,
                now=self.now,
                retry_after_seconds=result.retry_after_seconds,
                seed=str(claim.id),
            )
        reopens = closed_from(visit.breaker) if result.reason is NotSentReason.breaker_open else None
        claim.due_at = max(again_at or exposed_at + EVIDENCE_WINDOW, reopens or self.now)

    def lapse(self, visit: Visit) -> None:
        """The deadline's consequence, unless evidence came first."""
        if visit.claim.state is AssignmentState.exposed:
            self._settled(visit.claim, AssignmentState.lapsed, LeadState.lapsed, "release")

    def _settled(self, claim: Claim, state: AssignmentState, lead: LeadState, kind: TransferKind) -> None:
        self._move_lead(claim.lead, lead)
        self._move_claim(claim, state)
        claim.due_at, claim.settled_at, claim.lead.ended_at = None, self.now, self.now
        if claim.mode is Mode.live:
            self._transfer(kind, claim)
            if kind == "capture":
                self._transfer("payout", claim)

    def release(self, claim: Claim) -> None:
        """Nothing has left us: the only way to another business."""
        self._move_lead(claim.lead, LeadState.prospect)
        self._move_claim(claim, AssignmentState.released)
        claim.due_at, claim.settled_at = None, self.now
        claim.lead.due_at = self.now + PAUSE
        if claim.mode is Mode.live:
            self._transfer("release", claim)
            self._count(claim, None)

    # --- what people do besides

    def erase(self, lead: Lead) -> None:
        """The person asks to be forgotten: an open lead ends, an exposed one is never sent again."""
        lead.contact, lead.erased = False, True
        self.suppressed.add(lead.person)
        if lead.state is LeadState.held:
            self.release(next(c for c in self.claims if c.lead is lead and c.state is AssignmentState.held))
        ends = {
            LeadState.received: LeadState.rejected,
            LeadState.nurturing: LeadState.expired,
            LeadState.prospect: LeadState.unsold,
        }
        if lead.state in ends:
            self._end(lead, ends[lead.state])

    def touch(self, lead: Lead, kind: Kind) -> None:
        """The person comes back and answers anew: an open lead is decided about again, one that ended may be opened."""
        touch = Touch(kind="call", at=self.now, detail=str(len(lead.journey)))
        supplies = self._supplied(lead, kind)
        self._revise(lead, TouchEntry(revision=lead.revision + 1, touch=touch, supplies=supplies), self.now)

    def correct(self, lead: Lead, kind: Kind) -> None:
        """The provider corrects the answers: a lead that is held is taken back, and an open one decided about again."""
        if not lead.erased:
            supplies = self._supplied(lead, kind)
            self._revise(lead, CorrectionEntry(revision=lead.revision + 1, at=self.now, supplies=supplies), None)

    def _supplied(self, lead: Lead, kind: Kind) -> Supplied:
        answers = _facts(kind, lead.facts.mode, self.now)
        return Supplied(budget=answers.budget, timing=answers.timing)

    def _revise(self, lead: Lead, entry: JourneyEntry, came_back_at: datetime | None) -> None:
        lead.inquiry = lead.inquiry or lead.facts
        lead.revision += 1
        lead.journey.append(entry)
        before, lead.facts = lead.facts, revise(lead.inquiry, lead.journey)
        standing = LeadStanding(state=lead.state, reason=None, received_at=lead.received_at, settled_at=lead.ended_at)
        step = next_step(standing, before, lead.facts, VERTICAL, self.now, came_back_at)
        if step is NextStep.receive and lead.state is LeadState.held:
            claim = next(c for c in self.claims if c.lead is lead and c.state is AssignmentState.held)
            self.release(claim)
            claim.corrected = True
        if step is NextStep.receive and lead.person not in self.suppressed and not lead.erased:
            self._receive(lead)
        elif step is NextStep.due and lead.due_at is not None:
            lead.due_at = min(lead.due_at, self.now)

    def _receive(self, lead: Lead) -> None:
        """Qualify it again; one that ended needs its person's window again, or stays ended."""
        if lead.state is not LeadState.prospect:
            window = (self.now, self.now + PERSON_WINDOW)
            if self.is_taken(lead.person, lead.facts.mode, window):
                return
            lead.window, lead.qualified_at, lead.ended_at, lead.reopened_at = window, None, None, self.now
        self._move_lead(lead, LeadState.received)
        lead.due_at = self.now

    def edit(self, order: Order, price_minor: int, caps: tuple[Cap, ...]) -> None:
        order.definition = _definition(price_minor, caps)
        order.version += 1
        self.changed()

    def changed(self) -> None:
        """The rules have a new version: the next decision reads them anew."""
        self._index = None

    def top_up(self, business: int, amount_minor: int) -> None:
        self.transfers.append(Transfer("top_up", amount_minor, business))
        self.wallets[business].available_minor += amount_minor

    # --- what all of the above stand on

    def index(self) -> SubscriptionIndex:
        """The matching index over all orders as they are now."""
        if self._index is None or self._stale_breakers():
            self._known = {order.number: self._subscription(order) for order in self.orders}
            self._index = SubscriptionIndex(list(self._known.values()))
        return self._index

    def _stale_breakers(self) -> bool:
        return any(
            self._known[order.number].breaker_open_until != closed_from(order.breaker)
            or self._known[order.number].endpoint_active != order.endpoint_active
            for order in self.orders
        )

    def _subscription(self, order: Order) -> Subscription:
        return Subscription(
            id=UUID(int=order.number),
            business_id=_business_id(order.business),
            endpoint_id=UUID(int=2_000 + order.number),
            vertical="roofing",
            country="US",
            mode=order.mode,
            version=order.version,
            definition=order.definition,
            paused=order.paused,
            business_active=order.business not in self.frozen,
            endpoint_active=order.endpoint_active,
            breaker_open_until=closed_from(order.breaker),
        )

    def _standing_at_award(self, order: Order, now: datetime) -> CapsAndWallet:
        """Caps and wallet as the award finds them under its locks."""
        return self._standing(order.number, now)

    def _standing(self, number: int, now: datetime) -> CapsAndWallet:
        order = self.orders[number]
        starts = window_starts(now, order.definition.zone)
        used = {window: self.usage.get((number, window, start)) for window, start in starts.items()}
        wallet = self.wallets[order.business]
        return CapsAndWallet(
            usage={window: Usage(count=row.count, amount_minor=row.minor) for window, row in used.items() if row},
            available_minor=wallet.available_minor,
            credit_limit_minor=wallet.credit_limit_minor,
        )

    def _count(self, claim: Claim, caps: tuple[Cap, ...] | None) -> None:
        """One more in each window under the caps in force; with None, one less in the very same windows."""
        limits = {cap.window: cap for cap in caps or ()}
        sign = -1 if caps is None else 1
        for window, start in claim.starts.items():
            row = self.usage.setdefault((claim.number, window, start), Used())
            row.count += sign
            row.minor += sign * claim.price_minor
            if caps is not None:
                cap = limits.get(window)
                row.limit_count = cap.count if cap else None
                row.limit_minor = cap.amount_minor if cap else None

    def _transfer(self, kind: TransferKind, claim: Claim) -> None:
        amount = claim.payout_minor if kind == "payout" else claim.price_minor
        self.transfers.append(Transfer(kind, amount, claim.business, claim))
        available, held = WALLET_SIDES[kind]
        wallet = self.wallets[claim.business]
        wallet.available_minor += available * amount
        wallet.held_minor += held * amount

    def _move_lead(self, lead: Lead, state: LeadState) -> None:
        assert state is lead.state or state in LEAD_MOVES[lead.state], f"{lead.state} to {state}"
        lead.state = state

    def _move_claim(self, claim: Claim, state: AssignmentState) -> None:
        assert state in ASSIGNMENT_MOVES[claim.state], f"{claim.state} to {state}"
        claim.state = state

    # --- coming to rest

    def at_rest(self) -> bool:
        return all(lead.due_at is None for lead in self.leads) and all(claim.due_at is None for claim in self.claims)

    def sweep(self, observe: Callable[[Visit], Observation]) -> None:
        """The clock runs to whatever is due next, and that one thing is done by one process alone."""
        leads = [(lead.due_at, 0, lead.id) for lead in self.leads if lead.due_at is not None]
        claims = [(claim.due_at, 1, claim.id) for claim in self.claims if claim.due_at is not None]
        due_at, is_claim, number = min(leads + claims)
        self.now = max(self.now, due_at)
        if is_claim:
            self._sweep_claim(self.claims[number], observe)
        elif plan := self.weigh(self.leads[number]):
            self.commit(plan)

    def _sweep_claim(self, claim: Claim, observe: Callable[[Visit], Observation]) -> None:
        self.take_up(claim)
        visit = self.begin(claim)
        if visit is None:
            return
        if visit.lapses:
            self.lapse(visit)
        elif visit.obstacle is not None:
            self.settle(visit, NotSent(reason=visit.obstacle))
        elif self.expose(visit):
            self.send(visit)
            self.settle(visit, observe(visit))
        else:
            self.settle(visit, NotSent(reason=NotSentReason.abandoned))


WALLET_SIDES: Final[dict[TransferKind, tuple[int, int]]] = {
    "top_up": (1, 0),
    "hold": (-1, 1),
    "release": (1, -1),
    "capture": (0, -1),
    "payout": (0, 0),
}
"What a transfer does to the available and the held money of its business."

SIDES: Final[dict[TransferKind, tuple[tuple[str, int], ...]]] = {
    "top_up": (("outside", -1), ("available", 1)),
    "hold": (("available", -1), ("held", 1)),
    "release": (("held", -1), ("available", 1)),
    "capture": (("held", -1), ("revenue", 1)),
    "payout": (("revenue", -1), ("payable", 1)),
}
"Both signed sides of each transfer."

_DAY_OF_TWO: Final = (Cap(window=CapWindow.day, count=2),)
CAPS: Final = (
    (),
    _DAY_OF_TWO,
    (Cap(window=CapWindow.hour, count=1), Cap(window=CapWindow.week, count=3)),
    (Cap(window=CapWindow.day, amount_minor=9_000),),
    (Cap(window=CapWindow.total, count=2, amount_minor=11_000),),
)
"Caps that a business may choose among, small enough to be met."


def _definition(price_minor: int, caps: tuple[Cap, ...]) -> SubscriptionDefinition:
    return SubscriptionDefinition(
        area=Area(anywhere=True), zone=ZONE, price_minor=price_minor, currency="USD", caps=caps
    )


def _business_id(business: int) -> UUID:
    return UUID(int=1_000 + business)


def _facts(kind: Kind, mode: Mode, now: datetime) -> Facts:
    """`ready` for a business, `early` by some months, or too `poor` for the vertical."""
    early = Timing(not_before=date.fromordinal(now.toordinal() + 100))
    return msgspec.structs.replace(
        _READY,
        mode=mode,
        submitted_at=now,
        received_at=now,
        timing=early if kind == "early" else _READY.timing,
        budget=Budget(minor=1_000, currency="USD") if kind == "poor" else _READY.budget,
    )


_READY: Final = roofing_facts()

ANSWERS: Final = (
    AnswerReceived(status=200),
    AnswerReceived(status=200),
    AnswerReceived(status=200, body=b'{"status": "accepted"}'),
    AnswerReceived(status=204),
    AnswerReceived(status=200, body=b'{"status": "refu', truncated=True),
    AnswerReceived(status=200, body=b"<html>busy</html>"),
    AnswerReceived(status=200, body=b'{"status": "refused", "reason": "other"}'),
    AnswerReceived(status=302),
    AnswerReceived(status=409),
    AnswerReceived(status=410),
    AnswerReceived(status=429, retry_after_seconds=3_600),
    AnswerReceived(status=500),
    AnswerReceived(status=999),
)
"One answer of each kind that a rule reads apart, and one that none reads."
