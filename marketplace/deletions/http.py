"""HTTP API of deletion requests, for operators: take, list, carry out, refuse, and the signed proof.

No answer repeats a phone number or an e-mail address.
"""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.deletions import flow as deletions_flow
from marketplace.deletions import store as deletions_store
from marketplace.deletions.flow import DEADLINE_DAYS, MOST_DAYS, DeletionDetail
from marketplace.deletions.store import LATE, DeletionLead, DeletionRefusal, DeletionRow, DeletionState
from marketplace.directory.suppressions import Person, person_faults
from marketplace.directory.wire import provide_configuration
from marketplace.notices.store import NoticeState
from marketplace.receipts.flow import DeletionProof, Signer
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import Principal, Scope
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.api import Caller, Injected, JsonAnswer, api_router, list_page, require
from marketplace.web.http import AnyRequest, Page, Services, page_cursor, page_limit, path_id
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged
from marketplace.web.problems import Problem

OPERATOR: Final = require(Scope.operate)
STATES: Final = (*DeletionState, LATE)
STATE: Final = QueryParameter(
    name="state",
    about="Only requests in this state; `late` are those that have not ended by their deadline.",
    schema={"type": "string", "enum": list(STATES)},
)


class NewDeletionRequest(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/deletion-requests: a person by phone, e-mail or both, or the person of one lead.

    `deadline_days` is the time that the person's jurisdiction gives, counted from `received_at`, which is now if it is
    left out.
    """

    lead_id: Annotated[str, Meta(max_length=64)] | None = None
    received_at: Annotated[datetime, Meta(tz=True)] | None = None
    deadline_days: Annotated[int, Meta(ge=1, le=MOST_DAYS)] = DEADLINE_DAYS
    also_suppress: bool = True


class RefusalBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/deletion-requests/{id}/refuse."""

    refusal: DeletionRefusal


class DeletionLeadView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A lead of the person. `business` is the one that was shown it, `notice` the state of the notice to it."""

    lead_id: str
    erased_at: datetime | None
    business: str | None = None
    notice: NoticeState | None = None
    acknowledged_at: datetime | None = None
    deadline_at: datetime | None = None


class DeletionRequestView(msgspec.Struct, frozen=True, kw_only=True):
    """A person's request to be deleted, without the person.

    `late`: it has not ended by its deadline. `leads` counts the leads that it names, `notices` those to businesses that
    were shown one, of which some are `acknowledged` and some `overdue`.
    """

    id: str
    mode: str
    state: DeletionState
    late: bool
    received_at: datetime
    deadline_at: datetime
    requested_by: str
    lead_id: str | None
    also_suppress: bool
    refusal: DeletionRefusal | None
    erased_at: datetime | None
    ended_at: datetime | None
    leads: int
    notices: int
    acknowledged: int
    overdue: int


class DeletionRequestDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A request with its leads."""

    request: DeletionRequestView
    leads: tuple[DeletionLeadView, ...]


def _show(request: DeletionRow) -> DeletionRequestView:
    return DeletionRequestView(
        id=ids.encode("del", request.id),
        mode=request.mode,
        state=request.state,
        late=request.is_late(clock.now()),
        received_at=request.received_at,
        deadline_at=request.deadline_at,
        requested_by=request.requested_by,
        lead_id=None if request.lead_id is None else ids.encode("lead", request.lead_id),
        also_suppress=request.suppresses,
        refusal=request.refusal,
        erased_at=request.erased_at,
        ended_at=request.ended_at,
        leads=request.leads,
        notices=request.notices,
        acknowledged=request.acknowledged,
        overdue=request.overdue,
    )


def _show_lead(lead: DeletionLead) -> DeletionLeadView:
    return DeletionLeadView(
        lead_id=ids.encode("lead", lead.lead_id),
        erased_at=lead.erased_at,
        business=None if lead.business_id is None else ids.encode("biz", lead.business_id),
        notice=lead.notice_state,
        acknowledged_at=lead.acknowledged_at,
        deadline_at=lead.deadline_at,
    )


def _show_detail(detail: DeletionDetail) -> DeletionRequestDetail:
    return DeletionRequestDetail(request=_show(detail.request), leads=tuple(map(_show_lead, detail.leads)))


def _content_faults(request: NewDeletionRequest) -> tuple[Fault, ...]:
    """Return the faults of a body that names both a lead and a person, or neither, or no valid person."""
    if request.lead_id is None:
        return person_faults(request)
    if request.phone is None and request.email is None:
        return ()
    detail = "Send either lead_id, or a phone number, an e-mail address or both."
    return (Fault(pointer="/lead_id", code=FaultCode.value_not_allowed, detail=detail),)


@post(
    "/deletion-requests",
    tags=["deletion requests"],
    dependencies={"caller": OPERATOR, "deletion": provide_configuration(NewDeletionRequest, _content_faults)},
)
async def take_request(
    caller: Caller, deletion: Injected[NewDeletionRequest], services: Injected[Services]
) -> DeletionRequestView:
    """Records a person's request to be deleted, with its deadline. Nothing is erased yet. Operators only.

    The contact is stored sealed until the request ends, and keyed hashes of it afterwards.
    """
    if faults := _content_faults(deletion):
        raise errors.InvalidInput(faults)
    person = Person(phone=deletion.phone, email=deletion.email, country=deletion.country)
    request_id = await deletions_flow.take_request(
        services.pool,
        services.sealer,
        caller,
        person if deletion.lead_id is None else path_id("lead", deletion.lead_id),
        received_at=deletion.received_at,
        deadline_days=deletion.deadline_days,
        also_suppress=deletion.also_suppress,
    )
    return _show(await deletions_flow.load_request(services.pool, caller, request_id))


@get(
    "/deletion-requests",
    tags=["deletion requests"],
    dependencies={"caller": OPERATOR},
    doc=RouteDoc(query=(*paged(id_of("del")), STATE)),
)
async def list_requests(request: AnyRequest, caller: Caller, services: Injected[Services]) -> Page[DeletionRequestView]:
    """Lists deletion requests: those that wait first, by their deadline. A test key lists those of test leads.

    Operators only.
    """
    limit, before = page_limit(request), page_cursor(request, "del")
    state = request.query_params.get("state")
    if state is not None and state not in STATES:
        detail = f"Give one of {', '.join(STATES)}."
        raise errors.InvalidInput((Fault(pointer="/state", code=FaultCode.value_not_allowed, detail=detail),))
    mode = None if caller.sees("live") else caller.mode
    async with session(services.pool) as connection:
        rows = await deletions_store.list_requests(connection, before, state, clock.now(), mode, limit + 1)
    return list_page(rows, limit, _show, lambda row: ids.encode("del", row.id))


@get("/deletion-requests/{request_id:str}", tags=["deletion requests"], dependencies={"caller": OPERATOR})
async def show_request(
    request_id: FromPath[str], caller: Caller, services: Injected[Services]
) -> DeletionRequestDetail:
    """Shows a deletion request with its leads, and the notices to the businesses that were shown them."""
    return await _detail(caller, services, request_id)


async def _detail(caller: Principal, services: Services, request_id: str) -> DeletionRequestDetail:
    return _show_detail(await deletions_flow.load_detail(services.pool, caller, path_id("del", request_id)))


@post(
    "/deletion-requests/{request_id:str}/carry-out",
    status_code=200,
    tags=["deletion requests"],
    dependencies={"caller": OPERATOR},
)
async def carry_out(request_id: FromPath[str], caller: Caller, services: Injected[Services]) -> DeletionRequestDetail:
    """Erases every lead of the person, and suppresses the person if the request says so.

    The request is done when each business that was shown a lead has acknowledged it, or is overdue. A repeated call
    continues an interrupted one.
    """
    await deletions_flow.carry_out(services.pool, services.sealer, caller, path_id("del", request_id))
    return await _detail(caller, services, request_id)


@post(
    "/deletion-requests/{request_id:str}/refuse",
    status_code=200,
    tags=["deletion requests"],
    dependencies={"caller": OPERATOR, "decision": provide_configuration(RefusalBody)},
)
async def refuse(
    request_id: FromPath[str], caller: Caller, decision: Injected[RefusalBody], services: Injected[Services]
) -> DeletionRequestView:
    """Refuses an open deletion request for one of the reasons, and deletes its contact."""
    return _show(await deletions_flow.refuse(services.pool, caller, path_id("del", request_id), decision.refusal))


@get(
    "/deletion-requests/{request_id:str}/proof",
    tags=["deletion requests"],
    dependencies={"caller": OPERATOR},
    doc=RouteDoc(answers={200: DeletionProof, 409: Problem}),
)
async def show_proof(request_id: FromPath[str], caller: Caller, services: Injected[Services]) -> Response[bytes]:
    """Returns the signed proof that a request was carried out; 409 until it is done.

    It is verified like a receipt, with the key of `GET /v1/receipt-key` or the command `marketplace receipt verify`.
    """
    signer = Signer(services.settings.master_key)
    return JsonAnswer(await deletions_flow.issue_proof(services.pool, signer, caller, path_id("del", request_id)))


handlers: Final = (api_router(take_request, list_requests, show_request, carry_out, refuse, show_proof),)
