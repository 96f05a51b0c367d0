"""Who is asked first: total, replayable orders and the shares that they lead to."""

from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.matching import Candidate, CapsAndWallet, Failure, Rule
from routing.ranking import Strategy, explores, rank, recorded_credit
from routing.shares import LEAD
from tests.builders.subscriptions import a_candidate, a_definition

LEADS = 10_000


def seeds(count: int) -> list[bytes]:
    return [UUID(int=number).bytes for number in range(count)]


def order(strategy: Strategy, members: list[dict[str, Any]], standings: list[CapsAndWallet] | None = None) -> list[int]:
    """The members' numbers (from 1) in the order of asking; a member is what its definition says otherwise."""
    candidates = [
        a_candidate(number, price_minor=member.get("price_minor", 5_000))
        for number, member in enumerate(members, start=1)
    ]
    definitions = {UUID(int=number): a_definition(**member) for number, member in enumerate(members, start=1)}
    known = {UUID(int=number): standing for number, standing in enumerate(standings or [], start=1)}
    ranked = rank(strategy, candidates, definitions, known, b"lead")
    return [place.candidate.subscription_id.int for place in ranked]


def test_priority_asks_the_lowest_number_first_and_then_the_highest_price() -> None:
    members = [{"priority": 2}, {"priority": 1, "price_minor": 4_000}, {"priority": 1, "price_minor": 6_000}]
    assert order(Strategy.priority, members) == [3, 2, 1]


def test_highest_price_asks_the_highest_price_first_and_then_the_lowest_number() -> None:
    members = [{"price_minor": 4_000}, {"priority": 2, "price_minor": 6_000}, {"priority": 1, "price_minor": 6_000}]
    assert order(Strategy.highest_price, members) == [3, 2, 1]


def test_fair_asks_whoever_is_furthest_behind_its_share_counting_this_lead() -> None:
    """Parts of this lead are 3/5, 1/5 and 1/5 of it where the first has weight 3."""
    standings = [a_credit(-0.2), a_credit(0.1), a_credit(0.15)]
    assert order(Strategy.fair, [{}, {}, {}], standings) == [3, 2, 1]
    assert order(Strategy.fair, [{"weight": 3}, {}, {}], standings) == [1, 3, 2]


def test_a_business_without_a_standing_has_no_credit() -> None:
    assert order(Strategy.fair, [{}, {}], [a_credit(-0.1)]) == [2, 1]


def test_the_credit_that_was_compared_is_recorded_and_read_again() -> None:
    definitions = {UUID(int=1): a_definition(weight=1), UUID(int=2): a_definition(weight=2)}
    standings = {UUID(int=1): a_credit(0.123456789), UUID(int=2): a_credit(-2.5)}
    ranked = rank(Strategy.fair, [a_candidate(1), a_candidate(2)], definitions, standings, b"lead")
    assert [dict(place.scores) for place in ranked] == [
        {"credit": 0.456790122, "part": 0.333333333},
        {"credit": -1.833333333, "part": 0.666666667},
    ]
    assert [recorded_credit(place.scores) for place in ranked] == [123_456_789, -2_500_000_000]
    assert recorded_credit((("load", 1.0), ("last_awarded_at", 0.0))) is None


@pytest.mark.parametrize("strategy", [Strategy.weighted_share, Strategy.fair])
def test_copies_of_a_subscription_change_no_share(strategy: Strategy) -> None:
    """One business with three subscriptions and one with one win equally often, wherever the copies stand."""
    candidates = [a_candidate(number, business_id=UUID(int=7)) for number in (1, 2, 3)] + [a_candidate(4)]
    definitions = {UUID(int=number): a_definition() for number in range(1, 5)}
    wins = Counter(
        rank(strategy, candidates, definitions, {}, seed)[0].candidate.subscription_id.int for seed in seeds(2_000)
    )
    assert abs(wins[4] / 2_000 - 0.5) < 0.05
    assert all(abs(wins[copy] / 2_000 - 1 / 6) < 0.05 for copy in (1, 2, 3))


def a_credit(leads: float) -> CapsAndWallet:
    return CapsAndWallet(available_minor=0, share_credit=round(leads * LEAD))


