"""The simulator: a simulated history comes out as it was, and a change does what it says."""

from collections import Counter
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.pricing import SharePayout
from marketplace.demo.history.simulation import SimulatedHistory
from marketplace.rules.catalog import Vertical
from marketplace.simulations.accounts import StartingAccounts
from marketplace.simulations.comparison import Comparison, compare, lead_facts
from marketplace.simulations.simulator import (
    LeadEnd,
    RecordedLead,
    RevisionTime,
    SimulatedRules,
    Simulator,
    WalletMovement,
)
from routing.calendar import CapWindow
from routing.decision import vertical_cards
from routing.expectation import BusinessSales
from routing.inquiry import Budget, Timing
from routing.journey import CorrectionEntry, Supplied
from routing.lifecycle import AssignmentState, LeadState
from routing.matching import Usage
from routing.ranking import Strategy
from routing.shares import LEAD
from routing.subscription import Subscription
from routing.vertical import VerticalDefinition
from tests.builders.inquiries import ROOFING_NEEDS, roofing_facts, roofing_policy
from tests.builders.scorecards import a_compiled_card
from tests.builders.subscriptions import MONDAY_NOON, a_cap, a_definition, a_subscription
from tests.marketplace.demo.test_history import SINCE, UNTIL, fortnight

SINCE_NOON: Final = MONDAY_NOON
PROVIDER: Final = UUID(int=9)
RICH: Final = StartingAccounts(balances={UUID(int=1_000 + number): 10**9 for number in range(10)})


def a_vertical(**changes: Any) -> Vertical:
    policy = roofing_policy()
    standard = {
        "name": "Roofing", "currency": "USD", "needs": ROOFING_NEEDS, "budget": policy.budget,
        "authority": policy.authority, "need": policy.need, "timing": policy.timing,
        "minimum_score": policy.minimum_score, "patience_seconds": 1_800,
    }  # fmt: skip
    definition = VerticalDefinition(**{**standard, **changes}).under_current_rules()
    return Vertical(id=UUID(int=5), slug="roofing", version=3, definition=definition)


def the_rules(*subscriptions: Subscription, **changes: Any) -> SimulatedRules:
    payouts = {PROVIDER: SharePayout(basis_points=6_000)}
    return SimulatedRules(vertical=a_vertical(**changes), subscriptions=subscriptions, payouts=payouts)


def a_past_lead(number: int, minutes: float = 0, **changes: Any) -> RecordedLead:
    at = SINCE_NOON + timedelta(minutes=minutes)
    facts = roofing_facts(submitted_at=at, received_at=at, **changes.pop("facts", {}))
    return RecordedLead(id=UUID(int=number), provider_id=PROVIDER, facts=facts, received_at=at, **changes)


def simulated(
    rules: SimulatedRules,
    *leads: RecordedLead,
    accounts: StartingAccounts = RICH,
    movements: tuple[WalletMovement, ...] = (),
    days: float = 7,
) -> Simulator:
    simulator = Simulator(rules, accounts, movements, SINCE_NOON, SINCE_NOON + timedelta(days=days))
    simulator.add(leads)
    simulator.finish()
    return simulator


def buyers(simulator: Simulator) -> list[int | None]:
    """The number of the business that got each lead."""
    return [end.business_id.int - 1_000 if end.business_id else None for end in simulator.ends]


def test_a_cap_a_wallet_and_the_order_of_arrival_decide_as_they_do_live() -> None:
    first = a_subscription(1, a_definition(priority=1, caps=(a_cap("day", 2),)))
    second = a_subscription(2, a_definition(priority=2))
    leads = [a_past_lead(number, number) for number in range(1, 6)]
    accounts = StartingAccounts(balances={UUID(int=1_001): 10**6, UUID(int=1_002): 5_000})
    assert buyers(simulated(the_rules(first, second), *leads, accounts=accounts)) == [1, 1, 2, None, None]


def test_a_scorecard_ranks_by_what_may_be_expected_of_a_sale() -> None:
    """The business that pays more gives everything back."""
    dear, cheap = a_subscription(1, a_definition(price_minor=9_000)), a_subscription(2, a_definition(price_minor=5_000))
    sales = {
        dear.business_id: BusinessSales(leads=1_000, returned=1_000),
        cheap.business_id: BusinessSales(leads=1_000),
    }
    rules = the_rules(dear, cheap, strategy=Strategy.expected_value)
    cards = vertical_cards(a_compiled_card(), None, sales)
    with_card = msgspec.structs.replace(rules, vertical=msgspec.structs.replace(rules.vertical, cards=cards))
    assert [buyers(simulated(each, a_past_lead(1))) for each in (rules, with_card)] == [[1], [2]]


