"""Certificates of consent: kinds and tokens, what a vertical makes of a failed one, and when a claim is tried again.

A certificate is a record that a service made when the person filled in the form. It proves the consent once it was
claimed: the service then keeps it, and says whether the page and the person are those of the inquiry.
"""

import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec


class CertificateKind(StrEnum):
    """Service that made a certificate."""

    trustedform = "trustedform"
    """TrustedForm: an address of cert.trustedform.com."""
    jornaya = "jornaya"
    """Jornaya LeadiD: a UUID."""


class CertificateStanding(StrEnum):
    """Standing of all certificates of one lead together."""

    pending = "pending"
    """At least one was not claimed yet. The database refuses to award or expose such a lead."""
    verified = "verified"
    """All were claimed, and are of this person and page."""
    failed = "failed"
    """At least one is of another person or page, is not valid, or was never answered for."""


class CertificateState(StrEnum):
    """State of one certificate."""

    pending = "pending"
    """Not claimed yet."""
    verified = "verified"
    """The service keeps it, and it is of this person and page."""
    mismatched = "mismatched"
    """It is of another person or another page."""
    refused = "refused"
    """The service does not know it, or it can no longer be claimed."""
    unanswered = "unanswered"
    """The service gave no answer that could be read until the limit of the vertical."""


class FailureConsequence(StrEnum):
    """Consequence of a certificate that is not verified."""

    reject = "reject"
    """The lead ends after a few attempts within seconds."""
    hold = "hold"
    """The lead waits for an answer for up to `hold_seconds`, then ends."""
    accept_with_flag = "accept_with_flag"
    """The lead goes on after a few attempts within seconds, and its business is told."""


LONGEST_HOLD_SECONDS: Final = 3_600
"Longest wait for an answer: an hour, so that every lead still ends within 25 hours."


class CertificatePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Requirements of a vertical on certificates of consent.

    `required`: an inquiry without a certificate is refused. `hold_seconds` counts from the first attempt.
    """

    required: bool = False
    on_failure: FailureConsequence = FailureConsequence.accept_with_flag
    hold_seconds: Annotated[int, msgspec.Meta(ge=60, le=LONGEST_HOLD_SECONDS)] = 900


ANY_CERTIFICATE: Final = CertificatePolicy()
"The policy of a vertical without requirements."

TRUSTEDFORM_HOST: Final = "cert.trustedform.com"
_TRUSTEDFORM_PATH: Final = re.compile(r"/[0-9a-f]{40}", re.IGNORECASE)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

CERTIFICATES_IN_WORDS: Final = (
    f"a TrustedForm certificate (https://{TRUSTEDFORM_HOST}/ and 40 hexadecimal digits) or a Jornaya LeadiD (a UUID)"
)
"The accepted certificates, for the fault of another text."

MOST_QUICK_ATTEMPTS: Final = 3
"Attempts to claim a certificate for a vertical that does not wait."
PAUSES: Final = (timedelta(seconds=1), timedelta(seconds=4), timedelta(seconds=15), timedelta(seconds=60))
"Pauses after the attempts in their order; the last one repeats."


def read_certificate(token: str) -> CertificateKind | None:
    """Return the service that a token belongs to by its form and host, or None: nothing is looked up."""
    text = token.strip()
    if _UUID.fullmatch(text):
        return CertificateKind.jornaya
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    plain = parts.scheme == "https" and parts.netloc.casefold() == TRUSTEDFORM_HOST and port is None
    if plain and _TRUSTEDFORM_PATH.fullmatch(parts.path) and not parts.query and not parts.fragment:
        return CertificateKind.trustedform
    return None


def certificate_key(token: str) -> str:
    """Return the part of a token that names the certificate: 40 hexadecimal digits, or a UUID, in lower case."""
    text = token.strip()
    return str(UUID(text)) if _UUID.fullmatch(text) else urlsplit(text).path.removeprefix("/").lower()


def next_claim_at(policy: CertificatePolicy, attempts: int, first_at: datetime, now: datetime) -> datetime | None:
    """Return the time of the next attempt after `attempts` without an answer; None when the limit is reached."""
    next_at = now + PAUSES[min(attempts, len(PAUSES)) - 1]
    if policy.on_failure is FailureConsequence.hold:
        return next_at if next_at < first_at + timedelta(seconds=policy.hold_seconds) else None
    return next_at if attempts < MOST_QUICK_ATTEMPTS else None


def is_same_site(page: str, other: str) -> bool:
    """Return whether two pages are of one host, whatever the case, the port and a leading `www.`.

    Paths are not compared: the form of one page often leads to another, and its address then names that.
    """
    return _site(page) is not None and _site(page) == _site(other)


def _site(page: str) -> str | None:
    try:
        host = urlsplit(page if "://" in page else f"//{page}").hostname
    except ValueError:
        return None
    return host.removeprefix("www.").rstrip(".") if host else None
