"""List of leads that wait in the nurture lane, as providers and operators see it: for what, until when, what to ask."""

from typing import Any, Final
from uuid import UUID

from litestar import Response

from marketplace.database.db import session
from marketplace.nurturing import store as nurturing_store
from marketplace.nurturing.flow import LaneEntry, list_waiting
from marketplace.nurturing.store import LaneFilter
from marketplace.portal.frame import words
from marketplace.portal.listing import Column, Listing, only_in_file
from marketplace.portal.paging import list_limit, next_page
from marketplace.runtime import errors
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.http import AnyRequest, page_cursor, services
from routing.qualification import WaitsFor
from routing.unlocking import UnlockSummary

MOST_IN_FILE: Final = 10_000
"Leads of one file. A file has no questions: each would cost a decision."

WAITS: Final = {
    WaitsFor.date: "The date that the person named",
    WaitsFor.budget: "An answer about the budget",
    WaitsFor.authority: "An answer about who decides",
    WaitsFor.need: "An answer about the need",
    WaitsFor.timing: "An answer about the timing",
    WaitsFor.points: "A higher score",
    WaitsFor.interest: "Interest from the person",
}
"Choices of the filter by what a lead waits for."


def _reason(row: LaneEntry) -> str:
    reason = row.lead.reason or ""
    return reason[:1].upper() + reason[1:]


def _questions(row: LaneEntry) -> object:
    """Return the questions worth asking and the touches needed, with the subscriptions that would take the lead."""
    if row.unlocks is None:
        return None
    parts = [
        f"{unlock.question} {_takers(unlock.subscriptions)}"
        for unlock in row.unlocks.questions
        if unlock.subscriptions or len(row.unlocks.questions) == 1
    ]
    return tuple(parts) or _together(row.unlocks)


def _together(unlocks: UnlockSummary) -> str:
    names = ", ".join(words(unlock.dimension or unlock.criterion or "").lower() for unlock in unlocks.questions)
    return f"Needed together: {names}. {_takers(unlocks.together)}" if names else "Nothing would help."


def _takers(count: int) -> str:
    return f"{count:,} subscription{'' if count == 1 else 's'} would take it."


SERVICE: Final = Column[LaneEntry](
    "Service", lambda row: words(row.lead.vertical), file="vertical", value=lambda row: row.lead.vertical
)
WAITS_FOR: Final = Column[LaneEntry]("Waits for", _reason, file="waits_for")
KINDS_OF_WAIT: Final[Column[LaneEntry]] = only_in_file(
    "waits_for_kinds", lambda row: " ".join(row.lead.waits_for or ())
)
SINCE: Final = Column[LaneEntry](
    "Since",
    lambda row: row.lead.nurtured_at,
    file="since",
    value=lambda row: row.lead.nurtured_at.isoformat() if row.lead.nurtured_at else "",
    style="nowrap",
    time="day",
)
UNTIL: Final = Column[LaneEntry](
    "Until",
    lambda row: row.lead.due_at,
    file="until",
    value=lambda row: row.lead.due_at.isoformat(),
    style="nowrap",
    time="day",
)
QUESTIONS: Final = Column[LaneEntry]("What would help", _questions)


async def load_waiting(request: AnyRequest, filters: LaneFilter) -> dict[str, Any]:
    """Return one page of the waiting leads that pass the filters, newest first, as the template takes it."""
    limit, resources = list_limit(request), services(request)
    before = page_cursor(request, "lead")
    rows = await list_waiting(resources.pool, resources.catalog, filters, before, limit + 1)
    rules = await resources.catalog.recent()
    names = [(vertical.slug, vertical.definition.name) for vertical in rules.verticals.values()]
    return {
        "rows": rows[:limit],
        "next_cursor": next_page("lead", [row.lead.lead_id for row in rows], limit),
        "services": sorted(names, key=lambda name: name[1].casefold()),
        "waits": list(WAITS.items()),
    }


async def waiting_file(request: AnyRequest, listing: Listing[LaneEntry], filters: LaneFilter) -> Response[bytes]:
    """Return the newest waiting leads that pass the filters as a file, without questions."""
    async with session(services(request).pool) as connection:
        leads = await nurturing_store.list_nurtured(connection, filters, None, MOST_IN_FILE)
    return await listing.download(LaneEntry(lead=lead, unlocks=None) for lead in leads)


def read_filters(request: AnyRequest, mode: str, provider_id: UUID | None) -> LaneFilter:
    """Return the filters in the address, for the leads of one provider or of all. Raises InvalidInput."""
    query = request.query_params
    waits_for = query.get("waits_for") or None
    if waits_for is not None and waits_for not in tuple(WaitsFor):
        detail = f"Choose one of {', '.join(WaitsFor)}."
        raise errors.InvalidInput([Fault(pointer="/waits_for", code=FaultCode.value_not_allowed, detail=detail)])
    return LaneFilter(
        mode=mode,
        provider_id=provider_id,
        vertical=query.get("vertical") or None,
        waits_for=WaitsFor(waits_for) if waits_for else None,
    )
