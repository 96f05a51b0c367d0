"""The statements of distribution as typed functions: one per query, no decision inside."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row, violated
from marketplace.runtime import clock
from routing.calendar import CapWindow, window_starts
from routing.decision import CandidateRecord, OpenLead, Wait
from routing.inquiry import Mode
from routing.lifecycle import LeadState
from routing.matching import Cap, CapsAndWallet, Usage
from routing.quota import SuspensionReason
from routing.ranking import Strategy
from routing.subscription import Subscription, SubscriptionDefinition

SQL = Queries(__file__)

OF_A_WALK: Final = (SQL["find_case"], SQL["list_standings"], SQL["award"])
"Statements that every lead needs; each new connection prepares them at its start."


class RoutingCase(OpenLead, frozen=True, kw_only=True):
    """An open lead as the database has it, and the version that the rules must have at least.

    `revision` is that of its facts: an award or a record of a decision about another one is not written.
    """

    due_at: datetime | None
    provider_id: UUID
    vertical_id: UUID
    mode: Mode
    revision: int
    catalog_version: int
    lists_serial: int | None = None
    "Number of the last change of the lists by which the person was checked."
    read_at: datetime
    "Time at which it was read, by the database's clock: the time of the decision about it."


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Record of one decision about a lead: its time, the versions of the rules, the outcome and the candidates.

    `revision` is that of the lead's facts: with those facts, and the rules of these versions, it can be repeated.
    """

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
    revision: int = 0


class AwardStatus(StrEnum):
    """Result of an award."""

    won = "won"
    "The claim is written."
    moved = "moved"
    "The lead has changed its state or its facts meanwhile, or its person may not be contacted any more."
    withdrawn = "withdrawn"
    "The subscription, its business or its endpoint has changed."
    own_customer = "own_customer"
    "The person is on the list of customers that the business has already."
    capped = "capped"
    "A cap is used up."
    unfunded = "unfunded"
    "The wallet no longer covers the price."


class AssignmentTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Parties, price and times of an assignment of one lead to one business."""

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
    lists_serial: int | None = None


class AwardExposure(msgspec.Struct, frozen=True, kw_only=True):
    """An exposure over a connection that is open already: hash of the URL, server, and the deadline for evidence."""

    url_sha256: bytes
    address: str
    tls_sha256: bytes | None
    evidence_until: datetime


class NewAssignment(AssignmentTerms, frozen=True, kw_only=True):
    """An assignment to be written if the award is won, counted in the windows of `window_starts`.

    `credits` are the changes of the credits of businesses, in billionths of a lead, if the strategy ranks by them. With
    an `exposure` the lead is exposed at once.
    """

    window_starts: Mapping[CapWindow, datetime]
    credits: Mapping[UUID, int] | None = None
    exposure: AwardExposure | None = None


class AwardWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window in which an award counts, and the most that it may hold; None is no limit."""

    cap_window: CapWindow
    starts_at: datetime
    most_count: int | None
    most_minor: int | None


class AwardRecord(AssignmentTerms, frozen=True, kw_only=True):
    """An award as `award_lead` reads it: the assignment, its windows, its hold and the decision, by name."""

    lead_state: LeadState
    hour_at: datetime
    day_at: datetime
    week_at: datetime
    month_at: datetime
    windows: tuple[AwardWindow, ...]
    hold_id: UUID
    decision_id: UUID
    vertical_version: int
    catalog_version: int
    strategy: str | None
    verdict: msgspec.Raw
    candidates: msgspec.Raw
    left_out: int
    revision: int
    credits: Mapping[UUID, int] | None = None
    exposure: AwardExposure | None = None


class LeadTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A lead at the head of its trace: its state, and its exposure if there is one."""

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
    joined_lead_id: UUID | None


class AttemptTrace(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery attempt with the duration of each phase in milliseconds."""

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


async def find_case(connection: Connection, lead_id: UUID) -> RoutingCase | None:
    return await find_row(connection, SQL["find_case"], RoutingCase, lead_id)


