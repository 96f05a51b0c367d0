"""The inbox: a card shows no contact, one tap takes the lead and charges it once, and an untaken lead goes on."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta
from uuid import UUID

import pytest

from marketplace.database.db import open_pool, session
from marketplace.database.journal import Journal, JournalError, JournalExposure, read_newest
from marketplace.delivery import store as delivery_store
from marketplace.erasure.flow import erase_lead
from marketplace.feed import store as feed_store
from marketplace.portal.business import inbox
from marketplace.revocations.flow import revoke_lead
from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from routing.inquiry import Budget, Timing
from routing.subscription import Area, Circle
from tests.builders.marketplaces import PRICE_MINOR, Buyer, Marketplace, anywhere, marketplace, roofing
from tests.builders.portal import Browser, signed_in
from tests.builders.service import Served, serve
from tests.marketplace.portal.test_live import watching
from tests.receivers import Receiver, ok

FULL = 100_000
OPERATOR = Principal(key_id="operator", kind=CallerKind.operator, owner_id=None, mode="live")
CHICAGO = Area(circles=(Circle(latitude=41.88, longitude=-87.63, km=80),))


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings, roofing(patience_seconds=3_600)) as market:
        yield market


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as api:
        yield api


async def with_inbox(market: Marketplace, api: Served, hold_seconds: int = 600) -> tuple[Buyer, Browser]:
    """Return a business that takes every lead in its inbox, and a browser of one of its members."""
    buyer = await market.buyer(None, anywhere(priority=1), kind="inbox", hold_seconds=hold_seconds)
    return buyer, await signed_in(api, "business", buyer.business_id)


async def path_of(market: Marketplace, lead_id: UUID) -> str:
    """Return the address of the lead's card."""
    assignment_id = await market.value("select id from assignment where lead_id = $1", lead_id)
    return f"/business/inbox/{ids.encode('asg', assignment_id)}"


async def end_hold(market: Marketplace) -> None:
    """End the hold of every lead, without anybody noticing yet."""
    await market.owner.execute("update assignment set hold_until = clock_timestamp() - interval '1 second'")


async def sweep(market: Marketplace) -> None:
    await market.owner.execute("update assignment set due_at = clock_timestamp() where due_at is not null")
    await market.sweeper.sweep()
    await asyncio.gather(*market.sweeper._running)


async def test_a_card_shows_the_job_and_nothing_of_the_person(market: Marketplace, api: Served) -> None:
    buyer = await market.buyer(None, anywhere(area=CHICAGO), kind="inbox")
    browser = await signed_in(api, "business", buyer.business_id)
    lead_id = await market.sold()
    page = (await browser.get("/business/inbox")).text
    one = (await browser.get(await path_of(market, lead_id))).text
    for text in (page, one):
        assert "Roofing" in text
        assert "$50.00" in text
        assert "Take this lead" in text
        assert "miles away" in text
        for secret in ("Robin", "robin.1@example.com", "tel:", "60601"):
            assert secret not in text.partition("<main")[2], secret
    assert await market.value("select count(*) from exposure") == 0


async def test_a_tap_shows_the_contact_and_charges_once(market: Marketplace, api: Served) -> None:
    buyer, browser = await with_inbox(market, api)
    lead_id = await market.sold()
    assert await market.state(lead_id) == "held"
    reply = await browser.post(f"{await path_of(market, lead_id)}/take")
    assert reply.headers["location"] == f"/business/leads/{ids.encode('lead', lead_id)}"
    page = (await browser.get(reply.headers["location"])).text
    assert "robin.1@example.com" in page
    assert "tel:" in page
    assert await market.wallet(buyer) == (FULL - PRICE_MINOR, 0)
    row = await market.row("select state, reason, evidence, due_at from assignment")
    assert row == {"state": "delivered", "reason": "taken", "evidence": "reveal", "due_at": None}
    member = ids.encode("mem", browser.member_id or lead_id)
    assert await market.row("select channel, address from exposure") == {"channel": "portal", "address": member}
    entries = read_newest(market.settings.journal_dir)
    assert {entry.lead_id: entry.channel for entry in entries if isinstance(entry, JournalExposure)} == {
        lead_id: "portal"
    }
    assert ("lead.take", ids.encode("lead", lead_id)) in await api.audited()
    assert "Take this lead" not in (await browser.get("/business/inbox")).text


