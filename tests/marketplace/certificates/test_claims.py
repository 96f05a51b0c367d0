"""Certificates claimed before the award, over real HTTP, at services that answer well, badly, late or never."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from marketplace.certificates import flow as certificates_flow
from marketplace.certificates.services import ServiceAccount
from marketplace.erasure.flow import erase_lead
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from routing.certificate import CertificateKind, CertificatePolicy, FailureConsequence
from tests.builders.inquiries import changed, roofing_body
from tests.builders.marketplaces import Marketplace, marketplace, roofing
from tests.receivers import (
    Behaviour,
    Receiver,
    answer,
    garbage,
    hang,
    huge_body,
    redirect,
    status,
)

TRUSTEDFORM = f"https://cert.trustedform.com/{'0f' * 20}"
GOOD = {
    "outcome": "success",
    "match_lead": {"result": {"success": True, "phone_match": True, "email_match": True}},
    "retain": {"result": {"expires_at": "2031-11-21T10:00:00Z"}},
    "insights": {"properties": {"page_url": "https://www.example.com/quote"}},
}
OTHER_PHONE = GOOD | {"match_lead": {"result": {"phone_match": False}}}
HOLD = CertificatePolicy(on_failure=FailureConsequence.hold)
REJECT = CertificatePolicy(on_failure=FailureConsequence.reject)
ACCEPT = CertificatePolicy()


def answers(body: Any) -> Behaviour:
    return answer(200, msgspec.json.encode(body), content_type="application/json")


async def sell(market: Marketplace, service: Receiver | None, **consent: Any) -> UUID:
    """One inquiry with a certificate, walked as far as it goes."""
    if service is not None:
        url = service.url.removesuffix("/hook")
        market.accounts[CertificateKind.trustedform] = ServiceAccount(url=url, key="key-of-the-operator")
    receipt = await market.submit(consent=a_consent(**consent))
    await market.walker.walk(receipt.id)
    return receipt.id


def a_consent(**changes: Any) -> dict[str, Any]:
    terms: dict[str, Any] = roofing_body(now=clock.now())["consent"]
    return terms | {"certificates": [TRUSTEDFORM]} | changes


async def certificate(market: Marketplace, lead_id: UUID) -> dict[str, Any]:
    row: dict[str, Any] = await market.row("select * from certificate where lead_id = $1", lead_id)
    return row


async def test_a_claimed_certificate_goes_with_the_lead(settings: Settings) -> None:
    async with (
        marketplace(settings, roofing(certificate=REJECT)) as market,
        Receiver(answers(GOOD)) as service,
        Receiver(status(200)) as receiver,
    ):
        await market.buyer(receiver.url)
        lead_id = await sell(market, service)
        assert await market.state(lead_id) == "delivered"
        assert service.visits[0].raw.startswith(f"POST /{'0f' * 20} ".encode())
        row = await certificate(market, lead_id)
        assert (row["state"], row["reason"], row["attempts"], row["box"]) == ("verified", "claimed", 1, None)
        assert (row["phone_matches"], row["email_matches"], row["page_matches"]) == (True, True, True)
        data = msgspec.json.decode(receiver.visits[0].body)["data"]
        assert data["certificates"][0]["state"] == "verified"
        assert data["contact"]["consent"]["certificates"] == [TRUSTEDFORM]


async def test_a_lead_without_a_certificate_asks_nobody(settings: Settings) -> None:
    async with (
        marketplace(settings, roofing(certificate=REJECT)) as market,
        Receiver(answers(GOOD)) as service,
        Receiver(status(200)) as receiver,
    ):
        await market.buyer(receiver.url)
        lead_id = await sell(market, service, certificates=[])
        assert await market.state(lead_id) == "delivered"
        assert service.visits == []


@pytest.mark.parametrize(("policy", "state"), [(REJECT, "unsold"), (HOLD, "unsold"), (ACCEPT, "delivered")])
async def test_a_certificate_of_another_person_meets_the_policy(
    settings: Settings, policy: CertificatePolicy, state: str
) -> None:
    async with (
        marketplace(settings, roofing(certificate=policy)) as market,
        Receiver(answers(OTHER_PHONE)) as service,
        Receiver(status(200)) as receiver,
    ):
        await market.buyer(receiver.url)
        lead_id = await sell(market, service)
        assert await market.state(lead_id) == state
        assert (await certificate(market, lead_id))["reason"] == "phone_differs"
        assert len(receiver.visits) == (1 if state == "delivered" else 0)
        if receiver.visits:
            data = msgspec.json.decode(receiver.visits[0].body)["data"]
            assert data["certificates"][0]["state"] == "mismatched"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (status(503), "busy"),
        (redirect("https://cert.trustedform.com/elsewhere"), "redirected"),
        (answer(200, b"<html>"), "unreadable"),
        (huge_body, "unreadable"),
        (garbage, "no_answer"),
        (hang, "no_answer"),
    ],
)
async def test_a_service_without_a_proper_answer_is_asked_again_and_then_the_lead_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, reason: str
) -> None:
    monkeypatch.setattr(certificates_flow, "CLAIM_SECONDS", 0.2)
    async with (
        marketplace(settings, roofing(certificate=REJECT)) as market,
        Receiver(behaviour) as service,
        Receiver(status(200)) as receiver,
    ):
        await market.buyer(receiver.url)
        lead_id = await sell(market, service)
        assert await market.state(lead_id) == "prospect"
        assert (await certificate(market, lead_id))["attempts"] == 1
        for _ in range(2):
            await market.walker.walk(lead_id)
        row = await certificate(market, lead_id)
        assert (row["state"], row["reason"], row["attempts"]) == ("unanswered", reason, 3)
        assert await market.row("select state, reason from lead where id = $1", lead_id) == {
            "state": "unsold",
            "reason": "certificate_failed",
        }
        assert receiver.visits == []


async def test_a_lead_that_waits_for_an_answer_is_due_again_and_sold_when_it_comes(settings: Settings) -> None:
    async with (
        marketplace(settings, roofing(certificate=HOLD)) as market,
        Receiver(*[status(503)] * 4, answers(GOOD)) as service,
        Receiver(status(200)) as receiver,
    ):
        await market.buyer(receiver.url)
        lead_id = await sell(market, service)
        for attempts in range(1, 5):
            row = await market.row("select due_at > now() as later, certificates from lead where id = $1", lead_id)
            assert row == {"later": True, "certificates": "pending"}
            assert (await certificate(market, lead_id))["attempts"] == attempts
            await market.walker.walk(lead_id)
        assert await market.state(lead_id) == "delivered"


async def test_without_an_account_the_policy_decides(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead_id = await sell(market, None)
        assert await market.state(lead_id) == "delivered"
        assert (await certificate(market, lead_id))["reason"] == "no_account"


async def test_the_certificate_of_a_nurtured_lead_is_claimed_at_once(settings: Settings) -> None:
    async with marketplace(settings, roofing(certificate=HOLD)) as market, Receiver(answers(GOOD)) as service:
        bant = changed(roofing_body(), "bant.timing", {"within_days": 120})["bant"]
        market.accounts[CertificateKind.trustedform] = ServiceAccount(url=service.url.removesuffix("/hook"), key="k")
        receipt = await market.submit(consent=a_consent(), bant=bant)
        await market.walker.walk(receipt.id)
        row = await market.row("select state, certificates from lead where id = $1", receipt.id)
        assert row == {"state": "nurturing", "certificates": "verified"}
        assert await market.value("select count(*) from decision where lead_id = $1", receipt.id) == 1


async def test_the_database_refuses_an_award_before_the_claim(settings: Settings) -> None:
    async with marketplace(settings, roofing(certificate=HOLD)) as market, Receiver(status(503)) as service:
        await market.buyer("http://127.0.0.1:1/hook")
        lead_id = await sell(market, service)
        with pytest.raises(asyncpg.CheckViolationError, match="lead_certificates_claimed"):
            await market.owner.execute("update lead set state = 'held', due_at = null where id = $1", lead_id)


async def test_two_workers_that_claim_at_once_record_one_result(settings: Settings) -> None:
    async with (
        marketplace(settings, roofing(certificate=REJECT)) as market,
        Receiver(answers(GOOD)) as service,
        Receiver(status(200)) as receiver,
    ):
        await market.buyer(receiver.url)
        market.accounts[CertificateKind.trustedform] = ServiceAccount(url=service.url.removesuffix("/hook"), key="k")
        receipt = await market.submit(consent=a_consent())
        await asyncio.gather(*(market.walker.walk(receipt.id) for _ in range(3)))
        assert await market.state(receipt.id) == "delivered"
        assert (await certificate(market, receipt.id))["attempts"] == 1
        assert len(receiver.visits) == 1


async def test_an_erased_person_has_no_claim_any_more(settings: Settings) -> None:
    async with marketplace(settings, roofing(certificate=HOLD)) as market, Receiver(status(503)) as service:
        await market.buyer("http://127.0.0.1:1/hook")
        lead_id = await sell(market, service)
        operator = Principal(key_id="test", kind=CallerKind.operator, owner_id=None, mode="live")
        await erase_lead(market.api, operator, lead_id, "asked by letter", also_suppress=False)
        row = await certificate(market, lead_id)
        assert (row["state"], row["reason"], row["box"]) == ("unanswered", "erased", None)
        await market.walker.walk(lead_id)
        assert (await market.state(lead_id), len(service.visits)) == ("unsold", 1)


async def test_a_kept_certificate_holds_no_contact_data(settings: Settings) -> None:
    async with marketplace(settings, roofing(certificate=HOLD)) as market, Receiver(answers(OTHER_PHONE)) as service:
        await market.buyer("http://127.0.0.1:1/hook")
        lead_id = await sell(market, service)
        text = await market.value("select c::text from certificate c where lead_id = $1", lead_id)
        for secret in ("555", "example", "0f0f", "key-of"):
            assert secret not in text
