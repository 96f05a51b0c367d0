"""A business's leads over HTTP: see them, say what became of them, give them back; operators judge the last."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath

from marketplace import clock, errors, ids
from marketplace.auth import Kind, Principal, Scope
from marketplace.db import session
from marketplace.faults import Code, Fault
from marketplace.feedback import flow, returns, store, wire
from marketplace.feedback.csv_import import DispositionFile
from marketplace.feedback.flow import Holder, Recorded, Told
from marketplace.feedback.store import DispositionKind, ReturnState, Source, Stage
from marketplace.feedback.wire import (
    DispositionBody,
    DispositionPreview,
    FileMapping,
    HookSecret,
    Imported,
    JudgementBody,
    Pipeline,
    ReportBody,
    ReturnBody,
    ShownDisposition,
    ShownHook,
    ShownLead,
    ShownListedLead,
    ShownReturn,
)
from marketplace.http import (
    KEY_CHARACTERS,
    AnyRequest,
    Page,
    answer,
    body,
    count_failure,
    csv_page,
    idempotency_key,
    page,
    page_cursor,
    page_limit,
    parse,
    path_id,
    principal,
    raw_body,
    services,
    wants_csv,
)
from marketplace.imports import flow as imports
from marketplace.imports.flow import results_of
from marketplace.imports.http import imports_of, stated_mapping
from marketplace.imports.table import LARGEST_FILE
from marketplace.imports.wire import SHOWN_ROWS, ImportState, RowOutcome, Subject
from marketplace.openapi import Doc, Query, id_of, paged
from marketplace.values import read_instant
from routing.lifecycle import SEEN, AssignmentState, LeadState

CSV_LINES: Final = 10_000
"A spreadsheet takes far more; at 250 bytes a line this is two and a half megabytes. What follows is behind the Link."

HOOK_PATH: Final = "/in/feedback"
SIGNED_BY: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
NOBODY: Final = UUID(int=0)
"Has no hook, so that its signature is as wrong as any."
NONE: Final = "none"
"Leads of which nothing was told yet."

STATES: Final = tuple(AssignmentState(state) for state in LeadState if state in SEEN)
DISPOSITIONS: Final = (*DispositionKind, NONE)
FILTERS: Final = (
    Query(name="state", about="Only leads in this state.", schema={"type": "string", "enum": list(STATES)}),
    Query(
        name="since", about="Only leads shown from this moment on.", schema={"type": "string", "format": "date-time"}
    ),
    Query(
        name="disposition", about="Only leads that stand here by their latest disposition; `none`: nothing told yet.",
        schema={"type": "string", "enum": list(DISPOSITIONS)},
    ),
    Query(name="format", about="`csv` gives a file, as accepting `text/csv` does.",
          schema={"type": "string", "enum": ["csv"]}),
)  # fmt: skip
MAPPING: Final = Query(
    name="mapping",
    about='How dates and amounts are written, as JSON: `{"dates": "mdy"}`. Decided from the rows unless said.',
)
REJECTED: Final = (RowOutcome.conflict, RowOutcome.refused)
KEY: Final = Query(
    name="Idempotency-Key", where="header", about="1 to 255 printable characters; stands for an event_id in the body."
)


async def _holder(request: AnyRequest, scope: Scope, *, even_suspended: bool = False) -> Holder:
    caller = await principal(request, scope, even_suspended=even_suspended)
    return Holder(business_id=caller.owner, mode=caller.mode, actor=caller.key_id, opened=caller.opened)


async def _keeper(request: AnyRequest) -> Holder:
    """Whoever sets up how a business reports, for both modes at once."""
    caller = await principal(request, Scope.feedback_write)
    caller.demand_mode("live")
    return Holder(business_id=caller.owner, mode=None, actor=caller.key_id)


def _one_of(request: AnyRequest, name: str, allowed: tuple[str, ...]) -> str | None:
    """A filter of the query. Raises InvalidInput."""
    text = request.query_params.get(name)
    if text is not None and text not in allowed:
        detail = f"Choose one of {', '.join(allowed)}."
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code=Code.value_not_allowed, detail=detail),))
    return text


def _since(request: AnyRequest) -> datetime | None:
    """`?since=`, with its offset from UTC. Raises InvalidInput."""
    text = request.query_params.get("since")
    if text is None:
        return None
    moment = read_instant(text)
    if moment is None:
        detail = "Give a time with its offset, such as 2026-11-21T10:00:00Z."
        raise errors.InvalidInput((Fault(pointer="/since", code=Code.type_wrong, detail=detail),))
    return moment


# Leads


@get(
    "/v1/leads",
    tags=["leads"],
    doc=Doc(answers={200: (Page[ShownListedLead], "text/csv")}, query=(*paged(id_of("asg")), *FILTERS)),
)
async def list_leads(request: AnyRequest) -> Response[bytes]:
    """Lists the leads that the business was shown, newest first, and where each of them stands."""
    holder = await _holder(request, Scope.leads_read, even_suspended=True)
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    state = _one_of(request, "state", STATES)
    since, disposition = _since(request), _one_of(request, "disposition", DISPOSITIONS)
    before = page_cursor(request, "asg")
    async with session(services(request).pool) as connection:
        found = await store.list_leads(
            connection, holder.business_id, holder.mode, before, limit + 1,
            state=None if state is None else AssignmentState(state), since=since, disposition=disposition,
        )  # fmt: skip
    if as_file:
        columns = ShownListedLead.__struct_fields__
        return csv_page(request, found, limit, wire.show_listed, wire.assignment_id, columns, "leads")
    return page(found, limit, wire.show_listed, wire.assignment_id)


@get("/v1/leads/{lead_id:str}", tags=["leads"], doc=Doc(answers={200: ShownLead}))
async def show_lead(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Shows one lead: facts, verdict, contact once it is delivered, price, clock, dispositions, and its return."""
    holder = await _holder(request, Scope.leads_read, even_suspended=True)
    found = services(request)
    async with session(found.pool) as connection:
        lead = await flow.load_lead(connection, holder, path_id("lead", lead_id))
        contact = await flow.open_contact(connection, found.sealer, holder, lead)
        told = await store.list_dispositions(connection, lead.assignment_id)
        asked = await store.find_return(connection, assignment_id=lead.assignment_id)
    steps = flow.first_steps(lead, told)
    return answer(ShownLead(
        id=ids.encode("lead", lead.lead_id),
        assignment_id=wire.assignment_id(lead),
        subscription_id=ids.encode("sub", lead.subscription_id),
        mode=lead.mode,
        state=lead.state,
        reason=lead.reason,
        vertical=lead.vertical,
        price_minor=lead.price_minor,
        currency=lead.currency,
        clock=wire.LeadClock(
            submitted_at=lead.submitted_at, received_at=lead.received_at, qualified_at=lead.qualified_at,
            awarded_at=lead.awarded_at, exposed_at=lead.exposed_at, delivered_at=lead.delivered_at,
            first_touch_at=steps.touch_at, first_contact_at=steps.contact_at, to_first_touch=steps.to_touch,
            to_first_contact=steps.to_contact,
        ),
        facts=lead.facts,
        verdict=lead.verdict,
        contact=None if contact is None else msgspec.Raw(contact),
        erased=lead.erased,
        dispositions=tuple(wire.show_disposition(one) for one in told),
        returned=None if asked is None else wire.show_return(asked, to_operator=False),
    ))  # fmt: skip


