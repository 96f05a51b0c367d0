"""What a provider's leads are worth to those who get them, and where the losses are, by service and by sub-id."""

import asyncio
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get

from marketplace.auth import Kind
from marketplace.db import session
from marketplace.http import AnyRequest, services, wants_csv
from marketplace.portal import charts
from marketplace.portal.frame import csv, page
from marketplace.portal.provider import store
from marketplace.portal.provider.asking import asked, rows_of
from marketplace.portal.provider.overview import accepted, fault_lines
from marketplace.portal.provider.spec import list_verticals
from marketplace.portal.provider.store import Rejected
from marketplace.portal.provider.words import RETURNS, reason_in_words
from marketplace.portal.session import visitor
from marketplace.reports.figures import load_weighed
from marketplace.reports.quality import FIELDS, Quality, quality_of
from marketplace.reports.question import Question
from marketplace.reports.rows import Filters, pick_ids

USUAL_DAYS: Final = 30
MOST_LOOKED_AT: Final = 200
"Of the newest rejected leads, for an example of each reason: a rarer reason has its list."


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One sub-id, or all together, as the file has it; rates are of 1."""

    sub_id: str
    sent: int
    refused: int
    accepted: int
    duplicates: int
    qualified: int
    sold: int
    delivered: int
    returned: int
    contacted: int
    won: int
    qualified_of_accepted: float | None
    returned_of_delivered: float | None
    won_of_delivered: float | None


@get("/provider/quality")
async def show_quality(request: AnyRequest) -> Response[bytes]:
    """How far leads came, what was refused and why, what was given back and why."""
    viewer = await visitor(request, Kind.provider)
    question = asked(request, viewer, USUAL_DAYS)
    weighed = await load_weighed(services(request).reports, question, (*FIELDS, "lead"), ())
    report = await quality_of(services(request).reports, question, weighed.leads)
    if wants_csv(request):
        lines = [_line("all", report.total), *(_line(one.key, one) for one in report.sub_ids)]
        return await csv("quality", lines, Line.__struct_fields__)
    rejected = await asyncio.to_thread(pick_ids, question, Filters(state="rejected"), weighed)
    async with session(services(request).pool) as connection:
        returns = await store.list_return_reasons(connection, viewer.owner, viewer.mode, question.since, question.until)
        shapes = await store.list_fault_shapes(connection, viewer.owner, viewer.mode)
        examples = await store.list_rejected(connection, viewer.owner, rejected[:MOST_LOOKED_AT])
    total = report.total
    return page(
        request, viewer, "provider/quality.html", question=question, basis=report.basis, total=total,
        accepted=accepted(total), funnel=_funnel(question, total),
        faults=fault_lines(report.faults, total.refused, shapes),
        rejections=tuple((reason_in_words(one.why), one.leads, rows_of(question, state="rejected", why=one.why),
                          _example(examples.get(one.why))) for one in report.rejections),
        sub_ids=tuple((one, accepted(one), rows_of(question, sub_id=one.key)) for one in report.sub_ids),
        returns=tuple((RETURNS.get(one.reason, one.reason), one.state, one.leads) for one in returns),
        services=await list_verticals(request), links={name: rows_of(question, state=name) for name in
                                                       ("duplicate", "returned")},
    )  # fmt: skip


def _example(one: Rejected | None) -> tuple[UUID, str] | None:
    """A lead rejected for this reason, and what it said of the point that the reason names, or its score."""
    if one is None:
        return None
    found = next((each for each in one.verdict.findings if one.reason.startswith(each.dimension)), None)
    if found is None:
        return one.id, f"{one.verdict.score} points"
    return one.id, f"{found.value or 'not said'}; asked for: {found.threshold}"


def _line(name: str, quality: Quality) -> Line:
    return Line(
        sub_id=name, sent=quality.sent, refused=quality.refused, accepted=accepted(quality),
        duplicates=quality.duplicates, qualified=quality.qualified, sold=quality.sold, delivered=quality.delivered,
        returned=quality.returned, contacted=quality.contacted, won=quality.won,
        qualified_of_accepted=quality.acceptance, returned_of_delivered=quality.return_rate,
        won_of_delivered=quality.conversion,
    )  # fmt: skip


def _funnel(question: Question, total: Quality) -> Any:
    steps = (
        ("Sent", total.sent, ""), ("Accepted", accepted(total), "valid"), ("Qualified", total.qualified, "qualified"),
        ("Sold", total.delivered, "delivered"), ("Contacted", total.contacted, "contacted"), ("Won", total.won, "won"),
    )  # fmt: skip
    stages: list[charts.Stage] = []
    before = 0
    for name, leads, reached in steps:
        lost = f"{before - leads:,}" if stages and before > leads else ""
        stages.append(charts.Stage(
            name=name, count=leads, href=rows_of(question, reached=reached) if reached else "", lost=lost
        ))  # fmt: skip
        before = leads
    return charts.funnel("How far your leads came", stages, about="Counts by received time.")


handlers: tuple[Any, ...] = (show_quality,)
