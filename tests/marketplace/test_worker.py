"""Engines away and workers killed: what is answered meanwhile, and that nothing and nobody's money is lost by it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import msgspec
import pytest

from marketplace.database.embedded import Postgres
from marketplace.database.migrate import migrate
from marketplace.operations.verify import verify
from marketplace.runtime import clock
from marketplace.runtime.errors import Unavailable
from marketplace.runtime.queue import NOTIFY_LIMIT_S
from marketplace.runtime.settings import Settings
from marketplace.runtime.supervisor import Child, Supervisor
from marketplace.security.auth import CallerKind, create_key
from marketplace.security.sealing import Sealer
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import PAYOUT_MINOR, PRICE_MINOR, Marketplace, marketplace
from tests.builders.service import NOWHERE, Process, Served, environment_of, process, serve, serve_ops, until, walking
from tests.conftest import MASTER_KEY
from tests.receivers import Receiver, Visit, after, hang, ok
from tests.waiting import PATIENCE

FULL = 100_000
TO_RECEIVERS = {"MARKETPLACE_OUTBOUND_HTTP": "true", "MARKETPLACE_OUTBOUND_NETWORKS": "127.0.0.0/8"}
"Lets a worker deliver to the receivers of a test."
UNKNOWN = "lead_01m7zxrk0zezh9kk0e0qy31s5c"

ROUTES = (
    ("GET", "/v1/inquiries"), ("GET", f"/v1/inquiries/{UNKNOWN}"), ("POST", f"/v1/inquiries/{UNKNOWN}/touches"),
    ("POST", "/v1/inquiries:validate"), ("POST", "/v1/inquiries"), ("GET", f"/v1/leads/{UNKNOWN}/trace"),
    ("GET", "/v1/verticals"), ("GET", "/v1/spec/roofing"), ("GET", "/v1/endpoints"), ("POST", "/v1/subscriptions"),
    ("GET", "/v1/wallet"), ("POST", "/v1/top-ups"), ("GET", "/v1/earnings"), ("POST", "/v1/suppressions"),
    ("GET", "/readyz"),
)  # fmt: skip


async def provider_key(market: Marketplace) -> str:
    settings = market.settings
    async with market.owner.acquire() as connection:
        return await create_key(
            connection, Sealer(settings.master_key, settings.pepper), kind=CallerKind.provider,
            owner_id=market.provider.owner, mode="live", name="a test's",
        )  # fmt: skip


async def assert_verified(url: str | None) -> None:
    """Every promise, recomputed from scratch."""
    connection = await asyncpg.connect(url)
    try:
        report = await verify(connection)
    finally:
        await connection.close()
    assert report.findings == 0, [check for check in report.checks if check.findings]


@asynccontextmanager
async def own_postgres(directory: Path) -> AsyncIterator[Postgres]:
    """A server that a test may stop without stopping anybody else's."""
    postgres = Postgres(directory, {"shared_buffers": "16MB", "max_connections": "60"})
    await postgres.start()
    try:
        await migrate(postgres.url, MASTER_KEY)
        yield postgres
    finally:
        await postgres.stop()


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_without_its_database_the_api_says_so_everywhere_and_is_back_without_a_restart(
    settings: Settings, enterable_dir: Path, how: str
) -> None:
    async with own_postgres(enterable_dir) as postgres:
        on_own = msgspec.structs.replace(settings, database_url=postgres.url)
        async with marketplace(on_own) as market, serve(on_own) as api:
            key = await provider_key(market)
            assert (await submit(api, key, 1)).status_code == 202
            if how == "stopped":
                await postgres.stop()
            else:
                postgres.kill()
            try:
                await assert_unavailable(api, key)
            finally:
                await postgres.start()

            async def taken() -> bool:
                return (await submit(api, key, 2)).status_code == 202

            assert await until(taken, PATIENCE)
            assert (await api.call("GET", "/readyz", key="")).status_code == 200
            assert await api.pool.fetchval("select count(*) from inquiry") == 2


async def assert_unavailable(api: Served, key: str) -> None:
    assert (await api.call("GET", "/healthz", key="")).status_code == 200
    assert (await api.call("GET", "/openapi.json", key="")).status_code == 200
    async with serve_ops(api.settings) as ops:
        assert (await ops.get("/metrics")).status_code == 200
    answers = await asyncio.gather(*(
        api.call(method, path, roofing_body(9, clock.now()) if method == "POST" else None, key=key)
        for method, path in ROUTES
    ))  # fmt: skip
    for (method, path), answer in zip(ROUTES, answers, strict=True):
        assert answer.status_code == 503, f"{method} {path}: {answer.text}"
        assert answer.json()["code"] == "temporarily_unavailable"
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == "application/problem+json"


async def submit(api: Served, key: str, number: int) -> httpx.Response:
    return await api.call("POST", "/v1/inquiries", roofing_body(number, clock.now()), key=key)


