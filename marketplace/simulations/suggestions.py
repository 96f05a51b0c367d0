"""Small changes of a vertical that are worth trying, each with its rules, to be simulated beside the unchanged ones.

Each is one step away from the rules in force, so that its effect can be read by itself.
"""

from collections.abc import Iterator
from typing import Final
from uuid import UUID

import msgspec

from marketplace.simulations.simulator import SimulatedRules
from routing.qualification import Dimension, ResultConsequence
from routing.subscription import Area, Subscription
from routing.vertical import VerticalDefinition

SCORE_STEPS: Final = (-10, -5, 5, 10)
POINT_STEPS: Final = (-5, 5)
RESERVE_STEPS: Final = (10, 25)
"Percent by which the reserve price is raised; prices below it are raised to it."
WIDER_KM: Final = 25.0
"Kilometres by which circles are widened."
MOST_AREAS: Final = 5
"Subscriptions whose area is tried wider: each costs a simulation."


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """A change in words, and the rules with it."""

    change: str
    rules: SimulatedRules


def list_variants(rules: SimulatedRules, names: dict[UUID, str]) -> tuple[Variant, ...]:
    """Return the changes to try. `names` are those of the businesses."""
    definition = rules.vertical.definition
    drafts = (
        *_scores(definition),
        *_points(definition),
        *_consequences(definition),
    )
    policies = tuple(Variant(change=change, rules=_with(rules, draft)) for change, draft in drafts)
    return (*policies, *_reserves(rules), *_areas(rules, names))


def _with(rules: SimulatedRules, definition: VerticalDefinition) -> SimulatedRules:
    vertical = msgspec.structs.replace(rules.vertical, definition=definition)
    return msgspec.structs.replace(rules, vertical=vertical)


def _scores(definition: VerticalDefinition) -> Iterator[tuple[str, VerticalDefinition]]:
    for step in SCORE_STEPS:
        score = definition.minimum_score + step
        if 0 <= score <= 100:
            verb = "raising" if step > 0 else "lowering"
            yield f"{verb} the minimum score to {score}", msgspec.structs.replace(definition, minimum_score=score)


def _points(definition: VerticalDefinition) -> Iterator[tuple[str, VerticalDefinition]]:
    for dimension in Dimension:
        policy = getattr(definition, dimension)
        for step in POINT_STEPS:
            meets = policy.points.meets + step
            if 0 <= meets <= 100 and meets >= policy.points.unknown:
                points = msgspec.structs.replace(policy.points, meets=meets)
                changed = msgspec.structs.replace(policy, points=points)
                words = f"giving {meets} instead of {policy.points.meets} points for {dimension}"
                yield words, msgspec.structs.replace(definition, **{dimension: changed})


def _consequences(definition: VerticalDefinition) -> Iterator[tuple[str, VerticalDefinition]]:
    for dimension in Dimension:
        policy = getattr(definition, dimension)
        accepts = policy.unknown_consequence is ResultConsequence.accept
        consequence = ResultConsequence.reject if accepts else ResultConsequence.accept
        changed = msgspec.structs.replace(policy, on_unknown=consequence)
        verb = "rejecting" if accepts else "accepting"
        yield (
            f"{verb} leads whose {dimension} is not known",
            msgspec.structs.replace(definition, **{dimension: changed}),
        )


def _reserves(rules: SimulatedRules) -> Iterator[Variant]:
    """Yield higher reserve prices, to which the prices below them rise. Nobody is taken to leave because of it."""
    prices = [each.definition.price_minor for each in rules.subscriptions]
    for percent in RESERVE_STEPS if prices else ():
        reserve = max(rules.vertical.definition.reserve_minor, min(prices)) * (100 + percent) // 100
        subscriptions = tuple(_at_least(each, reserve) for each in rules.subscriptions)
        draft = msgspec.structs.replace(rules.vertical.definition, reserve_minor=reserve)
        changed = msgspec.structs.replace(_with(rules, draft), subscriptions=subscriptions)
        yield Variant(change=f"a lowest price {percent} % above the lowest of today", rules=changed)


def _at_least(subscription: Subscription, reserve_minor: int) -> Subscription:
    price = max(subscription.definition.price_minor, reserve_minor)
    definition = msgspec.structs.replace(subscription.definition, price_minor=price)
    return msgspec.structs.replace(subscription, definition=definition)


def _areas(rules: SimulatedRules, names: dict[UUID, str]) -> Iterator[Variant]:
    """Yield wider circles of the businesses with the most daily room."""
    with_circles = [each for each in rules.subscriptions if each.definition.area.circles and not each.paused]
    for subscription in sorted(with_circles, key=_room, reverse=True)[:MOST_AREAS]:
        wider = _wider(subscription.definition.area)
        definition = msgspec.structs.replace(subscription.definition, area=wider)
        changed = msgspec.structs.replace(subscription, definition=definition)
        subscriptions = tuple(changed if each.id == subscription.id else each for each in rules.subscriptions)
        name = names.get(subscription.business_id, "a business")
        words = f"an area {WIDER_KM:g} km wider for {name}"
        yield Variant(change=words, rules=msgspec.structs.replace(rules, subscriptions=subscriptions))


def _room(subscription: Subscription) -> float:
    """Return the leads that the subscription may have on a day; one without a cap has the most."""
    return min((cap.count for cap in subscription.definition.caps if cap.count is not None), default=float("inf"))


def _wider(area: Area) -> Area:
    circles = tuple(msgspec.structs.replace(circle, km=circle.km + WIDER_KM) for circle in area.circles)
    return msgspec.structs.replace(area, circles=circles)