def test_the_scores_that_were_compared_are_recorded() -> None:
    definitions = {UUID(int=1): a_definition(priority=7)}
    (place,) = rank(Strategy.priority, [a_candidate()], definitions, {}, b"lead")
    assert (place.position, place.scores) == (1, (("priority", 7.0), ("price_minor", 5_000.0)))
    assert len(bytes.fromhex(place.tie_break)) == 32


def test_nobody_who_fails_a_rule_is_ranked() -> None:
    failed = a_candidate(1, failures=(Failure(rule=Rule.paused, detail="paused by the business"),))
    definitions = {UUID(int=number): a_definition() for number in (1, 2)}
    ranked = rank(Strategy.fair, [failed, a_candidate(2)], definitions, {}, b"lead")
    assert [place.candidate for place in ranked] == [a_candidate(2)]


@pytest.mark.parametrize("strategy", list(Strategy))
@given(st.permutations(range(1, 7)), st.binary(min_size=16, max_size=16))
def test_the_order_of_asking_does_not_depend_on_the_order_of_the_candidates(
    strategy: Strategy, numbers: list[int], seed: bytes
) -> None:
    definitions = {UUID(int=n): a_definition(priority=n % 2, weight=1 + n % 3) for n in range(1, 7)}
    candidates = [a_candidate(number) for number in numbers]
    ranked = rank(strategy, candidates, definitions, {}, seed)
    assert ranked == rank(strategy, sorted(candidates, key=lambda c: c.subscription_id), definitions, {}, seed)
    assert sorted(c.subscription_id.int for c in (place.candidate for place in ranked)) == list(range(1, 7))
    assert [place.position for place in ranked] == list(range(1, 7))


def test_equals_take_turns_from_lead_to_lead() -> None:
    definitions = {UUID(int=number): a_definition() for number in range(1, 5)}
    candidates = [a_candidate(number) for number in range(1, 5)]
    wins = Counter(
        rank(Strategy.priority, candidates, definitions, {}, seed)[0].candidate.subscription_id for seed in seeds(2_000)
    )
    assert all(abs(count / 2_000 - 0.25) < 0.05 for count in wins.values())


def first_wins(
    strategy: Strategy, candidates: list[Candidate], definitions: dict[UUID, Any], explore_per_mille: int = 0
) -> tuple[Counter[int], dict[int, float]]:
    """How often each subscription stands first over LEADS leads, and the probability of it that is recorded."""
    wins: Counter[int] = Counter()
    for seed in seeds(LEADS):
        ranked = rank(strategy, candidates, definitions, {}, seed, explore_per_mille=explore_per_mille)
        wins[ranked[0].candidate.subscription_id.int] += 1
    return wins, {place.candidate.subscription_id.int: place.propensity for place in ranked}


def chi_squared(wins: Counter[int], chances: dict[int, float]) -> float:
    return sum((wins[key] - LEADS * chance) ** 2 / (LEADS * chance) for key, chance in chances.items() if chance)


def test_chance_among_equals_is_even_and_the_probability_is_recorded() -> None:
    """Twelve equal businesses: chi squared with 11 degrees of freedom exceeds 31.3 once in a thousand."""
    numbers = range(1, 13)
    definitions = {UUID(int=number): a_definition() for number in numbers}
    wins, chances = first_wins(Strategy.priority, [a_candidate(number) for number in numbers], definitions)
    assert chances == pytest.approx(dict.fromkeys(numbers, 1 / 12))
    assert chi_squared(wins, chances) < 31.3


def test_the_probability_is_divided_by_business_and_then_by_subscription() -> None:
    candidates = [a_candidate(1), a_candidate(2, business_id=UUID(int=7)), a_candidate(3, business_id=UUID(int=7))]
    definitions = {UUID(int=number): a_definition() for number in (1, 2, 3)}
    wins, chances = first_wins(Strategy.highest_price, candidates, definitions)
    assert chances == {1: 0.5, 2: 0.25, 3: 0.25}
    assert chi_squared(wins, chances) < 13.8


