"""Decide again about past leads, in the order in which they came, by the rules in force or by changed ones.

Pure: leads, rules and accounts in, a result for each lead out. `decide` and `complete` make every decision. These
simplifications hold for every simulation, so that two of them differ by their rules alone:

- A lead is decided about when it was received, a waiting one again at the time that the decision named, and one that
  is not sold also when it was decided about in fact with facts that touches or corrections had revised.
- A sale is final: the lead counts as delivered, paid and not returned.
- A business whose endpoint could not be reached for a lead in fact is not offered that lead.
- Money comes into a wallet, or leaves it for another reason than these leads, when it did in fact.
- A business that is frozen in the rules is so all the time, and every endpoint works all the time.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, assert_never
from uuid import UUID

import msgspec

from billing.pricing import Payout, payout_minor
from marketplace.rules.catalog import Vertical
from marketplace.rules.hours import compile_hours, compile_plan
from marketplace.simulations.accounts import SimulatedAccounts, StartingAccounts
from routing.decision import End, MatchedCandidates, OpenLead, Route, Wait, award_credits, complete, decide
from routing.index import HoldingIndex
from routing.inquiry import Facts
from routing.journey import JourneyEntry, revise
from routing.lifecycle import LeadState
from routing.shares import LEAD, business_weights, credit_changes
from routing.subscription import Subscription


class RevisionTime(msgspec.Struct, frozen=True, kw_only=True):
    """Time at which a lead was first decided about with the facts of a revision."""

    revision: int
    at: datetime


RECEIPT: Final = RevisionTime(revision=0, at=datetime.min.replace(tzinfo=UTC))
"First decision about a lead without touches or corrections, at its receipt."


class RecordedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A past lead: what rules read of it, and what became of it.

    `journey` are its touches and corrections, `decided` the revisions by which it was decided about, in order of time;
    both are None for a lead without any. `business_id` is the business that got it, None if nobody did; `won` says
    whether that business won the job. `unreachable` are the businesses whose endpoint could not be reached for it.
    """

    id: UUID
    provider_id: UUID
    facts: Facts
    received_at: datetime
    business_id: UUID | None = None
    won: bool = False
    unreachable: tuple[UUID, ...] = ()
    journey: tuple[JourneyEntry, ...] | None = None
    decided: tuple[RevisionTime, ...] | None = None

    def facts_at(self, revision: int) -> Facts:
        """Return the facts after the touches and corrections up to a revision."""
        return revise(self.facts, (entry for entry in self.journey or () if entry.revision <= revision))


class WalletMovement(msgspec.Struct, frozen=True, kw_only=True):
    """Money that came into a wallet, or left it if negative, for another reason than the leads of the simulation."""

    business_id: UUID
    amount_minor: int
    made_at: datetime


class SimulatedRules(msgspec.Struct, frozen=True, kw_only=True):
    """Rules of one vertical: its definition, its live subscriptions, and the payouts of providers by id."""

    vertical: Vertical
    subscriptions: tuple[Subscription, ...]
    payouts: Mapping[UUID, Payout]


