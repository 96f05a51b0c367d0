"""Shared parts of JSON routes: services, the authenticated caller, reading bodies and lists, writing answers."""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Request, Response
from litestar.exceptions import InternalServerException

from marketplace.database.db import Pool
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.queue import Notifier
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal, Scope, authenticate
from marketplace.security.sealing import Sealer
from marketplace.text.faults import MAXIMUM_KEYS, BoundedList, Fault, FaultCode, read, text_fault
from marketplace.text.spreadsheet import as_csv
from marketplace.text.values import read_count
from marketplace.web.connections import source_of
from marketplace.web.limiting import Limiter, RateBudget, RatePolicy
from marketplace.web.partial import add_content_faults
from marketplace.webhook.address import AddressRules

T = TypeVar("T", bound=msgspec.Struct)
Shown = TypeVar("Shown")
AnyRequest = Request[Any, Any, Any]

BODY_LIMIT: Final = 65_536
"Bytes: an inquiry with fifty touches and a long consent text takes under 20,000."
JSON: Final = "application/json"
KEY_CHARACTERS: Final = 255
MOST_RANGES: Final = 100
"Entries of an Accept header that are read; a browser sends ten."
QUALITY: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
PAGE_LIMIT: Final = 200
PAGE_USUAL: Final = 50


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the api process shares between requests; made once in app.py."""

    settings: Settings
    pool: Pool
    reports: Pool
    sealer: Sealer
    catalog: Catalog
    notifier: Notifier
    guard: AddressRules
    limiter: Limiter


def services(request: AnyRequest) -> Services:
    """Return the services of the application."""
    shared: Services = request.app.state.services
    return shared


async def demand_plain_query(request: AnyRequest) -> None:
    """Raise InvalidInput for a control character in a query parameter; runs before every handler."""
    if b"%" in request.scope["query_string"]:
        faults = BoundedList(
            fault for name, value in request.query_params.multi_items() if (fault := text_fault(str(value), name))
        )
        if len(faults):
            raise errors.InvalidInput(faults)


async def principal(request: AnyRequest, *scopes: Scope, even_suspended: bool = False) -> Principal:
    """Return the caller, who must have one of `scopes` (any key if none is named) and not be suspended.

    Raises the errors of auth.py, OwnerSuspended and RateLimited.
    """
    shared = services(request)
    try:
        caller = await authenticate(shared.pool, shared.sealer, request.headers.get("authorization"), clock.now())
    except errors.NotAuthenticated:
        await count_failure(request)
        raise
    request.scope["state"]["key_id"] = caller.key_id
    await count(request, _policy(request, caller), caller.key_id)
    caller.demand(*scopes)
    if caller.owner_state not in ("active",) and not even_suspended:
        raise errors.OwnerSuspended("This account is suspended. Ask the operator of the marketplace why.")
    return caller


def stated_key_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the public id in the key of a request with these headers, which is not checked; empty if there is none."""
    value = next((value for name, value in headers if name == b"authorization"), b"")
    parts = value.decode("latin-1").split("_", 3)
    return parts[2] if len(parts) == 4 else ""


async def count_failure(request: AnyRequest) -> None:
    """Count a call from this address that was not authenticated. Raises RateLimited."""
    failures = RatePolicy(budget=RateBudget.failures, quota=services(request).settings.failures_per_minute)
    await count(request, failures, address_name(request))


def _policy(request: AnyRequest, caller: Principal) -> RatePolicy:
    """Return the budget and quota of this call."""
    settings = services(request).settings
    if caller.kind is CallerKind.provider and request.method == "POST":
        return RatePolicy(
            budget=RateBudget.submissions, quota=caller.rate_per_minute or settings.submissions_per_minute
        )
    return RatePolicy(budget=RateBudget.calls, quota=caller.rate_per_minute or settings.rate_per_minute)


def address_name(request: AnyRequest) -> str:
    """Return a keyed hash of the caller's address, or of its /64 network for IPv6.

    Only calls without a valid key are counted by it, so that a neighbour cannot use up the quota of a key.
    """
    host = request.client.host if request.client else ""
    return services(request).sealer.keyed_hash("address", source_of(host)).hex()[:32]


