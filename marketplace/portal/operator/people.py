"""The business that has a person's number, found by phone or e-mail, and the export of all that is held.

The export is a file of JSON, or a page to print.

What is searched for is sent in the body of a form, never in an address, and is not stored.
"""

import asyncio
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post

from marketplace.notices.store import NoticeKind, NoticeState
from marketplace.people import flow as people_flow
from marketplace.people.flow import ExportedNotice, PersonExport, PersonHoldings
from marketplace.people.store import (
    ListMembership,
    PersonDecision,
    PersonDisposition,
    PersonJoinedInquiry,
    PersonLead,
    PersonReveal,
    PersonSuppression,
    PersonTouch,
)
from marketplace.portal.forms import Reason, changing, fill, label, show_again, show_form
from marketplace.portal.frame import page, short, words
from marketplace.portal.listing import Column, Link, Listing
from marketplace.portal.notice_words import NOTICE_KINDS, NOTICE_STATES
from marketplace.portal.operator.compliance import Country, Mark, read_people
from marketplace.portal.operator.links import business_link
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services

HOME: Final = "/operator/people"
LIST_KINDS: Final = {"do_not_contact": "Must not be contacted", "own_customers": "Customers of the business"}


class PersonForm(msgspec.Struct, frozen=True, kw_only=True):
    """A person who is looked up."""

    person: Annotated[Mark, label("Phone number or e-mail address", "Not stored and not logged.")]
    country: Annotated[Country, label("Country, for a number without +")] = "US"


class ExportForm(msgspec.Struct, frozen=True, kw_only=True):
    """A person whose data is exported. Its fields have other names, because both forms are on one page."""

    exported: Annotated[Mark, label("Phone number or e-mail address", "Not stored and not logged.")]
    exported_country: Annotated[Country, label("Country, for a number without +")] = "US"
    reason: Annotated[Reason, label("Reason", "Kept in the audit trail: contact data is in the answer.")]
    printed: bool = False
    "Whether the answer is a page to print, by the button that sent the form."


LEADS: Final = Listing[PersonLead](
    caption="Leads of this person",
    columns=(
        Column(
            "Lead",
            lambda row: Link(
                f"/operator/routing/{ids.encode('lead', row.lead_id)}", short(ids.encode("lead", row.lead_id))
            ),
        ),
        Column("Received", lambda row: row.received_at),
        Column(
            "Who has it",
            lambda row: business_link(row.business_id, row.business_name) if row.business_id else "No business",
        ),
        Column("Shown", lambda row: row.exposed_at),
        Column("State", lambda row: words(row.state)),
        Column("Service", lambda row: words(row.vertical)),
        Column("From", lambda row: row.provider_name),
    ),
)

SUPPRESSIONS: Final = Listing[PersonSuppression](
    caption="Suppressions of this person",
    columns=(
        Column("Since", lambda row: row.created_at),
        Column("Reason", lambda row: row.reason),
        Column("Requested by", lambda row: short(row.source) if "_" in row.source else words(row.source)),
    ),
)

MEMBERSHIPS: Final = Listing[ListMembership](
    caption="Lists that have this person",
    columns=(
        Column("List", lambda row: row.name, names_row=True),
        Column("Kind", lambda row: LIST_KINDS[row.kind]),
        Column("Business", lambda row: row.business),
        Column("Since", lambda row: row.since),
    ),
)


def list_values(value: object, name: str = "") -> tuple[tuple[str, str], ...]:
    """Return each value below a JSON value as its name and its text, with the names of the levels joined by dots."""
    if isinstance(value, dict):
        pairs = ((f"{name}.{key}" if name else str(key), each) for key, each in value.items())
        return tuple(row for key, each in pairs for row in list_values(each, key))
    if isinstance(value, list | tuple):
        if all(isinstance(each, str | int | float) for each in value):
            return ((name, ", ".join(map(str, value))),) if value else ()
        return tuple(row for place, each in enumerate(value, 1) for row in list_values(each, f"{name}.{place}"))
    return () if value is None else ((name, str(value)),)


