"""Readiness of subscriptions for their next lead: the rules that keep a subscription from every lead.

A subscription can be active and yet get nothing: its caps are used up, its wallet is below its price, its endpoint is
backing off after failures. The conditions are those of matching.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.database.db import Connection
from marketplace.distribution.store import list_standings
from marketplace.rules.catalog import Rules
from routing.matching import Cap, Failure, Rule, find_obstacles, reached_caps
from routing.subscription import Subscription


class SubscriptionReadiness(msgspec.Struct, frozen=True, kw_only=True):
    """One subscription at one moment: the rules that keep it from every lead, and its caps that are used up."""

    subscription: Subscription
    obstacles: tuple[Failure, ...]
    caps: tuple[Cap, ...]

    def find(self, rule: Rule) -> Failure | None:
        """Return the obstacle of this rule, or None."""
        return next((failure for failure in self.obstacles if failure.rule is rule), None)


async def load_readiness(
    connection: Connection, rules: Rules, subscriptions: Iterable[UUID], now: datetime
) -> dict[UUID, SubscriptionReadiness]:
    """Return the readiness of these subscriptions by id; one that the rules do not have is missing."""
    current = [rules.index[key] for key in subscriptions if key in rules.index]
    standings = await list_standings(connection, current, now)
    return {
        subscription.id: SubscriptionReadiness(
            subscription=subscription,
            obstacles=find_obstacles(subscription, standings[subscription.id], now),
            caps=reached_caps(subscription.definition, standings[subscription.id], subscription.definition.price_minor),
        )
        for subscription in current
    }
