"""The page of sources: a source is set, refreshed by the service itself, fails with words, is confirmed and removed."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from marketplace.suppression_lists import sources
from marketplace.web import metrics
from marketplace.webhook.address import guard_of
from tests.builders.marketplaces import Marketplace, marketplace
from tests.builders.portal import Browser, signed_in
from tests.builders.service import serve
from tests.receivers import Receiver, answer, status

HOME = "/operator/compliance/list-sources"
PHONES = b"".join(b"+1312555%04d\n" % number for number in range(10))


class OperatorDesk:
    """An operator at the page of sources."""

    def __init__(self, market: Marketplace, browser: Browser) -> None:
        self.market, self.browser = market, browser

    async def refresh(self) -> None:
        """Refresh the source that is due, as the service does."""
        guard = guard_of(self.market.settings)
        assert await sources.refresh_due(self.market.api, self.market.sealer, guard) is not None

    async def text(self) -> str:
        return (await self.browser.get(HOME)).text

    async def act(self, act: str, status: int = 303, **form: str) -> None:
        path = (await self.text()).partition(f'action="{HOME}/')[2].partition("/")[0]
        assert (await self.browser.post(f"{HOME}/{path}/{act}", form)).status_code == status

    async def measure(self) -> dict[str, float]:
        metrics._Figures.stale_at = 0.0
        lines = (await metrics.page(self.market.api)).decode().splitlines()
        values = (line.removeprefix("list_sources{result=").split("} ") for line in lines if "list_sources{" in line)
        return {name.strip('"'): float(value) for name, value in values}


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[OperatorDesk]:
    reachable = msgspec.structs.replace(settings, outbound_http=True, outbound_networks=("127.0.0.0/8",))
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(reachable))
        api = await stack.enter_async_context(serve(reachable))
        yield OperatorDesk(market, await signed_in(api, CallerKind.operator))


def form(url: str, **fields: str) -> dict[str, str]:
    usual = {"format": "csv", "schedule": "daily", "country": "US", "maximum_age_days": "31"}
    return {"name": "National", "url": url} | usual | fields


async def test_a_source_is_set_refreshed_and_shown_with_its_result(desk: OperatorDesk) -> None:
    assert "No list is fetched from the web yet." in await desk.text()
    async with Receiver(answer(200, PHONES), status(503), answer(200, PHONES[:26]), answer(200, PHONES[:26])) as server:
        key = {"header_name": "X-Api-Key", "header_value": "k-secret"}
        assert (await desk.browser.post(HOME, form(server.url, **key))).status_code == 303
        assert "Not yet refreshed" in await desk.text()
        await desk.refresh()
        text = await desk.text()
        assert "In order" in text
        assert "k-secret" not in text
        assert await desk.measure() == {"in_order": 1.0, "failed": 0.0, "smaller": 0.0}
        await desk.act("refresh")
        await desk.refresh()
        assert "The server had an error of its own. Failed once. The list is as it was." in await desk.text()
        assert (await desk.measure())["failed"] == 1.0
        await desk.act("refresh")
        await desk.refresh()
        assert "The file has 2 rows and the list 10 members." in await desk.text()
        assert (await desk.measure())["smaller"] == 1.0
        await desk.act("confirm", 409, rows="3")
        await desk.act("confirm", rows="2")
        assert "Confirmed" in await desk.text()
        await desk.refresh()
    assert await desk.market.value("select members from contact_list") == 2
    rows = (await desk.browser.get(f"{HOME}?format=csv")).text.splitlines()
    assert rows[0] == "name,url,schedule,checked_at,due_at,format,failures,failure,failed_at,smaller_rows"
    assert rows[1].startswith(f"National,{server.url},daily,")
    await desk.act("remove")
    assert "No list is fetched from the web yet." in await desk.text()
    assert await desk.market.value("select members from contact_list") == 2


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"url": "http://10.0.0.1/list.csv"}, "Use an address on the public internet."),
        ({"url": "https://example.com/", "header_name": "Host", "header_value": "x"}, "Send a header such as"),
        ({"url": "https://example.com/", "header_value": "x"}, "Send a header such as"),
        ({"url": "https://example.com/", "header_name": "X-Key"}, "Send one line of at most 2,000 plain characters."),
    ],
)
async def test_a_source_that_cannot_be_used_makes_no_list(
    desk: OperatorDesk, fields: dict[str, str], sentence: str
) -> None:
    reply = await desk.browser.post(HOME, form(**fields))
    assert reply.status_code == 422
    assert sentence in reply.text
    assert not await desk.market.value("select count(*) from contact_list")
