"""Unsold leads grouped by the rule that kept the nearest business away, and leads that still wait for a business.

An unsold lead has ended. It is not offered again, and its person may send a new inquiry. An operator can see which
change of rules would have sold it. Leads that still wait can be decided now or held until later: this changes the time
of the next decision, never the rules.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import Pool, session, transaction
from marketplace.distribution import explorer
from marketplace.distribution.store import read_candidates
from marketplace.portal.forms import Reason, label, show_form, submitted
from marketplace.portal.frame import badge, duration, page, redirect, words
from marketplace.portal.listing import Column, Listing, muted, only_in_file
from marketplace.portal.operator import lead_store
from marketplace.portal.operator.lead_store import SubscriptionName, WaitingLead
from marketplace.portal.operator.links import lead_link, provider_link
from marketplace.portal.paging import list_limit
from marketplace.portal.session import Viewer, visitor
from marketplace.reports.figures import load_weighed
from marketplace.reports.question import Question, read_question
from marketplace.reports.rows import Filters, ReportRow, list_rows, pick_ids
from marketplace.reports.unsold import FIELDS, MISSES, Widening, unsold_of
from marketplace.runtime import clock, ids
from marketplace.security import audit
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services, wants_csv
from routing.decision import CandidateRecord, OpenLead, nearest_recorded
from routing.lifecycle import LeadState

HOME: Final = "/operator/unroutable"
DEFAULT_DAYS: Final = 7
MOST_WAITING: Final = 200
MOST_WIDENINGS: Final = 20
MOST_DECIDED_AGAIN: Final = 20
"Unsold leads decided again on one page; each is a full decision, so the number limits the page's time."
CSV_LINES: Final = 10_000
HOLDS: Final = (10, 20, 30, 60)
"Minutes for which a lead can be held; no vertical lets a lead wait longer than an hour."


class UnsoldGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Unsold leads that the same rule kept from the nearest business."""

    why: str
    leads: int
    share: float


class MissedLead(msgspec.Struct, frozen=True, kw_only=True):
    """An unsold lead with its nearest business, and the business that would get it by today's rules.

    `today` is empty if no business would get the lead, and None if this was not computed.
    """

    row: ReportRow
    business: str
    reason: str
    today: str | None = None


class RescheduleForm(msgspec.Struct, frozen=True, kw_only=True):
    """Waiting leads to decide now, or to hold for some minutes, and the reason."""

    act: Literal["look_again", "hold"] = "look_again"
    lead: tuple[Annotated[str, Meta(max_length=40)], ...] = ()
    minutes: Annotated[int, Meta(ge=1, le=60)] = HOLDS[0]
    reason: Annotated[Reason, label("Reason")]


def _today_cell(missed: MissedLead) -> object:
    if missed.today is None:
        return muted("not checked")
    return (badge("sold", "good"), missed.today) if missed.today else badge("unsold", "muted")


MISSED: Final = Listing[MissedLead](
    caption="Unsold prospects",
    name="unsold",
    columns=(
        Column(
            "Received",
            lambda missed: missed.row.received_at,
            file="received_at",
            value=lambda missed: missed.row.received_at.isoformat(),
            style="nowrap",
        ),
        Column(
            "Lead",
            lambda missed: lead_link(missed.row.id),
            file="lead_id",
            value=lambda missed: ids.encode("lead", missed.row.id),
        ),
        Column("Vertical", lambda missed: missed.row.vertical, file="vertical"),
        Column(
            "Provider",
            lambda missed: provider_link(missed.row.provider_id, missed.row.provider),
            file="provider",
            value=lambda missed: missed.row.provider,
        ),
        only_in_file("why", lambda missed: missed.row.why),
        Column(
            "Nearest business",
            lambda missed: missed.business or None,
            file="nearest",
            value=lambda missed: missed.business,
        ),
        Column("Missed by", lambda missed: missed.reason, file="by"),
    ),
    order=("lead_id", "received_at", "vertical", "provider", "why", "nearest", "by"),
)
MISSED_AND_TODAY: Final = msgspec.structs.replace(MISSED, columns=(*MISSED.columns, Column("Today", _today_cell)))
WIDENINGS: Final = Listing[Widening](
    caption="Changes by subscription",
    columns=(
        Column("Business", lambda widening: widening.business),
        Column("Change", lambda widening: widening.sentence),
        Column("Prospects", lambda widening: widening.leads, style="num"),
    ),
)