async def test_two_taps_at_once_of_two_colleagues_take_and_charge_a_lead_once(market: Marketplace, api: Served) -> None:
    buyer, browser = await with_inbox(market, api)
    colleague = await signed_in(api, "business", buyer.business_id, role="member")
    path = f"{await path_of(market, await market.sold())}/take"
    replies = await asyncio.gather(*(each.post(path) for each in (browser, colleague, browser, colleague)))
    assert {reply.status_code for reply in replies} == {303}
    assert len({reply.headers["location"] for reply in replies}) == 1
    assert sum("yours%20alone" in reply.headers["set-cookie"] for reply in replies) == 1
    assert await market.wallet(buyer) == (FULL - PRICE_MINOR, 0)
    assert await market.value("select count(*) from transfer where kind = 'capture'") == 1


async def test_a_lead_that_nobody_takes_goes_to_the_next_business_uncharged(market: Marketplace, api: Served) -> None:
    async with Receiver(ok) as receiver:
        buyer, browser = await with_inbox(market, api)
        await market.buyer(receiver.url, anywhere(priority=2))
        lead_id = await market.sold()
        assert await market.value("select hold_until - awarded_at from assignment") == timedelta(minutes=10)
        assert await market.value("select due_at = hold_until from assignment")
        path = await path_of(market, lead_id)
        await end_hold(market)
        late = await browser.post(f"{path}/take")
        assert (late.status_code, "went to another business" in late.text) == (409, True)
        assert await market.value("select count(*) from exposure") == 0
        await sweep(market)
        assert await market.state(lead_id) == "delivered"
        assert await market.wallet(buyer) == (FULL, 0)
        late = await browser.post(f"{path}/take")
        assert (late.status_code, "robin.1@example.com" in late.text) == (409, False)
        assert "went to another business" in (await browser.get(path)).text
        assert "Take this lead" not in (await browser.get("/business/inbox")).text


@pytest.mark.parametrize("way", ["erased", "revoked"])
async def test_a_lead_whose_person_has_withdrawn_cannot_be_taken(market: Marketplace, api: Served, way: str) -> None:
    buyer, browser = await with_inbox(market, api)
    lead_id = await market.sold()
    path = await path_of(market, lead_id)
    if way == "erased":
        await erase_lead(market.api, OPERATOR, lead_id, "asked to be forgotten", also_suppress=True)
    else:
        await revoke_lead(market.api, OPERATOR, lead_id, (), "said stop")
    reply = await browser.post(f"{path}/take")
    assert (reply.status_code, "You were not charged" in reply.text) == (409, True)
    assert "Take this lead" not in (await browser.get("/business/inbox")).text
    assert await market.value("select count(*) from exposure") == 0
    assert await market.value("select count(*) from transfer where kind = 'capture'") == 0
    assert buyer


async def test_another_business_and_a_feed_do_not_get_at_a_lead_of_the_inbox(market: Marketplace, api: Served) -> None:
    buyer, _ = await with_inbox(market, api)
    other = await market.buyer(None, anywhere(priority=9))
    path = await path_of(market, await market.sold())
    stranger = await signed_in(api, "business", other.business_id)
    assert (await stranger.post(f"{path}/take")).status_code == 404
    assert (await stranger.get(path)).status_code == 404
    key = await api.key(CallerKind.business, buyer.business_id)
    assert (await api.call("GET", "/v1/feed/events?after=0", key=key)).json()["data"] == []
    assert await market.value("select count(*) from exposure") == 0


async def test_a_tap_cannot_take_a_lead_of_a_feed(market: Marketplace, api: Served) -> None:
    buyer = await market.buyer(None)
    browser = await signed_in(api, "business", buyer.business_id)
    assert (await browser.post(f"{await path_of(market, await market.sold())}/take")).status_code == 404
    assert await market.value("select count(*) from exposure") == 0


async def test_five_untaken_leads_close_the_inbox_until_somebody_opens_it(market: Marketplace, api: Served) -> None:
    _, browser = await with_inbox(market, api)
    for number in range(1, 6):
        await market.sold(number)
        await end_hold(market)
        await sweep(market)
    assert await market.value("select breaker_open_until is not null from endpoint")
    assert "Nobody took the last leads in time" in (await browser.get("/business")).text
    await browser.get("/business/inbox")
    assert await market.value("select breaker_open_until is null and breaker = '{}' from endpoint")


