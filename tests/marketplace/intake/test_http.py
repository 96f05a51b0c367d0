"""Intake over HTTP: a provider's submissions, their answers, and the status of its inquiries."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from marketplace.runtime import clock, ids
from marketplace.runtime.queue import LoadReporter
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, create_key
from marketplace.security.sealing import Sealer
from routing.inquiry import NeedField
from tests.builders.inquiries import ROOFING_NEEDS, iso, roofing_body
from tests.builders.marketplaces import PAYOUT_MINOR, PRICE_MINOR, Marketplace, marketplace, roofing
from tests.builders.service import Served, serve, waits_for_locks, walking
from tests.receivers import Receiver, ok
from tests.waiting import tries

PATH = "/v1/inquiries"
SILENCE_SECONDS = 2.0
"Longer than any timeout after which an answer might be sent without the commit."
LATER = {
    "budget": {"minor": 1_200_000, "currency": "USD"},
    "authority": "decision_maker",
    "need": {"fields": {"roof_type": "tile"}},
    "timing": {"within_days": 80},
}
"BANT of a lead to nurture: its time is too far away."
POOR = LATER | {"budget": {"minor": 100, "currency": "USD"}}
"BANT of a lead to reject: its budget is too small."


class ProviderClient:
    """The API for one provider, with the marketplace behind it."""

    def __init__(self, api: Served, market: Marketplace, key: str) -> None:
        self.api, self.market, self.key = api, market, key

    async def post(self, number: int = 1, *, key: str | None = None, path: str = PATH, **sections: Any) -> Any:
        headers = sections.pop("headers", {})
        return await self.api.call(
            "POST", path, roofing_body(number, clock.now(), **sections), key=key or self.key, headers=headers
        )

    async def get(self, path: str, *, key: str | None = None) -> Any:
        return await self.api.call("GET", path, key=key or self.key)

    async def make_key(self, mode: str) -> str:
        settings = self.market.settings
        async with self.market.owner.acquire() as connection:
            sealer, owner = Sealer(settings.master_key, settings.pepper), self.market.provider.owner
            return await create_key(
                connection, sealer, kind=CallerKind.provider, owner_id=owner, mode=mode, name="a test's"
            )


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[ProviderClient]:
    async with serve(settings) as api, marketplace(settings) as market:
        provider = ProviderClient(api, market, "")
        provider.key = await provider.make_key("live")
        yield provider


async def test_an_accepted_inquiry_is_on_disk_and_gets_a_short_answer_with_its_links(client: ProviderClient) -> None:
    answer = await client.post()
    assert answer.status_code == 202
    body = answer.json()
    assert body.keys() == {"id", "state", "mode", "received_at", "links"}
    assert (body["state"], body["mode"]) == ("received", "live")
    assert body["links"] == {"self": f"{PATH}/{body['id']}", "trace": f"/v1/leads/{body['id']}/trace"}
    assert abs(datetime.fromisoformat(body["received_at"]) - clock.now()) < timedelta(minutes=1)
    assert await client.market.state(lead_of(body)) == "received"
    headers = answer.headers
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch("req_[0-9a-z]{26}", headers["request-id"])


async def test_no_answer_comes_before_the_commit(client: ProviderClient) -> None:
    """The insert waits for a lock. Any answer before it ends would be a promise about nothing."""
    async with client.market.owner.acquire() as blocker, blocker.transaction():
        await blocker.execute("lock table inquiry in share mode")
        posting = asyncio.create_task(client.post())
        assert await waits_for_locks(client.market)
        answered, _ = await asyncio.wait({posting}, timeout=SILENCE_SECONDS)
        assert not answered
        assert await blocker.fetchval("select count(*) from inquiry") == 0
    answer = await posting
    assert answer.status_code == 202
    assert await client.market.state(lead_of(answer.json())) == "received"


async def test_the_callers_request_id_comes_back_if_it_is_a_plain_word(client: ProviderClient) -> None:
    own = await client.post(headers={"x-request-id": "order-7:a"})
    odd = await client.post(headers={"x-request-id": "<script>"})
    assert own.headers["request-id"] == "order-7:a"
    assert odd.headers["request-id"].startswith("req_")


async def test_the_same_submission_gets_the_same_answer_marked_as_a_replay(client: ProviderClient) -> None:
    raw = msgspec.json.encode(roofing_body(1, clock.now()))
    first, again = [await client.api.call("POST", PATH, raw, key=client.key) for _ in range(2)]
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.content == again.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_a_replay_of_a_delivered_inquiry_still_gets_the_first_answer(client: ProviderClient) -> None:
    raw = msgspec.json.encode(roofing_body(1, clock.now()))
    async with Receiver(ok) as receiver:
        await client.market.buyer(receiver.url)
        first = await client.api.call("POST", PATH, raw, key=client.key)
        await client.market.walker.walk(lead_of(first.json()))
        again = await client.api.call("POST", PATH, raw, key=client.key)
    assert await client.market.state(lead_of(first.json())) == "delivered"
    assert (again.status_code, again.content) == (202, first.content)


async def test_a_replay_gets_the_first_answer_though_new_rules_would_refuse_it(client: ProviderClient) -> None:
    raw = msgspec.json.encode(roofing_body(1, clock.now()))
    first = await client.api.call("POST", PATH, raw, key=client.key)
    needs = ROOFING_NEEDS | {"stories": NeedField(kind="integer", required=True, minimum=1, maximum=9, label="Stories")}
    rules = {"definition": roofing(needs=needs), "version": 1}
    changed = await client.api.call("PUT", "/v1/verticals/roofing", rules)
    assert changed.status_code == 200, changed.text
    for _ in tries("the new rules to be in force"):
        if (await client.post(2, path=f"{PATH}:validate")).status_code == 422:
            break
        await asyncio.sleep(0.1)
    again = await client.api.call("POST", PATH, raw, key=client.key)
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["idempotency-replayed"] == "true"


async def test_a_provider_that_prefers_to_wait_is_answered_with_the_outcome(client: ProviderClient) -> None:
    async with Receiver(ok) as receiver, walking(client.market):
        await client.market.buyer(receiver.url)
        answer = await client.post(headers={"prefer": "respond-async, wait=10"})
    body = answer.json()
    assert (answer.status_code, body["state"]) == (200, "delivered")
    assert answer.headers["preference-applied"] == "wait=10"
    assert body["payout"] == {"minor": PAYOUT_MINOR, "currency": "USD"}
    steps = ("submitted_at", "received_at", "qualified_at", "awarded_at", "exposed_at", "acknowledged_at")
    assert body["clock"]["due_at"] is None
    reached = [body["clock"][step] for step in steps]
    assert reached == sorted(reached)


async def test_a_wait_ends_when_its_time_is_over(client: ProviderClient) -> None:
    began = clock.monotonic()
    answer = await client.post(headers={"prefer": "wait=1"})
    assert 1 <= clock.monotonic() - began < 30
    assert (answer.status_code, answer.json()["state"]) == (200, "received")


@pytest.mark.parametrize("preference", ["wait=x", "wait", "wait=-1", "return=minimal", "wait=\u0661"])
async def test_a_preference_that_cannot_be_read_is_none(client: ProviderClient, preference: str) -> None:
    headers = [
        (b"authorization", f"Bearer {client.key}".encode()),
        (b"content-type", b"application/json"),
        (b"prefer", preference.encode()),
    ]
    content = msgspec.json.encode(roofing_body(1, clock.now()))
    answer = await client.api._client.post(PATH, content=content, headers=headers)
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


@pytest.mark.parametrize(
    ("bant", "would"), [({}, "prospect"), ({"bant": LATER}, "nurturing"), ({"bant": POOR}, "rejected")]
)
async def test_a_dry_run_says_what_would_be_and_writes_nothing(client: ProviderClient, bant: Any, would: str) -> None:
    answer = await client.post(path=f"{PATH}:validate", **bant)
    assert answer.status_code == 200
    assert (answer.json()["valid"], answer.json()["would"]) == (True, would)
    assert answer.json()["outcome"]["verdict"]["findings"]
    for table in ("inquiry", "lead", "contact", "person_window"):
        assert await client.market.value(f"select count(*) from {table}") == 0


async def test_all_faults_of_an_inquiry_are_in_one_answer(client: ProviderClient) -> None:
    contact = {"full_name": " ", "phone": "1", "email": "a@b", "postal_code": "60614", "country": "US"}
    answer = await client.post(contact=contact, bant={"need": {"fields": {"roof_type": "straw"}}}, consent=None)
    codes = {fault["pointer"]: fault["code"] for fault in answer.json()["errors"]}
    assert codes == {
        "/contact/full_name": "name_empty",
        "/contact/phone": "phone_invalid",
        "/contact/email": "email_invalid",
        "/bant/need/fields/roof_type": "value_not_allowed",
        "/consent": "consent_missing",
    }
    assert all(fault["detail"].endswith((".", "tile, shingle, metal.")) for fault in answer.json()["errors"])


async def test_an_inquiry_shows_its_state_and_reasons_but_never_the_business(client: ProviderClient) -> None:
    async with Receiver(ok) as receiver:
        buyer = await client.market.buyer(receiver.url)
        submissions: tuple[tuple[int, dict[str, Any]], ...] = ((1, {}), (2, {"bant": POOR}))
        answers = [(await client.post(number, **sections)).json() for number, sections in submissions]
        for answer in answers:
            await client.market.walker.walk(lead_of(answer))
    delivered, rejected = [(await client.get(f"{PATH}/{answer['id']}")).json() for answer in answers]
    assert (delivered["state"], delivered["payout"]["minor"]) == ("delivered", PAYOUT_MINOR)
    assert (rejected["state"], rejected["reasons"], rejected["payout"]) == ("rejected", ["budget_below_minimum"], None)
    assert (delivered["provider_reference"], delivered["vertical"]) == ("ref-1", "roofing")
    text = str(delivered)
    for kind, secret in (("biz", buyer.business_id), ("sub", buyer.subscription_id), ("whe", buyer.endpoint_id)):
        assert ids.encode(kind, secret) not in text
        assert str(secret) not in text
    assert "Robin" not in text
    assert not re.search(rf"(?<![\w.:-]){PRICE_MINOR}(?![\w.:-])", text)  # what the business paid


async def test_a_list_has_every_inquiry_once_newest_first_whatever_the_page(client: ProviderClient) -> None:
    inquiries = [(await client.post(number)).json()["id"] for number in range(1, 8)]
    listed: list[str] = []
    path = f"{PATH}?limit=3"
    sizes = []
    while path:
        page = (await client.get(path)).json()
        listed += [row["id"] for row in page["data"]]
        sizes.append(len(page["data"]))
        assert page["has_more"] == (page["next_cursor"] is not None)
        path = f"{PATH}?limit=3&cursor={page['next_cursor']}" if page["has_more"] else ""
    assert sizes == [3, 3, 1]
    assert listed == inquiries[::-1]


async def test_a_page_that_is_exactly_full_has_nothing_after_it(client: ProviderClient) -> None:
    for number in (1, 2):
        await client.post(number)
    assert (await client.get(f"{PATH}?limit=2")).json()["next_cursor"] is None


async def test_a_later_touch_qualifies_a_nurtured_lead_again(client: ProviderClient) -> None:
    async with walking(client.market):
        inquiry = (await client.post(bant=LATER, headers={"prefer": "wait=10"})).json()
        assert inquiry["state"] == "nurturing"
        assert inquiry["reasons"]
        lead = lead_of(inquiry)
        decisions = "select count(*) from decision where lead_id = $1"
        assert await client.market.value(decisions, lead) == 1
        touch = {"kind": "reply", "at": iso(clock.now()), "detail": "/quote?email=robin@example.com"}
        path = f"{PATH}/{inquiry['id']}/touches"
        assert (await client.api.call("POST", path, {"touches": [touch]}, key=client.key)).status_code == 201
        for _ in range(200):
            if await client.market.value(decisions, lead) == 2:
                break
            await client.market.value("select pg_sleep(0.02)")
        assert await client.market.value(decisions, lead) == 2
    assert await client.market.value("select detail from touch where kind = 'reply' and lead_id = $1", lead) == "/quote"


@pytest.mark.parametrize(
    ("touches", "pointer", "code"),
    [
        ([], "/touches", "field_missing"),
        ([{"kind": "x", "at": "2036-01-01T00:00:00Z"}], "/touches/0/at", "touch_in_future"),
        ([{"kind": "x", "at": "1999-01-01T00:00:00Z"}], "/touches/0/at", "out_of_range"),
        ([{"kind": "", "at": "2026-01-01T00:00:00Z"}], "/touches/0/kind", "value_not_allowed"),
        ([{"kind": "x", "at": "2026-01-01T00:00:00Z"}] * 51, "/touches", "too_long"),
    ],
)
async def test_a_bad_touch_is_named(client: ProviderClient, touches: list[Any], pointer: str, code: str) -> None:
    inquiry = (await client.post()).json()["id"]
    answer = await client.api.call("POST", f"{PATH}/{inquiry}/touches", {"touches": touches}, key=client.key)
    assert (answer.status_code, [(f["pointer"], f["code"]) for f in answer.json()["errors"]]) == (
        422,
        [(pointer, code)],
    )


async def test_a_duplicate_is_an_outcome_with_a_row_of_its_own_and_no_contact(client: ProviderClient) -> None:
    first = await client.post(1)
    second = await client.post(1, provider_reference="again")
    assert (first.status_code, second.status_code) == (202, 200)
    assert (second.json()["state"], second.json()["id"] != first.json()["id"]) == ("duplicate", True)
    status = (await client.get(f"{PATH}/{second.json()['id']}")).json()
    assert (status["state"], status["clock"]["due_at"]) == ("duplicate", None)
    assert await client.market.value("select count(*) from contact") == 1
    again = await client.post(1, provider_reference="again", headers={"prefer": "wait=5"})
    assert again.status_code in (200, 409)


@pytest.mark.parametrize("mark", [{"phone": "312-555-0101"}, {"email": "ROBIN.1@example.com"}])
async def test_a_suppressed_person_is_an_outcome_by_phone_or_by_address(
    client: ProviderClient, mark: dict[str, str]
) -> None:
    assert (
        await client.api.call("POST", "/v1/suppressions", mark | {"reason": "asked"}, key=client.key)
    ).status_code == 201
    answer = await client.post(1)
    assert (answer.status_code, answer.json()["state"]) == (200, "suppressed")
    assert await client.market.value("select count(*) from contact") == 0


async def test_a_suppressed_person_stays_suppressed_in_a_rehearsal(client: ProviderClient) -> None:
    await client.api.call("POST", "/v1/suppressions", {"phone": "+13125550101", "reason": "asked"}, key=client.key)
    rehearsed = await client.post(1, key=await client.make_key("test"))
    assert rehearsed.json()["state"] == "suppressed"


async def test_test_mode_is_a_marketplace_apart(client: ProviderClient) -> None:
    test_key = await client.make_key("test")
    live, test = await client.post(1), await client.post(1, key=test_key)
    assert (live.status_code, live.json()["mode"]) == (202, "live")
    assert (test.status_code, test.json()["mode"]) == (202, "test")  # the same person and the same reference
    assert (await client.get(f"{PATH}/{live.json()['id']}", key=test_key)).status_code == 404
    assert (await client.get(f"{PATH}/{test.json()['id']}")).status_code == 404
    assert [row["id"] for row in (await client.get(PATH)).json()["data"]] == [live.json()["id"]]
    assert [row["id"] for row in (await client.get(PATH, key=test_key)).json()["data"]] == [test.json()["id"]]


async def test_a_suspended_provider_submits_nothing_but_still_sees_its_own(client: ProviderClient) -> None:
    inquiry = (await client.post(1)).json()["id"]
    await client.market.owner.execute("update provider set state = 'suspended'")
    refused = await client.post(2)
    assert (refused.status_code, refused.json()["code"]) == (403, "owner_suspended")
    assert (await client.get(f"{PATH}/{inquiry}")).status_code == 200


def lead_of(answer: dict[str, Any]) -> Any:
    """The lead's id inside an answer."""
    return ids.decode("lead", answer["id"])


async def test_in_an_overload_what_is_too_much_is_refused_before_anything_is_stored(client: ProviderClient) -> None:
    """Workers report that leads wait long. What is taken in then is on disk, and the rest may be sent again."""
    valkey_url = client.market.settings.valkey_url
    assert valkey_url
    reporter, stopping = LoadReporter(valkey_url, "a worker"), asyncio.Event()
    reporting = asyncio.create_task(reporter.keep_reporting(stopping))
    answers = []
    for number in tries("the first refusal"):
        reporter.note(0.9 if number > 100 else 0.01)  # the first report has short waits alone, on a fast machine too
        answers.append(await client.post(number))
        if answers[-1].status_code != 202:
            break
    refused = answers[-1]
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert "same key" in refused.json()["detail"]
    assert await client.market.owner.fetchval("select count(*) from inquiry") == len(answers) - 1
    unknown = await client.post(number, key="lk_live_" + "0" * 16 + "_" + "0" * 52 + "_0000000")
    assert unknown.status_code == 401
    stopping.set()
    await reporting
    await reporter.close()
    for _ in tries("the end of the overload"):
        if (await client.post(number)).status_code == 202:
            break
