"""95 % intervals: of one business from its leads, of many from whole businesses. Measured in docs/ROI.md.

Money is skewed and a ratio even more so, but their logarithms are nearly normal: every interval of an amount or a ratio
is made on the log scale, every interval of a share on the scale of log odds or from a Beta posterior. No interval is
given where nothing has happened yet: a logarithm of zero is no statement about money.
"""

import math
from typing import Final

import msgspec
import numpy as np

from billing.lifetable import Floats
from billing.quantiles import beta_quantile, t_quantile

DRAWS: Final = 1_000
"Of businesses: the standard error of a standard error from so many is 2 %."
MOST_CLUSTERS: Final = 200
"More businesses than this are drawn in so many groups of several: their spread says the same, in less time."
MANY_BUSINESSES: Final = 15
"Drawing businesses again gives intervals that are too narrow for fewer; leaving each out once is wider."
_LOW, _HIGH = 0.025, 0.975


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its 95 % interval; no interval where it is taken as given or cannot be told."""

    value: float
    low: float | None = None
    high: float | None = None


def share(estimate: float, variance: float, leads: float) -> Figure:
    """A rate of independent leads: Beta posterior under Jeffreys' prior, for as many leads as the variance is worth.

    Without censoring these are all leads and the posterior is exact. `leads` stands in where the rate is 0 or 1.
    """
    worth = estimate * (1 - estimate) / variance if variance > 0 and 0 < estimate < 1 else leads
    a, b = estimate * worth + 0.5, (1 - estimate) * worth + 0.5
    return Figure(value=estimate, low=beta_quantile(_LOW, a, b), high=beta_quantile(_HIGH, a, b))


def amount(estimate: float, log_variance: float, freedom: float) -> Figure:
    """A positive amount or ratio, from the variance of its logarithm; Student's t, for variances that are estimated."""
    if not (estimate > 0 and math.isfinite(log_variance) and freedom >= 1):
        return Figure(value=estimate)
    factor = math.exp(t_quantile(_HIGH, freedom) * math.sqrt(log_variance))
    return Figure(value=estimate, low=estimate / factor, high=estimate * factor)


def freedom_of(*parts: tuple[float, float]) -> float:
    """Welch's degrees of freedom of a sum of independent variances, each with its own."""
    total = sum(variance for variance, _ in parts)
    return total**2 / sum(variance**2 / freedom for variance, freedom in parts) if total > 0 else 1.0


class Resampling(msgspec.Struct, frozen=True, kw_only=True):
    """Which businesses count how often, one row per try; `scale` turns the tries' variance into the estimate's."""

    weights: Floats
    scale: float

    def variance(self, logs: Floats) -> float:
        """Of a statistic whose logarithm each try has given. Infinite where a try could not tell it."""
        return float(logs.var() * self.scale) if np.isfinite(logs).all() else math.inf


def resampling(businesses: int, seed: int) -> Resampling:
    """Of 15 businesses and more, a thousand draws of one fewer than there are (which makes the variance unbiased).

    Of fewer, each left out once (the jackknife).
    """
    if businesses < MANY_BUSINESSES:
        left_out = np.ones((businesses, businesses)) - np.eye(businesses)
        return Resampling(weights=left_out, scale=businesses - 1)
    chance = np.random.default_rng(seed)
    drawn = chance.multinomial(businesses - 1, np.full(businesses, 1 / businesses), DRAWS)
    return Resampling(weights=drawn.astype(float), scale=1.0)


def pooled_amount(estimate: float, log_variance: float, businesses: int) -> Figure:
    """As `amount`, where the variance came from whole businesses: the mean and what divides it have used up two."""
    return amount(estimate, log_variance, businesses - 2)


def pooled_share(estimate: float, odds_variance: float, businesses: int) -> Figure:
    """A rate from the variance of its log odds between businesses."""
    if not (0 < estimate < 1 and math.isfinite(odds_variance)):
        return Figure(value=estimate)
    odds = pooled_amount(estimate / (1 - estimate), odds_variance, businesses)
    if odds.low is None or odds.high is None:
        return Figure(value=estimate)
    return Figure(value=estimate, low=odds.low / (1 + odds.low), high=odds.high / (1 + odds.high))
