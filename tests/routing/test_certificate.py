"""Certificates of consent: which texts are one, when a claim is tried again, and what the decision makes of them."""

from datetime import timedelta
from uuid import UUID

import pytest

from routing.certificate import (
    MOST_QUICK_ATTEMPTS,
    CertificateKind,
    CertificatePolicy,
    CertificateStanding,
    FailureConsequence,
    certificate_key,
    is_same_site,
    next_claim_at,
    read_certificate,
)
from routing.decision import (
    CERTIFICATE_FAILED,
    CERTIFICATE_PENDING,
    End,
    MatchedCandidates,
    OpenLead,
    Wait,
    decide,
)
from routing.inquiry import InquiryFaultCode, check_certificates
from routing.lifecycle import LeadState
from routing.matching import SubscriptionIndex
from tests.builders.marketplaces import roofing
from tests.builders.subscriptions import MONDAY_NOON, a_lead, a_subscription

TRUSTEDFORM = f"https://cert.trustedform.com/{'0f' * 20}"
LEADID = "2BCB1F5C-7A3E-4B5C-9D0E-1F2A3B4C5D6E"
HOLD = CertificatePolicy(on_failure=FailureConsequence.hold, hold_seconds=120)
REJECT = CertificatePolicy(on_failure=FailureConsequence.reject)
ACCEPT = CertificatePolicy()


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (TRUSTEDFORM, CertificateKind.trustedform),
        (TRUSTEDFORM.replace("cert", "CERT"), CertificateKind.trustedform),
        (f" {TRUSTEDFORM.replace('0f', '0F')} ", CertificateKind.trustedform),
        (LEADID, CertificateKind.jornaya),
        (LEADID.lower(), CertificateKind.jornaya),
        (TRUSTEDFORM.replace("https", "http"), None),
        (TRUSTEDFORM.replace("cert.", "cert.evil."), None),
        (TRUSTEDFORM.replace("cert.trustedform.com", "cert.trustedform.com.example"), None),
        (TRUSTEDFORM.replace("cert.", "user@cert."), None),
        (TRUSTEDFORM.replace(".com/", ".com:8443/"), None),
        (f"{TRUSTEDFORM}?a=b", None),
        (f"{TRUSTEDFORM}#a", None),
        (f"{TRUSTEDFORM}0", None),
        (f"{TRUSTEDFORM}/../admin", None),
        (LEADID.replace("-", ""), None),
        ("https://[::1", None),
        ("", None),
    ],
)
def test_a_token_is_known_by_its_form_and_host(token: str, kind: CertificateKind | None) -> None:
    assert read_certificate(token) is kind


def test_the_key_of_a_token_does_not_depend_on_its_case() -> None:
    assert certificate_key(TRUSTEDFORM.replace("0f", "0F")) == "0f" * 20
    assert certificate_key(LEADID) == LEADID.lower()


def test_each_certificate_has_its_fault() -> None:
    faults = check_certificates((LEADID, "nothing", LEADID.lower()), required=True)
    assert [fault.path[-1] for fault in faults] == [1, 2]
    (missing,) = check_certificates((), required=True)
    assert missing.code is InquiryFaultCode.consent_certificate_missing


@pytest.mark.parametrize(
    ("page", "same"),
    [
        ("https://www.example.com/quote", True),
        ("http://EXAMPLE.com:8080/thanks?x=1", True),
        ("example.com/quote", True),
        ("https://quote.example.com/", False),
        ("https://example.com.evil.example/", False),
        ("https://[::1", False),
        ("", False),
    ],
)
def test_pages_are_compared_by_their_host(page: str, same: bool) -> None:
    assert is_same_site(page, "https://example.com/quote") is same


@pytest.mark.parametrize("policy", [REJECT, ACCEPT])
def test_a_vertical_that_does_not_wait_is_done_after_a_few_attempts(policy: CertificatePolicy) -> None:
    times = [
        next_claim_at(policy, attempts, MONDAY_NOON, MONDAY_NOON) for attempts in range(1, MOST_QUICK_ATTEMPTS + 1)
    ]
    assert times == [MONDAY_NOON + timedelta(seconds=1), MONDAY_NOON + timedelta(seconds=4), None]


def test_a_vertical_that_waits_is_done_at_its_limit() -> None:
    now, attempts = MONDAY_NOON, 0
    while True:
        attempts += 1
        next_at = next_claim_at(HOLD, attempts, MONDAY_NOON, now)
        if next_at is None:
            break
        assert now < next_at < MONDAY_NOON + timedelta(seconds=HOLD.hold_seconds)
        now = next_at
    assert attempts == 5


# The decision.


def a_decision(
    standing: CertificateStanding | None, policy: CertificatePolicy, *, businesses: int = 1
) -> MatchedCandidates | Wait | End:
    lead = OpenLead(
        lead_id=UUID(int=1),
        state=LeadState.prospect,
        facts=a_lead(),
        received_at=MONDAY_NOON,
        certificates=standing,
    )
    members = [a_subscription(number) for number in range(1, businesses + 1)]
    return decide(lead, roofing(certificate=policy), 1, SubscriptionIndex(members), MONDAY_NOON)


@pytest.mark.parametrize("policy", [HOLD, REJECT, ACCEPT])
def test_a_lead_waits_for_a_claim_whatever_the_policy(policy: CertificatePolicy) -> None:
    result = a_decision(CertificateStanding.pending, policy)
    assert isinstance(result, Wait)
    assert (result.state, result.reason) == (LeadState.prospect, CERTIFICATE_PENDING)


def test_nothing_is_claimed_for_a_lead_that_nobody_could_have() -> None:
    assert isinstance(a_decision(CertificateStanding.pending, HOLD, businesses=0), MatchedCandidates)


@pytest.mark.parametrize("policy", [HOLD, REJECT])
def test_a_lead_with_a_failed_certificate_ends_where_the_vertical_insists(policy: CertificatePolicy) -> None:
    result = a_decision(CertificateStanding.failed, policy)
    assert isinstance(result, End)
    assert (result.state, result.reason) == (LeadState.unsold, CERTIFICATE_FAILED)


@pytest.mark.parametrize(
    ("standing", "policy"),
    [
        (CertificateStanding.failed, ACCEPT),
        (CertificateStanding.verified, REJECT),
        (None, REJECT),
    ],
)
def test_any_other_lead_goes_on(standing: CertificateStanding | None, policy: CertificatePolicy) -> None:
    assert isinstance(a_decision(standing, policy), MatchedCandidates)
