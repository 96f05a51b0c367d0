"""The queries of a person's data as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, load_row
from marketplace.runtime import ids

SQL = Queries(__file__)


class PersonLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead of a person, with the one business that was shown it, if there is one."""

    lead_id: UUID
    mode: str
    vertical: str
    provider_id: UUID
    provider_name: str
    received_at: datetime
    state: str
    reason: str | None
    business_id: UUID | None
    business_name: str | None
    exposed_at: datetime | None
    channel: str | None


class PersonSuppression(msgspec.Struct, frozen=True, kw_only=True):
    """A suppression of one of the person's phone numbers or e-mail addresses."""

    reason: str
    source: str
    created_at: datetime


class ListMembership(msgspec.Struct, frozen=True, kw_only=True):
    """A list that has the person, as a keyed hash alone: people who must not be contacted, or a business's customers.

    `since` is the time of the import that the person came with.
    """

    name: str
    kind: str
    business: str | None
    since: datetime | None


class PersonInquiry(msgspec.Struct, frozen=True, kw_only=True):
    """An inquiry as it was received, without contact data; `contact_fields` are the names of the fields it had."""

    provider_reference: str | None
    submitted_at: datetime
    received_at: datetime
    consent_given_at: datetime
    contact_fields: tuple[str, ...]
    facts: dict[str, Any]


class PersonJoinedInquiry(msgspec.Struct, frozen=True, kw_only=True):
    """Another inquiry of the person, whose answers joined the lead; its contact data was not kept."""

    provider: str
    provider_reference: str | None
    submitted_at: datetime
    received_at: datetime
    consent_given_at: datetime
    facts: dict[str, Any]


class PersonTouch(msgspec.Struct, frozen=True, kw_only=True):
    """A later interaction of the person."""

    kind: str
    at: datetime
    detail: str
    recorded_at: datetime


class PersonDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision about the lead, by the version of the vertical's rules."""

    made_at: datetime
    outcome: str
    reason: str | None
    vertical_version: int


class PersonDisposition(msgspec.Struct, frozen=True, kw_only=True):
    """A business's report of what became of the lead."""

    business_id: UUID
    kind: str
    reason: str | None
    note: str | None
    happened_at: datetime
    recorded_at: datetime


class PersonReveal(msgspec.Struct, frozen=True, kw_only=True):
    """A time at which contact data of the lead was shown to an operator, with the reason."""

    at: datetime
    actor: str
    reason: str | None


async def list_leads(connection: Connection, keys: Sequence[bytes], limit: int) -> tuple[PersonLead, ...]:
    """Return the leads that have one of the keyed hashes, newest first."""
    return await fetch_rows(connection, SQL["list_leads"], PersonLead, list(keys), limit)


async def list_suppressions(connection: Connection, keys: Sequence[bytes]) -> tuple[PersonSuppression, ...]:
    """Return the suppressions of the keyed hashes, oldest first."""
    return await fetch_rows(connection, SQL["list_suppressions"], PersonSuppression, list(keys))


async def list_memberships(connection: Connection, keys: Sequence[bytes]) -> tuple[ListMembership, ...]:
    """Return the lists that have one of the keyed hashes, by kind and name."""
    return await fetch_rows(connection, SQL["list_memberships"], ListMembership, list(keys))


async def load_inquiry(connection: Connection, lead_id: UUID) -> PersonInquiry:
    """Return the inquiry of a lead. Raises LookupError."""
    return await load_row(connection, SQL["find_inquiry"], PersonInquiry, lead_id)


async def list_joined(connection: Connection, lead_id: UUID) -> tuple[PersonJoinedInquiry, ...]:
    """Return the inquiries that joined a lead in order."""
    return await fetch_rows(connection, SQL["list_joined"], PersonJoinedInquiry, lead_id)


async def list_touches(connection: Connection, lead_id: UUID) -> tuple[PersonTouch, ...]:
    """Return the touches of a lead in order."""
    return await fetch_rows(connection, SQL["list_touches"], PersonTouch, lead_id)


async def list_decisions(connection: Connection, lead_id: UUID) -> tuple[PersonDecision, ...]:
    """Return the decisions about a lead in order."""
    return await fetch_rows(connection, SQL["list_decisions"], PersonDecision, lead_id)


async def list_dispositions(connection: Connection, lead_id: UUID) -> tuple[PersonDisposition, ...]:
    """Return the reports of a lead's business in order, without those that were undone."""
    return await fetch_rows(connection, SQL["list_dispositions"], PersonDisposition, lead_id)


async def list_reveals(connection: Connection, lead_id: UUID) -> tuple[PersonReveal, ...]:
    """Return the times at which contact data of the lead was shown to operators, in order."""
    return await fetch_rows(connection, SQL["list_reveals"], PersonReveal, ids.encode("lead", lead_id))
