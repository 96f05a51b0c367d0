"""A database set back to a backup, as after a disaster: refused, fenced, and then nobody is shown twice."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from marketplace import worker
from marketplace.database import embedded
from marketplace.database.doctor import examine, unsafe
from marketplace.database.embedded import Engines, Postgres
from marketplace.database.journal import DatabaseSetBack, Journal, JournalExposure
from marketplace.database.migrate import migrate
from marketplace.operations.fence import FenceOutcome, FenceReport, fence
from marketplace.operations.verify import verify
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings, load
from routing.calendar import CapWindow
from routing.ranking import Strategy
from routing.subscription import Cap
from tests.builders.forks import run
from tests.builders.marketplaces import NOWHERE, PRICE_MINOR, Buyer, Marketplace, anywhere, marketplace, roofing
from tests.builders.service import until
from tests.conftest import MASTER_KEY, SECRETS
from tests.marketplace.database.test_journal import an_exposure
from tests.receivers import Receiver, status
from tests.waiting import PATIENCE, tries

DEAD = "http://127.0.0.1:1/hook"
FULL = 100_000
SWEEPS = """select exists (select from pg_stat_activity
    where application_name = 'marketplace_worker' and query_start > $1 and query like '%skip locked%')"""
"Whether a worker has looked for due work since."


CHANGE_CREDIT = "update share_credit set credit = credit where business_id = $1"
WAITS_FOR_LOCK = """select exists (select from pg_stat_activity
    where application_name = 'marketplace_worker' and wait_event_type = 'Lock')"""


@pytest.fixture
async def server(enterable_dir: Path) -> AsyncIterator[Postgres]:
    """A PostgreSQL of this test's own, to be killed and set back."""
    postgres = Postgres(enterable_dir)
    await postgres.start()
    await migrate(postgres.url, MASTER_KEY)
    yield postgres
    await postgres.stop()


@pytest.fixture
def its_settings(server: Postgres, enterable_dir: Path) -> Settings:
    environment = {"DATABASE_URL": server.url, "VALKEY_URL": NOWHERE, "MARKETPLACE_DATA": str(enterable_dir)}
    return load(SECRETS | environment)


def back_up(server: Postgres) -> Path:
    """A base backup of the running server."""
    backup = server.home / "backup"
    embedded._make_private(backup, server.account)
    password = server.password_file.read_text().strip().rpartition(":")[2]
    where = f"postgresql://marketplace:{password}@/marketplace?host={server.socket_directory}"
    command = [server._program("pg_basebackup"), "-D", str(backup), "-d", where, "--checkpoint=fast", "-X", "stream"]
    ran = embedded._run_as(server.account, backup, command)
    assert ran.returncode == 0, ran.stdout
    return backup


async def set_back(server: Postgres, backup: Path) -> None:
    """kill -9, the data lost, the backup in its place."""
    server.kill()
    await asyncio.to_thread(replace_data, server, backup)
    await server.start()


def replace_data(server: Postgres, backup: Path) -> None:
    for _ in tries("the server's end", pause=0.02):
        if server.pid is None:
            break
    shutil.rmtree(server.directory)
    backup.rename(server.directory)


async def route_everything(market: Marketplace) -> None:
    """All work due now, until none is left."""
    for _ in range(20):
        await market.owner.execute("update lead set due_at = clock_timestamp() where due_at is not null")
        await market.owner.execute("update assignment set due_at = clock_timestamp() where due_at is not null")
        if await market.sweeper.sweep() == 0:
            return
        await asyncio.gather(*market.sweeper._running)


async def run_cli(settings: Settings, *arguments: str) -> int:
    """Run a command on these engines without Valkey and return its exit code."""
    engines = {"DATABASE_URL": settings.database_url or "", "VALKEY_URL": NOWHERE}
    environment = SECRETS | engines | {"MARKETPLACE_DATA": str(settings.data_dir)}
    return (await run(*arguments, **environment)).returncode


def seen_by(doors: Iterable[Receiver], number: int) -> int:
    """Return the number of businesses that received this person's address."""
    canary = f"robin.{number}@example.com".encode()
    return sum(any(canary in visit.raw for visit in door.visits) for door in doors)