async def test_a_new_card_appears_in_an_open_inbox_and_leaves_it_at_the_end_of_its_hold(
    market: Marketplace, api: Served
) -> None:
    _, browser = await with_inbox(market, api)
    async with watching(api, browser, "business.inbox") as events:
        assert "No lead waits" in (await anext(events))[2]
        await asyncio.sleep(0.2)  # for the listener to hear
        await market.sold()
        async with asyncio.timeout(5):
            assert "Take this lead" in (await anext(events))[2]
        await end_hold(market)
        await sweep(market)
        async with asyncio.timeout(5):
            assert "No lead waits" in (await anext(events))[2]


async def test_a_test_lead_is_taken_in_test_mode_and_charges_nothing(market: Marketplace, api: Served) -> None:
    buyer = await market.buyer(None, kind="inbox", mode="test")
    browser = await signed_in(api, "business", buyer.business_id, mode="test")
    rehearsing = Principal(key_id="t", kind=CallerKind.provider, owner_id=market.provider.owner_id, mode="test")
    receipt = await market.submit(by=rehearsing)
    await market.walker.walk(receipt.id)
    reply = await browser.post(f"{await path_of(market, receipt.id)}/take")
    assert reply.headers["location"] == f"/business/leads/{ids.encode('lead', receipt.id)}"
    assert await market.wallet(buyer) == (FULL, 0)


@pytest.mark.parametrize(
    ("timing", "words"),
    [
        (None, ""),
        (Timing(within_days=0), "Today"),
        (Timing(within_days=1), "Within a day"),
        (Timing(within_days=14), "Within 14 days"),
        (Timing(not_before=date(2027, 3, 3)), "From 3 Mar 2027"),
    ],
)
def test_a_card_says_when_the_person_wants_it(timing: Timing | None, words: str) -> None:
    assert inbox.timing_words(timing) == words


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (None, ""),
        (Budget(minor=1_200_000, currency="USD"), "$12,000"),
        (Budget(minor=1_200_000, currency="USD", maximum_minor=1_200_000), "$12,000"),
        (Budget(minor=800_000, currency="USD", maximum_minor=1_200_000), "$8,000 to $12,000"),
    ],
)
def test_a_card_says_what_the_person_can_spend(budget: Budget | None, words: str) -> None:
    assert inbox.budget_words(budget) == words


async def test_a_lead_over_which_a_process_died_is_taken_again_and_charged_once(
    market: Marketplace, api: Served
) -> None:
    """The exposure was committed, and nothing after it."""
    buyer, browser = await with_inbox(market, api)
    lead_id = await market.sold()
    case = await delivery_store.find_delivery(market.worker, await market.value("select id from assignment"))
    assert case is not None
    feeder = await open_pool(market.settings.database_url or "", "marketplace_feeder", size=1)
    async with session(feeder) as connection:
        assert await feed_store.expose(
            connection, case, buyer.business_id, "mem_x", b"x" * 32, case.read_at, case.hold_until, "portal"
        )
    await feeder.close()
    assert "Opened, and not charged yet" in (await browser.get("/business/inbox")).text
    assert (await browser.post(f"{await path_of(market, lead_id)}/take")).status_code == 303
    assert await market.wallet(buyer) == (FULL - PRICE_MINOR, 0)
    entries = read_newest(market.settings.journal_dir)
    assert [entry.lead_id for entry in entries if isinstance(entry, JournalExposure)] == [lead_id]


async def test_without_the_journal_nothing_is_charged_and_the_lead_can_be_taken_later(
    market: Marketplace, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer, browser = await with_inbox(market, api)
    path = f"{await path_of(market, await market.sold())}/take"
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", _fail)
        assert (await browser.post(path)).status_code == 503
    assert await market.wallet(buyer) == (FULL - PRICE_MINOR, PRICE_MINOR)
    assert (await browser.post(path)).status_code == 303
    assert await market.wallet(buyer) == (FULL - PRICE_MINOR, 0)


async def _fail(journal: Journal, exposure: JournalExposure) -> None:
    raise JournalError("the disk is full")
