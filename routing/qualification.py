"""Qualification by BANT: whether a lead may be routed now, later or not at all, with a score and the reasons.

Each of the four dimensions is meets, fails or unknown. Unknown never counts as fails: the vertical's policy defines its
effect. Every outcome has the whole verdict, so a rejected lead is explained as well as a sold one.
"""

from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated

import msgspec

from routing.inquiry import Authority, Budget, EvidenceKind, Facts, NeedField, NeedValue, Timing, amount_in_words
from routing.interest import InterestCriterion, UnmetConsequence, count_interest, criterion_in_words, interest_in_words


class Dimension(StrEnum):
    """Dimensions of BANT, in the order of precedence of their rejection reasons."""

    budget = "budget"
    """Ability of the person to pay for it."""
    authority = "authority"
    """Right of the person to decide it."""
    need = "need"
    """Fit of the need with the offers of the vertical."""
    timing = "timing"
    """Time at which the person wants it."""


class DimensionResult(StrEnum):
    """Result for one dimension."""

    meets = "meets"
    """Known and sufficient."""
    fails = "fails"
    """Known and not sufficient."""
    unknown = "unknown"
    """Not known; never the same as fails."""


class Points(msgspec.Struct, frozen=True, kw_only=True):
    """Points that each result of one dimension adds to the score. Raises ValueError unless fails ≤ unknown ≤ meets."""

    meets: int
    unknown: int
    fails: int = 0

    def __post_init__(self) -> None:
        if not self.fails <= self.unknown <= self.meets:
            raise ValueError("Points must rise: fails, then unknown, then meets.")


class ResultConsequence(StrEnum):
    """Effect of a failing or unknown dimension, besides its points, and of a low score."""

    accept = "accept"
    """No effect: the points alone decide."""
    reject = "reject"
    """The lead is rejected."""
    nurture = "nurture"
    """The lead waits for a better answer, until `nurture_days` after its receipt."""


EVIDENCE_STRENGTH = {EvidenceKind.inferred: 0, EvidenceKind.stated: 1, EvidenceKind.verified: 2}
"""Rank of each kind of evidence: a conclusion, the person's own word, a check."""

Days = Annotated[int, msgspec.Meta(ge=0, le=3_650)]
"""Days of a policy: at most ten years, longer than any vertical needs."""

LONGEST_NURTURE_DAYS = 548
"""Days for which a lead is nurtured at most: 18 months, the limit of the rules of version 3."""

NurtureDays = Annotated[int, msgspec.Meta(ge=1, le=LONGEST_NURTURE_DAYS)]
"""Days for which a vertical lets a lead wait for a better answer."""


class DimensionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Points and consequences of one dimension, the same for all four.

    Without `on_unknown`, an unknown dimension has the consequence of a failing one, so that leaving out a bad answer
    turns no rejection into a sale. Versions from before this was so have `on_unknown`, accept unless stated.
    An answer that is good enough, but known by weaker evidence than `least_evidence`, leaves the dimension unknown. One
    that is not good enough fails by any evidence, so that calling it inferred gains nothing.
    """

    points: Points
    on_fails: ResultConsequence = ResultConsequence.reject
    on_unknown: ResultConsequence | None = None
    least_evidence: EvidenceKind = EvidenceKind.inferred

    @property
    def unknown_consequence(self) -> ResultConsequence:
        """Effect of an unknown dimension, besides its points."""
        return self.on_fails if self.on_unknown is None else self.on_unknown


class BudgetPolicy(DimensionPolicy, frozen=True, kw_only=True):
    """Met if the amount, or the top of the range, is at least `minimum_minor` in the policy's currency."""

    minimum_minor: int


class AuthorityPolicy(DimensionPolicy, frozen=True, kw_only=True):
    """Met if the person's authority is one of those `accepted`."""

    accepted: tuple[Authority, ...]


class NeedPolicy(DimensionPolicy, frozen=True, kw_only=True):
    """Met if every required field is answered and every field in `wanted` has one of the values listed there."""

    wanted: dict[str, tuple[NeedValue, ...]] = {}


class TimingPolicy(DimensionPolicy, frozen=True, kw_only=True):
    """Met if the person wants it within `within_days`. A lead that is too early is nurtured until that is the case.

    It fails if the lead would have to be nurtured for more than `nurture_limit_days`, or 548 if that is less. More than
    `overdue_days` whole days after the time that the person stated, nobody knows whether the person still wants it: the
    timing is unknown.
    """

    within_days: Days
    nurture_limit_days: Days = 90
    overdue_days: Days = 7


