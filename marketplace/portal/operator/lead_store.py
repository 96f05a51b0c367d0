"""Queries about leads, decisions, waiting leads and returns as typed functions, one per statement."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row, load_row
from marketplace.directory.flow import SUPPRESSED_A_DAY
from marketplace.distribution.store import Decision
from marketplace.feedback.store import ReturnEvidence, find_first_delivered
from marketplace.runtime import clock
from routing.inquiry import Facts
from routing.journey import read_facts
from routing.qualification import Verdict
from routing.vertical import VerticalDefinition

SQL = Queries(__file__, "lead_store.sql")


class LeadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A lead with everything that the rules may read."""

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
    revision: int
    facts: Facts
    business_id: UUID | None
    exposed_at: datetime | None


class RecentDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One recent decision about a lead, made `seconds` after the lead was received."""

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
    """A subscription's name, and its business."""

    id: UUID
    name: str
    business_id: UUID
    business: str


class VerticalVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a vertical's rules."""

    version: int
    definition: VerticalDefinition
    made_at: datetime
    made_by: str


class WaitingLead(msgspec.Struct, frozen=True, kw_only=True):
    """A prospect that no business can take yet: the times of the next decision and of the last."""

    id: UUID
    reason: str | None
    due_at: datetime
    ends_at: datetime
    received_at: datetime
    qualified_at: datetime | None
    vertical: str
    postal_code: str | None


