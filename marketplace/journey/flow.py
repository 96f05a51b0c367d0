"""Later touches and corrections of a lead, which is decided about again when they change something.

    load the lead and its journey (no lock) → read, classify and judge what is new (pure) → one call: touches or the
    correction, the lead's new revision, its state and its person's window → a notification

The call writes nothing if the lead has changed since it was loaded; then everything is done again from the start.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.erasure import store as erasure_store
from marketplace.erasure.flow import release_hold
from marketplace.intake.contact import PersonalData, marks_with_hashes
from marketplace.intake.flow import WINDOW_SLACK
from marketplace.intake.postal import PostalArea, PostalBook
from marketplace.journey import store as journey_store
from marketplace.journey.marks import WindowKey, correction_keys
from marketplace.journey.reading import ReadCorrection, ReadTouch, read_correction, read_later_touches
from marketplace.journey.shapes import CorrectedContact, CorrectionBody, LaterTouch
from marketplace.journey.store import LeadJourney, NewCorrection, PersonTaken, RevisedLead, Revision
from marketplace.notices import store as notices_store
from marketplace.notices.store import NoticeKind
from marketplace.rules.catalog import Catalog, Vertical
from marketplace.runtime import clock, failpoints
from marketplace.runtime.errors import Conflict, IdempotencyKeyReused, InvalidInput, NotFound
from marketplace.runtime.queue import Notifier
from marketplace.security.auth import Principal
from marketplace.security.sealing import Sealer
from marketplace.text.faults import Fault, pointer
from routing.journey import MOST_TOUCHES, CorrectionEntry, LeadUpdate, TouchEntry, identity, revise, update_of
from routing.lifecycle import WAITING_LEAD, LeadState
from routing.requalifying import NextStep, next_step

MOST_TRIES: Final = 8
"Attempts to write a revision of a lead that keeps changing. Each lost attempt means that another change was written."

NOT_YOURS: Final = "There is no inquiry of yours with this id."

BUSY: Final = "This lead is being changed by other calls. Send this one again in a second."

UNCORRECTED: Final = {
    LeadState.duplicate: "Nothing was stored of this inquiry. Correct the earlier one of the same person.",
    LeadState.suppressed: "Nothing was stored of this inquiry, because the person asked not to be contacted.",
}
"States in which an inquiry is not corrected, with the reason."

CORRECTED: Final = "corrected"
"Reason of an assignment that was released because the lead was corrected before its business was shown it."

ANNOUNCED: Final = frozenset({LeadState.exposed, LeadState.delivered})
"States in which a business has the lead and is sent what has changed."

TOO_MANY_TOUCHES: Final = "touch_limit"
"Code of a touch beyond the limit of one lead."


class TouchOutcome(StrEnum):
    """Outcome of one touch that was sent."""

    added = "added"
    """It is stored."""
    repeated = "repeated"
    """The same touch is stored already, and nothing was written."""
    refused = "refused"
    """It has faults, and nothing was written."""


class TouchResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answer to one touch, by its position in the body. A refused one has its faults."""

    position: int
    result: TouchOutcome
    touch_id: str | None = None
    faults: tuple[Fault, ...] = ()


class SentCorrection(PersonalData, frozen=True, kw_only=True):
    """A correction as it was sent: its body, the hash of its bytes, and its Idempotency-Key."""

    body: CorrectionBody
    request_sha256: bytes
    key: str | None


class TouchesReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """Answers to the touches of one call, and the lead's revision after it."""

    revision: int
    results: tuple[TouchResult, ...]


