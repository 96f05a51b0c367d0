"""Pace of caps: the part of a cap that may be used by now, so that it lasts for the leads of its whole window.

Leads arrive unevenly: a curve has the arrivals of a vertical for each hour of the week. A subscription can have those
of its open hours. At any moment it may use the same part of its cap as the part of these arrivals that has passed since
the window began. What was not used in time may be used later in the window, and the whole cap is open before the last
tenth of the arrivals, so that nothing is left over for the sake of the pace.

All numbers are integers, so that a decision comes out the same on every machine.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Final

import msgspec

from routing.calendar import CapWindow

HOURS: Final = 168
"Hours of a week, the first from Monday 00:00 UTC."
HOUR_SECONDS: Final = 3_600
WEEK_SECONDS: Final = HOURS * HOUR_SECONDS
MONDAY: Final = 4 * 24 * HOUR_SECONDS
"The first Monday, in epoch seconds: 1970 began on a Thursday."

FLAT: Final = (1,) * HOURS
"Curve of a vertical without history: leads arrive evenly."

PACED_WINDOWS: Final = (CapWindow.day, CapWindow.week, CapWindow.month)
"Windows over which a cap is spread. An hour is short, and `total` has no end."

LAST_PART: Final = 10
"""One of so many parts of the arrivals, the last, has the whole cap open. The pace before it is therefore a ninth above
the arrivals. With a smaller part, the last lead of a cap would more often not come in time (benchmarks/fairness.py)."""


class ArrivalPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Arrivals that a subscription can have, in its open hours, added up over a week.

    `sums` has the arrivals before each hour of the week, and those of the whole week at the end, in arrivals times
    seconds.
    """

    sums: tuple[int, ...]

    def before(self, second: int) -> int:
        """Return the arrivals from the first Monday to an epoch second, in arrivals times seconds."""
        weeks, within = divmod(second - MONDAY, WEEK_SECONDS)
        hour, seconds = divmod(within, HOUR_SECONDS)
        here = self.sums[hour + 1] - self.sums[hour]
        return weeks * self.sums[HOURS] + self.sums[hour] + here * seconds // HOUR_SECONDS

    def second_of(self, arrivals: int) -> int:
        """Return the first epoch second before which at least so many arrivals have come since the first Monday.

        Raises ZeroDivisionError for a plan without any arrivals.
        """
        weeks, before_last = divmod(arrivals - 1, self.sums[HOURS])
        within = before_last + 1
        hour = bisect_left(self.sums, within) - 1
        here = self.sums[hour + 1] - self.sums[hour]
        seconds = -(-(within - self.sums[hour]) * HOUR_SECONDS // here)
        return MONDAY + weeks * WEEK_SECONDS + hour * HOUR_SECONDS + seconds


def plan_arrivals(curve: Sequence[int], spans: Iterable[tuple[int, int]] | None, since: datetime) -> ArrivalPlan:
    """Return the plan of a subscription from its vertical's curve, leads per hour of the week, and its open hours.

    `spans` are those of `Subscription.open_spans`; the seven days from `since` stand for every week.
    """
    opened = [HOUR_SECONDS] * HOURS if spans is None else _open_seconds(spans, int(since.timestamp()))
    arrivals = (leads * seconds for leads, seconds in zip(curve, opened, strict=True))
    return ArrivalPlan(sums=tuple(accumulate(arrivals, initial=0)))


def _open_seconds(spans: Iterable[tuple[int, int]], since: int) -> list[int]:
    """Return the open seconds of each hour of the week, in the week from the second `since`."""
    opened = [0] * HOURS
    for opens, closes in spans:
        start, end = max(opens, since), min(closes, since + WEEK_SECONDS)
        while start < end:
            hour_end = start - start % HOUR_SECONDS + HOUR_SECONDS
            opened[(start - MONDAY) % WEEK_SECONDS // HOUR_SECONDS] += min(end, hour_end) - start
            start = hour_end
    return opened


def window_arrivals(plan: ArrivalPlan, start: datetime, end: datetime) -> int:
    """Return the arrivals of the time from `start` to `end`, in arrivals times seconds."""
    return plan.before(int(end.timestamp())) - plan.before(int(start.timestamp()))


def planned(limit: int, passed: int, total: int) -> int:
    """Return how much of a limit is planned to be used when `passed` of `total` arrivals have come.

    It is the whole limit before the last tenth of the arrivals, and in a window without arrivals.
    """
    if passed * LAST_PART >= total * (LAST_PART - 1):
        return limit
    return limit * passed * LAST_PART // (total * (LAST_PART - 1))


def paced_limit(limit: int, passed: int, total: int, price: int) -> int:
    """Return the limit that holds now: one lead of this price more than is planned, and never more than `limit`.

    The first lead of a window is therefore never held up. In a limit of leads, the price is 1.
    """
    return min(limit, planned(limit, passed, total) + price)


def paced_until(plan: ArrivalPlan, start: datetime, end: datetime, limit: int, used: int) -> datetime:
    """Return the first moment of the window from `start` to `end` at which so much of the limit is planned as is used.

    `used` is above zero and at most `limit`.
    """
    total = window_arrivals(plan, start, end)
    passed = -(-used * total * (LAST_PART - 1) // (limit * LAST_PART))
    return datetime.fromtimestamp(plan.second_of(plan.before(int(start.timestamp())) + passed), UTC)
