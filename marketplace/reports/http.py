"""Endpoints of the reports, as JSON or CSV. A tenant sees its own figures, an operator those of everybody."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.di import Provide
from litestar.response import Stream

from marketplace.directory.wire import SLUG
from marketplace.reports import rows
from marketplace.reports.figures import CHANNELS, STATES, STEPS
from marketplace.reports.funnel import RoutingReport, load_routing
from marketplace.reports.grouping import LeadGrouping
from marketplace.reports.journey import JourneyGroup, JourneyReport, load_journey
from marketplace.reports.lane import LANE_COUNTS, LaneMoney, LaneReport, LaneRow, lane_rows, load_lane
from marketplace.reports.money_report import MoneyReport, MoneyReportLine, PartyGrouping, Period, load_money_report
from marketplace.reports.quality import Quality, QualityReport, load_quality
from marketplace.reports.question import DATE, Question, read_question
from marketplace.reports.rows import ReportRow
from marketplace.reports.speed import GroupSpeed, SpeedGrouping, SpeedReport, load_speed
from marketplace.reports.unsold import UnsoldReport, Widening, load_unsold
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind, Scope
from marketplace.text.faults import Fault, FaultCode
from marketplace.text.spreadsheet import cell
from marketplace.web.api import Caller, Injected, JsonAnswer, api_router, require
from marketplace.web.http import AnyRequest, Page, Services, page_cursor, page_limit, wants_csv
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged

Word = TypeVar("Word", bound=StrEnum)

BASIS: Final = (
    QueryParameter(name="from", about="First day; default: thirty days before `to`.", schema=DATE),
    QueryParameter(name="to", about="Last day; default: today. At most 400 days.", schema=DATE),
    QueryParameter(name="zone", about="IANA time zone of the days; default: UTC."),
    QueryParameter(
        name="mode",
        about="Default: live, or the mode of a test key.",
        schema={"type": "string", "enum": ["live", "test"]},
    ),
    QueryParameter(
        name="vertical", about="One vertical only, by its slug.", schema={"type": "string", "pattern": SLUG}
    ),
    QueryParameter(name="provider_id", about="One provider only; for operators.", schema=id_of("prov")),
    QueryParameter(name="business_id", about="One business only; for operators.", schema=id_of("biz")),
)
FORMAT: Final = QueryParameter(
    name="format",
    about="`csv` for a file; `Accept: text/csv` does the same.",
    schema={"type": "string", "enum": ["csv"]},
)

OWN: Final = {CallerKind.provider: "provider_id", CallerKind.business: "business_id"}
PREFIXES: Final = {"provider_id": "prov", "business_id": "biz"}


READER: Final = require(Scope.operate, Scope.leads_read, Scope.leads_write, even_suspended=True)
"Caller who reads reports. A frozen tenant may read its own."


def provide_question(request: AnyRequest, caller: Caller, services: Injected[Services]) -> Question:
    """Return the question of the query, limited to a tenant's own figures.

    Raises InvalidInput for faulty parameters, KeyWrongMode for live figures with a test key, and NotFound for another
    tenant's id.
    """
    parameters = {name: str(request.query_params[name]) for name in request.query_params}
    question = read_question({"mode": caller.mode} | parameters, clock.now())
    if caller.mode == "test":
        caller.demand_mode(question.mode)
    parties: dict[str, UUID | None] = {}
    for name, prefix in PREFIXES.items():
        stated = ids.decode(prefix, parameters[name]) if name in parameters else None
        own = caller.owner if OWN.get(caller.kind) == name else None
        foreign = name in parameters and (stated is None or (caller.kind is not CallerKind.operator and stated != own))
        if foreign:
            raise errors.NotFound("There is nothing with this id, or it is not yours.")
        parties[name] = own or stated
    return msgspec.structs.replace(question, **parties)


def _word(request: AnyRequest, name: str, words: type[Word], allowed: Iterable[Word]) -> Word | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    names = [word.value for word in allowed]
    if text not in names:
        raise errors.InvalidInput(
            [Fault(pointer=f"/{name}", code=FaultCode.value_not_allowed, detail=f"One of {', '.join(names)}.")]
        )
    return words(text)


def _choice(name: str, about: str, words: type[StrEnum]) -> QueryParameter:
    return QueryParameter(name=name, about=about, schema={"type": "string", "enum": [word.value for word in words]})


def _file(name: str, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> Response[bytes]:
    """Return a table as a CSV file. Texts are escaped so that no spreadsheet runs them as formulas."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([value if isinstance(value, float) else cell(value) for value in line] for line in lines)
    return Response(out.getvalue().encode(), media_type="text/csv", headers=_as_file(name))


