"""Measure building the index, one edit of it, finding a lead's candidates, and judging one candidate.

Run: python benchmarks/matching.py [--subscriptions N ...] [--leads N] [--json FILE]

The candidates of some leads are compared with a scan of all subscriptions that shares no code with the index.

The subscriptions are generated and the same in every run: 40 verticals; each subscription names about 15 of 1,000
postal codes (70 %), a circle of 10 to 80 km around one of 200 towns (20 %), prefixes (8 %) or the whole country (2 %),
with the rules that businesses usually set.
"""

import argparse
import gc
import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import msgspec

from routing.inquiry import Authority, Budget, Facts, Mode, Place, Signals, Timing
from routing.matching import (
    Area,
    BantMinimum,
    Circle,
    FieldRule,
    Persona,
    Subscription,
    SubscriptionDefinition,
    SubscriptionIndex,
    consider,
)
from routing.qualification import Dimension, DimensionFinding, DimensionResult, Verdict

T = TypeVar("T")

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
VERTICALS = 40
SMALL_VERTICAL = 150
EDITS = 2_000
SCANNED_LEADS = 100
TARGETS = {
    "build_seconds": 2.0,
    "candidates_us_mean": 25.0,
    "candidates_us_p99": 100.0,
    "edit_us_p99": 1_000.0,
    "area_edit_us_p99": 5_000.0,
    "per_candidate_us_mean": 25.0,
}
"""Targets at 100,000 subscriptions; at 1,000,000 finding may take three times as long."""


class Market:
    """Generator of places, and of subscriptions and leads in them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.codes = [f"{code:05}" for code in self.chance.sample(range(1_000, 100_000), 1_000)]
        self.towns = [(self.chance.uniform(28, 47), self.chance.uniform(-122, -72)) for _ in range(200)]

    def area(self) -> Area:
        kind = self.chance.random()
        if kind < 0.70:
            return Area(postal_codes=tuple(self.chance.sample(self.codes, self.chance.randint(10, 20))))
        if kind < 0.90:
            latitude, longitude = self.chance.choice(self.towns)
            return Area(circles=(Circle(latitude=latitude, longitude=longitude, km=self.chance.uniform(10, 80)),))
        if kind < 0.98:
            return Area(prefixes=tuple(code[:3] for code in self.chance.sample(self.codes, 3)))
        return Area(countries=("US",))

    def subscription(self, number: int, vertical: str) -> Subscription:
        opening = int(NOW.timestamp()) + self.chance.choice((-7_200, -7_200, -7_200, 7_200))
        definition = SubscriptionDefinition(
            area=self.area(),
            attributes=(FieldRule(field="kind", any_of=("tile", "slate")),),
            bant=BantMinimum(
                minimum_score=self.chance.randint(0, 90),
                minimum_budget_minor=self.chance.randrange(100_000, 2_000_000),
                timing_within_days=self.chance.randint(7, 90),
            ),
            persona=Persona(phone_types=("mobile",), excluded_sources=("coupons",)),
            zone="America/Chicago",
            price_minor=self.chance.randint(2_000, 9_000),
            currency="USD",
        )
        return Subscription(
            id=UUID(int=number),
            business_id=UUID(int=number),
            endpoint_id=None,
            vertical=vertical,
            country="US",
            mode=Mode.live,
            version=1,
            definition=definition,
            open_spans=tuple((opening + day * 86_400, opening + day * 86_400 + 36_000) for day in range(9)),
        )

    def lead(self, vertical: str) -> Facts:
        latitude, longitude = self.chance.choice(self.towns)
        return Facts(
            vertical=vertical,
            mode=Mode.live,
            submitted_at=NOW - timedelta(hours=1),
            received_at=NOW,
            place=Place(
                country="US",
                postal_code=self.chance.choice(self.codes),
                latitude=latitude + self.chance.uniform(-0.5, 0.5),
                longitude=longitude + self.chance.uniform(-0.5, 0.5),
            ),
            signals=Signals(phone_type="fixed_or_mobile"),
            budget=Budget(minor=self.chance.randrange(100_000, 2_000_000), currency="USD"),
            authority=Authority.decision_maker,
            need_fields={"kind": self.chance.choice(("tile", "slate", "metal"))},
            timing=Timing(within_days=self.chance.randint(1, 60)),
            source="google",
        )


def a_verdict() -> Verdict:
    """Return the verdict of a lead that meets all four dimensions."""
    findings = tuple(
        DimensionFinding(
            dimension=dimension, result=DimensionResult.meets, evidence=None, value=None, threshold="", points=18
        )
        for dimension in Dimension
    )
    return Verdict(policy_version=1, score=70, findings=findings)


def scan(members: list[Subscription], lead: Facts) -> set[UUID]:
    """Return the ids of the subscriptions of the lead's vertical whose area holds it, by looking at every one."""
    return {member.id for member in members if member.vertical == lead.vertical and holds(member.definition.area, lead)}


