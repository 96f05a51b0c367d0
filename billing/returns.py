"""Rules for returns: the time window, the quota, and the judgement of each reason that stored facts can decide.

Callers load the facts. Business and provider both read the finding of a judgement, so no finding names either of them
or repeats what anybody wrote.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

import msgspec

QUOTA_DAYS: Final = 30
"Days over which delivered and returned leads are counted for the quota: about a month."


class ReturnReason(StrEnum):
    """Reason for which a business returns a lead."""

    duplicate = "duplicate"
    """The business received the same person before."""
    outside_area = "outside_area"
    """The lead's place is outside the area of the subscription."""
    invalid_number = "invalid_number"
    """The telephone number is not valid, or of a kind that the subscription excludes."""
    bant_mismatch = "bant_mismatch"
    """A finding of the BANT verdict does not follow from the inquiry."""
    wrong_person = "wrong_person"
    """The person who answered is not the person of the inquiry."""
    no_consent_recalled = "no_consent_recalled"
    """The person does not remember having asked to be contacted."""
    fraud = "fraud"
    """The inquiry was made up."""
    other = "other"
    """Anything else; the note says what."""


MACHINE_JUDGED: Final = frozenset(
    {
        ReturnReason.duplicate,
        ReturnReason.outside_area,
        ReturnReason.invalid_number,
        ReturnReason.bant_mismatch,
    }
)
"Reasons that stored facts may decide. All others go to an operator and need a note."


class ReturnClosedReason(StrEnum):
    """Reason for which a return is refused without a judgement."""

    window = "window"
    """The time in which the lead could be returned is over."""
    quota = "quota"
    """The business has returned as many leads as its quota allows."""


class ReturnTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on returns: days after delivery, and share of the leads delivered in the last 30 days.

    The quota is `percent` of those leads, rounded down, and at least `at_least`, so that a small business may return
    leads too.
    """

    window_days: int = 7
    percent: int = 15
    at_least: int = 3


class PhoneFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Telephone number of a lead: whether there is one, its kind, and whether the subscription accepts that kind."""

    present: bool
    kind: str
    kind_ordered: bool


class BantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Findings for one BANT dimension: claimed by the business, delivered with the lead, recalculated from the inquiry.

    `claimed`, `shipped` and `replayed` are each meets, fails or unknown. `evidence` is how the provider learned the
    value (stated, inferred or verified; None if not recorded), `threshold` the value it was compared with.
    """

    dimension: str
    claimed: str
    shipped: str
    replayed: str
    threshold: str
    evidence: str | None


class ReturnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Stored facts about one delivered lead that a judgement reads.

    `person_known` is false for an erased person, whose contact data cannot be compared. `seen_before_at` is the last
    time in the preceding `window_days` at which the same business was shown the same person. `bant` is None if the
    business did not claim a mismatch. `somebody_reached` is true if the business lists a call with an answer.
    """

    person_known: bool
    seen_before_at: datetime | None
    window_days: int
    in_area: bool
    phone: PhoneFacts
    bant: BantFacts | None = None
    somebody_reached: bool = False


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """Time until which a lead may be returned, number of returns that the business has left, and reason to refuse."""

    until: datetime
    left: int
    closed: ReturnClosedReason | None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Decision on a return, with a sentence that business and provider read."""

    granted: bool
    finding: str


def closed(
    terms: ReturnTerms, delivered_at: datetime, delivered_count: int, returned_count: int, now: datetime
) -> ReturnClosedReason | None:
    """Return why a return is not judged at `now`, or None if it may be. The counts are those of `allow_return`."""
    return allow_return(terms, delivered_at, delivered_count, returned_count, now).closed


def allow_return(
    terms: ReturnTerms, delivered_at: datetime, delivered_count: int, returned_count: int, now: datetime
) -> Allowance:
    """Return until when a lead may be given back, and how many the business may give back now.

    Both counts are of leads delivered in the last 30 days: all of them, and those returned or requested to be.
    """
    until = delivered_at + timedelta(days=terms.window_days)
    left = max(0, quota(terms, delivered_count) - returned_count)
    reason = None
    if now > until:
        reason = ReturnClosedReason.window
    elif left == 0:
        reason = ReturnClosedReason.quota
    return Allowance(until=until, left=left, closed=reason)


def quota(terms: ReturnTerms, delivered_count: int) -> int:
    """Return the number of leads that may be returned out of `delivered_count`."""
    return max(terms.at_least, delivered_count * terms.percent // 100)


def judge(reason: ReturnReason, record: ReturnRecord) -> Judgement | None:
    """Grant or deny a return if the record decides it; return None if an operator has to.

    A return is denied only if the record contradicts its reason, not because the record has no evidence for it.
    """
    match reason:
        case ReturnReason.duplicate:
            return _judge_duplicate(record)
        case ReturnReason.outside_area:
            return _judge_area(record)
        case ReturnReason.invalid_number:
            return _judge_number(record.phone)
        case ReturnReason.bant_mismatch:
            return _judge_bant(record.bant, record.somebody_reached)
        case ReturnReason.wrong_person | ReturnReason.no_consent_recalled | ReturnReason.fraud | ReturnReason.other:
            return None
        case _:
            assert_never(reason)


def _granted(finding: str) -> Judgement:
    return Judgement(granted=True, finding=finding)


def _denied(finding: str) -> Judgement:
    return Judgement(granted=False, finding=finding)


def _judge_duplicate(record: ReturnRecord) -> Judgement | None:
    """Grant a return of a person seen before; otherwise an operator decides, as contact data may have changed."""
    if not record.person_known or record.seen_before_at is None:
        return None
    return _granted(f"This business was shown the same person on {record.seen_before_at:%Y-%m-%d}, in another lead.")


def _judge_area(record: ReturnRecord) -> Judgement:
    if record.in_area:
        return _denied("The place of the inquiry is in the area of the subscription.")
    return _granted("The place of the inquiry is outside the area of the subscription.")


def _judge_number(phone: PhoneFacts) -> Judgement | None:
    """Judge the number by its presence and kind. Only a call shows whether it works and whose it is."""
    if not phone.present:
        return _denied("This vertical does not require a telephone number, and none was given.")
    if not phone.kind_ordered:
        kind = phone.kind.replace("_", " ")
        return _granted(f"The subscription does not accept numbers of this kind: {kind}.")
    return None


def _judge_bant(bant: BantFacts | None, somebody_reached: bool) -> Judgement | None:
    """Judge a claim against the finding that was delivered with the lead.

    If the finding rests on an inference, or the business has reached somebody since, an operator decides: the person
    may have said something else on the call.
    """
    if bant is None:
        return None
    delivered = f"{bant.dimension} ({bant.threshold}) was delivered as “{bant.shipped}”"
    if bant.claimed == bant.shipped:
        return _denied(f"As sold: {delivered}.")
    if bant.replayed != bant.shipped:
        return _granted(f"Not as sold: {delivered}, and the inquiry gives “{bant.replayed}”.")
    if bant.evidence == "inferred" or somebody_reached:
        return None
    return _denied(f"As sold: {delivered}, and the inquiry says the same ({bant.evidence or 'evidence not recorded'}).")
