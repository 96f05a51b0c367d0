"""Exclusive against shared leads, loaded and answered. The method is in billing/roi.py, its measure in docs/ROI.md.

A worker keeps what became of each lead as a record of numbers, a few seconds behind, and 128 of them in one run for the
whole marketplace. One business's are read with the truth in place of what has changed since.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np

from billing.evidence import Assumed, Basis, Stratum
from billing.findings import Roi
from billing.outcomes import UNDATED, Leads, Won, evidence_of, won_so_far
from billing.roi import assess
from marketplace import clock, ids
from marketplace.background import keep_passing
from marketplace.db import Connection, Pool, Queries, session, transaction
from marketplace.errors import NotFound
from marketplace.reports import question as asked
from marketplace.reports.question import Question

SQL = Queries(__file__, "roi.sql")

USUAL_DAYS: Final = 180
"Two horizons of thirteen weeks: half of the leads have had their time."
SEED: Final = 2_026
"The same evidence gets the same answer, to the last digit."
FOLLOW_SECONDS: Final = 5.0
CHANGES_AT_ONCE: Final = 40_000
"Moves and dispositions followed in one transaction, those of some 5,000 leads: a second's work at most."
METHOD: Final = (
    "Kaplan-Meier by week up to the horizon. One business: Jeffreys' Beta posterior for rates, Student's t on the log "
    "scale for money; many: businesses drawn again (15 and more) or left out one by one. See docs/ROI.md."
)

RECORD: Final = np.dtype([
    ("business", ">i4"), ("vertical", ">i4"), ("area", ">i4"), ("received", ">i8"), ("cost", ">i8"),
    ("contacted", ">i4"), ("won", ">i4"), ("value", ">i8"), ("told", ">i4"),
])  # fmt: skip
"The numbers of one lead, as `exclusive_record` of the schema writes them."
SHARED_RECORD: Final = np.dtype([*((name, RECORD[name].str) for name in RECORD.names or ()), ("observed", ">i8")])
_QUALIFIED, _NOT_QUALIFIED, _ENDED, _DEMO, _UNDATED = 1, 2, 4, 8, 16
_AREAS: Final = 2**24


class Assumption(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody takes to be so of shared leads, in minor units; `business_id` None is the operator's benchmark."""

    business_id: UUID | None
    shared_cost_minor: int | None
    shared_win_rate: float | None
    shared_value_minor: int | None
    copies: float | None
    labour_minor: int
    source: str
    made_at: datetime


class RoiStratum(msgspec.Struct, frozen=True, kw_only=True):
    """How many leads of each source are alike: of one vertical, in one area (the start of the postal code)."""

    vertical: str | None
    area: str | None
    exclusive: int
    shared: int


class RoiReport(msgspec.Struct, frozen=True, kw_only=True):
    """The answer with its basis. Amounts are in minor units of `currency`; `assumptions` in the order of precedence."""

    basis: asked.Basis
    currency: str
    business_id: str | None
    answer: Roi
    won: Won
    strata: tuple[RoiStratum, ...]
    assumptions: tuple[Assumption, ...]
    returned: int
    silent_businesses: int
    method: str = METHOD


async def load_roi(pool: Pool, question: Question, currency: str | None = None) -> RoiReport:
    """The report, for the question's business or for all. Raises NotFound for an unknown business or vertical."""
    now = clock.now()
    async with session(pool) as connection:
        spoken: str | None = currency or await connection.fetchval(SQL["find_currency"], question.business_id)
        if spoken is None and question.business_id is not None:
            raise NotFound("There is no such business.")
        spoken = spoken or "USD"
        verticals = {row["number"]: row for row in await connection.fetch(SQL["list_verticals"])}
        chosen = next((row for row in verticals.values() if row["slug"] == question.vertical), None)
        if question.vertical is not None and chosen is None:
            raise NotFound("There is no such vertical.")
        exclusive, as_of = await _exclusive(connection, question, spoken, now)
        span = (question.business_id, spoken, question.since, question.until)
        shared = await connection.fetch(SQL["list_shared"], *span)
        vertical_id = chosen["id"] if chosen else None
        rows = await connection.fetch(SQL["list_assumptions"], question.business_id, vertical_id, spoken)
    assumptions = tuple(msgspec.convert(dict(row), Assumption) for row in rows)
    number = chosen["number"] if chosen else None
    answer = await asyncio.to_thread(_answer, exclusive, shared, question, now, number, assumptions)
    roi, won, strata, returned, silent, demo = answer
    return RoiReport(
        basis=asked.basis(question, "time at which the business received the lead", as_of, demo=demo),
        currency=spoken,
        business_id=ids.encode("biz", question.business_id) if question.business_id else None,
        answer=roi,
        won=won,
        strata=tuple(_show_stratum(each, {key: row["slug"] for key, row in verticals.items()}) for each in strata),
        assumptions=assumptions,
        returned=returned,
        silent_businesses=silent,
    )


async def _exclusive(
    connection: Connection, question: Question, currency: str, now: datetime
) -> tuple[list[Any], datetime]:
    """The records, and how fresh they are."""
    if question.business_id is not None:
        span = (question.business_id, currency, question.since, question.until)
        return await connection.fetch(SQL["list_own"], *span), now
    rows = await connection.fetch(SQL["list_runs"], currency, question.since, question.until)
    return rows, await connection.fetchval(SQL["find_progress"])


