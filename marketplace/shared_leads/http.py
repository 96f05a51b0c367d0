"""Endpoints of shared leads: preview a file, import a file, add leads, and list leads."""

from typing import Final
from uuid import UUID

import msgspec
from litestar import Response, get, post

from marketplace.database.db import session
from marketplace.directory.wire import BUSINESS, business_of
from marketplace.imports import flow as imports_flow
from marketplace.imports.flow import Imports, results_of
from marketplace.imports.http import IMPORTS, stated_mapping
from marketplace.imports.table import LARGEST_FILE
from marketplace.imports.wire import ImportState, ImportSubject, RowOutcome
from marketplace.runtime import clock, ids
from marketplace.security.auth import Principal, Scope
from marketplace.shared_leads import flow
from marketplace.shared_leads import store as shared_leads_store
from marketplace.shared_leads.csv_import import SharedLeadRow
from marketplace.shared_leads.flow import SharedFile
from marketplace.shared_leads.store import SharedLead
from marketplace.shared_leads.wire import (
    SharedImport,
    SharedLeadMapping,
    SharedLeadPreview,
    SharedLeadsBody,
    SharedLeadView,
)
from marketplace.text.faults import Fault, read
from marketplace.web.api import BodyProvider, Caller, Injected, JsonAnswer, api_router, list_page, require
from marketplace.web.http import (
    AnyRequest,
    Page,
    Services,
    csv_page,
    page_cursor,
    page_limit,
    raw_body,
    refusal,
    wants_csv,
)
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged
from marketplace.web.partial import add_content_faults, read_partly

BODY_LIMIT: Final = 262_144
"Most bytes of a body: 500 leads of 500 bytes."
MOST_KEYS: Final = 8_000
PREVIEWED: Final = 20
CSV_LINES: Final = 20_000

MAPPING: Final = QueryParameter(
    name="mapping",
    about="Mapping of the file's columns, as JSON: the one of the preview, corrected. Default: guessed from the file.",
)


WRITER: Final = require(Scope.feedback_write, Scope.operate, mode="live")
"Caller who changes shared leads: a business its own, an operator any."


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded file of shared leads of `business_id`, with the JSON of `?mapping=`."""

    business_id: UUID
    mapping: bytes
    raw: bytes


async def provide_upload(request: AnyRequest, caller: Caller, imports: Injected[Imports]) -> Upload:
    """Return the uploaded file. Raises the errors of `business_of`, `stated_mapping` and `http.raw_body`."""
    business_id = business_of(caller, request.query_params.get("business_id"))
    mapping = stated_mapping(request, SharedLeadMapping)
    raw = await raw_body(request, LARGEST_FILE, "text/csv")
    return Upload(business_id=business_id, mapping=mapping, raw=raw)


async def provide_leads(request: AnyRequest, caller: Caller, services: Injected[Services]) -> SharedLeadsBody:
    """Return the leads in the body. Raises the errors of `http.raw_body`, and InvalidInput with all faults."""
    raw = await raw_body(request, BODY_LIMIT)
    outcome = read(raw, SharedLeadsBody, maximum_keys=MOST_KEYS)
    if isinstance(outcome, tuple):
        raise refusal(await _with_content(services, caller, outcome, raw))
    return outcome


async def _with_content(
    services: Services, caller: Principal, faults: tuple[Fault, ...], raw: bytes
) -> tuple[Fault, ...]:
    """Return the faults of the shape, and those of the content as far as it can be read."""
    partial = None if any(fault.unreadable for fault in faults) else read_partly(raw, SharedLeadsBody)
    if partial is None:
        return faults
    context = await flow.load_context(services.pool, business_of(caller, partial.business_id))
    return add_content_faults(faults, raw, SharedLeadsBody, lambda body: flow.lead_faults(context, body.leads))


@post(
    "/shared-leads:preview",
    status_code=200,
    tags=["shared leads"],
    dependencies={"caller": WRITER, "upload": BodyProvider(provide_upload, "text/csv")},
    request_max_body_size=LARGEST_FILE,
    doc=RouteDoc(query=(MAPPING, BUSINESS)),
)
async def preview(upload: Injected[Upload], imports: Injected[Imports]) -> SharedLeadPreview:
    """Shows how a file of shared leads would be read: the mapping, twenty rows as understood, and rows not accepted.

    Nothing is stored.
    """
    reading = await imports.preview(ImportSubject.shared_leads, upload.business_id, None, upload.raw, upload.mapping)
    return show_preview(reading)


@post(
    "/shared-leads:import",
    status_code=200,
    tags=["shared leads"],
    dependencies={"caller": WRITER, "upload": BodyProvider(provide_upload, "text/csv")},
    request_max_body_size=LARGEST_FILE,
    doc=RouteDoc(answers={202: SharedImport}, query=(MAPPING, BUSINESS)),
)
async def import_file(caller: Caller, upload: Injected[Upload], imports: Injected[Imports]) -> Response[SharedImport]:
    """Imports the valid rows of a file and returns the others with reasons. A stored lead never changes.

    A large file is answered with 202 while rows wait. The same file sent again is the same import.
    """
    import_id = await imports.submit(
        ImportSubject.shared_leads, upload.business_id, None, caller.key_id, upload.raw, upload.mapping
    )
    import_ = await imports.wait(import_id)
    columns = msgspec.json.decode(import_.mapping, type=SharedLeadMapping).columns
    names = {str(field): name for field, name in columns.items()}
    conflicts, refused = [
        results_of(await imports.results(import_id, outcome), (outcome,), names)
        for outcome in (RowOutcome.conflict, RowOutcome.refused)
    ]
    result = SharedImport(
        id=ids.encode("imp", import_.id),
        state=import_.state,
        rows=import_.rows,
        position=import_.position,
        added=import_.taken,
        known=import_.repeated,
        conflict_count=import_.conflicts,
        refused_count=import_.refused,
        conflicts=conflicts,
        refused=refused,
    )
    status = 202 if import_.state is ImportState.running else 200
    return JsonAnswer(result, status_code=status)


@post(
    "/shared-leads",
    status_code=200,
    tags=["shared leads"],
    dependencies={"caller": WRITER, "shared_leads": BodyProvider(provide_leads, SharedLeadsBody)},
)
async def add(caller: Caller, shared_leads: Injected[SharedLeadsBody], services: Injected[Services]) -> SharedImport:
    """Adds up to 500 shared leads: all of them, or none if any has a fault."""
    business_id = business_of(caller, shared_leads.business_id)
    context = await flow.load_context(services.pool, business_id)
    return await flow.add_leads(services.pool, caller.key_id, business_id, context, shared_leads.leads)


@get(
    "/shared-leads",
    tags=["shared leads"],
    dependencies={"caller": require(Scope.leads_read, Scope.operate, mode="live")},
    doc=RouteDoc(answers={200: (Page[SharedLeadView], "text/csv")}, query=(*paged(id_of("shl")), BUSINESS)),
)
async def show(
    request: AnyRequest, caller: Caller, services: Injected[Services]
) -> Page[SharedLeadView] | Response[bytes]:
    """Lists a business's shared leads, newest first; as CSV if the caller accepts `text/csv`."""
    business_id = business_of(caller, request.query_params.get("business_id"))
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    after = page_cursor(request, "shl")
    async with session(services.pool) as connection:
        leads = await shared_leads_store.list_leads(connection, business_id, after, limit + 1)
    if as_file:
        fields = SharedLeadView.__struct_fields__
        return await csv_page(request, leads, limit, _show, _lead_id, fields, "shared-leads")
    return list_page(leads, limit, _show, _lead_id)


