"""Keeping the directory: each use case loads what it needs, asks the checks, and commits with its audit row."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from billing.pricing import Payout
from marketplace import access, audit, auth, clock, errors, ids, money
from marketplace.auth import Kind, Opened, Principal
from marketplace.catalog import Vertical
from marketplace.db import Connection, Pool, session, transaction
from marketplace.directory import store
from marketplace.directory.challenge import challenge
from marketplace.directory.checks import Refusal, currency_faults, subscription_faults, vertical_faults, zone_faults
from marketplace.directory.store import Business, Endpoint, Provider, Reach, SavedSubscription
from marketplace.faults import Fault
from marketplace.sealing import Sealer
from marketplace.webhook.address import Guard, Target, UrlFault, UrlRefused, address_key
from marketplace.webhook.signing import new_secret
from routing.subscription import Definition
from routing.vertical import VerticalDefinition

SECRET_OVERLAP: Final = timedelta(hours=24)
"How long the old signing secret stays valid: a day is time to roll out the new one, and every retry ends within it."

SUPPRESSED_A_DAY: Final = 1_000
"People whom one provider may suppress for everybody in 24 hours; a broker sees a few dozen STOPs."
SUPPRESSING_RETRY_SECONDS: Final = 3_600

NOT_THERE: Final = "There is nothing with this id, or it is not yours."


EXPIRED: Final = Fault(pointer="/expires_at", code=Refusal.in_the_past, detail="Give a time that lies ahead, or none.")


def _refuse(faults: tuple[Fault, ...]) -> None:
    if faults:
        raise errors.InvalidInput(faults)


def _why(reason: str | None) -> dict[str, str]:
    """The reason for the audit's detail, where one was asked for."""
    return {} if reason is None else {"reason": reason}


# Verticals


async def create_vertical(pool: Pool, actor: str, slug: str, definition: VerticalDefinition) -> Vertical:
    """Version 1 of a new vertical. Raises InvalidInput, and Conflict for a slug that exists."""
    _refuse(vertical_faults(definition))
    now = clock.now()
    async with transaction(pool) as connection:
        vertical = await store.insert_vertical(connection, slug, definition, actor, now)
        await audit.record(connection, now, actor, "vertical.create", ids.encode("vert", vertical.id), version=1)
    return vertical


async def revise_vertical(
    pool: Pool, actor: str, slug: str, read: int, definition: VerticalDefinition, reason: str | None = None
) -> Vertical:
    """The next version, if the current one is still the one `read`. Raises NotFound, Conflict, InvalidInput."""
    now = clock.now()
    async with transaction(pool) as connection:
        current = await store.lock_vertical(connection, slug)
        if current is None:
            raise errors.NotFound("There is no vertical with this slug.")
        _demand_version(current.version, read)
        detail = f"This vertical counts in {current.definition.currency}; make another one for another currency."
        moved = Fault(pointer="/definition/currency", code=Refusal.currency_fixed, detail=detail)
        stays = definition.currency == current.definition.currency
        _refuse(vertical_faults(definition) + (() if stays else (moved,)))
        vertical = msgspec.structs.replace(current, version=current.version + 1, definition=definition)
        await store.revise_vertical(connection, vertical, actor, now)
        subject = ids.encode("vert", vertical.id)
        why: dict[str, str | int] = {"version": vertical.version, **_why(reason)}
        await audit.record(connection, now, actor, "vertical.revise", subject, **why)
    return vertical


def _demand_version(current: int, read: int) -> None:
    if current != read:
        raise errors.Conflict(f"It is at version {current} by now. Read it again and send your change with that.")


# Providers and businesses


async def create_provider(pool: Pool, actor: str, name: str, payout: Payout) -> Provider:
    now = clock.now()
    async with transaction(pool) as connection:
        provider = await store.insert_provider(connection, name, payout, now)
        await audit.record(connection, now, actor, "provider.create", ids.encode("prov", provider.id))
    return provider


async def change_provider(
    pool: Pool, actor: str, provider_id: UUID, name: str | None, state: str | None, payout: Payout | None,
    reason: str | None = None,
) -> Provider:  # fmt: skip
    """What is None stays as it is. Raises NotFound."""
    now = clock.now()
    async with transaction(pool) as connection:
        provider = await store.mark_provider(connection, provider_id, name, state, payout)
        if provider is None:
            raise errors.NotFound(NOT_THERE)
        subject = ids.encode("prov", provider.id)
        terms = None if payout is None else msgspec.json.encode(payout).decode()
        detail = {"name": name, "state": state, "payout": terms, **_why(reason)}
        await audit.record(connection, now, actor, "provider.change", subject, **detail)
    return provider


