"""Every link of the portal leads to the page that its text names."""

import re
from contextlib import AsyncExitStack
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urljoin, urlsplit

import pytest

from marketplace.portal.navigation import NAVIGATION
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from tests.builders.feedback import desk
from tests.builders.portal import Browser, signed_in

MOST_PAGES: Final = 80
ID: Final = re.compile(r"[a-z]+_[0-9a-z]{26}|[0-9a-f]{64}|[0-9]+")
OUTWARD: Final = ("tel:", "mailto:", "sms:", "http:", "https:", "#")
PROMISED: Final = {
    "Add a subscription": "What do you do?",
    "First steps": "Your company",
    "Receiving leads": "How do you want to receive leads?",
    "Choose how you receive leads": "How do you want to receive leads?",
    "All leads that you have taken": "Leads",
    "Enter the address": "Delivery",
    "Company": "Your company",
    "Services": "What do you do?",
    "Area": "Where do you work?",
    "Hours and limits": "When, how many, at which price?",
    "All leads, with filters and CSV": "Leads",
    "See these leads": "Leads",
    "Report outcomes from a file": "Imports",
    "Wallet transactions for this lead": "Wallet",
    "Available": "Wallet",
    "Delivery attempts for this lead": "Delivery",
    "Does it pay?": "Do exclusive leads pay better than shared ones?",
    "How this is calculated": "Do exclusive leads pay better than shared ones?",
    "Sources": "Where do my leads come from?",
    "Send an inquiry": "Console",
    "Send it twice": "Console",
    "Send one with faults": "Console",
    "Pass three checks": "Console",
    "Make a live key": "Keys",
    "Make a test key": "Keys",
    "Read the spec": "Posting spec: Roofing",
    "Open the spec": "Posting spec: Roofing",
    "Show what comes in": "Overview",
    "Balance": "Wallets",
    "Needs attention": "Deliveries",
    "Now": "System",
    "on time": "System",
    "Erasure": "Compliance",
    "Certificates": "Compliance",
    "Notices": "Compliance",
    "Deletion requests": "Compliance",
    "From lead to prospect": "How many leads become prospects, and when?",
    "Show the leads that wait now": "Waiting leads",
    "Try a change": "What if?",
    "Suppression": "Compliance",
    "Reveal log": "Compliance",
    "Explain a decision": "Routing explorer",
    "Explain the routing": "Why this lead went where it went",
    "See the attempts": "Attempts",
    "CRM or automation": "Send leads to your CRM or automation",
    "HubSpot contact": "Send leads to your CRM or automation",
    "Pipedrive person": "Send leads to your CRM or automation",
    "Zoho CRM lead": "Send leads to your CRM or automation",
    "GoHighLevel contact": "Send leads to your CRM or automation",
    "Salesforce Web-to-Lead": "Send leads to your CRM or automation",
    "Zapier, Make or n8n": "Send leads to your CRM or automation",
    "ADF/XML": "Send leads to your CRM or automation",
    "What answers mean": "What your server's answers mean",
    "Our own format": "What your server's answers mean",
    "A word such as OK": "What your server's answers mean",
    "Say what your server's answers mean": "What your server's answers mean",
    "Routing": "How far do leads come, and who gets them?",
    "All changes": "Audit",
    "Revenue by provider": "What was earned, refunded and owed?",
    "Money": "What was earned, refunded and owed?",
    "Quality": "What are each provider's leads worth?",
    "Unsold": "Why are leads unsold, and what would have sold them?",
}
"""Links whose words are not those of the heading to which they lead, each with that heading."""
REPORTS: Final = {
    CallerKind.business: {
        "Delivery": "Where should leads go?", "Wallet": "Add money", "Speed": "How fast is it?",
        "Missed leads": "Which leads did I miss?",
        "Reports": "Do exclusive leads pay better than shared ones?",
    },
    CallerKind.provider: {},
    CallerKind.operator: {
        "Speed": "Where does a lead's time go?", "Reports": "How far do leads come, and who gets them?",
        "Example Business": "Ledger", "Topping up the wallet": "Leads",
    },
}  # fmt: skip
"""The same, for one kind of member; such a link may also lead to a heading of its own words."""