RULES_VERSION = 3
"""Version of the rules in this module. A version of a vertical is judged by the rules that were in force when it was
saved, so that a recorded decision can be repeated. Version 2 counts no time before the submission, gives a failing
need no more points than an unknown one, scales points that together are more than 100, and lets a stated time pass.
Version 3 nurtures no lead for more than LONGEST_NURTURE_DAYS, nor after the end of its consent."""


class QualificationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a vertical's qualification rules, judged by `rules_version`. `minimum_score` is from 0 to 100.

    `interest` are criteria about the person's touches, besides the four dimensions. A lead whose score is below the
    minimum has the consequence `on_low_score`. One that waits for a better answer waits until `nurture_days` after its
    receipt.
    """

    version: int
    currency: str
    budget: BudgetPolicy
    authority: AuthorityPolicy
    need: NeedPolicy
    timing: TimingPolicy
    minimum_score: int
    interest: tuple[InterestCriterion, ...] = ()
    on_low_score: ResultConsequence = ResultConsequence.reject
    nurture_days: NurtureDays = 90
    rules_version: int = RULES_VERSION

    @property
    def longest_wait(self) -> timedelta:
        """Longest time for which a lead waits for the date that the person named."""
        days = self.timing.nurture_limit_days
        return timedelta(days=min(days, LONGEST_NURTURE_DAYS) if self.rules_version >= 3 else days)

    @property
    def rules(self) -> tuple[DimensionPolicy, ...]:
        """Rules of the four dimensions, in the order of Dimension."""
        return self.budget, self.authority, self.need, self.timing

    @property
    def most_points(self) -> int:
        """Points of a lead that meets all four dimensions and every criterion of interest."""
        return sum(rule.points.meets for rule in self.rules) + sum(criterion.points for criterion in self.interest)

    def scale(self, points: int) -> int:
        """Return points on the scale of the score: as they are, or in percent of the most points if those exceed 100.

        Rounded down, so that a lead that lacks something never scores like one that lacks nothing.
        """
        return points * 100 // max(100, self.most_points) if self.rules_version >= 2 else points


class DimensionFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Result for one dimension, with its value and threshold in words that a person can check, and its points."""

    dimension: Dimension
    result: DimensionResult
    evidence: EvidenceKind | None
    value: str | None
    threshold: str
    points: int


class TouchTime(msgspec.Struct, frozen=True, kw_only=True):
    """Kind and time of a touch that a finding rests on."""

    kind: str
    at: datetime


class InterestFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Result for one criterion of interest: what it asks for, the touches that met it, and its points."""

    name: str
    label: str
    result: DimensionResult
    threshold: str
    met_by: tuple[TouchTime, ...]
    points: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All findings and their score, 0 to 100, under one version of the policy. It is delivered with the lead.

    The score is the sum of the points, or its share of the most that the policy awards if that is above 100.
    """

    policy_version: int
    score: int
    findings: tuple[DimensionFinding, ...]
    interest: tuple[InterestFinding, ...] = ()


class RejectionReason(StrEnum):
    """Reason for which a lead was rejected, in order of precedence."""

    budget_below_minimum = "budget_below_minimum"
    """The whole budget is below the vertical's minimum."""
    authority_not_accepted = "authority_not_accepted"
    """The vertical does not accept the person's authority."""
    need_not_wanted = "need_not_wanted"
    """A need field has a value that the vertical does not want."""
    timing_too_late = "timing_too_late"
    """The person wants it later than the vertical's limit for nurturing allows."""
    budget_unknown = "budget_unknown"
    """The vertical requires a budget, and none was given in its currency on evidence that it accepts."""
    authority_unknown = "authority_unknown"
    """The vertical requires the person's authority, and it was not given on evidence that it accepts."""
    need_unknown = "need_unknown"
    """The vertical requires an answer to a need field, and it was not given on evidence that it accepts."""
    timing_unknown = "timing_unknown"
    """The vertical requires the timing, and it was not given on evidence that it accepts, or has long passed."""
    interest_missing = "interest_missing"
    """The vertical requires touches that the person has not made yet."""
    score_below_minimum = "score_below_minimum"
    """No single dimension rejects the lead, but its score is too low."""


class Prospect(msgspec.Struct, frozen=True, kw_only=True, tag="prospect"):
    """Outcome: ready to be routed."""

    verdict: Verdict