async def create_business(
    pool: Pool, actor: str, name: str, zone: str, currency: str, credit_limit_minor: int
) -> Business:
    """A business and its wallet, or neither. Raises InvalidInput for an unknown zone or currency."""
    _refuse((*zone_faults("/zone", zone), *currency_faults("/currency", currency)))
    now = clock.now()
    async with transaction(pool) as connection:
        business_id = await store.insert_business(connection, name, zone, now)
        await money.insert_wallet(connection, business_id, currency, credit_limit_minor)
        subject = ids.encode("biz", business_id)
        await audit.record(connection, now, actor, "business.create", subject, credit_limit_minor=credit_limit_minor)
        return await _load_business(connection, business_id)


async def change_business(
    pool: Pool, actor: str, business_id: UUID, name: str | None, state: str | None, zone: str | None,
    reason: str | None = None,
) -> Business:  # fmt: skip
    """What is None stays as it is. Raises NotFound, InvalidInput."""
    _refuse(() if zone is None else tuple(zone_faults("/zone", zone)))
    now = clock.now()
    async with transaction(pool) as connection:
        business = await store.mark_business(connection, business_id, name, state, zone)
        if business is None:
            raise errors.NotFound(NOT_THERE)
        subject = ids.encode("biz", business.id)
        detail = {"name": name, "state": state, "zone": zone, **_why(reason)}
        await audit.record(connection, now, actor, "business.change", subject, **detail)
    return business


async def _load_business(connection: Connection, business_id: UUID) -> Business:
    business = await store.find_business(connection, business_id)
    if business is None:
        raise errors.NotFound("There is no such business, or it is not yours.")
    return business


# Keys


async def create_key(
    pool: Pool, sealer: Sealer, actor: str, *, kind: Kind, owner_id: UUID | None, mode: str, name: str,
    expires_at: datetime | None, rate_per_minute: int | None = None, opened: Opened | None = None,
) -> str:  # fmt: skip
    """A new key's text: the only time that anybody sees it. `opened` names the operator who makes it for a tenant.

    Raises InvalidInput for an unknown owner, a time past, or where a reason is missing.
    """
    now = clock.now()
    if expires_at is not None and expires_at <= now:
        raise errors.InvalidInput((EXPIRED,))
    async with transaction(pool) as connection:
        if not await _owner_exists(connection, kind, owner_id):
            raise _one_fault("/owner_id", Refusal.owner_unknown, "Name the provider or business that the key is for.")
        text = await auth.create_key(
            connection, sealer, kind=kind, owner_id=owner_id, mode=mode, name=name, expires_at=expires_at,
            rate_per_minute=rate_per_minute,
        )  # fmt: skip
        key_id = auth.key_id(text)
        await audit.record(connection, now, actor, "key.create", key_id, kind=kind, mode=mode)
        if owner_id is not None:
            await access.demand_reason(connection, kind, owner_id, opened)
            await access.record_opened(connection, access.Way.key, key_id, kind, owner_id, opened)
    return text


async def _owner_exists(connection: Connection, kind: Kind, owner_id: UUID | None) -> bool:
    """An operator's key has no owner; any other has one of its own kind."""
    if kind is Kind.operator or owner_id is None:
        return kind is Kind.operator and owner_id is None
    if kind is Kind.provider:
        return await store.find_provider(connection, owner_id) is not None
    return await store.find_business(connection, owner_id) is not None


async def revoke_key(pool: Pool, actor: str, key_id: str, reason: str | None = None) -> auth.Key:
    """Ends a key; once more is no error. Raises NotFound."""
    now = clock.now()
    async with transaction(pool) as connection:
        key = await auth.revoke_key(connection, key_id, now)
        if key is None:
            raise errors.NotFound(NOT_THERE)
        if key.revoked_at == now:
            await audit.record(connection, now, actor, "key.revoke", key_id, **_why(reason))
    return key


def _one_fault(where: str, code: str, detail: str) -> errors.InvalidInput:
    return errors.InvalidInput((Fault(pointer=where, code=code, detail=detail),))


# Endpoints


