"""The statements of distribution as typed functions: one per query, no decision inside."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from marketplace.db import Connection, Queries
from routing.awarding import Award, Terms
from routing.calendar import CapWindow, window_starts
from routing.inquiry import Facts
from routing.lifecycle import LeadState
from routing.matching import Cap, Standing, Usage
from routing.subscription import Definition, Subscription

SQL = Queries(__file__)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One lead as a decision reads it, and the version that the rules must have at least."""

    lead_id: UUID
    state: LeadState
    due_at: datetime | None
    received_at: datetime
    qualified_at: datetime | None
    provider_id: UUID
    vertical_id: UUID
    mode: str
    facts: Facts
    tried: frozenset[UUID]
    catalog_version: int
    withdrawn: bool


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about a lead at one moment, by which rules, with everything that was weighed."""

    id: UUID
    lead_id: UUID
    made_at: datetime
    outcome: str
    reason: str | None
    vertical_version: int
    catalog_version: int
    strategy: str | None
    verdict: bytes
    candidates: bytes
    left_out: int
    subscription_id: UUID | None = None
    assignment_id: UUID | None = None


class NewAssignment(msgspec.Struct, frozen=True, kw_only=True):
    """The claim of one business on one lead, as it is written at the award."""

    id: UUID
    lead_id: UUID
    business_id: UUID
    subscription_id: UUID
    subscription_version: int
    endpoint_id: UUID
    provider_id: UUID
    mode: str
    price_minor: int
    payout_minor: int
    currency: str
    due_at: datetime
    awarded_at: datetime
    hold_until: datetime


class TracedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead as a trace begins: where it stands, and who was shown the contact."""

    provider_id: UUID
    mode: str
    vertical: str
    state: LeadState
    reason: str | None
    received_at: datetime
    settled_at: datetime | None
    business_id: UUID | None
    channel: str | None
    exposed_at: datetime | None


class TracedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery attempt and where its time went, in milliseconds."""

    attempt_no: int
    started_at: datetime
    outcome: str
    reason: str
    status: int | None
    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    expose_ms: float | None
    first_byte_ms: float | None
    total_ms: float


async def find_case(connection: Connection, lead_id: UUID) -> Case | None:
    row = await connection.fetchrow(SQL["find_case"], lead_id)
    if row is None:
        return None
    fields = dict(row)
    fields["facts"] = msgspec.json.decode(fields["facts"], type=Facts)
    return msgspec.convert({**fields, "lead_id": lead_id, "tried": frozenset(fields["tried"])}, Case)


async def list_standings(
    connection: Connection, subscriptions: Iterable[Subscription], now: datetime
) -> dict[UUID, Standing]:
    """Caps, funds and last award of each subscription as they stand now; nothing is locked."""
    asked = list(subscriptions)
    zones = {subscription.definition.zone for subscription in asked}
    by_zone = {zone: window_starts(now, zone) for zone in zones}
    starts = [by_zone[subscription.definition.zone] for subscription in asked]
    rows = await connection.fetch(
        SQL["list_standings"],
        [subscription.id for subscription in asked],
        *([start[window] for start in starts] for window in _CALENDAR),
    )
    by_subscription: dict[UUID, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_subscription.setdefault(row["subscription_id"], []).append(row)
    return {subscription_id: _standing(found) for subscription_id, found in by_subscription.items()}


_CALENDAR = (CapWindow.hour, CapWindow.day, CapWindow.week, CapWindow.month)


def _standing(rows: list[Mapping[str, Any]]) -> Standing:
    return msgspec.convert({
        "usage": _usage(rows),
        "available_minor": rows[0]["available_minor"],
        "credit_limit_minor": rows[0]["credit_limit_minor"],
        "last_awarded_at": rows[0].get("last_awarded_at"),
    }, Standing)  # fmt: skip


def _usage(rows: Iterable[Mapping[str, Any]]) -> dict[CapWindow, Usage]:
    return {
        CapWindow(row["cap_window"]): msgspec.convert(
            {"count": row["used_count"], "amount_minor": row["used_minor"]}, Usage
        )
        for row in rows
        if row["cap_window"] is not None
    }


async def lock_lead(connection: Connection, lead_id: UUID) -> LeadState:
    return LeadState(await connection.fetchval(SQL["lock_lead"], lead_id))


async def take_lead(connection: Connection, case: Case, now: datetime) -> bool:
    """The lead's lock, and the move to prospect; False when somebody else has moved it meanwhile."""
    return await connection.fetchval(SQL["take_lead"], case.lead_id, case.state, now) is not None


