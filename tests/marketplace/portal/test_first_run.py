"""The first start of an installation: a link in the terminal, and the page behind it."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pyotp

from marketplace.runtime.settings import Settings
from tests.conftest import SECRETS
from tests.waiting import PATIENCE

PASSWORD = "four plain words here"


@contextlib.contextmanager
def served(settings: Settings) -> Iterator[tuple[str, str]]:
    """Start `marketplace serve` as a process, and return its address and its output once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | SECRETS | {
        "DATABASE_URL": str(settings.database_url), "VALKEY_URL": str(settings.valkey_url),
        "MARKETPLACE_DATA": str(settings.data_dir), "MARKETPLACE_PORT": str(port),
        "MARKETPLACE_OPS_ADDRESS": "127.0.0.1:0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    command = [sys.executable, "-m", "marketplace.cli", "serve"]
    log = settings.data_dir / f"serve-{port}.log"
    with log.open("w") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/sign-in", process)
            yield f"http://127.0.0.1:{port}", log.read_text()
        finally:
            process.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the service does not answer")


def send(browser: httpx.Client, page: httpx.Response, **fields: str) -> httpx.Response:
    """Send the form of a page with these fields."""
    [action] = re.findall(r'<form method="post" action="([^"]+)" class="stack"', page.text)
    [csrf] = re.findall(r'class="stack"[^>]*><input type="hidden"\s+name="csrf" value="([^"]*)">', page.text)
    origin = str(browser.base_url).rstrip("/")
    return browser.post(action, data={"csrf": csrf, **fields}, headers={"Origin": origin})


def test_the_first_start_gives_a_link_that_makes_one_operator_with_a_second_factor_and_then_dies(
    settings: Settings,
) -> None:
    with (
        served(settings) as (url, output),
        httpx.Client(base_url=url, trust_env=False, follow_redirects=True) as browser,
    ):
        [link] = re.findall(rf"^First operator, once, within a quarter of an hour: {url}(/link/\S+)$", output, re.M)
        assert 'href="/setup"' in browser.get("/").text
        assert "printed a link" in browser.get("/setup").text
        page = browser.get(link)
        assert "Become the first operator" in page.text
        page = send(browser, page, email="ada@example.com", name="Ada Example", password="short")
        assert (page.status_code, "At least 12 characters" in page.text) == (422, True)
        assert 'value="ada@example.com"' in page.text
        page = send(browser, page, email="ada@example.com", name="Ada Example", password=PASSWORD)
        assert page.url.path == "/sign-in/factor"
        assert browser.get("/operator").url.path.startswith("/sign-in")
        [secret] = re.findall(r'class="secret">([A-Z2-7]+)<', page.text)
        page = send(browser, page, code=pyotp.TOTP(secret).now())
        assert (page.url.path, page.status_code) == ("/operator", 200)
        other = httpx.Client(base_url=url, trust_env=False, follow_redirects=True)
        assert other.get(link).status_code == 410
        assert other.get("/setup").url.path == "/sign-in"
        assert "/setup" not in other.get("/sign-in").text
    with served(settings) as (_, output):
        assert "/link/" not in output