def waiting_listing(now: datetime) -> Listing[WaitingLead]:
    """Return the list of waiting leads, each with a checkbox."""

    def checkbox(lead: WaitingLead) -> Markup:
        public = ids.encode("lead", lead.id)
        return Markup('<input type="checkbox" name="lead" value="{0}" aria-label="Lead {0}">').format(public)

    def until(at: datetime, text_if_past: str) -> str:
        return f"in {duration((at - now).total_seconds())}" if at > now else text_if_past

    return Listing(
        caption="Waiting prospects",
        columns=(
            Column("Select", checkbox),
            Column("Lead", lambda lead: lead_link(lead.id)),
            Column("Vertical", lambda lead: lead.vertical),
            Column("Postal code", lambda lead: lead.postal_code or None),
            Column("Reason", lambda lead: words(lead.reason or "open")),
            Column(
                "Waiting",
                lambda lead: duration((now - (lead.qualified_at or lead.received_at)).total_seconds()),
                style="num",
            ),
            Column("Next decision", lambda lead: until(lead.due_at, "now"), style="num"),
            Column("Ends", lambda lead: until(lead.ends_at, "at the next decision"), style="num"),
        ),
    )


@get(HOME)
async def show_unroutable(request: AnyRequest) -> Response[bytes]:
    """Show unsold leads by the rule that kept the nearest business away, and the waiting leads."""
    viewer = await visitor(request, CallerKind.operator)
    question, pool = question_of(request, viewer), services(request).reports
    why = request.query_params.get("why") or None
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file else list_limit(request)
    decided_again = request.query_params.get("today") == "1" and not as_file
    weighed, waiting = await asyncio.gather(
        load_weighed(pool, question, (*FIELDS, "lead"), MISSES), _list_waiting(pool, question.mode)
    )
    lead_ids = await asyncio.to_thread(pick_ids, question, Filters(state="unsold", why=why), weighed)
    again = lead_ids[: min(limit, MOST_DECIDED_AGAIN)] if decided_again else ()
    report, missed, winners = await asyncio.gather(
        unsold_of(pool, question, weighed, MOST_WIDENINGS),
        _list_missed(pool, lead_ids[:limit]),
        _list_winners_today(request, again),
    )
    if as_file:
        return await MISSED.download(missed)
    rows = [
        *(msgspec.structs.replace(lead, today=winners.get(lead.row.id, "")) for lead in missed[: len(again)]),
        *missed[len(again) :],
    ]
    groups = [UnsoldGroup(why=loss.why, leads=loss.leads, share=loss.leads / report.unsold) for loss in report.reasons]
    listing, sold = (MISSED_AND_TODAY, len(winners)) if decided_again else (MISSED, None)
    return page(
        request,
        viewer,
        "operator/unroutable.html",
        report=report,
        rows=rows,
        waiting=waiting,
        why=why or "",
        listing=listing,
        widenings=WIDENINGS,
        waiting_listing=waiting_listing(clock.now()),
        groups=groups,
        more=len(lead_ids) - len(rows),
        waiting_reasons=Counter(lead.reason or "open" for lead in waiting).most_common(),
        sold=sold,
        most=min(MOST_DECIDED_AGAIN, len(rows)),
        holds=HOLDS,
        form=show_form(RescheduleForm),
    )


def question_of(request: AnyRequest, viewer: Viewer, days: int = DEFAULT_DAYS) -> Question:
    """Return the question in the address: by default the last `days` days in the viewer's zone, live leads."""
    parameters = {name: request.query_params[name] for name in ("from", "to", "mode") if request.query_params.get(name)}
    question = read_question({"zone": viewer.zone, **parameters}, clock.now())
    if "from" not in parameters:
        question = msgspec.structs.replace(question, first=question.last - timedelta(days=days - 1))
    return msgspec.structs.replace(question, vertical=request.query_params.get("vertical") or None)


