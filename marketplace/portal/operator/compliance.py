"""People's own wishes: not to be contacted, to be erased; and who was shown what by hand.

What is typed here to find or to name a person goes through the body of a form, never into an address, and is kept as
keyed hashes alone.
"""

import asyncio
from datetime import timedelta
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory.suppressions import Person, marks_of
from marketplace.erasure import flow as erasure_flow
from marketplace.erasure import store as erasure_store
from marketplace.erasure.store import Erasure, NoticeState
from marketplace.portal.forms import changing, fill, show_again
from marketplace.portal.frame import badge, page, redirect, short, words
from marketplace.portal.listing import Column, Link, Listing
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import SuppressedKey
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.runtime import clock, errors, ids
from marketplace.security import access
from marketplace.security.auth import CallerKind, Principal
from marketplace.text.faults import WORDS, Fault, FaultCode
from marketplace.text.values import read_instant
from marketplace.web.http import AnyRequest, page_cursor, page_limit, path_id, services, wants_csv

HOME: Final = "/operator/compliance"
TABS: Final = (
    (HOME, "Suppression"),
    (f"{HOME}/erasures", "Erasure"),
    (f"{HOME}/reveals", "Reveal log"),
)
MOST_PEOPLE: Final = 500
"In one form: half a thousand lines that somebody pasted."
CSV_LINES: Final = 10_000

Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=WORDS)]


class SuppressForm(msgspec.Struct, frozen=True, kw_only=True):
    """People, one phone number or e-mail address in a line; a national number is read as one of `country`."""

    people: Annotated[str, Meta(min_length=1, max_length=40_000)]
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$")] = "US"
    reason: Reason


class LiftForm(msgspec.Struct, frozen=True, kw_only=True):
    """One person, or a provider whose suppressions of the last hours are lifted."""

    lifted: Annotated[str, Meta(min_length=1, max_length=254, pattern=WORDS)]
    hours: Annotated[int, Meta(ge=1, le=24 * 365)] = 24
    lift_reason: Reason


class EraseForm(msgspec.Struct, frozen=True, kw_only=True):
    """One lead by its id, or a person by phone number or e-mail address."""

    who: Annotated[str, Meta(min_length=1, max_length=254, pattern=WORDS)]
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$")] = "US"
    reason: Reason
    also_suppress: bool = False


def caller_of(viewer: Viewer) -> Principal:
    """The member as the flows know callers."""
    return Principal(key_id=viewer.actor, kind=CallerKind.operator, owner_id=None, mode=viewer.mode)


# Suppression.


@get(HOME)
async def show_suppressions(request: AnyRequest) -> Response[bytes]:
    """Shows what was suppressed, newest first, and the form for more."""
    return await _suppressions_page(request, await visitor(request, CallerKind.operator))


async def _suppressions_page(
    request: AnyRequest,
    viewer: Viewer,
    *,
    asked: tuple[SuppressedKey, ...] | None = None,
) -> Response[bytes]:
    limit = page_limit(request)
    async with session(services(request).pool) as connection:
        found = await back_office_store.list_suppressions(
            connection, read_instant(request.query_params.get("cursor")), limit + 1
        )
        known = await back_office_store.count_suppressions(connection)
    return page(
        request,
        viewer,
        "operator/suppression.html",
        tabs=TABS,
        rows=found[:limit],
        next_cursor=found[limit - 1].created_at.isoformat() if len(found) > limit else None,
        known=known,
        asked=asked,
    )


@post(HOME)
async def suppress(request: AnyRequest) -> Response[bytes]:
    """Suppresses everybody named, or nobody: a line that cannot be read is told and nothing is half done."""
    viewer, given = await changing(request, CallerKind.operator)
    found = services(request)
    try:
        form = fill(SuppressForm, given)
        marks = await asyncio.to_thread(read_people, form.people, form.country)
        await directory_flow.suppress(found.pool, found.sealer, caller_of(viewer), marks, form.reason.strip())
    except errors.InvalidInput as error:
        return await show_again(request, given, error, _suppressions_page(request, viewer))
    count = len(lines_of(form.people))
    people = "1 phone number or address is" if count == 1 else f"{count} phone numbers or addresses are"
    return redirect(request, HOME, f"{people} suppressed: what comes in for them is turned away.")


