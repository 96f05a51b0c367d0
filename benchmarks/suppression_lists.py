"""Measure a long list: the time and memory of its import, its size on disk, and the cost of a check at the award.

    python benchmarks/suppression_lists.py [--rows 5000000] [--checks 5000] [--json FILE]

An embedded PostgreSQL. The file has phone numbers in three spellings in turn. The import runs in this process, whose
resident memory is the figure of memory; what PostgreSQL allocates itself is limited by work_mem. The checks are those
of `is_withdrawn` for leads with phone and e-mail address, and of the same function before lists existed.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import asyncpg
import psutil
import uvloop

from benchmarks.directories import temporary_directory
from marketplace.database.db import Queries, connect_owner, load_record, open_pool
from marketplace.database.embedded import Postgres
from marketplace.database.migrate import migrate
from marketplace.intake.contact import marks_with_hashes
from marketplace.runtime import clock
from marketplace.security.sealing import Sealer
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.store import ListImport, ListKind, ListTerms

SQL: Final = Queries(__file__, "suppression_lists.sql")
FIRST: Final = 2_000_000_000
LEADS: Final = 1_000
MEGABYTE: Final = 1_000_000


def write_list(path: Path, rows: int) -> None:
    """Write a file of distinct phone numbers in random order, in three spellings in turn."""
    random = Random(20_261_201)
    step = 1_597
    with path.open("w") as file:
        for row in range(rows):
            number = FIRST + (row * step * 7 + random.randrange(7)) % 7_999_999_999
            file.write(("+1%d\n", "%d\n", "1%d\n")[row % 3] % number)


async def measure(rows: int, checks: int) -> dict[str, Any]:
    """Return seconds, megabytes and microseconds by name."""
    with temporary_directory() as place:
        path = place / "list.csv"
        write_list(path, rows)
        postgres = Postgres(place)
        await postgres.start()
        try:
            await migrate(postgres.url)
            figures: dict[str, Any] = {"rows": rows, "file_mb": round(path.stat().st_size / MEGABYTE, 1)}
            sealer = Sealer(bytes(32), bytes(32))
            figures |= await _import(postgres.url, sealer, path)
            return figures | await _check(postgres.url, sealer, checks)
        finally:
            await postgres.stop()


async def _import(url: str, sealer: Sealer, path: Path) -> dict[str, Any]:
    process, peak, began = psutil.Process(), 0, clock.monotonic()
    read_at = began

    def follow(run: ListImport) -> None:
        nonlocal peak, read_at
        peak, read_at = max(peak, process.memory_info().rss), clock.monotonic()

    pool = await open_pool(url, "marketplace_api", size=2)
    async with pool:
        new = await lists_flow.make_list(pool, "benchmark", ListKind.do_not_contact, None, "National list", ListTerms())
        run = await lists_flow.import_path(pool, sealer, "benchmark", new, path, ImportOptions(), follow)
        ended = clock.monotonic()
    owner = await connect_owner(url, "benchmark")
    try:
        await owner.execute("vacuum analyze")
        sizes = await load_record(owner, SQL["read_sizes"])
    finally:
        await owner.close()
    return {
        "import_s": round(ended - began, 1),
        "of_it_reading_s": round(read_at - began, 1),
        "members": run.added,
        "memory_mb": round(peak / MEGABYTE),
        "table_mb": round(sizes["table_bytes"] / MEGABYTE),
        "index_mb": round(sizes["index_bytes"] / MEGABYTE),
        "bytes_per_member": round((sizes["table_bytes"] + sizes["index_bytes"]) / run.added, 1),
    }


async def _check(url: str, sealer: Sealer, checks: int) -> dict[str, Any]:
    furnisher = await asyncpg.connect(url, server_settings={"session_replication_role": "replica"})
    leads = [clock.new_id() for _ in range(LEADS)]
    try:
        for number, lead_id in enumerate(leads):
            marks = (f"phone:+1{9_999_000_000 + number}", f"email:person.{number}@example.com")
            keys = [sealer.keyed_hash("suppression", mark) for mark in marks_with_hashes(marks)]
            await furnisher.execute(SQL["insert_keys"], lead_id, keys)
        await furnisher.execute("vacuum analyze person_key")
    finally:
        await furnisher.close()
    worker = await open_pool(url, "marketplace_worker", size=1)
    async with worker, worker.acquire() as connection:
        times: dict[str, list[float]] = {"is_stopped": [], "is_withdrawn": [], "is_own_customer": []}
        for turn in range(checks):
            for name, spent in times.items():
                spent.append(await _time(connection, name, leads[turn % LEADS]))
    figures = {f"{name}_us": round(statistics.median(spent), 1) for name, spent in times.items()}
    return figures | {"check_added_us": round(figures["is_withdrawn_us"] - figures["is_stopped_us"], 1)}


async def _time(connection: Any, name: str, lead_id: UUID) -> float:
    """Return the microseconds of one check, its round trip included."""
    began = clock.monotonic()
    await connection.fetchval(SQL[name], lead_id)
    return (clock.monotonic() - began) * 1e6


def main() -> None:
    """Measure, print the figures, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--checks", type=int, default=5_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = uvloop.run(measure(options.rows, options.checks)) | {"processors": os.cpu_count()}
    for name, value in figures.items():
        print(f"{name:20} {value:>14,}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
