"""Wallets of the businesses: trial balance, check of the wallets against the ledger, the ledger, and payments."""

from datetime import timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import session
from marketplace.funds import flow as funds_flow
from marketplace.funds.http import HIGHEST_TOP_UP_MINOR
from marketplace.ledger import money
from marketplace.portal.business.leads import field_fault, read_amount
from marketplace.portal.forms import Amount, Reason, changing, fill, label, show_again, show_form
from marketplace.portal.frame import badge, page, redirect, short
from marketplace.portal.frame import money as format_money
from marketplace.portal.listing import Column, Link, Listing, Money, code, only_in_file
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import LowWallet, TransferRow, WalletDifference
from marketplace.portal.operator.links import business_link, provider_link
from marketplace.portal.paging import changed_address, list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.reports.money_report import ACCOUNTS, load_balance
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS, FaultCode
from marketplace.web.http import AnyRequest, page_cursor, path_id, services, wants_csv

HOME: Final = "/operator/wallets"
TABS: Final = ((HOME, "Balance"), (f"{HOME}/ledger", "Ledger"), (f"{HOME}/providers", "Owed to providers"))
LOWEST_SHOWN: Final = 20
CSV_LINES: Final = 10_000
KINDS: Final = {
    "top_up": "Top-up",
    "withdrawal": "Withdrawal",
    "hold": "Hold",
    "release": "Release",
    "capture": "Charge",
    "payout": "Earned by the provider",
    "refund": "Refund",
    "claw_back": "Claw-back",
    "paid": "Paid to the provider",
}
ACCOUNT_WORDS: Final = {
    "outside": "Paid in from outside",
    "available": "Wallets, available",
    "held": "Wallets, held",
    "revenue": "Our revenue",
    "payable": "Owed to providers",
}

BusinessId = Annotated[str, Meta(min_length=1, max_length=64, extra={"placeholder": "biz_…"})]


