"""The reports of a business: how fast it is served and answers, whether leads pay, where they came from."""

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
from marketplace.portal.forms import changing, fill, show_again, show_form
from marketplace.portal.frame import DASH, duration, field_amount, money, number, percent, redirect, words, zone_of
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file, took
from marketplace.portal.session import Viewer, visitor
from marketplace.reports.question import Question, basis, read_question
from marketplace.reports.roi import Assumption, RoiReport, load_roi, save_assumption
from marketplace.reports.roi import usual as half_a_year
from marketplace.reports.speed import GroupSpeed, SpeedGrouping, SpeedReport, load_speed
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
    (f"{HOME}/shared-leads", "Shared leads"),
)

Amount = Annotated[str, Meta(max_length=20)]
DECIMAL: Final = {"inputmode": "decimal"}


class AssumptionForm(msgspec.Struct, frozen=True, kw_only=True):
    """What the business takes shared leads to cost and to bring; rates in per cent, amounts as people write them."""

    cost: Annotated[Amount, Meta(title="A shared lead costs, in {currency}", extra=DECIMAL)] | None = None
    win_percent: Annotated[float, Meta(ge=0, le=100, title="Of 100 shared leads we win")] | None = None
    value: (
        Annotated[
            Amount,
            Meta(
                title="A job from them is worth, in {currency}",
                description="Empty: the same as your exclusive ones.",
                extra=DECIMAL,
            ),
        ]
        | None
    ) = None
    labour: (
        Annotated[
            Amount,
            Meta(
                title="Work on any lead costs us, in {currency}",
                description="Calls and visits. It is added to the price of both.",
                extra=DECIMAL,
            ),
        ]
        | None
    ) = None
    copies: Annotated[float, Meta(ge=1, le=1_000, title="A shared lead is sold to so many firms")] | None = None
    source: Annotated[str, Meta(max_length=200, title="Where these figures are from")] | None = None
    vertical: Slug | None = None


class TimedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step in the life of the leads of one group, with the percentiles of the time that it took."""

    group: str
    step: str
    whose: str
    leads: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class ReturnFigure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of the comparison in the file; amounts in minor units."""

    about: str
    figure: str
    value: str
    low: str
    high: str


class ComparedFigure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both sides in words."""

    figure: str
    exclusive: str
    shared: str


STEP_NAMES: Final = {
    "received": "Person to us",
    "qualified": "Checked",
    "awarded": "Chosen for you",
    "exposed": "Connected to you",
    "acknowledged": "You confirmed",
    "touched": "You first tried",
    "contacted": "You reached them",
}
WHOSE_TIME: Final = {
    "own": "Ours",
    "business": "Yours",
    "own and business": "Ours and yours",
    "provider": "The person's and the form's",
}


def _percentile(heading: str, name: str) -> Column[TimedStep]:
    return Column(
        heading,
        lambda step: took(getattr(step, name)),
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
RANGES: Final = msgspec.structs.replace(COMPARISON, caption="How sure the figures are")
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
    """Return the list of sources, with amounts in `currency`. Every line of the file repeats the basis."""
    leads = f"/business/leads?since={first}"
    return Listing(
        caption="Sources",
        name="sources",
        columns=(
            Column(
                "Source",
                lambda row: words(row.source) if row.source else "Not told",
                file="source",
                value=lambda row: row.source or "not told",
            ),
            Column("Leads", lambda row: Link(leads, row.leads), file="leads", value=lambda row: row.leads, style="num"),
            Column("Contacted", lambda row: row.contacted, file="contacted", style="num"),
            Column("Won", lambda row: row.won, file="won", style="num"),
            Column("Given back", lambda row: row.returned, file="returned", style="num"),
            Column("Spent", lambda row: Money(row.spent_minor or 0, currency), file="spent_minor", style="num"),
            Column("Won, worth", lambda row: Money(row.won_minor, currency), file="won_minor", style="num"),
            Column(
                "Back for each 1",
                lambda row: f"{row.won_minor / row.spent_minor:.1f}" if row.spent_minor else None,
                style="num",
            ),
            only_in_file("basis", lambda row: basis),
        ),
    )


def question_of(request: AnyRequest, viewer: Viewer) -> Question:
    """The days in the address, in the viewer's zone and mode, of its own leads alone. Raises InvalidInput."""
    asked = {name: request.query_params[name] for name in ("from", "to") if request.query_params.get(name)}
    question = read_question({**asked, "zone": zone_of(viewer.zone).key, "mode": viewer.mode}, clock.now())
    return msgspec.structs.replace(question, business_id=viewer.owner)


