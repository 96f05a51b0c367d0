"""The reports over the whole marketplace: each a question with its answer, a chart, a table and the rows behind."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from litestar import Response, get
from markupsafe import Markup

from marketplace import clock, errors, ids
from marketplace.auth import Kind
from marketplace.db import session
from marketplace.directory import store as directory
from marketplace.http import AnyRequest, services, wants_csv
from marketplace.portal import charts
from marketplace.portal.business.overview import draw_returns
from marketplace.portal.business.reports import compared
from marketplace.portal.frame import csv, duration, page, zone_of
from marketplace.portal.session import Viewer, visitor
from marketplace.reports.funnel import Routing, load_routing
from marketplace.reports.money_report import Line, Period, Whose, load_money_report
from marketplace.reports.quality import Quality, load_quality
from marketplace.reports.question import Question, read_question
from marketplace.reports.roi import load_roi
from marketplace.reports.roi import usual as half_a_year
from marketplace.reports.speed import By, Pace, Speed, load_speed
from marketplace.reports.unsold import Widening, load_unsold

HOME: Final = "/operator/reports"
ROWS: Final = "/operator/leads"
TABS: Final = (
    (f"{HOME}/routing", "Routing"), (f"{HOME}/unsold", "Unsold"), (f"{HOME}/speed", "Speed"),
    (f"{HOME}/roi", "Does it pay?"), (f"{HOME}/quality", "Quality"), (f"{HOME}/money", "Money"),
)  # fmt: skip
MOST_VERTICALS: Final = 200

PARTIES: Final = {"provider_id": "prov", "business_id": "biz"}
STEP_WORDS: Final = {
    "received": "Person to us", "qualified": "Checked", "awarded": "Awarded", "exposed": "Connected",
    "acknowledged": "Confirmed by the business", "touched": "First tried", "contacted": "Reached",
}  # fmt: skip
TONES: Final[dict[str, charts.Tone]] = {"own": "a", "business": "b", "own and business": "c", "provider": "muted"}


class FunnelLine(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the funnel in a file, or one reason for which leads stopped there."""

    step: str
    stopped_by: str
    leads: int
    may_go_on: bool


