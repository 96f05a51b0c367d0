"""Imports of files: upload, preview, import, the result of each row, and undo.

The sealed file and its mapping are stored from the preview to the end of the import, so an import has the same address
in every state.
"""

import asyncio
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory.wire import Slug
from marketplace.feedback.wire import DispositionMapping
from marketplace.imports import store as imports_store
from marketplace.imports.amounts import Decimal
from marketplace.imports.flow import FilePreview
from marketplace.imports.http import CHOICES, imports_of
from marketplace.imports.store import Import
from marketplace.imports.table import LARGEST_FILE, MOST_ROWS, Table
from marketplace.imports.times import Order
from marketplace.imports.wire import ImportState, ImportSubject
from marketplace.portal.business import shared_leads
from marketplace.portal.business.import_lists import FIELD_NAMES, IMPORTS, OUTCOMES, ROWS
from marketplace.portal.business.leads import field_fault
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import (
    FormFields,
    ShownForm,
    ZoneName,
    changing,
    field_errors,
    fill,
    label,
    show_again,
    show_form,
    upload,
)
from marketplace.portal.frame import redirect
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.shared_leads.csv_import import SharedLeadRow, guess
from marketplace.shared_leads.http import warning_of
from marketplace.shared_leads.wire import FIELDS, REQUIRED, SharedLeadMapping, Text
from marketplace.text.faults import FaultCode
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv

HOME: Final = "/business/imports"
PREVIEWED: Final = 12
SKIPPED_SHOWN: Final = 100
BODY_BYTES: Final = LARGEST_FILE + 65_536
REFRESH: Final = {"Refresh": "2"}
"Header by which a browser loads the page again after two seconds, while an import or undo runs."
CSV_LINES: Final = MOST_ROWS

OUTCOME_CHOICES: Final = (("left", "Not imported"), *((outcome, name) for outcome, (name, _) in OUTCOMES.items()))
_DETECT: Final = ("", "Detect from the rows")
DATE_CHOICES: Final = (_DETECT, ("iso", "2026-11-21"), ("mdy", "11/21/2026"), ("dmy", "21.11.2026"))
DECIMAL_CHOICES: Final = (_DETECT, (".", "Point: 45.50"), (",", "Comma: 45,50"))
STATUS_CHOICES: Final = (("", "Do not import these rows"), ("won", "Won"), ("lost", "Lost"), ("open", "Still open"))


class MappingForm(msgspec.Struct, frozen=True, kw_only=True):
    """Format of the dates, decimals and times of a file; parts left out are decided from the rows."""

    dates: Annotated[Order | None, label("Date format")] = None
    decimal: Annotated[Decimal | None, label("Decimal sign")] = None
    zone: Annotated[ZoneName | None, label("Time zone")] = None


class SharedMappingForm(MappingForm, frozen=True, kw_only=True):
    """Format of a file of shared leads. The columns of the fields and the meanings of statuses are read beside it."""

    vendor: Annotated[Text | None, label("Vendor of all rows", "If no column names the vendor.")] = None
    vertical: Slug | None = None


@get(HOME)
async def list_imports(request: AnyRequest) -> Response[bytes]:
    """Show all imports, with the form to upload a file of outcomes."""
    return await _list_page(request, await visitor(request, CallerKind.business))


async def _list_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    limit, before = list_limit(request), page_cursor(request, "imp")
    async with session(services(request).pool) as connection:
        runs = await imports_store.list_imports(connection, viewer.owner, viewer.mode, None, before, limit + 1)
    next_cursor = next_page("imp", [row.id for row in runs], limit)
    return await business_page(
        request, viewer, "business/imports.html", imports=IMPORTS, runs=runs[:limit], next_cursor=next_cursor
    )


@post(f"{shared_leads.HOME}/preview", request_max_body_size=BODY_BYTES)
async def preview_shared_leads(request: AnyRequest) -> Response[bytes]:
    """Store a file of shared leads and show its preview; nothing is imported yet."""
    viewer, _ = await changing(request, CallerKind.business)
    try:
        return await _store(request, viewer, ImportSubject.shared_leads)
    except (errors.InvalidInput, errors.BodyTooLarge) as error:
        return await show_again(request, {}, error, shared_leads.shared_page(request, viewer))