def _answer(
    exclusive: list[Any],
    shared: list[Any],
    question: Question,
    now: datetime,
    vertical: int | None,
    assumptions: tuple[Assumption, ...],
) -> tuple[Roi, Won, tuple[Stratum, ...], int, int, bool]:
    """The estimates, in a thread of their own: a tenth of a second for a million leads."""
    sides, demo = [], False
    for rows, record in ((exclusive, RECORD), (shared, SHARED_RECORD)):
        leads = np.frombuffer(b"".join(row["records"] or b"" for row in rows), record)
        kept = (leads["received"] >= question.since.timestamp()) & (leads["received"] < question.until.timestamp())
        if vertical is not None:
            kept &= leads["vertical"] == vertical
        leads = leads if kept.all() else leads[kept]
        sides.append(_leads(leads, leads["observed"] if record is SHARED_RECORD else int(now.timestamp())))
        demo = demo or bool((leads["told"] & _DEMO).any()) or any(row.get("demo") for row in rows)
    assumed, labour_minor = _assumed(assumptions)
    evidence = evidence_of(sides[0], sides[1], assumed, labour_minor)
    returned = int((sides[0].cost_minor <= 0).sum())
    return assess(evidence, SEED), won_so_far(sides[0]), evidence.strata, returned, evidence.silent, demo


def _leads(records: Any, observed_until: Any) -> Leads:
    columns = {name: records[name].astype(np.int64) for name in ("received", "cost", "value")}
    halves = ("business", "vertical", "area", "contacted", "won", "told")
    small = {name: records[name].astype(np.int32) for name in halves}  # half the memory to go through, again and again
    told, vertical, area = small["told"], small["vertical"], small["area"]
    return Leads(
        business=small["business"],
        stratum=np.where((vertical > 0) & (area > 0), vertical.astype(np.int64) * _AREAS + area, 0),
        age_seconds=np.maximum(observed_until - columns["received"], 0).astype(np.int32),
        cost_minor=columns["cost"],
        contacted_seconds=small["contacted"],
        won_seconds=np.where(told & _UNDATED > 0, np.int32(UNDATED), small["won"]),
        won_minor=columns["value"],
        qualified=np.where(told & _QUALIFIED > 0, 1, np.where(told & _NOT_QUALIFIED > 0, 0, -1)).astype(np.int32),
        ended=(told & _ENDED > 0).astype(np.int32),
    )


def _assumed(assumptions: tuple[Assumption, ...]) -> tuple[Assumed | None, int]:
    """The first that says what shared leads bring, and the first word on labour."""
    labour_minor = assumptions[0].labour_minor if assumptions else 0
    for each in assumptions:
        if each.shared_cost_minor is not None and each.shared_win_rate is not None:
            assumed = Assumed(
                basis=Basis.benchmark if each.business_id is None else Basis.declared,
                source=each.source,
                cost_minor=each.shared_cost_minor,
                win_rate=each.shared_win_rate,
                value_minor=each.shared_value_minor,
            )
            return assumed, labour_minor
    return None, labour_minor


def _show_stratum(stratum: Stratum, slugs: dict[int, str]) -> RoiStratum:
    area = (stratum.key % _AREAS).to_bytes(3).decode("ascii", "replace")
    return RoiStratum(
        vertical=slugs.get(stratum.key // _AREAS), area=area, exclusive=stratum.exclusive, shared=stratum.shared
    )


async def save_assumption(
    connection: Connection, id: UUID, business_id: UUID | None, now: datetime, *, vertical: str | None, currency: str,
    shared_cost_minor: int | None, shared_win_rate: float | None, shared_value_minor: int | None,
    copies: float | None, labour_minor: int, source: str,
) -> bool:  # fmt: skip
    """Whether it was saved, in place of the one before it; False where business or vertical does not exist."""
    return bool(
        await connection.fetchval(
            SQL["save_assumption"], id, business_id, vertical, currency, shared_cost_minor, shared_win_rate,
            shared_value_minor, copies, labour_minor, source, now,
        )
    )  # fmt: skip


# What is kept.


async def keep_following(pool: Pool, stopping: asyncio.Event) -> None:
    """Brings the kept rows and columns up to date until `stopping`, within the budget of background passes."""
    await keep_passing(pool, "outcomes", lambda: follow(pool), stopping, every=FOLLOW_SECONDS)


async def follow(pool: Pool, changes: int = CHANGES_AT_ONCE) -> bool:
    """One pass over the next `changes` moves and dispositions, as the worker's role; whether more wait.

    May be repeated at will.
    """
    async with transaction(pool) as connection:
        turn = await connection.fetchrow(SQL["take_turn"], changes)
        if not turn["ours"]:
            return False
        runs = await connection.fetch(SQL["keep_outcomes"], turn["since"], turn["upto"])
        await connection.execute(SQL["keep_runs"], [row["currency"] for row in runs], [row["run"] for row in runs])
        await connection.execute(SQL["mark_progress"], turn["upto"], not turn["more"])
    return bool(turn["more"])


def usual(question: Question) -> Question:
    """The same question over the usual span of this report, which is longer than that of others."""
    return msgspec.structs.replace(question, first=question.last - timedelta(days=USUAL_DAYS - 1))
