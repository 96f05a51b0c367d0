"""The exposure at the last moment before a lead is sent: no lead is exposed that may not be."""

import asyncio

from marketplace.delivery.flow import AttemptResult, Delivery
from marketplace.delivery.store import SQL
from marketplace.runtime.settings import Settings
from tests.builders.marketplaces import marketplace
from tests.builders.pausing import HeldUp
from tests.receivers import Receiver, status

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
