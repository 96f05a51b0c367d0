"""Cost of stored leads: latency, highest rate, reports and pages with none, a million or more of the past year.

Each size is an installation of its own. Its database has the generated year (benchmarks/million.py), or the same
businesses and providers without it, and those of the demo. New leads go to the demo's businesses; reports are of all
leads, and pages of a generated business and provider.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import pages, reports
from benchmarks.directories import temporary_directory
from benchmarks.end_to_end import FIRST_RATE, Say, SearchPlan, run_step, search_highest_rate
from benchmarks.figures import ratio_figures
from benchmarks.systems import Ours, started_ours
from marketplace.database.db import connect_owner, open_pool
from marketplace.database.embedded import engines
from marketplace.reports.catalogue import REPORTS
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError, load

RATES: Final = (50, 100)
WARM_UP_SECONDS: Final = 20.0
"Time in which PostgreSQL reads the pages that new leads need, of a database that no process has open before."
GIGABYTE: Final = 1e9
BYTES_PER_LEAD: Final = 12_000
"Disk that one stored lead takes while it is written, with the write-ahead log, generously."
SPARE_BYTES: Final = 2_000_000_000
"Disk that an installation takes without leads, generously."
MAIN_PAGES: Final = frozenset({
    "/business", "/business/leads", "/business/wallet", "/business/reports/roi", "/business/reports/speed",
    "/business/delivery", "/provider", "/provider/submissions", "/provider/quality", "/provider/earnings",
    "/operator", "/operator/routing", "/operator/unroutable", "/operator/leads", "/operator/reports/routing",
    "/operator/reports/money", "/operator/wallets/ledger", "/operator/deliveries", "/operator/audit",
})  # fmt: skip
"First pages of each list and report, which need no lead to exist."
NO_IDS: Final = pages.World._make([*[""] * 11, dict.fromkeys(("asg", "txn", "lead", "att"), "")])
"World for the list of pages, of which only those without an id are requested."


class GrowthPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Extent of the part: numbers of stored leads, the first of which the others are compared with, and its steps.

    `repeat` is the number of times that each report and page is timed, `workers` that of worker processes; None is
    the setting's.
    """

    sizes: tuple[int, ...]
    seconds: float
    search: SearchPlan
    rates: tuple[int, ...] = RATES
    warm_up_seconds: float = WARM_UP_SECONDS
    repeat: int = 5
    workers: int | None = None


def check_disk(sizes: Sequence[int], free: int | None = None) -> None:
    """Raise StartError if the largest size does not fit on the disk of temporary files, with `free` bytes left."""
    free = shutil.disk_usage(tempfile.gettempdir()).free if free is None else free
    needed = SPARE_BYTES + BYTES_PER_LEAD * max(sizes)
    if free < needed:
        raise StartError(
            "bench_disk_full",
            f"{max(sizes):,} leads need {needed / GIGABYTE:.0f} GB in {tempfile.gettempdir()}, "
            f"which has {free / GIGABYTE:.0f} GB.",
            "Free some space, set TMPDIR to a larger disk, or store fewer leads.",
        )


async def measure(plan: GrowthPlan, say: Say) -> dict[str, Any]:
    """Return the figures with each number of stored leads, and the ratios of each to the first.

    Sizes are keyed by the number of leads, ratios by `ratio_` and the number.
    """
    check_disk(plan.sizes)
    figures: dict[str, Any] = {}
    first = str(plan.sizes[0])
    for leads in plan.sizes:
        figures[str(leads)] = size = await _measure_size(plan, leads, say)
        print(summary_lines(f"{leads:,} leads", size))
        if str(leads) != first:
            figures[f"ratio_{leads}"] = ratio = ratio_figures(size, figures[first])
            print(summary_lines(f"ratio to {first}", ratio))
    return figures


