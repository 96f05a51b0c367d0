"""Discrete life table in whole weeks: estimates of final outcomes while many leads are still open.

A lead is at risk in a week only if that whole week was observed, so a lead that arrived last Tuesday counts neither as
lost nor as won. The share won by the horizon is one minus the product of the weekly shares that were not won (Kaplan
and Meier, in weeks). The value per lead sums the wins of each week, weighted by the share of leads not won before it. A
lost lead stays at risk up to its age: it is a lead without a win, and its age is independent of its outcome.
"""

from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

WEEKS: Final = 13
"Longest horizon, in weeks. Events within 91 days of receipt count: a quarter, in which most quotes are decided."


class Cells(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over leads with the same cluster, weeks at risk and outcome: nine columns of equal length, one row each.

    `weeks` counts the weeks at risk, at most 13: up to and including the week of the event if it `happened`, else the
    age in whole weeks. With a weight u per lead (1, or from matching) and a value v of its event, `leads` sums u,
    `squares` u², `value` u·v, `cross` u²·v, `value_squares` u²·v² and `value_fourths` u⁴·v⁴. `cluster` numbers from 0
    what makes leads alike: their business, or with a single business the week in which they arrived.
    """

    cluster: Integers
    weeks: Integers
    happened: NDArray[np.bool_]
    leads: Floats
    squares: Floats
    value: Floats
    cross: Floats
    value_squares: Floats
    value_fourths: Floats

    def counted(self) -> "Cells":
        """Return the same cells with a value of 1 for every event, so that the value per lead is a rate."""
        once = self.happened.astype(float)
        return msgspec.structs.replace(
            self,
            value=self.leads * once,
            cross=self.squares * once,
            value_squares=self.squares * once,
            value_fourths=self.squares**2 / np.maximum(self.leads, 1e-12) ** 2 * self.squares * once,
        )

    @property
    def clusters(self) -> float:
        """Effective number of clusters: their number if each has as many leads."""
        return effective_number(np.bincount(self.cluster, self.leads).astype(float))

    @property
    def events(self) -> int:
        """Number of leads with the event; with matching, the rounded sum of their weights."""
        return round(float(self.leads[self.happened].sum()))


def cells_of(rows: Any) -> Cells:
    """Return cells from rows with the nine columns of `Cells` in their order."""
    table = np.array(rows, float).reshape(-1, 9).T
    return Cells(
        cluster=table[0].astype(np.int64),
        weeks=table[1].astype(np.int64),
        happened=table[2].astype(bool),
        leads=table[3],
        squares=table[4],
        value=table[5],
        cross=table[6],
        value_squares=table[7],
        value_fourths=table[8],
    )


def effective_number(parts: Floats) -> float:
    """Return (Σp)² / Σp²: the number of parts if they are equal, close to 1 if one of them is nearly everything."""
    squares = float((parts**2).sum())
    return float(parts.sum()) ** 2 / squares if squares > 0 else 0.0


def without_each(parts: Any, leads: Any) -> Floats:
    """Return by how much an estimate is above what it would be without each cluster, from what each adds to it.

    A cluster with the share h of the leads holds the estimate back by that share: 1 / (1 - h) times as much.
    """
    remaining = leads.sum() - leads
    away: Floats = np.divide(parts * leads.sum(), remaining, out=np.zeros(len(leads)), where=remaining > 0)
    return away


def at_risk(cells: Cells) -> Floats:
    """Return the number of leads observed through each week: 13 elements, weighted if the cells are."""
    ending = np.bincount(cells.weeks, cells.leads, WEEKS + 1)
    through: Floats = ending[::-1].cumsum()[::-1][1:]
    return through


def exhausted(cells: Cells, horizon: int) -> float:
    """Return how many leads an estimate of 1 rests on: of a week in which all leads at risk had the event, their number
    over the share that had not had it before. 0 without such a week."""
    risk = at_risk(cells)[:horizon]
    events = np.bincount(cells.weeks[cells.happened], cells.leads[cells.happened], WEEKS + 1)[1 : horizon + 1]
    left = 1.0
    for through, happening in zip(risk, events, strict=True):
        if through <= 0:
            return 0.0
        if happening >= through:
            return float(through / left)
        left *= 1 - happening / through
    return 0.0


# Estimates for leads that are independent of each other: those of one business.


class Linear(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate per lead, and its linear approximation in the leads, from which its variance follows.

    One more unit of weight on a lead of a cell, with an event of value v, changes the estimate by `base` + `slope`·v.
    """

    estimate: float
    base: Floats
    slope: Floats

    def variance(self, cells: Cells) -> float:
        """Return the variance of the estimate, with the effect of censoring, of leads that are independent."""
        n = cells.leads.sum() ** 2 / cells.squares.sum()
        spread = self.base**2 * cells.squares + 2 * self.base * self.slope * cells.cross
        return float((spread + self.slope**2 * cells.value_squares).sum() * n / max(n - 1, 1))

    def by_cluster(self, cells: Cells, clusters: int) -> Floats:
        """Return by how much the estimate is above what it would be without each cluster."""
        parts = np.bincount(cells.cluster, self.base * cells.leads + self.slope * cells.value, clusters)
        return without_each(parts, np.bincount(cells.cluster, cells.leads, clusters))

    def freedom(self, cells: Cells) -> float:
        """Return Satterthwaite's degrees of freedom of that variance: few if it comes mostly from a few large wins."""
        squares, fourths = (self.slope**2 * cells.value_squares).sum(), (self.slope**4 * cells.value_fourths).sum()
        return float(2 * squares**2 / fourths) if fourths > 0 else 1.0


def per_lead(cells: Cells, horizon: int) -> Linear:
    """Return the expected value of one lead by the end of week `horizon`.

    Every week up to the horizon must have leads at risk.
    """
    weeks = np.minimum(cells.weeks, horizon)
    events = cells.happened & (cells.weeks <= horizon)
    week = weeks[events] - 1
    risk = at_risk(cells)[:horizon]
    hazard = np.bincount(week, cells.leads[events], horizon) / risk
    left = np.concatenate(([1.0], np.cumprod(1 - hazard)[:-1]))
    gain = left * np.bincount(week, cells.value[events], horizon) / risk
    total = float(gain.sum())
    later = (total - np.cumsum(gain)) / (risk * np.where(hazard < 1, 1 - hazard, np.inf))
    waiting = np.concatenate(([0.0], np.cumsum(later * hazard - gain / risk)))
    base, slope = waiting[weeks], np.zeros(len(weeks))
    base[events] -= later[week]
    slope[events] = (left / risk)[week]
    return Linear(estimate=total, base=base, slope=slope)


# Estimates for many businesses: the leads of one resemble each other, so whole businesses are resampled.


class Tables(msgspec.Struct, frozen=True, kw_only=True):
    """Life tables: leads at risk, events and the value of events, one row per cluster, one column per week."""

    risk: Floats
    events: Floats
    value: Floats

    def weighted(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the rate and the value per lead for each row of `weights`, which has one column per cluster."""
        risk = weights @ self.risk
        with np.errstate(divide="ignore", invalid="ignore"):
            hazard = np.where(risk > 0, (weights @ self.events) / risk, 0.0)
            worth = np.where(risk > 0, (weights @ self.value) / risk, 0.0)
        left = np.cumprod(1 - hazard, axis=1)
        rate: Floats = 1 - left[:, -1]
        before = np.concatenate((np.ones((len(left), 1)), left[:, :-1]), axis=1)
        return rate, (before * worth).sum(axis=1)


def tables_of(cells: Cells, horizon: int, clusters: int) -> Tables:
    """Return one life table per cluster, up to the end of week `horizon`."""
    weeks = np.minimum(cells.weeks, horizon)
    events = cells.happened & (cells.weeks <= horizon)
    position = cells.cluster * (horizon + 1) + weeks
    size = clusters * (horizon + 1)

    def sum_by_week(positions: Integers, amounts: Floats) -> Floats:
        return np.bincount(positions, amounts, size).astype(float).reshape(clusters, horizon + 1)

    ending = sum_by_week(position, cells.leads)
    return Tables(
        risk=ending[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:],
        events=sum_by_week(position[events], cells.leads[events])[:, 1:],
        value=sum_by_week(position[events], cells.value[events])[:, 1:],
    )
