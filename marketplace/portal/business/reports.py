"""Reports of a business: speed, return on its spending, and sources of its leads."""

from collections.abc import Callable, Iterator
from datetime import date
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from markupsafe import Markup
from msgspec import Meta

from billing.findings import Roi, SourceFigures
from billing.intervals import Figure
from marketplace.database.db import session, transaction
from marketplace.directory.wire import Slug
from marketplace.portal import charts
from marketplace.portal.business import store
from marketplace.portal.business.leads import field_fault, read_amount
from marketplace.portal.business.overview import draw_returns, won_words
from marketplace.portal.business.store import LeadSource
from marketplace.portal.business.wallet_summary import business_page, load_wallet_summary
from marketplace.portal.forms import Amount, changing, fill, label, show_again, show_form
from marketplace.portal.frame import DASH, duration, field_amount, money, number, percent, redirect, words, zone_of
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file, took
from marketplace.portal.session import Viewer, visitor
from marketplace.reports.question import Question, basis, read_question
from marketplace.reports.roi import Assumption, RoiReport, ShareFault, StatedShare, load_roi, save_assumption
from marketplace.reports.roi import usual as half_a_year
from marketplace.reports.roi_http import MOST_LEADS, MOST_WEEKS
from marketplace.reports.speed import GroupSpeed, Percentiles, SpeedGrouping, SpeedReport, load_speed
from marketplace.runtime import clock, errors
from marketplace.security import audit
from marketplace.security.auth import CallerKind
from marketplace.text.faults import FaultCode
from marketplace.web.http import AnyRequest, services, wants_csv

HOME: Final = "/business/reports"
TABS: Final = (
    (f"{HOME}/roi", "Does it pay?"),
    (f"{HOME}/speed", "Speed"),
    (f"{HOME}/sources", "Sources"),
    (f"{HOME}/missed", "Missed leads"),
    (f"{HOME}/shared-leads", "Shared leads"),
)

Leads = Annotated[int, Meta(ge=1, le=MOST_LEADS)]
Weeks = Annotated[int, Meta(ge=1, le=MOST_WEEKS)]
Copies = Annotated[float, Meta(ge=1, le=1_000)]
Source = Annotated[str, Meta(max_length=200)]


class AssumptionForm(msgspec.Struct, frozen=True, kw_only=True):
    """Assumptions of the business about shared leads: so many of so many were won. Amounts are as people write them."""

    cost: Annotated[Amount | None, label("Price of a shared lead, in {currency}")] = None
    leads: Annotated[Leads | None, label("Shared leads that you counted")] = None
    won: Annotated[Leads | None, label("How many of them you won")] = None
    weeks: Annotated[
        Weeks | None,
        label("Won within how many weeks", "Counted from the day on which each lead came. Usually 13."),
    ] = None
    value: Annotated[
        Amount | None,
        label("Value of a job from a shared lead, in {currency}", "Empty: the same as for exclusive leads."),
    ] = None
    labour: Annotated[
        Amount | None,
        label("Labour per lead, in {currency}", "Calls and visits. Added to the price of exclusive and shared leads."),
    ] = None
    copies: Annotated[Copies | None, label("Businesses to which a shared lead is sold")] = None
    source: Annotated[Source | None, label("Source of these figures")] = None
    vertical: Slug | None = None


class TimedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a group of leads, with percentiles of its duration. `waiting` leads have not taken it yet."""

    group: str
    step: str
    whose: str
    leads: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    waiting: int = 0


class ReturnFigure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of the comparison, as a row of the file; amounts in minor units."""

    about: str
    figure: str
    value: str
    low: str
    high: str


