"""CSV that spreadsheets show without running formulas."""

import csv
import io
import unicodedata
from collections.abc import Iterable
from datetime import date
from typing import Final

import msgspec

from marketplace.text.characters import first_visible

FORMULA_STARTS: Final = ("=", "+", "-", "@")
"Spreadsheets run a text that begins with one of these as a formula; a quote before it prevents that."


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
    """Return a number unchanged, a time in RFC 3339, None as an empty cell, and a text that is never a formula."""
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
    """Return whether a spreadsheet may read the text as a formula, by its first visible character.

    Spreadsheets skip white space, control and zero-width characters, and some read full-width and other compatibility
    forms as the sign itself. A text that begins with a line break or a tab counts as well: it may end the cell.
    """
    if text.startswith(("\t", "\r", "\n")):
        return True
    return unicodedata.normalize("NFKC", first_visible(text)).startswith(FORMULA_STARTS)
