"""What a provider has earned: owed now, by month with a statement for each, and lead by lead."""

import re
from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get

from marketplace import clock, errors, ids
from marketplace.auth import Kind
from marketplace.db import session
from marketplace.funds.store import sum_payable
from marketplace.http import AnyRequest, page_cursor, page_limit, services, wants_csv
from marketplace.portal import charts
from marketplace.portal.frame import csv, money, page, zone_of
from marketplace.portal.provider import store
from marketplace.portal.provider.store import Movement
from marketplace.portal.session import visitor
from marketplace.reports.money_report import MoneyReport, Period, load_money_report
from marketplace.reports.question import MOST_DAYS, Question, midnight

MONTHS_SHOWN_DAYS: Final = 365
MOST_LINES: Final = 5_000
"Of one statement on a page; the sums above them are of all."
CSV_LINES: Final = 10_000
MONTH: Final = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A movement as a file has it: minor units, below zero for what was taken back."""

    id: str
    made_at: str
    kind: str
    lead_id: str
    provider_reference: str
    amount_minor: int
    currency: str


@get("/provider/earnings")
async def show_earnings(request: AnyRequest) -> Response[bytes]:
    """What is owed, what each month brought, and what moved last."""
    viewer = await visitor(request, Kind.provider)
    limit, before = page_limit(request), page_cursor(request, "txn")
    as_file = wants_csv(request)
    async with session(services(request).pool) as connection:
        moved = await store.list_earnings(connection, viewer.owner, before, CSV_LINES if as_file else limit + 1)
        owed = await sum_payable(connection, viewer.owner)
    if as_file:
        return csv("earnings", [_line(one) for one in moved], Line.__struct_fields__)
    today = clock.now().astimezone(zone_of(viewer.zone)).date()
    first = (today - timedelta(days=MONTHS_SHOWN_DAYS)).replace(day=1)
    year = Question(first=max(first, today - timedelta(days=MOST_DAYS - 1)), last=today, zone=viewer.zone,
                    provider_id=viewer.owner)  # fmt: skip
    months = await load_money_report(services(request).reports, year, Period.month)
    this_month = [line for line in months.lines if line.begins == today.replace(day=1)]
    return page(
        request, viewer, "provider/earnings.html", owed=owed, moved=moved[:limit], months=months.lines[::-1],
        chart=_chart(months), this_month=this_month,
        next_cursor=ids.encode("txn", moved[limit - 1].id) if len(moved) > limit else None,
    )  # fmt: skip


@get("/provider/earnings/statement")
async def show_statement(request: AnyRequest) -> Response[bytes]:
    """One month: what was owed before, every lead that was paid for or taken back, and what is owed after."""
    viewer = await visitor(request, Kind.provider)
    now = clock.now()
    month = request.query_params.get("month") or now.astimezone(zone_of(viewer.zone)).strftime("%Y-%m")
    first, following = month_of(month)
    since, until = midnight(first, viewer.zone), midnight(following, viewer.zone)
    as_file = wants_csv(request)
    async with session(services(request).pool) as connection:
        sums = await store.sum_statement(connection, viewer.owner, since, until)
        lines = await store.list_statement(
            connection, viewer.owner, since, until, 10 * CSV_LINES if as_file else MOST_LINES
        )
    if as_file:
        return csv(f"statement-{month}", [_line(one) for one in lines], Line.__struct_fields__)
    return page(
        request, viewer, "provider/statement.html", month=first, sums=sums, lines=lines, until=until,
        left_out=sum(one.lines for one in sums) - len(lines), closed=until <= now,
    )  # fmt: skip


def month_of(text: str) -> tuple[date, date]:
    """The first days of a month such as 2026-11 and of the one after. Raises NotFound."""
    found = MONTH.fullmatch(text)
    if found is None:
        raise errors.NotFound("There is no such month.")
    first = date(int(found[1]), int(found[2]), 1)
    return first, (first + timedelta(days=32)).replace(day=1)


def _line(moved: Movement) -> Line:
    return Line(
        id=_public("txn", moved.id), made_at=moved.made_at.isoformat(), kind=moved.kind,
        lead_id=_public("lead", moved.lead_id), provider_reference=moved.provider_reference or "",
        amount_minor=moved.amount_minor, currency=moved.currency,
    )  # fmt: skip


def _public(kind: str, value: UUID) -> str:
    return ids.encode(kind, value)


def _chart(months: MoneyReport) -> Any:
    """Net earnings by month in the currency that most was earned in; None before there are two months."""
    if not months.totals:
        return None
    currency = max(months.totals, key=lambda line: line.payouts_minor).currency
    lines = [line for line in months.lines if line.currency == currency]
    if len(lines) < 2:
        return None
    net = tuple(float(max(0, line.payouts_minor - line.claw_backs_minor)) for line in lines)
    taken = tuple(float(line.claw_backs_minor) for line in lines)
    series = [charts.Series(name="Net", values=net), charts.Series(name="Taken back", values=taken, tone="bad")]
    labels = [line.begins.strftime("%b %Y") for line in lines]
    return charts.stacked(f"Earnings by month, {currency}", labels, series,
                          show=lambda minor: money(round(minor), currency))  # fmt: skip


handlers: tuple[Any, ...] = (show_earnings, show_statement)