def _show(lead: SharedLead) -> SharedLeadView:
    fields = {name: getattr(lead, name) for name in SharedLeadView.__struct_fields__ if name != "id"}
    return SharedLeadView(id=_lead_id(lead), **fields)


def _lead_id(lead: SharedLead) -> str:
    return ids.encode("shl", lead.id)


def show_preview(preview: imports_flow.FilePreview) -> SharedLeadPreview:
    """Return the preview of a file as it is sent to the caller."""
    file: SharedFile = preview.reading
    now = clock.now()

    def show_row(row: SharedLeadRow) -> SharedLeadView:
        fields = {name: getattr(row, name) for name in SharedLeadRow.__struct_fields__ if name != "number"}
        return SharedLeadView(id=None, observed_until=now, currency=file.buyer.currency, **fields)

    understood = [row for row in preview.first if isinstance(row, SharedLeadRow)]
    return SharedLeadPreview(
        mapping=file.mapping,
        header=file.table.header,
        rows=file.table.rows,
        good=preview.counts[RowOutcome.taken],
        known=preview.counts[RowOutcome.repeated],
        conflict_count=preview.counts[RowOutcome.conflict],
        refused_count=preview.counts[RowOutcome.refused],
        open=file.reader.open_questions,
        statuses=tuple(file.reader.unknown_statuses),
        warning=warning_of(file),
        leads=tuple(show_row(row) for row in understood[:PREVIEWED]),
        conflicts=results_of(preview.rows, (RowOutcome.conflict,), file.names),
        refused=results_of(preview.rows, (RowOutcome.refused,), file.names),
    )


def warning_of(file: SharedFile) -> str | None:
    """Return a warning if rows of won leads are refused: without them, shared leads would look worse than they are."""
    if not file.won_refused:
        return None
    rows = "1 row of a won lead is" if file.won_refused == 1 else f"{file.won_refused:,} rows of won leads are"
    return f"{rows} refused. Correct them before you import: without them shared leads look worse than they are."


handlers: Final = (api_router(preview, import_file, add, show, imports=IMPORTS),)
