"""The decision about one lead: what each beginning leads to, with the numbers that complete it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from routing.decision import (
    NO_CARDS,
    NURTURE_ENDED,
    RACE_PAUSE,
    CandidateRecord,
    End,
    LeadChance,
    MatchedCandidates,
    OpenLead,
    Route,
    VerticalCards,
    Wait,
    award_credits,
    complete,
    decide,
    leave_open,
    nearest_recorded,
    rank_recorded,
    record_candidates,
    recorded_chances,
    restore_credits,
    vertical_cards,
)
from routing.expectation import BusinessSales
from routing.index import SubscriptionIndex
from routing.inquiry import Mode, Timing
from routing.lifecycle import LeadState
from routing.matching import Failure, Rule, Usage
from routing.qualification import ResultConsequence
from routing.ranking import Strategy
from routing.scorecard import CategoryFeature, ScoreBin, chance, feature_values
from routing.subscription import OpenHours, Subscription
from routing.vertical import VerticalDefinition
from tests.builders.inquiries import ROOFING_NEEDS, roofing_facts, roofing_policy
from tests.builders.scorecards import a_compiled_card
from tests.builders.subscriptions import MONDAY_NOON, a_cap, a_definition, a_standing, a_subscription

LEAD = UUID(int=77)


def the_vertical(**changes: Any) -> VerticalDefinition:
    policy = roofing_policy()
    standard = {
        "name": "Roofing", "currency": "USD", "needs": ROOFING_NEEDS, "budget": policy.budget,
        "authority": policy.authority, "need": policy.need, "timing": policy.timing,
        "minimum_score": policy.minimum_score, "patience_seconds": 1_800,
    }  # fmt: skip
    return VerticalDefinition(**{**standard, **changes}).under_current_rules()


def the_lead(state: LeadState = LeadState.received, facts: Any = None, **changes: Any) -> OpenLead:
    facts = facts or roofing_facts(submitted_at=MONDAY_NOON)
    return OpenLead(lead_id=LEAD, state=state, facts=facts, received_at=MONDAY_NOON, **changes)


def decided(
    lead: OpenLead, *subscriptions: Subscription, vertical: VerticalDefinition | None = None
) -> MatchedCandidates | Wait | End:
    return decide(lead, vertical or the_vertical(), 3, SubscriptionIndex(subscriptions), MONDAY_NOON)


def matched(*subscriptions: Subscription, **changes: Any) -> MatchedCandidates:
    result = decided(the_lead(**changes), *subscriptions)
    assert isinstance(result, MatchedCandidates)
    return result


def routed(*subscriptions: Subscription) -> Route:
    result = complete(matched(*subscriptions), {one.id: a_standing() for one in subscriptions})
    assert isinstance(result, Route)
    return result


def by_credits(*subscriptions: Subscription) -> MatchedCandidates:
    return msgspec.structs.replace(matched(*subscriptions), vertical=the_vertical(strategy=Strategy.fair))


LATE = timedelta(days=150)


def test_a_lead_that_is_not_good_enough_ends_rejected_with_its_verdict() -> None:
    result = decided(the_lead(facts=roofing_facts(budget=None, authority=None, timing=None, need_fields={})))
    assert isinstance(result, End)
    assert (result.state, result.outcome) == (LeadState.rejected, "rejected")
    assert result.verdict.policy_version == 3


def early() -> Any:
    return roofing_facts(submitted_at=MONDAY_NOON, timing=Timing(not_before=(MONDAY_NOON + LATE).date()))


def drawn_lead(number: int, **changes: Any) -> OpenLead:
    return msgspec.structs.replace(the_lead(**changes), lead_id=UUID(int=number))


def test_a_share_of_the_leads_drawn_by_their_ids_waits_and_is_then_decided_as_usual() -> None:
    vertical = the_vertical(delay_per_mille=50, delay_seconds=900)
    results = {number: decided(drawn_lead(number), a_subscription(), vertical=vertical) for number in range(4_000)}
    waiting = {number: result for number, result in results.items() if isinstance(result, Wait)}
    assert 0.04 < len(waiting) / len(results) < 0.06
    until = MONDAY_NOON + timedelta(seconds=900)
    assert {(wait.state, wait.reason, wait.until) for wait in waiting.values()} == {
        (LeadState.prospect, "delayed", until)
    }
    qualified = {"state": LeadState.prospect, "qualified_at": MONDAY_NOON}
    for number in waiting:
        lead = drawn_lead(number, **qualified)
        before, after = (
            decide(lead, vertical, 3, SubscriptionIndex([a_subscription()]), at)
            for at in (until - timedelta(seconds=1), until)
        )
        assert isinstance(before, Wait)
        assert isinstance(after, MatchedCandidates)


def test_no_test_lead_and_no_lead_of_another_vertical_is_held_back() -> None:
    facts = msgspec.structs.replace(the_lead().facts, mode=Mode.test)
    vertical = the_vertical(delay_per_mille=50)
    for number in range(400):
        test_lead = drawn_lead(number, facts=facts)
        assert isinstance(decided(test_lead, a_subscription(), vertical=vertical), MatchedCandidates)
        assert isinstance(decided(drawn_lead(number), a_subscription()), MatchedCandidates)


def test_a_lead_that_is_early_waits_for_its_date_and_its_person_stays_protected() -> None:
    result = decided(the_lead(facts=early()))
    assert isinstance(result, Wait)
    assert (result.state, result.outcome) == (LeadState.nurturing, "nurturing")
    assert result.protected_until == result.until + timedelta(days=the_vertical().window_days)
    again = decided(the_lead(LeadState.nurturing, facts=early()))
    assert isinstance(again, Wait)


def test_a_nurtured_lead_whose_date_moves_beyond_the_limit_expires() -> None:
    lead = the_lead(LeadState.nurturing, facts=early())
    long_ago = OpenLead(lead_id=LEAD, state=lead.state, facts=lead.facts, received_at=MONDAY_NOON - timedelta(days=400))
    result = decided(long_ago)
    assert isinstance(result, End)
    assert result.state is LeadState.expired


def test_a_prospect_is_not_qualified_again() -> None:
    facts = roofing_facts(budget=None, authority=None, timing=None, need_fields={})
    assert isinstance(decided(the_lead(LeadState.prospect, facts=facts)), MatchedCandidates)


@pytest.mark.parametrize(
    ("state", "end"),
    [
        (LeadState.received, LeadState.rejected),
        (LeadState.nurturing, LeadState.expired),
        (LeadState.prospect, LeadState.unsold),
    ],
)
def test_a_withdrawn_person_ends_the_lead_wherever_it_waits(state: LeadState, end: LeadState) -> None:
    result = decided(the_lead(state, withdrawn=True), a_subscription())
    assert isinstance(result, End)
    assert (result.state, result.reason) == (end, "withdrawn")


def test_only_subscriptions_that_no_rule_keeps_out_are_asked_for_caps_and_wallet() -> None:
    open_one, paused = a_subscription(1), a_subscription(2, paused=True)
    tried = a_subscription(3)
    result = matched(open_one, paused, tried, tried=frozenset({tried.business_id}))
    assert result.eligible == (open_one,)
    assert [bool(candidate.failures) for candidate in result.candidates] == [False, True, True]


def test_a_route_goes_to_those_with_room_and_money_in_the_order_of_the_strategy() -> None:
    first, second = a_subscription(1, a_definition(priority=2)), a_subscription(2, a_definition(priority=1))
    full = a_subscription(3, a_definition(caps=(a_cap("day", 3),)))
    poor = a_subscription(4)
    standings = {
        first.id: a_standing(), second.id: a_standing(), full.id: a_standing(day=Usage(count=3)),
        poor.id: a_standing(1),
    }  # fmt: skip
    result = complete(matched(first, second, full, poor), standings)
    assert isinstance(result, Route)
    assert [ranked.candidate.subscription_id for ranked in result.ranked] == [second.id, first.id]
    rules = {
        record.subscription_id: [failure.rule for failure in record.failures]
        for record in record_candidates(result, {}, second.id)
    }
    assert rules == {
        second.id: [], first.id: [Rule.outranked], full.id: [Rule.cap_reached], poor.id: [Rule.wallet_empty],
    }  # fmt: skip


def test_caps_and_wallet_count_for_near_misses_of_a_lead_that_nobody_may_have() -> None:
    """Whoever is closed and has no money is not waited for, and not the nearest by its hours alone."""
    opens = MONDAY_NOON + timedelta(minutes=5)
    spans = ((int(opens.timestamp()), int(opens.timestamp()) + 60),)
    poor, far = a_subscription(1, open_spans=spans), a_subscription(2, paused=True, open_spans=spans)
    prospect = matched(poor, far)
    assert prospect.to_read == (poor,)
    assert isinstance(complete(prospect, {poor.id: a_standing()}), Wait)
    result = complete(prospect, {poor.id: a_standing(1_000)})
    assert isinstance(result, End)
    assert [failure.rule for failure in result.candidates[0].failures] == [Rule.closed, Rule.wallet_empty]
    assert matched(poor, a_subscription(3)).to_read == (a_subscription(3),)


def test_who_soon_can_is_waited_for_within_the_patience_and_no_longer() -> None:
    opens = MONDAY_NOON + timedelta(minutes=20)
    closed = a_subscription(
        1,
        a_definition(hours=OpenHours(spec="24/7", zone="America/Chicago")),
        open_spans=((int(opens.timestamp()), int(opens.timestamp()) + 60),),
    )
    result = complete(matched(closed), {})
    assert isinstance(result, Wait)
    assert (result.state, result.outcome, result.reason) == (LeadState.prospect, "waiting", Rule.closed)
    assert result.until == opens
    assert result.protected_until is None
    late = complete(matched(closed, qualified_at=MONDAY_NOON - timedelta(minutes=11)), {})
    assert isinstance(late, End)
    assert (late.state, late.reason) == (LeadState.unsold, Rule.closed)


def test_where_nobody_subscribes_the_reason_says_so() -> None:
    result = complete(matched(), {})
    assert isinstance(result, End)
    assert (result.state, result.reason, result.candidates) == (LeadState.unsold, "no_subscription", ())


def test_lost_awards_are_tried_again_at_once_even_beyond_the_patience() -> None:
    one = a_subscription(1)
    route = routed(one)
    loss = Failure(rule=Rule.cap_race, detail="cap 1 of 1 a day")
    result = leave_open(route, {one.id: loss})
    assert isinstance(result, Wait)
    assert (result.reason, result.until) == (Rule.cap_race, MONDAY_NOON + RACE_PAUSE)
    assert [record.failures for record in result.candidates] == [(loss,)]


def test_a_recorded_decision_is_ranked_again_as_it_was() -> None:
    subscriptions = [a_subscription(number, a_definition(priority=number % 3)) for number in range(1, 8)]
    route = routed(*subscriptions)
    records = [record for record in record_candidates(route, {}, None) if record.position is not None]
    definitions = {one.id: one.definition for one in subscriptions}
    standings = {one.id: a_standing() for one in subscriptions}
    again = rank_recorded(Strategy.priority, reversed(records), definitions, standings, LEAD)
    assert [ranked.candidate.subscription_id for ranked in again] == [record.subscription_id for record in records]


def test_a_decision_by_credits_is_ranked_again_with_the_credits_on_record() -> None:
    subscriptions = [a_subscription(number, a_definition(weight=number)) for number in range(1, 6)]
    credits = {one.id: number * 123_456_789 - 400_000_000 for number, one in enumerate(subscriptions)}
    standings = {one.id: msgspec.structs.replace(a_standing(), share_credit=credits[one.id]) for one in subscriptions}
    prospect = by_credits(*subscriptions)
    route = complete(prospect, standings)
    assert isinstance(route, Route)
    records = record_candidates(route, {}, None)
    later = {one.id: a_standing() for one in subscriptions}
    assert restore_credits(later, records) == standings
    assert complete(prospect, restore_credits(later, records)) == route


def test_an_award_changes_the_credits_of_those_who_could_have_had_the_lead() -> None:
    subscriptions = [a_subscription(number) for number in range(1, 5)]
    prospect = by_credits(*subscriptions)
    route = complete(prospect, {one.id: a_standing() for one in subscriptions})
    assert isinstance(route, Route)
    first, second = (ranked.candidate for ranked in route.ranked[:2])
    changes = award_credits(route, (), first.subscription_id)
    assert changes == {
        one.business_id: -750_000_000 if one.id == first.subscription_id else 250_000_000 for one in subscriptions
    }
    after_a_loss = award_credits(route, {first.subscription_id}, second.subscription_id)
    assert after_a_loss is not None
    assert first.business_id not in after_a_loss
    assert sum(after_a_loss.values()) == 0
    assert award_credits(routed(*subscriptions), (), first.subscription_id) is None


def test_the_nearest_recorded_miss_is_one_of_the_reason_given() -> None:
    def record(number: int, *rules: Rule) -> CandidateRecord:
        failures = tuple(Failure(rule=rule, detail=rule) for rule in rules)
        return CandidateRecord(
            subscription_id=UUID(int=number), business_id=UUID(int=9), version=1, price_minor=1, failures=failures
        )

    near, far, lost = record(1, Rule.closed), record(2, Rule.paused, Rule.closed), record(3, Rule.cap_race, Rule.closed)
    assert nearest_recorded((far, near, lost)) is near
    assert nearest_recorded((far, near, lost), Rule.cap_race) is lost
    assert nearest_recorded((record(4),)) is None


PROVIDER = UUID(int=900)


def routed_with(cards: VerticalCards, *subscriptions: Subscription, provider_id: UUID | None = PROVIDER) -> Route:
    vertical = the_vertical(strategy=Strategy.expected_value)
    lead = the_lead(provider_id=provider_id)
    result = decide(lead, vertical, 3, SubscriptionIndex(subscriptions), MONDAY_NOON, cards)
    assert isinstance(result, MatchedCandidates)
    route = complete(result, {one.id: a_standing() for one in subscriptions})
    assert isinstance(route, Route)
    return route


def test_the_record_has_the_chance_by_each_card_and_it_can_be_computed_again() -> None:
    ranking, shadow = a_compiled_card(4, sure=1.0), a_compiled_card(5, sure=3.0)
    cards = vertical_cards(ranking, shadow, {})
    first, second = a_subscription(1), a_subscription(2)
    route = routed_with(cards, first, second)
    values = feature_values(route.matched.lead.facts, provider=str(PROVIDER))
    expected = tuple(
        LeadChance(card=card.card.version, probability=round(chance(card, values).probability, 6))
        for card in (ranking, shadow)
    )
    records = record_candidates(route, {}, first.id)
    assert [record.chances for record in records] == [expected, expected]
    assert msgspec.json.decode(msgspec.json.encode(records), type=tuple[CandidateRecord, ...]) == records


def test_a_card_in_shadow_is_recorded_and_ranks_nobody() -> None:
    cheap, dear = a_subscription(1, a_definition(price_minor=4_000)), a_subscription(2, a_definition(price_minor=6_000))
    losses = {
        cheap.business_id: BusinessSales(leads=1_000),
        dear.business_id: BusinessSales(leads=1_000, returned=1_000),
    }
    shadowed = routed_with(vertical_cards(None, a_compiled_card(5), losses), cheap, dear)
    ranked = routed_with(vertical_cards(a_compiled_card(5), None, losses), cheap, dear)
    assert [place.candidate.subscription_id for place in shadowed.ranked] == [dear.id, cheap.id]
    assert [place.candidate.subscription_id for place in ranked.ranked] == [cheap.id, dear.id]
    assert shadowed.matched.chances == ranked.matched.chances


def test_without_cards_or_a_provider_no_chance_is_recorded() -> None:
    subscription = a_subscription(1)
    for route in (
        routed_with(NO_CARDS, subscription),
        routed_with(vertical_cards(a_compiled_card(1), None, {}), subscription, provider_id=None),
    ):
        [record] = record_candidates(route, {}, subscription.id)
        assert record.chances == ()
        assert b"chances" not in msgspec.json.encode(record)


def test_a_card_that_knows_businesses_gives_each_its_own_chance() -> None:
    first, second = a_subscription(1), a_subscription(2)
    business = CategoryFeature(
        name="business",
        title="Business",
        bins={str(first.business_id): ScoreBin(label="First", points=1.0)},
        other=ScoreBin(label="another answer", points=-1.0),
        unknown=ScoreBin(label="not known", points=0.0),
    )
    card = a_compiled_card(4, features=(business,))
    declared = {one.business_id: BusinessSales(declared_minor=10_000) for one in (first, second)}
    route = routed_with(vertical_cards(card, None, declared), first, second)
    records = {record.subscription_id: record for record in record_candidates(route, {}, first.id)}
    assert records[first.id].chances == (LeadChance(card=4, probability=0.731059),)
    assert records[second.id].chances == (LeadChance(card=4, probability=0.268941),)
    assert route.ranked[0].candidate.subscription_id == first.id
    assert [dict(place.scores)["expects_loss"] for place in route.ranked] == [0.0, 1.0]
    assert recorded_chances(records.values(), second.id) == records[second.id].chances
    assert recorded_chances(records.values()) == records[first.id].chances


def test_a_lead_that_has_waited_for_an_answer_as_long_as_it_may_expires() -> None:
    waits = msgspec.structs.replace(the_vertical().budget, on_unknown=ResultConsequence.nurture)
    vertical = the_vertical(budget=waits, nurture_days=30)
    lead = the_lead(facts=roofing_facts(submitted_at=MONDAY_NOON, budget=None))
    waiting = decided(lead, a_subscription(), vertical=vertical)
    assert isinstance(waiting, Wait)
    assert (waiting.state, waiting.until) == (LeadState.nurturing, MONDAY_NOON + timedelta(days=30))
    nurtured = msgspec.structs.replace(lead, state=LeadState.nurturing)
    ended = decide(nurtured, vertical, 3, SubscriptionIndex([a_subscription()]), waiting.until)
    assert isinstance(ended, End)
    assert (ended.state, ended.reason) == (LeadState.expired, NURTURE_ENDED)
    answered = msgspec.structs.replace(nurtured, facts=roofing_facts(submitted_at=MONDAY_NOON))
    assert isinstance(decided(answered, a_subscription(), vertical=vertical), MatchedCandidates)
