"""Endpoints over HTTP: a business registers its door, proves that it is its own, keeps its secret; or has a feed."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace import access, errors, ids
from marketplace.db import session
from marketplace.directory import flow, store
from marketplace.directory.store import Endpoint
from marketplace.directory.wire import BUSINESS, business_of, configuration, reach_of, steward
from marketplace.faults import WORDS, Code, Fault
from marketplace.http import AnyRequest, Page, answer, page, page_cursor, page_limit, path_id, services
from marketplace.openapi import Doc, id_of, paged
from marketplace.problems import Problem
from marketplace.webhook.address import MAX_URL_LENGTH

PATH = "/v1/endpoints"
ONE = f"{PATH}/{{endpoint_id:str}}"


class NewEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/endpoints: a URL, or none for a feed; operators say for which business, and why."""

    kind: Literal["push", "feed"] = "push"
    url: Annotated[str, Meta(max_length=MAX_URL_LENGTH)] | None = None
    business_id: str | None = None
    reason: Annotated[str, Meta(max_length=500, pattern=WORDS)] | None = None


class EndpointSwitch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of PATCH /v1/endpoints/{id}."""

    state: Literal["active", "disabled"]


class ShownEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as its business sees it. `previous_secret_until`: how long the old secret signs as well."""

    id: str
    business_id: str
    kind: str
    url: str | None
    state: str
    created_at: datetime
    verified_at: datetime | None
    breaker_open_until: datetime | None
    previous_secret_until: datetime | None


class EndpointWithSecret(ShownEndpoint, frozen=True, kw_only=True):
    """The one answer that holds a signing secret: at its making or its rotation, never again."""

    secret: str


def _show(endpoint: Endpoint) -> ShownEndpoint:
    return ShownEndpoint(
        id=ids.encode("whe", endpoint.id),
        business_id=ids.encode("biz", endpoint.business_id),
        kind=endpoint.kind,
        url=endpoint.url,
        state=endpoint.state,
        created_at=endpoint.created_at,
        verified_at=endpoint.verified_at,
        breaker_open_until=endpoint.breaker_open_until,
        previous_secret_until=endpoint.previous_until,
    )


def _show_once(endpoint: Endpoint, secret: str) -> EndpointWithSecret:
    return EndpointWithSecret(**msgspec.structs.asdict(_show(endpoint)), secret=secret)


def _url_faults(wanted: NewEndpoint) -> tuple[Fault, ...]:
    if (wanted.kind == "push") == (wanted.url is not None):
        return ()
    code, detail = (
        (Code.field_missing, 'Give the URL of your server, or make a feed: {"kind": "feed"}.')
        if wanted.url is None
        else (Code.value_not_allowed, "Leave the URL out: a feed is read at /v1/feed.")
    )
    return (Fault(pointer="/url", code=code, detail=detail),)


@post(PATH, tags=["endpoints"], doc=Doc(body=NewEndpoint, answers={201: (EndpointWithSecret, ShownEndpoint)}))
async def create_endpoint(request: AnyRequest) -> Response[bytes]:
    """Registers a webhook's URL and shows its signing secret, this once; or makes a feed, which is read at /v1/feed."""
    caller = await steward(request)
    wanted = await configuration(request, NewEndpoint, _url_faults)
    if faults := _url_faults(wanted):
        raise errors.InvalidInput(faults)
    business_id = business_of(caller, wanted.business_id)
    found = services(request)
    if wanted.url is None:
        return answer(_show(await flow.create_feed(found.pool, caller.key_id, business_id)), 201)
    opened = access.opened_by(caller.key_id, caller.kind, caller.opened, wanted.reason)
    made = await flow.create_endpoint(
        found.pool, found.sealer, found.guard, caller.key_id, business_id, wanted.url, opened
    )
    return answer(_show_once(*made), 201)


@get(PATH, tags=["endpoints"], doc=Doc(answers={200: Page[ShownEndpoint]}, query=(*paged(id_of("whe")), BUSINESS)))
async def list_endpoints(request: AnyRequest) -> Response[bytes]:
    """Lists endpoints, newest first, without their secrets."""
    caller = await steward(request)
    limit, after = page_limit(request), page_cursor(request, "whe")
    reach = reach_of(caller, request.query_params.get("business_id"))
    async with session(services(request).pool) as connection:
        found = await store.list_endpoints(connection, reach, after, limit + 1)
    return page(found, limit, _show, lambda row: ids.encode("whe", row.id))


@get(ONE, tags=["endpoints"], doc=Doc(answers={200: ShownEndpoint}))
async def show_endpoint(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Shows one endpoint without its secret."""
    caller = await steward(request)
    async with session(services(request).pool) as connection:
        endpoint = await store.find_endpoint(connection, reach_of(caller), path_id("whe", endpoint_id))
    if endpoint is None:
        raise errors.NotFound(flow.NOT_THERE)
    return answer(_show(endpoint))


@post(f"{ONE}/verify", status_code=200, tags=["endpoints"], doc=Doc(answers={200: ShownEndpoint, 409: Problem}))
async def verify_endpoint(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Sends a signed challenge that the endpoint's server must return; then leads may be sent there."""
    caller = await steward(request)
    found, chosen = services(request), path_id("whe", endpoint_id)
    endpoint = await flow.verify_endpoint(found.pool, found.sealer, found.guard, caller, reach_of(caller), chosen)
    return answer(_show(endpoint))


@post(
    f"{ONE}/rotate-secret",
    status_code=200,
    tags=["endpoints"],
    doc=Doc(answers={200: EndpointWithSecret, 409: Problem}),
)
async def rotate_secret(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Makes a new signing secret, shown this once; the old one stays valid beside it for a day.

    To end a secret that leaked: rotate, then DELETE /v1/endpoints/{id}/previous-secret.
    """
    caller = await steward(request)
    found, chosen = services(request), path_id("whe", endpoint_id)
    return answer(_show_once(*await flow.rotate_secret(found.pool, found.sealer, caller, reach_of(caller), chosen)))


@delete(
    f"{ONE}/previous-secret", status_code=200, tags=["endpoints"], doc=Doc(answers={200: ShownEndpoint, 409: Problem})
)
async def end_previous_secret(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Ends the signing secret before the present one at once: for one that leaked, or that is not used any more."""
    caller = await steward(request)
    pool, chosen = services(request).pool, path_id("whe", endpoint_id)
    return answer(_show(await flow.end_previous_secret(pool, caller, reach_of(caller), chosen)))


@patch(ONE, tags=["endpoints"], doc=Doc(body=EndpointSwitch, answers={200: ShownEndpoint}))
async def switch_endpoint(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Switches an endpoint off, or on again; its breaker starts anew."""
    caller = await steward(request)
    wanted = await configuration(request, EndpointSwitch)
    pool, chosen = services(request).pool, path_id("whe", endpoint_id)
    return answer(_show(await flow.switch_endpoint(pool, caller, reach_of(caller), chosen, wanted.state)))


handlers = (
    create_endpoint,
    list_endpoints,
    show_endpoint,
    verify_endpoint,
    rotate_secret,
    end_previous_secret,
    switch_endpoint,
)
