"""Businesses and providers: their names, states, terms and keys. Each change has a reason."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from markupsafe import Markup
from msgspec import Meta

from billing.pricing import MOST_FIXED_MINOR, FixedPayout, Payout, SharePayout
from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import going_live
from marketplace.directory import store as directory_store
from marketplace.directory.parties import LONGEST_SELLER_NAME, MOST_SELLER_NAMES
from marketplace.directory.store import Endpoint, TenantScope
from marketplace.directory.wire import Currency, Slug
from marketplace.portal import flow as account_flow
from marketplace.portal.api_keys import KEYS, KeyDays, KeyName, works
from marketplace.portal.business.leads import field_fault, read_amount
from marketplace.portal.business.wording import endpoint_name
from marketplace.portal.forms import (
    Amount,
    Reason,
    ReasonForm,
    ShownForm,
    ZoneName,
    changing,
    fill,
    label,
    show_again,
    show_form,
    submitted,
)
from marketplace.portal.frame import badge, money, page, redirect, words
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.audit_trail import recent_changes
from marketplace.portal.operator.back_office_store import BusinessRow, ProviderRow, SubscriptionRow
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors, ids
from marketplace.security import access, auth
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS, Fault, FaultCode
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv
from routing.subscription import PRIORITY, WEIGHT, BusinessTerms

BUSINESSES: Final = "/operator/businesses"
PROVIDERS: Final = "/operator/providers"
MOST_SHOWN: Final = 100
CHANGES_SHOWN: Final = 15
CSV_LINES: Final = 10_000

SellerNames = Annotated[str, Meta(max_length=MOST_SELLER_NAMES * 101, extra={"kind": "textarea", "rows": 3})]
PartyName = Annotated[str, Meta(min_length=1, max_length=200, pattern=WORDS)]
Percent = Annotated[float, Meta(ge=0, le=100, extra={"step": "0.01"})]
FIXED_PAYOUT: Final = "Or a fixed amount per lead, in {currency}"
KEY_MODES: Final = (("test", "Test: no real people or money"), ("live", "Live: real people"))


class BusinessForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new business. Its wallet is created with it, in `currency`."""

    name: Annotated[PartyName, label("Name")]
    zone: Annotated[ZoneName, label("Time zone", "Used for its opening hours and daily caps.")]
    currency: Annotated[Currency, label("Currency of its wallet", "It cannot be changed later.", maxlength=3)]


class SignUpLinkForm(msgspec.Struct, frozen=True, kw_only=True):
    """A link by which a business signs itself up."""

    currency: Annotated[Currency, label("Currency of its wallet", "It cannot be changed later.", maxlength=3)]


class ProviderForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new provider with its payout: a percentage of each price, or a fixed amount per lead."""

    name: Annotated[PartyName, label("Name")]
    share_percent: Annotated[Percent | None, label("Percentage of each price")] = None
    fixed: Annotated[Amount | None, label(FIXED_PAYOUT, "If given, it replaces the percentage.")] = None


class BusinessChangeForm(msgspec.Struct, frozen=True, kw_only=True):
    """Changes to a business. A field that is not sent stays as it is."""

    name: Annotated[PartyName | None, label("Name", required=True)] = None
    zone: Annotated[ZoneName | None, label("Time zone", required=True)] = None
    seller_names: Annotated[
        SellerNames | None,
        label(
            "Legal and trade names",
            "One in each line. A consent that names sellers is only for a business with such a name.",
        ),
    ] = None
    state: Literal["active", "frozen"] | None = None
    reason: Annotated[Reason, label("Reason")]


class TermsForm(msgspec.Struct, frozen=True, kw_only=True):
    """Weight and priority of a business in a vertical, for all its subscriptions there."""

    vertical: Annotated[Slug, label("Vertical", kind="select")]
    weight: Annotated[int, Meta(ge=WEIGHT[0], le=WEIGHT[1]), label("Weight")]
    priority: Annotated[int, Meta(ge=PRIORITY[0], le=PRIORITY[1]), label("Priority, lower goes first")]
    reason: Annotated[Reason, label("Reason")]


class ProviderChangeForm(msgspec.Struct, frozen=True, kw_only=True):
    """Changes to a provider. An empty field stays as it is."""

    name: Annotated[PartyName | None, label("Name", required=True)] = None
    state: Literal["active", "suspended"] | None = None
    share_percent: Annotated[
        Percent | None, label("Percentage of each price", "If empty, the payout stays as it is.")
    ] = None
    fixed: Annotated[Amount | None, label(FIXED_PAYOUT)] = None
    reason: Annotated[Reason, label("Reason")]


class PartyKeyForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new key. It expires after `days` days, or never."""

    key_name: Annotated[KeyName, label("Name")]
    mode: Annotated[Literal["test", "live"], label("Mode")]
    days: Annotated[KeyDays | None, label("Days until it expires", "If empty, the key works until it is revoked.")] = (
        None
    )
    key_reason: Annotated[
        Reason | None,
        label(
            "Reason",
            "Required once the account is in use. Its owners see this reason and your name, and each contact that is "
            "read with the key is in the reveal log until an owner confirms it.",
        ),
    ] = None


