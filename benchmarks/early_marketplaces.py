"""A business with few leads in a vertical of others that differ as a Beta distribution, for benchmarks/truth.py."""

from typing import Final

import msgspec
import numpy as np

from benchmarks.marketplaces import ALONE, SEED, Purchase, Source, answer, buy, holds
from billing.early import EarlyShare, early_share
from billing.findings import RoiVerdict
from billing.lifetable import WEEKS

OTHERS: Final = 29
MEAN: Final = 0.15
LEADS: Final = 35.0
"Leads that the distribution of the share won is worth: a standard deviation of 0.06 around 15 %."
WEEKLY: Final = 5.0


def _vertical(chance: np.random.Generator) -> tuple[float, Purchase, Purchase]:
    """Return the true share of a business, its leads of half a year, and those of the others."""
    shares = chance.beta(MEAN * LEADS, (1 - MEAN) * LEADS, OTHERS + 1)
    source = Source(weekly=WEEKLY, rate=MEAN)
    own = buy(chance, msgspec.structs.replace(source, rate=float(shares[0])), 2 * WEEKS, ALONE, ALONE)
    others = buy(chance, source, 2 * WEEKS, shares[1:] / MEAN, np.ones(OTHERS))
    return float(shares[0]), own, others


def _early(own: Purchase, others: Purchase, week: float) -> EarlyShare | None:
    """Return the early estimate after some weeks of the business; the others have been there for half a year."""
    return early_share(own.seen(week), others.seen(2 * WEEKS))


def early_figure(week: float, seed: int) -> bool | None:
    """Return whether the early share held the true one, after so many weeks of five leads."""
    share, own, others = _vertical(np.random.default_rng((SEED, 31, seed)))
    early = _early(own, others, week)
    return holds(early.share if early else None, share)


def unanswered_looks(seed: int) -> float:
    """Return in how many of a hundred weekly looks of half a year a business that buys five leads of each source a week
    gets neither a comparison nor an early figure."""
    chance = np.random.default_rng((SEED, 32, seed))
    _, own, others = _vertical(chance)
    shared = buy(chance, Source(weekly=WEEKLY, rate=MEAN / 2), 2 * WEEKS, ALONE, ALONE)
    silent = 0
    for week in range(1, 2 * WEEKS + 1):
        verdict = answer(own, shared, week).verdict
        silent += verdict is RoiVerdict.not_enough_data and _early(own, others, week) is None
    return 100 * silent / (2 * WEEKS)
