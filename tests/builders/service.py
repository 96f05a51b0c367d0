"""The API and its callers, in two sizes, each over real HTTP on a database of the test's own.

`serve` runs the application and its server inside the test: quick to start, for what is true of the interface.
`service` runs `marketplace serve` as a process of its own, log in a file, over a small marketplace: what is true of it
is true of what operators run, down to its end by kill -9. Callers use both in the same words.
"""

import asyncio
import itertools
import os
import signal
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx
import msgspec
import psutil
import uvicorn
from litestar import Litestar

from marketplace.app import create_ops_app, create_routes, furnish, without_proxies
from marketplace.database.embedded import Engines
from marketplace.operations.processes import ApiServer
from marketplace.reports import roi
from marketplace.runtime import clock, ids, queue
from marketplace.runtime.settings import Docs, Settings
from marketplace.security.auth import CallerKind, create_key
from marketplace.security.sealing import Sealer
from marketplace.web import gate
from marketplace.worker import note_job
from tests.builders.forks import Fork, start
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import Marketplace, anywhere, marketplace, roofing
from tests.conftest import SECRETS
from tests.waiting import PATIENCE, give_back, tries, within

READY_SECONDS = 100.0
STOP_SECONDS = 40.0
"Longer than the service's own limits of a drain, 20 s for requests and 25 s for jobs."
NOWHERE = "unix:///nowhere/valkey.sock"
PUBLIC_URL = "https://marketplace.example.org"
QUIET_SECONDS = 5.0
"So long after an answer a server that has not hung up keeps the connection."
PORTS: Final = range(15_000, 30_000)
"Below those that the system gives to whoever asks for any: nobody takes one between our look and its use."
NO_AUTHORITIES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"Trusts nobody. The services of a test speak plain HTTP, and reading all the system's authorities takes 20 ms."


def new_client(base_url: str = "") -> httpx.AsyncClient:
    """Return a client for services of this machine over plain HTTP. It waits for PATIENCE seconds and uses no proxy."""
    return httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=PATIENCE, verify=NO_AUTHORITIES)


class Served:
    """The API as callers see it, the operator unless a key is given; `pool` looks behind the scenes, as the owner."""

    def __init__(self, client: httpx.AsyncClient, port: int, settings: Settings, pool: Any) -> None:
        self.port = port
        self.pool = pool
        self.settings = settings
        self.operator = ""
        self._client = client

    @property
    def usual_key(self) -> str:
        """Key that is sent if a test passes none."""
        return self.operator

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request with a JSON body, and with the usual key unless another is given; an empty one sends none."""
        used_key = self.usual_key if key is None else key
        sent = {"authorization": f"Bearer {used_key}"} if used_key else {}
        content = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        if content is not None:
            sent["content-type"] = "application/json"
        lines = [(name.encode(), value.encode()) for name, value in (sent | dict(headers or {})).items()]
        return await self._client.request(method, path, content=content, headers=lines)

    async def raw(self, *pieces: bytes) -> tuple[bytes, bool]:
        """Send bytes; return the server's answer, and whether it then closes the connection within a while."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer, closed = b"", False
        try:
            for piece in pieces:
                writer.write(piece)
            while chunk := await asyncio.wait_for(reader.read(65_536), QUIET_SECONDS if answer else PATIENCE):
                answer += chunk
            closed = True
        except TimeoutError:
            pass
        except ConnectionError:
            closed = True
        finally:
            writer.close()
        return answer, closed

    async def key(
        self,
        kind: str = CallerKind.operator,
        owner_id: UUID | str | None = None,
        mode: str = "live",
        expires_at: datetime | None = None,
    ) -> str:
        """A key's text, made behind the scenes: even one whose end has come."""
        owner = ids.decode(owner_id.split("_")[0], owner_id) if isinstance(owner_id, str) else owner_id
        async with self.pool.acquire() as connection:
            return await create_key(
                connection,
                Sealer(self.settings.master_key, self.settings.pepper),
                kind=CallerKind(kind),
                owner_id=owner,
                mode=mode,
                name="of a test",
                expires_at=expires_at,
            )

    async def make(self, path: str, body: object, *, key: str | None = None) -> dict[str, Any]:
        """Return the object that a POST created; fail the test if it was refused."""
        reply = await self.call("POST", path, body, key=key)
        assert reply.status_code == 201, reply.text
        made: dict[str, Any] = reply.json()
        return made

    async def vertical(self, slug: str = "roofing", **changes: Any) -> dict[str, Any]:
        return await self.make("/v1/verticals", {"slug": slug, "definition": roofing(**changes)})

    async def provider(self) -> tuple[str, str]:
        """A provider's id and a live key of it."""
        made = await self.make(
            "/v1/providers", {"name": "Example Leads", "payout": {"type": "share", "basis_points": 6_000}}
        )
        return made["id"], await self.key("provider", made["id"])

    async def business(self, mode: str = "live") -> tuple[str, str]:
        """A business's id and a key of it; its wallet is in USD and empty."""
        business = {"name": "Example Roofs", "zone": "America/Chicago", "currency": "USD"}
        made = await self.make("/v1/businesses", business)
        return made["id"], await self.key("business", made["id"], mode)

    async def endpoint(self, key: str, url: str = "https://hooks.example.com/leads") -> dict[str, Any]:
        return await self.make("/v1/endpoints", {"url": url}, key=key)

    async def subscription(self, key: str, endpoint_id: str, **changes: Any) -> dict[str, Any]:
        return await self.make("/v1/subscriptions", an_order(endpoint_id, **changes), key=key)

    async def audited(self) -> list[tuple[str, str]]:
        """Every recorded change, oldest first: what was done, to what."""
        rows = await self.pool.fetch("select action, object from audit order by at, id")
        return [(row["action"], row["object"]) for row in rows]


