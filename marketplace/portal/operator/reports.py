"""Reports on the whole marketplace: each with a question, its answer, a chart, a table and links to the leads."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import msgspec
from litestar import Response, get
from markupsafe import Markup

from marketplace.database.db import session
from marketplace.directory import store as directory_store
from marketplace.portal import charts
from marketplace.portal.business.overview import draw_returns
from marketplace.portal.business.reports import (
    COMPARISON,
    RANGES,
    ComparedFigure,
    TimedStep,
    compared,
    steps_of,
    within,
)
from marketplace.portal.frame import badge, duration, number, page, percent, words, zone_of
from marketplace.portal.frame import money as format_money
from marketplace.portal.listing import Column, Link, Listing, Money, code, only_in_file, took
from marketplace.portal.operator.report_trend import Headline, compare
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.step_words import STEP_NAMES
from marketplace.reports.funnel import FunnelLoss, RoutingReport, RoutingShare, StarvedSubscription, load_routing
from marketplace.reports.money_report import MoneyReport, MoneyReportLine, PartyGrouping, Period, load_money_report
from marketplace.reports.quality import FaultFigure, Quality, QualityReport, RejectionCount, load_quality
from marketplace.reports.question import Question, read_question
from marketplace.reports.roi import load_roi
from marketplace.reports.roi import usual as half_a_year
from marketplace.reports.speed import GroupSpeed, SpeedGrouping, SpeedReport, load_speed
from marketplace.reports.unsold import UnsoldReport, Widening, load_unsold
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services, wants_csv

HOME: Final = "/operator/reports"
ROWS: Final = "/operator/leads"
TABS: Final = (
    (f"{HOME}/routing", "Routing"),
    (f"{HOME}/journey", "From lead to prospect"),
    (f"{HOME}/nurturing", "Nurture lane"),
    (f"{HOME}/unsold", "Unsold"),
    (f"{HOME}/speed", "Speed"),
    (f"{HOME}/roi", "Does it pay?"),
    (f"{HOME}/quality", "Quality"),
    (f"{HOME}/money", "Money"),
)
MOST_VERTICALS: Final = 200

PARTIES: Final = {"provider_id": "prov", "business_id": "biz"}
STEP_WORDS: Final = {
    "received": "Sent by the provider",
    "qualified": "Qualified",
    "awarded": "Awarded",
    "exposed": "Connected",
    "acknowledged": "Confirmed by the business",
    "touched": "First attempt to reach the person",
    "contacted": "Person reached",
}
TONES: Final[dict[str, charts.Tone]] = {"own": "a", "business": "b", "own and business": "c", "provider": "muted"}


class FunnelLine(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the funnel, or a reason why leads stopped there. `rows` is the address of these leads."""

    step: str
    counts: str
    stopped_by: str
    leads: int
    may_go_on: bool
    rows: str


def rows_of(url: str) -> str:
    """Return the address of the page that lists the leads behind a report's link."""
    return f"{ROWS}?{url.partition('?')[2]}"


def _leads(rows: str, leads: int) -> Link:
    """Return a number of leads as a link to the list of them."""
    return Link(rows_of(rows), leads)


def _stopped_by(line: FunnelLine) -> tuple[object, ...]:
    return words(line.stopped_by), badge("in progress", "busy") if line.may_go_on else ""


