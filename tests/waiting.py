"""Every wait of a test has an end, and says what it waited for."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

T = TypeVar("T")

CLOSING_SECONDS: Final = 15.0


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


async def give_back(pool: Any) -> None:
    """Close a pool of connections; one that is still in use fails the test, and is not waited for for ever."""
    try:
        await within(CLOSING_SECONDS, pool.close(), "the last connection of a pool to be given back")
    finally:
        pool.terminate()