async def create_endpoint(
    pool: Pool, sealer: Sealer, guard: Guard, actor: str, business_id: UUID, url: str, opened: Opened | None = None
) -> tuple[Endpoint, str]:
    """An unverified endpoint and its signing secret, shown this once. The URL is kept in its one usual spelling.

    `opened` names the operator who makes it for the business: live leads go there once an owner has confirmed it.
    Raises InvalidInput for a URL that no webhook may use or a reason that is missing, NotFound, and EndpointShared
    where another business has it.
    """
    target = guard.check(url)
    if isinstance(target, UrlRefused):
        raise _one_fault("/url", target.fault, _URL_ADVICE[target.fault])
    plain, secret, now = f"{target.scheme}://{target.host_header}{target.path}", new_secret(), clock.now()
    endpoint = Endpoint(
        id=clock.new_id(), business_id=business_id, kind="push", url=plain, state="unverified", created_at=now
    )
    async with transaction(pool) as connection:
        await _load_business(connection, business_id)
        await _demand_own_address(connection, target, business_id)
        box = sealer.seal_secret(endpoint.id, secret)
        await store.insert_endpoint(connection, endpoint, box, address_key(target))
        await audit.record(connection, now, actor, "endpoint.create", ids.encode("whe", endpoint.id))
        await access.demand_reason(connection, Kind.business, business_id, opened)
        await access.record_opened(connection, access.Way.endpoint, endpoint.id, Kind.business, business_id, opened)
    return endpoint, secret


async def _demand_own_address(connection: Connection, target: Target, business_id: UUID) -> None:
    """Raises EndpointShared where another business has proven that this address, in whichever spelling, is its own."""
    key = address_key(target)
    await store.lock_url(connection, key)
    if await store.has_other_owner(connection, key, business_id):
        raise errors.EndpointShared("Use a URL of this business alone: no endpoint may see the leads of two.")


async def create_feed(pool: Pool, actor: str, business_id: UUID) -> Endpoint:
    """A feed, active at once: who reads it proves with each key who they are. Raises NotFound."""
    now = clock.now()
    feed = Endpoint(
        id=clock.new_id(), business_id=business_id, kind="feed", url=None, state="active", created_at=now,
        verified_at=now,
    )  # fmt: skip
    async with transaction(pool) as connection:
        await _load_business(connection, business_id)
        await store.insert_endpoint(connection, feed, None)
        await audit.record(connection, now, actor, "endpoint.create", ids.encode("whe", feed.id), kind=feed.kind)
    return feed


_URL_ADVICE: Final = {
    UrlFault.url_invalid: "Send a whole URL without fragment, spaces or backslashes; percent-encode other characters.",
    UrlFault.url_scheme: "Begin the URL with https://",
    UrlFault.url_credentials: "Leave user name and password out: requests are signed instead.",
    UrlFault.url_port: "Use port 443, 8443 or 80.",
    UrlFault.url_loops_to_service: "Send your own server's URL: this one points back at this service.",
    UrlFault.url_address_not_public: "Use an address on the public internet.",
}


async def verify_endpoint(
    pool: Pool, sealer: Sealer, guard: Guard, caller: Principal, reach: Reach, endpoint_id: UUID
) -> Endpoint:
    """Asks its server for proof, with no transaction open, and makes it active: from then on the address is taken.

    Raises NotFound, ChallengeFailed, and EndpointShared where another business was first to prove it.
    """
    async with session(pool) as connection:
        endpoint = await _load_endpoint(connection, caller, reach, endpoint_id)
        url = _url_of(endpoint)
        sealed = await store.load_secrets(connection, endpoint_id)
    boxes = [sealed.secret]
    if sealed.previous_secret and sealed.previous_until and clock.now() < sealed.previous_until:
        boxes.append(sealed.previous_secret)
    failure = await challenge(endpoint_id, url, [sealer.open_secret(endpoint_id, box) for box in boxes], guard)
    if failure is not None:
        raise errors.ChallengeFailed(failure)
    now = clock.now()
    async with transaction(pool) as connection:
        target = guard.check(url)
        if isinstance(target, Target):
            await _demand_own_address(connection, target, endpoint.business_id)
        if not await store.mark_endpoint_verified(connection, endpoint_id, endpoint.state, now):
            raise errors.Conflict("The endpoint was switched meanwhile. Read it again.")
        await audit.record(connection, now, caller.key_id, "endpoint.verify", ids.encode("whe", endpoint_id))
        return await _load_endpoint(connection, caller, reach, endpoint_id)


def _url_of(endpoint: Endpoint) -> str:
    """Raises Conflict for a feed."""
    if endpoint.url is None:
        raise errors.Conflict("A feed has neither a URL nor a signing secret: your keys open it.")
    return endpoint.url