class WaitsFor(StrEnum):
    """Things that a nurtured lead waits for, one or several of them."""

    date = "date"
    """The day from which the date that the person named is near enough."""
    budget = "budget"
    """A better answer about the budget."""
    authority = "authority"
    """A better answer about the authority."""
    need = "need"
    """A better answer about the need."""
    timing = "timing"
    """A better answer about the timing."""
    points = "points"
    """Points of the minimum score."""
    interest = "interest"
    """Touches that a criterion of interest gives points for, while points are lacking."""


class Nurture(msgspec.Struct, frozen=True, kw_only=True, tag="nurture"):
    """Outcome: acceptable, but not yet. Qualify again at `until` (UTC); `why` is the reason in words.

    The lead waits for `starts_at`, from which the person's date is near enough; for better answers to `missing`; for
    touches that meet the criteria named in `missing_interest`; and for `lacking_points` of the minimum score. At least
    one of them is set. An `until` that has passed means that the time in which the lead may wait is over.
    """

    until: datetime
    why: str
    verdict: Verdict
    starts_at: datetime | None = None
    missing: tuple[Dimension, ...] = ()
    missing_interest: tuple[str, ...] = ()
    lacking_points: int = 0

    @property
    def waits_for(self) -> tuple[WaitsFor, ...]:
        """Return what the lead waits for, in the order of WaitsFor."""
        reasons = {WaitsFor(dimension) for dimension in self.missing}
        if self.starts_at is not None:
            reasons.add(WaitsFor.date)
        if self.lacking_points > 0:
            reasons.add(WaitsFor.points)
            if any(finding.result is not DimensionResult.meets for finding in self.verdict.interest):
                reasons.add(WaitsFor.interest)
        return tuple(reason for reason in WaitsFor if reason in reasons)


class Rejection(msgspec.Struct, frozen=True, kw_only=True, tag="rejection"):
    """Outcome: not to be routed, for `reason`."""

    reason: RejectionReason
    verdict: Verdict


def qualify(
    facts: Facts, needs: dict[str, NeedField], policy: QualificationPolicy, now: datetime
) -> Prospect | Nurture | Rejection:
    """Return the outcome for one lead under one policy at `now`. Never raises.

    A lead with a reason for rejection is rejected even if it could wait for something else. A lead that waits is judged
    by the score that it will have once it has what it waits for, so that none is nurtured for months and then rejected
    for its score.
    """
    wait = _wait(facts, policy, now)
    findings = (
        _judge_budget(facts, policy),
        _judge_authority(facts, policy.authority),
        _judge_need(facts, needs, policy),
        _judge_timing(facts, wait, policy, now),
    )
    interest = tuple(_judge_interest(criterion, facts, policy.currency) for criterion in policy.interest)
    score = _score(findings, interest, policy)
    verdict = Verdict(policy_version=policy.version, score=score, findings=findings, interest=interest)
    starts_at = now + wait if wait is not None and _is_early(wait, policy) else None
    in_time = findings
    if starts_at is not None:
        in_time = (*findings[:-1], _judge_timing(facts, timedelta(0), policy, now))
    missing, missing_interest = _missing(in_time, policy), _missing_interest(interest, policy)
    best = _as_if_met(in_time, missing, policy)
    best_interest = _interest_as_if_met(interest, missing_interest, policy)
    if reason := _rejection(best, best_interest, policy):
        return Rejection(reason=reason, verdict=verdict)
    lacking = 0
    if policy.on_low_score is ResultConsequence.nurture:
        lacking = max(0, policy.minimum_score - _score(best, best_interest, policy))
    is_incomplete = bool(missing or missing_interest) or lacking > 0
    if starts_at is None and not is_incomplete:
        return Prospect(verdict=verdict)
    return Nurture(
        until=_nurture_until(facts, policy, starts_at, is_incomplete=is_incomplete),
        why=_nurture_words(policy, starts_at, missing, missing_interest, lacking),
        verdict=verdict,
        starts_at=starts_at,
        missing=missing,
        missing_interest=missing_interest,
        lacking_points=lacking,
    )


# Findings of the four dimensions.


def _judge_budget(facts: Facts, policy: QualificationPolicy) -> DimensionFinding:
    """Judge the budget. One in another currency cannot be compared, and is unknown."""
    budget, threshold = facts.budget, f"at least {amount_in_words(policy.budget.minimum_minor, policy.currency)}"
    value = None if budget is None else _budget_in_words(budget)
    if budget is None or budget.currency != policy.currency:
        return _finding(Dimension.budget, DimensionResult.unknown, value, threshold, policy.budget, facts)
    top = budget.minor if budget.maximum_minor is None else max(budget.minor, budget.maximum_minor)
    result = DimensionResult.meets if top >= policy.budget.minimum_minor else DimensionResult.fails
    return _finding(Dimension.budget, result, value, threshold, policy.budget, facts)


