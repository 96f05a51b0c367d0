"""Report that compares exclusive with shared leads. The method is in billing/roi.py, its coverage in docs/ROI.md.

A worker stores the outcome of each lead as a binary record, a few seconds after it changes. For the whole marketplace,
128 records form one run. A report on one business replaces stored records that have changed by current ones.
"""

import asyncio
import math
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np

from billing.early import EarlyShare, early_share
from billing.evidence import EvidenceBasis, SharedLeadAssumption, Stratum, is_enough
from billing.findings import Roi
from billing.outcomes import (
    UNDATED,
    WEEK_SECONDS,
    LastReport,
    LeadColumns,
    WonJobs,
    evidence_of,
    observed_until,
    won_so_far,
)
from billing.roi import assess
from marketplace.database.background import keep_passing
from marketplace.database.db import Connection, Pool, Queries, fetch_rows, load_record, session, transaction
from marketplace.reports import question as report_question
from marketplace.reports.figures import DAY, list_last_reports, local_minutes
from marketplace.reports.question import Question
from marketplace.runtime import clock, ids
from marketplace.runtime.errors import NotFound

SQL = Queries(__file__, "roi.sql")

USUAL_DAYS: Final = 180
"Default span in days: two horizons of thirteen weeks, so that half of the leads are old enough."
DAY_SECONDS: Final = 86_400
SEED: Final = 2_026
"Seed of the bootstrap, fixed so that the same evidence gives the same answer to the last digit."
FOLLOW_SECONDS: Final = 5.0
"Seconds between two passes over changes."
CHANGES_AT_ONCE: Final = 40_000
"Moves and dispositions followed in one transaction, those of about 5,000 leads: at most a second of work."
METHOD: Final = (
    "Kaplan-Meier by week up to the horizon. One business: Jeffreys' Beta posterior for rates, Student's t on the log "
    "scale for money, with the variance between weeks of arrival if it is larger; many: bootstrap of businesses (15 or "
    "more) or jackknife. See docs/ROI.md."
)

RECORD: Final = np.dtype(
    [
        ("business", ">i4"),
        ("vertical", ">i4"),
        ("area", ">i4"),
        ("received", ">i8"),
        ("cost", ">i8"),
        ("contacted", ">i4"),
        ("won", ">i4"),
        ("value", ">i8"),
        ("told", ">i4"),
    ]
)
"Record of one lead, as the view `exclusive_record` writes it."
SHARED_RECORD: Final = np.dtype([*((name, RECORD[name].str) for name in RECORD.names or ()), ("observed", ">i8")])
_QUALIFIED, _NOT_QUALIFIED, _ENDED, _DEMO, _UNDATED, _NOT_DELAYED, _DELAYED = 1, 2, 4, 8, 16, 32, 64
_AREAS: Final = 2**24
_BUDGET_BITS: Final = 8
_BUDGETS: Final = 64
"Bands of budgets: doublings of an amount below 2^63, 0 for an unknown one. In a record they follow the first 8 bits."
_FIRST_DAY, _SATURDAY = 3, 5
"The first of January 1970 was a Thursday, 3; weekends begin on Saturday, 5."


class Assumption(msgspec.Struct, frozen=True, kw_only=True):
    """Stated cost and success of shared leads, in minor units. With `business_id` None: the operator's benchmark.

    `shared_won` of `shared_leads` were won within `shared_weeks` weeks; None if the rate was stated without them.
    """

    business_id: UUID | None
    shared_cost_minor: int | None
    shared_win_rate: float | None
    shared_leads: int | None
    shared_won: int | None
    shared_weeks: int | None
    shared_value_minor: int | None
    copies: float | None
    labour_minor: int
    source: str
    made_at: datetime


class ShareFault(StrEnum):
    """Fault in the cost and the success of shared leads that somebody states."""

    missing = "missing"
    """A figure is missing without which the others cannot be used."""
    stated_twice = "stated_twice"
    """The share won is stated beside the numbers from which it follows."""
    too_many_won = "too_many_won"
    """More leads were won than there were."""


