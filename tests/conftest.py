"""Real engines for every test that asks: one PostgreSQL and one Valkey per run, a fresh database per test.

The servers start in the background while tests are collected, so a run of pure tests never waits for them. With
DATABASE_URL (a user who may create databases) or VALKEY_URL in the environment, the suite runs on that server instead.

No test may hang. A coroutine that takes two thirds of faulthandler_timeout is cancelled where it waits, and fails with
that place in its traceback. Whatever cannot be cancelled ends with its process when all of that time is over: the test
fails by name, the stacks are printed, and another process runs the rest.

No test leans on chance. Hypothesis draws the same examples in every run; `--hypothesis-profile=chance` draws new ones.
"""

import asyncio
import base64
import functools
import gc
import hashlib
import inspect
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import hypothesis
import msgspec
import pytest
from redis.asyncio import Redis

from marketplace.database import db
from marketplace.database.embedded import Postgres, Valkey
from marketplace.database.migrate import migrate
from marketplace.portal import passwords
from marketplace.runtime import live, queue
from marketplace.runtime.settings import Settings, load, processors
from marketplace.web import limiting
from tests.waiting import CLOSING_SECONDS, PATIENCE, give_back, within

READY_SECONDS = 120.0
"A first start, the schema, and a busy machine: two seconds where nothing else runs."
ROOM_BYTES = 2 * 1024**3
"Twice what the servers of a run have been seen to fill, on eight processors."
TEMPLATE = f"marketplace_template_{os.getpid()}"
SECRETS = {  # as random as any, and known to nobody's production
    "MARKETPLACE_MASTER_KEY": "pBDKZGV4cCGMeNbdOCyQOGgCWdLEy0tmCNSmTMRLKMM=",
    "MARKETPLACE_PEPPER": "tPZtG1cxyG2pgGVkZtSNxBgPRLfOw0aO6ZFvRGOsZ1k=",
}


MASTER_KEY = base64.b64decode(SECRETS["MARKETPLACE_MASTER_KEY"])
"From which the logins of the processes follow: they belong to the server, and so to all databases of the run."


