"""Who is eligible, who is not and by how much; what the index finds; which definitions can never match."""

import time
from datetime import UTC, date, datetime, timedelta
from math import acos, asin, atan2, cos, degrees, radians, sin
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.inquiry import Authority, Budget, Mode, NeedField, Place, Signals, Timing, Touch, TouchAmount
from routing.matching import (
    COMPLETE_UP_TO,
    Area,
    BantMinimum,
    Candidate,
    CapsAndWallet,
    Circle,
    FieldRule,
    OpenHours,
    Persona,
    Rule,
    Subscription,
    SubscriptionIndex,
    Usage,
    apply_lists,
    check_standing,
    consider,
    earliest_retry,
    kept_away,
    nearest_miss,
    validate,
)
from routing.qualification import Dimension, DimensionResult
from routing.subscription import MOST_FAULTS, PriceRange, _attribute_faults
from tests.builders.subscriptions import (
    MONDAY_NOON,
    a_candidate,
    a_cap,
    a_definition,
    a_lead,
    a_standing,
    a_subscription,
    a_verdict,
)

NEEDS = {
    "roof_type": NeedField(kind="choice", choices=("tile", "slate", "metal")),
    "storeys": NeedField(kind="integer", minimum=1, maximum=10),
    "owner": NeedField(kind="boolean"),
}


def the_candidate(subscription: Subscription, tried: frozenset[UUID] = frozenset(), **lead: Any) -> Candidate:
    considered = consider(SubscriptionIndex([subscription]), a_lead(**lead), a_verdict(), MONDAY_NOON, tried)
    (candidate,) = considered.candidates
    return candidate


# One rule at a time.

LAKE = Circle(latitude=41.9227, longitude=-87.6533, km=10)
MILWAUKEE = Circle(latitude=43.0389, longitude=-87.9065, km=100)
OTTAWA = Place(country="CA", postal_code="k1a0b1")
SECUNDERABAD = Place(country="IN", postal_code="33131")
SAN_JUAN = Place(country="PR", postal_code="00901")
NEAR_THE_LAKE_ABROAD = Place(country="CA", postal_code="N9A 1A1", latitude=41.9227, longitude=-87.6533)
LATER = MONDAY_NOON + timedelta(minutes=90)


def bought(minor: int) -> Touch:
    amount = TouchAmount(minor=minor, currency="USD")
    return Touch(kind="purchase", at=MONDAY_NOON, detail="", amount=amount)


