"""A vertical: one market's questions, policy and way of choosing among businesses, versioned as a whole."""

from typing import Annotated

import msgspec

from routing.inquiry import IntakeRules, NeedField
from routing.qualification import AuthorityPolicy, BudgetPolicy, NeedPolicy, Policy, TimingPolicy
from routing.quota import QuotaTerms
from routing.ranking import Strategy

LONGEST_PATIENCE_SECONDS = 3_600
"An hour: with the 24 hours in which evidence may come after it, every lead ends within 25."


class VerticalDefinition(QuotaTerms, frozen=True, kw_only=True):
    """One version of a vertical as an operator wrote it.

    `country` (ISO alpha-2) is where its businesses work: postal codes, prefixes and circles of a subscription that
    names no countries lie there. Versions written before it existed mean the United States.
    `window_days`: the same person is taken once per window. `patience_seconds`: how long a prospect that nobody can
    take now waits for somebody who soon can (an opening hour, a cap's new day) before it ends unsold; 0: not at all.
    A delivered lead may be given back for `return_window_days`, up to `return_percent` of those delivered in 30 days
    and `returns_at_least` of them in any case. `accepts_possible_phones`: a number is taken that its country's plan
    allows although no published range has it, with its verification shown. The quotas of refusals and of leads without
    acknowledgement are those of `QuotaTerms`.
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
    strategy: Strategy = Strategy.priority
    window_days: int = 30
    patience_seconds: int = 0
    return_window_days: Annotated[int, msgspec.Meta(ge=0, le=90)] = 7
    return_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 15
    returns_at_least: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 3

    def intake_rules(self, slug: str) -> IntakeRules:
        """What an inquiry is checked against before it is taken in."""
        return IntakeRules(
            vertical=slug,
            currency=self.currency,
            needs=self.needs,
            requires_phone=self.requires_phone,
            requires_email=self.requires_email,
            requires_postal_code=self.requires_postal_code,
            accepts_possible_phones=self.accepts_possible_phones,
        )

    def policy(self, version: int) -> Policy:
        """The rules of qualification, named by the version they are part of."""
        return Policy(
            version=version,
            currency=self.currency,
            budget=self.budget,
            authority=self.authority,
            need=self.need,
            timing=self.timing,
            minimum_score=self.minimum_score,
        )
