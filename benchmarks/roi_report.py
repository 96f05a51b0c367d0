"""Measure the time of the comparison with shared leads over the whole marketplace, with a million stored leads.

    python benchmarks/roi_report.py [leads]

Starts an embedded PostgreSQL with 1,000 businesses, 13 months of exclusive leads as a worker stores them, and a tenth
as many shared leads. Then loads the report as for an operator, over spans of several lengths.
"""

import asyncio
import os
import statistics
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import asyncpg

from marketplace.database.db import open_pool
from marketplace.database.embedded import Postgres
from marketplace.database.migrate import migrate
from marketplace.reports.question import Question
from marketplace.reports.roi import SQL, load_roi
from marketplace.runtime import clock

REPEATS = 10
PARTIES = (
    "insert into business (id, name, zone) select md5(n::text)::uuid, 'b', 'UTC' from generate_series(0, 999) n",
    "insert into wallet (business_id, currency) select id, 'USD' from business",
    """with v as (insert into vertical (id, slug, version)
        select md5('v' || n)::uuid, 'v' || n, 1 from generate_series(0, 4) n returning id)
    insert into vertical_version select id, 1, '{}', now(), 'benchmark' from v""",
)
RECORD = """int4send({business}) || int4send(n % 5 + 1)
    || int4send(area_number(lpad(({business} % 50 * 18 + n % 7)::text, 3, '0')))
    || int8send(date_part('epoch', r)::bigint) || int8send({cost})
    || int4send(case when random() < 0.7 then (random() * random() * random() * 432000)::int else -1 end)
    || int4send(case when random() < {rate} then (random() * random() * 7000000)::int else -1 end)
    || int8send((100000 + random() * 300000)::bigint)
    || int4send(case when random() < 0.5 then 4 else 0 end + (random() * 2)::int)"""
EXCLUSIVE = f"""
insert into kept_outcome (assignment_id, currency, received_at, record)
select gen_random_uuid(), 'USD', r, {RECORD.format(business="(n % 1000 + 1)", cost=8_000, rate=0.12)}
from (select n, now() - random() * interval '400 days' as r from generate_series(1, $1::int) n) x order by r"""
SHARED = f"""
insert into shared_import (id, business_id, source, added, known, refused, at, currency, first_received_at,
    last_received_at, records)
select gen_random_uuid(), b.id, 'csv', $1::int, 0, 0, now(), 'USD', now() - interval '400 days', now(), (
    select string_agg({RECORD.format(business="b.number", cost=3_000, rate=0.05)}
        || int8send(date_part('epoch', now())::bigint), '')
    from (select n, now() - random() * interval '400 days' as r from generate_series(1, $1::int) n) x)
from business b"""


async def measure(url: str, leads: int) -> None:
    """Write the data, then print one line per span."""
    await migrate(url)
    owner = await asyncpg.connect(url)
    async with owner.transaction():
        for statement in PARTIES:
            await owner.execute(statement)
    await owner.execute(EXCLUSIVE, leads)
    await owner.execute(SHARED, leads // 10_000)
    await owner.execute("vacuum analyze")
    runs = await owner.fetch("select distinct currency::text, number / 128 from kept_outcome")
    await owner.execute(SQL["keep_runs"], *map(list, zip(*runs, strict=True)))
    today = clock.now().date()
    async with await open_pool(url, "marketplace_reports", size=1) as pool:
        for span in (30, 90, 180, 400):
            question = Question(first=today - timedelta(days=span - 1), last=today, zone="America/Chicago")
            took = []
            for _ in range(REPEATS):
                started = clock.monotonic()
                report = await load_roi(pool, question)
                took.append(1000 * (clock.monotonic() - started))
            count, median = report.answer.exclusive.leads, statistics.median(took)
            print(f"{span} days, {count:,} leads: {median:.0f} ms at the median, {max(took):.0f} at most")
    await owner.close()


async def main() -> None:
    """Measure in a temporary directory."""
    leads = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="roi-") as directory:
        os.chmod(directory, 0o755)  # PostgreSQL may run as somebody else
        engine = Postgres(Path(directory))
        await engine.start()
        try:
            await measure(engine.url, leads)
        finally:
            await engine.stop()


if __name__ == "__main__":
    asyncio.run(main())
