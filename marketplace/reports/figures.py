"""Columns of leads, candidates and transfers: one array per field, over all rows of a range of hours.

The SQL functions of migrations/0014_reports.sql define each field. Columns of past hours are stored; those of the
newest hours are computed when they are read. Callers see no difference.
"""

import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import msgspec
import numpy as np
from numpy.typing import NDArray

from billing.outcomes import LastReport, last_report
from marketplace.database.db import Connection, Pool, Queries, fetch_rows, load_record, session
from marketplace.reports.question import Question

SQL = Queries(__file__, "figures.sql")

Numbers = NDArray[Any]

SMALL: Final = np.dtype(">i2")
NUMBER: Final = np.dtype(">i4")
LENGTH: Final = np.dtype(">f4")

KINDS: Final[Mapping[str, np.dtype[Any]]] = {
    "lead": np.dtype("V16"),
    **dict.fromkeys(("minute", "channel", "demo", "step", "state", "why"), SMALL),
    **dict.fromkeys(("provider", "vertical", "business", "subscription", "sub_ids"), NUMBER),
    **dict.fromkeys(
        (
            "to_receive",
            "to_qualify",
            "to_award",
            "to_expose",
            "to_acknowledge",
            "to_touch",
            "to_contact",
            "theirs",
            "acknowledged",
        ),
        LENGTH,
    ),
    **dict.fromkeys(("share_subscription", "share_stood", "share_won", "share_won_by_weight"), NUMBER),
    "share_entitled": np.dtype(">f8"),
    **dict.fromkeys(("miss_subscription", "miss_lead"), NUMBER),
    "miss_distance": LENGTH,
    "miss_rule": SMALL,
    "unready_lead": NUMBER,
    **dict.fromkeys(("unready_first", "unready_nurtured", "unready_end", "unready_touches"), SMALL),
    "unready_promoted": LENGTH,
    **dict.fromkeys(("unready_price", "unready_payout"), np.dtype(">i8")),
    **dict.fromkeys(("money_minute", "money_kind"), SMALL),
    "money_party": NUMBER,
    "money_other": NUMBER,
    "money_minor": np.dtype(">i8"),
    "money_total": np.dtype(">i8"),
}
"""Type of each field in the database. `why`, `sub_ids` and `miss_rule` are positions in a list of texts."""

WORDED: Final = frozenset({"why", "sub_ids", "miss_rule"})

STATES: Final = (
    "",
    "received",
    "rejected",
    "duplicate",
    "suppressed",
    "nurturing",
    "expired",
    "prospect",
    "unsold",
    "held",
    "exposed",
    "delivered",
    "refused",
    "lapsed",
    "returned",
)
CHANNELS: Final = ("", "push", "fetch", "email", "feed", "portal")
STEPS: Final = ("", "received", "valid", "qualified", "eligible", "awarded", "delivered", "contacted", "won")
"Names by their number in the columns; 0 is none. The same holds for STATES and CHANNELS."


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """Provider, business or vertical of a number in a column."""

    number: int
    id: UUID
    name: str


class ReportSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription with the names that reports show."""

    number: int
    id: UUID
    name: str
    state: str
    business_id: UUID
    business: str
    vertical: str
    vertical_number: int
    currency: str
    created_at: datetime


class Columns:
    """Fields of the same rows, oldest first, with the hour of each row as hours since 1970 in UTC.

    They are made from runs: the bytes of one field over several hours, with the length of each hour's part.
    """

    def __init__(self, rows: Sequence[asyncpg.Record]) -> None:
        self._runs: dict[str, list[asyncpg.Record]] = {}
        for row in rows:  # stored runs come first, computed ones after them
            self._runs.setdefault(row["field"], []).append(row)

    def __getitem__(self, field: str) -> Numbers:
        """Return the field's numbers in native byte order; ids stay raw bytes."""
        return self.of(field, slice(None))

    def of(self, field: str, rows: Numbers | slice) -> Numbers:
        """Return the field's numbers of the rows at these positions."""
        kind = KINDS[field]
        runs = [np.frombuffer(run["data"], kind) for run in self._runs.get(field, ())]
        numbers = np.empty(sum(map(len, runs)), kind.newbyteorder("="))
        if runs:
            np.concatenate(runs, out=numbers)  # puts the bytes in native order in the same pass
        return numbers[rows]

    def counts(self, field: str) -> tuple[Numbers, Numbers]:
        """Return the hours in which the field has rows, and the number of rows in each."""
        runs = self._runs.get(field, ())
        hours, lengths = (
            np.concatenate([np.zeros(0, NUMBER), *(np.frombuffer(run[name], NUMBER) for run in runs)]).astype(np.int64)
            for name in ("hours", "lengths")
        )
        return hours, lengths // KINDS[field].itemsize

    def hours(self, field: str) -> Numbers:
        """Return the hour of each row."""
        hours, counts = self.counts(field)
        return np.repeat(hours.astype(np.int32), counts)

    def words(self, field: str, rows: Numbers | slice = slice(None)) -> tuple[Numbers, tuple[str, ...]]:
        """Return a text field of some rows as positions in one tuple of texts, which is the same for all hours.

        In the database the positions of each hour refer to that hour's own list of texts, counted from 1.
        """
        numbers: dict[str, int] = {}
        places: list[int] = []
        cached: dict[bytes, int] = {}  # start of an hour's texts in `places`; most hours have the same few texts
        begins = []
        for run in self._runs.get(f"{field}_words", ()):
            data, at = run["data"], 0
            for length in np.frombuffer(run["lengths"], NUMBER).tolist():
                text = data[at : at + length]
                if text not in cached:
                    cached[text] = len(places)
                    places += [numbers.setdefault(word, len(numbers)) for word in text.decode().split("\n")]
                begins.append(cached[text] - 1)  # an hour's texts are counted from 1
                at += length
        if not places:
            return np.zeros(0, np.int32), ()
        _, counts = self.counts(field)
        before = np.repeat(np.array(begins, np.int32), counts)[rows]
        return np.array(places, np.int32)[self.of(field, rows) + before], tuple(numbers)


class LeadSelection:
    """Fields of the leads that a question is about: the rows `keep` of the columns, as of `as_of`."""

    def __init__(self, columns: Columns, keep: Numbers | slice, as_of: datetime) -> None:
        self.columns = columns
        self.keep = keep
        self.as_of = as_of

    def __getitem__(self, field: str) -> Numbers:
        return self.columns.of(field, self.keep)

    def __len__(self) -> int:
        return len(self["minute"])

    def among(self, places: Numbers) -> Numbers:
        """Return a mask of the positions in the columns that belong to the question."""
        mask = np.zeros(len(self.columns["minute"]), bool)
        mask[self.keep] = True
        return mask[places]

    def words(self, field: str) -> tuple[Numbers, tuple[str, ...]]:
        return self.columns.words(field, self.keep)

    def minutes(self) -> Numbers:
        """Return the time of receipt of each lead, in minutes since 1970 in UTC."""
        return self.columns.hours("minute")[self.keep] * 60 + self["minute"]


