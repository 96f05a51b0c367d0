"""HTTP API of a business's leads: read them, report on them and return them. Operators judge the returns."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.feedback import flow as feedback_flow
from marketplace.feedback import returns, stages, stages_store, wire
from marketplace.feedback import store as feedback_store
from marketplace.feedback.csv_import import DispositionFile
from marketplace.feedback.flow import DispositionReport, FirstSteps, LeadHolder, RecordedDisposition
from marketplace.feedback.stages import StageChange
from marketplace.feedback.stages_store import PipelineStage
from marketplace.feedback.store import (
    BusinessLead,
    Disposition,
    DispositionKind,
    DispositionSource,
    ReturnRequest,
    ReturnState,
)
from marketplace.feedback.wire import (
    DispositionBody,
    DispositionImport,
    DispositionMapping,
    DispositionPreview,
    DispositionView,
    HookSecret,
    HookView,
    JudgementBody,
    LeadSummary,
    LeadView,
    Pipeline,
    PipelineBody,
    ReportBody,
    ReturnBody,
    ReturnView,
)
from marketplace.imports import flow as imports_flow
from marketplace.imports.flow import Imports, results_of
from marketplace.imports.http import IMPORTS, SentFile, provide_file
from marketplace.imports.table import LARGEST_FILE
from marketplace.imports.wire import SHOWN_ROWS, ImportState, ImportSubject, RowOutcome
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind, Principal, Scope
from marketplace.text.faults import Fault, FaultCode
from marketplace.text.values import read_instant
from marketplace.web.api import BodyProvider, Caller, Injected, JsonAnswer, api_router, list_page, provide_body, require
from marketplace.web.http import (
    KEY_CHARACTERS,
    AnyRequest,
    Page,
    Services,
    body,
    count_failure,
    csv_page,
    idempotency_key,
    page_cursor,
    page_limit,
    parse,
    path_id,
    raw_body,
    wants_csv,
)
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged
from routing.lifecycle import SEEN, AssignmentState, LeadState

CSV_LINES: Final = 10_000
"Lines of one CSV file, about 2.5 MB at 250 bytes a line. A Link header leads to the next ones."

HOOK_PATH: Final = "/in/feedback"
SIGNED_BY: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
NOBODY: Final = UUID(int=0)
"Stands for an unknown business. It has no hook, so its signature is refused like any wrong one."
NONE: Final = "none"
"Filter value for leads without a disposition."

STATES: Final = tuple(AssignmentState(state) for state in LeadState if state in SEEN)
DISPOSITIONS: Final = (*DispositionKind, NONE)
FILTERS: Final = (
    QueryParameter(name="state", about="Only leads in this state.", schema={"type": "string", "enum": list(STATES)}),
    QueryParameter(
        name="since", about="Only leads shown from this moment on.", schema={"type": "string", "format": "date-time"}
    ),
    QueryParameter(
        name="disposition",
        about="Only leads whose latest disposition is this; `none` for leads without one.",
        schema={"type": "string", "enum": list(DISPOSITIONS)},
    ),
    QueryParameter(
        name="format",
        about="`csv` returns a CSV file, as the header Accept: text/csv does.",
        schema={"type": "string", "enum": ["csv"]},
    ),
)
MAPPING: Final = QueryParameter(
    name="mapping",
    about='How dates and amounts are written, as JSON: `{"dates": "mdy"}`. Otherwise it is decided from the rows.',
)
REJECTED: Final = (RowOutcome.conflict, RowOutcome.refused)
KEY: Final = QueryParameter(
    name="Idempotency-Key", where="header", about="1 to 255 printable characters; used if the body has no event_id."
)


READER: Final = require(Scope.leads_read, even_suspended=True)
REPORTER: Final = require(Scope.feedback_write)
LIVE_REPORTER: Final = require(Scope.feedback_write, mode="live")
"Caller of routes that concern leads of both modes."


def holder_of(caller: Principal) -> LeadHolder:
    """Return the calling business with access to its leads in the mode of the key."""
    return LeadHolder(business_id=caller.owner, mode=caller.mode, actor=caller.key_id, opened=caller.opened)


def _live_holder(caller: Principal) -> LeadHolder:
    """Return the calling business with access to both modes."""
    return LeadHolder(business_id=caller.owner, mode=None, actor=caller.key_id)


def _read_filter(request: AnyRequest, name: str, allowed: tuple[str, ...]) -> str | None:
    """Return a filter of the query, or None without it. Raises InvalidInput."""
    text = request.query_params.get(name)
    if text is not None and text not in allowed:
        detail = f"Choose one of {', '.join(allowed)}."
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code=FaultCode.value_not_allowed, detail=detail),))
    return text


def read_time_filter(request: AnyRequest, name: str) -> datetime | None:
    """Return the time of a filter of the query, which needs an offset from UTC, or None. Raises InvalidInput."""
    text = request.query_params.get(name)
    if text is None:
        return None
    moment = read_instant(text)
    if moment is None:
        detail = "Give a time with its offset, such as 2026-11-21T10:00:00Z."
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code=FaultCode.type_wrong, detail=detail),))
    return moment


# Leads


@get(
    "/leads",
    tags=["leads"],
    dependencies={"caller": READER},
    doc=RouteDoc(answers={200: (Page[LeadSummary], "text/csv")}, query=(*paged(id_of("asg")), *FILTERS)),
)
async def list_leads(
    request: AnyRequest, caller: Caller, services: Injected[Services]
) -> Page[LeadSummary] | Response[bytes]:
    """Lists the leads that the business was shown, newest first, each with its latest disposition."""
    holder = holder_of(caller)
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    state_name = _read_filter(request, "state", STATES)
    state = None if state_name is None else AssignmentState(state_name)
    since, disposition = read_time_filter(request, "since"), _read_filter(request, "disposition", DISPOSITIONS)
    before = page_cursor(request, "asg")
    async with session(services.pool) as connection:
        leads = await feedback_store.list_leads(
            connection,
            holder.business_id,
            holder.mode,
            before,
            limit + 1,
            state=state,
            since=since,
            disposition=disposition,
        )
    if as_file:
        columns = LeadSummary.__struct_fields__
        return await csv_page(request, leads, limit, wire.show_listed, wire.assignment_id, columns, "leads")
    return list_page(leads, limit, wire.show_listed, wire.assignment_id)


@get("/leads/{lead_id:str}", tags=["leads"], dependencies={"caller": READER})
async def show_lead(lead_id: FromPath[str], caller: Caller, services: Injected[Services]) -> LeadView:
    """Shows one lead: facts, verdict, contact once delivered, price, times, dispositions, and its return."""
    holder = holder_of(caller)
    async with session(services.pool) as connection:
        lead = await feedback_flow.load_lead(connection, holder, path_id("lead", lead_id))
        contact = await feedback_flow.open_contact(connection, services.sealer, holder, lead)
        dispositions = await feedback_store.list_dispositions(connection, lead.assignment_id)
        return_request = await feedback_store.find_return(connection, assignment_id=lead.assignment_id)
    steps = feedback_flow.first_steps(lead, dispositions)
    return _show_lead(lead, contact, dispositions, return_request, steps)


def _show_lead(
    lead: BusinessLead,
    contact: bytes | None,
    dispositions: Sequence[Disposition],
    return_request: ReturnRequest | None,
    steps: FirstSteps,
) -> LeadView:
    """Return a lead with everything that the business may see of it."""
    returned = None if return_request is None else wire.show_return(return_request, to_operator=False)
    contact_json = None if contact is None else msgspec.Raw(contact)
    return LeadView(
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
            submitted_at=lead.submitted_at,
            received_at=lead.received_at,
            qualified_at=lead.qualified_at,
            awarded_at=lead.awarded_at,
            exposed_at=lead.exposed_at,
            delivered_at=lead.delivered_at,
            first_touch_at=steps.touch_at,
            first_contact_at=steps.contact_at,
            to_first_touch=steps.to_touch,
            to_first_contact=steps.to_contact,
        ),
        facts=lead.facts,
        verdict=lead.verdict,
        contact=contact_json,
        erased=lead.erased,
        dispositions=tuple(map(wire.show_disposition, dispositions)),
        returned=returned,
    )


# Dispositions


@get("/leads/{lead_id:str}/dispositions", tags=["leads"], dependencies={"caller": READER})
async def list_dispositions(
    lead_id: FromPath[str], caller: Caller, services: Injected[Services]
) -> Page[DispositionView]:
    """Lists the dispositions of one lead by the time at which they happened; the last one is current."""
    holder = holder_of(caller)
    async with session(services.pool) as connection:
        lead = await feedback_flow.load_lead(connection, holder, path_id("lead", lead_id))
        dispositions = await feedback_store.list_dispositions(connection, lead.assignment_id)
    return Page(data=tuple(map(wire.show_disposition, dispositions)))


def _answer_recorded(recorded: RecordedDisposition) -> Response[DispositionView]:
    """Return 201 with a new disposition, or 200 with the one that was recorded before under the same event id."""
    disposition = wire.show_disposition(recorded.disposition)
    if recorded.fresh:
        return JsonAnswer(disposition, status_code=201)
    return JsonAnswer(disposition, status_code=200, headers={"Idempotency-Replayed": "true"})


async def provide_disposition(request: AnyRequest, services: Injected[Services]) -> DispositionBody:
    """Return the disposition in the body, with the Idempotency-Key as its event id unless it has one.

    Raises IdempotencyKeyInvalid and the errors of `http.body`.
    """
    key = idempotency_key(request)
    disposition = await body(
        request, DispositionBody, lambda partial: feedback_flow.content_faults(partial, clock.now())
    )
    return msgspec.structs.replace(disposition, event_id=disposition.event_id or key)


@post(
    "/leads/{lead_id:str}/dispositions",
    tags=["leads"],
    dependencies={"caller": REPORTER, "disposition": BodyProvider(provide_disposition, DispositionBody)},
    doc=RouteDoc(answers={200: DispositionView}, query=(KEY,)),
)
async def add_disposition(
    lead_id: FromPath[str], caller: Caller, disposition: Injected[DispositionBody], services: Injected[Services]
) -> Response[DispositionView]:
    """Records what became of a lead: 201, or 200 with what was recorded before under the same event_id."""
    holder = holder_of(caller)
    report = DispositionReport(body=disposition, lead_id=path_id("lead", lead_id))
    return _answer_recorded(await feedback_flow.report_one(services.pool, holder, DispositionSource.api, report))


@post(
    "/dispositions:preview",
    status_code=200,
    tags=["leads"],
    dependencies={"caller": REPORTER, "file": provide_file(DispositionMapping)},
    request_max_body_size=LARGEST_FILE,
    doc=RouteDoc(query=(MAPPING,)),
)
async def preview_dispositions(
    caller: Caller, file: Injected[SentFile], imports: Injected[Imports]
) -> DispositionPreview:
    """Shows the result that an import of a file of dispositions would have. Nothing is stored."""
    holder = holder_of(caller)
    preview = await imports.preview(ImportSubject.dispositions, holder.business_id, holder.mode, file.raw, file.mapping)
    return show_preview(preview)


def show_preview(preview: imports_flow.FilePreview) -> DispositionPreview:
    """Return the preview of a file of dispositions in the form that the API returns."""
    file: DispositionFile = preview.reading
    return DispositionPreview(
        mapping=file.mapping,
        header=file.header,
        rows=file.table.rows,
        good=preview.counts[RowOutcome.taken],
        repeated=preview.counts[RowOutcome.repeated],
        rejected_count=preview.counts[RowOutcome.conflict] + preview.counts[RowOutcome.refused],
        open=file.open_questions,
        rejected=results_of(preview.rows, REJECTED, file.names),
    )


@post(
    "/dispositions:import",
    status_code=200,
    tags=["leads"],
    dependencies={"caller": REPORTER, "file": provide_file(DispositionMapping)},
    request_max_body_size=LARGEST_FILE,
    doc=RouteDoc(answers={202: DispositionImport}, query=(MAPPING,)),
)
async def import_dispositions(
    caller: Caller, file: Injected[SentFile], imports: Injected[Imports]
) -> Response[DispositionImport]:
    """Records a CSV file of dispositions: valid rows are stored, the others are returned with their fault.

    The answer to a large file is 202 while rows wait. Sending the same file again continues the same import.
    """
    holder = holder_of(caller)
    import_id = await imports.submit(
        ImportSubject.dispositions, holder.business_id, holder.mode, holder.actor, file.raw, file.mapping
    )
    file_import = await imports.wait(import_id)
    rows = [row for outcome in REJECTED for row in await imports.results(import_id, outcome)]
    rows.sort(key=lambda row: row.number)
    result = DispositionImport(
        id=ids.encode("imp", file_import.id),
        state=file_import.state,
        rows=file_import.rows,
        position=file_import.position,
        recorded=file_import.taken,
        repeated=file_import.repeated,
        rejected_count=file_import.conflicts + file_import.refused,
        rejected=results_of(rows[:SHOWN_ROWS], REJECTED, {}),
    )
    status = 202 if file_import.state is ImportState.running else 200
    return JsonAnswer(result, status_code=status)


# The business's pipeline and its signed reports


@get("/pipeline", tags=["leads"], dependencies={"caller": READER})
async def show_pipeline(caller: Caller, services: Injected[Services]) -> Pipeline:
    """Shows the business's own stages, and the kind of disposition that each means."""
    holder = holder_of(caller)
    async with session(services.pool) as connection:
        return _pipeline(await stages_store.list_stages(connection, holder.business_id))


