"""People of the demo who come back: who does what, by the seed, and what is sent of it."""

from collections import Counter
from datetime import UTC, datetime
from itertools import islice

import msgspec
import pytest

from marketplace.demo.people import DraftKind, InquiryDraft, People
from marketplace.demo.returning import LAST_SECONDS, SHARES, ReturnKind, answers_to, ask_again, plan_return, touches_of
from marketplace.demo.verticals import EDUCATION, HOME
from marketplace.demo.world import draw_world
from marketplace.journey.shapes import TouchesBody
from routing.qualification import Dimension

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SLUGS = {HOME: "home", EDUCATION: "education"}


def drafts(count: int) -> list[InquiryDraft]:
    return list(islice(People(draw_world(1, NOW), 1, 4, SLUGS), count))


def test_what_a_person_does_follows_from_the_seed() -> None:
    people = drafts(300)
    assert [plan_return(draft, 1) for draft in people] == [plan_return(draft, 1) for draft in people]
    assert [plan_return(draft, 1) for draft in people] != [plan_return(draft, 2) for draft in people]


def test_people_come_back_in_the_stated_shares_within_seconds() -> None:
    plans: Counter[tuple[DraftKind, ReturnKind]] = Counter()
    people = drafts(6_000)
    for draft in people:
        if plan := plan_return(draft, 1):
            plans[draft.kind, plan.kind] += 1
            assert 0 < plan.after_seconds <= LAST_SECONDS
    counts = Counter(draft.kind for draft in people)
    for kind, shares in SHARES.items():
        for what, share in shares:
            assert plans[kind, what] == pytest.approx(share * counts[kind], rel=0.3)
    assert {kind for kind, _ in plans} == set(SHARES)


@pytest.mark.parametrize("kind", [ReturnKind.sooner, ReturnKind.larger, ReturnKind.look])
def test_the_touches_of_a_person_are_such_as_the_api_takes(kind: ReturnKind) -> None:
    touches = touches_of(kind, NOW)
    body = msgspec.json.decode(msgspec.json.encode({"touches": touches}), type=TouchesBody)
    assert len(body.touches) == len(touches)
    assert all(touch.at == NOW for touch in body.touches)


def test_a_provider_asks_the_question_that_the_lead_waits_for_and_no_other() -> None:
    waiting = [draft for draft in drafts(600) if draft.kind is DraftKind.unanswered]
    assert {draft.left_open for draft in waiting} == {("property_type",), ("level",)}
    for draft in waiting:
        touches = answers_to((Dimension.need,), draft, NOW)
        body = msgspec.json.decode(msgspec.json.encode({"touches": touches}), type=TouchesBody)
        [supplies] = [touch.supplies for touch in body.touches]
        assert supplies is not None
        assert tuple(supplies.need.fields) == draft.left_open
        assert answers_to((Dimension.timing,), draft, NOW) == []


def test_a_person_asks_again_with_the_same_contact_on_the_form_of_another_provider() -> None:
    for draft in drafts(50):
        provider, raw = ask_again(draft, 4, NOW)
        first, again = msgspec.json.decode(draft.body(NOW)), msgspec.json.decode(raw)
        assert provider in set(range(4)) - {draft.provider}
        assert again["contact"] == first["contact"]
        assert again["provider_reference"] != first["provider_reference"]
        assert again["bant"]["timing"] == {"within_days": 14}
