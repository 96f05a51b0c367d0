"""Businesses and providers: who they are, what they may do, their keys; each change with the reason for it."""

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
from marketplace.portal.operator.audit_trail import details
from marketplace.portal.operator.back_office_store import BusinessRow, ProviderRow
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
    """A new business; its wallet is made with it, in `currency`."""

    name: PartyName
    zone: Annotated[str, Meta(min_length=1, max_length=64)]
    currency: Currency


class ProviderForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new provider, and what it earns: so many per cent of each price, or a fixed amount in minor units."""

    name: PartyName
    share_percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    fixed_minor: Annotated[int, Meta(ge=0, le=10**9)] | None = None


class BusinessChangeForm(msgspec.Struct, frozen=True, kw_only=True):
    """What is left out stays."""

    name: PartyName | None = None
    zone: Annotated[str, Meta(max_length=64)] | None = None
    state: Literal["active", "frozen"] | None = None
    reason: Reason


class ProviderChangeForm(msgspec.Struct, frozen=True, kw_only=True):
    """What is left out stays."""

    name: PartyName | None = None
    state: Literal["active", "suspended"] | None = None
    share_percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    fixed_minor: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    reason: Reason


class PartyKeyForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new key; `days` until it ends, or none."""

    key_name: Annotated[str, Meta(min_length=1, max_length=100, pattern=WORDS)]
    mode: Literal["test", "live"]
    days: Annotated[int, Meta(ge=1, le=3_650)] | None = None
    key_reason: Annotated[str, Meta(max_length=500, pattern=WORDS)] | None = None


class RevokeForm(msgspec.Struct, frozen=True, kw_only=True):
    """Why a key is ended."""

    reason: Reason


def payout_words(payout: Payout) -> str:
    """`60% of the price`, `300 a lead (minor units)`."""
    if isinstance(payout, SharePayout):
        return f"{payout.basis_points / 100:g}% of the price"
    return f"{payout.minor:,} a lead (minor units)"


def _payout(share_percent: float | None, fixed_minor: int | None) -> Payout | None:
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
        Column("Active orders", lambda row: row.orders, file="orders", style="num"),
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
        Column("Is paid", lambda row: payout_words(row.payout), file="payout"),
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
    """Shows all businesses, newest first."""
    return await _businesses_page(request, await visitor(request, CallerKind.operator))


async def _businesses_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    asked, as_file = request.query_params, wants_csv(request)
    limit = CSV_LINES if as_file else page_limit(request)
    async with session(services(request).pool) as connection:
        found = await back_office_store.list_businesses(
            connection,
            page_cursor(request, "biz"),
            limit + 1,
            name=asked.get("name") or None,
            state=asked.get("state") or None,
        )
    if as_file:
        return await BUSINESS_LIST.download(found[:limit])
    return page(
        request,
        viewer,
        "operator/businesses.html",
        listing=BUSINESS_LIST,
        rows=found[:limit],
        next_cursor=ids.encode("biz", found[limit - 1].id) if len(found) > limit else None,
    )


@post(BUSINESSES)
async def create_business(request: AnyRequest) -> Response[bytes]:
    """Makes a business with its wallet, and leads on to its team, to invite somebody."""
    viewer, given = await changing(request, CallerKind.operator)
    try:
        form = fill(BusinessForm, given)
        made = await directory_flow.create_business(
            services(request).pool, viewer.actor, form.name.strip(), form.zone, form.currency, 0
        )
    except errors.InvalidInput as error:
        return await show_again(request, given, error, _businesses_page(request, viewer))
    where = f"/operator/accounts/{ids.encode('biz', made.id)}/team"
    return redirect(request, where, f"{made.name} was made. Invite its first member.")


@get(PROVIDERS)
async def show_providers(request: AnyRequest) -> Response[bytes]:
    """Shows all providers, newest first."""
    return await _providers_page(request, await visitor(request, CallerKind.operator))


