"""Current verticals, providers' payouts and the matching index over all subscriptions, cached in this process.

Postgres increments one counter in the transaction of every edit; a process with another number reloads. Money and
exclusivity do not depend on this cache: the award checks the locked rows again.
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
"Maximum age of the cache. Opening hours are compiled nine days ahead, so a day-old index covers more than a week."

RECENT_SECONDS: Final = 0.5
"Time for which intake may check by replaced rules; an unknown vertical makes it reload at once."


class Vertical(msgspec.Struct, frozen=True, kw_only=True):
    """A vertical in its current version."""

    id: UUID
    slug: str
    version: int
    definition: VerticalDefinition


class ProviderTerms(msgspec.Struct, frozen=True, kw_only=True):
    """State and payout of a provider."""

    id: UUID
    state: str
    payout: Payout


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """All rules of one catalog version."""

    version: int
    built_at: datetime
    verticals: dict[UUID, Vertical]
    by_slug: dict[str, Vertical]
    providers: dict[UUID, ProviderTerms]
    subscriptions: dict[UUID, Subscription]
    index: SubscriptionIndex


class Catalog:
    """Cache of the newest Rules; concurrent callers share one reload."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rules: Rules | None = None
        self._rebuilding = asyncio.Lock()
        self._checked_at = -RECENT_SECONDS

    async def current(self) -> Rules:
        """Return the current rules: one small query when nothing has changed."""
        async with session(self._pool) as connection:
            version = await connection.fetchval(SQL["find_version"])
        return await self.at_least(version)

    async def recent(self) -> Rules:
        """Return rules at most half a second old, for checks that the worker repeats with the newest."""
        rules = self._rules
        if rules is None or clock.monotonic() - self._checked_at > RECENT_SECONDS:
            checked_at = clock.monotonic()
            rules = await self.current()
            self._checked_at = checked_at
        return rules

    async def at_least(self, version: int) -> Rules:
        """Return the rules of `version` or later."""
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
    """Load all rules in one snapshot, so that they belong to the version."""
    version = await connection.fetchval(SQL["find_version"])
    verticals = [
        Vertical(
            id=row["id"],
            slug=row["slug"],
            version=row["version"],
            definition=msgspec.json.decode(row["definition"], type=VerticalDefinition),
        )
        for row in await connection.fetch(SQL["list_verticals"])
    ]
    providers = [
        ProviderTerms(id=row["id"], state=row["state"], payout=msgspec.json.decode(row["payout"], type=Payout))
        for row in await connection.fetch(SQL["list_providers"])
    ]
    countries = {vertical.slug: vertical.definition.country for vertical in verticals}
    subscriptions = [
        _compile(dict(row), countries[row["vertical"]], now)
        for row in await connection.fetch(SQL["list_subscriptions"])
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
