"""Leads behind a figure, found by the columns and conditions of the figure, so that the list has what was counted."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Final, overload
from uuid import UUID

import msgspec
import numpy as np

from marketplace.database.db import Pool, Queries, fetch_rows, session
from marketplace.reports.figures import (
    CHANNELS,
    STATES,
    STEPS,
    LeadsAndCandidates,
    Numbers,
    list_subscriptions,
    load_unready,
    load_weighed,
    local_hours,
)
from marketplace.reports.lane import LANE_COUNTS, LANE_FIELDS, lane_mask
from marketplace.reports.question import Question
from marketplace.reports.unsold import MISSES, missed
from marketplace.runtime import ids
from marketplace.runtime.errors import InvalidInput
from marketplace.text.faults import Fault, FaultCode

SQL = Queries(__file__, "rows.sql")

CSV_CHUNK: Final = 1_000
"Leads copied out by one statement, and held in memory at a time."
CSV_LINES: Final = 50_000
"Most lines of one file. The Link header of the response leads to the next file."


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions on the leads of a list, all of which must hold; None for no condition.

    `reached` is the least step, `stopped` the last one. `missed` is the only rule that kept the lead from a
    subscription (`missed_by`, or any) by at most `within`, in `unit`. `lane` is a figure of the nurture lane
    that counts the lead; a list is either by `lane` or by `missed`.
    """

    reached: str | None = None
    stopped: str | None = None
    why: str | None = None
    state: str | None = None
    channel: str | None = None
    hour: int | None = None
    sub_id: str | None = None
    subscription_id: UUID | None = None
    missed: str | None = None
    unit: str | None = None
    within: float | None = None
    missed_by: UUID | None = None
    lane: str | None = None


class ReportRow(msgspec.Struct, frozen=True, kw_only=True):
    """One lead of a report."""

    id: UUID
    received_at: datetime
    mode: str
    vertical: str
    state: str
    step: int
    why: str
    provider_id: UUID
    provider: str
    business_id: UUID | None
    business: str | None


def read_filters(parameters: Mapping[str, str]) -> Filters:
    """Read the filters from query parameters. Raises InvalidInput with all faults at once."""
    faults: list[Fault] = []

    def one_of(name: str, words: Sequence[str]) -> str | None:
        text = parameters.get(name)
        if text is not None and text not in words:
            faults.append(
                Fault(pointer=f"/{name}", code=FaultCode.value_not_allowed, detail=f"One of {', '.join(words)}.")
            )
        return text

    def number(name: str, highest: float, *, whole: bool = False) -> float | None:
        text = parameters.get(name)
        if text is None:
            return None
        digits = text if whole else text.replace(".", "", 1)
        if not (digits.isascii() and digits.isdecimal() and len(text) <= 12 and float(text) <= highest):
            faults.append(
                Fault(pointer=f"/{name}", code=FaultCode.out_of_range, detail=f"A number from 0 to {highest:g}.")
            )
            return None
        return float(text)

    def subscription(name: str) -> UUID | None:
        text = parameters.get(name)
        subscription_id = ids.decode("sub", text) if text is not None else None
        if text is not None and subscription_id is None:
            faults.append(
                Fault(pointer=f"/{name}", code=FaultCode.value_not_allowed, detail="Send a subscription's id.")
            )
        return subscription_id

    hour = number("hour", 23, whole=True)
    filters = Filters(
        reached=one_of("reached", STEPS[1:]),
        stopped=one_of("stopped", STEPS[1:]),
        why=parameters.get("why"),
        state=one_of("state", STATES[1:]),
        channel=one_of("channel", CHANNELS[1:]),
        hour=int(hour) if hour is not None else None,
        sub_id=parameters.get("sub_id"),
        subscription_id=subscription("subscription_id"),
        missed=parameters.get("missed"),
        unit=parameters.get("unit"),
        within=number("within", 1e9),
        missed_by=subscription("missed_by"),
        lane=one_of("lane", LANE_COUNTS),
    )
    if faults := faults or _contradictions(filters):
        raise InvalidInput(faults)
    return filters


def _contradictions(filters: Filters) -> list[Fault]:
    if filters.lane is None or filters.missed is None:
        return []
    return [Fault(pointer="/lane", code=FaultCode.value_not_allowed, detail="Send lane or missed, not both.")]


FIELDS: Final[Mapping[str, str]] = {
    "reached": "step",
    "stopped": "step",
    "why": "why",
    "state": "state",
    "channel": "channel",
    "sub_id": "sub_ids",
    "subscription_id": "subscription",
}


