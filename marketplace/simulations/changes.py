"""Changes that a simulation tries: their form, their check, and the rules that follow from them. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, assert_never
from uuid import UUID

import msgspec
from msgspec import Meta

from billing.pricing import Payout
from marketplace.directory.checks import subscription_faults, vertical_faults
from marketplace.rules.catalog import Rules, Vertical
from marketplace.runtime import ids
from marketplace.simulations.simulator import SimulatedRules
from marketplace.text.faults import Fault
from routing.inquiry import Mode
from routing.ranking import Strategy
from routing.subscription import Area, BusinessRules, BusinessTerms, Cap, Subscription, SubscriptionDefinition
from routing.vertical import VerticalDefinition

USUAL_WEEKS: Final = 13
"Weeks of a simulation whose request names no dates: a quarter."
LONGEST_DAYS: Final = 366
MOST_CHANGES: Final = 50
MINUTE: Final = timedelta(minutes=1)
NEW_ID: Final = 2**128 - 1
"Id of a subscription that the first change adds; no stored one has it."

SubscriptionId = Annotated[str, Meta(max_length=40)]


class WhatIfPolicy(msgspec.Struct, frozen=True, kw_only=True, tag="policy", forbid_unknown_fields=True):
    """Another minimum score, or a whole definition of the vertical: one of the two."""

    minimum_score: Annotated[int, Meta(ge=0, le=100)] | None = None
    definition: VerticalDefinition | None = None


class WhatIfStrategy(msgspec.Struct, frozen=True, kw_only=True, tag="strategy", forbid_unknown_fields=True):
    """Another strategy of ranking."""

    strategy: Strategy


class WhatIfScorecard(msgspec.Struct, frozen=True, kw_only=True, tag="card", forbid_unknown_fields=True):
    """Another scorecard that ranks: the version of one that ranks or is in shadow now, or null for none.

    Only the strategy `expected_value` ranks by a scorecard.
    """

    version: int | None


class WhatIfSubscription(msgspec.Struct, frozen=True, kw_only=True, tag="subscription", forbid_unknown_fields=True):
    """Other rules of a subscription, or one more subscription of a business: the id of one of the two.

    A new one has its business's wallet, weight and priority, and an endpoint that works.
    """

    definition: BusinessRules
    subscription_id: SubscriptionId | None = None
    business_id: SubscriptionId | None = None


class WhatIfPrice(msgspec.Struct, frozen=True, kw_only=True, tag="price", forbid_unknown_fields=True):
    """Another price of a subscription, in minor units."""

    subscription_id: SubscriptionId
    price_minor: int


class WhatIfCap(msgspec.Struct, frozen=True, kw_only=True, tag="cap", forbid_unknown_fields=True):
    """Other caps of a subscription, in place of all that it has; an empty list removes them."""

    subscription_id: SubscriptionId
    caps: tuple[Cap, ...]


class WhatIfArea(msgspec.Struct, frozen=True, kw_only=True, tag="area", forbid_unknown_fields=True):
    """Another area of a subscription."""

    subscription_id: SubscriptionId
    area: Area


class WhatIfPause(msgspec.Struct, frozen=True, kw_only=True, tag="pause", forbid_unknown_fields=True):
    """A subscription paused, or resumed with `paused` false. One that was suspended is resumed too."""

    subscription_id: SubscriptionId
    paused: bool = True


class WhatIfPayout(msgspec.Struct, frozen=True, kw_only=True, tag="payout", forbid_unknown_fields=True):
    """Another payout of a provider."""

    provider_id: Annotated[str, Meta(max_length=40)]
    payout: Payout


WhatIf = (
    WhatIfPolicy
    | WhatIfStrategy
    | WhatIfScorecard
    | WhatIfSubscription
    | WhatIfPrice
    | WhatIfCap
    | WhatIfArea
    | WhatIfPause
    | WhatIfPayout
)


class SimulationFault(StrEnum):
    """Codes of faults of a simulation's request, besides those of verticals and subscriptions."""

    vertical_unknown = "vertical_unknown"
    """There is no such vertical."""
    subscription_unknown = "subscription_unknown"
    """The vertical has no such live subscription."""
    business_unknown = "business_unknown"
    """No live subscription of the vertical belongs to such a business."""
    scorecard_unknown = "scorecard_unknown"
    """No scorecard of this version ranks or is in shadow."""
    provider_unknown = "provider_unknown"
    """There is no such provider."""
    changed_twice = "changed_twice"
    """An earlier change is about the same thing."""
    not_exactly_one = "not_exactly_one"
    """Exactly one of two fields is needed."""
    currency_fixed = "currency_fixed"
    """The currency of a vertical cannot change."""
    range_empty = "range_empty"
    """The end is not after the beginning."""
    range_too_long = "range_too_long"
    """The time is longer than a simulation may cover."""
    too_many_leads = "too_many_leads"
    """The time has more leads than a simulation may cover."""
    range_in_future = "range_in_future"
    """The time has not passed yet."""


