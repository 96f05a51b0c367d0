"""Pace of caps: plans from curve and open hours, and the part of a cap that is open at each moment."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.matching import Rule, Usage, check_standing, earliest_retry, open_caps
from routing.pacing import (
    FLAT,
    HOURS,
    MONDAY,
    WEEK_SECONDS,
    ArrivalPlan,
    paced_limit,
    paced_until,
    plan_arrivals,
    planned,
    window_arrivals,
)
from routing.subscription import Cap, Subscription, validate
from tests.builders.subscriptions import MONDAY_NOON, a_candidate, a_cap, a_definition, a_standing, a_subscription

MIDNIGHT = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
"Midnight in Chicago, twelve hours before MONDAY_NOON."
ALWAYS = plan_arrivals(FLAT, None, MIDNIGHT)
SHOP_HOURS = tuple(
    (
        int((MIDNIGHT + timedelta(days=day, hours=8)).timestamp()),
        int((MIDNIGHT + timedelta(days=day, hours=18)).timestamp()),
    )
    for day in range(9)
)
CURVES = st.lists(st.integers(0, 500), min_size=HOURS, max_size=HOURS).filter(any)
SECONDS = st.integers(MONDAY, MONDAY + 4_000 * WEEK_SECONDS)


def paced(*caps: Cap, plan: ArrivalPlan = ALWAYS) -> Subscription:
    return a_subscription(1, a_definition(caps=caps, pace=True), plan=plan)


# Plans.


@given(CURVES, SECONDS, SECONDS)
def test_arrivals_add_up_and_a_week_has_those_of_its_curve(curve: list[int], first: int, second: int) -> None:
    plan = plan_arrivals(curve, None, MIDNIGHT)
    early, late = sorted((first, second))
    assert plan.before(early) <= plan.before(late)
    assert plan.before(early + WEEK_SECONDS) - plan.before(early) == 3_600 * sum(curve)


@given(CURVES, SECONDS)
def test_the_second_of_an_arrival_is_the_first_by_which_it_has_come(curve: list[int], second: int) -> None:
    plan = plan_arrivals(curve, None, MIDNIGHT)
    arrivals = plan.before(second)
    if arrivals > 0:
        earliest = plan.second_of(arrivals)
        assert earliest <= second
        assert plan.before(earliest) >= arrivals > plan.before(earliest - 1)


def test_an_hour_counts_by_its_open_part() -> None:
    start = int(MIDNIGHT.timestamp())
    plan = plan_arrivals([4] * HOURS, [(start + 1_800, start + 9_000)], MIDNIGHT)
    hours = [window_arrivals(plan, MIDNIGHT + timedelta(hours=n), MIDNIGHT + timedelta(hours=n + 1)) for n in range(4)]
    assert hours == [4 * 1_800, 4 * 3_600, 4 * 1_800, 0]
    assert plan.sums[HOURS] == sum(hours)


# The part of a cap that is open.


@given(st.integers(1, 10_000), st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_plan_follows_the_arrivals_and_is_complete_before_their_last_tenth(
    limit: int, passed: int, rest: int
) -> None:
    total = passed + rest
    part = planned(limit, passed, total)
    assert 0 <= part <= limit
    assert part == limit or part * 9 * total <= limit * passed * 10 < (part + 1) * 9 * total
    assert (part == limit) or passed * 10 < total * 9
    assert part <= planned(limit, passed + rest, total) == limit


@given(CURVES, st.integers(1, 200), st.data())
def test_a_paced_lead_can_be_had_at_the_time_that_is_said_and_not_before(
    curve: list[int], limit: int, data: st.DataObject
) -> None:
    used = data.draw(st.integers(1, limit))
    plan = plan_arrivals(curve, None, MIDNIGHT)
    start, end = MIDNIGHT, MIDNIGHT + timedelta(weeks=1)
    total = window_arrivals(plan, start, end)
    until = paced_until(plan, start, end, limit, used)
    assert planned(limit, window_arrivals(plan, start, until), total) >= used
    earlier = until - timedelta(seconds=1)
    assert earlier < start or planned(limit, window_arrivals(plan, start, earlier), total) < used


def test_the_first_lead_of_a_window_is_never_held_up() -> None:
    assert paced_limit(10, 0, 1_000, 1) == 1
    assert paced_limit(90_000, 0, 1_000, 5_000) == 5_000
    assert paced_limit(10, 0, 0, 1) == 10


# Matching.


def test_a_cap_of_a_day_is_open_by_the_arrivals_that_have_passed() -> None:
    """Half of an even day has passed by noon. Five leads of ten are planned, so the sixth may come, but no seventh."""
    subscription = paced(a_cap("day", 10))
    assert open_caps(subscription, MONDAY_NOON) == (a_cap("day", 6),)
    candidate = check_standing(subscription, a_candidate(), a_standing(day=Usage(count=5)), MONDAY_NOON)
    assert candidate.failures == ()
    candidate = check_standing(subscription, a_candidate(), a_standing(day=Usage(count=6)), MONDAY_NOON)
    (failure,) = candidate.failures
    assert (failure.rule, failure.detail) == (Rule.paced, "paced: 6 of 10 by 12:00, the next from 12:57")
    assert (failure.distance, failure.unit) == (58, "minutes")
    assert earliest_retry([candidate], MONDAY_NOON, MONDAY_NOON + timedelta(hours=1)) == failure.until


def test_closed_hours_have_no_part_of_the_cap() -> None:
    """Open from 8 to 18: by noon four tenths of the day's arrivals have passed."""
    subscription = paced(a_cap("day", 10), plan=plan_arrivals(FLAT, SHOP_HOURS, MIDNIGHT))
    assert open_caps(subscription, MONDAY_NOON) == (a_cap("day", 5),)


