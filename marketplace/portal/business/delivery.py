"""Delivery: where leads go, how that place does, every attempt, and a try by hand."""

from datetime import timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.store import Endpoint, TenantScope
from marketplace.feedback import flow as feedback_flow
from marketplace.feedback.http import HOOK_PATH
from marketplace.feedback.store import find_hook as load_hook
from marketplace.portal.business import delivery_trial, store, wording
from marketplace.portal.business.delivery_trial import DeliveryTrial
from marketplace.portal.business.leads import holder_of
from marketplace.portal.business.store import BusinessAttempt
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS
from marketplace.portal.forms import changing, fill, show_again, show_form, submitted
from marketplace.portal.frame import badge, redirect, short
from marketplace.portal.listing import Column, Link, Listing, only_in_file, took
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind, Principal
from marketplace.text.values import read_instant
from marketplace.web.http import AnyRequest, page_limit, path_id, services, wants_csv
from routing.lifecycle import AssignmentState

HOME: Final = "/business/delivery"
DAY: Final = timedelta(hours=24)


class UrlForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new place to deliver to."""

    url: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2_000,
            title="Address of your server",
            extra={"kind": "url", "placeholder": "https://crm.example.com/leads"},
        ),
    ]


class EndpointForm(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with an endpoint."""

    act: Annotated[str, Meta(pattern="^(verify|test|rotate|end_previous|on|off)$")]


class HookForm(msgspec.Struct, frozen=True, kw_only=True):
    """Make a secret for reports, or end the one before it."""

    act: Literal["make", "end_previous"] = "make"


class ResendForm(msgspec.Struct, frozen=True, kw_only=True):
    """Which lead to send once more, by its public id."""

    lead: str


def _lead_id(attempt: BusinessAttempt) -> str:
    return ids.encode("lead", attempt.lead_id)


def _lead(attempt: BusinessAttempt) -> object:
    """Return the lead, with a link if the business was shown it."""
    text = short(_lead_id(attempt))
    if attempt.state in (AssignmentState.held, AssignmentState.released):
        return text
    return Link(f"/business/leads/{_lead_id(attempt)}", text)


def _outcome(attempt: BusinessAttempt) -> Markup:
    tone = wording.OUTCOME_TONES.get(attempt.outcome, "muted")
    return badge(wording.OUTCOMES.get(attempt.outcome, attempt.outcome), tone)


ATTEMPTS: Final = Listing[BusinessAttempt](
    caption="Attempts",
    name="attempts",
    columns=(
        Column("Began", lambda attempt: attempt.started_at, file="started_at", time="second"),
        Column("Lead", _lead, file="lead", value=_lead_id),
        only_in_file("endpoint", lambda attempt: ids.encode("whe", attempt.endpoint_id)),
        only_in_file("attempt", lambda attempt: attempt.attempt_no),
        Column(
            "Outcome",
            _outcome,
            file="outcome",
            value=lambda attempt: wording.OUTCOMES.get(attempt.outcome, attempt.outcome),
        ),
        only_in_file("status", lambda attempt: attempt.status),
        Column(
            "What happened",
            lambda attempt: wording.attempt_words(attempt.outcome, attempt.reason, attempt.status),
            file="what",
        ),
        Column(
            "Took",
            lambda attempt: took(attempt.total_ms),
            file="total_ms",
            value=lambda attempt: round(attempt.total_ms),
            style="num",
        ),
    ),
)


def caller_of(viewer: Viewer) -> Principal:
    """The member as the flows of the directory know callers; endpoints serve both modes."""
    return Principal(key_id=viewer.actor, kind=CallerKind.business, owner_id=viewer.owner, mode="live")


def own(viewer: Viewer) -> TenantScope:
    return TenantScope(business_id=viewer.owner, mode=None)


@get(HOME)
async def show_delivery(request: AnyRequest) -> Response[bytes]:
    """Shows the endpoints with their health, and every attempt."""
    viewer = await visitor(request, CallerKind.business)
    if wants_csv(request):
        attempts = (await _attempts(request, viewer, 2_000))[0]
        return await ATTEMPTS.download(attempts)
    return await _delivery_page(request, viewer)


async def _attempts(request: AnyRequest, viewer: Viewer, limit: int) -> tuple[tuple[BusinessAttempt, ...], str | None]:
    asked = request.query_params
    lead, endpoint = asked.get("lead"), asked.get("endpoint")
    async with session(services(request).reports) as connection:
        found = await store.list_attempts(
            connection,
            viewer.owner,
            viewer.mode,
            read_instant(asked.get("cursor")),
            limit + 1,
            outcome=asked["outcome"] if asked.get("outcome") in wording.OUTCOMES else None,
            lead_id=path_id("lead", lead) if lead else None,
            endpoint_id=path_id("whe", endpoint) if endpoint else None,
        )
    return found[:limit], found[limit - 1].started_at.isoformat() if len(found) > limit else None


