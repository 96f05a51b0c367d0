"""What nobody could take: grouped by the nearest miss, with what would sell it, and those that still wait.

An unsold lead has ended: it is its provider's again, its person may ask again, and nobody is sold it behind their back.
What an operator can do is to have those that still wait looked at now, or held until later, and to see what other rules
would have brought. Neither changes where a lead stands: only when the same rules look at it next.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
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
from marketplace.portal.forms import submitted
from marketplace.portal.frame import badge, duration, page, redirect, short, words
from marketplace.portal.listing import Column, Link, Listing, muted, only_in_file
from marketplace.portal.operator import lead_store
from marketplace.portal.operator.lead_store import WaitingLead
from marketplace.portal.session import Viewer, visitor
from marketplace.reports.figures import load_weighed
from marketplace.reports.question import Question, read_question
from marketplace.reports.rows import Filters, ReportRow, list_rows, pick_ids
from marketplace.reports.unsold import FIELDS, MISSES, Widening, unsold_of
from marketplace.runtime import clock, ids
from marketplace.security import audit
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS
from marketplace.web.http import AnyRequest, page_limit, services, wants_csv
from routing.decision import OpenLead, nearest_recorded
from routing.lifecycle import LeadState

HOME: Final = "/operator/unroutable"
USUAL_DAYS: Final = 7
MOST_WAITING: Final = 200
MOST_WIDENINGS: Final = 20
MOST_TRIED: Final = 20
"Leads taken again at once: each is a whole decision, and the page is to stay quick."
CSV_LINES: Final = 10_000
HOLDS: Final = (10, 20, 30, 60)
"Minutes for which a lead is held back; no market's patience lasts longer."


class UnsoldGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that the same rule kept from the business nearest to having them."""

    why: str
    leads: int
    share: float


class MissedLead(msgspec.Struct, frozen=True, kw_only=True):
    """One unsold lead, the business that it missed by least, and who would have it today.

    `today` is empty if nobody would have it, None if that was not computed.
    """

    row: ReportRow
    business: str
    by: str
    today: str | None = None


class RescheduleForm(msgspec.Struct, frozen=True, kw_only=True):
    """Which leads to look at now, or to hold back for so many minutes, and why."""

    act: Literal["look_again", "hold"] = "look_again"
    lead: tuple[Annotated[str, Meta(max_length=40)], ...] = ()
    minutes: Annotated[int, Meta(ge=1, le=60)] = HOLDS[0]
    reason: Annotated[str, Meta(min_length=1, max_length=500, pattern=WORDS)]


def _lead_link(lead_id: UUID) -> Link:
    lead = ids.encode("lead", lead_id)
    return Link(f"/operator/routing/{lead}", short(lead))


def _today_cell(missed: MissedLead) -> object:
    if missed.today is None:
        return muted("not asked")
    return (badge("sold", "good"), missed.today) if missed.today else badge("nobody", "muted")


MISSED: Final = Listing[MissedLead](
    caption="Unsold leads",
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
            lambda missed: _lead_link(missed.row.id),
            file="lead_id",
            value=lambda missed: ids.encode("lead", missed.row.id),
        ),
        Column("Market", lambda missed: missed.row.vertical, file="vertical"),
        Column(
            "Provider",
            lambda missed: Link(
                f"/operator/providers/{ids.encode('prov', missed.row.provider_id)}", missed.row.provider
            ),
            file="provider",
            value=lambda missed: missed.row.provider,
        ),
        only_in_file("why", lambda missed: missed.row.why),
        Column("Nearest", lambda missed: missed.business or None, file="nearest", value=lambda missed: missed.business),
        Column("Missed by", lambda missed: missed.by, file="by"),
    ),
    order=("lead_id", "received_at", "vertical", "provider", "why", "nearest", "by"),
)
MISSED_AND_TODAY: Final = msgspec.structs.replace(MISSED, columns=(*MISSED.columns, Column("Today", _today_cell)))
WIDENINGS: Final = Listing[Widening](
    caption="Widenings by subscription",
    columns=(
        Column("Business", lambda widening: widening.business),
        Column("Change", lambda widening: widening.sentence),
        Column("Leads", lambda widening: widening.leads, style="num"),
    ),
)