async def _list_waiting(pool: Pool, mode: str) -> tuple[WaitingLead, ...]:
    async with session(pool) as connection:
        return await lead_store.list_waiting(connection, mode, MOST_WAITING)


async def _list_missed(pool: Pool, leads: Sequence[UUID]) -> tuple[MissedLead, ...]:
    """Return each lead with its nearest business. Runs three statements for any number of leads."""
    rows = await list_rows(pool, leads)
    async with session(pool) as connection:
        decisions = await lead_store.list_last_decisions(connection, leads)
        misses = {
            lead_id: nearest_recorded(read_candidates(decision.candidates)) for lead_id, decision in decisions.items()
        }
        names = await lead_store.list_subscriptions(
            connection, {miss.subscription_id for miss in misses.values() if miss}
        )
    return tuple(_missed_lead(row, misses.get(row.id), names) for row in rows)


def _missed_lead(row: ReportRow, miss: CandidateRecord | None, names: Mapping[UUID, SubscriptionName]) -> MissedLead:
    if miss is None:
        return MissedLead(row=row, business="", reason="no business subscribes to this vertical")
    business = names[miss.subscription_id].business if miss.subscription_id in names else ""
    return MissedLead(row=row, business=business, reason="; ".join(failure.detail for failure in miss.failures))


def _as_received(lead: lead_store.LeadRecord) -> OpenLead:
    """Return the lead in its first state, so that a decision qualifies it again."""
    return OpenLead(
        lead_id=lead.lead_id,
        state=LeadState.received,
        facts=lead.facts,
        received_at=lead.received_at,
        qualified_at=lead.qualified_at,
        provider_id=lead.provider_id,
    )


async def _list_winners_today(request: AnyRequest, lead_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return the businesses that would get the leads by today's rules, by lead. Writes nothing.

    A lead that no business would get is left out.
    """
    if not lead_ids:
        return {}
    rules, now = await services(request).catalog.current(), clock.now()
    async with session(services(request).reports) as connection:
        leads = await lead_store.list_leads(connection, lead_ids)
        again = [(_as_received(lead), rules.verticals[lead.vertical_id]) for lead in leads]
        answers = await explorer.decide_again(connection, again, rules, now)
        winners = {
            lead.lead_id: answer.winner.subscription_id
            for lead, answer in zip(leads, answers, strict=True)
            if answer.winner is not None
        }
        names = await lead_store.list_subscriptions(connection, set(winners.values()))
    return {lead_id: names[winner].business for lead_id, winner in winners.items()}


@post(HOME)
async def reschedule(request: AnyRequest) -> Response[bytes]:
    """Decide the selected waiting leads now, or hold them, but never beyond the end of their waiting time."""
    viewer, form = await submitted(request, RescheduleForm, CallerKind.operator)
    resources, now = services(request), clock.now()
    selected = {lead_id for text in form.lead[:MOST_WAITING] if (lead_id := ids.decode("lead", text))}
    held = form.act == "hold"
    planned = now + timedelta(minutes=form.minutes) if held else now
    async with transaction(resources.pool) as connection:
        waiting = await lead_store.list_these_waiting(connection, selected)
        due = {lead.id: max(now, min(planned, lead.ends_at)) for lead in waiting}
        changed = await lead_store.mark_due(connection, due)
        for lead_id in changed:
            until = due[lead_id].isoformat(timespec="seconds") if held else None
            await audit.record(
                connection,
                now,
                viewer.actor,
                f"lead.{form.act}",
                ids.encode("lead", lead_id),
                reason=form.reason.strip(),
                until=until,
            )
    if not held:
        for lead_id in changed:
            await resources.notifier.notify("walk", lead_id)
    return redirect(request, HOME, _describe_result(form, len(selected), len(changed)))


def _describe_result(form: RescheduleForm, selected: int, changed: int) -> str:
    if not selected:
        return "Select at least one lead."
    subject = "1 lead is" if changed == 1 else f"{changed} leads are"
    action = f"held for {form.minutes} minutes, or to the end of their time" if form.act == "hold" else "decided now"
    unchanged = f" {selected - changed} no longer waiting." if selected > changed else ""
    return f"{subject} {action}.{unchanged}"


handlers: tuple[Any, ...] = (show_unroutable, reschedule)