# Speed.


@get(f"{HOME}/speed")
async def show_speed(request: AnyRequest) -> Response[bytes]:
    """Shows where a lead's time goes, and how soon the business answers."""
    viewer = await visitor(request, CallerKind.business)
    question = question_of(request, viewer)
    by = {"hour": SpeedGrouping.hour, "channel": SpeedGrouping.channel, "vertical": SpeedGrouping.vertical}.get(
        request.query_params.get("by", ""), SpeedGrouping.hour
    )
    report = await load_speed(services(request).reports, question, by)
    if wants_csv(request):
        return await STEPS.download(_steps(report))
    return await business_page(
        request,
        viewer,
        "business/speed.html",
        report=report,
        tabs=TABS,
        listing=STEPS,
        steps=steps_of(report.total),
        waterfall=_waterfall(report.total),
        by_hour=_by_hour(report) if by is SpeedGrouping.hour else None,
    )


def steps_of(pace: GroupSpeed) -> list[TimedStep]:
    return [
        TimedStep(
            group=pace.name,
            step=step.name,
            whose=step.whose,
            leads=step.took.leads,
            p50_ms=step.took.p50_ms,
            p95_ms=step.took.p95_ms,
            p99_ms=step.took.p99_ms,
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
    """The steps up to the confirmation, at their medians; what follows takes a thousand times as long."""
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
    found = {one.key: one for one in report.groups}
    if not found:
        return None
    hours = [f"{hour:02}" for hour in range(24)]
    values = [found[hour].response.contact.p50_ms if hour in found else None for hour in hours]
    if not any(value is not None for value in values):
        return None
    series = charts.Series(name="Median", values=tuple(None if one is None else one / 60_000 for one in values))
    return charts.line(
        "Minutes until you reached them, by hour of receipt",
        [f"{hour}:00" for hour in hours],
        [series],
        about="The hour in which we received the lead; the median of the leads that you reached.",
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


# Does it pay?


@get([HOME, f"{HOME}/roi"])
async def show_roi(request: AnyRequest) -> Response[bytes]:
    """Shows whether exclusive leads pay better than shared ones, and what that rests on."""
    viewer = await visitor(request, CallerKind.business)
    return await _roi_page(request, viewer)


async def _roi_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    question = msgspec.structs.replace(question_of(request, viewer), mode="live")
    question = question if request.query_params.get("from") else half_a_year(question)
    report = await load_roi(services(request).reports, question)
    if wants_csv(request):
        return await RETURN_FIGURES.download(_roi_lines(report))
    own = next((one for one in report.assumptions if one.business_id == viewer.owner), None)
    return await business_page(
        request,
        viewer,
        "business/roi.html",
        report=report,
        roi=report.answer,
        tabs=TABS,
        plot=draw_returns(report),
        form=show_form(AssumptionForm, _declared(own, report.currency), currency=report.currency),
        comparison=COMPARISON,
        rows=compared(report),
        own=own,
        prices=_price_names(report.answer),
        range_listing=RANGES,
        ranges=compared(report, with_ranges=True),
        benchmark=next((one for one in report.assumptions if one.business_id is None), None),
        effect=_effect(report.answer),
        won=won_words(report),
    )


def _declared(own: Assumption | None, currency: str) -> dict[str, object]:
    """Return the business's own figures as its form holds them."""
    if own is None:
        return {}
    return {
        "cost": field_amount(own.shared_cost_minor, currency),
        "win_percent": "" if own.shared_win_rate is None else f"{own.shared_win_rate * 100:.10g}",
        "value": field_amount(own.shared_value_minor, currency),
        "labour": field_amount(own.labour_minor or None, currency),
        "copies": "" if own.copies is None else f"{own.copies:.10g}",
        "source": own.source,
    }


def compared(report: RoiReport, *, with_ranges: bool = False) -> list[ComparedFigure]:
    """Each figure of both sides in words; with ranges, only figures that have one, as `3.1 (2.4 to 3.9)`."""
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
        ("Back for each 1 spent", "revenue_per_unit", "ratio"),
    )
    return [
        ComparedFigure(figure=label, exclusive=cell(ours, name, kind), shared=cell(theirs, name, kind))
        for label, name, kind in rows
        if not with_ranges or isinstance(getattr(ours, name), Figure)
    ]


def _spoken(value: Any, kind: str, currency: str) -> str:
    shows: dict[str, Callable[[Any], str]] = {
        "count": lambda one: number(one),
        "money": lambda one: money(round(one), currency),
        "rate": lambda one: percent(one, 1),
        "ratio": lambda one: f"{one:.2f}",
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
    """Each price that was tried, with its answer."""
    return [(_price_name(case.change), f"{case.sentence[:1].upper()}{case.sentence[1:]}.") for case in roi.prices]


def _price_name(change: float) -> str:
    if change == 0:
        return "At today's price"
    return f"{abs(change):.0%} {'dearer' if change > 0 else 'cheaper'}"


def _effect(roi: Roi) -> Markup | None:
    """Win rates by how soon the person was reached."""
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
        about="Share of leads won; the bar is the range in which the true share most likely lies. In brackets how many "
        "leads.",
    )


def _roi_lines(report: RoiReport) -> Iterator[ReturnFigure]:
    yield ReturnFigure(about="report", figure="basis", value=report.basis.words, low="", high="")
    yield ReturnFigure(about="report", figure="currency", value=report.currency, low="", high="")
    yield ReturnFigure(
        about="answer", figure=report.answer.verdict.value, value=report.answer.sentence, low="", high=""
    )
    for case in report.answer.prices:
        yield ReturnFigure(about="price changed by", figure=f"{case.change:+.0%}", value=case.sentence, low="", high="")
    for name in report.won.__struct_fields__:
        yield ReturnFigure(about="won so far", figure=name, value=_text(getattr(report.won, name)), low="", high="")
    for about, figures in (("exclusive", report.answer.exclusive), ("shared", report.answer.shared)):
        for name in SourceFigures.__struct_fields__ if figures else ():
            value = getattr(figures, name)
            low, high = ("", "") if not isinstance(value, Figure) else (_text(value.low), _text(value.high))
            yield ReturnFigure(
                about=about,
                figure=name,
                value=_text(value.value if isinstance(value, Figure) else value),
                low=low,
                high=high,
            )
    for note in report.answer.notes:
        yield ReturnFigure(about="note", figure="", value=note, low="", high="")


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


@post(f"{HOME}/roi")
async def assume(request: AnyRequest) -> Response[bytes]:
    """Declares what shared leads cost and bring, labelled as the business's own word."""
    viewer, given = await changing(request, CallerKind.business)
    found, now = services(request), clock.now()
    try:
        form = fill(AssumptionForm, given)
        async with session(found.pool) as connection:
            currency = (await load_wallet_summary(connection, viewer)).currency
        cost = read_amount(form.cost, currency, "cost")
        if (cost is None) != (form.win_percent is None):
            missing = "cost" if cost is None else "win_percent"
            raise field_fault(
                missing, FaultCode.field_missing, "Give cost and share won together: neither says anything alone."
            )
        value, labour = read_amount(form.value, currency, "value"), read_amount(form.labour, currency, "labour") or 0
        async with transaction(found.pool) as connection:
            await save_assumption(
                connection,
                clock.new_id(),
                viewer.owner,
                now,
                vertical=form.vertical,
                currency=currency,
                shared_cost_minor=cost,
                shared_win_rate=None if form.win_percent is None else form.win_percent / 100,
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
        return await show_again(request, given, error, _roi_page(request, viewer))
    return redirect(request, f"{HOME}/roi", "Saved, and counted in.")


# Sources.


@get(f"{HOME}/sources")
async def show_sources(request: AnyRequest) -> Response[bytes]:
    """Shows where leads came from and what became of them."""
    viewer = await visitor(request, CallerKind.business)
    question = question_of(request, viewer)
    async with session(services(request).reports) as connection:
        rows = await store.list_sources(connection, viewer.owner, viewer.mode, question.since, question.until)
    async with session(services(request).pool) as connection:
        wallet_summary = await load_wallet_summary(connection, viewer)
    shown = basis(question, "the time at which you were shown each lead", clock.now())
    listing = source_listing(wallet_summary.currency, question.first, shown.words)
    if wants_csv(request):
        return await listing.download(rows)
    return await business_page(
        request,
        viewer,
        "business/sources.html",
        wallet_summary=wallet_summary,
        listing=listing,
        rows=rows,
        basis=shown,
        tabs=TABS,
    )


handlers = (show_speed, show_roi, assume, show_sources)
