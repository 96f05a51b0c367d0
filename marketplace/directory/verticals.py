"""HTTP API of verticals: operators write them, every key reads their questions, providers read the posting spec."""

from typing import Any

import msgspec
from litestar import Response, get, post, put
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.checks import vertical_faults
from marketplace.directory.spec import PostingSpec, posting_spec
from marketplace.directory.wire import (
    BODY_LIMIT,
    IF_MATCH,
    Slug,
    Version,
    configuration,
    etag,
    expected_version,
    operator,
    path_slug,
)
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind, Scope
from marketplace.text.faults import Fault
from marketplace.web.http import AnyRequest, Page, answer, page, page_cursor, page_limit, principal, services
from marketplace.web.openapi import RouteDoc, id_of, paged
from routing.inquiry import NeedField
from routing.vertical import VerticalDefinition

PATH = "/v1/verticals"


class NewVertical(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/verticals."""

    slug: Slug
    definition: VerticalDefinition


class VerticalChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /v1/verticals/{slug}. `version` is the one that was read, unless If-Match states it."""

    definition: VerticalDefinition
    version: Version | None = None


class OperatorVertical(msgspec.Struct, frozen=True, kw_only=True):
    """A vertical as an operator sees it, with all its rules."""

    id: str
    slug: str
    version: int
    definition: VerticalDefinition


class PublicVertical(msgspec.Struct, frozen=True, kw_only=True):
    """A vertical as providers and businesses see it: its questions and required fields, without the scoring."""

    id: str
    slug: str
    version: int
    name: str
    currency: str
    needs: dict[str, NeedField]
    requires_phone: bool
    requires_email: bool
    requires_postal_code: bool
    accepts_possible_phones: bool


def _for_operators(vertical: Vertical) -> OperatorVertical:
    return OperatorVertical(
        id=ids.encode("vert", vertical.id),
        slug=vertical.slug,
        version=vertical.version,
        definition=vertical.definition,
    )


def _for_everybody(vertical: Vertical) -> PublicVertical:
    definition = vertical.definition
    return PublicVertical(
        id=ids.encode("vert", vertical.id),
        slug=vertical.slug,
        version=vertical.version,
        name=definition.name,
        currency=definition.currency,
        needs=definition.needs,
        requires_phone=definition.requires_phone,
        requires_email=definition.requires_email,
        requires_postal_code=definition.requires_postal_code,
        accepts_possible_phones=definition.accepts_possible_phones,
    )


def _shown_to(kind: CallerKind, vertical: Vertical) -> Any:
    """Return the vertical as this kind of caller sees it."""
    return _for_operators(vertical) if kind is CallerKind.operator else _for_everybody(vertical)


def _content_faults(body: NewVertical | VerticalChange) -> tuple[Fault, ...]:
    return vertical_faults(body.definition)


@post(
    PATH,
    tags=["verticals"],
    doc=RouteDoc(body=NewVertical, answers={201: OperatorVertical}),
    request_max_body_size=BODY_LIMIT,
)
async def create_vertical(request: AnyRequest) -> Response[bytes]:
    """Creates a vertical with its questions, BANT policy and ranking strategy. Operators only."""
    caller = await operator(request)
    body = await configuration(request, NewVertical, _content_faults)
    vertical = await directory_flow.create_vertical(services(request).pool, caller.key_id, body.slug, body.definition)
    return answer(_for_operators(vertical), 201, etag(vertical.version))


@put(
    f"{PATH}/{{slug:str}}",
    tags=["verticals"],
    doc=RouteDoc(body=VerticalChange, answers={200: OperatorVertical}, query=(IF_MATCH,)),
    request_max_body_size=BODY_LIMIT,
)
async def revise_vertical(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Creates the next version of a vertical; 409 if it has changed since it was read. Operators only."""
    caller = await operator(request)
    body = await configuration(request, VerticalChange, _content_faults)
    version = expected_version(request, body.version)
    vertical = await directory_flow.revise_vertical(
        services(request).pool, caller.key_id, path_slug(slug), version, body.definition
    )
    return answer(_for_operators(vertical), headers=etag(vertical.version))


@get(f"{PATH}/{{slug:str}}", tags=["verticals"], doc=RouteDoc(answers={200: (PublicVertical, OperatorVertical)}))
async def show_vertical(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Shows one vertical: all rules to operators, the questions to others."""
    caller = await principal(request)
    vertical = await _load(request, slug)
    return answer(_shown_to(caller.kind, vertical), headers=etag(vertical.version))


@get(
    PATH,
    tags=["verticals"],
    doc=RouteDoc(answers={200: (Page[PublicVertical], Page[OperatorVertical])}, query=paged(id_of("vert"))),
)
async def list_verticals(request: AnyRequest) -> Response[bytes]:
    """Lists all verticals, newest first."""
    caller = await principal(request)
    limit, after = page_limit(request), page_cursor(request, "vert")
    async with session(services(request).pool) as connection:
        verticals = await directory_store.list_verticals(connection, after, limit + 1)
    return page(verticals, limit, lambda row: _shown_to(caller.kind, row), lambda row: ids.encode("vert", row.id))


@get("/v1/spec/{slug:str}", tags=["verticals"], doc=RouteDoc(answers={200: PostingSpec}))
async def show_spec(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Shows the posting spec of a vertical: the fields to send, and an example that is accepted."""
    await principal(request, Scope.leads_write, Scope.operate)
    vertical = await _load(request, slug)
    return answer(posting_spec(vertical, clock.now()), headers=etag(vertical.version))


async def _load(request: AnyRequest, slug: str) -> Vertical:
    """Return the vertical of the path. Raises NotFound."""
    async with session(services(request).pool) as connection:
        vertical = await directory_store.find_vertical(connection, path_slug(slug))
    if vertical is None:
        raise errors.NotFound("There is no vertical with this slug.")
    return vertical


handlers = (create_vertical, revise_vertical, show_vertical, list_verticals, show_spec)
