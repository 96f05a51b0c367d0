"""Response contracts: what the answer of an endpoint's server means, stated by rules and read without guessing.

A contract lists rules for the answers that mean "accepted", "refused", "had it already" and "try later", and says where
the answer names a reason, a reference and a price. An answer that no rule matches means nothing: it is never a sale.
Reading one takes time in proportion to its length, whatever the rules are, because patterns know no sign but `*`.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

# --- the contract -----------------------------------------------------------------------------------------------------

_STEP: Final = r"(?:[^.\[\]\s=,]{1,64}|\[[0-9]{1,3}\])"
JsonPath = Annotated[
    str, Meta(max_length=200, pattern=rf"\A{_STEP}(?:\.[^.\[\]\s=,]{{1,64}}|\[[0-9]{{1,3}}\]){{0,7}}\Z")
]
"Place in a JSON answer: names with dots and positions in brackets, such as `result.items[0].status`; 8 steps at most."

StatusPattern = Annotated[str, Meta(pattern=r"\A[1-5](?:[0-9]{2}|xx)\Z")]
"A status such as `201`, or the hundred of a status such as `2xx`."

MOST_RULES: Final = 20
MOST_VALUES: Final = 30
MOST_SAMPLES: Final = 20
LONGEST_REFERENCE: Final = 100
"Characters of a reference that are stored."
LONGEST_PRICE: Final = 40
"Characters of a price that are stored, as the answer writes it."


class AnswerRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Answers of one kind. All conditions that are stated must hold, and at least one is stated.

    `path` is a place in a JSON body, where one of `values` stands, or without `values` anything but null. Values are
    compared as texts, in any case: `true` matches the JSON value true. `text` is compared with the whole body, in any
    case: `*` stands for any characters; without one, quotes and final punctuation do not count. `empty` is a body
    without a character other than white space. A rule without `status` applies to statuses from 200 to 299 and from 400
    to 499, except 408, 425 and 429, which ask for the request again.
    """

    status: StatusPattern | None = None
    empty: bool = False
    path: JsonPath | None = None
    values: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...], Meta(max_length=MOST_VALUES)] = ()
    text: Annotated[str, Meta(min_length=1, max_length=200)] | None = None

    @property
    def says_something(self) -> bool:
        """Return whether a condition is stated; a rule without one matches nothing."""
        return bool(self.status or self.empty or self.path or self.text)


AnswerRules: TypeAlias = Annotated[tuple[AnswerRule, ...], Meta(max_length=MOST_RULES)]


class Meaning(StrEnum):
    """Meaning of an answer by a contract."""

    accepted = "accepted"
    """The business has the lead and pays for it."""
    refused = "refused"
    """The business does not want the lead and pays nothing."""
    duplicate = "duplicate"
    """The business had this person before: refused for that reason."""
    try_later = "try_later"
    """The same request is sent again later."""
    not_understood = "not_understood"
    """No rule matches: the lead is sent again, nobody pays, and the business is told."""


class AnswerSample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer of the server as an example, with the meaning that it must have under the contract."""

    expected: Meaning
    status: Annotated[int, Meta(ge=200, le=599)] = 200
    content_type: Annotated[str, Meta(max_length=100)] = "application/json"
    body: Annotated[str, Meta(max_length=4_000)] = ""


class Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Meaning of all answers of a server. The first list with a matching rule decides, in the order of the fields.

    `accepted` applies to complete answers with a status from 200 to 299 alone. `reason`, `reference` and `price` are
    places in a JSON answer: the reason of a refusal, the server's own number of the lead, and the price that it names.
    """

    refused: AnswerRules = ()
    duplicate: AnswerRules = ()
    try_later: AnswerRules = ()
    accepted: AnswerRules = ()
    reason: JsonPath | None = None
    reference: JsonPath | None = None
    price: JsonPath | None = None
    samples: Annotated[tuple[AnswerSample, ...], Meta(max_length=MOST_SAMPLES)] = ()


OWN_FORMAT: Final = Contract(
    refused=(AnswerRule(path="status", values=("refused",)),),
    accepted=(AnswerRule(empty=True), AnswerRule(path="status", values=("accepted",))),
    reason="reason",
)
"""The contract of an endpoint that has none of its own: an empty body, or JSON with `status` accepted or refused."""


