"""What is wrong with a JSON body: every fault at once, each with a pointer, a stable code and a sentence to act on.

The good path is one strict decode. Only a body that fails it, or that holds something suspicious, is parsed a second
time and walked to the end, so that a caller mends all faults in one go. No sentence ever repeats the value of a field.
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
"Nesting beyond this is refused before decoding: decoders recurse, and a body nested 5,000 deep ends one with an error."

MAXIMUM_KEYS: Final = 200
"Keys in one document, all objects together; an endpoint that needs more says so."

MAXIMUM_FAULTS: Final = 100
"More faults than this help nobody and would let a small body buy a large answer."

MAXIMUM_NAME: Final = 100
"A pointer repeats the names of keys, and a key may be as long as the body: longer names are cut."

WORDS: Final = r"\S"
"The pattern of texts that must say something: in such a text something must be visible, in whatever script."

INTEGER_LIMIT: Final = 2**63
"What a bigint column holds; no field of any endpoint needs more."

FIRST_YEAR: Final = 1971
LAST_YEAR: Final = 2999
"Dates and times of other years are no input: near the ends of the calendar a time has no UTC form."

Item = TypeVar("Item")
Shape = TypeVar("Shape", bound=msgspec.Struct)


class FaultCode(StrEnum):
    """Faults that any JSON endpoint may find, whatever its subject."""

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
    """A text holds a control character or half of a surrogate pair."""
    unknown_field = "unknown_field"
    """A field that the endpoint does not know, or does not let callers set."""
    field_missing = "field_missing"
    """A required field is absent."""
    type_wrong = "type_wrong"
    """A value of another type than the field's."""
    offset_missing = "offset_missing"
    """A time without its offset from UTC, which could mean any of a day's hours."""
    out_of_range = "out_of_range"
    """A number too small, too large or not finite, or a date or time outside the years 1971 to 2999."""
    too_long = "too_long"
    """A text, list or object longer than the field's limit."""
    value_not_allowed = "value_not_allowed"
    """A value of the right type that is not among those allowed."""


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
    """One thing to mend: `pointer` says where (RFC 6901, empty for the whole body), `code` what, `detail` how."""

    pointer: str
    code: str
    detail: str

    @property
    def unreadable(self) -> bool:
        """Whether the document itself could not be read, as opposed to a field that can be mended on its own."""
        return self.code in _UNREADABLE


class BoundedList(Generic[Item]):
    """The first `most` of the items added to it; the others are counted and not kept.

    For every list that grows with what a caller sends: of faults, of rows refused, of names unknown.
    """

    def __init__(self, items: Iterable[Item] = (), most: int = MAXIMUM_FAULTS) -> None:
        self._kept: list[Item] = []
        self._most = most
        self.left_out = 0
        self.extend(items)

    def append(self, item: Item) -> None:
        """Keep the item, or count it where there is no room."""
        if len(self._kept) < self._most:
            self._kept.append(item)
        else:
            self.left_out += 1

    def extend(self, items: Iterable[Item]) -> None:
        """Append each; a generator is not run beyond the first item that has no room."""
        for item in items:
            self.append(item)
            if self.left_out and not isinstance(items, list | tuple):
                return

    @property
    def is_full(self) -> bool:
        """Whether another item would not be kept: whoever looks for more may stop."""
        return len(self._kept) >= self._most

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._kept)


def pointer(*path: str | int) -> str:
    """The RFC 6901 pointer of a path; names longer than the limit are cut, and what UTF-8 cannot carry is replaced."""
    return "".join(f"/{_token(str(step))}" for step in path)


def _token(name: str) -> str:
    safe = name[:MAXIMUM_NAME].encode("utf-8", "replace").decode()
    return safe.replace("~", "~0").replace("/", "~1")


def read(raw: bytes, shape: type[Shape], *, maximum_keys: int = MAXIMUM_KEYS) -> Shape | tuple[Fault, ...]:
    """The body as a `shape`, or everything that is wrong with it, at most 100 faults. The caller limits its size."""
    if fault := _limits_passed(raw, maximum_keys):
        return (fault,)
    value, error = _decode(raw, shape)
    try:
        repeated = _has_duplicate_key(raw)
        suspect = _is_suspect(raw) or bool(_UNSEEN.search(raw) and _asks_for_words(shape))
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


