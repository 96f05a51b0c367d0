"""Shared leads over HTTP: a file looked at before it is taken, a file taken, leads one by one, and what is known."""

from typing import Final
from uuid import UUID

from litestar import Response, get, post

from marketplace import clock, errors, ids
from marketplace.auth import Principal, Scope
from marketplace.db import session
from marketplace.directory.wire import BUSINESS, business_of
from marketplace.faults import Fault, read
from marketplace.http import (
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
from marketplace.openapi import Doc, Query, id_of, paged
from marketplace.shared_leads import flow, store
from marketplace.shared_leads.csv_import import File, SharedRow
from marketplace.shared_leads.store import Buyer, SharedLead
from marketplace.shared_leads.wire import Mapping, Preview, SharedImport, SharedLeadsBody, ShownSharedLead

LARGEST_FILE: Final = 2 * 2**20
"Bytes: 20,000 rows of a hundred."
BODY_LIMIT: Final = 262_144
"Bytes: 500 leads of 500."
MOST_KEYS: Final = 8_000
PREVIEWED: Final = 20
CSV_LINES: Final = 20_000

MAPPING: Final = Query(
    name="mapping",
    about="How to read the file, as JSON: the preview's guess, mended. Guessed again where it is left out.",
)


async def _writer(request: AnyRequest) -> tuple[Principal, UUID]:
    """Whoever tells of a business's shared leads: itself or an operator, with a live key."""
    caller = await principal(request, Scope.feedback_write, Scope.operate)
    caller.demand_mode("live")
    return caller, business_of(caller, request.query_params.get("business_id"))


def _mapping(request: AnyRequest) -> Mapping | None:
    """Raises InvalidInput with every fault of it."""
    text = request.query_params.get("mapping")
    if text is None:
        return None
    found = read(text.encode(errors="replace"), Mapping)
    if isinstance(found, tuple):
        raise errors.InvalidInput(
            [Fault(pointer=f"/mapping{fault.pointer}", code=fault.code, detail=fault.detail) for fault in found]
        )
    return found


@post(
    "/v1/shared-leads:preview",
    tags=["shared leads"],
    status_code=200,
    doc=Doc(body="text/csv", answers={200: Preview}, query=(MAPPING, BUSINESS)),
)
async def preview(request: AnyRequest) -> Response[bytes]:
    """Shows how a file of shared leads would be read: the mapping, twenty rows as understood, every bad row.

    Nothing is kept.
    """
    _, business_id = await _writer(request)
    mapping = _mapping(request)
    raw = await raw_body(request, LARGEST_FILE, "text/csv")
    found, buyer = await flow.read_file(services(request).pool, business_id, raw, mapping)
    return answer(_show_preview(found, buyer))


@post(
    "/v1/shared-leads:import",
    tags=["shared leads"],
    status_code=200,
    doc=Doc(body="text/csv", answers={200: SharedImport}, query=(MAPPING, BUSINESS)),
)
async def import_file(request: AnyRequest) -> Response[bytes]:
    """Takes the good rows of a file and gives the bad ones back with reasons. A lead known before stays as it was."""
    caller, business_id = await _writer(request)
    mapping = _mapping(request)
    raw = await raw_body(request, LARGEST_FILE, "text/csv")
    return answer(await flow.import_file(services(request).pool, caller.key_id, business_id, raw, mapping))


@post("/v1/shared-leads", tags=["shared leads"], status_code=200,
      doc=Doc(body=SharedLeadsBody, answers={200: SharedImport}))  # fmt: skip
async def add(request: AnyRequest) -> Response[bytes]:
    """Takes up to 500 shared leads: all of them, or none where any has a fault."""
    caller = await principal(request, Scope.feedback_write, Scope.operate)
    caller.demand_mode("live")
    body = read(await raw_body(request, BODY_LIMIT), SharedLeadsBody, maximum_keys=MOST_KEYS)
    if isinstance(body, tuple):
        raise refusal(body)
    business_id = business_of(caller, body.business_id)
    return answer(await flow.add_leads(services(request).pool, caller.key_id, business_id, body.leads))


@get(
    "/v1/shared-leads",
    tags=["shared leads"],
    doc=Doc(answers={200: (Page[ShownSharedLead], "text/csv")}, query=(*paged(id_of("shl")), BUSINESS)),
)
async def show(request: AnyRequest) -> Response[bytes]:
    """Lists a business's shared leads, newest first; as CSV where the caller accepts `text/csv`."""
    caller = await principal(request, Scope.leads_read, Scope.operate)
    caller.demand_mode("live")
    business_id = business_of(caller, request.query_params.get("business_id"))
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    after = page_cursor(request, "shl")
    async with session(services(request).pool) as connection:
        found = await store.list_leads(connection, business_id, after, limit + 1)
    if as_file:
        fields = ShownSharedLead.__struct_fields__
        return csv_page(request, found, limit, _show, _lead_id, fields, "shared-leads")
    return page(found, limit, _show, _lead_id)


def _show(lead: SharedLead) -> ShownSharedLead:
    fields = {name: getattr(lead, name) for name in ShownSharedLead.__struct_fields__ if name != "id"}
    return ShownSharedLead(id=_lead_id(lead), **fields)


def _lead_id(lead: SharedLead) -> str:
    return ids.encode("shl", lead.id)


def _show_preview(found: File, buyer: Buyer) -> Preview:
    now = clock.now()

    def understood(row: SharedRow) -> ShownSharedLead:
        return ShownSharedLead(
            id=None, vendor=row.vendor, external_id=row.external_id, vertical=row.vertical,
            postal_code=row.postal_code, received_at=row.received_at, observed_until=now, cost_minor=row.cost_minor,
            currency=buyer.currency, contacted_at=row.contacted_at, qualified=row.qualified, won_at=row.won_at,
            won_minor=row.won_minor, lost_at=row.lost_at,
        )  # fmt: skip

    return Preview(
        mapping=found.mapping, header=found.header, rows=len(found.good) + len(found.refused), good=len(found.good),
        leads=tuple(understood(row) for row in found.good[:PREVIEWED]), refused=found.refused,
    )  # fmt: skip


handlers = (preview, import_file, add, show)
