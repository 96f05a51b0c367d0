"""HTTP API for the software of a business: next actions of its leads, and changes of stage one after another."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from litestar import delete, get, put
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.feedback import next_actions, stage_changes
from marketplace.feedback.event import StageChangedData
from marketplace.feedback.http import READER, REPORTER, holder_of, read_time_filter
from marketplace.feedback.next_actions import NextAction
from marketplace.feedback.stage_changes import StageChangeRecord
from marketplace.runtime import errors, ids
from marketplace.text.faults import WORDS, Fault
from marketplace.text.values import Instant
from marketplace.web.api import Caller, Injected, api_router, list_page, provide_body
from marketplace.web.http import AnyRequest, Page, Services, page_cursor, page_limit, path_id
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged

ONE: Final = "/leads/{lead_id:str}/next-action"


class NextActionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /v1/leads/{id}/next-action. `due_at` is within two years from now."""

    note: Annotated[str, Meta(min_length=1, max_length=300, pattern=WORDS)]
    due_at: Instant


class NextActionView(msgspec.Struct, frozen=True, kw_only=True):
    """Next action of a lead: what the business means to do, and when to remind it."""

    lead_id: str
    assignment_id: str
    note: str
    due_at: datetime


class StageChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """A change of stage. `id` is the `webhook-id` with which it is sent, if it is."""

    id: str
    made_at: datetime
    data: StageChangedData


def _show_action(action: NextAction) -> NextActionView:
    return NextActionView(
        lead_id=ids.encode("lead", action.lead_id),
        assignment_id=_action_cursor(action),
        note=action.note,
        due_at=action.due_at,
    )


def _action_cursor(action: NextAction) -> str:
    return ids.encode("asg", action.assignment_id)


@get(ONE, tags=["leads"], dependencies={"caller": READER})
async def show_next_action(lead_id: FromPath[str], caller: Caller, services: Injected[Services]) -> NextActionView:
    """Shows the open next action of a lead; 404 if it has none."""
    holder = holder_of(caller)
    async with session(services.pool) as connection:
        action = await next_actions.load_action(connection, holder, path_id("lead", lead_id))
    return _show_action(action)


@put(ONE, tags=["leads"], dependencies={"caller": REPORTER, "action": provide_body(NextActionBody)})
async def set_next_action(
    lead_id: FromPath[str], caller: Caller, action: Injected[NextActionBody], services: Injected[Services]
) -> NextActionView:
    """Sets the next action of a lead in place of the previous one. Its reminder is shown on the pages."""
    saved = await next_actions.set_action(
        services.pool, holder_of(caller), path_id("lead", lead_id), action.note.strip(), action.due_at
    )
    return _show_action(saved)


@delete(ONE, status_code=200, tags=["leads"], dependencies={"caller": REPORTER})
async def finish_next_action(lead_id: FromPath[str], caller: Caller, services: Injected[Services]) -> NextActionView:
    """Marks the next action of a lead as done, and returns it; 404 if it has none."""
    return _show_action(await next_actions.finish_action(services.pool, holder_of(caller), path_id("lead", lead_id)))


DUE_BEFORE: Final = QueryParameter(
    name="due_before",
    about="Only actions that are due before this moment.",
    schema={"type": "string", "format": "date-time"},
)


@get(
    "/next-actions",
    tags=["leads"],
    dependencies={"caller": READER},
    doc=RouteDoc(query=(*paged(id_of("asg")), DUE_BEFORE)),
)
async def list_next_actions(request: AnyRequest, caller: Caller, services: Injected[Services]) -> Page[NextActionView]:
    """Lists the open next actions of the business, those of its newest leads first."""
    holder, limit, before = holder_of(caller), page_limit(request), page_cursor(request, "asg")
    due_before = read_time_filter(request, "due_before")
    async with session(services.pool) as connection:
        actions = await next_actions.list_open(
            connection, holder.business_id, holder.mode, due_before, before, limit + 1
        )
    return list_page(actions, limit, _show_action, _action_cursor)


AFTER: Final = QueryParameter(name="after", about="Id of the last change that you have.", schema=id_of("evt"))


@get(
    "/stage-changes",
    tags=["leads"],
    dependencies={"caller": READER},
    doc=RouteDoc(query=(paged(id_of("evt"))[0], AFTER)),
)
async def list_stage_changes(
    request: AnyRequest, caller: Caller, services: Injected[Services]
) -> Page[StageChangeView]:
    """Lists changes of stage of the last 30 days, oldest first: those made on the pages or by the API.

    Call again with the id of the last one as `after` for the changes since. None is left out or repeated that way.
    """
    holder, limit = holder_of(caller), page_limit(request)
    text = request.query_params.get("after")
    after = None if text is None else ids.decode("evt", text)
    if text is not None and after is None:
        detail = "Send the id of a change in this list, unchanged."
        raise errors.InvalidInput((Fault(pointer="/after", code="cursor_invalid", detail=detail),))
    async with session(services.pool) as connection:
        changes = await stage_changes.list_after(connection, holder.business_id, holder.mode, after, limit + 1)
    return list_page(changes, limit, _show_stage_change, _change_id)


def _show_stage_change(change: StageChangeRecord) -> StageChangeView:
    return StageChangeView(id=_change_id(change), made_at=change.made_at, data=stage_changes.show_change(change))


def _change_id(change: StageChangeRecord) -> str:
    return ids.encode("evt", change.id)


handlers: Final = (
    api_router(
        show_next_action,
        set_next_action,
        finish_next_action,
        list_next_actions,
        list_stage_changes,
    ),
)
