import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from marketplace.intake.reading import AcceptedInquiry, decode_inquiry, read_inquiry
from marketplace.intake.shapes import InquiryBody
from marketplace.text.faults import Fault
from routing.inquiry import Budget, EvidenceKind, IntakeRules, Mode, Timing
from tests.builders.inquiries import (
    NOW,
    accept,
    changed,
    education_body,
    education_rules,
    find_area,
    iso,
    roofing_body,
    roofing_rules,
)

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
STRICT = roofing_rules(requires_postal_code=True)


def submit(body: dict[str, Any], rules: IntakeRules | None = None) -> AcceptedInquiry | tuple[Fault, ...]:
    inquiry = decode_inquiry(json.dumps(body).encode())
    if isinstance(inquiry, tuple):
        return inquiry
    return read_inquiry(inquiry, rules or roofing_rules(), find_area(inquiry.contact), mode=Mode.live, now=NOW)


def faults(body: dict[str, Any], rules: IntakeRules | None = None) -> list[tuple[str, str]]:
    outcome = submit(body, rules)
    return [(fault.pointer, fault.code) for fault in outcome] if isinstance(outcome, tuple) else []


def test_a_good_inquiry_becomes_facts_without_any_contact_data() -> None:
    accepted = accept(roofing_body())
    facts = msgspec.json.encode(accepted.facts).decode()
    for secret in ("Robin", "555", "@", "Street", "leak", "192.0.2.7", "agree", "/quote"):
        assert secret not in facts
    assert accepted.facts.place.time_zone == "America/Chicago"
    assert accepted.facts.budget == Budget(minor=1_200_000, currency="USD")
    assert accepted.facts.timing == Timing(within_days=14)
    assert accepted.facts.signals.phone_type == "fixed_or_mobile"
    assert accepted.facts.received_at == NOW


def test_the_contact_holds_all_that_a_business_needs_and_the_proof_of_consent() -> None:
    accepted = accept(changed(roofing_body(metadata={"note": "vip"}), "consent.sellers", ["Example Roofs"]))
    contact = accepted.contact
    assert (contact.full_name, contact.phone, contact.email) == ("Robin Example", "+13125550101", "robin.1@example.com")
    assert (contact.street, contact.postal_code, contact.summary) == ("1 Example Street", "60614", "leak after storm")
    assert (contact.consent.ip, contact.consent.sellers) == ("192.0.2.7", ("Example Roofs",))
    assert contact.metadata == {"note": "vip"}
    assert accepted.fingerprints == ("live:phone:+13125550101", "live:email:robin.1@example.com")
    assert accepted.provider_reference == "ref-1"
    assert len(accepted.consent_sha256) == 32


def test_the_other_vertical_is_accepted_with_its_evidence() -> None:
    accepted = accept(education_body(), education_rules())
    assert accepted.facts.evidence == {"authority": EvidenceKind.inferred}
    assert accepted.facts.need_fields == {"field": "data", "employer_pays": False}


