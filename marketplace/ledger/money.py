"""Money moves: one immutable transfer each and, where a wallet takes part, its guarded balance, in one transaction.

hold at the award → capture on evidence | release without; capture → refund when a return is granted. The constraints in
migrations/0003_money.sql make a second settlement, another price than the quoted one and an overdrawn wallet
impossible; nothing here checks them again.
Amounts are integer minor units of the wallet's one currency.
"""

from datetime import datetime
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries
from marketplace.runtime import clock
from marketplace.runtime.errors import Conflict, NotFound

SQL = Queries(__file__, "money.sql")


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """A business's prepaid money: what it may spend, and what open assignments hold."""

    business_id: UUID
    currency: str
    available_minor: int
    held_minor: int
    credit_limit_minor: int


class AssignmentPrice(msgspec.Struct, frozen=True, kw_only=True):
    """The quoted price of one assignment and whom it concerns."""

    assignment_id: UUID
    business_id: UUID
    provider_id: UUID
    price_minor: int
    payout_minor: int
    currency: str


async def insert_wallet(connection: Connection, business_id: UUID, currency: str, credit_limit_minor: int) -> None:
    await connection.execute(SQL["insert_wallet"], business_id, currency, credit_limit_minor)


async def find_wallet(connection: Connection, business_id: UUID) -> Wallet | None:
    row = await connection.fetchrow(SQL["find_wallet"], business_id)
    return msgspec.convert(dict(row), Wallet) if row else None


async def top_up(
    connection: Connection, business_id: UUID, amount_minor: int, currency: str, event_id: str, now: datetime
) -> bool:
    """Books a payment event once. True when this call booked it, False when the same event had been booked before.

    Raises NotFound for a business without a wallet in `currency`, Conflict when the event id names another payment.
    """
    wallet = await find_wallet(connection, business_id)
    if wallet is None or wallet.currency != currency:
        raise NotFound(f"This business has no wallet in {currency}.")
    booked = await connection.fetchrow(
        SQL["top_up"], clock.new_id(), amount_minor, currency, business_id, event_id, now
    )
    if booked is not None:
        return True
    earlier = await connection.fetchrow(SQL["find_event"], event_id)
    if (earlier["business_id"], earlier["amount_minor"], earlier["currency"]) != (business_id, amount_minor, currency):
        raise Conflict("This event_id names another payment. Send each payment event under its own id.")
    return False


async def release(connection: Connection, price: AssignmentPrice, now: datetime) -> None:
    """Gives the held price back: without evidence nothing is charged."""
    await connection.execute(
        SQL["release"], clock.new_id(), price.price_minor, price.currency, price.business_id, price.assignment_id, now
    )


async def capture(connection: Connection, price: AssignmentPrice, now: datetime) -> None:
    """Charges the business and owes the provider its share, in one breath."""
    await connection.execute(
        SQL["capture"], clock.new_id(), price.price_minor, price.currency, price.business_id, price.assignment_id, now,
        clock.new_id(), price.payout_minor, price.provider_id,
    )  # fmt: skip


async def refund(connection: Connection, price: AssignmentPrice, now: datetime) -> None:
    """Undoes a capture on both sides: the business has its price back, and the provider owes its share again.

    Raises asyncpg's UniqueViolationError for a second one of the same assignment.
    """
    await connection.execute(
        SQL["refund"], clock.new_id(), price.price_minor, price.currency, price.business_id, price.assignment_id, now,
        clock.new_id(), price.payout_minor, price.provider_id,
    )  # fmt: skip