async def payout_currency(request: AnyRequest) -> str:
    """Return the currency in which fixed payouts are shown and typed: that of most verticals.

    For a lead in another currency, a fixed payout is the same number of its smallest units.
    """
    rules = await services(request).catalog.recent()
    currencies = Counter(vertical.definition.currency for vertical in rules.by_slug.values())
    return max(currencies, key=lambda currency: (currencies[currency], currency), default="USD")


def describe_payout(payout: Payout, currency: str) -> str:
    """Return the payout in words: `60% of the price`, `$3.00 per lead`."""
    if isinstance(payout, SharePayout):
        return f"{payout.basis_points / 100:g}% of the price"
    return f"{money(payout.minor, currency)} per lead"


def _read_payout(share_percent: float | None, fixed: str | None, currency: str) -> Payout | None:
    """Return the payout of a form, None if it states none. Raises InvalidInput for an invalid amount."""
    minor = read_amount(fixed, currency, "fixed")
    if minor is not None:
        if not 0 <= minor <= MOST_FIXED_MINOR:
            raise field_fault("fixed", FaultCode.out_of_range, "Enter an amount from 0.00 on.")
        return FixedPayout(minor=minor)
    return None if share_percent is None else SharePayout(basis_points=round(share_percent * 100))


# Lists.


def _identity(heading: str, home: str, prefix: str) -> tuple[Column[Any], ...]:
    """Return the columns that name a party and its state."""
    return (
        only_in_file("id", lambda row: ids.encode(prefix, row.id)),
        Column(
            heading,
            lambda row: Link(f"{home}/{ids.encode(prefix, row.id)}", row.name),
            file="name",
            value=lambda row: row.name,
        ),
        Column("State", lambda row: badge(row.state), file="state", value=lambda row: row.state),
    )


_HISTORY: Final[tuple[Column[Any], ...]] = (
    Column("Last lead", lambda row: row.last_lead_at),
    Column(
        "Since", lambda row: row.created_at, file="created_at", value=lambda row: row.created_at.isoformat(), time="day"
    ),
)
BUSINESS_LIST: Final = Listing[BusinessRow](
    caption="Businesses",
    name="businesses",
    columns=(
        *_identity("Business", BUSINESSES, "biz"),
        only_in_file("zone", lambda row: row.zone),
        only_in_file("currency", lambda row: row.currency),
        Column("Available", lambda row: Money(row.available_minor, row.currency), file="available_minor", style="num"),
        Column("Held", lambda row: Money(row.held_minor, row.currency), file="held_minor", style="num"),
        only_in_file("credit_limit_minor", lambda row: row.credit_limit_minor),
        Column("Active subscriptions", lambda row: row.subscriptions, file="orders", style="num"),
        *_HISTORY,
    ),
    order=(
        "id",
        "name",
        "state",
        "zone",
        "created_at",
        "currency",
        "available_minor",
        "held_minor",
        "credit_limit_minor",
        "orders",
    ),
)


