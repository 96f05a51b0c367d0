"""End to end, ours and the bare pipeline in turn: latency and cost at fixed rates, the highest rate, overload."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Final

import msgspec

from benchmarks.figures import backlog_of, compare_rounds, grew, quantile, ratio_figures, recovery_seconds, thirds
from benchmarks.load import Answer, LeadTimes, Phase, lateness_of, send_open_loop, statuses_of, summarise
from benchmarks.processes import SERVING, MachineTime
from benchmarks.systems import MeasuredSystem, StartSystem, started_floor, started_ours
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError

RATES: Final = (10, 50, 100, 200)
FIRST_RATE: Final = 50
FIRST_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 60.0
"Longest wait for open leads after a step; leads that are still open then count as not delivered."
STEP_UP: Final = 1.25
"Factor between two probed rates."
LOWEST_RATE: Final = 5.0
PROBE_SECONDS: Final = 10.0
MOST_LATE_MS: Final = 250.0
"Sender's own lateness (p99) above which a rate was not really offered."
OVERLOAD: Final = 3
MOST_PERSONS: Final = 36_000
"Inquiries of an overload: the demo has telephone numbers for so many people, and a few thousand more."
AFTER_SECONDS: Final = 60.0
WINDOW_SECONDS: Final = 5.0
NORMAL: Final = 2.0
"After an overload, a window is normal again when its p99 is at most this many times that of the steady rate."

Say = Callable[[str], None]
Latency = Callable[[Sequence[Answer], Mapping[str, LeadTimes], float], float | None]
SIDES: Final[dict[str, StartSystem]] = {"ours": started_ours, "floor": started_floor}


class EndToEndPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Extent of a run: rounds, seconds at each rate, and seconds of the confirmation of the highest rate."""

    rounds: int
    seconds: float
    rates: tuple[int, ...] = RATES


class SearchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Extent of a search for the highest rate: its first and its last probe per second, and seconds of each step.

    `seconds` are those of the confirmation. No probe is above `most_rate`.
    """

    first_rate: float
    seconds: float
    probe_seconds: float = PROBE_SECONDS
    most_rate: float = inf


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one step of load: its answers, stored times and receipts by lead, and its figures."""

    rate: float
    seconds: float
    answers: list[Answer]
    times: dict[str, LeadTimes]
    figures: dict[str, Any]

    def spans(self) -> list[tuple[float, float]]:
        """Return the seconds of arrival and end of each lead that was delivered, counted from the first arrival."""
        began = self.answers[0].due if self.answers else 0.0
        delivered = (answer for answer in self.answers if answer.id in self.times)
        return [(answer.due - began, self.times[answer.id].settled_at - began) for answer in delivered if answer.id]

    def is_flat(self) -> bool:
        """Return whether every request was sent in time and accepted, and the backlog did not grow."""
        figures = self.figures
        if figures["not_accepted"] or figures["open_after"] or figures["sender_late_ms"]["p99"] > MOST_LATE_MS:
            return False
        return not grew(thirds(backlog_of(self.spans(), int(self.seconds))), self.rate)


async def run_step(system: MeasuredSystem, rate: float, seconds: float, seed: str) -> Step:
    """Send for a while, wait until nothing is open, and return what was measured."""
    machine = MachineTime(system.processes)
    before = system.processes.cpu_seconds()
    began = clock.monotonic()
    [answers] = await send(system, [Phase(rate=rate, seconds=seconds)], seed)
    open_after = await settle(system)
    took = clock.monotonic() - began
    after = system.processes.cpu_seconds()
    others = machine.others_seconds()
    lead_ids = [answer.id for answer in answers if answer.id is not None]
    times, receipts = await system.list_times(lead_ids), system.list_receipts()
    used = {kind: max(0.0, after[kind] - before[kind]) for kind in SERVING}
    figures = summarise(answers, times, receipts, used)
    figures |= {"open_after": open_after, "others_cpu_share": round(others / took, 3)}
    return Step(rate=rate, seconds=seconds, answers=answers, times=times, figures=figures)


async def send(system: MeasuredSystem, phases: Sequence[Phase], seed: str) -> list[list[Answer]]:
    """Send to a system, and return the answers of each phase."""
    return await send_open_loop(system.session, system.url, system.keys, system.drafts, phases, seed)


async def settle(system: MeasuredSystem) -> int:
    """Wait until no lead is open, up to SETTLE_SECONDS, and return the number that still is."""
    deadline = clock.monotonic() + SETTLE_SECONDS
    while (open_leads := await system.count_open()) and clock.monotonic() < deadline:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.2)
    return open_leads


