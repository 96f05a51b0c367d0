"""What would unlock a nurtured lead, and how many subscriptions would then take it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from routing.decision import MatchedCandidates, OpenLead, decide
from routing.index import SubscriptionIndex
from routing.inquiry import Authority, Budget, EvidenceKind, Timing
from routing.interest import InterestCriterion, UnmetConsequence
from routing.lifecycle import LeadState
from routing.qualification import AuthorityPolicy, BudgetPolicy, Dimension, NeedPolicy, ResultConsequence, TimingPolicy
from routing.subscription import BantMinimum
from routing.unlocking import UnlockSummary, find_unlocks
from routing.vertical import VerticalDefinition
from tests.builders.inquiries import ROOFING_NEEDS, points, roofing_facts
from tests.builders.subscriptions import MONDAY_NOON, a_definition, a_subscription

WAITS: dict[str, Any] = {"on_unknown": ResultConsequence.nurture, "points": points()}


def the_vertical(**changes: Any) -> VerticalDefinition:
    fields: dict[str, Any] = {
        "name": "Roofing",
        "currency": "USD",
        "needs": ROOFING_NEEDS,
        "budget": BudgetPolicy(minimum_minor=500_000, **WAITS),
        "authority": AuthorityPolicy(accepted=(Authority.decision_maker,), **WAITS),
        "need": NeedPolicy(wanted={"roof_type": ("tile",)}, **WAITS),
        "timing": TimingPolicy(within_days=60, **WAITS),
        "minimum_score": 60,
    }
    return VerticalDefinition(**fields | changes).under_current_rules()


MODEST = a_subscription(1)
DEMANDING = a_subscription(2, definition=a_definition(bant=BantMinimum(minimum_budget_minor=900_000)))
INDEX = SubscriptionIndex([MODEST, DEMANDING])


def unlocks(vertical: VerticalDefinition | None = None, **facts: Any) -> UnlockSummary | None:
    known = roofing_facts(submitted_at=MONDAY_NOON, **facts)
    lead = OpenLead(lead_id=UUID(int=7), state=LeadState.nurturing, facts=known, received_at=MONDAY_NOON)
    return find_unlocks(lead, vertical or the_vertical(), 3, INDEX, MONDAY_NOON)


def counts(summary: UnlockSummary | None) -> dict[str | None, int]:
    assert summary is not None
    return {unlock.dimension or unlock.criterion: unlock.subscriptions for unlock in summary.questions}


def test_the_missing_answer_is_named_with_the_subscriptions_that_would_take_the_lead() -> None:
    summary = unlocks(timing=None)
    assert summary is not None
    [unlock] = summary.questions
    assert (unlock.dimension, unlock.question, unlock.subscriptions) == (Dimension.timing, "When is it wanted?", 2)
    assert summary.together == 2


def test_a_budget_that_the_policy_just_accepts_does_not_reach_a_demanding_business() -> None:
    assert counts(unlocks(budget=None)) == {Dimension.budget: 1}


def test_two_missing_answers_unlock_nothing_alone_and_the_lead_together() -> None:
    summary = unlocks(authority=None, timing=None)
    assert counts(summary) == {Dimension.authority: 0, Dimension.timing: 0}
    assert summary is not None
    assert summary.together == 2


def test_a_lead_that_lacks_points_names_every_answer_that_would_add_some() -> None:
    accepts: dict[str, Any] = {"on_unknown": ResultConsequence.accept, "points": points()}
    vertical = the_vertical(
        budget=BudgetPolicy(minimum_minor=500_000, **accepts),
        timing=TimingPolicy(within_days=60, **accepts),
        minimum_score=90,
        on_low_score=ResultConsequence.nurture,
    )
    summary = unlocks(vertical, budget=None, timing=None)
    assert counts(summary) == {Dimension.budget: 0, Dimension.timing: 0}
    assert summary is not None
    assert summary.together == 1
    assert counts(unlocks(vertical, budget=None)) == {Dimension.budget: 1}


def test_an_early_lead_is_unlocked_by_an_earlier_date() -> None:
    early = Timing(not_before=(MONDAY_NOON + timedelta(days=90)).date())
    assert counts(unlocks(timing=early)) == {Dimension.timing: 2}


def test_the_question_about_the_need_has_the_labels_of_the_open_fields() -> None:
    summary = unlocks(need_fields={})
    assert summary is not None
    assert [unlock.question for unlock in summary.questions] == ["What is the answer to: Roof?"]


def test_an_answer_counts_on_the_evidence_that_the_policy_accepts() -> None:
    strict = BudgetPolicy(minimum_minor=500_000, least_evidence=EvidenceKind.verified, **WAITS)
    budget = Budget(minor=1_200_000, currency="USD")
    assert counts(unlocks(the_vertical(budget=strict), budget=budget)) == {Dimension.budget: 1}


PRICING = InterestCriterion(
    name="pricing",
    kinds=("page_view",),
    detail_prefix="/pricing",
    count=2,
    within_days=7,
    required=True,
    otherwise=UnmetConsequence.nurture,
)


def test_a_touch_that_the_lead_waits_for_is_named_with_the_subscriptions_that_would_take_it() -> None:
    summary = unlocks(the_vertical(interest=(PRICING,)))
    assert summary is not None
    [unlock] = summary.questions
    assert (unlock.dimension, unlock.criterion, unlock.subscriptions) == (None, "pricing", 2)
    assert unlock.question == "Needed: page view of /pricing, 2 times within 7 days."


def test_an_answer_and_a_touch_unlock_the_lead_together() -> None:
    summary = unlocks(the_vertical(interest=(PRICING,)), timing=None)
    assert counts(summary) == {Dimension.timing: 0, "pricing": 0}
    assert summary is not None
    assert summary.together == 2


def test_a_lead_that_lacks_points_names_the_touches_that_would_add_some() -> None:
    visit = InterestCriterion(name="visit", kinds=("page_view",), points=10)
    vertical = the_vertical(interest=(visit,), minimum_score=100, on_low_score=ResultConsequence.nurture)
    assert counts(unlocks(vertical)) == {"visit": 2}


def test_a_lead_that_is_not_nurtured_needs_no_answer() -> None:
    assert unlocks() is None


def test_the_count_is_that_of_the_decision_with_the_answer_given() -> None:
    facts = roofing_facts(submitted_at=MONDAY_NOON, timing=Timing(within_days=60))
    lead = OpenLead(lead_id=UUID(int=7), state=LeadState.received, facts=facts, received_at=MONDAY_NOON)
    result = decide(lead, the_vertical(), 3, INDEX, MONDAY_NOON)
    assert isinstance(result, MatchedCandidates)
    assert counts(unlocks(timing=None)) == {Dimension.timing: len(result.eligible)}
