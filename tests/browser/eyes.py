"""Observations of a browser beside the page: errors of the console, hosts of requests, and the weight of a page.

One page is loaded once and then looked at three times: in light, in dark, and on a telephone 390 pixels wide.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request, ViewportSize

from marketplace.security.auth import CallerKind
from tests.browser.installation import Marketplace

CHROMIUM: Final = "/usr/bin/chromium"
ARGUMENTS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WAIT_MS: Final = 10_000
"""Nothing is waited for longer."""
WIDE: Final = ViewportSize(width=1280, height=900)
PHONE: Final = ViewportSize(width=390, height=844)
LOOKS: Final[tuple[tuple[Literal["light", "dark"], ViewportSize], ...]] = (
    ("light", WIDE), ("dark", WIDE), ("light", PHONE),
)  # fmt: skip
AXE: Final = "axe.run({resultTypes: ['violations'], preload: false}).then(found => found.violations)"
VISIBLE: Final = """const visible = (box) => box.checkVisibility({visibilityProperty: true, opacityProperty: true});"""
"""Defines `visible(element)`: false for what a closed `details`, a style or an ancestor hides."""
SPILLS: Final = f"""(() => {{
  {VISIBLE}
  return [...document.querySelectorAll('main .tile, main .card, main .button, main .badge')]
    .filter((box) => visible(box) && box.scrollWidth > box.clientWidth + 1)
    .filter((box) => getComputedStyle(box).overflowX === 'visible')
    .map((box) => box.innerText.trim().slice(0, 60));
}})()"""
"""Visible boxes whose text is wider than they are."""
BEYOND: Final = f"""(() => {{
  {VISIBLE}
  const edge = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= edge) return null;
  const out = [...document.querySelectorAll('body *')]
    .filter((one) => visible(one) && one.getBoundingClientRect().right > edge + 1);
  return out.length ? out[out.length - 1].outerHTML.slice(0, 200) : 'something';
}})()"""
"""The innermost visible element that makes the page wider than the screen."""


def open_browser(playwright: Playwright) -> Browser:
    """Debian's own Chromium."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))


class Eyes:
    """One tab, and all that goes wrong in it, each as a sentence with the path where it did."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.faults: list[str] = []
        self._origin = origin
        self._weighed = 0
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.fault(f"script: {error}"))
        page.on("request", self._follow)
        wire = page.context.new_cdp_session(page)
        wire.send("Network.enable")
        wire.send("Network.setCacheDisabled", {"cacheDisabled": True})
        wire.on("Network.loadingFinished", self._weigh)

    def fault(self, words: str) -> None:
        """Note what is wrong here."""
        self.faults.append(f"{urlsplit(self.page.url).path}: {words}")

    def open(self, path: str) -> int:
        """Go there with an empty cache, and say how many bytes came over the wire."""
        self._weighed = 0
        answer = self.page.goto(f"{self._origin}{path}", wait_until="load")
        if answer is None or answer.status >= 400:
            self.fault(f"answered {answer.status if answer else 'nothing'}")
        return self._weighed

    def look(self) -> None:
        """Three times: in light, in dark, on a telephone."""
        self.page.evaluate(AXE_SCRIPT)
        for scheme, size in LOOKS:
            self.page.emulate_media(color_scheme=scheme)
            self.page.set_viewport_size(size)
            where = "390 px" if size is PHONE else scheme
            for violation in self.page.evaluate(AXE):
                self.fault(f"{where}: {_in_words(violation)}")
            if (beyond := self.page.evaluate(BEYOND)) is not None:
                self.fault(f"{where}: wider than the screen by {beyond}")
            for words in self.page.evaluate(SPILLS):
                self.fault(f"{where}: out of its box: {words!r}")
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size(WIDE)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.fault(f"console: {message.text}")

    def _follow(self, request: Request) -> None:
        if not request.url.startswith((f"{self._origin}/", "data:")):
            self.fault(f"asks {request.url}")

    def _weigh(self, event: dict[str, Any]) -> None:
        self._weighed += int(event["encodedDataLength"])


def come_in(eyes: Eyes, market: Marketplace, kind: CallerKind) -> None:
    """Sign in as the demo's user of this kind."""
    eyes.page.goto(market.link_in(market.visitor(kind)))
    eyes.page.get_by_role("button", name="Sign in").click()
    eyes.page.wait_for_url(re.compile(f"/{kind}$"))


def _in_words(violation: dict[str, Any]) -> str:
    nodes = violation["nodes"]
    html = re.sub(r"\s+", " ", nodes[0]["html"])[:160]
    summary = re.sub(r"\s+", " ", nodes[0].get("failureSummary", ""))[:200]
    return f"{violation['id']} at {len(nodes)}: {html} ({summary})"


@contextmanager
def tab(browser: Browser, origin: str, **options: Any) -> Iterator[Eyes]:
    """A tab of a visitor whom nobody has seen before."""
    context: BrowserContext = browser.new_context(viewport=WIDE, reduced_motion="reduce", **options)
    try:
        yield Eyes(context.new_page(), origin)
    finally:
        context.close()
