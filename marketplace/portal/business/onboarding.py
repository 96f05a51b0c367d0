"""First steps of a business: six steps from a new account to a subscription, which can be interrupted at any point.

The choices are saved until the subscription exists. A step is done according to them and to the state of the business.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from marketplace.database.db import Connection, session, transaction
from marketplace.directory import flow as directory_flow
from marketplace.directory import mappings
from marketplace.directory import store as directory_store
from marketplace.directory.checks import subscription_faults
from marketplace.directory.flow import SubscriptionRequest
from marketplace.directory.store import Business
from marketplace.distribution.matching_preview import load_previews
from marketplace.funds import flow as funds_flow
from marketplace.portal.business import store, subscription_form
from marketplace.portal.business.delivery import Url, caller_of, scope_of, try_endpoint
from marketplace.portal.business.delivery_trial import DeliveryTrial
from marketplace.portal.business.leads import field_fault, read_amount
from marketplace.portal.business.matching import country_of, draw_area, form_faults
from marketplace.portal.business.receiving import find_inbox
from marketplace.portal.business.subscription_form import AreaForm, LimitsForm
from marketplace.portal.business.wallet_summary import WalletSummary, business_page, load_wallet_summary
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS
from marketplace.portal.forms import (
    Amount,
    FormFields,
    ShownForm,
    ZoneName,
    changing,
    fill,
    label,
    show_again,
    show_form,
    typed_fields,
)
from marketplace.portal.frame import field_amount, money, redirect
from marketplace.portal.session import Viewer, visitor
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS, FaultCode
from marketplace.web.http import AnyRequest, path_id, services
from routing.delivery import EndpointKind
from routing.subscription import Area, SubscriptionDefinition

HOME: Final = "/business/onboarding"
STEPS: Final = (
    ("company", "Company"),
    ("services", "Services"),
    ("area", "Area"),
    ("hours", "Hours and limits"),
    ("delivery", "Delivery"),
    ("wallet", "Wallet"),
)
MOST_VERTICALS: Final = 12
INBOX_SECONDS: Final = 600
"Time for which a lead is held for an inbox of the first steps."
LEADS_OF_A_VERTICAL: Final = 150
"Leads read to estimate each vertical in the list: enough to tell a busy vertical from a quiet one."


class OnboardingChoices(msgspec.Struct, frozen=True, kw_only=True):
    """Saved choices of a business. `order_id` is its subscription, once that exists. Stored as JSON by these names."""

    company: bool = False
    vertical: str | None = None
    definition: SubscriptionDefinition | None = None
    limits: bool = False
    order_id: UUID | None = None
    top_up_minor: int | None = None


class OnboardingProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of the first steps: each step's address, name and whether it is done; the next step; the number done."""

    steps: tuple[tuple[str, str, bool], ...]
    at: int
    done: int
    next: str


class CompanyForm(msgspec.Struct, frozen=True, kw_only=True):
    """Name of the business, and the time zone of its calendar."""

    name: Annotated[
        str, Meta(min_length=1, max_length=100, pattern=WORDS), label("Company", autocomplete="organization")
    ]
    zone: Annotated[ZoneName, label("Time zone", "Such as America/Chicago. Your days, limits and hours follow it.")]


class VerticalForm(msgspec.Struct, frozen=True, kw_only=True):
    """Vertical of the subscription."""

    vertical: str


class DeliveryForm(msgspec.Struct, frozen=True, kw_only=True):
    """Address of a new endpoint, the inbox, or an endpoint to verify, to test or to use."""

    act: Annotated[str, Meta(pattern="^(add|inbox|verify|test|use)$")]
    url: Annotated[Url, label("Address", required=True)] = ""
    endpoint: str = ""


class WalletForm(msgspec.Struct, frozen=True, kw_only=True):
    """Amount of the first payment, and the balance below which the wallet counts as low."""

    amount: Annotated[Amount | None, label("First payment, in {currency}", "{cost}", required=True)] = None
    low_below: Annotated[
        Amount | None,
        label(
            "Low balance alert, in {currency}",
            "Every page shows a warning below this balance. Empty: no warning.",
        ),
    ] = None


