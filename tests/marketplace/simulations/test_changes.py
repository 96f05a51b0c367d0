"""Changes of a simulation: each kind does what it says, and what is wrong is said at its place."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from billing.pricing import FixedPayout
from marketplace.runtime import ids
from marketplace.simulations.changes import (
    LONGEST_DAYS,
    SimulatedTime,
    WhatIf,
    WhatIfArea,
    WhatIfCap,
    WhatIfPause,
    WhatIfPayout,
    WhatIfPolicy,
    WhatIfPrice,
    WhatIfScorecard,
    WhatIfStrategy,
    WhatIfSubscription,
    apply_changes,
    simulated_time,
)
from marketplace.simulations.simulator import SimulatedRules
from routing.decision import VerticalCards
from routing.quota import SuspensionReason
from routing.ranking import Strategy
from routing.subscription import Area, BusinessRules, OpenHours, Subscription
from tests.builders.scorecards import a_compiled_card
from tests.builders.subscriptions import MONDAY_NOON, a_cap, a_definition, a_subscription
from tests.marketplace.simulations.test_simulator import PROVIDER, the_rules

FIRST, SECOND = ids.encode("sub", UUID(int=1)), ids.encode("sub", UUID(int=2))
BUSINESS = ids.encode("biz", UUID(int=1_001))
RULES = the_rules(
    a_subscription(1, a_definition(weight=4, priority=7)),
    a_subscription(2, paused=True, suspended=SuspensionReason.refusals),
    reserve_minor=1_000,
)


def changed(*changes: WhatIf) -> SimulatedRules:
    rules = apply_changes(RULES, changes)
    assert isinstance(rules, SimulatedRules), rules
    return rules


def faults(*changes: WhatIf) -> list[tuple[str, str]]:
    result = apply_changes(RULES, changes)
    assert not isinstance(result, SimulatedRules)
    return [(fault.pointer, fault.code) for fault in result]


def first_of(rules: SimulatedRules) -> Subscription:
    return rules.subscriptions[0]


def stated(**fields: Any) -> BusinessRules:
    return msgspec.convert(
        msgspec.to_builtins(a_definition(**fields)), BusinessRules
    )  # without the operator's weight and priority


def test_each_kind_of_change_changes_its_own_thing_and_nothing_else() -> None:
    assert changed() == RULES
    assert changed(WhatIfPolicy(minimum_score=75)).vertical.definition.minimum_score == 75
    assert changed(WhatIfStrategy(strategy=Strategy.fair)).vertical.definition.strategy is Strategy.fair
    assert first_of(changed(WhatIfPrice(subscription_id=FIRST, price_minor=9_000))).definition.price_minor == 9_000
    caps = (a_cap("day", 3),)
    assert first_of(changed(WhatIfCap(subscription_id=FIRST, caps=caps))).definition.caps == caps
    area = Area(countries=("US",))
    assert first_of(changed(WhatIfArea(subscription_id=FIRST, area=area))).definition.area == area
    assert first_of(changed(WhatIfPause(subscription_id=FIRST))).paused
    payout = FixedPayout(minor=100)
    provider = ids.encode("prov", PROVIDER)
    assert changed(WhatIfPayout(provider_id=provider, payout=payout)).payouts == {PROVIDER: payout}


def test_the_card_in_shadow_or_none_ranks_instead_of_the_one_that_does() -> None:
    ranking, shadow = a_compiled_card(1), a_compiled_card(2)
    vertical = msgspec.structs.replace(RULES.vertical, cards=VerticalCards(ranking=ranking, shadow=shadow))
    rules = msgspec.structs.replace(RULES, vertical=vertical)
    for version, card in ((2, shadow), (1, ranking), (None, None)):
        result = apply_changes(rules, [WhatIfScorecard(version=version)])
        assert isinstance(result, SimulatedRules)
        assert result.vertical.cards == VerticalCards(ranking=card)
    refused = apply_changes(rules, [WhatIfScorecard(version=3)])
    assert not isinstance(refused, SimulatedRules)
    assert [(fault.pointer, fault.code) for fault in refused] == [("/changes/0/version", "scorecard_unknown")]


def test_a_resumed_subscription_gets_leads_again() -> None:
    second = changed(WhatIfPause(subscription_id=SECOND, paused=False)).subscriptions[1]
    assert (second.paused, second.suspended) == (False, None)


def test_other_rules_of_a_subscription_keep_what_the_operator_sets() -> None:
    change = WhatIfSubscription(subscription_id=FIRST, definition=stated(price_minor=8_000))
    definition = first_of(changed(change)).definition
    assert (definition.price_minor, definition.weight, definition.priority) == (8_000, 4, 7)


def test_one_more_subscription_has_the_terms_of_its_business() -> None:
    rules = changed(WhatIfSubscription(business_id=BUSINESS, definition=stated(price_minor=8_000)))
    assert len(rules.subscriptions) == 3
    added = rules.subscriptions[2]
    assert (added.business_id, added.definition.price_minor) == (UUID(int=1_001), 8_000)
    assert (added.definition.weight, added.definition.priority) == (4, 7)


def test_changes_of_different_things_of_one_subscription_go_together() -> None:
    rules = changed(
        WhatIfPrice(subscription_id=FIRST, price_minor=9_000),
        WhatIfCap(subscription_id=FIRST, caps=()),
        WhatIfPolicy(minimum_score=10),
        WhatIfStrategy(strategy=Strategy.highest_price),
    )
    assert (first_of(rules).definition.price_minor, rules.vertical.definition.minimum_score) == (9_000, 10)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            [WhatIfPrice(subscription_id="sub_x", price_minor=1)],
            [("/changes/0/subscription_id", "subscription_unknown")],
        ),
        (
            [WhatIfPause(subscription_id=ids.encode("sub", UUID(int=9)))],
            [("/changes/0/subscription_id", "subscription_unknown")],
        ),
        (
            [WhatIfPayout(provider_id="prov_x", payout=FixedPayout(minor=1))],
            [("/changes/0/provider_id", "provider_unknown")],
        ),
        ([WhatIfPolicy()], [("/changes/0", "not_exactly_one")]),
        (
            [WhatIfPolicy(minimum_score=1, definition=RULES.vertical.definition)],
            [("/changes/0", "not_exactly_one")],
        ),
        (
            [WhatIfPolicy(definition=msgspec.structs.replace(RULES.vertical.definition, currency="EUR"))],
            [("/changes/0/definition/currency", "currency_fixed")],
        ),
        (
            [WhatIfPolicy(definition=msgspec.structs.replace(RULES.vertical.definition, window_days=0))],
            [("/changes/0/definition/window_days", "out_of_range")],
        ),
        ([WhatIfPrice(subscription_id=FIRST, price_minor=999)], [("/changes/0/price_minor", "price_below_reserve")]),
        ([WhatIfCap(subscription_id=FIRST, caps=(a_cap("day"),))], [("/changes/0/caps/0", "rule_empty")]),
        ([WhatIfArea(subscription_id=FIRST, area=Area())], [("/changes/0/area", "area_empty")]),
        ([WhatIfSubscription(definition=stated())], [("/changes/0", "not_exactly_one")]),
        (
            [WhatIfSubscription(definition=stated(), business_id="biz_x")],
            [("/changes/0/business_id", "business_unknown")],
        ),
        (
            [
                WhatIfSubscription(
                    subscription_id=FIRST, definition=stated(hours=OpenHours(spec="Feb 30 08:00-10:00", zone="UTC"))
                )
            ],
            [("/changes/0/definition/hours/spec", "hours_invalid")],
        ),
        (
            [WhatIfSubscription(business_id=BUSINESS, definition=stated(currency="EUR"))],
            [("/changes/0/definition/currency", "currency_not_vertical")],
        ),
        (
            [
                WhatIfPrice(subscription_id=FIRST, price_minor=2_000),
                WhatIfPrice(subscription_id=SECOND, price_minor=2_000),
                WhatIfPrice(subscription_id=FIRST, price_minor=3_000),
            ],
            [("/changes/2", "changed_twice")],
        ),
        (
            [WhatIfSubscription(subscription_id=FIRST, definition=stated()), WhatIfCap(subscription_id=FIRST, caps=())],
            [("/changes/1", "changed_twice")],
        ),
        (
            [WhatIfPolicy(definition=RULES.vertical.definition), WhatIfStrategy(strategy=Strategy.fair)],
            [("/changes/1", "changed_twice")],
        ),
    ],
)
def test_what_is_wrong_is_said_at_its_place(changes: list[WhatIf], expected: list[tuple[str, str]]) -> None:
    assert faults(*changes) == expected


def test_a_fault_that_the_subscription_has_already_is_not_held_against_the_change() -> None:
    old = the_rules(a_subscription(1, a_definition(price_minor=500)), reserve_minor=1_000)
    result = apply_changes(old, [WhatIfCap(subscription_id=FIRST, caps=(a_cap("day", 3),))])
    assert isinstance(result, SimulatedRules)


def test_a_time_is_the_last_quarter_or_one_that_has_passed_and_is_not_too_long() -> None:
    now, day = MONDAY_NOON, timedelta(days=1)
    assert simulated_time(None, None, now) == SimulatedTime(now - timedelta(weeks=13), now)
    assert simulated_time(now - 2 * day, now - day, now) == SimulatedTime(now - 2 * day, now - day)
    for since, until, code in (
        (now, now, "range_empty"),
        (now, now - day, "range_empty"),
        (now - (LONGEST_DAYS + 1) * day, now, "range_too_long"),
        (None, now + day, "range_in_future"),
    ):
        result = simulated_time(since, until, now)
        assert isinstance(result, tuple)
        assert [fault.code for fault in result] == [code]
