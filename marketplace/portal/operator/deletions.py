"""Queue of requests to be deleted: taken, carried out or refused, each with its deadline and its proof."""

import asyncio
from datetime import date, datetime, time
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import session
from marketplace.deletions import flow as deletions_flow
from marketplace.deletions import store as deletions_store
from marketplace.deletions.flow import DEADLINE_DAYS, MOST_DAYS
from marketplace.deletions.http import STATES
from marketplace.deletions.store import DeletionLead, DeletionRefusal, DeletionRow, DeletionState
from marketplace.directory.suppressions import Person, person_faults
from marketplace.portal.forms import ReasonForm, changing, fill, label, show_again, show_form, submitted
from marketplace.portal.frame import badge, page, redirect, short, zone_of
from marketplace.portal.listing import Column, Link, Listing, only_in_file
from marketplace.portal.notice_words import NOTICE_STATES, NOTICE_TONES
from marketplace.portal.operator.compliance import TABS, Country, Mark, caller_of
from marketplace.portal.operator.links import business_link, lead_link
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.receipts.flow import Signer
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv

HOME: Final = "/operator/compliance/deletions"
MOST_IN_FILE: Final = 10_000
STATE_WORDS: Final = {
    "open": "Open",
    "erased": "Waits for a business",
    "done": "Done",
    "refused": "Refused",
    "late": "Overdue",
}
STATE_TONES: Final = {
    DeletionState.open: "warn",
    DeletionState.erased: "busy",
    DeletionState.done: "good",
    DeletionState.refused: "muted",
}
REFUSALS: Final = {
    DeletionRefusal.not_found: "Nothing is held about this person",
    DeletionRefusal.identity_not_proved: "The person did not prove who they are",
    DeletionRefusal.legal_duty_to_keep: "A law obliges us to keep the data",
}


class DeletionForm(msgspec.Struct, frozen=True, kw_only=True):
    """A request to be deleted, by lead id, phone number or e-mail address."""

    who: Annotated[
        Mark, label("Lead id, phone number or e-mail address", "Stored sealed until the request ends; not logged.")
    ]
    country: Annotated[Country, label("Country, for a number without +")] = "US"
    received_on: Annotated[date, label("Received on")]
    deadline_days: Annotated[
        int,
        Meta(ge=1, le=MOST_DAYS),
        label("Days to answer", "By the law of the person's place: 45 in California, 30 in the European Union."),
    ] = DEADLINE_DAYS
    also_suppress: Annotated[bool, label("Also suppress the person, so that new inquiries are turned away")] = False


class RefusalForm(msgspec.Struct, frozen=True, kw_only=True):
    """Refusal of a request."""

    refusal: Annotated[DeletionRefusal, label("Reason")]


def _state_cell(request: DeletionRow) -> tuple[Markup | str, ...]:
    """Return the state, and whether the deadline has passed."""
    return (
        badge(STATE_WORDS[request.state], STATE_TONES[request.state]),
        badge("Overdue", "bad") if request.is_late(clock.now()) else "",
        badge("test", "warn") if request.mode == "test" else "",
    )


def _notices_cell(request: DeletionRow) -> str:
    """Return how many businesses were told, and how many answered."""
    if not request.notices:
        return "No business to tell"
    overdue = f", {request.overdue} not in time" if request.overdue else ""
    return f"{request.acknowledged} of {request.notices} acknowledged{overdue}"


REQUESTS: Final = Listing[DeletionRow](
    caption="Deletion requests",
    name="deletion-requests",
    columns=(
        Column(
            "Request",
            lambda row: Link(f"{HOME}/{ids.encode('del', row.id)}", short(ids.encode("del", row.id))),
            file="id",
            value=lambda row: ids.encode("del", row.id),
        ),
        Column("Received", lambda row: row.received_at, file="received_at", time="day"),
        Column("Deadline", lambda row: row.deadline_at, file="deadline_at", time="day"),
        Column("State", _state_cell, file="state", value=lambda row: row.state),
        Column("Leads", lambda row: row.leads, file="leads", style="num"),
        Column("Businesses", _notices_cell, file="notices", value=lambda row: row.notices),
        Column("Ended", lambda row: row.ended_at, file="ended_at"),
        only_in_file("late", lambda row: row.is_late(clock.now())),
        only_in_file("acknowledged", lambda row: row.acknowledged),
        only_in_file("overdue", lambda row: row.overdue),
        only_in_file("refusal", lambda row: row.refusal),
        only_in_file("mode", lambda row: row.mode),
    ),
)


