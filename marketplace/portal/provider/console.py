"""Console page: send a test inquiry through the same intake as the API, and show how it was read and judged.

It acts for the viewer's provider, always in test mode. The prediction for a live inquiry comes from the rules in force,
without caps and wallets, and names no business.
"""

from collections import Counter
from typing import Any, Final

import msgspec
from litestar import Response, get, post

from marketplace.directory import going_live, posting
from marketplace.directory.going_live import Rehearsed
from marketplace.distribution.http import ABOUT_THE_LEAD
from marketplace.intake.flow import InquiryDryRun, Intake
from marketplace.intake.http import take_in
from marketplace.intake.refusals import Refusals
from marketplace.portal.forms import changing
from marketplace.portal.frame import page
from marketplace.portal.listing import Column, Listing
from marketplace.portal.provider.spec import list_verticals, vertical_of
from marketplace.portal.provider.submissions import MISSES, POINTS
from marketplace.portal.provider.wording import PHONE_VERIFICATIONS, reason_in_words
from marketplace.portal.session import Viewer, visitor
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors
from marketplace.security.auth import CallerKind, Principal
from marketplace.web.http import AnyRequest, count, services
from marketplace.web.limiting import RateBudget, RatePolicy
from marketplace.web.problems import render
from routing.decision import MatchedCandidates, OpenLead, decide
from routing.inquiry import Mode
from routing.lifecycle import LeadState
from routing.matching import Candidate
from routing.qualification import Nurture, Prospect, Rejection

SAMPLES: Final = {
    "good": posting.example,
    "faulty": posting.faulty,
    "early": posting.early,
}
PHRASES: Final = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    503: "Service Unavailable",
}
SHOWN_HEADERS: Final = ("idempotency-replayed", "retry-after")
MOST_CHARACTERS: Final = 30_000
"A form encodes a character in up to three bytes: with this many, it stays within the limit of a request body."


class ConsoleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The HTTP answer to the inquiry, as the API would have sent it."""

    status: int
    phrase: str
    headers: tuple[tuple[str, str], ...]
    body: str
    lead: str
    accepted: bool


class LivePrediction(msgspec.Struct, frozen=True, kw_only=True):
    """Prediction for the same inquiry sent live, by the rules in force; `misses` counts the reasons of businesses."""

    title: str
    tone: str
    text: str
    misses: tuple[tuple[str, int], ...] = ()


OTHER_MISSES: Final = Listing[tuple[str, int]](
    caption="Why other businesses do not match",
    columns=(Column("Why other businesses do not match", lambda miss: miss[0]), *MISSES.columns[1:]),
)


@get("/provider/console")
async def show_console(request: AnyRequest) -> Response[bytes]:
    """Show the console with a sample that is accepted, or with the one that `?sample=` names: `faulty` or `early`."""
    viewer = await visitor(request, CallerKind.provider)
    verticals = await list_verticals(request)
    vertical = vertical_of(request, verticals)
    if vertical is None:
        return page(request, viewer, "provider/no_vertical.html")
    sample = SAMPLES.get(request.query_params.get("sample", "good"), posting.example)
    return await _console_page(request, viewer, vertical, posting.pretty(sample(vertical, clock.now())))


@post("/provider/console")
async def send(request: AnyRequest) -> Response[bytes]:
    """Send the typed inquiry, and show the answer."""
    viewer, form = await changing(request, CallerKind.provider, verbatim="body")
    text = (form.get("body") or ("",))[-1].replace("\r\n", "\n")[:MOST_CHARACTERS]
    quota = services(request).settings.submissions_per_minute
    await count(request, RatePolicy(budget=RateBudget.submissions, quota=quota), viewer.account)
    caller = Principal(key_id=viewer.actor, kind=CallerKind.provider, owner_id=viewer.owner, mode=Mode.test)
    raw = text.encode("utf-8", "replace")
    try:
        reply = await take_in(request, caller, raw, None)
    except errors.MarketplaceError as error:
        reply = render(request, error)
    answer = _answer_of(reply)
    await _note_rehearsed(request, viewer, answer)
    dry_run = await _dry_run(request, caller, raw)
    vertical = vertical_of(request, await list_verticals(request))
    if vertical is None:
        return page(request, viewer, "provider/no_vertical.html")
    return await _console_page(request, viewer, vertical, text, answer, dry_run)


async def _console_page(
    request: AnyRequest,
    viewer: Viewer,
    vertical: Vertical,
    text: str,
    answer: ConsoleAnswer | None = None,
    dry_run: InquiryDryRun | None = None,
) -> Response[bytes]:
    judged: dict[str, Any] = {"prediction": None}
    if dry_run is not None:
        judged = {
            "prediction": await _predict(request, dry_run),
            "findings": dry_run.outcome.verdict.findings,
            "score": dry_run.outcome.verdict.score,
            "contact": _contact(dry_run),
            "facts": posting.pretty(dry_run.accepted.facts),
        }
    return page(
        request,
        viewer,
        "provider/console.html",
        vertical=vertical,
        verticals=await list_verticals(request),
        text=text,
        answer=answer,
        least=vertical.definition.minimum_score,
        most=MOST_CHARACTERS,
        points=POINTS,
        miss_listing=OTHER_MISSES,
        **judged,
    )


def _answer_of(reply: Response[bytes]) -> ConsoleAnswer:
    headers = {name.lower(): value for name, value in reply.headers.items()}
    body = msgspec.json.decode(reply.content)
    status = int(reply.status_code or 0)
    accepted = status < 300
    lead = str(body.get("id", "")) if accepted else ""
    repeated = ((name, headers[name]) for name in SHOWN_HEADERS if name in headers)
    return ConsoleAnswer(
        status=status,
        phrase=PHRASES.get(status, ""),
        body=msgspec.json.format(reply.content, indent=2).decode(),
        headers=(("content-type", str(reply.media_type)), *repeated),
        lead=lead,
        accepted=accepted,
    )


async def _note_rehearsed(request: AnyRequest, viewer: Viewer, answer: ConsoleAnswer) -> None:
    """Record which step towards going live this answer completes, and count its faults if it was refused."""
    repeated = any(name == "idempotency-replayed" for name, _ in answer.headers) or answer.status == 200
    step: Rehearsed = "refused"
    if answer.accepted:
        step = "repeated" if repeated else "accepted"
    if answer.status in (200, 202, 422):
        await going_live.note_rehearsed(services(request).pool, viewer.owner, step)
    if not answer.accepted:
        counts: Refusals = request.app.state.refusals
        await counts.flush()


async def _dry_run(request: AnyRequest, caller: Principal, raw: bytes) -> InquiryDryRun | None:
    """Read and judge the body without writing anything; None if it has faults."""
    intake: Intake = request.app.state.intake
    try:
        return await intake.dry_run(caller, await intake.read(caller, raw))
    except errors.InvalidInput:
        return None


def _contact(dry_run: InquiryDryRun) -> tuple[tuple[str, str], ...]:
    """Return the names and values of the contact as it would be stored."""
    contact, facts = dry_run.accepted.contact, dry_run.accepted.facts
    fields = (
        ("Name", contact.full_name),
        ("Phone", contact.phone),
        ("Kind of phone", facts.signals.phone_type.replace("_", " ")),
        ("Phone check", PHONE_VERIFICATIONS.get(facts.signals.phone_verification, "")),
        ("E-mail", contact.email),
        ("Street", contact.street),
        ("Postal code", contact.postal_code),
        ("Region", facts.place.region),
        ("Country", contact.country),
        ("Time zone", facts.place.time_zone),
    )
    return tuple((name, value) for name, value in fields if value)


async def _predict(request: AnyRequest, dry_run: InquiryDryRun) -> LivePrediction:
    match dry_run.outcome:
        case Rejection(reason=reason):
            return LivePrediction(title="Not qualified", tone="bad", text=reason_in_words(reason))
        case Nurture(why=why):
            return LivePrediction(
                title="Too early", tone="busy", text=f"It would be kept and qualified again later: {why}."
            )
        case Prospect():
            candidates = await _candidates(request, dry_run)
    fitting = sum(not candidate.failures for candidate in candidates)
    rules = (candidate.failures[0].rule for candidate in candidates if candidate.failures)
    reasons = (rule if rule in ABOUT_THE_LEAD else "closed" for rule in rules)
    misses = tuple(Counter(map(reason_in_words, reasons)).most_common())
    if fitting:
        text = "A live inquiry like this one would go to the best matching business, and to no other."
        return LivePrediction(title="A business would take it", tone="good", text=text, misses=misses)
    text = "It would qualify, but no business would take it at the moment."
    return LivePrediction(title="Qualified, but no business takes it", tone="warn", text=text, misses=misses)


async def _candidates(request: AnyRequest, dry_run: InquiryDryRun) -> tuple[Candidate, ...]:
    """Return the candidates that the same inquiry would have if it were live. It has passed qualification."""
    rules, now = await services(request).catalog.current(), clock.now()
    facts = msgspec.structs.replace(dry_run.accepted.facts, mode=Mode.live)
    vertical = rules.by_slug[facts.vertical]
    lead = OpenLead(lead_id=clock.new_id(), state=LeadState.prospect, facts=facts, received_at=now)
    result = decide(lead, vertical.definition, vertical.version, rules.index, now)
    return result.candidates if isinstance(result, MatchedCandidates) else ()


handlers: tuple[Any, ...] = (show_console, send)