class _Page(HTMLParser):
    """Reads the first heading of a page, and the links of its content with their texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.heading = ""
        self.links: list[tuple[str, str]] = []
        self._href: str | None = None
        self._in_heading = False
        self._words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a" and "download" not in values:
            self._href, self._words = values.get("href"), []
        elif tag == "h1":
            self._in_heading = not self.heading

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._href:
            self.links.append((" ".join(" ".join(self._words).split()), self._href))
            self._href = None
        elif tag == "h1":
            self._in_heading = False

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.heading = f"{self.heading} {data.strip()}".strip()
        if self._href:
            self._words.append(data)


async def crawl(browser: Browser, kind: CallerKind) -> tuple[dict[str, str], set[tuple[str, str]]]:
    """Return the heading of one page of each shape, and every link text with the shape of its target."""
    waiting = [place.path for place in NAVIGATION[kind]]
    shapes = {ID.sub("*", path) for path in waiting}
    headings: dict[str, str] = {}
    links: set[tuple[str, str]] = set()
    while waiting:
        assert len(shapes) < MOST_PAGES
        path = waiting.pop(0)
        reply = await browser.get(path)
        assert reply.status_code == 200, path
        if not reply.headers["content-type"].startswith("text/html"):
            continue
        assert "&lt;a " not in reply.text, path
        page = _Page(reply.text)
        headings[ID.sub("*", urlsplit(path).path)] = page.heading
        for words, href in page.links:
            target = urljoin(path, href)
            shape = ID.sub("*", urlsplit(target).path)
            if href.startswith(OUTWARD) or shape in ("/", ID.sub("*", urlsplit(path).path)):
                continue
            links.add((words, shape))
            if shape not in shapes:
                shapes.add(shape)
                waiting.append(target)
    return headings, links


@pytest.mark.parametrize("kind", list(CallerKind))
async def test_every_link_leads_to_the_page_that_its_words_name(settings: Settings, kind: CallerKind) -> None:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        leads = [await made.sold(number) for number in (1, 2, 3)]
        await made.tell(leads[0], kind="contacted")
        await made.give_back(leads[1], reason="other", note="Nobody there.")
        owners = {CallerKind.business: made.buyer.business_id, CallerKind.provider: made.market.provider.owner}
        headings, links = await crawl(await signed_in(made.api, kind, owners.get(kind)), kind)
        assert len(links) > 20
        wrong = [
            (words, shape, headings.get(shape))
            for words, shape in sorted(links)
            if shape in headings and not _is_kept(words, headings[shape], kind)
        ]
        assert wrong == []


def _is_kept(link: str, heading: str, kind: CallerKind) -> bool:
    """Return whether the text of a link fits the heading it leads to; figures and ids may lead anywhere."""
    words = re.sub(r"^✓ | \(done\)$|^\d+ (?=[A-Z])", "", link)
    words = words.removeprefix("$9,850.00 ").partition(":")[0]
    if (words in PROMISED and PROMISED[words] == heading) or REPORTS[kind].get(words) == heading:
        return True
    same = words.casefold() in heading.casefold() or heading.casefold() in words.casefold()
    return same or bool(re.search(r"\d|^\u2013$|^Back$", words))


async def test_a_business_whose_first_order_is_made_orders_more(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        browser = await signed_in(made.api, "business", made.buyer.business_id)
        page = _Page((await browser.get("/business/matching")).text)
        path = dict(page.links)["Add a subscription"]
        assert _Page((await browser.get(path)).text).heading == "What do you do?"
        assert (await browser.post(path, {"vertical": "roofing"})).headers["location"] == "/business/onboarding/area"
