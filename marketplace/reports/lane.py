"""Report on the nurture lane: the leads that entered it, what became of them, and what those that were sold earned.

All figures are by received time, so that each lead counts in one place: those received lately may still be waiting.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
import numpy as np

from marketplace.database.db import Pool, session
from marketplace.reports.figures import (
    STATES,
    STEPS,
    Numbers,
    Party,
    ReportSubscription,
    UnreadyLeads,
    list_subscriptions,
    load_unready,
)
from marketplace.reports.grouping import (
    GroupName,
    LeadGrouping,
    group_codes,
    group_question,
    list_group_parties,
    name_group,
)
from marketplace.reports.question import Question, ReportBasis, basis

ENDS: Final = ("", "given_back", "withdrawn")
"Names of `unready_end` in the columns: see migrations/0074_unready_columns.sql."


class LaneMoney(msgspec.Struct, frozen=True, kw_only=True):
    """Money of the leads of the lane that were sold and not returned, in minor units. Margin is revenue less payout."""

    currency: str
    revenue_minor: int
    payout_minor: int
    margin_minor: int


class LaneRows(msgspec.Struct, frozen=True, kw_only=True):
    """URLs of the lists of leads behind the figures of a group."""

    entered: str
    waiting: str
    reentered: str
    sold: str
    returned: str
    expired: str
    given_back: str
    withdrawn: str
    rejected: str


LANE_COUNTS: Final = LaneRows.__struct_fields__
"Names of the figures that count leads."


class LaneFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that entered the nurture lane. Each is `waiting`, `reentered` or at one of four ends.

    `reentered` became prospects; of these, `sold` were delivered and `returned` given back by their business. The ends
    are `expired`, `given_back` by the provider, `withdrawn` by the person (revoked consent, erasure) and `rejected`.
    `conversion` is the share sold of those that entered, null if none did.
    """

    key: str
    name: str
    entered: int
    waiting: int
    reentered: int
    sold: int
    returned: int
    expired: int
    given_back: int
    withdrawn: int
    rejected: int
    conversion: float | None
    money: tuple[LaneMoney, ...]
    rows: LaneRows


class LaneRow(msgspec.Struct, frozen=True, kw_only=True):
    """Line of a table: a group with its money in one currency. A second currency has a line without counts."""

    key: str
    name: str
    figures: LaneFigures | None
    money: LaneMoney | None


class LaneReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report on the nurture lane, in total and by group. It counts leads; those that re-entered are prospects."""

    basis: ReportBasis
    total: LaneFigures
    by: LeadGrouping
    groups: tuple[LaneFigures, ...]


FIELDS: Final = ("step", "state", "demo", "subscription")
UNREADY_FIELDS: Final = ("unready_nurtured", "unready_end", "unready_price", "unready_payout")


async def load_lane(pool: Pool, question: Question, by: LeadGrouping = LeadGrouping.vertical) -> LaneReport:
    """Load the report, grouped by `by`."""
    grouping_fields = () if by is LeadGrouping.week else (by,)
    unready = await load_unready(pool, question, [*FIELDS, *grouping_fields], UNREADY_FIELDS)
    parties = await list_group_parties(pool, by)
    async with session(pool) as connection:
        subscriptions = await list_subscriptions(connection, question.mode)
    return await asyncio.to_thread(_lane, question, by, unready, parties, subscriptions)


def lane_rows(groups: Iterable[LaneFigures]) -> Iterator[LaneRow]:
    """Yield the lines of a table: one per group, and one more for each currency after the first."""
    for group in groups:
        for place, money in enumerate(group.money or (None,)):
            yield LaneRow(key=group.key, name=group.name, figures=None if place else group, money=money)


class _Lane(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of the leads that entered the lane. `currency` is a position in `currencies`."""

    state: Numbers
    step: Numbers
    end: Numbers
    price: Numbers
    payout: Numbers
    currency: Numbers
    currencies: tuple[str, ...]