async def rotate_secret(
    pool: Pool, sealer: Sealer, caller: Principal, reach: Reach, endpoint_id: UUID
) -> tuple[Endpoint, str]:
    """A new signing secret, shown this once; the old one stays valid beside it for a day. Raises NotFound."""
    secret, now = new_secret(), clock.now()
    async with transaction(pool) as connection:
        _url_of(await _load_endpoint(connection, caller, reach, endpoint_id))
        box = sealer.seal_secret(endpoint_id, secret)
        await store.mark_secret(connection, endpoint_id, box, now + SECRET_OVERLAP)
        await audit.record(connection, now, caller.key_id, "endpoint.rotate_secret", ids.encode("whe", endpoint_id))
        return await _load_endpoint(connection, caller, reach, endpoint_id), secret


async def end_previous_secret(pool: Pool, caller: Principal, reach: Reach, endpoint_id: UUID) -> Endpoint:
    """Ends the secret before the present one at once; without one, no error. Raises NotFound, Conflict for a feed."""
    now = clock.now()
    async with transaction(pool) as connection:
        _url_of(await _load_endpoint(connection, caller, reach, endpoint_id))
        await store.mark_previous_secret_ended(connection, endpoint_id)
        subject = ids.encode("whe", endpoint_id)
        await audit.record(connection, now, caller.key_id, "endpoint.end_previous_secret", subject)
        return await _load_endpoint(connection, caller, reach, endpoint_id)


async def switch_endpoint(
    pool: Pool, caller: Principal, reach: Reach, endpoint_id: UUID, state: str, reason: str | None = None
) -> Endpoint:
    """On or off; either way its breaker starts anew. Raises NotFound, and Conflict for one that was never verified."""
    now = clock.now()
    async with transaction(pool) as connection:
        endpoint = await _load_endpoint(connection, caller, reach, endpoint_id)
        if state == "active" and endpoint.verified_at is None:
            raise errors.Conflict("Verify this endpoint first: POST /v1/endpoints/{id}/verify.")
        await store.mark_endpoint_state(connection, endpoint_id, state)
        subject = ids.encode("whe", endpoint_id)
        await audit.record(connection, now, caller.key_id, "endpoint.switch", subject, state=state, **_why(reason))
        return await _load_endpoint(connection, caller, reach, endpoint_id)


async def _load_endpoint(connection: Connection, caller: Principal, reach: Reach, endpoint_id: UUID) -> Endpoint:
    """To change it: what live subscriptions lean on takes a live key. Raises NotFound, KeyWrongMode."""
    endpoint = await store.find_endpoint(connection, reach, endpoint_id)
    if endpoint is None:
        raise errors.NotFound(NOT_THERE)
    if endpoint.serves_live:
        caller.demand_mode("live")
    return endpoint


# Subscriptions


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription should say; `endpoint_id` is None where the text given is no id at all."""

    name: str
    endpoint_id: UUID | None
    definition: Definition


async def create_subscription(
    pool: Pool, actor: str, business_id: UUID, mode: str, slug: str, wanted: Wanted
) -> SavedSubscription:
    """Raises NotFound for an unknown business, InvalidInput with every fault at once, and SubscriptionSuspended while
    another subscription of the business to this vertical is: a new one would begin with a quota of its own."""
    now = clock.now()
    async with transaction(pool) as connection:
        vertical = await _check(connection, business_id, slug, wanted, mode)
        if await store.has_suspended(connection, business_id, slug, mode):
            raise errors.SubscriptionSuspended(SUSPENDED)
        subscription = SavedSubscription(
            id=clock.new_id(), business_id=business_id, vertical=slug, endpoint_id=wanted.endpoint_id, mode=mode,
            name=wanted.name, state="active", version=1, definition=wanted.definition, created_at=now, made_at=now,
        )  # fmt: skip
        await store.insert_subscription(connection, subscription, vertical.id, actor)
        subject = ids.encode("sub", subscription.id)
        await audit.record(connection, now, actor, "subscription.create", subject, version=1)
    return subscription


async def revise_subscription(
    pool: Pool, actor: str, reach: Reach, subscription_id: UUID, read: int, wanted: Wanted
) -> SavedSubscription:
    """The next version, if the current one is still the one `read`. Raises NotFound, Conflict, InvalidInput."""
    now = clock.now()
    async with transaction(pool) as connection:
        current = await _load_subscription(connection, reach, subscription_id)
        if current.state == "ended":
            raise errors.Conflict("This subscription has ended. Make a new one.")
        _demand_version(current.version, read)
        await _check(connection, current.business_id, current.vertical, wanted, current.mode)
        version = current.version + 1
        fields = {"name": wanted.name, "endpoint_id": wanted.endpoint_id, "definition": wanted.definition}
        revised = msgspec.structs.replace(current, version=version, made_at=now, **fields)
        await store.revise_subscription(connection, revised, actor)
        subject = ids.encode("sub", subscription_id)
        await audit.record(connection, now, actor, "subscription.revise", subject, version=version)
    return revised


SUSPENDED: Final = (
    "This subscription is suspended: too many leads were refused, or were not acknowledged. "
    "Mend your server and ask the marketplace to resume it."
)


async def switch_subscription(
    pool: Pool, actor: str, reach: Reach, subscription_id: UUID, state: str, reason: str | None = None
) -> SavedSubscription:
    """Active, paused or ended; once more is no error. Only an operator, whose reach is every business, resumes one that
    is suspended, and its quotas count anew from then.

    Raises NotFound, Conflict for one that has ended, and SubscriptionSuspended.
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
            await store.begin_quota(connection, subscription_id, now)
        await store.mark_subscription_state(connection, subscription_id, state)
        subject = ids.encode("sub", subscription_id)
        await audit.record(connection, now, actor, "subscription.switch", subject, state=state, **_why(reason))
    return msgspec.structs.replace(current, state=state)