@post(f"{HOME}/look")
async def look_up(request: AnyRequest) -> Response[bytes]:
    """Says whether a person is suppressed, and since when; keeps nothing of what was typed."""
    viewer, given = await changing(request, CallerKind.operator, role=Role.viewer)
    found = services(request)
    try:
        text = (given.get("person") or ("",))[0]
        marks = await asyncio.to_thread(read_people, text, "US", "person")
    except errors.InvalidInput as error:
        return await show_again(request, {}, error, _suppressions_page(request, viewer))
    async with session(found.pool) as connection:
        keys = [found.sealer.keyed_hash("suppression", mark) for mark in marks]
        asked = await back_office_store.find_suppressed(connection, keys)
    return await _suppressions_page(request, viewer, asked=asked)


@post(f"{HOME}/lift")
async def lift(request: AnyRequest) -> Response[bytes]:
    """Lifts the suppression of one person, or of all that a provider suppressed lately."""
    viewer, given = await changing(request, CallerKind.operator)
    found = services(request)
    try:
        form = fill(LiftForm, given)
        text, reason = form.lifted.strip(), form.lift_reason.strip()
        if text.startswith("prov_"):
            since = clock.now() - timedelta(hours=form.hours)
            count = await directory_flow.lift_suppressions(
                found.pool, found.sealer, viewer.actor, reason, provider_id=path_id("prov", text), since=since
            )
        else:
            marks = await asyncio.to_thread(read_people, text, "US", "lifted")
            count = await directory_flow.lift_suppressions(found.pool, found.sealer, viewer.actor, reason, marks=marks)
    except errors.InvalidInput as error:
        return await show_again(request, given, error, _suppressions_page(request, viewer))
    return redirect(request, HOME, f"Lifted: {count:,} phone numbers or addresses may be sold again.")


def read_people(text: str, country: str, field: str = "people") -> tuple[str, ...]:
    """Return what the people in the lines are known by. Raises InvalidInput that names every line which is neither.

    Five hundred hostile lines take half a second: callers use a thread.
    """
    lines = lines_of(text)
    if not 1 <= len(lines) <= MOST_PEOPLE:
        detail = f"Give 1 to {MOST_PEOPLE} lines, one phone number or e-mail address in each."
        raise errors.InvalidInput((Fault(pointer=f"/{field}", code=FaultCode.out_of_range, detail=detail),))
    marks: list[str] = []
    wrong: list[str] = []
    for number, line in enumerate(lines, 1):
        person = Person(email=line, country=country) if "@" in line else Person(phone=line, country=country)
        try:
            marks.extend(marks_of(person))
        except errors.InvalidInput:
            wrong.append(str(number))
    if wrong:
        detail = f"Neither a phone number nor an e-mail address in line {', '.join(wrong[:20])}. Nothing was changed."
        raise errors.InvalidInput((Fault(pointer=f"/{field}", code=FaultCode.value_not_allowed, detail=detail),))
    return tuple(dict.fromkeys(marks))


