"""A worker whose clock is wrong by ten minutes: all windows and deadlines still go by the database's clock."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from marketplace.database import db
from marketplace.database.db import open_pool
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from routing.calendar import CapWindow
from routing.delivery import EVIDENCE_WINDOW, HOLD_WINDOW, PROBE_WINDOW
from routing.subscription import Cap
from tests.builders.marketplaces import Marketplace, anywhere, marketplace
from tests.receivers import Receiver, status
from tests.waiting import PATIENCE

DEAD = "http://127.0.0.1:1/hook"
TEN_MINUTES = 600.0


@pytest.fixture(params=[-TEN_MINUTES, TEN_MINUTES], ids=["behind", "ahead"])
def wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make this process's clock wrong, and stop it from being corrected by the database, from this call on."""

    async def ask_nobody(_connection: Any) -> None:
        return None

    def begin() -> None:
        monkeypatch.setattr(clock, "_SKEW", timedelta(seconds=request.param))
        monkeypatch.setattr(db, "correct_clock", ask_nobody)

    yield begin
    clock._Correction.by = timedelta(0)


async def near(market: Marketplace, column: str, table: str, away: timedelta = timedelta(0)) -> bool:
    """Return whether each of these times agrees with the database's clock, within the slowness of the machine."""
    rows = await market.owner.fetch(f"select {column} - clock_timestamp() - $1::interval as off from {table}", away)
    return bool(rows) and all(abs(row["off"]) < timedelta(seconds=PATIENCE) for row in rows)


async def test_a_delivered_lead_has_the_databases_moments_and_windows(settings: Settings, wrong: Any) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url, anywhere(caps=(Cap(window=CapWindow.hour, count=5),)))
        lead = (await market.submit()).id
        wrong()
        await market.walker.walk(lead)
        assert await market.state(lead) == "delivered"
        for column in ("awarded_at", "exposed_at", "settled_at"):
            assert await near(market, column, "assignment"), column
        for table, column in (
            ("decision", "made_at"),
            ("attempt", "started_at"),
            ("lead", "qualified_at"),
            ("lead", "settled_at"),
            ("exposure", "exposed_at"),
        ):
            assert await near(market, column, table), f"{table}.{column}"
        assert await near(market, "made_at", "transfer where kind in ('hold', 'capture', 'payout')")
        row = await market.row(
            "select hold_until - awarded_at as hold, evidence_until - exposed_at as evidence from assignment"
        )
        assert row == {"hold": HOLD_WINDOW, "evidence": EVIDENCE_WINDOW}
        assert await market.value(
            "select awarded_at >= hour_at and awarded_at < hour_at + interval '1 hour' from assignment"
        )


async def test_a_business_out_of_reach_keeps_the_lead_for_its_hold_and_not_longer(
    settings: Settings, wrong: Any
) -> None:
    async with marketplace(settings) as market:
        await market.buyer(DEAD)
        lead = (await market.submit()).id
        wrong()
        await market.walker.walk(lead)
        assert await market.row("select state, reason from assignment") == {
            "state": "held",
            "reason": "connect_refused",
        }
        assert await near(market, "due_at", "assignment")
        await market.owner.execute("update assignment set hold_until = clock_timestamp() - interval '1 second'")
        await market.walker.attempt_and_walk_on(await market.value("select id from assignment"), lead)
        assert await market.value("select state from assignment order by awarded_at limit 1") == "released"


@pytest.mark.parametrize(("left", "state"), [(300, "exposed"), (-1, "lapsed")], ids=["before", "after"])
async def test_a_lead_lapses_at_its_deadline_and_not_before(
    settings: Settings, wrong: Any, left: int, state: str
) -> None:
    async with marketplace(settings) as market, Receiver(status(503)) as receiver:
        await market.buyer(receiver.url)
        lead = await market.sold()
        assert await market.state(lead) == "exposed"
        await market.owner.execute(
            "update assignment set evidence_until = clock_timestamp() + make_interval(secs => $1)", left
        )
        wrong()
        await market.walker.attempt(await market.value("select id from assignment"))
        assert await market.state(lead) == state
        assert await near(market, "settled_at" if state == "lapsed" else "due_at", "assignment")


async def test_a_breaker_stays_open_for_its_cool_down(settings: Settings, wrong: Any) -> None:
    async with marketplace(settings) as market, Receiver(status(503)) as receiver:
        await market.buyer(receiver.url)
        leads = [(await market.submit(number)).id for number in range(1, 7)]
        wrong()
        for lead in leads:
            await market.walker.walk(lead)
        assert await near(market, "breaker_open_until", "endpoint", timedelta(seconds=30))
        await market.owner.execute(
            "update endpoint set breaker_open_until = clock_timestamp() - interval '1 second', "
            "breaker = jsonb_set(breaker, '{open_until}', to_jsonb(to_char((clock_timestamp() - interval '1 second') "
            "at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')))"
        )
        await market.walker.attempt(await market.value("select id from assignment where state = 'exposed' limit 1"))
        assert timedelta(0) < PROBE_WINDOW
        assert await near(market, "breaker_open_until", "endpoint", timedelta(seconds=60))


async def test_a_lead_in_a_feed_waits_for_its_reader_as_long_as_it_is_held(settings: Settings, wrong: Any) -> None:
    async with marketplace(settings) as market:
        await market.buyer(None)
        lead = (await market.submit()).id
        wrong()
        await market.walker.walk(lead)
        assert await market.value("select due_at = hold_until from assignment")
        assert await near(market, "hold_until", "assignment", HOLD_WINDOW)
        assert await near(market, "placed_at", "feed_event")


async def test_a_process_with_a_wrong_clock_goes_by_the_databases(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_SKEW", timedelta(minutes=-10))
    try:
        pool = await open_pool(database_url, "marketplace_api", size=1, at_once=1)
        async with pool:
            assert abs(clock.now() - await _time(database_url)) < timedelta(seconds=PATIENCE)
            monkeypatch.setattr(clock, "_SKEW", timedelta(minutes=10))  # somebody sets the machine's clock
            monkeypatch.setattr(db, "CLOCK_SECONDS", 0.0)
            async with db.session(pool):
                assert abs(clock.now() - await _time(database_url)) < timedelta(seconds=PATIENCE)
    finally:
        clock._Correction.by = timedelta(0)


async def _time(url: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("select clock_timestamp()")
    finally:
        await connection.close()
