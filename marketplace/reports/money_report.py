"""Money report: charges, refunds and payouts by day, week or month, and the trial balance.

Figures are sums of transfers in minor units, by time of booking. Test leads move no money.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np

from marketplace.database.db import Pool, session
from marketplace.reports.figures import (
    Columns,
    Numbers,
    Party,
    ceiling,
    list_parties,
    load_money,
    whole_hours,
)
from marketplace.reports.question import Question, ReportBasis, basis, midnight

KINDS: Final = ("top_up", "withdrawal", "hold", "release", "capture", "payout", "refund", "claw_back", "paid")
"Kinds of transfers, numbered from 1 in the columns."
OF_PROVIDERS: Final = (6, 8, 9)
"Numbers of the kinds whose own party is a provider. The party of all others is a business."
NO_PARTY: Final = "No lead"
"Name of the line with transfers without a lead, such as top-ups, in a report by provider."

BOTH_SIDES: Final[Mapping[str, tuple[str, str]]] = {
    "top_up": ("outside", "available"),
    "withdrawal": ("available", "outside"),
    "hold": ("available", "held"),
    "release": ("held", "available"),
    "capture": ("held", "revenue"),
    "payout": ("revenue", "payable"),
    "refund": ("revenue", "available"),
    "claw_back": ("payable", "revenue"),
    "paid": ("payable", "outside"),
}
ACCOUNTS: Final = ("outside", "available", "held", "revenue", "payable")
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


BY_TRANSFER: Final = ("money_minute", "money_kind", "money_party", "money_other", "money_minor")


class Period(StrEnum):
    """Period of a line. Weeks begin on Monday."""

    all = "all"
    day = "day"
    week = "week"
    month = "month"


class PartyGrouping(StrEnum):
    """Grouping of lines: everybody together, or each business or provider."""

    everybody = "everybody"
    business = "business"
    provider = "provider"


class MoneyReportLine(msgspec.Struct, frozen=True, kw_only=True):
    """Transfers of one period in one currency. The lines of a grouping add up to those of everybody.

    A party's line has all transfers of its leads: a provider's has the revenue of its leads beside its earnings. `net`
    is gross minus refunds and payouts plus claw-backs; `held` is holds minus releases and charges. `payouts` is what
    providers earned, `paid` what was paid to them.
    """

    begins: date
    currency: str
    key: str
    name: str
    top_ups_minor: int
    withdrawals_minor: int
    gross_minor: int
    refunds_minor: int
    payouts_minor: int
    claw_backs_minor: int
    paid_minor: int
    net_minor: int
    held_minor: int


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """Trial balance: every account at the end of the last day. Their sum, `total_minor`, is 0."""

    currency: str
    outside_minor: int
    available_minor: int
    held_minor: int
    revenue_minor: int
    payable_minor: int
    total_minor: int


class MoneyReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report on money: lines by period, totals, and the trial balance for operators."""

    basis: ReportBasis
    period: Period
    lines: tuple[MoneyReportLine, ...]
    totals: tuple[MoneyReportLine, ...]
    balance: tuple[Balance, ...]


class _Sums(msgspec.Struct, frozen=True):
    """Sums by currency and number of the party (0 for everybody): an array of periods by kinds, in minor units."""

    by_currency: dict[str, dict[int, Numbers]]
    as_of: datetime


