"""A whole installation for one run: engines, API, workers and receivers, each in its own process.

With embedded engines all data is in one directory, which is emptied before each run and remains after it. Its pids.json
has the process ids, so that you can kill a process and see the effect; it is started again.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from marketplace.database.db import Pool, open_pool
from marketplace.database.doctor import before_migrating, examine, unsafe
from marketplace.database.embedded import Engines, Postgres, Valkey, engines
from marketplace.database.migrate import migrate
from marketplace.demo.certificates import ACCOUNT_KEY
from marketplace.demo.receivers import HOST, Receiver
from marketplace.demo.world import Behaviour
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings, StartError, load, number
from marketplace.runtime.supervisor import Child, Supervisor
from marketplace.security import auth
from marketplace.security.sealing import Sealer

READY_SECONDS: Final = 30.0
FALLS_AT_START: Final = 3
PIDS_SECONDS: Final = 0.2
LOCK: Final = "demo.lock"
RECEIVERS: Final = "receivers"
"""Subdirectory of the receivers, apart from the data of the service."""
WORKER: Final = "marketplace.cli"
"""Module of the worker processes."""


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """A running installation: directory, settings, engines, URL, and an operator's key."""

    directory: Path
    settings: Settings
    engines: Engines
    url: str
    operator_key: str
    supervisor: Supervisor

    def pids(self) -> dict[str, int | list[int] | None]:
        """Return the current process ids; None for a process that is being started, or that we did not start."""
        children = self.supervisor.pids
        return {
            "api": children.get("api"),
            "workers": [pid for name, pid in sorted(children.items()) if name.startswith("worker-")],
            "receivers": children.get("receivers"),
            "postgres": self.engines.postgres.pid if self.engines.postgres else None,
            "valkey": self.engines.valkey.pid if self.engines.valkey else None,
            "demo": os.getpid(),
        }

    def restarts(self) -> int:
        """Return the number of times that a child process was started again."""
        return sum(self.supervisor.restarts.values())


def refuse_external(environ: Mapping[str, str], *, allowed: bool) -> None:
    """Refuse to write invented people to external engines. Raises StartError unless `allowed` or none is configured."""
    named = [name for name in ("DATABASE_URL", "VALKEY_URL") if environ.get(name, "").strip()]
    if named and not allowed:
        raise StartError(
            "demo_on_external_engines",
            f"{named[0]} is set, and this would write invented people there.",
            "Unset it to use engines made for the run, or say --on-external-engines.",
        )


@contextmanager
def fresh_directory(directory: Path) -> Iterator[Path]:
    """Yield the directory of a run, locked. Raises StartError if another run uses it or it has other content."""
    directory = directory.expanduser().resolve()
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / LOCK).exists() and any(directory.iterdir()):
        raise StartError(
            "demo_directory_not_ours", f"{directory} holds something else.", "Name an empty directory with --data."
        )
    with (directory / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                "demo_directory_in_use", f"Another run uses {directory}.", "Name another directory with --data."
            ) from None
        yield directory


async def empty(directory: Path) -> None:
    """Remove the data of an earlier run, and stop its engines if they still run."""
    postgres, valkey = Postgres(directory), Valkey(directory)
    for engine in (postgres, valkey):
        await engine.stop()
    await asyncio.to_thread(_remove, postgres.directory, directory)


def _remove(database: Path, directory: Path) -> None:
    """Remove the database, which may be outside the directory, and all files of the directory except the lock."""
    shutil.rmtree(database, ignore_errors=True)
    for path in directory.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@asynccontextmanager
