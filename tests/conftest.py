"""Real engines for every test that asks: one PostgreSQL and one Valkey per run, a fresh database per test.

The servers start in the background while tests are collected, so a run of pure tests never waits for them. With
DATABASE_URL (a user who may create databases) or VALKEY_URL in the environment, the suite runs on that server instead.
"""

import asyncio
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis

from marketplace.embedded import Postgres, Valkey
from marketplace.migrate import migrate
from marketplace.settings import Settings, load

TEMPLATE = f"marketplace_template_{os.getpid()}"
SECRETS = {  # as random as any, and known to nobody's production
    "MARKETPLACE_MASTER_KEY": "pBDKZGV4cCGMeNbdOCyQOGgCWdLEy0tmCNSmTMRLKMM=",
    "MARKETPLACE_PEPPER": "tPZtG1cxyG2pgGVkZtSNxBgPRLfOw0aO6ZFvRGOsZ1k=",
}


class Ready(msgspec.Struct, kw_only=True):
    """What the first process tells the others once the servers are up, or why they are not."""

    admin_url: str = ""
    valkey_url: str = ""
    template: str = TEMPLATE
    trouble: str = ""


class Servers:
    """The engines of one run, owned by its first process."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="marketplace-"))
        self.directory.chmod(0o755)  # PostgreSQL may run as somebody else
        self.postgres = None if os.environ.get("DATABASE_URL") else Postgres(self.directory)
        self.valkey = None if os.environ.get("VALKEY_URL") else Valkey(self.directory)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.start()))
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
            await migrate(with_database(ready.admin_url, TEMPLATE))
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
        servers.thread.join()
        asyncio.run(servers.stop())
        shutil.rmtree(servers.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Ready:
    """Where the engines of this run are, once they are up."""
    given = getattr(request.config, "workerinput", None)
    directory = Path(given["servers"]) if given else request.config.stash[SERVERS].directory
    while not (directory / "ready.json").exists():
        time.sleep(0.02)
    ready = msgspec.json.decode((directory / "ready.json").read_bytes(), type=Ready)
    assert not ready.trouble, ready.trouble
    return ready


@pytest.fixture
def enterable_dir() -> Iterator[Path]:
    """A directory that every account may enter: the servers of a data directory may run as another than ours."""
    directory = Path(tempfile.mkdtemp(prefix="marketplace-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def empty_database_url(servers: Ready) -> AsyncIterator[str]:
    """A database of this test's own with nothing in it."""
    async for url in new_database(servers.admin_url, "template0"):
        yield url


@pytest.fixture
async def database_url(servers: Ready) -> AsyncIterator[str]:
    """A database of this test's own, migrated and with its reference data."""
    async for url in new_database(servers.admin_url, servers.template):
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
    async with asyncpg.create_pool(database_url, min_size=1, max_size=8) as pool:
        yield pool


@pytest.fixture
def settings(database_url: str, valkey_url: str, tmp_path: Path) -> Settings:
    """Settings of an installation on this test's own databases."""
    return load(SECRETS | {"DATABASE_URL": database_url, "VALKEY_URL": valkey_url, "MARKETPLACE_DATA": str(tmp_path)})


async def new_database(admin_url: str, template: str) -> AsyncIterator[str]:
    name = f"marketplace_test_{os.getpid()}_{time.monotonic_ns()}"
    await run_sql(admin_url, f"create database {name} template {template}")
    yield with_database(admin_url, name)
    await run_sql(admin_url, f"drop database {name} with (force)")


async def run_sql(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
