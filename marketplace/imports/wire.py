"""Imports as they are shown: how far one has come, and what became of each row."""

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

SHOWN_ROWS: Final = 1_000
"Rows of one outcome that an answer lists; all rows are in pages and in a file of their own."


class Subject(StrEnum):
    """What the rows of a file are."""

    shared_leads = "shared_leads"
    """Leads that the business bought elsewhere."""
    dispositions = "dispositions"
    """What became of leads that it bought here."""


class ImportState(StrEnum):
    """Where an import stands."""

    previewed = "previewed"
    """Looked at, and not begun."""
    running = "running"
    """Rows wait."""
    done = "done"
    """Every row was judged."""
    failed = "failed"
    """Given up after several tries; what was taken until then stays, and can be undone."""
    undoing = "undoing"
    """Rows that were taken are being taken back."""
    undone = "undone"
    """Nothing that it took counts any more."""


class RowOutcome(StrEnum):
    """What became of one row."""

    taken = "taken"
    """Kept."""
    known = "known"
    """The same was kept before; nothing was changed."""
    conflict = "conflict"
    """Something else was kept before under the same id; nothing was changed."""
    refused = "refused"
    """It has a fault."""


class RowResult(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was not taken: its number (the header is row 1), the column at fault, and how to mend it."""

    row: int
    column: str | None
    code: str
    detail: str


class ImportRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one row. `label` is what the business knows it by: the vendor's number, the lead's id."""

    row: int
    outcome: RowOutcome
    label: str
    column: str | None
    code: str | None
    detail: str | None


class ShownImport(msgspec.Struct, frozen=True, kw_only=True):
    """One import and how far it has come: `position` of `rows`, which the four counts add up to."""

    id: str
    business_id: str
    subject: Subject
    source: str
    state: ImportState
    rows: int
    position: int
    taken: int
    known: int
    conflicts: int
    refused: int
    undone: int
    made_at: datetime
    ended_at: datetime | None
    undone_at: datetime | None