def an_order(endpoint_id: str, **changes: Any) -> dict[str, Any]:
    """The body of POST /v1/subscriptions: every roofing lead, USD 50 each."""
    return {
        "vertical": "roofing",
        "name": "All roofs",
        "endpoint_id": endpoint_id,
        "definition": msgspec.to_builtins(anywhere()),
    } | changes


class Announced(ApiServer):
    """A server that says when it has started, or has failed to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


_unused: Final[defaultdict[Docs, list[Litestar]]] = defaultdict(list)
"Routes of this process that no server has."


@contextmanager
def borrow_routes(docs: Docs) -> Iterator[Litestar]:
    """Routes that no other server of this process has; after a test without an error, the next one gets them."""
    app = _unused[docs].pop() if _unused[docs] else create_routes(docs)
    yield app
    _unused[docs].append(app)


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[Served]:
    """Webhooks may go to 127.0.0.1 on any port here, and nowhere else that is not public."""
    assert settings.database_url
    assert settings.valkey_url
    allowed = msgspec.structs.replace(
        settings,
        public_url=PUBLIC_URL,
        outbound_http=True,
        outbound_networks=("127.0.0.0/8",),
        pool_size=4,
    )
    running = Engines(database_url=settings.database_url, valkey_url=settings.valkey_url)
    # Nagle's algorithm is turned off only for a socket that names its protocol: with it, answers take 40 ms.
    with borrow_routes(settings.docs) as routes, socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = Announced(gate.serving(furnish(routes, allowed, running), allowed))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:  # whatever the test does: a listener closed under its server takes what has its number next along
            await within(READY_SECONDS, server.settled.wait(), "the API to start inside the test")
            assert server.started
            pool = await asyncpg.create_pool(settings.database_url, min_size=0, max_size=4)
            try:
                port = listener.getsockname()[1]
                base = f"http://127.0.0.1:{port}"
                async with new_client(base) as client:
                    served = Served(client, port, settings, pool)
                    served.operator = await served.key()
                    yield served
            finally:
                await give_back(pool)
        finally:
            server.should_exit = True
            await within(STOP_SECONDS, serving, "the API inside the test to drain")


@asynccontextmanager
async def serve_ops(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Callers of the operational pages of an API process, at an address of their own."""
    running = Engines(database_url=settings.database_url or "", valkey_url=settings.valkey_url or "")
    with borrow_routes(settings.docs) as routes:
        document = furnish(routes, settings, running).state.openapi
    app = create_ops_app(settings, running, document)
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = Announced(gate.serving(app, without_proxies(settings)))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await within(READY_SECONDS, server.settled.wait(), "the operational pages to start inside the test")
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with new_client(base) as client:
                yield client
        finally:
            server.should_exit = True
            await within(STOP_SECONDS, serving, "the operational pages inside the test to drain")


