"""The nurture lane: all leads that wait, for what, until when, and what would unlock them."""

import asyncio
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from litestar import Response, get

from marketplace.nurturing.flow import LaneEntry
from marketplace.portal.frame import page, zone_of
from marketplace.portal.listing import Column, Listing
from marketplace.portal.operator.links import lead_link, provider_link
from marketplace.portal.operator.reports import rows_of
from marketplace.portal.session import visitor
from marketplace.portal.waiting_list import (
    KINDS_OF_WAIT,
    QUESTIONS,
    SERVICE,
    SINCE,
    UNTIL,
    WAITS_FOR,
    load_waiting,
    read_filters,
    waiting_file,
)
from marketplace.reports.lane import load_lane
from marketplace.reports.question import Question
from marketplace.runtime import clock, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, path_id, services, wants_csv

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
        KINDS_OF_WAIT,
        SINCE,
        UNTIL,
        QUESTIONS,
    ),
)


@get(HOME)
async def show_lane(request: AnyRequest) -> Response[bytes]:
    """Show the waiting leads of all providers or of one, newest first, or send them as a file."""
    viewer = await visitor(request, CallerKind.operator)
    mode = "test" if request.query_params.get("mode") == "test" else "live"
    filters = read_filters(request, mode, _provider(request))
    if wants_csv(request):
        return await waiting_file(request, LANE, filters)
    today = clock.now().astimezone(zone_of(viewer.zone)).date()
    question = Question(
        first=today - timedelta(days=LANE_DAYS - 1),
        last=today,
        zone=zone_of(viewer.zone).key,
        mode=mode,
        provider_id=filters.provider_id,
        vertical=filters.vertical,
    )
    waiting, lane = await asyncio.gather(load_waiting(request, filters), load_lane(services(request).reports, question))
    return page(
        request,
        viewer,
        "operator/waiting.html",
        **waiting,
        listing=LANE,
        basis="Below are the leads that wait now.",
        nothing="No lead is waiting.",
        lane=lane,
        lane_days=LANE_DAYS,
        rows_of=rows_of,
    )


def _provider(request: AnyRequest) -> UUID | None:
    """Return the provider in the address, if there is one. Raises NotFound for an id that is none of a provider."""
    text = request.query_params.get("provider")
    return path_id("prov", text) if text else None


handlers: tuple[Any, ...] = (show_lane,)
