"""BANT: is this lead ready for a business, not yet, or not at all, and by how much.

Four typed dimensions, each meets, fails or unknown. Unknown is never turned into fails: a vertical's policy says what
not knowing costs. Every outcome carries the whole verdict, so that a rejected lead is as well explained as a sold one.
"""

from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated

import msgspec

from routing.inquiry import Authority, Budget, EvidenceKind, Facts, NeedField, NeedValue, Timing, amount_in_words


class Dimension(StrEnum):
    """The four dimensions, in the order in which a reason is chosen."""

    budget = "budget"
    """Whether the person can pay for it."""
    authority = "authority"
    """Whether the person may decide it."""
    need = "need"
    """Whether it is what the vertical sells."""
    timing = "timing"
    """Whether it is soon enough."""


class Result(StrEnum):
    """What is known about one dimension."""

    meets = "meets"
    """Known, and good enough."""
    fails = "fails"
    """Known, and not good enough."""
    unknown = "unknown"
    """Not known; never the same as fails."""


class Points(msgspec.Struct, frozen=True, kw_only=True):
    """What each result of one dimension adds to the score: knowing better things never costs points.

    Raises ValueError unless fails ≤ unknown ≤ meets.
    """

    meets: int
    unknown: int
    fails: int = 0

    def __post_init__(self) -> None:
        if not self.fails <= self.unknown <= self.meets:
            raise ValueError("Points must rise: fails, then unknown, then meets.")


class OnResult(StrEnum):
    """What a failing or unknown dimension costs besides its points."""

    accept = "accept"
    """Nothing: the points alone decide."""
    reject = "reject"
    """The lead."""


Days = Annotated[int, msgspec.Meta(ge=0, le=3_650)]
"""A policy's horizon: ten years are longer than any vertical waits."""


class BudgetPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Met when the amount, or the top of the range, reaches `minimum_minor` in the policy's currency."""

    minimum_minor: int
    points: Points
    on_fails: OnResult = OnResult.reject
    on_unknown: OnResult = OnResult.accept


class AuthorityPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Met when the person's say in the purchase is among those `accepted`."""

    accepted: tuple[Authority, ...]
    points: Points
    on_fails: OnResult = OnResult.reject
    on_unknown: OnResult = OnResult.accept


class NeedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Met when every required field is answered and every field in `wanted` has one of the values wanted there."""

    wanted: dict[str, tuple[NeedValue, ...]] = {}
    points: Points
    on_fails: OnResult = OnResult.reject
    on_unknown: OnResult = OnResult.accept


class TimingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Met when it is wanted within `within_days`; what is wanted later is nurtured until it is near enough.

    It fails when that moment lies more than `nurture_limit_days` ahead.
    """

    within_days: Days
    nurture_limit_days: Days = 180
    points: Points
    on_fails: OnResult = OnResult.reject
    on_unknown: OnResult = OnResult.accept


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a vertical's rules of qualification. `minimum_score` is out of 100."""

    version: int
    currency: str
    budget: BudgetPolicy
    authority: AuthorityPolicy
    need: NeedPolicy
    timing: TimingPolicy
    minimum_score: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one dimension, in words that a person can check: the value, the threshold, the points."""

    dimension: Dimension
    result: Result
    evidence: EvidenceKind | None
    value: str | None
    threshold: str
    points: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All findings and their sum, 0 to 100, under one version of the policy; it ships with the lead."""

    policy_version: int
    score: int
    findings: tuple[Finding, ...]


class RejectionReason(StrEnum):
    """Why a lead was rejected; the first that applies is the one given."""

    budget_below_minimum = "budget_below_minimum"
    """The whole budget lies below the vertical's minimum."""
    authority_not_accepted = "authority_not_accepted"
    """The person's say in the purchase is not one that the vertical accepts."""
    need_not_wanted = "need_not_wanted"
    """A need field has a value that the vertical does not want."""
    timing_too_late = "timing_too_late"
    """It is wanted further ahead than the vertical is willing to nurture."""
    budget_unknown = "budget_unknown"
    """No comparable budget was given and the vertical insists on one."""
    authority_unknown = "authority_unknown"
    """Nothing was said about who decides and the vertical insists on it."""
    need_unknown = "need_unknown"
    """A need field that matters was left unanswered and the vertical insists on it."""
    timing_unknown = "timing_unknown"
    """Nothing was said about when and the vertical insists on it."""
    score_below_minimum = "score_below_minimum"
    """No dimension rejects it alone; the sum of the points is too low."""


