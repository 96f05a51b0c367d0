"""Requests to the services that make certificates, and what their answers mean. No network here.

TrustedForm: version 4 of its API, as ActiveProspect publishes it. Jornaya publishes its API to customers alone, so that
a claim of a LeadiD goes to an adapter at the configured address: a POST to `<address>/<uuid>`, answered with
`{"outcome", "fingerprints": {"phone", "email"}, "page_url", "expires_at"}`, the fingerprints as hashes (SHA-1 or
SHA-256, hexadecimal) of the digits of a number and of an address in lower case.
"""

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, assert_never

import msgspec

from marketplace.webhook.transport import WebhookMessage
from routing.certificate import CertificateKind, CertificateState, is_same_site
from routing.delivery import AnswerReceived, NoAnswer, NotSent, Observation

BUSY_STATUSES: Final = frozenset({408, 425, 429})


class ClaimReason(StrEnum):
    """Reason of the state of a certificate."""

    claimed = "claimed"
    """The service keeps it, and nothing contradicts the inquiry."""
    phone_differs = "phone_differs"
    """It was made for another telephone number."""
    email_differs = "email_differs"
    """It was made for another e-mail address, and there is no telephone number to compare."""
    page_differs = "page_differs"
    """It was made on the page of another site."""
    not_valid = "not_valid"
    """The service does not know it, or it can no longer be claimed."""
    no_account = "no_account"
    """No account of this service is configured."""
    key_refused = "key_refused"
    """The service does not accept the configured key."""
    not_reached = "not_reached"
    """The service could not be reached."""
    no_answer = "no_answer"
    """The service did not answer in time."""
    busy = "busy"
    """The service had an error of its own, or too many requests."""
    redirected = "redirected"
    """The service answered with another address; none is followed."""
    unreadable = "unreadable"
    """The answer was cut off, too long, compressed or not in the agreed form."""
    erased = "erased"
    """The person was erased before it was claimed."""


class CertificateClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate to claim, with the contact data and the page to compare: sealed until the claim is settled."""

    key: str
    phone: str | None = None
    email: str | None = None
    page_url: str

    def __repr__(self) -> str:
        return "CertificateClaim(…)"

    __str__ = __repr__


class ServiceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Account of the operator at a service: the address of its API without a final slash, and the key."""

    url: str
    key: str

    def __repr__(self) -> str:
        return f"ServiceAccount(url={self.url!r}, key=…)"

    __str__ = __repr__


class ClaimResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one attempt to claim. `state` is None if there was no answer, so that it may be tried again.

    The comparisons are None where the service says nothing. `response_sha256` is the hash of the whole answer.
    """

    state: CertificateState | None
    reason: ClaimReason
    response_sha256: bytes | None = None
    expires_at: datetime | None = None
    phone_matches: bool | None = None
    email_matches: bool | None = None
    page_matches: bool | None = None


class _Match(msgspec.Struct, frozen=True, kw_only=True):
    phone_match: bool | None = None
    email_match: bool | None = None


class _Matched(msgspec.Struct, frozen=True, kw_only=True):
    result: _Match = _Match()


class _Retention(msgspec.Struct, frozen=True, kw_only=True):
    expires_at: datetime | None = None


class _Retained(msgspec.Struct, frozen=True, kw_only=True):
    result: _Retention = _Retention()


class _Properties(msgspec.Struct, frozen=True, kw_only=True):
    page_url: str | None = None


class _Insights(msgspec.Struct, frozen=True, kw_only=True):
    properties: _Properties = _Properties()


class _TrustedFormAnswer(msgspec.Struct, frozen=True, kw_only=True):
    outcome: str
    match_lead: _Matched = _Matched()
    retain: _Retained = _Retained()
    insights: _Insights = _Insights()


class _Fingerprints(msgspec.Struct, frozen=True, kw_only=True):
    phone: tuple[str, ...] = ()
    email: tuple[str, ...] = ()


class _JornayaAnswer(msgspec.Struct, frozen=True, kw_only=True):
    outcome: str
    fingerprints: _Fingerprints = _Fingerprints()
    page_url: str | None = None
    expires_at: datetime | None = None


def compose_claim(
    kind: CertificateKind, account: ServiceAccount, claim: CertificateClaim, reference: str, vendor: str
) -> tuple[str, WebhookMessage]:
    """Return the URL and the message of a claim. `reference` and `vendor` are the public ids of lead and provider."""
    headers = [("content-type", "application/json"), ("accept", "application/json")]
    match kind:
        case CertificateKind.trustedform:
            credentials = base64.b64encode(f"X:{account.key}".encode()).decode()
            headers += [("authorization", f"Basic {credentials}"), ("api-version", "4.0")]
            body: dict[str, Any] = {
                "match_lead": _without_none({"email": claim.email, "phone": claim.phone}),
                "retain": {"reference": reference, "vendor": vendor},
                "insights": {"properties": ["page_url"]},
            }
        case CertificateKind.jornaya:
            headers.append(("authorization", f"Bearer {account.key}"))
            body = {"reference": reference, "vendor": vendor}
        case _:
            assert_never(kind)
    message = WebhookMessage(headers=tuple(headers), body=msgspec.json.encode(body))
    return f"{account.url}/{claim.key}", message


def _without_none(fields: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def judge_claim(kind: CertificateKind, observation: Observation, claim: CertificateClaim) -> ClaimResult:
    """Return what an attempt to claim has shown. An answer that cannot be read is no answer, never a refusal."""
    match observation:
        case NotSent():
            return _unanswered(ClaimReason.not_reached)
        case NoAnswer():
            return _unanswered(ClaimReason.no_answer)
        case AnswerReceived() as answer:
            return _judge_answer(kind, answer, claim)
        case _:
            assert_never(observation)


def _unanswered(reason: ClaimReason, body: bytes | None = None) -> ClaimResult:
    return ClaimResult(state=None, reason=reason, response_sha256=_hash(body))


def _hash(body: bytes | None) -> bytes | None:
    return None if body is None else hashlib.sha256(body).digest()


def _judge_answer(kind: CertificateKind, answer: AnswerReceived, claim: CertificateClaim) -> ClaimResult:
    status, body = answer.status, answer.body
    if status >= 500 or status in BUSY_STATUSES:
        return _unanswered(ClaimReason.busy, body)
    if 300 <= status < 400:
        return _unanswered(ClaimReason.redirected, body)
    if status in (401, 403):
        return _unanswered(ClaimReason.key_refused, body)
    if answer.truncated or answer.content_coding not in ("", "identity"):
        return _unanswered(ClaimReason.unreadable, body)
    if status >= 400:
        return ClaimResult(state=CertificateState.refused, reason=ClaimReason.not_valid, response_sha256=_hash(body))
    try:
        return _compare(kind, body, claim)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _unanswered(ClaimReason.unreadable, body)


def _compare(kind: CertificateKind, body: bytes, claim: CertificateClaim) -> ClaimResult:
    """Compare an answer with the inquiry. Raises msgspec's errors for an answer that is not in the agreed form."""
    match kind:
        case CertificateKind.trustedform:
            trusted = msgspec.json.decode(body, type=_TrustedFormAnswer)
            outcome, page, expires_at = (
                trusted.outcome,
                trusted.insights.properties.page_url,
                trusted.retain.result.expires_at,
            )
            phone, email = trusted.match_lead.result.phone_match, trusted.match_lead.result.email_match
        case CertificateKind.jornaya:
            adapted = msgspec.json.decode(body, type=_JornayaAnswer)
            outcome, page, expires_at = adapted.outcome, adapted.page_url, adapted.expires_at
            phone = _has_fingerprint(adapted.fingerprints.phone, _phone_texts(claim.phone))
            email = _has_fingerprint(adapted.fingerprints.email, _email_texts(claim.email))
        case _:
            assert_never(kind)
    if outcome == "error":
        return _unanswered(ClaimReason.busy, body)
    if outcome not in ("success", "failure"):
        return _unanswered(ClaimReason.unreadable, body)
    phone, email = (phone if claim.phone else None), (email if claim.email else None)
    same_page = None if page is None else is_same_site(page, claim.page_url)
    state, reason = _state_of(outcome, phone, email, same_page)
    return ClaimResult(
        state=state,
        reason=reason,
        response_sha256=_hash(body),
        expires_at=None if expires_at is None else _in_utc(expires_at),
        phone_matches=phone,
        email_matches=email,
        page_matches=same_page,
    )


def _state_of(
    outcome: str, phone: bool | None, email: bool | None, same_page: bool | None
) -> tuple[CertificateState, ClaimReason]:
    """Return the state of a certificate and its reason. A telephone number that matches counts before an address."""
    if phone is False:
        return CertificateState.mismatched, ClaimReason.phone_differs
    if phone is None and email is False:
        return CertificateState.mismatched, ClaimReason.email_differs
    if same_page is False:
        return CertificateState.mismatched, ClaimReason.page_differs
    if outcome == "failure":
        return CertificateState.refused, ClaimReason.not_valid
    return CertificateState.verified, ClaimReason.claimed


def _in_utc(moment: datetime) -> datetime | None:
    """Return a time in UTC; None for one without an offset, which is not known to the hour."""
    try:
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        return None


def _has_fingerprint(fingerprints: tuple[str, ...], texts: Iterator[str]) -> bool | None:
    """Return whether a fingerprint is the hash of one of the texts; None if the service has none."""
    if not fingerprints:
        return None
    own = {hash_of(text.encode()).hexdigest() for text in texts for hash_of in (hashlib.sha1, hashlib.sha256)}
    return not own.isdisjoint(fingerprint.strip().lower() for fingerprint in fingerprints)


def _phone_texts(phone: str | None) -> Iterator[str]:
    """Yield the forms of a number in E.164 that services hash: its digits, and those of a North American one alone."""
    digits = (phone or "").removeprefix("+")
    if digits:
        yield digits
    if len(digits) == 11 and digits.startswith("1"):
        yield digits[1:]


def _email_texts(email: str | None) -> Iterator[str]:
    if email:
        yield email.strip().lower()
