"""Trace of a lead: everything for operators, and for others no more than their own part."""

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from marketplace.distribution.store import read_candidates
from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, create_key
from marketplace.security.sealing import Sealer
from routing.calendar import CapWindow
from routing.matching import Rule
from routing.subscription import Area, BantMinimum, Cap
from tests.builders.marketplaces import PRICE_MINOR, Buyer, Marketplace, anywhere, marketplace
from tests.builders.service import Served, serve, until
from tests.receivers import Receiver, ok, status
from tests.waiting import PATIENCE

PRICES = {"winner": 5_000, "outranked": 4_111, "far": 4_222, "poor": 4_333, "picky": 4_444}


class Story:
    """One delivered lead: a winner, one outranked, one too far, one without money, one that wants bigger budgets."""

    def __init__(self, api: Served, market: Marketplace, buyers: dict[str, Buyer], lead_id: UUID) -> None:
        self.api, self.market, self.buyers, self.lead_id = api, market, buyers, lead_id

    async def key(self, kind: CallerKind, owner_id: UUID | None = None, mode: str = "live") -> str:
        settings = self.market.settings
        async with self.market.owner.acquire() as connection:
            sealer = Sealer(settings.master_key, settings.pepper)
            return await create_key(connection, sealer, kind=kind, owner_id=owner_id, mode=mode, name="a test's")

    async def told(self, kind: CallerKind, owner_id: UUID | None = None, mode: str = "live") -> Any:
        key = await self.key(kind, owner_id, mode)
        return await self.api.call("GET", f"/v1/leads/{ids.encode('lead', self.lead_id)}/trace", key=key)


@pytest.fixture
async def story(settings: Settings) -> AsyncIterator[Story]:
    async with serve(settings) as api, marketplace(settings) as market, Receiver(ok) as receiver:
        orders: dict[str, dict[str, Any]] = {
            "winner": {"priority": 1, "caps": (Cap(window=CapWindow.day, count=1),)},
            "outranked": {"priority": 2},
            "far": {"area": Area(prefixes=("90",))},
            "poor": {"priority": 3},
            "picky": {"bant": BantMinimum(minimum_budget_minor=2_000_000)},
        }
        buyers = {
            name: await market.buyer(
                f"{receiver.url}/{name}",
                anywhere(price_minor=PRICES[name], **order),
                available_minor=0 if name == "poor" else 100_000,
            )
            for name, order in orders.items()
        }
        yield Story(api, market, buyers, await market.sold())


def tells(text: str, number: int) -> bool:
    """Return whether the number occurs by itself; its digits may be a part of any id or time."""
    return re.search(rf"(?<![\w.:-]){number}(?![\w.:-])", text) is not None


def texts_of(buyer: Buyer) -> tuple[str, ...]:
    kinds = {"biz": buyer.business_id, "sub": buyer.subscription_id, "whe": buyer.endpoint_id}
    return tuple(ids.encode(kind, one) for kind, one in kinds.items()) + tuple(str(one) for one in kinds.values())


async def test_an_operator_sees_every_candidate_with_every_failing_rule_and_its_distance(story: Story) -> None:
    trace = (await story.told(CallerKind.operator)).json()
    assert trace["state"] == "delivered"
    [decision] = trace["decisions"]
    by_name = {
        name: next(
            row for row in decision["candidates"] if row["subscription"] == ids.encode("sub", buyer.subscription_id)
        )
        for name, buyer in story.buyers.items()
    }
    assert len(decision["candidates"]) + decision["left_out"] == len(PRICES)
    assert by_name["winner"] | {"scores": [], "tie_break": ""} == {
        "awarded": True,
        "failures": [],
        "subscription": ids.encode("sub", story.buyers["winner"].subscription_id),
        "business": ids.encode("biz", story.buyers["winner"].business_id),
        "version": 1,
        "price_minor": 5_000,
        "position": 1,
        "scores": [],
        "tie_break": "",
        "among_equals": 1.0,
        "propensity": 1.0,
    }
    rules = {name: [failure["rule"] for failure in row["failures"]] for name, row in by_name.items()}
    assert rules == {
        "winner": [],
        "outranked": ["outranked"],
        "far": ["outside_area"],
        "poor": ["wallet_empty"],
        "picky": ["budget_minimum"],
    }
    short = by_name["poor"]["failures"][0]
    assert short["distance"] == PRICES["poor"]
    assert by_name["picky"]["failures"][0]["distance"] == 800_000
    assert all(failure["detail"] for row in by_name.values() for failure in row["failures"])
    assert [attempt["outcome"] for attempt in trace["attempts"]] == ["accepted"]
    assert trace["exposure"]["business"] == ids.encode("biz", story.buyers["winner"].business_id)
    assert decision["verdict"]["policy_version"] == 1


async def test_no_trace_holds_contact_data(story: Story) -> None:
    owners = [
        (CallerKind.operator, None),
        (CallerKind.provider, story.market.provider.owner),
        *((CallerKind.business, buyer.business_id) for buyer in story.buyers.values()),
    ]
    for kind, owner_id in owners:
        text = (await story.told(kind, owner_id)).text
        for contact in ("Robin", "5550101", "robin.1@", "Example Street", "192.0.2.7", "leak after storm"):
            assert contact not in text


