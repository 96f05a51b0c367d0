"""A business's open hours, from the words in which they are kept to the spans that matching searches.

The words are the opening-hours grammar of OpenStreetMap (`Mo-Fr 08:00-18:00; PH off`), which knows weekdays, seasons
and public holidays. The package reads the words and says which days a rule names. Two things it answers otherwise than
a business means them, and they are done here: a shift over midnight belongs wholly to the day on which it began, and
public holidays are those of `marketplace.rules.public_holidays`. All of it happens ahead of time; matching only bisects
spans of seconds.
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
from routing.calendar import open_seconds
from routing.subscription import OpenHours, is_zone

SPAN_DAYS: Final = 9
"""A week and a day ahead, plus the day that has begun: every weekly pattern shows its next opening, and the daily
renewal may fail once."""
LONGEST_SPEC: Final = 500
"""Characters; a week of differing hours with a dozen holidays takes fewer than 300."""
SPECS_KEPT: Final = 4_096
"""Read specs and compiled spans kept in a process, some kilobytes each: most businesses keep the same few hours."""
DAY_MINUTES: Final = 1_440

ParserError: type[Exception] = vars(opening_hours)["ParserError"]
"""The package raises it without declaring it in its types."""

_UNKNOWABLE: Final = re.compile(r"\b(sunrise|sunset|dawn|dusk|SH)\b", re.IGNORECASE)
_HOLIDAYS: Final = re.compile(r"\bPH\b", re.IGNORECASE)
_LONG_AGO: Final = datetime(2000, 1, 1)

# Pieces of the text that the package writes for what it has read, which has one spelling for everything.
_COMMENT: Final = re.compile(r'"[^"]*"')
_SEPARATOR: Final = re.compile(r"(; |, | \|\| )")
_TIME: Final = re.compile(r"(?:^| )(\d\d:\d\d\S*)$")
_TIME_SPAN: Final = re.compile(r"(\d\d):(\d\d)(?:-(\d\d):(\d\d))?")
_WEEKDAYS: Final = re.compile(r"(?:^| )((?:Mo|Tu|We|Th|Fr|Sa|Su|PH)\b.*)$")
_HOLIDAY_ITEM: Final = re.compile(r"PH(?: ([+-]?\d+) days?)?")

Span = tuple[int, int]
"A stretch [start, end) of time."
_Shift = tuple[int, Span]
"A stretch by the wall clock, in minutes, with the number of the rule that opens or closes it."


class _Holidays(msgspec.Struct, frozen=True, kw_only=True):
    """Days that lie `offset` days after a public holiday and in `within` (None: on any day)."""

    offset: int
    within: OpeningHours | None


class _Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a spec: the days that it names, and what it says of them.

    `operator` is how it joins those before it: "; " replaces, ", " adds, " || " applies where nothing else does.
    `state` is open, closed or unknown. `days` are read by the package (None: no such part). `spans` are in minutes
    from the midnight that begins the day, up to 48:00; empty for a whole day.
    """

    operator: str
    state: str
    days: OpeningHours | None
    holidays: tuple[_Holidays, ...]
    spans: tuple[Span, ...]


def check_hours(hours: OpenHours) -> str | None:
    """What is wrong with `hours`, as a sentence for the business that wrote them, or None when they can be compiled."""
    if len(hours.spec) > LONGEST_SPEC:
        return f"The hours are longer than {LONGEST_SPEC} characters; leave out days that repeat."
    if unknowable := _UNKNOWABLE.search(hours.spec):
        return f"“{unknowable[0]}” differs from place to place and is not known here; write clock hours or dates."
    if _HOLIDAYS.search(hours.spec) and hours.holidays is None:
        return "“PH” needs a country whose public holidays are meant; name one in holidays."
    try:
        _check_place(hours)
        _read_rules(hours.spec)
    except ValueError as fault:
        return str(fault)
    # Holidays of any country will do: each has some every year.
    parsed = OpeningHours(hours.spec, country="US")
    if parsed.is_closed(_LONG_AGO) and parsed.next_change(_LONG_AGO) is None:
        return "These hours are never open."
    return None


def compile_hours(hours: OpenHours, since: datetime, days: int = SPAN_DAYS) -> tuple[Span, ...]:
    """The open spans [start, end) in UTC epoch seconds from the local midnight before `since`, sorted and apart from
    each other.

    A shift over midnight belongs to the day on which it began: a day that is off cancels the shifts that begin on it,
    and leaves the one of the evening before to its end. A local time that the clock skips in spring is the moment of
    the change; one that it repeats in autumn opens at the first and closes at the last. A state the grammar calls
    unknown counts as closed. Raises ValueError where `check_hours` has a sentence.
    """
    _check_place(hours)
    first = since.astimezone(ZoneInfo(hours.zone)).date()
    return _compile_soon(hours, first, days) if days <= SPAN_DAYS else _compile(hours, first, days)


