"""Each kind of value has one bounded reading, and what lies beyond the bounds is no value."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from marketplace.values import MOST_MINOR, read_amount, read_count, read_day, read_instant, read_local

CHICAGO = ZoneInfo("America/Chicago")


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-11-21", date(2026, 11, 21)), ("1971-01-01", date(1971, 1, 1)), ("2999-12-31", date(2999, 12, 31)),
        ("0001-01-01", None), ("1970-12-31", None), ("3000-01-01", None), ("9999-12-31", None), ("2026-02-30", None),
        ("2026-W01-1", None), ("20261121", None), (" 2026-11-21", None), ("٢٠٢٦-11-21", None), ("", None),
        ("2026-11-21\x00", None), (None, None),
    ],
)  # fmt: skip
def test_a_day_is_a_day_of_the_rules_calendar(text: str | None, day: date | None) -> None:
    assert read_day(text) == day


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-21T10:00:00Z", datetime(2026, 11, 21, 10, tzinfo=UTC)),
        ("2026-11-21T10:00:00-06:00", datetime(2026, 11, 21, 16, tzinfo=UTC)),
        ("2026-11-21T10:00:00", None), ("0001-01-01T00:00:00+14:00", None), ("9999-12-31T23:59:59-14:00", None),
        ("1970-12-31T23:59:59Z", None), ("2026-11-21", None), ("now", None), ("\x00", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_an_instant_has_an_offset_and_a_form_in_every_zone(text: str | None, moment: datetime | None) -> None:
    assert read_instant(text) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-21T10:00", datetime(2026, 11, 21, 10, tzinfo=CHICAGO)),
        ("2026-11-21T10:00:05.5", datetime(2026, 11, 21, 10, 0, 5, 500_000, tzinfo=CHICAGO)),
        ("0001-01-01T00:00", None), ("9999-12-31T23:59", None), ("2026-11-21T25:00", None),
        ("2026-11-21T10:00:00+14:00", None), ("2026-11-21", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_a_local_time_is_of_the_zone_of_whoever_typed_it(text: str | None, moment: datetime | None) -> None:
    assert read_local(text, CHICAGO) == moment


@pytest.mark.parametrize(
    ("text", "digits", "minor"),
    [
        ("8400", 2, 840_000), ("8400.5", 2, 840_050), ("8400.50", 2, 840_050), (".5", 2, 50), ("12.5", 3, 12_500),
        ("7", 0, 7), ("7.", 2, 700), ("10000000000.00", 2, MOST_MINOR), ("10000000000.01", 2, None),
        ("7.5", 0, None), ("8400.505", 2, None), ("9e999999", 2, None), ("9E2", 2, None), ("1e-999999", 2, None),
        ("inf", 2, None), ("NaN", 2, None), ("sNaN", 2, None), ("-1", 2, None), ("+1", 2, None), ("1_000", 2, None),
        ("٣", 2, None), ("9" * 5_000, 2, None), ("", 2, None), (".", 2, None), ("1\n", 2, None),
    ],
)  # fmt: skip
def test_an_amount_is_written_in_digits_and_fits(text: str, digits: int, minor: int | None) -> None:
    assert read_amount(text, digits) == minor


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("200", 200), ("201", None), ("-1", None), ("1.0", None), ("٣", None), ("9" * 5_000, None), ("", None)],
)
def test_a_count_is_a_whole_number_within_its_bounds(text: str, count: int | None) -> None:
    assert read_count(text, 0, 200) == count
