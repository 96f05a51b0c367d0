"""Take a person's request to be deleted, carry it out as erasures, and end it when no business has time left.

    open → name the leads → erase each → erased → every notice acknowledged or overdue → done

Each lead is erased in a transaction of its own, by the flow of `marketplace/erasure`. The leads are named first, so
that a request that was interrupted is continued by carrying it out again.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.background import keep_passing
from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.deletions import store as deletions_store
from marketplace.deletions.store import DeletionLead, DeletionRefusal, DeletionRow, DeletionState, LockedRequest
from marketplace.directory.flow import suppress
from marketplace.directory.suppressions import Person, marks_of
from marketplace.erasure import store as erasure_store
from marketplace.erasure.flow import erase_lead
from marketplace.receipts.flow import DeletedLead, DeletionStatement, ReceiptBusiness, Signer
from marketplace.runtime import clock, errors, ids
from marketplace.security import access, audit
from marketplace.security.auth import Principal
from marketplace.security.sealing import Sealer
from marketplace.text.faults import Fault, FaultCode

DEADLINE_DAYS: Final = 45
"Days to answer a request, unless another number is stated: California's limit (Cal. Civ. Code 1798.130(a)(2)(A))."
MOST_DAYS: Final = 90
"Longest deadline: California's limit with its one extension of 45 days."
LONGEST_AGO: Final = timedelta(days=365)
"Limit of the time since a request was received, so that a wrong year is noticed."

LEADS_AT_ONCE: Final = 100
"Leads that are named in one transaction."
MOST_ROUNDS: Final = 100
"Times that further leads of the person are searched for in one call; then it is carried out again by another call."

PASS: Final = "deletions"
PASS_SECONDS: Final = 60.0
"Interval of the search for requests that are done: they have days."
MACHINE: Final = "marketplace"
"Actor of the audit row of a request that was ended by a worker."

NOT_THERE: Final = "There is no deletion request with this id."


class DeletionDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A request with its leads."""

    request: DeletionRow
    leads: tuple[DeletionLead, ...]


async def take_request(
    pool: Pool,
    sealer: Sealer,
    caller: Principal,
    person: Person | UUID,
    *,
    received_at: datetime | None = None,
    deadline_days: int = DEADLINE_DAYS,
    also_suppress: bool = True,
) -> UUID:
    """Record a request of a person, or of the person of a lead, and return its id.

    Of the person, keyed hashes are stored, and the contact sealed until the request ends. Raises InvalidInput for a
    time of receipt in the future or more than a year ago, and NotFound for an unknown lead.
    """
    now = clock.now()
    received_at = received_at or now
    _check_received(received_at, now)
    request_id = clock.new_id()
    async with transaction(pool) as connection:
        if isinstance(person, UUID):
            lead_id, contact, keys = person, None, await _read_keys(connection, caller, person)
        else:
            lead_id, contact = None, sealer.seal_secret(request_id, msgspec.json.encode(person).decode())
            keys = tuple(sealer.keyed_hash("suppression", mark) for mark in marks_of(person))
        request = LockedRequest(
            id=request_id,
            mode=caller.mode,
            state=DeletionState.open,
            keys=keys,
            lead_id=lead_id,
            contact=contact,
            suppresses=also_suppress,
        )
        await deletions_store.insert_request(
            connection,
            request,
            received_at=received_at,
            deadline_at=received_at + timedelta(days=deadline_days),
            requested_by=caller.key_id,
        )
        subject = ids.encode("del", request_id)
        await audit.record(connection, now, caller.key_id, "deletion.request", subject, days=deadline_days)
    return request_id


def _check_received(received_at: datetime, now: datetime) -> None:
    """Raise InvalidInput for a time of receipt in the future or long ago."""
    if now - LONGEST_AGO <= received_at <= now:
        return
    detail = "Give the time at which the request was received: not in the future, and at most a year ago."
    raise errors.InvalidInput((Fault(pointer="/received_at", code=FaultCode.out_of_range, detail=detail),))


async def _read_keys(connection: Connection, caller: Principal, lead_id: UUID) -> tuple[bytes, ...]:
    """Return the keyed hashes of the person of a lead in the caller's mode. Raises NotFound."""
    if not await erasure_store.find_lead(connection, lead_id, caller.mode, None):
        raise errors.NotFound("There is no lead with this id.")
    return await deletions_store.list_keys_of_lead(connection, lead_id)


