"""What a page's form sends, read into a Struct with every fault at once, each at its field."""

import re
from collections.abc import Awaitable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Response
from litestar.datastructures import UploadFile
from msgspec import inspect

from marketplace.portal.session import Viewer, demand_change, demand_own_page, demand_token, visitor
from marketplace.portal.store import Role
from marketplace.runtime import errors
from marketplace.security.auth import CallerKind
from marketplace.text.faults import BoundedList, Fault, FaultCode, read, text_fault
from marketplace.web.http import BODY_LIMIT, AnyRequest
from marketplace.web.problems import PROBLEMS

T = TypeVar("T", bound=msgspec.Struct)

MOST_FIELDS: Final = 400
DECIMAL: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{0,15})?|-?\.[0-9]{1,15}")
URLENCODED: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
FIELD = "csrf"

Given = Mapping[str, tuple[str, ...]]
"A form as it came: each field with all its values."


async def submitted(
    request: AnyRequest, shape: type[T], *kinds: CallerKind, role: Role = Role.member
) -> tuple[Viewer, T]:
    """A change asked for on one of our pages, by a member whose role goes as far as `role`.

    Raises what `visitor` raises, CrossSite, RoleMissing, OwnerSuspended, and InvalidInput with every fault at once.
    """
    viewer, given = await changing(request, *kinds, role=role)
    return viewer, fill(shape, given)


async def changing(
    request: AnyRequest, *kinds: CallerKind, role: Role = Role.member, most_bytes: int = BODY_LIMIT, verbatim: str = ""
) -> tuple[Viewer, Given]:
    """As `submitted`, with the fields as they came: for a page that shows its form again with what was typed.

    `verbatim` names a field that may hold any character, because the page answers to that very text.
    """
    viewer = await visitor(request, *kinds)
    demand_own_page(request)
    given = await fields(request, most_bytes, verbatim)
    demand_token(request, (given.get(FIELD) or ("",))[0])
    demand_change(viewer, role)
    return viewer, given


async def fields(request: AnyRequest, most_bytes: int = BODY_LIMIT, verbatim: str = "") -> Given:
    """Return the form's fields; only the one that `verbatim` names may hold control characters.

    Raises UnreadableBody, MediaTypeNotSupported, BodyTooLarge, and InvalidInput for control characters.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == MULTIPART:
        form = await request.form()
        return _plain(
            {name: tuple(one for one in form.getall(name) if isinstance(one, str)) for name in form}, verbatim
        )
    if kind != URLENCODED:
        raise errors.MediaTypeNotSupported("Send the form as a browser does.")
    raw = await request.body()
    if len(raw) > most_bytes:
        raise errors.BodyTooLarge(f"Send at most {most_bytes:,} bytes.")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        fault = Fault(pointer="", code=FaultCode.json_invalid, detail="The form cannot be read: send it again.")
        raise errors.UnreadableBody((fault,), fault.detail) from None
    found: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        found[name] = (*found.get(name, ()), value)
    return _plain(found, verbatim)


def _plain(given: Given, verbatim: str) -> Given:
    """Return the form if no field but `verbatim` has a control character. Raises InvalidInput naming each."""
    faults = BoundedList(
        fault
        for name, values in given.items()
        if name != verbatim
        for value in values
        if (fault := text_fault(value, name))
    )
    if len(faults):
        raise errors.InvalidInput(faults)
    return given


async def upload(request: AnyRequest, name: str, most_bytes: int) -> bytes:
    """The file in the form's field `name`. Raises InvalidInput for none, and for more than `most_bytes`."""
    form = await request.form()
    given = form.get(name)
    if not isinstance(given, UploadFile):
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code=FaultCode.field_missing, detail="Choose a file."),))
    content = await given.read(most_bytes + 1)
    if len(content) > most_bytes:
        detail = f"Choose a file of at most {most_bytes:,} bytes."
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code=FaultCode.too_long, detail=detail),))
    return content


def fill(shape: type[T], given: Given) -> T:
    """The fields as a `shape`: numbers and dates from their text, a box that is not ticked as false, nothing as None.

    A field that the shape does not have is ignored, as browsers add some. Raises InvalidInput.
    """
    document: dict[str, Any] = {}
    for field in msgspec.structs.fields(shape):
        value = _value(inspect.type_info(field.type), given.get(field.encode_name))
        if value is not msgspec.UNSET:
            document[field.encode_name] = value
    outcome = read(msgspec.json.encode(document), shape, maximum_keys=MOST_FIELDS)
    if isinstance(outcome, tuple):
        raise errors.InvalidInput(outcome)
    return outcome


