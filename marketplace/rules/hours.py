"""Opening hours of businesses, compiled from text to the spans that matching searches.

The text is in the opening-hours grammar of OpenStreetMap (`Mo-Fr 08:00-18:00; PH off`), with weekdays, seasons and
public holidays. The package parses it and says which days a rule names. Two rules differ from the package and are
applied here: a shift over midnight belongs completely to the day on which it began, and public holidays are those of
`marketplace.rules.public_holidays`. Hours are compiled ahead of time; matching only bisects spans of seconds.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import opening_hours
from opening_hours import OpeningHours, State

from marketplace.rules.public_holidays import is_known_place, is_public_holiday
from routing.calendar import CapWindow, open_seconds, window_starts
from routing.pacing import ArrivalPlan, plan_arrivals
from routing.subscription import OpenHours, SubscriptionDefinition, is_zone

SPAN_DAYS: Final = 9
"""Days compiled: a week and a day ahead, and the current day. Every weekly pattern shows its next opening, and the
daily renewal may fail once."""
LONGEST_SPEC: Final = 500
"""Characters; a week of differing hours with a dozen holidays takes fewer than 300."""
SPECS_KEPT: Final = 4_096
"""Parsed specs and compiled spans cached in a process, some kilobytes each: many businesses have the same hours."""
DAY_MINUTES: Final = 1_440

ParserError: type[Exception] = vars(opening_hours)["ParserError"]
"""Error of the package, which its types do not declare."""

_UNKNOWABLE: Final = re.compile(r"\b(sunrise|sunset|dawn|dusk|SH)\b", re.IGNORECASE)
_HOLIDAYS: Final = re.compile(r"\bPH\b", re.IGNORECASE)
_LONG_AGO: Final = datetime(2000, 1, 1)
_MONTHS: Final = "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"
_LAST_DAYS: Final = dict(zip(_MONTHS, (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))
_DATE: Final = re.compile(rf"\b({'|'.join(_MONTHS)}) (\d{{1,2}})(?:-(\d{{1,2}}))?(?!\d|:\d)", re.IGNORECASE)
"A day of a month, or several; digits before a colon and a digit are a time."

# Patterns for the normalised text that the package writes, in which everything has one spelling.
_COMMENT: Final = re.compile(r'"[^"]*"')
_SEPARATOR: Final = re.compile(r"(; |, | \|\| )")
_TIME: Final = re.compile(r"(?:^| )(\d\d:\d\d\S*)$")
_TIME_SPAN: Final = re.compile(r"(\d\d):(\d\d)(?:-(\d\d):(\d\d))?")
_WEEKDAYS: Final = re.compile(r"(?:^| )((?:Mo|Tu|We|Th|Fr|Sa|Su|PH)\b.*)$")
_HOLIDAY_ITEM: Final = re.compile(r"PH(?: ([+-]?\d+) days?)?")

Span = tuple[int, int]
"Interval [start, end) of time."
_Shift = tuple[int, Span]
"Number of the rule that opens or closes, and the interval in minutes of local time."


class _Holidays(msgspec.Struct, frozen=True, kw_only=True):
    """Days that are `offset` days after a public holiday and in `within` (None: any day)."""

    offset: int
    within: OpeningHours | None


class _Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a spec: the days that it names, and their hours.

    `operator` joins it to the rules before: "; " replaces them, ", " adds to them, " || " applies where no other does.
    `state` is open, closed or unknown. `days` are parsed by the package (None: no such part). `spans` are in minutes
    from the midnight at which the day begins, up to 48:00; empty for a whole day.
    """

    operator: str
    state: str
    days: OpeningHours | None
    holidays: tuple[_Holidays, ...]
    spans: tuple[Span, ...]


