"""Changes and results of simulations in sentences."""

from datetime import timedelta
from uuid import UUID

import pytest

from billing.intervals import Figure
from marketplace.runtime import ids
from marketplace.simulations.changes import WhatIfCap, WhatIfPause, WhatIfPolicy, WhatIfPrice, WhatIfStrategy
from marketplace.simulations.comparison import Comparison, compare, lead_facts
from marketplace.simulations.simulator import RecordedLead, SimulatedRules
from marketplace.simulations.wording import _interval, describe_changes, describe_result, describe_suggestion
from routing.ranking import Strategy
from tests.builders.subscriptions import a_cap, a_definition, a_subscription
from tests.marketplace.simulations.test_simulator import SINCE_NOON, a_past_lead, simulated, the_rules

FIRST = ids.encode("sub", UUID(int=1))


def test_changes_are_described_in_words() -> None:
    words = describe_changes(
        [
            WhatIfPolicy(minimum_score=60),
            WhatIfStrategy(strategy=Strategy.highest_price),
            WhatIfPrice(subscription_id=FIRST, price_minor=4_550),
            WhatIfCap(subscription_id=FIRST, caps=(a_cap("hour", 2), a_cap("total", None, 90_000))),
            WhatIfPause(subscription_id=FIRST),
        ],
        "USD",
    )
    assert words == (
        "a minimum score of 60, ranking by highest price, a price of USD 45.50, a cap of 2 leads an hour and a cap of "
        "USD 900 in total, a subscription paused"
    )


def compared(leads: list[RecordedLead], after: SimulatedRules, days: float = 7) -> Comparison:
    """The rules of one business without a cap, and others, on the same leads."""
    first = simulated(the_rules(a_subscription()), *leads, days=days)
    second = simulated(after, *leads, days=days)
    until = SINCE_NOON + timedelta(days=days)
    return compare(lead_facts(leads, SINCE_NOON), first, first, second, SINCE_NOON, until)


def test_a_result_says_sales_money_and_known_wins() -> None:
    business = UUID(int=1_001)
    leads = [a_past_lead(number, number, business_id=business, won=number > 2) for number in range(1, 5)]
    capped = the_rules(a_subscription(1, a_definition(caps=(a_cap("week", 3),))))
    assert describe_result("a cap of 3", compared(leads, capped), "USD") == (
        "With a cap of 3: 1 fewer sale a week, USD 50 less revenue a week, 25.0 % fewer leads find a business.",
        "Of 2 known wins, 1 would have been lost and 0 would have gone to another business.",
        "By the rules as they were at each time, a simulation gives 100 % of the leads to the same business as in "
        "fact, or to none as in fact, and the numbers of leads of the businesses agree by 100 %.",
    )


def test_figures_of_several_weeks_have_intervals_and_a_suggestion_says_who_gains() -> None:
    leads = [a_past_lead(number, number * 1_440, won=True, business_id=UUID(int=1_001)) for number in range(70)]
    dearer = the_rules(a_subscription(1, a_definition(price_minor=6_000)))
    result = compared(leads, dearer, days=70)
    assert (result.revenue_a_week.value, result.revenue_a_week.low, result.revenue_a_week.high) == (7_000,) * 3
    capped = the_rules(a_subscription(1, a_definition(caps=(a_cap("day", 1),), weight=1)), a_subscription(2))
    sentence = describe_suggestion("two businesses", compared(leads, capped, days=70), "USD", {UUID(int=1_002): "Two"})
    assert sentence.startswith("Two businesses: ")
    assert "; Two gains most, " in sentence
    few = compared(leads[:7], dearer, days=14)
    assert few.revenue_a_week.low is None


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-2.14, -0.3, " (95 %: 0.3 to 2.1 fewer)"),
        (-2.0, 0.0, " (95 %: 0 to 2 fewer)"),
        (0.2, 3.0, " (95 %: 0.2 to 3 more)"),
        (-0.4, 0.9, " (95 %: 0.4 fewer to 0.9 more)"),
        (0.0, 0.0, ""),
        (None, None, ""),
    ],
)
def test_an_interval_is_said_in_fewer_and_more(low: float | None, high: float | None, words: str) -> None:
    assert _interval(Figure(value=0.0, low=low, high=high)) == words


def test_a_suggestion_says_the_interval_of_its_sales_and_of_the_wins_that_it_loses() -> None:
    leads = [
        a_past_lead(number, number * 1_440, won=number % 7 == 0, business_id=UUID(int=1_001)) for number in range(70)
    ]
    strict = the_rules(a_subscription(1, a_definition(caps=(a_cap("week", 6),))))
    sentence = describe_suggestion("six a week", compared(leads, strict, days=70), "USD", {})
    assert sentence.startswith("Six a week: 1 fewer sale a week (95 %: ")
    assert "USD 50 less revenue a week" in sentence
