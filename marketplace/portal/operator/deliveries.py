"""Deliveries to businesses: endpoints with problems, pending retries, attempts, and leads that ended without a charge.

A lead that one business may have seen is never offered to another, so a lead without a charge is not sent again.
"""

from datetime import timedelta
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.delivery.bounces import ListedBounce, list_bounces
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.store import TenantScope
from marketplace.portal.business.wording import OUTCOMES, bounce_words, endpoint_name, outcome_badge
from marketplace.portal.forms import Reason, submitted
from marketplace.portal.frame import badge, page, redirect, short, words
from marketplace.portal.listing import TOOK, TOOK_MS, Column, Link, Listing, Money, muted, only_in_file
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import AttemptRow, PendingRetry, TroubledEndpoint, UnconfirmedLead
from marketplace.portal.operator.compliance import caller_of
from marketplace.portal.operator.links import business_link, lead_link
from marketplace.portal.paging import changed_address, list_limit, next_page
from marketplace.portal.session import visitor
from marketplace.reports.question import read_question
from marketplace.reports.rows import Filters, find_ids
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv

HOME: Final = "/operator/deliveries"
SUSPENDED: Final = f"{HOME}/suspended"
TABS: Final = (
    (HOME, "Needs attention"),
    (SUSPENDED, "Suspended"),
    (f"{HOME}/attempts", "Attempts"),
    (f"{HOME}/dead", "Not charged"),
)
MOST_SHOWN: Final = 100
MOST_ALARMS: Final = 20
CSV_LINES: Final = 10_000
DAYS: Final = 30
NOT_CHARGED: Final = {"lapsed": "Not confirmed in time", "refused": "Refused"}

EVERY_ACCOUNT: Final = TenantScope(business_id=None, mode=None)


class EndpointStateForm(msgspec.Struct, frozen=True, kw_only=True):
    """New state of an endpoint. Active: it gets leads again and its failures are cleared. Disabled: it gets none."""

    state: Literal["active", "disabled"]
    reason: Reason


@get(HOME)
async def show_problems(request: AnyRequest) -> Response[bytes]:
    """Show the endpoints that get no leads, and the deliveries that will be tried again."""
    viewer = await visitor(request, CallerKind.operator)
    async with session(services(request).pool) as connection:
        troubled = await back_office_store.list_troubled(connection, MOST_SHOWN)
        retries = await back_office_store.list_retries(connection, MOST_SHOWN)
        alarms = await directory_store.list_answer_alarms(connection, None, MOST_ALARMS)
        bounces = await list_bounces(connection, None, MOST_SHOWN)
    return page(
        request,
        viewer,
        "operator/deliveries.html",
        tabs=TABS,
        troubled_listing=TROUBLED,
        troubled=troubled,
        retry_listing=RETRIES,
        retries=retries,
        alarms=alarms,
        bounce_listing=BOUNCES,
        bounces=bounces,
        most=MOST_SHOWN,
    )


