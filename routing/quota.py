"""Quotas of refused and unacknowledged leads, above which a subscription is suspended.

Neither a refused lead nor one without evidence of receipt is charged, so a business could read all leads without
paying. The quotas limit the rate of both. Callers count the leads; the terms and the decision are here.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import msgspec

OVERDUE = timedelta(hours=1)
"""Time after the exposure from which a lead without an acknowledgement counts as unacknowledged. A business whose
server is down for an hour wastes leads of people who wait for a call."""


class SuspensionReason(StrEnum):
    """Reason for which a subscription gets no leads until an operator resumes it."""

    refusals = "refusals"
    """It refused too many of the leads that it received."""
    unacknowledged = "unacknowledged"
    """It left too many of the leads that it received without an acknowledgement."""


class QuotaTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Quotas of a vertical, as percentages of the leads of one subscription in the last `quota_days` days.

    A subscription is suspended if it has more than a percentage and at least `quota_at_least` such leads. 100 percent
    is no quota.
    """

    quota_days: Annotated[int, msgspec.Meta(ge=1, le=90)] = 7
    quota_at_least: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 5
    refusal_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 30
    unacknowledged_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 30


class QuotaCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of leads of one subscription in its window.

    `leads` were awarded and not released, without those exposed less than `OVERDUE` ago, which may still be
    acknowledged. `unacknowledged` leads have lapsed or are overdue.
    """

    leads: int
    refused: int
    unacknowledged: int


class Suspension(msgspec.Struct, frozen=True, kw_only=True):
    """An exceeded quota: `counted` of `leads` leads were refused or not acknowledged."""

    reason: SuspensionReason
    counted: int
    leads: int


def find_crossed(terms: QuotaTerms, counts: QuotaCounts) -> Suspension | None:
    """Return the first quota that the counts exceed, or None."""
    leads = max(counts.leads, counts.refused + counts.unacknowledged)
    for reason, counted, percent in (
        (SuspensionReason.refusals, counts.refused, terms.refusal_percent),
        (SuspensionReason.unacknowledged, counts.unacknowledged, terms.unacknowledged_percent),
    ):
        if counted >= terms.quota_at_least and counted * 100 > percent * leads:
            return Suspension(reason=reason, counted=counted, leads=leads)
    return None
