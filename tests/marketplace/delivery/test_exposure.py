"""The exposure at the last moment before a lead is sent: no lead is exposed that may not be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from marketplace.delivery.flow import AttemptResult, Delivery
from marketplace.delivery.store import SQL
from marketplace.distribution.flow import Distribution
from marketplace.distribution.store import SQL as DISTRIBUTION
from marketplace.rules.catalog import Catalog
from marketplace.runtime.settings import Settings
from marketplace.webhook.kept import KeptConnections
from marketplace.webhook.transport import Reservations
from marketplace.worker import Walker
from tests.builders.marketplaces import Marketplace, marketplace
from tests.builders.pausing import HeldUp
from tests.receivers import Behaviour, Receiver, accept, one_by_one, status

FULL = 100_000


async def test_a_hold_that_ends_between_the_connection_and_the_exposure_sends_nothing(settings: Settings) -> None:
    """Another business may have the lead by then; the database's clock decides, under the lead's lock."""
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url)
        lead_id = (await market.submit()).id
        assignment_id = await market.distribution.distribute(lead_id)
        assert assignment_id is not None
        held_up = HeldUp(market.worker, SQL["expose"])
        delivery = Delivery(held_up.pool, market.sealer, market.guard, market.delivery._journal)
        attempt = asyncio.create_task(delivery.deliver(assignment_id))
        await held_up.arrived.wait()
        await market.owner.execute("update assignment set hold_until = clock_timestamp()")
        held_up.let_go.set()
        assert await attempt is AttemptResult.retrying
        assert [visit.raw for visit in receiver.visits] == [b""]
        assert await market.value("select count(*) from exposure") == 0
        assert await market.wallet(buyer) == (FULL - 5_000, 5_000)


class KeepingMarketplace:
    """A marketplace whose worker keeps connections open, as the service does, and the server of its one business."""

    def __init__(self, market: Marketplace, receiver: Receiver) -> None:
        self.market, self.receiver = market, receiver
        self.connections = KeptConnections()
        self.distribution = Distribution(
            market.worker, Catalog(market.worker), reservations=Reservations(market.guard, self.connections)
        )
        self.delivery = Delivery(
            market.worker, market.sealer, market.guard, market.delivery._journal, connections=self.connections
        )
        self.walker = Walker(self.distribution, self.delivery)

    async def lead_state(self) -> str:
        """Return the state of the lead that came last."""
        return str(await self.market.value("select state from lead order by received_at desc, id desc limit 1"))


@asynccontextmanager
async def with_open_connection(settings: Settings, *behaviours: Behaviour) -> AsyncIterator[KeepingMarketplace]:
    """One business that has received a lead, and whose server left the connection open for the next."""
    async with marketplace(settings) as market, Receiver(one_by_one(accept, *behaviours), *behaviours) as receiver:
        keeping = KeepingMarketplace(market, receiver)
        await market.buyer(receiver.url)
        await keeping.walker.walk((await market.submit()).id)
        assert await keeping.lead_state() == "delivered"
        try:
            yield keeping
        finally:
            keeping.connections.close()


async def test_a_lead_whose_business_has_an_open_connection_is_exposed_by_its_award(settings: Settings) -> None:
    async with with_open_connection(settings, accept) as keeping:
        market = keeping.market
        assignment_id = await keeping.distribution.distribute((await market.submit(2)).id)
        assert assignment_id is not None
        assert await keeping.lead_state() == "exposed"
        exposed = await market.row(
            """select e.url_sha256 = sha256(p.url::bytea) as same_url, e.address, e.attempt_no,
                   e.exposed_at = a.exposed_at and e.exposed_at < a.evidence_until as same_time,
                   e.committed_by::text = a.xmin::text as by_the_award
            from exposure e join assignment a on a.id = e.assignment_id join endpoint p on p.id = e.endpoint_id
            where a.id = $1""",
            assignment_id,
        )
        assert dict(exposed) == {
            "same_url": True, "address": f"127.0.0.1:{keeping.receiver.port}", "attempt_no": 1, "same_time": True,
            "by_the_award": True,
        }  # fmt: skip
        assert await keeping.delivery.deliver(assignment_id) is AttemptResult.delivered
        assert [len(visit.requests) for visit in keeping.receiver.visits] == [2]


async def test_without_an_open_connection_the_award_exposes_nothing(settings: Settings) -> None:
    async with with_open_connection(settings, accept) as keeping:
        keeping.connections.close()
        await asyncio.sleep(0)
        assignment_id = await keeping.distribution.distribute((await keeping.market.submit(2)).id)
        assert assignment_id is not None
        assert await keeping.lead_state() == "held"
        assert await keeping.delivery.deliver(assignment_id) is AttemptResult.delivered
        assert len(keeping.receiver.visits) == 2


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (
            "insert into suppression (key, reason, source) select distinct key, 'asked', 'operator' from person_key",
            "rejected",
        ),
        ("update endpoint set breaker_open_until = clock_timestamp() - interval '1 hour'", "held"),
    ],
    ids=["the person has withdrawn", "the server has to be probed first"],
)
async def test_the_award_exposes_nothing_on_an_open_connection_if(settings: Settings, change: str, state: str) -> None:
    async with with_open_connection(settings, accept) as keeping:
        lead_id = (await keeping.market.submit(2)).id
        held_up = HeldUp(keeping.market.worker, DISTRIBUTION["award"])
        keeping.distribution._pool = held_up.pool
        awarding = asyncio.create_task(keeping.distribution.distribute(lead_id))
        await held_up.arrived.wait()
        await keeping.market.owner.execute(change)
        held_up.let_go.set()
        if state == "held":
            assert await awarding is not None
        else:
            assert await awarding is None
            await keeping.distribution.distribute(lead_id)  # the sweeper's next turn ends the lead
        assert await keeping.lead_state() == state
        assert await keeping.market.value("select count(*) from exposure where lead_id = $1", lead_id) == 0


async def test_an_award_that_is_lost_leaves_the_connection_to_other_leads(settings: Settings) -> None:
    async with with_open_connection(settings, accept) as keeping:
        lead_id = (await keeping.market.submit(2)).id
        held_up = HeldUp(keeping.market.worker, DISTRIBUTION["award"])
        keeping.distribution._pool = held_up.pool
        awarding = asyncio.create_task(keeping.distribution.distribute(lead_id))
        await held_up.arrived.wait()
        await keeping.market.owner.execute("update subscription set state = 'paused'")
        held_up.let_go.set()
        assert await awarding is None
        await keeping.market.owner.execute("update subscription set state = 'active'")
        assignment_id = await Distribution(keeping.market.worker, Catalog(keeping.market.worker)).distribute(lead_id)
        assert assignment_id is not None
        assert await keeping.delivery.deliver(assignment_id) is AttemptResult.delivered
        assert len(keeping.receiver.visits) == 1


async def test_a_reserved_connection_that_ends_before_the_message_is_replaced_by_a_new_one(settings: Settings) -> None:
    """The lead is exposed by then: the same business has it, over a new connection to the same server."""
    async with with_open_connection(settings, accept) as keeping:
        assignment_id = await keeping.distribution.distribute((await keeping.market.submit(2)).id)
        assert assignment_id is not None
        keeping.connections.close()
        await asyncio.sleep(0.01)
        assert await keeping.delivery.deliver(assignment_id) is AttemptResult.delivered
        assert len(keeping.receiver.visits) == 2
        assert await keeping.market.value("select count(*) from exposure") == 2
