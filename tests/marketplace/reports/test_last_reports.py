"""Up to when the outcomes of a business's leads are known: its last report, less how late its reports are."""

from datetime import timedelta

from billing.outcomes import LastReport
from marketplace.database.db import session
from marketplace.reports.figures import list_last_reports
from tests.marketplace.reports.conftest import DAY, Ledger


async def last_report_of_ann(ledger: Ledger) -> LastReport:
    async with session(ledger.reports) as connection:
        reports = await list_last_reports(connection, ledger.businesses["Ann"])
    (report,) = reports.values()
    return report


async def test_a_report_is_late_by_the_time_since_the_business_could_have_told_it(ledger: Ledger) -> None:
    """Contacts of ten days are each told a week later, while others are told. The first ones were late by less."""
    first = await ledger.sold("Ann", DAY)
    for day in range(10):
        await ledger.tells(first, "contacted", DAY + timedelta(days=day))
    await ledger.owner.execute("update disposition set recorded_at = happened_at + interval '7 days'")
    report = await last_report_of_ann(ledger)
    assert report.reported_at == int((DAY + timedelta(days=16)).timestamp())
    assert report.reported_at - report.told_until == 7 * 86_400


async def test_a_business_that_tells_everything_at_once_is_never_late(ledger: Ledger) -> None:
    lead = await ledger.sold("Ann", DAY)
    for day in range(10):
        await ledger.tells(lead, "contacted", DAY + timedelta(days=day))
    await ledger.owner.execute("update disposition set recorded_at = $1::timestamptz", DAY + timedelta(days=30))
    report = await last_report_of_ann(ledger)
    assert report.told_until == report.reported_at == int((DAY + timedelta(days=30)).timestamp())


async def test_a_business_without_a_report_is_missing(ledger: Ledger) -> None:
    await ledger.sold("Ann", DAY)
    async with session(ledger.reports) as connection:
        assert await list_last_reports(connection, None) == {}