async def load_choices(connection: Connection, business_id: UUID) -> OnboardingChoices:
    """Return the saved choices; empty ones if there are none."""
    raw = await store.find_onboarding(connection, business_id)
    return msgspec.json.decode(raw, type=OnboardingChoices) if raw else OnboardingChoices()


async def load_progress(connection: Connection, viewer: Viewer) -> OnboardingProgress:
    """Return how far the business has come, here or by other means such as the API."""
    choices = await load_choices(connection, viewer.owner)
    subscriptions = await directory_store.list_subscriptions(connection, scope_of(viewer), None, MOST_SUBSCRIPTIONS)
    subscribed = any(subscription.state != "ended" for subscription in subscriptions)
    wallet_summary = await load_wallet_summary(connection, viewer)
    return progress_of(choices, subscribed, wallet_summary.available_minor > 0)


def progress_of(choices: OnboardingChoices, subscribed: bool, funded: bool) -> OnboardingProgress:
    """Return the progress. A subscription that was made elsewhere completes every step but the payment."""
    made_elsewhere = subscribed and choices.vertical is None
    definition = choices.definition
    done = (
        choices.company or subscribed,
        choices.vertical is not None or made_elsewhere,
        (definition is not None and definition.area != Area()) or made_elsewhere,
        choices.limits or made_elsewhere,
        choices.order_id is not None or made_elsewhere,
        choices.top_up_minor is not None or funded,
    )
    at = next((number for number, is_done in enumerate(done, 1) if not is_done), 1)  # the first, if all are done
    return OnboardingProgress(
        steps=tuple((f"{HOME}/{slug}", name, is_done) for (slug, name), is_done in zip(STEPS, done, strict=True)),
        at=at,
        done=sum(done),
        next=f"{HOME}/{STEPS[at - 1][0]}",
    )


async def _save(request: AnyRequest, viewer: Viewer, choices: OnboardingChoices) -> None:
    now = clock.now()
    async with transaction(services(request).pool) as connection:
        await store.save_onboarding(connection, viewer.owner, msgspec.json.encode(choices), now)
        await audit.record(connection, now, viewer.actor, "onboarding.save", viewer.account)


# Pages.


@get(HOME)
async def begin(request: AnyRequest) -> Response[bytes]:
    """Show the first step that is not done."""
    viewer = await visitor(request, CallerKind.business)
    async with session(services(request).pool) as connection:
        progress = await load_progress(connection, viewer)
    return await _step_page(request, viewer, STEPS[progress.at - 1][0])


PATHS: Final = [f"{HOME}/{slug}" for slug, _ in STEPS]


def _step_of(request: AnyRequest) -> str:
    return request.url.path.rpartition("/")[2]


@get(PATHS)
async def show_step(request: AnyRequest) -> Response[bytes]:
    """Show a step with its saved choices."""
    viewer = await visitor(request, CallerKind.business)
    return await _step_page(request, viewer, _step_of(request))


class VerticalChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A vertical to choose, with an estimate of its leads in all areas."""

    slug: str
    name: str
    words: str
    currency: str


async def _step_page(
    request: AnyRequest,
    viewer: Viewer,
    step: str,
    *,
    secret: str = "",
    trial: DeliveryTrial | None = None,
) -> Response[bytes]:
    number = next(at for at, (slug, _) in enumerate(STEPS, 1) if slug == step)
    previous = f"{HOME}/{STEPS[number - 2][0]}" if number > 1 else ""
    app = services(request)
    rules = await app.catalog.recent()
    async with session(app.pool) as connection:
        business = await directory_store.find_business(connection, viewer.owner)
        assert business is not None
        choices, progress = await load_choices(connection, viewer.owner), await load_progress(connection, viewer)
        wallet_summary = await load_wallet_summary(connection, viewer)
        vertical = rules.by_slug.get(choices.vertical or "")
        context = await _context(
            connection, viewer, step, choices, business, vertical, tuple(rules.by_slug.values()), typed_fields(request)
        )
    return await business_page(
        request,
        viewer,
        "business/onboarding.html",
        wallet_summary=wallet_summary,
        step=step,
        number=number,
        progress=progress,
        choices=choices,
        business=business,
        secret=secret,
        trial=trial,
        home=HOME,
        previous=previous,
        days=subscription_form.WEEK,
        mile=subscription_form.MILE_KM,
        definition=choices.definition,
        vertical=vertical,
        form=_form_of(step, choices, business, wallet_summary),
        **context,
    )


def _form_of(
    step: str, choices: OnboardingChoices, business: Business, wallet_summary: WalletSummary
) -> ShownForm | None:
    """Return the form of a step; None for the steps whose form has a layout of its own."""
    match step:
        case "company":
            return show_form(CompanyForm, {"name": business.name, "zone": business.zone})
        case "delivery":
            return show_form(DeliveryForm)
        case "wallet":
            values = {
                "amount": field_amount(choices.top_up_minor, business.currency),
                "low_below": field_amount(wallet_summary.low_below_minor, business.currency),
            }
            cost = _cost_words(choices, business.currency)
            return show_form(WalletForm, values, currency=business.currency, cost=cost)
        case _:
            return None


def _cost_words(choices: OnboardingChoices, currency: str) -> str:
    """Return the price of a lead in words, and the number of leads that the first payment covers."""
    price_minor = choices.definition.price_minor if choices.definition else 0
    if not price_minor:
        return ""
    price = f"One lead costs {money(price_minor, currency)}"
    if choices.top_up_minor:
        return f"{price}: {choices.top_up_minor // price_minor} leads."
    return f"{price}; 10 leads are {money(10 * price_minor, currency)}."


async def _context(
    connection: Connection,
    viewer: Viewer,
    step: str,
    choices: OnboardingChoices,
    business: Business,
    vertical: Vertical | None,
    verticals: tuple[Vertical, ...],
    fields: FormFields,
) -> dict[str, object]:
    """Return the variables that the template reads in any step; only those of the shown step are loaded."""
    definition = choices.definition or _blank(business, vertical)
    context: dict[str, object] = {
        "verticals": (),
        "endpoints": (),
        "has_inbox": False,
        "preview": None,
        "map": None,
        "ticks": subscription_form.ticks_of(definition, fields),
        "words_of": subscription_form,
        "limited": definition,
        "week": None,
        "area": subscription_form.area_words(definition.area),
    }
    values = subscription_form.fields_of(definition)
    if step == "hours" and not choices.limits:
        values |= {"price": "", "always": "", "spec": ""}
    context |= subscription_form.show_forms(values, definition.currency)
    if step == "services":
        context["verticals"] = [
            await _vertical_choice(connection, business.id, each, definition)
            for each in verticals[:MOST_VERTICALS]
            if each.definition.currency == business.currency
        ]
    if step in ("area", "hours") and vertical and definition.area != Area():
        context["preview"] = (await load_previews(connection, vertical, business.id, [definition]))[0]
        places = await subscription_form.list_places(connection, definition.area, vertical.definition.country)
        context["map"] = draw_area(definition, places)
    if step == "hours":
        context["week"] = subscription_form.weekly_hours(definition.hours)
    if step == "delivery":
        context["endpoints"] = endpoints = await directory_store.list_endpoints(
            connection, scope_of(viewer), None, MOST_SUBSCRIPTIONS
        )
        context["has_inbox"] = find_inbox(endpoints) is not None
    return context


async def _vertical_choice(
    connection: Connection, business_id: UUID, vertical: Vertical, definition: SubscriptionDefinition
) -> VerticalChoice:
    anywhere = msgspec.structs.replace(definition, area=Area(anywhere=True))
    [preview] = await load_previews(connection, vertical, business_id, [anywhere], LEADS_OF_A_VERTICAL)
    return VerticalChoice(
        slug=vertical.slug, name=vertical.definition.name, words=preview.words, currency=vertical.definition.currency
    )


def _blank(business: Business, vertical: Vertical | None) -> SubscriptionDefinition:
    currency = vertical.definition.currency if vertical else business.currency
    return SubscriptionDefinition(area=Area(), zone=business.zone, price_minor=0, currency=currency)


# Steps.


@post(PATHS, request_max_body_size=subscription_form.BODY_LIMIT)
async def save_step(request: AnyRequest) -> Response[bytes]:
    """Save the choices of a step, and go on to the next."""
    viewer, fields = await changing(request, CallerKind.business, most_bytes=subscription_form.BODY_LIMIT)
    step = _step_of(request)
    try:
        return await SAVE_STEP[step](request, viewer, fields)
    except (errors.InvalidInput, errors.Conflict) as error:
        faults = form_faults(error, fields) if isinstance(error, errors.InvalidInput) else {}
        return await show_again(request, fields, error, _step_page(request, viewer, step), faults=faults)


async def _load(request: AnyRequest, viewer: Viewer) -> tuple[OnboardingChoices, Business]:
    async with session(services(request).pool) as connection:
        choices = await load_choices(connection, viewer.owner)
        business = await directory_store.find_business(connection, viewer.owner)
    assert business is not None
    return choices, business


async def _save_company(request: AnyRequest, viewer: Viewer, fields: FormFields) -> Response[bytes]:
    form = fill(CompanyForm, fields)
    await directory_flow.change_business(
        services(request).pool, viewer.actor, viewer.owner, form.name.strip(), None, form.zone.strip()
    )
    choices, _ = await _load(request, viewer)
    await _save(request, viewer, msgspec.structs.replace(choices, company=True))
    return redirect(request, f"{HOME}/services")


async def _save_services(request: AnyRequest, viewer: Viewer, fields: FormFields) -> Response[bytes]:
    form = fill(VerticalForm, fields)
    vertical = (await services(request).catalog.recent()).by_slug.get(form.vertical)
    choices, business = await _load(request, viewer)
    if vertical is None or vertical.definition.currency != business.currency:
        raise field_fault("vertical", FaultCode.value_not_allowed, "Choose one of the services on this page.")
    again = choices.order_id is not None  # the first subscription exists: this begins another
    definition = _blank(business, vertical) if again or choices.definition is None else choices.definition
    changed = msgspec.structs.replace(
        choices, vertical=vertical.slug, definition=definition, order_id=None, limits=choices.limits and not again
    )
    await _save(request, viewer, changed)
    return redirect(request, f"{HOME}/area")


def _started(choices: OnboardingChoices) -> tuple[str, SubscriptionDefinition]:
    """Return the vertical's slug and the definition so far. Raises Conflict if no vertical was selected yet."""
    if choices.vertical is None or choices.definition is None:
        raise errors.Conflict("Choose a service first.")
    return choices.vertical, choices.definition


