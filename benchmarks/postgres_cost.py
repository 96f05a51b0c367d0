"""Count what one lead costs PostgreSQL: rows, index entries, write-ahead log, statements and commits.

    python benchmarks/postgres_cost.py [--leads 300] [--businesses 18] [--passes] [--json FILE]

Starts an embedded PostgreSQL and walks leads one after another, from intake to the settled delivery, through the code
of the service. All that was written is counted from the write-ahead log itself (pg_walinspect), statements by
pg_stat_statements, those inside functions and triggers included. The counts are exact on a busy machine too; the times
are not, and are only good for comparing two runs that alternate.

Full images of pages, which PostgreSQL writes at the first change of a page after a checkpoint, are counted apart: their
share depends on the interval of checkpoints and not on the lead. With --passes the background passes of a worker (audit
blocks, columns of the reports, outcomes) run once after the leads, and are counted with them.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import psutil
import uvloop

from marketplace.database.db import Queries
from marketplace.database.embedded import Postgres
from marketplace.database.migrate import migrate
from marketplace.reports import refresh, roi
from marketplace.runtime.settings import load
from marketplace.security import audit
from tests.builders.marketplaces import NOWHERE, Marketplace, anywhere, marketplace
from tests.conftest import SECRETS
from tests.receivers import Receiver, status

SQL = Queries(__file__, "postgres_cost.sql")

WARM_UP: Final = 30
"Leads before the counting starts: each connection then keeps its prepared plans, and updated pages have been pruned."

OPTIONS: Final = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    "pg_stat_statements.track_planning": "on",
    "autovacuum": "off",
}
"Options of the server besides those of an embedded one. Autovacuum would add log that belongs to no lead."

ROWS: Final = {"INSERT": "inserted", "INSERT+INIT": "inserted", "MULTI_INSERT": "inserted", "UPDATE": "updated",
               "UPDATE+INIT": "updated", "HOT_UPDATE": "hot", "DELETE": "deleted", "LOCK": "locked"}  # fmt: skip
"Kinds of records of a table, and what each does to one row."


class Written(msgspec.Struct, kw_only=True):
    """Records of the write-ahead log for one table or index, and the bytes of their data without page images."""

    records: Counter[str]
    bytes: int = 0


async def measure(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Walk the leads, and return the counts per lead."""
    postgres = Postgres(directory, OPTIONS)
    await postgres.start()
    try:
        await migrate(postgres.url)
        environment = {"DATABASE_URL": postgres.url, "VALKEY_URL": NOWHERE, "MARKETPLACE_DATA": str(directory)}
        settings = load(SECRETS | environment)
        owner = await asyncpg.connect(postgres.url)
        await owner.execute("create extension pg_walinspect; create extension pg_stat_statements")
        async with marketplace(settings) as market, Receiver(status(200)) as receiver:
            for _ in range(options.businesses):
                await market.buyer(receiver.url, anywhere(), available_minor=100_000_000)
            await walk(market, range(WARM_UP))
            await owner.execute("select pg_stat_statements_reset()")
            since, began = await owner.fetchval("select pg_current_wal_lsn()::text"), processor_seconds(postgres)
            await walk(market, range(WARM_UP, WARM_UP + options.leads))
            if options.passes:
                await run_passes(market)
            seconds = processor_seconds(postgres) - began
            figures = await count(owner, since, options.leads)
            delivered = await owner.fetchval("select count(*) from lead where state = 'delivered'")
            if delivered != WARM_UP + options.leads:
                raise RuntimeError("not every lead was delivered")
        await owner.close()
    finally:
        await postgres.stop()
    return figures | {"processor_ms": round(1000 * seconds / options.leads, 2)}


async def walk(market: Marketplace, numbers: Sequence[int]) -> None:
    """Walk one lead after another to its end."""
    for number in numbers:
        await market.sold(number, contact=contact(number))


def contact(number: int) -> dict[str, str]:
    """Return the contact of another invented person for each number."""
    return {
        "full_name": "Robin Example",
        "phone": f"+1 312 {2000000 + number}",
        "email": f"robin.{number}@example.com",
        "street": "1 Example Street",
        "postal_code": "60614",
        "country": "US",
    }


async def run_passes(market: Marketplace) -> None:
    """Run each background pass of a worker once."""
    await audit.seal(market.worker, audit.seal_key(market.settings.master_key))
    await refresh.refresh(market.worker)
    await roi.follow(market.worker)


def processor_seconds(postgres: Postgres) -> float:
    """Return the processor time of the server and its present processes, in seconds."""
    server = psutil.Process(postgres.pid)
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