CASES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], tuple[Rule, float | None] | None]] = [
    # subscription, definition, lead, the rule that fails and its distance
    ({}, {}, {}, None),
    ({"paused": True}, {}, {}, (Rule.paused, None)),
    ({"business_active": False}, {}, {}, (Rule.business_frozen, None)),
    ({"endpoint_active": False}, {}, {}, (Rule.endpoint_inactive, None)),
    ({"breaker_open_until": LATER}, {}, {}, (Rule.breaker_open, 90)),
    ({"breaker_open_until": MONDAY_NOON}, {}, {}, None),
    ({}, {"area": Area(countries=("US",))}, {}, None),
    ({}, {"area": Area(countries=("CA",))}, {}, (Rule.outside_area, None)),
    ({}, {"area": Area(countries=("CA",), postal_codes=("60614",))}, {}, (Rule.outside_area, None)),
    ({}, {"area": Area(countries=("CA", "US"), postal_codes=("60614",))}, {}, None),
    ({}, {"area": Area(countries=("US",), postal_codes=("60615",))}, {}, (Rule.outside_area, None)),
    ({}, {"area": Area(countries=("US",), circles=(MILWAUKEE,))}, {}, (Rule.outside_area, 25.841)),
    ({}, {"area": Area(countries=("CA",), circles=(LAKE,))}, {}, (Rule.outside_area, None)),
    ({}, {"area": Area(countries=("CA",), anywhere=True)}, {}, (Rule.outside_area, None)),
    ({}, {"area": Area(countries=("US",), anywhere=True)}, {}, None),
    ({}, {"area": Area(postal_codes=("60615",))}, {}, (Rule.outside_area, None)),
    ({}, {"area": Area(postal_codes=("60614-2210",))}, {}, None),
    ({}, {"area": Area(postal_codes=("60614 2210",), countries=("US", "CA"))}, {}, None),
    ({}, {"area": Area(postal_codes=("60615-2210",))}, {}, (Rule.outside_area, None)),
    ({"country": "CA"}, {"area": Area(postal_codes=("K1A 0B1",))}, {"place": OTTAWA}, None),
    ({}, {"area": Area(countries=("CA",), postal_codes=("K1A 0B1",))}, {"place": OTTAWA}, None),
    ({}, {"area": Area(postal_codes=("K1A 0B1",))}, {"place": OTTAWA}, (Rule.outside_area, None)),
    ({"country": "CA"}, {"area": Area(postal_codes=("60614",))}, {}, (Rule.outside_area, None)),
    ({}, {"area": Area(postal_codes=("33131",))}, {"place": SECUNDERABAD}, (Rule.outside_area, None)),
    ({}, {"area": Area(prefixes=("331",))}, {"place": SECUNDERABAD}, (Rule.outside_area, None)),
    ({}, {"area": Area(postal_codes=("00901",))}, {"place": SAN_JUAN}, None),
    ({}, {"area": Area(countries=("US",), postal_codes=("00901",))}, {"place": SAN_JUAN}, (Rule.outside_area, None)),
    ({}, {"area": Area(circles=(LAKE,))}, {"place": NEAR_THE_LAKE_ABROAD}, (Rule.outside_area, None)),
    ({}, {"area": Area(anywhere=True)}, {"place": SECUNDERABAD}, None),
    ({}, {"area": Area(prefixes=("606",))}, {}, None),
    ({}, {"area": Area(prefixes=("607",))}, {}, (Rule.outside_area, None)),
    ({}, {"area": Area(circles=(LAKE,))}, {}, None),
    ({}, {"area": Area(circles=(MILWAUKEE,))}, {}, (Rule.outside_area, 25.841)),
    ({}, {"area": Area(circles=(LAKE,))}, {"place": Place(country="US")}, (Rule.outside_area, None)),
    ({}, {"area": Area()}, {}, (Rule.outside_area, None)),
    ({}, {"attributes": (FieldRule(field="roof_type", any_of=("tile",)),)}, {}, (Rule.attribute, None)),
    ({}, {"attributes": (FieldRule(field="roof_type", none_of=("tile",)),)}, {}, None),
    (
        {},
        {"attributes": (FieldRule(field="storeys", maximum=3),)},
        {"need_fields": {"storeys": 5}},
        (Rule.attribute, 2),
    ),
    (
        {},
        {"attributes": (FieldRule(field="storeys", minimum=3),)},
        {"need_fields": {"storeys": "many"}},
        (Rule.attribute, None),
    ),
    ({}, {"attributes": (FieldRule(field="owner", any_of=(True,)),)}, {"need_fields": {"owner": True}}, None),
    (
        {},
        {"attributes": (FieldRule(field="owner", any_of=(True,)),)},
        {"need_fields": {"owner": 1}},
        (Rule.attribute, None),
    ),
    ({}, {"bant": BantMinimum(minimum_budget_minor=1_200_000)}, {}, None),
    ({}, {"bant": BantMinimum(minimum_budget_minor=1_400_000)}, {}, (Rule.budget_minimum, 200_000)),
    ({}, {"bant": BantMinimum(minimum_budget_minor=1)}, {"budget": None}, (Rule.budget_minimum, None)),
    (
        {},
        {"bant": BantMinimum(minimum_budget_minor=1)},
        {"budget": Budget(minor=9, currency="EUR")},
        (Rule.budget_minimum, None),
    ),
    (
        {},
        {"bant": BantMinimum(minimum_budget_minor=1_400_000)},
        {"budget": Budget(minor=1, maximum_minor=1_500_000, currency="USD")},
        None,
    ),
    ({}, {"bant": BantMinimum(timing_within_days=30)}, {"timing": Timing(within_days=30)}, None),
    ({}, {"bant": BantMinimum(timing_within_days=30)}, {"timing": Timing(within_days=45)}, (Rule.timing_minimum, 15)),
    ({}, {"bant": BantMinimum(timing_within_days=30)}, {}, (Rule.timing_minimum, None)),
    (
        {},
        {"bant": BantMinimum(timing_within_days=7)},
        {"timing": Timing(not_before=date(2026, 12, 1))},
        (Rule.timing_minimum, 1),
    ),
    (
        {},
        {"bant": BantMinimum(timing_within_days=0)},
        {"timing": Timing(within_days=10**9)},
        (Rule.timing_minimum, 36_500),
    ),
    ({}, {"bant": BantMinimum(minimum_score=90)}, {}, (Rule.score_minimum, 10)),
    ({}, {"bant": BantMinimum(minimum_score=81)}, {}, (Rule.score_minimum, 1)),
    ({}, {"bant": BantMinimum(minimum_score=80)}, {}, None),
    ({}, {"persona": Persona(authorities=(Authority.decision_maker,))}, {}, (Rule.authority, None)),
    (
        {},
        {"persona": Persona(authorities=(Authority.decision_maker,))},
        {"authority": Authority.decision_maker},
        None,
    ),
    ({}, {"persona": Persona(roles=("Owner",))}, {"role": "owner"}, None),
    ({}, {"persona": Persona(roles=("Owner",))}, {"role": "tenant"}, (Rule.role, None)),
    ({}, {"persona": Persona(minimum_company_size=50)}, {"company_size": 20}, (Rule.company_size, 30)),
    ({}, {"persona": Persona(maximum_company_size=50)}, {"company_size": 60}, (Rule.company_size, 10)),
    ({}, {"persona": Persona(maximum_company_size=50)}, {}, (Rule.company_size, None)),
    ({}, {"persona": Persona(minimum_price_minor=1_300_000)}, {}, (Rule.price_range, 100_000)),
    ({}, {"persona": Persona(maximum_price_minor=1_000_000)}, {}, (Rule.price_range, 200_000)),
    ({}, {"persona": Persona(minimum_price_minor=1_200_000, maximum_price_minor=1_200_000)}, {}, None),
    ({}, {"persona": Persona(maximum_price_minor=5_000)}, {"touches": (bought(5_000),)}, None),
    ({}, {"persona": Persona(maximum_price_minor=5_000)}, {"touches": (bought(5_007),)}, (Rule.price_range, 7)),
    ({}, {"persona": Persona(maximum_price_minor=5_000)}, {"budget": None}, (Rule.price_range, None)),
    ({}, {"persona": Persona(phone_types=("fixed_line",))}, {}, (Rule.phone_type, None)),
    ({}, {"persona": Persona(phone_types=("mobile",))}, {"signals": Signals(phone_type="fixed_or_mobile")}, None),
    (
        {},
        {"persona": Persona(phone_types=("mobile", "other"))},
        {"signals": Signals(phone_type="unknown")},
        (Rule.phone_type, None),
    ),
    ({}, {"persona": Persona(phone_types=("unknown",))}, {"signals": Signals(phone_type="unknown")}, None),
    ({}, {}, {"signals": Signals(phone_type="unknown")}, None),
    ({}, {"persona": Persona(excluded_sources=("Google",))}, {"source": "google"}, (Rule.source_excluded, None)),
    (
        {},
        {"persona": Persona(refuses_disposable_email=True)},
        {"signals": Signals(phone_type="mobile", email_disposable=True)},
        (Rule.disposable_email, None),
    ),
]


