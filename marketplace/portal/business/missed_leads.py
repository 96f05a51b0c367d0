"""Leads that a business missed by one rule alone: a limit, the wallet, the area, the hours or a minimum."""

from typing import Final

import msgspec
from litestar import Response, get

from marketplace.portal.business.reports import HOME, TABS, question_of
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.listing import Column, Link, Listing, only_in_file
from marketplace.portal.session import visitor
from marketplace.reports.unsold import Widening, load_unsold
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services, wants_csv


def _subscription(row: Widening) -> Link | None:
    return Link(f"/business/matching/{row.subscription_id}", row.subscription) if row.subscription else None


MISSED: Final = Listing[Widening](
    caption="Leads that one change would have added",
    name="missed",
    columns=(
        Column("Subscription", _subscription, file="subscription", value=lambda row: row.subscription),
        Column("Change", lambda row: row.sentence, file="change", value=lambda row: row.sentence),
        Column("Sold to nobody", lambda row: row.leads, file="unsold", style="num"),
        Column("Went to another business", lambda row: row.contested, file="contested", style="num"),
        only_in_file("rule", lambda row: row.rule),
        only_in_file("by", lambda row: row.by),
        only_in_file("unit", lambda row: row.unit),
        only_in_file("too_low_by", lambda row: row.missing),
    ),
)


@get(f"{HOME}/missed")
async def show_missed(request: AnyRequest) -> Response[bytes]:
    """Show the leads that one rule alone kept from the business, with the change that would have added them."""
    viewer = await visitor(request, CallerKind.business)
    question = msgspec.structs.replace(question_of(request, viewer), vertical=None)
    report = await load_unsold(services(request).reports, question)
    if wants_csv(request):
        return await MISSED.download(report.widenings)
    return await business_page(
        request,
        viewer,
        "business/missed.html",
        tabs=TABS,
        listing=MISSED,
        rows=report.widenings,
        basis=report.basis,
    )


handlers = (show_missed,)
