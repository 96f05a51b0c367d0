"""Quality of a provider's leads: how many sold and won, and where the losses are, by service and sub-id."""

import asyncio
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get

from marketplace.certificates import store as certificates_store
from marketplace.certificates.store import CertificateCount
from marketplace.database.db import session
from marketplace.portal import charts
from marketplace.portal.certificate_words import CERTIFICATE_KINDS, CERTIFICATE_REASONS, CERTIFICATE_TONES
from marketplace.portal.frame import badge, page
from marketplace.portal.listing import Column, Listing
from marketplace.portal.provider import store
from marketplace.portal.provider.loss_lists import SUB_IDS, RejectionLine, SubIdLine, fault_listing, rejection_listing
from marketplace.portal.provider.overview import accepted, fault_lines, sub_id_lines
from marketplace.portal.provider.page_filters import question_of, rows_of
from marketplace.portal.provider.spec import list_verticals
from marketplace.portal.provider.store import RejectedLead, ReturnReasonCount
from marketplace.portal.provider.wording import RETURNS, reason_in_words
from marketplace.portal.session import visitor
from marketplace.reports.figures import load_weighed
from marketplace.reports.quality import FIELDS, Quality, quality_of
from marketplace.reports.question import Question
from marketplace.reports.rows import Filters, pick_ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services, wants_csv

USUAL_DAYS: Final = 30
MOST_LOOKED_AT: Final = 200
"Examples of reasons are searched among so many of the newest rejected leads."


RETURN_REASONS: Final = Listing[ReturnReasonCount](
    caption="Returns by reason",
    columns=(
        Column("Reason", lambda row: RETURNS.get(row.reason, row.reason)),
        Column("Result", lambda row: badge(row.state, {"granted": "bad", "denied": "good"}.get(row.state, "warn"))),
        Column("Leads", lambda row: row.leads, style="num"),
    ),
)


CERTIFICATE_COUNTS: Final = Listing[CertificateCount](
    caption="Certificates by result",
    columns=(
        Column("Service", lambda row: CERTIFICATE_KINDS[row.kind]),
        Column("Result", lambda row: badge(row.state, CERTIFICATE_TONES[row.state])),
        Column("Reason", lambda row: CERTIFICATE_REASONS[row.reason] if row.reason else "Not checked yet."),
        Column("Certificates", lambda row: row.certificates, style="num"),
    ),
)


@get("/provider/quality")
async def show_quality(request: AnyRequest) -> Response[bytes]:
    """Show the funnel of leads, and the reasons of refusals, rejections and returns."""
    viewer = await visitor(request, CallerKind.provider)
    question = question_of(request, viewer, USUAL_DAYS)
    weighed = await load_weighed(services(request).reports, question, (*FIELDS, "lead"), ())
    report = await quality_of(services(request).reports, question, weighed.leads)
    if wants_csv(request):
        everything = msgspec.structs.replace(report.total, key="all")
        sub_ids = [SubIdLine(quality=quality, accepted=accepted(quality)) for quality in (everything, *report.sub_ids)]
        return await SUB_IDS.download(sub_ids)
    rejected = await asyncio.to_thread(pick_ids, question, Filters(state="rejected"), weighed)
    async with session(services(request).pool) as connection:
        returns = await store.list_return_reasons(connection, viewer.owner, viewer.mode, question.since, question.until)
        certificates = await certificates_store.count_states(connection, viewer.owner, question.since, question.until)
        shapes = await store.list_fault_shapes(connection, viewer.owner, viewer.mode)
        examples = await store.list_rejected(connection, viewer.owner, rejected[:MOST_LOOKED_AT])
    total = report.total
    faults = fault_lines(report.faults, total.refused, shapes)
    rejections = [
        RejectionLine(
            reason=reason_in_words(row.why),
            leads=row.leads,
            rows=rows_of(question, state="rejected", why=row.why),
            example=_example(examples.get(row.why)),
        )
        for row in report.rejections
    ]
    return page(
        request,
        viewer,
        "provider/quality.html",
        question=question,
        basis=report.basis,
        total=total,
        accepted=accepted(total),
        funnel=_funnel(question, total),
        fault_listing=fault_listing(faults),
        faults=faults,
        rejection_listing=rejection_listing(rejections),
        rejections=rejections,
        sub_id_listing=SUB_IDS,
        sub_ids=sub_id_lines(question, report.sub_ids),
        return_listing=RETURN_REASONS,
        returns=returns,
        certificate_listing=CERTIFICATE_COUNTS,
        certificates=certificates if viewer.mode == "live" else (),
        services=await list_verticals(request),
        links={name: rows_of(question, state=name) for name in ("duplicate", "returned")},
    )


def _example(lead: RejectedLead | None) -> tuple[UUID, str] | None:
    """Return a rejected lead with its answer to the question that the reason is about, or with its score."""
    if lead is None:
        return None
    finding = next((finding for finding in lead.verdict.findings if lead.reason.startswith(finding.dimension)), None)
    if finding is None:
        return lead.id, f"{lead.verdict.score} points"
    return lead.id, f"{finding.value or 'no answer'}; required: {finding.threshold}"


def _funnel(question: Question, total: Quality) -> Any:
    steps = (
        ("Inquiries sent", total.sent, ""),
        ("Leads", accepted(total), "valid"),
        ("Prospects", total.qualified, "qualified"),
        ("Prospects sold", total.delivered, "delivered"),
        ("Prospects contacted", total.contacted, "contacted"),
        ("Prospects won", total.won, "won"),
    )
    stages: list[charts.FunnelStage] = []
    before = 0
    for name, leads, reached in steps:
        lost = f"{before - leads:,}" if stages and before > leads else ""
        href = rows_of(question, reached=reached) if reached else ""
        stages.append(charts.FunnelStage(name=name, count=leads, href=href, lost=lost))
        before = leads
    return charts.funnel("How far your leads came", stages, about="Counts by received time.")


handlers: tuple[Any, ...] = (show_quality,)
