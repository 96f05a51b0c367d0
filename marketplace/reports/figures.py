"""The figures of leads, candidates and transfers as columns: one array per field over all rows of a range of days.

What lives here: reading them. What a figure is, is said once, in the functions of migrations/0014_reports.sql; which
hours are kept and which are computed as they are asked for, a caller of this module cannot tell.
"""

from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from marketplace.db import Connection, Pool, Queries, session
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
    **dict.fromkeys(("money_minute", "money_kind"), SMALL),
    "money_party": NUMBER,
    "money_other": NUMBER,
    "money_minor": np.dtype(">i8"),
    "money_total": np.dtype(">i8"),
}
"""How each field's numbers are written in the database; `why`, `sub_ids` and `miss_rule` are places among words."""

WORDED: Final = frozenset({"why", "sub_ids", "miss_rule"})

STATES: Final = (
    "", "received", "rejected", "duplicate", "suppressed", "nurturing", "expired", "prospect", "unsold", "held",
    "exposed", "delivered", "refused", "lapsed", "returned",
)  # fmt: skip
CHANNELS: Final = ("", "push", "fetch", "email", "feed", "portal")
STEPS: Final = ("", "received", "valid", "qualified", "eligible", "awarded", "delivered", "contacted", "won")
"Each by its number in the columns; 0 is none."


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """Who or what stands behind a number in a column."""

    number: int
    id: UUID
    name: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription as reports speak of it."""

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
    """Some fields of the same rows, oldest first, and the hours (counted from 1970, UTC) whose runs they came in."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._runs: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:  # what is kept, and then what was computed
            self._runs.setdefault(row["field"], []).append(row)

    def __getitem__(self, field: str) -> Numbers:
        """The field's numbers, in the machine's own byte order."""
        return self.of(field, slice(None))

    def of(self, field: str, rows: Numbers | slice) -> Numbers:
        """The same of some rows, by their places."""
        kind = KINDS[field]
        runs = [np.frombuffer(run["data"], kind) for run in self._runs.get(field, ())]
        found = np.concatenate([np.zeros(0, kind), *runs])[rows]
        return found if kind.kind == "V" else found.astype(kind.newbyteorder("="))

    def counts(self, field: str) -> tuple[Numbers, Numbers]:
        """The hours in which the field has rows, and how many each."""
        runs = self._runs.get(field, ())
        hours, lengths = (
            np.concatenate([np.zeros(0, NUMBER), *(np.frombuffer(run[name], NUMBER) for run in runs)]).astype(np.int64)
            for name in ("hours", "lengths")
        )
        return hours, lengths // KINDS[field].itemsize

    def hours(self, field: str) -> Numbers:
        """The hour of each row."""
        hours, counts = self.counts(field)
        return np.repeat(hours.astype(np.int32), counts)

    def words(self, field: str, rows: Numbers | slice = slice(None)) -> tuple[Numbers, tuple[str, ...]]:
        """The field of some rows as places in one tuple of words, the same over all hours."""
        known: dict[str, int] = {}
        places: list[int] = []
        lines: dict[bytes, int] = {}  # where the places of an hour's words begin; most hours have the same few words
        begins = []
        for run in self._runs.get(f"{field}_words", ()):
            data, at = run["data"], 0
            for length in np.frombuffer(run["lengths"], NUMBER).tolist():
                text = data[at : at + length]
                if text not in lines:
                    lines[text] = len(places)
                    places += [known.setdefault(word, len(known)) for word in text.decode().split("\n")]
                begins.append(lines[text] - 1)  # an hour's words are counted from 1
                at += length
        if not places:
            return np.zeros(0, np.int32), ()
        _, counts = self.counts(field)
        before = np.repeat(np.array(begins, np.int32), counts)[rows]
        return np.array(places, np.int32)[self.of(field, rows) + before], tuple(known)


