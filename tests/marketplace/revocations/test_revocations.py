"""Revoked consent: what ends, which business is told, and that no answer says whether a person is known."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from standardwebhooks import Webhook

from marketplace.delivery.flow import Delivery
from marketplace.delivery.store import SQL as DELIVERY
from marketplace.erasure.flow import erase_lead
from marketplace.operations.verify import verify
from marketplace.revocations.flow import revoke_lead
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from marketplace.webhook.signing import sign
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import PRICE_MINOR, Marketplace, marketplace
from tests.builders.pausing import HeldUp
from tests.builders.service import Served, serve
from tests.receivers import Receiver, ok, status

OPERATOR = Principal(key_id="operator", kind=CallerKind.operator, owner_id=None, mode="live")


class Scene:
    """A served API on a marketplace in which the test itself moves each lead."""

    def __init__(self, api: Served, market: Marketplace) -> None:
        self.api, self.market = api, market

    async def revoke(self, key: str | None = None, **body: Any) -> httpx.Response:
        return await self.api.call("POST", "/v1/revocations", {"reason": "said stop", **body}, key=key)

    async def sweep(self) -> None:
        await self.market.owner.execute("update notice set due_at = clock_timestamp() where due_at is not null")
        await self.market.sweeper.sweep()
        await asyncio.gather(*self.market.sweeper._running)

    async def is_clean(self) -> bool:
        async with self.market.owner.acquire() as connection:
            report = await verify(connection)
        assert [check for check in report.checks if check.findings and check.severity == "finding"] == []
        return True


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with serve(settings) as api, marketplace(settings) as market:
        yield Scene(api, market)


def phone_of(number: int) -> str:
    phone: str = roofing_body(number)["contact"]["phone"]
    return phone


def text(lead_id: UUID) -> str:
    return ids.encode("lead", lead_id)


async def test_a_stop_reaches_the_holder_and_is_acknowledged(scene: Scene) -> None:
    async with Receiver(ok, status(500), ok) as receiver:
        buyer = await scene.market.buyer(receiver.url)
        lead_id = await scene.market.sold()
        assert (await scene.revoke(phone=phone_of(1), channels=["text"])).status_code == 201
        await scene.sweep()
        assert await scene.market.value("select state from notice") == "due"
        await scene.sweep()
        delivery, first, again = receiver.visits
        assert first.headers["Webhook-Id"] == again.headers["Webhook-Id"]
        Webhook(buyer.secret).verify(again.body, {name.lower(): value for name, value in again.headers.items()})
        event = msgspec.json.decode(again.body)
        assert (event["type"], event["data"]["channels"]) == ("consent.revoked", ["text"])
        assert event["data"]["lead_id"] == text(lead_id)
        assert event["data"]["assignment_id"] == delivery.headers["Webhook-Id"]
        assert await scene.market.value("select state from notice") == "acknowledged"
        assert await scene.market.value("select count(*) from audit where action = 'revocation.acknowledge'") == 1
        assert await scene.market.value("select state from lead where id = $1", lead_id) == "delivered"
        [row] = (await scene.api.call("GET", "/v1/revocations")).json()["data"]
        assert (row["leads"], row["notices"], row["acknowledged"], row["overdue"]) == (1, 1, 1, 0)
        assert await scene.is_clean()


@pytest.mark.parametrize(
    ("wait", "ended"), [("received", "rejected"), ("nurturing", "expired"), ("prospect", "unsold")]
)
async def test_a_lead_that_waits_ends_at_once(scene: Scene, wait: str, ended: str) -> None:
    lead_id = (await scene.market.submit(1)).id
    if wait != "received":
        await scene.market.owner.execute("update lead set state = $2 where id = $1", lead_id, wait)
    await scene.revoke(phone=phone_of(1))
    row = await scene.market.row("select state, reason, due_at from lead where id = $1", lead_id)
    assert (row["state"], row["reason"], row["due_at"]) == (ended, "revoked", None)
    assert await scene.market.value("select count(*) from notice") == 0
    assert await scene.is_clean()


async def test_a_held_lead_gives_its_money_back_and_ends(scene: Scene) -> None:
    async with Receiver(ok) as receiver:
        buyer = await scene.market.buyer(receiver.url)
        lead_id = (await scene.market.submit(1)).id
        before = await scene.market.wallet(buyer)
        assert await scene.market.distribution.distribute(lead_id) is not None
        await scene.revoke(phone=phone_of(1))
        assert await scene.market.wallet(buyer) == before
        assert await scene.market.state(lead_id) == "unsold"
        assert receiver.visits == []
        assert await scene.is_clean()


async def test_a_lead_revoked_between_the_connection_and_the_exposure_is_not_sent(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(ok) as receiver:
        await market.buyer(receiver.url)
        lead_id = (await market.submit(1)).id
        assignment_id = await market.distribution.distribute(lead_id)
        assert assignment_id is not None
        held_up = HeldUp(market.distribution._pool, DELIVERY["expose"])
        delivery = Delivery(held_up.pool, market.sealer, market.guard, market.delivery._journal)
        attempt = asyncio.create_task(delivery.deliver(assignment_id))
        await held_up.arrived.wait()
        await revoke_lead(market.api, OPERATOR, lead_id, (), "said stop")
        held_up.let_go.set()
        await attempt
        assert await market.value("select count(*) from exposure") == 0
        assert await market.state(lead_id) == "unsold"
        assert [visit.raw for visit in receiver.visits] == [b""]


async def test_the_same_revocation_again_tells_the_business_nothing_new(scene: Scene) -> None:
    async with Receiver(ok) as receiver:
        await scene.market.buyer(receiver.url)
        await scene.market.sold()
        count = "select count(*) from notice"
        counts = []
        for channels in (["text"], ["text"], ["text", "call"], [], ["email"], []):
            await scene.revoke(phone=phone_of(1), channels=channels)
            counts.append(await scene.market.value(count))
        assert counts == [1, 1, 2, 3, 3, 3]


async def test_all_channels_suppress_the_person_and_some_do_not(scene: Scene) -> None:
    await scene.revoke(phone=phone_of(1), channels=["text"])
    await scene.revoke(phone=phone_of(2))
    states = [await scene.market.state((await scene.market.submit(number)).id) for number in (1, 2)]
    assert states == ["received", "suppressed"]


async def test_a_touch_does_not_open_a_revoked_lead_again(scene: Scene) -> None:
    lead_id = (await scene.market.submit(1)).id
    await scene.market.owner.execute("update lead set state = 'nurturing' where id = $1", lead_id)
    await scene.market.owner.execute(
        "update lead set state = 'rejected', reason = 'score_below_minimum', due_at = null where id = $1",
        lead_id,
    )
    await scene.revoke(phone=phone_of(1), channels=["text"])
    provider = await scene.api.key("provider", ids.encode("prov", scene.market.provider.owner))
    touch = {"kind": "call", "at": clock.now(), "supplies": {"authority": "influencer"}}
    path = f"/v1/inquiries/{text(lead_id)}/touches"
    reply = await scene.api.call("POST", path, {"touches": [touch]}, key=provider)
    assert reply.status_code == 201, reply.text
    assert await scene.market.value("select state from lead where id = $1", lead_id) == "rejected"


async def test_the_answer_is_the_same_for_somebody_unknown(scene: Scene) -> None:
    await scene.market.submit(1)
    provider = await scene.api.key("provider", ids.encode("prov", scene.market.provider.owner))
    nobody = ids.encode("lead", clock.new_id())
    answers = [
        await scene.revoke(key, **body)
        for key in (None, provider)
        for body in ({"phone": phone_of(1)}, {"phone": phone_of(9)}, {"lead_id": nobody}, {"lead_id": "x"})
    ]
    assert {answer.status_code for answer in answers} == {201}
    assert {tuple(answer.json()) for answer in answers} == {("id", "revoked_at", "channels")}


async def test_a_provider_revokes_in_its_own_leads_alone(scene: Scene) -> None:
    lead_id = (await scene.market.submit(1)).id
    stranger = await scene.api.key("provider", ids.encode("prov", (await scene.market.another_provider()).owner))
    await scene.revoke(stranger, lead_id=text(lead_id))
    await scene.revoke(stranger, phone=phone_of(1), channels=["call"])
    assert await scene.market.state(lead_id) == "received"


async def test_a_signed_stop_is_recorded_once_however_often_it_is_sent(scene: Scene) -> None:
    lead_id = (await scene.market.submit(1)).id
    hook = (await scene.api.call("POST", "/v1/revocation-hook")).json()
    assert hook["path"] == "/in/revocations/operator"
    body = msgspec.json.encode({"phone": phone_of(1)})
    headers = sign((hook["secret"],), "msg-1", clock.now(), body)

    async def send(path: str, headers: dict[str, str], raw: bytes = body) -> httpx.Response:
        return await scene.api.call("POST", path, raw, key="", headers=headers)

    first, again = [await send(hook["path"], headers) for _ in range(2)]
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert await scene.market.state(lead_id) == "rejected"
    assert await scene.market.value("select count(*) from revocation") == 1
    prov = ids.encode("prov", scene.market.provider.owner)
    refused = [
        await send(hook["path"], headers, body + b" "),
        await send(f"/in/revocations/{prov}", headers),
        await send("/in/revocations/nobody", headers),
    ]
    assert [answer.status_code for answer in refused] == [401, 401, 401]


async def test_a_business_acknowledges_its_own_notice_and_nobody_elses(scene: Scene) -> None:
    async with Receiver(ok) as receiver:
        buyer = await scene.market.buyer(receiver.url)
        await scene.market.sold()
        stranger = await scene.market.buyer("http://127.0.0.1:1/")
        await scene.revoke(phone=phone_of(1))
        own = await scene.api.key("business", ids.encode("biz", buyer.business_id))
        other = await scene.api.key("business", ids.encode("biz", stranger.business_id))
        [notice] = (await scene.api.call("GET", "/v1/notices?state=due", key=own)).json()["data"]
        assert (notice["kind"], notice["state"], "business" in notice) == ("revoked", "due", False)
        assert (await scene.api.call("GET", "/v1/notices", key=other)).json()["data"] == []
        path = f"/v1/notices/{notice['id']}/acknowledge"
        assert (await scene.api.call("POST", path, key=other)).status_code == 404
        done = [(await scene.api.call("POST", path, key=own)).json() for _ in range(2)]
        assert done[0] == done[1]
        assert done[0]["state"] == "acknowledged"


async def test_the_database_refuses_a_revoked_lead_without_its_notice(scene: Scene) -> None:
    async with Receiver(ok) as receiver:
        await scene.market.buyer(receiver.url)
        lead_id = await scene.market.sold()
        await scene.revoke(phone="+13125550999")
        insert = """insert into revoked_lead (lead_id, revocation_id, state, business_id)
            select $1, id, 'delivered', {business} from revocation"""
        for business, constraint in (
            ("null", "revoked_lead_holder"),
            ("(select business_id from exposure)", "revoked_lead_announced"),
        ):
            with pytest.raises(asyncpg.CheckViolationError) as refusal:
                await scene.market.owner.execute(insert.format(business=business), lead_id)
            assert refusal.value.constraint_name == constraint


async def test_a_revoked_lead_is_never_exposed_whatever_the_code_believes(scene: Scene) -> None:
    async with Receiver(ok) as receiver:
        await scene.market.buyer(receiver.url)
        lead_id = (await scene.market.submit(1)).id
        await scene.market.distribution.distribute(lead_id)
        await scene.revoke(phone="+13125550999")
        await scene.market.owner.execute(
            "insert into revoked_lead (lead_id, revocation_id, state) select $1, id, 'held' from revocation", lead_id
        )
        await scene.market.owner.execute("update assignment set due_at = clock_timestamp()")
        await scene.market.sweeper.sweep()
        await asyncio.gather(*scene.market.sweeper._running, return_exceptions=True)
        assert await scene.market.value("select count(*) from exposure") == 0


async def test_every_lead_revoked_during_distribution_is_either_unseen_or_has_a_notice(scene: Scene) -> None:
    async with Receiver(ok) as receiver:
        await scene.market.buyer(receiver.url, available_minor=100 * PRICE_MINOR)
        receipts = [await scene.market.submit(number) for number in range(40)]

        async def revoke_after(number: int, lead_id: UUID) -> None:
            await asyncio.sleep(0.004 * (number % 20))
            await revoke_lead(scene.market.api, OPERATOR, lead_id, (), "said stop")

        walks = [scene.market.walker.walk(receipt.id) for receipt in receipts]
        revoking = [revoke_after(number, receipt.id) for number, receipt in enumerate(receipts)]
        await asyncio.gather(*walks, *revoking)
        exposed = await scene.market.value("select array_agg(lead_id order by lead_id) from exposure")
        notified = await scene.market.value("select array_agg(lead_id order by lead_id) from notice")
        assert exposed == notified
        assert 0 < len(exposed) < len(receipts)
        assert await scene.market.value("select count(*) from revoked_lead") == len(receipts)
        assert await scene.is_clean()


async def test_a_revocation_and_an_erasure_at_once_leave_one_notice_or_two_and_never_none(scene: Scene) -> None:
    async with Receiver(ok) as receiver:
        await scene.market.buyer(receiver.url)
        lead_id = await scene.market.sold()
        await asyncio.gather(
            revoke_lead(scene.market.api, OPERATOR, lead_id, (), "said stop"),
            erase_lead(scene.market.api, OPERATOR, lead_id, "asked", also_suppress=False),
        )
        kinds = await scene.market.value("select array_agg(kind order by kind) from notice")
        assert kinds in (["erased"], ["erased", "revoked"])
        assert await scene.is_clean()
