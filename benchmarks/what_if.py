"""Measure how long a simulation of past leads takes, its memory, and how soon it stops when it is cancelled.

    python benchmarks/what_if.py [--leads 100000] [--json FILE]

An embedded PostgreSQL with a quarter of one vertical's leads, written by COPY: 50 businesses in ten towns, of which
five can have each lead, with open hours, daily caps and weekly payments. The leads' answers are drawn at random, so
that some are rejected and some wait for their date. A simulation compares the rules with a higher minimum score, in
this process, as the process of a stored simulation does.
"""

import argparse
import json
import os
import random
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import uvloop

from benchmarks.directories import temporary_directory
from benchmarks.million import MARKET, ORDER, ZONE, encoded, party, write_parties
from marketplace.database.db import Pool, open_pool, session, set_codecs
from marketplace.database.embedded import engines
from marketplace.database.migrate import migrate
from marketplace.rules.catalog import Rules, load_rules
from marketplace.runtime import clock
from marketplace.runtime.settings import load
from marketplace.simulations.changes import SimulatedTime, WhatIfPolicy
from marketplace.simulations.flow import SimulationCancelled, SimulationPlan, compute_plan, plan
from marketplace.simulations.wire import SimulationRequest, SimulationResult
from routing.calendar import CapWindow
from routing.inquiry import Authority, Budget, Facts, Mode, Place, Signals, Timing
from routing.ranking import Strategy
from routing.subscription import Area, Cap, Circle, OpenHours

SLUG: Final = "market-1"
WEEKS: Final = 13
TOWNS: Final = tuple((30.0 + 1.5 * number, -120.0 + 5.0 * number) for number in range(10))
BUSINESSES: Final = range(4, 201, 4)
"Numbers of the businesses of the first vertical."
TARGET_SECONDS: Final = 60.0


def definitions() -> Iterator[tuple[UUID, str]]:
    """Yield the subscriptions of the vertical, five to a town, each with its definition."""
    for place, number in enumerate(BUSINESSES):
        latitude, longitude = TOWNS[place % len(TOWNS)]
        order = msgspec.structs.replace(
            ORDER,
            area=Area(circles=(Circle(latitude=latitude, longitude=longitude, km=30 + place % 20),)),
            hours=OpenHours(spec="Mo-Sa 07:00-21:00", zone=ZONE),
            caps=(Cap(window=CapWindow.day, count=30),),
            weight=1 + place % 3,
            price_minor=4_000 + 100 * (place % 20),
        )
        yield party("subscription", number), encoded(order)


def facts(chance: random.Random, at: datetime) -> Facts:
    """Return the answers of one lead in one of the towns."""
    latitude, longitude = chance.choice(TOWNS)
    timing = Timing(within_days=chance.randint(1, 120))
    if chance.random() < 0.05:
        timing = Timing(not_before=(at + timedelta(days=chance.randint(100, 150))).date())
    return Facts(
        vertical=SLUG,
        mode=Mode.live,
        submitted_at=at,
        received_at=at,
        place=Place(
            country="US",
            postal_code=f"{chance.randrange(10_000, 99_999)}",
            latitude=latitude + chance.uniform(-0.3, 0.3),
            longitude=longitude + chance.uniform(-0.3, 0.3),
            time_zone=ZONE,
        ),
        signals=Signals(phone_type="mobile", phone_region="US"),
        budget=Budget(minor=chance.randrange(50_000, 3_000_000), currency="USD") if chance.random() < 0.8 else None,
        authority=chance.choice((*Authority, None)),
        need_fields={"service": "roofing", "property_type": chance.choice(("house", "apartment", "commercial"))},
        timing=timing,
        source=chance.choice(("google", "partner", "mail")),
    )


