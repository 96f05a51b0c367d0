"""Stage 1: from a provider's bytes to an accepted inquiry on disk, or to all of its faults.

    load the vertical and the postal area → read the inquiry (pure) → one call: person window, inquiry, lead, sealed
    contact → a notification

The next stage receives the id alone. The answer follows the commit, and the same submission gets the same answer.
"""

import asyncio
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import chain, repeat
from typing import Final, Protocol
from uuid import UUID

import msgspec

from marketplace.certificates import store as certificates_store
from marketplace.certificates.services import CertificateClaim
from marketplace.certificates.store import NewCertificate
from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.intake import store as intake_store
from marketplace.intake.contact import marks_with_hashes, window_key, window_marks
from marketplace.intake.postal import PostalArea, PostalBook
from marketplace.intake.reading import AcceptedInquiry, Faults, decode_inquiry, faults_of, read_inquiry
from marketplace.intake.shapes import ContactBody, InquiryBody
from marketplace.intake.store import EarlierInquiry, InquiryStatus, JoinedLead, NewInquiry, PersonKeys
from marketplace.rules.catalog import Catalog, Vertical
from marketplace.runtime import clock, failpoints
from marketplace.runtime.errors import (
    Conflict,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InvalidInput,
    NotFound,
    ProviderReferenceReused,
)
from marketplace.runtime.queue import Notifier
from marketplace.security.auth import Principal
from marketplace.security.sealing import SealedContact, Sealer
from marketplace.web.http import refusal
from marketplace.web.partial import merge, read_partly
from routing.certificate import CertificateKind, certificate_key
from routing.inquiry import Mode
from routing.joining import RepeatInquiries, join_reason
from routing.lifecycle import LeadState
from routing.qualification import Nurture, Prospect, Rejection, qualify
from routing.unlocking import UnlockSummary, find_unlocks

NOTIFY_GRACE: Final = timedelta(seconds=1)
"Time after which the sweeper finds a lead whose notification was lost."

WINDOW_SLACK: Final = timedelta(days=2)
"Addition to a vertical's window, which runs from receipt: an exposure follows within 25 hours, so two days cover it."

STILL_MOVING: Final = frozenset({LeadState.received, LeadState.prospect, LeadState.held, LeadState.exposed})
"States that a lead usually leaves within seconds."

WAIT_STEPS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"Seconds between two queries while a provider waits for the outcome; the last step repeats."


class SubmissionReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of one submission at intake. `replayed`: the same submission has had this answer before.

    `reason` is that of a duplicate that joined an earlier lead, where its provider may know.
    """

    id: UUID
    state: LeadState
    mode: str
    received_at: datetime
    replayed: bool = False
    reason: str | None = None


class InquiryDryRun(msgspec.Struct, frozen=True, kw_only=True):
    """Verdict that an inquiry which passes every check would get now, and the inquiry as it was read."""

    outcome: Prospect | Nurture | Rejection
    would: str
    accepted: AcceptedInquiry


class Join(Protocol):
    """Step by which a repeated inquiry joins the earlier lead of its person, in the caller's transaction."""

    async def __call__(
        self, connection: Connection, new: NewInquiry, vertical: Vertical, person: PersonKeys
    ) -> JoinedLead | None:
        """Return the lead that has the answers of the inquiry now, or None if it joins none."""


class _SubmissionConflict(Exception):
    """Rolls the transaction back: the person, the key or the reference is taken."""

    def __init__(self, state: LeadState | None = None) -> None:
        self.state = state


