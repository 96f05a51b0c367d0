"""Businesses and providers: their names, states, terms and keys. Each change has a reason."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from billing.pricing import FixedPayout, Payout, SharePayout
from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import going_live
from marketplace.directory import store as directory_store
from marketplace.directory.store import TenantScope
from marketplace.directory.wire import Currency
from marketplace.portal.forms import changing, fill, show_again, submitted
from marketplace.portal.frame import badge, page, redirect
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.audit_trail import describe_detail
from marketplace.portal.operator.back_office_store import BusinessRow, ProviderRow
from marketplace.portal.paging import next_page
from marketplace.portal.provider.keys import state_of
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors, ids
from marketplace.security import access, auth
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS
from marketplace.web.http import AnyRequest, page_cursor, page_limit, path_id, services, wants_csv

BUSINESSES: Final = "/operator/businesses"
PROVIDERS: Final = "/operator/providers"
MOST_SHOWN: Final = 100
CHANGES_SHOWN: Final = 15
CSV_LINES: Final = 10_000

PartyName = Annotated[str, Meta(min_length=1, max_length=200, pattern=WORDS)]
Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=WORDS)]


class BusinessForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new business. Its wallet is created with it, in `currency`."""

    name: PartyName
    zone: Annotated[str, Meta(min_length=1, max_length=64)]
    currency: Currency


class ProviderForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new provider with its payout: a percentage of each price, or a fixed amount per lead in minor units."""

    name: PartyName
    share_percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    fixed_minor: Annotated[int, Meta(ge=0, le=10**9)] | None = None


class BusinessChangeForm(msgspec.Struct, frozen=True, kw_only=True):
    """Changes to a business. An empty field stays as it is."""

    name: PartyName | None = None
    zone: Annotated[str, Meta(max_length=64)] | None = None
    state: Literal["active", "frozen"] | None = None
    reason: Reason


class ProviderChangeForm(msgspec.Struct, frozen=True, kw_only=True):
    """Changes to a provider. An empty field stays as it is."""

    name: PartyName | None = None
    state: Literal["active", "suspended"] | None = None
    share_percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    fixed_minor: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    reason: Reason


class PartyKeyForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new key. It expires after `days` days, or never."""

    key_name: Annotated[str, Meta(min_length=1, max_length=100, pattern=WORDS)]
    mode: Literal["test", "live"]
    days: Annotated[int, Meta(ge=1, le=3_650)] | None = None
    key_reason: Annotated[str, Meta(max_length=500, pattern=WORDS)] | None = None


class RevokeForm(msgspec.Struct, frozen=True, kw_only=True):
    """Reason for revoking a key."""

    reason: Reason


def describe_payout(payout: Payout) -> str:
    """Return the payout in words: `60% of the price`, `300 per lead (minor units)`."""
    if isinstance(payout, SharePayout):
        return f"{payout.basis_points / 100:g}% of the price"
    return f"{payout.minor:,} per lead (minor units)"


def _read_payout(share_percent: float | None, fixed_minor: int | None) -> Payout | None:
    if fixed_minor is not None:
        return FixedPayout(minor=fixed_minor)
    return None if share_percent is None else SharePayout(basis_points=round(share_percent * 100))


# Lists.

