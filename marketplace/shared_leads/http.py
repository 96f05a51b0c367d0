"""Endpoints of shared leads: preview a file, import a file, add leads, and list leads."""

from typing import Final
from uuid import UUID

import msgspec
from litestar import Response, get, post

from marketplace.database.db import session
from marketplace.directory.wire import BUSINESS, business_of
from marketplace.imports import flow as imports_flow
from marketplace.imports.flow import results_of
from marketplace.imports.http import imports_of, stated_mapping
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
from marketplace.web.http import (
    AnyRequest,
    Page,
    answer,
    csv_page,
    page,
    page_cursor,
    page_limit,
    principal,
    raw_body,
    refusal,
    services,
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


async def _writer(request: AnyRequest) -> tuple[Principal, UUID]:
    """Return the caller and the business whose shared leads it may write: its own, or any for an operator.

    Raises KeyWrongMode for a test key.
    """
    caller = await principal(request, Scope.feedback_write, Scope.operate)
    caller.demand_mode("live")
    return caller, business_of(caller, request.query_params.get("business_id"))


@post(
    "/v1/shared-leads:preview",
    tags=["shared leads"],
    status_code=200,
    request_max_body_size=LARGEST_FILE,
    doc=RouteDoc(body="text/csv", answers={200: SharedLeadPreview}, query=(MAPPING, BUSINESS)),
)
async def preview(request: AnyRequest) -> Response[bytes]:
    """Shows how a file of shared leads would be read: the mapping, twenty rows as understood, and rows not accepted.

    Nothing is stored.
    """
    _, business_id = await _writer(request)
    mapping = stated_mapping(request, SharedLeadMapping)
    raw = await raw_body(request, LARGEST_FILE, "text/csv")
    reading = await imports_of(request).preview(ImportSubject.shared_leads, business_id, None, raw, mapping)
    return answer(show_preview(reading))


@post(
    "/v1/shared-leads:import",
    tags=["shared leads"],
    status_code=200,
    request_max_body_size=LARGEST_FILE,
    doc=RouteDoc(body="text/csv", answers={200: SharedImport, 202: SharedImport}, query=(MAPPING, BUSINESS)),
)
async def import_file(request: AnyRequest) -> Response[bytes]:
    """Imports the valid rows of a file and returns the others with reasons. A stored lead never changes.

    A large file is answered with 202 while rows wait. The same file sent again is the same import.
    """
    caller, business_id = await _writer(request)
    mapping, runs = stated_mapping(request, SharedLeadMapping), imports_of(request)
    raw = await raw_body(request, LARGEST_FILE, "text/csv")
    import_id = await runs.submit(ImportSubject.shared_leads, business_id, None, caller.key_id, raw, mapping)
    import_ = await runs.wait(import_id)
    columns = msgspec.json.decode(import_.mapping, type=SharedLeadMapping).columns
    names = {str(field): name for field, name in columns.items()}
    conflicts, refused = [
        results_of(await runs.results(import_id, outcome), (outcome,), names)
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
    return answer(result, status)


@post(
    "/v1/shared-leads",
    tags=["shared leads"],
    status_code=200,
    doc=RouteDoc(body=SharedLeadsBody, answers={200: SharedImport}),
)
async def add(request: AnyRequest) -> Response[bytes]:
    """Adds up to 500 shared leads: all of them, or none if any has a fault."""
    caller = await principal(request, Scope.feedback_write, Scope.operate)
    caller.demand_mode("live")
    raw, pool = await raw_body(request, BODY_LIMIT), services(request).pool
    body = read(raw, SharedLeadsBody, maximum_keys=MOST_KEYS)
    if isinstance(body, tuple):
        raise refusal(await _with_content(request, caller, body, raw))
    business_id = business_of(caller, body.business_id)
    context = await flow.load_context(pool, business_id)
    return answer(await flow.add_leads(pool, caller.key_id, business_id, context, body.leads))


async def _with_content(
    request: AnyRequest, caller: Principal, faults: tuple[Fault, ...], raw: bytes
) -> tuple[Fault, ...]:
    """Return the faults of the shape, and those of the content as far as it can be read."""
    partial = None if any(fault.unreadable for fault in faults) else read_partly(raw, SharedLeadsBody)
    if partial is None:
        return faults
    context = await flow.load_context(services(request).pool, business_of(caller, partial.business_id))
    return add_content_faults(faults, raw, SharedLeadsBody, lambda body: flow.lead_faults(context, body.leads))


@get(
    "/v1/shared-leads",
    tags=["shared leads"],
    doc=RouteDoc(answers={200: (Page[SharedLeadView], "text/csv")}, query=(*paged(id_of("shl")), BUSINESS)),
)
async def show(request: AnyRequest) -> Response[bytes]:
    """Lists a business's shared leads, newest first; as CSV if the caller accepts `text/csv`."""
    caller = await principal(request, Scope.leads_read, Scope.operate)
    caller.demand_mode("live")
    business_id = business_of(caller, request.query_params.get("business_id"))
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    after = page_cursor(request, "shl")
    async with session(services(request).pool) as connection:
        leads = await shared_leads_store.list_leads(connection, business_id, after, limit + 1)
    if as_file:
        fields = SharedLeadView.__struct_fields__
        return await csv_page(request, leads, limit, _show, _lead_id, fields, "shared-leads")
    return page(leads, limit, _show, _lead_id)


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


handlers = (preview, import_file, add, show)