@put(
    "/pipeline",
    tags=["leads"],
    dependencies={
        "caller": LIVE_REPORTER,
        "pipeline": provide_body(PipelineBody, lambda partial: stages.stage_faults(_changes(partial))),
    },
)
async def set_pipeline(caller: Caller, pipeline: Injected[PipelineBody], services: Injected[Services]) -> Pipeline:
    """Sets the business's own stages; one that is left out ends. Recorded dispositions keep their kind.

    Reports that were kept because no name meant their stage are recorded if one does now.
    """
    saved, _ = await stages.save_pipeline(services.pool, _live_holder(caller), _changes(pipeline))
    return _pipeline(saved)


def _changes(pipeline: PipelineBody) -> tuple[StageChange, ...]:
    """Return the stages of a body. An id that is malformed is one that no stage has."""
    return tuple(
        StageChange(
            id=None if row.id is None else ids.decode("stg", row.id) or NOBODY,
            stage=row.stage.strip(),
            kind=row.kind,
            limit_days=row.limit_days,
            colour=row.colour,
            names=row.names,
        )
        for row in pipeline.stages
    )


def _pipeline(saved: tuple[PipelineStage, ...]) -> Pipeline:
    return Pipeline(
        stages=tuple(
            wire.StageView(
                id=ids.encode("stg", stage.id),
                stage=stage.stage,
                kind=stage.kind,
                limit_days=stage.limit_days,
                colour=stage.colour,
                names=stage.names,
            )
            for stage in saved
        )
    )


