"""Arrival curves: leads of a vertical by the hour of the week, learned from its leads of the last weeks.

A pass in the background learns the curve of each vertical in which a subscription spreads its caps. Leads of a vertical
without a curve are taken to arrive evenly. Decisions read the curve from the rules in force.
"""

import asyncio
from datetime import timedelta
from typing import Final

from marketplace.database.background import keep_passing
from marketplace.database.db import Pool, Queries, session
from marketplace.rules.catalog import Catalog

SQL = Queries(__file__, "arrivals.sql")

PASS: Final = "arrival_curves"
"Name of the background pass."
PASS_SECONDS: Final = 600.0
"Interval of the search for curves that are due."
VALID: Final = timedelta(days=1)
"Age at which a curve is learned again."
SPAN: Final = timedelta(weeks=4)
"Age of the oldest leads that count: whole weeks, so that each hour of the week counts as often."


async def keep_learning(pool: Pool, catalog: Catalog, stopping: asyncio.Event) -> None:
    """Learn due curves until `stopping` is set, within the budget of background passes."""
    await keep_passing(pool, PASS, lambda: learn_curves(pool, catalog), stopping, every=PASS_SECONDS)


async def learn_curves(pool: Pool, catalog: Catalog) -> int:
    """Learn the curves that are missing or a day old where a subscription paces its caps; return their number.

    Each is a transaction of its own. Every hour of the week counts one lead more than came, so that no hour is without.
    """
    rules = await catalog.current()
    paced = {subscription.vertical for subscription in rules.index.values() if subscription.plan is not None}
    async with session(pool) as connection:
        due = await connection.fetch(SQL["list_due"], [rules.by_slug[slug].id for slug in sorted(paced)], VALID)
        for row in due:
            await connection.execute(SQL["learn_curve"], row["id"], SPAN)
    return len(due)
