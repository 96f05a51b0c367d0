"""Compare two simulations of the same leads: sales, money, shares of businesses, and what cannot be known.

Figures per week have 95 % intervals from a bootstrap over whole weeks. With few weeks such intervals are too narrow;
they are widened by the factor that makes them exact for normal data (the expanded percentile interval of Hesterberg,
What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import sqrt
from typing import Final
from uuid import UUID

import msgspec
import numpy as np

from billing.intervals import Figure
from billing.quantiles import t_quantile
from marketplace.simulations.simulator import LeadEnd, RecordedLead, SimulatedEnd, Simulator
from routing.shares import LEAD

WEEK: Final = timedelta(weeks=1)
DRAWS: Final = 2_000
"Bootstrap draws: the ends of an interval then vary by some 2 % of its width from seed to seed."
SEED: Final = 10
LEAST_WEEKS: Final = 4
"Whole weeks below which a figure has no interval."
_NORMAL: Final = 1.959964
"97.5 % quantile of the normal distribution."


class LeadFact(msgspec.Struct, frozen=True):
    """Facts of one lead that a comparison needs: its week from 0, the business that got it, and whether that won."""

    week: int
    business_id: UUID | None
    won: bool


class SimulationFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of one simulation. Amounts are minor units.

    `misplaced` is the share of the sales that went to another business than the weights of those that could have had
    each lead give, from 0 to 1.
    """

    leads: int
    sold: int
    unsold: int
    rejected: int
    waiting: int
    revenue_minor: int
    payout_minor: int
    misplaced: float


class BusinessComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One business in both simulations: leads, amounts in minor units, and the leads that its weight gives it."""

    business_id: UUID
    leads_before: int
    leads_after: int
    spent_before_minor: int
    spent_after_minor: int
    entitled_before: float
    entitled_after: float


class WinComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Wins that are on record, of leads which the unchanged rules give to the business that won.

    With the changed rules the same business gets `stay` of them, nobody gets `lost`, and another business gets
    `moved`, of which nobody knows whether it would have won.
    """

    wins: int
    stay: int
    lost: int
    moved: int


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement of a simulation by the rules as they were at each time with what happened in fact.

    `same_business` of `leads` went to the same business as in fact, or to none as in fact. `same_end` were sold as in
    fact, or not sold as in fact. `same_shares` is the part of the sales, from 0 to 1, in which the numbers of leads of
    the businesses agree, whichever leads they are.
    """

    leads: int
    same_business: int
    same_end: int
    same_shares: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Result of changed rules beside that of the unchanged ones, for the same leads.

    `gained` leads are sold with the changed rules alone, `lost` without them alone, and `moved` are sold to another
    business. `sold_a_week` and `revenue_a_week` (minor units) are differences, `wins_lost_a_week` is that of `wins`.
    """

    weeks: float
    before: SimulationFigures
    after: SimulationFigures
    gained: int
    lost: int
    moved: int
    sold_a_week: Figure
    revenue_a_week: Figure
    wins_lost_a_week: Figure
    businesses: tuple[BusinessComparison, ...]
    wins: WinComparison
    reproduction: Reproduction


