"""Rules of a response contract as lines that people write and read, such as `201 result.id` or `text: *thank you*`."""

import re
from typing import Final

import msgspec

from routing.contract import AnswerRule

EMPTY: Final = "empty"
_LINE: Final = re.compile(
    r"(?:(?P<status>[1-5](?:[0-9]{2}|xx))(?:\s+|$))?"
    r"(?:(?P<empty>empty)|text:\s*(?P<text>.+)|(?!text:)\$?\.?(?P<path>[^\s=]+)(?:\s*=\s*(?P<values>.+))?)?"
)


class RuleFault(ValueError):
    """A line that cannot be read; the text says what to write instead."""


def read_rule(line: str) -> AnswerRule:
    """Return the rule that a line states. Raises RuleFault.

    A line is a status, such as `201` or `2xx`, or a condition, or both: `empty`; `text:` and a pattern; a place in the
    JSON; or a place, `=` and the values that may stand there, separated by commas.
    """
    parts = _LINE.fullmatch(line.strip())
    if parts is None or not line.strip():
        raise RuleFault(f"“{line[:60]}” cannot be read. Write, for example: status = accepted, ok")
    values = [value.strip() for value in (parts["values"] or "").split(",")]
    document = {
        "status": parts["status"],
        "empty": parts["empty"] is not None,
        "text": parts["text"] and parts["text"].strip(),
        "path": parts["path"],
        "values": [value for value in values if value],
    }
    try:
        return msgspec.convert(document, AnswerRule)
    except msgspec.ValidationError as error:
        detail = (
            f"“{line[:60]}” cannot be read. Write a place such as result.items[0].status, and at most 200 characters."
        )
        raise RuleFault(detail) from error


def write_rule(rule: AnswerRule) -> str | None:
    """Return the line that states a rule, or None for a rule that no single line states."""
    line = " ".join(part for part in (rule.status or "", _condition(rule)) if part)
    try:
        return line if read_rule(line) == rule else None
    except RuleFault:
        return None


def _condition(rule: AnswerRule) -> str:
    if rule.empty:
        return EMPTY
    if rule.text is not None:
        return f"text: {rule.text}"
    if rule.path is None:
        return ""
    place = rule.path if rule.path[0].isalpha() and rule.path != EMPTY else f"${rule.path}"
    return f"{place} = {', '.join(rule.values)}" if rule.values else place
