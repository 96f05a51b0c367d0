"""Criteria of interest: which touches meet them, and what they do to a verdict."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from routing.inquiry import Direction, Touch, TouchAmount
from routing.interest import (
    InterestCriterion,
    UnmetConsequence,
    count_interest,
    interest_in_words,
    touches_that_meet,
)
from routing.journey import TouchEntry, revise
from routing.policy_lint import PolicyWarningCode, lint_policy
from routing.qualification import (
    DimensionResult,
    Nurture,
    Prospect,
    Rejection,
    RejectionReason,
    ResultConsequence,
    TouchTime,
    WaitsFor,
    qualify,
)
from tests.builders.inquiries import NOW, ROOFING_NEEDS, roofing_facts, roofing_policy
from tests.builders.marketplaces import roofing

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PRICING = InterestCriterion(
    name="pricing", kinds=("page_view",), detail_prefix="/pricing", count=2, within_days=7, points=20
)
CALL = InterestCriterion(
    name="answered", kinds=("call",), minimum_seconds=60, direction=Direction.outbound, points=10, short_fails=True
)
PURCHASE = InterestCriterion(name="bought", kinds=("purchase",), minimum_minor=5_000, points=10)


def visit(days: float, detail: str = "/pricing") -> Touch:
    return Touch(kind="page_view", at=NOW + days * DAY, detail=detail)


def call(seconds: int | None, direction: Direction | None = Direction.outbound) -> Touch:
    return Touch(kind="call", at=NOW, detail="", seconds=seconds, direction=direction)


def bought(minor: int, currency: str = "USD") -> Touch:
    return Touch(kind="purchase", at=NOW, detail="", amount=TouchAmount(minor=minor, currency=currency))


@pytest.mark.parametrize(
    ("criterion", "touches", "met", "fell_short"),
    [
        (PRICING, (), 0, False),
        (PRICING, (visit(0),), 0, False),
        (PRICING, (visit(0), visit(7)), 2, False),
        (PRICING, (visit(0), visit(7.1)), 0, False),
        (PRICING, (visit(0), visit(8), visit(9)), 2, False),
        (PRICING, (visit(1, "/Pricing/roofs"), visit(0)), 2, False),
        (PRICING, (visit(0, "/about"), visit(1)), 0, False),
        (CALL, (call(60),), 1, False),
        (CALL, (call(59),), 0, True),
        (CALL, (call(None),), 0, True),
        (CALL, (call(90, Direction.inbound),), 0, False),
        (CALL, (call(0), call(90)), 1, True),
        (PURCHASE, (bought(5_000),), 1, False),
        (PURCHASE, (bought(4_999),), 0, True),
        (PURCHASE, (bought(9_000, "EUR"),), 0, True),
    ],
)
def test_a_criterion_is_met_by_enough_touches_that_pass_every_condition(
    criterion: InterestCriterion, touches: tuple[Touch, ...], met: int, fell_short: bool
) -> None:
    interest = count_interest(criterion, touches, "USD")
    assert (len(interest.met_by), interest.fell_short) == (met, fell_short)


@pytest.mark.parametrize(
    ("touches", "result", "points"),
    [
        ((), DimensionResult.unknown, 0),
        ((call(0),), DimensionResult.fails, 0),
        ((call(0), call(75)), DimensionResult.meets, 10),
    ],
)
def test_a_criterion_has_three_results_and_the_verdict_names_the_touches_that_met_it(
    touches: tuple[Touch, ...], result: DimensionResult, points: int
) -> None:
    policy = roofing_policy(interest=(CALL,))
    verdict = qualify(roofing_facts(touches=touches), ROOFING_NEEDS, policy, NOW).verdict
    (finding,) = verdict.interest
    assert (finding.result, finding.points, finding.label) == (result, points, "answered")
    expected = (TouchTime(kind="call", at=NOW),) if points else ()
    assert finding.met_by == expected


def test_a_touch_that_meets_a_criterion_lifts_the_score_of_a_lead_over_the_minimum() -> None:
    policy = roofing_policy(interest=(PRICING,), minimum_score=60)
    facts = roofing_facts(budget=None, timing=None, authority=None)
    before = qualify(facts, ROOFING_NEEDS, policy, NOW)
    visits = [TouchEntry(revision=1, touch=visit(day)) for day in (1, 2)]
    after = qualify(revise(facts, visits), ROOFING_NEEDS, policy, NOW + 2 * DAY)
    assert isinstance(before, Rejection)
    assert before.reason is RejectionReason.score_below_minimum
    assert after.verdict.score > before.verdict.score


def test_a_required_criterion_rejects_a_lead_that_does_not_meet_it() -> None:
    required = InterestCriterion(name="replied", kinds=("email_reply",), required=True)
    policy = roofing_policy(interest=(required,))
    outcome = qualify(roofing_facts(), ROOFING_NEEDS, policy, NOW)
    assert isinstance(outcome, Rejection)
    assert outcome.reason is RejectionReason.interest_missing
    touches = touches_that_meet(required, "USD", NOW)
    assert isinstance(qualify(roofing_facts(touches=touches), ROOFING_NEEDS, policy, NOW), Prospect)


REPLY = InterestCriterion(
    name="replied", kinds=("email_reply",), points=20, required=True, otherwise=UnmetConsequence.nurture
)
ANSWERED = InterestCriterion(
    name="answered",
    label="Answered a call",
    kinds=("call",),
    minimum_seconds=60,
    required=True,
    short_fails=True,
    otherwise=UnmetConsequence.nurture,
)


def test_a_required_criterion_that_may_wait_nurtures_a_lead_until_the_touches_meet_it() -> None:
    policy = roofing_policy(interest=(REPLY, ANSWERED), nurture_days=30)
    facts = roofing_facts(touches=(call(10),))
    outcome = qualify(facts, ROOFING_NEEDS, policy, NOW)
    assert isinstance(outcome, Nurture)
    assert outcome.missing_interest == ("replied", "answered")
    assert outcome.why == "email reply; Answered a call (call, at least 60 seconds)"
    assert outcome.until == facts.received_at + timedelta(days=30)
    touches = touches_that_meet(REPLY, "USD", NOW) + touches_that_meet(ANSWERED, "USD", NOW)
    assert isinstance(qualify(roofing_facts(touches=touches), ROOFING_NEEDS, policy, NOW), Prospect)


def test_a_lead_that_waits_for_a_touch_is_judged_by_the_score_that_it_will_have_with_it() -> None:
    full = qualify(roofing_facts(), ROOFING_NEEDS, roofing_policy(interest=(REPLY,)), NOW).verdict.score
    reached = roofing_policy(interest=(REPLY,), minimum_score=full + 1)
    assert isinstance(qualify(roofing_facts(), ROOFING_NEEDS, reached, NOW), Nurture)
    pointless = msgspec.structs.replace(REPLY, points=0)
    out_of_reach = roofing_policy(interest=(pointless,), minimum_score=101)
    outcome = qualify(roofing_facts(), ROOFING_NEEDS, out_of_reach, NOW)
    assert isinstance(outcome, Rejection)
    assert outcome.reason is RejectionReason.score_below_minimum


def test_a_criterion_that_rejects_comes_before_one_that_may_wait() -> None:
    rejects = InterestCriterion(name="clicked", kinds=("link_click",), required=True)
    policy = roofing_policy(interest=(REPLY, rejects))
    outcome = qualify(roofing_facts(), ROOFING_NEEDS, policy, NOW)
    assert isinstance(outcome, Rejection)
    assert outcome.reason is RejectionReason.interest_missing


def test_a_criterion_is_stored_as_before_without_the_new_word() -> None:
    stored = msgspec.json.decode(
        b'{"name": "replied", "kinds": ["email_reply"], "required": true}', type=InterestCriterion
    )
    assert stored.otherwise is UnmetConsequence.reject
    assert b"otherwise" not in msgspec.json.encode(stored)


@pytest.mark.parametrize("criterion", [PRICING, CALL, PURCHASE])
def test_the_touches_of_an_example_meet_their_criterion(criterion: InterestCriterion) -> None:
    assert count_interest(criterion, touches_that_meet(criterion, "USD", NOW), "USD").met_by


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        (PRICING, "page view of /pricing, 2 times within 7 days"),
        (CALL, "call, outbound, at least 60 seconds"),
        (PURCHASE, "purchase, at least USD 50"),
    ],
)
def test_a_criterion_is_shown_in_words(criterion: InterestCriterion, words: str) -> None:
    assert interest_in_words(criterion, "USD") == words


def test_the_lint_names_a_criterion_that_decides_nothing() -> None:
    def codes(**changes: Any) -> set[PolicyWarningCode]:
        return {warning.code for warning in lint_policy(roofing(**changes))}

    idle = InterestCriterion(name="opened", kinds=("email_open",))
    assert PolicyWarningCode.interest_idle in codes(interest=(idle,))
    assert PolicyWarningCode.interest_idle not in codes(interest=(PRICING,))


def test_a_lead_that_lacks_points_waits_for_interest_as_long_as_a_criterion_is_not_met() -> None:
    policy = roofing_policy(interest=(PRICING,), minimum_score=100, on_low_score=ResultConsequence.nurture)
    cold = qualify(roofing_facts(budget=None), ROOFING_NEEDS, policy, NOW)
    warm = qualify(roofing_facts(budget=None, touches=(visit(0), visit(1))), ROOFING_NEEDS, policy, NOW)
    assert isinstance(cold, Nurture)
    assert isinstance(warm, Nurture)
    assert cold.waits_for == (WaitsFor.points, WaitsFor.interest)
    assert warm.waits_for == (WaitsFor.points,)
