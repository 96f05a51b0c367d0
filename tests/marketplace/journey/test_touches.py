"""Later touches: stored once each, decided about at once, and what they open again."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from marketplace.distribution import store as distribution_store
from marketplace.distribution.flow import Distribution
from marketplace.erasure.flow import erase_lead
from marketplace.intake.postal import PostalBook
from marketplace.journey.flow import Journey, TouchOutcome
from marketplace.journey.shapes import LaterTouch, TouchesBody
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock
from marketplace.runtime.errors import InvalidInput, NotFound
from marketplace.runtime.queue import Notifier
from marketplace.runtime.settings import Settings
from routing import journey as rules
from tests.builders.inquiries import iso
from tests.builders.marketplaces import NOWHERE, Marketplace, anywhere, marketplace
from tests.builders.pausing import HeldUp
from tests.receivers import Receiver, status

MINUTE = timedelta(minutes=1)
SMALL_BUDGET = {"budget": {"minor": 100, "currency": "USD"}}
"Budget that the vertical of these tests rejects."


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings) as ready:
        yield ready


def journey_of(market: Marketplace) -> Journey:
    return Journey(market.api, Catalog(market.api), PostalBook(), market.sealer, Notifier(NOWHERE))


def touch(kind: str = "call", minutes: float = 0, **fields: Any) -> dict[str, Any]:
    """A touch so many minutes ago."""
    return {"kind": kind, "at": iso(clock.now() - minutes * MINUTE), **fields}


async def send(market: Marketplace, lead_id: UUID, *touches: dict[str, Any], by: Any = None) -> list[str]:
    """Send touches and return the outcome of each."""
    bodies: tuple[LaterTouch, ...] = msgspec.convert({"touches": touches}, TouchesBody).touches
    receipt = await journey_of(market).add_touches(by or market.provider, lead_id, bodies)
    return [str(each.result) for each in receipt.results]


def bant(**changes: Any) -> dict[str, Any]:
    complete = {
        "budget": {"minor": 1_200_000, "currency": "USD"},
        "authority": "decision_maker",
        "need": {"fields": {"roof_type": "tile"}},
        "timing": {"within_days": 14},
    }
    return {name: value for name, value in (complete | changes).items() if value is not None}


async def test_the_same_touch_twice_counts_once(market: Marketplace) -> None:
    lead_id = (await market.submit()).id
    visit, call = touch("page_view", detail="/a"), touch("call", touch_id="call-1")
    assert await send(market, lead_id, visit, call) == ["added", "added"]
    renamed = touch("chat", 5, touch_id="call-1")
    assert await send(market, lead_id, visit, renamed, touch("form")) == ["repeated", "repeated", "added"]
    assert await market.value("select count(*) from touch where lead_id = $1", lead_id) == 3
    assert await market.value("select revision from lead where id = $1", lead_id) == 2


async def test_a_touch_of_the_inquiry_is_not_stored_again(market: Marketplace) -> None:
    visit = touch("page_view", 3, detail="/roof-repair")
    lead_id = (await market.submit(touches=[visit])).id
    assert await send(market, lead_id, visit) == ["repeated"]


async def test_a_call_with_nothing_new_raises_no_revision(market: Marketplace) -> None:
    lead_id = (await market.submit()).id
    visit = touch("page_view")
    await send(market, lead_id, visit)
    assert await send(market, lead_id, visit) == ["repeated"]
    assert await market.value("select revision from lead where id = $1", lead_id) == 1


async def test_faulty_touches_are_refused_one_by_one_and_a_call_of_faulty_ones_alone_as_a_whole(
    market: Marketplace,
) -> None:
    lead_id = (await market.submit()).id
    future, unfit = touch(minutes=-60), touch("form", supplies={"budget": {"minor": 1, "currency": "EUR"}})
    assert await send(market, lead_id, future, touch("chat"), unfit) == ["refused", "added", "refused"]
    with pytest.raises(InvalidInput) as refused:
        await send(market, lead_id, future, unfit)
    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [
        ("/touches/0/at", "touch_in_future"),
        ("/touches/1/supplies/budget/currency", "currency_not_accepted"),
    ]


async def test_a_lead_keeps_a_limited_number_of_touches(market: Marketplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketplace.journey.flow.MOST_TOUCHES", 2)
    lead_id = (await market.submit()).id
    calls = [touch(minutes=minute) for minute in range(3)]
    assert await send(market, lead_id, *calls) == ["added", "added", "refused"]
    with pytest.raises(InvalidInput) as refused:
        await send(market, lead_id, calls[2])
    assert refused.value.faults[0].code == "touch_limit"
    assert await send(market, lead_id, calls[0]) == ["repeated"]
    assert rules.MOST_TOUCHES == 1_000


async def test_another_providers_lead_is_not_there(market: Marketplace) -> None:
    lead_id = (await market.submit()).id
    with pytest.raises(NotFound):
        await send(market, lead_id, touch(), by=await market.another_provider())


async def test_a_nurtured_lead_that_wants_it_earlier_is_sold_with_a_new_verdict_beside_the_old(
    market: Marketplace,
) -> None:
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead_id = await market.sold(bant=bant(timing={"within_days": 100}))
        assert await market.state(lead_id) == "nurturing"
        called = touch("call", seconds=90, direction="inbound", supplies={"timing": {"within_days": 7}})
        assert await send(market, lead_id, called) == ["added"]
        await market.walker.walk(lead_id)
        assert await market.state(lead_id) == "delivered"
        body = msgspec.json.decode(receiver.visits[-1].body)
    assert body["data"]["bant"]["timing"] == {"within_days": 7, "not_before": None}
    assert body["data"]["touches"][-1]["seconds"] == 90
    decisions = await market.owner.fetch(
        "select outcome, revision from decision where lead_id = $1 order by made_at", lead_id
    )
    assert [tuple(row) for row in decisions] == [("nurturing", 0), ("held", 1)]


@pytest.mark.parametrize("state", ["rejected", "unsold"])
async def test_a_lead_that_ended_is_opened_again_by_new_facts_and_takes_its_persons_window_again(
    market: Marketplace, state: str
) -> None:
    lead_id = await market.sold(bant=bant(**SMALL_BUDGET) if state == "rejected" else bant())
    assert await market.state(lead_id) == state
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        supplies = {"budget": {"minor": 2_000_000, "currency": "USD"}}
        assert await send(market, lead_id, touch("form", supplies=supplies)) == ["added"]
        row = await market.row("select state, reason, settled_at, reopened_at, due_at from lead where id = $1", lead_id)
        assert (row["state"], row["reason"], row["settled_at"]) == ("received", None, None)
        assert row["reopened_at"] == row["due_at"] is not None
        assert (await market.submit(provider_reference="again")).state == "duplicate"
        await market.walker.walk(lead_id)
    assert await market.state(lead_id) == "delivered"


async def test_a_lead_whose_person_asked_anew_stays_ended_and_keeps_the_touch(market: Marketplace) -> None:
    lead_id = await market.sold(bant=bant(**SMALL_BUDGET))
    anew = await market.submit(provider_reference="anew")
    assert anew.state == "received"
    supplies = {"budget": {"minor": 2_000_000, "currency": "USD"}}
    assert await send(market, lead_id, touch("form", supplies=supplies)) == ["added"]
    assert await market.state(lead_id) == "rejected"
    windows = await market.value("select count(*) from person_window where not isempty(during)")
    assert windows == await market.value("select count(*) from person_window where lead_id = $1", anew.id)


async def test_a_delivered_lead_keeps_its_state_and_its_business_gets_a_notice_of_the_touch(
    market: Marketplace,
) -> None:
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead_id = await market.sold()
        assert await send(market, lead_id, touch("email_reply")) == ["added"]
    assert await market.state(lead_id) == "delivered"
    notice = await market.row("select business_id, detail from notice where lead_id = $1", lead_id)
    assert notice["business_id"] == await market.value("select business_id from exposure where lead_id = $1", lead_id)
    assert msgspec.json.decode(notice["detail"])["touches"][0]["kind"] == "email_reply"


async def test_the_business_of_an_erased_person_hears_of_no_later_touch(market: Marketplace) -> None:
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead_id = await market.sold()
    await erase_lead(market.api, market.provider, lead_id, "asked", also_suppress=False)
    assert await send(market, lead_id, touch("email_reply")) == ["added"]
    assert await market.value("select count(*) from notice where kind = 'updated'") == 0


async def test_an_award_on_facts_that_have_been_revised_since_is_not_written(market: Marketplace) -> None:
    await market.buyer("http://127.0.0.1:1/hook", anywhere())
    lead_id = (await market.submit()).id
    worker = HeldUp(market.worker, distribution_store.SQL["award"])
    deciding = asyncio.create_task(Distribution(worker.pool, Catalog(market.worker)).distribute(lead_id))
    await worker.arrived.wait()
    await send(market, lead_id, touch("form", supplies=SMALL_BUDGET))
    worker.let_go.set()
    assert await deciding is None
    assert await market.value("select count(*) from assignment") == 0
    assert await market.distribution.distribute(lead_id) is None
    assert await market.state(lead_id) == "rejected"


def test_outcomes_of_touches_are_words_that_callers_know() -> None:
    assert list(TouchOutcome) == ["added", "repeated", "refused"]
