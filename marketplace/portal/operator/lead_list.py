"""Lists of leads: those that a figure of a report counts, by the same conditions, and those decided last."""

from typing import Any, Final

import msgspec
from litestar import Response, get

from marketplace.portal.frame import badge, duration, page, words
from marketplace.portal.listing import Column, Listing, muted
from marketplace.portal.operator.lead_store import RecentDecision
from marketplace.portal.operator.links import business_link, lead_link, provider_link
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import visitor
from marketplace.reports.figures import STATES, STEPS
from marketplace.reports.lane import LANE_COUNTS
from marketplace.reports.question import read_question
from marketplace.reports.rows import ReportRow, find_ids, list_rows, read_filters
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault
from marketplace.web.http import AnyRequest, page_cursor, services, wants_csv

HOME: Final = "/operator/leads"
CSV_LINES: Final = 10_000
PARTIES: Final = {"provider_id": "prov", "business_id": "biz"}


LANE_FIGURES: Final = {
    "entered": "Entered",
    "waiting": "Still waiting",
    "reentered": "Became prospects",
    "sold": "Sold",
    "returned": "Sold and returned",
    "expired": "Expired",
    "given_back": "Given back",
    "withdrawn": "Withdrawn by the person",
    "rejected": "Rejected",
}
"Choices of the filter by figures of the nurture lane."

LEADS: Final = Listing[ReportRow](
    caption="Leads",
    name="leads",
    columns=(
        Column(
            "Received",
            lambda row: row.received_at,
            file="received_at",
            value=lambda row: row.received_at.isoformat(),
            style="nowrap",
        ),
        Column(
            "Lead",
            lambda row: lead_link(row.id),
            file="id",
            value=lambda row: ids.encode("lead", row.id),
        ),
        Column("Vertical", lambda row: row.vertical, file="vertical"),
        Column("State", lambda row: badge(row.state), file="state", value=lambda row: row.state),
        Column("Reached", lambda row: words(STEPS[row.step]), file="step", value=lambda row: STEPS[row.step]),
        Column("Stopped by", lambda row: words(row.why) or None, file="why", value=lambda row: row.why),
        Column(
            "Provider",
            lambda row: provider_link(row.provider_id, row.provider),
            file="provider",
            value=lambda row: row.provider,
        ),
        Column(
            "Business",
            lambda row: business_link(row.business_id, row.business) if row.business_id and row.business else None,
            file="business",
            value=lambda row: row.business or "",
        ),
    ),
    order=("id", "received_at", "vertical", "state", "step", "why", "provider", "business"),
)


def _decided_lead(decision: RecentDecision) -> tuple[object, ...]:
    return lead_link(decision.lead_id), badge("test", "warn") if decision.mode == "test" else ""


def _outcome(decision: RecentDecision) -> tuple[object, ...]:
    if decision.winner:
        return badge("routed", "good"), decision.winner
    return badge(decision.outcome), muted(words(decision.reason)) if decision.reason else ""


DECISIONS: Final = Listing[RecentDecision](
    caption="Decisions",
    sortable=False,
    columns=(
        Column("Time", lambda decision: decision.made_at, time="clock", style="nowrap"),
        Column("Lead", _decided_lead),
        Column("Vertical", lambda decision: decision.vertical),
        Column("Postal code", lambda decision: decision.postal_code or None),
        Column("Score", lambda decision: decision.score, style="num"),
        Column(
            "Eligible",
            lambda decision: f"{decision.eligible} of {decision.weighed}" if decision.weighed else None,
            style="num",
        ),
        Column("Outcome", _outcome),
        Column("Time taken", lambda decision: duration(decision.seconds), style="num nowrap"),
    ),
    key=lambda decision: f"{decision.lead_id}-{decision.made_at.timestamp()}",
)


@get(HOME)
async def show_leads(request: AnyRequest) -> Response[bytes]:
    """Show live leads, filtered by the step that they reached and the reason they stopped, newest first."""
    viewer = await visitor(request, CallerKind.operator)
    query = {name: value for name, value in request.query_params.items() if value}
    question = read_question({"zone": viewer.zone, **query}, clock.now())
    parties = {name: ids.decode(prefix, query[name]) for name, prefix in PARTIES.items() if name in query}
    if None in parties.values():
        raise errors.NotFound("There is no business or provider with this id.")
    question = msgspec.structs.replace(question, vertical=query.get("vertical"), **parties)
    pool, after = services(request).reports, page_cursor(request, "lead")
    lead_ids = await find_ids(pool, question, read_filters(query))
    if after is not None:
        if after not in lead_ids:
            fault = Fault(pointer="/cursor", code="cursor_invalid", detail="Start again on the first page.")
            raise errors.InvalidInput((fault,))
        lead_ids = lead_ids[lead_ids.index(after) + 1 :]
    limit = CSV_LINES if wants_csv(request) else list_limit(request)
    rows = await list_rows(pool, lead_ids[:limit])
    if wants_csv(request):
        return await LEADS.download(rows)
    return page(
        request,
        viewer,
        "operator/leads.html",
        listing=LEADS,
        rows=rows,
        question=question,
        step_options=[(step, words(step)) for step in STEPS[1:]],
        state_options=[(state, words(state)) for state in STATES[1:]],
        lane_options=[(figure, LANE_FIGURES[figure]) for figure in LANE_COUNTS],
        remaining=len(lead_ids),
        next_cursor=next_page("lead", lead_ids, limit),
    )


handlers: tuple[Any, ...] = (show_leads,)
