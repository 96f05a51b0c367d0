"""Inquiries of two verticals, home improvement and professional education, complete unless told otherwise.

Contact data is from ranges reserved for fiction alone: telephone numbers +1 312 555 01xx and the domain example.com.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from marketplace.intake.postal import PostalArea
from marketplace.intake.reading import AcceptedInquiry, read_inquiry
from marketplace.intake.shapes import ContactBody, InquiryBody
from routing.inquiry import (
    Authority,
    Budget,
    EvidenceKind,
    Facts,
    IntakeRules,
    Mode,
    NeedField,
    Place,
    Signals,
    Timing,
)
from routing.qualification import (
    AuthorityPolicy,
    BudgetPolicy,
    NeedPolicy,
    Points,
    QualificationPolicy,
    ResultConsequence,
    TimingPolicy,
)

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)

ROOFING_NEEDS = {
    "roof_type": NeedField(kind="choice", required=True, choices=("tile", "shingle", "metal"), label="Roof"),
    "square_metres": NeedField(kind="integer", minimum=1, maximum=10_000, label="Area"),
    "owns_home": NeedField(kind="boolean", label="Owns the home"),
}
EDUCATION_NEEDS = {
    "field": NeedField(kind="choice", required=True, choices=("data", "finance", "health"), label="Subject"),
    "years_of_experience": NeedField(kind="integer", minimum=0, maximum=60, label="Experience"),
    "employer_pays": NeedField(kind="boolean", label="Employer pays"),
}
CHICAGO = PostalArea(
    country="US",
    code="60614",
    city="Chicago",
    region="IL",
    latitude=41.9229,
    longitude=-87.6483,
    time_zone="America/Chicago",
)


def iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def roofing_rules(**changes: Any) -> IntakeRules:
    return IntakeRules(**{"vertical": "roofing", "currency": "USD", "needs": ROOFING_NEEDS} | changes)


def education_rules(**changes: Any) -> IntakeRules:
    return IntakeRules(**{"vertical": "education", "currency": "USD", "needs": EDUCATION_NEEDS} | changes)


AREA_CODES = (312, 217, 224, 309, 618, 630, 708, 773, 815, 847)
"Of Illinois. Each has a hundred numbers that are reserved for examples."


def roofing_body(number: int = 1, now: datetime = NOW, **sections: Any) -> dict[str, Any]:
    """The body of POST /v1/inquiries; `number` 0 to 999 makes another person, `sections` replace top-level fields."""
    return {
        "vertical": "roofing",
        "provider_reference": f"ref-{number}",
        "submitted_at": iso(now - timedelta(seconds=5)),
        "contact": {
            "full_name": "Robin Example",
            "phone": f"+1 {AREA_CODES[number // 100]} 555 01{number % 100:02}",
            "email": f"robin.{number}@example.com",
            "street": "1 Example Street",
            "postal_code": "60614",
            "country": "US",
        },
        "bant": {
            "budget": {"minor": 1_200_000, "currency": "USD"},
            "authority": "decision_maker",
            "need": {"summary": "leak after storm", "fields": {"roof_type": "tile"}},
            "timing": {"within_days": 14},
        },
        "consent": {
            "text": "I agree to be called about my roof.",
            "given_at": iso(now - timedelta(seconds=10)),
            "page_url": "https://www.example.com/quote",
            "ip": "192.0.2.7",
        },
        "attribution": {"source": "google", "form": "quote-1", "campaign": "storm", "sub_ids": {"ad": "7"}},
        "touches": [{"kind": "page_view", "at": iso(now - timedelta(minutes=3)), "detail": "/roof-repair"}],
    } | sections


def education_body(number: int = 1, now: datetime = NOW, **sections: Any) -> dict[str, Any]:
    """Return a body like that of `roofing_body`, for professional education."""
    bant = {
        "budget": {"minor": 150_000, "maximum_minor": 400_000, "currency": "USD"},
        "authority": "researcher",
        "need": {"summary": "change of career", "fields": {"field": "data", "employer_pays": False}},
        "timing": {"within_days": 60},
        "evidence": {"authority": "inferred"},
    }
    return roofing_body(number, now, **({"vertical": "education", "bant": bant} | sections))


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the body with one field, named as contact.phone, set; None removes it."""
    head, _, inner = path.partition(".")
    if inner:
        return body | {head: changed(body.get(head, {}), inner, value)}
    return {name: item for name, item in body.items() if name != head} | ({} if value is None else {head: value})