class RuleEdit(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the rules at a time: the vertical or a subscription as it is from then on, or one that has ended."""

    made_at: datetime
    vertical: Vertical | None = None
    subscription: Subscription | None = None
    ended: UUID | None = None


class RecordedRules(msgspec.Struct, frozen=True, kw_only=True):
    """Rules as they were at the start of a simulation, and their changes during it, in order of time."""

    start: SimulatedRules
    edits: tuple[RuleEdit, ...]

    @property
    def every_version(self) -> SimulatedRules:
        """Rules with each version of each subscription, to load the accounts of all of them."""
        later = tuple(edit.subscription for edit in self.edits if edit.subscription is not None)
        return msgspec.structs.replace(self.start, subscriptions=(*self.start.subscriptions, *later))


class LeadEnd(StrEnum):
    """End of a lead in a simulation."""

    sold = "sold"
    """A business got it."""
    unsold = "unsold"
    """It qualified, and no business could have it."""
    rejected = "rejected"
    """It did not qualify, or its date was too far away."""
    waiting = "waiting"
    """It still waited for its date or for a business when the simulation ended."""


class SimulatedEnd(msgspec.Struct, frozen=True):
    """End of one lead, with the sale if there is one: subscription, business, price and payout in minor units."""

    end: LeadEnd
    subscription_id: UUID | None = None
    business_id: UUID | None = None
    price_minor: int = 0
    payout_minor: int = 0


_UNSOLD, _REJECTED, _WAITING = (SimulatedEnd(end) for end in (LeadEnd.unsold, LeadEnd.rejected, LeadEnd.waiting))

_DueLead = tuple[datetime, int, int, OpenLead]
"Time of the next decision, place among the leads, revision of the facts, and the lead."


class Simulator:
    """Simulation of one vertical by one set of rules, from the start of `accounts` to `until`."""

    def __init__(
        self,
        rules: SimulatedRules,
        accounts: StartingAccounts,
        movements: Sequence[WalletMovement],
        since: datetime,
        until: datetime,
        edits: Sequence[RuleEdit] = (),
    ) -> None:
        """Prepare the rules. `movements` and `edits` are in order of time."""
        self._vertical, self._payouts = rules.vertical, rules.payouts
        self._since, self._days = since, (until - since).days + 3
        self._index = HoldingIndex(map(self._prepare, rules.subscriptions))
        self._accounts = SimulatedAccounts(accounts)
        self._movements = list(reversed(movements))
        self._edits = list(reversed(edits))
        self._now, self._until = since, until
        self._due: list[_DueLead] = []
        self._providers: list[UUID] = []
        self._revisions: dict[int, int] = {}
        self.ends: list[SimulatedEnd] = []
        "End of each lead, in the order of `add`."
        self.entitled: Counter[UUID] = Counter()
        "Leads that each business is due by its weight among those that could have each lead, in billionths of a lead."

    def add(self, leads: Iterable[RecordedLead]) -> None:
        """Decide about the next leads, in the order in which they were received."""
        for lead in leads:
            self._advance(lead.received_at)
            place = len(self.ends)
            self.ends.append(_WAITING)
            self._providers.append(lead.provider_id)
            received = OpenLead(
                lead_id=lead.id,
                state=LeadState.received,
                facts=lead.facts,
                received_at=lead.received_at,
                provider_id=lead.provider_id,
                tried=frozenset(lead.unreachable),
            )
            first, *later = lead.decided or (RECEIPT,)
            for each in later:
                revised = msgspec.structs.replace(received, facts=lead.facts_at(each.revision))
                heapq.heappush(self._due, (each.at, place, each.revision, revised))
            if first.revision:
                received = msgspec.structs.replace(received, facts=lead.facts_at(first.revision))
            self._decide(received, place, first.revision, max(self._now, lead.received_at))

    def finish(self) -> None:
        """Decide about the leads that wait, up to the end of the simulation."""
        self._advance(self._until)

    def _advance(self, now: datetime) -> None:
        """Decide again about the leads that are due by `now`, and apply what changed in the meantime."""
        while self._due and self._due[0][0] <= now:
            due_at, place, revision, lead = heapq.heappop(self._due)
            if revision < self._revisions.get(place, 0) or self.ends[place].end is LeadEnd.sold:
                continue  # decided about with newer facts since, or sold
            self._now = max(self._now, due_at)
            self._catch_up()
            self._decide(lead, place, revision, self._now)
        self._now = max(self._now, now)
        self._catch_up()

    def _catch_up(self) -> None:
        """Apply the movements of wallets and the edits of rules up to now."""
        while self._movements and self._movements[-1].made_at <= self._now:
            movement = self._movements.pop()
            self._accounts.deposit(movement.business_id, movement.amount_minor)
        while self._edits and self._edits[-1].made_at <= self._now:
            edit = self._edits.pop()
            self._vertical = edit.vertical or self._vertical
            if edit.subscription is not None:
                self._index.put(self._prepare(edit.subscription))
            if edit.ended is not None:
                self._index.discard(edit.ended)

    def _prepare(self, subscription: Subscription) -> Subscription:
        """Return the subscription with open hours for the whole time, the plan of its caps, and without a breaker."""
        definition = subscription.definition
        spans = compile_hours(definition.hours, self._since, self._days) if definition.hours else None
        plan = compile_plan(definition, spans, self._vertical.arrivals, self._since)
        return msgspec.structs.replace(subscription, open_spans=spans, plan=plan, breaker_open_until=None)

    def _decide(self, lead: OpenLead, place: int, revision: int, now: datetime) -> None:
        vertical = self._vertical
        if revision:
            self._revisions[place] = revision
        result: MatchedCandidates | Route | Wait | End = decide(
            lead, vertical.definition, vertical.version, self._index, now, vertical.cards
        )
        if isinstance(result, MatchedCandidates):
            result = complete(result, self._accounts.standings(result.to_read, now))
        match result:
            case Route():
                self._sell(result, place, now)
            case Wait(state=state, until=until):
                qualified_at = lead.qualified_at or (now if state is LeadState.prospect else None)
                waiting = msgspec.structs.replace(lead, state=state, qualified_at=qualified_at)
                self.ends[place] = _WAITING
                if until < self._until:
                    heapq.heappush(self._due, (until, place, revision, waiting))
            case End(state=state):
                self.ends[place] = _UNSOLD if state is LeadState.unsold else _REJECTED
            case MatchedCandidates():
                raise AssertionError("a completed decision is final")
            case _:
                assert_never(result)

    def _sell(self, route: Route, place: int, now: datetime) -> None:
        """Give the lead to the first of the ranking."""
        subscription = self._index[route.ranked[0].candidate.subscription_id]
        price = subscription.definition.price_minor
        self.ends[place] = SimulatedEnd(
            LeadEnd.sold,
            subscription.id,
            subscription.business_id,
            price,
            payout_minor(self._payouts[self._providers[place]], price),
        )
        credits = award_credits(route, (), subscription.id)
        self._accounts.record_sale(subscription, now, credits)
        if credits is None:
            able = (self._index[ranked.candidate.subscription_id] for ranked in route.ranked)
            weights = business_weights((each.business_id, each.definition) for each in able)
            credits = credit_changes(weights, subscription.business_id)
        self.entitled.update(credits)
        self.entitled[subscription.business_id] += LEAD
