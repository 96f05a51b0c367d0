"""Pages of a what-if: a form for frequent changes, the progress of a simulation, and its result in words."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.portal.business.leads import read_amount
from marketplace.portal.forms import Amount, changing, field_errors, fill, label, show_again, show_form
from marketplace.portal.frame import badge, page, redirect, words
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file
from marketplace.portal.operator import lead_store
from marketplace.portal.operator.lead_store import SubscriptionName
from marketplace.portal.operator.links import business_link
from marketplace.portal.operator.verticals import HOME as VERTICALS
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.rules.catalog import Rules, Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.simulations import flow as simulations_flow
from marketplace.simulations import loading
from marketplace.simulations import store as simulations_store
from marketplace.simulations.changes import (
    USUAL_WEEKS,
    WhatIf,
    WhatIfCap,
    WhatIfPause,
    WhatIfPolicy,
    WhatIfPrice,
    WhatIfStrategy,
    rules_of,
)
from marketplace.simulations.comparison import BusinessComparison
from marketplace.simulations.store import StoredSimulation
from marketplace.simulations.wire import OPEN, UNKNOWN, SimulationRequest
from marketplace.simulations.wording import describe_changes
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv
from routing.calendar import CapWindow
from routing.ranking import Strategy
from routing.subscription import CAP_COUNT, Cap, Subscription

HOME: Final = "/operator/simulations"
REFRESH: Final = {"Refresh": "2"}
"Header by which a browser loads the page again after two seconds, until the simulation has ended."
STATES: Final = {
    "waiting": ("Waiting", "busy"),
    "running": ("Running", "busy"),
    "done": ("Done", "good"),
    "failed": ("Failed", "bad"),
    "cancelled": ("Cancelled", "muted"),
}


class WhatIfForm(msgspec.Struct, frozen=True, kw_only=True):
    """The frequent changes of a vertical and of one subscription of it. What is left empty stays as it is."""

    weeks: Annotated[int, Meta(ge=1, le=52), label("Weeks of past leads")] = USUAL_WEEKS
    minimum_score: Annotated[int, Meta(ge=0, le=100), label("Minimum score")] | None = None
    strategy: Annotated[Strategy, label("Ranking")] | None = None
    subscription: Annotated[str, Meta(max_length=40), label("Subscription to change", kind="select")] | None = None
    price: Annotated[Amount | None, label("Its price, in {currency}")] = None
    daily_cap: Annotated[int, Meta(ge=CAP_COUNT[0], le=CAP_COUNT[1]), label("Its leads a day, at most")] | None = None
    pause: Annotated[bool, label("Pause it")] = False


def _state(row: StoredSimulation) -> object:
    return badge(*STATES[row.state])


SIMULATIONS: Final = Listing[StoredSimulation](
    caption="Simulations",
    columns=(
        Column("Started", lambda row: Link(_address(row.id), row.made_at)),
        Column("What if", lambda row: _title(row)),
        Column("State", _state),
        Column("Result", lambda row: row.result.sentences[0] if row.result else None),
    ),
)


def business_listing(names: Mapping[UUID, str], currency: str) -> Listing[BusinessComparison]:
    """Return the list of the businesses of a result, with names and amounts in `currency`."""
    return Listing(
        caption="Businesses before and after",
        name="what-if",
        columns=(
            Column(
                "Business",
                lambda row: business_link(row.business_id, names.get(row.business_id)),
                file="business",
                value=lambda row: names.get(row.business_id, ""),
                style="name",
            ),
            only_in_file("business_id", lambda row: ids.encode("biz", row.business_id)),
            Column("Leads", lambda row: row.leads_before, file="leads_before", style="num"),
            Column("Leads with the change", lambda row: row.leads_after, file="leads_after", style="num"),
            Column(
                "Spent", lambda row: Money(row.spent_before_minor, currency), file="spent_before_minor", style="num"
            ),
            Column(
                "Spent with the change",
                lambda row: Money(row.spent_after_minor, currency),
                file="spent_after_minor",
                style="num",
            ),
            Column("Share by weight", lambda row: f"{row.entitled_before:,.1f}", style="num"),
            Column("Share by weight with the change", lambda row: f"{row.entitled_after:,.1f}", style="num"),
            only_in_file("entitled_before", lambda row: row.entitled_before),
            only_in_file("entitled_after", lambda row: row.entitled_after),
        ),
    )


@get(f"{VERTICALS}/{{slug:str}}/what-if")
async def show_what_if(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Show the form of a what-if, and the simulations of the vertical of the last 30 days."""
    viewer = await visitor(request, CallerKind.operator)
    return await _form_page(request, viewer, slug)