def waiting_listing(now: datetime) -> Listing[WaitingLead]:
    """Return the list of waiting leads, each with a box to tick."""

    def box(lead: WaitingLead) -> Markup:
        public = ids.encode("lead", lead.id)
        return Markup('<input type="checkbox" name="lead" value="{0}" aria-label="Lead {0}">').format(public)

    def until(at: datetime, prefix: str, over: str) -> str:
        return f"{prefix}{duration((at - now).total_seconds())}" if at > now else over

    return Listing(
        caption="Waiting leads",
        columns=(
            Column("Chosen", box),
            Column("Lead", lambda lead: _lead_link(lead.id)),
            Column("Market", lambda lead: lead.vertical),
            Column("Where", lambda lead: lead.postal_code or None),
            Column("Because of", lambda lead: words(lead.reason or "open")),
            Column(
                "Waiting",
                lambda lead: duration((now - (lead.qualified_at or lead.received_at)).total_seconds()),
                style="num",
            ),
            Column("Next look", lambda lead: until(lead.due_at, "", "now"), style="num"),
            Column("Ends", lambda lead: until(lead.ends_at, "in ", "at the next look"), style="num"),
        ),
    )


@get(HOME)
async def show_unroutable(request: AnyRequest) -> Response[bytes]:
    """Shows what was unsold by its nearest miss, and what still waits."""
    viewer = await visitor(request, CallerKind.operator)
    question, pool = question_of(request, viewer), services(request).reports
    why = request.query_params.get("why") or None
    shown, tried = page_limit(request), request.query_params.get("today") == "1"
    if wants_csv(request):
        shown, tried = CSV_LINES, False
    weighed, waiting = await asyncio.gather(
        load_weighed(pool, question, (*FIELDS, "lead"), MISSES), _waiting(pool, question.mode)
    )
    found = await asyncio.to_thread(pick_ids, question, Filters(state="unsold", why=why), weighed)
    report, missed, names = await asyncio.gather(
        unsold_of(pool, question, weighed, MOST_WIDENINGS),
        _missed(pool, found[:shown]),
        _today(request, found[: min(shown, MOST_TRIED)] if tried else ()),
    )
    if wants_csv(request):
        return await MISSED.download(missed)
    most = min(MOST_TRIED, len(missed)) if tried else 0
    rows = [msgspec.structs.replace(one, today=names.get(one.row.id, "")) for one in missed[:most]]
    rows += missed[most:]
    return page(
        request,
        viewer,
        "operator/unroutable.html",
        report=report,
        rows=rows,
        waiting=waiting,
        why=why or "",
        listing=MISSED_AND_TODAY if tried else MISSED,
        widenings=WIDENINGS,
        waiting_listing=waiting_listing(clock.now()),
        groups=[UnsoldGroup(why=one.why, leads=one.leads, share=one.leads / report.unsold) for one in report.reasons],
        more=len(found) - len(rows),
        waits=Counter(one.reason or "open" for one in waiting).most_common(),
        sold=len(names) if tried else None,
        most=min(MOST_TRIED, len(rows)),
        holds=HOLDS,
    )


def question_of(request: AnyRequest, viewer: Viewer, days: int = USUAL_DAYS) -> Question:
    """The days in the address, or the last few; in the viewer's zone, of live leads unless it says test."""
    given = {name: request.query_params[name] for name in ("from", "to", "mode") if request.query_params.get(name)}
    question = read_question({"zone": viewer.zone, **given}, clock.now())
    if "from" not in given:
        question = msgspec.structs.replace(question, first=question.last - timedelta(days=days - 1))
    return msgspec.structs.replace(question, vertical=request.query_params.get("vertical") or None)


