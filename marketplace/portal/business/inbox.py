"""Inbox of a business: leads that wait for a member to take them, each as a card without contact data."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import store as directory_store
from marketplace.feed import store as feed_store
from marketplace.feed.flow import Feed, FeedReader, TakeOutcome
from marketplace.feed.store import InboxLead
from marketplace.portal.business import wording
from marketplace.portal.business.delivery import scope_of
from marketplace.portal.business.subscription_form import MILE_KM
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS
from marketplace.portal.forms import changing, show_again, submitted
from marketplace.portal.frame import money, partial, redirect, words
from marketplace.portal.listing import Column, Listing
from marketplace.portal.live import LivePart, show_part
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.signin import client_of
from marketplace.portal.store import Role
from marketplace.rules.catalog import Rules
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, path_id, services
from marketplace.web_push import flow as push_flow
from marketplace.web_push import store as push_store
from marketplace.web_push.encryption import encode_base64, load_private_key, public_bytes
from marketplace.web_push.flow import BrowserKeys
from marketplace.web_push.store import PushSubscription
from routing.delivery import EndpointKind
from routing.index import IndexEntry, km_between, point_of
from routing.inquiry import Budget, Facts, NeedField, Timing
from routing.lifecycle import AssignmentState
from routing.subscription import Subscription

HOME: Final = "/business/inbox"
SHOWN_CODE: Final = 3
"Characters of a postal code on a card: the district and not the street, which is a part of the contact."
IN_MILES: Final = frozenset({"US", "GB"})
"Countries whose people give distances in miles."


class DeviceForm(msgspec.Struct, frozen=True, kw_only=True):
    """Subscription of the browser that sends it: the URL at its push service, and its keys."""

    url: Annotated[str, Meta(min_length=1, max_length=2_000)]
    p256dh: Annotated[str, Meta(max_length=200)]
    auth: Annotated[str, Meta(max_length=100)]


DEVICES: Final = Listing[PushSubscription](
    caption="Devices",
    columns=(
        Column("Browser", lambda row: row.device or "Unknown"),
        Column("Switched on", lambda row: row.made_at),
    ),
)


class InboxCard(msgspec.Struct, frozen=True, kw_only=True):
    """A lead in the inbox, in words. `opened`: a member opened it and it was not charged, because a process ended."""

    path: str
    title: str
    facts: tuple[tuple[str, str], ...]
    price_minor: int
    currency: str
    until: datetime
    opened: bool


def reader_of(viewer: Viewer) -> FeedReader:
    """Return the viewer as a reader who takes leads in the portal."""
    return FeedReader(
        business_id=viewer.owner, mode=viewer.mode, name=viewer.actor, opened=viewer.opened, channel="portal"
    )


def card_of(row: InboxLead, rules: Rules) -> InboxCard:
    """Return the card of a lead, by the rules that are in force."""
    facts, vertical = row.facts, rules.by_slug.get(row.facts.vertical)
    definition = vertical.definition if vertical else None
    distance = distance_words(facts, rules.index.get(row.subscription_id))
    return InboxCard(
        path=f"{HOME}/{ids.encode('asg', row.assignment_id)}",
        title=definition.name if definition else words(facts.vertical),
        facts=(
            *need_words(facts, definition.needs if definition else {}),
            *_named("Place", ", ".join(part for part in (place_words(facts), distance) if part)),
            *_named("Budget", budget_words(facts.budget)),
            *_named("When", timing_words(facts.timing)),
        ),
        price_minor=row.price_minor,
        currency=row.currency,
        until=row.hold_until,
        opened=row.state is AssignmentState.exposed,
    )


def _named(name: str, text: str) -> tuple[tuple[str, str], ...]:
    return ((name, text),) if text else ()


def need_words(facts: Facts, needs: dict[str, NeedField]) -> tuple[tuple[str, str], ...]:
    """Return the person's answers to the questions of the vertical, each with its question."""
    answers = []
    for name, value in facts.need_fields.items():
        question = (needs[name].label if name in needs else "") or words(name)
        answers.append((question, wording.answer_words(value)))
    return tuple(answers)


def place_words(facts: Facts) -> str:
    """Return the region and the first characters of the postal code: `TX 787…`."""
    code = facts.place.postal_code or ""
    short_code = f"{code[:SHOWN_CODE]}…" if len(code) > SHOWN_CODE else code
    return " ".join(part for part in (facts.place.region, short_code) if part) or facts.place.country


def distance_words(facts: Facts, subscription: Subscription | None) -> str:
    """Return the distance from the nearest centre of the subscription's area; empty if it has none."""
    point = point_of(facts.place)
    if subscription is None or point is None:
        return ""
    distances = [km_between(disc, point) for disc in IndexEntry(subscription).discs]
    if not distances:
        return ""
    in_miles = facts.place.country in IN_MILES
    distance = round(min(distances) / (MILE_KM if in_miles else 1))
    if distance < 2:
        return "about a mile away" if in_miles else "about 1 km away"
    return f"{distance} miles away" if in_miles else f"{distance} km away"


def budget_words(budget: Budget | None) -> str:
    """Return `$12,000`, or both ends of a range."""
    if budget is None:
        return ""
    least = rounded(budget.minor, budget.currency)
    if budget.maximum_minor is None or budget.maximum_minor == budget.minor:
        return least
    return f"{least} to {rounded(budget.maximum_minor, budget.currency)}"