class LeadIds(Sequence[UUID]):
    """Sequence of ids over the bytes of a column. Only those that are read become objects: a million take 16 MB."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed) // ID_BYTES

    @overload
    def __getitem__(self, place: int) -> UUID: ...
    @overload
    def __getitem__(self, place: slice) -> "LeadIds": ...
    def __getitem__(self, place: int | slice) -> "UUID | LeadIds":
        if isinstance(place, slice):
            begin, end, step = place.indices(len(self))
            if step != 1:
                raise ValueError("ids are taken in their order")
            return LeadIds(self._packed[ID_BYTES * begin : ID_BYTES * max(begin, end)])
        at = ID_BYTES * range(len(self))[place]
        return UUID(bytes=self._packed[at : at + ID_BYTES])

    def index(self, value: UUID, start: int = 0, stop: int | None = None) -> int:
        """Return the position of an id. Raises ValueError if it is not in the sequence."""
        halves = np.frombuffer(self._packed, ">u8").reshape(-1, 2)[start:stop]
        high, low = np.frombuffer(value.bytes, ">u8")
        places = np.flatnonzero((halves[:, 0] == high) & (halves[:, 1] == low))
        if not len(places):
            raise ValueError("this id is not among them")
        return start + int(places[0])

    def __contains__(self, value: object) -> bool:
        try:
            return isinstance(value, UUID) and self.index(value) >= 0
        except ValueError:
            return False


ID_BYTES: Final = 16
NO_NUMBERS: Final[Mapping[UUID, int]] = {}


async def find_ids(pool: Pool, question: Question, filters: Filters) -> LeadIds:
    """Return the ids of the leads that pass the filters, newest first."""
    criteria = {name: value for name, value in msgspec.structs.asdict(filters).items() if value is not None}
    fields = {"lead", "state", *(FIELDS[name] for name in criteria if name in FIELDS)}
    in_lane: Numbers | None = None
    if filters.lane:
        unready = await load_unready(pool, question, sorted(fields | {"step"}), LANE_FIELDS)
        weighed = LeadsAndCandidates(leads=unready.leads, candidates=unready.columns)
        in_lane = await asyncio.to_thread(lane_mask, unready, filters.lane)
    else:
        weighed = await load_weighed(pool, question, sorted(fields), MISSES if filters.missed else ())
    numbers: dict[UUID, int] = {}
    if filters.subscription_id or filters.missed_by:
        async with session(pool) as connection:
            subscriptions = await list_subscriptions(connection, question.mode)
        numbers = {each.id: number for number, each in subscriptions.items()}
    return await asyncio.to_thread(pick_ids, question, filters, weighed, numbers, in_lane)


def pick_ids(
    question: Question,
    filters: Filters,
    weighed: LeadsAndCandidates,
    subscriptions: Mapping[UUID, int] = NO_NUMBERS,
    in_lane: Numbers | None = None,
) -> LeadIds:
    """Return the same as `find_ids` from loaded columns: `lead`, `state` and the fields that the filters need.

    `subscriptions` has the number of each subscription, for filters that name one; `in_lane` is the mask of
    `filters.lane`.
    """
    leads = weighed.leads
    masks: list[Numbers] = [np.ones(len(leads), bool) if in_lane is None else in_lane]
    if filters.reached:
        masks.append(leads["step"] >= STEPS.index(filters.reached))
    if filters.stopped:
        masks.append(leads["step"] == STEPS.index(filters.stopped))
    if filters.state:
        masks.append(leads["state"] == STATES.index(filters.state))
    if filters.channel:
        masks.append(leads["channel"] == CHANNELS.index(filters.channel))
    if filters.subscription_id:
        masks.append(leads["subscription"] == subscriptions.get(filters.subscription_id, -1))
    if filters.hour is not None:
        masks.append(local_hours(leads.minutes(), question.zone) == filters.hour)
    if filters.why is not None:
        places, words = leads.words("why")
        masks.append(places == (words.index(filters.why) if filters.why in words else -1))
    if filters.sub_id is not None:
        places, words = leads.words("sub_ids")
        masks.append(np.isin(places, [place for place, word in enumerate(words) if _has(word, filters.sub_id)]))
    if filters.missed:
        masks.append(_missed(filters, weighed, subscriptions))
    rows = np.flatnonzero(np.logical_and.reduce(masks))[::-1]
    return LeadIds(leads["lead"][rows].tobytes())


def _has(sub_ids: str, pair: str) -> bool:
    if not sub_ids:
        return False
    values = msgspec.json.decode(sub_ids, type=dict[str, str | int | float | bool | None])
    return any(f"{name}={value}" == pair for name, value in values.items())


def _missed(filters: Filters, weighed: LeadsAndCandidates, subscriptions: Mapping[UUID, int]) -> Numbers:
    """Return a mask of the question's leads that one rule alone kept from a subscription."""
    misses = missed(weighed.leads, weighed.candidates)
    units = (filters.missed, filters.unit or "-")
    rules = [place for place, word in enumerate(misses.words) if tuple(word.split(" ")[:2]) == units]
    fits = np.isin(misses.rule, rules)
    if filters.missed_by:
        fits &= misses.subscription == subscriptions.get(filters.missed_by, -1)
    if filters.within is not None:
        fits &= misses.distance <= filters.within
    every = np.zeros(len(weighed.leads.columns["minute"]), bool)
    every[misses.lead[fits]] = True
    return np.asarray(every[weighed.leads.keep])


async def list_rows(pool: Pool, leads: Sequence[UUID]) -> tuple[ReportRow, ...]:
    """Load these leads, in this order."""
    async with session(pool) as connection:
        return await fetch_rows(connection, SQL["list_rows"], ReportRow, leads)


async def copy_rows(pool: Pool, leads: Sequence[UUID], *, names: bool) -> AsyncIterator[bytes]:
    """Yield these leads as CSV by COPY, some at a time; with provider and business if `names` is true."""
    for at in range(0, max(1, len(leads)), CSV_CHUNK):
        out = bytearray()

        async def collect(data: bytes, into: bytearray = out) -> None:
            into += data

        async with session(pool) as connection:
            await connection.copy_from_query(
                SQL["copy_rows"], list(leads[at : at + CSV_CHUNK]), names, output=collect, format="csv", header=at == 0
            )
        yield bytes(out)
