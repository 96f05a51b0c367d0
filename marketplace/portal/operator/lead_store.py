"""The statements of the trading floor as typed functions: leads and decisions, what waits, what is given back."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, convert_many, convert_rows
from marketplace.directory.flow import SUPPRESSED_A_DAY
from marketplace.distribution.store import Decision
from marketplace.feedback.store import ReturnEvidence
from marketplace.runtime import clock
from routing.inquiry import Facts
from routing.qualification import Verdict
from routing.vertical import VerticalDefinition

SQL = Queries(__file__, "lead_store.sql")

T = TypeVar("T", bound=msgspec.Struct)


class LeadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A lead and everything that rules may read of it."""

    lead_id: UUID
    state: str
    reason: str | None
    due_at: datetime | None
    received_at: datetime
    qualified_at: datetime | None
    settled_at: datetime | None
    mode: str
    provider_id: UUID
    provider: str
    vertical_id: UUID
    vertical: str
    provider_reference: str | None
    facts: Facts
    business_id: UUID | None
    exposed_at: datetime | None


class RecentDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One recent decision: what was decided about a lead. `seconds` are those since it was received."""

    lead_id: UUID
    made_at: datetime
    outcome: str
    reason: str | None
    vertical: str
    postal_code: str | None
    score: int
    weighed: int
    eligible: int
    winner: str | None
    mode: str
    seconds: float


class LastDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The latest decision about a lead, with its candidates as they were recorded."""

    lead_id: UUID
    made_at: datetime
    vertical_version: int
    candidates: bytes
    left_out: int


