"""The two systems that are measured side by side: the marketplace in the demo's world, and the bare pipeline.

Both take the same inquiries by the same request and deliver to the same program of receivers. Every business's receiver
answers at once, and no business has a cap or is paused, so that the time measured is the system's own.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import aiohttp
import asyncpg
import msgspec

from benchmarks.directories import temporary_directory
from benchmarks.floor.installation import WALLET_MINOR, FloorInstallation, running_floor
from benchmarks.floor.store import SQL as FLOOR
from benchmarks.floor.worker import PRICE_MINOR
from benchmarks.load import LeadTimes, ready_only
from benchmarks.processes import ProcessGroup
from marketplace.database.db import Queries, connect_owner
from marketplace.demo.furnishing import PROVIDERS, DemoAccounts, OperatorClient, furnish
from marketplace.demo.installation import RECEIVERS, WORKER, Installation, running
from marketplace.demo.people import InquiryDraft, People
from marketplace.demo.provider import open_session
from marketplace.demo.receivers import read_visits
from marketplace.demo.run import verify_at
from marketplace.demo.verticals import EDUCATION, HOME
from marketplace.demo.world import Behaviour, DemoBusiness, DemoWorld, draw_world
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import MOST_PER_MINUTE

SQL: Final = Queries(__file__, "systems.sql")
SEED: Final = 20261123
WALLET_LEADS: Final = 100_000
"Leads that each wallet pays for: no run empties one, and a top-up may be so large."


class MeasuredSystem(Protocol):
    """A running system: where to send, and what became of the leads."""

    name: str
    url: str
    keys: Sequence[str]
    session: aiohttp.ClientSession
    drafts: Iterator[InquiryDraft]
    processes: ProcessGroup

    async def count_open(self) -> int:
        """Return the number of leads that still wait for something to be done now."""

    async def list_times(self, lead_ids: Sequence[str]) -> dict[str, LeadTimes]:
        """Return the stored times of those of the leads that were delivered."""

    def list_receipts(self) -> dict[str, float]:
        """Return the Unix time at which the receivers first read each lead."""

    async def count_findings(self) -> int:
        """Return the number of broken promises that the system's own examination of its tables finds."""


StartSystem = Callable[[], AbstractAsyncContextManager[MeasuredSystem]]


class Floor:
    """The bare pipeline."""

    name = "floor"

    def __init__(
        self,
        installation: FloorInstallation,
        session: aiohttp.ClientSession,
        connection: asyncpg.Connection,
        world: DemoWorld,
    ) -> None:
        self.url, self.session = installation.url, session
        self.keys: Sequence[str] = ("",) * len(PROVIDERS)
        self.drafts = _endless_drafts(world)
        self.processes = ProcessGroup(installation.supervisor, installation.engines)
        self._directory = installation.directory
        self._connection = connection

    async def count_open(self) -> int:
        """Return the number of leads in the queue or at a receiver."""
        return int(await self._connection.fetchval(FLOOR["count_open"]))

    async def list_times(self, lead_ids: Sequence[str]) -> dict[str, LeadTimes]:
        """Return the stored times of those of the leads that were delivered."""
        rows = await self._connection.fetch(FLOOR["list_times"], [UUID(text) for text in lead_ids])
        return {str(row["id"]): _times(row, row["queue_ms"]) for row in rows}

    def list_receipts(self) -> dict[str, float]:
        """Return the Unix time at which the receivers first read each lead."""
        return _receipts(self._directory)

    async def count_findings(self) -> int:
        """Return the number of leads that were paid for without having been delivered."""
        return int(await self._connection.fetchval(FLOOR["count_findings"], PRICE_MINOR, WALLET_MINOR))


class Ours:
    """The marketplace."""

    name = "ours"

    def __init__(
        self,
        installation: Installation,
        session: aiohttp.ClientSession,
        connection: asyncpg.Connection,
        world: DemoWorld,
        accounts: DemoAccounts,
    ) -> None:
        self.url, self.session = installation.url, session
        self.keys: Sequence[str] = accounts.provider_keys
        self.drafts = _drafts(world, accounts.verticals)
        self.processes = ProcessGroup(installation.supervisor, installation.engines)
        self.installation = installation
        self.accounts = accounts
        self._connection = connection
        self._providers = [ids.decode("prov", text) for text in accounts.providers.values()]
        self._since = clock.now()

    async def count_open(self) -> int:
        """Return the number of leads on which the marketplace is working."""
        return int(await self._connection.fetchval(SQL["count_open"], self._providers, self._since))

    async def list_times(self, lead_ids: Sequence[str]) -> dict[str, LeadTimes]:
        """Return the stored times of those of the leads that were delivered; the queue's are from the workers' logs."""
        waits = _queue_waits(self.installation.directory / "logs")
        rows = await self._connection.fetch(SQL["list_times"], [ids.decode("lead", text) for text in lead_ids])
        return {ids.encode("lead", row["id"]): _times(row, waits.get(str(row["id"]))) for row in rows}

    def list_receipts(self) -> dict[str, float]:
        """Return the Unix time at which the receivers first read each lead."""
        return _receipts(self.installation.directory)

    async def count_findings(self) -> int:
        """Return the number of findings of `marketplace verify`."""
        settings, engines = self.installation.settings, self.installation.engines
        return (await verify_at(engines.database_url, settings.master_key)).findings


