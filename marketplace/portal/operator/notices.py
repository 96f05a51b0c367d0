"""Notices to businesses that hold a lead, and the form that records a person's stop."""

import asyncio
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from markupsafe import Markup

from marketplace.database.db import session
from marketplace.notices import store as notices_store
from marketplace.notices.store import NoticeRow
from marketplace.portal.forms import Reason, changing, fill, label, show_again, show_form
from marketplace.portal.frame import badge, page, redirect, short, words
from marketplace.portal.listing import Column, Link, Listing, only_in_file
from marketplace.portal.notice_words import NOTICE_KINDS, NOTICE_STATES, NOTICE_TONES, channels_of, read_state
from marketplace.portal.operator.compliance import TABS, Country, Mark, caller_of, read_people
from marketplace.portal.operator.links import business_link
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.revocations import flow as revocations_flow
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv
from routing.consent import Channel

HOME: Final = "/operator/compliance/notices"
MOST_IN_FILE: Final = 10_000
EVERYTHING: Final = "With nothing ticked, everything stops and the person is suppressed."


class StopForm(msgspec.Struct, frozen=True, kw_only=True):
    """A person who revoked consent, by lead id, phone number or e-mail address."""

    who: Annotated[Mark, label("Lead id, phone number or e-mail address", "Not stored and not logged.")]
    country: Annotated[Country, label("Country, for a number without +")] = "US"
    call: Annotated[bool, label("Stop calls")] = False
    text: Annotated[bool, label("Stop text messages")] = False
    email: Annotated[bool, label("Stop e-mail")] = False
    post: Annotated[
        bool, label("Stop letters", "With nothing ticked, everything stops and the person is suppressed.")
    ] = False
    reason: Annotated[Reason, label("Reason", "For example: said stop on the telephone.")]


def _state(notice: NoticeRow) -> Markup:
    return badge(NOTICE_STATES[notice.state], NOTICE_TONES[notice.state])


NOTICES: Final = Listing[NoticeRow](
    caption="Notices",
    name="notices",
    columns=(
        Column("Made", lambda notice: notice.made_at, file="made_at"),
        Column(
            "Lead",
            lambda notice: Link(
                f"/operator/routing/{ids.encode('lead', notice.lead_id)}", short(ids.encode("lead", notice.lead_id))
            ),
            file="lead_id",
            value=lambda notice: ids.encode("lead", notice.lead_id),
        ),
        Column(
            "Business",
            lambda notice: business_link(notice.business_id, notice.business_name),
            file="business_id",
            value=lambda notice: ids.encode("biz", notice.business_id),
        ),
        Column("Asked to", lambda notice: NOTICE_KINDS[notice.kind], file="kind", value=lambda notice: notice.kind),
        Column("Channels", channels_of, file="channels"),
        Column("State", _state, file="state", value=lambda notice: notice.state),
        Column("Attempts", lambda notice: notice.attempts, file="attempts", style="num"),
        Column(
            "Last result",
            lambda notice: words(notice.result or ""),
            file="last_result",
            value=lambda notice: notice.result or "",
        ),
        Column("Acknowledge by", lambda notice: notice.deadline_at, file="deadline_at", time="day"),
        only_in_file("acknowledged_at", lambda notice: notice.acknowledged_at),
    ),
)


@get(HOME)
async def show_notices(request: AnyRequest) -> Response[bytes]:
    """Show the notices to businesses, newest first, on a page or as a file."""
    viewer = await visitor(request, CallerKind.operator)
    if wants_csv(request):
        async with session(services(request).pool) as connection:
            rows = await notices_store.list_notices(connection, state=read_state(request), limit=MOST_IN_FILE)
        return await NOTICES.download(rows)
    return await _notices_page(request, viewer)


async def _notices_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    limit = list_limit(request)
    async with session(services(request).pool) as connection:
        rows = await notices_store.list_notices(
            connection, state=read_state(request), before=page_cursor(request, "ntc"), limit=limit + 1
        )
    return page(
        request,
        viewer,
        "operator/notices.html",
        tabs=TABS,
        form=show_form(StopForm, {"country": "US"}),
        listing=NOTICES,
        rows=rows[:limit],
        states=list(NOTICE_STATES.items()),
        next_cursor=next_page("ntc", [row.id for row in rows], limit),
    )


@post(HOME)
async def record_stop(request: AnyRequest) -> Response[bytes]:
    """Record that a person revoked consent."""
    viewer, fields = await changing(request, CallerKind.operator)
    resources, caller = services(request), caller_of(viewer)
    try:
        form = fill(StopForm, fields)
        who = form.who.strip()
        channels = tuple(channel for channel in Channel if getattr(form, channel))
        if who.startswith("lead_"):
            await revocations_flow.revoke_lead(resources.pool, caller, path_id("lead", who), channels, form.reason)
        else:
            marks = await asyncio.to_thread(read_people, who, form.country, "who")
            await revocations_flow.revoke_person(resources.pool, resources.sealer, caller, marks, channels, form.reason)
    except (errors.InvalidInput, errors.NotFound) as error:
        return await show_again(request, fields, error, _notices_page(request, viewer))
    return redirect(request, HOME, "The stop is recorded. Businesses that hold a lead of this person are notified.")


handlers: tuple[Any, ...] = (show_notices, record_stop)
