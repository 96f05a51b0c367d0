"""Measure awards: how many a second, with distinct businesses and with one, and whether racing workers stay exact.

    python benchmarks/award.py [--attempts 80000] [--connections 8] [--json FILE]

An embedded PostgreSQL with 200 businesses. Each record is encoded before the clock starts, so that the rate is that of
`award_lead` and its commit. In the race every lead is attempted by several workers at the same moment, each for another
business, whose daily cap and wallet cover a part of the leads only; afterwards every claim, cap and wallet is counted
again from the rows.
"""

import argparse
import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import uvloop

from benchmarks.directories import temporary_directory
from benchmarks.million import MARKET, ORDER, encoded, literal, party
from benchmarks.million import SQL as MILLION
from marketplace.database.db import Pool, Queries, connect_owner, open_pool
from marketplace.database.embedded import engines
from marketplace.database.migrate import migrate
from marketplace.distribution.store import SQL as DISTRIBUTION
from marketplace.distribution.store import AwardRecord, AwardWindow
from marketplace.runtime import clock
from marketplace.runtime.settings import load
from routing.calendar import CapWindow, window_starts
from routing.lifecycle import LeadState

SQL: Final = Queries(__file__, "award.sql")
BUSINESSES: Final = 200
MARKETS: Final = 4
"Business n buys in market 1 + n % 4."
PRICE_MINOR: Final = 5_000
ZONE: Final = "America/Chicago"
RACERS: Final = 4
"Attempts at each lead in the race, at the same moment."
WARM_UP: Final = 200
"Awards before the clock starts, so that each connection has prepared its statement."


def make_record(lead_id: UUID, provider_id: UUID, business: int, cap: int | None) -> bytes:
    """Return the encoded award of a lead to a business; `cap` is the most of its leads in a day and in all."""
    now = clock.now()
    starts = window_starts(now, ZONE)
    return msgspec.json.encode(
        AwardRecord(
            id=clock.new_id(),
            lead_id=lead_id,
            lead_state=LeadState.received,
            business_id=party("business", business),
            subscription_id=party("subscription", business),
            subscription_version=1,
            endpoint_id=party("endpoint", business),
            provider_id=provider_id,
            mode="live",
            price_minor=PRICE_MINOR,
            payout_minor=3_000,
            currency="USD",
            awarded_at=now,
            due_at=now,
            hold_until=now,
            hour_at=starts[CapWindow.hour],
            day_at=starts[CapWindow.day],
            week_at=starts[CapWindow.week],
            month_at=starts[CapWindow.month],
            windows=tuple(
                AwardWindow(cap_window=window, starts_at=start, most_count=cap, most_minor=None)
                for window, start in starts.items()
            ),
            hold_id=clock.new_id(),
            decision_id=clock.new_id(),
            vertical_version=1,
            catalog_version=1,
            strategy="weighted_share",
            verdict=msgspec.Raw(b'{"score":80,"findings":[]}'),
            candidates=msgspec.Raw(b"[]"),
            left_out=0,
            revision=0,
        )
    )


async def award_all(pool: Pool, records: Sequence[bytes], connections: int) -> tuple[Counter[str], float]:
    """Award the records on several connections and return the answers by kind, and the seconds it took."""
    answers: Counter[str] = Counter()
    remaining: Iterator[bytes] = iter(records)

    async def work() -> None:
        async with pool.acquire() as connection:
            for record in remaining:
                answers[await connection.fetchval(DISTRIBUTION["award"], record)] += 1

    began = clock.monotonic()
    await asyncio.gather(*(work() for _ in range(connections)))
    return answers, clock.monotonic() - began


