"""Points of a BANT policy that outcomes suggest: whole numbers for each result of each dimension, on the scale to 100.

A logistic regression over the four results in which fails is never better than unknown, nor unknown than meets. Pure
and offline; the extra `learning` installs scipy.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from scipy.optimize import minimize

from marketplace.learning.evaluation import (
    HORIZON_WEEKS,
    Flags,
    Floats,
    FollowedOutcome,
    area_under_curve,
    outcome_weights,
)
from routing.qualification import Dimension, DimensionResult, Points

SCALE: Final = 100
"""Score of a lead that meets all four dimensions."""

RIDGE: Final = 1.0
"""Variance that the points of a result are supposed to have, in squared log odds."""

Results = tuple[DimensionResult, DimensionResult, DimensionResult, DimensionResult]
"""Results of the four dimensions, in the order of Dimension."""


class JudgedVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Results that a policy gave a lead, its score, and what became of the lead."""

    results: Results
    score: int
    outcome: FollowedOutcome


class SuggestedPoints(msgspec.Struct, frozen=True, kw_only=True):
    """Points by dimension, with the areas under the curve (0.5: no better than chance, 1: perfect).

    `auc_of_score` is that of the policy's own score. `auc` is that of suggested points for leads that had no part in
    them. `auc_limit` is the most that any score of the four results could reach for these very leads: each combination
    scores what it won.
    """

    points: Mapping[Dimension, Points]
    auc: float
    auc_of_score: float
    auc_limit: float


def suggest_points(
    verdicts: Sequence[JudgedVerdict], *, folds: int = 5, seed: int = 1, horizon: int = HORIZON_WEEKS
) -> SuggestedPoints:
    """Return the suggested points. A dimension with the same result for all leads gets none.

    Open leads are weighted as in `outcome_weights`. Raises ValueError if no lead was won, or none was not.
    """
    won, weights = outcome_weights([verdict.outcome for verdict in verdicts], horizon)
    ended = weights > 0
    won, weights = won[ended], weights[ended]
    if not won.any() or won.all():
        raise ValueError("Points need leads that were won and leads that were not.")
    judged = [verdict for verdict, counts in zip(verdicts, ended, strict=True) if counts]
    fold = np.random.default_rng(seed).permutation(len(judged)) % folds
    unseen = np.zeros(len(judged))
    for number in range(folds):
        points = _fit_points(
            [judged[place] for place in np.flatnonzero(fold != number)], won[fold != number], weights[fold != number]
        )
        for place in np.flatnonzero(fold == number):
            unseen[place] = _score(points, judged[place].results)
    return SuggestedPoints(
        points=_fit_points(judged, won, weights),
        auc=area_under_curve(unseen, won, weights),
        auc_of_score=area_under_curve(np.array([float(verdict.score) for verdict in judged]), won, weights),
        auc_limit=area_under_curve(_shares_won(judged, won, weights), won, weights),
    )


def _fit_points(verdicts: Sequence[JudgedVerdict], won: Flags, weights: Floats) -> dict[Dimension, Points]:
    """Return whole points that fit the outcomes best."""
    order = (DimensionResult.fails, DimensionResult.unknown, DimensionResult.meets)
    levels = np.array([[order.index(result) for result in verdict.results] for verdict in verdicts])
    differs = np.ptp(levels, axis=0) > 0
    steps = np.column_stack((levels >= 1, levels >= 2)).astype(float)
    signs = np.where(won, -1.0, 1.0)

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        log_odds = coefficients[0] + steps @ coefficients[1:]
        errors = weights * signs / (1 + np.exp(-signs * log_odds))
        gradient = np.concatenate(([errors.sum()], errors @ steps + coefficients[1:] / RIDGE))
        penalty = coefficients[1:] @ coefficients[1:] / (2 * RIDGE)
        return float((weights * np.logaddexp(0, signs * log_odds)).sum() + penalty), gradient

    bounds = [(None, None), *((0, None if differs[place % 4] else 0) for place in range(8))]
    fitted = minimize(loss, np.zeros(9), jac=True, bounds=bounds, method="L-BFGS-B").x[1:]
    unknown, meets = fitted[:4], fitted[:4] + fitted[4:]
    return _whole_points(unknown, meets)


def _whole_points(unknown: Floats, meets: Floats) -> dict[Dimension, Points]:
    """Return whole points. Those for meeting all dimensions add up to `SCALE`, unless none differs."""
    unit = SCALE / meets.sum() if meets.sum() > 0 else 0.0
    whole = np.floor(meets * unit + 1e-9).astype(int)
    if unit:
        remainders = meets * unit - whole
        whole[np.argsort(-remainders, kind="stable")[: SCALE - whole.sum()]] += 1
    return {
        dimension: Points(meets=int(most), unknown=min(int(most), round(float(some) * unit)))
        for dimension, most, some in zip(Dimension, whole, unknown, strict=True)
    }


def _score(points: Mapping[Dimension, Points], results: Results) -> int:
    return sum(getattr(points[dimension], result.value) for dimension, result in zip(Dimension, results, strict=True))


def _shares_won(verdicts: Sequence[JudgedVerdict], won: Flags, weights: Floats) -> Floats:
    """Return for each lead the share won of the leads with the same four results."""
    combinations = {results: place for place, results in enumerate(sorted({lead.results for lead in verdicts}))}
    places = np.array([combinations[lead.results] for lead in verdicts])
    shares: Floats = (np.bincount(places, weights * won) / np.bincount(places, weights))[places]
    return shares