class LeadsAndCandidates(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of a question, and the candidates that decisions of the same hours weighed."""

    leads: LeadSelection
    candidates: Columns


async def load_leads(pool: Pool, question: Question, fields: Sequence[str]) -> LeadSelection:
    """Load fields of all leads that the question is about, oldest first."""
    return (await load_weighed(pool, question, fields, ())).leads


async def load_weighed(
    pool: Pool, question: Question, fields: Sequence[str], candidates: Sequence[str]
) -> LeadsAndCandidates:
    """Load fields of leads and of candidates from one snapshot.

    One snapshot, because a candidate refers to its lead by the lead's position within the hour.
    """
    leads, columns = await _load_beside(pool, question, fields, "compute_candidates", candidates)
    return LeadsAndCandidates(leads=leads, candidates=columns)


class UnreadyLeads(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of a question, and the columns of those that were not ready at some time: nurtured, or rejected at first.

    `place` is the position of each of these among `leads`, `rows` its row in `columns`.
    """

    leads: LeadSelection
    columns: Columns
    place: Numbers
    rows: Numbers

    def __getitem__(self, field: str) -> Numbers:
        """Return a field of the leads that were not ready: one of the columns, or of all leads."""
        return self.columns[field][self.rows] if field.startswith("unready_") else self.leads[field][self.place]


async def load_unready(
    pool: Pool, question: Question, fields: Sequence[str], unready_fields: Sequence[str]
) -> UnreadyLeads:
    """Load fields of all leads of the question, and fields of those that were not ready, from one snapshot."""
    beside = {"unready_lead", *unready_fields}
    leads, columns = await _load_beside(pool, question, fields, "compute_unready", beside)
    positions = positions_of(leads, columns, "unready_lead")
    rows = np.flatnonzero(leads.among(positions))
    number_of = np.zeros(len(leads.columns["minute"]), np.int64)
    number_of[leads.keep] = np.arange(len(leads))
    return UnreadyLeads(leads=leads, columns=columns, place=number_of[positions[rows]], rows=rows)


def positions_of(leads: LeadSelection, columns: Columns, field: str) -> Numbers:
    """Return the positions of leads among all loaded ones. The field has their positions within their hours."""
    hours, counts = leads.columns.counts("minute")
    hours_beside, counts_beside = columns.counts(field)
    begins = (np.cumsum(counts) - counts)[np.searchsorted(hours, hours_beside)]
    return np.asarray(columns[field] + np.repeat(begins, counts_beside))


async def _load_beside(
    pool: Pool, question: Question, fields: Sequence[str], compute: str, beside: Collection[str]
) -> tuple[LeadSelection, Columns]:
    """Load fields of leads, and fields beside them that the query `compute` makes, from one snapshot."""
    lead_fields = {*fields, "minute", *_limiting_fields(question)}
    async with _snapshot(pool) as (connection, frontier, as_of):
        numbers = await load_record(
            connection, SQL["find_numbers"], question.provider_id, question.business_id, question.vertical
        )
        span = Span(*whole_hours(question), frontier)
        lead_rows = await _read_runs(connection, "compute_leads", [question.mode], lead_fields, span)
        rows = await _read_runs(connection, compute, [question.mode], set(beside), span)
    columns = Columns(lead_rows)
    return LeadSelection(columns, _rows_of_question(columns, question, numbers), as_of), Columns(rows)


class Span(NamedTuple):
    """Whole hours from `since` to `until`. Hours from `frontier` on are not stored."""

    since: datetime
    until: datetime
    frontier: datetime


@asynccontextmanager
async def _snapshot(pool: Pool) -> AsyncIterator[tuple[Connection, datetime, datetime]]:
    """Open a snapshot; yield the connection, the frontier, and the time as of which hours are stored."""
    async with session(pool) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        progress = await load_record(connection, SQL["find_progress"])
        yield connection, progress["frontier"], progress["as_of"]


async def _read_runs(
    connection: Connection, compute: str, parts: Sequence[str], fields: Set[str], span: Span
) -> list[asyncpg.Record]:
    """Read the runs of fields: the stored ones, then those that the query `compute` makes of the newest hours."""
    if not fields:
        return []
    names = [*fields, *(f"{field}_words" for field in fields & WORDED)]
    rows: list[asyncpg.Record] = []
    if span.since < span.frontier:
        rows += await _read_stored(connection, parts, names, span.since, min(span.until, span.frontier))
    if span.until > span.frontier:
        rows += await connection.fetch(SQL[compute], parts, names, max(span.since, span.frontier), span.until)
    return rows


async def _read_stored(
    connection: Connection, parts: Sequence[str], fields: Sequence[str], since: datetime, until: datetime
) -> list[asyncpg.Record]:
    """Read stored runs, oldest first: whole months if they are closed, and single hours for all other time."""
    months = [row["month"] for row in await connection.fetch(SQL["list_closed"], since, until)]
    begins = [since, *(_next_month(month) for month in months)]
    spans = [(begin, end) for begin, end in zip(begins, [*months, until], strict=True) if begin < end]
    runs = await connection.fetch(SQL["read_months"], parts, fields, months) if months else []
    if spans:
        runs += await connection.fetch(SQL["read_hours"], parts, fields, *map(list, zip(*spans, strict=True)))
    return sorted(runs, key=lambda run: run["since"])


def _next_month(start: datetime) -> datetime:
    return (start + timedelta(days=31)).replace(day=1)


def _limiting_fields(question: Question) -> list[str]:
    """Return the fields that limit the leads of a question."""
    limits = {"provider": question.provider_id, "business": question.business_id, "vertical": question.vertical}
    return [field for field, value in limits.items() if value is not None]


def _rows_of_question(columns: Columns, question: Question, numbers: asyncpg.Record) -> Numbers | slice:
    """Return the rows that the question is about: all, unless it is limited to a party or its zone splits an hour."""
    masks = [columns[field] == (numbers[field] or -1) for field in _limiting_fields(question)]
    if whole_hours(question) != (question.since, question.until):
        at = columns.hours("minute") * 60 + columns["minute"]
        masks.append((at >= question.since.timestamp() // 60) & (at < question.until.timestamp() // 60))
    return np.flatnonzero(np.logical_and.reduce(masks)) if masks else slice(None)


class TransferSums(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of transfers by currency, as of `as_of`."""

    by_currency: dict[str, Columns]
    as_of: datetime


async def load_money(pool: Pool, since: datetime, until: datetime, fields: Sequence[str]) -> TransferSums:
    """Load fields of all transfers in the whole hours from `since` to `until`."""
    async with _snapshot(pool) as (connection, frontier, as_of):
        parts = [row["currency"] for row in await connection.fetch(SQL["list_currencies"])]
        rows = await _read_runs(connection, "compute_money", parts, set(fields), Span(since, until, frontier))
    by_part = {part: Columns([row for row in rows if row["part"] == part]) for part in parts}
    return TransferSums(by_currency=by_part, as_of=as_of)


def whole_hours(question: Question) -> tuple[datetime, datetime]:
    """Return the start of the question's first hour and the end of its last hour, in UTC."""
    return question.since.replace(minute=0), ceiling(question.until)


def ceiling(moment: datetime) -> datetime:
    """Round a time up to the full hour."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return hour if hour == moment else hour + timedelta(hours=1)


def grouped(codes: Numbers) -> tuple[Numbers, list[tuple[int, slice]]]:
    """Return an order that puts equal codes together, and for each code its slice in that order."""
    if not len(codes):
        return np.zeros(0, np.int64), []
    narrow = codes.astype(np.uint16) if codes.max() < 65_536 and codes.min() >= 0 else codes
    order = np.argsort(narrow, kind="stable")  # numpy sorts 16-bit integers by radix, ten times as fast
    ordered = codes[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[begins[1:], len(ordered)]
    return order, [(int(ordered[begin]), slice(int(begin), int(end))) for begin, end in zip(begins, ends, strict=True)]


def local_hours(minutes: Numbers, zone: str) -> Numbers:
    """Return the hour of the local day in `zone`, 0 to 23, of each time in minutes since 1970 in UTC."""
    return np.asarray(local_minutes(minutes, zone) // 60 % 24, np.int32)


def local_minutes(minutes: Numbers, zone: str) -> Numbers:
    """Return minutes since 1970 on the clocks of `zone`, for times in minutes since 1970 in UTC."""
    if not len(minutes):
        return np.zeros(0, np.int32)
    zone_info = ZoneInfo(zone)

    def utc_offset(minute: int) -> int:
        offset = datetime.fromtimestamp(minute * 60, zone_info).utcoffset()
        return 0 if offset is None else offset // timedelta(minutes=1)

    days = minutes // DAY
    first, last = int(days.min()), int(days.max())
    edges = [utc_offset(day * DAY) for day in range(first, last + 2)]
    offsets = np.array(edges[:-1], np.int32)[days - first]
    for day, (begin, end) in enumerate(pairwise(edges), start=first):
        if begin != end:
            changing = np.flatnonzero(days == day)
            quarters, places = np.unique(minutes[changing] // 15, return_inverse=True)  # no zone changes within one
            offsets[changing] = np.array([utc_offset(int(quarter) * 15) for quarter in quarters], np.int32)[places]
    return np.asarray(minutes + offsets)


DAY: Final = 1_440
"Minutes of a day."


async def list_parties(connection: Connection, kind: str) -> dict[int, Party]:
    """Return all providers, businesses or verticals by number."""
    statement = {"provider": "list_providers", "business": "list_businesses", "vertical": "list_verticals"}[kind]
    return {party.number: party for party in await fetch_rows(connection, SQL[statement], Party)}


async def list_last_reports(connection: Connection, business_id: UUID | None) -> dict[int, LastReport]:
    """Return the last report of each business, or of the one named, by its number, in seconds since 1970.

    Seconds are rounded up, so that a report is not after the time. A business that never reported is missing.
    """
    rows = await connection.fetch(SQL["list_last_reports"], business_id)
    return {
        row["business"]: last_report(math.ceil(row["reported_at"].timestamp()), row["late_seconds"]) for row in rows
    }


async def list_subscriptions(connection: Connection, mode: str) -> dict[int, ReportSubscription]:
    rows = await fetch_rows(connection, SQL["list_subscriptions"], ReportSubscription, mode)
    return {row.number: row for row in rows}
