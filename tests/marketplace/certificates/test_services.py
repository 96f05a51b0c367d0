"""Requests of claims and the meaning of answers, without a network."""

import base64
import hashlib
from typing import Any

import msgspec
import pytest

from marketplace.certificates.services import (
    CertificateClaim,
    ClaimReason,
    ServiceAccount,
    compose_claim,
    judge_claim,
)
from routing.certificate import CertificateKind, CertificateState
from routing.delivery import AnswerReceived, NoAnswer, NoAnswerReason, NotSent, NotSentReason, Observation

KEY = "0f" * 20
CLAIM = CertificateClaim(
    key=KEY, phone="+13125550101", email="Robin.1@example.com", page_url="https://www.example.com/quote"
)
ACCOUNT = ServiceAccount(url="https://cert.example", key="abc")
VERIFIED, MISMATCHED, REFUSED = CertificateState.verified, CertificateState.mismatched, CertificateState.refused


def an_answer(body: Any = b"", status: int = 200, **changes: Any) -> AnswerReceived:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    standard: dict[str, Any] = {
        "status": status, "retry_after_seconds": None, "body": raw, "truncated": False,
        "content_type": "application/json", "content_coding": "",
    }  # fmt: skip
    return AnswerReceived(**{**standard, **changes})


def trustedform(
    outcome: str = "success", phone: bool | None = True, email: bool | None = True, page: str | None = None
) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "match_lead": {"result": {"success": True, "phone_match": phone, "email_match": email}},
        "retain": {"result": {"previously_retained": False, "expires_at": "2031-11-21T10:00:00Z"}},
        "insights": {"properties": {"page_url": page, "age_seconds": 5}},
    }


def test_a_claim_to_trustedform_is_that_of_its_published_interface() -> None:
    url, message = compose_claim(CertificateKind.trustedform, ACCOUNT, CLAIM, "lead_1", "prov_1")
    assert url == f"https://cert.example/{KEY}"
    headers = dict(message.headers)
    assert headers["api-version"] == "4.0"
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"X:abc"
    assert msgspec.json.decode(message.body) == {
        "match_lead": {"email": CLAIM.email, "phone": CLAIM.phone},
        "retain": {"reference": "lead_1", "vendor": "prov_1"},
        "insights": {"properties": ["page_url"]},
    }


def test_a_claim_to_jornaya_sends_no_contact_data() -> None:
    _, message = compose_claim(CertificateKind.jornaya, ACCOUNT, CLAIM, "lead_1", "prov_1")
    assert msgspec.json.decode(message.body) == {"reference": "lead_1", "vendor": "prov_1"}


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (trustedform(), VERIFIED, ClaimReason.claimed),
        (trustedform(page="http://example.com/other"), VERIFIED, ClaimReason.claimed),
        (trustedform(email=False), VERIFIED, ClaimReason.claimed),
        (trustedform(phone=None, email=None), VERIFIED, ClaimReason.claimed),
        ({"outcome": "success"}, VERIFIED, ClaimReason.claimed),
        (trustedform(phone=False), MISMATCHED, ClaimReason.phone_differs),
        (trustedform("failure", phone=False, email=False), MISMATCHED, ClaimReason.phone_differs),
        (trustedform(phone=None, email=False), MISMATCHED, ClaimReason.email_differs),
        (trustedform(page="https://other.example/"), MISMATCHED, ClaimReason.page_differs),
        (trustedform("failure"), REFUSED, ClaimReason.not_valid),
        (trustedform("error"), None, ClaimReason.busy),
        (trustedform("perhaps"), None, ClaimReason.unreadable),
        ({"outcome": 1}, None, ClaimReason.unreadable),
        ([], None, ClaimReason.unreadable),
        (b"<html>", None, ClaimReason.unreadable),
        (b'{"outcome": "\xff"}', None, ClaimReason.unreadable),
        (b"[" * 10_000, None, ClaimReason.unreadable),
    ],
)
def test_an_answer_of_trustedform_has_one_meaning(
    answer: Any, state: CertificateState | None, reason: ClaimReason
) -> None:
    result = judge_claim(CertificateKind.trustedform, an_answer(answer), CLAIM)
    assert (result.state, result.reason) == (state, reason)
    assert result.response_sha256 is not None


@pytest.mark.parametrize(
    ("observation", "state", "reason"),
    [
        (NotSent(reason=NotSentReason.dns_failed), None, ClaimReason.not_reached),
        (NoAnswer(reason=NoAnswerReason.timeout), None, ClaimReason.no_answer),
        (an_answer(trustedform(), 500), None, ClaimReason.busy),
        (an_answer(trustedform(), 429), None, ClaimReason.busy),
        (an_answer(trustedform(), 302), None, ClaimReason.redirected),
        (an_answer(trustedform(), 401), None, ClaimReason.key_refused),
        (an_answer(trustedform(), truncated=True), None, ClaimReason.unreadable),
        (an_answer(trustedform(), content_coding="gzip"), None, ClaimReason.unreadable),
        (an_answer(b"gone", 404), REFUSED, ClaimReason.not_valid),
        (an_answer(b"", 422), REFUSED, ClaimReason.not_valid),
    ],
)
def test_no_answer_is_never_a_refusal(
    observation: Observation, state: CertificateState | None, reason: ClaimReason
) -> None:
    result = judge_claim(CertificateKind.trustedform, observation, CLAIM)
    assert (result.state, result.reason) == (state, reason)


def _hash(text: str, name: str = "sha256") -> str:
    return hashlib.new(name, text.encode()).hexdigest().upper()


@pytest.mark.parametrize(
    ("fingerprints", "state"),
    [
        ({}, VERIFIED),
        ({"phone": [_hash("3125550101", "sha1")]}, VERIFIED),
        ({"phone": ["other", _hash("13125550101")]}, VERIFIED),
        ({"phone": [_hash("3125550102")]}, MISMATCHED),
        ({"email": [_hash("robin.1@example.com")]}, VERIFIED),
        ({"email": [_hash("robin.2@example.com")]}, MISMATCHED),
    ],
)
def test_fingerprints_are_compared_with_hashes_of_the_inquiry(
    fingerprints: dict[str, list[str]], state: CertificateState
) -> None:
    answer = an_answer({"outcome": "success", "fingerprints": fingerprints})
    assert judge_claim(CertificateKind.jornaya, answer, CLAIM).state is state


def test_neither_a_claim_nor_an_account_shows_what_it_holds() -> None:
    assert "555" not in repr(CLAIM)
    assert "abc" not in repr(ACCOUNT)
