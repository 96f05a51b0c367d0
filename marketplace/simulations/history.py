"""Rules of a vertical as they were, from its published versions and what was paused, resumed or ended. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never
from uuid import UUID

import msgspec

from marketplace.simulations.simulator import RecordedRules, RuleEdit, SimulatedRules
from routing.inquiry import Mode
from routing.subscription import Subscription, SubscriptionDefinition
from routing.vertical import VerticalDefinition


class PublishedVertical(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a vertical, and when it was published."""

    version: int
    definition: VerticalDefinition
    made_at: datetime


class PublishedSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a subscription, when it was published, and the present names of its business."""

    id: UUID
    business_id: UUID
    version: int
    definition: SubscriptionDefinition
    made_at: datetime
    business_names: tuple[str, ...] = ()


class SubscriptionSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """A new state of a subscription: active, paused, suspended or ended."""

    id: UUID
    state: str
    made_at: datetime


RuleRecord = PublishedVertical | PublishedSubscription | SubscriptionSwitch


def recorded_rules(rules: SimulatedRules, since: datetime, records: Sequence[RuleRecord]) -> RecordedRules:
    """Return the rules at `since`, and each later edit. `rules` are those of today."""
    timeline = _Timeline(rules)
    ordered = sorted(records, key=lambda record: record.made_at)
    for record in ordered:
        if record.made_at <= since:
            timeline.apply(record)
    start = timeline.rules()
    later = [timeline.apply(record) for record in ordered if record.made_at > since]
    return RecordedRules(start=start, edits=tuple(edit for edit in later if edit is not None))


class _Timeline:
    """Rules while records are applied to them in order of time."""

    def __init__(self, rules: SimulatedRules) -> None:
        self._rules, self._vertical = rules, rules.vertical
        self._today = {each.id: each for each in rules.subscriptions}
        self._subscriptions: dict[UUID, Subscription] = {}
        self._states: dict[UUID, str] = {}

    def rules(self) -> SimulatedRules:
        subscriptions = tuple(sorted(self._subscriptions.values(), key=lambda subscription: subscription.id))
        return msgspec.structs.replace(self._rules, vertical=self._vertical, subscriptions=subscriptions)

    def apply(self, record: RuleRecord) -> RuleEdit | None:
        """Apply a record, and return the edit that it is; None if it changes nothing."""
        match record:
            case PublishedVertical(version=version, definition=definition):
                self._vertical = msgspec.structs.replace(self._vertical, version=version, definition=definition)
                return RuleEdit(made_at=record.made_at, vertical=self._vertical)
            case PublishedSubscription():
                self._subscriptions[record.id] = self._publish(record)
            case SubscriptionSwitch():
                self._states[record.id] = record.state
            case _:
                assert_never(record)
        return self._edit(record.id, record.made_at)

    def _edit(self, subscription_id: UUID, made_at: datetime) -> RuleEdit | None:
        """Return the edit of a subscription by its present version and state."""
        subscription = self._subscriptions.get(subscription_id)
        state = self._states.get(subscription_id, "active")
        if subscription is None:
            return None
        if state == "ended":
            del self._subscriptions[subscription_id]
            return RuleEdit(made_at=made_at, ended=subscription_id)
        present = msgspec.structs.replace(subscription, paused=state != "active", suspended=None)
        self._subscriptions[subscription_id] = present
        return RuleEdit(made_at=made_at, subscription=present)

    def _publish(self, record: PublishedSubscription) -> Subscription:
        """Return one version of a subscription; one that has ended since had an endpoint that worked."""
        today = self._today.get(record.id)
        if today is not None:
            return msgspec.structs.replace(today, version=record.version, definition=record.definition)
        return Subscription(
            id=record.id,
            business_id=record.business_id,
            endpoint_id=record.id,
            vertical=self._rules.vertical.slug,
            country=self._rules.vertical.definition.country,
            mode=Mode.live,
            version=record.version,
            definition=record.definition,
            business_names=record.business_names,
        )
