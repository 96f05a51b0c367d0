"""The returns of a business: what was asked, how it stands, and what was found."""

from datetime import datetime

import msgspec
from litestar import Response, get

from marketplace import ids
from marketplace.auth import Kind
from marketplace.db import session
from marketplace.feedback import store as feedback
from marketplace.feedback.store import Return, ReturnState
from marketplace.http import AnyRequest, page_cursor, page_limit, services, wants_csv
from marketplace.portal.business import wording
from marketplace.portal.business.purse import business_page
from marketplace.portal.frame import csv
from marketplace.portal.session import visitor


class ReturnLine(msgspec.Struct, frozen=True, kw_only=True):
    """One return in a file."""

    lead: str
    reason: str
    state: str
    requested_at: datetime
    judged_at: datetime | None
    finding: str
    price_minor: int
    currency: str


@get("/business/returns")
async def show_returns(request: AnyRequest) -> Response[bytes]:
    """Lists the returns that the business asked for, newest first."""
    viewer = await visitor(request, Kind.business)
    as_file = wants_csv(request)
    limit, before = 2_000 if as_file else page_limit(request), page_cursor(request, "ret")
    asked = request.query_params.get("state")
    state = ReturnState(asked) if asked in tuple(ReturnState) else None
    async with session(services(request).pool) as connection:
        found = await feedback.list_returns(connection, viewer.owner, viewer.mode, state, before, limit + 1)
    if as_file:
        return await csv("returns", (_line(one) for one in found[:limit]), ReturnLine.__struct_fields__)
    return await business_page(
        request, viewer, "business/returns.html", returns=found[:limit],
        states=[(one.value, wording.RETURN_STATES[one]) for one in ReturnState],
        next_cursor=ids.encode("ret", found[limit - 1].id) if len(found) > limit else None,
    )  # fmt: skip


def _line(one: Return) -> ReturnLine:
    return ReturnLine(
        lead=ids.encode("lead", one.lead_id),
        reason=wording.RETURNS[one.reason],
        state=wording.RETURN_STATES[one.state],
        requested_at=one.requested_at,
        judged_at=one.judged_at,
        finding=one.finding or "",
        price_minor=one.price_minor,
        currency=one.currency,
    )


handlers = (show_returns,)
