"""How fast: where a lead's time goes between the person's click and the first contact, and whose time it is.

Every step is timed for the leads that took it. Percentiles are of the values themselves, interpolated as PostgreSQL's
percentile_cont does.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from marketplace import ids
from marketplace.db import Pool, Queries, session
from marketplace.hours import compile_hours
from marketplace.reports.figures import (
    CHANNELS,
    Leads,
    Numbers,
    grouped,
    list_parties,
    load_leads,
    local_hours,
)
from marketplace.reports.question import Basis, Question, basis
from routing.subscription import OpenHours

SQL = Queries(__file__, "speed.sql")

MOST_GROUPS: Final = 300
"Groups shown, those with most leads first; a table longer than this is a file."


SORTS_AT_ONCE: Final = 4
WORTH_A_THREAD: Final = 20_000
"Leads of a group, above which its percentiles are worked out beside those of others."


class By(StrEnum):
    """What speed is told apart by."""

    business = "business"
    provider = "provider"
    vertical = "vertical"
    channel = "channel"
    hour = "hour"


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds that half, 95 % and 99 % of the leads stayed within; null without any."""

    leads: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the waterfall: how long it took, whose time it is, and how long after receipt it was reached."""

    name: str
    whose: str
    took: Spread
    after_receipt: Spread | None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """From the acknowledgement on, the business's own doing: by the wall clock, and counting only its open hours."""

    touch: Spread
    touch_open: Spread
    contact: Spread
    contact_open: Spread


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """The speed of one group of leads. Own and business's time add up to receipt until acknowledgement."""

    key: str
    name: str
    leads: int
    provider: Spread
    own: Spread
    business: Spread
    waterfall: tuple[Step, ...]
    response: Response
    rows: str


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How fast leads moved: all of them, and by group."""

    basis: Basis
    by: str | None
    total: Pace
    groups: tuple[Pace, ...]


WATERFALL: Final = (
    ("received", "to_receive", "provider"),
    ("qualified", "to_qualify", "own"),
    ("awarded", "to_award", "own"),
    ("exposed", "to_expose", "own and business"),
    ("acknowledged", "to_acknowledge", "business"),
    ("touched", "to_touch", "business"),
    ("contacted", "to_contact", "business"),
)
"""Each step with its field and whose time it is. The first one ends with the receipt."""


async def load_speed(pool: Pool, question: Question, by: By | None = None) -> Speed:
    """The report; `by` also tells it apart."""
    fields = [field for _, field, _ in WATERFALL] + ["theirs", "subscription", "acknowledged", "demo"]
    leads = await load_leads(pool, question, [*fields, *((by,) if by in FIELDS else ())])
    async with session(pool) as connection:
        parties = await list_parties(connection, by) if by in PARTIES else {}
        rows = await connection.fetch(SQL["list_hours"])
    hours = {row["number"]: msgspec.json.decode(row["hours"], type=OpenHours) for row in rows}
    named: dict[int, tuple[str, str]] = {
        number: (ids.encode(PREFIXES[by], party.id) if by != By.vertical else party.name, party.name)
        for number, party in parties.items()
        if by is not None
    }
    if by is By.channel:
        named = {number: (name, name) for number, name in enumerate(CHANNELS) if name}
    if by is By.hour:
        named = {hour: (f"{hour:02}", f"{hour:02}:00 to {hour:02}:59") for hour in range(24)}
    return await asyncio.to_thread(_speed, question, by, leads, named, hours)


class Bands(msgspec.Struct, frozen=True, kw_only=True):
    """From receipt until the acknowledgement: of all leads, and by the hour of the day in which they came."""

    total: Spread
    hours: tuple[Spread | None, ...]


BANDS: Final = ("to_qualify", "to_award", "to_expose", "to_acknowledge")


def bands_of(question: Question, leads: Leads) -> Bands:
    """The part of the report by hour that says how soon leads arrive, of leads that were read already with BANDS."""
    *_, taken = _until([leads[field] for field in BANDS])
    order, stretches = grouped(local_hours(leads.minutes(), question.zone))
    arranged = taken[order]
    found = {hour: spread(arranged[stretch]) for hour, stretch in stretches}
    return Bands(total=spread(taken), hours=tuple(found.get(hour) for hour in range(24)))


PARTIES: Final = frozenset({By.business, By.provider, By.vertical})
FIELDS: Final = PARTIES | {By.channel}
PREFIXES: Final = {By.business: "biz", By.provider: "prov"}


def _speed(
    question: Question,
    by: By | None,
    leads: Leads,
    named: Mapping[int, tuple[str, str]],
    hours: Mapping[int, OpenHours],
) -> Speed:
    times = _times(leads, hours)
    groups = []
    with ThreadPoolExecutor(SORTS_AT_ONCE) as side_by_side:  # numpy lets go of the interpreter while it sorts
        total = dict(zip(times, side_by_side.map(spread, times.values()), strict=True))
        if by is not None:
            codes = local_hours(leads.minutes(), question.zone) if by is By.hour else leads[by]
            order, stretches = grouped(codes)
            shown = [pair for pair in stretches if pair[0] in named]
            shown.sort(key=lambda pair: pair[1].start - pair[1].stop)
            arranged = list(side_by_side.map(lambda values: values[order], times.values()))

            def told(pair: tuple[int, slice]) -> dict[str, Spread]:
                return {name: spread(values[pair[1]]) for name, values in zip(times, arranged, strict=True)}

            large = len(leads) > len(shown) * WORTH_A_THREAD  # small ones only wait for each other
            each = side_by_side.map(told, shown[:MOST_GROUPS]) if large else map(told, shown[:MOST_GROUPS])
            for (number, stretch), found in zip(shown, each, strict=False):
                key, name = named[number]
                narrowed = question.rows(**{_FILTERS[by]: key})
                groups.append(_pace(key, name, stretch.stop - stretch.start, found, narrowed))
    return Speed(
        basis=basis(question, "received time", leads.as_of, demo=bool(leads["demo"].any())),
        by=by,
        total=_pace("all", "All leads", len(leads), total, question.rows()),
        groups=tuple(groups),
    )


_FILTERS: Final = {
    By.business: "business_id", By.provider: "provider_id", By.vertical: "vertical", By.channel: "channel",
    By.hour: "hour",
}  # fmt: skip


def _times(leads: Leads, hours: Mapping[int, OpenHours]) -> dict[str, Numbers]:
    """Every length of time that is told, for each lead, NaN where there is none."""
    times = {name: leads[field] for name, field, _whose in WATERFALL}
    steps = [name for name, _field, _whose in WATERFALL if name != "received"]
    until = _until([times[name] for name in steps])
    times |= {f"until {name}": reached for name, reached in zip(steps, until, strict=True)}
    theirs = np.minimum(leads["theirs"], times["until acknowledged"])
    times["business"] = theirs
    times["own"] = times["until acknowledged"] - theirs
    contacted = times["touched"] + times["contacted"]
    at, subscription = leads.minutes() * 60 + leads["acknowledged"] / 1000, leads["subscription"]
    touch_open, contact_open = open_each(at, (times["touched"], contacted), subscription, hours)
    return times | {"touch open": touch_open, "contact": contacted, "contact open": contact_open}


def _until(took: Iterable[Numbers]) -> list[Numbers]:
    """How long after receipt each step ended, of how long each took."""
    reached: Any = 0.0
    found = []
    for each in took:
        reached = reached + each.astype(np.float64)  # in 64 bits: milliseconds beside days
        found.append(reached.astype(np.float32))
    return found


def _pace(key: str, name: str, leads: int, told: Mapping[str, Spread], rows: str) -> Pace:
    return Pace(
        key=key, name=name, leads=leads, provider=told["received"], own=told["own"],
        business=told["business"],
        waterfall=tuple(
            Step(name=step, whose=whose, took=told[step], after_receipt=told.get(f"until {step}"))
            for step, _field, whose in WATERFALL
        ),
        response=Response(
            touch=told["touched"], touch_open=told["touch open"], contact=told["contact"],
            contact_open=told["contact open"],
        ),
        rows=rows,
    )  # fmt: skip


def spread(values: Numbers) -> Spread:
    """The percentiles of those that are not NaN."""
    ordered = np.sort(values)  # NaN comes last
    count = int(np.searchsorted(ordered, np.inf, side="right"))
    if not count:
        return Spread(leads=0, p50_ms=None, p95_ms=None, p99_ms=None)
    found = []
    for quantile in (0.5, 0.95, 0.99):
        place = quantile * (count - 1)
        below = int(place)
        low, high = float(ordered[below]), float(ordered[min(below + 1, count - 1)])
        found.append(round(low + (high - low) * (place - below), 3))
    return Spread(leads=count, p50_ms=found[0], p95_ms=found[1], p99_ms=found[2])


# Business hours: how much of a stretch of time the business was open, for many leads at once.


def open_each(
    at: Numbers, took_ms: Sequence[Numbers], subscription: Numbers, hours: Mapping[int, OpenHours]
) -> tuple[Numbers, ...]:
    """Of stretches of `took_ms` that begin together at `at` (epoch seconds), what lay in the hours of each lead's
    subscription. Without hours it is always open; where the first stretch is not known, no other is.
    """
    found = tuple(each.copy() for each in took_ms)
    known = np.flatnonzero(~np.isnan(took_ms[0]))
    if not len(known) or not hours:
        return found
    begins, ends = at[known], [at[known] + each[known] / 1000 for each in took_ms]
    first = datetime.fromtimestamp(float(begins.min()), UTC)
    days = int((max(np.nanmax(each) for each in ends) - begins.min()) // 86_400) + 3
    alike = {each: place for place, each in enumerate(dict.fromkeys(hours.values()), start=1)}
    codes = np.zeros(max(int(subscription.max()), *hours) + 1, np.uint16)
    for number, each in hours.items():
        codes[number] = alike[each]
    order, stretches = grouped(codes[subscription[known]])
    specs = list(alike)
    for code, stretch in stretches:
        if code:
            rows = order[stretch]
            spans = _spans(specs[code - 1], first.date().toordinal() - 1, days)
            before = _open_until(spans, begins[rows])
            for into, end in zip(found, ends, strict=True):
                into[known[rows]] = 1000 * (_open_until(spans, end[rows]) - before)
    return found


@lru_cache(maxsize=256)
def _spans(hours: OpenHours, first_day: int, days: int) -> tuple[Numbers, Numbers, Numbers]:
    """Openings, closings, and how many seconds were open before each opening."""
    since = datetime.fromordinal(first_day).replace(tzinfo=UTC) + timedelta(hours=12)
    spans = np.array(compile_hours(hours, since, days + 2), np.float64).reshape(-1, 2)
    lengths = spans[:, 1] - spans[:, 0]
    return spans[:, 0], spans[:, 1], np.cumsum(lengths) - lengths


def _open_until(spans: tuple[Numbers, Numbers, Numbers], moments: Numbers) -> Numbers:
    """Open seconds from the first opening to each moment."""
    opens, closes, before = spans
    if not len(opens):
        return np.zeros(len(moments))
    place = np.maximum(np.searchsorted(opens, moments, side="right") - 1, 0)
    inside = np.clip(moments - opens[place], 0, (closes - opens)[place])
    return np.asarray(before[place] + inside)
