"""Judgement of chances: the measures, and open leads that bias none of them."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from marketplace.learning.evaluation import (
    FollowedOutcome,
    JudgedLead,
    OutcomeKind,
    area_under_curve,
    calibration_error,
    evaluate,
    fit_calibration,
    followed_outcome,
    log_odds_of,
    outcome_weights,
)
from tests.marketplace.learning.simulation import ended, simulated_rows, young_rows


def days(count: float | None) -> timedelta | None:
    return None if count is None else timedelta(days=count)


@pytest.mark.parametrize(
    ("age", "won", "lost", "outcome", "weeks"),
    [
        (100, 3, None, OutcomeKind.won, 1),
        (100, 91, None, OutcomeKind.won, 13),
        (100, 92, None, OutcomeKind.not_won, 13),
        (100, None, None, OutcomeKind.not_won, 13),
        (100, None, 15, OutcomeKind.not_won, 3),
        (17, None, None, OutcomeKind.open, 2),
        (17, 15, None, OutcomeKind.open, 2),  # in a week that is not over
        (21, 15, None, OutcomeKind.won, 3),
        (5, None, None, OutcomeKind.open, 0),
        (30, 0, None, OutcomeKind.won, 1),
    ],
)
def test_an_outcome_counts_when_its_week_is_over(
    age: int, won: int | None, lost: int | None, outcome: OutcomeKind, weeks: int
) -> None:
    followed = followed_outcome(timedelta(days=age), days(won), days(lost))
    assert followed == FollowedOutcome(outcome=outcome, weeks=weeks)


SCORES = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=2, max_size=60)


@given(SCORES)
def test_the_area_under_the_curve_is_that_of_the_library(pairs: list[tuple[int, bool]]) -> None:
    scores, won = np.array([pair[0] / 10 for pair in pairs]), np.array([pair[1] for pair in pairs])
    if won.any() and not won.all():
        assert area_under_curve(scores, won) == pytest.approx(roc_auc_score(won, scores))


def test_true_chances_are_calibrated_and_twice_their_log_odds_are_not() -> None:
    rows, chances = simulated_rows(6_000)
    won = np.array([row.outcome.outcome is OutcomeKind.won for row in rows])
    even = np.ones(len(rows))
    assert calibration_error(chances, won, even) < 0.02
    calibration = fit_calibration(log_odds_of(chances), won, even)
    assert (calibration.shift, calibration.slope) == pytest.approx((0, 1), abs=0.1)
    overconfident = fit_calibration(2 * log_odds_of(chances) + 1, won, even)
    assert (overconfident.shift, overconfident.slope) == pytest.approx((-0.5, 0.5), abs=0.1)
    assert calibration_error(1 / (1 + np.exp(-2 * log_odds_of(chances))), won, even) > 0.05


def test_the_judgement_adds_up() -> None:
    rows, chances = simulated_rows(2_000)
    leads = [
        JudgedLead(values=row.values, probability=float(probability), outcome=row.outcome)
        for row, probability in zip(rows, chances, strict=True)
    ]
    judgement = evaluate(leads, best=500)
    won = [lead.outcome.outcome is OutcomeKind.won for lead in leads]
    assert (judgement.leads, judgement.wins, judgement.open_leads) == (2_000, sum(won), 0)
    assert judgement.brier == pytest.approx(brier_score_loss(won, chances))
    assert [decile.leads for decile in judgement.deciles] == [200] * 10
    assert sum(decile.wins for decile in judgement.deciles) == sum(won)
    predicted = [decile.predicted for decile in judgement.deciles]
    assert predicted == sorted(predicted, reverse=True)
    best = sorted(zip(chances, won, strict=True), key=lambda pair: -pair[0])[:500]
    assert judgement.won_of_best == pytest.approx(sum(pair[1] for pair in best) / 500)
    assert [group.value for group in judgement.groups if group.feature == "provider"] != []
    assert sum(group.leads for group in judgement.groups if group.feature == "provider") == 2_000
    assert not [group for group in judgement.groups if group.feature in ("area", "language")]


def test_open_leads_bias_no_share() -> None:
    """Of those who are followed, more wins are known than losses; the weights mend that."""
    outcomes = [row.outcome for row in young_rows(9_000) if row.values["provider"] == "old"]
    won, weights = outcome_weights(outcomes)
    closed = np.array([outcome.outcome is not OutcomeKind.open for outcome in outcomes])
    assert np.average(won, weights=weights) == pytest.approx(0.4, abs=0.02)
    assert abs(np.average(won[closed]) - 0.4) > 0.01
    assert abs(np.average(won) - 0.4) > 0.02


def test_a_group_that_nobody_has_followed_to_the_end_is_not_judged() -> None:
    leads = [JudgedLead(values=row.values, probability=0.4, outcome=row.outcome) for row in young_rows(3_000)]
    assert [group.value for group in evaluate(leads).groups] == ["old"]


def test_without_wins_nothing_is_judged() -> None:
    with pytest.raises(ValueError, match="won and leads that were not"):
        evaluate([JudgedLead(values={}, probability=0.5, outcome=ended(False))] * 20)
