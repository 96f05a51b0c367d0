"""From a new account to the first lead in six steps, each of which can be left and come back to.

What was chosen is kept until the order exists; whether a step is done follows from that and from the business itself.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from marketplace.database.db import Connection, session, transaction
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.checks import subscription_faults
from marketplace.directory.flow import SubscriptionRequest
from marketplace.directory.store import Business
from marketplace.distribution.matching_preview import load_previews
from marketplace.funds import flow as funds_flow
from marketplace.portal.business import store, subscription_form
from marketplace.portal.business.delivery import caller_of, own, try_endpoint
from marketplace.portal.business.delivery_trial import DeliveryTrial
from marketplace.portal.business.leads import field_fault, read_amount
from marketplace.portal.business.matching import country_of, draw_area, form_faults
from marketplace.portal.business.subscription_form import AreaForm, LimitsForm
from marketplace.portal.business.wallet_summary import business_page, load_wallet_summary
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS
from marketplace.portal.forms import Given, changing, fill, given_again, show_again
from marketplace.portal.frame import redirect
from marketplace.portal.session import Viewer, visitor
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS, FaultCode
from marketplace.web.http import AnyRequest, path_id, services
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
LEADS_OF_A_VERTICAL: Final = 150
"Held against an order when markets are only listed: enough to tell a busy one from a quiet one, twelve to a page."


class OnboardingChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What a business has chosen so far; `order_id` once its order exists. Amounts in minor units."""

    company: bool = False
    vertical: str | None = None
    definition: SubscriptionDefinition | None = None
    limits: bool = False
    order_id: UUID | None = None
    top_up_minor: int | None = None


class OnboardingProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far it has come: the steps as the stepper shows them, the next one's number, how many are done."""

    steps: tuple[tuple[str, str, bool], ...]
    at: int
    done: int
    next: str


class CompanyForm(msgspec.Struct, frozen=True, kw_only=True):
    """Who the business is, and in which zone it keeps its calendar."""

    name: Annotated[str, Meta(min_length=1, max_length=100, pattern=WORDS)]
    zone: Annotated[str, Meta(min_length=1, max_length=64)]


class VerticalForm(msgspec.Struct, frozen=True, kw_only=True):
    """The market to order from."""

    vertical: str


class DeliveryForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new address, or one to prove, to try, or to use."""

    act: Annotated[str, Meta(pattern="^(add|verify|test|use)$")]
    url: Annotated[str, Meta(max_length=2_000)] = ""
    endpoint: str = ""


class WalletForm(msgspec.Struct, frozen=True, kw_only=True):
    """How much to begin with, and below how much the wallet is called low."""

    amount: Annotated[str, Meta(max_length=20)] | None = None
    low_below: Annotated[str, Meta(max_length=20)] | None = None


async def load_chosen(connection: Connection, business_id: UUID) -> OnboardingChoices:
    raw = await store.find_onboarding(connection, business_id)
    return msgspec.json.decode(raw, type=OnboardingChoices) if raw else OnboardingChoices()


async def load_progress(connection: Connection, viewer: Viewer) -> OnboardingProgress:
    """How far the business has come, whichever way it went."""
    chosen = await load_chosen(connection, viewer.owner)
    listed = await directory_store.list_subscriptions(connection, own(viewer), None, MOST_SUBSCRIPTIONS)
    wallet_summary = await load_wallet_summary(connection, viewer)
    return progress(chosen, any(one.state != "ended" for one in listed), wallet_summary.available_minor > 0)


def progress(chosen: OnboardingChoices, ordered: bool, funded: bool) -> OnboardingProgress:
    """An order that exists stands for everything that it takes to make one."""
    begun = ordered and chosen.vertical is None
    definition = chosen.definition
    done = (
        chosen.company or ordered,
        chosen.vertical is not None or begun,
        (definition is not None and definition.area != Area()) or begun,
        chosen.limits or begun,
        chosen.order_id is not None or begun,
        chosen.top_up_minor is not None or funded,
    )
    at = next((number for number, one in enumerate(done, 1) if not one), 1)  # all done: from the beginning
    return OnboardingProgress(
        steps=tuple((f"{HOME}/{slug}", name, one) for (slug, name), one in zip(STEPS, done, strict=True)),
        at=at,
        done=sum(done),
        next=f"{HOME}/{STEPS[at - 1][0]}",
    )


async def _save(request: AnyRequest, viewer: Viewer, chosen: OnboardingChoices) -> None:
    now = clock.now()
    async with transaction(services(request).pool) as connection:
        await store.save_onboarding(connection, viewer.owner, msgspec.json.encode(chosen), now)
        await audit.record(connection, now, viewer.actor, "onboarding.save", viewer.account)


# Pages.


@get(HOME)
async def begin(request: AnyRequest) -> Response[bytes]:
    """Shows the first step that is not done."""
    viewer = await visitor(request, CallerKind.business)
    async with session(services(request).pool) as connection:
        found = await load_progress(connection, viewer)
    return await _step_page(request, viewer, STEPS[found.at - 1][0])


PATHS: Final = [f"{HOME}/{slug}" for slug, _ in STEPS]


def _step_of(request: AnyRequest) -> str:
    return request.url.path.rpartition("/")[2]


@get(PATHS)
async def show_step(request: AnyRequest) -> Response[bytes]:
    """Shows one step with what was chosen there."""
    viewer = await visitor(request, CallerKind.business)
    return await _step_page(request, viewer, _step_of(request))


class VerticalChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A market to choose, and how many people ask in it, wherever they are."""

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
    found = services(request)
    rules = await found.catalog.recent()
    async with session(found.pool) as connection:
        business = await directory_store.find_business(connection, viewer.owner)
        assert business is not None
        chosen, come = await load_chosen(connection, viewer.owner), await load_progress(connection, viewer)
        wallet_summary = await load_wallet_summary(connection, viewer)
        vertical = rules.by_slug.get(chosen.vertical or "")
        context = await _context(
            connection, viewer, step, chosen, business, vertical, tuple(rules.by_slug.values()), given_again(request)
        )
    return await business_page(
        request,
        viewer,
        "business/onboarding.html",
        wallet_summary=wallet_summary,
        step=step,
        number=number,
        come=come,
        chosen=chosen,
        business=business,
        secret=secret,
        trial=trial,
        home=HOME,
        previous=f"{HOME}/{STEPS[number - 2][0]}" if number > 1 else "",
        days=subscription_form.WEEK,
        mile=subscription_form.MILE_KM,
        definition=chosen.definition,
        vertical=vertical,
        **context,
    )


async def _context(
    connection: Connection,
    viewer: Viewer,
    step: str,
    chosen: OnboardingChoices,
    business: Business,
    vertical: Vertical | None,
    verticals: tuple[Vertical, ...],
    given: Given,
) -> dict[str, object]:
    """What the templates of all steps read; only the shown one's is looked up."""
    definition = chosen.definition or _blank(business, vertical)
    context: dict[str, object] = {
        "markets": (),
        "endpoints": (),
        "supply": None,
        "map": None,
        "values": subscription_form.fields_of(definition),
        "ticks": subscription_form.ticks_of(definition, given),
        "words_of": subscription_form,
        "shown": definition,
        "week": None,
        "area": subscription_form.area_words(definition.area),
        "price_minor": definition.price_minor,
    }
    if step == "services":
        context["markets"] = [
            await _market(connection, one, definition)
            for one in verticals[:MOST_VERTICALS]
            if one.definition.currency == business.currency
        ]
    if step in ("area", "hours") and vertical and definition.area != Area():
        context["supply"] = (await load_previews(connection, vertical, [definition]))[0]
        context["map"] = draw_area(
            definition, await subscription_form.list_places(connection, definition.area, vertical.definition.country)
        )
    if step == "hours":
        context["week"] = subscription_form.weekly_hours(definition.hours)
        if not chosen.limits:
            context["values"] = {**subscription_form.fields_of(definition), "price": "", "always": "", "spec": ""}
    if step == "delivery":
        context["endpoints"] = await directory_store.list_endpoints(connection, own(viewer), None, MOST_SUBSCRIPTIONS)
    return context


