"""Learned chance of winning: every score is explained to the point, and every lead has one."""

from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.inquiry import Authority, Budget, EvidenceKind, Facts, Mode, Place, Signals, Timing
from routing.scorecard import (
    POINT,
    CardCalibration,
    CardOrigin,
    CategoryFeature,
    FeatureValue,
    NumberFeature,
    ScoreBin,
    Scorecard,
    chance,
    chance_in_words,
    compile_scorecard,
    feature_values,
    probability_of,
)
from tests.builders.inquiries import roofing_facts

POINTS = st.floats(-8, 8)
BINS = st.builds(ScoreBin, label=st.just("an answer"), points=POINTS)
VALUES = st.one_of(st.none(), st.integers(-(10**12), 10**12), st.text(max_size=4))


@st.composite
def number_features(draw: st.DrawFn, name: str) -> NumberFeature:
    edges = tuple(float(edge) for edge in sorted(draw(st.sets(st.integers(-100, 100), max_size=5))))
    bins = tuple(draw(BINS) for _ in range(len(edges) + 1))
    return NumberFeature(name=name, title=name, edges=edges, bins=bins, unknown=draw(BINS))


@st.composite
def category_features(draw: st.DrawFn, name: str) -> CategoryFeature:
    bins = draw(st.dictionaries(st.text(max_size=4), BINS, max_size=5))
    return CategoryFeature(name=name, title=name, bins=bins, other=draw(BINS), unknown=draw(BINS))


@st.composite
def scorecards(draw: st.DrawFn) -> Scorecard:
    count = draw(st.integers(0, 6))
    features = [draw(st.one_of(number_features(f"f{place}"), category_features(f"f{place}"))) for place in range(count)]
    return a_card(
        *features,
        intercept=draw(POINTS),
        calibration=CardCalibration(shift=draw(POINTS), slope=draw(st.floats(0.1, 3))),
    )


def a_card(*features: NumberFeature | CategoryFeature, **changes: Any) -> Scorecard:
    content: dict[str, Any] = {"vertical": "roofing", "intercept": -1.0, "features": features}
    return Scorecard(**content | {"trained_on": CardOrigin(leads=1_000, wins=200)} | changes)


def a_bin(label: str, points: float) -> ScoreBin:
    return ScoreBin(label=label, points=points)


SIZE = NumberFeature(
    name="company_size",
    title="Company size",
    edges=(10.0, 50.0),
    bins=(a_bin("up to 10", -0.5), a_bin("11 to 50", 0.0), a_bin("over 50", 0.75)),
    unknown=a_bin("unknown", -0.25),
)
SOURCE = CategoryFeature(
    name="source",
    title="Source",
    bins={"chat": a_bin("chat", 0.5)},
    other=a_bin("another", 0.125),
    unknown=a_bin("unknown", -1.0),
)


@given(scorecards(), st.dictionaries(st.sampled_from([f"f{place}" for place in range(7)]), VALUES))
def test_the_parts_of_any_lead_add_up_exactly_in_any_order(card: Scorecard, answers: dict[str, Any]) -> None:
    values = {name: value for name, value in answers.items() if value is not None}
    score = chance(compile_scorecard(card), values)
    points = [part.points for part in score.parts]
    assert score.base + sum(points) == score.log_odds == sum(sorted(points)) + score.base
    assert [part.feature for part in score.parts] == [feature.name for feature in card.features]
    assert 0 < score.probability < 1


@given(st.floats(-1e6, 1e6))
def test_a_probability_is_never_nought_or_one(log_odds: float) -> None:
    assert 0 < probability_of(log_odds) < 1
    assert probability_of(log_odds) + probability_of(-log_odds) == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "points"),
    [
        ({"company_size": 10, "source": "chat"}, [-0.5, 0.5]),
        ({"company_size": 11}, [0.0, -1.0]),
        ({"company_size": 50, "source": "post"}, [0.0, 0.125]),
        ({"company_size": 51, "source": ""}, [0.75, 0.125]),
        ({"company_size": "many", "source": 7}, [-0.25, 0.125]),
        ({}, [-0.25, -1.0]),
    ],
)
def test_each_answer_has_the_points_of_its_bin(values: dict[str, FeatureValue], points: list[float]) -> None:
    score = chance(compile_scorecard(a_card(SIZE, SOURCE)), values)
    assert [part.points for part in score.parts] == points


