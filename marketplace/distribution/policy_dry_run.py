"""Dry run of a new version of a vertical's rules on past leads: the functions that decide live, run twice.

Nothing is written. Each lead is qualified under both versions, as of the moment it was received. If the strategy
differs, the businesses on record that could have had a lead are ranked again. Caps and wallets are as they were, not as
they would have become; the credits of `fair` are as they would have become.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, Queries, fetch_rows, session
from marketplace.distribution.explorer import list_definitions
from marketplace.rules.catalog import Vertical
from routing.decision import CandidateRecord, MatchedCandidates, OpenLead, Wait, decide, rank_recorded
from routing.index import SubscriptionIndex
from routing.inquiry import Facts
from routing.lifecycle import LeadState
from routing.matching import CapsAndWallet
from routing.ranking import Strategy
from routing.shares import business_weights, credit_changes
from routing.subscription import SubscriptionDefinition
from routing.vertical import VerticalDefinition

SQL: Final = Queries(__file__, "policy_dry_run.sql")

SPAN: Final = timedelta(days=30)
"Age of the oldest lead that is tried."
MOST_LEADS: Final = 5_000
"Leads of one dry run: half a second of one core."
MOST_NAMED: Final = 25
"Changed leads listed one by one: enough to see what they have in common."

QUALIFIED: Final = "qualified"
NO_SUBSCRIPTIONS: Final = SubscriptionIndex(())
"Index of a decision that only qualifies."


class PastLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead that has been decided about, with its facts. `sold_minor` is its price, or None if it was not sold."""

    id: UUID
    facts: Facts
    received_at: datetime
    state: str
    sold_minor: int | None


class PastAward(msgspec.Struct, frozen=True, kw_only=True):
    """An award on record: its strategy, its winner, and every eligible candidate in the order of ranking."""

    lead_id: UUID
    made_at: datetime
    strategy: Strategy
    winner: UUID
    candidates: tuple[CandidateRecord, ...]


