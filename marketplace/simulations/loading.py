"""Read what a simulation needs, as the role of reports: leads page by page, and the accounts as they stood.

No contact data is read: facts have none, and people are not told apart.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, Queries, fetch_rows, load_row, session
from marketplace.distribution.explorer import list_past_standings
from marketplace.runtime import clock, ids
from marketplace.simulations.accounts import StartingAccounts, UsageKey
from marketplace.simulations.changes import SimulatedTime
from marketplace.simulations.history import (
    PublishedSubscription,
    PublishedVertical,
    SubscriptionSwitch,
    recorded_rules,
)
from marketplace.simulations.simulator import RecordedLead, RecordedRules, SimulatedRules, WalletMovement
from routing.calendar import window_starts

SQL: Final = Queries(__file__, "loading.sql")

PAGE: Final = 1_000
"Leads that are read at a time: a fifth of a second of two simulations."


class SimulatedLeadCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of a time that can be decided about again, and those that are left out: the person had asked before
    (`repeated`), did not want to be contacted (`suppressed`), or was erased."""

    replayable: int
    repeated: int
    suppressed: int
    erased: int


class StartingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts at the start of a simulation, and the movements of wallets during it, in order of time."""

    accounts: StartingAccounts
    movements: tuple[WalletMovement, ...]


async def count_leads(connection: Connection, vertical_id: UUID, time: SimulatedTime) -> SimulatedLeadCounts:
    """Return the numbers of leads of the time."""
    first = clock.id_bound(time.since, clock.ID_EARLY_SECONDS)
    return await load_row(
        connection, SQL["count_leads"], SimulatedLeadCounts, vertical_id, time.since, time.until, first
    )


async def count_versions(connection: Connection, vertical_id: UUID, time: SimulatedTime) -> int:
    """Return how many versions of the vertical and its subscriptions were published since the beginning."""
    count: int = await connection.fetchval(SQL["count_versions"], vertical_id, time.since)
    return count


async def list_business_names(connection: Connection, businesses: Iterable[UUID]) -> dict[UUID, str]:
    """Return the names of businesses, by id."""
    rows = await connection.fetch(SQL["list_business_names"], list(businesses))
    return {row["id"]: row["name"] for row in rows}


async def read_leads(pool: Pool, vertical_id: UUID, time: SimulatedTime) -> AsyncIterator[Sequence[RecordedLead]]:
    """Yield the leads of the time that can be decided about again, PAGE at a time, in the order of receipt."""
    last = clock.id_bound(time.since, clock.ID_EARLY_SECONDS)
    while True:
        async with session(pool) as connection:
            leads = await fetch_rows(
                connection, SQL["list_leads"], RecordedLead, vertical_id, time.since, time.until, last, PAGE
            )
        if not leads:
            return
        last = leads[-1].id
        yield sorted(leads, key=lambda lead: lead.received_at)


async def load_start(connection: Connection, rules: Iterable[SimulatedRules], time: SimulatedTime) -> StartingPoint:
    """Return the accounts as they stood at the beginning, for all sets of rules of one vertical together."""
    variants = list(rules)
    vertical_id = variants[0].vertical.id
    subscriptions = {each.id: each for variant in variants for each in variant.subscriptions}
    windows = sorted(_windows(variants, time))
    standings = await list_past_standings(connection, subscriptions, windows, time.since)
    businesses = {subscriptions[key].business_id: standing for key, standing in standings.items()}
    usage = {
        (key, window, starts_at): standings[key].usage[window]
        for key, window, starts_at in windows
        if key in standings and window in standings[key].usage
    }
    credits = await connection.fetch(SQL["list_credits"], vertical_id, time.since)
    first = clock.id_bound(time.since, clock.ID_EARLY_SECONDS)
    movements = await fetch_rows(
        connection,
        SQL["list_movements"],
        WalletMovement,
        list(businesses),
        time.since,
        time.until,
        vertical_id,
        first,
    )
    accounts = StartingAccounts(
        balances={key: standing.available_minor for key, standing in businesses.items()},
        credit_limits={key: standing.credit_limit_minor for key, standing in businesses.items()},
        usage=usage,
        credits={row["business_id"]: row["credit"] for row in credits},
    )
    return StartingPoint(accounts=accounts, movements=movements)


async def load_recorded_rules(connection: Connection, rules: SimulatedRules, time: SimulatedTime) -> RecordedRules:
    """Return the rules as they were at the beginning, with what was published, paused, resumed or ended until the end.

    A subscription without a record of its state counts as active. `rules` are those of today.
    """
    span = (rules.vertical.id, time.since, time.until)
    verticals = await fetch_rows(connection, SQL["list_vertical_history"], PublishedVertical, *span)
    subscriptions = await fetch_rows(connection, SQL["list_subscription_history"], PublishedSubscription, *span)
    keys = {ids.encode("sub", row.id): row.id for row in subscriptions}
    switches = [
        SubscriptionSwitch(id=keys[row["object"]], state=row["state"], made_at=row["at"])
        for row in await connection.fetch(SQL["list_switches"], list(keys), time.until)
    ]
    return recorded_rules(rules, time.since, (*verticals, *subscriptions, *switches))


def _windows(variants: Iterable[SimulatedRules], time: SimulatedTime) -> set[UsageKey]:
    """Return the windows of all caps that contain the beginning."""
    return {
        (each.id, cap.window, window_starts(time.since, each.definition.zone)[cap.window])
        for rules in variants
        for each in rules.subscriptions
        for cap in each.definition.caps
    }
