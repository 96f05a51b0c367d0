"""Contact data: how a name, a phone number and an e-mail address are checked, and the record of them that is sealed.

Everything here can name a person, so that nothing here shows itself: the text form of these Structs is their name
alone, and no fault repeats a value. Validity says that a number or an address can exist, never that somebody answers.
"""

import re
import unicodedata
from datetime import datetime
from typing import Any, Final

import msgspec
import phonenumbers
from disposable_email_domains import blocklist
from email_validator import EmailNotValidError, validate_email
from phonenumbers import PhoneNumberType, timezone

from marketplace.faults import Fault
from routing.inquiry import Mode


class Private(msgspec.Struct, frozen=True, kw_only=True):
    """A Struct that may hold contact data and so never shows its fields, in a log, a trace or an error."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Consent(Private, frozen=True, kw_only=True):
    """The proof that the person agreed to be contacted: the words, when, where, and what was shown with them."""

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


class Contact(Private, frozen=True, kw_only=True):
    """Who the lead is, in full: sealed as JSON when the inquiry is accepted, opened for the one business that gets it.

    `phone` is E.164; `email` keeps its local part as given, with the domain in lower-case ASCII.
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

    def given(self) -> tuple[str, ...]:
        """The names of what was given, without a value: what whoever sees this contact has seen."""
        return tuple(name for name in self.__struct_fields__ if getattr(self, name))


class Phone(Private, frozen=True, kw_only=True):
    """A number that can exist. `time_zone` is set where the number lies in exactly one."""

    e164: str
    extension: str | None
    kind: str
    region: str | None
    time_zone: str | None


class Email(Private, frozen=True, kw_only=True):
    """An address that can exist; `disposable` is a signal, never a refusal."""

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
"Numbers that no person answers at home, or that bill whoever calls them."


def read_phone(text: str, country: str) -> Phone | Fault:
    """The number in E.164 with its kind; national forms are read as those of `country`."""
    try:
        number = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        return _phone_invalid()
    if not phonenumbers.is_valid_number(number):
        return _phone_invalid()
    kind = phonenumbers.number_type(number)
    if kind in _PHONE_REFUSED:
        detail = "Send the person's own number, not a premium-rate, toll-free, shared-cost or pager number."
        return Fault(pointer="/contact/phone", code="phone_type_not_accepted", detail=detail)
    region = phonenumbers.region_code_for_number(number)
    zones = timezone.time_zones_for_number(number)
    return Phone(
        e164=phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164),
        extension=number.extension,
        kind=_PHONE_KINDS.get(kind, "other"),
        region=region if region in phonenumbers.SUPPORTED_REGIONS else None,
        time_zone=zones[0] if len(zones) == 1 and zones[0] != "Etc/Unknown" else None,
    )


def _phone_invalid() -> Fault:
    detail = "Send a phone number that exists, in international form such as +1 312 555 0100."
    return Fault(pointer="/contact/phone", code="phone_invalid", detail=detail)


def read_email(text: str) -> Email | Fault:
    """The address by syntax alone: nothing is looked up on the network."""
    try:
        valid = validate_email(text.strip(" "), check_deliverability=False)
    except EmailNotValidError:
        detail = "Send an e-mail address of the form name@example.com."
        return Fault(pointer="/contact/email", code="email_invalid", detail=detail)
    domain = valid.ascii_domain.lower()
    return Email(address=f"{valid.local_part}@{domain}", disposable=_is_disposable(domain))


def _is_disposable(domain: str) -> bool:
    """Whether the domain, or one that it lies under, hands out throw-away addresses."""
    labels = domain.split(".")
    return any(".".join(labels[start:]) in blocklist for start in range(len(labels) - 1))


def fingerprints(contact: Contact, mode: Mode) -> tuple[str, ...]:
    """What makes two inquiries the same person's, in plain text: to be hashed with a secret before it is stored.

    The mode is part of each, so that a rehearsal never blocks a real person.
    """
    phone = (f"{mode}:phone:{contact.phone}",) if contact.phone else ()
    email = (f"{mode}:email:{contact.email.lower()}",) if contact.email else ()
    return phone + email


# Text as people may send it.

_BIDI: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"Marks that turn the direction of what follows, and so can make a text look like another."


def clean_text(text: str) -> str:
    """Without control characters, except line feeds and tabs, and without marks of direction; trimmed."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = (character for character in lines if character in "\n\t" or unicodedata.category(character) != "Cc")
    return _BIDI.sub("", "".join(kept)).strip()


def clean_line(text: str) -> str:
    """As `clean_text`, in one line with single spaces."""
    return " ".join(clean_text(text).split())


def is_visible(text: str) -> bool:
    """Whether anything would be seen: a letter, a digit, a sign or a symbol, in any script."""
    return any(unicodedata.category(character)[0] in "LNPS" for character in text)


_DIGIT_RUN: Final = re.compile(r"[0-9](?:[ .-]?[0-9]){12,}")
_CARD_DIGITS: Final = range(13, 20)
"Payment cards have 13 to 19 digits (ISO/IEC 7812)."


def mask_cards(text: str) -> str:
    """The text with every run of digits that could be a payment card's replaced by bullets."""
    return _DIGIT_RUN.sub(lambda run: _mask_run(run[0]), text)


def _mask_run(run: str) -> str:
    """Cards begin and end where a group of digits does, so that a phone number beside one does not hide it."""
    groups = list(re.finditer(r"[0-9]+", run))
    masked = list(run)
    for first, start in enumerate(groups):
        for end in groups[first:]:
            card = slice(start.start(), end.end())
            digits = re.sub(r"[^0-9]", "", run[card])
            if len(digits) in _CARD_DIGITS and _passes_luhn(digits):
                masked[card] = "•" * len(run[card])
    return "".join(masked)


def _passes_luhn(digits: str) -> bool:
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(sum(divmod(2 * value, 10)) for value in values[1::2])) % 10 == 0
