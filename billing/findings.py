"""Result of the comparison of exclusive with shared leads: the verdict and every figure behind it."""

from enum import StrEnum

import msgspec

from billing.evidence import EvidenceBasis
from billing.intervals import Figure, Ratio


class RoiVerdict(StrEnum):
    """Answer to "do exclusive leads pay better than shared ones?", in order of precedence."""

    nothing_to_compare = "nothing_to_compare"
    """No shared leads were imported and no figures for them were declared."""
    not_enough_data = "not_enough_data"
    """Too few leads are known to be won or lost."""
    too_uneven = "too_uneven"
    """A few jobs make up most of the revenue, or a few businesses bought most of the leads: no range can be given."""
    likely_yes = "likely_yes"
    """Exclusive leads most likely pay better: the ratio's interval for verdicts lies above 1, for matched leads too."""
    likely_no = "likely_no"
    """Exclusive leads most likely pay worse: the ratio's interval for verdicts lies below 1, for matched leads too."""
    cannot_tell = "cannot_tell"
    """The difference may be chance: the ratio's interval for verdicts contains 1."""


class Unevenness(StrEnum):
    """Reason why no range can be given for a comparison with enough data, in order of precedence."""

    businesses = "businesses"
    """A few businesses bought most of the leads, so that they alone would decide."""
    jobs = "jobs"
    """A few jobs make up so much of the revenue that the next large one could change the answer."""


class SourceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one source. Amounts are in minor units and include the cost of working on each lead."""

    basis: EvidenceBasis
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
    """Break-even rule: exclusive leads bring more per unit spent if the price ratio is below the win ratio.

    Both prices of `price_ratio` include labour. `price_minor` is the price of an exclusive lead, without labour, at
    which both sources would bring the same.
    """

    price_ratio: float
    win_ratio: Figure
    price_minor: Figure


class ComparedLeads(msgspec.Struct, frozen=True, kw_only=True):
    """Revenue per unit spent of both sources in the leads whose ratio decides the verdict.

    For one business these are all of its leads. For many they are the leads of the `businesses` with both sources, and
    a business has the same part in both figures.
    """

    businesses: int
    exclusive_per_unit: Figure
    shared_per_unit: Figure


class MatchedComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison among leads of the same business, vertical and area. `overlap` is the share of exclusive leads in
    it."""

    overlap: float
    exclusive_per_unit: Figure
    shared_per_unit: Figure
    ratio: Ratio
    win_ratio: Figure


class SpeedBand(msgspec.Struct, frozen=True, kw_only=True):
    """Win rate of the leads first contacted within one band of time."""

    band: str
    leads: int
    wins: int
    win_rate: Figure


class SpeedEffect(msgspec.Struct, frozen=True, kw_only=True):
    """Win rates by time to first contact.

    `ratio` is the win rate of the fast bands over that of the slow ones among leads of one business, vertical, budget
    and time of day, None if too few were won; `leads` were compared so. `fast` names the slowest band that counts as
    fast. The win rates of `bands` are those of all leads and compare nothing.
    """

    bands: tuple[SpeedBand, ...]
    fast: str
    leads: int
    ratio: Figure | None
    sentence: str


class DelayEffect(msgspec.Struct, frozen=True, kw_only=True):
    """Effect of a delay that was given to leads at random, so that nothing else can explain it.

    `ratio` is the win rate of leads that were not held back over that of those that were, within each business; None if
    too few were won. `leads` were compared.
    """

    leads: int
    ratio: Figure | None
    sentence: str


class PriceCase(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict if exclusive leads cost more or less. A `change` of 0.2 is a price 20 % higher.

    It follows the same rule as the whole comparison, so a `change` of 0 has the verdict of `Roi`.
    """

    change: float
    verdict: RoiVerdict
    revenue_per_unit: Figure
    sentence: str


class Roi(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the comparison: the verdict, its sentence, and the figures and notes behind it."""

    verdict: RoiVerdict
    sentence: str
    horizon_weeks: int
    businesses: int
    exclusive: SourceFigures
    shared: SourceFigures | None
    compared: ComparedLeads | None
    ratio: Ratio | None
    break_even: BreakEven | None
    matched: MatchedComparison | None
    speed: SpeedEffect | None
    delay: DelayEffect | None
    prices: tuple[PriceCase, ...]
    notes: tuple[str, ...]