class Leads:
    """Some fields of the leads that a question is about. `as_of`: how fresh what was read is."""

    def __init__(self, columns: Columns, keep: Numbers | slice, as_of: datetime) -> None:
        self.columns = columns
        self.keep = keep
        self.as_of = as_of

    def __getitem__(self, field: str) -> Numbers:
        return self.columns.of(field, self.keep)

    def __len__(self) -> int:
        return len(self["minute"])

    def among(self, places: Numbers) -> Numbers:
        """Which of these places in the columns are the question's."""
        kept = np.zeros(len(self.columns["minute"]), bool)
        kept[self.keep] = True
        return kept[places]

    def words(self, field: str) -> tuple[Numbers, tuple[str, ...]]:
        return self.columns.words(field, self.keep)

    def minutes(self) -> Numbers:
        """When each was received, in minutes since 1970, UTC."""
        return self.columns.hours("minute")[self.keep] * 60 + self["minute"]


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """The leads of a question, and what decisions say of candidates in the same hours."""

    leads: Leads
    candidates: Columns


async def load_leads(pool: Pool, question: Question, fields: Sequence[str]) -> Leads:
    """The fields of all leads that the question is about, oldest first."""
    return (await load_weighed(pool, question, fields, ())).leads


async def load_weighed(pool: Pool, question: Question, fields: Sequence[str], candidates: Sequence[str]) -> Weighed:
    """Leads and candidates as of one instant, since a candidate names its lead by its place among the hour's."""
    asked = {*fields, "minute", *_confining(question)}
    async with _reading(pool) as (connection, frontier, as_of):
        numbers = await connection.fetchrow(
            SQL["find_numbers"], question.provider_id, question.business_id, question.vertical
        )
        span = Span(*whole_hours(question), frontier)
        found = await _read(connection, "compute_leads", [question.mode], asked, span)
        weighed = await _read(connection, "compute_candidates", [question.mode], set(candidates), span)
    columns = Columns(found)
    leads = Leads(columns, _kept(columns, question, numbers), as_of)
    return Weighed(leads=leads, candidates=Columns(weighed))


class Span(NamedTuple):
    """Whole hours from `since` to `until`; those from `frontier` on are not kept."""

    since: datetime
    until: datetime
    frontier: datetime


@asynccontextmanager
async def _reading(pool: Pool) -> AsyncIterator[tuple[Connection, datetime, datetime]]:
    """One instant of the database, with the frontier and how fresh what is kept is."""
    async with session(pool) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        progress = await connection.fetchrow(SQL["find_progress"])
        yield connection, progress["frontier"], progress["as_of"]


async def _read(
    connection: Connection, compute: str, parts: Sequence[str], fields: Set[str], span: Span
) -> list[Mapping[str, Any]]:
    """The runs of these fields: the kept ones, and behind them those that `compute` makes of the newest hours."""
    if not fields:
        return []
    asked = [*fields, *(f"{field}_words" for field in fields & WORDED)]
    rows: list[Mapping[str, Any]] = []
    if span.since < span.frontier:
        rows += await _kept_runs(connection, parts, asked, span.since, min(span.until, span.frontier))
    if span.until > span.frontier:
        rows += await connection.fetch(SQL[compute], parts, asked, max(span.since, span.frontier), span.until)
    return rows


async def _kept_runs(
    connection: Connection, parts: Sequence[str], fields: Sequence[str], since: datetime, until: datetime
) -> list[Mapping[str, Any]]:
    """By the month where its hours lie together, and by the hour before, between and behind these; oldest first."""
    months = [row["month"] for row in await connection.fetch(SQL["list_closed"], since, until)]
    begins = [since, *(_following(month) for month in months)]
    spans = [(begin, end) for begin, end in zip(begins, [*months, until], strict=True) if begin < end]
    found = await connection.fetch(SQL["read_months"], parts, fields, months) if months else []
    if spans:
        found += await connection.fetch(SQL["read_hours"], parts, fields, *map(list, zip(*spans, strict=True)))
    return sorted(found, key=lambda run: run["since"])


def _following(month: datetime) -> datetime:
    return (month + timedelta(days=31)).replace(day=1)


def _confining(question: Question) -> list[str]:
    """The fields by which a question's leads are told from all others."""
    asked = {"provider": question.provider_id, "business": question.business_id, "vertical": question.vertical}
    return [field for field, value in asked.items() if value is not None]


