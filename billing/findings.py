"""The answer in figures: every number that the comparison of exclusive and shared leads comes to."""

from enum import StrEnum

import msgspec

from billing.evidence import Basis
from billing.intervals import Figure


class Verdict(StrEnum):
    """The answer to the question, in order of precedence."""

    nothing_to_compare = "nothing_to_compare"
    """Neither an import nor a declared figure says what shared leads bring."""
    not_enough_data = "not_enough_data"
    """Too few leads have ended."""
    likely_yes = "likely_yes"
    """Exclusive leads most likely pay better: the whole interval lies above shared leads, matched leads agreeing."""
    likely_no = "likely_no"
    """They most likely pay worse: the whole interval lies below shared leads, matched leads agreeing."""
    cannot_tell = "cannot_tell"
    """The difference may be chance: the interval holds both."""


class SourceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One source in figures; amounts in minor units, the cost of work on each lead included."""

    basis: Basis
    leads: int
    outcomes: int
    open: int
    wins: int
    spent_minor: int
    spent_per_lead_minor: float
    contact_rate: Figure | None = None
    qualify_rate: Figure | None = None
    win_rate: Figure | None = None
    per_contacted_minor: Figure | None = None
    per_qualified_minor: Figure | None = None
    per_won_minor: Figure | None = None
    value_per_win_minor: float | None = None
    revenue_per_unit: Figure | None = None


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """The rule worked: exclusive leads bring more per unit spent where the price ratio is below the win ratio.

    Both prices have the labour in them. `price_minor` is the exclusive price at which the two would be equal.
    """

    price_ratio: float
    win_ratio: Figure
    price_minor: Figure


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    """The same comparison between leads of like kind only."""

    overlap: float
    exclusive_per_unit: Figure
    shared_per_unit: Figure
    ratio: Figure
    win_ratio: Figure


class SpeedBand(msgspec.Struct, frozen=True, kw_only=True):
    """How often leads were won that were first contacted so soon."""

    band: str
    leads: int
    wins: int
    win_rate: Figure


class SpeedEffect(msgspec.Struct, frozen=True, kw_only=True):
    """Win rates by time to first contact; `ratio` is that of the fast bands to the slow ones."""

    bands: tuple[SpeedBand, ...]
    fast: str
    ratio: Figure | None
    sentence: str


class PriceCase(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the same question if exclusive leads cost more or less: `change` of 0.2 is a fifth dearer.

    The verdict is judged as the whole answer is, so that today's price has today's verdict.
    """

    change: float
    verdict: Verdict
    revenue_per_unit: Figure
    sentence: str


class Roi(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, with all that it rests on."""

    verdict: Verdict
    sentence: str
    horizon_weeks: int
    businesses: int
    exclusive: SourceFigures
    shared: SourceFigures | None
    ratio: Figure | None
    break_even: BreakEven | None
    matched: Matched | None
    speed: SpeedEffect | None
    prices: tuple[PriceCase, ...]
    notes: tuple[str, ...]
