"""List of leads that wait in the nurture lane, as providers and operators see it: for what, until when, what to ask."""

from typing import Final
from uuid import UUID

from marketplace.database.db import session
from marketplace.nurturing import store as nurturing_store
from marketplace.nurturing.flow import LaneEntry, list_waiting
from marketplace.portal.frame import words
from marketplace.portal.listing import Column
from marketplace.portal.paging import list_limit, next_page
from marketplace.web.http import AnyRequest, page_cursor, services
from routing.unlocking import UnlockSummary

MOST_IN_FILE: Final = 10_000
"Leads of one file. A file has no questions: each would cost a decision."


def _reason(row: LaneEntry) -> str:
    reason = row.lead.reason or ""
    return reason[:1].upper() + reason[1:]


def _questions(row: LaneEntry) -> object:
    """Return the questions worth asking, in words, with the subscriptions that would take the lead."""
    if row.unlocks is None:
        return None
    parts = [
        f"{unlock.question} {_takers(unlock.subscriptions)}"
        for unlock in row.unlocks.questions
        if unlock.subscriptions or len(row.unlocks.questions) == 1
    ]
    return tuple(parts) or _together(row.unlocks)


def _together(unlocks: UnlockSummary) -> str:
    names = ", ".join(words(unlock.dimension).lower() for unlock in unlocks.questions)
    return f"Ask for all of: {names}. {_takers(unlocks.together)}" if names else "Nothing would help."


def _takers(count: int) -> str:
    return f"{count:,} subscription{'' if count == 1 else 's'} would take it."


SERVICE: Final = Column[LaneEntry](
    "Service", lambda row: words(row.lead.vertical), file="vertical", value=lambda row: row.lead.vertical
)
WAITS_FOR: Final = Column[LaneEntry]("Waits for", _reason, file="waits_for")
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
QUESTIONS: Final = Column[LaneEntry]("Ask the person", _questions)


async def load_waiting(
    request: AnyRequest, provider_id: UUID | None, mode: str
) -> tuple[tuple[LaneEntry, ...], str | None]:
    """Return one page of waiting leads, of one provider or of all, and the cursor of the next page."""
    limit, resources = list_limit(request), services(request)
    rows = await list_waiting(
        resources.pool,
        resources.catalog,
        provider_id,
        mode,
        _vertical(request),
        page_cursor(request, "lead"),
        limit + 1,
    )
    return rows[:limit], next_page("lead", [row.lead.lead_id for row in rows], limit)


async def load_file(request: AnyRequest, provider_id: UUID | None, mode: str) -> tuple[LaneEntry, ...]:
    """Return the newest waiting leads for a file, without questions."""
    async with session(services(request).pool) as connection:
        leads = await nurturing_store.list_nurtured(
            connection, provider_id, mode, _vertical(request), None, MOST_IN_FILE
        )
    return tuple(LaneEntry(lead=lead, unlocks=None) for lead in leads)


def _vertical(request: AnyRequest) -> str | None:
    return request.query_params.get("vertical") or None