async def measure(url: str, attempts: int, connections: int) -> dict[str, Any]:
    """Return awards per second and the result of the race. Raises AssertionError if a breach is found."""
    owner = await connect_owner(url, "benchmark")
    furnisher = await asyncpg.connect(url, server_settings={"session_replication_role": "replica"})
    try:
        await furnisher.execute(literal(MILLION["parties"], encoded(MARKET), encoded(ORDER)))
        worker = await open_pool(url, "marketplace_worker", size=connections)
        async with worker:
            figures = {}
            for name, hot in (("alone", False), ("hot_wallet", True)):
                figures[f"{name}_per_s"] = await _rate(furnisher, owner, worker, attempts // 8, connections, hot)
            return figures | await _race(furnisher, owner, worker, attempts, connections)
    finally:
        await furnisher.close()
        await owner.close()


def buyer_of(number: int) -> int:
    """Return the number of the business of market 1 for this lead: they take turns."""
    return MARKETS * (1 + number % (BUSINESSES // MARKETS))


async def _rate(
    furnisher: asyncpg.Connection, owner: asyncpg.Connection, worker: Pool, leads: int, connections: int, hot: bool
) -> float:
    """Return awards per second, of leads to fifty businesses in turn, or all to one."""
    await _start_over(furnisher, leads + WARM_UP, (leads + WARM_UP) * PRICE_MINOR)
    rows = await owner.fetch(SQL["list_leads"], leads + WARM_UP)
    records = [
        make_record(row["id"], row["provider_id"], buyer_of(0 if hot else number), None)
        for number, row in enumerate(rows)
    ]
    await award_all(worker, records[:WARM_UP], connections)
    answers, seconds = await award_all(worker, records[WARM_UP:], connections)
    assert answers == {"won": leads}, answers
    return round(leads / seconds, 1)


async def _race(
    furnisher: asyncpg.Connection, owner: asyncpg.Connection, worker: Pool, attempts: int, connections: int
) -> dict[str, Any]:
    """Let several workers attempt each lead, with caps and wallets for a part of the leads, and count breaches."""
    leads = attempts // RACERS
    buyers = BUSINESSES // MARKETS
    cap, funded = max(1, leads // buyers // 2), max(1, leads // buyers * 2 // 5)
    wallet_minor = funded * PRICE_MINOR
    await _start_over(furnisher, leads, wallet_minor)
    rows = await owner.fetch(SQL["list_leads"], leads)
    records = [
        make_record(row["id"], row["provider_id"], buyer_of(number + 7 * racer), cap)
        for number, row in enumerate(rows)
        for racer in range(RACERS)
    ]
    answers, seconds = await award_all(worker, records, connections)
    breaches = await owner.fetchval(SQL["count_breaches"], wallet_minor)
    claims = await owner.fetchval(SQL["count_claims"])
    assert answers["won"] == claims, f"{answers['won']} awards were won, and there are {claims} claims"
    assert breaches == 0, f"{breaches} breaches"
    return {
        "race_attempts": len(records),
        "race_per_s": round(len(records) / seconds, 1),
        "race_answers": dict(sorted(answers.items())),
        "race_breaches": breaches,
    }


async def _start_over(furnisher: asyncpg.Connection, leads: int, wallet_minor: int) -> None:
    """Remove all leads and what hangs on them, create new ones, and fill each wallet."""
    await furnisher.execute("truncate lead, inquiry, assignment, transfer, decision, cap_usage, move cascade")
    await furnisher.execute(literal(SQL["leads"], leads))
    await furnisher.execute(SQL["fund"], wallet_minor)
    await furnisher.execute("vacuum analyze")


async def run(place: Path, attempts: int, connections: int) -> dict[str, Any]:
    """Start the engine in an empty directory and measure."""
    settings = load({"MARKETPLACE_DATA": str(place), "VALKEY_URL": "unix:///nowhere", "PATH": os.environ["PATH"]})
    async with engines(settings) as running:
        await migrate(running.database_url)
        return await measure(running.database_url, attempts, connections)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=80_000, help="attempts of the race; an eighth for each rate")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with temporary_directory() as place:
        figures = uvloop.run(run(place, options.attempts, options.connections))
    for name, figure in figures.items():
        print(f"{name:16}{figure}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
