"""A worker of the marketplace on stock arq, polling every 5 ms: all else as in production, for queue_in_service.py.

    python -m benchmarks.stock_worker work

Takes the same notifications: they are on arq's keys.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import msgspec
from arq.connections import RedisSettings, create_pool
from arq.worker import Worker, func

from marketplace import cli
from marketplace.runtime import clock, queue
from marketplace.runtime.queue import DEFAULT_LIMITS, Job, OnJob

POLL_SECONDS: Final = 0.005


async def answer(
    valkey_url: str, jobs: Mapping[str, Job], *, slots: int, stopping: asyncio.Event, on_job: OnJob
) -> None:
    """Run `jobs` as arq's documentation intends, until `stopping` is set or arq gives up."""

    def function(name: str, job: Job) -> Any:
        async def run(context: dict[Any, Any], id: str) -> None:
            waited_ms = 1000 * (clock.now() - context["enqueue_time"]).total_seconds()
            began, error = clock.monotonic(), None
            try:
                await job(UUID(id))
            except Exception as failure:
                error = type(failure).__name__
                raise
            finally:
                on_job(name, UUID(id), waited_ms, 1000 * (clock.monotonic() - began), error)

        return func(run, name=name, keep_result=0)  # type: ignore[arg-type]

    valkey = await create_pool(RedisSettings.from_dsn(valkey_url))
    worker = Worker(
        [function(name, job) for name, job in jobs.items()],
        redis_pool=valkey,
        poll_delay=POLL_SECONDS,
        max_jobs=slots,
        job_timeout=DEFAULT_LIMITS.job_timeout_s,
        job_serializer=msgspec.json.encode,
        job_deserializer=msgspec.json.decode,
        handle_signals=False,
        log_results=False,
    )
    running, stopped = asyncio.create_task(worker.async_run()), asyncio.create_task(stopping.wait())
    await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()  # an outage of Valkey ends it: the process leaves, and its supervisor starts another
    running.cancel()
    await worker.close()


if __name__ == "__main__":
    queue.answer = answer  # type: ignore[assignment]
    cli.main()