def _notice_cell(lead: DeletionLead) -> Markup | str:
    if lead.notice_state is None:
        return ""
    return badge(NOTICE_STATES[lead.notice_state], NOTICE_TONES[lead.notice_state])


LEADS: Final = Listing[DeletionLead](
    caption="Leads of the person",
    columns=(
        Column("Lead", lambda lead: lead_link(lead.lead_id)),
        Column("Erased", lambda lead: lead.erased_at),
        Column(
            "Shown to",
            lambda lead: (
                business_link(lead.business_id, lead.business_name) if lead.business_id is not None else "No business"
            ),
        ),
        Column("Notice", _notice_cell),
        Column("Acknowledged", lambda lead: lead.acknowledged_at),
        Column("Acknowledge by", lambda lead: lead.deadline_at, time="day"),
    ),
)


@get(HOME)
async def show_queue(request: AnyRequest) -> Response[bytes]:
    """Show the requests on a page or as a file: those that wait first, by their deadline."""
    viewer = await visitor(request, CallerKind.operator)
    if wants_csv(request):
        return await REQUESTS.download(await _load_rows(request, MOST_IN_FILE))
    return await _queue_page(request, viewer)


async def _load_rows(request: AnyRequest, limit: int) -> tuple[DeletionRow, ...]:
    state = request.query_params.get("state")
    async with session(services(request).pool) as connection:
        return await deletions_store.list_requests(
            connection,
            page_cursor(request, "del"),
            state if state in STATES else None,
            clock.now(),
            None,
            limit,
        )


async def _queue_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    limit = list_limit(request)
    rows = await _load_rows(request, limit + 1)
    today = clock.now().astimezone(zone_of(viewer.zone)).date()
    values = {
        "country": "US",
        "received_on": today.isoformat(),
        "deadline_days": DEADLINE_DAYS,
        "also_suppress": True,
    }
    return page(
        request,
        viewer,
        "operator/deletions.html",
        tabs=TABS,
        form=show_form(DeletionForm, values),
        listing=REQUESTS,
        rows=rows[:limit],
        states=list(STATE_WORDS.items()),
        next_cursor=next_page("del", [row.id for row in rows], limit),
    )


@post(HOME)
async def take_request(request: AnyRequest) -> Response[bytes]:
    """Record a request; nothing is erased yet."""
    viewer, fields = await changing(request, CallerKind.operator)
    resources = services(request)
    try:
        form = fill(DeletionForm, fields)
        who = form.who.strip()
        person = path_id("lead", who) if who.startswith("lead_") else await asyncio.to_thread(_read_person, who, form)
        request_id = await deletions_flow.take_request(
            resources.pool,
            resources.sealer,
            caller_of(viewer),
            person,
            received_at=_received_at(form.received_on, viewer),
            deadline_days=form.deadline_days,
            also_suppress=form.also_suppress,
        )
    except (errors.InvalidInput, errors.NotFound) as error:
        return await show_again(request, fields, _at_fields(error), _queue_page(request, viewer))
    return redirect(
        request, f"{HOME}/{ids.encode('del', request_id)}", "The request is recorded. Nothing is erased yet."
    )


def _read_person(who: str, form: DeletionForm) -> Person:
    """Return the person of a phone number or an e-mail address. Raises InvalidInput at the field `who`."""
    person = Person(email=who) if "@" in who else Person(phone=who, country=form.country)
    if faults := person_faults(person):
        raise errors.InvalidInput(msgspec.structs.replace(fault, pointer="/who") for fault in faults)
    return person


def _received_at(day: date, viewer: Viewer) -> datetime:
    """Return the beginning of the day in the viewer's zone."""
    return datetime.combine(day, time(), zone_of(viewer.zone))