class SpeedLine(msgspec.Struct, frozen=True, kw_only=True):
    """One step of one group in a file, in milliseconds."""

    group: str
    step: str
    whose: str
    leads: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class RoiLine(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both sides in a file."""

    figure: str
    exclusive: str
    shared: str


def question_of(request: AnyRequest, viewer: Viewer) -> Question:
    """What the address asks, in the viewer's zone unless it names one. Raises InvalidInput, NotFound."""
    asked = {name: value for name, value in request.query_params.items() if value}
    question = read_question({"zone": zone_of(viewer.zone).key, "mode": viewer.mode} | asked, clock.now())
    parties = {}
    for name, prefix in PARTIES.items():
        if name in asked:
            parties[name] = ids.decode(prefix, asked[name].strip())
            if parties[name] is None:
                raise errors.NotFound("There is nothing with this id.")
    return msgspec.structs.replace(question, **parties)


def rows_of(url: str) -> str:
    """The page of the rows that a report's own link leads to."""
    return f"{ROWS}?{url.partition('?')[2]}"


async def _report_page(
    request: AnyRequest, viewer: Viewer, template: str, question: Question, **context: Any
) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        verticals = await directory.list_verticals(connection, None, MOST_VERTICALS)
    return page(
        request, viewer, f"operator/{template}.html", tabs=TABS, question=question, verticals=verticals,
        rows_of=rows_of, **context,
    )  # fmt: skip


# Routing.


@get([HOME, f"{HOME}/routing"])
async def show_routing(request: AnyRequest) -> Response[bytes]:
    """How far leads came and why no further, who got them against what was due, and who got none."""
    viewer = await visitor(request, Kind.operator)
    question = question_of(request, viewer)
    report = await load_routing(services(request).reports, question)
    if wants_csv(request):
        return await csv("routing", list(_funnel_lines(report)), FunnelLine.__struct_fields__)
    return await _report_page(request, viewer, "report_routing", question, report=report, funnel=_funnel(report))


def _funnel(report: Routing) -> Markup:
    stages = [
        charts.Stage(
            name=step.name.capitalize(), count=step.leads, href=rows_of(step.rows),
            lost=", ".join(f"{one.why.replace('_', ' ')} {one.leads:,}" for one in before.losses[:3]) if before else "",
        )
        for before, step in zip((None, *report.funnel), report.funnel, strict=False)
    ]  # fmt: skip
    return charts.funnel("How far leads came", stages)


def _funnel_lines(report: Routing) -> Iterator[FunnelLine]:
    for step in report.funnel:
        yield FunnelLine(step=step.name, stopped_by="", leads=step.leads, may_go_on=False)
        for loss in step.losses:
            yield FunnelLine(step=step.name, stopped_by=loss.why, leads=loss.leads, may_go_on=loss.open)


# Unsold.


@get(f"{HOME}/unsold")
async def show_unsold(request: AnyRequest) -> Response[bytes]:
    """Why leads were unsold, and what widening a rule would have brought."""
    viewer = await visitor(request, Kind.operator)
    question = question_of(request, viewer)
    report = await load_unsold(services(request).reports, question)
    if wants_csv(request):
        columns = tuple(name for name in Widening.__struct_fields__ if name != "rows")
        return await csv("unsold", [*report.overall, *report.widenings], columns)
    return await _report_page(request, viewer, "report_unsold", question, report=report)


# Speed.


@get(f"{HOME}/speed")
async def show_speed(request: AnyRequest) -> Response[bytes]:
    """Where a lead's time goes, and whose time it is."""
    viewer = await visitor(request, Kind.operator)
    question, asked = question_of(request, viewer), request.query_params.get("by")
    by = By(asked) if asked in tuple(By) else By.business
    report = await load_speed(services(request).reports, question, by)
    if wants_csv(request):
        return await csv("speed", list(_speed_lines(report)), SpeedLine.__struct_fields__)
    return await _report_page(
        request, viewer, "report_speed", question, report=report, by=by, ways=tuple(By), step_words=STEP_WORDS,
        waterfall=_waterfall(report.total),
    )  # fmt: skip


def _waterfall(pace: Pace) -> Markup | None:
    """From the receipt to the confirmation, at the medians; what follows takes a thousand times as long."""
    steps = [
        charts.Step(name=STEP_WORDS[step.name], value=step.took.p50_ms / 1000, tone=TONES.get(step.whose, "a"))
        for step in pace.waterfall[1:5]
        if step.took.p50_ms is not None
    ]
    if not steps:
        return None
    return charts.waterfall("Receipt to confirmation", steps, show=duration, about="Each step at its own median.")


def _speed_lines(report: Speed) -> Iterator[SpeedLine]:
    for pace in (report.total, *report.groups):
        for step in pace.waterfall:
            took = step.took
            yield SpeedLine(
                group=pace.name or "all", step=step.name, whose=step.whose, leads=took.leads, p50_ms=took.p50_ms,
                p95_ms=took.p95_ms, p99_ms=took.p99_ms,
            )  # fmt: skip


# Does it pay?


@get(f"{HOME}/roi")
async def show_roi(request: AnyRequest) -> Response[bytes]:
    """Whether exclusive leads pay better than shared ones, over all businesses or for one."""
    viewer = await visitor(request, Kind.operator)
    question = question_of(request, viewer)
    question = question if request.query_params.get("from") else half_a_year(question)
    report = await load_roi(services(request).reports, question)
    figures, ranges = compared(report), compared(report, with_ranges=True)
    if wants_csv(request):
        named = [("Answer", report.answer.sentence, ""), *figures]
        named += [(f"{name} (range)", ours, theirs) for name, ours, theirs in ranges]
        lines = [RoiLine(figure=name, exclusive=ours, shared=theirs) for name, ours, theirs in named]
        return await csv("roi", lines, RoiLine.__struct_fields__)
    return await _report_page(
        request, viewer, "report_roi", question, report=report, roi=report.answer, figures=figures, ranges=ranges,
        plot=draw_returns(report),
    )  # fmt: skip


# Quality.


@get(f"{HOME}/quality")
async def show_quality(request: AnyRequest) -> Response[bytes]:
    """What each provider's leads were worth."""
    viewer = await visitor(request, Kind.operator)
    question = question_of(request, viewer)
    report = await load_quality(services(request).reports, question)
    if wants_csv(request):
        columns = tuple(name for name in Quality.__struct_fields__ if name != "rows")
        return await csv("quality", [report.total, *report.providers], columns)
    return await _report_page(request, viewer, "report_quality", question, report=report)


# Money.


@get(f"{HOME}/money")
async def show_money(request: AnyRequest) -> Response[bytes]:
    """What was charged, given back and owed."""
    viewer = await visitor(request, Kind.operator)
    question, query = question_of(request, viewer), request.query_params
    period = Period(query["period"]) if query.get("period") in tuple(Period) else Period.week
    whose = Whose(query["by"]) if query.get("by") in tuple(Whose) else Whose.everybody
    report = await load_money_report(services(request).reports, question, period, whose)
    if wants_csv(request):
        return await csv("money", report.lines, Line.__struct_fields__)
    return await _report_page(
        request, viewer, "report_money", question, report=report, period=period, periods=tuple(Period), whose=whose,
        parties=tuple(Whose),
    )  # fmt: skip


handlers: tuple[Any, ...] = (
    show_routing, show_unsold, show_speed, show_roi, show_quality, show_money,
)  # fmt: skip
