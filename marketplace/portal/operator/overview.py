"""Overview for operators: live status, figures that need attention, recent decisions, and the funnel since yesterday.

The KPI row, the checks and the recent decisions are updated live; the funnel and the delivery times are not.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any, Final

import msgspec
from litestar import Response, get
from markupsafe import Markup

from marketplace.database.db import session
from marketplace.intake.admission import Admission
from marketplace.portal import charts
from marketplace.portal.frame import duration, page, partial, zone_of
from marketplace.portal.live import LivePart, show_part
from marketplace.portal.operator import lead_store
from marketplace.portal.operator.lead_list import DECISIONS
from marketplace.portal.operator.lead_store import Alarms
from marketplace.portal.operator.system import Check
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.step_words import STEP_NAMES
from marketplace.reports.figures import load_leads
from marketplace.reports.funnel import FunnelStep, count_funnel
from marketplace.reports.question import Question, basis
from marketplace.reports.speed import BANDS, TimeBands, bands_of
from marketplace.runtime import clock
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services

HOME: Final = "/operator"
RECENT: Final = timedelta(minutes=15)
"Span of the rate of accepted leads: long enough for a stable figure, short enough to be current."
RECENT_DECISIONS: Final = 14
ARRIVALS: Final = 60
"Latest leads whose gaps give the usual gap."
FEWEST_ARRIVALS: Final = 6
SILENT_TIMES: Final = 6
"Multiple of the median gap that is an alarm. Gaps are about exponential: six medians come by chance once in 64."
LEAST_SILENCE: Final = timedelta(minutes=2)
TARGET_MS: Final = 15.0
"Target for the median time from acceptance to delivery."
LATE_SECONDS: Final = 120.0


class IntakeSilence(msgspec.Struct, frozen=True, kw_only=True):
    """Time since the last accepted lead, the usual gap (None: too few leads), and whether the silence is an alarm."""

    lasted_seconds: float | None
    usual_seconds: float | None
    alarming: bool


def measure_silence(arrivals: Sequence[datetime], now: datetime) -> IntakeSilence:
    """Return the time since the last accepted lead. `arrivals` are the times of the latest leads, newest first."""
    if not arrivals:
        return IntakeSilence(lasted_seconds=None, usual_seconds=None, alarming=False)
    lasted = max(0.0, (now - arrivals[0]).total_seconds())
    if len(arrivals) < FEWEST_ARRIVALS:
        return IntakeSilence(lasted_seconds=lasted, usual_seconds=None, alarming=False)
    usual = median((later - earlier).total_seconds() for later, earlier in pairwise(arrivals))
    alarming = lasted > max(SILENT_TIMES * usual, LEAST_SILENCE.total_seconds())
    return IntakeSilence(lasted_seconds=lasted, usual_seconds=usual, alarming=alarming)


def list_checks(silence: IntakeSilence, alarms: Alarms, limit: float | None = None) -> tuple[Check, ...]:
    """Return the checks of the overview, each with a link to the page that shows more.

    `limit` is the number of inquiries taken in per second in an overload, None without one.
    """
    set_aside = _count(alarms.set_aside, "job was", "jobs were")
    endpoints = _count(alarms.endpoints, "endpoint", "endpoints")
    answers = _count(alarms.answers, "endpoint", "endpoints")
    poor = _count(alarms.poor, "business", "businesses")
    returns = _count(alarms.returns, "return", "returns")
    suppressing = _count(alarms.suppressing, "provider", "providers")
    cards = _count(alarms.cards, "scorecard is", "scorecards are")
    return (
        _check_silence(silence),
        _check_limit(limit),
        _check_delay(alarms.overdue_seconds),
        _check_none(
            alarms.set_aside,
            f"{set_aside} set aside after repeated failures.",
            "No work was set aside.",
            ("/operator/system", "System"),
        ),
        _check_none(
            alarms.failing,
            f"{alarms.failing:,} of {endpoints} paused after failures.",
            "No endpoint is paused after failures.",
            ("/operator/deliveries", "Deliveries"),
        ),
        _check_none(
            alarms.answers,
            f"{answers} gave answers that nobody understands or that look new.",
            "Every endpoint's answers are understood.",
            ("/operator/deliveries", "Deliveries"),
        ),
        _check_none(
            alarms.poor,
            f"{poor} cannot pay for another lead.",
            "Every wallet can pay for another lead.",
            ("/operator/businesses", "Businesses"),
        ),
        _check_none(
            alarms.returns, f"{returns} to decide.", "No return is waiting.", ("/operator/returns", "Returns desk")
        ),
        _check_none(
            alarms.suppressing,
            f"{suppressing} suppressed unusually many people today.",
            "No provider suppressed unusually many people today.",
            ("/operator/compliance", "Compliance"),
        ),
        _check_none(
            alarms.cards,
            f"{cards} suspended by the weekly check; leads are ranked without.",
            "No scorecard is suspended.",
            ("/operator/verticals", "Verticals"),
        ),
        *_check_requests(alarms),
    )


def _check_requests(alarms: Alarms) -> tuple[Check, ...]:
    """Return the checks of people's requests: each reached its business and ended in time."""
    notices = _count(alarms.notices, "notice was", "notices were")
    deletions = _count(alarms.deletions, "deletion request is", "deletion requests are")
    return (
        _check_none(
            alarms.notices,
            f"{notices} not acknowledged in time: call the business.",
            "Every notice was acknowledged in time or is not due yet.",
            ("/operator/compliance/notices?state=overdue", "Notices"),
        ),
        _check_none(
            alarms.deletions,
            f"{deletions} past the deadline.",
            "No deletion request is past its deadline.",
            ("/operator/compliance/deletions?state=late", "Deletion requests"),
        ),
    )


