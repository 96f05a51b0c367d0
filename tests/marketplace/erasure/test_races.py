"""Erasures while a lead is distributed or delivered, on real connections and with real receiving servers.

A step is paused at one of its statements, the erasure runs, and the step continues. The tests check what the receiver
read and what was stored.
"""

import asyncio
from uuid import UUID

import asyncpg
import msgspec
import pytest

from marketplace.delivery.flow import AttemptResult, Delivery
from marketplace.delivery.store import SQL as DELIVERY
from marketplace.erasure.flow import erase_lead, erase_person
from marketplace.erasure.store import Erasure
from marketplace.operations.verify import verify
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from routing.calendar import CapWindow
from routing.subscription import Cap
from tests.builders.marketplaces import PRICE_MINOR, Marketplace, anywhere, marketplace
from tests.builders.pausing import HeldUp
from tests.builders.service import waits_for_locks
from tests.builders.world import INSERT_EXPOSURE
from tests.receivers import Receiver, answer, status

FULL = 100_000
OPERATOR = Principal(key_id="operator", kind=CallerKind.operator, owner_id=None, mode="live")


async def erase(market: Marketplace, lead_id: UUID) -> Erasure:
    (done,) = (await erase_lead(market.api, OPERATOR, lead_id, "asked", also_suppress=True)).erasures
    return done


async def claimed(market: Marketplace, number: int = 1) -> tuple[UUID, UUID]:
    """Return a lead that was awarded and not attempted yet, and its assignment."""
    lead_id = (await market.submit(number)).id
    assignment_id = await market.distribution.distribute(lead_id)
    assert assignment_id is not None
    return lead_id, assignment_id


def through(market: Marketplace, held_up: HeldUp) -> Delivery:
    return Delivery(held_up.pool, market.sealer, market.guard, market.delivery._journal)


async def sweep(market: Marketplace) -> None:
    await market.owner.execute("update assignment set due_at = clock_timestamp() where due_at is not null")
    await market.sweeper.sweep()
    await asyncio.gather(*market.sweeper._running)


async def clean(market: Marketplace) -> bool:
    async with market.owner.acquire() as connection:
        report = await verify(connection)
    assert [check for check in report.checks if check.findings and check.severity == "finding"] == []
    return True


