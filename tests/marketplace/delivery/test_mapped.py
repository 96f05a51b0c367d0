"""Leads to mapped endpoints: the request that arrives, and what becomes of a lead when it cannot be made."""

import asyncio

import msgspec
import pytest

from marketplace.mapping.shapes import (
    BearerToken,
    BodyFormat,
    ClientCredentials,
    Credentials,
    RequestMapping,
    SentHeader,
)
from marketplace.runtime.settings import Settings
from tests.builders.marketplaces import PRICE_MINOR, Buyer, Marketplace, anywhere, marketplace
from tests.receivers import Behaviour, Receiver, answer, ok, status

CRM = RequestMapping(
    format=BodyFormat.json,
    body='{"phone": "{{ contact.phone }}", "name": {{ contact.full_name | json }}, "material": "{{ need.material }}"}',
    headers=(SentHeader(name="Version", value="2"),),
    method="PUT",
)
FAILS_ON_THE_FACTS = RequestMapping(
    format=BodyFormat.json, body='{"id": "{{ lead.id }}"{% if place.postal_code %},{% endif %}}'
)
TOKEN = answer(200, b'{"access_token":"fetched","token_type":"Bearer"}')


async def set_mapping(
    market: Marketplace, buyer: Buyer, mapping: RequestMapping, credentials: Credentials | None = None
) -> None:
    box = None
    if credentials is not None:
        box = market.sealer.seal_credentials(buyer.endpoint_id, msgspec.json.encode(credentials))
    document = msgspec.json.encode(mapping).decode()
    await market.owner.execute(
        "update endpoint set mapping = $2, credentials = $3 where id = $1", buyer.endpoint_id, document, box
    )


async def try_again(market: Marketplace) -> None:
    await market.owner.execute("update assignment set due_at = clock_timestamp() where state in ('held', 'exposed')")
    await market.sweeper.sweep()
    await asyncio.gather(*market.sweeper._running)


async def test_the_request_has_the_form_of_the_businesss_software(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(ok) as crm:
        buyer = await market.buyer(crm.url)
        await set_mapping(market, buyer, CRM, BearerToken(token="secret"))
        assert await market.state(await market.sold()) == "delivered"
        [visit] = crm.visits
        assert visit.raw.startswith(b"PUT /hook HTTP/1.1\r\n")
        assert (visit.headers["Authorization"], visit.headers["Version"]) == ("Bearer secret", "2")
        assert visit.headers["Webhook-Id"].startswith("asg_")
        body = msgspec.json.decode(visit.body)
        assert body.keys() == {"phone", "name", "material"}
        assert body["phone"].startswith("+1312")


async def test_a_template_that_fails_on_the_facts_gives_the_lead_to_the_next_business(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(ok) as crm, Receiver(ok) as next_server:
        broken = await market.buyer(crm.url, anywhere(priority=1))
        await market.buyer(next_server.url, anywhere(priority=2))
        await set_mapping(market, broken, FAILS_ON_THE_FACTS)
        lead_id = await market.sold()
        assert await market.state(lead_id) == "delivered"
        assert (crm.visits, len(next_server.visits)) == ([], 1)
        assert await market.value("select reason from attempt order by started_at limit 1") == "mapping_failed"
        assert await market.wallet(broken) == (100_000, 0)


async def test_a_token_is_fetched_before_the_exposure_and_anew_after_a_401(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(TOKEN) as login, Receiver(status(401), ok) as crm:
        buyer = await market.buyer(crm.url)
        client = ClientCredentials(token_url=login.url, client_id="a", client_secret="b")
        await set_mapping(market, buyer, CRM, client)
        await market.owner.execute(
            "update endpoint set contract = $1",
            '{"try_later": [{"status": "401"}], "accepted": [{"empty": true}]}',
        )
        lead_id = await market.sold()
        await try_again(market)
        assert await market.state(lead_id) == "delivered"
        assert [visit.headers["Authorization"] for visit in crm.visits] == ["Bearer fetched"] * 2
        assert len(login.visits) == 2


async def test_without_a_token_nothing_is_exposed_and_the_lead_moves_on(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(500)) as login, Receiver(ok) as crm:
        buyer = await market.buyer(crm.url)
        client = ClientCredentials(token_url=login.url, client_id="a", client_secret="b")
        await set_mapping(market, buyer, CRM, client)
        lead_id = await market.sold()
        assert await market.state(lead_id) == "held"
        assert await market.value("select count(*) from exposure") == 0
        for _ in range(2):
            await try_again(market)
        assert crm.visits == []
        assert await market.state(lead_id) != "exposed"
        assert await market.wallet(buyer) == (100_000, 0)


@pytest.mark.parametrize(("behaviour", "held"), [(ok, 0), (status(500), PRICE_MINOR)])
async def test_a_mapped_lead_is_charged_by_the_same_rules(settings: Settings, behaviour: Behaviour, held: int) -> None:
    async with marketplace(settings) as market, Receiver(behaviour) as crm:
        buyer = await market.buyer(crm.url)
        await set_mapping(market, buyer, CRM)
        await market.sold()
        assert await market.wallet(buyer) == (100_000 - PRICE_MINOR, held)