def _check_none(count: int, problem: str, all_clear: str, link: tuple[str, str]) -> Check:
    """Return the check of a figure that must be 0."""
    return (False, problem, *link) if count else (True, all_clear, *link)


def _check_delay(overdue_seconds: float) -> Check:
    text = f"The oldest work is {duration(overdue_seconds)} late." if overdue_seconds >= 1 else "No work is late."
    return overdue_seconds <= LATE_SECONDS, text, "/operator/system", "System"


def _check_limit(limit: float | None) -> Check:
    link = ("/operator/system", "System")
    if limit is None:
        return True, "Every inquiry is taken in.", *link
    return False, f"More inquiries arrive than can be handled: about {limit:,.0f} a second are taken in.", *link


def _check_silence(silence: IntakeSilence) -> Check:
    link = ("/operator/providers", "Providers")
    if silence.lasted_seconds is None:
        return None, "No lead has been accepted yet.", *link
    usual = f", usual gap {duration(silence.usual_seconds)}" if silence.usual_seconds is not None else ""
    if silence.alarming:
        return False, f"No accepted lead for {duration(silence.lasted_seconds)}{usual}.", *link
    return True, f"Last accepted lead {duration(silence.lasted_seconds)} ago{usual}.", *link


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"


# Live parts.


async def _kpi_row(request: AnyRequest, viewer: Viewer) -> str:
    now = clock.now()
    async with session(services(request).reports) as connection:
        intake = await lead_store.count_fresh(connection, now - RECENT)
        alarms = await lead_store.read_alarms(connection, now)
        arrivals = await lead_store.list_arrivals(connection, ARRIVALS)
    silence = measure_silence(arrivals, now)
    admission: Admission = request.app.state.admission
    return partial(
        request,
        viewer,
        "operator/kpi_row.html",
        intake=intake,
        alarms=alarms,
        silence=silence,
        minutes=RECENT.total_seconds() / 60,
        checks=list_checks(silence, alarms, admission.limit),
    )


async def _recent_decisions(request: AnyRequest, viewer: Viewer) -> str:
    async with session(services(request).reports) as connection:
        rows = await lead_store.list_latest_leads(connection, RECENT_DECISIONS)
    return partial(request, viewer, "operator/recent_decisions.html", listing=DECISIONS, rows=rows)


KPI_ROW: Final = LivePart(name="control-kpi-row", kinds=(CallerKind.operator,), make=_kpi_row)
RECENT_DECISIONS_PART: Final = LivePart(
    name="control-recent-decisions", kinds=(CallerKind.operator,), make=_recent_decisions
)
PARTS: Final = (KPI_ROW, RECENT_DECISIONS_PART)


# The page.


@get(HOME)
async def show_overview(request: AnyRequest) -> Response[bytes]:
    """Show the overview, with its live parts as they are now."""
    viewer = await visitor(request, CallerKind.operator)
    today = clock.now().astimezone(zone_of(viewer.zone)).date()
    question = Question(first=today - timedelta(days=1), last=today, zone=viewer.zone)
    leads, kpi_row, recent_decisions = await asyncio.gather(
        load_leads(services(request).reports, question, ("step", "why", *BANDS)),
        show_part(request, viewer, KPI_ROW),
        show_part(request, viewer, RECENT_DECISIONS_PART),
    )
    steps, bands = await asyncio.to_thread(lambda: (count_funnel(question, leads), bands_of(question, leads)))
    return page(
        request,
        viewer,
        "operator/overview.html",
        kpi_row=kpi_row,
        recent_decisions=recent_decisions,
        funnel=draw_funnel(steps),
        steps=steps,
        step_names=STEP_NAMES,
        bands=draw_bands(bands),
        total=bands.total,
        basis=basis(question, "received time", leads.as_of),
        target_ms=TARGET_MS,
        rows_of=rows_of,
    )


def rows_of(address: str) -> str:
    """Return the address of the leads that a figure of a report counts."""
    return f"/operator/leads?{address.partition('?')[2]}"


def draw_funnel(steps: Sequence[FunnelStep]) -> Markup | None:
    """Draw the steps from received to won, each with its most frequent losses, or return None without leads."""
    if not steps or not steps[0].leads:
        return None
    stages, losses = [], ""
    for step in steps:
        stages.append(
            charts.FunnelStage(name=STEP_NAMES[step.name], count=step.leads, href=rows_of(step.rows), lost=losses)
        )
        losses = ", ".join(f"{loss.leads:,} {loss.why.replace('_', ' ')}" for loss in step.losses[:3] if not loss.open)
    return charts.funnel("Steps that leads reached", stages, about="Live inquiries received since yesterday.")


def draw_bands(bands: TimeBands) -> Markup | None:
    """Draw the time from receipt to delivery by hour of the day, at three percentiles, or return None without leads."""
    if not bands.total.leads:
        return None
    names: tuple[tuple[str, str, charts.Tone], ...]
    names = (("p99_ms", "99%", "c"), ("p95_ms", "95%", "b"), ("p50_ms", "Median", "a"))
    series = [
        charts.Series(name=name, tone=tone, values=tuple(getattr(hour, field, None) for hour in bands.hours))
        for field, name, tone in names
    ]
    hours = [f"{hour:02}:00" for hour in range(24)]
    return charts.line(
        "Accepted to delivered, milliseconds",
        hours,
        series,
        area=False,
        about="By hour of receipt, since yesterday: median, 95th and 99th percentile.",
    )


handlers: tuple[Any, ...] = (show_overview,)
