"""Money adds up to the cent, in every period of every zone, and balances."""

from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from marketplace.database.db import session
from marketplace.portal.provider.store import sum_earned
from marketplace.reports.money_report import (
    MoneyReportLine,
    PartyGrouping,
    Period,
    load_balance,
    load_money_report,
    periods,
)
from marketplace.reports.refresh import close_months
from marketplace.runtime import clock
from tests.marketplace.reports.conftest import DAY, Ledger, asked

BACKFILL = Path("migrations/0038_money_of_both.sql").read_text()
NOON = DAY + timedelta(hours=12)


async def story(ledger: Ledger) -> None:
    """Ann pays in and buys two, one of which she returns; Bob's is refused; a lead of Cat's the day after."""
    await ledger.transfer("top_up", NOON, None, ledger.businesses["Ann"], amount=100_000)
    await ledger.sold("Ann", NOON)
    await ledger.sold("Ann", NOON, state="returned")
    await ledger.sold("Bob", NOON, state="refused")
    await ledger.sold("Cat", NOON + timedelta(days=1), provider="Slow")
    await ledger.keep()


async def test_a_day_has_its_sums(ledger: Ledger) -> None:
    await story(ledger)
    report = await load_money_report(ledger.reports, asked())
    [line] = report.lines
    assert (line.begins, line.currency, line.top_ups_minor) == (DAY.date(), "USD", 100_000)
    assert (line.gross_minor, line.refunds_minor, line.payouts_minor, line.claw_backs_minor) == (
        10_000,
        5_000,
        6_000,
        3_000,
    )
    assert (line.net_minor, line.held_minor) == (2_000, 0)
    assert report.basis.words == "by the time of booking, UTC, 2026-03-10 to 2026-03-10"


async def test_the_trial_balance_is_of_everything_before_and_sums_to_zero(ledger: Ledger) -> None:
    await story(ledger)
    await ledger.transfer("hold", NOON, uuid4(), ledger.businesses["Ann"])
    await ledger.keep()
    [after] = (await load_money_report(ledger.reports, asked())).balance
    assert (after.outside_minor, after.available_minor, after.held_minor) == (-100_000, 90_000, 5_000)
    assert (after.revenue_minor, after.payable_minor, after.total_minor) == (2_000, 3_000, 0)
    [before] = await load_balance(ledger.reports, NOON)
    assert before.available_minor == before.total_minor == 0
    [minute] = await load_balance(ledger.reports, NOON + timedelta(minutes=1))
    assert minute == after


async def test_days_weeks_and_months_are_the_zones_own(ledger: Ledger) -> None:
    for at in (DAY + timedelta(hours=18, minutes=29), DAY + timedelta(hours=18, minutes=30)):  # midnight in Kolkata
        await ledger.transfer("top_up", at, None, ledger.businesses["Ann"], amount=7)
    await ledger.keep()
    question = asked(first=DAY.date(), last=DAY.date() + timedelta(days=1), zone="Asia/Kolkata")
    by_day = await load_money_report(ledger.reports, question)
    assert [(line.begins, line.top_ups_minor) for line in by_day.lines] == [
        (date(2026, 3, 10), 7),
        (date(2026, 3, 11), 7),
    ]
    month = await load_money_report(ledger.reports, question, Period.month)
    assert [(line.begins, line.top_ups_minor) for line in month.lines] == [(date(2026, 3, 10), 14)]
    assert month.totals[0].top_ups_minor == 14


def test_periods_begin_on_mondays_and_firsts_and_on_the_first_day_asked_for() -> None:
    question = asked(first=date(2026, 2, 27), last=date(2026, 3, 10))  # a Friday to a Tuesday
    assert periods(question, Period.week) == (date(2026, 2, 27), date(2026, 3, 2), date(2026, 3, 9))
    assert periods(question, Period.month) == (date(2026, 2, 27), date(2026, 3, 1))
    assert len(periods(question, Period.day)) == 12
    assert periods(question, Period.all) == (date(2026, 2, 27),)


