"""Money moves once, in both directions, and never by more than there is."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
import pytest

from marketplace.ledger import money
from marketplace.runtime import clock
from marketplace.runtime.errors import Conflict, NotFound
from marketplace.runtime.settings import Settings
from tests.builders.marketplaces import PAYOUT_MINOR, PRICE_MINOR, Buyer, Marketplace, marketplace

FULL = 100_000


class Held:
    """A lead that is held for a business, and the money with it."""

    def __init__(self, market: Marketplace, buyer: Buyer, price: money.AssignmentPrice) -> None:
        self.market, self.buyer, self.price = market, buyer, price

    async def move(self, how: Any, price: money.AssignmentPrice | None = None) -> None:
        async with self.market.owner.acquire() as connection:
            await how(connection, price or self.price, clock.now())

    async def wallet(self) -> tuple[int, int]:
        return await self.market.wallet(self.buyer)

    async def accounts(self) -> dict[str, int]:
        rows = await self.market.owner.fetch(
            "select account, sum(amount_minor)::bigint as total from entry group by account"
        )
        return {row["account"]: row["total"] for row in rows}


@pytest.fixture
async def held(settings: Settings) -> AsyncIterator[Held]:
    async with marketplace(settings) as market:
        buyer = await market.buyer("http://127.0.0.1:1/hook")
        receipt = await market.submit()
        assignment_id = await market.distribution.distribute(receipt.id)
        assert assignment_id is not None
        price = money.AssignmentPrice(
            assignment_id=assignment_id, business_id=buyer.business_id, provider_id=market.provider.owner,
            price_minor=PRICE_MINOR, payout_minor=PAYOUT_MINOR, currency="USD",
        )  # fmt: skip
        yield Held(market, buyer, price)


async def test_the_award_holds_the_quoted_price(held: Held) -> None:
    assert await held.wallet() == (FULL - PRICE_MINOR, PRICE_MINOR)
    assert await held.accounts() == {"outside": -FULL, "available": FULL - PRICE_MINOR, "held": PRICE_MINOR}


async def test_a_capture_charges_the_business_and_owes_the_provider_at_once(held: Held) -> None:
    await held.move(money.capture)
    assert await held.wallet() == (FULL - PRICE_MINOR, 0)
    assert await held.accounts() == {
        "outside": -FULL, "available": FULL - PRICE_MINOR, "held": 0, "revenue": PRICE_MINOR - PAYOUT_MINOR,
        "payable": PAYOUT_MINOR,
    }  # fmt: skip


async def test_a_release_gives_the_whole_price_back_and_owes_nobody(held: Held) -> None:
    await held.move(money.release)
    assert await held.wallet() == (FULL, 0)
    accounts = await held.accounts()
    assert (accounts["held"], accounts.get("payable")) == (0, None)


@pytest.mark.parametrize("first", [money.capture, money.release])
@pytest.mark.parametrize("second", [money.capture, money.release])
async def test_what_is_settled_is_never_settled_again_and_the_wallet_stays_as_it_was(
    held: Held, first: Any, second: Any
) -> None:
    await held.move(first)
    before = await held.wallet()
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await held.move(second)
    assert await held.wallet() == before


async def test_a_lead_is_given_back_once_and_the_wallet_stays_as_it_was(held: Held) -> None:
    await held.move(money.capture)
    await held.move(money.refund)
    assert await held.wallet() == (FULL, 0)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await held.move(money.refund)
    assert await held.wallet() == (FULL, 0)
    accounts = await held.accounts()
    assert (accounts["available"], accounts["revenue"], accounts["payable"]) == (FULL, 0, 0)


async def test_a_lead_that_earned_its_provider_nothing_is_given_back_once_too(held: Held) -> None:
    """No claw-back refuses the second refund here: the refund's own record must."""
    await held.market.owner.execute("update assignment set payout_minor = 0")
    price = msgspec.structs.replace(held.price, payout_minor=0)
    await held.move(money.capture, price)
    await held.move(money.refund, price)
    with pytest.raises(asyncpg.UniqueViolationError, match="transfer_one_refund"):
        await held.move(money.refund, price)
    assert await held.wallet() == (FULL, 0)


@pytest.mark.parametrize("first", [money.capture, money.release])
@pytest.mark.parametrize("second", [money.capture, money.release])
async def test_a_second_settlement_of_one_lead_leaves_the_hold_of_another_alone(
    held: Held, first: Any, second: Any
) -> None:
    """The wallet holds enough for it: only the lead's own settlement can refuse it."""
    receipt = await held.market.submit(2)
    assert await held.market.distribution.distribute(receipt.id) is not None
    await held.move(first)
    before = await held.wallet()
    assert before[1] == PRICE_MINOR
    with pytest.raises(asyncpg.UniqueViolationError, match=r"transfer_one_(settlement|payout)"):
        await held.move(second)
    assert await held.wallet() == before


async def test_of_many_refunds_at_once_one_counts(held: Held) -> None:
    await held.move(money.capture)
    outcomes = await asyncio.gather(*(held.move(money.refund) for _ in range(6)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert await held.wallet() == (FULL, 0)


async def test_of_many_settlements_at_once_one_counts(held: Held) -> None:
    moves = [held.move(how) for how in (money.capture, money.release) * 3]
    outcomes = await asyncio.gather(*moves, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum((await held.accounts()).values()) == 0
    assert (await held.wallet())[1] == 0


async def test_a_lead_that_earns_its_provider_nothing_owes_nothing(held: Held) -> None:
    await held.market.owner.execute("update assignment set payout_minor = 0")
    await held.move(money.capture, msgspec.structs.replace(held.price, payout_minor=0))
    assert "payable" not in await held.accounts()


async def test_a_payment_event_is_booked_once_however_often_and_at_once_it_is_sent(held: Held) -> None:
    async def book(_: int) -> bool:
        async with held.market.owner.acquire() as connection:
            return await money.top_up(connection, held.buyer.business_id, 700, "USD", "pay-1", clock.now())

    assert sum(await asyncio.gather(*(book(number) for number in range(12)))) == 1
    assert await held.wallet() == (FULL - PRICE_MINOR + 700, PRICE_MINOR)


async def test_an_event_id_never_names_two_payments(held: Held) -> None:
    other = await held.market.buyer("http://127.0.0.1:1/other")

    async def book(buyer: Buyer, amount: int, currency: str, now: datetime) -> bool:
        async with held.market.owner.acquire() as connection:
            return await money.top_up(connection, buyer.business_id, amount, currency, "pay-1", now)

    assert await book(held.buyer, 700, "USD", clock.now())
    with pytest.raises(Conflict):
        await book(held.buyer, 701, "USD", clock.now())
    with pytest.raises(Conflict):
        await book(other, 700, "USD", clock.now())
    with pytest.raises(NotFound):
        await book(held.buyer, 700, "EUR", clock.now())


async def test_no_move_leaves_a_trace_when_its_transaction_fails(held: Held) -> None:
    async with held.market.owner.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await money.capture(connection, held.price, clock.now())
        await transaction.rollback()
    assert await held.wallet() == (FULL - PRICE_MINOR, PRICE_MINOR)
