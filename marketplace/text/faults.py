"""Reading of JSON bodies that reports all faults at once, each with a pointer, a stable code and a sentence.

A valid body takes one strict decode. Only a body that fails it, or looks suspicious, is parsed a second time and
checked completely, so that a caller can correct all faults together. No sentence repeats the value of a field.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from enum import StrEnum
from functools import cache
from itertools import chain, islice
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import msgspec
from msgspec import inspect

from marketplace.text.characters import is_visible

MAXIMUM_DEPTH: Final = 20
"Deeper nesting is refused before decoding: decoders recurse, and fail on a body nested 5,000 deep."

MAXIMUM_KEYS: Final = 200
"Keys in one document, all objects together; an endpoint that needs more passes its own limit."

MAXIMUM_FAULTS: Final = 100
"Limit of the faults in one answer, so that a small body does not cause a large answer."

MAXIMUM_NAME: Final = 100
"Characters of a key's name in a pointer; longer names are cut, because a key may be as long as the body."

WORDS: Final = r"\S"
"Pattern of texts that must have a visible character, in any script."

INTEGER_LIMIT: Final = 2**63
"Integers must be below this, the limit of a bigint column."

FIRST_YEAR: Final = 1971
LAST_YEAR: Final = 2999
"Dates and times outside of these years are refused: near the ends of the calendar a time has no UTC form."

Item = TypeVar("Item")
Shape = TypeVar("Shape", bound=msgspec.Struct)


class FaultCode(StrEnum):
    """Faults that any JSON endpoint may report."""

    json_too_deep = "json_too_deep"
    """Objects and lists are nested deeper than the limit."""
    json_invalid = "json_invalid"
    """The body is not JSON in UTF-8."""
    json_too_many_keys = "json_too_many_keys"
    """The body has more keys than the endpoint reads."""
    json_duplicate_key = "json_duplicate_key"
    """An object has the same key twice, and readers differ on which of the two counts."""
    body_not_object = "body_not_object"
    """The body is JSON, but not an object."""
    character_not_allowed = "character_not_allowed"
    """A text has a control character or half of a surrogate pair."""
    unknown_field = "unknown_field"
    """A field that the endpoint does not know, or does not let callers set."""
    field_missing = "field_missing"
    """A required field is absent."""
    type_wrong = "type_wrong"
    """A value has another type than the field."""
    offset_missing = "offset_missing"
    """A time has no offset from UTC, so that its instant is unknown."""
    out_of_range = "out_of_range"
    """A number is too small, too large or not finite, or a date or time is outside the years 1971 to 2999."""
    too_long = "too_long"
    """A text, list or object is longer than the limit of the field."""
    value_not_allowed = "value_not_allowed"
    """A value has the right type but is not among those allowed."""


_UNREADABLE: Final = frozenset(
    {
        FaultCode.json_too_deep,
        FaultCode.json_invalid,
        FaultCode.json_too_many_keys,
        FaultCode.json_duplicate_key,
        FaultCode.body_not_object,
    }
)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: its place as `pointer` (RFC 6901, empty for the whole body), and what to do as `detail`."""

    pointer: str
    code: str
    detail: str

    @property
    def unreadable(self) -> bool:
        """Return whether the document as a whole could not be read, as opposed to a single field."""
        return self.code in _UNREADABLE


class BoundedList(Generic[Item]):
    """List of the first `most` items added to it; further items are only counted in `left_out`.

    For every list that grows with what a caller sends: faults, refused rows, unknown names.
    """

    def __init__(self, items: Iterable[Item] = (), most: int = MAXIMUM_FAULTS) -> None:
        self._items: list[Item] = []
        self._most = most
        self.left_out = 0
        self.extend(items)

    def append(self, item: Item) -> None:
        """Add the item, or count it when the list is full."""
        if len(self._items) < self._most:
            self._items.append(item)
        else:
            self.left_out += 1

    def extend(self, items: Iterable[Item]) -> None:
        """Append each item; a generator stops at the first item for which there is no room."""
        for item in items:
            self.append(item)
            if self.left_out and not isinstance(items, list | tuple):
                return

    @property
    def is_full(self) -> bool:
        """Return whether a further item would only be counted, so that the search for more can stop."""
        return len(self._items) >= self._most

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)


