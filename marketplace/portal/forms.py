"""Forms of the portal: read into a Struct with all faults at once, declared once for the page, and shown again."""

import re
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Response
from litestar.datastructures import UploadFile
from msgspec import Meta, inspect

from marketplace.portal.session import Viewer, demand_change, demand_own_page, demand_token, visitor
from marketplace.portal.store import Role
from marketplace.runtime import errors
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS, BoundedList, Fault, FaultCode, read, text_fault
from marketplace.web.http import BODY_LIMIT, AnyRequest
from marketplace.web.problems import PROBLEMS

T = TypeVar("T", bound=msgspec.Struct)

MOST_FIELDS: Final = 400
DECIMAL: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{0,15})?|-?\.[0-9]{1,15}")
CODES: Final = re.compile(r"[\s,;]+")
"Separators of codes in a field."
URLENCODED: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
FIELD = "csrf"

FormFields = Mapping[str, tuple[str, ...]]
"The fields of a form as the browser sent them: each name with all its values."


async def submitted(
    request: AnyRequest, shape: type[T], *kinds: CallerKind, role: Role = Role.member
) -> tuple[Viewer, T]:
    """Return the member who sent a form from one of our pages, who must have `role` or more, and the form as `shape`.

    Raises NotSignedIn, CrossSite, RoleMissing, OwnerSuspended, and InvalidInput with all faults at once.
    """
    viewer, form = await changing(request, *kinds, role=role)
    return viewer, fill(shape, form)


async def changing(
    request: AnyRequest, *kinds: CallerKind, role: Role = Role.member, most_bytes: int = BODY_LIMIT, verbatim: str = ""
) -> tuple[Viewer, FormFields]:
    """Return the member who sent a form, and its fields unread, for a page that shows the form again after a fault.

    `verbatim` names a field that may hold control characters. Raises what `submitted` raises.
    """
    viewer = await visitor(request, *kinds)
    demand_own_page(request)
    form = await fields(request, most_bytes, verbatim)
    demand_token(request, (form.get(FIELD) or ("",))[0])
    demand_change(viewer, role)
    return viewer, form


async def fields(request: AnyRequest, most_bytes: int = BODY_LIMIT, verbatim: str = "") -> FormFields:
    """Return the form's fields; only the one that `verbatim` names may hold control characters.

    Raises UnreadableBody, MediaTypeNotSupported, BodyTooLarge, and InvalidInput for control characters.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == MULTIPART:
        form = await request.form()
        texts = {name: tuple(value for value in form.getall(name) if isinstance(value, str)) for name in form}
        return _without_controls(texts, verbatim)
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
    values: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        values[name] = (*values.get(name, ()), value)
    return _without_controls(values, verbatim)


def _without_controls(form: FormFields, verbatim: str) -> FormFields:
    """Return the form. Raises InvalidInput for control characters in any field but `verbatim`."""
    faults = BoundedList(
        fault
        for name, values in form.items()
        if name != verbatim
        for value in values
        if (fault := text_fault(value, name))
    )
    if len(faults):
        raise errors.InvalidInput(faults)
    return form


async def upload(request: AnyRequest, name: str, most_bytes: int) -> bytes:
    """Return the content of the file in the field `name`. Raises InvalidInput if it is missing or too large."""
    form = await request.form()
    file = form.get(name)
    if not isinstance(file, UploadFile):
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code=FaultCode.field_missing, detail="Choose a file."),))
    content = await file.read(most_bytes + 1)
    if len(content) > most_bytes:
        detail = f"Choose a file of at most {most_bytes:,} bytes."
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code=FaultCode.too_long, detail=detail),))
    return content


def fill(shape: type[T], form: FormFields) -> T:
    """Return the form as a `shape`: numbers are read from text, an unticked box is false, an empty field is None.

    Fields that the shape does not have are ignored, because browsers add some. Raises InvalidInput with all faults.
    """
    document: dict[str, Any] = {}
    for field in msgspec.structs.fields(shape):
        value = _value(inspect.type_info(field.type), form.get(field.encode_name))
        if value is not msgspec.UNSET:
            document[field.encode_name] = value
    outcome = read(msgspec.json.encode(document), shape, maximum_keys=MOST_FIELDS)
    if isinstance(outcome, tuple):
        raise errors.InvalidInput(outcome)
    return outcome


def _members(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """Return the types that a value may have, without their annotations."""
    if isinstance(kind, inspect.Metadata):
        return _members(kind.type)
    if isinstance(kind, inspect.UnionType):
        return tuple(member for each in kind.types for member in _members(each))
    return (kind,)


def _value(kind: inspect.Type, texts: tuple[str, ...] | None) -> Any:
    """Return a field's value as JSON; UNSET if the field was not sent, or is empty and must not be."""
    members = _members(kind)
    kinds = {type(member) for member in members}
    optional = inspect.NoneType in kinds
    nothing = None if optional else msgspec.UNSET
    for member in members:
        if isinstance(member, inspect.VarTupleType | inspect.ListType):
            if texts is None and optional:
                return None
            return _items(member.item_type, texts or ())
    if inspect.BoolType in kinds:
        return texts is not None and texts[-1] not in ("", "0", "false", "off")
    if texts is None:
        return nothing
    text = texts[-1]
    if not text.strip() and inspect.StrType not in kinds:
        return nothing
    if not text and optional:
        return None
    return _number(text, kinds)


