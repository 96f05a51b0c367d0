"""Criteria of interest: touches of a person that a vertical's policy awards points for, or requires.

Examples: two visits of the pricing page within 7 days; a reply; an answered call of at least 60 seconds; a purchase of
at least an amount. A criterion is data. `count_interest` finds the touches that meet it; routing/qualification.py turns
them into one of three results. A policy without criteria judges as it did before there were any.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from routing.inquiry import Direction, Touch, TouchAmount, amount_in_words

MOST_CRITERIA = 20
"""Most criteria of one vertical: each is compared with every touch of a lead."""

CriterionName = Annotated[str, Meta(min_length=1, max_length=40, pattern="^[a-z][a-z0-9_]*$")]
"""Name of a criterion, unique in its vertical: lower-case letters, digits and underscores."""


class UnmetConsequence(StrEnum):
    """Effect of a required criterion that a lead does not meet."""

    reject = "reject"
    """The lead is rejected."""
    nurture = "nurture"
    """The lead waits for a touch that meets it, until `nurture_days` after its receipt."""


class InterestCriterion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Touches that show interest: at least `count` of one of the `kinds` that pass every condition.

    A touch passes if its detail begins with `detail_prefix`, capital letters or not, its `direction` is the same, it
    lasted `minimum_seconds` or longer, and its amount is at least `minimum_minor` in the vertical's currency. With
    `within_days`, the touches lie within so many times 24 hours of each other.

    It is met by enough such touches. It fails if `short_fails` and a touch of the kind, detail and direction was too
    short or too low, such as a call that nobody answered. Otherwise it is unknown. Met, it adds `points` to the score.
    Unmet or unknown, a criterion that is `required` has the consequence `otherwise`.
    """

    name: CriterionName
    label: Annotated[str, Meta(max_length=100)] = ""
    kinds: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=40)], ...], Meta(min_length=1, max_length=10)]
    detail_prefix: Annotated[str, Meta(max_length=200)] = ""
    direction: Direction | None = None
    count: Annotated[int, Meta(ge=1, le=20)] = 1
    within_days: Annotated[int, Meta(ge=1, le=3_650)] | None = None
    minimum_seconds: Annotated[int, Meta(ge=1, le=86_400)] | None = None
    minimum_minor: Annotated[int, Meta(ge=1, le=10**12)] | None = None
    points: Annotated[int, Meta(ge=0, le=100)] = 0
    required: bool = False
    otherwise: UnmetConsequence = UnmetConsequence.reject
    short_fails: bool = False

    @property
    def title(self) -> str:
        """Its label, or its name without underscores."""
        return self.label or self.name.replace("_", " ")


class InterestCount(msgspec.Struct, frozen=True, kw_only=True):
    """Touches that meet a criterion, none if there are too few; `fell_short`: another one was too short or too low."""

    met_by: tuple[Touch, ...] = ()
    fell_short: bool = False


def count_interest(criterion: InterestCriterion, touches: Iterable[Touch], currency: str) -> InterestCount:
    """Return the earliest touches that meet the criterion, or whether one of them fell short. Never raises."""
    alike = [touch for touch in touches if _is_alike(criterion, touch)]
    passing = sorted((touch for touch in alike if _passes(criterion, touch, currency)), key=lambda touch: touch.at)
    return InterestCount(met_by=_first_enough(criterion, passing), fell_short=len(passing) < len(alike))


def _is_alike(criterion: InterestCriterion, touch: Touch) -> bool:
    """Return whether a touch has the kind, the detail and the direction of a criterion."""
    return (
        touch.kind in criterion.kinds
        and touch.detail.casefold().startswith(criterion.detail_prefix.casefold())
        and (criterion.direction is None or touch.direction is criterion.direction)
    )


def _passes(criterion: InterestCriterion, touch: Touch, currency: str) -> bool:
    """Return whether a touch is long and high enough; one without a length or an amount is not."""
    if criterion.minimum_seconds is not None and (touch.seconds or 0) < criterion.minimum_seconds:
        return False
    if criterion.minimum_minor is None:
        return True
    amount = touch.amount
    return amount is not None and amount.currency == currency and amount.minor >= criterion.minimum_minor


def _first_enough(criterion: InterestCriterion, passing: Sequence[Touch]) -> tuple[Touch, ...]:
    """Return the first touches that are enough and near enough to each other; `passing` are in order of time."""
    for start in range(len(passing) - criterion.count + 1):
        group = passing[start : start + criterion.count]
        if criterion.within_days is None or group[-1].at - group[0].at <= timedelta(days=criterion.within_days):
            return tuple(group)
    return ()


def interest_in_words(criterion: InterestCriterion, currency: str) -> str:
    """Return what the criterion asks for, such as "page view of /pricing, 2 times within 7 days"."""
    kinds = " or ".join(kind.replace("_", " ") for kind in criterion.kinds)
    words = f"{kinds} of {criterion.detail_prefix}" if criterion.detail_prefix else kinds
    if criterion.direction is not None:
        words = f"{words}, {criterion.direction}"
    if criterion.minimum_seconds is not None:
        words = f"{words}, at least {criterion.minimum_seconds:,} seconds"
    if criterion.minimum_minor is not None:
        words = f"{words}, at least {amount_in_words(criterion.minimum_minor, currency)}"
    if criterion.count > 1:
        words = f"{words}, {criterion.count} times"
    if criterion.count > 1 and criterion.within_days is not None:
        words = f"{words} within {criterion.within_days:,} day{'' if criterion.within_days == 1 else 's'}"
    return words


def criterion_in_words(criterion: InterestCriterion, currency: str) -> str:
    """Return the criterion with its label, if it has one: "Replied (email reply)", else "email reply"."""
    threshold = interest_in_words(criterion, currency)
    return f"{criterion.label} ({threshold})" if criterion.label else threshold


def touches_that_meet(criterion: InterestCriterion, currency: str, at: datetime) -> tuple[Touch, ...]:
    """Return touches at one time that meet the criterion, to show by them what it changes."""
    amount = criterion.minimum_minor
    touch = Touch(
        kind=criterion.kinds[0],
        at=at,
        detail=criterion.detail_prefix,
        direction=criterion.direction,
        seconds=criterion.minimum_seconds,
        amount=None if amount is None else TouchAmount(minor=amount, currency=currency),
    )
    return (touch,) * criterion.count
