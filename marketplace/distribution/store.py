"""The statements of distribution as typed functions: one per query, no decision inside."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from marketplace import clock
from marketplace.db import Connection, Queries
from routing.awarding import Terms
from routing.calendar import CapWindow, window_starts
from routing.decision import CandidateRecord, OpenLead
from routing.inquiry import Facts, Mode
from routing.lifecycle import LeadState
from routing.matching import Cap, Standing, Usage
from routing.subscription import Definition, Subscription

SQL = Queries(__file__)

OF_A_WALK: Final = (SQL["find_case"], SQL["list_standings"], SQL["award"])
"What every lead needs, and what a new connection may as well know before."


class Case(OpenLead, frozen=True, kw_only=True):
    """An open lead as the database has it, and the version that the rules must have at least."""

    due_at: datetime | None
    provider_id: UUID
    vertical_id: UUID
    mode: Mode
    catalog_version: int
    read_at: datetime
    "Time at which it was read, by the database's clock: the time of the decision about it."


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


class Claim(StrEnum):
    """How far an award came."""

    won = "won"
    "The claim is written."
    moved = "moved"
    "Somebody else has decided about the lead meanwhile."
    withdrawn = "withdrawn"
    "The subscription, its business or its endpoint is not what it was."
    capped = "capped"
    "A cap has no room any more."
    unfunded = "unfunded"
    "The wallet does not cover the price any more."


class NewAssignment(msgspec.Struct, frozen=True, kw_only=True):
    """The claim of one business on one lead, as it is written at the award: counted in the windows that began then."""

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
    window_starts: Mapping[CapWindow, datetime]


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
    """Funds, last award, and what is used of the day and of each cap, as they stand now; nothing is locked."""
    asked = list(subscriptions)
    zones = {subscription.definition.zone for subscription in asked}
    by_zone = {zone: window_starts(now, zone) for zone in zones}
    windows = [
        (subscription.id, window, by_zone[subscription.definition.zone][window])
        for subscription in asked
        for window in {CapWindow.day, *(cap.window for cap in subscription.definition.caps)}
    ]
    rows = await connection.fetch(
        SQL["list_standings"],
        [subscription.id for subscription in asked],
        [subscription_id for subscription_id, _, _ in windows],
        [window for _, window, _ in windows],
        [starts_at for _, _, starts_at in windows],
    )
    by_subscription: dict[UUID, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_subscription.setdefault(row["subscription_id"], []).append(row)
    return {subscription_id: _standing(found) for subscription_id, found in by_subscription.items()}


CALENDAR: Final = (CapWindow.hour, CapWindow.day, CapWindow.week, CapWindow.month)
"The windows that begin at some time of day, in the order of the statements' arguments; `total` always began."


def _standing(rows: Sequence[Mapping[str, Any]]) -> Standing:
    """Built by hand: a decision reads one of these for each of its candidates, and Postgres has checked the types."""
    row = rows[0]
    return Standing(
        usage={
            CapWindow(row["cap_window"]): Usage(count=row["used_count"], amount_minor=row["used_minor"])
            for row in rows
            if row["cap_window"] is not None
        },
        available_minor=row["available_minor"],
        credit_limit_minor=row["credit_limit_minor"],
        last_awarded_at=row.get("last_awarded_at"),
    )


async def award(
    connection: Connection, new: NewAssignment, caps: Iterable[Cap], decision: Decision, *,
    expected: Sequence[LeadState], cover_minor: int | None,
) -> Claim:  # fmt: skip
    """The claim, written only if the lead is in one of the `expected` states, the subscription still as it was ranked,
    its caps with room, and the wallet covering `cover_minor`."""
    limits = {cap.window: cap for cap in caps}
    return Claim(await connection.fetchval(
        SQL["award"], new.lead_id, expected, new.id, new.business_id, new.subscription_id, new.subscription_version,
        new.endpoint_id, new.provider_id, new.mode, new.price_minor, new.payout_minor, new.currency, cover_minor,
        new.awarded_at, new.due_at, new.hold_until, [new.window_starts[window] for window in CapWindow],
        [limits[window].count if window in limits else None for window in CapWindow],
        [limits[window].amount_minor if window in limits else None for window in CapWindow],
        clock.new_id(), decision.id, decision.vertical_version, decision.catalog_version, decision.strategy,
        decision.verdict, decision.candidates, decision.left_out,
    ))  # fmt: skip


async def find_terms(connection: Connection, subscription: Subscription, now: datetime) -> Terms:
    """What a lost award was lost to; usage in the windows of the known version's zone."""
    starts = window_starts(now, subscription.definition.zone)
    rows = await connection.fetch(SQL["find_terms"], subscription.id, *(starts[window] for window in CALENDAR))
    row = rows[0]
    definition = msgspec.json.decode(row["definition"], type=Definition)
    return Terms(
        version=row["version"],
        paused=row["state"] != "active",
        suspended=row["state"] == "suspended",
        business_active=row["business_state"] == "active",
        endpoint_active=row["endpoint_state"] == "active",
        breaker_open_until=row["breaker_open_until"],
        price_minor=definition.price_minor,
        currency=definition.currency,
        caps=definition.caps,
        zone=definition.zone,
        standing=_standing(rows),
    )


