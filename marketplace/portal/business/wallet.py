"""Wallet of a business: its balance and every transaction."""

from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
from litestar import Response, get, post
from markupsafe import Markup

from marketplace.database.db import session
from marketplace.directory import store as directory_store
from marketplace.directory.store import TenantScope
from marketplace.funds import flow as funds_flow
from marketplace.funds import store as funds_store
from marketplace.funds.store import StatementLine, WalletLine
from marketplace.portal.business import wording
from marketplace.portal.business.leads import read_amount
from marketplace.portal.business.wallet_summary import business_page, load_wallet_summary
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS
from marketplace.portal.forms import Amount, changing, fill, label, show_again, show_form
from marketplace.portal.frame import field_amount, redirect, short, words, zone_of
from marketplace.portal.listing import Column, Link, Listing, Money, only_in_file
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, ids
from marketplace.runtime.errors import InvalidInput
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv

CSV_LINES: Final = 10_000


class LowBalanceForm(msgspec.Struct, frozen=True, kw_only=True):
    """Balance below which the wallet counts as low; None for no alert."""

    low_below: Annotated[
        Amount | None,
        label("Alert below, in {currency}", "Every page shows a warning below this balance. Empty: no warning."),
    ] = None


def _lead_id(line: WalletLine) -> str:
    return ids.encode("lead", line.lead_id) if line.lead_id else ""


def _balance(line: WalletLine) -> int | None:
    """Return the balance after a transaction; None in a list of the transactions of a single lead."""
    return line.balance_minor if isinstance(line, StatementLine) else None


def _what(line: WalletLine) -> tuple[object, ...]:
    """Return the kind of transaction, and the lead or the payment that it belongs to."""
    lead = _lead_id(line)
    what = wording.TRANSFERS.get(line.kind, words(line.kind))
    if lead:
        return what, "·", Link(f"/business/leads/{lead}", short(lead))
    payment = line.event_id and Markup('· <span class="muted break">{}</span>').format(line.event_id)
    return what, payment


LINES: Final = Listing[WalletLine](
    caption="Transactions",
    name="wallet",
    columns=(
        Column("When", lambda line: line.made_at, file="at", style="when"),
        Column(
            "What",
            _what,
            file="what",
            value=lambda line: wording.TRANSFERS.get(line.kind, line.kind),
        ),
        only_in_file("lead", _lead_id),
        only_in_file("payment", lambda line: line.event_id or ""),
        Column(
            "Amount",
            lambda line: Money(line.amount_minor, line.currency),
            file="amount_minor",
            style="num",
        ),
        Column(
            "Balance",
            lambda line: Money(_balance(line), line.currency),
            file="balance_minor",
            style="num",
        ),
        only_in_file("currency", lambda line: line.currency),
    ),
)


class NextLead(msgspec.Struct, frozen=True, kw_only=True):
    """Price of the next lead of a subscription, and the number of such leads that the wallet covers."""

    name: str
    price_minor: int
    currency: str
    covered: int


@get("/business/wallet")
async def show_wallet(request: AnyRequest) -> Response[bytes]:
    """Show the balance and the transactions, newest first, on a page or as a file."""
    viewer = await visitor(request, CallerKind.business)
    return await _wallet_page(request, viewer)


async def _wallet_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    as_file, lead = wants_csv(request), request.query_params.get("lead")
    limit, after = CSV_LINES if as_file else list_limit(request), page_cursor(request, "txn")
    async with session(services(request).pool) as connection:
        wallet_summary = await load_wallet_summary(connection, viewer)
        lines: tuple[WalletLine, ...]
        if lead:
            lines = await funds_store.list_lead_lines(connection, viewer.owner, path_id("lead", lead))
        else:
            lines = await funds_store.list_statement(connection, viewer.owner, after, limit + 1)
        subscriptions = await directory_store.list_subscriptions(
            connection, TenantScope(business_id=viewer.owner, mode="live"), None, MOST_SUBSCRIPTIONS
        )
    if as_file:
        return await LINES.download(lines[:limit])
    next_cursor = None if lead else next_page("txn", [row.id for row in lines], limit)
    return await business_page(
        request,
        viewer,
        "business/wallet.html",
        wallet_summary=wallet_summary,
        form=show_form(
            LowBalanceForm,
            {"low_below": field_amount(wallet_summary.low_below_minor, wallet_summary.currency)},
            currency=wallet_summary.currency,
        ),
        listing=LINES,
        lines=lines[:limit],
        lead=lead,
        next_cursor=next_cursor,
        months=months_of(clock.now(), viewer.zone),
        next_leads=[
            NextLead(
                name=subscription.name,
                price_minor=subscription.definition.price_minor,
                currency=subscription.definition.currency,
                covered=max(0, wallet_summary.spendable_minor) // subscription.definition.price_minor,
            )
            for subscription in subscriptions
            if subscription.state == "active"
        ],
    )


def months_of(now: datetime, zone: str) -> list[tuple[str, str]]:
    """Return the last twelve months, newest first: the value for a statement's address, and the name."""
    first = now.astimezone(zone_of(zone)).date().replace(day=1)
    months = []
    for _ in range(12):
        months.append((f"{first:%Y-%m}", f"{first:%B %Y}"))
        first = (first - timedelta(days=1)).replace(day=1)
    return months


@post("/business/wallet/low")
async def set_low(request: AnyRequest) -> Response[bytes]:
    """Set the balance below which the wallet counts as low."""
    viewer, fields = await changing(request, CallerKind.business)
    pool = services(request).pool
    try:
        form = fill(LowBalanceForm, fields)
        async with session(pool) as connection:
            wallet_summary = await load_wallet_summary(connection, viewer)
        low = read_amount(form.low_below, wallet_summary.currency, "low_below")
    except InvalidInput as error:
        return await show_again(request, fields, error, _wallet_page(request, viewer))
    await funds_flow.set_low_balance_alert(pool, viewer.actor, viewer.owner, low)
    return redirect(request, "/business/wallet", "Saved.")


handlers = (show_wallet, set_low)
