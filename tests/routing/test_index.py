"""The index after any edits: the same answers and the same content as one built anew, and as reading every area."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing import index as index_module
from routing.index import HoldingIndex, SubscriptionIndex, VerticalIndex, code_of, point_of
from routing.inquiry import Mode, Place
from routing.matching import Area, Circle, Persona, Rule, Subscription, consider, earliest_retry
from routing.quota import SuspensionReason
from tests.builders.subscriptions import MONDAY_NOON, a_definition, a_lead, a_subscription, a_verdict

CODES = st.text("01", min_size=3, max_size=5)
CIRCLES = st.builds(Circle, latitude=st.floats(40, 44), longitude=st.floats(178, 180), km=st.floats(0.1, 400))
AREAS = st.builds(
    Area,
    anywhere=st.sampled_from([False, False, False, True]),
    countries=st.sampled_from([(), (), ("US",), ("CA", "US")]),
    postal_codes=st.lists(CODES, max_size=4).map(tuple) | st.just(tuple(f"01{n:03}" for n in range(40))),
    prefixes=st.lists(st.text("01", min_size=1, max_size=5), max_size=3).map(tuple),
    circles=st.lists(CIRCLES, max_size=3).map(tuple),
)
PLACES = st.builds(
    Place,
    country=st.sampled_from(["US", "CA", "PR"]),
    postal_code=st.none() | CODES,
    latitude=st.floats(39, 45),
    longitude=st.floats(-180, -177) | st.floats(177, 180),
) | st.builds(Place, country=st.just("US"), postal_code=CODES)
DEFINITIONS = st.builds(
    a_definition,
    area=AREAS,
    price_minor=st.integers(1, 9),
    persona=st.builds(Persona, roles=st.sampled_from([(), ("Owner",)])),
)
SUBSCRIPTIONS = st.builds(
    a_subscription,
    st.integers(0, 9),
    DEFINITIONS,
    vertical=st.sampled_from(["roofing", "tutoring"]),
    mode=st.sampled_from(list(Mode)),
    country=st.sampled_from(["US", "US", "CA"]),
    version=st.integers(1, 3),
    paused=st.booleans(),
    suspended=st.none() | st.sampled_from(list(SuspensionReason)),
    endpoint_active=st.booleans(),
)
SAME_AREA = st.builds(lambda number, paused: (UUID(int=number), paused), st.integers(0, 9), st.booleans())
EDITS = st.lists(SUBSCRIPTIONS | SAME_AREA | st.integers(0, 9).map(lambda number: UUID(int=number)), max_size=30)
"""A subscription is put; an id is discarded; an id with a state changes nothing but the state."""


def edit_all(edits: list[Any]) -> Iterator[tuple[SubscriptionIndex, dict[UUID, Subscription]]]:
    """Yield one index after each edit made in it, and the subscriptions that it then has."""
    index, members = SubscriptionIndex(), dict[UUID, Subscription]()
    yield index, members
    for edit in edits:
        match edit:
            case Subscription():
                index.put(edit)
                members[edit.id] = edit
            case UUID():
                index.discard(edit)
                members.pop(edit, None)
            case id, paused if id in members:
                members[id] = msgspec.structs.replace(members[id], paused=paused)
                index.put(members[id])
        yield index, members


def content(index: SubscriptionIndex) -> dict[Any, Any]:
    """All keys of an index, and the subscriptions to which each leads."""
    return {key: content_of_vertical(shelf) for key, shelf in index._shelves.items()}


def content_of_vertical(shelf: VerticalIndex) -> dict[str, Any]:
    def ids(positions: Iterable[int]) -> list[int]:
        return [shelf.entries[position].subscription.id.int for position in shelf.in_order(positions)]

    by_key: list[Mapping[Any, Iterable[int]]] = [shelf.by_country, shelf.by_code, shelf.by_prefix, shelf.by_countries]
    cells = shelf.by_cell.items()
    return {
        "entries": {entry.subscription.id: entry.subscription for entry in shelf.entries.values()},
        "anywhere": ids(shelf.anywhere),
        "by key": [{key: ids(positions) for key, positions in index.items()} for index in by_key],
        "by cell": {cell: sorted((ids([position]), disc) for position, disc in discs) for cell, discs in cells},
        "repeating": ids(shelf.repeating),
    }


@settings(max_examples=300, deadline=None)
@given(EDITS, st.lists(PLACES, min_size=1, max_size=4))
def test_after_any_edits_the_index_is_that_of_the_subscriptions_it_has(edits: list[Any], places: list[Place]) -> None:
    *_, (index, members) = edit_all(edits)
    fresh = SubscriptionIndex(members.values())
    assert dict(index) == members
    assert content(index) == content(fresh)
    for place in places:
        for vertical in ("roofing", "tutoring"):
            lead = a_lead(place=place, vertical=vertical)
            candidates = index.candidates(lead)
            assert candidates == fresh.candidates(lead)
            assert candidates == plainly_found(members, vertical, place)
            assert consider(index, lead, a_verdict(), MONDAY_NOON) == consider(fresh, lead, a_verdict(), MONDAY_NOON)


def plainly_found(members: dict[UUID, Subscription], vertical: str, place: Place) -> tuple[Subscription, ...]:
    """The live subscriptions of a vertical whose area has the place, found by reading every area."""
    code, point = code_of(place), point_of(place)
    fitting = (
        member
        for member in members.values()
        if (member.vertical, member.mode) == (vertical, Mode.live)
        and index_module.IndexEntry(member).holds(place, code, point)
    )
    return tuple(sorted(fitting, key=lambda member: member.id))


@settings(max_examples=100, deadline=None)
@given(EDITS, PLACES)
def test_the_nearest_are_the_same_after_each_edit(edits: list[Any], place: Place) -> None:
    lead = a_lead(place=place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "COMPLETE_UP_TO", 2)
        for index, members in edit_all(edits):
            entries, left_out = index.near(lead)  # which keeps its sorted keys for the next
            expected, expected_left_out = SubscriptionIndex(members.values()).near(lead)
            assert [entry.subscription for entry in entries] == [entry.subscription for entry in expected]
            assert left_out == expected_left_out


def test_an_edit_that_leaves_the_area_keeps_the_place_in_the_index() -> None:
    index = SubscriptionIndex([a_subscription(number) for number in range(3)])
    entry = index._entries[UUID(int=1)]
    index.put(a_subscription(1, a_definition(price_minor=7), paused=True))
    assert index._entries[UUID(int=1)] is entry
    assert [member.definition.price_minor for member in index.candidates(a_lead())] == [5_000, 7, 5_000]


def test_what_is_not_there_is_discarded_without_a_fault() -> None:
    index = SubscriptionIndex([a_subscription(1)])
    index.discard(UUID(int=2))
    assert list(index) == [UUID(int=1)]


@settings(max_examples=200, deadline=None)
@given(st.lists(SUBSCRIPTIONS, max_size=8), PLACES)
def test_an_index_of_those_that_hold_the_lead_leaves_out_only_what_can_never_have_it(
    subscriptions: list[Subscription], place: Place
) -> None:
    lead = a_lead(place=place)
    full, narrow = (
        consider(kind(subscriptions), lead, a_verdict(), MONDAY_NOON) for kind in (SubscriptionIndex, HoldingIndex)
    )
    inside = [each for each in full.candidates if all(miss.rule is not Rule.outside_area for miss in each.failures)]
    assert list(narrow.candidates) == inside
    assert narrow.eligible == full.eligible
    assert narrow.left_out == len(full.candidates) - len(inside)
    later = MONDAY_NOON + timedelta(days=400)
    retries = [earliest_retry(result.candidates, MONDAY_NOON, later) for result in (full, narrow)]
    assert retries[0] == retries[1]
