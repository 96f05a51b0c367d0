"""A business's open hours, from the words in which they are kept to the spans that matching searches.

The words are the opening-hours grammar of OpenStreetMap (`Mo-Fr 08:00-18:00; PH off`), which knows weekdays, seasons
and public holidays. Reading it takes a parser and a holiday table; matching only bisects spans of seconds, so both
happen here, ahead of time.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import opening_hours
from opening_hours import OpeningHours, State

from routing.calendar import open_seconds
from routing.subscription import OpenHours, is_zone

SPAN_DAYS: Final = 9
"""A week and a day ahead, plus the day that has begun: every weekly pattern shows its next opening, and the daily
renewal may fail once."""
LONGEST_SPEC: Final = 500
"""Characters; a week of differing hours with a dozen holidays takes fewer than 300."""

# The package raises these two without declaring them in its types.
ParserError: type[Exception] = vars(opening_hours)["ParserError"]
UnknownCountryError: type[Exception] = vars(opening_hours)["UnknownCountryError"]

_UNKNOWABLE: Final = re.compile(r"\b(sunrise|sunset|dawn|dusk|SH)\b", re.IGNORECASE)
_HOLIDAYS: Final = re.compile(r"\bPH\b", re.IGNORECASE)
_LONG_AGO: Final = datetime(2000, 1, 1)


def check_hours(hours: OpenHours) -> str | None:
    """What is wrong with `hours`, as a sentence for the business that wrote them, or None when they can be compiled."""
    if len(hours.spec) > LONGEST_SPEC:
        return f"The hours are longer than {LONGEST_SPEC} characters; leave out days that repeat."
    if unknowable := _UNKNOWABLE.search(hours.spec):
        return f"“{unknowable[0]}” differs from place to place and is not known here; write clock hours or dates."
    if _HOLIDAYS.search(hours.spec) and hours.holidays is None:
        return "“PH” needs a country whose public holidays are meant; name one in holidays."
    try:
        parsed = _parse(hours)
    except ValueError as fault:
        return str(fault)
    if parsed.is_closed(_LONG_AGO) and parsed.next_change(_LONG_AGO) is None:
        return "These hours are never open."
    return None


def compile_hours(hours: OpenHours, since: datetime, days: int = SPAN_DAYS) -> tuple[tuple[int, int], ...]:
    """The open spans [start, end) in UTC epoch seconds from the local midnight before `since`, sorted and apart from
    each other.

    A local time that the clock skips in spring is the moment of the change; one that it repeats in autumn opens at
    the first and closes at the last. A state the grammar calls unknown counts as closed. Raises ValueError where
    `check_hours` has a sentence.
    """
    parsed = _parse(hours)
    zone = ZoneInfo(hours.zone)
    midnight = since.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    # By way of UTC, because a midnight that the clock skips is refused by the parser.
    start, end = (moment.astimezone(UTC).astimezone(zone) for moment in (midnight, midnight + timedelta(days=days)))
    spans: list[tuple[int, int]] = []
    for opens, closes, state, _comment in parsed.intervals(start, end):
        if state is not State.OPEN:
            continue
        span = (int(opens.replace(fold=0).timestamp()), int(closes.timestamp()))
        if spans and span[0] <= spans[-1][1]:
            span = (spans.pop()[0], span[1])
        if span[0] < span[1]:
            spans.append(span)
    return tuple(spans)


class Elapsed(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time: by the clock on the wall, and how much of it the business was open. Whole seconds."""

    wall_seconds: int
    open_seconds: int


def elapsed(hours: OpenHours | None, start: datetime, end: datetime) -> Elapsed:
    """The time from `start` to `end`; a business without hours is always open, and nothing takes less than no time.

    Raises ValueError where `check_hours` has a sentence.
    """
    wall = max(0, int((end - start).total_seconds()))
    if hours is None or not wall:
        return Elapsed(wall_seconds=wall, open_seconds=wall)
    spans = compile_hours(hours, start, days=(end - start).days + 2)
    return Elapsed(wall_seconds=wall, open_seconds=open_seconds(spans, start, end))


def _parse(hours: OpenHours) -> OpeningHours:
    if not is_zone(hours.zone):
        raise ValueError(f"“{hours.zone}” is no time zone; name one such as America/Chicago.")
    zone = ZoneInfo(hours.zone)
    try:
        return OpeningHours(hours.spec, timezone=zone, country=hours.holidays)
    except ParserError as fault:
        raise ValueError(_explain(str(fault))) from None
    except UnknownCountryError:
        raise ValueError(f"“{hours.holidays}” is no country code whose public holidays are known.") from None


def _explain(fault: str) -> str:
    """The parser points at the fault with ` --> 1:13`, line and column from one."""
    column = re.search(r"--> \d+:(\d+)", fault)
    where = f" at character {column[1]}" if column else ""
    return f"The hours cannot be read{where}; write them like “Mo-Fr 08:00-18:00; Sa 09:00-12:00; PH off”."
