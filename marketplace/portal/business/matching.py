"""Matching rules: which leads a business orders, how many of those there are, and what one may cost."""

from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.flow import SubscriptionRequest
from marketplace.directory.store import SubscriptionRecord, TenantScope
from marketplace.distribution.matching_preview import MatchingPreview, load_previews
from marketplace.portal import charts
from marketplace.portal.business import subscription_form
from marketplace.portal.business.store import PostalLocation
from marketplace.portal.business.subscription_form import AreaForm, LimitsForm
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS
from marketplace.portal.forms import Given, changing, fill, given_again, show_again, submitted, told
from marketplace.portal.frame import badge, redirect, words
from marketplace.portal.listing import Column, Link, Listing, Money
from marketplace.portal.session import Viewer, visitor
from marketplace.rules.catalog import Rules
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.characters import is_visible
from marketplace.web.http import AnyRequest, path_id, services
from routing.subscription import SubscriptionDefinition

HOME = "/business/matching"


class SubscriptionForm(msgspec.Struct, frozen=True, kw_only=True):
    """What an order is called, where its leads go, and the version that was looked at."""

    name: Annotated[str, Meta(max_length=100)]
    endpoint: str
    version: int


class SubscriptionStateForm(msgspec.Struct, frozen=True, kw_only=True):
    """Paused, active again, or ended."""

    state: str


class SubscriptionCard(msgspec.Struct, frozen=True, kw_only=True):
    """One order with its area in words and its preview."""

    order: SubscriptionRecord
    area: str
    supply: MatchingPreview | None


SUBSCRIPTIONS: Final = Listing[SubscriptionCard](
    caption="Orders",
    columns=(
        Column("Order", lambda row: Link(f"{HOME}/{ids.encode('sub', row.order.id)}", row.order.name)),
        Column("Market", lambda row: words(row.order.vertical)),
        Column("Area", lambda row: row.area),
        Column(
            "Price",
            lambda row: Money(row.order.definition.price_minor, row.order.definition.currency),
            style="num",
        ),
        Column("Supply", lambda row: row.supply.words.capitalize() if row.supply else None),
        Column("State", lambda row: badge(row.order.state)),
    ),
)


def country_of(rules: Rules, slug: str) -> str:
    """The country of a market, in which the postal codes of its orders lie."""
    return rules.by_slug[slug].definition.country


def reach_of(viewer: Viewer) -> TenantScope:
    return TenantScope(business_id=viewer.owner, mode=viewer.mode)


@get(HOME)
async def show_subscriptions(request: AnyRequest) -> Response[bytes]:
    """Lists the orders of the business with the preview of each."""
    viewer = await visitor(request, CallerKind.business)
    found = services(request)
    rules = await found.catalog.recent()
    async with session(found.pool) as connection:
        listed = await directory_store.list_subscriptions(connection, reach_of(viewer), None, MOST_SUBSCRIPTIONS)
        shown: dict[UUID, MatchingPreview] = {}
        for slug in {one.vertical for one in listed if one.state != "ended"}:
            alike = [one for one in listed if one.vertical == slug and one.state != "ended"]
            vertical = rules.by_slug.get(slug)
            if vertical is not None:
                previews = await load_previews(connection, vertical, [one.definition for one in alike])
                shown |= {one.id: preview for one, preview in zip(alike, previews, strict=True)}
    rows = [
        SubscriptionCard(order=one, area=subscription_form.area_words(one.definition.area), supply=shown.get(one.id))
        for one in listed
    ]
    return await business_page(request, viewer, "business/subscriptions.html", listing=SUBSCRIPTIONS, rows=rows)


@get(f"{HOME}/{{order_id:str}}")
async def show_subscription(request: AnyRequest, order_id: FromPath[str]) -> Response[bytes]:
    """Shows one order and lets it be changed."""
    viewer = await visitor(request, CallerKind.business)
    return await _subscription_page(request, viewer, path_id("sub", order_id))