async def test_a_database_set_back_is_refused_then_fenced_and_sells_nobody_twice(
    server: Postgres, its_settings: Settings, enterable_dir: Path
) -> None:
    engines = Engines(database_url=server.url, valkey_url=NOWHERE)
    async with (
        Receiver(status(200)) as first, Receiver(status(200)) as second, Receiver(status(200)) as late,
        marketplace(its_settings) as market,
    ):  # fmt: skip
        doors = (first, second, late)
        dead = await market.buyer(DEAD, anywhere(priority=0, caps=(Cap(window=CapWindow.total, count=1),)))
        usual = await market.buyer(first.url, anywhere(priority=2))
        await market.buyer(second.url, anywhere(priority=3))
        held, before = await market.sold(6), await market.sold(1)
        waiting = [(await market.submit(number)).id for number in (2, 3, 4, 5)]
        assert (await market.state(held), await market.state(before)) == ("held", "delivered")
        backup = back_up(server)

        for lead_id in waiting[:3]:
            await market.walker.walk(lead_id)
        newcomer = await market.buyer(late.url, anywhere(priority=1))
        await market.walker.walk(waiting[3])
        await pause(market, newcomer)
        await route_everything(market)  # what the dead door held goes to the next business
        await pause(market, dead)
        lost = [await market.sold(number) for number in (7, 8)]
        assert [await market.state(lead_id) for lead_id in (held, *waiting, *lost)] == ["delivered"] * 7
        began = await market.value("select clock_timestamp()")
        working = asyncio.create_task(worker.run(its_settings, engines))

        async def at_work() -> bool:
            return bool(await market.value(SWEEPS, began))

        assert await until(at_work, PATIENCE)

        await set_back(server, backup)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(DatabaseSetBack):  # a worker that lives through it notices as it connects again
                await working
        with pytest.raises(DatabaseSetBack):
            await worker.run(its_settings, engines)
        assert unsafe(await examine(its_settings, engines))
        assert await run_cli(its_settings, "work") == 1

        again = await market.submit(7, provider_reference="again-7")  # before the fence
        planned = await fence(market.worker, [its_settings.journal_dir], clock.now(), dry_run=True)
        assert await market.value("select count(*) from exposure") == 1
        assert await run_cli(its_settings, "fence", "--json", str(enterable_dir / "fence.json")) == 0
        done = msgspec.json.decode((enterable_dir / "fence.json").read_bytes(), type=FenceReport)
        assert done.outcomes == planned.outcomes == {"put_back": 4, "closed": 1, "absent": 2, "contradicted": 0}
        assert [fenced.also_closed for fenced in done.fenced if fenced.also_closed] == [(ids.encode("lead", again.id),)]
        assert {(loss.leads, loss.price_minor) for loss in done.losses} == {(6, 6 * PRICE_MINOR), (1, PRICE_MINOR)}
        assert (await market.submit(8, provider_reference="again-8")).state == "duplicate"

        await pause(market, usual)  # whatever may still be sold goes to the other business
        fresh = await market.submit(9)
        await route_everything(market)
        assert await market.state(fresh.id) == "delivered"
        assert [seen_by(doors, number) for number in range(1, 10)] == [1] * 9
        assert await market.wallet(usual) == (FULL - PRICE_MINOR, 0)
        assert await findings(market) == []
        stopping = asyncio.Event()
        stopping.set()
        await worker.run(its_settings, engines, stopping)  # is taken again


async def findings(market: Marketplace) -> list[str]:
    async with market.owner.acquire() as connection:
        return [check.name for check in (await verify(connection)).checks if check.findings]


async def pause(market: Marketplace, buyer: Buyer) -> None:
    await market.owner.execute("update subscription set state = 'paused' where id = $1", buyer.subscription_id)


async def exposed_elsewhere(market: Marketplace, buyer: Buyer, lead_id: UUID, **changes: Any) -> JournalExposure:
    """A journal line of a lead that this database knows, and of whose exposure it knows nothing."""
    windows = await market.owner.fetch("select key from person_window where lead_id = $1", lead_id)
    exposure = an_exposure(
        **{
            "lead_id": lead_id, "business_id": buyer.business_id, "subscription_id": buyer.subscription_id,
            "endpoint_id": buyer.endpoint_id, "provider_id": market.provider.owner, "vertical_id": market.vertical_id,
            "price_minor": PRICE_MINOR, "awarded_at": clock.now(), "exposed_at": clock.now(),
            "persons": tuple(row["key"] for row in windows), "protected_until": clock.now() + timedelta(days=30),
        } | changes
    )  # fmt: skip
    book = await Journal.open(market.settings.journal_dir)
    await book.append(exposure)
    await book.close()
    return exposure


async def fenced(market: Marketplace) -> dict[str, int]:
    """The outcomes that there were; a second fence finds nothing to do."""
    report = await fence(market.worker, [market.settings.journal_dir], clock.now())
    assert (await fence(market.worker, [market.settings.journal_dir], clock.now())).forgotten == 0
    return {outcome: count for outcome, count in report.outcomes.items() if count}


@pytest.mark.parametrize("days", [14, 80], ids=["received", "nurturing"])
async def test_a_lead_is_put_back_from_wherever_it_waits(settings: Settings, days: int) -> None:
    async with marketplace(settings) as market:
        bant = {"budget": {"minor": 1_200_000, "currency": "USD"}, "authority": "decision_maker",
                "need": {"fields": {"roof_type": "tile"}}, "timing": {"within_days": days}}  # fmt: skip
        receipt = await market.submit(bant=bant)
        if days > 14:
            await market.walker.walk(receipt.id)
        buyer = await market.buyer(DEAD, available_minor=1)
        exposure = await exposed_elsewhere(market, buyer, receipt.id)
        assert await fenced(market) == {FenceOutcome.put_back: 1}
        assert await market.row("select state, reason from lead") == {"state": "lapsed", "reason": "restored"}
        assert await market.value("select business_id from exposure") == buyer.business_id
        assert await market.value("select assignment_id from exposure") == exposure.assignment_id
        assert await market.wallet(buyer) == (1, 0)  # which could not have held the price
        assert await findings(market) == []