def test_the_hash_of_consent_changes_with_any_part_of_it() -> None:
    other = changed(roofing_body(), "consent.text", "I agree to be written to.")
    assert accept(roofing_body()).consent_sha256 == accept(roofing_body()).consent_sha256
    assert accept(roofing_body()).consent_sha256 != accept(other).consent_sha256


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("state", "sold", ("/state", "unknown_field")),
        ("contact.full_name", None, ("/contact/full_name", "field_missing")),
        ("contact.full_name", "x" * 101, ("/contact/full_name", "too_long")),
        ("contact.full_name", "a\x00b", ("/contact/full_name", "character_not_allowed")),
        ("contact.full_name", "\u202e \u200f", ("/contact/full_name", "name_empty")),
        ("contact.full_name", "\u3164", ("/contact/full_name", "name_empty")),
        ("contact.full_name", "\u2800\u00a0\ufe0f", ("/contact/full_name", "name_empty")),
        ("contact.phone", "club 908 conyers", ("/contact/phone", "phone_invalid")),
        ("contact.phone", None, ("/contact/phone", "field_missing")),
        ("contact.phone", "+1 555 0100", ("/contact/phone", "phone_invalid")),
        ("contact.phone", "+1 900 234 5678", ("/contact/phone", "phone_type_not_accepted")),
        ("contact.phone", "1" * 200, ("/contact/phone", "too_long")),
        ("contact.email", None, ("/contact/email", "field_missing")),
        ("contact.email", "a@b", ("/contact/email", "email_invalid")),
        ("contact.email", "a" * 290 + "@x.com", ("/contact/email", "too_long")),
        ("contact.email", "a@x.com\r\nBcc: b", ("/contact/email", "email_invalid")),
        ("contact.country", "XQ", ("/contact/country", "value_not_allowed")),
        ("contact.company_size", 0, ("/contact/company_size", "out_of_range")),
        ("contact.postal_code", None, ("/contact/postal_code", "field_missing")),
        ("contact.postal_code", "00000", ("/contact/postal_code", "postal_code_unknown")),
        ("bant.budget.minor", 10**26, ("/bant/budget/minor", "out_of_range")),
        ("bant.budget.minor", -1, ("/bant/budget/minor", "out_of_range")),
        ("bant.budget.minor", float("nan"), ("/bant/budget/minor", "out_of_range")),
        ("bant.budget.minor", 12.5, ("/bant/budget/minor", "type_wrong")),
        ("bant.budget.currency", "EUR", ("/bant/budget/currency", "currency_not_accepted")),
        ("bant.budget.maximum_minor", 1, ("/bant/budget/maximum_minor", "out_of_range")),
        ("bant.authority", "boss", ("/bant/authority", "value_not_allowed")),
        ("bant.need.fields.colour", "red", ("/bant/need/fields/colour", "need_field_unknown")),
        ("bant.need.fields.roof_type", None, ("/bant/need/fields/roof_type", "need_field_missing")),
        ("bant.need.fields.roof_type", "straw", ("/bant/need/fields/roof_type", "value_not_allowed")),
        ("bant.need.fields.roof_type", 1, ("/bant/need/fields/roof_type", "need_field_type")),
        ("bant.need.fields.square_metres", 10**9, ("/bant/need/fields/square_metres", "out_of_range")),
        ("bant.timing.not_before", "2027-01-01", ("/bant/timing", "timing_ambiguous")),
        ("bant.evidence.charm", "stated", ("/bant/evidence/charm", "value_not_allowed")),
        ("consent", None, ("/consent", "consent_missing")),
        ("consent.text", " ", ("/consent/text", "consent_text_empty")),
        ("consent.text", None, ("/consent/text", "consent_text_empty")),
        ("consent.text", "\u3164\u200b", ("/consent/text", "consent_text_empty")),
        ("consent.given_at", None, ("/consent/given_at", "field_missing")),
        ("consent.given_at", iso(NOW + 6 * MINUTE), ("/consent/given_at", "consent_in_future")),
        ("consent.given_at", iso(NOW), ("/consent/given_at", "consent_after_submission")),
        ("consent.given_at", iso(NOW - 91 * DAY), ("/consent/given_at", "consent_too_old")),
        ("consent.given_at", "2026-11-21T10:00:00", ("/consent/given_at", "offset_missing")),
        ("consent.page_url", None, ("/consent/page_url", "consent_page_missing")),
        ("consent.page_url", "ftp://example.com", ("/consent/page_url", "consent_page_invalid")),
        ("consent.ip", "localhost", ("/consent/ip", "consent_ip_invalid")),
        ("submitted_at", iso(NOW + 6 * MINUTE), ("/submitted_at", "submitted_at_in_future")),
        ("submitted_at", "2026-11-21T10:00:00", ("/submitted_at", "offset_missing")),
        ("touches", [{"kind": "click", "at": iso(NOW + DAY)}], ("/touches/0/at", "touch_in_future")),
        ("touches", [{"kind": "click", "at": "0001-01-01T00:00:00+14:00"}], ("/touches/0/at", "out_of_range")),
        ("touches", [{"kind": "click", "at": "9999-12-31T23:59:59-14:00"}], ("/touches/0/at", "out_of_range")),
        ("touches", [{"kind": "click", "at": iso(NOW)}] * 51, ("/touches", "too_long")),
        ("attribution.sub_ids", {str(n): "x" for n in range(21)}, ("/attribution/sub_ids", "too_long")),
        ("metadata", {"a": "x" * 201}, ("/metadata/a", "too_long")),
    ],
)
def test_each_bad_field_gets_its_own_code(path: str, value: Any, expected: tuple[str, str]) -> None:
    assert faults(changed(roofing_body(), path, value), STRICT) == [expected]


