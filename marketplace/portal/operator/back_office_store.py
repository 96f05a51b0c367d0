"""The statements of the operator's back office as typed functions: one per query, over all tenants."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from billing.pricing import Payout
from marketplace.database.db import Connection, Queries, convert_many
from marketplace.runtime import ids
from marketplace.security import auth
from routing.quota import SuspensionReason
from routing.vertical import VerticalDefinition

SQL = Queries(__file__, "back_office_store.sql")

T = TypeVar("T", bound=msgspec.Struct)


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
    """When what works by itself last left a sign, and when the longest-waiting lead and assignment are due."""

    block: int | None
    sealed_at: datetime | None
    reports_at: datetime | None
    outcomes_at: datetime | None
    lead_due_at: datetime | None
    assignment_due_at: datetime | None


class WaitingCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many leads or assignments (`what`) wait in one state, and how many of them are due now."""

    what: str
    state: str
    waiting: int
    due: int


async def read_server(connection: Connection) -> DatabaseServer:
    return _one(await connection.fetchrow(SQL["read_server"]), DatabaseServer)


async def read_pulse(connection: Connection) -> ServiceActivity:
    return _one(await connection.fetchrow(SQL["read_pulse"]), ServiceActivity)


class BackgroundPass(msgspec.Struct, frozen=True, kw_only=True):
    """One background pass: when it last ran to its end, how long it took, and how often in a row it failed since."""

    name: str
    ended_at: datetime | None
    seconds: float | None
    failures: int
    failure: str | None


async def list_passes(connection: Connection) -> tuple[BackgroundPass, ...]:
    return await convert_many(await connection.fetch(SQL["list_passes"]), BackgroundPass)


async def count_waiting(connection: Connection) -> tuple[WaitingCount, ...]:
    return await convert_many(await connection.fetch(SQL["count_waiting"]), WaitingCount)


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
    """The end of the audit's chain, and how many rows wait to be sealed."""

    number: int | None
    sealed_at: datetime | None
    seal: str | None
    unsealed: int


async def list_audit(
    connection: Connection, before: UUID | None, limit: int, *, actor: str | None = None, object: str | None = None,
    action: str | None = None, since: datetime | None = None, until: datetime | None = None,
) -> tuple[AuditEntry, ...]:  # fmt: skip
    """`action` is a whole one or the part before its point."""
    rows = await connection.fetch(SQL["list_audit"], actor, object, action, since, until, before, limit)
    return await convert_many(rows, AuditEntry, lambda row: {**row, "detail": msgspec.json.decode(row["detail"])})


async def list_actor_names(connection: Connection, actors: Iterable[str]) -> dict[str, str]:
    """What people call the members and keys among `actors`."""
    wanted = set(actors)
    members = [found for actor in wanted if (found := ids.decode("mem", actor))]
    keys = [actor for actor in wanted if auth.is_key_id(actor)]
    rows = await connection.fetch(SQL["list_actor_names"], members, keys)
    named = {row["id"]: row["name"] for row in rows}
    return {ids.encode("mem", UUID(one)) if "-" in one else one: name for one, name in named.items()}


async def find_head(connection: Connection) -> ChainHead:
    return _one(await connection.fetchrow(SQL["find_head"]), ChainHead)


# Compliance.


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """What was suppressed at one moment: for how many phone numbers and addresses, why, and who asked."""

    reason: str
    source: str
    created_at: datetime
    keys: int


class SuppressedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A keyed hash that is suppressed."""

    key: bytes
    reason: str
    source: str
    created_at: datetime


async def list_suppressions(connection: Connection, before: datetime | None, limit: int) -> tuple[Suppression, ...]:
    return await convert_many(await connection.fetch(SQL["list_suppressions"], before, limit), Suppression)


async def count_suppressions(connection: Connection) -> int:
    return int(await connection.fetchval(SQL["count_suppressions"]))


async def find_suppressed(connection: Connection, keys: Sequence[bytes]) -> tuple[SuppressedKey, ...]:
    return await convert_many(await connection.fetch(SQL["find_suppressed"], keys), SuppressedKey)


# Deliveries.


class SuspendedSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription that a quota has suspended, by `counted` of `shown` leads."""

    id: UUID
    name: str
    business_id: UUID
    business: str
    vertical: str
    reason: SuspensionReason
    suspended_at: datetime
    counted: int
    shown: int


class TroubledEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that leads are kept from, and what its server did last."""

    id: UUID
    business_id: UUID
    business: str
    url: str | None
    state: str
    open_until: datetime | None
    waiting: int
    last_outcome: str | None
    last_reason: str | None
    last_status: int | None
    last_at: datetime | None


class PendingRetry(msgspec.Struct, frozen=True, kw_only=True):
    """An assignment that was tried and is to be tried again, or ends without evidence at `evidence_until`."""

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
    """One attempt at any business's door."""

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


class UnconfirmedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead that one business may have seen and that nobody will be charged for."""

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
    return await convert_many(await connection.fetch(SQL["list_troubled"], limit), TroubledEndpoint)


async def list_suspended(connection: Connection, limit: int) -> tuple[SuspendedSubscription, ...]:
    return await convert_many(await connection.fetch(SQL["list_suspended"], limit), SuspendedSubscription)


async def list_retries(connection: Connection, limit: int) -> tuple[PendingRetry, ...]:
    return await convert_many(await connection.fetch(SQL["list_retries"], limit), PendingRetry)


async def list_attempts(
    connection: Connection, before: UUID | None, limit: int, *, outcome: str | None, business_id: UUID | None,
    lead_id: UUID | None,
) -> tuple[AttemptRow, ...]:  # fmt: skip
    found = await connection.fetch(SQL["list_attempts"], before, outcome, business_id, lead_id, limit)
    return await convert_many(found, AttemptRow)


async def list_dead(connection: Connection, leads: Sequence[UUID]) -> tuple[UnconfirmedLead, ...]:
    """The last assignment of each of these leads, in this order."""
    return await convert_many(await connection.fetch(SQL["list_dead"], leads), UnconfirmedLead)


# Verticals.


class VerticalVersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a vertical: who made it, and when it came into force."""

    version: int
    definition: VerticalDefinition
    made_at: datetime
    made_by: str


async def list_versions(connection: Connection, vertical_id: UUID, limit: int) -> tuple[VerticalVersionRow, ...]:
    rows = await connection.fetch(SQL["list_versions"], vertical_id, limit)
    return tuple(
        VerticalVersionRow(
            version=row["version"], made_at=row["made_at"], made_by=row["made_by"],
            definition=msgspec.json.decode(row["definition"], type=VerticalDefinition),
        )
        for row in rows
    )  # fmt: skip


# Businesses and providers.


class BusinessRow(msgspec.Struct, frozen=True, kw_only=True):
    """A business with its money in minor units, how many live orders are active, and its last lead."""

    id: UUID
    name: str
    state: str
    zone: str
    created_at: datetime
    currency: str
    available_minor: int
    held_minor: int
    credit_limit_minor: int
    orders: int
    last_lead_at: datetime | None


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True):
    """A provider with what it is paid, how many live keys work, and its last lead."""

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


async def list_businesses(
    connection: Connection, before: UUID | None, limit: int, *, name: str | None = None, state: str | None = None,
    only: UUID | None = None,
) -> tuple[BusinessRow, ...]:  # fmt: skip
    """`name` is any part of it."""
    return await convert_many(
        await connection.fetch(SQL["list_businesses"], name, state, before, limit, only), BusinessRow
    )


async def list_providers(
    connection: Connection, before: UUID | None, limit: int, *, name: str | None = None, state: str | None = None,
    only: UUID | None = None,
) -> tuple[ProviderRow, ...]:  # fmt: skip
    """`name` is any part of it."""
    rows = await connection.fetch(SQL["list_providers"], name, state, before, limit, only)
    return await convert_many(rows, ProviderRow, lambda row: {**row, "payout": msgspec.json.decode(row["payout"])})


async def list_subscriptions(connection: Connection, business_id: UUID, limit: int) -> tuple[SubscriptionRow, ...]:
    return await convert_many(await connection.fetch(SQL["list_subscriptions"], business_id, limit), SubscriptionRow)


# Wallets.


class LowWallet(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet in minor units; `low_below_minor` is where its business wants to be told."""

    business_id: UUID
    business: str
    state: str
    currency: str
    available_minor: int
    held_minor: int
    credit_limit_minor: int
    low_below_minor: int | None


class WalletDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet whose cached figures are not the sums of its entries."""

    business_id: UUID
    business: str
    currency: str
    available_minor: int
    entries_available_minor: int
    held_minor: int
    entries_held_minor: int


class TransferRow(msgspec.Struct, frozen=True, kw_only=True):
    """One movement of money, with whose it is and the lead that it is for."""

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
    return await convert_many(await connection.fetch(SQL["list_low_wallets"], limit), LowWallet)


async def list_differences(connection: Connection) -> tuple[WalletDifference, ...]:
    """Every wallet recomputed from all its entries on one snapshot."""
    return await convert_many(await connection.fetch(SQL["list_differences"]), WalletDifference)


async def list_transfers(
    connection: Connection, before: UUID | None, limit: int, *, kind: str | None = None,
    business_id: UUID | None = None, provider_id: UUID | None = None, lead_id: UUID | None = None,
    event_id: str | None = None,
) -> tuple[TransferRow, ...]:  # fmt: skip
    rows = await connection.fetch(
        SQL["list_transfers"], before, kind, business_id, provider_id, lead_id, event_id, limit
    )
    return await convert_many(rows, TransferRow)


def _one(row: Any, shape: type[T]) -> T:
    return msgspec.convert(dict(row), shape)
