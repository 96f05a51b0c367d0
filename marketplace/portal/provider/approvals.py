"""Page on which an operator approves the providers that have asked to go live."""

from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory import going_live
from marketplace.directory.going_live import LiveRequest
from marketplace.portal.forms import changing
from marketplace.portal.frame import page, redirect, short
from marketplace.portal.listing import Column, Listing
from marketplace.portal.session import visitor
from marketplace.runtime import ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, path_id, services

REQUESTS: Final = Listing[LiveRequest](
    caption="Waiting providers",
    columns=(
        Column("Provider", lambda row: row.name),
        Column("Id", lambda row: short(ids.encode("prov", row.provider_id))),
        Column("Requested", lambda row: row.requested_at),
        Column("By", lambda row: short(row.requested_by)),
    ),
)


@get("/operator/going-live")
async def show_requests(request: AnyRequest) -> Response[bytes]:
    """Show the providers that wait for approval, the longest wait first."""
    viewer = await visitor(request, CallerKind.operator)
    async with session(services(request).pool) as connection:
        waiting = await going_live.list_requests(connection)
    return page(request, viewer, "provider/approvals.html", listing=REQUESTS, waiting=waiting)


@post("/operator/going-live/{provider_id:str}")
async def approve(request: AnyRequest, provider_id: FromPath[str]) -> Response[bytes]:
    """Allow a provider to make live keys."""
    viewer, _ = await changing(request, CallerKind.operator)
    await going_live.approve_live(services(request).pool, viewer.actor, path_id("prov", provider_id))
    return redirect(request, "/operator/going-live", "Approved. The provider can make live keys now.")


handlers: tuple[Any, ...] = (show_requests, approve)
