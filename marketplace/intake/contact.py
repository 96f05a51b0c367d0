"""Contact data: checks of a phone number and an e-mail address, and the sealed record of a person.

All of it identifies a person. So the text form of these Structs is their name alone, and no fault repeats a value. A
valid number or address is one that can exist; nothing here checks whether somebody answers.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import Any, Final

import msgspec
import phonenumbers
from disposable_email_domains import blocklist
from email_validator import EmailNotValidError, validate_email
from phonenumbers import PhoneNumber, PhoneNumberType, ValidationResult, timezone
from phonenumbers.phonemetadata import PhoneMetadata

from marketplace.security.sealing import Sealer
from marketplace.text.characters import drop_ignorable, read_number
from marketplace.text.faults import Fault
from marketplace.text.mailbox import spellings
from routing.inquiry import UNKNOWN_PHONE, Mode, PhoneVerification
from routing.person import SamePerson


class PersonalData(msgspec.Struct, frozen=True, kw_only=True):
    """Struct that may hold contact data, and so never shows its fields in a log, a trace or an error."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Consent(PersonalData, frozen=True, kw_only=True):
    """Proof that the person agreed to be contacted: the words, the time, the page, and the details of the form."""

    text: str
    given_at: datetime
    page_url: str
    ip: str | None = None
    user_agent: str | None = None
    locale: str | None = None
    text_version: str | None = None
    form_version: str | None = None
    checked: bool | None = None
    purposes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    sellers: tuple[str, ...] = ()
    expires_at: datetime | None = None
    jurisdiction: str | None = None
    certificates: tuple[str, ...] = ()


class Contact(PersonalData, frozen=True, kw_only=True):
    """The person in full: sealed as JSON when the inquiry is accepted, opened for the one business that gets the lead.

    `phone` is E.164; `email` keeps its local part as it was sent, with the domain in lower-case ASCII.
    """

    full_name: str
    phone: str | None = None
    phone_extension: str | None = None
    email: str | None = None
    street: str | None = None
    postal_code: str | None = None
    country: str
    summary: str | None = None
    consent: Consent
    metadata: dict[str, str] = msgspec.field(default_factory=dict)

    def filled_fields(self) -> tuple[str, ...]:
        """Return the names of the fields that have a value: the fields that a reader of this contact has seen."""
        return tuple(name for name in self.__struct_fields__ if getattr(self, name))


class Phone(PersonalData, frozen=True, kw_only=True):
    """Telephone number that can exist. `time_zone` is None if its range lies in several zones.

    A number that is only `possible` lies in a range that the numbering data does not list, so its kind is `unknown`.
    """

    e164: str
    verification: PhoneVerification
    extension: str | None
    kind: str
    region: str | None
    time_zone: str | None


class Email(PersonalData, frozen=True, kw_only=True):
    """E-mail address that can exist. `disposable` is a signal for the rules, never a reason to refuse the inquiry."""

    address: str
    disposable: bool


_PHONE_KINDS: Final = {
    PhoneNumberType.MOBILE: "mobile",
    PhoneNumberType.FIXED_LINE: "fixed_line",
    PhoneNumberType.FIXED_LINE_OR_MOBILE: "fixed_or_mobile",
    PhoneNumberType.VOIP: "voip",
}
_PHONE_REFUSED: Final = frozenset(
    {PhoneNumberType.PREMIUM_RATE, PhoneNumberType.TOLL_FREE, PhoneNumberType.SHARED_COST, PhoneNumberType.PAGER}
)
"Kinds of numbers that no person answers, or that cost the caller extra."


def read_phone(text: str, country: str) -> Phone | Fault:
    """Return the number in E.164 with its kind, or a Fault; a number in national form is one of `country`.

    Digits may be of any script, with the usual marks between them. Any other text, such as a word, is a Fault.
    """
    number_text = read_number(text)
    if number_text is None:
        return _phone_invalid()
    try:
        number = phonenumbers.parse(number_text.dialled, country)
    except phonenumbers.NumberParseException:
        return _phone_invalid()
    verification = _verify(number)
    if verification is None:
        return _phone_invalid()
    number_type = phonenumbers.number_type(number)
    if number_type in _PHONE_REFUSED:
        detail = "Send the person's own number, not a premium-rate, toll-free, shared-cost or pager number."
        return Fault(pointer="/contact/phone", code="phone_type_not_accepted", detail=detail)
    kind = UNKNOWN_PHONE if verification is PhoneVerification.possible else _PHONE_KINDS.get(number_type, "other")
    region = phonenumbers.region_code_for_number(number)
    zones = timezone.time_zones_for_number(number)
    has_one_zone = len(zones) == 1 and zones[0] != "Etc/Unknown"
    zone = zones[0] if has_one_zone else None
    return Phone(
        e164=phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164),
        verification=verification,
        extension=number_text.extension,
        kind=kind,
        region=region if region in phonenumbers.SUPPORTED_REGIONS else None,
        time_zone=zone,
    )


def _verify(number: PhoneNumber) -> PhoneVerification | None:
    """Return the result of checking a number against the numbering data, or None if the number cannot exist.

    A possible number has a length and first digits that its country's plan allows. A single digit repeated throughout
    is never possible: people type such numbers to get past a form.
    """
    if phonenumbers.is_valid_number(number):
        return PhoneVerification.valid
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        return None
    digits = phonenumbers.national_significant_number(number)
    follows_plan = any(
        re.fullmatch(pattern, digits) for pattern in _plan_patterns(number.country_code or 0) if len(set(digits)) > 1
    )
    return PhoneVerification.possible if follows_plan else None


