"""Which leads a business may give back, and what the record says about the reason it gives.

What lives here: the window, the quota, and the judgement of each reason that stored facts can settle. What may not: how
those facts are found. Each judgement has a finding, a sentence that business and provider both read, so that none names
either of them or repeats what anybody wrote.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

import msgspec

QUOTA_DAYS: Final = 30
"The leads that a quota is a share of: those delivered in so many days, about a month's business."


class ReturnReason(StrEnum):
    """Why a business gives a lead back."""

    duplicate = "duplicate"
    """The same person had been given to this business before."""
    outside_area = "outside_area"
    """The place is not in the area that was ordered."""
    invalid_number = "invalid_number"
    """The telephone number is not one, or not of a kind that was ordered."""
    bant_mismatch = "bant_mismatch"
    """A finding of the verdict does not follow from what the inquiry says."""
    wrong_person = "wrong_person"
    """Whoever answered is not the person of the inquiry."""
    no_consent_recalled = "no_consent_recalled"
    """The person does not remember having asked to be contacted."""
    fraud = "fraud"
    """The inquiry was made up."""
    other = "other"
    """Anything else; the note says what."""


MACHINE_JUDGED: Final = frozenset({
    ReturnReason.duplicate, ReturnReason.outside_area, ReturnReason.invalid_number, ReturnReason.bant_mismatch,
})  # fmt: skip
"Reasons that stored facts may settle; all others are for the operator's desk, and need a note."


class Closed(StrEnum):
    """Why a return is not even judged."""

    window = "window"
    """Its time is over."""
    quota = "quota"
    """The business has given back as many as it may for now."""


class ReturnTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How long after delivery a lead may be given back, and how many of those delivered in the last 30 days.

    `percent` of them, rounded down, and never fewer than `at_least`, so that a small business may return one at all.
    """

    window_days: int = 7
    percent: int = 15
    at_least: int = 3


class PhoneFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What intake kept of the number: its kind, and whether the order accepts that kind."""

    given: bool
    kind: str
    kind_ordered: bool


class BantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One dimension of a verdict: what the business says it is, what was shipped, and what the stored facts give now.

    Each of the three is meets, fails or unknown; `evidence` is how the provider knew (stated, inferred, verified), and
    `threshold` what was compared with.
    """

    dimension: str
    claimed: str
    shipped: str
    replayed: str
    threshold: str
    evidence: str | None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is on record about one delivered lead, as far as a reason may ask for it.

    `person_known` is false for an erased person, of whom nothing can be compared. `seen_before_at` is when the same
    business was last shown the same person in the `window_days` before. `bant` is None where nothing was claimed.
    `somebody_reached` is whether the business lists a call that somebody answered and said something in.
    """

    person_known: bool
    seen_before_at: datetime | None
    window_days: int
    in_area: bool
    phone: PhoneFacts
    bant: BantFacts | None = None
    somebody_reached: bool = False


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Granted or denied, and the sentence for both sides."""

    granted: bool
    finding: str


def closed(
    terms: ReturnTerms, delivered_at: datetime, delivered_count: int, returned_count: int, now: datetime
) -> Closed | None:
    """What stands in the way of a return at `now`; None when it may be judged.

    Both counts are of leads delivered in the last 30 days: all of them, and those given back or asked to be.
    """
    if now > delivered_at + timedelta(days=terms.window_days):
        return Closed.window
    if returned_count >= quota(terms, delivered_count):
        return Closed.quota
    return None


def quota(terms: ReturnTerms, delivered_count: int) -> int:
    """How many of `delivered_count` leads may be given back."""
    return max(terms.at_least, delivered_count * terms.percent // 100)


def judge(reason: ReturnReason, record: Record) -> Judgement | None:
    """Grant or deny what the record settles; None where it does not and a person has to look.

    A record denies only what it disproves. That it holds no evidence for a claim is no evidence against it.
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


def _judge_duplicate(record: Record) -> Judgement | None:
    """A person is compared by phone and e-mail, so that one who gave others than before is known to people only."""
    if not record.person_known or record.seen_before_at is None:
        return None
    return _granted(f"This business was shown the same person on {record.seen_before_at:%Y-%m-%d}, in another lead.")


def _judge_area(record: Record) -> Judgement:
    if record.in_area:
        return _denied("The place of the inquiry lies in the area that was ordered.")
    return _granted("The place of the inquiry lies outside the area that was ordered.")


def _judge_number(phone: PhoneFacts) -> Judgement | None:
    """Intake checks the form of a number. Whether it works, and whose it is, is learned by calling it."""
    if not phone.given:
        return _denied("No telephone number was asked for in this market, and none was given.")
    if not phone.kind_ordered:
        words = phone.kind.replace("_", " ")
        return _granted(f"The number is of a kind that was not ordered: {words}.")
    return None


def _judge_bant(bant: BantFacts | None, somebody_reached: bool) -> Judgement | None:
    """The verdict as it was shipped counts. Where it rests on an inference, or the business has talked to somebody
    since, the person may have said otherwise.
    """
    if bant is None:
        return None
    shipped = f"{bant.dimension} ({bant.threshold}) was shipped as “{bant.shipped}”"
    if bant.claimed == bant.shipped:
        return _denied(f"As sold: {shipped}.")
    if bant.replayed != bant.shipped:
        return _granted(f"Not as sold: {shipped}, and the inquiry gives “{bant.replayed}”.")
    if bant.evidence == "inferred" or somebody_reached:
        return None
    return _denied(f"As sold: {shipped}, as the inquiry says ({bant.evidence or 'not told'}).")
