"""The two invented verticals of the demo: need fields, policies and ranking strategies."""

from typing import Final

from routing.inquiry import Authority, NeedField
from routing.joining import PayJoined, RepeatInquiries
from routing.qualification import AuthorityPolicy, BudgetPolicy, NeedPolicy, Points, ResultConsequence, TimingPolicy
from routing.ranking import Strategy
from routing.vertical import VerticalDefinition

CURRENCY: Final = "USD"
HOME: Final = "home_improvement"
EDUCATION: Final = "professional_education"
SERVICES: Final = ("roofing", "windows", "hvac", "solar", "plumbing")
WANTED_ANSWERS: Final = {"property_type": "house", "level": "certificate"}
"Questions about the need that a lead waits for if they are not answered, each with an answer that is accepted."
PROGRAMMES: Final = ("business", "data", "design", "healthcare", "law")


def home_improvement() -> VerticalDefinition:
    """Return the vertical for work on houses in the United States, where the place matters.

    Inquiries of a person who asks again join the first lead, and its payout is divided.
    """
    return VerticalDefinition(
        name="Home improvement",
        currency=CURRENCY,
        needs={
            "service": NeedField(kind="choice", required=True, choices=SERVICES, label="What should be done?"),
            "property_type": NeedField(kind="choice", choices=("house", "apartment", "commercial"), label="Where?"),
            "owns_home": NeedField(kind="boolean", label="Do you own it?"),
            "roof_type": NeedField(kind="choice", choices=("shingle", "tile", "metal", "flat"), label="What roof?"),
        },
        requires_postal_code=True,
        budget=BudgetPolicy(
            minimum_minor=200_000, points=Points(meets=30, unknown=15), on_unknown=ResultConsequence.accept
        ),
        authority=AuthorityPolicy(
            accepted=(Authority.decision_maker, Authority.influencer),
            points=Points(meets=25, unknown=15, fails=5),
            on_fails=ResultConsequence.accept,
        ),
        need=NeedPolicy(
            wanted={"property_type": ("house", "apartment")},
            points=Points(meets=25, unknown=15),
            on_unknown=ResultConsequence.nurture,
        ),
        timing=TimingPolicy(
            within_days=90,
            nurture_limit_days=365,
            points=Points(meets=20, unknown=10),
            on_unknown=ResultConsequence.accept,
        ),
        minimum_score=50,
        strategy=Strategy.fair,
        repeat_inquiries=RepeatInquiries.joined,
        provider_may_know=True,
        pay_joined=PayJoined.split,
    )


def professional_education() -> VerticalDefinition:
    """Return the vertical for courses for working people, where schools share the leads by weight."""
    return VerticalDefinition(
        name="Professional education",
        currency=CURRENCY,
        needs={
            "programme": NeedField(kind="choice", required=True, choices=PROGRAMMES, label="What to study?"),
            "level": NeedField(kind="choice", choices=("certificate", "degree", "school"), label="To what level?"),
            "years_of_work": NeedField(kind="integer", minimum=0, maximum=60, label="Years of work so far"),
        },
        budget=BudgetPolicy(
            minimum_minor=150_000, points=Points(meets=25, unknown=15), on_unknown=ResultConsequence.accept
        ),
        authority=AuthorityPolicy(
            accepted=(Authority.decision_maker,),
            points=Points(meets=25, unknown=15, fails=10),
            on_fails=ResultConsequence.accept,
        ),
        need=NeedPolicy(
            wanted={"level": ("certificate", "degree")},
            points=Points(meets=30, unknown=15),
            on_unknown=ResultConsequence.nurture,
        ),
        timing=TimingPolicy(
            within_days=120,
            nurture_limit_days=365,
            points=Points(meets=20, unknown=10),
            on_unknown=ResultConsequence.accept,
        ),
        minimum_score=50,
        strategy=Strategy.weighted_share,
    )
