"""Measure the rules in process beside a database: loading, one edit, the check, and leads while somebody edits.

    python benchmarks/catalog.py [--subscriptions N] [--leads N] [--rate N] [--json FILE]

Starts embedded engines, the API and a worker, writes the subscriptions of benchmarks/matching.py, and measures a copy
of the rules in this process: the time to load it and to compare it with the database, the delay from the commit of an
edit until the copy has it, and the longest time for which the event loop stood still meanwhile. Then leads are posted
at a steady rate to a business with a feed, in turns without edits and with one edit a second.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import msgspec
import uvloop

from benchmarks.feed import furnish, inquiry, quantiles, reader
from benchmarks.matching import VERTICALS, Market
from marketplace.database.db import open_pool
from marketplace.demo.furnishing import OperatorClient
from marketplace.demo.installation import fresh_directory, running
from marketplace.demo.verticals import home_improvement
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError

BUSINESSES = 1_000
EDITS = 100
SETTLE_SECONDS = 60
TURNS = 3
"Pairs of a turn without edits and one with them, of which the medians are compared."


async def populate(connection: Any, subscriptions: int) -> None:
    """Write verticals, businesses and subscriptions, none of which takes the leads that are posted."""
    market, definition = Market(seed=1), msgspec.json.encode(home_improvement()).decode()
    home = await connection.fetchval("select id from vertical where slug = 'home'")
    async with connection.transaction():
        verticals = [home]
        for number in range(1, VERTICALS):
            insert = "insert into vertical (id, slug, version) values (uuidv7(), $1, 1) returning id"
            verticals.append(await connection.fetchval(insert, f"v{number}"))
            await connection.execute(
                "insert into vertical_version (vertical_id, version, definition, made_by) values ($1, 1, $2, 'bench')",
                verticals[-1],
                definition,
            )
        owners = [clock.new_id() for _ in range(BUSINESSES)]
        await connection.execute(
            "insert into business (id, name, zone) select id, 'Filler', 'UTC' from unnest($1::uuid[]) id", owners
        )
        await connection.execute("insert into wallet (business_id, currency) select unnest($1::uuid[]), 'USD'", owners)
        await connection.execute(
            "insert into endpoint (id, business_id, kind, state) select id, id, 'feed', 'active' "
            "from unnest($1::uuid[]) id",
            owners,
        )
        ids = [clock.new_id() for _ in range(subscriptions)]
        rows = (_row(id, number, owners, verticals) for number, id in enumerate(ids))
        columns = ("id", "business_id", "endpoint_id", "vertical_id", "mode", "name", "version", "currency")
        await connection.copy_records_to_table("subscription", records=rows, columns=columns)
        await connection.copy_records_to_table(
            "subscription_version",
            records=((id, 1, _definition(market), "bench") for id in ids),
            columns=("subscription_id", "version", "definition", "made_by"),
        )
    await connection.execute("analyze")


def _row(id: UUID, number: int, owners: list[UUID], verticals: list[UUID]) -> tuple[object, ...]:
    owner = owners[number % BUSINESSES]
    return id, owner, owner, verticals[number % VERTICALS], "live", "Filler", 1, "USD"


def _definition(market: Market) -> str:
    return msgspec.json.encode(market.subscription(0, "").definition).decode()


@contextlib.asynccontextmanager
async def longest_stall() -> AsyncIterator[list[float]]:
    """Yield a list that gets the longest time, in milliseconds, for which the event loop did nothing else."""
    stalls = [0.0]

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            stalls[0] = max(stalls[0], 1000 * (time.perf_counter() - began) - 1)

    watching = asyncio.create_task(watch())
    try:
        yield stalls
    finally:
        watching.cancel()


async def measure_copy(url: str, connection: Any) -> dict[str, Any]:
    """Measure one copy of the rules in this process."""
    pool = await open_pool(url, "marketplace_worker", size=2)
    catalog = Catalog(pool)
    async with longest_stall() as loading:
        began = time.perf_counter()
        rules = await catalog.current()
        load_seconds = time.perf_counter() - began
    delays = []
    async with longest_stall() as editing:
        for pause in pauses(list(rules.index)[-EDITS:]):
            await connection.execute(*pause)
            began = time.perf_counter()
            await catalog.current()
            delays.append(1000 * (time.perf_counter() - began))
    async with longest_stall() as checking:
        began = time.perf_counter()
        complete = await catalog.is_complete()
        check_seconds = time.perf_counter() - began
    await pool.close()
    return {
        "subscriptions": len(rules.index),
        "load_seconds": round(load_seconds, 2),
        "load_stall_ms": round(loading[0], 1),
        "edit_ms_p50": round(statistics.median(delays), 2),
        "edit_ms_p99": round(statistics.quantiles(delays, n=100)[98], 2),
        "edit_stall_ms": round(editing[0], 1),
        "check_seconds": round(check_seconds, 3),
        "check_stall_ms": round(checking[0], 1),
        "complete": complete,
    }


def pauses(ids: list[UUID]) -> Iterator[tuple[str, UUID]]:
    """Yield statements, each of which pauses or resumes one subscription."""
    for number in range(EDITS):
        state = ("paused", "active")[number // len(ids) % 2]
        yield f"update subscription set state = '{state}' where id = $1", ids[number % len(ids)]


class Posting:
    """Posts leads at a steady rate, and reads them from a feed."""

    def __init__(self, session: aiohttp.ClientSession, url: str, feed_key: str, provider_key: str) -> None:
        self._session, self._url, self._feed_key, self._provider_key = session, url, feed_key, provider_key
        self._seen: dict[str, datetime] = {}
        self._number = 0

    async def follow(self) -> None:
        async for at, event in reader(self._session, self._url, self._feed_key):
            self._seen[event["data"]["lead_id"]] = at

    async def post(self, leads: int, rate: float) -> dict[str, float]:
        """Return the quantiles in milliseconds from the post to the event."""
        posted: dict[str, datetime] = {}
        headers = {"Authorization": f"Bearer {self._provider_key}", "Content-Type": "application/json"}
        for _ in range(leads):
            self._number += 1
            body, at = msgspec.json.encode(inquiry(self._number)), clock.now()
            async with self._session.post(f"{self._url}/v1/inquiries", data=body, headers=headers) as reply:
                posted[(await reply.json())["id"]] = at
            await asyncio.sleep(max(0.0, 1 / rate - (clock.now() - at).total_seconds()))
        async with asyncio.timeout(SETTLE_SECONDS):
            while not posted.keys() <= self._seen.keys():  # noqa: ASYNC110 - the events come from another process
                await asyncio.sleep(0.05)
        return quantiles([self._seen[lead] - at for lead, at in posted.items()])


async def edit_each_second(connection: Any, ids: list[UUID]) -> None:
    for number, id in enumerate(ids * 1_000):
        state = ("paused", "active")[number // len(ids) % 2]
        await connection.execute(f"update subscription set state = '{state}' where id = $1", id)
        await asyncio.sleep(1)


async def measure(directory: Path, subscriptions: int, leads: int, rate: float) -> dict[str, Any]:
    """Measure everything in an installation of its own."""
    async with running(directory, {}, 1) as there, aiohttp.ClientSession() as session:
        operator = OperatorClient(session, there.url, there.operator_key)
        feed_key, provider_key = await furnish(operator, leads * (2 * TURNS + 1))
        url = there.engines.database_url
        connection = await asyncpg.connect(url)
        await populate(connection, subscriptions)
        figures = await measure_copy(url, connection)
        posting = Posting(session, there.url, feed_key, provider_key)
        following = asyncio.create_task(posting.follow())
        await asyncio.sleep(2)
        await posting.post(leads, rate)  # the processes have the new subscriptions before the first turn
        ids = [row["id"] for row in await connection.fetch("select id from subscription order by id desc limit 100")]
        without, with_edits = [], []
        for _ in range(TURNS):
            without.append(await posting.post(leads, rate))
            editing = asyncio.create_task(edit_each_second(connection, ids))
            with_edits.append(await posting.post(leads, rate))
            editing.cancel()
            await asyncio.wait((editing,))
        following.cancel()
        await connection.close()
    medians = [statistics.median(turn["p99"] for turn in turns) for turns in (without, with_edits)]
    return {
        **figures,
        "leads_a_second": rate,
        "without_edits_ms": without,
        "one_edit_a_second_ms": with_edits,
        "p99_ratio": round(medians[1] / medians[0], 2),
    }


def main() -> None:
    """Measure once; exit with 1 if the copy differs from the database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscriptions", type=int, default=100_000)
    parser.add_argument("--leads", type=int, default=300, help="leads of one turn")
    parser.add_argument("--rate", type=float, default=20.0, help="leads a second")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="catalog-") as place:
        Path(place).chmod(0o755)  # PostgreSQL may run as somebody else
        try:
            with fresh_directory(Path(place)) as directory:
                figures = uvloop.run(measure(directory, options.subscriptions, options.leads, options.rate))
        except StartError as error:
            sys.exit(str(error))
    for name, figure in figures.items():
        print(f"{name:22} {figure}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if not figures["complete"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
