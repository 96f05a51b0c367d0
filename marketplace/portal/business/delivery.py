"""Delivery page: the endpoints of a business with their health, every attempt, and test deliveries."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, TypeGuard
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.delivery.bounces import ListedBounce, list_bounces
from marketplace.delivery.store import MailMode
from marketplace.directory import flow as directory_flow
from marketplace.directory import mappings
from marketplace.directory import store as directory_store
from marketplace.directory.mail_endpoints import MailDesk, MailDraft, MailTerms
from marketplace.directory.store import Endpoint, TenantScope
from marketplace.feedback import flow as feedback_flow
from marketplace.feedback.http import HOOK_PATH
from marketplace.feedback.store import find_hook as load_hook
from marketplace.intake.contact import LONGEST_EMAIL
from marketplace.portal.business import delivery_trial, store, wording
from marketplace.portal.business.delivery_trial import DeliveryTrial
from marketplace.portal.business.leads import holder_of
from marketplace.portal.business.store import BusinessAttempt, EndpointHealth
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS
from marketplace.portal.forms import changing, fill, label, show_again, show_form, submitted
from marketplace.portal.frame import badge, redirect, short
from marketplace.portal.listing import TOOK, TOOK_MS, Column, Link, Listing, muted, only_in_file, took
from marketplace.portal.paging import list_limit
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind, Principal
from marketplace.text.values import read_instant
from marketplace.web.http import AnyRequest, path_id, services, wants_csv
from routing.delivery import breaker_percent
from routing.lifecycle import AssignmentState

HOME: Final = "/business/delivery"
DAY: Final = timedelta(hours=24)


Url = Annotated[
    str,
    Meta(min_length=1, max_length=2_000, extra={"kind": "url", "placeholder": "https://crm.example.com/leads"}),
]


class UrlForm(msgspec.Struct, frozen=True, kw_only=True):
    """Address of a new endpoint."""

    url: Annotated[Url, label("Address of your server")]


class MailForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new endpoint that sends e-mail."""

    address: Annotated[
        Annotated[str, Meta(min_length=1, max_length=LONGEST_EMAIL)],
        label("E-mail address", "We send a message there first. Open its link to confirm the address.", kind="email"),
    ]
    mode: Annotated[MailMode, label("What the e-mail holds")] = MailMode.link
    with_adf: Annotated[bool, label("Attach the lead as ADF/XML, for a CRM that reads e-mail")] = False


class EndpointForm(msgspec.Struct, frozen=True, kw_only=True):
    """Action on an endpoint."""

    act: Annotated[str, Meta(pattern="^(verify|test|rotate|end_previous|on|off|confirm|test_mail|link|full|full_adf)$")]


class HookForm(msgspec.Struct, frozen=True, kw_only=True):
    """Request to make a secret for reported outcomes, or to end the previous one."""

    act: Literal["make", "end_previous"] = "make"


class ResendForm(msgspec.Struct, frozen=True, kw_only=True):
    """Public id of the lead to send again."""

    lead: str


def _lead_id(attempt: BusinessAttempt) -> str:
    return ids.encode("lead", attempt.lead_id)


def _lead(attempt: BusinessAttempt) -> object:
    """Return the lead's id, with a link if the lead was shown to the business."""
    text = short(_lead_id(attempt))
    if attempt.state in (AssignmentState.held, AssignmentState.released):
        return text
    return Link(f"/business/leads/{_lead_id(attempt)}", text)


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
            lambda attempt: wording.outcome_badge(attempt.outcome),
            file="outcome",
            value=lambda attempt: wording.OUTCOMES.get(attempt.outcome, attempt.outcome),
        ),
        only_in_file("status", lambda attempt: attempt.status),
        Column(
            "What happened",
            lambda attempt: wording.attempt_words(attempt.outcome, attempt.reason, attempt.status),
            file="what",
        ),
        TOOK,
        TOOK_MS,
    ),
)


def _bounced_lead(bounce: ListedBounce) -> object:
    """Return the lead whose message came back, with a link; None for a message without a contact."""
    if bounce.lead_id is None:
        return None
    public = ids.encode("lead", bounce.lead_id)
    return Link(f"/business/leads/{public}", short(public))


