"""List of the leads of a business, on its page, in the overview and as a file."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Final
from uuid import UUID

import msgspec
import phonenumbers
from litestar import Response, get, post
from markupsafe import Markup

from marketplace.database.db import Connection, session, transaction
from marketplace.feedback import store as feedback_store
from marketplace.feedback.store import DispositionKind, ListedLead
from marketplace.intake.contact import Contact
from marketplace.portal.business import store, wording
from marketplace.portal.business.lead_search import LeadSearchForm, contact_fits, hash_person
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import changing, fill, show_again, show_form
from marketplace.portal.frame import badge, duration, money, words, zone_of
from marketplace.portal.listing import Column, Listing, Money, muted, only_in_file
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.reports.question import midnight
from marketplace.runtime import clock, errors, ids
from marketplace.security import access, audit
from marketplace.security.auth import CallerKind
from marketplace.security.sealing import Sealer
from marketplace.text.values import read_day
from marketplace.web.http import AnyRequest, page_cursor, services, wants_csv
from routing.lifecycle import SEEN, AssignmentState, LeadState

CSV_ROWS: Final = 2_000
"Most rows of a file. Opening a contact takes about 0.05 ms; more leads are downloaded by date."
STATES: Final = tuple(AssignmentState(state) for state in LeadState if state in SEEN)
NO_OUTCOME: Final = "none"
NEED_CHARACTERS: Final = 90


class LeadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A lead in the list. Contact and need are empty unless it was delivered and not erased."""

    assignment_id: UUID
    lead_id: UUID
    who: str
    need: str
    where: str
    phone: str
    email: str
    vertical: str
    state: AssignmentState
    at: datetime
    price_minor: int
    currency: str
    speed: str
    outcome: DispositionKind | None
    value_minor: int | None
    return_state: str | None

    @property
    def public_id(self) -> str:
        return ids.encode("lead", self.lead_id)


class LeadSearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that a search found, how many it compared, and the assignment behind which it can be continued."""

    rows: tuple[LeadRow, ...]
    compared: int
    last: UUID | None


def _who(row: LeadRow) -> Markup:
    """Return the name, which leads to the lead, and the number to tap."""
    name = Markup('<a href="/business/leads/{}">{}</a>').format(row.public_id, row.who or "Lead")
    if not row.phone:
        return name
    plain = row.phone.replace(" ", "").replace("-", "")
    return name + Markup('<br><a class="tel" href="tel:{}">{}</a>').format(plain, row.phone)


def _need(row: LeadRow) -> str:
    if len(row.need) <= NEED_CHARACTERS:
        return row.need or words(row.vertical)
    return f"{row.need[: NEED_CHARACTERS - 3].rsplit(' ', 1)[0]}..."


def _delivery(row: LeadRow) -> tuple[object, ...]:
    speed = row.speed and Markup('<span class="muted nowrap">{}</span>').format(row.speed)
    return badge(wording.STATES[row.state], wording.STATE_TONES[row.state]), speed


def _outcome(row: LeadRow) -> object:
    if row.return_state == "requested":
        return badge("Return requested", "busy")
    if row.outcome is None:
        return muted("No outcome yet") if row.state is AssignmentState.delivered else None
    state = badge(wording.KINDS[row.outcome], wording.KIND_TONES[row.outcome])
    if row.value_minor is None:
        return state
    return state, Markup('<span class="num">{}</span>').format(money(row.value_minor, row.currency))


LEADS: Final = Listing[LeadRow](
    caption="Leads",
    name="leads",
    key=lambda row: str(row.lead_id),
    columns=(
        only_in_file("lead", lambda row: row.public_id),
        Column("Received", lambda row: row.at, file="shown_at"),
        Column("Who", _who, file="name", value=lambda row: row.who),
        only_in_file("phone", lambda row: row.phone),
        only_in_file("email", lambda row: row.email),
        Column("Need", _need, file="need", value=lambda row: row.need),
        Column("Where", lambda row: row.where, file="place"),
        Column("Price", lambda row: Money(row.price_minor, row.currency), file="price_minor", style="num"),
        only_in_file("currency", lambda row: row.currency),
        Column("Delivery", _delivery, file="state", value=lambda row: wording.STATES[row.state]),
        only_in_file("market", lambda row: row.vertical),
        Column(
            "Outcome", _outcome, file="outcome", value=lambda row: wording.KINDS[row.outcome] if row.outcome else ""
        ),
        only_in_file("value_minor", lambda row: row.value_minor),
    ),
    order=(
        "lead",
        "shown_at",
        "state",
        "market",
        "name",
        "phone",
        "email",
        "need",
        "place",
        "price_minor",
        "currency",
        "outcome",
        "value_minor",
    ),
)
NEWEST_LEADS: Final = msgspec.structs.replace(LEADS, caption="Newest leads", sortable=False)


@post("/business/leads")
async def search_leads(request: AnyRequest) -> Response[bytes]:
    """Show the leads that a search finds. Its text comes in the body, so that no address or log has a person's name."""
    viewer, fields = await changing(request, CallerKind.business, role=Role.viewer)
    app = services(request)
    try:
        form = fill(LeadSearchForm, fields)
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _leads_page(request, viewer, result=None))
    before = ids.decode("asg", form.before or "")
    async with session(app.pool) as connection:
        result = await search_rows(connection, app.sealer, viewer, form.q.strip(), before)
    return await _leads_page(request, viewer, rows=result.rows, result=result, search=form.q.strip())


