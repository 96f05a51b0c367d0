"""The queries of the directory as typed functions: one per query, no decision inside."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from billing.pricing import Payout
from marketplace.database.db import Connection, Queries, fetch_rows, find_row, load_row, violated
from marketplace.delivery.store import MailMode
from marketplace.mapping.shapes import RequestMapping
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock
from marketplace.runtime.errors import Conflict, EndpointShared
from routing.contract import Contract
from routing.delivery import EndpointKind
from routing.quota import SuspensionReason
from routing.subscription import BusinessTerms, SubscriptionDefinition
from routing.vertical import VerticalDefinition

SQL = Queries(__file__)

ADDRESS_TAKEN: Final = "Use a URL of this business alone: no endpoint may see the leads of two."


class TenantScope(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a caller's queries: one business and one mode. None means all, for operators only."""

    business_id: UUID | None
    mode: str | None


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider, with its payout terms."""

    id: UUID
    name: str
    state: str
    payout: Payout
    created_at: datetime


class Business(msgspec.Struct, frozen=True, kw_only=True):
    """A business. `zone` is the IANA time zone of its calendar, `currency` that of its wallet.

    `seller_names` are its legal and trade names, by which a consent may name it. A business may change `name`, which
    therefore does not count.
    """

    id: UUID
    name: str
    state: str
    zone: str
    currency: str
    created_at: datetime
    seller_names: tuple[str, ...]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A way in which a business receives leads. Its secrets are read by `load_secrets` only.

    A webhook has a URL, one of kind email an `address`, a `mail_mode` and `with_adf`. `hold_seconds` is how long a
    lead is held until somebody takes it.
    `serves_live` is whether a live subscription that has not ended uses it.
    """

    id: UUID
    business_id: UUID
    kind: EndpointKind
    url: str | None
    state: str
    hold_seconds: int = 120
    previous_until: datetime | None = None
    breaker_open_until: datetime | None = None
    created_at: datetime
    verified_at: datetime | None = None
    address: str | None = None
    mail_mode: MailMode | None = None
    with_adf: bool | None = None
    serves_live: bool = False


class EndpointSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """Sealed signing secrets of an endpoint; the previous one is valid until `previous_until`."""

    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None


class EndpointContract(msgspec.Struct, frozen=True, kw_only=True):
    """Response contract of an endpoint and its version, from 1. None is the one that every endpoint begins with."""

    kind: str
    version: int
    contract: Contract | None


class EndpointMapping(msgspec.Struct, frozen=True, kw_only=True):
    """Request of an endpoint and its version, counted from 1. None is our own webhook; credentials are sealed."""

    kind: str
    url: str | None
    version: int
    mapping: RequestMapping | None
    credentials: bytes | None


class AnswerAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """Open alarm about the answers of an endpoint: how many, since when, and the last one with contact data masked."""

    id: UUID
    endpoint_id: UUID
    business_id: UUID
    business: str
    url: str
    kind: str
    opened_at: datetime
    last_at: datetime
    answers: int
    status: int
    content_type: str
    excerpt: str | None


class SubscriptionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription in its current version, made at `made_at`. The last four fields are set while it is suspended."""

    id: UUID
    business_id: UUID
    vertical: str
    endpoint_id: UUID | None
    mode: str
    name: str
    state: str
    version: int
    definition: SubscriptionDefinition
    created_at: datetime
    made_at: datetime
    suspended_for: SuspensionReason | None = None
    suspended_at: datetime | None = None
    suspended_counted: int | None = None
    suspended_shown: int | None = None


# Verticals


async def insert_vertical(
    connection: Connection, slug: str, definition: VerticalDefinition, actor: str, now: datetime
) -> Vertical:
    """Insert a vertical with version 1. Raises Conflict for a slug that exists."""
    vertical = Vertical(id=clock.new_id(), slug=slug, version=1, definition=definition)
    try:
        await connection.execute(SQL["insert_vertical"], vertical.id, slug, now)
    except asyncpg.UniqueViolationError as error:
        if violated(error) != "vertical_slug_key":
            raise
        raise Conflict("There is a vertical with this slug already. Change it, or choose another slug.") from error
    await _insert_vertical_version(connection, vertical, actor, now)
    return vertical


async def revise_vertical(connection: Connection, vertical: Vertical, actor: str, now: datetime) -> None:
    """Insert `vertical` as the next version, whose number it already has, and make it the current one."""
    await _insert_vertical_version(connection, vertical, actor, now)
    await connection.execute(SQL["mark_vertical_version"], vertical.id, vertical.version)


async def _insert_vertical_version(connection: Connection, vertical: Vertical, actor: str, now: datetime) -> None:
    definition = msgspec.json.encode(vertical.definition)
    await connection.execute(SQL["insert_vertical_version"], vertical.id, vertical.version, definition, now, actor)


async def find_vertical(connection: Connection, slug: str) -> Vertical | None:
    """Return a vertical in its current version, or None."""
    return await find_row(connection, SQL["find_vertical"], Vertical, slug)


async def lock_vertical(connection: Connection, slug: str) -> Vertical | None:
    """Lock a vertical until the transaction ends, and return it in its current version, or None."""
    await connection.fetchrow(SQL["lock_vertical"], slug)
    return await find_vertical(connection, slug)


async def list_verticals(connection: Connection, after: UUID | None, limit: int) -> tuple[Vertical, ...]:
    """Return verticals, newest first, after the vertical `after`."""
    return await fetch_rows(connection, SQL["list_verticals"], Vertical, after, limit)


# Providers and businesses


async def insert_provider(connection: Connection, name: str, payout: Payout, now: datetime) -> Provider:
    """Insert a provider and return it."""
    return await load_row(
        connection, SQL["insert_provider"], Provider, clock.new_id(), name, msgspec.json.encode(payout), now
    )


async def find_provider(connection: Connection, provider_id: UUID) -> Provider | None:
    """Return a provider, or None."""
    return await find_row(connection, SQL["find_provider"], Provider, provider_id)


async def list_providers(connection: Connection, after: UUID | None, limit: int) -> tuple[Provider, ...]:
    """Return providers, newest first, after the provider `after`."""
    return await fetch_rows(connection, SQL["list_providers"], Provider, after, limit)


async def mark_provider(
    connection: Connection, provider_id: UUID, name: str | None, state: str | None, payout: Payout | None
) -> Provider | None:
    """Change a provider, except for the fields that are None, and return it; None if it does not exist."""
    terms = None if payout is None else msgspec.json.encode(payout)
    return await find_row(connection, SQL["mark_provider"], Provider, provider_id, name, state, terms)


async def insert_business(connection: Connection, name: str, zone: str, now: datetime) -> UUID:
    """Insert a business and return its id. The caller inserts its wallet in the same transaction."""
    business_id = clock.new_id()
    await connection.execute(SQL["insert_business"], business_id, name, zone, now)
    return business_id


async def find_business(connection: Connection, business_id: UUID) -> Business | None:
    """Return a business, or None."""
    return await find_row(connection, SQL["find_business"], Business, business_id)


async def list_businesses(connection: Connection, after: UUID | None, limit: int) -> tuple[Business, ...]:
    """Return businesses, newest first, after the business `after`."""
    return await fetch_rows(connection, SQL["list_businesses"], Business, after, limit)


async def mark_business(
    connection: Connection,
    business_id: UUID,
    name: str | None,
    state: str | None,
    zone: str | None,
    seller_names: Sequence[str] | None,
) -> Business | None:
    """Change a business, except for the fields that are None, and return it; None if it does not exist."""
    if await connection.fetchval(SQL["mark_business"], business_id, name, state, zone, seller_names) is None:
        return None
    return await find_business(connection, business_id)


# Endpoints


async def has_other_owner(connection: Connection, address_key: str, business_id: UUID) -> bool:
    """Return whether another business has proven that this address is its own, and has not switched it off."""
    taken: bool = await connection.fetchval(SQL["has_other_owner"], address_key, business_id)
    return taken


async def insert_endpoint(
    connection: Connection, new: Endpoint, secret: bytes | None, address_key: str | None = None
) -> None:
    """Insert an endpoint. Only a webhook has a sealed secret and an address key."""
    await connection.execute(
        SQL["insert_endpoint"],
        new.id,
        new.business_id,
        new.kind,
        new.url,
        new.state,
        secret,
        new.created_at,
        new.verified_at,
        address_key,
        new.hold_seconds,
    )


async def find_endpoint(connection: Connection, reach: TenantScope, endpoint_id: UUID) -> Endpoint | None:
    """Return an endpoint within the reach, or None."""
    return await find_row(connection, SQL["find_endpoint"], Endpoint, endpoint_id, reach.business_id)


async def list_endpoints(
    connection: Connection, reach: TenantScope, after: UUID | None, limit: int
) -> tuple[Endpoint, ...]:
    """Return the endpoints within the reach, newest first, after the endpoint `after`."""
    return await fetch_rows(connection, SQL["list_endpoints"], Endpoint, reach.business_id, after, limit)


async def load_secrets(connection: Connection, endpoint_id: UUID) -> EndpointSecrets:
    """Return the sealed secrets of an endpoint, which must exist."""
    return await load_row(connection, SQL["find_secrets"], EndpointSecrets, endpoint_id)


async def mark_endpoint_verified(
    connection: Connection, endpoint_id: UUID, was: str, now: datetime, address_key: str | None
) -> bool:
    """Make an endpoint active and verified, and reset its breaker; return False if its state is no longer `was`.

    Raises EndpointShared if another business has verified the address.
    """
    await connection.execute(SQL["lock_address"], endpoint_id)
    with _address_of_one():
        marked = await connection.fetchval(SQL["mark_endpoint_verified"], endpoint_id, was, now, address_key)
    return marked is not None


async def mark_endpoint_state(connection: Connection, endpoint_id: UUID, state: str) -> None:
    """Set the state of an endpoint, and reset its breaker. Raises EndpointShared for another business's address."""
    await connection.execute(SQL["lock_address"], endpoint_id)
    with _address_of_one():
        await connection.execute(SQL["mark_endpoint_state"], endpoint_id, state)