BOUNCES: Final = Listing[ListedBounce](
    caption="Messages that came back",
    columns=(
        Column("When", lambda bounce: bounce.received_at, time="minute"),
        Column("Address", lambda bounce: bounce.address),
        Column("Reason", lambda bounce: wording.bounce_words(bounce.status)),
        Column("Lead", _bounced_lead),
    ),
)
MOST_BOUNCES: Final = 20
"Newest messages that came back, on the page."


ENDPOINT_STATES: Final = {
    "active": ("Active", "good"),
    "unverified": ("Not verified", "warn"),
    "disabled": ("Off", "muted"),
}


MAIL_MODES: Final = {
    MailMode.link: "A link: take the lead on this site",
    MailMode.full: "The name and phone number",
}
"Words of the two kinds of messages."


def _where(endpoint: Endpoint) -> object:
    """Return where an endpoint receives leads: a URL, an e-mail address with its kind of message, or a place."""
    if endpoint.address is None or endpoint.mail_mode is None:
        return wording.endpoint_name(endpoint.kind, endpoint.url)
    return endpoint.address, muted(MAIL_MODES[endpoint.mail_mode])


def endpoint_listing(health: Mapping[UUID, EndpointHealth], now: datetime) -> Listing[Endpoint]:
    """Return the list of endpoints, each with its health in the last 24 hours."""

    def state(endpoint: Endpoint) -> tuple[object, ...]:
        if endpoint.breaker_open_until and endpoint.breaker_open_until > now:
            return badge("Paused after failures", "bad"), muted("next try"), endpoint.breaker_open_until
        state_badge = badge(*ENDPOINT_STATES[endpoint.state])
        figures = health.get(endpoint.id)
        percent = breaker_percent(figures.breaker, now) if figures else 0
        if percent == 0 or endpoint.state != "active":
            return (state_badge,)
        return state_badge, badge(f"{percent}% of the failures that pause it", "bad" if percent >= 90 else "warn")

    def phases(endpoint: Endpoint) -> tuple[object, ...] | None:
        figures = health.get(endpoint.id)
        if figures is None:
            return None
        times = (
            ("Look-up", figures.dns_ms),
            ("connection", figures.connect_ms),
            ("encryption", figures.tls_ms),
            ("answer", figures.first_byte_ms),
        )
        return tuple(
            muted(f"{name} {took(phase[0])}, 95% within {took(phase[1])}") for name, phase in times if _measured(phase)
        )

    def received(endpoint: Endpoint) -> str | None:
        figures = health.get(endpoint.id)
        return f"{figures.accepted} of {figures.attempts}" if figures else None

    def last_failure(endpoint: Endpoint) -> object:
        figures = health.get(endpoint.id)
        if figures is None or figures.last_failed_at is None:
            return "None"
        return wording.attempt_words("", figures.last_reason or "", figures.last_status), figures.last_failed_at

    def percentile(name: str) -> Callable[[Endpoint], str]:
        return lambda endpoint: took(getattr(health.get(endpoint.id), name, None))

    return Listing(
        caption="Endpoints",
        columns=(
            Column("Address", _where),
            Column("State", state),
            Column("Received", received, style="num"),
            Column("Median", percentile("p50_ms"), style="num"),
            Column("95%", percentile("p95_ms"), style="num"),
            Column("Why is it slow?", phases),
            Column("Last failure", last_failure),
        ),
    )


def _measured(phase: tuple[float | None, ...] | None) -> TypeGuard[tuple[float, float]]:
    """Return whether a phase has figures."""
    return phase is not None and None not in phase


def caller_of(viewer: Viewer) -> Principal:
    """Return the viewer as a caller of the directory's flows; always live, because endpoints serve both modes."""
    return Principal(key_id=viewer.actor, kind=CallerKind.business, owner_id=viewer.owner, mode="live")


def scope_of(viewer: Viewer) -> TenantScope:
    """Return the scope of the business in both modes."""
    return TenantScope(business_id=viewer.owner, mode=None)


@get(HOME)
async def show_delivery(request: AnyRequest) -> Response[bytes]:
    """Show the endpoints with their health, and the attempts, on a page or as a file."""
    viewer = await visitor(request, CallerKind.business)
    if wants_csv(request):
        attempts = (await _attempts(request, viewer, 2_000))[0]
        return await ATTEMPTS.download(attempts)
    return await _delivery_page(request, viewer)


