"""Matching rules: the subscriptions of a business, each with its form and an estimate of the leads to expect."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import Connection, session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.flow import SubscriptionRequest
from marketplace.directory.store import Endpoint, SubscriptionRecord, TenantScope
from marketplace.distribution.matching_preview import MatchingPreview, load_previews
from marketplace.portal import charts
from marketplace.portal.business import question_rules, subscription_form, wording
from marketplace.portal.business.store import PostalLocation
from marketplace.portal.business.subscription_form import AreaForm, LimitsForm
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS
from marketplace.portal.forms import (
    FormFields,
    ShownForm,
    changing,
    field_errors,
    fill,
    label,
    show_again,
    show_form,
    submitted,
    typed_fields,
)
from marketplace.portal.frame import badge, redirect, words
from marketplace.portal.listing import Column, Link, Listing, Money
from marketplace.portal.session import Viewer, visitor
from marketplace.rules.catalog import Rules
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.characters import is_visible
from marketplace.web.http import AnyRequest, path_id, services
from routing.ranking import Strategy
from routing.subscription import SubscriptionDefinition

HOME = "/business/matching"


class SubscriptionForm(msgspec.Struct, frozen=True, kw_only=True):
    """Name and endpoint of a subscription, and the version that the form showed."""

    name: Annotated[str, Meta(max_length=100), label("Name")]
    endpoint: Annotated[str, label("Endpoint", kind="select")]
    version: int


class SubscriptionStateForm(msgspec.Struct, frozen=True, kw_only=True):
    """New state of a subscription: active, paused or ended."""

    state: str


class SubscriptionCard(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription in the list, with its area in words and its preview."""

    subscription: SubscriptionRecord
    area: str
    preview: MatchingPreview | None


def _name(row: SubscriptionCard) -> Link:
    return Link(f"{HOME}/{ids.encode('sub', row.subscription.id)}", row.subscription.name)


SUBSCRIPTIONS: Final = Listing[SubscriptionCard](
    caption="Subscriptions",
    columns=(
        Column("Subscription", _name),
        Column("Service", lambda row: words(row.subscription.vertical)),
        Column("Area", lambda row: row.area),
        Column(
            "Price",
            lambda row: Money(row.subscription.definition.price_minor, row.subscription.definition.currency),
            style="num",
        ),
        Column("Expected leads", lambda row: row.preview.words.capitalize() if row.preview else None),
        Column("State", lambda row: badge(row.subscription.state)),
    ),
)


def country_of(rules: Rules, slug: str) -> str:
    """Return the country of a vertical, to which the postal codes of its subscriptions belong."""
    return rules.by_slug[slug].definition.country


def scope_in_mode(viewer: Viewer) -> TenantScope:
    """Return the scope of the business in the viewer's mode."""
    return TenantScope(business_id=viewer.owner, mode=viewer.mode)


@get(HOME)
async def show_subscriptions(request: AnyRequest) -> Response[bytes]:
    """Show the subscriptions of the business with the preview of each."""
    viewer = await visitor(request, CallerKind.business)
    app = services(request)
    rules = await app.catalog.recent()
    async with session(app.pool) as connection:
        subscriptions = await directory_store.list_subscriptions(
            connection, scope_in_mode(viewer), None, MOST_SUBSCRIPTIONS
        )
        previews = await _load_previews(connection, rules, subscriptions)
    rows = [
        SubscriptionCard(
            subscription=subscription,
            area=subscription_form.area_words(subscription.definition.area),
            preview=previews.get(subscription.id),
        )
        for subscription in subscriptions
    ]
    return await business_page(request, viewer, "business/subscriptions.html", listing=SUBSCRIPTIONS, rows=rows)


async def _load_previews(
    connection: Connection, rules: Rules, subscriptions: Sequence[SubscriptionRecord]
) -> dict[UUID, MatchingPreview]:
    """Return the preview of each subscription that has not ended; the leads of each vertical are read once."""
    by_vertical: dict[str, list[SubscriptionRecord]] = defaultdict(list)
    for subscription in subscriptions:
        if subscription.state != "ended":
            by_vertical[subscription.vertical].append(subscription)
    previews: dict[UUID, MatchingPreview] = {}
    for slug, group in by_vertical.items():
        vertical = rules.by_slug.get(slug)
        if vertical is not None:
            definitions = [subscription.definition for subscription in group]
            group_previews = await load_previews(connection, vertical, group[0].business_id, definitions)
            previews |= {record.id: preview for record, preview in zip(group, group_previews, strict=True)}
    return previews


