"""HTTP API of funds: operators top up and set limits, businesses read their wallets, providers their earnings."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from litestar import Response, get, patch, post
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory.wire import (
    BUSINESS,
    OPERATOR,
    CreditMinor,
    Currency,
    business_of,
    provide_configuration,
)
from marketplace.funds import flow as funds_flow
from marketplace.funds import store as funds_store
from marketplace.funds.store import Earnings, StatementLine, TopUp
from marketplace.ledger import money
from marketplace.ledger.money import Wallet
from marketplace.runtime import errors, ids
from marketplace.security.auth import Scope
from marketplace.text.faults import WORDS
from marketplace.web.api import Caller, Injected, JsonAnswer, api_router, list_page, require
from marketplace.web.http import (
    AnyRequest,
    Page,
    Services,
    csv_page,
    page_cursor,
    page_limit,
    path_id,
    wants_csv,
)
from marketplace.web.openapi import RouteDoc, id_of, paged

HIGHEST_TOP_UP_MINOR: Final = 10**9
CSV_LINES: Final = 10_000
"Lines of one CSV file, about a megabyte at a hundred bytes a line. A Link header leads to the next ones."


class NewTopUp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/top-ups. `event_id` is the payment's own id: an event is booked only once."""

    business_id: str
    amount_minor: Annotated[int, Meta(ge=1, le=HIGHEST_TOP_UP_MINOR)]
    currency: Currency
    event_id: Annotated[str, Meta(min_length=1, max_length=255, pattern=WORDS)]


class TopUpView(msgspec.Struct, frozen=True, kw_only=True):
    """A booked payment. Sending its event again returns the same."""

    id: str
    business_id: str
    amount_minor: int
    currency: str
    event_id: str
    made_at: datetime


class CreditLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PATCH /v1/wallet."""

    business_id: str
    credit_limit_minor: CreditMinor


class WalletView(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet in minor units: what may be spent (besides the credit limit), and what open assignments hold.

    `balance_minor` is both together: the balance of the statement's newest line.
    """

    business_id: str
    currency: str
    available_minor: int
    held_minor: int
    balance_minor: int
    credit_limit_minor: int