class ComparedFigure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of exclusive and shared leads in words."""

    figure: str
    exclusive: str
    shared: str


STEP_NAMES: Final = {
    "received": "Received by us",
    "qualified": "Qualified",
    "awarded": "Awarded to you",
    "exposed": "Connected to your server",
    "acknowledged": "You confirmed",
    "touched": "You first tried to reach them",
    "contacted": "You reached them",
}
WHOSE_TIME: Final = {
    "own": "Ours",
    "business": "Yours",
    "own and business": "Ours and yours",
    "provider": "The person's and the provider's",
}


def within(figure: TimedStep | Percentiles, name: str = "p50_ms") -> str:
    """Return a percentile in words, also if fewer leads than it needs have taken the step so far."""
    value = getattr(figure, name)
    return "Not reached yet" if value is None and figure.leads else took(value)


def _percentile(heading: str, name: str) -> Column[TimedStep]:
    return Column(
        heading,
        lambda step: within(step, name),
        file=name,
        value=lambda step: _whole(getattr(step, name)),
        style="num",
    )


STEPS: Final = Listing[TimedStep](
    caption="Every step",
    name="speed",
    columns=(
        only_in_file("group", lambda step: step.group),
        Column("Step", lambda step: STEP_NAMES.get(step.step, step.step), file="step", value=lambda step: step.step),
        Column(
            "Whose time",
            lambda step: WHOSE_TIME.get(step.whose, step.whose),
            file="whose",
            value=lambda step: step.whose,
        ),
        Column("Leads", lambda step: step.leads, file="leads", style="num"),
        Column(
            "Not yet", lambda step: step.waiting or None, file="waiting", value=lambda step: step.waiting, style="num"
        ),
        _percentile("Half within", "p50_ms"),
        _percentile("95% within", "p95_ms"),
        _percentile("99% within", "p99_ms"),
    ),
)
COMPARISON: Final = Listing[ComparedFigure](
    caption="Exclusive and shared leads",
    name="roi",
    columns=(
        Column("Figure", lambda row: row.figure, file="figure", names_row=True),
        Column("Exclusive", lambda row: row.exclusive, file="exclusive", style="num wrap"),
        Column("Shared", lambda row: row.shared, file="shared", style="num wrap"),
    ),
)
RANGES: Final = msgspec.structs.replace(COMPARISON, caption="Ranges of the figures")
RETURN_FIGURES: Final = Listing[ReturnFigure](
    caption="Exclusive and shared leads",
    name="roi",
    columns=(
        only_in_file("about", lambda row: row.about),
        only_in_file("figure", lambda row: row.figure),
        only_in_file("value", lambda row: row.value),
        only_in_file("low", lambda row: row.low),
        only_in_file("high", lambda row: row.high),
    ),
)


def source_listing(currency: str, first: date, basis: str) -> Listing[LeadSource]:
    """Return the list of sources, with amounts in `currency`. Each row of the file repeats the basis of the report."""
    leads = f"/business/leads?since={first}"
    return Listing(
        caption="Sources",
        name="sources",
        columns=(
            Column(
                "Source",
                lambda row: words(row.source) if row.source else "Not stated",
                file="source",
                value=lambda row: row.source or "not stated",
            ),
            Column("Leads", lambda row: Link(leads, row.leads), file="leads", value=lambda row: row.leads, style="num"),
            Column("Contacted", lambda row: row.contacted, file="contacted", style="num"),
            Column("Won", lambda row: row.won, file="won", style="num"),
            Column("Returned", lambda row: row.returned, file="returned", style="num"),
            Column("Spent", lambda row: Money(row.spent_minor or 0, currency), file="spent_minor", style="num"),
            Column("Revenue", lambda row: Money(row.won_minor, currency), file="won_minor", style="num"),
            Column(
                "Revenue for each 1 spent",
                lambda row: f"{row.won_minor / row.spent_minor:.1f}" if row.spent_minor else None,
                style="num",
            ),
            only_in_file("basis", lambda row: basis),
        ),
    )


def question_of(request: AnyRequest, viewer: Viewer) -> Question:
    """Return the question about the days in the address, for the business's own leads. Raises InvalidInput."""
    days = {name: request.query_params[name] for name in ("from", "to") if request.query_params.get(name)}
    question = read_question({**days, "zone": zone_of(viewer.zone).key, "mode": viewer.mode}, clock.now())
    return msgspec.structs.replace(question, business_id=viewer.owner)


# Speed.


@get(f"{HOME}/speed")
async def show_speed(request: AnyRequest) -> Response[bytes]:
    """Show the durations of every step, and how soon the business reaches the people."""
    viewer = await visitor(request, CallerKind.business)
    question = question_of(request, viewer)
    by = {"hour": SpeedGrouping.hour, "channel": SpeedGrouping.channel, "vertical": SpeedGrouping.vertical}.get(
        request.query_params.get("by", ""), SpeedGrouping.hour
    )
    report = await load_speed(services(request).reports, question, by)
    if wants_csv(request):
        return await STEPS.download(_steps(report))
    by_hour = _by_hour(report) if by is SpeedGrouping.hour else None
    return await business_page(
        request,
        viewer,
        "business/speed.html",
        report=report,
        tabs=TABS,
        listing=STEPS,
        steps=steps_of(report.total),
        waterfall=_waterfall(report.total),
        by_hour=by_hour,
    )