async def _form_page(request: AnyRequest, viewer: Viewer, slug: str) -> Response[bytes]:
    rules = await services(request).catalog.current()
    vertical = _vertical_of(rules, slug)
    subscriptions = {each.id: each for each in rules_of(rules, vertical).subscriptions}
    limit, before = list_limit(request), page_cursor(request, "sim")
    async with session(services(request).pool) as connection:
        names = await lead_store.list_subscriptions(connection, subscriptions)
        rows = await simulations_store.list_simulations(connection, slug, before, limit + 1)
    options = {
        "strategy": [("", "As it is"), *((strategy, words(strategy)) for strategy in Strategy)],
        "subscription": [("", "None"), *_choices(names)],
    }
    currency = vertical.definition.currency
    return page(
        request,
        viewer,
        "operator/what_if.html",
        vertical=vertical,
        form=show_form(WhatIfForm, {"weeks": USUAL_WEEKS}, options, currency=currency),
        listing=SIMULATIONS,
        rows=rows[:limit],
        next_cursor=next_page("sim", [row.id for row in rows], limit),
    )


def _vertical_of(rules: Rules, slug: str) -> Vertical:
    """Return the vertical of the path. Raises NotFound."""
    if slug not in rules.by_slug:
        raise errors.NotFound("There is no vertical with this slug.")
    return rules.by_slug[slug]


def _choices(names: Mapping[UUID, SubscriptionName]) -> list[tuple[str, str]]:
    """Return the subscriptions as options of a select, in the order of their names."""
    rows = sorted(names.values(), key=lambda row: (row.business, row.name))
    return [(ids.encode("sub", row.id), f"{row.business}, {row.name}") for row in rows]