@pytest.mark.parametrize("submitted_at", [iso(NOW - 91 * DAY), "1971-01-01T00:00:00+14:00"])
def test_an_inquiry_of_long_ago_is_too_old(submitted_at: str) -> None:
    body = changed(roofing_body(), "submitted_at", submitted_at)
    assert ("/submitted_at", "submitted_at_too_old") in faults(body)


def test_all_faults_of_content_are_returned_at_once() -> None:
    body = roofing_body()
    for path, value in [
        ("contact.phone", "0000000000"),
        ("contact.email", "a@b"),
        ("contact.full_name", " "),
        ("bant.budget.currency", "EUR"),
        ("bant.need.fields", {"colour": "red"}),
        ("consent.text", ""),
        ("consent.page_url", None),
        ("submitted_at", iso(NOW + DAY)),
    ]:
        body = changed(body, path, value)
    assert {code for _, code in faults(body)} == {
        "phone_invalid",
        "email_invalid",
        "name_empty",
        "currency_not_accepted",
        "need_field_unknown",
        "need_field_missing",
        "consent_text_empty",
        "consent_page_missing",
        "submitted_at_in_future",
    }


def test_the_faults_of_all_parts_come_in_the_order_of_the_steps() -> None:
    body = roofing_body()
    for path, value in [
        ("touches", [{"kind": "call", "at": iso(NOW + DAY)}]),
        ("consent.text", ""),
        ("bant.budget.currency", "EUR"),
        ("submitted_at", iso(NOW + DAY)),
        ("contact.full_name", " "),
        ("contact.postal_code", "00000"),
        ("contact.phone", "0000000000"),
    ]:
        body = changed(body, path, value)
    assert [pointer for pointer, _ in faults(body, STRICT)] == [
        "/contact/phone",
        "/contact/postal_code",
        "/contact/full_name",
        "/submitted_at",
        "/bant/budget/currency",
        "/consent/text",
        "/touches/0/at",
    ]


def test_an_unknown_vertical_is_reported_with_what_every_vertical_refuses() -> None:
    body = changed(changed(roofing_body(), "contact.phone", "1"), "bant.need.fields", {"colour": "red"})
    inquiry = msgspec.convert(changed(body, "bant.budget.currency", "EUR"), InquiryBody)
    outcome = read_inquiry(inquiry, None, find_area(inquiry.contact), mode=Mode.live, now=NOW)
    assert isinstance(outcome, tuple)
    assert [(fault.pointer, fault.code) for fault in outcome] == [
        ("/vertical", "vertical_unknown"),
        ("/contact/phone", "phone_invalid"),
    ]


def test_no_fault_repeats_contact_data() -> None:
    body = changed(changed(roofing_body(), "contact.phone", "555 0199 secret"), "contact.email", "secret@nowhere")
    outcome = submit(changed(body, "consent.ip", "secret"))
    assert isinstance(outcome, tuple)
    assert "secret" not in repr(outcome)


def test_an_inquiry_may_leave_out_all_that_is_optional() -> None:
    body = {
        "vertical": "roofing",
        "contact": {"full_name": "Robin", "phone": "312 555 0100", "email": "r@example.com"},
        "consent": {"text": "Yes", "given_at": iso(NOW), "page_url": "https://example.com"},
    }
    accepted = accept(body, roofing_rules(needs={}))
    assert (accepted.facts.submitted_at, accepted.facts.timing, accepted.facts.budget) == (NOW, None, None)
    assert accepted.facts.place.time_zone == "America/Chicago"  # the only zone of the number


def test_a_vertical_may_do_without_a_phone_number_but_not_without_any_way_to_reach_the_person() -> None:
    rules = roofing_rules(requires_phone=False, requires_email=False)
    without_phone = changed(roofing_body(), "contact.phone", None)
    accepted = accept(without_phone, rules)
    assert accepted.contact.phone is None
    assert accepted.facts.signals.phone_type == "other"
    assert faults(changed(without_phone, "contact.email", None), rules) == [("/contact", "field_missing")]


def test_a_postal_code_of_a_country_without_known_areas_is_accepted() -> None:
    body = changed(changed(roofing_body(), "contact.country", "gb"), "contact.postal_code", "sw1a  1aa")
    place = accept(body, STRICT).facts.place
    assert (place.country, place.postal_code, place.latitude) == ("GB", "SW1A 1AA", None)