class StatedShare(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of a shared lead and the share won, as stated: a rate, or so many won of so many within so many weeks.

    All may be None: then nothing is stated.
    """

    shared_cost_minor: int | None
    shared_win_rate: float | None = None
    shared_leads: int | None
    shared_won: int | None
    shared_weeks: int | None

    @property
    def win_rate(self) -> float | None:
        """The share won: as counted, else as stated."""
        if self.shared_leads and self.shared_won:
            return self.shared_won / self.shared_leads
        return self.shared_win_rate

    def fault(self) -> tuple[str, ShareFault] | None:
        """Return the name of the first field at fault and its fault; None without a fault."""
        counts = {name: getattr(self, name) for name in ("shared_leads", "shared_won", "shared_weeks")}
        missing = [name for name, count in counts.items() if count is None]
        if missing and len(missing) < len(counts):
            return missing[0], ShareFault.missing
        if not missing and self.shared_win_rate is not None:
            return "shared_win_rate", ShareFault.stated_twice
        if self.shared_leads is not None and self.shared_won is not None and self.shared_won > self.shared_leads:
            return "shared_won", ShareFault.too_many_won
        if (self.shared_cost_minor is None) != (self.win_rate is None):
            name = "shared_cost_minor" if self.shared_cost_minor is None else "shared_win_rate"
            return name, ShareFault.missing
        return None


class RoiStratum(msgspec.Struct, frozen=True, kw_only=True):
    """Number of leads of one vertical in one area (the start of the postal code), by source."""

    vertical: str | None
    area: str | None
    exclusive: int
    shared: int


class RoiReport(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison of exclusive with shared leads, and its basis. Amounts are in minor units of `currency`.

    `assumptions` are in order of precedence. `returned` counts refunded leads, `silent_businesses` those without
    reports. `early` is the share won as far as it can be told while a business has too few leads of its own.
    """

    basis: report_question.ReportBasis
    currency: str
    business_id: str | None
    answer: Roi
    early: EarlyShare | None
    won: WonJobs
    strata: tuple[RoiStratum, ...]
    assumptions: tuple[Assumption, ...]
    returned: int
    silent_businesses: int
    method: str = METHOD


async def load_roi(pool: Pool, question: Question, currency: str | None = None) -> RoiReport:
    """Load the report, for the question's business or for all. Raises NotFound for an unknown business or vertical."""
    now = clock.now()
    async with session(pool) as connection:
        currency = currency or await _load_currency(connection, question.business_id)
        verticals = {row["number"]: row for row in await connection.fetch(SQL["list_verticals"])}
        vertical = next((row for row in verticals.values() if row["slug"] == question.vertical), None)
        if question.vertical is not None and vertical is None:
            raise NotFound("There is no such vertical.")
        exclusive, as_of = await _exclusive(connection, question, currency, now)
        span = (question.business_id, currency, question.since, question.until)
        shared = await connection.fetch(SQL["list_shared"], *span)
        last_reports = await list_last_reports(connection, question.business_id)
        vertical_id = vertical["id"] if vertical else None
        assumptions = await fetch_rows(
            connection, SQL["list_assumptions"], Assumption, question.business_id, vertical_id, currency
        )
    number = vertical["number"] if vertical else None
    answer = await asyncio.to_thread(_answer, exclusive, shared, last_reports, question, now, number, assumptions)
    roi, won, strata, returned, silent, demo = answer
    early = None
    if question.business_id is not None and not is_enough(roi.exclusive.outcomes, roi.exclusive.wins):
        early = await _load_early(pool, exclusive, question, currency, number, now)
    return RoiReport(
        basis=report_question.basis(question, "time at which the business received the lead", as_of, demo=demo),
        currency=currency,
        business_id=ids.encode("biz", question.business_id) if question.business_id else None,
        answer=roi,
        early=early,
        won=won,
        strata=tuple(_show_stratum(each, {key: row["slug"] for key, row in verticals.items()}) for each in strata),
        assumptions=assumptions,
        returned=returned,
        silent_businesses=silent,
    )


async def _load_currency(connection: Connection, business_id: UUID | None) -> str:
    """Load the currency of a business's wallet, or the one with the most leads. Raises NotFound without a wallet."""
    currency: str | None = await connection.fetchval(SQL["find_currency"], business_id)
    if currency is None and business_id is not None:
        raise NotFound("There is no such business.")
    return currency or "USD"


async def _exclusive(
    connection: Connection, question: Question, currency: str, now: datetime
) -> tuple[list[Any], datetime]:
    """Load the records of exclusive leads, and the time as of which they are."""
    if question.business_id is not None:
        span = (question.business_id, currency, question.since, question.until)
        return await connection.fetch(SQL["list_own"], *span), now
    rows = await connection.fetch(SQL["list_runs"], currency, question.since, question.until)
    return rows, await connection.fetchval(SQL["find_progress"])


async def _load_early(
    pool: Pool, exclusive: list[Any], question: Question, currency: str, vertical: int | None, now: datetime
) -> EarlyShare | None:
    """Load the early share won of the question's business, from its records and those of all businesses.

    It is about the question's vertical, or the one in which the business bought most leads; None without a lead.
    """
    own = _select(exclusive, RECORD, question, vertical)
    if not len(own):
        return None
    numbers, counts = np.unique(own["vertical"], return_counts=True)
    vertical = int(numbers[counts.argmax()])
    async with session(pool) as connection:
        rows = await connection.fetch(SQL["list_runs"], currency, question.since, question.until)
        last_reports = await list_last_reports(connection, None)

    def estimate() -> EarlyShare | None:
        everybody = _select(rows, RECORD, question, vertical)
        elsewhere = everybody[everybody["business"] != own["business"][0]]
        sides = (own[own["vertical"] == vertical], elsewhere)
        return early_share(*(_exclusive_leads(each, last_reports, question, now) for each in sides))

    return await asyncio.to_thread(estimate)


def _select(rows: list[Any], record: Any, question: Question, vertical: int | None) -> Any:
    """Return the records of leads received in the question's days, of one vertical if it is given."""
    leads = np.frombuffer(b"".join(row["records"] or b"" for row in rows), record)
    mask = (leads["received"] >= question.since.timestamp()) & (leads["received"] < question.until.timestamp())
    if vertical is not None:
        mask &= leads["vertical"] == vertical
    return leads if mask.all() else leads[mask]


def _exclusive_leads(
    records: Any, last_reports: dict[int, LastReport], question: Question, now: datetime
) -> LeadColumns:
    """Return exclusive leads, followed up to when their business has told what happened."""
    until = observed_until(records["business"].astype(np.int32), last_reports, math.ceil(now.timestamp()))
    return _leads(records, until, question.zone)


def _answer(
    exclusive: list[Any],
    shared: list[Any],
    last_reports: dict[int, LastReport],
    question: Question,
    now: datetime,
    vertical: int | None,
    assumptions: tuple[Assumption, ...],
) -> tuple[Roi, WonJobs, tuple[Stratum, ...], int, int, bool]:
    """Compute the estimates. Runs in a thread, because a million leads take a tenth of a second."""
    own, elsewhere = _select(exclusive, RECORD, question, vertical), _select(shared, SHARED_RECORD, question, vertical)
    ours = _exclusive_leads(own, last_reports, question, now)
    theirs = _leads(elsewhere, elsewhere["observed"], question.zone)
    demo = any(row["demo"] for row in shared) or any((each["told"] & _DEMO).any() for each in (own, elsewhere))
    assumed, labour_minor = _assumed(assumptions)
    until_now = math.ceil(now.timestamp())  # as reports are rounded
    latest = max(last_reports.values(), key=lambda report: report.reported_at, default=None)
    silent_days, late_days = 0, 0
    if latest is not None:
        silent_days = (until_now - latest.reported_at) // DAY_SECONDS
        late_days = (latest.reported_at - latest.told_until) // DAY_SECONDS
    evidence = evidence_of(ours, theirs, assumed, labour_minor, silent_days, late_days)
    returned = int((ours.cost_minor <= 0).sum())
    return assess(evidence, SEED), won_so_far(ours), evidence.strata, returned, evidence.silent, demo


def _leads(records: Any, until: Any, zone: str) -> LeadColumns:
    columns = {name: records[name].astype(np.int64) for name in ("received", "cost", "value")}
    halves = ("business", "vertical", "area", "contacted", "won", "told")
    small = {name: records[name].astype(np.int32) for name in halves}  # half the memory, which is read many times
    flags, vertical, area = small["told"], small["vertical"], small["area"]
    return LeadColumns(
        business=small["business"],
        week=(columns["received"] // WEEK_SECONDS).astype(np.int32),
        stratum=np.where((vertical > 0) & (area > 0), vertical.astype(np.int64) * _AREAS + area, 0),
        kind=_kinds(vertical, flags >> _BUDGET_BITS, columns["received"], zone),
        age_seconds=np.maximum(until - columns["received"], 0).astype(np.int32),
        cost_minor=columns["cost"],
        contacted_seconds=small["contacted"],
        won_seconds=np.where(flags & _UNDATED > 0, np.int32(UNDATED), small["won"]),
        won_minor=columns["value"],
        qualified=np.where(flags & _QUALIFIED > 0, 1, np.where(flags & _NOT_QUALIFIED > 0, 0, -1)).astype(np.int32),
        ended=(flags & _ENDED > 0).astype(np.int32),
        delayed=np.where(flags & _DELAYED > 0, 1, np.where(flags & _NOT_DELAYED > 0, 0, -1)).astype(np.int32),
    )


DAY_PARTS: Final = (8, 12, 17)
"Local hours at which the parts of a day begin, beside midnight: night, morning, afternoon, evening."


def _kinds(vertical: Any, budget: Any, received: Any, zone: str) -> Any:
    """Number what is known of leads before they are contacted: vertical, doublings of the budget, and time of receipt.

    The time is the part of the day in `zone`, and whether it is on a weekend.
    """
    local = local_minutes(received // 60, zone)
    part = np.searchsorted(DAY_PARTS, local // 60 % 24, side="right")
    weekend = (local // DAY + _FIRST_DAY) % 7 >= _SATURDAY
    return ((vertical * _BUDGETS + budget) * 2 + weekend) * (len(DAY_PARTS) + 1) + part


def _assumed(assumptions: tuple[Assumption, ...]) -> tuple[SharedLeadAssumption | None, int]:
    """Return the first assumption that has a cost and a win rate, and the labour cost of the first of all."""
    labour_minor = assumptions[0].labour_minor if assumptions else 0
    for assumption in assumptions:
        if assumption.shared_cost_minor is not None and assumption.shared_win_rate is not None:
            basis = EvidenceBasis.benchmark if assumption.business_id is None else EvidenceBasis.declared
            assumed = SharedLeadAssumption(
                basis=basis,
                source=assumption.source,
                cost_minor=assumption.shared_cost_minor,
                win_rate=assumption.shared_win_rate,
                leads=assumption.shared_leads,
                won=assumption.shared_won,
                weeks=assumption.shared_weeks,
                value_minor=assumption.shared_value_minor,
            )
            return assumed, labour_minor
    return None, labour_minor


def _show_stratum(stratum: Stratum, slugs: dict[int, str]) -> RoiStratum:
    area = (stratum.key % _AREAS).to_bytes(3).decode("ascii", "replace")
    return RoiStratum(
        vertical=slugs.get(stratum.key // _AREAS), area=area, exclusive=stratum.exclusive, shared=stratum.shared
    )


async def save_assumption(
    connection: Connection,
    id: UUID,
    business_id: UUID | None,
    now: datetime,
    *,
    vertical: str | None,
    currency: str,
    shared_cost_minor: int | None,
    shared_win_rate: float | None,
    shared_leads: int | None,
    shared_won: int | None,
    shared_weeks: int | None,
    shared_value_minor: int | None,
    copies: float | None,
    labour_minor: int,
    source: str,
) -> bool:
    """Save an assumption in place of the previous one. Return False if the business or vertical does not exist."""
    return bool(
        await connection.fetchval(
            SQL["save_assumption"],
            id,
            business_id,
            vertical,
            currency,
            shared_cost_minor,
            shared_win_rate,
            shared_leads,
            shared_won,
            shared_weeks,
            shared_value_minor,
            copies,
            labour_minor,
            source,
            now,
        )
    )


# Stored records.


async def keep_following(pool: Pool, stopping: asyncio.Event) -> None:
    """Update the stored records until `stopping` is set, within the budget of background passes."""
    await keep_passing(pool, "outcomes", lambda: follow(pool), stopping, every=FOLLOW_SECONDS)


async def follow(pool: Pool, changes: int = CHANGES_AT_ONCE) -> bool:
    """Make one pass over the next `changes` moves and dispositions, as the worker's role; return whether more wait.

    A pass may be repeated.
    """
    async with transaction(pool) as connection:
        turn = await load_record(connection, SQL["take_turn"], changes)
        if not turn["ours"]:
            return False
        runs = await connection.fetch(SQL["keep_outcomes"], turn["since"], turn["upto"])
        await connection.execute(SQL["keep_runs"], [row["currency"] for row in runs], [row["run"] for row in runs])
        await connection.execute(SQL["mark_progress"], turn["upto"], not turn["more"])
    return bool(turn["more"])


def usual(question: Question) -> Question:
    """Return the question over the default span of this report, which is longer than that of others."""
    return msgspec.structs.replace(question, first=question.last - timedelta(days=USUAL_DAYS - 1))
