"""The nurture lane: all leads that wait, for what, until when, and what would unlock them."""

from datetime import timedelta
from typing import Any, Final

from litestar import Response, get

from marketplace.nurturing.flow import LaneEntry
from marketplace.portal.frame import page, zone_of
from marketplace.portal.listing import Column, Listing
from marketplace.portal.operator.links import lead_link, provider_link
from marketplace.portal.session import visitor
from marketplace.portal.waiting_list import QUESTIONS, SERVICE, SINCE, UNTIL, WAITS_FOR, load_file, load_waiting
from marketplace.reports.lane import load_lane
from marketplace.reports.question import Question
from marketplace.runtime import clock, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services, wants_csv

HOME: Final = "/operator/waiting"
LANE_DAYS: Final = 90
"Days of the figures above the list: as long as a lead waits unless its vertical says otherwise."

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
    today = clock.now().astimezone(zone_of(viewer.zone)).date()
    question = Question(
        first=today - timedelta(days=LANE_DAYS - 1),
        last=today,
        zone=zone_of(viewer.zone).key,
        mode=mode,
        provider_id=provider_id,
        vertical=request.query_params.get("vertical") or None,
    )
    return page(
        request,
        viewer,
        "operator/waiting.html",
        listing=LANE,
        rows=rows,
        lane=await load_lane(services(request).reports, question),
        lane_days=LANE_DAYS,
        next_cursor=next_cursor,
        services=sorted(rules.verticals.values(), key=lambda vertical: vertical.slug),
    )


handlers: tuple[Any, ...] = (show_lane,)