class Prospect(msgspec.Struct, frozen=True, kw_only=True, tag="prospect"):
    """Ready to be routed."""

    verdict: Verdict


class Nurture(msgspec.Struct, frozen=True, kw_only=True, tag="nurture"):
    """Good, but too early: qualify again at `until` (UTC), for the reason told in `why`."""

    until: datetime
    why: str
    verdict: Verdict


class Rejection(msgspec.Struct, frozen=True, kw_only=True, tag="rejection"):
    """Not to be routed, for `reason`."""

    reason: RejectionReason
    verdict: Verdict


def qualify(facts: Facts, needs: dict[str, NeedField], policy: Policy, now: datetime) -> Prospect | Nurture | Rejection:
    """The outcome of one lead under one policy at `now`; total, and the same for the same values.

    A lead that anything rejects is rejected even when it is early as well. An early lead is judged by the score that it
    will have once its time has come, so that nobody is nurtured for months only to be rejected for having waited.
    """
    wait = _wait(facts, policy.timing, now)
    found = (
        _judge_budget(facts.budget, policy),
        _judge_authority(facts.authority, policy.authority),
        _judge_need(facts, needs, policy.need),
        _judge_timing(facts.timing, wait, policy.timing),
    )
    findings = tuple(_with_evidence(finding, facts) for finding in found)
    verdict = Verdict(policy_version=policy.version, score=_score(findings), findings=findings)
    early = _is_early(wait, policy.timing)
    if reason := _rejection(findings, policy, early):
        return Rejection(reason=reason, verdict=verdict)
    if early and wait is not None:
        until = now + wait
        words = f"{findings[-1].value}: {findings[-1].threshold} from {until:%Y-%m-%d %H:%M} UTC"
        return Nurture(until=until, why=words, verdict=verdict)
    return Prospect(verdict=verdict)


# The four judgements. Each returns its finding without evidence, which is the same for all and added afterwards.


def _judge_budget(budget: Budget | None, policy: Policy) -> Finding:
    """A budget in another currency cannot be compared: that is not knowing, not failing."""
    threshold = f"at least {amount_in_words(policy.budget.minimum_minor, policy.currency)}"
    if budget is None or budget.currency != policy.currency:
        value = None if budget is None else _budget_in_words(budget)
        return _finding(Dimension.budget, Result.unknown, value, threshold, policy.budget.points)
    top = budget.minor if budget.maximum_minor is None else max(budget.minor, budget.maximum_minor)
    result = Result.meets if top >= policy.budget.minimum_minor else Result.fails
    return _finding(Dimension.budget, result, _budget_in_words(budget), threshold, policy.budget.points)


def _budget_in_words(budget: Budget) -> str:
    words = amount_in_words(budget.minor, budget.currency)
    if budget.maximum_minor is None:
        return words
    return f"{words} to {amount_in_words(budget.maximum_minor, budget.currency)}"


def _judge_authority(authority: Authority | None, policy: AuthorityPolicy) -> Finding:
    threshold = _one_of(policy.accepted)
    if authority is None:
        return _finding(Dimension.authority, Result.unknown, None, threshold, policy.points)
    result = Result.meets if authority in policy.accepted else Result.fails
    return _finding(Dimension.authority, result, _plain(authority), threshold, policy.points)


def _judge_need(facts: Facts, needs: dict[str, NeedField], policy: NeedPolicy) -> Finding:
    """One unwanted value fails, whatever is unanswered; its points rise with the share of wanted fields that fit."""
    values = facts.need_fields
    asked = [name for name, field in needs.items() if field.required or name in policy.wanted]
    asked += [name for name in policy.wanted if name not in needs]
    fitting = [name for name, wanted in policy.wanted.items() if _is_wanted(values.get(name), wanted)]
    unwanted = [name for name in policy.wanted if name in values and name not in fitting]
    wanted_words = "; ".join(f"{name}: {_one_of(wanted)}" for name, wanted in policy.wanted.items())
    threshold = wanted_words or "required fields answered"
    value = "; ".join(f"{name}: {_plain(values[name])}" for name in asked if name in values) or None
    if unwanted:
        span = policy.points.meets - policy.points.fails
        points = policy.points.fails + span * len(fitting) // len(policy.wanted)
        failing = _finding(Dimension.need, Result.fails, value, threshold, policy.points)
        return msgspec.structs.replace(failing, points=points)
    result = Result.meets if all(name in values for name in asked) else Result.unknown
    return _finding(Dimension.need, result, value, threshold, policy.points)


