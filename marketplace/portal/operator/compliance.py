"""Suppression and erasure of people, and the log of contact data that was shown to operators.

A phone number or e-mail address is sent in the body of a form, never in an address, and is stored as a keyed hash only.
"""

import asyncio
from collections.abc import Mapping
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
from marketplace.erasure.store import Erasure
from marketplace.intake.contact import marks_with_hashes
from marketplace.notices.store import NoticeState
from marketplace.portal.audit_words import describe_action
from marketplace.portal.forms import Reason, changing, fill, label, show_again, show_form
from marketplace.portal.frame import badge, page, redirect, short, words
from marketplace.portal.listing import Column, Listing
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import AuditEntry, SuppressedKey, Suppression
from marketplace.portal.operator.links import business_link, lead_link
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.runtime import clock, errors, ids
from marketplace.security import access
from marketplace.security.auth import CallerKind, Principal
from marketplace.suppression_lists import store as lists_store
from marketplace.text.faults import WORDS, Fault, FaultCode
from marketplace.text.values import read_instant
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv

HOME: Final = "/operator/compliance"
TABS: Final = (
    (HOME, "Suppression"),
    (f"{HOME}/lists", "Lists"),
    (f"{HOME}/list-sources", "List sources"),
    (f"{HOME}/deletions", "Deletion requests"),
    (f"{HOME}/erasures", "Erasure"),
    (f"{HOME}/certificates", "Certificates"),
    (f"{HOME}/notices", "Notices"),
    (f"{HOME}/reveals", "Reveal log"),
)
MOST_PEOPLE: Final = 500
"Phone numbers and addresses in one form."
CSV_LINES: Final = 10_000

Country = Annotated[str, Meta(pattern=r"^[A-Z]{2}$", extra={"maxlength": 2})]
Mark = Annotated[str, Meta(min_length=1, max_length=254, pattern=WORDS, extra={"autocomplete": "off"})]


class SuppressForm(msgspec.Struct, frozen=True, kw_only=True):
    """People to suppress: one phone number or e-mail address per line. A number without + is one of `country`."""

    people: Annotated[
        str,
        Meta(min_length=1, max_length=40_000),
        label(
            "Phone numbers and e-mail addresses",
            "One per line, up to 500. If a line cannot be read, nobody is suppressed and the line is named.",
            kind="textarea",
            rows=5,
        ),
    ]
    country: Annotated[Country, label("Country, for numbers without +")] = "US"
    reason: Annotated[Reason, label("Reason", "For example: asked by telephone, or import of the national list.")]


class LookUpForm(msgspec.Struct, frozen=True, kw_only=True):
    """A person whose suppression is looked up."""

    person: Annotated[Mark, label("Phone number or e-mail address", "Not stored and not logged.")]


class LiftForm(msgspec.Struct, frozen=True, kw_only=True):
    """A suppression to lift: one person's, or all that a provider made in the last `hours` hours."""

    lifted: Annotated[
        Mark,
        label(
            "Phone number, e-mail address, or provider id",
            "With the id of a provider, prov_…, its suppressions of the last hours are lifted.",
        ),
    ]
    hours: Annotated[int, Meta(ge=1, le=24 * 365), label("Last hours, for a provider", required=False)] = 24
    lift_reason: Annotated[Reason, label("Reason", "Kept in the audit trail.")]


class EraseForm(msgspec.Struct, frozen=True, kw_only=True):
    """A lead to erase by its id, or a person by phone number or e-mail address."""

    who: Annotated[Mark, label("Lead id, phone number or e-mail address")]
    country: Annotated[Country, label("Country, for a number without +")] = "US"
    reason: Annotated[Reason, label("Reason")]
    also_suppress: Annotated[bool, label("Also suppress the person, so that new inquiries are turned away")] = False


def caller_of(viewer: Viewer) -> Principal:
    """Return the viewer as a caller of the flows."""
    return Principal(key_id=viewer.actor, kind=CallerKind.operator, owner_id=None, mode=viewer.mode)


# Suppression.

SUPPRESSIONS: Final = Listing[Suppression](
    caption="Suppressed",
    columns=(
        Column("When", lambda row: row.created_at),
        Column("Reason", lambda row: row.reason),
        Column("Requested by", lambda row: short(row.source) if "_" in row.source else words(row.source)),
        Column("Hashes", lambda row: row.keys, style="num"),
    ),
)


@get(HOME)
async def show_suppressions(request: AnyRequest) -> Response[bytes]:
    """Show the suppressions, newest first, and the forms to add, find and lift one."""
    return await _suppressions_page(request, await visitor(request, CallerKind.operator))


