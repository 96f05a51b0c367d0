"""Measure a steady load on one machine: growth of the backlog, latency, and processor time of each process.

    python benchmarks/sustained.py [--rate 300] [--duration 60] [--workers N] [--seed N] [--data DIR] [--json FILE]

Runs the demo without its display: embedded engines, the API, workers and receivers as separate processes, and an
open-loop sender in this one, whose own delay is reported. The sender and the receivers share the machine with the
service. The backlog is sampled every second: open leads, and submissions without an answer.

The cost of a lead must not grow with the number of stored leads. Its processor time is reported for the first and the
last minute (or half, of a run shorter than two minutes), and the run fails if the last is over 10 % higher for all
serving processes together, or over 15 % for PostgreSQL alone. These figures mean nothing at a rate that the machine
cannot sustain.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import uvloop

from benchmarks.figures import grew, thirds
from benchmarks.processes import SERVING, tree_seconds
from marketplace.demo.command import SEED
from marketplace.demo.display import RunProgress
from marketplace.demo.installation import Installation, empty, fresh_directory
from marketplace.demo.report import summary
from marketplace.demo.run import DemoRun, DemoScene, RunOptions, furnished
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError
from marketplace.runtime.supervisor import stop_at_signals

SAMPLE_SECONDS = 1.0
MINUTE = 60.0
COSTLIER = 1.1
"Most cost of a lead of the last minute, relative to the first: two runs on a quiet machine differ by a tenth."
COSTLIER_IN_POSTGRES = 1.15
"The same for PostgreSQL alone. Its vacuum begins after the first minute, at 0.2 ms per lead whatever is stored."


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Leads accepted and processor seconds used by each kind of process, up to one moment of the run."""

    at: float
    leads: int
    cpu_seconds: dict[str, float]


def cost_of_lead(costs: Sequence[Cost], kinds: Collection[str]) -> tuple[float, float]:
    """Return the milliseconds of processor time per lead in the first and the last minute, or half of a shorter run.

    Only the processes of `kinds` count. (0, 0) if a part has no lead or there are fewer than three samples.
    """
    if len(costs) < 3:
        return 0.0, 0.0
    window = min(MINUTE, (costs[-1].at - costs[0].at) / 2)
    middle = next(cost for cost in costs if cost.at >= costs[0].at + window)
    late = next(cost for cost in reversed(costs) if cost.at <= costs[-1].at - window)
    first, last = (_per_lead(since, until, kinds) for since, until in ((costs[0], middle), (late, costs[-1])))
    return (first, last) if first and last else (0.0, 0.0)


def _per_lead(since: Cost, until: Cost, kinds: Collection[str]) -> float:
    leads = until.leads - since.leads
    seconds = sum(until.cpu_seconds.get(kind, 0.0) - since.cpu_seconds.get(kind, 0.0) for kind in kinds)
    return round(1000 * seconds / leads, 3) if leads else 0.0


def grows(costs: Sequence[Cost]) -> bool:
    """Return whether a lead of the last minute cost too much more, for all serving processes or PostgreSQL alone."""
    limits = ((SERVING, COSTLIER), (("postgres",), COSTLIER_IN_POSTGRES))
    pairs = ((cost_of_lead(costs, kinds), limit) for kinds, limit in limits)
    return any(last > limit * first for (first, last), limit in pairs)


