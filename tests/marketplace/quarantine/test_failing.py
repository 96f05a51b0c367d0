"""Work that keeps failing: tried less often, set aside, found by verify, ended in time, and in nobody's way."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from marketplace.database import background
from marketplace.database.db import open_pool
from marketplace.operations.verify import verify
from marketplace.quarantine import failing
from marketplace.quarantine.failing import (
    LONGEST_PAUSE,
    MOST_FAILURES,
    SHORTEST_TRIAL,
    FailedWork,
    WorkKind,
    WorkRunner,
    next_try_at,
)
from marketplace.runtime import clock
from marketplace.runtime.errors import NotFound, Unavailable
from marketplace.runtime.settings import Settings
from marketplace.web import metrics
from tests.builders.marketplaces import Marketplace, marketplace
from tests.receivers import Receiver, status

NOW = datetime.fromisoformat("2026-03-02T12:00:00Z")
POISON = "update inquiry set facts = facts - 'submitted_at' where id = $1"
"Facts that no worker can read."
FULL = 100_000


def failed(failures: int, minutes: float) -> FailedWork:
    return FailedWork(
        kind=WorkKind.lead,
        id=UUID(int=1),
        failures=failures,
        first_failed_at=NOW - timedelta(minutes=minutes),
        last_failed_at=NOW,
        quarantined_at=None,
    )


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 900), (7, 900), (100, 900)]
)
def test_each_failure_in_a_row_doubles_the_pause_up_to_a_quarter_of_an_hour(failures: int, seconds: int) -> None:
    assert next_try_at(failed(failures, 0)) == NOW + timedelta(seconds=seconds)
    assert timedelta(seconds=seconds) <= LONGEST_PAUSE


def test_it_is_set_aside_after_enough_failures_over_enough_time() -> None:
    long = SHORTEST_TRIAL / timedelta(minutes=1)
    assert next_try_at(failed(MOST_FAILURES, long)) is None
    assert next_try_at(failed(MOST_FAILURES, long - 1)) is not None
    assert next_try_at(failed(MOST_FAILURES - 1, 10 * long)) is not None


async def poison(market: Marketplace, lead_id: UUID) -> None:
    """Makes a lead that no worker can read, past the triggers that keep inquiries."""
    async with market.owner.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(POISON, lead_id)


async def sweep(market: Marketplace) -> None:
    await market.sweeper.sweep()
    await asyncio.gather(*market.sweeper._running)


async def fail_until_set_aside(market: Marketplace, table: str = "lead") -> None:
    """Retry as often as necessary, without the time between tries."""
    for _ in range(MOST_FAILURES + 1):
        await market.owner.execute(f"update {table} set due_at = clock_timestamp() where due_at is not null")
        await market.owner.execute("update failing_work set first_failed_at = first_failed_at - interval '10 minutes'")
        await sweep(market)
        if await market.value("select quarantined_at is not null from failing_work limit 1"):
            return
    raise AssertionError("never set aside")


async def checks(market: Marketplace) -> dict[str, int]:
    """The checks of verify that find something."""
    connection = await asyncpg.connect(market.settings.database_url)
    try:
        report = await verify(connection)
    finally:
        await connection.close()
    return {check.name: check.findings for check in report.checks if check.findings}


async def test_a_failing_walk_is_put_off_by_its_pause_and_not_by_its_lease(settings: Settings) -> None:
    async with marketplace(settings) as market:
        lead = (await market.submit()).id
        await poison(market, lead)
        failures = WorkRunner(market.worker)
        for pause in (30, 60, 120):
            with pytest.raises(msgspec.ValidationError):
                await failures.run(lead, market.walker.walk(lead))  # as the queue does
            row = await market.row(
                "select failure, extract(epoch from due_at - last_failed_at)::float8 as pause "
                "from failing_work join lead using (id)"
            )
            assert row == {"failure": "ValidationError", "pause": pytest.approx(pause, abs=0.01)}


async def test_one_poisoned_lead_is_set_aside_and_stops_no_other(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        poisoned = (await market.submit(1)).id
        await poison(market, poisoned)
        await fail_until_set_aside(market)
        assert "work_quarantined" in capsys.readouterr().out
        assert await checks(market) == {"work_is_not_set_aside": 1}
        await metrics.page(market.api)
        assert metrics.QUARANTINED.labels(kind="lead")._value.get() == 1
        well = (await market.submit(2)).id
        await market.owner.execute("update lead set due_at = clock_timestamp() where id = $1", well)
        await sweep(market)
        assert await market.state(well) == "delivered"
        assert await market.state(poisoned) == "received"
        due = await market.value("select due_at - received_at from lead where id = $1", poisoned)
        assert timedelta(hours=20) < due < timedelta(hours=25)


async def test_a_lead_that_nobody_mends_ends_unsold_in_time_and_its_person_may_ask_again(settings: Settings) -> None:
    async with marketplace(settings) as market:
        lead = (await market.submit()).id
        await poison(market, lead)
        await fail_until_set_aside(market)
        await market.owner.execute("update lead set due_at = clock_timestamp()")
        await sweep(market)
        row = await market.row("select state, reason, due_at from lead")
        assert row == {"state": "unsold", "reason": failing.REASON, "due_at": None}
        assert await market.value("select count(*) from person_window") == 0
        assert await checks(market) == {"work_is_not_set_aside": 1}
        await failing.dismiss(market.api, "tester", WorkKind.lead, lead)
        assert await checks(market) == {}
        assert await market.value("select count(*) from audit where action = 'work.dismiss'") == 1


async def test_an_operator_has_it_tried_again_once_the_cause_is_mended(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead = (await market.submit()).id
        facts = await market.value("select facts::text from inquiry")
        await poison(market, lead)
        await fail_until_set_aside(market)
        async with market.owner.acquire() as connection, connection.transaction():
            await connection.execute("set local session_replication_role = replica")
            await connection.execute("update inquiry set facts = $1::text::jsonb", facts)
        with pytest.raises(NotFound):
            await failing.dismiss(market.api, "tester", WorkKind.lead, lead)
        await failing.ask_for_retry(market.api, "tester", WorkKind.lead, lead)
        await sweep(market)  # makes it due
        await sweep(market)
        assert await market.state(lead) == "delivered"
        assert await market.value("select count(*) from failing_work") == 0
        assert await market.value("select count(*) from audit where action = 'work.retry'") == 1
        assert await checks(market) == {}
        with pytest.raises(NotFound):
            await failing.ask_for_retry(market.api, "tester", WorkKind.lead, lead)


async def test_a_poisoned_delivery_frees_the_money_of_a_business_that_was_not_shown_the_lead(
    settings: Settings,
) -> None:
    async with marketplace(settings) as market:
        buyer = await market.buyer("http://127.0.0.1:1/hook")
        lead = await market.sold()
        assert await market.value("select state from assignment") == "held"
        await poison(market, lead)
        await market.owner.execute("update assignment set hold_until = clock_timestamp() + interval '1 hour'")
        await fail_until_set_aside(market, "assignment")
        row = await market.row("select state, reason from assignment")
        assert row == {"state": "released", "reason": failing.REASON}
        assert await market.wallet(buyer) == (FULL, 0)
        assert await market.state(lead) == "prospect"
        assert await checks(market) == {"work_is_not_set_aside": 1}


async def test_a_poisoned_delivery_that_was_shown_lapses_at_its_deadline(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(503)) as receiver:
        buyer = await market.buyer(receiver.url)
        lead = await market.sold()
        assert await market.state(lead) == "exposed"
        await poison(market, lead)
        await fail_until_set_aside(market, "assignment")
        assert await market.value("select due_at = evidence_until from assignment")
        await market.owner.execute("update assignment set due_at = clock_timestamp()")
        await sweep(market)  # before its deadline it stays
        assert await market.value("select state from assignment") == "exposed"
        assert await market.value("select due_at = evidence_until from assignment")
        await market.owner.execute(
            "update assignment set due_at = clock_timestamp(), evidence_until = clock_timestamp() - interval '1 second'"
        )
        await sweep(market)
        assert (await market.state(lead), await market.wallet(buyer)) == ("lapsed", (FULL, 0))


async def test_an_absent_database_is_no_failure_of_the_work(settings: Settings) -> None:
    async with marketplace(settings) as market:
        lead = (await market.submit()).id

        async def away() -> None:
            raise Unavailable("ConnectionDoesNotExistError")

        async def slow() -> None:
            try:
                raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")
            except asyncpg.QueryCanceledError as error:
                raise Unavailable("QueryCanceledError") from error

        failures = WorkRunner(market.worker)
        with pytest.raises(Unavailable):
            await failures.run(lead, away())
        assert await market.value("select count(*) from failing_work") == 0
        with pytest.raises(Unavailable):
            await failures.run(lead, slow())
        assert await market.value("select failures from failing_work") == 1


async def test_a_success_ends_a_row_of_failures(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead = (await market.submit()).id

        async def broken() -> None:
            raise ValueError

        with pytest.raises(ValueError):  # noqa: PT011 - the error of this test
            await WorkRunner(market.worker).run(lead, broken())
        await market.owner.execute("update lead set due_at = clock_timestamp()")
        await sweep(market)
        assert await market.state(lead) == "delivered"
        assert await market.value("select count(*) from failing_work") == 0


# --- background passes ------------------------------------------------------------------------------------------------


@pytest.fixture
async def pool_of_worker(database_url: str) -> Any:
    pool = await open_pool(database_url, "marketplace_worker", size=2)
    async with pool:
        yield pool


async def test_a_pass_rests_nineteen_times_as_long_as_it_took(pool_of_worker: Any, pool: Any) -> None:
    async def work() -> None:
        await asyncio.sleep(0.2)

    assert await background.run_pass(pool_of_worker, "outcomes", work, every=1.0)
    row = await pool.fetchrow(
        "select seconds, extract(epoch from rest_until - ended_at)::float8 as rest "
        "from background_pass where name = 'outcomes'"
    )
    assert row["seconds"] >= 0.2
    assert row["rest"] == pytest.approx(background.REST * row["seconds"], abs=0.01)
    assert not await background.run_pass(pool_of_worker, "outcomes", work, every=1.0)  # it rests, for all workers


async def test_a_short_pass_rests_as_long_as_it_is_told(pool_of_worker: Any, pool: Any) -> None:
    async def work() -> None:
        return None

    assert await background.run_pass(pool_of_worker, "outcomes", work, every=300.0)
    pause = await pool.fetchval("select rest_until - clock_timestamp() from background_pass where name = 'outcomes'")
    assert timedelta(seconds=200) < pause <= timedelta(seconds=300)


async def test_a_pass_runs_once_for_all_workers(pool_of_worker: Any) -> None:
    runs = []

    async def work() -> None:
        runs.append(clock.monotonic())
        await asyncio.sleep(0.2)

    await asyncio.gather(*(background.run_pass(pool_of_worker, "outcomes", work, every=5.0) for _ in range(4)))
    assert len(runs) == 1


async def test_a_pass_that_fails_is_recorded_and_tried_less_and_less_often(pool_of_worker: Any, pool: Any) -> None:
    async def broken() -> None:
        raise ValueError

    for failures, pause in ((1, 10), (2, 20), (3, 40)):
        await pool.execute("update background_pass set rest_until = '-infinity'")
        assert not await background.run_pass(pool_of_worker, "outcomes", broken, every=5.0)
        row = await pool.fetchrow(
            "select failures, failure, rest_until - clock_timestamp() as rest "
            "from background_pass where name = 'outcomes'"
        )
        assert (row["failures"], row["failure"]) == (failures, "ValueError")
        assert timedelta(seconds=pause - 5) < row["rest"] <= timedelta(seconds=pause)

    async def work() -> None:
        return None

    await pool.execute("update background_pass set rest_until = '-infinity'")
    assert await background.run_pass(pool_of_worker, "outcomes", work, every=5.0)
    assert await pool.fetchval("select failures from background_pass where name = 'outcomes'") == 0
