"""Files of rows in the portal: a look at how a file is read, its import, what became of each row, and taking it back.

The file is kept, sealed, from the look to the end of its import; the mapping is kept with it, so that the page of an
import is one address whatever its state.
"""

import asyncio
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.feedback.wire import DispositionMapping
from marketplace.imports import store as imports_store
from marketplace.imports.flow import FilePreview
from marketplace.imports.http import CHOICES, imports_of
from marketplace.imports.store import Import
from marketplace.imports.table import LARGEST_FILE, MOST_ROWS, Table
from marketplace.imports.wire import ImportState, ImportSubject
from marketplace.portal.business import shared_leads
from marketplace.portal.business.import_lists import FIELD_NAMES, IMPORTS, OUTCOMES, ROWS
from marketplace.portal.business.leads import field_fault
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import Given, changing, show_again, told, typed, upload
from marketplace.portal.frame import redirect
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.shared_leads.csv_import import SharedLeadRow, guess
from marketplace.shared_leads.http import warning_of
from marketplace.shared_leads.wire import FIELDS, REQUIRED, Field, SharedLeadMapping, Status
from marketplace.text.faults import FaultCode
from marketplace.web.http import AnyRequest, page_cursor, page_limit, path_id, services, wants_csv

T = TypeVar("T", bound=msgspec.Struct)
HOME: Final = "/business/imports"
PREVIEWED: Final = 12
SHOWN_LEFT: Final = 100
BODY_BYTES: Final = LARGEST_FILE + 65_536
REFRESH: Final = {"Refresh": "2"}
"Seconds after which a browser looks again while rows wait."
CSV_LINES: Final = MOST_ROWS

OUTCOME_CHOICES: Final = (("left", "Not taken"), *((outcome, name) for outcome, (name, _) in OUTCOMES.items()))
STATUS_CHOICES: Final = (("", "Do not take these rows"), ("won", "Won"), ("lost", "Lost"), ("open", "Still open"))


@get(HOME)
async def list_imports(request: AnyRequest) -> Response[bytes]:
    """Lists all imports, and takes a file of outcomes."""
    return await _list_page(request, await visitor(request, CallerKind.business))


async def _list_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    limit, before = page_limit(request), page_cursor(request, "imp")
    async with session(services(request).pool) as connection:
        runs = await imports_store.list_imports(connection, viewer.owner, viewer.mode, None, before, limit + 1)
    return await business_page(
        request,
        viewer,
        "business/imports.html",
        imports=IMPORTS,
        runs=runs[:limit],
        next_cursor=ids.encode("imp", runs[limit - 1].id) if len(runs) > limit else None,
    )


@post(f"{shared_leads.HOME}/preview", request_max_body_size=BODY_BYTES)
async def look_at_shared(request: AnyRequest) -> Response[bytes]:
    """Takes a file of shared leads to look at; nothing of it counts yet."""
    viewer, _ = await changing(request, CallerKind.business)
    try:
        return await _keep(request, viewer, ImportSubject.shared_leads)
    except (errors.InvalidInput, errors.BodyTooLarge) as error:
        return await show_again(request, {}, error, shared_leads.shared_page(request, viewer))


@post(f"{HOME}/outcomes", request_max_body_size=BODY_BYTES)
async def look_at_outcomes(request: AnyRequest) -> Response[bytes]:
    """Takes a file that says what became of leads, to look at; nothing of it counts yet."""
    viewer, _ = await changing(request, CallerKind.business)
    try:
        return await _keep(request, viewer, ImportSubject.dispositions)
    except (errors.InvalidInput, errors.BodyTooLarge) as error:
        return await show_again(request, {}, error, _list_page(request, viewer))


