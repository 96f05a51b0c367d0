"""Processes of an installation: the API, a worker, and `up`, which runs all of them on one machine.

Each starts or joins the engines and is examined by the doctor. On SIGTERM or Ctrl-C it accepts no new work, finishes
work in progress, and exits with code 0.
"""

import asyncio
import contextlib
import gc
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module

import click
import uvicorn

from marketplace.database.db import open_pool
from marketplace.database.doctor import DoctorFinding, before_migrating, examine, unsafe
from marketplace.database.embedded import Engines, engines
from marketplace.database.migrate import migrate
from marketplace.runtime import log
from marketplace.runtime.settings import Settings, StartError, describe
from marketplace.runtime.supervisor import Child, Supervisor, orphaned, say_leaving, stop_at_signals

COMMAND = (sys.executable, "-m", "marketplace.cli")
LISTENERS = "MARKETPLACE_LISTENERS"
"Variable with the file descriptors of the two sockets that an API process inherits from `up`."
BACKLOG = 2048
"Callers that may wait for an API process to take their connections."
READY_SECONDS = 15.0
ANSWER_SECONDS = 2.0
TURN_SECONDS = 0.001
"Time for which a computing thread keeps the interpreter while others wait for it."
OTHER_FILES = 512
"Open files of an API process besides callers' connections: engines, journal, log, and those of one burst."


async def up(settings: Settings) -> None:
    """Run everything on one machine until told to stop. Raises StartError.

    The sockets of the API processes are opened here and inherited, so that callers wait a moment, and are not refused,
    while one process gives way to its successor.
    """
    async with told_to_stop() as stopping, engines(settings) as running:
        await _refuse_if_unsafe(settings, running, about_to_migrate=True)
        await migrate(running.database_url, settings.master_key)
        with contextlib.ExitStack() as sockets:
            children = (*_api_children(settings, sockets), *_worker_children(settings))
            supervisor = Supervisor(children, settings.data_dir / "logs")
            async with asyncio.TaskGroup() as group:
                group.create_task(supervisor.run(stopping))
                group.create_task(_announce(settings, running, stopping))
                await stopping.wait()
                sockets.close()  # callers are refused at once, and do not wait for the end of the drain
    click.echo("Stopped.")


def _api_children(settings: Settings, sockets: contextlib.ExitStack) -> Iterator[Child]:
    """Yield the API processes, which share one address, and open their sockets.

    Each has operational pages of its own, the first at the address of the settings and the others at the next ports.
    """
    listener = sockets.enter_context(_listen(settings.host, settings.port))
    listener.listen(BACKLOG)
    for number in range(settings.api_processes):
        port = settings.ops_port + number if settings.ops_port else 0
        ops_listener = sockets.enter_context(_listen(settings.ops_host, port, "MARKETPLACE_OPS_ADDRESS"))
        descriptors = (listener.fileno(), ops_listener.fileno())
        yield Child(
            name="api" if settings.api_processes == 1 else f"api-{number + 1}",
            command=(*COMMAND, "serve"),
            environment={LISTENERS: ",".join(map(str, descriptors))},
            inherits=descriptors,
        )


def _worker_children(settings: Settings) -> Iterator[Child]:
    for number in range(settings.workers):
        port = settings.worker_metrics_port
        environment = {} if port is None else {"MARKETPLACE_WORKER_METRICS_PORT": str(port + number)}
        yield Child(name=f"worker-{number + 1}", command=(*COMMAND, "work"), environment=environment)


async def serve(settings: Settings) -> None:
    """Run the API until told to stop. Raises StartError."""
    log.configure()
    async with told_to_stop() as stopping, _ready(settings) as running:
        await _invite_first(settings, running)
        composition, gate = import_module("marketplace.app"), import_module("marketplace.web.gate")
        app = composition.create_app(settings, running)
        app.state.stopping = stopping
        server = ApiServer(gate.serving(app, settings))
        ops_app = composition.create_ops_app(settings, running, app.state.openapi)
        ops_server = ApiServer(gate.serving(ops_app, composition.without_proxies(settings)))
        _freeze_objects()
        hand_over_soon()
        _allow_files(gate.MOST_CONNECTIONS * 2 + OTHER_FILES)
        with contextlib.ExitStack() as sockets:
            listener, ops_listener = map(sockets.enter_context, _listeners(settings))
            log.logger("api").info("operational_pages", port=ops_listener.getsockname()[1])
            leaving = asyncio.create_task(server.leave(stopping))
            ops_serving = asyncio.create_task(ops_server.serve(sockets=[ops_listener]))
            frame = import_module("marketplace.portal.frame")
            compiling = asyncio.create_task(asyncio.to_thread(frame.compile_templates, stopping.is_set))
            await server.serve(sockets=[listener])
            ops_server.should_exit = True
            await ops_serving
            await compiling
        leaving.cancel()
        if (failure := app.state.get("failure")) is not None:
            raise failure
        if not server.started:
            raise StartError("api_not_started", "The API does not start.", "Read the lines above this one.")


async def work(settings: Settings) -> None:
    """Run a worker until told to stop. Raises StartError."""
    log.configure()
    async with told_to_stop() as stopping, _ready(settings) as running:
        worker = import_module("marketplace.worker")
        _freeze_objects()
        hand_over_soon()
        await worker.run(settings, running, stopping)