def _kept(columns: Columns, question: Question, numbers: Mapping[str, int | None]) -> Numbers | slice:
    """The rows read that the question is about: all of them, unless it is confined or its zone cuts an hour."""
    masks = [columns[field] == (numbers[field] or -1) for field in _confining(question)]
    if whole_hours(question) != (question.since, question.until):
        at = columns.hours("minute") * 60 + columns["minute"]
        masks.append((at >= question.since.timestamp() // 60) & (at < question.until.timestamp() // 60))
    return np.flatnonzero(np.logical_and.reduce(masks)) if masks else slice(None)


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """Transfers by currency, and how fresh they are."""

    by_currency: dict[str, Columns]
    as_of: datetime


async def load_money(pool: Pool, since: datetime, until: datetime, fields: Sequence[str]) -> Money:
    """The fields of all transfers of the whole hours from `since` to `until`."""
    async with _reading(pool) as (connection, frontier, as_of):
        parts = [row["currency"] for row in await connection.fetch(SQL["list_currencies"])]
        rows = await _read(connection, "compute_money", parts, set(fields), Span(since, until, frontier))
    by_part = {part: Columns([row for row in rows if row["part"] == part]) for part in parts}
    return Money(by_currency=by_part, as_of=as_of)


def whole_hours(question: Question) -> tuple[datetime, datetime]:
    """From the beginning of the question's first hour in UTC to the end of its last."""
    return question.since.replace(minute=0), ceiling(question.until)


def ceiling(moment: datetime) -> datetime:
    """The hour's end, or the moment itself where an hour begins."""
    begun = moment.replace(minute=0, second=0, microsecond=0)
    return begun if begun == moment else begun + timedelta(hours=1)


def grouped(codes: Numbers) -> tuple[Numbers, list[tuple[int, slice]]]:
    """An order that brings equal codes together, and each code with the stretch it takes up in that order."""
    if not len(codes):
        return np.zeros(0, np.int64), []
    narrow = codes.astype(np.uint16) if codes.max() < 65_536 and codes.min() >= 0 else codes
    order = np.argsort(narrow, kind="stable")  # 16 bits are sorted by radix, ten times as fast
    ordered = codes[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[begins[1:], len(ordered)]
    return order, [(int(ordered[begin]), slice(int(begin), int(end))) for begin, end in zip(begins, ends, strict=True)]


def local_hours(minutes: Numbers, zone: str) -> Numbers:
    """The hour of the day, 0 to 23, that a clock in `zone` shows at these minutes since 1970."""
    if not len(minutes):
        return np.zeros(0, np.int32)
    where = ZoneInfo(zone)

    def ahead(minute: int) -> int:
        found = datetime.fromtimestamp(minute * 60, where).utcoffset()
        return 0 if found is None else found // timedelta(minutes=1)

    days = minutes // DAY
    first, last = int(days.min()), int(days.max())
    edges = [ahead(day * DAY) for day in range(first, last + 2)]
    offsets = np.array(edges[:-1], np.int32)[days - first]
    for day, (begin, end) in enumerate(pairwise(edges), start=first):
        if begin != end:
            changing = np.flatnonzero(days == day)
            quarters, places = np.unique(minutes[changing] // 15, return_inverse=True)  # no zone changes within one
            offsets[changing] = np.array([ahead(int(quarter) * 15) for quarter in quarters], np.int32)[places]
    return np.asarray((minutes + offsets) // 60 % 24, np.int32)


DAY: Final = 1_440
"In minutes."


async def list_parties(connection: Connection, kind: str) -> dict[int, Party]:
    """All providers, businesses or verticals by number."""
    statement = {"provider": "list_providers", "business": "list_businesses", "vertical": "list_verticals"}[kind]
    rows = await connection.fetch(SQL[statement])
    return {row["number"]: msgspec.convert(dict(row), Party) for row in rows}


async def list_subscriptions(connection: Connection, mode: str) -> dict[int, Standing]:
    rows = await connection.fetch(SQL["list_subscriptions"], mode)
    return {row["number"]: msgspec.convert(dict(row), Standing) for row in rows}
