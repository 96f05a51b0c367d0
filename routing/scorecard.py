"""Learned chance that a lead is won: an additive points card, and the values of a lead that it reads.

    compile_scorecard(card)                  → once per card
    feature_values(facts, provider=…)        → once per lead
    chance(compiled, values)                 → the probability, and the part of each answer in it

A card gives each answer points in log odds, against the average lead of its training. The points of a lead and the base
add up to its log odds exactly: nothing else is in the score. `marketplace/learning/training.py` makes cards from
outcomes, offline; docs/LEARNING.md says how one is judged and what it must not be used for.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from itertools import pairwise
from math import exp, isfinite
from typing import Annotated, Any, Final, assert_never
from zoneinfo import ZoneInfo

import msgspec

from routing.inquiry import EvidenceKind, Facts, Timing

FeatureValue = str | int
"""Value of one feature of a lead: text for a category, a whole number for a number. A missing one is unknown."""

FEATURE_TITLES: Final[Mapping[str, str]] = {
    "budget": "Budget in minor units",
    "budget_evidence": "How the budget is known",
    "authority": "Authority",
    "authority_evidence": "How the authority is known",
    "need_evidence": "How the need is known",
    "days_until_wanted": "Days until it is wanted",
    "timing_evidence": "How the timing is known",
    "country": "Country",
    "area": "Area",
    "language": "Language",
    "provider": "Provider",
    "business": "Business",
    "source": "Source",
    "form": "Form",
    "campaign": "Campaign",
    "mode": "Mode",
    "weekday": "Day of the week",
    "hour": "Hour of the day",
    "company_size": "Company size",
    "phone_type": "Type of telephone",
    "email_disposable": "Disposable e-mail address",
    "touches": "Earlier interactions",
}
"""Features that every lead can have, in words. Need fields are features besides, each named by `NEED_PREFIX`."""

BUSINESS_FEATURE: Final = "business"
"""Name of the feature that says with which business the lead is won."""

NEED_PREFIX: Final = "need."
"""Beginning of the name of a feature that is a need field of the vertical."""

EVIDENCE_SUFFIX: Final = "_evidence"
"""End of the name of a feature that says how an answer is known."""

AREA_CHARACTERS: Final = 2
"""Characters of the postal code that the area has. More would single out neighbourhoods, and with them their people."""

WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

POINT: Final = 1 / 1_024
"""Smallest difference between points. Multiples of a power of two add up exactly, in any order."""

LARGEST_LOG_ODDS: Final = 30.0
"""Log odds beyond which the probability stays the same, so that it is never 0 or 1."""

SMALLEST_PART: Final = 0.05
"""Points below which a part is left out of the words: they change a chance by at most 1.3 percentage points."""

Finite = Annotated[float, msgspec.Meta(ge=-1_000, le=1_000)]
"""Log odds of a card. JSON has no infinity, and these bounds refuse numbers that were not learned."""


class ScoreBin(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that have the same points, in words, with the points in log odds."""

    label: str
    points: Finite


class NumberFeature(msgspec.Struct, frozen=True, kw_only=True, tag="number"):
    """Number in ranges. `bins[i]` is of the values up to `edges[i]`, and the last bin of those above all edges.

    Raises ValueError unless the edges rise and there is one bin more than edges.
    """

    name: str
    title: str
    edges: tuple[float, ...]
    bins: tuple[ScoreBin, ...]
    unknown: ScoreBin

    def __post_init__(self) -> None:
        if len(self.bins) != len(self.edges) + 1:
            raise ValueError(f"{self.name}: {len(self.edges)} edges need {len(self.edges) + 1} bins")
        if not all(isfinite(edge) for edge in self.edges) or any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError(f"{self.name}: edges must be finite and rise")


class CategoryFeature(msgspec.Struct, frozen=True, kw_only=True, tag="category"):
    """Category: a bin by value, one for all `other` values, and one for leads without a value."""

    name: str
    title: str
    bins: dict[str, ScoreBin]
    other: ScoreBin
    unknown: ScoreBin


