"""HTTP API of notices: read and acknowledged by the business that holds the lead, and listed for operators."""

from datetime import datetime
from typing import Any, Final

import msgspec
from litestar import get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.notices import flow as notices_flow
from marketplace.notices import store as notices_store
from marketplace.notices.store import NoticeKind, NoticeRow, NoticeState
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind, Principal, Scope
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.api import Caller, Injected, api_router, list_page, require
from marketplace.web.http import AnyRequest, Page, Services, page_cursor, page_limit, path_id
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged

STATES: Final = tuple(state for state in NoticeState if state is not NoticeState.not_needed)
STATE: Final = QueryParameter(
    name="state", about="Only notices in this state.", schema={"type": "string", "enum": list(STATES)}
)


class HolderNotice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A notice to the business that holds a lead, without contact data. `business` is shown to operators only."""

    id: str
    lead_id: str
    kind: NoticeKind
    state: NoticeState
    made_at: datetime
    deadline_at: datetime
    detail: dict[str, Any]
    attempts: int = 0
    last_result: str | None = None
    acknowledged_at: datetime | None = None
    business: str | None = None


def _show(notice: NoticeRow, caller: Principal) -> HolderNotice:
    return HolderNotice(
        id=ids.encode("ntc", notice.id),
        lead_id=ids.encode("lead", notice.lead_id),
        kind=notice.kind,
        state=notice.state,
        made_at=notice.made_at,
        deadline_at=notice.deadline_at,
        detail=notice.detail,
        attempts=notice.attempts,
        last_result=notice.result,
        acknowledged_at=notice.acknowledged_at,
        business=ids.encode("biz", notice.business_id) if caller.kind is CallerKind.operator else None,
    )


@get(
    "/notices",
    tags=["notices"],
    dependencies={"caller": require(Scope.operate, Scope.leads_read, even_suspended=True)},
    doc=RouteDoc(query=(*paged(id_of("ntc")), STATE)),
)
async def list_notices(request: AnyRequest, caller: Caller, services: Injected[Services]) -> Page[HolderNotice]:
    """Lists notices about leads that were shown, newest first: a business its own, an operator all."""
    limit, before = page_limit(request), page_cursor(request, "ntc")
    text = request.query_params.get("state")
    if text is not None and text not in STATES:
        detail = f"Give one of {', '.join(STATES)}."
        raise errors.InvalidInput((Fault(pointer="/state", code=FaultCode.value_not_allowed, detail=detail),))
    async with session(services.pool) as connection:
        rows = await notices_store.list_notices(
            connection,
            business_id=caller.owner_id,
            mode=None if caller.sees("live") and caller.owner_id is None else caller.mode,
            state=None if text is None else NoticeState(text),
            before=before,
            limit=limit + 1,
        )
    return list_page(rows, limit, lambda row: _show(row, caller), lambda row: ids.encode("ntc", row.id))


@post(
    "/notices/{notice_id:str}/acknowledge",
    status_code=200,
    tags=["notices"],
    dependencies={"caller": require(Scope.leads_read, even_suspended=True)},
)
async def acknowledge_notice(notice_id: FromPath[str], caller: Caller, services: Injected[Services]) -> HolderNotice:
    """Acknowledges a notice, for a business whose server cannot answer the webhook. A repeated call changes nothing."""
    return _show(await notices_flow.acknowledge(services.pool, caller, path_id("ntc", notice_id)), caller)


handlers: Final = (api_router(list_notices, acknowledge_notice),)