def _items(kind: inspect.Type, texts: tuple[str, ...]) -> list[Any]:
    return [_value(kind, (text,)) for text in texts if text]


def _number(text: str, kinds: set[type[inspect.Type]]) -> int | float | str:
    """Return the number in `text` if a field of these kinds has one, else the text itself."""
    if inspect.IntType in kinds:
        plain = text.strip().replace(",", "")
        whole = plain.removeprefix("-").isdecimal() and plain.isascii() and len(plain) < 20
        return int(plain) if whole else text
    if inspect.FloatType in kinds and DECIMAL.fullmatch(text.strip()):
        return float(text)
    return text


def split_codes(text: str | None) -> tuple[str, ...]:
    """Return the different codes in a field, which spaces, commas, semicolons or line ends separate."""
    return tuple(dict.fromkeys(code for code in CODES.split((text or "").strip()) if code))


def split_lines(text: str | None) -> tuple[str, ...]:
    """Return the different lines of a field, without empty ones."""
    return tuple(dict.fromkeys(line.strip() for line in (text or "").splitlines() if line.strip()))


def field_errors(error: errors.InvalidInput) -> dict[str, str]:
    """Return the sentence that a page shows beside each field with a fault, by the field's name."""
    return {fault.pointer.removeprefix("/"): fault.detail for fault in reversed(error.faults)}


def typed(form: FormFields) -> dict[str, str]:
    """Return the last value of each field, to show the form again; passwords are left out."""
    return {name: texts[-1] for name, texts in form.items() if texts and "password" not in name and name != FIELD}


# Forms on a page.


def label(title: str, hint: str = "", **attributes: object) -> Meta:
    """Return the declaration of a field that a page shows: its label, its hint and the attributes of its input.

    `kind` replaces the kind of input that follows from the type, `required` whether the field must be filled in.
    """
    return Meta(title=title, description=hint or None, extra=attributes or None)


Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=WORDS)]
"Reason for a change, which the audit trail keeps."
Amount = Annotated[str, Meta(max_length=20, extra={"inputmode": "decimal"})]
"Amount of money as people write it, such as `1,250.00`."
ZoneName = Annotated[str, Meta(min_length=1, max_length=64)]
"Name of a time zone, such as `America/Chicago`."


class ReasonForm(msgspec.Struct, frozen=True, kw_only=True):
    """Reason for a change that needs nothing else."""

    reason: Annotated[Reason, label("Reason", kind="textarea", rows=2)]


