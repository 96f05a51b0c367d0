"""The queries of funds as typed functions: one per query. Money itself is moved in `marketplace.money`."""

from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from marketplace.db import Connection, Queries, violated
from marketplace.errors import Conflict
from marketplace.money import Wallet

SQL = Queries(__file__)


class TopUp(msgspec.Struct, frozen=True, kw_only=True):
    """A booked payment event."""

    id: UUID
    business_id: UUID
    amount_minor: int
    currency: str
    event_id: str
    made_at: datetime


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer with its effect on a wallet: signed minor units of the available and of the held amount."""

    id: UUID
    kind: str
    available_minor: int
    held_minor: int
    currency: str
    assignment_id: UUID | None
    event_id: str | None
    made_at: datetime


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """Amount owed to a provider in one currency, in minor units."""

    currency: str
    owed_minor: int


async def load_top_up(connection: Connection, event_id: str) -> TopUp:
    """Return the top-up of a payment event, which must have been booked."""
    return msgspec.convert(dict(await connection.fetchrow(SQL["find_top_up"], event_id)), TopUp)


async def mark_credit_limit(connection: Connection, business_id: UUID, credit_limit_minor: int) -> Wallet | None:
    """Set the credit limit and return the wallet, or None for an unknown business.

    Raises Conflict for a limit below what the business already owes.
    """
    try:
        row = await connection.fetchrow(SQL["mark_credit_limit"], business_id, credit_limit_minor)
    except asyncpg.CheckViolationError as error:
        if violated(error) != "wallet_covers":
            raise
        raise Conflict("The business owes more than this already. Top its wallet up first.") from error
    return msgspec.convert(dict(row), Wallet) if row else None


async def list_statement(connection: Connection, business_id: UUID, after: UUID | None, limit: int) -> tuple[Line, ...]:
    """Return the business's transfers, newest first, beginning after the transfer `after`."""
    rows = await connection.fetch(SQL["list_statement"], business_id, after, limit)
    return tuple(msgspec.convert(dict(row), Line) for row in rows)


async def sum_payable(connection: Connection, provider_id: UUID) -> tuple[Owed, ...]:
    """Return the amounts owed to the provider, by currency."""
    return tuple(msgspec.convert(dict(row), Owed) for row in await connection.fetch(SQL["sum_payable"], provider_id))
