"""Statements of the journey as typed functions: one per query, without a decision."""

from datetime import datetime
from hashlib import sha256
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries, find_row, violated
from marketplace.intake.store import PersonKeys
from marketplace.journey.marks import WindowKey
from routing.inquiry import Facts, Place, Signals, Touch
from routing.journey import CorrectionEntry, JourneyEntry, Supplied, TouchEntry, identity
from routing.lifecycle import LeadState
from routing.requalifying import LeadStanding, NextStep

SQL = Queries(__file__)


class LeadJourney(LeadStanding, frozen=True, kw_only=True):
    """A lead with the facts and the contact fields of its inquiry, the entries of its journey, and the version that the
    rules must have."""

    lead_id: UUID
    vertical_id: UUID
    mode: str
    revision: int
    facts: Facts
    contact_fields: tuple[str, ...]
    journey: tuple[JourneyEntry, ...] | None
    catalog_version: int

    @property
    def entries(self) -> tuple[JourneyEntry, ...]:
        """Entries of the journey, in no order."""
        return self.journey or ()

    @property
    def known_fields(self) -> frozenset[str]:
        """Names of the contact fields that came with the inquiry or a correction."""
        corrected = (entry.contact for entry in self.entries if isinstance(entry, CorrectionEntry))
        return frozenset(self.contact_fields).union(*corrected)


class NewTouch(msgspec.Struct, frozen=True, kw_only=True):
    """Row of one touch to insert."""

    fingerprint: bytes
    kind: str
    at: datetime
    detail: str
    direction: str | None
    seconds: int | None
    amount_minor: int | None
    currency: str | None
    starts_at: datetime | None
    touch_id: str | None
    supplies: Supplied


class NewCorrection(msgspec.Struct, frozen=True, kw_only=True):
    """Row of one correction to insert, with the keyed hashes of a corrected phone number or e-mail address.

    The corrected contact fields are sealed. `contact` are their names.
    """

    made_by: str
    supplies: Supplied
    clears: tuple[str, ...]
    signals: Signals | None
    place: Place | None
    contact: tuple[str, ...]
    sealed: bytes | None
    wrapped: bytes | None
    master_key_id: str | None
    idempotency_key: str | None
    request_sha256: bytes
    window_keys: tuple[WindowKey, ...]
    person_keys: tuple[bytes, ...]


class EarlierCorrection(msgspec.Struct, frozen=True, kw_only=True):
    """First correction of a lead under an idempotency key."""

    revision: int
    request_sha256: bytes


class PersonTaken(Exception):
    """Raised when another lead has the person of a corrected phone number or e-mail address."""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """Change of one lead as `revise_lead` reads it: written only if the lead is still in `state` at `revision`.

    `place` and `budget_minor` are those of the revised facts, which reports read.
    """

    lead_id: UUID
    state: LeadState
    revision: int
    next: NextStep
    made_at: datetime
    protected_until: datetime
    place: Place
    budget_minor: int | None
    touches: tuple[NewTouch, ...] = ()
    correction: NewCorrection | None = None


class RevisedLead(msgspec.Struct, frozen=True, kw_only=True):
    """Lead after its revision: the fingerprints of the touches that were added, and its state.

    `erased`: its person was erased, so that nothing was corrected.
    """

    added: frozenset[bytes]
    state: LeadState
    erased: bool = False


def fingerprint(touch: Touch) -> bytes:
    """Return the hash by which a touch of a lead is stored once."""
    return sha256(identity(touch)).digest()


def new_touch(touch: Touch, supplies: Supplied) -> NewTouch:
    """Return the row of a touch."""
    return NewTouch(
        fingerprint=fingerprint(touch),
        kind=touch.kind,
        at=touch.at,
        detail=touch.detail,
        direction=touch.direction,
        seconds=touch.seconds,
        amount_minor=None if touch.amount is None else touch.amount.minor,
        currency=None if touch.amount is None else touch.amount.currency,
        starts_at=touch.starts_at,
        touch_id=touch.touch_id,
        supplies=supplies,
    )


async def find_journey(connection: Connection, lead_id: UUID, provider_id: UUID, mode: str) -> LeadJourney | None:
    """Find a lead of this provider with its journey."""
    return await find_row(connection, SQL["find_journey"], LeadJourney, lead_id, provider_id, mode)


async def find_lead_of_person(
    connection: Connection, vertical_id: UUID, person: PersonKeys, since: datetime
) -> LeadJourney | None:
    """Find the one lead that has the person's window in a vertical, at some time of a window that begins at `since`.

    None if there is none, if there are two, or if its person was erased.
    """
    return await find_row(
        connection,
        SQL["find_lead_of_person"],
        LeadJourney,
        vertical_id,
        person.window,
        person.shared,
        since,
        person.protected_until,
    )


async def is_erased(connection: Connection, lead_id: UUID) -> bool:
    """Return whether the person of a lead was erased."""
    return bool(await connection.fetchval(SQL["is_erased"], lead_id))


async def list_provider_entries(connection: Connection, lead_id: UUID, provider_id: UUID) -> tuple[JourneyEntry, ...]:
    """Return the entries of the journey of a lead without those that are inquiries of other providers, in no order."""
    rows = await connection.fetch(SQL["list_joined_touches"], lead_id, provider_id)
    foreign = {row["joined_touch"] for row in rows}
    entries = await list_entries(connection, lead_id)
    return tuple(each for each in entries if not isinstance(each, TouchEntry) or fingerprint(each.touch) not in foreign)


async def list_entries(connection: Connection, lead_id: UUID) -> tuple[JourneyEntry, ...]:
    """Return all entries of the journey of a lead, in no order. The caller checks who may see the lead."""
    journey = await connection.fetchval(SQL["list_entries"], lead_id)
    return () if journey is None else msgspec.json.decode(journey, type=tuple[JourneyEntry, ...])


async def list_person_keys(connection: Connection, lead_id: UUID) -> tuple[bytes, ...]:
    """Return the keyed hashes of the phone numbers and e-mail addresses by which a lead's person is found."""
    return tuple(row["key"] for row in await connection.fetch(SQL["list_person_keys"], lead_id))


async def find_correction(connection: Connection, lead_id: UUID, key: str) -> EarlierCorrection | None:
    """Find the correction of a lead that came first under an idempotency key."""
    return await find_row(connection, SQL["find_correction"], EarlierCorrection, lead_id, key)


async def lock_held(connection: Connection, revision: Revision) -> bool:
    """Lock the lead until the transaction ends; False if it is no longer held at the revision that was read."""
    return await connection.fetchval(SQL["lock_held"], revision.lead_id, revision.revision) is not None


async def revise_lead(connection: Connection, revision: Revision) -> RevisedLead | None:
    """Write a revision, and return the lead after it; None, with nothing written, if the lead has changed meanwhile.

    Raises PersonTaken.
    """
    try:
        answer = await connection.fetchval(SQL["revise_lead"], msgspec.json.encode(revision))
    except asyncpg.UniqueViolationError as error:
        if violated(error) == "person_window_once":
            raise PersonTaken from error
        raise
    return None if answer is None else msgspec.json.decode(answer, type=RevisedLead)
