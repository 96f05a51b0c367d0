"""Keeps the columns that reports read: new hours once they are over, old ones again when something in them changed.

Every pass may be repeated and any worker may make it; what it writes is what the functions of the schema say at that
moment, so that a pass that was lost costs freshness and nothing else.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from marketplace.background import keep_passing
from marketplace.db import Pool, Queries, transaction

SQL = Queries(__file__, "refresh.sql")

REFRESH_SECONDS: Final = 5.0
"How often changes are looked for: what a report says of hours that are over is at most this old, and says so."
SETTLING: Final = timedelta(minutes=2)
"After an hour's end, before it is kept: most of its leads have reached their business by then."
HOURS_AT_ONCE: Final = 24
"In one pass, so that a transaction stays short; with more to do, the next pass goes on."
SETTLED: Final = timedelta(hours=1)
"Without a change, after which a month that is over is closed: what is told of old leads mostly comes in batches."
MONTHS_AT_ONCE: Final = 1
"A month of a hundred thousand leads is ten megabytes to copy."


async def keep_fresh(pool: Pool, stopping: asyncio.Event) -> None:
    """Keeps the columns fresh until `stopping`, within the budget of background passes."""

    async def run_pass() -> None:
        await refresh(pool)
        await close_months(pool)

    await keep_passing(pool, "report_hours", run_pass, stopping, every=REFRESH_SECONDS)


async def refresh(pool: Pool, now: datetime | None = None) -> int:
    """One pass, as the worker's role; how many hours it wrote. 0 when all is fresh or another worker is at it.

    By the database's clock unless `now` is given: a machine whose clock is ahead must not keep an hour that still runs.
    """
    async with transaction(pool) as connection:
        turn = await connection.fetchrow(SQL["take_turn"])
        if not turn["ours"]:
            return 0
        now = now or turn["now"]
        await connection.execute(SQL["mark_stale"], now)
        stale = [row["hour"] for row in await connection.fetch(SQL["list_stale"], HOURS_AT_ONCE)]
        if stale:
            await connection.execute(SQL["open_months"], stale, now)
            await connection.execute(SQL["clear_hours"], stale)
            await connection.execute(SQL["keep_hours"], stale)
        frontier: datetime = turn["frontier"]
        over = (now - SETTLING).replace(minute=0, second=0, microsecond=0)
        reached = max(frontier, min(over, frontier + timedelta(hours=HOURS_AT_ONCE)))
        if reached > frontier:
            await connection.execute(SQL["open_months"], _hours(frontier, reached), now)
            await connection.execute(SQL["keep_span"], frontier, reached)
        await connection.execute(SQL["mark_progress"], reached, turn["seen"], now)
    return len(stale) + (reached - frontier) // timedelta(hours=1)


def _hours(since: datetime, until: datetime) -> list[datetime]:
    return [since + timedelta(hours=number) for number in range((until - since) // timedelta(hours=1))]


async def close_months(pool: Pool, now: datetime | None = None) -> int:
    """Puts together the hours of months that have settled, some at a time; how many."""
    async with transaction(pool) as connection:
        turn = await connection.fetchrow(SQL["take_turn"])
        if not turn["ours"]:
            return 0
        settled = await connection.fetch(SQL["list_settled"], (now or turn["now"]) - SETTLED, MONTHS_AT_ONCE)
        for row in settled:
            await connection.execute(SQL["close_month"], row["month"])
    return len(settled)


async def refresh_all(pool: Pool, now: datetime | None = None) -> int:
    """Passes until all is fresh; how many hours they wrote."""
    written = 0
    while hours := await refresh(pool, now):
        written += hours
    return written
