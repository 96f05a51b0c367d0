"""Stage 4, second half: return a lead.

    lock the lead and the wallet → load the case → judge (pure)
    → in the same transaction: insert the request; if granted return the lead, refund the price, claw back the payout

A request that the record can decide is decided at once. Any other waits for an operator, who may also grant one that
was denied automatically. The lock on the lead ensures that a lead is refunded only once.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from billing.returns import (
    MACHINE_JUDGED,
    QUOTA_DAYS,
    BantFacts,
    Judgement,
    PhoneFacts,
    ReturnClosedReason,
    ReturnReason,
    ReturnRecord,
    ReturnTerms,
    closed,
    judge,
    quota,
)
from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.feedback import store as feedback_store
from marketplace.feedback.flow import NOT_THERE, LeadHolder
from marketplace.feedback.store import (
    Call,
    CallOutcome,
    RecentReturns,
    ReturnCase,
    ReturnEvidence,
    ReturnRequest,
    ReturnState,
)
from marketplace.feedback.wire import CallBody, ReturnClaim
from marketplace.ledger import money
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.text.characters import is_visible, read_number
from marketplace.text.faults import Fault, FaultCode
from marketplace.text.masking import ending_of
from routing.index import IndexEntry, code_of, point_of
from routing.inquiry import CLOCK_TOLERANCE, is_later
from routing.lifecycle import AssignmentState
from routing.matching import phone_accepted
from routing.qualification import Dimension, DimensionFinding, Verdict, qualify
from routing.subscription import Subscription
from routing.vertical import VerticalDefinition

MACHINE: Final = "machine"
"Value of `judged_by` for a return that was decided automatically from the record."

SOMEBODY_ANSWERED: Final = frozenset({CallOutcome.spoke, CallOutcome.somebody_else, CallOutcome.asked_for_nothing})
"Outcomes of a call in which a person answered."

NO_RETURN: Final = "There is no return with this id, or it is not yours."


async def file_return(
    pool: Pool,
    holder: LeadHolder,
    lead_id: UUID,
    reason: ReturnReason,
    note: str | None,
    claim: ReturnClaim | None,
    calls: Sequence[CallBody] = (),
) -> ReturnRequest:
    """Request to return one lead, and return the request: granted, denied, or waiting for an operator.

    Raises InvalidInput, NotFound, NothingCharged, AlreadyReturned, ReturnWindowClosed, ReturnQuotaReached.
    """
    if faults := return_faults(reason, note, claim, calls, clock.now()):
        raise errors.InvalidInput(faults)
    async with transaction(pool) as connection:
        await feedback_store.become_returner(connection)
        case = await feedback_store.lock_case(connection, holder.business_id, holder.mode, lead_id)
        if case is None:
            raise errors.NotFound(NOT_THERE)
        now = clock.now()
        await _demand_open(connection, case, now)
        judgement = judge(reason, record_of(case, claim, calls))
        return_request = _new_return(case, reason, note, evidence_of(claim, calls), judgement, now)
        await feedback_store.insert_return(connection, return_request)
        if return_request.state is ReturnState.granted:
            await _refund(connection, case, reason, now)
        await _audit(connection, now, holder.actor, "return.request", return_request)
    return return_request


async def judge_return(
    pool: Pool, actor: str, mode: str | None, return_id: UUID, state: ReturnState, finding: str
) -> ReturnRequest:
    """Grant or deny one return for an operator, with the `finding` that both sides read, and return it.

    A return that was judged before is returned unchanged, except that one denied automatically may still be granted.
    Raises NotFound.
    """
    async with session(pool) as connection:
        request = await feedback_store.find_return(connection, return_id=return_id)
    if request is None or mode not in (None, request.mode):
        raise errors.NotFound(NO_RETURN)
    async with transaction(pool) as connection:
        await feedback_store.become_returner(connection)
        case = await feedback_store.lock_case(connection, request.business_id, request.mode, request.lead_id)
        stored = await feedback_store.find_return(connection, return_id=return_id)
        if case is None or stored is None:
            raise errors.NotFound(NO_RETURN)
        overrules = stored.judged_by == MACHINE and (stored.state, state) == (ReturnState.denied, ReturnState.granted)
        if stored.state is not ReturnState.requested and not overrules:
            return stored
        now = clock.now()
        await feedback_store.mark_judged(connection, return_id, state, now, actor, finding)
        if state is ReturnState.granted:
            await _refund(connection, case, stored.reason, now)
        judged = await feedback_store.find_return(connection, return_id=return_id)
        if judged is None:
            raise errors.NotFound(NO_RETURN)
        await _audit(connection, now, actor, "return.judge", judged)
    return judged


async def _refund(connection: Connection, case: ReturnCase, reason: ReturnReason, now: datetime) -> None:
    """Mark the lead returned; for a live one, refund the price and claw back the payout."""
    await feedback_store.mark_returned(connection, case.lead_id, case.assignment_id, reason)
    if case.mode == "live":
        await money.refund(connection, case.price, now)


async def _audit(connection: Connection, now: datetime, actor: str, action: str, return_request: ReturnRequest) -> None:
    """Write the audit row of a return."""
    subject = ids.encode("lead", return_request.lead_id)
    await audit.record(
        connection, now, actor, action, subject, reason=return_request.reason, state=return_request.state
    )


def return_faults(
    reason: ReturnReason, note: str | None, claim: ReturnClaim | None, calls: Sequence[CallBody], now: datetime
) -> tuple[Fault, ...]:
    """Return the faults of a request to return a lead that do not depend on the lead."""
    return (*_faults(reason, note, claim), *_call_faults(calls, now))


def _faults(reason: ReturnReason, note: str | None, claim: ReturnClaim | None) -> tuple[Fault, ...]:
    """Return the fault of a claim or note that is missing, or of a claim that does not go with the reason."""
    if reason is ReturnReason.bant_mismatch and claim is None:
        detail = "Send the dimension of the finding that is wrong, and the result that it should have had."
        return (Fault(pointer="/claim", code=FaultCode.field_missing, detail=detail),)
    if reason is not ReturnReason.bant_mismatch and claim is not None:
        detail = "Only a bant_mismatch has a claim: leave this out."
        return (Fault(pointer="/claim", code=FaultCode.value_not_allowed, detail=detail),)
    if reason not in MACHINE_JUDGED and not is_visible(note or ""):
        detail = "Say what happened in a note: an operator judges this reason, and has only your note to go by."
        return (Fault(pointer="/note", code=FaultCode.field_missing, detail=detail),)
    return ()


def _call_faults(calls: Sequence[CallBody], now: datetime) -> Iterator[Fault]:
    """Yield a fault for each call in the future, and for each number that is not a telephone number."""
    for index, call in enumerate(calls):
        if is_later(call.at, now, CLOCK_TOLERANCE):
            detail = "This call is in the future: send when it was made."
            yield Fault(pointer=f"/calls/{index}/at", code=FaultCode.value_not_allowed, detail=detail)
        if call.number and read_number(call.number) is None:
            detail = "Send the telephone number that was dialled, with digits, spaces and dashes."
            yield Fault(pointer=f"/calls/{index}/number", code="phone_invalid", detail=detail)


def evidence_of(claim: ReturnClaim | None, calls: Sequence[CallBody]) -> ReturnEvidence:
    """Return the claim and the calls as they are stored, in order of time, with the last digits of each number only."""
    stored_calls = tuple(
        Call(at=call.at, outcome=call.outcome, ending=ending_of(call.number or ""))
        for call in sorted(calls, key=lambda call: call.at)
    )
    if claim is None:
        return ReturnEvidence(calls=stored_calls)
    return ReturnEvidence(dimension=claim.dimension, result=claim.result, calls=stored_calls)


async def _demand_open(connection: Connection, case: ReturnCase, now: datetime) -> None:
    """Raise AlreadyReturned, NothingCharged, ReturnWindowClosed or ReturnQuotaReached if no return may be requested."""
    earlier = await feedback_store.find_return(connection, assignment_id=case.assignment_id)
    if earlier is not None:
        raise errors.AlreadyReturned(f"A return of this lead was filed before and is {earlier.state}: GET /v1/returns.")
    if case.state is not AssignmentState.delivered or case.settled_at is None:
        raise errors.NothingCharged(f"This lead is {case.state}: it was not charged, and there is nothing to return.")
    terms = return_terms(case.vertical_definition)
    recent = await feedback_store.count_recent(
        connection, case.business_id, case.mode, now - timedelta(days=QUOTA_DAYS)
    )
    match closed(terms, case.settled_at, recent.delivered, recent.returned, now):
        case ReturnClosedReason.window:
            closed_at = case.settled_at + timedelta(days=terms.window_days)
            detail = (
                f"It could be returned until {closed_at:%Y-%m-%d %H:%M} UTC, {terms.window_days} days after delivery."
            )
            raise errors.ReturnWindowClosed(detail)
        case ReturnClosedReason.quota:
            raise errors.ReturnQuotaReached(_describe_quota(terms, recent))
        case None:
            pass


def _describe_quota(terms: ReturnTerms, recent: RecentReturns) -> str:
    """Return a sentence with the numbers of delivered, returnable and returned leads in the quota's window."""
    return (
        f"Of {recent.delivered} leads delivered in the last {QUOTA_DAYS} days, {quota(terms, recent.delivered)} may be "
        f"returned, and {recent.returned} were, or are asked to be."
    )