@pytest.mark.parametrize(("subscription", "definition", "lead", "expected"), CASES)
def test_each_rule_fails_for_its_own_reason_and_by_its_own_distance(
    subscription: dict[str, Any],
    definition: dict[str, Any],
    lead: dict[str, Any],
    expected: tuple[Rule, float | None] | None,
) -> None:
    candidate = the_candidate(a_subscription(1, a_definition(**definition), **subscription), **lead)
    found = [(failure.rule, failure.distance) for failure in candidate.failures]
    assert found == ([expected] if expected else [])


JOBS = PriceRange(currency="USD", minimum_minor=500_000, maximum_minor=2_000_000)
DEAR = Budget(minor=2_120_000, currency="USD")


@pytest.mark.parametrize(
    ("lead", "persona", "detail"),
    [
        ({}, Persona(), None),
        ({"budget": None}, Persona(), None),
        ({"budget": Budget(minor=1, currency="EUR")}, Persona(), None),
        ({"budget": DEAR}, Persona(), "price USD 1,200 above what jobs cost here"),
        ({"budget": Budget(minor=450_000, currency="USD")}, Persona(), "price USD 500 below what jobs cost here"),
        ({"budget": DEAR, "touches": (bought(600_000),)}, Persona(), None),
        ({"budget": Budget(minor=100_000, maximum_minor=600_000, currency="USD")}, Persona(), None),
        ({"budget": DEAR}, Persona(minimum_price_minor=2_100_000), "price USD 1,200 above what jobs cost here"),
        ({"budget": DEAR}, Persona(maximum_price_minor=1_000_000), "price USD 11,200 above the range"),
        ({"budget": None}, Persona(maximum_price_minor=1_000_000), "no price in USD told"),
    ],
)
def test_a_lead_at_other_prices_than_the_jobs_of_its_vertical_is_nobodys_by_the_greater_distance(
    lead: dict[str, Any], persona: Persona, detail: str | None
) -> None:
    index = SubscriptionIndex([a_subscription(1, a_definition(persona=persona))])
    considered = consider(index, a_lead(**lead), a_verdict(), MONDAY_NOON, prices=JOBS)
    details = [failure.detail for failure in considered.candidates[0].failures]
    assert details == ([] if detail is None else [detail])


def test_a_dimension_that_must_be_met_is_not_met_by_being_unknown() -> None:
    definition = a_definition(bant=BantMinimum(must_meet=(Dimension.authority, Dimension.need)))
    verdict = a_verdict(authority=DimensionResult.unknown)
    considered = consider(SubscriptionIndex([a_subscription(1, definition)]), a_lead(), verdict, MONDAY_NOON)
    assert [failure.detail for failure in considered.candidates[0].failures] == ["authority unknown"]


