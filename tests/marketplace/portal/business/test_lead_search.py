"""A business finds its leads by what it knows of a person; nothing about the search is stored."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape

import pytest

from marketplace.portal.business import lead_list
from marketplace.portal.business.lead_search import fits
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from tests.builders.feedback import Desk, desk
from tests.builders.portal import Browser, signed_in


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("miller", True),
        ("Zoe MILLER", True),
        ("mill", True),
        ("zoë springfield", True),
        ("roof", True),
        ("312-202-6476", True),
        ("(312) 202 6476", True),
        ("+1 312 202 6476", True),
        ("0312 2026476", True),
        ("6476", True),
        ("62704", True),
        ("76", False),
        ("6477", False),
        ("miller 6476", False),
        ("millers", False),
        ("zoe smith", False),
        ("", False),
        ("-", False),
        ("%", False),
    ],
)
def test_a_search_fits_by_words_in_any_order_and_case_or_by_a_part_of_the_number(search: str, found: bool) -> None:
    assert fits(search, "+1 312-202-6476", "Zoë Miller", None, "Roof leak", "IL 62704", "Springfield") is found


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[tuple[Desk, Browser]]:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        yield made, await signed_in(made.api, "business", made.buyer.business_id, role="viewer")


async def search(browser: Browser, text: str, **fields: str) -> str:
    reply = await browser.post("/business/leads", {"q": text, **fields})
    assert reply.status_code == 200, reply.text
    return unescape(reply.text)


async def test_a_lead_is_found_by_name_number_address_and_town(shop: tuple[Desk, Browser]) -> None:
    office, browser = shop
    lead = await office.sold()
    email = (await office.shown(lead))["contact"]["email"]
    for text in ("robin", "+1 312 555 0101", "(312) 555-0101", "0101", "leak storm", email):
        assert f"/business/leads/{lead}" in await search(browser, text), text
    for text in ("Nobody", "+1 312 555 0102", "other@example.com"):
        page = await search(browser, text)
        assert f"/business/leads/{lead}" not in page, text
        assert "No lead fits" in page


async def test_nobody_elses_lead_is_found_and_no_erased_one(shop: tuple[Desk, Browser]) -> None:
    office, browser = shop
    lead = await office.sold()
    other = await office.market.buyer("https://stranger.example.com/", available_minor=0)
    stranger = await signed_in(office.api, "business", other.business_id)
    assert lead not in await search(stranger, "+13125550101")
    assert lead not in await search(stranger, "Robin")
    erased = await office.call("POST", "/v1/erasures", {"reason": "asked by letter", "lead_id": lead}, by="operator")
    assert erased.status_code == 200, erased.text
    assert lead not in await search(browser, "+13125550101")
    assert lead not in await search(browser, "Robin")


async def test_older_leads_are_searched_by_a_button(
    shop: tuple[Desk, Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    office, browser = shop
    oldest, newest = await office.sold(1), await office.sold(2)
    monkeypatch.setattr(lead_list, "CSV_ROWS", 1)
    page = await search(browser, "leak")
    assert newest in page
    assert oldest not in page
    before = page.partition('name="before" value="')[2].partition('"')[0]
    assert ids.decode("asg", before) is not None
    page = await search(browser, "leak", before=before)
    assert oldest in page
    assert newest not in page
    assert "Search older leads" not in page


async def test_contacts_that_fit_are_reveals_of_access_that_an_operator_made(shop: tuple[Desk, Browser]) -> None:
    office, browser = shop
    await office.sold(1)
    lead = await office.sold(2)
    await office.market.value(
        "insert into opened_access (subject, kind, owner_id, way, opened_by, reason, opened_at) "
        "values ($1, 'business', $2, 'member', 'mem_x', 'helps', $3) returning 1",
        str(browser.member_id),
        office.buyer.business_id,
        clock.now(),
    )
    await search(browser, "+13125550102")
    reveals = [subject for action, subject in await office.api.audited() if action == "contact.reveal"]
    assert reveals == [lead]
