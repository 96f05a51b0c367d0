"""The leads behind a figure: the same rows and the same conditions that were counted."""

from typing import Any, Final

import msgspec
from litestar import Response, get

from marketplace import clock, errors, ids
from marketplace.auth import Kind
from marketplace.faults import Fault
from marketplace.http import AnyRequest, page_cursor, page_limit, services, wants_csv
from marketplace.portal.frame import csv, page, words
from marketplace.portal.session import visitor
from marketplace.reports.figures import STATES, STEPS
from marketplace.reports.question import read_question
from marketplace.reports.rows import Row, find_ids, list_rows, read_filters

HOME: Final = "/operator/leads"
CSV_LINES: Final = 10_000
PARTIES: Final = {"provider_id": "prov", "business_id": "biz"}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One lead in a file."""

    id: str
    received_at: str
    vertical: str
    state: str
    step: str
    why: str
    provider: str
    business: str


@get(HOME)
async def show_leads(request: AnyRequest) -> Response[bytes]:
    """Lists live leads by how far they came and why no further, newest first."""
    viewer = await visitor(request, Kind.operator)
    asked = {name: value for name, value in request.query_params.items() if value}
    question = read_question({"zone": viewer.zone, **asked}, clock.now())
    parties = {name: ids.decode(prefix, asked[name]) for name, prefix in PARTIES.items() if name in asked}
    if None in parties.values():
        raise errors.NotFound("There is nothing with this id.")
    question = msgspec.structs.replace(question, vertical=asked.get("vertical"), **parties)
    pool, after = services(request).reports, page_cursor(request, "lead")
    found = await find_ids(pool, question, read_filters(asked))
    if after is not None:
        if after not in found:
            fault = Fault(pointer="/cursor", code="cursor_invalid", detail="Begin again on the first page.")
            raise errors.InvalidInput((fault,))
        found = found[found.index(after) + 1 :]
    limit = CSV_LINES if wants_csv(request) else page_limit(request)
    rows = await list_rows(pool, found[:limit])
    if wants_csv(request):
        return await csv("leads", (_line(row) for row in rows), Line.__struct_fields__)
    return page(
        request, viewer, "operator/leads.html", rows=rows, question=question, steps=STEPS,
        step_options=[(one, words(one)) for one in STEPS[1:]], state_options=[(one, words(one)) for one in STATES[1:]],
        left=len(found), next_cursor=ids.encode("lead", found[limit - 1]) if len(found) > limit else None,
    )  # fmt: skip


def _line(row: Row) -> Line:
    return Line(
        id=ids.encode("lead", row.id), received_at=row.received_at.isoformat(), vertical=row.vertical, state=row.state,
        step=STEPS[row.step], why=row.why, provider=row.provider, business=row.business or "",
    )  # fmt: skip


handlers: tuple[Any, ...] = (show_leads,)
