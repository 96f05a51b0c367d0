"""Posting spec of a vertical, made of its current version: required fields, questions, and a valid example."""

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from marketplace.rules.catalog import Vertical
from routing.inquiry import EvidenceKind, NeedField, NeedValue
from routing.qualification import Dimension
from routing.vertical import VerticalDefinition

EXAMPLE_POSTAL_CODE: Final = "60614"
EXAMPLE_CERTIFICATE: Final = f"https://cert.trustedform.com/{'0f' * 20}"
EXAMPLE_PHONE: Final = "+13125550142"
"A number of the range 555-0100 to 555-0199, which the North American Numbering Plan reserves for fiction."


class PostingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that a provider sends to one vertical. `example` is a body of POST /v1/inquiries that is accepted."""

    vertical: str
    version: int
    name: str
    currency: str
    required_contact: tuple[str, ...]
    need_fields: dict[str, NeedField]
    example: dict[str, Any]


def posting_spec(vertical: Vertical, now: datetime) -> PostingSpec:
    """Return the spec of a vertical. The example's `submitted_at` is `now`."""
    definition = vertical.definition
    contact_fields = (
        ("phone", definition.requires_phone),
        ("email", definition.requires_email),
        ("postal_code", definition.requires_postal_code),
    )
    return PostingSpec(
        vertical=vertical.slug,
        version=vertical.version,
        name=definition.name,
        currency=definition.currency,
        required_contact=("full_name", *(field for field, required in contact_fields if required)),
        need_fields=definition.needs,
        example=_example(vertical.slug, definition, now),
    )


def _example(slug: str, definition: VerticalDefinition, now: datetime) -> dict[str, Any]:
    """Return the body of an inquiry that the vertical accepts and qualifies."""
    needs = definition.needs
    fields = {name: _answer(need, definition.need.wanted.get(name, ())) for name, need in needs.items()}
    verified = {
        dimension.value: EvidenceKind.verified
        for dimension in Dimension
        if getattr(definition, dimension).least_evidence is EvidenceKind.verified
    }
    return {
        "vertical": slug,
        "provider_reference": "example-1",
        "submitted_at": now,
        "contact": {
            "full_name": "Alex Example",
            "phone": EXAMPLE_PHONE,
            "email": "alex@example.com",
            "postal_code": EXAMPLE_POSTAL_CODE,
            "country": "US",
        },
        "bant": {
            "budget": {"minor": max(definition.budget.minimum_minor, 1), "currency": definition.currency},
            "authority": next(iter(definition.authority.accepted), "decision_maker"),
            "need": {"summary": "What the person wants, in their words.", "fields": fields},
            "timing": {"within_days": definition.timing.within_days},
            **({"evidence": verified} if verified else {}),
        },
        "consent": {
            "text": "I agree to be contacted about my request.",
            "given_at": now - timedelta(minutes=1),
            "page_url": "https://www.example.com/quote",
            **({"certificates": [EXAMPLE_CERTIFICATE]} if definition.certificate.required else {}),
        },
        "attribution": {"source": "example", "form": "quote-1"},
    }


def _answer(need: NeedField, accepted: tuple[NeedValue, ...]) -> NeedValue:
    """Return an answer to a question: the first that the policy wants, else one that the question allows."""
    if accepted:
        return accepted[0]
    match need.kind:
        case "choice":
            return need.choices[0]
        case "boolean":
            return True
        case "integer":
            return next((bound for bound in (need.minimum, need.maximum) if bound is not None), 1)