def _check(definition: SubscriptionDefinition, vertical: Vertical | None, *, area: bool) -> None:
    """Check the area, or everything but the area, so that faults show at the step where they can be corrected.

    Raises InvalidInput.
    """
    faults = subscription_faults(definition, vertical, definition.currency, endpoint_found=True)
    step_faults = tuple(fault for fault in faults if fault.pointer.startswith("/definition/area") is area)
    if step_faults:
        raise errors.InvalidInput(step_faults)


async def _save_area(request: AnyRequest, viewer: Viewer, fields: FormFields) -> Response[bytes]:
    choices, _ = await _load(request, viewer)
    slug, definition = _started(choices)
    form = fill(AreaForm, fields)
    async with session(services(request).pool) as connection:
        rules = await services(request).catalog.recent()
        area = await subscription_form.read_area(connection, form, fields, definition, country_of(rules, slug))
    if area == Area():
        raise field_fault("centre", FaultCode.field_missing, "Enter a ZIP code with a radius, or a list of ZIP codes.")
    definition = msgspec.structs.replace(definition, area=area)
    _check(definition, rules.by_slug.get(slug), area=True)
    await _save(request, viewer, msgspec.structs.replace(choices, definition=definition))
    if "look" in fields:
        return redirect(request, f"{HOME}/area")
    return redirect(request, f"{HOME}/hours")


