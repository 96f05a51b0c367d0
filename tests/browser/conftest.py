"""One marketplace and one browser for all tests of this folder."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.eyes import open_browser
from tests.browser.installation import Marketplace, marketplace


@pytest.fixture(scope="session")
def market() -> Iterator[Marketplace]:
    with marketplace() as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = open_browser(playwright)
        yield chromium
        chromium.close()