class SubscriptionName(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription as people speak of it."""

    id: UUID
    name: str
    business_id: UUID
    business: str


class VerticalVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a market's rules."""

    version: int
    definition: VerticalDefinition
    made_at: datetime
    made_by: str


class WaitingLead(msgspec.Struct, frozen=True, kw_only=True):
    """A prospect that nobody can take yet: when it is looked at again, and when for the last time."""

    id: UUID
    reason: str | None
    due_at: datetime
    ends_at: datetime
    received_at: datetime
    qualified_at: datetime | None
    vertical: str
    postal_code: str | None


class RecentIntake(msgspec.Struct, frozen=True, kw_only=True):
    """What has come in lately, and how far it came."""

    accepted: int
    qualified: int
    routed: int


UNUSUALLY_MANY: Final = SUPPRESSED_A_DAY // 2
"Phone numbers and addresses that a provider suppressed in 24 hours, from which on an operator is told."


class Alarms(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator would be woken for.

    `poor`: businesses whose wallet does not cover one lead. `suppressing`: providers that have suppressed unusually
    many people in the last 24 hours.
    """

    failing: int
    endpoints: int
    poor: int
    waiting: int
    returns: int
    suppressing: int
    set_aside: int
    overdue_seconds: float


class ReturnRequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """A business's request to give one lead back, with both sides' names."""

    id: UUID
    lead_id: UUID
    reason: str
    note: str | None
    state: str
    requested_at: datetime
    judged_at: datetime | None
    judged_by: str | None
    finding: str | None
    mode: str
    price_minor: int
    payout_minor: int
    currency: str
    business_id: UUID
    business: str
    provider_id: UUID
    provider: str
    vertical: str
    delivered_at: datetime | None


class ReturnRequestDetail(ReturnRequestRow, frozen=True, kw_only=True):
    """The same with the facts of its lead and the verdict that was shipped."""

    assignment_id: UUID
    evidence: ReturnEvidence
    received_at: datetime
    awarded_at: datetime
    exposed_at: datetime | None
    facts: Facts
    verdict: Verdict | None
    subscription: str
    channel: str | None
    erased: bool


class ReturnHistory(msgspec.Struct, frozen=True, kw_only=True):
    """How one party's delivered leads fared lately: how many were asked to be taken back, and what was found."""

    delivered: int
    asked: int
    granted: int
    denied: int


class DispositionLine(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the business told of the lead."""

    kind: str
    reason: str | None
    happened_at: datetime
    source: str


class LeadAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to deliver it."""

    attempt_no: int
    started_at: datetime
    outcome: str
    reason: str
    status: int | None
    total_ms: float


def _decoded(row: Any, **json: Any) -> dict[str, Any]:
    fields = dict(row)
    for name, kind in json.items():
        fields[name] = None if fields[name] is None else msgspec.json.decode(fields[name], type=kind)
    return fields


# One lead.


async def find_lead(connection: Connection, lead_id: UUID) -> LeadRecord | None:
    return next(iter(await list_leads(connection, [lead_id])), None)


async def list_leads(connection: Connection, leads: Sequence[UUID]) -> tuple[LeadRecord, ...]:
    """In any order."""
    rows = await connection.fetch(SQL["list_leads"], list(leads))
    return tuple(msgspec.convert(_decoded(row, facts=Facts), LeadRecord) for row in rows)


async def find_by_reference(connection: Connection, reference: str) -> UUID | None:
    found: UUID | None = await connection.fetchval(SQL["find_by_reference"], reference)
    return found


async def list_latest_leads(connection: Connection, limit: int) -> tuple[RecentDecision, ...]:
    """Newest decision first."""
    return await convert_many(await connection.fetch(SQL["list_latest_leads"], limit), RecentDecision)


async def list_decisions(connection: Connection, lead_id: UUID) -> tuple[Decision, ...]:
    """In the order in which they were made."""
    rows = await connection.fetch(SQL["list_decisions"], lead_id)
    return tuple(Decision(lead_id=lead_id, **dict(row)) for row in rows)


async def list_last_decisions(connection: Connection, leads: Sequence[UUID]) -> dict[UUID, LastDecision]:
    """By lead."""
    rows = await connection.fetch(SQL["list_last_decisions"], list(leads))
    return {row["lead_id"]: LastDecision(**dict(row)) for row in rows}


async def list_subscriptions(connection: Connection, subscriptions: Iterable[UUID]) -> dict[UUID, SubscriptionName]:
    """By subscription."""
    return {
        one.id: one
        for one in convert_rows(
            await connection.fetch(SQL["list_subscriptions"], list(subscriptions)), SubscriptionName
        )
    }


async def list_vertical_versions(connection: Connection, vertical_id: UUID) -> tuple[VerticalVersion, ...]:
    """Newest first."""
    rows = await connection.fetch(SQL["list_vertical_versions"], vertical_id)
    return tuple(msgspec.convert(_decoded(row, definition=VerticalDefinition), VerticalVersion) for row in rows)


# What waits.


async def list_waiting(connection: Connection, mode: str, limit: int) -> tuple[WaitingLead, ...]:
    """Those looked at soonest first."""
    return await convert_many(await connection.fetch(SQL["list_waiting"], mode, limit, None), WaitingLead)


async def list_these_waiting(connection: Connection, leads: Collection[UUID]) -> tuple[WaitingLead, ...]:
    """Those of them that still wait, of either mode."""
    return await convert_many(await connection.fetch(SQL["list_waiting"], None, len(leads), list(leads)), WaitingLead)


async def list_facts(connection: Connection, leads: Sequence[UUID]) -> dict[UUID, Facts]:
    """By lead."""
    rows = await connection.fetch(SQL["list_facts"], list(leads))
    return {row["id"]: msgspec.json.decode(row["facts"], type=Facts) for row in rows}


async def mark_due(connection: Connection, due: Mapping[UUID, datetime]) -> tuple[UUID, ...]:
    """Those that were still waiting, and are looked at next when `due` says."""
    return tuple(row["id"] for row in await connection.fetch(SQL["mark_due"], list(due), list(due.values())))


# The control room.


async def count_fresh(connection: Connection, since: datetime) -> RecentIntake:
    return msgspec.convert(dict(await connection.fetchrow(SQL["count_fresh"], clock.id_bound(since))), RecentIntake)


async def list_arrivals(connection: Connection, limit: int) -> tuple[datetime, ...]:
    """Newest first."""
    return tuple(row["received_at"] for row in await connection.fetch(SQL["list_arrivals"], limit))


async def read_alarms(connection: Connection, now: datetime) -> Alarms:
    return msgspec.convert(dict(await connection.fetchrow(SQL["read_alarms"], now, UNUSUALLY_MANY)), Alarms)


# The returns desk.


async def list_returns(
    connection: Connection, state: str | None, reason: str | None, after: UUID | None, limit: int, *, oldest_first: bool
) -> tuple[ReturnRequestRow, ...]:
    rows = await connection.fetch(SQL["list_returns"], state, reason, after, oldest_first, limit)
    return await convert_many(rows, ReturnRequestRow)


async def find_return(connection: Connection, return_id: UUID) -> ReturnRequestDetail | None:
    row = await connection.fetchrow(SQL["find_return"], return_id)
    if row is None:
        return None
    return msgspec.convert(_decoded(row, facts=Facts, verdict=Verdict, evidence=ReturnEvidence), ReturnRequestDetail)


async def count_returns(
    connection: Connection, business_id: UUID, provider_id: UUID, since: datetime
) -> tuple[ReturnHistory, ReturnHistory]:
    """How leads delivered since then fared: those of the business, and those of the provider."""
    ours = await connection.fetchrow(SQL["count_business_returns"], business_id, since)
    theirs = await connection.fetchrow(
        SQL["count_provider_returns"], provider_id, since, clock.id_bound(since, clock.ID_EARLY_SECONDS)
    )
    return msgspec.convert(dict(ours), ReturnHistory), msgspec.convert(dict(theirs), ReturnHistory)


async def list_dispositions(connection: Connection, assignment_id: UUID) -> tuple[DispositionLine, ...]:
    return await convert_many(await connection.fetch(SQL["list_dispositions"], assignment_id), DispositionLine)


async def list_attempts(connection: Connection, assignment_id: UUID) -> tuple[LeadAttempt, ...]:
    return await convert_many(await connection.fetch(SQL["list_attempts"], assignment_id), LeadAttempt)
