"""Pace of caps in the database: curves that are learned, decisions that follow them, awards that keep to them."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec

from marketplace.database.background import run_pass
from marketplace.distribution.explorer import decide_again, find_arrivals, load_recorded_rules
from marketplace.distribution.store import find_case, list_decisions, read_candidates
from marketplace.rules.arrivals import PASS, SPAN, learn_curves
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from routing.lifecycle import LeadState
from routing.matching import Rule
from routing.pacing import FLAT, HOURS
from routing.subscription import SubscriptionDefinition
from tests.builders.marketplaces import Marketplace, anywhere, marketplace
from tests.builders.subscriptions import a_cap, early_zone
from tests.receivers import Receiver, ok

NOWHERE = "http://127.0.0.1:1/hook"


def paced(count: int) -> SubscriptionDefinition:
    """A cap of so many leads a day with pace, early on its day."""
    return anywhere(caps=(a_cap("day", count),), pace=True, zone=early_zone())


async def received(market: Marketplace, number: int, at: datetime) -> None:
    """Move a lead to another time of receipt."""
    receipt = await market.submit(number)
    await market.owner.execute("update lead set received_at = $2, qualified_at = $2 where id = $1", receipt.id, at)


async def test_a_curve_is_learned_from_the_qualified_leads_of_four_weeks_where_caps_are_paced(
    settings: Settings,
) -> None:
    async with marketplace(settings) as market:
        catalog, now = Catalog(market.worker), clock.now()
        monday = (now - timedelta(days=now.weekday() + 7)).replace(hour=9, minute=30)
        for number, at in enumerate((monday, monday, monday + timedelta(hours=1), now - SPAN - timedelta(hours=1)), 1):
            await received(market, number, at)
        await market.submit(5)  # not qualified yet
        await market.buyer(NOWHERE)
        assert await learn_curves(market.worker, catalog) == 0
        buyer = await market.buyer(NOWHERE, paced(10))
        before = (await catalog.current()).index[buyer.subscription_id].plan
        assert await learn_curves(market.worker, catalog) == 1
        rules = await catalog.current()
        curve = [1] * HOURS
        curve[9], curve[10] = 3, 2
        assert rules.by_slug["roofing"].arrivals == tuple(curve)
        plan = rules.index[buyer.subscription_id].plan
        assert before is not None
        assert plan is not None
        assert (before.sums[-1], plan.sums[-1]) == (3_600 * sum(FLAT), 3_600 * sum(curve))
        assert await learn_curves(market.worker, catalog) == 0
        assert await run_pass(market.worker, PASS, lambda: learn_curves(market.worker, catalog), every=1.0)
        async with market.worker.acquire() as connection:
            assert await find_arrivals(connection, "roofing", now) == FLAT
            assert await find_arrivals(connection, "roofing", clock.now()) == tuple(curve)


async def test_a_paced_lead_is_left_to_others_and_the_record_says_until_when(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(ok) as receiver:
        await market.buyer(receiver.url, paced(5))
        assert await market.state(await market.sold(1)) == "delivered"
        second = await market.sold(2)
        assert await market.state(second) == "unsold"
        assert await market.value("select reason from lead where id = $1", second) == Rule.paced
        text = await market.value("select candidates from decision where lead_id = $1", second)
        ((failure,),) = (record.failures for record in read_candidates(text.encode()))
        assert failure.rule is Rule.paced
        assert failure.detail.startswith("paced: 1 of 5 by 01:")
        assert failure.until is not None
        assert failure.until > clock.now() + timedelta(hours=2)
        other = await market.buyer(receiver.url)
        third = await market.sold(3)
        assert await market.value("select business_id from assignment where lead_id = $1", third) == other.business_id


async def test_a_paced_decision_is_repeated_with_the_curve_of_its_time(settings: Settings) -> None:
    """Every lead of the later curve arrives in the first hours of the day, so that the whole cap would be open."""
    async with marketplace(settings) as market, Receiver(ok) as receiver:
        await market.buyer(receiver.url, paced(5))
        await market.sold(1)
        second = await market.sold(2)
        local_hour = (datetime.now(UTC).hour - 1) % 24  # in which the day of the business begins
        early = [1_000_000 if hour % 24 == local_hour else 1 for hour in range(HOURS)]
        await market.owner.execute("insert into arrival_curve values ($1, now(), $2)", market.vertical_id, early)
        rules = await Catalog(market.worker).current()
        async with market.worker.acquire() as connection:
            case = await find_case(connection, second)
            (decision,) = await list_decisions(connection, second)
            assert case is not None
            records, at = read_candidates(decision.candidates), decision.made_at
            before = await load_recorded_rules(connection, records, case.facts, "US", at, rules)
            after = await load_recorded_rules(connection, records, case.facts, "US", clock.now(), rules)
            lead = msgspec.structs.replace(case, state=LeadState.received)
            again, later = [
                (await decide_again(connection, [(lead, rules.by_slug["roofing"])], recorded, at, records))[0]
                for recorded in (before, after)
            ]
        assert (again.outcome, again.candidates) == ("unsold", records)
        assert later.outcome == "held"


async def test_leads_that_are_decided_at_the_same_moment_do_not_exceed_the_pace(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(ok) as receiver:
        await market.buyer(receiver.url, paced(5))
        leads = [(await market.submit(number)).id for number in range(1, 6)]
        await asyncio.gather(*(market.distribution.distribute(lead_id) for lead_id in leads))
        assert await market.value("select count(*) from assignment") == 1
        row = await market.row("select used_count, limit_count from cap_usage where cap_window = 'day'")
        assert row == {"used_count": 1, "limit_count": 1}