JOINED: Final = Listing[PersonJoinedInquiry](
    caption="Other inquiries of this person, added to this one",
    columns=(
        Column("Received", lambda inquiry: inquiry.received_at),
        Column("Sent by", lambda inquiry: inquiry.provider),
        Column("Reference", lambda inquiry: inquiry.provider_reference),
        Column("Consent given", lambda inquiry: inquiry.consent_given_at),
        Column("Answers", lambda inquiry: "; ".join(f"{name}: {text}" for name, text in list_values(inquiry.facts))),
    ),
)
TOUCHES: Final = Listing[PersonTouch](
    caption="Later interactions",
    columns=(
        Column("When", lambda touch: touch.at),
        Column("What", lambda touch: words(touch.kind)),
        Column("Detail", lambda touch: touch.detail),
        Column("Recorded", lambda touch: touch.recorded_at),
    ),
)
DECISIONS: Final = Listing[PersonDecision](
    caption="Decisions",
    columns=(
        Column("When", lambda decision: decision.made_at),
        Column("Outcome", lambda decision: words(decision.outcome)),
        Column("Reason", lambda decision: words(decision.reason) if decision.reason else None),
        Column("Version of the rules", lambda decision: decision.vertical_version, style="num"),
    ),
)
REPORTS: Final = Listing[PersonDisposition](
    caption="Reports of the business",
    columns=(
        Column("When", lambda report: report.happened_at),
        Column("Outcome", lambda report: words(report.kind)),
        Column("Reason", lambda report: words(report.reason) if report.reason else None),
        Column("Note", lambda report: report.note),
    ),
)
NOTICES: Final = Listing[ExportedNotice](
    caption="Notices to the business",
    columns=(
        Column("Made", lambda notice: notice.made_at),
        Column("Asked to", lambda notice: NOTICE_KINDS[NoticeKind(notice.kind)]),
        Column("State", lambda notice: NOTICE_STATES[NoticeState(notice.state)]),
        Column("Acknowledged", lambda notice: notice.acknowledged_at),
    ),
)
REVEALS: Final = Listing[PersonReveal](
    caption="Contact data shown to operators",
    columns=(
        Column("When", lambda reveal: reveal.at),
        Column("Who", lambda reveal: reveal.actor),
        Column("Reason", lambda reveal: reveal.reason),
    ),
)


@get(HOME)
async def show_search(request: AnyRequest) -> Response[bytes]:
    """Show the search for a person."""
    return await _people_page(request, await visitor(request, CallerKind.operator))


async def _people_page(request: AnyRequest, viewer: Viewer, holdings: PersonHoldings | None = None) -> Response[bytes]:
    return page(
        request,
        viewer,
        "operator/people.html",
        form=show_form(PersonForm, {"country": "US"}),
        export_form=show_form(ExportForm, {"exported_country": "US"}),
        holdings=holdings,
        listing=LEADS,
        suppression_listing=SUPPRESSIONS,
    )


@post(HOME)
async def find_person(request: AnyRequest) -> Response[bytes]:
    """Show the person's leads and who has each. The look-up is recorded without what was searched for."""
    viewer, fields = await changing(request, CallerKind.operator, role=Role.viewer)
    resources = services(request)
    try:
        form = fill(PersonForm, fields)
        marks = await asyncio.to_thread(read_people, form.person, form.country, "person")
    except errors.InvalidInput as error:
        return await show_again(request, {}, error, _people_page(request, viewer))
    holdings = await people_flow.look_up(resources.pool, resources.sealer, viewer.actor, marks)
    return await _people_page(request, viewer, holdings)


@post(f"{HOME}/export", status_code=200)
async def export_person(request: AnyRequest) -> Response[bytes]:
    """Send all that is held about a person as a file of JSON, or show it on a page to print."""
    viewer, fields = await changing(request, CallerKind.operator)
    resources = services(request)
    try:
        form = fill(ExportForm, fields)
        marks = await asyncio.to_thread(read_people, form.exported, form.exported_country, "exported")
    except errors.InvalidInput as error:
        return await show_again(request, {}, error, _people_page(request, viewer))
    export = await people_flow.export_person(resources.pool, resources.sealer, viewer.actor, marks, form.reason.strip())
    if form.printed:
        return _export_page(request, viewer, export)
    headers = {"content-disposition": 'attachment; filename="person.json"', "cache-control": "no-store"}
    return Response(people_flow.encode_export(export), media_type="application/json", headers=headers)


def _export_page(request: AnyRequest, viewer: Viewer, export: PersonExport) -> Response[bytes]:
    """Return the export as a page to print."""
    leads = []
    for lead in export.leads:
        contact = None if lead.contact is None else list_values(msgspec.json.decode(lead.contact))
        lists = (
            (JOINED, lead.joined),
            (TOUCHES, lead.touches),
            (DECISIONS, lead.decisions),
            (REPORTS, lead.reports),
            (NOTICES, lead.notices),
            (REVEALS, lead.shown_to_operators),
        )
        leads.append((lead, contact, list_values(lead.inquiry.facts), [each for each in lists if each[1]]))
    return page(
        request,
        viewer,
        "operator/person_export.html",
        export=export,
        leads=leads,
        suppression_listing=SUPPRESSIONS,
        membership_listing=MEMBERSHIPS,
    )


handlers: tuple[Any, ...] = (show_search, find_person, export_person)
