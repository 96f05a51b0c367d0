"""Check of the content of a body that already has faults of its shape, so that all are reported together.

`marketplace.text.faults.read` finds faults of the shape. Faults of the content are found by rules that take a whole
Struct.
Here such a Struct is made of the readable fields: a faulty field is left out, or replaced by a stand-in if the shape
requires it. Faults that the rules find in a stand-in are dropped. So are those that depend on the value of a faulty
field: while the kind of a key is unknown, its owner cannot be called missing.
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
"Marker of a field that is left out."
_TEXTS: Final = ("x", "xx", "xxx", "US", "USD", "2026-01-01")
"Stand-ins for texts; the first one is used that the pattern and lengths of the field allow."


def read_partly(raw: bytes, shape: type[Shape], choice: int = 0) -> Shape | None:
    """Return the readable fields as a `shape`; None when too little is readable or the body is no JSON object.

    `choice` selects the stand-in of a faulty field with several possible values: 0 the first, -1 the last. With 0 a
    field with a default gets the default, with -1 another value.
    """
    try:
        document = parse_plainly(raw)
        readable = _keep_readable(document, inspected(shape), choice) if isinstance(document, dict) else _OMIT
        return None if readable is _OMIT else msgspec.convert(readable, shape)
    except (ValueError, RecursionError, _NoStandIn):
        return None


def add_content_faults(
    faults: Iterable[Fault], raw: bytes, shape: type[Shape], check: Callable[[Shape], Iterable[Fault]]
) -> tuple[Fault, ...]:
    """Return the faults of a shape, then those that `check` yields or raises as InvalidInput for its readable part."""
    first = tuple(faults)
    body = None if any(fault.unreadable for fault in first) else read_partly(raw, shape)
    if body is None:
        return first
    content, alternative = _run(check, body), read_partly(raw, shape, choice=-1)
    if alternative is not None and alternative != body:
        independent = {(fault.pointer, fault.code) for fault in _run(check, alternative)}
        content = tuple(fault for fault in content if (fault.pointer, fault.code) in independent)
    return merge(first, content)


def _run(check: Callable[[Shape], Iterable[Fault]], body: Shape) -> tuple[Fault, ...]:
    """Return the faults that `check` yields or raises."""
    try:
        return tuple(check(body))
    except errors.InvalidInput as error:
        return tuple(error.faults)


def merge(faults: Iterable[Fault], content: Iterable[Fault]) -> tuple[Fault, ...]:
    """Return the faults of the shape, then those faults of the content that concern other fields."""
    first = tuple(faults)
    return tuple(BoundedList(chain(first, (fault for fault in content if not _stems_from(fault, first)))))


def _stems_from(fault: Fault, faults: tuple[Fault, ...]) -> bool:
    """Return whether a fault of the content concerns an unreadable field, or a parent of one."""
    for cause in faults:
        if fault.pointer == cause.pointer or fault.pointer.startswith(f"{cause.pointer}/"):
            return True
        if cause.code != FaultCode.unknown_field and cause.pointer.startswith(f"{fault.pointer}/"):
            return True
    return False


class _NoStandIn(Exception):
    """Raised when no valid value is known for a required field."""


def _keep_readable(value: Any, kind: inspect.Type, choice: int) -> Any:
    """Return the value without its faulty parts; _OMIT when nothing of it is readable."""
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        return _keep_fields(value, kind, choice)
    if isinstance(kind, inspect.VarTupleType | inspect.ListType) and isinstance(value, list):
        return _keep_items(value, kind, choice)
    if not has_fault(value, kind):
        return value
    if isinstance(kind, inspect.UnionType):
        return _keep_alternative(value, kind, choice)
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        readable = (item for item in value.items() if not has_fault(dict((item,)), kind))
        return dict(islice(readable, kind.max_length))
    return _OMIT


def _keep_items(value: list[Any], kind: inspect.VarTupleType | inspect.ListType, choice: int) -> list[Any]:
    """Return the items of a list, with stand-ins for unreadable ones and for those that its least length requires."""
    items = [_keep_readable(item, kind.item_type, choice) for item in value[: kind.max_length]]
    items += [_OMIT] * ((kind.min_length or 0) - len(items))
    return [_stand_in(kind.item_type, choice) if item is _OMIT else item for item in items]


def _keep_alternative(value: Any, kind: inspect.UnionType, choice: int) -> Any:
    """Return the readable part of an object as the alternative of a union that its tag names, or _OMIT."""
    for member in kind.types:
        if isinstance(member, inspect.StructType) and _is_meant(value, member):
            return _keep_fields(value, member, choice)
    return _OMIT


def _is_meant(value: Any, kind: inspect.StructType) -> bool:
    return isinstance(value, dict) and (kind.tag_field is None or value.get(kind.tag_field) == kind.tag)


def _keep_fields(value: dict[str, Any], kind: inspect.StructType, choice: int) -> dict[str, Any]:
    """Return the readable fields of an object, with stand-ins for required ones."""
    readable: dict[str, Any] = {} if kind.tag_field is None else {kind.tag_field: kind.tag}
    for field in kind.fields:
        name = field.encode_name
        item = _keep_readable(value[name], field.type, choice) if name in value else _OMIT
        if item is _OMIT and field.required:
            item = _stand_in(field.type, choice)
        elif item is _OMIT and choice and name in value:
            item = _other_choice(field, choice)
        if item is not _OMIT:
            readable[name] = item
    return readable


def _other_choice(field: inspect.Field, choice: int) -> Any:
    """Return a value of an enumeration that is not the default of the field; _OMIT for a field of another type."""
    if not isinstance(field.type, inspect.EnumType | inspect.LiteralType):
        return _OMIT
    last = _stand_in(field.type, choice)
    return _stand_in(field.type, 0) if last == field.default else last


def _stand_in(kind: inspect.Type, choice: int) -> Any:
    """Return a valid value of this type. Raises _NoStandIn."""
    match kind:
        case inspect.UnionType():
            is_optional = any(isinstance(each, inspect.NoneType) for each in kind.types)
            return None if is_optional else _stand_in(kind.types[0], choice)
        case inspect.StructType():
            return _keep_fields({}, kind, choice)
        case inspect.VarTupleType() | inspect.ListType():
            return [_stand_in(kind.item_type, choice) for _ in range(kind.min_length or 0)]
        case inspect.DictType():
            return {}
        case inspect.EnumType():
            return tuple(kind.cls)[choice].value
        case inspect.LiteralType():
            return kind.values[choice]
    for value in _plain_stand_ins(kind):
        if value is not None and not has_fault(value, kind):
            return value
    raise _NoStandIn


def _plain_stand_ins(kind: inspect.Type) -> tuple[Any, ...]:
    """Return possible values of a plain type, of which its limits allow some."""
    match kind:
        case inspect.BoolType():
            return (False,)
        case inspect.DateTimeType():
            return ("2026-01-01T00:00:00Z",)
        case inspect.StrType() | inspect.DateType() | inspect.UUIDType():
            return (*_TEXTS, "x" * (getattr(kind, "min_length", None) or 1), _NIL)
        case inspect.IntType() | inspect.FloatType():
            return (0, 1, kind.ge, kind.le)
        case _:
            return ()
