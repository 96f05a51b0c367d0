"""Each kind of value has one bounded reading, and what lies beyond the bounds is no value."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from marketplace.text.values import read_count, read_day, read_instant, read_local

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
    ("text", "count"),
    [("0", 0), ("200", 200), ("201", None), ("-1", None), ("1.0", None), ("٣", None), ("9" * 5_000, None), ("", None)],
)
def test_a_count_is_a_whole_number_within_its_bounds(text: str, count: int | None) -> None:
    assert read_count(text, 0, 200) == count