async def _leads_page(
    request: AnyRequest,
    viewer: Viewer,
    *,
    rows: tuple[LeadRow, ...] = (),
    next_cursor: str | None = None,
    result: LeadSearchResult | None,
    search: str = "",
) -> Response[bytes]:
    return await business_page(
        request,
        viewer,
        "business/leads.html",
        listing=LEADS,
        rows=rows,
        next_cursor=next_cursor,
        search_form=show_form(LeadSearchForm, {"q": search}),
        search=search,
        result=result,
        older=ids.encode("asg", result.last) if result and result.last else "",
        states=[(state.value, wording.STATES[state]) for state in STATES],
        outcomes=[(NO_OUTCOME, "No outcome yet"), *((kind.value, name) for kind, name in wording.KINDS.items())],
    )


@get("/business/leads")
async def show_leads(request: AnyRequest) -> Response[bytes]:
    """Show the leads that were sold to the business, newest first, on a page or as a file."""
    viewer = await visitor(request, CallerKind.business)
    as_file = wants_csv(request)
    limit, before = CSV_ROWS if as_file else list_limit(request), page_cursor(request, "asg")
    if as_file and not viewer.may_change:
        raise errors.RoleMissing(
            "Your role can view leads but not download them. Ask a member or an owner of your team."
        )
    query, app = request.query_params, services(request)
    state, outcome = query.get("state"), query.get("outcome")
    valid_state = AssignmentState(state) if state in STATES else None
    valid_outcome = outcome if outcome in (*DispositionKind, NO_OUTCOME) else None
    async with session(app.pool) as connection:
        rows = await load_rows(
            connection,
            app.sealer,
            viewer,
            before,
            limit + 1,
            state=valid_state,
            since=_start_of_day(query.get("since"), viewer.zone),
            disposition=valid_outcome,
        )
    if as_file:
        async with transaction(app.pool) as connection:
            count = len(rows[:limit])
            await audit.record(connection, clock.now(), viewer.actor, "leads.export", viewer.account, leads=count)
        return await LEADS.download(rows[:limit])
    next_cursor = next_page("asg", [row.assignment_id for row in rows], limit)
    return await _leads_page(request, viewer, rows=rows[:limit], next_cursor=next_cursor, result=None)


async def load_rows(
    connection: Connection,
    sealer: Sealer,
    viewer: Viewer,
    before: UUID | None,
    limit: int,
    *,
    state: AssignmentState | None = None,
    since: datetime | None = None,
    disposition: str | None = None,
) -> tuple[LeadRow, ...]:
    """Return leads, newest first, with the contacts of the delivered ones.

    Takes the same few statements for any number of rows, and opens contacts in a thread because a file has thousands.
    """
    leads = await feedback_store.list_leads(
        connection, viewer.owner, viewer.mode, before, limit, state=state, since=since, disposition=disposition
    )
    return await _open_rows(connection, sealer, viewer, leads)


