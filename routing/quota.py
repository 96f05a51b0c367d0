"""How many leads a subscription may read without paying before it is suspended.

A refusal is never charged, nor is a lead without evidence of receipt, so that a business could read everything for
nothing. Both are met by their rate. Here are the terms and the decision; the counts come from stored facts.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import msgspec

OVERDUE = timedelta(hours=1)
"""How long an exposed lead may go without an acknowledgement before it counts like one that never gets any. Somebody
whose server is down for an hour wastes the leads of people who wait for a call."""


class SuspensionReason(StrEnum):
    """Why a subscription gets no more leads until an operator resumes it."""

    refusals = "refusals"
    """It refused too many of the leads that it was shown."""
    unacknowledged = "unacknowledged"
    """It did not acknowledge too many of the leads that it was shown."""


class QuotaTerms(msgspec.Struct, frozen=True, kw_only=True):
    """A vertical's quotas. Over `quota_days` days, more than a percentage of the leads shown, and `quota_at_least` of
    them in any case, suspend the subscription. 100 percent is no quota.
    """

    quota_days: Annotated[int, msgspec.Meta(ge=1, le=90)] = 7
    quota_at_least: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 5
    refusal_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 30
    unacknowledged_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 30


class QuotaCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of one subscription since its window began. `shown` are those awarded and not given back, without those
    exposed less than `OVERDUE` ago, of which nothing can be said yet; `unacknowledged` have lapsed or are overdue.
    """

    shown: int
    refused: int
    unacknowledged: int


class Suspension(msgspec.Struct, frozen=True, kw_only=True):
    """A quota that is crossed: by `counted` of `shown` leads."""

    reason: SuspensionReason
    counted: int
    shown: int


def find_crossed(terms: QuotaTerms, counts: QuotaCounts) -> Suspension | None:
    """The first quota that the counts exceed, or None."""
    shown = max(counts.shown, counts.refused + counts.unacknowledged)
    for reason, counted, percent in (
        (SuspensionReason.refusals, counts.refused, terms.refusal_percent),
        (SuspensionReason.unacknowledged, counts.unacknowledged, terms.unacknowledged_percent),
    ):
        if counted >= terms.quota_at_least and counted * 100 > percent * shown:
            return Suspension(reason=reason, counted=counted, shown=shown)
    return None
