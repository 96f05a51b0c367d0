"""What becomes of leads, told from those that are still young: a discrete life table in whole weeks.

A lead is at risk in a week only if that whole week has been observed, so that a lead of last Tuesday neither counts as
lost nor as won. The share won by the horizon is one minus the product of what each week leaves (Kaplan and Meier, in
weeks); each win brings its value at the weight that the table gives to its week. A lost lead stays at risk until its
age: that it will never win is just what not winning means, and its age says nothing about how it ended.
"""

from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

WEEKS: Final = 13
"The longest horizon: what happens within 91 days of receipt counts, a quarter, in which most quotes are decided."


class Cells(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that look alike, summed: one row per business, week and outcome.

    `weeks` is for how many weeks they were at risk: up to and with the week of the event where it `happened`, else
    their age in whole weeks; 13 at most. A lead may count for more or less than one (matching): `leads` sums the
    weights u, `squares` u², and with v for what the event was worth `value` sums u·v, `cross` u²·v, `value_squares`
    u²·v² and `value_fourths` u⁴·v⁴. `business` numbers the businesses from 0.
    """

    business: Integers
    weeks: Integers
    happened: NDArray[np.bool_]
    leads: Floats
    squares: Floats
    value: Floats
    cross: Floats
    value_squares: Floats
    value_fourths: Floats

    def counted(self) -> "Cells":
        """The same cells with every event worth 1: what is summed then is a rate."""
        once = self.happened.astype(float)
        return msgspec.structs.replace(
            self, value=self.leads * once, cross=self.squares * once, value_squares=self.squares * once,
            value_fourths=self.squares**2 / np.maximum(self.leads, 1e-12) ** 2 * self.squares * once,
        )  # fmt: skip

    @property
    def events(self) -> int:
        """How many leads it happened to; with matching, as many as they are worth."""
        return round(float(self.leads[self.happened].sum()))


def cells_of(rows: Any) -> Cells:
    """Cells from rows of the nine columns in their order."""
    table = np.array(rows, float).reshape(-1, 9).T
    return Cells(
        business=table[0].astype(np.int64), weeks=table[1].astype(np.int64), happened=table[2].astype(bool),
        leads=table[3], squares=table[4], value=table[5], cross=table[6], value_squares=table[7],
        value_fourths=table[8],
    )  # fmt: skip


def at_risk(cells: Cells) -> Floats:
    """How many leads were observed through each week."""
    ending = np.bincount(cells.weeks, cells.leads, WEEKS + 1)
    through: Floats = ending[::-1].cumsum()[::-1][1:]
    return through


# Leads that are independent of each other: those of one business.


class Linear(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate per lead, and how it follows the cells: weight on a lead worth v moves it by `base` + `slope`·v."""

    estimate: float
    base: Floats
    slope: Floats

    def variance(self, cells: Cells) -> float:
        """The variance of the estimate, censoring included."""
        n = cells.leads.sum() ** 2 / cells.squares.sum()
        spread = self.base**2 * cells.squares + 2 * self.base * self.slope * cells.cross
        return float((spread + self.slope**2 * cells.value_squares).sum() * n / max(n - 1, 1))

    def freedom(self, cells: Cells) -> float:
        """How well that variance is known (Satterthwaite): few degrees of freedom where few large wins make it up."""
        squares, fourths = (self.slope**2 * cells.value_squares).sum(), (self.slope**4 * cells.value_fourths).sum()
        return float(2 * squares**2 / fourths) if fourths > 0 else 1.0


def per_lead(cells: Cells, horizon: int) -> Linear:
    """What a lead brings by the end of week `horizon`; the table must have leads at risk in each of these weeks."""
    weeks = np.minimum(cells.weeks, horizon)
    seen = cells.happened & (cells.weeks <= horizon)
    week = weeks[seen] - 1
    risk = at_risk(cells)[:horizon]
    hazard = np.bincount(week, cells.leads[seen], horizon) / risk
    left = np.concatenate(([1.0], np.cumprod(1 - hazard)[:-1]))
    gain = left * np.bincount(week, cells.value[seen], horizon) / risk
    total = float(gain.sum())
    later = (total - np.cumsum(gain)) / (risk * np.where(hazard < 1, 1 - hazard, np.inf))
    waiting = np.concatenate(([0.0], np.cumsum(later * hazard - gain / risk)))
    base, slope = waiting[weeks], np.zeros(len(weeks))
    base[seen] -= later[week]
    slope[seen] = (left / risk)[week]
    return Linear(estimate=total, base=base, slope=slope)


# Leads of many businesses, where those of one are alike: whole businesses are left out or drawn again.


class Tables(msgspec.Struct, frozen=True, kw_only=True):
    """The life table of each business, one row each: at risk, events and their value by week."""

    risk: Floats
    events: Floats
    value: Floats

    def weighted(self, weights: Floats) -> tuple[Floats, Floats]:
        """Rate and value per lead for each row of `weights`, which has one column per business."""
        risk = weights @ self.risk
        with np.errstate(divide="ignore", invalid="ignore"):
            hazard = np.where(risk > 0, (weights @ self.events) / risk, 0.0)
            worth = np.where(risk > 0, (weights @ self.value) / risk, 0.0)
        left = np.cumprod(1 - hazard, axis=1)
        rate: Floats = 1 - left[:, -1]
        before = np.concatenate((np.ones((len(left), 1)), left[:, :-1]), axis=1)
        return rate, (before * worth).sum(axis=1)


def tables_of(cells: Cells, horizon: int, businesses: int) -> Tables:
    """One life table per business, up to the end of week `horizon`."""
    weeks = np.minimum(cells.weeks, horizon)
    seen = cells.happened & (cells.weeks <= horizon)
    place = cells.business * (horizon + 1) + weeks
    size = businesses * (horizon + 1)

    def spread(places: Integers, amounts: Floats) -> Floats:
        return np.bincount(places, amounts, size).astype(float).reshape(businesses, horizon + 1)

    ending = spread(place, cells.leads)
    return Tables(
        risk=ending[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:],
        events=spread(place[seen], cells.leads[seen])[:, 1:],
        value=spread(place[seen], cells.value[seen])[:, 1:],
    )
