"""Sources on the web of do-not-contact lists: their last and next refresh, and files that wait for confirmation."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory.wire import Name
from marketplace.portal.contact_lists import CSV_LINES, FAILURES, Country, load_own_list
from marketplace.portal.forms import changing, fill, label, show_again, show_form, submitted
from marketplace.portal.frame import badge, page, redirect
from marketplace.portal.listing import Column, Listing, code, only_in_file
from marketplace.portal.operator.compliance import TABS
from marketplace.portal.paging import next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists import source_store, sources
from marketplace.suppression_lists import store as lists_store
from marketplace.suppression_lists.source_store import SourceFormat, SourceRow, SourceSchedule, SourceSettings
from marketplace.suppression_lists.store import ListKind, ListTerms
from marketplace.web.http import AnyRequest, page_cursor, page_limit, services, wants_csv

HOME: Final = "/operator/compliance/list-sources"
KIND: Final = ListKind.do_not_contact
FORMATS: Final = (
    (SourceFormat.csv, "Rows of text (CSV)"),
    (SourceFormat.csv_gzip, "Rows of text, compressed by gzip"),
)
SCHEDULES: Final = (
    (SourceSchedule.hourly, "Every hour"),
    (SourceSchedule.daily, "Every day"),
    (SourceSchedule.weekly, "Every week"),
)
SOURCE_FAILURES: Final = FAILURES | {
    "address_refused": "The address is not on the public internet, or redirects to one that is not.",
    "not_reached": "The server could not be reached, or its certificate is not valid.",
    "too_late": "The server did not answer in time.",
    "cut": "The connection ended before the file did.",
    "too_large": "The file is larger than 1 GB.",
    "redirected": "The server redirected too often.",
    "encoded": "The file has an encoding that was not requested.",
    "key_refused": "The server did not accept the key.",
    "not_found": "The server has no file at this address.",
    "busy": "The server had an error of its own.",
    "refused": "The server refused the request.",
    "format_differs": "The file is not in the stated format.",
    "field_missing": "The file has no column of phone numbers, addresses or hashes.",
    "list_busy": "Another file was being read into the list.",
}


class SourceForm(msgspec.Struct, frozen=True, kw_only=True):
    """A source for a list, which is made if there is none of this name."""

    name: Annotated[Name, label("Name of the list", "A list of this name gets this source; otherwise it is made.")]
    url: Annotated[
        str,
        Meta(min_length=1, max_length=2_048),
        label("Address of the file", "Begins with https://. A key belongs in the header, not in the address."),
    ]
    format: Annotated[SourceFormat, label("Format")] = SourceFormat.csv
    schedule: Annotated[SourceSchedule, label("Refresh")] = SourceSchedule.daily
    country: Country = "US"
    header_name: Annotated[
        Annotated[str, Meta(max_length=64)] | None, label("Header for a key", "For example Authorization or X-Api-Key.")
    ] = None
    header_value: Annotated[
        Annotated[str, Meta(max_length=2_000, extra={"autocomplete": "off"})] | None,
        label("Value of the header", "Stored sealed, and never shown again.", kind="password"),
    ] = None
    maximum_age_days: Annotated[
        int, Meta(ge=1, le=3_650), label("Outdated after, in days", "For a list that is made now.")
    ] = 31
    stops_sales: Annotated[bool, label("Sell no lead while the list is outdated")] = False

    def header(self) -> tuple[str, str] | None:
        """Return the header with its key, or None. Raises InvalidInput for a half of one."""
        if self.header_name is None and self.header_value is None:
            return None
        name, value = self.header_name or "", self.header_value or ""
        sources.check_header(name, value)
        return name, value


class ConfirmForm(msgspec.Struct, frozen=True, kw_only=True):
    """Confirmation that a file with so many rows is complete."""

    rows: Annotated[int, Meta(ge=1, le=2**31 - 1)]


def _state_cell(row: SourceRow) -> tuple[object, ...]:
    """Return the state of a source, with the sentence that says what is wrong."""
    if row.leased_until is not None and row.leased_until > clock.now():
        return (badge("being refreshed", "busy"),)
    if row.smaller_rows is not None and row.confirmed_rows == row.smaller_rows:
        return (badge("confirmed", "busy"),)
    if row.smaller_rows is not None:
        sentence = (
            f"The file has {row.smaller_rows:,} rows and the list {row.members:,} members. "
            "The list stays as it is until you confirm that the file is complete."
        )
        return badge("confirm", "warn"), sentence
    if row.failure is not None:
        times = "once" if row.failures == 1 else f"{row.failures:,} times in a row"
        sentence = SOURCE_FAILURES.get(row.failure, "The file could not be imported.")
        return badge("failing", "bad"), f"{sentence} Failed {times}. The list is as it was."
    if row.checked_at is None:
        return (badge("not yet refreshed", "muted"),)
    return (badge("in order", "good"),)


def _next_cell(row: SourceRow) -> datetime | str:
    return "at once" if row.due_at <= clock.now() else row.due_at


LISTING: Final = Listing[SourceRow](
    caption="Sources",
    name="list-sources",
    columns=(
        Column("List", lambda row: row.name, file="name", names_row=True),
        Column("Address", lambda row: code(row.url), file="url", value=lambda row: row.url),
        Column("Refresh", lambda row: dict(SCHEDULES)[row.schedule], file="schedule", value=lambda row: row.schedule),
        Column("State", _state_cell),
        Column("Last refresh", lambda row: row.checked_at, file="checked_at"),
        Column("Next refresh", _next_cell, file="due_at", value=lambda row: row.due_at),
        only_in_file("format", lambda row: row.format),
        only_in_file("failures", lambda row: row.failures),
        only_in_file("failure", lambda row: row.failure),
        only_in_file("failed_at", lambda row: row.failed_at),
        only_in_file("smaller_rows", lambda row: row.smaller_rows),
    ),
)


@get(HOME)
async def show_sources(request: AnyRequest) -> Response[bytes]:
    """Show the sources on a page or as a file, those of the newest lists first."""
    viewer = await visitor(request, CallerKind.operator)
    if wants_csv(request):
        return await LISTING.download(await _load_rows(request, CSV_LINES))
    return await _page(request, viewer)


async def _load_rows(request: AnyRequest, limit: int) -> tuple[SourceRow, ...]:
    async with session(services(request).pool) as connection:
        return await source_store.list_sources(connection, page_cursor(request, "list"), limit)


async def _page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    limit = page_limit(request)
    rows = await _load_rows(request, limit + 1)
    values = {"format": SourceFormat.csv, "schedule": SourceSchedule.daily, "country": "US", "maximum_age_days": 31}
    return page(
        request,
        viewer,
        "operator/list_sources.html",
        tabs=TABS,
        home=HOME,
        form=show_form(SourceForm, values, {"format": FORMATS, "schedule": SCHEDULES}),
        listing=LISTING,
        rows=rows[:limit],
        address_of=lambda row: f"{HOME}/{ids.encode('list', row.list_id)}",
        next_cursor=next_page("list", [row.list_id for row in rows], limit),
    )


@post(HOME)
async def save_source(request: AnyRequest) -> Response[bytes]:
    """Set the source of the list of this name."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form = fill(SourceForm, fields)
        await _save(request, viewer, form)
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _page(request, viewer))
    return redirect(request, HOME, f"{form.name} is refreshed from this address, for the first time in a moment.")


