"""The product's own processes, each kept running: whatever ends one, another is started; how it ended counts."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from marketplace.runtime import failpoints
from tests.builders.forks import Fork, start

PAUSE_SECONDS: Final = 0.1
DRAIN_SECONDS: Final = 26.0


class Kept:
    """One process, in a session of its own. `environment` is asked anew at each start."""

    def __init__(self, name: str, command: str, environment: Callable[[], Mapping[str, str]], log: Path) -> None:
        self.name = name
        self.ends: Counter[str] = Counter()
        "How often it ended in which way: killed, failpoint, drained, or with another exit code."
        self._command = command
        self._environment = environment
        self._log = log
        self._process: Fork | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Run until `stop`."""
        while not self._stopping.is_set():
            self._process = await start(self._command, {**os.environ, **self._environment()}, self._log)
            self.ends[_way(await self._process.wait())] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    @property
    def pid(self) -> int | None:
        """None while it is down."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    def signal(self, number: signal.Signals) -> bool:
        """False when there was nobody to take it."""
        if self._process is None or self._process.returncode is not None:
            return False
        self._process.send_signal(number)
        return True

    async def stop(self, running: asyncio.Task[None]) -> None:
        """Drain it, or end it when that takes too long; `running` is the task of its `run`."""
        self._stopping.set()
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        done, _ = await asyncio.wait((running,), timeout=DRAIN_SECONDS)
        if not done:
            self.signal(signal.SIGKILL)
            await running


def _way(code: int) -> str:
    match code:
        case 0:
            return "drained"
        case failpoints.EXIT_CODE:
            return "failpoint"
        case -9:
            return "killed"
        case _:
            return f"exit {code}"
