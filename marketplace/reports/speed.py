"""Speed report: the time of each step from the person's click to the first contact, and who took that time.

Every step up to the acknowledgement is timed for the leads that took it; percentiles are interpolated as PostgreSQL's
percentile_cont does. Touch and contact may never come, so their percentiles are of all acknowledged leads: those that
were not reached yet count as not yet (Kaplan and Meier), up to the last report of their business.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from billing.outcomes import LastReport, observed_until
from billing.waiting import times_within
from marketplace.database.db import Pool, Queries, session
from marketplace.reports.figures import (
    CHANNELS,
    LeadSelection,
    Numbers,
    grouped,
    list_last_reports,
    list_parties,
    load_leads,
    local_hours,
)
from marketplace.reports.question import Question, ReportBasis, basis
from marketplace.rules.hours import compile_hours
from marketplace.runtime import ids
from routing.subscription import OpenHours

SQL = Queries(__file__, "speed.sql")

MOST_GROUPS: Final = 300
"Most groups of the report, those with the most leads."


SORTS_AT_ONCE: Final = 4
"Threads that compute percentiles."
WORTH_A_THREAD: Final = 20_000
"Average number of leads per group above which groups are computed in threads."


class SpeedGrouping(StrEnum):
    """Grouping of the report."""

    business = "business"
    provider = "provider"
    vertical = "vertical"
    channel = "channel"
    hour = "hour"


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds within which 50, 95 and 99 % of the leads took a step; null without leads.

    `leads` took the step. `waiting` leads have not taken it up to the last report of their business; they count in the
    percentiles of touch and contact. A percentile is null if it is not reached: then fewer leads have taken the step.
    """

    leads: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    waiting: int = 0


class SpeedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a lead: the time it took, who took that time, and the time from receipt until it was reached."""

    name: str
    whose: str
    took: Percentiles
    after_receipt: Percentiles | None


class ResponseTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Time from the acknowledgement to touch and contact, in all hours and in the business's open hours alone."""

    touch: Percentiles
    touch_open: Percentiles
    contact: Percentiles
    contact_open: Percentiles


class GroupSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Speed of one group of leads. `own` and `business` add up to the time from receipt to acknowledgement."""

    key: str
    name: str
    leads: int
    provider: Percentiles
    own: Percentiles
    business: Percentiles
    waterfall: tuple[SpeedStep, ...]
    response: ResponseTimes
    rows: str


class SpeedReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report on speed: of all leads, and by group."""

    basis: ReportBasis
    by: str | None
    total: GroupSpeed
    groups: tuple[GroupSpeed, ...]


WATERFALL: Final = (
    ("received", "to_receive", "provider"),
    ("qualified", "to_qualify", "own"),
    ("awarded", "to_award", "own"),
    ("exposed", "to_expose", "own and business"),
    ("acknowledged", "to_acknowledge", "business"),
    ("touched", "to_touch", "business"),
    ("contacted", "to_contact", "business"),
)
"""Steps with their field and who takes their time. The first one ends with the receipt."""


async def load_speed(pool: Pool, question: Question, by: SpeedGrouping | None = None) -> SpeedReport:
    """Load the report, also grouped by `by`."""
    fields = [field for _, field, _ in WATERFALL] + ["theirs", "subscription", "acknowledged", "demo", "business"]
    leads = await load_leads(pool, question, [*fields, *((by,) if by in FIELDS else ())])
    async with session(pool) as connection:
        parties = await list_parties(connection, by) if by in PARTIES else {}
        rows = await connection.fetch(SQL["list_hours"])
        last_reports = await list_last_reports(connection, question.business_id)
    hours = {row["number"]: msgspec.json.decode(row["hours"], type=OpenHours) for row in rows}
    named: dict[int, tuple[str, str]] = {
        number: (ids.encode(PREFIXES[by], party.id) if by != SpeedGrouping.vertical else party.name, party.name)
        for number, party in parties.items()
        if by is not None
    }
    if by is SpeedGrouping.channel:
        named = {number: (name, name) for number, name in enumerate(CHANNELS) if name}
    if by is SpeedGrouping.hour:
        named = {hour: (f"{hour:02}", f"{hour:02}:00 to {hour:02}:59") for hour in range(24)}
    return await asyncio.to_thread(_speed, question, by, leads, named, hours, last_reports)


