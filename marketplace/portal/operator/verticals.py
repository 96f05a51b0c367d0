"""Verticals and the versions of their rules, with a dry run of new rules on past leads."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.checks import vertical_faults
from marketplace.directory.wire import Slug
from marketplace.distribution.policy_dry_run import MOST_LEADS, SPAN, PolicyDryRun, try_policy
from marketplace.portal.business.subscription_form import CHANNEL_CHOICES
from marketplace.portal.forms import FormFields, Reason, changing, fill, label, show_again, show_form, typed_fields
from marketplace.portal.frame import page, redirect, words
from marketplace.portal.listing import Column, Link, Listing, Money, code
from marketplace.portal.operator import back_office_store, lead_store
from marketplace.portal.operator.back_office_store import VerticalVersionRow
from marketplace.portal.operator.vertical_form import (
    CERTIFICATE_FAILURES,
    LOW_SCORES,
    REPEATS,
    RESULTS,
    VerticalFiguresForm,
    apply_figures,
    price_range_in_words,
    show_figures,
)
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault, FaultCode, read
from marketplace.web.http import AnyRequest, page_cursor, services
from routing.joining import PAY_IN_WORDS
from routing.person import PERSON_IN_WORDS
from routing.policy_lint import lint_policy
from routing.qualification import LONGEST_NURTURE_DAYS
from routing.vertical import VerticalDefinition

HOME: Final = "/operator/verticals"
MOST_VERSIONS: Final = 50

Rules = Annotated[str, Meta(min_length=1, max_length=60_000)]


class VerticalRulesForm(msgspec.Struct, frozen=True, kw_only=True):
    """All rules as JSON."""

    definition: Annotated[Rules, label("Rules", kind="textarea", rows=20)]


class PublishForm(msgspec.Struct, frozen=True, kw_only=True):
    """Rules to publish, the version that they are based on, and the reason."""

    definition: Rules
    version: Annotated[int, Meta(ge=1)]
    reason: Annotated[Reason, label("Reason for the change", kind="textarea", rows=2)]


class NewVerticalForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new vertical, with all rules as JSON."""

    slug: Annotated[
        Slug,
        label(
            "Slug",
            "Lower-case letters, digits and hyphens. It is part of every inquiry and cannot be changed later.",
            maxlength=63,
        ),
    ]
    definition: Annotated[Rules, label("All rules, as JSON", kind="textarea", rows=16)]


VERTICALS: Final = Listing[Vertical](
    caption="Verticals",
    columns=(
        Column("Vertical", lambda row: Link(f"{HOME}/{row.slug}", row.definition.name)),
        Column("Slug", lambda row: code(row.slug)),
        Column("Version", lambda row: row.version, style="num"),
        Column("Ranking", lambda row: words(row.definition.strategy)),
        Column("Minimum score", lambda row: row.definition.minimum_score, style="num"),
        Column(
            "Minimum budget",
            lambda row: Money(row.definition.budget.minimum_minor, row.definition.currency),
            style="num",
        ),
        Column("Needed within", lambda row: f"{row.definition.timing.within_days} days"),
    ),
)


@get(HOME)
async def show_verticals(request: AnyRequest) -> Response[bytes]:
    """Show all verticals, newest first."""
    return await _list_page(request, await visitor(request, CallerKind.operator))


async def _list_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    limit = list_limit(request)
    async with session(services(request).pool) as connection:
        rows = await directory_store.list_verticals(connection, page_cursor(request, "vert"), limit + 1)
    return page(
        request,
        viewer,
        "operator/verticals.html",
        listing=VERTICALS,
        rows=rows[:limit],
        next_cursor=next_page("vert", [row.id for row in rows], limit),
        form=show_form(NewVerticalForm, {"definition": as_text(rows[0].definition) if rows else ""}),
    )


@post(HOME)
async def create_vertical(request: AnyRequest) -> Response[bytes]:
    """Create a vertical with version 1 of its rules."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form = fill(NewVerticalForm, fields)
        vertical = await directory_flow.create_vertical(
            services(request).pool, viewer.actor, form.slug, read_rules(form.definition)
        )
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, fields, error, _list_page(request, viewer))
    return redirect(request, f"{HOME}/{vertical.slug}", f"{vertical.definition.name} now accepts inquiries.")


@get(f"{HOME}/{{slug:str}}")
async def show_vertical(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Show a vertical's rules and their versions; `?version=` shows an older version."""
    viewer = await visitor(request, CallerKind.operator)
    return await _vertical_page(request, viewer, await _load(request, slug))


async def _load(request: AnyRequest, slug: str) -> Vertical:
    async with session(services(request).pool) as connection:
        vertical = await directory_store.find_vertical(connection, slug)
    if vertical is None:
        raise errors.NotFound("There is no vertical with this slug.")
    return vertical


