"""Measure what a mapped delivery costs beside a plain one: making its request, and the way from award to settlement.

    python benchmarks/mapped_delivery.py [--leads 300] [--json FILE]

A small marketplace in an embedded PostgreSQL, with one business on a server of this process that answers at once and
leaves connections open. Leads are awarded and delivered one after the other, plain and mapped in turns, so that both
share every disturbance. As in production, the award exposes a plain lead whose connection is open; a mapped one is
exposed by a commit of its own. The mapping is the preset for automation tools.
"""

import argparse
import asyncio
import json
import os
from pathlib import Path
from statistics import median
from time import process_time
from typing import Final
from uuid import UUID

import msgspec
import uvloop

from benchmarks.directories import temporary_directory
from marketplace.database.embedded import engines
from marketplace.database.journal import Journal
from marketplace.database.migrate import migrate
from marketplace.delivery.event import compose
from marketplace.delivery.flow import Delivery
from marketplace.delivery.mapped import describe_lead
from marketplace.delivery.store import find_delivery
from marketplace.distribution.flow import Distribution
from marketplace.mapping.presets import load_presets
from marketplace.mapping.requests import render_body, try_on_facts
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock
from marketplace.runtime.settings import load
from marketplace.webhook.kept import KeptConnections
from marketplace.webhook.transport import Reservations
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import Buyer, Marketplace, marketplace
from tests.conftest import SECRETS

MAPPING: Final = load_presets()["automation"].mapping
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
REPEATS: Final = 2_000
"Requests that are made for one figure of their time."
WARM_UP: Final = 20
"Leads of each kind before the clock counts."
FUNDS_MINOR: Final = 100_000_000


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request of a connection with an empty 200, until its sender has gone."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


class Bench:
    """A marketplace whose leads are awarded and delivered by hand."""

    def __init__(self, market: Marketplace, buyer: Buyer, journal: Journal) -> None:
        self.market, self.buyer = market, buyer
        self.connections = KeptConnections()
        reservations = Reservations(market.guard, self.connections)
        self.distribution = Distribution(market.worker, Catalog(market.worker), reservations=reservations)
        self.delivery = Delivery(market.worker, market.sealer, market.guard, journal, connections=self.connections)

    async def deliver(self, number: int, *, mapped: bool) -> float:
        """Take a lead in, and return the milliseconds from the start of its award to its settlement."""
        document = msgspec.json.encode(MAPPING).decode() if mapped else None
        await self.market.value(
            "update endpoint set mapping = $1::jsonb where id = $2", document, self.buyer.endpoint_id
        )
        receipt = await self.market.submit(number)
        started = clock.monotonic()
        assignment_id = await self.distribution.distribute(receipt.id)
        assert assignment_id is not None
        await self.delivery.deliver(assignment_id)
        elapsed = clock.monotonic() - started
        assert await self.market.state(receipt.id) == "delivered"
        return elapsed * 1_000

    async def time_requests(self, assignment_id: UUID) -> dict[str, float]:
        """Return the microseconds of processor time that the request of each kind takes to make."""
        async with self.market.worker.acquire() as connection:
            case = await find_delivery(connection, assignment_id)
        assert case is not None
        contact = msgspec.json.encode(roofing_body(1)["contact"] | {"country": "US", "consent": {"text": "yes"}})
        lead, fields, now = describe_lead(case), msgspec.json.decode(contact), clock.now()

        def make_mapped() -> None:
            try_on_facts(MAPPING, lead)
            render_body(MAPPING, lead, fields)

        figures = {}
        for name, make in (("plain", lambda: compose(case, contact, now)), ("mapped", make_mapped)):
            started = process_time()
            for _ in range(REPEATS):
                make()
            figures[f"{name}_request_us"] = round((process_time() - started) / REPEATS * 1e6, 1)
        return figures


async def measure(place: Path, leads: int) -> dict[str, float]:
    """Start the engine in an empty directory and measure."""
    environment = {"MARKETPLACE_DATA": str(place), "VALKEY_URL": "unix:///nowhere", "PATH": os.environ["PATH"]}
    settings = load(environment | SECRETS)
    server = await asyncio.start_server(answer_all, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with engines(settings) as running:
        await migrate(running.database_url)
        settings = msgspec.structs.replace(settings, database_url=running.database_url)
        journal = await Journal.open(place / "exposures")
        async with marketplace(settings) as market:
            buyer = await market.buyer(f"http://127.0.0.1:{port}/leads", available_minor=FUNDS_MINOR)
            bench = Bench(market, buyer, journal)
            times: dict[bool, list[float]] = {False: [], True: []}
            for number in range(2 * (leads + WARM_UP)):
                times[number % 2 == 1].append(await bench.deliver(number, mapped=number % 2 == 1))
            plain, mapped = (median(times[kind][WARM_UP:]) for kind in (False, True))
            requests = await bench.time_requests(await market.value("select id from assignment limit 1"))
            bench.connections.close()
            bench.delivery.close()
        await journal.close()
    server.close()
    return {
        **requests,
        "plain_p50_ms": round(plain, 2),
        "mapped_p50_ms": round(mapped, 2),
        "more_percent": round((mapped / plain - 1) * 100, 1),
    }


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=300, help="leads of each kind")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with temporary_directory() as place:
        figures = uvloop.run(measure(place, options.leads))
    for name, figure in figures.items():
        print(f"{name:20}{figure}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
