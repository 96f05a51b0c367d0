"""Returns desk: each return request with its lead, the history of both parties, and the effect of granting it."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from billing.returns import MACHINE_JUDGED, QUOTA_DAYS, ReturnReason
from marketplace.database.db import Connection, session, transaction
from marketplace.feedback import returns
from marketplace.feedback import store as feedback_store
from marketplace.feedback.store import CallOutcome, ReturnState
from marketplace.feedback.wire import Finding
from marketplace.intake.contact import Contact
from marketplace.portal.forms import ReasonForm, changing, fill, label, show_again, show_form, submitted
from marketplace.portal.frame import badge, duration, page, redirect, words
from marketplace.portal.listing import TOOK, Column, Link, Listing, Money, muted, only_in_file
from marketplace.portal.operator import lead_store
from marketplace.portal.operator.lead_store import LeadAttempt, ReturnRequestDetail, ReturnRequestRow
from marketplace.portal.operator.links import business_link, provider_link
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors, ids
from marketplace.security import access, audit
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv

HOME: Final = "/operator/returns"
TABS: Final = ((HOME, "To decide"), (f"{HOME}?state=granted", "Granted"), (f"{HOME}?state=denied", "Denied"))
CSV_LINES: Final = 10_000

MEANING: Final = {
    ReturnReason.duplicate: "The business says that it had received this person before.",
    ReturnReason.outside_area: "The business says that the lead is outside its area.",
    ReturnReason.invalid_number: "The business says that the phone number is wrong or not of a kind it accepts.",
    ReturnReason.bant_mismatch: "The business says that budget, authority, need or timing are not as described.",
    ReturnReason.wrong_person: "The business says that somebody else answered.",
    ReturnReason.no_consent_recalled: "The business says that the person does not remember asking to be contacted.",
    ReturnReason.fraud: "The business says that the inquiry was made up.",
    ReturnReason.other: "Another reason: see the note.",
}
"Explanation of each reason for the operator who decides."
CALLS: Final = {outcome: outcome.replace("_", " ").capitalize() for outcome in CallOutcome}


class JudgeForm(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's decision on a return; the business and the provider read `finding`."""

    verdict: Literal["granted", "denied"]
    finding: Annotated[
        Finding,
        label(
            "What you found",
            "The business and the provider read this. Do not include names or private details.",
            kind="textarea",
            rows=3,
        ),
    ]


def _state_cell(claim: ReturnRequestRow) -> tuple[object, ...]:
    by_machine = muted("automatically") if claim.judged_by == returns.MACHINE else ""
    test = badge("test", "warn") if claim.mode == "test" else ""
    return badge(claim.state), by_machine, test


def claim_listing(now: datetime, *, waiting: bool) -> Listing[ReturnRequestRow]:
    """Return the list of return requests, with the waiting time or the time of the decision."""
    if waiting:
        second = Column[ReturnRequestRow]("Waiting", lambda claim: duration((now - claim.requested_at).total_seconds()))
    else:
        second = Column[ReturnRequestRow]("Decided", lambda claim: claim.judged_at)
    return Listing(
        caption="Returns",
        name="returns",
        columns=(
            only_in_file("id", lambda claim: ids.encode("ret", claim.id)),
            only_in_file("lead_id", lambda claim: ids.encode("lead", claim.lead_id)),
            Column(
                "Requested",
                lambda claim: Link(f"{HOME}/{ids.encode('ret', claim.id)}", claim.requested_at),
                file="requested_at",
                value=lambda claim: claim.requested_at.isoformat(),
            ),
            second,
            Column(
                "Business",
                lambda claim: business_link(claim.business_id, claim.business),
                file="business",
                value=lambda claim: claim.business,
            ),
            Column(
                "Provider",
                lambda claim: provider_link(claim.provider_id, claim.provider),
                file="provider",
                value=lambda claim: claim.provider,
            ),
            Column("Reason", lambda claim: words(claim.reason), file="reason", value=lambda claim: claim.reason),
            Column("Price", lambda claim: Money(claim.price_minor, claim.currency), file="price_minor", style="num"),
            Column("State", _state_cell, file="state", value=lambda claim: claim.state),
            only_in_file("payout_minor", lambda claim: claim.payout_minor),
            only_in_file("currency", lambda claim: claim.currency),
            only_in_file("judged_at", lambda claim: claim.judged_at.isoformat() if claim.judged_at else ""),
            only_in_file("finding", lambda claim: claim.finding or ""),
        ),
        order=(
            "id",
            "lead_id",
            "requested_at",
            "business",
            "provider",
            "reason",
            "state",
            "price_minor",
            "payout_minor",
            "currency",
            "judged_at",
            "finding",
        ),
    )