def return_terms(vertical: VerticalDefinition) -> ReturnTerms:
    """Return the return terms of a version of a vertical. The one by which a lead was awarded applies to its return."""
    return ReturnTerms(
        window_days=vertical.return_window_days, percent=vertical.return_percent, at_least=vertical.returns_at_least
    )


def record_of(case: ReturnCase, claim: ReturnClaim | None, calls: Sequence[CallBody] = ()) -> ReturnRecord:
    """Return the facts that decide a return: stored data about the lead, judged by the rules of its award."""
    place, definition = case.facts.place, case.order_definition
    subscription = Subscription(
        id=case.assignment_id,
        business_id=case.business_id,
        endpoint_id=None,
        vertical=case.facts.vertical,
        country=case.vertical_definition.country,
        mode=case.facts.mode,
        version=case.vertical_version,
        definition=definition,
    )
    kinds, signals = definition.persona.phone_types, case.facts.signals
    bant = None if claim is None else _bant(case, claim)
    return ReturnRecord(
        person_known=case.person_known,
        seen_before_at=case.seen_before_at,
        window_days=case.vertical_definition.window_days,
        in_area=IndexEntry(subscription).holds(place, code_of(place), point_of(place)),
        phone=PhoneFacts(
            present=case.has_phone,
            kind=signals.phone_type,
            kind_ordered=not kinds or phone_accepted(kinds, signals.phone_type),
        ),
        bant=bant,
        somebody_reached=any(call.outcome in SOMEBODY_ANSWERED for call in calls),
    )


