"""The deliberate breaks: each applies to the database as migrations make it, and lets happen what it says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from marketplace.runtime.settings import Settings
from tests.builders.marketplaces import Marketplace, marketplace
from tests.harness.breaks import BREAKS


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(marketplace(settings))


async def apply_break(market: Marketplace, name: str) -> None:
    for statement in BREAKS[name].statements:
        await market.owner.execute(statement)


@pytest.mark.parametrize("name", BREAKS)
async def test_a_break_applies_to_the_database_of_today(market: Marketplace, name: str) -> None:
    await apply_break(market, name)


async def test_with_the_leads_lock_ignored_a_lead_is_awarded_twice(market: Marketplace) -> None:
    for _ in range(2):
        await market.buyer(None)
    lead_id = (await market.submit()).id
    await apply_break(market, "one_live_assignment")
    await asyncio.gather(*(market.distribution.distribute(lead_id) for _ in range(8)))
    assert await market.value("select count(*) from assignment where lead_id = $1 and live", lead_id) > 1