async def test_a_claim_that_is_the_exposed_one_gives_its_hold_back(settings: Settings) -> None:
    async with marketplace(settings) as market:
        buyer = await market.buyer(DEAD)
        receipt = await market.submit()
        assignment_id = await market.distribution.distribute(receipt.id)
        assert await market.wallet(buyer) == (FULL - PRICE_MINOR, PRICE_MINOR)
        await exposed_elsewhere(market, buyer, receipt.id, assignment_id=assignment_id)
        assert await fenced(market) == {FenceOutcome.put_back: 1}
        assert await market.wallet(buyer) == (FULL, 0)
        assert await market.state(receipt.id) == "lapsed"
        assert await findings(market) == []


async def test_a_lead_that_ended_unseen_only_protects_its_person(settings: Settings) -> None:
    async with marketplace(settings) as market:
        receipt = await market.submit()
        buyer = await market.buyer(DEAD)
        await exposed_elsewhere(market, buyer, receipt.id)
        await pause(market, buyer)
        await market.walker.walk(receipt.id)
        assert await market.state(receipt.id) == "unsold"
        assert await fenced(market) == {FenceOutcome.closed: 1}
        assert (await market.submit(provider_reference="again")).state == "duplicate"


async def test_a_lead_that_two_businesses_saw_is_told_and_stops_nobody(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as door:
        await market.buyer(door.url, anywhere(priority=1))
        other = await market.buyer(DEAD, anywhere(priority=9))
        lead_id = await market.sold()
        await exposed_elsewhere(market, other, lead_id)
        report = await fence(market.worker, [settings.journal_dir], clock.now())
        assert (report.outcomes[FenceOutcome.contradicted], report.beyond_repair) == (1, True)
        assert await market.state(lead_id) == "delivered"
        assert await fenced(market) == {}


async def test_a_fence_takes_credits_back_in_the_order_in_which_awards_change_them(settings: Settings) -> None:
    """The fence ends two leads at once. The first changed the credit of the later business alone, the second that of
    the earlier one. Meanwhile an award has changed the earlier one's, and goes on to the later one's."""
    async with marketplace(settings, roofing(strategy=Strategy.fair)) as market:
        buyers = sorted([await market.buyer(DEAD) for _ in range(2)], key=lambda buyer: buyer.business_id)
        leads = []
        for number, paused in enumerate(buyers, start=1):
            await pause(market, paused)
            leads.append((await market.submit(number)).id)
            assert await market.distribution.distribute(leads[-1])
            await market.owner.execute("update subscription set state = 'active'")
        keys = await market.owner.fetch("select key from person_window where lead_id = any($1)", leads)
        persons = tuple(row["key"] for row in keys)
        await exposed_elsewhere(market, buyers[0], clock.new_id(), persons=persons)
        async with market.owner.acquire() as award, asyncio.TaskGroup() as group, award.transaction():
            await award.execute(CHANGE_CREDIT, buyers[0].business_id)
            fencing = group.create_task(fenced(market))
            assert await until(lambda: market.value(WAITS_FOR_LOCK), PATIENCE)
            await award.execute(CHANGE_CREDIT, buyers[1].business_id)
        assert fencing.result() == {FenceOutcome.absent: 1}
        assert [await market.state(lead_id) for lead_id in leads] == ["unsold", "unsold"]
        assert await findings(market) == []


async def test_a_rehearsal_is_put_back_without_money(settings: Settings) -> None:
    async with marketplace(settings) as market:
        buyer = await market.buyer(DEAD, mode="test")
        tester = await market.another_provider(mode="test")
        receipt = await market.submit(by=tester)
        await exposed_elsewhere(market, buyer, receipt.id, mode="test", provider_id=tester.owner)
        report = await fence(market.worker, [settings.journal_dir], clock.now())
        assert (report.outcomes[FenceOutcome.put_back], report.losses) == (1, ())
        assert await findings(market) == []


async def test_a_damaged_line_is_told_and_the_others_are_fenced(settings: Settings) -> None:
    async with marketplace(settings) as market:
        buyer = await market.buyer(DEAD)
        await exposed_elsewhere(market, buyer, (await market.submit(1)).id)
        await exposed_elsewhere(market, buyer, (await market.submit(2)).id)
        damage(settings.journal_dir)
        report = await fence(market.worker, [settings.journal_dir], clock.now())
        assert (len(report.damages), report.outcomes[FenceOutcome.put_back], report.beyond_repair) == (1, 1, True)


def damage(directory: Path) -> None:
    path = max(path for path in directory.iterdir() if path.stat().st_size)
    path.write_bytes(path.read_bytes().replace(b"push", b"fetch"))


async def test_api_and_reports_can_neither_fence_nor_see_who_was_fenced(pool: Any) -> None:
    async with pool.acquire() as connection:
        for role in ("marketplace_api", "marketplace_reports"):
            assert not await connection.fetchval("select has_table_privilege($1, 'fenced_lead', 'insert')", role)
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute("truncate fenced_lead")
