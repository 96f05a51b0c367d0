"""Queries of the business pages that no store of the stages has."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import TypeVar
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, convert_row, fetch_rows, find_row, load_row
from marketplace.runtime import clock
from marketplace.security.sealing import SealedContact
from routing.decision import CandidateRecord
from routing.delivery import Breaker
from routing.vertical import VerticalDefinition

SQL = Queries(__file__)

T = TypeVar("T")


class DayCount(msgspec.Struct, frozen=True, kw_only=True):
    """Number of leads shown to the business on a day of its calendar."""

    day: date
    leads: int


class DeliverySummary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the leads shown in a span.

    `spent_minor` is the cost of the delivered leads that were not returned; `without_outcome` is how many of these have
    no reported outcome.
    """

    leads: int
    delivered: int
    p50_seconds: float | None
    p95_seconds: float | None
    spent_minor: int
    without_outcome: int


class LeadTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Vertical of a lead in the version by which it was awarded, and the name of the subscription."""

    vertical: VerticalDefinition
    subscription: str


class LeadDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision about a lead with all its candidates. Only the number of other businesses may be shown."""

    made_at: datetime
    outcome: str
    strategy: str | None
    candidates: tuple[CandidateRecord, ...]
    left_out: int
    subscription_id: UUID | None


class BusinessAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt at the business's endpoint, with the current state of its assignment."""

    id: UUID
    lead_id: UUID
    assignment_id: UUID
    endpoint_id: UUID
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
    address: str | None
    answer_excerpt: str | None
    answer_reference: str | None
    answer_price: str | None
    state: str
    due_at: datetime | None
    mode: str


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts at an endpoint in a span: how many were accepted, how long they took, and the last failure.

    Each phase has its median and its 95th percentile in milliseconds, None if no attempt needed it; an open connection
    needs neither a look-up nor a handshake.
    """

    endpoint_id: UUID
    attempts: int
    accepted: int
    p50_ms: float | None
    p95_ms: float | None
    dns_ms: tuple[float | None, ...] | None
    connect_ms: tuple[float | None, ...] | None
    tls_ms: tuple[float | None, ...] | None
    first_byte_ms: tuple[float | None, ...] | None
    breaker: Breaker
    last_reason: str | None
    last_status: int | None
    last_failed_at: datetime | None
    last_accepted_at: datetime | None


class TransferTotal(msgspec.Struct, frozen=True, kw_only=True):
    """Sum of the transfers of a kind in a month, in minor units with their sign."""

    kind: str
    lines: int
    amount_minor: int


class MonthLine(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a wallet's balance, in minor units: for a lead of a service at a place, or for a payment."""

    id: UUID
    kind: str
    amount_minor: int
    currency: str
    lead_id: UUID | None
    event_id: str | None
    made_at: datetime
    vertical: str | None
    region: str | None
    postal_code: str | None


class WalletBalances(msgspec.Struct, frozen=True, kw_only=True):
    """Wallet at a moment: available money, money held for leads in delivery, and their sum."""

    available_minor: int
    held_minor: int

    @property
    def balance_minor(self) -> int:
        return self.available_minor + self.held_minor


