"""Every form that shows what is stored can be saved as it stands, and saved again."""

import re
from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, expect

from marketplace.demo.verticals import HOME
from marketplace.portal.navigation import NAVIGATION
from marketplace.security.auth import CallerKind
from tests.browser.eyes import come_in, tab
from tests.browser.installation import Marketplace
from tests.browser.test_pages import MOST_PAGES, links, shape

FORMS: Final = "main form[method=post]"
HOLDS_STORED_VALUES: Final = """form => {
  const shown = [...form.elements].filter((field) => field.name && !['hidden', 'submit'].includes(field.type));
  const filled = shown.some((field) => field.tagName === 'SELECT' ? field.querySelector('option[selected]')
    : ['checkbox', 'radio'].includes(field.type) ? field.checked : field.value && field.type !== 'password');
  if (form.elements['once'] || /\\/(return|what-if)$/.test(form.action)) return false;
  const reason = form.elements['reason'];
  if (reason && !reason.value) reason.value = 'Nothing is changed.';
  return Boolean(filled) && form.checkValidity();
}"""
"""Whether a form shows stored values and a browser would send it; a required reason is filled in.

What is recorded once, such as an outcome or a return, is no stored value, and a what-if stores nothing.
"""
FIELDS: Final = """form => [...new FormData(form)]
  .filter(([name]) => !['csrf', 'version', 'reason', 'body'].includes(name))
  .map(([name, value]) => `${name}=${value}`).join('\\n')"""
ORDER: Final = "/business/matching/"


@pytest.mark.parametrize("kind", list(CallerKind))
def test_every_form_is_saved_unchanged_twice_without_a_fault(
    market: Marketplace, browser: Browser, kind: CallerKind
) -> None:
    with tab(browser, market.url) as eyes:
        come_in(eyes, market, kind)
        if kind is CallerKind.business:
            choose_an_order(eyes.page, market)
            widen_an_order(eyes.page, market)
        saved = []
        for path in pages(eyes.page, market, kind):
            eyes.page.goto(f"{market.url}{path}")
            for number in range(eyes.page.locator(FORMS).count()):
                saved += save_twice(eyes.page, f"{market.url}{path}", number)
        assert len(saved) >= {CallerKind.business: 7, CallerKind.provider: 2, CallerKind.operator: 6}[kind]
        if kind is CallerKind.business:
            assert any(ORDER in action for action in saved), saved
            assert {"area", "hours"} <= {action.rpartition("/")[2] for action in saved}
        assert eyes.faults == []


def choose_an_order(page: Page, market: Marketplace) -> None:
    """The steps of a new order as far as its limits, with a circle in its area."""
    home = f"{market.url}/business/onboarding"
    page.goto(f"{home}/services")
    page.locator(f'input[value="{HOME}"]').check()
    page.get_by_role("button", name="Save and continue").click()
    page.get_by_label("Around these ZIP codes").fill("60614")
    page.get_by_label("Radius").fill("10")
    page.get_by_role("button", name="Save and continue").click()
    page.get_by_label(re.compile("Price per lead")).fill("40")
    page.get_by_role("button", name="Save and continue").click()
    expect(page.locator("h1")).to_have_text("Where should leads go?")


def widen_an_order(page: Page, market: Marketplace) -> None:
    """A circle, beginnings of codes and a limit in the first order of the business."""
    page.goto(f"{market.url}/business/matching")
    page.locator(f'main a[href^="{ORDER}"]').first.click()
    page.get_by_label("Around these ZIP codes").fill("60614")
    page.get_by_label("Radius").fill("12.5")
    page.get_by_label("And ZIP codes that begin with").fill("606 607")
    page.get_by_label("Leads a week").fill("500")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_label("And ZIP codes that begin with")).to_have_value("606 607")


def pages(page: Page, market: Marketplace, kind: CallerKind) -> Iterator[str]:
    """One page of each shape that the navigation and the content lead to."""
    waiting = [place.path for place in NAVIGATION[kind]]
    shapes = {shape(path) for path in waiting}
    for path in waiting:
        assert len(waiting) < MOST_PAGES
        yield path
        page.goto(f"{market.url}{path}")
        for link in links(page):
            if shape(link) not in shapes:
                shapes.add(shape(link))
                waiting.append(link)


def save_twice(page: Page, url: str, number: int) -> list[str]:
    """The action of a form that was sent as it stands, twice; nothing of one without stored values."""
    before = None
    for _ in range(2):
        page.goto(url)
        form = page.locator(FORMS).nth(number)
        assert form.count(), f"{url}: form {number} is gone after {before!r}"
        if not form.evaluate(HOLDS_STORED_VALUES):
            return []
        action, fields = form.get_attribute("action") or "", form.evaluate(FIELDS)
        assert before in (None, fields), f"{action}: what was saved unchanged is shown as something else"
        before = fields
        with page.expect_navigation() as sent:
            form.evaluate("form => form.requestSubmit(form.querySelector('button'))")
        assert sent.value is not None
        assert sent.value.status < 400, (
            f"{action} answers {sent.value.status}: {page.locator('main').inner_text()[:500]}"
        )
        assert page.locator(".problems").count() == 0, f"{action}: {page.locator('.problems').first.inner_text()}"
    return [action]
