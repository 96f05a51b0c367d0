"""The queries of funds as typed functions: one per query. Money itself is moved in `marketplace.ledger.money`."""

from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row, load_row, violated
from marketplace.ledger.money import Wallet
from marketplace.runtime.errors import Conflict

SQL = Queries(__file__)


class TopUp(msgspec.Struct, frozen=True, kw_only=True):
    """A booked payment event."""

    id: UUID
    business_id: UUID
    amount_minor: int
    currency: str
    event_id: str
    made_at: datetime


class WalletLine(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a wallet's balance in signed minor units, and the lead or the payment that it was for."""

    id: UUID
    kind: str
    amount_minor: int
    currency: str
    lead_id: UUID | None
    assignment_id: UUID | None
    event_id: str | None
    made_at: datetime


class StatementLine(WalletLine, frozen=True, kw_only=True):
    """A line with the balance after it: what is available and what is held together."""

    balance_minor: int


class Earnings(msgspec.Struct, frozen=True, kw_only=True):
    """Amount owed to a provider in one currency, in minor units."""

    currency: str
    owed_minor: int


async def load_top_up(connection: Connection, event_id: str) -> TopUp:
    """Return the top-up of a payment event, which must have been booked."""
    return await load_row(connection, SQL["find_top_up"], TopUp, event_id)


async def mark_low_balance(connection: Connection, business_id: UUID, low_below_minor: int | None) -> None:
    await connection.execute(SQL["mark_low_balance"], business_id, low_below_minor)


async def mark_credit_limit(connection: Connection, business_id: UUID, credit_limit_minor: int) -> Wallet | None:
    """Set the credit limit and return the wallet, or None for an unknown business.

    Raises Conflict for a limit below what the business already owes.
    """
    try:
        return await find_row(connection, SQL["mark_credit_limit"], Wallet, business_id, credit_limit_minor)
    except asyncpg.CheckViolationError as error:
        if violated(error) != "wallet_covers":
            raise
        raise Conflict("The business owes more than this already. Top its wallet up first.") from error


async def list_statement(
    connection: Connection, business_id: UUID, after: UUID | None, limit: int
) -> tuple[StatementLine, ...]:
    """Return what changed the balance, newest first, from behind the transfer `after` on."""
    return await fetch_rows(connection, SQL["list_statement"], StatementLine, business_id, after, limit)


async def list_lead_lines(connection: Connection, business_id: UUID, lead_id: UUID) -> tuple[WalletLine, ...]:
    """Return the lines of one lead, newest first; none for a lead that is not the business's.

    A lead that was not charged has its hold with its price while that is open, then its release with an amount of 0.
    """
    return await fetch_rows(connection, SQL["list_lead_lines"], WalletLine, business_id, lead_id)


async def sum_payable(connection: Connection, provider_id: UUID) -> tuple[Earnings, ...]:
    """Return the amounts owed to the provider, by currency."""
    return await fetch_rows(connection, SQL["sum_payable"], Earnings, provider_id)