def _attempt_outcome(attempt: LeadAttempt) -> str:
    return words(attempt.outcome) + (f" {attempt.status}" if attempt.status else "")


ATTEMPTS: Final = Listing[LeadAttempt](
    caption="Attempts",
    columns=(
        Column("When", lambda attempt: attempt.started_at, time="second"),
        Column("Outcome", _attempt_outcome),
        TOOK,
    ),
)


@get(HOME)
async def show_desk(request: AnyRequest) -> Response[bytes]:
    """Show the return requests to decide, oldest first, or those decided, newest first."""
    viewer = await visitor(request, CallerKind.operator)
    state = ReturnState(_read_choice(request, "state", tuple(ReturnState)) or ReturnState.requested)
    reason = _read_choice(request, "reason", tuple(ReturnReason))
    as_file = wants_csv(request)
    limit, after = CSV_LINES if as_file else list_limit(request), page_cursor(request, "ret")
    undecided = state is ReturnState.requested
    async with session(services(request).reports) as connection:
        rows = await lead_store.list_returns(connection, state, reason, after, limit + 1, oldest_first=undecided)
    tab = HOME if undecided else f"{HOME}?state={state}"
    listing = claim_listing(clock.now(), waiting=undecided)
    if as_file:
        return await listing.download(rows[:limit])
    return page(
        request,
        viewer,
        "operator/returns.html",
        listing=listing,
        rows=rows[:limit],
        state=state,
        tabs=TABS,
        reasons=tuple(ReturnReason),
        tab=tab,
        next_cursor=next_page("ret", [row.id for row in rows], limit),
    )


def _read_choice(request: AnyRequest, name: str, choices: tuple[str, ...]) -> str | None:
    """Return the value of a filter, or None if it is empty. Raises InvalidInput for a value that is no choice."""
    text = request.query_params.get(name) or None
    if text is not None and text not in choices:
        detail = f"Enter one of {', '.join(choices)}."
        fault = Fault(pointer=f"/{name}", code=FaultCode.value_not_allowed, detail=detail)
        raise errors.InvalidInput((fault,))
    return text


@get(f"{HOME}/{{return_id:str}}")
async def show_claim(request: AnyRequest, return_id: FromPath[str]) -> Response[bytes]:
    """Show one return request with the facts that decide it."""
    return await _claim_page(request, await visitor(request, CallerKind.operator), path_id("ret", return_id))


async def _claim_page(
    request: AnyRequest,
    viewer: Viewer,
    return_id: UUID,
    *,
    contact: Contact | None = None,
) -> Response[bytes]:
    since = clock.now() - timedelta(days=QUOTA_DAYS)
    async with session(services(request).reports) as connection:
        claim = await _load(connection, return_id)
        business, provider = await lead_store.count_returns(connection, claim.business_id, claim.provider_id, since)
        dispositions = await lead_store.list_dispositions(connection, claim.assignment_id)
        attempts = await lead_store.list_attempts(connection, claim.assignment_id)
    overrules = claim.judged_by == returns.MACHINE and claim.state == ReturnState.denied
    return page(
        request,
        viewer,
        "operator/return_request.html",
        claim=claim,
        business=business,
        provider=provider,
        dispositions=dispositions,
        attempt_listing=ATTEMPTS,
        attempts=attempts,
        days=QUOTA_DAYS,
        meaning=MEANING[ReturnReason(claim.reason)],
        by_machine=claim.reason in MACHINE_JUDGED,
        overrules=overrules,
        open=claim.state == ReturnState.requested,
        timeline=_timeline(claim),
        contact=contact,
        form=show_form(JudgeForm),
        calls=CALLS,
    )


