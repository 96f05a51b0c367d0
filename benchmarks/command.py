"""Measure the marketplace beside a bare pipeline on the same engines, and everything else that has a figure.

    make bench [QUICK=1] [ONLY=end_to_end,award] [LEADS=1000000] [JSON=build/bench.json] [PUBLISH=docs/BENCHMARKS.md]

A full run takes up to 40 minutes on two cores, a quick one up to four. The machine should have nothing else to do: the
share of its processor time that others used is measured and printed with each step.
"""

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from benchmarks import award, fan_out, growth, machine, matching, page, queues, refresh
from benchmarks.directories import temporary_directory
from benchmarks.end_to_end import (
    EndToEndPlan,
    SearchPlan,
    highest_rates,
    measure_overload,
    measure_rates,
    summary_lines,
)
from benchmarks.fan_out import FanOutPlan
from benchmarks.growth import GrowthPlan
from benchmarks.processes import allow_connections
from benchmarks.systems import started_ours
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError

Figures = dict[str, Any]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Extent of every part."""

    quick: bool
    end_to_end: EndToEndPlan
    highest_seconds: float
    first_rates: Mapping[str, float]
    overload_seconds: float
    match_sizes: Mapping[int, int]
    "Leads compared with a scan of all subscriptions, by the number of subscriptions."
    match_leads: int
    refresh_sizes: tuple[int, ...]
    award_attempts: int
    queue_names: tuple[str, ...]
    queue_samples: int
    queue_burst: int
    recover_seconds: float
    growth: GrowthPlan
    fan_out: FanOutPlan


FULL: Final = Plan(
    quick=False,
    end_to_end=EndToEndPlan(rounds=5, seconds=10.0),
    highest_seconds=60.0,
    first_rates={"ours": 120.0, "floor": 300.0},
    overload_seconds=60.0,
    match_sizes={1_000: 200, 10_000: 100, 100_000: 50, 1_000_000: 10},
    match_leads=2_000,
    refresh_sizes=(10_000, 100_000),
    award_attempts=80_000,
    queue_names=tuple(queues.PEERS),
    queue_samples=300,
    queue_burst=5_000,
    recover_seconds=90.0,
    growth=GrowthPlan(
        sizes=(0, 1_000_000),
        seconds=10.0,
        search=SearchPlan(first_rate=120.0, seconds=15.0, probe_seconds=6.0),
    ),
    fan_out=FanOutPlan(receivers=1_000, rate=50.0, seconds=30.0),
)
QUICK: Final = msgspec.structs.replace(
    FULL,
    quick=True,
    end_to_end=EndToEndPlan(rounds=2, seconds=4.0),
    match_sizes={1_000: 50, 10_000: 20, 100_000: 5},
    match_leads=500,
    refresh_sizes=(10_000,),
    award_attempts=8_000,
    queue_names=("marketplace", "arq", "arq_5ms"),
    queue_samples=100,
    queue_burst=1_000,
    recover_seconds=0.0,
    growth=msgspec.structs.replace(FULL.growth, sizes=(0, 100_000), seconds=4.0),
    fan_out=FanOutPlan(receivers=100, rate=50.0, seconds=10.0),
)


class Progress:
    """Lines that say what is being measured, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = clock.monotonic()

    def say(self, words: str) -> None:
        """Print one line."""
        print(f"{clock.monotonic() - self._began:6.0f} s  {words}", flush=True)

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return round(clock.monotonic() - self._began, 1)


