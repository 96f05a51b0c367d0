"""Queries of the operator's back office as typed functions, one per statement. They read every account."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from billing.pricing import Payout
from marketplace.database.db import Connection, Queries, fetch_rows, load_row
from marketplace.runtime import ids
from marketplace.security import auth
from routing.delivery import EndpointKind
from routing.quota import SuspensionReason
from routing.subscription import SubscriptionDefinition
from routing.vertical import VerticalDefinition

SQL = Queries(__file__, "back_office_store.sql")


# The system.


class DatabaseServer(msgspec.Struct, frozen=True, kw_only=True):
    """The database server, its size in bytes, and how many connections each kind of process has open."""

    version: str
    bytes: int
    api: int
    worker: int
    reports: int
    connections: int


class ServiceActivity(msgspec.Struct, frozen=True, kw_only=True):
    """Last time of each background activity, and the earliest due time of a lead and of an assignment."""

    block: int | None
    sealed_at: datetime | None
    reports_at: datetime | None
    outcomes_at: datetime | None
    lead_due_at: datetime | None
    assignment_due_at: datetime | None


class WaitingCount(msgspec.Struct, frozen=True, kw_only=True):
    """Number of leads or assignments (`what`) that wait in one state, and the number of those that are due now."""

    what: str
    state: str
    waiting: int
    due: int


async def read_server(connection: Connection) -> DatabaseServer:
    """Return the database server's version, size and connections."""
    return await load_row(connection, SQL["read_server"], DatabaseServer)


async def read_activity(connection: Connection) -> ServiceActivity:
    """Return the last times of the background activities."""
    return await load_row(connection, SQL["read_activity"], ServiceActivity)


class BackgroundPass(msgspec.Struct, frozen=True, kw_only=True):
    """One background pass: the time and duration of its last success, and how often in a row it has failed since."""

    name: str
    ended_at: datetime | None
    seconds: float | None
    failures: int
    failure: str | None


async def list_passes(connection: Connection) -> tuple[BackgroundPass, ...]:
    """Return every background pass, by name."""
    return await fetch_rows(connection, SQL["list_passes"], BackgroundPass)


async def count_waiting(connection: Connection) -> tuple[WaitingCount, ...]:
    """Return the numbers of waiting leads and assignments by state."""
    return await fetch_rows(connection, SQL["count_waiting"], WaitingCount)


# The audit.


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One audited change with its detail: versions, states, amounts, reasons; never contact data."""

    id: UUID
    at: datetime
    actor: str
    action: str
    object: str
    detail: dict[str, Any]


class ChainHead(msgspec.Struct, frozen=True, kw_only=True):
    """Last block of the audit chain, and the number of rows that are not sealed yet."""

    number: int | None
    sealed_at: datetime | None
    seal: str | None
    unsealed: int


async def list_audit(
    connection: Connection,
    before: UUID | None,
    limit: int,
    *,
    actor: str | None = None,
    object: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[AuditEntry, ...]:
    """Return the changes that match the filters, newest first.

    `action` is a full action, such as `key.revoke`, or the part before the dot.
    """
    return await fetch_rows(
        connection, SQL["list_audit"], AuditEntry, actor, object, action, since, until, before, limit
    )


async def list_actor_names(connection: Connection, actors: Iterable[str]) -> dict[str, str]:
    """Return the names of the members and keys among `actors`, by their public id."""
    distinct = set(actors)
    members = [member_id for actor in distinct if (member_id := ids.decode("mem", actor))]
    keys = [actor for actor in distinct if auth.is_key_id(actor)]
    rows = await connection.fetch(SQL["list_actor_names"], members, keys)
    return {_public_actor(row["id"]): row["name"] for row in rows}


def _public_actor(actor: str) -> str:
    """Return the public id of a member given by its UUID; a key's id is public already."""
    return ids.encode("mem", UUID(actor)) if "-" in actor else actor


async def find_head(connection: Connection) -> ChainHead:
    """Return the end of the audit chain."""
    return await load_row(connection, SQL["find_head"], ChainHead)


# Compliance.


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """Phone numbers and addresses suppressed by one request: how many, why, and who asked."""

    reason: str
    source: str
    created_at: datetime
    keys: int


class SuppressedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A suppressed phone number or address, as its keyed hash."""

    key: bytes
    reason: str
    source: str
    created_at: datetime


async def list_suppressions(connection: Connection, before: datetime | None, limit: int) -> tuple[Suppression, ...]:
    """Return the suppressions made before `before`, newest first."""
    return await fetch_rows(connection, SQL["list_suppressions"], Suppression, before, limit)


async def count_suppressions(connection: Connection) -> int:
    """Return the number of suppressed keys."""
    return int(await connection.fetchval(SQL["count_suppressions"]))


async def find_suppressed(connection: Connection, keys: Sequence[bytes]) -> tuple[SuppressedKey, ...]:
    """Return those of the keys that are suppressed."""
    return await fetch_rows(connection, SQL["find_suppressed"], SuppressedKey, keys)


# Deliveries.


class SuspendedSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription that a quota has suspended: `counted` of the last `leads` leads were refused or not confirmed."""

    id: UUID
    name: str
    business_id: UUID
    business: str
    vertical: str
    reason: SuspensionReason
    suspended_at: datetime
    counted: int
    leads: int


class TroubledEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that gets no leads at present, and the result of the last attempt."""

    id: UUID
    business_id: UUID
    business: str
    kind: EndpointKind
    url: str | None
    state: str
    open_until: datetime | None
    waiting: int
    last_outcome: str | None
    last_reason: str | None
    last_status: int | None
    last_at: datetime | None


class PendingRetry(msgspec.Struct, frozen=True, kw_only=True):
    """An assignment whose delivery will be tried again. It ends unconfirmed at `evidence_until`."""

    assignment_id: UUID
    lead_id: UUID
    business_id: UUID
    business: str
    state: str
    reason: str | None
    attempts: int
    due_at: datetime
    evidence_until: datetime | None
    mode: str


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to deliver a lead to an endpoint."""

    id: UUID
    lead_id: UUID
    business_id: UUID
    business: str
    endpoint_id: UUID
    attempt_no: int
    started_at: datetime
    outcome: str
    reason: str
    status: int | None
    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: float | None
    total_ms: float
    address: str | None
    answer_excerpt: str | None
    answer_reference: str | None
    answer_price: str | None


class UnconfirmedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead that one business may have seen and that was not charged."""

    lead_id: UUID
    business_id: UUID
    business: str
    state: str
    reason: str | None
    attempts: int
    awarded_at: datetime
    settled_at: datetime | None
    price_minor: int
    currency: str


async def list_troubled(connection: Connection, limit: int) -> tuple[TroubledEndpoint, ...]:
    """Return the endpoints that get no leads, those with most waiting leads first."""
    return await fetch_rows(connection, SQL["list_troubled"], TroubledEndpoint, limit)


async def list_suspended(connection: Connection, limit: int) -> tuple[SuspendedSubscription, ...]:
    """Return the suspended subscriptions, the latest first."""
    return await fetch_rows(connection, SQL["list_suspended"], SuspendedSubscription, limit)


async def list_retries(connection: Connection, limit: int) -> tuple[PendingRetry, ...]:
    """Return the deliveries that will be tried again, the soonest first."""
    return await fetch_rows(connection, SQL["list_retries"], PendingRetry, limit)


async def list_attempts(
    connection: Connection,
    before: UUID | None,
    limit: int,
    *,
    outcome: str | None,
    business_id: UUID | None,
    lead_id: UUID | None,
) -> tuple[AttemptRow, ...]:
    """Return the attempts that match the filters, newest first."""
    return await fetch_rows(connection, SQL["list_attempts"], AttemptRow, before, outcome, business_id, lead_id, limit)


async def list_unconfirmed(connection: Connection, leads: Sequence[UUID]) -> tuple[UnconfirmedLead, ...]:
    """Return the live assignment of each of the leads, in the order of `leads`."""
    return await fetch_rows(connection, SQL["list_unconfirmed"], UnconfirmedLead, leads)


# Verticals.


class VerticalVersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a vertical's rules: who published it, and when."""

    version: int
    definition: VerticalDefinition
    made_at: datetime
    made_by: str


async def list_versions(connection: Connection, vertical_id: UUID, limit: int) -> tuple[VerticalVersionRow, ...]:
    """Return the versions of a vertical, newest first."""
    return await fetch_rows(connection, SQL["list_versions"], VerticalVersionRow, vertical_id, limit)


# Businesses and providers.


class BusinessRow(msgspec.Struct, frozen=True, kw_only=True):
    """A business with its money in minor units, the number of its active live subscriptions, and its last lead."""

    id: UUID
    name: str
    state: str
    zone: str
    seller_names: tuple[str, ...]
    created_at: datetime
    currency: str
    available_minor: int
    held_minor: int
    credit_limit_minor: int
    subscriptions: int
    last_lead_at: datetime | None


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True):
    """A provider with its payout, the number of its valid live keys, and its last lead."""

    id: UUID
    name: str
    state: str
    payout: Payout
    created_at: datetime
    live_keys: int
    last_lead_at: datetime | None


class SubscriptionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One subscription in its current version."""

    id: UUID
    name: str
    state: str
    mode: str
    version: int
    currency: str
    slug: str
    vertical: str
    price_minor: int
    weight: int
    priority: int


class SavedSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a subscription, and who saved it."""

    version: int
    definition: SubscriptionDefinition
    made_at: datetime
    made_by: str


async def list_subscription_versions(
    connection: Connection, subscription_id: UUID, before: int | None, limit: int
) -> tuple[SavedSubscription, ...]:
    """Return the versions of a subscription from behind the version `before` on, newest first."""
    sql = SQL["list_subscription_versions"]
    return await fetch_rows(connection, sql, SavedSubscription, subscription_id, before, limit)


async def list_businesses(
    connection: Connection,
    before: UUID | None,
    limit: int,
    *,
    name: str | None = None,
    state: str | None = None,
    only: UUID | None = None,
) -> tuple[BusinessRow, ...]:
    """Return the businesses that match the filters, newest first. `name` matches any part of a name."""
    return await fetch_rows(connection, SQL["list_businesses"], BusinessRow, name, state, before, limit, only)


async def list_providers(
    connection: Connection,
    before: UUID | None,
    limit: int,
    *,
    name: str | None = None,
    state: str | None = None,
    only: UUID | None = None,
) -> tuple[ProviderRow, ...]:
    """Return the providers that match the filters, newest first. `name` matches any part of a name."""
    return await fetch_rows(connection, SQL["list_providers"], ProviderRow, name, state, before, limit, only)


async def list_subscriptions(connection: Connection, business_id: UUID, limit: int) -> tuple[SubscriptionRow, ...]:
    """Return the subscriptions of a business in their current versions, newest first."""
    return await fetch_rows(connection, SQL["list_subscriptions"], SubscriptionRow, business_id, limit)


# Wallets.


class LowWallet(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet in minor units. Below `low_below_minor` its business is warned."""

    business_id: UUID
    business: str
    state: str
    currency: str
    available_minor: int
    held_minor: int
    credit_limit_minor: int
    low_below_minor: int | None


class OwedToProvider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's earnings, claw-backs and payments in one currency, in minor units, and what is owed after them."""

    provider_id: UUID
    provider: str
    currency: str
    earned_minor: int
    taken_minor: int
    paid_minor: int
    owed_minor: int
    last_paid_at: datetime | None


class WalletDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet whose stored amounts differ from the sums of its entries."""

    business_id: UUID
    business: str
    currency: str
    available_minor: int
    entries_available_minor: int
    held_minor: int
    entries_held_minor: int


class TransferRow(msgspec.Struct, frozen=True, kw_only=True):
    """One movement of money, with its business or provider and its lead."""

    id: UUID
    kind: str
    amount_minor: int
    currency: str
    business_id: UUID | None
    business: str | None
    provider_id: UUID | None
    provider: str | None
    lead_id: UUID | None
    event_id: str | None
    made_at: datetime


async def list_low_wallets(connection: Connection, limit: int) -> tuple[LowWallet, ...]:
    """Return the wallets with the least to spend, credit included."""
    return await fetch_rows(connection, SQL["list_low_wallets"], LowWallet, limit)


async def list_owed(connection: Connection, limit: int) -> tuple[OwedToProvider, ...]:
    """Return what is owed to providers, the largest amount first."""
    return await fetch_rows(connection, SQL["list_owed"], OwedToProvider, limit)


async def list_differences(connection: Connection) -> tuple[WalletDifference, ...]:
    """Recompute every wallet from its entries on one snapshot, and return those that differ."""
    return await fetch_rows(connection, SQL["list_differences"], WalletDifference)


async def list_transfers(
    connection: Connection,
    before: UUID | None,
    limit: int,
    *,
    kind: str | None = None,
    business_id: UUID | None = None,
    provider_id: UUID | None = None,
    lead_id: UUID | None = None,
    event_id: str | None = None,
) -> tuple[TransferRow, ...]:
    """Return the transfers that match the filters, newest first."""
    return await fetch_rows(
        connection, SQL["list_transfers"], TransferRow, before, kind, business_id, provider_id, lead_id, event_id, limit
    )
