"""One lead of a business: everything known about it, and the forms that report an outcome or request a return."""

from datetime import datetime, timedelta
from typing import Annotated, Final
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from billing.returns import QUOTA_DAYS, ReturnReason, allow_return
from marketplace.database.db import session
from marketplace.feedback import flow as feedback_flow
from marketplace.feedback import returns
from marketplace.feedback import store as feedback_store
from marketplace.feedback.flow import DispositionReport, LeadHolder
from marketplace.feedback.store import (
    BusinessLead,
    CallOutcome,
    Disposition,
    DispositionKind,
    DispositionSource,
    LostReason,
    ReturnRequest,
)
from marketplace.feedback.wire import CallBody, DispositionBody, ReturnClaim
from marketplace.imports import amounts
from marketplace.imports.cells import CellFault, clean
from marketplace.intake.contact import Contact
from marketplace.portal.business import store, wording
from marketplace.portal.business.lead_list import spaced
from marketplace.portal.business.store import BusinessAttempt, LeadDecision, LeadTerms
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import Given, changing, fill, show_again
from marketplace.portal.frame import duration, redirect, zone_of
from marketplace.portal.frame import money as spoken
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault, FaultCode
from marketplace.text.values import read_local
from marketplace.web.http import AnyRequest, path_id, services
from routing.inquiry import Facts
from routing.lifecycle import AssignmentState
from routing.qualification import Dimension, DimensionResult

CALL_LINES: Final = (1, 2, 3)
"Calls that the form has room for."

Text = Annotated[str, Meta(max_length=2_000)]
When = Annotated[str, Meta(max_length=30)]
Dialled = Annotated[str, Meta(max_length=40)]


class OutcomeForm(msgspec.Struct, frozen=True, kw_only=True):
    """One tap: what became of a lead. `value` is in whole units, as people write money."""

    kind: DispositionKind
    value: Annotated[str, Meta(max_length=20)] | None = None
    reason: LostReason | None = None
    note: Text | None = None
    once: Annotated[str, Meta(max_length=60)] | None = None


class ReturnForm(msgspec.Struct, frozen=True, kw_only=True):
    """Why a lead is given back; `dimension` and `result` with a mismatch alone.

    A call that was made is a moment of the viewer's clock, what came of it, and the number that was dialled.
    """

    ground: ReturnReason
    note: Text | None = None
    dimension: Dimension | None = None
    result: DimensionResult | None = None
    called_1: When | None = None
    called_2: When | None = None
    called_3: When | None = None
    came_1: CallOutcome = CallOutcome.no_answer
    came_2: CallOutcome = CallOutcome.no_answer
    came_3: CallOutcome = CallOutcome.no_answer
    dialled_1: Dialled | None = None
    dialled_2: Dialled | None = None
    dialled_3: Dialled | None = None

    def calls(self, zone: str) -> tuple[CallBody, ...]:
        """The lines that were filled in. Raises InvalidInput for a moment that is none."""
        found = []
        for line in CALL_LINES:
            text, number = getattr(self, f"called_{line}"), getattr(self, f"dialled_{line}")
            if not text and not number:
                continue
            at = read_local(text, zone_of(zone))
            if at is None:
                raise field_fault(f"called_{line}", FaultCode.field_missing, "Say when you called.")
            found.append(CallBody(at=at, outcome=getattr(self, f"came_{line}"), number=number))
        return tuple(found)


def holder_of(viewer: Viewer) -> LeadHolder:
    """The business in the mode that is looked at, with the member who acts for it."""
    return LeadHolder(business_id=viewer.owner, mode=viewer.mode, actor=viewer.actor, opened=viewer.opened)


class LeadDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one lead that its business may know."""

    lead: BusinessLead
    contact: Contact | None
    told: tuple[Disposition, ...]
    asked: ReturnRequest | None
    terms: LeadTerms | None
    decided: tuple[LeadDecision, ...]
    attempts: tuple[BusinessAttempt, ...]
    recent: feedback_store.RecentReturns
    stages: tuple[feedback_store.PipelineStage, ...]


async def load_story(request: AnyRequest, viewer: Viewer, lead_id: UUID) -> LeadDetail:
    """Raises NotFound for a lead that was not shown to the business in the mode that is looked at."""
    found = services(request)
    async with session(found.pool) as connection:
        lead = await feedback_flow.load_lead(connection, holder_of(viewer), lead_id)
        opened = await feedback_flow.open_contact(connection, found.sealer, holder_of(viewer), lead)
        since = clock.now() - timedelta(days=QUOTA_DAYS)
        return LeadDetail(
            lead=lead,
            contact=None if opened is None else msgspec.json.decode(opened, type=Contact),
            told=await feedback_store.list_dispositions(connection, lead.assignment_id),
            asked=await feedback_store.find_return(connection, assignment_id=lead.assignment_id),
            terms=await store.find_terms(connection, lead.assignment_id, viewer.owner),
            decided=await store.list_decided(connection, lead_id),
            attempts=await store.list_attempts(connection, viewer.owner, viewer.mode, None, 40, lead_id=lead_id),
            recent=await feedback_store.count_recent(connection, viewer.owner, viewer.mode, since),
            stages=await feedback_store.list_stages(connection, viewer.owner),
        )


@get("/business/leads/{lead_id:str}")
async def show_lead(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Shows one lead: whom to call, what is known, what happened, and what to say of it."""
    viewer = await visitor(request, CallerKind.business)
    return await _lead_page(request, viewer, path_id("lead", lead_id))


async def _lead_page(
    request: AnyRequest,
    viewer: Viewer,
    lead_id: UUID,
) -> Response[bytes]:
    story = await load_story(request, viewer, lead_id)
    return await business_page(
        request,
        viewer,
        "business/lead.html",
        story=story,
        lead=story.lead,
        contact=story.contact,
        home=f"/business/leads/{ids.encode('lead', lead_id)}",
        who=story.contact.full_name if story.contact else "Lead",
        phone=spaced(story.contact.phone) if story.contact else "",
        steps=feedback_flow.first_steps(story.lead, story.told),
        events=timeline(story),
        cards=_cards(story),
        facts=_facts(story.lead.facts, story),
        reportable=story.lead.state in feedback_flow.REPORTABLE and viewer.may_change,
        standing=standing(story),
        returning=_returning(story),
        call_lines=CALL_LINES,
        once=ids.encode("evt", clock.new_id()),
        map_link=_map_link(story),
    )


def standing(story: LeadDetail) -> Disposition | None:
    """Where the lead stands: by the latest of what was told."""
    return story.told[-1] if story.told else None


def _map_link(story: LeadDetail) -> str:
    contact = story.contact
    if contact is None:
        return ""
    parts = (contact.street, contact.postal_code, contact.country)
    return "https://www.openstreetmap.org/search?query=" + quote(", ".join(part for part in parts if part))


class DimensionCard(msgspec.Struct, frozen=True, kw_only=True):
    """One of the four dimensions: what is known, how, and what it was worth."""

    name: str
    value: str
    result: DimensionResult
    evidence: str
    threshold: str
    points: int


def _cards(story: LeadDetail) -> tuple[DimensionCard, ...]:
    if story.lead.verdict is None:
        return ()
    return tuple(
        DimensionCard(
            name=finding.dimension.value.capitalize(),
            value=finding.value or "Not told",
            result=finding.result,
            evidence=finding.evidence.value if finding.evidence else "",
            threshold=finding.threshold,
            points=finding.points,
        )
        for finding in story.lead.verdict.findings
    )


def _facts(facts: Facts, story: LeadDetail) -> tuple[tuple[str, str], ...]:
    """What was asked of the person and answered, and where they came from."""
    needs = story.terms.market.needs if story.terms else {}
    found = [
        (needs[name].label or name.replace("_", " ").capitalize() if name in needs else name, _answer(value))
        for name, value in facts.need_fields.items()
    ]
    extra = (
        ("Company size", facts.company_size),
        ("Role", facts.role),
        ("Came from", facts.source),
        ("Campaign", facts.campaign),
        ("Form", facts.form),
    )
    return (*found, *((name, str(value)) for name, value in extra if value is not None))