def _compile(hours: OpenHours, first: date, days: int) -> tuple[Span, ...]:
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
    """The moment of a local time; of one that the clock skips the moment of the change, whichever `fold`."""
    early, late = sorted(int(wall.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    if early == late:
        return early
    if datetime.fromtimestamp(early, zone).replace(tzinfo=None) == wall:  # repeated
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
    """Open spans by the wall clock, in minutes from the midnight that begins `first`, sorted; they may touch."""
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
    """The shifts that begin on a day, by the rules that name it; hours that they close are added to `closures`."""
    today: list[_Shift] = []
    unknown = False
    for number, rule in rules:
        if rule.operator == " || " and (unknown or _without(today, closures)):
            continue
        spans = [(number, (midnight + opens, midnight + closes)) for opens, closes in rule.spans]
        if rule.state == "open":
            whole_day = [(number, (midnight, midnight + DAY_MINUTES))]
            kept = today if rule.operator == ", " else []
            today, unknown = [*kept, *(spans or whole_day)], unknown and bool(kept)
        elif not spans or (rule.state, rule.operator) == ("unknown", "; "):
            today, unknown = [], rule.state == "unknown"
        else:
            closures.extend(spans)
            unknown = unknown or rule.state == "unknown"
    return today


def _without(shifts: Iterable[_Shift], closures: Sequence[_Shift]) -> list[Span]:
    """What is left of shifts: hours that a rule closes by the clock are closed to the shifts of all rules before it."""
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
    """The days among `days` of them from `first` on that a rule names."""
    named = _days_of(rule.days, first, days) if rule.days else set()
    for part in rule.holidays:
        inside = None if part.within is None else _days_of(part.within, first, days)
        for nth in range(days):
            day = first + timedelta(days=nth)
            if (inside is None or day in inside) and is_public_holiday(place or "", day - timedelta(days=part.offset)):
                named.add(day)
    return frozenset(named)


def _days_of(selector: OpeningHours, first: date, days: int) -> set[date]:
    start = datetime.combine(first, datetime.min.time())
    found: set[date] = set()
    for opens, closes, state, _comment in selector.intervals(start, start + timedelta(days=days)):
        if state is State.OPEN:
            found.update(opens.date() + timedelta(days=nth) for nth in range((closes - opens).days))
    return found


@lru_cache(maxsize=SPECS_KEPT)
def _read_rules(spec: str) -> tuple[_Rule, ...]:
    """The rules of a spec in their order. Raises ValueError with a sentence for who wrote it."""
    try:
        text = str(OpeningHours(spec))
    except ParserError as fault:
        raise ValueError(_explain(str(fault))) from None
    return tuple(_rules_of(_COMMENT.sub("", text)))


def _rules_of(text: str) -> Iterator[_Rule]:
    pieces = ["; ", *_SEPARATOR.split(text)]
    for operator, piece in zip(pieces[::2], pieces[1::2], strict=True):
        words, state = piece.strip(), "open"
        for ending in ("closed", "unknown"):
            if words == ending or words.endswith(f" {ending}"):
                words, state = words.removesuffix(ending).strip(), ending
        time = _TIME.search(words)
        selector = words[: time.start()] if time else words
        days, holidays = _read_selector("" if selector == "24/7" else selector)
        spans = _spans_of(time[1]) if time else ()
        yield _Rule(operator=operator, state=state, days=days, holidays=holidays, spans=spans)


def _spans_of(text: str) -> tuple[Span, ...]:
    spans = []
    for hour, minute, end_hour, end_minute in _TIME_SPAN.findall(text):
        opens = int(hour) * 60 + int(minute)
        closes = int(end_hour) * 60 + int(end_minute) if end_hour else DAY_MINUTES
        spans.append((opens, closes if closes > opens else closes + DAY_MINUTES))
    return tuple(spans)


def _read_selector(selector: str) -> tuple[OpeningHours | None, tuple[_Holidays, ...]]:
    """The days that the package can tell, and the public holidays, which it is not asked about."""
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


def _check_place(hours: OpenHours) -> None:
    """Raises ValueError with a sentence for a zone or a place of holidays that is not known."""
    if not is_zone(hours.zone):
        raise ValueError(f"“{hours.zone}” is no time zone; name one such as America/Chicago.")
    if hours.holidays is not None and not is_known_place(hours.holidays):
        raise ValueError(f"“{hours.holidays}” is no country code whose public holidays are known.")


def _explain(fault: str) -> str:
    """The parser points at the fault with ` --> 1:13`, line and column from one."""
    column = re.search(r"--> \d+:(\d+)", fault)
    where = f" at character {column[1]}" if column else ""
    return f"The hours cannot be read{where}; write them like “Mo-Fr 08:00-18:00; Sa 09:00-12:00; PH off”."