async def _suppressions_page(
    request: AnyRequest,
    viewer: Viewer,
    *,
    matches: tuple[SuppressedKey, ...] | None = None,
    list_names: tuple[str, ...] = (),
) -> Response[bytes]:
    limit = list_limit(request)
    async with session(services(request).pool) as connection:
        rows = await back_office_store.list_suppressions(
            connection, read_instant(request.query_params.get("cursor")), limit + 1
        )
        total = await back_office_store.count_suppressions(connection)
    next_cursor = rows[limit - 1].created_at.isoformat() if len(rows) > limit else None
    return page(
        request,
        viewer,
        "operator/suppression.html",
        tabs=TABS,
        look_up_form=show_form(LookUpForm),
        suppress_form=show_form(SuppressForm, {"country": "US"}),
        lift_form=show_form(LiftForm, {"hours": 24}),
        listing=SUPPRESSIONS,
        rows=rows[:limit],
        next_cursor=next_cursor,
        total=total,
        matches=matches,
        list_names=list_names,
    )


@post(HOME)
async def suppress(request: AnyRequest) -> Response[bytes]:
    """Suppress everybody in the form. With a line that cannot be read, nobody is suppressed and the line is named."""
    viewer, fields = await changing(request, CallerKind.operator)
    resources = services(request)
    try:
        form = fill(SuppressForm, fields)
        marks = await asyncio.to_thread(read_people, form.people, form.country)
        await directory_flow.suppress(resources.pool, resources.sealer, caller_of(viewer), marks, form.reason.strip())
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _suppressions_page(request, viewer))
    count = len(lines_of(form.people))
    people = "1 phone number or address is" if count == 1 else f"{count} phone numbers or addresses are"
    return redirect(request, HOME, f"{people} suppressed. New inquiries for them are turned away.")


@post(f"{HOME}/look")
async def look_up(request: AnyRequest) -> Response[bytes]:
    """Show whether a person is suppressed or on a list, and since when. Stores nothing of what was entered."""
    viewer, fields = await changing(request, CallerKind.operator, role=Role.viewer)
    resources = services(request)
    try:
        marks = await asyncio.to_thread(read_people, fill(LookUpForm, fields).person, "US", "person")
    except errors.InvalidInput as error:
        return await show_again(request, {}, error, _suppressions_page(request, viewer))
    async with session(resources.pool) as connection:
        keys = [resources.sealer.keyed_hash("suppression", mark) for mark in marks_with_hashes(marks)]
        matches = await back_office_store.find_suppressed(connection, keys)
        list_names = await lists_store.find_names_with(connection, keys)
    return await _suppressions_page(request, viewer, matches=matches, list_names=list_names)


@post(f"{HOME}/lift")
async def lift(request: AnyRequest) -> Response[bytes]:
    """Lift the suppression of one person, or all recent suppressions of one provider."""
    viewer, fields = await changing(request, CallerKind.operator)
    resources = services(request)
    try:
        form = fill(LiftForm, fields)
        text, reason = form.lifted.strip(), form.lift_reason.strip()
        if text.startswith("prov_"):
            since = clock.now() - timedelta(hours=form.hours)
            count = await directory_flow.lift_suppressions(
                resources.pool, resources.sealer, viewer.actor, reason, provider_id=path_id("prov", text), since=since
            )
        else:
            marks = await asyncio.to_thread(read_people, text, "US", "lifted")
            count = await directory_flow.lift_suppressions(
                resources.pool, resources.sealer, viewer.actor, reason, marks=marks
            )
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _suppressions_page(request, viewer))
    return redirect(
        request,
        HOME,
        f"Suppression lifted for {count:,} phone numbers or addresses. New inquiries for them are accepted again.",
    )


def read_people(text: str, country: str, field: str = "people") -> tuple[str, ...]:
    """Return the normalised phone numbers and addresses in the lines. Raises InvalidInput that names the faulty lines.

    Call it in a thread: 500 lines can take half a second.
    """
    lines = lines_of(text)
    if not 1 <= len(lines) <= MOST_PEOPLE:
        detail = f"Enter 1 to {MOST_PEOPLE} lines, with one phone number or e-mail address in each."
        raise errors.InvalidInput((Fault(pointer=f"/{field}", code=FaultCode.out_of_range, detail=detail),))
    marks: list[str] = []
    faulty: list[str] = []
    for number, line in enumerate(lines, 1):
        person = Person(email=line, country=country) if "@" in line else Person(phone=line, country=country)
        try:
            marks.extend(marks_of(person))
        except errors.InvalidInput:
            faulty.append(str(number))
    if faulty:
        numbers = ", ".join(faulty[:20])
        detail = f"There is no phone number or e-mail address in line {numbers}. Nothing was changed."
        raise errors.InvalidInput((Fault(pointer=f"/{field}", code=FaultCode.value_not_allowed, detail=detail),))
    return tuple(dict.fromkeys(marks))


