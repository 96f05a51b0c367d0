"""Every page that the navigation leads to, and one of each kind behind it: a page that is added covers itself."""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from marketplace.portal.navigation import NAVIGATION
from marketplace.security.auth import CallerKind
from tests.browser.eyes import PHONE, come_in, tab
from tests.browser.installation import Marketplace

FIRST_PAGE_BYTES: Final = 60_000
"""With everything that it loads, as it comes over the wire to an empty cache."""
PAGE_BYTES: Final = 100_000
MOST_PAGES: Final = 60
ID: Final = re.compile(r"[a-z]+_[0-9a-z]{26}|[0-9]+")
HREFS: Final = "found => found.map(one => new URL(one.getAttribute('href'), location).href)"
FILES: Final = re.compile(r"\.(csv|json|svg|png|txt|md)$|/csv$")


@pytest.mark.parametrize("kind", list(CallerKind))
def test_every_page_is_accessible_quiet_and_light(market: Marketplace, browser: Browser, kind: CallerKind) -> None:
    with tab(browser, market.url) as eyes:
        come_in(eyes, market, kind)
        waiting = [place.path for place in NAVIGATION[kind]]
        shapes = {shape(path) for path in waiting}
        for number in range(MOST_PAGES):
            if number == len(waiting):
                break
            weight = eyes.open(waiting[number])
            limit = FIRST_PAGE_BYTES if number == 0 else PAGE_BYTES
            if weight > limit:
                eyes.fault(f"weighs {weight:,} bytes, more than {limit:,}")
            eyes.look()
            for path in links(eyes.page):
                if shape(path) not in shapes:
                    shapes.add(shape(path))
                    waiting.append(path)
        assert len(NAVIGATION[kind]) < len(waiting) < MOST_PAGES
        assert eyes.faults == []


def test_the_first_screen_of_a_lead_on_a_phone_has_person_job_call_contact_and_outcome(
    market: Marketplace, browser: Browser
) -> None:
    with tab(browser, market.url) as eyes:
        page = eyes.page
        come_in(eyes, market, CallerKind.business)
        page.set_viewport_size(PHONE)
        page.goto(f"{market.url}/business/leads")
        page.goto(market.url + str(page.locator('main a[href^="/business/leads/lead_"]').first.get_attribute("href")))
        content = page.locator("main")
        parts = {
            "name": content.locator("h1"),
            "call": content.get_by_role("link", name=re.compile("^Call ")),
            "phone": content.locator("dl a[href^='tel:']"),
            "e-mail": content.locator("dl a[href^='mailto:']"),
            "job": content.locator("dl dt", has_text="Job"),
            "answered": content.get_by_role("button", name="Contacted", exact=True),
            "no answer": content.get_by_role("button", name="No answer", exact=True),
            "won": content.locator("summary").get_by_text("Won", exact=True),
        }
        boxes = {name: part.first.bounding_box() for name, part in parts.items()}
        assert [name for name, box in boxes.items() if box is None or box["y"] + box["height"] > PHONE["height"]] == []
        assert eyes.faults == []


def links(page: Page) -> Iterator[str]:
    """Return the links of the content inside the portal, without files."""
    for href in page.eval_on_selector_all("main a[href]:not([download])", HREFS):
        parts = urlsplit(href)
        inside = parts.netloc == urlsplit(page.url).netloc
        if (
            inside
            and parts.path.startswith(("/business", "/provider", "/operator", "/account"))
            and not FILES.search(parts.path)
        ):
            yield parts.path + (f"?{parts.query}" if parts.query else "")


def shape(path: str) -> str:
    """A path without its ids and its question: two of one shape are the same page with other rows."""
    return ID.sub("*", urlsplit(path).path)
