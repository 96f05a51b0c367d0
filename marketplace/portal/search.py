"""One search for everything that a member can open: pages, and by id or name leads, businesses and providers.

What is searched for is sent in the body of a form, never in an address. A person is not looked up by this page: it
offers the button that does, because each look-up is recorded.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from marketplace.database.db import Connection, session
from marketplace.portal.business.lead_list import LeadRow, search_rows
from marketplace.portal.business.lead_search import LONGEST_SEARCH, fits, hash_person
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import changing, fill, label, show_again, show_form
from marketplace.portal.frame import page
from marketplace.portal.navigation import NAVIGATION
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.reports import TABS as REPORT_TABS
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS
from marketplace.web.http import AnyRequest, services

HOME: Final = "/search"
MOST_HITS: Final = 10
"Hits of each group."
OBJECTS: Final = {
    CallerKind.operator: {
        "lead": ("Lead", "/operator/routing/"),
        "biz": ("Business", "/operator/businesses/"),
        "prov": ("Provider", "/operator/providers/"),
        "sub": ("Subscription", "/operator/subscriptions/"),
        "ret": ("Return", "/operator/returns/"),
        "del": ("Deletion request", "/operator/compliance/deletions/"),
        "sim": ("What-if", "/operator/simulations/"),
    },
    CallerKind.business: {"lead": ("Lead", "/business/leads/"), "sub": ("Subscription", "/business/matching/")},
    CallerKind.provider: {"lead": ("Submission", "/provider/submissions/")},
}
"Objects that a member may open by an id, with the beginning of their pages' addresses."


class SearchForm(msgspec.Struct, frozen=True, kw_only=True):
    """Search for anything."""

    q: Annotated[
        str,
        Meta(min_length=1, max_length=LONGEST_SEARCH, pattern=WORDS),
        label("Name, phone, e-mail, id or page", kind="search", autocomplete="off", autofocus=""),
    ]


class SearchHit(msgspec.Struct, frozen=True):
    """Something that was found: its name, the address of its page, and what it is."""

    name: str
    address: str
    about: str


def find_pages(kind: CallerKind, text: str) -> Iterator[SearchHit]:
    """Yield the pages of a kind of member whose names fit the text."""
    for entry in NAVIGATION[kind]:
        if fits(text, "", entry.name, entry.group):
            yield SearchHit(entry.name, entry.path, "Page")
    if kind is CallerKind.operator:
        for path, name in REPORT_TABS:
            if fits(text, "", name, "Reports"):
                yield SearchHit(name, path, "Report")


def find_object(kind: CallerKind, text: str) -> Iterator[SearchHit]:
    """Yield the page of the object with this public id. Whether the object exists is said by its page."""
    prefix = text.partition("_")[0]
    if prefix in OBJECTS[kind] and ids.decode(prefix, text) is not None:
        name, home = OBJECTS[kind][prefix]
        yield SearchHit(text, f"{home}{text}", name)


async def find_parties(connection: Connection, text: str) -> tuple[SearchHit, ...]:
    """Return the businesses and providers whose names hold the text, the newest first."""
    businesses = await back_office_store.list_businesses(connection, None, MOST_HITS, name=text)
    providers = await back_office_store.list_providers(connection, None, MOST_HITS, name=text)
    return (
        *(SearchHit(row.name, f"/operator/businesses/{ids.encode('biz', row.id)}", "Business") for row in businesses),
        *(SearchHit(row.name, f"/operator/providers/{ids.encode('prov', row.id)}", "Provider") for row in providers),
    )


@get(HOME)
async def show_search(request: AnyRequest) -> Response[bytes]:
    """Show the search."""
    return await _search_page(request, await visitor(request))


@post(HOME)
async def search(request: AnyRequest) -> Response[bytes]:
    """Show what the search finds."""
    viewer, fields = await changing(request, role=Role.viewer)
    try:
        text = fill(SearchForm, fields).q.strip()
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _search_page(request, viewer))
    app = services(request)
    hits = [*find_object(viewer.kind, text), *find_pages(viewer.kind, text)]
    is_person = False
    async with session(app.pool) as connection:
        if viewer.kind is CallerKind.operator:
            hits += await find_parties(connection, text)
            is_person = bool(hash_person(app.sealer, text))
        elif viewer.kind is CallerKind.business:
            leads = await search_rows(connection, app.sealer, viewer, text, None, MOST_HITS)
            hits += [
                SearchHit(row.who or "Lead", f"/business/leads/{row.public_id}", " · ".join(filter(None, _about(row))))
                for row in leads.rows
            ]
    return await _search_page(request, viewer, text, tuple(hits), is_person=is_person)


def _about(row: LeadRow) -> tuple[str, str, str]:
    return "Lead", row.need, row.where


async def _search_page(
    request: AnyRequest, viewer: Viewer, text: str = "", hits: tuple[SearchHit, ...] = (), *, is_person: bool = False
) -> Response[bytes]:
    context: dict[str, Any] = {
        "form": show_form(SearchForm, {"q": text}),
        "search": text,
        "hits": hits,
        "is_person": is_person,
    }
    if viewer.kind is CallerKind.business:
        return await business_page(request, viewer, "search.html", **context)
    return page(request, viewer, "search.html", wallet_summary=None, open_notices=0, **context)


handlers = (show_search, search)
