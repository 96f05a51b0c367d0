"""What new facts about a lead change."""

from datetime import timedelta
from typing import Any

import pytest

from routing.decision import WITHDRAWN
from routing.inquiry import Budget, Touch
from routing.interest import InterestCriterion
from routing.lifecycle import LEAD_MOVES, LeadState
from routing.requalifying import OPEN_AGAIN, LeadStanding, NextStep, next_step
from tests.builders.inquiries import NOW, roofing_facts
from tests.builders.marketplaces import roofing

DAY = timedelta(days=1)
FACTS = roofing_facts()
RICHER = roofing_facts(budget=Budget(minor=9_000_000, currency="USD"))
POORER = roofing_facts(budget=Budget(minor=100, currency="USD"))
VISITED = roofing_facts(touches=(Touch(kind="page_view", at=NOW, detail=""),))
WITH_INTEREST = roofing(interest=(InterestCriterion(name="visit", kinds=("page_view",), points=5),))


def standing(state: LeadState, **changes: Any) -> LeadStanding:
    fields: dict[str, Any] = {"reason": None, "received_at": NOW, "settled_at": NOW + DAY}
    return LeadStanding(state=state, **fields | changes)


@pytest.mark.parametrize(
    ("state", "after", "step"),
    [
        (LeadState.received, FACTS, NextStep.due),
        (LeadState.nurturing, FACTS, NextStep.due),
        (LeadState.prospect, FACTS, NextStep.stay),
        (LeadState.prospect, VISITED, NextStep.stay),
        (LeadState.prospect, RICHER, NextStep.receive),
        (LeadState.rejected, FACTS, NextStep.stay),
        (LeadState.rejected, POORER, NextStep.receive),
        (LeadState.unsold, FACTS, NextStep.stay),
        (LeadState.unsold, RICHER, NextStep.receive),
        (LeadState.held, FACTS, NextStep.receive),
        (LeadState.delivered, POORER, NextStep.stay),
        (LeadState.duplicate, POORER, NextStep.stay),
        (LeadState.expired, POORER, NextStep.stay),
    ],
)
def test_the_state_of_a_lead_and_what_differs_decide_what_follows(state: LeadState, after: Any, step: NextStep) -> None:
    assert next_step(standing(state), FACTS, after, roofing(), NOW + 2 * DAY) is step


@pytest.mark.parametrize(("touched_at", "step"), [(NOW, NextStep.stay), (NOW + 2 * DAY, NextStep.receive)])
def test_an_unsold_lead_is_opened_again_if_its_person_comes_back(touched_at: Any, step: NextStep) -> None:
    assert next_step(standing(LeadState.unsold), FACTS, FACTS, roofing(), NOW + 3 * DAY, touched_at) is step


def test_interest_that_changes_the_verdict_opens_a_rejected_lead_again() -> None:
    lead = standing(LeadState.rejected)
    assert next_step(lead, FACTS, VISITED, WITH_INTEREST, NOW + 2 * DAY) is NextStep.receive
    assert next_step(lead, FACTS, VISITED, roofing(), NOW + 2 * DAY) is NextStep.stay


@pytest.mark.parametrize("changes", [{"reason": WITHDRAWN}, {"received_at": NOW - OPEN_AGAIN}])
def test_a_lead_whose_person_withdrew_or_whose_consent_is_old_stays_ended(changes: dict[str, Any]) -> None:
    lead = standing(LeadState.unsold, **changes)
    assert next_step(lead, FACTS, RICHER, roofing(), NOW + 2 * DAY, NOW + 2 * DAY) is NextStep.stay


@pytest.mark.parametrize("state", LeadState)
def test_only_a_lead_that_may_be_received_again_is(state: LeadState) -> None:
    step = next_step(standing(state), FACTS, POORER, roofing(), NOW + 2 * DAY, NOW + 2 * DAY)
    assert (step is NextStep.receive) == (LeadState.received in LEAD_MOVES[state])


def test_a_touch_takes_a_held_lead_from_no_business() -> None:
    held = standing(LeadState.held)
    assert next_step(held, FACTS, POORER, roofing(), NOW + 2 * DAY, NOW + DAY) is NextStep.stay