@post(f"{HOME}/endpoints/{{endpoint_id:str}}")
async def switch_endpoint(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Switch an endpoint on or off."""
    viewer, form = await submitted(request, EndpointStateForm, CallerKind.operator)
    await directory_flow.switch_endpoint(
        services(request).pool,
        caller_of(viewer),
        EVERY_ACCOUNT,
        path_id("whe", endpoint_id),
        form.state,
        form.reason.strip(),
    )
    switched_on = form.state == "active"
    message = "The endpoint gets leads again." if switched_on else "The endpoint is switched off and gets no leads."
    return redirect(request, HOME, message)


def attempt_listing(request: AnyRequest) -> Listing[AttemptRow]:
    """Return the list of attempts. The lead of an attempt adds that lead to the filter."""
    query = dict(request.query_params.items())

    def lead(attempt: AttemptRow) -> Link:
        public = ids.encode("lead", attempt.lead_id)
        return Link(changed_address(f"{HOME}/attempts", query, lead=public, cursor=None), short(public))

    return Listing(
        caption="Attempts",
        name="attempts",
        columns=(
            Column(
                "Started",
                lambda attempt: attempt.started_at,
                file="started_at",
                value=lambda attempt: attempt.started_at.isoformat(),
                time="second",
            ),
            Column("Lead", lead, file="lead", value=lambda attempt: ids.encode("lead", attempt.lead_id)),
            Column(
                "Business",
                lambda attempt: business_link(attempt.business_id, attempt.business),
                file="business",
                value=lambda attempt: attempt.business,
            ),
            only_in_file("endpoint", lambda attempt: ids.encode("whe", attempt.endpoint_id)),
            only_in_file("attempt", lambda attempt: attempt.attempt_no),
            Column(
                "Outcome",
                lambda attempt: outcome_badge(attempt.outcome),
                file="outcome",
                value=lambda attempt: attempt.outcome,
            ),
            only_in_file("reason", lambda attempt: attempt.reason),
            only_in_file("status", lambda attempt: attempt.status),
            TOOK,
            TOOK_MS,
        ),
    )


@get(f"{HOME}/attempts")
async def show_attempts(request: AnyRequest) -> Response[bytes]:
    """Show the attempts at every endpoint, newest first."""
    viewer = await visitor(request, CallerKind.operator)
    query, as_file = request.query_params, wants_csv(request)
    limit = CSV_LINES if as_file else list_limit(request)
    business_id, lead_id = _read_id(query.get("business"), "biz"), _read_id(query.get("lead"), "lead")
    outcome = query["outcome"] if query.get("outcome") in OUTCOMES else None
    async with session(services(request).reports) as connection:
        rows = await back_office_store.list_attempts(
            connection,
            page_cursor(request, "att"),
            limit + 1,
            business_id=business_id,
            lead_id=lead_id,
            outcome=outcome,
        )
    listing = attempt_listing(request)
    if as_file:
        return await listing.download(rows[:limit])
    return page(
        request,
        viewer,
        "operator/attempts.html",
        tabs=TABS,
        listing=listing,
        attempts=rows[:limit],
        outcomes=OUTCOMES,
        describe_attempt=describe_attempt,
        next_cursor=next_page("att", [row.id for row in rows], limit),
    )


def _read_id(text: str | None, kind: str) -> UUID | None:
    """Return the id in a filter, or None if the filter is empty. Raises NotFound for an id of another kind."""
    return path_id(kind, text.strip()) if text and text.strip() else None


def describe_attempt(outcome: str, reason: str, status: int | None) -> str:
    """Return the result of an attempt in words: `Answered 500`, `Could not connect: tls failed`."""
    if status is not None:
        return f"Answered {status}"
    result = OUTCOMES.get(outcome, outcome.replace("_", " "))
    return f"{result}: {reason.replace('_', ' ')}" if reason and reason != outcome else result


def _endpoint_state(row: TroubledEndpoint) -> tuple[object, ...]:
    if row.state == "disabled":
        return (badge("Off", "muted"),)
    return badge("Paused", "bad"), muted("until"), row.open_until


def _last_answer(row: TroubledEndpoint) -> object:
    if row.last_at is None:
        return "Never tried"
    return describe_attempt(row.last_outcome or "", row.last_reason or "", row.last_status), row.last_at


def _retried_lead(row: PendingRetry) -> tuple[object, ...]:
    public = ids.encode("lead", row.lead_id)
    attempts = Link(f"{HOME}/attempts?lead={public}", short(public))
    return attempts, badge("Test", "warn") if row.mode == "test" else ""


TROUBLED: Final = Listing[TroubledEndpoint](
    caption="Endpoints with problems",
    columns=(
        Column("Business", lambda row: business_link(row.business_id, row.business)),
        Column("Address", lambda row: endpoint_name(row.kind, row.url)),
        Column("State", _endpoint_state, time="second"),
        Column("Waiting", lambda row: row.waiting, style="num"),
        Column("Last answer", _last_answer, time="second"),
    ),
)
RETRIES: Final = Listing[PendingRetry](
    caption="Deliveries to be tried again",
    columns=(
        Column("Due", lambda row: row.due_at, time="second"),
        Column("Lead", _retried_lead),
        Column("Business", lambda row: business_link(row.business_id, row.business)),
        Column("State", lambda row: badge(row.state)),
        Column("Attempts", lambda row: row.attempts, style="num"),
        Column("Last result", lambda row: words(row.reason) if row.reason else None),
        Column("Deadline", lambda row: row.evidence_until),
    ),
)
BOUNCES: Final = Listing[ListedBounce](
    caption="Messages that came back",
    columns=(
        Column("When", lambda row: row.received_at, time="minute"),
        Column("Business", lambda row: business_link(row.business_id, row.business_name) if row.business_id else None),
        Column("Address", lambda row: row.address),
        Column("Reason", lambda row: bounce_words(row.status)),
        Column("Lead", lambda row: lead_link(row.lead_id) if row.lead_id else None),
    ),
)
UNCONFIRMED: Final = Listing[UnconfirmedLead](
    caption="Leads not charged",
    columns=(
        Column("Awarded", lambda lead: lead.awarded_at),
        Column(
            "Lead",
            lambda lead: lead_link(lead.lead_id),
        ),
        Column("Business", lambda lead: business_link(lead.business_id, lead.business)),
        Column("Ended", lambda lead: (badge(lead.state), lead.settled_at)),
        Column("Reason", lambda lead: words(lead.reason) if lead.reason else None),
        Column("Attempts", lambda lead: lead.attempts, style="num"),
        Column("Not charged", lambda lead: Money(lead.price_minor, lead.currency), style="num"),
    ),
)


@get(f"{HOME}/dead")
async def show_not_charged(request: AnyRequest) -> Response[bytes]:
    """Show the leads of the last 30 days that one business may have seen and that were not charged, newest first."""
    viewer = await visitor(request, CallerKind.operator)
    pools, limit, after = services(request), list_limit(request), page_cursor(request, "lead")
    state = request.query_params.get("state") or "lapsed"
    if state not in NOT_CHARGED:
        raise errors.NotFound("There is no such list.")
    question = read_question({"zone": viewer.zone, "mode": viewer.mode}, clock.now())
    question = msgspec.structs.replace(question, first=question.last - timedelta(days=DAYS - 1))
    lead_ids = await find_ids(pools.reports, question, Filters(state=state))
    start = lead_ids.index(after) + 1 if after is not None and after in lead_ids else 0
    async with session(pools.pool) as connection:
        rows = await back_office_store.list_unconfirmed(connection, lead_ids[start : start + limit])
    return page(
        request,
        viewer,
        "operator/unconfirmed_leads.html",
        tabs=TABS,
        listing=UNCONFIRMED,
        rows=rows,
        count=len(lead_ids),
        question=question,
        states=NOT_CHARGED,
        state=state,
        next_cursor=next_page("lead", lead_ids[start:], limit),
    )


handlers: tuple[Any, ...] = (show_problems, switch_endpoint, show_attempts, show_not_charged)
