"""Practice lead of the inbox: an invented lead of the vertical, and a notification on the member's devices."""

from typing import Any, Final

from litestar import Response, get, post

from marketplace.database.db import session
from marketplace.directory import store as directory_store
from marketplace.directory.spec import posting_spec
from marketplace.portal.business import inbox, wording
from marketplace.portal.business.inbox import InboxCard
from marketplace.portal.business.lead_list import spaced
from marketplace.portal.business.matching import scope_in_mode
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS
from marketplace.portal.forms import changing
from marketplace.portal.frame import redirect, words
from marketplace.portal.session import visitor
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services
from marketplace.web_push import store as push_store
from marketplace.web_push.encryption import load_private_key
from marketplace.web_push.flow import PushSender
from routing.delivery import HOLD_WINDOW

HOME: Final = f"{inbox.HOME}/practice"
PRICE_MINOR: Final = 5_000
"Price on the card of a business without a subscription."


@get(HOME)
async def show_practice(request: AnyRequest) -> Response[bytes]:
    """Show an invented lead as a card, and after the button its contact. Nothing is stored."""
    viewer = await visitor(request, CallerKind.business)
    app = services(request)
    rules = await app.catalog.recent()
    async with session(app.pool) as connection:
        subscriptions = await directory_store.list_subscriptions(
            connection, scope_in_mode(viewer), None, MOST_SUBSCRIPTIONS
        )
        devices = await push_store.list_of_member(connection, viewer.member_id)
    subscription = next((each for each in subscriptions if each.state != "ended"), None)
    vertical = rules.by_slug.get(subscription.vertical) if subscription else None
    vertical = vertical or next(iter(rules.by_slug.values()), None)
    if vertical is None:
        raise errors.NotFound("The marketplace offers no service yet, so there is no lead to practise with.")
    example = posting_spec(vertical, clock.now()).example
    price_minor = subscription.definition.price_minor if subscription else PRICE_MINOR
    return await business_page(
        request,
        viewer,
        "business/practice_lead.html",
        card=_card(vertical, example, price_minor),
        taken="taken" in request.query_params,
        contact=_contact(example["contact"]),
        devices=devices if app.settings.vapid_private_key else (),
    )


def _card(vertical: Vertical, example: dict[str, Any], price_minor: int) -> InboxCard:
    """Return the card of the example that the vertical's posting spec has."""
    bant, needs = example["bant"], vertical.definition.needs
    answers = bant["need"].get("fields", {})
    budget = bant["budget"]
    return InboxCard(
        path=HOME,
        title=vertical.definition.name,
        facts=(
            *((needs[name].label or words(name), wording.answer_words(value)) for name, value in answers.items()),
            ("Place", "4 miles away"),
            ("Budget", inbox.rounded(budget["minor"], budget["currency"])),
            ("When", f"Within {bant['timing']['within_days']} days"),
        ),
        price_minor=price_minor,
        currency=vertical.definition.currency,
        until=clock.now() + HOLD_WINDOW,
        opened=False,
    )


def _contact(contact: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    named = (
        ("Name", contact["full_name"]),
        ("Phone", spaced(contact.get("phone"))),
        ("E-mail", contact.get("email")),
    )
    return tuple((name, text) for name, text in named if text)


@post(HOME)
async def send_practice(request: AnyRequest) -> Response[bytes]:
    """Send a practice notification to the member's devices."""
    viewer, _ = await changing(request, CallerKind.business)
    app = services(request)
    private = app.settings.vapid_private_key
    if private is None:
        return redirect(request, HOME, "The marketplace has not switched on notifications.")
    sender = PushSender(
        app.pool, app.catalog, app.sealer, app.guard, load_private_key(private), app.settings.public_url
    )
    count = await sender.send_practice(viewer.member_id)
    sent = "1 device" if count == 1 else f"{count} devices"
    return redirect(request, HOME, f"Sent to {sent}. It appears within seconds.")


handlers = (show_practice, send_practice)