class ChangedLead(msgspec.Struct, frozen=True, kw_only=True):
    """One lead that would have had another outcome."""

    id: UUID
    received_at: datetime
    before: str
    after: str
    score_before: int
    score_after: int
    sold_minor: int | None


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """Number of leads whose outcome would have changed from `before` to `after`."""

    before: str
    after: str
    leads: int


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of one subscription among those ranked again: by the strategy in force, and by the new one."""

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
    """Awards ranked by both strategies: `moved` of `awards` would have gone to another subscription.

    Prices are the sums over all awards by each strategy. `alone` awards had one candidate only.
    """

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
    """Result of a dry run: `changed` of `leads` would have another outcome or another business.

    `sold_lost` leads were sold and would not have qualified: `lost_minor` was charged for them. Amounts are minor
    units of the vertical's currency. `reranking` is None if the strategy stays.
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
"Definitions by subscription and version."


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

    The winner by the recorded strategy is the recorded winner. The credits of `fair` begin at zero with the first award
    and follow the winners that it has.
    """
    credits: Counter[UUID] = Counter()
    counts: Counter[tuple[UUID, bool]] = Counter()
    named: list[Move] = []
    moved = alone = 0
    prices = [0, 0]
    for award in awards:
        winners = [_winner(strategy, award, definitions, credits) for strategy in (before, after)]
        if after is Strategy.fair:
            _follow_credits(credits, award, definitions, winners[1])
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
                id=award.lead_id,
                made_at=award.made_at,
                before=first.subscription_id,
                after=second.subscription_id,
                price_before_minor=first.price_minor,
                price_after_minor=second.price_minor,
            )
        )
    subscriptions = dict.fromkeys(subscription_id for subscription_id, _ in counts)
    shares = [Share(subscription_id=key, before=counts[key, False], after=counts[key, True]) for key in subscriptions]
    return Reranking(
        before=before,
        after=after,
        awards=len(awards),
        alone=alone,
        moved=moved,
        price_before_minor=prices[0],
        price_after_minor=prices[1],
        named=tuple(named[: -MOST_NAMED - 1 : -1]),
        shares=tuple(sorted(shares, key=lambda share: -abs(share.after - share.before))),
    )


def _follow_credits(
    credits: Counter[UUID], award: PastAward, definitions: Definitions, winner: CandidateRecord
) -> None:
    """Change the credits of the businesses on record by the award of the lead to `winner`."""
    terms = ((record.business_id, definitions[record.subscription_id, record.version]) for record in award.candidates)
    credits.update(credit_changes(business_weights(terms), winner.business_id))


def _winner(
    strategy: Strategy, award: PastAward, definitions: Definitions, credits: Mapping[UUID, int]
) -> CandidateRecord:
    """Return the winner by a strategy. Raises ValueError if the recorded winner is not among the candidates."""
    records = {record.subscription_id: record for record in award.candidates}
    if strategy is not award.strategy:
        terms = {
            record.subscription_id: definitions[record.subscription_id, record.version] for record in award.candidates
        }
        standings = {
            record.subscription_id: CapsAndWallet(available_minor=0, share_credit=credits.get(record.business_id, 0))
            for record in award.candidates
        }
        ranked = rank_recorded(strategy, award.candidates, terms, standings, award.lead_id)
        return records[ranked[0].candidate.subscription_id]
    if award.winner not in records:
        raise ValueError(f"the winner of lead {award.lead_id} is not on its record")
    return records[award.winner]


def compare(
    before: VerticalDefinition,
    after: VerticalDefinition,
    leads: Sequence[PastLead],
    awards: Sequence[PastAward] = (),
    definitions: Definitions | None = None,
) -> PolicyDryRun:
    """Apply both versions to each lead, as of the moment it was received, and count the differences.

    Windows and caps used by other leads are left aside.
    """
    turns: Counter[tuple[str, str]] = Counter()
    changed: set[UUID] = set()
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
        changed.add(lead.id)
        if lead.sold_minor is not None and new != QUALIFIED:
            sold_lost, lost_minor = sold_lost + 1, lost_minor + lead.sold_minor
        if len(named) < MOST_NAMED:
            named.append(
                ChangedLead(
                    id=lead.id,
                    received_at=lead.received_at,
                    before=old,
                    after=new,
                    score_before=old_score,
                    score_after=new_score,
                    sold_minor=lead.sold_minor,
                )
            )
    reranking = None
    if before.strategy is not after.strategy:
        comparable = [award for award in awards if award.lead_id not in changed]
        reranking = rerank(before.strategy, after.strategy, comparable, definitions or {})
    moved = reranking.moved if reranking else 0
    return PolicyDryRun(
        leads=len(leads),
        changed=turns.total() + moved,
        reranking=reranking,
        qualified_before=qualified[0],
        qualified_after=qualified[1],
        sold_lost=sold_lost,
        lost_minor=lost_minor,
        named=tuple(named),
        turns=tuple(Turn(before=old, after=new, leads=count) for (old, new), count in turns.most_common()),
    )


def _judge(rules: VerticalDefinition, lead: PastLead) -> tuple[str, int]:
    """Return the outcome in words, and the score, at the time of the newest that is known of the lead."""
    received = OpenLead(lead_id=lead.id, state=LeadState.received, facts=lead.facts, received_at=lead.received_at)
    result = decide(received, rules, 0, NO_SUBSCRIPTIONS, lead.facts.newest_at)
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
    """Return the newest live leads of the vertical that have been decided about, newest first."""
    return await fetch_rows(connection, SQL["list_past_leads"], PastLead, vertical_id, since, limit)


async def list_past_awards(connection: Connection, leads: Iterable[UUID]) -> tuple[PastAward, ...]:
    """Return the last award of each of these leads, oldest first."""
    return await fetch_rows(connection, SQL["list_past_awards"], PastAward, list(leads))
