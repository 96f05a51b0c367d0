"""Terms of a consent: how words and names are read, which rules they fail, and that no unnamed business passes."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.consent import (
    ANY_CONSENT,
    Channel,
    ConsentNeeds,
    ConsentPolicy,
    ConsentTerms,
    channels_in_words,
    fold_seller,
    fold_sellers,
    is_expired,
    is_jurisdiction,
    read_channel,
)
from routing.decision import CONSENT_EXPIRED, WITHDRAWN, End, MatchedCandidates, OpenLead, Wait, decide
from routing.inquiry import InquiryFaultCode, check_consent_terms, read_consent_terms
from routing.lifecycle import LeadState
from routing.matching import Candidate, Rule, SubscriptionIndex, consider
from routing.subscription import DefinitionFaultCode, validate
from tests.builders.marketplaces import roofing
from tests.builders.subscriptions import MONDAY_NOON, a_definition, a_lead, a_subscription, a_verdict

CALL_AND_TEXT = (Channel.call, Channel.text)


@pytest.mark.parametrize(
    ("word", "channel"),
    [
        ("call", Channel.call),
        ("Phone", Channel.call),
        ("phone_call", Channel.call),
        ("SMS", Channel.text),
        (" text-message ", Channel.text),
        ("E-Mail", Channel.email),
        ("email", Channel.email),
        ("direct mail", Channel.post),
        ("mail", None),
        ("whatsapp", None),
        ("", None),
        ("callme", None),
    ],
)
def test_a_word_names_a_channel_or_none(word: str, channel: Channel | None) -> None:
    assert read_channel(word) is channel


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Example Roofs, LLC", "EXAMPLE ROOFS"),
        ("Smith & Sons Ltd.", "smith and sons limited"),
        ("Société Générale S.A.", "societe generale"),
        ("O'Neil Roofing, Inc.", "ONeil Roofing"),
        ("A-1 Roofs", "A 1 ROOFS"),
    ],
)
def test_names_that_differ_in_case_punctuation_and_legal_form_are_one(name: str, other: str) -> None:
    assert fold_seller(name) == fold_seller(other)


@pytest.mark.parametrize(
    ("name", "other"),
    [("Example Roofs", "Example Roof"), ("Example Roofs", "Example Roofs of Texas"), ("LLC", "Inc"), ("A1", "A 1")],
)
def test_names_that_are_merely_alike_are_two(name: str, other: str) -> None:
    assert fold_seller(name) != fold_seller(other)


def test_a_name_without_letters_names_nobody() -> None:
    assert fold_sellers(("—", "  ", "")) == frozenset()


@given(st.text(max_size=60))
def test_the_normal_form_of_a_normal_form_is_itself(name: str) -> None:
    folded = fold_seller(name)
    assert fold_seller(folded) == folded


@pytest.mark.parametrize(("text", "valid"), [("US", True), ("US-CA", True), ("us", False), ("USA", False), ("", False)])
def test_a_jurisdiction_is_an_iso_code(text: str, valid: bool) -> None:
    assert is_jurisdiction(text) is valid


def test_each_fault_of_the_terms_has_its_place() -> None:
    faults = check_consent_terms(("sms", "pigeon"), MONDAY_NOON, "Texas", MONDAY_NOON)
    assert [(fault.path, fault.code) for fault in faults] == [
        (("consent", "channels", 1), InquiryFaultCode.consent_channel_unknown),
        (("consent", "expires_at"), InquiryFaultCode.consent_expired),
        (("consent", "jurisdiction"), InquiryFaultCode.consent_jurisdiction_invalid),
    ]


def test_terms_are_read_in_order_and_once() -> None:
    terms = read_consent_terms((" Example Roofs ", ""), ("SMS", "call", "text"), ("Quote", "quote"), None, None)
    assert terms == ConsentTerms(sellers=("Example Roofs",), channels=(Channel.text, Channel.call), purposes=("quote",))


# Matching.

CASES: list[tuple[dict[str, Any], ConsentPolicy, ConsentNeeds, Rule | None]] = [
    # terms, the vertical's policy, the subscription's needs, the rule that fails
    ({}, ANY_CONSENT, ConsentNeeds(), None),
    ({"sellers": ("Example Roofs Inc",)}, ANY_CONSENT, ConsentNeeds(), None),
    ({"sellers": ("Other Roofs",)}, ANY_CONSENT, ConsentNeeds(), Rule.consent_seller),
    ({"sellers": ("Other Roofs", "roofs by example")}, ANY_CONSENT, ConsentNeeds(), None),
    ({"sellers": ("—",)}, ANY_CONSENT, ConsentNeeds(), Rule.consent_seller),
    ({}, ConsentPolicy(requires_named_seller=True), ConsentNeeds(), Rule.consent_seller),
    ({"sellers": ("EXAMPLE ROOFS",)}, ConsentPolicy(requires_named_seller=True), ConsentNeeds(), None),
    ({"channels": CALL_AND_TEXT}, ANY_CONSENT, ConsentNeeds(), None),
    ({"channels": CALL_AND_TEXT}, ANY_CONSENT, ConsentNeeds(channels=(Channel.call,)), None),
    ({"channels": CALL_AND_TEXT}, ANY_CONSENT, ConsentNeeds(channels=(Channel.email,)), Rule.consent_channel),
    ({}, ANY_CONSENT, ConsentNeeds(channels=(Channel.email,)), Rule.consent_channel),
    ({"channels": CALL_AND_TEXT}, ConsentPolicy(channels=(Channel.email,)), ConsentNeeds(), Rule.consent_channel),
    ({"purposes": ("quote",)}, ANY_CONSENT, ConsentNeeds(purposes=("Quote",)), None),
    ({"purposes": ("news",)}, ANY_CONSENT, ConsentNeeds(purposes=("Quote",)), Rule.consent_purpose),
    ({}, ANY_CONSENT, ConsentNeeds(purposes=("Quote",)), Rule.consent_purpose),
    ({"jurisdiction": "US-CA"}, ANY_CONSENT, ConsentNeeds(jurisdictions=("US",)), None),
    ({"jurisdiction": "US"}, ANY_CONSENT, ConsentNeeds(jurisdictions=("US-CA",)), Rule.consent_jurisdiction),
    ({}, ConsentPolicy(jurisdictions=("US",)), ConsentNeeds(), Rule.consent_jurisdiction),
]
NAMES = ("Example Roofs", "Roofs by Example LLC")


def the_candidate(terms: ConsentTerms | None, policy: ConsentPolicy, needs: ConsentNeeds) -> Candidate:
    subscription = a_subscription(definition=a_definition(consent=needs), business_names=NAMES)
    considered = consider(
        SubscriptionIndex([subscription]), a_lead(consent=terms), a_verdict(), MONDAY_NOON, consent_policy=policy
    )
    (candidate,) = considered.candidates
    return candidate


@pytest.mark.parametrize(("terms", "policy", "needs", "rule"), CASES)
def test_a_consent_passes_or_fails_one_rule(
    terms: dict[str, Any], policy: ConsentPolicy, needs: ConsentNeeds, rule: Rule | None
) -> None:
    failures = the_candidate(ConsentTerms(**terms), policy, needs).failures
    assert [failure.rule for failure in failures] == ([rule] if rule else [])
    assert all(failure.detail for failure in failures)


def test_the_distance_of_a_channel_is_the_number_that_is_missing() -> None:
    needs = ConsentNeeds(channels=(Channel.call, Channel.email, Channel.post))
    (failure,) = the_candidate(ConsentTerms(channels=CALL_AND_TEXT), ANY_CONSENT, needs).failures
    assert (failure.distance, failure.unit) == (2, "channels")
    assert failure.detail == "no consent to email and post"


def test_an_inquiry_from_before_terms_were_read_is_judged_as_before() -> None:
    assert the_candidate(None, ANY_CONSENT, ConsentNeeds()).failures == ()


names = st.sampled_from(["Example Roofs", "example roofs llc", "Other Roofs", "Third Roofs", "—", "Example Roof"])


@given(
    sellers=st.lists(names, max_size=4),
    businesses=st.lists(st.lists(names, max_size=3), min_size=1, max_size=6),
    required=st.booleans(),
)
def test_where_sellers_are_named_only_they_are_eligible(
    sellers: list[str], businesses: list[list[str]], required: bool
) -> None:
    members = [a_subscription(number, business_names=tuple(own)) for number, own in enumerate(businesses, 1)]
    considered = consider(
        SubscriptionIndex(members),
        a_lead(consent=ConsentTerms(sellers=tuple(sellers))),
        a_verdict(),
        MONDAY_NOON,
        consent_policy=ConsentPolicy(requires_named_seller=required),
    )
    folded = {fold_seller(seller) for seller in sellers} - {""}
    for member in members:
        named = any(fold_seller(name) in folded for name in member.business_names)
        eligible = member in considered.eligible
        assert eligible == (named if sellers or required else True)


# The end of a consent.


def a_decision(terms: ConsentTerms, state: LeadState, **changes: Any) -> MatchedCandidates | Wait | End:
    lead = OpenLead(lead_id=UUID(int=1), state=state, facts=a_lead(consent=terms), received_at=MONDAY_NOON, **changes)
    return decide(lead, roofing(), 1, SubscriptionIndex([a_subscription()]), MONDAY_NOON)


@pytest.mark.parametrize(
    ("state", "end"),
    [
        (LeadState.received, LeadState.rejected),
        (LeadState.nurturing, LeadState.expired),
        (LeadState.prospect, LeadState.unsold),
    ],
)
def test_a_lead_ends_with_its_consent(state: LeadState, end: LeadState) -> None:
    result = a_decision(ConsentTerms(expires_at=MONDAY_NOON), state)
    assert isinstance(result, End)
    assert (result.state, result.reason) == (end, CONSENT_EXPIRED)


def test_a_consent_counts_until_its_last_moment() -> None:
    terms = ConsentTerms(expires_at=MONDAY_NOON + timedelta(microseconds=1))
    assert not is_expired(terms, MONDAY_NOON)
    assert isinstance(a_decision(terms, LeadState.prospect), MatchedCandidates)


def test_a_person_who_withdrew_before_the_end_has_withdrawn() -> None:
    terms = ConsentTerms(expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    result = a_decision(terms, LeadState.prospect, withdrawn=True)
    assert isinstance(result, End)
    assert result.reason == WITHDRAWN


# Words and definitions.


@pytest.mark.parametrize(
    ("channels", "sentence"),
    [
        ((), "The consent does not say how the person may be contacted"),
        (CALL_AND_TEXT, "May be called and texted, not e-mailed or written to by post"),
        (tuple(Channel), "May be called and texted and e-mailed and written to by post"),
    ],
)
def test_the_channels_in_words(channels: tuple[Channel, ...], sentence: str) -> None:
    assert channels_in_words(ConsentTerms(channels=channels)) == sentence


def test_a_definition_with_a_jurisdiction_that_is_no_code_is_refused() -> None:
    faults = validate(a_definition(consent=ConsentNeeds(jurisdictions=("US", "Texas"))), {})
    assert [(fault.pointer, fault.code) for fault in faults] == [
        ("/consent/jurisdictions/1", DefinitionFaultCode.malformed)
    ]
