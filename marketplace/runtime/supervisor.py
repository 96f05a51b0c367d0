"""Supervision of child processes: start, restart after they end, and drain before stopping; signals that stop."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from marketplace.runtime import clock
from marketplace.runtime.log import open_log

FIRST_PAUSE = 0.1  # seconds before a child that ended is restarted; doubled while it keeps ending
LONGEST_PAUSE = 10.0
LONG_LIFE = 10.0  # after running for so long, the pause starts again at FIRST_PAUSE
DRAIN_SECONDS = 25.0  # the longest delivery attempt takes 20
PARENT = "MARKETPLACE_PARENT"
"""Variable with the supervisor's process id, so that a child ends when the supervisor is gone."""


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A process to run: its name, its command, and additions to the environment."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = {}


class Supervisor:
    """Runs `children`, each in its own process group; output goes to `logs`/name.log if set."""

    def __init__(self, children: Sequence[Child], logs: Path | None = None) -> None:
        self.pids: dict[str, int] = {}
        self.restarts: dict[str, int] = dict.fromkeys((child.name for child in children), 0)
        self._children = children
        self._logs = logs

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep all children running until `stopping` is set; return when all have ended."""
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(self._keep(child, stopping))

    async def _keep(self, child: Child, stopping: asyncio.Event) -> None:
        """Run one child, and restart it when it ends."""
        pause = FIRST_PAUSE
        while not stopping.is_set():
            born = clock.monotonic()
            process = await self._start(child)
            self.pids[child.name] = process.pid
            try:
                await _first(process.wait(), stopping.wait())
            finally:
                if process.returncode is None:
                    await _drain(process)
                del self.pids[child.name]
            if stopping.is_set():
                return
            pause = FIRST_PAUSE if clock.monotonic() - born > LONG_LIFE else pause
            self.restarts[child.name] += 1
            await _first(asyncio.sleep(pause), stopping.wait())
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        environment = {**os.environ, **child.environment, PARENT: str(os.getpid())}
        with contextlib.ExitStack() as stack:
            output = None if self._logs is None else stack.enter_context(_log(self._logs, child.name))
            return await asyncio.create_subprocess_exec(
                *child.command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


async def orphaned() -> None:
    """Return when the supervisor that started this process is gone; never, if there was none."""
    parent = os.environ.get(PARENT)
    if parent is None:
        await asyncio.Event().wait()
    while str(os.getppid()) == parent:  # noqa: ASYNC110 - the kernel sends no event that works everywhere
        await asyncio.sleep(0.5)


def stop_at_signals(*events: asyncio.Event) -> None:
    """Let each Ctrl-C or SIGTERM set the next of `events` that is not set yet, until the running loop is closed."""

    def set_next() -> None:
        for event in events:
            if not event.is_set():
                return event.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, set_next)


async def _drain(process: asyncio.subprocess.Process) -> None:
    """Ask a child to end, and kill it after DRAIN_SECONDS."""
    _signal_group(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), DRAIN_SECONDS)
    except TimeoutError:
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


async def _first(*awaitables: Coroutine[Any, Any, object]) -> None:
    """Return when one of these is done, and cancel the others."""
    tasks = [asyncio.create_task(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _log(directory: Path, name: str) -> BinaryIO:
    directory.mkdir(parents=True, exist_ok=True)
    return open_log(directory / f"{name}.log")
