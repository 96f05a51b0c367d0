"""Warnings about a policy: each kind with a policy that has it, none for one without gaps, and none that is untrue."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.inquiry import Authority, EvidenceKind
from routing.policy_lint import PolicyWarningCode, lint_policy
from routing.qualification import (
    AuthorityPolicy,
    BudgetPolicy,
    Dimension,
    NeedPolicy,
    Points,
    QualificationPolicy,
    ResultConsequence,
    TimingPolicy,
)
from routing.vertical import VerticalDefinition
from tests.builders.inquiries import ROOFING_NEEDS, points
from tests.routing.test_qualification import policies

Code = PolicyWarningCode
ACCEPT: dict[str, Any] = {"points": points(), "on_unknown": ResultConsequence.accept}
TIED: dict[str, Any] = {"points": points(unknown=0), "on_fails": ResultConsequence.accept}
DECIDER = (Authority.decision_maker,)


def gapless(**changes: Any) -> VerticalDefinition:
    """Unknown rejects where a bad answer does, and the score rejects whoever does not decide."""
    standard: dict[str, Any] = {
        "name": "Roofing",
        "currency": "USD",
        "needs": ROOFING_NEEDS,
        "budget": BudgetPolicy(minimum_minor=500_000, points=points()),
        "authority": AuthorityPolicy(accepted=DECIDER, **TIED),
        "need": NeedPolicy(wanted={"roof_type": ("tile", "shingle")}, points=points()),
        "timing": TimingPolicy(within_days=60, points=points()),
        "minimum_score": 80,
    }
    return VerticalDefinition(**standard | changes).under_current_rules()


def test_a_policy_without_gaps_has_no_warnings() -> None:
    assert lint_policy(gapless()) == ()


@pytest.mark.parametrize(
    ("changes", "code", "dimension", "detail"),
    [
        (
            {"budget": BudgetPolicy(minimum_minor=500_000, **ACCEPT)},
            Code.leaving_out_pays,
            Dimension.budget,
            'Leaving the budget out pays: a lead with the budget "USD 2,500" is rejected, the same lead without it '
            "scores 85 and qualifies.",
        ),
        (
            {"authority": AuthorityPolicy(accepted=DECIDER, points=points(), on_fails=ResultConsequence.accept)},
            Code.leaving_out_pays,
            Dimension.authority,
            'Leaving the authority out pays: a lead with the authority "influencer" is rejected, the same lead without '
            "it scores 85 and qualifies.",
        ),
        (
            {"need": NeedPolicy(wanted={"owns_home": (True,)}, **ACCEPT)},
            Code.leaving_out_pays,
            Dimension.need,
            'Leaving the need out pays: a lead with the need "roof_type: tile; owns_home: no" is rejected, the same '
            "lead without it scores 85 and qualifies.",
        ),
        (
            {"timing": TimingPolicy(within_days=60, **ACCEPT)},
            Code.leaving_out_pays,
            Dimension.timing,
            'Leaving the timing out pays: a lead with the timing "within 151 days" is rejected, the same lead without '
            "it scores 85 and qualifies.",
        ),
        (
            {"budget": BudgetPolicy(minimum_minor=1, points=points(), least_evidence=EvidenceKind.stated)},
            Code.evidence_left_out_pays,
            Dimension.budget,
            "Leaving out how the budget is known pays: a lead whose budget was inferred is rejected. If its evidence "
            "is left out it counts as stated: the lead scores 100 and qualifies.",
        ),
        (
            {
                "budget": BudgetPolicy(minimum_minor=0, **ACCEPT),
                "authority": AuthorityPolicy(accepted=tuple(Authority), **ACCEPT),
                "timing": TimingPolicy(within_days=3_650, **ACCEPT),
                "minimum_score": 55,
            },
            Code.unanswered_qualifies,
            None,
            "A lead that answers only the required questions scores 55 and qualifies.",
        ),
        (
            {"authority": AuthorityPolicy(accepted=DECIDER, **TIED), "minimum_score": 75},
            Code.dimension_idle,
            Dimension.authority,
            "The authority decides nothing: no answer to it makes a lead qualify, or rejects one.",
        ),
        (
            {"minimum_score": 75},
            Code.minimum_score_idle,
            None,
            "The minimum score of 75 rejects no lead: the lowest score of those that nothing else rejects is 75.",
        ),
        (
            {"authority": AuthorityPolicy(accepted=DECIDER, points=Points(meets=100, unknown=0))},
            Code.points_scaled,
            None,
            "The points add up to 175, and the score ends at 100: a lead with 175 points scores 100. Divide the points "
            "so that they add up to 100.",
        ),
    ],
)
def test_a_warning_gives_a_lead_that_the_policy_judges_so(
    changes: dict[str, Any], code: PolicyWarningCode, dimension: Dimension | None, detail: str
) -> None:
    warnings = {(warning.code, warning.dimension): warning.detail for warning in lint_policy(gapless(**changes))}
    assert warnings[code, dimension] == detail


def test_an_example_says_what_else_its_lead_does_not_meet() -> None:
    budget = BudgetPolicy(minimum_minor=500_000, points=points(fails=5), on_fails=ResultConsequence.accept)
    definition = gapless(budget=budget, timing=TimingPolicy(within_days=60, **ACCEPT), minimum_score=70)
    [about_budget, _] = [warning for warning in lint_policy(definition) if warning.code is Code.leaving_out_pays]
    assert about_budget.detail == (
        'Leaving the budget out pays: a lead with the budget "USD 2,500" is rejected, the same lead without it scores '
        "70 and qualifies. It does not meet the timing either."
    )


def test_a_version_under_earlier_rules_is_named() -> None:
    [warning] = lint_policy(msgspec.structs.replace(gapless(), rules_version=1))
    assert warning.code is Code.earlier_rules


def test_a_number_is_linted_by_its_bounds() -> None:
    need = NeedPolicy(wanted={"square_metres": (1,)}, **ACCEPT)
    [warning] = lint_policy(gapless(need=need))
    assert '"roof_type: tile; square_metres: 2"' in warning.detail


def definition_of(policy: QualificationPolicy) -> VerticalDefinition:
    return gapless(
        budget=policy.budget,
        authority=policy.authority,
        need=policy.need,
        timing=policy.timing,
        minimum_score=policy.minimum_score,
    )


@given(policies, st.sampled_from(Dimension))
def test_leaving_out_never_pays_where_the_policy_says_nothing_of_unknown(
    policy: QualificationPolicy, dimension: Dimension
) -> None:
    rule = getattr(policy, dimension)
    equal = msgspec.structs.replace(rule.points, unknown=rule.points.fails)
    silent = msgspec.structs.replace(rule, on_unknown=None, points=equal)
    definition = msgspec.structs.replace(definition_of(policy), **{dimension: silent})
    pays = {warning.dimension for warning in lint_policy(definition) if warning.code is Code.leaving_out_pays}
    assert dimension not in pays
