"""Every wait of a test has an end, and says what it waited for.

Where the truth is not the time, the end is far off: a machine that is slow and busy is no fault of ours.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Iterator
from typing import Any, Final, TypeVar

from marketplace.runtime import clock

T = TypeVar("T")

CLOSING_SECONDS: Final = 15.0
PATIENCE: Final = 60.0
"Seconds for what should come at once, however slow and busy the machine."


async def within(seconds: float, awaited: Awaitable[T], what: str) -> T:
    """What `awaited` gives; if that takes longer than so many seconds, the test fails and says what it waited for."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await awaited
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise AssertionError(f"waited {seconds:g} s in vain for {what}") from error


def tries(what: str, seconds: float = PATIENCE, pause: float = 0.0) -> Iterator[int]:
    """Numbers of tries, from 0, for `seconds`; then the test fails and says what it waited for. Sleeps `pause` between.

    For loops outside asyncio and for loops over pages: a loop without an end hides why a test fails.
    """
    deadline = time.monotonic() + seconds
    for number in itertools.count():
        assert time.monotonic() < deadline, f"tried {number} times in {seconds:g} s in vain: {what}"
        yield number
        if pause:
            time.sleep(pause)


async def keep(connection: Any) -> None:
    """Reset nothing on a connection that returns to its pool: no test leaves a setting on one that others use, and
    asking would double the statements of those that come one by one."""


async def give_back(pool: Any) -> None:
    """Close a pool of connections; one that is still in use fails the test, and is not waited for for ever."""
    try:
        await within(CLOSING_SECONDS, pool.close(), "the last connection of a pool to be given back")
    finally:
        pool.terminate()


async def clear_of_the_hour(seconds: float = 20.0) -> None:
    """Wait for the next hour where this one ends so soon: what is counted by the hour or the day stays in one."""
    left = 3_600 - clock.now().timestamp() % 3_600
    if left < seconds:
        await asyncio.sleep(left + 0.1)