async def carry_out(pool: Pool, sealer: Sealer, caller: Principal, request_id: UUID) -> DeletionRow:
    """Erase every lead of the person, suppress the person if the request says so, and return the request.

    A repeated call continues one that was interrupted, and changes nothing in a request that is erased or done. Raises
    NotFound, KeyWrongMode for a request of the other mode, and Conflict for a request that was refused, or of a person
    with more leads than one call erases.
    """
    request = await _name_leads(pool, caller, request_id)
    if request.state is DeletionState.open:
        reason = f"Deletion request {ids.encode('del', request_id)}"
        if request.suppresses and request.mode == "live" and request.contact is not None:
            await suppress(pool, sealer, caller, marks_of(_open_contact(sealer, request)), reason)
        await _erase_leads(pool, caller, request, reason)
        await _mark_erased(pool, caller, request_id)
    return await load_request(pool, caller, request_id)


async def _name_leads(pool: Pool, caller: Principal, request_id: UUID) -> LockedRequest:
    """Name up to LEADS_AT_ONCE further leads of the person in an open request.

    Raises NotFound, KeyWrongMode, Conflict.
    """
    async with transaction(pool) as connection:
        request = await _lock_to_change(connection, caller, request_id)
        if request.state is DeletionState.refused:
            raise errors.Conflict("This request was refused. Record a new one to delete the person.")
        if request.state is DeletionState.open:
            lead_ids = await deletions_store.list_unnamed_leads(connection, request, LEADS_AT_ONCE)
            await deletions_store.name_leads(connection, request_id, lead_ids)
    return request


async def _lock(connection: Connection, caller: Principal, request_id: UUID) -> LockedRequest:
    """Lock the request and return it. Raises NotFound."""
    request = await deletions_store.lock_request(connection, request_id)
    if request is None or not caller.sees(request.mode):
        raise errors.NotFound(NOT_THERE)
    return request


async def _lock_to_change(connection: Connection, caller: Principal, request_id: UUID) -> LockedRequest:
    """Lock a request of the caller's own mode and return it. Raises NotFound, KeyWrongMode."""
    request = await _lock(connection, caller, request_id)
    caller.demand_mode(request.mode)
    return request


async def _erase_leads(pool: Pool, actor: Principal, request: LockedRequest, reason: str) -> None:
    """Erase the leads that the request names, and those of the person that are found meanwhile. Raises Conflict."""
    for _ in range(MOST_ROUNDS):
        async with session(pool) as connection:
            lead_ids = await deletions_store.list_unerased_leads(connection, request.id)
        for lead_id in lead_ids:
            await erase_lead(pool, actor, lead_id, reason, also_suppress=request.suppresses)
        await _name_leads(pool, actor, request.id)
        async with session(pool) as connection:
            if not await deletions_store.list_unerased_leads(connection, request.id):
                return
    raise errors.Conflict("This person has more leads than one call erases. Carry the request out again.")


async def _mark_erased(pool: Pool, actor: Principal, request_id: UUID) -> None:
    """Mark the request erased, and done if no business has to acknowledge anything."""
    async with transaction(pool) as connection:
        request = await _lock(connection, actor, request_id)
        now = clock.now()
        if await deletions_store.mark_erased(connection, request.id, now):
            subject = ids.encode("del", request_id)
            await audit.record(connection, now, actor.key_id, "deletion.carry_out", subject)
            await _complete(connection, actor.key_id, now, request_id)


async def refuse(pool: Pool, caller: Principal, request_id: UUID, refusal: DeletionRefusal) -> DeletionRow:
    """Refuse an open request.

    Raises NotFound, KeyWrongMode for a request of the other mode, and Conflict unless it is open and no lead was erased
    for it.
    """
    async with transaction(pool) as connection:
        request = await _lock_to_change(connection, caller, request_id)
        now = clock.now()
        if not await deletions_store.mark_refused(connection, request.id, refusal, now):
            raise errors.Conflict("Only an open request, of which no lead was erased yet, can be refused.")
        subject = ids.encode("del", request_id)
        await audit.record(connection, now, caller.key_id, "deletion.refuse", subject, refusal=refusal)
    return await load_request(pool, caller, request_id)