@post("/feedback-hook", tags=["leads"], dependencies={"caller": LIVE_REPORTER})
async def make_hook(caller: Caller, services: Injected[Services]) -> HookSecret:
    """Makes the secret with which the business's systems sign reports, shown only once. A further call rotates it."""
    holder = _live_holder(caller)
    hook, secret = await feedback_flow.make_hook(services.pool, services.sealer, holder)
    path = f"{HOOK_PATH}/{ids.encode('biz', holder.business_id)}"
    return HookSecret(path=path, secret=secret, previous_secret_until=hook.previous_until)


@delete(
    "/feedback-hook/previous-secret",
    status_code=200,
    tags=["leads"],
    dependencies={"caller": LIVE_REPORTER},
)
async def end_previous_hook_secret(caller: Caller, services: Injected[Services]) -> HookView:
    """Ends the previous secret at once, for one that leaked or is not used any more."""
    holder = _live_holder(caller)
    hook = await feedback_flow.end_previous_secret(services.pool, holder)
    path = f"{HOOK_PATH}/{ids.encode('biz', holder.business_id)}"
    return HookView(path=path, previous_secret_until=hook.previous_until)


@post(
    f"{HOOK_PATH}/{{business_id:str}}",
    tags=["leads"],
    doc=RouteDoc(body=ReportBody, answers={200: DispositionView}, public=True),
)
async def receive_report(
    request: AnyRequest, business_id: FromPath[str], services: Injected[Services]
) -> Response[DispositionView]:
    """Records a report that a business's own system sends, signed by Standard Webhooks 1.0.

    The webhook-id is the event's id: a repeat changes nothing.
    """
    raw, pool = await raw_body(request), services.pool
    owner = ids.decode("biz", business_id) or NOBODY
    headers = {name: signed_header(request, name) for name in SIGNED_BY}
    try:
        await feedback_flow.check_signature(pool, services.sealer, owner, headers, raw)
    except errors.SignatureInvalid:
        await count_failure(request)
        raise
    report_body = parse(raw, ReportBody, lambda partial: feedback_flow.content_faults(partial, clock.now()))
    lead_id, assignment_id = wire.lead_ids(report_body)
    report_body = msgspec.structs.replace(report_body, event_id=read_webhook_id(headers["webhook-id"]))
    holder = LeadHolder(business_id=owner, mode=None, actor=business_id)
    report = DispositionReport(body=report_body, lead_id=lead_id, assignment_id=assignment_id)
    return _answer_recorded(await feedback_flow.report_one(pool, holder, DispositionSource.webhook, report))