class LeadSource(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of a source and their outcomes; `source` is empty if the provider named none."""

    source: str
    leads: int
    spent_minor: int | None
    contacted: int
    won: int
    won_minor: int
    returned: int


class PostalLocation(msgspec.Struct, frozen=True, kw_only=True):
    """Place of a postal code."""

    code: str
    city: str
    region: str | None
    latitude: float
    longitude: float


# Leads


async def list_contacts(connection: Connection, business_id: UUID, leads: Sequence[UUID]) -> dict[UUID, SealedContact]:
    """Return the sealed contacts by lead; erased people are missing.

    Raises asyncpg's InsufficientPrivilegeError for a lead that was not exposed to this business.
    """
    rows = await connection.fetch(SQL["list_contacts"], list(leads), business_id)
    return {row["lead_id"]: convert_row(row, SealedContact) for row in rows}


async def find_leads_of_person(
    connection: Connection, business_id: UUID, mode: str, keys: Sequence[bytes], limit: int
) -> tuple[UUID, ...]:
    """Return the leads delivered to the business that have one of the keyed hashes."""
    rows = await connection.fetch(SQL["find_leads_of_person"], list(keys), business_id, mode, limit)
    return tuple(row["lead_id"] for row in rows)


async def count_days(
    connection: Connection, business_id: UUID, mode: str, since: datetime, zone: str
) -> dict[date, int]:
    """Return the leads of each day since a moment; days without leads are missing."""
    first = clock.id_bound(since, clock.ID_EARLY_SECONDS)
    days = await fetch_rows(connection, SQL["count_days"], DayCount, business_id, mode, since, zone, first)
    return {day.day: day.leads for day in days}


async def measure_delivery(
    connection: Connection, business_id: UUID, mode: str, since: datetime, until: datetime
) -> DeliverySummary:
    span = (since, until, *_shown_ids(since, until))
    return await load_row(connection, SQL["measure_delivery"], DeliverySummary, business_id, mode, *span)


async def count_shown(connection: Connection, business_id: UUID, mode: str, since: datetime, until: datetime) -> int:
    return int(
        await connection.fetchval(SQL["count_shown"], business_id, mode, since, until, *_shown_ids(since, until))
    )


def _shown_ids(since: datetime, until: datetime) -> tuple[UUID, UUID]:
    """Return bounds of the ids of assignments exposed between `since` and `until`.

    An exposure follows its award, which made the id, within a hold of 15 minutes. The bounds allow an hour.
    """
    return clock.id_bound(since, clock.ID_EARLY_SECONDS), clock.id_bound(until, -clock.ID_EARLY_SECONDS)


async def find_terms(connection: Connection, assignment_id: UUID, business_id: UUID) -> LeadTerms | None:
    return await find_row(connection, SQL["find_terms"], LeadTerms, assignment_id, business_id)


async def list_decisions(connection: Connection, lead_id: UUID) -> tuple[LeadDecision, ...]:
    """Return the decisions about a lead, oldest first."""
    return await fetch_rows(connection, SQL["list_decisions"], LeadDecision, lead_id)


# Delivery


async def list_attempts(
    connection: Connection,
    business_id: UUID,
    mode: str,
    before: datetime | None,
    limit: int,
    *,
    outcome: str | None = None,
    lead_id: UUID | None = None,
    endpoint_id: UUID | None = None,
) -> tuple[BusinessAttempt, ...]:
    """Return attempts that began before a moment, newest first."""
    return await fetch_rows(
        connection,
        SQL["list_attempts"],
        BusinessAttempt,
        business_id,
        mode,
        before,
        outcome,
        lead_id,
        endpoint_id,
        limit,
    )


async def list_health(connection: Connection, business_id: UUID, since: datetime) -> dict[UUID, EndpointHealth]:
    """Return the health by endpoint; endpoints without an attempt are missing."""
    rows = await fetch_rows(connection, SQL["list_health"], EndpointHealth, business_id, since)
    return {health.endpoint_id: health for health in rows}


# Wallet


async def sum_month(
    connection: Connection, business_id: UUID, since: datetime, until: datetime
) -> tuple[WalletBalances, tuple[TransferTotal, ...], WalletBalances]:
    """Return the wallet at the start of a month, the totals of each kind of transfer in it, and the wallet at its end.

    Holds and releases move money between the wallet's two accounts, so they change no balance and are left out.
    """
    rows = await connection.fetch(SQL["sum_month"], business_id, since, until)
    opening, closing = dict.fromkeys(("available_minor", "held_minor"), 0), dict[str, int]()
    for row in rows:
        opening[f"{row['account']}_minor"] += row["before_minor"]
    for name in opening:
        closing[name] = opening[name] + sum(row["amount_minor"] for row in rows if f"{row['account']}_minor" == name)
    changes: dict[str, int] = {}
    for row in rows:
        changes[row["kind"]] = changes.get(row["kind"], 0) + row["amount_minor"]
    lines = {row["kind"]: row["lines"] for row in rows}
    totals = tuple(
        TransferTotal(kind=kind, lines=lines[kind], amount_minor=amount)
        for kind, amount in changes.items()
        if amount != 0
    )
    return WalletBalances(**opening), totals, WalletBalances(**closing)


async def list_month(
    connection: Connection, business_id: UUID, since: datetime, until: datetime, limit: int
) -> tuple[MonthLine, ...]:
    """Return what changed the wallet's balance in a month, oldest first."""
    return await fetch_rows(connection, SQL["list_month"], MonthLine, business_id, since, until, limit)


async def find_low_below(connection: Connection, business_id: UUID) -> int | None:
    """Return the balance below which the wallet counts as low; None if the business has set none."""
    low_below_minor: int | None = await connection.fetchval(SQL["find_low_below"], business_id)
    return low_below_minor


# Reports and onboarding


async def list_sources(
    connection: Connection, business_id: UUID, mode: str, since: datetime, until: datetime
) -> tuple[LeadSource, ...]:
    span = (since, until, *_shown_ids(since, until))
    return await fetch_rows(connection, SQL["list_sources"], LeadSource, business_id, mode, *span)


async def list_places(connection: Connection, country: str, codes: Sequence[str]) -> dict[str, PostalLocation]:
    """Return the places by postal code; unknown codes are missing."""
    places = await fetch_rows(connection, SQL["list_places"], PostalLocation, country, list(codes))
    return {place.code: place for place in places}


async def list_places_of_prefixes(
    connection: Connection, country: str, prefixes: Sequence[str], limit: int
) -> dict[str, PostalLocation]:
    """Return places by postal code of the codes that begin with one of the prefixes, spread over all of them."""
    sql = SQL["list_places_of_prefixes"]
    places = await fetch_rows(connection, sql, PostalLocation, country, list(prefixes), limit)
    return {place.code: place for place in places}


async def find_onboarding(connection: Connection, business_id: UUID) -> bytes | None:
    """Return the choices that the business has saved, as JSON."""
    choices: bytes | None = await connection.fetchval(SQL["find_onboarding"], business_id)
    return choices


async def save_onboarding(connection: Connection, business_id: UUID, choices: bytes, now: datetime) -> None:
    await connection.execute(SQL["save_onboarding"], business_id, choices, now)
