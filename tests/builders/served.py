"""The whole application on a free port over a database of the test's own, and callers with keys of every kind."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import msgspec
import uvicorn

from marketplace.app import create_app
from marketplace.auth import Kind, create_key
from marketplace.embedded import Engines
from marketplace.processes import Server
from marketplace.sealing import Sealer
from marketplace.settings import Settings
from tests.builders.marketplaces import anywhere, roofing

PUBLIC_URL = "https://marketplace.example.org"


class Served:
    """The API as callers see it. `operator` is a live operator's key; `pool` looks behind the scenes, as the owner."""

    def __init__(self, client: httpx.AsyncClient, pool: Any, operator: str, settings: Settings) -> None:
        self.pool = pool
        self.operator = operator
        self.settings = settings
        self._client = client

    async def call(
        self, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str
    ) -> httpx.Response:
        """One request: with the operator's key unless another is given (an empty one sends none), and a JSON body."""
        chosen = self.operator if key is None else key
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if chosen:
            sent["authorization"] = f"Bearer {chosen}"
        content = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        if content is not None:
            sent.setdefault("content-type", "application/json")
        return await self._client.request(method, path, content=content, headers=sent)

    async def make(self, path: str, body: object, *, key: str | None = None) -> dict[str, Any]:
        """What a POST made; fails the test if it was refused."""
        reply = await self.call("POST", path, body, key=key)
        assert reply.status_code == 201, reply.text
        made: dict[str, Any] = reply.json()
        return made

    async def key(self, kind: str, owner_id: str | None = None, mode: str = "live") -> str:
        wanted = {"kind": kind, "owner_id": owner_id, "mode": mode, "name": f"a {kind}'s"}
        return str((await self.make("/v1/keys", wanted))["key"])

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
        wanted = {"name": "Example Roofs", "zone": "America/Chicago", "currency": "USD"}
        made = await self.make("/v1/businesses", wanted)
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


class Announced(Server):
    """A server that says when it has started, or has failed to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


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
    app = create_app(allowed, Engines(database_url=settings.database_url, valkey_url=settings.valkey_url))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Announced(uvicorn.Config(app, log_config=None, lifespan="on"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await server.settled.wait()
        assert server.started
        pool = await asyncpg.create_pool(settings.database_url, min_size=1, max_size=4)
        async with pool.acquire() as connection:
            sealer = Sealer(settings.master_key, settings.pepper)
            operator = await create_key(
                connection, sealer, kind=Kind.operator, owner_id=None, mode="live", name="the first"
            )
        port = listener.getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=15) as client:
            yield Served(client, pool, operator, settings)
        server.should_exit = True
        await serving
        await pool.close()