@post(f"{HOME}/outcomes", request_max_body_size=BODY_BYTES)
async def preview_outcomes(request: AnyRequest) -> Response[bytes]:
    """Store a file of outcomes and show its preview; nothing is imported yet."""
    viewer, _ = await changing(request, CallerKind.business)
    try:
        return await _store(request, viewer, ImportSubject.dispositions)
    except (errors.InvalidInput, errors.BodyTooLarge) as error:
        return await show_again(request, {}, error, _list_page(request, viewer))


async def _store(request: AnyRequest, viewer: Viewer, subject: ImportSubject) -> Response[bytes]:
    raw = await upload(request, "file", LARGEST_FILE)
    table = await asyncio.to_thread(Table, raw)
    mode = viewer.mode if subject is ImportSubject.dispositions else None
    import_id = await imports_of(request).keep_file(subject, viewer.owner, mode, viewer.actor, raw, table.rows)
    return redirect(request, _address(import_id))


@get(f"{HOME}/{{import_id:str}}")
async def show_import(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Show the preview of a file or, once its import has begun, the progress and the result of each row."""
    viewer = await visitor(request, CallerKind.business)
    run = await imports_of(request).load(path_id("imp", import_id), viewer.owner)
    if run.state is ImportState.previewed:
        return await _preview_page(request, viewer, run)
    limit, outcome, as_file = list_limit(request), request.query_params.get("outcome"), wants_csv(request)
    if outcome not in (*CHOICES, None):
        raise errors.NotFound("There are no such rows.")
    most = CSV_LINES if as_file else limit + 1
    async with session(services(request).pool) as connection:
        rows = await imports_store.list_rows(connection, run.id, _after(request), outcome, most)
    if as_file:
        return await ROWS.download(rows)
    headers = REFRESH if run.state in (ImportState.running, ImportState.undoing) else None
    next_cursor = str(rows[limit - 1].number) if len(rows) > limit else None
    return await business_page(
        request,
        viewer,
        "business/import.html",
        run=run,
        address_of=_address(run.id),
        listing=ROWS,
        rows=rows[:limit],
        outcomes=OUTCOME_CHOICES,
        headers=headers,
        next_cursor=next_cursor,
    )


async def _preview_page(
    request: AnyRequest, viewer: Viewer, run: Import, error: errors.InvalidInput | None = None
) -> Response[bytes]:
    """Return the preview of a file, with a form to correct its mapping: 422 while the file cannot be imported so."""
    runs, faults, preview = imports_of(request), field_errors(error) if error else {}, None
    raw = await runs.read_file(run.id, viewer.owner)
    try:
        preview = await runs.preview(
            run.subject, viewer.owner, run.mode, raw, _stored_mapping(run), every=wants_csv(request)
        )
        mapping, header = preview.reading.mapping, preview.reading.table.header
        faults |= {name: "Choose one: the rows can be read in two ways." for name in _questions(preview)}
    except errors.UnreadableBody:
        raise
    except errors.InvalidInput as invalid:
        faults |= {name.replace("columns/", "column_"): detail for name, detail in field_errors(invalid).items()}
        header = (await asyncio.to_thread(Table, raw)).header
        mapping = _mapping_to_correct(run, header)
    skipped_rows = preview.rows if preview else ()
    if wants_csv(request):
        return await ROWS.download(skipped_rows)
    status = 422 if faults else 200
    return await business_page(
        request,
        viewer,
        "business/import_preview.html",
        run=run,
        address_of=_address(run.id),
        preview=preview,
        mapping=mapping,
        form=_mapping_form(mapping),
        fields=FIELDS,
        required=REQUIRED,
        labels=FIELD_NAMES,
        listing=ROWS,
        skipped_rows=skipped_rows[:SKIPPED_SHOWN],
        first_rows=_first_rows(preview),
        statuses=_statuses(preview, mapping),
        status_choices=STATUS_CHOICES,
        warning=_warning(run, preview),
        choices=[("", "Not in the file"), *((name, name) for name in header if name)],
        faults=faults,
        status=status,
    )


def _questions(preview: FilePreview) -> tuple[str, ...]:
    questions: tuple[str, ...] = preview.reading.open_questions
    return questions


def _first_rows(preview: FilePreview | None) -> tuple[Any, ...]:
    rows = [row for row in preview.first if isinstance(row, SharedLeadRow)] if preview else []
    return tuple(rows[:PREVIEWED])


def _statuses(preview: FilePreview | None, mapping: Any) -> list[tuple[str, str]]:
    """Return the words of the status column with the meaning that the business gave each; empty for an open one."""
    if not isinstance(mapping, SharedLeadMapping):
        return []
    unknown = tuple(preview.reading.reader.unknown_statuses) if preview else ()
    return [*mapping.statuses.items(), *((word, "") for word in unknown)]


def _warning(run: Import, preview: FilePreview | None) -> str | None:
    return warning_of(preview.reading) if preview and run.subject is ImportSubject.shared_leads else None


def _stored_mapping(run: Import) -> bytes:
    """Return the mapping that the business has saved; empty if it has saved none."""
    return b"" if run.mapping == b"{}" else run.mapping


def _mapping_to_correct(run: Import, header: tuple[str, ...]) -> Any:
    """Return the saved mapping, or a guess from the headings, for the form of a file that could not be read."""
    if run.subject is ImportSubject.dispositions:
        return msgspec.json.decode(run.mapping, type=DispositionMapping)
    stored = _stored_mapping(run)
    return msgspec.json.decode(stored, type=SharedLeadMapping) if stored else SharedLeadMapping(columns=guess(header))


@post(f"{HOME}/{{import_id:str}}/look")
async def change_mapping(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Save another mapping for a file in preview."""
    viewer, fields = await changing(request, CallerKind.business)
    run = await imports_of(request).load(path_id("imp", import_id), viewer.owner)
    read = _shared_mapping if run.subject is ImportSubject.shared_leads else _outcome_mapping
    try:
        mapping = read(fields)
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _preview_page(request, viewer, run, error))
    await imports_of(request).save_mapping(run.id, viewer.owner, msgspec.json.encode(mapping))
    return redirect(request, _address(run.id))