class FormField(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a form on a page, made from the declaration by which the field is read."""

    name: str
    label: str
    kind: str
    hint: str
    required: bool
    attributes: Mapping[str, object]


class ShownForm(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a form with their values, and the options of its selects."""

    fields: tuple[FormField, ...]
    values: Mapping[str, object]
    options: Mapping[str, Sequence[tuple[str, str]]]


def show_form(
    shape: type[msgspec.Struct],
    values: Mapping[str, object] | None = None,
    options: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    **words: str,
) -> ShownForm:
    """Return a form for `ui.fields`: every field of `shape` that has a `label`.

    Bounds, kind and whether a field is required follow from its type. `words` replace the names in braces in the labels
    and hints.
    """
    fields = tuple(
        msgspec.structs.replace(field, label=field.label.format(**words), hint=field.hint.format(**words))
        for field in form_fields(shape)
    )
    return ShownForm(fields=fields, values=values or {}, options=options or {})


@lru_cache
def form_fields(shape: type[msgspec.Struct]) -> tuple[FormField, ...]:
    """Return the fields of a form that have a label, in the order of their declaration."""
    fields = (_field(field) for field in msgspec.structs.fields(shape))
    return tuple(field for field in fields if field is not None)


def _field(field: msgspec.structs.FieldInfo) -> FormField | None:
    declared = inspect.type_info(field.type)
    title, hint, attributes = "", "", dict[str, Any]()
    for notes in _notes(declared):
        schema = notes.extra_json_schema or {}
        title, hint = schema.get("title", title), schema.get("description", hint)
        attributes |= notes.extra or {}
    if not title:
        return None
    members = _members(declared)
    kind = next(member for member in members if not isinstance(member, inspect.NoneType))
    attributes = {**_bounds(kind), **attributes}
    return FormField(
        name=field.encode_name,
        label=title,
        kind=attributes.pop("kind", _KINDS.get(type(kind), "text")),
        hint=hint,
        required=attributes.pop("required", len(members) == 1 and field.default != ""),
        attributes=attributes,
    )


def _notes(kind: inspect.Type) -> Iterator[inspect.Metadata]:
    """Yield the annotations of a type, those of its parts first."""
    if isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _notes(member)
    elif isinstance(kind, inspect.Metadata):
        yield from _notes(kind.type)
        yield kind


_KINDS: Final[Mapping[type[inspect.Type], str]] = {
    inspect.IntType: "number",
    inspect.FloatType: "number",
    inspect.BoolType: "checkbox",
    inspect.DateType: "date",
    inspect.EnumType: "select",
    inspect.LiteralType: "select",
}


def _bounds(kind: inspect.Type) -> dict[str, object]:
    """Return the attributes by which the browser holds an input to the bounds of its type."""
    bounds: dict[str, object] = {}
    if isinstance(kind, inspect.StrType):
        bounds = {"maxlength": kind.max_length}
    elif isinstance(kind, inspect.IntType | inspect.FloatType):
        step = "any" if isinstance(kind, inspect.FloatType) else None
        bounds = {"min": kind.ge, "max": kind.le, "step": step}
    return {name: bound for name, bound in bounds.items() if bound is not None}


# Forms shown again after a fault.


class TypedForm(msgspec.Struct, frozen=True, kw_only=True):
    """A form that is shown again: its fields as they were sent, the fault of each, and `wrong` for the whole form."""

    fields: FormFields
    status: int
    faults: Mapping[str, str]
    wrong: str


async def show_again(
    request: AnyRequest,
    form: FormFields,
    error: errors.MarketplaceError | None,
    answer: Awaitable[Response[bytes]],
    *,
    faults: Mapping[str, str] | None = None,
) -> Response[bytes]:
    """Return the page that `answer` makes, with the form as it was typed and each fault of `error` beside its field.

    `faults` replaces the faults of `error` if the fields of the form have other names than those of the API.
    """
    if faults is None:
        faults = field_errors(error) if isinstance(error, errors.InvalidInput) else {}
    wrong = error.detail if error and not faults else ""
    match error:
        case None:
            status = 200
        case errors.InvalidInput():  # an upload that is no file included
            status = 422
        case _:
            status = PROBLEMS[type(error)].status
    request.scope["state"]["typed_form"] = TypedForm(fields=form, status=status, faults=faults, wrong=wrong)
    return await answer


def typed_form(request: AnyRequest) -> TypedForm | None:
    """Return the form that this page shows again, or None."""
    state: dict[str, Any] = request.scope["state"]
    form: TypedForm | None = state.get("typed_form")
    return form


def typed_fields(request: AnyRequest) -> FormFields:
    """Return the fields of the form that this page shows again; empty if it shows none again."""
    form = typed_form(request)
    return form.fields if form else {}