async def _save_hours(request: AnyRequest, viewer: Viewer, fields: FormFields) -> Response[bytes]:
    choices, business = await _load(request, viewer)
    slug, definition = _started(choices)
    limited = subscription_form.apply_limits(fill(LimitsForm, fields), fields, definition, business.zone)
    _check(limited, (await services(request).catalog.recent()).by_slug.get(slug), area=False)
    await _save(request, viewer, msgspec.structs.replace(choices, definition=limited, limits=True))
    return redirect(request, f"{HOME}/delivery")


async def _save_delivery(request: AnyRequest, viewer: Viewer, fields: FormFields) -> Response[bytes]:
    form, app = fill(DeliveryForm, fields), services(request)
    if form.act == "add":
        _, secret = await directory_flow.create_endpoint(
            app.pool, app.sealer, app.guard, viewer.actor, viewer.owner, form.url.strip(), viewer.opened
        )
        return await _step_page(request, viewer, "delivery", secret=secret)
    if form.act == "inbox":
        inbox = await directory_flow.create_serverless(
            app.pool, viewer.actor, viewer.owner, EndpointKind.inbox, INBOX_SECONDS
        )
        return await _subscribe(request, viewer, inbox.id)
    endpoint_id = path_id("whe", form.endpoint)
    if form.act == "verify":
        await mappings.verify_endpoint(
            app.pool, app.sealer, app.guard, caller_of(viewer), scope_of(viewer), endpoint_id
        )
        return redirect(request, f"{HOME}/delivery", "Verified: this address is yours. Now send a test lead to it.")
    choices, _ = await _load(request, viewer)
    if form.act == "test":
        trial = await try_endpoint(request, viewer, endpoint_id, choices.vertical)
        return await _step_page(request, viewer, "delivery", trial=trial)
    return await _subscribe(request, viewer, endpoint_id)


async def _subscribe(request: AnyRequest, viewer: Viewer, endpoint_id: UUID) -> Response[bytes]:
    """Make the subscription of these first steps, whose leads go to the endpoint, if it is not made yet."""
    app = services(request)
    choices, _ = await _load(request, viewer)
    slug, definition = _started(choices)
    if choices.order_id is not None:
        return redirect(request, f"{HOME}/wallet")
    vertical = (await app.catalog.recent()).by_slug.get(slug)
    name = vertical.definition.name if vertical else slug
    subscription = await directory_flow.create_subscription(
        app.pool,
        viewer.actor,
        viewer.owner,
        viewer.mode,
        slug,
        SubscriptionRequest(name=name, endpoint_id=endpoint_id, definition=definition),
    )
    await _save(request, viewer, msgspec.structs.replace(choices, order_id=subscription.id))
    return redirect(request, f"{HOME}/wallet", "Your subscription is active.")


async def _save_wallet(request: AnyRequest, viewer: Viewer, fields: FormFields) -> Response[bytes]:
    form = fill(WalletForm, fields)
    choices, business = await _load(request, viewer)
    amount = read_amount(form.amount, business.currency, "amount")
    if not amount:
        raise field_fault("amount", FaultCode.field_missing, "Enter the amount of your first payment, such as 500.")
    low = read_amount(form.low_below, business.currency, "low_below")
    await funds_flow.set_low_balance_alert(services(request).pool, viewer.actor, viewer.owner, low)
    await _save(request, viewer, msgspec.structs.replace(choices, top_up_minor=amount))
    return redirect(
        request, "/business", f"Done. Pay the marketplace with the reference {ids.encode('biz', viewer.owner)}."
    )


SAVE_STEP: Final[dict[str, Callable[[AnyRequest, Viewer, FormFields], Awaitable[Response[bytes]]]]] = {
    "company": _save_company,
    "services": _save_services,
    "area": _save_area,
    "hours": _save_hours,
    "delivery": _save_delivery,
    "wallet": _save_wallet,
}

handlers = (begin, show_step, save_step)
