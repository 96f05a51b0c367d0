"""When a cap's window starts and ends, in the calendar of the business that set the cap, and how long it was open.

A day here is the business's own day: 23 or 25 hours long when the clocks change, and never split by another zone's
midnight. Hours are real hours: the hour that a clock repeats in autumn is two windows.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The one start of the window that never ends."""


class CapWindow(StrEnum):
    """Over which stretch of time a cap counts."""

    hour = "hour"
    """A clock hour."""
    day = "day"
    """Midnight to midnight."""
    week = "week"
    """Monday to Monday."""
    month = "month"
    """First of the month to the next first."""
    total = "total"
    """All time; it never starts anew."""


def window_starts(now: datetime, zone: str) -> dict[CapWindow, datetime]:
    """The moment, in UTC, at which each window that holds `now` began in `zone`; `total` began at `EPOCH`."""
    midnight = _midnight(now, zone)
    return {
        CapWindow.hour: _hour(now, zone),
        CapWindow.day: midnight.astimezone(UTC),
        CapWindow.week: (midnight - timedelta(days=midnight.weekday())).astimezone(UTC),
        CapWindow.month: midnight.replace(day=1).astimezone(UTC),
        CapWindow.total: EPOCH,
    }


def window_end(window: CapWindow, now: datetime, zone: str) -> datetime | None:
    """The moment, in UTC, at which the window that holds `now` gives way to the next; None for `total`."""
    midnight = _midnight(now, zone)
    match window:
        case CapWindow.hour:
            return _hour(now, zone) + timedelta(hours=1)
        case CapWindow.day:
            end = midnight + timedelta(days=1)
        case CapWindow.week:
            end = midnight + timedelta(days=7 - midnight.weekday())
        case CapWindow.month:
            end = (midnight.replace(day=28) + timedelta(days=4)).replace(day=1)
        case CapWindow.total:
            return None
    return end.astimezone(UTC)


def open_seconds(spans: Iterable[tuple[int, int]], start: datetime, end: datetime) -> int:
    """How much of the time from `start` to `end` lies in `spans`, in whole seconds; nothing where `end` comes first.

    Spans are [start, end) in UTC epoch seconds, apart from each other, and must cover the whole time.
    """
    begins, ends = start.timestamp(), end.timestamp()
    return int(sum(max(0.0, min(closes, ends) - max(opens, begins)) for opens, closes in spans))


def _midnight(now: datetime, zone: str) -> datetime:
    """Local, so that adding days keeps the wall clock; where midnight happens twice, the first."""
    return now.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


def _hour(now: datetime, zone: str) -> datetime:
    local = now.astimezone(ZoneInfo(zone))
    past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return now.astimezone(UTC) - past
