"""Queues beside each other: one class for each, with the same two sides. Each runs in an environment of its own.

A worker runs up to SLOTS jobs at once. A job that its worker did not finish is due again LEASE_SECONDS later, where the
queue has such a setting; everything else is as its documentation has it. Imports stand inside, because each
environment has one of the libraries only.
"""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

SLOTS = 32
LEASE_SECONDS = 30
JOB = "ring"

OnJob = Callable[[str], Awaitable[None]]


class Queue(Protocol):
    """One queue. `work` runs until cancelled; `open` is for the sender, which then enqueues."""

    async def open(self) -> None: ...

    async def enqueue(self, id: str) -> None: ...

    async def work(self, on_job: OnJob) -> None: ...


class Marketplace:
    """The queue of this project: wake-up tokens, claims in batches."""

    def __init__(self, valkey_url: str, database_url: str) -> None:
        self._url = valkey_url

    async def open(self) -> None:
        from marketplace.runtime.queue import Notifier

        self._notifier = Notifier(self._url)

    async def enqueue(self, id: str) -> None:
        await self._notifier.notify(JOB, uuid.UUID(id))

    async def work(self, on_job: OnJob) -> None:
        import asyncio

        from marketplace.runtime.queue import answer

        async def ring(id: uuid.UUID) -> None:
            await on_job(str(id))

        await answer(self._url, {JOB: ring}, slots=SLOTS, stopping=asyncio.Event(), on_job=lambda *_: None)


class Arq:
    """arq as it comes, with another poll delay in seconds."""

    poll_delay = 0.5

    def __init__(self, valkey_url: str, database_url: str) -> None:
        from arq.connections import RedisSettings

        self._settings = RedisSettings.from_dsn(valkey_url)

    async def open(self) -> None:
        from arq.connections import create_pool

        self._pool = await create_pool(self._settings)

    async def enqueue(self, id: str) -> None:
        await self._pool.enqueue_job(JOB, id, _job_id=id)

    async def work(self, on_job: OnJob) -> None:
        from arq.worker import Worker, func

        async def ring(context: dict[Any, Any], id: str) -> None:
            await on_job(id)

        worker = Worker(
            [func(ring, name=JOB, keep_result=0, timeout=LEASE_SECONDS - 10)],  # arq adds ten seconds
            redis_settings=self._settings,
            max_jobs=SLOTS,
            job_timeout=LEASE_SECONDS - 10,
            poll_delay=self.poll_delay,
            handle_signals=False,
        )
        await worker.main()


class ArqPolling(Arq):
    """arq, polling every 5 ms."""

    poll_delay = 0.005


class Saq:
    """saq on Valkey; unfinished jobs are looked for every second instead of every minute."""

    def __init__(self, valkey_url: str, database_url: str) -> None:
        import redis.asyncio
        from saq.queue.redis import RedisQueue

        self._queue = RedisQueue(redis.asyncio.Redis.from_url(valkey_url))

    async def open(self) -> None:
        await self._queue.connect()

    async def enqueue(self, id: str) -> None:
        await self._queue.enqueue(JOB, id=id, key=id, timeout=LEASE_SECONDS, retries=3, ttl=-1)

    async def work(self, on_job: OnJob) -> None:
        from saq import Worker

        async def ring(context: Any, *, id: str) -> None:
            await on_job(id)

        await Worker(self._queue, functions=[(JOB, ring)], concurrency=SLOTS, timers={"sweep": 1}).start()


