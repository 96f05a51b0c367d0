"""Start and end of a cap's window in the calendar of the business, and the open time between two moments.

A day is a local day of the business, 23 or 25 hours long when the clocks change. An hour is 60 minutes long: the hour
that the clock repeats in autumn is two windows.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Start of the window `total`."""


class CapWindow(StrEnum):
    """Period over which a cap counts leads."""

    hour = "hour"
    """A clock hour."""
    day = "day"
    """Midnight to midnight."""
    week = "week"
    """Monday to Monday."""
    month = "month"
    """First day of a month to the first day of the next."""
    total = "total"
    """All time, without a restart."""


def window_starts(now: datetime, zone: str) -> dict[CapWindow, datetime]:
    """Return the start, in UTC, of each window that contains `now` in `zone`; `total` starts at `EPOCH`."""
    midnight = _midnight(now, zone)
    return {
        CapWindow.hour: _hour(now, zone),
        CapWindow.day: midnight.astimezone(UTC),
        CapWindow.week: (midnight - timedelta(days=midnight.weekday())).astimezone(UTC),
        CapWindow.month: midnight.replace(day=1).astimezone(UTC),
        CapWindow.total: EPOCH,
    }


def window_end(window: CapWindow, now: datetime, zone: str) -> datetime | None:
    """Return the end, in UTC, of the window that contains `now` in `zone`; None for `total`."""
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
    """Return how much of the time from `start` to `end` lies in `spans`, in whole seconds; 0 if `end` is earlier.

    Spans are [start, end) in UTC epoch seconds and must not overlap. Time outside them counts as closed, so they must
    be known for the whole time.
    """
    begins, ends = start.timestamp(), end.timestamp()
    return int(sum(max(0.0, min(closes, ends) - max(opens, begins)) for opens, closes in spans))


def _midnight(now: datetime, zone: str) -> datetime:
    """Return the local midnight before `now`; if it occurs twice, the first.

    It stays in local time, so that adding days keeps the wall clock time.
    """
    return now.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


def _hour(now: datetime, zone: str) -> datetime:
    """Return the start, in UTC, of the local clock hour: zones may differ from UTC by half an hour."""
    local = now.astimezone(ZoneInfo(zone))
    past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return now.astimezone(UTC) - past