async def test_parties_are_told_apart_and_see_their_own(ledger: Ledger) -> None:
    await story(ledger)
    both = asked(last=DAY.date() + timedelta(days=1))
    report = await load_money_report(ledger.reports, both, Period.all, PartyGrouping.business)
    assert {line.name: (line.gross_minor, line.refunds_minor) for line in report.lines} == {
        "Ann": (10_000, 5_000),
        "Bob": (0, 0),
        "Cat": (5_000, 0),
    }
    paid = await load_money_report(ledger.reports, both, Period.all, PartyGrouping.provider)
    assert {line.name: (line.gross_minor, line.payouts_minor, line.claw_backs_minor) for line in paid.lines} == {
        "Quick": (10_000, 6_000, 3_000),
        "Slow": (5_000, 3_000, 0),
        "No lead": (0, 0, 0),
    }
    assert {line.name: line.net_minor for line in paid.lines} == {"Quick": 2_000, "Slow": 2_000, "No lead": 0}
    mine = await load_money_report(
        ledger.reports, asked(last=both.last, business_id=ledger.businesses["Cat"]), Period.all
    )
    assert [(line.name, line.gross_minor) for line in mine.lines] == [("Cat", 5_000)]
    assert mine.balance == ()


async def test_what_a_provider_sees_as_earned_is_what_the_report_says(ledger: Ledger) -> None:
    await story(ledger)
    for name, first in (("Quick", DAY), ("Slow", DAY), ("Slow", DAY + timedelta(days=1))):
        question = asked(first=first.date(), last=first.date(), provider_id=ledger.providers[name])
        report = await load_money_report(ledger.reports, question, Period.all, own=True)
        async with session(ledger.reports) as connection:
            earned = await sum_earned(connection, ledger.providers[name], question.since, question.until)
        assert earned == tuple((one.payouts_minor - one.claw_backs_minor, one.currency) for one in report.totals)


@pytest.mark.parametrize("whose", [PartyGrouping.business, PartyGrouping.provider])
@pytest.mark.parametrize("period", Period)
async def test_every_breakdown_adds_up_to_the_total(ledger: Ledger, whose: PartyGrouping, period: Period) -> None:
    await story(ledger)
    both = asked(last=DAY.date() + timedelta(days=1))
    whole = await load_money_report(ledger.reports, both, period)
    parts = await load_money_report(ledger.reports, both, period, whose)
    assert parts.totals == whole.totals
    for line in whole.lines:
        of_period = [part for part in parts.lines if part.begins == line.begins]
        for field in (name for name in MoneyReportLine.__struct_fields__ if name.endswith("_minor")):
            assert sum(getattr(part, field) for part in of_period) == getattr(line, field), field


async def test_a_providers_revenue_is_in_its_row_also_in_hours_that_are_not_kept_yet(ledger: Ledger) -> None:
    now = clock.now()
    await ledger.sold("Ann", now)
    today = asked(first=now.date(), last=now.date() + timedelta(days=1))
    report = await load_money_report(ledger.reports, today, Period.all, PartyGrouping.provider)
    assert [(line.name, line.gross_minor, line.payouts_minor, line.net_minor) for line in report.lines] == [
        ("Quick", 5_000, 3_000, 2_000)
    ]


async def test_a_tenant_reads_its_own_transfers_alone(ledger: Ledger) -> None:
    await story(ledger)
    provider = asked(provider_id=ledger.providers["Quick"])
    [line] = (await load_money_report(ledger.reports, provider, Period.all, own=True)).lines
    assert (line.gross_minor, line.refunds_minor, line.payouts_minor, line.claw_backs_minor) == (0, 0, 6_000, 3_000)
    business = asked(business_id=ledger.businesses["Ann"])
    [line] = (await load_money_report(ledger.reports, business, Period.all, own=True)).lines
    assert (line.gross_minor, line.payouts_minor, line.claw_backs_minor) == (10_000, 0, 0)


async def test_hours_and_months_that_were_kept_before_the_column_get_it(ledger: Ledger) -> None:
    await story(ledger)
    while await close_months(ledger.worker, clock.now() + timedelta(days=1)):
        pass
    assert await ledger.owner.fetchval("select count(*) from report_month where field = 'money_other'") > 0
    both = asked(last=DAY.date() + timedelta(days=1))
    expected = await load_money_report(ledger.reports, both, Period.day, PartyGrouping.provider)
    for table in ("report_column", "report_month"):
        await ledger.owner.execute(f"delete from {table} where field = 'money_other'")
    await ledger.owner.execute(BACKFILL[BACKFILL.index("delete from report_column") :])
    assert await load_money_report(ledger.reports, both, Period.day, PartyGrouping.provider) == expected
