"""Page of a lead of a business, with the forms that report an outcome and request a return."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Final, NamedTuple
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from billing.returns import QUOTA_DAYS, ReturnReason, allow_return
from marketplace.certificates import store as certificates_store
from marketplace.certificates.store import CertificateEvidence
from marketplace.database.db import session
from marketplace.feedback import flow as feedback_flow
from marketplace.feedback import next_actions, returns
from marketplace.feedback import store as feedback_store
from marketplace.feedback.flow import DispositionReport, LeadHolder
from marketplace.feedback.next_actions import NextAction
from marketplace.feedback.store import (
    BusinessLead,
    CallOutcome,
    Disposition,
    DispositionKind,
    DispositionSource,
    LostReason,
    ReturnRequest,
)
from marketplace.feedback.wire import CallBody, DispositionBody, Note, ReturnClaim
from marketplace.imports import amounts
from marketplace.imports.cells import CellFault, clean
from marketplace.intake.contact import Contact
from marketplace.journey import store as journey_store
from marketplace.portal.business import store, wording
from marketplace.portal.business.lead_list import spaced
from marketplace.portal.business.store import BusinessAttempt, LeadDecision, LeadTerms
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.certificate_words import CERTIFICATE_KINDS, CERTIFICATE_TONES, reason_in_words
from marketplace.portal.forms import Amount, FormFields, ShownForm, changing, fill, label, show_again, show_form
from marketplace.portal.frame import badge, duration, redirect, words, zone_of
from marketplace.portal.frame import money as spoken
from marketplace.portal.journey_words import journey_events, touch_in_words
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault, FaultCode
from marketplace.text.values import read_local
from marketplace.web.http import AnyRequest, path_id, services
from routing.consent import ConsentTerms, channels_in_words, licensed_channels
from routing.inquiry import Facts
from routing.journey import CorrectionEntry, JourneyEntry, TouchEntry, identity, supplied_values
from routing.lifecycle import AssignmentState
from routing.qualification import Dimension, DimensionFinding, DimensionResult

MOST_TOUCHES_SHOWN: Final = 100
"Newest touches of the person on the page of a lead."

CALL_LINES: Final = (1, 2, 3)
"Numbers of the calls for which the return form has fields."

Text = Annotated[str, Meta(max_length=2_000, extra={"kind": "textarea"})]
When = Annotated[Annotated[str, Meta(max_length=30)] | None, label("When", kind="datetime-local")]
Result = Annotated[CallOutcome, label("Result")]
Dialled = Annotated[Annotated[str, Meta(max_length=40)] | None, label("Number dialled", kind="tel")]
REPORTED_WITH_NOTE: Final = (
    DispositionKind.contacted,
    DispositionKind.qualified,
    DispositionKind.quoted,
    DispositionKind.unreachable,
    DispositionKind.lost,
)


class OutcomeForm(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a lead. `value` is an amount as people write it; `once` makes a repeated submission count once."""

    kind: Annotated[DispositionKind, label("Outcome")]
    value: Annotated[
        Amount | None, label("Won: value of the job, in {currency}", required=True, placeholder="8,400")
    ] = None
    reason: Annotated[LostReason | None, label("Lost: reason", required=True)] = None
    starts_at: Annotated[
        Annotated[str, Meta(max_length=30)] | None,
        label("Appointment: when it begins, in {zone}", kind="datetime-local", required=True),
    ] = None
    note: Annotated[Text | None, label("Note, for your own team", rows=2)] = None
    once: Annotated[str, Meta(max_length=60)] | None = None