def lead_facts(leads: Iterable[RecordedLead], since: datetime) -> list[LeadFact]:
    """Return what a comparison needs of the leads, in their order."""
    return [LeadFact((lead.received_at - since) // WEEK, lead.business_id, lead.won) for lead in leads]


def compare(
    facts: Sequence[LeadFact],
    recorded: Simulator,
    before: Simulator,
    after: Simulator,
    since: datetime,
    until: datetime,
) -> Comparison:
    """Compare two finished simulations of the leads of `facts`, received from `since` up to `until`.

    `recorded` is that by the rules as they were at each time.
    """
    weeks = (until - since) / WEEK
    whole_weeks = (until - since) // WEEK
    pairs = list(zip(facts, before.ends, after.ends, strict=True))
    changed = Counter(_change(first, second) for _, first, second in pairs)
    sold, revenue, wins_lost = np.zeros(whole_weeks + 1), np.zeros(whole_weeks + 1), np.zeros(whole_weeks + 1)
    wins: Counter[str] = Counter()
    for fact, first, second in pairs:
        week = min(fact.week, whole_weeks)
        sold[week] += (second.end is LeadEnd.sold) - (first.end is LeadEnd.sold)
        revenue[week] += second.price_minor - first.price_minor
        if fact.won and first.business_id == fact.business_id:
            fate = _win_fate(fact, second)
            wins[fate] += 1
            wins_lost[week] += fate == "lost"
    return Comparison(
        weeks=weeks,
        before=_figures(before),
        after=_figures(after),
        gained=changed["gained"],
        lost=changed["lost"],
        moved=changed["moved"],
        sold_a_week=_per_week(sold, weeks),
        revenue_a_week=_per_week(revenue, weeks),
        wins_lost_a_week=_per_week(wins_lost, weeks),
        businesses=_businesses(before, after),
        wins=WinComparison(wins=wins.total(), stay=wins["stay"], lost=wins["lost"], moved=wins["moved"]),
        reproduction=_reproduction(facts, recorded.ends),
    )


def _change(before: SimulatedEnd, after: SimulatedEnd) -> str:
    """Return what the changed rules did to one lead: gained, lost, moved or same."""
    if before.business_id == after.business_id:
        return "same"
    if before.business_id is None:
        return "gained"
    return "lost" if after.business_id is None else "moved"


def _win_fate(fact: LeadFact, after: SimulatedEnd) -> str:
    if after.business_id == fact.business_id:
        return "stay"
    return "lost" if after.business_id is None else "moved"


def _figures(simulator: Simulator) -> SimulationFigures:
    ends = Counter(end.end for end in simulator.ends)
    leads_of = Counter(end.business_id for end in simulator.ends if end.business_id is not None)
    apart = sum(abs(LEAD * leads_of[key] - due) for key, due in simulator.entitled.items())
    return SimulationFigures(
        leads=len(simulator.ends),
        sold=ends[LeadEnd.sold],
        unsold=ends[LeadEnd.unsold],
        rejected=ends[LeadEnd.rejected],
        waiting=ends[LeadEnd.waiting],
        revenue_minor=sum(end.price_minor for end in simulator.ends),
        payout_minor=sum(end.payout_minor for end in simulator.ends),
        misplaced=apart / 2 / LEAD / max(1, ends[LeadEnd.sold]),
    )


def _businesses(before: Simulator, after: Simulator) -> tuple[BusinessComparison, ...]:
    """Return the businesses that could have had a lead in either simulation, those with the largest change first."""
    leads_before, spent_before = _by_business(before.ends)
    leads_after, spent_after = _by_business(after.ends)
    rows = [
        BusinessComparison(
            business_id=key,
            leads_before=leads_before[key],
            leads_after=leads_after[key],
            spent_before_minor=spent_before[key],
            spent_after_minor=spent_after[key],
            entitled_before=round(before.entitled[key] / LEAD, 2),
            entitled_after=round(after.entitled[key] / LEAD, 2),
        )
        for key in before.entitled.keys() | after.entitled.keys()
    ]
    return tuple(sorted(rows, key=lambda row: (-abs(row.leads_after - row.leads_before), row.business_id)))


def _by_business(ends: Iterable[SimulatedEnd]) -> tuple[Counter[UUID], Counter[UUID]]:
    """Return leads and amounts by business."""
    leads: Counter[UUID] = Counter()
    spent: Counter[UUID] = Counter()
    for end in ends:
        if end.business_id is not None:
            leads[end.business_id] += 1
            spent[end.business_id] += end.price_minor
    return leads, spent


def _reproduction(facts: Sequence[LeadFact], ends: Sequence[SimulatedEnd]) -> Reproduction:
    pairs = list(zip(facts, ends, strict=True))
    recorded = Counter(fact.business_id for fact in facts if fact.business_id is not None)
    simulated = Counter(end.business_id for end in ends if end.business_id is not None)
    return Reproduction(
        leads=len(pairs),
        same_business=sum(fact.business_id == end.business_id for fact, end in pairs),
        same_end=sum((fact.business_id is None) == (end.business_id is None) for fact, end in pairs),
        same_shares=_overlap(recorded, simulated),
    )


def _overlap(first: Mapping[UUID, int], second: Mapping[UUID, int]) -> float:
    """Return the part of the larger of two sums that both have by the same keys; 1 if both are empty."""
    larger = max(sum(first.values()), sum(second.values()))
    return sum(min(count, second.get(key, 0)) for key, count in first.items()) / larger if larger else 1.0


def _per_week(totals: np.ndarray, weeks: float) -> Figure:
    """Return the mean per week of a sum over all leads, with its interval from the whole weeks.

    `totals` has the sum of each whole week, then that of the days after them.
    """
    value = float(totals.sum()) / weeks
    whole = totals[:-1]
    count = len(whole)
    if count < LEAST_WEEKS:
        return Figure(value=value)
    draws = np.random.default_rng(SEED).integers(0, count, size=(DRAWS, count))
    means = whole[draws].mean(axis=1) - whole.mean()
    factor = sqrt(count / (count - 1)) * t_quantile(0.975, count - 1) / _NORMAL
    low, high = np.quantile(means, (0.025, 0.975)) * factor
    return Figure(value=value, low=value + float(low), high=value + float(high))