class SimulatedTime(msgspec.Struct, frozen=True):
    """Time in which the leads of a simulation were received: from `since` up to `until`."""

    since: datetime
    until: datetime


def simulated_time(since: datetime | None, until: datetime | None, now: datetime) -> SimulatedTime | tuple[Fault, ...]:
    """Return the time of a simulation, the last USUAL_WEEKS by default, or the faults of the dates."""
    end = until or now
    start = since or end - timedelta(weeks=USUAL_WEEKS)
    if end > now + MINUTE:
        return (_fault("/to", SimulationFault.range_in_future, "Name a time that has passed."),)
    if start >= end:
        return (_fault("/from", SimulationFault.range_empty, "Name a beginning that is before the end."),)
    if end - start > timedelta(days=LONGEST_DAYS):
        detail = f"Choose at most {LONGEST_DAYS} days."
        return (_fault("/from", SimulationFault.range_too_long, detail),)
    return SimulatedTime(start, end)


def rules_of(rules: Rules, vertical: Vertical) -> SimulatedRules:
    """Return the rules of one vertical as they are in force, with its live subscriptions."""
    live = (each for each in rules.index.values() if each.vertical == vertical.slug and each.mode is Mode.live)
    return SimulatedRules(
        vertical=vertical,
        subscriptions=tuple(sorted(live, key=lambda subscription: subscription.id)),
        payouts={provider.id: provider.payout for provider in rules.providers.values()},
    )


def apply_changes(rules: SimulatedRules, changes: Sequence[WhatIf]) -> SimulatedRules | tuple[Fault, ...]:
    """Return the rules with all changes, or every fault of them, each at its place below `/changes`."""
    faults = [*_repeated(changes)]
    draft = _Draft(rules)
    for number, change in enumerate(changes):
        faults += draft.apply(number, change)
    if not faults:
        faults += draft.contradictions()
    return tuple(faults) or draft.rules()


