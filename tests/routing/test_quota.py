"""Quotas of refusals and of leads without acknowledgement: which counts suspend a subscription."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.quota import QuotaCounts, QuotaTerms, Suspension, SuspensionReason, find_crossed

REFUSALS, UNACKNOWLEDGED = SuspensionReason.refusals, SuspensionReason.unacknowledged


@pytest.mark.parametrize(
    ("leads", "refused", "unacknowledged", "reason"),
    [
        (0, 0, 0, None),
        (4, 4, 0, None),
        (5, 5, 0, REFUSALS),
        (16, 5, 0, REFUSALS),
        (17, 5, 0, None),
        (20, 6, 0, None),
        (4, 0, 4, None),
        (5, 0, 5, UNACKNOWLEDGED),
        (17, 0, 5, None),
        (10, 5, 5, REFUSALS),
        (10, 4, 5, UNACKNOWLEDGED),
        (0, 5, 0, REFUSALS),
    ],
)
def test_a_quota_is_crossed_by_a_number_and_a_share(
    leads: int, refused: int, unacknowledged: int, reason: SuspensionReason | None
) -> None:
    counts = QuotaCounts(leads=leads, refused=refused, unacknowledged=unacknowledged)
    crossed = find_crossed(QuotaTerms(), counts)
    assert (crossed and crossed.reason) is reason


def test_a_suspension_names_the_figures_that_crossed_the_quota() -> None:
    counts = QuotaCounts(leads=12, refused=6, unacknowledged=1)
    assert find_crossed(QuotaTerms(), counts) == Suspension(reason=REFUSALS, counted=6, leads=12)


@given(st.integers(0, 1_000), st.integers(0, 1_000), st.integers(0, 1_000))
def test_a_hundred_percent_is_no_quota(leads: int, refused: int, unacknowledged: int) -> None:
    terms = QuotaTerms(refusal_percent=100, unacknowledged_percent=100)
    counts = QuotaCounts(leads=leads, refused=refused, unacknowledged=unacknowledged)
    assert find_crossed(terms, counts) is None