class Intake:
    """Intake of inquiries in one process."""

    def __init__(
        self,
        pool: Pool,
        catalog: Catalog,
        postal: PostalBook,
        sealer: Sealer,
        notifier: Notifier,
        join: Join | None = None,
    ) -> None:
        """Keep what intake needs. `join` lets a repeated inquiry join the earlier lead; without it, none does."""
        self._join = join
        self._pool = pool
        self._catalog = catalog
        self._postal = postal
        self._sealer = sealer
        self._notifier = notifier
        self._notifications: set[asyncio.Task[bool]] = set()

    async def receive(self, caller: Principal, body: InquiryBody, raw: bytes, key: str | None) -> SubmissionReceipt:
        """Take in one inquiry; it is on disk when this returns.

        Raises InvalidInput with all faults, IdempotencyKeyMissing, IdempotencyKeyReused, ProviderReferenceReused.
        """
        if key is None and body.provider_reference is None:
            raise IdempotencyKeyMissing("Send an Idempotency-Key header, or a provider_reference in the body.")
        now = clock.now()
        request_sha256 = sha256(raw).digest()
        vertical, accepted = await self._load_and_read(caller, body, now)
        if vertical is None or isinstance(accepted, tuple):
            # What was accepted once gets its answer again, though it is too old or the rules have changed by now.
            if earlier := await self._replay(caller, key, body.provider_reference, request_sha256):
                return earlier
            raise InvalidInput(faults_of(accepted))
        new = NewInquiry(
            id=clock.new_id(),
            provider_id=caller.owner,
            vertical_id=vertical.id,
            mode=caller.mode,
            provider_reference=accepted.provider_reference,
            idempotency_key=key,
            request_sha256=request_sha256,
            facts=accepted.facts,
            consent_sha256=accepted.consent_sha256,
            consent_given_at=accepted.consent_given_at,
            received_at=now,
            contact_fields=accepted.contact.filled_fields(),
        )
        person = self._hash_person(new, accepted, vertical)
        try:
            await self._take(new, accepted, person)
        except _SubmissionConflict as taken:
            earlier = await self._replay(caller, key, new.provider_reference, request_sha256)
            return earlier or await self._turn_away(caller, new, taken.state, vertical, person)
        await failpoints.reach("after_intake_commit_before_answer")
        await self._notify(new.id)
        return SubmissionReceipt(id=new.id, state=LeadState.received, mode=new.mode, received_at=now)

    def _hash_person(self, new: NewInquiry, accepted: AcceptedInquiry, vertical: Vertical) -> PersonKeys:
        """Return the keyed hashes of the person of an inquiry, and the end of the window that its lead would have."""
        window = window_marks(accepted.contact, Mode(new.mode), vertical.definition.same_person)
        marks = [fingerprint.partition(":")[2] for fingerprint in accepted.fingerprints]  # without the mode
        return PersonKeys(
            window=tuple(window_key(self._sealer, mark) for mark in window.own),
            shared=tuple(window_key(self._sealer, mark) for mark in window.shared),
            person=tuple(self._sealer.keyed_hash("suppression", mark) for mark in marks_with_hashes(marks)),
            protected_until=new.received_at + timedelta(days=vertical.definition.window_days) + WINDOW_SLACK,
        )

    async def _take(self, new: NewInquiry, accepted: AcceptedInquiry, person: PersonKeys) -> None:
        """Store the inquiry. Raises _SubmissionConflict, with nothing written, if its person, key or reference is
        taken."""
        sealed = self._sealer.seal_contact(new.id, msgspec.json.encode(accepted.contact))
        consent_until = accepted.contact.consent.expires_at
        certificates = self._new_certificates(new, accepted, sealed)
        opening = transaction if consent_until is not None or certificates else session
        async with opening(self._pool) as connection:
            insertion = intake_store.take_inquiry(
                connection,
                new,
                sealed,
                new.received_at + NOTIFY_GRACE,
                person,
            )
            state = await failpoints.amid("amid_intake", insertion, connection)
            if state is not LeadState.received:
                raise _SubmissionConflict(state)
            if consent_until is not None:
                await intake_store.mark_consent_end(connection, new.id, consent_until)
            if certificates:
                await certificates_store.insert_certificates(connection, new.id, certificates, new.received_at)

    def _new_certificates(
        self, new: NewInquiry, accepted: AcceptedInquiry, sealed: SealedContact
    ) -> tuple[NewCertificate, ...]:
        """Return the certificates of a live inquiry with their sealed claims. Those of a test are never claimed."""
        if new.mode != Mode.live:
            return ()
        contact = accepted.contact
        certificates = []
        for token, kind in zip(contact.consent.certificates, _kinds(accepted), strict=True):
            claim = CertificateClaim(
                key=certificate_key(token),
                phone=contact.phone,
                email=contact.email,
                page_url=contact.consent.page_url,
            )
            box = self._sealer.seal_claim(new.id, sealed, msgspec.json.encode(claim))
            certificates.append(NewCertificate(kind=kind, token_sha256=sha256(token.encode()).digest(), box=box))
        return tuple(certificates)

    async def _turn_away(
        self, caller: Principal, new: NewInquiry, state: LeadState | None, vertical: Vertical, person: PersonKeys
    ) -> SubmissionReceipt:
        """Store a duplicate or a suppressed person's inquiry: an outcome, not an error.

        A duplicate joins the earlier lead of the person in the same transaction, where the vertical says so. Its
        answer is the same whether it could or not, unless its provider may know.
        """
        if state is None:
            raise Conflict("The same inquiry is being taken in right now. Send it again in a second.")
        joins = vertical.definition.repeat_inquiries is RepeatInquiries.joined and state is LeadState.duplicate
        joined = reason = None
        try:
            async with transaction(self._pool) as connection:
                if joins and self._join is not None:
                    joined = await self._join(connection, new, vertical, person)
                if joined is not None and vertical.definition.provider_may_know:
                    reason = join_reason(vertical.definition.pay_joined, in_time=joined.in_time)
                if not await intake_store.insert_turned_away(connection, new, state, joined, reason):
                    raise _SubmissionConflict
        except _SubmissionConflict:
            earlier = await self._replay(caller, new.idempotency_key, new.provider_reference, new.request_sha256)
            if earlier is None:
                raise Conflict("The same inquiry is being taken in right now. Send it again in a second.") from None
            return earlier
        if joined is not None and joined.waits:
            await self._notify(joined.lead_id)
        return SubmissionReceipt(id=new.id, state=state, mode=new.mode, received_at=new.received_at, reason=reason)

    async def _replay(
        self, caller: Principal, key: str | None, reference: str | None, request_sha256: bytes
    ) -> SubmissionReceipt | None:
        """Return the answer to the same submission from before, or None if this is the first.

        Raises IdempotencyKeyReused or ProviderReferenceReused if the submission from before had another body.
        """
        async with session(self._pool) as connection:
            earlier = await intake_store.find_earlier(connection, caller.owner, caller.mode, key, reference)
        if earlier is None:
            return None
        if earlier.request_sha256 != request_sha256:
            raise _reused(earlier)
        return SubmissionReceipt(
            id=earlier.id,
            state=earlier.received_as,
            mode=earlier.mode,
            received_at=earlier.received_at,
            replayed=True,
            reason=earlier.reason,
        )

    async def read(self, caller: Principal, raw: bytes) -> InquiryBody:
        """Return the posted bytes as a body.

        Raises UnreadableBody, or InvalidInput with all faults of its shape and of the content of the readable fields.
        """
        body = decode_inquiry(raw)
        if not isinstance(body, tuple):
            return body
        partial = None if any(fault.unreadable for fault in body) else read_partly(raw, InquiryBody)
        if partial is None:
            raise refusal(body)
        _, outcome = await self._load_and_read(caller, partial, clock.now())
        raise refusal(merge(body, faults_of(outcome)))

    async def _load_and_read(
        self, caller: Principal, body: InquiryBody, now: datetime
    ) -> tuple[Vertical | None, AcceptedInquiry | Faults]:
        """Load the vertical and the postal area, and read the inquiry by them. An unknown vertical is None."""
        vertical = await self._find_vertical(body.vertical)
        rules = vertical.definition.intake_rules(vertical.slug) if vertical else None
        area = await self._find_area(body.contact)
        return vertical, read_inquiry(body, rules, area, mode=Mode(caller.mode), now=now)

    async def _find_vertical(self, slug: str) -> Vertical | None:
        """Find a vertical, which may be newer than the rules that this process keeps."""
        rules = await self._catalog.recent()
        return rules.by_slug.get(slug) or (await self._catalog.current()).by_slug.get(slug)

    async def _find_area(self, contact: ContactBody) -> PostalArea | None:
        if not contact.postal_code:
            return None
        return await self._postal.find(self._pool, contact.country.upper(), contact.postal_code)

    async def dry_run(self, caller: Principal, body: InquiryBody) -> InquiryDryRun:
        """Check and qualify an inquiry without writing anything. Raises InvalidInput with all faults."""
        now = clock.now()
        vertical, accepted = await self._load_and_read(caller, body, now)
        if vertical is None or isinstance(accepted, tuple):
            raise InvalidInput(faults_of(accepted))
        definition = vertical.definition
        outcome = qualify(accepted.facts, definition.needs, definition.policy(vertical.version), now)
        would = {Prospect: "prospect", Nurture: "nurturing", Rejection: "rejected"}[type(outcome)]
        return InquiryDryRun(outcome=outcome, would=would, accepted=accepted)

    async def status(self, caller: Principal, lead_id: UUID) -> InquiryStatus:
        """Return where an inquiry stands. Raises NotFound, alike for an unknown inquiry and another provider's."""
        async with session(self._pool) as connection:
            status = await intake_store.find_status(connection, lead_id, caller.owner, caller.mode)
        if status is None:
            raise NotFound("There is no inquiry of yours with this id.")
        return status

    async def unlocks(self, caller: Principal, lead_id: UUID) -> UnlockSummary | None:
        """Return what would unlock a waiting inquiry of the caller; None for any other, without a decision."""
        async with session(self._pool) as connection:
            case = await intake_store.find_nurtured(connection, lead_id, caller.owner, caller.mode)
        if case is None:
            return None
        rules = await self._catalog.at_least(case.catalog_version)
        vertical = rules.verticals[case.vertical_id]
        return await asyncio.to_thread(
            find_unlocks, case, vertical.definition, vertical.version, rules.index, clock.now()
        )

    async def list_statuses(self, caller: Principal, before: UUID | None, limit: int) -> tuple[InquiryStatus, ...]:
        """Return one page of the caller's inquiries, newest first."""
        async with session(self._pool) as connection:
            return await intake_store.list_statuses(connection, caller.owner, caller.mode, before, limit)

    async def outcome(self, caller: Principal, lead_id: UUID, seconds: float) -> InquiryStatus:
        """Return the status once the lead has left the states of STILL_MOVING, or after `seconds` at the latest."""
        deadline = clock.monotonic() + seconds
        steps = chain(WAIT_STEPS, repeat(WAIT_STEPS[-1]))
        while True:
            async with session(self._pool) as connection:
                state = await intake_store.find_state(connection, lead_id)
            remaining = deadline - clock.monotonic()
            if state not in STILL_MOVING or remaining <= 0:
                return await self.status(caller, lead_id)
            await asyncio.sleep(min(remaining, next(steps)))

    async def _notify(self, lead_id: UUID) -> None:
        """Start to notify a worker, without waiting for the end.

        A lost notification costs a second, and an absent Valkey must not delay the answer. The sleep lets the task send
        before the answer is written.
        """
        task = asyncio.create_task(self._notifier.notify("walk", lead_id))
        self._notifications.add(task)
        task.add_done_callback(self._notifications.discard)
        await asyncio.sleep(0)


def _kinds(accepted: AcceptedInquiry) -> tuple[CertificateKind, ...]:
    return accepted.facts.consent.certificates if accepted.facts.consent else ()


def _reused(earlier: EarlierInquiry) -> IdempotencyKeyReused | ProviderReferenceReused:
    when = f"{earlier.received_at:%Y-%m-%d %H:%M:%S} UTC"
    if earlier.same_key:
        return IdempotencyKeyReused(f"This key came with another body at {when}. Use a new key for a new inquiry.")
    return ProviderReferenceReused(f"This provider_reference came with another body at {when}. Use a new one.")