def accept(
    body: dict[str, Any], rules: IntakeRules | None = None, now: datetime = NOW, mode: Mode = Mode.live
) -> AcceptedInquiry:
    """Return the accepted inquiry of a body; fails the test if it has faults."""
    inquiry = msgspec.convert(body, InquiryBody)
    outcome = read_inquiry(inquiry, rules or roofing_rules(), find_area(inquiry.contact), mode=mode, now=now)
    assert isinstance(outcome, AcceptedInquiry), outcome
    return outcome


def find_area(contact: ContactBody) -> PostalArea | None:
    """Return the only area that the tests of reading know."""
    return CHICAGO if (contact.country.upper(), contact.postal_code) == ("US", "60614") else None


def roofing_facts(**changes: Any) -> Facts:
    """A ready lead of home improvement, in Chicago."""
    fields: dict[str, Any] = {
        "vertical": "roofing",
        "mode": Mode.live,
        "submitted_at": NOW,
        "received_at": changes.get("submitted_at", NOW),
        "place": chicago(),
        "signals": Signals(phone_type="fixed_or_mobile", phone_region="US"),
        "budget": Budget(minor=1_200_000, currency="USD"),
        "authority": Authority.decision_maker,
        "need_fields": {"roof_type": "tile"},
        "timing": Timing(within_days=14),
        "source": "google",
    }
    return Facts(**fields | changes)


def education_facts(**changes: Any) -> Facts:
    """A ready lead of professional education, in Chicago, whose authority was inferred."""
    return roofing_facts(
        **{
            "vertical": "education",
            "budget": Budget(minor=150_000, maximum_minor=400_000, currency="USD"),
            "authority": Authority.researcher,
            "need_fields": {"field": "data", "employer_pays": False},
            "timing": Timing(within_days=60),
            "evidence": {"authority": EvidenceKind.inferred},
        }
        | changes
    )


def chicago(**changes: Any) -> Place:
    place: dict[str, Any] = {
        "country": "US",
        "postal_code": "60614",
        "region": "IL",
        "latitude": 41.9229,
        "longitude": -87.6483,
        "time_zone": "America/Chicago",
    }
    return Place(**place | changes)


def points(meets: int = 25, unknown: int = 10, fails: int = 0) -> Points:
    return Points(meets=meets, unknown=unknown, fails=fails)


def roofing_policy(**changes: Any) -> QualificationPolicy:
    """USD 5,000, a decision maker or influencer, a tile or shingle roof, within 60 days; 25 points each, 60 to pass.

    What is not known rejects nobody.
    """
    unknown: dict[str, Any] = {"points": points(), "on_unknown": ResultConsequence.accept}
    fields: dict[str, Any] = {
        "version": 3,
        "currency": "USD",
        "budget": BudgetPolicy(minimum_minor=500_000, **unknown),
        "authority": AuthorityPolicy(accepted=(Authority.decision_maker, Authority.influencer), **unknown),
        "need": NeedPolicy(wanted={"roof_type": ("tile", "shingle")}, **unknown),
        "timing": TimingPolicy(within_days=60, nurture_limit_days=180, **unknown),
        "minimum_score": 60,
    }
    return QualificationPolicy(**fields | changes)


def education_policy(**changes: Any) -> QualificationPolicy:
    """USD 1,000, anybody's say, any field of study, within 120 days; nothing but the score rejects."""
    fields: dict[str, Any] = {
        "version": 1,
        "currency": "USD",
        "budget": BudgetPolicy(minimum_minor=100_000, points=points(), on_fails=ResultConsequence.accept),
        "authority": AuthorityPolicy(accepted=tuple(Authority), points=points(), on_fails=ResultConsequence.accept),
        "need": NeedPolicy(points=points(), on_fails=ResultConsequence.accept),
        "timing": TimingPolicy(within_days=120, points=points(), on_fails=ResultConsequence.accept),
        "minimum_score": 40,
    }
    return QualificationPolicy(**fields | changes)