class Samples:
    """Samples of the backlog and the processes, taken every second."""

    def __init__(self, installation: Installation) -> None:
        self.backlog: list[int] = []
        self.costs: list[Cost] = []
        self.api_megabytes: list[float] = []
        self._installation = installation
        self._cpu: dict[int, tuple[str, float]] = {}
        self.moment: RunProgress | None = None

    def see(self, moment: RunProgress) -> None:
        """Store the newest state of the run."""
        self.moment = moment

    async def take(self, run: DemoRun) -> None:
        """Take samples until cancelled at the end of the load."""
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            self.look_at_processes()
            if self.moment is not None and self.moment.phase == "offering":
                self.backlog.append(self.moment.counts.open + run.stream.unanswered)
                self.costs.append(Cost(at=clock.monotonic(), leads=run.stream.accepted, cpu_seconds=self.cpu_seconds()))

    def look_at_processes(self) -> None:
        """Read the processor time of all processes with their children: PostgreSQL has many."""
        pids = self._installation.pids()
        for name, process_ids in pids.items():
            for pid in process_ids if isinstance(process_ids, list) else [process_ids]:
                with contextlib.suppress(psutil.Error):
                    if pid:
                        self._look_at(name, psutil.Process(pid))

    def _look_at(self, name: str, process: psutil.Process) -> None:
        if name == "api":
            self.api_megabytes.append(process.memory_info().rss / 1e6)
        times = process.cpu_times()
        self._cpu[process.pid] = (name, times.user + times.system if name == "demo" else tree_seconds(process.pid))

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor seconds by kind of process, since its start; the sender is `demo`."""
        totals: dict[str, float] = {}
        for name, seconds in self._cpu.values():
            totals[name] = totals.get(name, 0.0) + seconds
        return {name: round(seconds, 2) for name, seconds in totals.items()}


async def measure(directory: Path, wish: RunOptions) -> dict[str, Any]:
    """Run once and return the figures."""
    await empty(directory)
    stopping, hurrying = asyncio.Event(), asyncio.Event()
    stop_at_signals(stopping, hurrying)
    async with furnished(directory, wish) as scene:
        samples = Samples(scene.installation)
        run = DemoRun(scene, wish, samples.see, speed_seconds=None)
        sampling = asyncio.create_task(samples.take(run))
        began = clock.monotonic()
        result = await run.perform(stopping, hurrying)
        seconds = clock.monotonic() - began
        sampling.cancel()
        samples.look_at_processes()
    parts = thirds(samples.backlog)
    return summary(result) | {
        "workers": scene_workers(scene),
        "backlog_thirds": parts,
        "backlog_most": max(samples.backlog, default=0),
        "backlog_grew": grew(parts, wish.rate),
        "api_rss_megabytes": round(max(samples.api_megabytes, default=0.0), 1),
        "cpu_seconds": samples.cpu_seconds(),
        "cpu_ms_per_lead": cost_of_lead(samples.costs, SERVING),
        "postgres_cpu_ms_per_lead": cost_of_lead(samples.costs, ("postgres",)),
        "cost_grew": grows(samples.costs),
        "settled_after_seconds": round(seconds - result.offered.seconds, 2),
    }


def scene_workers(scene: DemoScene) -> int:
    """Return the number of worker processes of a run."""
    return scene.installation.settings.workers


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    latency, late = figures["latency_ms"], figures["generator_lateness_ms"]
    first, middle, last = figures["backlog_thirds"]
    lines = {
        "offered": f"{figures['rate']:g}/s for {figures['seconds']:g} s, {figures['workers']} workers",
        "received": f"{figures['received']:,}",
        "delivered": f"{figures['delivered']:,}",
        "accepted to acknowledged": f"p50 {latency['p50']} ms  p95 {latency['p95']} ms  p99 {latency['p99']} ms",
        "sender late by": f"p50 {late['p50']} ms  p99 {late['p99']} ms  at most {late['max']} ms",
        "backlog by thirds": f"{first:g}  {middle:g}  {last:g}, at most {figures['backlog_most']:,}",
        "backlog grew": "yes" if figures["backlog_grew"] else "no",
        "settled after": f"{figures['settled_after_seconds']:g} s",
        "api memory": f"{figures['api_rss_megabytes']:g} MB at most",
        "processor seconds": "  ".join(f"{name} {seconds:g}" for name, seconds in figures["cpu_seconds"].items()),
        "processor time of a lead": _first_and_last(figures["cpu_ms_per_lead"]),
        "of it PostgreSQL": _first_and_last(figures["postgres_cpu_ms_per_lead"]),
        "cost grew": "yes" if figures["cost_grew"] else "no",
        "verify": f"{figures['verify']['findings']} findings",
    }
    for name, words in lines.items():
        print(f"{name:26}{words}")


def _first_and_last(milliseconds: tuple[float, float]) -> str:
    return f"first minute {milliseconds[0]:.2f} ms  last {milliseconds[1]:.2f} ms"


def main() -> None:
    """Measure once; exit with 1 if the backlog or the cost of a lead grew, or a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=300.0, help="inquiries per second")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds")
    parser.add_argument("--workers", type=int, help="worker processes")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--data", type=Path, help="keep everything here; otherwise it is thrown away")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    wish = RunOptions(duration=options.duration, rate=options.rate, seed=options.seed, workers=options.workers)
    with contextlib.ExitStack() as stack:
        place = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sustained-")))
        if options.data is None:
            place.chmod(0o755)  # PostgreSQL may run as somebody else
        try:
            figures = uvloop.run(measure(stack.enter_context(fresh_directory(place)), wish))
        except StartError as error:
            sys.exit(str(error))
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if figures["backlog_grew"] or figures["cost_grew"] or not figures["sound"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
