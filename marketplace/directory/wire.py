"""What all bodies of the directory share: field types, a reading without unknown fields, versions, and whose it is."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import Meta

from marketplace import errors, ids
from marketplace.auth import Kind, Principal, Scope
from marketplace.directory.store import Reach
from marketplace.faults import WORDS, Code, Fault
from marketplace.http import AnyRequest, parse, principal, raw_body
from marketplace.openapi import Query, id_of
from marketplace.values import Minor

T = TypeVar("T", bound=msgspec.Struct)

BODY_LIMIT: Final = 1_048_576
"Bytes, where a list may be long: 45,000 postal codes of up to 14 characters, quotes and comma included, take 630,000."
MAXIMUM_KEYS: Final = 2_000
"Fifty need fields of six keys, or two hundred rules and fifty circles, stay below this."
LARGEST_VERSION: Final = 2**31 - 1

IF_MATCH: Final = Query(name="If-Match", about="The ETag that was read, instead of `version`.", where="header")
BUSINESS: Final = Query(name="business_id", about="Which business is meant; for operators.", schema=id_of("biz"))

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=WORDS)]
SLUG: Final = r"^[a-z][a-z0-9_-]{1,39}$"
Slug = Annotated[str, Meta(pattern=SLUG)]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
Version = Annotated[int, Meta(ge=1, le=LARGEST_VERSION)]
Mode = Literal["live", "test"]
CreditMinor = Minor
"A thousand times the highest price that a lead may have."


def _no_check(body: Any) -> Iterable[Fault]:
    return ()


async def configuration(request: AnyRequest, shape: type[T], check: Callable[[T], Iterable[Fault]] = _no_check) -> T:
    """The body as `shape`, no unknown field anywhere in it: a rule with a typing error must not pass for no rule.

    Raises UnreadableBody, BodyTooLarge or InvalidInput with every fault at once; `check` is as in `http.body`.
    """
    raw = await raw_body(request, BODY_LIMIT)
    parse(raw, closed(shape), cast(Any, check), maximum_keys=MAXIMUM_KEYS)
    return msgspec.json.decode(raw, type=shape)


@cache
def closed(shape: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """`shape` with unknown fields forbidden in it and in every Struct below it.

    The rules' own Structs are read from storage as well, where an older process may meet a newer field.
    """
    return msgspec.defstruct(
        shape.__name__, list(_fields(shape)), bases=(shape,), kw_only=True, forbid_unknown_fields=True
    )


def _fields(shape: type[msgspec.Struct]) -> Iterator[tuple[str, Any] | tuple[str, Any, Any]]:
    for field in msgspec.structs.fields(shape):
        kind = _closed_kind(field.type)
        if field.required:
            yield field.name, kind
        elif field.default_factory is not msgspec.NODEFAULT:
            yield field.name, kind, msgspec.field(default_factory=field.default_factory)
        else:
            yield field.name, kind, field.default


def _closed_kind(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return closed(kind)
    origin, members = get_origin(kind), tuple(_closed_kind(member) for member in get_args(kind))
    if origin in (None, Annotated, Literal):
        return kind
    return reduce(or_, members) if origin in (Union, UnionType) else origin[members]


_ETAG: Final = re.compile(r'(?:W/)?"?([0-9]{1,9})"?')


def path_slug(text: str) -> str:
    """The slug in a path. Raises NotFound for anything that is not one, exactly as for one that does not exist."""
    if not re.fullmatch(SLUG, text):
        raise errors.NotFound("There is no vertical with this slug.")
    return text


def expected_version(request: AnyRequest, stated: int | None) -> int:
    """The version that the caller read and means to replace: in the body, or as If-Match. Raises InvalidInput."""
    header = request.headers.get("if-match")
    if header is None and stated is None:
        raise fault("/version", Code.field_missing, "Send the version that you read, as version or as If-Match.")
    if header is None:
        return stated or 0
    tag = _ETAG.fullmatch(header)
    if tag is None or stated not in (None, int(tag[1])):
        detail = "Send the ETag that you read as If-Match, unchanged, and no other version beside it."
        raise fault("/version", Code.value_not_allowed, detail)
    return int(tag[1])


def etag(version: int) -> dict[str, str]:
    """The header that If-Match takes back."""
    return {"ETag": f'"{version}"'}


def fault(pointer: str, code: str, detail: str) -> errors.InvalidInput:
    """The error for one fault."""
    return errors.InvalidInput((Fault(pointer=pointer, code=code, detail=detail),))


# Who calls, and whose things they may touch.


async def operator(request: AnyRequest, *, changes: bool = True) -> Principal:
    """An operator. What changes the marketplace itself takes a live key: there is only one marketplace."""
    caller = await principal(request, Scope.operate)
    if changes:
        caller.demand_mode("live")
    return caller


async def steward(request: AnyRequest) -> Principal:
    """Whoever may keep subscriptions and endpoints: their business, or an operator."""
    return await principal(request, Scope.subscriptions_write, Scope.operate)


def reach_of(caller: Principal, business_id: str | None = None) -> Reach:
    """A business reaches its own, in the mode of its key; an operator all, or with a test key all that is test.

    `business_id` narrows an operator's reach. Raises NotFound for a business that is not the caller's.
    """
    named = ids.decode("biz", business_id) if business_id is not None else None
    own = None if caller.kind is Kind.operator else caller.owner
    if business_id is not None and (named is None or own not in (None, named)):
        raise errors.NotFound("There is no such business, or it is not yours.")
    sees_all_modes = own is None and caller.mode == "live"
    return Reach(business_id=own or named, mode=None if sees_all_modes else caller.mode)


def business_of(caller: Principal, stated: str | None) -> UUID:
    """The business meant by a request: the caller's own, or the one that an operator names.

    Raises InvalidInput where an operator names none, and NotFound for a business that is not the caller's.
    """
    chosen = reach_of(caller, stated).business_id
    if chosen is None:
        raise fault("/business_id", Code.field_missing, "Say which business is meant: send its business_id.")
    return chosen


def mode_of(caller: Principal, stated: Mode | None) -> str:
    """The mode of what is being made: the key's own, save that a live operator may make both. Raises KeyWrongMode."""
    if stated is not None and (caller.kind, caller.mode) != (Kind.operator, "live"):
        caller.demand_mode(stated)
    return stated or caller.mode
