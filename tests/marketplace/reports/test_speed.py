"""Speed of a world whose times are written out."""

from datetime import timedelta

import numpy as np
import pytest

from marketplace.reports.figures import load_leads
from marketplace.reports.speed import (
    BANDS,
    Percentiles,
    SpeedGrouping,
    SpeedReport,
    bands_of,
    load_speed,
    open_each,
    spread,
)
from routing.subscription import OpenHours
from tests.marketplace.reports.conftest import DAY, Ledger, asked

CHICAGO = OpenHours(spec="Mo-Fr 08:00-18:00", zone="America/Chicago")


def percentiles(leads: int, p50: float | None, p95: float | None, p99: float | None) -> Percentiles:
    return Percentiles(leads=leads, p50_ms=p50, p95_ms=p95, p99_ms=p99)


def one(ms: float) -> Percentiles:
    return percentiles(1, ms, ms, ms)


def test_percentiles_are_interpolated_as_percentile_cont_does() -> None:
    assert spread(np.array([30.0, np.nan, 10.0, 20.0, 40.0])) == percentiles(4, 25.0, 38.5, 39.7)
    assert spread(np.array([np.nan])) == percentiles(0, None, None, None)
    values = np.array([3.0, 1.0, 2.0])
    spread(values)
    assert values.tolist() == [3.0, 1.0, 2.0]


async def story(ledger: Ledger) -> SpeedReport:
    """One lead of Ann's: 1 s to us, 10 ms, exposed 40 ms later, answered in 200 ms; told of twice later."""
    at = DAY + timedelta(hours=22)  # 17:00 in Chicago
    lead = await ledger.sold("Ann", at)
    await ledger.tells(lead, "unreachable", at + timedelta(minutes=30, milliseconds=250))
    await ledger.tells(lead, "contacted", at + timedelta(hours=17, milliseconds=250))  # 10:00 the next day
    await ledger.lead("rejected", at, submitted_ms=3_000)
    await ledger.keep()
    return await load_speed(ledger.reports, asked(), SpeedGrouping.business)


async def test_a_lead_that_was_opened_again_counts_from_then(ledger: Ledger) -> None:
    lead = await ledger.sold("Ann", DAY + timedelta(hours=22))
    await ledger.owner.execute("update lead set reopened_at = received_at + interval '4 ms' where id = $1", lead)
    await ledger.keep()
    total = (await load_speed(ledger.reports, asked(), SpeedGrouping.business)).total
    assert {step.name: step.took for step in total.waterfall}["qualified"] == one(6)


async def test_the_waterfall_has_each_step_and_what_it_adds_up_to(ledger: Ledger) -> None:
    total = (await story(ledger)).total
    steps = {step.name: (step.took, step.after_receipt) for step in total.waterfall}
    assert total.leads == 2
    assert steps["received"] == (percentiles(2, 2_000, 2_900, 2_980), None)
    assert steps["qualified"] == (one(10), one(10))
    assert steps["awarded"] == (one(0), one(10))
    assert steps["exposed"] == (one(40), one(50))
    assert steps["acknowledged"] == (one(200), one(250))
    assert steps["touched"] == (one(1_800_000), one(1_800_250))
    assert steps["contacted"][0] == one(16.5 * 3_600_000)


async def test_our_time_and_theirs_add_up_to_receipt_until_acknowledgement(ledger: Ledger) -> None:
    total = (await story(ledger)).total
    assert (total.business, total.own) == (one(150), one(100))
    assert total.provider == percentiles(2, 2_000, 2_900, 2_980)


async def test_business_hours_stand_still_while_the_business_is_closed(ledger: Ledger) -> None:
    response = (await story(ledger)).total.response
    assert response.touch == one(1_800_000)
    assert response.touch_open.p50_ms == pytest.approx(1_800_000, abs=20)
    assert response.contact == one(17 * 3_600_000)
    assert response.contact_open.p50_ms == pytest.approx(3 * 3_600_000, abs=20)  # 17 to 18, and 8 to 10


