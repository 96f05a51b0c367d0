"""What touches and corrections make of the facts of an inquiry, whatever the order of their arrival."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.inquiry import Authority, Budget, EvidenceKind, Facts, Place, Timing, Touch, ValueSource
from routing.journey import (
    CorrectionEntry,
    FactChange,
    JourneyEntry,
    LeadUpdate,
    Supplied,
    TouchEntry,
    changes,
    revise,
    update_of,
    values_of,
)
from routing.qualification import DimensionResult, qualify
from tests.builders.inquiries import NOW, ROOFING_NEEDS, roofing_facts, roofing_policy

DAY = timedelta(days=1)
INFERRED = EvidenceKind.inferred


def usd(whole: int) -> Budget:
    return Budget(minor=whole * 100, currency="USD")


def touched(days: float, kind: str = "call", detail: str = "", **supplied: Any) -> TouchEntry:
    """A touch so many days after the inquiry, with what it supplies."""
    touch = Touch(kind=kind, at=NOW + days * DAY, detail=detail)
    return TouchEntry(revision=1, touch=touch, supplies=Supplied(**supplied))


def corrected(days: float, *clears: str, **supplied: Any) -> CorrectionEntry:
    return CorrectionEntry(revision=1, at=NOW + days * DAY, supplies=Supplied(**supplied), clears=clears)


def budget_of(*entries: JourneyEntry, **facts: Any) -> int | None:
    """The budget that counts, in whole dollars."""
    budget = revise(roofing_facts(**facts), entries).budget
    return None if budget is None else budget.minor // 100


INFERRED_BUDGET = {"budget": INFERRED}
VERIFIED_BUDGET = {"budget": EvidenceKind.verified}


@pytest.mark.parametrize(
    ("entries", "whole"),
    [
        ((), 12_000),
        ((touched(1, budget=usd(3_000)),), 3_000),
        ((touched(-1, budget=usd(3_000)),), 12_000),
        ((touched(2, budget=usd(3_000)), touched(1, budget=usd(4_000))), 3_000),
        ((touched(1, budget=usd(3_000), evidence=INFERRED_BUDGET),), 12_000),
        ((touched(1, budget=usd(3_000), evidence=VERIFIED_BUDGET), touched(2, budget=usd(4_000))), 4_000),
        ((corrected(1, budget=usd(900)),), 900),
        ((corrected(1, budget=usd(900)), touched(0.5, budget=usd(3_000))), 900),
        ((corrected(1, budget=usd(900)), touched(2, budget=usd(3_000))), 3_000),
        ((corrected(1, budget=usd(900)), touched(2, budget=usd(3_000), evidence=INFERRED_BUDGET)), 900),
        ((corrected(1, "budget"),), None),
        ((corrected(1, "budget"), touched(2, budget=usd(3_000), evidence=INFERRED_BUDGET)), 3_000),
        ((corrected(1, "budget"), corrected(2, budget=usd(500))), 500),
    ],
)
def test_the_newest_word_of_the_person_counts_and_a_correction_ends_what_was_before_it(
    entries: tuple[JourneyEntry, ...], whole: int | None
) -> None:
    assert budget_of(*entries) == whole


def test_an_older_statement_fills_what_the_inquiry_left_open_or_only_inferred() -> None:
    history = touched(-3, budget=usd(3_000))
    assert budget_of(history, budget=None) == 3_000
    assert budget_of(history, evidence=INFERRED_BUDGET) == 3_000


def test_each_need_field_has_a_newest_value_of_its_own_and_need_the_weakest_evidence() -> None:
    facts = revise(
        roofing_facts(),
        (
            touched(1, need_fields={"square_metres": 90}, evidence={"need": INFERRED}),
            corrected(2, need_fields={"roof_type": "metal"}),
        ),
    )
    assert facts.need_fields == {"roof_type": "metal", "square_metres": 90}
    assert facts.evidence["need"] is INFERRED


def test_each_value_knows_where_it_comes_from() -> None:
    facts = revise(roofing_facts(), (touched(1, kind="chat", authority=Authority.influencer),))
    assert facts.sources["authority"] == ValueSource(origin="chat", at=NOW + DAY, evidence=EvidenceKind.stated)
    assert facts.sources["budget"] == ValueSource(origin="inquiry", at=NOW, evidence=EvidenceKind.stated)


def test_the_days_of_a_later_answer_count_from_that_answer() -> None:
    facts = revise(roofing_facts(timing=Timing(within_days=2)), (touched(20, timing=Timing(within_days=14)),))
    outcome = qualify(facts, ROOFING_NEEDS, roofing_policy(), NOW + 30 * DAY)
    assert outcome.verdict.findings[3].result is DimensionResult.meets
    assert outcome.verdict.findings[3].value == "within 14 days"


def test_a_touch_with_the_identity_of_another_counts_once() -> None:
    repeated = touched(1)
    named = msgspec.structs.replace(repeated, touch=msgspec.structs.replace(repeated.touch, touch_id="a"))
    moved = msgspec.structs.replace(named, touch=msgspec.structs.replace(named.touch, at=NOW + 2 * DAY))
    assert len(revise(roofing_facts(), (repeated, repeated, named, moved)).touches) == 2


def test_changes_name_what_differs() -> None:
    before = roofing_facts()
    after = revise(before, (corrected(1, "timing", need_fields={"roof_type": "metal"}),))
    assert changes(before, after) == (
        FactChange(name="need.roof_type", before="tile", after="metal"),
        FactChange(name="timing", before=Timing(within_days=14), after=None),
    )
    assert changes(before, before) == ()


def test_an_update_names_touches_changes_and_corrected_contact_fields_without_their_values() -> None:
    before = roofing_facts()
    called = touched(1, budget=usd(3_000))
    street = CorrectionEntry(revision=1, at=NOW, contact=("street",))
    update = update_of(before, revise(before, [called, street]), (called, street))
    assert update == LeadUpdate(
        revision=1,
        touches=(called.touch,),
        changes=(FactChange(name="budget", before=usd(12_000), after=usd(3_000)),),
        contact_changed=("street",),
    )


def test_the_newest_corrected_place_counts() -> None:
    places = [
        CorrectionEntry(revision=day, at=NOW + day * DAY, place=Place(country="US", postal_code=code))
        for day, code in ((2, "10001"), (1, "60601"))
    ]
    assert revise(roofing_facts(), [*places, touched(3)]).place == Place(country="US", postal_code="10001")
    assert revise(roofing_facts(), [touched(3)]).place == roofing_facts().place


EVIDENCE = st.dictionaries(st.sampled_from(["budget", "authority", "need", "timing"]), st.sampled_from(EvidenceKind))
SUPPLIED = st.builds(
    Supplied,
    budget=st.none() | st.integers(1, 3).map(usd),
    authority=st.none() | st.sampled_from(Authority),
    need_fields=st.dictionaries(st.sampled_from(sorted(ROOFING_NEEDS)), st.sampled_from(["tile", 4, True]), max_size=2),
    timing=st.none() | st.builds(Timing, within_days=st.integers(0, 3)),
    evidence=EVIDENCE,
    role=st.none() | st.just("owner"),
)
TIMES = st.integers(-3, 3).map(lambda hours: NOW + timedelta(hours=hours))
TOUCHES = st.builds(
    Touch,
    kind=st.sampled_from(["call", "page_view"]),
    at=TIMES,
    detail=st.sampled_from(["", "/a"]),
    touch_id=st.none() | st.sampled_from("ab"),
)
ENTRIES = st.lists(
    st.builds(TouchEntry, revision=st.just(1), touch=TOUCHES, supplies=SUPPLIED)
    | st.builds(
        CorrectionEntry,
        revision=st.just(1),
        at=TIMES,
        supplies=SUPPLIED,
        clears=st.lists(st.sampled_from(["budget", "role", "need.roof_type"]), unique=True).map(tuple),
        place=st.none() | st.sampled_from(["10001", "60614"]).map(lambda code: Place(country="US", postal_code=code)),
    ),
    max_size=5,
)
FACTS = st.builds(
    roofing_facts,
    budget=st.none() | st.just(usd(2)),
    evidence=EVIDENCE,
    touches=st.lists(TOUCHES, max_size=2).map(tuple),
)


@given(facts=FACTS, entries=ENTRIES, data=st.data())
def test_any_order_of_arrival_gives_the_same_facts(
    facts: Facts, entries: list[JourneyEntry], data: st.DataObject
) -> None:
    assert revise(facts, data.draw(st.permutations(entries))) == revise(facts, entries)


@given(facts=FACTS, entries=ENTRIES)
def test_an_inferred_value_never_replaces_a_stated_one(facts: Facts, entries: list[JourneyEntry]) -> None:
    touches = [entry for entry in entries if isinstance(entry, TouchEntry)]
    before, after = values_of(facts), revise(facts, touches)
    for name, source in after.sources.items():
        own = facts.evidence.get(name.partition(".")[0], EvidenceKind.stated)
        if source.evidence is INFERRED and name in before:
            assert own is INFERRED, name


def test_facts_without_a_journey_stay_the_facts_of_the_inquiry() -> None:
    facts = roofing_facts()
    assert revise(facts, ()) is facts
