"""A business reads its feed: each lead is exposed to it just before its event leaves, and paid for when acknowledged.

    places after the reader's → one transaction: exposure → journal → contact → event
    acknowledgement → one transaction: delivered + money

The worker has put each lead that was awarded to a feed in its place there, and releases it when nobody has read it
within the hold window. Until then nothing has left us; once exposed it is nobody else's, and without an acknowledgement
it lapses. The order of places is the order in which they were committed, so that a reader who names the last place it
has seen misses nothing.
"""

import asyncio
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec

from marketplace import access, audit, auth, clock, errors, failpoints, ids, metrics, money
from marketplace.auth import Opened, Principal
from marketplace.db import Pool, session, transaction
from marketplace.delivery import store as deliveries
from marketplace.delivery.flow import compose
from marketplace.delivery.store import Case
from marketplace.erasure import flow as erasures
from marketplace.erasure import store as erased
from marketplace.faults import Code, Fault
from marketplace.feed import store
from marketplace.feed.store import Entry, EventKind, Ticket
from marketplace.journal import Exposure, Journal, JournalError
from marketplace.log import logger
from marketplace.sealing import Sealed, Sealer
from routing.delivery import EVIDENCE_WINDOW
from routing.lifecycle import AssignmentState

log = logger("api")

TICKET_LIFE: Final = timedelta(seconds=60)
"From the answer that holds a ticket to the stream that it opens."
TICKET_BYTES: Final = 32
MOST_ACKNOWLEDGED: Final = 500
"Leads settled by one call, each in a transaction of milliseconds."
SHOWN: Final = frozenset({AssignmentState.held, AssignmentState.exposed, AssignmentState.delivered})
"States in which a lead is shown by its feed: one that was refused, lapsed or given back is not shown again."
ACKNOWLEDGED: Final = "acknowledged"
"The reason of a lead that its business said it has."


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody of a business who reads its feed of one mode; `name`, their key's or member's id, goes on record."""

    business_id: UUID
    mode: str
    name: str
    opened: Opened | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a reader is: everything up to `after` was shown; up to `seen` only what is still open is shown again."""

    after: int = 0
    seen: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What the feed tells at one place; `body` is JSON, and that of a lead holds its contact."""

    sequence: int
    kind: EventKind
    body: msgspec.Raw


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Events in their order, and where to read on."""

    events: tuple[Event, ...]
    place: Place
    has_more: bool


class Receipt(StrEnum):
    """What one acknowledgement led to."""

    acknowledged = "acknowledged"
    "The business has the lead, and is charged; or it knows of the erasure."
    repeated = "repeated"
    "It was acknowledged before: nothing has changed."
    late = "late"
    "The lead had ended without: recorded, and not charged."


class Receipts(msgspec.Struct, frozen=True, kw_only=True):
    """What an acknowledgement of a whole run of events led to."""

    through: int
    acknowledged: int
    late: int
    has_more: bool