def _freeze_objects() -> None:
    """Exclude the objects made at start from garbage collection.

    Searching them delayed a lead now and then by up to a sixth of a second.
    """
    gc.collect()
    gc.freeze()


def hand_over_soon() -> None:
    """Let the event loop run soon while a thread computes.

    With Python's default turn of 5 ms, a call that needs ten turns of the loop waited 67 ms (p99) while two threads
    read large files; with 1 ms it waits 9 ms.
    """
    sys.setswitchinterval(TURN_SECONDS)


def _allow_files(count: int) -> None:
    """Raise this process's limit of open files to `count`, or as far as the system allows.

    The default limit of 1,024 is below the number of connections that the table accepts.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class ApiServer(uvicorn.Server):
    """Uvicorn without its signal handling.

    It raises signals again after the shutdown, which would end this process before the engines are stopped.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def leave(self, stopping: asyncio.Event) -> None:
        """Let `serve` drain and return once `stopping` is set."""
        await stopping.wait()
        self.should_exit = True


@asynccontextmanager
async def told_to_stop() -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set by SIGTERM, by Ctrl-C, or when the supervisor that started this process ends.

    The supervisor is told when it is set, and starts a successor unless it has told this process to stop itself.
    """
    stopping = asyncio.Event()
    stop_at_signals(stopping)
    orphan = asyncio.create_task(orphaned())
    orphan.add_done_callback(lambda _: stopping.set())
    leaving = asyncio.create_task(_say_leaving_at(stopping))
    try:
        yield stopping
    finally:
        orphan.cancel()
        leaving.cancel()


async def _say_leaving_at(stopping: asyncio.Event) -> None:
    await stopping.wait()
    say_leaving()


def tell(findings: tuple[DoctorFinding, ...]) -> None:
    """Print each finding and its remedy on a line."""
    for finding in findings:
        click.echo(f"{finding.severity}: {finding.sentence} {finding.remedy}", err=True)


@asynccontextmanager
async def _ready(settings: Settings) -> AsyncIterator[Engines]:
    """Yield the engines after the doctor's examination, migrated if they are embedded."""
    log.configure()
    async with engines(settings) as running:
        await _refuse_if_unsafe(settings, running, about_to_migrate=settings.embedded)
        if settings.embedded:
            await migrate(running.database_url, settings.master_key)
        yield running


async def _refuse_if_unsafe(settings: Settings, running: Engines, *, about_to_migrate: bool) -> None:
    """Print the doctor's findings. Raises StartError when one is unsafe."""
    findings = await examine(settings, running)
    if about_to_migrate:
        findings = before_migrating(findings)
    tell(findings)
    if unsafe(findings):
        raise StartError("unsafe", "This installation is not safe to run.", "Fix the problems named above.")


async def _invite_first(settings: Settings, running: Engines) -> None:
    """Print a link for the first operator, as long as there is none."""
    pool = await open_pool(running.database_url, "marketplace_api", size=1, master_key=settings.master_key)
    try:
        token = await import_module("marketplace.portal.flow").first_link(pool)
    finally:
        await pool.close()
    if token is not None:
        click.echo(f"First operator, once, within a quarter of an hour: {settings.public_url}/link/{token}", err=True)


async def _announce(settings: Settings, running: Engines, stopping: asyncio.Event) -> None:
    """Print the addresses once the API answers, or after READY_SECONDS."""
    answers = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS):
            while not answers and not stopping.is_set():
                await asyncio.sleep(0.1)
                answers = await _answers(settings.host, settings.port)
    if not answers:
        click.echo(f"The API does not answer yet. Read the logs in {settings.data_dir}/logs.", err=True)
    await _invite_first(settings, running)
    described = describe(settings)
    database_url = running.database_url if running.postgres else described["database_url"]
    valkey_url = running.valkey_url if running.valkey else described["valkey_url"]
    click.echo(
        f"API         {settings.public_url}\n"
        f"Figures     {settings.ops_url}/metrics\n"
        f"Processes   {settings.api_processes} for the API, {settings.workers} workers\n"
        f"PostgreSQL  {database_url}\n"
        f"Valkey      {valkey_url}\n"
        f"Data, logs  {settings.data_dir}\n"
        "Ctrl-C drains and stops."
    )


async def _answers(host: str, port: int) -> bool:
    """Return whether an API process answers requests at this address."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            with contextlib.closing(writer):
                writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
                return bool(await reader.read(1))
    except (OSError, TimeoutError):
        return False


def _listeners(settings: Settings) -> tuple[socket.socket, socket.socket]:
    """Return the sockets of the API and of its operational pages: those that `up` has opened, or new ones."""
    if LISTENERS in os.environ:
        first, second = map(int, os.environ[LISTENERS].split(","))
        return socket.socket(fileno=first), socket.socket(fileno=second)
    listener = _listen(settings.host, settings.port)
    return listener, _listen(settings.ops_host, settings.ops_port, "MARKETPLACE_OPS_ADDRESS")


def _listen(host: str, port: int, names: str = "MARKETPLACE_HOST and MARKETPLACE_PORT") -> socket.socket:
    """Return a socket bound to this address. Raises StartError when that fails."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise StartError(
            "address_taken",
            f"Nothing can listen on {host} port {port}: {error.strerror}.",
            f"Stop what listens there, or set {names} to another place.",
        ) from error
    return listener