async def _open_rows(
    connection: Connection,
    sealer: Sealer,
    viewer: Viewer,
    leads: Sequence[ListedLead],
    search: str = "",
    most: int | None = None,
) -> tuple[LeadRow, ...]:
    """Return the rows of leads with the contacts of the delivered ones; the first `most` that fit a search, if any.

    Contacts that are compared and do not fit are not shown, so they are no reveal.
    """
    delivered = [lead.lead_id for lead in leads if lead.state is AssignmentState.delivered]
    sealed = await store.list_contacts(connection, viewer.owner, delivered) if delivered else {}
    towns = await _list_towns(connection, leads) if search else {}

    def show(lead: ListedLead) -> LeadRow | None:
        box = sealed.get(lead.lead_id)
        contact = None if box is None else msgspec.json.decode(sealer.open_contact(lead.lead_id, box), type=Contact)
        if search:
            place = (lead.region, lead.postal_code, towns.get(lead.postal_code or ""), words(lead.vertical))
            if contact is None or not contact_fits(search, contact, *place):
                return None
        return _row(lead, contact)

    rows = await asyncio.to_thread(lambda: tuple(islice((row for lead in leads if (row := show(lead))), most)))
    reveals = [row.lead_id for row in rows if row.state is AssignmentState.delivered]
    await access.record_reveals(connection, viewer.opened, viewer.actor, reveals)
    return rows


async def _list_towns(connection: Connection, leads: Sequence[ListedLead]) -> dict[str, str]:
    """Return the towns of the leads by postal code; codes that two countries have are those of the later country."""
    codes: dict[str, set[str]] = {}
    for lead in leads:
        if lead.country and lead.postal_code:
            codes.setdefault(lead.country, set()).add(lead.postal_code)
    towns: dict[str, str] = {}
    for country in sorted(codes):
        places = await store.list_places(connection, country, sorted(codes[country]))
        towns |= {code: place.city for code, place in places.items()}
    return towns


async def search_rows(
    connection: Connection, sealer: Sealer, viewer: Viewer, text: str, before: UUID | None, most: int = CSV_ROWS
) -> LeadSearchResult:
    """Return the leads of a whole phone number or e-mail address, or else those of the newest leads that fit the text.

    At most CSV_ROWS leads behind the assignment `before` are compared, and only delivered ones, which show a contact.
    The first `most` that fit are returned.
    """
    delivered = AssignmentState.delivered
    keys = await asyncio.to_thread(hash_person, sealer, text)
    if keys and before is None:
        lead_ids = await store.find_leads_of_person(connection, viewer.owner, viewer.mode, keys, CSV_ROWS)
        leads = await feedback_store.list_leads(
            connection, viewer.owner, viewer.mode, None, CSV_ROWS, state=delivered, leads=lead_ids
        )
        if rows := await _open_rows(connection, sealer, viewer, leads[:most]):
            return LeadSearchResult(rows=rows, compared=0, last=None)
    leads = await feedback_store.list_leads(
        connection, viewer.owner, viewer.mode, before, CSV_ROWS + 1, state=delivered
    )
    compared = leads[:CSV_ROWS]
    return LeadSearchResult(
        rows=await _open_rows(connection, sealer, viewer, compared, text, most),
        compared=len(compared),
        last=compared[-1].assignment_id if len(leads) > CSV_ROWS else None,
    )


def _row(lead: ListedLead, contact: Contact | None) -> LeadRow:
    where = " ".join(part for part in (lead.region, lead.postal_code) if part) or lead.country or ""
    who, need, phone, email = "", "", "", ""
    if contact:
        who, need, email = contact.full_name, contact.summary or "", contact.email or ""
        phone = spaced(contact.phone)
    speed = duration((lead.delivered_at - lead.received_at).total_seconds()) if lead.delivered_at else ""
    return LeadRow(
        assignment_id=lead.assignment_id,
        lead_id=lead.lead_id,
        who=who,
        need=need,
        where=where,
        phone=phone,
        email=email,
        vertical=lead.vertical,
        state=lead.state,
        at=lead.exposed_at,
        price_minor=lead.price_minor,
        currency=lead.currency,
        speed=speed,
        outcome=lead.disposition,
        value_minor=lead.value_minor,
        return_state=lead.return_state,
    )


def spaced(phone: str | None) -> str:
    """Return a phone number in international notation: `+1 312-202-6476`."""
    if not phone:
        return ""
    try:
        return phonenumbers.format_number(phonenumbers.parse(phone), phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    except phonenumbers.NumberParseException:
        return phone


def _start_of_day(text: str | None, zone: str) -> datetime | None:
    """Return the start of the day that a date field holds, in the zone; None for a text that is not a day."""
    day = read_day(text)
    return None if day is None else midnight(day, zone_of(zone).key)


handlers = (show_leads, search_leads)
