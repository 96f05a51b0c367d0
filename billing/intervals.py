"""95 % intervals, for one business from its leads and for many from whole businesses. Coverage: docs/ROI.md.

Amounts are skewed and ratios of amounts more so, but their logarithms are nearly normal. So intervals of amounts and
ratios are computed on the log scale, intervals of shares on the log-odds scale or from a Beta posterior. An estimate of
zero has no interval, because it has no logarithm.
"""

import math
from typing import Final

import msgspec
import numpy as np

from billing.lifetable import Floats
from billing.quantiles import beta_quantile, t_quantile

DRAWS: Final = 1_000
"Number of bootstrap draws. A standard error estimated from so many has itself a relative standard error of 2 %."
MOST_CLUSTERS: Final = 200
"Largest number of units to resample. More businesses are put into this many groups: the same variance in less time."
MANY_BUSINESSES: Final = 15
"Least businesses for the bootstrap. With fewer, its intervals are too narrow, and the wider jackknife is used."
LEAST_EVEN: Final = 4.0
"""Least effective number of businesses, (Σn)² / Σn² with the leads n of each. If two of twenty have 80 % of the leads
it is 3, and those two decide everything."""
_LOW, _HIGH = 0.025, 0.975
_NORMAL_HIGH = 1.959964
_VERDICT_HIGH = 0.997523
"""Share of the standard normal distribution below 2.81. How seldom somebody who looks every week is then misled is
measured by `python -m benchmarks.truth`: see docs/ROI.md."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its 95 % interval. `low` and `high` are None if the value is assumed or has no interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Ratio(Figure, frozen=True, kw_only=True):
    """A ratio with its 95 % interval, and a wider one on which a verdict rests.

    `verdict_low` and `verdict_high` are so wide that somebody who looks every week of a year is seldom misled. They
    are None where `low` and `high` are.
    """

    verdict_low: float | None = None
    verdict_high: float | None = None


def share(estimate: float, variance: float, leads: float) -> Figure:
    """Return a rate among independent leads, with the interval of its Beta posterior under Jeffreys' prior.

    The posterior's sample size is the number of leads whose binomial variance would be `variance`. Without censoring
    that is the number of leads, and the posterior is exact. For a rate of 0 or 1 it is `leads`.
    """
    size = leads
    if variance > 0 and 0 < estimate < 1:
        size = estimate * (1 - estimate) / variance
    a, b = estimate * size + 0.5, (1 - estimate) * size + 0.5
    return Figure(value=estimate, low=beta_quantile(_LOW, a, b), high=beta_quantile(_HIGH, a, b))


def beta_share_of(mean: float, size: float) -> Figure:
    """Return a rate with the interval of the Beta distribution that has this mean and is worth `size` leads."""
    a, b = mean * size, (1 - mean) * size
    return Figure(value=mean, low=beta_quantile(_LOW, a, b), high=beta_quantile(_HIGH, a, b))


def amount(estimate: float, log_variance: float, freedom: float) -> Figure:
    """Return a positive amount or ratio, with an interval from the variance of its logarithm.

    The interval uses Student's t with `freedom` degrees of freedom, because the variance is itself an estimate. There
    is none if the estimate is not positive, the variance is infinite, or `freedom` is below 1.
    """
    factor = _factor(estimate, log_variance, freedom, _HIGH)
    if factor is None:
        return Figure(value=estimate)
    return Figure(value=estimate, low=estimate / factor, high=estimate * factor)


def ratio(estimate: float, log_variance: float, freedom: float) -> Ratio:
    """Return the same as `amount`, with the interval of a verdict beside it."""
    factor = _factor(estimate, log_variance, freedom, _HIGH)
    wider = _factor(estimate, log_variance, freedom, _VERDICT_HIGH)
    if factor is None or wider is None:
        return Ratio(value=estimate)
    return Ratio(
        value=estimate,
        low=estimate / factor,
        high=estimate * factor,
        verdict_low=estimate / wider,
        verdict_high=estimate * wider,
    )


def _factor(estimate: float, log_variance: float, freedom: float, level: float) -> float | None:
    """Return the factor between an estimate and the ends of its interval, None if it has no interval."""
    if not (estimate > 0 and math.isfinite(log_variance) and freedom >= 1):
        return None
    return math.exp(t_quantile(level, freedom) * math.sqrt(log_variance))


def cost_per_event(cost: float, cost_error: float, rate: Figure) -> Figure:
    """Return the cost of one event, from the cost of a lead and the rate of the event, which must have an interval.

    `cost_error` is the half width of the interval of the cost's logarithm. The two half widths are combined on each
    side as independent ones (Zou and Donner's method, for a rate whose interval is not symmetric).
    """
    assert rate.low is not None
    assert rate.high is not None
    estimate = cost / rate.value
    below = math.hypot(math.log(rate.high / rate.value), cost_error)
    above = math.hypot(math.log(rate.value / rate.low), cost_error)
    return Figure(value=estimate, low=estimate / math.exp(below), high=estimate * math.exp(above))


class CountedRate(msgspec.Struct, frozen=True, kw_only=True):
    """The share won of a stated number of leads, the variance of its logarithm and the degrees of freedom of that."""

    rate: float
    log_variance: float
    freedom: float


def counted_rate(won: int, leads: int) -> CountedRate:
    """Return the share `won` of `leads`, both above 0, with the variance that a life table without censoring gives."""
    return CountedRate(rate=won / leads, log_variance=1 / won - 1 / leads, freedom=2.0 * won)


def mean_error(variance: float, mean: float, count: float) -> float:
    """Return the half width of the interval of the logarithm of a mean of `count` values."""
    return t_quantile(_HIGH, max(count - 1, 1)) * math.sqrt(variance) / mean


def freedom_of(*parts: tuple[float, float]) -> float:
    """Return the Welch-Satterthwaite degrees of freedom of a sum of independent variances.

    Each part is a variance and its degrees of freedom.
    """
    total = sum(variance for variance, _ in parts)
    return total**2 / sum(variance**2 / freedom for variance, freedom in parts) if total > 0 else 1.0


def between_clusters(parts: Floats) -> float:
    """Return the variance of an estimate from by how much it is above what it would be without each cluster of leads.

    That is the jackknife's variance; 0 with fewer than two clusters. A cluster without leads does not count.
    """
    count = np.count_nonzero(parts)
    return float((parts**2).sum()) * (count - 1) / count if count > 1 else 0.0


def normal_ratio(freedom: float) -> float:
    """Return how much wider a 95 % interval by Student's t is than one by the normal distribution."""
    return t_quantile(_HIGH, freedom) / _NORMAL_HIGH


def weekly_freedom(weeks: float) -> float:
    """Return the degrees of freedom of a variance between weeks from their effective number, as `pooled_freedom`."""
    return max(weeks - 2, 1.0)


class Resampling(msgspec.Struct, frozen=True, kw_only=True):
    """Weight of each business in each resample: one row per resample, one column per business.

    `scale` times the variance over the resamples is the variance of the estimate.
    """

    weights: Floats
    scale: float

    def variance(self, logs: Floats) -> float:
        """Return the variance of a statistic from its logarithm in each resample; infinite if any is not finite."""
        return float(logs.var() * self.scale) if np.isfinite(logs).all() else math.inf


def resample(businesses: int, seed: int) -> Resampling:
    """Return a bootstrap of 15 or more businesses, or a jackknife of fewer.

    The bootstrap makes 1,000 draws, each of one business fewer than there are, so that the variance is unbiased. The
    jackknife leaves each business out once. `seed` fixes the draws.
    """
    if businesses < MANY_BUSINESSES:
        left_out = np.ones((businesses, businesses)) - np.eye(businesses)
        return Resampling(weights=left_out, scale=businesses - 1)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(businesses - 1, np.full(businesses, 1 / businesses), DRAWS)
    return Resampling(weights=counts.astype(float), scale=1.0)


def pooled_freedom(businesses: float) -> float:
    """Return the degrees of freedom of a variance between businesses: a ratio of two means leaves two fewer.

    `businesses` is their effective number, which is small if few businesses have most of the leads. With fewer than
    `LEAST_EVEN` there is no freedom, and so no interval.
    """
    return businesses - 2 if businesses >= LEAST_EVEN else 0.0


def pooled_share(estimate: float, odds_variance: float, businesses: float) -> Figure:
    """Return a rate, with an interval from the variance of its log odds between businesses."""
    if not (0 < estimate < 1 and math.isfinite(odds_variance)):
        return Figure(value=estimate)
    odds = amount(estimate / (1 - estimate), odds_variance, pooled_freedom(businesses))
    if odds.low is None or odds.high is None:
        return Figure(value=estimate)
    return Figure(value=estimate, low=odds.low / (1 + odds.low), high=odds.high / (1 + odds.high))