def _budget_in_words(budget: Budget) -> str:
    words = amount_in_words(budget.minor, budget.currency)
    if budget.maximum_minor is None:
        return words
    return f"{words} to {amount_in_words(budget.maximum_minor, budget.currency)}"


def _judge_authority(facts: Facts, policy: AuthorityPolicy) -> DimensionFinding:
    authority, threshold = facts.authority, _one_of(policy.accepted)
    if authority is None:
        return _finding(Dimension.authority, DimensionResult.unknown, None, threshold, policy, facts)
    result = DimensionResult.meets if authority in policy.accepted else DimensionResult.fails
    return _finding(Dimension.authority, result, _plain(authority), threshold, policy, facts)


def _judge_need(facts: Facts, needs: dict[str, NeedField], policy: QualificationPolicy) -> DimensionFinding:
    """Judge the need fields. One unwanted value fails, even if other fields are unanswered.

    The points of a failing need rise with the share of wanted fields that fit, up to those of an unknown need: an
    unwanted answer never earns more than no answer.
    """
    values, wanted, points = facts.need_fields, policy.need.wanted, policy.need.points
    relevant = [name for name, field in needs.items() if field.required or name in wanted]
    relevant += [name for name in wanted if name not in needs]
    fitting = [name for name, choices in wanted.items() if _is_among(values.get(name), choices)]
    unwanted = [name for name in wanted if name in values and name not in fitting]
    requirements = "; ".join(f"{name}: {_one_of(choices)}" for name, choices in wanted.items())
    threshold = requirements or "required fields answered"
    value = "; ".join(f"{name}: {_plain(values[name])}" for name in relevant if name in values) or None
    if unwanted:
        top = points.unknown if policy.rules_version >= 2 else points.meets
        share = points.fails + (top - points.fails) * len(fitting) // len(wanted)
        failing = _finding(Dimension.need, DimensionResult.fails, value, threshold, policy.need, facts)
        return msgspec.structs.replace(failing, points=share)
    result = DimensionResult.meets if all(name in values for name in relevant) else DimensionResult.unknown
    return _finding(Dimension.need, result, value, threshold, policy.need, facts)


def _is_among(value: NeedValue | None, choices: tuple[NeedValue, ...]) -> bool:
    return any(type(value) is type(choice) and value == choice for choice in choices)  # True is not the integer 1


def _judge_timing(facts: Facts, wait: timedelta | None, policy: QualificationPolicy, now: datetime) -> DimensionFinding:
    timing, rule = facts.timing, policy.timing
    threshold = f"within {_days(rule.within_days)}"
    value = None if timing is None else _timing_in_words(timing)
    if value is None or wait is None:
        return _finding(Dimension.timing, DimensionResult.unknown, value, threshold, rule, facts)
    overdue = _overdue_days(facts, now)
    if policy.rules_version >= 2 and overdue > rule.overdue_days:
        value = f"{value}, {_days(overdue)} overdue"
        return _finding(Dimension.timing, DimensionResult.unknown, value, threshold, rule, facts)
    result = DimensionResult.meets if wait <= timedelta(0) else DimensionResult.fails
    return _finding(Dimension.timing, result, value, threshold, rule, facts)


def _timing_in_words(timing: Timing) -> str | None:
    if timing.not_before is not None:
        return f"not before {timing.not_before:%Y-%m-%d}"
    return None if timing.within_days is None else f"within {_days(timing.within_days)}"


def _judge_interest(criterion: InterestCriterion, facts: Facts, currency: str) -> InterestFinding:
    """Judge one criterion by the touches. Without enough of them it is unknown, unless it fails by a short one."""
    interest = count_interest(criterion, facts.touches, currency)
    result = DimensionResult.unknown
    if interest.met_by:
        result = DimensionResult.meets
    elif criterion.short_fails and interest.fell_short:
        result = DimensionResult.fails
    return InterestFinding(
        name=criterion.name,
        label=criterion.title,
        result=result,
        threshold=interest_in_words(criterion, currency),
        met_by=tuple(TouchTime(kind=touch.kind, at=touch.at) for touch in interest.met_by),
        points=criterion.points if result is DimensionResult.meets else 0,
    )


