"""Worker of the bare pipeline: stock arq, polling every 5 ms.

python -m benchmarks.floor.worker DATABASE_URL VALKEY_URL POOL_SIZE BUSINESSES
"""

import asyncio
import gc
import sys
from typing import Any, Final
from uuid import UUID

import aiohttp
import msgspec
import uvloop
from arq.connections import RedisSettings, create_pool
from arq.worker import Worker, func

from benchmarks.floor.store import SQL, open_pool
from marketplace.database.db import Pool
from marketplace.operations.processes import told_to_stop
from marketplace.runtime import clock
from marketplace.webhook.signing import sign

POLL_SECONDS: Final = 0.005
SLOTS: Final = 200
"Jobs at once, as in a worker of the marketplace."
JOB_SECONDS: Final = 25
PRICE_MINOR: Final = 5_000


class Courier:
    """Job of the bare pipeline: award, post, update."""

    def __init__(self, pool: Pool, session: aiohttp.ClientSession, businesses: int) -> None:
        self._pool = pool
        self._session = session
        self._businesses = businesses

    async def deliver(self, context: dict[Any, Any], id: str) -> None:
        """Award the lead, post it on a kept connection, and store the result. A lead that is sold already is left."""
        started_at = clock.now()
        queue_ms = 1000 * (started_at - context["enqueue_time"]).total_seconds()
        lead_id = UUID(id)
        row = await self._pool.fetchrow(SQL["award"], lead_id, lead_id.int % self._businesses, PRICE_MINOR)
        if row is None:
            return
        data = {"lead_id": id, "contact": msgspec.Raw(row["contact"]), "facts": msgspec.Raw(row["facts"])}
        body = msgspec.json.encode({"type": "lead.assigned", "timestamp": started_at, "data": data})
        headers = sign((row["secret"],), f"msg_{id}", clock.now(), body)
        headers["Content-Type"] = "application/json"
        posted_at = clock.monotonic()
        async with self._session.post(row["url"], data=body, headers=headers) as response:
            receiver_ms = 1000 * (clock.monotonic() - posted_at)
            await response.read()
        state = "delivered" if response.status == 200 else "refused"
        await self._pool.execute(SQL["mark_delivered"], lead_id, state, queue_ms, receiver_ms, clock.now())


async def work(database_url: str, valkey_url: str, pool_size: int, businesses: int) -> None:
    """Run jobs until told to stop."""
    pool = await open_pool(database_url, pool_size)
    valkey = await create_pool(RedisSettings.from_dsn(valkey_url))
    timeout = aiohttp.ClientTimeout(total=20)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    async with pool, told_to_stop() as stopping, aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        courier = Courier(pool, session, businesses)
        worker = Worker(
            [func(courier.deliver, name="deliver", keep_result=0)],  # type: ignore[arg-type]
            redis_pool=valkey,
            poll_delay=POLL_SECONDS,
            max_jobs=SLOTS,
            job_timeout=JOB_SECONDS,
            handle_signals=False,
            log_results=False,
        )
        gc.collect()
        gc.freeze()
        running = asyncio.create_task(worker.async_run())
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        await worker.close()


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