class Journey:
    """The journeys of leads in one process."""

    def __init__(self, pool: Pool, catalog: Catalog, postal: PostalBook, sealer: Sealer, notifier: Notifier) -> None:
        self._pool = pool
        self._catalog = catalog
        self._postal = postal
        self._sealer = sealer
        self._notifier = notifier
        self._notifications: set[asyncio.Task[bool]] = set()

    async def add_touches(self, caller: Principal, lead_id: UUID, bodies: Sequence[LaterTouch]) -> TouchesReceipt:
        """Store the touches that have no fault, each once, and return the answer to each.

        They are on disk when this returns. Raises NotFound, InvalidInput if every touch has a fault, and Conflict if
        the lead kept changing.
        """
        for _ in range(MOST_TRIES):
            lead = await self._load(caller, lead_id)
            vertical = (await self._catalog.at_least(lead.catalog_version)).verticals[lead.vertical_id]
            now = clock.now()
            touches = read_later_touches(bodies, vertical.definition.intake_rules(vertical.slug), now)
            results = classify(lead, touches)
            if all(each.result is TouchOutcome.refused for each in results):
                raise InvalidInput(fault for each in results for fault in each.faults)
            new = [touches[each.position] for each in results if each.result is TouchOutcome.added]
            if not new:
                return TouchesReceipt(revision=lead.revision, results=results)
            if await self._write(*plan_touches(lead, new, vertical, now)) is not None:
                return TouchesReceipt(revision=lead.revision + 1, results=results)
        raise Conflict(BUSY)

    async def correct(self, caller: Principal, lead_id: UUID, sent: SentCorrection) -> int:
        """Correct answers or contact fields of an inquiry, and return the lead's new revision. It is on disk then.

        The same call under the same key returns the revision of the first. Raises NotFound, InvalidInput with all
        faults, IdempotencyKeyReused, and Conflict if another lead has the corrected phone number or e-mail address, or
        if the person was erased.
        """
        for _ in range(MOST_TRIES):
            lead = await self._load(caller, lead_id)
            if (earlier := await self._replay(lead_id, sent)) is not None:
                return earlier
            vertical = (await self._catalog.at_least(lead.catalog_version)).verticals[lead.vertical_id]
            facts = revise(lead.facts, lead.entries)
            area = await self._find_area(sent.body.contact, facts.place.country)
            correction = read_correction(sent.body, facts, vertical.definition.intake_rules(vertical.slug), area)
            if correction.faults:
                raise InvalidInput(correction.faults)
            if correction.is_empty:
                return lead.revision
            if lead.state in UNCORRECTED:
                raise Conflict(UNCORRECTED[lead.state])
            row = await self._new_correction(caller, lead, sent, correction, vertical)
            revised = await self._write(*plan_correction(lead, correction, row, vertical, clock.now()))
            if revised is not None and revised.erased:
                raise Conflict("The person of this inquiry was erased, so that nothing of it can be corrected.")
            if revised is not None:
                return lead.revision + 1
        raise Conflict(BUSY)

    async def _replay(self, lead_id: UUID, sent: SentCorrection) -> int | None:
        """Return the revision of the same call from before, or None. Raises IdempotencyKeyReused."""
        if sent.key is None:
            return None
        async with session(self._pool) as connection:
            earlier = await journey_store.find_correction(connection, lead_id, sent.key)
        if earlier is not None and earlier.request_sha256 != sent.request_sha256:
            raise IdempotencyKeyReused("This key came with another correction of this inquiry. Use a new key.")
        return None if earlier is None else earlier.revision

    async def _find_area(self, contact: CorrectedContact, country: str) -> PostalArea | None:
        """Return the area of a corrected postal code, None without one."""
        return await self._postal.find(self._pool, country, contact.postal_code) if contact.postal_code else None

    async def _new_correction(
        self,
        caller: Principal,
        lead: LeadJourney,
        sent: SentCorrection,
        correction: ReadCorrection,
        vertical: Vertical,
    ) -> NewCorrection:
        """Return the row of a correction, with the contact fields sealed and the person's marks hashed."""
        window_keys: tuple[WindowKey, ...] = ()
        if correction.marks:
            async with session(self._pool) as connection:
                earlier = await journey_store.list_person_keys(connection, lead.lead_id)
            fields = lead.known_fields.union(correction.contact)
            same_person = vertical.definition.same_person
            window_keys = correction_keys(self._sealer, correction.contact, lead.mode, same_person, fields, earlier)
        sealed = None
        if correction.contact:
            sealed = self._sealer.seal_contact(lead.lead_id, msgspec.json.encode(correction.contact))
        return NewCorrection(
            made_by=caller.key_id,
            supplies=correction.supplies,
            clears=correction.clears,
            signals=correction.signals,
            place=correction.place,
            contact=tuple(correction.contact),
            sealed=sealed.box if sealed else None,
            wrapped=sealed.wrapped if sealed else None,
            master_key_id=sealed.master_key_id if sealed else None,
            idempotency_key=sent.key,
            request_sha256=sent.request_sha256,
            window_keys=window_keys,
            person_keys=tuple(
                self._sealer.keyed_hash("suppression", mark) for mark in marks_with_hashes(correction.marks)
            ),
        )

    async def _load(self, caller: Principal, lead_id: UUID) -> LeadJourney:
        """Return a lead of the caller with its journey. Raises NotFound."""
        async with session(self._pool) as connection:
            lead = await journey_store.find_journey(connection, lead_id, caller.owner, caller.mode)
        if lead is None:
            raise NotFound(NOT_YOURS)
        return lead

    async def _write(self, revision: Revision, update: LeadUpdate) -> RevisedLead | None:
        """Write a revision, and a notice to the business that has the lead; None if the lead has changed meanwhile.

        A worker is notified of a lead that waits. Raises Conflict if another lead has the person of a correction.
        """
        try:
            async with transaction(self._pool) as connection:
                revised = await write_revision(connection, revision, update)
        except PersonTaken as error:
            raise Conflict("Another inquiry has this phone number or e-mail address already.") from error
        await failpoints.reach("after_revision_commit")
        if revised is not None and revised.state in WAITING_LEAD:
            await self._notify(revision.lead_id)
        return revised

    async def _notify(self, lead_id: UUID) -> None:
        """Start to notify a worker, without waiting for the end, as `Intake` does."""
        task = asyncio.create_task(self._notifier.notify("walk", lead_id))
        self._notifications.add(task)
        task.add_done_callback(self._notifications.discard)
        await asyncio.sleep(0)


