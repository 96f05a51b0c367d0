"""Open hours as businesses write them, compiled to the spans that matching searches."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.hours import SPAN_DAYS, check_hours, compile_hours, elapsed
from routing.matching import OpenHours

NEW_YORK = "America/New_York"


def opened(spec: str, first: str, days: int = 1, *, zone: str = NEW_YORK, holidays: str | None = None) -> list[str]:
    """The spans as local wall clock with offset, from the first day's midnight on."""
    since = datetime.fromisoformat(first).replace(tzinfo=ZoneInfo(zone))
    spans = compile_hours(OpenHours(spec=spec, zone=zone, holidays=holidays), since, days)
    return [
        " to ".join(f"{datetime.fromtimestamp(second, ZoneInfo(zone)):%d %H:%M%z}" for second in span) for span in spans
    ]


def test_ordinary_hours_are_open_when_they_say() -> None:
    expected = ["20 08:00-0500 to 20 18:00-0500", "21 09:00-0500 to 21 12:00-0500"]
    assert opened("Mo-Fr 08:00-18:00; Sa 09:00-12:00", "2026-11-20", 3) == expected


def test_hours_over_midnight_are_one_span() -> None:
    assert opened("Fr 22:00-06:00", "2026-11-20", 3) == ["20 22:00-0500 to 21 06:00-0500"]


def test_hours_over_midnight_that_began_the_day_before_are_still_open() -> None:
    assert opened("Fr 22:00-06:00", "2026-11-21", 1) == ["21 00:00-0500 to 21 06:00-0500"]


def test_hours_that_never_close_are_one_span() -> None:
    assert opened("24/7", "2026-11-20", 9) == ["20 00:00-0500 to 29 00:00-0500"]


def test_a_public_holiday_of_the_country_is_off() -> None:
    spec = "Mo-Fr 08:00-18:00; PH off"
    assert len(opened(spec, "2026-11-26", 2, holidays="US")) == 1  # Thanksgiving, and the Friday after it
    assert len(opened(spec, "2026-11-26", 2, holidays="CA")) == 2


def test_a_public_holiday_may_have_hours_of_its_own() -> None:
    spec = "Mo-Fr 08:00-18:00; PH 10:00-12:00"
    assert opened(spec, "2026-12-25", holidays="US") == ["25 10:00-0500 to 25 12:00-0500"]


def test_the_day_the_clocks_go_forward_loses_the_hour() -> None:
    assert opened("00:00-06:00", "2026-03-08") == ["08 00:00-0500 to 08 06:00-0400"]
    assert opened("02:30-06:00", "2026-03-08") == ["08 03:00-0400 to 08 06:00-0400"]
    assert opened("02:15-02:45", "2026-03-08") == []


def test_the_day_the_clocks_go_back_gains_the_hour() -> None:
    assert opened("00:00-06:00", "2026-11-01") == ["01 00:00-0400 to 01 06:00-0500"]
    assert opened("01:30-06:00", "2026-11-01") == ["01 01:30-0400 to 01 06:00-0500"]
    assert opened("00:00-01:30", "2026-11-01") == ["01 00:00-0400 to 01 01:30-0500"]


def test_a_night_across_the_change_keeps_its_wall_clock() -> None:
    assert opened("Sa 22:00-06:00", "2026-03-07", 2) == ["07 22:00-0500 to 08 06:00-0400"]
    assert opened("Sa 22:00-06:00", "2026-10-31", 2) == ["31 22:00-0400 to 01 06:00-0500"]


def test_hours_that_touch_are_one_span() -> None:
    assert opened("08:00-12:00,12:00-18:00", "2026-11-20") == ["20 08:00-0500 to 20 18:00-0500"]


def test_what_the_grammar_calls_unknown_is_closed() -> None:
    assert opened("Mo-Fr 08:00-18:00 unknown", "2026-11-20") == []


def test_the_moment_may_be_given_in_any_zone() -> None:
    hours = OpenHours(spec="Mo-Fr 08:00-18:00", zone=NEW_YORK)
    evening = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)  # still Thursday in New York
    first = compile_hours(hours, evening)[0]
    assert datetime.fromtimestamp(first[0], ZoneInfo(NEW_YORK)) == datetime(2026, 11, 19, 8, tzinfo=ZoneInfo(NEW_YORK))