def steps_of(pace: GroupSpeed) -> list[TimedStep]:
    """Return the steps of a group of leads with their percentiles."""
    return [
        TimedStep(
            group=pace.name,
            step=step.name,
            whose=step.whose,
            leads=step.took.leads,
            p50_ms=step.took.p50_ms,
            p95_ms=step.took.p95_ms,
            p99_ms=step.took.p99_ms,
            waiting=step.took.waiting,
        )
        for step in pace.waterfall
    ]


def _steps(report: SpeedReport) -> list[TimedStep]:
    """Return the steps of all leads, then those of each group; the last line states the basis of the report."""
    basis = TimedStep(
        group="basis",
        step=report.basis.words,
        whose="",
        leads=report.total.leads,
        p50_ms=None,
        p95_ms=None,
        p99_ms=None,
    )
    return [*(step for pace in (report.total, *report.groups) for step in steps_of(pace)), basis]


def _waterfall(pace: GroupSpeed) -> Markup | None:
    """Draw the medians of the steps up to the confirmation; the later steps take a thousand times as long."""
    tones: dict[str, charts.Tone] = {"own": "a", "business": "b", "own and business": "c", "provider": "muted"}
    steps = [
        charts.WaterfallStep(
            name=STEP_NAMES.get(step.name, step.name), value=step.took.p50_ms / 1000, tone=tones.get(step.whose, "a")
        )
        for step in pace.waterfall[1:5]
        if step.took.p50_ms is not None
    ]
    if not steps:
        return None
    return charts.waterfall("From us to you, median", steps, show=duration, about="Each step at its own median.")


