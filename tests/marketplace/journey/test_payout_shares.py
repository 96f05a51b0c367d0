"""Payouts of leads that other inquiries joined: who is paid by the policy of the vertical, and what each one sees."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from marketplace.database.db import session
from marketplace.delivery import store as delivery_store
from marketplace.delivery.flow import Delivery
from marketplace.intake import store as intake_store
from marketplace.intake.flow import SubmissionReceipt
from marketplace.operations.verify import verify
from marketplace.portal.provider import store as provider_store
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from routing.joining import PayJoined, RepeatInquiries
from tests.builders.feedback import desk, uuid_of
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import PAYOUT_MINOR, Marketplace, marketplace, roofing
from tests.builders.pausing import HeldUp
from tests.builders.service import serve
from tests.receivers import Receiver, status
from tests.waiting import PATIENCE, within

HALF_MINOR = PAYOUT_MINOR // 2
THIRD_MINOR = PAYOUT_MINOR // 3


def paying(pay: PayJoined) -> Any:
    return roofing(
        patience_seconds=3_600,
        repeat_inquiries=RepeatInquiries.joined,
        provider_may_know=True,
        pay_joined=pay,
    )


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings, paying(PayJoined.split)) as ready:
        yield ready


async def ask_again(market: Marketplace, by: Principal | None = None) -> SubmissionReceipt:
    by = by or await market.another_provider(market.provider.mode)
    return await market.submit(by=by, provider_reference=f"again-{clock.new_id()}")


async def earnings(market: Marketplace) -> dict[UUID, int]:
    """What each provider is owed, in minor units; nobody is left out who was paid and gave it back."""
    rows = await market.owner.fetch(
        "select provider_id, sum(amount_minor)::bigint as minor from entry where account = 'payable' group by 1"
    )
    return {row["provider_id"]: row["minor"] for row in rows}


async def assert_consistent(market: Marketplace) -> None:
    async with market.owner.acquire() as connection:
        report = await verify(connection)
    assert [(check.name, check.rows) for check in report.checks if check.findings] == []


async def provider_of(market: Marketplace, receipt: SubmissionReceipt) -> UUID:
    provider_id: UUID = await market.value("select provider_id from inquiry where id = $1", receipt.id)
    return provider_id


@pytest.mark.parametrize("pay", PayJoined)
async def test_the_payout_goes_where_the_vertical_says(settings: Settings, pay: PayJoined) -> None:
    async with marketplace(settings, paying(pay)) as market, Receiver(status(200)) as receiver:
        first = await market.submit()
        second, third = await ask_again(market), await ask_again(market)
        await market.buyer(receiver.url)
        await market.walker.walk(first.id)
        assert await market.state(first.id) == "delivered"
        owner, other, last = market.provider.owner, await provider_of(market, second), await provider_of(market, third)
        assert (
            await earnings(market)
            == {
                PayJoined.first: {owner: PAYOUT_MINOR},
                PayJoined.last: {last: PAYOUT_MINOR},
                PayJoined.split: {owner: THIRD_MINOR, other: THIRD_MINOR, last: THIRD_MINOR},
            }[pay]
        )
        await assert_consistent(market)


async def test_a_provider_that_asks_several_times_gets_one_share(market: Marketplace) -> None:
    async with Receiver(status(200)) as receiver:
        first, by = await market.submit(), await market.another_provider()
        for _ in range(3):
            await ask_again(market, by)
        await ask_again(market, market.provider)
        await market.buyer(receiver.url)
        await market.walker.walk(first.id)
    assert await earnings(market) == {market.provider.owner: HALF_MINOR, by.owner: HALF_MINOR}
    await assert_consistent(market)


async def test_an_inquiry_that_joins_a_held_lead_counts_and_one_that_joins_an_exposed_one_does_not(
    market: Marketplace,
) -> None:
    """Both come between the award and the charge; the exposure lies between them."""
    early, late = await market.another_provider(), await market.another_provider()
    reasons: list[str | None] = []

    async def join_first(visit: Any) -> None:
        reasons.append((await ask_again(market, late)).reason)
        await status(200)(visit)

    async with Receiver(join_first) as receiver:
        await market.buyer(receiver.url)
        first = await market.submit()
        assignment_id = await market.distribution.distribute(first.id)
        assert assignment_id is not None
        reasons.append((await ask_again(market, early)).reason)
        await market.delivery.deliver(assignment_id)
    assert await market.state(first.id) == "delivered"
    assert reasons == ["joined_paid_share", "joined_after_delivery"]
    assert await earnings(market) == {market.provider.owner: HALF_MINOR, early.owner: HALF_MINOR}
    await assert_consistent(market)


async def test_an_inquiry_that_joins_while_the_connection_opens_counts(market: Marketplace) -> None:
    """The delivery has read the lead by then, as one that no other inquiry had joined."""
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        first = await market.submit()
        assignment_id = await market.distribution.distribute(first.id)
        assert assignment_id is not None
        held_up = HeldUp(market.worker, delivery_store.SQL["expose"])
        delivery = Delivery(held_up.pool, market.sealer, market.guard, market.delivery._journal)
        delivering = asyncio.create_task(delivery.deliver(assignment_id))
        await within(PATIENCE, held_up.arrived.wait(), "the delivery to be about to expose the lead")
        await ask_again(market)
        held_up.let_go.set()
        await delivering
    assert sorted((await earnings(market)).values()) == [HALF_MINOR, HALF_MINOR]
    await assert_consistent(market)


async def test_an_inquiry_that_joins_after_the_delivery_changes_no_payout_and_its_provider_is_told(
    market: Marketplace,
) -> None:
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        await market.sold()
        late = await ask_again(market)
    assert late.reason == "joined_after_delivery"
    assert await earnings(market) == {market.provider.owner: PAYOUT_MINOR}
    assert await market.value("select count(*) from payout_claim") == 0


async def test_a_change_of_the_policy_counts_for_later_awards_only(market: Marketplace) -> None:
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        first = await market.submit()
        await ask_again(market)
        assignment_id = await market.distribution.distribute(first.id)
        assert assignment_id is not None
        definition = msgspec.json.encode(paying(PayJoined.first)).decode()
        async with market.owner.acquire() as connection, connection.transaction():
            await connection.execute("update vertical set version = 2")
            await connection.execute(
                "insert into vertical_version (vertical_id, version, definition, made_by) select id, 2, $1, 'test' "
                "from vertical",
                definition,
            )
        await market.delivery.deliver(assignment_id)
    assert sorted((await earnings(market)).values()) == [HALF_MINOR, HALF_MINOR]


async def test_a_repeated_answer_of_the_business_pays_once(market: Marketplace) -> None:
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        first = await market.submit()
        await ask_again(market)
        assignment_id = await market.distribution.distribute(first.id)
        assert assignment_id is not None
        await asyncio.gather(*(market.delivery.deliver(assignment_id) for _ in range(4)))
    assert sorted((await earnings(market)).values()) == [HALF_MINOR, HALF_MINOR]
    await assert_consistent(market)


async def test_a_rehearsal_moves_no_money(market: Marketplace) -> None:
    rehearsing = await market.another_provider("test")
    async with Receiver(status(200)) as receiver:
        first = await market.submit(by=rehearsing)
        await ask_again(market, await market.another_provider("test"))
        await market.buyer(receiver.url, mode="test")
        await market.walker.walk(first.id)
    assert await market.state(first.id) == "delivered"
    assert (await earnings(market), await market.value("select count(*) from payout_share")) == ({}, 0)
    await assert_consistent(market)


async def test_an_acknowledgement_in_a_feed_pays_each_share(settings: Settings, market: Marketplace) -> None:
    async with serve(settings) as api:
        first = await market.submit()
        second = await ask_again(market)
        buyer = await market.buyer(None)
        key = await api.key(CallerKind.business, buyer.business_id)
        await market.walker.walk(first.id)
        assert (await api.call("GET", "/v1/feed/events", key=key)).status_code == 200
        late = await ask_again(market)
        reply = await api.call("POST", "/v1/feed/acknowledgements", {"through": 1}, key=key)
        assert reply.json()["acknowledged"] == 1
    assert late.reason == "joined_after_delivery"
    owner, other = market.provider.owner, await provider_of(market, second)
    assert await earnings(market) == {owner: HALF_MINOR, other: HALF_MINOR}
    await assert_consistent(market)


async def test_a_returned_lead_takes_every_share_back(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        definition = msgspec.structs.replace(paying(PayJoined.split), returns_at_least=10)
        table = await desk(stack, settings, vertical=definition)
        market = table.market
        first = await market.submit()
        second = await ask_again(market)
        await market.walker.walk(first.id)
        lead = ids.encode("lead", first.id)
        request = await table.give_back(lead, reason="fraud", note="Nobody knows this person.")
        assert (await earnings(market))[await provider_of(market, second)] == HALF_MINOR
        assert (await table.judge(request.json()["id"], "granted")).status_code == 200
        assert set((await earnings(market)).values()) == {0}
        assert len(await earnings(market)) == 2
        assert (await table.inquiry(lead))["payout"] == {"minor": 0, "currency": "USD"}
        assert await market.state(uuid_of(lead)) == "returned"
        await assert_consistent(market)


async def test_each_provider_sees_its_own_share_under_its_own_inquiry(market: Marketplace) -> None:
    by = await market.another_provider()
    async with Receiver(status(200)) as receiver:
        first = await market.submit(provider_reference="of-the-lead")
        second = await market.submit(by=by, provider_reference="of-the-join")
        await market.buyer(receiver.url)
        await market.walker.walk(first.id)
    inquiries = ((market.provider, first.id, "of-the-lead"), (by, second.id, "of-the-join"))
    async with session(market.api) as connection:
        for provider, inquiry_id, reference in inquiries:
            status_ = await intake_store.find_status(connection, inquiry_id, provider.owner, "live")
            [listed] = await intake_store.list_statuses(connection, provider.owner, "live", None, 10)
            [submission] = await provider_store.list_submissions(connection, provider.owner, "live", None, 10)
            [movement] = await provider_store.list_earnings(connection, provider.owner, None, 10)
            assert status_ == listed
            assert (listed.payout_minor, listed.payout_currency) == (HALF_MINOR, "USD")
            assert (submission.id, submission.payout_minor) == (inquiry_id, HALF_MINOR)
            assert (movement.lead_id, movement.provider_reference) == (inquiry_id, reference)
            assert movement.amount_minor == HALF_MINOR
            other_id = next(other for _, other, _ in inquiries if other != inquiry_id)
            assert await intake_store.find_status(connection, other_id, provider.owner, "live") is None


@pytest.mark.parametrize("pay", PayJoined)
async def test_the_first_answer_says_what_a_joined_inquiry_will_be_paid_and_a_repetition_says_the_same(
    settings: Settings, pay: PayJoined
) -> None:
    async with serve(settings) as api, marketplace(settings, paying(pay)) as market:
        await market.submit()
        by = await market.another_provider()
        key = await api.key("provider", by.owner)
        body = roofing_body(1, clock.now(), provider_reference="again")
        replies = [await api.call("POST", "/v1/inquiries", body, key=key) for _ in range(2)]
        shown = await api.call("GET", f"/v1/inquiries/{replies[0].json()['id']}", key=key)
    expected = {
        PayJoined.first: "joined",
        PayJoined.last: "joined_paid_if_last",
        PayJoined.split: "joined_paid_share",
    }[pay]
    assert [reply.json()["reasons"] for reply in (*replies, shown)] == [[expected]] * 3
    assert replies[0].json() == replies[1].json()


async def test_a_claim_is_never_written_without_its_inquiry(market: Marketplace) -> None:
    await market.submit()
    second = await ask_again(market)
    row = await market.row("select inquiry_id, provider_id, revision from payout_claim")
    assert row == {"inquiry_id": second.id, "provider_id": await provider_of(market, second), "revision": 1}
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await market.worker.execute("delete from payout_claim")
