"""What is on its way to businesses, what keeps failing, and what ended without anybody confirming it.

A lead that was shown to a business is never given to another: a dead letter is looked into, not sent elsewhere.
"""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory.store import TenantScope
from marketplace.portal.business.wording import OUTCOME_TONES, OUTCOMES
from marketplace.portal.forms import submitted
from marketplace.portal.frame import badge, changed_address, page, redirect, short, words
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file, took
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import AttemptRow, UnconfirmedLead
from marketplace.portal.operator.compliance import caller_of
from marketplace.portal.session import visitor
from marketplace.reports.question import read_question
from marketplace.reports.rows import Filters, find_ids
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS
from marketplace.web.http import AnyRequest, page_cursor, page_limit, path_id, services, wants_csv

HOME: Final = "/operator/deliveries"
SUSPENDED: Final = f"{HOME}/suspended"
TABS: Final = (
    (HOME, "In trouble"),
    (SUSPENDED, "Suspended"),
    (f"{HOME}/attempts", "Attempts"),
    (f"{HOME}/dead", "Dead letters"),
)
MOST_SHOWN: Final = 100
CSV_LINES: Final = 10_000
DAYS: Final = 30
DEAD: Final = {"lapsed": "Lapsed", "refused": "Refused"}

ANYBODYS: Final = TenantScope(business_id=None, mode=None)


class EndpointStateForm(msgspec.Struct, frozen=True, kw_only=True):
    """On: its failures are forgotten and leads go there again. Off: none do."""

    state: Literal["active", "disabled"]
    reason: Annotated[str, Meta(min_length=1, max_length=500, pattern=WORDS)]


@get(HOME)
async def show_trouble(request: AnyRequest) -> Response[bytes]:
    """Shows the endpoints that leads are kept from, and what waits to be tried again."""
    viewer = await visitor(request, CallerKind.operator)
    async with session(services(request).pool) as connection:
        troubled = await back_office_store.list_troubled(connection, MOST_SHOWN)
        retries = await back_office_store.list_retries(connection, MOST_SHOWN)
    return page(
        request,
        viewer,
        "operator/deliveries.html",
        tabs=TABS,
        troubled=troubled,
        retries=retries,
        most=MOST_SHOWN,
        said=said,
    )


