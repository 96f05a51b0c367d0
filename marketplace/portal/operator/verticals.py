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
from marketplace.portal.forms import FormFields, Reason, ShownForm, changing, fill, label, show_again, show_form
from marketplace.portal.frame import page, redirect, words
from marketplace.portal.listing import Column, Link, Listing, Money, code
from marketplace.portal.operator import back_office_store, lead_store
from marketplace.portal.operator.back_office_store import VerticalVersionRow
from marketplace.portal.paging import next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault, FaultCode, read
from marketplace.web.http import AnyRequest, page_cursor, page_limit, services
from routing.certificate import LONGEST_HOLD_SECONDS, CertificatePolicy, FailureConsequence
from routing.joining import RepeatInquiries
from routing.person import PERSON_IN_WORDS, SamePerson
from routing.policy_lint import lint_policy
from routing.ranking import Strategy
from routing.subscription import PRICE_MINOR
from routing.vertical import MOST_DELAYED_PER_MILLE, MOST_EXPLORED_PER_MILLE, VerticalDefinition

HOME: Final = "/operator/verticals"
MOST_VERSIONS: Final = 50

CONSEQUENCES: Final[dict[FailureConsequence, str]] = {
    FailureConsequence.reject: "The lead is not sold",
    FailureConsequence.hold: "The lead waits for an answer, then is not sold",
    FailureConsequence.accept_with_flag: "The lead is sold, and the business is told",
}
"What a failed certificate means, in words."

REPEATS: Final[dict[RepeatInquiries, str]] = {
    RepeatInquiries.duplicate: "It is a duplicate",
    RepeatInquiries.joined: "It is a duplicate, and its answers go to the earlier lead",
}
"Consequences of a repeated inquiry, in words."

Rules = Annotated[str, Meta(min_length=1, max_length=60_000)]
Days = Annotated[int, Meta(ge=0, le=3_650)]


class VerticalFiguresForm(msgspec.Struct, frozen=True, kw_only=True):
    """The rules that are changed most often. Every other rule stays as it is."""

    minimum_score: Annotated[int, Meta(ge=0, le=100), label("Minimum score")]
    budget_minimum: Annotated[int, Meta(ge=0, le=10**9), label("Minimum budget, in the smallest unit of {currency}")]
    within_days: Annotated[Days, label("Needed within, in days")]
    nurture_days: Annotated[Days, label("Nurtured for at most, in days")]
    patience_seconds: Annotated[int, Meta(ge=0, le=3_600), label("Waits for a business, in seconds")]
    reserve_minor: Annotated[
        int,
        Meta(ge=PRICE_MINOR[0], le=PRICE_MINOR[1]),
        label("Lowest price of a lead, in the smallest unit of {currency}"),
    ]
    strategy: Annotated[Strategy, label("Ranking")]
    requires_named_seller: Annotated[
        bool,
        label(
            "Only to a business that the consent names",
            "A consent that names sellers is for them in any case. With this, one that names nobody is for nobody.",
        ),
    ] = False
    requires_certificate: Annotated[
        bool,
        label("Only with a certificate of consent", "An inquiry without one is refused, so tell your providers first."),
    ] = False
    certificate_failure: Annotated[FailureConsequence, label("If a certificate cannot be verified")] = (
        FailureConsequence.accept_with_flag
    )
    certificate_hold_seconds: Annotated[
        int,
        Meta(ge=60, le=LONGEST_HOLD_SECONDS),
        label("Waits for a certificate, in seconds", "Only where a lead waits for an answer. 60 to 3,600."),
    ] = 900
    same_person: Annotated[SamePerson, label("Two inquiries are one person's")] = SamePerson.either
    repeat_inquiries: Annotated[RepeatInquiries, label("If a person asks again")] = RepeatInquiries.duplicate
    provider_may_know: Annotated[
        bool, label("Tell the provider that an inquiry joined an earlier lead", "Not whose lead it is.")
    ] = False
    explore_per_mille: Annotated[
        int,
        Meta(ge=0, le=MOST_EXPLORED_PER_MILLE),
        label("Of 1,000 leads, so many in a random order", "Shows whether the ranking is better than chance. 0 to 50."),
    ] = 0
    delay_per_mille: Annotated[
        int,
        Meta(ge=0, le=MOST_DELAYED_PER_MILLE),
        label("Of 1,000 leads, so many wait before they are sold", "Shows what speed is worth. 0 to 50."),
    ] = 0
    delay_seconds: Annotated[int, Meta(ge=60, le=3_600), label("How long they wait, in seconds")] = 1_800


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
    limit = page_limit(request)
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
        consequences=CONSEQUENCES,
        persons=PERSON_IN_WORDS,
        repeats=REPEATS,
        figures_form=_figures_form(draft or selected.definition),
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


def _figures_form(definition: VerticalDefinition) -> ShownForm:
    values = {
        "minimum_score": definition.minimum_score,
        "budget_minimum": definition.budget.minimum_minor,
        "within_days": definition.timing.within_days,
        "nurture_days": definition.timing.nurture_limit_days,
        "patience_seconds": definition.patience_seconds,
        "reserve_minor": definition.reserve_minor,
        "strategy": definition.strategy,
        "requires_named_seller": "1" if definition.consent.requires_named_seller else "",
        "requires_certificate": "1" if definition.certificate.required else "",
        "certificate_failure": definition.certificate.on_failure,
        "certificate_hold_seconds": definition.certificate.hold_seconds,
        "same_person": definition.same_person,
        "repeat_inquiries": definition.repeat_inquiries,
        "provider_may_know": "1" if definition.provider_may_know else "",
        "explore_per_mille": definition.explore_per_mille,
        "delay_per_mille": definition.delay_per_mille,
        "delay_seconds": definition.delay_seconds,
    }
    strategies = [(strategy, words(strategy)) for strategy in Strategy]
    choices = {
        "strategy": strategies,
        "certificate_failure": tuple(CONSEQUENCES.items()),
        "same_person": tuple((each, f"If {text}") for each, text in PERSON_IN_WORDS.items()),
        "repeat_inquiries": tuple(REPEATS.items()),
    }
    return show_form(VerticalFiguresForm, values, choices, currency=definition.currency)


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
    form, replace = fill(VerticalFiguresForm, fields), msgspec.structs.replace
    draft = replace(
        current,
        minimum_score=form.minimum_score,
        patience_seconds=form.patience_seconds,
        reserve_minor=form.reserve_minor,
        strategy=form.strategy,
        consent=replace(current.consent, requires_named_seller=form.requires_named_seller),
        certificate=CertificatePolicy(
            required=form.requires_certificate,
            on_failure=form.certificate_failure,
            hold_seconds=form.certificate_hold_seconds,
        ),
        same_person=form.same_person,
        repeat_inquiries=form.repeat_inquiries,
        provider_may_know=form.provider_may_know,
        explore_per_mille=form.explore_per_mille,
        delay_per_mille=form.delay_per_mille,
        delay_seconds=form.delay_seconds,
        budget=replace(current.budget, minimum_minor=form.budget_minimum),
        timing=replace(current.timing, within_days=form.within_days, nurture_limit_days=form.nurture_days),
    )
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
