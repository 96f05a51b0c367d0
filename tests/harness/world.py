"""The installation under test: private engines, real api and worker processes, and a proxy between each two of them.

Everything lives in one directory. Businesses, providers and their keys are made through the product's own interface.
"""

import asyncio
import base64
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec
import psutil
from redis.asyncio import Redis

from marketplace.database.db import open_pool
from marketplace.database.embedded import Postgres, Valkey
from marketplace.database.migrate import migrate
from marketplace.demo.furnishing import OperatorClient
from marketplace.runtime import clock
from marketplace.runtime.failpoints import LIST_PLACES
from marketplace.runtime.queue import Notifier
from marketplace.runtime.settings import StartError
from marketplace.security import auth
from marketplace.security.sealing import Sealer
from routing.joining import PayJoined, RepeatInquiries
from tests.builders.marketplaces import PRICE_MINOR, anywhere, roofing
from tests.harness.breaks import Break
from tests.harness.canaries import Aviary
from tests.harness.histories import History
from tests.harness.processes import Kept
from tests.harness.proxy import Proxy, to_tcp, to_unix
from tests.harness.readers import FeedReader
from tests.harness.receivers import Receiver, Sighting

HOST: Final = "127.0.0.1"
APIS: Final = 2
WORKERS: Final = 2
BUSINESSES: Final = 8
FEEDS: Final = 2
"""So many of the businesses have no server, and read a feed."""
PROVIDERS: Final = 3
THIN: Final = "business-1"
"""Its wallet is nearly empty all the time."""
READY_SECONDS: Final = 100.0
TRY_SECONDS: Final = 8.0
"""The longest that anybody outside waits for one answer of the API."""
PATIENCE_SECONDS: Final = 90
"""How long a prospect may wait for a business whose proxy is closed by faults."""
POSTGRES_OPTIONS: Final = {"track_commit_timestamp": "on", "shared_buffers": "128MB"}
"""Commit times tell whether an exposure was committed before the contact data was seen."""
FAILPOINTS: Final = {
    "api": (
        "amid_intake", "after_intake_commit_before_answer", "amid_revision", "after_revision_commit",
        *LIST_PLACES,
        "after_connect_before_expose", "after_expose_before_read",
        "after_read_before_write", "after_settle_commit",
    ),
    "worker": (
        "amid_award", "after_award_commit", "after_connect_before_expose", "after_expose_before_read",
        "after_read_before_write", "after_write_before_answer", "after_answer_before_settle", "amid_settle",
        "after_settle_commit", "after_claim_due",
    ),
}  # fmt: skip
CONNECTED: Final = frozenset({"amid_intake", "amid_revision", "amid_award", "after_expose_before_read", "amid_settle"})
"""Where a connection to Postgres is in use, and can be dropped."""
LATELY: Final = 50
LIVES: Final = 3_000
"""Visits of a failpoint per exit, so that at thirty leads a second one of them strikes about every ten seconds."""
LIVES_OF_LISTS: Final = 100
"""The same for the places of imports, which are ten times as rare."""


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """One business as the harness knows it: its ids, its server or its reader, and the proxy between us and that."""

    slug: str
    business_id: str
    endpoint_id: str
    subscription_id: str
    receiver: Receiver | FeedReader
    proxy: Proxy