class ReturnForm(msgspec.Struct, frozen=True, kw_only=True):
    """Request for a return. `dimension` and `result` are used only with the reason `bant_mismatch`.

    Each call has a local time in the viewer's zone, a result, and the number dialled.
    """

    ground: Annotated[ReturnReason, label("Reason")]
    note: Annotated[
        Note | None,
        label(
            "What happened",
            "Only the marketplace sees this. Required where a person has to decide.",
            kind="textarea",
        ),
    ] = None
    dimension: Annotated[Dimension | None, label("Which part is wrong")] = None
    result: Annotated[DimensionResult | None, label("What it should have been")] = None
    called_1: When = None
    came_1: Result = CallOutcome.no_answer
    dialled_1: Dialled = None
    called_2: When = None
    came_2: Result = CallOutcome.no_answer
    dialled_2: Dialled = None
    called_3: When = None
    came_3: Result = CallOutcome.no_answer
    dialled_3: Dialled = None

    def calls(self, zone: str) -> tuple[CallBody, ...]:
        """Return the calls that were filled in. Raises InvalidInput for a call without a valid time."""
        calls = []
        for line in CALL_LINES:
            text, number = getattr(self, f"called_{line}"), getattr(self, f"dialled_{line}")
            if not text and not number:
                continue
            at = read_local(text, zone_of(zone))
            if at is None:
                raise field_fault(f"called_{line}", FaultCode.field_missing, "Enter when you called.")
            calls.append(CallBody(at=at, outcome=getattr(self, f"came_{line}"), number=number))
        return tuple(calls)


def holder_of(viewer: Viewer) -> LeadHolder:
    """Return the business in the viewer's mode, and the member who acts for it."""
    return LeadHolder(business_id=viewer.owner, mode=viewer.mode, actor=viewer.actor, opened=viewer.opened)


class LeadDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the business may know about one of its leads."""

    lead: BusinessLead
    contact: Contact | None
    certificates: tuple[CertificateEvidence, ...]
    dispositions: tuple[Disposition, ...]
    return_request: ReturnRequest | None
    terms: LeadTerms | None
    decisions: tuple[LeadDecision, ...]
    attempts: tuple[BusinessAttempt, ...]
    recent: feedback_store.RecentReturns
    journey: tuple[JourneyEntry, ...]
    action: NextAction | None


async def load_detail(request: AnyRequest, viewer: Viewer, lead_id: UUID) -> LeadDetail:
    """Load a lead with its contact, history and terms.

    Raises NotFound for a lead that was not shown to the business in the viewer's mode.
    """
    app = services(request)
    async with session(app.pool) as connection:
        lead = await feedback_flow.load_lead(connection, holder_of(viewer), lead_id)
        opened = await feedback_flow.open_contact(connection, app.sealer, holder_of(viewer), lead)
        contact = None if opened is None else msgspec.json.decode(opened, type=Contact)
        since = clock.now() - timedelta(days=QUOTA_DAYS)
        return LeadDetail(
            lead=lead,
            contact=contact,
            dispositions=await feedback_store.list_dispositions(connection, lead.assignment_id),
            return_request=await feedback_store.find_return(connection, assignment_id=lead.assignment_id),
            certificates=await certificates_store.list_of_lead(connection, lead_id),
            terms=await store.find_terms(connection, lead.assignment_id, viewer.owner),
            decisions=await store.list_decisions(connection, lead_id),
            attempts=await store.list_attempts(connection, viewer.owner, viewer.mode, None, 40, lead_id=lead_id),
            recent=await feedback_store.count_recent(connection, viewer.owner, viewer.mode, since),
            journey=await journey_store.list_entries(connection, lead_id),
            action=await next_actions.find_action(connection, viewer.owner, lead_id),
        )


@get("/business/leads/{lead_id:str}")
async def show_lead(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Show a lead with its contact, history, and the forms for an outcome and a return."""
    viewer = await visitor(request, CallerKind.business)
    return await _lead_page(request, viewer, path_id("lead", lead_id))


