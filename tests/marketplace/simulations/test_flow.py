"""Simulations on a real database: the service's own decisions come out again, and a simulation has one end."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from marketplace.database.db import open_pool
from marketplace.directory import flow as directory_flow
from marketplace.directory.store import TenantScope
from marketplace.ledger import money
from marketplace.rules.catalog import Catalog, Rules
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.settings import Settings
from marketplace.simulations import computing, flow, loading
from marketplace.simulations import store as simulations_store
from marketplace.simulations.changes import WhatIfCap, WhatIfPause, WhatIfPolicy, WhatIfPrice
from marketplace.simulations.store import StoredSimulation
from marketplace.simulations.wire import SimulationRequest, SimulationResult, SimulationState
from marketplace.worker import SIMULATE
from routing.ranking import Strategy
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace, roofing
from tests.builders.service import until
from tests.builders.subscriptions import a_cap
from tests.conftest import SECRETS
from tests.marketplace.journey.test_corrections import POOR, RICH, correct
from tests.receivers import Receiver, ok
from tests.waiting import PATIENCE

FAIR = roofing(strategy=Strategy.fair)


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A marketplace, a pool of the role of reports, and a server that accepts leads."""

    market: Marketplace
    reports: Any
    url: str

    async def rules(self) -> Rules:
        return await Catalog(self.market.api).current()

    async def create(self, *changes: Any, **fields: Any) -> UUID:
        request = SimulationRequest(vertical="roofing", changes=changes, **fields)
        return await flow.create(self.market.api, await self.rules(), "test", request)

    async def run(self, simulation_id: UUID) -> StoredSimulation:
        """Compute a simulation as a worker's process does."""
        async with self.market.worker.acquire() as connection:
            claimed = await simulations_store.claim_due(connection, clock.now() + flow.LEASE, clock.now())
        assert claimed is not None
        assert claimed.id == simulation_id
        await flow.run_simulation(self.market.worker, self.reports, simulation_id)
        return await flow.load(self.market.api, simulation_id)

    async def result(self, *changes: Any, **fields: Any) -> SimulationResult:
        simulation = await self.run(await self.create(*changes, **fields))
        assert simulation.state is SimulationState.done
        assert simulation.result is not None
        return simulation.result

    async def sell(self, *numbers: int) -> None:
        for number in numbers:
            await self.market.sold(number)


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings, FAIR))
        receiver = await stack.enter_async_context(Receiver(ok))
        reports = await stack.enter_async_context(
            await open_pool(settings.database_url or "", "marketplace_reports", size=2)
        )
        yield Scene(market=market, reports=reports, url=receiver.url)


def price_of(buyer: Buyer, minor: int) -> WhatIfPrice:
    return WhatIfPrice(subscription_id=ids.encode("sub", buyer.subscription_id), price_minor=minor)


async def test_the_unchanged_simulation_repeats_what_the_service_did_lead_by_lead(scene: Scene) -> None:
    """Caps and wallets that were used before, share credits, and a payment in between."""
    market = scene.market
    await market.buyer(scene.url, anywhere(weight=3, caps=(a_cap("day", 9),)))
    poor = await market.buyer(scene.url, anywhere(), available_minor=15_000)
    await market.buyer(scene.url, anywhere(weight=2))
    await scene.sell(*range(1, 8))
    since = clock.now()
    await scene.sell(*range(8, 20))
    async with market.api.acquire() as connection:
        await money.top_up(connection, poor.business_id, 10_000, "USD", "more", clock.now())
    await scene.sell(*range(20, 31))
    result = await scene.result(WhatIfPolicy(minimum_score=60), since=since)
    assert result.comparison is not None
    reproduction = result.comparison.reproduction
    assert (reproduction.leads, reproduction.same_business, reproduction.same_shares) == (23, 23, 1.0)
    assert result.comparison.before == result.comparison.after
    assert result.sentences[0] == "With a minimum score of 60: nothing changes."