async def list_standings(
    connection: Connection, subscriptions: Iterable[Subscription], now: datetime, strategy: Strategy | None = None
) -> dict[UUID, CapsAndWallet]:
    """Return funds, usage of caps, and the credits that the strategy ranks by, by subscription. Nothing is locked."""
    listed = list(subscriptions)
    zones = {subscription.definition.zone for subscription in listed}
    by_zone = {zone: window_starts(now, zone) for zone in zones}
    windows = [
        (subscription.id, window, by_zone[subscription.definition.zone][window])
        for subscription in listed
        for window in {cap.window for cap in subscription.definition.caps}
    ]
    rows = await connection.fetch(
        SQL["list_standings"],
        [subscription.id for subscription in listed],
        [subscription_id for subscription_id, _, _ in windows],
        [window for _, window, _ in windows],
        [starts_at for _, _, starts_at in windows],
        strategy is Strategy.fair,
    )
    by_subscription: dict[UUID, list[asyncpg.Record]] = {}
    for row in rows:
        by_subscription.setdefault(row["subscription_id"], []).append(row)
    return {subscription_id: _standing(rows) for subscription_id, rows in by_subscription.items()}


CALENDAR: Final = (CapWindow.hour, CapWindow.day, CapWindow.week, CapWindow.month)
"Windows that begin anew, in the order of the statements' arguments; `total` begins at the epoch."


def _standing(rows: Sequence[asyncpg.Record]) -> CapsAndWallet:
    """Build the standing without msgspec: each candidate of a decision has one, and Postgres has checked the types."""
    row = rows[0]
    return CapsAndWallet(
        usage={
            CapWindow(row["cap_window"]): Usage(count=row["used_count"], amount_minor=row["used_minor"])
            for row in rows
            if row["cap_window"] is not None
        },
        available_minor=row["available_minor"],
        credit_limit_minor=row["credit_limit_minor"],
        share_credit=row.get("share_credit") or 0,
    )


async def award(
    connection: Connection, new: NewAssignment, caps: Iterable[Cap], decision: Decision, *, expected: LeadState
) -> AwardStatus:
    """Write the claim if the lead is in the `expected` state and no condition of the award has changed.

    The caps are those of the subscription's version that was ranked, as far as they are open at the award.
    """
    record = _award_record(new, caps, decision, expected)
    return AwardStatus(await connection.fetchval(SQL["award"], msgspec.json.encode(record)))


def _award_record(new: NewAssignment, caps: Iterable[Cap], decision: Decision, expected: LeadState) -> AwardRecord:
    limits = {cap.window: cap for cap in caps}
    starts = new.window_starts
    terms = {name: getattr(new, name) for name in AssignmentTerms.__struct_fields__}
    return AwardRecord(
        **terms,
        lead_state=expected,
        hour_at=starts[CapWindow.hour],
        day_at=starts[CapWindow.day],
        week_at=starts[CapWindow.week],
        month_at=starts[CapWindow.month],
        windows=tuple(_award_window(window, starts_at, limits.get(window)) for window, starts_at in starts.items()),
        hold_id=clock.new_id(),
        decision_id=decision.id,
        vertical_version=decision.vertical_version,
        catalog_version=decision.catalog_version,
        strategy=decision.strategy,
        verdict=msgspec.Raw(decision.verdict),
        candidates=msgspec.Raw(decision.candidates),
        left_out=decision.left_out,
        revision=decision.revision,
        credits=new.credits,
        exposure=new.exposure,
    )


def _award_window(window: CapWindow, starts_at: datetime, cap: Cap | None) -> AwardWindow:
    return AwardWindow(
        cap_window=window,
        starts_at=starts_at,
        most_count=cap.count if cap else None,
        most_minor=cap.amount_minor if cap else None,
    )