async def _lead_page(
    request: AnyRequest,
    viewer: Viewer,
    lead_id: UUID,
) -> Response[bytes]:
    detail = await load_detail(request, viewer, lead_id)
    contact = detail.contact
    who, phone = (contact.full_name, spaced(contact.phone)) if contact else ("Lead", "")
    latest = detail.dispositions[-1] if detail.dispositions else None
    return await business_page(
        request,
        viewer,
        "business/lead.html",
        lead=detail.lead,
        contact=contact,
        certificates=[
            (
                CERTIFICATE_KINDS[certificate.kind],
                badge(certificate.state, CERTIFICATE_TONES[certificate.state]),
                reason_in_words(certificate),
                certificate.expires_at,
            )
            for certificate in detail.certificates
        ],
        consent_terms=detail.lead.facts.consent or ConsentTerms(),
        channels=licensed_channels(detail.lead.facts.consent),
        channels_in_words=channels_in_words(detail.lead.facts.consent),
        home=f"/business/leads/{ids.encode('lead', lead_id)}",
        who=who,
        phone=phone,
        steps=feedback_flow.first_steps(detail.lead, detail.dispositions),
        events=timeline(detail, viewer.zone),
        cards=_cards(detail),
        interest=detail.lead.verdict.interest if detail.lead.verdict else (),
        facts=_facts(detail.lead.facts, detail),
        job=_job(detail),
        reportable=detail.lead.state in feedback_flow.REPORTABLE and viewer.may_change,
        latest=latest,
        action=detail.action,
        return_request=detail.return_request,
        outcome_form=_outcome_form(detail.lead.currency, viewer.zone),
        return_options=_return_options(detail),
        return_form=_return_form(),
        call_lines=CALL_LINES,
        once=ids.encode("evt", clock.new_id()),
        map_link=_map_link(contact),
    )


def _map_link(contact: Contact | None) -> str:
    if contact is None:
        return ""
    parts = (contact.street, contact.postal_code, contact.country)
    return "https://www.openstreetmap.org/search?query=" + quote(", ".join(part for part in parts if part))


class DimensionCard(msgspec.Struct, frozen=True, kw_only=True):
    """One of the four BANT dimensions: its value, result, evidence, threshold and points."""

    name: str
    value: str
    result: DimensionResult
    evidence: str
    threshold: str
    points: int


def _cards(detail: LeadDetail) -> tuple[DimensionCard, ...]:
    return tuple(map(_card, detail.lead.verdict.findings)) if detail.lead.verdict else ()


def _card(finding: DimensionFinding) -> DimensionCard:
    evidence = finding.evidence.value if finding.evidence else ""
    return DimensionCard(
        name=finding.dimension.value.capitalize(),
        value=finding.value or "Not stated",
        result=finding.result,
        evidence=evidence,
        threshold=finding.threshold,
        points=finding.points,
    )


def _facts(facts: Facts, detail: LeadDetail) -> tuple[tuple[str, str], ...]:
    """Return the person's answers to the questions of the vertical, and the source of the inquiry."""
    needs = detail.terms.vertical.needs if detail.terms else {}
    answers = []
    for name, value in facts.need_fields.items():
        label = needs[name].label or name.replace("_", " ").capitalize() if name in needs else name
        answers.append((label, wording.answer_words(value)))
    extra = (
        ("Company size", facts.company_size),
        ("Role", facts.role),
        ("Came from", facts.source),
        ("Campaign", facts.campaign),
        ("Form", facts.form),
    )
    return (*answers, *((name, str(value)) for name, value in extra if value is not None))


def _job(detail: LeadDetail) -> str:
    """Return the job in the person's own words, or the answers that name it, or the name of the service."""
    if detail.contact and detail.contact.summary:
        return f"“{detail.contact.summary}”"
    answers = [
        wording.answer_words(value) for value in detail.lead.facts.need_fields.values() if isinstance(value, str)
    ]
    return ", ".join([words(detail.lead.vertical), *answers])


# History.


class TimelineEvent(NamedTuple):
    """An event in the history of a lead: its time, title, text and tone."""

    at: datetime | None
    title: str
    text: str
    tone: str


def timeline(detail: LeadDetail, zone: str) -> list[TimelineEvent]:
    """Return the history of a lead, oldest event first. Appointments are shown in `zone`."""
    lead = detail.lead
    events = [*_intake_events(detail), *map(_attempt_event, detail.attempts)]
    if lead.delivered_at:
        events.append(_delivery_event(lead, lead.delivered_at))
    if lead.state in (AssignmentState.refused, AssignmentState.lapsed) and lead.settled_at:
        note = wording.STATE_NOTES[lead.state]
        events.append(TimelineEvent(lead.settled_at, wording.STATES[lead.state], note, "warn"))
    events += [_disposition_event(disposition, lead.currency, zone) for disposition in detail.dispositions]
    events += _return_events(detail.return_request)
    return sorted(events, key=lambda event: event.at or lead.received_at)


