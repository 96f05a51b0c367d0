"""Schedule of faults: two independent sequences from the seed, one of kills and one of all other faults."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from random import Random
from typing import Final

import msgspec
from redis.exceptions import RedisError

from marketplace.database.embedded import EngineError
from marketplace.runtime import clock
from tests.harness.kinds_of_faults import AWAY, KILLS, OTHERS, Kind, Scene
from tests.harness.traffic import Traffic
from tests.harness.world import World

OFTEN: Final = 100.0
"""The weight of a kind that is wanted often: about as much as that of all others together."""


class Fault(msgspec.Struct, kw_only=True):
    """One fault as it happened. `missed`: its victim was down already, or went down under it."""

    kind: str
    kills: bool
    began: datetime
    ended: datetime | None = None
    missed: bool = False


class Schedule:
    """Deals faults until told to stop; `faults` holds all of them. The seed decides what and when, the machine's own
    timing what it meets."""

    def __init__(
        self,
        world: World,
        traffic: Traffic,
        seed: int,
        seconds_per_kill: float,
        seconds_per_other: float,
        often: str | None = None,
    ) -> None:
        """`often` names a kind that comes far more often than usual."""
        self.faults: list[Fault] = []
        self.troubles: list[str] = []
        "Errors of the harness itself: there should be none."
        self._world, self._traffic, self._seed = world, traffic, seed
        others = tuple(msgspec.structs.replace(kind, weight=OFTEN) if kind.name == often else kind for kind in OTHERS)
        self._paces = ((KILLS, seconds_per_kill), (others, seconds_per_other))
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Run faults until `stopping` is set, then wait until the last has ended."""
        async with asyncio.TaskGroup() as group:
            for deck, pace in self._paces:
                group.create_task(self._deal(deck, pace, stopping))
        if self._running:
            await asyncio.wait(tuple(self._running))

    async def _deal(self, deck: Sequence[Kind], pace: float, stopping: asyncio.Event) -> None:
        for kind, pause, seed in deal(deck, pace, self._seed):
            try:
                await asyncio.wait_for(stopping.wait(), pause)
                return
            except TimeoutError:
                task = asyncio.create_task(self._commit(kind, seed))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _commit(self, kind: Kind, seed: int) -> None:
        fault = Fault(kind=kind.name, kills=kind.kills, began=clock.now())
        try:
            fault.missed = not await kind.run(Scene(self._world, self._traffic, Random(seed)))
        except (*AWAY, RedisError, EngineError):
            fault.missed = True
        except Exception as error:
            self.troubles.append(f"{kind.name}: {type(error).__name__}: {error}")
            fault.missed = True
        fault.ended = clock.now()
        if not fault.missed:
            self.faults.append(fault)


def deal(deck: Sequence[Kind], pace: float, seed: int) -> Iterator[tuple[Kind, float, int]]:
    """Yield for ever a kind, the seconds to wait before it, and its own seed; the same for the same seed."""
    random = Random(f"{deck[0].name} {seed}")
    weights = [kind.weight for kind in deck]
    while True:
        yield random.choices(deck, weights)[0], random.uniform(0.5, 1.5) * pace, random.getrandbits(32)