async def _market(connection: Connection, vertical: Vertical, definition: SubscriptionDefinition) -> VerticalChoice:
    anywhere = msgspec.structs.replace(definition, area=Area(anywhere=True))
    [preview] = await load_previews(connection, vertical, [anywhere], LEADS_OF_A_VERTICAL)
    return VerticalChoice(
        slug=vertical.slug, name=vertical.definition.name, words=preview.words, currency=vertical.definition.currency
    )


def _blank(business: Business, vertical: Vertical | None) -> SubscriptionDefinition:
    currency = vertical.definition.currency if vertical else business.currency
    return SubscriptionDefinition(area=Area(), zone=business.zone, price_minor=0, currency=currency)


# Steps.


@post(PATHS, request_max_body_size=subscription_form.BODY_LIMIT)
async def take_step(request: AnyRequest) -> Response[bytes]:
    """Keeps what was chosen in one step, and leads on to the next."""
    viewer, given = await changing(request, CallerKind.business, most_bytes=subscription_form.BODY_LIMIT)
    step = _step_of(request)
    try:
        return await TAKES[step](request, viewer, given)
    except (errors.InvalidInput, errors.Conflict) as error:
        faults = form_faults(error, given) if isinstance(error, errors.InvalidInput) else {}
        return await show_again(request, given, error, _step_page(request, viewer, step), faults=faults)


async def _loaded(request: AnyRequest, viewer: Viewer) -> tuple[OnboardingChoices, Business]:
    async with session(services(request).pool) as connection:
        chosen = await load_chosen(connection, viewer.owner)
        business = await directory_store.find_business(connection, viewer.owner)
    assert business is not None
    return chosen, business


async def _take_company(request: AnyRequest, viewer: Viewer, given: Given) -> Response[bytes]:
    form = fill(CompanyForm, given)
    await directory_flow.change_business(
        services(request).pool, viewer.actor, viewer.owner, form.name.strip(), None, form.zone.strip()
    )
    chosen, _ = await _loaded(request, viewer)
    await _save(request, viewer, msgspec.structs.replace(chosen, company=True))
    return redirect(request, f"{HOME}/services")


async def _take_services(request: AnyRequest, viewer: Viewer, given: Given) -> Response[bytes]:
    form = fill(VerticalForm, given)
    vertical = (await services(request).catalog.recent()).by_slug.get(form.vertical)
    chosen, business = await _loaded(request, viewer)
    if vertical is None or vertical.definition.currency != business.currency:
        raise field_fault("vertical", FaultCode.value_not_allowed, "Choose one of these.")
    again = chosen.order_id is not None  # the first order is made: this begins another one
    definition = _blank(business, vertical) if again or chosen.definition is None else chosen.definition
    fresh = msgspec.structs.replace(
        chosen, vertical=vertical.slug, definition=definition, order_id=None, limits=chosen.limits and not again
    )
    await _save(request, viewer, fresh)
    return redirect(request, f"{HOME}/area")


def _begun(chosen: OnboardingChoices) -> tuple[str, SubscriptionDefinition]:
    """The market and the order so far. Raises Conflict before the second step."""
    if chosen.vertical is None or chosen.definition is None:
        raise errors.Conflict("Choose a service first.")
    return chosen.vertical, chosen.definition


def _demand_sound(definition: SubscriptionDefinition, vertical: Vertical | None, *, area: bool) -> None:
    """Raises InvalidInput for what is wrong with the area, or with all else: at the step where it can be mended."""
    faults = subscription_faults(definition, vertical, definition.currency, endpoint_found=True)
    here = tuple(fault for fault in faults if fault.pointer.startswith("/definition/area") is area)
    if here:
        raise errors.InvalidInput(here)