async def running(
    directory: Path,
    behaviours: Mapping[str, Behaviour],
    workers: int | None,
    *,
    external: bool = False,
    worker: str = WORKER,
    certified: bool = False,
) -> AsyncIterator[Installation]:
    """Start all processes and yield the installation once it answers. On exit, all processes finish their work and end.

    `behaviours` are those of the receivers, by business. `worker` is the module of the worker processes. With
    `certified`, a stand-in for the service of certificates runs as well.
    """
    port, ops_port, service_port, *ports = free_ports(_chosen_port(os.environ), 3 + len(behaviours))
    environment = _environment(directory, workers, port, ops_port, external=external)
    service_url = f"http://{HOST}:{service_port}"
    if certified:
        environment |= {"MARKETPLACE_TRUSTEDFORM_URL": service_url, "MARKETPLACE_TRUSTEDFORM_KEY": ACCOUNT_KEY}
    settings = load({**os.environ, **environment})
    receivers = _receivers(behaviours, ports)
    keep_receivers(directory, receivers)
    leaving = asyncio.Event()
    async with engines(settings) as engine_set:
        await _prepare(settings, engine_set)
        installation = Installation(
            directory=directory,
            settings=settings,
            engines=engine_set,
            url=f"http://{HOST}:{settings.port}",
            operator_key=await _operator_key(settings, engine_set),
            supervisor=Supervisor(
                [
                    *_children(settings, environment, directory, worker),
                    *([_service(service_port)] if certified else []),
                ],
                directory / "logs",
            ),
        )
        supervising = asyncio.create_task(installation.supervisor.run(leaving))
        pids = asyncio.create_task(_keep_pids(installation))
        try:
            waiting = {f"{installation.url}/readyz", *(receiver.url for receiver in receivers)}
            if certified:
                waiting.add(f"{service_url}/ready")
            await all_ready(waiting, installation.supervisor, directory / "logs")
            yield installation
        finally:
            pids.cancel()
            leaving.set()
            await supervising


def keep_receivers(directory: Path, receivers: tuple[Receiver, ...]) -> None:
    """Write the receivers of an installation, for their process."""
    (directory / RECEIVERS).mkdir(exist_ok=True)
    _write(directory / RECEIVERS / "receivers.json", receivers)


def read_receivers(directory: Path) -> tuple[Receiver, ...]:
    """Read the receivers of an installation."""
    return msgspec.json.decode((directory / RECEIVERS / "receivers.json").read_bytes(), type=tuple[Receiver, ...])


def _environment(directory: Path, workers: int | None, port: int, ops_port: int, *, external: bool) -> dict[str, str]:
    """Return the environment variables that differ from the caller's.

    The public host name is localhost, because the service refuses to deliver to its own host name, and the receivers
    are on 127.0.0.1.
    """
    environment = {
        "MARKETPLACE_DATA": str(directory),
        "MARKETPLACE_HOST": HOST,
        "MARKETPLACE_PORT": str(port),
        "MARKETPLACE_PUBLIC_URL": f"http://localhost:{port}",
        "MARKETPLACE_OUTBOUND_NETWORKS": "127.0.0.0/8",
        "MARKETPLACE_OUTBOUND_HTTP": "true",
        "MARKETPLACE_OPS_ADDRESS": f"{HOST}:{ops_port}",
        "MARKETPLACE_WORKER_METRICS_PORT": "",
    }
    if workers is not None:
        environment["MARKETPLACE_WORKERS"] = str(workers)
    if not external:
        environment |= {"DATABASE_URL": "", "VALKEY_URL": ""}
    return environment


def _chosen_port(environ: Mapping[str, str]) -> int:
    """Return the API's port from MARKETPLACE_PORT, or 0 for any. Raises SettingsError if it is not valid."""
    named = {name: value.strip() for name, value in environ.items() if name == "MARKETPLACE_PORT" and value.strip()}
    return number(named, "MARKETPLACE_PORT", 0, 0, 65535)