async def measure_rates(plan: EndToEndPlan, say: Say) -> dict[str, Any]:
    """Return the figures at each rate and in the first seconds: medians of the rounds, ratios, and the rounds.

    Every round starts both systems anew on empty databases, one after the other; the one that begins changes with each
    round. A round's first five seconds are reported apart, and are the warm-up of the rest.
    """
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for number in range(plan.rounds):
        names = list(SIDES) if number % 2 == 0 else list(reversed(SIDES))
        for name in names:
            say(f"round {number + 1} of {plan.rounds}: {name}")
            rounds[name].append(await _measure_round(SIDES[name], plan, number))
    steps = ("first_seconds", *map(str, plan.rates))
    compared = {
        step: compare_rounds([each[step] for each in rounds["ours"]], [each[step] for each in rounds["floor"]])
        for step in steps
    }
    return {
        "rounds": plan.rounds,
        "seconds_per_rate": plan.seconds,
        "verify_findings": sum(each["verify_findings"] for each in rounds["ours"]),
        "first_to_steady_p99": {name: first_to_steady(compared, name) for name in SIDES},
        "first_seconds": compared.pop("first_seconds"),
        "rates": compared,
        "memory_megabytes": compare_rounds(
            [each["memory_megabytes"] for each in rounds["ours"]],
            [each["memory_megabytes"] for each in rounds["floor"]],
        ),
        "all_rounds": rounds,
    }


def first_to_steady(compared: Mapping[str, Any], side: str) -> float | None:
    """Return the p99 of the first seconds as a multiple of the p99 at the same rate later."""
    first, steady = (compared[step][side]["accepted_to_acknowledged_ms"] for step in ("first_seconds", str(FIRST_RATE)))
    ratio: float | None = ratio_figures(first, steady)["p99"]
    return ratio


async def _measure_round(start: StartSystem, plan: EndToEndPlan, number: int) -> dict[str, Any]:
    async with start() as system:
        first = await run_step(system, FIRST_RATE, FIRST_SECONDS, f"first {number}")
        figures = {"first_seconds": first.figures}
        for rate in plan.rates:
            step = await run_step(system, rate, plan.seconds, f"{rate} {number}")
            figures[str(rate)] = step.figures
        return {
            **figures,
            "memory_megabytes": system.processes.memory_megabytes(),
            "verify_findings": await system.count_findings(),
        }


async def find_highest_rate(start: StartSystem, first_rate: float, seconds: float, say: Say) -> dict[str, Any]:
    """Start a system, warm it up, and return what `search_highest_rate` does. Raises StartError as that does."""
    async with start() as system:
        await run_step(system, FIRST_RATE, FIRST_SECONDS, "warm-up")
        return await search_highest_rate(system, SearchPlan(first_rate=first_rate, seconds=seconds), say)


async def search_highest_rate(system: MeasuredSystem, plan: SearchPlan, say: Say) -> dict[str, Any]:
    """Return the highest rate with a flat backlog, within a quarter, and the figures at that rate.

    Short probes go up by a quarter until one fails or is the highest allowed. Then the last that passed is confirmed,
    going down by a fifth as long as it fails. Raises StartError below LOWEST_RATE.
    """
    rate, failed = plan.first_rate, None
    while failed is None and rate <= plan.most_rate:
        if (await run_step(system, rate, plan.probe_seconds, f"probe {rate}")).is_flat():
            say(f"{rate:.0f}/s for {plan.probe_seconds:g} s: flat")
            rate *= STEP_UP
        else:
            say(f"{rate:.0f}/s for {plan.probe_seconds:g} s: not flat")
            failed = rate
    rate /= STEP_UP
    while not (step := await run_step(system, rate, plan.seconds, f"highest {rate}")).is_flat():
        say(f"{rate:.0f}/s for {plan.seconds:g} s: not flat")
        failed, rate = rate, rate / STEP_UP
        if rate < LOWEST_RATE:
            raise StartError("bench_no_rate", f"No rate down to {rate:.0f}/s is steady.", "Use a quieter machine.")
    say(f"{rate:.0f}/s for {plan.seconds:g} s: flat")
    return {"rate": round(rate, 1), "failed_at": failed and round(failed, 1), **step.figures}


