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
    OPERATOR,
    OPERATOR_READING,
    Slug,
    Version,
    etag,
    expected_version,
    path_slug,
    provide_configuration,
)
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind, Scope
from marketplace.text.faults import Fault
from marketplace.web.api import Caller, Injected, JsonAnswer, api_router, list_page, require
from marketplace.web.http import AnyRequest, Page, Services, page_cursor, page_limit, path_id
from marketplace.web.openapi import RouteDoc, id_of, paged
from routing.inquiry import NeedField
from routing.policy_lint import PolicyWarning, lint_policy
from routing.subscription import BusinessTerms
from routing.vertical import VerticalDefinition

PATH = "/verticals"
TERMS = f"{PATH}/{{slug:str}}/terms/{{business_id:str}}"


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


class VerticalWithWarnings(OperatorVertical, frozen=True, kw_only=True):
    """A vertical as an operator sees it, with the warnings about its rules: examples, none of which refuses it."""

    warnings: tuple[PolicyWarning, ...]


class PublicVertical(msgspec.Struct, frozen=True, kw_only=True):
    """A vertical as providers and businesses see it: its questions, required fields and lowest price of a lead, without
    the scoring."""

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
    reserve_minor: int


def _for_operators(vertical: Vertical) -> OperatorVertical:
    return OperatorVertical(
        id=ids.encode("vert", vertical.id),
        slug=vertical.slug,
        version=vertical.version,
        definition=vertical.definition,
    )


def _with_warnings(vertical: Vertical) -> VerticalWithWarnings:
    row = _for_operators(vertical)
    return VerticalWithWarnings(**msgspec.structs.asdict(row), warnings=lint_policy(vertical.definition))


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
        reserve_minor=definition.reserve_minor,
    )


def _shown_to(kind: CallerKind, vertical: Vertical) -> Any:
    """Return the vertical as this kind of caller sees it."""
    return _for_operators(vertical) if kind is CallerKind.operator else _for_everybody(vertical)


def _content_faults(body: NewVertical | VerticalChange) -> tuple[Fault, ...]:
    return vertical_faults(body.definition)


@post(
    PATH,
    tags=["verticals"],
    dependencies={"caller": OPERATOR, "draft": provide_configuration(NewVertical, _content_faults)},
    request_max_body_size=BODY_LIMIT,
)
async def create_vertical(
    caller: Caller, draft: Injected[NewVertical], services: Injected[Services]
) -> Response[VerticalWithWarnings]:
    """Creates a vertical with its questions, BANT policy and ranking strategy. Operators only."""
    vertical = await directory_flow.create_vertical(services.pool, caller.key_id, draft.slug, draft.definition)
    return JsonAnswer(_with_warnings(vertical), headers=etag(vertical.version))


@put(
    f"{PATH}/{{slug:str}}",
    tags=["verticals"],
    dependencies={"caller": OPERATOR, "change": provide_configuration(VerticalChange, _content_faults)},
    request_max_body_size=BODY_LIMIT,
    doc=RouteDoc(query=(IF_MATCH,)),
)
async def revise_vertical(
    request: AnyRequest,
    slug: FromPath[str],
    caller: Caller,
    change: Injected[VerticalChange],
    services: Injected[Services],
) -> Response[VerticalWithWarnings]:
    """Creates the next version of a vertical; 409 if it has changed since it was read. Operators only."""
    version = expected_version(request, change.version)
    vertical = await directory_flow.revise_vertical(
        services.pool, caller.key_id, path_slug(slug), version, change.definition
    )
    return JsonAnswer(_with_warnings(vertical), headers=etag(vertical.version))


@get(f"{PATH}/{{slug:str}}", tags=["verticals"], dependencies={"caller": require()})
async def show_vertical(
    slug: FromPath[str], caller: Caller, services: Injected[Services]
) -> Response[PublicVertical | VerticalWithWarnings]:
    """Shows one vertical: all rules and the warnings about them to operators, the questions to others."""
    vertical = await _load(services, slug)
    for_operator = caller.kind is CallerKind.operator
    view = _with_warnings(vertical) if for_operator else _for_everybody(vertical)
    return JsonAnswer(view, headers=etag(vertical.version))


@get(PATH, tags=["verticals"], dependencies={"caller": require()}, doc=RouteDoc(query=paged(id_of("vert"))))
async def list_verticals(
    request: AnyRequest, caller: Caller, services: Injected[Services]
) -> Page[PublicVertical] | Page[OperatorVertical]:
    """Lists all verticals, newest first."""
    limit, after = page_limit(request), page_cursor(request, "vert")
    async with session(services.pool) as connection:
        verticals = await directory_store.list_verticals(connection, after, limit + 1)
    return list_page(verticals, limit, lambda row: _shown_to(caller.kind, row), lambda row: ids.encode("vert", row.id))


@get("/spec/{slug:str}", tags=["verticals"], dependencies={"caller": require(Scope.leads_write, Scope.operate)})
async def show_spec(slug: FromPath[str], services: Injected[Services]) -> Response[PostingSpec]:
    """Shows the posting spec of a vertical: the fields to send, and an example that is accepted."""
    vertical = await _load(services, slug)
    return JsonAnswer(posting_spec(vertical, clock.now()), headers=etag(vertical.version))


class TermsChange(BusinessTerms, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /v1/verticals/{slug}/terms/{business_id}, complete: what is left out becomes the default."""


@get(TERMS, tags=["verticals"], dependencies={"caller": OPERATOR_READING})
async def show_terms(
    slug: FromPath[str], business_id: FromPath[str], services: Injected[Services]
) -> Response[BusinessTerms]:
    """Shows weight and priority of a business in a vertical. Operators only."""
    async with session(services.pool) as connection:
        _, terms = await directory_flow.load_terms(connection, path_slug(slug), path_id("biz", business_id))
    return JsonAnswer(terms)


@put(
    TERMS,
    tags=["verticals"],
    dependencies={"caller": OPERATOR, "change": provide_configuration(TermsChange)},
    request_max_body_size=BODY_LIMIT,
)
async def set_terms(
    slug: FromPath[str],
    business_id: FromPath[str],
    caller: Caller,
    change: Injected[TermsChange],
    services: Injected[Services],
) -> Response[BusinessTerms]:
    """Sets weight and priority of a business in a vertical, for all its subscriptions there. Operators only."""
    terms = BusinessTerms(weight=change.weight, priority=change.priority)
    business = path_id("biz", business_id)
    return JsonAnswer(await directory_flow.set_terms(services.pool, caller.key_id, path_slug(slug), business, terms))


async def _load(services: Services, slug: str) -> Vertical:
    """Return the vertical of the path. Raises NotFound."""
    async with session(services.pool) as connection:
        vertical = await directory_store.find_vertical(connection, path_slug(slug))
    if vertical is None:
        raise errors.NotFound("There is no vertical with this slug.")
    return vertical


handlers = (
    api_router(create_vertical, revise_vertical, show_vertical, list_verticals, show_spec, show_terms, set_terms),
)