async def load_money_report(
    pool: Pool,
    question: Question,
    period: Period = Period.day,
    whose: PartyGrouping = PartyGrouping.everybody,
    *,
    own: bool = False,
) -> MoneyReport:
    """Load the report. For one party, it has that party's lines and no balance.

    `own` is for tenants: a line has the party's own transfers only, so that a provider sees no prices and a business no
    payouts.
    """
    begins = periods(question, period)
    confined = question.provider_id is not None or question.business_id is not None
    parties: dict[PartyGrouping, dict[int, Party]] = {}
    if confined or whose is not PartyGrouping.everybody:
        async with session(pool) as connection:
            parties = {
                kind: await list_parties(connection, kind) for kind in (PartyGrouping.business, PartyGrouping.provider)
            }
    if whose is PartyGrouping.everybody:
        whose = _party_of(question)
    sums = await _sums(
        pool, question, begins, _TransferGrouping(whose=whose, parties=parties, question=question, own=own)
    )
    lines = [
        _line(begins[place], currency, _name_of(parties.get(whose), number), sums[place])
        for currency, by_party in sums.by_currency.items()
        for number, sums in by_party.items()
        for place in range(len(begins))
        if sums[place].any()
    ]
    balance = () if confined else await load_balance(pool, question.until)
    return MoneyReport(
        basis=basis(question, "the time of booking", sums.as_of),
        period=period,
        lines=tuple(sorted(lines, key=lambda line: (line.begins, line.currency, -line.gross_minor, line.key))),
        totals=tuple(
            _line(question.first, currency, ("all", ""), sum(each.sum(axis=0) for each in by_party.values()))
            for currency, by_party in sums.by_currency.items()
            if by_party
        ),
        balance=balance,
    )


def _party_of(question: Question) -> PartyGrouping:
    """Return the kind of the party to which a question is limited, or everybody."""
    if question.provider_id is not None:
        return PartyGrouping.provider
    return PartyGrouping.everybody if question.business_id is None else PartyGrouping.business


class _TransferGrouping(msgspec.Struct, frozen=True, kw_only=True):
    """Grouping of transfers, and the question that limits them to a party. Without `parties`, there is one group."""

    whose: PartyGrouping
    parties: Mapping[PartyGrouping, Mapping[int, Party]]
    question: Question
    own: bool

    def keep(self, kinds: Numbers, of: Mapping[PartyGrouping, Numbers]) -> Numbers:
        """Return a mask of the transfers of the question; `of` has the business and provider of each, 0 for none."""
        mask = np.ones(len(kinds), bool)
        confined = {
            PartyGrouping.provider: self.question.provider_id,
            PartyGrouping.business: self.question.business_id,
        }
        for kind, party in confined.items():
            if party is not None:
                numbers = [number for number, each in self.parties[kind].items() if each.id == party]
                mask &= np.isin(of[kind], numbers)
        if self.own:
            mask &= np.isin(kinds + 1, OF_PROVIDERS) == (self.whose is PartyGrouping.provider)
        return mask


def _name_of(parties: Mapping[int, Party] | None, number: int) -> tuple[str, str]:
    """Return the key and name of a line: everybody, a party, or no party."""
    if parties is None:
        return "all", ""
    party = parties.get(number)
    return (str(party.id), party.name) if party else ("none", NO_PARTY)


def periods(question: Question, period: Period) -> tuple[date, ...]:
    """Return the first day of each period. The question's days may cut the first and last period short."""
    days = [question.first + timedelta(days=day) for day in range(question.days)]
    match period:
        case Period.all:
            return (question.first,)
        case Period.day:
            return tuple(days)
        case Period.week:
            return tuple(day for day in days if day.weekday() == 0 or day == question.first)
        case Period.month:
            return tuple(day for day in days if day.day == 1 or day == question.first)


