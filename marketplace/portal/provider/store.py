"""Queries of a provider's pages as typed functions; each is confined to the provider."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows
from marketplace.directory.posting import PastVersion
from marketplace.feedback.store import ReturnEvidence
from routing.lifecycle import LeadState
from routing.qualification import Verdict

SQL = Queries(__file__)

T = TypeVar("T", bound=msgspec.Struct)


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A submission as its provider may see it; `payout_minor` is net of claw-backs, in minor units."""

    id: UUID
    state: LeadState
    reason: str | None
    vertical: str
    provider_reference: str | None
    received_at: datetime
    payout_minor: int | None
    currency: str | None


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """A payout, or with a negative amount a claw-back or a payment to the provider; in minor units.

    A payment has the payment's reference `event_id` in place of a lead.
    """

    id: UUID
    kind: str
    currency: str
    made_at: datetime
    lead_id: UUID | None
    provider_reference: str | None
    event_id: str | None
    amount_minor: int


class MonthSums(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of a month's statement in one currency, in minor units; `lines` counts its transfers."""

    currency: str
    opening_minor: int
    earned_minor: int
    taken_minor: int
    paid_minor: int
    lines: int

    @property
    def closing_minor(self) -> int:
        return self.opening_minor + self.earned_minor - self.taken_minor - self.paid_minor


class EarningsMonth(msgspec.Struct, frozen=True, kw_only=True):
    """Payouts, claw-backs and payments of a month in one currency, in minor units; `begins` is its start.

    `net_minor` is what was earned in the month, whether it was paid or not.
    """

    begins: datetime
    currency: str
    earned_minor: int
    taken_minor: int
    paid_minor: int

    @property
    def net_minor(self) -> int:
        return self.earned_minor - self.taken_minor


class RefusalCount(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that were refused with faults in one hour."""

    hour: datetime
    requests: int


class ReturnReasonCount(msgspec.Struct, frozen=True, kw_only=True):
    """Return requests with one reason and one result."""

    reason: str
    state: str
    leads: int


class FaultShape(msgspec.Struct, frozen=True, kw_only=True):
    """The last value with a fault, masked, and the time at which it came."""

    pointer: str
    code: str
    shape: str
    seen_at: datetime


class RejectedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead that was accepted and then rejected, with its verdict."""

    id: UUID
    reason: str
    verdict: Verdict


async def list_submissions(
    connection: Connection, provider_id: UUID, mode: str, before: UUID | None, limit: int
) -> tuple[Submission, ...]:
    return await fetch_rows(connection, SQL["list_submissions"], Submission, provider_id, mode, before, limit)


async def list_these_submissions(
    connection: Connection, provider_id: UUID, mode: str, leads: Sequence[UUID]
) -> tuple[Submission, ...]:
    return await fetch_rows(connection, SQL["list_these_submissions"], Submission, provider_id, mode, list(leads))


async def find_submissions(
    connection: Connection, provider_id: UUID, mode: str, reference: str | None, person: Sequence[bytes], limit: int
) -> tuple[UUID, ...]:
    """Return the ids of leads with this reference, or of the person with one of these keyed hashes."""
    rows = await connection.fetch(SQL["find_submissions"], provider_id, mode, reference, person, limit)
    return tuple(row["id"] for row in rows)


async def count_refused_by_hour(
    connection: Connection, provider_id: UUID, mode: str, since: datetime, until: datetime
) -> tuple[RefusalCount, ...]:
    return await fetch_rows(connection, SQL["count_refused_by_hour"], RefusalCount, provider_id, mode, since, until)


async def sum_earned(
    connection: Connection, provider_id: UUID, since: datetime, until: datetime
) -> tuple[tuple[int, str], ...]:
    """Return payouts less claw-backs of a span, in minor units, with their currency."""
    rows = await connection.fetch(SQL["sum_earned"], provider_id, since, until)
    return tuple((row["earned_minor"], row["currency"]) for row in rows)


async def list_earnings(
    connection: Connection, provider_id: UUID, before: UUID | None, limit: int
) -> tuple[Movement, ...]:
    return await fetch_rows(connection, SQL["list_earnings"], Movement, provider_id, before, limit)


async def list_statement(
    connection: Connection, provider_id: UUID, since: datetime, until: datetime, limit: int
) -> tuple[Movement, ...]:
    return await fetch_rows(connection, SQL["list_statement"], Movement, provider_id, since, until, limit)


async def sum_months(connection: Connection, provider_id: UUID, zone: str) -> tuple[EarningsMonth, ...]:
    return await fetch_rows(connection, SQL["sum_months"], EarningsMonth, provider_id, zone)


async def sum_statement(
    connection: Connection, provider_id: UUID, since: datetime, until: datetime
) -> tuple[MonthSums, ...]:
    return await fetch_rows(connection, SQL["sum_statement"], MonthSums, provider_id, since, until)


async def list_versions(connection: Connection, vertical_id: UUID, limit: int) -> tuple[PastVersion, ...]:
    return await fetch_rows(connection, SQL["list_versions"], PastVersion, vertical_id, limit)


async def list_return_reasons(
    connection: Connection, provider_id: UUID, mode: str, since: datetime, until: datetime
) -> tuple[ReturnReasonCount, ...]:
    return await fetch_rows(connection, SQL["list_return_reasons"], ReturnReasonCount, provider_id, mode, since, until)


async def list_fault_shapes(connection: Connection, provider_id: UUID, mode: str) -> dict[tuple[str, str], FaultShape]:
    """Return the masked values by pointer and code."""
    shapes = await fetch_rows(connection, SQL["list_fault_shapes"], FaultShape, provider_id, mode)
    return {(shape.pointer, shape.code): shape for shape in shapes}


async def list_rejected(connection: Connection, provider_id: UUID, leads: Sequence[UUID]) -> dict[str, RejectedLead]:
    """Return the newest of these leads for each reason that any of them has."""
    rejected = await fetch_rows(connection, SQL["list_rejected"], RejectedLead, provider_id, list(leads))
    return {lead.reason: lead for lead in rejected}


async def find_evidence(connection: Connection, lead_id: UUID, provider_id: UUID) -> ReturnEvidence:
    """Return the evidence of a return request; empty if there is none."""
    evidence = await connection.fetchval(SQL["find_evidence"], lead_id, provider_id)
    return msgspec.json.decode(evidence, type=ReturnEvidence) if evidence else ReturnEvidence()
