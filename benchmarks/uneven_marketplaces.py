"""Marketplaces whose jobs, businesses or weeks are uneven, for benchmarks/truth.py."""

from typing import Final

import msgspec
import numpy as np

from benchmarks.marketplaces import ALONE, SEED, YEAR_WEEKS, Purchase, Source, answer, buy, holds
from billing.findings import Roi, RoiVerdict
from billing.lifetable import WEEKS
from billing.outcomes import WEEK_SECONDS

RATE: Final = 0.15
VALUE: Final = 200_000.0
PRICE: Final = 8_000.0
REVENUE: Final = RATE * VALUE / PRICE
"True revenue per unit spent."


def _refused(roi: Roi) -> bool:
    """Return whether the answer says that leads are too uneven, and neither ratio nor verdict says anything else."""
    return roi.verdict is RoiVerdict.too_uneven and roi.ratio is not None and roi.ratio.low is None


def heavy_tails(spread: float, index: float, seed: int) -> tuple[bool, bool, bool | None]:
    """Return whether a business whose jobs are log-normal of that spread, or Pareto's of that index, was told that they
    are too uneven; whether a range of its revenue or of the ratio was wrong; and whether that of revenue held.

    It buys 20 leads of each source a week for a year, won at 15 %: some 150 jobs of each.
    """
    chance = np.random.default_rng((SEED, 11, seed))
    source = Source(weekly=20, rate=RATE, value=VALUE, value_spread=spread, index=index)
    exclusive, shared = (buy(chance, source, YEAR_WEEKS, ALONE, ALONE) for _ in range(2))
    roi = answer(exclusive, shared, YEAR_WEEKS)
    revenue = holds(roi.exclusive.revenue_per_unit, REVENUE)
    return _refused(roi), revenue is False or holds(roi.ratio, 1.0) is False, revenue


def two_sizes_of_jobs(seed: int) -> bool:
    """Return whether a business was told that its jobs are too uneven, of which a fifth are eight times as large as the
    others: repairs and new roofs."""
    chance = np.random.default_rng((SEED, 12, seed))
    source = Source(weekly=20, rate=RATE, value=VALUE / 2.4, value_spread=0.3)
    exclusive, shared = (buy(chance, source, YEAR_WEEKS, ALONE, ALONE) for _ in range(2))

    def with_large(purchase: Purchase) -> Purchase:
        large = np.where(chance.random(len(purchase.won)) < 0.2, 8, 1)
        return msgspec.structs.replace(purchase, value_minor=purchase.value_minor * large)

    return _refused(answer(with_large(exclusive), with_large(shared), YEAR_WEEKS))


BUSINESSES: Final = 20


def large_businesses(part: float, seed: int) -> tuple[bool, bool | None]:
    """Return whether the answer over 20 businesses, of which two buy a `part` of all leads, says that they are too
    uneven, and whether its ratio held. Businesses are unlike in what they win of each source."""
    chance = np.random.default_rng((SEED, 13, seed))
    sizes = np.full(BUSINESSES, BUSINESSES * (1 - part) / (BUSINESSES - 2))
    sizes[:2] = BUSINESSES * part / 2
    exclusive, shared = (
        buy(chance, Source(weekly=3, rate=rate), 2 * WEEKS, np.exp(chance.normal(-0.06, 0.35, BUSINESSES)), sizes)
        for rate in (RATE, RATE / 2)
    )
    roi = answer(exclusive, shared, 2 * WEEKS, seed)
    return _refused(roi), holds(roi.ratio, 2.0)


def alike_weeks(common: float, bursts: float, seed: int) -> tuple[bool | None, bool | None, bool | None]:
    """Return whether share won, revenue per unit and ratio of one business held, whose leads of one week are alike.

    The logarithm of a week's share won has a standard deviation of 0.5. With `common` 1 a week is as good for both
    sources; with `bursts` 1 half of the leads come in a fifth of the weeks.
    """
    chance = np.random.default_rng((SEED, 14, seed))
    good = chance.normal(size=2 * WEEKS)
    sides = []
    for _ in range(2):
        week = good if common else chance.normal(size=2 * WEEKS)
        sizes = chance.gamma(0.5, 2.0, 2 * WEEKS) if bursts else np.ones(2 * WEEKS)
        # leads of a week are drawn as those of a business, and then put into their week
        source = Source(weekly=20 / (2 * WEEKS), rate=RATE, value=VALUE)
        drawn = buy(chance, source, 2 * WEEKS, np.exp(0.5 * week - 0.125), sizes)
        arrived = ((drawn.business + chance.random(len(drawn.business))) * WEEK_SECONDS).astype(np.int64)
        sides.append(msgspec.structs.replace(drawn, arrived=arrived, business=np.zeros(len(arrived), np.int64)))
    roi = answer(sides[0], sides[1], 2 * WEEKS)
    revenue = holds(roi.exclusive.revenue_per_unit, REVENUE)
    return holds(roi.exclusive.win_rate, RATE), revenue, holds(roi.ratio, 1.0)
