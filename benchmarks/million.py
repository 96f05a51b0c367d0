"""Generator of a year of leads in a separate database, for benchmarks with many stored leads.

Rows are written without triggers and foreign keys. Random numbers are derived from each lead's number, so every run has
the same data: 20 providers and 200 businesses in four verticals, a few of which have most of the leads, as is usual.
Ids are those of md5 over a kind and a number (`party`); number 1 of each kind is among the largest.
"""

import hashlib
import sys
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Pool, Queries
from marketplace.demo.verticals import home_improvement
from marketplace.reports.refresh import SETTLED, close_months
from marketplace.runtime import clock
from routing.calendar import CapWindow
from routing.inquiry import EvidenceKind
from routing.qualification import Dimension, DimensionFinding, DimensionResult, Verdict
from routing.ranking import Strategy
from routing.subscription import Area, Cap, Circle, OpenHours, SubscriptionDefinition

SQL = Queries(__file__, "million.sql")
PORTION = 100_000
"Leads per transaction."
MONTHS = 13
"Months of partitions, as a service that ran all year would have created them."
ZONE = "America/Chicago"

MARKET = msgspec.structs.replace(home_improvement(), strategy=Strategy.weighted_share)
ORDER = SubscriptionDefinition(
    area=Area(circles=(Circle(latitude=41.92, longitude=-87.64, km=40),)),
    zone=ZONE,
    price_minor=5_000,
    currency="USD",
    hours=OpenHours(spec="Mo-Fr 08:00-18:00", zone=ZONE),
    caps=(Cap(window=CapWindow.day, count=5_000),),
)
VERDICT = Verdict(
    policy_version=1,
    score=80,
    findings=tuple(
        DimensionFinding(
            dimension=dimension,
            result=DimensionResult.meets,
            evidence=EvidenceKind.stated,
            value="as wanted",
            threshold="what the market asks for",
            points=20,
        )
        for dimension in Dimension
    ),
)


def party(kind: str, number: int) -> UUID:
    """Return the id of the provider, business, vertical, subscription or endpoint with this number."""
    return UUID(bytes=hashlib.md5(f"{kind}{number}".encode(), usedforsecurity=False).digest())


async def seed(url: str, leads: int, until: datetime) -> None:
    """Write the year before `until`, unless the database has leads already; without leads, the parties alone."""
    connection = await asyncpg.connect(url, server_settings={"session_replication_role": "replica"})
    try:
        if await connection.fetchval("select count(*) from (select from lead limit 1) l"):
            return
        await write_parties(connection)
        if not leads:
            return
        await connection.execute(
            "update report_progress set frontier = date_trunc('hour', $1, 'UTC')", until - timedelta(days=366)
        )
        await write_leads(connection, leads, until)
        async with connection.transaction():
            await connection.execute(literal(SQL["books"], until))
        await connection.execute("analyze")  # or the outcomes are joined row by row, as of empty tables
        async with connection.transaction():
            await connection.execute(literal(SQL["outcomes"], until, max(leads // 2_000, 1)))
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


async def write_parties(connection: asyncpg.Connection) -> None:
    """Write providers, businesses, endpoints, verticals and subscriptions, by a connection without triggers."""
    await connection.execute(literal(SQL["parties"], encoded(MARKET), encoded(ORDER)))


async def write_leads(connection: asyncpg.Connection, leads: int, until: datetime) -> None:
    """Write leads of the year before `until` with all that became of them, by a connection without triggers."""
    for month in range(MONTHS):
        await connection.execute("select make_partitions($1, 1)", until - timedelta(days=30 * month))
    for first in range(1, leads + 1, PORTION):
        async with connection.transaction():
            await connection.execute(literal(SQL["draw"], first, min(first + PORTION - 1, leads), until, leads))
            for name in ("leads", "awards", "told", "decisions", "nurtured", "drop"):
                await connection.execute(literal(SQL[name], until, encoded(VERDICT), leads))
        print(f"seeded {min(first + PORTION - 1, leads):,}", file=sys.stderr)


def encoded(value: object) -> str:
    return msgspec.json.encode(value).decode()


def literal(sql: str, *values: object) -> str:
    """Insert values into a script of several statements, which cannot have parameters. The values are our own."""
    for place, value in enumerate(values, start=1):
        text = str(value).replace("'", "''")
        sql = sql.replace(f"${place}", f"'{text}'")
    return sql


async def settle(worker: Pool) -> None:
    """Close the past months of the reports' columns, as the worker does once they have settled."""
    while await close_months(worker, clock.now() + 2 * SETTLED):
        pass
