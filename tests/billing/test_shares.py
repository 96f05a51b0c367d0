"""Shares of a payout: exact, and never more than was agreed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.shares import split_payout


@pytest.mark.parametrize(
    ("payout_minor", "parts", "shares"),
    [
        (3_000, 1, (3_000,)),
        (3_000, 2, (1_500, 1_500)),
        (100, 3, (34, 33, 33)),
        (101, 3, (35, 33, 33)),
        (1, 2, (1, 0)),
        (0, 3, (0, 0, 0)),
    ],
)
def test_a_payout_is_divided_equally_and_the_first_gets_the_remainder(
    payout_minor: int, parts: int, shares: tuple[int, ...]
) -> None:
    assert split_payout(payout_minor, parts) == shares


@given(st.integers(0, 10**12), st.integers(1, 40))
def test_shares_add_up_to_the_payout_and_nobody_but_the_first_gets_more_than_another(
    payout_minor: int, parts: int
) -> None:
    first, *others = split_payout(payout_minor, parts)
    assert first + sum(others) == payout_minor
    assert len(others) == parts - 1
    assert len(set(others)) <= 1
    assert all(0 <= share <= first < share + parts for share in others)


@pytest.mark.parametrize(("payout_minor", "parts"), [(-1, 2), (100, 0)])
def test_nothing_is_divided_among_nobody_and_no_debt_is_divided(payout_minor: int, parts: int) -> None:
    with pytest.raises(ValueError, match="cannot be divided"):
        split_payout(payout_minor, parts)
