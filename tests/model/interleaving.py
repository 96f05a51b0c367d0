"""Two transitions on two real connections, each statement at a chosen moment: real flows, and a pool that waits.

A transition runs until it is about to send its next statement, or to commit, and stands there until it is told to go
on. One that waits for a lock of the other is seen in Postgres and left waiting while the other goes on, as in life.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

LOOK_SECONDS: Final = 0.002
"How long something may take before Postgres is asked whether it waits for a lock."

END: Final = 1_000
"More statements than any transition has: to its end."


class SteppedPool:
    """A pool for one transition. Before each statement and each commit it asks `step`."""

    def __init__(self, pool: Any, step: Callable[[str, int | None], Awaitable[None]]) -> None:
        self._pool = pool
        self._step = step

    @asynccontextmanager
    async def acquire(self, **options: Any) -> AsyncIterator[Any]:
        async with self._pool.acquire(**options) as connection:
            yield SteppedConnection(connection, self._step)


class SteppedConnection:
    """A connection that stands still before each statement."""

    def __init__(self, connection: Any, step: Callable[[str, int | None], Awaitable[None]]) -> None:
        self._connection = connection
        self._step = step
        self._pid: int = connection.get_server_pid()

    async def execute(self, query: str, *values: object, **options: Any) -> Any:
        return await self._send("execute", query, values, options)

    async def fetch(self, query: str, *values: object, **options: Any) -> Any:
        return await self._send("fetch", query, values, options)

    async def fetchrow(self, query: str, *values: object, **options: Any) -> Any:
        return await self._send("fetchrow", query, values, options)

    async def fetchval(self, query: str, *values: object, **options: Any) -> Any:
        return await self._send("fetchval", query, values, options)

    async def _send(self, how: str, query: str, values: tuple[object, ...], options: dict[str, Any]) -> Any:
        await self._step(query, self._pid)
        return await getattr(self._connection, how)(query, *values, **options)

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[None]:
        """What begins one changes nothing that anybody can see; what ends it does."""
        async with self._connection.transaction(**options):
            await self._step("begin", None)
            yield
            await self._step("commit", self._pid)


class Actor:
    """One transition under way, and the statements that it has sent so far."""

    def __init__(self, name: str, run: Callable[["Actor"], Awaitable[object]]) -> None:
        self.name = name
        self.sent: list[str] = []
        self.waiting_to_send: str | None = None
        self.blocked = False
        self.outcome: object = None
        self._pid: int | None = None
        self._at_gate = False
        self._go = asyncio.Event()
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._live(run))

    @property
    def done(self) -> bool:
        return self._task.done()

    def stepped(self, pool: Any) -> SteppedPool:
        """`pool` as this transition uses it."""
        return SteppedPool(pool, self._step)

    async def advance(self, is_blocked: Callable[[int], Awaitable[bool]]) -> None:
        """One statement further: until the next, the end, or a lock that somebody else holds."""
        if not self.blocked:
            await self._settle(is_blocked)
            self._moved.clear()
            self._at_gate = False
            self._go.set()
        await self._settle(is_blocked)

    async def advance_to(self, beginning: str, is_blocked: Callable[[int], Awaitable[bool]]) -> None:
        """Until it is about to send the statement that begins like this."""
        while not (self.waiting_to_send or "").startswith(beginning):
            assert not self.done, f"{self.name} ended without it: {self.outcome!r}"
            await self.advance(is_blocked)

    async def _settle(self, is_blocked: Callable[[int], Awaitable[bool]]) -> None:
        self.blocked = False
        while not (self._at_gate or self.done):
            try:
                await asyncio.wait_for(self._moved.wait(), LOOK_SECONDS)
            except TimeoutError:
                if self._pid is not None and not self.done and await is_blocked(self._pid):
                    self.blocked = not self._at_gate
                    return

    async def _step(self, statement: str, pid: int | None) -> None:
        if pid is None:
            return
        self._at_gate, self.waiting_to_send = True, statement
        self._moved.set()
        await self._go.wait()
        self._go.clear()
        self.waiting_to_send = None
        self.sent.append(statement)
        self._pid = pid

    async def _live(self, run: Callable[["Actor"], Awaitable[object]]) -> None:
        try:
            self.outcome = await run(self)
        except Exception as error:
            self.outcome = error
        finally:
            self._moved.set()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def interleave(
    first: Actor, second: Actor, cuts: tuple[int, int], is_blocked: Callable[[int], Awaitable[bool]]
) -> None:
    """`cuts` statements of the first, then of the second, then the first to its end, and the second."""
    for actor, most in ((first, cuts[0]), (second, cuts[1])):
        for _ in range(most):
            if actor.done:
                break
            await actor.advance(is_blocked)
            if actor.blocked:
                break
    while not (first.done and second.done):
        for actor in (first, second):
            while not actor.done:
                await actor.advance(is_blocked)
                if actor.blocked:
                    break
