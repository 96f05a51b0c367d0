"""Notifications of a new lead: to the members' browsers through a real server, beside the lead's own way."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from marketplace.delivery.flow import Delivery
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.web_push.encryption import encode_base64, load_public_key, public_bytes
from marketplace.web_push.flow import MOST_OF_MEMBER, PushSender
from marketplace.worker import Walker, announce_by
from tests.builders.marketplaces import Buyer, Marketplace, marketplace
from tests.builders.portal import Browser, signed_in
from tests.builders.service import Served, serve
from tests.receivers import Receiver, hang, status

LOOPBACK = {"outbound_networks": ("127.0.0.0/8",), "outbound_http": True}


class Phone:
    """A browser's own keys, with which it reads what is sent to it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = clock.random_bytes(16)

    def fields(self, url: str) -> dict[str, str]:
        return {"url": url, "p256dh": encode_base64(public_bytes(self.key)), "auth": encode_base64(self.auth)}

    def read(self, body: bytes) -> dict[str, str]:
        """Return the message, decrypted by the steps of RFC 8291 for a receiver."""
        salt, sender, sealed = body[:16], body[21:86], body[86:]
        shared = self.key.exchange(ec.ECDH(), load_public_key(sender))
        info = b"WebPush: info\0" + public_bytes(self.key) + sender
        secret = _extract(salt, _expand(_extract(self.auth, shared), info, 32))
        key, nonce = (
            _expand(secret, b"Content-Encoding: " + name + b"\0", length)
            for name, length in ((b"aes128gcm", 16), (b"nonce", 12))
        )
        message: dict[str, str] = msgspec.json.decode(AESGCM(key).decrypt(nonce, sealed, None).removesuffix(b"\x02"))
        return message


def _extract(salt: bytes, material: bytes) -> bytes:
    extraction = hmac.HMAC(salt, hashes.SHA256())
    extraction.update(material)
    return extraction.finalize()


def _expand(key: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(hashes.SHA256(), length, info).derive(key)


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings) as market:
        yield market


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(msgspec.structs.replace(settings, **LOOPBACK)) as api:
        yield api


@pytest.fixture
async def sender(market: Marketplace) -> AsyncIterator[PushSender]:
    key = ec.generate_private_key(ec.SECP256R1())
    sender = PushSender(market.worker, Catalog(market.worker), market.sealer, market.guard, key, "https://x.example")
    yield sender
    await sender.close()


async def walk(market: Marketplace, sender: PushSender, number: int = 1) -> str:
    """Walk one lead with notifications, and return its state when the walk ends."""
    journal = market.delivery._journal
    delivery = Delivery(market.worker, market.sealer, market.guard, journal, announce=announce_by(sender))
    receipt = await market.submit(number)
    await Walker(market.distribution, delivery).walk(receipt.id)
    return await market.state(receipt.id)


async def member_of(api: Served, buyer: Buyer, url: str, role: str = "member") -> tuple[Browser, Phone]:
    """Return a member's browser that has switched notifications on."""
    browser, phone = await signed_in(api, "business", buyer.business_id, role=role), Phone()
    reply = await browser.post("/business/inbox/devices", phone.fields(url))
    assert reply.status_code == 303, reply.text
    return browser, phone


async def test_each_member_is_told_of_a_new_lead_and_nothing_of_the_person(
    market: Marketplace, api: Served, sender: PushSender
) -> None:
    async with Receiver(status(201)) as service, Receiver(status(201)) as other:
        buyer = await market.buyer(None, kind="inbox")
        _, phone = await member_of(api, buyer, f"{service.url}/a")
        _, tablet = await member_of(api, buyer, f"{other.url}/b", "owner")
        assert await walk(market, sender) == "held"
        await sender.close()
        for device, receiver in ((phone, service), (tablet, other)):
            [visit] = receiver.visits
            head, _, body = visit.raw.partition(b"\r\n\r\n")
            message = device.read(body)
            assignment = ids.encode("asg", await market.value("select id from assignment"))
            assert message["title"] == "New lead in Roofing"
            assert message["path"] == f"/business/inbox/{assignment}"
            assert "Robin" not in str(message)
            for line in (b"Content-Encoding: aes128gcm", b"Urgency: high", b"Authorization: vapid t="):
                assert line in head
            assert b"\r\nTtl: 1" in head


