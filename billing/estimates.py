"""Estimates with 95 % intervals: for one business from its leads, for many from whole businesses."""

import math

import msgspec
import numpy as np

from billing.evidence import Side
from billing.intervals import Figure, Resampling, amount, freedom_of, pooled_amount, pooled_share, share
from billing.lifetable import Cells, Floats, at_risk, per_lead, tables_of


class Estimator:
    """Estimates rates, costs and revenue up to the end of week `horizon`.

    Without a `resampling` the leads are taken as independent, which holds for the leads of one business. With one, the
    variance is that between businesses, because the leads of one business resemble each other.
    """

    def __init__(self, businesses: int, horizon: int, resampling: Resampling | None) -> None:
        self.businesses, self.horizon, self.resampling = businesses, horizon, resampling
        self._cache: dict[tuple[int, int], tuple[Cells, tuple[Floats, Floats]]] = {}

    def rate(self, cells: Cells, horizon: int | None = None) -> Figure | None:
        """Return the share of leads that had the event by the end of week `horizon`.

        None if there are no leads, or none was observed through that week.
        """
        weeks = horizon or self.horizon
        once = cells.counted()
        if not len(cells.leads) or at_risk(cells)[weeks - 1] <= 0:
            return None
        line = per_lead(once, weeks)
        if self.resampling is None:
            return share(line.estimate, line.variance(once), float(at_risk(cells)[weeks - 1]))
        rates, _ = self._resampled(cells, weeks)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_odds = np.log(rates / (1 - rates))
        return pooled_share(line.estimate, self.resampling.variance(log_odds), len(np.unique(cells.business)))

    def per_event(self, side: Side, cells: Cells, rate: Figure | None, horizon: int | None = None) -> Figure | None:
        """Return the cost of one event in minor units: the cost per lead over `rate`.

        None if the rate is unknown, zero or has no interval.
        """
        if rate is None or rate.value <= 0 or rate.low is None or rate.high is None:
            return None
        cost = float(side.cost_minor.sum() / side.leads.sum())
        if self.resampling is None:
            return Figure(value=cost / rate.value, low=cost / rate.high, high=cost / rate.low)
        rates, _ = self._resampled(cells, horizon or self.horizon)
        logs = self._log_cost_per_lead(side, self.resampling) - _log(rates)
        return pooled_amount(cost / rate.value, self.resampling.variance(logs), side.businesses)

    def revenue(self, side: Side) -> Figure:
        """Return the revenue per unit spent on the leads of a side."""
        return self._estimate(self._revenue_of(side))

    def revenue_ratio(self, numerator: Side, denominator: Side) -> Figure:
        """Return the revenue per unit spent of one side, divided by that of the other."""
        return self._estimate(self._revenue_of(numerator), self._revenue_of(denominator))

    def win_ratio(self, numerator: Side, denominator: Side) -> Figure:
        """Return the win rate of one side, divided by that of the other."""
        return self._estimate(self._win_rate_of(numerator), self._win_rate_of(denominator))

    def _revenue_of(self, side: Side) -> "_Quantity":
        logs = None
        if self.resampling is not None:
            _, values = self._resampled(side.won, self.horizon)
            logs = _log(values) - self._log_cost_per_lead(side, self.resampling)
        scale = float(side.leads.sum() / side.cost_minor.sum())
        return _Quantity(scale=scale, cells=side.won, businesses=side.businesses, logs=logs)

    def _win_rate_of(self, side: Side) -> "_Quantity":
        logs = None
        if self.resampling is not None:
            rates, _ = self._resampled(side.won, self.horizon)
            logs = _log(rates)
        return _Quantity(scale=1.0, cells=side.won.counted(), businesses=side.businesses, logs=logs)

    def _resampled(self, cells: Cells, weeks: int) -> tuple[Floats, Floats]:
        """Return the rate and the value per lead in each resample, computed once for each pair of cells and weeks."""
        assert self.resampling is not None
        key = (id(cells), weeks)
        if key not in self._cache:
            tables = tables_of(cells, weeks, self.businesses)
            self._cache[key] = (cells, tables.weighted(self.resampling.weights))
        return self._cache[key][1]

    def _log_cost_per_lead(self, side: Side, resampling: Resampling) -> Floats:
        """Return the logarithm of the cost per lead in each resample."""
        return _log((resampling.weights @ side.cost_minor) / (resampling.weights @ side.leads))

    def _estimate(self, *quantities: "_Quantity") -> Figure:
        """Return the estimate and interval of one quantity, or of the ratio of the first to the second."""
        lines = [per_lead(quantity.cells, self.horizon) for quantity in quantities]
        values = [quantity.scale * line.estimate for quantity, line in zip(quantities, lines, strict=True)]
        if min(values) <= 0:
            return Figure(value=0.0)
        estimate = values[0] / math.prod(values[1:])
        if self.resampling is not None:
            numerator, *denominators = (quantity.logs for quantity in quantities if quantity.logs is not None)
            variance = self.resampling.variance(numerator - sum(denominators))
            return pooled_amount(estimate, variance, min(quantity.businesses for quantity in quantities))
        parts = [
            (line.variance(quantity.cells) / line.estimate**2, max(line.freedom(quantity.cells), 1.0))
            for quantity, line in zip(quantities, lines, strict=True)
        ]
        return amount(estimate, sum(variance for variance, _ in parts), freedom_of(*parts))


class _Quantity(msgspec.Struct, frozen=True, kw_only=True):
    """Estimate for one source: `scale` times the value per lead of `cells`, and its logarithm in every resample.

    `logs` is None if the leads are of one business and nothing is resampled.
    """

    scale: float
    cells: Cells
    businesses: int
    logs: Floats | None


def _log(values: Floats) -> Floats:
    """Return natural logarithms, with -inf for zero and no warning."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: Floats = np.log(values)
    return logs
