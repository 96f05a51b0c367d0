"""The first start of an installation: a link in the terminal, and the page behind it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pyotp

from marketplace.runtime.settings import Settings
from tests.builders.service import free_port, new_client, process, until_ready

PASSWORD = "four plain words here"


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[tuple[str, str]]:
    """Start `marketplace serve` as a process, and return its address and its output once it answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = settings.data_dir / f"serve-{port}.log"
    async with process(settings, "serve", log, MARKETPLACE_PORT=str(port)) as serving:
        async with new_client(url) as client:
            await until_ready(client, serving)
        yield url, serving.log
        assert await serving.stop() == 0


async def send(browser: httpx.AsyncClient, page: httpx.Response, **fields: str) -> httpx.Response:
    """Send the form of a page with these fields."""
    [action] = re.findall(r'<form method="post" action="([^"]+)" class="stack"', page.text)
    [csrf] = re.findall(r'class="stack"[^>]*><input type="hidden"\s+name="csrf" value="([^"]*)">', page.text)
    origin = str(browser.base_url).rstrip("/")
    return await browser.post(action, data={"csrf": csrf, **fields}, headers={"Origin": origin})


async def test_the_first_start_gives_a_link_that_makes_one_operator_with_a_second_factor_and_then_dies(
    settings: Settings,
) -> None:
    async with served(settings) as (url, output), new_client(url) as browser, new_client(url) as other:
        browser.follow_redirects = other.follow_redirects = True
        [link] = re.findall(rf"^First operator, once, within a quarter of an hour: {url}(/link/\S+)$", output, re.M)
        assert 'href="/setup"' in (await browser.get("/")).text
        assert "printed a link" in (await browser.get("/setup")).text
        page = await browser.get(link)
        assert "Become the first operator" in page.text
        page = await send(browser, page, email="ada@example.com", name="Ada Example", password="short")
        assert (page.status_code, "At least 12 characters" in page.text) == (422, True)
        assert 'value="ada@example.com"' in page.text
        page = await send(browser, page, email="ada@example.com", name="Ada Example", password=PASSWORD)
        assert page.url.path == "/sign-in/factor"
        assert (await browser.get("/operator")).url.path.startswith("/sign-in")
        [secret] = re.findall(r'class="secret">([A-Z2-7]+)<', page.text)
        page = await send(browser, page, code=pyotp.TOTP(secret).now())
        assert (page.url.path, page.status_code) == ("/operator", 200)
        assert (await other.get(link)).status_code == 410
        assert (await other.get("/setup")).url.path == "/sign-in"
        assert "/setup" not in (await other.get("/sign-in")).text
    async with served(settings) as (_, output):
        assert "/link/" not in output
