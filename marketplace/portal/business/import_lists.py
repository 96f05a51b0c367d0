"""Lists of a business's imports, and of the rows of an import."""

from typing import Final

from markupsafe import Markup

from marketplace.imports.store import Import, RowJudgement
from marketplace.imports.wire import ImportState, ImportSubject, RowOutcome
from marketplace.portal.frame import badge
from marketplace.portal.listing import Column, Link, Listing, only_in_file
from marketplace.runtime import ids

FIELD_NAMES: Final[dict[str, str]] = {
    "vendor": "Vendor",
    "external_id": "Lead number",
    "vertical": "Service",
    "postal_code": "ZIP code",
    "received_at": "Received",
    "cost": "Price",
    "contacted_at": "First contacted",
    "qualified": "Qualified",
    "won_at": "Won on",
    "won_value": "Value of the job",
    "lost_at": "Lost on",
    "status": "Status",
    "currency": "Currency",
}
SUBJECTS: Final = {ImportSubject.shared_leads: "Shared leads", ImportSubject.dispositions: "Outcomes"}
STATE_TONES: Final = {
    ImportState.done: "good",
    ImportState.failed: "bad",
    ImportState.running: "busy",
    ImportState.undoing: "busy",
}
OUTCOMES: Final = {
    RowOutcome.taken: ("Imported", "good"),
    RowOutcome.repeated: ("Already recorded", "muted"),
    RowOutcome.conflict: ("In conflict", "warn"),
    RowOutcome.refused: ("Refused", "bad"),
}
"Each outcome of a row in words, and the tone of its badge."


def _outcome(row: RowJudgement) -> Markup:
    return badge(*OUTCOMES[row.outcome])


IMPORTS: Final = Listing[Import](
    caption="Imports",
    columns=(
        Column("Started", lambda run: Link(f"/business/imports/{ids.encode('imp', run.id)}", run.made_at)),
        Column("Subject", lambda run: SUBJECTS[run.subject]),
        Column("State", lambda run: badge(run.state, STATE_TONES.get(run.state, "muted"))),
        Column("Rows", lambda run: run.rows, style="num"),
        Column("Imported", lambda run: run.taken, style="num"),
        Column("Already recorded", lambda run: run.repeated, style="num"),
        Column("In conflict", lambda run: run.conflicts, style="num"),
        Column("Refused", lambda run: run.refused, style="num"),
    ),
)

ROWS: Final = Listing[RowJudgement](
    caption="Rows",
    name="import-rows",
    columns=(
        Column("Row", lambda row: str(row.number), file="row", value=lambda row: row.number, style="num"),
        Column("Lead", lambda row: row.label or None, file="label", value=lambda row: row.label),
        Column("Result", _outcome, file="outcome", value=lambda row: row.outcome),
        Column(
            "Column",
            lambda row: FIELD_NAMES.get(row.field, row.field) if row.field else None,
            file="column",
            value=lambda row: row.field,
        ),
        only_in_file("code", lambda row: row.code),
        Column("What to do", lambda row: row.detail, file="detail"),
    ),
    order=("row", "outcome", "label", "column", "code", "detail"),
)