@get(f"{HOME}/{{order_id:str}}")
async def show_subscription(request: AnyRequest, order_id: FromPath[str]) -> Response[bytes]:
    """Show a subscription with its form."""
    viewer = await visitor(request, CallerKind.business)
    return await _subscription_page(request, viewer, path_id("sub", order_id))


async def _subscription_page(
    request: AnyRequest,
    viewer: Viewer,
    subscription_id: UUID,
) -> Response[bytes]:
    app = services(request)
    async with session(app.pool) as connection:
        subscription = await directory_store.find_subscription(connection, scope_in_mode(viewer), subscription_id)
        if subscription is None:
            raise errors.NotFound(directory_flow.NOT_THERE)
        endpoints = await directory_store.list_endpoints(connection, scope_in_mode(viewer), None, MOST_SUBSCRIPTIONS)
        rules = await app.catalog.recent()
        vertical, definition = rules.by_slug.get(subscription.vertical), subscription.definition
        preview = (await load_previews(connection, vertical, viewer.owner, [definition]))[0] if vertical else None
        country, needs = country_of(rules, subscription.vertical), vertical.definition.needs if vertical else {}
        places = await subscription_form.list_places(connection, definition.area, country)
    return await business_page(
        request,
        viewer,
        "business/subscription.html",
        subscription=subscription,
        definition=definition,
        preview=preview,
        map=draw_area(definition, places),
        week=subscription_form.weekly_hours(definition.hours),
        days=subscription_form.WEEK,
        form=_form_of(subscription, endpoints),
        **subscription_form.show_forms(subscription_form.fields_of(definition), definition.currency),
        ticks=subscription_form.ticks_of(definition, typed_fields(request)),
        words_of=subscription_form,
        questions=question_rules.show_questions(definition.attributes, needs, typed_fields(request)),
        simple=question_rules.simple_rules(definition.attributes, needs),
        yes_no=question_rules.YES_NO,
        choosing=CHOOSING[vertical.definition.strategy] if vertical else "",
        area=subscription_form.area_words(definition.area),
        mile=subscription_form.MILE_KM,
        home=f"{HOME}/{ids.encode('sub', subscription.id)}",
    )


CHOOSING: Final = {
    Strategy.priority: "Businesses are served in an order that the marketplace sets. At the same place in it, the "
    "higher price comes first.",
    Strategy.weighted_share: "Leads are spread by chance over all businesses that match, in shares that the "
    "marketplace sets. A higher price does not bring more.",
    Strategy.highest_price: "The business with the highest price that matches comes first.",
    Strategy.fair: "Fair: the business that is furthest behind its share comes first. A higher price does not bring "
    "more.",
    Strategy.expected_value: "The higher price comes first, weighed by how likely the lead is to stay with you.",
}
"How the marketplace chooses among the businesses that match, for the business that orders."


def _kept(limits: LimitsForm, fields: FormFields) -> tuple[int, ...] | None:
    """Return the numbers of the listed rules that stay; None if the form listed none."""
    return (limits.keep_rule or ()) if "keep_rule" in fields else None


def _form_of(subscription: SubscriptionRecord, endpoints: Sequence[Endpoint]) -> ShownForm:
    endpoint_id = subscription.endpoint_id
    values = {"name": subscription.name, "endpoint": ids.encode("whe", endpoint_id) if endpoint_id else ""}
    choices = [(ids.encode("whe", row.id), wording.endpoint_name(row.kind, row.url)) for row in endpoints]
    return show_form(SubscriptionForm, values, {"endpoint": choices})


