"""The routing explorer: the record of one decision, and the same decision taken again without any effect."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape

import msgspec
import pytest

from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from routing.calendar import CapWindow
from routing.subscription import Area, BantMinimum, Cap, Circle
from tests.builders.feedback import Desk, desk
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
        """The words of a page, without its tags."""
        reply = await self.browser.get(path)
        assert reply.status_code == 200, reply.text
        text = re.sub(r"<script.*?</script>|<[^>]+>", " ", reply.text, flags=re.DOTALL)
        return unescape(re.sub(r"\s+", " ", text))

    async def rows(self) -> list[int]:
        """How much there is of everything that a decision writes."""
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
    assert "It went to Example Business: the only one that could have had it, of 2 weighed, by priority." in text
    assert "$50.00" in text
    assert "short of the price" in text
    assert "robin.1@example.com" not in text
    assert not [number for number in ("5550101", "555 0101", "555-0101") if number in text]


async def test_a_lead_is_found_by_its_id_and_by_its_providers_reference(explorer: Explorer) -> None:
    lead = await explorer.desk.sold(1)
    for wanted in (lead, "ref-1"):
        reply = await explorer.browser.get(f"{HOME}?lead={wanted}")
        assert (reply.status_code, reply.headers["location"]) == (303, f"{HOME}/{lead}")
    assert "There is no lead with this id or reference" in await explorer.page(f"{HOME}?lead=nobody")
    assert "Example Business" in await explorer.page(HOME)


async def test_a_decision_replayed_from_the_record_comes_out_the_same_after_the_world_has_moved_on(
    explorer: Explorer,
) -> None:
    capped = anywhere(caps=(Cap(window=CapWindow.day, count=2),), priority=1)
    far = anywhere(area=Area(circles=(Circle(latitude=40.0, longitude=-88.0, km=50),)))
    async with Receiver(ok) as door:
        await clear_of_the_hour()
        await explorer.market.buyer(door.url, capped)
        await explorer.market.buyer(door.url + "x", far)
        leads = [await explorer.desk.sold(number) for number in (1, 2, 3, 4)]
    await explorer.market.owner.execute("update business set state = 'frozen'")
    before = await explorer.rows()
    for lead in leads:
        text = await explorer.page(f"{HOME}/{lead}?rules=recorded")
        assert "The same outcome for every candidate, for the same 4." in text
    assert "cap 2 of 2 a day" in await explorer.page(f"{HOME}/{leads[3]}")
    assert "Nobody would have it: unsold, business frozen." in await explorer.page(f"{HOME}/{leads[0]}?rules=today")
    assert await explorer.rows() == before


async def test_one_changed_input_tells_what_would_have_become_of_the_lead(explorer: Explorer) -> None:
    picky = anywhere(bant=BantMinimum(minimum_budget_minor=5_000_000), priority=1)
    async with Receiver(ok) as door:
        await explorer.market.buyer(door.url, picky)
        lead = await explorer.desk.sold(1)
    richer = await explorer.page(f"{HOME}/{lead}?rules=recorded&change=budget&to=60,000")
    assert "It would go to Example Business." in richer
    assert re.search(r"budget [\d,. A-Z]+ below gets it", richer)
    poorer = await explorer.page(f"{HOME}/{lead}?rules=recorded&change=budget&to=100")
    assert "Nobody would have it: rejected" in poorer
    metal = await explorer.page(f"{HOME}/{lead}?rules=recorded&change=need.roof_type&to=metal")
    assert "Nobody would have it: rejected" in metal


@pytest.mark.parametrize(
    "asked",
    [
        "budget&to=lots", "authority&to=king", "postal_code&to=99999999", "need.roof_type&to=straw",
        "need.nothing&to=1", "shoe&to=1", "wider_km&to=-1",
    ],
)  # fmt: skip
async def test_an_input_that_cannot_be_changed_like_that_is_told(explorer: Explorer, asked: str) -> None:
    lead = await explorer.desk.sold(1)
    text = await explorer.page(f"{HOME}/{lead}?rules=recorded&change={asked}")
    assert "Taken again" not in text
    assert re.search(r"Give |There is no such input|asks no such question", text)


async def test_an_unsold_lead_names_its_nearest_miss_and_a_wider_area_would_have_sold_it(settings: Settings) -> None:
    near = anywhere(area=Area(circles=(Circle(latitude=41.9229, longitude=-87.4, km=15),)))
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings, order=near)
        await made.market.owner.execute(
            "update subscription set state = 'paused' where business_id <> $1", made.buyer.business_id
        )
        found = Explorer(made, await signed_in(made.api, "operator"))
        lead = await made.sold(1)
        text = await found.page(f"{HOME}/{lead}")
        assert re.search(r"None of 2 could have it\. Nearest: Example Business, 5\.\d km outside\.", text)
        assert "It would go to Example Business." in await found.page(
            f"{HOME}/{lead}?rules=recorded&change=wider_km&to=10"
        )


async def test_a_lead_that_waits_for_room_under_a_cap_is_said_to_wait_again(settings: Settings) -> None:
    order = anywhere(caps=(Cap(window=CapWindow.hour, count=1),))
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings, order=order, vertical=roofing(patience_seconds=3_600))
        explorer = Explorer(made, await signed_in(made.api, "operator"))
        await clear_of_the_hour()
        await made.sold(1)
        lead = ids.encode("lead", await made.market.sold(2))
        assert await made.market.value("select outcome from decision order by made_at desc limit 1") == "waiting"
        text = await explorer.page(f"{HOME}/{lead}?rules=recorded")
        assert "cap 1 of 1 an hour" in text
        assert "The same outcome for every candidate, for the same 2." in text


async def test_another_version_of_the_rules_decides_a_past_lead_by_its_own_policy(explorer: Explorer) -> None:
    lead = await explorer.desk.sold(1)
    stricter = msgspec.to_builtins(roofing(minimum_score=100, strategy="highest_price"))
    stricter["timing"]["within_days"] = 7
    reply = await explorer.desk.call(
        "PUT", "/v1/verticals/roofing", {"version": 1, "definition": stricter}, by="operator"
    )
    assert reply.status_code == 200, reply.text
    text = await explorer.page(f"{HOME}/{lead}?rules=2")
    assert "By the rules of version 2" in text
    assert "Nobody would have it: " in text
    assert "There is no such version" in await explorer.page(f"{HOME}/{lead}?rules=9")


async def test_a_file_has_one_line_for_each_candidate(explorer: Explorer) -> None:
    lead = await explorer.desk.sold(1)
    reply = await explorer.browser.get(f"{HOME}/{lead}?format=csv")
    assert reply.headers["content-type"].startswith("text/csv")
    assert len(reply.text.splitlines()) == 3