def rounded(minor: int, currency: str) -> str:
    """Return an amount without its cents if it has none: `$12,000`."""
    return money(minor, currency).removesuffix(".00")


def timing_words(timing: Timing | None) -> str:
    """Return when the person wants it: `Within 14 days`, `From 3 Mar 2027`."""
    if timing is None:
        return ""
    if timing.not_before is not None:
        return f"From {timing.not_before:%-d %b %Y}"
    match timing.within_days:
        case None:
            return ""
        case 0:
            return "Today"
        case 1:
            return "Within a day"
        case days:
            return f"Within {days} days"


# Pages.


def _feed(request: AnyRequest) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


async def make_cards(request: AnyRequest, viewer: Viewer) -> str:
    """Render the cards of the leads that wait now."""
    rows = await _feed(request).open_inbox(reader_of(viewer))
    rules = await services(request).catalog.recent()
    cards = [card_of(row, rules) for row in rows]
    return partial(request, viewer, "business/inbox_cards.html", cards=cards, single=False)


CARDS_PART: Final = LivePart(name="business.inbox", kinds=(CallerKind.business,), make=make_cards)


@get(HOME)
async def show_inbox(request: AnyRequest) -> Response[bytes]:
    """Show the leads that wait, each with a button to take it."""
    return await _inbox_page(request, await visitor(request, CallerKind.business))


async def _inbox_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    app = services(request)
    async with session(app.pool) as connection:
        endpoints = await directory_store.list_endpoints(connection, scope_of(viewer), None, MOST_SUBSCRIPTIONS)
        devices = await push_store.list_of_member(connection, viewer.member_id)
    private = app.settings.vapid_private_key
    inbox = next((endpoint for endpoint in endpoints if endpoint.kind is EndpointKind.inbox), None)
    return await business_page(
        request,
        viewer,
        "business/inbox.html",
        inbox=inbox,
        cards=await show_part(request, viewer, CARDS_PART),
        push_key=encode_base64(public_bytes(load_private_key(private))) if private else "",
        listing=DEVICES,
        devices=devices,
    )


ENDED: Final = {
    TakeOutcome.missed: "Nobody took this lead in time, so it went to another business. You were not charged.",
    TakeOutcome.withdrawn: "The person took back their request, so nobody can take this lead. You were not charged.",
}
"Sentences about a lead that can no longer be taken."


@get(f"{HOME}/{{assignment_id:str}}")
async def show_inbox_lead(request: AnyRequest, assignment_id: FromPath[str]) -> Response[bytes]:
    """Show one lead of the inbox, for links in messages. Looking at it takes nothing."""
    viewer = await visitor(request, CallerKind.business)
    internal_id = path_id("asg", assignment_id)
    return await _lead_page(request, viewer, internal_id)


async def _lead_page(request: AnyRequest, viewer: Viewer, assignment_id: UUID) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        row = await feed_store.find_inbox_lead(connection, assignment_id, viewer.owner, viewer.mode)
    if row is None:
        raise errors.NotFound("There is no lead with this id in your inbox.")
    if row.state in (AssignmentState.delivered, AssignmentState.returned):
        return redirect(request, f"/business/leads/{ids.encode('lead', row.lead_id)}")
    card = card_of(row, await services(request).catalog.recent())
    return await business_page(request, viewer, "business/inbox_lead.html", card=card, row=row)


@post(f"{HOME}/{{assignment_id:str}}/take")
async def take_lead(request: AnyRequest, assignment_id: FromPath[str]) -> Response[bytes]:
    """Take a lead: it is charged, and its page shows the contact."""
    viewer, fields = await changing(request, CallerKind.business)
    outcome, row = await _feed(request).take(reader_of(viewer), path_id("asg", assignment_id))
    request.app.state.live.listener.wake(viewer.account)
    path = f"/business/leads/{ids.encode('lead', row.lead_id)}"
    if outcome is TakeOutcome.taken:
        return redirect(request, path, "This lead is yours alone. Call now: the first minutes count most.")
    if outcome is TakeOutcome.repeated:
        return redirect(request, path, "You or a colleague had taken this lead already. It was charged once.")
    return await show_again(request, fields, errors.Conflict(ENDED[outcome]), _inbox_page(request, viewer))


@post(f"{HOME}/devices")
async def add_device(request: AnyRequest) -> Response[bytes]:
    """Notify the member on this browser from now on."""
    viewer, form = await submitted(request, DeviceForm, CallerKind.business)
    app, keys = services(request), BrowserKeys(p256dh=form.p256dh, auth=form.auth)
    device = client_of(request).device
    await push_flow.subscribe(app.pool, app.sealer, app.guard, viewer.member_id, form.url, keys, device)
    return redirect(request, HOME, "This device shows new leads from now on.")


@post(f"{HOME}/devices/{{device_id:str}}/remove")
async def remove_device(request: AnyRequest, device_id: FromPath[str]) -> Response[bytes]:
    """Notify the member on this browser no more."""
    viewer, _ = await changing(request, CallerKind.business, role=Role.viewer)
    await push_flow.unsubscribe(services(request).pool, viewer.member_id, path_id("psh", device_id))
    return redirect(request, HOME, "This device shows no new leads any more.")


handlers = (show_inbox, show_inbox_lead, take_lead, add_device, remove_device)
