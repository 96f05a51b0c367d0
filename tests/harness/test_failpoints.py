"""A process killed at each named place loses nothing, sells nothing twice and charges nobody for nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from marketplace.operations.verify import verify
from marketplace.runtime import clock, failpoints
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, create_key
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import NOWHERE, PRICE_MINOR, Marketplace, anywhere, marketplace
from tests.builders.service import free_port
from tests.conftest import SECRETS
from tests.harness.processes import Kept
from tests.receivers import Receiver, status

PATIENCE_SECONDS = 60.0
FULL = 100_000


def armed(text: str, **environment: str) -> dict[str, failpoints.Failpoint]:
    return failpoints.read({"MARKETPLACE_FAILPOINTS": text, "MARKETPLACE_FAILPOINTS_ALLOWED": "yes"} | environment)


def test_failpoints_need_to_be_allowed_as_well_as_named() -> None:
    assert armed("before_award=exit", MARKETPLACE_FAILPOINTS_ALLOWED="") == {}
    assert armed("before_award=exit", MARKETPLACE_FAILPOINTS_ALLOWED="no") == {}
    assert failpoints.read({"MARKETPLACE_FAILPOINTS_ALLOWED": "yes"}) == {}
    assert set(armed("before_award=exit, after_claim_due=sleep:0.5")) == {"before_award", "after_claim_due"}


def test_a_clock_is_wrong_only_where_failpoints_are_allowed() -> None:
    wrong = {"MARKETPLACE_CLOCK_SKEW_SECONDS": "-90.5"}
    assert clock.skew(wrong | {"MARKETPLACE_FAILPOINTS_ALLOWED": "yes"}) == timedelta(seconds=-90.5)
    assert clock.skew({"MARKETPLACE_FAILPOINTS_ALLOWED": "yes"}) == clock.skew(wrong) == timedelta()


@pytest.mark.parametrize(
    "text",
    [
        "before_award",
        "nowhere=exit",
        "before_award=explode",
        "before_award=exit@0",
        "before_award=ignore",
        "lead_lock=exit",
        "before_award=sleep",
        "before_award=exit%2x",
    ],
)
def test_a_misspelt_failpoint_is_refused_instead_of_never_striking(text: str) -> None:
    with pytest.raises(ValueError, match="failpoint"):
        armed(text)


def test_a_numbered_failpoint_strikes_on_that_visit_alone() -> None:
    failpoint = armed("before_award=raise@3")["before_award"]
    assert [failpoint.strikes() for _ in range(5)] == [False, False, True, False, False]


def test_a_likely_failpoint_strikes_about_as_often_as_it_says() -> None:
    failpoint = armed("before_award=raise%0.5")["before_award"]
    assert 350 < sum(failpoint.strikes() for _ in range(1_000)) < 650


async def test_this_process_has_no_failpoints() -> None:
    await failpoints.reach("before_award")


def environments(settings: Settings, port: int, **besides: str) -> Iterator[Mapping[str, str]]:
    """Yield the environment of each start of a process; `besides` is set for the first start alone."""
    usual = SECRETS | {
        "DATABASE_URL": str(settings.database_url),
        "VALKEY_URL": str(settings.valkey_url),
        "MARKETPLACE_DATA": str(settings.data_dir),
        "MARKETPLACE_PORT": str(port),
        "MARKETPLACE_OPS_ADDRESS": "127.0.0.1:0",
        "MARKETPLACE_PUBLIC_URL": "http://localhost:8000",
        "MARKETPLACE_OUTBOUND_NETWORKS": "127.0.0.0/8",
        "MARKETPLACE_OUTBOUND_HTTP": "true",
        "MARKETPLACE_POOL_SIZE": "4",
    }
    yield usual | besides
    while True:
        yield usual


class Site:
    """One api and one worker, real processes, each started again when it dies."""

    def __init__(self, settings: Settings, directory: Path, place: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.victim = "api" if "intake" in place or "revision" in place else "worker"
        strike = {"MARKETPLACE_FAILPOINTS": f"{place}=exit@1", "MARKETPLACE_FAILPOINTS_ALLOWED": "yes"}
        deaf = {"VALKEY_URL": NOWHERE} if place == "after_claim_due" else {}  # then only a sweep finds the lead
        starts = {
            "api": environments(settings, port, **deaf, **(strike if self.victim == "api" else {})),
            "worker": environments(settings, port, **(strike if self.victim == "worker" else {})),
        }
        self.kept = {
            name: Kept(
                name,
                command,
                starts[name].__next__,
                directory / f"{name}.log",
            )
            for name, command in (("api", "serve"), ("worker", "work"))
        }

    async def post(self, key: str, body: bytes) -> str:
        """The id that the inquiry gets, however often the answer has to be asked for."""
        return str((await self._send("/v1/inquiries", key, body))["id"])

    async def touch(self, key: str, lead: str, body: bytes) -> Any:
        """What each touch of the body is answered, however often the answer has to be asked for."""
        return (await self._send(f"/v1/inquiries/{lead}/touches", key, body))["touches"]

    async def _send(self, path: str, key: str, body: bytes) -> Any:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Idempotency-Key": "once"}
        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    async with session.post(f"{self.url}{path}", data=body, headers=headers) as response:
                        if response.status < 500:
                            assert 200 <= response.status < 300, await response.text()
                            return msgspec.json.decode(await response.read())
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)

    async def struck(self) -> None:
        """Wait until the failpoint has ended its process."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.kept[self.victim].ends["failpoint"]:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)


