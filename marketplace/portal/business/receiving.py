"""Page "How do you want to receive leads?": the ways to receive them, what each subscription uses, and their set-up."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.store import Endpoint
from marketplace.portal.business import wording
from marketplace.portal.business.delivery import ENDPOINT_STATES, caller_of, scope_of
from marketplace.portal.business.matching import scope_in_mode
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS
from marketplace.portal.forms import changing, fill, label, show_again, show_form
from marketplace.portal.frame import badge, redirect
from marketplace.portal.listing import Column, Listing
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import errors
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, path_id, services
from routing.delivery import EndpointKind

HOME: Final = "/business/receiving"
MINUTES: Final = ("2", "5", "10", "15")
"Choices of the time for which a lead is held, in minutes."


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """A way to receive leads as the page offers it. `path` is the page of its set-up; empty if it is set up here."""

    kind: EndpointKind | None
    title: str
    text: str
    path: str = ""
    act: str = ""


WAYS: Final = (
    Way(
        kind=EndpointKind.inbox,
        title="Here and on my phone",
        text="A lead appears in your inbox. You or a colleague take it with one tap. You need nothing else.",
    ),
    Way(
        kind=EndpointKind.email,
        title="By e-mail",
        text="A message for each lead, with the name and phone number or with a link to take it here.",
        path="/business/delivery",
        act="Enter the e-mail address",
    ),
    Way(
        kind=None,
        title="In my CRM or automation",
        text="We post each lead to the web address that your CRM or automation gives you.",
        path="/business/delivery",
        act="Enter the address",
    ),
    Way(
        kind=EndpointKind.push,
        title="On my own server",
        text="We post each lead to your server, signed. For businesses with a developer.",
        path="/business/delivery",
        act="Enter the address",
    ),
    Way(
        kind=EndpointKind.feed,
        title="In a feed",
        text="Your software reads your leads from us with a key. For businesses with a developer and no server.",
    ),
)
"The ways in the order of the page: first those that need no developer."


class InboxForm(msgspec.Struct, frozen=True, kw_only=True):
    """Set-up of the inbox."""

    minutes: Annotated[
        Literal["2", "5", "10", "15"],
        label(
            "Minutes to take a lead",
            "Then it goes to the next business. More than 2 minutes count only where the service allows leads to wait.",
        ),
    ] = "10"
    use: Annotated[bool, label("Send the leads of all my subscriptions here")] = False


def ways_listing(used_by: Mapping[UUID | None, int]) -> Listing[Endpoint]:
    """Return the list of a business's ways, each with the number of subscriptions that use it."""
    return Listing(
        caption="Your ways to receive leads",
        columns=(
            Column("Way", lambda endpoint: wording.endpoint_name(endpoint.kind, endpoint.url), names_row=True),
            Column("State", lambda endpoint: badge(*ENDPOINT_STATES[endpoint.state])),
            Column("Subscriptions", lambda endpoint: used_by.get(endpoint.id, 0), style="num"),
        ),
    )


@get(HOME)
async def show_receiving(request: AnyRequest) -> Response[bytes]:
    """Show the ways to receive leads."""
    return await _receiving_page(request, await visitor(request, CallerKind.business))


async def _receiving_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        endpoints = await directory_store.list_endpoints(connection, scope_of(viewer), None, MOST_SUBSCRIPTIONS)
        subscriptions = await directory_store.list_subscriptions(
            connection, scope_in_mode(viewer), None, MOST_SUBSCRIPTIONS
        )
    current = [subscription for subscription in subscriptions if subscription.state != "ended"]
    inbox = find_inbox(endpoints)
    sends_mail = services(request).settings.mail is not None
    takes_all = inbox is None or all(subscription.endpoint_id == inbox.id for subscription in current)
    values = {"minutes": str(inbox.hold_seconds // 60) if inbox else InboxForm().minutes, "use": takes_all}
    return await business_page(
        request,
        viewer,
        "business/receiving.html",
        ways=[way for way in WAYS if sends_mail or way.kind is not EndpointKind.email],
        endpoints=endpoints,
        kinds={endpoint.kind for endpoint in endpoints},
        inbox=inbox,
        listing=ways_listing(Counter(subscription.endpoint_id for subscription in current)),
        form=show_form(InboxForm, values, {"minutes": [(minutes, minutes) for minutes in MINUTES]}),
        home=HOME,
    )


def find_inbox(endpoints: tuple[Endpoint, ...]) -> Endpoint | None:
    """Return the inbox of a business: its newest, if it has several."""
    return next((endpoint for endpoint in endpoints if endpoint.kind is EndpointKind.inbox), None)


@post(f"{HOME}/inbox")
async def set_up_inbox(request: AnyRequest) -> Response[bytes]:
    """Make the inbox, or change for how long its leads are held; and send the leads of all subscriptions there."""
    viewer, fields = await changing(request, CallerKind.business)
    pool = services(request).pool
    try:
        form = fill(InboxForm, fields)
        seconds = 60 * int(form.minutes)
        async with session(pool) as connection:
            endpoints = await directory_store.list_endpoints(connection, scope_of(viewer), None, MOST_SUBSCRIPTIONS)
        inbox = find_inbox(endpoints)
        if inbox is None:
            inbox = await directory_flow.create_serverless(
                pool, viewer.actor, viewer.owner, EndpointKind.inbox, seconds
            )
        else:
            await directory_flow.set_hold(pool, caller_of(viewer), scope_of(viewer), inbox.id, seconds)
        if form.use:
            await directory_flow.use_endpoint(pool, viewer.actor, scope_in_mode(viewer), inbox.id)
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, fields, error, _receiving_page(request, viewer))
    return redirect(request, HOME, "Saved. Try it: a practice lead shows how a lead is taken.")


@post(f"{HOME}/feed")
async def set_up_feed(request: AnyRequest) -> Response[bytes]:
    """Make a feed, which the business's software reads with a key."""
    viewer, _ = await changing(request, CallerKind.business)
    pool = services(request).pool
    await directory_flow.create_serverless(pool, viewer.actor, viewer.owner, EndpointKind.feed)
    return redirect(request, HOME, "Your feed is ready. Make a key for the software that reads it.")


@post(f"{HOME}/{{endpoint_id:str}}/use")
async def use_endpoint(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Send the leads of all subscriptions to an endpoint from now on."""
    viewer, fields = await changing(request, CallerKind.business)
    pool, scope = services(request).pool, scope_in_mode(viewer)
    try:
        count = await directory_flow.use_endpoint(pool, viewer.actor, scope, path_id("whe", endpoint_id))
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, fields, error, _receiving_page(request, viewer))
    changed = "1 subscription was" if count == 1 else f"{count} subscriptions were"
    return redirect(request, HOME, f"{changed} changed. It holds from the next lead.")


handlers = (show_receiving, set_up_inbox, set_up_feed, use_endpoint)