LOSSES: Final = Listing[FunnelLine](
    caption="Where leads stopped",
    name="routing",
    columns=(
        Column("Reached", lambda line: STEP_NAMES[line.step], file="step", value=lambda line: line.step),
        Column("Stopped by", _stopped_by, file="stopped_by", value=lambda line: line.stopped_by),
        Column(
            "Number",
            lambda line: _leads(line.rows, line.leads),
            file="leads",
            value=lambda line: line.leads,
            style="num",
        ),
        only_in_file("may_go_on", lambda line: line.may_go_on),
        only_in_file("counts", lambda line: line.counts),
    ),
)
SHARES: Final = Listing[RoutingShare](
    caption="Shares",
    columns=(
        Column("Business", lambda share: Link(f"/operator/businesses/{share.business_id}", share.business)),
        Column("Subscription", lambda share: share.subscription),
        Column("Vertical", lambda share: share.vertical),
        Column("Prospects eligible for", lambda share: share.stood, style="num"),
        Column("Prospects won", lambda share: _leads(share.rows, share.won), style="num"),
        Column("Fair share", lambda share: number(share.due, 1), style="num"),
        Column("Difference", lambda share: percent(share.deviation, 1), style="num"),
    ),
)
STARVED: Final = Listing[StarvedSubscription](
    caption="Subscriptions without leads",
    columns=(
        Column("Business", lambda row: Link(f"/operator/businesses/{row.business_id}", row.business)),
        Column("Subscription", lambda row: row.subscription),
        Column("Vertical", lambda row: row.vertical),
        Column("Prospects eligible for", lambda row: row.stood, style="num"),
        Column("No lead since", lambda row: row.since, time="day"),
        Column("Most frequent reason", lambda row: words(row.why)),
    ),
)
REASONS: Final = Listing[FunnelLoss](
    caption="Reasons",
    columns=(
        Column("Reason", lambda reason: words(reason.why)),
        Column("Prospects", lambda reason: _leads(reason.rows, reason.leads), style="num"),
    ),
)
WIDENINGS: Final = Listing[Widening](
    caption="Changes that would sell more",
    name="unsold",
    columns=(
        only_in_file("subscription_id", lambda row: row.subscription_id),
        Column("Business", lambda row: row.business, file="business"),
        Column("Subscription", lambda row: row.subscription, file="subscription"),
        only_in_file("rule", lambda row: row.rule),
        only_in_file("by", lambda row: row.by),
        only_in_file("unit", lambda row: row.unit),
        only_in_file("missing", lambda row: row.missing),
        Column("Change", lambda row: row.sentence, file="sentence"),
        Column(
            "Unsold prospects",
            lambda row: _leads(row.rows, row.leads),
            file="leads",
            value=lambda row: row.leads,
            style="num",
        ),
        Column("Sold elsewhere", lambda row: row.contested, file="contested", style="num"),
        Column("Per week", lambda row: number(row.a_week, 1), file="a_week", value=lambda row: row.a_week, style="num"),
    ),
    order=tuple(name for name in Widening.__struct_fields__ if name != "rows"),
)


def _percentile(heading: str, name: str) -> Column[TimedStep]:
    return Column(
        heading,
        lambda step: within(step, name),
        file=name,
        value=lambda step: getattr(step, name),
        style="num",
    )


STEPS: Final = Listing[TimedStep](
    caption="Steps",
    name="speed",
    columns=(
        only_in_file("group", lambda step: step.group or "all"),
        Column("Step", lambda step: STEP_WORDS[step.step], file="step", value=lambda step: step.step),
        Column("Spent by", lambda step: words(step.whose), file="whose", value=lambda step: step.whose),
        Column("Leads", lambda step: step.leads, file="leads", style="num"),
        Column(
            "Not yet", lambda step: step.waiting or None, file="waiting", value=lambda step: step.waiting, style="num"
        ),
        _percentile("Median", "p50_ms"),
        _percentile("95%", "p95_ms"),
        _percentile("99%", "p99_ms"),
    ),
)


def pace_listing(by: SpeedGrouping) -> Listing[GroupSpeed]:
    """Return the list of groups by business, provider or vertical, as `by` says."""
    return Listing(
        caption=f"Speed by {by}",
        columns=(
            Column(words(by), lambda pace: pace.name or pace.key),
            Column("Leads", lambda pace: _leads(pace.rows, pace.leads), style="num"),
            Column("Ours, median", lambda pace: took(pace.own.p50_ms), style="num"),
            Column("Ours, 95%", lambda pace: took(pace.own.p95_ms), style="num"),
            Column("Ours, 99%", lambda pace: took(pace.own.p99_ms), style="num"),
            Column("Business, median", lambda pace: took(pace.business.p50_ms), style="num"),
            Column("Business, 95%", lambda pace: took(pace.business.p95_ms), style="num"),
            Column("Business, 99%", lambda pace: took(pace.business.p99_ms), style="num"),
            Column("Person reached, median", lambda pace: within(pace.response.contact), style="num"),
        ),
    )


