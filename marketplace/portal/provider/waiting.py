"""Waiting leads of a provider: what each waits for, until when, and the question worth asking; giving one back."""

from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.nurturing.flow import LaneEntry, give_back
from marketplace.portal.forms import changing
from marketplace.portal.frame import page, redirect
from marketplace.portal.listing import Column, Listing
from marketplace.portal.provider.submissions import submission_link
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
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind, Principal
from marketplace.web.http import AnyRequest, path_id, services, wants_csv

HOME: Final = "/provider/waiting"

WAITING: Final = Listing[LaneEntry](
    caption="Waiting leads",
    name="waiting",
    columns=(
        Column(
            "Submission",
            lambda row: submission_link(row.lead.lead_id, row.lead.provider_reference),
            file="id",
            value=lambda row: ids.encode("lead", row.lead.lead_id),
        ),
        SERVICE,
        WAITS_FOR,
        KINDS_OF_WAIT,
        SINCE,
        UNTIL,
        QUESTIONS,
    ),
)


@get(HOME)
async def show_waiting(request: AnyRequest) -> Response[bytes]:
    """Show the provider's waiting leads, newest first, or send them as a file."""
    viewer = await visitor(request, CallerKind.provider)
    filters = read_filters(request, viewer.mode, viewer.owner)
    if wants_csv(request):
        return await waiting_file(request, WAITING, filters)
    return page(
        request,
        viewer,
        "provider/waiting.html",
        **await load_waiting(request, filters),
        listing=WAITING,
        basis="Your leads that wait now.",
        nothing="None of your leads is waiting.",
    )


@post("/provider/submissions/{lead_id:str}/give-back")
async def give_back_submission(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Give a waiting lead back before its time."""
    viewer, _ = await changing(request, CallerKind.provider)
    caller = Principal(key_id=viewer.actor, kind=CallerKind.provider, owner_id=viewer.owner, mode=viewer.mode)
    address = f"/provider/submissions/{lead_id}"
    try:
        await give_back(services(request).pool, caller, path_id("lead", lead_id))
    except errors.Conflict as error:
        return redirect(request, address, str(error))
    return redirect(request, address, "Given back. The person may ask again.")


handlers: tuple[Any, ...] = (show_waiting, give_back_submission)