async def _take_area(request: AnyRequest, viewer: Viewer, given: Given) -> Response[bytes]:
    chosen, _ = await _loaded(request, viewer)
    slug, definition = _begun(chosen)
    form = fill(AreaForm, given)
    async with session(services(request).pool) as connection:
        rules = await services(request).catalog.recent()
        area = await subscription_form.read_area(connection, form, given, definition, country_of(rules, slug))
    if area == Area():
        raise field_fault("centre", FaultCode.field_missing, "Give a ZIP code with a radius, or a list of ZIP codes.")
    definition = msgspec.structs.replace(definition, area=area)
    _demand_sound(definition, rules.by_slug.get(slug), area=True)
    await _save(request, viewer, msgspec.structs.replace(chosen, definition=definition))
    if "look" in given:
        return redirect(request, f"{HOME}/area")
    return redirect(request, f"{HOME}/hours")


async def _take_hours(request: AnyRequest, viewer: Viewer, given: Given) -> Response[bytes]:
    chosen, business = await _loaded(request, viewer)
    slug, definition = _begun(chosen)
    limited = subscription_form.apply_limits(fill(LimitsForm, given), given, definition, business.zone)
    _demand_sound(limited, (await services(request).catalog.recent()).by_slug.get(slug), area=False)
    await _save(request, viewer, msgspec.structs.replace(chosen, definition=limited, limits=True))
    return redirect(request, f"{HOME}/delivery")


async def _take_delivery(request: AnyRequest, viewer: Viewer, given: Given) -> Response[bytes]:
    form, found = fill(DeliveryForm, given), services(request)
    if form.act == "add":
        _, secret = await directory_flow.create_endpoint(
            found.pool,
            found.sealer,
            found.guard,
            viewer.actor,
            viewer.owner,
            form.url.strip(),
            viewer.opened,
        )
        return await _step_page(request, viewer, "delivery", secret=secret)
    endpoint_id = path_id("whe", form.endpoint)
    if form.act == "verify":
        await directory_flow.verify_endpoint(
            found.pool, found.sealer, found.guard, caller_of(viewer), own(viewer), endpoint_id
        )
        return redirect(request, f"{HOME}/delivery", "Proved: this address is yours. Now send yourself a test lead.")
    chosen, _ = await _loaded(request, viewer)
    if form.act == "test":
        trial = await try_endpoint(request, viewer, endpoint_id, chosen.vertical)
        return await _step_page(request, viewer, "delivery", trial=trial)
    slug, definition = _begun(chosen)
    if chosen.order_id is not None:
        return redirect(request, f"{HOME}/wallet")
    vertical = (await found.catalog.recent()).by_slug.get(slug)
    name = vertical.definition.name if vertical else slug
    made = await directory_flow.create_subscription(
        found.pool,
        viewer.actor,
        viewer.owner,
        viewer.mode,
        slug,
        SubscriptionRequest(name=name, endpoint_id=endpoint_id, definition=definition),
    )
    await _save(request, viewer, msgspec.structs.replace(chosen, order_id=made.id))
    return redirect(request, f"{HOME}/wallet", "Your order is active.")


async def _take_wallet(request: AnyRequest, viewer: Viewer, given: Given) -> Response[bytes]:
    form = fill(WalletForm, given)
    chosen, business = await _loaded(request, viewer)
    amount = read_amount(form.amount, business.currency, "amount")
    if not amount:
        raise field_fault("amount", FaultCode.field_missing, "Say how much to begin with, such as 500.")
    low = read_amount(form.low_below, business.currency, "low_below")
    await funds_flow.set_low_balance_alert(services(request).pool, viewer.actor, viewer.owner, low)
    await _save(request, viewer, msgspec.structs.replace(chosen, top_up_minor=amount))
    return redirect(request, "/business", f"Done. Pay the marketplace and name {ids.encode('biz', viewer.owner)}.")


TAKES: Final[dict[str, Callable[[AnyRequest, Viewer, Given], Awaitable[Response[bytes]]]]] = {
    "company": _take_company,
    "services": _take_services,
    "area": _take_area,
    "hours": _take_hours,
    "delivery": _take_delivery,
    "wallet": _take_wallet,
}

handlers = (begin, show_step, take_step)