async def count(owner: Any, since: str, leads: int) -> dict[str, Any]:
    """Return what was written after the position `since` of the log and the statements since the reset, per lead."""
    until = await owner.fetchval("select pg_current_wal_flush_lsn()::text")
    statements = await owner.fetch(SQL["list_statements"])
    log = await owner.fetchrow(SQL["sum_log"], since, until)
    relations: dict[tuple[str, str], Written] = {}
    for row in await owner.fetch(SQL["list_changes"], since, until):
        written = relations.setdefault((row["kind"], row["relation"]), Written(records=Counter()))
        written.records[row["record_type"]] += row["rows"]
        written.bytes += row["bytes"]
    tables = {name: written for (kind, name), written in relations.items() if kind == "table"}
    indexes = {name: written for (kind, name), written in relations.items() if kind == "index"}
    return {
        "leads": leads,
        "commits": round(log["commits"] / leads, 2),
        "round_trips": round(sum(row["calls"] for row in statements if row["toplevel"]) / leads, 2),
        "log_bytes": round(log["bytes"] / leads),
        "page_image_bytes": round(log["image_bytes"] / leads),
        "log_records": round(log["records"] / leads, 1),
        "tables": {name: per_lead_rows(written, leads) for name, written in sorted(tables.items())},
        "indexes": {
            name: {"entries": round(written.records.total() / leads, 2), "bytes": round(written.bytes / leads)}
            for name, written in sorted(indexes.items())
        },
        "statements": [per_lead_time(row, leads) for row in statements],
    }


def per_lead_rows(written: Written, leads: int) -> dict[str, float]:
    """Return the rows of one table by what was done to them, and the bytes of log."""
    rows: Counter[str] = Counter()
    for record, number in written.records.items():
        rows[ROWS.get(record, "other")] += number
    return {name: round(number / leads, 2) for name, number in rows.items()} | {"bytes": round(written.bytes / leads)}


def per_lead_time(row: Any, leads: int) -> dict[str, Any]:
    """Return calls and milliseconds per lead of one statement. The time of a function includes its own statements."""
    return {
        "statement": " ".join(row["query"].split())[:100],
        "calls": round(row["calls"] / leads, 2),
        "own_call": row["toplevel"],
        "run_ms": round(row["run_ms"] / leads, 4),
        "plan_ms": round(row["plan_ms"] / leads, 4),
        "log_bytes": round(row["wal_bytes"] / leads),
    }


def report(figures: dict[str, Any]) -> None:
    """Print the counts as tables."""
    for name in ("leads", "commits", "round_trips", "log_records", "log_bytes", "page_image_bytes", "processor_ms"):
        print(f"{name.replace('_', ' '):20} {figures[name]:>10,}")
    print(f"\n{'rows per lead':32}{'inserted':>9}{'updated':>9}{'of it hot':>10}{'locked':>8}{'log bytes':>11}")
    for name, rows in figures["tables"].items():
        hot = rows.get("hot", 0.0)
        cells = f"{rows.get('inserted', 0.0):9.2f}{rows.get('updated', 0.0) + hot:9.2f}{hot:10.2f}"
        print(f"{name:32}{cells}{rows.get('locked', 0.0):8.2f}{rows['bytes']:11,.0f}")
    inserted = sum(rows.get("inserted", 0.0) for rows in figures["tables"].values())
    print(f"{'all tables':32}{inserted:9.2f}")
    print(f"\n{'records of an index per lead':50}{'records':>10}{'log bytes':>11}")
    for name, written in figures["indexes"].items():
        print(f"{name:50}{written['entries']:10.2f}{written['bytes']:11,.0f}")
    print(f"{'all indexes':50}{sum(written['entries'] for written in figures['indexes'].values()):10.2f}")
    print(f"\n{'ms per lead':>12}{'planning':>10}{'calls':>7}{'log bytes':>11}")
    for row in figures["statements"]:
        if row["run_ms"] + row["plan_ms"] >= 0.004:
            own = "" if row["own_call"] else "  "
            cells = f"{row['run_ms']:12.3f}{row['plan_ms']:10.3f}{row['calls']:7.2f}{row['log_bytes']:11,}"
            print(f"{cells}  {own}{row['statement']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leads", type=int, default=300)
    parser.add_argument("--businesses", type=int, default=18)
    parser.add_argument("--passes", action="store_true", help="count the background passes too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="postgres-cost-") as directory:
        Path(directory).chmod(0o755)  # PostgreSQL may run as another account
        figures = uvloop.run(measure(Path(directory), options))
    report(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
