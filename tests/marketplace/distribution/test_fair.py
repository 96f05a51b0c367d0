"""Credits of the strategy `fair` in the database: written by the award, taken back by the release, exact in a crowd."""

import asyncio
from uuid import UUID

from marketplace.operations.verify import verify
from marketplace.runtime.settings import Settings
from routing.ranking import Strategy
from routing.shares import LEAD
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace, roofing
from tests.builders.service import until
from tests.receivers import Receiver, ok
from tests.waiting import PATIENCE

FAIR = roofing(strategy=Strategy.fair)
DEAD = "http://127.0.0.1:1/hook"


async def credits_of(market: Marketplace, mode: str = "live") -> dict[UUID, int]:
    rows = await market.owner.fetch("select business_id, credit from share_credit where mode = $1", mode)
    return {row["business_id"]: row["credit"] for row in rows}


async def awards_of(market: Marketplace, buyer: Buyer) -> int:
    return int(await market.value("select count(*) from assignment where business_id = $1 and live", buyer.business_id))


async def findings(market: Marketplace) -> list[str]:
    async with market.owner.acquire() as connection:
        report = await verify(connection)
    return [check.name for check in report.checks if check.findings]


async def test_leads_are_shared_by_weight_and_each_award_changes_the_credits(settings: Settings) -> None:
    async with marketplace(settings, FAIR) as market, Receiver(ok) as receiver:
        heavy = await market.buyer(receiver.url, anywhere(weight=3))
        light = await market.buyer(receiver.url, anywhere(weight=1))
        await market.sold(1)
        assert await credits_of(market) == {heavy.business_id: -LEAD // 4, light.business_id: LEAD // 4}
        for number in range(2, 9):
            await market.sold(number)
        assert await credits_of(market) == {heavy.business_id: 0, light.business_id: 0}
        assert (await awards_of(market, heavy), await awards_of(market, light)) == (6, 2)
        assert await findings(market) == []


async def test_a_released_lead_counts_for_nothing_and_the_next_business_has_it_alone(settings: Settings) -> None:
    async with marketplace(settings, FAIR) as market, Receiver(ok) as receiver:
        dead = await market.buyer(DEAD, anywhere(weight=3))
        alive = await market.buyer(receiver.url, anywhere(weight=1))
        lead_id = await market.sold()
        assert await credits_of(market) == {dead.business_id: -LEAD // 4, alive.business_id: LEAD // 4}

        async def delivered() -> bool:
            await market.owner.execute("update assignment set due_at = clock_timestamp() where state = 'held'")
            await market.sweeper.sweep()
            return await market.state(lead_id) == "delivered"

        assert await until(delivered, PATIENCE)
        assert await credits_of(market) == {dead.business_id: 0, alive.business_id: 0}
        assert await findings(market) == []


async def test_credits_are_exact_whatever_happens_at_once(settings: Settings) -> None:
    """Awards and releases of many leads at the same moment: none waits in a circle, and nothing is lost."""
    async with marketplace(settings, FAIR) as market, Receiver(ok) as receiver:
        for weight in (1, 2, 3):
            await market.buyer(receiver.url, anywhere(weight=weight))
        await market.buyer(DEAD, anywhere(weight=4))
        leads = [(await market.submit(number)).id for number in range(1, 41)]
        await asyncio.gather(*(market.walker.walk(lead_id) for lead_id in leads))

        async def settled() -> bool:
            await market.owner.execute("update assignment set due_at = clock_timestamp() where state = 'held'")
            await market.owner.execute("update lead set due_at = clock_timestamp() where due_at is not null")
            await market.sweeper.sweep()
            return bool(await market.value("select count(*) = 40 from lead where state = 'delivered'"))

        assert await until(settled, PATIENCE)
        assert sum((await credits_of(market)).values()) == 0
        assert await findings(market) == []


async def test_the_credits_of_test_mode_are_apart(settings: Settings) -> None:
    async with marketplace(settings, FAIR) as market, Receiver(ok) as receiver:
        buyers = [await market.buyer(receiver.url, anywhere(), mode="test") for _ in range(2)]
        provider = await market.another_provider("test")
        receipt = await market.submit(1, by=provider)
        await market.walker.walk(receipt.id)
        assert await credits_of(market) == {}
        credits = await credits_of(market, "test")
        assert set(credits) == {buyer.business_id for buyer in buyers}
        assert sorted(credits.values()) == [-LEAD // 2, LEAD // 2]


async def test_other_strategies_have_no_credits(settings: Settings) -> None:
    async with marketplace(settings, roofing(strategy=Strategy.weighted_share)) as market, Receiver(ok) as receiver:
        await market.buyer(receiver.url)
        await market.sold()
        assert await market.value("select count(*) from decision where outcome = 'held' and credits is null") == 1
        assert await credits_of(market) == {}


async def test_two_subscriptions_of_a_business_have_one_share(settings: Settings) -> None:
    """A copy of a subscription brings no more leads."""
    async with marketplace(settings, FAIR) as market, Receiver(ok) as receiver:
        twice, once = await market.buyer(receiver.url), await market.buyer(receiver.url)
        await copy_subscription(market, twice)
        for number in range(1, 9):
            await market.sold(number)
        assert (await awards_of(market, twice), await awards_of(market, once)) == (4, 4)


async def copy_subscription(market: Marketplace, buyer: Buyer) -> None:
    async with market.owner.acquire() as connection, connection.transaction():
        copy = await connection.fetchval(
            "insert into subscription (id, business_id, vertical_id, endpoint_id, mode, name, version, currency) "
            "select gen_random_uuid(), business_id, vertical_id, endpoint_id, mode, 'Copy', 1, currency "
            "from subscription where id = $1 returning id",
            buyer.subscription_id,
        )
        await connection.execute(
            "insert into subscription_version (subscription_id, version, definition, made_by) "
            "select $1, 1, definition, 'test' from subscription_version where subscription_id = $2",
            copy,
            buyer.subscription_id,
        )