QUALITY: Final = Listing[Quality](
    caption="Quality by provider",
    name="quality",
    columns=(
        only_in_file("key", lambda row: row.key),
        Column("Provider", lambda row: row.name, file="name"),
        Column(
            "Inquiries sent",
            lambda row: _leads(row.rows, row.sent),
            file="sent",
            value=lambda row: row.sent,
            style="num",
        ),
        Column("Refused", lambda row: row.refused, file="refused", style="num"),
        Column("Duplicates", lambda row: row.duplicates, file="duplicates", style="num"),
        only_in_file("suppressed", lambda row: row.suppressed),
        only_in_file("rejected", lambda row: row.rejected),
        Column("Prospects", lambda row: row.qualified, file="qualified", style="num"),
        Column(
            "Prospects of leads",
            lambda row: percent(row.acceptance),
            file="acceptance",
            value=lambda row: row.acceptance,
            style="num",
        ),
        only_in_file("sold", lambda row: row.sold),
        Column("Prospects delivered", lambda row: row.delivered, file="delivered", style="num"),
        only_in_file("returned", lambda row: row.returned),
        only_in_file("contacted", lambda row: row.contacted),
        only_in_file("won", lambda row: row.won),
        Column(
            "Returned of delivered",
            lambda row: percent(row.return_rate, 1),
            file="return_rate",
            value=lambda row: row.return_rate,
            style="num",
        ),
        Column(
            "Won of delivered",
            lambda row: percent(row.conversion, 1),
            file="conversion",
            value=lambda row: row.conversion,
            style="num",
        ),
    ),
    order=tuple(name for name in Quality.__struct_fields__ if name != "rows"),
)
REJECTIONS: Final = Listing[RejectionCount](
    caption="Rejections",
    columns=(
        Column("Reason", lambda row: words(row.why)),
        Column("Leads", lambda row: _leads(row.rows, row.leads), style="num"),
    ),
)
FAULTS: Final = Listing[FaultFigure](
    caption="Faults",
    columns=(
        Column("Field", lambda fault: code(fault.pointer or "/")),
        Column("Fault", lambda fault: words(fault.code)),
        Column("Requests", lambda fault: fault.requests, style="num"),
    ),
)


def _amount(heading: str, name: str) -> Column[MoneyReportLine]:
    return Column(heading, lambda line: Money(getattr(line, name), line.currency), file=name, style="num")


MONEY: Final = Listing[MoneyReportLine](
    caption="Money",
    name="money",
    columns=(
        Column("Start", lambda line: line.begins, file="begins", style="nowrap"),
        only_in_file("currency", lambda line: line.currency),
        only_in_file("key", lambda line: line.key),
        Column("Business or provider", lambda line: line.name or "All", file="name", value=lambda line: line.name),
        _amount("Paid in", "top_ups_minor"),
        only_in_file("withdrawals_minor", lambda line: line.withdrawals_minor),
        _amount("Charged", "gross_minor"),
        _amount("Refunded", "refunds_minor"),
        _amount("To providers", "payouts_minor"),
        _amount("Clawed back", "claw_backs_minor"),
        _amount("Paid out", "paid_minor"),
        _amount("Net", "net_minor"),
        only_in_file("held_minor", lambda line: line.held_minor),
    ),
)


def question_of(request: AnyRequest, viewer: Viewer) -> Question:
    """Return the question in the address, by default in the viewer's zone and mode. Raises InvalidInput, NotFound."""
    query = {name: value for name, value in request.query_params.items() if value}
    question = read_question({"zone": zone_of(viewer.zone).key, "mode": viewer.mode} | query, clock.now())
    parties = {}
    for name, prefix in PARTIES.items():
        if name in query:
            parties[name] = ids.decode(prefix, query[name].strip())
            if parties[name] is None:
                raise errors.NotFound("There is no business or provider with this id.")
    return msgspec.structs.replace(question, **parties)


async def report_page(
    request: AnyRequest, viewer: Viewer, template: str, question: Question, **context: Any
) -> Response[bytes]:
    """Return the page of a report, with the tabs and the filter that all reports have."""
    async with session(services(request).pool) as connection:
        verticals = await directory_store.list_verticals(connection, None, MOST_VERTICALS)
    return page(
        request,
        viewer,
        f"operator/{template}.html",
        tabs=TABS,
        question=question,
        verticals=verticals,
        rows_of=rows_of,
        **context,
    )


# Routing.


@get([HOME, f"{HOME}/routing"])
async def show_routing(request: AnyRequest) -> Response[bytes]:
    """Show the steps that leads reached, why they stopped, and which subscriptions got them or got none."""
    viewer = await visitor(request, CallerKind.operator)
    question, pool = question_of(request, viewer), services(request).reports
    report = await load_routing(pool, question)
    if wants_csv(request):
        return await LOSSES.download(_funnel_lines(report))
    return await report_page(
        request,
        viewer,
        "report_routing",
        question,
        report=report,
        trend=await compare(question, report, partial(load_routing, pool), _routing_headlines),
        funnel=_funnel(report),
        losses=[line for line in _funnel_lines(report) if line.stopped_by],
        loss_listing=LOSSES,
        shares=SHARES,
        starved=STARVED,
    )


