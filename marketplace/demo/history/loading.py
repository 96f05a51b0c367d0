"""Loader of the history: simulates it and writes it to a new marketplace, before the live stream begins.

It is written in one transaction by COPY, with the login that owns the schema. Triggers are off, because each lead is
written once in its final state; all constraints hold. `marketplace verify` checks the result.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import OWNER_SESSION, Connection, Queries, fetch_rows, open_pool, set_codecs
from marketplace.demo import contacts
from marketplace.demo.figures import decode_all
from marketplace.demo.furnishing import POOR_PROVIDER, DemoAccounts
from marketplace.demo.history.arrivals import arrivals
from marketplace.demo.history.rows import COLUMNS, HistoryRows
from marketplace.demo.history.shared_leads import bought_elsewhere, buyers
from marketplace.demo.history.simulation import SimulatedHistory, SimulatedSale, Simulation, SubscriptionPause
from marketplace.demo.people import People
from marketplace.demo.verticals import CURRENCY, HOME
from marketplace.demo.world import DemoBusiness, DemoWorld
from marketplace.intake.postal import PostalArea
from marketplace.reports import roi
from marketplace.rules.catalog import Rules, load_rules
from marketplace.rules.hours import compile_hours
from marketplace.runtime import clock
from marketplace.runtime.clock import seeded
from marketplace.runtime.settings import Settings
from marketplace.security.sealing import Sealer
from marketplace.shared_leads import store as shared_leads_store
from marketplace.shared_leads.store import NewSharedImport
from routing.calendar import CapWindow, window_starts
from routing.lifecycle import AssignmentState
from routing.matching import SubscriptionIndex
from routing.subscription import OpenHours, Subscription

SQL: Final = Queries(__file__, "loading.sql")
PERSONS: Final = 6_000
"""Reserved telephone numbers for people of the history, so that nobody of the stream is a duplicate of one."""
BREAK: Final = timedelta(minutes=20)
"""Time between the end of the history and the present."""
PAUSED_DAYS: Final = 5
ORDINARY_HOURS: Final = {HOME: "Mo-Sa 07:00-20:00; Su 10:00-16:00"}
OTHER_HOURS: Final = "Mo-Fr 08:00-20:00; Sa-Su 10:00-16:00"
LOADING_SECONDS: Final = 60.0


class LoadedHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Written history: numbers of leads by outcome, seconds it took, and the parties with the most leads.

    `poor_won` is the share won of delivered leads of the provider whose leads win less, `other_won` that of all others.
    """

    since: datetime
    until: datetime
    leads: int
    delivered: int
    won: int
    poor_won: float
    other_won: float
    seconds: float
    busiest_business: UUID
    busiest_provider: UUID


async def load_past(
    database_url: str, settings: Settings, world: DemoWorld, furnished: DemoAccounts, seed: int, weeks: float
) -> LoadedHistory | None:
    """Write the weeks before now, analyse the tables and store the columns of reports.

    Return None, and write nothing, if this login may not do it.
    """
    began, now = clock.monotonic(), clock.now()
    since, until = (now - BREAK - timedelta(weeks=weeks)).replace(minute=0, second=0, microsecond=0), now - BREAK
    sealer = Sealer(settings.master_key, settings.pepper)
    async with _owner(database_url) as connection:
        if not await connection.fetchval(SQL["may_load"]):
            return None
        rules = await load_rules(connection)
        before = subscriptions_of(rules, since, until)
        businesses = _businesses(world, furnished)
        [poor] = decode_all("prov", (furnished.providers[POOR_PROVIDER],))
        simulation = Simulation(
            before, businesses, await _areas(connection, world), _pauses(before, businesses, until), seed, until, poor
        )
        people = People(world, seed, len(furnished.providers), furnished.verticals, contacts.phone_count() - PERSONS)
        moments = arrivals(seeded(f"history's arrivals {seed}"), since, until)
        providers = tuple(decode_all("prov", furnished.providers.values()))
        past = simulation.run(zip(moments, people, strict=False), providers, since)
        urls = {row["id"]: row["url"] for row in await connection.fetch(SQL["list_endpoints"])}
        rows = HistoryRows(simulation, sealer, urls, before.index)
        rows.add(past)
        reported = _reported(past)
        await connection.execute(SQL["lock_refresh"])
        async with connection.transaction():
            await _write(connection, rows, past, rules, before, since)
            await _write_elsewhere(connection, world, businesses, furnished, reported, seed, since, until)
            await connection.execute(SQL["analyze"])
            await connection.execute(SQL["insert_columns"], since)
        await connection.execute(SQL["open_months"])
        await connection.execute(SQL["mark_columns"])
    await _follow(database_url, settings.master_key)
    return _loaded(past, reported, since, until, clock.monotonic() - began, poor)


@asynccontextmanager
async def _owner(database_url: str) -> Any:
    """Open a connection of the login that owns the schema. Closing it releases all its locks."""
    connection = await asyncpg.connect(
        database_url, timeout=10, command_timeout=LOADING_SECONDS, server_settings=OWNER_SESSION
    )
    try:
        await set_codecs(connection)
        yield connection
    finally:
        await connection.close()


def subscriptions_of(rules: Rules, since: datetime, until: datetime) -> Rules:
    """Return the rules of the past: nobody paused, and ordinary opening hours in place of those around the present."""
    subscriptions = (_before(current, since, until) for current in rules.index.values())
    return msgspec.structs.replace(rules, index=SubscriptionIndex(subscriptions))


