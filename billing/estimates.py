"""Estimates with 95 % intervals: for one business from its leads, for many from whole businesses."""

import math
from typing import Final

import msgspec
import numpy as np

from billing.evidence import Side, SpeedComparison
from billing.intervals import (
    CountedRate,
    Figure,
    Ratio,
    Resampling,
    amount,
    between_clusters,
    cost_per_event,
    freedom_of,
    mean_error,
    normal_ratio,
    pooled_freedom,
    pooled_share,
    ratio,
    share,
    weekly_freedom,
)
from billing.lifetable import (
    Cells,
    Floats,
    Linear,
    at_risk,
    effective_number,
    exhausted,
    per_lead,
    tables_of,
    without_each,
)


class Estimator:
    """Estimates rates, costs and revenue up to the end of week `horizon`.

    With a `resampling` the variance is that between businesses, because the leads of one business resemble each other.
    Without one, the leads are those of one business: their variance is that of independent leads or that between the
    weeks in which they arrived, whichever is larger. If the values of jobs are `heavy_tailed`, amounts of revenue have
    no intervals.
    """

    def __init__(
        self, businesses: int, horizon: int, resampling: Resampling | None, *, heavy_tailed: bool = False
    ) -> None:
        self.businesses, self.horizon, self.resampling = businesses, horizon, resampling
        self.heavy_tailed = heavy_tailed
        self._cache: dict[tuple[int, int], tuple[Cells, tuple[Floats, Floats]]] = {}

    def rate(self, cells: Cells, horizon: int | None = None) -> Figure | None:
        """Return the share of leads that had the event by the end of week `horizon`.

        It is 1 if all leads at risk in some week had it. None if there are no leads, or none was observed through the
        last week.
        """
        weeks = horizon or self.horizon
        once = cells.counted()
        if not len(cells.leads):
            return None
        if leads := exhausted(cells, weeks):
            return share(1.0, 0.0, leads)
        observed = float(at_risk(cells)[weeks - 1])
        if observed <= 0:
            return None
        line = per_lead(once, weeks)
        if self.resampling is None:
            return share(line.estimate, self._rate_variance(line, once), observed)
        rates, _ = self._resampled(cells, weeks)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_odds = np.log(rates / (1 - rates))
        return pooled_share(line.estimate, self.resampling.variance(log_odds), cells.clusters)

    def per_event(self, side: Side, cells: Cells, rate: Figure | None) -> Figure | None:
        """Return the cost of one event in minor units: the cost per lead over `rate`.

        None if the rate is unknown, zero or has no interval.
        """
        if rate is None or rate.value <= 0 or rate.low is None or rate.high is None:
            return None
        cost = self._cost(side)
        if self.resampling is None:
            error = mean_error(side.cost_variance, cost.estimate, float(side.leads.sum()))
            return cost_per_event(cost.estimate, error, rate)
        rates, _ = self._resampled(cells, self.horizon)
        variance = self.resampling.variance(cost.logs - _log(rates))
        return amount(cost.estimate / rate.value, variance, pooled_freedom(side.clusters))

    def revenue(self, side: Side) -> Figure:
        """Return the revenue per unit spent on the leads of a side; without an interval if jobs are too uneven."""
        revenue = amount(*self._quotient((self._value(side),), (self._cost(side),)))
        return Figure(value=revenue.value) if self.heavy_tailed else revenue

    def revenue_ratio(self, numerator: Side, denominator: Side) -> Ratio:
        """Return the revenue per unit spent of one side, divided by that of the other; without an interval if jobs are
        too uneven."""
        above = self._value(numerator), self._cost(denominator)
        quotient = ratio(*self._quotient(above, (self._cost(numerator), self._value(denominator))))
        return Ratio(value=quotient.value) if self.heavy_tailed else quotient

    def revenue_over(self, side: Side, counted: CountedRate, cost_minor: float, value_minor: float | None) -> Ratio:
        """Return the revenue per unit spent on the leads of a side, divided by that of stated leads.

        They cost `cost_minor` each and win `counted`, and a job is worth `value_minor`, or as much as one of the side.
        """
        above = self._value(side) if value_minor else self._win_rate(side)
        stated = counted.rate * (value_minor or 1.0) / cost_minor
        quotient = ratio(*_over(self._quotient((above,), (self._cost(side),)), stated, counted))
        return Ratio(value=quotient.value) if value_minor and self.heavy_tailed else quotient

    def win_ratio_over(self, side: Side, counted: CountedRate) -> Figure:
        """Return the win rate of a side, divided by a stated one."""
        return amount(*_over(self._quotient((self._win_rate(side),), ()), counted.rate, counted))

    def win_ratio(self, numerator: Side, denominator: Side) -> Figure:
        """Return the win rate of one side, divided by that of the other."""
        return amount(*self._quotient((self._win_rate(numerator),), (self._win_rate(denominator),)))

    def speed_ratio(self, compared: SpeedComparison) -> Figure:
        """Return the win rate of leads contacted soon over that of leads contacted later, of the same strata."""
        fast, slow = float(compared.fast.sum()), float(compared.slow.sum())
        if fast <= 0 or slow <= 0:
            return Figure(value=0.0)
        if self.resampling is None:
            # the logarithm of a ratio of counts is spread a little less than its variance says: no wider t is needed
            return amount(fast / slow, compared.spread / (fast * slow), float(compared.leads))
        weights = self.resampling.weights
        variance = self.resampling.variance(_log(weights @ compared.fast) - _log(weights @ compared.slow))
        return amount(fast / slow, variance, pooled_freedom(effective_number(compared.fast + compared.slow)))

    def equal_cost(self, numerator: Side, denominator: Side) -> Figure:
        """Return the cost of a lead of the first side at which both sides bring the same per unit spent."""
        above = self._cost(denominator), self._win_rate(numerator)
        return amount(*self._quotient(above, (self._win_rate(denominator),)))

    def _value(self, side: Side) -> "_Quantity":
        """Return the value of the jobs won per lead."""
        logs = _log(self._resampled(side.won, self.horizon)[1]) if self.resampling else _NONE
        return self._from_cells(side, side.won, logs)

    def _win_rate(self, side: Side) -> "_Quantity":
        logs = _log(self._resampled(side.won, self.horizon)[0]) if self.resampling else _NONE
        return self._from_cells(side, side.won.counted(), logs)

    def _from_cells(self, side: Side, cells: Cells, logs: Floats) -> "_Quantity":
        line = per_lead(cells, self.horizon)
        variance, freedom = 0.0, 1.0
        if self.resampling is None and line.estimate > 0:
            variance, freedom = line.variance(cells) / line.estimate**2, max(line.freedom(cells), 1.0)
            logs = line.by_cluster(cells, len(side.leads)) / line.estimate
        return _Quantity(line.estimate, variance, freedom, side.clusters, logs)

    def _cost(self, side: Side) -> "_Quantity":
        """Return the cost per lead."""
        cost = side.cost_per_lead
        if self.resampling is None:
            freedom = max(float(side.leads.sum()) - 1, 1.0)
            logs = without_each((side.cost_minor - cost * side.leads) / side.cost_minor.sum(), side.leads)
            return _Quantity(cost, side.cost_variance / cost**2, freedom, side.clusters, logs)
        weights = self.resampling.weights
        logs = _log((weights @ side.cost_minor) / (weights @ side.leads))
        return _Quantity(cost, 0.0, 1.0, side.clusters, logs)

    def _quotient(
        self, numerators: tuple["_Quantity", ...], denominators: tuple["_Quantity", ...]
    ) -> tuple[float, float, float]:
        """Return the product of the first quantities over that of the others, the variance of its logarithm, and the
        degrees of freedom of that variance."""
        both = numerators + denominators
        if min(quantity.estimate for quantity in both) <= 0:
            return 0.0, math.inf, 0.0
        above, below = (math.prod(quantity.estimate for quantity in part) for part in (numerators, denominators))
        logs = np.asarray(
            sum(quantity.logs for quantity in numerators) - sum(quantity.logs for quantity in denominators)
        )
        clusters = min(quantity.clusters for quantity in both)
        if self.resampling is not None:
            return above / below, self.resampling.variance(logs), pooled_freedom(clusters)
        parts = [(quantity.log_variance, quantity.freedom) for quantity in both if quantity.log_variance > 0]
        alone, freedom = sum(variance for variance, _ in parts), freedom_of(*parts)
        between = between_clusters(logs)
        if between <= alone:
            return above / below, alone, freedom
        return above / below, between, min(freedom, weekly_freedom(clusters))

    def _rate_variance(self, line: Linear, cells: Cells) -> float:
        """Return the variance of the rate of one business, as of a normal distribution."""
        between = between_clusters(line.by_cluster(cells, int(cells.cluster.max()) + 1))
        alone = line.variance(cells)
        if between <= alone:
            return alone
        return max(between * normal_ratio(weekly_freedom(cells.clusters)) ** 2, alone)

    def _resampled(self, cells: Cells, weeks: int) -> tuple[Floats, Floats]:
        """Return the rate and the value per lead in each resample, computed once for each pair of cells and weeks."""
        assert self.resampling is not None
        key = (id(cells), weeks)
        if key not in self._cache:
            tables = tables_of(cells, weeks, self.businesses)
            self._cache[key] = (cells, tables.weighted(self.resampling.weights))
        return self._cache[key][1]


_NONE: Final[Floats] = np.empty(0)


class _Quantity(msgspec.Struct, frozen=True):
    """Estimate for one source. Of one business: the variance of its logarithm for independent leads, the degrees of
    freedom of that variance, and what each week of arrival adds to the logarithm. Of several: the logarithm in every
    resample. `clusters` is the effective number of weeks or businesses."""

    estimate: float
    log_variance: float
    freedom: float
    clusters: float
    logs: Floats


def _over(quotient: tuple[float, float, float], stated: float, counted: CountedRate) -> tuple[float, float, float]:
    """Return a quotient over a stated figure, whose logarithm varies as that of the counted rate does."""
    estimate, variance, freedom = quotient
    if not (estimate > 0 and math.isfinite(variance)):
        return quotient
    parts = [part for part in ((variance, freedom), (counted.log_variance, counted.freedom)) if part[0] > 0]
    return estimate / stated, sum(part[0] for part in parts), freedom_of(*parts)


def _log(values: Floats) -> Floats:
    """Return natural logarithms, with -inf for zero and no warning."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: Floats = np.log(values)
    return logs
