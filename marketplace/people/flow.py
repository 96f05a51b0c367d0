"""Find a person's leads by phone or e-mail, and export everything that is held about the person.

Operators only. Each call is recorded in the audit chain, without the phone number or the e-mail address.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, transaction
from marketplace.delivery import store as delivery_store
from marketplace.intake.contact import marks_with_hashes
from marketplace.notices import store as notices_store
from marketplace.people import store as people_store
from marketplace.people.store import (
    ListMembership,
    PersonDecision,
    PersonDisposition,
    PersonInquiry,
    PersonJoinedInquiry,
    PersonLead,
    PersonReveal,
    PersonSuppression,
    PersonTouch,
)
from marketplace.runtime import clock, ids
from marketplace.security import access, audit
from marketplace.security.sealing import Sealer

MOST_LEADS: Final = 100
"Limit of leads in one answer. A person has few."
MOST_NOTICES: Final = 100
"Limit of notices of one lead in an export."


class PersonHoldings(msgspec.Struct, frozen=True, kw_only=True):
    """A person's leads with the business that has each, and the person's suppressions; `has_more` beyond MOST_LEADS."""

    leads: tuple[PersonLead, ...]
    suppressions: tuple[PersonSuppression, ...]
    has_more: bool


class ExportedNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A notice to the business that was shown the lead."""

    kind: str
    made_at: datetime
    state: str
    acknowledged_at: datetime | None


class ExportedLead(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is held about one inquiry of the person, and about those that joined it.

    `contact` is null until the lead was shown to a business, because nobody can open it before, and after an erasure.
    """

    lead: str
    state: str
    reason: str | None
    vertical: str
    provider: str
    business: str | None
    shown_at: datetime | None
    shown_by: str | None
    inquiry: PersonInquiry
    contact: msgspec.Raw | None
    joined: tuple[PersonJoinedInquiry, ...]
    touches: tuple[PersonTouch, ...]
    decisions: tuple[PersonDecision, ...]
    reports: tuple[PersonDisposition, ...]
    notices: tuple[ExportedNotice, ...]
    shown_to_operators: tuple[PersonReveal, ...]


class PersonExport(msgspec.Struct, frozen=True, kw_only=True):
    """All that is held about a person, for the person's request for access. `lists` are those that have the person."""

    exported_at: datetime
    leads: tuple[ExportedLead, ...]
    suppressions: tuple[PersonSuppression, ...]
    lists: tuple[ListMembership, ...]
    has_more: bool


async def look_up(pool: Pool, sealer: Sealer, actor: str, marks: Sequence[str]) -> PersonHoldings:
    """Return who has a person, by `marks` (`phone:+1…`), and record the access with the number of leads."""
    async with transaction(pool) as connection:
        holdings = await _load_holdings(connection, sealer, marks)
        await audit.record(connection, clock.now(), actor, "person.look_up", "person", leads=len(holdings.leads))
    return holdings


async def export_person(pool: Pool, sealer: Sealer, actor: str, marks: Sequence[str], reason: str) -> PersonExport:
    """Return all that is held about a person. Contact data that is opened is a reveal, recorded with the reason."""
    async with transaction(pool) as connection:
        now = clock.now()
        holdings = await _load_holdings(connection, sealer, marks)
        await audit.record(connection, now, actor, "person.export", "person", leads=len(holdings.leads), reason=reason)
        leads = [await _export_lead(connection, sealer, lead, actor, reason, now) for lead in holdings.leads]
        keys = tuple(sealer.keyed_hash("suppression", mark) for mark in marks_with_hashes(marks))
        lists = await people_store.list_memberships(connection, keys)
    return PersonExport(
        exported_at=now,
        leads=tuple(leads),
        suppressions=holdings.suppressions,
        lists=lists,
        has_more=holdings.has_more,
    )


async def _load_holdings(connection: Connection, sealer: Sealer, marks: Sequence[str]) -> PersonHoldings:
    keys = tuple(sealer.keyed_hash("suppression", mark) for mark in marks)
    leads = await people_store.list_leads(connection, keys, MOST_LEADS + 1)
    suppressions = await people_store.list_suppressions(connection, keys)
    return PersonHoldings(leads=leads[:MOST_LEADS], suppressions=suppressions, has_more=len(leads) > MOST_LEADS)


async def _export_lead(
    connection: Connection, sealer: Sealer, lead: PersonLead, actor: str, reason: str, now: datetime
) -> ExportedLead:
    """Return everything that is held about a lead. Its contact is opened only through its exposure to the business."""
    reveals = await people_store.list_reveals(connection, lead.lead_id)
    notices = await notices_store.list_notices(connection, lead_id=lead.lead_id, limit=MOST_NOTICES)
    contact = None
    if lead.business_id is not None:
        contact = await _open_contact(connection, sealer, lead.lead_id, lead.business_id, actor, reason, now)
    return ExportedLead(
        lead=ids.encode("lead", lead.lead_id),
        state=lead.state,
        reason=lead.reason,
        vertical=lead.vertical,
        provider=lead.provider_name,
        business=lead.business_name,
        shown_at=lead.exposed_at,
        shown_by=lead.channel,
        inquiry=await people_store.load_inquiry(connection, lead.lead_id),
        contact=contact,
        joined=await people_store.list_joined(connection, lead.lead_id),
        touches=await people_store.list_touches(connection, lead.lead_id),
        decisions=await people_store.list_decisions(connection, lead.lead_id),
        reports=await people_store.list_dispositions(connection, lead.lead_id),
        notices=msgspec.convert(notices, tuple[ExportedNotice, ...], from_attributes=True),
        shown_to_operators=reveals,
    )


async def _open_contact(
    connection: Connection, sealer: Sealer, lead_id: UUID, business_id: UUID, actor: str, reason: str, now: datetime
) -> msgspec.Raw | None:
    """Return the contact as JSON with a reveal on record, or None if the person has been erased."""
    sealed = await delivery_store.read_contact(connection, lead_id, business_id)
    if sealed is None:
        return None
    await audit.record(connection, now, actor, access.REVEALED, ids.encode("lead", lead_id), reason=reason)
    return msgspec.Raw(sealer.open_contact(lead_id, sealed))


def encode_export(export: PersonExport) -> bytes:
    """Return the export as JSON, indented for reading."""
    return msgspec.json.format(msgspec.json.encode(export), indent=2)
