"""The stand-in for the service of certificates answers in the form that the service's client reads."""

import msgspec
import pytest

from marketplace.certificates.services import CertificateClaim, judge_claim
from marketplace.demo.certificates import CertificateRequest, ClaimedPhone, answer_claim, token_of
from routing.certificate import CertificateKind, certificate_key, read_certificate
from routing.delivery import AnswerReceived

PAGE = "https://www.example.com/roofing/ask"


@pytest.mark.parametrize(
    ("certificate", "phone", "state"),
    [
        ("f" * 40, "+13125550101", "verified"),
        ("f" * 40, None, "verified"),
        ("0" * 40, "+13125550101", "mismatched"),
        ("1" * 40, "+13125550101", "refused"),
    ],
)
def test_the_first_digit_decides_about_a_claim(certificate: str, phone: str | None, state: str) -> None:
    request = CertificateRequest(match_lead=ClaimedPhone(phone=phone, email="robin@example.com"))
    status, body = answer_claim(certificate, request, "https://www.example.com/")
    answer = AnswerReceived(status=status, body=msgspec.json.encode(body))
    claim = CertificateClaim(key=certificate, phone=phone, email="robin@example.com", page_url=PAGE)
    assert judge_claim(CertificateKind.trustedform, answer, claim).state == state


def test_the_token_of_an_inquiry_is_one_of_the_service() -> None:
    tokens = {token_of(1, number) for number in range(200)}
    assert len(tokens) == 200
    assert {read_certificate(token) for token in tokens} == {CertificateKind.trustedform}
    assert {certificate_key(token)[0] for token in tokens} >= {"0", "1"}
