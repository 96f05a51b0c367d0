"""Processes of the bare pipeline: engines, API, workers and receivers, as many as the marketplace starts."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from benchmarks.floor.store import SCHEMA
from marketplace.database.db import connect_owner
from marketplace.database.embedded import Engines, engines
from marketplace.demo.installation import RECEIVERS, all_ready, free_ports, keep_receivers, keep_secrets
from marketplace.demo.receivers import HOST, Receiver
from marketplace.demo.world import Behaviour
from marketplace.runtime.settings import Settings, load
from marketplace.runtime.supervisor import Child, Supervisor
from marketplace.webhook.signing import new_secret

BUSINESSES: Final = 36
"As many as in the demo."
WALLET_MINOR: Final = 10**12


class FloorInstallation(msgspec.Struct, frozen=True, kw_only=True):
    """A running bare pipeline."""

    directory: Path
    engines: Engines
    url: str
    supervisor: Supervisor


@asynccontextmanager
async def running_floor(
    directory: Path, *, workers: int | None = None, businesses: int = BUSINESSES
) -> AsyncIterator[FloorInstallation]:
    """Start all processes in an empty directory and yield the installation once it answers. Raises StartError."""
    settings = load({"PATH": os.environ["PATH"], "MARKETPLACE_DATA": str(directory)})
    port, *ports = free_ports(0, 1 + businesses)
    receivers = tuple(
        Receiver(business=str(number), port=port, behaviour=Behaviour.takes) for number, port in enumerate(ports)
    )
    keep_receivers(directory, receivers)
    leaving = asyncio.Event()
    async with engines(settings) as running:
        await _furnish(running.database_url, directory, receivers)
        children = _children(settings, running, port, directory, workers or settings.workers, businesses)
        supervisor = Supervisor(children, directory / "logs")
        installation = FloorInstallation(
            directory=directory, engines=running, url=f"http://{HOST}:{port}", supervisor=supervisor
        )
        supervising = asyncio.create_task(supervisor.run(leaving))
        try:
            waiting = {f"{installation.url}/readyz", *(receiver.url for receiver in receivers)}
            await all_ready(waiting, supervisor, directory / "logs")
            yield installation
        finally:
            leaving.set()
            await supervising


async def _furnish(database_url: str, directory: Path, receivers: tuple[Receiver, ...]) -> None:
    """Create the tables and the businesses, and write their secrets for the receivers."""
    secrets = {receiver.business: new_secret() for receiver in receivers}
    keep_secrets(directory, secrets)
    connection: asyncpg.Connection = await connect_owner(database_url, "floor")
    try:
        await connection.execute(SCHEMA.read_text())
        await connection.executemany(
            "insert into business (number, url, secret, available_minor) values ($1, $2, $3, $4)",
            [
                (int(receiver.business), receiver.url, secrets[receiver.business], WALLET_MINOR)
                for receiver in receivers
            ],
        )
    finally:
        await connection.close()


def _children(
    settings: Settings, running: Engines, port: int, directory: Path, workers: int, businesses: int
) -> list[Child]:
    python, urls = (sys.executable, "-m"), (running.database_url, running.valkey_url)
    pool_size = str(settings.pool_size)
    return [
        Child(name="receivers", command=(*python, "marketplace.demo.receivers", str(directory / RECEIVERS))),
        Child(name="api", command=(*python, "benchmarks.floor.api", *urls, str(port), pool_size)),
        *(
            Child(
                name=f"worker-{number}",
                command=(*python, "benchmarks.floor.worker", *urls, pool_size, str(businesses)),
            )
            for number in range(1, workers + 1)
        ),
    ]
