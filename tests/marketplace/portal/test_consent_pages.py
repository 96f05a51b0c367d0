"""Consent and certificates on the pages of operator, business and provider."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from html import unescape
from typing import Any

import msgspec
import pytest

from marketplace.certificates.services import ServiceAccount
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from routing.certificate import CertificateKind
from tests.builders.feedback import Desk, desk
from tests.builders.inquiries import iso, roofing_body
from tests.builders.portal import signed_in
from tests.receivers import Receiver, answer

TRUSTEDFORM = f"https://cert.trustedform.com/{'0f' * 20}"
OTHER_PHONE = msgspec.json.encode({"outcome": "success", "match_lead": {"result": {"phone_match": False}}})


def a_consent(**changes: Any) -> dict[str, Any]:
    terms: dict[str, Any] = roofing_body(now=clock.now())["consent"]
    return terms | changes


@pytest.fixture
async def office(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        service = await stack.enter_async_context(Receiver(answer(200, OTHER_PHONE)))
        url = service.url.removesuffix("/hook")
        made.market.accounts[CertificateKind.trustedform] = ServiceAccount(url=url, key="k")
        yield made


async def test_a_lead_says_how_the_person_may_be_contacted(office: Desk) -> None:
    end = clock.now() + timedelta(days=30)
    terms = a_consent(channels=["call"], expires_at=iso(end), jurisdiction="US-IL", purposes=["Quote"])
    lead = await office.sold(1, consent=terms)
    business = await signed_in(office.api, "business", office.business_id)
    text = (await business.get(f"/business/leads/{lead}")).text
    assert "May be called, not texted or e-mailed or written to by post." in text
    assert "US-IL" in text
    assert 'href="tel:' in text
    assert 'href="sms:' not in text
    assert '<a class="button" href="mailto:' not in text


async def test_a_lead_without_channels_offers_every_way(office: Desk) -> None:
    lead = await office.sold(1)
    business = await signed_in(office.api, "business", office.business_id)
    text = (await business.get(f"/business/leads/{lead}")).text
    assert "The consent does not say how the person may be contacted." in text
    assert 'href="sms:' in text


async def test_a_failed_certificate_is_shown_to_everybody_it_concerns(office: Desk) -> None:
    lead = await office.sold(1, consent=a_consent(certificates=[TRUSTEDFORM]))
    operator = await signed_in(office.api, "operator")
    home = "/operator/compliance/certificates"
    text = (await operator.get(home)).text
    assert "It was made for another phone number." in text
    assert lead in text
    assert lead in (await operator.get(f"{home}?state=mismatched")).text
    assert "No certificates match" in (await operator.get(f"{home}?state=verified")).text
    file = (await operator.get(f"{home}?format=csv")).text
    assert "phone_differs" in file
    assert TRUSTEDFORM not in file
    assert (await operator.get(f"{home}?state=nothing&limit=1")).status_code == 200
    business = await signed_in(office.api, "business", office.business_id)
    assert "TrustedForm certificate" in (await business.get(f"/business/leads/{lead}")).text
    provider = await signed_in(office.api, "provider", office.market.provider.owner)
    assert "It was made for another phone number." in (await provider.get("/provider/quality")).text
    stranger = await signed_in(office.api, "provider", (await office.market.another_provider()).owner)
    assert "It was made for another phone number." not in (await stranger.get("/provider/quality")).text


async def test_the_names_of_a_business_are_changed_on_its_page_with_a_reason(office: Desk) -> None:
    operator = await signed_in(office.api, "operator")
    home = f"/operator/businesses/{office.business_id}"
    names = "Example Roofs LLC\n\n  Roofs   by Example \nExample Roofs LLC"
    fields = {"name": "Example Business", "zone": "America/Chicago", "seller_names": names, "reason": "contract"}
    assert (await operator.post(home, fields)).status_code == 303
    stored = "select seller_names from business where id = $1"
    assert await office.market.value(stored, office.buyer.business_id) == ["Example Roofs LLC", "Roofs by Example"]
    assert "Roofs by Example" in (await operator.get(home)).text
    too_many = "\n".join(f"Roofs {number}" for number in range(21))
    assert (await operator.post(home, fields | {"seller_names": too_many})).status_code == 422
    assert (await operator.post(home, {"state": "frozen", "reason": "payments bounced"})).status_code == 303
    assert len(await office.market.value(stored, office.buyer.business_id)) == 2
    assert (await operator.post(home, fields | {"seller_names": ""})).status_code == 303
    assert await office.market.value(stored, office.buyer.business_id) == []


async def test_a_business_that_renames_itself_is_no_other_seller(office: Desk) -> None:
    business = await signed_in(office.api, "business", office.business_id)
    fields = {"name": "Third Roofs", "zone": "America/Chicago"}
    assert (await business.post("/business/onboarding/company", fields)).status_code == 303
    lead = await office.sold(1, consent=a_consent(sellers=["Third Roofs"]))
    reason = await office.market.value("select reason from lead where id = $1", ids.decode("lead", lead))
    assert reason == "consent_seller"


async def test_a_new_business_may_be_named_as_its_operator_has_named_it(office: Desk) -> None:
    body = {"name": "North Roofs", "zone": "America/Chicago", "currency": "USD"}
    reply = await office.call("POST", "/v1/businesses", body, by="operator")
    assert reply.json()["seller_names"] == ["North Roofs"]


async def test_the_names_of_a_business_are_changed_by_api(office: Desk) -> None:
    path = f"/v1/businesses/{office.business_id}"
    reply = await office.call("PATCH", path, {"seller_names": ["Example Roofs LLC"]}, by="operator")
    assert (reply.status_code, reply.json()["seller_names"]) == (200, ["Example Roofs LLC"])
    assert (await office.call("PATCH", path, {"name": "North Roofs"}, by="operator")).json()["seller_names"] != []
    assert (await office.call("PATCH", path, {"seller_names": ["x" * 101]}, by="operator")).status_code == 422
    assert (await office.call("PATCH", path, {"seller_names": ["x"]}, by="business")).status_code == 403


async def test_the_requirements_on_consent_are_a_part_of_the_rules(office: Desk) -> None:
    operator = await signed_in(office.api, "operator")
    fields = {
        "minimum_score": 50, "budget_minimum": 0, "within_days": 30, "nurture_limit_days": 90, "nurture_days": 45,
        "patience_seconds": 0, "on_low_score": "nurture", "budget_fails": "reject", "budget_unknown": "nurture",
        "authority_fails": "reject", "authority_unknown": "accept", "need_fails": "reject", "need_unknown": "reject",
        "timing_fails": "reject", "timing_unknown": "nurture", "channels": "call", "purposes": "quotes\noffers",
        "jurisdictions": "us-ca US-TX",
        "reserve": "0.01", "strategy": "priority", "requires_named_seller": "1", "requires_certificate": "1",
        "certificate_failure": "hold", "certificate_hold_seconds": 600, "explore_per_mille": 0,
        "delay_per_mille": 0, "delay_seconds": 1_800,
    }  # fmt: skip
    reply = await operator.post("/operator/verticals/roofing/try", fields)
    assert reply.status_code == 200, reply.text
    assert "&#34;on_failure&#34;: &#34;hold&#34;" in reply.text
    assert "&#34;requires_named_seller&#34;: true" in reply.text
    definition = re.search(r'name="definition" hidden[^>]*>(.*?)</textarea>', reply.text, re.DOTALL)
    assert definition
    draft = msgspec.json.decode(unescape(definition[1]))
    assert (draft["on_low_score"], draft["nurture_days"], draft["timing"]["nurture_limit_days"]) == ("nurture", 45, 90)
    assert (draft["budget"]["on_unknown"], draft["need"]["on_unknown"]) == ("nurture", "reject")
    assert draft["consent"] == {
        "channels": ["call"], "purposes": ["quotes", "offers"], "jurisdictions": ["US-CA", "US-TX"],
        "requires_named_seller": True,
    }  # fmt: skip
    assert "Only businesses that the consent names" not in (await operator.get("/operator/verticals/roofing")).text
    assert (
        await operator.post("/operator/verticals/roofing/try", fields | {"certificate_hold_seconds": 5})
    ).status_code == 422