@given(st.integers(-100, 100), st.integers(-100, 100))
def test_more_of_what_rises_never_lowers_the_chance(less: int, more: int) -> None:
    low, high = (chance(compile_scorecard(a_card(SIZE)), {"company_size": size}) for size in sorted((less, more)))
    assert low.probability <= high.probability


def test_a_calibration_shifts_and_stretches_the_log_odds() -> None:
    card = a_card(SIZE, SOURCE, calibration=CardCalibration(shift=0.25, slope=0.5))
    score = chance(compile_scorecard(card), {"company_size": 60, "source": "chat"})
    assert score.log_odds == 0.25 + 0.5 * (-1 + 0.75 + 0.5)


@given(scorecards())
def test_a_card_survives_json(card: Scorecard) -> None:
    assert msgspec.json.decode(msgspec.json.encode(card), type=Scorecard) == card


NUMBER = '{"type":"number","name":"a","title":"A","unknown":B,'
CATEGORY = '{"type":"category","name":"a","title":"A","bins":{},"unknown":B,"other":B}'


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (NUMBER + '"edges":[1],"bins":[]}', "1 edges need 2 bins"),
        (NUMBER + '"edges":[2,1],"bins":[B,B,B]}', "must be finite and rise"),
        (f"{CATEGORY},{CATEGORY}", "the same name"),
        (CATEGORY.replace("{}", '{"b":{"label":"","points":1e9}}'), "<= 1000"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(features: str, message: str) -> None:
    features = features.replace("B", '{"label":"","points":0}')
    card = f'{{"vertical":"v","intercept":0,"trained_on":{{"leads":1,"wins":1}},"features":[{features}]}}'
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(card, type=Scorecard)


def test_points_are_whole_numbers_of_the_smallest_point() -> None:
    compiled = compile_scorecard(a_card(SIZE, SOURCE, intercept=0.1, calibration=CardCalibration(slope=0.77)))
    points = [compiled.base, *(part.points for part in chance(compiled, {}).parts)]
    assert all((each / POINT).is_integer() for each in points)


def test_a_chance_is_told_in_words_with_the_largest_part_first() -> None:
    score = chance(compile_scorecard(a_card(SIZE, SOURCE)), {"company_size": 60, "source": "chat"})
    assert chance_in_words(score) == (
        "Chance of winning 56%; the average lead has 27%. "
        "Raised by Company size: over 50 (+0.75); Source: chat (+0.50)."
    )
    score = chance(compile_scorecard(a_card(SIZE, SOURCE)), {"company_size": 20})
    assert chance_in_words(score) == (
        "Chance of winning 12%; the average lead has 27%. Lowered by Source: unknown (-1.00)."
    )


# Values of a lead.

ASKED = datetime(2026, 3, 6, 20, 30, tzinfo=UTC)


def values_of(**changes: Any) -> dict[str, FeatureValue]:
    return feature_values(roofing_facts(submitted_at=ASKED, **changes), provider="acme")


def test_a_bare_inquiry_has_only_the_values_that_every_lead_has() -> None:
    facts = Facts(
        vertical="roofing",
        mode=Mode.live,
        submitted_at=ASKED,
        received_at=ASKED,
        place=Place(country="US"),
        signals=Signals(phone_type="mobile"),
    )
    values = feature_values(facts, provider="acme")
    assert set(values) == {"provider", "mode", "country", "phone_type", "email_disposable", "touches"}


def test_answers_come_with_the_way_they_are_known() -> None:
    values = values_of(
        budget=Budget(minor=100, currency="USD", maximum_minor=500),
        authority=Authority.influencer,
        timing=Timing(not_before=date(2026, 3, 16)),
        need_fields={"urgent": True, "rooms": 3, "roof": "flat"},
        evidence={"budget": EvidenceKind.verified},
    )
    assert (values["budget"], values["budget_evidence"]) == (500, "verified")
    assert (values["authority"], values["authority_evidence"]) == ("influencer", "stated")
    assert (values["days_until_wanted"], values["timing_evidence"]) == (10, "stated")
    assert (values["need.urgent"], values["need.rooms"], values["need.roof"]) == ("yes", 3, "flat")


def test_the_area_is_coarse_and_the_hour_is_that_of_the_person() -> None:
    values = values_of(place=Place(country="US", postal_code="60614", time_zone="Asia/Kolkata"))
    assert values["area"] == "US-60"
    assert (values["weekday"], values["hour"]) == ("Saturday", 2)