class Run:
    """One run: the parts in their order, each with the figures of those before it."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._say = progress.say
        self.figures: Figures = {}

    async def end_to_end(self) -> Figures:
        """Measure latency and cost at fixed rates, and in the first seconds, of both systems in turn."""
        figures = await measure_rates(self._plan.end_to_end, self._say)
        self._say("milliseconds from accepted to acknowledged, and of processor time per delivered lead")
        print(summary_lines("first seconds", figures["first_seconds"]))
        for rate, step in figures["rates"].items():
            print(summary_lines(f"{rate}/s", step))
        return figures

    async def highest_rate(self) -> Figures:
        """Find the highest rate with a flat backlog, of both systems."""
        figures = await highest_rates(self._plan.first_rates, self._plan.highest_seconds, 1, self._say)
        rates = (figures[side]["rate"] for side in ("ours", "floor", "ratio"))
        self._say("highest rate: ours {} /s, floor {} /s, ratio {}".format(*rates))
        return figures

    async def overload(self) -> Figures:
        """Offer three times our highest rate, and watch the minute after it."""
        found = self.figures.get("highest_rate")
        highest = found["ours"]["rate"] if found else self._plan.first_rates["ours"]
        figures = await measure_overload(started_ours, highest, self._plan.overload_seconds, self._say)
        self._say(f"overload: {figures}")
        return figures

    async def match(self) -> Figures:
        """Build the index and match leads, with each number of subscriptions."""
        results = {}
        for size, scanned in self._plan.match_sizes.items():
            results[str(size)] = figures = matching.measure(size, self._plan.match_leads, scanned)
            self._say(f"match: {size:,} subscriptions: {figures}")
        return results

    async def refresh(self) -> Figures:
        """Edit one of many subscriptions, and wait until the edit is in force."""
        results = {}
        for size in self._plan.refresh_sizes:
            with temporary_directory() as place:
                results[str(size)] = figures = await refresh.run(place, size, edits=5)
            self._say(f"refresh: {figures}")
        return results

    async def award(self) -> Figures:
        """Award leads, alone, from one wallet, and in a race."""
        with temporary_directory() as place:
            figures = await award.run(place, self._plan.award_attempts, connections=8)
        self._say(f"award: {figures}")
        return figures

    async def queue(self) -> Figures:
        """Measure our queue beside others."""
        plan = self._plan
        return await queues.measure_all(
            plan.queue_names, samples=plan.queue_samples, burst=plan.queue_burst, recover=plan.recover_seconds
        )

    async def growth(self) -> Figures:
        """Measure with none and with many stored leads."""
        return await growth.measure(self._plan.growth, self._say)

    async def fan_out(self) -> Figures:
        """Deliver to many receivers, all healthy, and then some broken."""
        return await fan_out.measure(self._plan.fan_out, self._say)

    async def perform(self, parts: tuple[str, ...], save: Callable[[Figures], None]) -> None:
        """Run the parts, keep the seconds of each, and save what there is after each: a later part may fail."""
        for name in parts:
            self._say(f"{name} …")
            began = clock.monotonic()
            part: Callable[[], Awaitable[Figures]] = getattr(self, name)
            figures = await part()
            self.figures[name] = {"took_seconds": round(clock.monotonic() - began, 1), **figures}
            save(self.figures)


PARTS: Final = (
    "end_to_end", "highest_rate", "overload", "growth", "fan_out", "match", "refresh", "award", "queue",
)  # fmt: skip
QUICK_PARTS: Final = ("end_to_end", "match", "refresh", "award", "queue")

LEADS_HELP: Final = (
    "numbers of stored leads of the part growth, with commas, each beside none; 1000000 takes some five minutes and up "
    "to 14 GB of disk in TMPDIR, 10000000 takes up to an hour and 122 GB"
)


def choose_parts(only: str, *, quick: bool) -> tuple[str, ...]:
    """Return the parts to run, in their order. Raises ValueError for an unknown name."""
    usual = QUICK_PARTS if quick else PARTS
    names = {name for name in only.split(",") if name}
    if unknown := names - set(PARTS):
        raise ValueError(f"There is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}.")
    return tuple(name for name in PARTS if name in names) or usual


def choose_sizes(text: str) -> tuple[int, ...]:
    """Return the numbers of stored leads of a list with commas, after 0. Raises ValueError if one is no such number."""
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise ValueError(f"--leads takes numbers above 0, with commas, and not {text}.")
    return tuple(sorted({0, *map(int, words)}))


def read_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, and the short parts only")
    parser.add_argument("--only", default="", metavar="PARTS", help=f"some parts only, with commas: {', '.join(PARTS)}")
    parser.add_argument("--leads", default="", metavar="NUMBERS", help=LEADS_HELP)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--publish", type=Path, metavar="FILE", help="write the page for people to this file")
    return parser.parse_args()


def main() -> None:
    """Run the parts and write the figures."""
    options = read_options()
    plan = QUICK if options.quick else FULL
    try:
        if options.leads:
            sizes = choose_sizes(options.leads)
            plan = msgspec.structs.replace(plan, growth=msgspec.structs.replace(plan.growth, sizes=sizes))
        parts = choose_parts(options.only, quick=options.quick)
        if "growth" in parts:
            growth.check_disk(plan.growth.sizes)
    except (ValueError, StartError) as error:
        sys.exit(str(error))
    progress = Progress()
    if left_out := [name for name in PARTS if name not in parts]:
        progress.say(f"left out: {', '.join(left_out)}")
    if options.quick:
        progress.say(f"quick: {plan.end_to_end.rounds} rounds of {plan.end_to_end.seconds:g} s; do not quote its p99")
    allow_connections()
    described = machine.describe()

    def save(figures: Figures) -> None:
        head = {
            "schema": 1,
            "quick": options.quick,
            "parts": list(parts),
            "at": clock.now().isoformat(timespec="seconds"),
            "took_seconds": progress.seconds(),
            "machine": described,
        }
        write(options.json, json.dumps(head | figures, indent=1) + "\n")
        write(options.publish, page.write(head | figures))

    try:
        uvloop.run(Run(plan, progress).perform(parts, save))
    except StartError as error:
        sys.exit(str(error))


def write(file: Path | None, text: str) -> None:
    """Write a file, unless none is asked for, below directories that are made if they are missing."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    main()