def pointer(*path: str | int) -> str:
    """Return the RFC 6901 pointer of a path, names cut at MAXIMUM_NAME, characters that UTF-8 lacks replaced."""
    return "".join(f"/{_token(str(step))}" for step in path)


def _token(name: str) -> str:
    safe = name[:MAXIMUM_NAME].encode("utf-8", "replace").decode()
    return safe.replace("~", "~0").replace("/", "~1")


def read(raw: bytes, shape: type[Shape], *, maximum_keys: int = MAXIMUM_KEYS) -> Shape | tuple[Fault, ...]:
    """Return the body as a `shape`, or its faults, at most MAXIMUM_FAULTS. The caller limits the size of the body."""
    if fault := _limit_fault(raw, maximum_keys):
        return (fault,)
    value, error = _decode(raw, shape)
    try:
        repeated = _has_duplicate_key(raw)
        suspect = _is_suspect(raw) or bool(_UNSEEN.search(raw) and _requires_words(shape))
        if value is not None and not repeated and not suspect:
            return value
        if repeated:
            return tuple(islice(_duplicate_keys(_parse_pairs(raw), ()), MAXIMUM_FAULTS))
        document = parse_plainly(raw)
    except ValueError:
        return (_invalid(),)
    if not isinstance(document, dict):
        return (Fault(pointer="", code=FaultCode.body_not_object, detail="Send a JSON object: { … }."),)
    every = chain(_content_faults(document, ()), _shape_faults(document, inspected(shape), ()))
    if faults := tuple(islice(every, MAXIMUM_FAULTS)):
        return faults
    return value if value is not None else (_last_resort(error),)


# Limits, checked on the bytes before anything recurses. Each string is one match, closed or not: linear time.

_MARKS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{\]}:]', re.DOTALL)


def _limit_fault(raw: bytes, maximum_keys: int) -> Fault | None:
    """Return the fault of a body that is nested too deeply or has too many keys, or None."""
    if raw.count(b"[") + raw.count(b"{") <= MAXIMUM_DEPTH and raw.count(b":") <= maximum_keys:
        return None  # even if all marks were outside of strings, no limit is exceeded
    depth = deepest = keys = 0
    for mark in _MARKS.finditer(raw):
        match raw[mark.start()]:
            case 0x5B | 0x7B:
                depth += 1
                deepest = max(deepest, depth)
            case 0x5D | 0x7D:
                depth -= 1
            case 0x3A:
                keys += 1
    if deepest > MAXIMUM_DEPTH:
        return Fault(
            pointer="", code=FaultCode.json_too_deep, detail=f"Nest objects and lists at most {MAXIMUM_DEPTH} deep."
        )
    if keys > maximum_keys:
        return Fault(
            pointer="", code=FaultCode.json_too_many_keys, detail=f"Send at most {maximum_keys} keys in one body."
        )
    return None


# The two decoders: a strict one that stops at the first fault, and a tolerant one for reporting all faults.

_SUSPECT_ESCAPE: Final = re.compile(rb"\\u00[0-3]|\\[bf]")
"Escape of a control character, which the strict decoder accepts, or of a digit, which could hide the patterns below."
_SUSPECT_YEAR: Final = re.compile(rb'"(?!2|19(?:7[1-9]|[89]))[0-9]{4}-')
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER: Final = b"0" * 19
"Integer near the limit, after every digit was replaced by a zero."


def _is_suspect(raw: bytes) -> bool:
    """Return whether the strict decoder may have accepted what the full check refuses; false alarms are possible."""
    escaped = b"\\" in raw and _SUSPECT_ESCAPE.search(raw)
    return bool(escaped or _LONG_NUMBER in raw.translate(_DIGITS) or _SUSPECT_YEAR.search(raw))


_UNSEEN: Final = re.compile(rb"[\x7f-\xff]|\\u")
"Bytes that may be part of a text without visible characters: ASCII that the decoder accepts is visible."


@cache
def _requires_words(shape: type[msgspec.Struct]) -> bool:
    """Return whether a text in the shape must have a visible character."""
    kinds, visited = [inspected(shape)], set[int]()
    while kinds:
        kind = kinds.pop()
        if isinstance(kind, inspect.StrType) and kind.pattern == WORDS:
            return True
        if id(kind) not in visited:
            visited.add(id(kind))
            kinds.extend(_parts_of(kind))
    return False


