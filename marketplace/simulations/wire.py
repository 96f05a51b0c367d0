"""Request, state and result of a simulation: what the API takes and returns, and what is stored."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from billing.intervals import Figure
from marketplace.runtime import ids
from marketplace.simulations.changes import MOST_CHANGES, WhatIf
from marketplace.simulations.comparison import (
    BusinessComparison,
    Comparison,
    Reproduction,
    SimulationFigures,
    WinComparison,
)
from marketplace.simulations.loading import SimulatedLeadCounts

UNKNOWN: Final = (
    "Whether another business would have won the job is not known: wins are on record only for leads that were sold, "
    "and only for the business that got them."
)
"Part of every result: what no simulation can tell."

Changes: TypeAlias = Annotated[tuple[WhatIf, ...], Meta(max_length=MOST_CHANGES)]


class SimulationState(StrEnum):
    """State of a simulation."""

    waiting = "waiting"
    """It has not begun: simulations are computed one after another."""
    running = "running"
    """A worker computes it."""
    done = "done"
    """It has a result."""
    failed = "failed"
    """It could not be computed."""
    cancelled = "cancelled"
    """An operator cancelled it."""


OPEN: Final = (SimulationState.waiting, SimulationState.running)
"States in which a simulation has not ended."


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A change that was tried, in a sentence with its effect, and the comparison behind the sentence."""

    change: str
    sentence: str
    sold_a_week: Figure
    revenue_a_week: Figure
    wins_lost_a_week: Figure


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a simulation: the comparison in words and in figures, or the suggestions if they were asked for.

    `left_out` are leads of the time that cannot be decided about again. `versions` counts the versions of the rules
    published since its beginning: both simulations use the rules of today.
    """

    currency: str
    sentences: tuple[str, ...]
    left_out: SimulatedLeadCounts
    versions: int
    comparison: Comparison | None = None
    suggestions: tuple[Suggestion, ...] = ()


class SimulationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/simulations: changes of one vertical, tried on the live leads of a time, `from` up to `to`.

    By default the time is the last 13 weeks. With `suggest`, a list of small changes is tried instead, one by one.
    """

    vertical: Annotated[str, Meta(max_length=40)]
    since: datetime | None = msgspec.field(default=None, name="from")
    until: datetime | None = msgspec.field(default=None, name="to")
    changes: Changes = ()
    suggest: bool = False


class BusinessComparisonView(msgspec.Struct, frozen=True, kw_only=True):
    """One business in both simulations; `entitled` is the number of leads that its weight gives it."""

    business_id: str
    leads_before: int
    leads_after: int
    spent_before_minor: int
    spent_after_minor: int
    entitled_before: float
    entitled_after: float


class ComparisonView(msgspec.Struct, frozen=True, kw_only=True):
    """Result of changed rules beside that of the unchanged ones, for the same leads. Amounts are minor units.

    `gained` leads are sold with the changed rules alone, `lost` without them alone, and `moved` are sold to another
    business. Figures per week are differences, with 95 % intervals.
    """

    weeks: float
    before: SimulationFigures
    after: SimulationFigures
    gained: int
    lost: int
    moved: int
    sold_a_week: Figure
    revenue_a_week: Figure
    wins_lost_a_week: Figure
    businesses: tuple[BusinessComparisonView, ...]
    wins: WinComparison
    reproduction: Reproduction


class SimulationResultView(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a simulation. `unknown` says what no simulation can tell."""

    currency: str
    sentences: tuple[str, ...]
    unknown: str
    left_out: SimulatedLeadCounts
    versions: int
    comparison: ComparisonView | None
    suggestions: tuple[Suggestion, ...]


class SimulationView(msgspec.Struct, frozen=True, kw_only=True):
    """A simulation: its request, its progress in leads, and its result once it is done, or why it failed."""

    id: str
    vertical: str
    state: SimulationState
    since: datetime = msgspec.field(name="from")
    until: datetime = msgspec.field(name="to")
    changes: tuple[WhatIf, ...]
    suggest: bool
    leads: int
    leads_done: int
    made_at: datetime
    ended_at: datetime | None
    failure: str | None
    result: SimulationResultView | None


def show_result(result: SimulationResult) -> SimulationResultView:
    """Return a result in the form that the API returns."""
    return SimulationResultView(
        currency=result.currency,
        sentences=result.sentences,
        unknown=UNKNOWN,
        left_out=result.left_out,
        versions=result.versions,
        comparison=_show_comparison(result.comparison) if result.comparison else None,
        suggestions=result.suggestions,
    )


def _show_comparison(comparison: Comparison) -> ComparisonView:
    fields = {name: getattr(comparison, name) for name in ComparisonView.__struct_fields__ if name != "businesses"}
    return ComparisonView(businesses=tuple(map(show_business, comparison.businesses)), **fields)


def show_business(row: BusinessComparison) -> BusinessComparisonView:
    """Return the figures of a business in the form that the API returns."""
    fields = {name: getattr(row, name) for name in BusinessComparison.__struct_fields__ if name != "business_id"}
    return BusinessComparisonView(business_id=ids.encode("biz", row.business_id), **fields)
