"""The notice to the one business that may have seen an erased person: signed, repeated, acknowledged or overdue."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
from standardwebhooks import Webhook

from marketplace.erasure.flow import erase_lead
from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from tests.builders.marketplaces import Buyer, Marketplace, marketplace
from tests.builders.service import Served, serve
from tests.receivers import Behaviour, Receiver, cut_body, drop_after_read, html_page, ok, status

OPERATOR = Principal(key_id="operator", kind=CallerKind.operator, owner_id=None, mode="live")


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings) as market:
        yield market


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as api:
        yield api


async def delivered_and_erased(market: Marketplace, receiver: Receiver) -> tuple[Buyer, UUID]:
    buyer = await market.buyer(receiver.url)
    lead_id = await market.sold()
    assert await market.state(lead_id) == "delivered"
    await erase_lead(market.api, OPERATOR, lead_id, "asked", also_suppress=True)
    return buyer, lead_id


async def sweep(market: Marketplace) -> dict[str, Any]:
    """Make every notice due, run the sweeper once, and return the erasure."""
    await market.owner.execute("update notice set due_at = clock_timestamp() where due_at is not null")
    await market.sweeper.sweep()
    await asyncio.gather(*market.sweeper._running)
    return await market.row("select state, result, attempts, due_at, acknowledged_at from notice")


async def test_the_notice_is_signed_and_names_the_lead_alone(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        buyer, lead_id = await delivered_and_erased(market, receiver)
        row = await sweep(market)
        assert (row["state"], row["result"], row["attempts"]) == ("acknowledged", "status_200", 1)
        lead, notice = receiver.visits
        headers = {name.lower(): value for name, value in notice.headers.items()}
        Webhook(buyer.secret).verify(notice.body, headers)
        body = msgspec.json.decode(notice.body)
        assert body["type"] == "lead.erasure_requested"
        assert body["data"]["lead_id"] == ids.encode("lead", lead_id)
        assert body["data"]["assignment_id"] == lead.headers["Webhook-Id"]
        assert b"example.com" not in notice.body
        assert headers["webhook-id"].startswith("evt_")
        await sweep(market)
        assert len(receiver.visits) == 2


@pytest.mark.parametrize("behaviour", [status(500), status(410), status(302), drop_after_read, cut_body, html_page])
async def test_a_notice_without_a_whole_2xx_is_repeated_under_the_same_id(
    market: Marketplace, behaviour: Behaviour
) -> None:
    async with Receiver(ok, behaviour, behaviour, ok) as receiver:
        await delivered_and_erased(market, receiver)
        assert (await sweep(market))["state"] == "due"
        row = await sweep(market)
        assert (row["state"], row["attempts"]) == ("due", 2)
        assert (await sweep(market))["state"] == "acknowledged"
        assert len({visit.headers["Webhook-Id"] for visit in receiver.visits[1:]}) == 1
        assert await market.value("select count(*) from audit where action = 'erasure.acknowledge'") == 1


async def test_a_notice_waits_while_no_endpoint_is_on_and_goes_to_the_next_that_is(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        await delivered_and_erased(market, receiver)
        await market.owner.execute("update endpoint set state = 'disabled'")
        row = await sweep(market)
        assert (row["state"], row["result"]) == ("due", "no_active_endpoint")
        await market.owner.execute("update endpoint set state = 'active'")
        assert (await sweep(market))["state"] == "acknowledged"


async def test_an_overdue_notice_is_shown_and_sent_once_a_day(market: Marketplace, api: Served) -> None:
    async with Receiver(ok, status(500), status(500), ok) as receiver:
        await delivered_and_erased(market, receiver)
        await market.owner.execute("update notice set deadline_at = clock_timestamp() - interval '1 second'")
        assert (await sweep(market))["state"] == "overdue"
        pause = "select extract(epoch from due_at - clock_timestamp()) from notice"
        assert 0 <= 86_400 - await market.value(pause) < 60
        listed = (await api.call("GET", "/v1/erasures?notice_state=overdue")).json()["data"]
        assert [row["notice"]["state"] for row in listed] == ["overdue"]
        await sweep(market)
        assert (await sweep(market))["state"] == "acknowledged"
        assert len(receiver.visits) == 4


async def test_the_reminders_of_an_overdue_notice_end(market: Marketplace) -> None:
    async with Receiver(ok, status(500)) as receiver:
        await delivered_and_erased(market, receiver)
        await market.owner.execute("update notice set deadline_at = clock_timestamp() - interval '90 days'")
        row = await sweep(market)
        assert (row["state"], row["due_at"]) == ("overdue", None)


async def test_a_notice_is_taken_up_by_one_worker_at_a_time(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        await delivered_and_erased(market, receiver)
        await asyncio.gather(*(market.sweeper.sweep() for _ in range(5)))
        await asyncio.gather(*market.sweeper._running)
        assert len(receiver.visits) == 2


async def test_a_business_sees_and_acknowledges_its_own_and_nobody_elses(market: Marketplace, api: Served) -> None:
    async with Receiver(ok, status(500)) as receiver:
        buyer, lead_id = await delivered_and_erased(market, receiver)
        stranger = await market.buyer("http://127.0.0.1:1/")
        path = f"/v1/leads/{ids.encode('lead', lead_id)}/erasure"
        own = await api.key("business", ids.encode("biz", buyer.business_id))
        test_key = await api.key("business", ids.encode("biz", buyer.business_id), "test")
        other = await api.key("business", ids.encode("biz", stranger.business_id))
        for key in (other, test_key):
            assert (await api.call("GET", path, key=key)).status_code == 404
            assert (await api.call("POST", f"{path}/acknowledge", key=key)).status_code == 404
        assert (await api.call("POST", f"{path}/acknowledge")).status_code == 403
        erasure = (await api.call("GET", path, key=own)).json()
        assert (erasure["notice"]["state"], erasure.keys() & {"business", "reason", "requested_by"}) == ("due", set())
        first, again = [await api.call("POST", f"{path}/acknowledge", key=own) for _ in range(2)]
        assert (first.status_code, first.json()) == (again.status_code, again.json())
        assert first.json()["notice"]["state"] == "acknowledged"
        assert (await sweep(market))["attempts"] == 0
        assert len(receiver.visits) == 1


async def test_a_lead_that_was_not_erased_has_no_erasure_to_show(market: Marketplace, api: Served) -> None:
    async with Receiver(ok) as receiver:
        buyer = await market.buyer(receiver.url)
        lead = ids.encode("lead", await market.sold())
        key = await api.key("business", ids.encode("biz", buyer.business_id))
        assert (await api.call("GET", f"/v1/leads/{lead}/erasure", key=key)).status_code == 404
        assert (await api.call("GET", f"/v1/erasures/{lead}")).status_code == 404
