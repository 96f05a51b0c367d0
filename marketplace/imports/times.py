"""Read days and times as people write them in files.

The order of day and month is decided by the dates that can be read in only one way. A date that is impossible in both
orders does not count for that, and is refused by itself. A time without an offset is in the file's zone. A local time
that does not exist or occurs twice when the clocks change is refused, because the wrong hour would give wrong figures.
"""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from marketplace.imports.cells import CellFault, clean

Order = Literal["iso", "mdy", "dmy"]
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"Earliest time that is accepted: no record of a lead is older, and ages are computed in 32 bits of seconds."
LIKE: Final = {"iso": "2026-11-21 14:05", "mdy": "11/21/2026 2:05 pm", "dmy": "21.11.2026 14:05"}
LONGEST: Final = 40

_TIME: Final = r"""(?:,?\ ?T?\ ?(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})
    (?::(?P<second>[0-9]{2})(?:[.,](?P<part>[0-9]{1,9}))?)?(?:\ ?(?P<half>[ap])\.?m\.?)?)?
    (?:\ ?(?P<offset>Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2}))?"""
_YEAR_FIRST: Final = re.compile(
    r"(?P<year>[0-9]{4})(?P<mark>[-/.])(?P<one>[0-9]{1,2})(?P=mark)(?P<two>[0-9]{1,2})" + _TIME, re.I | re.X
)
_YEAR_LAST: Final = re.compile(
    r"(?P<one>[0-9]{1,2})(?P<mark>[-/.])(?P<two>[0-9]{1,2})(?P=mark)(?P<year>[0-9]{4})" + _TIME, re.I | re.X
)


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A time in UTC. With `whole_day`, only a day was written, and `at` is its beginning."""

    at: datetime
    whole_day: bool


def read_moment(text: str, order: Order, zone: ZoneInfo) -> Moment:
    """Return the time that a cell states. A date with its year first is read in every order.

    Raises CellFault: `date_invalid`, `time_skipped`, `time_ambiguous`, and `out_of_range` for a time before 2000.
    """
    text = clean(text)
    invalid = CellFault("date_invalid", f"Write it like {LIKE[order]}.")
    if len(text) > LONGEST:
        raise invalid
    match = _YEAR_FIRST.fullmatch(text) or (_YEAR_LAST.fullmatch(text) if order != "iso" else None)
    try:
        if match is None:
            raise ValueError
        month_first = match.re is _YEAR_FIRST or order == "mdy"
        local = datetime.combine(_day(match, month_first), datetime.min.time()) + _clock(match)
        whole_day = match["hour"] is None
        at = local.replace(tzinfo=_offset(match["offset"])) if match["offset"] else _in_zone(local, zone, whole_day)
        at = at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise invalid from error
    if at < EARLIEST:
        raise CellFault("out_of_range", "This is before the year 2000. Check the year.")
    return Moment(at=at, whole_day=whole_day)


def decide_order(texts: Iterable[str]) -> tuple[Order, bool]:
    """Return the order of day and month of a file's dates, and whether they leave it open.

    The order is `iso` if every date has its year first. If no date decides and all of them have points between their
    numbers, the day is first, as is usual with points. Otherwise it is open, and month first is returned.
    """
    votes: dict[Order, int] = {"mdy": 0, "dmy": 0}
    either = points = year_last = 0
    for text in texts:
        match = _YEAR_LAST.fullmatch(clean(text)) if len(text) <= LONGEST else None
        if match is None:
            continue
        days = [_possible(match, month_first) for month_first in (True, False)]
        year_last += 1
        if days[0] == days[1]:
            continue  # impossible in both orders, or the same day
        if None not in days:
            either += 1
            points += match["mark"] == "."
        else:
            votes["mdy" if days[1] is None else "dmy"] += 1
    if any(votes.values()):
        return ("mdy" if votes["mdy"] >= votes["dmy"] else "dmy"), all(votes.values())
    if not either:
        return ("mdy" if year_last else "iso"), False
    return ("dmy", False) if points == either else ("mdy", True)


def _possible(match: re.Match[str], month_first: bool) -> date | None:
    """Return the day of a match in this order, or None if there is no such day."""
    try:
        return _day(match, month_first)
    except ValueError:
        return None


def _day(match: re.Match[str], month_first: bool) -> date:
    first, second = int(match["one"]), int(match["two"])
    month, day = (first, second) if month_first else (second, first)
    return date(int(match["year"]), month, day)


def _clock(match: re.Match[str]) -> timedelta:
    """Return the time of day of a match, as the time since midnight. Raises ValueError."""
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    if match["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(hour)
        hour = hour % 12 + (12 if match["half"].lower() == "p" else 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(hour)
    part = int((match["part"] or "0")[:6].ljust(6, "0"))
    return timedelta(hours=hour, minutes=minute, seconds=second, microseconds=part)


def _offset(text: str) -> timezone:
    """Return the offset from UTC that a text such as `Z` or `-05:00` states. Raises ValueError."""
    if text.upper() in ("Z", "UTC", "GMT"):
        return UTC
    hours, minutes = int(text[1:3]), int(text[3:].strip(":") or 0)
    if minutes > 59:
        raise ValueError(minutes)
    sign = -1 if text[0] == "-" else 1
    return timezone(sign * timedelta(hours=hours, minutes=minutes))


def _in_zone(local: datetime, zone: ZoneInfo, whole_day: bool) -> datetime:
    """Return a local time in the zone; a whole day begins at its earliest midnight.

    Raises CellFault for a time that does not exist or occurs twice because the clocks change.
    """
    first, second = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if whole_day or first.utcoffset() == second.utcoffset():
        return first
    if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
        detail = "The clocks were put forward over this time. Check it, or write its offset, such as -05:00."
        raise CellFault("time_skipped", detail)
    detail = "The clocks were put back, and this time came twice. Write its offset, such as -05:00."
    raise CellFault("time_ambiguous", detail)
