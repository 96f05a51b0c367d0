"""Pages of lists: a file in, a result in words, undone and removed; nobody sees another's."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx
import pytest

from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from tests.builders.marketplaces import Buyer, Marketplace, marketplace
from tests.builders.portal import Browser, signed_in
from tests.builders.service import serve

CUSTOMERS, LISTS = "/business/customers", "/operator/compliance/lists"


class Desks:
    """An operator and the member of a business at their pages."""

    def __init__(self, market: Marketplace, buyer: Buyer, operator: Browser, member: Browser) -> None:
        self.market, self.buyer, self.operator, self.member = market, buyer, operator, member


@pytest.fixture
async def desks(settings: Settings) -> AsyncIterator[Desks]:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings))
        buyer = await market.buyer(None)
        api = await stack.enter_async_context(serve(settings))
        member = await signed_in(api, CallerKind.business, buyer.business_id)
        yield Desks(market, buyer, await signed_in(api, CallerKind.operator), member)


async def send(browser: Browser, path: str, text: str, **form: str) -> httpx.Response:
    fields = {"name": "Customers", "way": "whole", "country": "US", "maximum_age_days": "31"} | form
    return await browser.send_file(path, text.encode(), **fields)


async def test_a_business_uploads_undoes_and_removes_its_customers(desks: Desks) -> None:
    empty = await desks.member.get(CUSTOMERS)
    assert "You have no list yet. Upload a file with the phone numbers" in empty.text
    assert "Leads kept from you" not in empty.text
    reply = await send(desks.member, CUSTOMERS, "+13125550101\n3125550101\nnobody\n")
    assert reply.status_code == 303
    page = await desks.member.get(CUSTOMERS)
    assert "3 rows: 1 new, 0 left the list, 1 repeated. 1 could not be read." in page.text
    assert "fewer than 5" in page.text
    list_id = page.text.partition(f'action="{CUSTOMERS}/')[2].partition("/")[0]
    assert (await desks.member.post(f"{CUSTOMERS}/{list_id}/undo")).status_code == 303
    assert not await desks.market.value("select members from contact_list")
    assert (await desks.member.post(f"{CUSTOMERS}/{list_id}/undo")).status_code == 409
    assert (await desks.member.post(f"{CUSTOMERS}/{list_id}/remove")).status_code == 303
    assert "You have no list yet." in (await desks.member.get(CUSTOMERS)).text


async def test_a_file_that_cannot_be_imported_is_named_beside_its_field(desks: Desks) -> None:
    for browser, path in ((desks.member, CUSTOMERS), (desks.operator, LISTS)):
        reply = await send(browser, path, "+1312555010")
        assert reply.status_code == 422
        assert "The file ends in the middle of row 1." in reply.text


async def test_an_outdated_list_is_marked_and_a_file_of_it_has_every_column(desks: Desks) -> None:
    assert (await send(desks.operator, LISTS, "+13125550101\n", name="National", stops_sales="1")).status_code == 303
    assert "Outdated" not in (await desks.operator.get(LISTS)).text.partition("National")[2]
    await desks.market.owner.execute("update contact_list set refreshed_at = refreshed_at - interval '32 days'")
    assert "Outdated" in (await desks.operator.get(LISTS)).text.partition("National")[2]
    rows = (await desks.operator.get(f"{LISTS}?format=csv")).text.splitlines()
    assert rows[0] == "name,members,version,refreshed_at,kind,maximum_age_days,stops_sales"
    assert rows[1].startswith("National,1,1,")
    assert "National" not in (await desks.member.get(CUSTOMERS)).text


async def test_a_business_sees_the_leads_of_whole_days_alone_and_no_small_number(desks: Desks) -> None:
    leads = [await desks.market.sold(number) for number in range(1, 6)]
    yesterday = clock.now() - timedelta(days=1)

    async def keep(number: int, at: object) -> None:
        for lead_id in leads[:number]:
            await desks.market.owner.execute(
                "insert into kept_away (business_id, lead_id, kept_at) values ($1, $2, $3) "
                "on conflict (business_id, lead_id) do update set kept_at = excluded.kept_at",
                desks.buyer.business_id,
                lead_id,
                at,
            )

    assert (await send(desks.member, CUSTOMERS, "+13125550101\n")).status_code == 303
    for number, at, shown in ((5, clock.now(), False), (4, yesterday, False), (5, yesterday, True)):
        await keep(number, at)
        text = (await desks.member.get(CUSTOMERS)).text
        assert ("fewer than 5" not in text) == shown, (number, at)


async def test_a_person_who_is_on_a_list_is_found_by_phone_number(desks: Desks) -> None:
    assert (await send(desks.operator, LISTS, "+13125550101\n", name="National")).status_code == 303
    for phone, found in (("(312) 555-0101", True), ("(312) 555-0102", False)):
        page = await desks.operator.post("/operator/compliance/look", {"person": phone})
        assert ("Yes: on the list “National”." in page.text) == found
        assert ("No: nothing is on record" in page.text) != found
