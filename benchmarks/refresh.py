"""Measure how long an edited subscription takes to be in force in a process, and how long its event loop stands still.

    python benchmarks/refresh.py [--subscriptions 100000] [--edits 5] [--json FILE]

An embedded PostgreSQL with generated subscriptions (benchmarks/matching.py), and the rules of one process, loaded. Each
edit is a new version of one subscription. Visible is the time from its commit until the process has rules with it; a
stall is the longest time for which the event loop ran nothing else meanwhile.
"""

import argparse
import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import uvloop

from benchmarks.directories import temporary_directory
from benchmarks.matching import Market
from benchmarks.million import MARKET, ORDER, encoded, literal, party
from benchmarks.million import SQL as MILLION
from marketplace.database.db import Connection, Queries, open_pool, set_codecs
from marketplace.database.embedded import engines
from marketplace.database.migrate import migrate
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock
from marketplace.runtime.settings import load

SQL: Final = Queries(__file__, "refresh.sql")
MARKETS: Final = 4
BUSINESSES: Final = 200
TICK_SECONDS: Final = 0.001


async def fill(connection: Connection, count: int) -> list[UUID]:
    """Write the parties and `count` subscriptions without triggers, and return the ids of the subscriptions."""
    await connection.execute(literal(MILLION["parties"], encoded(MARKET), encoded(ORDER)))
    market = Market(seed=1)
    subscription_ids = [clock.new_id() for _ in range(count)]

    def versions() -> Iterator[tuple[object, ...]]:
        for number, id in enumerate(subscription_ids):
            yield id, 1, msgspec.json.encode(market.subscription(number, "").definition), "seed"

    def subscriptions() -> Iterator[tuple[object, ...]]:
        for number, id in enumerate(subscription_ids):
            business = 1 + number % BUSINESSES
            vertical = party("vertical", 1 + number % MARKETS)
            owner, endpoint = party("business", business), party("endpoint", business)
            yield id, owner, vertical, endpoint, "live", f"Subscription {number}", 1, "USD"

    await connection.copy_records_to_table(
        "subscription_version", records=versions(), columns=("subscription_id", "version", "definition", "made_by")
    )
    await connection.copy_records_to_table(
        "subscription",
        records=subscriptions(),
        columns=("id", "business_id", "vertical_id", "endpoint_id", "mode", "name", "version", "currency"),
    )
    await connection.execute("update catalog_version set version = version + 1")
    await connection.execute("analyze")
    return subscription_ids


async def edit(connection: Connection, id: UUID) -> None:
    """Commit a new version of one subscription, with another price."""
    async with connection.transaction():
        await connection.execute(SQL["insert_next_version"], id)
        await connection.execute(SQL["use_next_version"], id)


class LoopWatch:
    """Longest time for which the event loop did not get to a task that asks for its turn every millisecond."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            began = clock.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            self.longest_ms = max(self.longest_ms, 1000 * (clock.monotonic() - began - TICK_SECONDS))

    def stop(self) -> float:
        """End, and return the longest stall in milliseconds."""
        self._task.cancel()
        return self.longest_ms


async def measure(url: str, count: int, edits: int) -> dict[str, Any]:
    """Return the figures. Raises AssertionError if a process keeps the old version."""
    connection = await asyncpg.connect(url, server_settings={"session_replication_role": "replica"})
    editor = await asyncpg.connect(url)
    try:
        await set_codecs(connection)
        subscription_ids = await fill(connection, count)
        pool = await open_pool(url, "marketplace_worker", size=2)
        async with pool:
            catalog = Catalog(pool)
            began = clock.monotonic()
            await catalog.current()
            loaded_seconds = clock.monotonic() - began
            visible, stalls = [], []
            for number in range(edits):
                id = subscription_ids[number * 7 % count]
                await edit(editor, id)
                watch, began = LoopWatch(), clock.monotonic()
                await asyncio.sleep(0)
                rules = await catalog.current()
                visible.append(1000 * (clock.monotonic() - began))
                await asyncio.sleep(2 * TICK_SECONDS)
                stalls.append(watch.stop())
                assert rules.index[id].version == 2, "the edit is not in force"
    finally:
        await editor.close()
        await connection.close()
    return {
        "subscriptions": len(rules.index),
        "edits": edits,
        "loaded_seconds": round(loaded_seconds, 2),
        "visible_ms": {"p50": round(median(visible), 1), "max": round(max(visible), 1)},
        "stall_ms": {"p50": round(median(stalls), 1), "max": round(max(stalls), 1)},
    }


async def run(place: Path, count: int, edits: int) -> dict[str, Any]:
    """Start the engine in an empty directory and measure."""
    settings = load({"MARKETPLACE_DATA": str(place), "VALKEY_URL": "unix:///nowhere", "PATH": os.environ["PATH"]})
    async with engines(settings) as running:
        await migrate(running.database_url)
        return await measure(running.database_url, count, edits)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscriptions", type=int, default=100_000)
    parser.add_argument("--edits", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with temporary_directory() as place:
        figures = uvloop.run(run(place, options.subscriptions, options.edits))
    for name, figure in figures.items():
        print(f"{name:16}{figure}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
