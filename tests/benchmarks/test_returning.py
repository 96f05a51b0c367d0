"""Returning people of the education leads: their touches, their groups and the difference of two shares."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.returning import (
    BETWEEN_VISITS,
    INQUIRED_BEFORE,
    MOST_VISITS,
    difference,
    groups_of,
    summarise,
    touches_of,
)
from billing.intervals import Figure

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ROW = {
    "TotalVisits": "3.0",
    "Total Time Spent on Website": "1428.0",
    "Page Views Per Visit": "1.5",
    "Last Activity": "",
}


def test_each_visit_is_a_touch_and_the_last_supplies_how_long_the_person_read() -> None:
    touches = touches_of(ROW, NOW)
    assert [touch["at"] for touch in touches] == [NOW - place * BETWEEN_VISITS for place in range(3)]
    assert touches[0]["supplies"]["need"]["fields"]["reading"] == "long"
    assert not any("supplies" in touch for touch in touches[1:])


def test_all_touches_lie_between_the_inquiry_and_now() -> None:
    touches = touches_of(ROW | {"TotalVisits": "200"}, NOW)
    assert len(touches) == MOST_VISITS
    assert min(touch["at"] for touch in touches) > NOW - INQUIRED_BEFORE + timedelta(hours=1)


@pytest.mark.parametrize(
    ("activity", "kinds"),
    [("Email Link Clicked", ["link_click"]), ("SMS Sent", []), ("Had a Phone Conversation", []), ("", [])],
)
def test_only_what_the_person_did_is_a_touch(activity: str, kinds: list[str]) -> None:
    row = ROW | {"TotalVisits": "", "Last Activity": activity}
    assert [touch["kind"] for touch in touches_of(row, NOW)] == kinds


def test_a_lead_is_promoted_if_it_was_not_ready_and_is() -> None:
    before = {"ready": "delivered", "back": "rejected", "late": "nurturing", "gone": "rejected"}
    after = {"back": "unsold", "late": "delivered", "gone": "rejected"}
    groups = groups_of(before, after)
    assert groups == {"ready": "ready at once", "back": "promoted", "late": "promoted", "gone": "not promoted"}
    summary = summarise(groups, {"back"})
    assert summary["promoted"]["customers"] == 1
    assert summary["difference"]["value"] == pytest.approx(0.5)


def test_the_interval_of_a_difference_joins_the_near_ends_of_both() -> None:
    one, other = Figure(value=0.6, low=0.5, high=0.7), Figure(value=0.2, low=0.1, high=0.4)
    joined = difference(one, other)
    assert joined.value == pytest.approx(0.4)
    assert joined.low == pytest.approx(0.4 - math.hypot(0.1, 0.2))
    assert joined.high == pytest.approx(0.4 + math.hypot(0.1, 0.1))
