"""What a repeated inquiry brings to the journey of the earlier lead."""

from datetime import timedelta
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.inquiry import Authority, Budget, EvidenceKind, Touch
from routing.joining import (
    MOST_JOINED,
    Claimant,
    JoinReason,
    PayJoined,
    find_payees,
    has_room,
    join_reason,
    joining_entry,
)
from routing.journey import MOST_TOUCHES, TouchEntry, revise, values_of
from tests.builders.inquiries import NOW, roofing_facts

FIRST = roofing_facts(budget=None, authority=Authority.influencer)


def entry(kind: str, number: int) -> TouchEntry:
    touch = Touch(kind=kind, at=NOW + timedelta(minutes=number), detail="", touch_id=f"{kind}-{number}")
    return TouchEntry(revision=number, touch=touch)


@given(
    minor=st.none() | st.integers(1, 10**12),
    authority=st.none() | st.sampled_from(Authority),
    days=st.integers(-20, 20).filter(bool),
)
def test_of_two_inquiries_the_later_counts_in_each_value_that_it_has(
    minor: int | None, authority: Authority | None, days: int
) -> None:
    budget = None if minor is None else Budget(minor=minor, currency="USD")
    at = NOW + timedelta(days=days)
    second = roofing_facts(budget=budget, authority=authority, submitted_at=at, received_at=at)
    joined = values_of(revise(FIRST, (joining_entry(second, 1, "a"),)))
    earlier, later = (FIRST, second) if days > 0 else (second, FIRST)
    assert joined == values_of(earlier) | values_of(later)


def test_answers_join_with_their_evidence_and_nothing_else_does() -> None:
    second = msgspec.structs.replace(
        roofing_facts(evidence={"need": EvidenceKind.inferred}, touches=(Touch(kind="call", at=NOW, detail=""),)),
        source="another",
        place=msgspec.structs.replace(FIRST.place, postal_code="10001"),
    )
    joined = joining_entry(second, 3, "a")
    assert (joined.revision, joined.at, joined.touch.kind) == (3, second.asked_at, "inquiry")
    assert joined.supplies.evidence == {"need": EvidenceKind.inferred}
    revised = revise(FIRST, (joined,))
    assert (revised.place, revised.source, revised.signals) == (FIRST.place, FIRST.source, FIRST.signals)
    assert revised.touches == (*FIRST.touches, joined.touch)


@pytest.mark.parametrize(
    ("inquiries", "calls", "room"),
    [
        (0, 0, True),
        (MOST_JOINED - 1, 0, True),
        (MOST_JOINED, 0, False),
        (1, MOST_TOUCHES - 2, True),
        (1, MOST_TOUCHES - 1, False),
    ],
)
def test_a_lead_has_room_for_so_many_inquiries_and_touches(inquiries: int, calls: int, room: bool) -> None:
    journey = [entry("inquiry", number) for number in range(inquiries)]
    assert has_room(journey + [entry("call", number) for number in range(calls)]) is room


FIRST_CLAIMANT = Claimant(provider_id=UUID(int=0), inquiry_id=None)


def claimants(*providers: int) -> list[Claimant]:
    """One joined inquiry of each provider, in this order; the provider of the lead is 0."""
    return [Claimant(UUID(int=provider), UUID(int=place + 101)) for place, provider in enumerate(providers)]


@pytest.mark.parametrize(
    ("pay", "joined", "paid"),
    [
        (PayJoined.first, (1, 2), [(0, 0)]),
        (PayJoined.last, (), [(0, 0)]),
        (PayJoined.last, (1, 2), [(2, 102)]),
        (PayJoined.last, (1, 2, 1), [(1, 103)]),
        (PayJoined.last, (1, 0), [(0, 0)]),
        (PayJoined.split, (), [(0, 0)]),
        (PayJoined.split, (0, 0), [(0, 0)]),
        (PayJoined.split, (1, 2), [(0, 0), (1, 101), (2, 102)]),
        (PayJoined.split, (1, 2, 1, 0), [(0, 0), (1, 101), (2, 102)]),
    ],
)
def test_the_policy_says_who_of_those_that_sent_a_person_is_paid(
    pay: PayJoined, joined: tuple[int, ...], paid: list[tuple[int, int]]
) -> None:
    payees = find_payees(pay, FIRST_CLAIMANT, claimants(*joined))
    assert [(payee.provider_id.int, payee.inquiry_id.int if payee.inquiry_id else 0) for payee in payees] == paid


@given(st.sampled_from(PayJoined), st.lists(st.integers(0, 5), max_size=MOST_JOINED))
def test_every_payee_sent_the_person_and_none_is_paid_twice(pay: PayJoined, providers: list[int]) -> None:
    joined = claimants(*providers)
    payees = find_payees(pay, FIRST_CLAIMANT, joined)
    assert payees
    assert len({payee.provider_id for payee in payees}) == len(payees)
    assert set(payees) <= {FIRST_CLAIMANT, *joined}


def test_a_provider_learns_that_it_joined_too_late_only_where_it_would_have_been_paid() -> None:
    reasons = {pay: [join_reason(pay, in_time=in_time) for in_time in (True, False)] for pay in PayJoined}
    assert reasons == {
        PayJoined.first: [JoinReason.joined, JoinReason.joined],
        PayJoined.last: [JoinReason.joined_paid_if_last, JoinReason.joined_after_delivery],
        PayJoined.split: [JoinReason.joined_paid_share, JoinReason.joined_after_delivery],
    }
