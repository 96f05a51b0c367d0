"""Stage 4, second half: giving a lead back.

    lock the lead and the wallet → load the case → judge (pure)
    → the same transaction: request, and if granted the lead returned, the price refunded, the payout clawed back

What the record can settle is settled at once; the rest waits on the desk of an operator, who may also overrule a
machine that denied. The lead's lock makes it one refund however many judge: whoever comes second finds it judged.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from billing.returns import (
    MACHINE_JUDGED,
    QUOTA_DAYS,
    BantFacts,
    Closed,
    Judgement,
    PhoneFacts,
    Record,
    ReturnReason,
    ReturnTerms,
    closed,
    judge,
    quota,
)
from marketplace import audit, clock, errors, ids, money
from marketplace.db import Connection, Pool, session, transaction
from marketplace.faults import Code, Fault
from marketplace.feedback import store
from marketplace.feedback.flow import NOT_THERE, Holder
from marketplace.feedback.store import Call, CallOutcome, Case, Evidence, Recent, Return, ReturnState
from marketplace.feedback.wire import CallBody, Claim
from marketplace.masking import ending_of
from marketplace.text import is_visible, read_number
from routing.index import Entry, code_of, point_of
from routing.inquiry import CLOCK_TOLERANCE, is_later
from routing.lifecycle import AssignmentState
from routing.matching import phone_accepted
from routing.qualification import Dimension, Finding, Verdict, qualify
from routing.subscription import Subscription

MACHINE: Final = "machine"
"Who judged what the record alone has settled."

SOMEBODY_ANSWERED: Final = frozenset({CallOutcome.spoke, CallOutcome.somebody_else, CallOutcome.asked_for_nothing})
"Outcomes of a call in which the business heard something from a person."

NO_RETURN: Final = "There is no return with this id, or it is not yours."


async def file_return(
    pool: Pool, holder: Holder, lead_id: UUID, reason: ReturnReason, note: str | None, claim: Claim | None,
    calls: Sequence[CallBody] = (),
) -> Return:  # fmt: skip
    """Asks to give one lead back; granted, denied or on the operator's desk when this returns.

    Raises InvalidInput, NotFound, NothingCharged, AlreadyReturned, ReturnWindowClosed, ReturnQuotaReached.
    """
    if faults := return_faults(reason, note, claim, calls, clock.now()):
        raise errors.InvalidInput(faults)
    async with transaction(pool) as connection:
        await store.become_returner(connection)
        case = await store.lock_case(connection, holder.business_id, holder.mode, lead_id)
        if case is None:
            raise errors.NotFound(NOT_THERE)
        now = clock.now()
        await _demand_open(connection, case, now)
        asked = _asked(case, reason, note, evidence_of(claim, calls), judge(reason, record_of(case, claim, calls)), now)
        await store.insert_return(connection, asked)
        if asked.state is ReturnState.granted:
            await _give_back(connection, case, reason, now)
        await _note(connection, now, holder.actor, "return.request", asked)
    return asked


async def judge_return(
    pool: Pool, actor: str, mode: str | None, return_id: UUID, state: ReturnState, finding: str
) -> Return:
    """An operator's word on one return; on one that is judged already, the stored outcome. Raises NotFound.

    What a machine denied may still be granted.
    """
    async with session(pool) as connection:
        asked = await store.find_return(connection, return_id=return_id)
    if asked is None or mode not in (None, asked.mode):
        raise errors.NotFound(NO_RETURN)
    async with transaction(pool) as connection:
        await store.become_returner(connection)
        case = await store.lock_case(connection, asked.business_id, asked.mode, asked.lead_id)
        stored = await store.find_return(connection, return_id=return_id)
        if case is None or stored is None:
            raise errors.NotFound(NO_RETURN)
        overruled = stored.judged_by == MACHINE and (stored.state, state) == (ReturnState.denied, ReturnState.granted)
        if stored.state is not ReturnState.requested and not overruled:
            return stored
        now = clock.now()
        await store.mark_judged(connection, return_id, state, now, actor, finding)
        if state is ReturnState.granted:
            await _give_back(connection, case, stored.reason, now)
        judged = await store.find_return(connection, return_id=return_id)
        if judged is None:
            raise errors.NotFound(NO_RETURN)
        await _note(connection, now, actor, "return.judge", judged)
    return judged


async def _give_back(connection: Connection, case: Case, reason: ReturnReason, now: datetime) -> None:
    await store.mark_returned(connection, case.lead_id, case.assignment_id, reason)
    if case.mode == "live":
        await money.refund(connection, case.price, now)


async def _note(connection: Connection, now: datetime, actor: str, action: str, asked: Return) -> None:
    subject = ids.encode("lead", asked.lead_id)
    await audit.record(connection, now, actor, action, subject, reason=asked.reason, state=asked.state)


def return_faults(
    reason: ReturnReason, note: str | None, claim: Claim | None, calls: Sequence[CallBody], now: datetime
) -> tuple[Fault, ...]:
    """All that is wrong with a request to give a lead back, whichever lead it is."""
    return (*_faults(reason, note, claim), *_call_faults(calls, now))


def _faults(reason: ReturnReason, note: str | None, claim: Claim | None) -> tuple[Fault, ...]:
    if reason is ReturnReason.bant_mismatch and claim is None:
        detail = "Say which finding is wrong: send its dimension, and the result that it should have had."
        return (Fault(pointer="/claim", code=Code.field_missing, detail=detail),)
    if reason is not ReturnReason.bant_mismatch and claim is not None:
        detail = "Only a bant_mismatch has a claim: leave this out."
        return (Fault(pointer="/claim", code=Code.value_not_allowed, detail=detail),)
    if reason not in MACHINE_JUDGED and not is_visible(note or ""):
        detail = "Say what happened: this reason is judged by a person, who has nothing else to go by."
        return (Fault(pointer="/note", code=Code.field_missing, detail=detail),)
    return ()


def _call_faults(calls: Sequence[CallBody], now: datetime) -> Iterator[Fault]:
    for place, call in enumerate(calls):
        if is_later(call.at, now, CLOCK_TOLERANCE):
            detail = "This call lies ahead of us: say when it was made."
            yield Fault(pointer=f"/calls/{place}/at", code=Code.value_not_allowed, detail=detail)
        if call.number and read_number(call.number) is None:
            detail = "Send the number that was dialled: digits, with the marks between them."
            yield Fault(pointer=f"/calls/{place}/number", code="phone_invalid", detail=detail)


def evidence_of(claim: Claim | None, calls: Sequence[CallBody]) -> Evidence:
    """What is kept of it: never a number that was dialled."""
    return Evidence(
        dimension=claim.dimension if claim else None,
        result=claim.result if claim else None,
        calls=tuple(
            Call(at=call.at, outcome=call.outcome, ending=ending_of(call.number or ""))
            for call in sorted(calls, key=lambda call: call.at)
        ),
    )


async def _demand_open(connection: Connection, case: Case, now: datetime) -> None:
    """Raises what forbids to judge a return at all."""
    earlier = await store.find_return(connection, assignment_id=case.assignment_id)
    if earlier is not None:
        raise errors.AlreadyReturned(f"A return of this lead was filed before and is {earlier.state}: GET /v1/returns.")
    if case.state is not AssignmentState.delivered or case.settled_at is None:
        raise errors.NothingCharged(f"This lead is {case.state}: it was not charged, and there is nothing to return.")
    terms = terms_of(case)
    recent = await store.count_recent(connection, case.business_id, case.mode, now - timedelta(days=QUOTA_DAYS))
    match closed(terms, case.settled_at, recent.delivered, recent.returned, now):
        case Closed.window:
            closed_at = case.settled_at + timedelta(days=terms.window_days)
            detail = (
                f"It could be returned until {closed_at:%Y-%m-%d %H:%M} UTC, {terms.window_days} days after delivery."
            )
            raise errors.ReturnWindowClosed(detail)
        case Closed.quota:
            raise errors.ReturnQuotaReached(_quota_in_words(terms, recent))
        case None:
            pass


def _quota_in_words(terms: ReturnTerms, recent: Recent) -> str:
    return (
        f"Of {recent.delivered} leads delivered in the last {QUOTA_DAYS} days, {quota(terms, recent.delivered)} may be "
        f"returned, and {recent.returned} were, or are asked to be."
    )


def terms_of(case: Case) -> ReturnTerms:
    """Those of the market, in the version by which the lead was awarded."""
    market = case.vertical_definition
    return ReturnTerms(
        window_days=market.return_window_days, percent=market.return_percent, at_least=market.returns_at_least
    )


def record_of(case: Case, claim: Claim | None, calls: Sequence[CallBody] = ()) -> Record:
    """What is on record about the lead, in the versions by which it was awarded."""
    place, order = case.facts.place, case.order_definition
    ordered = Subscription(
        id=case.assignment_id, business_id=case.business_id, endpoint_id=None, vertical=case.facts.vertical,
        country=case.vertical_definition.country,
        mode=case.facts.mode, version=case.vertical_version, definition=order,
    )  # fmt: skip
    kinds, signals = order.persona.phone_types, case.facts.signals
    return Record(
        person_known=case.person_known,
        seen_before_at=case.seen_before_at,
        window_days=case.vertical_definition.window_days,
        in_area=Entry(ordered).holds(place, code_of(place), point_of(place)),
        phone=PhoneFacts(
            given=case.has_phone,
            kind=signals.phone_type,
            kind_ordered=not kinds or phone_accepted(kinds, signals.phone_type),
        ),
        bant=None if claim is None else _bant(case, claim),
        somebody_reached=any(call.outcome in SOMEBODY_ANSWERED for call in calls),
    )


def _bant(case: Case, claim: Claim) -> BantFacts:
    """The finding as it was shipped, and as the rules of that version give it from the inquiry as it was received."""
    market = case.vertical_definition
    outcome = qualify(case.facts, market.needs, market.policy(case.vertical_version), case.decided_at)
    shipped, replayed = (_finding(verdict, claim.dimension) for verdict in (case.verdict, outcome.verdict))
    return BantFacts(
        dimension=claim.dimension,
        claimed=claim.result,
        shipped=shipped.result,
        replayed=replayed.result,
        threshold=shipped.threshold,
        evidence=shipped.evidence,
    )


def _finding(verdict: Verdict, dimension: Dimension) -> Finding:
    return next(finding for finding in verdict.findings if finding.dimension is dimension)


def _asked(
    case: Case, reason: ReturnReason, note: str | None, evidence: Evidence, judgement: Judgement | None, now: datetime
) -> Return:
    state = ReturnState.requested
    if judgement is not None:
        state = ReturnState.granted if judgement.granted else ReturnState.denied
    return Return(
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
        judged_at=now if judgement else None,
        judged_by=MACHINE if judgement else None,
        finding=judgement.finding if judgement else None,
        delivered_at=case.settled_at,
    )