async def _waiting(pool: Pool, mode: str) -> tuple[WaitingLead, ...]:
    async with session(pool) as connection:
        return await lead_store.list_waiting(connection, mode, MOST_WAITING)


async def _missed(pool: Pool, leads: Sequence[UUID]) -> tuple[MissedLead, ...]:
    """Each lead with whom it missed by least: three statements, however many leads."""
    rows = await list_rows(pool, leads)
    async with session(pool) as connection:
        decisions = await lead_store.list_last_decisions(connection, leads)
        misses = {
            lead_id: nearest_recorded(read_candidates(decision.candidates)) for lead_id, decision in decisions.items()
        }
        orders = await lead_store.list_subscriptions(
            connection, {miss.subscription_id for miss in misses.values() if miss}
        )
    found = []
    for row in rows:
        miss = misses.get(row.id)
        order = orders.get(miss.subscription_id) if miss else None
        words = "; ".join(failure.detail for failure in miss.failures) if miss else "nobody subscribes to this market"
        found.append(MissedLead(row=row, business=order.business if order else "", by=words))
    return tuple(found)


def _as_received(lead: lead_store.LeadRecord) -> OpenLead:
    """Return the lead as if it had just come in, so that it is qualified again."""
    return OpenLead(
        lead_id=lead.lead_id,
        state=LeadState.received,
        facts=lead.facts,
        received_at=lead.received_at,
        qualified_at=lead.qualified_at,
    )


async def _today(request: AnyRequest, wanted: Sequence[UUID]) -> dict[UUID, str]:
    """The businesses that would have these leads by today's rules, with nothing written; others are missing."""
    if not wanted:
        return {}
    today, now = await services(request).catalog.current(), clock.now()
    async with session(services(request).reports) as connection:
        leads = await lead_store.list_leads(connection, wanted)
        again = [(_as_received(lead), today.verticals[lead.vertical_id]) for lead in leads]
        answers = await explorer.decide_again(connection, again, today, now)
        winners = {
            lead.lead_id: answer.winner.subscription_id
            for lead, answer in zip(leads, answers, strict=True)
            if answer.winner is not None
        }
        orders = await lead_store.list_subscriptions(connection, set(winners.values()))
    return {lead_id: orders[winner].business for lead_id, winner in winners.items()}


@post(HOME)
async def look_again(request: AnyRequest) -> Response[bytes]:
    """Has waiting leads decided about now, or not before later: by the same rules, and never past their end."""
    viewer, form = await submitted(request, RescheduleForm, CallerKind.operator)
    found, now = services(request), clock.now()
    wanted = {lead_id for text in form.lead[:MOST_WAITING] if (lead_id := ids.decode("lead", text))}
    held = form.act == "hold"
    later = now + timedelta(minutes=form.minutes) if held else now
    async with transaction(found.pool) as connection:
        waiting = await lead_store.list_these_waiting(connection, wanted)
        due = {one.id: max(now, min(later, one.ends_at)) for one in waiting}
        moved = await lead_store.mark_due(connection, due)
        for lead_id in moved:
            await audit.record(
                connection,
                now,
                viewer.actor,
                f"lead.{form.act}",
                ids.encode("lead", lead_id),
                reason=form.reason.strip(),
                until=due[lead_id].isoformat(timespec="seconds") if held else None,
            )
    for lead_id in () if held else moved:
        await found.notifier.notify("walk", lead_id)
    return redirect(request, HOME, _done(form, len(wanted), len(moved)))


def _done(form: RescheduleForm, wanted: int, moved: int) -> str:
    if not wanted:
        return "Tick the leads that you mean."
    word = "lead is" if moved == 1 else "leads are"
    what = f"held for {form.minutes} minutes, or to the end of their time" if form.act == "hold" else "looked at now"
    left = f" {wanted - moved} had moved on meanwhile." if wanted > moved else ""
    return f"{moved} {word} {what}.{left}"


handlers: tuple[Any, ...] = (show_unroutable, look_again)