def provider_list(currency: str) -> Listing[ProviderRow]:
    """Return the list of providers, with fixed payouts in this currency."""
    return Listing(
        caption="Providers",
        name="providers",
        columns=(
            *_identity("Provider", PROVIDERS, "prov"),
            Column("Payout", lambda row: describe_payout(row.payout, currency), file="payout"),
            Column("Live keys", lambda row: row.live_keys, file="live_keys", style="num"),
            *_HISTORY,
        ),
    )


class PartyKind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of party in the back office: its pages and list, the states to filter by, and the form to add one.

    `listing` takes the currency of fixed payouts.
    """

    caller: CallerKind
    home: str
    prefix: str
    about: str
    listing: Callable[[str], Listing[Any]]
    load: Callable[..., Awaitable[tuple[BusinessRow, ...] | tuple[ProviderRow, ...]]]
    states: tuple[str, str]
    form: type[msgspec.Struct]
    values: Mapping[str, object]


KINDS: Final = (
    PartyKind(
        caller=CallerKind.business,
        home=BUSINESSES,
        prefix="biz",
        about="Businesses that buy leads, with their money, subscriptions and latest lead.",
        listing=lambda currency: BUSINESS_LIST,
        load=back_office_store.list_businesses,
        states=("active", "frozen"),
        form=BusinessForm,
        values={"zone": "America/Chicago", "currency": "USD"},
    ),
    PartyKind(
        caller=CallerKind.provider,
        home=PROVIDERS,
        prefix="prov",
        about="Providers that send inquiries, with their payout and latest lead.",
        listing=provider_list,
        load=back_office_store.list_providers,
        states=("active", "suspended"),
        form=ProviderForm,
        values={"share_percent": 60},
    ),
)


def _kind_of(request: AnyRequest) -> PartyKind:
    """Return the kind of party that the page at this address is about."""
    return next(kind for kind in KINDS if request.url.path.startswith(kind.home))


@get([BUSINESSES, PROVIDERS])
async def show_parties(request: AnyRequest) -> Response[bytes]:
    """Show the businesses or providers that match the filter, newest first."""
    return await _list_page(request, await visitor(request, CallerKind.operator))


async def _list_page(request: AnyRequest, viewer: Viewer, *, link: str = "") -> Response[bytes]:
    kind, query, as_file = _kind_of(request), request.query_params, wants_csv(request)
    limit = CSV_LINES if as_file else list_limit(request)
    async with session(services(request).pool) as connection:
        rows = await kind.load(
            connection,
            page_cursor(request, kind.prefix),
            limit + 1,
            name=query.get("name") or None,
            state=query.get("state") or None,
        )
    currency = await payout_currency(request)
    listing = kind.listing(currency)
    if as_file:
        return await listing.download(rows[:limit])
    return page(
        request,
        viewer,
        "operator/parties.html",
        kind=kind,
        listing=listing,
        states=[(state, words(state)) for state in kind.states],
        form=show_form(kind.form, kind.values, currency=currency),
        link_form=show_form(SignUpLinkForm, kind.values) if kind.caller is CallerKind.business else None,
        link=link,
        rows=rows[:limit],
        next_cursor=next_page(kind.prefix, [row.id for row in rows], limit),
    )


@post(BUSINESSES)
async def create_business(request: AnyRequest) -> Response[bytes]:
    """Create a business with its wallet, and go to its team to invite the first member."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form = fill(BusinessForm, fields)
        business = await directory_flow.create_business(
            services(request).pool, viewer.actor, form.name.strip(), form.zone, form.currency, 0
        )
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _list_page(request, viewer))
    team = f"/operator/accounts/{ids.encode('biz', business.id)}/team"
    return redirect(request, team, f"{business.name} was added. Now invite its first member.")


@post(f"{BUSINESSES}/sign-up-link")
async def make_sign_up_link(request: AnyRequest) -> Response[bytes]:
    """Make a link by which a business signs itself up, and show it once."""
    viewer, fields = await changing(request, CallerKind.operator)
    app = services(request)
    try:
        token = await account_flow.sign_up_link(app.pool, viewer.actor, fill(SignUpLinkForm, fields).currency)
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _list_page(request, viewer))
    return await _list_page(request, viewer, link=f"{app.settings.public_url}/link/{token}")