def _as_file(name: str) -> dict[str, str]:
    return {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}.csv"'}


# Speed.

BY_OF: Final = {
    CallerKind.operator: tuple(SpeedGrouping),
    CallerKind.business: (SpeedGrouping.vertical, SpeedGrouping.channel, SpeedGrouping.hour),
    CallerKind.provider: (SpeedGrouping.vertical, SpeedGrouping.channel, SpeedGrouping.hour),
}
"""Groupings that each kind of caller may use: businesses and providers do not learn each other's names."""


@get(
    "/reports/speed",
    tags=["reports"],
    dependencies={"caller": READER},
    doc=RouteDoc(
        answers={200: (SpeedReport, "text/csv")},
        query=(*BASIS, FORMAT, _choice("by", "Grouping; by business or provider for operators only.", SpeedGrouping)),
    ),
)
async def show_speed(
    request: AnyRequest, caller: Caller, question: Injected[Question], services: Injected[Services]
) -> SpeedReport | Response[bytes]:
    """Shows how long each step of a lead took, and who took that time."""
    by = _word(request, "by", SpeedGrouping, BY_OF[caller.kind])
    report = await load_speed(services.reports, question, by)
    if not wants_csv(request):
        return report
    columns = ("group", "name", "leads", "what", "timed", "p50_ms", "p95_ms", "p99_ms", "waiting")
    return _file("speed", columns, (line for pace in (report.total, *report.groups) for line in _speed_lines(pace)))


def _speed_lines(pace: GroupSpeed) -> Iterable[Sequence[Any]]:
    spreads = {"provider's time": pace.provider, "our time": pace.own, "business's time": pace.business}
    spreads |= {step.name: step.took for step in pace.waterfall}
    spreads |= {f"receipt to {step.name}": step.after_receipt for step in pace.waterfall if step.after_receipt}
    response = pace.response
    spreads |= {"contact": response.contact, "touch, open hours": response.touch_open}
    spreads |= {"contact, open hours": response.contact_open}
    for what, spread in spreads.items():
        times = spread.p50_ms, spread.p95_ms, spread.p99_ms
        yield pace.key, pace.name, pace.leads, what, spread.leads, *times, spread.waiting


# Routing.


@get(
    "/reports/routing",
    tags=["reports"],
    dependencies={"caller": READER},
    doc=RouteDoc(answers={200: (RoutingReport, "text/csv")}, query=(*BASIS, FORMAT)),
)
async def show_routing(
    request: AnyRequest, question: Injected[Question], services: Injected[Services]
) -> RoutingReport | Response[bytes]:
    """Shows the funnel of leads, the shares of subscriptions, and subscriptions that got no lead."""
    report = await load_routing(services.reports, question)
    if not wants_csv(request):
        return report
    lines = [
        line
        for step in report.funnel
        for line in (
            (step.name, "", step.leads, False, step.rows, step.counts),
            *((step.name, loss.why, loss.leads, loss.open, loss.rows, step.counts) for loss in step.losses),
        )
    ]
    return _file("routing", ("step", "stopped_by", "leads", "open", "rows", "counts"), lines)


# From inquiry to won.

GROUPINGS_OF: Final = {
    CallerKind.operator: tuple(LeadGrouping),
    CallerKind.provider: (LeadGrouping.vertical, LeadGrouping.week),
    CallerKind.business: (),
}
"""Groupings of leads that each kind of caller may use."""


@get(
    "/reports/journey",
    tags=["reports"],
    dependencies={"caller": READER},
    doc=RouteDoc(
        answers={200: (JourneyReport, "text/csv")},
        query=(
            *BASIS,
            FORMAT,
            _choice("by", "Grouping; default: vertical. By provider for operators only.", LeadGrouping),
        ),
    ),
)
async def show_journey(
    request: AnyRequest, caller: Caller, question: Injected[Question], services: Injected[Services]
) -> JourneyReport | Response[bytes]:
    """Shows how many inquiries become prospects and are won, how long a promotion takes, and what touches precede it.

    For operators, and for a provider's own leads.
    """
    caller.demand(Scope.leads_write, Scope.operate)
    by = _word(request, "by", LeadGrouping, GROUPINGS_OF[caller.kind]) or LeadGrouping.vertical
    report = await load_journey(services.reports, question, by)
    if not wants_csv(request):
        return report
    columns = (*JourneyGroup.__struct_fields__[:-1], "median_seconds", "p90_seconds")
    lines = (
        (*msgspec.structs.astuple(group)[:-1], group.promotion.median_seconds, group.promotion.p90_seconds)
        for group in report.groups
    )
    return _file("journey", columns, lines)


