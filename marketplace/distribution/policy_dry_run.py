"""Dry run of a new version of a vertical's rules on past leads: the functions that decide live, run twice.

Nothing is written. Each lead is qualified under both versions, as of the moment it was received. If the strategy
differs, the businesses on record that could have had a lead are ranked again. Each lead is tried by itself: how many
leads a business had had that day, its caps and its wallet are as they were, not as they would have become.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from marketplace.database.db import Connection, Pool, Queries, convert_rows, session
from marketplace.distribution.explorer import list_definitions
from marketplace.distribution.store import read_candidates
from marketplace.rules.catalog import Vertical
from routing.calendar import CapWindow
from routing.decision import CandidateRecord, MatchedCandidates, OpenLead, Wait, decide, rank_recorded
from routing.index import SubscriptionIndex
from routing.inquiry import Facts
from routing.lifecycle import LeadState
from routing.matching import CapsAndWallet, Usage
from routing.ranking import Strategy
from routing.subscription import SubscriptionDefinition
from routing.vertical import VerticalDefinition

SQL: Final = Queries(__file__, "policy_dry_run.sql")

SPAN: Final = timedelta(days=30)
"Age of the oldest lead that is tried."
MOST_LEADS: Final = 5_000
"Leads of one dry run: half a second of one core."
MOST_NAMED: Final = 25
"Leads shown one by one: enough to see what they have in common."

QUALIFIED: Final = "qualified"
NO_SUBSCRIPTIONS: Final = SubscriptionIndex(())
"The index of a decision that only has to qualify."


class PastLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead that was judged, with its facts; `sold_minor` is what was charged for it, if it was sold."""

    id: UUID
    facts: Facts
    received_at: datetime
    state: str
    sold_minor: int | None


class PastAward(msgspec.Struct, frozen=True, kw_only=True):
    """An award on record: its strategy, who won, and every candidate that could have had the lead, in their order."""

    lead_id: UUID
    made_at: datetime
    strategy: Strategy
    winner: UUID
    candidates: tuple[CandidateRecord, ...]


class ChangedLead(msgspec.Struct, frozen=True, kw_only=True):
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


class PolicyDryRun(msgspec.Struct, frozen=True, kw_only=True):
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
    named: tuple[ChangedLead, ...]
    reranking: Reranking | None = None


Definitions = Mapping[tuple[UUID, int], SubscriptionDefinition]
"By subscription and version."


async def try_policy(pool: Pool, vertical: Vertical, draft: VerticalDefinition, now: datetime) -> PolicyDryRun:
    """Compare the vertical's rules in force with a draft, on its newest leads."""
    async with session(pool) as connection:
        leads = await list_past_leads(connection, vertical.id, now - SPAN, MOST_LEADS)
        awards: tuple[PastAward, ...] = ()
        definitions: Definitions = {}
        if draft.strategy is not vertical.definition.strategy:
            awards = await list_past_awards(connection, (lead.id for lead in leads))
            versions = {(record.subscription_id, record.version) for award in awards for record in award.candidates}
            definitions = await list_definitions(connection, tuple(versions))
    return await asyncio.to_thread(compare, vertical.definition, draft, leads, awards, definitions)


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
        alone += len(award.candidates) < 2
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
        winner = next((record for record in award.candidates if record.subscription_id == award.winner), None)
        definition = definitions.get((award.winner, winner.version)) if winner else None
        self._last[award.winner] = award.made_at
        if definition is not None:
            self._days[award.winner, _day(award.made_at, definition)] += 1

    def of(self, subscription_id: UUID, at: datetime, definition: SubscriptionDefinition) -> CapsAndWallet:
        usage = Usage(count=self._days[subscription_id, _day(at, definition)])
        last = self._last.get(subscription_id)
        return CapsAndWallet(usage={CapWindow.day: usage}, available_minor=0, last_awarded_at=last)


def _day(at: datetime, definition: SubscriptionDefinition) -> date:
    return at.astimezone(ZoneInfo(definition.zone)).date()


def _winner(strategy: Strategy, award: PastAward, definitions: Definitions, standings: _Standings) -> CandidateRecord:
    """Return who has the lead by a strategy. Raises ValueError for an award whose winner is not on its record."""
    records = {record.subscription_id: record for record in award.candidates}
    if strategy is not award.strategy:
        terms = {
            record.subscription_id: definitions[record.subscription_id, record.version] for record in award.candidates
        }
        past = {key: standings.of(key, award.made_at, definition) for key, definition in terms.items()}
        ranked = rank_recorded(strategy, award.candidates, terms, past, award.lead_id)
        return records[ranked[0].candidate.subscription_id]
    if award.winner not in records:
        raise ValueError(f"the winner of lead {award.lead_id} is not on its record")
    return records[award.winner]


def compare(
    before: VerticalDefinition, after: VerticalDefinition, leads: Sequence[PastLead],
    awards: Sequence[PastAward] = (), definitions: Definitions | None = None,
) -> PolicyDryRun:  # fmt: skip
    """Both versions on each lead as of the moment it was received. Other leads' windows and caps are left aside."""
    turns: Counter[tuple[str, str]] = Counter()
    unqualified: set[UUID] = set()
    named: list[ChangedLead] = []
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
                ChangedLead(
                    id=lead.id, received_at=lead.received_at, before=old, after=new, score_before=old_score,
                    score_after=new_score, sold_minor=lead.sold_minor,
                )
            )  # fmt: skip
    reranking = None
    if before.strategy is not after.strategy:
        still = [award for award in awards if award.lead_id not in unqualified]
        reranking = rerank(before.strategy, after.strategy, still, definitions or {})
    return PolicyDryRun(
        leads=len(leads), changed=turns.total() + (reranking.moved if reranking else 0), reranking=reranking,
        qualified_before=qualified[0], qualified_after=qualified[1],
        sold_lost=sold_lost, lost_minor=lost_minor, named=tuple(named),
        turns=tuple(Turn(before=old, after=new, leads=count) for (old, new), count in turns.most_common()),
    )  # fmt: skip


def _judge(rules: VerticalDefinition, lead: PastLead) -> tuple[str, int]:
    """Return the outcome in words, and the score."""
    received = OpenLead(lead_id=lead.id, state=LeadState.received, facts=lead.facts, received_at=lead.received_at)
    result = decide(received, rules, 0, NO_SUBSCRIPTIONS, lead.received_at)
    if isinstance(result, MatchedCandidates):
        outcome = QUALIFIED
    elif isinstance(result, Wait):
        outcome = "nurtured"
    else:
        outcome = f"rejected: {result.reason}"
    return outcome, result.verdict.score


# Statements.


async def list_past_leads(
    connection: Connection, vertical_id: UUID, since: datetime, limit: int
) -> tuple[PastLead, ...]:
    """Return the newest live leads of the vertical that were judged, newest first."""
    rows = await connection.fetch(SQL["list_past_leads"], vertical_id, since, limit)
    return convert_rows(({**row, "facts": msgspec.json.decode(row["facts"], type=Facts)} for row in rows), PastLead)


async def list_past_awards(connection: Connection, leads: Iterable[UUID]) -> tuple[PastAward, ...]:
    """Return the last award of each of these leads, oldest first."""
    rows = await connection.fetch(SQL["list_past_awards"], list(leads))
    return convert_rows(({**row, "candidates": read_candidates(row["candidates"])} for row in rows), PastAward)
