"""Reading the whole file before anything is sent: whatever is wrong with it is said first, in a sentence."""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from marketplace.demo import contacts
from marketplace.replay.mapping import Draft, Plan, RowFault, draft
from marketplace.settings import StartError


def read_rows(path: Path, plan: Plan, as_of: datetime, limit: int | None = None) -> list[Draft]:
    """The inquiries of the file's first `limit` rows, or of all. Raises StartError where nothing should be sent."""
    reader = csv.DictReader(io.StringIO(_text(path, plan.encoding), newline=""), delimiter=plan.delimiter, strict=True)
    present = reader.fieldnames or ()
    missing = [column for column in plan.columns() if column not in present]
    if missing:
        raise StartError(
            "columns_missing",
            f"{path.name} has no column {', '.join(missing)}.",
            f"Its columns are: {', '.join(present) or 'none'}. Name them in the mapping as they are written there.",
        )
    drafts = list(_drafts(reader, plan, as_of, limit, path))
    if not drafts:
        raise StartError(
            "file_empty", f"{path.name} has no rows.", "Name a file with a row of headings and rows below."
        )
    return drafts


def _text(path: Path, encoding: str) -> str:
    try:
        return path.read_bytes().decode(encoding)
    except OSError as error:
        raise StartError("file_missing", f"{path} cannot be read ({error.strerror}).", "Name a CSV file.") from error
    except UnicodeDecodeError as error:
        raise StartError(
            "encoding_wrong",
            f"{path.name} is not {encoding}: byte {error.start:,} cannot be read.",
            'Say in the mapping what it is, for instance encoding = "cp1252".',
        ) from error
    except LookupError as error:
        raise StartError("encoding_unknown", f"{encoding} is no encoding.", "Try utf-8 or cp1252.") from error


def _drafts(
    reader: "csv.DictReader[str]", plan: Plan, as_of: datetime, limit: int | None, path: Path
) -> Iterator[Draft]:
    seen: dict[str, int] = {}
    rows = iter(reader)
    while limit is None or len(seen) < limit:
        number = len(seen) + 1
        try:
            row = next(rows)
            found = draft(plan, _whole(row), number, as_of)
        except StopIteration:
            return
        except (RowFault, csv.Error) as fault:
            raise _refused(path, number, str(fault)) from fault
        except IndexError as fault:
            most = f"{contacts.phone_count():,}"
            raise StartError(
                "file_too_long", f"Only {most} invented people can be made.", f"Say --limit {most}."
            ) from fault
        if not found.id or found.id in seen:
            what = f"has the id of row {seen[found.id]}" if found.id else f"has no {plan.id_column}"
            raise _refused(path, number, what)
        seen[found.id] = number
        yield found


def _whole(row: dict[str, str]) -> dict[str, str]:
    """Raises RowFault where the row has more or fewer cells than there are columns."""
    if None in row or None in row.values():
        raise RowFault("it has not as many cells as there are columns")
    return row


def _refused(path: Path, number: int, fault: str) -> StartError:
    return StartError(
        "row_unreadable", f"{path.name}, row {number:,}: {fault}.", "Nothing was sent. Mend the file or the mapping."
    )