async def _attempts(request: AnyRequest, viewer: Viewer, limit: int) -> tuple[tuple[BusinessAttempt, ...], str | None]:
    """Return the attempts that the address asks for, newest first, and the cursor of the next page."""
    query = request.query_params
    lead, endpoint, outcome = query.get("lead"), query.get("endpoint"), query.get("outcome")
    lead_id = path_id("lead", lead) if lead else None
    endpoint_id = path_id("whe", endpoint) if endpoint else None
    valid_outcome = outcome if outcome in wording.OUTCOMES else None
    async with session(services(request).reports) as connection:
        attempts = await store.list_attempts(
            connection,
            viewer.owner,
            viewer.mode,
            read_instant(query.get("cursor")),
            limit + 1,
            outcome=valid_outcome,
            lead_id=lead_id,
            endpoint_id=endpoint_id,
        )
    return attempts[:limit], attempts[limit - 1].started_at.isoformat() if len(attempts) > limit else None


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
    attempts, cursor = await _attempts(request, viewer, list_limit(request))
    async with session(services(request).pool) as connection:
        endpoints = await directory_store.list_endpoints(connection, scope_of(viewer), None, MOST_SUBSCRIPTIONS)
        health = await store.list_health(connection, viewer.owner, now - DAY)
        current_hook = await load_hook(connection, viewer.owner)
        bounces = await list_bounces(connection, viewer.owner, MOST_BOUNCES)
    return await business_page(
        request,
        viewer,
        "business/delivery.html",
        endpoint_listing=endpoint_listing(health, now),
        endpoints=endpoints,
        form=show_form(UrlForm),
        mail_form=show_form(MailForm, options={"mode": list(MAIL_MODES.items())}),
        sends_mail=services(request).settings.mail is not None,
        bounce_listing=BOUNCES,
        bounces=bounces,
        listing=ATTEMPTS,
        attempts=attempts,
        next_cursor=cursor,
        endpoint=endpoint,
        secret=secret,
        trial=trial,
        hook=hook,
        hook_overlaps=bool(current_hook and current_hook.previous_until and current_hook.previous_until > now),
        origin=services(request).settings.public_url,
    )


@post(HOME)
async def add_endpoint(request: AnyRequest) -> Response[bytes]:
    """Register an endpoint, and show its secret once."""
    viewer, fields = await changing(request, CallerKind.business)
    app = services(request)
    try:
        form = fill(UrlForm, fields)
        endpoint, secret = await directory_flow.create_endpoint(
            app.pool, app.sealer, app.guard, viewer.actor, viewer.owner, form.url.strip(), viewer.opened
        )
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, fields, error, _delivery_page(request, viewer))
    return await _delivery_page(request, viewer, endpoint=endpoint, secret=secret)


@post(f"{HOME}/email")
async def add_mail_endpoint(request: AnyRequest) -> Response[bytes]:
    """Add an e-mail address, to which a message with a confirmation link is sent."""
    viewer, fields = await changing(request, CallerKind.business)
    try:
        form = fill(MailForm, fields)
        draft = MailDraft(address=form.address.strip(), terms=MailTerms(mode=form.mode, with_adf=form.with_adf))
        await _desk(request).create(viewer.actor, viewer.owner, draft, viewer.opened)
    except (errors.InvalidInput, errors.Conflict, errors.RateLimited) as error:
        return await show_again(request, fields, error, _delivery_page(request, viewer))
    return redirect(request, HOME, f"Open the message that we sent to {form.address.strip()}, and confirm the address.")


def _desk(request: AnyRequest) -> MailDesk:
    app = services(request)
    return MailDesk(app.pool, app.settings)