def signed_header(request: AnyRequest, name: str) -> str:
    """Return a header of a signed call. Several lines of signatures are joined; any other repeated header is empty."""
    lines = request.headers.getall(name, [])
    return " ".join(lines) if name == "webhook-signature" or len(lines) == 1 else ""


def read_webhook_id(text: str) -> str:
    """Return a valid webhook-id, by which a repeat is recognised. Raises InvalidInput."""
    if not 1 <= len(text) <= KEY_CHARACTERS or not text.isascii() or not text.isprintable():
        detail = f"Send a webhook-id of 1 to {KEY_CHARACTERS} printable ASCII characters."
        raise errors.InvalidInput((Fault(pointer="/webhook-id", code=FaultCode.value_not_allowed, detail=detail),))
    return text


# Returns


@post(
    "/leads/{lead_id:str}/return",
    tags=["returns"],
    dependencies={
        "caller": REPORTER,
        "form": provide_body(
            ReturnBody, lambda part: returns.return_faults(part.reason, part.note, part.claim, part.calls, clock.now())
        ),
    },
)
async def file_return(
    lead_id: FromPath[str], caller: Caller, form: Injected[ReturnBody], services: Injected[Services]
) -> ReturnView:
    """Requests to return a lead: decided at once if the record suffices, else by an operator."""
    holder = holder_of(caller)
    return_request = await returns.file_return(
        services.pool, holder, path_id("lead", lead_id), form.reason, form.note, form.claim, form.calls
    )
    return wire.show_return(return_request, to_operator=False)


