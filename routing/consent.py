"""Terms of a person's consent that rules may read: sellers, channels, purposes, end and jurisdiction.

They are read from the consent record of the inquiry and never guessed: a word that names no channel is refused at
intake. Names are compared in one normal form, never by likeness.
"""

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from routing.certificate import CertificateKind


class Channel(StrEnum):
    """Way in which a business contacts a person."""

    call = "call"
    """A telephone call."""
    text = "text"
    """A text message to a telephone number."""
    email = "email"
    """An e-mail."""
    post = "post"
    """A letter to the postal address."""


class ConsentTerms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Terms of a consent, as its record states them. An empty tuple or None: the record says nothing about it.

    `sellers` are the businesses that the person agreed to hear from, as they were shown. `purposes` are in lower case.
    `expires_at` is in UTC; from then on nobody may contact the person. `jurisdiction` is a country (`US`) or a part of
    it (`US-CA`) in ISO 3166. `certificates` are the services whose certificates came with it.
    """

    sellers: tuple[str, ...] = ()
    channels: tuple[Channel, ...] = ()
    purposes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    jurisdiction: str | None = None
    certificates: tuple[CertificateKind, ...] = ()


class ConsentNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """Requirements on the terms of a consent. An empty one takes every consent; what a consent does not say fails any
    other.

    The consent must license all `channels`, name one of `purposes` (whatever the case), and be of one of
    `jurisdictions`: a country (`US`) or a part of it (`US-CA`).
    """

    channels: tuple[Channel, ...] = ()
    purposes: tuple[str, ...] = ()
    jurisdictions: tuple[str, ...] = ()


NO_NEEDS: Final = ConsentNeeds()
"The needs of a subscription without requirements."


class ConsentPolicy(ConsentNeeds, frozen=True, kw_only=True):
    """Requirements of a vertical on the consent of every lead.

    A consent that names sellers is always for them alone. With `requires_named_seller`, one that names nobody is for
    nobody.
    """

    requires_named_seller: bool = False


ANY_CONSENT: Final = ConsentPolicy()
"The policy of a vertical without requirements."


_CHANNEL_WORDS: Final = {
    "call": Channel.call,
    "calls": Channel.call,
    "voice": Channel.call,
    "phone": Channel.call,
    "phone call": Channel.call,
    "phone calls": Channel.call,
    "telephone": Channel.call,
    "text": Channel.text,
    "texts": Channel.text,
    "text message": Channel.text,
    "text messages": Channel.text,
    "sms": Channel.text,
    "mms": Channel.text,
    "email": Channel.email,
    "emails": Channel.email,
    "e mail": Channel.email,
    "e mails": Channel.email,
    "post": Channel.post,
    "letter": Channel.post,
    "postal mail": Channel.post,
    "direct mail": Channel.post,
}
"""Usual words for each channel, in lower case with single spaces. "phone" licenses calls alone, because it may mean no
more. "mail" is missing: it may mean e-mail or a letter."""

CHANNELS_IN_WORDS: Final = "call (or phone, voice), text (or sms), email, post (or letter)"
"Accepted words, for the fault of an unknown one."

_JURISDICTION: Final = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")

_LEGAL_FORMS: Final = frozenset(
    (
        "ag",
        "bv",
        "co",
        "company",
        "corp",
        "corporation",
        "gmbh",
        "inc",
        "incorporated",
        "kg",
        "limited",
        "llc",
        "llp",
        "lp",
        "ltd",
        "nv",
        "oy",
        "plc",
        "pllc",
        "pty",
        "sa",
        "sarl",
        "srl",
        "ug",
    )
)
"Legal forms that are left out at the end of a name, without punctuation."


def read_channel(word: str) -> Channel | None:
    """Return the channel that a word names, whatever its case, hyphens and underscores; None if it names none."""
    return _CHANNEL_WORDS.get(" ".join(re.split(r"[\s_-]+", word.strip().casefold())))


def is_jurisdiction(text: str) -> bool:
    """Return whether a text has the form of an ISO 3166 country (`US`) or subdivision (`US-CA`)."""
    return _JURISDICTION.fullmatch(text) is not None


def fold_seller(name: str) -> str:
    """Return the normal form of a business's name: lower case, without accents, punctuation and final legal forms.

    Two names are the same seller's if their normal forms are equal. Nothing else counts, so that a name that is merely
    like another never passes.
    """
    letters = unicodedata.normalize("NFKD", name.casefold().replace("&", " and "))
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    words = re.sub(r"[^\w\s]", "", re.sub(r"[-/,_]", " ", plain)).split()
    end = len(words)
    while end > 1 and words[end - 1] in _LEGAL_FORMS:
        end -= 1
    return " ".join(words[:end])


def fold_sellers(names: Iterable[str]) -> frozenset[str]:
    """Return the normal forms of names, without those that have no letter and no digit."""
    return frozenset(filter(None, map(fold_seller, names)))


def is_expired(terms: ConsentTerms | None, now: datetime) -> bool:
    """Return whether the consent has ended. One without an end, and one of before ends were recorded, has not."""
    return terms is not None and terms.expires_at is not None and terms.expires_at <= now


def lies_in(jurisdiction: str | None, region: str) -> bool:
    """Return whether a jurisdiction is the region or a part of it: `US-CA` lies in `US`, but `US` not in `US-CA`."""
    return jurisdiction is not None and (jurisdiction == region or jurisdiction.startswith(f"{region}-"))


_PERMITTED: Final = {
    Channel.call: "called",
    Channel.text: "texted",
    Channel.email: "e-mailed",
    Channel.post: "written to by post",
}


def licensed_channels(terms: ConsentTerms | None) -> tuple[Channel, ...]:
    """Return the channels that a consent licenses. One that names none does not limit them."""
    return terms.channels if terms is not None and terms.channels else tuple(Channel)


def channels_in_words(terms: ConsentTerms | None) -> str:
    """Return how the person may be contacted: "May be called and texted, not e-mailed or written to by post"."""
    if terms is None or not terms.channels:
        return "The consent does not say how the person may be contacted"
    allowed = " and ".join(words for channel, words in _PERMITTED.items() if channel in terms.channels)
    refused = " or ".join(words for channel, words in _PERMITTED.items() if channel not in terms.channels)
    return f"May be {allowed}" + (f", not {refused}" if refused else "")


def unlicensed(terms: ConsentTerms, channels: Iterable[Channel]) -> tuple[Channel, ...]:
    """Return those of the channels that the consent does not license: all of them if it names none."""
    return tuple(channel for channel in channels if channel not in terms.channels)
