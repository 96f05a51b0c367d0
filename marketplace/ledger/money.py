"""Movements of money: each is an immutable transfer and the new balance of the wallet, in one transaction.

An award holds the price; evidence of receipt captures it, and otherwise it is released. A granted return refunds a
capture. What a provider has earned is paid outside this system and booked here. Constraints in
migrations/0003_money.sql and 0097_payments_to_providers.sql prevent a second settlement, another price than the quoted
one, an overdrawn wallet, and a payment of more than is owed; they are not checked again here. Amounts are integer minor
units of one currency.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row, load_record, violated
from marketplace.runtime import clock
from marketplace.runtime.errors import Conflict, NotFound

SQL = Queries(__file__, "money.sql")


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """Prepaid money of a business: available to spend, and held for open assignments."""

    business_id: UUID
    currency: str
    available_minor: int
    held_minor: int
    credit_limit_minor: int


class AssignmentPrice(msgspec.Struct, frozen=True, kw_only=True):
    """Quoted price of one assignment, with its business and provider."""

    assignment_id: UUID
    business_id: UUID
    provider_id: UUID
    price_minor: int
    payout_minor: int
    currency: str


class PayoutShare(msgspec.Struct, frozen=True, kw_only=True):
    """Part of an agreed payout for one provider: `amount_minor` of its minor units from `begins_minor` on.

    `inquiry_id` is the inquiry by which the provider takes part; None for the provider of the lead.
    """

    share: int
    provider_id: UUID
    inquiry_id: UUID | None
    begins_minor: int
    amount_minor: int


async def insert_wallet(connection: Connection, business_id: UUID, currency: str, credit_limit_minor: int) -> None:
    """Create the wallet of a business."""
    await connection.execute(SQL["insert_wallet"], business_id, currency, credit_limit_minor)


async def find_wallet(connection: Connection, business_id: UUID) -> Wallet | None:
    """Return the wallet of a business, or None."""
    return await find_row(connection, SQL["find_wallet"], Wallet, business_id)


async def top_up(
    connection: Connection, business_id: UUID, amount_minor: int, currency: str, event_id: str, now: datetime
) -> bool:
    """Credit a payment event once. Returns False when the same event was credited before.

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
    earlier = await load_record(connection, SQL["find_event"], event_id)
    if (earlier["business_id"], earlier["amount_minor"], earlier["currency"]) != (business_id, amount_minor, currency):
        raise Conflict("This event_id names another payment. Send each payment event under its own id.")
    return False


async def pay_provider(
    connection: Connection, provider_id: UUID, amount_minor: int, currency: str, event_id: str, now: datetime
) -> bool:
    """Book a payment to a provider once. Returns False when the same payment was booked before.

    Raises NotFound for an unknown provider, Conflict for more than the provider is owed in this currency, or when the
    event id names another payment.
    """
    arguments = (clock.new_id(), amount_minor, currency, provider_id, event_id, now)
    try:
        booked = await connection.fetchrow(SQL["pay_provider"], *arguments)
    except asyncpg.ForeignKeyViolationError as error:
        if violated(error) != "transfer_of_provider":
            raise
        raise NotFound("There is no such provider.") from error
    except asyncpg.CheckViolationError as error:
        if violated(error) != "transfer_owed":
            raise
        raise Conflict("The provider is owed less than this. Enter at most the amount that is owed.") from error
    if booked is not None:
        return True
    earlier = await load_record(connection, SQL["find_event"], event_id)
    if (earlier["provider_id"], earlier["amount_minor"], earlier["currency"]) != (provider_id, amount_minor, currency):
        raise Conflict("This reference names another payment. Record each payment under its own reference.")
    return False


async def release(connection: Connection, price: AssignmentPrice, now: datetime) -> None:
    """Return the held price to the wallet: without evidence of receipt nothing is charged."""
    await connection.execute(
        SQL["release"], clock.new_id(), price.price_minor, price.currency, price.business_id, price.assignment_id, now
    )


async def capture(
    connection: Connection, price: AssignmentPrice, now: datetime, shares: Sequence[PayoutShare] = ()
) -> None:
    """Charge the business the held price, and credit the provider its payout, or each provider its share of it."""
    await _move_price_and_payout(connection, "capture", price, now, whole=not shares)
    if shares:
        await pay_shares(connection, price.assignment_id, shares, now)


async def pay_shares(connection: Connection, assignment_id: UUID, shares: Sequence[PayoutShare], now: datetime) -> None:
    """Store the shares of a payout, and credit each provider its own. The caller charges the business."""
    await connection.execute(
        SQL["pay_shares"],
        assignment_id,
        now,
        [clock.new_id() for _ in shares],
        [share.share for share in shares],
        [share.provider_id for share in shares],
        [share.inquiry_id for share in shares],
        [share.begins_minor for share in shares],
        [share.amount_minor for share in shares],
    )


async def refund(connection: Connection, price: AssignmentPrice, now: datetime) -> None:
    """Reverse a capture: return the price to the business, and claw the payout, or each share of it, back.

    Raises asyncpg's UniqueViolationError for a second refund of the same assignment.
    """
    shares = await list_shares(connection, price.assignment_id)
    await _move_price_and_payout(connection, "refund", price, now, whole=not shares)
    if shares:
        new_ids = [clock.new_id() for _ in shares]
        await connection.execute(SQL["claw_back_shares"], price.assignment_id, now, new_ids)


async def list_shares(connection: Connection, assignment_id: UUID) -> tuple[PayoutShare, ...]:
    """Return the shares of the payout of an assignment in their order; none if it was paid whole, or not paid."""
    return await fetch_rows(connection, SQL["list_shares"], PayoutShare, assignment_id)


async def _move_price_and_payout(
    connection: Connection, kind: str, price: AssignmentPrice, now: datetime, *, whole: bool
) -> None:
    """Book a transfer of the price between business and marketplace, and one of the payout if it is paid `whole`."""
    await connection.execute(
        SQL[kind],
        clock.new_id(),
        price.price_minor,
        price.currency,
        price.business_id,
        price.assignment_id,
        now,
        clock.new_id(),
        price.payout_minor if whole else 0,
        price.provider_id,
    )