def _members(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """Return the types that a value may have, without what is declared besides them."""
    if isinstance(kind, inspect.Metadata):
        return _members(kind.type)
    if isinstance(kind, inspect.UnionType):
        return tuple(member for each in kind.types for member in _members(each))
    return (kind,)


def _value(kind: inspect.Type, texts: tuple[str, ...] | None) -> Any:
    """One field's value as JSON has it; UNSET for a field that was not sent, or sent empty where nothing is allowed."""
    members = _members(kind)
    optional = any(isinstance(member, inspect.NoneType) for member in members)
    for member in members:
        if isinstance(member, inspect.VarTupleType | inspect.ListType):
            if texts is None and optional:
                return None
            return [_value(member.item_type, (text,)) for text in texts or () if text]
    if any(isinstance(member, inspect.BoolType) for member in members):
        return texts is not None and texts[-1] not in ("", "0", "false", "off")
    if texts is None:
        return None if optional else msgspec.UNSET
    text = texts[-1]
    if not text.strip() and not any(isinstance(member, inspect.StrType) for member in members):
        return None if optional else msgspec.UNSET
    if not text and optional:
        return None
    if any(isinstance(member, inspect.IntType) for member in members):
        plain = text.strip().replace(",", "")
        return int(plain) if plain.removeprefix("-").isdecimal() and plain.isascii() and len(plain) < 20 else text
    if any(isinstance(member, inspect.FloatType) for member in members):
        return float(text) if DECIMAL.fullmatch(text.strip()) else text
    return text


def told(error: errors.InvalidInput) -> dict[str, str]:
    """Return each faulty field's name with what to do about it: what a page shows beside the field."""
    return {fault.pointer.removeprefix("/"): fault.detail for fault in reversed(error.faults)}


def typed(given: Given) -> dict[str, str]:
    """Return what was typed, to be shown again; never a password."""
    return {name: texts[-1] for name, texts in given.items() if texts and "password" not in name and name != FIELD}


# Forms as a page shows them.


class FormField(msgspec.Struct, frozen=True, kw_only=True):
    """A field as a page shows it, from the same declaration by which it is read."""

    name: str
    label: str
    kind: str
    hint: str
    required: bool
    attributes: Mapping[str, object]


class ShownForm(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a form with their values, and the choices of those that are chosen from."""

    fields: tuple[FormField, ...]
    values: Mapping[str, object]
    options: Mapping[str, Sequence[tuple[str, str]]]


def show_form(
    shape: type[msgspec.Struct],
    values: Mapping[str, object] | None = None,
    options: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    **words: str,
) -> ShownForm:
    """Return a form for `ui.fields`: every field of `shape` that has a title.

    The title of a field is its label, the description its hint, and `extra` holds attributes of its input. Bounds, kind
    and whether it is required follow from its type. `words` stand in for the names in braces of labels.
    """
    fields = tuple(msgspec.structs.replace(field, label=field.label.format(**words)) for field in form_fields(shape))
    return ShownForm(fields=fields, values=values or {}, options=options or {})


@lru_cache
def form_fields(shape: type[msgspec.Struct]) -> tuple[FormField, ...]:
    """Return the fields of a form that a page shows, as they are declared."""
    fields = (_field(field) for field in msgspec.structs.fields(shape))
    return tuple(field for field in fields if field is not None)


def _field(field: msgspec.structs.FieldInfo) -> FormField | None:
    declared = inspect.type_info(field.type)
    parts = declared.types if isinstance(declared, inspect.UnionType) else (declared,)
    notes = next((part for part in parts if isinstance(part, inspect.Metadata)), None)
    schema = (notes.extra_json_schema if notes else None) or {}
    if "title" not in schema:
        return None
    members = _members(declared)
    kind = next(member for member in members if not isinstance(member, inspect.NoneType))
    attributes = {**_bounds(kind), **((notes.extra if notes else None) or {})}
    return FormField(
        name=field.encode_name,
        label=schema["title"],
        kind=str(attributes.pop("kind", _KINDS.get(type(kind), "text"))),
        hint=schema.get("description", ""),
        required=len(members) == 1 and field.default != "",
        attributes=attributes,
    )


_KINDS: Final[Mapping[type[inspect.Type], str]] = {
    inspect.IntType: "number",
    inspect.FloatType: "number",
    inspect.BoolType: "checkbox",
    inspect.DateType: "date",
    inspect.EnumType: "select",
    inspect.LiteralType: "select",
}


def _bounds(kind: inspect.Type) -> dict[str, object]:
    """Return the attributes of an input that keep what is typed within the bounds of its type."""
    bounds: dict[str, object] = {}
    if isinstance(kind, inspect.StrType):
        bounds = {"maxlength": kind.max_length}
    elif isinstance(kind, inspect.IntType | inspect.FloatType):
        bounds = {"min": kind.ge, "max": kind.le, "step": "any" if isinstance(kind, inspect.FloatType) else None}
    return {name: bound for name, bound in bounds.items() if bound is not None}


# Forms shown again.


class TypedForm(msgspec.Struct, frozen=True, kw_only=True):
    """A form that is shown again: its fields as they came, and what is wrong with each, or with the whole of it."""

    given: Given
    status: int
    faults: Mapping[str, str]
    wrong: str


async def show_again(
    request: AnyRequest,
    given: Given,
    error: errors.MarketplaceError | None,
    shown: Awaitable[Response[bytes]],
    *,
    faults: Mapping[str, str] | None = None,
) -> Response[bytes]:
    """Return the page that `shown` makes, with the form as it was typed and each fault of `error` beside its field.

    `faults` replaces those of the error where the form's fields have other names than the interface's.
    """
    if faults is None:
        faults = told(error) if isinstance(error, errors.InvalidInput) else {}
    wrong = error.detail if error and not faults else ""
    match error:
        case None:
            status = 200
        case errors.InvalidInput():  # an upload that is no file included
            status = 422
        case _:
            status = PROBLEMS[type(error)].status
    request.scope["state"]["typed_form"] = TypedForm(given=given, status=status, faults=faults, wrong=wrong)
    return await shown


def typed_form(request: AnyRequest) -> TypedForm | None:
    """Return the form that is shown again with this answer, if there is one."""
    state: dict[str, Any] = request.scope["state"]
    form: TypedForm | None = state.get("typed_form")
    return form


def given_again(request: AnyRequest) -> Given:
    """Return the fields of the form that is shown again; none on a page that was asked for."""
    form = typed_form(request)
    return form.given if form else {}
