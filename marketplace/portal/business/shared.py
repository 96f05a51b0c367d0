"""Shared leads that the business bought elsewhere: those that were imported, and the way to import more."""

from typing import Final

from litestar import Response, get

from marketplace import errors, ids
from marketplace.auth import Kind
from marketplace.db import session
from marketplace.http import AnyRequest, page_cursor, page_limit, services, wants_csv
from marketplace.imports import store as imports
from marketplace.imports.wire import Subject
from marketplace.portal.business.purse import business_page, load_purse
from marketplace.portal.business.reports import HOME as REPORTS
from marketplace.portal.business.reports import TABS
from marketplace.portal.forms import told
from marketplace.portal.frame import csv
from marketplace.portal.session import Viewer, visitor
from marketplace.shared_leads import store
from marketplace.shared_leads.store import SharedLead

HOME: Final = f"{REPORTS}/shared-leads"
IMPORTS_SHOWN: Final = 10


@get(HOME)
async def show_shared(request: AnyRequest) -> Response[bytes]:
    """Lists the shared leads that were imported, and takes a file of more."""
    return await shared_page(request, await visitor(request, Kind.business))


async def shared_page(
    request: AnyRequest, viewer: Viewer, error: errors.MarketplaceError | None = None
) -> Response[bytes]:
    """The page, with what was wrong with the file that was just sent."""
    as_file = wants_csv(request)
    limit, after = 20_000 if as_file else page_limit(request), page_cursor(request, "shl")
    async with session(services(request).pool) as connection:
        purse = await load_purse(connection, viewer)
        rows = await store.list_leads(connection, viewer.owner, after, limit + 1)
        runs = await imports.list_imports(connection, viewer.owner, "live", Subject.shared_leads, None, IMPORTS_SHOWN)
    if as_file:
        return await csv(
            "shared-leads", rows[:limit], tuple(name for name in SharedLead.__struct_fields__ if name != "id")
        )
    faults = told(error) if isinstance(error, errors.InvalidInput) else {}
    return await business_page(
        request,
        viewer,
        "business/shared.html",
        status=422 if error else 200,
        purse=purse,
        rows=rows[:limit],
        runs=runs,
        tabs=TABS,
        next_cursor=ids.encode("shl", rows[limit - 1].id) if len(rows) > limit else None,
        faults=faults,
        wrong=error.detail if error and not faults else "",
    )


handlers = (show_shared,)
