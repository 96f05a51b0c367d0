"""Compare the service on its own queue worker with the service on stock arq (benchmarks/stock_worker.py).

    python -m benchmarks.queue_in_service [--rounds 3] [--seconds 10] [--json FILE]

Everything else is the same, and each round starts both anew, in turn. Measured are the wait in the queue, latency and
processor time at fixed rates, processor time of idle workers, leads that came while the workers were stopped, and the
longest latencies while Valkey is killed, and while one of the workers is stopped.
"""

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.end_to_end import FIRST_RATE, FIRST_SECONDS, run_step, send, settle
from benchmarks.figures import compare_rounds, quantile
from benchmarks.load import Answer, LeadTimes, Phase
from benchmarks.processes import allow_connections
from benchmarks.systems import Ours, started_ours
from marketplace.demo.installation import WORKER

RATES: Final = (10, 50, 100)
IDLE_SECONDS: Final = 10.0
FAULT_RATE: Final = 20.0
FAULT_SECONDS: Final = 12.0
FAULT_AFTER_SECONDS: Final = 2.0
STALL_SECONDS: Final = 6.0
BACKLOG_RATE: Final = 50.0
BACKLOG_SECONDS: Final = 6.0
SIDES: Final = {"own": WORKER, "arq": "benchmarks.stock_worker"}


async def measure_side(worker: str, seconds: float, number: int) -> dict[str, Any]:
    """Start the service with workers of this module, and return its figures."""
    async with started_ours(worker=worker) as system:
        await run_step(system, FIRST_RATE, FIRST_SECONDS, f"warm-up {number}")
        figures: dict[str, Any] = {"idle": await measure_idle(system)}
        for rate in RATES:
            step = (await run_step(system, rate, seconds, f"{rate} {number}")).figures
            keys = ("queue_ms", "accepted_to_acknowledged_ms", "cpu_ms_per_lead")
            figures[str(rate)] = {key: step[key] for key in keys}
        figures["backlog"] = await measure_backlog(system, f"backlog {number}")
        for name, disturb in (("valkey_killed", kill_valkey), ("worker_stalled", stall_worker)):
            figures[name] = await measure_fault(system, partial(disturb, system), f"{name} {number}")
        return figures


async def measure_idle(system: Ours) -> dict[str, float]:
    """Return the percentage of one processor that workers and Valkey use without leads."""
    before = system.processes.cpu_seconds()
    await asyncio.sleep(IDLE_SECONDS)
    after = system.processes.cpu_seconds()
    return {
        f"{kind}_percent": round(100 * (after[kind] - before[kind]) / IDLE_SECONDS, 2) for kind in ("workers", "valkey")
    }


async def measure_backlog(system: Ours, seed: str) -> dict[str, Any]:
    """Stop all workers while leads come, let them go on, and return how soon the last and the newest were delivered."""
    with stopped(system.processes.pids()["workers"]):
        [waiting] = await send(system, [Phase(rate=BACKLOG_RATE, seconds=BACKLOG_SECONDS)], seed)
    resumed = waiting[-1].answered
    [fresh] = await send(system, [Phase(rate=FAULT_RATE, seconds=2.0)], f"fresh {seed}")
    return {
        "leads": len(waiting),
        "seconds": round(max(row.settled_at for row in await settled_times(system, waiting)) - resumed, 2),
        "new_leads_p99_ms": (await latencies(system, fresh))["p99_ms"],
    }


async def measure_fault(system: Ours, disturb: Callable[[], Any], seed: str) -> dict[str, Any]:
    """Send leads, disturb the service meanwhile, and return their latencies."""
    sending = asyncio.create_task(send(system, [Phase(rate=FAULT_RATE, seconds=FAULT_SECONDS)], seed))
    await asyncio.sleep(FAULT_AFTER_SECONDS)
    await disturb()
    [answers] = await sending
    return await latencies(system, answers)


async def kill_valkey(system: Ours) -> None:
    """Kill Valkey, which the engines' owner starts again."""
    for pid in system.processes.pids()["valkey"]:
        os.kill(pid, signal.SIGKILL)


async def stall_worker(system: Ours) -> None:
    """Stop one worker for STALL_SECONDS."""
    with stopped(system.processes.pids()["workers"][:1]):
        await asyncio.sleep(STALL_SECONDS)


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Let these processes stand still, and go on afterwards."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def settled_times(system: Ours, answers: list[Answer]) -> list[LeadTimes]:
    """Wait until no lead is open, and return the times of those of the accepted leads that were delivered."""
    await settle(system)
    return list((await system.list_times([answer.id for answer in answers if answer.id])).values())


async def latencies(system: Ours, answers: list[Answer]) -> dict[str, Any]:
    """Return the milliseconds from accepted to acknowledged, and how many leads took more than a second."""
    times = await settled_times(system, answers)
    ordered = sorted(1000 * (row.settled_at - row.received_at) for row in times)
    return {
        "sent": len(answers),
        "delivered": len(ordered),
        "p50_ms": round(quantile(ordered, 0.5), 1),
        "p99_ms": round(quantile(ordered, 0.99), 1),
        "longest_ms": round(ordered[-1], 1),
        "over_a_second": sum(taken > 1_000 for taken in ordered),
    }


async def run(rounds: int, seconds: float) -> dict[str, Any]:
    """Measure both in turn, and return the medians of the rounds and the ratios of own to arq."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for number in range(rounds):
        names = list(SIDES) if number % 2 == 0 else list(reversed(SIDES))
        for name in names:
            results[name].append(figures := await measure_side(SIDES[name], seconds, number))
            print(f"round {number + 1} of {rounds}, {name}: {json.dumps(figures)}", flush=True)
    compared = compare_rounds(results["own"], results["arq"])
    return {"rounds": rounds, "own": compared["ours"], "arq": compared["floor"], "ratio": compared["ratio"]}


def main() -> None:
    """Measure once, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="at each rate")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    allow_connections()
    figures = uvloop.run(run(options.rounds, options.seconds))
    for side in ("own", "arq", "ratio"):
        for name, values in figures[side].items():
            print(f"{side:>6} {name:>15}  {json.dumps(values)}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