def form_faults(error: errors.InvalidInput, fields: FormFields) -> dict[str, str]:
    """Return the faults of a definition by the form's fields from which the faulty parts were made."""
    hours = "spec" if "spec" in fields else "from_Mo"
    field_by_prefix = {
        "area/prefixes": "prefixes",
        "area/countries": "countries",
        "area": "codes",
        "price_minor": "price",
        "hours": hours,
        "caps": "day_count",
        "bant/timing": "within_days",
        "bant": "minimum_budget",
        "persona/roles": "roles",
        "persona/excluded_sources": "excluded_sources",
        "persona/phone": "phone_types",
        "persona": "size_from",
        "attributes": "keep_rule",
        "endpoint_id": "endpoint",
        "keep/": "keep",
        "keep_rule/": "keep_rule",
        "must_meet/": "must_meet",
        "authorities/": "authorities",
    }
    faults: dict[str, str] = {}
    for name, detail in field_errors(error).items():
        path = name.removeprefix("definition/")
        field = next((field for prefix, field in field_by_prefix.items() if path.startswith(prefix)), name)
        faults.setdefault(field, detail)
    return faults


def draw_area(definition: SubscriptionDefinition, places: tuple[PostalLocation, ...]) -> Markup | None:
    """Draw the circles and postal codes of an area, without map tiles; None if there is nothing to draw."""
    area = definition.area
    if area.anywhere or not (area.circles or places):
        return None
    return charts.dot_map(
        "Your area",
        [
            charts.MapDot(name=f"{place.code} {place.city}", latitude=place.latitude, longitude=place.longitude)
            for place in places
        ],
        circles=[(circle.latitude, circle.longitude, circle.km) for circle in area.circles],
        about=subscription_form.area_words(area),
    )


@post(f"{HOME}/{{order_id:str}}", request_max_body_size=subscription_form.BODY_LIMIT)
async def change_subscription(request: AnyRequest, order_id: FromPath[str]) -> Response[bytes]:
    """Save a new version of a subscription. Leads in delivery keep the version by which they were awarded."""
    viewer, fields = await changing(request, CallerKind.business, most_bytes=subscription_form.BODY_LIMIT)
    subscription_id, pool, scope = path_id("sub", order_id), services(request).pool, scope_in_mode(viewer)
    try:
        form, area_form, limits = fill(SubscriptionForm, fields), fill(AreaForm, fields), fill(LimitsForm, fields)
        async with session(pool) as connection:
            subscription = await directory_store.find_subscription(connection, scope, subscription_id)
            if subscription is None:
                raise errors.NotFound(directory_flow.NOT_THERE)
            vertical = (await services(request).catalog.recent()).by_slug[subscription.vertical].definition
            country, needs = vertical.country, vertical.needs
            before = subscription.definition
            area = await subscription_form.read_area(connection, area_form, fields, before, country)
        definition = subscription_form.apply_limits(limits, fields, before, before.zone)
        attributes = question_rules.read_rules(fields, _kept(limits, fields), before.attributes, needs)
        name = form.name.strip() if is_visible(form.name) else subscription.name
        change = SubscriptionRequest(
            name=name,
            endpoint_id=ids.decode("whe", form.endpoint),
            definition=msgspec.structs.replace(definition, area=area, attributes=attributes),
        )
        await directory_flow.revise_subscription(pool, viewer.actor, scope, subscription_id, form.version, change)
    except (errors.InvalidInput, errors.Conflict) as error:
        faults = form_faults(error, fields) if isinstance(error, errors.InvalidInput) else {}
        page = _subscription_page(request, viewer, subscription_id)
        return await show_again(request, fields, error, page, faults=faults)
    return redirect(request, f"{HOME}/{order_id}", "Saved. The new rules apply from the next lead.")


@post(f"{HOME}/{{order_id:str}}/switch")
async def set_subscription_state(request: AnyRequest, order_id: FromPath[str]) -> Response[bytes]:
    """Pause, resume or end a subscription. One that has ended cannot be resumed."""
    viewer, form = await submitted(request, SubscriptionStateForm, CallerKind.business)
    if form.state not in ("active", "paused", "ended"):
        raise errors.NotFound("A subscription has no such state. Choose active, paused or ended.")
    subscription_id, pool = path_id("sub", order_id), services(request).pool
    await directory_flow.switch_subscription(pool, viewer.actor, scope_in_mode(viewer), subscription_id, form.state)
    messages = {
        "active": "Resumed: you receive leads again.",
        "paused": "Paused: you receive no leads until you resume.",
        "ended": "Ended. You keep the leads that you have received.",
    }
    return redirect(request, f"{HOME}/{order_id}", messages[form.state])


handlers = (show_subscriptions, show_subscription, change_subscription, set_subscription_state)