# Dispositions


@get("/v1/leads/{lead_id:str}/dispositions", tags=["leads"], doc=Doc(answers={200: Page[ShownDisposition]}))
async def list_dispositions(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Lists what became of one lead, in the order in which it happened: the last is where it stands."""
    holder = await _holder(request, Scope.leads_read, even_suspended=True)
    async with session(services(request).pool) as connection:
        lead = await flow.load_lead(connection, holder, path_id("lead", lead_id))
        told = await store.list_dispositions(connection, lead.assignment_id)
    return answer(Page(data=tuple(wire.show_disposition(one) for one in told)))


def _answer_recorded(recorded: Recorded) -> Response[bytes]:
    shown = wire.show_disposition(recorded.disposition)
    headers = {} if recorded.fresh else {"Idempotency-Replayed": "true"}
    return answer(shown, 201 if recorded.fresh else 200, headers)


@post(
    "/v1/leads/{lead_id:str}/dispositions",
    tags=["leads"],
    doc=Doc(body=DispositionBody, answers={201: ShownDisposition, 200: ShownDisposition}, query=(KEY,)),
)
async def add_disposition(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Records what became of a lead: 201, or 200 with what was recorded before under the same event_id."""
    holder = await _holder(request, Scope.feedback_write)
    key = idempotency_key(request)
    told = await body(request, DispositionBody, lambda partial: flow.content_faults(partial, clock.now()))
    told = msgspec.structs.replace(told, event_id=told.event_id or key)
    wanted = Told(body=told, lead_id=path_id("lead", lead_id))
    return _answer_recorded(await flow.report_one(services(request).pool, holder, Source.api, wanted))


@post(
    "/v1/dispositions:preview",
    status_code=200,
    tags=["leads"],
    request_max_body_size=LARGEST_FILE,
    doc=Doc(body="text/csv", answers={200: DispositionPreview}, query=(MAPPING,)),
)
async def preview_dispositions(request: AnyRequest) -> Response[bytes]:
    """Shows what would become of each row of a file of dispositions. Nothing is kept."""
    holder = await _holder(request, Scope.feedback_write)
    mapping = stated_mapping(request, FileMapping)
    raw = await raw_body(request, LARGEST_FILE, "text/csv")
    found = await imports_of(request).preview(Subject.dispositions, holder.business_id, holder.mode, raw, mapping)
    return answer(show_preview(found))


def show_preview(found: imports.FilePreview) -> DispositionPreview:
    """A file that was looked at, as it is answered."""
    file: DispositionFile = found.reading
    return DispositionPreview(
        mapping=file.mapping, header=file.header, rows=file.table.rows, good=found.counts[RowOutcome.taken],
        repeated=found.counts[RowOutcome.known],
        rejected_count=found.counts[RowOutcome.conflict] + found.counts[RowOutcome.refused],
        open=file.open_questions, rejected=results_of(found.rows, REJECTED, file.names),
    )  # fmt: skip


@post(
    "/v1/dispositions:import",
    status_code=200,
    tags=["leads"],
    request_max_body_size=LARGEST_FILE,
    doc=Doc(body="text/csv", answers={200: Imported, 202: Imported}, query=(MAPPING,)),
)
async def import_dispositions(request: AnyRequest) -> Response[bytes]:
    """Records a CSV file of dispositions: the good rows, the others given back with what to mend.

    A large file is answered with 202 while rows wait; sent again, it is the same import.
    """
    holder = await _holder(request, Scope.feedback_write)
    mapping, runs = stated_mapping(request, FileMapping), imports_of(request)
    raw = await raw_body(request, LARGEST_FILE, "text/csv")
    import_id = await runs.submit(Subject.dispositions, holder.business_id, holder.mode, holder.actor, raw, mapping)
    one = await runs.wait(import_id)
    rows = [row for outcome in REJECTED for row in await runs.results(import_id, outcome)]
    rows.sort(key=lambda row: row.number)
    shown = Imported(
        id=ids.encode("imp", one.id), state=one.state, rows=one.rows, position=one.position, recorded=one.taken,
        repeated=one.known, rejected_count=one.conflicts + one.refused,
        rejected=results_of(rows[:SHOWN_ROWS], REJECTED, {}),
    )  # fmt: skip
    return answer(shown, 202 if one.state is ImportState.running else 200)


# The business's own words, and its own systems


@get("/v1/pipeline", tags=["leads"], doc=Doc(answers={200: Pipeline}))
async def show_pipeline(request: AnyRequest) -> Response[bytes]:
    """Shows the business's own stages, and what each of them means."""
    holder = await _holder(request, Scope.leads_read, even_suspended=True)
    async with session(services(request).pool) as connection:
        return answer(_pipeline(await store.list_stages(connection, holder.business_id)))


@put("/v1/pipeline", tags=["leads"], doc=Doc(body=Pipeline, answers={200: Pipeline}))
async def set_pipeline(request: AnyRequest) -> Response[bytes]:
    """Sets the business's own stages, all of them; what was recorded keeps its kind."""
    holder = await _keeper(request)
    pipeline = await body(request, Pipeline, lambda partial: flow.stage_faults([one.stage for one in partial.stages]))
    wanted = tuple(Stage(stage=one.stage.strip(), kind=one.kind) for one in pipeline.stages)
    return answer(_pipeline(await flow.save_pipeline(services(request).pool, holder, wanted)))


def _pipeline(stages: tuple[Stage, ...]) -> Pipeline:
    return Pipeline(stages=tuple(wire.StageBody(stage=one.stage, kind=one.kind) for one in stages))


@post("/v1/feedback-hook", tags=["leads"], doc=Doc(answers={201: HookSecret}))
async def make_hook(request: AnyRequest) -> Response[bytes]:
    """Makes the secret by which the business's systems sign their reports, shown this once; made again, it rotates."""
    holder = await _keeper(request)
    hook, secret = await flow.make_hook(services(request).pool, services(request).sealer, holder)
    path = f"{HOOK_PATH}/{ids.encode('biz', holder.business_id)}"
    return answer(HookSecret(path=path, secret=secret, previous_secret_until=hook.previous_until), 201)


@delete("/v1/feedback-hook/previous-secret", status_code=200, tags=["leads"], doc=Doc(answers={200: ShownHook}))
async def end_previous_hook_secret(request: AnyRequest) -> Response[bytes]:
    """Ends the secret before the present one at once: for one that leaked, or that is not used any more."""
    holder = await _keeper(request)
    hook = await flow.end_previous_secret(services(request).pool, holder)
    path = f"{HOOK_PATH}/{ids.encode('biz', holder.business_id)}"
    return answer(ShownHook(path=path, previous_secret_until=hook.previous_until))


@post(
    f"{HOOK_PATH}/{{business_id:str}}",
    tags=["leads"],
    doc=Doc(body=ReportBody, answers={201: ShownDisposition, 200: ShownDisposition}, public=True),
)
async def receive_report(request: AnyRequest, business_id: FromPath[str]) -> Response[bytes]:
    """Records what a business's own system tells of a lead, signed as Standard Webhooks 1.0 says.

    The webhook-id is the event's id: sent again, it changes nothing.
    """
    raw, found = await raw_body(request), services(request)
    owner = ids.decode("biz", business_id) or NOBODY
    signed = {name: _header(request, name) for name in SIGNED_BY}
    try:
        await flow.check_signature(found.pool, found.sealer, owner, signed, raw)
    except errors.SignatureInvalid:
        await count_failure(request)
        raise
    told = parse(raw, ReportBody, lambda partial: flow.content_faults(partial, clock.now()))
    lead_id, assignment_id = wire.lead_ids(told)
    told = msgspec.structs.replace(told, event_id=_webhook_id(signed["webhook-id"]))
    holder = Holder(business_id=owner, mode=None, actor=business_id)
    wanted = Told(body=told, lead_id=lead_id, assignment_id=assignment_id)
    return _answer_recorded(await flow.report_one(found.pool, holder, Source.webhook, wanted))


def _header(request: AnyRequest, name: str) -> str:
    """A header of a signed call: signatures may stand in several lines, and of anything else two lines are none."""
    lines = request.headers.getall(name, [])
    return " ".join(lines) if name == "webhook-signature" or len(lines) == 1 else ""


def _webhook_id(text: str) -> str:
    """What a repetition is told by. Raises InvalidInput."""
    if not 1 <= len(text) <= KEY_CHARACTERS or not text.isascii() or not text.isprintable():
        detail = f"Send a webhook-id of 1 to {KEY_CHARACTERS} printable ASCII characters."
        raise errors.InvalidInput((Fault(pointer="/webhook-id", code=Code.value_not_allowed, detail=detail),))
    return text


# Returns


@post("/v1/leads/{lead_id:str}/return", tags=["returns"], doc=Doc(body=ReturnBody, answers={201: ShownReturn}))
async def file_return(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Asks to give a lead back: settled at once where the record can, else by an operator."""
    holder = await _holder(request, Scope.feedback_write)
    now = clock.now()
    wanted = await body(
        request, ReturnBody,
        lambda part: returns.return_faults(part.reason, part.note, part.claim, part.calls, now),
    )  # fmt: skip
    asked = await returns.file_return(
        services(request).pool, holder, path_id("lead", lead_id), wanted.reason, wanted.note, wanted.claim, wanted.calls
    )
    return answer(wire.show_return(asked, to_operator=False), 201)


RETURN_STATE: Final = Query(
    name="state", about="Only returns in this state.", schema={"type": "string", "enum": list(ReturnState)}
)


@get(
    "/v1/returns",
    tags=["returns"],
    doc=Doc(answers={200: Page[ShownReturn]}, query=(*paged(id_of("ret")), RETURN_STATE)),
)
async def list_returns(request: AnyRequest) -> Response[bytes]:
    """Lists returns, newest first: the business's own, or for operators everybody's."""
    caller = await principal(request, Scope.leads_read, Scope.operate, even_suspended=True)
    limit, before = page_limit(request), page_cursor(request, "ret")
    state = _one_of(request, "state", tuple(ReturnState))
    wanted = None if state is None else ReturnState(state)
    to_operator = caller.kind is Kind.operator
    owner = None if to_operator else caller.owner
    async with session(services(request).pool) as connection:
        found = await store.list_returns(connection, owner, _mode_of(caller), wanted, before, limit + 1)
    return page(found, limit, lambda one: wire.show_return(one, to_operator=to_operator), wire.return_id)


@post(
    "/v1/returns/{return_id:str}/judge",
    status_code=200,
    tags=["returns"],
    doc=Doc(body=JudgementBody, answers={200: ShownReturn}),
)
async def judge_return(request: AnyRequest, return_id: FromPath[str]) -> Response[bytes]:
    """Grants or denies a return, in words that both sides read; judged already, it answers how. Operators only."""
    caller = await principal(request, Scope.operate)
    wanted = await body(request, JudgementBody)
    judged = await returns.judge_return(
        services(request).pool, caller.key_id, _mode_of(caller), path_id("ret", return_id), ReturnState(wanted.state),
        wanted.finding,
    )  # fmt: skip
    return answer(wire.show_return(judged, to_operator=True))


def _mode_of(caller: Principal) -> str | None:
    """A live operator sees both modes; everybody else that of their key."""
    return None if (caller.kind, caller.mode) == (Kind.operator, "live") else caller.mode


handlers: Final = (
    list_leads, show_lead, list_dispositions, add_disposition, preview_dispositions, import_dispositions, show_pipeline,
    set_pipeline, make_hook, end_previous_hook_secret, receive_report, file_return, list_returns, judge_return,
)  # fmt: skip