def test_a_lower_score_never_stands_first_and_has_its_own_equals() -> None:
    definitions = {UUID(int=1): a_definition(priority=1), **{UUID(int=n): a_definition(priority=2) for n in (2, 3)}}
    ranked = rank(Strategy.priority, [a_candidate(number) for number in (1, 2, 3)], definitions, {}, b"lead")
    assert [(place.among_equals, place.propensity) for place in ranked] == [(1.0, 1.0), (0.5, 0.0), (0.5, 0.0)]


def test_the_probability_of_a_weighted_share_is_its_weight() -> None:
    candidates, definitions = members()
    wins, chances = first_wins(Strategy.weighted_share, candidates, definitions)
    assert chances == pytest.approx({number: weight / 20 for number, weight in WEIGHTS.items()})
    assert chi_squared(wins, chances) < 18.5


def test_exploration_orders_its_share_of_the_leads_at_random_and_says_with_what_probability() -> None:
    """With 50 of 1,000 leads, the best of five stands first in 96 % of all, and each other in 1 %."""
    numbers = range(1, 6)
    definitions = {UUID(int=number): a_definition(priority=number) for number in numbers}
    candidates = [a_candidate(number) for number in numbers]
    wins, chances = first_wins(Strategy.priority, candidates, definitions, explore_per_mille=50)
    assert chances == pytest.approx({1: 0.96, 2: 0.01, 3: 0.01, 4: 0.01, 5: 0.01})
    assert chi_squared(wins, chances) < 18.5
    for seed in seeds(200):
        explored = rank(Strategy.priority, candidates, definitions, {}, seed, explore_per_mille=50)
        by_rank = rank(Strategy.priority, candidates, definitions, {}, seed)
        assert explores(seed, 50) or [p.candidate for p in explored] == [p.candidate for p in by_rank]


@pytest.mark.parametrize("strategy", list(Strategy))
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 1)), min_size=1, max_size=8),
    st.integers(0, 50),
    st.binary(min_size=16, max_size=16),
)
def test_probabilities_of_standing_first_make_one(
    strategy: Strategy, terms: list[tuple[int, int, int]], explore_per_mille: int, seed: bytes
) -> None:
    """Whatever the businesses, their weights and their priorities, and in any order of the candidates."""
    definitions = {
        UUID(int=number): a_definition(weight=weight, priority=priority)
        for number, (_business, weight, priority) in enumerate(terms, start=1)
    }
    candidates = [
        a_candidate(number, business_id=UUID(int=100 + business))
        for number, (business, _weight, _priority) in enumerate(terms, start=1)
    ]
    ranked = rank(strategy, candidates, definitions, {}, seed, explore_per_mille=explore_per_mille)
    assert sum(place.propensity for place in ranked) == pytest.approx(1.0)
    assert ranked == rank(strategy, candidates[::-1], definitions, {}, seed, explore_per_mille=explore_per_mille)
    assert ranked[0].propensity > 0


WEIGHTS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 10}


def shares_missed_by(wins: Counter[int]) -> float:
    """The largest difference between a member's share of the leads and its share of the weights."""
    leads, weights = wins.total(), sum(WEIGHTS.values())
    return max(abs(wins[number] / leads - weight / weights) for number, weight in WEIGHTS.items())


def members() -> tuple[list[Candidate], dict[UUID, Any]]:
    definitions = {UUID(int=number): a_definition(weight=weight) for number, weight in WEIGHTS.items()}
    return [a_candidate(number) for number in WEIGHTS], definitions


def test_weighted_shares_come_out_within_one_and_a_half_percent() -> None:
    candidates, definitions = members()
    wins = Counter(
        rank(Strategy.weighted_share, candidates, definitions, {}, seed)[0].candidate.subscription_id.int
        for seed in seeds(LEADS)
    )
    assert shares_missed_by(wins) < 0.015


def test_a_weighted_share_goes_to_the_others_in_proportion_when_one_drops_out() -> None:
    candidates, definitions = members()
    for seed in seeds(200):
        everyone = rank(Strategy.weighted_share, candidates, definitions, {}, seed)
        without = rank(Strategy.weighted_share, candidates[:-1], definitions, {}, seed)
        left = [place.candidate for place in everyone if place.candidate != candidates[-1]]
        assert left == [place.candidate for place in without]
