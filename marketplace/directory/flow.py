"""Use cases of the directory. Each loads its data, applies the checks, and commits the change with its audit row."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from billing.pricing import Payout
from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.directory import store as directory_store
from marketplace.directory.challenge import challenge
from marketplace.directory.checks import (
    Refusal,
    currency_faults,
    subscription_faults,
    terms_faults,
    vertical_faults,
    zone_faults,
)
from marketplace.directory.store import Business, Endpoint, Provider, SubscriptionRecord, TenantScope
from marketplace.feedback.stages import insert_usual_stages
from marketplace.ledger import money
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security import access, audit, auth
from marketplace.security.auth import CallerKind, Principal, UnconfirmedAccess
from marketplace.security.sealing import Sealer
from marketplace.text.faults import Fault
from marketplace.webhook.address import AddressRules, UrlFault, UrlRefusal, address_key
from marketplace.webhook.signing import new_secret
from routing.delivery import HOLD_WINDOW, EndpointKind
from routing.subscription import BusinessTerms, SubscriptionDefinition
from routing.vertical import VerticalDefinition

SECRET_OVERLAP: Final = timedelta(hours=24)
"Time for which the old signing secret stays valid: enough to deploy the new one, and longer than all retries."

SUPPRESSED_A_DAY: Final = 1_000
"Limit of people whom one provider may suppress in 24 hours. Typically, a broker gets a few dozen STOP replies a day."
SUPPRESSING_RETRY_SECONDS: Final = 3_600

MOST_MOVED: Final = 200
"Subscriptions that are sent to another endpoint by one call."
NOT_THERE: Final = "There is nothing with this id, or it is not yours."


EXPIRED: Final = Fault(pointer="/expires_at", code=Refusal.in_the_past, detail="Give a time in the future, or none.")


def _refuse(faults: tuple[Fault, ...]) -> None:
    """Raise InvalidInput if there are faults."""
    if faults:
        raise errors.InvalidInput(faults)


def _reason_detail(reason: str | None) -> dict[str, str]:
    """Return the reason as a part of an audit row's detail; empty without one."""
    return {} if reason is None else {"reason": reason}


# Verticals


async def create_vertical(pool: Pool, actor: str, slug: str, definition: VerticalDefinition) -> Vertical:
    """Create a vertical at version 1. Raises InvalidInput, and Conflict for a slug that exists."""
    _refuse(vertical_faults(definition))
    now = clock.now()
    async with transaction(pool) as connection:
        vertical = await directory_store.insert_vertical(connection, slug, definition.under_current_rules(), actor, now)
        await audit.record(connection, now, actor, "vertical.create", ids.encode("vert", vertical.id), version=1)
    return vertical


