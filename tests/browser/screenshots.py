"""Pictures of the main pages for the documentation: `python -m tests.browser.screenshots`, or `make screenshots`."""

import sys
from pathlib import Path
from typing import Final, Literal, NamedTuple

from playwright.sync_api import ViewportSize, sync_playwright

from marketplace.security.auth import CallerKind
from tests.browser.eyes import PHONE, Eyes, come_in, open_browser, tab
from tests.browser.installation import Marketplace, marketplace

FOLDER: Final = Path(__file__).parents[2] / "docs" / "screenshots"
DESK: Final = ViewportSize(width=1120, height=720)
MOST_BYTES: Final = 150_000


class Shot(NamedTuple):
    """A page by its path, or by a link of that page to the first of many; where a path leads nowhere, no picture."""

    name: str
    kind: CallerKind
    path: str
    scheme: Literal["light", "dark"] = "light"
    phone: bool = False
    first: str = ""


SHOTS: Final = (
    Shot("business-overview", CallerKind.business, "/business"),
    Shot("business-lead", CallerKind.business, "/business/leads", first="/business/leads/lead_"),
    Shot("business-lead-phone", CallerKind.business, "/business/leads", phone=True, first="/business/leads/lead_"),
    Shot("business-roi", CallerKind.business, "/business/reports/roi"),
    Shot("provider-overview-dark", CallerKind.provider, "/provider", scheme="dark"),
    Shot("provider-console", CallerKind.provider, "/provider/console"),
    Shot("operator-control-room", CallerKind.operator, "/operator"),
    Shot(
        "operator-routing-dark",
        CallerKind.operator,
        "/operator/routing",
        scheme="dark",
        first="/operator/routing/lead_",
    ),
)


def take(market: Marketplace, eyes: Eyes, shot: Shot) -> str | None:
    """Writes one picture; what is wrong with it, if anything."""
    page = eyes.page
    page.set_viewport_size(PHONE if shot.phone else DESK)
    page.emulate_media(color_scheme=shot.scheme)
    page.goto(f"{market.url}{shot.path}")
    if shot.first:
        page.goto(market.url + str(page.locator(f'main a[href^="{shot.first}"]').first.get_attribute("href")))
    page.wait_for_timeout(300)  # the stream has filled what is live
    file = FOLDER / f"{shot.name}.png"
    page.screenshot(path=file, animations="disabled", caret="hide")
    size = file.stat().st_size
    return f"{file.name} has {size:,} bytes, more than {MOST_BYTES:,}" if size > MOST_BYTES else None


def main() -> int:
    """All pictures anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    with marketplace() as market, sync_playwright() as playwright:
        browser = open_browser(playwright)
        for kind in CallerKind:
            with tab(browser, market.url) as eyes:
                come_in(eyes, market, kind)
                wrong += [fault for shot in SHOTS if shot.kind is kind and (fault := take(market, eyes, shot))]
        browser.close()
    print("\n".join(wrong) or f"{len(SHOTS)} pictures in {FOLDER}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