# Timing: the time until the person's date comes within the policy's horizon.

FARTHEST_DAYS = 36_500
"""Limit on a number of days, a century. It keeps the sum within the range of Python's dates."""


def _wait(facts: Facts, policy: QualificationPolicy, now: datetime) -> timedelta | None:
    """Return the time until the lead is within the policy's horizon: zero or less if it is, None if unknown.

    A date begins at midnight UTC. Days count from the submission, at the latest from the receipt: by the clock of a
    provider that is ahead, "within 60 days" would be later than 60 days for as long as the clocks differ.
    """
    timing = facts.timing
    if timing is None:
        return None
    horizon = timedelta(days=policy.timing.within_days)
    if timing.not_before is not None:
        return datetime.combine(timing.not_before, time(), UTC) - now - horizon
    if timing.within_days is None:
        return None
    stated_at = facts.timing_at if policy.rules_version >= 2 else facts.submitted_at
    return stated_at + timedelta(days=min(timing.within_days, FARTHEST_DAYS)) - now - horizon


def _overdue_days(facts: Facts, now: datetime) -> int:
    """Return the whole days since the time that the person stated as a number of days; 0 if it has not passed.

    A date after which the person wants it does not pass.
    """
    timing = facts.timing
    if timing is None or timing.within_days is None or timing.not_before is not None:
        return 0
    return max(0, (now - facts.timing_at).days - timing.within_days)


def _is_early(wait: timedelta, policy: QualificationPolicy) -> bool:
    return timedelta(0) < wait <= policy.longest_wait


# Nurturing: what a lead waits for, and until when.


def _missing(findings: tuple[DimensionFinding, ...], policy: QualificationPolicy) -> tuple[Dimension, ...]:
    """Return the dimensions for a better answer to which the lead waits."""
    return tuple(
        finding.dimension
        for finding, rule in zip(findings, policy.rules, strict=True)
        if _consequence(finding, rule) is ResultConsequence.nurture
    )


def _missing_interest(findings: tuple[InterestFinding, ...], policy: QualificationPolicy) -> tuple[str, ...]:
    """Return the names of the criteria for touches of which the lead waits."""
    return tuple(
        criterion.name
        for criterion, finding in zip(policy.interest, findings, strict=True)
        if _is_unmet(criterion, finding) and criterion.otherwise is UnmetConsequence.nurture
    )


def _is_unmet(criterion: InterestCriterion, finding: InterestFinding) -> bool:
    return criterion.required and finding.result is not DimensionResult.meets


def _interest_as_if_met(
    findings: tuple[InterestFinding, ...], missing: tuple[str, ...], policy: QualificationPolicy
) -> tuple[InterestFinding, ...]:
    """Return the findings of the lead once touches meet each criterion that it waits for."""
    return tuple(
        msgspec.structs.replace(finding, result=DimensionResult.meets, points=criterion.points)
        if finding.name in missing
        else finding
        for criterion, finding in zip(policy.interest, findings, strict=True)
    )


def _as_if_met(
    findings: tuple[DimensionFinding, ...], missing: tuple[Dimension, ...], policy: QualificationPolicy
) -> tuple[DimensionFinding, ...]:
    """Return the findings of the lead once it has a good answer to each missing dimension."""
    return tuple(
        msgspec.structs.replace(finding, result=DimensionResult.meets, points=rule.points.meets)
        if finding.dimension in missing
        else finding
        for finding, rule in zip(findings, policy.rules, strict=True)
    )


def _nurture_until(
    facts: Facts, policy: QualificationPolicy, starts_at: datetime | None, *, is_incomplete: bool
) -> datetime:
    """Return the time at which the lead is qualified again: the date, or the end of the days that it may wait.

    One that waits for both is qualified at the later of them. By the rules of version 3, the end of the consent is the
    latest.
    """
    ends = [] if starts_at is None else [starts_at]
    if is_incomplete:
        ends.append(facts.received_at + timedelta(days=policy.nurture_days))
    until = max(ends)
    if policy.rules_version < 3:
        return until
    until = min(until, facts.received_at + timedelta(days=LONGEST_NURTURE_DAYS))
    consent_end = facts.consent.expires_at if facts.consent else None
    return until if consent_end is None else min(until, consent_end)


