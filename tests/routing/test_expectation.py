"""Expected value of a sale: shares of small businesses are pulled to the vertical's, and a floor for the business."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.expectation import (
    FEWEST_JOBS,
    PRIOR_LEADS,
    BusinessSales,
    LeadExpectation,
    chance_to_stay,
    expected_gain_minor,
    job_value_minor,
    return_share_of,
)
from routing.ranking import Strategy, rank
from tests.builders.subscriptions import a_candidate, a_definition


def sales(leads: int = 0, returned: int = 0, **rest: int | None) -> BusinessSales:
    return BusinessSales(leads=leads, returned=returned, **rest)  # type: ignore[arg-type]


def test_a_business_without_leads_has_the_share_of_its_vertical() -> None:
    assert chance_to_stay(None, 0.2) == pytest.approx(0.8)
    assert chance_to_stay(sales(), 0.2) == pytest.approx(0.8)


def test_the_own_share_counts_for_half_at_as_many_leads_as_the_prior_has() -> None:
    assert chance_to_stay(sales(PRIOR_LEADS, PRIOR_LEADS), 0.2) == pytest.approx(0.4)


@given(leads=st.integers(0, 10_000), share=st.floats(0, 1), data=st.data())
def test_a_chance_to_stay_lies_between_the_own_share_and_that_of_the_vertical(
    leads: int, share: float, data: st.DataObject
) -> None:
    returned = data.draw(st.integers(0, leads))
    own = returned / leads if leads else share
    kept = chance_to_stay(sales(leads, returned), share)
    assert min(own, share) - 1e-9 <= 1 - kept <= max(own, share) + 1e-9


def test_the_share_of_a_vertical_is_that_of_all_its_leads() -> None:
    assert return_share_of([sales(90, 9), sales(10, 1)]) == pytest.approx(0.1)
    assert return_share_of([]) == 0


def test_a_job_is_worth_the_mean_of_enough_jobs_and_before_that_what_was_declared() -> None:
    few = sales(20, jobs=FEWEST_JOBS - 1, jobs_minor=900_000, declared_minor=50_000)
    many = sales(20, jobs=FEWEST_JOBS, jobs_minor=1_000_000, declared_minor=50_000)
    assert job_value_minor(few) == 50_000
    assert job_value_minor(many) == 100_000
    assert job_value_minor(sales(20, jobs=3, jobs_minor=300)) is None
    assert job_value_minor(None) is None


def test_a_business_expects_its_chance_of_a_job_less_the_price() -> None:
    assert expected_gain_minor(0.1, sales(declared_minor=100_000), 4_000) == pytest.approx(6_000)
    assert expected_gain_minor(0.1, sales(), 4_000) is None


def order(expectation: LeadExpectation | None, *prices: int) -> list[int]:
    """The numbers (from 1) of businesses with these prices, in the order of ranking by expected value."""
    candidates = [a_candidate(number, price_minor=price) for number, price in enumerate(prices, start=1)]
    definitions = {UUID(int=number): a_definition(price_minor=price) for number, price in enumerate(prices, start=1)}
    ranked = rank(Strategy.expected_value, candidates, definitions, {}, b"lead", expectation)
    return [place.candidate.subscription_id.int for place in ranked]


def expectation(probability: float, **by_business: BusinessSales) -> LeadExpectation:
    return LeadExpectation(
        probabilities={business_of(number): probability for number in (1, 2)},
        sales={business_of(int(name[1:])): its for name, its in by_business.items()},
        return_share=0.1,
    )


def business_of(number: int) -> UUID:
    return a_candidate(number).business_id


def test_a_sale_that_stays_outranks_a_higher_price_that_does_not() -> None:
    often, never = sales(1_000, 500), sales(1_000, 0)
    assert order(expectation(0.3, b1=often, b2=never), 6_000, 5_000) == [2, 1]
    assert order(expectation(0.3, b1=never, b2=often), 6_000, 5_000) == [1, 2]


def test_who_may_expect_to_lose_comes_after_the_others_and_can_still_have_the_lead() -> None:
    small_jobs = sales(declared_minor=40_000)
    assert order(expectation(0.2, b1=small_jobs), 9_000, 5_000) == [2, 1]
    assert order(expectation(0.3, b1=small_jobs), 9_000, 5_000) == [1, 2]
    assert order(expectation(0.2, b1=small_jobs), 9_000) == [1]


def test_an_unknown_value_of_jobs_keeps_nobody_back() -> None:
    assert order(expectation(0.01), 9_000, 5_000) == [1, 2]


def test_without_a_card_that_ranks_the_highest_price_does() -> None:
    assert order(None, 5_000, 6_000) == [2, 1]
    candidates = [a_candidate(1)]
    [place] = rank(Strategy.expected_value, candidates, {UUID(int=1): a_definition()}, {}, b"lead")
    assert [name for name, _ in place.scores] == ["price_minor", "priority"]