def _intake_events(detail: LeadDetail) -> Iterator[TimelineEvent]:
    """Yield the events up to the award: receipt, touches, qualification, award."""
    lead = detail.lead
    wait = duration((lead.received_at - lead.submitted_at).total_seconds())
    yield TimelineEvent(lead.received_at, "Received", f"{wait} after the person sent it.", "good")
    changes = [each for each in detail.journey if isinstance(each, CorrectionEntry) or supplied_values(each.supplies)]
    answered = {identity(entry.touch) for entry in changes if isinstance(entry, TouchEntry)}
    for touch in lead.facts.touches[-MOST_TOUCHES_SHOWN:]:
        if identity(touch) not in answered:
            text = f"{touch.kind.replace('_', ' ')}: {touch_in_words(touch)}".rstrip(": ")
            yield TimelineEvent(touch.at, "Activity of the person", text, "muted")
    yield from (TimelineEvent(*event) for event in journey_events(changes))
    if lead.qualified_at and lead.verdict:
        text = f"{_since_receipt(lead, lead.qualified_at)}, {lead.verdict.score} of 100 points."
        yield TimelineEvent(lead.qualified_at, "Qualified", text, "good")
    text = f"{_since_receipt(lead, lead.awarded_at)}. {why_awarded(detail)}"
    yield TimelineEvent(lead.awarded_at, "Awarded to you", text, "good")


def _since_receipt(lead: BusinessLead, moment: datetime) -> str:
    return f"+{duration((moment - lead.received_at).total_seconds())}"


def _attempt_event(attempt: BusinessAttempt) -> TimelineEvent:
    outcome = wording.OUTCOMES.get(attempt.outcome, attempt.outcome).lower()
    text = wording.attempt_words(attempt.outcome, attempt.reason, attempt.status)
    return TimelineEvent(
        attempt.started_at,
        f"Sent to your server: {outcome}",
        f"{text} {duration(attempt.total_ms / 1000)}.",
        wording.OUTCOME_TONES.get(attempt.outcome, "muted"),
    )


def _delivery_event(lead: BusinessLead, delivered_at: datetime) -> TimelineEvent:
    if lead.mode == "test":
        title, text = "Delivered", "Not charged: this is a test."
    else:
        price = spoken(lead.price_minor, lead.currency)
        title, text = "Delivered and charged", f"{price}, the price quoted when it was awarded."
    return TimelineEvent(delivered_at, title, f"{_since_receipt(lead, delivered_at)}. {text}", "good")


def _disposition_event(disposition: Disposition, currency: str, zone: str) -> TimelineEvent:
    parts = [f"Reported {wording.SOURCES[disposition.source]}."]
    if disposition.starts_at is not None:
        parts.insert(0, f"It begins {disposition.starts_at.astimezone(zone_of(zone)):%-d %b %Y, %H:%M %Z}.")
    if disposition.value_minor is not None:
        parts.insert(0, f"Worth {spoken(disposition.value_minor, currency)}.")
    if disposition.reason is not None:
        parts.insert(0, f"{wording.LOST[disposition.reason]}.")
    if disposition.note:
        parts.append(f"“{disposition.note}”")
    title = disposition.stage or wording.KINDS[disposition.kind]
    return TimelineEvent(disposition.happened_at, title, " ".join(parts), wording.KIND_TONES[disposition.kind])


def _return_events(request: ReturnRequest | None) -> Iterator[TimelineEvent]:
    if request is None:
        return
    reason = f"{wording.RETURNS[request.reason]}. {request.note or ''}".strip()
    yield TimelineEvent(request.requested_at, "You requested a return", reason, "busy")
    if request.judged_at:
        text, tone = request.finding or "", "bad"
        if request.state is feedback_store.ReturnState.granted:
            tone = "good"
            if request.mode == "live":
                text += f" {spoken(request.price_minor, request.currency)} was refunded to your wallet."
        yield TimelineEvent(request.judged_at, wording.RETURN_STATES[request.state], text, tone)


