"""Persons: the marks of a contact by which two inquiries are one person's, as each vertical decides."""

from enum import StrEnum
from typing import Final


class SamePerson(StrEnum):
    """Marks that two inquiries of a vertical must share to be one person's."""

    either = "either"
    """The phone number or the e-mail address. The surest way not to sell one person twice."""
    both = "both"
    """The phone number and the e-mail address together: members of a family share a telephone."""
    phone = "phone"
    """The phone number with its extension: people of one company share a switchboard or a mailbox."""


PERSON_IN_WORDS: Final = {
    SamePerson.either: "phone or e-mail is the same",
    SamePerson.both: "phone and e-mail are the same",
    SamePerson.phone: "phone and extension are the same",
}
"What two inquiries of one person have in common, in words."