def _by_hour(report: SpeedReport) -> Markup | None:
    groups = {group.key: group for group in report.groups}
    hours = [f"{hour:02}" for hour in range(24)]
    medians = [groups[hour].response.contact.p50_ms if hour in groups else None for hour in hours]
    if not any(median is not None for median in medians):
        return None
    minutes = tuple(None if median is None else median / 60_000 for median in medians)
    series = charts.Series(name="Median", values=minutes)
    return charts.line(
        "Minutes until you reached them, by hour of receipt",
        [f"{hour}:00" for hour in hours],
        [series],
        about="By the hour in which we received the lead. People not reached yet count as not yet; an hour in which "
        "fewer than half were reached has no point.",
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


# Does it pay?


@get([HOME, f"{HOME}/roi"])
async def show_roi(request: AnyRequest) -> Response[bytes]:
    """Show whether exclusive leads pay better than shared leads, and the data behind the answer."""
    viewer = await visitor(request, CallerKind.business)
    return await _roi_page(request, viewer)


async def _roi_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    question = msgspec.structs.replace(question_of(request, viewer), mode="live")
    question = question if request.query_params.get("from") else half_a_year(question)
    report = await load_roi(services(request).reports, question)
    if wants_csv(request):
        return await RETURN_FIGURES.download(_roi_rows(report))
    by_business = {assumption.business_id: assumption for assumption in reversed(report.assumptions)}
    assumption = by_business.get(viewer.owner)
    return await business_page(
        request,
        viewer,
        "business/roi.html",
        report=report,
        roi=report.answer,
        tabs=TABS,
        plot=draw_returns(report),
        form=show_form(AssumptionForm, _form_values(assumption, report.currency), currency=report.currency),
        comparison=COMPARISON,
        rows=compared(report),
        assumption=assumption,
        prices=_price_names(report.answer),
        range_listing=RANGES,
        ranges=compared(report, with_ranges=True),
        benchmark=by_business.get(None),
        effect=_effect(report.answer),
        won_jobs=won_words(report),
    )


def _form_values(assumption: Assumption | None, currency: str) -> dict[str, object]:
    """Return the saved assumptions of the business as the values of its form."""
    if assumption is None:
        return {}
    return {
        "cost": field_amount(assumption.shared_cost_minor, currency),
        "leads": assumption.shared_leads or "",
        "won": assumption.shared_won or "",
        "weeks": assumption.shared_weeks or "",
        "value": field_amount(assumption.shared_value_minor, currency),
        "labour": field_amount(assumption.labour_minor or None, currency),
        "copies": "" if assumption.copies is None else f"{assumption.copies:.10g}",
        "source": assumption.source,
    }


def compared(report: RoiReport, *, with_ranges: bool = False) -> list[ComparedFigure]:
    """Return each figure of both kinds of lead in words; with ranges, only figures with one: `3.1 (2.4 to 3.9)`."""
    ours, theirs, currency = report.answer.exclusive, report.answer.shared, report.currency

    def cell(figures: SourceFigures | None, name: str, kind: str) -> str:
        value = getattr(figures, name) if figures else None
        if isinstance(value, Figure) and not with_ranges:
            value = value.value
        return _spoken(value, kind, currency)

    rows = (
        ("Leads", "leads", "count"),
        ("Still open", "open", "count"),
        ("Jobs won in weeks that ended", "wins", "count"),
        ("Spent, labour included", "spent_minor", "money"),
        ("Cost per lead", "spent_per_lead_minor", "money"),
        ("Contacted", "contact_rate", "rate"),
        ("Qualified", "qualify_rate", "rate"),
        ("Won", "win_rate", "rate"),
        ("Cost per contacted", "per_contacted_minor", "money"),
        ("Cost per qualified", "per_qualified_minor", "money"),
        ("Cost per won job", "per_won_minor", "money"),
        ("Value of a won job", "value_per_win_minor", "money"),
        ("Revenue for each 1 spent", "revenue_per_unit", "ratio"),
    )
    return [
        ComparedFigure(figure=label, exclusive=cell(ours, name, kind), shared=cell(theirs, name, kind))
        for label, name, kind in rows
        if not with_ranges or isinstance(getattr(ours, name), Figure)
    ]


def _spoken(value: Any, kind: str, currency: str) -> str:
    shows: dict[str, Callable[[Any], str]] = {
        "count": lambda figure: number(figure),
        "money": lambda figure: money(round(figure), currency),
        "rate": lambda figure: percent(figure, 1),
        "ratio": lambda figure: f"{figure:.2f}",
    }
    show = shows[kind]
    if value is None:
        return DASH
    if isinstance(value, Figure):
        if value.low is None or value.high is None:
            return show(value.value)
        return f"{show(value.value)} ({show(value.low)} to {show(value.high)})"
    return show(value)


def _price_names(roi: Roi) -> list[tuple[str, str]]:
    """Return each price of the comparison in words, with the answer at that price."""
    return [(_price_name(case.change), f"{case.sentence[:1].upper()}{case.sentence[1:]}.") for case in roi.prices]


def _price_name(change: float) -> str:
    if change == 0:
        return "At today's price"
    return f"{abs(change):.0%} {'more expensive' if change > 0 else 'cheaper'}"


def _effect(roi: Roi) -> Markup | None:
    """Draw the win rates by the time until the person was reached; None if they are not known."""
    if roi.speed is None or not roi.speed.bands:
        return None
    rows = [
        charts.Interval(
            name=f"{band.band} ({band.leads})",
            middle=100 * band.win_rate.value,
            low=100 * (band.win_rate.value if band.win_rate.low is None else band.win_rate.low),
            high=100 * (band.win_rate.value if band.win_rate.high is None else band.win_rate.high),
        )
        for band in roi.speed.bands
    ]
    return charts.intervals(
        "Won, by time until you reached them",
        rows,
        show=lambda value: f"{value:.0f}%",
        about="Share of leads won. The bar is the range in which the true share most likely lies. In brackets: leads.",
    )


def _roi_rows(report: RoiReport) -> Iterator[ReturnFigure]:
    yield ReturnFigure(about="report", figure="basis", value=report.basis.words, low="", high="")
    yield ReturnFigure(about="report", figure="currency", value=report.currency, low="", high="")
    yield ReturnFigure(
        about="answer", figure=report.answer.verdict.value, value=report.answer.sentence, low="", high=""
    )
    if report.early is not None:
        share = report.early.share
        yield ReturnFigure(about="early figure", figure="", value=report.early.sentence, low="", high="")
        yield ReturnFigure(
            about="early figure",
            figure="win_rate",
            value=_text(share.value),
            low=_text(share.low),
            high=_text(share.high),
        )
    for case in report.answer.prices:
        yield ReturnFigure(about="price changed by", figure=f"{case.change:+.0%}", value=case.sentence, low="", high="")
    for name in report.won.__struct_fields__:
        yield ReturnFigure(about="won so far", figure=name, value=_text(getattr(report.won, name)), low="", high="")
    for about, figures in (("exclusive", report.answer.exclusive), ("shared", report.answer.shared)):
        for name in SourceFigures.__struct_fields__ if figures else ():
            figure = getattr(figures, name)
            value, low, high = _text(figure), "", ""
            if isinstance(figure, Figure):
                value, low, high = _text(figure.value), _text(figure.low), _text(figure.high)
            yield ReturnFigure(about=about, figure=name, value=value, low=low, high=high)
    for note in report.answer.notes:
        yield ReturnFigure(about="note", figure="", value=note, low="", high="")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@post(f"{HOME}/roi")
async def assume(request: AnyRequest) -> Response[bytes]:
    """Save the business's own assumptions about the cost and revenue of shared leads."""
    viewer, fields = await changing(request, CallerKind.business)
    pool, now = services(request).pool, clock.now()
    try:
        form = fill(AssumptionForm, fields)
        async with session(pool) as connection:
            currency = (await load_wallet_summary(connection, viewer)).currency
        cost = read_amount(form.cost, currency, "cost")
        win_rate = _win_rate(form, cost)
        value, labour = read_amount(form.value, currency, "value"), read_amount(form.labour, currency, "labour") or 0
        async with transaction(pool) as connection:
            await save_assumption(
                connection,
                clock.new_id(),
                viewer.owner,
                now,
                vertical=form.vertical,
                currency=currency,
                shared_cost_minor=cost,
                shared_win_rate=win_rate,
                shared_leads=form.leads,
                shared_won=form.won,
                shared_weeks=form.weeks,
                shared_value_minor=value,
                copies=form.copies,
                labour_minor=labour,
                source=form.source or "our own figures",
            )
            await audit.record(
                connection,
                now,
                viewer.actor,
                "roi.assume",
                viewer.account,
                vertical=form.vertical,
                shared_cost_minor=cost,
                labour_minor=labour,
            )
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _roi_page(request, viewer))
    return redirect(request, f"{HOME}/roi", "Saved. The comparison uses these figures.")