async def _measure_size(plan: GrowthPlan, leads: int, say: Say) -> dict[str, Any]:
    with temporary_directory() as place:
        say(f"growth: storing {leads:,} leads")
        seeding_seconds = await store_leads(place, leads)
        async with started_ours(place, workers=plan.workers) as system:
            say(f"growth: stored in {seeding_seconds:.0f} s; loading reports and pages")
            figures = {
                "seeding_seconds": seeding_seconds,
                "database_gigabytes": await _database_gigabytes(system),
                "reports_p50_ms": await measure_reports(system, plan.repeat),
                "pages_p50_ms": await measure_pages(system, plan.repeat),
            }
            say("growth: sending, and searching the highest rate")
            figures["rates"] = await _measure_rates(plan, system)
            figures["highest_rate"] = (await search_highest_rate(system, plan.search, say))["rate"]
            return figures


async def store_leads(place: Path, leads: int) -> float:
    """Write the generated year to an installation's database, store its reports, and return the seconds it took."""
    settings = load({"MARKETPLACE_DATA": str(place), "PATH": os.environ["PATH"]})
    began = clock.monotonic()
    async with engines(settings) as running:
        await pages.prepare(running, leads)
        seconds = clock.monotonic() - began
        if leads:
            await pages.furnish(settings, running.database_url)
    return round(seconds, 1)


async def _database_gigabytes(system: Ours) -> float:
    connection = await connect_owner(system.installation.engines.database_url, "benchmark")
    try:
        size = await connection.fetchval("select pg_database_size(current_database())")
        return round(int(size) / GIGABYTE, 3)
    finally:
        await connection.close()


async def _measure_rates(plan: GrowthPlan, system: Ours) -> dict[str, Any]:
    """Return latency and processor time at each rate, after a warm-up."""
    await run_step(system, FIRST_RATE, plan.warm_up_seconds, "warm-up")
    rates = {}
    for rate in plan.rates:
        figures = (await run_step(system, rate, plan.seconds, f"growth {rate}")).figures
        latency = figures["accepted_to_acknowledged_ms"]
        rates[str(rate)] = {
            "accepted_to_acknowledged_ms": {"p50": latency["p50"], "p99": latency["p99"]},
            "cpu_ms_per_lead": figures["cpu_ms_per_lead"],
            "others_cpu_share": figures["others_cpu_share"],
        }
    return rates


async def measure_reports(system: Ours, repeat: int) -> dict[str, float]:
    """Return the milliseconds of each report at the median, for thirty days and for a year."""
    installation = system.installation
    url, key = installation.engines.database_url, installation.settings.master_key
    results = {}
    async with await open_pool(url, "marketplace_reports", size=2, master_key=key) as pool:
        for words, question in reports.questions(clock.now()).items():
            for name, call in REPORTS.items():
                results[f"{name}, {words}"] = (await reports.timed(reports.bound(call, pool, question), repeat))["p50"]
    return results


async def measure_pages(system: Ours, repeat: int) -> dict[str, float]:
    """Return the milliseconds of each main page at the median."""
    requests = main_pages()
    links = await pages.let_in(system.installation.engines.database_url, sorted({page.kind for page in requests}))
    measured = await pages.measure(system.url, links, requests, repeat)
    return {page.path: page.p50_ms for page in measured}


def main_pages() -> list[pages.Asked]:
    """Return the requests for the main pages, from the list of all pages."""
    return [page for page in pages.pages(NO_IDS) if page.path in MAIN_PAGES]


def summary_lines(name: str, figures: Mapping[str, Any]) -> str:
    """Return the printed lines of one size, or of its ratios."""
    lines = [f"{name}: database {figures['database_gigabytes']} GB, highest rate {figures['highest_rate']}"]
    for rate, step in figures["rates"].items():
        latency, cpu = step["accepted_to_acknowledged_ms"], step["cpu_ms_per_lead"]
        used = "  ".join(f"{kind} {value}" for kind, value in cpu.items())
        lines.append(f"{rate:>13}/s  p50 {latency['p50']}  p99 {latency['p99']}  processor time {used}")
    for key in ("reports_p50_ms", "pages_p50_ms"):
        lines += [f"{words:>44}  {value}" for words, value in figures[key].items()]
    return "\n".join(lines)