async def _save(request: AnyRequest, viewer: Viewer, form: SourceForm) -> None:
    """Save a source, and make its list if it is new. Raises InvalidInput, and Conflict for a name used meanwhile."""
    resources, header = services(request), form.header()
    settings = SourceSettings(url=form.url.strip(), format=form.format, schedule=form.schedule, country=form.country)
    sources.check_url(resources.guard, settings.url)
    async with session(resources.pool) as connection:
        contact_list = await lists_store.find_named_list(connection, KIND, None, form.name)
    if contact_list is None:
        terms = ListTerms(maximum_age_days=form.maximum_age_days, stops_sales=form.stops_sales)
        contact_list = await lists_flow.make_list(resources.pool, viewer.actor, KIND, None, form.name, terms)
    await sources.save_source(
        resources.pool, resources.sealer, resources.guard, viewer.actor, contact_list, settings, header
    )


@post(f"{HOME}/{{list_id:str}}/refresh")
async def refresh(request: AnyRequest, list_id: FromPath[str]) -> Response[bytes]:
    """Have a source fetched now."""
    viewer, _ = await changing(request, CallerKind.operator)
    contact_list = await load_own_list(request, list_id, KIND, None)
    await sources.request_refresh(services(request).pool, viewer.actor, contact_list)
    return redirect(request, HOME, f"{contact_list.name} is refreshed in a moment.")


@post(f"{HOME}/{{list_id:str}}/confirm")
async def confirm(request: AnyRequest, list_id: FromPath[str]) -> Response[bytes]:
    """Confirm that a file is complete, although it has less than half of the list."""
    viewer, form = await submitted(request, ConfirmForm, CallerKind.operator)
    contact_list = await load_own_list(request, list_id, KIND, None)
    await sources.confirm_smaller(services(request).pool, viewer.actor, contact_list, form.rows)
    return redirect(request, HOME, f"Confirmed. {contact_list.name} is refreshed in a moment.")


@post(f"{HOME}/{{list_id:str}}/remove")
async def remove(request: AnyRequest, list_id: FromPath[str]) -> Response[bytes]:
    """Remove a source: its list stays, and is refreshed by files alone."""
    viewer, _ = await changing(request, CallerKind.operator)
    contact_list = await load_own_list(request, list_id, KIND, None)
    await sources.remove_source(services(request).pool, viewer.actor, contact_list)
    return redirect(request, HOME, f"The source of {contact_list.name} is removed. The list stays as it is.")


handlers: tuple[Any, ...] = (show_sources, save_source, refresh, confirm, remove)
