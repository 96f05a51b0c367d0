"""Pages behind the links of messages: confirm an address, record an outcome. Nobody needs to be signed in.

Opening a link shows a page and changes nothing, since mail programs follow links by themselves; its button does.
"""

from typing import Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.delivery import store as delivery_store
from marketplace.delivery.mailing import OUTCOME_WORDS, OutcomeLink
from marketplace.directory.mail_endpoints import MailDesk, MailEndpoint
from marketplace.feedback import flow as feedback_flow
from marketplace.feedback.flow import DispositionReport, LeadHolder
from marketplace.feedback.store import DispositionKind, DispositionSource
from marketplace.feedback.wire import DispositionBody
from marketplace.mail.tokens import TokenPurpose, Tokens
from marketplace.portal.frame import page
from marketplace.portal.session import demand_own_page
from marketplace.runtime import clock, errors, ids
from marketplace.web.http import AnyRequest, Services, address_name, count, services
from marketplace.web.limiting import RateBudget, RatePolicy

POSTS_PER_ADDRESS: Final = 60
"Buttons per minute and network address: enough for an office behind one address."

EXPIRED: Final = "This link has expired. Sign in to record what became of a lead."


class MailLinkPage(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the page of a link. Without a `button` there is nothing left to do."""

    heading: str
    sentence: str
    button: str = ""
    further: tuple[str, str] | None = None


def _show(request: AnyRequest, content: MailLinkPage) -> Response[bytes]:
    return page(request, None, "mail_link.html", content=content)


async def _demand_button(request: AnyRequest) -> None:
    """Raise CrossSite unless one of our own pages sent the request, and RateLimited for too many."""
    demand_own_page(request)
    await count(request, RatePolicy(budget=RateBudget.sign_ins, quota=POSTS_PER_ADDRESS), address_name(request))


@get("/mail/confirm/{token:str}", signed_out=True)
async def show_confirmation(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """Show which business wants its leads sent to the address, and the button that confirms it."""
    app = services(request)
    async with session(app.pool) as connection:
        target = await MailDesk(app.pool, app.settings).find_confirmable(connection, token, clock.now())
    return _show(request, _confirmed(target) if target.state == "active" else _to_confirm(target))


@post("/mail/confirm/{token:str}", signed_out=True)
async def confirm_address(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """Confirm the address: from now on leads are sent to it."""
    await _demand_button(request)
    app = services(request)
    return _show(request, _confirmed(await MailDesk(app.pool, app.settings).confirm(token)))


def _to_confirm(target: MailEndpoint) -> MailLinkPage:
    return MailLinkPage(
        heading="Confirm this address",
        sentence=f"{target.business_name} wants to receive its leads at {target.address}.",
        button="Confirm this address",
    )


def _confirmed(target: MailEndpoint) -> MailLinkPage:
    return MailLinkPage(
        heading="The address is confirmed",
        sentence=f"Leads for {target.business_name} are sent to {target.address}.",
        further=("/business/delivery", "Open the delivery page"),
    )


class OutcomeTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Content of an outcome link: the outcome, the report of it, the business, and the public id of the lead."""

    outcome: OutcomeLink
    report: DispositionReport
    holder: LeadHolder
    lead: str


async def _find_outcome(app: Services, token: str) -> OutcomeTarget:
    """Return what a link records. Raises TokenExpired."""
    content = Tokens(app.settings.master_key).read_link(TokenPurpose.outcome, token, clock.now())
    if content is None or content.detail not in list(OutcomeLink):
        raise errors.TokenExpired(EXPIRED)
    outcome = OutcomeLink(content.detail)
    async with session(app.pool) as connection:
        claim = await delivery_store.find_claim(connection, content.subject)
    if claim is None:
        raise errors.TokenExpired(EXPIRED)
    assignment = ids.encode("asg", content.subject)
    body = DispositionBody(kind=DispositionKind(outcome), event_id=f"mail {assignment} {outcome}")
    return OutcomeTarget(
        outcome=outcome,
        report=DispositionReport(body=body, assignment_id=content.subject),
        holder=LeadHolder(business_id=claim.business_id, mode=None, actor=f"mail {assignment}"),
        lead=ids.encode("lead", claim.lead_id),
    )


@get("/mail/outcome/{token:str}", signed_out=True)
async def show_outcome(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """Show which outcome a link records, and the button that records it."""
    target = await _find_outcome(services(request), token)
    words = OUTCOME_WORDS[target.outcome]
    sentence = "Record this outcome of the lead. It appears in your reports and on the page of the lead."
    return _show(request, MailLinkPage(heading=words, sentence=sentence, button=f"Record: {words}"))


@post("/mail/outcome/{token:str}", signed_out=True)
async def record_outcome(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """Record the outcome of a link, once."""
    await _demand_button(request)
    app = services(request)
    target = await _find_outcome(app, token)
    await feedback_flow.report_one(app.pool, target.holder, DispositionSource.portal, target.report)
    content = MailLinkPage(
        heading="Recorded",
        sentence=f"{OUTCOME_WORDS[target.outcome]}. Thank you.",
        further=(f"/business/leads/{target.lead}", "Open the lead"),
    )
    return _show(request, content)


handlers = (show_confirmation, confirm_address, show_outcome, record_outcome)