def test_a_time_that_qualification_no_longer_knows_is_within_nobodys_limit() -> None:
    definition = a_definition(bant=BantMinimum(timing_within_days=30))
    index, lead = SubscriptionIndex([a_subscription(1, definition)]), a_lead(timing=Timing(within_days=1))
    considered = consider(index, lead, a_verdict(timing=DimensionResult.unknown), MONDAY_NOON)
    assert [failure.detail for failure in considered.candidates[0].failures] == ["timing unknown"]


def test_a_providers_clock_that_is_ahead_does_not_make_a_lead_too_late_for_a_business() -> None:
    definition = a_definition(bant=BantMinimum(timing_within_days=30))
    ahead: dict[str, Any] = {"submitted_at": MONDAY_NOON + timedelta(seconds=1), "timing": Timing(within_days=30)}
    assert the_candidate(a_subscription(1, definition), **ahead).failures == ()


def test_a_business_that_was_tried_is_told_so() -> None:
    subscription = a_subscription()
    candidate = the_candidate(subscription, tried=frozenset({subscription.business_id}))
    assert [failure.rule for failure in candidate.failures] == [Rule.unreachable]


def test_all_failing_rules_are_told_in_order_of_precedence() -> None:
    definition = a_definition(
        area=Area(circles=(MILWAUKEE,)),
        bant=BantMinimum(minimum_budget_minor=2_000_000, minimum_score=100, must_meet=(Dimension.need,)),
        persona=Persona(roles=("owner",), phone_types=("voip",)),
        attributes=(FieldRule(field="roof_type", any_of=("tile",)),),
    )
    candidate = the_candidate(a_subscription(1, definition, paused=True, endpoint_active=False, open_spans=()))
    rules = [failure.rule for failure in candidate.failures]
    assert len(rules) == 9
    assert rules == sorted(rules, key=list(Rule).index)


def test_reasons_are_told_in_plain_words() -> None:
    definition = a_definition(area=Area(circles=(MILWAUKEE,)), bant=BantMinimum(minimum_budget_minor=1_400_000))
    candidate = the_candidate(a_subscription(1, definition))
    assert [failure.detail for failure in candidate.failures] == ["25.8 km outside", "budget USD 2,000 below"]


# Open hours.

NOON = int(MONDAY_NOON.timestamp())


@pytest.mark.parametrize(
    ("spans", "minutes"),
    [
        (None, None),
        (((NOON - 60, NOON + 60),), None),
        (((NOON, NOON + 60),), None),
        (((NOON - 60, NOON), (NOON + 3600, NOON + 7200)), 60),
        (((NOON - 7200, NOON - 3600), (NOON + 30, NOON + 60)), 1),
    ],
)
def test_a_closed_business_says_how_long_until_it_opens(
    spans: tuple[tuple[int, int], ...] | None, minutes: int | None
) -> None:
    candidate = the_candidate(a_subscription(open_spans=spans))
    assert [failure.distance for failure in candidate.failures] == ([] if minutes is None else [minutes])


def test_an_opening_is_named_on_the_business_own_clock() -> None:
    definition = a_definition(hours=OpenHours(spec="Mo-Fr 08:00-18:00", zone="America/New_York"))
    opening = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
    spans = ((int(opening.timestamp()), int(opening.timestamp()) + 36_000),)
    (failure,) = the_candidate(a_subscription(1, definition, open_spans=spans)).failures
    assert (failure.detail, failure.until) == ("closed until Tue 24 Nov 08:00", opening)


def test_a_business_without_any_coming_opening_is_closed_without_a_date() -> None:
    (failure,) = the_candidate(a_subscription(open_spans=())).failures
    assert (failure.rule, failure.until) == (Rule.closed, None)


# Standing.

TUESDAY = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("caps", "standing", "expected"),
    [
        ((), a_standing(5_000), []),
        ((), a_standing(4_900), [(Rule.wallet_empty, "wallet USD 1 short of the price", 100, None)]),
        ((a_cap("day", 40),), a_standing(day=Usage(count=39)), []),
        (
            (a_cap("day", 40),),
            a_standing(day=Usage(count=40)),
            [(Rule.cap_reached, "cap 40 of 40 a day until Tue 24 Nov 00:00", 1, TUESDAY)],
        ),
        ((a_cap("day", amount_minor=100_000),), a_standing(day=Usage(amount_minor=95_000)), []),
        (
            (a_cap("day", amount_minor=100_000),),
            a_standing(day=Usage(amount_minor=95_001)),
            [(Rule.cap_reached, "cap USD 950.01 of USD 1,000 a day until Tue 24 Nov 00:00", 1, TUESDAY)],
        ),
        (
            (a_cap("total", 1), a_cap("hour", 2)),
            a_standing(0, total=Usage(count=1), hour=Usage(count=2)),
            [
                (Rule.cap_reached, "cap 1 of 1 in total", 1, None),
                (
                    Rule.cap_reached,
                    "cap 2 of 2 an hour until Mon 23 Nov 13:00",
                    1,
                    MONDAY_NOON + timedelta(hours=1),
                ),
                (Rule.wallet_empty, "wallet USD 50 short of the price", 5_000, None),
            ],
        ),
    ],
)
def test_caps_and_wallet_are_told_by_how_much(caps: Any, standing: CapsAndWallet, expected: list[Any]) -> None:
    subscription = a_subscription(1, a_definition(caps=caps))
    candidate = check_standing(subscription, a_candidate(), standing, MONDAY_NOON)
    found = [(failure.rule, failure.detail, failure.distance, failure.until) for failure in candidate.failures]
    assert found == expected