def test_a_paced_cap_lasts_over_the_day() -> None:
    """Sixty leads come within the hour after noon in Chicago; a little more than half of the day's cap is open then."""
    leads = [a_past_lead(number, number) for number in range(1, 60)]
    caps = (a_cap("day", 10),)
    at_once = simulated(the_rules(a_subscription(1, a_definition(caps=caps)), patience_seconds=0), *leads)
    paced = simulated(the_rules(a_subscription(1, a_definition(caps=caps, pace=True)), patience_seconds=0), *leads)
    assert [buyers(simulator).count(1) for simulator in (at_once, paced)] == [10, 7]


def test_money_comes_into_a_wallet_when_it_did_in_fact() -> None:
    accounts = StartingAccounts(balances={UUID(int=1_001): 5_000})
    payment = WalletMovement(business_id=UUID(int=1_001), amount_minor=5_000, made_at=SINCE_NOON + timedelta(minutes=3))
    leads = [a_past_lead(number, number) for number in range(1, 5)]
    simulator = simulated(the_rules(a_subscription()), *leads, accounts=accounts, movements=(payment,))
    assert buyers(simulator) == [1, None, 1, None]


def test_usage_before_the_start_counts() -> None:
    midnight = datetime(2026, 11, 23, 6, tzinfo=SINCE_NOON.tzinfo)
    accounts = msgspec.structs.replace(RICH, usage={(UUID(int=1), CapWindow.day, midnight): Usage(count=1)})
    rules = the_rules(a_subscription(1, a_definition(caps=(a_cap("day", 2),))))
    assert buyers(simulated(rules, a_past_lead(1), a_past_lead(2, 1), accounts=accounts)) == [1, None]


def test_a_waiting_lead_is_decided_again_when_a_cap_begins_anew() -> None:
    at = SINCE_NOON.replace(minute=45)
    leads = [a_past_lead(number, 45 + number) for number in (1, 2)]
    rules = the_rules(a_subscription(1, a_definition(caps=(a_cap("hour", 1),))))
    simulator = simulated(rules, *leads)
    assert at.hour == leads[1].received_at.hour
    assert buyers(simulator) == [1, 1]


def test_a_nurtured_lead_comes_again_on_its_date_or_still_waits_at_the_end() -> None:
    later = Timing(not_before=(SINCE_NOON + timedelta(days=120)).date())
    lead = a_past_lead(1, facts={"timing": later})
    assert simulated(the_rules(a_subscription()), lead).ends[0].end is LeadEnd.waiting
    assert buyers(simulated(the_rules(a_subscription()), lead, days=130)) == [1]


def test_a_business_that_could_not_be_reached_is_not_offered_the_lead() -> None:
    lead = a_past_lead(1, unreachable=(UUID(int=1_001),))
    rules = the_rules(a_subscription(1, a_definition(priority=1)), a_subscription(2, a_definition(priority=2)))
    assert buyers(simulated(rules, lead)) == [2]


def test_payouts_follow_the_terms_of_the_provider() -> None:
    simulator = simulated(the_rules(a_subscription()), a_past_lead(1))
    assert (simulator.ends[0].price_minor, simulator.ends[0].payout_minor) == (5_000, 3_000)


