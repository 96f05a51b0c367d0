"""HTTP API of providers, businesses and keys, for operators."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import delete, get, patch, post
from litestar.params import FromPath
from msgspec import UNSET, Meta, UnsetType

from billing.pricing import Payout
from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.checks import Refusal, zone_faults
from marketplace.directory.store import Business, Provider
from marketplace.directory.wire import (
    OPERATOR,
    OPERATOR_READING,
    CreditMinor,
    Currency,
    Mode,
    Name,
    fault,
    provide_configuration,
)
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.settings import MOST_PER_MINUTE
from marketplace.security import access, auth
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS, Fault, FaultCode
from marketplace.web.api import Caller, Injected, api_router, list_page
from marketplace.web.http import AnyRequest, Page, Services, page_cursor, page_limit, path_id
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged

MOST_SELLER_NAMES = 20
"Most legal and trade names of a business."
LONGEST_SELLER_NAME = 100
Zone = Annotated[str, Meta(max_length=64)]
OWNER = QueryParameter(
    name="owner_id", about="Only the keys of this provider or business.", schema=id_of("prov", "biz")
)
KEY_ID = {"type": "string", "pattern": f"^[{ids.ALPHABET}]{{{auth.ID_CHARACTERS}}}$"}
PROVIDERS, BUSINESSES, KEYS = "/providers", "/businesses", "/keys"

# Providers


class NewProvider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/providers."""

    name: Name
    payout: Payout


class ProviderChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PATCH /v1/providers/{id}. Fields that are left out do not change."""

    name: Name | UnsetType = UNSET
    state: Literal["active", "suspended"] | UnsetType = UNSET
    payout: Payout | UnsetType = UNSET


class ProviderView(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as an operator sees it."""

    id: str
    name: str
    state: str
    payout: Payout
    created_at: datetime


def _show_provider(provider: Provider) -> ProviderView:
    return ProviderView(
        id=ids.encode("prov", provider.id),
        name=provider.name,
        state=provider.state,
        payout=provider.payout,
        created_at=provider.created_at,
    )


@post(PROVIDERS, tags=["parties"], dependencies={"caller": OPERATOR, "draft": provide_configuration(NewProvider)})
async def create_provider(caller: Caller, draft: Injected[NewProvider], services: Injected[Services]) -> ProviderView:
    """Creates a provider with its payout terms. Operators only."""
    provider = await directory_flow.create_provider(services.pool, caller.key_id, draft.name, draft.payout)
    return _show_provider(provider)


@patch(
    f"{PROVIDERS}/{{provider_id:str}}",
    tags=["parties"],
    dependencies={"caller": OPERATOR, "change": provide_configuration(ProviderChange)},
)
async def change_provider(
    provider_id: FromPath[str], caller: Caller, change: Injected[ProviderChange], services: Injected[Services]
) -> ProviderView:
    """Changes a provider's name, state or payout terms. Operators only."""
    provider = await directory_flow.change_provider(
        services.pool,
        caller.key_id,
        path_id("prov", provider_id),
        change.name or None,
        change.state or None,
        change.payout or None,
    )
    return _show_provider(provider)


@get(f"{PROVIDERS}/{{provider_id:str}}", tags=["parties"], dependencies={"caller": OPERATOR_READING})
async def show_provider(provider_id: FromPath[str], services: Injected[Services]) -> ProviderView:
    """Shows one provider. Operators only."""
    async with session(services.pool) as connection:
        provider = await directory_store.find_provider(connection, path_id("prov", provider_id))
    if provider is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    return _show_provider(provider)


@get(PROVIDERS, tags=["parties"], dependencies={"caller": OPERATOR_READING}, doc=RouteDoc(query=paged(id_of("prov"))))
async def list_providers(request: AnyRequest, services: Injected[Services]) -> Page[ProviderView]:
    """Lists providers, newest first. Operators only."""
    limit, after = page_limit(request), page_cursor(request, "prov")
    async with session(services.pool) as connection:
        providers = await directory_store.list_providers(connection, after, limit + 1)
    return list_page(providers, limit, _show_provider, lambda row: ids.encode("prov", row.id))


# Businesses


class NewBusiness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/businesses. The business gets a wallet in `currency`."""

    name: Name
    zone: Zone
    currency: Currency
    credit_limit_minor: CreditMinor = 0


class BusinessChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PATCH /v1/businesses/{id}. Fields that are left out do not change.

    `seller_names` replace all legal and trade names by which a consent may name the business; `name` is not among them
    unless it is listed.
    """

    name: Name | UnsetType = UNSET
    seller_names: Annotated[tuple[Name, ...], Meta(max_length=MOST_SELLER_NAMES)] | UnsetType = UNSET
    state: Literal["active", "frozen"] | UnsetType = UNSET
    zone: Zone | UnsetType = UNSET