UNHURRIED = hypothesis.settings(deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
"However long a busy machine takes to make up an example."
hypothesis.settings.register_profile("chance", UNHURRIED)
hypothesis.settings.register_profile("the same", UNHURRIED, derandomize=True, database=None)
hypothesis.settings.load_profile("the same")


PRODUCTION_HASH = passwords.MEMORY_KIB, passwords.PASSES


class Ready(msgspec.Struct, kw_only=True):
    """What the first process tells the others once the servers are up, or why they are not."""

    admin_url: str = ""
    valkey_url: str = ""
    template: str = TEMPLATE
    trouble: str = ""


class Servers:
    """The engines of one run, owned by its first process."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="marketplace-", dir=in_memory()))
        self.directory.chmod(0o755)  # PostgreSQL may run as somebody else
        self.postgres = None if os.environ.get("DATABASE_URL") else Postgres(self.directory, {"max_wal_size": "256MB"})
        self.valkey = None if os.environ.get("VALKEY_URL") else Valkey(self.directory)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.start()), daemon=True)
        self.thread.start()

    async def start(self) -> None:
        ready = Ready()
        try:
            for engine in (self.postgres, self.valkey):
                if engine is not None:
                    await engine.start()
            ready.admin_url = self.postgres.url if self.postgres else os.environ["DATABASE_URL"]
            ready.valkey_url = self.valkey.url if self.valkey else os.environ["VALKEY_URL"]
            await run_sql(ready.admin_url, f"create database {TEMPLATE}")
            await migrate(with_database(ready.admin_url, TEMPLATE), MASTER_KEY)
        except Exception as error:
            ready.trouble = f"{type(error).__name__}: {error}"
        draft = self.directory / "ready.new"
        draft.write_bytes(msgspec.json.encode(ready))
        draft.rename(self.directory / "ready.json")

    async def stop(self) -> None:
        if self.postgres is None:
            await run_sql(os.environ["DATABASE_URL"], f"drop database if exists {TEMPLATE} with (force)")
        for engine in (self.postgres, self.valkey):
            if engine is not None:
                await engine.stop()


SERVERS = pytest.StashKey[Servers]()


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors for this run, because tests also wait for engines, processes and limits.

    Counting cores, as is usual, leaves idle what each is besides.
    """
    return processors() + 1


LONG = frozenset({"model", "harness", "walk", "test_schemathesis.py"})
"Directories and files of tests that take up to minutes each."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest begin first: one that began last would keep all other processes waiting."""
    items.sort(key=lambda item: LONG.isdisjoint(item.path.parts))


def pytest_itemcollected(item: pytest.Item) -> None:
    limit = float(item.config.getini("faulthandler_timeout") or 0) * 2 / 3
    if limit and isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = limited(item.obj, limit)


def limited(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    """`test`, cancelled where it stands when it takes longer."""

    @functools.wraps(test)
    async def run(**arguments: Any) -> None:
        await within(seconds, test(**arguments), "the test to end")

    return run


def pytest_collection_finish() -> None:
    """What was imported and collected stays until the end: no search for garbage needs to look through it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: Any) -> None:
    if not hasattr(config, "workerinput"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a run cut short stops its servers too
        config.stash[SERVERS] = Servers()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["servers"] = str(node.config.stash[SERVERS].directory)


def pytest_unconfigure(config: Any) -> None:
    if servers := config.stash.get(SERVERS, None):
        servers.thread.join(READY_SECONDS)
        asyncio.run(within(READY_SECONDS, servers.stop(), "the servers of the run to stop"))
        shutil.rmtree(servers.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Ready:
    """Where the engines of this run are, once they are up."""
    given = getattr(request.config, "workerinput", None)
    directory = Path(given["servers"]) if given else request.config.stash[SERVERS].directory
    deadline = time.monotonic() + READY_SECONDS
    while not (directory / "ready.json").exists():
        assert time.monotonic() < deadline, "waited in vain for the servers of the run to start"
        time.sleep(0.02)
    ready = msgspec.json.decode((directory / "ready.json").read_bytes(), type=Ready)
    assert not ready.trouble, ready.trouble
    return ready


class Administration:
    """A connection to the run's PostgreSQL that outlives the loops of the tests, in a thread of its own: to connect for
    each database that is made and dropped would cost the server 20 ms of processor time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def run(self, statement: str) -> None:
        """Run one statement, after those of earlier calls have ended."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._execute(statement), self._loop))

    def close(self) -> None:
        """Close the connection and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(CLOSING_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSING_SECONDS)
        self._loop.close()

    async def _execute(self, statement: str) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._url, command_timeout=60)
        await self._connection.execute(statement)

    async def _close(self) -> None:
        if self._connection is not None:
            await self._connection.close(timeout=CLOSING_SECONDS)


@pytest.fixture(scope="session")
def administration(servers: Ready) -> Iterator[Administration]:
    """By which this process makes and drops the databases of its tests."""
    administration = Administration(servers.admin_url)
    yield administration
    administration.close()


@pytest.fixture(scope="session", autouse=True)
def few_connections() -> Iterator[None]:
    """A pool in the tests' own processes opens a connection when it is needed, and none before. To be ready for a busy
    moment costs a server 12 ms of processor time for each, more than most tests do with them. `at_once=1` opens one at
    once, for tests of what happens then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "READY", 0)
        yield


@pytest.fixture(scope="session", autouse=True)
def derived_once() -> Iterator[None]:
    """The key of a login is derived from its password once in the tests' own processes. To derive it again for each
    connection costs the client 2 ms of processor time, and gives the same key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashlib, "pbkdf2_hmac", functools.cache(hashlib.pbkdf2_hmac))
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_hashes() -> Iterator[None]:
    """Passwords of members are hashed with the smallest work in the tests' own processes. The work of production takes
    80 ms and 46 MiB for each password that a test sets or enters; `production_hashes` has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "MEMORY_KIB", 8)
        patch.setattr(passwords, "PASSES", 1)
        yield


