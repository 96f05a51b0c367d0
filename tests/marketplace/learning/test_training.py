"""Training of points cards: the truth of simulated leads is learned, and nothing else."""

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from marketplace.learning.evaluation import FollowedOutcome, OutcomeKind, area_under_curve
from marketplace.learning.training import (
    TrainedCard,
    TrainingPlan,
    TrainingRefusal,
    TrainingRefusalReason,
    TrainingRow,
    is_protected,
    train,
)
from routing.scorecard import CategoryFeature, FeatureValue, NumberFeature, Scorecard, chance, compile_scorecard
from tests.marketplace.learning.simulation import SOURCE_POINTS, ended, simulated_rows, young_rows

PLAN = TrainingPlan(vertical="roofing")


def trained(rows: list[TrainingRow], plan: TrainingPlan = PLAN) -> TrainedCard:
    result = train(rows, plan)
    assert isinstance(result, TrainedCard)
    return result


def feature(card: Scorecard, name: str) -> NumberFeature | CategoryFeature:
    return next(feature for feature in card.features if feature.name == name)


def category(card: Scorecard, name: str) -> CategoryFeature:
    learned = feature(card, name)
    assert isinstance(learned, CategoryFeature)
    return learned


def number(card: Scorecard, name: str) -> NumberFeature:
    learned = feature(card, name)
    assert isinstance(learned, NumberFeature)
    return learned


def rows_by_share(shares: dict[FeatureValue, float], count: int = 200, name: str = "hour") -> list[TrainingRow]:
    """`count` leads with each value of a feature, of which a share was won, exactly."""
    return [
        TrainingRow(values={name: value, "source": f"s{place % 2}"}, outcome=ended(place < share * count))
        for value, share in shares.items()
        for place in range(count)
    ]


@pytest.fixture(scope="module")
def truth() -> tuple[TrainedCard, list[TrainingRow], Any]:
    rows, chances = simulated_rows(4_000)
    return trained(rows), rows, chances


def test_the_points_of_the_truth_are_learned(truth: tuple[TrainedCard, list[TrainingRow], Any]) -> None:
    card = truth[0].card
    source = category(card, "source")
    learned = {value: score_bin.points - source.bins["form"].points for value, score_bin in source.bins.items()}
    assert learned == pytest.approx(SOURCE_POINTS, abs=0.25)
    compiled = compile_scorecard(card)
    by_size = [chance(compiled, {"company_size": size, "source": "form"}).log_odds for size in range(1, 101)]
    assert np.mean(by_size[50:]) - np.mean(by_size[:50]) == pytest.approx(1, abs=0.25)
    assert 45 <= np.argmax(np.diff(by_size)) <= 55
    assert [feature.name for feature in card.features if feature.name == "provider"] == []  # it makes no difference


def test_unseen_leads_are_ranked_and_calibrated_as_well_as_they_can_be(
    truth: tuple[TrainedCard, list[TrainingRow], Any],
) -> None:
    result, rows, chances = truth
    won = np.array([row.outcome.outcome is OutcomeKind.won for row in rows])
    possible = area_under_curve(chances, won)
    assert possible - 0.015 < result.evaluation.auc < possible + 0.005
    assert result.evaluation.calibration_error < 0.03
    assert result.evaluation.calibration.slope == pytest.approx(1, abs=0.15)
    fresh, fresh_chances = simulated_rows(1_000, seed=8)
    compiled = compile_scorecard(result.card)
    predicted = np.array([chance(compiled, row.values).probability for row in fresh])
    assert np.abs(predicted - fresh_chances).mean() < 0.05


def test_the_chances_that_were_judged_come_from_cards_that_had_not_seen_the_lead() -> None:
    """Values that all differ teach nothing about the next lead."""
    generator = np.random.default_rng(3)
    rows = [
        TrainingRow(
            values={name: f"v{generator.integers(20)}" for name in ("source", "form", "campaign", "area")},
            outcome=ended(generator.random() < 0.4),
        )
        for _ in range(600)
    ]
    assert trained(rows).evaluation.auc == pytest.approx(0.5, abs=0.05)


def test_the_same_rows_and_seed_give_the_same_card() -> None:
    rows, _ = simulated_rows(500)
    first, second = trained(rows), trained(rows)
    assert msgspec.json.encode(first) == msgspec.json.encode(second)
    assert trained(rows, TrainingPlan(vertical="roofing", seed=2)).out_of_fold != first.out_of_fold


