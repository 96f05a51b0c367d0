"""Amounts are written with the digits that ISO 4217 gives their currency."""

import pytest
from iso4217 import Currency

from routing.currency import MINOR_DIGITS, minor_digits, write_amount
from routing.inquiry import amount_in_words


def test_the_table_is_that_of_iso_4217() -> None:
    assert {one.code: one.exponent for one in Currency if one.exponent is not None} == MINOR_DIGITS


@pytest.mark.parametrize(
    ("minor", "currency", "words"),
    [
        (1_200_000, "USD", "USD 12,000"),
        (50, "USD", "USD 0.50"),
        (-105, "EUR", "EUR -1.05"),
        (12_000, "JPY", "JPY 12,000"),
        (1_005, "KWD", "KWD 1.005"),
        (12_345, "CLF", "CLF 1.2345"),
        (1_000, "IQD", "IQD 1"),
    ],
)
def test_amounts_are_written_with_their_currencys_fraction(minor: int, currency: str, words: str) -> None:
    assert amount_in_words(minor, currency) == words


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (12_500, "KWD", "12.500"),
        (12_500, "USD", "125.00"),
        (12_500, "JPY", "12500"),
        (1, "CLF", "0.0001"),
        (-5, "USD", "-0.05"),
    ],
)
def test_an_amount_of_a_form_has_all_its_digits_and_no_marks_between_thousands(
    minor: int, currency: str, text: str
) -> None:
    assert write_amount(minor, currency) == text


def test_a_code_stored_before_it_was_checked_is_written_with_two_digits() -> None:
    assert minor_digits("ABC") == 2
