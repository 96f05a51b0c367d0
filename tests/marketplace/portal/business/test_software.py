"""The page on which a business sends its leads to its own software."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape
from typing import Any

import msgspec
import pytest

from marketplace.mapping.presets import load_presets
from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from tests.builders.feedback import Desk, desk
from tests.builders.forms import read_form
from tests.builders.portal import Browser, signed_in
from tests.receivers import answer

FORM = {
    "version": "1",
    "format": "json",
    "body": '{"phone": "{{ contact.phone }}"}',
    "login": "bearer",
    "secret": "tok",
}


class Software:
    """A business with one webhook, and the page of its request."""

    def __init__(self, shop: Desk, browser: Browser) -> None:
        self.shop, self.browser = shop, browser
        self.path = f"/business/delivery/{ids.encode('whe', shop.buyer.endpoint_id)}/request"

    async def page(self, query: str = "") -> str:
        reply = await self.browser.get(self.path + query)
        assert reply.status_code == 200, reply.text
        return unescape(reply.text)

    async def stored(self) -> dict[str, Any]:
        sql = "select mapping, credentials, contract from endpoint where id = $1"
        return await self.shop.market.row(sql, self.shop.buyer.endpoint_id)


@pytest.fixture
async def software(settings: Settings) -> AsyncIterator[Software]:
    async with AsyncExitStack() as stack:
        shop = await desk(stack, settings)
        yield Software(shop, await signed_in(shop.api, "business", shop.buyer.business_id))


async def test_a_request_is_previewed_saved_tried_and_taken_back(software: Software) -> None:
    shown = await software.browser.post(software.path, FORM | {"act": "preview"})
    assert '{"phone": "+13125550142"}' in unescape(shown.text)
    assert (await software.stored())["mapping"] is None
    saved = await software.browser.post(software.path, FORM)
    assert saved.status_code == 303, saved.text
    assert (await software.stored())["credentials"] is not None
    assert "tok" not in (await software.page()).partition("</form>")[0].partition('name="secret"')[2][:40]
    software.shop.behave(answer(200))
    tried = unescape((await software.browser.post(software.path.removesuffix("/request"), {"act": "test"})).text)
    assert "authorization: •••" in tried
    assert '"phone": "+13125550142"' in tried
    await software.shop.sold(1)
    assert await software.shop.market.value("select state from lead") == "delivered"
    assert (await software.browser.post(software.path, {"version": "2", "act": "remove"})).status_code == 303
    assert (await software.stored())["credentials"] is None


@pytest.mark.parametrize("name", load_presets())
async def test_a_preset_fills_the_form_and_its_rules_are_set_with_it(software: Software, name: str) -> None:
    preset = load_presets()[name]
    page = (await software.browser.get(f"{software.path}?preset={name}")).text
    assert preset.title in page
    form = read_form(page, software.path) | {"act": "save", "secret": "s", "user": "u"}
    form["token_url"] = "http://127.0.0.1:9/token"
    saved = await software.browser.post(software.path, form)
    assert saved.status_code == 303, unescape(saved.text)
    stored = await software.stored()
    assert msgspec.json.decode(stored["mapping"])["preset"] == name
    assert stored["contract"] is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"body": "{{ nothing }}"}, "There is no variable nothing."),
        ({"body": ""}, "a content of 1 to"),
        ({"headers": "Version"}, "a colon and a value"),
        ({"headers": "Host: example.com"}, "cannot be set"),
        ({"headers": "X: ü"}, "plain text"),
        ({"login": "oauth2"}, "Fill in all"),
        ({"login": "bearer", "secret": "a b"}, "without spaces"),
        ({"version": "7"}, "changed meanwhile"),
    ],
)
async def test_a_fault_is_shown_beside_its_field(software: Software, change: dict[str, str], words: str) -> None:
    reply = await software.browser.post(software.path, FORM | change)
    assert reply.status_code in (409, 422)
    assert words in unescape(reply.text)
    assert (await software.stored())["mapping"] is None