@asynccontextmanager
async def site(settings: Settings, directory: Path, place: str) -> AsyncIterator[Site]:
    running = Site(settings, directory, place)
    tasks = {name: asyncio.create_task(process.run()) for name, process in running.kept.items()}
    try:
        yield running
    finally:
        await asyncio.gather(*(process.stop(tasks[name]) for name, process in running.kept.items()))


async def come_to_rest(market: Marketplace) -> None:
    """Wait until the one lead has ended. Leases end at once instead of after their time."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await market.value("select state from lead") not in ("delivered", "refused", "lapsed", "unsold"):
            await market.owner.execute("update lead set due_at = clock_timestamp() where due_at is not null")
            await market.owner.execute("update assignment set due_at = clock_timestamp() where due_at is not null")
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("place", failpoints.PLACES)
async def test_a_process_killed_here_loses_nothing_and_sells_nothing_twice(
    place: str, settings: Settings, tmp_path: Path
) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as preferred, Receiver(status(200)) as other:
        first = await market.buyer(preferred.url, anywhere(priority=1))
        second = await market.buyer(other.url, anywhere(priority=2))
        key = await create_key(
            market.owner,
            market.sealer,
            kind=CallerKind.provider,
            owner_id=market.provider.owner,
            mode="live",
            name="test",
        )
        body = msgspec.json.encode(roofing_body(1, clock.now()))
        async with site(settings, tmp_path, place) as running:
            answered = await running.post(key, body)
            if "revision" in place:
                call = {"touches": [{"kind": "call", "at": clock.now(), "touch_id": "call-1"}]}
                (touched,) = await running.touch(key, answered, msgspec.json.encode(call))
                assert touched["result"] in ("added", "repeated")
            await running.struck()
            assert await running.post(key, body) == answered
            await come_to_rest(market)
        assert await market.value("select count(*) from lead") == 1
        assert await market.value("select count(*) from touch") == await market.value("select revision from lead")
        assert await market.value("select state from lead") == "delivered"
        visits_by_receiver = [[visit for visit in receiver.visits if visit.raw] for receiver in (preferred, other)]
        assert sum(bool(visits) for visits in visits_by_receiver) == 1
        assert len({visit.headers["Webhook-Id"] for visits in visits_by_receiver for visit in visits}) == 1
        spent = [FULL - sum(await market.wallet(buyer)) for buyer in (first, second)]
        assert sorted(spent) == [0, PRICE_MINOR]
        async with market.owner.acquire() as connection:
            report = await verify(connection)
        assert [check for check in report.checks if check.findings and check.severity == "finding"] == []