async def test_a_corrected_lead_is_decided_about_with_the_facts_of_each_decision(scene: Scene) -> None:
    """Two leads were rejected for their budget; one was corrected, another was corrected once it was sold."""
    market = scene.market
    await market.buyer(scene.url, anywhere())
    poor = {"bant": roofing_body()["bant"] | POOR["bant"]}
    corrected, sold = await market.sold(1, **poor), await market.sold(3)
    await market.sold(2, **poor)
    await correct(market, corrected, RICH)
    await correct(market, sold, POOR)
    await market.walker.walk(corrected)
    assert await market.state(corrected) == "delivered"
    result = await scene.result(WhatIfPolicy(minimum_score=60))
    assert result.comparison is not None
    reproduction = result.comparison.reproduction
    assert (reproduction.leads, reproduction.same_business) == (3, 3)
    assert (result.comparison.before.sold, result.comparison.before.rejected) == (2, 1)


async def test_what_happened_is_repeated_by_the_rules_as_they_were(scene: Scene) -> None:
    """The ranking was another one, one business has been paused since, and one has ended."""
    market, operator = scene.market, TenantScope(business_id=None, mode=None)
    first, second, third = [
        await market.buyer(scene.url, anywhere(price_minor=price)) for price in (7_000, 6_000, 5_000)
    ]
    await directory_flow.revise_vertical(market.api, "test", "roofing", 1, roofing(strategy=Strategy.highest_price))
    await scene.sell(1, 2, 3)
    for buyer, state in ((first, "paused"), (second, "ended")):
        await directory_flow.switch_subscription(market.api, "test", operator, buyer.subscription_id, state)
        await scene.sell(*((4, 5) if state == "paused" else (6, 7)))
    result = await scene.result(price_of(third, 9_000))
    assert result.comparison is not None
    reproduction = result.comparison.reproduction
    assert (reproduction.leads, reproduction.same_business) == (7, 7)
    assert [row.business_id for row in result.comparison.businesses] == [third.business_id]
    assert result.versions == 5


async def test_a_change_is_counted_in_sales_money_and_businesses(scene: Scene) -> None:
    capped = await scene.market.buyer(scene.url, anywhere())
    await scene.sell(1, 2, 3)
    key = ids.encode("sub", capped.subscription_id)
    result = await scene.result(WhatIfCap(subscription_id=key, caps=(a_cap("week", 1),)), price_of(capped, 9_000))
    comparison = result.comparison
    assert comparison is not None
    assert (comparison.before.sold, comparison.after.sold, comparison.lost) == (3, 1, 2)
    assert (comparison.before.revenue_minor, comparison.after.revenue_minor) == (15_000, 9_000)
    [row] = comparison.businesses
    assert (row.business_id, row.leads_before, row.leads_after) == (capped.business_id, 3, 1)


async def test_erased_and_repeated_leads_are_left_out_and_counted(scene: Scene) -> None:
    await scene.market.buyer(scene.url)
    await scene.sell(1, 2)
    await scene.market.sold(2, provider_reference="again")
    erased = await scene.market.value("select id from lead order by id limit 1")
    await scene.market.owner.execute(
        "insert into erasure (lead_id, requested_at, requested_by, reason, suppressed) "
        "values ($1, now(), 'test', 'asked', false)",
        erased,
    )
    result = await scene.result(WhatIfPolicy(minimum_score=50))
    assert result.comparison is not None
    assert (result.comparison.before.leads, result.left_out.repeated, result.left_out.erased) == (1, 1, 1)
    assert "Leads left out: 1 of people who had asked before, 1 erased." in result.sentences


