"""Simulated marketplaces whose truth is known, for benchmarks/truth.py.

Leads arrive evenly over the weeks before a look; the business knows at the look what happened up to it. Wins come early
rather than late within 13 weeks. The draws are fixed by seeds.
"""

import math
from typing import Final

import msgspec
import numpy as np

from billing.findings import Roi
from billing.intervals import Figure
from billing.lifetable import WEEKS, Floats
from billing.outcomes import WEEK_SECONDS, LeadColumns, evidence_of
from billing.roi import assess

SEED: Final = 20_261_201
YEAR_WEEKS: Final = 52
CONTACTED: Final = 0.6
"Share of leads that are reached in the end, if not won."
LATE: Final = 2.5
"Shape of the time to a win: of the wins, 82 % come in the first half of 13 weeks."


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One source of leads: leads per business and week, share won within 13 weeks, prices and values in minor units.

    `price_spread` and `value_spread` are standard deviations of logarithms. With an `index` above 0, values follow
    Pareto's law with this index instead.
    """

    weekly: float
    rate: float
    price: float = 8_000.0
    price_spread: float = 0.1
    value: float = 200_000.0
    value_spread: float = 0.8
    index: float = 0.0


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """All leads of one source that businesses bought over some weeks, with what became of them in the end.

    Without a `kind` all are of one kind.
    """

    business: np.ndarray
    arrived: np.ndarray
    cost_minor: np.ndarray
    contacted: np.ndarray
    won: np.ndarray
    value_minor: np.ndarray
    kind: np.ndarray | None = None
    delayed: np.ndarray | None = None

    def seen(self, week: float) -> LeadColumns:
        """Return what is known at the end of a week: leads that have arrived, and what has happened to them."""
        here = np.flatnonzero(self.arrived < week * WEEK_SECONDS)
        age = (week * WEEK_SECONDS - self.arrived[here]).astype(np.int64)
        won = np.where(self.won[here] < age, self.won[here], -1)
        contacted = np.where(self.contacted[here] < age, self.contacted[here], -1)
        return LeadColumns(
            business=self.business[here],
            week=self.arrived[here] // WEEK_SECONDS,
            stratum=np.zeros(len(here), np.int64),
            kind=self.kind[here] if self.kind is not None else np.zeros(len(here), np.int64),
            age_seconds=age,
            cost_minor=self.cost_minor[here],
            contacted_seconds=contacted,
            won_seconds=won,
            won_minor=np.where(won >= 0, self.value_minor[here], 0),
            qualified=np.full(len(here), -1),
            ended=((won >= 0) | (age > 8 * WEEK_SECONDS)).astype(np.int64),
            delayed=self.delayed[here] if self.delayed is not None else np.full(len(here), -1),
        )


def buy(chance: np.random.Generator, source: Source, weeks: float, skill: Floats, sizes: Floats) -> Purchase:
    """Draw the leads that businesses buy over some weeks.

    A business wins `skill` times the source's rate of its leads, and buys `sizes` times the source's leads.
    """
    counts = chance.poisson(source.weekly * weeks * sizes)
    business = np.repeat(np.arange(len(sizes)), counts)
    number = len(business)
    never = np.iinfo(np.int64).max

    def log_normal(mean: float, spread: float) -> np.ndarray:
        return chance.lognormal(math.log(mean) - spread**2 / 2, spread, number).round().astype(np.int64)

    wins = chance.random(number) < source.rate * skill[business]
    time = (chance.beta(1, LATE, number) * WEEKS * WEEK_SECONDS).astype(np.int64)
    reached = wins | (chance.random(number) < (CONTACTED - source.rate) / (1 - source.rate))
    contact = (chance.beta(1, 8, number) * WEEKS * WEEK_SECONDS).astype(np.int64)
    return Purchase(
        business=business,
        arrived=(chance.random(number) * weeks * WEEK_SECONDS).astype(np.int64),
        cost_minor=np.maximum(log_normal(source.price, source.price_spread), 1),
        contacted=np.where(reached, np.where(wins, np.minimum(contact, time), contact), never),
        won=np.where(wins, time, never),
        value_minor=_power_law(chance, source, number)
        if source.index
        else log_normal(source.value, source.value_spread),
    )


def _power_law(chance: np.random.Generator, source: Source, number: int) -> np.ndarray:
    least = source.value * (source.index - 1) / source.index
    return (least * (1 + chance.pareto(source.index, number))).round().astype(np.int64)


ALONE: Final = np.ones(1)


def answer(exclusive: Purchase, shared: Purchase, week: float, seed: int = 1) -> Roi:
    """Return the report's answer at the end of a week."""
    return assess(evidence_of(exclusive.seen(week), shared.seen(week)), seed)


def holds(figure: Figure | None, truth: float) -> bool | None:
    """Return whether the interval of a figure holds the truth; None without an interval."""
    if figure is None or figure.low is None or figure.high is None:
        return None
    return figure.low <= truth <= figure.high
