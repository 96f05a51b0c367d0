"""HTTP API of erasures: requested by operators and providers, acknowledged by the business that was shown the lead.

No answer repeats a phone number or an e-mail address, and no provider learns which business was shown the lead.
"""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from litestar import get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory.suppressions import Person, marks_of, person_faults
from marketplace.directory.wire import Name, provide_configuration
from marketplace.erasure import flow as erasure_flow
from marketplace.erasure import store as erasure_store
from marketplace.erasure.store import Erasure
from marketplace.notices.store import NoticeState
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind, Principal, Scope
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.api import Caller, Injected, api_router, list_page, require
from marketplace.web.http import AnyRequest, Page, Services, page_cursor, page_limit, path_id
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged
from routing.lifecycle import LeadState

NOTICE_STATE: Final = QueryParameter(
    name="notice_state", about="Only those in this state.", schema={"type": "string", "enum": list(NoticeState)}
)


class NewErasure(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/erasures: one lead by its id, or all leads of a person by phone, e-mail or both."""

    lead_id: Annotated[str, Meta(max_length=64)] | None = None
    reason: Name
    also_suppress: bool = True


class NoticeView(msgspec.Struct, frozen=True, kw_only=True):
    """State of the notice to the one business that may have seen the person, with its attempts and deadline."""

    state: NoticeState
    attempts: int
    last_result: str | None
    due_at: datetime | None
    acknowledged_at: datetime | None
    deadline_at: datetime | None


class ErasureView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One erased lead. `state` is the lead's: a lead that a business has seen goes on, without its contact.

    `business` and `requested_by` are shown to operators only, `assignment_id` to operators and the business.
    """

    lead_id: str
    state: LeadState
    requested_at: datetime
    suppressed: bool
    notice: NoticeView
    reason: str | None = None
    requested_by: str | None = None
    business: str | None = None
    assignment_id: str | None = None


class ErasureList(msgspec.Struct, frozen=True, kw_only=True):
    """Erasures by lead, empty if the person has no leads. With `has_more`, send the same call again."""

    data: tuple[ErasureView, ...]
    has_more: bool


def _show(erasure: Erasure, caller: Principal) -> ErasureView:
    """Return the erasure with the fields that this kind of caller may see."""
    reason = None if caller.kind is CallerKind.business else erasure.reason
    requested_by, business, assignment_id = None, None, None
    if caller.kind is CallerKind.operator:
        requested_by = erasure.requested_by
        business = ids.encode("biz", erasure.business_id) if erasure.business_id else None
    if caller.kind is not CallerKind.provider and erasure.assignment_id:
        assignment_id = ids.encode("asg", erasure.assignment_id)
    return ErasureView(
        lead_id=ids.encode("lead", erasure.lead_id),
        state=erasure.state,
        requested_at=erasure.requested_at,
        suppressed=erasure.suppressed,
        notice=NoticeView(
            state=erasure.notice_state,
            attempts=erasure.attempts,
            last_result=erasure.notice_result,
            due_at=erasure.notice_due_at,
            acknowledged_at=erasure.acknowledged_at,
            deadline_at=erasure.deadline_at,
        ),
        reason=reason,
        requested_by=requested_by,
        business=business,
        assignment_id=assignment_id,
    )


def _content_faults(erasure: NewErasure) -> tuple[Fault, ...]:
    """Return the faults of a body that names both a lead and a person, or neither, or no valid person."""
    if erasure.lead_id is None:
        return person_faults(erasure)
    if erasure.phone is None and erasure.email is None:
        return ()
    detail = "Send either lead_id, or a phone number, an e-mail address or both."
    return (Fault(pointer="/lead_id", code=FaultCode.value_not_allowed, detail=detail),)


@post(
    "/erasures",
    status_code=200,
    tags=["erasures"],
    dependencies={
        "caller": require(Scope.operate, Scope.leads_write),
        "person": provide_configuration(NewErasure, _content_faults),
    },
)
async def erase(caller: Caller, person: Injected[NewErasure], services: Injected[Services]) -> ErasureList:
    """Erases a person: an open lead ends, contact data is destroyed, and the business that saw it is notified.

    A provider erases its own inquiries, in its key's mode. A repeated call gives the same result.
    """
    pool, sealer = services.pool, services.sealer
    if person.lead_id is None:
        result = await erasure_flow.erase_person(
            pool, sealer, caller, marks_of(person), person.reason, also_suppress=person.also_suppress
        )
    elif person.phone is None and person.email is None:
        lead_id = path_id("lead", person.lead_id)
        result = await erasure_flow.erase_lead(pool, caller, lead_id, person.reason, also_suppress=person.also_suppress)
    else:
        raise errors.InvalidInput(_content_faults(person))
    return ErasureList(data=tuple(_show(erasure, caller) for erasure in result.erasures), has_more=result.has_more)


@get(
    "/erasures",
    tags=["erasures"],
    dependencies={"caller": require(Scope.operate)},
    doc=RouteDoc(query=(*paged(id_of("lead")), NOTICE_STATE)),
)
async def list_erasures(request: AnyRequest, caller: Caller, services: Injected[Services]) -> Page[ErasureView]:
    """Lists erasures with the state of their notices, newest first. A test key lists those of test leads.

    Operators only.
    """
    limit, before = page_limit(request), page_cursor(request, "lead")
    state = _notice_state(request)
    async with session(services.pool) as connection:
        mode = None if caller.sees("live") else caller.mode
        rows = await erasure_store.list_erasures(connection, before, state, limit + 1, mode)
    return list_page(rows, limit, lambda row: _show(row, caller), lambda row: ids.encode("lead", row.lead_id))


def _notice_state(request: AnyRequest) -> NoticeState | None:
    """Return the query's `notice_state`, or None without one. Raises InvalidInput."""
    text = request.query_params.get("notice_state")
    if text is not None and text not in tuple(NoticeState):
        detail = f"Give one of {', '.join(NoticeState)}."
        raise errors.InvalidInput((Fault(pointer="/notice_state", code=FaultCode.value_not_allowed, detail=detail),))
    return None if text is None else NoticeState(text)


@get(
    "/erasures/{lead_id:str}",
    tags=["erasures"],
    dependencies={"caller": require(Scope.operate, Scope.leads_write, even_suspended=True)},
)
async def show(lead_id: FromPath[str], caller: Caller, services: Injected[Services]) -> ErasureView:
    """Shows one lead's erasure, to operators and to its provider."""
    return _show(await erasure_flow.load_erasure(services.pool, caller, path_id("lead", lead_id)), caller)


@get(
    "/leads/{lead_id:str}/erasure",
    tags=["erasures"],
    dependencies={"caller": require(Scope.leads_read, even_suspended=True)},
)
async def show_to_business(lead_id: FromPath[str], caller: Caller, services: Injected[Services]) -> ErasureView:
    """Shows the erasure of a lead to the business that was shown the lead."""
    return _show(await erasure_flow.load_erasure(services.pool, caller, path_id("lead", lead_id)), caller)


@post(
    "/leads/{lead_id:str}/erasure/acknowledge",
    status_code=200,
    tags=["erasures"],
    dependencies={"caller": require(Scope.leads_read, even_suspended=True)},
)
async def acknowledge(lead_id: FromPath[str], caller: Caller, services: Injected[Services]) -> ErasureView:
    """Acknowledges an erasure, for a business whose server cannot answer the webhook."""
    return _show(await erasure_flow.acknowledge(services.pool, caller, path_id("lead", lead_id)), caller)


handlers: Final = (api_router(erase, list_erasures, show, show_to_business, acknowledge),)