async def revise_vertical(
    pool: Pool, actor: str, slug: str, read: int, definition: VerticalDefinition, reason: str | None = None
) -> Vertical:
    """Create the next version of a vertical.

    Raises NotFound, InvalidInput, and Conflict if the current version is not `read`, the one that the caller edited.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        current = await directory_store.lock_vertical(connection, slug)
        if current is None:
            raise errors.NotFound("There is no vertical with this slug.")
        _demand_version(current.version, read)
        _refuse(vertical_faults(definition) + _currency_change_faults(current.definition, definition))
        saved = definition.under_current_rules()
        vertical = msgspec.structs.replace(current, version=current.version + 1, definition=saved)
        await directory_store.revise_vertical(connection, vertical, actor, now)
        subject = ids.encode("vert", vertical.id)
        detail: dict[str, str | int] = {"version": vertical.version, **_reason_detail(reason)}
        if definition.reserve_minor != current.definition.reserve_minor:
            detail |= {
                "reserve_minor": definition.reserve_minor,
                "reserve_before_minor": current.definition.reserve_minor,
            }
        await audit.record(connection, now, actor, "vertical.revise", subject, **detail)
    return vertical


def _currency_change_faults(current: VerticalDefinition, revised: VerticalDefinition) -> tuple[Fault, ...]:
    """Return a fault if the revised definition has another currency."""
    if revised.currency == current.currency:
        return ()
    detail = f"This vertical is in {current.currency}; make another one for another currency."
    return (Fault(pointer="/definition/currency", code=Refusal.currency_fixed, detail=detail),)


def _demand_version(current: int, read: int) -> None:
    """Raise Conflict unless the current version is the one that the caller read."""
    if current != read:
        raise errors.Conflict(f"It is at version {current} by now. Read it again and send your change with that.")


# Providers and businesses


async def create_provider(pool: Pool, actor: str, name: str, payout: Payout) -> Provider:
    """Create a provider with its payout terms."""
    now = clock.now()
    async with transaction(pool) as connection:
        provider = await directory_store.insert_provider(connection, name, payout, now)
        await audit.record(connection, now, actor, "provider.create", ids.encode("prov", provider.id))
    return provider


async def change_provider(
    pool: Pool,
    actor: str,
    provider_id: UUID,
    name: str | None,
    state: str | None,
    payout: Payout | None,
    reason: str | None = None,
) -> Provider:
    """Change a provider; a field that is None is left unchanged. Raises NotFound."""
    now = clock.now()
    async with transaction(pool) as connection:
        provider = await directory_store.mark_provider(connection, provider_id, name, state, payout)
        if provider is None:
            raise errors.NotFound(NOT_THERE)
        subject = ids.encode("prov", provider.id)
        terms = None if payout is None else msgspec.json.encode(payout).decode()
        detail = {"name": name, "state": state, "payout": terms, **_reason_detail(reason)}
        await audit.record(connection, now, actor, "provider.change", subject, **detail)
    return provider


async def create_business(
    pool: Pool, actor: str, name: str, zone: str, currency: str, credit_limit_minor: int
) -> Business:
    """Create a business with its wallet and the usual stages, in one transaction.

    Raises InvalidInput for an unknown zone or currency.
    """
    async with transaction(pool) as connection:
        business_id = await add_business(connection, actor, name, zone, currency, credit_limit_minor)
        return await _load_business(connection, business_id)


async def add_business(
    connection: Connection, actor: str, name: str, zone: str, currency: str, credit_limit_minor: int = 0
) -> UUID:
    """Do what `create_business` does, as a part of the caller's transaction, and return the id."""
    _refuse((*zone_faults("/zone", zone), *currency_faults("/currency", currency)))
    now = clock.now()
    business_id = await directory_store.insert_business(connection, name, zone, now)
    await money.insert_wallet(connection, business_id, currency, credit_limit_minor)
    await insert_usual_stages(connection, business_id)
    subject = ids.encode("biz", business_id)
    detail: dict[str, str | int] = {"credit_limit_minor": credit_limit_minor, "currency": currency}
    await audit.record(connection, now, actor, "business.create", subject, **detail)
    return business_id


def demand_currency(currency: str) -> None:
    """Raise InvalidInput for an unknown currency."""
    _refuse(tuple(currency_faults("/currency", currency)))


async def change_business(
    pool: Pool,
    actor: str,
    business_id: UUID,
    name: str | None,
    state: str | None,
    zone: str | None,
    reason: str | None = None,
    seller_names: tuple[str, ...] | None = None,
) -> Business:
    """Change a business; a field that is None is left unchanged. Raises NotFound, InvalidInput for an unknown zone."""
    if zone is not None:
        _refuse(tuple(zone_faults("/zone", zone)))
    now = clock.now()
    async with transaction(pool) as connection:
        business = await directory_store.mark_business(connection, business_id, name, state, zone, seller_names)
        if business is None:
            raise errors.NotFound(NOT_THERE)
        subject = ids.encode("biz", business.id)
        detail = {
            "name": name,
            "state": state,
            "zone": zone,
            "seller_names": None if seller_names is None else ", ".join(seller_names),
            **_reason_detail(reason),
        }
        await audit.record(connection, now, actor, "business.change", subject, **detail)
    return business


async def _load_business(connection: Connection, business_id: UUID) -> Business:
    """Return a business. Raises NotFound."""
    business = await directory_store.find_business(connection, business_id)
    if business is None:
        raise errors.NotFound("There is no such business, or it is not yours.")
    return business


# Keys


