"""Stage 1: from a provider's bytes to an accepted inquiry on disk, or to every reason why not.

    normalise, fingerprint (pure) → one call: person window, inquiry, lead, sealed contact → a notification

Only the id crosses to the next stage. The answer follows the commit, and the same submission gets the same answer.
"""

import asyncio
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Pool, session, transaction
from marketplace.intake import store as intake_store
from marketplace.intake.postal import PostalBook
from marketplace.intake.store import EarlierInquiry, InquiryStatus, NewInquiry
from marketplace.intake.wire import AcceptedInquiry, InquiryBody, lenient_rules, normalise, read_inquiry, without_needs
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
from marketplace.security.sealing import Sealer
from marketplace.text.faults import Fault
from marketplace.web.http import refusal
from marketplace.web.partial import merge, read_partly
from routing.inquiry import IntakeRules, Mode, Touch
from routing.lifecycle import LeadState
from routing.qualification import Nurture, Prospect, Rejection, qualify

NOTIFY_GRACE: Final = timedelta(seconds=1)
"A lead whose notification got lost is found by the sweeper this much later."

WINDOW_SLACK: Final = timedelta(days=2)
"The window runs from receipt, and an exposure follows within 25 hours: two days more cover the promise in full."

STILL_MOVING: Final = frozenset({LeadState.received, LeadState.prospect, LeadState.held, LeadState.exposed})

WAIT_STEPS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"Seconds between looks while a provider waits for the outcome; the last one repeats."


class SubmissionReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one submission at the door. `replayed`: this is the answer that was given before."""

    id: UUID
    state: LeadState
    mode: str
    received_at: datetime
    replayed: bool = False


class InquiryDryRun(msgspec.Struct, frozen=True, kw_only=True):
    """What qualification would say of an inquiry that passes every check, and how it was read."""

    outcome: Prospect | Nurture | Rejection
    would: str
    accepted: AcceptedInquiry


class _SubmissionConflict(Exception):
    """Leaves the transaction without a trace: the person, the key or the reference is taken."""

    def __init__(self, state: LeadState | None = None) -> None:
        self.state = state


class Intake:
    """Takes inquiries in for one process."""

    def __init__(self, pool: Pool, catalog: Catalog, postal: PostalBook, sealer: Sealer, notifier: Notifier) -> None:
        self._pool = pool
        self._catalog = catalog
        self._postal = postal
        self._sealer = sealer
        self._notifier = notifier
        self._notifications: set[asyncio.Task[bool]] = set()

    async def receive(self, caller: Principal, body: InquiryBody, raw: bytes, key: str | None) -> SubmissionReceipt:
        """One inquiry, on disk when this returns.

        Raises InvalidInput with all faults, IdempotencyKeyMissing, IdempotencyKeyReused, ProviderReferenceReused.
        """
        if key is None and body.provider_reference is None:
            raise IdempotencyKeyMissing("Send an Idempotency-Key header, or a provider_reference in the body.")
        now = clock.now()
        request_sha256 = sha256(raw).digest()
        vertical = await self._vertical(caller, body, now)
        try:
            accepted = await self._normalise(body, vertical, caller, now)
        except InvalidInput:
            await self._replay(caller, key, body.provider_reference, request_sha256)  # too old by now, yet taken then
            raise
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
            contact_fields=accepted.contact.given(),
        )
        try:
            await self._take(new, accepted, vertical)
        except _SubmissionConflict as taken:
            earlier = await self._replay(caller, key, accepted.provider_reference, request_sha256)
            return earlier or await self._turn_away(caller, new, taken.state)
        await failpoints.reach("after_intake_commit_before_answer")
        await self._notify(new.id)
        return SubmissionReceipt(id=new.id, state=LeadState.received, mode=new.mode, received_at=now)

    async def _take(self, new: NewInquiry, accepted: AcceptedInquiry, vertical: Vertical) -> None:
        """Raises _Taken, with nothing written, when the person or the submission was here before."""
        sealed = self._sealer.seal_contact(new.id, msgspec.json.encode(accepted.contact))
        keys = [self._sealer.keyed_hash("person", print_) for print_ in accepted.fingerprints]
        refused = [self._sealer.keyed_hash("suppression", print_.partition(":")[2]) for print_ in accepted.fingerprints]
        until = new.received_at + timedelta(days=vertical.definition.window_days) + WINDOW_SLACK
        async with session(self._pool) as connection:
            taking = intake_store.take_inquiry(
                connection, new, sealed, new.received_at + NOTIFY_GRACE, window_keys=keys, person_keys=refused,
                protected_until=until,
            )  # fmt: skip
            state = await failpoints.amid("amid_intake", taking, connection)
        if state is not LeadState.received:
            raise _SubmissionConflict(state)

    async def _turn_away(self, caller: Principal, new: NewInquiry, state: LeadState | None) -> SubmissionReceipt:
        """A duplicate or a suppressed person: an outcome, not an error."""
        if state is None:
            raise Conflict("The same inquiry is being taken in right now. Send it again in a second.")
        try:
            async with transaction(self._pool) as connection:
                if not await intake_store.insert_turned_away(connection, new, state):
                    raise _SubmissionConflict
        except _SubmissionConflict:
            earlier = await self._replay(caller, new.idempotency_key, new.provider_reference, new.request_sha256)
            if earlier is None:
                raise Conflict("The same inquiry is being taken in right now. Send it again in a second.") from None
            return earlier
        return SubmissionReceipt(id=new.id, state=state, mode=new.mode, received_at=new.received_at)

    async def _replay(
        self, caller: Principal, key: str | None, reference: str | None, request_sha256: bytes
    ) -> SubmissionReceipt | None:
        """The answer that the same submission got before; None when there was none."""
        async with session(self._pool) as connection:
            earlier = await intake_store.find_earlier(connection, caller.owner, caller.mode, key, reference)
        if earlier is None:
            return None
        if earlier.request_sha256 != request_sha256:
            raise _reused(earlier)
        return SubmissionReceipt(
            id=earlier.id, state=earlier.received_as, mode=earlier.mode, received_at=earlier.received_at, replayed=True
        )

    async def read(self, caller: Principal, raw: bytes) -> InquiryBody:
        """The posted bytes as a body. Raises UnreadableBody, or InvalidInput with all faults of shape and content."""
        outcome = read_inquiry(raw)
        if not isinstance(outcome, tuple):
            return outcome
        partial = None if any(fault.unreadable for fault in outcome) else read_partly(raw, InquiryBody)
        raise refusal(outcome if partial is None else merge(outcome, await self._content_faults(caller, partial)))

    async def _content_faults(self, caller: Principal, body: InquiryBody) -> tuple[Fault, ...]:
        now = clock.now()
        try:
            await self._normalise(body, await self._vertical(caller, body, now), caller, now)
        except InvalidInput as error:
            return error.faults
        return ()

    async def _vertical(self, caller: Principal, body: InquiryBody, now: datetime) -> Vertical:
        """Raises InvalidInput for an unknown one, with all that is wrong whatever the vertical asks."""
        slug, rules = body.vertical, await self._catalog.recent()
        vertical = rules.by_slug.get(slug) or (await self._catalog.current()).by_slug.get(slug)
        if vertical is not None:
            return vertical
        detail = "Send the slug of a vertical: GET /v1/verticals."
        unknown = Fault(pointer="/vertical", code="vertical_unknown", detail=detail)
        outcome = await self._judge(without_needs(body), lenient_rules(body), caller, now)
        raise InvalidInput((unknown, *(outcome if isinstance(outcome, tuple) else ())))

    async def _normalise(
        self, body: InquiryBody, vertical: Vertical, caller: Principal, now: datetime
    ) -> AcceptedInquiry:
        outcome = await self._judge(body, vertical.definition.intake_rules(vertical.slug), caller, now)
        if isinstance(outcome, tuple):
            raise InvalidInput(outcome)
        return outcome

    async def _judge(
        self, body: InquiryBody, rules: IntakeRules, caller: Principal, now: datetime
    ) -> AcceptedInquiry | tuple[Fault, ...]:
        area = None
        if body.contact.postal_code:
            area = await self._postal.find(self._pool, body.contact.country.upper(), body.contact.postal_code)
        return normalise(body, rules, mode=Mode(caller.mode), now=now, find_area=lambda _country, _code: area)

    async def dry_run(self, caller: Principal, body: InquiryBody) -> InquiryDryRun:
        """Every check and the verdict, with nothing written. Raises InvalidInput with all faults."""
        now = clock.now()
        vertical = await self._vertical(caller, body, now)
        accepted = await self._normalise(body, vertical, caller, now)
        definition = vertical.definition
        outcome = qualify(accepted.facts, definition.needs, definition.policy(vertical.version), now)
        would = {Prospect: "prospect", Nurture: "nurturing", Rejection: "rejected"}[type(outcome)]
        return InquiryDryRun(outcome=outcome, would=would, accepted=accepted)

    async def status(self, caller: Principal, lead_id: UUID) -> InquiryStatus:
        """Raises NotFound, the same for an unknown inquiry and another provider's."""
        async with session(self._pool) as connection:
            found = await intake_store.find_status(connection, lead_id, caller.owner, caller.mode)
        if found is None:
            raise NotFound("There is no inquiry of yours with this id.")
        return found

    async def list_statuses(self, caller: Principal, before: UUID | None, limit: int) -> tuple[InquiryStatus, ...]:
        """One page of the caller's inquiries, newest first."""
        async with session(self._pool) as connection:
            return await intake_store.list_statuses(connection, caller.owner, caller.mode, before, limit)

    async def outcome(self, caller: Principal, lead_id: UUID, seconds: float) -> InquiryStatus:
        """The status once the lead has come to rest, or as it is after `seconds`."""
        deadline = clock.monotonic() + seconds
        looks = 0
        while True:
            async with session(self._pool) as connection:
                state = await intake_store.find_state(connection, lead_id)
            left = deadline - clock.monotonic()
            if state not in STILL_MOVING or left <= 0:
                return await self.status(caller, lead_id)
            await asyncio.sleep(min(left, WAIT_STEPS[min(looks, len(WAIT_STEPS) - 1)]))
            looks += 1

    async def add_touches(self, caller: Principal, lead_id: UUID, touches: tuple[Touch, ...]) -> InquiryStatus:
        """Records later touches; a nurtured lead is qualified again. Raises NotFound."""
        now = clock.now()
        await self.status(caller, lead_id)
        async with transaction(self._pool) as connection:
            await intake_store.insert_touches(connection, lead_id, touches, now)
            again = await intake_store.mark_due_now(connection, lead_id, now)
        if again:
            await self._notify(lead_id)
        return await self.status(caller, lead_id)

    async def _notify(self, lead_id: UUID) -> None:
        """On its way before the answer is written, and not waited for: one that gets lost costs a second, and an absent
        Valkey must not slow an answer."""
        task = asyncio.create_task(self._notifier.notify("walk", lead_id))
        self._notifications.add(task)
        task.add_done_callback(self._notifications.discard)
        await asyncio.sleep(0)


def _reused(earlier: EarlierInquiry) -> IdempotencyKeyReused | ProviderReferenceReused:
    when = f"{earlier.received_at:%Y-%m-%d %H:%M:%S} UTC"
    if earlier.same_key:
        return IdempotencyKeyReused(f"This key came with another body at {when}. Use a new key for a new inquiry.")
    return ProviderReferenceReused(f"This provider_reference came with another body at {when}. Use a new one.")