@settings(max_examples=30, deadline=None)
@given(
    strategy=st.sampled_from(Strategy),
    weights=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    caps=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    balances=st.lists(st.integers(0, 60_000), min_size=4, max_size=4),
)
def test_no_cap_and_no_wallet_is_ever_exceeded_and_what_is_due_adds_up(
    strategy: Strategy, weights: list[int], caps: list[int], balances: list[int]
) -> None:
    subscriptions = [
        a_subscription(number, a_definition(weight=weight, caps=(a_cap("day", caps[number]),)))
        for number, weight in enumerate(weights)
    ]
    accounts = StartingAccounts(balances={UUID(int=1_000 + number): balances[number] for number in range(4)})
    leads = [a_past_lead(number, number) for number in range(1, 21)]
    simulator = simulated(the_rules(*subscriptions, strategy=strategy), *leads, accounts=accounts)
    counts = Counter(buyers(simulator))
    for number in range(len(weights)):
        assert counts[number] <= min(caps[number], balances[number] // 5_000)
    sold = sum(end.end is LeadEnd.sold for end in simulator.ends)
    assert sum(simulator.entitled.values()) == sold * LEAD


# A whole simulated history.


@cache
def repeated(slug: str) -> Comparison:
    """The unchanged simulation of the demo's fortnight beside itself, with what happened in fact."""
    rules, past = fortnight().rules, fortnight().past
    vertical = rules.by_slug[slug]
    subscriptions = tuple(each for each in rules.index.values() if each.vertical == slug)
    payouts = {provider.id: provider.payout for provider in rules.providers.values()}
    unchanged = SimulatedRules(vertical=vertical, subscriptions=subscriptions, payouts=payouts)
    leads = past_leads(past, vertical.id)
    simulator = Simulator(unchanged, StartingAccounts(balances={}), past_movements(past), SINCE, UNTIL)
    simulator.add(leads)
    simulator.finish()
    return compare(lead_facts(leads, SINCE), simulator, simulator, simulator, SINCE, UNTIL)


def past_leads(past: SimulatedHistory, vertical_id: UUID) -> list[RecordedLead]:
    leads = []
    for walk in past.walks:
        if walk.vertical_id != vertical_id or walk.state is LeadState.duplicate:
            continue
        sales = [sale for sale in walk.sales if sale.state is not AssignmentState.released]
        released = tuple(sale.new.business_id for sale in walk.sales if sale.state is AssignmentState.released)
        leads.append(
            RecordedLead(
                id=walk.lead_id,
                provider_id=walk.provider_id,
                facts=walk.accepted.facts,
                received_at=walk.received_at,
                business_id=sales[-1].new.business_id if sales else None,
                unreachable=released,
            )
        )
    return leads


def past_movements(past: SimulatedHistory) -> list[WalletMovement]:
    """Payments, and the money of leads that were refused, lapsed or given back."""
    movements = [
        WalletMovement(business_id=each.business_id, amount_minor=each.amount_minor, made_at=each.made_at)
        for each in past.payments
    ]
    for walk in past.walks:
        for sale in walk.sales:
            given_back = sale.outcome.given_back
            at = given_back.granted_at if given_back else None
            if sale.delivery.state in (AssignmentState.refused, AssignmentState.lapsed):
                at = sale.delivery.settled_at
            if at is not None and at < UNTIL:
                movements.append(
                    WalletMovement(business_id=sale.new.business_id, amount_minor=sale.new.price_minor, made_at=at)
                )
    return sorted(movements, key=lambda movement: movement.made_at)


def test_the_unchanged_simulation_repeats_a_simulated_history() -> None:
    """All that differs is the fraction of a second between receipt and decision."""
    for slug in fortnight().rules.by_slug:
        result = repeated(slug).reproduction
        assert result.leads > 50
        assert result.same_business >= 0.99 * result.leads
        assert result.same_shares >= 0.99


def test_rules_that_are_not_changed_change_nothing() -> None:
    result = repeated(sorted(fortnight().rules.by_slug)[0])
    assert result.before == result.after
    assert (result.gained, result.lost, result.moved, result.sold_a_week.value) == (0, 0, 0, 0)


def corrected(number: int, minor: int, minutes: float) -> RecordedLead:
    """A lead whose budget was too low until it was corrected after some minutes, and decided about again."""
    at = SINCE_NOON + timedelta(minutes=minutes)
    supplies = Supplied(budget=Budget(minor=minor, currency="USD"))
    return a_past_lead(
        number,
        facts={"budget": Budget(minor=1, currency="USD")},
        journey=(CorrectionEntry(revision=1, at=at, supplies=supplies),),
        decided=(RevisionTime(revision=0, at=SINCE_NOON), RevisionTime(revision=1, at=at)),
    )


def test_a_lead_is_decided_about_again_with_the_facts_that_were_corrected() -> None:
    """The corrected lead finds the cap used up by one that was received before the correction."""
    rules = the_rules(a_subscription(1, a_definition(caps=(a_cap("day", 1),))), patience_seconds=0)
    ends = simulated(rules, corrected(1, 900_000, 20)).ends
    assert [end.end for end in ends] == [LeadEnd.sold]
    assert buyers(simulated(rules, corrected(1, 900_000, 20), a_past_lead(2, 10))) == [None, 1]
    assert buyers(simulated(rules, corrected(1, 900_000, 20), a_past_lead(2, 30))) == [1, None]
    assert simulated(rules, corrected(1, 2, 20)).ends[0].end is LeadEnd.rejected


def test_facts_that_were_revised_before_the_first_decision_count_from_the_receipt() -> None:
    lead = msgspec.structs.replace(corrected(1, 900_000, 1), decided=(RevisionTime(revision=1, at=SINCE_NOON),))
    assert buyers(simulated(the_rules(a_subscription()), lead)) == [1]


def test_a_lead_that_is_sold_is_not_decided_about_again() -> None:
    poor = Supplied(budget=Budget(minor=1, currency="USD"))
    at = SINCE_NOON + timedelta(minutes=5)
    journey = (CorrectionEntry(revision=1, at=at, supplies=poor),)
    decided = (RevisionTime(revision=0, at=SINCE_NOON), RevisionTime(revision=1, at=at))
    lead = a_past_lead(1, journey=journey, decided=decided)
    assert buyers(simulated(the_rules(a_subscription()), lead)) == [1]


def test_a_budget_below_the_minimum_is_rejected() -> None:
    lead = a_past_lead(1, facts={"budget": Budget(minor=1, currency="USD")})
    assert simulated(the_rules(a_subscription()), lead).ends[0].end is LeadEnd.rejected