STRATEGIES: Final = {
    "priority": "priority",
    "weighted": "share",
    "highest_price": "price",
    "fair": "turn",
    "expected_value": "expected value",
}


def why_awarded(detail: LeadDetail) -> str:
    """Return how many businesses were eligible, and by which strategy this one was chosen.

    Names no other business.
    """
    subscription_id = detail.lead.subscription_id
    decision = next((entry for entry in detail.decisions if entry.subscription_id == subscription_id), None)
    if decision is None:
        return ""
    eligible = sum(1 for candidate in decision.candidates if candidate.position is not None or not candidate.failures)
    strategy = STRATEGIES.get(decision.strategy or "", (decision.strategy or "").replace("_", " "))
    name = f" with “{detail.terms.subscription}”" if detail.terms else ""
    if eligible <= 1:
        return f"You were the only business that matched{name}."
    return f"You were 1 of {eligible} businesses that matched{name}, and came first by {strategy}."


# Outcome and return.


class ReturnOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The time left to return a lead, and how many leads the business may still return."""

    open: bool
    until: datetime | None
    left: str
    quota_left: int
    words: str


def _outcome_form(currency: str, zone: str) -> ShownForm:
    kinds = [(kind, wording.KINDS[kind]) for kind in REPORTED_WITH_NOTE]
    options = {"kind": kinds, "reason": tuple(wording.LOST.items())}
    return show_form(OutcomeForm, options=options, currency=currency, zone=zone)


def _return_form() -> ShownForm:
    nothing = ("", "Nothing chosen")
    results = (DimensionResult.fails, DimensionResult.unknown, DimensionResult.meets)
    calls = tuple(wording.CALLS.items())
    options = {
        "ground": tuple(wording.RETURNS.items()),
        "dimension": (nothing, *((dimension, words(dimension)) for dimension in Dimension)),
        "result": (nothing, *((result, wording.RESULTS[result]) for result in results)),
        **{f"came_{line}": calls for line in CALL_LINES},
    }
    return show_form(ReturnForm, options=options)


def _return_options(detail: LeadDetail) -> ReturnOptions | None:
    """Return the options of a delivered lead for which no return was requested; None for any other lead."""
    lead, terms, recent = detail.lead, detail.terms, detail.recent
    if detail.return_request is not None or lead.state is not AssignmentState.delivered:
        return None
    if lead.settled_at is None or terms is None:
        return None
    limits, now = returns.return_terms(terms.vertical), clock.now()
    allowance = allow_return(limits, lead.settled_at, recent.delivered, recent.returned, now)
    quota_words = (
        f"Leads that you can still return: {allowance.left}. The limit is {limits.percent}% of the {recent.delivered} "
        f"leads delivered in the last {QUOTA_DAYS} days, but at least {limits.at_least}."
    )
    return ReturnOptions(
        open=allowance.closed is None,
        until=allowance.until,
        left=duration((allowance.until - now).total_seconds()),
        quota_left=allowance.left,
        words=quota_words,
    )


@post("/business/leads/{lead_id:str}/outcome")
async def record_outcome(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Record the outcome of a lead."""
    viewer, fields = await changing(request, CallerKind.business)
    internal_id = path_id("lead", lead_id)
    try:
        form = fill(OutcomeForm, fields)
        async with session(services(request).pool) as connection:
            lead = await feedback_flow.load_lead(connection, holder_of(viewer), internal_id)
        value = read_amount(form.value, lead.currency, "value") if form.kind is DispositionKind.won else None
        reason = form.reason if form.kind is DispositionKind.lost else None
        booked = form.kind is DispositionKind.appointment
        body = DispositionBody(
            kind=form.kind,
            value_minor=value,
            reason=reason,
            starts_at=read_local_time(form.starts_at, viewer.zone, "starts_at") if booked else None,
            note=form.note or None,
            event_id=form.once or None,
        )
        await feedback_flow.report_one(
            services(request).pool,
            holder_of(viewer),
            DispositionSource.portal,
            DispositionReport(body=body, lead_id=internal_id),
        )
    except errors.EventReused:
        message = "This page was out of date, so nothing was recorded. Record the outcome again."
        return redirect(request, f"/business/leads/{lead_id}", message)
    except errors.InvalidInput as error:
        return await show_again(request, fields, _at_value(error), _lead_page(request, viewer, internal_id))
    await _announce(request, viewer)
    return redirect(request, f"/business/leads/{lead_id}", f"Recorded: {wording.KINDS[form.kind].lower()}.")


