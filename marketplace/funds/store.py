"""The statements of funds as typed functions: one per query. Moves of money themselves are in marketplace/money.py."""

from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from marketplace.db import Connection, Queries, violated
from marketplace.errors import Conflict
from marketplace.money import Wallet

SQL = Queries(__file__)


class TopUp(msgspec.Struct, frozen=True, kw_only=True):
    """A payment event as it was booked."""

    id: UUID
    business_id: UUID
    amount_minor: int
    currency: str
    event_id: str
    made_at: datetime


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer and what it did to a wallet: signed minor units on what is available and on what is held."""

    id: UUID
    kind: str
    available_minor: int
    held_minor: int
    currency: str
    assignment_id: UUID | None
    event_id: str | None
    made_at: datetime


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider has earned in one currency, in minor units."""

    currency: str
    owed_minor: int


async def load_top_up(connection: Connection, event_id: str) -> TopUp:
    return msgspec.convert(dict(await connection.fetchrow(SQL["find_top_up"], event_id)), TopUp)


async def mark_credit_limit(connection: Connection, business_id: UUID, credit_limit_minor: int) -> Wallet | None:
    """None for a business without a wallet. Raises Conflict for a limit below what it owes already."""
    try:
        row = await connection.fetchrow(SQL["mark_credit_limit"], business_id, credit_limit_minor)
    except asyncpg.CheckViolationError as error:
        if violated(error) != "wallet_covers":
            raise
        raise Conflict("The business owes more than this already. Top its wallet up first.") from error
    return msgspec.convert(dict(row), Wallet) if row else None


async def list_statement(connection: Connection, business_id: UUID, after: UUID | None, limit: int) -> tuple[Line, ...]:
    rows = await connection.fetch(SQL["list_statement"], business_id, after, limit)
    return tuple(msgspec.convert(dict(row), Line) for row in rows)


async def sum_payable(connection: Connection, provider_id: UUID) -> tuple[Owed, ...]:
    return tuple(msgspec.convert(dict(row), Owed) for row in await connection.fetch(SQL["sum_payable"], provider_id))
