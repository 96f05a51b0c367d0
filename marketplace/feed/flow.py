"""Read and acknowledge a business's feed of leads.

    read: entries after the reader's position → commit the exposure → journal → contact → event
    acknowledge: commit "delivered" and the money
    take: a member takes one lead in the portal, which reads and acknowledges it at once

Delivery places each lead that was awarded to a feed or an inbox there, and releases it if nobody reads or takes it
within the hold window.
A lead is exposed just before its event is sent. From then on no other business can get it; it is charged when it is
acknowledged, and lapses if it is not. Positions are assigned in commit order, so a reader that continues after the last
position it received misses nothing.
"""

import asyncio
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Pool, session, transaction
from marketplace.database.journal import Journal, JournalError, JournalExposure
from marketplace.delivery import store as delivery_store
from marketplace.delivery.event import compose
from marketplace.delivery.store import DeliveryCase
from marketplace.feed import store
from marketplace.feed.store import EventKind, FeedEntry, InboxLead, TicketRow
from marketplace.ledger import money
from marketplace.ledger.shares import load_shares
from marketplace.notices import flow as notices_flow
from marketplace.notices import store as notices_store
from marketplace.notices.event import compose_notice
from marketplace.runtime import clock, errors, failpoints, ids
from marketplace.runtime.log import logger
from marketplace.security import access, audit, auth
from marketplace.security.auth import Principal, UnconfirmedAccess
from marketplace.security.sealing import SealedContact, Sealer
from marketplace.text.faults import Fault, FaultCode
from marketplace.web import metrics
from routing.delivery import EVIDENCE_WINDOW, EndpointKind
from routing.lifecycle import OPEN_ASSIGNMENT, AssignmentState

log = logger("api")

TICKET_LIFE: Final = timedelta(seconds=60)
"Time within which a ticket opens a stream."
TICKET_BYTES: Final = 32
MOST_ACKNOWLEDGED: Final = 500
"Limit of leads acknowledged by one call; each takes a transaction of some milliseconds."
SHOWN: Final = frozenset({AssignmentState.held, AssignmentState.exposed, AssignmentState.delivered})
"States in which the feed shows a lead. A refused, lapsed or returned lead is not shown again."


class SettlementEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence by which a lead is delivered and charged: the reason and kind stored with it, and the audited action."""

    reason: str
    evidence: str
    action: str


ACKNOWLEDGED: Final = SettlementEvidence(reason="acknowledged", evidence="acknowledgement", action="lead.acknowledge")
"The business's software said that it has the lead."
TAKEN: Final = SettlementEvidence(reason="taken", evidence="reveal", action="lead.take")
"A member who is signed in took the lead, and its contact was read for them."


class FeedReader(msgspec.Struct, frozen=True, kw_only=True):
    """A reader of a business's feed in one mode. `name` is the id of their key or membership; exposures record it.

    `channel` is "portal" for a member who takes leads in the inbox, and "feed" otherwise.
    """

    business_id: UUID
    mode: str
    name: str
    channel: str = "feed"
    opened: UnconfirmedAccess | None = None


class FeedPosition(msgspec.Struct, frozen=True, kw_only=True):
    """Position of a reader: it is shown the entries after `after`; of those up to `last_seen`, only the open ones."""

    after: int = 0
    last_seen: int = 0


class FeedItem(msgspec.Struct, frozen=True, kw_only=True):
    """Event at one position of the feed. `body` is JSON; the body of a lead holds its contact."""

    sequence: int
    kind: EventKind
    body: msgspec.Raw


class FeedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Events in order, and the position from which to read on."""

    events: tuple[FeedItem, ...]
    place: FeedPosition
    has_more: bool


class AcknowledgementOutcome(StrEnum):
    """Result of acknowledging one event."""

    acknowledged = "acknowledged"
    "The lead is delivered and was charged; or the notice is acknowledged."
    repeated = "repeated"
    "The event had been acknowledged before; nothing changed."
    late = "late"
    "The lead had lapsed or been refused before; the acknowledgement was recorded and nothing was charged."


