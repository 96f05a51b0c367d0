"""Drift of a card: shifts of inputs and outcomes are seen, and chance alone gives no alarm."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.learning.drift import (
    LEADS_OF_A_BIN,
    SHIFT_LIMIT,
    TENTHS,
    DriftAlarm,
    largest_shift,
    measure_drift,
    profile_inputs,
    stability_index,
)
from marketplace.learning.evaluation import FollowedOutcome, JudgedLead, OutcomeKind
from routing.scorecard import CategoryFeature, ScoreBin
from tests.builders.scorecards import a_compiled_card

LEVELS = tuple("abcdefghijkl")
CARD = a_compiled_card(
    features=(
        CategoryFeature(
            name="source",
            title="Source",
            bins={level: ScoreBin(label=level, points=0.2 * place) for place, level in enumerate(LEVELS)},
            other=ScoreBin(label="another answer", points=0),
            unknown=ScoreBin(label="not known", points=0),
        ),
    )
)
SHARES = st.lists(st.integers(1, 100), min_size=2, max_size=12)


def leads(count: int, seed: int, weights: Any = None) -> list[dict[str, str | int]]:
    return [{"source": level} for level in random.Random(seed).choices(LEVELS, weights, k=count)]


def judged(chances: list[float], seed: int, factor: float = 1.0) -> list[JudgedLead]:
    """Leads that were won with `factor` times their chance."""
    chance = random.Random(seed)
    return [
        JudgedLead(
            values={},
            probability=probability,
            outcome=FollowedOutcome(
                outcome=OutcomeKind.won if chance.random() < factor * probability else OutcomeKind.not_won, weeks=13
            ),
        )
        for probability in chances
    ]


@given(then=SHARES, now=SHARES)
def test_the_index_is_nought_for_the_same_shares_and_above_it_for_others(then: list[int], now: list[int]) -> None:
    before = {place: count / sum(then) for place, count in enumerate(then)}
    after = {place: count / sum(now) for place, count in enumerate(now)}
    assert stability_index(before, before) == 0
    assert stability_index(before, after) == pytest.approx(stability_index(after, before))
    assert stability_index(before, after) >= 0


def test_the_index_is_that_of_the_textbook() -> None:
    assert stability_index({1: 0.5, 2: 0.5}, {1: 0.7, 2: 0.3}) == pytest.approx(0.2 * 0.3364722 + 0.2 * 0.5108256)


def test_the_same_kind_of_leads_gives_no_alarm() -> None:
    then = profile_inputs(CARD, leads(4_000, 1))
    alarms = []
    for seed in range(2, 42):
        now = profile_inputs(CARD, leads(LEADS_OF_A_BIN * TENTHS * 2, seed), then.edges)
        alarms.append(measure_drift(then, now, ()).alarm)
    assert alarms == [None] * 40


def test_other_leads_are_an_alarm_that_names_the_answer() -> None:
    then = profile_inputs(CARD, leads(4_000, 1))
    now = profile_inputs(CARD, leads(1_000, 2, [1, 1, 1, 1, 1, 1, 1, 1, 1, 10, 20, 40]), then.edges)
    figures = measure_drift(then, now, ())
    assert figures.shift is not None
    assert figures.shift > SHIFT_LIMIT
    assert figures.alarm is DriftAlarm.inputs_shifted
    shifted = largest_shift(figures)
    assert shifted is not None
    assert shifted.feature == "source"


def test_too_few_recent_leads_say_nothing() -> None:
    then = profile_inputs(CARD, leads(4_000, 1))
    now = profile_inputs(CARD, leads(LEADS_OF_A_BIN * TENTHS - 1, 2, [0] * 11 + [1]), then.edges)
    figures = measure_drift(then, now, ())
    assert (figures.shift, figures.alarm) == (None, None)


@pytest.mark.parametrize(
    ("factor", "alarm"), [(1.0, None), (0.6, DriftAlarm.calibration_off), (1.6, DriftAlarm.calibration_off)]
)
def test_wins_other_than_expected_are_an_alarm(factor: float, alarm: DriftAlarm | None) -> None:
    then = profile_inputs(CARD, leads(10, 1))
    chances = [0.1 + 0.4 * place / 2_000 for place in range(2_000)]
    figures = measure_drift(then, then, judged(chances, 3, factor))
    assert figures.alarm is alarm
    assert figures.low is not None
    assert figures.high is not None
    assert figures.low < factor < figures.high


def test_a_small_difference_is_no_alarm_however_sure_it_is() -> None:
    then = profile_inputs(CARD, leads(10, 1))
    figures = measure_drift(then, then, judged([0.3] * 60_000, 5, 1.07))
    assert figures.low is not None
    assert figures.low > 1
    assert figures.alarm is None


def test_a_year_of_weekly_looks_at_a_right_card_rarely_alarms() -> None:
    then = profile_inputs(CARD, leads(10, 1))
    alarmed = 0
    for year in range(60):
        followed = judged([0.2] * 2_600, 100 + year)
        alarmed += any(measure_drift(then, then, followed[: 50 * week]).alarm for week in range(2, 53, 5))
    assert alarmed <= 3


def test_few_expected_wins_are_not_judged() -> None:
    then = profile_inputs(CARD, leads(10, 1))
    figures = measure_drift(then, then, judged([0.1] * 90, 7, 0))
    assert (figures.ratio, figures.alarm) == (None, None)