@contextmanager
def _address_of_one() -> Iterator[None]:
    """Turn a refusal by `endpoint_address_of_one` into EndpointShared."""
    try:
        yield
    except asyncpg.ExclusionViolationError as error:
        if violated(error) != "endpoint_address_of_one":
            raise
        raise EndpointShared(ADDRESS_TAKEN) from error


async def mark_hold(connection: Connection, endpoint_id: UUID, hold_seconds: int) -> None:
    """Set for how long a lead is held for an endpoint."""
    await connection.execute(SQL["mark_hold"], endpoint_id, hold_seconds)


async def mark_secret(connection: Connection, endpoint_id: UUID, secret: bytes, previous_until: datetime) -> None:
    """Store a new sealed secret; the present one stays valid until `previous_until`."""
    await connection.execute(SQL["mark_secret"], endpoint_id, secret, previous_until)


async def mark_previous_secret_ended(connection: Connection, endpoint_id: UUID) -> None:
    """Delete the previous secret of an endpoint."""
    await connection.execute(SQL["mark_previous_secret_ended"], endpoint_id)


async def find_contract(connection: Connection, reach: TenantScope, endpoint_id: UUID) -> EndpointContract | None:
    """Return the contract of an endpoint within the reach, or None."""
    return await find_row(connection, SQL["find_contract"], EndpointContract, endpoint_id, reach.business_id)


async def mark_contract(connection: Connection, endpoint_id: UUID, read: int, contract: Contract | None) -> bool:
    """Store a contract as the version after `read`; return False if the current version is another one."""
    document = None if contract is None else msgspec.json.encode(contract)
    return await connection.fetchval(SQL["mark_contract"], endpoint_id, read, document) is not None


async def find_mapping(connection: Connection, reach: TenantScope, endpoint_id: UUID) -> EndpointMapping | None:
    """Return the mapping of an endpoint within the reach, or None."""
    return await find_row(connection, SQL["find_mapping"], EndpointMapping, endpoint_id, reach.business_id)


async def mark_mapping(
    connection: Connection,
    endpoint_id: UUID,
    read: int,
    mapping: RequestMapping | None,
    credentials: bytes | None,
    address_key: str | None,
) -> bool:
    """Store a mapping as the version after `read`; return False if the current version is another one.

    Raises EndpointShared if another business has verified the address with the same credentials.
    """
    document = None if mapping is None else msgspec.json.encode(mapping)
    await connection.execute(SQL["lock_address"], endpoint_id)
    with _address_of_one():
        row = await connection.fetchval(SQL["mark_mapping"], endpoint_id, read, document, credentials, address_key)
    return row is not None


async def close_alarms(connection: Connection, endpoint_id: UUID, closed_for: str, now: datetime) -> None:
    """Close the open alarms of an endpoint: all for `contract`, those about a new shape for `seen`."""
    await connection.execute(SQL["close_alarms"], endpoint_id, closed_for, now)


async def list_answer_alarms(connection: Connection, business_id: UUID | None, limit: int) -> tuple[AnswerAlarm, ...]:
    """Return the open alarms of a business, or with None of all, newest first."""
    return await fetch_rows(connection, SQL["list_answer_alarms"], AnswerAlarm, business_id, limit)


# Subscriptions


async def insert_subscription(
    connection: Connection, subscription: SubscriptionRecord, vertical_id: UUID, actor: str
) -> None:
    """Insert a subscription with version 1."""
    new = subscription
    await connection.execute(
        SQL["insert_subscription"],
        new.id,
        new.business_id,
        vertical_id,
        new.endpoint_id,
        new.mode,
        new.name,
        new.definition.currency,
        new.created_at,
    )
    await _insert_subscription_version(connection, new.id, 1, new.definition, actor, new.made_at)


async def revise_subscription(connection: Connection, revised: SubscriptionRecord, actor: str) -> None:
    """Insert `revised` as the next version, whose number it already has, and make it the current one."""
    await _insert_subscription_version(
        connection, revised.id, revised.version, revised.definition, actor, revised.made_at
    )
    await connection.execute(
        SQL["mark_subscription_version"], revised.id, revised.version, revised.name, revised.endpoint_id
    )


