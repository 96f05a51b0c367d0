"""What-if pages: a change is tried from a form, followed, and read in words, as a table and as a file."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape
from typing import Any
from uuid import UUID

import msgspec
import pytest

from marketplace.database.db import open_pool
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.simulations import flow
from marketplace.simulations import store as simulations_store
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace
from tests.builders.portal import Browser, signed_in
from tests.builders.service import Served, serve
from tests.builders.subscriptions import a_cap
from tests.receivers import Receiver, ok

HOME = "/operator/verticals/roofing"


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """An operator in front of a marketplace in which one business has bought three leads."""

    api: Served
    market: Marketplace
    buyer: Buyer
    browser: Browser
    reports: Any

    async def start(self, what: str = "what-if", status: int = 303, **fields: object) -> str:
        """Submit a form; return the address of the simulation, or the page that shows the form again."""
        reply = await self.browser.post(f"{HOME}/{what}", {"weeks": 4, **fields})
        assert reply.status_code == status, reply.text
        return str(reply.headers["location"]) if status == 303 else unescape(reply.text)

    async def page(self, path: str) -> str:
        reply = await self.browser.get(path)
        assert reply.status_code == 200, reply.text
        return unescape(reply.text)

    async def compute(self, address: str) -> None:
        key = ids.decode("sim", address.rpartition("/")[2]) or UUID(int=0)
        async with self.market.worker.acquire() as connection:
            assert await simulations_store.claim_due(connection, clock.now() + flow.LEASE, clock.now())
        await flow.run_simulation(self.market.worker, self.reports, key)


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings))
        receiver = await stack.enter_async_context(Receiver(ok))
        buyer = await market.buyer(receiver.url, anywhere(caps=(a_cap("week", 50), a_cap("day", 9))))
        for number in range(1, 4):
            await market.sold(number)
        api = await stack.enter_async_context(serve(settings))
        reports = await open_pool(settings.database_url or "", "marketplace_reports", size=2)
        await stack.enter_async_context(reports)
        browser = await signed_in(api, "operator")
        yield Scene(api=api, market=market, buyer=buyer, browser=browser, reports=reports)


async def test_a_change_is_tried_followed_and_read_in_words_and_figures(scene: Scene) -> None:
    key = ids.encode("sub", scene.buyer.subscription_id)
    assert key in await scene.page(f"{HOME}/what-if")
    assert f'href="{HOME}/what-if"' in await scene.page(HOME)
    address = await scene.start(subscription=key, price="60", daily_cap=2)
    waiting = await scene.browser.get(address)
    assert "waits for its turn" in waiting.text
    assert waiting.headers["refresh"] == "2"
    await scene.market.owner.execute("update simulation set due_at = now()")
    await scene.compute(address)
    done = await scene.page(address)
    assert "A price of USD 60, a cap of 50 leads a week and a cap of 2 leads a day" in done
    assert "USD 7.50 less revenue a week, 33.3 % fewer leads find a business" in done
    assert "is not known: wins are on record only for leads that were sold" in done
    assert "$120.00" in done
    assert "refresh" not in (await scene.browser.get(address)).headers
    lines = (await scene.page(f"{address}?format=csv")).splitlines()
    assert lines[0].startswith("business,business_id,leads_before,leads_after")
    business = ids.encode("biz", scene.buyer.business_id)
    assert lines[1].startswith(f"Example Business,{business},3,2,15000,12000")
    assert "33.3 % fewer" in await scene.page(f"{HOME}/what-if")


async def test_suggestions_are_listed_in_sentences(scene: Scene) -> None:
    address = await scene.start("suggestions")
    await scene.compute(address)
    text = await scene.page(address)
    assert "Small changes, one by one" in text
    assert "A lowest price 25 % above the lowest of today: as many sales a week" in text


async def test_a_simulation_is_cancelled_from_its_page(scene: Scene) -> None:
    address = await scene.start(minimum_score=50)
    assert (await scene.browser.post(f"{address}/cancel")).status_code == 303
    assert "was cancelled" in await scene.page(address)
    viewer = await signed_in(scene.api, "operator", role="viewer")
    assert "Try it" not in (await viewer.get(f"{HOME}/what-if")).text
    assert (await viewer.post(f"{HOME}/what-if", {"weeks": 4, "minimum_score": 1})).status_code == 403


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "Fill in what should be different."),
        ({"price": "a lot"}, "amount"),
        ({"price": "1.00"}, "Choose the subscription to change."),
        ({"subscription": "sub_x", "pause": 1}, "Name a live subscription of this vertical"),
        ({"minimum_score": 101}, "100"),
        ({"weeks": 0, "minimum_score": 50}, "Weeks"),
    ],
)
async def test_a_form_with_a_fault_is_shown_again_with_what_to_do(
    scene: Scene, fields: dict[str, Any], sentence: str
) -> None:
    assert sentence in await scene.start(status=422, **fields)


async def test_a_vertical_that_does_not_exist_has_no_page(scene: Scene) -> None:
    assert (await scene.browser.get("/operator/verticals/nowhere/what-if")).status_code == 404