def _at_value(error: errors.InvalidInput) -> errors.InvalidInput:
    """Return the error with faults of the API's field `value_minor` placed at the form's field `value`."""
    return errors.InvalidInput(
        tuple(
            msgspec.structs.replace(fault, pointer="/value", detail="Enter the value of the job, such as 8,400.")
            if fault.pointer == "/value_minor"
            else fault
            for fault in error.faults
        )
    )


async def _announce(request: AnyRequest, viewer: Viewer) -> None:
    """Update the open pages that this process serves; those of other processes follow within seconds."""
    request.app.state.live.listener.wake(viewer.account)


def read_amount(text: str | None, currency: str, name: str) -> int | None:
    """Return an amount such as `8,400` or `8400.50` in minor units; None for an empty text. Raises InvalidInput."""
    plain = clean(text or "")
    if not plain:
        return None
    try:
        return amounts.read_amount(plain, currency)
    except CellFault as fault:
        raise field_fault(name, fault.code, fault.detail) from None


def read_local_time(text: str | None, zone: str, name: str) -> datetime | None:
    """Return a time as a browser sends it, in the zone; None for an empty text. Raises InvalidInput."""
    if not text:
        return None
    moment = read_local(text, zone_of(zone))
    if moment is None:
        raise field_fault(name, FaultCode.type_wrong, "Enter a day and a time, such as 11/21/2026, 10:00 AM.")
    return moment


def field_fault(name: str, code: str, detail: str) -> errors.InvalidInput:
    """Return an error with one fault, at this field of a form."""
    return errors.InvalidInput((Fault(pointer=f"/{name}", code=code, detail=detail),))


@post("/business/leads/{lead_id:str}/return")
async def request_return(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Request a return of a lead. Returns that the records prove or disprove are decided at once."""
    viewer, fields = await changing(request, CallerKind.business)
    internal_id = path_id("lead", lead_id)
    try:
        form, claim = fill(ReturnForm, fields), None
        if form.ground is ReturnReason.bant_mismatch and form.dimension and form.result:
            claim = ReturnClaim(dimension=form.dimension, result=form.result)
        return_request = await returns.file_return(
            services(request).pool,
            holder_of(viewer),
            internal_id,
            form.ground,
            form.note or None,
            claim,
            form.calls(viewer.zone),
        )
    except errors.InvalidInput as error:
        faults = tuple(
            msgspec.structs.replace(fault, pointer=_return_field(fault.pointer, fields)) for fault in error.faults
        )
        return await show_again(request, fields, errors.InvalidInput(faults), _lead_page(request, viewer, internal_id))
    except errors.Conflict as error:
        return await show_again(request, fields, error, _lead_page(request, viewer, internal_id))
    await _announce(request, viewer)
    messages: dict[str, str] = {
        "granted": f"Refunded. {return_request.finding}",
        "denied": f"Not refunded. {return_request.finding}",
        "requested": "Requested. The marketplace will review it.",
    }
    return redirect(request, f"/business/leads/{lead_id}", messages[return_request.state])


def _return_field(pointer: str, fields: FormFields) -> str:
    """Return the pointer to the form's field for a pointer of the API.

    The API counts only the calls that were filled in.
    """
    if pointer.startswith("/calls/"):
        names = ("called", "dialled")
        filled = [line for line in CALL_LINES if any(any(fields.get(f"{name}_{line}", ())) for name in names)]
        _, _, place, field = pointer.split("/")
        return f"/{'dialled' if field == 'number' else 'called'}_{filled[int(place)]}"
    return "/dimension" if pointer == "/claim" else pointer


handlers = (show_lead, record_outcome, request_return)
