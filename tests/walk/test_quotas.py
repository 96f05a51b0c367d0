"""Quotas of leads that a business reads and does not pay for: its suspension, and how it is resumed."""

import asyncio

import pytest

from marketplace.directory import flow as directory_flow
from marketplace.directory.flow import SubscriptionRequest
from marketplace.directory.store import TenantScope
from marketplace.runtime.errors import SubscriptionSuspended
from marketplace.runtime.settings import Settings
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace, roofing
from tests.receivers import Receiver, ok, refuse, status

AT_LEAST = 5
"Of `QuotaTerms`: so many leads are shown for nothing before the first suspension."
OPERATOR = TenantScope(business_id=None, mode=None)


async def suspension(market: Marketplace, buyer: Buyer) -> tuple[str, str | None]:
    row = await market.owner.fetchrow(
        "select state, suspended_for from subscription where id = $1", buyer.subscription_id
    )
    return row["state"], row["suspended_for"]


async def shown(market: Marketplace, buyer: Buyer) -> int:
    return int(await market.value("select count(*) from exposure where business_id = $1", buyer.business_id))


async def test_an_endpoint_that_refuses_everything_is_shown_no_more_than_the_quota(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(refuse("other")) as receiver, Receiver(ok) as other:
        buyer = await market.buyer(receiver.url, anywhere(priority=1))
        await market.buyer(other.url, anywhere(priority=2))
        leads = [await market.sold(number) for number in range(1, 13)]
        assert await shown(market, buyer) == AT_LEAST
        assert await suspension(market, buyer) == ("suspended", "refusals")
        assert [await market.state(lead) for lead in leads[AT_LEAST:]] == ["delivered"] * (12 - AT_LEAST)
        failures = await market.value(
            "select jsonb_path_query_array(candidates, '$[*].failures[*].rule') from decision where lead_id = $1",
            leads[-1],
        )
        assert b"suspended" in failures if isinstance(failures, bytes) else "suspended" in failures
        assert await market.value("select detail ->> 'counted' from audit where action = 'subscription.suspend'") == "5"


async def test_a_crowd_of_refusals_exceeds_the_quota_by_no_more_than_was_under_way(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(refuse("other")) as receiver:
        buyer = await market.buyer(receiver.url, available_minor=1_000_000)
        receipts = [await market.submit(number) for number in range(1, 31)]
        for start in range(0, 30, 6):
            await asyncio.gather(*(market.walker.walk(receipt.id) for receipt in receipts[start : start + 6]))
        assert await shown(market, buyer) <= AT_LEAST + 6
        assert await suspension(market, buyer) == ("suspended", "refusals")


async def test_refusals_below_the_share_suspend_nobody(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(*[ok, ok, ok, refuse("other")] * 5) as receiver:
        buyer = await market.buyer(receiver.url, available_minor=1_000_000)
        for number in range(1, 21):
            await market.sold(number)
        assert await market.value("select count(*) from assignment where state = 'refused'") == AT_LEAST
        assert await suspension(market, buyer) == ("active", None)


async def test_leads_that_lapse_suspend_the_subscription(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(503)) as receiver:
        buyer = await market.buyer(receiver.url)
        for number in range(1, AT_LEAST + 1):
            await market.sold(number)
            await market.owner.execute("update endpoint set breaker = '{}', breaker_open_until = null")
        assert await suspension(market, buyer) == ("active", None)
        await market.owner.execute(
            "update assignment set due_at = clock_timestamp(), evidence_until = clock_timestamp() - interval '1 second'"
        )
        await market.sweeper.sweep()
        await asyncio.gather(*market.sweeper._running)
        assert await suspension(market, buyer) == ("suspended", "unacknowledged")


async def test_a_feed_that_is_read_and_never_acknowledged_is_suspended_within_the_hour(settings: Settings) -> None:
    async with marketplace(settings) as market:
        buyer = await market.buyer(None)
        for number in range(1, AT_LEAST + 1):
            await expose_in_feed(market, await market.sold(number))
        await market.sold(50)
        assert await suspension(market, buyer) == ("active", None)
        await market.owner.execute(
            "update assignment set exposed_at = exposed_at - interval '2 hours' where state = 'exposed'"
        )
        await market.sold(51)
        assert await suspension(market, buyer) == ("suspended", "unacknowledged")


async def expose_in_feed(market: Marketplace, lead_id: object) -> None:
    """Expose the lead by the queries of a feed, as if it had been read there."""
    async with market.owner.acquire() as connection, connection.transaction():
        await connection.execute("update lead set state = 'exposed' where id = $1", lead_id)
        await connection.execute(
            """insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address,
                attempt_no, exposed_at)
            select lead_id, id, business_id, 'feed', endpoint_id, '', 'key', 1, clock_timestamp()
            from assignment where lead_id = $1 and state = 'held'""",
            lead_id,
        )
        await connection.execute(
            """update assignment set state = 'exposed', exposed_at = clock_timestamp(),
                evidence_until = clock_timestamp() + interval '1 day' where lead_id = $1 and state = 'held'""",
            lead_id,
        )


async def test_only_an_operator_resumes_and_the_quota_counts_anew(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(refuse("other")) as receiver:
        buyer = await market.buyer(receiver.url, available_minor=1_000_000)
        for number in range(1, AT_LEAST + 1):
            await market.sold(number)
        own = TenantScope(business_id=buyer.business_id, mode="live")
        for state in ("active", "paused", "ended"):
            with pytest.raises(SubscriptionSuspended):
                await directory_flow.switch_subscription(market.api, "test", own, buyer.subscription_id, state)
        draft = SubscriptionRequest(name="Another", endpoint_id=buyer.endpoint_id, definition=anywhere())
        with pytest.raises(SubscriptionSuspended):
            await directory_flow.create_subscription(market.api, "test", buyer.business_id, "live", "roofing", draft)
        await directory_flow.switch_subscription(market.api, "test", OPERATOR, buyer.subscription_id, "active")
        assert await suspension(market, buyer) == ("active", "refusals")
        for number in range(11, 11 + AT_LEAST - 1):
            await market.sold(number)
        assert (await suspension(market, buyer))[0] == "active"
        await market.sold(20)
        assert (await suspension(market, buyer))[0] == "suspended"
        assert await shown(market, buyer) == 2 * AT_LEAST
        row = await market.owner.fetchrow("select suspended_counted, suspended_shown from subscription")
        assert tuple(row) == (AT_LEAST, AT_LEAST)


async def test_the_suspension_of_one_business_keeps_no_other_from_subscribing(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(refuse("other")) as receiver:
        suspended = await market.buyer(receiver.url)
        for number in range(1, AT_LEAST + 1):
            await market.sold(number)
        assert (await suspension(market, suspended))[0] == "suspended"
        other = await market.buyer(receiver.url)
        draft = SubscriptionRequest(name="More", endpoint_id=other.endpoint_id, definition=anywhere())
        made = await directory_flow.create_subscription(market.api, "test", other.business_id, "live", "roofing", draft)
        assert made.state == "active"


async def test_the_quota_is_the_verticals(settings: Settings) -> None:
    async with marketplace(settings, roofing(quota_at_least=2)) as market, Receiver(refuse("other")) as receiver:
        buyer = await market.buyer(receiver.url)
        for number in range(1, 5):
            await market.sold(number)
        assert await shown(market, buyer) == 2