async def _subscription_page(
    request: AnyRequest,
    viewer: Viewer,
    order_id: UUID,
) -> Response[bytes]:
    found = services(request)
    async with session(found.pool) as connection:
        order = await directory_store.find_subscription(connection, reach_of(viewer), order_id)
        if order is None:
            raise errors.NotFound(directory_flow.NOT_THERE)
        endpoints = await directory_store.list_endpoints(connection, reach_of(viewer), None, MOST_SUBSCRIPTIONS)
        rules = await found.catalog.recent()
        vertical = rules.by_slug.get(order.vertical)
        known = (await load_previews(connection, vertical, [order.definition]))[0] if vertical else None
        spots = await subscription_form.spots_of(connection, order.definition.area, country_of(rules, order.vertical))
    definition = order.definition
    return await business_page(
        request,
        viewer,
        "business/subscription.html",
        order=order,
        definition=definition,
        endpoints=endpoints,
        supply=known,
        map=draw_area(definition, spots),
        market=vertical.definition if vertical else None,
        week=subscription_form.shown_hours(definition.hours),
        days=subscription_form.WEEK,
        values=subscription_form.fields_of(definition),
        ticks=subscription_form.ticks_of(definition, given_again(request)),
        words_of=subscription_form,
        area=subscription_form.area_words(definition.area),
        mile=subscription_form.MILE_KM,
        home=f"{HOME}/{ids.encode('sub', order.id)}",
    )


def form_faults(error: errors.InvalidInput, given: Given) -> dict[str, str]:
    """The faults of a definition at the fields that it was made from."""
    hours = "spec" if "spec" in given else "from_Mo"
    fields = {
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
    found: dict[str, str] = {}
    for name, detail in told(error).items():
        inner = name.removeprefix("definition/")
        near = next((field for prefix, field in fields.items() if inner.startswith(prefix)), name)
        found.setdefault(near, detail)
    return found


def draw_area(definition: SubscriptionDefinition, spots: tuple[PostalLocation, ...]) -> Markup | None:
    """A map of circles and postal codes, without tiles of anybody's."""
    area = definition.area
    if area.anywhere or not (area.circles or spots):
        return None
    return charts.dot_map(
        "Your area",
        [
            charts.MapDot(name=f"{spot.code} {spot.city}", latitude=spot.latitude, longitude=spot.longitude)
            for spot in spots
        ],
        circles=[(circle.latitude, circle.longitude, circle.km) for circle in area.circles],
        about=subscription_form.area_words(area),
    )


@post(f"{HOME}/{{order_id:str}}", request_max_body_size=subscription_form.BODY_LIMIT)
async def change_subscription(request: AnyRequest, order_id: FromPath[str]) -> Response[bytes]:
    """Makes the next version of an order; leads that are under way keep the one by which they were chosen."""
    viewer, given = await changing(request, CallerKind.business, most_bytes=subscription_form.BODY_LIMIT)
    chosen, pool = path_id("sub", order_id), services(request).pool
    try:
        form, area, limits = fill(SubscriptionForm, given), fill(AreaForm, given), fill(LimitsForm, given)
        async with session(pool) as connection:
            order = await directory_store.find_subscription(connection, reach_of(viewer), chosen)
            if order is None:
                raise errors.NotFound(directory_flow.NOT_THERE)
            rules = await services(request).catalog.recent()
            fresh = await subscription_form.read_area(
                connection, area, given, order.definition, country_of(rules, order.vertical)
            )
        definition = subscription_form.apply_limits(limits, given, order.definition, order.definition.zone)
        definition = msgspec.structs.replace(definition, area=fresh)
        wanted = SubscriptionRequest(
            name=form.name.strip() if is_visible(form.name) else order.name,
            endpoint_id=ids.decode("whe", form.endpoint),
            definition=definition,
        )
        await directory_flow.revise_subscription(pool, viewer.actor, reach_of(viewer), chosen, form.version, wanted)
    except (errors.InvalidInput, errors.Conflict) as error:
        faults = form_faults(error, given) if isinstance(error, errors.InvalidInput) else {}
        return await show_again(request, given, error, _subscription_page(request, viewer, chosen), faults=faults)
    return redirect(request, f"{HOME}/{order_id}", "Saved. The next lead is chosen by these rules.")


@post(f"{HOME}/{{order_id:str}}/switch")
async def set_subscription_state(request: AnyRequest, order_id: FromPath[str]) -> Response[bytes]:
    """Pauses an order, resumes it, or ends it for good."""
    viewer, form = await submitted(request, SubscriptionStateForm, CallerKind.business)
    if form.state not in ("active", "paused", "ended"):
        raise errors.NotFound("There is no such state.")
    chosen = path_id("sub", order_id)
    await directory_flow.switch_subscription(services(request).pool, viewer.actor, reach_of(viewer), chosen, form.state)
    words = {
        "active": "Leads come again.",
        "paused": "Paused: no lead comes until you resume.",
        "ended": "Ended for good.",
    }
    return redirect(request, f"{HOME}/{order_id}", words[form.state])


handlers = (show_subscriptions, show_subscription, change_subscription, set_subscription_state)
