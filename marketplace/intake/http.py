"""Provider's endpoints: submit an inquiry, try one out, list them with their status."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from litestar import Litestar, Response, get, post
from litestar.di import Provide
from litestar.types import HTTPScope

from marketplace.intake.admission import Admission
from marketplace.intake.flow import Intake, SubmissionReceipt
from marketplace.intake.refusals import Refusals
from marketplace.intake.shapes import InquiryBody
from marketplace.intake.store import InquiryStatus
from marketplace.runtime import clock, ids
from marketplace.runtime.errors import InvalidInput, Overloaded
from marketplace.security.auth import Principal, Scope
from marketplace.web import metrics
from marketplace.web.api import BodyProvider, Caller, CallerProvider, Injected, JsonAnswer, api_router, require
from marketplace.web.http import (
    AnyRequest,
    Services,
    answer,
    idempotency_key,
    page_cursor,
    page_limit,
    path_id,
    principal,
    raw_body,
    stated_key_id,
)
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged
from routing.lifecycle import LeadState
from routing.qualification import Nurture, Prospect, Rejection
from routing.unlocking import Unlock

PREFERENCE: Final = re.compile(
    r"""
    (?:^|,)\s*+ ([\w!#$%&'*+.^`|~-]++) \s*+                  # its name
    (?:=\s*+(?: "((?:[^"\\]|\\.)*+)" | ([^\s,;"]*+) ))?+     # its value, in quotes or without
    (?:[^,"]|"(?:[^"\\]|\\.)*+")*+                           # its parameters
""",
    re.VERBOSE,
)
"Pattern of one preference in the Prefer header (RFC 7240)."
SUBMISSIONS_PATH: Final = "/v1/inquiries"
"Path to which inquiries are submitted."
LONGEST_WAIT: Final = 30.0
"Most seconds that `Prefer: wait=N` waits; a longer wait is cut to this."


class SubmissionAccepted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first answer to a submission. Sent again word for word when the same submission comes again.

    `reasons` are those of a duplicate that joined an earlier lead, where its provider may know; left out otherwise.
    """

    id: str
    state: str
    mode: str
    received_at: datetime
    links: dict[str, str]
    reasons: tuple[str, ...] = ()


class InquiryClock(msgspec.Struct, frozen=True, kw_only=True):
    """Times at which the lead reached each step; null if it has not."""

    submitted_at: datetime
    received_at: datetime
    qualified_at: datetime | None
    awarded_at: datetime | None
    exposed_at: datetime | None
    acknowledged_at: datetime | None
    settled_at: datetime | None
    due_at: datetime | None


class Payout(msgspec.Struct, frozen=True, kw_only=True):
    """Earnings of the provider from this lead: none once the lead was returned."""

    minor: int
    currency: str


class InquiryReturn(msgspec.Struct, frozen=True, kw_only=True):
    """A return of this lead: requested, granted or denied, why, and what was found."""

    state: str
    reason: str
    finding: str | None
    requested_at: datetime
    judged_at: datetime | None


class Inquiry(msgspec.Struct, frozen=True, kw_only=True):
    """Status of an inquiry as its provider may see it: never the business that has the lead.

    `unlock` are the questions worth asking the person of a waiting lead, and the touches that it waits for, the most
    useful first, each with the number of subscriptions that would take the lead with it alone. `unlock_together` is the
    number with all of them. Lists have neither.
    """

    id: str
    state: LeadState
    mode: str
    vertical: str
    provider_reference: str | None
    reasons: tuple[str, ...]
    clock: InquiryClock
    payout: Payout | None
    returned: InquiryReturn | None
    links: dict[str, str]
    unlock: tuple[Unlock, ...] = ()
    unlock_together: int | None = None


class InquiryPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of inquiries, newest first."""

    data: tuple[Inquiry, ...]
    next_cursor: str | None
    has_more: bool


class InquiryDryRunResult(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome that an inquiry which passes every check would have if it were submitted now."""

    valid: bool
    would: str
    outcome: Prospect | Nurture | Rejection


def intake_of(request: AnyRequest) -> Intake:
    """Return the application's intake."""
    intake: Intake = request.app.state.intake
    return intake


def provide_intake(request: AnyRequest, caller: Caller) -> Intake:
    """Return the application's intake, once the caller is known."""
    return intake_of(request)


def provide_lead_id(request: AnyRequest, intake: Injected[Intake]) -> UUID:
    """Return the id in the path. Raises NotFound if it is not one."""
    return path_id("lead", request.path_params["inquiry_id"])


@contextmanager
def _count_refusal(request: AnyRequest, caller: Principal, raw: bytes) -> Iterator[None]:
    """Count the faults of a submission that is refused in the block, for the provider's quality page."""
    try:
        yield
    except InvalidInput as error:
        refusals: Refusals = request.app.state.refusals
        refusals.note(caller, error.faults, clock.now(), raw)
        raise


class SentInquiry(msgspec.Struct, frozen=True, kw_only=True):
    """A submission: the bytes of the request, the inquiry in them, and its Idempotency-Key."""

    inquiry: InquiryBody
    raw: bytes
    key: str | None


def turn_away(app: Litestar, scope: HTTPScope) -> Overloaded | None:
    """Return the refusal of a submission that this process has to turn away by its stated key, or None.

    The gate asks before the application reads anything: in an overload most requests are refused, and each costs the
    process a fraction of one that reaches its handler.
    """
    if scope["path"] != SUBMISSIONS_PATH or scope["method"] != "POST":
        return None
    admission: Admission = app.state.admission
    shared: Services = app.state.services
    now = clock.monotonic()
    admission.see(shared.notifier.load, now)
    metrics.ADMISSION_LIMIT.set(admission.limit or 0)
    if not admission.refuses(stated_key_id(scope["headers"]), now):
        return None
    scope["path_template"] = SUBMISSIONS_PATH  # by which the request is logged and counted
    return _overloaded()


async def admit(request: AnyRequest) -> Principal:
    """Return the provider that submits, unless this process has to turn away its inquiry after all.

    Raises Overloaded if the provider has no share left, which `turn_away` cannot know of a key that is new to it, and
    the errors of `http.principal`.
    """
    caller = await principal(request, Scope.leads_write)
    admission: Admission = request.app.state.admission
    if not admission.take(str(caller.owner), caller.key_id, clock.monotonic()):
        raise _overloaded()
    return caller


def _overloaded() -> Overloaded:
    """Count a submission that is turned away, and return its refusal."""
    metrics.INQUIRIES.labels(outcome="overloaded").inc()
    return Overloaded("More inquiries arrive than can be handled in time. Send this one again, with the same key.")


async def _read_submission(request: AnyRequest, caller: Principal, raw: bytes, key: str | None) -> SentInquiry:
    with _count_refusal(request, caller, raw):
        return SentInquiry(inquiry=await intake_of(request).read(caller, raw), raw=raw, key=key)


async def provide_submission(request: AnyRequest, caller: Caller) -> SentInquiry:
    """Return the submission. Raises IdempotencyKeyInvalid and the errors of `raw_body` and `Intake.read`."""
    key = idempotency_key(request)
    return await _read_submission(request, caller, await raw_body(request), key)


async def provide_inquiry(request: AnyRequest, caller: Caller, intake: Injected[Intake]) -> InquiryBody:
    """Return the inquiry in the body. Raises the errors of `raw_body` and `Intake.read`."""
    return await intake.read(caller, await raw_body(request))


def _links(lead_id: UUID) -> dict[str, str]:
    text = ids.encode("lead", lead_id)
    return {"self": f"/v1/inquiries/{text}", "trace": f"/v1/leads/{text}/trace"}


async def load_inquiry(intake: Intake, caller: Principal, lead_id: UUID) -> Inquiry:
    """Return the status of an inquiry, with what would unlock it if it waits. Raises NotFound."""
    status = await intake.status(caller, lead_id)
    return await _with_unlocks(intake, caller, status)


async def _with_unlocks(intake: Intake, caller: Principal, status: InquiryStatus) -> Inquiry:
    view = inquiry_view(status)
    unlocks = await intake.unlocks(caller, status.id) if status.state is LeadState.nurturing else None
    if unlocks is None:
        return view
    return msgspec.structs.replace(view, unlock=unlocks.questions, unlock_together=unlocks.together)


def inquiry_view(status: InquiryStatus) -> Inquiry:
    """Return the status of an inquiry as its provider may see it."""
    payout = None
    if status.payout_minor is not None:
        payout = Payout(minor=status.payout_minor, currency=status.payout_currency or "")
    return Inquiry(
        id=ids.encode("lead", status.id),
        state=status.state,
        mode=status.mode,
        vertical=status.vertical,
        provider_reference=status.provider_reference,
        reasons=(status.reason,) if status.reason else (),
        clock=msgspec.convert(status, InquiryClock, from_attributes=True),
        payout=payout,
        returned=_returned(status),
        links=_links(status.id),
    )


def _returned(status: InquiryStatus) -> InquiryReturn | None:
    if status.return_state is None or status.return_reason is None or status.requested_at is None:
        return None
    return InquiryReturn(
        state=status.return_state,
        reason=status.return_reason,
        finding=status.finding,
        requested_at=status.requested_at,
        judged_at=status.judged_at,
    )


def wait_seconds(request: AnyRequest) -> float | None:
    """Return the seconds that `Prefer: wait=N` (RFC 7240) asks to wait for the outcome, or None without a readable one.

    Preferences may be in several header lines and be quoted; if one comes twice, the first counts.
    """
    for match in PREFERENCE.finditer(", ".join(request.headers.getall("prefer", []))):
        name, quoted, plain = match.groups()
        if name.lower() == "wait":
            value = quoted if quoted is not None else plain or ""
            return min(float(value[:6]), LONGEST_WAIT) if value.isascii() and value.isdecimal() else None
    return None


KEY: Final = QueryParameter(
    name="Idempotency-Key",
    where="header",
    about="1 to 255 printable characters; may be left out with a provider_reference.",
)
PREFER: Final = QueryParameter(
    name="Prefer", where="header", about="`wait=N` answers with the outcome, N up to 30 seconds."
)


@post(
    "/inquiries",
    status_code=202,
    tags=["inquiries"],
    dependencies={"caller": CallerProvider(admit), "submission": BodyProvider(provide_submission, InquiryBody)},
    doc=RouteDoc(answers={202: SubmissionAccepted, 200: Inquiry}, query=(KEY, PREFER)),
)
async def submit(
    request: AnyRequest, caller: Caller, submission: Injected[SentInquiry]
) -> Response[SubmissionAccepted | Inquiry]:
    """Submits one inquiry: 202 once it is on disk, or 200 for a duplicate or suppressed person."""
    receipt = await _receive(request, caller, submission)
    seconds = wait_seconds(request)
    if seconds is None:
        return _accepted(receipt)
    status = await intake_of(request).outcome(caller, receipt.id, seconds)
    applied = {"Preference-Applied": f"wait={seconds:.0f}"}
    view = await _with_unlocks(intake_of(request), caller, status)
    return JsonAnswer(view, status_code=200, headers=_replayed(receipt) | applied)


async def take_in(request: AnyRequest, caller: Principal, raw: bytes, key: str | None) -> Response[bytes]:
    """Take in a submission whose bytes are not the body of a request, and return its answer.

    Raises the errors of `Intake.read` and `Intake.receive`.
    """
    submission = await _read_submission(request, caller, raw, key)
    accepted = _accepted(await _receive(request, caller, submission))
    return answer(accepted.content, accepted.status_code or 200, accepted.headers)


async def _receive(request: AnyRequest, caller: Principal, submission: SentInquiry) -> SubmissionReceipt:
    """Store a submission and return its receipt. The log line of the request gets the id of the lead."""
    with _count_refusal(request, caller, submission.raw):
        receipt = await intake_of(request).receive(caller, submission.inquiry, submission.raw, submission.key)
    request.scope["state"]["lead"] = ids.encode("lead", receipt.id)
    return receipt


def _replayed(receipt: SubmissionReceipt) -> dict[str, str]:
    return {"Idempotency-Replayed": "true"} if receipt.replayed else {}


def _accepted(receipt: SubmissionReceipt) -> JsonAnswer[SubmissionAccepted | Inquiry]:
    content = SubmissionAccepted(
        id=ids.encode("lead", receipt.id),
        state=receipt.state,
        mode=receipt.mode,
        received_at=receipt.received_at,
        links=_links(receipt.id),
        reasons=(receipt.reason,) if receipt.reason else (),
    )
    status = 202 if receipt.state is LeadState.received else 200
    return JsonAnswer(content, status_code=status, headers=_replayed(receipt))


@post(
    "/inquiries:validate",
    status_code=200,
    tags=["inquiries"],
    dependencies={"caller": require(Scope.leads_write), "inquiry": BodyProvider(provide_inquiry, InquiryBody)},
)
async def validate(caller: Caller, inquiry: Injected[InquiryBody], intake: Injected[Intake]) -> InquiryDryRunResult:
    """Tries an inquiry out: every check, and the verdict it would get. Nothing is written."""
    dry_run = await intake.dry_run(caller, inquiry)
    return InquiryDryRunResult(valid=True, would=dry_run.would, outcome=dry_run.outcome)


@get(
    "/inquiries",
    tags=["inquiries"],
    dependencies={"caller": require(Scope.leads_write, even_suspended=True)},
    doc=RouteDoc(query=paged(id_of("lead"))),
)
async def list_inquiries(request: AnyRequest, caller: Caller, intake: Injected[Intake]) -> InquiryPage:
    """Lists the caller's inquiries, newest first."""
    limit, before = page_limit(request), page_cursor(request, "lead")
    rows = await intake.list_statuses(caller, before, limit + 1)
    data = tuple(inquiry_view(status) for status in rows[:limit])
    has_more = len(rows) > limit
    next_cursor = data[-1].id if has_more else None
    return InquiryPage(data=data, next_cursor=next_cursor, has_more=has_more)


handlers: Final = (
    api_router(
        submit,
        validate,
        list_inquiries,
        intake=Provide(provide_intake, sync_to_thread=False),
    ),
)
