"""Times until an event, with the cases that still wait for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.waiting import times_within

MINUTES = st.lists(st.integers(1, 60), max_size=30)


def test_without_any_that_wait_it_is_the_time_of_that_share_of_the_events() -> None:
    took = np.array([30.0, np.nan, 10.0, 20.0, 40.0])
    assert times_within(took, np.array([np.nan]), (0.25, 0.5, 0.51, 1.0)) == (10, 20, 30, 40)


def test_those_that_wait_count_as_not_yet_up_to_where_they_have_waited() -> None:
    """By hand: 1 of 4 in the first minute; 1 of the 2 that were watched longer in the third: 3/4 times 1/2 is left."""
    took, waited = np.array([1.0, 3.0]), np.array([2.0, 5.0])
    assert times_within(took, waited, (0.25, 0.5, 0.62, 0.63)) == (1, 3, 3, None)
    assert times_within(np.array([]), waited, (0.5,)) == (None,)


@given(MINUTES, MINUTES)
def test_it_is_the_product_of_the_shares_left_at_each_time(took: list[int], waited: list[int]) -> None:
    left, expected = 1.0, None
    for minute in sorted(set(took)):
        at_risk = sum(time >= minute for time in took + waited)
        left *= 1 - took.count(minute) / at_risk
        if expected is None and left < 0.5 - 1e-9:
            expected = minute
    (median,) = times_within(np.array(took, float), np.array(waited, float), (0.5 + 2e-9,))
    assert median == pytest.approx(expected)