def lines_of(text: str) -> list[str]:
    """Return the lines that are not empty, each once."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


# Erasure.

NOTICE_TONES: Final = {NoticeState.acknowledged: "good", NoticeState.overdue: "bad", NoticeState.due: "busy"}


def _notice_cell(row: Erasure) -> tuple[object, ...]:
    """Return the state of the notice, the business that it went to, and the tries so far."""
    state = badge(row.notice_state, NOTICE_TONES.get(row.notice_state, "muted"))
    if row.business_id is None:
        return (state,)
    business = ids.encode("biz", row.business_id)
    last = f", last: {words(row.notice_result)}" if row.notice_result else ""
    tries = Markup('<span class="note">{} tries{}</span>').format(row.attempts, last) if row.attempts else ""
    return state, Link(f"/operator/businesses/{business}", short(business)), tries


ERASURES: Final = Listing[Erasure](
    caption="Erased",
    name="erasures",
    columns=(
        Column(
            "Requested",
            lambda row: row.requested_at,
            file="requested_at",
            value=lambda row: row.requested_at.isoformat(),
        ),
        Column(
            "Lead",
            lambda row: Link(
                f"/operator/routing/{ids.encode('lead', row.lead_id)}", short(ids.encode("lead", row.lead_id))
            ),
            file="lead_id",
            value=lambda row: ids.encode("lead", row.lead_id),
        ),
        Column("Reason", lambda row: row.reason, file="reason"),
        Column(
            "Suppressed",
            lambda row: "Yes" if row.suppressed else "No",
            file="suppressed",
            value=lambda row: row.suppressed,
        ),
        Column("Business told", _notice_cell, file="notice", value=lambda row: row.notice_state),
        Column(
            "Until",
            lambda row: row.deadline_at if row.notice_state in (NoticeState.due, NoticeState.overdue) else None,
            file="deadline_at",
            value=lambda row: row.deadline_at.isoformat() if row.deadline_at else "",
            time="day",
        ),
    ),
    order=("lead_id", "requested_at", "reason", "suppressed", "notice", "deadline_at"),
)


@get(f"{HOME}/erasures")
async def show_erasures(request: AnyRequest) -> Response[bytes]:
    """Shows erasures with the state of their notices, newest first."""
    viewer = await visitor(request, CallerKind.operator)
    if wants_csv(request):
        async with session(services(request).pool) as connection:
            rows = await erasure_store.list_erasures(connection, None, _notice(request), CSV_LINES)
        return await ERASURES.download(rows)
    return await _erasures_page(request, viewer)


async def _erasures_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    limit = page_limit(request)
    async with session(services(request).pool) as connection:
        found = await erasure_store.list_erasures(connection, page_cursor(request, "lead"), _notice(request), limit + 1)
    return page(
        request,
        viewer,
        "operator/erasure.html",
        tabs=TABS,
        listing=ERASURES,
        rows=found[:limit],
        next_cursor=ids.encode("lead", found[limit - 1].lead_id) if len(found) > limit else None,
        states=tuple(NoticeState),
    )


def _notice(request: AnyRequest) -> NoticeState | None:
    text = request.query_params.get("notice")
    return NoticeState(text) if text in tuple(NoticeState) else None


@post(f"{HOME}/erasures")
async def erase(request: AnyRequest) -> Response[bytes]:
    """Erases a lead or a person: what is open stops, contact data is destroyed, the business that saw it is told."""
    viewer, given = await changing(request, CallerKind.operator)
    try:
        form = fill(EraseForm, given)
        count, more = await _erase(request, viewer, form)
    except (errors.InvalidInput, errors.NotFound) as error:
        return await show_again(request, given, error, _erasures_page(request, viewer))
    leads = "1 lead was" if count == 1 else f"{count} leads were"
    rest = " There are more: send the same again." if more else ""
    return redirect(request, f"{HOME}/erasures", f"{leads} erased.{rest}")


async def _erase(request: AnyRequest, viewer: Viewer, form: EraseForm) -> tuple[int, bool]:
    """How many leads, and whether there are more. Raises InvalidInput, NotFound."""
    found, who, caller = services(request), form.who.strip(), caller_of(viewer)
    if who.startswith("lead_"):
        done = await erasure_flow.erase_lead(
            found.pool, caller, path_id("lead", who), form.reason, also_suppress=form.also_suppress
        )
    else:
        marks = await asyncio.to_thread(read_people, who, form.country, "who")
        done = await erasure_flow.erase_person(
            found.pool, found.sealer, caller, marks, form.reason, also_suppress=form.also_suppress
        )
    return len(done.erasures), done.has_more


# Reveals.


@get(f"{HOME}/reveals")
async def show_reveals(request: AnyRequest) -> Response[bytes]:
    """Shows each time that contact data was shown to an operator, by whichever way, with the reason given."""
    viewer = await visitor(request, CallerKind.operator)
    limit = page_limit(request)
    async with session(services(request).reports) as connection:
        found = await back_office_store.list_audit(
            connection, page_cursor(request, "aud"), limit + 1, action=access.REVEALED
        )
    async with session(services(request).pool) as connection:
        names = await back_office_store.list_actor_names(connection, {one.actor for one in found})
    return page(
        request,
        viewer,
        "operator/reveals.html",
        tabs=TABS,
        rows=found[:limit],
        names=names,
        next_cursor=ids.encode("aud", found[limit - 1].id) if len(found) > limit else None,
    )


handlers: tuple[Any, ...] = (show_suppressions, suppress, look_up, lift, show_erasures, erase, show_reveals)