def _at_fields(error: errors.InvalidInput | errors.NotFound) -> errors.InvalidInput | errors.NotFound:
    """Return the error with the name that the form has for the time of receipt."""
    if isinstance(error, errors.NotFound):
        return error
    names = {"/received_at": "/received_on"}
    return errors.InvalidInput(
        tuple(
            Fault(pointer=names.get(fault.pointer, fault.pointer), code=fault.code, detail=fault.detail)
            for fault in error.faults
        )
    )


@get(f"{HOME}/{{request_id:str}}")
async def show_request(request: AnyRequest, request_id: FromPath[str]) -> Response[bytes]:
    """Show one request with its leads and the businesses that were told."""
    return await _request_page(request, await visitor(request, CallerKind.operator), request_id)


async def _request_page(
    request: AnyRequest, viewer: Viewer, request_id: str, contact: Person | None = None
) -> Response[bytes]:
    detail = await deletions_flow.load_detail(services(request).pool, caller_of(viewer), path_id("del", request_id))
    deletion = detail.request
    return page(
        request,
        viewer,
        "operator/deletion.html",
        home=f"{HOME}/{request_id}",
        deletion=deletion,
        late=deletion.is_late(clock.now()),
        state=STATE_WORDS[deletion.state],
        tone=STATE_TONES[deletion.state],
        refusal=None if deletion.refusal is None else REFUSALS[deletion.refusal],
        notices=_notices_cell(deletion),
        leads=detail.leads,
        listing=LEADS,
        contact=contact,
        form=show_form(RefusalForm, options={"refusal": list(REFUSALS.items())}),
    )


@post(f"{HOME}/{{request_id:str}}/carry-out")
async def carry_out(request: AnyRequest, request_id: FromPath[str]) -> Response[bytes]:
    """Erase every lead of the person."""
    viewer, _ = await changing(request, CallerKind.operator)
    resources = services(request)
    deletion = await deletions_flow.carry_out(
        resources.pool, resources.sealer, caller_of(viewer), path_id("del", request_id)
    )
    text = "The request is done."
    if deletion.state is DeletionState.erased:
        text = (
            "All leads are erased. The request is done when the businesses have acknowledged it, or their time is over."
        )
    return redirect(request, f"{HOME}/{request_id}", text)


@post(f"{HOME}/{{request_id:str}}/refuse")
async def refuse(request: AnyRequest, request_id: FromPath[str]) -> Response[bytes]:
    """Refuse the request for a reason of the list."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form = fill(RefusalForm, fields)
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _request_page(request, viewer, request_id))
    await deletions_flow.refuse(services(request).pool, caller_of(viewer), path_id("del", request_id), form.refusal)
    return redirect(request, f"{HOME}/{request_id}", "The request is refused.")


@post(f"{HOME}/{{request_id:str}}/reveal", status_code=200)
async def reveal(request: AnyRequest, request_id: FromPath[str]) -> Response[bytes]:
    """Show the contact on this page only, and record the viewer and the reason."""
    viewer, form = await submitted(request, ReasonForm, CallerKind.operator)
    resources = services(request)
    contact = await deletions_flow.reveal_contact(
        resources.pool, resources.sealer, caller_of(viewer), path_id("del", request_id), form.reason.strip()
    )
    return await _request_page(request, viewer, request_id, contact)


@get(f"{HOME}/{{request_id:str}}/proof")
async def download_proof(request: AnyRequest, request_id: FromPath[str]) -> Response[bytes]:
    """Send the signed proof of a request that is done as a file."""
    viewer = await visitor(request, CallerKind.operator)
    resources = services(request)
    proof = await deletions_flow.issue_proof(
        resources.pool, Signer(resources.settings.master_key), caller_of(viewer), path_id("del", request_id)
    )
    headers = {"content-disposition": f'attachment; filename="proof-{request_id}.json"', "cache-control": "no-store"}
    return Response(proof, media_type="application/json", headers=headers)


handlers: tuple[Any, ...] = (show_queue, take_request, show_request, carry_out, refuse, reveal, download_proof)