# Limits, checked on the bytes before anything recurses. A string is one match, closed or not, so that time is linear.

_MARKS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{\]}:]', re.DOTALL)


def _limits_passed(raw: bytes, maximum_keys: int) -> Fault | None:
    if raw.count(b"[") + raw.count(b"{") <= MAXIMUM_DEPTH and raw.count(b":") <= maximum_keys:
        return None  # no count of marks, in strings or out, can break a limit
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


# The two decoders: a strict one that stops at the first fault, and a tolerant one that lets every fault be told.

_SUSPECT_ESCAPE: Final = re.compile(rb"\\u00[0-3]|\\[bf]")
"Of a control character, which the strict decoder lets pass, or of a digit, which could hide what stands below."
_SUSPECT_YEAR: Final = re.compile(rb'"(?!2|19(?:7[1-9]|[89]))[0-9]{4}-')
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER: Final = b"0" * 19
"An integer near the limit, once every digit is a zero."


def _is_suspect(raw: bytes) -> bool:
    """Whether the strict decoder may have let something pass that the walk refuses; says so rather once too often."""
    escaped = b"\\" in raw and _SUSPECT_ESCAPE.search(raw)
    return bool(escaped or _LONG_NUMBER in raw.translate(_DIGITS) or _SUSPECT_YEAR.search(raw))


_UNSEEN: Final = re.compile(rb"[\x7f-\xff]|\\u")
"Where a text may hold nothing but characters that cannot be seen: all of ASCII that the decoder lets pass can be."


@cache
def _asks_for_words(shape: type[msgspec.Struct]) -> bool:
    """Whether any text in the shape must say something."""
    kinds, looked_at = [inspected(shape)], set[int]()
    while kinds:
        kind = kinds.pop()
        if isinstance(kind, inspect.StrType) and kind.pattern == WORDS:
            return True
        if id(kind) not in looked_at:
            looked_at.add(id(kind))
            kinds.extend(_parts_of(kind))
    return False


def _parts_of(kind: inspect.Type) -> tuple[inspect.Type, ...]:
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
    try:
        return _decoder(shape).decode(raw), None
    except ValueError as error:  # msgspec's errors and UnicodeDecodeError are all ValueErrors
        return None, error


@cache
def _decoder(shape: type[Shape]) -> msgspec.json.Decoder[Shape]:
    return msgspec.json.Decoder(shape)


@cache
def inspected(shape: type[Shape]) -> inspect.Type:
    return inspect.type_info(shape)


def parse_plainly(raw: bytes) -> Any:
    """Plain values, with NaN, 1e400 and endless integers as non-finite floats. Raises ValueError if not JSON."""
    return json.loads(raw.decode("utf-8"), strict=False, parse_int=_parse_int)


class _RepeatedKey(Exception):
    """An object has a key twice."""


