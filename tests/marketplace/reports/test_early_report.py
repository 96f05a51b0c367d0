"""The early share won of a business with few leads, from the stored records of all businesses of its vertical."""

from datetime import timedelta
from uuid import uuid4

from marketplace.reports.roi import load_roi
from tests.builders.service import follow_outcomes
from tests.marketplace.reports.conftest import DAY, Ledger, asked


async def add_business(ledger: Ledger, name: str) -> None:
    """Add a business that takes leads by Bob's subscription: nothing here reads subscriptions."""
    ledger.businesses[name], ledger.subscriptions[name] = uuid4(), ledger.subscriptions["Bob"]
    await ledger.owner.execute(
        "insert into business (id, name, zone) values ($1, $2, 'UTC')", ledger.businesses[name], name
    )
    await ledger.owner.execute("insert into wallet (business_id, currency) values ($1, 'USD')", ledger.businesses[name])


async def test_a_business_with_few_leads_borrows_from_the_others_of_its_vertical_and_not_from_itself(
    ledger: Ledger,
) -> None:
    for number in range(8):
        await add_business(ledger, f"other {number}")
    for name in ("Ann", *(f"other {number}" for number in range(8))):
        for number in range(4):
            lead = await ledger.sold(name, DAY)
            happened = DAY + timedelta(weeks=3)
            won = number == 0 or (number == 1 and name == "Ann")
            await ledger.tells(lead, "won" if won else "lost", happened, 1_000 if won else None)
        await ledger.tells(lead, "lost", DAY + timedelta(weeks=20))
    elsewhere = await ledger.sold("other 0", DAY, vertical="solar")
    await ledger.tells(elsewhere, "won", DAY + timedelta(weeks=3), 1_000)
    await follow_outcomes(ledger.worker, ledger.owner)
    report = await load_roi(ledger.reports, asked(business_id=ledger.businesses["Ann"]), "USD")
    assert report.early is None  # the others won 8 leads, and 10 are needed
    for number in range(8):
        lead = await ledger.sold(f"other {number}", DAY)
        await ledger.tells(lead, "won", DAY + timedelta(weeks=3), 1_000)
    await follow_outcomes(ledger.worker, ledger.owner)
    early = (await load_roi(ledger.reports, asked(business_id=ledger.businesses["Ann"]), "USD")).early
    assert early is not None
    assert (early.businesses, early.leads, early.wins) == (8, 4, 2)
    assert early.others_share == 16 / 40
    assert 16 / 40 < early.share.value < 2 / 4
    assert (
        await load_roi(ledger.reports, asked(), "USD")
    ).early is None  # of all businesses there is nothing to borrow
