"""The supervisor, over real processes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from marketplace.runtime.supervisor import FIRST_PAUSE, PARENT, Child, Supervisor, stop_at_signals
from tests.waiting import PATIENCE

POLITE = (
    "import signal, sys, time, pathlib\n"
    "def leave(*_): pathlib.Path(sys.argv[1]).write_text('drained'); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, leave)\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)\n"
)


def child(code: str, *arguments: str, name: str = "one") -> Child:
    return Child(name=name, command=(sys.executable, "-c", code, *arguments))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - looks at other processes
            await asyncio.sleep(0.01)


@asynccontextmanager
async def supervising(*children: Child, logs: Path) -> AsyncIterator[Supervisor]:
    stopping = asyncio.Event()
    supervisor = Supervisor(children, logs)
    running = asyncio.create_task(supervisor.run(stopping))
    try:
        yield supervisor
    finally:
        stopping.set()
        await running


async def pid_of_ready(supervisor: Supervisor, logs: Path) -> int:
    """Wait until the child is ready, which may be before its supervisor notes its process id."""
    await until(ready(logs))
    await until(lambda: "one" in supervisor.pids)
    return supervisor.pids["one"]


def ready(logs: Path, times: int = 1) -> Callable[[], bool]:
    log = logs / "one.log"
    return lambda: log.exists() and log.read_text().count("ready") >= times


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    async with supervising(child(POLITE, str(tmp_path / "mark")), logs=tmp_path) as supervisor:
        before = await pid_of_ready(supervisor, tmp_path)
        os.kill(before, signal.SIGKILL)
        await until(lambda: supervisor.pids.get("one", before) != before)
        assert supervisor.restarts == {"one": 1}


async def test_a_child_may_finish_what_it_holds_before_it_goes(tmp_path: Path) -> None:
    async with supervising(child(POLITE, str(tmp_path / "mark")), logs=tmp_path) as supervisor:
        await until(ready(tmp_path))
    assert (tmp_path / "mark").read_text() == "drained"
    assert supervisor.pids == {}


LEAVES = (
    "import signal, sys, time, pathlib\n"
    "from marketplace.runtime.supervisor import say_leaving\n"
    "signal.signal(signal.SIGTERM, lambda *_: say_leaving())\n"
    "print('ready', flush=True)\n"
    "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)\n"
)


async def tell_to_leave(supervisor: Supervisor, logs: Path) -> int:
    """Tell the first child to stop, and return its process id once its successor is ready."""
    first = await pid_of_ready(supervisor, logs)
    os.kill(first, signal.SIGTERM)
    await until(lambda: ready(logs, times=2)() and supervisor.pids.get("one", first) != first)
    return first


async def test_a_child_that_leaves_has_a_successor_before_its_end(tmp_path: Path) -> None:
    end = tmp_path / "end"
    async with supervising(child(LEAVES, str(end)), logs=tmp_path) as supervisor:
        first = await tell_to_leave(supervisor, tmp_path)
        assert supervisor.pids["one"] != first
        assert not _gone(first)
        assert supervisor.restarts == {"one": 0}
        end.touch()
        await until(lambda: _gone(first))


async def test_stopping_waits_for_a_child_that_was_leaving_already(tmp_path: Path) -> None:
    end = tmp_path / "end"
    async with supervising(child(LEAVES, str(end)), logs=tmp_path) as supervisor:
        first = await tell_to_leave(supervisor, tmp_path)
        asyncio.get_running_loop().call_later(0.2, end.touch)
    assert _gone(first)


async def test_a_child_that_keeps_falling_is_started_ever_more_slowly(tmp_path: Path) -> None:
    async with supervising(child("print('ready', flush=True)"), logs=tmp_path) as supervisor:
        fell_at = []
        for falls in range(1, 5):
            await until(lambda falls=falls: supervisor.restarts["one"] >= falls)  # type: ignore[misc]
            fell_at.append(time.monotonic())
        assert fell_at[3] - fell_at[0] >= FIRST_PAUSE * (1 + 2 + 4) * 0.9


async def test_one_childs_fall_leaves_the_others_alone(tmp_path: Path) -> None:
    pair = (child(POLITE, str(tmp_path / "mark")), child("raise SystemExit(3)", name="other"))
    async with supervising(*pair, logs=tmp_path) as supervisor:
        pid = await pid_of_ready(supervisor, tmp_path)
        await until(lambda: supervisor.restarts["other"] >= 2)
        assert supervisor.pids["one"] == pid


async def test_stopping_takes_the_grandchildren_along(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('ready', inner.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    async with supervising(child(code), logs=tmp_path):
        await until(ready(tmp_path))
    inner = int((tmp_path / "one.log").read_text().split()[1])
    await until(lambda: _gone(inner))


async def test_a_child_leaves_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    orphan = "import asyncio; from marketplace.runtime.supervisor import orphaned; asyncio.run(orphaned())"
    parent = (
        "import os, subprocess, sys\n"
        f"os.environ[{PARENT!r}] = str(os.getpid())\n"
        f"inner = subprocess.Popen([sys.executable, '-c', {orphan!r}])\n"
        "print(inner.pid, flush=True)\n"
        "inner.wait()\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", parent, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    inner = int(await process.stdout.readline())
    process.kill()
    await process.wait()
    await until(lambda: _gone(inner))


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"  # dead, not yet forgotten


async def test_each_signal_to_stop_sets_the_next_event() -> None:
    stopping, hurrying = asyncio.Event(), asyncio.Event()
    stop_at_signals(stopping, hurrying)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await stopping.wait()
    assert not hurrying.is_set()
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(PATIENCE):
        await hurrying.wait()