async def insert_kept_away(connection: Connection, lead_id: UUID, business_ids: Iterable[UUID], now: datetime) -> None:
    """Count a lead for businesses that would have been offered it, were its person not their customer."""
    await connection.execute(SQL["insert_kept_away"], lead_id, list(business_ids), now)


async def find_current(
    connection: Connection, ranked: Subscription, now: datetime
) -> tuple[Subscription, CapsAndWallet]:
    """Load a subscription and its standing as they are now, without a lock, to explain a lost award.

    Usage is that of the windows at `now` in the zone of the `ranked` version, in which the award would have counted.
    """
    starts = window_starts(now, ranked.definition.zone)
    rows = await connection.fetch(SQL["find_current"], ranked.id, *(starts[window] for window in CALENDAR))
    row = rows[0]
    current = msgspec.structs.replace(
        ranked,
        endpoint_id=row["endpoint_id"],
        version=row["version"],
        definition=msgspec.json.decode(row["definition"], type=SubscriptionDefinition),
        paused=row["state"] not in ("active", "suspended"),
        suspended=SuspensionReason(row["suspended_for"]) if row["state"] == "suspended" else None,
        business_active=row["business_state"] == "active",
        endpoint_active=row["endpoint_state"] == "active",
        breaker_open_until=row["breaker_open_until"],
    )
    return current, _standing(rows)


async def keep_lead(connection: Connection, case: RoutingCase, wait: Wait, decision: Decision) -> bool:
    """Let a lead wait, and record the decision. A lead that has changed its state is left as it is.

    Return whether its person's window could be extended as far as that; otherwise nothing is written.
    """
    arguments = _decision_arguments(case, wait.state, decision)
    waits_for = wait.waits_for or None
    try:
        await connection.execute(SQL["keep_lead"], *arguments, wait.until, wait.protected_until, waits_for)
    except asyncpg.ExclusionViolationError as error:
        if violated(error) != "person_window_once":
            raise
        return False
    return True


async def end_lead(connection: Connection, case: RoutingCase, state: LeadState, decision: Decision) -> None:
    """End a lead without a business, and record the decision. A lead that has changed its state is left as it is."""
    await connection.execute(SQL["end_lead"], *_decision_arguments(case, state, decision), decision.reason or state)


def _decision_arguments(case: RoutingCase, state: LeadState, decision: Decision) -> tuple[object, ...]:
    """Return the arguments that `keep_lead` and `end_lead` share, in their order."""
    return (
        case.lead_id, case.state, decision.made_at, state, decision.reason, decision.id, decision.outcome,
        decision.vertical_version, decision.catalog_version, decision.strategy, decision.verdict, decision.candidates,
        decision.left_out, decision.subscription_id, decision.assignment_id, decision.revision,
    )  # fmt: skip


async def mark_ended(connection: Connection, lead_id: UUID, state: LeadState, reason: str, now: datetime) -> None:
    await connection.execute(SQL["mark_ended"], lead_id, state, reason, now)


async def insert_decision(connection: Connection, decision: Decision) -> None:
    await connection.execute(SQL["insert_decision"], *msgspec.structs.astuple(decision))


async def list_decisions(connection: Connection, lead_id: UUID) -> tuple[Decision, ...]:
    return await fetch_rows(connection, SQL["list_decisions"], Decision, lead_id)


def read_candidates(text: bytes) -> tuple[CandidateRecord, ...]:
    """Return the candidates of a decision record."""
    return msgspec.json.decode(text, type=tuple[CandidateRecord, ...])


async def find_traced_lead(connection: Connection, lead_id: UUID) -> LeadTrace | None:
    return await find_row(connection, SQL["find_traced_lead"], LeadTrace, lead_id)


async def list_traced_attempts(
    connection: Connection, lead_id: UUID, business_id: UUID | None
) -> tuple[AttemptTrace, ...]:
    """Return the attempts of a lead in order: all of them, or those of one business."""
    return await fetch_rows(connection, SQL["list_traced_attempts"], AttemptTrace, lead_id, business_id)