async def create_key(
    pool: Pool,
    sealer: Sealer,
    actor: str,
    *,
    kind: CallerKind,
    owner_id: UUID | None,
    mode: str,
    name: str,
    expires_at: datetime | None,
    rate_per_minute: int | None = None,
    opened: UnconfirmedAccess | None = None,
) -> str:
    """Create a key and return its text, which cannot be read again.

    `opened` names the operator who makes the key for a tenant, with the reason. Raises InvalidInput for an unknown
    owner, an expiry in the past, or a missing reason.
    """
    now = clock.now()
    if expires_at is not None and expires_at <= now:
        raise errors.InvalidInput((EXPIRED,))
    async with transaction(pool) as connection:
        if not await _owner_exists(connection, kind, owner_id):
            raise _one_fault("/owner_id", Refusal.owner_unknown, "Name the provider or business that the key is for.")
        text = await auth.create_key(
            connection,
            sealer,
            kind=kind,
            owner_id=owner_id,
            mode=mode,
            name=name,
            expires_at=expires_at,
            rate_per_minute=rate_per_minute,
        )
        key_id = auth.key_id(text)
        await audit.record(connection, now, actor, "key.create", key_id, kind=kind, mode=mode)
        if owner_id is not None:
            await access.demand_reason(connection, kind, owner_id, opened)
            await access.record_opened(connection, access.AccessKind.key, key_id, kind, owner_id, opened)
    return text


async def _owner_exists(connection: Connection, kind: CallerKind, owner_id: UUID | None) -> bool:
    """Return whether a key of this kind may have this owner: none for an operator, else one that exists."""
    if kind is CallerKind.operator or owner_id is None:
        return kind is CallerKind.operator and owner_id is None
    if kind is CallerKind.provider:
        return await directory_store.find_provider(connection, owner_id) is not None
    return await directory_store.find_business(connection, owner_id) is not None


async def revoke_key(pool: Pool, actor: str, key_id: str, reason: str | None = None) -> auth.ApiKey:
    """Revoke a key; a repeated call changes nothing. Raises NotFound."""
    now = clock.now()
    async with transaction(pool) as connection:
        key = await auth.revoke_key(connection, key_id, now)
        if key is None:
            raise errors.NotFound(NOT_THERE)
        if key.revoked_at == now:
            await audit.record(connection, now, actor, "key.revoke", key_id, **_reason_detail(reason))
    return key


def _one_fault(where: str, code: str, detail: str) -> errors.InvalidInput:
    """Return an InvalidInput error with one fault."""
    return errors.InvalidInput((Fault(pointer=where, code=code, detail=detail),))


# Endpoints


async def create_endpoint(
    pool: Pool,
    sealer: Sealer,
    guard: AddressRules,
    actor: str,
    business_id: UUID,
    url: str,
    opened: UnconfirmedAccess | None = None,
) -> tuple[Endpoint, str]:
    """Create an unverified endpoint with a webhook, and return it with its signing secret, which cannot be read again.

    The URL is stored in normalised form. `opened` names the operator who makes the endpoint for the business; live
    leads are sent to it only after an owner has confirmed it. Raises InvalidInput for a URL that no webhook may use or
    a missing reason, NotFound, and EndpointShared if another business has verified the same address.
    """
    target = guard.check(url)
    if isinstance(target, UrlRefusal):
        raise _one_fault("/url", target.fault, URL_ADVICE[target.fault])
    normalised_url = f"{target.scheme}://{target.host_header}{target.path}"
    secret, now = new_secret(), clock.now()
    endpoint = Endpoint(
        id=clock.new_id(),
        business_id=business_id,
        kind=EndpointKind.push,
        url=normalised_url,
        state="unverified",
        created_at=now,
    )
    async with transaction(pool) as connection:
        await _load_business(connection, business_id)
        key = address_key(target)
        if await directory_store.has_other_owner(connection, key, business_id):
            raise errors.EndpointShared(directory_store.ADDRESS_TAKEN)
        box = sealer.seal_secret(endpoint.id, secret)
        await directory_store.insert_endpoint(connection, endpoint, box, key)
        await audit.record(connection, now, actor, "endpoint.create", ids.encode("whe", endpoint.id))
        await access.demand_reason(connection, CallerKind.business, business_id, opened)
        await access.record_opened(
            connection, access.AccessKind.endpoint, endpoint.id, CallerKind.business, business_id, opened
        )
    return endpoint, secret


