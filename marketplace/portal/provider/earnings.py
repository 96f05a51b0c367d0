"""What a provider has earned: owed now, by month with a statement for each, and lead by lead."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get

from marketplace import clock, errors, ids
from marketplace.auth import Kind
from marketplace.db import session
from marketplace.http import AnyRequest, page_cursor, page_limit, services, wants_csv
from marketplace.portal import charts
from marketplace.portal.frame import csv, money, page, zone_of
from marketplace.portal.provider import store
from marketplace.portal.provider.store import Month, Movement
from marketplace.portal.session import visitor
from marketplace.reports.question import midnight
from marketplace.values import read_day

MOST_MONTHS: Final = 36
MONTHS_DRAWN: Final = 13
"This month, and the same of the year before."
MOST_LINES: Final = 200
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
        months = () if as_file else await store.sum_months(connection, viewer.owner, zone_of(viewer.zone).key)
    if as_file:
        return await csv("earnings", (_line(one) for one in moved), Line.__struct_fields__)
    lines = [(one.begins.astimezone(zone_of(viewer.zone)).date(), one) for one in months]
    today = clock.now().astimezone(zone_of(viewer.zone)).date()
    return page(
        request, viewer, "provider/earnings.html", owed=_owed(months), moved=moved[:limit],
        months=lines[:MOST_MONTHS], chart=_chart(lines[:MONTHS_DRAWN]),
        this_month=[one for begins, one in lines if begins == today.replace(day=1)], today=today,
        next_cursor=ids.encode("txn", moved[limit - 1].id) if len(moved) > limit else None,
    )  # fmt: skip


def _owed(months: Sequence[Month]) -> dict[str, int]:
    """By currency, what all months together brought: nothing is paid out here."""
    owed: Counter[str] = Counter()
    for one in months:
        owed[one.currency] += one.net_minor
    return dict(sorted(owed.items()))


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
        return await csv(f"statement-{month}", (_line(one) for one in lines), Line.__struct_fields__)
    return page(
        request, viewer, "provider/statement.html", month=first, sums=sums, lines=lines, until=until,
        left_out=sum(one.lines for one in sums) - len(lines), closed=until <= now,
    )  # fmt: skip


def month_of(text: str) -> tuple[date, date]:
    """The first days of a month such as 2026-11 and of the one after. Raises NotFound."""
    found = MONTH.fullmatch(text)
    if found is None:
        raise errors.NotFound("There is no such month.")
    first = read_day(f"{text}-01")
    if first is None:
        raise errors.NotFound("There is no such month.")
    return first, (first + timedelta(days=32)).replace(day=1)


def _line(moved: Movement) -> Line:
    return Line(
        id=_public("txn", moved.id), made_at=moved.made_at.isoformat(), kind=moved.kind,
        lead_id=_public("lead", moved.lead_id), provider_reference=moved.provider_reference or "",
        amount_minor=moved.amount_minor, currency=moved.currency,
    )  # fmt: skip


def _public(kind: str, value: UUID) -> str:
    return ids.encode(kind, value)


def _chart(lines: Sequence[tuple[date, Month]]) -> Any:
    """Net earnings by month in the currency of the newest; None before there are two months."""
    shown = [(begins, one) for begins, one in lines if one.currency == lines[0][1].currency][::-1]
    if len(shown) < 2:
        return None
    currency = shown[0][1].currency
    net = tuple(float(one.net_minor) for _, one in shown)
    taken = tuple(float(one.taken_minor) for _, one in shown)
    series = [charts.Series(name="Net", values=net), charts.Series(name="Taken back", values=taken, tone="bad")]
    labels = [begins.strftime("%b %Y") for begins, _ in shown]
    return charts.stacked(
        f"Earnings by month, {currency}", labels, series, show=lambda minor: money(round(minor), currency)
    )


handlers: tuple[Any, ...] = (show_earnings, show_statement)
