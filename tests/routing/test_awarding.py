"""Why an award was lost, by the conditions of matching; and the calendar in which caps count."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.awarding import explain_loss
from routing.calendar import EPOCH, CapWindow, window_end, window_starts
from routing.inquiry import Mode
from routing.matching import Cap, CapsAndWallet, Failure, Rule, Usage
from routing.quota import SuspensionReason
from routing.subscription import Subscription
from tests.builders.subscriptions import (
    MONDAY_NOON,
    a_candidate,
    a_cap,
    a_definition,
    a_standing,
    a_subscription,
)

STANDING = a_standing()
SOON = MONDAY_NOON + timedelta(minutes=5)


def changed(price_minor: int = 5_000, caps: tuple[Cap, ...] = (), **changes: Any) -> Subscription:
    return a_subscription(1, a_definition(price_minor=price_minor, caps=caps), **changes)


LOST: list[tuple[Subscription, CapsAndWallet, Rule, float | None]] = [
    (changed(paused=True), STANDING, Rule.withdrawn, None),
    (changed(suspended=SuspensionReason.refusals), STANDING, Rule.withdrawn, None),
    (changed(business_active=False), STANDING, Rule.withdrawn, None),
    (changed(endpoint_active=False), STANDING, Rule.withdrawn, None),
    (changed(breaker_open_until=SOON), STANDING, Rule.withdrawn, None),
    (changed(endpoint_id=UUID(int=9)), STANDING, Rule.withdrawn, None),
    (changed(version=2), STANDING, Rule.price_changed, 0),
    (changed(4_000, version=2), STANDING, Rule.price_changed, 1_000),
    (changed(caps=(a_cap("day", 3),)), a_standing(day=Usage(count=3)), Rule.cap_race, 1),
    (changed(caps=(a_cap("week", amount_minor=9_000),)), a_standing(week=Usage(amount_minor=4_001)), Rule.cap_race, 1),
    (changed(), a_standing(4_999), Rule.wallet_race, 1),
]


@pytest.mark.parametrize(("subscription", "standing", "rule", "distance"), LOST)
def test_a_condition_that_no_longer_holds_loses_the_lead(
    subscription: Subscription, standing: CapsAndWallet, rule: Rule, distance: float | None
) -> None:
    loss = explain_loss(a_candidate(), subscription, standing, MONDAY_NOON)
    assert loss is not None
    assert (loss.rule, loss.distance) == (rule, distance)


def test_when_all_is_lost_the_first_rule_is_named() -> None:
    everything = changed(caps=(a_cap("day", 3),), version=2, paused=True, breaker_open_until=SOON)
    poor = a_standing(0, day=Usage(count=3))
    loss = explain_loss(a_candidate(), everything, poor, MONDAY_NOON)
    assert loss == Failure(rule=Rule.withdrawn, detail="paused by the business")
    first = min((rule for _, _, rule, _ in LOST), key=list(Rule).index)
    assert loss.rule is first


def test_a_candidate_that_meets_every_condition_has_lost_nothing() -> None:
    closed = changed(breaker_open_until=MONDAY_NOON, caps=(a_cap("day", 3),))
    assert explain_loss(a_candidate(), closed, a_standing(5_000, day=Usage(count=2)), MONDAY_NOON) is None


def test_a_rehearsal_uses_neither_wallet_nor_caps_but_may_be_withdrawn() -> None:
    spent = a_standing(0, day=Usage(count=1))
    rehearsal = changed(caps=(a_cap("day", 1),), mode=Mode.test)
    assert explain_loss(a_candidate(), rehearsal, spent, MONDAY_NOON) is None
    assert explain_loss(a_candidate(), changed(mode=Mode.test, paused=True), spent, MONDAY_NOON) is not None


def test_a_candidate_that_was_never_eligible_is_refused() -> None:
    failed = a_candidate(failures=(Failure(rule=Rule.closed, detail="closed"),))
    with pytest.raises(ValueError, match="closed"):
        explain_loss(failed, changed(), STANDING, MONDAY_NOON)


CAPS = st.lists(
    st.builds(
        Cap,
        window=st.sampled_from(list(CapWindow)),
        count=st.none() | st.integers(1, 6),
        amount_minor=st.none() | st.integers(1, 30),
    ),
    max_size=5,
    unique_by=lambda cap: cap.window,
).map(tuple)
AWARDS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 40 * 24)), max_size=30)


@given(CAPS, st.integers(0, 60), st.integers(0, 20), AWARDS)
def test_no_sequence_of_awards_passes_a_cap_or_takes_the_wallet_below_its_credit(
    caps: tuple[Cap, ...], available: int, credit: int, attempts: list[tuple[int, int]]
) -> None:
    used: dict[tuple[CapWindow, datetime], Usage] = {}
    for price, hours in attempts:
        now = MONDAY_NOON + timedelta(hours=hours)
        starts = window_starts(now, "America/Chicago")
        usage = {window: used.get((window, start), Usage()) for window, start in starts.items()}
        standing = CapsAndWallet(usage=usage, available_minor=available, credit_limit_minor=credit)
        if explain_loss(a_candidate(price_minor=price), changed(price, caps), standing, now) is None:
            available -= price
            for window, start in starts.items():
                before = used.get((window, start), Usage())
                used[window, start] = Usage(count=before.count + 1, amount_minor=before.amount_minor + price)
        assert available >= -credit
        for cap in caps:
            for (window, _start), seen in used.items():
                assert window != cap.window or cap.count is None or seen.count <= cap.count
                assert window != cap.window or cap.amount_minor is None or seen.amount_minor <= cap.amount_minor


# The calendar.


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "window", "start", "end"),
    [
        ("2026-11-25T18:30:15", "hour", "2026-11-25T18:00", "2026-11-25T19:00"),
        ("2026-11-25T18:30", "day", "2026-11-25T06:00", "2026-11-26T06:00"),
        ("2026-11-25T18:30", "week", "2026-11-23T06:00", "2026-11-30T06:00"),
        ("2026-11-30T05:59", "week", "2026-11-23T06:00", "2026-11-30T06:00"),
        ("2026-11-30T06:00", "week", "2026-11-30T06:00", "2026-12-07T06:00"),
        ("2026-12-31T18:30", "month", "2026-12-01T06:00", "2027-01-01T06:00"),
        ("2028-02-29T18:30", "month", "2028-02-01T06:00", "2028-03-01T06:00"),
        # The day the clocks go forward has 23 hours, the day they go back 25, and the repeated hour is two.
        ("2026-03-08T12:00", "day", "2026-03-08T06:00", "2026-03-09T05:00"),
        ("2026-11-01T12:00", "day", "2026-11-01T05:00", "2026-11-02T06:00"),
        ("2026-11-01T06:30", "hour", "2026-11-01T06:00", "2026-11-01T07:00"),
        ("2026-11-01T07:30", "hour", "2026-11-01T07:00", "2026-11-01T08:00"),
        ("2026-03-10T12:00", "week", "2026-03-09T05:00", "2026-03-16T05:00"),
        ("2026-03-08T12:00", "week", "2026-03-02T06:00", "2026-03-09T05:00"),
        ("2026-11-15T12:00", "month", "2026-11-01T05:00", "2026-12-01T06:00"),
    ],
)
def test_windows_follow_the_business_own_calendar(now: str, window: str, start: str, end: str) -> None:
    moment, chosen = utc(now), CapWindow(window)
    assert window_starts(moment, "America/Chicago")[chosen] == utc(start)
    assert window_end(chosen, moment, "America/Chicago") == utc(end)


def test_the_total_has_one_beginning_and_no_end() -> None:
    assert window_starts(MONDAY_NOON, "Asia/Tokyo")[CapWindow.total] == EPOCH
    assert window_end(CapWindow.total, MONDAY_NOON, "Asia/Tokyo") is None


ZONES = st.sampled_from(
    ["UTC", "America/Chicago", "America/Havana", "Asia/Beirut", "Asia/Kolkata", "Pacific/Apia", "America/Sao_Paulo"]
)
MOMENTS = st.datetimes(datetime(2005, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(MOMENTS, ZONES, st.sampled_from([window for window in CapWindow if window is not CapWindow.total]))
def test_every_moment_lies_in_one_window_and_the_next_begins_where_it_ends(
    now: datetime, zone: str, window: CapWindow
) -> None:
    start, end = window_starts(now, zone)[window], window_end(window, now, zone)
    assert end is not None
    assert start <= now < end
    assert window_starts(end, zone)[window] == end
    assert window_starts(end - timedelta(microseconds=1), zone)[window] == start
    assert start.astimezone(ZoneInfo(zone)).minute == 0