async def create_serverless(
    pool: Pool, actor: str, business_id: UUID, kind: EndpointKind, hold_seconds: int | None = None
) -> Endpoint:
    """Create a feed or an inbox. It is active at once: only keys and members of the business reach it.

    An inbox has each lead held for `hold_seconds`, or HOLD_WINDOW. Raises NotFound.
    """
    now = clock.now()
    endpoint = Endpoint(
        id=clock.new_id(),
        business_id=business_id,
        kind=kind,
        url=None,
        state="active",
        hold_seconds=hold_seconds or int(HOLD_WINDOW.total_seconds()),
        created_at=now,
        verified_at=now,
    )
    async with transaction(pool) as connection:
        await _load_business(connection, business_id)
        await directory_store.insert_endpoint(connection, endpoint, None)
        subject = ids.encode("whe", endpoint.id)
        await audit.record(connection, now, actor, "endpoint.create", subject, kind=kind)
    return endpoint


URL_ADVICE: Final = {
    UrlFault.url_invalid: "Send a whole URL without fragment, spaces or backslashes; percent-encode other characters.",
    UrlFault.url_scheme: "Begin the URL with https://",
    UrlFault.url_credentials: "Leave user name and password out: requests are signed instead.",
    UrlFault.url_port: "Use port 443, 8443 or 80.",
    UrlFault.url_loops_to_service: "Send your own server's URL: this one points back at this service.",
    UrlFault.url_address_not_public: "Use an address on the public internet.",
}


async def verify_endpoint(
    pool: Pool, sealer: Sealer, guard: AddressRules, caller: Principal, reach: TenantScope, endpoint_id: UUID
) -> Endpoint:
    """Send a challenge to the endpoint's server, and make the endpoint active if it is met.

    No transaction is open while the server is called. From then on no other business can use the address. Raises
    NotFound, KeyWrongMode, ChallengeFailed, EndpointShared if another business has verified it first, and Conflict for
    an endpoint without a URL or one that was switched in the meantime.
    """
    async with session(pool) as connection:
        endpoint = await load_endpoint(connection, caller, reach, endpoint_id)
        url = _demand_url(endpoint)
        sealed = await directory_store.load_secrets(connection, endpoint_id)
    boxes = [sealed.secret]
    if sealed.previous_secret and sealed.previous_until and clock.now() < sealed.previous_until:
        boxes.append(sealed.previous_secret)
    secrets = [sealer.open_secret(endpoint_id, box) for box in boxes]
    failure = await challenge(endpoint_id, url, secrets, guard)
    if failure is not None:
        raise errors.ChallengeFailed(failure)
    now, target = clock.now(), guard.check(url)
    if isinstance(target, UrlRefusal):
        raise _one_fault("/url", target.fault, URL_ADVICE[target.fault])
    async with transaction(pool) as connection:
        if not await directory_store.mark_endpoint_verified(
            connection, endpoint_id, endpoint.state, now, address_key(target)
        ):
            raise errors.Conflict("The endpoint was switched meanwhile. Read it again.")
        await audit.record(connection, now, caller.key_id, "endpoint.verify", ids.encode("whe", endpoint_id))
        return await load_endpoint(connection, caller, reach, endpoint_id)


def _demand_url(endpoint: Endpoint) -> str:
    """Return the endpoint's URL. Raises Conflict for an endpoint that is no webhook."""
    if endpoint.url is None:
        raise errors.Conflict("Only a webhook has a URL and a signing secret. This endpoint needs neither.")
    return endpoint.url


async def rotate_secret(
    pool: Pool, sealer: Sealer, caller: Principal, reach: TenantScope, endpoint_id: UUID
) -> tuple[Endpoint, str]:
    """Make a new signing secret, and return it with the endpoint. It cannot be read again.

    The old secret stays valid for SECRET_OVERLAP. Raises NotFound, KeyWrongMode, and Conflict for an endpoint without
    a URL.
    """
    secret, now = new_secret(), clock.now()
    async with transaction(pool) as connection:
        _demand_url(await load_endpoint(connection, caller, reach, endpoint_id))
        box = sealer.seal_secret(endpoint_id, secret)
        await directory_store.mark_secret(connection, endpoint_id, box, now + SECRET_OVERLAP)
        await audit.record(connection, now, caller.key_id, "endpoint.rotate_secret", ids.encode("whe", endpoint_id))
        return await load_endpoint(connection, caller, reach, endpoint_id), secret


