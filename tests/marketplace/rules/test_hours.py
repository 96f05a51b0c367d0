"""Open hours as businesses write them, compiled to the spans that matching searches."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import holidays as holiday_tables
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opening_hours import OpeningHours, State

from marketplace.rules.hours import SPAN_DAYS, check_hours, compile_hours, elapsed
from marketplace.rules.public_holidays import is_known_place, is_public_holiday
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


def test_a_holiday_on_a_weekend_is_off_on_the_day_itself_and_on_its_substitute() -> None:
    tirana = {"zone": "Europe/Tirane", "holidays": "AL"}
    assert opened("24/7; PH off", "2026-11-27", 5, **tirana) == ["27 00:00+0100 to 28 00:00+0100"]
    assert opened("24/7; PH off", "2026-07-03", 3, holidays="US") == ["05 00:00-0400 to 06 00:00-0400"]
    assert opened("24/7; 2026 Nov 27-28 off", "2026-11-27", 3) == ["29 00:00-0500 to 30 00:00-0500"]
    assert opened("24/7; PH off; 2026 Jul 3", "2026-07-03", 2, holidays="US") == ["03 00:00-0400 to 04 00:00-0400"]


def test_public_holidays_of_one_state_are_its_own() -> None:
    san_jacinto = "2026-04-21"
    assert len(opened("24/7; PH off", san_jacinto, holidays="US-CA")) == 1
    assert opened("24/7; PH off", san_jacinto, holidays="US-TX") == []


def test_public_holidays_of_every_state_hold_the_day_itself_and_its_substitute() -> None:
    states = holiday_tables.list_supported_countries()["US"]
    assert len(states) > 50
    for state in states:
        for year in range(2024, 2034):
            for observed in (True, False):
                table = holiday_tables.country_holidays("US", subdiv=state, years=year, observed=observed)
                assert all(is_public_holiday(f"US-{state}", day) for day in table), (state, year)
            fixed = [date(year, 1, 1), date(year, 7, 4), date(year, 11, 11), date(year, 12, 25)]
            assert all(is_public_holiday(f"US-{state}", day) for day in fixed[:2] + fixed[3:]), (state, year)
            assert all(is_public_holiday("US", day) for day in fixed)


@pytest.mark.parametrize("place", ["US", "CA", "GB", "AL", "AU", "IE", "MX", "NZ", "PL", "ZA"])
def test_no_holiday_of_the_grammars_own_table_is_lost(place: str) -> None:
    since, until = datetime(2024, 1, 1), datetime(2030, 1, 1)
    for opens, closes, state, _ in OpeningHours("PH", country=place).intervals(since, until):
        if state is State.OPEN:
            for nth in range((closes - opens).days):
                assert is_public_holiday(place, opens.date() + timedelta(days=nth))


@pytest.mark.parametrize(
    ("place", "is_place"),
    [
        ("US", True),
        ("IN", True),
        ("US-TX", True),
        ("GB-ENG", True),
        ("XX", False),
        ("US-XX", False),
        ("us", False),
        ("", False),
        ("US-", False),
        ("-TX", False),
        ("UK", False),
        ("US-TX-1", False),
    ],
)
def test_a_place_of_holidays_is_a_country_or_a_part_of_one(place: str, is_place: bool) -> None:
    assert is_known_place(place) is is_place
    assert (check_hours(OpenHours(spec="24/7; PH off", zone=NEW_YORK, holidays=place)) is None) is is_place


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            "Mo-Fr 08:00-12:00; PH,Sa 10:00-11:00",
            ["26 10:00 to 26 11:00", "27 08:00 to 27 12:00", "28 10:00 to 28 11:00"],
        ),
        ("Mo-Fr,PH 08:00-12:00", ["26 08:00 to 26 12:00", "27 08:00 to 27 12:00"]),
        ("Mo-Sa 08:00-12:00; PH +1 day off", ["26 08:00 to 26 12:00", "28 08:00 to 28 12:00"]),
        ("Mo-Sa 08:00-12:00; PH -1 day off", ["26 08:00 to 26 12:00", "27 08:00 to 27 12:00", "28 08:00 to 28 12:00"]),
        ("Mo-Sa 08:00-12:00; Dec PH off", ["26 08:00 to 26 12:00", "27 08:00 to 27 12:00", "28 08:00 to 28 12:00"]),
        ("Mo-Sa 08:00-12:00; Nov PH off", ["27 08:00 to 27 12:00", "28 08:00 to 28 12:00"]),
        ("24/7; PH 10:00-12:00 off", ["26 00:00 to 26 10:00", "26 12:00 to 29 00:00"]),
        ('Mo-Fr 08:00-12:00 "not on PH 09:00-10:00"', ["26 08:00 to 26 12:00", "27 08:00 to 27 12:00"]),
        ("PH off; 24/7", ["26 00:00 to 29 00:00"]),
        ("PH off || 24/7", ["26 00:00 to 29 00:00"]),
    ],
)
def test_public_holidays_stand_wherever_the_grammar_takes_them(spec: str, expected: list[str]) -> None:
    spans = opened(spec, "2026-11-26", 3, holidays="US")  # Thanksgiving, a Friday and a Saturday
    assert [span.replace("-0500", "") for span in spans] == expected


@pytest.mark.parametrize(
    ("spec", "first", "days", "expected"),
    [
        (
            "Mo-Su 18:00-06:00; Nov 28 off",
            "2026-11-27",
            4,
            ["27 00:00 to 27 06:00", "27 18:00 to 28 06:00", "29 18:00 to 30 06:00", "30 18:00 to 01 00:00"],
        ),
        ("Mo-Su 18:00-06:00; Nov 28 off", "2026-11-29", 1, ["29 18:00 to 30 00:00"]),
        (
            "Mo-Su 22:00-30:00; PH off",
            "2026-11-25",
            3,
            ["25 00:00 to 25 06:00", "25 22:00 to 26 06:00", "27 22:00 to 28 00:00"],
        ),
        ("Fr 22:00-04:00; Sa 10:00-12:00", "2026-11-27", 2, ["27 22:00 to 28 04:00", "28 10:00 to 28 12:00"]),
        ("Su 20:00-02:00; Mo-Sa off", "2026-11-29", 2, ["29 20:00 to 30 02:00"]),
        ("Sa 22:00-06:00, Su 04:00-08:00", "2026-11-28", 2, ["28 22:00 to 29 08:00"]),
        ("Fr 22:00-04:00; Sa 01:00-02:00 off", "2026-11-27", 2, ["27 22:00 to 28 01:00", "28 02:00 to 28 04:00"]),
        ("Fr 22:00-04:00; Sa 01:00-02:00 unknown", "2026-11-27", 2, ["27 22:00 to 28 04:00"]),
        ("Fr 20:00-48:00; Sa off", "2026-11-27", 3, ["27 20:00 to 29 00:00"]),
        ("Fr 10:00+; Sa off", "2026-11-27", 2, ["27 10:00 to 28 00:00"]),
        ("Fr 10:00-10:00; Sa off", "2026-11-27", 2, ["27 10:00 to 28 10:00"]),
        ("Nov 27 18:00-06:00 || 12:00-13:00", "2026-11-27", 2, ["27 18:00 to 28 06:00", "28 12:00 to 28 13:00"]),
    ],
)
def test_a_shift_over_midnight_belongs_to_the_day_on_which_it_began(
    spec: str, first: str, days: int, expected: list[str]
) -> None:
    spans = opened(spec, first, days, holidays="US")
    assert [span.replace("-0500", "") for span in spans] == expected


def test_a_night_off_over_the_change_of_the_clocks_is_the_whole_shift() -> None:
    assert opened("22:00-06:00; Mar 07 off", "2026-03-07", 2) == [
        "07 00:00-0500 to 07 06:00-0500",
        "08 22:00-0400 to 09 00:00-0400",
    ]
    assert opened("22:00-01:30; Nov 01 off", "2026-10-31", 2) == [
        "31 00:00-0400 to 31 01:30-0400",
        "31 22:00-0400 to 01 01:30-0500",
    ]


def test_time_over_midnight_is_counted_for_the_shift_that_began() -> None:
    hours = OpenHours(spec="Mo-Su 18:00-06:00; Nov 28 off", zone="UTC")
    start, end = datetime(2026, 11, 27, 12, tzinfo=UTC), datetime(2026, 11, 29, 12, tzinfo=UTC)
    assert elapsed(hours, start, end).open_seconds == 12 * 3600


SELECTORS = st.sampled_from(
    ["", "Mo-Fr", "Sa", "Su-Mo", "Mo,We-Th", "Dec 24", "Nov 20-Dec 3", "Nov", "week 47-48", "Mo[1]", "Nov Fr", "2026"]
)
TIMES = st.sampled_from(
    ["08:00-18:00", "00:00-24:00", "09:00-12:00,13:30-17:15", "23:00-24:00", "00:00-01:00", "10:00+"]
)
RULES = st.builds(
    lambda selector, times, state: " ".join(part for part in (selector, times, state) if part),
    SELECTORS,
    TIMES | st.just(""),
    st.sampled_from(["", "", "open", "off", "unknown", '"by appointment"']),
)
SPECS = st.builds(
    lambda first, others: first + "".join(others),
    RULES.filter(bool),
    st.lists(st.builds(str.__add__, st.sampled_from(["; ", ", ", " || "]), RULES.filter(bool)), max_size=4),
)


@settings(max_examples=400, deadline=None)
@given(SPECS, st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1)))
def test_hours_of_single_days_without_holidays_are_open_when_the_package_says(spec: str, since: datetime) -> None:
    try:
        package = OpeningHours(spec)
    except Exception:
        assume(False)
    midnight = since.replace(hour=0, minute=0, second=0, microsecond=0)
    expected = [
        (int(opens.replace(tzinfo=UTC).timestamp()), int(closes.replace(tzinfo=UTC).timestamp()))
        for day in (midnight + timedelta(days=nth) for nth in range(9))  # over many days it loses what "||" adds
        for opens, closes, state, _ in package.intervals(day, day + timedelta(days=1))
        if state is State.OPEN
    ]
    joined: list[tuple[int, int]] = []
    for start, end in expected:
        joined.append((joined.pop()[0], end) if joined and joined[-1][1] == start else (start, end))
    assert list(compile_hours(OpenHours(spec=spec, zone="UTC"), since.replace(tzinfo=UTC))) == joined


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
        (OpenHours(spec="Mo-Fr 08:00-18:00; Feb 30 off", zone=NEW_YORK), "“Feb 30” is no date"),
        (OpenHours(spec="Apr 28-31 08:00-12:00", zone=NEW_YORK), "“Apr 31” is no date"),
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


@pytest.mark.parametrize(
    "spec", ["Feb 29 08:00-18:00", "Jan 08:00-18:00", "Jun 28-30 08:00-18:00", '24/7 "not Feb 30"']
)
def test_dates_of_any_year_and_hours_after_a_month_are_taken(spec: str) -> None:
    assert check_hours(OpenHours(spec=spec, zone=NEW_YORK)) is None