def _demand_once(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > 1 and len(dict(pairs)) != len(pairs):
        raise _RepeatedKey


_UNIQUE: Final = json.JSONDecoder(object_pairs_hook=_demand_once, strict=False, parse_int=float)
"Keeps nothing: numbers are read as floats because endless integers cost more than their length."


def _has_duplicate_key(raw: bytes) -> bool:
    """Whether any object has a key twice, however spelt; linear, some 30 microseconds for an inquiry.

    Raises ValueError if the body is not JSON.
    """
    try:
        _UNIQUE.decode(raw.decode("utf-8"))
    except _RepeatedKey:
        return True
    return False


class _Pairs(list[tuple[str, Any]]):
    """An object with its keys as they came."""


def _parse_pairs(raw: bytes) -> Any:
    return json.loads(raw.decode("utf-8"), strict=False, parse_int=float, object_pairs_hook=_Pairs)


def _duplicate_keys(value: Any, path: "_Path") -> Iterator[Fault]:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, item in value:
            if key in seen:
                detail = "Send this key once: the object has it twice."
                yield Fault(pointer=pointer(*path, key), code=FaultCode.json_duplicate_key, detail=detail)
            seen.add(key)
            yield from _duplicate_keys(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _duplicate_keys(item, (*path, index))


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= 20 else math.inf


def _invalid() -> Fault:
    return Fault(
        pointer="",
        code=FaultCode.json_invalid,
        detail="The body is not JSON in UTF-8: check quotes, commas and braces.",
    )


def _last_resort(error: ValueError | None) -> Fault:
    """For what only the strict decoder knows: a rule that spans fields, or a raw line break inside a string."""
    if not isinstance(error, msgspec.ValidationError):
        return _invalid()
    place = re.search(r" - at `\$(.*)`$", str(error))
    path = re.findall(r"[^.\[\]]+", place[1]) if place else []
    rule = str(error.__cause__ or "The value breaks a rule of this field; its documentation shows the shape.")
    return Fault(pointer=pointer(*path), code=FaultCode.value_not_allowed, detail=rule)


# What a decoder's types do not say: characters and numbers that nothing behind us can store.

_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
"All but tabs and line ends: browsers end the lines of a text box with a carriage return and a line feed."

_Path = tuple[str | int, ...]


def text_fault(text: str, *path: str | int) -> Fault | None:
    """The fault of a text that has a character which nothing behind us can store; `path` leads to it."""
    if not _CONTROL.search(text):
        return None
    detail = "Remove control characters; only tabs and line ends may stand in a text."
    return Fault(pointer=pointer(*path), code=FaultCode.character_not_allowed, detail=detail)


def _content_faults(value: Any, path: _Path) -> Iterator[Fault]:
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


# What the shape says, field by field.


def has_fault(value: Any, kind: inspect.Type) -> bool:
    """Whether anything at all is wrong with a plain value of this kind."""
    return any(True for _ in chain(_content_faults(value, ()), _shape_faults(value, kind, ())))


def _shape_faults(value: Any, kind: inspect.Type, path: _Path) -> Iterator[Fault]:
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
            detail = f"This field is required: send {_wanted(field.type)}."
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
    """Those of the alternative that was meant: the first whose type, or tag, the value has."""
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
    tag = member.tag_field if isinstance(member, inspect.StructType) else None
    wrong_type = first.code == FaultCode.type_wrong and first.pointer == pointer(*path)
    return wrong_type or (tag is not None and first.pointer == pointer(*path, tag))


def _no_alternative(value: Any, members: list[inspect.Type], path: _Path) -> Fault:
    tagged = [member for member in members if isinstance(member, inspect.StructType) and member.tag_field]
    if tagged and isinstance(value, dict):
        tags = ", ".join(json.dumps(member.tag) for member in tagged)
        where = pointer(*path, tagged[0].tag_field or "")
        return Fault(pointer=where, code=FaultCode.value_not_allowed, detail=f"Must be one of {tags}.")
    wanted = " or ".join(dict.fromkeys(_wanted(member) for member in members))
    return Fault(pointer=pointer(*path), code=FaultCode.type_wrong, detail=f"Must be {wanted}.")


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
        return  # told already, by its content
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
    """Whether a date or a time is one that the rules can compute with, in any zone."""
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
                    pointer=pointer(*path), code=FaultCode.value_not_allowed, detail=f"Must be {_wanted(kind)}."
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
    return tuple(kind.values) if isinstance(kind, inspect.LiteralType) else tuple(member.value for member in kind.cls)


def _type_wrong(kind: inspect.Type, path: _Path) -> Fault:
    return Fault(pointer=pointer(*path), code=FaultCode.type_wrong, detail=f"Must be {_wanted(kind)}.")


def _too_long(detail: str, path: _Path) -> Fault:
    return Fault(pointer=pointer(*path), code=FaultCode.too_long, detail=detail)


def _wanted(kind: inspect.Type) -> str:
    """A kind of value in plain words, to stand after "must be" or "send"."""
    match kind:
        case inspect.StructType() | inspect.DictType():
            return "an object"
        case inspect.VarTupleType() | inspect.ListType():
            return "a list"
        case inspect.StrType():
            return "a text"
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return "a number"
        case inspect.BoolType():
            return "true or false"
        case inspect.DateTimeType():
            return "a time like 2026-11-21T10:00:00Z"
        case inspect.DateType():
            return "a date like 2026-11-21"
        case inspect.UUIDType():
            return "a UUID"
        case inspect.EnumType() | inspect.LiteralType():
            return "one of " + ", ".join(json.dumps(choice) for choice in _choices(kind))
        case inspect.UnionType():
            members = (_wanted(member) for member in kind.types if not isinstance(member, inspect.NoneType))
            return " or ".join(dict.fromkeys(members))
        case _:
            return "a value of the documented type"