class Taskiq:
    """taskiq with the streams of taskiq-redis."""

    def __init__(self, valkey_url: str, database_url: str) -> None:
        from taskiq_redis import RedisStreamBroker

        self._broker = RedisStreamBroker(
            valkey_url, consumer_id="0", idle_timeout=1000 * LEASE_SECONDS, unacknowledged_lock_timeout=LEASE_SECONDS
        )

    async def open(self) -> None:
        self._task = self._declare(None)
        await self._broker.startup()

    async def enqueue(self, id: str) -> None:
        await self._task.kiq(id)

    async def work(self, on_job: OnJob) -> None:
        from taskiq.api import run_receiver_task

        self._declare(on_job)
        await run_receiver_task(self._broker, run_startup=True, max_async_tasks=SLOTS)

    def _declare(self, on_job: OnJob | None) -> Any:
        async def ring(id: str) -> None:
            assert on_job is not None
            await on_job(id)

        return self._broker.register_task(ring, task_name=JOB)


class Streaq:
    """streaq."""

    def __init__(self, valkey_url: str, database_url: str) -> None:
        from streaq import Worker

        self._worker: Any = Worker(
            redis_url=valkey_url, concurrency=SLOTS, idle_timeout=LEASE_SECONDS, handle_signals=False
        )

    async def open(self) -> None:
        self._task = self._declare(None)
        await self._worker.__aenter__()

    async def enqueue(self, id: str) -> None:
        await self._task.enqueue(id)

    async def work(self, on_job: OnJob) -> None:
        self._declare(on_job)
        await self._worker.run_async()

    def _declare(self, on_job: OnJob | None) -> Any:
        async def ring(id: str) -> None:
            assert on_job is not None
            await on_job(id)

        return self._worker.task(name=JOB, ttl=0)(ring)


class Procrastinate:
    """procrastinate on PostgreSQL, told of new jobs by notifications. Stalled jobs wait for a task of the user's."""

    def __init__(self, valkey_url: str, database_url: str) -> None:
        import procrastinate

        self._app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=database_url, max_size=SLOTS))

    async def open(self) -> None:
        self._task = self._declare(None)
        await self._app.open_async()

    async def enqueue(self, id: str) -> None:
        await self._task.defer_async(id=id)

    async def work(self, on_job: OnJob) -> None:
        self._declare(on_job)
        async with self._app.open_async():
            await self._app.run_worker_async(concurrency=SLOTS, install_signal_handlers=False, delete_jobs="always")

    async def install(self) -> None:
        async with self._app.open_async():
            await self._app.schema_manager.apply_schema_async()

    def _declare(self, on_job: OnJob | None) -> Any:
        @self._app.task(name=JOB)
        async def ring(id: str) -> None:
            assert on_job is not None
            await on_job(id)

        return ring


class Pgqueuer:
    """pgqueuer on PostgreSQL, with asyncpg."""

    def __init__(self, valkey_url: str, database_url: str) -> None:
        self._url = database_url

    async def open(self) -> None:
        import asyncpg
        from pgqueuer import AsyncpgPoolDriver, Queries

        self._queries = Queries(AsyncpgPoolDriver(await asyncpg.create_pool(self._url, min_size=4)))

    async def enqueue(self, id: str) -> None:
        await self._queries.enqueue(JOB, id.encode(), 0)

    async def work(self, on_job: OnJob) -> None:
        from datetime import timedelta

        import asyncpg
        from pgqueuer import AsyncpgDriver, Job, PgQueuer

        queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(self._url)))

        @queuer.entrypoint(JOB)
        async def ring(job: Job) -> None:
            assert job.payload is not None
            await on_job(job.payload.decode())

        await queuer.run(max_concurrent_tasks=SLOTS, heartbeat_timeout=timedelta(seconds=LEASE_SECONDS))

    async def install(self) -> None:
        import asyncpg
        from pgqueuer import AsyncpgDriver, Queries

        connection = await asyncpg.connect(self._url)
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()


QUEUES: dict[str, Callable[[str, str], Queue]] = {
    "marketplace": Marketplace,
    "arq": Arq,
    "arq_5ms": ArqPolling,
    "saq": Saq,
    "taskiq": Taskiq,
    "streaq": Streaq,
    "procrastinate": Procrastinate,
    "pgqueuer": Pgqueuer,
}
