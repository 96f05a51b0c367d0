import msgspec
import pytest

from marketplace.intake.contact import (
    Contact,
    Email,
    Phone,
    fingerprints,
    read_email,
    read_phone,
)
from marketplace.text.faults import Fault
from routing.inquiry import Mode
from tests.builders.inquiries import accept, roofing_body


@pytest.mark.parametrize(
    ("text", "country", "e164", "kind"),
    [
        ("+1 312 555 0100", "US", "+13125550100", "fixed_or_mobile"),
        ("(312) 555-0100", "US", "+13125550100", "fixed_or_mobile"),
        ("٣١٢٥٥٥٠١٠٠", "US", "+13125550100", "fixed_or_mobile"),
        ("tel:+1-312-555-0100", "US", "+13125550100", "fixed_or_mobile"),
        ("+44 7400 123456", "US", "+447400123456", "mobile"),
        ("020 7946 0018", "GB", "+442079460018", "fixed_line"),
        ("+44 56 1234 5678", "GB", "+445612345678", "voip"),
    ],
)
def test_a_number_as_people_write_it_becomes_e164_with_its_kind(text: str, country: str, e164: str, kind: str) -> None:
    phone = read_phone(text, country)
    assert isinstance(phone, Phone)
    assert (phone.e164, phone.kind) == (e164, kind)


def test_an_extension_is_kept_beside_the_number() -> None:
    phone = read_phone("312 555 0100 ext. 45", "US")
    assert isinstance(phone, Phone)
    assert (phone.e164, phone.extension) == ("+13125550100", "45")


def test_a_number_that_no_published_range_has_is_possible_and_of_unknown_kind() -> None:
    phone = read_phone("+1 861 997 0142", "US")
    assert isinstance(phone, Phone)
    assert (phone.e164, phone.verification, phone.kind, phone.region) == ("+18619970142", "possible", "unknown", None)
    published = read_phone("+1 312 555 0100", "US")
    assert isinstance(published, Phone)
    assert published.verification == "valid"


@pytest.mark.parametrize(
    "text",
    [
        "club 908 conyers",
        "1-800-FLOWERS",
        "312 555 0100 home",
        "2222222222",
        "+1 012 345 6789",
        "+1 112 345 6789",
        "861 997 014",
        "861 997 01420",
        "+7 000 000 00 00",
    ],
)
def test_words_and_numbers_that_no_plan_allows_are_invalid(text: str) -> None:
    fault = read_phone(text, "US")
    assert isinstance(fault, Fault)
    assert fault.code == "phone_invalid"


def test_a_number_has_a_time_zone_if_its_range_lies_in_only_one() -> None:
    chicago, london = read_phone("+1 312 555 0100", "US"), read_phone("+44 7400 123456", "US")
    assert isinstance(chicago, Phone)
    assert isinstance(london, Phone)
    assert (chicago.time_zone, london.time_zone) == ("America/Chicago", None)


@pytest.mark.parametrize(
    "text", ["+1 555 0100", "0000000000", "911", "hello", "", "1" * 40, "+", "+1 312 555 01000000"]
)
def test_a_number_that_cannot_exist_is_invalid(text: str) -> None:
    fault = read_phone(text, "US")
    assert isinstance(fault, Fault)
    assert (fault.pointer, fault.code) == ("/contact/phone", "phone_invalid")


@pytest.mark.parametrize("text", ["+1 900 234 5678", "800 234 5678", "+44 9012345678", "+44 843 1234567"])
def test_numbers_that_bill_or_that_nobody_owns_are_not_accepted(text: str) -> None:
    fault = read_phone(text, "US")
    assert isinstance(fault, Fault)
    assert fault.code == "phone_type_not_accepted"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("Robin.Lee+x@Example.COM", "Robin.Lee+x@example.com"),
        (" robin@example.com ", "robin@example.com"),
        ("robin@exämple.com", "robin@xn--exmple-cua.com"),
        ("robin@g\u043e\u043egle.com", "robin@xn--ggle-55da.com"),  # Cyrillic letters show themselves as punycode
    ],
)
def test_an_address_keeps_its_local_part_and_its_domain_becomes_ascii(text: str, address: str) -> None:
    email = read_email(text)
    assert isinstance(email, Email)
    assert email.address == address


@pytest.mark.parametrize(
    "text",
    [
        "a@b",
        '"q"@example.com',
        '"<script>"@example.com',
        "a@example.com\nBcc: b@example.com",
        "a@[127.0.0.1]",
        "a@x.test",
        "a\u3164@example.com",
        "a\u200b@example.com",
    ],
)
def test_an_address_that_no_mail_reaches_is_invalid(text: str) -> None:
    fault = read_email(text)
    assert isinstance(fault, Fault)
    assert (fault.pointer, fault.code) == ("/contact/email", "email_invalid")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@mailinator.com", True),
        ("a@box.mailinator.com", True),
        ("a@example.com", False),
        ("a@com.example.com", False),
    ],
)
def test_a_throw_away_domain_is_a_signal_at_any_depth(text: str, expected: bool) -> None:
    email = read_email(text)
    assert isinstance(email, Email)
    assert email.disposable is expected


def test_fingerprints_ignore_case_of_the_address_and_never_mix_modes() -> None:
    contact = msgspec.structs.replace(accept(roofing_body()).contact, email="Robin@example.com")
    assert fingerprints(contact, Mode.live) == ("live:phone:+13125550101", "live:email:robin@example.com")
    assert not set(fingerprints(contact, Mode.live)) & set(fingerprints(contact, Mode.test))
    assert fingerprints(msgspec.structs.replace(contact, email=None), Mode.live) == ("live:phone:+13125550101",)


def test_a_contact_never_shows_itself_but_survives_json() -> None:
    contact = accept(roofing_body()).contact
    for text in (repr(contact), str(contact), f"{contact}", repr([contact]), repr(contact.consent)):
        assert not any(secret in text for secret in ("Robin", "555", "@", "192.0.2.7", "leak"))
    assert contact.__rich_repr__() == []
    assert msgspec.json.decode(msgspec.json.encode(contact), type=Contact) == contact