async def _providers_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    asked, as_file = request.query_params, wants_csv(request)
    limit = CSV_LINES if as_file else page_limit(request)
    async with session(services(request).pool) as connection:
        found = await back_office_store.list_providers(
            connection,
            page_cursor(request, "prov"),
            limit + 1,
            name=asked.get("name") or None,
            state=asked.get("state") or None,
        )
    if as_file:
        return await PROVIDER_LIST.download(found[:limit])
    return page(
        request,
        viewer,
        "operator/providers.html",
        listing=PROVIDER_LIST,
        rows=found[:limit],
        next_cursor=ids.encode("prov", found[limit - 1].id) if len(found) > limit else None,
    )


@post(PROVIDERS)
async def create_provider(request: AnyRequest) -> Response[bytes]:
    """Makes a provider, and leads on to its team, to invite somebody."""
    viewer, given = await changing(request, CallerKind.operator)
    try:
        form = fill(ProviderForm, given)
        payout = _payout(form.share_percent, form.fixed_minor) or SharePayout(basis_points=0)
        made = await directory_flow.create_provider(services(request).pool, viewer.actor, form.name.strip(), payout)
    except errors.InvalidInput as error:
        return await show_again(request, given, error, _providers_page(request, viewer))
    where = f"/operator/accounts/{ids.encode('prov', made.id)}/team"
    return redirect(request, where, f"{made.name} was made. Invite its first member.")


# One of each.


@get(f"{BUSINESSES}/{{business_id:str}}")
async def show_business(request: AnyRequest, business_id: FromPath[str]) -> Response[bytes]:
    """Shows one business: money, orders, doors, keys, and what was changed."""
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
        found = await back_office_store.list_businesses(connection, None, 1, only=business_id)
        if not found:
            raise errors.NotFound(directory_flow.NOT_THERE)
        orders = await back_office_store.list_subscriptions(connection, business_id, MOST_SHOWN)
        reach = TenantScope(business_id=business_id, mode=None)
        endpoints = await directory_store.list_endpoints(connection, reach, None, MOST_SHOWN)
        keys = await auth.list_keys(connection, business_id, None, MOST_SHOWN)
        changes = await back_office_store.list_audit(connection, None, CHANGES_SHOWN, object=public)
        names = await back_office_store.list_actor_names(connection, {one.actor for one in changes})
    return page(
        request,
        viewer,
        "operator/business.html",
        one=found[0],
        account=public,
        home=f"{BUSINESSES}/{public}",
        orders=orders,
        endpoints=endpoints,
        **_about(keys, changes, names, key),
    )