async def test_the_provider_sees_what_it_can_mend_and_no_ids_prices_or_affairs_of_a_business(story: Story) -> None:
    answer = await story.told(CallerKind.provider, story.market.provider.owner)
    trace = answer.json()
    assert (trace["state"], trace["exposure"], trace["attempts"]) == ("delivered", None, [])
    [decision] = trace["decisions"]
    rules = sorted(failure["rule"] for row in decision["candidates"] for failure in row["failures"])
    assert rules == ["budget_minimum", "outranked", "outside_area"]
    assert all(row.keys() <= {"awarded", "failures"} for row in decision["candidates"])
    for buyer in story.buyers.values():
        for secret in texts_of(buyer):
            assert secret not in answer.text
    assert not [price for price in PRICES.values() if tells(answer.text, price)]
    assert "wallet" not in answer.text


async def test_the_business_that_has_the_lead_sees_its_whole_story_and_nobody_else_in_it(story: Story) -> None:
    answer = await story.told(CallerKind.business, story.buyers["winner"].business_id)
    trace = answer.json()
    assert (trace["state"], trace["exposure"]["channel"]) == ("delivered", "push")
    assert [attempt["outcome"] for attempt in trace["attempts"]] == ["accepted"]
    [decision] = trace["decisions"]
    assert [row["awarded"] for row in decision["candidates"]] == [True]
    for name in set(PRICES) - {"winner"}:
        assert not tells(answer.text, PRICES[name])
        for secret in texts_of(story.buyers[name]):
            assert secret not in answer.text


@pytest.mark.parametrize(
    ("name", "rule"), [("outranked", "outranked"), ("poor", "wallet_empty"), ("picky", "budget_minimum")]
)
async def test_a_business_without_the_lead_sees_why_and_not_what_became_of_it(
    story: Story, name: str, rule: str
) -> None:
    answer = await story.told(CallerKind.business, story.buyers[name].business_id)
    trace = answer.json()
    assert [trace[word] for word in ("state", "reason", "settled_at", "exposure")] == [None] * 4
    assert trace["attempts"] == []
    [decision] = trace["decisions"]
    assert [decision[word] for word in ("outcome", "reason", "verdict")] == [None] * 3
    [own] = decision["candidates"]
    assert (own["awarded"], [failure["rule"] for failure in own["failures"]]) == (False, [rule])
    for other in set(PRICES) - {name}:
        for secret in texts_of(story.buyers[other]):
            assert secret not in answer.text


async def test_whoever_has_no_part_in_a_lead_is_told_that_there_is_none(story: Story) -> None:
    stranger = await story.market.buyer("http://127.0.0.1:1/")
    provider = await story.market.another_provider()
    nothing = await story.api.call("GET", "/v1/leads/lead_01m7zxrk0zezh9kk0e0qy31s5c/trace")
    assert nothing.status_code == 404
    for kind, owner_id, mode in (
        (CallerKind.business, stranger.business_id, "live"),
        (CallerKind.provider, provider.owner, "live"),
        (CallerKind.provider, story.market.provider.owner, "test"),
        (CallerKind.business, story.buyers["winner"].business_id, "test"),
    ):
        answer = await story.told(kind, owner_id, mode)
        assert (answer.status_code, answer.json() | {"instance": ""}) == (404, nothing.json() | {"instance": ""})


async def test_a_business_that_lost_the_lead_after_a_release_is_not_told_who_got_it(settings: Settings) -> None:
    async with serve(settings) as api, marketplace(settings) as market, Receiver(ok) as receiver:
        dead = await market.buyer("http://127.0.0.1:1/hook", anywhere(priority=1))
        alive = await market.buyer(receiver.url, anywhere(priority=2))
        lead_id = await market.sold()

        async def delivered() -> bool:  # after the quick retries, whose time comes at once here
            await market.owner.execute("update assignment set due_at = clock_timestamp() where state = 'held'")
            await market.sweeper.sweep()
            return await market.state(lead_id) == "delivered"

        assert await until(delivered, PATIENCE)
        story = Story(api, market, {}, lead_id)
        lost = await story.told(CallerKind.business, dead.business_id)
        assert (lost.status_code, lost.json()["state"], lost.json()["exposure"]) == (200, None, None)
        assert lost.json()["attempts"] == []
        for secret in texts_of(alive):
            assert secret not in lost.text
        whole = (await story.told(CallerKind.operator)).json()
        assert [attempt["outcome"] for attempt in whole["attempts"]][-1] == "accepted"
        assert len(whole["decisions"]) == 2


async def test_an_attempt_that_failed_is_told_with_its_times(settings: Settings) -> None:
    async with serve(settings) as api, marketplace(settings) as market, Receiver(status(500)) as receiver:
        await market.buyer(receiver.url)
        story = Story(api, market, {}, await market.sold())
        [attempt] = (await story.told(CallerKind.operator)).json()["attempts"]
        assert (attempt["status"], attempt["outcome"]) == (500, "busy")
        assert attempt["total_ms"] >= attempt["connect_ms"] >= 0


async def test_a_near_miss_is_recorded_with_its_caps_and_wallet(settings: Settings) -> None:
    """A business that is too far away and has no money is no near miss by its area alone."""
    async with marketplace(settings) as market:
        area = Area(countries=("CA",))
        await market.buyer(None, anywhere(area=area), available_minor=PRICE_MINOR)
        await market.buyer(None, anywhere(area=area), available_minor=PRICE_MINOR - 1_000)
        lead_id = await market.sold(1)
        text = await market.value("select candidates from decision where lead_id = $1", lead_id)
        failures = [
            [(failure.rule, failure.distance, failure.unit) for failure in record.failures]
            for record in read_candidates(text.encode())
        ]
        assert failures == [
            [(Rule.outside_area, None, None)],
            [(Rule.outside_area, None, None), (Rule.wallet_empty, 1_000, "minor")],
        ]