async def end_previous_secret(pool: Pool, caller: Principal, reach: TenantScope, endpoint_id: UUID) -> Endpoint:
    """End the previous secret at once, if there is one.

    Raises NotFound, KeyWrongMode, and Conflict for an endpoint without a URL.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        _demand_url(await load_endpoint(connection, caller, reach, endpoint_id))
        await directory_store.mark_previous_secret_ended(connection, endpoint_id)
        subject = ids.encode("whe", endpoint_id)
        await audit.record(connection, now, caller.key_id, "endpoint.end_previous_secret", subject)
        return await load_endpoint(connection, caller, reach, endpoint_id)


async def set_hold(pool: Pool, caller: Principal, reach: TenantScope, endpoint_id: UUID, hold_seconds: int) -> Endpoint:
    """Set for how long a lead is held for an inbox or an e-mail address, from the next lead.

    Raises NotFound, KeyWrongMode, and Conflict for an endpoint that needs nobody to take its leads.
    """
    async with transaction(pool) as connection:
        endpoint = await load_endpoint(connection, caller, reach, endpoint_id)
        if endpoint.kind not in (EndpointKind.inbox, EndpointKind.email):
            raise errors.Conflict("Only leads that people take are held for a time of your choice.")
        if endpoint.hold_seconds != hold_seconds:
            await directory_store.mark_hold(connection, endpoint_id, hold_seconds)
            subject = ids.encode("whe", endpoint_id)
            await audit.record(
                connection, clock.now(), caller.key_id, "endpoint.set_hold", subject, seconds=hold_seconds
            )
    return msgspec.structs.replace(endpoint, hold_seconds=hold_seconds)


async def use_endpoint(pool: Pool, actor: str, reach: TenantScope, endpoint_id: UUID) -> int:
    """Send the leads of all subscriptions within the reach to an endpoint, and return how many were changed.

    Each gets a new version, as by `revise_subscription`, whose errors this raises; and NotFound, and Conflict for an
    endpoint that is not active.
    """
    async with session(pool) as connection:
        endpoint = await directory_store.find_endpoint(connection, reach, endpoint_id)
        subscriptions = await directory_store.list_subscriptions(connection, reach, None, MOST_MOVED)
    if endpoint is None:
        raise errors.NotFound(NOT_THERE)
    if endpoint.state != "active":
        raise errors.Conflict("Verify it or switch it on first: no lead is sent there before.")
    moved = [each for each in subscriptions if each.state != "ended" and each.endpoint_id != endpoint_id]
    for subscription in moved:
        request = SubscriptionRequest(
            name=subscription.name, endpoint_id=endpoint_id, definition=subscription.definition
        )
        await revise_subscription(pool, actor, reach, subscription.id, subscription.version, request)
    return len(moved)


async def switch_endpoint(
    pool: Pool, caller: Principal, reach: TenantScope, endpoint_id: UUID, state: str, reason: str | None = None
) -> Endpoint:
    """Switch an endpoint to `active` or `disabled`, and reset its breaker.

    Raises NotFound, KeyWrongMode, Conflict for activating an endpoint that was never verified, and EndpointShared if
    another business has verified the address while this endpoint was off.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        endpoint = await load_endpoint(connection, caller, reach, endpoint_id)
        if state == "active" and endpoint.verified_at is None:
            raise errors.Conflict("Verify this endpoint first: POST /v1/endpoints/{id}/verify.")
        await directory_store.mark_endpoint_state(connection, endpoint_id, state)
        subject = ids.encode("whe", endpoint_id)
        await audit.record(
            connection, now, caller.key_id, "endpoint.switch", subject, state=state, **_reason_detail(reason)
        )
        return await load_endpoint(connection, caller, reach, endpoint_id)


async def load_endpoint(connection: Connection, caller: Principal, reach: TenantScope, endpoint_id: UUID) -> Endpoint:
    """Return an endpoint that the caller may change.

    Raises NotFound, and KeyWrongMode for a test key if live subscriptions use the endpoint.
    """
    endpoint = await directory_store.find_endpoint(connection, reach, endpoint_id)
    if endpoint is None:
        raise errors.NotFound(NOT_THERE)
    if endpoint.serves_live:
        caller.demand_mode("live")
    return endpoint


