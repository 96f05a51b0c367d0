"""Earnings of a provider: the amount owed, a statement for each month, each payout and each payment."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

import msgspec
from litestar import Response, get

from marketplace.database.db import session
from marketplace.portal import charts
from marketplace.portal.frame import money, page, zone_of
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.provider import store
from marketplace.portal.provider.store import EarningsMonth, MonthSums, Movement
from marketplace.portal.provider.submissions import submission_link
from marketplace.portal.session import visitor
from marketplace.reports.question import midnight
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.values import read_day
from marketplace.web.http import AnyRequest, page_cursor, services, wants_csv

MOST_MONTHS: Final = 36
MONTHS_DRAWN: Final = 13
"This month and the twelve before."
MOST_LINES: Final = 200
"Most lines of a statement on its page; the sums above include all lines."
CSV_LINES: Final = 10_000
MONTH: Final = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")


def _purpose(movement: Movement) -> object:
    """Return the link to the submission, or the reference of a payment."""
    if movement.lead_id is None:
        return movement.event_id
    return submission_link(movement.lead_id, movement.provider_reference)


MOVEMENT_KINDS: Final = {
    "payout": "Sold",
    "claw_back": "Taken back: the lead was returned",
    "paid": "Paid to you",
}
MOVEMENTS: Final = Listing[Movement](
    caption="Earnings, newest first",
    name="earnings",
    columns=(
        only_in_file("id", lambda movement: ids.encode("txn", movement.id)),
        Column(
            "Booked",
            lambda movement: movement.made_at,
            file="made_at",
            value=lambda movement: movement.made_at.isoformat(),
        ),
        Column(
            "Type",
            lambda movement: MOVEMENT_KINDS[movement.kind],
            file="kind",
            value=lambda movement: movement.kind,
        ),
        only_in_file("lead_id", lambda movement: ids.encode("lead", movement.lead_id) if movement.lead_id else ""),
        only_in_file("payment", lambda movement: movement.event_id or ""),
        Column(
            "Submission or payment",
            _purpose,
            file="provider_reference",
            value=lambda movement: movement.provider_reference or "",
        ),
        Column(
            "Amount", lambda movement: Money(movement.amount_minor, movement.currency), file="amount_minor", style="num"
        ),
        only_in_file("currency", lambda movement: movement.currency),
    ),
)


class EarningsMonthRow(msgspec.Struct, frozen=True, kw_only=True):
    """The earnings of a month in one currency; `first` is its first day in the viewer's zone."""

    first: date
    sums: EarningsMonth


MONTHS: Final = Listing[EarningsMonthRow](
    caption="Statements",
    columns=(
        Column(
            "Month",
            lambda month: Link(f"/provider/earnings/statement?month={month.first:%Y-%m}", f"{month.first:%B %Y}"),
        ),
        Column("Earned", lambda month: Money(month.sums.earned_minor, month.sums.currency), style="num"),
        Column("Taken back", lambda month: Money(-month.sums.taken_minor, month.sums.currency), style="num"),
        Column("Net", lambda month: Money(month.sums.net_minor, month.sums.currency), style="num"),
        Column("Paid to you", lambda month: Money(month.sums.paid_minor, month.sums.currency), style="num"),
    ),
)
SUMS: Final = Listing[MonthSums](
    caption="Sums",
    columns=(
        Column("Currency", lambda sums: sums.currency),
        Column("Owed before", lambda sums: Money(sums.opening_minor, sums.currency), style="num"),
        Column("Earned", lambda sums: Money(sums.earned_minor, sums.currency), style="num"),
        Column("Taken back", lambda sums: Money(-sums.taken_minor, sums.currency), style="num"),
        Column("Paid to you", lambda sums: Money(-sums.paid_minor, sums.currency), style="num"),
        Column("Owed after", lambda sums: Money(sums.closing_minor, sums.currency), style="num"),
    ),
)