def _parts_of(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """Return the types that a type consists of."""
    match kind:
        case inspect.StructType(fields=fields):
            return tuple(field.type for field in fields)
        case inspect.UnionType(types=types):
            return types
        case inspect.DictType(key_type=key, value_type=value):
            return (key, value)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return (item,)
        case _:
            return ()


def _decode(raw: bytes, shape: type[Shape]) -> tuple[Shape | None, ValueError | None]:
    """Return the decoded body, or the decoder's error."""
    try:
        return _decoder(shape).decode(raw), None
    except ValueError as error:  # msgspec's errors and UnicodeDecodeError are all ValueErrors
        return None, error


@cache
def _decoder(shape: type[Shape]) -> msgspec.json.Decoder[Shape]:
    return msgspec.json.Decoder(shape)


@cache
def inspected(shape: type[Shape]) -> inspect.Type:
    """Return msgspec's description of a shape, cached, without the labels that forms give their fields.

    msgspec wraps the type of a labelled field, which would hide its rules.
    """
    kind = inspect.type_info(shape)
    kinds, visited = [kind], set[int]()
    while kinds:
        whole = kinds.pop()
        if id(whole) not in visited:
            visited.add(id(whole))
            _unwrap_parts(whole)
            kinds.extend(_parts_of(whole))
    return kind


def _unwrap_parts(kind: inspect.Type) -> None:
    match kind:
        case inspect.StructType(fields=fields):
            for field in fields:
                field.type = _unwrapped(field.type)
        case inspect.UnionType(types=types):
            kind.types = tuple(map(_unwrapped, types))
        case inspect.DictType(key_type=key, value_type=value):
            kind.key_type, kind.value_type = _unwrapped(key), _unwrapped(value)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            kind.item_type = _unwrapped(item)


def _unwrapped(kind: inspect.Type) -> inspect.Type:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind


def parse_plainly(raw: bytes) -> Any:
    """Return the plain values of a JSON text. Raises ValueError if it is not JSON.

    NaN, 1e400 and integers of over 20 digits become non-finite floats.
    """
    return json.loads(raw.decode("utf-8"), strict=False, parse_int=_parse_int)


class _RepeatedKey(Exception):
    """Raised when an object has a key twice."""


def _demand_once(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > 1 and len(dict(pairs)) != len(pairs):
        raise _RepeatedKey


_UNIQUE: Final = json.JSONDecoder(object_pairs_hook=_demand_once, strict=False, parse_int=float)
"Decoder that only looks for repeated keys; numbers become floats, because long integers are slow to convert."


def _has_duplicate_key(raw: bytes) -> bool:
    """Return whether an object has a key twice, in any spelling; linear, some 30 microseconds for an inquiry.

    Raises ValueError if the body is not JSON.
    """
    try:
        _UNIQUE.decode(raw.decode("utf-8"))
    except _RepeatedKey:
        return True
    return False


class _Pairs(list[tuple[str, Any]]):
    """An object as a list of its keys and values."""


def _parse_pairs(raw: bytes) -> Any:
    return json.loads(raw.decode("utf-8"), strict=False, parse_int=float, object_pairs_hook=_Pairs)


def _duplicate_keys(value: Any, path: "_Path") -> Iterator[Fault]:
    """Yield a fault for each repeated key."""
    if isinstance(value, _Pairs):
        names: set[str] = set()
        for key, item in value:
            if key in names:
                detail = "Send this key once: the object has it twice."
                yield Fault(pointer=pointer(*path, key), code=FaultCode.json_duplicate_key, detail=detail)
            names.add(key)
            yield from _duplicate_keys(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _duplicate_keys(item, (*path, index))


def _parse_int(digits: str) -> int | float:
    """Return the integer, or infinity for more than 20 digits."""
    return int(digits) if len(digits) <= 20 else math.inf


def _invalid() -> Fault:
    return Fault(
        pointer="",
        code=FaultCode.json_invalid,
        detail="The body is not JSON in UTF-8: check quotes, commas and braces.",
    )


def _last_resort(error: ValueError | None) -> Fault:
    """Return the fault that only the strict decoder found: a rule across fields, or a raw line break in a string."""
    if not isinstance(error, msgspec.ValidationError):
        return _invalid()
    place = re.search(r" - at `\$(.*)`$", str(error))
    path = re.findall(r"[^.\[\]]+", place[1]) if place else []
    rule = str(error.__cause__ or "The value breaks a rule of this field; its documentation shows the shape.")
    return Fault(pointer=pointer(*path), code=FaultCode.value_not_allowed, detail=rule)


# Rules that a decoder's types do not express: characters and numbers that cannot be stored.

_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
"Control characters except tabs and line ends, which browsers send in the text of a text box."

_Path = tuple[str | int, ...]


def text_fault(text: str, *path: str | int) -> Fault | None:
    """Return the fault of a text with a character that cannot be stored, or None; `path` leads to the text."""
    if not _CONTROL.search(text):
        return None
    detail = "Remove control characters; only tabs and line ends may stand in a text."
    return Fault(pointer=pointer(*path), code=FaultCode.character_not_allowed, detail=detail)


def _content_faults(value: Any, path: _Path) -> Iterator[Fault]:
    """Yield a fault for each text and number that cannot be stored."""
    match value:
        case str() if (fault := text_fault(value, *path)) is not None:
            yield fault
        case int() | float() if _is_beyond(value):
            detail = "Send a finite number below 2^63."
            yield Fault(pointer=pointer(*path), code=FaultCode.out_of_range, detail=detail)
        case dict():
            for key, item in value.items():
                yield from _content_faults(key, (*path, key))
                yield from _content_faults(item, (*path, key))
        case list():
            for index, item in enumerate(value):
                yield from _content_faults(item, (*path, index))


def _is_beyond(number: int | float) -> bool:
    return not math.isfinite(number) or (isinstance(number, int) and not -INTEGER_LIMIT <= number < INTEGER_LIMIT)


# Rules of the shape, field by field.


def has_fault(value: Any, kind: inspect.Type) -> bool:
    """Return whether a plain value has any fault as a value of this type."""
    return any(True for _ in chain(_content_faults(value, ()), _shape_faults(value, kind, ())))


def _shape_faults(value: Any, kind: inspect.Type, path: _Path) -> Iterator[Fault]:
    """Yield the faults of a plain value as a value of this type."""
    match kind:
        case inspect.StructType():
            yield from _object_faults(value, kind, path)
        case inspect.DictType():
            yield from _map_faults(value, kind, path)
        case inspect.VarTupleType() | inspect.ListType():
            yield from _list_faults(value, kind, path)
        case inspect.UnionType():
            yield from _union_faults(value, kind, path)
        case inspect.StrType():
            yield from _text_faults(value, kind, path)
        case inspect.IntType() | inspect.FloatType():
            yield from _number_faults(value, kind, path)
        case inspect.DateTimeType():
            yield from _time_faults(value, kind, path)
        case _:
            yield from _plain_faults(value, kind, path)


def _object_faults(value: Any, kind: inspect.StructType, path: _Path) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield _type_wrong(kind, path)
        return
    if kind.tag_field and value.get(kind.tag_field) != kind.tag:
        detail = f"Must be {json.dumps(kind.tag)}."
        yield Fault(pointer=pointer(*path, kind.tag_field), code=FaultCode.value_not_allowed, detail=detail)
        return
    fields = {field.encode_name: field for field in kind.fields}
    unknown = (name for name in value if name not in fields and name != kind.tag_field)
    for name in unknown if kind.forbid_unknown_fields else ():
        detail = "Remove this field: it is not part of this request."
        yield Fault(pointer=pointer(*path, name), code=FaultCode.unknown_field, detail=detail)
    for name, field in fields.items():
        if name in value:
            yield from _shape_faults(value[name], field.type, (*path, name))
        elif field.required:
            detail = f"This field is required: send {_describe_kind(field.type)}."
            yield Fault(pointer=pointer(*path, name), code=FaultCode.field_missing, detail=detail)


def _map_faults(value: Any, kind: inspect.DictType, path: _Path) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield _type_wrong(kind, path)
    elif kind.max_length is not None and len(value) > kind.max_length:
        yield _too_long(f"Send at most {kind.max_length} entries.", path)
    else:
        for key, item in value.items():
            yield from _shape_faults(key, kind.key_type, (*path, key))
            yield from _shape_faults(item, kind.value_type, (*path, key))


def _list_faults(value: Any, kind: inspect.VarTupleType | inspect.ListType, path: _Path) -> Iterator[Fault]:
    if not isinstance(value, list):
        yield _type_wrong(kind, path)
    elif kind.max_length is not None and len(value) > kind.max_length:
        yield _too_long(f"Send at most {kind.max_length} items.", path)
    elif kind.min_length is not None and len(value) < kind.min_length:
        detail = f"Send at least {kind.min_length} items."
        yield Fault(pointer=pointer(*path), code=FaultCode.field_missing, detail=detail)
    else:
        for index, item in enumerate(value):
            yield from _shape_faults(item, kind.item_type, (*path, index))


def _union_faults(value: Any, kind: inspect.UnionType, path: _Path) -> Iterator[Fault]:
    """Yield the faults of the alternative that was probably meant: the first whose type or tag the value has."""
    if value is None and any(isinstance(member, inspect.NoneType) for member in kind.types):
        return
    attempts = []
    for member in kind.types:
        if isinstance(member, inspect.NoneType):
            continue
        faults = tuple(islice(_shape_faults(value, member, path), MAXIMUM_FAULTS))
        if not faults:
            return
        attempts.append((member, faults))
    meant = [(member, faults) for member, faults in attempts if not _is_other(member, faults[0], path)]
    if meant or len(attempts) == 1:
        yield from (meant or attempts)[0][1]
    else:
        yield _no_alternative(value, [member for member, _ in attempts], path)


def _is_other(member: inspect.Type, first: Fault, path: _Path) -> bool:
    """Return whether the first fault shows that another alternative of a union was meant."""
    tag = member.tag_field if isinstance(member, inspect.StructType) else None
    wrong_type = first.code == FaultCode.type_wrong and first.pointer == pointer(*path)
    return wrong_type or (tag is not None and first.pointer == pointer(*path, tag))


def _no_alternative(value: Any, members: list[inspect.Type], path: _Path) -> Fault:
    """Return the fault of a value that matches no alternative of a union."""
    tagged = [member for member in members if isinstance(member, inspect.StructType) and member.tag_field]
    if tagged and isinstance(value, dict):
        tags = ", ".join(json.dumps(member.tag) for member in tagged)
        where = pointer(*path, tagged[0].tag_field or "")
        return Fault(pointer=where, code=FaultCode.value_not_allowed, detail=f"Must be one of {tags}.")
    kinds = " or ".join(dict.fromkeys(_describe_kind(member) for member in members))
    return Fault(pointer=pointer(*path), code=FaultCode.type_wrong, detail=f"Must be {kinds}.")


def _text_faults(value: Any, kind: inspect.StrType, path: _Path) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield _type_wrong(kind, path)
    elif kind.max_length is not None and len(value) > kind.max_length:
        yield _too_long(f"Shorten this to at most {kind.max_length} characters.", path)
    elif kind.min_length is not None and len(value) < kind.min_length:
        detail = f"Must have at least {kind.min_length} character{'s' if kind.min_length > 1 else ''}."
        yield Fault(pointer=pointer(*path), code=FaultCode.value_not_allowed, detail=detail)
    elif kind.pattern == WORDS and not is_visible(value):
        detail = "Write something that can be seen: letters, digits or signs."
        yield Fault(pointer=pointer(*path), code=FaultCode.value_not_allowed, detail=detail)
    elif kind.pattern is not None and not re.search(kind.pattern, value):
        yield Fault(
            pointer=pointer(*path), code=FaultCode.value_not_allowed, detail=f"Must have the form {kind.pattern}."
        )


def _number_faults(value: Any, kind: inspect.IntType | inspect.FloatType, path: _Path) -> Iterator[Fault]:
    allowed = int if isinstance(kind, inspect.IntType) else (int, float)
    if isinstance(value, float) and not math.isfinite(value):
        return  # _content_faults reports it
    if isinstance(value, bool) or not isinstance(value, allowed):
        yield _type_wrong(kind, path)
        return
    bounds: tuple[tuple[float | None, Callable[[float], bool], str], ...] = (
        (kind.ge, lambda bound: value >= bound, "at least"),
        (kind.gt, lambda bound: value > bound, "more than"),
        (kind.le, lambda bound: value <= bound, "at most"),
        (kind.lt, lambda bound: value < bound, "less than"),
    )
    for bound, holds, words in bounds:
        if bound is not None and not holds(bound):
            yield Fault(pointer=pointer(*path), code=FaultCode.out_of_range, detail=f"Must be {words} {bound:,}.")


def _time_faults(value: Any, kind: inspect.DateTimeType, path: _Path) -> Iterator[Fault]:
    if not _converts(value, datetime):
        yield _type_wrong(kind, path)
    elif (moment := msgspec.convert(value, datetime)).tzinfo is None and kind.tz:
        detail = "Add the offset from UTC: end the time with Z, or with an offset such as -06:00."
        yield Fault(pointer=pointer(*path), code=FaultCode.offset_missing, detail=detail)
    elif not is_within_calendar(moment):
        yield _year_fault(path)


def _year_fault(path: _Path) -> Fault:
    detail = f"Send a year from {FIRST_YEAR} to {LAST_YEAR}."
    return Fault(pointer=pointer(*path), code=FaultCode.out_of_range, detail=detail)


def is_within_calendar(day: date) -> bool:
    """Return whether a date or time is in a year that the rules can calculate with, in any time zone."""
    return FIRST_YEAR <= day.year <= LAST_YEAR


_CONVERTED: Final[dict[type[inspect.Type], type]] = {
    inspect.DateType: date,
    inspect.UUIDType: UUID,
    inspect.BoolType: bool,
}


def _plain_faults(value: Any, kind: inspect.Type, path: _Path) -> Iterator[Fault]:
    match kind:
        case inspect.EnumType() | inspect.LiteralType():
            if not any(type(value) is type(choice) and value == choice for choice in _choices(kind)):
                yield Fault(
                    pointer=pointer(*path), code=FaultCode.value_not_allowed, detail=f"Must be {_describe_kind(kind)}."
                )
        case _ if (target := _CONVERTED.get(type(kind))) and not _converts(value, target):
            yield _type_wrong(kind, path)
        case inspect.DateType() if not is_within_calendar(msgspec.convert(value, date)):
            yield _year_fault(path)


def _converts(value: Any, target: type) -> bool:
    try:
        msgspec.convert(value, target)
    except msgspec.ValidationError:
        return False
    return True


def _choices(kind: inspect.EnumType | inspect.LiteralType) -> tuple[object, ...]:
    """Return the values of an enumeration."""
    return tuple(kind.values) if isinstance(kind, inspect.LiteralType) else tuple(member.value for member in kind.cls)


def _type_wrong(kind: inspect.Type, path: _Path) -> Fault:
    return Fault(pointer=pointer(*path), code=FaultCode.type_wrong, detail=f"Must be {_describe_kind(kind)}.")


def _too_long(detail: str, path: _Path) -> Fault:
    return Fault(pointer=pointer(*path), code=FaultCode.too_long, detail=detail)


_KIND_WORDS: Final[dict[type[inspect.Type], str]] = {
    inspect.StructType: "an object",
    inspect.DictType: "an object",
    inspect.VarTupleType: "a list",
    inspect.ListType: "a list",
    inspect.StrType: "a text",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.BoolType: "true or false",
    inspect.DateTimeType: "a time like 2026-11-21T10:00:00Z",
    inspect.DateType: "a date like 2026-11-21",
    inspect.UUIDType: "a UUID",
}


def _describe_kind(kind: inspect.Type) -> str:
    """Return a type in plain words, to follow "must be" or "send"."""
    match kind:
        case inspect.EnumType() | inspect.LiteralType():
            return "one of " + ", ".join(json.dumps(choice) for choice in _choices(kind))
        case inspect.UnionType():
            members = (_describe_kind(member) for member in kind.types if not isinstance(member, inspect.NoneType))
            return " or ".join(dict.fromkeys(members))
        case _:
            return _KIND_WORDS.get(type(kind), "a value of the documented type")
