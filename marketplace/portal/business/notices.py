"""Notices about leads that the business was shown, with the acknowledgement of each."""

from typing import Final

from litestar import Response, get, post
from litestar.params import FromPath
from markupsafe import Markup

from marketplace.database.db import session
from marketplace.notices import flow as notices_flow
from marketplace.notices import store as notices_store
from marketplace.notices.store import NoticeRow, NoticeState
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import changing
from marketplace.portal.frame import badge, redirect, short
from marketplace.portal.listing import Column, Link, Listing, only_in_file
from marketplace.portal.notice_words import NOTICE_KINDS, NOTICE_STATES, NOTICE_TONES, channels_of, read_state
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import visitor
from marketplace.runtime import ids
from marketplace.security.auth import CallerKind, Principal
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv

HOME: Final = "/business/notices"
MOST_IN_FILE: Final = 10_000


def _lead_id(notice: NoticeRow) -> str:
    return ids.encode("lead", notice.lead_id)


def _state(notice: NoticeRow) -> Markup:
    return badge(NOTICE_STATES[notice.state], NOTICE_TONES[notice.state])


NOTICES: Final = Listing[NoticeRow](
    caption="Notices",
    name="notices",
    columns=(
        Column("Received", lambda notice: notice.made_at, file="made_at"),
        Column(
            "Lead",
            lambda notice: Link(f"/business/leads/{_lead_id(notice)}", short(_lead_id(notice))),
            file="lead_id",
            value=_lead_id,
        ),
        Column("What to do", lambda notice: NOTICE_KINDS[notice.kind], file="kind", value=lambda notice: notice.kind),
        Column("Channels", channels_of, file="channels"),
        Column("State", _state, file="state", value=lambda notice: notice.state),
        Column("Acknowledge by", lambda notice: notice.deadline_at, file="deadline_at", time="day"),
        only_in_file("acknowledged_at", lambda notice: notice.acknowledged_at),
    ),
)


@get(HOME)
async def show_notices(request: AnyRequest) -> Response[bytes]:
    """Show the notices to the business, newest first, on a page or as a file."""
    viewer = await visitor(request, CallerKind.business)
    as_file = wants_csv(request)
    limit = MOST_IN_FILE if as_file else list_limit(request)
    async with session(services(request).pool) as connection:
        rows = await notices_store.list_notices(
            connection,
            business_id=viewer.owner,
            mode=viewer.mode,
            state=read_state(request),
            before=page_cursor(request, "ntc"),
            limit=limit + 1,
        )
    if as_file:
        return await NOTICES.download(rows[:limit])
    return await business_page(
        request,
        viewer,
        "business/notices.html",
        listing=NOTICES,
        rows=rows[:limit],
        to_acknowledge=[
            (ids.encode("ntc", row.id), short(_lead_id(row)), NOTICE_KINDS[row.kind])
            for row in rows[:limit]
            if row.state in (NoticeState.due, NoticeState.overdue)
        ],
        states=list(NOTICE_STATES.items()),
        next_cursor=next_page("ntc", [row.id for row in rows], limit),
    )


@post(f"{HOME}/{{notice_id:str}}")
async def acknowledge(request: AnyRequest, notice_id: FromPath[str]) -> Response[bytes]:
    """Acknowledge one notice."""
    viewer, _ = await changing(request, CallerKind.business)
    caller = Principal(key_id=viewer.actor, kind=CallerKind.business, owner_id=viewer.owner, mode=viewer.mode)
    await notices_flow.acknowledge(services(request).pool, caller, path_id("ntc", notice_id))
    return redirect(request, HOME, "The notice is acknowledged.")


handlers = (show_notices, acknowledge)
