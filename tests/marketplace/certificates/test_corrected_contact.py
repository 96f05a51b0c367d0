"""Certificates and corrected contacts: a claim compares the contact of its time, and a later one is not verified."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final
from uuid import UUID

import msgspec
import pytest

from marketplace.certificates import store as certificates_store
from marketplace.certificates.services import ServiceAccount
from marketplace.runtime.settings import Settings
from routing.certificate import CertificateKind, CertificatePolicy, FailureConsequence
from tests.builders.marketplaces import Marketplace, marketplace, roofing
from tests.marketplace.certificates.test_claims import GOOD, a_consent, answers
from tests.marketplace.journey.test_corrections import correct
from tests.receivers import Receiver, Visit, status

NEW_PHONE: Final = "+13125550177"
CORRECTION: Final = {"contact": {"phone": NEW_PHONE}}
EARLY: Final = {"within_days": 100}
SOON: Final = {"bant": {"timing": {"within_days": 14}}}


class Scene:
    """A vertical whose leads wait until 60 days before, a business, and a service that verifies every certificate."""

    def __init__(self, market: Marketplace, service: Receiver, receiver: Receiver) -> None:
        self.market, self.service, self.receiver = market, service, receiver

    async def submit(self, **bant: Any) -> UUID:
        return (await self.market.submit(consent=a_consent(), **bant)).id

    async def nurtured(self) -> UUID:
        """A lead that waits for its date, whose certificate was claimed at once."""
        lead_id = await self.submit(bant=self.early())
        await self.market.walker.walk(lead_id)
        assert await self.market.value("select (state, certificates)::text from lead") == "(nurturing,verified)"
        return lead_id

    def early(self) -> dict[str, Any]:
        return {
            "budget": {"minor": 1_500_000, "currency": "USD"},
            "authority": "decision_maker",
            "need": {"summary": "a leak", "fields": {"roof_type": "tile"}},
            "timing": EARLY,
        }

    async def evidence(self, lead_id: UUID) -> certificates_store.CertificateEvidence:
        async with self.market.api.acquire() as connection:
            [row] = await certificates_store.list_of_lead(connection, lead_id)
        return row


@pytest.fixture(params=[FailureConsequence.accept_with_flag])
async def scene(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    policy = CertificatePolicy(on_failure=request.param)
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings, roofing(certificate=policy)))
        service = await stack.enter_async_context(Receiver(answers(GOOD)))
        receiver = await stack.enter_async_context(Receiver(status(200)))
        await market.buyer(receiver.url)
        url = service.url.removesuffix("/hook")
        market.accounts[CertificateKind.trustedform] = ServiceAccount(url=url, key="key-of-the-operator")
        yield Scene(market, service, receiver)


async def test_a_claim_compares_the_corrected_contact(scene: Scene) -> None:
    lead_id = await scene.submit()
    await correct(scene.market, lead_id, CORRECTION | {"bant": {"timing": {"within_days": 10}}})
    await correct(scene.market, lead_id, {"contact": {"email": "corrected@gmail.com"}})
    await scene.market.walker.walk(lead_id)
    sent = msgspec.json.decode(scene.service.visits[0].body)["match_lead"]
    assert sent == {"phone": NEW_PHONE, "email": "corrected@gmail.com"}
    evidence = await scene.evidence(lead_id)
    assert (evidence.state, evidence.contact_corrected) == ("verified", False)
    assert await scene.market.value("select certificates from lead") == "verified"


@pytest.mark.parametrize("scene", [FailureConsequence.reject, FailureConsequence.hold], indirect=True)
async def test_a_phone_number_that_is_corrected_after_the_claim_ends_the_lead(scene: Scene) -> None:
    lead_id = await scene.nurtured()
    await correct(scene.market, lead_id, CORRECTION | SOON)
    assert await scene.market.value("select certificates from lead") == "failed"
    await scene.market.walker.walk(lead_id)
    row = await scene.market.row("select state, reason from lead where id = $1", lead_id)
    assert row == {"state": "expired", "reason": "certificate_failed"}
    assert scene.receiver.visits == []


async def test_a_business_is_told_of_a_contact_that_was_corrected_after_the_claim(scene: Scene) -> None:
    lead_id = await scene.nurtured()
    await correct(scene.market, lead_id, CORRECTION | SOON)
    await scene.market.walker.walk(lead_id)
    assert await scene.market.state(lead_id) == "delivered"
    [sent] = msgspec.json.decode(scene.receiver.visits[0].body)["data"]["certificates"]
    assert (sent["state"], sent["contact_corrected"]) == ("verified", True)
    assert len(scene.service.visits) == 1


@pytest.mark.parametrize("contact", [{"street": "2 Other Street"}, {"email": "corrected@gmail.com"}])
async def test_a_correction_of_what_was_not_compared_leaves_the_verification(
    scene: Scene, contact: dict[str, str]
) -> None:
    lead_id = await scene.nurtured()
    await correct(scene.market, lead_id, {"contact": contact} | SOON)
    assert await scene.market.value("select certificates from lead") == "verified"
    assert not (await scene.evidence(lead_id)).contact_corrected


async def test_a_correction_after_the_sale_is_on_the_evidence(scene: Scene) -> None:
    lead_id = await scene.submit()
    await scene.market.walker.walk(lead_id)
    assert await scene.market.state(lead_id) == "delivered"
    await correct(scene.market, lead_id, CORRECTION)
    evidence = await scene.evidence(lead_id)
    assert (evidence.state, evidence.contact_corrected) == ("verified", True)


async def test_a_correction_while_the_service_answers_is_not_verified(scene: Scene) -> None:
    lead_id = await scene.submit()

    async def answer_late(visit: Visit) -> None:
        await visit.read_request()
        await correct(scene.market, lead_id, CORRECTION)
        await answers_now(visit)

    async def answers_now(visit: Visit) -> None:
        body = msgspec.json.encode(GOOD)
        await visit.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with Receiver(answer_late) as service:
        url = service.url.removesuffix("/hook")
        scene.market.accounts[CertificateKind.trustedform] = ServiceAccount(url=url, key="key-of-the-operator")
        await scene.market.walker.walk(lead_id)
    evidence = await scene.evidence(lead_id)
    assert (evidence.state, evidence.contact_corrected) == ("verified", True)
    assert await scene.market.value("select certificates from lead") == "failed"