class _Draft:
    """Rules while changes are applied to them."""

    def __init__(self, rules: SimulatedRules) -> None:
        self._before = rules
        self._vertical = rules.vertical
        self._subscriptions = {each.id: each for each in rules.subscriptions}
        self._payouts = dict(rules.payouts)
        self._changed: dict[UUID, int] = {}
        "Number of the last change of each changed definition."
        self._whole: set[int] = set()
        "Numbers of the changes that state a whole definition."

    def rules(self) -> SimulatedRules:
        return SimulatedRules(
            vertical=self._vertical, subscriptions=tuple(self._subscriptions.values()), payouts=self._payouts
        )

    def apply(self, number: int, change: WhatIf) -> Iterable[Fault]:
        """Apply one change, and return its faults."""
        where = f"/changes/{number}"
        match change:
            case WhatIfPolicy():
                return self._change_policy(where, change)
            case WhatIfStrategy(strategy=strategy):
                self._revise_vertical(msgspec.structs.replace(self._vertical.definition, strategy=strategy))
                return ()
            case WhatIfScorecard():
                return self._change_scorecard(where, change)
            case WhatIfPayout():
                return self._change_payout(where, change)
            case WhatIfSubscription():
                return self._change_subscription(number, change)
            case WhatIfPause(paused=paused):
                return self._revise(number, change.subscription_id, lambda each: _pause(each, paused=paused))
            case WhatIfPrice(price_minor=price):
                return self._revise(number, change.subscription_id, lambda each: _define(each, price_minor=price))
            case WhatIfCap(caps=caps):
                return self._revise(number, change.subscription_id, lambda each: _define(each, caps=caps))
            case WhatIfArea(area=area):
                return self._revise(number, change.subscription_id, lambda each: _define(each, area=area))
            case _:
                assert_never(change)

    def contradictions(self) -> Iterator[Fault]:
        """Yield the faults that changed definitions have, and did not have before."""
        before = {each.id: each for each in self._before.subscriptions}
        for subscription_id, number in self._changed.items():
            old = before.get(subscription_id)
            present = set(_faults(old.definition, self._before.vertical)) if old else set()
            for fault in _faults(self._subscriptions[subscription_id].definition, self._vertical):
                if fault not in present:
                    tail = fault.pointer if number in self._whole else fault.pointer.removeprefix("/definition")
                    yield _fault(f"/changes/{number}{tail}", fault.code, fault.detail)

    def _revise_vertical(self, definition: VerticalDefinition) -> None:
        self._vertical = msgspec.structs.replace(self._vertical, definition=definition.under_current_rules())

    def _change_policy(self, where: str, change: WhatIfPolicy) -> Iterator[Fault]:
        if (change.minimum_score is None) == (change.definition is None):
            detail = "Send either minimum_score or a whole definition."
            yield _fault(where, SimulationFault.not_exactly_one, detail)
            return
        current = self._vertical.definition
        definition = change.definition or msgspec.structs.replace(current, minimum_score=change.minimum_score)
        if definition.currency != current.currency:
            detail = f"This vertical counts in {current.currency}; leave that as it is."
            yield _fault(f"{where}/definition/currency", SimulationFault.currency_fixed, detail)
        for fault in vertical_faults(definition):
            tail = fault.pointer if change.definition else fault.pointer.removeprefix("/definition")
            yield _fault(f"{where}{tail}", fault.code, fault.detail)
        self._revise_vertical(definition)

    def _change_scorecard(self, where: str, change: WhatIfScorecard) -> Iterator[Fault]:
        cards = self._vertical.cards
        in_use = {each.card.version: each for each in (cards.ranking, cards.shadow) if each is not None}
        if change.version is not None and change.version not in in_use:
            detail = "Name the version of a scorecard of this vertical that ranks or is in shadow, or null for none."
            yield _fault(f"{where}/version", SimulationFault.scorecard_unknown, detail)
            return
        ranking = None if change.version is None else in_use[change.version]
        self._vertical = msgspec.structs.replace(
            self._vertical, cards=msgspec.structs.replace(cards, ranking=ranking, shadow=None)
        )

    def _change_payout(self, where: str, change: WhatIfPayout) -> Iterator[Fault]:
        provider_id = ids.decode("prov", change.provider_id)
        if provider_id is None or provider_id not in self._payouts:
            yield _fault(f"{where}/provider_id", SimulationFault.provider_unknown, "Name a provider by its id.")
            return
        self._payouts[provider_id] = change.payout

    def _change_subscription(self, number: int, change: WhatIfSubscription) -> Iterable[Fault]:
        where = f"/changes/{number}"
        stated = {name: getattr(change.definition, name) for name in BusinessRules.__struct_fields__}
        if (change.subscription_id is None) == (change.business_id is None):
            detail = "Send subscription_id to change a subscription, or business_id to add one."
            return (_fault(where, SimulationFault.not_exactly_one, detail),)
        if change.subscription_id is not None:
            return self._revise(number, change.subscription_id, lambda each: _define(each, **stated), whole=True)
        business_id = ids.decode("biz", change.business_id or "")
        example = next((each for each in self._before.subscriptions if each.business_id == business_id), None)
        if example is None:
            detail = "Name a business that has a live subscription of this vertical."
            return (_fault(f"{where}/business_id", SimulationFault.business_unknown, detail),)
        terms = BusinessTerms(weight=example.definition.weight, priority=example.definition.priority)
        added = msgspec.structs.replace(
            example,
            id=UUID(int=NEW_ID - number),
            version=1,
            definition=terms.applied_to(SubscriptionDefinition(**stated)),
            paused=False,
            suspended=None,
            endpoint_id=example.endpoint_id or UUID(int=0),
            endpoint_active=True,
        )
        self._subscriptions[added.id] = added
        self._note(added.id, number, whole=True)
        return ()

    def _revise(
        self, number: int, text: str, revise: Callable[[Subscription], Subscription], *, whole: bool = False
    ) -> Iterable[Fault]:
        """Revise a subscription by its id in text."""
        subscription_id = ids.decode("sub", text)
        current = self._subscriptions.get(subscription_id) if subscription_id else None
        if current is None:
            detail = "Name a live subscription of this vertical that has not ended."
            where = f"/changes/{number}/subscription_id"
            return (_fault(where, SimulationFault.subscription_unknown, detail),)
        revised = self._subscriptions[current.id] = revise(current)
        if revised.definition != current.definition:
            self._note(current.id, number, whole=whole)
        return ()

    def _note(self, subscription_id: UUID, number: int, *, whole: bool) -> None:
        """Note that a change is about the definition of a subscription."""
        self._changed[subscription_id] = number
        if whole:
            self._whole.add(number)