class Process:
    """One process of the service, and everything that it wrote."""

    def __init__(self, fork: Fork, log: Path) -> None:
        self._fork = fork
        self._log = log

    @property
    def pid(self) -> int:
        return self._fork.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        """kill -9."""
        self._fork.send_signal(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM, and the exit code after the drain."""
        self._fork.send_signal(signal.SIGTERM)
        return await within(STOP_SECONDS, self._fork.wait(), "a process told to stop: " + self.log)


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment of a process on the engines of `settings`."""
    return SECRETS | {
        "DATABASE_URL": settings.database_url or "",
        "VALKEY_URL": settings.valkey_url or "",
        "MARKETPLACE_DATA": str(settings.data_dir),
        "MARKETPLACE_POOL_SIZE": "6",
        "MARKETPLACE_OPS_ADDRESS": "127.0.0.1:0",
        "PATH": os.environ["PATH"],
    }


@asynccontextmanager
async def process(settings: Settings, command: str, log: Path, **environment: str) -> AsyncIterator[Process]:
    """`marketplace COMMAND` on the engines of `settings`; killed at the end if it is still there."""
    fork = await start(command, environment_of(settings) | environment, log)
    running = Process(fork, log)
    try:
        yield running
    finally:
        running.kill()
        await within(STOP_SECONDS, fork.wait(), "a killed process to end")


class Service(Served):
    """`marketplace serve` over a small marketplace; its first provider calls unless a key is given."""

    def __init__(self, market: Marketplace, client: httpx.AsyncClient, port: int, serving: Process) -> None:
        super().__init__(client, port, market.settings, market.owner)
        self.market = market
        self.serving = serving
        self.provider_key = ""

    @property
    def usual_key(self) -> str:
        return self.provider_key

    async def key(
        self,
        kind: str = CallerKind.provider,
        owner_id: UUID | str | None = None,
        mode: str = "live",
        expires_at: datetime | None = None,
    ) -> str:
        """A key's text; a provider's is of the marketplace's first provider unless another is named."""
        owner = self.market.provider.owner if kind == CallerKind.provider and owner_id is None else owner_id
        return await super().key(kind, owner, mode, expires_at)

    async def submit(
        self, number: int = 1, *, key: str | None = None, headers: Mapping[str, str] | None = None, **sections: Any
    ) -> httpx.Response:
        """Posts one inquiry; `number` makes another person."""
        return await self.call(
            "POST", "/v1/inquiries", roofing_body(number, clock.now(), **sections), key=key, headers=headers
        )


@asynccontextmanager
async def service(settings: Settings, log: Path, **environment: str) -> AsyncIterator[Service]:
    """The API answers when this is entered. Outgoing webhooks keep the strict rules unless `environment` says other."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    async with (
        marketplace(settings) as market,
        process(settings, "serve", log, MARKETPLACE_PORT=str(port), **environment) as serving,
        new_client(base) as client,
    ):
        await until_ready(client, serving)
        service = Service(market, client, port, serving)
        service.provider_key = await service.key()
        yield service


@asynccontextmanager
async def walking(market: Marketplace) -> AsyncIterator[None]:
    """A worker's two ways to a lead, in this process: the queue's notifications and the sweeper."""
    stopping = asyncio.Event()
    valkey_url = market.settings.valkey_url or ""
    tasks = [
        asyncio.create_task(
            queue.answer(valkey_url, {"walk": market.walker.walk}, slots=20, stopping=stopping, on_job=note_job)
        ),
        asyncio.create_task(market.sweeper.run(stopping)),
    ]
    try:
        yield
    finally:
        stopping.set()
        await within(STOP_SECONDS, asyncio.gather(*tasks), "the queue and the sweeper to end what they hold")


async def until(holds: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Return whether the condition becomes true within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            while not await holds():  # noqa: ASYNC110 - what is waited for happens in other processes
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True


async def follow_outcomes(worker: Any, pool: Any, changes: int = 1_000) -> None:
    """Make passes until the stored records equal those of a recount.

    A change can be followed once every transaction of the server that began before it, in any database, has ended.
    """
    differing = """select count(*) from exclusive_record r full join kept_outcome k using (assignment_id)
        where r.record is distinct from k.record"""

    async def equal() -> bool:
        for _ in tries("the last change to be followed"):
            if not await roi.follow(worker, changes=changes):
                break
        return bool(await pool.fetchval(differing) == 0)

    assert await until(equal, PATIENCE)


async def waits_for_locks(market: Marketplace, count: int = 1) -> bool:
    """Return whether `count` connections to the test's database come to wait for a lock, within PATIENCE seconds."""
    waiting = """select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'"""

    async def enough() -> bool:
        return bool(await market.value(waiting) >= count)

    return await until(enough, PATIENCE)


async def hung_up(stream: socket.socket) -> None:
    """Wait until the server in this process has closed this connection, even if its answer was not read."""
    caller = stream.getsockname()[1]

    async def gone() -> bool:
        return all(connection.raddr[1:] != (caller,) for connection in psutil.Process().net_connections("tcp"))

    assert await until(gone, PATIENCE)


async def until_ready(client: httpx.AsyncClient, serving: Process) -> None:
    """Wait until a process answers that it is ready; fail the test with its log after READY_SECONDS."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                try:
                    if (await client.get("/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(serving.log) from None


_first = os.getpid() * 100 % len(PORTS)
_ports: Final[Iterator[int]] = itertools.cycle((*PORTS[_first:], *PORTS[:_first]))


def free_port() -> int:
    """A port that nobody listens on. Each process of a run looks in a place of its own."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a circle has no end")
