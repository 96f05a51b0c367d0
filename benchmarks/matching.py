"""Measure the time to build the index, to find a lead's candidates, and to judge one candidate.

Run: python benchmarks/matching.py [--subscriptions N] [--leads N] [--json FILE]

The subscriptions are generated and the same in every run: 40 verticals; each subscription names about 15 of 1,000
postal codes (70 %), a circle of 10 to 80 km around one of 200 towns (20 %), prefixes (8 %) or the whole country (2 %),
with the rules that businesses usually set.
"""

import argparse
import json
import random
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

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

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
VERTICALS = 40
SMALL_VERTICAL = 150
TARGETS_US = {"candidates_p99": 100.0, "per_candidate_mean": 25.0}


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


def measure(subscriptions: int, leads: int) -> dict[str, float]:
    """Measure everything. Figures are in microseconds, the build in seconds."""
    market = Market(seed=1)
    members = [market.subscription(number, f"v{number % VERTICALS}") for number in range(subscriptions)]
    members += [market.subscription(subscriptions + number, "small") for number in range(SMALL_VERTICAL)]
    began = time.perf_counter()
    index = SubscriptionIndex(members)
    build_seconds = time.perf_counter() - began

    leads_used = [market.lead(f"v{market.chance.randrange(VERTICALS)}") for _ in range(leads)]
    finding_us, counts, large_us = [], [], []
    for lead in leads_used:
        began = time.perf_counter()
        candidates = index.candidates(lead)
        finding_us.append((time.perf_counter() - began) * 1e6)
        counts.append(len(candidates))
    verdict = a_verdict()
    for lead in leads_used:
        began = time.perf_counter()
        consider(index, lead, verdict, NOW)
        large_us.append((time.perf_counter() - began) * 1e6)
    small_us = []
    for lead in (market.lead("small") for _ in range(leads)):
        began = time.perf_counter()
        judged = consider(index, lead, verdict, NOW)
        small_us.append((time.perf_counter() - began) * 1e6 / len(judged.candidates))
    return {
        "subscriptions": index.size,
        "leads": leads,
        "build_seconds": round(build_seconds, 2),
        "found_mean": round(statistics.mean(counts), 1),
        "candidates_mean": round(statistics.mean(finding_us), 1),
        "candidates_p50": round(statistics.median(finding_us), 1),
        "candidates_p99": round(statistics.quantiles(finding_us, n=100)[98], 1),
        "per_candidate_mean": round(statistics.mean(small_us), 1),
        "per_candidate_p99": round(statistics.quantiles(small_us, n=100)[98], 1),
        "consider_large_mean": round(statistics.mean(large_us), 1),
        "consider_large_p99": round(statistics.quantiles(large_us, n=100)[98], 1),
    }


def main() -> None:
    """Print the figures beside their targets, and write them to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscriptions", type=int, default=100_000)
    parser.add_argument("--leads", type=int, default=5_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    figures = measure(options.subscriptions, options.leads)
    for name, figure in figures.items():
        unit = "" if name in ("subscriptions", "leads", "build_seconds", "found_mean") else " µs"
        target = f"  (target {TARGETS_US[name]:g} µs)" if name in TARGETS_US else ""
        print(f"{name:22} {figure:>12,}{unit}{target}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
