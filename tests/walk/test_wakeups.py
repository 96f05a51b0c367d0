"""Wake-ups: each does its work while the sweeper and all polling are switched off, so that nothing else could.

The sweeper never runs here and a stream polls once an hour, so a test fails if a message to the queue, to a stream or
to a page is missing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from marketplace.erasure.flow import erase_lead
from marketplace.feed import http as feed_http
from marketplace.feed import streams
from marketplace.portal import live
from marketplace.portal.operator.overview import RECENT_DECISIONS_PART
from marketplace.runtime import clock, ids, queue
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from marketplace.worker import note_job
from tests.builders.feeds import reading
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import Marketplace, anywhere, marketplace, roofing
from tests.builders.portal import Browser, signed_in
from tests.builders.service import STOP_SECONDS, Served, serve, until
from tests.marketplace.portal.test_live import watching
from tests.receivers import Receiver, status
from tests.waiting import PATIENCE, within

HOUR = 3_600.0
FORBIDDEN = "http://10.0.0.1/hook"
"An address that nothing is sent to: the lead goes on to the next business without another try."
EARLY = {
    "budget": {"minor": 1_200_000, "currency": "USD"},
    "authority": "decision_maker",
    "need": {"fields": {"roof_type": "tile"}},
    "timing": {"within_days": 80},
}
LISTENING_SECONDS = 2.0
"For a listener that has just begun to hear, which wakes everybody once, and for what that wakes."


class Awake:
    """A served marketplace, and a worker that only does the jobs of the queue."""

    def __init__(self, market: Marketplace, api: Served) -> None:
        self.market, self.api = market, api

    async def delivered(self, lead_id: Any) -> bool:
        async def is_delivered() -> bool:
            return await self.market.state(lead_id) == "delivered"

        return await until(is_delivered, PATIENCE)


@pytest.fixture
async def awake(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Awake]:
    for module, name in (
        (streams, "LOOK_SECONDS"),
        (feed_http, "PING_SECONDS"),
        (live, "LOOK_SECONDS"),
        (live, "PING_SECONDS"),
    ):
        monkeypatch.setattr(module, name, HOUR)
    monkeypatch.setattr(live, "REST", 0)  # or a wake from before the change might be answered after it
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings, roofing(patience_seconds=3_600)))
        api = await stack.enter_async_context(serve(settings))
        await stack.enter_async_context(_answering(market))
        yield Awake(market, api)


@asynccontextmanager
async def _answering(market: Marketplace) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    answering = asyncio.create_task(
        queue.answer(
            market.settings.valkey_url or "", {"walk": market.walker.walk}, slots=20, stopping=stopping, on_job=note_job
        )
    )
    try:
        yield
    finally:
        stopping.set()
        await within(STOP_SECONDS, answering, "the queue to end what it holds")


async def post(awake: Awake, number: int = 1, **sections: Any) -> Any:
    key = await awake.api.key(CallerKind.provider, awake.market.provider.owner)
    body = roofing_body(number, clock.now(), **sections)
    reply = await awake.api.call("POST", "/v1/inquiries", body, key=key, headers={"idempotency-key": f"key-{number}"})
    assert reply.status_code == 202, reply.text
    return ids.decode("lead", reply.json()["id"]), key


async def test_a_lead_is_walked_as_soon_as_it_was_taken_in(awake: Awake) -> None:
    async with Receiver(status(200)) as receiver:
        await awake.market.buyer(receiver.url)
        lead, _ = await post(awake)
        assert await awake.delivered(lead)


async def test_a_nurtured_lead_is_walked_again_as_soon_as_its_person_comes_back(awake: Awake) -> None:
    lead, key = await post(awake, bant=EARLY)
    assert await until(lambda: _is(awake, lead, "nurturing"), PATIENCE)
    before = await awake.market.value("select count(*) from decision")
    touch = {"kind": "call", "at": clock.now()}
    path = f"/v1/inquiries/{ids.encode('lead', lead)}/touches"
    reply = await awake.api.call("POST", path, {"touches": [touch]}, key=key)
    assert reply.status_code == 201, reply.text

    async def decided_again() -> bool:
        return bool(await awake.market.value("select count(*) from decision") > before)

    assert await until(decided_again, PATIENCE)


async def test_a_waiting_lead_is_walked_as_soon_as_an_operator_says_so(awake: Awake) -> None:
    buyer = await awake.market.buyer("http://127.0.0.1:1/hook")
    await awake.market.owner.execute("update endpoint set breaker_open_until = clock_timestamp() + interval '9 min'")
    await awake.market.owner.execute("update subscription set name = name || '.'")
    lead, _ = await post(awake)
    assert await until(lambda: _is(awake, lead, "prospect"), PATIENCE)
    before = await awake.market.value("select count(*) from decision")
    browser = await signed_in(awake.api, "operator")
    form = {"lead": ids.encode("lead", lead), "reason": "The endpoint is well again."}
    assert (await browser.post("/operator/unroutable", form)).status_code == 303

    async def decided_again() -> bool:
        return bool(await awake.market.value("select count(*) from decision") > before)

    assert await until(decided_again, PATIENCE)
    assert buyer.business_id


async def test_a_lead_that_a_business_cannot_be_shown_goes_to_the_next_in_the_same_walk(awake: Awake) -> None:
    async with Receiver(status(200)) as receiver:
        await awake.market.buyer(FORBIDDEN, anywhere(priority=1))
        await awake.market.buyer(receiver.url, anywhere(priority=2))
        lead, _ = await post(awake)
        assert await awake.delivered(lead)
        states = "select array_agg(state order by awarded_at) from assignment"
        assert await awake.market.value(states) == ["released", "delivered"]


async def test_a_retry_that_releases_its_lead_takes_it_to_the_next_business(awake: Awake) -> None:
    async with Receiver(status(200)) as receiver:
        await awake.market.buyer("http://127.0.0.1:1/hook", anywhere(priority=1))
        await awake.market.buyer(receiver.url, anywhere(priority=2))
        lead, _ = await post(awake)
        tried = "select count(*) from assignment where state = 'held' and reason is not null"

        async def was_tried() -> bool:
            return bool(await awake.market.value(tried) == 1)

        assert await until(was_tried, PATIENCE)
        await awake.market.owner.execute("update assignment set hold_until = clock_timestamp()")
        held = await awake.market.value("select id from assignment where state = 'held'")
        await awake.market.walker.attempt_and_walk_on(held, lead)
        assert await awake.market.state(lead) == "delivered"


async def test_an_open_feed_is_woken_by_a_lead_and_by_an_erasure(awake: Awake) -> None:
    buyer = await awake.market.buyer(None)
    key = await awake.api.key(CallerKind.business, buyer.business_id)
    async with reading(awake.api, key) as stream:
        await asyncio.sleep(LISTENING_SECONDS)
        lead, _ = await post(awake)
        assert (await stream.next()).name == "lead.assigned"
        operator = Principal(key_id="operator", kind=CallerKind.operator, owner_id=None, mode="live")
        await erase_lead(awake.market.api, operator, lead, "asked", also_suppress=False)
        await awake.market.notices.send(await awake.market.value("select id from notice"))
        assert (await stream.next()).name == "lead.erased"


@pytest.mark.parametrize("kind", ["business", "operator"])
async def test_an_open_page_is_woken_by_a_delivery(awake: Awake, kind: str) -> None:
    async with Receiver(status(200)) as receiver:
        buyer = await awake.market.buyer(receiver.url)
        business = ids.encode("biz", buyer.business_id)
        part = "business.latest" if kind == "business" else RECENT_DECISIONS_PART.name
        browser: Browser = await signed_in(awake.api, kind, *([business] if kind == "business" else []))
        async with watching(awake.api, browser, part) as page_events:
            assert (await anext(page_events))[1] == "first"
            await asyncio.sleep(LISTENING_SECONDS)
            lead, _ = await post(awake)
            async with asyncio.timeout(PATIENCE):
                assert (await anext(page_events))[0] == part
        assert await awake.delivered(lead)


async def _is(awake: Awake, lead_id: Any, state: str) -> bool:
    return await awake.market.state(lead_id) == state