@post(f"{HOME}/{{endpoint_id:str}}")
async def change_endpoint(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Verify an endpoint, send it a test lead, replace its secret, or switch it on or off."""
    viewer, form = await submitted(request, EndpointForm, CallerKind.business)
    app, internal_id, caller = services(request), path_id("whe", endpoint_id), caller_of(viewer)
    scope, message = scope_of(viewer), ""
    try:
        match form.act:
            case "verify":
                await mappings.verify_endpoint(app.pool, app.sealer, app.guard, caller, scope, internal_id)
                message = "Verified: this address is yours. Leads can be sent to it."
            case "rotate":
                endpoint, secret = await directory_flow.rotate_secret(app.pool, app.sealer, caller, scope, internal_id)
                return await _delivery_page(request, viewer, endpoint=endpoint, secret=secret)
            case "end_previous":
                await directory_flow.end_previous_secret(app.pool, caller, scope, internal_id)
                message = "The old secret has ended: requests are signed with the new one only."
            case "test":
                return await _delivery_page(request, viewer, trial=await try_endpoint(request, viewer, internal_id))
            case "on":
                await directory_flow.switch_endpoint(app.pool, caller, scope, internal_id, "active")
                message = "Switched on."
            case "off":
                await directory_flow.switch_endpoint(app.pool, caller, scope, internal_id, "disabled")
                message = "Switched off: no lead is sent there."
            case "confirm":
                address = await _desk(request).send_confirmation(viewer.actor, scope, internal_id)
                message = f"Open the message that we sent to {address}, and confirm the address."
            case "link" | "full" | "full_adf" as act:
                terms = MailTerms(mode=MailMode.link if act == "link" else MailMode.full, with_adf=act == "full_adf")
                await _desk(request).change(caller, scope, internal_id, terms)
                message = "Saved: the next lead is sent like this."
            case "test_mail":
                address = await _desk(request).send_test(viewer.actor, scope, internal_id)
                message = f"A test message is on its way to {address}."
    except (errors.Conflict, errors.RateLimited) as error:
        return await show_again(request, {}, error, _delivery_page(request, viewer))
    return redirect(request, HOME, message)


async def try_endpoint(
    request: AnyRequest, viewer: Viewer, endpoint_id: UUID, slug: str | None = None
) -> DeliveryTrial:
    """Send a test lead to an endpoint.

    Its vertical is the one named, or else that of a subscription of the business, or else any. Raises NotFound,
    Conflict.
    """
    app = services(request)
    rules = await app.catalog.recent()
    async with session(app.pool) as connection:
        endpoint = await directory_store.find_endpoint(connection, scope_of(viewer), endpoint_id)
        subscriptions = await directory_store.list_subscriptions(connection, scope_of(viewer), None, MOST_SUBSCRIPTIONS)
    if endpoint is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    served = [subscription for subscription in subscriptions if subscription.endpoint_id == endpoint_id]
    subscription = next(iter((*served, *subscriptions)), None)
    if slug is None and subscription is not None:
        slug = subscription.vertical
    vertical = rules.by_slug.get(slug or "") or next(iter(rules.by_slug.values()), None)
    if vertical is None:
        raise errors.Conflict("The marketplace offers no service yet, so there is no test lead to send.")
    price = subscription.definition.price_minor if subscription else 100
    return await delivery_trial.send_test_lead(app, viewer.actor, viewer.owner, endpoint, vertical, price)


@post(f"{HOME}/resend")
async def resend(request: AnyRequest) -> Response[bytes]:
    """Send a delivered lead again, without charging again."""
    viewer, form = await submitted(request, ResendForm, CallerKind.business)
    app = services(request)
    try:
        trial = await delivery_trial.send_again(app, holder_of(viewer), viewer.mode, path_id("lead", form.lead))
    except errors.Conflict as error:
        return await show_again(request, {}, error, _delivery_page(request, viewer))
    return await _delivery_page(request, viewer, trial=trial)


@post(f"{HOME}/hook")
async def make_hook(request: AnyRequest) -> Response[bytes]:
    """Make the secret with which the business's own systems sign outcomes, or end the previous one."""
    viewer, form = await submitted(request, HookForm, CallerKind.business)
    app = services(request)
    if form.act == "end_previous":
        await feedback_flow.end_previous_secret(app.pool, holder_of(viewer))
        return redirect(request, HOME, "The old secret has ended: reports signed with it are refused.")
    _, secret = await feedback_flow.make_hook(app.pool, app.sealer, holder_of(viewer))
    path = f"{app.settings.public_url}{HOOK_PATH}/{ids.encode('biz', viewer.owner)}"
    return await _delivery_page(request, viewer, hook=(path, secret))


handlers = (
    show_delivery,
    add_endpoint,
    add_mail_endpoint,
    resend,
    make_hook,
    change_endpoint,
)
