"""Pages on the way from lead to prospect and on the nurture lane: empty, with figures, and as files."""

import csv
import io
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape
from typing import Any

import msgspec
import pytest

from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from routing.qualification import ResultConsequence
from tests.builders.feedback import Desk, desk
from tests.builders.inquiries import roofing_body, roofing_policy
from tests.builders.marketplaces import roofing
from tests.builders.portal import Browser, signed_in

TIMING = msgspec.structs.replace(roofing_policy().timing, on_unknown=ResultConsequence.nurture)
HOME = "/operator/reports"


@pytest.fixture
async def office(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings, vertical=roofing(timing=TIMING))


@pytest.fixture
async def operator(office: Desk) -> Browser:
    return await signed_in(office.api, "operator")


def undated() -> dict[str, Any]:
    answers: dict[str, Any] = roofing_body()["bant"]
    return {name: answer for name, answer in answers.items() if name != "timing"}


async def table(operator: Browser, address: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((await operator.get(address)).text.removeprefix("\ufeff"))))


async def test_pages_without_leads_say_so(operator: Browser) -> None:
    assert "No lead that was received on these days has waited." in (await operator.get(f"{HOME}/nurturing")).text
    assert "No inquiry was received on these days." in (await operator.get(f"{HOME}/journey")).text
    assert "Leads that entered" not in (await operator.get("/operator/waiting")).text


async def test_the_lane_is_shown_by_group_and_above_the_waiting_leads(office: Desk, operator: Browser) -> None:
    await office.market.sold(1, bant=undated())
    await office.market.sold(2)
    for page in (f"{HOME}/nurturing", f"{HOME}/nurturing?by=week", "/operator/waiting"):
        text = (await operator.get(page)).text
        assert "Leads that entered" in text, page
        assert "1 still waiting" in text, page
    assert "By provider" in (await operator.get(f"{HOME}/nurturing?by=provider")).text
    assert "By vertical" in (await operator.get(f"{HOME}/nurturing?by=moon")).text
    assert "Leads that entered" not in (await operator.get("/operator/waiting?mode=test")).text
    total, roofing_line = await table(operator, f"{HOME}/nurturing?format=csv")
    assert (total["entered"], total["waiting"], total["sold"], total["revenue_minor"]) == ("1", "1", "0", "")
    assert (roofing_line["key"], roofing_line["entered"]) == ("roofing", "1")


@pytest.mark.parametrize("page", ["/operator/waiting", f"{HOME}/nurturing", f"{HOME}/nurturing?by=provider"])
async def test_a_figure_of_the_lane_leads_to_its_leads(office: Desk, operator: Browser, page: str) -> None:
    waiting, sold = await office.market.sold(1, bant=undated()), await office.market.sold(2)
    links = re.findall(r'href="(/operator/leads\?[^"]*lane=(\w+))"', (await operator.get(page)).text)
    assert {"entered", "reentered", "sold"} <= {figure for _, figure in links}
    for address, figure in links:
        text = (await operator.get(unescape(address))).text
        is_counted = figure in ("entered", "waiting")
        assert (ids.encode("lead", waiting) in text, ids.encode("lead", sold) in text) == (is_counted, False), address


async def test_the_journey_says_at_each_step_what_it_counts(office: Desk, operator: Browser) -> None:
    await office.market.sold(1, bant=undated())
    await office.market.sold(2)
    text = (await operator.get(f"{HOME}/journey")).text
    for words in ("Inquiries", "Leads", "Prospects awarded", "Prospects won", "no lead was promoted later"):
        assert words in text
    [roofing_line] = await table(operator, f"{HOME}/journey?format=csv")
    assert (roofing_line["inquiries"], roofing_line["leads"], roofing_line["prospects"]) == ("2", "2", "1")
