"""The console: a test inquiry through the very intake that machines use, and all that may be said about it.

It acts for the provider whose member is signed in, in test mode, whatever mode the pages show. What would happen to a
live one is what the rules in force say of it: no caps, no money, and nothing of any business.
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
from marketplace.portal.provider.spec import chosen, list_verticals
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
    200: "OK", 202: "Accepted", 400: "Bad Request", 409: "Conflict", 413: "Content Too Large",
    422: "Unprocessable Content", 429: "Too Many Requests", 503: "Service Unavailable",
}  # fmt: skip
SHOWN_HEADERS: Final = ("idempotency-replayed", "retry-after")
MOST_CHARACTERS: Final = 30_000
"A form writes some characters as three: with this many the whole form stays within what a body may be."


class ConsoleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer as it would have gone over the wire."""

    status: int
    phrase: str
    headers: tuple[tuple[str, str], ...]
    body: str
    lead: str
    good: bool


class LivePrediction(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules in force say of the same inquiry, were it live: in words, with the points."""

    title: str
    tone: str
    text: str
    others: tuple[tuple[str, int], ...] = ()


@get("/provider/console")
async def show_console(request: AnyRequest) -> Response[bytes]:
    """The console with a body that is accepted; `?sample=` asks for one that is refused, or comes too early."""
    viewer = await visitor(request, CallerKind.provider)
    verticals = await list_verticals(request)
    vertical = chosen(request, verticals)
    if vertical is None:
        return page(request, viewer, "provider/no_vertical.html")
    sample = SAMPLES.get(request.query_params.get("sample", "good"), posting.example)
    return await _console_page(request, viewer, vertical, posting.pretty(sample(vertical, clock.now())))


@post("/provider/console")
async def send(request: AnyRequest) -> Response[bytes]:
    """Sends what was typed, and shows the very answer."""
    viewer, given = await changing(request, CallerKind.provider, verbatim="body")
    text = (given.get("body") or ("",))[-1].replace("\r\n", "\n")[:MOST_CHARACTERS]
    quota = services(request).settings.submissions_per_minute
    await count(request, RatePolicy(budget=RateBudget.submissions, quota=quota), viewer.account)
    caller = Principal(key_id=viewer.actor, kind=CallerKind.provider, owner_id=viewer.owner, mode=Mode.test)
    raw = text.encode("utf-8", "replace")
    try:
        reply = await take_in(request, caller, raw, None)
    except errors.MarketplaceError as error:
        reply = render(request, error)
    shown = _shown(reply)
    await _note(request, viewer, shown)
    dry_run = await _dry_run(request, caller, raw)
    vertical = chosen(request, await list_verticals(request))
    if vertical is None:
        return page(request, viewer, "provider/no_vertical.html")
    return await _console_page(request, viewer, vertical, text, shown, dry_run)


async def _console_page(
    request: AnyRequest, viewer: Viewer, vertical: Vertical, text: str, shown: ConsoleAnswer | None = None,
    dry_run: InquiryDryRun | None = None,
) -> Response[bytes]:  # fmt: skip
    return page(
        request, viewer, "provider/console.html", vertical=vertical, verticals=await list_verticals(request), text=text,
        shown=shown, would=await _would(request, dry_run) if dry_run else None,
        findings=dry_run.outcome.verdict.findings if dry_run else (),
        score=dry_run.outcome.verdict.score if dry_run else None, least=vertical.definition.minimum_score,
        contact=_contact(dry_run) if dry_run else (), facts=posting.pretty(dry_run.accepted.facts) if dry_run else "",
        most=MOST_CHARACTERS,
    )  # fmt: skip


def _shown(reply: Response[bytes]) -> ConsoleAnswer:
    headers = {name.lower(): value for name, value in reply.headers.items()}
    body = msgspec.json.decode(reply.content)
    status = int(reply.status_code or 0)
    return ConsoleAnswer(
        status=status, phrase=PHRASES.get(status, ""), body=msgspec.json.format(reply.content, indent=2).decode(),
        headers=(("content-type", str(reply.media_type)), *((name, headers[name]) for name in SHOWN_HEADERS
                                                            if name in headers)),
        lead=str(body.get("id", "")) if status < 300 else "", good=status < 300,
    )  # fmt: skip


async def _note(request: AnyRequest, viewer: Viewer, shown: ConsoleAnswer) -> None:
    """What this answer proves of the provider's side."""
    repeated = any(name == "idempotency-replayed" for name, _ in shown.headers) or shown.status == 200
    what: Rehearsed = "refused" if not shown.good else "repeated" if repeated else "accepted"
    if shown.status in (200, 202, 422):
        await going_live.note_rehearsed(services(request).pool, viewer.owner, what)
    if not shown.good:
        counts: Refusals = request.app.state.refusals
        await counts.flush()


async def _dry_run(request: AnyRequest, caller: Principal, raw: bytes) -> InquiryDryRun | None:
    """How the body was read and judged; None where it cannot be."""
    intake: Intake = request.app.state.intake
    try:
        return await intake.dry_run(caller, await intake.read(caller, raw))
    except errors.InvalidInput:
        return None


def _contact(dry_run: InquiryDryRun) -> tuple[tuple[str, str], ...]:
    """The contact as it would be kept."""
    contact, facts = dry_run.accepted.contact, dry_run.accepted.facts
    fields = (
        ("Name", contact.full_name), ("Phone", contact.phone),
        ("Kind of phone", facts.signals.phone_type.replace("_", " ")),
        ("Phone number", PHONE_VERIFICATIONS.get(facts.signals.phone_verification, "")),
        ("E-mail", contact.email), ("Street", contact.street), ("Postal code", contact.postal_code),
        ("Region", facts.place.region), ("Country", contact.country), ("Time zone", facts.place.time_zone),
    )  # fmt: skip
    return tuple((name, value) for name, value in fields if value)


async def _would(request: AnyRequest, dry_run: InquiryDryRun) -> LivePrediction:
    match dry_run.outcome:
        case Rejection(reason=reason):
            return LivePrediction(title="Not qualified", tone="bad", text=reason_in_words(reason))
        case Nurture(why=why):
            return LivePrediction(title="Too early", tone="busy", text=f"Kept, and qualified again later: {why}.")
        case Prospect():
            candidates = await _candidates(request, dry_run)
    fitting = sum(not candidate.failures for candidate in candidates)
    misses = Counter(
        reason_in_words(candidate.failures[0].rule if candidate.failures[0].rule in ABOUT_THE_LEAD else "closed")
        for candidate in candidates if candidate.failures
    )  # fmt: skip
    if fitting:
        text = "A live inquiry like this one would be offered to the best of those who take it, and to nobody else."
        return LivePrediction(title="Would be routed", tone="good", text=text, others=tuple(misses.most_common()))
    text = "It is good enough, and nobody would take it as things are."
    return LivePrediction(
        title="Qualified, but nobody takes it", tone="warn", text=text, others=tuple(misses.most_common())
    )


async def _candidates(request: AnyRequest, dry_run: InquiryDryRun) -> tuple[Candidate, ...]:
    """Return the candidates of the same inquiry, were it live; it has passed qualification."""
    rules, now = await services(request).catalog.current(), clock.now()
    facts = msgspec.structs.replace(dry_run.accepted.facts, mode=Mode.live)
    vertical = rules.by_slug[facts.vertical]
    lead = OpenLead(lead_id=clock.new_id(), state=LeadState.prospect, facts=facts, received_at=now)
    result = decide(lead, vertical.definition, vertical.version, rules.index, now)
    return result.candidates if isinstance(result, MatchedCandidates) else ()


handlers: tuple[Any, ...] = (show_console, send)
