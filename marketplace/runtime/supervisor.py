"""Supervision of child processes: start, restart after they end, and drain before stopping; signals that stop.

A child that is told to stop by somebody else takes no new work, but may need a while for what it holds. It says so
through a pipe (`say_leaving`), and its successor is started at once, not after its end.
"""

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
LEAVING = "MARKETPLACE_LEAVING"
"""Variable with the file descriptor at which a child says that it takes no new work, closed at the child's end."""
_WORD = b"leaving"


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A process to run: its name, its command, additions to the environment, and file descriptors that it inherits."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = {}
    inherits: tuple[int, ...] = ()


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
                group.create_task(self._keep(child, stopping, group))

    async def _keep(self, child: Child, stopping: asyncio.Event, group: asyncio.TaskGroup) -> None:
        """Run one child, and start its successor when it ends or leaves. One that leaves is drained meanwhile."""
        pause = FIRST_PAUSE
        while not stopping.is_set():
            born = clock.monotonic()
            process, words = await self._start(child)
            self.pids[child.name] = process.pid
            leaves = False
            try:
                leaves = await _first(words.read(), process.wait(), stopping.wait()) == _WORD
            finally:
                if leaves and not stopping.is_set():
                    group.create_task(_drain(process))
                else:
                    await _drain(process)
                del self.pids[child.name]
            if leaves or stopping.is_set():
                continue
            pause = FIRST_PAUSE if clock.monotonic() - born > LONG_LIFE else pause
            self.restarts[child.name] += 1
            await _first(asyncio.sleep(pause), stopping.wait())
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _start(self, child: Child) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
        """Start a child, and return it with what it says at LEAVING, which ends with the child."""
        reading, writing = os.pipe()
        environment = {**os.environ, **child.environment, PARENT: str(os.getpid()), LEAVING: str(writing)}
        try:
            with contextlib.ExitStack() as stack:
                output = None if self._logs is None else stack.enter_context(_log(self._logs, child.name))
                process = await asyncio.create_subprocess_exec(
                    *child.command,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(writing, *child.inherits),
                    start_new_session=True,
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        words = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(words), os.fdopen(reading, "rb", 0)
        )
        return process, words


def say_leaving() -> None:
    """Tell the supervisor that started this process, if any, that this process takes no new work and will end."""
    descriptor = os.environ.pop(LEAVING, None)
    if descriptor is not None:
        with contextlib.suppress(OSError):  # the supervisor is gone
            os.write(int(descriptor), _WORD)
            os.close(int(descriptor))


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
    """Ask a child to end if it has not, and kill it after DRAIN_SECONDS."""
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), DRAIN_SECONDS)
    except TimeoutError:
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


async def _first(*awaitables: Coroutine[Any, Any, object]) -> object:
    """Return the result of the first of these that is done, and cancel the others."""
    tasks = [asyncio.create_task(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task.result() for task in tasks if task in done)
    finally:
        for task in tasks:
            task.cancel()


def _log(directory: Path, name: str) -> BinaryIO:
    directory.mkdir(parents=True, exist_ok=True)
    return open_log(directory / f"{name}.log")
