"""Provider's endpoints: submit an inquiry, check one, see its status, add later touches."""

import re
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.intake.flow import Intake
from marketplace.intake.reading import faults_of, read_touches
from marketplace.intake.refusals import Refusals
from marketplace.intake.shapes import InquiryBody, TouchBody
from marketplace.intake.store import InquiryStatus
from marketplace.runtime import clock, ids
from marketplace.runtime.errors import InvalidInput
from marketplace.security.auth import Principal, Scope
from marketplace.web.http import (
    AnyRequest,
    answer,
    body,
    idempotency_key,
    page_cursor,
    page_limit,
    path_id,
    principal,
    raw_body,
)
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged
from routing.lifecycle import LeadState
from routing.qualification import Nurture, Prospect, Rejection

PREFERENCE: Final = re.compile(
    r"""
    (?:^|,)\s*+ ([\w!#$%&'*+.^`|~-]++) \s*+                  # its name
    (?:=\s*+(?: "((?:[^"\\]|\\.)*+)" | ([^\s,;"]*+) ))?+     # its value, in quotes or without
    (?:[^,"]|"(?:[^"\\]|\\.)*+")*+                           # its parameters
""",
    re.VERBOSE,
)
"Pattern of one preference in the Prefer header (RFC 7240)."
LONGEST_WAIT: Final = 30.0
"Most seconds that `Prefer: wait=N` waits; a longer wait is cut to this."


class SubmissionAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """The first answer to a submission. Sent again word for word when the same submission comes again."""

    id: str
    state: str
    mode: str
    received_at: datetime
    links: dict[str, str]


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
    """Status of an inquiry as its provider may see it: never the business that has the lead."""

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


class TouchesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Touches of the person after the inquiry."""

    touches: Annotated[tuple[TouchBody, ...], Meta(min_length=1, max_length=50)]


def _intake(request: AnyRequest) -> Intake:
    intake: Intake = request.app.state.intake
    return intake


def _refusals(request: AnyRequest) -> Refusals:
    refusals: Refusals = request.app.state.refusals
    return refusals


def _links(lead_id: UUID) -> dict[str, str]:
    text = ids.encode("lead", lead_id)
    return {"self": f"/v1/inquiries/{text}", "trace": f"/v1/leads/{text}/trace"}


def _inquiry(status: InquiryStatus) -> Inquiry:
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
    "/v1/inquiries",
    tags=["inquiries"],
    doc=RouteDoc(body=InquiryBody, answers={202: SubmissionAccepted, 200: Inquiry}, query=(KEY, PREFER)),
)
async def submit(request: AnyRequest) -> Response[bytes]:
    """Submits one inquiry: 202 once it is on disk, or 200 for a duplicate or suppressed person."""
    caller = await principal(request, Scope.leads_write)
    key = idempotency_key(request)
    return await take_in(request, caller, await raw_body(request), key, wait_seconds(request))


async def take_in(
    request: AnyRequest, caller: Principal, raw: bytes, key: str | None, seconds: float | None = None
) -> Response[bytes]:
    """Take in one submission and return its answer; with `seconds`, wait so long for the outcome.

    Raises the errors of `Intake.read` and `Intake.receive`.
    """
    try:
        intake = _intake(request)
        receipt = await intake.receive(caller, await intake.read(caller, raw), raw, key)
    except InvalidInput as error:
        _refusals(request).note(caller, error.faults, clock.now(), raw)
        raise
    request.scope["state"]["lead"] = ids.encode("lead", receipt.id)
    headers = {"Idempotency-Replayed": "true"} if receipt.replayed else {}
    if seconds is not None:
        status = await intake.outcome(caller, receipt.id, seconds)
        headers["Preference-Applied"] = f"wait={seconds:.0f}"
        return answer(_inquiry(status), 200, headers)
    first = SubmissionAccepted(
        id=ids.encode("lead", receipt.id),
        state=receipt.state,
        mode=receipt.mode,
        received_at=receipt.received_at,
        links=_links(receipt.id),
    )
    return answer(first, 202 if receipt.state is LeadState.received else 200, headers)


@post("/v1/inquiries:validate", tags=["inquiries"], doc=RouteDoc(body=InquiryBody, answers={200: InquiryDryRunResult}))
async def validate(request: AnyRequest) -> Response[bytes]:
    """Tries an inquiry out: every check, and the verdict it would get. Nothing is written."""
    caller = await principal(request, Scope.leads_write)
    intake = _intake(request)
    dry_run = await intake.dry_run(caller, await intake.read(caller, await raw_body(request)))
    return answer(InquiryDryRunResult(valid=True, would=dry_run.would, outcome=dry_run.outcome))


@get("/v1/inquiries", tags=["inquiries"], doc=RouteDoc(answers={200: InquiryPage}, query=paged(id_of("lead"))))
async def list_inquiries(request: AnyRequest) -> Response[bytes]:
    """Lists the caller's inquiries, newest first."""
    caller = await principal(request, Scope.leads_write, even_suspended=True)
    limit, before = page_limit(request), page_cursor(request, "lead")
    rows = await _intake(request).list_statuses(caller, before, limit + 1)
    data = tuple(_inquiry(status) for status in rows[:limit])
    more = len(rows) > limit
    return answer(InquiryPage(data=data, next_cursor=data[-1].id if more else None, has_more=more))


@get("/v1/inquiries/{inquiry_id:str}", tags=["inquiries"], doc=RouteDoc(answers={200: Inquiry}))
async def show(request: AnyRequest, inquiry_id: FromPath[str]) -> Response[bytes]:
    """Shows where one inquiry stands: state, reasons, clock and payout."""
    caller = await principal(request, Scope.leads_write, even_suspended=True)
    return answer(_inquiry(await _intake(request).status(caller, path_id("lead", inquiry_id))))


@post(
    "/v1/inquiries/{inquiry_id:str}/touches", tags=["inquiries"], doc=RouteDoc(body=TouchesBody, answers={201: Inquiry})
)
async def add_touches(request: AnyRequest, inquiry_id: FromPath[str]) -> Response[bytes]:
    """Adds what the person did later; a nurtured lead is qualified again."""
    caller = await principal(request, Scope.leads_write)
    lead_id = path_id("lead", inquiry_id)
    now = clock.now()
    later = await body(request, TouchesBody, lambda partial: faults_of(read_touches(partial.touches, now)))
    history = read_touches(later.touches, now)
    if isinstance(history, tuple):
        raise InvalidInput(history)
    return answer(_inquiry(await _intake(request).add_touches(caller, lead_id, history.touches)), 201)


handlers: Final = (submit, validate, list_inquiries, show, add_touches)