def test_credit_covers_what_the_wallet_does_not() -> None:
    standing = msgspec.structs.replace(a_standing(1_000), credit_limit_minor=4_000)
    assert check_standing(a_subscription(), a_candidate(), standing, MONDAY_NOON).failures == ()


def test_a_rehearsal_uses_neither_wallet_nor_caps() -> None:
    subscription = a_subscription(1, a_definition(caps=(a_cap("day", 1),)), mode=Mode.test)
    standing = a_standing(0, day=Usage(count=9))
    assert check_standing(subscription, a_candidate(), standing, MONDAY_NOON) == a_candidate()


# Near misses and retries.


def test_the_nearest_miss_fails_fewest_rules_and_then_by_least() -> None:
    far, near = Circle(latitude=45.0, longitude=-93.0, km=10), MILWAUKEE
    members = [
        a_subscription(1, a_definition(area=Area(circles=(near,))), paused=True),
        a_subscription(2, a_definition(area=Area(circles=(far,)))),
        a_subscription(3, a_definition(area=Area(circles=(near,)))),
    ]
    candidates = consider(SubscriptionIndex(members), a_lead(), a_verdict(), MONDAY_NOON).candidates
    nearest = nearest_miss(candidates)
    assert nearest is not None
    assert nearest.subscription_id == UUID(int=3)


def test_an_eligible_candidate_is_no_miss() -> None:
    assert nearest_miss([a_candidate()]) is None


def test_a_retry_waits_for_the_last_rule_of_the_first_candidate_that_only_waits() -> None:
    def waiting(number: int, *hours: int | None) -> Candidate:
        subscription = a_subscription(number)
        failures = tuple(
            msgspec.structs.replace(failure, until=hour and MONDAY_NOON + timedelta(hours=hour))
            for hour in hours
            for failure in the_candidate(msgspec.structs.replace(subscription, paused=True)).failures
        )
        return a_candidate(number, failures=failures)

    def retry(*candidates: Candidate) -> datetime | None:
        return earliest_retry(candidates, MONDAY_NOON, MONDAY_NOON + timedelta(hours=10))

    assert retry(waiting(1, 1, 5), waiting(2, 4, 3)) == MONDAY_NOON + timedelta(hours=4)
    assert retry(waiting(1, 1, None)) is None
    assert retry(waiting(1, 11)) is None
    assert retry(a_candidate()) is None
    assert retry() is None


# The index.

PLACES = st.builds(
    Place,
    country=st.sampled_from(["US", "CA", "PR"]),
    postal_code=st.none() | st.text("012", min_size=5, max_size=5),
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
) | st.builds(Place, country=st.just("US"), postal_code=st.text("012", min_size=5, max_size=5))
CIRCLES = st.builds(Circle, latitude=st.floats(-90, 90), longitude=st.floats(-180, 180), km=st.floats(0.1, 1_000))
AREAS = st.builds(
    Area,
    anywhere=st.sampled_from([False, False, False, True]),
    countries=st.sampled_from([(), (), ("US",), ("CA", "US")]),
    postal_codes=st.lists(st.text("012", min_size=5, max_size=5), max_size=4).map(tuple),
    prefixes=st.lists(st.text("012", min_size=1, max_size=5), max_size=2).map(tuple),
    circles=st.lists(CIRCLES, max_size=3).map(tuple),
)


def angle_km(circle: Circle, place: Place) -> float:
    """The spherical law of cosines: another formula than the index uses, as exact far away and less so close by."""
    assert place.latitude is not None
    assert place.longitude is not None
    here, there = radians(place.latitude), radians(circle.latitude)
    cosine = sin(here) * sin(there) + cos(here) * cos(there) * cos(radians(place.longitude - circle.longitude))
    return 6371.0088 * acos(max(-1.0, min(1.0, cosine)))


def plainly_holds(area: Area, country: str, place: Place) -> bool:
    """Say without an index whether a lead at `place` lies in the area of a subscription to a vertical of `country`."""
    code = place.postal_code
    if area.countries and place.country not in area.countries:
        return False
    if area.anywhere or (area.countries and not (area.postal_codes or area.prefixes or area.circles)):
        return True
    shared = {"US", "PR"}  # one set of postal codes
    if not area.countries and place.country != country and not {place.country, country} <= shared:
        return False
    return (
        code is not None and (code in area.postal_codes or any(code.startswith(prefix) for prefix in area.prefixes))
    ) or (place.latitude is not None and any(angle_km(circle, place) <= circle.km for circle in area.circles))