def holds(area: Area, lead: Facts) -> bool:
    """Return whether one of the generated areas holds a lead."""
    code = lead.place.postal_code or ""
    if code in area.postal_codes or code.startswith(area.prefixes or ("none",)) or lead.place.country in area.countries:
        return True
    return any(distance_km(circle, lead) <= circle.km for circle in area.circles)


def distance_km(circle: Circle, lead: Facts) -> float:
    """Return the great-circle distance of a lead from a circle's centre, by the spherical law of cosines."""
    assert lead.place.latitude is not None
    assert lead.place.longitude is not None
    here, there = math.radians(circle.latitude), math.radians(lead.place.latitude)
    across = math.radians(lead.place.longitude - circle.longitude)
    cosine = math.sin(here) * math.sin(there) + math.cos(here) * math.cos(there) * math.cos(across)
    return 6_371.0088 * math.acos(min(1.0, cosine))


def compare_with_scan(index: SubscriptionIndex, members: list[Subscription], leads: list[Facts]) -> dict[str, float]:
    """Return the mean time of a scan in microseconds, over leads whose candidates by index and scan are the same set.

    Raises AssertionError if they differ for a lead.
    """
    took_us = []
    for lead in leads:
        began = time.perf_counter()
        scanned = scan(members, lead)
        took_us.append((time.perf_counter() - began) * 1e6)
        assert scanned == {candidate.id for candidate in index.candidates(lead)}, "index and scan differ"
    return {"scanned_leads": len(leads), "scan_us_mean": round(statistics.mean(took_us), 1)}


def measure(subscriptions: int, leads: int, scanned: int) -> dict[str, float]:
    """Measure everything with so many subscriptions; the names of the figures end in their units.

    The candidates of the first `scanned` leads are compared with a scan of all subscriptions.
    """
    market = Market(seed=1)
    before_mb = _resident_mb()
    members = [market.subscription(number, f"v{number % VERTICALS}") for number in range(subscriptions)]
    members += [market.subscription(subscriptions + number, "small") for number in range(SMALL_VERTICAL)]
    _exclude_from_collection()
    members_mb = _resident_mb()
    began = time.perf_counter()
    index = SubscriptionIndex(members)
    build_seconds = time.perf_counter() - began
    _exclude_from_collection()  # as the catalog of a process does
    index_mb = _resident_mb()

    leads_used = [market.lead(f"v{market.chance.randrange(VERTICALS)}") for _ in range(leads)]
    counts = [len(index.candidates(lead)) for lead in leads_used]
    verdict = a_verdict()
    judged = [market.lead("small") for _ in range(leads // 5)]
    per_candidate = [
        took / len(index.near(lead)[0])
        for lead, took in zip(judged, _times(lambda lead: consider(index, lead, verdict, NOW), judged), strict=True)
    ]
    edited = [market.chance.choice(members) for _ in range(EDITS)]
    paused = [msgspec.structs.replace(member, paused=True) for member in edited]
    moved = [
        msgspec.structs.replace(member, definition=msgspec.structs.replace(member.definition, area=market.area()))
        for member in edited
    ]
    return {
        "subscriptions": len(index),
        "subscriptions_mb": round(members_mb - before_mb),
        "build_seconds": round(build_seconds, 2),
        "index_mb": round(index_mb - members_mb),
        "found_mean": round(statistics.mean(counts), 1),
        **_summary("candidates_us", _times(index.candidates, leads_used)),
        **_summary("per_candidate_us", per_candidate),
        **_summary("consider_us", _times(lambda lead: consider(index, lead, verdict, NOW), leads_used[: leads // 5])),
        **compare_with_scan(index, members, leads_used[:scanned]),
        **_summary("edit_us", _times(index.put, paused)),
        **_summary("area_edit_us", _times(index.put, moved)),
    }


def _times(call: Callable[[T], object], arguments: Iterable[T]) -> list[float]:
    """Return the microseconds of each call."""
    microseconds = []
    for argument in arguments:
        began = time.perf_counter()
        call(argument)
        microseconds.append((time.perf_counter() - began) * 1e6)
    return microseconds


def _summary(name: str, microseconds: Sequence[float]) -> dict[str, float]:
    return {
        f"{name}_mean": round(statistics.mean(microseconds), 1),
        f"{name}_p50": round(statistics.median(microseconds), 1),
        f"{name}_p99": round(statistics.quantiles(microseconds, n=100)[98], 1),
    }


def _exclude_from_collection() -> None:
    gc.collect()
    gc.freeze()


def _resident_mb() -> float:
    """Return the memory that this process has in use, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def main() -> None:
    """Print the figures beside their targets, and write them to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscriptions", type=int, nargs="+", default=[100_000])
    parser.add_argument("--leads", type=int, default=5_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    figures = {size: measure(size, options.leads, SCANNED_LEADS) for size in options.subscriptions}
    for of_size in figures.values():
        for name, figure in of_size.items():
            target = f"  (target at 100,000: {TARGETS[name]:g})" if name in TARGETS else ""
            print(f"{name:22} {figure:>12,}{target}")
        print()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