async def _keep(request: AnyRequest, viewer: Viewer, subject: ImportSubject) -> Response[bytes]:
    raw = await upload(request, "file", LARGEST_FILE)
    try:
        table = await asyncio.to_thread(Table, raw)
    except errors.UnreadableBody as error:  # the form was read; its file is at fault
        raise errors.InvalidInput(error.faults) from None
    mode = viewer.mode if subject is ImportSubject.dispositions else None
    kept = await imports_of(request).keep_file(subject, viewer.owner, mode, viewer.actor, raw, table.rows)
    return redirect(request, _address(kept))


@get(f"{HOME}/{{import_id:str}}")
async def show_import(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Shows how a file is read, how far its import has come, or what became of each row."""
    viewer = await visitor(request, CallerKind.business)
    one = await imports_of(request).load(path_id("imp", import_id), viewer.owner)
    if one.state is ImportState.previewed:
        return await _preview_page(request, viewer, one)
    limit, outcome, as_file = page_limit(request), request.query_params.get("outcome"), wants_csv(request)
    if outcome not in (*CHOICES, None):
        raise errors.NotFound("There are no such rows.")
    async with session(services(request).pool) as connection:
        rows = await imports_store.list_rows(
            connection, one.id, _after(request), outcome, CSV_LINES if as_file else limit + 1
        )
    if as_file:
        return await ROWS.download(rows)
    waits = one.state in (ImportState.running, ImportState.undoing)
    return await business_page(
        request,
        viewer,
        "business/import.html",
        one=one,
        address_of=_address(one.id),
        listing=ROWS,
        rows=rows[:limit],
        outcomes=OUTCOME_CHOICES,
        headers=REFRESH if waits else None,
        next_cursor=str(rows[limit - 1].number) if len(rows) > limit else None,
    )


async def _preview_page(
    request: AnyRequest, viewer: Viewer, one: Import, error: errors.InvalidInput | None = None
) -> Response[bytes]:
    runs, faults, found = imports_of(request), told(error) if error else {}, None
    raw = await runs.read_file(one.id, viewer.owner)
    try:
        found = await runs.preview(one.subject, viewer.owner, one.mode, raw, _stated(one), every=wants_csv(request))
        mapping, header = found.reading.mapping, found.reading.table.header
        faults |= {name: "Choose one: the rows can be read in two ways." for name in _questions(found)}
    except errors.UnreadableBody:
        raise
    except errors.InvalidInput as wrong:
        faults |= {name.replace("columns/", "column_"): detail for name, detail in told(wrong).items()}
        header = (await asyncio.to_thread(Table, raw)).header
        mapping = _guessed(one, header)
    if wants_csv(request):
        return await ROWS.download(found.rows if found else ())
    return await business_page(
        request,
        viewer,
        "business/import_preview.html",
        one=one,
        address_of=_address(one.id),
        found=found,
        mapping=mapping,
        fields=FIELDS,
        required=REQUIRED,
        labels=FIELD_NAMES,
        listing=ROWS,
        left=found.rows[:SHOWN_LEFT] if found else (),
        shown=_first(found),
        statuses=_statuses(found, mapping),
        status_choices=STATUS_CHOICES,
        warning=_warning(one, found),
        faults=faults,
        choices=[("", "Not in the file"), *((name, name) for name in header if name)],
        faults=faults,
        status=422 if faults else 200,
    )


def _questions(found: FilePreview) -> tuple[str, ...]:
    questions: tuple[str, ...] = found.reading.open_questions
    return questions


def _first(found: FilePreview | None) -> tuple[Any, ...]:
    good = [row for row in found.first if isinstance(row, SharedLeadRow)] if found else []
    return tuple(good[:PREVIEWED])


def _statuses(found: FilePreview | None, mapping: Any) -> list[tuple[str, str]]:
    """The words of the status column that the business must explain, with what it has said of them."""
    if not isinstance(mapping, SharedLeadMapping):
        return []
    unknown = tuple(found.reading.reader.unknown_statuses) if found else ()
    return [*mapping.statuses.items(), *((word, "") for word in unknown)]


def _warning(one: Import, found: FilePreview | None) -> str | None:
    return warning_of(found.reading) if found and one.subject is ImportSubject.shared_leads else None


def _stated(one: Import) -> bytes:
    return b"" if one.mapping == b"{}" else one.mapping


def _guessed(one: Import, header: tuple[str, ...]) -> Any:
    """The mapping that was sent, or a guess: to be mended on the page."""
    if one.subject is ImportSubject.dispositions:
        return msgspec.json.decode(one.mapping, type=DispositionMapping)
    stated = _stated(one)
    return msgspec.json.decode(stated, type=SharedLeadMapping) if stated else SharedLeadMapping(columns=guess(header))


@post(f"{HOME}/{{import_id:str}}/look")
async def look_again(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Keeps another mapping of a file that is looked at."""
    viewer, given = await changing(request, CallerKind.business)
    one = await imports_of(request).load(path_id("imp", import_id), viewer.owner)
    mapping = _shared_mapping(given) if one.subject is ImportSubject.shared_leads else _outcome_mapping(given)
    await imports_of(request).save_mapping(one.id, viewer.owner, msgspec.json.encode(mapping))
    return redirect(request, _address(one.id))


@post(f"{HOME}/{{import_id:str}}/begin")
async def begin(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Imports the file that was looked at, as it was looked at."""
    viewer, _ = await changing(request, CallerKind.business)
    runs, chosen = imports_of(request), path_id("imp", import_id)
    one = await runs.load(chosen, viewer.owner)
    if one.state is ImportState.previewed:
        try:
            await runs.begin(chosen, viewer.owner, viewer.actor, _stated(one))
        except errors.UnreadableBody:
            raise
        except errors.InvalidInput as error:
            return await _preview_page(request, viewer, one, error)
        await runs.wait(chosen, seconds=1.0)  # most files need no page of progress
    return redirect(request, _address(chosen))


@post(f"{HOME}/{{import_id:str}}/undo")
async def undo(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Takes back all that the import has kept."""
    viewer, _ = await changing(request, CallerKind.business)
    runs, chosen = imports_of(request), path_id("imp", import_id)
    await runs.undo(chosen, viewer.owner, viewer.actor)
    await runs.wait(chosen, seconds=1.0)
    return redirect(request, _address(chosen))


def _shared_mapping(given: Given) -> SharedLeadMapping:
    """The mapping that the page's form says. Raises InvalidInput."""
    values = typed(given)
    columns: dict[Field, str] = {field: values[f"column_{field}"] for field in FIELDS if values.get(f"column_{field}")}
    statuses: dict[str, Status] = {}
    for word, meaning in zip(given.get("word", ()), given.get("meaning", ()), strict=False):
        if meaning in ("won", "lost", "open"):
            statuses[word] = meaning  # type: ignore[assignment]
    return _converted(
        {
            "columns": columns,
            "dates": values.get("dates") or None,
            "decimal": values.get("decimal") or None,
            "zone": values.get("zone") or "UTC",
            "vendor": values.get("vendor") or None,
            "vertical": values.get("vertical") or None,
            "statuses": statuses,
        },
        SharedLeadMapping,
    )


def _outcome_mapping(given: Given) -> DispositionMapping:
    values = typed(given)
    return _converted(
        {name: values.get(name) or None for name in DispositionMapping.__struct_fields__}, DispositionMapping
    )


def _converted(document: dict[str, Any], shape: type[T]) -> T:
    try:
        return msgspec.convert(document, shape)
    except msgspec.ValidationError:
        raise field_fault("dates", FaultCode.value_not_allowed, "Choose again how the file is written.") from None


def _after(request: AnyRequest) -> int:
    text = request.query_params.get("cursor", "0")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 8 else 0


def _address(import_id: UUID) -> str:
    return f"{HOME}/{ids.encode('imp', import_id)}"


handlers = (list_imports, look_at_shared, look_at_outcomes, show_import, look_again, begin, undo)