CardFeature = NumberFeature | CategoryFeature


class CardCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """Correction of a card's log odds: `shift` + `slope` * (intercept + points). The default changes nothing."""

    shift: Finite = 0.0
    slope: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0


class CardOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that a card was trained on, those that were won, and the days of the first and the last, if known."""

    leads: int
    wins: int
    first: date | None = None
    last: date | None = None


class Scorecard(msgspec.Struct, frozen=True, kw_only=True):
    """Points card of one vertical for the chance that a lead is won within `horizon_weeks`.

    `version` is given by whoever stores the card; 0 before. `intercept` is in log odds. Raises ValueError if two
    features have the same name.
    """

    vertical: str
    version: int = 0
    intercept: Finite
    features: tuple[CardFeature, ...]
    calibration: CardCalibration = CardCalibration()
    trained_on: CardOrigin
    horizon_weeks: int = 13

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if len(names) != len(set(names)):
            raise ValueError("Two features have the same name.")


class ScorePart(msgspec.Struct, frozen=True, kw_only=True):
    """Part of one feature in a score: the answer in words, and its points in log odds against the average lead."""

    feature: str
    title: str
    label: str
    points: float


class Chance(msgspec.Struct, frozen=True, kw_only=True):
    """Chance of one lead, above 0 and below 1. `base` and the points of the parts add up exactly to `log_odds`."""

    probability: float
    log_odds: float
    base: float
    parts: tuple[ScorePart, ...]


# Scoring.

_Step = tuple[str, tuple[float, ...] | None, tuple[ScorePart, ...], dict[Any, ScorePart], ScorePart, ScorePart]
"""Feature prepared for scoring: name, edges of a number, its parts, parts by category, the other one, the unknown."""


class CompiledScorecard(msgspec.Struct, frozen=True, kw_only=True):
    """Card prepared for scoring, its calibration included in the points. Made by `compile_scorecard`."""

    card: Scorecard
    base: float
    steps: tuple[_Step, ...]


def compile_scorecard(card: Scorecard) -> CompiledScorecard:
    """Prepare a card for scoring: one part for each bin, with calibrated points rounded to multiples of `POINT`."""
    slope, shift = card.calibration.slope, card.calibration.shift
    return CompiledScorecard(
        card=card,
        base=round_points(shift + slope * card.intercept),
        steps=tuple(_step(feature, slope) for feature in card.features),
    )


def _step(feature: CardFeature, slope: float) -> _Step:
    def part(score_bin: ScoreBin) -> ScorePart:
        points = round_points(slope * score_bin.points)
        return ScorePart(feature=feature.name, title=feature.title, label=score_bin.label, points=points)

    unknown = part(feature.unknown)
    match feature:
        case NumberFeature():
            return feature.name, feature.edges, tuple(part(each) for each in feature.bins), {}, unknown, unknown
        case CategoryFeature():
            levels = {value: part(each) for value, each in feature.bins.items()}
            return feature.name, None, (), levels, part(feature.other), unknown
        case _:
            assert_never(feature)


def reads_business(card: CompiledScorecard) -> bool:
    """Return whether a card has points for the business, so that a lead has another chance with each."""
    return any(name == BUSINESS_FEATURE for name, *_ in card.steps)


def round_points(points: float) -> float:
    """Return the multiple of `POINT` that is nearest to `points`."""
    return round(points / POINT) * POINT


def chance(card: CompiledScorecard, values: Mapping[str, FeatureValue]) -> Chance:
    """Return the chance of a lead with these values. Never raises.

    A missing value counts as unknown, as does text where the card has a number. A value that the card has never seen
    counts as other.
    """
    log_odds = card.base
    parts = []
    for name, edges, ranges, levels, other, unknown in card.steps:
        value = values.get(name)
        if value is None:
            part = unknown
        elif edges is None:
            part = levels.get(value, other)
        elif isinstance(value, str):
            part = unknown
        else:
            part = ranges[bisect_left(edges, value)]
        parts.append(part)
        log_odds += part.points
    return Chance(probability=probability_of(log_odds), log_odds=log_odds, base=card.base, parts=tuple(parts))


def probability_of(log_odds: float) -> float:
    """Return the probability, above 0 and below 1, of log odds."""
    return 1 / (1 + exp(-max(-LARGEST_LOG_ODDS, min(LARGEST_LOG_ODDS, log_odds))))


def chance_in_words(score: Chance) -> str:
    """Return the chance and what raises and lowers it, the largest part first.

    Parts of less than `SMALLEST_PART` are left out.
    """
    average = probability_of(score.base)
    sentences = [f"Chance of winning {score.probability:.0%}; the average lead has {average:.0%}."]
    ordered = sorted(score.parts, key=lambda part: (-abs(part.points), part.feature))
    for verb, sign in (("Raised", 1), ("Lowered", -1)):
        words = [part_in_words(part) for part in ordered if part.points * sign >= SMALLEST_PART]
        if words:
            sentences.append(f"{verb} by {'; '.join(words)}.")
    return " ".join(sentences)


def part_in_words(part: ScorePart) -> str:
    """Return one part with its points, such as "Source: chat (+0.41)"."""
    return f"{part.title}: {part.label} ({part.points:+.2f})"


# Values of a lead.


def feature_values(facts: Facts, *, provider: str, language: str | None = None) -> dict[str, FeatureValue]:
    """Return what is known of a lead before it is sold, by feature. What is not known is missing.

    `language` is a language tag such as "en". There is no contact data here, and of the place only the country and
    `AREA_CHARACTERS` of the postal code. The hour and the weekday are those of the person, and unknown without a time
    zone. The business is not among the values: whoever asks for the chance with one business adds it as "business",
    and without it a card answers for the average one.
    """
    place, signals = facts.place, facts.signals
    values: dict[str, FeatureValue] = {
        "provider": provider,
        "mode": facts.mode.value,
        "country": place.country,
        "phone_type": signals.phone_type,
        "email_disposable": "yes" if signals.email_disposable else "no",
        "touches": len(facts.touches),
    }
    for name, value in _optional_values(facts, language):
        if value is not None:
            values[name] = value
    for name, answer in facts.need_fields.items():
        values[NEED_PREFIX + name] = ("yes" if answer else "no") if isinstance(answer, bool) else answer
    return values


def _optional_values(facts: Facts, language: str | None) -> Iterator[tuple[str, FeatureValue | None]]:
    evidence, place = facts.evidence, facts.place
    yield "language", language
    yield "source", facts.source
    yield "form", facts.form
    yield "campaign", facts.campaign
    yield "company_size", facts.company_size
    if facts.budget is not None:
        yield "budget", facts.budget.maximum_minor or facts.budget.minor
        yield "budget_evidence", evidence.get("budget", EvidenceKind.stated).value
    if facts.authority is not None:
        yield "authority", facts.authority.value
        yield "authority_evidence", evidence.get("authority", EvidenceKind.stated).value
    if facts.need_fields:
        yield "need_evidence", evidence.get("need", EvidenceKind.stated).value
    if facts.timing is not None:
        yield "days_until_wanted", _days_until_wanted(facts.timing, facts.asked_at)
        yield "timing_evidence", evidence.get("timing", EvidenceKind.stated).value
    if place.postal_code is not None:
        yield "area", f"{place.country}-{place.postal_code[:AREA_CHARACTERS]}"
    if place.time_zone is not None:
        local = facts.asked_at.astimezone(ZoneInfo(place.time_zone))
        yield "weekday", WEEKDAYS[local.weekday()]
        yield "hour", local.hour


def _days_until_wanted(timing: Timing, asked_at: datetime) -> int | None:
    if timing.not_before is not None:
        return max(0, (timing.not_before - asked_at.date()).days)
    return timing.within_days
