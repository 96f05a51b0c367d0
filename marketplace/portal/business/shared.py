"""Shared leads that the business bought elsewhere: a file, a look at how it is read, and then the import.

The file goes back and forth inside the page between the look and the import, packed, so that nothing is kept of one
that is not imported in the end.
"""

import base64
import binascii
import csv as plain
import io
import zlib
from typing import Final

import msgspec
from litestar import Response, get, post

from marketplace import errors, ids
from marketplace.auth import Kind
from marketplace.db import session
from marketplace.faults import Code
from marketplace.http import AnyRequest, page_cursor, page_limit, services, wants_csv
from marketplace.portal.business.leads import field_fault
from marketplace.portal.business.purse import business_page, load_purse
from marketplace.portal.business.reports import HOME as REPORTS
from marketplace.portal.business.reports import TABS
from marketplace.portal.forms import Given, changing, told, typed, upload
from marketplace.portal.frame import csv, redirect
from marketplace.portal.session import Viewer, visitor
from marketplace.shared_leads import flow, store
from marketplace.shared_leads.csv_import import File, guess
from marketplace.shared_leads.http import LARGEST_FILE
from marketplace.shared_leads.store import Buyer, SharedLead
from marketplace.shared_leads.wire import FIELDS, Field, Mapping

HOME: Final = f"{REPORTS}/shared-leads"
PREVIEWED: Final = 12
MOST_PACKED: Final = 2 * LARGEST_FILE

LABELS: Final[dict[str, str]] = {
    "vendor": "Bought from", "external_id": "Their lead number", "vertical": "Market", "postal_code": "ZIP code",
    "received_at": "Received", "cost": "Price", "contacted_at": "First contacted", "qualified": "Qualified",
    "won_at": "Won on", "won_value": "Job worth", "lost_at": "Lost on",
}  # fmt: skip


@get(HOME)
async def show_shared(request: AnyRequest) -> Response[bytes]:
    """Lists the shared leads that were brought in, and takes a file of more."""
    viewer = await visitor(request, Kind.business)
    return await _shared_page(request, viewer)


async def _shared_page(
    request: AnyRequest, viewer: Viewer, error: errors.MarketplaceError | None = None
) -> Response[bytes]:
    as_file = wants_csv(request)
    limit, after = 20_000 if as_file else page_limit(request), page_cursor(request, "shl")
    async with session(services(request).pool) as connection:
        purse = await load_purse(connection, viewer)
        rows = await store.list_leads(connection, viewer.owner, after, limit + 1)
    if as_file:
        return csv("shared-leads", rows[:limit], tuple(name for name in SharedLead.__struct_fields__ if name != "id"))
    faults = told(error) if isinstance(error, errors.InvalidInput) else {}
    return await business_page(
        request,
        viewer,
        "business/shared.html",
        status=422 if error else 200,
        purse=purse,
        rows=rows[:limit],
        tabs=TABS,
        next_cursor=ids.encode("shl", rows[limit - 1].id) if len(rows) > limit else None,
        faults=faults,
        wrong=error.detail if error and not faults else "",
    )


@post(f"{HOME}/preview", request_max_body_size=2 * MOST_PACKED)
async def preview(request: AnyRequest) -> Response[bytes]:
    """Shows how a file would be read; nothing is kept."""
    viewer, given = await changing(request, Kind.business)
    try:
        raw = _unpacked(given) or await upload(request, "file", LARGEST_FILE)
        return await _preview_page(request, viewer, raw, _mapping(given))
    except (errors.InvalidInput, errors.BodyTooLarge) as error:
        return await _shared_page(request, viewer, error)


async def _preview_page(request: AnyRequest, viewer: Viewer, raw: bytes, mapping: Mapping | None) -> Response[bytes]:
    pool = services(request).pool
    faults: dict[str, str] = {}
    try:
        found, buyer = await flow.read_file(pool, viewer.owner, raw, mapping)
    except errors.UnreadableBody:
        raise
    except errors.InvalidInput as error:
        faults = {name.replace("columns/", "column_"): detail for name, detail in told(error).items()}
        found, buyer = await _as_guessed(request, viewer, raw, mapping)
    return await business_page(
        request,
        viewer,
        "business/shared_preview.html",
        found=found,
        currency=buyer.currency,
        fields=FIELDS,
        labels=LABELS,
        shown=found.good[:PREVIEWED],
        packed=_packed(raw),
        faults=faults,
        choices=[("", "Not in the file"), *((name, name) for name in found.header if name)],
        tabs=TABS,
        status=422 if faults else 200,
    )


async def _as_guessed(request: AnyRequest, viewer: Viewer, raw: bytes, mapping: Mapping | None) -> tuple[File, Buyer]:
    """A file whose mapping has faults, with nothing understood: only its header, to choose columns from."""
    text = raw.decode("utf-8-sig")
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    lines = list(plain.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    header = tuple(name.strip() for name in lines[0])
    async with session(services(request).pool) as connection:
        buyer = await store.find_buyer(connection, viewer.owner)
    assert buyer is not None
    chosen = mapping or guess(header, lines[1:200], buyer.zone)
    return File(mapping=chosen, header=header, good=(), refused=()), buyer


@post(f"{HOME}/import", request_max_body_size=2 * MOST_PACKED)
async def import_file(request: AnyRequest) -> Response[bytes]:
    """Keeps the good rows of the file that was looked at; the bad ones are shown with what to mend."""
    viewer, given = await changing(request, Kind.business)
    found = services(request)
    try:
        raw = _unpacked(given)
        if not raw:
            raise field_fault("file", Code.field_missing, "Choose a file.")
        done = await flow.import_file(found.pool, viewer.actor, viewer.owner, raw, _mapping(given))
    except (errors.InvalidInput, errors.BodyTooLarge) as error:
        return await _shared_page(request, viewer, error)
    if not done.refused:
        return redirect(request, HOME, f"{done.added:,} shared leads were added; {done.known:,} were known already.")
    return await business_page(request, viewer, "business/shared_done.html", done=done, tabs=TABS)


def _mapping(given: Given) -> Mapping | None:
    """The mapping that the preview's form says; None where none was sent."""
    values = typed(given)
    if "dates" not in values:
        return None
    columns: dict[Field, str] = {field: values[f"column_{field}"] for field in FIELDS if values.get(f"column_{field}")}
    try:
        return msgspec.convert(
            {"columns": columns, "dates": values["dates"], "decimal": values.get("decimal", "."),
             "zone": values.get("zone") or "UTC", "vendor": values.get("vendor") or None,
             "vertical": values.get("vertical") or None},
            Mapping,
        )  # fmt: skip
    except msgspec.ValidationError:
        raise field_fault("dates", Code.value_not_allowed, "Choose again how the file is written.") from None


def _packed(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw, 6)).decode()


def _unpacked(given: Given) -> bytes:
    """The file that the page carried; nothing for a page without one. Raises InvalidInput for what we did not pack."""
    text = (given.get("packed") or ("",))[0]
    if not text:
        return b""
    try:
        unpacking = zlib.decompressobj()
        raw = unpacking.decompress(base64.b64decode(text, validate=True), LARGEST_FILE + 1)
    except (binascii.Error, zlib.error, ValueError):
        raw = b""
    if not raw or len(raw) > LARGEST_FILE:
        raise field_fault("file", Code.value_not_allowed, "Choose the file again.")
    return raw


handlers = (show_shared, preview, import_file)