def _nurture_words(
    policy: QualificationPolicy,
    starts_at: datetime | None,
    missing: tuple[Dimension, ...],
    missing_interest: tuple[str, ...],
    lacking: int,
) -> str:
    """Return what the lead waits for, such as "a better answer about the budget; email reply; 5 points more"."""
    parts = [] if starts_at is None else [_date_words(starts_at, policy.timing.within_days)]
    if missing:
        parts.append(f"a better answer about the {' and the '.join(missing)}")
    parts += [
        criterion_in_words(criterion, policy.currency)
        for criterion in policy.interest
        if criterion.name in missing_interest
    ]
    if lacking:
        parts.append(f"{lacking} point{'' if lacking == 1 else 's'} more")
    return "; ".join(parts)


def _date_words(starts_at: datetime, within_days: int) -> str:
    """Return the day from which a lead is offered, such as "15 Nov 2026, 30 days before the person wants it"."""
    if within_days == 0:
        return f"{starts_at:%-d %b %Y}, the day from which the person wants it"
    return f"{starts_at:%-d %b %Y}, {_days(within_days)} before the person wants it"


# Outcome.


def _rejection(
    findings: tuple[DimensionFinding, ...], interest: tuple[InterestFinding, ...], policy: QualificationPolicy
) -> RejectionReason | None:
    """Return the first reason for rejection, in the order of RejectionReason; None if there is none."""
    reasons = set()
    for finding, rule in zip(findings, policy.rules, strict=True):
        if _consequence(finding, rule) is ResultConsequence.reject:
            causes = _FAILED if finding.result is DimensionResult.fails else _UNKNOWN
            reasons.add(causes[finding.dimension])
    for criterion, interest_finding in zip(policy.interest, interest, strict=True):
        if _is_unmet(criterion, interest_finding):
            reasons.add(RejectionReason.interest_missing)
    is_low = _score(findings, interest, policy) < policy.minimum_score
    if is_low and policy.on_low_score is ResultConsequence.reject:
        reasons.add(RejectionReason.score_below_minimum)
    return next((reason for reason in RejectionReason if reason in reasons), None)


def _consequence(finding: DimensionFinding, rule: DimensionPolicy) -> ResultConsequence:
    """Return the effect of a finding besides its points."""
    match finding.result:
        case DimensionResult.meets:
            return ResultConsequence.accept
        case DimensionResult.fails:
            return rule.on_fails
        case DimensionResult.unknown:
            return rule.unknown_consequence


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


def _score(
    findings: tuple[DimensionFinding, ...], interest: tuple[InterestFinding, ...], policy: QualificationPolicy
) -> int:
    """Return the sum of the points on the scale of 0 to 100."""
    points = sum(finding.points for finding in findings) + sum(finding.points for finding in interest)
    return max(0, min(100, policy.scale(points)))


def _finding(
    dimension: Dimension,
    result: DimensionResult,
    value: str | None,
    threshold: str,
    rule: DimensionPolicy,
    facts: Facts,
) -> DimensionFinding:
    """Return the finding with its evidence and points. Evidence that is too weak for `rule` makes meets unknown."""
    evidence = None if value is None else facts.evidence.get(dimension, EvidenceKind.stated)
    if evidence and result is DimensionResult.meets and not _suffices(evidence, rule):
        result = DimensionResult.unknown
    if rule.least_evidence is not EvidenceKind.inferred:
        threshold = f"{threshold}, {evidence_in_words(rule.least_evidence)}"
    scored = {
        DimensionResult.meets: rule.points.meets,
        DimensionResult.fails: rule.points.fails,
        DimensionResult.unknown: rule.points.unknown,
    }[result]
    return DimensionFinding(
        dimension=dimension, result=result, evidence=evidence, value=value, threshold=threshold, points=scored
    )


def _suffices(evidence: EvidenceKind, rule: DimensionPolicy) -> bool:
    return EVIDENCE_STRENGTH[evidence] >= EVIDENCE_STRENGTH[rule.least_evidence]


def evidence_in_words(least: EvidenceKind) -> str:
    """Return the kinds of evidence that are at least as strong as `least`, such as "stated or verified"."""
    return " or ".join(kind for kind, rank in EVIDENCE_STRENGTH.items() if rank >= EVIDENCE_STRENGTH[least])


def _one_of(values: tuple[NeedValue, ...]) -> str:
    return " or ".join(_plain(value) for value in values) or "nothing"


def _plain(value: NeedValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.replace("_", " ") if isinstance(value, str) else f"{value:,}"


def _days(count: int) -> str:
    return f"{count:,} day{'' if count == 1 else 's'}"
