"""What new rules of a vertical would have made of past leads: the same pure rules, run twice, nothing written.

Qualification is tried on the facts of each lead. Where the strategy differs, the businesses on record that could have
had a lead are ranked again. Each lead is tried by itself: how many leads a business had had that day, its caps and its
wallet are as they were, not as they would have become.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from marketplace.portal.operator.books import Contender, PastAward, PastLead
from routing.calendar import CapWindow
from routing.matching import Candidate, Standing, Usage
from routing.qualification import Nurture, Prospect, Rejection, qualify
from routing.ranking import Strategy, rank
from routing.subscription import Definition
from routing.vertical import VerticalDefinition

MOST_NAMED: Final = 25
"Leads shown one by one: enough to see what they have in common."

QUALIFIED: Final = "qualified"


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """One lead that would have ended otherwise."""

    id: UUID
    received_at: datetime
    before: str
    after: str
    score_before: int
    score_after: int
    sold_minor: int | None


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """How many leads would have gone from one outcome to another."""

    before: str
    after: str
    leads: int


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the leads that were ranked again a subscription has, and would have."""

    subscription_id: UUID
    before: int
    after: int


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One lead that would have gone to another subscription."""

    id: UUID
    made_at: datetime
    before: UUID
    after: UUID
    price_before_minor: int
    price_after_minor: int


class Reranking(msgspec.Struct, frozen=True, kw_only=True):
    """Awards ranked by both strategies: `moved` of `awards` would have gone to another subscription. Prices are what
    all of them were sold for, and would have been. `alone` had one business only, whatever the strategy."""

    before: Strategy
    after: Strategy
    awards: int
    alone: int
    moved: int
    price_before_minor: int
    price_after_minor: int
    shares: tuple[Share, ...]
    named: tuple[Move, ...]


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """`changed` of `leads` would have another outcome or another business; amounts in minor units of the vertical's
    currency. `reranking` is None where the strategy stays.

    `sold_lost` of those that were sold would not have qualified: `lost_minor` was charged for them.
    """

    leads: int
    changed: int
    qualified_before: int
    qualified_after: int
    sold_lost: int
    lost_minor: int
    turns: tuple[Turn, ...]
    named: tuple[Changed, ...]
    reranking: Reranking | None = None


Definitions = Mapping[tuple[UUID, int], Definition]
"By subscription and version."


def rerank(before: Strategy, after: Strategy, awards: Sequence[PastAward], definitions: Definitions) -> Reranking:
    """Rank the businesses of each award by both strategies. `awards` are those of one vertical, oldest first.

    The winner by the strategy of the record is the one on record. Another strategy finds its numbers in the awards
    before: a business's leads of its day, and its last lead.
    """
    standings = _Standings()
    counts: Counter[tuple[UUID, bool]] = Counter()
    named: list[Move] = []
    moved = alone = 0
    prices = [0, 0]
    for award in awards:
        winners = [_winner(strategy, award, definitions, standings) for strategy in (before, after)]
        standings.add(award, definitions)
        alone += len(award.standing) < 2
        for place, winner in enumerate(winners):
            counts[winner.subscription_id, bool(place)] += 1
            prices[place] += winner.price_minor
        first, second = winners
        if first.subscription_id == second.subscription_id:
            continue
        moved += 1
        named.append(
            Move(
                id=award.lead_id, made_at=award.made_at, before=first.subscription_id, after=second.subscription_id,
                price_before_minor=first.price_minor, price_after_minor=second.price_minor,
            )
        )  # fmt: skip
    subscriptions = dict.fromkeys(subscription_id for subscription_id, _ in counts)
    shares = [Share(subscription_id=one, before=counts[one, False], after=counts[one, True]) for one in subscriptions]
    return Reranking(
        before=before, after=after, awards=len(awards), alone=alone, moved=moved, price_before_minor=prices[0],
        price_after_minor=prices[1], named=tuple(named[: -MOST_NAMED - 1 : -1]),
        shares=tuple(sorted(shares, key=lambda share: -abs(share.after - share.before))),
    )  # fmt: skip


class _Standings:
    """How many leads each subscription had on each of its days, and its last award, from the awards gone through."""

    def __init__(self) -> None:
        self._days: Counter[tuple[UUID, date]] = Counter()
        self._last: dict[UUID, datetime] = {}

    def add(self, award: PastAward, definitions: Definitions) -> None:
        winner = next((one for one in award.standing if one.subscription_id == award.winner), None)
        definition = definitions.get((award.winner, winner.version)) if winner else None
        self._last[award.winner] = award.made_at
        if definition is not None:
            self._days[award.winner, _day(award.made_at, definition)] += 1

    def of(self, subscription_id: UUID, at: datetime, definition: Definition) -> Standing:
        usage = Usage(count=self._days[subscription_id, _day(at, definition)])
        last = self._last.get(subscription_id)
        return Standing(usage={CapWindow.day: usage}, available_minor=0, last_awarded_at=last)


def _day(at: datetime, definition: Definition) -> date:
    return at.astimezone(ZoneInfo(definition.zone)).date()


def _winner(strategy: Strategy, award: PastAward, definitions: Definitions, standings: _Standings) -> Contender:
    """Who has the lead by a strategy. Raises ValueError for an award whose winner is not among those on record."""
    contenders = {one.subscription_id: one for one in award.standing}
    if strategy is not award.strategy:
        terms = {one.subscription_id: definitions[one.subscription_id, one.version] for one in award.standing}
        candidates = [
            Candidate(
                subscription_id=one.subscription_id, business_id=one.business_id, endpoint_id=None,
                version=one.version, price_minor=one.price_minor,
            )
            for one in award.standing
        ]  # fmt: skip
        known = {key: standings.of(key, award.made_at, definition) for key, definition in terms.items()}
        ranked = rank(strategy, candidates, terms, known, award.lead_id.bytes)
        return contenders[ranked[0].candidate.subscription_id]
    if award.winner not in contenders:
        raise ValueError(f"the winner of lead {award.lead_id} is not on its record")
    return contenders[award.winner]


def compare(
    before: VerticalDefinition, after: VerticalDefinition, leads: Sequence[PastLead],
    awards: Sequence[PastAward] = (), definitions: Definitions | None = None,
) -> DryRun:  # fmt: skip
    """Both versions on each lead as of the moment it was received. Other leads' windows and caps are left aside."""
    turns: Counter[tuple[str, str]] = Counter()
    unqualified: set[UUID] = set()
    named: list[Changed] = []
    qualified = [0, 0]
    sold_lost = lost_minor = 0
    for lead in leads:
        (old, old_score), (new, new_score) = (_judge(rules, lead) for rules in (before, after))
        qualified[0] += old == QUALIFIED
        qualified[1] += new == QUALIFIED
        if old == new:
            continue
        turns[old, new] += 1
        unqualified.add(lead.id)
        if lead.sold_minor is not None and new != QUALIFIED:
            sold_lost, lost_minor = sold_lost + 1, lost_minor + lead.sold_minor
        if len(named) < MOST_NAMED:
            named.append(
                Changed(
                    id=lead.id, received_at=lead.received_at, before=old, after=new, score_before=old_score,
                    score_after=new_score, sold_minor=lead.sold_minor,
                )
            )  # fmt: skip
    reranking = None
    if before.strategy is not after.strategy:
        still = [award for award in awards if award.lead_id not in unqualified]
        reranking = rerank(before.strategy, after.strategy, still, definitions or {})
    return DryRun(
        leads=len(leads), changed=turns.total() + (reranking.moved if reranking else 0), reranking=reranking,
        qualified_before=qualified[0], qualified_after=qualified[1],
        sold_lost=sold_lost, lost_minor=lost_minor, named=tuple(named),
        turns=tuple(Turn(before=old, after=new, leads=count) for (old, new), count in turns.most_common()),
    )  # fmt: skip


def _judge(rules: VerticalDefinition, lead: PastLead) -> tuple[str, int]:
    match qualify(lead.facts, rules.needs, rules.policy(0), lead.received_at):
        case Prospect(verdict=verdict):
            return QUALIFIED, verdict.score
        case Nurture(verdict=verdict):
            return "nurtured", verdict.score
        case Rejection(reason=reason, verdict=verdict):
            return f"rejected: {reason}", verdict.score