async def keep_lead(
    connection: Connection, case: Case, state: LeadState, due_at: datetime, decision: Decision,
    protected_until: datetime | None = None,
) -> None:  # fmt: skip
    """Looked at again when its time comes; nothing happens to a lead that somebody else has moved meanwhile."""
    await connection.execute(SQL["keep_lead"], *_decided(case, state, decision), due_at, protected_until)


async def end_lead(connection: Connection, case: Case, state: LeadState, decision: Decision) -> None:
    """Over, and why; nothing happens to a lead that somebody else has moved meanwhile."""
    await connection.execute(SQL["end_lead"], *_decided(case, state, decision), decision.reason or state)


def _decided(case: Case, state: LeadState, decision: Decision) -> tuple[object, ...]:
    """In the order of the two statements that leave a lead without a business."""
    return (
        case.lead_id, case.state, decision.made_at, state, decision.reason, decision.id, decision.outcome,
        decision.vertical_version, decision.catalog_version, decision.strategy, decision.verdict, decision.candidates,
        decision.left_out, decision.subscription_id, decision.assignment_id,
    )  # fmt: skip


async def mark_ended(connection: Connection, lead_id: UUID, state: LeadState, reason: str, now: datetime) -> None:
    await connection.execute(SQL["mark_ended"], lead_id, state, reason, now)


async def insert_decision(connection: Connection, decision: Decision) -> None:
    await connection.execute(SQL["insert_decision"], *msgspec.structs.astuple(decision))


async def list_decisions(connection: Connection, lead_id: UUID) -> tuple[Decision, ...]:
    rows = await connection.fetch(SQL["list_decisions"], lead_id)
    return tuple(Decision(lead_id=lead_id, **dict(row)) for row in rows)


def read_candidates(text: bytes) -> tuple[CandidateRecord, ...]:
    """Return the candidates of a decision record."""
    return msgspec.json.decode(text, type=tuple[CandidateRecord, ...])


async def find_traced_lead(connection: Connection, lead_id: UUID) -> TracedLead | None:
    row = await connection.fetchrow(SQL["find_traced_lead"], lead_id)
    return msgspec.convert(dict(row), TracedLead) if row else None


async def list_traced_attempts(
    connection: Connection, lead_id: UUID, business_id: UUID | None
) -> tuple[TracedAttempt, ...]:
    """All attempts, or one business's."""
    rows = await connection.fetch(SQL["list_traced_attempts"], lead_id, business_id)
    return tuple(msgspec.convert(dict(row), TracedAttempt) for row in rows)
