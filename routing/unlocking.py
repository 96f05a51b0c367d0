"""Answers and touches that would unlock a nurtured lead, and how many subscriptions would take it then.

Each dimension that the lead waits for is answered just as the policy wants it, and each criterion of interest is met by
touches, alone and together. `decide` decides about the lead with these, so that no second rule says who would take it.
Caps and wallets are left out, because they change by the hour. Each question costs a decision: this is for pages and
answers about one lead, not for the walk.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from routing.decision import MatchedCandidates, OpenLead, decide
from routing.index import SubscriptionIndex
from routing.inquiry import Budget, EvidenceKind, Facts, NeedValue, Timing, ValueSource
from routing.interest import InterestCriterion, criterion_in_words, touches_that_meet
from routing.lifecycle import LeadState
from routing.policy_lint import allowed_answers
from routing.qualification import EVIDENCE_STRENGTH, Dimension, DimensionResult, Nurture, qualify
from routing.vertical import VerticalDefinition

ANSWER = "answer"
"""Origin of a value that is assumed, to see what an answer would change."""


class Unlock(msgspec.Struct, frozen=True, kw_only=True):
    """One question to ask or touch to wait for, and the subscriptions that would take the lead with it alone.

    Either `dimension` or the name of a criterion of interest, `criterion`, is set. For a criterion, `question` says
    which touches are needed.
    """

    dimension: Dimension | None = None
    criterion: str | None = None
    question: str
    subscriptions: int


class UnlockSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Questions about a nurtured lead, and the number of subscriptions that would take it with all answers.

    The question whose answer most subscriptions would take comes first.
    """

    questions: tuple[Unlock, ...]
    together: int


def find_unlocks(
    lead: OpenLead, vertical: VerticalDefinition, version: int, index: SubscriptionIndex, now: datetime
) -> UnlockSummary | None:
    """Return what would unlock the lead at `now`, or None if it would not be nurtured."""
    outcome = qualify(lead.facts, vertical.needs, vertical.policy(version), now)
    if not isinstance(outcome, Nurture):
        return None
    answers = {
        dimension: answer
        for dimension in _open_dimensions(outcome)
        if (answer := _wanted_answer(lead.facts, vertical, dimension)) is not None
    }
    criteria = _open_criteria(outcome, vertical)

    def subscriptions_for(dimensions: Iterable[Dimension], criteria: Iterable[InterestCriterion]) -> int:
        facts = lead.facts
        for dimension in dimensions:
            facts = _with_answer(facts, vertical, dimension, answers[dimension], now)
        for criterion in criteria:
            touches = touches_that_meet(criterion, vertical.currency, now)
            facts = msgspec.structs.replace(facts, touches=facts.touches + touches)
        return _count_eligible(lead, facts, vertical, version, index, now)

    questions = [
        Unlock(
            dimension=dimension,
            question=_question(lead.facts, vertical, dimension),
            subscriptions=subscriptions_for((dimension,), ()),
        )
        for dimension in answers
    ]
    questions += [
        Unlock(
            criterion=criterion.name,
            question=f"Needed: {criterion_in_words(criterion, vertical.currency)}.",
            subscriptions=subscriptions_for((), (criterion,)),
        )
        for criterion in criteria
    ]
    questions.sort(key=lambda unlock: -unlock.subscriptions)
    together = questions[0].subscriptions if len(questions) == 1 else subscriptions_for(answers, criteria)
    return UnlockSummary(questions=tuple(questions), together=together)


def _open_dimensions(outcome: Nurture) -> tuple[Dimension, ...]:
    """Return the dimensions in which the lead waits, or all that are not met if it lacks points."""
    return tuple(
        finding.dimension
        for finding in outcome.verdict.findings
        if finding.dimension in outcome.missing
        or (finding.dimension is Dimension.timing and outcome.starts_at is not None)
        or (outcome.lacking_points > 0 and finding.result is not DimensionResult.meets)
    )


def _open_criteria(outcome: Nurture, vertical: VerticalDefinition) -> tuple[InterestCriterion, ...]:
    """Return the criteria for touches of which the lead waits, and if it lacks points, all that would add some."""
    return tuple(
        criterion
        for criterion, finding in zip(vertical.interest, outcome.verdict.interest, strict=True)
        if criterion.name in outcome.missing_interest
        or (outcome.lacking_points > 0 and criterion.points > 0 and finding.result is not DimensionResult.meets)
    )


def _count_eligible(
    lead: OpenLead,
    facts: Facts,
    vertical: VerticalDefinition,
    version: int,
    index: SubscriptionIndex,
    now: datetime,
) -> int:
    """Return the number of subscriptions that would take the lead with these facts; 0 if it would not qualify."""
    answered = msgspec.structs.replace(lead, state=LeadState.received, facts=facts, certificates=None)
    undelayed = msgspec.structs.replace(vertical, delay_per_mille=0)
    result = decide(answered, undelayed, version, index, now)
    return len(result.eligible) if isinstance(result, MatchedCandidates) else 0


# Answers that the policy wants.


def _wanted_answer(facts: Facts, vertical: VerticalDefinition, dimension: Dimension) -> dict[str, Any] | None:
    """Return the fields of Facts with the answer that the policy just accepts; None if it accepts none."""
    match dimension:
        case Dimension.budget:
            return {"budget": Budget(minor=vertical.budget.minimum_minor, currency=vertical.currency)}
        case Dimension.authority:
            return {"authority": vertical.authority.accepted[0]} if vertical.authority.accepted else None
        case Dimension.need:
            answers = {name: _wanted_need(vertical, name) for name in _open_needs(facts, vertical)}
            if any(value is None for value in answers.values()):
                return None
            return {"need_fields": facts.need_fields | answers}
        case Dimension.timing:
            return {"timing": Timing(within_days=vertical.timing.within_days)}


def _open_needs(facts: Facts, vertical: VerticalDefinition) -> tuple[str, ...]:
    """Return the need fields that count and are unanswered or not as the policy wants them."""
    choices = vertical.need.wanted
    return tuple(
        name
        for name, field in vertical.needs.items()
        if (field.required or name in choices)
        and (name not in facts.need_fields or (name in choices and facts.need_fields[name] not in choices[name]))
    )


def _wanted_need(vertical: VerticalDefinition, name: str) -> NeedValue | None:
    choices = vertical.need.wanted.get(name) or allowed_answers(vertical.needs[name])
    return next(iter(choices), None)


def _with_answer(
    facts: Facts, vertical: VerticalDefinition, dimension: Dimension, answer: dict[str, Any], now: datetime
) -> Facts:
    """Return the facts with an answer that the person gives at `now`, on evidence that the policy accepts."""
    least = vertical.policy(0).rules[tuple(Dimension).index(dimension)].least_evidence
    evidence = max(EvidenceKind.stated, least, key=EVIDENCE_STRENGTH.__getitem__)
    source = ValueSource(origin=ANSWER, at=now, evidence=evidence)
    return msgspec.structs.replace(
        facts,
        evidence=facts.evidence | {dimension.value: evidence},
        sources=facts.sources | {dimension.value: source},
        **answer,
    )


def _question(facts: Facts, vertical: VerticalDefinition, dimension: Dimension) -> str:
    """Return the question to ask the person."""
    match dimension:
        case Dimension.budget:
            return "How much may it cost?"
        case Dimension.authority:
            return "Who decides about it?"
        case Dimension.need:
            names = _open_needs(facts, vertical)
            labels = (vertical.needs[name].label or name.replace("_", " ") for name in names)
            return f"What is the answer to: {', '.join(labels)}?"
        case Dimension.timing:
            return "When is it wanted?"
