"""Addresses of pages with other parameters; pages of lists, with links to the next one, the previous and the first.

A cursor leads forward only. The links therefore carry the cursors of the earlier pages along, in `?trail=`, so that
the previous page is read by the cursor that read it before.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from jinja2 import pass_context
from jinja2.runtime import Context

from marketplace.runtime import ids
from marketplace.web.http import PAGE_LIMIT, AnyRequest, page_limit

MOST_TRAIL: Final = 40
"Earlier pages of which the address holds the cursors; the first page is always one link away."
JOIN: Final = "~"
CUT: Final = "cut"
"First entry of a trail whose earlier cursors were dropped."


def changed_address(path: str, query: Mapping[str, str], **changes: str | None) -> str:
    """Return a page's address with these query parameters changed; None removes one. A new cursor has no trail yet."""
    if "cursor" in changes:
        changes.setdefault("trail", None)
    changed = {name: value for name, value in {**query, **changes}.items() if value not in (None, "")}
    return f"{path}?{urlencode(changed)}" if changed else path


@pass_context
def address(context: Context, **changes: str | None) -> str:
    """Return the address of the page that is shown with these query parameters changed, for a template."""
    return changed_address(str(context["path"]), context["query"], **changes)


def list_limit(request: AnyRequest) -> int:
    """Return the rows of a page: `?limit=`, and without it the usual number, or the most for a list that is sorted.

    Raises InvalidInput for another limit than 1 to 200.
    """
    if "sort" in request.query_params and "limit" not in request.query_params:
        return PAGE_LIMIT
    return page_limit(request)


def next_page(kind: str, row_ids: Sequence[UUID], limit: int) -> str | None:
    """Return the cursor of the next page, or None on the last page.

    `row_ids` are the ids of the rows read: up to `limit` for this page, and more if another page follows.
    """
    return ids.encode(kind, row_ids[limit - 1]) if len(row_ids) > limit else None


class PageLinks(msgspec.Struct, frozen=True):
    """Addresses of other pages of a list, each empty where there is no such page."""

    first: str
    previous: str
    following: str


@pass_context
def page_links(context: Context, next_cursor: str | None) -> PageLinks:
    """Return the links below a list whose next page has this cursor."""
    path, query = str(context["path"]), context["query"]
    cursor, trail = query.get("cursor"), [each for each in query.get("trail", "").split(JOIN) if each]

    def address_of(cursor: str | None, trail: list[str]) -> str:
        return changed_address(path, query, cursor=cursor, trail=JOIN.join(trail))

    following = ""
    if next_cursor:
        longer = [*trail, cursor] if cursor else []
        if len(longer) > MOST_TRAIL:
            longer = [CUT, *longer[1 - MOST_TRAIL :]]
        following = address_of(next_cursor, longer)
    if not cursor:
        return PageLinks("", "", following)
    first = address_of(None, [])
    if not trail:
        return PageLinks(first, first, following)
    previous = "" if trail[-1] == CUT else address_of(trail[-1], trail[:-1])
    return PageLinks(first, previous, following)