class BusinessView(msgspec.Struct, frozen=True, kw_only=True):
    """A business as an operator sees it."""

    id: str
    name: str
    state: str
    zone: str
    currency: str
    created_at: datetime
    seller_names: tuple[str, ...]


def _show_business(business: Business) -> BusinessView:
    return BusinessView(
        id=ids.encode("biz", business.id),
        name=business.name,
        state=business.state,
        zone=business.zone,
        currency=business.currency,
        created_at=business.created_at,
        seller_names=business.seller_names,
    )


@post(
    BUSINESSES,
    tags=["parties"],
    dependencies={
        "caller": OPERATOR,
        "draft": provide_configuration(NewBusiness, lambda part: zone_faults("/zone", part.zone)),
    },
)
async def create_business(caller: Caller, draft: Injected[NewBusiness], services: Injected[Services]) -> BusinessView:
    """Creates a business and its wallet. Operators only."""
    business = await directory_flow.create_business(
        services.pool, caller.key_id, draft.name, draft.zone, draft.currency, draft.credit_limit_minor
    )
    return _show_business(business)


def _change_faults(body: BusinessChange) -> Iterable[Fault]:
    """Return the faults of a changed time zone."""
    return zone_faults("/zone", body.zone) if isinstance(body.zone, str) else ()


@patch(
    f"{BUSINESSES}/{{business_id:str}}",
    tags=["parties"],
    dependencies={"caller": OPERATOR, "change": provide_configuration(BusinessChange, _change_faults)},
)
async def change_business(
    business_id: FromPath[str], caller: Caller, change: Injected[BusinessChange], services: Injected[Services]
) -> BusinessView:
    """Changes a business's names, time zone or state (active or frozen). Operators only."""
    zone = None if change.zone is UNSET else change.zone
    seller_names = None if change.seller_names is UNSET else change.seller_names
    business = await directory_flow.change_business(
        services.pool,
        caller.key_id,
        path_id("biz", business_id),
        change.name or None,
        change.state or None,
        zone,
        seller_names=seller_names,
    )
    return _show_business(business)


@get(f"{BUSINESSES}/{{business_id:str}}", tags=["parties"], dependencies={"caller": OPERATOR_READING})
async def show_business(business_id: FromPath[str], services: Injected[Services]) -> BusinessView:
    """Shows one business. Operators only."""
    async with session(services.pool) as connection:
        business = await directory_store.find_business(connection, path_id("biz", business_id))
    if business is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    return _show_business(business)


@get(BUSINESSES, tags=["parties"], dependencies={"caller": OPERATOR_READING}, doc=RouteDoc(query=paged(id_of("biz"))))
async def list_businesses(request: AnyRequest, services: Injected[Services]) -> Page[BusinessView]:
    """Lists businesses, newest first. Operators only."""
    limit, after = page_limit(request), page_cursor(request, "biz")
    async with session(services.pool) as connection:
        businesses = await directory_store.list_businesses(connection, after, limit + 1)
    return list_page(businesses, limit, _show_business, lambda row: ids.encode("biz", row.id))