def on_an_edge(area: Area, place: Place) -> bool:
    return place.latitude is not None and any(abs(angle_km(c, place) - c.km) < 0.1 for c in area.circles)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(AREAS, max_size=12), st.sampled_from(["US", "CA"]), PLACES)
def test_the_index_finds_exactly_what_reading_every_area_finds(areas: list[Area], country: str, place: Place) -> None:
    members = [a_subscription(number, a_definition(area=area), country=country) for number, area in enumerate(areas)]
    others = [
        msgspec.structs.replace(member, id=UUID(int=100 + member.id.int), vertical="tutoring") for member in members
    ]
    found = SubscriptionIndex([*members, *others]).candidates(a_lead(place=place))
    expected = [member for member in members if plainly_holds(member.definition.area, country, place)]
    undecided = {member.id for member in members if on_an_edge(member.definition.area, place)}
    assert [s.id for s in found if s.id not in undecided] == [s.id for s in expected if s.id not in undecided]
    candidates = consider(SubscriptionIndex(members), a_lead(place=place), a_verdict(), MONDAY_NOON).candidates
    fitting = [c.subscription_id for c in candidates if not c.failures]
    assert fitting == [s.id for s in found]
    distances = [failure.distance for c in candidates for failure in c.failures if failure.distance is not None]
    assert all(distance >= 0 for distance in distances)


@settings(max_examples=200, deadline=None)
@given(CIRCLES, st.floats(0, 0.999), st.floats(0, 360))
def test_every_point_inside_a_circle_is_found_at_poles_and_antimeridian_too(
    circle: Circle, part: float, bearing: float
) -> None:
    place = travelled(circle, circle.km * part, bearing)
    subscription = a_subscription(1, a_definition(area=Area(circles=(circle,))))
    assert SubscriptionIndex([subscription]).candidates(a_lead(place=place)) == (subscription,)


def travelled(circle: Circle, km: float, bearing: float) -> Place:
    angle, course = km / 6371.0088, radians(bearing)
    start = radians(circle.latitude)
    end = asin(max(-1.0, min(1.0, sin(start) * cos(angle) + cos(start) * sin(angle) * cos(course))))
    turn = atan2(sin(course) * sin(angle) * cos(start), cos(angle) - sin(start) * sin(end))
    longitude = (circle.longitude + degrees(turn) + 540) % 360 - 180
    return Place(country="US", latitude=degrees(end), longitude=longitude)


@given(st.permutations(range(8)))
def test_the_order_in_which_subscriptions_come_does_not_matter(order: list[int]) -> None:
    members = [a_subscription(number) for number in order]
    considered = consider(SubscriptionIndex(members), a_lead(), a_verdict(), MONDAY_NOON)
    assert [candidate.subscription_id.int for candidate in considered.candidates] == list(range(8))


def test_live_leads_and_rehearsals_never_meet() -> None:
    index = SubscriptionIndex([a_subscription(1), a_subscription(2, mode=Mode.test)])
    assert [s.id.int for s in index.candidates(a_lead())] == [1]
    assert [s.id.int for s in index.candidates(a_lead(mode=Mode.test))] == [2]
    assert len(index) == 2


def test_a_vertical_without_subscriptions_has_no_candidates() -> None:
    considered = consider(SubscriptionIndex([]), a_lead(), a_verdict(), MONDAY_NOON)
    assert (considered.candidates, considered.left_out) == ((), 0)


def test_a_large_vertical_shows_those_inside_and_the_nearest_outside() -> None:
    inside = [a_subscription(number, a_definition(area=Area(prefixes=("606",)))) for number in range(1, 51)]
    around = [
        a_subscription(
            100 + step,
            a_definition(area=Area(circles=(Circle(latitude=41.9227 + step / 100, longitude=-87.6533, km=0.5),))),
        )
        for step in range(1, 201)
    ]
    elsewhere = [a_subscription(1_000 + n, a_definition(area=Area(postal_codes=(f"9{n:04}",)))) for n in range(100)]
    considered = consider(SubscriptionIndex([*inside, *around, *elsewhere]), a_lead(), a_verdict(), MONDAY_NOON)
    ids = [candidate.subscription_id.int for candidate in considered.candidates]
    assert ids == [*range(1, 51), *range(101, 251)]
    assert len(ids) == COMPLETE_UP_TO
    assert considered.left_out == 350 - COMPLETE_UP_TO


