"""The markets and their rules: versions that are written once, and what a new one would change, tried on past leads."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.checks import vertical_faults
from marketplace.directory.wire import Slug
from marketplace.distribution.policy_dry_run import MOST_LEADS, SPAN, PolicyDryRun, try_policy
from marketplace.portal.forms import Given, changing, fill, show_again
from marketplace.portal.frame import page, redirect, words
from marketplace.portal.operator import back_office_store, lead_store
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS, Fault, FaultCode, read
from marketplace.web.http import AnyRequest, page_cursor, page_limit, services
from routing.ranking import Strategy
from routing.vertical import VerticalDefinition

HOME: Final = "/operator/verticals"
MOST_VERSIONS: Final = 50

Rules = Annotated[str, Meta(min_length=1, max_length=60_000)]
Count = Annotated[int, Meta(ge=0, le=10**9)]


class VerticalFiguresForm(msgspec.Struct, frozen=True, kw_only=True):
    """The figures that are changed most; everything else stays as it is."""

    minimum_score: Annotated[int, Meta(ge=0, le=100)]
    budget_minimum: Count
    within_days: Annotated[int, Meta(ge=0, le=3_650)]
    nurture_days: Annotated[int, Meta(ge=0, le=3_650)]
    patience_seconds: Annotated[int, Meta(ge=0, le=3_600)]
    strategy: Strategy


class VerticalRulesForm(msgspec.Struct, frozen=True, kw_only=True):
    """All rules as JSON."""

    definition: Rules


class PublishForm(msgspec.Struct, frozen=True, kw_only=True):
    """Rules that were tried, the version that they were made from, and why."""

    definition: Rules
    version: Annotated[int, Meta(ge=1)]
    reason: Annotated[str, Meta(min_length=1, max_length=500, pattern=WORDS)]


class NewVerticalForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new vertical, with all rules as JSON."""

    slug: Slug
    definition: Rules


@get(HOME)
async def show_verticals(request: AnyRequest) -> Response[bytes]:
    """Shows all verticals, newest first."""
    return await _list_page(request, await visitor(request, CallerKind.operator))


async def _list_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    limit = page_limit(request)
    async with session(services(request).pool) as connection:
        found = await directory_store.list_verticals(connection, page_cursor(request, "vert"), limit + 1)
    return page(
        request,
        viewer,
        "operator/verticals.html",
        rows=found[:limit],
        next_cursor=ids.encode("vert", found[limit - 1].id) if len(found) > limit else None,
        pattern=as_text(found[0].definition) if found else "",
    )


@post(HOME)
async def create_vertical(request: AnyRequest) -> Response[bytes]:
    """Makes a vertical: version 1 of its rules."""
    viewer, given = await changing(request, CallerKind.operator)
    try:
        form = fill(NewVerticalForm, given)
        made = await directory_flow.create_vertical(
            services(request).pool, viewer.actor, form.slug, read_rules(form.definition)
        )
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, given, error, _list_page(request, viewer))
    return redirect(request, f"{HOME}/{made.slug}", f"{made.definition.name} is open for inquiries.")


