"""One lead at a time, from intake to a business's endpoint, on a real database and with real receiving servers."""

import asyncio

import msgspec
import pytest
from standardwebhooks import Webhook

from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from routing.calendar import CapWindow
from routing.subscription import Area, Cap
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import PAYOUT_MINOR, PRICE_MINOR, anywhere, marketplace, roofing
from tests.builders.service import waits_for_locks
from tests.receivers import (
    Behaviour,
    Receiver,
    answer,
    cut_refusal,
    drop_after_read,
    gzipped_refusal,
    html_page,
    refuse,
    status,
)
from tests.waiting import clear_of_the_hour

DEAD = "http://127.0.0.1:1/hook"
FULL = 100_000


async def test_a_lead_is_delivered_to_one_business_and_paid_for(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver, Receiver(status(200)) as other:
        buyer = await market.buyer(receiver.url, anywhere(priority=1))
        await market.buyer(other.url, anywhere(priority=2))
        lead_id = await market.sold()
        assert await market.state(lead_id) == "delivered"
        assert await market.wallet(buyer) == (FULL - PRICE_MINOR, 0)
        assert await market.value("select sum(amount_minor) from transfer where kind = 'payout'") == PAYOUT_MINOR
        assert (len(receiver.visits), len(other.visits)) == (1, 0)
        headers = {name.lower(): value for name, value in receiver.visits[0].headers.items()}
        Webhook(buyer.secret).verify(receiver.visits[0].body, headers)
        data = msgspec.json.decode(receiver.visits[0].body)["data"]
        assert data["contact"]["email"] == "robin.1@example.com"
        assert data["bant"]["verdict"]["policy_version"] == 1


async def test_an_unreachable_endpoint_costs_nothing_and_the_next_business_gets_the_lead(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        dead = await market.buyer(DEAD, anywhere(priority=1, caps=(Cap(window=CapWindow.day, count=5),)))
        alive = await market.buyer(receiver.url, anywhere(priority=2))
        lead_id = await market.sold()
        for _ in range(2):  # the quick retries within the hold window
            await market.owner.execute("update assignment set due_at = clock_timestamp() where state = 'held'")
            await market.sweeper.sweep()
            await asyncio.gather(*market.sweeper._running)
        assert await market.state(lead_id) == "delivered"
        assert await market.wallet(dead) == (FULL, 0)
        assert await market.wallet(alive) == (FULL - PRICE_MINOR, 0)
        assert (
            await market.value("select sum(used_count) from cap_usage where subscription_id = $1", dead.subscription_id)
            == 0
        )
        assert await market.value("select array_agg(state order by awarded_at) from assignment") == [
            "released",
            "delivered",
        ]


@pytest.mark.parametrize(
    "behaviour",
    [drop_after_read, status(500), cut_refusal, html_page],
    ids=["dropped after reading", "500", "refusal cut off", "page of HTML"],
)
async def test_a_lead_that_may_have_been_read_stays_with_its_business(settings: Settings, behaviour: Behaviour) -> None:
    async with (
        marketplace(settings) as market,
        Receiver(behaviour, status(200)) as receiver,
        Receiver(status(200)) as other,
    ):
        buyer = await market.buyer(receiver.url, anywhere(priority=1))
        await market.buyer(other.url, anywhere(priority=2))
        lead_id = await market.sold()
        assert await market.state(lead_id) == "exposed"
        await market.owner.execute("update assignment set due_at = clock_timestamp()")
        await market.sweeper.sweep()
        await asyncio.gather(*market.sweeper._running)
        assert await market.state(lead_id) == "delivered"
        assert len(other.visits) == 0
        ids = {visit.headers["Webhook-Id"] for visit in receiver.visits}
        assert (len(receiver.visits), len(ids)) == (2, 1)
        assert await market.wallet(buyer) == (FULL - PRICE_MINOR, 0)


@pytest.mark.parametrize("behaviour", [refuse("own_customer"), gzipped_refusal], ids=["plain", "compressed"])
async def test_a_refusal_ends_the_lead_and_charges_nobody(settings: Settings, behaviour: Behaviour) -> None:
    async with (
        marketplace(settings) as market,
        Receiver(behaviour) as receiver,
        Receiver(status(200)) as other,
    ):
        buyer = await market.buyer(receiver.url, anywhere(priority=1))
        await market.buyer(other.url, anywhere(priority=2))
        lead_id = await market.sold()
        assert await market.state(lead_id) == "refused"
        assert await market.wallet(buyer) == (FULL, 0)
        assert len(other.visits) == 0


async def test_without_evidence_by_the_deadline_the_hold_is_released(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(503)) as receiver:
        buyer = await market.buyer(receiver.url)
        lead_id = await market.sold()
        await market.owner.execute(
            "update assignment set due_at = clock_timestamp(), evidence_until = clock_timestamp() - interval '1 second'"
        )
        await market.sweeper.sweep()
        await asyncio.gather(*market.sweeper._running)
        assert await market.state(lead_id) == "lapsed"
        assert await market.wallet(buyer) == (FULL, 0)


async def test_a_cap_is_never_passed_however_many_walk_at_once(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url, anywhere(caps=(Cap(window=CapWindow.total, count=3),)))
        receipts = [await market.submit(number) for number in range(1, 11)]
        await asyncio.gather(*(market.walker.walk(receipt.id) for receipt in receipts))
        assert await market.value("select count(*) from assignment") == 3
        assert await market.wallet(buyer) == (FULL - 3 * PRICE_MINOR, 0)


async def test_a_wallet_is_never_overdrawn_however_many_walk_at_once(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url, available_minor=2 * PRICE_MINOR + 1)
        receipts = [await market.submit(number) for number in range(1, 11)]
        await asyncio.gather(*(market.walker.walk(receipt.id) for receipt in receipts))
        assert await market.wallet(buyer) == (1, 0)
        assert await market.value("select count(*) from lead where state = 'delivered'") == 2


async def test_one_lead_walked_many_times_at_once_is_given_once(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        receipt = await market.submit()
        await asyncio.gather(*(market.walker.walk(receipt.id) for _ in range(10)))
        assert await market.value("select count(*) from assignment") == 1
        assert len(receiver.visits) == 1


async def test_a_lead_that_nobody_takes_ends_unsold_with_its_nearest_miss(settings: Settings) -> None:
    async with marketplace(settings) as market:
        await market.buyer(DEAD, anywhere(area=Area(prefixes=("9",))))
        lead_id = await market.sold()
        assert await market.state(lead_id) == "unsold"
        assert await market.value("select reason from lead where id = $1", lead_id) == "outside_area"
        assert await market.value("select count(*) from person_window where not isempty(during)") == 0


async def test_a_patient_vertical_waits_for_a_wallet_to_open_its_day(settings: Settings) -> None:
    patient = roofing(patience_seconds=3_600)
    async with marketplace(settings, patient) as market, Receiver(status(200)) as receiver:
        await clear_of_the_hour()
        await market.buyer(receiver.url, anywhere(caps=(Cap(window=CapWindow.hour, count=1),)))
        await market.sold(1)
        waiting = await market.sold(2)
        row = await market.row(
            "select state, reason, due_at > clock_timestamp() as later from lead where id = $1", waiting
        )
        assert row == {"state": "prospect", "reason": "cap_reached", "later": True}


async def test_a_lead_below_the_budget_is_rejected_and_the_person_may_ask_again(settings: Settings) -> None:
    async with marketplace(settings) as market:
        bant = {
            "budget": {"minor": 100, "currency": "USD"},
            "authority": "decision_maker",
            "need": {"fields": {"roof_type": "tile"}},
            "timing": {"within_days": 14},
        }
        lead_id = await market.sold(1, bant=bant)
        assert await market.state(lead_id) == "rejected"
        assert await market.value("select reason from lead where id = $1", lead_id) == "budget_below_minimum"
        again = await market.submit(1, provider_reference="again")
        assert again.state == "received"


async def test_a_nurtured_lead_waits_and_is_qualified_again(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        bant = {
            "budget": {"minor": 1_200_000, "currency": "USD"},
            "authority": "decision_maker",
            "need": {"fields": {"roof_type": "tile"}},
            "timing": {"within_days": 80},
        }
        lead_id = await market.sold(1, bant=bant)
        assert await market.state(lead_id) == "nurturing"
        due = await market.row("select due_at > clock_timestamp() + interval '10 days' as later from lead")
        assert due["later"]
        duplicate = await market.submit(1, provider_reference="second")
        assert duplicate.state == "duplicate"


async def test_a_lead_that_waits_too_long_for_its_turn_ends_if_the_person_has_asked_again(settings: Settings) -> None:
    """Its window is over before anybody decides about it, and the later inquiry has the time that it would wait."""
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        later = {"timing": {"within_days": 80}}
        bant = roofing_body(1, clock.now())["bant"] | later
        first = await market.submit(1, bant=bant)
        await market.owner.execute(
            "update person_window set during = tstzrange(now() - interval '40 days', now() - interval '1 day')"
        )
        again = await market.submit(1, provider_reference="again")
        assert again.state == "received"
        await market.walker.walk(first.id)
        assert await market.state(first.id) == "rejected"
        assert await market.value("select reason from lead where id = $1", first.id) == "asked_again"
        await market.walker.walk(again.id)
        assert await market.state(again.id) == "delivered"


async def test_a_gone_endpoint_is_switched_off(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(answer(410)) as receiver:
        buyer = await market.buyer(receiver.url)
        await market.sold()
        assert await market.value("select state from endpoint where id = $1", buyer.endpoint_id) == "disabled"


async def test_a_test_mode_lead_touches_neither_wallet_nor_cap(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url, mode="test")
        live = await market.sold(1)
        tester = await market.another_provider(mode="test")
        receipt = await market.submit(2, by=tester)
        await market.walker.walk(receipt.id)
        assert (await market.state(live), await market.state(receipt.id)) == ("unsold", "delivered")
        assert await market.wallet(buyer) == (FULL, 0)
        assert await market.value("select count(*) from cap_usage") == 0


async def test_an_edit_in_the_middle_of_an_award_is_seen_by_it(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url)
        receipt = await market.submit()
        dearer = msgspec.json.encode(anywhere(price_minor=9_000)).decode()
        async with market.owner.acquire() as editor, editor.transaction():
            await editor.execute(
                "insert into subscription_version (subscription_id, version, definition, made_by) "
                "values ($1, 2, $2, 'x')",
                buyer.subscription_id,
                dearer,
            )
            await editor.execute("update subscription set version = 2 where id = $1", buyer.subscription_id)
            walk = asyncio.create_task(market.walker.walk(receipt.id))
            assert await waits_for_locks(market)  # the award, for the editor's lock
        await walk
        assert await market.row("select state, reason from lead") == {"state": "prospect", "reason": "price_changed"}
        await market.walker.walk(receipt.id)
        assert await market.value("select price_minor from assignment where state = 'delivered'") == 9_000


EDITS = {
    "breaker opened": "update endpoint set breaker_open_until = now() + interval '1 minute'",
    "endpoint switched off": "update endpoint set state = 'disabled'",
    "business frozen": "update business set state = 'frozen'",
    "subscription paused": "update subscription set state = 'paused'",
    "subscription ended": "update subscription set state = 'ended'",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
async def test_whatever_stops_a_subscription_in_the_middle_of_an_award_stops_the_award(
    settings: Settings, edit: str
) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url)
        receipt = await market.submit()
        async with market.owner.acquire() as editor, editor.transaction():
            await editor.execute("select from subscription for no key update")
            await editor.execute(edit)
            walk = asyncio.create_task(market.walker.walk(receipt.id))
            assert await waits_for_locks(market)
        await walk
        assert await market.row("select state, reason from lead") == {"state": "prospect", "reason": "withdrawn"}
        assert (receiver.visits, await market.wallet(buyer)) == ([], (FULL, 0))
