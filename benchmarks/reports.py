"""Measure the time of each report with a million stored leads.

    python benchmarks/reports.py [--leads 1000000] [--repeat 20] [--data DIR] [--only TEXT] [--json FILE]

Starts an embedded PostgreSQL with a year of generated leads (benchmarks/million.py), and stores the reports' columns of
all hours by the worker's own refresh. Then loads every report as the API does for an operator, for the default thirty
days and for the whole year, one at a time. With --data the database remains, and the next run uses it again.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.figures import quantile
from benchmarks.million import ZONE, seed, settle
from marketplace.database.db import Pool, open_pool
from marketplace.database.embedded import engines
from marketplace.database.migrate import migrate
from marketplace.reports.catalogue import REPORTS
from marketplace.reports.question import Question, usual
from marketplace.reports.refresh import refresh_all
from marketplace.runtime import clock
from marketplace.runtime.settings import load


async def timed(call: Callable[[], Awaitable[object]], repeat: int) -> dict[str, float]:
    """Return the milliseconds of repeated calls, without the first one."""
    await call()
    took = []
    for _ in range(repeat):
        began = clock.monotonic()
        await call()
        took.append(1000 * (clock.monotonic() - began))
    took.sort()
    return {"p50": round(quantile(took, 0.5), 1), "p95": round(quantile(took, 0.95), 1)}


async def measure(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure every report."""
    now = clock.now()
    began = clock.monotonic()
    await seed(url, options.leads, now)
    seeded = clock.monotonic()
    worker = await open_pool(url, "marketplace_worker", size=2)
    async with worker:
        hours = await refresh_all(worker, clock.now())
        await settle(worker)
    stored = clock.monotonic()
    print(f"seeded in {seeded - began:.0f} s; kept {hours:,} hours in {stored - seeded:.0f} s", file=sys.stderr)
    figures: dict[str, Any] = {
        "leads": options.leads,
        "hours_per_second": round(hours / max(stored - seeded, 0.001), 1),
    }
    reports = await open_pool(url, "marketplace_reports", size=2)
    async with reports:
        for name, question in questions(now).items():
            for report, call in REPORTS.items():
                if options.only in f"{report} {name}":
                    figures[f"{report}, {name}"] = results = await timed(bound(call, reports, question), options.repeat)
                    print(
                        f"{report + ', ' + name:44} p50 {results['p50']:8.1f} ms   p95 {results['p95']:8.1f} ms",
                        flush=True,
                    )
    return figures


def bound(
    call: Callable[[Pool, Question], Awaitable[object]], pool: Pool, question: Question
) -> Callable[[], Awaitable[object]]:
    return lambda: call(pool, question)


def questions(now: datetime) -> dict[str, Question]:
    """Return the question about the default days, and about all days with data."""
    month = usual(ZONE, now)
    return {"30 days": month, "365 days": Question(first=month.last - timedelta(days=364), last=month.last, zone=ZONE)}


async def run(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    settings = load({"MARKETPLACE_DATA": str(place), "VALKEY_URL": "unix:///nowhere", "PATH": os.environ["PATH"]})
    async with engines(settings) as running:
        await migrate(running.database_url)
        return await measure(running.database_url, options)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--only", default="", help="reports whose name holds this")
    parser.add_argument("--data", type=Path, help="keep the database here; otherwise it is thrown away")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        place = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reports-")))
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o755)  # PostgreSQL may run as somebody else
        figures = uvloop.run(run(place, options))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
