"""Cells that a spreadsheet shows and never runs."""

import csv
import io
from datetime import UTC, datetime

import msgspec
import pytest

from marketplace.text.spreadsheet import FORMULA_STARTS, as_csv, cell

STARTS = (*FORMULA_STARTS, "\uff1d", "\uff0b", "\uff0d", "\uff20", "\ufe62", "\ufe63", "\ufe66", "\ufe6b", "\u207a")
"The signs, and their full-width, small and raised forms."

UNSEEN = ("", " ", "  ", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u200e\u202a", "\u2060\u00ad", "\x00\x7f", "\u3164",
          "\ufe0f", "\u0301", " \t ", "\u2800")  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("before", UNSEEN)
def test_no_text_in_a_cell_begins_like_a_formula_whatever_unseen_stands_before(before: str, start: str) -> None:
    text = f"{before}{start}HYPERLINK(1)"
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["\t1", "\r1", "\n=1"])
def test_a_text_that_may_end_its_cell_is_guarded(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", " ", "a=b", " plain", "\u200bZoë", "1-2", "(=)", "'=1"])
def test_any_other_text_stays_as_it_is(text: str) -> None:
    assert cell(text) == text


def test_numbers_times_and_nothing_stay_what_they_are() -> None:
    assert (cell(-5), cell(-0.5), cell(None)) == (-5, -0.5, "")
    assert cell(datetime(2026, 11, 29, 10, tzinfo=UTC)) == "2026-11-29T10:00:00Z"


class Line(msgspec.Struct):
    name: str
    amount: int


def test_a_table_is_guarded_cell_by_cell() -> None:
    text = as_csv([Line("\u200b=1+1", -5)], ("name", "amount"))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["name", "amount"], ["'\u200b=1+1", "-5"]]