@pytest.mark.parametrize("code", [404, 410])
async def test_a_subscription_that_has_ended_is_removed_and_any_other_failure_keeps_it(
    market: Marketplace, api: Served, sender: PushSender, code: int
) -> None:
    async with Receiver(status(code)) as ended, Receiver(status(500)) as broken:
        buyer = await market.buyer(None, kind="inbox")
        await member_of(api, buyer, f"{ended.url}/a")
        await member_of(api, buyer, f"{broken.url}/b")
        await walk(market, sender)
        await sender.close()
    assert await market.value("select array_agg(url) from push_subscription") == [f"{broken.url}/b"]


async def test_a_push_service_that_hangs_delays_no_lead(market: Marketplace, api: Served, sender: PushSender) -> None:
    async with Receiver(hang) as service:
        buyer = await market.buyer(None, kind="inbox")
        await member_of(api, buyer, service.url)
        async with asyncio.timeout(5):
            assert await walk(market, sender) == "held"


async def test_nobody_is_told_who_may_not_take_leads_or_is_of_another_business(
    market: Marketplace, api: Served, sender: PushSender
) -> None:
    async with Receiver(status(201)) as service:
        buyer, other = await market.buyer(None, kind="inbox"), await market.buyer(None, available_minor=0)
        browser, _ = await member_of(api, buyer, f"{service.url}/a")
        await member_of(api, other, f"{service.url}/b")
        await market.owner.execute("update member set role = 'viewer' where id = $1", browser.member_id)
        await walk(market, sender)
        await sender.close()
        assert service.visits == []


async def test_a_browser_belongs_to_the_member_who_signed_in_there_last(market: Marketplace, api: Served) -> None:
    buyer = await market.buyer(None, kind="inbox")
    await member_of(api, buyer, "http://127.0.0.1:1/a")
    second, _ = await member_of(api, buyer, "http://127.0.0.1:1/a")
    assert await market.value("select array_agg(member_id) from push_subscription") == [second.member_id]


async def test_a_member_removes_a_device_and_nobody_else_does(market: Marketplace, api: Served) -> None:
    buyer = await market.buyer(None, kind="inbox")
    browser, _ = await member_of(api, buyer, "http://127.0.0.1:1/a")
    colleague = await signed_in(api, "business", buyer.business_id)
    device = ids.encode("psh", await market.value("select id from push_subscription"))
    assert device in (await browser.get("/business/inbox")).text
    path = f"/business/inbox/devices/{device}/remove"
    assert (await colleague.post(path)).status_code == 404
    assert (await browser.post(path)).status_code == 303
    assert await market.value("select count(*) from push_subscription") == 0


async def test_the_url_and_the_keys_of_a_device_are_checked(market: Marketplace, api: Served) -> None:
    buyer = await market.buyer(None, kind="inbox")
    browser, good = await signed_in(api, "business", buyer.business_id), Phone().fields("http://127.0.0.1:1/a")
    wrong = (
        {"url": "http://10.0.0.1/"},
        {"url": "ftp://push.example.com/"},
        {"url": "x" * 3_000},
        {"p256dh": "AAAA"},
        {"auth": "AAAA"},
        {"auth": "!"},
    )
    for change in wrong:
        assert (await browser.post("/business/inbox/devices", good | change)).status_code == 422, change
    for number in range(MOST_OF_MEMBER):
        assert (await browser.post("/business/inbox/devices", good | {"url": f"{good['url']}/{number}"})).is_redirect
    assert (await browser.post("/business/inbox/devices", good | {"url": f"{good['url']}/more"})).status_code == 409


async def test_the_page_offers_notifications_where_the_operator_has_a_key(
    settings: Settings, market: Marketplace
) -> None:
    buyer = await market.buyer(None, kind="inbox")
    for key, words in ((None, "has not switched on notifications"), (b"k" * 32, "data-push-key=")):
        async with serve(msgspec.structs.replace(settings, vapid_private_key=key)) as api:
            page = await (await signed_in(api, "business", buyer.business_id)).get("/business/inbox")
            assert words in page.text
            worker = await Browser(api).get("/service-worker.js")
            assert (worker.status_code, worker.headers["cache-control"]) == (200, "no-cache")
            assert (await Browser(api).get("/manifest.webmanifest")).json()["start_url"] == "/"
            assert "offline" in (await Browser(api).get("/offline")).text