# Keys


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/keys. An operator's key has no owner; any other has one.

    `rate_per_minute` replaces the installation's limits for this key. `reason` tells the owners of an account in use
    why a key is made for it.
    """

    kind: CallerKind
    owner_id: str | None = None
    mode: Mode
    name: Name
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    rate_per_minute: Annotated[int, Meta(ge=1, le=MOST_PER_MINUTE)] | None = None
    reason: Annotated[str, Meta(max_length=500, pattern=WORDS)] | None = None


class KeyWithSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A new key with its text, which no other answer holds."""

    id: str
    key: str
    kind: CallerKind
    owner_id: str | None
    mode: str
    name: str
    expires_at: datetime | None
    rate_per_minute: int | None = None


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its text. `seen_in_url_at` is when it was sent in a URL; such a key should be replaced."""

    id: str
    kind: CallerKind
    owner_id: str | None
    mode: str
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    rate_per_minute: int | None = None
    seen_in_url_at: datetime | None = None


_OWNER_KINDS = {CallerKind.provider: "prov", CallerKind.business: "biz"}


def show_key(key: auth.ApiKey) -> KeyView:
    """Return a key in the form that the API returns."""
    owner_id = None if key.owner_id is None else ids.encode(_OWNER_KINDS[key.kind], key.owner_id)
    return KeyView(
        id=key.id,
        kind=key.kind,
        owner_id=owner_id,
        mode=key.mode,
        name=key.name,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        rate_per_minute=key.rate_per_minute,
        seen_in_url_at=key.seen_in_url_at,
    )


def _key_faults(body: NewKey) -> Iterator[Fault]:
    """Yield the faults of a new key, except for an owner that does not exist."""
    try:
        owner_of(body.kind, body.owner_id)
    except errors.InvalidInput as error:
        yield from error.faults
    if body.expires_at is not None and body.expires_at <= clock.now():
        yield directory_flow.EXPIRED


@post(
    KEYS,
    tags=["parties"],
    dependencies={"caller": OPERATOR_READING, "draft": provide_configuration(NewKey, _key_faults)},
)
async def create_key(caller: Caller, draft: Injected[NewKey], services: Injected[Services]) -> KeyWithSecret:
    """Creates a key and shows its text, only once. Operators only.

    An operator's test key can create only test keys.
    """
    if caller.mode != "live":
        caller.demand_mode(draft.mode)
    text = await directory_flow.create_key(
        services.pool,
        services.sealer,
        caller.key_id,
        kind=draft.kind,
        owner_id=owner_of(draft.kind, draft.owner_id),
        mode=draft.mode,
        name=draft.name,
        expires_at=draft.expires_at,
        rate_per_minute=draft.rate_per_minute,
        opened=access.opened_by(caller.key_id, caller.kind, caller.opened, draft.reason),
    )
    return KeyWithSecret(
        id=auth.key_id(text),
        key=text,
        kind=draft.kind,
        owner_id=draft.owner_id,
        mode=draft.mode,
        name=draft.name,
        expires_at=draft.expires_at,
        rate_per_minute=draft.rate_per_minute,
    )


@get(KEYS, tags=["parties"], dependencies={"caller": OPERATOR_READING}, doc=RouteDoc(query=(*paged(KEY_ID), OWNER)))
async def list_keys(request: AnyRequest, caller: Caller, services: Injected[Services]) -> Page[KeyView]:
    """Lists keys without their texts, newest first. A test key lists only test keys. Operators only."""
    limit, after = page_limit(request), request.query_params.get("cursor")
    if after is not None and not auth.is_key_id(after):
        raise fault("/cursor", "cursor_invalid", "Send next_cursor of the page before, unchanged.")
    owner = request.query_params.get("owner_id")
    owner_id = None if owner is None else ids.decode("prov", owner) or path_id("biz", owner)
    async with session(services.pool) as connection:
        mode = None if caller.sees("live") else caller.mode
        keys = await auth.list_keys(connection, owner_id, after, limit + 1, mode)
    return list_page(keys, limit, show_key, lambda row: row.id)


@delete(f"{KEYS}/{{key_id:str}}", status_code=200, tags=["parties"], dependencies={"caller": OPERATOR})
async def revoke_key(key_id: FromPath[str], caller: Caller, services: Injected[Services]) -> KeyView:
    """Revokes a key for good; a repeated call changes nothing. Operators only."""
    if not auth.is_key_id(key_id):
        raise errors.NotFound(directory_flow.NOT_THERE)
    return show_key(await directory_flow.revoke_key(services.pool, caller.key_id, key_id))


def owner_of(kind: CallerKind, text: str | None) -> UUID | None:
    """Return the id of the owner of a key of this kind; None for an operator's.

    Raises InvalidInput if the text is missing, superfluous, or not an id of this kind.
    """
    if kind is CallerKind.operator:
        if text is not None:
            raise fault("/owner_id", FaultCode.value_not_allowed, "Leave this out: an operator's key has no owner.")
        return None
    if text is None:
        raise fault("/owner_id", FaultCode.field_missing, "Name the provider or business that the key is for.")
    owner_id = ids.decode(_OWNER_KINDS[kind], text)
    if owner_id is None:
        raise fault("/owner_id", Refusal.owner_unknown, f"Name a {kind} by its id, {_OWNER_KINDS[kind]}_….")
    return owner_id


handlers = (
    api_router(
        create_provider,
        change_provider,
        show_provider,
        list_providers,
        create_business,
        change_business,
        show_business,
        list_businesses,
        create_key,
        list_keys,
        revoke_key,
    ),
)