@cache
def _plan_patterns(country_code: int) -> tuple[str, ...]:
    """Return the patterns of the national numbers of a calling code, for every country that shares it."""
    plans = (
        PhoneMetadata.metadata_for_region(region) for region in phonenumbers.region_codes_for_country_code(country_code)
    )
    general = (plan.general_desc for plan in plans if plan is not None)
    return tuple({desc.national_number_pattern for desc in general if desc and desc.national_number_pattern})


def _phone_invalid() -> Fault:
    detail = "Send a phone number that exists, in international form such as +1 202 555 0143."
    return Fault(pointer="/contact/phone", code="phone_invalid", detail=detail)


LONGEST_EMAIL: Final = 254
"Most characters of an address that mail can be sent to (RFC 5321, erratum 1690)."


def read_email(text: str) -> Email | Fault:
    """Return the address, or a Fault. The check is one of syntax; nothing is looked up on the network."""
    if len(text) > LONGEST_EMAIL:
        return _email_invalid()
    try:
        valid = validate_email(text.strip(" "), check_deliverability=False)
    except EmailNotValidError:
        return _email_invalid()
    if drop_ignorable(valid.local_part) != valid.local_part:
        return _email_invalid()
    domain = valid.ascii_domain.lower()
    return Email(address=f"{valid.local_part}@{domain}", disposable=_is_disposable(domain))


def _email_invalid() -> Fault:
    detail = "Send an e-mail address of the form name@example.com."
    return Fault(pointer="/contact/email", code="email_invalid", detail=detail)


def _is_disposable(domain: str) -> bool:
    """Return whether the domain, or a parent of it, is one of a provider of throw-away addresses."""
    labels = domain.split(".")
    return any(".".join(labels[start:]) in blocklist for start in range(len(labels) - 1))


def marks_of_phone(e164: str) -> tuple[str, ...]:
    """Return the marks by which a phone number identifies a person, in plain text."""
    return (f"phone:{e164}",)


def marks_of_email(address: str) -> tuple[str, ...]:
    """Return the marks by which an e-mail address identifies a person, in plain text: the mailbox first."""
    return tuple(f"email:{spelling}" for spelling in spellings(address))


def marks_with_hashes(marks: Iterable[str]) -> list[str]:
    """Return the marks of a person, and the marks under which a list has plain SHA-256 hashes of the same.

    A phone number is hashed in international form with and without its plus, an address in the forms of
    `marks_of_email`.
    """
    own = tuple(marks)
    texts: dict[str, None] = {}
    for mark in own:
        kind, _, text = mark.partition(":")
        texts[text] = None
        if kind == "phone":
            texts[text.removeprefix("+")] = None
    return [*own, *(f"sha256:{sha256(text.encode()).hexdigest()}" for text in texts)]


PAIR: Final = "\n"
"Stands between the phone number and the e-mail address of a mark that is both. Neither contains it."


def window_key(sealer: Sealer, mark: str) -> bytes:
    """Return the keyed hash of a mark of `window_marks`."""
    mode, _, text = mark.partition(":")
    if PAIR not in text:
        return sealer.keyed_hash("person", mark)
    return pair_key(sealer, mode, *(sealer.keyed_hash("suppression", half) for half in text.split(PAIR)))


def pair_key(sealer: Sealer, mode: str, first_half: bytes, second_half: bytes) -> bytes:
    """Return the keyed hash of a phone number and an e-mail address together, from that of each in either order.

    So a correction of one of them makes the pair, although the other is sealed.
    """
    halves = ":".join(sorted((first_half.hex(), second_half.hex())))
    return sealer.keyed_hash("person", f"{mode}:pair:{halves}")


class WindowMarks(PersonalData, frozen=True, kw_only=True):
    """Marks of a person in plain text, for keyed hashing. Each begins with the mode, as in `fingerprints`.

    No second lead takes one of the `own` marks inside the window. The `shared` ones may be another person's as well.
    """

    own: tuple[str, ...]
    shared: tuple[str, ...]


def window_marks(contact: Contact, mode: Mode, same_person: SamePerson) -> WindowMarks:
    """Return the marks by which a person is taken once in a vertical with this setting.

    Under every setting there are all marks that another one would ask for, so that a window holds after a change of it.
    A contact that lacks what the setting asks for is found by each mark that it has.
    """
    phone = marks_of_phone(contact.phone) if contact.phone else ()
    email = marks_of_email(contact.email) if contact.email else ()
    extended = tuple(f"{number};ext={contact.phone_extension}" for number in phone if contact.phone_extension)
    pair = tuple(f"{number}{PAIR}{email[0]}" for number in phone if email)
    own = {SamePerson.either: (), SamePerson.both: pair, SamePerson.phone: extended or phone}[same_person]
    own = own or phone + email
    shared = tuple(mark for mark in (*phone, *extended, *email, *pair) if mark not in own)
    return WindowMarks(
        own=tuple(f"{mode}:{mark}" for mark in own),
        shared=() if same_person is SamePerson.either else tuple(f"{mode}:{mark}" for mark in shared),
    )


def fingerprints(contact: Contact, mode: Mode) -> tuple[str, ...]:
    """Return the fingerprints of a person in plain text, for keyed hashing: two inquiries that share one are one
    person's.

    Each begins with the mode, so that an inquiry in test mode never blocks a real person.
    """
    phone = marks_of_phone(contact.phone) if contact.phone else ()
    email = marks_of_email(contact.email) if contact.email else ()
    return tuple(f"{mode}:{mark}" for mark in phone + email)