# Nurture lane.


@get(
    "/reports/nurturing",
    tags=["reports"],
    dependencies={"caller": require(Scope.operate)},
    doc=RouteDoc(
        answers={200: (LaneReport, "text/csv")},
        query=(*BASIS, FORMAT, _choice("by", "Grouping; default: vertical.", LeadGrouping)),
    ),
)
async def show_nurturing(
    request: AnyRequest, question: Injected[Question], services: Injected[Services]
) -> LaneReport | Response[bytes]:
    """Shows what became of the leads that entered the nurture lane, and what those that were sold earned."""
    by = _word(request, "by", LeadGrouping, LeadGrouping) or LeadGrouping.vertical
    report = await load_lane(services.reports, question, by)
    if not wants_csv(request):
        return report
    columns = ("key", "name", *LANE_COUNTS, "conversion", *LaneMoney.__struct_fields__)
    return _file("nurturing", columns, map(_lane_line, lane_rows((report.total, *report.groups))))


def _lane_line(row: LaneRow) -> Sequence[Any]:
    counts = [getattr(row.figures, name, None) for name in (*LANE_COUNTS, "conversion")]
    return (row.key, row.name, *counts, *(getattr(row.money, name, None) for name in LaneMoney.__struct_fields__))


# Unsold.


@get(
    "/reports/unsold",
    tags=["reports"],
    dependencies={"caller": READER},
    doc=RouteDoc(answers={200: (UnsoldReport, "text/csv")}, query=(*BASIS, FORMAT)),
)
async def show_unsold(
    request: AnyRequest, question: Injected[Question], services: Injected[Services]
) -> UnsoldReport | Response[bytes]:
    """Shows why leads were unsold, and how many more a wider rule would have sold."""
    report = await load_unsold(services.reports, question)
    if not wants_csv(request):
        return report
    columns = Widening.__struct_fields__
    return _file("unsold", columns, (msgspec.structs.astuple(each) for each in (*report.overall, *report.widenings)))


# Quality.


@get(
    "/reports/quality",
    tags=["reports"],
    dependencies={"caller": READER},
    doc=RouteDoc(answers={200: (QualityReport, "text/csv")}, query=(*BASIS, FORMAT)),
)
async def show_quality(
    request: AnyRequest, caller: Caller, question: Injected[Question], services: Injected[Services]
) -> QualityReport | Response[bytes]:
    """Shows acceptance, returns and wins of providers' leads. For operators, and for a provider's own leads."""
    caller.demand(Scope.leads_write, Scope.operate)
    report = await load_quality(services.reports, question)
    if not wants_csv(request):
        return report
    columns = Quality.__struct_fields__
    return _file("quality", columns, map(msgspec.structs.astuple, (report.total, *report.providers, *report.sub_ids)))


# Money.


@get(
    "/reports/money",
    tags=["reports"],
    dependencies={"caller": READER},
    doc=RouteDoc(
        answers={200: (MoneyReport, "text/csv")},
        query=(
            *BASIS,
            FORMAT,
            _choice("period", "Length of a line's period; default: day.", Period),
            _choice("by", "Grouping; default: everybody together. For operators.", PartyGrouping),
        ),
    ),
)
async def show_money(
    request: AnyRequest, caller: Caller, question: Injected[Question], services: Injected[Services]
) -> MoneyReport | Response[bytes]:
    """Shows charges, refunds and payouts by period; to operators with the trial balance."""
    period = _word(request, "period", Period, Period) or Period.day
    whose = _word(
        request, "by", PartyGrouping, PartyGrouping if caller.kind is CallerKind.operator else [PartyGrouping.everybody]
    )
    report = await load_money_report(
        services.reports,
        question,
        period,
        whose or PartyGrouping.everybody,
        own=caller.kind is not CallerKind.operator,
    )
    if not wants_csv(request):
        return report
    columns = MoneyReportLine.__struct_fields__
    return _file("money", columns, ((str(line[0]), *line[1:]) for line in map(msgspec.structs.astuple, report.lines)))


# Leads behind a figure.


class ReportLead(msgspec.Struct, frozen=True, kw_only=True):
    """One lead behind a figure. Provider and business are shown to operators only."""

    id: str
    received_at: datetime
    mode: str
    vertical: str
    state: str
    step: str
    why: str
    provider_id: str | None
    provider: str | None
    business_id: str | None
    business: str | None


