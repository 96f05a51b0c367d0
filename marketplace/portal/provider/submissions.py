"""Submissions of a provider: their list, a search, and a page for each.

The search for a person redirects to an address with the keyed hash of a phone number or e-mail address, so that neither
is in a browser history or the log of a proxy. The pages never show which business has the lead, or its price.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import Connection, session
from marketplace.directory.suppressions import Person, marks_of
from marketplace.distribution import http as distribution_http
from marketplace.distribution.http import Trace, TraceDecision
from marketplace.intake import store as intake_store
from marketplace.intake.contact import LONGEST_EMAIL
from marketplace.intake.store import InquiryStatus
from marketplace.journey import store as journey_store
from marketplace.journey.flow import UNCORRECTED, Journey, SentCorrection
from marketplace.journey.shapes import CorrectionBody
from marketplace.portal.forms import ShownForm, changing, fields, fill, label, show_again, show_form
from marketplace.portal.frame import badge, duration, money, page, redirect, short, words
from marketplace.portal.journey_words import journey_events
from marketplace.portal.listing import Column, Link, Listing, Money, muted, only_in_file
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.provider import store
from marketplace.portal.provider.page_filters import question_of
from marketplace.portal.provider.spec import list_verticals
from marketplace.portal.provider.store import Submission
from marketplace.portal.provider.wording import CALLS, RETURNS, STATES, reason_in_words, why
from marketplace.portal.session import Viewer, demand_own_page, demand_token, visitor
from marketplace.reports.question import Question
from marketplace.reports.rows import find_ids, read_filters
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind, Principal
from marketplace.text.characters import LONGEST_PHONE, clean_line
from marketplace.web.http import AnyRequest, page_cursor, parse, path_id, services, wants_csv
from routing.currency import minor_digits
from routing.inquiry import Authority
from routing.joining import JoinReason
from routing.journey import JourneyEntry
from routing.lifecycle import LeadState
from routing.matching import Rule
from routing.qualification import DimensionFinding, DimensionResult, InterestFinding

CSV_LINES: Final = 10_000
USUAL_DAYS: Final = 30
MOST_FOUND: Final = 200
PERSON_BYTES: Final = 32
MOST_SPELLINGS: Final = 5
"A mailbox and up to four spellings of it in older records (`mailbox.spellings`)."
FILTERS: Final = ("state", "why", "reached", "sub_id", "vertical", "from", "to")

Moment = tuple[datetime | None, str, str, str]
"""An entry of the timeline: time, title, text and tone."""


def submission_link(lead_id: UUID, reference: str | None) -> Link:
    """Return a link to the page of a submission, named by the provider's reference, or by our id."""
    lead = ids.encode("lead", lead_id)
    return Link(f"/provider/submissions/{lead}", reference or short(lead))


def state_badge(state: LeadState) -> Markup:
    """Return the badge of a submission's state, in the words for providers."""
    name, tone = STATES[state]
    return Markup('<span class="badge is-{}">{}</span>').format(tone, name)


SUBMISSIONS: Final = Listing[Submission](
    caption="Submissions",
    name="submissions",
    columns=(
        only_in_file("id", lambda row: ids.encode("lead", row.id)),
        Column(
            "Received",
            lambda row: Link(f"/provider/submissions/{ids.encode('lead', row.id)}", row.received_at),
            file="received_at",
            value=lambda row: row.received_at.isoformat(),
        ),
        Column(
            "Reference",
            lambda row: row.provider_reference or short(ids.encode("lead", row.id)),
            file="provider_reference",
            value=lambda row: row.provider_reference or "",
        ),
        Column("Service", lambda row: row.vertical, file="vertical"),
        Column("State", lambda row: state_badge(row.state), file="state", value=lambda row: row.state),
        Column(
            "Why",
            lambda row: why(row.state, row.reason) or None,
            file="reason",
            value=lambda row: why(row.state, row.reason),
        ),
        Column("You earn", lambda row: Money(row.payout_minor, row.currency or ""), file="payout_minor", style="num"),
        only_in_file("currency", lambda row: row.currency or ""),
    ),
    order=("id", "provider_reference", "vertical", "state", "reason", "received_at", "payout_minor", "currency"),
)