def test_where_no_position_is_known_the_codes_most_alike_are_nearest() -> None:
    members = [a_subscription(n, a_definition(area=Area(postal_codes=(f"{n:05}",)))) for n in range(60_000, 61_000)]
    place = Place(country="US", postal_code="60614")
    ids = [
        c.subscription_id.int
        for c in consider(SubscriptionIndex(members), a_lead(place=place), a_verdict(), MONDAY_NOON).candidates
    ]
    assert len(ids) == COMPLETE_UP_TO
    assert max(abs(number - 60_614) for number in ids) <= COMPLETE_UP_TO // 2


# Definitions that are refused.

REFUSED: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"area": Area()}, [("/area", "area_empty")]),
    ({"area": Area(countries=("usa",))}, [("/area/countries/0", "malformed")]),
    ({"area": Area(postal_codes=("60614", "6061?"))}, [("/area/postal_codes/1", "malformed")]),
    ({"area": Area(prefixes=("606141",))}, [("/area/prefixes/0", "malformed")]),
    ({"area": Area(prefixes=("",))}, [("/area/prefixes/0", "malformed")]),
    (
        {"area": Area(circles=(Circle(latitude=91, longitude=float("nan"), km=0),))},
        [(f"/area/circles/0/{name}", "out_of_range") for name in ("latitude", "longitude", "km")],
    ),
    ({"area": Area(circles=(LAKE,) * 51)}, [("/area/circles", "too_many")]),
    ({"attributes": (FieldRule(field="colour", any_of=("red",)),)}, [("/attributes/0/field", "unknown_need_field")]),
    ({"attributes": (FieldRule(field="roof_type"),)}, [("/attributes/0", "rule_empty")]),
    (
        {"attributes": (FieldRule(field="roof_type", any_of=("thatch",)),)},
        [("/attributes/0/any_of/0", "unknown_choice")],
    ),
    ({"attributes": (FieldRule(field="owner", none_of=(1,)),)}, [("/attributes/0/none_of/0", "wrong_type")]),
    ({"attributes": (FieldRule(field="owner", minimum=1),)}, [("/attributes/0", "wrong_type")]),
    ({"attributes": (FieldRule(field="storeys", minimum=4, maximum=3),)}, [("/attributes", "never_matches")]),
    ({"attributes": (FieldRule(field="storeys", minimum=11),)}, [("/attributes", "never_matches")]),
    ({"attributes": (FieldRule(field="storeys", any_of=(2,), minimum=3),)}, [("/attributes", "never_matches")]),
    (
        {"attributes": (FieldRule(field="storeys", minimum=9), FieldRule(field="storeys", none_of=(9, 10)))},
        [("/attributes", "never_matches")],
    ),
    (
        {"attributes": (FieldRule(field="owner", any_of=(True,)), FieldRule(field="owner", none_of=(True,)))},
        [("/attributes", "never_matches")],
    ),
    (
        {"attributes": (FieldRule(field="roof_type", none_of=("tile", "slate", "metal")),)},
        [("/attributes", "never_matches")],
    ),
    (
        {"bant": BantMinimum(minimum_score=101, minimum_budget_minor=0, timing_within_days=-1)},
        [(f"/bant/{name}", "out_of_range") for name in ("minimum_score", "minimum_budget_minor", "timing_within_days")],
    ),
    ({"persona": Persona(minimum_company_size=9, maximum_company_size=8)}, [("/persona", "never_matches")]),
    ({"persona": Persona(minimum_price_minor=9, maximum_price_minor=8)}, [("/persona", "never_matches")]),
    ({"persona": Persona(minimum_price_minor=0)}, [("/persona/minimum_price_minor", "out_of_range")]),
    ({"persona": Persona(phone_types=("landline",))}, [("/persona/phone_types/0", "unknown_phone_type")]),
    ({"caps": (a_cap("day"),)}, [("/caps/0", "rule_empty")]),
    ({"caps": (a_cap("day", 0, -5),)}, [("/caps/0/count", "out_of_range"), ("/caps/0/amount_minor", "out_of_range")]),
    ({"caps": (a_cap("day", 5), a_cap("day", 6))}, [("/caps/1", "duplicate")]),
    ({"caps": (a_cap("day", amount_minor=4_999),)}, [("/caps/0/amount_minor", "never_matches")]),
    ({"price_minor": 0}, [("/price_minor", "out_of_range")]),
    ({"price_minor": 10**9 + 1}, [("/price_minor", "out_of_range")]),
    ({"weight": 0, "priority": -1}, [("/priority", "out_of_range"), ("/weight", "out_of_range")]),
    ({"currency": "usd"}, [("/currency", "malformed")]),
    ({"zone": "Chicago"}, [("/zone", "unknown_zone")]),
    ({"zone": "../etc/passwd"}, [("/zone", "unknown_zone")]),
    ({"zone": "localtime"}, [("/zone", "unknown_zone")]),
    ({"zone": "America"}, [("/zone", "unknown_zone")]),
    ({"hours": OpenHours(spec="24/7", zone="")}, [("/hours/zone", "unknown_zone")]),
]


