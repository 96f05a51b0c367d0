"""The service as its own processes: `marketplace serve` and `marketplace work` on a test's engines, logs in files.

What is true of these is true of what operators run: the same server, the same limits, the same log.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec

from marketplace import clock, queue
from marketplace.auth import Kind, create_key
from marketplace.sealing import Sealer
from marketplace.settings import Settings
from marketplace.worker import note_job
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import Marketplace, marketplace
from tests.conftest import SECRETS

READY_SECONDS = 30.0
NOWHERE = "unix:///nowhere/valkey.sock"


class Process:
    """One process of the service, and everything that it wrote."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        """kill -9."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM, and the exit code after the drain."""
        if self._process.returncode is None:
            self._process.terminate()
        return await self._process.wait()


@asynccontextmanager
async def process(settings: Settings, command: str, log: Path, **environment: str) -> AsyncIterator[Process]:
    """`marketplace COMMAND` on the engines of `settings`; killed at the end if it is still there."""
    given = SECRETS | {
        "DATABASE_URL": settings.database_url or "",
        "VALKEY_URL": settings.valkey_url or "",
        "MARKETPLACE_DATA": str(settings.data_dir),
        "MARKETPLACE_POOL_SIZE": "6",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with log.open("ab") as out:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "marketplace.cli", command, env=given | environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    running = Process(started, log)
    try:
        yield running
    finally:
        running.kill()
        await started.wait()


class Service:
    """`marketplace serve` over a small marketplace, and callers with keys of every kind."""

    def __init__(self, market: Marketplace, client: httpx.AsyncClient, port: int, serving: Process) -> None:
        self.market = market
        self.port = port
        self.serving = serving
        self._client = client
        self.provider_key = ""

    async def key(
        self, kind: Kind = Kind.provider, owner_id: UUID | None = None, mode: str = "live",
        expires_at: datetime | None = None,
    ) -> str:  # fmt: skip
        """A key's text; a provider's is of the marketplace's first provider unless another is named."""
        owner = self.market.provider.owner if kind is Kind.provider and owner_id is None else owner_id
        settings = self.market.settings
        async with self.market.owner.acquire() as connection:
            return await create_key(
                connection, Sealer(settings.master_key, settings.pepper), kind=kind, owner_id=owner, mode=mode,
                name="of a test", expires_at=expires_at,
            )  # fmt: skip

    async def call(
        self, method: str, path: str, body: object = None, *, key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:  # fmt: skip
        """One request, with the provider's key unless another is given; an empty one sends none."""
        chosen = self.provider_key if key is None else key
        sent = {"authorization": f"Bearer {chosen}"} if chosen else {}
        content = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        if content is not None:
            sent["content-type"] = "application/json"
        lines = [(name.encode(), value.encode()) for name, value in (sent | dict(headers or {})).items()]
        return await self._client.request(method, path, content=content, headers=lines)

    async def submit(
        self, number: int = 1, *, key: str | None = None, headers: Mapping[str, str] | None = None, **sections: Any
    ) -> httpx.Response:
        """Posts one inquiry; `number` makes another person."""
        return await self.call(
            "POST", "/v1/inquiries", roofing_body(number, clock.now(), **sections), key=key, headers=headers
        )

    async def raw(self, *pieces: bytes) -> tuple[bytes, bool]:
        """What the server writes to these bytes, and whether it then hangs up; waits three seconds for either."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer, closed = b"", False
        try:
            for piece in pieces:
                writer.write(piece)
            async with asyncio.timeout(3):
                while chunk := await reader.read(65_536):
                    answer += chunk
                closed = True
        except TimeoutError:
            pass
        except ConnectionError:
            closed = True
        finally:
            writer.close()
        return answer, closed


@asynccontextmanager
async def service(settings: Settings, log: Path, **environment: str) -> AsyncIterator[Service]:
    """The API answers when this is entered. Outgoing webhooks keep the strict rules unless `environment` says other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    async with (
        marketplace(settings) as market,
        process(settings, "serve", log, MARKETPLACE_PORT=str(port), **environment) as serving,
        httpx.AsyncClient(base_url=base, trust_env=False, timeout=15) as client,
    ):
        await _until_ready(client, serving)
        found = Service(market, client, port, serving)
        found.provider_key = await found.key()
        yield found


@asynccontextmanager
async def walking(market: Marketplace) -> AsyncIterator[None]:
    """A worker's two ways to a lead, in this process: the queue's knocks and the sweeper."""
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
        await asyncio.gather(*tasks)


async def until(holds: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Whether it comes true within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            while not await holds():  # noqa: ASYNC110 - what is waited for happens in other processes
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True


async def _until_ready(client: httpx.AsyncClient, serving: Process) -> None:
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