class RecentIntake(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of leads accepted, qualified and routed since some time."""

    accepted: int
    qualified: int
    routed: int


UNUSUALLY_MANY: Final = SUPPRESSED_A_DAY // 2
"Suppressions by one provider in 24 hours from which the overview warns the operator."


class Alarms(msgspec.Struct, frozen=True, kw_only=True):
    """Figures that need an operator's attention.

    `failing`: endpoints paused after failures, of `endpoints` active. `poor`: businesses whose wallet does not cover
    one lead. `waiting`: prospects that no business can take. `returns`: returns to decide. `suppressing`: providers
    that suppressed unusually many people in the last 24 hours. `set_aside`: work set aside after failures. `cards`:
    verticals whose scorecard is suspended. `notices`: notices that a business did not acknowledge in time.
    `deletions`: deletion requests that have not ended by their deadline. `answers`: endpoints with an open alarm about
    their answers.
    """

    failing: int
    endpoints: int
    answers: int
    poor: int
    waiting: int
    returns: int
    suppressing: int
    set_aside: int
    cards: int
    notices: int
    deletions: int
    overdue_seconds: float


class ReturnRequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """A business's request to return one lead, with the names of the business and the provider."""

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


class SharedPayout(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a payout that one provider was paid, in minor units."""

    provider: str
    amount_minor: int


class ReturnRequestDetail(ReturnRequestRow, frozen=True, kw_only=True):
    """A return request with the facts of its lead and the verdict that was delivered with it.

    `shares` are those of the payout; empty if the provider of the lead was paid all of it.
    """

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
    shares: tuple[SharedPayout, ...]

    @property
    def payouts(self) -> tuple[tuple[str, int], ...]:
        """The providers that were paid for the lead, each with its amount in minor units."""
        if not self.shares:
            return ((self.provider, self.payout_minor),)
        return tuple((share.provider, share.amount_minor) for share in self.shares)


class ReturnHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Recently delivered leads of a business or a provider: returns requested, granted and denied."""

    delivered: int
    requested: int
    granted: int
    denied: int


class DispositionLine(msgspec.Struct, frozen=True, kw_only=True):
    """One disposition that the business reported."""

    kind: str
    reason: str | None
    happened_at: datetime
    source: str


class LeadAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to deliver a lead."""

    attempt_no: int
    started_at: datetime
    outcome: str
    reason: str
    status: int | None
    total_ms: float


# One lead.


async def find_lead(connection: Connection, lead_id: UUID) -> LeadRecord | None:
    """Return the lead, or None."""
    return next(iter(await list_leads(connection, [lead_id])), None)


async def list_leads(connection: Connection, leads: Sequence[UUID]) -> tuple[LeadRecord, ...]:
    """Return the leads that exist, in any order."""
    return await fetch_rows(connection, SQL["list_leads"], LeadRecord, list(leads))


async def find_by_reference(connection: Connection, reference: str) -> UUID | None:
    """Return the id of the latest lead that a provider sent with this reference, or None."""
    lead_id: UUID | None = await connection.fetchval(SQL["find_by_reference"], reference)
    return lead_id


async def list_latest_leads(connection: Connection, limit: int) -> tuple[RecentDecision, ...]:
    """Return the latest decisions, newest first."""
    return await fetch_rows(connection, SQL["list_latest_leads"], RecentDecision, limit)


async def list_decisions(connection: Connection, lead_id: UUID) -> tuple[Decision, ...]:
    """Return the decisions about a lead, oldest first."""
    return await fetch_rows(connection, SQL["list_decisions"], Decision, lead_id)


async def list_last_decisions(connection: Connection, leads: Sequence[UUID]) -> dict[UUID, LastDecision]:
    """Return the latest decision about each of the leads, by lead."""
    decisions = await fetch_rows(connection, SQL["list_last_decisions"], LastDecision, list(leads))
    return {decision.lead_id: decision for decision in decisions}


async def list_subscriptions(connection: Connection, subscriptions: Iterable[UUID]) -> dict[UUID, SubscriptionName]:
    """Return the names of the subscriptions, by subscription."""
    names = await fetch_rows(connection, SQL["list_subscriptions"], SubscriptionName, list(subscriptions))
    return {name.id: name for name in names}


async def list_vertical_versions(connection: Connection, vertical_id: UUID) -> tuple[VerticalVersion, ...]:
    """Return the versions of a vertical, newest first."""
    return await fetch_rows(connection, SQL["list_vertical_versions"], VerticalVersion, vertical_id)


# Waiting leads.


async def list_waiting(connection: Connection, mode: str, limit: int) -> tuple[WaitingLead, ...]:
    """Return the waiting leads, the soonest due first."""
    return await fetch_rows(connection, SQL["list_waiting"], WaitingLead, mode, limit, None)


async def list_these_waiting(connection: Connection, leads: Collection[UUID]) -> tuple[WaitingLead, ...]:
    """Return those of the leads that still wait, live and test."""
    return await fetch_rows(connection, SQL["list_waiting"], WaitingLead, None, len(leads), list(leads))


async def load_facts(connection: Connection, lead_id: UUID, revision: int) -> Facts:
    """Return the facts of a lead at one revision."""
    return read_facts(await connection.fetchval(SQL["find_facts"], lead_id, revision))


async def list_facts(connection: Connection, leads: Sequence[UUID]) -> dict[UUID, Facts]:
    """Return the facts of the leads, by lead."""
    rows = await connection.fetch(SQL["list_facts"], list(leads))
    return {row["id"]: read_facts(row["facts"]) for row in rows}


async def mark_due(connection: Connection, due: Mapping[UUID, datetime]) -> tuple[UUID, ...]:
    """Set the time of the next decision of each waiting lead, and return the leads that were changed."""
    return tuple(row["id"] for row in await connection.fetch(SQL["mark_due"], list(due), list(due.values())))


# The overview.


async def count_fresh(connection: Connection, since: datetime) -> RecentIntake:
    """Return the numbers of live leads received since `since`."""
    return await load_row(connection, SQL["count_fresh"], RecentIntake, clock.id_bound(since))


async def list_arrivals(connection: Connection, limit: int) -> tuple[datetime, ...]:
    """Return the times of the latest accepted live leads, newest first."""
    return tuple(row["received_at"] for row in await connection.fetch(SQL["list_arrivals"], limit))


async def read_alarms(connection: Connection, now: datetime) -> Alarms:
    """Return the figures that need attention at `now`."""
    return await load_row(connection, SQL["read_alarms"], Alarms, now, UNUSUALLY_MANY)


# Returns.


async def list_returns(
    connection: Connection, state: str | None, reason: str | None, after: UUID | None, limit: int, *, oldest_first: bool
) -> tuple[ReturnRequestRow, ...]:
    """Return the return requests that match the filters, after `after` in the order."""
    return await fetch_rows(
        connection, SQL["list_returns"], ReturnRequestRow, state, reason, after, oldest_first, limit
    )


async def find_return(connection: Connection, return_id: UUID) -> ReturnRequestDetail | None:
    """Return the return request with its lead, or None."""
    return await find_row(connection, SQL["find_return"], ReturnRequestDetail, return_id)


async def count_returns(
    connection: Connection, business_id: UUID, provider_id: UUID, since: datetime
) -> tuple[ReturnHistory, ReturnHistory]:
    """Return the history of the business and that of the provider, of leads delivered since `since`."""
    first, ids_since = find_first_delivered(since), clock.id_bound(since, clock.ID_EARLY_SECONDS)
    return (
        await load_row(connection, SQL["count_business_returns"], ReturnHistory, business_id, since, first),
        await load_row(connection, SQL["count_provider_returns"], ReturnHistory, provider_id, since, ids_since),
    )


async def list_dispositions(connection: Connection, assignment_id: UUID) -> tuple[DispositionLine, ...]:
    """Return the dispositions of an assignment, oldest first."""
    return await fetch_rows(connection, SQL["list_dispositions"], DispositionLine, assignment_id)


async def list_attempts(connection: Connection, assignment_id: UUID) -> tuple[LeadAttempt, ...]:
    """Return the first attempts to deliver an assignment, oldest first."""
    return await fetch_rows(connection, SQL["list_attempts"], LeadAttempt, assignment_id)
