"""Erasures over HTTP: asked for by operators and providers, acknowledged by the business that may have seen the person.

No answer repeats a phone number or an e-mail address, and no provider learns which business it was.
"""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace import errors, ids
from marketplace.auth import Kind, Principal, Scope
from marketplace.db import session
from marketplace.directory.suppressions import Person, marks_of, person_faults
from marketplace.directory.wire import Name, configuration
from marketplace.erasure import flow, store
from marketplace.erasure.store import Erasure, NoticeState
from marketplace.faults import Code, Fault
from marketplace.http import AnyRequest, Page, answer, page, page_cursor, page_limit, path_id, principal, services
from marketplace.openapi import Doc, Query, id_of, paged
from routing.lifecycle import LeadState

NOTICE_STATE: Final = Query(
    name="notice_state", about="Only those in this state.", schema={"type": "string", "enum": list(NoticeState)}
)


class NewErasure(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/erasures: one lead by its id, or all leads of a person by phone, e-mail or both."""

    lead_id: Annotated[str, Meta(max_length=64)] | None = None
    reason: Name
    also_suppress: bool = True


class ShownNotice(msgspec.Struct, frozen=True, kw_only=True):
    """How far the one business that may have seen the person has been told, and until when it has time."""

    state: NoticeState
    attempts: int
    last_result: str | None
    due_at: datetime | None
    acknowledged_at: datetime | None
    deadline_at: datetime | None


class ShownErasure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One erased lead. `state` is where the lead ended, or stands: what a business has seen goes on without contact.

    `business` and `requested_by` are for operators, `assignment_id` is for operators and the business.
    """

    lead_id: str
    state: LeadState
    requested_at: datetime
    suppressed: bool
    notice: ShownNotice
    reason: str | None = None
    requested_by: str | None = None
    business: str | None = None
    assignment_id: str | None = None


class Erasures(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, per lead; none when nothing of this person is here. `has_more`: send the same call again."""

    data: tuple[ShownErasure, ...]
    has_more: bool


def _show(erasure: Erasure, caller: Principal) -> ShownErasure:
    operator, business = caller.kind is Kind.operator, caller.kind is Kind.business
    shown_to_both = erasure.assignment_id if operator or business else None
    return ShownErasure(
        lead_id=ids.encode("lead", erasure.lead_id),
        state=erasure.state,
        requested_at=erasure.requested_at,
        suppressed=erasure.suppressed,
        notice=ShownNotice(
            state=erasure.notice_state,
            attempts=erasure.attempts,
            last_result=erasure.notice_result,
            due_at=erasure.notice_due_at,
            acknowledged_at=erasure.acknowledged_at,
            deadline_at=erasure.deadline_at,
        ),
        reason=None if business else erasure.reason,
        requested_by=erasure.requested_by if operator else None,
        business=ids.encode("biz", erasure.business_id) if operator and erasure.business_id else None,
        assignment_id=ids.encode("asg", shown_to_both) if shown_to_both else None,
    )


def _content_faults(wanted: NewErasure) -> tuple[Fault, ...]:
    if wanted.lead_id is None:
        return person_faults(wanted)
    if wanted.phone is None and wanted.email is None:
        return ()
    detail = "Send either lead_id, or a phone number, an e-mail address or both."
    return (Fault(pointer="/lead_id", code=Code.value_not_allowed, detail=detail),)


@post("/v1/erasures", status_code=200, tags=["erasures"], doc=Doc(body=NewErasure, answers={200: Erasures}))
async def erase(request: AnyRequest) -> Response[bytes]:
    """Erases a person: an open lead stops, contact data is destroyed, the one business that saw it is told.

    A provider erases its own inquiries, in its key's mode. The same call again gives the same outcome.
    """
    caller = await principal(request, Scope.operate, Scope.leads_write)
    wanted = await configuration(request, NewErasure, _content_faults)
    found = services(request)
    if wanted.lead_id is None:
        done = await flow.erase_person(
            found.pool, found.sealer, caller, marks_of(wanted), wanted.reason, also_suppress=wanted.also_suppress
        )
    elif wanted.phone is None and wanted.email is None:
        lead_id = path_id("lead", wanted.lead_id)
        done = await flow.erase_lead(found.pool, caller, lead_id, wanted.reason, also_suppress=wanted.also_suppress)
    else:
        raise errors.InvalidInput(_content_faults(wanted))
    return answer(Erasures(data=tuple(_show(one, caller) for one in done.erasures), has_more=done.has_more))


@get(
    "/v1/erasures",
    tags=["erasures"],
    doc=Doc(answers={200: Page[ShownErasure]}, query=(*paged(id_of("lead")), NOTICE_STATE)),
)
async def list_erasures(request: AnyRequest) -> Response[bytes]:
    """Lists erasures with the state of their notices, newest first; a test key sees those of test leads.

    Operators only.
    """
    caller = await principal(request, Scope.operate)
    limit, before = page_limit(request), page_cursor(request, "lead")
    wanted = _notice_state(request)
    async with session(services(request).pool) as connection:
        mode = None if caller.sees("live") else caller.mode
        rows = await store.list_erasures(connection, before, wanted, limit + 1, mode)
    return page(rows, limit, lambda row: _show(row, caller), lambda row: ids.encode("lead", row.lead_id))


def _notice_state(request: AnyRequest) -> NoticeState | None:
    text = request.query_params.get("notice_state")
    if text is not None and text not in tuple(NoticeState):
        detail = f"Give one of {', '.join(NoticeState)}."
        raise errors.InvalidInput((Fault(pointer="/notice_state", code=Code.value_not_allowed, detail=detail),))
    return None if text is None else NoticeState(text)


@get("/v1/erasures/{lead_id:str}", tags=["erasures"], doc=Doc(answers={200: ShownErasure}))
async def show(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Shows one lead's erasure, to operators and to its provider."""
    caller = await principal(request, Scope.operate, Scope.leads_write, even_suspended=True)
    return answer(_show(await flow.load_erasure(services(request).pool, caller, path_id("lead", lead_id)), caller))


@get("/v1/leads/{lead_id:str}/erasure", tags=["erasures"], doc=Doc(answers={200: ShownErasure}))
async def show_to_business(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Shows the business that may have seen the person what it is asked to erase."""
    caller = await principal(request, Scope.leads_read, even_suspended=True)
    return answer(_show(await flow.load_erasure(services(request).pool, caller, path_id("lead", lead_id)), caller))


@post(
    "/v1/leads/{lead_id:str}/erasure/acknowledge",
    status_code=200,
    tags=["erasures"],
    doc=Doc(answers={200: ShownErasure}),
)
async def acknowledge(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Acknowledges an erasure, for a business whose server cannot answer the webhook."""
    caller = await principal(request, Scope.leads_read, even_suspended=True)
    return answer(_show(await flow.acknowledge(services(request).pool, caller, path_id("lead", lead_id)), caller))


handlers: Final = (erase, list_erasures, show, show_to_business, acknowledge)
