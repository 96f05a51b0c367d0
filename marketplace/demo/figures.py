"""Figures of a run, read from the database with the role that sees no contact data."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, load_record, load_row
from marketplace.runtime import ids

SQL = Queries(__file__, "figures.sql")

OPEN: Final = ("received", "prospect", "held", "exposed")
"""States of leads on which the marketplace is still working."""
QUALIFIED: Final = ("prospect", "held", "exposed", "delivered", "refused", "lapsed", "returned", "unsold")


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles in milliseconds; None without data."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Latency of delivered leads: accepted to acknowledged, submitted to acknowledged, and accepted to exposed."""

    accepted: Quantiles
    submitted: Quantiles
    sent: Quantiles


class LeadCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of leads by outcome. `received` is the number accepted; all others except `qualified` add up to it."""

    received: int = 0
    rejected: int = 0
    duplicates: int = 0
    suppressed: int = 0
    nurtured: int = 0
    qualified: int = 0
    delivered: int = 0
    turned_down: int = 0
    unsold: int = 0
    open: int = 0


class JourneyCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of leads whose person came back or waits.

    `promoted` were not ready at first and qualified later. Of those that were nurtured, `waiting` still are,
    `reentered` are not any more, and `sold` were delivered. `with_question` waited for an answer, and
    `sold_after_answer` of these were delivered. `corrected` were corrected, and the people of `revoked` said stop.
    Businesses were sent `notices` about their leads, of which they acknowledged `acknowledged`. Repeated inquiries
    `joined` earlier leads, `joined_in_time` of them before a business was shown the lead; the payouts of `shared` leads
    were divided.
    """

    promoted: int = 0
    waiting: int = 0
    reentered: int = 0
    sold: int = 0
    with_question: int = 0
    sold_after_answer: int = 0
    corrected: int = 0
    revoked: int = 0
    notices: int = 0
    acknowledged: int = 0
    joined: int = 0
    joined_in_time: int = 0
    shared: int = 0


class ClaimCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of certificates of consent: claimed and verified, and those whose claim ended otherwise."""

    claimed: int = 0
    failed: int = 0


class ReasonCount(msgspec.Struct, frozen=True, kw_only=True):
    """Number of leads of one state that ended there for one reason."""

    state: str
    reason: str | None
    leads: int


class NearMiss(msgspec.Struct, frozen=True, kw_only=True):
    """Unsold leads by the rule that failed for the nearest business, with the median distance and an example."""

    rule: str
    leads: int
    unit: str | None = None
    distance: float | None = None
    example: str | None = None


class MoneyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts of a run, in minor units of its one currency."""

    topped_up_minor: int
    held_minor: int
    captured_minor: int
    refunded_minor: int
    paid_to_providers_minor: int
    currency: str | None

    @property
    def margin_minor(self) -> int:
        """Amount that remains for the marketplace: charges minus refunds and payouts."""
        return self.captured_minor - self.refunded_minor - self.paid_to_providers_minor


def decode_all(kind: str, texts: Iterable[str]) -> list[UUID]:
    """Decode public ids. Raises ValueError if one is not valid."""
    decoded = [ids.decode(kind, text) for text in texts]
    if None in decoded:
        raise ValueError(f"not an id of a {kind}")
    return [each for each in decoded if each is not None]


async def count(connection: Connection, providers: list[UUID], since: datetime) -> LeadCounts:
    """Count the leads that these providers sent since a time, by outcome."""
    rows = await connection.fetch(SQL["count_states"], providers, since)
    return _counts({row["state"]: row["leads"] for row in rows})


class LeadCounter:
    """Counts leads incrementally from their moves, so that the cost does not grow with the number of stored leads."""

    def __init__(self, providers: list[UUID], since: datetime) -> None:
        self._providers = providers
        self._since = since
        self._states: Counter[str] = Counter()
        self._upto: str | None = None

    async def look(self, connection: Connection) -> LeadCounts:
        """Return the current counts. The first call must come before the first lead."""
        if self._upto is None:
            self._upto = await connection.fetchval(SQL["begin_tally"])
        for row in await connection.fetch(SQL["count_moves"], self._providers, self._since, self._upto):
            self._upto = row["upto"]
            if row["state"] is not None:
                self._states[row["state"]] += row["leads"]
        return _counts(self._states)


def _counts(states: Mapping[str, int]) -> LeadCounts:
    def of(*names: str) -> int:
        return sum(states.get(name, 0) for name in names)

    return LeadCounts(
        received=sum(states.values()),
        rejected=of("rejected", "expired"),
        duplicates=of("duplicate"),
        suppressed=of("suppressed"),
        nurtured=of("nurturing"),
        qualified=of(*QUALIFIED),
        delivered=of("delivered", "returned"),
        turned_down=of("refused", "lapsed"),
        unsold=of("unsold"),
        open=of(*OPEN),
    )


async def latency(connection: Connection, providers: list[UUID], since: datetime) -> Latency:
    """Return the latency of delivered leads, from the times stored with each lead."""
    row = await load_record(connection, SQL["find_latency"], providers, since)
    return Latency(**{name: _quantiles(row[name]) for name in Latency.__struct_fields__})


def _quantiles(values: list[float | None] | None) -> Quantiles:
    p50, p95, p99 = [None if value is None else round(value, 2) for value in values or (None, None, None)]
    return Quantiles(p50=p50, p95=p95, p99=p99)


async def journeys(connection: Connection, providers: list[UUID], since: datetime) -> JourneyCounts:
    """Count the leads whose person came back or waits."""
    return await load_row(connection, SQL["count_journeys"], JourneyCounts, providers, since)


async def claims(connection: Connection, providers: list[UUID], since: datetime) -> ClaimCounts:
    """Count the certificates whose claim has ended."""
    return await load_row(connection, SQL["count_claims"], ClaimCounts, providers, since)


async def reasons(connection: Connection, providers: list[UUID], since: datetime) -> tuple[ReasonCount, ...]:
    return await fetch_rows(connection, SQL["count_reasons"], ReasonCount, providers, since)


async def near_misses(connection: Connection, providers: list[UUID], since: datetime) -> tuple[NearMiss, ...]:
    return await fetch_rows(connection, SQL["list_near_misses"], NearMiss, providers, since)


async def money(connection: Connection, businesses: list[UUID], providers: list[UUID], since: datetime) -> MoneyFigures:
    return await load_row(connection, SQL["sum_money"], MoneyFigures, businesses, providers, since)


async def exposures(connection: Connection, businesses: dict[UUID, str], since: datetime) -> set[tuple[str, str]]:
    """Return the exposures since a time, as pairs of a lead's public id and the name of the business."""
    rows = await connection.fetch(SQL["list_exposures"], list(businesses), since)
    return {(ids.encode("lead", row["lead_id"]), businesses[row["business_id"]]) for row in rows}


async def find_example(connection: Connection, providers: list[UUID]) -> str | None:
    """Return the public id of a delivered lead, None if there is none."""
    lead = await connection.fetchval(SQL["find_example"], providers)
    return ids.encode("lead", lead) if lead else None