async def fill(connection: asyncpg.Connection, leads: int, since: datetime, until: datetime) -> None:
    """Write the parties, the leads and the payments, by a connection without triggers."""
    await write_parties(connection)
    vertical_id = party("vertical", 1)
    market = msgspec.structs.replace(MARKET, strategy=Strategy.fair, patience_seconds=3_600)
    await connection.execute(
        "update vertical_version set definition = $2::text::jsonb where vertical_id = $1", vertical_id, encoded(market)
    )
    await connection.executemany(
        "update subscription_version set definition = $2::text::jsonb where subscription_id = $1", list(definitions())
    )
    for table in ("vertical_version", "subscription_version"):
        await connection.execute(f"update {table} set made_at = $1", since - timedelta(days=1))
    chance = random.Random(7)
    times = [since + (until - since) * ((number + 0.5) / leads) for number in range(leads)]
    lead_ids = [clock.id_at(at, chance) for at in times]
    providers = [party("provider", 1 + number % 20) for number in range(20)]

    def inquiries() -> Iterator[tuple[object, ...]]:
        for number, (lead_id, at) in enumerate(zip(lead_ids, times, strict=True)):
            answers = msgspec.json.encode(facts(chance, at))
            names = (lead_id, providers[number % 20], vertical_id, "live", f"ref-{number}", b"\0", "received")
            yield *names, answers, b"\0", at, at, at

    def rows() -> Iterator[tuple[object, ...]]:
        for number, (lead_id, at) in enumerate(zip(lead_ids, times, strict=True)):
            yield lead_id, providers[number % 20], vertical_id, "live", "unsold", "cap_reached", at, at

    await connection.copy_records_to_table(
        "inquiry",
        records=inquiries(),
        columns=(
            "id", "provider_id", "vertical_id", "mode", "provider_reference", "request_sha256", "received_as", "facts",
            "consent_sha256", "consent_given_at", "submitted_at", "received_at",
        ),
    )  # fmt: skip
    await connection.copy_records_to_table(
        "lead",
        records=rows(),
        columns=("id", "provider_id", "vertical_id", "mode", "state", "reason", "received_at", "settled_at"),
    )
    payments = [
        (clock.id_at(at, chance), "top_up", 800_000, "USD", party("business", number), f"{number} {week}", at)
        for number in BUSINESSES
        for week in range(WEEKS)
        for at in (since + timedelta(weeks=week, minutes=number),)
    ]
    await connection.copy_records_to_table(
        "transfer",
        records=payments,
        columns=("id", "kind", "amount_minor", "currency", "business_id", "event_id", "made_at"),
    )
    await connection.execute(
        "update wallet w set available_minor = t.paid from "
        "(select business_id, sum(amount_minor) as paid from transfer group by business_id) t "
        "where t.business_id = w.business_id"
    )
    await connection.execute("analyze")


async def simulate(reports: Pool, checked: SimulationPlan) -> tuple[SimulationResult, dict[str, Any]]:
    """Run a simulation to its end, and return it with its times."""
    marks: list[float] = []

    async def report(leads_done: int, leads: int) -> None:
        marks.append(time.perf_counter())

    began, busy = time.perf_counter(), time.process_time()
    result = await compute_plan(reports, checked, report, suggest=False)
    pauses = [second - first for first, second in pairwise(marks)]
    return result, {
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
        "longest_without_progress_seconds": round(max(pauses), 2),
    }


async def cancel(reports: Pool, checked: SimulationPlan, leads: int) -> float:
    """Cancel a simulation when a tenth is done, and return the seconds from then until it has stopped."""
    cancelled_at = 0.0

    async def report(leads_done: int, _: int) -> None:
        nonlocal cancelled_at
        if cancelled_at:
            raise SimulationCancelled
        if leads_done >= leads / 10:
            cancelled_at = time.perf_counter()

    try:
        await compute_plan(reports, checked, report, suggest=False)
    except SimulationCancelled:
        return round(time.perf_counter() - cancelled_at, 2)
    raise AssertionError("the simulation was not stopped")


async def measure(url: str, leads: int) -> dict[str, Any]:
    """Write the data, and return the figures."""
    until = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    since = until - timedelta(weeks=WEEKS)
    connection = await asyncpg.connect(url, server_settings={"session_replication_role": "replica"})
    try:
        await set_codecs(connection)
        await fill(connection, leads, since, until)
    finally:
        await connection.close()
    before_megabytes = _peak_megabytes()
    async with (
        await open_pool(url, "marketplace_worker", size=1) as worker,
        await open_pool(url, "marketplace_reports", size=1) as reports,
    ):
        rules = await _rules(worker)
        request = SimulationRequest(vertical=SLUG, changes=(WhatIfPolicy(minimum_score=75),))
        checked = plan(rules, request, SimulatedTime(since, until))
        result, times = await simulate(reports, checked)
        stopped = await cancel(reports, checked, leads)
    comparison = result.comparison
    assert comparison is not None
    assert comparison.before.leads == leads
    return {
        "leads": leads,
        **times,
        "leads_a_second": round(leads / times["seconds"]),
        "stopped_after_seconds": stopped,
        "added_megabytes": _peak_megabytes() - before_megabytes,
        "sold": [comparison.before.sold, comparison.after.sold],
        "sentence": result.sentences[0],
    }


async def _rules(worker: Pool) -> Rules:
    async with session(worker) as connection:
        return await load_rules(connection)


def _peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def run(place: Path, leads: int) -> dict[str, Any]:
    """Start the engine in an empty directory and measure."""
    settings = load({"MARKETPLACE_DATA": str(place), "VALKEY_URL": "unix:///nowhere", "PATH": os.environ["PATH"]})
    async with engines(settings) as running:
        await migrate(running.database_url)
        return await measure(running.database_url, leads)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with temporary_directory() as place:
        figures = uvloop.run(run(place, options.leads))
    for name, figure in figures.items():
        print(f"{name:34}{figure}")
    if figures["leads"] >= 100_000:
        print(f"target: {TARGET_SECONDS:.0f} s, {'met' if figures['seconds'] <= TARGET_SECONDS else 'missed'}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
