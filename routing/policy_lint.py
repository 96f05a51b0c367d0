"""Warnings about a vertical's qualification policy, each shown by a lead that the policy judges in that way.

No warning is read off the policy: inquiries are constructed that intake would accept, the policy judges them, and the
outcomes are compared. So a warning is true of `qualify` whatever its rules are.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from itertools import product
from typing import Any

import msgspec

from routing.inquiry import (
    Authority,
    Budget,
    EvidenceKind,
    Facts,
    Mode,
    NeedField,
    NeedValue,
    Place,
    Signals,
    Timing,
)
from routing.interest import touches_that_meet
from routing.qualification import (
    RULES_VERSION,
    Dimension,
    Nurture,
    Prospect,
    Rejection,
    RejectionReason,
    qualify,
)
from routing.vertical import VerticalDefinition

MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
"""Time at which the constructed inquiries are submitted and judged. Any other gives the same: only ages matter."""

LATEST_DAYS = 3_650
"""Most days within which an inquiry can want it, by the shape of its body."""

NUMBERS = 200
"""Numbers on each side of a bound among which an unwanted one is looked for."""


class PolicyWarningCode(StrEnum):
    """Kind of a warning."""

    earlier_rules = "earlier_rules"
    """The version is judged by earlier rules of qualification than those that a new version gets."""
    leaving_out_pays = "leaving_out_pays"
    """A lead is rejected for an answer, and qualifies without it."""
    evidence_left_out_pays = "evidence_left_out_pays"
    """A lead is rejected because an answer was inferred, and qualifies if nothing is said of how it is known."""
    unanswered_qualifies = "unanswered_qualifies"
    """A lead qualifies that answers nothing but the required questions."""
    dimension_idle = "dimension_idle"
    """No answer to a dimension changes the outcome of any lead."""
    interest_idle = "interest_idle"
    """Touches that meet a criterion of interest change the outcome of no lead."""
    minimum_score_idle = "minimum_score_idle"
    """The minimum score rejects no lead."""
    points_scaled = "points_scaled"
    """The points add up to more than 100, so that the score is not their sum."""


class PolicyWarning(msgspec.Struct, frozen=True, kw_only=True):
    """One warning: its code, a sentence with an example, and the dimension that it is about, if it is about one."""

    code: PolicyWarningCode
    detail: str
    dimension: Dimension | None = None


class SampleAnswer(StrEnum):
    """Answer to one dimension in a constructed inquiry."""

    fitting = "fitting"
    """The policy takes it."""
    missing = "missing"
    """It is left out, as far as intake allows."""
    unfit = "unfit"
    """The policy does not take it."""
    worst = "worst"
    """Every part of it is unfit."""


Answers = Mapping[SampleAnswer, dict[str, Any]]
"""Fields of `Facts` for each answer that a dimension can have. An answer that nobody could give is not in it."""
Case = tuple[SampleAnswer, ...]
"""Answers to the four dimensions, in the order of Dimension."""
Outcome = Prospect | Nurture | Rejection
Outcomes = Mapping[Case, Outcome]
"""Outcomes of all constructed inquiries, those with fitting answers first."""


def lint_policy(definition: VerticalDefinition) -> tuple[PolicyWarning, ...]:
    """Return the warnings about a definition without faults; empty if there are none. Judges about a hundred leads."""
    answers = {
        Dimension.budget: _budget_answers(definition),
        Dimension.authority: _authority_answers(definition),
        Dimension.need: _need_answers(definition),
        Dimension.timing: _timing_answers(definition),
    }
    outcomes = {case: _judge(definition, answers, case) for case in product(*answers.values())}
    return (
        *_earlier_rules(definition),
        *_leaving_out(outcomes),
        *_evidence_left_out(definition, answers, outcomes),
        *_unanswered(outcomes),
        *_idle_dimensions(answers, outcomes),
        *_idle_interest(definition, answers, outcomes),
        *_idle_minimum(definition, outcomes),
        *_scaled_points(definition, outcomes),
    )


# Inquiries.


def _budget_answers(definition: VerticalDefinition) -> Answers:
    minimum, currency = definition.budget.minimum_minor, definition.currency
    answers: dict[SampleAnswer, dict[str, Any]] = {
        SampleAnswer.fitting: {"budget": Budget(minor=minimum, currency=currency)},
        SampleAnswer.missing: {},
    }
    if minimum > 0:
        answers[SampleAnswer.unfit] = {"budget": Budget(minor=minimum // 2, currency=currency)}
    return answers


def _authority_answers(definition: VerticalDefinition) -> Answers:
    accepted = definition.authority.accepted
    refused = [authority for authority in Authority if authority not in accepted]
    answers: dict[SampleAnswer, dict[str, Any]] = {SampleAnswer.missing: {}}
    if accepted:
        answers = {SampleAnswer.fitting: {"authority": accepted[0]}, **answers}
    if refused:
        answers[SampleAnswer.unfit] = {"authority": refused[0]}
    return answers


def _need_answers(definition: VerticalDefinition) -> Answers:
    """Answers about the need. Intake takes no inquiry without the required ones, so only the others can be missing."""
    needs, choices = definition.needs, definition.need.wanted
    relevant = {name: field for name, field in needs.items() if field.required or name in choices}
    fitting = {
        name: value for name, field in relevant.items() for value in (choices.get(name) or allowed_answers(field))[:1]
    }
    unwanted = {
        name: next((value for value in allowed_answers(field) if value not in choices[name]), None)
        for name, field in relevant.items()
        if name in choices
    }
    unfit = {name: value for name, value in unwanted.items() if value is not None}
    required = {name: value for name, value in fitting.items() if relevant[name].required}
    answers: dict[SampleAnswer, dict[str, Any]] = {SampleAnswer.fitting: {"need_fields": fitting}}
    if required != fitting:
        answers[SampleAnswer.missing] = {"need_fields": required}
    if optional := next((name for name in unfit if name not in required), None):
        answers[SampleAnswer.unfit] = {"need_fields": fitting | {optional: unfit[optional]}}
    if unfit:
        answers[SampleAnswer.worst] = {"need_fields": fitting | unfit}
    return answers


def _timing_answers(definition: VerticalDefinition) -> Answers:
    rule = definition.timing
    too_late = rule.within_days + rule.nurture_limit_days + 1
    answers: dict[SampleAnswer, dict[str, Any]] = {
        SampleAnswer.fitting: {"timing": Timing(within_days=rule.within_days)},
        SampleAnswer.missing: {},
    }
    if too_late <= LATEST_DAYS:
        answers[SampleAnswer.unfit] = {"timing": Timing(within_days=too_late)}
    return answers


def allowed_answers(field: NeedField) -> tuple[NeedValue, ...]:
    """Return answers that the question allows: all choices, or those numbers that lie next to a bound."""
    if field.kind == "choice":
        return field.choices
    if field.kind == "boolean":
        return True, False
    low, high = field.minimum, field.maximum
    start = low if low is not None else high if high is not None else 0
    numbers = range(start - NUMBERS, start + NUMBERS)
    return tuple(number for number in numbers if (low is None or low <= number) and (high is None or number <= high))


def _facts(definition: VerticalDefinition, answers: Mapping[Dimension, Answers], case: Case) -> Facts:
    """Return a verified inquiry with these answers."""
    fields: dict[str, Any] = {}
    for dimension, answer in zip(Dimension, case, strict=True):
        fields |= answers[dimension][answer]
    return Facts(
        vertical="",
        mode=Mode.live,
        submitted_at=MOMENT,
        received_at=MOMENT,
        place=Place(country=definition.country),
        signals=Signals(phone_type="mobile"),
        evidence=dict.fromkeys(Dimension, EvidenceKind.verified),
        **fields,
    )


def _judge(definition: VerticalDefinition, answers: Mapping[Dimension, Answers], case: Case) -> Outcome:
    facts = _facts(definition, answers, case)
    return qualify(facts, definition.needs, definition.policy(0), MOMENT)


# Warnings.


def _earlier_rules(definition: VerticalDefinition) -> Iterator[PolicyWarning]:
    if definition.rules_version < RULES_VERSION:
        detail = (
            f"Leads are judged by version {definition.rules_version} of the rules of qualification; version "
            f"{RULES_VERSION} is current. The next version that you publish is judged by it: dry-run it to see the "
            "difference."
        )
        yield PolicyWarning(code=PolicyWarningCode.earlier_rules, detail=detail)


def _leaving_out(outcomes: Outcomes) -> Iterator[PolicyWarning]:
    """Warn of each dimension in which a lead is rejected for its answer and qualifies without it."""
    for place, dimension in enumerate(Dimension):
        for case, outcome in outcomes.items():
            without = outcomes.get(_replaced(case, place, SampleAnswer.missing))
            if case[place] is not SampleAnswer.unfit or not isinstance(outcome, Rejection):
                continue
            if isinstance(without, Prospect):
                value = outcome.verdict.findings[place].value
                detail = (
                    f'Leaving the {dimension} out pays: a lead with the {dimension} "{value}" is rejected, the same '
                    f"lead without it scores {without.verdict.score} and qualifies.{_other_gaps(case, place)}"
                )
                yield PolicyWarning(code=PolicyWarningCode.leaving_out_pays, detail=detail, dimension=dimension)
                break


def _other_gaps(case: Case, place: int) -> str:
    """Return a sentence about the other dimensions that the lead of an example does not meet; empty if it meets all."""
    gaps = [
        dimension
        for other, dimension in enumerate(Dimension)
        if other != place and case[other] is not SampleAnswer.fitting
    ]
    return f" It does not meet the {' and the '.join(gaps)} either." if gaps else ""


def _evidence_left_out(
    definition: VerticalDefinition, answers: Mapping[Dimension, Answers], outcomes: Outcomes
) -> Iterator[PolicyWarning]:
    """Warn of each dimension in which a lead is rejected for inferred evidence, and qualifies without the word."""
    policy = definition.policy(0)
    for place, dimension in enumerate(Dimension):
        if policy.rules[place].least_evidence is EvidenceKind.inferred:
            continue  # no evidence is too weak
        for case in outcomes:
            facts = _facts(definition, answers, case)
            silent = {name: kind for name, kind in facts.evidence.items() if name != dimension}
            outspoken = silent | {dimension.value: EvidenceKind.inferred}
            inferred, stated = (
                qualify(msgspec.structs.replace(facts, evidence=evidence), definition.needs, policy, MOMENT)
                for evidence in (outspoken, silent)
            )
            if isinstance(inferred, Rejection) and isinstance(stated, Prospect):
                detail = (
                    f"Leaving out how the {dimension} is known pays: a lead whose {dimension} was inferred is "
                    "rejected. If its evidence is left out it counts as stated: the lead scores "
                    f"{stated.verdict.score} and qualifies."
                )
                yield PolicyWarning(code=PolicyWarningCode.evidence_left_out_pays, detail=detail, dimension=dimension)
                break


def _unanswered(outcomes: Outcomes) -> Iterator[PolicyWarning]:
    """Warn if the lead that leaves out all it can qualifies."""
    outcome = outcomes[max(outcomes, key=lambda case: case.count(SampleAnswer.missing))]
    if isinstance(outcome, Prospect):
        detail = f"A lead that answers only the required questions scores {outcome.verdict.score} and qualifies."
        yield PolicyWarning(code=PolicyWarningCode.unanswered_qualifies, detail=detail)


def _idle_dimensions(answers: Mapping[Dimension, Answers], outcomes: Outcomes) -> Iterator[PolicyWarning]:
    """Warn of each dimension that has several answers, none of which changes the outcome of any lead."""
    for place, dimension in enumerate(Dimension):
        changes = any(
            type(outcome) is not type(outcomes[_replaced(case, place, answer)])
            for case, outcome in outcomes.items()
            for answer in answers[dimension]
        )
        if not changes and len(answers[dimension]) > 1:
            detail = f"The {dimension} decides nothing: no answer to it makes a lead qualify, or rejects one."
            yield PolicyWarning(code=PolicyWarningCode.dimension_idle, detail=detail, dimension=dimension)


def _idle_interest(
    definition: VerticalDefinition, answers: Mapping[Dimension, Answers], outcomes: Outcomes
) -> Iterator[PolicyWarning]:
    """Warn of each criterion of interest that makes no lead qualify, even one that meets every other criterion."""
    policy = definition.policy(0)
    touches = {
        criterion.name: touches_that_meet(criterion, definition.currency, MOMENT) for criterion in definition.interest
    }
    for criterion in definition.interest:
        other_touches = tuple(touch for name, own in touches.items() if name != criterion.name for touch in own)
        changes = any(
            type(qualify(msgspec.structs.replace(facts, touches=before), definition.needs, policy, MOMENT))
            is not type(qualify(msgspec.structs.replace(facts, touches=after), definition.needs, policy, MOMENT))
            for facts in (_facts(definition, answers, case) for case in outcomes)
            for before, after in (
                ((), touches[criterion.name]),
                (other_touches, (*other_touches, *touches[criterion.name])),
            )
        )
        if not changes:
            label = criterion.label or criterion.name.replace("_", " ")
            detail = f"The criterion “{label}” decides nothing: meeting it makes no lead qualify."
            yield PolicyWarning(code=PolicyWarningCode.interest_idle, detail=detail)


def _idle_minimum(definition: VerticalDefinition, outcomes: Outcomes) -> Iterator[PolicyWarning]:
    """Warn of a minimum score above 0 that is the reason of no rejection."""
    reasons = {outcome.reason for outcome in outcomes.values() if isinstance(outcome, Rejection)}
    if definition.minimum_score > 0 and RejectionReason.score_below_minimum not in reasons:
        scores = [outcome.verdict.score for outcome in outcomes.values() if isinstance(outcome, Prospect)]
        detail = (
            f"The minimum score of {definition.minimum_score} rejects no lead: "
            f"the lowest score of those that nothing else rejects is {min(scores, default=0)}."
        )
        yield PolicyWarning(code=PolicyWarningCode.minimum_score_idle, detail=detail)


def _scaled_points(definition: VerticalDefinition, outcomes: Outcomes) -> Iterator[PolicyWarning]:
    """Warn if the score of a lead is not the sum of its points."""
    for outcome in outcomes.values():
        points = sum(finding.points for finding in outcome.verdict.findings)
        if 0 < points != outcome.verdict.score:
            most = definition.policy(0).most_points
            detail = (
                f"The points add up to {most}, and the score ends at 100: a lead with {points} points scores "
                f"{outcome.verdict.score}. Divide the points so that they add up to 100."
            )
            yield PolicyWarning(code=PolicyWarningCode.points_scaled, detail=detail)
            return


def _replaced(case: Case, place: int, answer: SampleAnswer) -> Case:
    """Return the case with another answer to the dimension at `place`."""
    return (*case[:place], answer, *case[place + 1 :])