@pytest.fixture
def production_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords as in production: for tests of the hashes, and of the time that they take."""
    monkeypatch.setattr(passwords, "MEMORY_KIB", PRODUCTION_HASH[0])
    monkeypatch.setattr(passwords, "PASSES", PRODUCTION_HASH[1])


@pytest.fixture(scope="session", autouse=True)
def unhurried() -> Iterator[None]:
    """In the tests' own processes nobody gives up on an engine because the machine is busy. The tests of these limits
    set limits of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "ACQUIRE_SECONDS", PATIENCE)
        for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            patch.setitem(db.SESSION, limit, f"{PATIENCE:.0f}s")
        patch.setattr(limiting, "VALKEY_LIMIT_S", PATIENCE)
        patch.setattr(live, "PUBLISH_LIMIT_S", PATIENCE)
        patch.setattr(queue, "NOTIFY_LIMIT_S", PATIENCE)
        yield


@pytest.fixture
def enterable_dir() -> Iterator[Path]:
    """A directory that every account may enter: the servers of a data directory may run as another than ours."""
    directory = Path(tempfile.mkdtemp(prefix="marketplace-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def empty_database_url(servers: Ready, administration: Administration) -> AsyncIterator[str]:
    """A database of this test's own with nothing in it."""
    async for url in new_database(administration, servers.admin_url, "template0"):
        yield url


@pytest.fixture
async def database_url(servers: Ready, administration: Administration) -> AsyncIterator[str]:
    """A database of this test's own, migrated and with its reference data."""
    async for url in new_database(administration, servers.admin_url, servers.template):
        yield url


@pytest.fixture
async def valkey_url(servers: Ready, worker_id: str) -> str:
    """An empty numbered database of Valkey that no test running at the same time uses."""
    number = int(worker_id.removeprefix("gw")) + 1 if worker_id.startswith("gw") else 0
    parts = urlsplit(servers.valkey_url)
    if parts.scheme == "unix":
        url = urlunsplit(parts._replace(query=f"db={number}"))
    else:
        url = urlunsplit(parts._replace(path=f"/{number}"))
    async with Redis.from_url(url) as client:
        await client.flushdb()
    return url


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Any]:
    """Plain connections of the owner to `database_url`, to arrange and to look behind the scenes."""
    pool = await asyncpg.create_pool(database_url, min_size=0, max_size=8)
    try:
        yield pool
    finally:
        await give_back(pool)


@pytest.fixture
def settings(database_url: str, valkey_url: str, tmp_path: Path) -> Settings:
    """Settings of an installation on this test's own databases."""
    return load(SECRETS | {"DATABASE_URL": database_url, "VALKEY_URL": valkey_url, "MARKETPLACE_DATA": str(tmp_path)})


def in_memory() -> Path | None:
    """Where files are kept in memory, if there is such a place with room for a run: what reaches it is as good as
    written, since no test takes the power away. The servers' settings stay, and every flush is still asked for."""
    place = Path("/dev/shm")
    if not os.access(place, os.W_OK | os.X_OK) or not os.path.ismount(place):
        return None
    free = os.statvfs(place)
    return place if free.f_bavail * free.f_frsize >= ROOM_BYTES else None


async def new_database(administration: Administration, admin_url: str, template: str) -> AsyncIterator[str]:
    name = f"marketplace_test_{os.getpid()}_{time.monotonic_ns()}"
    await administration.run(f"create database {name} template {template} strategy file_copy")
    yield with_database(admin_url, name)
    await administration.run(f"drop database {name} with (force)")


async def run_sql(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, command_timeout=60)
    try:
        await connection.execute(statement)
    finally:
        await connection.close(timeout=CLOSING_SECONDS)


def with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