async def test_people_who_were_not_reached_yet_count_as_not_yet_up_to_the_last_report_of_their_business(
    ledger: Ledger,
) -> None:
    """Four of ten people are reached after ten minutes each, and two more after three hours: half within three."""
    at = DAY + timedelta(hours=15)  # 10:00 in Chicago, open
    leads = [await ledger.sold("Ann", at) for _ in range(10)]
    for lead in leads[:4]:
        await ledger.tells(lead, "contacted", at + timedelta(minutes=10, milliseconds=250))
    await ledger.sold("Bob", at)  # who reports nothing: of him nothing is known
    later = await ledger.sold("Ann", at + timedelta(minutes=2))
    await ledger.tells(later, "unreachable", at + timedelta(minutes=30))
    await ledger.keep()
    response = (await load_speed(ledger.reports, asked())).total.response
    assert response.contact == Percentiles(leads=4, p50_ms=None, p95_ms=None, p99_ms=None, waiting=7)
    for lead in leads[4:6]:
        await ledger.tells(lead, "contacted", at + timedelta(hours=3, milliseconds=250))
    await ledger.tells(later, "unreachable", at + timedelta(hours=4))
    await ledger.keep()
    report = await load_speed(ledger.reports, asked(), SpeedGrouping.business)
    assert report.total.response.contact == Percentiles(leads=6, p50_ms=10_800_000, p95_ms=None, p99_ms=None, waiting=5)
    assert report.total.response.contact_open.p50_ms == pytest.approx(10_800_000, abs=20)
    ann, bob = sorted(report.groups, key=lambda group: group.name)
    assert ann.response.contact == report.total.response.contact
    assert bob.response.contact == percentiles(0, None, None, None)
    steps = {step.name: step for step in report.total.waterfall}
    assert (steps["contacted"].took.leads, steps["contacted"].took.waiting) == (6, 1)
    assert steps["acknowledged"].took.waiting == 0


async def test_speed_is_told_apart_by_party_market_channel_and_hour(ledger: Ledger) -> None:
    await ledger.sold("Ann", DAY + timedelta(hours=3), exposed_ms=10)
    await ledger.sold("Bob", DAY + timedelta(hours=3, minutes=30), exposed_ms=20, channel="feed", vertical="solar")
    await ledger.sold("Bob", DAY + timedelta(hours=4), exposed_ms=30, provider="Slow")
    await ledger.keep()
    expected = {
        SpeedGrouping.business: {"Bob": (2, 25), "Ann": (1, 10)},
        SpeedGrouping.provider: {"Quick": (2, 15), "Slow": (1, 30)},
        SpeedGrouping.vertical: {"roofing": (2, 20), "solar": (1, 20)},
        SpeedGrouping.channel: {"push": (2, 20), "feed": (1, 20)},
        SpeedGrouping.hour: {"03:00 to 03:59": (2, 15), "04:00 to 04:59": (1, 30)},
    }
    for by, groups in expected.items():
        report = await load_speed(ledger.reports, asked(), by)
        assert {each.name: (each.leads, each.waterfall[3].took.p50_ms) for each in report.groups} == groups
    assert [each.key for each in (await load_speed(ledger.reports, asked(), SpeedGrouping.hour)).groups] == ["03", "04"]
    shifted = await load_speed(ledger.reports, asked(zone="Asia/Kolkata"), SpeedGrouping.hour)
    assert {each.name: each.leads for each in shifted.groups} == {"08:00 to 08:59": 1, "09:00 to 09:59": 2}


async def test_the_bands_of_a_day_are_those_of_the_report_by_hour(ledger: Ledger) -> None:
    for minutes, exposed_ms in ((180, 10), (210, 20), (240, 30)):
        await ledger.sold("Ann", DAY + timedelta(minutes=minutes), exposed_ms=exposed_ms)
    await ledger.lead("rejected", DAY + timedelta(hours=9))
    await ledger.keep()
    report = await load_speed(ledger.reports, asked(), SpeedGrouping.hour)
    bands = bands_of(asked(), await load_leads(ledger.reports, asked(), BANDS))
    hours = {each.key: each.waterfall[4].after_receipt for each in report.groups}
    assert list(hours) == ["03", "04", "09"]
    assert bands.total == report.total.waterfall[4].after_receipt
    assert {f"{hour:02}": times for hour, times in enumerate(bands.hours) if times is not None} == hours


async def test_time_that_a_nurtured_lead_waited_for_its_date_is_nobodys(ledger: Ledger) -> None:
    lead = await ledger.sold("Ann", DAY, qualified_ms=86_400_000)
    await ledger.decided(lead, "nurturing")
    await ledger.keep()
    total = (await load_speed(ledger.reports, asked())).total
    assert total.waterfall[1].took.leads == total.own.leads == 0
    assert total.waterfall[3].took == one(40)


async def test_a_world_without_leads_has_no_times(ledger: Ledger) -> None:
    report = await load_speed(ledger.reports, asked(), SpeedGrouping.business)
    assert report.total.own == percentiles(0, None, None, None)
    assert report.groups == ()
    assert report.basis.words == "by received time, UTC, 2026-03-10 to 2026-03-10"


def test_open_time_counts_by_each_subscriptions_own_hours() -> None:
    monday = np.array([1_772_456_400.0] * 3)  # Monday the 2nd of March 2026, 13:00 UTC, 07:00 in Chicago
    took = np.array([2 * 3_600_000.0, 2 * 3_600_000.0, np.nan])
    (opened,) = open_each(monday, (took,), np.array([1, 2, 1]), {1: CHICAGO})
    assert opened[:2].tolist() == [3_600_000.0, 7_200_000.0]
    assert np.isnan(opened[2])