class TimeBands(msgspec.Struct, frozen=True, kw_only=True):
    """Time from receipt to acknowledgement: of all leads, and by the local hour of receipt (None without leads)."""

    total: Percentiles
    hours: tuple[Percentiles | None, ...]


BANDS: Final = ("to_qualify", "to_award", "to_expose", "to_acknowledge")


def bands_of(question: Question, leads: LeadSelection) -> TimeBands:
    """Return the time to acknowledgement by hour, from leads that were loaded already with BANDS."""
    *_, taken = _until([leads[field] for field in BANDS])
    order, stretches = grouped(local_hours(leads.minutes(), question.zone))
    arranged = taken[order]
    spreads = {hour: spread(arranged[stretch]) for hour, stretch in stretches}
    return TimeBands(total=spread(taken), hours=tuple(spreads.get(hour) for hour in range(24)))


PARTIES: Final = frozenset({SpeedGrouping.business, SpeedGrouping.provider, SpeedGrouping.vertical})
FIELDS: Final = PARTIES | {SpeedGrouping.channel}
PREFIXES: Final = {SpeedGrouping.business: "biz", SpeedGrouping.provider: "prov"}


def _speed(
    question: Question,
    by: SpeedGrouping | None,
    leads: LeadSelection,
    named: Mapping[int, tuple[str, str]],
    hours: Mapping[int, OpenHours],
    last_reports: Mapping[int, LastReport],
) -> SpeedReport:
    """Compute the report. `named` has the key and name of each group by its number."""
    times = _times(leads, hours, last_reports)
    groups: list[GroupSpeed] = []
    with ThreadPoolExecutor(SORTS_AT_ONCE) as threads:  # numpy releases the interpreter while it sorts
        total = dict(zip(times, threads.map(lambda duration: duration.percentiles(), times.values()), strict=True))
        if by is not None:
            groups = _group_paces(question, by, leads, named, times, threads)
    return SpeedReport(
        basis=basis(question, "received time", leads.as_of, demo=bool(leads["demo"].any())),
        by=by,
        total=_pace("all", "All leads", len(leads), total, question.rows()),
        groups=tuple(groups),
    )


def _group_paces(
    question: Question,
    by: SpeedGrouping,
    leads: LeadSelection,
    named: Mapping[int, tuple[str, str]],
    times: Mapping[str, "_Duration"],
    threads: ThreadPoolExecutor,
) -> list[GroupSpeed]:
    """Compute the speed of each named group, those with the most leads first."""
    codes = local_hours(leads.minutes(), question.zone) if by is SpeedGrouping.hour else leads[by]
    order, slices = grouped(codes)
    groups = [group for group in slices if group[0] in named]
    groups.sort(key=lambda group: group[1].start - group[1].stop)
    ordered = list(threads.map(lambda duration: duration.of(order), times.values()))

    def spread_all(group: tuple[int, slice]) -> dict[str, Percentiles]:
        return {name: each.of(group[1]).percentiles() for name, each in zip(times, ordered, strict=True)}

    largest = groups[:MOST_GROUPS]
    in_threads = len(leads) > len(groups) * WORTH_A_THREAD  # for small groups, threads only wait for each other
    spreads_by_group = threads.map(spread_all, largest) if in_threads else map(spread_all, largest)
    paces = []
    for (number, rows), spreads in zip(largest, spreads_by_group, strict=True):
        key, name = named[number]
        narrowed = question.rows(**{_FILTERS[by]: key})
        paces.append(_pace(key, name, rows.stop - rows.start, spreads, narrowed))
    return paces


_FILTERS: Final = {
    SpeedGrouping.business: "business_id",
    SpeedGrouping.provider: "provider_id",
    SpeedGrouping.vertical: "vertical",
    SpeedGrouping.channel: "channel",
    SpeedGrouping.hour: "hour",
}


