"""Stores the columns that reports read: new hours once they are over, and past hours again after a change in them.

Any worker may make a pass, and a pass may be repeated: it writes what the SQL functions return at that time. A failed
pass only makes reports older.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from marketplace.database.background import keep_passing
from marketplace.database.db import Pool, Queries, load_record, transaction

SQL = Queries(__file__, "refresh.sql")

REFRESH_SECONDS: Final = 5.0
"Seconds between two passes: figures of past hours are about this old, and reports show their time."
SETTLING: Final = timedelta(minutes=2)
"Time after an hour's end before it is stored: most of its leads have reached their business by then."
HOURS_AT_ONCE: Final = 24
"Most hours of one pass, so that its transaction stays short. The next pass continues."
SETTLED: Final = timedelta(hours=1)
"Time without a change after which a past month is closed: reports on old leads mostly come in batches."
MONTHS_AT_ONCE: Final = 1
"Most months of one pass: a month of a hundred thousand leads is ten megabytes to copy."


async def keep_fresh(pool: Pool, stopping: asyncio.Event) -> None:
    """Make passes until `stopping` is set, within the budget of background passes."""

    async def run_pass() -> None:
        await refresh(pool)
        await close_months(pool)

    await keep_passing(pool, "report_hours", run_pass, stopping, every=REFRESH_SECONDS)


async def refresh(pool: Pool, now: datetime | None = None) -> int:
    """Make one pass, as the worker's role, and return the number of hours written.

    It is 0 if nothing has changed or another worker makes a pass. Uses the database's clock unless `now` is given: a
    machine whose clock is ahead must not store an hour that is not over.
    """
    async with transaction(pool) as connection:
        turn = await load_record(connection, SQL["take_turn"])
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
    """Close some settled months by storing their hours in one run per field; return the number of months closed."""
    async with transaction(pool) as connection:
        turn = await load_record(connection, SQL["take_turn"])
        if not turn["ours"]:
            return 0
        settled = await connection.fetch(SQL["list_settled"], (now or turn["now"]) - SETTLED, MONTHS_AT_ONCE)
        for row in settled:
            await connection.execute(SQL["close_month"], row["month"])
    return len(settled)


async def refresh_all(pool: Pool, now: datetime | None = None) -> int:
    """Make passes until there is nothing to write, and return the number of hours written."""
    total = 0
    while hours := await refresh(pool, now):
        total += hours
    return total