def check_hours(hours: OpenHours) -> str | None:
    """Return a sentence for the business about what is wrong with `hours`, or None when they can be compiled."""
    if len(hours.spec) > LONGEST_SPEC:
        return f"The hours are longer than {LONGEST_SPEC} characters; leave out days that repeat."
    if unknowable := _UNKNOWABLE.search(hours.spec):
        return f"“{unknowable[0]}” differs from place to place and is not known here; write clock hours or dates."
    if _HOLIDAYS.search(hours.spec) and hours.holidays is None:
        return "“PH” needs a country whose public holidays are meant; name one in holidays."
    if impossible := _impossible_date(hours.spec):
        return f"“{impossible}” is no date; each month has its own last day."
    try:
        _check_place(hours)
        _read_rules(hours.spec)
    except ValueError as fault:
        return str(fault)
    # The country does not matter here: each has holidays every year.
    parsed = OpeningHours(hours.spec, country="US")
    if parsed.is_closed(_LONG_AGO) and parsed.next_change(_LONG_AGO) is None:
        return "These hours are never open."
    return None


def _impossible_date(spec: str) -> str | None:
    """Return the first date that no year has, such as Feb 30, or None. The package takes it for every day."""
    for date_text in _DATE.finditer(_COMMENT.sub("", spec)):
        month, *days = date_text.groups()
        last = max(int(day) for day in days if day is not None)
        if last > _LAST_DAYS[month.lower()]:
            return f"{month} {last}"
    return None


def compile_hours(hours: OpenHours, since: datetime, days: int = SPAN_DAYS) -> tuple[Span, ...]:
    """Return the open spans in UTC epoch seconds from the local midnight before `since`, sorted and disjoint.

    A shift over midnight belongs to the day on which it began: a closed day cancels the shifts that begin on it, and
    the shift of the evening before goes on to its end. A local time that the clock skips in spring is the moment of the
    change; one that occurs twice in autumn opens at the first and closes at the last. The state "unknown" counts as
    closed. Raises ValueError where `check_hours` returns a sentence.
    """
    _check_place(hours)
    first = since.astimezone(ZoneInfo(hours.zone)).date()
    return _compile_soon(hours, first, days) if days <= SPAN_DAYS else _compile(hours, first, days)


def compile_plan(
    definition: SubscriptionDefinition, spans: tuple[Span, ...] | None, arrivals: Sequence[int], since: datetime
) -> ArrivalPlan | None:
    """Return the arrivals over which a subscription spreads its caps, or None if it does not.

    `spans` are its hours as `compile_hours` returns them for `since`, None if it is always open; `arrivals` those of
    its vertical by the hour of the week.
    """
    if not definition.pace:
        return None
    zone = definition.hours.zone if definition.hours else definition.zone
    return plan_arrivals(arrivals, spans, window_starts(since, zone)[CapWindow.day])


def _compile(hours: OpenHours, first: date, days: int) -> tuple[Span, ...]:
    """Return the spans of `days` days from `first`; see compile_hours."""
    zone = ZoneInfo(hours.zone)
    midnight, last = (datetime.combine(first + timedelta(days=nth), datetime.min.time()) for nth in (0, days))
    start, end = _epoch_seconds(midnight, zone, fold=0), _epoch_seconds(last, zone, fold=0)
    spans: list[Span] = []
    for opens, closes in _wall_spans(hours, first, days):
        span = (
            max(start, _epoch_seconds(midnight + timedelta(minutes=opens), zone, fold=0)),
            min(end, _epoch_seconds(midnight + timedelta(minutes=closes), zone, fold=1)),
        )
        if spans and span[0] <= spans[-1][1]:
            span = (spans[-1][0], max(spans.pop()[1], span[1]))
        if span[0] < span[1]:
            spans.append(span)
    return tuple(spans)


_compile_soon: Final = lru_cache(maxsize=SPECS_KEPT)(_compile)


