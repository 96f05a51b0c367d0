"""Preview of a subscription: how many leads a week it would have matched lately, before it is saved or when none come.

Decided by the functions that decide live, on the newest qualified leads of the vertical. Caps, hours and money are left
aside, because they decide about the share and not about the supply.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock
from routing.decision import MatchedCandidates, OpenLead, decide
from routing.index import COMPLETE_UP_TO, SubscriptionIndex
from routing.inquiry import Facts, Mode
from routing.lifecycle import LeadState
from routing.subscription import Circle, Subscription, SubscriptionDefinition

SQL: Final = Queries(__file__, "matching_preview.sql")

SPAN: Final = timedelta(days=28)
"Four weeks: long enough for a weekly figure, short enough to be about now."
SAMPLE: Final = 1_000
"Leads that one preview reads: enough to tell 9 a week from 12, in a tenth of a second of a thread."
LEAST_TO_DATE: Final = 30
"Number of leads from which the span begins with the oldest of them, instead of four weeks ago."
WEEK_SECONDS: Final = 7 * 24 * 3600
WIDER_KM: Final = 8.0
"About five miles: a step that a firm would consider."
MOST_DEFINITIONS: Final = COMPLETE_UP_TO // 2
"Definitions of one preview: with the wider ones, an index of more would leave some out."


class QualifiedLead(msgspec.Struct, frozen=True, kw_only=True):
    """One qualified lead of a vertical, to be matched with a subscription."""

    id: UUID
    facts: Facts
    received_at: datetime


class MatchingPreview(msgspec.Struct, frozen=True, kw_only=True):
    """Leads a week that a subscription would have matched, and with its circles `wider_km` kilometres wider."""

    a_week: float
    wider_km: float | None = None
    wider_a_week: float | None = None

    @property
    def words(self) -> str:
        """Weekly figure in words: none, fewer than one, or `about 9 a week`."""
        if self.a_week == 0:
            return "none in the last four weeks"
        return "fewer than one a week" if self.a_week < 0.95 else f"about {self.a_week:.0f} a week"


async def load_previews(
    connection: Connection,
    vertical: Vertical,
    business_id: UUID,
    definitions: Sequence[SubscriptionDefinition],
    most: int = SAMPLE,
) -> tuple[MatchingPreview, ...]:
    """Return the preview of each definition of a business, in their order, from one reading of at most so many leads.

    Raises ValueError for more than MOST_DEFINITIONS definitions.
    """
    if len(definitions) > MOST_DEFINITIONS:
        raise ValueError(f"at most {MOST_DEFINITIONS} definitions in one preview")
    now = clock.now()
    leads = await list_qualified(connection, vertical.id, now - SPAN, most)
    names = tuple(await connection.fetchval(SQL["find_business_names"], business_id) or ())
    return await asyncio.to_thread(_preview, vertical, names, definitions, leads, now)


def _preview(
    vertical: Vertical,
    names: tuple[str, ...],
    definitions: Sequence[SubscriptionDefinition],
    leads: Sequence[QualifiedLead],
    now: datetime,
) -> tuple[MatchingPreview, ...]:
    variants: dict[UUID, SubscriptionDefinition] = {}
    for number, definition in enumerate(definitions):
        variants[_own_id(number)] = definition
        wider = widen_circles(definition)
        if wider is not None:
            variants[_wider_id(number)] = wider
    counts = count_matches(vertical, names, variants, leads)
    span = SPAN
    if len(leads) >= LEAST_TO_DATE:
        span = max(now - leads[-1].received_at, timedelta(hours=1))
    weeks = span.total_seconds() / WEEK_SECONDS
    return tuple(_weekly(number, variants, counts, weeks) for number in range(len(definitions)))


def _weekly(
    number: int, variants: Mapping[UUID, SubscriptionDefinition], counts: Mapping[UUID, int], weeks: float
) -> MatchingPreview:
    a_week = counts[_own_id(number)] / weeks
    wider_id = _wider_id(number)
    if wider_id not in variants:
        return MatchingPreview(a_week=a_week)
    return MatchingPreview(a_week=a_week, wider_km=WIDER_KM, wider_a_week=counts[wider_id] / weeks)


def _own_id(number: int) -> UUID:
    return UUID(int=2 * number)


def _wider_id(number: int) -> UUID:
    return UUID(int=2 * number + 1)


def widen_circles(definition: SubscriptionDefinition) -> SubscriptionDefinition | None:
    """Return the same definition with its circles WIDER_KM larger, or None for one without circles."""
    circles = definition.area.circles
    if not circles or definition.area.anywhere:
        return None
    larger = tuple(
        Circle(latitude=circle.latitude, longitude=circle.longitude, km=circle.km + WIDER_KM) for circle in circles
    )
    return msgspec.structs.replace(definition, area=msgspec.structs.replace(definition.area, circles=larger))


def count_matches(
    vertical: Vertical,
    names: tuple[str, ...],
    definitions: Mapping[UUID, SubscriptionDefinition],
    leads: Sequence[QualifiedLead],
) -> Counter[UUID]:
    """Count the leads that each definition would have matched, by its key; each at the moment it was received.

    `names` are those by which a consent may name the business.
    """
    index = SubscriptionIndex(
        Subscription(
            id=key,
            business_id=key,
            endpoint_id=key,
            vertical=vertical.slug,
            country=vertical.definition.country,
            mode=Mode.live,
            version=1,
            definition=msgspec.structs.replace(definition, hours=None),
            business_names=names,
        )
        for key, definition in definitions.items()
    )
    counts: Counter[UUID] = Counter()
    for lead in leads:
        prospect = OpenLead(lead_id=lead.id, state=LeadState.prospect, facts=lead.facts, received_at=lead.received_at)
        result = decide(prospect, vertical.definition, vertical.version, index, lead.received_at)
        if isinstance(result, MatchedCandidates):
            counts.update(subscription.id for subscription in result.eligible)
    return counts


async def list_qualified(
    connection: Connection, vertical_id: UUID, since: datetime, most: int
) -> tuple[QualifiedLead, ...]:
    """Return the newest qualified live leads of the vertical, newest first."""
    return await fetch_rows(connection, SQL["list_qualified"], QualifiedLead, vertical_id, since, most)