def _is_wanted(value: NeedValue | None, wanted: tuple[NeedValue, ...]) -> bool:
    return any(type(value) is type(choice) and value == choice for choice in wanted)  # True is not the integer 1


def _judge_timing(timing: Timing | None, wait: timedelta | None, policy: TimingPolicy) -> Finding:
    threshold = f"within {_days(policy.within_days)}"
    if timing is None or wait is None:
        return _finding(Dimension.timing, Result.unknown, None, threshold, policy.points)
    result = Result.meets if wait <= timedelta(0) else Result.fails
    return _finding(Dimension.timing, result, _timing_in_words(timing), threshold, policy.points)


def _timing_in_words(timing: Timing) -> str:
    if timing.not_before is not None:
        return f"not before {timing.not_before:%Y-%m-%d}"
    return f"within {_days(timing.within_days or 0)}"


# Waiting: how long until the moment that the person named comes within the policy's horizon.

FARTHEST_DAYS = 36_500
"""A century: any number of days beyond it is as good as never, and dates end before Python's do."""


def _wait(facts: Facts, policy: TimingPolicy, now: datetime) -> timedelta | None:
    """Zero or less once it is near enough; None where nothing was said.

    Days count from the submission, a date from its first moment in UTC.
    """
    timing = facts.timing
    if timing is None:
        return None
    horizon = timedelta(days=policy.within_days)
    if timing.not_before is not None:
        return datetime.combine(timing.not_before, time(), UTC) - now - horizon
    if timing.within_days is not None:
        return timedelta(days=min(timing.within_days, FARTHEST_DAYS)) - (now - facts.submitted_at) - horizon
    return None


def _is_early(wait: timedelta | None, policy: TimingPolicy) -> bool:
    return wait is not None and timedelta(0) < wait <= timedelta(days=policy.nurture_limit_days)


# From findings to an outcome.


def _rejection(findings: tuple[Finding, ...], policy: Policy, early: bool) -> RejectionReason | None:
    """The first reason in the order of RejectionReason."""
    reasons = set()
    for finding, rule in zip(findings, _rules(policy), strict=True):
        excused = early and finding.dimension is Dimension.timing
        if finding.result is Result.fails and rule.on_fails is OnResult.reject and not excused:
            reasons.add(_FAILED[finding.dimension])
        if finding.result is Result.unknown and rule.on_unknown is OnResult.reject:
            reasons.add(_UNKNOWN[finding.dimension])
    timing = policy.timing.points
    credit = timing.meets - timing.fails if early else 0
    if _score(findings, credit) < policy.minimum_score:
        reasons.add(RejectionReason.score_below_minimum)
    return next((reason for reason in RejectionReason if reason in reasons), None)


def _rules(policy: Policy) -> tuple[BudgetPolicy | AuthorityPolicy | NeedPolicy | TimingPolicy, ...]:
    return policy.budget, policy.authority, policy.need, policy.timing


_FAILED = {
    Dimension.budget: RejectionReason.budget_below_minimum,
    Dimension.authority: RejectionReason.authority_not_accepted,
    Dimension.need: RejectionReason.need_not_wanted,
    Dimension.timing: RejectionReason.timing_too_late,
}
_UNKNOWN = {
    Dimension.budget: RejectionReason.budget_unknown,
    Dimension.authority: RejectionReason.authority_unknown,
    Dimension.need: RejectionReason.need_unknown,
    Dimension.timing: RejectionReason.timing_unknown,
}


def _score(findings: tuple[Finding, ...], credit: int = 0) -> int:
    return max(0, min(100, credit + sum(finding.points for finding in findings)))


def _finding(dimension: Dimension, result: Result, value: str | None, threshold: str, points: Points) -> Finding:
    scored = {Result.meets: points.meets, Result.fails: points.fails, Result.unknown: points.unknown}[result]
    return Finding(dimension=dimension, result=result, evidence=None, value=value, threshold=threshold, points=scored)


def _with_evidence(finding: Finding, facts: Facts) -> Finding:
    if finding.value is None:
        return finding
    evidence = facts.evidence.get(finding.dimension, EvidenceKind.stated)
    return msgspec.structs.replace(finding, evidence=evidence)


def _one_of(values: tuple[NeedValue, ...]) -> str:
    return " or ".join(_plain(value) for value in values) or "nothing"


def _plain(value: NeedValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.replace("_", " ") if isinstance(value, str) else f"{value:,}"


def _days(count: int) -> str:
    return f"{count:,} day{'' if count == 1 else 's'}"