async def test_without_valkey_inquiries_are_taken_at_once_and_walked_soon(settings: Settings) -> None:
    alone = msgspec.structs.replace(settings, valkey_url=NOWHERE)
    async with serve(alone) as api, marketplace(alone) as market, Receiver(ok) as receiver, walking(market):
        buyer = await market.buyer(receiver.url)
        key = await provider_key(market)
        assert (await submit(api, key, 1)).status_code == 202  # the first one also loads the rules
        took = []
        for number in range(2, 8):
            began = clock.monotonic()
            assert (await submit(api, key, number)).status_code == 202
            took.append(clock.monotonic() - began)
        assert sorted(took)[len(took) // 2] < NOTIFY_LIMIT_S, took
        assert (await api.call("GET", "/readyz", key="")).status_code == 200

        async def all_delivered() -> bool:
            return bool(await market.value("select count(*) = 7 from lead where state = 'delivered'"))

        assert await until(all_delivered, PATIENCE)
        assert await market.wallet(buyer) == (FULL - 7 * PRICE_MINOR, 0)


async def too_late(visit: Visit) -> None:
    """Reads the lead, and answers when nobody listens any more."""
    await visit.read_request()
    await asyncio.sleep(2 * PATIENCE)


@pytest.mark.parametrize("engine", ["knocked", "swept"])
async def test_a_killed_worker_loses_nothing_and_gives_its_lead_to_nobody_else(
    settings: Settings, tmp_path: Path, engine: str
) -> None:
    """The receiver has read the lead and answers late; the worker dies before it hears the answer."""
    worker_settings = settings if engine == "knocked" else msgspec.structs.replace(settings, valkey_url=NOWHERE)
    async with (
        marketplace(worker_settings) as market,
        serve(worker_settings) as api,
        Receiver(too_late, ok) as first,
        Receiver(too_late, ok) as other,
    ):
        buyers = [await market.buyer(receiver.url) for receiver in (first, other)]
        key = await provider_key(market)
        async with process(worker_settings, "work", tmp_path / "first.log", **TO_RECEIVERS) as worker:
            assert (await submit(api, key, 1)).status_code == 202
            await read_by_one_of(worker, first, other)
            worker.kill()
            await worker.stop()
        held = await market.row("select business_id, state from assignment")
        assert held["state"] == "exposed"
        taken_by = next(buyer for buyer in buyers if buyer.business_id == held["business_id"])
        assert await market.wallet(taken_by) == (FULL - PRICE_MINOR, PRICE_MINOR)
        await market.owner.execute("update assignment set due_at = clock_timestamp()")  # its lease is over
        async with process(worker_settings, "work", tmp_path / "second.log", **TO_RECEIVERS) as worker:

            async def delivered() -> bool:
                return bool(await market.value("select state = 'delivered' from lead"))

            assert await until(delivered, PATIENCE), worker.log
            assert await worker.stop() == 0
        assert await market.value("select count(*) from assignment") == 1
        assert await market.value("select count(*) from exposure") == 1
        assert await market.wallet(taken_by) == (FULL - PRICE_MINOR, 0)
        assert await market.value("select sum(amount_minor) from transfer where kind = 'payout'") == PAYOUT_MINOR
        visited = [receiver for receiver in (first, other) if receiver.visits]
        assert len(visited) == 1
        assert len(visited[0].visits) == 2
        assert len({httpx.Headers(visit.headers)["webhook-id"] for visit in visited[0].visits}) == 1
        await assert_verified(worker_settings.database_url)


async def read_by_one_of(worker: Process, *receivers: Receiver) -> None:
    """Returns when a receiver has a whole request."""

    async def has_read() -> bool:
        return any(visit.body for receiver in receivers for visit in receiver.visits)

    assert await until(has_read, PATIENCE), worker.log


async def test_a_worker_told_to_stop_ends_what_it_holds_first(settings: Settings, tmp_path: Path) -> None:
    async with marketplace(settings) as market, serve(settings) as api, Receiver(after(1, ok)) as receiver:
        await market.buyer(receiver.url)
        key = await provider_key(market)
        async with process(settings, "work", tmp_path / "work.log", **TO_RECEIVERS) as worker:
            assert (await submit(api, key, 1)).status_code == 202
            await read_by_one_of(worker, receiver)
            assert await worker.stop() == 0
        assert await market.value("select state from lead") == "delivered"
        await assert_verified(settings.database_url)


async def test_while_a_worker_waits_for_a_receiver_that_hangs_its_successor_delivers(
    settings: Settings, tmp_path: Path
) -> None:
    environment = environment_of(settings) | TO_RECEIVERS
    command = (sys.executable, "-m", "marketplace.cli", "work")
    supervisor = Supervisor([Child(name="worker", command=command, environment=environment)], tmp_path)
    stopping = asyncio.Event()
    async with marketplace(settings) as market, serve(settings) as api, Receiver(hang, ok) as receiver:
        await market.buyer(receiver.url)
        key = await provider_key(market)
        running = asyncio.create_task(supervisor.run(stopping))
        try:
            assert (await submit(api, key, 1)).status_code == 202
            assert await until(lambda: _has_body(receiver, 1), PATIENCE), (tmp_path / "worker.log").read_text()
            first = supervisor.pids["worker"]
            os.kill(first, signal.SIGTERM)
            assert (await submit(api, key, 2)).status_code == 202
            assert await until(lambda: _has_body(receiver, 2), PATIENCE), (tmp_path / "worker.log").read_text()
            assert supervisor.pids["worker"] != first
            os.kill(first, 0)  # the first one still waits
        finally:
            receiver.visits[0].hang_up()
            stopping.set()
            await running
        await assert_verified(settings.database_url)


async def _has_body(receiver: Receiver, count: int) -> bool:
    return sum(bool(visit.body) for visit in receiver.visits) >= count


async def test_a_database_that_goes_away_under_the_sweeper_is_waited_for(
    settings: Settings, enterable_dir: Path
) -> None:
    async with own_postgres(enterable_dir) as postgres:
        on_own = msgspec.structs.replace(settings, database_url=postgres.url)
        async with marketplace(on_own) as market, Receiver(ok) as receiver, walking(market):
            await market.buyer(receiver.url)
            postgres.kill()
            await asyncio.sleep(0.6)
            await postgres.start()

            async def taken() -> bool:
                try:
                    await market.submit(1)
                except Unavailable:
                    return False
                return True

            assert await until(taken, PATIENCE)

            async def delivered() -> bool:
                return bool(await market.value("select count(*) = 1 from lead where state = 'delivered'"))

            assert await until(delivered, PATIENCE)
