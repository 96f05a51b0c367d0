"""Shared parts of the directory's API: field types, strict reading of bodies, versions, and the caller's reach."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import Meta

from marketplace.directory.store import TenantScope
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind, Principal, Scope
from marketplace.text.faults import WORDS, Fault, FaultCode
from marketplace.text.values import Minor
from marketplace.web.api import BodyProvider, Injected, require
from marketplace.web.http import AnyRequest, Services, accept_any, parse, raw_body
from marketplace.web.openapi import QueryParameter, id_of

T = TypeVar("T", bound=msgspec.Struct)

BODY_LIMIT: Final = 1_048_576
"Limit of a body in bytes: 45,000 postal codes of up to 14 characters, with quotes and comma, take 630,000."
MAXIMUM_KEYS: Final = 2_000
"Limit of the keys in a body. Fifty need fields of six keys, or two hundred rules and fifty circles, stay below it."
LARGEST_VERSION: Final = 2**31 - 1

IF_MATCH: Final = QueryParameter(name="If-Match", about="The ETag that was read, instead of `version`.", where="header")
BUSINESS: Final = QueryParameter(name="business_id", about="The business, for operators.", schema=id_of("biz"))

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=WORDS)]
SLUG: Final = r"^[a-z][a-z0-9_-]{1,39}$"
Slug = Annotated[str, Meta(pattern=SLUG)]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
Version = Annotated[int, Meta(ge=1, le=LARGEST_VERSION)]
Mode = Literal["live", "test"]
OPERATOR: Final = require(Scope.operate, mode="live")
"Caller of a change that only operators make."
OPERATOR_READING: Final = require(Scope.operate)
STEWARD: Final = require(Scope.subscriptions_write, Scope.operate)
"Caller with access to subscriptions and endpoints: a business or an operator."
CreditMinor = Minor
"A credit limit in minor units, up to a thousand times the highest price of a lead."


async def configuration(request: AnyRequest, shape: type[T], check: Callable[[T], Iterable[Fault]] = accept_any) -> T:
    """Return the body as `shape`, with unknown fields forbidden at every level, so that a misspelt rule is not ignored.

    `check` returns faults of the content, as in `http.body`. Raises UnreadableBody, BodyTooLarge, or InvalidInput with
    every fault at once.
    """
    raw = await raw_body(request, BODY_LIMIT)
    parse(raw, closed(shape), cast(Any, check), maximum_keys=MAXIMUM_KEYS)
    return msgspec.json.decode(raw, type=shape)


def provide_configuration(shape: type[T], check: Callable[[T], Iterable[Fault]] = accept_any) -> BodyProvider:
    """Return the provider of a body, which raises the errors of `configuration` for `shape` and `check`."""

    async def read_configuration(request: AnyRequest, services: Injected[Services]) -> Any:
        return await configuration(request, shape, check)

    return BodyProvider(read_configuration, shape)


@cache
def closed(shape: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return a variant of `shape` that forbids unknown fields in it and in every Struct below it.

    The Structs themselves allow them, because they are also read from the database, where a newer process may have
    written a field that an older one does not know.
    """
    return msgspec.defstruct(
        shape.__name__, list(_fields(shape)), bases=(shape,), kw_only=True, forbid_unknown_fields=True
    )


def _fields(shape: type[msgspec.Struct]) -> Iterator[tuple[str, Any] | tuple[str, Any, Any]]:
    """Yield the fields of a Struct for `defstruct`, with closed types and their defaults."""
    for field in msgspec.structs.fields(shape):
        kind = _closed_kind(field.type)
        if field.required:
            yield field.name, kind
        elif field.default_factory is not msgspec.NODEFAULT:
            yield field.name, kind, msgspec.field(default_factory=field.default_factory)
        else:
            yield field.name, kind, field.default


def _closed_kind(kind: Any) -> Any:
    """Return a type with every Struct in it closed."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return closed(kind)
    origin, members = get_origin(kind), tuple(_closed_kind(member) for member in get_args(kind))
    if origin in (None, Annotated, Literal):
        return kind
    return reduce(or_, members) if origin in (Union, UnionType) else origin[members]


_ETAG: Final = re.compile(r'(?:W/)?"?([0-9]{1,9})"?')


def path_slug(text: str) -> str:
    """Return the slug in a path. Raises NotFound for a malformed one, with the same text as for an unknown one."""
    if not re.fullmatch(SLUG, text):
        raise errors.NotFound("There is no vertical with this slug.")
    return text


def expected_version(request: AnyRequest, stated: int | None) -> int:
    """Return the version that the caller wants to replace, from the body or from If-Match. Raises InvalidInput."""
    header = request.headers.get("if-match")
    if header is None and stated is None:
        raise fault("/version", FaultCode.field_missing, "Send the version that you read, as version or as If-Match.")
    if header is None:
        return stated or 0
    tag = _ETAG.fullmatch(header)
    if tag is None or stated not in (None, int(tag[1])):
        detail = "Send the ETag that you read as If-Match, unchanged, and no other version beside it."
        raise fault("/version", FaultCode.value_not_allowed, detail)
    return int(tag[1])


def etag(version: int) -> dict[str, str]:
    """Return the ETag header of a version, which the caller sends back as If-Match."""
    return {"ETag": f'"{version}"'}


def fault(pointer: str, code: str, detail: str) -> errors.InvalidInput:
    """Return an InvalidInput error with one fault."""
    return errors.InvalidInput((Fault(pointer=pointer, code=code, detail=detail),))


# The caller and its reach


def reach_of(caller: Principal, business_id: str | None = None) -> TenantScope:
    """Return the rows that a caller may access.

    A business accesses its own in the mode of its key. An operator accesses those of all businesses, or of
    `business_id`: of both modes with a live key, of test mode with a test key. Raises NotFound for a business that is
    not the caller's.
    """
    named = ids.decode("biz", business_id) if business_id is not None else None
    own = None if caller.kind is CallerKind.operator else caller.owner
    if business_id is not None and (named is None or own not in (None, named)):
        raise errors.NotFound("There is no such business, or it is not yours.")
    sees_all_modes = own is None and caller.mode == "live"
    mode = None if sees_all_modes else caller.mode
    return TenantScope(business_id=own or named, mode=mode)


def business_of(caller: Principal, stated: str | None) -> UUID:
    """Return the business of a request: the caller's own, or the one that an operator states.

    Raises InvalidInput if an operator states none, and NotFound for a business that is not the caller's.
    """
    business_id = reach_of(caller, stated).business_id
    if business_id is None:
        raise fault("/business_id", FaultCode.field_missing, "Send the business_id of the business.")
    return business_id


def mode_of(caller: Principal, stated: Mode | None) -> str:
    """Return the mode of a new row: that of the key; a live operator may state either mode. Raises KeyWrongMode."""
    if stated is not None and (caller.kind, caller.mode) != (CallerKind.operator, "live"):
        caller.demand_mode(stated)
    return stated or caller.mode
