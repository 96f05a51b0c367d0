"""The control room: how the floor stands at this moment, on one screen, with silence as an alarm.

The KPI row, the alarms and the recent decisions renew themselves; the funnel and the bands are of the last day.
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
from marketplace.portal import charts
from marketplace.portal.frame import duration, page, partial, zone_of
from marketplace.portal.live import LivePart, show_part
from marketplace.portal.operator import lead_store
from marketplace.portal.operator.lead_store import Alarms
from marketplace.portal.session import Viewer, visitor
from marketplace.reports.figures import load_leads
from marketplace.reports.funnel import FunnelStep, count_funnel
from marketplace.reports.question import Question, basis
from marketplace.reports.speed import BANDS, TimeBands, bands_of
from marketplace.runtime import clock
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services

HOME: Final = "/operator"
FRESH: Final = timedelta(minutes=15)
"Over which the pace is measured: long enough to be a number, short enough to be now."
RECENT_DECISIONS: Final = 14
ARRIVALS: Final = 60
"Leads whose gaps say what is usual."
FEWEST_ARRIVALS: Final = 6
SILENT_TIMES: Final = 6
"Gaps are about exponential: one six times the median comes by chance once in 64, so that it is worth a look."
LEAST_SILENCE: Final = timedelta(minutes=2)
TARGET_MS: Final = 15.0
"From acceptance to delivery at the median: what the marketplace aims at."
LATE_SECONDS: Final = 120.0

Check = tuple[bool | None, str, str, str]


class IntakeSilence(msgspec.Struct, frozen=True, kw_only=True):
    """How long no lead has been accepted, what gap is usual (None: too few leads to say), and whether to worry."""

    lasted_seconds: float | None
    usual_seconds: float | None
    alarming: bool


def silence_of(arrivals: Sequence[datetime], now: datetime) -> IntakeSilence:
    """`arrivals` are the latest, newest first."""
    if not arrivals:
        return IntakeSilence(lasted_seconds=None, usual_seconds=None, alarming=False)
    lasted = max(0.0, (now - arrivals[0]).total_seconds())
    if len(arrivals) < FEWEST_ARRIVALS:
        return IntakeSilence(lasted_seconds=lasted, usual_seconds=None, alarming=False)
    usual = median((later - earlier).total_seconds() for later, earlier in pairwise(arrivals))
    alarming = lasted > max(SILENT_TIMES * usual, LEAST_SILENCE.total_seconds())
    return IntakeSilence(lasted_seconds=lasted, usual_seconds=usual, alarming=alarming)


def alarms_of(silence: IntakeSilence, alarms: Alarms) -> tuple[Check, ...]:
    """What wants somebody now, each with the way there."""
    late = alarms.overdue_seconds
    return (
        _of_silence(silence),
        (late <= LATE_SECONDS, f"The oldest work is {duration(late)} late." if late >= 1 else "No work is late.",
         "/operator/system", "System"),
        (not alarms.set_aside, f"{_pieces(alarms.set_aside)} set aside after failing again and again."
         if alarms.set_aside else "No work was set aside.", "/operator/system", "System"),
        (not alarms.failing, f"{_many(alarms.failing, 'endpoint')} of {alarms.endpoints} left alone after failures."
         if alarms.failing else f"All {_many(alarms.endpoints, 'endpoint')} are well.", "/operator/deliveries",
         "Deliveries"),
        (not alarms.poor, f"{_many(alarms.poor, 'business', 'es')} cannot pay for one more lead." if alarms.poor
         else "Every wallet covers a lead.", "/operator/businesses", "Businesses"),
        (not alarms.returns, f"{_many(alarms.returns, 'return')} to judge." if alarms.returns
         else "No return waits.", "/operator/returns", "Returns desk"),
        (not alarms.suppressing, f"{_many(alarms.suppressing, 'provider')} suppressed unusually many people today."
         if alarms.suppressing else "No provider suppresses unusually many people.", "/operator/compliance",
         "Compliance"),
    )  # fmt: skip


def _of_silence(silence: IntakeSilence) -> Check:
    where = ("/operator/providers", "Providers")
    if silence.lasted_seconds is None:
        return None, "No lead has been accepted yet.", *where
    usual = f", usual gap {duration(silence.usual_seconds)}" if silence.usual_seconds is not None else ""
    if silence.alarming:
        return False, f"No accepted lead for {duration(silence.lasted_seconds)}{usual}.", *where
    return True, f"Last accepted lead {duration(silence.lasted_seconds)} ago{usual}.", *where


def _pieces(count: int) -> str:
    return "1 piece of work was" if count == 1 else f"{count:,} pieces of work were"


def _many(count: int, word: str, ending: str = "s") -> str:
    return f"{count:,} {word}{'' if count == 1 else ending}"


# The pieces that renew themselves.


async def _kpi_row(request: AnyRequest, viewer: Viewer) -> str:
    now = clock.now()
    async with session(services(request).reports) as connection:
        fresh = await lead_store.count_fresh(connection, now - FRESH)
        alarms = await lead_store.read_alarms(connection, now)
        arrivals = await lead_store.list_arrivals(connection, ARRIVALS)
    silence = silence_of(arrivals, now)
    return partial(
        request, viewer, "operator/kpi_row.html", fresh=fresh, alarms=alarms, silence=silence,
        minutes=FRESH.total_seconds() / 60, checks=alarms_of(silence, alarms),
    )  # fmt: skip


async def _recent_decisions(request: AnyRequest, viewer: Viewer) -> str:
    async with session(services(request).reports) as connection:
        rows = await lead_store.list_latest_leads(connection, RECENT_DECISIONS)
    return partial(request, viewer, "operator/recent_decisions.html", rows=rows)


KPI_ROW: Final = LivePart(name="control-kpi-row", kinds=(CallerKind.operator,), make=_kpi_row)
RECENT_DECISIONS_PART: Final = LivePart(
    name="control-recent-decisions", kinds=(CallerKind.operator,), make=_recent_decisions
)
PARTS: Final = (KPI_ROW, RECENT_DECISIONS_PART)


# The page.


@get(HOME)
async def show_overview(request: AnyRequest) -> Response[bytes]:
    """Shows how things stand, and renews what changes."""
    viewer = await visitor(request, CallerKind.operator)
    today = clock.now().astimezone(zone_of(viewer.zone)).date()
    question = Question(first=today - timedelta(days=1), last=today, zone=viewer.zone)
    leads, kpi_row, recent_decisions = await asyncio.gather(
        load_leads(services(request).reports, question, ("step", "why", *BANDS)),
        show_part(request, viewer, KPI_ROW), show_part(request, viewer, RECENT_DECISIONS_PART),
    )  # fmt: skip
    steps, bands = await asyncio.to_thread(lambda: (count_funnel(question, leads), bands_of(question, leads)))
    return page(
        request,
        viewer,
        "operator/overview.html",
        kpi_row=kpi_row,
        recent_decisions=recent_decisions,
        funnel=draw_funnel(steps),
        steps=steps,
        bands=draw_bands(bands),
        total=bands.total,
        basis=basis(question, "received time", leads.as_of),
        target_ms=TARGET_MS,
        rows_of=rows_of,
    )


def rows_of(address: str) -> str:
    """The page of the leads behind a figure of a report."""
    return f"/operator/leads?{address.partition('?')[2]}"


def draw_funnel(steps: Sequence[FunnelStep]) -> Markup | None:
    """From received to won, each with its commonest loss."""
    if not steps or not steps[0].leads:
        return None
    stages, before = [], ""
    for step in steps:
        stages.append(
            charts.FunnelStage(name=step.name.capitalize(), count=step.leads, href=rows_of(step.rows), lost=before)
        )
        before = ", ".join(f"{loss.leads:,} {loss.why.replace('_', ' ')}" for loss in step.losses[:3] if not loss.open)
    return charts.funnel("How far leads came", stages, about="Live leads received since yesterday.")


def draw_bands(bands: TimeBands) -> Markup | None:
    """Receipt to acknowledgement by hour of the day, at three heights."""
    if not bands.total.leads:
        return None
    names: tuple[tuple[str, str, charts.Tone], ...]
    names = (("p99_ms", "99%", "c"), ("p95_ms", "95%", "b"), ("p50_ms", "Half", "a"))
    series = [
        charts.Series(name=name, tone=tone, values=tuple(getattr(one, field) if one else None for one in bands.hours))
        for field, name, tone in names
    ]
    return charts.line(
        "Accepted to delivered, milliseconds", [f"{hour:02}:00" for hour in range(24)], series, area=False,
        about="By hour of receipt, since yesterday: half of the leads, 95% and 99% stayed within.",
    )  # fmt: skip


handlers: tuple[Any, ...] = (show_overview,)
