"""Ways to receive leads: set up without an operator, changed at any time, and the keys of a business's own software."""

import re
from collections.abc import AsyncIterator

import msgspec
import pytest

from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from tests.builders.mail import mail_settings
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace
from tests.builders.portal import Browser, signed_in
from tests.builders.service import Served, serve
from tests.marketplace.web_push.test_push import Phone
from tests.receivers import Receiver, ok


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings) as market:
        yield market


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as api:
        yield api


async def with_server(market: Marketplace, api: Served) -> tuple[Buyer, Browser]:
    """Return a business whose leads go to a server, and a browser of its owner."""
    buyer = await market.buyer("https://crm.example.com/leads", anywhere())
    return buyer, await signed_in(api, "business", buyer.business_id)


async def test_the_page_offers_every_way(market: Marketplace, api: Served) -> None:
    _, browser = await with_server(market, api)
    page = (await browser.get("/business/receiving")).text
    for title in ("Here and on my phone", "In my CRM", "On my own server", "In a feed"):
        assert title in page
    assert "By e-mail" not in page
    assert "https://crm.example.com/leads" in page


async def test_e_mail_is_offered_where_the_marketplace_sends_it(market: Marketplace, settings: Settings) -> None:
    async with serve(msgspec.structs.replace(settings, mail=mail_settings(1))) as api:
        _, browser = await with_server(market, api)
        assert "Enter the e-mail address" in (await browser.get("/business/receiving")).text
        assert "Add e-mail address" in (await browser.get("/business/delivery")).text


async def test_an_inbox_is_made_once_used_by_all_subscriptions_and_changed(market: Marketplace, api: Served) -> None:
    buyer, browser = await with_server(market, api)
    assert (await browser.post("/business/receiving/inbox", {"minutes": "5", "use": "1"})).status_code == 303
    inbox = await market.row("select id, state, hold_seconds from endpoint where kind = 'inbox'")
    assert (inbox["state"], inbox["hold_seconds"]) == ("active", 300)
    assert await market.value("select endpoint_id from subscription") == inbox["id"]
    lead_id = await market.sold()
    assert await market.state(lead_id) == "held"
    assert "Take this lead" in (await browser.get("/business/inbox")).text
    assert (await browser.post("/business/receiving/inbox", {"minutes": "15"})).status_code == 303
    assert await market.value("select array_agg(hold_seconds) from endpoint where kind = 'inbox'") == [900]
    assert (await browser.post("/business/receiving/inbox", {"minutes": "3"})).status_code == 422
    actions = await api.audited()
    for action in ("endpoint.create", "endpoint.set_hold"):
        assert (action, ids.encode("whe", inbox["id"])) in actions
    assert ("subscription.revise", ids.encode("sub", buyer.subscription_id)) in actions


async def test_subscriptions_go_back_to_the_server_with_one_button(market: Marketplace, api: Served) -> None:
    async with Receiver(ok) as receiver:
        buyer = await market.buyer(receiver.url)
        browser = await signed_in(api, "business", buyer.business_id)
        await browser.post("/business/receiving/inbox", {"minutes": "10", "use": "1"})
        server = ids.encode("whe", buyer.endpoint_id)
        for words in ("1 subscription was changed", "0 subscriptions were changed"):
            reply = await browser.post(f"/business/receiving/{server}/use")
            assert words in (await browser.get(reply.headers["location"])).text
        assert await market.state(await market.sold()) == "delivered"


async def test_no_lead_is_sent_to_a_way_that_is_not_ready_or_not_ones_own(market: Marketplace, api: Served) -> None:
    buyer, browser = await with_server(market, api)
    other = await market.buyer("https://other.example.com/", anywhere(), available_minor=0)
    await market.owner.execute("update endpoint set state = 'unverified' where id = $1", buyer.endpoint_id)
    own = f"/business/receiving/{ids.encode('whe', buyer.endpoint_id)}/use"
    assert (await browser.post(own)).status_code == 409
    assert (await browser.post(f"/business/receiving/{ids.encode('whe', other.endpoint_id)}/use")).status_code == 404


async def test_a_business_makes_its_feed_and_reads_it_with_a_key_of_its_own(market: Marketplace, api: Served) -> None:
    _, browser = await with_server(market, api)
    await browser.post("/business/receiving/feed")
    feed = ids.encode("whe", await market.value("select id from endpoint where kind = 'feed'"))
    await browser.post(f"/business/receiving/{feed}/use")
    page = (await browser.post("/business/keys", {"name": "feed reader", "mode": "live"})).text
    key = re.search(r"lk_live_\w+", page)
    assert key
    assert key[0] not in (await browser.get("/business/keys")).text
    await market.sold()
    events = await api.call("GET", "/v1/feed/events?after=0", key=key[0])
    assert [event["type"] for event in events.json()["data"]] == ["lead.assigned"]
    path = f"/business/keys/{key[0].split('_')[2]}"
    assert "lk_live_" in (await browser.post(f"{path}/rotate", {"hours": "1"})).text
    assert (await browser.post(f"{path}/revoke", {"reason": "not used any more"})).status_code == 303
    assert (await api.call("GET", "/v1/feed/events?after=0", key=key[0])).status_code == 401


async def test_a_practice_lead_shows_how_a_lead_is_taken_and_stores_nothing(market: Marketplace, api: Served) -> None:
    _, browser = await with_server(market, api)
    before = (await browser.get("/business/inbox/practice")).text
    assert "Take this lead" in before
    assert "Alex Example" not in before
    after = (await browser.get("/business/inbox/practice?taken=1")).text
    assert "Alex Example" in after
    assert await market.value("select count(*) from lead") == 0


async def test_a_practice_notification_needs_the_operators_key(market: Marketplace, api: Served) -> None:
    _, browser = await with_server(market, api)
    await browser.post("/business/inbox/devices", Phone().fields("https://push.example.com/a"))
    reply = await browser.post("/business/inbox/practice")
    assert "has not switched on notifications" in (await browser.get(reply.headers["location"])).text


async def test_the_first_steps_end_with_an_inbox_that_needs_no_server(market: Marketplace, api: Served) -> None:
    owner, _ = await api.business()
    browser, home = await signed_in(api, "business", owner), "/business/onboarding"
    steps = {
        "company": {"name": "Northside Roofing", "zone": "America/Chicago"},
        "services": {"vertical": "roofing"},
        "area": {"centre": "60614", "miles": "25"},
        "hours": {"always": "1", "price": "62"},
        "delivery": {"act": "inbox"},
    }
    assert "Receive leads here" in (await browser.get(f"{home}/delivery")).text
    for step, fields in steps.items():
        assert (await browser.post(f"{home}/{step}", fields)).status_code == 303, step
    row = await market.row(
        "select e.kind, e.state, s.state as order_state from subscription s join endpoint e on e.id = s.endpoint_id"
    )
    assert row == {"kind": "inbox", "state": "active", "order_state": "active"}
    assert "Receive leads here" not in (await browser.get(f"{home}/delivery")).text