def free_ports(first: int, count: int) -> list[int]:
    """Return free ports, the first of them `first` unless that is 0. All are bound at once, so that they differ.

    Raises StartError if `first` is in use.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener, port in zip(sockets, (first, *[0] * (count - 1)), strict=True):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError as error:
                raise StartError(
                    "address_taken",
                    f"Nothing can listen on {HOST} port {port}: {error.strerror}.",
                    "Stop the process that uses it, set MARKETPLACE_PORT to another, or unset it for a free one.",
                ) from error
        return [listener.getsockname()[1] for listener in sockets]


def _receivers(behaviours: Mapping[str, Behaviour], ports: list[int]) -> tuple[Receiver, ...]:
    return tuple(
        Receiver(business=business, port=port, behaviour=behaviour)
        for (business, behaviour), port in zip(behaviours.items(), ports, strict=True)
    )


def _children(settings: Settings, environment: dict[str, str], directory: Path, worker: str) -> list[Child]:
    receivers = (sys.executable, "-m", "marketplace.demo.receivers", str(directory / RECEIVERS))
    return [
        Child(name="receivers", command=receivers),
        Child(name="api", command=(sys.executable, "-m", "marketplace.cli", "serve"), environment=environment),
        *(
            Child(name=f"worker-{number}", command=(sys.executable, "-m", worker, "work"), environment=environment)
            for number in range(1, settings.workers + 1)
        ),
    ]


def _service(port: int) -> Child:
    return Child(name="certificates", command=(sys.executable, "-m", "marketplace.demo.certificates", str(port)))


async def _prepare(settings: Settings, engine_set: Engines) -> None:
    findings = before_migrating(await examine(settings, engine_set))
    if unsafe(findings):
        raise StartError("unsafe", findings[0].sentence, findings[0].remedy)
    await migrate(engine_set.database_url, settings.master_key)


async def _operator_key(settings: Settings, engine_set: Engines) -> str:
    """Create the first operator's key in the database, because the API requires a key to create one."""
    pool = await open_pool(engine_set.database_url, "marketplace_api", size=1, master_key=settings.master_key)
    async with pool, pool.acquire() as connection:
        sealer = Sealer(settings.master_key, settings.pepper)
        return await auth.create_key(
            connection, sealer, kind=auth.CallerKind.operator, owner_id=None, mode="live", name="demo"
        )


async def all_ready(urls: Iterable[str], supervisor: Supervisor, logs: Path) -> None:
    """Return once all URLs answer. Raises StartError after READY_SECONDS, or if a child was started again too often."""
    deadline = clock.monotonic() + READY_SECONDS
    waiting = set(urls)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
        while waiting:
            _refuse_if_falling(supervisor, logs)
            if clock.monotonic() > deadline:
                raise StartError("demo_not_ready", "The installation does not answer.", f"Read the logs in {logs}.")
            for url in tuple(waiting):
                if await _answers(session, url):
                    waiting.discard(url)
            await asyncio.sleep(0.05)


def _refuse_if_falling(supervisor: Supervisor, logs: Path) -> None:
    """Raise StartError with the last log line of a child process that was started again too often."""
    for name, falls in supervisor.restarts.items():
        if falls >= FALLS_AT_START:
            log = logs / f"{name}.log"
            words = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise StartError("demo_not_ready", f"The process {name} exits: {' '.join(words)}.", f"Read {log}.")


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Return whether a URL answers. A receiver accepts only POST and answers 405."""
    try:
        async with session.get(url) as response:
            return response.status in (200, 405)
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _keep_pids(installation: Installation) -> None:
    previous: object = None
    while True:
        pids = installation.pids()
        if pids != previous:
            _write(installation.directory / "pids.json", pids)
            previous = pids
        await asyncio.sleep(PIDS_SECONDS)


def _write(path: Path, value: object) -> None:
    """Write a JSON file by renaming it into place, so that no reader sees a part of it."""
    draft = path.with_name(f"{path.name}.new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
    draft.rename(path)


async def reports_pool(settings: Settings, engine_set: Engines) -> Pool:
    """Open connections that may read everything but contact data, keys and signing secrets.

    The driver's log is silenced: it logs a traceback when the database is unavailable, which people cause on purpose
    here.
    """
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
    return await open_pool(engine_set.database_url, "marketplace_reports", size=2, master_key=settings.master_key)


def keep_secrets(directory: Path, secrets: dict[str, str]) -> None:
    """Write the signing secrets of the endpoints for the receivers, by business."""
    _write(directory / RECEIVERS / "secrets.json", secrets)