_FIELDS: Final = {
    "shared_cost_minor": "cost",
    "shared_win_rate": "leads",
    "shared_leads": "leads",
    "shared_won": "won",
    "shared_weeks": "weeks",
}
"Field of the form for each part of a stated share; the form asks for numbers in place of the share."


def _win_rate(form: AssumptionForm, cost_minor: int | None) -> float | None:
    """Return the share of shared leads won. Raises InvalidInput if the form has some of its figures and not all."""
    share = StatedShare(
        shared_cost_minor=cost_minor, shared_leads=form.leads, shared_won=form.won, shared_weeks=form.weeks
    )
    match share.fault():
        case (name, ShareFault.too_many_won):
            detail = f"You cannot have won more than the {form.leads} leads."
            raise field_fault(_FIELDS[name], FaultCode.value_not_allowed, detail)
        case (name, _):
            detail = (
                "Enter the price, the leads that you counted, how many you won and within how many weeks. Each is "
                "needed."
            )
            raise field_fault(_FIELDS[name], FaultCode.field_missing, detail)
    return share.win_rate


# Sources.


@get(f"{HOME}/sources")
async def show_sources(request: AnyRequest) -> Response[bytes]:
    """Show the sources of the leads, with the outcomes of each source."""
    viewer = await visitor(request, CallerKind.business)
    question = question_of(request, viewer)
    async with session(services(request).reports) as connection:
        rows = await store.list_sources(connection, viewer.owner, viewer.mode, question.since, question.until)
    async with session(services(request).pool) as connection:
        wallet_summary = await load_wallet_summary(connection, viewer)
    report_basis = basis(question, "the time at which each lead was shown to you", clock.now())
    listing = source_listing(wallet_summary.currency, question.first, report_basis.words)
    if wants_csv(request):
        return await listing.download(rows)
    return await business_page(
        request,
        viewer,
        "business/sources.html",
        wallet_summary=wallet_summary,
        listing=listing,
        rows=rows,
        basis=report_basis,
        tabs=TABS,
    )


handlers = (show_speed, show_roi, assume, show_sources)