async def _sums(pool: Pool, question: Question, begins: Sequence[date], apart: _TransferGrouping) -> _Sums:
    edges = np.array([midnight(day, question.zone).timestamp() // 60 for day in begins], np.int64)
    ends = question.until.timestamp() // 60
    whole = not apart.parties and not (edges % 60).any() and ends % 60 == 0
    fields = ("money_total",) if whole else BY_TRANSFER
    money = await load_money(pool, *whole_hours(question), fields)

    def added() -> dict[str, dict[int, Numbers]]:
        return {
            currency: _by_hour(columns, edges) if whole else _by_transfer(columns, edges, ends, apart)
            for currency, columns in money.by_currency.items()
        }

    return _Sums(await asyncio.to_thread(added), money.as_of)


def _by_hour(columns: Columns, edges: Numbers) -> dict[int, Numbers]:
    """Sum the totals of whole hours: enough if no midnight of the zone splits an hour and there is one group."""
    hours, _ = columns.counts("money_total")
    if not len(hours):
        return {}
    place = np.searchsorted(edges, hours * 60, side="right") - 1
    sums = np.zeros((len(edges), len(KINDS)), np.int64)
    np.add.at(sums, place, columns["money_total"].reshape(-1, len(KINDS)))
    return {0: sums}


def _by_transfer(columns: Columns, edges: Numbers, ends: float, apart: _TransferGrouping | None) -> dict[int, Numbers]:
    """Sum single transfers; in one group without `apart`, or if it has no parties."""
    at = columns.hours("money_minute") * 60 + columns["money_minute"]
    kinds, minor = columns["money_kind"].astype(np.int64) - 1, columns["money_minor"]
    who = np.zeros(len(at), np.int64)
    keep = (at >= edges[0]) & (at < ends)
    if apart is not None and apart.parties:
        party, other = columns["money_party"], columns["money_other"]
        providers = np.isin(kinds + 1, OF_PROVIDERS)
        of = {
            PartyGrouping.provider: np.where(providers, party, other),
            PartyGrouping.business: np.where(providers, other, party),
        }
        keep &= apart.keep(kinds, of)
        who = of[apart.whose]
    at, kinds, who, minor = at[keep], kinds[keep], who[keep], minor[keep]
    if not len(at):
        return {}
    place = np.searchsorted(edges, at, side="right") - 1 if len(edges) > 1 else np.zeros(len(at), np.int64)
    numbers, who = np.unique(who, return_inverse=True)
    sums = np.zeros(len(numbers) * len(edges) * len(KINDS), np.int64)
    np.add.at(sums, (who * len(edges) + place) * len(KINDS) + kinds, minor)
    shaped = sums.reshape(len(numbers), len(edges), len(KINDS))
    return {int(number): shaped[row] for row, number in enumerate(numbers)}


def _line(begins: date, currency: str, whose: tuple[str, str], sums: Numbers) -> MoneyReportLine:
    of = {kind: int(minor) for kind, minor in zip(KINDS, sums, strict=True)}
    return MoneyReportLine(
        begins=begins,
        currency=currency,
        key=whose[0],
        name=whose[1],
        top_ups_minor=of["top_up"],
        withdrawals_minor=of["withdrawal"],
        gross_minor=of["capture"],
        refunds_minor=of["refund"],
        payouts_minor=of["payout"],
        claw_backs_minor=of["claw_back"],
        paid_minor=of["paid"],
        net_minor=of["capture"] - of["refund"] - of["payout"] + of["claw_back"],
        held_minor=of["hold"] - of["release"] - of["capture"],
    )


async def load_balance(pool: Pool, until: datetime) -> tuple[Balance, ...]:
    """Load the trial balance of all transfers booked before `until`."""
    whole = until.replace(minute=0, second=0, microsecond=0)
    money = await load_money(pool, BEGINNING, whole, ["money_total"])
    newest = await load_money(pool, whole, ceiling(until), ["money_minute", "money_kind", "money_minor"])
    balances = []
    for currency, columns in money.by_currency.items():
        sums = columns["money_total"].reshape(-1, len(KINDS)).sum(axis=0)
        edges = np.array([whole.timestamp() // 60], np.int64)
        for late in _by_transfer(newest.by_currency[currency], edges, until.timestamp() // 60, None).values():
            sums = sums + late[0]
        accounts = dict.fromkeys(ACCOUNTS, 0)
        for kind, minor in zip(KINDS, sums.tolist(), strict=True):
            gives, takes = BOTH_SIDES[kind]
            accounts[gives] -= minor
            accounts[takes] += minor
        balances.append(
            Balance(
                currency=currency,
                total_minor=sum(accounts.values()),
                **{f"{name}_minor": minor for name, minor in accounts.items()},
            )
        )
    return tuple(balances)