def test_open_leads_bias_no_provider() -> None:
    """Leads of the new provider are at most 8 weeks old; both providers win 40 %."""
    result = trained(young_rows(6_000))
    compiled = compile_scorecard(result.card)
    for provider in ("old", "new"):
        assert chance(compiled, {"provider": provider}).probability == pytest.approx(0.4, abs=0.05)
    assert result.evaluation.open_leads > 1_500


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (rows_by_share({1: 0.24, 2: 0.0}), TrainingRefusalReason.too_few_wins),
        (rows_by_share({1: 1.0, 2: 0.76}), TrainingRefusalReason.too_few_losses),
        ([], TrainingRefusalReason.too_few_wins),
        (
            [
                msgspec.structs.replace(row, outcome=FollowedOutcome(outcome=row.outcome.outcome, weeks=4))
                for row in rows_by_share({1: 0.5})
            ],
            TrainingRefusalReason.followed_too_short,
        ),
        (
            [TrainingRow(values={"hour": 3}, outcome=ended(place % 2 == 0)) for place in range(200)],
            TrainingRefusalReason.nothing_differs,
        ),
    ],
)
def test_a_card_is_refused_by_name(rows: list[TrainingRow], reason: TrainingRefusalReason) -> None:
    result = train(rows, PLAN)
    assert isinstance(result, TrainingRefusal)
    assert result.reason is reason
    assert result.detail.endswith(".")


def test_a_number_rises_throughout_where_chance_explains_a_dent() -> None:
    shares: dict[FeatureValue, float] = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.24, 5: 0.45, 6: 0.6}
    points = [score_bin.points for score_bin in number(trained(rows_by_share(shares)).card, "hour").bins]
    assert points == sorted(points)
    assert len(points) == 5  # 3 and 4 have the same points


def test_a_number_may_rise_and_fall_where_the_outcomes_say_so() -> None:
    shares: dict[FeatureValue, float] = {1: 0.1, 2: 0.4, 3: 0.6, 4: 0.4, 5: 0.2, 6: 0.1}
    points = [score_bin.points for score_bin in number(trained(rows_by_share(shares)).card, "hour").bins]
    assert max(points) == points[2]
    assert any(low > high for low, high in pairwise(points))


def test_a_rare_value_is_pulled_to_the_average_and_a_rarer_one_is_another() -> None:
    rows = rows_by_share({"a": 0.3, "b": 0.5}, name="campaign")
    rows += [TrainingRow(values={"campaign": "rare"}, outcome=ended(place < 20)) for place in range(25)]
    rows += [TrainingRow(values={"campaign": "rarer"}, outcome=ended(True)) for _ in range(15)]
    campaign = category(trained(rows).card, "campaign")
    assert set(campaign.bins) == {"a", "b", "rare"}
    assert 0 < campaign.bins["rare"].points < np.log(20 / 5) - np.log(0.43 / 0.57)
    assert campaign.other.points > 0


def test_a_lead_without_a_business_has_the_chance_with_the_average_one() -> None:
    """Two businesses that win 20 and 60 %, and a third with few leads, which is pulled to the average."""
    rows = rows_by_share({"slow": 0.2, "fast": 0.6}, name="business", count=400)
    rows += [TrainingRow(values={"business": "new", "source": "s0"}, outcome=ended(place < 3)) for place in range(20)]
    compiled = compile_scorecard(trained(rows).card)
    chances = {name: chance(compiled, {"business": name}).probability for name in ("slow", "fast", "new")}
    average = chance(compiled, {}).probability
    assert chances["slow"] == pytest.approx(0.2, abs=0.03)
    assert chances["fast"] == pytest.approx(0.6, abs=0.03)
    assert 3 / 20 < chances["new"] < average < chances["fast"]


def test_protected_attributes_are_never_learned_from() -> None:
    rows = [
        TrainingRow(values={"need.gender": "f" if won else "m", "source": f"s{place // 2 % 2}"}, outcome=ended(won))
        for place, won in enumerate([True, False] * 200)
    ]
    assert trained(rows).card.features == ()


@pytest.mark.parametrize(
    ("name", "protected"),
    [
        ("need.age", True),
        ("need.date_of_birth", True),
        ("need.marital_status", True),
        ("need.age_of_roof", False),
        ("need.percentage", False),
        ("source", False),
    ],
)
def test_need_fields_are_protected_by_their_names(name: str, protected: bool) -> None:
    assert is_protected(name) is protected


def test_ranges_and_amounts_are_told_in_words() -> None:
    rows = [
        TrainingRow(values={"budget": 10_000 * (1 + place % 4), "need.rooms": place % 3}, outcome=ended(place % 4 > 1))
        for place in range(400)
    ]
    card = trained(rows, TrainingPlan(vertical="roofing", currency="USD", titles={"need.rooms": "Rooms"})).card
    budget = number(card, "budget")
    assert [score_bin.label for score_bin in budget.bins] == [
        "up to USD 100",
        "USD 100.01 to USD 200",
        "USD 200.01 to USD 300",
        "over USD 300",
    ]
