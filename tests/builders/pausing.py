"""A pool that stops a flow at one statement, so that a test can change the database in exactly that moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from marketplace.database.db import Pool
from tests.waiting import PATIENCE


class HeldUp:
    """A pool whose connections stop at one statement, before it or after it, until they are let go."""

    def __init__(self, pool: Any, statement: str, *, after: bool = False) -> None:
        self.arrived, self.let_go = asyncio.Event(), asyncio.Event()
        self._pool, self._statement, self._after = pool, statement, after

    @property
    def pool(self) -> Pool:
        """This object as the pool that our code takes."""
        return cast(Pool, self)

    @asynccontextmanager
    async def acquire(self, **limits: Any) -> AsyncIterator[Any]:
        async with self._pool.acquire(**limits) as connection:
            yield _Stopping(connection, self)

    async def run(self, method: Any, statement: str, arguments: tuple[Any, ...]) -> Any:
        """The statement, held up where it is the one."""
        held_up = statement == self._statement
        if held_up and not self._after:
            await self._wait()
        outcome = await method(statement, *arguments)
        if held_up and self._after:
            await self._wait()
        return outcome

    async def _wait(self) -> None:
        self.arrived.set()
        async with asyncio.timeout(PATIENCE):  # a test that fails meanwhile must not keep its connections for ever
            await self.let_go.wait()


class _Stopping:
    def __init__(self, connection: Any, gate: HeldUp) -> None:
        self._connection, self._gate = connection, gate

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._connection, name)
        if name not in ("execute", "fetch", "fetchrow", "fetchval"):
            return attribute
        return lambda statement, *arguments: self._gate.run(attribute, statement, arguments)
