"""Answers under a response contract: who is charged, what is stored of an answer, and the alarms about it."""

import asyncio
from typing import Any

import msgspec
import pytest

from marketplace.erasure.flow import erase_lead
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from routing.contract import AnswerRule, Contract
from tests.builders.marketplaces import PRICE_MINOR, Buyer, Marketplace, marketplace
from tests.receivers import Behaviour, Receiver, Visit, accept, answer, gzipped_refusal, html_page, status

FULL = 100_000
CRM = Contract(
    refused=(AnswerRule(path="outcome", values=("failure",)),),
    duplicate=(AnswerRule(status="409"),),
    accepted=(AnswerRule(path="lead.id"),),
    reason="reason",
    reference="lead.id",
    price="price",
)
WARNING = answer(200, b"<br />\n<b>Warning</b>: mysqli_connect() failed", content_type="text/html")


async def set_contract(market: Marketplace, buyer: Buyer, contract: Contract) -> None:
    document = msgspec.json.encode(contract).decode()
    await market.owner.execute("update endpoint set contract = $2 where id = $1", buyer.endpoint_id, document)


async def retry(market: Marketplace) -> None:
    await market.owner.execute("update assignment set due_at = clock_timestamp() where state = 'exposed'")
    await market.sweeper.sweep()
    await asyncio.gather(*market.sweeper._running)


async def open_alarms(market: Marketplace) -> list[dict[str, Any]]:
    rows = await market.owner.fetch(
        "select kind, answers, status, excerpt from answer_alarm where closed_at is null order by kind"
    )
    return [dict(row) for row in rows]


@pytest.mark.parametrize("behaviour", [html_page, WARNING, answer(200, b"OK"), answer(200, b'{"message":"duplicate"}')])
async def test_an_answer_that_is_not_understood_costs_nothing_and_raises_one_alarm(
    settings: Settings, behaviour: Behaviour
) -> None:
    async with marketplace(settings) as market, Receiver(behaviour, behaviour, accept) as receiver:
        buyer = await market.buyer(receiver.url)
        lead_id = await market.sold()
        await retry(market)
        assert await market.state(lead_id) == "exposed"
        assert await market.wallet(buyer) == (FULL - PRICE_MINOR, PRICE_MINOR)
        [alarm] = await open_alarms(market)
        assert (alarm["kind"], alarm["answers"], alarm["status"]) == ("not_understood", 2, 200)
        assert alarm["excerpt"]
        await retry(market)
        assert await market.state(lead_id) == "delivered"
        assert await open_alarms(market) == []
        assert await market.value("select closed_for from answer_alarm") == "understood"
        assert len({visit.headers["Webhook-Id"] for visit in receiver.visits}) == 1


async def test_a_compressed_refusal_is_read_and_raises_no_alarm(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(gzipped_refusal) as receiver:
        buyer = await market.buyer(receiver.url)
        assert await market.state(await market.sold()) == "refused"
        assert await market.wallet(buyer) == (FULL, 0)
        assert await open_alarms(market) == []


async def test_a_contract_of_its_own_charges_and_stores_what_the_answer_names(settings: Settings) -> None:
    body = b'{"outcome":"success","lead":{"id":4711},"price":"1.00"}'
    async with marketplace(settings) as market, Receiver(answer(201, body)) as receiver:
        buyer = await market.buyer(receiver.url)
        await set_contract(market, buyer, CRM)
        assert await market.state(await market.sold()) == "delivered"
        assert await market.wallet(buyer) == (FULL - PRICE_MINOR, 0)
        assert await market.row("select answer_reference, answer_price from attempt") == {
            "answer_reference": "4711",
            "answer_price": "1.00",
        }


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (answer(200, b'{"outcome":"failure","reason":"outside_area","lead":{"id":1}}'), "outside_area"),
        (status(409), "duplicate"),
        (answer(200, b'{"outcome":"failure"}'), "other"),
    ],
)
async def test_a_refusal_by_contract_ends_the_lead_uncharged(
    settings: Settings, behaviour: Behaviour, reason: str
) -> None:
    async with marketplace(settings) as market, Receiver(behaviour) as receiver:
        buyer = await market.buyer(receiver.url)
        await set_contract(market, buyer, CRM)
        lead_id = await market.sold()
        assert await market.row("select state, reason from lead where id = $1", lead_id) == {
            "state": "refused",
            "reason": reason,
        }
        assert await market.wallet(buyer) == (FULL, 0)


async def test_contact_data_in_a_reference_is_masked(settings: Settings) -> None:
    async def echo(visit: Visit) -> None:
        await visit.read_request()
        email = msgspec.json.decode(visit.body)["data"]["contact"]["email"]
        await answer(200, msgspec.json.encode({"lead": {"id": email}}))(visit)

    async with marketplace(settings) as market, Receiver(echo) as receiver:
        buyer = await market.buyer(receiver.url)
        await set_contract(market, buyer, CRM)
        await market.sold()
        assert set(await market.value("select answer_reference from attempt")) == {"•"}


async def test_a_new_shape_after_accepted_answers_raises_an_alarm(settings: Settings) -> None:
    usual, unusual = answer(200, b'{"lead":{"id":1}}'), answer(200, b'{"lead":{"id":2},"warning":"over quota"}')
    async with marketplace(settings) as market, Receiver(usual, usual, unusual) as receiver:
        buyer = await market.buyer(receiver.url)
        await set_contract(market, buyer, CRM)
        await market.sold(1)
        await market.sold(2)
        assert await open_alarms(market) == []
        assert await market.state(await market.sold(3)) == "delivered"
        [alarm] = await open_alarms(market)
        assert (alarm["kind"], alarm["answers"]) == ("new_shape", 1)
        assert "over quota" in alarm["excerpt"]
        assert len(await market.value("select answer_shapes from endpoint")) == 2


async def test_the_last_twenty_shapes_are_stored(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(answer(200, b'{"lead":{"id":1}}')) as receiver:
        buyer = await market.buyer(receiver.url)
        await set_contract(market, buyer, CRM)
        await market.owner.execute(
            "update endpoint set answer_shapes = array(select 'old' || n from generate_series(1, 20) n)"
        )
        await market.sold()
        shapes = await market.value("select answer_shapes from endpoint")
        assert len(shapes) == 20
        assert shapes[:2] == ["old2", "old3"]


async def test_an_erasure_takes_what_answers_said_of_the_person(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(answer(200, b'{"lead":{"id":9},"x":1}')) as receiver:
        buyer = await market.buyer(receiver.url)
        await set_contract(market, buyer, CRM)
        await market.owner.execute("update endpoint set answer_shapes = '{other}'")
        lead_id = await market.sold()
        assert [alarm["excerpt"] for alarm in await open_alarms(market)] == ['{"lead":{"id":9},"x":1}']
        operator = Principal(key_id="test", kind=CallerKind.operator, owner_id=None, mode="live")
        await erase_lead(market.api, operator, lead_id, "asked", also_suppress=False)
        assert [alarm["excerpt"] for alarm in await open_alarms(market)] == [None]
        assert await market.value("select answer_reference from attempt") is None