class TakeOutcome(StrEnum):
    """Result of taking a lead in the inbox."""

    taken = "taken"
    "The lead is delivered and was charged."
    repeated = "repeated"
    "This member or a colleague had taken it before; nothing changed."
    missed = "missed"
    "Nobody had taken it in time; it may be another business's by now."
    withdrawn = "withdrawn"
    "The person may not be contacted any more."


class AcknowledgementTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Result of acknowledging all events up to the position `through`, as counts; `has_more` if some are left."""

    through: int
    acknowledged: int
    late: int
    has_more: bool


class Feed:
    """Reads and acknowledges feeds. `pool` is the API's; `exposing` has the role that may expose and settle leads."""

    def __init__(self, pool: Pool, exposing: Pool, sealer: Sealer, journal: Journal) -> None:
        self._pool = pool
        self._exposing = exposing
        self._sealer = sealer
        self._journal = journal

    async def begin(self, reader: FeedReader, last_seen: int | None) -> FeedPosition:
        """Return the start position: after `last_seen`, or the end of the feed if it is None, moved back to the oldest
        open entry.

        Also close the feed's breaker, so that new leads are awarded to it again at once. Raises InvalidInput for a
        position beyond the end of the feed.
        """
        async with session(self._pool) as connection:
            await store.close_breaker(connection, reader.business_id)
            last = await store.find_last(connection, reader.business_id, reader.mode)
            oldest = await store.find_oldest_open(connection, reader.business_id, reader.mode)
        start = last if last_seen is None else last_seen
        if start > last:
            raise errors.InvalidInput((_beyond("/after", last),))
        after = start if oldest is None else min(start, oldest - 1)
        return FeedPosition(after=after, last_seen=start)

    async def entries(self, reader: FeedReader, place: FeedPosition, limit: int) -> tuple[FeedEntry, ...]:
        """Return up to `limit` entries from the reader's position on, to pass to `show` one by one. Exposes nothing."""
        async with session(self._pool) as connection:
            return await store.list_entries(
                connection, reader.business_id, reader.mode, place.after, place.last_seen, limit
            )

    async def show(self, reader: FeedReader, entry: FeedEntry) -> FeedItem | None:
        """Return the event of this entry, with its exposure committed and in the journal; None if it has none any more.

        An event that cannot be built is logged as an error and skipped with None, so that it does not block the reader;
        its lead ends by the deadlines of its assignment. Raises Unavailable if it cannot be shown now: then ask for the
        same entry again.
        """
        try:
            return await self._show(reader, entry)
        except errors.MarketplaceError:
            raise
        except Exception as error:  # one faulty event must not hide the events after it
            log.error("event_not_shown", assignment=str(entry.assignment_id), error=type(error).__name__)
            return None

    async def _show(self, reader: FeedReader, entry: FeedEntry) -> FeedItem | None:
        """Do the work of `show`, without its handling of errors."""
        if entry.notice_id is not None:
            return await self._show_notice(reader, entry, entry.notice_id)
        if entry.state not in SHOWN:
            return None
        async with session(self._pool) as connection:
            case = await delivery_store.find_delivery(connection, entry.assignment_id)
        if case is None or case.state not in SHOWN or case.withdrawn:
            return None
        if case.state in OPEN_ASSIGNMENT and case.endpoint_kind is not EndpointKind.feed:
            return None  # a member takes it in the inbox; the feed has it afterwards
        now = case.read_at
        exposure = await self._expose(reader, case, now)
        if exposure is None:
            return None
        if case.state is AssignmentState.delivered:
            sealed = await self._read_contact(reader, case)
        else:
            sealed, _ = await asyncio.gather(self._read_contact(reader, case), self._write_journal(exposure))
        if sealed is None:
            return None
        body = compose(case, self._sealer.open_contact(case.lead_id, sealed), now)
        await failpoints.reach("after_read_before_write")
        return _event(entry, body)

    async def _show_notice(self, reader: FeedReader, entry: FeedEntry, notice_id: UUID) -> FeedItem | None:
        """Return the event of a notice, or None if it was withdrawn. Showing changed contact is a reveal."""
        async with session(self._pool) as connection:
            notice = await notices_store.find_event(connection, notice_id)
            if notice is None:
                return None
            if notice.detail.get(notices_flow.CONTACT_CHANGED):
                await access.record_reveals(connection, reader.opened, reader.name, (entry.lead_id,))
            contact = await notices_flow.read_changed_contact(connection, self._sealer, notice)
        return _event(entry, compose_notice(notice, entry.kind, clock.now(), contact))

    async def read(self, reader: FeedReader, place: FeedPosition, limit: int) -> FeedBatch:
        """Return the events from `place` on, from `limit` entries at most. All leads among them have been exposed."""
        entries = await self.entries(reader, place, limit + 1)
        events = [await self.show(reader, entry) for entry in entries[:limit]]
        has_more = len(entries) > limit
        if has_more:
            after = entries[limit - 1].position
        else:
            after = max(place.after, place.last_seen, *(entry.position for entry in entries))
        return FeedBatch(
            events=tuple(event for event in events if event is not None),
            place=FeedPosition(after=after, last_seen=place.last_seen),
            has_more=has_more,
        )

    # The inbox

    async def open_inbox(self, reader: FeedReader) -> tuple[InboxLead, ...]:
        """Return the leads that a member may take now, newest first. Exposes nothing.

        Also close the inbox's breaker, because somebody is looking.
        """
        async with session(self._pool) as connection:
            await store.close_inbox_breaker(connection, reader.business_id)
            return await store.list_inbox(connection, reader.business_id, reader.mode)

    async def take(self, reader: FeedReader, assignment_id: UUID) -> tuple[TakeOutcome, InboxLead]:
        """Take a lead that waits in the inbox for the reader: it is exposed, then delivered and charged.

        The contact is read before the charge, so that nobody pays for a lead that cannot be shown. Of several calls at
        once one takes the lead. Raises NotFound for a lead that never waited in this inbox, and Unavailable if it
        cannot be shown now.
        """
        async with session(self._pool) as connection:
            waiting = await store.find_inbox_lead(connection, assignment_id, reader.business_id, reader.mode)
            case = await delivery_store.find_delivery(connection, assignment_id)
        if waiting is None or case is None:
            raise errors.NotFound("There is no lead with this id in your inbox.")
        if case.state not in OPEN_ASSIGNMENT:
            return _outcome_of(case.state), waiting
        if case.withdrawn:
            return TakeOutcome.withdrawn, waiting
        exposure = await self._expose(reader, case, case.read_at)
        if exposure is None:
            return await self._explain_missed(assignment_id), waiting
        sealed, _ = await asyncio.gather(self._read_contact(reader, case), self._write_journal(exposure))
        if sealed is None:
            return TakeOutcome.withdrawn, waiting
        await failpoints.reach("after_read_before_write")
        receipt, state = await self._settle(reader, assignment_id, TAKEN)
        if receipt is AcknowledgementOutcome.acknowledged:
            return TakeOutcome.taken, waiting
        return _outcome_of(state), waiting

    async def _explain_missed(self, assignment_id: UUID) -> TakeOutcome:
        """Return why a lead that was open a moment ago could not be exposed."""
        async with session(self._pool) as connection:
            case = await delivery_store.find_delivery(connection, assignment_id)
        if case is not None and case.withdrawn:
            return TakeOutcome.withdrawn
        return TakeOutcome.missed if case is None else _outcome_of(case.state)

    async def _expose(self, reader: FeedReader, case: DeliveryCase, now: datetime) -> JournalExposure | None:
        """Return the exposure to this business, committed now or earlier; None if the lead may not be exposed."""
        reader_sha256 = sha256(reader.name.encode()).digest()
        position, exposed_at = None, case.exposed_at
        if exposed_at is None:
            await failpoints.reach("after_connect_before_expose")
            async with session(self._exposing) as connection:
                exposure = await store.expose(
                    connection,
                    case,
                    reader.business_id,
                    reader.name,
                    reader_sha256,
                    now,
                    now + EVIDENCE_WINDOW,
                    reader.channel,
                )
                if exposure is None:
                    return None
                await failpoints.reach("after_expose_before_read", connection)
            position, exposed_at = exposure.position, now
        return delivery_store.exposure_of(case, reader.channel, reader_sha256, reader.name, None, exposed_at, position)

    async def _read_contact(self, reader: FeedReader, case: DeliveryCase) -> SealedContact | None:
        """Return the sealed contact, and record the reveal if an operator opened this access.

        The reader's own business is passed, not the case's: the database checks that the lead was exposed to it.
        """
        async with session(self._pool) as connection:
            await access.record_reveals(connection, reader.opened, reader.name, (case.lead_id,))
            return await delivery_store.read_contact(connection, case.lead_id, reader.business_id)

    async def _write_journal(self, exposure: JournalExposure) -> None:
        """Write the exposure to the journal. Raises Unavailable.

        This happens on each showing until the lead is acknowledged, because the process that showed it first may have
        died before it wrote.
        """
        try:
            await self._journal.append(exposure)
        except JournalError as error:
            metrics.JOURNAL_FAILED.inc()
            log.error("journal_failed", assignment=str(exposure.assignment_id), error=str(error))
            raise errors.Unavailable("journal") from error

    # Acknowledgements

    async def acknowledge(self, reader: FeedReader, through: int) -> AcknowledgementTotals:
        """Acknowledge every event up to the position `through`: its leads are delivered and charged.

        A repeated call changes nothing. At most MOST_ACKNOWLEDGED events are acknowledged by one call. Raises
        InvalidInput for a position beyond the end of the feed.
        """
        async with session(self._pool) as connection:
            last = await store.find_last(connection, reader.business_id, reader.mode)
            if through > last:
                raise errors.InvalidInput((_beyond("/through", last),))
            entries = await store.list_unacknowledged(
                connection, reader.business_id, reader.mode, through, MOST_ACKNOWLEDGED + 1
            )
        receipts = []
        for entry in entries[:MOST_ACKNOWLEDGED]:
            if entry.notice_id is not None:
                receipts.append(await self._acknowledge_notice(reader, entry, entry.notice_id))
            else:
                receipts.append((await self._settle(reader, entry.assignment_id, ACKNOWLEDGED))[0])
        return AcknowledgementTotals(
            through=through,
            acknowledged=receipts.count(AcknowledgementOutcome.acknowledged),
            late=receipts.count(AcknowledgementOutcome.late),
            has_more=len(entries) > MOST_ACKNOWLEDGED,
        )

    async def acknowledge_lead(
        self, reader: FeedReader, lead_id: UUID
    ) -> tuple[AcknowledgementOutcome, AssignmentState]:
        """Acknowledge one lead, by whichever channel it was shown, and return its state. Raises NotFound."""
        async with session(self._pool) as connection:
            assignment_id = await store.find_shown(connection, lead_id, reader.business_id, reader.mode)
        if assignment_id is None:
            raise errors.NotFound("There is no lead with this id that you were shown.")
        return await self._settle(reader, assignment_id, ACKNOWLEDGED)

    async def _settle(
        self, reader: FeedReader, assignment_id: UUID, by: SettlementEvidence
    ) -> tuple[AcknowledgementOutcome, AssignmentState]:
        """Record the acknowledgement, the assignment's new state, the money and the audit row in one transaction."""
        async with session(self._pool) as connection:
            case = await delivery_store.find_delivery(connection, assignment_id)
            if case is None:
                raise errors.NotFound("There is no lead with this id that you were shown.")
            shares = await load_shares(connection, case.price) if case.revision > 0 else ()
        now = case.read_at
        async with transaction(self._exposing) as connection:
            state = await delivery_store.lock_delivery(connection, case)
            if state is AssignmentState.exposed:
                await delivery_store.mark_settled(
                    connection, case, AssignmentState.delivered, by.reason, by.evidence, now
                )
                if case.mode == "live":
                    await money.capture(connection, case.price, now, shares)
            is_first = await store.mark_acknowledged(connection, assignment_id, now)
            receipt = _receipt(state, is_first)
            if receipt is not AcknowledgementOutcome.repeated:
                subject = ids.encode("lead", case.lead_id)
                await audit.record(connection, now, reader.name, by.action, subject, late=receipt == "late")
        await failpoints.reach("after_settle_commit")
        return receipt, AssignmentState.delivered if state is AssignmentState.exposed else state

    async def _acknowledge_notice(
        self, reader: FeedReader, entry: FeedEntry, notice_id: UUID
    ) -> AcknowledgementOutcome:
        """Record that the business has read a notice, at the notice and in the feed."""
        async with transaction(self._pool) as connection:
            await notices_flow.mark_acknowledged(connection, notice_id, reader.name)
            is_first = await store.mark_notice_acknowledged(connection, notice_id, clock.now())
        return AcknowledgementOutcome.acknowledged if is_first else AcknowledgementOutcome.repeated

    # Tickets

    async def issue_ticket(self, caller: Principal) -> tuple[str, datetime]:
        """Return a ticket and its expiry. It opens one stream in the caller's name, so no key has to be in a URL.

        Expired tickets are deleted on the way.
        """
        text, now = clock.random_bytes(TICKET_BYTES).hex(), clock.now()
        ticket = TicketRow(key_id=caller.key_id, expires_at=now + TICKET_LIFE)
        async with transaction(self._pool) as connection:
            await store.forget_tickets(connection, now)
            await store.insert_ticket(connection, self._hash(text), ticket)
        return text, ticket.expires_at

    async def redeem_ticket(self, text: str) -> Principal:
        """Use up the ticket and return the caller to whom it was issued.

        Raises NotAuthenticated for an unknown, used or expired ticket; KeyRevoked and KeyExpired as the key itself
        would.
        """
        now = clock.now()
        async with session(self._pool) as connection:
            ticket = await store.take_ticket(connection, self._hash(text))
        if ticket is None or ticket.expires_at <= now:
            raise errors.NotAuthenticated("This ticket is not known, was used or is too old: POST /v1/feed/tickets.")
        return await auth.load_principal(self._pool, ticket.key_id, now)

    def _hash(self, text: str) -> bytes:
        """Return the keyed hash under which a ticket is stored."""
        return self._sealer.keyed_hash("feed-ticket", text)


def _receipt(state: AssignmentState, is_first: bool) -> AcknowledgementOutcome:
    """Return the result of an acknowledgement from the state before it, and whether it is the first of this event."""
    if state is AssignmentState.exposed:
        return AcknowledgementOutcome.acknowledged
    late = state in (AssignmentState.lapsed, AssignmentState.refused)
    return AcknowledgementOutcome.late if late and is_first else AcknowledgementOutcome.repeated


def _outcome_of(state: AssignmentState) -> TakeOutcome:
    """Return the result of taking a lead in this state, which another call has changed or is changing."""
    ours = (AssignmentState.exposed, AssignmentState.delivered, AssignmentState.returned)
    return TakeOutcome.repeated if state in ours else TakeOutcome.missed


def _event(entry: FeedEntry, body: bytes) -> FeedItem:
    return FeedItem(sequence=entry.position, kind=entry.kind, body=msgspec.Raw(body))


def _beyond(pointer: str, last: int) -> Fault:
    return Fault(pointer=pointer, code=FaultCode.out_of_range, detail=f"Your feed has come to {last} so far.")