def test_spending_is_paced_as_leads_are_and_said_with_them() -> None:
    subscription = paced(a_cap("day", 10, 100_000), a_cap("week", amount_minor=900_000))
    standing = a_standing(day=Usage(count=4, amount_minor=80_000), week=Usage(amount_minor=80_000))
    details = [f.detail for f in check_standing(subscription, a_candidate(), standing, MONDAY_NOON).failures]
    assert details == [
        "paced: 4 of 10 and USD 800 of USD 1,000 by 12:00, the next from 17:16",
        "paced: USD 800 of USD 9,000 by Mon 23 Nov 12:00, the next from Mon 23 Nov 13:26",
    ]


def test_a_cap_that_is_used_up_is_not_said_to_be_paced() -> None:
    candidate = check_standing(paced(a_cap("day", 4)), a_candidate(), a_standing(day=Usage(count=4)), MONDAY_NOON)
    assert [failure.rule for failure in candidate.failures] == [Rule.cap_reached]


def test_caps_of_an_hour_and_in_total_have_no_pace_and_neither_has_a_subscription_without_it() -> None:
    caps = (a_cap("hour", 10), a_cap("total", 10), a_cap("day", 10))
    assert open_caps(paced(*caps), MONDAY_NOON)[:2] == caps[:2]
    without = a_subscription(1, a_definition(caps=caps))
    assert open_caps(without, MONDAY_NOON) == caps
    assert check_standing(without, a_candidate(), a_standing(day=Usage(count=9)), MONDAY_NOON).failures == ()


@pytest.mark.parametrize(("caps", "faults"), [((), 1), ((a_cap("hour", 3),), 1), ((a_cap("month", 3),), 0)])
def test_a_pace_needs_a_cap_that_it_can_spread(caps: tuple[Cap, ...], faults: int) -> None:
    found = validate(a_definition(caps=caps, pace=True), {})
    assert [fault.pointer for fault in found] == ["/pace"] * faults


@pytest.mark.parametrize("count", [1, 3, 10, 100])
def test_leads_that_keep_coming_use_the_whole_cap_and_no_more_than_is_open(count: int) -> None:
    """A lead a minute on average, at random moments of a day."""
    subscription, used = paced(a_cap("day", count)), 0
    for second in sorted(Random(count).sample(range(86_400), 1_440)):
        now = MIDNIGHT + timedelta(seconds=second)
        standing = a_standing(10**9, day=Usage(count=used))
        if not check_standing(subscription, a_candidate(), standing, now).failures:
            used += 1
            part = window_arrivals(ALWAYS, MIDNIGHT, now) / window_arrivals(
                ALWAYS, MIDNIGHT, MIDNIGHT + timedelta(days=1)
            )
            assert used <= 1 + count * part / 0.9
    assert used == count