def _faults(definition: SubscriptionDefinition, vertical: Vertical) -> tuple[Fault, ...]:
    return subscription_faults(definition, vertical, definition.currency, endpoint_found=True)


def _define(subscription: Subscription, **fields: object) -> Subscription:
    definition = msgspec.structs.replace(subscription.definition, **fields)
    return msgspec.structs.replace(subscription, definition=definition)


def _pause(subscription: Subscription, *, paused: bool) -> Subscription:
    suspended = subscription.suspended if paused else None
    return msgspec.structs.replace(subscription, paused=paused, suspended=suspended)


def _repeated(changes: Sequence[WhatIf]) -> Iterator[Fault]:
    """Yield a fault for each change of a thing that an earlier one changes."""
    first: dict[tuple[str, str], int] = {}
    for number, change in enumerate(changes):
        things = _things(change)
        earlier = [first[thing] for thing in things if thing in first]
        if earlier:
            detail = f"Change {min(earlier)} is about the same thing; send one change with what both should say."
            yield _fault(f"/changes/{number}", SimulationFault.changed_twice, detail)
        for thing in things:
            first.setdefault(thing, number)


def _things(change: WhatIf) -> tuple[tuple[str, str], ...]:
    """Return what a change is about: kinds with ids."""
    match change:
        case WhatIfPolicy(definition=definition):
            return (("policy", ""), ("strategy", "")) if definition else (("policy", ""),)
        case WhatIfStrategy():
            return (("strategy", ""),)
        case WhatIfScorecard():
            return (("card", ""),)
        case WhatIfPayout(provider_id=key):
            return (("payout", key),)
        case WhatIfSubscription(subscription_id=key):
            return tuple((kind, key) for kind in ("price", "cap", "area", "rules")) if key else ()
        case WhatIfPrice(subscription_id=key):
            return (("price", key),)
        case WhatIfCap(subscription_id=key):
            return (("cap", key),)
        case WhatIfArea(subscription_id=key):
            return (("area", key),)
        case WhatIfPause(subscription_id=key):
            return (("pause", key),)
        case _:
            assert_never(change)


def _fault(where: str, code: str, detail: str) -> Fault:
    return Fault(pointer=where, code=code, detail=detail)
