"""Returns that a business has requested, each with its state and finding."""

from typing import Final

from litestar import Response, get
from markupsafe import Markup

from marketplace.database.db import session
from marketplace.feedback import store as feedback_store
from marketplace.feedback.store import ReturnRequest, ReturnState
from marketplace.portal.business import wording
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.frame import badge, short
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import visitor
from marketplace.runtime import ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, page_cursor, services, wants_csv


def _lead_id(request: ReturnRequest) -> str:
    return ids.encode("lead", request.lead_id)


def _state(request: ReturnRequest) -> Markup:
    tone = {ReturnState.granted: "good", ReturnState.denied: "bad"}.get(request.state, "busy")
    return badge(wording.RETURN_STATES[request.state], tone)


RETURNS: Final = Listing[ReturnRequest](
    caption="Returns",
    name="returns",
    columns=(
        Column("Requested", lambda request: request.requested_at, file="requested_at"),
        Column(
            "Lead",
            lambda request: Link(f"/business/leads/{_lead_id(request)}", short(_lead_id(request))),
            file="lead",
            value=_lead_id,
        ),
        Column("Reason", lambda request: wording.RETURNS[request.reason], file="reason"),
        Column("State", _state, file="state", value=lambda request: wording.RETURN_STATES[request.state]),
        only_in_file("judged_at", lambda request: request.judged_at),
        Column(
            "Finding",
            lambda request: request.finding or "The marketplace is reviewing it.",
            file="finding",
            value=lambda request: request.finding or "",
        ),
        Column("Price", lambda request: Money(request.price_minor, request.currency), file="price_minor", style="num"),
        only_in_file("currency", lambda request: request.currency),
    ),
    order=("lead", "reason", "state", "requested_at", "judged_at", "finding", "price_minor", "currency"),
)


@get("/business/returns")
async def show_returns(request: AnyRequest) -> Response[bytes]:
    """Show the returns that the business requested, newest first, on a page or as a file."""
    viewer = await visitor(request, CallerKind.business)
    as_file = wants_csv(request)
    limit, before = 2_000 if as_file else list_limit(request), page_cursor(request, "ret")
    word = request.query_params.get("state")
    state = ReturnState(word) if word in tuple(ReturnState) else None
    async with session(services(request).pool) as connection:
        rows = await feedback_store.list_returns(connection, viewer.owner, viewer.mode, state, before, limit + 1)
    if as_file:
        return await RETURNS.download(rows[:limit])
    next_cursor = next_page("ret", [row.id for row in rows], limit)
    return await business_page(
        request,
        viewer,
        "business/returns.html",
        listing=RETURNS,
        returns=rows[:limit],
        states=[(state.value, wording.RETURN_STATES[state]) for state in ReturnState],
        next_cursor=next_cursor,
    )


handlers = (show_returns,)