@post(f"{VERTICALS}/{{slug:str}}/what-if")
async def start_what_if(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Start a simulation of the changes of the form. Nothing is changed."""
    viewer, fields = await changing(request, CallerKind.operator)
    rules = await services(request).catalog.current()
    vertical = _vertical_of(rules, slug)
    try:
        form = fill(WhatIfForm, fields)
        subscriptions = {each.id: each for each in rules_of(rules, vertical).subscriptions}
        changes = _changes(form, subscriptions, vertical.definition.currency)
        simulation_id = await _start(request, viewer, slug, form.weeks, changes)
    except (errors.InvalidInput, errors.Conflict) as error:
        answer = _form_page(request, viewer, slug)
        return await show_again(request, fields, error, answer, faults=_form_faults(error))
    return redirect(request, _address(simulation_id))


@post(f"{VERTICALS}/{{slug:str}}/suggestions")
async def start_suggestions(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Start to try small changes of a vertical one by one. Nothing is changed."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        simulation_id = await _start(request, viewer, slug, USUAL_WEEKS, (), suggest=True)
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, fields, error, _form_page(request, viewer, slug), faults={"": error.detail})
    return redirect(request, _address(simulation_id))


async def _start(
    request: AnyRequest, viewer: Viewer, slug: str, weeks: int, changes: tuple[WhatIf, ...], *, suggest: bool = False
) -> UUID:
    """Store a simulation of the last weeks, and return its id."""
    now = clock.now()
    since = now - timedelta(weeks=weeks)
    draft = SimulationRequest(vertical=slug, since=since, until=now, changes=changes, suggest=suggest)
    shared = services(request)
    return await simulations_flow.create(shared.pool, await shared.catalog.current(), viewer.actor, draft)


def _changes(form: WhatIfForm, subscriptions: Mapping[UUID, Subscription], currency: str) -> tuple[WhatIf, ...]:
    """Return the changes that a form states, with its price in this currency.

    Raises InvalidInput for an invalid price, and if it changes a subscription and names none.
    """
    price_minor = read_amount(form.price, currency, "price")
    changes: list[WhatIf] = []
    if form.minimum_score is not None:
        changes.append(WhatIfPolicy(minimum_score=form.minimum_score))
    if form.strategy is not None:
        changes.append(WhatIfStrategy(strategy=form.strategy))
    changes_subscription = form.price is not None or form.daily_cap is not None or form.pause
    if changes_subscription and form.subscription is None:
        detail = "Choose the subscription to change."
        raise errors.InvalidInput((Fault(pointer="/subscription", code=FaultCode.field_missing, detail=detail),))
    key = form.subscription or ""
    if price_minor is not None:
        changes.append(WhatIfPrice(subscription_id=key, price_minor=price_minor))
    if form.daily_cap is not None:
        current = subscriptions.get(ids.decode("sub", key) or UUID(int=0))
        caps = current.definition.caps if current else ()
        day = Cap(window=CapWindow.day, count=form.daily_cap)
        changes.append(WhatIfCap(subscription_id=key, caps=(*(cap for cap in caps if cap.window != day.window), day)))
    if form.pause:
        changes.append(WhatIfPause(subscription_id=key))
    return tuple(changes)


FIELD_OF: Final = {
    "subscription_id": "subscription",
    "price_minor": "price",
    "caps": "daily_cap",
    "definition": "minimum_score",
}
"Field of the form for a part of a change that has another name there."


def _form_faults(error: errors.MarketplaceError) -> dict[str, str]:
    """Return the faults of a request by the fields of the form; a fault of none of them is of the form as a whole."""
    faults: dict[str, str] = {}
    for pointer, detail in (field_errors(error) if isinstance(error, errors.InvalidInput) else {}).items():
        parts = [FIELD_OF.get(part, part) for part in pointer.split("/")]
        name = next((part for part in parts if part in WhatIfForm.__struct_fields__), "")
        faults[name] = "Fill in what should be different." if pointer == "changes" else detail
    return faults


# One simulation.


@get(f"{HOME}/{{simulation_id:str}}")
async def show_simulation(request: AnyRequest, simulation_id: FromPath[str]) -> Response[bytes]:
    """Show the progress of a simulation or its result; `?format=csv` has the table of the businesses."""
    viewer = await visitor(request, CallerKind.operator)
    pool = services(request).pool
    simulation = await simulations_flow.load(pool, path_id("sim", simulation_id))
    result = simulation.result
    rows = result.comparison.businesses if result and result.comparison else ()
    async with session(pool) as connection:
        names = await loading.list_business_names(connection, (row.business_id for row in rows))
    businesses = business_listing(names, simulation.currency)
    if wants_csv(request):
        return await businesses.download(rows, f"what-if-{simulation_id}")
    return page(
        request,
        viewer,
        "operator/simulation.html",
        simulation=simulation,
        title=_title(simulation),
        address_of=_address(simulation.id),
        businesses=businesses,
        rows=rows,
        unknown=UNKNOWN,
        headers=REFRESH if simulation.state in OPEN else None,
    )


@post(f"{HOME}/{{simulation_id:str}}/cancel")
async def cancel_simulation(request: AnyRequest, simulation_id: FromPath[str]) -> Response[bytes]:
    """Cancel a simulation that waits or runs."""
    viewer, _ = await changing(request, CallerKind.operator)
    key = path_id("sim", simulation_id)
    await simulations_flow.cancel(services(request).pool, viewer.actor, key)
    return redirect(request, _address(key), "The simulation is cancelled.")


def _title(simulation: StoredSimulation) -> str:
    """Return what a simulation tries, in words."""
    if simulation.request.suggest:
        return "Small changes, one by one"
    text = describe_changes(simulation.request.changes, simulation.currency)
    return text[:1].upper() + text[1:]


def _address(simulation_id: UUID) -> str:
    return f"{HOME}/{ids.encode('sim', simulation_id)}"


handlers: tuple[Any, ...] = (show_what_if, start_what_if, start_suggestions, show_simulation, cancel_simulation)
