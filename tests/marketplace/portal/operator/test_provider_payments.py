"""Payments to providers: each is recorded once, never for more than is owed, and is on the provider's statement."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape
from typing import Any

import pytest

from marketplace.database.db import transaction
from marketplace.ledger import money
from marketplace.runtime import clock, ids
from marketplace.runtime.errors import Conflict
from marketplace.runtime.settings import Settings
from tests.builders.feedback import Desk, desk
from tests.builders.portal import Browser, signed_in

PAGE = "/operator/wallets/providers"


class Till:
    """A provider that has earned $30.00 with one lead, and an operator who pays it."""

    def __init__(self, office: Desk, operator: Browser, provider: Browser) -> None:
        self.office, self.operator, self.provider = office, operator, provider
        self.provider_id = office.market.provider.owner

    async def pay(self, amount: str, reference: str, status: int = 303, **fields: str) -> str:
        form = {"provider": ids.encode("prov", self.provider_id), "amount": amount, "currency": "USD"}
        reply = await self.operator.post(PAGE, form | {"reference": reference, "reason": "November"} | fields)
        assert reply.status_code == status, reply.text
        return unescape(reply.text)

    async def owed(self) -> Any:
        reply = await self.office.call("GET", "/v1/earnings", by="provider")
        return reply.json()["data"]

    async def paid(self) -> Any:
        return await self.office.market.value("select sum(amount_minor) from transfer where kind = 'paid'")


@pytest.fixture
async def till(settings: Settings) -> AsyncIterator[Till]:
    async with AsyncExitStack() as stack:
        office = await desk(stack, settings)
        await office.sold()
        operator = await signed_in(office.api, "operator")
        yield Till(office, operator, await signed_in(office.api, "provider", office.market.provider.owner))


async def test_a_payment_is_recorded_once_and_the_provider_sees_it(till: Till) -> None:
    assert "$30.00" in (await till.operator.get(PAGE)).text
    for _ in range(2):
        await till.pay("20.00", "wire 1")
    assert await till.owed() == [{"currency": "USD", "owed_minor": 1_000}]
    page = unescape((await till.provider.get("/provider/earnings")).text)
    assert "wire 1" in page
    assert "$10.00" in page
    statement = unescape((await till.provider.get("/provider/earnings/statement")).text)
    assert "Paid to you" in statement
    assert "\N{MINUS SIGN}$20.00" in statement
    assert b",-2000," in (await till.provider.get("/provider/earnings?format=csv")).content
    ledger = unescape((await till.operator.get("/operator/wallets/ledger?kind=paid")).text)
    assert "wire 1" in ledger
    assert [action for action, _ in await till.office.api.audited()].count("provider.paid") == 1


async def test_no_more_is_paid_than_is_owed(till: Till) -> None:
    assert "owed less than this" in await till.pay("30.01", "wire 1", 409)
    assert "owed less than this" in await till.pay("1.00", "wire 1", 409, currency="EUR")
    await till.pay("30.00", "wire 1")
    assert "owed less than this" in await till.pay("0.01", "wire 2", 409)
    assert "another payment" in await till.pay("10.00", "wire 1", 409)
    assert await till.paid() == 3_000


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"amount": "0"}, 422),
        ({"amount": "-1"}, 422),
        ({"amount": "a lot"}, 422),
        ({"amount": "1.001"}, 422),
        ({"currency": "usd"}, 422),
        ({"provider": "biz_x"}, 422),
        ({"provider": ids.encode("prov", clock.new_id())}, 404),
        ({"reference": " "}, 422),
        ({"reason": " "}, 422),
    ],
)
async def test_a_payment_with_a_fault_is_shown_again_and_records_nothing(
    till: Till, fields: dict[str, str], status: int
) -> None:
    await till.pay(fields.pop("amount", "1.00"), fields.pop("reference", "wire 1"), status, **fields)
    assert await till.paid() is None


async def test_two_payments_at_once_pay_what_is_owed_once(till: Till) -> None:
    async def pay(reference: str) -> bool:
        async with transaction(till.office.api.pool) as connection:
            return await money.pay_provider(connection, till.provider_id, 2_000, "USD", reference, clock.now())

    results = await asyncio.gather(*(pay(f"wire {number}") for number in range(4)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 3 + ["bool"]
    assert all(isinstance(result, bool | Conflict) for result in results)
    assert await till.paid() == 2_000


async def test_after_a_return_nothing_is_paid_until_it_is_earned_again(till: Till) -> None:
    await till.pay("30.00", "wire 1")
    lead = await till.office.sold(2)
    reply = await till.office.give_back(lead, reason="other", note="They moved away.")
    await till.office.judge(reply.json()["id"], "granted")
    first = await till.office.market.value("select min(id::text)::uuid from lead")
    reply = await till.office.give_back(ids.encode("lead", first), reason="other", note="They moved away.")
    await till.office.judge(reply.json()["id"], "granted")
    assert await till.owed() == [{"currency": "USD", "owed_minor": -3_000}]
    assert "owed less than this" in await till.pay("0.01", "wire 2", 409)
