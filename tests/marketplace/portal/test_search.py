"""One search: what each kind of member finds by name, id or page, and that no person is looked up by it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape

import pytest

from marketplace.portal.search import find_object, find_pages
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from tests.builders.feedback import Desk, desk
from tests.builders.portal import Browser, signed_in


@pytest.fixture
async def office(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)


async def found(browser: Browser, text: str) -> str:
    reply = await browser.post("/search", {"q": text})
    assert reply.status_code == 200, reply.text
    return unescape(reply.text.partition("<main")[2])


def test_pages_are_found_by_their_names() -> None:
    assert [hit.address for hit in find_pages(CallerKind.business, "wall")] == ["/business/wallet"]
    assert [hit.address for hit in find_pages(CallerKind.operator, "speed")] == ["/operator/reports/speed"]
    assert [hit.address for hit in find_pages(CallerKind.operator, "wallet")] == ["/operator/wallets"]
    assert list(find_pages(CallerKind.provider, "wallet")) == []


def test_an_object_is_found_by_its_id_alone_and_only_by_those_who_have_its_page() -> None:
    business = ids.encode("biz", clock.new_id())
    assert [hit.address for hit in find_object(CallerKind.operator, business)] == [f"/operator/businesses/{business}"]
    assert list(find_object(CallerKind.business, business)) == []
    assert list(find_object(CallerKind.operator, business[:-1])) == []


async def test_an_operator_finds_parties_and_is_offered_to_look_up_a_person(office: Desk) -> None:
    lead = await office.sold()
    operator = await signed_in(office.api, "operator", role="viewer")
    name = await office.market.value("select name from business where id = $1", office.buyer.business_id)
    assert f"/operator/businesses/{office.business_id}" in await found(operator, name[:4].upper())
    assert f"/operator/routing/{lead}" in await found(operator, lead)
    page = await found(operator, "+1 312 555 0101")
    assert 'action="/operator/people"' in page
    assert "person.look_up" not in await office.audited()
    looked_up = await operator.post("/operator/people", {"person": "+1 312 555 0101", "country": "US"})
    assert lead in looked_up.text
    assert "Nothing was found" in await found(operator, "nobody at all")


async def test_a_business_finds_its_own_leads_and_nobody_elses(office: Desk) -> None:
    lead = await office.sold()
    business = await signed_in(office.api, "business", office.buyer.business_id, role="viewer")
    assert f"/business/leads/{lead}" in await found(business, "robin")
    other = await office.market.buyer("https://stranger.example.com/", available_minor=0)
    stranger = await signed_in(office.api, "business", other.business_id)
    assert lead not in await found(stranger, "robin")
    provider = await signed_in(office.api, "provider", office.market.provider.owner)
    assert "Search your submissions" in await found(provider, "ref-1")


@pytest.mark.parametrize("text", ["", " ", "x" * 101])
async def test_a_search_for_nothing_or_too_much_says_so(office: Desk, text: str) -> None:
    operator = await signed_in(office.api, "operator")
    assert (await operator.post("/search", {"q": text})).status_code == 422