class StatementLineView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a statement: a `top_up`, a `withdrawal`, a lead charged (`capture`), a lead refunded (`refund`).

    `amount_minor` is the signed change of the balance, which is the wallet's available and held money together;
    `balance_minor` is the balance after the line. Over all lines the amounts add up to the wallet's balance. A hold and
    its release change nothing in it and are no lines: a lead that is charged is one line with its price.
    `available_minor` is the same as `amount_minor` and `held_minor` is 0, for callers from before these were one line.
    """

    id: str
    kind: str
    available_minor: int
    held_minor: int
    currency: str
    assignment_id: str | None
    event_id: str | None
    made_at: datetime
    amount_minor: int
    balance_minor: int
    lead_id: str | None


def _show_top_up(booked: TopUp) -> TopUpView:
    return TopUpView(
        id=ids.encode("txn", booked.id),
        business_id=ids.encode("biz", booked.business_id),
        amount_minor=booked.amount_minor,
        currency=booked.currency,
        event_id=booked.event_id,
        made_at=booked.made_at,
    )


def _show_wallet(wallet: Wallet) -> WalletView:
    return WalletView(
        business_id=ids.encode("biz", wallet.business_id),
        currency=wallet.currency,
        available_minor=wallet.available_minor,
        held_minor=wallet.held_minor,
        balance_minor=wallet.available_minor + wallet.held_minor,
        credit_limit_minor=wallet.credit_limit_minor,
    )


def _show_line(line: StatementLine) -> StatementLineView:
    assignment_id = ids.encode("asg", line.assignment_id) if line.assignment_id else None
    lead_id = ids.encode("lead", line.lead_id) if line.lead_id else None
    return StatementLineView(
        id=_line_id(line),
        kind=line.kind,
        available_minor=line.amount_minor,
        held_minor=0,
        currency=line.currency,
        assignment_id=assignment_id,
        event_id=line.event_id,
        made_at=line.made_at,
        amount_minor=line.amount_minor,
        balance_minor=line.balance_minor,
        lead_id=lead_id,
    )


def _line_id(line: StatementLine) -> str:
    return ids.encode("txn", line.id)


READER: Final = require(Scope.wallet_read, Scope.operate, even_suspended=True, mode="live")
"Caller who reads a wallet. There is no test money, so the key must be live."


@post(
    "/top-ups",
    tags=["funds"],
    dependencies={"caller": OPERATOR, "payment": provide_configuration(NewTopUp)},
    doc=RouteDoc(answers={200: TopUpView}),
)
async def top_up(caller: Caller, payment: Injected[NewTopUp], services: Injected[Services]) -> Response[TopUpView]:
    """Records a payment once: 201 if this call did, 200 and the same body if an earlier one did. Operators only."""
    business_id = path_id("biz", payment.business_id)
    booked, is_new = await funds_flow.top_up(
        services.pool, caller.key_id, business_id, payment.amount_minor, payment.currency, payment.event_id
    )
    status = 201 if is_new else 200
    return JsonAnswer(_show_top_up(booked), status_code=status)


@get("/wallet", tags=["funds"], dependencies={"caller": READER}, doc=RouteDoc(query=(BUSINESS,)))
async def show_wallet(request: AnyRequest, caller: Caller, services: Injected[Services]) -> WalletView:
    """Shows a wallet: the available and held amounts and the credit limit."""
    business_id = business_of(caller, request.query_params.get("business_id"))
    async with session(services.pool) as connection:
        wallet = await money.find_wallet(connection, business_id)
    if wallet is None:
        raise errors.NotFound("There is no such business.")
    return _show_wallet(wallet)


@patch(
    "/wallet",
    tags=["funds"],
    dependencies={"caller": OPERATOR, "credit_limit": provide_configuration(CreditLimit)},
)
async def set_credit_limit(
    caller: Caller, credit_limit: Injected[CreditLimit], services: Injected[Services]
) -> WalletView:
    """Sets how far below zero a wallet may go. Operators only."""
    business_id = path_id("biz", credit_limit.business_id)
    wallet = await funds_flow.set_credit_limit(
        services.pool, caller.key_id, business_id, credit_limit.credit_limit_minor
    )
    return _show_wallet(wallet)


@get(
    "/wallet/statement",
    tags=["funds"],
    dependencies={"caller": READER},
    doc=RouteDoc(answers={200: (Page[StatementLineView], "text/csv")}, query=(*paged(id_of("txn")), BUSINESS)),
)
async def show_statement(
    request: AnyRequest, caller: Caller, services: Injected[Services]
) -> Page[StatementLineView] | Response[bytes]:
    """Lists what changed a wallet's balance, newest first; as CSV where the caller accepts `text/csv`.

    One line for each lead that was charged, with its price and the balance after it.
    """
    business_id = business_of(caller, request.query_params.get("business_id"))
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    after = page_cursor(request, "txn")
    async with session(services.pool) as connection:
        lines = await funds_store.list_statement(connection, business_id, after, limit + 1)
    if as_file:
        return await csv_page(
            request, lines, limit, _show_line, _line_id, StatementLineView.__struct_fields__, "statement"
        )
    return list_page(lines, limit, _show_line, _line_id)


@get("/earnings", tags=["funds"], dependencies={"caller": require(Scope.leads_write, even_suspended=True, mode="live")})
async def show_earnings(caller: Caller, services: Injected[Services]) -> Page[Earnings]:
    """Shows the amount that the marketplace owes the provider, by currency."""
    async with session(services.pool) as connection:
        return Page(data=await funds_store.sum_payable(connection, caller.owner))


handlers: Final = (api_router(top_up, show_wallet, set_credit_limit, show_statement, show_earnings),)