@get(f"{PROVIDERS}/{{provider_id:str}}")
async def show_provider(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Shows one provider: terms, readiness, keys, and what was changed."""
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
        found = await back_office_store.list_providers(connection, None, 1, only=provider_id)
        if not found:
            raise errors.NotFound(directory_flow.NOT_THERE)
        readiness = await going_live.load_readiness(connection, provider_id)
        keys = await auth.list_keys(connection, provider_id, None, MOST_SHOWN)
        changes = await back_office_store.list_audit(connection, None, CHANGES_SHOWN, object=public)
        names = await back_office_store.list_actor_names(connection, {one.actor for one in changes})
    return page(
        request,
        viewer,
        "operator/provider.html",
        one=found[0],
        account=public,
        home=f"{PROVIDERS}/{public}",
        readiness=readiness,
        payout_words=payout_words,
        **_about(keys, changes, names, key),
    )


def _about(
    keys: tuple[auth.ApiKey, ...], changes: tuple[back_office_store.AuditEntry, ...], names: dict[str, str], key: str
) -> dict[str, Any]:
    """Return what both pages show alike: keys, changes, and a new key's text."""
    return {
        "keys": tuple((one, state_of(one)) for one in keys),
        "changes": changes,
        "names": names,
        "details": details,
        "key": key,
    }


# Changes.


@post(f"{BUSINESSES}/{{business_id:str}}")
async def change_business(request: AnyRequest, business_id: FromPath[str]) -> Response[bytes]:
    """Renames, moves, freezes or thaws a business. A frozen one gets no lead and its keys stop; its money stays."""
    viewer, given = await changing(request, CallerKind.operator)
    chosen = path_id("biz", business_id)
    try:
        form = fill(BusinessChangeForm, given)
        made = await directory_flow.change_business(
            services(request).pool, viewer.actor, chosen, form.name, form.state, form.zone, form.reason.strip()
        )
    except errors.InvalidInput as error:
        return await show_again(request, given, error, _business_page(request, viewer, chosen))
    return redirect(request, f"{BUSINESSES}/{business_id}", f"{made.name} was changed.")


@post(f"{PROVIDERS}/{{provider_id:str}}")
async def change_provider(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Renames, suspends or readmits a provider, or changes its terms: what was agreed at an award stays."""
    viewer, given = await changing(request, CallerKind.operator)
    chosen = path_id("prov", provider_id)
    try:
        form = fill(ProviderChangeForm, given)
        made = await directory_flow.change_provider(
            services(request).pool,
            viewer.actor,
            chosen,
            form.name,
            form.state,
            _payout(form.share_percent, form.fixed_minor),
            form.reason.strip(),
        )
    except errors.InvalidInput as error:
        return await show_again(request, given, error, _provider_page(request, viewer, chosen))
    return redirect(request, f"{PROVIDERS}/{provider_id}", f"{made.name} was changed.")


@post(f"{BUSINESSES}/{{business_id:str}}/keys")
async def create_business_key(request: AnyRequest, business_id: FromPath[str]) -> Response[bytes]:
    """Makes a key of a business and shows its text, this once."""
    viewer, given = await changing(request, CallerKind.operator)
    chosen = path_id("biz", business_id)
    try:
        text = await _create_key(request, viewer, CallerKind.business, chosen, fill(PartyKeyForm, given))
    except errors.InvalidInput as error:
        return await show_again(request, given, error, _business_page(request, viewer, chosen))
    return await _business_page(request, viewer, chosen, key=text)


@post(f"{PROVIDERS}/{{provider_id:str}}/keys")
async def create_provider_key(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Makes a key of a provider and shows its text, this once."""
    viewer, given = await changing(request, CallerKind.operator)
    chosen = path_id("prov", provider_id)
    try:
        text = await _create_key(request, viewer, CallerKind.provider, chosen, fill(PartyKeyForm, given))
    except errors.InvalidInput as error:
        return await show_again(request, given, error, _provider_page(request, viewer, chosen))
    return await _provider_page(request, viewer, chosen, key=text)


async def _create_key(request: AnyRequest, viewer: Viewer, kind: CallerKind, owner_id: UUID, form: PartyKeyForm) -> str:
    """Return the new key's text. Raises InvalidInput by the names of the form's fields."""
    found = services(request)
    expires_at = clock.now() + timedelta(days=form.days) if form.days else None
    try:
        return await directory_flow.create_key(
            found.pool,
            found.sealer,
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
    """Ends a business's key at once."""
    return await _revoke(request, f"{BUSINESSES}/{business_id}", "biz", business_id, key_id)


@post(f"{PROVIDERS}/{{provider_id:str}}/keys/{{key_id:str}}")
async def revoke_provider_key(
    request: AnyRequest, provider_id: FromPath[str], key_id: FromPath[str]
) -> Response[bytes]:
    """Ends a provider's key at once."""
    return await _revoke(request, f"{PROVIDERS}/{provider_id}", "prov", provider_id, key_id)


async def _revoke(request: AnyRequest, home: str, prefix: str, account: str, key_id: str) -> Response[bytes]:
    viewer, form = await submitted(request, RevokeForm, CallerKind.operator)
    owner_id = path_id(prefix, account)
    key = await going_live.revoke_own_key(services(request).pool, viewer.actor, owner_id, key_id, form.reason.strip())
    return redirect(request, home, f"The key “{key.name}” was revoked.")


@post(f"{PROVIDERS}/{{provider_id:str}}/approve")
async def approve_provider(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Lets a provider make live keys."""
    viewer, _ = await changing(request, CallerKind.operator)
    await going_live.approve_live(services(request).pool, viewer.actor, path_id("prov", provider_id))
    return redirect(request, f"{PROVIDERS}/{provider_id}", "It may make live keys now.")


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
