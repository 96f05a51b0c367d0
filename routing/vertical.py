"""Definition of a vertical: need fields, qualification policy, ranking strategy and quotas, versioned as a whole."""

from typing import Annotated, Self

import msgspec

from routing.certificate import ANY_CERTIFICATE, CertificatePolicy
from routing.consent import ANY_CONSENT, ConsentPolicy
from routing.inquiry import IntakeRules, NeedField
from routing.interest import MOST_CRITERIA, InterestCriterion
from routing.joining import PayJoined, RepeatInquiries
from routing.person import SamePerson
from routing.qualification import (
    RULES_VERSION,
    AuthorityPolicy,
    BudgetPolicy,
    NeedPolicy,
    NurtureDays,
    QualificationPolicy,
    ResultConsequence,
    TimingPolicy,
)
from routing.quota import QuotaTerms
from routing.ranking import Strategy
from routing.subscription import PriceRange

LONGEST_PATIENCE_SECONDS = 3_600
"Longest `patience_seconds`: an hour. With the 24 hours for evidence of receipt, every lead ends within 25 hours."

MOST_DELAYED_PER_MILLE = 50
"Most leads of a thousand that a vertical may hold back at random: 5 %."

MOST_EXPLORED_PER_MILLE = 50
"Most leads of a thousand that a vertical may offer in a random order: 5 %."


class VerticalDefinition(QuotaTerms, frozen=True, kw_only=True):
    """One version of a vertical, as an operator wrote it. The quotas of refused and unacknowledged leads are inherited.

    `interest` are criteria about the person's touches, judged besides the four dimensions.
    `country` (ISO alpha-2) is the country of its businesses: the area of a subscription without countries lies there.
    Versions from before this field existed mean the United States. The same person is accepted once per `window_days`.
    `same_person` says which marks make two inquiries one person's.
    `repeat_inquiries` says what follows from another inquiry within them; with `provider_may_know`, its provider is
    told that it joined the earlier lead, not whose lead that is or what became of it. `pay_joined` says whose payout
    that of a lead is which other inquiries joined before a business was shown it.
    A prospect that nobody can take now waits up to `patience_seconds` for a business that soon can (opening hours, a
    cap's next window) before it ends unsold. A delivered lead may be returned for `return_window_days`, up to
    `return_percent` of the leads delivered in 30 days, and at least `returns_at_least`. With `accepts_possible_phones`,
    a number is accepted if its country's numbering plan allows it although no published range contains it.
    A score below `minimum_score` has the consequence `on_low_score`. A lead that waits for a better answer waits until
    `nurture_days` after its receipt, or until its consent ends.
    `rules_version` names the rules of qualification that judge it, and is set when a version is saved; 1 in versions
    from before this field existed.
    `reserve_minor` is the lowest price of a lead, in minor units; a subscription keeps a lower one until it is saved.
    `price_range` is what jobs cost: no subscription gets a lead whose budget and purchases all lie outside of it.
    `consent` has the requirements on the consent of every lead, `certificate` those on its certificates.
    Of a thousand leads, `explore_per_mille` are offered in a random order of the businesses that may have them,
    instead of that of the strategy, so that the effect of the order can be measured.
    Of a thousand live leads, `delay_per_mille` wait `delay_seconds` once they are qualified, so that the effect of
    speed on jobs won can be measured.
    """

    name: str
    currency: str
    country: str = "US"
    needs: dict[str, NeedField] = msgspec.field(default_factory=dict)
    requires_phone: bool = True
    requires_email: bool = True
    requires_postal_code: bool = False
    accepts_possible_phones: bool = True
    budget: BudgetPolicy
    authority: AuthorityPolicy
    need: NeedPolicy
    timing: TimingPolicy
    minimum_score: int
    on_low_score: ResultConsequence = ResultConsequence.reject
    nurture_days: NurtureDays = 90
    interest: Annotated[tuple[InterestCriterion, ...], msgspec.Meta(max_length=MOST_CRITERIA)] = ()
    strategy: Strategy = Strategy.priority
    window_days: int = 30
    same_person: SamePerson = SamePerson.either
    repeat_inquiries: RepeatInquiries = RepeatInquiries.duplicate
    provider_may_know: bool = False
    pay_joined: PayJoined = PayJoined.first
    patience_seconds: int = 0
    return_window_days: Annotated[int, msgspec.Meta(ge=0, le=90)] = 7
    return_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 15
    returns_at_least: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 3
    rules_version: int = 1
    reserve_minor: int = 1
    price_range: PriceRange | None = None
    explore_per_mille: Annotated[int, msgspec.Meta(ge=0, le=MOST_EXPLORED_PER_MILLE)] = 0
    delay_per_mille: Annotated[int, msgspec.Meta(ge=0, le=MOST_DELAYED_PER_MILLE)] = 0
    consent: ConsentPolicy = ANY_CONSENT
    certificate: CertificatePolicy = ANY_CERTIFICATE
    delay_seconds: Annotated[int, msgspec.Meta(ge=60, le=LONGEST_PATIENCE_SECONDS)] = 1_800

    def under_current_rules(self) -> Self:
        """Return this definition as it is saved: judged by the newest rules of qualification."""
        return msgspec.structs.replace(self, rules_version=RULES_VERSION)

    def intake_rules(self, slug: str) -> IntakeRules:
        """Return the requirements that an inquiry must meet to be accepted; `slug` names the vertical."""
        return IntakeRules(
            vertical=slug,
            currency=self.currency,
            needs=self.needs,
            requires_phone=self.requires_phone,
            requires_email=self.requires_email,
            requires_postal_code=self.requires_postal_code,
            accepts_possible_phones=self.accepts_possible_phones,
            requires_certificate=self.certificate.required,
        )

    def policy(self, version: int) -> QualificationPolicy:
        """Return the qualification rules, with the version of the vertical that they are part of."""
        return QualificationPolicy(
            version=version,
            currency=self.currency,
            budget=self.budget,
            authority=self.authority,
            need=self.need,
            timing=self.timing,
            minimum_score=self.minimum_score,
            interest=self.interest,
            on_low_score=self.on_low_score,
            nurture_days=self.nurture_days,
            rules_version=self.rules_version,
        )
