"""Routing explorer: the recorded decision, and re-runs of it that change nothing."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape

import msgspec
import pytest

from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from routing.calendar import CapWindow
from routing.subscription import Area, BantMinimum, Cap, Circle
from tests.builders.feedback import Desk, desk
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import anywhere, roofing
from tests.builders.portal import Browser, signed_in
from tests.receivers import Receiver, ok
from tests.waiting import clear_of_the_hour

HOME = "/operator/routing"


class Explorer:
    """An operator in front of the explorer."""

    def __init__(self, desk: Desk, browser: Browser) -> None:
        self.desk, self.market, self.browser = desk, desk.market, browser

    async def page(self, path: str) -> str:
        """Return the text of a page without its tags."""
        reply = await self.browser.get(path)
        assert reply.status_code == 200, reply.text
        text = re.sub(r"<script.*?</script>|<[^>]+>", " ", reply.text, flags=re.DOTALL)
        return unescape(re.sub(r"\s+", " ", text))

    async def rows(self) -> list[int]:
        """Return the number of rows in each table that a decision writes to."""
        tables = ("decision", "assignment", "transfer", "cap_usage", "exposure", "audit", "attempt", "move")
        return [await self.market.value(f"select count(*) from {table}") for table in tables]


@pytest.fixture
async def explorer(settings: Settings) -> AsyncIterator[Explorer]:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        yield Explorer(made, await signed_in(made.api, "operator"))


async def test_a_sold_lead_is_explained_with_every_candidate_and_its_failures(explorer: Explorer) -> None:
    lead = await explorer.desk.sold(1)
    text = await explorer.page(f"{HOME}/{lead}")
    assert "The lead went to Example Business: the only eligible subscription, of 2 considered, by priority." in text
    assert "$50.00" in text
    assert "short of the price" in text
    assert "robin.1@example.com" not in text
    assert not [number for number in ("5550101", "555 0101", "555-0101") if number in text]


async def test_a_lead_is_found_by_its_id_and_by_its_providers_reference(explorer: Explorer) -> None:
    lead = await explorer.desk.sold(1)
    for search in (lead, "ref-1"):
        reply = await explorer.browser.get(f"{HOME}?lead={search}")
        assert (reply.status_code, reply.headers["location"]) == (303, f"{HOME}/{lead}")
    assert "There is no lead with this id or reference" in await explorer.page(f"{HOME}?lead=nobody")
    assert "Example Business" in await explorer.page(HOME)


async def test_a_decision_run_again_from_the_record_has_the_same_result_after_later_changes(
    explorer: Explorer,
) -> None:
    capped = anywhere(caps=(Cap(window=CapWindow.day, count=2),), priority=1)
    far = anywhere(area=Area(circles=(Circle(latitude=40.0, longitude=-88.0, km=50),)))
    async with Receiver(ok) as receiver:
        await clear_of_the_hour()
        await explorer.market.buyer(receiver.url, capped)
        await explorer.market.buyer(receiver.url + "x", far)
        leads = [await explorer.desk.sold(number) for number in (1, 2, 3, 4)]
    await explorer.market.owner.execute("update business set state = 'frozen'")
    before = await explorer.rows()
    for lead in leads:
        text = await explorer.page(f"{HOME}/{lead}?rules=recorded")
        assert "The result is the same for all 4 candidates." in text
    assert "cap 2 of 2 a day" in await explorer.page(f"{HOME}/{leads[3]}")
    assert "No business would get the lead: unsold, business frozen." in await explorer.page(
        f"{HOME}/{leads[0]}?rules=today"
    )
    assert await explorer.rows() == before


async def test_a_lead_whose_consent_names_its_seller_is_decided_again_as_recorded(explorer: Explorer) -> None:
    consent = roofing_body(now=clock.now())["consent"] | {"sellers": ["Third Roofs"]}
    async with Receiver(ok) as receiver:
        named = await explorer.market.buyer(receiver.url)
        names = "update business set seller_names = $2 where id = $1"
        await explorer.market.owner.execute(names, named.business_id, ["Third Roofs Inc."])
        lead = await explorer.desk.sold(1, consent=consent)
    await explorer.market.owner.execute(names, named.business_id, [])
    assert "the consent names other sellers" in await explorer.page(f"{HOME}/{lead}")
    assert "The result is the same for all 3 candidates." in await explorer.page(f"{HOME}/{lead}?rules=recorded")
    assert "unsold, consent seller" in await explorer.page(f"{HOME}/{lead}?rules=today")


async def test_a_re_run_with_a_changed_input_shows_the_other_result(explorer: Explorer) -> None:
    picky = anywhere(bant=BantMinimum(minimum_budget_minor=5_000_000), priority=1)
    async with Receiver(ok) as receiver:
        await explorer.market.buyer(receiver.url, picky)
        lead = await explorer.desk.sold(1)
    richer = await explorer.page(f"{HOME}/{lead}?rules=recorded&change=budget&to=60,000")
    assert "The lead would go to Example Business." in richer
    assert re.search(r"budget [\d,. A-Z]+ below gets the lead", richer)
    poorer = await explorer.page(f"{HOME}/{lead}?rules=recorded&change=budget&to=100")
    assert "No business would get the lead: rejected" in poorer
    metal = await explorer.page(f"{HOME}/{lead}?rules=recorded&change=need.roof_type&to=metal")
    assert "No business would get the lead: rejected" in metal


@pytest.mark.parametrize(
    "change",
    [
        "budget&to=lots",
        "authority&to=king",
        "postal_code&to=99999999",
        "need.roof_type&to=straw",
        "need.nothing&to=1",
        "shoe&to=1",
        "wider_km&to=-1",
    ],
)
async def test_an_invalid_change_of_an_input_is_reported(explorer: Explorer, change: str) -> None:
    lead = await explorer.desk.sold(1)
    text = await explorer.page(f"{HOME}/{lead}?rules=recorded&change={change}")
    assert "Re-run" not in text
    assert re.search(r"Give |There is no such input|asks no such question", text)


async def test_an_unsold_lead_names_its_nearest_miss_and_a_wider_area_would_have_sold_it(settings: Settings) -> None:
    near = anywhere(area=Area(circles=(Circle(latitude=41.9229, longitude=-87.4, km=15),)))
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings, order=near)
        await made.market.owner.execute(
            "update subscription set state = 'paused' where business_id <> $1", made.buyer.business_id
        )
        explorer = Explorer(made, await signed_in(made.api, "operator"))
        lead = await made.sold(1)
        text = await explorer.page(f"{HOME}/{lead}")
        assert re.search(r"None of 2 subscriptions was eligible\. Nearest: Example Business, 5\.\d km outside\.", text)
        assert "The lead would go to Example Business." in await explorer.page(
            f"{HOME}/{lead}?rules=recorded&change=wider_km&to=10"
        )


async def test_a_lead_that_waits_for_a_cap_waits_again_in_the_re_run(settings: Settings) -> None:
    subscription = anywhere(caps=(Cap(window=CapWindow.hour, count=1),))
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings, order=subscription, vertical=roofing(patience_seconds=3_600))
        explorer = Explorer(made, await signed_in(made.api, "operator"))
        await clear_of_the_hour()
        await made.sold(1)
        lead = ids.encode("lead", await made.market.sold(2))
        assert await made.market.value("select outcome from decision order by made_at desc limit 1") == "waiting"
        text = await explorer.page(f"{HOME}/{lead}?rules=recorded")
        assert "cap 1 of 1 an hour" in text
        assert "The result is the same for all 2 candidates." in text


async def test_another_version_of_the_rules_decides_a_past_lead_by_its_own_policy(explorer: Explorer) -> None:
    lead = await explorer.desk.sold(1)
    stricter = msgspec.to_builtins(roofing(minimum_score=100, strategy="highest_price"))
    stricter["timing"]["within_days"] = 7
    reply = await explorer.desk.call(
        "PUT", "/v1/verticals/roofing", {"version": 1, "definition": stricter}, by="operator"
    )
    assert reply.status_code == 200, reply.text
    text = await explorer.page(f"{HOME}/{lead}?rules=2")
    assert "By version 2 of the rules" in text
    assert "No business would get the lead: " in text
    assert "There is no such version" in await explorer.page(f"{HOME}/{lead}?rules=9")


async def test_a_file_has_one_line_for_each_candidate(explorer: Explorer) -> None:
    lead = await explorer.desk.sold(1)
    reply = await explorer.browser.get(f"{HOME}/{lead}?format=csv")
    assert reply.headers["content-type"].startswith("text/csv")
    assert len(reply.text.splitlines()) == 3
