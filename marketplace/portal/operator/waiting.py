"""The nurture lane: all leads that wait, for what, until when, and what would unlock them."""

from typing import Any, Final

from litestar import Response, get

from marketplace.nurturing.flow import LaneEntry
from marketplace.portal.frame import page
from marketplace.portal.listing import Column, Listing
from marketplace.portal.operator.links import lead_link, provider_link
from marketplace.portal.session import visitor
from marketplace.portal.waiting_list import QUESTIONS, SERVICE, SINCE, UNTIL, WAITS_FOR, load_file, load_waiting
from marketplace.runtime import ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services, wants_csv

HOME: Final = "/operator/waiting"

LANE: Final = Listing[LaneEntry](
    caption="Waiting leads",
    name="waiting",
    columns=(
        Column(
            "Lead",
            lambda row: lead_link(row.lead.lead_id),
            file="lead_id",
            value=lambda row: ids.encode("lead", row.lead.lead_id),
        ),
        SERVICE,
        Column(
            "Provider",
            lambda row: provider_link(row.lead.provider_id, row.lead.provider),
            file="provider",
            value=lambda row: row.lead.provider,
        ),
        WAITS_FOR,
        SINCE,
        UNTIL,
        QUESTIONS,
    ),
)


@get(HOME)
async def show_lane(request: AnyRequest) -> Response[bytes]:
    """Show the waiting leads of all providers or of one, newest first, or send them as a file."""
    viewer = await visitor(request, CallerKind.operator)
    provider_id = ids.decode("prov", request.query_params.get("provider") or "")
    mode = "test" if request.query_params.get("mode") == "test" else "live"
    if wants_csv(request):
        return await LANE.download(await load_file(request, provider_id, mode))
    rows, next_cursor = await load_waiting(request, provider_id, mode)
    rules = await services(request).catalog.recent()
    return page(
        request,
        viewer,
        "operator/waiting.html",
        listing=LANE,
        rows=rows,
        next_cursor=next_cursor,
        services=sorted(rules.verticals.values(), key=lambda vertical: vertical.slug),
    )


handlers: tuple[Any, ...] = (show_lane,)
