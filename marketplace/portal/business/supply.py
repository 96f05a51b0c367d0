"""How many leads an order would have matched lately: what a business is told before it orders, and when nothing comes.

The same rules as at an award, on the newest qualified leads of the market; caps, hours and money aside, because those
decide about the share and not about the supply.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from marketplace import clock
from marketplace.catalog import Vertical
from marketplace.db import Connection
from marketplace.portal.business import store
from marketplace.portal.business.store import Supplied
from routing.index import Index
from routing.inquiry import Mode
from routing.matching import consider
from routing.qualification import Verdict, qualify
from routing.subscription import Circle, Definition, Subscription

SPAN: Final = timedelta(days=28)
"Four weeks: long enough for a weekly figure, short enough to be about now."
LEAST_TO_DATE: Final = 30
"With fewer leads than this the span is the whole four weeks, not the time since the oldest of them."
WEEK_SECONDS: Final = 7 * 24 * 3600


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """Leads a week that an order would have matched, and with its circles so many kilometres wider."""

    a_week: float
    wider_km: float | None = None
    wider_a_week: float | None = None

    @property
    def words(self) -> str:
        """`about 9 a week`."""
        return in_words(self.a_week)


def in_words(a_week: float) -> str:
    """A weekly figure as people say it: none, fewer than one, or about so many."""
    if a_week == 0:
        return "none in the last four weeks"
    return "fewer than one a week" if a_week < 0.95 else f"about {a_week:.0f} a week"


async def load_supply(
    connection: Connection, vertical: Vertical, definitions: Sequence[Definition], most: int = store.SUPPLY_SAMPLE
) -> tuple[Supply, ...]:
    """The supply of each definition, from one reading of the market: of at most so many leads."""
    now = clock.now()
    sample = await store.list_supply(connection, vertical.id, now - SPAN, most)
    return await asyncio.to_thread(_supplies, vertical, definitions, sample, now)


def _supplies(
    vertical: Vertical, definitions: Sequence[Definition], sample: Sequence[Supplied], now: datetime
) -> tuple[Supply, ...]:
    policy = vertical.definition.policy(vertical.version)
    judged = [(one, qualify(one.facts, vertical.definition.needs, policy, one.received_at).verdict) for one in sample]
    span = max(now - sample[-1].received_at, timedelta(hours=1)) if len(sample) >= LEAST_TO_DATE else SPAN
    weeks = span.total_seconds() / WEEK_SECONDS

    def a_week(definition: Definition) -> float:
        return count(definition, vertical, judged) / weeks

    found = []
    for definition in definitions:
        wider = widened(definition)
        more = None if wider is None else a_week(wider)
        found.append(
            Supply(a_week=a_week(definition), wider_km=WIDER_KM if more is not None else None, wider_a_week=more)
        )
    return tuple(found)


WIDER_KM: Final = 8.0
"About five miles: a step that a firm would think about."


def widened(definition: Definition) -> Definition | None:
    """The same order with its circles WIDER_KM larger; None for one without circles."""
    circles = definition.area.circles
    if not circles or definition.area.anywhere:
        return None
    larger = tuple(Circle(latitude=one.latitude, longitude=one.longitude, km=one.km + WIDER_KM) for one in circles)
    return msgspec.structs.replace(definition, area=msgspec.structs.replace(definition.area, circles=larger))


def count(definition: Definition, vertical: Vertical, judged: Sequence[tuple[Supplied, Verdict]]) -> int:
    """How many of the leads the order would have matched."""
    nobody = UUID(int=0)
    index = Index([Subscription(
        id=nobody, business_id=nobody, endpoint_id=nobody, vertical=vertical.slug,
        country=vertical.definition.country, mode=Mode.live, version=1,
        definition=msgspec.structs.replace(definition, hours=None),
    )])  # fmt: skip
    return sum(
        1
        for one, verdict in judged
        if any(not candidate.failures for candidate in consider(index, one.facts, verdict, one.received_at).candidates)
    )
