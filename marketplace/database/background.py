"""Background passes: work that nobody waits for, run by one worker at a time and never back to back.

A pass rests REST times as long as it took, so that each takes at most a twentieth of one processor, whatever it finds.
The rest is a row of the database, so that it holds for all workers together.
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
"Seconds of rest for each second of work: 5 % of one processor."
LEASE_SECONDS: Final = 15.0
"""A pass whose worker has died is taken by another after so long: longer than a statement may take. Passes that may not
meet take a lock of their own besides."""
LONGEST_REST: Final = 900.0
"Between two tries of a pass that keeps failing, and after a pass however long."


async def keep_passing(
    pool: Pool, name: str, work: Callable[[], Awaitable[object]], stopping: asyncio.Event, *, every: float
) -> None:
    """Run `work` until `stopping`: one pass at once for all workers, `every` seconds apart or more."""
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
    """One pass, unless another worker is at it or it still rests; whether it ran to its end.

    A failure is recorded by the class of its error, and the rest doubles with each in a row. Raises Unavailable.
    """
    async with session(pool) as connection:
        failures = await connection.fetchval(SQL["take_pass"], name, LEASE_SECONDS)
    if failures is None:
        return False
    began = clock.monotonic()
    error: str | None = None
    try:
        await work()
    except Exception as caught:  # a job wrapper: a pass that fails must not end its worker
        error = type(caught).__name__
        log.warning("pass_failed", job=name, error=error, count=failures + 1)
    took = clock.monotonic() - began
    rest = max(every, REST * took) if error is None else every * 2 ** min(failures + 1, 16)
    async with session(pool) as connection:
        await connection.execute(SQL["end_pass"], name, min(rest, LONGEST_REST), took, error)
    return error is None
