"""Drift of a scorecard: whether its chances still come true, and whether leads still resemble those of its training.

Pure. The input shift is the population stability index over the bins of a feature, and over the tenths of the score:
the sum of (now - then) · ln(now / then), where `then` and `now` are shares of leads. Below 0.1 nothing has changed to
speak of; above 0.25 the population is another one (N. Siddiqi, Credit Risk Scorecards, 2006, chapter 9).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import inf, log, sqrt
from typing import Final, TypeVar

import msgspec
import numpy as np

from marketplace.learning.evaluation import JudgedLead, outcome_weights
from routing.scorecard import CompiledScorecard, FeatureValue, chance

SHIFT_LIMIT: Final = 0.25
"Stability index above which the population is another one."

LEADS_OF_A_BIN: Final = 20
"""Recent leads for each bin of a feature, from which its shift is computed. The index of unchanged leads is about the
number of bins over the number of leads, so that chance alone stays at 0.05."""

TENTHS: Final = 10
SMALLEST_SHARE: Final = 1e-4
"Share of an empty bin in the index, which is infinite otherwise."

WEEKLY_ERRORS: Final = 2.81
"Standard errors of the interval, so that somebody may look at it every week (docs/decisions/0042)."

RATIO_LIMIT: Final = 0.1
"""Part by which wins may differ from what was expected beyond the whole interval. A card that is off by a tenth still
ranks in the same order."""

FEWEST_EXPECTED: Final = 10.0
"Expected wins from which calibration is judged."


Bin = TypeVar("Bin", str, int)


class DriftAlarm(StrEnum):
    """Reason for which a card is suspended."""

    inputs_shifted = "inputs_shifted"
    """The scores of recent leads are distributed in another way than those of its training."""
    calibration_off = "calibration_off"
    """Leads are won more or less often than it says."""


class FeatureProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Share of leads in each bin of a feature, by the bin's label."""

    feature: str
    title: str
    shares: dict[str, float]


class InputProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Distribution of some leads over the bins of a card, and over the tenths of the score at its training.

    `edges` are the log odds between the tenths, rising.
    """

    leads: int
    edges: tuple[float, ...]
    tenths: tuple[float, ...]
    features: tuple[FeatureProfile, ...]


class FeatureShift(msgspec.Struct, frozen=True, kw_only=True):
    """Stability index of one feature; None where there are too few recent leads for its bins."""

    feature: str
    title: str
    shift: float | None


class DriftFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a check. `shift` is that of the score, None with too few recent leads.

    `expected` and `won` are wins among the leads with an outcome, weighted for those still open; `ratio` is won over
    expected with the bounds of its interval, None with too few expected wins.
    """

    recent_leads: int
    shift: float | None
    features: tuple[FeatureShift, ...]
    leads: int
    expected: float
    won: float
    ratio: float | None
    low: float | None
    high: float | None

    @property
    def alarm(self) -> DriftAlarm | None:
        """The reason to suspend the card, or None."""
        if self.shift is not None and self.shift > SHIFT_LIMIT:
            return DriftAlarm.inputs_shifted
        if self.low is not None and self.low > 1 + RATIO_LIMIT:
            return DriftAlarm.calibration_off
        if self.high is not None and self.high < 1 - RATIO_LIMIT:
            return DriftAlarm.calibration_off
        return None


def profile_inputs(
    card: CompiledScorecard, leads: Iterable[Mapping[str, FeatureValue]], edges: Sequence[float] | None = None
) -> InputProfile:
    """Return the distribution of leads over the bins of a card. Without `edges` the score is cut into their tenths."""
    scores: list[float] = []
    bins: dict[str, Counter[str]] = {name: Counter() for name, *_ in card.steps}
    for values in leads:
        score = chance(card, values)
        scores.append(score.log_odds)
        for part in score.parts:
            bins[part.feature][part.label] += 1
    total = max(len(scores), 1)
    cuts = tuple(float(edge) for edge in (_tenths(scores) if edges is None else edges))
    counts = np.bincount(np.searchsorted(cuts, scores, side="left"), minlength=len(cuts) + 1)
    titles = {feature.name: feature.title for feature in card.card.features}
    return InputProfile(
        leads=len(scores),
        edges=cuts,
        tenths=tuple(float(count) / total for count in counts),
        features=tuple(
            FeatureProfile(
                feature=name, title=titles[name], shares={label: count / total for label, count in counted.items()}
            )
            for name, counted in bins.items()
        ),
    )


def _tenths(scores: Sequence[float]) -> list[float]:
    """Return the scores between the tenths; fewer where many leads have the same score."""
    return sorted(set(np.quantile(scores, np.arange(1, TENTHS) / TENTHS).tolist())) if scores else []


def stability_index(then: Mapping[Bin, float], now: Mapping[Bin, float]) -> float:
    """Return the population stability index of two distributions, each of shares by bin."""
    total = 0.0
    for name in then.keys() | now.keys():
        before, after = (max(shares.get(name, 0.0), SMALLEST_SHARE) for shares in (then, now))
        total += (after - before) * log(after / before)
    return total


def measure_drift(training: InputProfile, recent: InputProfile, judged: Sequence[JudgedLead]) -> DriftFigures:
    """Compare recent leads with those of the training, and the outcomes of judged leads with their chances."""
    profiles = {profile.feature: profile for profile in recent.features}
    features = tuple(
        FeatureShift(feature=then.feature, title=then.title, shift=_shift(then.shares, profiles, then.feature, recent))
        for then in training.features
    )
    shift = None
    if recent.leads >= LEADS_OF_A_BIN * TENTHS:
        shift = stability_index(dict(enumerate(training.tenths)), dict(enumerate(recent.tenths)))
    won, weights = outcome_weights([lead.outcome for lead in judged])
    chances = np.array([lead.probability for lead in judged])
    expected, wins = float((weights * chances).sum()), float((weights * won).sum())
    error = sqrt(float((weights**2 * chances * (1 - chances)).sum()))
    ratio = low = high = None
    if expected >= FEWEST_EXPECTED:
        ratio = wins / expected
        low, high = (max(0.0, (wins + side * WEEKLY_ERRORS * error) / expected) for side in (-1, 1))
    return DriftFigures(
        recent_leads=recent.leads,
        shift=shift,
        features=features,
        leads=int((weights > 0).sum()),
        expected=expected,
        won=wins,
        ratio=ratio,
        low=low,
        high=high,
    )


def _shift(
    then: Mapping[str, float], profiles: Mapping[str, FeatureProfile], feature: str, recent: InputProfile
) -> float | None:
    now = profiles[feature].shares if feature in profiles else {}
    bins = len(then.keys() | now.keys())
    return stability_index(then, now) if recent.leads >= LEADS_OF_A_BIN * bins else None


def largest_shift(figures: DriftFigures) -> FeatureShift | None:
    """Return the feature that has shifted most, or None."""
    measured = [feature for feature in figures.features if feature.shift is not None]
    return max(measured, key=lambda feature: -inf if feature.shift is None else feature.shift, default=None)