RETURN_STATE: Final = QueryParameter(
    name="state", about="Only returns in this state.", schema={"type": "string", "enum": list(ReturnState)}
)


@get(
    "/returns",
    tags=["returns"],
    dependencies={"caller": require(Scope.leads_read, Scope.operate, even_suspended=True)},
    doc=RouteDoc(query=(*paged(id_of("ret")), RETURN_STATE)),
)
async def list_returns(request: AnyRequest, caller: Caller, services: Injected[Services]) -> Page[ReturnView]:
    """Lists returns, newest first: the business's own, or those of all businesses for operators."""
    limit, before = page_limit(request), page_cursor(request, "ret")
    state = _read_filter(request, "state", tuple(ReturnState))
    return_state = None if state is None else ReturnState(state)
    to_operator = caller.kind is CallerKind.operator
    owner = None if to_operator else caller.owner
    async with session(services.pool) as connection:
        rows = await feedback_store.list_returns(connection, owner, _mode_of(caller), return_state, before, limit + 1)
    return list_page(rows, limit, lambda row: wire.show_return(row, to_operator=to_operator), wire.return_id)


@post(
    "/returns/{return_id:str}/judge",
    status_code=200,
    tags=["returns"],
    dependencies={"caller": require(Scope.operate), "judgement": provide_body(JudgementBody)},
)
async def judge_return(
    return_id: FromPath[str], caller: Caller, judgement: Injected[JudgementBody], services: Injected[Services]
) -> ReturnView:
    """Grants or denies a return, with a finding that both sides read. Operators only.

    A return that was judged before is returned as it is.
    """
    judged = await returns.judge_return(
        services.pool,
        caller.key_id,
        _mode_of(caller),
        path_id("ret", return_id),
        ReturnState(judgement.state),
        judgement.finding,
    )
    return wire.show_return(judged, to_operator=True)


def _mode_of(caller: Principal) -> str | None:
    """Return the mode that the caller sees: both (None) for an operator with a live key, else that of the key."""
    return None if (caller.kind, caller.mode) == (CallerKind.operator, "live") else caller.mode


handlers: Final = (
    api_router(
        list_leads,
        show_lead,
        list_dispositions,
        add_disposition,
        preview_dispositions,
        import_dispositions,
        show_pipeline,
        set_pipeline,
        make_hook,
        end_previous_hook_secret,
        file_return,
        list_returns,
        judge_return,
        imports=IMPORTS,
    ),
    api_router(receive_report, path="/"),
)