class _SubmissionList(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[Submission, ...]
    next_cursor: str | None
    question: Question | None = None


@get("/provider/submissions")
async def show_submissions(request: AnyRequest) -> Response[bytes]:
    """Show all submissions, newest first, or those of the filter or search in the address."""
    viewer = await visitor(request, CallerKind.provider)
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file else list_limit(request)
    result = await _find(request, viewer, limit)
    if as_file:
        return await SUBMISSIONS.download(result.rows)
    return page(
        request,
        viewer,
        "provider/submissions.html",
        listing=SUBMISSIONS,
        rows=result.rows,
        next_cursor=result.next_cursor,
        states=STATES,
        in_words=reason_in_words,
        question=result.question,
        services=await list_verticals(request),
        searched=bool(request.query_params.get("reference") or request.query_params.get("person")),
    )


async def _find(request: AnyRequest, viewer: Viewer, limit: int) -> _SubmissionList:
    """Load the rows of the filter or search in the address. Raises InvalidInput for an invalid filter."""
    query, pool = request.query_params, services(request).pool
    after = page_cursor(request, "lead")
    reference, person = query.get("reference"), query.get("person") or ""
    if reference or person:
        async with session(pool) as connection:
            leads = await store.find_submissions(
                connection, viewer.owner, viewer.mode, reference or None, _person(person), MOST_FOUND
            )
            return _SubmissionList(rows=await _load(connection, viewer, leads), next_cursor=None)
    if not any(query.get(name) for name in FILTERS):
        async with session(services(request).reports) as connection:
            rows = await store.list_submissions(connection, viewer.owner, viewer.mode, after, limit + 1)
        next_cursor = next_page("lead", [row.id for row in rows], limit)
        return _SubmissionList(rows=rows[:limit], next_cursor=next_cursor)
    question = question_of(request, viewer, USUAL_DAYS)
    filters = read_filters({name: value for name, value in query.items() if value and name in FILTERS})
    matching = await find_ids(services(request).reports, question, filters)
    begin = matching.index(after) + 1 if after is not None and after in matching else 0
    leads = tuple(matching[begin : begin + limit])
    async with session(pool) as connection:
        rows = await _load(connection, viewer, leads)
    next_cursor = ids.encode("lead", leads[-1]) if len(matching) > begin + limit else None
    return _SubmissionList(rows=rows, question=question, next_cursor=next_cursor)


async def _load(connection: Connection, viewer: Viewer, leads: tuple[UUID, ...]) -> tuple[Submission, ...]:
    return await store.list_these_submissions(connection, viewer.owner, viewer.mode, leads)


def _person(text: str) -> tuple[bytes, ...]:
    """Return the keyed hashes in the address of a search for a person; none if they are malformed."""
    try:
        keys = tuple(bytes.fromhex(part) for part in text.split(".", MOST_SPELLINGS)[:MOST_SPELLINGS])
    except ValueError:
        return ()
    return keys if all(len(key) == PERSON_BYTES for key in keys) else ()


# Search.


@post("/provider/submissions/search")
async def search(request: AnyRequest) -> Response[bytes]:
    """Redirect to the submission or list for a lead id, a reference, an e-mail address or a phone number."""
    viewer = await visitor(request, CallerKind.provider)
    demand_own_page(request)
    form = await fields(request)
    demand_token(request, (form.get("csrf") or ("",))[0])
    text = clean_line((form.get("q") or ("",))[-1])
    if not text:
        return redirect(request, "/provider/submissions")
    if ids.decode("lead", text) is not None:
        return redirect(request, f"/provider/submissions/{text}")
    async with session(services(request).pool) as connection:
        by_reference = await store.find_submissions(connection, viewer.owner, viewer.mode, text[:255], (), 1)
    marks = () if by_reference else _marks(text)
    if not marks:
        return redirect(request, f"/provider/submissions?{urlencode({'reference': text[:255]})}")
    keys = [services(request).sealer.keyed_hash("suppression", mark).hex() for mark in marks]
    return redirect(request, f"/provider/submissions?{urlencode({'person': '.'.join(keys)})}")


def _marks(text: str) -> tuple[str, ...]:
    """Return the normalised spellings of a phone number or e-mail address; none for any other text."""
    person = Person(email=text) if "@" in text else Person(phone=text)
    try:
        return marks_of(person)
    except errors.InvalidInput:
        return ()


# One submission.


def _answer(finding: DimensionFinding) -> Markup:
    evidence = Markup(" {}").format(muted(f"({finding.evidence})")) if finding.evidence else ""
    required = muted(f"required: {finding.threshold}")
    return Markup("<span>{}{}<br>{}</span>").format(finding.value or "no answer", evidence, required)


RESULT_TONES: Final = {DimensionResult.meets: "good", DimensionResult.fails: "bad"}
POINTS: Final = Listing[DimensionFinding](
    caption="Score by criterion",
    columns=(
        Column("Criterion", lambda finding: words(finding.dimension), style="nowrap"),
        Column("Answer", _answer),
        Column("Result", lambda finding: badge(finding.result, RESULT_TONES.get(finding.result, "muted"))),
        Column("Points", lambda finding: finding.points, style="num"),
    ),
)
INTEREST: Final = Listing[InterestFinding](
    caption="Interest that the person showed",
    columns=(
        Column("Criterion", lambda finding: finding.label, style="nowrap"),
        Column("Required", lambda finding: finding.threshold),
        Column("Result", lambda finding: badge(finding.result, RESULT_TONES.get(finding.result, "muted"))),
        Column("Points", lambda finding: finding.points, style="num"),
    ),
)
MISSES: Final = Listing[tuple[str, int]](
    caption="Why no business took it",
    columns=(
        Column("Reason", lambda miss: miss[0]),
        Column("Businesses", lambda miss: miss[1], style="num"),
    ),
)


class CorrectionForm(msgspec.Struct, frozen=True, kw_only=True):
    """Correction of a submission. A field that is left empty stays as it is."""

    budget: Annotated[Annotated[int, Meta(ge=0, le=10**10)] | None, label("Budget, in whole {currency}")] = None
    authority: Annotated[Authority | None, label("Who decides")] = None
    within_days: Annotated[Annotated[int, Meta(ge=0, le=3_650)] | None, label("Wanted within, in days from today")] = (
        None
    )
    full_name: Annotated[Annotated[str, Meta(max_length=100)] | None, label("Name")] = None
    phone: Annotated[Annotated[str, Meta(max_length=LONGEST_PHONE)] | None, label("Phone", kind="tel")] = None
    email: Annotated[Annotated[str, Meta(max_length=LONGEST_EMAIL)] | None, label("E-mail", kind="email")] = None
    street: Annotated[Annotated[str, Meta(max_length=200)] | None, label("Street")] = None
    postal_code: Annotated[Annotated[str, Meta(max_length=20)] | None, label("Postal code")] = None

    def body(self, currency: str) -> CorrectionBody:
        """Return the correction as the API takes it. Raises InvalidInput."""
        bant: dict[str, object] = {"authority": self.authority}
        if self.budget is not None:
            bant["budget"] = {"minor": self.budget * 10 ** minor_digits(currency), "currency": currency}
        if self.within_days is not None:
            bant["timing"] = {"within_days": self.within_days}
        contact = {
            "full_name": self.full_name,
            "phone": self.phone,
            "email": self.email,
            "street": self.street,
            "postal_code": self.postal_code,
        }
        document = {"bant": _filled_in(bant), "contact": _filled_in(contact)}
        return parse(msgspec.json.encode(document), CorrectionBody)


def _filled_in(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


@get("/provider/submissions/{lead_id:str}")
async def show_submission(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Show the page of a submission."""
    viewer = await visitor(request, CallerKind.provider)
    return await _submission_page(request, viewer, lead_id)


@post("/provider/submissions/{lead_id:str}/correct")
async def correct_submission(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Correct answers or contact details of a submission."""
    viewer, sent = await changing(request, CallerKind.provider)
    lead = path_id("lead", lead_id)
    async with session(services(request).pool) as connection:
        status = await _status(connection, viewer, lead)
    try:
        currency = (await services(request).catalog.current()).by_slug[status.vertical].definition.currency
        body = fill(CorrectionForm, sent).body(currency)
        correction = SentCorrection(body=body, request_sha256=sha256(msgspec.json.encode(body)).digest(), key=None)
        journey: Journey = request.app.state.journey
        await journey.correct(_caller(viewer, status), lead, correction)
    except (errors.InvalidInput, errors.Conflict) as error:
        faults = _faults_by_field(error) if isinstance(error, errors.InvalidInput) else None
        answer = _submission_page(request, viewer, lead_id)
        return await show_again(request, sent, error, answer, faults=faults)
    return redirect(request, f"/provider/submissions/{lead_id}", "Corrected. The history below shows what changed.")


def _faults_by_field(error: errors.InvalidInput) -> dict[str, str]:
    """Return the sentence of each fault by its field of the form, which is the last word of the API's field."""
    names = {"minor": "budget", "currency": "budget", "within_days": "within_days"}
    words_of = [(fault.pointer.rpartition("/")[2], fault.detail) for fault in error.faults]
    return {names.get(name, name): detail for name, detail in words_of}


def _caller(viewer: Viewer, status: InquiryStatus) -> Principal:
    return Principal(key_id=viewer.actor, kind=CallerKind.provider, owner_id=viewer.owner, mode=status.mode)


async def _submission_page(request: AnyRequest, viewer: Viewer, lead_id: str) -> Response[bytes]:
    lead = path_id("lead", lead_id)
    async with session(services(request).pool) as connection:
        status = await _status(connection, viewer, lead)
        trace = await distribution_http.load_trace(connection, _caller(viewer, status), lead)
        evidence = await store.find_evidence(connection, lead, viewer.owner)
        entries = await journey_store.list_provider_entries(connection, lead, viewer.owner)
    last = trace.decisions[-1] if trace.decisions else None
    verdict = last.verdict if last else None
    weighed = len(last.candidates) if last else 0
    currency = (await services(request).catalog.recent()).by_slug[status.vertical].definition.currency
    return page(
        request,
        viewer,
        "provider/submission.html",
        lead=status,
        lead_id=lead_id,
        state=state_badge(status.state),
        reason=why(status.state, status.reason),
        timeline=timeline(status, trace, entries),
        verdict=verdict,
        points=POINTS,
        interest=INTEREST,
        miss_listing=MISSES,
        misses=_misses(last),
        weighed=weighed,
        evidence=evidence,
        calls=CALLS,
        return_words=RETURNS.get(status.return_reason or "", status.return_reason or ""),
        correction_form=_correction_form(currency),
        correctable=status.state not in UNCORRECTED and viewer.may_change,
    )


def _correction_form(currency: str) -> ShownForm:
    options = [("", "As it is"), *((authority, words(authority)) for authority in Authority)]
    return show_form(CorrectionForm, {}, {"authority": options}, currency=currency)


async def _status(connection: Connection, viewer: Viewer, lead: UUID) -> InquiryStatus:
    """Return the status of a submission in either mode, so that links from the console work. Raises NotFound."""
    for mode in ("live", "test"):
        status = await intake_store.find_status(connection, lead, viewer.owner, mode)
        if status is not None:
            return status
    raise errors.NotFound("You have no submission with this id.")


def _misses(decision: TraceDecision | None) -> tuple[tuple[str, int], ...]:
    """Return the reasons for which businesses did not match, in words, with the number of businesses."""
    if decision is None:
        return ()
    counts = Counter(
        reason_in_words(candidate.failures[0].rule)
        for candidate in decision.candidates
        if candidate.failures and not candidate.awarded and candidate.failures[0].rule is not Rule.outranked
    )
    return tuple(counts.most_common())


def timeline(status: InquiryStatus, trace: Trace, entries: Iterable[JourneyEntry] = ()) -> tuple[Moment, ...]:
    """Return the events of a submission, in order."""
    turned = status.state in (LeadState.duplicate, LeadState.suppressed)
    moments: list[Moment] = [(status.submitted_at, "Submitted by the person", "As you reported.", "muted")]
    took = duration((status.received_at - status.submitted_at).total_seconds())
    if turned:
        word, tone = STATES[status.state]
        answer = "Answered 200. Nothing about the person was stored."
        moments.append((status.received_at, "Received", answer, "muted"))
        moments.append((status.received_at, word, _turned(status), tone))
        return tuple(moments)
    answer = f"Accepted and stored. Answered 202, {took} after the person submitted it."
    moments.append((status.received_at, "Received", answer, "good"))
    moments.extend(_decided(decision) for decision in trace.decisions)
    moments.extend(_delivered(status))
    moments.extend(journey_events(entries))
    return tuple(sorted(moments, key=lambda moment: moment[0] or status.received_at))


JOIN_WORDS: Final = {
    JoinReason.joined: "The provider of that lead is paid if it is sold.",
    JoinReason.joined_paid_if_last: "If the lead is sold, and no other inquiry joins it before, its payout is yours.",
    JoinReason.joined_paid_share: "If the lead is sold, you get an equal part of its payout.",
    JoinReason.joined_after_delivery: "The lead had been delivered before: no payout.",
}
"Payment of a provider whose inquiry joined an earlier lead, in words."


def _turned(status: InquiryStatus) -> str:
    if status.reason in JOIN_WORDS:
        paid = JOIN_WORDS[JoinReason(status.reason)]
        return f"This person was submitted for this service before. The answers were added to the earlier lead. {paid}"
    if status.state is LeadState.duplicate:
        return "This person was submitted for this service before, by you or by another provider."
    return "This person asked not to be contacted."


def _decided(decision: TraceDecision) -> Moment:
    score = f"Score {decision.verdict.score} of 100." if decision.verdict else ""
    words = {
        "held": ("Qualified and assigned to one business", score, "good"),
        "waiting": ("Qualified, waiting for a business", f"{score} {reason_in_words(decision.reason)}", "busy"),
        "unsold": ("Qualified, but no business took it", f"{score} {reason_in_words(decision.reason)}", "warn"),
        "rejected": ("Not qualified", f"{score} {reason_in_words(decision.reason)}", "bad"),
        "nurturing": ("Too early", f"{score} {reason_in_words(decision.reason)}", "busy"),
        "expired": ("Expired", reason_in_words(decision.reason), "bad"),
    }
    title, text, tone = words.get(decision.outcome or "", ("Decided", score, "muted"))
    return decision.made_at, title, text.strip(), tone


def _delivered(status: InquiryStatus) -> list[Moment]:
    """Return the events after the award, without the business."""
    moments: list[Moment] = []
    if status.exposed_at is not None:
        moments.append((status.exposed_at, "Sent to the business", "From now on no other business can get it.", "busy"))
    earned = money(status.payout_minor, status.payout_currency) if status.payout_currency else ""
    if status.acknowledged_at is not None:
        text = f"You earn {earned}." if earned and status.return_state != "granted" else "The business confirmed it."
        moments.append((status.acknowledged_at, "Sold: the business received it", text, "good"))
    elif status.state in (LeadState.refused, LeadState.lapsed):
        refused = status.state is LeadState.refused
        text = "The business refused it." if refused else "The business did not confirm it, so nothing is owed."
        moments.append((status.settled_at, STATES[status.state][0], text, STATES[status.state][1]))
    if status.return_state is not None:
        words = RETURNS.get(status.return_reason or "", "")
        moments.append((status.requested_at, "The business asked to return it", words, "warn"))
    if status.judged_at is not None:
        granted = status.return_state == "granted"
        title = "Returned: the payout was taken back" if granted else "The return was denied"
        moments.append((status.judged_at, title, status.finding or "", "bad" if granted else "good"))
    return moments


handlers: tuple[Any, ...] = (show_submissions, search, show_submission, correct_submission)