async def load_request(pool: Pool, caller: Principal, request_id: UUID) -> DeletionRow:
    """Return a request in a mode that the caller sees. Raises NotFound."""
    async with session(pool) as connection:
        request = await deletions_store.find_request(connection, request_id)
    if request is None or not caller.sees(request.mode):
        raise errors.NotFound(NOT_THERE)
    return request


async def load_detail(pool: Pool, caller: Principal, request_id: UUID) -> DeletionDetail:
    """Return a request with its leads. Raises NotFound."""
    request = await load_request(pool, caller, request_id)
    async with session(pool) as connection:
        return DeletionDetail(request=request, leads=await deletions_store.list_leads(connection, request_id))


async def reveal_contact(pool: Pool, sealer: Sealer, caller: Principal, request_id: UUID, reason: str) -> Person:
    """Return the contact of a request that has not ended; the reveal is recorded with the reason. Raises NotFound."""
    async with transaction(pool) as connection:
        request = await _lock(connection, caller, request_id)
        if request.contact is None:
            raise errors.NotFound("This request has no contact data: it was made by lead id, or it has ended.")
        subject = ids.encode("del", request_id)
        await audit.record(connection, clock.now(), caller.key_id, access.REVEALED, subject, reason=reason)
    return _open_contact(sealer, request)


def _open_contact(sealer: Sealer, request: LockedRequest) -> Person:
    """Return the contact of a request that has one."""
    if request.contact is None:
        raise ValueError("the request has no contact")
    return msgspec.json.decode(sealer.open_secret(request.id, request.contact), type=Person)


# Ending requests whose notices wait no more


async def keep_completing(pool: Pool, stopping: asyncio.Event) -> None:
    """Mark requests done while the worker runs."""
    await keep_passing(pool, PASS, lambda: complete_requests(pool), stopping, every=PASS_SECONDS)


async def complete_requests(pool: Pool) -> int:
    """Mark each erased request done of which no notice waits any more; return their number."""
    async with transaction(pool) as connection:
        return await _complete(connection, MACHINE, clock.now())


async def _complete(connection: Connection, actor: str, now: datetime, request_id: UUID | None = None) -> int:
    completed = await deletions_store.complete(connection, now, request_id)
    for completed_id in completed:
        await audit.record(connection, now, actor, "deletion.complete", ids.encode("del", completed_id))
    return len(completed)


# Proof


async def issue_proof(pool: Pool, signer: Signer, caller: Principal, request_id: UUID) -> bytes:
    """Return the signed proof that a request was carried out, as it stands now. Raises NotFound, Conflict."""
    detail = await load_detail(pool, caller, request_id)
    if detail.request.state is not DeletionState.done:
        raise errors.Conflict(
            "There is a proof when the request is done: all leads erased, and each notice acknowledged or overdue."
        )
    return signer.sign(state_proof(detail, clock.now(), signer.public.key_id))


def state_proof(detail: DeletionDetail, now: datetime, key_id: str) -> DeletionStatement:
    """Return the contents of the proof of a request that is done, without contact data."""
    request = detail.request
    if request.erased_at is None or request.ended_at is None:
        raise ValueError("the request is not done")
    return DeletionStatement(
        deletion_request=ids.encode("del", request.id),
        mode=request.mode,
        received_at=request.received_at,
        deadline_at=request.deadline_at,
        erased_at=request.erased_at,
        done_at=request.ended_at,
        suppressed=request.suppresses and request.mode == "live",
        leads=tuple(map(_state_lead, detail.leads)),
        issued_at=now,
        key_id=key_id,
    )


def _state_lead(lead: DeletionLead) -> DeletedLead:
    if lead.erased_at is None:
        raise ValueError("the lead is not erased")
    business = None
    if lead.business_id is not None and lead.business_name is not None:
        business = ReceiptBusiness(id=ids.encode("biz", lead.business_id), name=lead.business_name)
    return DeletedLead(
        lead=ids.encode("lead", lead.lead_id),
        erased_at=lead.erased_at,
        business=business,
        notified_at=lead.notified_at,
        notice=lead.notice_state,
        acknowledged_at=lead.acknowledged_at,
    )