class _Duration(msgspec.Struct, frozen=True):
    """One duration of each lead in milliseconds: `took` if it ended, else how long it has `waited`; NaN for neither.

    `waited` is None for a step of which only the leads that took it count.
    """

    took: Numbers
    waited: Numbers | None = None

    def of(self, rows: Numbers | slice) -> "_Duration":
        """Return the durations of these leads."""
        return _Duration(self.took[rows], None if self.waited is None else self.waited[rows])

    def percentiles(self) -> Percentiles:
        """Return the percentiles; with those that wait they are estimates for all leads."""
        if self.waited is None:
            return spread(self.took)
        p50, p95, p99 = (
            None if time is None else round(time, 3) for time in times_within(self.took, self.waited, SHARES)
        )
        leads, waiting = (int(np.count_nonzero(~np.isnan(times))) for times in (self.took, self.waited))
        return Percentiles(leads=leads, p50_ms=p50, p95_ms=p95, p99_ms=p99, waiting=waiting)


def _times(
    leads: LeadSelection, hours: Mapping[int, OpenHours], last_reports: Mapping[int, LastReport]
) -> dict[str, _Duration]:
    """Return every duration of the report for each lead."""
    times = {name: leads[field] for name, field, _whose in WATERFALL}
    steps = [name for name, _field, _whose in WATERFALL if name not in ("received", "touched", "contacted")]
    until = _until([times[name] for name in steps])
    times |= {f"until {name}": reached for name, reached in zip(steps, until, strict=True)}
    times["business"] = np.minimum(leads["theirs"], times["until acknowledged"])
    times["own"] = times["until acknowledged"] - times["business"]
    return {name: _Duration(took) for name, took in times.items()} | _responses(leads, times, hours, last_reports)


def _responses(
    leads: LeadSelection,
    times: Mapping[str, Numbers],
    hours: Mapping[int, OpenHours],
    last_reports: Mapping[int, LastReport],
) -> dict[str, _Duration]:
    """Return the time to touch and contact of each lead, or how long it has waited for them.

    A lead is followed up to when its business has told what happened. What it told of later times does not count,
    because the leads of which it may still tell would count as waiting.
    """
    acknowledged = times["until acknowledged"]
    at, subscription = leads.minutes() * 60 + leads["acknowledged"] / 1000, leads["subscription"]
    told_until = observed_until(leads["business"], last_reports, math.ceil(leads.as_of.timestamp()))
    followed = _positive(1000 * (told_until - at))
    touch, contact = (
        np.where(took <= followed, took, np.nan) for took in (times["touched"], times["touched"] + times["contacted"])
    )
    untouched, uncontacted = (np.where(np.isnan(took), followed, np.nan) for took in (touch, contact))
    touch_open, contact_open = open_each(at, (touch, contact), subscription, hours)
    (followed_open,) = open_each(at, (uncontacted,), subscription, hours)
    return {
        "touched": _Duration(touch, untouched),
        "until touched": _Duration(touch + acknowledged, untouched + acknowledged),
        "contacted": _Duration(contact - touch, _positive(uncontacted - touch)),
        "until contacted": _Duration(contact + acknowledged, uncontacted + acknowledged),
        "touch open": _Duration(touch_open, np.where(np.isnan(untouched), np.nan, followed_open)),
        "contact": _Duration(contact, uncontacted),
        "contact open": _Duration(contact_open, followed_open),
    }


def _positive(values: Numbers) -> Numbers:
    """Return the values above 0, NaN in place of the others."""
    return np.where(values > 0, values, np.nan)


def _until(took: Iterable[Numbers]) -> list[Numbers]:
    """Return the time from receipt to the end of each step, from the durations of the steps."""
    reached: Any = 0.0
    ends = []
    for each in took:
        reached = reached + each.astype(np.float64)  # 64 bits, because milliseconds are added to days
        ends.append(reached.astype(np.float32))
    return ends


