"""Event of an awarded lead: the body of the `lead.assigned` webhook, and of the event of that name in a feed."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from marketplace.delivery.store import DeliveredCertificate, DeliveryCase
from marketplace.runtime import ids
from marketplace.webhook.event import json_of
from routing.consent import ConsentTerms
from routing.inquiry import Authority, Budget, NeedValue, Place, Signals, Timing, Touch

ContactJson = Annotated[msgspec.Raw, json_of("Contact")]
"""Contact of the person, which is JSON already when it is opened: a `Contact` of marketplace/intake/contact.py."""

VerdictJson = Annotated[msgspec.Raw, json_of("Verdict")]
"""A `Verdict` of routing/qualification.py as JSON."""


class LeadPrice(msgspec.Struct, frozen=True, kw_only=True):
    """Price of the lead in minor units of the currency."""

    minor: int
    currency: str


class AssignedAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of the person, and how they were judged. `verdict` is null for a test lead that a member sends."""

    budget: Budget | None
    authority: Authority | None
    need: dict[str, NeedValue]
    timing: Timing | None
    verdict: VerdictJson | None


class LeadAttribution(msgspec.Struct, frozen=True, kw_only=True):
    """Origin of the person, as the provider says."""

    source: str | None
    form: str | None
    campaign: str | None
    sub_ids: dict[str, str]


class AssignedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead as its one business receives it. `subscription_id` is null for a test lead that a member sends."""

    lead_id: str
    assignment_id: str
    subscription_id: str | None
    mode: str
    exclusive: bool = True
    vertical: str
    price: LeadPrice
    submitted_at: datetime
    awarded_at: datetime
    contact: ContactJson
    consent: ConsentTerms | None = None
    certificates: tuple[DeliveredCertificate, ...] = ()
    place: Place
    signals: Signals
    bant: AssignedAnswers
    attribution: LeadAttribution
    touches: tuple[Touch, ...] = ()


class AssignmentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A lead is yours. An endpoint is sent it as a webhook, a feed has it as an event."""

    type: Literal["lead.assigned"] = "lead.assigned"
    timestamp: datetime
    data: AssignedLead


def compose(case: DeliveryCase, contact: bytes, now: datetime) -> bytes:
    """Return the JSON body of the webhook: contact, answers, BANT verdict, attribution and touches.

    `contact` is JSON already and is inserted as it is. The body is serialised once, and exactly these bytes are signed.
    """
    facts = case.facts
    lead = AssignedLead(
        lead_id=ids.encode("lead", case.lead_id),
        assignment_id=ids.encode("asg", case.assignment_id),
        subscription_id=ids.encode("sub", case.subscription_id),
        mode=case.mode,
        vertical=facts.vertical,
        price=LeadPrice(minor=case.price_minor, currency=case.currency),
        submitted_at=facts.submitted_at,
        awarded_at=case.awarded_at,
        contact=msgspec.Raw(contact),
        consent=facts.consent,
        certificates=case.certificates or (),
        place=facts.place,
        signals=facts.signals,
        bant=AssignedAnswers(
            budget=facts.budget,
            authority=facts.authority,
            need=facts.need_fields,
            timing=facts.timing,
            verdict=case.verdict,
        ),
        attribution=LeadAttribution(
            source=facts.source, form=facts.form, campaign=facts.campaign, sub_ids=facts.sub_ids
        ),
        touches=facts.touches,
    )
    return msgspec.json.encode(AssignmentEvent(timestamp=now, data=lead))
