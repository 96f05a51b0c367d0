"""Costs of a lead and of every background pass, which must follow changes and not the amount stored.

One database with a hundred thousand leads of a year. Whole walks and all passes run on it; then PostgreSQL's own
counters say whether any statement, those of functions, triggers and foreign keys included, has read a table whole.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest

from marketplace.database.db import SESSION, Queries, open_pool
from marketplace.delivery.store import SQL as DELIVERY
from marketplace.directory.store import SQL as DIRECTORY
from marketplace.notices.store import SQL as NOTICES
from marketplace.portal.operator import lead_store
from marketplace.reports import refresh, roi
from marketplace.reports.question import Question
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from marketplace.security import audit
from marketplace.web import metrics
from marketplace.worker import SQL as WORKER
from tests.builders.marketplaces import Marketplace, anywhere, marketplace, roofing
from tests.conftest import Ready, run_sql
from tests.receivers import Receiver, status

YEAR: Final = Queries(str(Path(__file__).parents[2] / "benchmarks" / "million.py"), "million.sql")
LEADS: Final = 100_000
MONTHS: Final = 13
LARGE: Final = 1_000
"Rows of a table that nobody may read whole; a world of a year has less of everything that people set up."
WALKED: Final = 12
"Leads walked, enough for prepared statements to get the plan that they keep."
TOLD: Final = 15
"Old leads of which their business says something."
READS_ALL: Final = frozenset({"Sort", "Aggregate", "Hash", "Unique", "WindowAgg", "Materialize"})
"Kinds of plan nodes that read all of what is below them."
PAGES_OF_LEAD: Final = 6_000
"""Of tables, for one walk or word and its part of every pass. Measured: 3,031 to 4,637, mostly of hours that reports
write again."""

MOVES: Final = """
insert into move (lead_id, assignment_id, left_state, entered_state, at, committed_by)
select lead_id, id, step.left_state, coalesce(step.entered_state, state), awarded_at,
       (10 + rank() over (order by awarded_at) * ($1 - 20) / 100000)::text::xid8
from assignment
cross join (values (null, 'held'), ('held', 'exposed'), ('exposed', null)) step (left_state, entered_state)
"""

SEALED: Final = """
insert into audit_block (number, previous, xid_from, xid_to, entries, sealed_at, seal)
select 1, sha256(''), '0', pg_snapshot_xmin(pg_current_snapshot()), decode(repeat('00', 49), 'hex'), $1, sha256('seal')
"""
"As if all of it had been sealed."


@pytest.fixture
async def populated(servers: Ready, settings: Settings) -> AsyncIterator[Settings]:
    """Settings on a database with a year of leads."""
    name = f"{servers.template}_populated"
    await run_sql(servers.admin_url, f"create database {name} template {servers.template}")
    url = urlunsplit(urlsplit(servers.admin_url)._replace(path=f"/{name}"))
    try:
        await populate(url)
        yield msgspec.structs.replace(settings, database_url=url)
    finally:
        await run_sql(servers.admin_url, f"drop database {name} with (force)")


async def populate(url: str) -> None:
    """Write the year before now past triggers and foreign keys, each change in a transaction that has ended."""
    now = clock.now()
    connection = await asyncpg.connect(
        url, server_settings={"session_replication_role": "replica", "synchronous_commit": "off"}
    )
    market, order = (msgspec.json.encode(value).decode() for value in (roofing(), anywhere()))
    try:
        for month in range(MONTHS):
            await connection.execute("select make_partitions($1, 1)", now - timedelta(days=30 * month))
        await connection.execute(literal(YEAR["parties"], market, order))
        await connection.execute(literal(YEAR["draw"], 1, LEADS, now, LEADS))
        for name in ("leads", "awards", "told", "decisions", "drop"):
            await connection.execute(literal(YEAR[name], now, '{"score": 80, "findings": []}', LEADS))
        current = int(await connection.fetchval("select pg_current_xact_id()::text"))
        await connection.execute(MOVES, current)
        await connection.execute("analyze")  # or the next statement joins what it takes for empty tables row by row
        await connection.execute(literal(YEAR["outcomes"], now, 1))
        await connection.execute(
            "update report_progress set frontier = date_trunc('hour', now()), seen = pg_current_snapshot()"
        )
        await connection.execute(SEALED, now)
        for index in ("lead_received", "transfer_made"):
            await connection.execute(f"select brin_summarize_new_values('{index}')")
        await connection.execute("analyze")
    finally:
        await connection.close()


def literal(sql: str, *values: object) -> str:
    """Several statements in one take no parameters, and these values are our own."""
    for place, value in enumerate(values, start=1):
        sql = sql.replace(f"${place}", "'{}'".format(str(value).replace("'", "''")))
    return sql


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url, server_settings=SESSION)
    try:
        yield connection
    finally:
        await connection.close()


async def counters(url: str) -> dict[str, tuple[int, int]]:
    """Return, for each large table, the rows read by scans of the whole table and the pages read."""
    async with connected(url) as connection:
        rows = await connection.fetch(
            """select s.relname, s.seq_tup_read, io.heap_blks_read + io.heap_blks_hit as pages
            from pg_stat_user_tables s join pg_statio_user_tables io using (relid) join pg_class c on c.oid = s.relid
            where c.reltuples > $1""",
            LARGE,
        )
    return {row["relname"]: (row["seq_tup_read"], row["pages"]) for row in rows}


@pytest.mark.slow
async def test_no_walk_and_no_background_pass_reads_what_is_stored(populated: Settings) -> None:
    url = populated.database_url or ""
    assert await whole_scans(url) == {}
    before = await counters(url)
    assert {"lead", "inquiry", "assignment", "transfer", "exposure", "move", "disposition"} <= before.keys()
    async with marketplace(populated) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url, available_minor=1_000_000)
        leads = [await market.sold(number) for number in range(WALKED)]
        assert {await market.state(lead) for lead in leads} == {"delivered"}
        await say_something(market)
        await run_all_passes(market)
    after = await counters(url)  # what a connection has counted is there when it is closed
    whole = {table: counts[0] - before[table][0] for table, counts in after.items() if counts[0] > before[table][0]}
    assert whole == {}, "rows read in scans of whole tables"
    pages = sum(counts[1] - before[table][1] for table, counts in after.items())
    assert pages / (WALKED + TOLD) < PAGES_OF_LEAD


async def say_something(market: Marketplace) -> None:
    """One business speaks of leads of the year before."""
    await market.owner.execute(
        """insert into disposition (id, assignment_id, lead_id, business_id, kind, happened_at, recorded_at, source)
        select gen_random_uuid(), id, lead_id, business_id, 'contacted', now(), now(), 'api'
        from (select id, lead_id, business_id from assignment where state = 'delivered' order by id limit $1) a""",
        TOLD,
    )


async def run_all_passes(market: Marketplace) -> None:
    """Each twice, as a worker goes on, and what an operator's overview and a scrape of the metrics read meanwhile."""
    url = market.settings.database_url or ""
    key = audit.seal_key(market.settings.master_key)
    reports = await open_pool(url, "marketplace_reports", size=2)
    async with reports:
        for _ in range(2):
            await market.sweeper.sweep()
            await asyncio.gather(*market.sweeper._running)
            await roi.follow(market.worker)
            assert await refresh.refresh(market.worker) >= 0
            await refresh.close_months(market.worker)
            await audit.seal(market.worker, key)
            await metrics.page(market.api)
            async with reports.acquire() as connection:
                await lead_store.count_fresh(connection, clock.now() - timedelta(minutes=15))
                await lead_store.read_alarms(connection, clock.now())
                await lead_store.list_arrivals(connection, 50)
                await lead_store.list_latest_leads(connection, 20)
        business = await market.value("select business_id from assignment order by id limit 1")
        today = clock.now().date()
        question = Question(first=today, last=today, zone="America/Chicago", business_id=business)
        await roi.load_roi(reports, question)


