"""Overview of a provider: submissions that were accepted, reasons of all others, and earnings."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
from litestar import Response, get

from marketplace.database.db import Pool, session
from marketplace.directory.going_live import ProviderReadiness, load_readiness
from marketplace.portal import charts
from marketplace.portal.frame import page
from marketplace.portal.provider import store
from marketplace.portal.provider.loss_lists import (
    SUB_IDS,
    FaultLine,
    RejectionLine,
    SubIdLine,
    fault_listing,
    rejection_listing,
)
from marketplace.portal.provider.page_filters import question_of, rows_of
from marketplace.portal.provider.store import FaultShape, RefusalCount
from marketplace.portal.provider.wording import fault_in_words, reason_in_words
from marketplace.portal.session import Viewer, visitor
from marketplace.reports.figures import STATES, LeadSelection, load_leads
from marketplace.reports.quality import FIELDS, FaultFigure, Quality, quality_of
from marketplace.reports.question import Question
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services

USUAL_DAYS: Final = 7
HOURLY_DAYS: Final = 2
"Up to so many days, the chart has a bar for each hour; for more, one for each day."
MOST_LINES: Final = 8
NO_SHAPES: Final[Mapping[tuple[str, str], FaultShape]] = {}
TURNED: Final = ("duplicate", "suppressed")


@get("/provider")
async def show_overview(request: AnyRequest) -> Response[bytes]:
    """Show the overview."""
    viewer = await visitor(request, CallerKind.provider)
    question = question_of(request, viewer, USUAL_DAYS)
    reports, pool = services(request).reports, services(request).pool
    leads, (readiness, refused, earned) = await asyncio.gather(
        load_leads(reports, question, FIELDS), _load_account(pool, viewer, question)
    )
    quality, chart = await asyncio.gather(
        quality_of(reports, question, leads), asyncio.to_thread(_chart, question, leads, refused)
    )
    total = quality.total
    faults = fault_lines(quality.faults, total.refused)[:MOST_LINES]
    rejections = [
        RejectionLine(
            reason=reason_in_words(row.why), leads=row.leads, rows=rows_of(question, state="rejected", why=row.why)
        )
        for row in quality.rejections[:MOST_LINES]
    ]
    return page(
        request,
        viewer,
        "provider/overview.html",
        question=question,
        readiness=readiness,
        total=total,
        accepted=accepted(total),
        share=rate(accepted(total), total.sent),
        earned=earned,
        chart=chart,
        basis=quality.basis,
        fault_listing=fault_listing(faults),
        faults=faults,
        more_faults=len(quality.faults) > MOST_LINES,
        rejection_listing=rejection_listing(rejections),
        rejections=rejections,
        sub_id_listing=SUB_IDS,
        sub_ids=sub_id_lines(question, quality.sub_ids[:MOST_LINES]),
        more_sub_ids=len(quality.sub_ids) > MOST_LINES,
        links={state: rows_of(question, state=state) for state in ("duplicate", "returned")},
        all_rows=rows_of(question),
    )


async def _load_account(
    pool: Pool, viewer: Viewer, question: Question
) -> tuple[ProviderReadiness, tuple[RefusalCount, ...], tuple[tuple[int, str], ...]]:
    """Load the account's readiness to go live, its refused requests by hour, and its earnings by currency."""
    span = (question.since, question.until)
    async with session(pool) as connection:
        readiness = await load_readiness(connection, viewer.owner)
        refused = await store.count_refused_by_hour(connection, viewer.owner, viewer.mode, *span)
        return readiness, refused, await store.sum_earned(connection, viewer.owner, *span)


def accepted(quality: Quality) -> int:
    """Return the count of submissions that were not refused, not duplicates and not suppressed."""
    return quality.sent - quality.refused - quality.duplicates - quality.suppressed


def sub_id_lines(question: Question, sub_ids: Sequence[Quality]) -> list[SubIdLine]:
    """Return the lines of these sub-ids, each with the address of the list of its leads."""
    return [
        SubIdLine(quality=quality, accepted=accepted(quality), rows=rows_of(question, sub_id=quality.key))
        for quality in sub_ids
    ]


def rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def fault_lines(
    faults: tuple[FaultFigure, ...], refused: int, shapes: Mapping[tuple[str, str], FaultShape] = NO_SHAPES
) -> tuple[FaultLine, ...]:
    """Return the faults by field, most frequent first, each with its last value, masked."""
    return tuple(
        FaultLine(
            field=fault.pointer.strip("/").replace("/", ".") or "the whole body",
            code=fault.code,
            requests=fault.requests,
            share=min(1.0, rate(fault.requests, refused) or 0.0),
            advice=fault_in_words(fault.code),
            shape=_masked_value(shapes.get((fault.pointer, fault.code))),
        )
        for fault in faults
    )


def _masked_value(shape: FaultShape | None) -> str:
    return shape.shape if shape else ""


def _chart(question: Question, leads: LeadSelection, refused: tuple[RefusalCount, ...]) -> Any:
    """Return a chart of submissions by outcome, by hour or by day of the question's zone."""
    hourly = question.days <= HOURLY_DAYS
    edges = _edges(question, hourly)
    seconds = np.array([edge.timestamp() for edge in edges])
    bars = len(edges) - 1
    states = leads["state"]
    begins = np.searchsorted(leads.minutes(), seconds // 60)  # leads are sorted by time, oldest first
    begins[-1] = len(states)  # the last bar also has what is left of a day without a whole number of hours

    def counted(mask: Any) -> Any:
        return np.diff(np.r_[0, np.cumsum(mask)][begins])

    layers = {
        "rejected": counted(states == STATES.index("rejected")),
        "turned": counted(np.isin(states, [STATES.index(state) for state in TURNED])),
    }
    layers["accepted"] = np.diff(begins) - layers["rejected"] - layers["turned"]
    wrong = np.zeros(bars, np.int64)
    for count in refused:
        bar = int(np.clip(np.searchsorted(seconds, count.hour.timestamp(), side="right") - 1, 0, bars - 1))
        wrong[bar] += count.requests
    zone = ZoneInfo(question.zone)
    shape = "%H:%M" if hourly else "%-d %b"
    labels = [edge.astimezone(zone).strftime(shape) for edge in edges[:-1]]
    series = [
        charts.Series(name="Accepted", values=_values(layers["accepted"]), tone="good"),
        charts.Series(name="Accepted, then not qualified", values=_values(layers["rejected"]), tone="warn"),
        charts.Series(name="Duplicate or do not contact", values=_values(layers["turned"]), tone="muted"),
        charts.Series(name="Refused with faults", values=_values(wrong), tone="bad"),
    ]
    title = f"What you sent, by {'hour' if hourly else 'day'}"
    return charts.stacked(title, labels, series, about=f"Submissions by received time, {question.zone}.")


def _values(counts: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in counts)


def _edges(question: Question, hourly: bool) -> list[datetime]:
    """Return the start of each bar, and the end of the last; a day may have 23 or 25 hours."""
    if hourly:
        hours = int((question.until - question.since) / timedelta(hours=1))
        return [question.since + timedelta(hours=hour) for hour in range(hours + 1)]
    days = [question.first + timedelta(days=day) for day in range(question.days + 1)]
    zone = ZoneInfo(question.zone)
    return [datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) for day in days]


handlers: tuple[Any, ...] = (show_overview,)
