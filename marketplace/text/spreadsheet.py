"""Rows as CSV that a spreadsheet shows and never runs."""

import csv
import io
import unicodedata
from collections.abc import Iterable
from datetime import date
from typing import Final

import msgspec

from marketplace.text.characters import first_visible

FORMULA_STARTS: Final = ("=", "+", "-", "@")
"A text that begins with one of these is run as a formula by common spreadsheets; a quote before it makes it text."


def as_csv(rows: Iterable[msgspec.Struct], columns: tuple[str, ...]) -> str:
    """Return these fields of the rows as `write_csv` does, each column under its field's name."""
    return write_csv(columns, ([getattr(row, column) for column in columns] for row in rows))


def write_csv(header: Iterable[str], rows: Iterable[Iterable[str | float | date | None]]) -> str:
    """Return rows as CSV (RFC 4180) with a header line; every text is safe to open in a spreadsheet."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([cell(value) for value in row] for row in rows)
    return out.getvalue()


def cell(value: str | float | date | None) -> str | float:
    """A number as it is, a time in RFC 3339, nothing as an empty cell, a text as one that is never a formula."""
    match value:
        case None:
            return ""
        case int() | float():
            return value
        case date():  # a time is one too
            return value.isoformat().replace("+00:00", "Z")
        case str():
            return f"'{value}" if _may_be_formula(value) else value


def _may_be_formula(text: str) -> bool:
    """Whether a text begins as a formula does, by the first character that can be seen.

    Programs drop white space, control characters and zero-width ones before they look, and some take full-width and
    other compatibility forms for the sign itself. A text that begins with a line break or a tab is guarded in any case:
    it may end the cell.
    """
    if text.startswith(("\t", "\r", "\n")):
        return True
    return unicodedata.normalize("NFKC", first_visible(text)).startswith(FORMULA_STARTS)