async def _delivery_page(
    request: AnyRequest,
    viewer: Viewer,
    *,
    endpoint: Endpoint | None = None,
    secret: str = "",
    trial: DeliveryTrial | None = None,
    hook: tuple[str, str] | None = None,
) -> Response[bytes]:
    now = clock.now()
    attempts, cursor = await _attempts(request, viewer, page_limit(request))
    async with session(services(request).pool) as connection:
        endpoints = await directory_store.list_endpoints(connection, own(viewer), None, MOST_SUBSCRIPTIONS)
        health = await store.list_health(connection, viewer.owner, now - DAY)
        kept_hook = await load_hook(connection, viewer.owner)
    return await business_page(
        request,
        viewer,
        "business/delivery.html",
        endpoints=endpoints,
        health=health,
        form=show_form(UrlForm),
        listing=ATTEMPTS,
        attempts=attempts,
        next_cursor=cursor,
        endpoint=endpoint,
        secret=secret,
        trial=trial,
        hook=hook,
        hook_overlaps=bool(kept_hook and kept_hook.previous_until and kept_hook.previous_until > now),
        origin=services(request).settings.public_url,
    )


@post(HOME)
async def add_endpoint(request: AnyRequest) -> Response[bytes]:
    """Registers a place to deliver to and shows its secret, this once."""
    viewer, given = await changing(request, CallerKind.business)
    found = services(request)
    try:
        form = fill(UrlForm, given)
        made, secret = await directory_flow.create_endpoint(
            found.pool,
            found.sealer,
            found.guard,
            viewer.actor,
            viewer.owner,
            form.url.strip(),
            viewer.opened,
        )
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, given, error, _delivery_page(request, viewer))
    return await _delivery_page(request, viewer, endpoint=made, secret=secret)


@post(f"{HOME}/{{endpoint_id:str}}")
async def change_endpoint(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Proves an endpoint, tries it with a test lead, makes it a new secret, or switches it."""
    viewer, form = await submitted(request, EndpointForm, CallerKind.business)
    found, chosen, caller = services(request), path_id("whe", endpoint_id), caller_of(viewer)
    try:
        match form.act:
            case "verify":
                await directory_flow.verify_endpoint(found.pool, found.sealer, found.guard, caller, own(viewer), chosen)
                return redirect(request, HOME, "Proved: this address is yours. Leads may be sent there.")
            case "rotate":
                endpoint, secret = await directory_flow.rotate_secret(
                    found.pool, found.sealer, caller, own(viewer), chosen
                )
                return await _delivery_page(request, viewer, endpoint=endpoint, secret=secret)
            case "end_previous":
                await directory_flow.end_previous_secret(found.pool, caller, own(viewer), chosen)
                return redirect(request, HOME, "The old secret has ended: requests are signed with the new one alone.")
            case "test":
                return await _delivery_page(request, viewer, trial=await try_endpoint(request, viewer, chosen))
            case "on" | "off":
                state = "active" if form.act == "on" else "disabled"
                await directory_flow.switch_endpoint(found.pool, caller, own(viewer), chosen, state)
    except errors.Conflict as error:
        return await show_again(request, {}, error, _delivery_page(request, viewer))
    return redirect(request, HOME, "Switched on." if form.act == "on" else "Switched off: no lead is sent there.")


async def try_endpoint(
    request: AnyRequest, viewer: Viewer, endpoint_id: UUID, slug: str | None = None
) -> DeliveryTrial:
    """Sends a test lead of a market that the business orders, or of any. Raises NotFound, Conflict."""
    found = services(request)
    rules = await found.catalog.recent()
    async with session(found.pool) as connection:
        endpoint = await directory_store.find_endpoint(connection, own(viewer), endpoint_id)
        subscriptions = await directory_store.list_subscriptions(connection, own(viewer), None, MOST_SUBSCRIPTIONS)
    if endpoint is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    subscription = next(
        (one for one in subscriptions if one.endpoint_id == endpoint_id), subscriptions[0] if subscriptions else None
    )
    vertical = rules.by_slug.get(slug or (subscription.vertical if subscription else "")) or next(
        iter(rules.by_slug.values()), None
    )
    if vertical is None:
        raise errors.Conflict("There is no market yet.")
    price = subscription.definition.price_minor if subscription else 100
    return await delivery_trial.send_test_lead(found, viewer.actor, viewer.owner, endpoint, vertical, price)


@post(f"{HOME}/resend")
async def resend(request: AnyRequest) -> Response[bytes]:
    """Sends a delivered lead once more; nothing is charged again."""
    viewer, form = await submitted(request, ResendForm, CallerKind.business)
    found = services(request)
    try:
        trial = await delivery_trial.send_again(found, holder_of(viewer), viewer.mode, path_id("lead", form.lead))
    except errors.Conflict as error:
        return await show_again(request, {}, error, _delivery_page(request, viewer))
    return await _delivery_page(request, viewer, trial=trial)


@post(f"{HOME}/hook")
async def make_hook(request: AnyRequest) -> Response[bytes]:
    """Makes the secret by which the business's own systems sign what became of leads, or ends the one before it."""
    viewer, form = await submitted(request, HookForm, CallerKind.business)
    found = services(request)
    if form.act == "end_previous":
        await feedback_flow.end_previous_secret(found.pool, holder_of(viewer))
        return redirect(request, HOME, "The old secret has ended: reports that are signed with it are refused.")
    _, secret = await feedback_flow.make_hook(found.pool, found.sealer, holder_of(viewer))
    path = f"{found.settings.public_url}{HOOK_PATH}/{ids.encode('biz', viewer.owner)}"
    return await _delivery_page(request, viewer, hook=(path, secret))


handlers = (show_delivery, add_endpoint, resend, make_hook, change_endpoint)
