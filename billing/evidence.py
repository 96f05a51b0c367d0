"""What the comparison of exclusive and shared leads is made from, and from how much of it anything may be said."""

from enum import StrEnum
from typing import Final

import msgspec

from billing.lifetable import WEEKS, Cells, Floats, at_risk

LEAST_WINS: Final = 10
"Of each source. With fewer wins the value of a single job decides the figure: see the coverage in docs/ROI.md."
LEAST_OUTCOMES: Final = 30
"Leads of each source that are known to be won or lost: with fewer, most of what is known is who was fast."
LEAST_AT_RISK: Final = 10
"Leads of each source that must have been observed through the week of the horizon: one win moves it by a tenth."
LEAST_BUSINESSES: Final = 8
"Below this, intervals between businesses covered the truth in less than 93 % of simulated marketplaces."
LEAST_OVERLAP: Final = 0.5
"Of exclusive leads in strata where shared leads exist; with less, the matched comparison is about another business."


class Source(StrEnum):
    """Where a lead was bought."""

    exclusive = "exclusive"
    """Here, for one business alone."""
    shared = "shared"
    """Elsewhere, where others bought it too."""


class Basis(StrEnum):
    """What a figure rests on."""

    records = "records"
    """Leads that were bought here, with what the businesses told of them."""
    imported = "imported"
    """Leads that the business bought elsewhere and imported."""
    declared = "declared"
    """What the business says that shared leads cost and bring."""
    benchmark = "benchmark"
    """What the operator of the marketplace assumes of shared leads."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """The leads of one source. `leads` and `cost_minor` are sums per business, without labour.

    `qualified` has cells by age, of leads whose qualification is known.
    """

    leads: Floats
    cost_minor: Floats
    outcomes: int
    won: Cells
    contacted: Cells
    qualified: Cells

    @property
    def businesses(self) -> int:
        """How many businesses have leads of this source."""
        return int((self.leads > 0).sum())


class Assumed(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken to be so of shared leads: minor units, a rate of leads won, the value of a won job if stated."""

    basis: Basis
    source: str
    cost_minor: int
    win_rate: float
    value_minor: int | None = None


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Exclusive leads that were contacted so fast: cells of one week, `happened` where the lead was won."""

    band: str
    cells: Cells


class Stratum(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of one vertical in one area, by source; `key` is the number that `LeadOutcome.stratum` gives it."""

    key: int
    exclusive: int
    shared: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the answer is made from. The two sides number the same businesses.

    `matched` is both sides again, weighted so that each stratum weighs as it does among exclusive leads; `overlap` is
    the share of exclusive leads that this leaves. `silent` businesses have told nothing and are in no figure; beyond
    200, several of `all_businesses` share a number. `speed`
    has the bands in order, the fast ones first.
    """

    businesses: int
    all_businesses: int
    exclusive: Side
    shared: Side | None = None
    assumed: Assumed | None = None
    matched: tuple[Side, Side] | None = None
    overlap: float = 0.0
    strata: tuple[Stratum, ...] = ()
    silent: int = 0
    labour_minor: int = 0
    speed: tuple[Speed, ...] = ()
    fast_bands: int = 2

    @property
    def fewest(self) -> int:
        """How many businesses are behind the source that has fewer of them."""
        return min(side.businesses for side in (self.exclusive, self.shared or self.exclusive))


def horizon_of(*sides: Side | None) -> int:
    """The last week through which enough leads of every source have been observed; 0 where no week was."""
    risks = [at_risk(side.won) for side in sides if side is not None]
    return next((week for week in range(WEEKS, 0, -1) if all(risk[week - 1] >= LEAST_AT_RISK for risk in risks)), 0)


def enough(side: Side) -> bool:
    """Whether enough leads have ended for an interval of money to hold what it says."""
    return side.outcomes >= LEAST_OUTCOMES and side.won.events >= LEAST_WINS