@given(
    st.sampled_from(
        ["Mo-Fr 08:00-18:00", "22:00-06:00", "Mo 00:00-24:00", "00:30-01:30,01:45-03:15", "Sa-Su 02:00-03:00"]
    ),
    st.sampled_from([NEW_YORK, "America/Havana", "Asia/Beirut", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
def test_spans_are_sorted_apart_and_within_the_coming_days(spec: str, zone: str, since: datetime) -> None:
    spans = compile_hours(OpenHours(spec=spec, zone=zone), since)
    assert spans
    assert all(start < end for start, end in spans)
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    assert spans[0][0] >= (since - timedelta(hours=26)).timestamp()
    assert spans[-1][1] <= (since + timedelta(days=SPAN_DAYS, hours=2)).timestamp()


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (OpenHours(spec="Mo-Fr 08:00-", zone=NEW_YORK), "at character 13"),
        (OpenHours(spec="whenever", zone=NEW_YORK), "at character 1"),
        (OpenHours(spec="", zone=NEW_YORK), "cannot be read"),
        (OpenHours(spec="Mo-Fr 08:00-18:00; " * 30, zone=NEW_YORK), "longer than 500"),
        (OpenHours(spec="24/7", zone="New York"), "no time zone"),
        (OpenHours(spec="24/7", zone="America"), "no time zone"),
        (OpenHours(spec="24/7", zone="localtime"), "no time zone"),
        (OpenHours(spec="24/7", zone=NEW_YORK, holidays="XX"), "no country code"),
        (OpenHours(spec="24/7; PH off", zone=NEW_YORK), "name one in holidays"),
        (OpenHours(spec="Mo-Fr 08:00-18:00; SH off", zone=NEW_YORK, holidays="US"), "“SH” differs"),
        (OpenHours(spec="sunrise-sunset", zone=NEW_YORK), "“sunrise” differs"),
        (OpenHours(spec="off", zone=NEW_YORK), "never open"),
        (OpenHours(spec="1990 Mo 10:00-12:00", zone=NEW_YORK), "never open"),
    ],
)
def test_hours_that_cannot_be_compiled_are_explained(hours: OpenHours, words: str) -> None:
    sentence = check_hours(hours)
    assert sentence is not None
    assert words in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    "spec", ["24/7", "Mo-Fr 08:00-18:00; PH off", "Mo-Fr 9:00-17:00", "Dec 24 off; Mo-Su 10:00-20:00"]
)
def test_hours_that_can_be_compiled_are_accepted(spec: str) -> None:
    assert check_hours(OpenHours(spec=spec, zone=NEW_YORK, holidays="US")) is None


def test_compiling_what_was_never_checked_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        compile_hours(OpenHours(spec="whenever", zone=NEW_YORK), datetime(2026, 11, 20, tzinfo=UTC))


@pytest.mark.parametrize(
    ("start", "end", "wall_hours", "open_hours"),
    [
        ("2026-11-20T10:00", "2026-11-20T10:30", 0.5, 0.5),  # a Friday, within hours
        ("2026-11-20T17:00", "2026-11-23T09:00", 64, 2),  # an hour of Friday and one of Monday
        ("2026-11-21T10:00", "2026-11-22T10:00", 24, 0),  # a weekend
        ("2026-10-30T08:00", "2026-11-02T08:00", 73, 10),  # with the hour that autumn repeats
        ("2026-11-20T10:30", "2026-11-20T10:00", 0, 0),  # told with another clock
        ("2025-11-20T12:00", "2026-11-20T12:00", 8760, 2610),  # a year: 261 working days of ten hours
    ],
)
def test_time_that_has_passed_is_told_by_the_wall_and_by_the_open_hours(
    start: str, end: str, wall_hours: float, open_hours: float
) -> None:
    hours = OpenHours(spec="Mo-Fr 08:00-18:00", zone=NEW_YORK)
    zone = ZoneInfo(NEW_YORK)
    begins, ends = (datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC) for text in (start, end))
    passed = elapsed(hours, begins, ends)
    assert (passed.wall_seconds, passed.open_seconds) == (wall_hours * 3600, open_hours * 3600)
    always = elapsed(None, begins, ends)
    assert always.wall_seconds == always.open_seconds == passed.wall_seconds
