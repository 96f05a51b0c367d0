"""Measure the coverage of the 95 % intervals of billing/roi.py in simulated marketplaces with known true values.

Each marketplace has one business or many. Leads are won at random, most never; early wins are more frequent than late
ones, and their values are log-normal. Leads arrive over half a year that ends today, so that half are too young for the
horizon. Businesses differ in size and win rate, and win rates of exclusive and shared leads are correlated. Prints a
table with the share of marketplaces in which each interval contained the true value.

    python benchmarks/roi_coverage.py [marketplaces] [seed]
"""

import math
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import msgspec
import numpy as np

from billing.estimates import Estimator
from billing.evidence import LEAST_WINS, Side
from billing.intervals import Figure, resample
from billing.lifetable import WEEKS, Cells, Floats

MARKETPLACES = 2_000
SEED = 20_261_122
FIGURES = ("win rate", "contact rate", "revenue per unit", "cost per won", "win ratio", "revenue ratio")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of marketplace: average leads of each source per business, and the true rates, costs and values."""

    businesses: int
    leads: int
    exclusive_rate: float = 0.15
    shared_rate: float = 0.06
    mean_value: float = 2_000.0
    value_spread: float = 0.8
    business_spread: float = 0.35
    exclusive_cost: float = 80.0
    shared_cost: float = 30.0


SETTINGS = (
    Setting(businesses=1, leads=250),
    Setting(businesses=1, leads=500),
    Setting(businesses=1, leads=2_000),
    Setting(businesses=1, leads=1_000, value_spread=1.2),
    Setting(businesses=1, leads=2_000, exclusive_rate=0.04, shared_rate=0.015),
    Setting(businesses=8, leads=100),
    Setting(businesses=15, leads=60),
    Setting(businesses=30, leads=60),
    Setting(businesses=30, leads=60, value_spread=1.2, business_spread=0.5),
    Setting(businesses=100, leads=30),
    Setting(businesses=300, leads=10),
)


def side(chance: np.random.Generator, setting: Setting, effects: Floats, rate: float, cost: float) -> Side:
    """Simulate the leads of one source, as of today."""
    count = len(effects)
    sizes = (
        np.array([setting.leads])
        if count == 1
        else np.maximum(2, chance.poisson(chance.gamma(3, setting.leads / 3, count)))
    )
    business = np.repeat(np.arange(count), sizes)
    number = len(business)
    age = np.minimum(chance.integers(0, 2 * WEEKS, number), WEEKS)
    spread = setting.value_spread
    value = chance.lognormal(math.log(setting.mean_value) - spread**2 / 2, spread, number)
    paid = cost * chance.uniform(0.8, 1.2, number)

    def happening(rates: Floats, late: float, worth: Floats) -> Cells:
        week = np.minimum((chance.beta(1, late, number) * WEEKS).astype(int), WEEKS - 1)
        happened = (chance.random(number) < np.minimum(rates, 1)) & (week < age)
        v, once = np.where(happened, worth, 0.0), np.ones(number)
        return Cells(
            cluster=business,
            weeks=np.where(happened, week + 1, age),
            happened=happened,
            leads=once,
            squares=once,
            value=v,
            cross=v,
            value_squares=v**2,
            value_fourths=v**4,
        )

    ones = np.ones(number)
    won = happening(rate * effects[business], 2.5, value)
    contacted = happening(np.full(number, 0.6), 8.0, ones)
    return Side(
        leads=np.bincount(business, minlength=count).astype(float),
        cost_minor=np.bincount(business, paid, count).astype(float),
        outcomes=number,
        won=won,
        contacted=contacted,
        qualified=contacted,
    )


def effects(chance: np.random.Generator, setting: Setting) -> tuple[Floats, Floats]:
    """Return factors on each business's win rates for both sources: 1 on average, correlated by about one half."""
    if setting.businesses == 1:
        return np.ones(1), np.ones(1)
    spread, common = setting.business_spread, chance.normal(size=setting.businesses)
    exclusive, shared = (
        np.exp(spread * (0.7 * common + math.sqrt(0.51) * chance.normal(size=setting.businesses)) - spread**2 / 2)
        for _ in range(2)
    )
    return exclusive, shared


def held(setting: Setting, chance: np.random.Generator, seed: int) -> dict[str, bool | None]:
    """Return, for one marketplace, whether each interval contains the true value; None with too few wins to judge."""
    ours, theirs = effects(chance, setting)
    exclusive = side(chance, setting, ours, setting.exclusive_rate, setting.exclusive_cost)
    shared = side(chance, setting, theirs, setting.shared_rate, setting.shared_cost)
    if min(exclusive.won.events, shared.won.events) < LEAST_WINS:
        return dict.fromkeys(FIGURES)
    count = setting.businesses
    estimator = Estimator(count, WEEKS, resample(count, seed) if count > 1 else None)
    rate = estimator.rate(exclusive.won)
    revenue = setting.exclusive_rate * setting.mean_value / setting.exclusive_cost
    shared_revenue = setting.shared_rate * setting.mean_value / setting.shared_cost
    intervals: dict[str, tuple[Figure | None, float]] = {
        "win rate": (rate, setting.exclusive_rate),
        "contact rate": (estimator.rate(exclusive.contacted), 0.6),
        "revenue per unit": (estimator.revenue(exclusive), revenue),
        "cost per won": (
            estimator.per_event(exclusive, exclusive.won, rate),
            setting.exclusive_cost / setting.exclusive_rate,
        ),
        "win ratio": (estimator.win_ratio(exclusive, shared), setting.exclusive_rate / setting.shared_rate),
        "revenue ratio": (estimator.revenue_ratio(exclusive, shared), revenue / shared_revenue),
    }
    return {name: _holds(figure, truth) for name, (figure, truth) in intervals.items()}


def _holds(figure: Figure | None, truth: float) -> bool | None:
    if figure is None or figure.low is None or figure.high is None:
        return None
    return figure.low <= truth <= figure.high


def coverage(setting: Setting, marketplaces: int, seed: int) -> tuple[dict[str, float], int]:
    """Return the share of marketplaces in which each interval contains the truth, and the number with intervals."""
    chance = np.random.default_rng(seed)
    held_by: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    for number in range(marketplaces):
        for name, holds in held(setting, chance, seed + number).items():
            counted[name] += holds is not None
            held_by[name] += bool(holds)
    return {name: held_by[name] / max(counted[name], 1) for name in FIGURES}, min(counted.values())


def main() -> None:
    """Print one line per setting."""
    arguments = [int(each) for each in sys.argv[1:]]
    marketplaces, seed = [*arguments, *(MARKETPLACES, SEED)[len(arguments) :]]
    print(
        "| businesses | leads of a source, each | rates | spread of value, of businesses | judged |",
        *FIGURES,
        sep=" | ",
    )
    with ProcessPoolExecutor() as pool:
        results = pool.map(coverage, SETTINGS, [marketplaces] * len(SETTINGS), [seed] * len(SETTINGS))
        for setting, (shares, counted) in zip(SETTINGS, results, strict=True):
            print(
                f"| {setting.businesses} | {setting.leads} | {setting.exclusive_rate:g}, {setting.shared_rate:g}",
                f"{setting.value_spread:g}, {setting.business_spread if setting.businesses > 1 else 0:g}",
                counted,
                *(f"{100 * shares[name]:.1f}" for name in FIGURES),
                sep=" | ",
                end=" |\n",
                flush=True,
            )


if __name__ == "__main__":
    main()