async def _vertical_page(
    request: AnyRequest,
    viewer: Viewer,
    vertical: Vertical,
    *,
    draft: VerticalDefinition | None = None,
    dry_run: PolicyDryRun | None = None,
    subscriptions: Mapping[UUID, lead_store.SubscriptionName] | None = None,
) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        versions = await back_office_store.list_versions(connection, vertical.id, MOST_VERSIONS)
        names = await back_office_store.list_actor_names(connection, {version.made_by for version in versions})
    number = request.query_params.get("version", str(vertical.version))
    selected = next((version for version in versions if str(version.version) == number), versions[0])
    return page(
        request,
        viewer,
        "operator/vertical.html",
        vertical=vertical,
        selected=selected,
        versions=versions,
        version_listing=version_listing(f"{HOME}/{vertical.slug}", selected, names),
        draft=draft,
        dry_run=dry_run,
        subscriptions=subscriptions or {},
        draft_text=as_text(draft) if draft else "",
        warnings=lint_policy(draft or selected.definition),
        results=RESULTS,
        job_prices=price_range_in_words(selected.definition.price_range),
        low_scores=LOW_SCORES,
        certificate_failures=CERTIFICATE_FAILURES,
        persons=PERSON_IN_WORDS,
        repeats=REPEATS,
        pay=PAY_IN_WORDS,
        longest_nurture_days=LONGEST_NURTURE_DAYS,
        figures_form=show_figures(draft or selected.definition),
        channel_choices=CHANNEL_CHOICES,
        channels=typed_fields(request).get("channels", (draft or selected.definition).consent.channels),
        rules_form=show_form(VerticalRulesForm, {"definition": as_text(draft or selected.definition)}),
        publish_form=show_form(PublishForm),
        span=SPAN.days,
        most=MOST_LEADS,
    )


def version_listing(home: str, selected: VerticalVersionRow, names: Mapping[str, str]) -> Listing[VerticalVersionRow]:
    """Return the list of versions, with that on the page marked. `names` are those of the publishers."""

    def version(row: VerticalVersionRow) -> Markup:
        current = Markup(' aria-current="true"') if row.version == selected.version else ""
        return Markup('<a href="{0}?version={1}"{2}>Version {1}</a>').format(home, row.version, current)

    return Listing(
        caption="Versions",
        columns=(
            Column("Version", version),
            Column("Published", lambda row: row.made_at),
            Column("By", lambda row: names.get(row.made_by, row.made_by)),
        ),
    )


@post(f"{HOME}/{{slug:str}}/try")
async def try_rules(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Show the results that other rules would have had for the leads of the last 30 days. Changes nothing."""
    viewer, fields = await changing(request, CallerKind.operator, role=Role.viewer)
    vertical = await _load(request, slug)
    try:
        draft = _read_draft(vertical.definition, fields)
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _vertical_page(request, viewer, vertical))
    pool = services(request).pool
    dry_run = await try_policy(pool, vertical, draft, clock.now())
    shares = dry_run.reranking.shares if dry_run.reranking else ()
    async with session(pool) as connection:
        subscription_ids = {share.subscription_id for share in shares}
        subscriptions = await lead_store.list_subscriptions(connection, subscription_ids)
    result_page = _vertical_page(request, viewer, vertical, draft=draft, dry_run=dry_run, subscriptions=subscriptions)
    return await show_again(request, fields, None, result_page)


def _read_draft(current: VerticalDefinition, fields: FormFields) -> VerticalDefinition:
    """Return the rules of the form as they would be saved: all as JSON, or the current ones with some figures changed.

    Raises InvalidInput.
    """
    if "definition" in fields:
        return read_rules(fill(VerticalRulesForm, fields).definition).under_current_rules()
    draft = apply_figures(fill(VerticalFiguresForm, fields), current)
    _refuse(vertical_faults(draft))
    return draft.under_current_rules()


@post(f"{HOME}/{{slug:str}}/publish")
async def publish_rules(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Publish the next version of the rules. Earlier decisions stay as they are."""
    viewer, fields = await changing(request, CallerKind.operator)
    vertical = await _load(request, slug)
    try:
        form = fill(PublishForm, fields)
        draft = read_rules(form.definition)
        published = await directory_flow.revise_vertical(
            services(request).pool, viewer.actor, slug, form.version, draft, form.reason.strip()
        )
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, fields, error, _vertical_page(request, viewer, vertical))
    return redirect(request, f"{HOME}/{slug}", f"Version {published.version} is in force.")


def read_rules(text: str) -> VerticalDefinition:
    """Return the rules in the JSON text. Raises InvalidInput that names each faulty place."""
    result = read(text.encode(), VerticalDefinition)
    if isinstance(result, tuple):
        _refuse(result)
    assert isinstance(result, VerticalDefinition)
    _refuse(vertical_faults(result))
    return result


def _refuse(faults: tuple[Fault, ...]) -> None:
    """Raise InvalidInput with all faults at the one field of the form, unless there are none."""
    if faults:
        detail = " ".join(f"{fault.pointer.removeprefix('/') or 'As a whole'}: {fault.detail}" for fault in faults)
        raise errors.InvalidInput((Fault(pointer="/definition", code=FaultCode.value_not_allowed, detail=detail),))


def as_text(definition: VerticalDefinition) -> str:
    """Return the rules as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(definition), indent=2).decode()


handlers: tuple[Any, ...] = (show_verticals, create_vertical, show_vertical, try_rules, publish_rules)
