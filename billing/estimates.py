"""Estimates with their intervals, for one business from its leads and for many from whole businesses."""

import math

import msgspec
import numpy as np

from billing.evidence import Side
from billing.intervals import Figure, Resampling, amount, freedom_of, pooled_amount, pooled_share, share
from billing.lifetable import Cells, Floats, at_risk, per_lead, tables_of


class Estimator:
    """Makes the intervals of one piece of evidence, up to the end of week `horizon`.

    Leads of one business are independent of each other. Where there are many, whatever is common to the leads of one
    is in the spread between them, which `tries` shows.
    """

    def __init__(self, businesses: int, horizon: int, tries: Resampling | None) -> None:
        self.businesses, self.horizon, self.tries = businesses, horizon, tries
        self._kept: dict[tuple[int, int], tuple[Cells, tuple[Floats, Floats]]] = {}

    def rate(self, cells: Cells, horizon: int | None = None) -> Figure | None:
        """The share of leads to which it happened by the horizon. None without a lead."""
        weeks = horizon or self.horizon
        once = cells.counted()
        if not len(cells.leads) or at_risk(cells)[weeks - 1] <= 0:
            return None
        line = per_lead(once, weeks)
        if self.tries is None:
            return share(line.estimate, line.variance(once), float(at_risk(cells)[weeks - 1]))
        tried, _ = self._tried(cells, weeks)
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = np.log(tried / (1 - tried))
        return pooled_share(line.estimate, self.tries.variance(odds), len(np.unique(cells.business)))

    def per_event(self, side: Side, cells: Cells, rate: Figure | None, horizon: int | None = None) -> Figure | None:
        """What one event costs: spent per lead over the rate."""
        if rate is None or rate.value <= 0 or rate.low is None or rate.high is None:
            return None
        spent = float(side.cost_minor.sum() / side.leads.sum())
        if self.tries is None:
            return Figure(value=spent / rate.value, low=spent / rate.high, high=spent / rate.low)
        tried = self._spent(side, self.tries) - _log(self._tried(cells, horizon or self.horizon)[0])
        return pooled_amount(spent / rate.value, self.tries.variance(tried), side.businesses)

    def revenue(self, side: Side) -> Figure:
        """What comes back per unit spent."""
        return self._compare(self._revenue(side))

    def revenue_ratio(self, one: Side, other: Side) -> Figure:
        """How many times as much comes back per unit spent on `one` as on `other`."""
        return self._compare(self._revenue(one), self._revenue(other))

    def win_ratio(self, one: Side, other: Side) -> Figure:
        """How many times as often leads of `one` are won."""
        return self._compare(self._wins(one), self._wins(other))

    def _revenue(self, side: Side) -> "_Quantity":
        tried = None
        if self.tries is not None:
            tried = _log(self._tried(side.won, self.horizon)[1]) - self._spent(side, self.tries)
        scale = float(side.leads.sum() / side.cost_minor.sum())
        return _Quantity(scale=scale, cells=side.won, businesses=side.businesses, tried=tried)

    def _wins(self, side: Side) -> "_Quantity":
        tried = None if self.tries is None else _log(self._tried(side.won, self.horizon)[0])
        return _Quantity(scale=1.0, cells=side.won.counted(), businesses=side.businesses, tried=tried)

    def _tried(self, cells: Cells, weeks: int) -> tuple[Floats, Floats]:
        """Rate and value per lead in each try; made once for each table."""
        assert self.tries is not None
        key = (id(cells), weeks)
        if key not in self._kept:
            tables = tables_of(cells, weeks, self.businesses)
            self._kept[key] = (cells, tables.weighted(self.tries.weights))
        return self._kept[key][1]

    def _spent(self, side: Side, tries: Resampling) -> Floats:
        """The logarithm of what was spent per lead in each try."""
        return _log((tries.weights @ side.cost_minor) / (tries.weights @ side.leads))

    def _compare(self, *quantities: "_Quantity") -> Figure:
        """One quantity, or the ratio of the first to the second."""
        lines = [per_lead(each.cells, self.horizon) for each in quantities]
        values = [each.scale * line.estimate for each, line in zip(quantities, lines, strict=True)]
        if min(values) <= 0:
            return Figure(value=0.0)
        estimate = values[0] / math.prod(values[1:])
        if self.tries is not None:
            first, *rest = (each.tried for each in quantities if each.tried is not None)
            spread = self.tries.variance(first - sum(rest))
            return pooled_amount(estimate, spread, min(each.businesses for each in quantities))
        parts = [
            (line.variance(each.cells) / line.estimate**2, max(line.freedom(each.cells), 1.0))
            for each, line in zip(quantities, lines, strict=True)
        ]
        return amount(estimate, sum(variance for variance, _ in parts), freedom_of(*parts))


class _Quantity(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told of one side: `scale` times what its cells bring per lead, and its logarithm in each try."""

    scale: float
    cells: Cells
    businesses: int
    tried: Floats | None


def _log(values: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: Floats = np.log(values)
    return logs