# --- reading an answer ------------------------------------------------------------------------------------------------


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Meaning of an answer, and what it names, as text."""

    meaning: Meaning
    reason: str | None = None
    reference: str | None = None
    price: str | None = None


_LISTS: Final = (
    (Meaning.refused, "refused"),
    (Meaning.duplicate, "duplicate"),
    (Meaning.try_later, "try_later"),
    (Meaning.accepted, "accepted"),
)


def read_answer(contract: Contract, status: int, body: bytes) -> Reading:
    """Return the meaning of a complete answer without content coding by the rules of the contract alone.

    A status outside 200 to 299 is never accepted.
    """
    answer = _Answer(status, body)
    for meaning, name in _LISTS:
        if meaning is Meaning.accepted and not 200 <= status <= 299:
            break
        if any(_matches(rule, answer) for rule in getattr(contract, name)):
            return Reading(
                meaning=meaning,
                reason=answer.text_at(contract.reason, LONGEST_REFERENCE),
                reference=answer.text_at(contract.reference, LONGEST_REFERENCE),
                price=answer.text_at(contract.price, LONGEST_PRICE),
            )
    return Reading(meaning=Meaning.not_understood)


class _Nothing:
    """A place that the body does not have, or a body that is not JSON."""


_NOTHING: Final = _Nothing()
_UNREAD: Final = _Nothing()


class _Answer:
    """An answer whose body is decoded once, when the first rule needs it."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.text = body.decode("utf-8-sig", "replace").strip() if body else ""
        self._document: object = _UNREAD
        self._folded: str | None = None

    @property
    def folded(self) -> str:
        """The text in a form that does not distinguish upper and lower case."""
        if self._folded is None:
            self._folded = self.text.casefold()
        return self._folded

    def value_at(self, path: str) -> object:
        """Return the JSON value at a path, or `_NOTHING`."""
        if self._document is _UNREAD:
            self._document = decode_json(self.text)
        value = self._document
        for step in steps(path):
            if isinstance(step, int):
                value = value[step] if isinstance(value, list) and step < len(value) else _NOTHING
            else:
                value = value.get(step, _NOTHING) if isinstance(value, dict) else _NOTHING
        return value

    def text_at(self, path: str | None, longest: int) -> str | None:
        """Return the text, number or truth value at a path as text, or None."""
        text = None if path is None else _scalar_text(self.value_at(path))
        return None if text is None or text == "" else text[:longest]


def decode_json(text: str) -> object:
    """Return the value of a JSON text, or a value that has no places if it is not JSON."""
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return _NOTHING


_PATH_STEP: Final = re.compile(r"\[([0-9]{1,3})\]|([^.\[\]]+)")


def steps(path: str) -> Iterator[str | int]:
    """Yield the names and positions of a path."""
    for step in _PATH_STEP.finditer(path):
        yield int(step[1]) if step[1] is not None else step[2]


def _scalar_text(value: object) -> str | None:
    """Return a text trimmed, a number or truth value as JSON writes it, or None for anything else."""
    match value:
        case str():
            return value.strip()
        case bool():
            return "true" if value else "false"
        case int() | float():
            return msgspec.json.encode(value).decode()
        case _:
            return None


def _matches(rule: AnswerRule, answer: _Answer) -> bool:
    """Return whether all conditions of a rule hold."""
    if not rule.says_something:
        return False
    if not _status_matches(rule.status, answer.status):
        return False
    if rule.empty and answer.text:
        return False
    if rule.path is not None and not _value_matches(rule, answer.value_at(rule.path)):
        return False
    return rule.text is None or text_matches(rule.text, answer.folded)


_ASKS_AGAIN: Final = frozenset({408, 425, 429})


def _status_matches(pattern: str | None, status: int) -> bool:
    if pattern is None:
        return status // 100 in (2, 4) and status not in _ASKS_AGAIN
    return status // 100 == int(pattern[0]) if pattern.endswith("xx") else status == int(pattern)


def _value_matches(rule: AnswerRule, value: object) -> bool:
    if not rule.values:
        return value is not None and value is not _NOTHING
    text = _scalar_text(value)
    return text is not None and text.casefold() in {word.strip().casefold() for word in rule.values}


def text_matches(pattern: str, folded: str) -> bool:
    """Return whether a case-folded text has the form of `pattern`, in which `*` stands for any characters.

    Each part between two stars is searched once, from left to right, so the time is in proportion to the text's length.
    A pattern without a star is compared with the text without quotes and final punctuation.
    """
    first, *parts = pattern.casefold().split("*")
    if not parts:
        return folded.strip("\"'.! \t\r\n") == first.strip()
    *middle, last = parts
    if not folded.startswith(first) or len(folded) < len(first) + len(last) or not folded.endswith(last):
        return False
    place, end = len(first), len(folded) - len(last)
    for part in middle:
        place = folded.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


# --- shapes -----------------------------------------------------------------------------------------------------------

SHAPE_DEPTH: Final = 4
"Levels of a JSON answer whose names count for its shape."
SHAPE_NAMES: Final = 200
"Names of a JSON answer that count for its shape."


def shape_of(content_type: str, body: bytes) -> str:
    """Return 16 hexadecimal digits, equal for answers of the same media type, the same names and the same kinds.

    The values of a JSON answer do not count, and of a list only the first item does. All texts that are not JSON and
    have the same media type have one shape.
    """
    text = body.decode("utf-8-sig", "replace").strip()
    if not text:
        return "empty"
    document = decode_json(text)
    form = "text" if document is _NOTHING else " ".join(_names(document))
    return blake2b(f"{content_type} {form}".encode(errors="replace"), digest_size=8).hexdigest()


def _names(document: object) -> Iterator[str]:
    """Yield the kind of each value of a JSON document, with its names in order, down to SHAPE_DEPTH."""
    waiting: list[tuple[str, object, int]] = [("", document, 0)]
    for _ in range(SHAPE_NAMES):
        if not waiting:
            return
        place, value, depth = waiting.pop()
        yield f"{place}:{_kind(value)}"
        if depth == SHAPE_DEPTH:
            continue
        match value:
            case dict():
                names = sorted(value, reverse=True)[-SHAPE_NAMES:]
                waiting += [(f"{place}.{name}", value[name], depth + 1) for name in names]
            case [first, *_]:
                waiting.append((f"{place}[]", first, depth + 1))


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case _:
            return "object"