def _before(subscription: Subscription, since: datetime, until: datetime) -> Subscription:
    definition = subscription.definition
    if definition.hours is None:
        return msgspec.structs.replace(subscription, paused=False)
    spec = ORDINARY_HOURS[HOME] if subscription.vertical.startswith(HOME) else OTHER_HOURS
    hours = OpenHours(spec=spec, zone=definition.zone)
    return msgspec.structs.replace(
        subscription,
        paused=False,
        definition=msgspec.structs.replace(definition, hours=hours),
        open_spans=compile_hours(hours, since, days=(until - since).days + 3),
    )


def _businesses(world: DemoWorld, furnished: DemoAccounts) -> dict[UUID, DemoBusiness]:
    business_ids = decode_all("biz", furnished.businesses.values())
    by_slug = dict(zip(furnished.businesses, business_ids, strict=True))
    return {by_slug[business.slug]: business for business in world.businesses}


def _pauses(rules: Rules, businesses: Mapping[UUID, DemoBusiness], until: datetime) -> Iterator[SubscriptionPause]:
    """Yield pauses: paused subscriptions since some days ago, and those with daily caps today.

    The latter leaves today's caps for the live stream.
    """
    for subscription in rules.index.values():
        definition = subscription.definition
        if businesses[subscription.business_id].paused:
            yield SubscriptionPause(subscription_id=subscription.id, since=until - timedelta(days=PAUSED_DAYS))
        elif any(cap.window is CapWindow.day for cap in definition.caps):
            today = window_starts(until + BREAK, definition.zone)[CapWindow.day]
            yield SubscriptionPause(subscription_id=subscription.id, since=min(today, until))


async def _areas(connection: Connection, world: DemoWorld) -> dict[str, PostalArea]:
    codes = [*world.far, *(code for homes in world.homes.values() for code in homes)]
    areas = await fetch_rows(connection, SQL["list_areas"], PostalArea, codes)
    return {area.code: area for area in areas}


def _reported(past: SimulatedHistory) -> Counter[UUID]:
    """Count the leads with a report, by business."""
    return Counter(sale.new.business_id for walk in past.walks for sale in walk.sales if sale.outcome.dispositions)


async def _write(
    connection: Connection, rows: HistoryRows, past: SimulatedHistory, rules: Rules, before: Rules, since: datetime
) -> None:
    await connection.execute(SQL["open_for_writing"], since)
    await connection.execute(SQL["age_parties"], since)
    for key, subscription in before.index.items():
        if subscription.definition == rules.index[key].definition:
            await connection.execute(SQL["age_version"], key, since)
        else:
            await connection.execute(SQL["make_second_version"], key)
            text = msgspec.json.encode(subscription.definition)
            await connection.execute(SQL["insert_first_version"], key, text, since)
    own_stages = {business_id for _, business_id, *_ in rows.of["pipeline_stage"]}
    await connection.execute(SQL["delete_usual_names"], list(own_stages))
    await connection.execute(SQL["delete_usual_stages"], list(own_stages))
    for table, columns in COLUMNS.items():
        await connection.copy_records_to_table(table, records=rows.of[table], columns=columns)
    await connection.execute(SQL["add_balances"], list(past.balances), list(past.balances.values()))
    await connection.execute(SQL["save_benchmark"], clock.new_id(), CURRENCY, since)
    await connection.execute(SQL["record_changes"])


async def _write_elsewhere(
    connection: Connection,
    world: DemoWorld,
    businesses: Mapping[UUID, DemoBusiness],
    furnished: DemoAccounts,
    reported: dict[UUID, int],
    seed: int,
    since: datetime,
    until: datetime,
) -> None:
    verticals = await shared_leads_store.list_verticals(connection)
    for business_id, leads in buyers(reported).items():
        business = businesses[business_id]
        random = seeded(f"elsewhere {seed} {business.slug}")
        slug = furnished.verticals[business.vertical]
        bought = tuple(bought_elsewhere(random, world, business, slug, leads, since, until))
        new = NewSharedImport(
            id=clock.new_id(), business_id=business_id, source="demo", refused=0, currency=CURRENCY, at=until
        )
        lead_ids = [clock.id_at(row.received_at, random) for row in bought]
        await shared_leads_store.insert_leads(connection, new, bought, lead_ids, verticals)


async def _follow(database_url: str, master_key: bytes) -> None:
    """Store the outcomes that estimates read now, so that it does not coincide with the first live leads."""
    pool = await open_pool(database_url, "marketplace_worker", size=1, master_key=master_key)
    try:
        while await roi.follow(pool, changes=100_000):
            pass
    finally:
        await pool.close()


def _loaded(
    past: SimulatedHistory, reported: Counter[UUID], since: datetime, until: datetime, seconds: float, poor: UUID
) -> LoadedHistory:
    sales = [sale for walk in past.walks for sale in walk.sales]
    of_poor = [sale for sale in sales if sale.new.provider_id == poor]
    other_sales = [sale for sale in sales if sale.new.provider_id != poor]
    providers = Counter(walk.provider_id for walk in past.walks)
    return LoadedHistory(
        since=since,
        until=until,
        leads=len(past.walks),
        delivered=_count_delivered(sales),
        won=_count_won(sales),
        poor_won=_count_won(of_poor) / max(_count_delivered(of_poor), 1),
        other_won=_count_won(other_sales) / max(_count_delivered(other_sales), 1),
        seconds=seconds,
        busiest_business=reported.most_common(1)[0][0],
        busiest_provider=providers.most_common(1)[0][0],
    )


def _count_delivered(sales: Iterable[SimulatedSale]) -> int:
    return sum(sale.delivery.state is AssignmentState.delivered for sale in sales)


def _count_won(sales: Iterable[SimulatedSale]) -> int:
    return sum(report.kind == "won" for sale in sales for report in sale.outcome.dispositions)
