"""What a run came to, read from the database as the role that sees no contact data."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from marketplace import ids
from marketplace.db import Connection, Queries

SQL = Queries(__file__, "figures.sql")

OPEN: Final = ("received", "prospect", "held", "exposed")
"""States in which somebody still has to do something about a lead now."""
QUALIFIED: Final = ("prospect", "held", "exposed", "delivered", "refused", "lapsed", "returned", "unsold")


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds; None while there is nothing to measure."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of delivered leads: accepted to acknowledged, submitted to acknowledged, accepted to exposed."""

    accepted: Quantiles
    submitted: Quantiles
    sent: Quantiles


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Leads by what became of them. `received` is all that was taken in; all others but `qualified` add up to it."""

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


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why leads of one state ended there."""

    state: str
    reason: str | None
    leads: int


class NearMiss(msgspec.Struct, frozen=True, kw_only=True):
    """The rule that kept the nearest business away from unsold leads, and by how much at the median."""

    rule: str
    leads: int
    unit: str | None = None
    distance: float | None = None
    example: str | None = None


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """Minor units of the run's one currency."""

    topped_up_minor: int
    held_minor: int
    captured_minor: int
    refunded_minor: int
    paid_to_providers_minor: int
    currency: str | None

    @property
    def margin_minor(self) -> int:
        """What stays with the marketplace."""
        return self.captured_minor - self.refunded_minor - self.paid_to_providers_minor


def decode_all(kind: str, texts: Iterable[str]) -> list[UUID]:
    """The ids behind their public texts. Raises ValueError for one that is none."""
    found = [ids.decode(kind, text) for text in texts]
    if None in found:
        raise ValueError(f"not an id of a {kind}")
    return [one for one in found if one is not None]


async def count(connection: Connection, providers: list[UUID], since: datetime) -> Counts:
    """How the leads stand that these providers sent since."""
    rows = await connection.fetch(SQL["count_states"], providers, since)
    return _counts({row["state"]: row["leads"] for row in rows})


class Tally:
    """The same counts, kept up by what has moved: looking again costs no more with many leads stored."""

    def __init__(self, providers: list[UUID], since: datetime) -> None:
        self._providers = providers
        self._since = since
        self._states: Counter[str] = Counter()
        self._upto: str | None = None

    async def look(self, connection: Connection) -> Counts:
        """How the leads stand by now. The first look must come before the first lead."""
        if self._upto is None:
            self._upto = await connection.fetchval(SQL["begin_tally"])
        for row in await connection.fetch(SQL["count_moves"], self._providers, self._since, self._upto):
            self._upto = row["upto"]
            if row["state"] is not None:
                self._states[row["state"]] += row["leads"]
        return _counts(self._states)


def _counts(states: Mapping[str, int]) -> Counts:
    def of(*names: str) -> int:
        return sum(states.get(name, 0) for name in names)

    return Counts(
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
    """From the database's record of each lead's clock."""
    row = await connection.fetchrow(SQL["find_latency"], providers, since)
    return Latency(**{name: _quantiles(row[name]) for name in Latency.__struct_fields__})


def _quantiles(values: list[float | None] | None) -> Quantiles:
    p50, p95, p99 = [None if value is None else round(value, 2) for value in values or (None, None, None)]
    return Quantiles(p50=p50, p95=p95, p99=p99)


async def reasons(connection: Connection, providers: list[UUID], since: datetime) -> tuple[Reason, ...]:
    rows = await connection.fetch(SQL["count_reasons"], providers, since)
    return msgspec.convert([dict(row) for row in rows], tuple[Reason, ...])


async def near_misses(connection: Connection, providers: list[UUID], since: datetime) -> tuple[NearMiss, ...]:
    rows = await connection.fetch(SQL["list_near_misses"], providers, since)
    return msgspec.convert([dict(row) for row in rows], tuple[NearMiss, ...])


async def money(connection: Connection, businesses: list[UUID], providers: list[UUID], since: datetime) -> Money:
    row = await connection.fetchrow(SQL["sum_money"], businesses, providers, since)
    return msgspec.convert(dict(row), Money)


async def exposures(connection: Connection, businesses: dict[UUID, str], since: datetime) -> set[tuple[str, str]]:
    """Of those since, each lead's public id with the business, by the name given for it, that was shown the lead."""
    rows = await connection.fetch(SQL["list_exposures"], list(businesses), since)
    return {(ids.encode("lead", row["lead_id"]), businesses[row["business_id"]]) for row in rows}


async def find_example(connection: Connection, providers: list[UUID]) -> str | None:
    """The public id of a delivered lead."""
    lead = await connection.fetchval(SQL["find_example"], providers)
    return ids.encode("lead", lead) if lead else None
