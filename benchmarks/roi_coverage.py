"""How often the 95 % intervals of billing/roi.py hold the truth, in simulated marketplaces whose truth is known.

Each marketplace has one business or many. Leads are won by chance, most never; a win comes sooner more often than late,
and its value is log-normal. Leads arrive over half a year that ends today, so that half are too young for the horizon.
Businesses differ in size and in how well they close, and one that closes exclusive leads well tends to close shared
ones well. Prints a table: of all marketplaces, the share in which each interval held the truth.

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
from billing.lifetable import WEEKS, Cells, Floats, cells_of

MARKETPLACES = 2_000
SEED = 20_261_122
FIGURES = ("win rate", "contact rate", "revenue per unit", "cost per won", "win ratio", "revenue ratio")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of marketplace: leads of each source per business on average, and what they truly bring."""

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
    """The leads of one source, as they look today."""
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
        seen = (chance.random(number) < np.minimum(rates, 1)) & (week < age)
        v, one = np.where(seen, worth, 0.0), np.ones(number)
        return cells_of(np.column_stack((business, np.where(seen, week + 1, age), seen, one, one, v, v, v**2, v**4)))

    ones = np.ones(number)
    won = happening(rate * effects[business], 2.5, value)
    contacted = happening(np.full(number, 0.6), 8.0, ones)
    return Side(
        leads=np.bincount(business, minlength=count).astype(float), 
        cost_minor=np.bincount(business, paid, count).astype(float),
        outcomes=number, won=won, contacted=contacted, qualified=contacted,
    )  # fmt: skip


def effects(chance: np.random.Generator, setting: Setting) -> tuple[Floats, Floats]:
    """How well each business closes leads of either source, 1 on average; alike by about one half."""
    if setting.businesses == 1:
        return np.ones(1), np.ones(1)
    spread, common = setting.business_spread, chance.normal(size=setting.businesses)
    one, other = (
        np.exp(spread * (0.7 * common + math.sqrt(0.51) * chance.normal(size=setting.businesses)) - spread**2 / 2)
        for _ in range(2)
    )
    return one, other


def held(setting: Setting, chance: np.random.Generator, seed: int) -> dict[str, bool | None]:
    """Of one marketplace: whether each interval held the truth; None where too few were won to give a verdict."""
    ours, theirs = effects(chance, setting)
    one = side(chance, setting, ours, setting.exclusive_rate, setting.exclusive_cost)
    other = side(chance, setting, theirs, setting.shared_rate, setting.shared_cost)
    if min(one.won.events, other.won.events) < LEAST_WINS:
        return dict.fromkeys(FIGURES)
    count = setting.businesses
    estimator = Estimator(count, WEEKS, resample(count, seed) if count > 1 else None)
    rate = estimator.rate(one.won)
    revenue = setting.exclusive_rate * setting.mean_value / setting.exclusive_cost
    shared_revenue = setting.shared_rate * setting.mean_value / setting.shared_cost
    told: dict[str, tuple[Figure | None, float]] = {
        "win rate": (rate, setting.exclusive_rate),
        "contact rate": (estimator.rate(one.contacted), 0.6),
        "revenue per unit": (estimator.revenue(one), revenue),
        "cost per won": (estimator.per_event(one, one.won, rate), setting.exclusive_cost / setting.exclusive_rate),
        "win ratio": (estimator.win_ratio(one, other), setting.exclusive_rate / setting.shared_rate),
        "revenue ratio": (estimator.revenue_ratio(one, other), revenue / shared_revenue),
    }
    return {name: _holds(figure, truth) for name, (figure, truth) in told.items()}


def _holds(figure: Figure | None, truth: float) -> bool | None:
    if figure is None or figure.low is None or figure.high is None:
        return None
    return figure.low <= truth <= figure.high


def coverage(setting: Setting, marketplaces: int, seed: int) -> tuple[dict[str, float], int]:
    """The share of marketplaces in which each interval held the truth, and how many gave intervals."""
    chance = np.random.default_rng(seed)
    held_by: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for number in range(marketplaces):
        for name, holds in held(setting, chance, seed + number).items():
            given[name] += holds is not None
            held_by[name] += bool(holds)
    return {name: held_by[name] / max(given[name], 1) for name in FIGURES}, min(given.values())


def main() -> None:
    """Prints one line per setting."""
    asked = [int(each) for each in sys.argv[1:]]
    marketplaces, seed = [*asked, *(MARKETPLACES, SEED)[len(asked) :]]
    print(
        "| businesses | leads of a source, each | rates | spread of value, of businesses | judged |",
        *FIGURES,
        sep=" | ",
    )
    with ProcessPoolExecutor() as pool:
        found = pool.map(coverage, SETTINGS, [marketplaces] * len(SETTINGS), [seed] * len(SETTINGS))
        for setting, (shares, given) in zip(SETTINGS, found, strict=True):
            print(
                f"| {setting.businesses} | {setting.leads} | {setting.exclusive_rate:g}, {setting.shared_rate:g}",
                f"{setting.value_spread:g}, {setting.business_spread if setting.businesses > 1 else 0:g}", given,
                *(f"{100 * shares[name]:.1f}" for name in FIGURES), sep=" | ", end=" |\n", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