def lines_of(text: str) -> list[str]:
    """Return the lines that are not empty, each once."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


# Erasure.

NOTICE_TONES: Final = {NoticeState.acknowledged: "good", NoticeState.overdue: "bad", NoticeState.due: "busy"}


def _notice_cell(row: Erasure) -> tuple[object, ...]:
    """Return the state of the notice, its business, and the attempts so far."""
    state = badge(row.notice_state, NOTICE_TONES.get(row.notice_state, "muted"))
    if row.business_id is None:
        return (state,)
    business = short(ids.encode("biz", row.business_id))
    last = f", last: {words(row.notice_result)}" if row.notice_result else ""
    note = Markup('<span class="note">{} attempts{}</span>').format(row.attempts, last)
    return state, business_link(row.business_id, business), note if row.attempts else ""


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
            lambda row: lead_link(row.lead_id),
            file="lead_id",
            value=lambda row: ids.encode("lead", row.lead_id),
        ),
        Column("Reason", lambda row: row.reason, file="reason"),
        Column(
            "Also suppressed",
            lambda row: "Yes" if row.suppressed else "No",
            file="suppressed",
            value=lambda row: row.suppressed,
        ),
        Column("Business notified", _notice_cell, file="notice", value=lambda row: row.notice_state),
        Column(
            "Deadline",
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
    """Show the erasures with the state of their notices, newest first."""
    viewer = await visitor(request, CallerKind.operator)
    if wants_csv(request):
        async with session(services(request).pool) as connection:
            rows = await erasure_store.list_erasures(connection, None, _read_notice(request), CSV_LINES)
        return await ERASURES.download(rows)
    return await _erasures_page(request, viewer)


async def _erasures_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    limit = list_limit(request)
    async with session(services(request).pool) as connection:
        rows = await erasure_store.list_erasures(
            connection, page_cursor(request, "lead"), _read_notice(request), limit + 1
        )
    return page(
        request,
        viewer,
        "operator/erasure.html",
        tabs=TABS,
        form=show_form(EraseForm, {"country": "US", "also_suppress": True}),
        listing=ERASURES,
        rows=rows[:limit],
        next_cursor=next_page("lead", [row.lead_id for row in rows], limit),
        states=tuple(NoticeState),
    )


def _read_notice(request: AnyRequest) -> NoticeState | None:
    text = request.query_params.get("notice")
    return NoticeState(text) if text in tuple(NoticeState) else None


@post(f"{HOME}/erasures")
async def erase(request: AnyRequest) -> Response[bytes]:
    """Erase a lead or a person: open work ends, contact data is destroyed, the business that saw it is notified."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form = fill(EraseForm, fields)
        count, has_more = await _erase(request, viewer, form)
    except (errors.InvalidInput, errors.NotFound) as error:
        return await show_again(request, fields, error, _erasures_page(request, viewer))
    leads = "1 lead was" if count == 1 else f"{count} leads were"
    hint = " This person has more leads: send the form again." if has_more else ""
    return redirect(request, f"{HOME}/erasures", f"{leads} erased.{hint}")


async def _erase(request: AnyRequest, viewer: Viewer, form: EraseForm) -> tuple[int, bool]:
    """Return the number of erased leads, and whether there are more. Raises InvalidInput, NotFound."""
    resources, who, caller = services(request), form.who.strip(), caller_of(viewer)
    if who.startswith("lead_"):
        result = await erasure_flow.erase_lead(
            resources.pool, caller, path_id("lead", who), form.reason, also_suppress=form.also_suppress
        )
    else:
        marks = await asyncio.to_thread(read_people, who, form.country, "who")
        result = await erasure_flow.erase_person(
            resources.pool, resources.sealer, caller, marks, form.reason, also_suppress=form.also_suppress
        )
    return len(result.erasures), result.has_more


# Reveals.


@get(f"{HOME}/reveals")
async def show_reveals(request: AnyRequest) -> Response[bytes]:
    """Show each time that contact data was shown to an operator, with the operator's reason."""
    viewer = await visitor(request, CallerKind.operator)
    limit = list_limit(request)
    async with session(services(request).reports) as connection:
        rows = await back_office_store.list_audit(
            connection, page_cursor(request, "aud"), limit + 1, action=access.REVEALED
        )
    async with session(services(request).pool) as connection:
        names = await back_office_store.list_actor_names(connection, {reveal.actor for reveal in rows})
    return page(
        request,
        viewer,
        "operator/reveals.html",
        tabs=TABS,
        listing=reveal_listing(names),
        rows=rows[:limit],
        next_cursor=next_page("aud", [row.id for row in rows], limit),
    )


def reveal_listing(names: Mapping[str, str]) -> Listing[AuditEntry]:
    """Return the list of reveals. `names` are those of the operators."""
    return Listing(
        caption="Reveals",
        columns=(
            Column("When", lambda reveal: reveal.at, time="second"),
            Column("Who", lambda reveal: names.get(reveal.actor, reveal.actor)),
            Column("What", lambda reveal: describe_action(reveal.action)),
            Column("Lead", lambda reveal: short(reveal.object) if "_" in reveal.object else reveal.object),
            Column("Reason", lambda reveal: reveal.detail.get("reason")),
        ),
    )


handlers: tuple[Any, ...] = (show_suppressions, suppress, look_up, lift, show_erasures, erase, show_reveals)