def _bant(case: ReturnCase, claim: ReturnClaim) -> BantFacts:
    """Return the claimed finding as it was delivered, and as the rules of its version give it for the inquiry again."""
    vertical = case.vertical_definition
    outcome = qualify(case.facts, vertical.needs, vertical.policy(case.vertical_version), case.decided_at)
    delivered, recomputed = (_finding(verdict, claim.dimension) for verdict in (case.verdict, outcome.verdict))
    return BantFacts(
        dimension=claim.dimension,
        claimed=claim.result,
        shipped=delivered.result,
        replayed=recomputed.result,
        threshold=delivered.threshold,
        evidence=delivered.evidence,
    )


def _finding(verdict: Verdict, dimension: Dimension) -> DimensionFinding:
    return next(finding for finding in verdict.findings if finding.dimension is dimension)


def _new_return(
    case: ReturnCase,
    reason: ReturnReason,
    note: str | None,
    evidence: ReturnEvidence,
    judgement: Judgement | None,
    now: datetime,
) -> ReturnRequest:
    """Return a new request in the state of its judgement; `requested` if the record does not decide it."""
    state, judged_at, judged_by, finding = ReturnState.requested, None, None, None
    if judgement is not None:
        state = ReturnState.granted if judgement.granted else ReturnState.denied
        judged_at, judged_by, finding = now, MACHINE, judgement.finding
    return ReturnRequest(
        id=clock.new_id(),
        assignment_id=case.assignment_id,
        lead_id=case.lead_id,
        business_id=case.business_id,
        provider_id=case.provider_id,
        mode=case.mode,
        vertical=case.facts.vertical,
        price_minor=case.price_minor,
        currency=case.currency,
        reason=reason,
        note=note or None,
        evidence=evidence,
        state=state,
        requested_at=now,
        judged_at=judged_at,
        judged_by=judged_by,
        finding=finding,
        delivered_at=case.settled_at,
    )