def _lane(
    question: Question,
    by: LeadGrouping,
    unready: UnreadyLeads,
    parties: Mapping[int, Party],
    subscriptions: Mapping[int, ReportSubscription],
) -> LaneReport:
    nurtured = unready["unready_nurtured"] == 1
    currencies = tuple(sorted({each.currency for each in subscriptions.values()}))
    currency_of = np.zeros(max(subscriptions, default=0) + 1, np.int64)
    for number, each in subscriptions.items():
        currency_of[number] = currencies.index(each.currency)
    lane = _Lane(
        state=unready["state"][nurtured],
        step=unready["step"][nurtured],
        end=unready["unready_end"][nurtured],
        price=unready["unready_price"][nurtured],
        payout=unready["unready_payout"][nurtured],
        currency=currency_of[unready["subscription"][nurtured]],
        currencies=currencies,
    )
    codes = group_codes(question, unready.leads, by)[unready.place][nurtured]
    counted = _count(lane, codes)
    names = {code: name_group(by, code, parties) for code in counted}
    groups = [
        _figures(counts, names[code], group_question(question, by, names[code].key)) for code, counts in counted.items()
    ]
    groups.sort(key=lambda group: group.key if by is LeadGrouping.week else (-group.entered, group.name))
    total = _count(lane, np.zeros(len(codes), np.int64)).get(0, _NONE)
    return LaneReport(
        basis=basis(question, "received time", unready.leads.as_of, demo=bool(unready.leads["demo"].any())),
        total=_figures(total, GroupName("all", "All"), question),
        by=by,
        groups=tuple(groups),
    )


def _mask(figure: str, state: Numbers, step: Numbers, end: Numbers) -> Numbers:
    """Return a mask of the leads that a figure counts, from columns of leads that entered the lane."""
    match figure:
        case "entered":
            mask = np.ones(len(state), bool)
        case "waiting":
            mask = np.isin(state, [STATES.index("nurturing"), STATES.index("received")])
        case "reentered":
            mask = step >= STEPS.index("qualified")
        case "sold":
            mask = step >= STEPS.index("delivered")
        case "expired":
            mask = (state == STATES.index("expired")) & (end == ENDS.index(""))
        case "given_back" | "withdrawn":
            mask = end == ENDS.index(figure)
        case _:
            mask = state == STATES.index(figure)
    return np.asarray(mask)


LANE_FIELDS: Final = ("unready_nurtured", "unready_end")
"Columns beside those of leads, `state` and `step`, from which `lane_mask` reads."


def lane_mask(unready: UnreadyLeads, figure: str) -> Numbers:
    """Return a mask of the question's leads that a figure of the lane counts, one of LANE_COUNTS."""
    nurtured = unready["unready_nurtured"] == 1
    columns = (unready[name][nurtured] for name in ("state", "step", "unready_end"))
    mask = np.zeros(len(unready.leads), bool)
    mask[unready.place[nurtured][_mask(figure, *columns)]] = True
    return mask


class _Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of leads by name, and money, of one group."""

    leads: dict[str, int]
    money: tuple[LaneMoney, ...]


_NONE: Final = _Counts(leads={}, money=())


def _count(lane: _Lane, codes: Numbers) -> dict[int, _Counts]:
    """Return the counts of each group that has a lead."""

    size = int(codes.max(initial=0)) + 1
    counts = {
        name: np.bincount(codes[_mask(name, lane.state, lane.step, lane.end)], minlength=size) for name in LANE_COUNTS
    }
    money = _sum_money(lane, codes, size)
    return {
        int(code): _Counts(
            leads={name: int(numbers[code]) for name, numbers in counts.items()},
            money=tuple(sums for currency in money if (sums := currency[code]) is not None),
        )
        for code in np.flatnonzero(counts["entered"])
    }


def _sum_money(lane: _Lane, codes: Numbers, size: int) -> list[list[LaneMoney | None]]:
    """Return for each currency the money of each group; None where nothing of the group was charged in it."""
    money = []
    for place, currency in enumerate(lane.currencies):
        charged = (lane.currency == place) & (lane.price > 0)
        revenue, payout = np.zeros(size, np.int64), np.zeros(size, np.int64)
        np.add.at(revenue, codes[charged], lane.price[charged])
        np.add.at(payout, codes[charged], lane.payout[charged])
        money.append(
            [
                LaneMoney(currency=currency, revenue_minor=paid, payout_minor=owed, margin_minor=paid - owed)
                if paid
                else None
                for paid, owed in zip(revenue.tolist(), payout.tolist(), strict=True)
            ]
        )
    return money


def _figures(counts: _Counts, group: GroupName, question: Question) -> LaneFigures:
    def of(name: str) -> int:
        return counts.leads.get(name, 0)

    entered, rows = of("entered"), question.rows()
    return LaneFigures(
        key=group.key,
        name=group.name,
        entered=entered,
        waiting=of("waiting"),
        reentered=of("reentered"),
        sold=of("sold"),
        returned=of("returned"),
        expired=of("expired"),
        given_back=of("given_back"),
        withdrawn=of("withdrawn"),
        rejected=of("rejected"),
        conversion=round(of("sold") / entered, 4) if entered else None,
        money=counts.money,
        rows=LaneRows(**{figure: f"{rows}&lane={figure}" for figure in LANE_COUNTS}),
    )
