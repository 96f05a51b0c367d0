"""Terms of a person's consent that rules may read: sellers, channels, purposes, end and jurisdiction.

They are read from the consent record of the inquiry and never guessed: a word that names no channel is refused at
intake. Names are compared in one normal form, never by likeness.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec


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
    it (`US-CA`) in ISO 3166.
    """

    sellers: tuple[str, ...] = ()
    channels: tuple[Channel, ...] = ()
    purposes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    jurisdiction: str | None = None


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
"""Usual words for each channel. "phone" licenses calls alone, because it may mean no more. "mail" is missing: it may
mean e-mail or a letter."""

CHANNELS_IN_WORDS: Final = "call (or phone, voice), text (or sms), email, post (or letter)"
"Accepted words, for the fault of an unknown one."

_JURISDICTION: Final = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")

_LEGAL_FORMS: Final = frozenset(
    "ag bv co company corp corporation gmbh inc incorporated kg limited llc llp lp ltd nv oy plc pllc pty sa sarl srl"
    " ug".split()
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


def lies_in(jurisdiction: str, region: str) -> bool:
    """Return whether a jurisdiction is the region or a part of it: `US-CA` lies in `US`, `US` not in `US-CA`."""
    return jurisdiction == region or jurisdiction.startswith(f"{region}-")


def unlicensed(terms: ConsentTerms | None, channels: Iterable[Channel]) -> Iterator[Channel]:
    """Yield the channels that the consent does not license: all of them if it names none."""
    licensed = terms.channels if terms is not None else ()
    return (channel for channel in channels if channel not in licensed)
