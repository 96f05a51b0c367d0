"""Feeds: leads are sent to a reader, exposed before they are sent, and charged when acknowledged."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from marketplace.database.db import open_pool
from marketplace.database.journal import Journal, JournalExposure, read_newest
from marketplace.delivery.store import read_contact
from marketplace.erasure.flow import erase_lead
from marketplace.feed import http as feed_http
from marketplace.feed.flow import Feed, FeedPosition, FeedReader
from marketplace.feed.store import SQL as FEED
from marketplace.feed.streams import MOST_OF_KEY
from marketplace.notices.store import NoticeKind, insert_notice
from marketplace.runtime import clock, ids
from marketplace.runtime.errors import NotFound
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal, key_id
from marketplace.web import gate
from routing.inquiry import Budget
from routing.journey import FactChange, LeadUpdate
from routing.subscription import Area
from tests.builders.feeds import reading, refusal_of
from tests.builders.marketplaces import PRICE_MINOR, Buyer, Marketplace, anywhere, marketplace
from tests.builders.pausing import HeldUp
from tests.builders.service import NOWHERE, Served, hung_up, serve, until
from tests.receivers import Receiver, status
from tests.waiting import PATIENCE, give_back

FULL = 100_000
OPERATOR = Principal(key_id="operator", kind=CallerKind.operator, owner_id=None, mode="live")


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings) as market:
        yield market


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as api:
        yield api


async def fed(market: Marketplace, api: Served, mode: str = "live") -> tuple[Buyer, str]:
    """Return a business that takes every lead in its feed, and its key."""
    buyer = await market.buyer(None, mode=mode)
    return buyer, await api.key(CallerKind.business, buyer.business_id, mode)


async def come_due(market: Marketplace) -> None:
    await market.owner.execute("update assignment set due_at = clock_timestamp() where due_at is not null")
    await market.sweeper.sweep()
    await asyncio.gather(*market.sweeper._running)


async def poll(api: Served, key: str, query: str = "") -> dict[str, Any]:
    reply = await api.call("GET", f"/v1/feed/events{query}", key=key)
    assert reply.status_code == 200, reply.text
    batch: dict[str, Any] = reply.json()
    return batch


async def test_a_lead_reaches_an_open_stream_at_once_with_the_webhooks_body(market: Marketplace, api: Served) -> None:
    buyer, key = await fed(market, api)
    async with reading(api, key) as stream:
        await asyncio.sleep(0.3)  # for the listener to hear
        receipt = await market.submit()
        await market.walker.walk(receipt.id)
        heard = await stream.next()
        assert (heard.sequence, heard.name, heard.body["type"]) == (1, "lead.assigned", "lead.assigned")
        assert heard.body["data"]["contact"]["email"] == "robin.1@example.com"
        assert heard.body["data"]["exclusive"] is True
        assert stream.reply.headers["content-type"].startswith("text/event-stream")
        assert stream.reply.headers["cache-control"] == "no-store"
        assert "content-encoding" not in stream.reply.headers
    row = await market.row("select channel, business_id, endpoint_id, address from exposure")
    assert row == {
        "channel": "feed",
        "business_id": buyer.business_id,
        "endpoint_id": buyer.endpoint_id,
        "address": key_id(key),
    }
    assert await market.state(receipt.id) == "exposed"
    assert await market.value("select count(*) from attempt") == 0
    entries = read_newest(market.settings.journal_dir)
    journaled = {entry.lead_id: entry.channel for entry in entries if isinstance(entry, JournalExposure)}
    assert journaled == {receipt.id: "feed"}


async def test_an_acknowledgement_delivers_and_charges_once(market: Marketplace, api: Served) -> None:
    buyer, key = await fed(market, api)
    lead_id = await market.sold()
    batch = await poll(api, key)
    assert [event["sequence"] for event in batch["data"]] == [1]
    assert await market.wallet(buyer) == (FULL - PRICE_MINOR, PRICE_MINOR)
    replies = await asyncio.gather(
        *(api.call("POST", "/v1/feed/acknowledgements", {"through": 1}, key=key) for _ in range(5))
    )
    assert {reply.status_code for reply in replies} == {200}
    assert sum(reply.json()["acknowledged"] for reply in replies) == 1
    once_more = await api.call("POST", f"/v1/leads/{ids.encode('lead', lead_id)}/acknowledge", key=key)
    assert once_more.json() | {"lead_id": ""} == {"lead_id": "", "receipt": "repeated", "state": "delivered"}
    assert await market.wallet(buyer) == (FULL - PRICE_MINOR, 0)
    row = await market.row("select state, reason, evidence, due_at from assignment")
    assert row == {"state": "delivered", "reason": "acknowledged", "evidence": "acknowledgement", "due_at": None}
    assert ("lead.acknowledge", ids.encode("lead", lead_id)) in await api.audited()
    assert (
        await market.value("select actor from move where entered_state = 'delivered' limit 1") == "marketplace_feeder"
    )
    assert (await poll(api, key))["data"] == []


async def test_a_lead_that_nobody_reads_goes_to_the_next_business(market: Marketplace, api: Served) -> None:
    async with Receiver(status(200)) as receiver:
        buyer = await market.buyer(None, anywhere(priority=1))
        key = await api.key(CallerKind.business, buyer.business_id)
        await market.buyer(receiver.url, anywhere(priority=2))
        lead_id = await market.sold()
        assert await market.state(lead_id) == "held"
        assert await market.value("select due_at = hold_until from assignment")
        await market.owner.execute("update assignment set hold_until = clock_timestamp() - interval '1 second'")
        await come_due(market)
        assert await market.state(lead_id) == "delivered"
        assert len(receiver.visits) == 1
        assert await market.wallet(buyer) == (FULL, 0)
        assert (await poll(api, key, "?after=0"))["data"] == []
        assert await market.value("select count(*) from exposure where business_id = $1", buyer.business_id) == 0


async def test_a_lead_that_is_never_acknowledged_lapses_uncharged_and_a_late_word_is_recorded(
    market: Marketplace, api: Served
) -> None:
    buyer, key = await fed(market, api)
    lead_id = await market.sold()
    await poll(api, key)
    await market.owner.execute("update assignment set evidence_until = clock_timestamp() - interval '1 second'")
    await come_due(market)
    assert await market.state(lead_id) == "lapsed"
    late = await api.call("POST", "/v1/feed/acknowledgements", {"through": 1}, key=key)
    assert late.json() == {"through": 1, "acknowledged": 0, "late": 1, "has_more": False}
    again = await api.call("POST", f"/v1/leads/{ids.encode('lead', lead_id)}/acknowledge", key=key)
    assert (again.status_code, again.json()["state"], again.json()["receipt"]) == (200, "lapsed", "repeated")
    assert await market.wallet(buyer) == (FULL, 0)
    assert await market.value("select acknowledged_at is not null from feed_event")
    assert (await poll(api, key, "?after=0"))["data"] == []


async def test_an_exposed_lead_is_looked_at_again_when_its_evidence_is_due_and_not_before(
    market: Marketplace, api: Served
) -> None:
    _, key = await fed(market, api)
    lead_id = await market.sold()
    await poll(api, key)
    assert await market.value("select due_at = evidence_until from assignment")
    await come_due(market)
    assert await market.state(lead_id) == "exposed"
    assert await market.value("select due_at = evidence_until from assignment")


async def test_what_is_not_acknowledged_comes_again_and_nothing_is_skipped(market: Marketplace, api: Served) -> None:
    _, key = await fed(market, api)
    async with reading(api, key) as stream:
        for number in (1, 2, 3):
            await market.sold(number)
        assert [(await stream.next()).sequence for _ in range(3)] == [1, 2, 3]
    await api.call("POST", "/v1/feed/acknowledgements", {"through": 2}, key=key)
    for number in (4, 5):
        await market.sold(number)
    async with reading(api, key, headers={"last-event-id": "3"}) as stream:
        assert [(await stream.next()).sequence for _ in range(3)] == [3, 4, 5]
        assert await stream.nothing()
    async with reading(api, key) as stream:
        assert [(await stream.next()).sequence for _ in range(3)] == [3, 4, 5]
    first = await poll(api, key, "?after=0&limit=2")
    assert ([event["sequence"] for event in first["data"]], first["has_more"]) == ([1, 2], True)
    second = await poll(api, key, f"?after={first['next_after']}")
    assert ([event["sequence"] for event in second["data"]], second["next_after"]) == ([3, 4, 5], 5)


async def test_two_readers_of_one_business_are_shown_the_same_lead_under_one_exposure(
    market: Marketplace, api: Served
) -> None:
    _, key = await fed(market, api)
    other = await api.key(CallerKind.business, await market.value("select id from business"))
    async with reading(api, key) as first, reading(api, other) as second:
        await asyncio.sleep(0.3)
        for number in range(1, 6):
            await market.sold(number)
        heard = [[(await stream.next()).sequence for _ in range(5)] for stream in (first, second)]
    assert heard == [[1, 2, 3, 4, 5]] * 2
    assert await market.value("select count(*) from exposure") == 5


async def test_a_feed_tells_each_business_and_each_mode_its_own_leads_alone(market: Marketplace, api: Served) -> None:
    buyer, key = await fed(market, api)
    lead_id = await market.sold()
    stranger = await market.buyer("http://127.0.0.1:9/", anywhere(priority=2))
    strangers = await api.key(CallerKind.business, stranger.business_id)
    tester = await api.key(CallerKind.business, buyer.business_id, "test")
    for other in (strangers, tester):
        assert (await poll(api, other))["data"] == []
        refused = await api.call("POST", f"/v1/leads/{ids.encode('lead', lead_id)}/acknowledge", key=other)
        assert refused.status_code == 404
        beyond = await api.call("POST", "/v1/feed/acknowledgements", {"through": 1}, key=other)
        assert (beyond.status_code, beyond.json()["errors"][0]["code"]) == (422, "out_of_range")
    not_yet = await api.call("POST", f"/v1/leads/{ids.encode('lead', lead_id)}/acknowledge", key=key)
    assert not_yet.status_code == 404
    assert (await api.call("POST", "/v1/feed/acknowledgements", {"through": 1}, key=key)).json()["acknowledged"] == 0
    assert await market.state(lead_id) == "held"


async def test_not_even_a_mistake_of_ours_shows_a_lead_to_another_business(
    market: Marketplace, settings: Settings
) -> None:
    buyer, other = await market.buyer(None), await market.buyer(None, anywhere(area=Area(prefixes=("9",))))
    journal = await Journal.open(settings.journal_dir)
    feeder = await open_pool(settings.database_url or "", "marketplace_feeder", size=2)
    try:
        feed = Feed(market.api, feeder, market.sealer, journal)
        owner, stranger = (FeedReader(business_id=each.business_id, mode="live", name="x") for each in (buyer, other))
        lead_id = await market.sold()
        [mistaken] = await feed.entries(owner, FeedPosition(), 10)
        assert await feed.show(stranger, mistaken) is None
        assert await market.state(lead_id) == "held"
        assert await feed.show(owner, mistaken) is not None
        assert await feed.show(stranger, mistaken) is None  # the database refuses to read the contact
        async with market.api.acquire() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await read_contact(connection, lead_id, other.business_id)
        with pytest.raises(NotFound):
            await feed.acknowledge_lead(stranger, lead_id)
        assert await market.value("select array_agg(business_id) from exposure") == [buyer.business_id]
    finally:
        await feeder.close()
        await journal.close()


async def test_a_rehearsal_is_read_in_its_own_feed_and_costs_nothing(market: Marketplace, api: Served) -> None:
    buyer, key = await fed(market, api, "test")
    by = await market.another_provider("test")
    receipt = await market.submit(by=by)
    await market.walker.walk(receipt.id)
    assert len((await poll(api, key))["data"]) == 1
    assert (await api.call("POST", "/v1/feed/acknowledgements", {"through": 1}, key=key)).json()["acknowledged"] == 1
    assert await market.state(receipt.id) == "delivered"
    assert await market.value("select count(*) from transfer where kind <> 'top_up'") == 0
    assert await market.wallet(buyer) == (FULL, 0)


async def test_a_poll_waits_for_the_next_lead_and_no_longer(market: Marketplace, api: Served) -> None:
    _, key = await fed(market, api)
    started = clock.monotonic()
    assert (await poll(api, key, "?wait=1"))["data"] == []
    assert 0.9 < clock.monotonic() - started < 20
    waiting = asyncio.create_task(poll(api, key, "?wait=20"))
    await asyncio.sleep(0.3)
    await market.sold()
    async with asyncio.timeout(15):
        assert len((await waiting)["data"]) == 1


async def test_without_valkey_a_lead_comes_a_little_later(market: Marketplace, settings: Settings) -> None:
    async with serve(msgspec.structs.replace(settings, valkey_url=NOWHERE)) as api:
        _, key = await fed(market, api)
        async with reading(api, key) as stream:
            await asyncio.sleep(0.1)
            await market.sold()
            await stream.next(feed_http.PING_SECONDS / 2)


@pytest.mark.parametrize("why", ["revoked", "expired", "frozen"])
async def test_a_stream_ends_with_its_key(market: Marketplace, api: Served, why: str) -> None:
    _, key = await fed(market, api)
    ending = {
        "revoked": "update api_key set revoked_at = clock_timestamp() where kind = 'business'",
        "expired": "update api_key set expires_at = clock_timestamp() where kind = 'business'",
        "frozen": "update business set state = 'frozen'",
    }
    async with reading(api, key) as stream:
        await asyncio.sleep(0.2)
        await market.owner.execute(ending[why])
        assert await stream.ends()
    assert (await api.call("GET", "/v1/feed/events", key=key)).status_code in (401, 403)


async def test_a_key_has_five_streams_and_no_more(market: Marketplace, api: Served) -> None:
    _, key = await fed(market, api)
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        url, sent = f"http://127.0.0.1:{api.port}/v1/feed", {"authorization": f"Bearer {key}"}
        streams = [
            await client.send(client.build_request("GET", url, headers=sent), stream=True) for _ in range(MOST_OF_KEY)
        ]
        begun = [stream.aiter_raw() for stream in streams]
        assert [await anext(stream) for stream in begun] == [b"retry: 3000\n\n"] * MOST_OF_KEY
        refused = await api.call("GET", "/v1/feed", key=key)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert refused.headers["retry-after"]
        await streams[0].aclose()

        async def room() -> bool:
            return (await api.call("GET", "/v1/feed?lasts=0", key=key)).status_code == 200

        assert await until(room, PATIENCE)
        for reply in streams:
            await reply.aclose()


async def test_a_ticket_opens_one_stream_and_no_key_stands_in_a_url(market: Marketplace, api: Served) -> None:
    _, key = await fed(market, api)
    await market.sold()
    ticket = (await api.make("/v1/feed/tickets", None, key=key))["ticket"]
    async with reading(api, "", f"?ticket={ticket}") as stream:
        assert (await stream.next()).sequence == 1
        assert stream.reply.headers["access-control-allow-origin"] == "*"
    assert (await refusal_of(api, f"?ticket={ticket}"))[0] == 401
    late = (await api.make("/v1/feed/tickets", None, key=key))["ticket"]
    await market.owner.execute("update feed_ticket set expires_at = clock_timestamp()")
    assert (await refusal_of(api, f"?ticket={late}"))[0] == 401
    revoked = (await api.make("/v1/feed/tickets", None, key=key))["ticket"]
    await market.owner.execute("update api_key set revoked_at = clock_timestamp() where kind = 'business'")
    assert (await refusal_of(api, f"?ticket={revoked}"))[1] == "key_revoked"
    assert (await refusal_of(api, f"?key={key}"))[1] == "key_in_url"


async def test_a_person_who_withdraws_while_a_lead_waits_in_a_feed_is_shown_to_nobody(
    market: Marketplace, api: Served
) -> None:
    buyer, key = await fed(market, api)
    lead_id = await market.sold()
    await market.owner.execute(
        "insert into suppression (key, reason, source) select distinct key, 'asked', 'test' from person_key"
    )
    assert (await poll(api, key))["data"] == []
    assert await market.value("select count(*) from exposure") == 0
    await come_due(market)
    assert await market.state(lead_id) == "unsold"
    assert await market.wallet(buyer) == (FULL, 0)


@pytest.mark.parametrize(
    "change",
    [
        "insert into suppression (key, reason, source) select distinct key, 'asked', 'test' from person_key",
        "update assignment set hold_until = clock_timestamp()",
        "update endpoint set state = 'disabled'",
    ],
    ids=["person withdraws", "hold ends", "feed switched off"],
)
async def test_what_changes_just_before_the_exposure_keeps_the_event_from_leaving(
    market: Marketplace, settings: Settings, change: str
) -> None:
    buyer = await market.buyer(None)
    journal = await Journal.open(settings.journal_dir)
    feeder = await open_pool(settings.database_url or "", "marketplace_feeder", size=2)
    try:
        held_up = HeldUp(feeder, FEED["expose"])
        feed = Feed(market.api, held_up.pool, market.sealer, journal)
        reader = FeedReader(business_id=buyer.business_id, mode="live", name="x")
        await market.sold()
        [entry] = await feed.entries(reader, FeedPosition(), 10)
        showing = asyncio.create_task(feed.show(reader, entry))
        await held_up.arrived.wait()
        await market.owner.execute(change)
        held_up.let_go.set()
        assert await showing is None
        assert await market.value("select count(*) from exposure") == 0
    finally:
        await give_back(feeder)
        await journal.close()


async def test_idle_streams_hold_no_database_connection(market: Marketplace, settings: Settings) -> None:
    async with (
        serve(settings) as api,
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE, limits=httpx.Limits(max_connections=None)) as client,
    ):
        keys = [(await fed(market, api))[1] for _ in range(20)]
        url = f"http://127.0.0.1:{api.port}/v1/feed"
        streams = [
            await client.send(client.build_request("GET", url, headers={"authorization": f"Bearer {key}"}), stream=True)
            for key in keys
            for _ in range(MOST_OF_KEY)
        ]
        begun = [stream.aiter_raw() for stream in streams]
        for stream in begun:
            await anext(stream)
        in_use = await market.value(
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and application_name = 'marketplace_feeder'"
        )
        assert len(streams) == 100
        assert in_use == 0
        assert (await api.call("GET", "/readyz")).status_code == 200
        for reply in streams:
            await reply.aclose()


async def test_a_reader_who_takes_in_nothing_is_dropped_and_reads_on_later(
    market: Marketplace, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "STALL_SECONDS", 0.5)
    _, key = await fed(market, api)
    leads = 12
    for number in range(1, leads + 1):
        await market.sold(number)
    await market.owner.execute(  # more than all buffers between us hold
        "set session_replication_role = replica; update inquiry set facts = facts || jsonb_build_object('touches', "
        "jsonb_build_array(jsonb_build_object('kind', 'x', 'at', now(), 'detail', repeat('x', 1000000)))); "
        "set session_replication_role = origin"
    )
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", api.port))
        await loop.sock_sendall(
            slow, f"GET /v1/feed HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n".encode()
        )
        await hung_up(slow)
        exposures = await market.value("select count(*) from exposure")
        taken = 0
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while chunk := await loop.sock_recv(slow, 65_536):
                    taken += len(chunk)
        assert taken < leads * 1_000_000
    events = (await poll(api, key))["data"]
    assert [event["sequence"] for event in events] == list(range(1, leads + 1))
    assert 0 < exposures < leads  # nothing is exposed that has no room to leave


async def test_an_erased_lead_leaves_the_feed_and_its_business_is_told_there(market: Marketplace, api: Served) -> None:
    _, key = await fed(market, api)
    lead_id = await market.sold(1)
    held_id = await market.sold(2)
    await poll(api, key, "?limit=1")
    for erased_id in (lead_id, held_id):
        await erase_lead(market.api, OPERATOR, erased_id, "asked", also_suppress=True)
    await come_due(market)
    assert await market.state(held_id) != "held"
    [event] = (await poll(api, key, "?after=0"))["data"]
    assert event["type"] == event["event"]["type"] == "lead.erased"
    assert event["event"]["data"]["lead_id"] == ids.encode("lead", lead_id)
    assert set(event["event"]["data"]) == {"lead_id", "assignment_id", "mode", "requested_at", "deadline_at"}
    assert await market.value("select result from notice where state = 'due'") == "in_feed"
    through = await api.call("POST", "/v1/feed/acknowledgements", {"through": event["sequence"]}, key=key)
    assert through.json()["acknowledged"] == 2
    assert await market.value("select state from notice") == "acknowledged"
    assert await market.value("select state from lead where id = $1", lead_id) == "delivered"


async def test_each_notice_has_a_place_of_its_own_and_an_update_brings_the_changed_contact(
    market: Marketplace, api: Served
) -> None:
    _, key = await fed(market, api)
    lead_id = await market.sold(1)
    await poll(api, key, "?limit=1")
    change = FactChange(name="budget", before=None, after=Budget(minor=100, currency="USD"))
    details: tuple[tuple[NoticeKind, dict[str, Any]], ...] = (
        (NoticeKind.revoked, {"channels": ["text"]}),
        (NoticeKind.updated, msgspec.to_builtins(LeadUpdate(revision=1, changes=(change,)))),
        (NoticeKind.updated, msgspec.to_builtins(LeadUpdate(revision=2, contact_changed=("phone",)))),
    )
    for kind, detail in details:
        async with market.api.acquire() as connection:
            await insert_notice(connection, lead_id, kind, clock.now(), detail)
        await come_due(market)
    revoked, updated, with_contact = (await poll(api, key, "?after=1"))["data"]
    assert [event["type"] for event in (revoked, updated, with_contact)] == [
        "lead.revoked",
        "lead.updated",
        "lead.updated",
    ]
    assert revoked["event"]["data"]["channels"] == ["text"]
    assert "contact" not in updated["event"]["data"]
    assert updated["event"]["data"]["changes"] == [
        {"name": "budget", "before": None, "after": {"minor": 100, "currency": "USD", "maximum_minor": None}}
    ]
    assert with_contact["event"]["data"]["contact"]["phone"] == "+13125550101"
    through = {"through": updated["sequence"]}
    assert (await api.call("POST", "/v1/feed/acknowledgements", through, key=key)).json()["acknowledged"] == 3
    assert await market.value("select array_agg(state order by made_at) from notice") == [
        "acknowledged",
        "acknowledged",
        "due",
    ]
    await erase_lead(market.api, OPERATOR, lead_id, "asked", also_suppress=False)
    assert await market.value("select count(*) from notice where detail <> '{}' and kind = 'updated'") == 0
    events = (await poll(api, key, "?after=1"))["data"]
    assert not any(event["event"]["data"].get("changes") for event in events)
    assert await market.value("select state from notice order by made_at offset 2 limit 1") == "withdrawn"


async def test_a_feed_that_nobody_reads_is_left_alone_until_somebody_does(market: Marketplace, api: Served) -> None:
    buyer, key = await fed(market, api)
    for number in range(1, 6):
        await market.sold(number)
    await market.owner.execute("update assignment set hold_until = clock_timestamp() - interval '1 second'")
    await come_due(market)
    assert await market.value("select breaker_open_until > now() from endpoint")
    unsold = await market.sold(6)
    assert await market.state(unsold) == "unsold"
    await poll(api, key)
    assert await market.value("select breaker_open_until is null from endpoint")
    held = await market.sold(7)
    assert await market.state(held) == "held"
    assert await market.wallet(buyer) == (FULL - PRICE_MINOR, PRICE_MINOR)


async def test_a_restored_database_shows_nothing_from_a_feed(market: Marketplace, settings: Settings) -> None:
    async with serve(settings) as api:
        _, key = await fed(market, api)
        await market.sold(1)
        await poll(api, key)
    await market.owner.execute(  # as it was in the backup, before anybody had read
        "set session_replication_role = replica; delete from exposure; update lead set state = 'held'; "
        "update assignment set state = 'held', exposed_at = null, evidence_until = null; "
        "set session_replication_role = origin"
    )
    async with serve(settings) as api:
        refused = await api.call("GET", "/v1/feed/events", key=key)
        assert (refused.status_code, refused.json()["code"]) == (503, "temporarily_unavailable")
        assert await market.value("select count(*) from exposure") == 0


@pytest.mark.parametrize("by", ["poll", "stream", "ticket"])
async def test_a_lead_read_with_a_key_that_an_operator_made_is_a_reveal(
    market: Marketplace, api: Served, by: str
) -> None:
    buyer, key = await fed(market, api)
    await market.owner.execute(
        "insert into opened_access (subject, kind, owner_id, way, opened_by, reason, opened_at) "
        "values ($1, 'business', $2, 'key', 'mem_x', 'helps', now())",
        key_id(key),
        buyer.business_id,
    )
    receipt = await market.submit()
    await market.walker.walk(receipt.id)
    if by == "poll":
        assert (await poll(api, key))["data"]
    elif by == "stream":
        async with reading(api, key) as stream:
            await stream.next()
    else:
        ticket = (await api.call("POST", "/v1/feed/tickets", key=key)).json()["ticket"]
        reply = await api.call("GET", f"/v1/feed?ticket={ticket}&lasts=1", key="")
        assert "Robin" in reply.text
    row = await market.row("select actor, object, detail ->> 'reason' as reason from audit where action like '%reveal'")
    assert row == {"actor": "mem_x", "object": ids.encode("lead", receipt.id), "reason": "helps"}


async def test_a_feed_is_made_without_a_url_and_is_active_at_once(api: Served) -> None:
    business, key = await api.business()
    made = await api.make("/v1/endpoints", {"kind": "feed"}, key=key)
    assert (made["kind"], made["state"], made["url"], "secret" in made) == ("feed", "active", None, False)
    both = {"kind": "feed", "url": "https://hooks.example.com/"}
    for wrong, code in ((both, "value_not_allowed"), ({}, "field_missing")):
        refused = await api.call("POST", "/v1/endpoints", wrong, key=key)
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, code)
    for action in ("verify", "rotate-secret"):
        assert (await api.call("POST", f"/v1/endpoints/{made['id']}/{action}", key=key)).status_code == 409
    switched = await api.call("PATCH", f"/v1/endpoints/{made['id']}", {"state": "disabled"}, key=key)
    assert switched.json()["state"] == "disabled"
    assert ("endpoint.create", made["id"]) in await api.audited()
    assert business


async def test_an_inbox_is_made_without_a_url_and_says_how_long_a_lead_is_held(api: Served) -> None:
    _, key = await api.business()
    made = await api.make("/v1/endpoints", {"kind": "inbox", "hold_seconds": 600}, key=key)
    assert (made["kind"], made["state"], made["url"], made["hold_seconds"]) == ("inbox", "active", None, 600)
    too_long = {"kind": "inbox", "hold_seconds": 901}
    of_no_use = {"kind": "feed", "hold_seconds": 600}
    for wrong, code in ((too_long, "out_of_range"), (of_no_use, "value_not_allowed")):
        refused = await api.call("POST", "/v1/endpoints", wrong, key=key)
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, code)


@pytest.mark.parametrize("query", ["?after=x", "?after=-1", "?after=7", "?lasts=9999", "?after=99999999999999999999"])
async def test_a_place_that_cannot_be_is_refused(market: Marketplace, api: Served, query: str) -> None:
    _, key = await fed(market, api)
    refused = await api.call("GET", f"/v1/feed{query}", key=key)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "out_of_range")


async def test_a_silent_stream_says_that_it_is_there(
    market: Marketplace, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_http, "PING_SECONDS", 0.1)
    _, key = await fed(market, api)
    async with reading(api, key, "?lasts=2") as stream:
        assert await stream.ends()
        assert stream.lines.count(": still here") > 3


async def test_an_acknowledgement_is_evidence_for_a_lead_that_was_pushed_too(market: Marketplace, api: Served) -> None:
    async with Receiver(status(503)) as receiver:
        buyer = await market.buyer(receiver.url)
        key = await api.key(CallerKind.business, buyer.business_id)
        lead_id = await market.sold()
        assert await market.state(lead_id) == "exposed"
        reply = await api.call("POST", f"/v1/leads/{ids.encode('lead', lead_id)}/acknowledge", key=key)
        assert (reply.json()["receipt"], reply.json()["state"]) == ("acknowledged", "delivered")
        assert await market.wallet(buyer) == (FULL - PRICE_MINOR, 0)
