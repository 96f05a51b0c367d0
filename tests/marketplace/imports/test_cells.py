"""Cells of files as people and spreadsheets write them: amounts, currencies, days and times."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.imports.amounts import MARKS, decide_decimal, read_amount
from marketplace.imports.cells import CellFault, clean, read_id
from marketplace.imports.times import decide_order, read_moment
from routing.currency import MINOR_DIGITS, write_amount

CHICAGO = ZoneInfo("America/Chicago")
SPACES = "\u00a0\u1680\u2000\u2007\u2009\u202f\u205f\u3000\u200b\ufeff"


def amount(text: str, currency: str = "USD", decimal: str = ".") -> int | str:
    try:
        return read_amount(text, currency, "," if decimal == "," else ".")
    except CellFault as fault:
        return fault.code


def moment(text: str, order: str = "iso", zone: ZoneInfo = CHICAGO) -> str:
    try:
        at = read_moment(text, "mdy" if order == "mdy" else "dmy" if order == "dmy" else "iso", zone).at
    except CellFault as fault:
        return fault.code
    return at.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("text", "currency", "decimal", "minor"),
    [
        ("12.500", "KWD", ".", 12_500),
        ("12.5", "KWD", ".", 12_500),
        ("1.2345", "CLF", ".", 12_345),
        ("1200", "JPY", ".", 1_200),
        ("1200.00", "JPY", ".", 1_200),
        ("1200.50", "JPY", ".", "amount_invalid"),
        ("1.000", "JPY", ".", "amount_invalid"),
        ("1.000", "JPY", ",", 1_000),
        ("45.5000", "USD", ".", 4_550),
        ("1.230", "USD", ".", "amount_invalid"),
        ("1.234,50", "EUR", ",", 123_450),
        ("1'234.50", "CHF", ".", 123_450),
        ("1,23,456.7", "INR", ".", 12_345_670),
        ("12,5", "USD", ".", "amount_invalid"),
        (".50", "USD", ".", 50),
        ("$.50", "USD", ".", 50),
        ("Rs.50", "INR", ".", 5_000),
        ("-5", "USD", ".", "amount_invalid"),
        ("(5)", "USD", ".", "amount_invalid"),
        ("9e99", "USD", ".", "amount_invalid"),
        ("1.23457E+15", "USD", ".", "amount_invalid"),
        ("12²", "USD", ".", "amount_invalid"),
        ("a lot", "USD", ".", "amount_invalid"),
        ("", "USD", ".", "amount_invalid"),
        ("9" * 14, "USD", ".", "out_of_range"),
    ],
)
def test_an_amount_is_read_exactly_or_not_at_all(text: str, currency: str, decimal: str, minor: int | str) -> None:
    assert amount(text, currency, decimal) == minor


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("EUR 45.00", "USD", "currency_differs"),
        ("€45", "USD", "currency_differs"),
        ("45 €", "USD", "currency_differs"),
        ("45 USD", "USD", 4_500),
        ("usd45", "USD", 4_500),
        ("US$ 45", "USD", 4_500),
        ("US$ 45", "CAD", "currency_differs"),
        ("$45", "CAD", 4_500),
        ("CA$45", "CAD", 4_500),
        ("CA$45", "USD", "currency_differs"),
        ("$45 CAD", "USD", "currency_differs"),
        ("$45", "EUR", "currency_differs"),
        ("45 kr", "SEK", 4_500),
        ("45 kr.", "DKK", 4_500),
        ("45 kr", "USD", "currency_differs"),
        ("£45", "GBP", 4_500),
        ("45 zł", "PLN", 4_500),
        ("45 XYZ", "USD", "amount_invalid"),
    ],
)
def test_a_currency_named_in_a_cell_must_be_the_one_that_is_expected(
    text: str, currency: str, minor: int | str
) -> None:
    assert amount(text, currency) == minor


@given(st.integers(0, 10**12), st.sampled_from(sorted(MINOR_DIGITS)))
def test_what_is_written_of_an_amount_is_read_as_the_same_amount(minor: int, currency: str) -> None:
    assert read_amount(write_amount(minor, currency), currency) == minor
    assert read_amount(f"{currency} {write_amount(minor, currency)}", currency) == minor


@given(st.text(max_size=60), st.sampled_from(sorted(MINOR_DIGITS)), st.sampled_from(sorted(MARKS)))
def test_no_text_is_more_than_refused(text: str, currency: str, mark: str) -> None:
    for amount_text in (text, f"{mark}{text}", f"{text} {mark}"):
        amount(amount_text, currency)
        moment(amount_text)
        decide_decimal([amount_text], currency)
        decide_order([amount_text])


def test_the_decimal_mark_is_that_of_amounts_which_can_be_read_in_one_way_only() -> None:
    table = {
        ("1.234,50", "7"): (",", False),
        ("35,00",): (",", False),
        ("1,234",): (".", False),
        ("1.234",): (",", False),
        ("1.5", "1,5"): (".", True),
        ("a lot", "12"): (".", False),
    }
    for texts, decided in table.items():
        assert decide_decimal(texts, "EUR") == decided, texts
    assert decide_decimal(["12.500"], "KWD") == (".", False)
    assert decide_decimal(["12,500"], "KWD") == (".", True)
    assert decide_decimal(["12,500", "1,5"], "KWD") == (",", False)


def test_every_space_of_unicode_is_a_space() -> None:
    for space in SPACES:
        assert amount(f"1{space}234.50{space}", "USD") == 123_450, hex(ord(space))
        assert moment(f"{space}11/21/2026{space}2:05{space}PM", "mdy") == "2026-11-21T20:05:00Z", hex(ord(space))
    assert clean("\u00a0 a\u202f\u2009b ") == "a b"


@pytest.mark.parametrize(
    ("text", "order", "at"),
    [
        ("2026-11-21", "iso", "2026-11-21T06:00:00Z"),
        ("2026-11-21 14:05", "mdy", "2026-11-21T20:05:00Z"),
        ("2026/11/21 2:05:06 PM", "dmy", "2026-11-21T20:05:06Z"),
        ("2026-11-21T10:00:00.250Z", "iso", "2026-11-21T10:00:00.250000Z"),
        ("2026-11-21T10:00:00+0530", "iso", "2026-11-21T04:30:00Z"),
        ("11/21/2026", "mdy", "2026-11-21T06:00:00Z"),
        ("21.11.2026 14:05", "dmy", "2026-11-21T20:05:00Z"),
        ("21/11/2026", "mdy", "date_invalid"),
        ("13/45/2026", "mdy", "date_invalid"),
        ("13/45/2026", "dmy", "date_invalid"),
        ("11/21/2026", "iso", "date_invalid"),
        ("11/21-2026", "mdy", "date_invalid"),
        ("31.02.2026", "dmy", "date_invalid"),
        ("2026-11-21 13:05 pm", "iso", "date_invalid"),
        ("2026-11-21 24:00", "iso", "date_invalid"),
        ("yesterday", "iso", "date_invalid"),
        ("46347", "iso", "date_invalid"),
        ("0001-01-01T00:00:00+14:00", "iso", "date_invalid"),
        ("9999-12-31T23:59:59-14:00", "iso", "date_invalid"),
        ("1999-12-31", "iso", "out_of_range"),
    ],
)
def test_a_day_or_time_is_read_exactly_or_not_at_all(text: str, order: str, at: str) -> None:
    assert moment(text, order) == at


def test_an_hour_that_comes_twice_or_never_is_not_guessed() -> None:
    assert moment("2026-11-01 01:30") == "time_ambiguous"
    assert moment("2026-11-01 00:59") == "2026-11-01T05:59:00Z"
    assert moment("2026-11-01 02:00") == "2026-11-01T08:00:00Z"
    assert moment("2026-11-01 01:30 -05:00") == "2026-11-01T06:30:00Z"
    assert moment("2026-11-01 01:30-0600") == "2026-11-01T07:30:00Z"
    assert moment("2026-03-08 02:30") == "time_skipped"
    assert moment("2026-03-08 03:00") == "2026-03-08T08:00:00Z"


def test_a_day_begins_at_its_first_moment_even_where_its_midnight_is_left_out_or_comes_twice() -> None:
    santiago, havana = ZoneInfo("America/Santiago"), ZoneInfo("America/Havana")
    assert moment("2026-09-06", zone=santiago) == "2026-09-06T04:00:00Z"
    assert moment("2026-11-01", zone=havana) == "2026-11-01T04:00:00Z"
    assert read_moment("2026-11-01", "iso", havana).at == datetime(2026, 11, 1, 4, tzinfo=UTC)


def test_the_order_of_day_and_month_is_that_of_dates_which_can_be_read_in_one_way_only() -> None:
    table = {
        ("03/04/2026", "13/45/2026", "11/21/2026"): ("mdy", False),
        ("03/04/2026", "21/11/2026"): ("dmy", False),
        ("03/04/2026",): ("mdy", True),
        ("03/04/2026", "13/45/2026"): ("mdy", True),
        ("03.04.2026",): ("dmy", False),
        ("03/03/2026",): ("mdy", False),
        ("13/1/2026", "1/13/2026"): ("mdy", True),
        ("2026-03-04", "yesterday"): ("iso", False),
    }
    for texts, decided in table.items():
        assert decide_order(texts) == decided, texts


def test_an_id_that_a_spreadsheet_has_shortened_is_refused() -> None:
    for text in ("1.23457E+15", "1,23457E+15", "1.55E+10", "5E+09", "########", "#REF!", "#N/A"):
        with pytest.raises(CellFault, match="mangled_by_spreadsheet"):
            read_id(text)
    for text in ("1234570000000000", "E-15", "A1.5E+3X", "#12", "12E", "3E4567"):
        assert read_id(text) == text
