"""Live parts: an open page gets each part that has changed, and its stream ends with the session."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from marketplace.portal import http as portal_http
from marketplace.portal import live
from marketplace.portal.live import LivePart
from marketplace.portal.session import Viewer
from marketplace.runtime.live import Listener, Publisher
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest
from tests.builders.portal import Browser, signed_in
from tests.builders.service import NOWHERE, Served, new_client, serve
from tests.waiting import PATIENCE

SAID = {"text": "as it was"}


async def say(request: AnyRequest, viewer: Viewer) -> str:
    return f"<p>{SAID['text']}</p>\n<p>{viewer.owner_name}</p>"


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    SAID["text"] = "as it was"
    monkeypatch.setattr(portal_http, "PARTS", (LivePart(name="test.said", kinds=(CallerKind.business,), make=say),))


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


@asynccontextmanager
async def watching(api: Served, browser: Browser, parts: str = "test.said") -> AsyncIterator[Any]:
    """Yield the events of one tab, each with name, id and data."""
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    async with (
        new_client() as client,
        client.stream("GET", f"http://127.0.0.1:{api.port}/live?parts={parts}", headers={"cookie": cookies}) as reply,
    ):
        assert reply.status_code == 200, await reply.aread()
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in reply.headers
        yield events(reply)


async def events(reply: httpx.Response) -> AsyncIterator[tuple[str, str, str]]:
    block: list[str] = []
    async for line in reply.aiter_lines():
        if line:
            block.append(line)
            continue
        fields = [part.partition(": ")[::2] for part in block]
        block = []
        named = dict(fields)
        if "event" in named:
            yield named["event"], named["id"], "\n".join(value for name, value in fields if name == "data")


async def change(api: Served, topic: str, text: str) -> None:
    SAID["text"] = text
    publisher = Publisher(api.settings.valkey_url or "")
    await publisher.publish(topic)
    await publisher.close()


async def test_a_part_comes_when_the_tab_opens_and_again_when_its_topic_has_changed(api: Served) -> None:
    business, _ = await api.business()
    async with watching(api, await signed_in(api, "business", business)) as events:
        assert await anext(events) == ("test.said", "first", "<p>as it was</p>\n<p>Example Roofs</p>")
        await asyncio.sleep(0.2)  # for the listener to hear
        await change(api, business, "as it is")
        async with asyncio.timeout(live.PING_SECONDS / 2):  # long before it would come without a word
            name, _, text = await anext(events)
        assert (name, "as it is" in text) == ("test.said", True)


async def test_nobody_is_woken_by_what_changes_for_another(api: Served) -> None:
    business, _ = await api.business()
    stranger, _ = await api.business()
    async with watching(api, await signed_in(api, "business", business)) as events:
        await anext(events)
        await asyncio.sleep(0.2)
        await change(api, stranger, "as it is")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await anext(events)


async def test_a_stream_ends_at_the_next_look_after_its_session(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert live.LOOK_SECONDS < 5
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.5)
    business, _ = await api.business()
    browser = await signed_in(api, "business", business)
    async with watching(api, browser) as events:
        await anext(events)
        await Browser(api, browser.cookies).post("/sign-out")
        async with asyncio.timeout(PATIENCE):
            assert [event async for event in events] == []


async def test_without_valkey_a_part_still_comes_at_the_next_look(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.5)
    async with serve(msgspec.structs.replace(settings, valkey_url=NOWHERE)) as api:
        business, _ = await api.business()
        async with watching(api, await signed_in(api, "business", business)) as events:
            await anext(events)
            SAID["text"] = "as it is"
            async with asyncio.timeout(live.PING_SECONDS / 2):
                assert "as it is" in (await anext(events))[2]


async def test_streams_are_for_those_signed_in_of_the_parts_own_kind_and_so_many(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, _ = await api.provider()
    business, _ = await api.business()
    browser = await signed_in(api, "business", business)
    assert (await Browser(api).get("/live?parts=test.said")).status_code == 303
    assert (await (await signed_in(api, "provider", provider)).get("/live?parts=test.said")).status_code == 403
    for names in ("", "x", "test.said,x", ",".join(["test.said"] * 20)):
        assert (await browser.get(f"/live?parts={names}")).status_code == 404, names
    monkeypatch.setattr(live, "MOST_STREAMS", 1)
    async with watching(api, browser) as events:
        await anext(events)
        assert (await browser.get("/live?parts=test.said")).status_code == 429


async def test_a_word_that_is_no_topic_wakes_nobody_and_harms_nothing() -> None:
    listener = Listener(NOWHERE)
    async with listener.subscribe("operators") as woken:
        for text in ("", "operator", "operators\n", "x" * 1_000, "biz_" + "0" * 26, "*"):
            listener.wake(text)
            assert not woken.is_set()
        listener.wake("biz_x operators")
        assert woken.is_set()
    await listener.close()