# Subscriptions


class StatedTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Operator's terms as a caller stated them; None is not stated."""

    weight: int | None = None
    priority: int | None = None

    def over(self, terms: BusinessTerms) -> BusinessTerms:
        """Return `terms` with what was stated."""
        return BusinessTerms(
            weight=terms.weight if self.weight is None else self.weight,
            priority=terms.priority if self.priority is None else self.priority,
        )


class SubscriptionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of a subscription to be saved. `endpoint_id` is None if the caller's text is not an id.

    The weight and priority of `definition` are replaced by the operator's terms. `stated` are those that the caller
    stated: an operator changes the terms by them (`sets_terms`), and anybody else may only state those in force.
    """

    name: str
    endpoint_id: UUID | None
    definition: SubscriptionDefinition
    stated: StatedTerms = StatedTerms()
    sets_terms: bool = False


async def create_subscription(
    pool: Pool, actor: str, business_id: UUID, mode: str, slug: str, draft: SubscriptionRequest
) -> SubscriptionRecord:
    """Create an active subscription at version 1.

    Raises NotFound for an unknown business, InvalidInput with every fault at once, and SubscriptionSuspended while
    another subscription of the business to this vertical is suspended, because a new one would have a fresh quota.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        vertical = await _check(connection, business_id, slug, draft, mode)
        await directory_store.lock_business(connection, business_id)
        before, terms = await _agree_terms(connection, vertical, business_id, draft)
        if await directory_store.has_suspended(connection, business_id, slug, mode):
            raise errors.SubscriptionSuspended(SUSPENDED)
        subscription = SubscriptionRecord(
            id=clock.new_id(),
            business_id=business_id,
            vertical=slug,
            endpoint_id=draft.endpoint_id,
            mode=mode,
            name=draft.name,
            state="active",
            version=1,
            definition=terms.applied_to(draft.definition),
            created_at=now,
            made_at=now,
        )
        await directory_store.insert_subscription(connection, subscription, vertical.id, actor)
        subject = ids.encode("sub", subscription.id)
        await audit.record(connection, now, actor, "subscription.create", subject, version=1)
        if terms != before:
            await _change_terms(connection, actor, now, vertical, business_id, before, terms)
    return subscription


async def revise_subscription(
    pool: Pool, actor: str, reach: TenantScope, subscription_id: UUID, read: int, draft: SubscriptionRequest
) -> SubscriptionRecord:
    """Create the next version of a subscription; the same content again changes nothing.

    Raises NotFound, InvalidInput, and Conflict if the current version is not `read`, the one that the caller edited, or
    if the subscription has ended.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        if draft.sets_terms:
            await _lock_business_of(connection, reach, subscription_id)
        current = await _load_subscription(connection, reach, subscription_id)
        if current.state == "ended":
            raise errors.Conflict("This subscription has ended. Make a new one.")
        _demand_version(current.version, read)
        business_id = current.business_id
        vertical = await _check(connection, business_id, current.vertical, draft, current.mode, current.endpoint_id)
        before, terms = await _agree_terms(connection, vertical, business_id, draft)
        definition = terms.applied_to(draft.definition)
        fields = {"name": draft.name, "endpoint_id": draft.endpoint_id, "definition": definition}
        if msgspec.structs.replace(current, **fields) == current and terms == before:
            return current
        version = current.version + 1
        revised = msgspec.structs.replace(current, version=version, made_at=now, **fields)
        await directory_store.revise_subscription(connection, revised, actor)
        subject, detail = ids.encode("sub", subscription_id), {"version": version, **_price_change(current, revised)}
        await audit.record(connection, now, actor, "subscription.revise", subject, **detail)
        if terms != before:
            await _change_terms(connection, actor, now, vertical, business_id, before, terms)
    return revised


def _price_change(before: SubscriptionRecord, after: SubscriptionRecord) -> dict[str, str | int]:
    """Return a changed price and the price before it for the audit row; empty if the price is the same."""
    price, earlier = after.definition.price_minor, before.definition.price_minor
    if price == earlier:
        return {}
    return {"price_minor": price, "price_before_minor": earlier, "currency": after.definition.currency}


SUSPENDED: Final = (
    "This subscription is suspended: too many leads were refused, or were not acknowledged. "
    "Repair your server and ask the marketplace to resume it."
)


async def switch_subscription(
    pool: Pool, actor: str, reach: TenantScope, subscription_id: UUID, state: str, reason: str | None = None
) -> SubscriptionRecord:
    """Switch a subscription to `active`, `paused` or `ended`; a repeated call changes nothing.

    Only an operator, whose reach is all businesses, may resume a suspended one, and its quotas are counted anew from
    then. Raises NotFound, Conflict for a subscription that has ended, and SubscriptionSuspended.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        current = await _load_subscription(connection, reach, subscription_id)
        if current.state == state:
            return current
        if current.state == "ended":
            raise errors.Conflict("This subscription has ended. Make a new one.")
        if current.state == "suspended":
            if reach.business_id is not None or state == "paused":
                raise errors.SubscriptionSuspended(SUSPENDED)
            await directory_store.begin_quota(connection, subscription_id, now)
        await directory_store.mark_subscription_state(connection, subscription_id, state)
        subject = ids.encode("sub", subscription_id)
        await audit.record(
            connection, now, actor, "subscription.switch", subject, state=state, **_reason_detail(reason)
        )
    return msgspec.structs.replace(current, state=state)