def test_an_unknown_postal_code_is_accepted_if_the_vertical_does_not_require_one() -> None:
    assert accept(changed(roofing_body(), "contact.postal_code", "99999")).facts.place.postal_code == "99999"
    assert accept(changed(roofing_body(), "contact.postal_code", "nowhere")).facts.place.postal_code is None


def test_an_empty_timing_means_no_timing() -> None:
    assert accept(changed(roofing_body(), "bant.timing", {})).facts.timing is None


def test_touches_are_kept_in_order_of_time_without_their_queries() -> None:
    touches = [
        {"kind": "click", "at": "2026-11-21T04:00:00-05:00", "detail": "/b?phone=+13125550100"},
        {"kind": "page_view", "at": iso(NOW - 2 * DAY), "detail": "/a"},
    ]
    history = accept(roofing_body(touches=touches)).facts.touches
    assert [touch.detail for touch in history] == ["/a", "/b"]
    assert history[1].at == datetime(2026, 11, 21, 9, tzinfo=UTC)


def test_a_long_query_does_not_make_a_touch_too_long() -> None:
    touch = {"kind": "page_view", "at": iso(NOW), "detail": "/a?" + "x" * 1_000}
    assert accept(roofing_body(touches=[touch])).facts.touches[0].detail == "/a"


@pytest.mark.parametrize("between", [" ", "\t", "\u00a0", "\n", "/", " - ", "\u200b"])
def test_card_numbers_in_the_persons_own_words_are_masked(between: str) -> None:
    card = between.join(["4111", "1111", "1111", "1111"])
    body = changed(roofing_body(), "bant.need.summary", f"my card {card}")
    for field in ("full_name", "street", "role"):
        body = changed(body, f"contact.{field}", f"x {card}")
    body = changed(body, "touches", [{"kind": "chat", "at": iso(NOW), "detail": f"card {card}"}])
    accepted = accept(body)
    texts = (accepted.contact.full_name, accepted.contact.street, accepted.facts.role, accepted.contact.summary)
    for text in (*texts, accepted.facts.touches[0].detail):
        assert text is not None
        assert "•" * 16 in text
        assert "1111" not in text


def test_a_possible_number_is_accepted_with_its_verification_and_an_unknown_kind() -> None:
    accepted = accept(changed(roofing_body(), "contact.phone", "+1 861 997 0142"))
    assert accepted.contact.phone == "+18619970142"
    assert accepted.fingerprints[0] == "live:phone:+18619970142"
    signals = accepted.facts.signals
    assert (signals.phone_type, signals.phone_region, signals.phone_verification) == ("unknown", None, "possible")
    assert accept(roofing_body()).facts.signals.phone_verification == "valid"


def test_a_vertical_may_refuse_possible_numbers() -> None:
    body = changed(roofing_body(), "contact.phone", "+1 861 997 0142")
    rules = roofing_rules(accepts_possible_phones=False)
    assert faults(body, rules) == [("/contact/phone", "phone_invalid")]
    assert faults(roofing_body(), rules) == []


def test_times_are_compared_as_far_as_their_precision_and_two_clocks_allow() -> None:
    body = changed(roofing_body(), "submitted_at", "2026-11-21T09:59:33Z")
    assert faults(changed(body, "consent.given_at", "2026-11-21T09:59:33.412Z")) == []
    assert faults(changed(body, "consent.given_at", "2026-11-21T09:59:35.9Z")) == []
    assert faults(changed(body, "consent.given_at", "2026-11-21T09:59:36.1Z")) == [
        ("/consent/given_at", "consent_after_submission")
    ]


def test_a_body_at_every_limit_is_read() -> None:
    body = roofing_body(
        touches=[{"kind": "k" * 40, "at": iso(NOW), "detail": "d" * 200}] * 50,
        metadata={f"{n:064}": "v" * 200 for n in range(20)},
    )
    body = changed(body, "attribution.sub_ids", {f"{n:064}": "v" * 200 for n in range(20)})
    assert isinstance(submit(body), AcceptedInquiry)


def test_a_posted_body_never_shows_itself() -> None:
    inquiry = decode_inquiry(json.dumps(roofing_body()).encode())
    assert isinstance(inquiry, InquiryBody)
    for part in (inquiry, inquiry.contact, inquiry.consent, inquiry.bant, accept(roofing_body())):
        assert not any(secret in repr(part) for secret in ("Robin", "555", "@", "192.0.2.7", "leak"))