BUSINESS_LIST: Final = Listing[BusinessRow](
    caption="Businesses",
    name="businesses",
    columns=(
        only_in_file("id", lambda row: ids.encode("biz", row.id)),
        Column(
            "Business",
            lambda row: Link(f"{BUSINESSES}/{ids.encode('biz', row.id)}", row.name),
            file="name",
            value=lambda row: row.name,
        ),
        Column("State", lambda row: badge(row.state), file="state", value=lambda row: row.state),
        only_in_file("zone", lambda row: row.zone),
        only_in_file("currency", lambda row: row.currency),
        Column("Available", lambda row: Money(row.available_minor, row.currency), file="available_minor", style="num"),
        Column("Held", lambda row: Money(row.held_minor, row.currency), file="held_minor", style="num"),
        only_in_file("credit_limit_minor", lambda row: row.credit_limit_minor),
        Column("Active subscriptions", lambda row: row.subscriptions, file="orders", style="num"),
        Column("Last lead", lambda row: row.last_lead_at),
        Column(
            "Since",
            lambda row: row.created_at,
            file="created_at",
            value=lambda row: row.created_at.isoformat(),
            time="day",
        ),
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
PROVIDER_LIST: Final = Listing[ProviderRow](
    caption="Providers",
    name="providers",
    columns=(
        only_in_file("id", lambda row: ids.encode("prov", row.id)),
        Column(
            "Provider",
            lambda row: Link(f"{PROVIDERS}/{ids.encode('prov', row.id)}", row.name),
            file="name",
            value=lambda row: row.name,
        ),
        Column("State", lambda row: badge(row.state), file="state", value=lambda row: row.state),
        Column("Payout", lambda row: describe_payout(row.payout), file="payout"),
        Column("Live keys", lambda row: row.live_keys, file="live_keys", style="num"),
        Column("Last lead", lambda row: row.last_lead_at),
        Column(
            "Since",
            lambda row: row.created_at,
            file="created_at",
            value=lambda row: row.created_at.isoformat(),
            time="day",
        ),
    ),
)


@get(BUSINESSES)
async def show_businesses(request: AnyRequest) -> Response[bytes]:
    """Show the businesses that match the filter, newest first."""
    return await _businesses_page(request, await visitor(request, CallerKind.operator))


async def _businesses_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    query, as_file = request.query_params, wants_csv(request)
    limit = CSV_LINES if as_file else page_limit(request)
    async with session(services(request).pool) as connection:
        rows = await back_office_store.list_businesses(
            connection,
            page_cursor(request, "biz"),
            limit + 1,
            name=query.get("name") or None,
            state=query.get("state") or None,
        )
    if as_file:
        return await BUSINESS_LIST.download(rows[:limit])
    return page(
        request,
        viewer,
        "operator/businesses.html",
        listing=BUSINESS_LIST,
        rows=rows[:limit],
        next_cursor=next_page("biz", [row.id for row in rows], limit),
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
        return await show_again(request, fields, error, _businesses_page(request, viewer))
    team = f"/operator/accounts/{ids.encode('biz', business.id)}/team"
    return redirect(request, team, f"{business.name} was added. Now invite its first member.")


@get(PROVIDERS)
async def show_providers(request: AnyRequest) -> Response[bytes]:
    """Show the providers that match the filter, newest first."""
    return await _providers_page(request, await visitor(request, CallerKind.operator))


async def _providers_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    query, as_file = request.query_params, wants_csv(request)
    limit = CSV_LINES if as_file else page_limit(request)
    async with session(services(request).pool) as connection:
        rows = await back_office_store.list_providers(
            connection,
            page_cursor(request, "prov"),
            limit + 1,
            name=query.get("name") or None,
            state=query.get("state") or None,
        )
    if as_file:
        return await PROVIDER_LIST.download(rows[:limit])
    return page(
        request,
        viewer,
        "operator/providers.html",
        listing=PROVIDER_LIST,
        rows=rows[:limit],
        next_cursor=next_page("prov", [row.id for row in rows], limit),
    )


@post(PROVIDERS)
async def create_provider(request: AnyRequest) -> Response[bytes]:
    """Create a provider, and go to its team to invite the first member."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form = fill(ProviderForm, fields)
        payout = _read_payout(form.share_percent, form.fixed_minor) or SharePayout(basis_points=0)
        provider = await directory_flow.create_provider(services(request).pool, viewer.actor, form.name.strip(), payout)
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _providers_page(request, viewer))
    team = f"/operator/accounts/{ids.encode('prov', provider.id)}/team"
    return redirect(request, team, f"{provider.name} was added. Now invite its first member.")


# One business, one provider.


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
        subscriptions=subscriptions,
        endpoints=endpoints,
        **_party_context(keys, changes, names, key),
    )


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
    public = ids.encode("prov", provider_id)
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
        describe_payout=describe_payout,
        **_party_context(keys, changes, names, key),
    )


def _party_context(
    keys: tuple[auth.ApiKey, ...], changes: tuple[back_office_store.AuditEntry, ...], names: dict[str, str], key: str
) -> dict[str, Any]:
    """Return the values that both pages show: keys, changes, and the text of a new key."""
    return {
        "keys": tuple((api_key, state_of(api_key)) for api_key in keys),
        "changes": changes,
        "names": names,
        "describe_detail": describe_detail,
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
        business = await directory_flow.change_business(
            services(request).pool, viewer.actor, party_id, form.name, form.state, form.zone, form.reason.strip()
        )
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _business_page(request, viewer, party_id))
    return redirect(request, f"{BUSINESSES}/{business_id}", f"{business.name} was changed.")


@post(f"{PROVIDERS}/{{provider_id:str}}")
async def change_provider(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Change a provider's name, state or payout. The payout agreed at an award does not change."""
    viewer, fields = await changing(request, CallerKind.operator)
    party_id = path_id("prov", provider_id)
    try:
        form = fill(ProviderChangeForm, fields)
        provider = await directory_flow.change_provider(
            services(request).pool,
            viewer.actor,
            party_id,
            form.name,
            form.state,
            _read_payout(form.share_percent, form.fixed_minor),
            form.reason.strip(),
        )
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _provider_page(request, viewer, party_id))
    return redirect(request, f"{PROVIDERS}/{provider_id}", f"{provider.name} was changed.")


@post(f"{BUSINESSES}/{{business_id:str}}/keys")
async def create_business_key(request: AnyRequest, business_id: FromPath[str]) -> Response[bytes]:
    """Create a key for a business, and show its text once."""
    viewer, fields = await changing(request, CallerKind.operator)
    party_id = path_id("biz", business_id)
    try:
        text = await _create_key(request, viewer, CallerKind.business, party_id, fill(PartyKeyForm, fields))
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _business_page(request, viewer, party_id))
    return await _business_page(request, viewer, party_id, key=text)


@post(f"{PROVIDERS}/{{provider_id:str}}/keys")
async def create_provider_key(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Create a key for a provider, and show its text once."""
    viewer, fields = await changing(request, CallerKind.operator)
    party_id = path_id("prov", provider_id)
    try:
        text = await _create_key(request, viewer, CallerKind.provider, party_id, fill(PartyKeyForm, fields))
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _provider_page(request, viewer, party_id))
    return await _provider_page(request, viewer, party_id, key=text)


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


@post(f"{BUSINESSES}/{{business_id:str}}/keys/{{key_id:str}}")
async def revoke_business_key(
    request: AnyRequest, business_id: FromPath[str], key_id: FromPath[str]
) -> Response[bytes]:
    """Revoke a business's key at once."""
    return await _revoke(request, f"{BUSINESSES}/{business_id}", "biz", business_id, key_id)


@post(f"{PROVIDERS}/{{provider_id:str}}/keys/{{key_id:str}}")
async def revoke_provider_key(
    request: AnyRequest, provider_id: FromPath[str], key_id: FromPath[str]
) -> Response[bytes]:
    """Revoke a provider's key at once."""
    return await _revoke(request, f"{PROVIDERS}/{provider_id}", "prov", provider_id, key_id)


async def _revoke(request: AnyRequest, home: str, prefix: str, account: str, key_id: str) -> Response[bytes]:
    viewer, form = await submitted(request, RevokeForm, CallerKind.operator)
    owner_id = path_id(prefix, account)
    key = await going_live.revoke_own_key(services(request).pool, viewer.actor, owner_id, key_id, form.reason.strip())
    return redirect(request, home, f"The key “{key.name}” was revoked.")


@post(f"{PROVIDERS}/{{provider_id:str}}/approve")
async def approve_provider(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Allow a provider to create live keys."""
    viewer, _ = await changing(request, CallerKind.operator)
    await going_live.approve_live(services(request).pool, viewer.actor, path_id("prov", provider_id))
    return redirect(request, f"{PROVIDERS}/{provider_id}", "The provider can create live keys now.")


handlers: tuple[Any, ...] = (
    show_businesses,
    create_business,
    show_providers,
    create_provider,
    show_business,
    show_provider,
    change_business,
    change_provider,
    create_business_key,
    create_provider_key,
    revoke_business_key,
    revoke_provider_key,
    approve_provider,
)
