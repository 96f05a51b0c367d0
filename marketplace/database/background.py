"""Background passes: periodic work, run by one worker at a time and limited to a share of one processor.

After a pass the next one waits REST times as long as it took. The waiting time is stored in the database, so that it
holds for all workers together.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from marketplace.database.db import Pool, Queries, session
from marketplace.runtime import clock
from marketplace.runtime.errors import Unavailable
from marketplace.runtime.log import logger

SQL = Queries(__file__, "background.sql")
log = logger("background")

REST: Final = 19
"Seconds of pause for each second of work: a pass takes at most 5 % of one processor."
LEASE_SECONDS: Final = 15.0
"""Lease of a pass: another worker takes it over after so long, which is longer than a statement may take. A pass that
must not run twice at once takes a lock besides."""
LONGEST_REST: Final = 900.0
"Upper limit of the pause in seconds, after failures and after long passes."


async def keep_passing(
    pool: Pool, name: str, work: Callable[[], Awaitable[object]], stopping: asyncio.Event, *, every: float
) -> None:
    """Run `work` until `stopping` is set: at least `every` seconds apart, and once at a time across all workers."""
    while not stopping.is_set():
        try:
            await run_pass(pool, name, work, every=every)
        except Unavailable as error:
            log.warning("pass_not_run", job=name, error=str(error))
        try:
            await asyncio.wait_for(stopping.wait(), every)
        except TimeoutError:
            continue


async def run_pass(pool: Pool, name: str, work: Callable[[], Awaitable[object]], *, every: float) -> bool:
    """Run `work` once, unless another worker runs it or its pause is not over; return whether it ran without an error.

    A failure is recorded by the name of its class, and the pause doubles with each failure in a row. Raises
    Unavailable.
    """
    async with session(pool) as connection:
        failures = await connection.fetchval(SQL["take_pass"], name, LEASE_SECONDS)
    if failures is None:
        return False
    began = clock.monotonic()
    error: str | None = None
    try:
        await work()
    except Exception as caught:  # a failing pass must not end its worker
        error = type(caught).__name__
        log.warning("pass_failed", job=name, error=error, count=failures + 1)
    took = clock.monotonic() - began
    pause = max(every, REST * took) if error is None else every * 2 ** min(failures + 1, 16)
    async with session(pool) as connection:
        await connection.execute(SQL["end_pass"], name, min(pause, LONGEST_REST), took, error)
    return error is None
