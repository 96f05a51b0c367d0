"""Judgement of predicted chances by what became of the leads: ranking, calibration, deciles, groups.

Pure, and without the library that trains, so that the service can judge a card in shadow. A lead that is still open is
neither won nor lost: it counts nothing itself, and ended leads of its age count for it (inverse probability of
censoring, Robins and Rotnitzky 1992). Its weight goes to leads whose outcome came as late as it was followed.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from routing.scorecard import CardCalibration, FeatureValue

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

WEEK: Final = timedelta(weeks=1)
HORIZON_WEEKS: Final = 13
"""Weeks within which a win counts, as in docs/ROI.md."""

BINS: Final = 10
"""Bins with equal numbers of leads, from which the calibration error is computed."""

LEAST_GROUP: Final = 30
"""Fewest leads of a group that is judged by itself."""

LEAST_OF_EACH: Final = 10
"""Fewest won and fewest other leads from which a ranking within a group is judged."""

GROUP_FEATURES: Final = ("area", "language", "provider")
"""Features by whose values a card is judged, so that it is not right on average and wrong for some."""


class OutcomeKind(StrEnum):
    """Kinds of outcome of a lead within the horizon."""

    won = "won"
    """It became a customer."""
    not_won = "not_won"
    """It ended without a win, or was followed for the whole horizon without one."""
    open = "open"
    """Not ended, and not yet followed for the whole horizon."""


class FollowedOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a lead with its week, counted from 1: that of the win or the end; of an open lead the last whole one.

    Made by `followed_outcome`.
    """

    outcome: OutcomeKind
    weeks: int