async def measure_overload(start: StartSystem, highest: float, seconds: float, say: Say) -> dict[str, Any]:
    """Return what becomes of `OVERLOAD` times the highest steady rate, and of the minute after it.

    Each request is sent once: a refusal is counted, not repeated. Normal is the p99 of the accepted at a quarter of the
    highest rate before the overload.
    """
    seconds = min(seconds, MOST_PERSONS / (OVERLOAD * highest))
    calm_rate = highest / 4
    async with start() as system:
        await run_step(system, FIRST_RATE, FIRST_SECONDS, "warm-up")
        calm = await run_step(system, calm_rate, seconds / 3, "calm")
        say(f"sending {OVERLOAD * highest:.0f}/s for {seconds:.0f} s")
        phases = [Phase(rate=OVERLOAD * highest, seconds=seconds), Phase(rate=calm_rate, seconds=AFTER_SECONDS)]
        storm, after = await send(system, phases, "overload")
        open_after = await settle(system)
        storm_times = await _times_of(system, storm)
        after_times = await _times_of(system, after)
    normal_ms = _latency(calm.answers, calm.times, 0.99) or 0.0
    windows = windows_of(after, after_times)
    accepted = sum(answer.id is not None for answer in storm)
    return {
        "offered_rate": OVERLOAD * highest,
        "seconds": round(seconds, 1),
        "accepted_rate": round(accepted / seconds, 1),
        "accepted_to_highest": round(accepted / seconds / highest, 3),
        "statuses": statuses_of(storm),
        "sender_late_p99_ms": lateness_of(storm)["p99"],
        "due_to_acknowledged_p50_ms": _latency(storm, storm_times, 0.5),
        "due_to_acknowledged_p99_ms": _latency(storm, storm_times, 0.99),
        "accepted_p50_ms": _accepted_latency(storm, storm_times, 0.5),
        "accepted_p99_ms": _accepted_latency(storm, storm_times, 0.99),
        "accepted_windows_p99_ms": [figure for _, figure in windows_of(storm, storm_times, _accepted_latency)],
        "open_after": open_after,
        "calm_p99_ms": normal_ms,
        "after_statuses": statuses_of(after),
        "after_windows_p99_ms": [figure for _, figure in windows],
        "normal_after_seconds": recovery_seconds(windows, NORMAL * normal_ms),
    }


async def _times_of(system: MeasuredSystem, answers: Sequence[Answer]) -> dict[str, LeadTimes]:
    return await system.list_times([answer.id for answer in answers if answer.id is not None])


def _latency(answers: Sequence[Answer], times: Mapping[str, LeadTimes], share: float) -> float | None:
    """Return a quantile of the milliseconds from the time at which a request was due to its acknowledgement."""
    delivered = ((each.due, times[each.id]) for each in answers if each.id is not None and each.id in times)
    latencies = sorted(1000 * (row.settled_at - due) for due, row in delivered)
    return round(quantile(latencies, share), 1) if latencies else None


def _accepted_latency(answers: Sequence[Answer], times: Mapping[str, LeadTimes], share: float) -> float | None:
    """Return a quantile of the milliseconds from acceptance to acknowledgement, without the lateness of the sender."""
    delivered = (times[each.id] for each in answers if each.id is not None and each.id in times)
    latencies = sorted(1000 * (row.settled_at - row.received_at) for row in delivered)
    return round(quantile(latencies, share), 1) if latencies else None


def windows_of(
    answers: Sequence[Answer], times: Mapping[str, LeadTimes], latency: Latency = _latency
) -> list[tuple[float, float | None]]:
    """Return the start and the p99 of each window of five seconds, by the time at which a request was due."""
    began = answers[0].due if answers else 0.0
    windows = []
    for start in range(0, int(AFTER_SECONDS), int(WINDOW_SECONDS)):
        members = [each for each in answers if start <= each.due - began < start + WINDOW_SECONDS]
        windows.append((float(start), latency(members, times, 0.99)))
    return windows


async def highest_rates(first_rates: Mapping[str, float], seconds: float, rounds: int, say: Say) -> dict[str, Any]:
    """Return the highest steady rate of both systems, found in turn, and the ratio of their medians."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name, start in SIDES.items():
            say(f"highest rate: {name}")
            results[name].append(await find_highest_rate(start, first_rates[name], seconds, say))
    compared = compare_rounds(results["ours"], results["floor"])
    return {"rounds": rounds, "seconds": seconds, **compared}


def summary_lines(name: str, step: Mapping[str, Any]) -> str:
    """Return the printed lines of a step's medians: ours, the bare pipeline's, and the ratio."""
    lines = []
    for side in ("ours", "floor", "ratio"):
        figures = step[side]
        latency, receipt, cpu = (
            figures[key] for key in ("accepted_to_acknowledged_ms", "due_to_receipt_ms", "cpu_ms_per_lead")
        )
        parts = "  ".join(f"{part} {figures[f'{part}_ms']['p50']}" for part in ("own", "queue", "receiver"))
        words = (
            f"p50 {latency['p50']}  p99 {latency['p99']}  ({parts})  due to receipt p99 {receipt['p99']}  "
            f"processor time {cpu['total']}"
        )
        if side != "ratio":
            late, others = figures["sender_late_ms"]["p99"], figures["others_cpu_share"]
            words += f"  sender late p99 {late}  others' share {others:.0%}"
        lines.append(f"{name:>13} {side:>5}  {words}")
        name = ""
    return "\n".join(lines)
