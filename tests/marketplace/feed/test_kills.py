"""A process that dies while it sends an event: what was committed, what was sent, and who gets the lead afterwards."""

import asyncio
from pathlib import Path

import httpx
import pytest

from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from tests.builders.feeds import reading
from tests.builders.service import Service, serve, service, until
from tests.waiting import PATIENCE

ALLOWED = {"MARKETPLACE_FAILPOINTS_ALLOWED": "yes"}


async def a_lead_waits(api: Service) -> str:
    """Return a business's key, and a lead in its feed."""
    buyer = await api.market.buyer(None)
    await api.market.sold()
    return await api.key(CallerKind.business, buyer.business_id)


async def test_the_exposure_is_committed_before_the_first_byte_of_the_event(settings: Settings, tmp_path: Path) -> None:
    holds = "after_connect_before_expose=sleep:2,after_expose_before_read=sleep:2,after_read_before_write=sleep:2"
    async with service(settings, tmp_path / "log", MARKETPLACE_FAILPOINTS=holds, **ALLOWED) as api:
        key = await a_lead_waits(api)
        async with reading(api, key) as stream:
            coming = asyncio.create_task(stream.next())

            async def exposed() -> bool:
                return bool(await api.pool.fetchval("select count(*) from exposure") == 1)

            await asyncio.sleep(0.5)
            assert not await exposed()
            assert await until(exposed, PATIENCE)
            await asyncio.sleep(0.5)
            assert not coming.done()
            assert (await coming).sequence == 1


@pytest.mark.parametrize(
    "place", ["after_connect_before_expose", "after_expose_before_read", "after_read_before_write"]
)
async def test_an_event_that_a_process_died_over_comes_to_the_same_business(
    settings: Settings, tmp_path: Path, place: str
) -> None:
    async with service(settings, tmp_path / "dies", MARKETPLACE_FAILPOINTS=f"{place}=exit@1", **ALLOWED) as api:
        key = await a_lead_waits(api)
        with pytest.raises(httpx.RemoteProtocolError):
            async with reading(api, key) as stream:
                await stream.next()
        exposed = await api.pool.fetchval("select count(*) from exposure")
        assert exposed == (0 if place == "after_connect_before_expose" else 1)
        async with serve(settings) as again, reading(again, key) as stream:
            assert (await stream.next()).body["data"]["contact"]["email"] == "robin.1@example.com"
        assert await api.pool.fetchval("select count(*) from exposure") == 1


async def test_an_acknowledgement_that_a_process_died_over_is_one_charge(settings: Settings, tmp_path: Path) -> None:
    died = "after_settle_commit=exit@1"
    async with service(settings, tmp_path / "dies", MARKETPLACE_FAILPOINTS=died, **ALLOWED) as api:
        key = await a_lead_waits(api)
        async with reading(api, key) as stream:
            await stream.next()
        with pytest.raises(httpx.RemoteProtocolError):
            await api.call("POST", "/v1/feed/acknowledgements", {"through": 1}, key=key)
        async with serve(settings) as again:
            reply = await again.call("POST", "/v1/feed/acknowledgements", {"through": 1}, key=key)
        assert reply.json()["acknowledged"] == 0
        assert await api.pool.fetchval("select count(*) from transfer where kind = 'capture'") == 1
