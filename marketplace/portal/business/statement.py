"""Monthly statement of a wallet: one line per lead charged, with the balance after it; as a page, a file and a PDF."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Final

import msgspec
from litestar import Response, get

from marketplace import BRAND
from marketplace.database.db import session
from marketplace.portal.business import store, wording
from marketplace.portal.business.store import MonthLine
from marketplace.portal.business.wallet import months_of
from marketplace.portal.business.wallet_summary import business_page, load_wallet_summary
from marketplace.portal.frame import money, short, words, zone_of
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file
from marketplace.portal.session import Viewer, visitor
from marketplace.reports.question import midnight
from marketplace.runtime import clock, ids
from marketplace.security.auth import CallerKind
from marketplace.text.pdf import PdfColumn, PdfDocument, write_pdf
from marketplace.text.values import read_day
from marketplace.web.http import AnyRequest, services, wants_csv

MOST_LINES: Final = 10_000
"Lines of a statement. A business with more leads in a month reads the newest part in the CSV of the wallet."
PDF_COLUMNS: Final = (
    PdfColumn("Date", 78),
    PdfColumn("What", 261),
    PdfColumn("Amount", 80, figures=True),
    PdfColumn("Balance", 80, figures=True),
)


class StatementEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a statement with the balance after it, in minor units."""

    line: MonthLine
    balance_minor: int


def add_balances(opening_minor: int, lines: Sequence[MonthLine]) -> Iterator[StatementEntry]:
    """Yield the lines with the balance after each; the first one adds to the balance at the beginning."""
    balance = opening_minor
    for line in lines:
        balance += line.amount_minor
        yield StatementEntry(line=line, balance_minor=balance)


def _about(entry: StatementEntry) -> str:
    """Return the kind of a line, with the service and place of its lead or the reference of its payment."""
    line = entry.line
    what = wording.TRANSFERS.get(line.kind, words(line.kind))
    place = " ".join(part for part in (line.region, line.postal_code) if part)
    about = ", ".join(part for part in (line.vertical and words(line.vertical), place, line.event_id) if part)
    return f"{what}: {about}" if about else what


def _lead(entry: StatementEntry) -> str:
    return ids.encode("lead", entry.line.lead_id) if entry.line.lead_id else ""


def _lead_link(entry: StatementEntry) -> Link | None:
    lead = _lead(entry)
    return Link(f"/business/leads/{lead}", short(lead)) if lead else None


def _amount(entry: StatementEntry) -> Money:
    return Money(entry.line.amount_minor, entry.line.currency)


def _balance(entry: StatementEntry) -> Money:
    return Money(entry.balance_minor, entry.line.currency)


STATEMENT: Final = Listing[StatementEntry](
    caption="Statement",
    name="statement",
    columns=(
        Column("Date", lambda entry: entry.line.made_at, file="at", style="when"),
        Column("What", _about, file="what"),
        Column("Lead", _lead_link, file="lead", value=_lead),
        Column("Amount", _amount, file="amount_minor", style="num"),
        Column("Balance", _balance, file="balance_minor", style="num"),
        only_in_file("currency", lambda entry: entry.line.currency),
    ),
    sortable=False,
)


@get("/business/wallet/statement")
async def show_statement(request: AnyRequest) -> Response[bytes]:
    """Show a monthly statement of the wallet, on a page, as CSV, or with `?format=pdf` as PDF."""
    viewer = await visitor(request, CallerKind.business)
    zone, now = zone_of(viewer.zone).key, clock.now()
    first = _month(request.query_params.get("month"), now.astimezone(zone_of(zone)).date())
    following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    since, until = midnight(first, zone), midnight(following, zone)
    async with session(services(request).pool) as connection:
        wallet_summary = await load_wallet_summary(connection, viewer)
        opening, totals, closing = await store.sum_month(connection, viewer.owner, since, until)
        lines = await store.list_month(connection, viewer.owner, since, until, MOST_LINES)
    entries = tuple(add_balances(opening.balance_minor, lines))
    name = f"statement-{first:%Y-%m}"
    if request.query_params.get("format") == "pdf":
        edges = (opening.balance_minor, closing.balance_minor)
        document = _document(viewer, first, entries, edges, wallet_summary.currency, now)
        headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}.pdf"'}
        content = await asyncio.to_thread(write_pdf, document)
        return Response(content, media_type="application/pdf", headers=headers)
    if wants_csv(request):
        return await STATEMENT.download(entries, name)
    return await business_page(
        request,
        viewer,
        "business/statement.html",
        wallet_summary=wallet_summary,
        listing=STATEMENT,
        entries=entries,
        left_out=sum(total.lines for total in totals) - len(entries),
        first=first,
        opening=opening,
        totals=totals,
        closing=closing,
        months=months_of(now, zone),
        made_at=now,
    )


def _document(
    viewer: Viewer,
    first: date,
    entries: Sequence[StatementEntry],
    edges: tuple[int, int],
    currency: str,
    now: datetime,
) -> PdfDocument:
    """Return the statement for printing; `edges` are the balances at the beginning and at the end."""
    zone = zone_of(viewer.zone)
    rows = (
        (
            f"{entry.line.made_at.astimezone(zone):%-d %b %Y, %H:%M}",
            _about(entry),
            money(entry.line.amount_minor, currency),
            money(entry.balance_minor, currency),
        )
        for entry in entries
    )
    return PdfDocument(
        title=f"Statement of {first:%B %Y}",
        lines=(
            f"{viewer.owner_name}, {viewer.account}",
            f"{BRAND}. Created {now.astimezone(zone):%-d %b %Y, %H:%M}. Times in {zone.key}.",
            f"Balance at the beginning: {money(edges[0], currency)}. Balance at the end: {money(edges[1], currency)}.",
        ),
        columns=PDF_COLUMNS,
        rows=tuple(rows),
    )


def _month(text: str | None, today: date) -> date:
    """Return the first day of the month in the address; of this month if it names none."""
    return read_day(f"{text}-01") or today.replace(day=1)


handlers = (show_statement,)
