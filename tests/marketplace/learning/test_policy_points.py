"""Points of a policy that outcomes suggest."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace.learning.policy_points import JudgedVerdict, Results, suggest_points
from routing.qualification import Dimension, DimensionResult
from routing.scorecard import probability_of
from tests.marketplace.learning.simulation import ended

MEETS, UNKNOWN, FAILS = DimensionResult.meets, DimensionResult.unknown, DimensionResult.fails
TRUE_POINTS = {MEETS: 1.0, UNKNOWN: 0.5, FAILS: 0.0}


def verdicts(weights: tuple[float, float, float, float], count: int, seed: int = 5) -> list[JudgedVerdict]:
    """Verdicts of all combinations, won by log odds of the weighted results; every score is 50."""
    generator = np.random.default_rng(seed)
    judged = []
    for results in product(DimensionResult, repeat=4):
        log_odds = sum(weight * TRUE_POINTS[each] for weight, each in zip(weights, results, strict=True))
        true_chance = probability_of(log_odds - sum(weights) / 2)
        for _ in range(count):
            outcome = ended(generator.random() < true_chance)
            judged.append(JudgedVerdict(results=as_results(*results), score=50, outcome=outcome))
    return judged


def as_results(*results: DimensionResult) -> Results:
    budget, authority, need, timing = results
    return budget, authority, need, timing


def test_points_are_suggested_in_proportion_to_what_they_bring() -> None:
    suggestion = suggest_points(verdicts((4.0, 2.0, 2.0, 0.0), 60))
    points = suggestion.points
    assert [points[dimension].meets for dimension in Dimension] == pytest.approx([50, 25, 25, 0], abs=4)
    assert [points[dimension].unknown for dimension in Dimension] == pytest.approx([25, 12.5, 12.5, 0], abs=4)
    assert suggestion.auc_of_score == 0.5
    assert suggestion.auc_limit - 0.02 < suggestion.auc < suggestion.auc_limit


@settings(max_examples=20)
@given(st.tuples(*[st.floats(-3, 3)] * 4))
def test_suggested_points_always_make_a_policy(weights: tuple[float, float, float, float]) -> None:
    """`Points` refuses any that do not rise from fails to meets."""
    points = suggest_points(verdicts(weights, 3)).points
    assert sum(each.meets for each in points.values()) in (0, 100)
    assert all(each.fails == 0 for each in points.values())


def test_an_answer_that_is_worse_than_none_earns_no_more_than_none() -> None:
    points = suggest_points(verdicts((2.0, -2.0, 0.0, 0.0), 30)).points[Dimension.authority]
    assert (points.meets, points.unknown, points.fails) == (0, 0, 0)


def test_a_dimension_that_never_differs_gets_no_points() -> None:
    judged = [lead for lead in verdicts((2.0, 2.0, 2.0, 2.0), 30) if lead.results[0] is UNKNOWN]
    points = suggest_points(judged).points
    assert points[Dimension.budget].meets == 0
    assert sum(each.meets for each in points.values()) == 100


def test_without_wins_nothing_is_suggested() -> None:
    lead = JudgedVerdict(results=as_results(MEETS, MEETS, MEETS, FAILS), score=80, outcome=ended(False))
    with pytest.raises(ValueError, match="won and leads that were not"):
        suggest_points([lead] * 9)