def _show_row(row: ReportRow, kind: CallerKind) -> ReportLead:
    public_row = ReportLead(
        id=ids.encode("lead", row.id),
        received_at=row.received_at,
        mode=row.mode,
        vertical=row.vertical,
        state=row.state,
        step=STEPS[row.step],
        why=row.why,
        provider_id=None,
        provider=None,
        business_id=None,
        business=None,
    )
    if kind is not CallerKind.operator:
        return public_row
    business_id = ids.encode("biz", row.business_id) if row.business_id else None
    return msgspec.structs.replace(
        public_row,
        provider_id=ids.encode("prov", row.provider_id),
        provider=row.provider,
        business_id=business_id,
        business=row.business,
    )


def _words(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


FILTERS: Final = (
    QueryParameter(name="reached", about="Reached this step or a later one.", schema=_words(*STEPS[1:])),
    QueryParameter(name="stopped", about="Reached this step and not the next one.", schema=_words(*STEPS[1:])),
    QueryParameter(name="why", about="Reason for not reaching the next step."),
    QueryParameter(name="state", about="Current state.", schema=_words(*STATES[1:])),
    QueryParameter(name="channel", about="Endpoint over which its business received it.", schema=_words(*CHANNELS[1:])),
    QueryParameter(
        name="hour",
        about="Hour of the zone's day in which it was received.",
        schema={"type": "integer", "minimum": 0, "maximum": 23},
    ),
    QueryParameter(name="sub_id", about="Sub-id, as name=value."),
    QueryParameter(name="subscription_id", about="Subscription that got the lead.", schema=id_of("sub")),
    QueryParameter(name="missed", about="Only rule that kept the lead from a subscription."),
    QueryParameter(name="unit", about="Unit of that rule's distance."),
    QueryParameter(
        name="within", about="Largest distance by which the rule failed.", schema={"type": "number", "minimum": 0}
    ),
    QueryParameter(name="missed_by", about="Subscription that the rule kept from the lead.", schema=id_of("sub")),
    QueryParameter(name="lane", about="Figure of the nurture lane that counts it.", schema=_words(*LANE_COUNTS)),
)


@get(
    "/reports/leads",
    tags=["reports"],
    dependencies={"caller": READER},
    doc=RouteDoc(
        answers={200: (Page[ReportLead], "text/csv")}, query=(*paged(id_of("lead")), *BASIS, FORMAT, *FILTERS)
    ),
)
async def list_leads(
    request: AnyRequest, caller: Caller, question: Injected[Question], services: Injected[Services]
) -> Response[Page[ReportLead]] | Stream:
    """Lists the leads behind a figure, newest first. A tenant sees its own; a business those that it received."""
    filters = rows.read_filters({name: str(request.query_params[name]) for name in request.query_params})
    if caller.kind is not CallerKind.operator and (filters.subscription_id or filters.missed or filters.missed_by):
        raise errors.ScopeMissing("Only operators may ask by subscription.")
    as_file = wants_csv(request)
    limit = rows.CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    pool = services.reports
    after = page_cursor(request, "lead")
    lead_ids = _after_cursor(await rows.find_ids(pool, question, filters), after)
    page, more = lead_ids[:limit], len(lead_ids) > limit
    cursor = ids.encode("lead", page[-1]) if more else None
    if not as_file:
        data = tuple(_show_row(row, caller.kind) for row in await rows.list_rows(pool, page))
        return JsonAnswer(Page(data=data, next_cursor=cursor, has_more=more))
    headers = _as_file("leads")
    if cursor:
        headers["Link"] = f'<{request.url.path}?{_next_query(request, cursor)}>; rel="next"'
    body: AsyncIterator[bytes] = rows.copy_rows(pool, page, names=caller.kind is CallerKind.operator)
    return Stream(body, media_type="text/csv", headers=headers)


def _next_query(request: AnyRequest, cursor: str) -> str:
    return urlencode({**request.query_params.dict(), "cursor": [cursor]}, doseq=True)


def _after_cursor(lead_ids: Sequence[UUID], after: UUID | None) -> Sequence[UUID]:
    """Return the leads after the last one of the previous page. Raises InvalidInput if that is not in the list."""
    if after is None:
        return lead_ids
    try:
        return lead_ids[lead_ids.index(after) + 1 :]
    except ValueError:
        detail = "Send next_cursor of the previous page, unchanged, and the same filters."
        raise errors.InvalidInput([Fault(pointer="/cursor", code="cursor_invalid", detail=detail)]) from None


handlers: Final = (
    api_router(
        show_speed,
        show_routing,
        show_journey,
        show_nurturing,
        show_unsold,
        show_quality,
        show_money,
        list_leads,
        question=Provide(provide_question, sync_to_thread=False),
    ),
)