def calm_world(seed: int = SEED) -> DemoWorld:
    """Return the demo's world with receivers that answer at once, and without caps, pauses and small wallets."""
    world = draw_world(seed, clock.now())
    businesses = tuple(
        msgspec.structs.replace(
            business,
            behaviour=Behaviour.takes,
            funded_leads=None,
            paused=False,
            definition=msgspec.structs.replace(business.definition, caps=(), hours=None),
        )
        for business in world.businesses
    )
    return msgspec.structs.replace(world, businesses=businesses)


@asynccontextmanager
async def started_ours(
    directory: Path | None = None,
    *,
    world: DemoWorld | None = None,
    workers: int | None = None,
    worker: str = WORKER,
) -> AsyncIterator[Ours]:
    """Start and furnish the marketplace, in a new directory or on the data of `directory`. Raises StartError.

    `worker` is the module of the worker processes.
    """
    world = world or calm_world()
    behaviours: Mapping[str, Behaviour] = {business.slug: business.behaviour for business in world.businesses}
    with _directory(directory) as place:
        async with running(place, behaviours, workers, worker=worker) as installation, open_session() as session:
            operator = await _unlimited_operator(session, installation)
            businesses: tuple[DemoBusiness, ...] = world.businesses
            accounts = await furnish(operator, place, world.verticals, businesses, expected_leads=WALLET_LEADS)
            connection = await connect_owner(installation.engines.database_url, "benchmark")
            try:
                yield Ours(installation, session, connection, world, accounts)
            finally:
                await connection.close()


async def _unlimited_operator(session: aiohttp.ClientSession, installation: Installation) -> OperatorClient:
    """Return a client with a key that may make as many calls as any: a thousand businesses take five thousand."""
    operator = OperatorClient(session, installation.url, installation.operator_key)
    request = {"kind": "operator", "mode": "live", "name": "benchmark", "rate_per_minute": MOST_PER_MINUTE}
    key = await operator.call("POST", "/v1/keys", request)
    return OperatorClient(session, installation.url, key["key"])


@asynccontextmanager
async def started_floor(directory: Path | None = None, *, workers: int | None = None) -> AsyncIterator[Floor]:
    """Start the bare pipeline in a new directory. Raises StartError."""
    with _directory(directory) as place:
        async with running_floor(place, workers=workers) as installation, open_session() as session:
            connection = await connect_owner(installation.engines.database_url, "benchmark")
            try:
                yield Floor(installation, session, connection, calm_world())
            finally:
                await connection.close()


def _directory(directory: Path | None) -> Any:
    """Return a context manager of the directory, or of a temporary one that PostgreSQL's account can enter."""
    return temporary_directory() if directory is None else nullcontext(directory)


def _drafts(world: DemoWorld, slugs: dict[str, str]) -> Iterator[InquiryDraft]:
    return ready_only(People(world, SEED, len(PROVIDERS), slugs))


def _endless_drafts(world: DemoWorld) -> Iterator[InquiryDraft]:
    """Yield inquiries without an end: persons come again once all telephone numbers were used, which nobody checks."""
    while True:
        with suppress(IndexError):
            yield from _drafts(world, {HOME: HOME, EDUCATION: EDUCATION})


def _times(row: Any, queue_ms: float | None) -> LeadTimes:
    return LeadTimes(
        received_at=row["received_at"],
        settled_at=row["settled_at"],
        queue_ms=queue_ms,
        receiver_ms=row["receiver_ms"],
    )


def _receipts(directory: Path) -> dict[str, float]:
    receipts: dict[str, float] = {}
    for visit in read_visits(directory / RECEIVERS):
        if visit.lead_id is not None:
            receipts.setdefault(visit.lead_id, visit.at)
    return receipts


def _queue_waits(logs: Path) -> dict[str, float]:
    """Return the milliseconds between notification and start of each lead's first job, by its id."""
    waits: dict[str, float] = {}
    for path in logs.glob("worker-*.log"):
        for line in path.read_bytes().splitlines():
            if b'"job":"walk"' in line:
                record = json.loads(line)
                waits.setdefault(record["id"], record["waited_ms"])
    return waits