async def _load(connection: Connection, return_id: UUID) -> ReturnRequestDetail:
    claim = await lead_store.find_return(connection, return_id)
    if claim is None:
        raise errors.NotFound(returns.NO_RETURN)
    return claim


def _timeline(claim: ReturnRequestDetail) -> list[tuple[Any, str, str, str]]:
    """Return the events of the lead and its return, each with time, title, note and tone."""
    events: list[tuple[Any, str, str, str]] = [
        (claim.received_at, "Received", f"from {claim.provider}", "muted"),
        (claim.awarded_at, "Awarded", f"to {claim.business}, {claim.subscription}", "muted"),
    ]
    if claim.exposed_at:
        events.append((claim.exposed_at, "Shown to the business", f"by {claim.channel}", "muted"))
    if claim.delivered_at:
        events.append((claim.delivered_at, "Delivered and charged", "", "good"))
    events.append((claim.requested_at, "Return requested", claim.reason.replace("_", " "), "warn"))
    if claim.judged_at:
        by = "automatically" if claim.judged_by == returns.MACHINE else "by an operator"
        tone = "good" if claim.state == ReturnState.granted else "bad"
        events.append((claim.judged_at, claim.state.capitalize(), f"{by}: {claim.finding}", tone))
    return events


@post(f"{HOME}/{{return_id:str}}")
async def judge(request: AnyRequest, return_id: FromPath[str]) -> Response[bytes]:
    """Grant or deny a return, once. The business and the provider read the finding."""
    viewer, fields = await changing(request, CallerKind.operator)
    key = path_id("ret", return_id)
    try:
        form = fill(JudgeForm, fields)
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _claim_page(request, viewer, key))
    verdict = ReturnState(form.verdict)
    judged = await returns.judge_return(services(request).pool, viewer.actor, None, key, verdict, form.finding.strip())
    if judged.state is not verdict or judged.judged_by != viewer.actor:
        return redirect(request, f"{HOME}/{return_id}", f"This return was decided before: it was {judged.state}.")
    if verdict is ReturnState.granted:
        result = "Return granted: the business has been refunded."
    else:
        result = "Return denied: no money was moved."
    return redirect(request, HOME, f"{result} The business and the provider can read your reason.")


@post(f"{HOME}/{{return_id:str}}/reveal")
async def reveal(request: AnyRequest, return_id: FromPath[str]) -> Response[bytes]:
    """Show the contact on this page only, and record the viewer and the reason."""
    viewer, form = await submitted(request, ReasonForm, CallerKind.operator)
    key, resources = path_id("ret", return_id), services(request)
    async with transaction(resources.pool) as connection:
        claim = await _load(connection, key)
        sealed = await feedback_store.read_contact(connection, claim.lead_id, claim.business_id)
        if sealed is None:
            raise errors.NotFound("This person has been erased. There is no contact data any more.")
        subject = ids.encode("lead", claim.lead_id)
        await audit.record(connection, clock.now(), viewer.actor, access.REVEALED, subject, reason=form.reason.strip())
    contact = msgspec.json.decode(resources.sealer.open_contact(claim.lead_id, sealed), type=Contact)
    return await _claim_page(request, viewer, key, contact=contact)


handlers: tuple[Any, ...] = (show_desk, show_claim, judge, reveal)