@post(f"{HOME}/endpoints/{{endpoint_id:str}}")
async def switch_endpoint(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Lets leads go to an endpoint again, or keeps them from it."""
    viewer, form = await submitted(request, EndpointStateForm, CallerKind.operator)
    chosen = path_id("whe", endpoint_id)
    await directory_flow.switch_endpoint(
        services(request).pool, caller_of(viewer), ANYBODYS, chosen, form.state, form.reason.strip()
    )
    done = "Leads go there again." if form.state == "active" else "Switched off: no lead goes there."
    return redirect(request, HOME, done)


def _business(business_id: UUID, name: str) -> Link:
    return Link(f"/operator/businesses/{ids.encode('biz', business_id)}", name)


def attempt_listing(request: AnyRequest) -> Listing[AttemptRow]:
    """Return the list of attempts; the lead of one leads to all attempts of that lead within the same filter."""
    query = dict(request.query_params.items())

    def lead(attempt: AttemptRow) -> Link:
        public = ids.encode("lead", attempt.lead_id)
        return Link(changed_address(f"{HOME}/attempts", query, lead=public, cursor=None), short(public))

    def outcome(attempt: AttemptRow) -> Markup:
        return badge(OUTCOMES.get(attempt.outcome, attempt.outcome), OUTCOME_TONES.get(attempt.outcome, "muted"))

    return Listing(
        caption="Attempts",
        name="attempts",
        columns=(
            Column(
                "Began",
                lambda attempt: attempt.started_at,
                file="started_at",
                value=lambda attempt: attempt.started_at.isoformat(),
                time="second",
            ),
            Column("Lead", lead, file="lead", value=lambda attempt: ids.encode("lead", attempt.lead_id)),
            Column(
                "Business",
                lambda attempt: _business(attempt.business_id, attempt.business),
                file="business",
                value=lambda attempt: attempt.business,
            ),
            only_in_file("endpoint", lambda attempt: ids.encode("whe", attempt.endpoint_id)),
            only_in_file("attempt", lambda attempt: attempt.attempt_no),
            Column("Outcome", outcome, file="outcome", value=lambda attempt: attempt.outcome),
            only_in_file("reason", lambda attempt: attempt.reason),
            only_in_file("status", lambda attempt: attempt.status),
            Column(
                "Took",
                lambda attempt: took(attempt.total_ms),
                file="total_ms",
                value=lambda attempt: round(attempt.total_ms),
                style="num",
            ),
        ),
    )


@get(f"{HOME}/attempts")
async def show_attempts(request: AnyRequest) -> Response[bytes]:
    """Shows attempts at every business's door, newest first."""
    viewer = await visitor(request, CallerKind.operator)
    asked, as_file = request.query_params, wants_csv(request)
    limit = CSV_LINES if as_file else page_limit(request)
    business, lead = _asked_id(asked.get("business"), "biz"), _asked_id(asked.get("lead"), "lead")
    async with session(services(request).reports) as connection:
        found = await back_office_store.list_attempts(
            connection,
            page_cursor(request, "att"),
            limit + 1,
            business_id=business,
            lead_id=lead,
            outcome=asked["outcome"] if asked.get("outcome") in OUTCOMES else None,
        )
    listing = attempt_listing(request)
    if as_file:
        return await listing.download(found[:limit])
    return page(
        request,
        viewer,
        "operator/attempts.html",
        tabs=TABS,
        listing=listing,
        attempts=found[:limit],
        outcomes=OUTCOMES,
        said=said,
        next_cursor=ids.encode("att", found[limit - 1].id) if len(found) > limit else None,
    )


def _asked_id(text: str | None, kind: str) -> UUID | None:
    """Raises NotFound for what is no id of this kind."""
    return path_id(kind, text.strip()) if text and text.strip() else None


def said(outcome: str, reason: str, status: int | None) -> str:
    """What an attempt came to: `Answered 500`, `Could not connect: tls failed`."""
    if status is not None:
        return f"Answered {status}"
    word = OUTCOMES.get(outcome, outcome.replace("_", " "))
    return f"{word}: {reason.replace('_', ' ')}" if reason and reason != outcome else word


DEAD_LETTERS: Final = Listing[UnconfirmedLead](
    caption="Dead letters",
    columns=(
        Column("Awarded", lambda lead: lead.awarded_at),
        Column(
            "Lead",
            lambda lead: Link(
                f"/operator/routing/{ids.encode('lead', lead.lead_id)}", short(ids.encode("lead", lead.lead_id))
            ),
        ),
        Column("Business", lambda lead: _business(lead.business_id, lead.business)),
        Column("Ended", lambda lead: (badge(lead.state), lead.settled_at)),
        Column("Last word", lambda lead: words(lead.reason) if lead.reason else None),
        Column("Attempts", lambda lead: lead.attempts, style="num"),
        Column("Not charged", lambda lead: Money(lead.price_minor, lead.currency), style="num"),
    ),
)


@get(f"{HOME}/dead")
async def show_dead(request: AnyRequest) -> Response[bytes]:
    """Shows the leads of the last thirty days that ended with one business and without a sale, newest first."""
    viewer = await visitor(request, CallerKind.operator)
    found, limit, after = services(request), page_limit(request), page_cursor(request, "lead")
    state = request.query_params.get("state") or "lapsed"
    if state not in DEAD:
        raise errors.NotFound("There is no such list.")
    question = read_question({"zone": viewer.zone, "mode": viewer.mode}, clock.now())
    question = msgspec.structs.replace(question, first=question.last - timedelta(days=DAYS - 1))
    wanted = await find_ids(found.reports, question, Filters(state=state))
    begin = wanted.index(after) + 1 if after is not None and after in wanted else 0
    shown = wanted[begin : begin + limit]
    async with session(found.pool) as connection:
        rows = await back_office_store.list_dead(connection, shown)
    return page(
        request,
        viewer,
        "operator/unconfirmed_leads.html",
        tabs=TABS,
        listing=DEAD_LETTERS,
        rows=rows,
        count=len(wanted),
        question=question,
        states=DEAD,
        state=state,
        next_cursor=ids.encode("lead", shown[-1]) if len(wanted) > begin + limit else None,
    )


handlers: tuple[Any, ...] = (show_trouble, switch_endpoint, show_attempts, show_dead)
