"""Input of the comparison of exclusive with shared leads, and the least amounts of data from which it concludes."""

import math
from enum import StrEnum
from typing import Final

import msgspec

from billing.lifetable import WEEKS, Cells, Floats, at_risk, effective_number

LEAST_WINS: Final = 10
"Least wins of each source. With fewer, the value of a single job decides the figure: see the coverage in docs/ROI.md."
LEAST_OUTCOMES: Final = 30
"Least leads of each source known to be won or lost. With fewer, most known outcomes are those that came quickly."
LEAST_AT_RISK: Final = 10
"Least leads of each source observed through the last week of the horizon. With ten, one win changes a rate by a tenth."
LEAST_BUSINESSES: Final = 8
"Least businesses. With fewer, intervals covered the true value in less than 93 % of simulated marketplaces."
LEAST_OVERLAP: Final = 0.5
"Least share of exclusive leads whose stratum has shared leads too. With less, matched leads do not represent the rest."


class LeadOrigin(StrEnum):
    """Source from which a lead was bought."""

    exclusive = "exclusive"
    """Bought in this marketplace, for one business alone."""
    shared = "shared"
    """Bought elsewhere, where other businesses bought it too."""


class EvidenceBasis(StrEnum):
    """Origin of a figure."""

    records = "records"
    """Leads bought in this marketplace, with the outcomes that the businesses reported."""
    imported = "imported"
    """Leads that the business bought elsewhere and imported."""
    declared = "declared"
    """Cost and win rate of shared leads, as stated by the business."""
    benchmark = "benchmark"
    """Cost and win rate of shared leads, as assumed by the operator of the marketplace."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """The leads of one source.

    `leads` (a count, or a sum of weights) and `cost_minor` (minor units, without labour) have one element per cluster:
    a business, or with a single business a week of arrival. `cost_variance` is that of the mean cost of a lead, in
    squared minor units; 0 if all leads cost the same. `outcomes` is the number of leads known to be won or lost,
    `oldest_weeks` the age of the first lead in whole weeks. `won`, `contacted` and `qualified` are the life tables of
    these events.
    """

    leads: Floats
    cost_minor: Floats
    outcomes: int
    won: Cells
    contacted: Cells
    qualified: Cells
    cost_variance: float = 0.0
    oldest_weeks: int = 0

    @property
    def cost_per_lead(self) -> float:
        """Mean cost of a lead in minor units. There must be leads."""
        return float(self.cost_minor.sum() / self.leads.sum())

    @property
    def clusters(self) -> float:
        """Effective number of clusters: their number if each has as many leads."""
        return effective_number(self.leads)


class SharedLeadAssumption(msgspec.Struct, frozen=True, kw_only=True):
    """Stated cost and success of shared leads, used in place of data.

    `cost_minor` per lead and `value_minor` per won job are in minor units; `win_rate` is the share of leads won.
    `leads`, `won` and `weeks` say how it was counted: of so many leads so many were won, each within so many weeks.
    They are None if nobody said so; then the rate has no interval, and no verdict rests on it. Without a value, a job
    is taken to be worth as much as one from an exclusive lead. `source` says who stated it.
    """

    basis: EvidenceBasis
    source: str
    cost_minor: int
    win_rate: float
    leads: int | None = None
    won: int | None = None
    weeks: int | None = None
    value_minor: int | None = None


class ContactSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Exclusive leads first contacted within one band of time.

    Every cell has one week, and `happened` says whether the leads were won.
    """

    band: str
    cells: Cells


class SpeedComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that were contacted soon and later, compared within strata of leads that are otherwise alike.

    `fast` and `slow` are weighted wins, one element per business or group of them: a stratum with f leads contacted
    soon and s later gives its fast wins the weight s / (f + s) and its slow wins f / (f + s). The ratio of the two sums
    is the ratio of win rates of Mantel and Haenszel; `spread` over their product is the variance of its logarithm for
    independent leads (Greenland and Robins). The counts are those of the leads in strata with both.
    """

    fast: Floats
    slow: Floats
    spread: float
    leads: int
    fast_wins: int
    slow_wins: int


class Stratum(msgspec.Struct, frozen=True, kw_only=True):
    """Number of leads of one vertical in one area, by source. `key` is the value of `LeadOutcome.stratum`."""

    key: int
    exclusive: int
    shared: int


class RoiEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """Complete input of the comparison. Both sides number the businesses alike, from 0 to `businesses` - 1.

    Beyond 200 of `all_businesses`, several share a number. `silent` businesses reported nothing and are in no figure;
    `silent_days` have passed since the last report of any other, and the reports of a single business are `late_days`
    late. `compared` has the leads of businesses with both sources, exclusive then shared, weighted so that a business
    has the same part in both; `fewest` counts these businesses. `matched` has the leads of strata with both sources,
    exclusive then shared, the shared ones weighted to the exclusive leads' mix of strata; `overlap` is the share of
    exclusive leads in such strata. With several businesses each has strata of its own. `heavy_tailed` is true if the
    jobs won from either source are too uneven for an interval of revenue. `labour_minor` is the cost of working on one
    lead, in minor units. `speed` is ordered from the fastest band; the first `fast_bands` are fast, and
    `speed_compared` compares them with the others. `delay_compared` has leads that were held back at random as the slow
    ones, and those that could have been as the fast ones.
    """

    businesses: int
    all_businesses: int
    exclusive: Side
    shared: Side | None = None
    assumed: SharedLeadAssumption | None = None
    compared: tuple[Side, Side] | None = None
    fewest: int = 1
    matched: tuple[Side, Side] | None = None
    overlap: float = 0.0
    strata: tuple[Stratum, ...] = ()
    silent: int = 0
    silent_days: int = 0
    late_days: int = 0
    heavy_tailed: bool = False
    labour_minor: int = 0
    speed: tuple[ContactSpeed, ...] = ()
    fast_bands: int = 2
    speed_compared: SpeedComparison | None = None
    delay_compared: SpeedComparison | None = None

    @property
    def buyers(self) -> int:
        """Number of businesses with exclusive leads, or of their groups."""
        leads = self.exclusive.leads
        return int((leads > 0).sum()) if self.businesses > 1 else int(leads.any())


def horizon_of(*sides: Side | None) -> int:
    """Return the last week through which at least `LEAST_AT_RISK` leads of every side were observed; 0 if none."""
    risks = [at_risk(side.won) for side in sides if side is not None]
    return next((week for week in range(WEEKS, 0, -1) if all(risk[week - 1] >= LEAST_AT_RISK for risk in risks)), 0)


def weeks_until_enough(side: Side) -> int | None:
    """Return in how many weeks a side will have enough outcomes at its pace so far; None if it has none to go by."""
    if not (side.outcomes and side.won.events and side.oldest_weeks):
        return None
    missing = max(LEAST_OUTCOMES / side.outcomes, LEAST_WINS / side.won.events, 1.0) - 1.0
    return math.ceil(missing * side.oldest_weeks)


def is_enough(outcomes: int, wins: int) -> bool:
    """Return whether enough leads were won or lost, and won, for a 95 % interval of an amount to be trusted."""
    return outcomes >= LEAST_OUTCOMES and wins >= LEAST_WINS


def has_enough_outcomes(side: Side) -> bool:
    """Return the same for the leads of a side."""
    return is_enough(side.outcomes, side.won.events)