async def lock_terms(connection: Connection, subscription: Subscription, now: datetime) -> Terms:
    """The subscription's and the wallet's locks, in that order, and the rows as they stand under them.

    Usage is read for the windows of the known version's zone; a newer version loses the award before usage counts.
    """
    await connection.execute(SQL["lock_subscription"], subscription.id)
    starts = window_starts(now, subscription.definition.zone)
    rows = await connection.fetch(
        SQL["lock_terms"], subscription.business_id, subscription.id, *(starts[window] for window in _CALENDAR)
    )
    row = rows[0]
    definition = msgspec.json.decode(row["definition"], type=Definition)
    return Terms(
        version=row["version"],
        paused=row["state"] != "active",
        business_active=row["business_state"] == "active",
        endpoint_active=row["endpoint_state"] == "active",
        breaker_open_until=row["breaker_open_until"],
        price_minor=definition.price_minor,
        currency=definition.currency,
        caps=definition.caps,
        zone=definition.zone,
        standing=_standing(rows),
    )


async def write_award(connection: Connection, new: NewAssignment, award: Award, caps: Iterable[Cap]) -> None:
    """Raises asyncpg's CheckViolationError rather than pass a cap."""
    limits = {cap.window: cap for cap in caps}
    await connection.execute(
        SQL["write_award"], new.id, new.lead_id, new.business_id, new.subscription_id, new.subscription_version,
        new.endpoint_id, new.provider_id, new.currency, new.price_minor, new.payout_minor, new.due_at, new.awarded_at,
        new.hold_until, *(award.window_starts[window] for window in _CALENDAR), new.mode == "live",
        [limits[window].count if window in limits else None for window in CapWindow],
        [limits[window].amount_minor if window in limits else None for window in CapWindow],
    )  # fmt: skip


async def mark_waiting(
    connection: Connection, lead_id: UUID, state: LeadState, due_at: datetime, reason: str | None
) -> None:
    await connection.execute(SQL["mark_waiting"], lead_id, state, due_at, reason)


async def mark_ended(connection: Connection, lead_id: UUID, state: LeadState, reason: str, now: datetime) -> None:
    await connection.execute(SQL["mark_ended"], lead_id, state, reason, now)


async def extend_windows(connection: Connection, lead_id: UUID, until: datetime) -> None:
    await connection.execute(SQL["extend_windows"], lead_id, until)


async def insert_decision(connection: Connection, decision: Decision) -> None:
    await connection.execute(SQL["insert_decision"], *msgspec.structs.astuple(decision))


async def list_decisions(connection: Connection, lead_id: UUID) -> tuple[Decision, ...]:
    rows = await connection.fetch(SQL["list_decisions"], lead_id)
    return tuple(Decision(lead_id=lead_id, **dict(row)) for row in rows)


async def find_traced_lead(connection: Connection, lead_id: UUID) -> TracedLead | None:
    row = await connection.fetchrow(SQL["find_traced_lead"], lead_id)
    return msgspec.convert(dict(row), TracedLead) if row else None


async def list_traced_attempts(
    connection: Connection, lead_id: UUID, business_id: UUID | None
) -> tuple[TracedAttempt, ...]:
    """All attempts, or one business's."""
    rows = await connection.fetch(SQL["list_traced_attempts"], lead_id, business_id)
    return tuple(msgspec.convert(dict(row), TracedAttempt) for row in rows)
