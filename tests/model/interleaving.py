"""Two transitions on two real connections, each statement at a chosen moment: real flows, and a pool that waits.

A transition runs until it is about to send its next statement, or to commit, and stands there until it is told to go
on. One that waits for a lock of the other is seen in Postgres and left waiting while the other goes on, as in life.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from marketplace.runtime.clock import monotonic
from tests.waiting import within

LOOK_SECONDS: Final = 0.002
"How long something may take before Postgres is asked whether it waits for a lock."
STEP_SECONDS: Final = 30.0
"More than the service lets any statement, lock or attempt take."

IsBlocked = Callable[[int], Awaitable[bool]]
"Whether the connection with this process id waits for a lock."


class SteppedPool:
    """A pool for one transition. Before each statement and each commit it asks `step`."""

    def __init__(self, pool: Any, step: Callable[[str, int | None, bool], Awaitable[None]]) -> None:
        self._pool = pool
        self._step = step

    @asynccontextmanager
    async def acquire(self, **options: Any) -> AsyncIterator[Any]:
        async with self._pool.acquire(**options) as connection:
            yield SteppedConnection(connection, self._step)


class SteppedConnection:
    """A connection that stands still before each statement."""

    def __init__(self, connection: Any, step: Callable[[str, int | None, bool], Awaitable[None]]) -> None:
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

    async def copy_records_to_table(self, table: str, **options: Any) -> Any:
        await self._step(f"insert into {table} from records", self._pid, self._connection.is_in_transaction())
        return await self._connection.copy_records_to_table(table, **options)

    async def _send(self, how: str, query: str, values: tuple[object, ...], options: dict[str, Any]) -> Any:
        await self._step(query, self._pid, self._connection.is_in_transaction())
        return await getattr(self._connection, how)(query, *values, **options)

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[None]:
        """Open a transaction. Its beginning is a step that changes nothing visible; its end is a step that may."""
        async with self._connection.transaction(**options):
            await self._step("begin", None, True)
            yield
            await self._step(COMMIT, self._pid, True)


COMMIT: Final = "commit"


class Step(msgspec.Struct, frozen=True):
    """A statement about to be sent, or a commit, and the statements that its transaction has sent before it."""

    statement: str
    in_transaction: bool
    uncommitted: tuple[str, ...]


class Actor:
    """One transition under way, and the statements that it has sent so far."""

    def __init__(self, name: str, run: Callable[["Actor"], Awaitable[object]]) -> None:
        self.name = name
        self.sent: list[str] = []
        self.sent_at: list[float] = []
        "When each of them was sent, to compare with those of the other transition."
        self.uncommitted: list[str] = []
        "Those of the transaction under way; a statement outside of one commits itself."
        self.waiting_to_send: str | None = None
        self.in_transaction = False
        self.transactions = 0
        "How many it has begun."
        self.blocked = False
        self.outcome: object = None
        self._pid: int | None = None
        self._at_gate = False
        self._stopped = False
        self._go = asyncio.Event()
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._live(run))

    @property
    def done(self) -> bool:
        return self._task.done()

    @property
    def may_move(self) -> bool:
        return not (self.done or self.blocked)

    @property
    def next_step(self) -> Step:
        """The step before which it stands. It must stand before one."""
        assert self.waiting_to_send is not None
        return Step(self.waiting_to_send, self.in_transaction, tuple(self.uncommitted))

    @property
    def holds_locks(self) -> bool:
        """Whether a lock of its may keep another waiting: it stands within a transaction, or within a statement."""
        return not self.done and (self.in_transaction or self.blocked)

    def stepped(self, pool: Any) -> SteppedPool:
        """`pool` as this transition uses it."""
        return SteppedPool(pool, self._step)

    async def advance(self, is_blocked: IsBlocked) -> None:
        """One statement further: until the next, the end, or a lock that somebody else holds."""
        if not self.blocked:
            await self.look(is_blocked)
            self._moved.clear()
            self._at_gate = False
            self._go.set()
        await self.look(is_blocked)

    async def advance_to(self, beginning: str, is_blocked: IsBlocked) -> None:
        """Run the task until it is about to send a statement with this beginning."""
        while not (self.waiting_to_send or "").startswith(beginning):
            assert not self.done, f"{self.name} ended without it: {self.outcome!r}"
            await self.advance(is_blocked)

    async def look(self, is_blocked: IsBlocked) -> None:
        """Return once it is known where it stands: before a statement, at its end, or waiting for a lock."""
        await within(STEP_SECONDS, self._settle(is_blocked), f"{self.name} after {self.sent[-1:]}")

    async def _settle(self, is_blocked: IsBlocked) -> None:
        was_blocked, self.blocked = self.blocked, False
        while not (self._at_gate or self.done):
            try:
                if not was_blocked:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._moved.wait()
            except TimeoutError:
                was_blocked = True
            if was_blocked and self._pid is not None and not self.done and await is_blocked(self._pid):
                self.blocked = not self._at_gate
                return
            was_blocked = False

    async def _step(self, statement: str, pid: int | None, in_transaction: bool) -> None:
        if self._stopped:  # what a cancelled session still sends, so that its connection can be lent again
            return
        if pid is None:
            self.uncommitted = []
            self.transactions += 1
            return
        self._at_gate, self.waiting_to_send, self.in_transaction = True, statement, in_transaction
        self._moved.set()
        await self._go.wait()
        self._go.clear()
        self.waiting_to_send = None
        self.sent.append(statement)
        self.sent_at.append(monotonic())
        if in_transaction:
            self.uncommitted.append(statement)
        self._pid = pid

    async def _live(self, run: Callable[["Actor"], Awaitable[object]]) -> None:
        try:
            self.outcome = await run(self)
        except Exception as error:
            self.outcome = error
        finally:
            self._moved.set()

    async def stop(self) -> None:
        self._stopped = True
        self._task.cancel()
        await asyncio.wait([self._task], timeout=STEP_SECONDS)


Pair = tuple[Actor, Actor]


async def _is_free(pid: int) -> bool:
    """Return that nothing blocks a connection: the other transition holds no lock, and Postgres need not be asked."""
    return False


async def interleave(actors: Pair, choose: Callable[[Pair], int], is_blocked: IsBlocked) -> None:
    """Step by step to the end of both; `choose` says whose step is next, of those who may go on."""
    for actor in actors:
        await actor.look(is_blocked)
    while not all(actor.done for actor in actors):
        if not any(actor.may_move for actor in actors):  # each waits for the other, and Postgres will end one of them
            for actor in actors:
                await actor.look(is_blocked)
            continue
        number = choose(actors)
        mover, other = actors[number], actors[1 - number]
        within_one = mover.in_transaction and mover.waiting_to_send != COMMIT, mover.transactions
        await mover.advance(is_blocked if other.holds_locks else _is_free)
        if other.blocked and within_one != (mover.in_transaction and not mover.done, mover.transactions):
            await other.look(is_blocked)  # what it waits for may have been given up