def _pace(key: str, name: str, leads: int, spreads: Mapping[str, Percentiles], rows: str) -> GroupSpeed:
    return GroupSpeed(
        key=key,
        name=name,
        leads=leads,
        provider=spreads["received"],
        own=spreads["own"],
        business=spreads["business"],
        waterfall=tuple(
            SpeedStep(name=step, whose=whose, took=spreads[step], after_receipt=spreads.get(f"until {step}"))
            for step, _field, whose in WATERFALL
        ),
        response=ResponseTimes(
            touch=spreads["touched"],
            touch_open=spreads["touch open"],
            contact=spreads["contact"],
            contact_open=spreads["contact open"],
        ),
        rows=rows,
    )


SHARES: Final = (0.5, 0.95, 0.99)
"Shares of the leads for which a report gives a time."


def spread(values: Numbers) -> Percentiles:
    """Return the percentiles of the values that are not NaN."""
    ordered = np.sort(values)  # NaN comes last
    count = int(np.searchsorted(ordered, np.inf, side="right"))
    if not count:
        return Percentiles(leads=0, p50_ms=None, p95_ms=None, p99_ms=None)
    percentiles = []
    for quantile in SHARES:
        place = quantile * (count - 1)
        below = int(place)
        low, high = float(ordered[below]), float(ordered[min(below + 1, count - 1)])
        percentiles.append(round(low + (high - low) * (place - below), 3))
    return Percentiles(leads=count, p50_ms=percentiles[0], p95_ms=percentiles[1], p99_ms=percentiles[2])


# Open hours: the open part of a duration, for many leads at once.


def open_each(
    at: Numbers, took_ms: Sequence[Numbers], subscription: Numbers, hours: Mapping[int, OpenHours]
) -> tuple[Numbers, ...]:
    """Return the part of each duration that lay in the open hours of the lead's subscription, in milliseconds.

    The durations `took_ms` of a lead all begin at `at` (epoch seconds). A subscription without hours is always open. If
    the first duration of a lead is NaN, all its durations are returned unchanged.
    """
    results = tuple(each.copy() for each in took_ms)
    timed = np.flatnonzero(~np.isnan(took_ms[0]))
    if not len(timed) or not hours:
        return results
    begins, ends = at[timed], [at[timed] + each[timed] / 1000 for each in took_ms]
    first = datetime.fromtimestamp(float(begins.min()), UTC)
    days = int((max(np.nanmax(each) for each in ends) - begins.min()) // 86_400) + 3
    alike = {each: place for place, each in enumerate(dict.fromkeys(hours.values()), start=1)}
    codes = np.zeros(max(int(subscription.max()), *hours) + 1, np.uint16)
    for number, each in hours.items():
        codes[number] = alike[each]
    order, stretches = grouped(codes[subscription[timed]])
    specs = list(alike)
    for code, stretch in stretches:
        if code:
            rows = order[stretch]
            spans = _spans(specs[code - 1], first.date().toordinal() - 1, days)
            before = _open_until(spans, begins[rows])
            for into, end in zip(results, ends, strict=True):
                into[timed[rows]] = 1000 * (_open_until(spans, end[rows]) - before)
    return results


@lru_cache(maxsize=256)
def _spans(hours: OpenHours, first_day: int, days: int) -> tuple[Numbers, Numbers, Numbers]:
    """Return openings and closings in epoch seconds, and the open seconds before each opening."""
    since = datetime.fromordinal(first_day).replace(tzinfo=UTC) + timedelta(hours=12)
    spans = np.array(compile_hours(hours, since, days + 2), np.float64).reshape(-1, 2)
    lengths = spans[:, 1] - spans[:, 0]
    return spans[:, 0], spans[:, 1], np.cumsum(lengths) - lengths


def _open_until(spans: tuple[Numbers, Numbers, Numbers], moments: Numbers) -> Numbers:
    """Return the open seconds from the first opening to each time."""
    opens, closes, before = spans
    if not len(opens):
        return np.zeros(len(moments))
    place = np.maximum(np.searchsorted(opens, moments, side="right") - 1, 0)
    inside = np.clip(moments - opens[place], 0, (closes - opens)[place])
    return np.asarray(before[place] + inside)