async def _load_subscription(connection: Connection, reach: Reach, subscription_id: UUID) -> SavedSubscription:
    """Locked, then read: what is read is what stays until the commit. Raises NotFound."""
    if not await store.lock_subscription(connection, reach, subscription_id):
        raise errors.NotFound(NOT_THERE)
    found = await store.find_subscription(connection, reach, subscription_id)
    if found is None:
        raise errors.NotFound(NOT_THERE)
    return found


async def _check(connection: Connection, business_id: UUID, slug: str, wanted: Wanted, mode: str) -> Vertical:
    """The vertical of a subscription that may be saved. Raises NotFound, InvalidInput."""
    business = await _load_business(connection, business_id)
    vertical = await store.find_vertical(connection, slug)
    own = Reach(business_id=business_id, mode=None)
    endpoint = wanted.endpoint_id and await store.find_endpoint(connection, own, wanted.endpoint_id)
    _refuse(subscription_faults(wanted.definition, vertical, business.currency, endpoint is not None))
    if vertical is None:
        raise _one_fault("/vertical", Refusal.vertical_unknown, "Name a vertical by its slug.")
    if mode == "live" and endpoint and await access.is_unconfirmed(connection, endpoint.id):
        detail = "The marketplace added this endpoint. An owner of the business has to confirm it: /account/access."
        raise _one_fault("/endpoint_id", Refusal.endpoint_unconfirmed, detail)
    return vertical


# Suppressions


async def suppress(pool: Pool, sealer: Sealer, caller: Principal, marks: tuple[str, ...], reason: str) -> None:
    """Nobody will be given this person again. Keyed hashes of `marks` (`phone:+1…`) are all that is kept.

    It holds for every provider's inquiries: the wish is the person's. So that no provider can take people away from
    all others at will, it may suppress SUPPRESSED_A_DAY of them a day, and an operator may lift what it did. Raises
    RateLimited.
    """
    now = clock.now()
    source = caller.kind if caller.owner_id is None else ids.encode("prov", caller.owner_id)
    async with transaction(pool) as connection:
        keys = tuple(sealer.keyed_hash("suppression", mark) for mark in marks)
        if caller.kind is Kind.provider:
            await store.lock_suppressions(connection, source)
        await store.insert_suppressions(connection, keys, reason, source, now)
        if caller.kind is Kind.provider and await store.count_suppressed(connection, source) > SUPPRESSED_A_DAY:
            words = f"At most {SUPPRESSED_A_DAY:,} people in 24 hours. Ask an operator to add more."
            raise errors.RateLimited(words, SUPPRESSING_RETRY_SECONDS)
        await audit.record(connection, now, caller.key_id, "person.suppress", source, marks=len(keys))


async def lift_suppressions(
    pool: Pool, sealer: Sealer, actor: str, reason: str, *, marks: tuple[str, ...] | None = None,
    provider_id: UUID | None = None, since: datetime | None = None,
) -> int:  # fmt: skip
    """Lift the suppression of one person, or of everybody whom a provider suppressed since a moment. Return how many.

    What was lifted is kept as keyed hashes with the reason. Operators alone call this.
    """
    now = clock.now()
    source = None if provider_id is None else ids.encode("prov", provider_id)
    keys = None if marks is None else tuple(sealer.keyed_hash("suppression", mark) for mark in marks)
    async with transaction(pool) as connection:
        count = await store.lift_suppressions(connection, keys, source, since, now, actor, reason)
        subject, begin = source or "person", since.isoformat() if since else None
        await audit.record(
            connection, now, actor, "person.lift_suppression", subject, reason=reason, marks=count, since=begin
        )
    return count