def _count(value: float | None) -> str:
    return number(value)


def _milliseconds(value: float | None) -> str:
    return duration(None if value is None else value / 1000)


def _routing_headlines(report: RoutingReport) -> tuple[Headline, ...]:
    received = report.funnel[0].leads if report.funnel else 0
    delivered = next((step for step in report.funnel if step.name == "delivered"), None)
    return (
        Headline("Inquiries", received, _count),
        Headline("Delivered", delivered.leads if delivered else 0, _count),
        Headline("Share delivered", delivered.share if delivered and received else None, percent, share=True),
    )


def _funnel(report: RoutingReport) -> Markup:
    stages, losses = [], ""
    for step in report.funnel:
        stages.append(
            charts.FunnelStage(name=STEP_NAMES[step.name], count=step.leads, href=rows_of(step.rows), lost=losses)
        )
        losses = ", ".join(f"{loss.why.replace('_', ' ')} {loss.leads:,}" for loss in step.losses[:3])
    return charts.funnel("Steps that leads reached", stages)


def _funnel_lines(report: RoutingReport) -> Iterator[FunnelLine]:
    for step in report.funnel:
        reached = FunnelLine(
            step=step.name, counts=step.counts, stopped_by="", leads=step.leads, may_go_on=False, rows=step.rows
        )
        yield reached
        for loss in step.losses:
            yield msgspec.structs.replace(
                reached, stopped_by=loss.why, leads=loss.leads, may_go_on=loss.open, rows=loss.rows
            )


# Unsold.


@get(f"{HOME}/unsold")
async def show_unsold(request: AnyRequest) -> Response[bytes]:
    """Show why leads were unsold, and how many leads a change of one rule would have sold."""
    viewer = await visitor(request, CallerKind.operator)
    question, pool = question_of(request, viewer), services(request).reports
    report = await load_unsold(pool, question)
    if wants_csv(request):
        return await WIDENINGS.download([*report.overall, *report.widenings])
    return await report_page(
        request,
        viewer,
        "report_unsold",
        question,
        report=report,
        trend=await compare(question, report, partial(load_unsold, pool), _unsold_headlines),
        reasons=REASONS,
        widenings=WIDENINGS,
    )


def _unsold_headlines(report: UnsoldReport) -> tuple[Headline, ...]:
    return (
        Headline("Prospects", report.qualified, _count),
        Headline("Unsold", report.unsold, _count),
        Headline("Share unsold", report.unsold / report.qualified if report.qualified else None, percent, share=True),
    )


# Speed.


@get(f"{HOME}/speed")
async def show_speed(request: AnyRequest) -> Response[bytes]:
    """Show the time of each step of a lead, and who spent it."""
    viewer = await visitor(request, CallerKind.operator)
    question, text = question_of(request, viewer), request.query_params.get("by")
    by = SpeedGrouping(text) if text in tuple(SpeedGrouping) else SpeedGrouping.business
    pool = services(request).reports
    report = await load_speed(pool, question, by)
    if wants_csv(request):
        return await STEPS.download(step for pace in (report.total, *report.groups) for step in steps_of(pace))
    return await report_page(
        request,
        viewer,
        "report_speed",
        question,
        report=report,
        trend=await compare(question, report, partial(load_speed, pool, by=None), _speed_headlines),
        by=by,
        groups=sorted(report.groups, key=lambda group: group.key) if by is SpeedGrouping.hour else report.groups,
        groupings=tuple(SpeedGrouping),
        step_listing=STEPS,
        steps=steps_of(report.total),
        paces=pace_listing(by),
        waterfall=_waterfall(report.total),
    )


def _speed_headlines(report: SpeedReport) -> tuple[Headline, ...]:
    own, business = report.total.own, report.total.business
    return (
        Headline("Our own time, median", own.p50_ms, _milliseconds),
        Headline("Our own time, 99%", own.p99_ms, _milliseconds),
        Headline("The business's time, median", business.p50_ms, _milliseconds),
    )


