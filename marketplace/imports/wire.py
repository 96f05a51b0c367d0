"""Imports in the form that the API returns: progress, and the outcome of each row."""

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

SHOWN_ROWS: Final = 1_000
"Limit of the rows of one outcome in an answer. All rows are listed by pages and as a CSV file."


class ImportSubject(StrEnum):
    """Kinds of imported files, by what their rows are."""

    shared_leads = "shared_leads"
    """Leads that the business bought elsewhere."""
    dispositions = "dispositions"
    """Dispositions of leads that it bought here."""


class ImportState(StrEnum):
    """States of an import."""

    previewed = "previewed"
    """The file was previewed; the import has not begun."""
    running = "running"
    """Some rows are not imported yet."""
    done = "done"
    """Every row was judged."""
    failed = "failed"
    """The import ended after several failures. Rows imported before are kept, and can be undone."""
    undoing = "undoing"
    """The imported rows are being removed."""
    undone = "undone"
    """The imported rows are removed and no longer counted."""


class RowOutcome(StrEnum):
    """Outcomes of one row."""

    taken = "taken"
    """The row was imported."""
    repeated = "known"
    """The same row was imported before; nothing changed."""
    conflict = "conflict"
    """A different row was imported before under the same id; nothing changed."""
    refused = "refused"
    """The row has a fault."""


class RowRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was not imported: its number (the header is row 1), the column at fault, and the remedy."""

    row: int
    column: str | None
    code: str
    detail: str


class ImportRow(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of one row. `label` is how the business identifies it: the vendor's number or the lead's id."""

    row: int
    outcome: RowOutcome
    label: str
    column: str | None
    code: str | None
    detail: str | None


class ImportView(msgspec.Struct, frozen=True, kw_only=True):
    """One import. The first `position` of its `rows` were judged; the four counts of outcomes add up to `position`."""

    id: str
    business_id: str
    subject: ImportSubject
    source: str
    state: ImportState
    rows: int
    position: int
    taken: int
    repeated: int = msgspec.field(name="known")
    conflicts: int
    refused: int
    undone: int
    made_at: datetime
    ended_at: datetime | None
    undone_at: datetime | None
