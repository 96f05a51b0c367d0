"""Search in the leads of a business by name, phone number, e-mail address, place or need.

Contacts are sealed and no index of them is stored: the newest leads are opened and compared. A whole phone number or
e-mail address is also found among all leads, by the keyed hashes that every lead has.
"""

import unicodedata
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from marketplace.intake.contact import Contact, marks_of_email, marks_of_phone, read_email, read_phone
from marketplace.portal.forms import label
from marketplace.security.sealing import Sealer
from marketplace.text.faults import WORDS, Fault

LONGEST_SEARCH: Final = 100
COUNTRIES: Final = ("US", "GB", "AU", "DE", "FR")
"Countries in whose national form a phone number may be typed; that of the US is Canada's as well."
LEAST_DIGITS: Final = 3
"Digits from which on a part of a phone number is looked for."


class LeadSearchForm(msgspec.Struct, frozen=True, kw_only=True):
    """Search for leads. `before` continues it behind a lead that was compared last."""

    q: Annotated[
        str,
        Meta(min_length=1, max_length=LONGEST_SEARCH, pattern=WORDS),
        label("Name, phone, e-mail, place or need", kind="search", autocomplete="off"),
    ]
    before: Annotated[str, Meta(max_length=64)] | None = None


def hash_person(sealer: Sealer, text: str) -> tuple[bytes, ...]:
    """Return the keyed hashes of a whole e-mail address or phone number; none for any other text."""
    if "@" in text:
        email = read_email(text.strip())
        marks = () if isinstance(email, Fault) else marks_of_email(email.address)
    else:
        phones = (read_phone(text, country) for country in COUNTRIES)
        marks = tuple(mark for phone in phones if not isinstance(phone, Fault) for mark in marks_of_phone(phone.e164))
    return tuple(sealer.keyed_hash("suppression", mark) for mark in dict.fromkeys(marks))


def fits(search: str, phone: str, *texts: str | None) -> bool:
    """Return whether each word of the search is in one of the texts, or the search is a part of the phone number.

    Case, accents, and the marks between the digits of a number do not count.
    """
    digits = "".join(filter(str.isdecimal, search)).lstrip("0")
    is_number = not any(map(str.isalpha, search))
    if is_number and len(digits) >= LEAST_DIGITS and digits in "".join(filter(str.isdecimal, phone)):
        return True
    text = fold(" ".join(filter(None, texts)))
    words = fold(search).split()
    return bool(words) and all(word in text for word in words)


def fold(text: str) -> str:
    """Return the text without accents and in one case."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


def contact_fits(search: str, contact: Contact, *texts: str | None) -> bool:
    """Return whether a contact, or one of the texts about its lead, fits the search."""
    own = (contact.full_name, contact.email, contact.street, contact.postal_code, contact.summary)
    return fits(search, contact.phone or "", *own, *texts)