def _waterfall(pace: GroupSpeed) -> Markup | None:
    """Draw the median times from receipt to confirmation; the later steps take hours and would hide them."""
    steps = [
        charts.WaterfallStep(name=STEP_WORDS[step.name], value=step.took.p50_ms / 1000, tone=TONES.get(step.whose, "a"))
        for step in pace.waterfall[1:5]
        if step.took.p50_ms is not None
    ]
    if not steps:
        return None
    return charts.waterfall("From receipt to confirmation", steps, show=duration, about="Median time of each step.")


# Does it pay?


@get(f"{HOME}/roi")
async def show_roi(request: AnyRequest) -> Response[bytes]:
    """Compare exclusive with shared leads, for all businesses or one."""
    viewer = await visitor(request, CallerKind.operator)
    question = question_of(request, viewer)
    question = question if request.query_params.get("from") else half_a_year(question)
    report = await load_roi(services(request).reports, question)
    figures, ranges = compared(report), compared(report, with_ranges=True)
    if wants_csv(request):
        answer = ComparedFigure(figure="Answer", exclusive=report.answer.sentence, shared="")
        range_rows = [msgspec.structs.replace(row, figure=f"{row.figure} (range)") for row in ranges]
        return await COMPARISON.download([answer, *figures, *range_rows])
    return await report_page(
        request,
        viewer,
        "report_roi",
        question,
        report=report,
        roi=report.answer,
        comparison=COMPARISON,
        figures=figures,
        range_listing=RANGES,
        ranges=ranges,
        plot=draw_returns(report),
    )


# Quality.


@get(f"{HOME}/quality")
async def show_quality(request: AnyRequest) -> Response[bytes]:
    """Show the quality of each provider's leads."""
    viewer = await visitor(request, CallerKind.operator)
    question, pool = question_of(request, viewer), services(request).reports
    report = await load_quality(pool, question)
    if wants_csv(request):
        return await QUALITY.download([report.total, *report.providers])
    return await report_page(
        request,
        viewer,
        "report_quality",
        question,
        report=report,
        trend=await compare(question, report, partial(load_quality, pool), _quality_headlines),
        providers=QUALITY,
        rejections=REJECTIONS,
        fault_listing=FAULTS,
    )


def _quality_headlines(report: QualityReport) -> tuple[Headline, ...]:
    total = report.total
    return (
        Headline("Inquiries sent", total.sent, _count),
        Headline("Prospects of leads", total.acceptance, percent, share=True),
        Headline("Returned", total.return_rate, partial(percent, places=1), share=True),
        Headline("Won", total.conversion, partial(percent, places=1), share=True),
    )


# Money.


@get(f"{HOME}/money")
async def show_money(request: AnyRequest) -> Response[bytes]:
    """Show the money paid in, charged, refunded and owed."""
    viewer = await visitor(request, CallerKind.operator)
    question, query = question_of(request, viewer), request.query_params
    period = Period(query["period"]) if query.get("period") in tuple(Period) else Period.week
    grouping = PartyGrouping(query["by"]) if query.get("by") in tuple(PartyGrouping) else PartyGrouping.everybody
    pool = services(request).reports
    report = await load_money_report(pool, question, period, grouping)
    if wants_csv(request):
        return await MONEY.download(report.lines)
    return await report_page(
        request,
        viewer,
        "report_money",
        question,
        report=report,
        trend=await compare(question, report, partial(load_money_report, pool, period=Period.all), _money_headlines),
        listing=MONEY,
        period=period,
        periods=tuple(Period),
        grouping=grouping,
        groupings=tuple(PartyGrouping),
    )


def _money_headlines(report: MoneyReport) -> tuple[Headline, ...]:
    """Return what was charged, refunded and left, in each currency."""
    headlines = []
    for total in report.totals:
        show = partial(_amount_in, total.currency)
        tail = f", {total.currency}" if len(report.totals) > 1 else ""
        headlines.append(Headline(f"Charged{tail}", total.gross_minor, show))
        headlines.append(Headline(f"Refunded{tail}", total.refunds_minor, show))
        headlines.append(Headline(f"Net{tail}", total.net_minor, show))
    return tuple(headlines)


def _amount_in(currency: str, minor: float | None) -> str:
    return format_money(None if minor is None else round(minor), currency)


handlers: tuple[Any, ...] = (
    show_routing,
    show_unsold,
    show_speed,
    show_roi,
    show_quality,
    show_money,
)