def _answer(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return f"{value:,}" if isinstance(value, int) else value.replace("_", " ").capitalize()


# What happened.

Event = tuple[datetime | None, str, str, str]


def timeline(story: LeadDetail) -> list[Event]:
    """The lead's life in order: when, what, how, and in which tone."""
    lead, begun = story.lead, story.lead.received_at

    def after(moment: datetime) -> str:
        return f"+{duration((moment - begun).total_seconds())}"

    events: list[Event] = [
        (
            begun,
            "Received",
            f"{duration((begun - lead.submitted_at).total_seconds())} after the person sent it.",
            "good",
        )
    ]
    events += [
        (touch.at, "On the way here", f"{touch.kind.replace('_', ' ')}: {touch.detail}".rstrip(": "), "muted")
        for touch in lead.facts.touches[:20]
    ]
    if lead.qualified_at and lead.verdict:
        events.append(
            (lead.qualified_at, "Qualified", f"{after(lead.qualified_at)}, {lead.verdict.score} of 100 points.", "good")
        )
    events.append((lead.awarded_at, "Chosen for you", f"{after(lead.awarded_at)}. {why_chosen(story)}", "good"))
    events += [
        (
            one.started_at,
            f"Sent to your server: {wording.OUTCOMES.get(one.outcome, one.outcome).lower()}",
            f"{wording.attempt_words(one.outcome, one.reason, one.status)} {duration(one.total_ms / 1000)}.",
            wording.OUTCOME_TONES.get(one.outcome, "muted"),
        )
        for one in story.attempts
    ]
    price = spoken(lead.price_minor, lead.currency)
    if lead.delivered_at:
        paid = (
            "Not charged: this is a test."
            if lead.mode == "test"
            else f"{price}, at the price quoted when it was chosen."
        )
        events.append(
            (
                lead.delivered_at,
                "Delivered and charged" if lead.mode == "live" else "Delivered",
                f"{after(lead.delivered_at)}. {paid}",
                "good",
            )
        )
    if lead.state in (AssignmentState.refused, AssignmentState.lapsed) and lead.settled_at:
        events.append((lead.settled_at, wording.STATES[lead.state], wording.STATE_NOTES[lead.state], "warn"))
    events += [_told_event(one, lead.currency) for one in story.told]
    events += _return_events(story)
    return sorted(events, key=lambda event: event[0] or begun)


def _told_event(one: Disposition, currency: str) -> Event:
    words = [f"Told {wording.SOURCES[one.source]}."]
    if one.value_minor is not None:
        words.insert(0, f"Worth {spoken(one.value_minor, currency)}.")
    if one.reason is not None:
        words.insert(0, f"{wording.LOST[one.reason]}.")
    if one.note:
        words.append(f"“{one.note}”")
    return one.happened_at, one.stage or wording.KINDS[one.kind], " ".join(words), wording.KIND_TONES[one.kind]


def _return_events(story: LeadDetail) -> list[Event]:
    asked = story.asked
    if asked is None:
        return []
    events: list[Event] = [
        (
            asked.requested_at,
            "You asked to give it back",
            f"{wording.RETURNS[asked.reason]}. {asked.note or ''}".strip(),
            "busy",
        )
    ]
    if asked.judged_at:
        granted = asked.state is feedback_store.ReturnState.granted
        back = (
            f" {spoken(asked.price_minor, asked.currency)} went back to your wallet."
            if granted and asked.mode == "live"
            else ""
        )
        events.append(
            (
                asked.judged_at,
                wording.RETURN_STATES[asked.state],
                f"{asked.finding or ''}{back}",
                "good" if granted else "bad",
            )
        )
    return events


STRATEGIES: Final = {
    "priority": "the order of priority",
    "weighted": "each business's share",
    "highest_price": "the highest price",
    "fair": "whose turn it was",
    "expected_value": "the best expected value",
}


def why_chosen(story: LeadDetail) -> str:
    """How many could have had it, and by what it went to this business; never who the others were."""
    decision = next((one for one in story.decided if one.subscription_id == story.lead.subscription_id), None)
    if decision is None:
        return ""
    eligible = sum(1 for one in decision.candidates if one.position is not None or not one.failures)
    by = STRATEGIES.get(decision.strategy or "", (decision.strategy or "").replace("_", " "))
    order = f" under “{story.terms.subscription}”" if story.terms else ""
    if eligible <= 1:
        return f"You were the only business that fitted{order}."
    return f"You were 1 of {eligible} that fitted{order}, and came first by {by}."


# What can be said of it.


class ReturnOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a lead may still be given back: until when, and how many of the month's are left."""

    open: bool
    until: datetime | None
    left: str
    quota_left: int
    words: str


def _returning(story: LeadDetail) -> ReturnOptions | None:
    lead, terms = story.lead, story.terms
    if story.asked is not None or lead.state is not AssignmentState.delivered or lead.settled_at is None or not terms:
        return None
    limits, now = returns.return_terms(terms.market), clock.now()
    allowance = allow_return(limits, lead.settled_at, story.recent.delivered, story.recent.returned, now)
    words = (
        f"You may give back {allowance.left} more now: {limits.percent}% of the {story.recent.delivered} leads "
        f"delivered in the last {QUOTA_DAYS} days, and never fewer than {limits.at_least}."
    )
    return ReturnOptions(
        open=allowance.closed is None,
        until=allowance.until,
        left=duration((allowance.until - now).total_seconds()),
        quota_left=allowance.left,
        words=words,
    )


@post("/business/leads/{lead_id:str}/outcome")
async def record_outcome(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Records what became of a lead, in one tap."""
    viewer, given = await changing(request, CallerKind.business)
    chosen = path_id("lead", lead_id)
    try:
        form = fill(OutcomeForm, given)
        async with session(services(request).pool) as connection:
            lead = await feedback_flow.load_lead(connection, holder_of(viewer), chosen)
        value = read_amount(form.value, lead.currency, "value") if form.kind is DispositionKind.won else None
        body = DispositionBody(
            kind=form.kind,
            value_minor=value,
            reason=form.reason if form.kind is DispositionKind.lost else None,
            note=form.note or None,
            event_id=form.once or None,
        )
        await feedback_flow.report_one(
            services(request).pool,
            holder_of(viewer),
            DispositionSource.portal,
            DispositionReport(body=body, lead_id=chosen),
        )
    except errors.EventReused:
        return redirect(
            request, f"/business/leads/{lead_id}", "This page was older than what it showed. Tap once more."
        )
    except errors.InvalidInput as error:
        return await show_again(request, given, _at_value(error), _lead_page(request, viewer, chosen))
    await _announce(request, viewer)
    return redirect(request, f"/business/leads/{lead_id}", f"Recorded: {wording.KINDS[form.kind].lower()}.")


def _at_value(error: errors.InvalidInput) -> errors.InvalidInput:
    """The form's field is called `value`; the interface's `value_minor`."""
    return errors.InvalidInput(
        tuple(
            msgspec.structs.replace(fault, pointer="/value", detail="Say what the job is worth, such as 8,400.")
            if fault.pointer == "/value_minor"
            else fault
            for fault in error.faults
        )
    )


async def _announce(request: AnyRequest, viewer: Viewer) -> None:
    """Wakes the open pages of this process; those of others see it within seconds."""
    request.app.state.live.listener.wake(viewer.account)


def read_amount(text: str | None, currency: str, name: str) -> int | None:
    """Money as people write it, `8,400` or `8400.50`, in minor units; None for nothing. Raises InvalidInput."""
    plain = clean(text or "")
    if not plain:
        return None
    try:
        return amounts.read_amount(plain, currency)
    except CellFault as fault:
        raise field_fault(name, fault.code, fault.detail) from None


def field_fault(name: str, code: str, detail: str) -> errors.InvalidInput:
    """The error for one field of a form."""
    return errors.InvalidInput((Fault(pointer=f"/{name}", code=code, detail=detail),))


@post("/business/leads/{lead_id:str}/return")
async def request_return(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Asks to give a lead back; what the record settles is settled at once."""
    viewer, given = await changing(request, CallerKind.business)
    chosen = path_id("lead", lead_id)
    try:
        form = fill(ReturnForm, given)
        mismatch = form.ground is ReturnReason.bant_mismatch
        claim = (
            ReturnClaim(dimension=form.dimension, result=form.result)
            if mismatch and form.dimension and form.result
            else None
        )
        asked = await returns.file_return(
            services(request).pool,
            holder_of(viewer),
            chosen,
            form.ground,
            form.note or None,
            claim,
            form.calls(viewer.zone),
        )
    except errors.InvalidInput as error:
        shown = errors.InvalidInput(
            tuple(msgspec.structs.replace(fault, pointer=_return_field(fault.pointer, given)) for fault in error.faults)
        )
        return await show_again(request, given, shown, _lead_page(request, viewer, chosen))
    except errors.Conflict as error:
        return await show_again(request, given, error, _lead_page(request, viewer, chosen))
    await _announce(request, viewer)
    words: dict[str, str] = {
        "granted": f"Refunded. {asked.finding}",
        "denied": f"Not refunded. {asked.finding}",
        "requested": "Asked. Somebody at the marketplace looks at it.",
    }
    return redirect(request, f"/business/leads/{lead_id}", words[asked.state])


def _return_field(pointer: str, given: Given) -> str:
    """The form's own name of a field of the interface."""
    if pointer.startswith("/calls/"):
        names = ("called", "dialled")
        filled = [line for line in CALL_LINES if any(any(given.get(f"{name}_{line}", ())) for name in names)]
        _, _, place, field = pointer.split("/")
        return f"/{'dialled' if field == 'number' else 'called'}_{filled[int(place)]}"
    return "/dimension" if pointer == "/claim" else pointer


handlers = (show_lead, record_outcome, request_return)
