"""Pages of lists: people who must not be contacted for an operator, own customers for a business.

Both show the lists with their age and the last imports, and take a file. What differs is in `ListPages`.
"""

from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory.wire import Name
from marketplace.portal.forms import ShownForm, label, show_form, upload
from marketplace.portal.frame import badge
from marketplace.portal.listing import Column, Listing, only_in_file
from marketplace.portal.paging import list_limit, next_page
from marketplace.runtime import clock, errors, ids
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists import store as lists_store
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.http import LARGEST_UPLOAD, import_upload
from marketplace.suppression_lists.store import ContactList, ImportWay, ListImport, ListKind, ListTerms, NamedImport
from marketplace.text.faults import Fault
from marketplace.web.http import AnyRequest, page_cursor, path_id, services

BODY_BYTES: Final = LARGEST_UPLOAD + 65_536
CSV_LINES: Final = 10_000
SHOWN_IMPORTS: Final = 20

WAYS: Final = ((ImportWay.whole, "The file is the whole list"), (ImportWay.add, "Add the rows of the file"))
STATES: Final = {"running": "busy", "done": "good", "failed": "bad", "undone": "muted"}
FAILURES: Final = {
    "file_cut": "The file was cut off.",
    "no_rows": "The file had no phone number, address or hash.",
    "mostly_faulty": "Most rows could not be read.",
    "much_smaller": "The file had less than half of the list.",
    "interrupted": "It was interrupted.",
    "list_removed": "The list was removed.",
}

Way = ImportWay
Smaller = Annotated[bool, label("The file is complete, although it has less than half of the list")]
Country = Annotated[
    str, Meta(pattern=r"^[A-Z]{2}$", extra={"maxlength": 2}), label("Country, for phone numbers without +")
]


class UploadForm(msgspec.Struct, frozen=True, kw_only=True):
    """A file for a list, which is made if there is none of this name. The file itself is read beside it."""

    name: Annotated[Name, label("Name of the list", "A list of this name is changed; otherwise it is made.")]
    way: Annotated[Way, label("Rows")] = ImportWay.whole
    country: Country = "US"
    smaller: Smaller = False


class OperatorUploadForm(UploadForm, frozen=True, kw_only=True):
    """The same with the settings of a list for everybody."""

    maximum_age_days: Annotated[int, Meta(ge=1, le=3_650), label("Outdated after, in days")] = 31
    stops_sales: Annotated[bool, label("Sell no lead while the list is outdated")] = False


def age_cell(row: ContactList) -> object:
    """Return the day of the last refresh, with a warning for an outdated list."""
    if row.refreshed_at is None:
        return badge("never filled", "warn")
    outdated = lists_flow.is_stale(row, clock.now())
    return row.refreshed_at, badge("outdated", "warn") if outdated else ""


LISTS: Final = Listing[ContactList](
    caption="Lists",
    name="lists",
    columns=(
        Column("List", lambda row: row.name, file="name", names_row=True),
        Column("Members", lambda row: row.members, file="members", style="num"),
        Column("Version", lambda row: row.version, file="version", style="num"),
        Column(
            "Last change",
            age_cell,
            file="refreshed_at",
            value=lambda row: row.refreshed_at.isoformat() if row.refreshed_at else None,
        ),
        only_in_file("kind", lambda row: row.kind),
        only_in_file("maximum_age_days", lambda row: row.maximum_age_days),
        only_in_file("stops_sales", lambda row: row.stops_sales),
    ),
)

IMPORTS: Final = Listing[NamedImport](
    caption="Last imports",
    columns=(
        Column("Started", lambda row: row.made_at),
        Column("List", lambda row: row.list_name),
        Column("State", lambda row: (badge(row.state, STATES[row.state]), FAILURES.get(row.failure or "", ""))),
        Column("Rows", lambda row: row.rows, style="num"),
        Column("New", lambda row: row.added, style="num"),
        Column("Left the list", lambda row: row.removed, style="num"),
        Column("Repeated", lambda row: row.repeated, style="num"),
        Column("Unreadable", lambda row: row.faulty, style="num"),
    ),
)


class ListsOnPage(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a page of lists."""

    lists: tuple[ContactList, ...]
    imports: tuple[NamedImport, ...]
    next_cursor: str | None

    def can_undo(self, row: NamedImport) -> bool:
        """Return whether an import is the last one of its list."""
        return any(each.id == row.list_id and each.version == row.version for each in self.lists) and (
            row.state == lists_store.ListImportState.done
        )


async def load_lists(
    request: AnyRequest, kind: ListKind, business_id: UUID | None, *, as_file: bool = False
) -> ListsOnPage:
    """Return the lists of a page, newest first, and the last imports into any of them."""
    limit = CSV_LINES if as_file else list_limit(request)
    async with session(services(request).pool) as connection:
        rows = await lists_store.list_lists(connection, kind, business_id, page_cursor(request, "list"), limit + 1)
        imports = await lists_store.list_named_imports(connection, kind, business_id, SHOWN_IMPORTS)
    next_cursor = next_page("list", [row.id for row in rows], limit)
    return ListsOnPage(lists=rows[:limit], imports=imports, next_cursor=next_cursor)


def show_upload(shape: type[UploadForm], name: str) -> ShownForm:
    """Return the form for a file, with the usual name of a list."""
    values = {"name": name, "way": ImportWay.whole, "country": "US", "maximum_age_days": 31}
    return show_form(shape, values, {"way": WAYS})


async def import_form(
    request: AnyRequest, actor: str, kind: ListKind, business_id: UUID | None, form: UploadForm
) -> ListImport:
    """Import the file of a form into the list of its name, which is made if it is new.

    Raises InvalidInput, with the fault at the file if it cannot be imported, and Conflict.
    """
    resources, raw = services(request), await upload(request, "file", LARGEST_UPLOAD)
    async with session(resources.pool) as connection:
        contact_list = await lists_store.find_named_list(connection, kind, business_id, form.name)
    terms = ListTerms()
    if isinstance(form, OperatorUploadForm):
        terms = ListTerms(maximum_age_days=form.maximum_age_days, stops_sales=form.stops_sales)
    if contact_list is None:
        contact_list = await lists_flow.make_list(resources.pool, actor, kind, business_id, form.name, terms)
    options = ImportOptions(way=form.way, country=form.country, accepts_smaller=form.smaller)
    try:
        return await import_upload(resources.pool, resources.sealer, actor, contact_list, raw, "upload.csv", options)
    except errors.InvalidInput as error:
        faults = (Fault(pointer="/file", code=fault.code, detail=fault.detail) for fault in error.faults)
        raise errors.InvalidInput(faults, error.detail) from error


def result_in_words(run: ListImport) -> str:
    """Return the result of an import as a sentence for the page."""
    unreadable = f" {run.faulty:,} could not be read." if run.faulty else ""
    return (
        f"{run.rows:,} rows: {run.added:,} new, {run.removed:,} left the list, {run.repeated:,} repeated.{unreadable}"
    )


async def load_own_list(request: AnyRequest, list_id: str, kind: ListKind, business_id: UUID | None) -> ContactList:
    """Return a list of the page's user. Raises NotFound."""
    contact_list = await lists_flow.load_list(services(request).pool, path_id("list", list_id), business_id)
    if contact_list.kind is not kind:
        raise errors.NotFound("There is no such list.")
    return contact_list


def address_of(home: str, contact_list_id: UUID) -> str:
    """Return the address of the actions of a list."""
    return f"{home}/{ids.encode('list', contact_list_id)}"