async def write_revision(connection: Connection, revision: Revision, update: LeadUpdate) -> RevisedLead | None:
    """Write a revision, and a notice to the business that has the lead; None, with nothing written, if the lead has
    changed since it was loaded.

    A lead that is held and qualified again is taken from its business first, which has not been shown it. The caller
    commits. Raises PersonTaken.
    """
    if revision.state is LeadState.held and revision.next is NextStep.receive:
        if not await _release(connection, revision):
            return None
        revision = msgspec.structs.replace(revision, state=LeadState.prospect)
    writing = journey_store.revise_lead(connection, revision)
    revised = await failpoints.amid("amid_revision", writing, connection)
    if revised is None or revised.state not in ANNOUNCED:
        return revised
    if not await journey_store.is_erased(connection, revision.lead_id):
        detail = msgspec.to_builtins(update)
        await notices_store.insert_notice(connection, revision.lead_id, NoticeKind.updated, revision.made_at, detail)
    return revised


async def _release(connection: Connection, revision: Revision) -> bool:
    """Release the hold on a lead; False if the lead has changed since it was loaded.

    Either this has the lead's lock first, and the exposure finds the lead released, or the exposure is committed.
    """
    await erasure_store.become_eraser(connection)
    if not await journey_store.lock_held(connection, revision):
        return False
    return await release_hold(connection, revision.lead_id, CORRECTED, revision.made_at)


def classify(lead: LeadJourney, touches: Sequence[ReadTouch]) -> tuple[TouchResult, ...]:
    """Return the answer to each touch, which repeats one of the inquiry, of the journey or earlier in the body."""
    stored = {identity(entry.touch) for entry in lead.entries if isinstance(entry, TouchEntry)}
    room = MOST_TOUCHES - len(stored)
    stored |= {identity(touch) for touch in lead.facts.touches}
    results = []
    for position, read in enumerate(touches):
        name, faults = identity(read.touch), read.faults
        outcome = TouchOutcome.repeated if name in stored else TouchOutcome.added
        if outcome is TouchOutcome.added and not faults and room <= 0:
            faults = (_limit_fault(position),)
        if faults:
            outcome = TouchOutcome.refused
        if outcome is TouchOutcome.added:
            stored.add(name)
            room -= 1
        results.append(TouchResult(position=position, result=outcome, touch_id=read.touch.touch_id, faults=faults))
    return tuple(results)


def plan_correction(
    lead: LeadJourney, correction: ReadCorrection, row: NewCorrection, vertical: Vertical, now: datetime
) -> tuple[Revision, LeadUpdate]:
    """Return the revision by which a correction changes a lead, and the news for a business that has it."""
    entry = CorrectionEntry(
        revision=lead.revision + 1,
        at=now,
        supplies=correction.supplies,
        clears=correction.clears,
        signals=correction.signals,
        place=correction.place,
        contact=row.contact,
    )
    before = revise(lead.facts, lead.entries)
    after = revise(lead.facts, (*lead.entries, entry))
    revision = Revision(
        lead_id=lead.lead_id,
        state=lead.state,
        revision=lead.revision,
        next=next_step(lead, before, after, vertical.definition, now),
        made_at=now,
        place=after.place,
        budget_minor=after.budget.minor if after.budget else None,
        correction=row,
        protected_until=now + timedelta(days=vertical.definition.window_days) + WINDOW_SLACK,
    )
    return revision, update_of(before, after, (entry,))


def _limit_fault(position: int) -> Fault:
    detail = f"A lead keeps {MOST_TOUCHES:,} touches after its inquiry, and this one has as many. Send no more for it."
    return Fault(pointer=pointer("touches", position), code=TOO_MANY_TOUCHES, detail=detail)


def plan_touches(
    lead: LeadJourney, touches: Sequence[ReadTouch], vertical: Vertical, now: datetime
) -> tuple[Revision, LeadUpdate]:
    """Return the revision by which new touches change a lead, and the news for a business that has it."""
    added = tuple(TouchEntry(revision=lead.revision + 1, touch=read.touch, supplies=read.supplies) for read in touches)
    before = revise(lead.facts, lead.entries)
    after = revise(lead.facts, (*lead.entries, *added))
    came_back_at = max(entry.at for entry in added)
    revision = Revision(
        lead_id=lead.lead_id,
        state=lead.state,
        revision=lead.revision,
        next=next_step(lead, before, after, vertical.definition, now, came_back_at),
        made_at=now,
        place=after.place,
        budget_minor=after.budget.minor if after.budget else None,
        touches=tuple(journey_store.new_touch(read.touch, read.supplies) for read in touches),
        protected_until=now + timedelta(days=vertical.definition.window_days) + WINDOW_SLACK,
    )
    return revision, update_of(before, after, added)
