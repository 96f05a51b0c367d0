"""Shares of businesses: parts of one lead, and the credits by which `fair` ranks, at every volume."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fairness import Market, rows, run
from routing.shares import LEAD, business_weights, credit_changes, lead_parts
from tests.builders.subscriptions import a_definition

WEIGHTS = st.dictionaries(st.uuids(), st.integers(1, 1_000), min_size=1, max_size=40)


@given(WEIGHTS)
def test_the_parts_of_a_lead_are_by_weight_and_make_one_lead(weights: dict[UUID, int]) -> None:
    parts = lead_parts(weights)
    assert sum(parts.values()) == LEAD
    total = sum(weights.values())
    assert all(abs(parts[business] - LEAD * weight / total) <= 1 for business, weight in weights.items())


@given(WEIGHTS, st.data())
def test_an_award_changes_credits_by_nothing_in_all(weights: dict[UUID, int], data: st.DataObject) -> None:
    winner = data.draw(st.sampled_from(sorted(weights)))
    changes = credit_changes(weights, winner)
    assert sum(changes.values()) == 0
    assert changes[winner] == lead_parts(weights)[winner] - LEAD


def test_several_subscriptions_of_a_business_have_one_share() -> None:
    one, other = UUID(int=1), UUID(int=2)
    terms = [(one, a_definition(weight=3)), (one, a_definition(weight=3)), (other, a_definition(weight=1))]
    assert business_weights(terms) == {one: 3, other: 1}


def test_shares_pace_and_chance_are_as_promised_at_every_volume() -> None:
    assert [row for row in rows(quick=True) if not row.low <= row.measured <= row.high] == []


def test_nobody_makes_up_for_a_pause_or_for_the_time_before_it_joined() -> None:
    """Of equal businesses, one that comes back gets no more than its share of the next leads."""
    market = Market(weights=(1,) * 6, paused=lambda business, lead: business == 0 and lead < 600)
    winners = run(market, 720).winners
    assert 0 not in winners[:600]
    assert 18 <= winners[600:].count(0) <= 22


def test_a_new_weight_counts_from_now_on() -> None:
    market = Market(weights=(1, 1, 1, 1), later_weights=(5, 1, 1, 1), changed_at=400)
    winners = run(market, 480).winners
    assert 99 <= winners[:400].count(0) <= 101
    assert 49 <= winners[400:].count(0) <= 51