def _epoch_seconds(wall: datetime, zone: ZoneInfo, fold: int) -> int:
    """Return the UTC second of a local time, or of the change for a local time that the clock skips."""
    early, late = sorted(int(wall.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    if early == late:
        return early
    if datetime.fromtimestamp(early, zone).replace(tzinfo=None) == wall:  # occurs twice
        return late if fold else early
    offset = datetime.fromtimestamp(early, zone).utcoffset()
    while late - early > 1:
        middle = (early + late) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            early = middle
        else:
            late = middle
    return late


def _wall_spans(hours: OpenHours, first: date, days: int) -> list[Span]:
    """Return open spans of local time, in minutes from the midnight at which `first` begins, sorted; they may touch."""
    rules = _read_rules(hours.spec)
    before = 2  # a shift ends by 48:00, the end of the day after the one on which it began
    dates = [first + timedelta(days=nth) for nth in range(-before, days)]
    named = [_days_named(rule, hours.holidays, dates[0], len(dates)) for rule in rules]
    shifts: list[_Shift] = []
    closures: list[_Shift] = []
    for nth, day in enumerate(dates):
        matching = [(number, rule) for number, rule in enumerate(rules) if day in named[number]]
        shifts.extend(_shifts_of_day(matching, (nth - before) * DAY_MINUTES, closures))
    return sorted(_without(shifts, closures))


def _shifts_of_day(rules: Sequence[tuple[int, _Rule]], midnight: int, closures: list[_Shift]) -> list[_Shift]:
    """Return the shifts that begin on a day, by the rules that name it; add the hours they close to `closures`."""
    today: list[_Shift] = []
    unknown = False
    for number, rule in rules:
        if rule.operator == " || " and (unknown or _without(today, closures)):
            continue
        spans = [(number, (midnight + opens, midnight + closes)) for opens, closes in rule.spans]
        if rule.state == "open":
            whole_day = [(number, (midnight, midnight + DAY_MINUTES))]
            earlier = today if rule.operator == ", " else []
            today, unknown = [*earlier, *(spans or whole_day)], unknown and bool(earlier)
        elif not spans or (rule.state, rule.operator) == ("unknown", "; "):
            today, unknown = [], rule.state == "unknown"
        else:
            closures.extend(spans)
            unknown = unknown or rule.state == "unknown"
    return today


def _without(shifts: Iterable[_Shift], closures: Sequence[_Shift]) -> list[Span]:
    """Return the parts of the shifts that no later rule closes by the clock."""
    left: list[Span] = []
    for number, shift in shifts:
        parts = [shift]
        for closing, (closes, opens) in closures:
            if closing > number:
                parts = [
                    part
                    for start, end in parts
                    for part in ((start, min(end, closes)), (max(start, opens), end))
                    if part[0] < part[1]
                ]
        left.extend(parts)
    return left


def _days_named(rule: _Rule, place: str | None, first: date, days: int) -> frozenset[date]:
    """Return the days that a rule names, among `days` of them from `first`."""
    named = _days_of(rule.days, first, days) if rule.days else set()
    for part in rule.holidays:
        inside = None if part.within is None else _days_of(part.within, first, days)
        for nth in range(days):
            day = first + timedelta(days=nth)
            if (inside is None or day in inside) and is_public_holiday(place or "", day - timedelta(days=part.offset)):
                named.add(day)
    return frozenset(named)


def _days_of(selector: OpeningHours, first: date, days: int) -> set[date]:
    """Return the days that the package finds open, among `days` of them from `first`."""
    start = datetime.combine(first, datetime.min.time())
    named: set[date] = set()
    for opens, closes, state, _comment in selector.intervals(start, start + timedelta(days=days)):
        if state is State.OPEN:
            named.update(opens.date() + timedelta(days=nth) for nth in range((closes - opens).days))
    return named


@lru_cache(maxsize=SPECS_KEPT)
def _read_rules(spec: str) -> tuple[_Rule, ...]:
    """Return the rules of a spec in order. Raises ValueError with a sentence for its author."""
    try:
        text = str(OpeningHours(spec))
    except ParserError as fault:
        raise ValueError(_explain(str(fault))) from None
    return tuple(_rules_of(_COMMENT.sub("", text)))


def _rules_of(text: str) -> Iterator[_Rule]:
    """Yield the rules in the normalised text of a spec."""
    pieces = ["; ", *_SEPARATOR.split(text)]
    for operator, piece in zip(pieces[::2], pieces[1::2], strict=True):
        words, state = piece.strip(), "open"
        for ending in ("closed", "unknown"):
            if words == ending or words.endswith(f" {ending}"):
                words, state = words.removesuffix(ending).strip(), ending
        time = _TIME.search(words)
        selector = words[: time.start()] if time else words
        if selector == "24/7":
            selector = ""
        days, holidays = _read_selector(selector)
        spans = _spans_of(time[1]) if time else ()
        yield _Rule(operator=operator, state=state, days=days, holidays=holidays, spans=spans)


def _spans_of(text: str) -> tuple[Span, ...]:
    """Return the time spans in a text, in minutes; one that ends before it begins ends on the next day."""
    spans = []
    for hour, minute, end_hour, end_minute in _TIME_SPAN.findall(text):
        opens = int(hour) * 60 + int(minute)
        closes = int(end_hour) * 60 + int(end_minute) if end_hour else DAY_MINUTES
        if closes <= opens:
            closes += DAY_MINUTES
        spans.append((opens, closes))
    return tuple(spans)


def _read_selector(selector: str) -> tuple[OpeningHours | None, tuple[_Holidays, ...]]:
    """Return the days that the package can select, and the public holidays, which are selected here."""
    tail = _WEEKDAYS.search(selector)
    if tail is None or not _HOLIDAY_ITEM.search(tail[1]):
        return OpeningHours(selector or "24/7"), ()
    season = selector[: tail.start()].strip()
    within = OpeningHours(season) if season else None
    offsets = [int(offset or 0) for offset in _HOLIDAY_ITEM.findall(tail[1])]
    weekdays = ",".join(item for item in tail[1].split(",") if not _HOLIDAY_ITEM.fullmatch(item))
    days = OpeningHours(f"{season} {weekdays}".strip()) if weekdays else None
    return days, tuple(_Holidays(offset=offset, within=within) for offset in offsets)


class Elapsed(msgspec.Struct, frozen=True, kw_only=True):
    """Length of a period in whole seconds: in total, and while the business was open."""

    wall_seconds: int
    open_seconds: int


def elapsed(hours: OpenHours | None, start: datetime, end: datetime) -> Elapsed:
    """Return the time from `start` to `end`, at least 0; a business without hours is always open.

    Raises ValueError where `check_hours` returns a sentence.
    """
    wall = max(0, int((end - start).total_seconds()))
    if hours is None or not wall:
        return Elapsed(wall_seconds=wall, open_seconds=wall)
    spans = compile_hours(hours, start, days=(end - start).days + 2)
    return Elapsed(wall_seconds=wall, open_seconds=open_seconds(spans, start, end))


def _check_place(hours: OpenHours) -> None:
    """Raise ValueError with a sentence for an unknown time zone or place of holidays."""
    if not is_zone(hours.zone):
        raise ValueError(f"“{hours.zone}” is no time zone; name one such as America/Chicago.")
    if hours.holidays is not None and not is_known_place(hours.holidays):
        raise ValueError(f"“{hours.holidays}” is no country code whose public holidays are known.")


def _explain(fault: str) -> str:
    """Return a sentence from the parser's error, which names line and column as ` --> 1:13`."""
    column = re.search(r"--> \d+:(\d+)", fault)
    where = f" at character {column[1]}" if column else ""
    return f"The hours cannot be read{where}; write them like “Mo-Fr 08:00-18:00; Sa 09:00-12:00; PH off”."