def followed_outcome(
    age: timedelta, won_after: timedelta | None, lost_after: timedelta | None = None, horizon: int = HORIZON_WEEKS
) -> FollowedOutcome:
    """Return the outcome of a lead that has been followed for `age` since its receipt.

    Only whole weeks count: what happened in a week that is not over is not counted yet, else young leads would count
    for their wins alone. A win after the horizon is none.
    """
    followed = min(age // WEEK, horizon)
    for outcome, after in ((OutcomeKind.won, won_after), (OutcomeKind.not_won, lost_after)):
        if after is not None and (week := max(1, -(-after // WEEK))) <= followed:
            return FollowedOutcome(outcome=outcome, weeks=week)
    outcome = OutcomeKind.not_won if followed >= horizon else OutcomeKind.open
    return FollowedOutcome(outcome=outcome, weeks=followed)


class JudgedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead with its values, the chance that was predicted without its outcome, and the outcome."""

    values: Mapping[str, FeatureValue]
    probability: float
    outcome: FollowedOutcome


class ScoreDecile(msgspec.Struct, frozen=True, kw_only=True):
    """Tenth of the leads by chance, the best first: predicted chances, and the share that was won."""

    leads: int
    wins: int
    lowest: float
    highest: float
    predicted: float
    won: float


class GroupEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Leads with one value of a feature; value None: without one. `auc` is None if too few were won or not won."""

    feature: str
    value: FeatureValue | None
    leads: int
    wins: int
    predicted: float
    won: float
    auc: float | None


class CardEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Judgement of chances over leads with an outcome; `open_leads` are counted only.

    Shares, `auc` and the errors are weighted for open leads. `auc` is the probability that a won lead had a higher
    chance than another one. `brier` is the mean squared error, `brier_of_average` that of the average for everybody.
    `calibration_error` is the mean difference of predicted and won over ten bins with equal numbers of leads, and
    `calibration` the correction that fits best. `best` is the number of leads with the highest chances of which
    `won_of_best` were won.
    """

    leads: int
    wins: int
    open_leads: int
    won: float
    auc: float
    brier: float
    brier_of_average: float
    calibration_error: float
    calibration: CardCalibration
    deciles: tuple[ScoreDecile, ...]
    groups: tuple[GroupEvaluation, ...]
    best: int
    won_of_best: float


def evaluate(
    leads: Sequence[JudgedLead],
    *,
    group_features: Sequence[str] = GROUP_FEATURES,
    best: int = 1_000,
    horizon: int = HORIZON_WEEKS,
) -> CardEvaluation:
    """Return the judgement of chances over leads, of which at least one was won and one was not.

    Raises ValueError if there are none of either.
    """
    won, weights = outcome_weights([lead.outcome for lead in leads], horizon)
    ended = weights > 0
    judged = [lead for lead, counts in zip(leads, ended, strict=True) if counts]
    won, weights = won[ended], weights[ended]
    if not won.any() or won.all():
        raise ValueError("A ranking needs leads that were won and leads that were not.")
    chances = np.array([lead.probability for lead in judged])
    order = np.argsort(-chances, kind="stable")
    average = float(np.average(won, weights=weights))
    deciles = tuple(_decile(chances[part], won[part], weights[part]) for part in _tenths(order, weights))
    share = weights[order[:best]].sum()
    return CardEvaluation(
        leads=len(judged),
        wins=int(won.sum()),
        open_leads=len(leads) - len(judged),
        won=average,
        auc=area_under_curve(chances, won, weights),
        brier=float(np.average((chances - won) ** 2, weights=weights)),
        brier_of_average=average * (1 - average),
        calibration_error=calibration_error(chances, won, weights),
        calibration=fit_calibration(log_odds_of(chances), won, weights),
        deciles=deciles,
        groups=tuple(_judge_groups(leads, group_features, horizon)),
        best=min(best, len(judged)),
        won_of_best=float((weights * won)[order[:best]].sum() / share),
    )


def _tenths(order: NDArray[np.int64], weights: Floats) -> list[NDArray[np.int64]]:
    """Return the positions of `order` in ten parts of about equal weight, without empty ones."""
    passed = np.cumsum(weights[order]) - weights[order] / 2
    tenth = np.minimum((passed / weights.sum() * BINS).astype(int), BINS - 1)
    return [order[tenth == number] for number in range(BINS) if (tenth == number).any()]


def _decile(chances: Floats, won: Flags, weights: Floats) -> ScoreDecile:
    return ScoreDecile(
        leads=len(chances),
        wins=int(won.sum()),
        lowest=float(chances.min()),
        highest=float(chances.max()),
        predicted=float(np.average(chances, weights=weights)),
        won=float(np.average(won, weights=weights)),
    )


def _judge_groups(leads: Sequence[JudgedLead], features: Sequence[str], horizon: int) -> Iterator[GroupEvaluation]:
    """Judge each value of each feature, the most frequent first.

    Open leads are weighted within the group: a new provider's are all young. A group is left out if fewer than
    `LEAST_GROUP` of its leads have an outcome, or if none has been followed for the whole horizon.
    """
    for feature in features:
        members: dict[FeatureValue | None, list[JudgedLead]] = defaultdict(list)
        for lead in leads:
            members[lead.values.get(feature)].append(lead)
        if list(members) == [None]:
            continue
        for value, group in sorted(members.items(), key=lambda item: (-len(item[1]), str(item[0]))):
            if any(lead.outcome.weeks >= horizon for lead in group):
                judgement = _judge_group(feature, value, group, horizon)
                if judgement.leads >= LEAST_GROUP:
                    yield judgement


def _judge_group(
    feature: str, value: FeatureValue | None, group: Sequence[JudgedLead], horizon: int
) -> GroupEvaluation:
    chances = np.array([lead.probability for lead in group])
    won, weights = outcome_weights([lead.outcome for lead in group], horizon)
    leads, wins = int((weights > 0).sum()), int(won.sum())
    ranked = min(wins, leads - wins) >= LEAST_OF_EACH
    return GroupEvaluation(
        feature=feature,
        value=value,
        leads=leads,
        wins=wins,
        predicted=float(np.average(chances, weights=weights)),
        won=float(np.average(won, weights=weights)),
        auc=area_under_curve(chances, won, weights) if ranked else None,
    )


# Measures.


def outcome_weights(outcomes: Sequence[FollowedOutcome], horizon: int = HORIZON_WEEKS) -> tuple[Flags, Floats]:
    """Return which leads were won, and the weight of each: one over the chance of having been followed to its outcome.

    Open leads weigh nothing. The chance is Kaplan and Meier's, in weeks, with the end of following as the event: of the
    leads followed through a week and not ended, the share that was followed no further.
    """
    weeks = np.array([min(outcome.weeks, horizon) for outcome in outcomes], dtype=np.int64)
    is_open = np.array([outcome.outcome is OutcomeKind.open for outcome in outcomes], dtype=bool)
    won = np.array([outcome.outcome is OutcomeKind.won for outcome in outcomes], dtype=bool)
    followed = 1.0
    chance_by_week = np.ones(horizon + 1)
    for week in range(horizon):
        leaving = int((is_open & (weeks == week)).sum())
        at_risk = int((weeks > week).sum()) + leaving
        followed *= 1 - leaving / max(at_risk, 1)
        chance_by_week[week + 1] = followed
    chances = chance_by_week[weeks]
    weights = np.where(is_open | (chances <= 0), 0.0, 1 / np.where(chances > 0, chances, 1.0))
    return won, weights


class OutcomeCourse(msgspec.Struct, frozen=True, kw_only=True):
    """Share of leads that are won, and by week from 0 the shares of all wins and of all losses that have come by then.

    Leads that are followed for the whole horizon without a win are losses of its last week.
    """

    won: float
    wins_by: Floats
    losses_by: Floats


def outcome_course(outcomes: Sequence[FollowedOutcome], horizon: int = HORIZON_WEEKS) -> OutcomeCourse:
    """Return the share won and the course of outcomes, among which must be a win and a loss."""
    won, weights = outcome_weights(outcomes, horizon)
    weeks = np.array([min(outcome.weeks, horizon) for outcome in outcomes], dtype=np.int64)
    wins = np.bincount(weeks, weights * won, horizon + 1)
    losses = np.bincount(weeks, weights * ~won, horizon + 1)
    return OutcomeCourse(
        won=float(wins.sum() / weights.sum()),
        wins_by=np.cumsum(wins) / wins.sum(),
        losses_by=np.cumsum(losses) / losses.sum(),
    )


def expected_wins(outcomes: Sequence[FollowedOutcome], chances: Floats, course: OutcomeCourse) -> Floats:
    """Return 1 for a won lead, 0 for one that was not, and for an open one its chance of being won later (Bayes).

    `chances` are the chances of the leads when they came. Wins and losses are supposed to take as long for every lead.
    """
    weeks = np.array([outcome.weeks for outcome in outcomes], dtype=np.int64)
    later = [outcome.outcome is OutcomeKind.open for outcome in outcomes]
    won_later = chances * (1 - course.wins_by[weeks])
    lost_later = (1 - chances) * (1 - course.losses_by[weeks])
    parts = won_later / np.maximum(won_later + lost_later, 1e-12)
    ended = np.array([outcome.outcome is OutcomeKind.won for outcome in outcomes], dtype=float)
    return np.where(later, parts, ended)


def area_under_curve(scores: Floats, won: Flags, weights: Floats | None = None) -> float:
    """Return the probability that a won lead scores higher than another one, ties counted half (Mann and Whitney)."""
    weights = np.ones(len(scores)) if weights is None else weights
    _, places = np.unique(scores, return_inverse=True)
    winners = np.bincount(places, weights * won)
    losers = np.bincount(places, weights * ~won)
    below = np.cumsum(losers) - losers / 2
    return float((winners * below).sum() / (winners.sum() * losers.sum()))


def calibration_error(chances: Floats, won: Flags, weights: Floats) -> float:
    """Return the mean difference between predicted and won over ten bins of equal weight."""
    parts = _tenths(np.argsort(-chances, kind="stable"), weights)
    gaps = [abs(float((weights[part] * (chances[part] - won[part])).sum())) for part in parts]
    return float(sum(gaps) / weights.sum())


SMALLEST_SLOPE: Final = 0.01
LARGEST_SLOPE: Final = 10.0
"""Bounds of the slope of a `CardCalibration`."""


def fit_calibration(log_odds: Floats, won: Flags, weights: Floats) -> CardCalibration:
    """Return the shift and the slope with which the log odds predict the outcomes best: a logistic curve, by Newton.

    The slope ends at `SMALLEST_SLOPE` and `LARGEST_SLOPE`.
    """
    design = np.column_stack((np.ones(len(log_odds)), log_odds))
    coefficients = np.array([0.0, 1.0])
    for _ in range(25):
        chances = 1 / (1 + np.exp(-np.clip(design @ coefficients, -30, 30)))
        gradient = design.T @ (weights * (won - chances))
        curvature = (design * (weights * chances * (1 - chances))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        coefficients = coefficients + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    shift, slope = float(coefficients[0]), float(coefficients[1])
    return CardCalibration(shift=shift, slope=max(SMALLEST_SLOPE, min(LARGEST_SLOPE, slope)))


def log_odds_of(chances: Floats) -> Floats:
    """Return the log odds of chances, those of 0 and 1 taken as a millionth away from them."""
    inside = np.clip(chances, 1e-6, 1 - 1e-6)
    odds: Floats = np.log(inside / (1 - inside))
    return odds
