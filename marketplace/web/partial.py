"""The readable part of a body that has faults, so that what is wrong with the rest is told in the same answer.

`marketplace.text.faults.read` finds what is wrong with a body's shape. What is wrong with its content is found by
rules that
take a whole Struct. Here such a Struct is made of the fields that can be read: a faulty field is left out, and where
the shape requires it, a stand-in takes its place. Faults that the rules find in a stand-in are dropped, and so are
those that depend on which of its choices a faulty field was meant to have: while the kind of a key is not known, nor is
whether its owner is missing.
"""

from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from marketplace.runtime import errors
from marketplace.text.faults import BoundedList, Fault, FaultCode, has_fault, inspected, parse_plainly

Shape = TypeVar("Shape", bound=msgspec.Struct)

_NIL: Final = "00000000-0000-0000-0000-000000000000"
_OMIT: Final = object()
"Says that a field is left out."
_TEXTS: Final = ("x", "xx", "xxx", "US", "USD", "2026-01-01")
"Stand-ins for texts: the first that the field's pattern and lengths allow."


def read_partly(raw: bytes, shape: type[Shape], choice: int = 0) -> Shape | None:
    """The fields that can be read as a `shape`; None where too little can, or the body is no JSON object at all.

    `choice` is the index of the value that stands in for a faulty one of several choices: 0 the first, -1 the last.
    At 0 a field with a default has that, at -1 another of its choices.
    """
    try:
        document = parse_plainly(raw)
        mended = _mend(document, inspected(shape), choice) if isinstance(document, dict) else _OMIT
        return None if mended is _OMIT else msgspec.convert(mended, shape)
    except (ValueError, RecursionError, _NoStandIn):
        return None


def add_content_faults(
    faults: Iterable[Fault], raw: bytes, shape: type[Shape], check: Callable[[Shape], Iterable[Fault]]
) -> tuple[Fault, ...]:
    """The faults of a shape, then those that `check` finds, or raises as InvalidInput, in what can be read of it."""
    first = tuple(faults)
    body = None if any(fault.unreadable for fault in first) else read_partly(raw, shape)
    if body is None:
        return first
    content, other = _run(check, body), read_partly(raw, shape, choice=-1)
    if other is not None and other != body:
        otherwise = {(fault.pointer, fault.code) for fault in _run(check, other)}
        content = tuple(fault for fault in content if (fault.pointer, fault.code) in otherwise)
    return merge(first, content)


def _run(check: Callable[[Shape], Iterable[Fault]], body: Shape) -> tuple[Fault, ...]:
    try:
        return tuple(check(body))
    except errors.InvalidInput as error:
        return tuple(error.faults)


def merge(faults: Iterable[Fault], content: Iterable[Fault]) -> tuple[Fault, ...]:
    """Faults of the shape, then those of the content that are about other fields."""
    first = tuple(faults)
    return tuple(BoundedList(chain(first, (fault for fault in content if not _stems_from(fault, first)))))


def _stems_from(fault: Fault, faults: tuple[Fault, ...]) -> bool:
    """Whether a content's fault is about a field that could not be read, or about one that was left out for it."""
    for cause in faults:
        if fault.pointer == cause.pointer or fault.pointer.startswith(f"{cause.pointer}/"):
            return True
        if cause.code != FaultCode.unknown_field and cause.pointer.startswith(f"{fault.pointer}/"):
            return True
    return False


class _NoStandIn(Exception):
    """No value is known that a required field would take."""


def _mend(value: Any, kind: inspect.Type, choice: int) -> Any:
    """The value without what is faulty in it; _OMIT where nothing of it can be read."""
    match kind:
        case inspect.StructType() if isinstance(value, dict):
            return _mend_object(value, kind, choice)
        case inspect.VarTupleType() | inspect.ListType() if isinstance(value, list):
            items = [_mend(item, kind.item_type, choice) for item in value[: kind.max_length]]
            items += [_OMIT] * ((kind.min_length or 0) - len(items))
            return [_stand_in(kind.item_type, choice) if item is _OMIT else item for item in items]
        case inspect.UnionType() if has_fault(value, kind):
            alternatives = (member for member in kind.types if isinstance(member, inspect.StructType))
            return next(
                (m for member in alternatives if (m := _mend_tagged(value, member, choice)) is not _OMIT), _OMIT
            )
        case inspect.DictType() if isinstance(value, dict) and has_fault(value, kind):
            kept = (item for item in value.items() if not has_fault(dict((item,)), kind))
            return dict(islice(kept, kind.max_length))
        case _:
            return _OMIT if has_fault(value, kind) else value


def _mend_tagged(value: Any, kind: inspect.StructType, choice: int) -> Any:
    is_meant = isinstance(value, dict) and (kind.tag_field is None or value.get(kind.tag_field) == kind.tag)
    return _mend_object(value, kind, choice) if is_meant else _OMIT


def _mend_object(value: dict[str, Any], kind: inspect.StructType, choice: int) -> Any:
    mended: dict[str, Any] = {} if kind.tag_field is None else {kind.tag_field: kind.tag}
    for field in kind.fields:
        name = field.encode_name
        item = _mend(value[name], field.type, choice) if name in value else _OMIT
        if item is _OMIT and field.required:
            item = _stand_in(field.type, choice)
        elif (
            item is _OMIT
            and choice
            and name in value
            and isinstance(field.type, inspect.EnumType | inspect.LiteralType)
        ):
            last = _stand_in(field.type, choice)
            item = _stand_in(field.type, 0) if last == field.default else last
        if item is not _OMIT:
            mended[name] = item
    return mended


def _stand_in(kind: inspect.Type, choice: int) -> Any:
    """Some value of this kind. Raises _NoStandIn."""
    match kind:
        case inspect.UnionType():
            is_optional = any(isinstance(each, inspect.NoneType) for each in kind.types)
            return None if is_optional else _stand_in(kind.types[0], choice)
        case inspect.StructType():
            return _mend_object({}, kind, choice)
        case inspect.VarTupleType() | inspect.ListType():
            return [_stand_in(kind.item_type, choice) for _ in range(kind.min_length or 0)]
        case inspect.DictType():
            return {}
        case inspect.EnumType():
            return tuple(kind.cls)[choice].value
        case inspect.LiteralType():
            return kind.values[choice]
        case inspect.BoolType():
            return False
        case inspect.DateTimeType():
            return "2026-01-01T00:00:00Z"
        case inspect.StrType() | inspect.DateType() | inspect.UUIDType():
            values: tuple[Any, ...] = (*_TEXTS, "x" * (getattr(kind, "min_length", None) or 1), _NIL)
        case inspect.IntType() | inspect.FloatType():
            values = (0, 1, kind.ge, kind.le)
        case _:
            values = ()
    for value in values:
        if value is not None and not has_fault(value, kind):
            return value
    raise _NoStandIn