async def test_leads_are_read_in_pages(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PAGE", 2)
    await scene.market.buyer(scene.url)
    await scene.sell(*range(1, 6))
    simulation = await scene.run(await scene.create(WhatIfPolicy(minimum_score=50)))
    assert (simulation.leads, simulation.leads_done) == (5, 5)


async def test_suggestions_try_small_changes_and_say_their_effect(scene: Scene) -> None:
    await scene.market.buyer(scene.url)
    await scene.sell(1, 2)
    result = await scene.result(suggest=True)
    dearer = [each for each in result.suggestions if "lowest price 10 %" in each.change]
    assert dearer
    assert dearer[0].revenue_a_week.value > 0
    assert result.comparison is None


async def test_a_cancelled_simulation_stops_and_has_no_result(scene: Scene) -> None:
    await scene.market.buyer(scene.url)
    simulation_id = await scene.create(WhatIfPolicy(minimum_score=50))
    cancelled = await flow.cancel(scene.market.api, "test", simulation_id)
    assert cancelled.state is SimulationState.cancelled
    await flow.run_simulation(scene.market.worker, scene.reports, simulation_id)
    async with scene.market.worker.acquire() as connection:
        for leads_done in (0, 1):
            assert not await simulations_store.advance(connection, simulation_id, leads_done, 9, clock.now())
        assert not await simulations_store.end_simulation(connection, simulation_id, b"{}", clock.now())
    assert await flow.load(scene.market.api, simulation_id) == cancelled
    actions = await scene.market.owner.fetch("select action from audit where action like 'simulation%' order by id")
    assert [row["action"] for row in actions] == ["simulation.create", "simulation.cancel"]


async def test_one_simulation_runs_at_a_time_and_another_worker_takes_over_after_the_lease(scene: Scene) -> None:
    first, second = [await scene.create(WhatIfPolicy(minimum_score=score)) for score in (50, 55)]
    now = clock.now()
    async with scene.market.worker.acquire() as connection:
        claimed = [await simulations_store.claim_due(connection, now + flow.LEASE, now) for _ in range(2)]
        assert [each.id if each else None for each in claimed] == [first, None]
        later = now + 2 * flow.LEASE
        again = await simulations_store.claim_due(connection, later + flow.LEASE, later)
        assert again is not None
        assert (again.id, again.tries) in ((first, 2), (second, 1))


async def test_too_many_waiting_simulations_are_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MOST_OPEN", 1)
    await scene.create(WhatIfPolicy(minimum_score=50))
    with pytest.raises(errors.Conflict):
        await scene.create(WhatIfPolicy(minimum_score=50))


async def test_a_simulation_whose_subscription_has_ended_meanwhile_fails(scene: Scene) -> None:
    buyer = await scene.market.buyer(scene.url)
    simulation_id = await scene.create(WhatIfPause(subscription_id=ids.encode("sub", buyer.subscription_id)))
    await scene.market.owner.execute("update subscription set state = 'ended'")
    failed = await scene.run(simulation_id)
    assert failed.state is SimulationState.failed
    assert (failed.failure or "").startswith("The rules have changed since: Name a live subscription")


async def test_results_are_deleted_after_thirty_days(scene: Scene) -> None:
    simulation_id = await scene.create(WhatIfPolicy(minimum_score=50))
    await flow.cancel(scene.market.api, "test", simulation_id)
    async with scene.market.worker.acquire() as connection:
        await simulations_store.delete_old(connection, clock.now() - timedelta(days=30))
        await flow.load(scene.market.api, simulation_id)
        await simulations_store.delete_old(connection, clock.now() + timedelta(seconds=1))
    with pytest.raises(errors.NotFound):
        await flow.load(scene.market.api, simulation_id)


async def test_a_process_that_fails_each_time_ends_the_simulation(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "LOOK_SECONDS", 0.01)
    simulation_id = await scene.create(WhatIfPolicy(minimum_score=50))
    stopping = asyncio.Event()
    command = (sys.executable, "-S", "-c", "raise SystemExit(1)")
    keeping = asyncio.create_task(flow.keep_simulating(scene.market.worker, command, stopping))

    async def ended() -> bool:
        return (await flow.load(scene.market.api, simulation_id)).state is SimulationState.failed

    assert await until(ended, PATIENCE)
    stopping.set()
    await keeping


async def test_a_time_with_too_many_leads_is_refused_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "MOST_LEADS", 1)
    await scene.market.buyer(scene.url)
    await scene.sell(1, 2)
    with pytest.raises(errors.InvalidInput) as refused:
        await scene.create(WhatIfPolicy(minimum_score=50))
    assert [fault.code for fault in refused.value.faults] == ["too_many_leads"]


async def test_a_worker_computes_what_is_due_in_a_process_of_its_own(
    scene: Scene, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (SECRETS | {"DATABASE_URL": settings.database_url, "VALKEY_URL": settings.valkey_url}).items():
        monkeypatch.setenv(name, value or "")
    await scene.market.buyer(scene.url)
    await scene.sell(1, 2)
    simulation_id = await scene.create(WhatIfPolicy(minimum_score=50))
    stopping = asyncio.Event()
    keeping = asyncio.create_task(flow.keep_simulating(scene.market.worker, SIMULATE, stopping))

    async def ended() -> bool:
        return (await flow.load(scene.market.api, simulation_id)).state is SimulationState.done

    assert await until(ended, PATIENCE)
    stopping.set()
    await keeping