async def count(request: AnyRequest, policy: RatePolicy, name: str) -> None:
    """Count a request for the answer's RateLimit headers. Raises RateLimited when the quota is used up."""
    standing = await services(request).limiter.count(policy, name)
    request.scope["state"]["standing"] = standing
    if not standing.allowed:
        words = f"At most {policy.quota:,} {policy.budget} in a minute. Wait for {standing.reset_s} seconds."
        raise errors.RateLimited(words, standing.reset_s)


async def raw_body(request: AnyRequest, limit: int = BODY_LIMIT, media_type: str = JSON) -> bytes:
    """Return the bytes of the body.

    Raises MediaTypeNotSupported and ContentEncodingNotSupported before reading it, BodyTooLarge and BodyIncomplete.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise errors.ContentEncodingNotSupported("Send the body as it is, without Content-Encoding.")
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != media_type:
        what = "JSON" if media_type == JSON else media_type.partition("/")[2].upper()
        raise errors.MediaTypeNotSupported(f"Send {what} with Content-Type: {media_type}.")
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > limit:
                raise errors.BodyTooLarge(f"Send at most {limit:,} bytes.")
    except InternalServerException as error:  # the framework's error for a caller who closed the connection
        raise errors.BodyIncomplete("The connection ended before the body did. Send the same call again.") from error
    return bytes(raw)


def accept_any(body: Any) -> Iterable[Fault]:
    """Return no faults: the check of a body that has no rules beyond its shape."""
    return ()


async def body(request: AnyRequest, shape: type[T], check: Callable[[T], Iterable[Fault]] = accept_any) -> T:
    """Return the body as `shape`. Raises UnreadableBody or InvalidInput with all faults.

    `check` yields, or raises as InvalidInput, the faults of the content. It runs when the shape has faults, so that
    both are reported together; a body without faults is checked by its use case.
    """
    return parse(await raw_body(request), shape, check)


def parse(
    raw: bytes, shape: type[T], check: Callable[[T], Iterable[Fault]] = accept_any, *, maximum_keys: int = MAXIMUM_KEYS
) -> T:
    """Return bytes as `shape`, like `body`."""
    outcome = read(raw, shape, maximum_keys=maximum_keys)
    if isinstance(outcome, tuple):
        raise refusal(add_content_faults(outcome, raw, shape, check))
    return outcome


def refusal(faults: tuple[Fault, ...]) -> errors.InvalidInput:
    """Return the error for these faults: UnreadableBody when one concerns the whole body, else InvalidInput."""
    whole = any(fault.unreadable for fault in faults)
    return errors.UnreadableBody(faults, faults[0].detail) if whole else errors.InvalidInput(faults)


def idempotency_key(request: AnyRequest) -> str | None:
    """Return the Idempotency-Key header, or None. Raises IdempotencyKeyInvalid."""
    keys = request.headers.getall("idempotency-key", [])
    if not keys:
        return None
    key: str = keys[0]
    if len(keys) > 1 or not 1 <= len(key) <= KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        raise errors.IdempotencyKeyInvalid(
            f"Send one Idempotency-Key of 1 to {KEY_CHARACTERS} printable ASCII characters."
        )
    return key


def path_id(kind: str, text: str) -> UUID:
    """Return the id in a path. Raises NotFound for a malformed one, as for one that does not exist."""
    value = ids.decode(kind, text)
    if value is None:
        raise errors.NotFound("There is nothing with this id, or it is not yours.")
    return value


def page_limit(request: AnyRequest) -> int:
    """Return `?limit=`, 1 to PAGE_LIMIT, PAGE_USUAL without it. Raises InvalidInput."""
    limit = read_count(request.query_params.get("limit", str(PAGE_USUAL)), 1, PAGE_LIMIT)
    if limit is None:
        raise errors.InvalidInput(
            (Fault(pointer="/limit", code="limit_max_200", detail="Give a limit from 1 to 200."),)
        )
    return limit


def page_cursor(request: AnyRequest, kind: str) -> UUID | None:
    """Return `?cursor=`, the last id of the page before, or None. Raises InvalidInput."""
    text = request.query_params.get("cursor")
    if text is None:
        return None
    value = ids.decode(kind, text)
    if value is None:
        raise errors.InvalidInput(
            (Fault(pointer="/cursor", code="cursor_invalid", detail="Send next_cursor of the page before, unchanged."),)
        )
    return value


class Page(msgspec.Struct, Generic[Shown], frozen=True, kw_only=True):
    """One page of a list; `next_cursor` requests the next."""

    data: tuple[Shown, ...]
    next_cursor: str | None = None
    has_more: bool = False


def wants_csv(request: AnyRequest) -> bool:
    """Return whether CSV is requested, by `?format=csv` or by accepting `text/csv`. Raises InvalidInput."""
    text = request.query_params.get("format")
    if text not in (None, "csv"):
        detail = "Ask for format=csv, or leave it out and get JSON."
        raise errors.InvalidInput((Fault(pointer="/format", code=FaultCode.value_not_allowed, detail=detail),))
    return text == "csv" or preferred(request, "accept", (JSON, "text/csv")) == "text/csv"


def preferred(request: AnyRequest, header: str, offered: tuple[str, ...]) -> str | None:
    """Return the one of `offered` that an Accept header prefers (RFC 9110, 12.5), or None when it accepts none.

    Among equal qualities the one that the header names more exactly is preferred, then the one it names first. Without
    a header, the first of `offered`. Entries that cannot be read are skipped.
    """
    entries = [entry for line in request.headers.getall(header, []) for entry in line.lower().split(",")]
    ranges = [_range(entry) for entry in entries[:MOST_RANGES] if entry.strip()]
    if not ranges:
        return offered[0]
    best: tuple[float, int, int] = (0.0, 0, 0)
    preferred_name = None
    for name in offered:
        matches = [
            (exactness, quality, -place)
            for place, (pattern, quality) in enumerate(ranges)
            if (exactness := _exactness(pattern, name))
        ]
        exactness, quality, place = max(matches, default=(0, 0.0, 0))
        if quality > 0 and (quality, exactness, place) > best:
            best, preferred_name = (quality, exactness, place), name
    return preferred_name


def _range(entry: str) -> tuple[str, float]:
    """Return the name in an entry and its quality: 1 by default, 0 when it cannot be read."""
    name, *parameters = (part.strip() for part in entry.split(";"))
    stated = [text.partition("=")[2].strip() for text in parameters if text.partition("=")[0].strip() == "q"]
    if not stated:
        return name, 1.0
    quality = float(stated[0]) if QUALITY.fullmatch(stated[0]) else 0.0
    return name, quality


def _exactness(pattern: str, name: str) -> int:
    """Return how exactly a range names a media type or coding: 3 by name, 2 by type, 1 as anything, 0 not at all."""
    if pattern == name:
        return 3
    if pattern.endswith("/*") and name.startswith(pattern[:-1]):
        return 2
    return 1 if pattern in ("*/*", "*") else 0


async def csv_page(
    request: AnyRequest,
    rows: Sequence[T],
    limit: int,
    show: Callable[[T], Any],
    cursor: Callable[[T], str],
    columns: tuple[str, ...],
    name: str,
) -> Response[bytes]:
    """Return the answer for a list as the file `name`.csv, written in a thread; the Link header has the next page."""
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}.csv"'}
    if len(rows) > limit:
        query = urlencode({**request.query_params.dict(), "cursor": [cursor(rows[limit - 1])]}, doseq=True)
        headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    content = await asyncio.to_thread(lambda: as_csv(map(show, rows[:limit]), columns).encode())
    return Response(content, media_type="text/csv", headers=headers)


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """Return a JSON answer that must not be cached."""
    return Response(
        msgspec.json.encode(content),
        status_code=status,
        media_type=JSON,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
