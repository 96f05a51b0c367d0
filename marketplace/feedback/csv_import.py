"""A file of dispositions, as a CRM writes it: each row a report of its own, so that a bad one harms no other."""

import csv
import io
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import msgspec

from marketplace.errors import BodyTooLarge, InvalidInput, MarketplaceError, UnreadableBody
from marketplace.faults import Code, Fault, read
from marketplace.feedback.flow import Recorded, Told
from marketplace.feedback.wire import BadRow, Imported, ReportBody, lead_ids
from marketplace.problems import describe

LARGEST_FILE: Final = 1_048_576
"Bytes: 5,000 rows of 200, which hold a sentence each."
MOST_ROWS: Final = 5_000
COLUMNS: Final = ReportBody.__struct_fields__
LONGEST_DIGITS: Final = 19
"What is longer is no amount of money; it stays text, and is refused as such."


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row by its number, the header being 1: what it tells, or what is wrong with it."""

    number: int
    told: Told | None
    fault: BadRow | None


def read_file(raw: bytes) -> tuple[Row, ...]:
    """Every row of the file, blank lines left out.

    Raises UnreadableBody where it is no CSV in UTF-8, InvalidInput for its header, BodyTooLarge for its rows.
    """
    try:
        text = raw.decode("utf-8-sig")
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        header = [name.strip().lower() for name in next(lines, [])]
        _check_header(header)
        rows = tuple(_row(number, header, cells) for number, cells in _numbered(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        detail = "Send CSV in UTF-8 with a header line and quotes where a cell holds a comma, a quote or a line end."
        raise UnreadableBody((Fault(pointer="", code="csv_unreadable", detail=detail),), detail) from error
    return rows


def _delimiter(text: str) -> str:
    """Spreadsheets write semicolons where the comma is a decimal point."""
    header = text.partition("\n")[0]
    return ";" if header.count(";") > header.count(",") else ","


def _numbered(lines: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    taken = 0
    for number, cells in enumerate(lines, 2):
        if any(cell.strip() for cell in cells):
            taken += 1
            if taken > MOST_ROWS:
                raise BodyTooLarge(f"Send at most {MOST_ROWS:,} rows in one file.")
            yield number, cells


def _check_header(header: list[str]) -> None:
    known = ", ".join(COLUMNS)
    faults = [
        Fault(pointer=f"/{at}", code=Code.unknown_field, detail=f"Name each column once, among {known}.")
        for at, name in enumerate(header)
        if name not in COLUMNS or name in header[:at]
    ]
    if not {"lead_id", "assignment_id"} & set(header):
        detail = "Say which lead is meant: a column lead_id or assignment_id."
        faults.append(Fault(pointer="/lead_id", code=Code.field_missing, detail=detail))
    if not {"kind", "stage"} & set(header):
        detail = "Say what became of it: a column kind or stage."
        faults.append(Fault(pointer="/kind", code=Code.field_missing, detail=detail))
    if "happened_at" not in header:
        detail = "Say when it happened: a column happened_at, such as 2026-11-21T10:00:00Z."
        faults.append(Fault(pointer="/happened_at", code=Code.field_missing, detail=detail))
    if faults:
        raise InvalidInput(faults)


def _row(number: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        detail = f"This row has {len(cells)} cells and the header {len(header)}; put cells with commas in quotes."
        return Row(number=number, told=None, fault=_bad(number, None, "cells_differ", detail))
    given = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}
    if "happened_at" not in given:
        detail = "Say when it happened, such as 2026-11-21T10:00:00Z."
        return Row(number=number, told=None, fault=_bad(number, "happened_at", Code.field_missing, detail))
    found = read(msgspec.json.encode({name: _value(name, cell) for name, cell in given.items()}), ReportBody)
    if isinstance(found, tuple):
        return Row(number=number, told=None, fault=_from_fault(number, found[0]))
    lead_id, assignment_id = lead_ids(found)
    body = msgspec.structs.replace(found, event_id=found.event_id or _event(given))
    return Row(number=number, told=Told(body=body, lead_id=lead_id, assignment_id=assignment_id), fault=None)


def _value(name: str, cell: str) -> str | int:
    digits = cell.removeprefix("-")
    is_number = name == "value_minor" and digits.isascii() and digits.isdecimal() and len(digits) <= LONGEST_DIGITS
    return int(cell) if is_number else cell


def _event(given: dict[str, str]) -> str:
    """What the row says is what it is known by, so that the same file sent again records nothing twice."""
    return f"csv:{sha256(msgspec.json.encode(sorted(given.items()))).hexdigest()[:40]}"


def _bad(number: int, column: str | None, code: str, detail: str) -> BadRow:
    return BadRow(row=number, column=column, code=code, detail=detail)


def _from_fault(number: int, fault: Fault) -> BadRow:
    return _bad(number, fault.pointer.removeprefix("/") or None, fault.code, fault.detail)


def report_back(rows: tuple[Row, ...], outcomes: tuple[Recorded | MarketplaceError, ...]) -> Imported:
    """What became of the file; `outcomes` are those of the rows that could be read, in their order."""
    readable = iter(outcomes)
    recorded = repeated = 0
    rejected = []
    for row in rows:
        if row.fault is not None:
            rejected.append(row.fault)
            continue
        match next(readable):
            case Recorded(fresh=fresh):
                recorded, repeated = recorded + fresh, repeated + (not fresh)
            case InvalidInput(faults=faults):
                rejected.append(_from_fault(row.number, faults[0]))
            case refused:
                problem = describe(refused, "")
                rejected.append(_bad(row.number, None, problem.code, problem.detail))
    return Imported(recorded=recorded, repeated=repeated, rejected=tuple(rejected))