@post(PROVIDERS)
async def create_provider(request: AnyRequest) -> Response[bytes]:
    """Create a provider, and go to its team to invite the first member."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form, currency = fill(ProviderForm, fields), await payout_currency(request)
        payout = _read_payout(form.share_percent, form.fixed, currency) or SharePayout(basis_points=0)
        provider = await directory_flow.create_provider(services(request).pool, viewer.actor, form.name.strip(), payout)
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _list_page(request, viewer))
    team = f"/operator/accounts/{ids.encode('prov', provider.id)}/team"
    return redirect(request, team, f"{provider.name} was added. Now invite its first member.")


# One business, one provider.

SUBSCRIPTIONS: Final = Listing[SubscriptionRow](
    caption="Subscriptions",
    columns=(
        Column("Subscription", lambda row: Link(f"/operator/subscriptions/{ids.encode('sub', row.id)}", row.name)),
        Column("Vertical", lambda row: Link(f"/operator/verticals/{row.slug}", row.vertical)),
        Column("State", lambda row: badge(row.state)),
        Column("Mode", lambda row: badge(row.mode, "good" if row.mode == "live" else "warn")),
        Column("Price", lambda row: Money(row.price_minor, row.currency), style="num"),
        Column("Weight", lambda row: row.weight, style="num"),
        Column("Priority", lambda row: row.priority, style="num"),
        Column("Version", lambda row: row.version, style="num"),
    ),
)


def _endpoint_state(endpoint: Endpoint) -> Markup:
    if endpoint.breaker_open_until is not None and endpoint.breaker_open_until > clock.now():
        return badge("Paused after failures", "bad")
    return badge(endpoint.state)


ENDPOINTS: Final = Listing[Endpoint](
    caption="Endpoints",
    columns=(
        Column("Address", lambda endpoint: endpoint_name(endpoint.kind, endpoint.url)),
        Column("State", _endpoint_state),
        Column("Verified", lambda endpoint: endpoint.verified_at),
    ),
)


@get(f"{BUSINESSES}/{{business_id:str}}")
async def show_business(request: AnyRequest, business_id: FromPath[str]) -> Response[bytes]:
    """Show a business with its money, subscriptions, endpoints, keys and latest changes."""
    viewer = await visitor(request, CallerKind.operator)
    return await _business_page(request, viewer, path_id("biz", business_id))


async def _business_page(
    request: AnyRequest,
    viewer: Viewer,
    business_id: UUID,
    *,
    key: str = "",
) -> Response[bytes]:
    public = ids.encode("biz", business_id)
    async with session(services(request).pool) as connection:
        businesses = await back_office_store.list_businesses(connection, None, 1, only=business_id)
        if not businesses:
            raise errors.NotFound(directory_flow.NOT_THERE)
        subscriptions = await back_office_store.list_subscriptions(connection, business_id, MOST_SHOWN)
        scope = TenantScope(business_id=business_id, mode=None)
        endpoints = await directory_store.list_endpoints(connection, scope, None, MOST_SHOWN)
        keys = await auth.list_keys(connection, business_id, None, MOST_SHOWN)
        changes = await back_office_store.list_audit(connection, None, CHANGES_SHOWN, object=public)
        names = await back_office_store.list_actor_names(connection, {change.actor for change in changes})
    return page(
        request,
        viewer,
        "operator/business.html",
        business=businesses[0],
        account=public,
        home=f"{BUSINESSES}/{public}",
        subscription_listing=SUBSCRIPTIONS,
        subscriptions=subscriptions,
        endpoint_listing=ENDPOINTS,
        endpoints=endpoints,
        form=show_form(
            BusinessChangeForm,
            {
                "name": businesses[0].name,
                "zone": businesses[0].zone,
                "seller_names": "\n".join(businesses[0].seller_names),
            },
        ),
        terms_form=_terms_form(subscriptions),
        **_party_context(keys, changes, names, key),
    )


def _terms_form(subscriptions: Sequence[SubscriptionRow]) -> ShownForm:
    """Return the form of the terms, for the verticals of these subscriptions, with those of the first one."""
    values = {"weight": subscriptions[0].weight, "priority": subscriptions[0].priority} if subscriptions else {}
    verticals = tuple(dict.fromkeys((row.slug, row.vertical) for row in subscriptions))
    return show_form(TermsForm, values, {"vertical": verticals})


@get(f"{PROVIDERS}/{{provider_id:str}}")
async def show_provider(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Show a provider with its terms, its steps to going live, its keys and its latest changes."""
    viewer = await visitor(request, CallerKind.operator)
    return await _provider_page(request, viewer, path_id("prov", provider_id))