async def _insert_subscription_version(
    connection: Connection,
    subscription_id: UUID,
    version: int,
    definition: SubscriptionDefinition,
    actor: str,
    now: datetime,
) -> None:
    await connection.execute(
        SQL["insert_subscription_version"], subscription_id, version, msgspec.json.encode(definition), now, actor
    )


async def find_subscription(
    connection: Connection, reach: TenantScope, subscription_id: UUID
) -> SubscriptionRecord | None:
    """Return a subscription within the reach, in its current version, or None."""
    return await find_row(
        connection, SQL["find_subscription"], SubscriptionRecord, subscription_id, reach.business_id, reach.mode
    )


async def list_subscriptions(
    connection: Connection, reach: TenantScope, after: UUID | None, limit: int
) -> tuple[SubscriptionRecord, ...]:
    """Return the subscriptions within the reach, newest first, after the subscription `after`."""
    return await fetch_rows(
        connection, SQL["list_subscriptions"], SubscriptionRecord, reach.business_id, reach.mode, after, limit
    )


async def lock_subscription(connection: Connection, reach: TenantScope, subscription_id: UUID) -> bool:
    """Lock a subscription until the transaction ends; return False if none with this id is within the reach."""
    parameters = (subscription_id, reach.business_id, reach.mode)
    return await connection.fetchval(SQL["lock_subscription"], *parameters) is not None


async def has_suspended(connection: Connection, business_id: UUID, slug: str, mode: str) -> bool:
    """Return whether the business has a suspended subscription to this vertical in this mode."""
    return bool(await connection.fetchval(SQL["has_suspended"], business_id, slug, mode))


async def begin_quota(connection: Connection, subscription_id: UUID, now: datetime) -> None:
    """Begin to count the subscription's quotas anew."""
    await connection.execute(SQL["begin_quota"], subscription_id, now)


async def mark_subscription_state(connection: Connection, subscription_id: UUID, state: str) -> None:
    """Set the state of a subscription."""
    await connection.execute(SQL["mark_subscription_state"], subscription_id, state)


# Operator's terms of a business in a vertical


async def lock_business(connection: Connection, business_id: UUID) -> None:
    """Lock a business until the transaction ends, before any of its subscriptions."""
    await connection.execute(SQL["lock_business"], business_id)


async def lock_subscriptions(connection: Connection, vertical_id: UUID, business_id: UUID) -> None:
    """Lock the subscriptions of a business in a vertical until the transaction ends. The business is locked already."""
    await connection.execute(SQL["lock_subscriptions"], vertical_id, business_id)


async def find_terms(connection: Connection, vertical_id: UUID, business_id: UUID) -> BusinessTerms:
    """Return the operator's terms, or the defaults."""
    return await find_row(connection, SQL["find_terms"], BusinessTerms, vertical_id, business_id) or BusinessTerms()


async def set_terms(
    connection: Connection, vertical_id: UUID, business_id: UUID, terms: BusinessTerms, actor: str, now: datetime
) -> dict[UUID, int]:
    """Set the terms, and make the next version of the business's subscriptions in the vertical that have others.

    Return the new versions by subscription id. The caller holds the locks of `lock_subscriptions`.
    """
    await connection.execute(SQL["put_terms"], vertical_id, business_id, terms.weight, terms.priority)
    rows = await connection.fetch(
        SQL["revise_terms"], vertical_id, business_id, terms.weight, terms.priority, now, actor
    )
    return {row["id"]: row["version"] for row in rows}


# Suppressions


async def insert_suppressions(
    connection: Connection, keys: tuple[bytes, ...], reason: str, source: str, now: datetime
) -> None:
    """Suppress these keyed hashes; existing suppressions are kept as they are."""
    await connection.execute(SQL["insert_suppressions"], list(keys), reason, source, now)


async def lock_suppressions(connection: Connection, source: str) -> None:
    """Make another call that suppresses for this source wait until this transaction ends."""
    await connection.execute(SQL["lock_suppressions"], source)


async def count_suppressed(connection: Connection, source: str) -> int:
    """Count the people whom this source has suppressed in the last 24 hours."""
    count: int = await connection.fetchval(SQL["count_suppressed"], source)
    return count


async def lift_suppressions(
    connection: Connection,
    keys: tuple[bytes, ...] | None,
    source: str | None,
    since: datetime | None,
    now: datetime,
    actor: str,
    reason: str,
) -> int:
    """Lift the suppressions of these keys, or of one source since a time, and return their number."""
    key_list = None if keys is None else list(keys)
    count: int = await connection.fetchval(SQL["lift_suppressions"], key_list, source, since, now, actor, reason)
    return count
