"""Returns: windows, quotas, and the judgement of each reason from a record."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.returns import (
    MACHINE_JUDGED,
    BantFacts,
    PhoneFacts,
    ReturnClosedReason,
    ReturnReason,
    ReturnRecord,
    ReturnTerms,
    allow_return,
    closed,
    judge,
    quota,
)

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
PHONE = PhoneFacts(present=True, kind="mobile", kind_ordered=True)


def record(**changes: Any) -> ReturnRecord:
    standard = {
        "person_known": True,
        "seen_before_at": None,
        "window_days": 30,
        "in_area": True,
        "phone": PHONE,
        "bant": None,
    }
    return ReturnRecord(**{**standard, **changes})


def phone(**changes: Any) -> ReturnRecord:
    standard = {"present": True, "kind": "mobile", "kind_ordered": True}
    return record(phone=PhoneFacts(**{**standard, **changes}))


def bant(**changes: Any) -> ReturnRecord:
    standard = {
        "dimension": "budget",
        "claimed": "fails",
        "shipped": "meets",
        "replayed": "meets",
        "threshold": "at least USD 5,000",
        "evidence": "stated",
    }
    reached = bool(changes.pop("somebody_reached", False))
    return record(bant=BantFacts(**{**standard, **changes}), somebody_reached=reached)


DESK = None


@pytest.mark.parametrize(
    ("reason", "facts", "granted", "words"),
    [
        ("duplicate", record(seen_before_at=NOW), True, "same person on 2026-11-21"),
        ("duplicate", record(), DESK, ""),
        ("duplicate", record(person_known=False), DESK, ""),
        ("outside_area", record(in_area=False), True, "outside the area"),
        ("outside_area", record(), False, "in the area"),
        ("invalid_number", record(), DESK, ""),
        ("invalid_number", record(somebody_reached=True), DESK, ""),
        ("invalid_number", phone(kind="fixed_line", kind_ordered=False), True, "of this kind: fixed line"),
        ("invalid_number", phone(kind="other"), DESK, ""),
        ("invalid_number", phone(present=False, kind="other", kind_ordered=False), False, "none was given"),
        ("bant_mismatch", bant(), False, "delivered as “meets”, and the inquiry says the same (stated)"),
        ("bant_mismatch", bant(claimed="meets"), False, "As sold"),
        ("bant_mismatch", bant(replayed="fails"), True, "the inquiry gives “fails”"),
        ("bant_mismatch", bant(replayed="unknown"), True, "the inquiry gives “unknown”"),
        ("bant_mismatch", bant(evidence="inferred"), DESK, ""),
        ("bant_mismatch", bant(somebody_reached=True), DESK, ""),
        ("bant_mismatch", bant(somebody_reached=True, claimed="meets"), False, "As sold"),
        ("bant_mismatch", bant(somebody_reached=True, replayed="fails"), True, "the inquiry gives “fails”"),
        (
            "bant_mismatch",
            bant(shipped="unknown", claimed="meets", replayed="unknown", evidence=None),
            False,
            "evidence not recorded",
        ),
        ("bant_mismatch", record(), DESK, ""),
        *((reason, record(), DESK, "") for reason in ("wrong_person", "no_consent_recalled", "fraud", "other")),
    ],
)
def test_the_record_settles_a_reason_or_leaves_it_to_a_person(
    reason: str, facts: ReturnRecord, granted: bool | None, words: str
) -> None:
    judgement = judge(ReturnReason(reason), facts)
    assert (judgement.granted if judgement else DESK) is granted
    assert words in (judgement.finding if judgement else "")
    assert judgement is None or judgement.finding.endswith(".")
    assert judgement is None or reason in MACHINE_JUDGED


DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("age", "delivered", "returned", "stands_in_the_way"),
    [
        (7 * DAY, 1, 0, None),
        (7 * DAY + timedelta(microseconds=1), 1, 0, ReturnClosedReason.window),
        (DAY, 1, 2, None),
        (DAY, 1, 3, ReturnClosedReason.quota),
        (DAY, 26, 3, ReturnClosedReason.quota),
        (DAY, 27, 3, None),
        (DAY, 100, 14, None),
        (DAY, 100, 15, ReturnClosedReason.quota),
        (8 * DAY, 1, 3, ReturnClosedReason.window),
    ],
)
def test_a_return_is_open_for_its_time_and_within_its_share(
    age: timedelta, delivered: int, returned: int, stands_in_the_way: ReturnClosedReason | None
) -> None:
    assert closed(ReturnTerms(), NOW - age, delivered, returned, NOW) is stands_in_the_way


@pytest.mark.parametrize(("returned", "left"), [(0, 3), (2, 1), (3, 0), (5, 0)])
def test_a_business_is_told_until_when_and_how_many_it_may_give_back(returned: int, left: int) -> None:
    allowance = allow_return(ReturnTerms(), NOW - DAY, 1, returned, NOW)
    assert (allowance.until, allowance.left) == (NOW + 6 * DAY, left)
    assert (allowance.closed is None) is (left > 0)


@given(delivered=st.integers(0, 10**6), percent=st.integers(0, 100), at_least=st.integers(0, 1_000))
def test_a_quota_is_at_least_what_was_promised_and_at_most_the_share(
    delivered: int, percent: int, at_least: int
) -> None:
    allowed = quota(ReturnTerms(percent=percent, at_least=at_least), delivered)
    assert allowed >= at_least
    assert allowed == at_least or allowed * 100 <= delivered * percent < (allowed + 1) * 100
