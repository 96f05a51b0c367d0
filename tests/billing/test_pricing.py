"""Payouts of providers: exact, and never more than the business paid."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import MOST_FIXED_MINOR, FixedPayout, Payout, SharePayout, payout_minor


def test_a_fixed_payout_is_bounded() -> None:
    rule = '{"type": "fixed", "minor": %d}'
    assert msgspec.json.decode(rule % MOST_FIXED_MINOR, type=Payout) == FixedPayout(minor=MOST_FIXED_MINOR)
    for minor in (MOST_FIXED_MINOR + 1, -1, 2**63):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(rule % minor, type=Payout)


RULES = st.builds(FixedPayout, minor=st.integers(0, 10**10)) | st.builds(
    SharePayout, basis_points=st.integers(0, 10_000)
)


@pytest.mark.parametrize(
    ("rule", "price_minor", "earned_minor"),
    [
        (FixedPayout(minor=2_000), 5_000, 2_000),
        (FixedPayout(minor=5_001), 5_000, 5_000),
        (SharePayout(basis_points=6_000), 5_000, 3_000),
        (SharePayout(basis_points=3_333), 100, 33),
        (SharePayout(basis_points=9_999), 1, 0),
        (SharePayout(basis_points=10_000), 999_999_999, 999_999_999),
        (SharePayout(basis_points=1), 10**15 + 9_999, 10**11),
        (SharePayout(basis_points=0), 5_000, 0),
        (FixedPayout(minor=2_000), 0, 0),
    ],
)
def test_a_payout_is_exact_to_the_minor_unit(rule: Payout, price_minor: int, earned_minor: int) -> None:
    assert payout_minor(rule, price_minor) == earned_minor


@given(RULES, st.integers(0, 10**9))
def test_no_payout_is_negative_or_more_than_the_price(rule: Payout, price_minor: int) -> None:
    assert 0 <= payout_minor(rule, price_minor) <= price_minor


@given(RULES, st.integers(0, 10**9))
def test_a_higher_price_never_pays_less(rule: Payout, price_minor: int) -> None:
    assert payout_minor(rule, price_minor + 1) >= payout_minor(rule, price_minor)


@given(RULES)
def test_a_rule_survives_being_stored(rule: Payout) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rule), type=Payout) == rule


@pytest.mark.parametrize(
    "stored",
    [b'{"type":"share","basis_points":10001}', b'{"type":"share","basis_points":-1}', b'{"type":"fixed","minor":-1}'],
)
def test_a_payout_outside_its_bounds_is_not_read(stored: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(stored, type=Payout)