async def test_a_lead_erased_before_it_is_routed_is_given_to_nobody(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead_id = (await market.submit()).id
        done = await erase(market, lead_id)
        assert (done.state, done.notice_state, done.suppressed) == ("rejected", "not_needed", True)
        await market.walker.walk(lead_id)
        assert (await market.state(lead_id), receiver.visits) == ("rejected", [])
        assert await clean(market)


async def test_a_lead_erased_after_its_claim_gives_hold_and_cap_back(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url, anywhere(caps=(Cap(window=CapWindow.day, count=5),)))
        lead_id, assignment_id = await claimed(market)
        assert await market.wallet(buyer) == (FULL - PRICE_MINOR, PRICE_MINOR)
        assert (await erase(market, lead_id)).state == "unsold"
        assert await market.wallet(buyer) == (FULL, 0)
        assert await market.value("select sum(used_count) from cap_usage") == 0
        assert await market.delivery.deliver(assignment_id) is AttemptResult.nothing_to_do
        await market.walker.walk(lead_id)
        assert receiver.visits == []
        assert await market.row("select state, reason from lead") == {"state": "unsold", "reason": "erased"}
        assert await clean(market)


async def waiting(market: Marketplace, many: int) -> None:
    """Wait until so many wait for a lock: the award for the wallet, the erasure for the award's lead."""
    assert await waits_for_locks(market, many)


async def test_an_erasure_in_the_middle_of_an_award_waits_and_undoes_it(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url)
        lead_id = (await market.submit()).id
        async with market.owner.acquire() as spender, spender.transaction():
            await spender.execute("select from wallet for update")
            award = asyncio.create_task(market.distribution.distribute(lead_id))
            await waiting(market, 1)
            erasing = asyncio.create_task(erase(market, lead_id))
            await waiting(market, 2)
        assignment_id = await award
        assert assignment_id is not None
        assert (await erasing).state == "unsold"
        assert await market.delivery.deliver(assignment_id) is AttemptResult.nothing_to_do
        assert (receiver.visits, await market.wallet(buyer)) == ([], (FULL, 0))
        assert await clean(market)


async def test_a_lead_erased_between_the_connection_and_the_exposure_is_not_sent(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver, Receiver(status(200)) as other:
        buyer = await market.buyer(receiver.url, anywhere(priority=1))
        await market.buyer(other.url, anywhere(priority=2))
        lead_id, assignment_id = await claimed(market)
        held_up = HeldUp(market.distribution._pool, DELIVERY["expose"])
        attempt = asyncio.create_task(through(market, held_up).deliver(assignment_id))
        await held_up.arrived.wait()
        done = await erase(market, lead_id)
        held_up.let_go.set()
        assert await attempt is AttemptResult.nothing_to_do
        assert (done.state, done.notice_state) == ("unsold", "not_needed")
        assert [visit.raw for visit in receiver.visits + other.visits] == [b""]
        assert await market.value("select count(*) from exposure") == 0
        assert await market.wallet(buyer) == (FULL, 0)
        assert await clean(market)


async def test_a_lead_erased_between_exposure_and_reading_is_not_sent_then_or_later(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url)
        lead_id, assignment_id = await claimed(market)
        held_up = HeldUp(market.distribution._pool, DELIVERY["read_contact"])
        attempt = asyncio.create_task(through(market, held_up).deliver(assignment_id))
        await held_up.arrived.wait()
        done = await erase(market, lead_id)
        held_up.let_go.set()
        assert await attempt is AttemptResult.retrying
        assert (done.state, done.notice_state, done.business_id) == ("exposed", "due", buyer.business_id)
        await market.owner.execute("update notice set due_at = clock_timestamp() + interval '1 hour'")
        for _ in range(3):
            await sweep(market)
        assert [visit.raw for visit in receiver.visits] == [b""]
        assert await market.value("select due_at = evidence_until from assignment")
        assert await clean(market)
        await market.owner.execute("update assignment set evidence_until = clock_timestamp() - interval '1 second'")
        await sweep(market)
        assert (await market.state(lead_id), await market.wallet(buyer)) == ("lapsed", (FULL, 0))


async def test_an_attempt_that_had_read_the_contact_may_finish_and_its_business_is_told(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url)
        lead_id, assignment_id = await claimed(market)
        held_up = HeldUp(market.distribution._pool, DELIVERY["read_contact"], after=True)
        attempt = asyncio.create_task(through(market, held_up).deliver(assignment_id))
        await held_up.arrived.wait()
        done = await erase(market, lead_id)
        held_up.let_go.set()
        assert await attempt is AttemptResult.delivered
        assert (done.notice_state, done.business_id) == ("due", buyer.business_id)
        assert await market.wallet(buyer) == (FULL - PRICE_MINOR, 0)
        await market.sweeper.sweep()
        await asyncio.gather(*market.sweeper._running)
        sent = [msgspec.json.decode(visit.body)["type"] for visit in receiver.visits]
        assert sent == ["lead.assigned", "lead.erasure_requested"]
        assert await clean(market)


async def test_an_answer_that_comes_after_the_erasure_leaves_no_trace_of_the_person(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(answer(400, b"we know robin.1@example.com")) as receiver:
        await market.buyer(receiver.url)
        lead_id, assignment_id = await claimed(market)
        held_up = HeldUp(market.distribution._pool, DELIVERY["read_contact"], after=True)
        attempt = asyncio.create_task(through(market, held_up).deliver(assignment_id))
        await held_up.arrived.wait()
        await erase(market, lead_id)
        held_up.let_go.set()
        assert await attempt is AttemptResult.refused
        assert await market.row("select status, answer_excerpt from attempt") == {"status": 400, "answer_excerpt": None}


async def test_every_lead_erased_during_distribution_is_either_unseen_or_has_a_notice(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url, available_minor=100 * PRICE_MINOR)
        receipts = [await market.submit(number) for number in range(40)]

        async def erase_after(number: int, lead_id: UUID) -> Erasure:
            await asyncio.sleep(0.004 * (number % 20))
            return await erase(market, lead_id)

        walks = [market.walker.walk(receipt.id) for receipt in receipts]
        erasing = [erase_after(number, receipt.id) for number, receipt in enumerate(receipts)]
        outcomes = await asyncio.gather(*walks, *erasing)
        bodies = [msgspec.json.decode(visit.body) for visit in receiver.visits if visit.raw]
        notified = [done for done in outcomes if isinstance(done, Erasure) and done.notice_state == "due"]
        assert len({body["data"]["lead_id"] for body in bodies}) == len(bodies) <= len(notified)
        assert await market.value("select count(*) from exposure") == len(notified)
        assert await market.value("select count(*) from data_key") == 0
        assert await clean(market)


async def test_two_erasures_of_one_lead_at_once_are_one(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead_id = await market.sold()
        outcomes = await asyncio.gather(*(erase(market, lead_id) for _ in range(8)))
        assert len({(done.requested_at, done.suppressed) for done in outcomes}) == 1
        assert await market.value("select count(*) from audit where action = 'lead.erase'") == 1


async def test_a_person_suppressed_while_their_lead_is_open_is_shown_to_nobody(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url)
        waiting = (await market.submit(1)).id
        lead_id, assignment_id = await claimed(market, 2)
        keys = await market.owner.fetch("select key from person_key")
        await market.owner.executemany(
            "insert into suppression (key, reason, source) values ($1, 'asked', 'test')",
            [(row["key"],) for row in keys],
        )
        await market.walker.walk(waiting)
        await market.walker.attempt_and_walk_on(assignment_id, lead_id)
        assert (await market.state(waiting), await market.state(lead_id)) == ("rejected", "unsold")
        assert (receiver.visits, await market.wallet(buyer)) == ([], (FULL, 0))
        assert await clean(market)


async def test_a_person_suppressed_between_the_connection_and_the_exposure_is_not_sent(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead_id, assignment_id = await claimed(market)
        held_up = HeldUp(market.distribution._pool, DELIVERY["expose"])
        attempt = asyncio.create_task(through(market, held_up).deliver(assignment_id))
        await held_up.arrived.wait()
        provider = Principal(key_id="p", kind=CallerKind.provider, owner_id=clock.new_id(), mode="live")
        marks = ("email:robin.1@example.com",)
        strangers = await erase_person(market.api, market.sealer, provider, marks, "asked", also_suppress=True)
        assert strangers.erasures == ()
        held_up.let_go.set()
        assert await attempt is AttemptResult.retrying
        await sweep(market)
        assert [visit.raw for visit in receiver.visits] == [b""]
        assert await market.state(lead_id) == "unsold"


async def test_the_database_alone_refuses_to_expose_an_erased_lead(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead_id, assignment_id = await claimed(market)
        await market.owner.execute(
            "insert into erasure (lead_id, requested_at, requested_by, reason, suppressed) "
            "values ($1, now(), 'test', 'asked', false)",
            lead_id,
        )
        with pytest.raises(asyncpg.RestrictViolationError, match="this lead was erased"):
            await market.owner.execute(INSERT_EXPOSURE, assignment_id)