@get(f"{HOME}/{{slug:str}}")
async def show_vertical(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Shows a vertical's rules with all their versions; `?version=` shows an older one."""
    viewer = await visitor(request, CallerKind.operator)
    return await _vertical_page(request, viewer, await _load(request, slug))


async def _load(request: AnyRequest, slug: str) -> Vertical:
    async with session(services(request).pool) as connection:
        found = await directory_store.find_vertical(connection, slug)
    if found is None:
        raise errors.NotFound("There is no vertical with this slug.")
    return found


async def _vertical_page(
    request: AnyRequest,
    viewer: Viewer,
    vertical: Vertical,
    *,
    draft: VerticalDefinition | None = None,
    tried: PolicyDryRun | None = None,
    subscriptions: Mapping[UUID, lead_store.SubscriptionName] | None = None,
) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        versions = await back_office_store.list_versions(connection, vertical.id, MOST_VERSIONS)
        names = await back_office_store.list_actor_names(connection, {one.made_by for one in versions})
    wanted = request.query_params.get("version", str(vertical.version))
    shown = next((one for one in versions if str(one.version) == wanted), versions[0])
    return page(
        request,
        viewer,
        "operator/vertical.html",
        vertical=vertical,
        shown=shown,
        versions=versions,
        names=names,
        draft=draft,
        tried=tried,
        subscriptions=subscriptions or {},
        draft_text=as_text(draft) if draft else "",
        text=as_text(shown.definition),
        strategy_options=[(one, words(one)) for one in Strategy],
        span=SPAN.days,
        most=MOST_LEADS,
    )


@post(f"{HOME}/{{slug:str}}/try")
async def try_rules(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Shows what other rules would have made of the last thirty days' leads. Changes nothing."""
    viewer, given = await changing(request, CallerKind.operator, role=Role.viewer)
    vertical = await _load(request, slug)
    try:
        draft = _draft(vertical.definition, given)
    except errors.InvalidInput as error:
        return await show_again(request, given, error, _vertical_page(request, viewer, vertical))
    pool = services(request).pool
    tried = await try_policy(pool, vertical, draft, clock.now())
    shares = tried.reranking.shares if tried.reranking else ()
    async with session(pool) as connection:
        subscriptions = (
            await lead_store.list_subscriptions(connection, {share.subscription_id for share in shares})
            if shares
            else {}
        )
    shown = _vertical_page(request, viewer, vertical, draft=draft, tried=tried, subscriptions=subscriptions)
    return await show_again(request, given, None, shown)


def _draft(current: VerticalDefinition, given: Given) -> VerticalDefinition:
    """Raises InvalidInput for rules that could not be published."""
    if "definition" in given:
        return read_rules(fill(VerticalRulesForm, given).definition)
    form, change = fill(VerticalFiguresForm, given), msgspec.structs.replace
    draft = change(
        current,
        minimum_score=form.minimum_score,
        patience_seconds=form.patience_seconds,
        strategy=form.strategy,
        budget=change(current.budget, minimum_minor=form.budget_minimum),
        timing=change(current.timing, within_days=form.within_days, nurture_limit_days=form.nurture_days),
    )
    _refuse(vertical_faults(draft))
    return draft


@post(f"{HOME}/{{slug:str}}/publish")
async def publish_rules(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Makes the next version; what was decided before stays as it was decided."""
    viewer, given = await changing(request, CallerKind.operator)
    vertical = await _load(request, slug)
    try:
        form = fill(PublishForm, given)
        draft = read_rules(form.definition)
        made = await directory_flow.revise_vertical(
            services(request).pool, viewer.actor, slug, form.version, draft, form.reason.strip()
        )
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, given, error, _vertical_page(request, viewer, vertical))
    return redirect(request, f"{HOME}/{slug}", f"Version {made.version} is in force.")


def read_rules(text: str) -> VerticalDefinition:
    """Raises InvalidInput that names each faulty place of the JSON at its one field."""
    outcome = read(text.encode(), VerticalDefinition)
    if isinstance(outcome, tuple):
        _refuse(outcome)
    assert isinstance(outcome, VerticalDefinition)
    _refuse(vertical_faults(outcome))
    return outcome


def _refuse(faults: tuple[Fault, ...]) -> None:
    if faults:
        words = " ".join(f"{fault.pointer.removeprefix('/') or 'As a whole'}: {fault.detail}" for fault in faults)
        raise errors.InvalidInput((Fault(pointer="/definition", code=FaultCode.value_not_allowed, detail=words),))


def as_text(definition: VerticalDefinition) -> str:
    """The rules as JSON that people read."""
    return msgspec.json.format(msgspec.json.encode(definition), indent=2).decode()


handlers: tuple[Any, ...] = (show_verticals, create_vertical, show_vertical, try_rules, publish_rules)
