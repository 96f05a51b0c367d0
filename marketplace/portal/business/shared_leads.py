"""Page of the shared leads that a business imported, with a form to import more."""

from typing import Final

from litestar import Response, get

from marketplace.database.db import session
from marketplace.imports import store as imports_store
from marketplace.imports.wire import ImportSubject
from marketplace.portal.business.import_lists import IMPORTS
from marketplace.portal.business.reports import HOME as REPORTS
from marketplace.portal.business.reports import TABS
from marketplace.portal.business.wallet_summary import business_page, load_wallet_summary
from marketplace.portal.frame import badge
from marketplace.portal.listing import Column, Listing, Money, only_in_file
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.security.auth import CallerKind
from marketplace.shared_leads import store as shared_leads_store
from marketplace.shared_leads.store import SharedLead
from marketplace.web.http import AnyRequest, page_cursor, services, wants_csv

HOME: Final = f"{REPORTS}/shared-leads"
IMPORTS_SHOWN: Final = 10


def _outcome(lead: SharedLead) -> object:
    if lead.won_minor is not None:
        return badge("Won"), Money(lead.won_minor, lead.currency)
    return badge("Lost") if lead.lost_at or lead.lost else badge("Open", "muted")


SHARED_LEADS: Final = Listing[SharedLead](
    caption="Shared leads",
    name="shared-leads",
    columns=(
        Column("Received", lambda lead: lead.received_at, file="received_at", time="day"),
        Column("Vendor", lambda lead: lead.vendor, file="vendor"),
        Column("Lead number", lambda lead: lead.external_id, file="external_id"),
        only_in_file("vertical", lambda lead: lead.vertical),
        Column("ZIP", lambda lead: lead.postal_code, file="postal_code"),
        only_in_file("observed_until", lambda lead: lead.observed_until),
        Column("Price", lambda lead: Money(lead.cost_minor, lead.currency), file="cost_minor", style="num"),
        only_in_file("currency", lambda lead: lead.currency),
        Column("Contacted", lambda lead: lead.contacted_at, file="contacted_at", time="day"),
        only_in_file("qualified", lambda lead: lead.qualified),
        Column("Outcome", _outcome),
        only_in_file("won_at", lambda lead: lead.won_at),
        only_in_file("won_minor", lambda lead: lead.won_minor),
        only_in_file("lost_at", lambda lead: lead.lost_at),
        only_in_file("lost", lambda lead: lead.lost),
    ),
    order=tuple(name for name in SharedLead.__struct_fields__ if name != "id"),
)


@get(HOME)
async def show_shared(request: AnyRequest) -> Response[bytes]:
    """Show the imported shared leads, on a page or as a file."""
    return await shared_page(request, await visitor(request, CallerKind.business))


async def shared_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    """Return the page of shared leads and their imports."""
    as_file = wants_csv(request)
    limit, after = 20_000 if as_file else list_limit(request), page_cursor(request, "shl")
    async with session(services(request).pool) as connection:
        wallet_summary = await load_wallet_summary(connection, viewer)
        rows = await shared_leads_store.list_leads(connection, viewer.owner, after, limit + 1)
        runs = await imports_store.list_imports(
            connection, viewer.owner, "live", ImportSubject.shared_leads, None, IMPORTS_SHOWN
        )
    if as_file:
        return await SHARED_LEADS.download(rows[:limit])
    next_cursor = next_page("shl", [row.id for row in rows], limit)
    return await business_page(
        request,
        viewer,
        "business/shared_leads.html",
        wallet_summary=wallet_summary,
        listing=SHARED_LEADS,
        rows=rows[:limit],
        imports=IMPORTS,
        runs=runs,
        tabs=TABS,
        next_cursor=next_cursor,
    )


handlers = (show_shared,)
