"""Certificates of consent, newest first: what their services said, and why a lead did not go on."""

from typing import Any, Final

from litestar import Response, get

from marketplace.certificates import store as certificates_store
from marketplace.certificates.store import CertificateRow
from marketplace.database.db import session
from marketplace.portal.certificate_words import CERTIFICATE_KINDS, CERTIFICATE_REASONS, CERTIFICATE_TONES
from marketplace.portal.frame import badge, page, short
from marketplace.portal.listing import Column, Link, Listing, only_in_file
from marketplace.portal.operator.compliance import TABS
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import visitor
from marketplace.runtime import ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, page_cursor, services, wants_csv
from routing.certificate import CertificateState

HOME: Final = "/operator/compliance/certificates"
MOST_LEADS_IN_FILE: Final = 10_000


def _reason(row: CertificateRow) -> str:
    if row.reason is not None:
        return CERTIFICATE_REASONS[row.reason]
    return "Waits for a business." if row.waiting else "Not checked: no business was found for the lead."


def _lead_page(row: CertificateRow) -> str:
    return f"/operator/routing/{ids.encode('lead', row.lead_id)}"


CERTIFICATES: Final = Listing[CertificateRow](
    caption="Certificates of consent",
    name="certificates",
    columns=(
        Column(
            "Received",
            lambda row: row.made_at,
            file="received_at",
            value=lambda row: row.made_at.isoformat(),
            time="second",
        ),
        Column(
            "Lead",
            lambda row: Link(_lead_page(row), short(ids.encode("lead", row.lead_id))),
            file="lead_id",
            value=lambda row: ids.encode("lead", row.lead_id),
        ),
        Column("Provider", lambda row: row.provider, file="provider"),
        Column("Service", lambda row: CERTIFICATE_KINDS[row.kind], file="service", value=lambda row: row.kind),
        Column(
            "Result",
            lambda row: badge(row.state, CERTIFICATE_TONES[row.state]),
            file="result",
            value=lambda row: row.state,
        ),
        Column(
            "Reason",
            _reason,
            file="reason",
            value=lambda row: row.reason or "",
        ),
        Column("Attempts", lambda row: row.attempts, file="attempts", style="num"),
        Column(
            "Kept until",
            lambda row: row.expires_at,
            file="expires_at",
            value=lambda row: row.expires_at.isoformat() if row.expires_at else "",
            time="day",
        ),
        only_in_file("token_sha256", lambda row: row.token_sha256.hex()),
    ),
)


@get(HOME)
async def show_certificates(request: AnyRequest) -> Response[bytes]:
    """Show certificates with the results of their claims, or send them as a file."""
    viewer = await visitor(request, CallerKind.operator)
    as_file, text = wants_csv(request), request.query_params.get("state")
    state = CertificateState(text) if text in set(CertificateState) else None
    leads = MOST_LEADS_IN_FILE if as_file else list_limit(request)
    async with session(services(request).pool) as connection:
        rows = await certificates_store.list_newest(connection, page_cursor(request, "lead"), state, leads + 1)
    lead_ids = list(dict.fromkeys(row.lead_id for row in rows))
    page_ids = set(lead_ids[:leads])
    rows = tuple(row for row in rows if row.lead_id in page_ids)
    if as_file:
        return await CERTIFICATES.download(rows)
    return page(
        request,
        viewer,
        "operator/certificates.html",
        tabs=TABS,
        states=tuple(CertificateState),
        listing=CERTIFICATES,
        rows=rows,
        next_cursor=next_page("lead", lead_ids, leads),
    )


handlers: tuple[Any, ...] = (show_certificates,)