async def _load_subscription(connection: Connection, reach: TenantScope, subscription_id: UUID) -> SubscriptionRecord:
    """Lock a subscription until the transaction ends, and return it. Raises NotFound."""
    if not await directory_store.lock_subscription(connection, reach, subscription_id):
        raise errors.NotFound(NOT_THERE)
    subscription = await directory_store.find_subscription(connection, reach, subscription_id)
    if subscription is None:
        raise errors.NotFound(NOT_THERE)
    return subscription


async def _check(
    connection: Connection,
    business_id: UUID,
    slug: str,
    draft: SubscriptionRequest,
    mode: str,
    current: UUID | None = None,
) -> Vertical:
    """Check a subscription before it is saved, and return its vertical. Raises NotFound, InvalidInput.

    `current` is the endpoint that the subscription sends to already: it may stay, confirmed or not.
    """
    business = await _load_business(connection, business_id)
    vertical = await directory_store.find_vertical(connection, slug)
    own = TenantScope(business_id=business_id, mode=None)
    endpoint = draft.endpoint_id and await directory_store.find_endpoint(connection, own, draft.endpoint_id)
    _refuse(subscription_faults(draft.definition, vertical, business.currency, endpoint is not None))
    if vertical is None:
        raise _one_fault("/vertical", Refusal.vertical_unknown, "Name a vertical by its slug.")
    moved = draft.endpoint_id != current
    if mode == "live" and moved and endpoint and await access.is_unconfirmed(connection, endpoint.id):
        detail = "The marketplace added this endpoint. An owner of the business has to confirm it: /account/access."
        raise _one_fault("/endpoint_id", Refusal.endpoint_unconfirmed, detail)
    return vertical


# Operator's terms of a business in a vertical


async def load_terms(connection: Connection, slug: str, business_id: UUID) -> tuple[Vertical, BusinessTerms]:
    """Return the vertical and the terms of the business in it. Raises NotFound."""
    vertical = await directory_store.find_vertical(connection, slug)
    if vertical is None:
        raise errors.NotFound("There is no vertical with this slug.")
    business = await _load_business(connection, business_id)
    return vertical, await directory_store.find_terms(connection, vertical.id, business.id)


