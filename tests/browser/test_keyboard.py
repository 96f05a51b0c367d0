"""Use without a mouse: everything by Tab, Enter and typing, with a visible focus."""

import re
from typing import Final

from playwright.sync_api import Browser, Page

from marketplace.security.auth import CallerKind
from tests.browser.eyes import tab
from tests.browser.installation import Marketplace

MOST_TABS: Final = 90
FOCUSED: Final = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== 'none';
  if (one === document.body) return null;
  return {text: (one.getAttribute('aria-label') || one.innerText || '').trim(), name: one.name || '', seen};
}"""


def tab_to(page: Page, words: str) -> None:
    """Tab until the element with these words, or a field of this name, has the focus, which shows wherever it is."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if (focus := page.evaluate(FOCUSED)) is None:
            continue
        assert focus["seen"], f"the focus on {focus['text'] or focus['name']!r} does not show"
        if words in (focus["text"], focus["name"]):
            return
    raise AssertionError(f"{words!r} cannot be reached by Tab on {page.url}")


def test_a_business_comes_in_reads_a_lead_and_records_an_outcome_by_keyboard_alone(
    market: Marketplace, browser: Browser
) -> None:
    with tab(browser, market.url) as eyes:
        page = eyes.page
        page.goto(market.link_in(market.visitor(CallerKind.business)))
        tab_to(page, "Sign in")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/business$"))
        tab_to(page, "Skip to the content")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        page.reload()
        tab_to(page, "Leads")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/business/leads$"))
        first = page.locator('main a[href^="/business/leads/lead_"]').first.inner_text()
        tab_to(page, first)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/lead_"))
        tab_to(page, "Won")
        page.keyboard.press("Enter")
        tab_to(page, "value")
        page.keyboard.type("1,200")
        tab_to(page, "Record as won")
        page.keyboard.press("Enter")
        page.get_by_text(re.compile("Now: (Won|Signed)")).wait_for()
        assert eyes.faults == []


def test_an_operator_judges_a_return_by_keyboard_alone(market: Marketplace, browser: Browser) -> None:
    with tab(browser, market.url) as eyes:
        page = eyes.page
        page.goto(market.link_in(market.visitor(CallerKind.operator)))
        tab_to(page, "Sign in")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/operator$"))
        tab_to(page, "Returns desk")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/operator/returns$"))
        waiting = page.locator('main a[href^="/operator/returns/ret_"]')
        before = waiting.count()
        tab_to(page, waiting.first.inner_text())
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/ret_"))
        tab_to(page, "finding")
        page.keyboard.type("Nothing on record speaks for it.")
        tab_to(page, "Deny the return")
        page.keyboard.press("Enter")
        page.get_by_text("Return denied: no money was moved.").wait_for()
        assert waiting.count() == before - 1
        assert eyes.faults == []
