"""The variables of a body's template, and three leads on which every template is tried before it is saved."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from routing.currency import write_amount
from routing.inquiry import Facts

VARIABLES: Final[Mapping[str, str]] = {
    "lead.id": "id of the lead",
    "lead.assignment_id": "id of the assignment, the same in every repetition",
    "lead.mode": "live or test",
    "lead.vertical": "service that the person asks for, such as roofing",
    "lead.submitted_at": "time of the request, such as 2026-03-02T09:30:00Z",
    "lead.awarded_at": "time at which the lead became yours",
    "lead.price": "price that you pay, such as 52.50",
    "lead.currency": "currency of the price",
    "contact.full_name": "name as the person gave it",
    "contact.first_name": "all of the name but its last word",
    "contact.last_name": "last word of the name; the whole name if it is one word",
    "contact.phone": "telephone number, such as +13125550142",
    "contact.phone_extension": "extension",
    "contact.email": "e-mail address",
    "contact.street": "street and number",
    "contact.postal_code": "postal code",
    "contact.country": "country, such as US",
    "contact.summary": "what the person wrote",
    "place.country": "country of the work",
    "place.region": "state or region of the work",
    "place.postal_code": "postal code of the work",
    "budget.amount": "budget, such as 12000.00; the lower end of a range",
    "budget.maximum": "upper end of the range",
    "budget.currency": "currency of the budget",
    "authority": "role of the person in the decision, such as owner",
    "timing.within_days": "days within which the work is wanted",
    "timing.not_before": "date before which it is not wanted",
    "attribution.source": "source of the request",
    "attribution.form": "form of the request",
    "attribution.campaign": "campaign of the request",
    "consent.text": "words that the person agreed to",
    "consent.given_at": "time of the consent",
    "consent.page_url": "page of the consent",
    "consent.ip": "network address from which it was given",
}
"Each variable with its meaning; one that a lead does not have is empty."

OPEN: Final[Mapping[str, str]] = {
    "need": "an answer to a question of the service, by its name: need.material",
    "sub_id": "a value that the provider sent along, by its name: sub_id.click",
    "metadata": "further details of the person by their name",
}
"Groups whose names depend on the service and the provider."

LISTS: Final[Mapping[str, str]] = {
    "needs": "all answers: item.name, item.value",
    "sub_ids": "all values that the provider sent along: item.name, item.value",
    "touches": "later contacts of the person: item.kind, item.at, item.detail",
}
"Lists over which a loop may go."

CONTACT_FIELDS: Final = (
    "full_name",
    "phone",
    "phone_extension",
    "email",
    "street",
    "postal_code",
    "country",
    "summary",
)


class MappedLead(msgspec.Struct, frozen=True, kw_only=True):
    """All of a lead that a template may use, except the contact."""

    lead_id: str
    assignment_id: str
    mode: str
    awarded_at: datetime
    price_minor: int
    currency: str
    facts: Facts


def read_variables(lead: MappedLead, contact: Mapping[str, Any]) -> dict[str, object]:
    """Return the variables of a template for a lead and its contact, as it is delivered in JSON."""
    facts = lead.facts
    name = str(contact.get("full_name") or "")
    first, _, last = name.strip().rpartition(" ")
    consent = contact.get("consent") or {}
    return {
        "lead": {
            "id": lead.lead_id,
            "assignment_id": lead.assignment_id,
            "mode": lead.mode,
            "vertical": facts.vertical,
            "submitted_at": _write_time(facts.submitted_at),
            "awarded_at": _write_time(lead.awarded_at),
            "price": write_amount(lead.price_minor, lead.currency),
            "currency": lead.currency,
        },
        "contact": {field: contact.get(field) for field in CONTACT_FIELDS}
        | {"first_name": first.strip() or None, "last_name": last or None},
        "consent": {field: consent.get(field) for field in ("text", "given_at", "page_url", "ip")},
        "metadata": contact.get("metadata") or {},
        **_answers(facts),
    }


def _answers(facts: Facts) -> dict[str, object]:
    """Return the variables that come from the facts alone."""
    budget, timing, place = facts.budget, facts.timing, facts.place
    needs = {name: value for name, value in facts.need_fields.items() if value is not None}
    return {
        "place": {"country": place.country, "region": place.region, "postal_code": place.postal_code},
        "budget": {}
        if budget is None
        else {
            "amount": write_amount(budget.minor, budget.currency),
            "maximum": None if budget.maximum_minor is None else write_amount(budget.maximum_minor, budget.currency),
            "currency": budget.currency,
        },
        "authority": facts.authority and facts.authority.value,
        "timing": {}
        if timing is None
        else {"within_days": timing.within_days, "not_before": timing.not_before and timing.not_before.isoformat()},
        "attribution": {"source": facts.source, "form": facts.form, "campaign": facts.campaign},
        "need": needs,
        "sub_id": facts.sub_ids,
        "needs": [{"name": name, "value": value} for name, value in needs.items()],
        "sub_ids": [{"name": name, "value": value} for name, value in facts.sub_ids.items()],
        "touches": [
            {"kind": touch.kind, "at": _write_time(touch.at), "detail": touch.detail} for touch in facts.touches
        ],
    }


def _write_time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# Leads on which a template is tried.

_LEAD: Final[dict[str, object]] = {
    "id": "lead_01hv5f6wz7example",
    "assignment_id": "asg_01hv5f6wz8example",
    "mode": "test",
    "vertical": "roofing",
    "submitted_at": "2026-03-02T09:30:00Z",
    "awarded_at": "2026-03-02T09:30:01Z",
    "price": "52.50",
    "currency": "USD",
}
FULL: Final[dict[str, object]] = {
    "lead": _LEAD,
    "contact": {
        "full_name": "Robin Q. Example",
        "first_name": "Robin Q.",
        "last_name": "Example",
        "phone": "+13125550142",
        "phone_extension": "7",
        "email": "robin@example.com",
        "street": "12 Elm Street",
        "postal_code": "60614",
        "country": "US",
        "summary": "The roof leaks above the kitchen.",
    },
    "consent": {
        "text": "I agree to be called about my request.",
        "given_at": "2026-03-02T09:29:58Z",
        "page_url": "https://roofs.example.com/quote",
        "ip": "192.0.2.7",
    },
    "metadata": {"note": "after five"},
    "place": {"country": "US", "region": "IL", "postal_code": "60614"},
    "budget": {"amount": "12000.00", "maximum": "15000.00", "currency": "USD"},
    "authority": "owner",
    "timing": {"within_days": 14, "not_before": "2026-03-10"},
    "attribution": {"source": "search", "form": "quote", "campaign": "spring"},
    "need": {"material": "tile", "stories": 2, "owns_home": True},
    "sub_id": {"click": "c-77"},
    "needs": [
        {"name": "material", "value": "tile"},
        {"name": "stories", "value": 2},
        {"name": "owns_home", "value": True},
    ],
    "sub_ids": [{"name": "click", "value": "c-77"}],
    "touches": [{"kind": "page_view", "at": "2026-03-02T09:31:00Z", "detail": "/prices"}],
}
"A lead that has everything."
SPARSE: Final[dict[str, object]] = {
    "lead": _LEAD,
    "contact": {"full_name": "Robin", "first_name": None, "last_name": "Robin", "country": "US"},
    **{group: {} for group in ("consent", "metadata", "place", "budget", "timing", "attribution", "need", "sub_id")},
    "authority": None,
    "needs": [],
    "sub_ids": [],
    "touches": [],
}
"A lead that has hardly anything."
_HOSTILE_TEXT: Final = "\"'<&>]]>\\\r\n\t{{ x }}=&%00\u2028\U0001f600-\u00e9"


def _hostile(value: object) -> object:
    """Return a value in which every text has all the characters that mean something in a format."""
    match value:
        case str():
            return _HOSTILE_TEXT
        case dict():
            return {name: _hostile(item) for name, item in value.items()}
        case list():
            return [_hostile(item) for item in value]
        case _:
            return value


HOSTILE: Final = {name: _hostile(value) for name, value in FULL.items()}
"A lead whose texts hold quotes, line breaks, marks of JSON, XML and forms, and letters of other scripts."
EXAMPLES: Final = (FULL, SPARSE, HOSTILE)
EXAMPLE_CONTACTS: Final[tuple[Mapping[str, Any], ...]] = (
    {
        **{field: _HOSTILE_TEXT for field in CONTACT_FIELDS},
        "consent": {field: _HOSTILE_TEXT for field in ("text", "given_at", "page_url", "ip")},
    },
    {"full_name": "x", "country": "US"},
)
"Contacts with all fields and with hardly any, on which a template is tried before the contact of a lead is read."