@get("/provider/earnings")
async def show_earnings(request: AnyRequest) -> Response[bytes]:
    """Show the amount owed, the earnings of each month, and the latest payouts."""
    viewer = await visitor(request, CallerKind.provider)
    limit, before = list_limit(request), page_cursor(request, "txn")
    as_file = wants_csv(request)
    most = CSV_LINES if as_file else limit + 1
    async with session(services(request).pool) as connection:
        movements = await store.list_earnings(connection, viewer.owner, before, most)
        months = () if as_file else await store.sum_months(connection, viewer.owner, zone_of(viewer.zone).key)
    if as_file:
        return await MOVEMENTS.download(movements)
    zone = zone_of(viewer.zone)
    rows = [EarningsMonthRow(first=month.begins.astimezone(zone).date(), sums=month) for month in months]
    today = clock.now().astimezone(zone).date()
    next_cursor = next_page("txn", [row.id for row in movements], limit)
    return page(
        request,
        viewer,
        "provider/earnings.html",
        owed=_owed(months),
        listing=MOVEMENTS,
        movements=movements[:limit],
        month_listing=MONTHS,
        months=rows[:MOST_MONTHS],
        chart=_chart(rows[:MONTHS_DRAWN]),
        this_month=[month.sums for month in rows if month.first == today.replace(day=1)],
        today=today,
        next_cursor=next_cursor,
    )


def _owed(months: Sequence[EarningsMonth]) -> dict[str, int]:
    """Return the net earnings of all months by currency, less what was paid."""
    owed: Counter[str] = Counter()
    for month in months:
        owed[month.currency] += month.net_minor - month.paid_minor
    return dict(sorted(owed.items()))


@get("/provider/earnings/statement")
async def show_statement(request: AnyRequest) -> Response[bytes]:
    """Show the statement of a month: owed before, each lead paid for or taken back, and owed after."""
    viewer = await visitor(request, CallerKind.provider)
    now = clock.now()
    month = request.query_params.get("month") or now.astimezone(zone_of(viewer.zone)).strftime("%Y-%m")
    first, following = month_of(month)
    since, until = midnight(first, viewer.zone), midnight(following, viewer.zone)
    as_file = wants_csv(request)
    async with session(services(request).pool) as connection:
        sums = await store.sum_statement(connection, viewer.owner, since, until)
        most = 10 * CSV_LINES if as_file else MOST_LINES
        lines = await store.list_statement(connection, viewer.owner, since, until, most)
    if as_file:
        return await MOVEMENTS.download(lines, f"statement-{month}")
    return page(
        request,
        viewer,
        "provider/statement.html",
        month=first,
        sum_listing=SUMS,
        sums=sums,
        listing=MOVEMENTS,
        lines=lines,
        until=until,
        left_out=sum(total.lines for total in sums) - len(lines),
        closed=until <= now,
    )


def month_of(text: str) -> tuple[date, date]:
    """Return the first day of a month such as `2026-11`, and that of the next month. Raises NotFound."""
    first = read_day(f"{text}-01") if MONTH.fullmatch(text) else None
    if first is None:
        raise errors.NotFound("There is no such month.")
    return first, (first + timedelta(days=32)).replace(day=1)


def _chart(months: Sequence[EarningsMonthRow]) -> Any:
    """Return a chart of net earnings by month in the currency of the newest month; None for fewer than two months."""
    drawn = [month for month in months if month.sums.currency == months[0].sums.currency][::-1]
    if len(drawn) < 2:
        return None
    currency = drawn[0].sums.currency
    net = tuple(float(month.sums.net_minor) for month in drawn)
    taken = tuple(float(month.sums.taken_minor) for month in drawn)
    series = [charts.Series(name="Net", values=net), charts.Series(name="Taken back", values=taken, tone="bad")]
    labels = [month.first.strftime("%b %Y") for month in drawn]
    return charts.stacked(
        f"Earnings by month, {currency}", labels, series, show=lambda minor: money(round(minor), currency)
    )


handlers: tuple[Any, ...] = (show_earnings, show_statement)
