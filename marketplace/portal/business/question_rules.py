"""Rules of a subscription on the answers to the questions of its vertical, as fields of its form.

A question has a field of its own unless a rule on it says more than the field can hold, such as "not these answers".
Such rules are listed by themselves, and stay or are removed as a whole.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from marketplace.portal.business.leads import field_fault
from marketplace.portal.forms import FormFields
from marketplace.portal.frame import words
from marketplace.text.faults import FaultCode
from routing.inquiry import NeedField
from routing.subscription import FieldRule

YES_NO: Final = (("", "Any"), ("yes", "Only yes"), ("no", "Only no"))
LARGEST: Final = 10**15


class QuestionField(msgspec.Struct, frozen=True, kw_only=True):
    """A question in the form: ticked answers of a choice, bounds of a number, or `answer` to one of yes or no."""

    name: str
    label: str
    kind: str
    choices: tuple[tuple[str, str], ...] = ()
    ticked: tuple[str, ...] = ()
    low: str = ""
    high: str = ""
    answer: str = ""


def field_name(question: str) -> str:
    """Return the name of the form's field for a question; the bounds of a number add `.from` and `.to`."""
    return f"need.{question}"


def _is_simple(rule: FieldRule, need: NeedField) -> bool:
    """Return whether the field of the question can hold the rule."""
    bounds = rule.minimum is not None or rule.maximum is not None
    match need.kind:
        case "choice":
            return bool(rule.any_of) and not rule.none_of and not bounds and set(rule.any_of) <= set(need.choices)
        case "integer":
            return bounds and not rule.any_of and not rule.none_of
        case "boolean":
            return rule.any_of in ((True,), (False,)) and not rule.none_of and not bounds


def simple_rules(rules: Sequence[FieldRule], needs: Mapping[str, NeedField]) -> dict[str, FieldRule]:
    """Return the rules that fields can hold, by question. A question with several rules has none of them."""
    counts = [rule.field for rule in rules]
    return {
        rule.field: rule
        for rule in rules
        if rule.field in needs and counts.count(rule.field) == 1 and _is_simple(rule, needs[rule.field])
    }


def show_questions(
    rules: Sequence[FieldRule], needs: Mapping[str, NeedField], sent: FormFields
) -> tuple[QuestionField, ...]:
    """Return the questions that have a field, with what the form sent, or else with what the rules say."""
    simple = simple_rules(rules, needs)
    ruled = {rule.field for rule in rules}
    return tuple(
        _question(question, need, simple.get(question), sent)
        for question, need in needs.items()
        if question in simple or question not in ruled
    )


def _question(question: str, need: NeedField, rule: FieldRule | None, sent: FormFields) -> QuestionField:
    name, low, high, answer = field_name(question), "", "", ""
    ticked: tuple[str, ...] = ()
    if rule is not None:
        ticked = tuple(str(value) for value in rule.any_of)
        low = "" if rule.minimum is None else str(rule.minimum)
        high = "" if rule.maximum is None else str(rule.maximum)
        if need.kind == "boolean":
            answer = "yes" if rule.any_of == (True,) else "no"
    return QuestionField(
        name=name,
        label=need.label or words(question),
        kind=need.kind,
        choices=tuple((choice, words(choice)) for choice in need.choices),
        ticked=sent.get(name, ticked) if need.kind == "choice" else (),
        low=_last(sent, f"{name}.from", low),
        high=_last(sent, f"{name}.to", high),
        answer=_last(sent, name, answer),
    )


def _last(sent: FormFields, name: str, otherwise: str = "") -> str:
    return sent[name][-1].strip() if sent.get(name) else otherwise


def read_rules(
    sent: FormFields, staying: Collection[int] | None, rules: Sequence[FieldRule], needs: Mapping[str, NeedField]
) -> tuple[FieldRule, ...]:
    """Return the rules that a form asks for, in their previous order, then those of newly answered questions.

    `staying` are the numbers of the other rules that stay, None for all. A question that the form does not have keeps
    its rule. Raises InvalidInput for a bound that is no whole number, or bounds that no number fits.
    """
    simple = simple_rules(rules, needs)
    read = []
    for place, rule in enumerate(rules):
        if rule.field in simple:
            changed = _read_question(sent, rule.field, needs[rule.field], rule)
            read += [changed] if changed is not None else []
        elif staying is None or place in staying:
            read.append(rule)
    ruled = {rule.field for rule in rules}
    for question, need in needs.items():
        if question not in ruled and (added := _read_question(sent, question, need, None)) is not None:
            read.append(added)
    return tuple(read)


def _read_question(sent: FormFields, question: str, need: NeedField, before: FieldRule | None) -> FieldRule | None:
    """Return the rule of a question as the form sent it; the rule before if that says the same."""
    name = field_name(question)
    if (f"{name}.from" if need.kind == "integer" else name) not in sent:
        return before
    rule = _stated_rule(sent, question, need)
    if before is None or rule is None or set(before.any_of) != set(rule.any_of):
        return rule
    return before if (before.minimum, before.maximum) == (rule.minimum, rule.maximum) else rule


def _stated_rule(sent: FormFields, question: str, need: NeedField) -> FieldRule | None:
    """Return the rule that the fields of a question state; None for a question that was left open."""
    name = field_name(question)
    match need.kind:
        case "choice":
            ticked = tuple(choice for choice in need.choices if choice in sent[name])
            return FieldRule(field=question, any_of=ticked) if ticked else None
        case "integer":
            low, high = _bound(sent, f"{name}.from"), _bound(sent, f"{name}.to")
            if low is not None and high is not None and low > high:
                raise field_fault(f"{name}.to", FaultCode.out_of_range, "Enter at least the number before it.")
            return None if (low, high) == (None, None) else FieldRule(field=question, minimum=low, maximum=high)
        case "boolean":
            answer = {"yes": True, "no": False}.get(_last(sent, name))
            return None if answer is None else FieldRule(field=question, any_of=(answer,))


def _bound(sent: FormFields, name: str) -> int | None:
    text = _last(sent, name).replace(",", "")
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or int(digits[:16]) > LARGEST:
        raise field_fault(name, FaultCode.type_wrong, "Enter a whole number, such as 150.")
    return int(text)