async def set_terms(
    pool: Pool, actor: str, slug: str, business_id: UUID, terms: BusinessTerms, reason: str | None = None
) -> BusinessTerms:
    """Set weight and priority of a business in a vertical, for all its subscriptions there. Raises NotFound.

    Each subscription gets a new version, so that a decision names the terms by which it was made. The same terms again
    change nothing.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        await directory_store.lock_business(connection, business_id)
        vertical, before = await load_terms(connection, slug, business_id)
        if terms != before:
            await directory_store.lock_subscriptions(connection, vertical.id, business_id)
            await _change_terms(connection, actor, now, vertical, business_id, before, terms, reason)
    return terms


async def _change_terms(
    connection: Connection,
    actor: str,
    now: datetime,
    vertical: Vertical,
    business_id: UUID,
    before: BusinessTerms,
    terms: BusinessTerms,
    reason: str | None = None,
) -> None:
    """Write new terms with their audit rows. The caller holds the locks of `lock_subscriptions`."""
    versions = await directory_store.set_terms(connection, vertical.id, business_id, terms, actor, now)
    detail: dict[str, str | int] = {
        "vertical": vertical.slug,
        "weight": terms.weight,
        "weight_before": before.weight,
        "priority": terms.priority,
        "priority_before": before.priority,
        **_reason_detail(reason),
    }
    await audit.record(connection, now, actor, "terms.change", ids.encode("biz", business_id), **detail)
    for subscription_id, version in versions.items():
        subject = ids.encode("sub", subscription_id)
        await audit.record(connection, now, actor, "subscription.revise", subject, version=version)


async def _agree_terms(
    connection: Connection, vertical: Vertical, business_id: UUID, draft: SubscriptionRequest
) -> tuple[BusinessTerms, BusinessTerms]:
    """Return the terms in force and those that the draft asks for, with the locks to change them if it may.

    Raises InvalidInput if it asks for others and may not set them.
    """
    if draft.sets_terms:
        await directory_store.lock_subscriptions(connection, vertical.id, business_id)
    before = await directory_store.find_terms(connection, vertical.id, business_id)
    terms = draft.stated.over(before)
    if not draft.sets_terms:
        _refuse(terms_faults(terms, before))
    return before, terms


async def _lock_business_of(connection: Connection, reach: TenantScope, subscription_id: UUID) -> None:
    """Lock the business of a subscription, before the subscription itself."""
    subscription = await directory_store.find_subscription(connection, reach, subscription_id)
    if subscription is not None:
        await directory_store.lock_business(connection, subscription.business_id)


# Suppressions


async def suppress(pool: Pool, sealer: Sealer, caller: Principal, marks: tuple[str, ...], reason: str) -> None:
    """Suppress a person, whose leads are then given to nobody. Only keyed hashes of `marks` (`phone:+1…`) are stored.

    A suppression applies to the inquiries of every provider. To keep one provider from taking people away from the
    others, it may suppress SUPPRESSED_A_DAY people in 24 hours, and an operator may lift its suppressions. Raises
    RateLimited.
    """
    now = clock.now()
    source = caller.kind if caller.owner_id is None else ids.encode("prov", caller.owner_id)
    async with transaction(pool) as connection:
        keys = tuple(sealer.keyed_hash("suppression", mark) for mark in marks)
        if caller.kind is CallerKind.provider:
            await directory_store.lock_suppressions(connection, source)
        await directory_store.insert_suppressions(connection, keys, reason, source, now)
        if (
            caller.kind is CallerKind.provider
            and await directory_store.count_suppressed(connection, source) > SUPPRESSED_A_DAY
        ):
            detail = f"At most {SUPPRESSED_A_DAY:,} people in 24 hours. Ask an operator to add more."
            raise errors.RateLimited(detail, SUPPRESSING_RETRY_SECONDS)
        await audit.record(connection, now, caller.key_id, "person.suppress", source, marks=len(keys))


async def lift_suppressions(
    pool: Pool,
    sealer: Sealer,
    actor: str,
    reason: str,
    *,
    marks: tuple[str, ...] | None = None,
    provider_id: UUID | None = None,
    since: datetime | None = None,
) -> int:
    """Lift the suppression of one person, or of everybody whom a provider suppressed since a time.

    Return the number of keyed hashes that were lifted; they are stored with the reason. For operators only.
    """
    now = clock.now()
    source = None if provider_id is None else ids.encode("prov", provider_id)
    keys = None if marks is None else tuple(sealer.keyed_hash("suppression", mark) for mark in marks)
    async with transaction(pool) as connection:
        count = await directory_store.lift_suppressions(connection, keys, source, since, now, actor, reason)
        subject, since_text = source or "person", since.isoformat() if since else None
        await audit.record(
            connection, now, actor, "person.lift_suppression", subject, reason=reason, marks=count, since=since_text
        )
    return count