class World:
    """Everything that runs, and the handles to hurt it. `seen` holds the first sighting of each person."""

    def __init__(self, directory: Path, seed: int, broken: Break | None) -> None:
        self.directory = directory
        self.aviary = Aviary(seed)
        self.broken = broken
        self.arming = False
        "Whether processes that start now get failpoints."
        self.sightings: list[Sighting] = []
        self.seen: dict[int, Sighting] = {}
        self.on_problem: Callable[[int, bytes], None] = lambda status, text: None
        "Who looks at what readers of a feed are refused with."
        self.kept: dict[str, Kept] = {}
        self.skews: dict[str, float] = {}
        "By how many seconds the clock of a process is wrong from its next start on."
        self.shops: tuple[Shop, ...] = ()
        self.provider_keys: tuple[str, ...] = ()
        self.secrets: list[str] = []
        "Signing secrets and callers' keys, as they are handed out."
        self.urls: tuple[str, ...] = ()
        self.ops_urls: tuple[str, ...] = ()
        self._ops_ports: dict[int, int] = {}
        self.postgres = Postgres(directory, POSTGRES_OPTIONS)
        self.valkey = Valkey(directory)
        self.postgres_lock = asyncio.Lock()
        self.valkey_lock = asyncio.Lock()
        self.doors_lock = asyncio.Lock()
        self.proxies = {name: Proxy(to_unix(self._postgres_socket())) for name in ("api_postgres", "worker_postgres")}
        self.proxies |= {name: Proxy(to_unix(str(self.valkey.socket))) for name in ("api_valkey", "worker_valkey")}
        self.visits = History(directory / "receivers.jsonl")
        self._seed = seed
        self._random = Random(f"failpoints {seed}")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._secrets = {
            name: base64.b64encode(clock.random_bytes(32)).decode()
            for name in ("MARKETPLACE_MASTER_KEY", "MARKETPLACE_PEPPER")
        }

    def _postgres_socket(self) -> str:
        return str(self.postgres.socket_directory / ".s.PGSQL.5432")

    async def start(self) -> None:
        """Everything up, furnished and answering. Raises StartError."""
        await asyncio.gather(self.postgres.start(), self.valkey.start())
        await migrate(self.postgres.url, base64.b64decode(self._secrets["MARKETPLACE_MASTER_KEY"]))
        for proxy in self.proxies.values():
            await proxy.open()
        receivers = [
            Receiver(f"business-{number}", self.aviary, self.visits, self._sight, self._seed)
            for number in range(1, BUSINESSES - FEEDS + 1)
        ]
        for receiver in receivers:
            await receiver.open()
        self.pool = await asyncpg.create_pool(self.postgres.url, min_size=0, max_size=6, command_timeout=20)
        self.valkey_client = Redis.from_url(self.valkey.url, socket_timeout=2)
        self.notifier = Notifier(self.valkey.url)
        ports, ops_ports = _free_ports(APIS), _free_ports(APIS)
        self.urls = tuple(f"http://{HOST}:{port}" for port in ports)
        self._ops_ports = dict(zip(ports, ops_ports, strict=True))
        self.ops_urls = tuple(f"http://{HOST}:{port}" for port in ops_ports)
        for number, port in enumerate(ports, 1):
            self._keep(f"api-{number}", "serve", port)
        for number in range(1, WORKERS + 1):
            self._keep(f"worker-{number}", "work", 0)
        patience, connections = aiohttp.ClientTimeout(total=TRY_SECONDS), aiohttp.TCPConnector(limit=0)
        self.http = aiohttp.ClientSession(timeout=patience, connector=connections)
        await self._answering()
        await self._furnish(receivers)
        if self.broken is not None:
            for statement in self.broken.statements:
                await self.pool.execute(statement)

    async def stop(self) -> None:
        """Everything gone, whatever state it is in."""
        await asyncio.gather(*(process.stop(self._tasks[name]) for name, process in self.kept.items()))
        for shop in self.shops:
            await shop.receiver.close()
            await shop.proxy.close()
        for proxy in self.proxies.values():
            await proxy.close()
        if hasattr(self, "http"):
            await self.http.close()
            self.pool.terminate()
            await self.valkey_client.aclose()
            await self.notifier.close()
        await asyncio.gather(self.postgres.stop(), self.valkey.stop())
        self.visits.close()

    def _keep(self, name: str, command: str, port: int) -> None:
        self.kept[name] = Kept(
            name,
            command,
            lambda: self._environment(name, port),
            self.directory / "logs" / f"{name}.log",
        )
        self._tasks[name] = asyncio.create_task(self.kept[name].run())

    def _environment(self, name: str, port: int) -> dict[str, str]:
        """Receivers are on 127.0.0.1 and the service refuses to deliver to its own name, so that it is localhost."""
        kind = name.partition("-")[0]
        return self._secrets | {
            "DATABASE_URL": f"postgresql://marketplace@{HOST}:{self.proxies[f'{kind}_postgres'].port}/marketplace?sslmode=disable",
            "VALKEY_URL": f"redis://{HOST}:{self.proxies[f'{kind}_valkey'].port}",
            "MARKETPLACE_DATA": str(self.directory),
            "MARKETPLACE_HOST": HOST,
            "MARKETPLACE_PORT": str(port),
            "MARKETPLACE_OPS_ADDRESS": f"{HOST}:{self._ops_ports.get(port, 0)}",
            "MARKETPLACE_PUBLIC_URL": f"http://localhost:{port or 8000}",
            "MARKETPLACE_OUTBOUND_NETWORKS": "127.0.0.0/8",
            "MARKETPLACE_OUTBOUND_HTTP": "true",
            "MARKETPLACE_FAILPOINTS_ALLOWED": "yes",
            "MARKETPLACE_FAILPOINTS": ",".join(self._armed(kind)),
            "MARKETPLACE_CLOCK_SKEW_SECONDS": str(self.skews.get(name, 0.0)),
        }

    def _armed(self, kind: str) -> list[str]:
        """Draw the failpoints of a process that starts now: one action at each place."""
        armed = dict(self.broken.failpoints) if self.broken is not None and kind == "worker" else {}
        if self.arming:
            for place in FAILPOINTS[kind]:
                action = self._random.choice(("exit", "exit", "drop" if place in CONNECTED else "exit", "sleep:1.5"))
                lives = LIVES_OF_LISTS if place in LIST_PLACES else LIVES
                armed.setdefault(place, f"{action}%{1 / lives:.5f}")
        return [f"{place}={action}" for place, action in armed.items()]

    async def _answering(self) -> None:
        deadline = clock.monotonic() + READY_SECONDS
        waiting = set(self.urls)
        while waiting:
            if clock.monotonic() > deadline:
                raise StartError("harness_not_ready", "The API does not answer.", f"Read {self.directory}/logs.")
            for url in tuple(waiting):
                try:
                    async with self.http.get(f"{url}/readyz") as response:
                        if response.status == 200:
                            waiting.discard(url)
                except (aiohttp.ClientError, TimeoutError):
                    await asyncio.sleep(0.1)

    async def _furnish(self, receivers: list[Receiver]) -> None:
        sealer = Sealer(*(base64.b64decode(self._secrets[name]) for name in self._secrets))
        async with await open_pool(self.postgres.url, "marketplace_api", size=1) as pool, pool.acquire() as connection:
            key = await auth.create_key(
                connection, sealer, kind=auth.CallerKind.operator, owner_id=None, mode="live", name="harness"
            )
        self.operator, self.operator_key = OperatorClient(self.http, self.urls[0], key), key
        definition = roofing(
            patience_seconds=PATIENCE_SECONDS,
            requires_phone=False,
            strategy="fair",
            repeat_inquiries=RepeatInquiries.joined,
            provider_may_know=True,
            pay_joined=PayJoined.split,
        )
        await self.operator.call("POST", "/v1/verticals", {"slug": "roofing", "definition": definition})
        keys = []
        for number in range(1, PROVIDERS + 1):
            payout = {"type": "share", "basis_points": 6_000}
            made = await self.operator.call("POST", "/v1/providers", {"name": f"Provider {number}", "payout": payout})
            body = {"kind": "provider", "owner_id": made["id"], "mode": "live", "name": "harness"}
            body["rate_per_minute"] = 60_000  # a few providers stand for many
            keys.append((await self.operator.call("POST", "/v1/keys", body))["key"])
        self.provider_keys = tuple(keys)
        served = [await self._served(receiver) for receiver in receivers]
        fed = [await self._fed(number) for number in range(BUSINESSES - FEEDS + 1, BUSINESSES + 1)]
        self.shops = (*served, *fed)
        self.secrets += [key, *keys]

    async def _served(self, receiver: Receiver) -> Shop:
        """Create a business whose server is behind a proxy."""
        proxy = Proxy(to_tcp(HOST, receiver.port))
        await proxy.open()
        business_id = await self._business(receiver.business)
        url = f"http://{HOST}:{proxy.port}/leads"
        endpoint = await self.operator.call("POST", "/v1/endpoints", {"business_id": business_id, "url": url})
        self.secrets.append(endpoint["secret"])
        await self.operator.call("POST", f"/v1/endpoints/{endpoint['id']}/verify")
        return await self._subscribed(business_id, endpoint["id"], receiver, proxy)

    async def _fed(self, number: int) -> Shop:
        """Create a business that reads its feed through a proxy in front of both api processes."""
        slug, ports = f"business-{number}", cycle(int(url.rpartition(":")[2]) for url in self.urls)
        reader = FeedReader(
            slug,
            self.aviary,
            self.visits,
            self._sight,
            lambda status, text: self.on_problem(status, text),
            lambda: self._elsewhere(slug),
            self._seed,
            by_place=number % 2 == 0,
        )
        proxy = Proxy(lambda: asyncio.open_connection(HOST, next(ports)))
        await proxy.open()
        business_id = await self._business(slug)
        endpoint = await self.operator.call("POST", "/v1/endpoints", {"business_id": business_id, "kind": "feed"})
        shop = await self._subscribed(business_id, endpoint["id"], reader, proxy)
        await self.give_key(shop)
        reader.open(proxy.port)
        return shop

    async def _business(self, slug: str) -> str:
        business = {"name": slug, "zone": "America/Chicago", "currency": "USD", "credit_limit_minor": 0}
        business_id = str((await self.operator.call("POST", "/v1/businesses", business))["id"])
        await self.top_up(business_id, 2 if slug == THIN else 100_000, f"first-{business_id}")
        return business_id

    async def _subscribed(
        self, business_id: str, endpoint_id: str, receiver: Receiver | FeedReader, proxy: Proxy
    ) -> Shop:
        order = {
            "business_id": business_id, "mode": "live", "vertical": "roofing", "name": receiver.business,
            "endpoint_id": endpoint_id, "definition": anywhere(),
        }  # fmt: skip
        subscription = await self.operator.call("POST", "/v1/subscriptions", order)
        return Shop(
            slug=receiver.business,
            business_id=business_id,
            endpoint_id=endpoint_id,
            subscription_id=subscription["id"],
            receiver=receiver,
            proxy=proxy,
        )

    async def give_key(self, shop: Shop) -> None:
        """A new key for a business that reads its feed; the one that it had opens nothing any more."""
        assert isinstance(shop.receiver, FeedReader)
        body = {"kind": "business", "owner_id": shop.business_id, "mode": "live", "name": shop.slug}
        made = await self.operator.call("POST", "/v1/keys", body)
        self.secrets.append(made["key"])
        former, shop.receiver.key_id, shop.receiver.key = shop.receiver.key_id, made["id"], made["key"]
        if former:
            await self.operator.call("DELETE", f"/v1/keys/{former}")

    def _elsewhere(self, slug: str) -> list[str]:
        """A lead that another business was shown lately, if there is one."""
        others = [one.lead_id for one in self.sightings[-LATELY:] if one.business != slug and one.lead_id]
        return others[-1:]

    async def top_up(self, business_id: str, leads: int, event_id: str) -> None:
        """Money for so many leads; the same event twice is one payment."""
        payment = {
            "business_id": business_id, "amount_minor": leads * PRICE_MINOR, "currency": "USD", "event_id": event_id,
        }  # fmt: skip
        await self.operator.call("POST", "/v1/top-ups", payment)

    def _sight(self, sighting: Sighting) -> None:
        self.sightings.append(sighting)
        self.seen.setdefault(sighting.number, sighting)

    @property
    def fed(self) -> dict[str, FeedReader]:
        """The readers of a feed, by their business's id."""
        receivers = {shop.business_id: shop.receiver for shop in self.shops}
        return {business_id: reader for business_id, reader in receivers.items() if isinstance(reader, FeedReader)}

    @property
    def root_secrets(self) -> tuple[bytes, ...]:
        """The master key and the pepper, as text."""
        return tuple(secret.encode() for secret in self._secrets.values())

    def names(self, kind: str) -> list[str]:
        return [name for name in self.kept if name.startswith(kind)]

    def kill_postgres(self) -> None:
        """kill -9 of the server and everything that it started."""
        if pid := self.postgres.pid:
            children = psutil.Process(pid).children(recursive=True)
            self.postgres.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):  # some end with their parent
                    child.kill()

    def stop_postgres_at_once(self) -> None:
        """Stop Postgres as `pg_ctl stop -m immediate` does: all processes end, nothing is flushed, recovery follows."""
        if pid := self.postgres.pid:
            os.kill(pid, signal.SIGQUIT)

    async def calm(self) -> None:
        """No more faults: everything is mended, and processes are started again without failpoints."""
        await self.mend()
        self.arming = False
        self.skews.clear()
        before = {name: process.pid for name, process in self.kept.items()}
        for process in self.kept.values():
            process.signal(signal.SIGTERM)
        async with asyncio.timeout(READY_SECONDS):
            while any(process.pid in (None, before[name]) for name, process in self.kept.items()):  # noqa: ASYNC110 - a pid tells nobody
                await asyncio.sleep(0.1)
        await self._answering()

    async def mend(self) -> None:
        """Engines answer, proxies pass everything on, nobody stands still, businesses behave."""
        await asyncio.gather(self.postgres.start(), self.valkey.start())
        for proxy in (*self.proxies.values(), *(shop.proxy for shop in self.shops)):
            proxy.calm()
            await proxy.open()
        for shop in self.shops:
            shop.receiver.behaves = True
        for process in self.kept.values():
            process.signal(signal.SIGCONT)

    async def values(self, sql: str, *arguments: Any) -> list[Any]:
        """Rows by the owner, past all proxies. Raises asyncpg's errors."""
        return list(await self.pool.fetch(sql, *arguments))


@asynccontextmanager
async def running(directory: Path, seed: int, broken: Break | None = None) -> AsyncIterator[World]:
    """A world that is up, and gone afterwards however that goes."""
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    world = World(directory, seed, broken)
    try:
        await world.start()
        yield world
    finally:
        await asyncio.shield(world.stop())


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held_socket in taken:
            held_socket.bind((HOST, 0))
        return [held_socket.getsockname()[1] for held_socket in taken]
