"""Reports on the way from lead to prospect, and on what the nurture lane earned."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from litestar import Response, get
from markupsafe import Markup

from billing.intervals import Figure
from marketplace.database.db import Pool
from marketplace.portal import charts
from marketplace.portal.frame import duration, percent, words
from marketplace.portal.listing import Column, Link, Listing, Money, Row, only_in_file
from marketplace.portal.operator.reports import HOME, question_of, report_page, rows_of
from marketplace.portal.session import visitor
from marketplace.portal.step_words import STEP_NAMES
from marketplace.reports.grouping import LeadGrouping
from marketplace.reports.journey import JourneyGroup, JourneyReport, TouchComparison, TouchEffect, load_journey
from marketplace.reports.lane import LaneReport, LaneRow, lane_rows, load_lane
from marketplace.reports.question import Question
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services, wants_csv

Report = TypeVar("Report")

COMPARISONS: Final = {
    TouchComparison.more: "More become prospects",
    TouchComparison.fewer: "Fewer become prospects",
    TouchComparison.unclear: "No clear difference",
    TouchComparison.not_enough_data: "Not enough data",
}


class _Tables(msgspec.Struct, Generic[Row], frozen=True, kw_only=True):
    """Tables of a report: the list that its file holds with the rows of it, and what its template shows."""

    listing: Listing[Row]
    file_rows: Sequence[Row]
    context: dict[str, Any]


async def _grouped_report(
    request: AnyRequest,
    template: str,
    load: Callable[[Pool, Question, LeadGrouping], Awaitable[Report]],
    tables_of: Callable[[Report], _Tables[Row]],
) -> Response[bytes]:
    """Return a report by vertical, provider or week, as a page or as a file."""
    viewer = await visitor(request, CallerKind.operator)
    question, by = question_of(request, viewer), _grouping(request)
    report = await load(services(request).reports, question, by)
    tables = tables_of(report)
    if wants_csv(request):
        return await tables.listing.download(tables.file_rows)
    return await report_page(
        request, viewer, template, question, report=report, by=by, groupings=tuple(LeadGrouping), **tables.context
    )


def _grouping(request: AnyRequest) -> LeadGrouping:
    text = request.query_params.get("by")
    return LeadGrouping(text) if text in tuple(LeadGrouping) else LeadGrouping.vertical


def _count(heading: str, name: str) -> Column[JourneyGroup]:
    return Column(heading, lambda group: getattr(group, name), file=name, style="num")


GROUPS: Final = Listing[JourneyGroup](
    caption="From lead to prospect, by group",
    name="journey",
    columns=(
        only_in_file("key", lambda group: group.key),
        Column("Group", lambda group: group.name, file="name", names_row=True),
        _count("Inquiries", "inquiries"),
        _count("Leads", "leads"),
        _count("Prospects", "prospects"),
        _count("Of these, promoted later", "promoted"),
        _count("Prospects awarded", "awarded"),
        _count("Delivered", "delivered"),
        _count("Contacted", "contacted"),
        _count("Won", "won"),
        Column(
            "Time to promotion, median",
            lambda group: duration(group.promotion.median_seconds),
            file="median_seconds",
            value=lambda group: group.promotion.median_seconds,
            style="num",
        ),
        Column(
            "90% within",
            lambda group: duration(group.promotion.p90_seconds),
            file="p90_seconds",
            value=lambda group: group.promotion.p90_seconds,
            style="num",
        ),
    ),
)


def _share(figure: Figure | None, leads: int) -> str:
    """Return `40% of 52 (28% to 54%)`: the share that became prospects, with its interval."""
    if figure is None:
        return f"{leads:,} leads"
    return f"{percent(figure.value)} of {leads:,} ({percent(figure.low)} to {percent(figure.high)})"


TOUCHES: Final = Listing[TouchEffect](
    caption="Touches before promotion",
    columns=(
        Column("Vertical", lambda effect: effect.vertical),
        Column("Touch", lambda effect: words(effect.kind)),
        Column("Became prospects with it", lambda effect: _share(effect.share_with, effect.leads_with)),
        Column("Without it", lambda effect: _share(effect.share_without, effect.leads_without)),
        Column("With this touch", lambda effect: COMPARISONS[effect.comparison]),
    ),
)


@get(f"{HOME}/journey")
async def show_journey(request: AnyRequest) -> Response[bytes]:
    """Show how many inquiries become leads, prospects and customers, and what precedes a promotion."""
    return await _grouped_report(request, "report_journey", load_journey, _journey_tables)


def _journey_tables(report: JourneyReport) -> _Tables[JourneyGroup]:
    context = {"funnel": _funnel(report), "groups": GROUPS, "touches": TOUCHES}
    return _Tables(listing=GROUPS, file_rows=report.groups, context=context)


def _funnel(report: JourneyReport) -> Markup:
    stages = [
        charts.FunnelStage(name=STEP_NAMES[step.name], count=step.number, href=rows_of(step.rows), lost="")
        for step in report.steps
    ]
    return charts.funnel("From inquiry to won", stages)


def _lane_count(heading: str, name: str) -> Column[LaneRow]:
    """Return a column of numbers of leads, each with a link to the leads."""

    def cell(row: LaneRow) -> Link | None:
        return Link(rows_of(getattr(row.figures.rows, name)), getattr(row.figures, name)) if row.figures else None

    return Column(heading, cell, file=name, value=lambda row: getattr(row.figures, name, None), style="num")


def _lane_money(heading: str, name: str) -> Column[LaneRow]:
    return Column(
        heading,
        lambda row: Money(getattr(row.money, name), row.money.currency) if row.money else None,
        file=name,
        value=lambda row: getattr(row.money, name, None),
        style="num",
    )


LANE: Final = Listing[LaneRow](
    caption="Nurture lane",
    name="nurturing",
    columns=(
        only_in_file("key", lambda row: row.key),
        Column("Group", lambda row: row.name, file="name", names_row=True),
        _lane_count("Leads that entered", "entered"),
        _lane_count("Still waiting", "waiting"),
        _lane_count("Became prospects", "reentered"),
        _lane_count("Prospects sold", "sold"),
        _lane_count("Of these, returned", "returned"),
        _lane_count("Expired", "expired"),
        _lane_count("Given back", "given_back"),
        _lane_count("Withdrawn by the person", "withdrawn"),
        _lane_count("Rejected", "rejected"),
        Column(
            "Sold of entered",
            lambda row: percent(row.figures.conversion, 1) if row.figures else None,
            file="conversion",
            value=lambda row: row.figures.conversion if row.figures else None,
            style="num",
        ),
        only_in_file("currency", lambda row: row.money.currency if row.money else None),
        _lane_money("Revenue", "revenue_minor"),
        _lane_money("To providers", "payout_minor"),
        _lane_money("Margin", "margin_minor"),
    ),
)


@get(f"{HOME}/nurturing")
async def show_nurturing(request: AnyRequest) -> Response[bytes]:
    """Show what became of the leads in the nurture lane, and what those that were sold earned."""
    return await _grouped_report(request, "report_nurturing", load_lane, _lane_tables)


def _lane_tables(report: LaneReport) -> _Tables[LaneRow]:
    rows = tuple(lane_rows(report.groups))
    return _Tables(listing=LANE, file_rows=(*lane_rows((report.total,)), *rows), context={"lane": LANE, "rows": rows})


handlers: tuple[Any, ...] = (show_journey, show_nurturing)