async def _provider_page(
    request: AnyRequest,
    viewer: Viewer,
    provider_id: UUID,
    *,
    key: str = "",
) -> Response[bytes]:
    public, currency = ids.encode("prov", provider_id), await payout_currency(request)
    async with session(services(request).pool) as connection:
        providers = await back_office_store.list_providers(connection, None, 1, only=provider_id)
        if not providers:
            raise errors.NotFound(directory_flow.NOT_THERE)
        readiness = await going_live.load_readiness(connection, provider_id)
        keys = await auth.list_keys(connection, provider_id, None, MOST_SHOWN)
        changes = await back_office_store.list_audit(connection, None, CHANGES_SHOWN, object=public)
        names = await back_office_store.list_actor_names(connection, {change.actor for change in changes})
    return page(
        request,
        viewer,
        "operator/provider.html",
        provider=providers[0],
        account=public,
        home=f"{PROVIDERS}/{public}",
        readiness=readiness,
        payout=describe_payout(providers[0].payout, currency),
        form=show_form(ProviderChangeForm, {"name": providers[0].name}, currency=currency),
        **_party_context(keys, changes, names, key),
    )


def _party_context(
    keys: tuple[auth.ApiKey, ...], changes: tuple[back_office_store.AuditEntry, ...], names: dict[str, str], key: str
) -> dict[str, Any]:
    """Return the values that both pages show: keys, changes, and the text of a new key."""
    return {
        "keys": keys,
        "key_listing": KEYS,
        "key_form": show_form(PartyKeyForm, {"mode": "test"}, {"mode": KEY_MODES}),
        "works": works,
        "changes": changes,
        "change_listing": recent_changes(names),
        "key": key,
    }


# Changes.


@post(f"{BUSINESSES}/{{business_id:str}}")
async def change_business(request: AnyRequest, business_id: FromPath[str]) -> Response[bytes]:
    """Change a business's name, zone or state. A frozen business gets no leads and its keys stop; its money stays."""
    viewer, fields = await changing(request, CallerKind.operator)
    party_id = path_id("biz", business_id)
    try:
        form = fill(BusinessChangeForm, fields)
        seller_names = _read_names(form.seller_names or "") if "seller_names" in fields else None
        business = await directory_flow.change_business(
            services(request).pool,
            viewer.actor,
            party_id,
            form.name,
            form.state,
            form.zone,
            form.reason.strip(),
            seller_names,
        )
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _business_page(request, viewer, party_id))
    return redirect(request, f"{BUSINESSES}/{business_id}", f"{business.name} was changed.")


def _read_names(text: str) -> tuple[str, ...]:
    """Return the names in the lines of a text. Raises InvalidInput."""
    names = tuple(dict.fromkeys(" ".join(line.split()) for line in text.splitlines() if line.strip()))
    if len(names) > MOST_SELLER_NAMES or any(len(name) > LONGEST_SELLER_NAME for name in names):
        detail = (
            f"Enter at most {MOST_SELLER_NAMES} names of at most {LONGEST_SELLER_NAME} characters, one in each line."
        )
        raise errors.InvalidInput((Fault(pointer="/seller_names", code=FaultCode.too_long, detail=detail),))
    return names


