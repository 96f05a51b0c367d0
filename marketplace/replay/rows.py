"""Reads the whole file before anything is sent, and reports its first fault."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final

from marketplace.demo import contacts
from marketplace.imports.cells import CellFault, read_id
from marketplace.imports.table import Table
from marketplace.replay.mapping import DraftRow, MappingPlan, UnreadableRow, draft
from marketplace.runtime.errors import BodyTooLarge, InvalidInput
from marketplace.runtime.settings import StartError

MOST_ROWS: Final = 1_000_000
"Most rows of a file. Drafts are held in memory, about a kilobyte each."


def read_rows(path: Path, plan: MappingPlan, as_of: datetime, limit: int | None = None) -> list[DraftRow]:
    """Return the inquiries of the file's first `limit` rows, or of all.

    Raises StartError if the file or a row cannot be read; nothing should be sent then.
    """
    table = _table(path, plan)
    present = table.header
    missing = [column for column in plan.columns() if column not in present]
    if missing:
        raise StartError(
            "columns_missing",
            f"{path.name} has no column {', '.join(missing)}.",
            f"Its columns are: {', '.join(present) or 'none'}. Name them in the mapping as they are written there.",
        )
    drafts = list(_drafts(table, plan, as_of, limit, path))
    if not drafts:
        raise StartError(
            "file_empty", f"{path.name} has no rows.", "Name a file with a row of headings and rows below."
        )
    return drafts


def _table(path: Path, plan: MappingPlan) -> Table:
    try:
        raw = path.read_bytes()
        raw.decode(plan.encoding)
        return Table(raw, encoding=plan.encoding, delimiter=plan.delimiter, most_rows=MOST_ROWS)
    except OSError as error:
        raise StartError("file_missing", f"{path} cannot be read ({error.strerror}).", "Name a CSV file.") from error
    except UnicodeDecodeError as error:
        raise StartError(
            "encoding_wrong",
            f"{path.name} is not {plan.encoding}: byte {error.start:,} cannot be read.",
            'Say in the mapping what it is, for instance encoding = "cp1252".',
        ) from error
    except LookupError as error:
        raise StartError("encoding_unknown", f"{plan.encoding} is no encoding.", "Try utf-8 or cp1252.") from error
    except InvalidInput as error:
        raise StartError("file_unreadable", f"{path.name} is no table.", error.faults[0].detail) from error
    except BodyTooLarge as error:
        raise StartError("file_too_long", f"{path.name} has too many rows.", error.detail) from error


def _drafts(table: Table, plan: MappingPlan, as_of: datetime, limit: int | None, path: Path) -> Iterator[DraftRow]:
    numbers: dict[str, int] = {}
    for line in islice(table.lines(), limit):
        number = len(numbers) + 1
        if line.fault is not None:
            raise _refused(path, number, line.fault.detail.rstrip("."))
        try:
            row = dict(zip(table.header, line.cells, strict=True))
            read_id(row[plan.id_column])
            inquiry = draft(plan, row, number, as_of)
        except (UnreadableRow, CellFault) as fault:
            raise _refused(path, number, getattr(fault, "detail", str(fault)).rstrip(".")) from fault
        except IndexError as fault:
            most = f"{contacts.phone_count():,}"
            raise StartError(
                "file_too_long", f"Only {most} invented people can be made.", f"Say --limit {most}."
            ) from fault
        if not inquiry.id or inquiry.id in numbers:
            what = f"has the id of row {numbers[inquiry.id]}" if inquiry.id else f"has no {plan.id_column}"
            raise _refused(path, number, what)
        numbers[inquiry.id] = number
        yield inquiry


def _refused(path: Path, number: int, fault: str) -> StartError:
    return StartError(
        "row_unreadable", f"{path.name}, row {number:,}: {fault}.", "Nothing was sent. Correct the file or the mapping."
    )