async def whole_scans(url: str) -> dict[str, list[str]]:
    """The large tables that each statement of a pass would go through whole, by its plan for any arguments.

    A prepared statement keeps such a plan after five runs.
    """
    async with connected(url) as connection:
        upto = int(await connection.fetchval("select pg_current_xact_id()::text"))
        await connection.execute("set plan_cache_mode = force_generic_plan")
        statements = {
            "roi.take_turn": (roi.SQL["take_turn"], "5000"),
            "roi.keep_outcomes": (roi.SQL["keep_outcomes"], f"'{upto - 5}', '{upto}'"),
            "roi.keep_runs": (roi.SQL["keep_runs"], "'{USD}', '{7}'"),
            "refresh.mark_stale": (refresh.SQL["mark_stale"], "now()"),
            "refresh.keep_hours": (refresh.SQL["keep_hours"], "array[date_trunc('hour', now() - interval '9 days')]"),
            "refresh.list_settled": (refresh.SQL["list_settled"], "now(), 1"),
            "audit.find_end": (audit.SQL["find_end"], ""),
            "audit.find_cut": (audit.SQL["find_cut"], f"'{upto - 5}', '{upto}', 10000"),
            "audit.digest_entries": (audit.SQL["digest_entries"], f"'{upto - 5}', '{upto}'"),
            "worker.claim_due_leads": (WORKER["claim_due_leads"], "'30 seconds', 100"),
            "delivery.claim_due": (DELIVERY["claim_due"], "'30 seconds', 50"),
            "notices.claim_due_notices": (NOTICES["claim_due_notices"], "'30 seconds', 5"),
            "directory.count_suppressed": (DIRECTORY["count_suppressed"], "'provider'"),
            "metrics.count_leads": (metrics.SQL["count_leads"], ""),
            "metrics.find_oldest_due": (metrics.SQL["find_oldest_due"], ""),
            "metrics.find_speed": (metrics.SQL["find_speed"], ""),
        }
        large = {row[0] for row in await connection.fetch("select relname from pg_class where reltuples > $1", LARGE)}
        faults = {}
        for name, (sql, arguments) in statements.items():
            await connection.execute(f"prepare tried as {sql}")
            call = f"execute tried({arguments})" if arguments else "execute tried"
            plan = msgspec.json.decode(await connection.fetchval(f"explain (format json) {call}"))[0]["Plan"]
            await connection.execute("deallocate tried")
            if whole := sorted(large & set(scanned(plan, limited=False))):
                faults[name] = whole
    return faults


def scanned(node: dict[str, Any], *, limited: bool) -> Iterator[str]:
    """The tables that a plan goes through from one end to the other, as they lie or along an index.

    `limited` where a limit above ends it after a few rows. What sorts or counts reads on all the same, and so does a
    filter that few rows pass.
    """
    if node["Node Type"] == "Seq Scan":
        yield node["Relation Name"]
    along = node["Node Type"] in ("Index Scan", "Index Only Scan") and "Index Cond" not in node
    if along and ("Filter" in node or not limited):
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        ends = node["Node Type"] == "Limit" or (limited and node["Node Type"] not in READS_ALL)
        yield from scanned(child, limited=ends)
