"""Top up a wallet, set its credit limit and its low-balance alert, and record payments to providers.

Each in one transaction with its audit row.
"""

from uuid import UUID

from marketplace.database.db import Pool, transaction
from marketplace.funds import store as funds_store
from marketplace.funds.store import TopUp
from marketplace.ledger import money
from marketplace.ledger.money import Wallet
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit


async def top_up(
    pool: Pool,
    actor: str,
    business_id: UUID,
    amount_minor: int,
    currency: str,
    event_id: str,
    reason: str | None = None,
) -> tuple[TopUp, bool]:
    """Record a payment event once, and return it with whether this call recorded it.

    `event_id` is the payment's own id. Raises NotFound and Conflict as `money.top_up` does.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        is_new = await money.top_up(connection, business_id, amount_minor, currency, event_id, now)
        if is_new:
            subject = ids.encode("biz", business_id)
            detail: dict[str, str | int] = {"amount_minor": amount_minor, "currency": currency}
            detail |= {} if reason is None else {"reason": reason}
            await audit.record(connection, now, actor, "wallet.top_up", subject, **detail)
        return await funds_store.load_top_up(connection, event_id), is_new


async def record_provider_payment(
    pool: Pool, actor: str, provider_id: UUID, amount_minor: int, currency: str, event_id: str, reason: str
) -> bool:
    """Record once a payment that was made to a provider, and return whether this call recorded it.

    `event_id` is the payment's own reference. Raises NotFound and Conflict as `money.pay_provider` does.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        is_new = await money.pay_provider(connection, provider_id, amount_minor, currency, event_id, now)
        if is_new:
            subject = ids.encode("prov", provider_id)
            detail: dict[str, str | int] = {"amount_minor": amount_minor, "currency": currency, "reason": reason}
            await audit.record(connection, now, actor, "provider.paid", subject, **detail)
    return is_new


async def set_credit_limit(
    pool: Pool, actor: str, business_id: UUID, credit_limit_minor: int, reason: str | None = None
) -> Wallet:
    """Set how far below zero, in minor units, the wallet may go.

    Raises NotFound, and Conflict for a limit below what the business already owes.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        wallet = await funds_store.mark_credit_limit(connection, business_id, credit_limit_minor)
        if wallet is None:
            raise errors.NotFound("There is no such business.")
        subject = ids.encode("biz", business_id)
        detail: dict[str, str | int] = {"credit_limit_minor": credit_limit_minor, "currency": wallet.currency}
        detail |= {} if reason is None else {"reason": reason}
        await audit.record(connection, now, actor, "wallet.credit_limit", subject, **detail)
    return wallet


async def set_low_balance_alert(pool: Pool, actor: str, business_id: UUID, low_below_minor: int | None) -> None:
    """Set the balance below which the wallet is called low, in minor units; None for never."""
    now = clock.now()
    async with transaction(pool) as connection:
        await funds_store.mark_low_balance(connection, business_id, low_below_minor)
        subject = ids.encode("biz", business_id)
        await audit.record(connection, now, actor, "wallet.low_below", subject, low_below_minor=low_below_minor)