class TopUpForm(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that was received. `reference` is the payment's own id: the same reference is recorded once."""

    business: Annotated[BusinessId, label("Business id")]
    amount: Annotated[Amount, label("Amount", "In the currency of the wallet, for example 1,250.00")]
    reference: Annotated[
        str,
        Meta(min_length=1, max_length=255, pattern=WORDS),
        label("Payment reference", "A payment with the same reference is recorded only once."),
    ]
    reason: Annotated[Reason, label("Reason")]


class CreditForm(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet's credit limit: the amount by which it may go below zero."""

    business: Annotated[BusinessId, label("Business id")]
    limit: Annotated[Amount, label("Limit")]
    reason: Annotated[Reason, label("Reason", kind="textarea", rows=2)]


def _ledger_link(wallet: LowWallet | WalletDifference) -> Link:
    return Link(f"{HOME}/ledger?business={ids.encode('biz', wallet.business_id)}", wallet.business)


def _wallet_badge(wallet: LowWallet) -> Markup:
    if wallet.state != "active":
        return badge(wallet.state)
    if wallet.available_minor + wallet.credit_limit_minor <= 0:
        return badge("Empty")
    is_low = wallet.low_below_minor is not None and wallet.available_minor < wallet.low_below_minor
    return badge("Low" if is_low else "Available")


LOWEST: Final = Listing[LowWallet](
    caption="Lowest wallets",
    columns=(
        Column("Business", _ledger_link),
        Column("State", _wallet_badge),
        Column("Available", lambda wallet: Money(wallet.available_minor, wallet.currency), style="num"),
        Column("Credit", lambda wallet: Money(wallet.credit_limit_minor, wallet.currency), style="num"),
        Column("Held", lambda wallet: Money(wallet.held_minor, wallet.currency), style="num"),
        Column("Id", lambda wallet: code(ids.encode("biz", wallet.business_id))),
    ),
)
DIFFERENCES: Final = Listing[WalletDifference](
    caption="Differences",
    columns=(
        Column("Business", _ledger_link),
        Column("Available", lambda row: Money(row.available_minor, row.currency), style="num"),
        Column("Available by entries", lambda row: Money(row.entries_available_minor, row.currency), style="num"),
        Column("Held", lambda row: Money(row.held_minor, row.currency), style="num"),
        Column("Held by entries", lambda row: Money(row.entries_held_minor, row.currency), style="num"),
    ),
)


@get(HOME)
async def show_wallets(request: AnyRequest) -> Response[bytes]:
    """Show the trial balance and the wallets with the least to spend."""
    return await _wallets_page(request, await visitor(request, CallerKind.operator))


async def _wallets_page(
    request: AnyRequest,
    viewer: Viewer,
    *,
    differences: tuple[WalletDifference, ...] | None = None,
) -> Response[bytes]:
    pools, now = services(request), clock.now()
    balance = await load_balance(pools.reports, now + timedelta(minutes=1))  # it counts whole minutes
    async with session(pools.pool) as connection:
        lowest = await back_office_store.list_low_wallets(connection, LOWEST_SHOWN)
    return page(
        request,
        viewer,
        "operator/wallets.html",
        tabs=TABS,
        form=show_form(TopUpForm, {"business": request.query_params.get("business", "")}),
        credit_form=show_form(CreditForm),
        balance=balance,
        accounts=[(account, ACCOUNT_WORDS[account]) for account in ACCOUNTS],
        lowest_listing=LOWEST,
        lowest=lowest,
        now_at=now,
        difference_listing=DIFFERENCES,
        differences=differences,
    )


@post(f"{HOME}/reconcile")
async def reconcile(request: AnyRequest) -> Response[bytes]:
    """Recompute every wallet from its entries, and show those that differ. Changes nothing."""
    viewer, _ = await changing(request, CallerKind.operator, role=Role.viewer)
    async with session(services(request).reports) as connection:
        differences = await back_office_store.list_differences(connection)
    return await _wallets_page(request, viewer, differences=differences)


@post(f"{HOME}/top-up")
async def top_up(request: AnyRequest) -> Response[bytes]:
    """Record a payment that was received. The same reference is recorded once."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form = fill(TopUpForm, fields)
        wallet = await _find_wallet(request, form.business)
        minor = read_amount_between(form.amount, wallet.currency, "amount", least=1)
        booked, fresh = await funds_flow.top_up(
            services(request).pool,
            viewer.actor,
            wallet.business_id,
            minor,
            wallet.currency,
            form.reference.strip(),
            form.reason.strip(),
        )
    except (errors.InvalidInput, errors.NotFound, errors.Conflict) as error:
        return await show_again(request, fields, error, _wallets_page(request, viewer))
    if fresh:
        text = f"{format_money(booked.amount_minor, booked.currency)} was added to the wallet."
    else:
        text = "This payment was recorded before. Nothing was changed."
    return redirect(request, f"{HOME}/ledger?business={form.business.strip()}", text)


@post(f"{HOME}/credit")
async def set_credit_limit(request: AnyRequest) -> Response[bytes]:
    """Set the amount by which a wallet may go below zero."""
    viewer, fields = await changing(request, CallerKind.operator)
    try:
        form = fill(CreditForm, fields)
        wallet = await _find_wallet(request, form.business)
        minor = read_amount_between(form.limit, wallet.currency, "limit", least=0)
        await funds_flow.set_credit_limit(
            services(request).pool, viewer.actor, wallet.business_id, minor, form.reason.strip()
        )
    except (errors.InvalidInput, errors.NotFound, errors.Conflict) as error:
        return await show_again(request, fields, error, _wallets_page(request, viewer))
    return redirect(request, HOME, f"The credit limit is now {format_money(minor, wallet.currency)}.")


async def _find_wallet(request: AnyRequest, text: str) -> money.Wallet:
    """Return the wallet of the business with this public id. Raises InvalidInput if there is none."""
    business_id = ids.decode("biz", text.strip())
    async with session(services(request).pool) as connection:
        wallet = await money.find_wallet(connection, business_id) if business_id else None
    if wallet is None:
        raise field_fault(
            "business",
            FaultCode.value_not_allowed,
            "Enter the id of a business, biz_…. You find it on the page of the business.",
        )
    return wallet


def read_amount_between(text: str, currency: str, name: str, *, least: int) -> int:
    """Return the amount in minor units. Raises InvalidInput for one below `least` or above the highest payment."""
    minor = read_amount(text, currency, name)
    if minor is None or not least <= minor <= HIGHEST_TOP_UP_MINOR:
        most = format_money(HIGHEST_TOP_UP_MINOR, currency)
        raise field_fault(
            name, FaultCode.out_of_range, f"Enter an amount from {format_money(least, currency)} to {most}."
        )
    return minor


@get(f"{HOME}/ledger")
async def show_ledger(request: AnyRequest) -> Response[bytes]:
    """Show the transfers that match the filter, newest first."""
    viewer = await visitor(request, CallerKind.operator)
    query, as_file = request.query_params, wants_csv(request)
    limit = CSV_LINES if as_file else list_limit(request)
    kind = query["kind"] if query.get("kind") in KINDS else None
    async with session(services(request).reports) as connection:
        rows = await back_office_store.list_transfers(
            connection,
            page_cursor(request, "txn"),
            limit + 1,
            event_id=query.get("event") or None,
            kind=kind,
            business_id=_read_id(query.get("business"), "biz"),
            provider_id=_read_id(query.get("provider"), "prov"),
            lead_id=_read_id(query.get("lead"), "lead"),
        )
    listing = ledger_listing(request)
    if as_file:
        return await listing.download(rows[:limit])
    return page(
        request,
        viewer,
        "operator/ledger.html",
        tabs=TABS,
        listing=listing,
        rows=rows[:limit],
        kinds=KINDS,
        next_cursor=next_page("txn", [row.id for row in rows], limit),
    )


def ledger_listing(request: AnyRequest) -> Listing[TransferRow]:
    """Return the list of transfers. The kind of a transfer adds that kind to the filter."""
    query = dict(request.query_params.items())

    def kind(row: TransferRow) -> Link:
        return Link(changed_address(f"{HOME}/ledger", query, kind=row.kind, cursor=None), KINDS[row.kind])

    return Listing(
        caption="Ledger",
        name="ledger",
        columns=(
            only_in_file("id", lambda row: ids.encode("txn", row.id)),
            Column(
                "Booked",
                lambda row: row.made_at,
                file="made_at",
                value=lambda row: row.made_at.isoformat(),
                time="second",
            ),
            Column("Kind", kind, file="kind", value=lambda row: row.kind),
            Column("Business or provider", _party_link),
            Column("For", _purpose),
            Column("Amount", lambda row: Money(row.amount_minor, row.currency), file="amount_minor", style="num"),
            only_in_file("currency", lambda row: row.currency),
            only_in_file("business", lambda row: row.business or ""),
            only_in_file("provider", lambda row: row.provider or ""),
            only_in_file("lead", lambda row: ids.encode("lead", row.lead_id) if row.lead_id else ""),
            only_in_file("event_id", lambda row: row.event_id or ""),
        ),
    )


def _party_link(row: TransferRow) -> Link | None:
    if row.business_id is not None:
        return business_link(row.business_id, row.business)
    if row.provider_id is not None:
        return provider_link(row.provider_id, row.provider)
    return None


def _purpose(row: TransferRow) -> object:
    """Return the lead or the payment reference that the transfer is for."""
    if row.lead_id is None:
        return row.event_id
    lead = ids.encode("lead", row.lead_id)
    return Link(f"{HOME}/ledger?lead={lead}", short(lead))


def _read_id(text: str | None, kind: str) -> UUID | None:
    """Return the id in a filter, or None if the filter is empty. Raises NotFound for an id of another kind."""
    return path_id(kind, text.strip()) if text and text.strip() else None


handlers: tuple[Any, ...] = (show_wallets, reconcile, top_up, set_credit_limit, show_ledger)