@post(f"{BUSINESSES}/{{business_id:str}}/terms")
async def change_terms(request: AnyRequest, business_id: FromPath[str]) -> Response[bytes]:
    """Set weight and priority of a business in a vertical. They hold from the next lead."""
    viewer, fields = await changing(request, CallerKind.operator)
    party_id = path_id("biz", business_id)
    try:
        form = fill(TermsForm, fields)
        terms = BusinessTerms(weight=form.weight, priority=form.priority)
        await directory_flow.set_terms(
            services(request).pool, viewer.actor, form.vertical, party_id, terms, form.reason.strip()
        )
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _business_page(request, viewer, party_id))
    return redirect(request, f"{BUSINESSES}/{business_id}", "Weight and priority were changed.")


@post(f"{PROVIDERS}/{{provider_id:str}}")
async def change_provider(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Change a provider's name, state or payout. The payout agreed at an award does not change."""
    viewer, fields = await changing(request, CallerKind.operator)
    party_id = path_id("prov", provider_id)
    try:
        form, currency = fill(ProviderChangeForm, fields), await payout_currency(request)
        provider = await directory_flow.change_provider(
            services(request).pool,
            viewer.actor,
            party_id,
            form.name,
            form.state,
            _read_payout(form.share_percent, form.fixed, currency),
            form.reason.strip(),
        )
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _provider_page(request, viewer, party_id))
    return redirect(request, f"{PROVIDERS}/{provider_id}", f"{provider.name} was changed.")


@post([f"{BUSINESSES}/{{account:str}}/keys", f"{PROVIDERS}/{{account:str}}/keys"])
async def create_key(request: AnyRequest, account: FromPath[str]) -> Response[bytes]:
    """Create a key for a business or a provider, and show its text once."""
    viewer, fields = await changing(request, CallerKind.operator)
    kind = _kind_of(request)
    party_id = path_id(kind.prefix, account)
    show = _business_page if kind.caller is CallerKind.business else _provider_page
    try:
        text = await _create_key(request, viewer, kind.caller, party_id, fill(PartyKeyForm, fields))
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, show(request, viewer, party_id))
    return await show(request, viewer, party_id, key=text)


async def _create_key(request: AnyRequest, viewer: Viewer, kind: CallerKind, owner_id: UUID, form: PartyKeyForm) -> str:
    """Return the new key's text. Raises InvalidInput with the names of the form's fields."""
    resources = services(request)
    expires_at = clock.now() + timedelta(days=form.days) if form.days else None
    try:
        return await directory_flow.create_key(
            resources.pool,
            resources.sealer,
            viewer.actor,
            kind=kind,
            owner_id=owner_id,
            mode=form.mode,
            name=form.key_name.strip(),
            expires_at=expires_at,
            opened=access.opened_by(viewer.actor, viewer.kind, viewer.opened, form.key_reason),
        )
    except errors.InvalidInput as error:
        raise errors.InvalidInput(
            msgspec.structs.replace(fault, pointer="/key_reason") if fault.pointer == "/reason" else fault
            for fault in error.faults
        ) from None


@post([f"{BUSINESSES}/{{account:str}}/keys/{{key_id:str}}", f"{PROVIDERS}/{{account:str}}/keys/{{key_id:str}}"])
async def revoke_key(request: AnyRequest, account: FromPath[str], key_id: FromPath[str]) -> Response[bytes]:
    """Revoke a key of a business or a provider at once."""
    viewer, form = await submitted(request, ReasonForm, CallerKind.operator)
    kind = _kind_of(request)
    owner_id = path_id(kind.prefix, account)
    key = await going_live.revoke_own_key(services(request).pool, viewer.actor, owner_id, key_id, form.reason.strip())
    return redirect(request, f"{kind.home}/{account}", f"The key “{key.name}” was revoked.")


@post(f"{PROVIDERS}/{{provider_id:str}}/approve")
async def approve_provider(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Allow a provider to create live keys."""
    viewer, _ = await changing(request, CallerKind.operator)
    await going_live.approve_live(services(request).pool, viewer.actor, path_id("prov", provider_id))
    return redirect(request, f"{PROVIDERS}/{provider_id}", "The provider can create live keys now.")


handlers: tuple[Any, ...] = (
    show_parties,
    create_business,
    make_sign_up_link,
    create_provider,
    show_business,
    show_provider,
    change_business,
    change_terms,
    change_provider,
    create_key,
    revoke_key,
    approve_provider,
)