@post(f"{HOME}/{{import_id:str}}/begin")
async def begin(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Import a file with the mapping of its preview."""
    viewer, _ = await changing(request, CallerKind.business)
    runs, internal_id = imports_of(request), path_id("imp", import_id)
    run = await runs.load(internal_id, viewer.owner)
    if run.state is ImportState.previewed:
        try:
            await runs.begin(internal_id, viewer.owner, viewer.actor, _stored_mapping(run))
        except errors.UnreadableBody:
            raise
        except errors.InvalidInput as error:
            return await _preview_page(request, viewer, run, error)
        await runs.wait(internal_id, seconds=1.0)  # most files are done by then, and need no progress page
    return redirect(request, _address(internal_id))


@post(f"{HOME}/{{import_id:str}}/undo")
async def undo(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Undo an import: none of its rows counts any more."""
    viewer, _ = await changing(request, CallerKind.business)
    runs, internal_id = imports_of(request), path_id("imp", import_id)
    await runs.undo(internal_id, viewer.owner, viewer.actor)
    await runs.wait(internal_id, seconds=1.0)
    return redirect(request, _address(internal_id))


def _shared_mapping(fields: FormFields) -> SharedLeadMapping:
    """Return the mapping of a form for shared leads. Raises InvalidInput."""
    form = fill(SharedMappingForm, fields)
    columns = {field: fields[f"column_{field}"][-1] for field in FIELDS if any(fields.get(f"column_{field}", ()))}
    meanings = zip(fields.get("word", ()), fields.get("meaning", ()), strict=False)
    statuses = {word: meaning for word, meaning in meanings if meaning in ("won", "lost", "open")}
    document = msgspec.structs.asdict(form) | {"zone": form.zone or "UTC", "columns": columns, "statuses": statuses}
    try:
        return msgspec.convert(document, SharedLeadMapping)
    except msgspec.ValidationError:
        raise field_fault("dates", FaultCode.value_not_allowed, "Choose the columns and formats again.") from None


def _outcome_mapping(fields: FormFields) -> DispositionMapping:
    form = fill(MappingForm, fields)
    return DispositionMapping(dates=form.dates, decimal=form.decimal, zone=form.zone)


def _mapping_form(mapping: SharedLeadMapping | DispositionMapping) -> ShownForm:
    shape = SharedMappingForm if isinstance(mapping, SharedLeadMapping) else MappingForm
    values = {name: value or "" for name, value in msgspec.structs.asdict(mapping).items()}
    return show_form(shape, values, {"dates": DATE_CHOICES, "decimal": DECIMAL_CHOICES})


def _after(request: AnyRequest) -> int:
    text = request.query_params.get("cursor", "0")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 8 else 0


def _address(import_id: UUID) -> str:
    return f"{HOME}/{ids.encode('imp', import_id)}"


handlers = (list_imports, preview_shared_leads, preview_outcomes, show_import, change_mapping, begin, undo)
