"""Measure one queue: pick-up of an idle worker, its idle processor time and a burst; or recovery after a kill.

    python benchmarks/peers/pickup.py measure NAME VALKEY_URL DATABASE_URL [--samples 300] [--burst 5000]
    python benchmarks/peers/pickup.py recover NAME VALKEY_URL DATABASE_URL [--limit 90]

Runs in the environment of that queue, which needs no more than its library and uvloop. Prints one JSON object. The
worker is a process of its own. This process enqueues a job every 15 to 45 ms; pick-up is the time from just before the
call to the first line of the job, by the machine's monotonic clock. Then nothing is enqueued for IDLE_SECONDS, and the
worker's processor time is read. Then a burst, 32 at a time, is timed from the first call to the last start. For the
recovery a worker is killed in the middle of a job and another one is started: it is the time from the kill until the
job starts again, None if that takes longer than the limit.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from statistics import quantiles
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent))
from adapters import QUEUES, SLOTS, Queue

WARM_UP = 20
"Jobs that are not counted, before the paced ones."
IDLE_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
"Longest wait for jobs that were enqueued."
NEVER = uuid.UUID(int=0)
"Id of the job that never ends, for the worker that is killed."
TICKS = os.sysconf("SC_CLK_TCK")


class WorkerProcess:
    """Worker in a process of its own, which tells how many jobs have started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, arguments: list[str]) -> "WorkerProcess":
        """Start a worker and return once it is about to run."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "work",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=2**26,
        )
        worker = cls(process)
        await worker.read("ready")
        return worker

    async def read(self, word: str) -> None:
        """Wait for a line. Raises RuntimeError if the worker has ended."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.decode().strip() == word:
                return
        raise RuntimeError("the worker has ended")

    async def until(self, jobs: int) -> None:
        """Wait until so many jobs have started. Raises TimeoutError after PATIENCE_SECONDS."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{jobs}\n".encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.read("reached")

    def cpu_seconds(self) -> float:
        """Return the processor seconds used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    async def finish(self) -> dict[str, int]:
        """End the worker and return the monotonic nanoseconds at which each job first started."""
        output, _ = await self._process.communicate(b"")
        starts: dict[str, int] = json.loads(output)
        return starts

    async def kill(self) -> None:
        """Kill it at once."""
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


async def open_queue(name: str, urls: list[str]) -> Queue:
    """Return the sender's side of a queue, whose tables are made first if it has any."""
    queue = QUEUES[name](*urls)
    if hasattr(queue, "install"):
        await queue.install()
    await queue.open()
    return queue


async def measure(name: str, urls: list[str], samples: int, burst: int) -> dict[str, Any]:
    """Return the figures of one queue: milliseconds, percent of a core, jobs per second."""
    queue = await open_queue(name, urls)
    worker = await WorkerProcess.start([name, *urls])
    enqueued = await _enqueue_paced(queue, WARM_UP + samples)
    await worker.until(WARM_UP + samples)
    idle_before = worker.cpu_seconds()
    await asyncio.sleep(IDLE_SECONDS)
    idle_share = (worker.cpu_seconds() - idle_before) / IDLE_SECONDS
    burst_from = time.monotonic_ns()
    await _enqueue_burst(queue, burst)
    burst_enqueued = time.monotonic_ns()
    await worker.until(WARM_UP + samples + burst)
    starts = await worker.finish()
    pickups = [(starts[id] - at) / 1e6 for id, at in list(enqueued.items())[WARM_UP:]]
    cuts = quantiles(pickups, n=100)
    return {
        "pickup_ms": {"p50": round(cuts[49], 2), "p95": round(cuts[94], 2), "p99": round(cuts[98], 2)},
        "idle_cpu_percent": round(100 * idle_share, 2),
        "burst_enqueued_per_s": round(burst / (burst_enqueued - burst_from) * 1e9),
        "burst_per_s": round(burst / (max(starts.values()) - burst_from) * 1e9),
    }


async def _enqueue_paced(queue: Queue, jobs: int) -> dict[str, int]:
    """Enqueue jobs every 15 to 45 ms, and return the monotonic nanoseconds before each call."""
    enqueued = {}
    for number in range(jobs):
        await asyncio.sleep(0.015 + 0.001 * (number * 7 % 31))
        id = str(uuid.uuid4())
        enqueued[id] = time.monotonic_ns()
        await queue.enqueue(id)
    return enqueued


async def _enqueue_burst(queue: Queue, jobs: int) -> None:
    slots = asyncio.Semaphore(SLOTS)

    async def enqueue() -> None:
        async with slots:
            await queue.enqueue(str(uuid.uuid4()))

    await asyncio.gather(*(enqueue() for _ in range(jobs)))


async def recover(name: str, urls: list[str], limit: float) -> float | None:
    """Return the seconds between the kill of a worker and the second start of its job, None after the limit."""
    queue, arguments = await open_queue(name, urls), [name, *urls]
    worker = await WorkerProcess.start(arguments)
    await queue.enqueue(str(NEVER))
    await worker.until(1)
    await worker.kill()
    killed = time.monotonic()
    successor = await WorkerProcess.start(arguments)
    try:
        async with asyncio.timeout(limit):
            await successor.until(1)
        return round(time.monotonic() - killed, 1)
    except TimeoutError:
        return None
    finally:
        await successor.kill()


async def work(queue: Queue) -> None:
    """Run as the worker: answer how many jobs have started, and print the time of each once the input ends."""
    starts: dict[str, int] = {}
    target, reached = 0, asyncio.Event()

    async def on_job(id: str) -> None:
        starts.setdefault(id, time.monotonic_ns())
        if len(starts) >= target:
            reached.set()
        if id == str(NEVER):
            await asyncio.Event().wait()

    running = asyncio.create_task(queue.work(on_job))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        target = int(line)
        reached.clear()
        if len(starts) < target:
            waiting = asyncio.create_task(reached.wait())
            await asyncio.wait((waiting, running), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        print("reached", flush=True)
    print(json.dumps(starts), flush=True)
    os._exit(0)  # a shutdown of the queue is not measured


def main() -> None:
    """Measure, or run as the worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=("measure", "recover", "work"))
    parser.add_argument("name", choices=QUEUES)
    parser.add_argument("urls", nargs=2, metavar="URL", help="Valkey's and PostgreSQL's")
    parser.add_argument("--samples", type=int, default=300, help="paced jobs")
    parser.add_argument("--burst", type=int, default=5000, help="jobs of the burst")
    parser.add_argument("--limit", type=float, default=90.0, help="longest wait for a killed job, in seconds")
    options = parser.parse_args()
    if options.role == "work":
        uvloop.run(work(QUEUES[options.name](*options.urls)))
    elif options.role == "recover":
        print(json.dumps(uvloop.run(recover(options.name, options.urls, options.limit))))
    else:
        print(json.dumps(uvloop.run(measure(options.name, options.urls, options.samples, options.burst))))


if __name__ == "__main__":
    main()