class Feed:
    """What readers do. `pool` is the api's; `exposing` acts as the one role that may show a lead and settle it."""

    def __init__(self, pool: Pool, exposing: Pool, sealer: Sealer, journal: Journal) -> None:
        self._pool = pool
        self._exposing = exposing
        self._sealer = sealer
        self._journal = journal

    async def begin(self, reader: Reader, last_seen: int | None) -> Place:
        """Where to begin: after `last_seen`, or where nobody remembers at the end; and with what is open before that.

        Somebody reads again, so that the feed may have new leads at once. Raises InvalidInput for a place that the
        feed has not come to.
        """
        async with session(self._pool) as connection:
            await store.close_breaker(connection, reader.business_id)
            last = await store.find_last(connection, reader.business_id, reader.mode)
            oldest = await store.find_oldest_open(connection, reader.business_id, reader.mode)
        seen = last if last_seen is None else last_seen
        if seen > last:
            raise errors.InvalidInput((_beyond("/after", last),))
        return Place(after=seen if oldest is None else min(seen, oldest - 1), seen=seen)

    async def entries(self, reader: Reader, place: Place, limit: int) -> tuple[Entry, ...]:
        """The next places, to `show` one after the other. Nothing has left us yet."""
        async with session(self._pool) as connection:
            return await store.list_entries(connection, reader.business_id, reader.mode, place.after, place.seen, limit)

    async def show(self, reader: Reader, entry: Entry) -> Event | None:
        """The event at this place, the exposure committed and journaled; None where there is nothing to show any more.

        None too where it cannot be made, which is an alarm in the log and stops no reader: its lead ends by the
        deadlines of its assignment. Raises Unavailable when it cannot be shown now: the same place is then to be asked
        for again.
        """
        try:
            return await self._show(reader, entry)
        except errors.MarketplaceError:
            raise
        except Exception as error:  # whatever is wrong with one event, those behind it are shown
            log.error("event_not_shown", assignment=str(entry.assignment_id), error=type(error).__name__)
            return None

    async def _show(self, reader: Reader, entry: Entry) -> Event | None:
        if entry.kind is EventKind.erased:
            async with session(self._pool) as connection:
                erasure = await erased.find_erasure(connection, entry.lead_id)
            return None if erasure is None else _event(entry, erasures.compose_notice(erasure, clock.now()))
        if entry.state not in SHOWN:
            return None
        async with session(self._pool) as connection:
            case = await deliveries.find_delivery(connection, entry.assignment_id)
        if case is None or case.state not in SHOWN or case.withdrawn:
            return None
        now = case.read_at
        exposure = await self._expose(reader, case, now)
        if exposure is None:
            return None
        fresh = () if case.state is AssignmentState.delivered else (self._keep(exposure),)
        sealed, *_ = await asyncio.gather(self._read_contact(reader, case), *fresh)
        if sealed is None:
            return None
        body = compose(case, self._sealer.open_contact(case.lead_id, sealed), now)
        await failpoints.reach("after_read_before_write")
        return _event(entry, body)

    async def read(self, reader: Reader, place: Place, limit: int) -> Batch:
        """As many events as there are from `place` on, `limit` at most; every one of them has been exposed."""
        entries = await self.entries(reader, place, limit + 1)
        events = [await self.show(reader, entry) for entry in entries[:limit]]
        more = len(entries) > limit
        after = entries[limit - 1].position if more else max(place.after, place.seen, *(e.position for e in entries))
        return Batch(
            events=tuple(event for event in events if event is not None), place=Place(after=after, seen=place.seen),
            has_more=more,
        )  # fmt: skip

    async def _expose(self, reader: Reader, case: Case, now: datetime) -> Exposure | None:
        """The exposure to this business, committed now or when the lead was shown before. None where it is not held."""
        reader_sha256, position, exposed_at = sha256(reader.name.encode()).digest(), None, case.exposed_at
        if exposed_at is None:
            await failpoints.reach("after_connect_before_expose")
            async with session(self._exposing) as connection:
                shown = await store.expose(
                    connection, case, reader.business_id, reader.name, reader_sha256, now, now + EVIDENCE_WINDOW
                )
                if shown is None:
                    return None
                await failpoints.reach("after_expose_before_read", connection)
            position, exposed_at = shown.position, now
        return deliveries.exposure_of(case, "feed", reader_sha256, reader.name, None, exposed_at, position)

    async def _read_contact(self, reader: Reader, case: Case) -> Sealed | None:
        """For the reader's own business, whatever the case says: the door asks whether that one was exposed to."""
        async with session(self._pool) as connection:
            await access.record_reveals(connection, reader.opened, reader.name, (case.lead_id,))
            return await deliveries.read_contact(connection, case.lead_id, reader.business_id)

    async def _keep(self, exposure: Exposure) -> None:
        """On disk outside the database too, each time until it is acknowledged: the first to show it may have died.

        Raises Unavailable.
        """
        try:
            await self._journal.append(exposure)
        except JournalError as error:
            metrics.JOURNAL_FAILED.inc()
            log.error("journal_failed", assignment=str(exposure.assignment_id), error=str(error))
            raise errors.Unavailable("journal") from error

    # Acknowledgements

    async def acknowledge(self, reader: Reader, through: int) -> Receipts:
        """Everything up to this place that was shown: the business has it, and is charged. Once more changes nothing.

        Raises InvalidInput for a place that the feed has not come to.
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
            if entry.kind is EventKind.erased:
                receipts.append(await self._note_erasure(reader, entry))
            else:
                receipts.append((await self._settle(reader, entry.assignment_id))[0])
        return Receipts(
            through=through,
            acknowledged=receipts.count(Receipt.acknowledged),
            late=receipts.count(Receipt.late),
            has_more=len(entries) > MOST_ACKNOWLEDGED,
        )

    async def acknowledge_lead(self, reader: Reader, lead_id: UUID) -> tuple[Receipt, AssignmentState]:
        """As `acknowledge`, for one lead, by whichever channel it was shown. Raises NotFound."""
        async with session(self._pool) as connection:
            assignment_id = await store.find_shown(connection, lead_id, reader.business_id, reader.mode)
        if assignment_id is None:
            raise errors.NotFound("There is no lead with this id that you were shown.")
        return await self._settle(reader, assignment_id)

    async def _settle(self, reader: Reader, assignment_id: UUID) -> tuple[Receipt, AssignmentState]:
        """One transaction: what the acknowledgement means for the assignment, the money, and who said it."""
        async with session(self._pool) as connection:
            case = await deliveries.find_delivery(connection, assignment_id)
        if case is None:
            raise errors.NotFound("There is no lead with this id that you were shown.")
        now = case.read_at
        async with transaction(self._exposing) as connection:
            state = await deliveries.lock_delivery(connection, case)
            if state is AssignmentState.exposed:
                await deliveries.mark_settled(
                    connection, case, AssignmentState.delivered, ACKNOWLEDGED, "acknowledgement", now
                )
                if case.mode == "live":
                    await money.capture(connection, case.price, now)
            first = await store.mark_acknowledged(connection, assignment_id, EventKind.assigned, now)
            receipt = _receipt(state, first)
            if receipt is not Receipt.repeated:
                subject = ids.encode("lead", case.lead_id)
                await audit.record(connection, now, reader.name, "lead.acknowledge", subject, late=receipt == "late")
        await failpoints.reach("after_settle_commit")
        return receipt, AssignmentState.delivered if state is AssignmentState.exposed else state

    async def _note_erasure(self, reader: Reader, entry: Entry) -> Receipt:
        async with transaction(self._pool) as connection:
            await erasures.mark_acknowledged(connection, entry.lead_id, reader.name)
            first = await store.mark_acknowledged(connection, entry.assignment_id, EventKind.erased, clock.now())
        return Receipt.acknowledged if first else Receipt.repeated

    # Tickets

    async def issue_ticket(self, caller: Principal) -> tuple[str, datetime]:
        """What opens one stream of the caller's, once, within a minute; safe to stand in a URL."""
        text, now = clock.random_bytes(TICKET_BYTES).hex(), clock.now()
        ticket = Ticket(key_id=caller.key_id, expires_at=now + TICKET_LIFE)
        async with transaction(self._pool) as connection:
            await store.forget_tickets(connection, now)
            await store.insert_ticket(connection, self._hash(text), ticket)
        return text, ticket.expires_at

    async def redeem_ticket(self, text: str) -> Principal:
        """Whoever asked for the ticket, if their key is still good. Raises NotAuthenticated, KeyRevoked, KeyExpired."""
        now = clock.now()
        async with session(self._pool) as connection:
            ticket = await store.take_ticket(connection, self._hash(text))
        if ticket is None or ticket.expires_at <= now:
            raise errors.NotAuthenticated("This ticket is not known, was used or is too old: POST /v1/feed/tickets.")
        return await auth.load_principal(self._pool, ticket.key_id, now)

    def _hash(self, text: str) -> bytes:
        return self._sealer.keyed_hash("feed-ticket", text)


def _receipt(state: AssignmentState, first: bool) -> Receipt:
    if state is AssignmentState.exposed:
        return Receipt.acknowledged
    late = state in (AssignmentState.lapsed, AssignmentState.refused)
    return Receipt.late if late and first else Receipt.repeated


def _event(entry: Entry, body: bytes) -> Event:
    return Event(sequence=entry.position, kind=entry.kind, body=msgspec.Raw(body))


def _beyond(pointer: str, last: int) -> Fault:
    return Fault(pointer=pointer, code=Code.out_of_range, detail=f"Your feed has come to {last} so far.")
