import re
from collections import Counter
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from itertools import islice

import msgspec
import pytest

from marketplace.demo import contacts
from marketplace.demo.people import CERTIFIED, LOOK_BACK, SHARES, DraftKind, InquiryDraft, People
from marketplace.demo.verticals import EDUCATION, HOME
from marketplace.demo.world import DemoWorld, draw_world
from marketplace.intake.postal import PostalArea
from marketplace.intake.reading import decode_inquiry, read_inquiry
from marketplace.intake.shapes import InquiryBody
from routing.inquiry import Mode
from routing.qualification import Dimension, Nurture, Prospect, Rejection, RejectionReason, qualify

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
SLUGS = {HOME: HOME, EDUCATION: EDUCATION}


@pytest.fixture(scope="module")
def world() -> DemoWorld:
    return draw_world(1, NOW)


@pytest.fixture(scope="module")
def drafts(world: DemoWorld) -> list[InquiryDraft]:
    return list(islice(People(world, 1, 3, SLUGS), 3_000))


def codes_of(draft: InquiryDraft, world: DemoWorld) -> set[str]:
    """Return the fault codes of intake's rules for a draft; empty if it is accepted."""
    body = decode_inquiry(draft.body(NOW))
    assert isinstance(body, InquiryBody), body
    rules = world.verticals[draft.vertical].intake_rules(draft.vertical)
    area = PostalArea(country="US", code="60614", city="Chicago")
    outcome = read_inquiry(body, rules, area, mode=Mode.live, now=NOW)
    return {fault.code for fault in outcome} if isinstance(outcome, tuple) else set()


def outcome_of(draft: InquiryDraft, world: DemoWorld) -> Prospect | Nurture | Rejection:
    body = decode_inquiry(draft.body(NOW))
    assert isinstance(body, InquiryBody)
    definition = world.verticals[draft.vertical].under_current_rules()
    rules = definition.intake_rules(draft.vertical)
    area = PostalArea(country="US", code="60614", city="Chicago")
    accepted = read_inquiry(body, rules, area, mode=Mode.live, now=NOW)
    assert not isinstance(accepted, tuple)
    return qualify(accepted.facts, definition.needs, definition.policy(1), NOW)


def test_the_same_seed_draws_the_same_people(world: DemoWorld, drafts: list[InquiryDraft]) -> None:
    again = list(islice(People(world, 1, 3, SLUGS), 300))
    assert [draft.body(NOW) for draft in again] == [draft.body(NOW) for draft in drafts[:300]]


def test_a_certified_stream_has_the_same_people_and_some_certificates(
    world: DemoWorld, drafts: list[InquiryDraft]
) -> None:
    certified = list(islice(People(world, 1, 3, SLUGS, certified=True), 300))
    assert sum(draft.certificate is not None for draft in certified) >= 300 // CERTIFIED
    plain = [msgspec.structs.replace(draft, certificate=None) for draft in certified]
    assert [draft.body(NOW) for draft in plain] == [draft.body(NOW) for draft in drafts[:300]]
    assert {code for draft in certified if draft.kind is DraftKind.ready for code in codes_of(draft, world)} == set()


def test_contact_data_is_from_ranges_reserved_for_fiction(drafts: list[InquiryDraft]) -> None:
    for draft in drafts:
        assert re.search(r"@example\.(com|org|net)$", draft.contact["email"])
        assert any(ip_address(draft.ip) in ip_network(f"{network}.0/24") for network in contacts.NETWORKS)
        if draft.kind is not DraftKind.bad_phone:
            assert re.fullmatch(r"\+1[2-9]\d\d55501\d\d", draft.contact["phone"])


def test_nobody_but_a_duplicate_shares_a_phone_number_or_an_address_in_one_vertical(drafts: list[InquiryDraft]) -> None:
    newcomers = [
        draft for draft in drafts if draft.kind not in (DraftKind.duplicate, DraftKind.repeated, DraftKind.bad_phone)
    ]
    for field in ("phone", "email"):
        assert len({(draft.vertical, draft.contact[field]) for draft in newcomers}) == len(newcomers)


def test_there_are_phone_numbers_for_tens_of_thousands_of_people() -> None:
    assert contacts.phone_count() > 30_000
    assert contacts.phone(contacts.phone_count() - 1) != contacts.phone(0)
    with pytest.raises(IndexError):
        contacts.phone(contacts.phone_count())


def test_each_kind_of_difficulty_has_its_share(drafts: list[InquiryDraft]) -> None:
    counts = Counter(draft.kind for draft in drafts)
    for kind, share in SHARES.items():
        assert counts[kind] == pytest.approx(share * len(drafts), rel=0.35)


def test_a_repetition_is_of_somebody_long_enough_ago(drafts: list[InquiryDraft]) -> None:
    repeated = [draft for draft in drafts if draft.kind is DraftKind.repeated]
    assert all(draft.of is not None and draft.of <= draft.number - LOOK_BACK for draft in repeated)


@pytest.mark.parametrize(
    ("kind", "code"), [(DraftKind.bad_phone, "phone_invalid"), (DraftKind.no_consent, "consent_missing")]
)
def test_what_is_meant_to_be_refused_is_refused_for_that_alone(
    kind: DraftKind, code: str, drafts: list[InquiryDraft], world: DemoWorld
) -> None:
    assert all(codes_of(draft, world) == {code} for draft in drafts if draft.kind is kind)


def test_whatever_is_not_meant_to_be_refused_is_taken_in(drafts: list[InquiryDraft], world: DemoWorld) -> None:
    refused = (DraftKind.bad_phone, DraftKind.no_consent)
    assert not any(codes_of(draft, world) for draft in drafts[:600] if draft.kind not in refused)


def test_difficult_people_are_difficult_in_the_way_that_is_meant(drafts: list[InquiryDraft], world: DemoWorld) -> None:
    for draft in drafts:
        if draft.kind is DraftKind.not_ready:
            assert not isinstance(outcome_of(draft, world), Prospect)
        if draft.kind is DraftKind.unanswered:
            outcome = outcome_of(draft, world)
            assert not isinstance(outcome, Nurture) or outcome.missing == (Dimension.need,)
            assert not isinstance(outcome, Prospect)
        if draft.kind in (DraftKind.below_budget, DraftKind.wrong_need):
            outcome = outcome_of(draft, world)
            assert isinstance(outcome, Rejection)
            assert outcome.reason in (RejectionReason.budget_below_minimum, RejectionReason.need_not_wanted)


def test_most_ready_people_are_prospects(drafts: list[InquiryDraft], world: DemoWorld) -> None:
    ready = [outcome_of(draft, world) for draft in drafts if draft.kind is DraftKind.ready]
    assert sum(isinstance(outcome, Prospect) for outcome in ready) > 0.9 * len(ready)


def test_a_body_names_its_moment_and_consent_comes_before_it(drafts: list[InquiryDraft]) -> None:
    body = msgspec.json.decode(drafts[0].body(NOW), type=InquiryBody)
    assert body.submitted_at == NOW
    assert body.consent is not None
    assert body.consent.given_at < NOW
