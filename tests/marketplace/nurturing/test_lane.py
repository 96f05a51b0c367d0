"""The nurture lane: what a provider is told about a waiting inquiry, and giving one back before its time."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from marketplace.intake.http import load_inquiry
from marketplace.nurturing.flow import give_back, list_waiting
from marketplace.nurturing.store import LaneFilter
from marketplace.rules.catalog import Catalog
from marketplace.runtime.errors import Conflict, NotFound
from marketplace.runtime.settings import Settings
from routing.interest import InterestCriterion, UnmetConsequence
from routing.qualification import Dimension, ResultConsequence, WaitsFor
from tests.builders.inquiries import roofing_policy
from tests.builders.marketplaces import Marketplace, marketplace, roofing
from tests.marketplace.journey.test_touches import send, touch
from tests.receivers import Receiver, status

POLICY = roofing_policy()
WAITS = ResultConsequence.nurture
VERTICAL = roofing(
    timing=msgspec.structs.replace(POLICY.timing, on_unknown=WAITS),
    budget=msgspec.structs.replace(POLICY.budget, on_unknown=WAITS),
    nurture_days=30,
)


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings, VERTICAL) as ready:
        yield ready


def bant(**answers: Any) -> dict[str, Any]:
    complete = {
        "budget": {"minor": 1_200_000, "currency": "USD"},
        "authority": "decision_maker",
        "need": {"fields": {"roof_type": "tile"}},
        "timing": {"within_days": 14},
    }
    return {name: value for name, value in (complete | answers).items() if value is not None}


def of_provider(provider_id: UUID) -> LaneFilter:
    return LaneFilter(mode="live", provider_id=provider_id)


async def test_the_answer_to_a_waiting_inquiry_names_the_question_worth_asking(market: Marketplace) -> None:
    for _ in range(2):
        await market.buyer("http://127.0.0.1:1/hook")
    lead_id = await market.sold(bant=bant(timing=None))
    view = await load_inquiry(market.intake, market.provider, lead_id)
    assert view.state == "nurturing"
    assert view.reasons == ("a better answer about the timing",)
    assert [(each.dimension, each.question, each.subscriptions) for each in view.unlock] == [
        (Dimension.timing, "When is it wanted?", 2)
    ]
    assert view.unlock_together == 2
    due = await market.row("select due_at - received_at as wait from lead where id = $1", lead_id)
    assert due["wait"] == timedelta(days=30)


async def test_a_lead_waits_for_a_reply_and_is_sold_once_it_has_come(settings: Settings) -> None:
    reply = InterestCriterion(name="replied", kinds=("email_reply",), required=True, otherwise=UnmetConsequence.nurture)
    async with marketplace(settings, roofing(interest=(reply,))) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead_id = await market.sold()
        view = await load_inquiry(market.intake, market.provider, lead_id)
        assert (view.state, view.reasons) == ("nurturing", ("email reply",))
        assert [(each.criterion, each.question, each.subscriptions) for each in view.unlock] == [
            ("replied", "Needed: email reply.", 1)
        ]
        assert await send(market, lead_id, touch("call", seconds=90), touch("email_reply")) == ["added", "added"]
        await market.walker.walk(lead_id)
        assert await market.state(lead_id) == "delivered"


async def test_the_lane_lists_waiting_leads_newest_first_page_by_page(market: Marketplace) -> None:
    await market.buyer("http://127.0.0.1:1/hook")
    first = await market.sold(1, bant=bant(timing=None))
    second = await market.sold(2, bant=bant(budget=None))
    await market.sold(3)
    catalog = Catalog(market.api)
    page = await list_waiting(market.api, catalog, of_provider(market.provider.owner), None, 10)
    assert [row.lead.lead_id for row in page] == [second, first]
    assert [[each.dimension for each in row.unlocks.questions] for row in page if row.unlocks] == [
        [Dimension.budget],
        [Dimension.timing],
    ]
    assert all(row.lead.nurtured_at is not None for row in page)
    older = await list_waiting(market.api, catalog, LaneFilter(mode="live", vertical="roofing"), second, 10)
    assert [row.lead.lead_id for row in older] == [first]
    other = await market.another_provider()
    assert await list_waiting(market.api, catalog, of_provider(other.owner), None, 10) == ()


async def test_the_lane_is_filtered_by_what_its_leads_wait_for(market: Marketplace) -> None:
    undated = await market.sold(1, bant=bant(timing=None))
    early = await market.sold(2, bant=bant(timing={"within_days": 70}, budget=None))
    await market.sold(3)
    catalog = Catalog(market.api)
    expected = {WaitsFor.date: [early], WaitsFor.budget: [early], WaitsFor.timing: [undated], WaitsFor.points: []}
    for waits_for, leads in expected.items():
        page = await list_waiting(market.api, catalog, LaneFilter(mode="live", waits_for=waits_for), None, 10)
        assert [row.lead.lead_id for row in page] == leads
        assert all(waits_for in (row.lead.waits_for or ()) for row in page)


async def test_the_database_knows_everything_that_a_lead_can_wait_for(market: Marketplace) -> None:
    lead_id = await market.sold(bant=bant(timing=None))
    await market.owner.execute("update lead set waits_for = $2 where id = $1", lead_id, list(WaitsFor))
    for waits_for in ([], ["patience"]):
        with pytest.raises(asyncpg.CheckViolationError, match="lead_waits_for"):
            await market.owner.execute("update lead set waits_for = $2 where id = $1", lead_id, waits_for)


async def test_a_lead_given_back_expires_and_frees_its_person(market: Marketplace) -> None:
    lead_id = await market.sold(bant=bant(timing=None))
    assert (await market.submit(provider_reference="again")).state == "duplicate"
    await give_back(market.api, market.provider, lead_id)
    await give_back(market.api, market.provider, lead_id)
    row = await market.row(
        "select state, reason, due_at, settled_at is not null as ended from lead where id = $1", lead_id
    )
    assert row == {"state": "expired", "reason": "given_back", "due_at": None, "ended": True}
    assert (await market.submit(provider_reference="anew")).state == "received"
    assert await market.value("select count(*) from audit where action = 'lead.give_back'") == 1


async def test_only_the_providers_own_waiting_lead_is_given_back(market: Marketplace) -> None:
    lead_id = await market.sold(bant=bant(timing=None))
    with pytest.raises(NotFound):
        await give_back(market.api, await market.another_provider(), lead_id)
    assert await market.state(lead_id) == "nurturing"
    received = (await market.submit(2)).id
    with pytest.raises(Conflict):
        await give_back(market.api, market.provider, received)
