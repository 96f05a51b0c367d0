"""The rules in force, in process: verticals, providers' terms, and the matching index over all subscriptions.

Postgres bumps one counter in the transaction of every edit; whoever holds another number rebuilds. Nothing here is
trusted with money or exclusivity: the award looks at the locked rows again.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from billing.pricing import Payout
from marketplace.database.db import Connection, Pool, Queries, session
from marketplace.rules.hours import compile_hours
from marketplace.runtime import clock
from routing.matching import SubscriptionIndex
from routing.subscription import Subscription, SubscriptionDefinition
from routing.vertical import VerticalDefinition

SQL = Queries(__file__, "catalog.sql")

REBUILD_AFTER: Final = timedelta(days=1)
"Open hours are compiled nine days ahead, so a day-old index still knows a week."

RECENT_SECONDS: Final = 0.5
"How long intake may check by rules that have just been replaced; a vertical that it does not know makes it look again."


class Vertical(msgspec.Struct, frozen=True, kw_only=True):
    """A vertical in its current version."""

    id: UUID
    slug: str
    version: int
    definition: VerticalDefinition


class ProviderTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider is paid."""

    id: UUID
    state: str
    payout: Payout


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was in force at one catalog version."""

    version: int
    built_at: datetime
    verticals: dict[UUID, Vertical]
    by_slug: dict[str, Vertical]
    providers: dict[UUID, ProviderTerms]
    subscriptions: dict[UUID, Subscription]
    index: SubscriptionIndex


class Catalog:
    """Keeps the newest Rules; concurrent callers share one rebuild."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rules: Rules | None = None
        self._rebuilding = asyncio.Lock()
        self._looked_at = -RECENT_SECONDS

    async def current(self) -> Rules:
        """The rules as of now: one tiny query when nothing has changed."""
        async with session(self._pool) as connection:
            version = await connection.fetchval(SQL["find_version"])
        return await self.at_least(version)

    async def recent(self) -> Rules:
        """Rules that were current within the last half second; for checks that the worker repeats on the newest."""
        rules = self._rules
        if rules is None or clock.monotonic() - self._looked_at > RECENT_SECONDS:
            looked_at = clock.monotonic()
            rules = await self.current()
            self._looked_at = looked_at
        return rules

    async def at_least(self, version: int) -> Rules:
        """The rules of `version` or later."""
        rules = self._rules
        if rules is not None and rules.version >= version and clock.now() - rules.built_at < REBUILD_AFTER:
            return rules
        async with self._rebuilding:
            rules = self._rules
            if rules is None or rules.version < version or clock.now() - rules.built_at >= REBUILD_AFTER:
                async with (
                    session(self._pool) as connection,
                    connection.transaction(isolation="repeatable_read", readonly=True),
                ):
                    rules = self._rules = await load_rules(connection, clock.now())
            return rules


async def load_rules(connection: Connection, now: datetime) -> Rules:
    """Reads everything in one snapshot, so that the version and the rules belong together."""
    version = await connection.fetchval(SQL["find_version"])
    verticals = [
        Vertical(id=r["id"], slug=r["slug"], version=r["version"],
                 definition=msgspec.json.decode(r["definition"], type=VerticalDefinition))
        for r in await connection.fetch(SQL["list_verticals"])
    ]  # fmt: skip
    providers = [
        ProviderTerms(id=r["id"], state=r["state"], payout=msgspec.json.decode(r["payout"], type=Payout))
        for r in await connection.fetch(SQL["list_providers"])
    ]
    countries = {vertical.slug: vertical.definition.country for vertical in verticals}
    subscriptions = [
        _compile(r, countries[r["vertical"]], now) for r in await connection.fetch(SQL["list_subscriptions"])
    ]
    return Rules(
        version=version,
        built_at=now,
        verticals={vertical.id: vertical for vertical in verticals},
        by_slug={vertical.slug: vertical for vertical in verticals},
        providers={terms.id: terms for terms in providers},
        subscriptions={subscription.id: subscription for subscription in subscriptions},
        index=SubscriptionIndex(subscriptions),
    )


def _compile(row: dict[str, object], country: str, now: datetime) -> Subscription:
    fields = dict(row)
    definition = msgspec.json.decode(fields.pop("definition"), type=SubscriptionDefinition)  # type: ignore[call-overload]
    spans = compile_hours(definition.hours, now) if definition.hours else None
    return msgspec.convert({**fields, "country": country, "definition": definition, "open_spans": spans}, Subscription)