@pytest.mark.parametrize(("overrides", "expected"), REFUSED)
def test_a_definition_that_cannot_work_is_refused_with_place_and_reason(
    overrides: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    faults = validate(a_definition(**overrides), NEEDS)
    assert [(fault.pointer, str(fault.code)) for fault in faults] == expected
    assert all(fault.detail.endswith(".") for fault in faults)


def test_faults_of_a_definition_are_looked_for_up_to_a_bound() -> None:
    """Wherever they are: in codes, and in the values of one rule or of many."""
    many = tuple(range(50_000))
    rules = (FieldRule(field="roof_type", any_of=many, none_of=many),)
    for overrides in ({"area": Area(postal_codes=("!",) * 40_000)}, {"attributes": rules}, {"attributes": 200 * rules}):
        assert len(validate(a_definition(**overrides), NEEDS)) == MOST_FAULTS


def test_the_faults_of_one_rule_are_not_made_beyond_the_bound() -> None:
    need = NEEDS["roof_type"]
    values = tuple(range(1_000_000))
    began = time.process_time()
    assert len(tuple(_attribute_faults((FieldRule(field="roof_type", any_of=values),), {"roof_type": need}))) < 102
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"area": Area(postal_codes=("SW1A 1AA", "60614-1234"), prefixes=("k1a",), circles=(LAKE,), countries=("GB",))},
        {"attributes": (FieldRule(field="storeys", minimum=9), FieldRule(field="storeys", none_of=(9,)))},
        {"attributes": (FieldRule(field="roof_type", any_of=("tile", "slate"), none_of=("tile",)),)},
        {"caps": (a_cap("day", 5, 5_000), a_cap("total", 100)), "hours": OpenHours(spec="24/7", zone="UTC")},
    ],
)
def test_a_definition_that_can_work_is_accepted(overrides: dict[str, Any]) -> None:
    assert validate(a_definition(**overrides), NEEDS) == ()


INTEGER_RULES = st.lists(
    st.builds(
        FieldRule,
        field=st.just("storeys"),
        any_of=st.lists(st.integers(-3, 12), max_size=3).map(tuple),
        none_of=st.lists(st.integers(-3, 12), max_size=3).map(tuple),
        minimum=st.none() | st.integers(-3, 12),
        maximum=st.none() | st.integers(-3, 12),
    ),
    min_size=1,
    max_size=3,
)


@given(INTEGER_RULES)
def test_rules_are_called_contradictory_exactly_when_no_answer_passes(rules: list[FieldRule]) -> None:
    definition = a_definition(attributes=tuple(rules))
    faults = {str(fault.code) for fault in validate(definition, NEEDS)} - {"rule_empty"}
    sound = tuple(rule for rule in rules if rule != FieldRule(field="storeys"))
    subscription = a_subscription(1, a_definition(attributes=sound))
    passing = any(not the_candidate(subscription, need_fields={"storeys": answer}).failures for answer in range(1, 11))
    assert faults == (set() if passing else {"never_matches"})


def test_a_definition_survives_being_stored() -> None:
    definition = a_definition(
        attributes=(FieldRule(field="owner", any_of=(True, 1, "x")),),
        caps=(a_cap("day", 5),),
        area=Area(circles=(LAKE,)),
    )
    assert msgspec.json.decode(msgspec.json.encode(definition), type=type(definition)) == definition


# Lists.


def test_a_business_that_has_the_person_as_a_customer_is_not_eligible_and_no_near_miss() -> None:
    members = [a_subscription(number) for number in (1, 2)]
    considered = consider(SubscriptionIndex(members), a_lead(), a_verdict(), MONDAY_NOON)
    own = members[0].business_id
    result = apply_lists(considered, frozenset({own}), MONDAY_NOON)
    rules = {row.business_id: [failure.rule for failure in row.failures] for row in result.candidates}
    assert rules == {own: [Rule.own_customer], members[1].business_id: []}
    assert [row.business_id for row in result.eligible] == [members[1].business_id]
    assert kept_away(result.candidates) == {own}
    assert nearest_miss(result.candidates) is None
    assert apply_lists(considered, frozenset(), MONDAY_NOON) == considered


def test_an_outdated_list_lets_every_lead_wait_a_minute() -> None:
    members = [a_subscription(number) for number in (1, 2)]
    considered = consider(SubscriptionIndex(members), a_lead(), a_verdict(), MONDAY_NOON)
    result = apply_lists(considered, frozenset({members[0].business_id}), MONDAY_NOON, outdated=True)
    assert result.eligible == ()
    assert kept_away(result.candidates) == frozenset()
    assert earliest_retry(result.candidates, MONDAY_NOON, MONDAY_NOON + timedelta(hours=1)) == MONDAY_NOON + timedelta(
        minutes=1
    )
