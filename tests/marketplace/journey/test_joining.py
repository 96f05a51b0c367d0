"""Repeated inquiries of one person: what the earlier lead and its business get of them, and what providers see."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from marketplace.distribution.http import load_trace
from marketplace.erasure.flow import erase_lead
from marketplace.intake import store as intake_store
from marketplace.intake.flow import Intake, SubmissionReceipt
from marketplace.intake.postal import PostalBook
from marketplace.intake.reading import decode_inquiry
from marketplace.journey import store as journey_store
from marketplace.journey.joining import join_lead
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock, ids, queue
from marketplace.runtime.queue import Notifier
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from marketplace.worker import note_job
from routing.inquiry import Facts
from routing.joining import MOST_JOINED, RepeatInquiries
from routing.journey import TouchEntry, read_facts
from routing.person import SamePerson
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import Marketplace, marketplace, roofing
from tests.builders.service import serve
from tests.receivers import Receiver, status
from tests.waiting import PATIENCE, within

JOINING = roofing(patience_seconds=3_600, repeat_inquiries=RepeatInquiries.joined)
VARYING = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z?|(lead|req)_\w+|form-\d")
"Times, ids and references in an answer."
POOR_MINOR, RICH_MINOR = 100, 2_000_000
"Budgets that the vertical of these tests rejects and accepts."


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings, JOINING) as ready:
        yield ready


def with_budget(minor: int) -> dict[str, Any]:
    return {"bant": roofing_body()["bant"] | {"budget": {"minor": minor, "currency": "USD"}}}


async def ask_again(
    market: Marketplace, number: int = 1, *, by: Principal | None = None, **sections: Any
) -> SubmissionReceipt:
    """The same person fills in the form of another provider."""
    sections = {"provider_reference": f"again-{clock.new_id()}"} | sections
    return await market.submit(number, by=by or await market.another_provider(), **sections)


async def facts_of(market: Marketplace, lead_id: UUID) -> Facts:
    statement = "select facts_at(i.id, i.facts, l.revision) from lead l join inquiry i using (id) where id = $1"
    return read_facts((await market.value(statement, lead_id)).encode())


async def joined_lead(market: Marketplace, inquiry_id: UUID) -> UUID | None:
    lead_id: UUID | None = await market.value("select joined_lead_id from inquiry where id = $1", inquiry_id)
    return lead_id


async def test_a_waiting_lead_is_judged_again_with_the_answers_of_the_second_inquiry(market: Marketplace) -> None:
    first = await market.submit(**with_budget(RICH_MINOR))
    second = await ask_again(market, **with_budget(POOR_MINOR))
    assert (second.state, await joined_lead(market, second.id)) == ("duplicate", first.id)
    facts = await facts_of(market, first.id)
    assert facts.budget is not None
    assert facts.budget.minor == POOR_MINOR
    await market.walker.walk(first.id)
    assert await market.state(first.id) == "rejected"
    assert await market.value("select revision from decision where lead_id = $1", first.id) == 1


async def test_a_worker_is_notified_of_a_waiting_lead_that_an_inquiry_joined(
    settings: Settings, market: Marketplace
) -> None:
    """No sweeper runs here, which would find the lead a second later."""
    assert settings.valkey_url
    notifier, stopping = Notifier(settings.valkey_url), asyncio.Event()
    market.intake = Intake(market.api, Catalog(market.api), PostalBook(), market.sealer, notifier, join=join_lead)
    walks: asyncio.Queue[UUID] = asyncio.Queue()
    worker = asyncio.create_task(
        queue.answer(settings.valkey_url, {"walk": walks.put}, slots=1, stopping=stopping, on_job=note_job)
    )
    try:
        first = await market.submit()
        assert await within(PATIENCE, walks.get(), "the first inquiry to be notified") == first.id
        second = await ask_again(market)
        assert await joined_lead(market, second.id) == first.id
        assert await within(PATIENCE, walks.get(), "the lead to be notified of the join") == first.id
    finally:
        stopping.set()
        await within(PATIENCE, worker, "the queue to end")
        await notifier.close()


async def test_an_answer_that_the_second_inquiry_leaves_out_stays(market: Marketplace) -> None:
    first = await market.submit(**with_budget(RICH_MINOR))
    bant = {"need": roofing_body()["bant"]["need"]}
    await ask_again(market, bant=bant)
    before = await facts_of(market, first.id)
    assert before.budget is not None
    assert before.budget.minor == RICH_MINOR
    assert before.timing is not None


async def test_nothing_but_answers_joins(market: Marketplace) -> None:
    first = await market.submit()
    contact = roofing_body()["contact"] | {"phone": "+1 312 555 0199", "full_name": "Robin Other", "street": "2 Road"}
    visit = {"kind": "page_view", "at": clock.now().isoformat(), "detail": "/other"}
    second = await ask_again(market, contact=contact, touches=[visit], attribution={"source": "another"})
    assert await joined_lead(market, second.id) == first.id
    facts = await facts_of(market, first.id)
    assert [touch.kind for touch in facts.touches if touch.kind != "page_view"] == ["inquiry"]
    assert all(touch.detail != "/other" for touch in facts.touches)
    assert facts.source != "another"
    assert await market.value("select count(*) from contact") == 1
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        await market.walker.walk(first.id)
        sent = msgspec.json.decode(receiver.visits[-1].body)["data"]["contact"]
    assert sent["phone"] != "+13125550199"
    assert sent["full_name"] == roofing_body()["contact"]["full_name"]


async def test_a_delivered_lead_keeps_its_business_which_gets_a_notice_of_the_new_answers(market: Marketplace) -> None:
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        first = await market.sold()
        await ask_again(market, **with_budget(POOR_MINOR))
        assert await market.state(first) == "delivered"
        notice = await market.row("select id, business_id, kind, detail from notice where lead_id = $1", first)
        await market.notices.send(notice["id"])
        told = msgspec.json.decode(receiver.visits[-1].body)
    assert notice["business_id"] == await market.value("select business_id from exposure where lead_id = $1", first)
    assert await market.value("select count(*) from assignment") == 1
    assert told["type"] == "lead.updated"
    assert [change["name"] for change in told["data"]["changes"]] == ["budget"]
    assert [touch["kind"] for touch in told["data"]["touches"]] == ["inquiry"]


async def test_a_held_lead_keeps_its_business_and_is_sent_with_the_joined_answers(market: Marketplace) -> None:
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        first = (await market.submit()).id
        assignment_id = await market.distribution.distribute(first)
        await ask_again(market, **with_budget(POOR_MINOR))
        assert await market.state(first) == "held"
        assert assignment_id is not None
        await market.delivery.deliver(assignment_id)
        sent = msgspec.json.decode(receiver.visits[-1].body)
    assert await market.state(first) == "delivered"
    assert str(POOR_MINOR) in msgspec.json.encode(sent["data"]["bant"]).decode()
    assert await market.value("select count(*) from notice") == 0


async def test_a_lead_that_has_ended_is_not_joined(settings: Settings) -> None:
    async with marketplace(settings, msgspec.structs.replace(JOINING, patience_seconds=0)) as market:
        rejected, unsold = await market.sold(1, **with_budget(POOR_MINOR)), await market.sold(2)
        assert [await market.state(each) for each in (rejected, unsold)] == ["rejected", "unsold"]
        anew = [await ask_again(market, number) for number in (1, 2)]
        assert [receipt.state for receipt in anew] == ["received", "received"]
        assert await market.value("select count(*) from inquiry where joined_lead_id is not null") == 0


async def test_an_inquiry_with_the_phone_of_one_lead_and_the_address_of_another_joins_neither(
    market: Marketplace,
) -> None:
    await market.submit(1)
    await market.submit(2)
    mixed = roofing_body(1)["contact"] | {"email": roofing_body(2)["contact"]["email"]}
    second = await ask_again(market, contact=mixed)
    assert (second.state, await joined_lead(market, second.id)) == ("duplicate", None)


async def test_an_inquiry_joins_the_lead_of_its_own_person_among_those_who_share_a_telephone(
    settings: Settings,
) -> None:
    definition = msgspec.structs.replace(JOINING, same_person=SamePerson.both)
    another = roofing_body(1)["contact"] | {"email": "somebody.else@example.com"}
    async with marketplace(settings, definition) as market:
        first, second = await market.submit(1), await ask_again(market, contact=another)
        assert second.state == "received"
        repeated = [await ask_again(market), await ask_again(market, contact=another)]
        assert [await joined_lead(market, receipt.id) for receipt in repeated] == [first.id, second.id]


async def test_rehearsals_join_rehearsals_alone(market: Marketplace) -> None:
    live = await market.submit()
    rehearsing = await market.another_provider("test")
    rehearsal = await ask_again(market, by=rehearsing)
    assert rehearsal.state == "received"
    repeated = await ask_again(market, by=rehearsing)
    assert await joined_lead(market, repeated.id) == rehearsal.id
    assert await market.value("select revision from lead where id = $1", live.id) == 0


async def test_a_lead_of_an_erased_person_is_not_joined_and_its_business_hears_no_more(market: Marketplace) -> None:
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        first = await market.sold()
    await erase_lead(market.api, market.provider, first, "asked", also_suppress=False)
    second = await ask_again(market)
    assert await joined_lead(market, second.id) is None
    assert await market.value("select count(*) from notice where kind = 'updated'") == 0


async def test_a_suppressed_person_joins_nothing(market: Marketplace) -> None:
    first = await market.submit()
    key = market.sealer.keyed_hash("suppression", "email:robin.1@example.com")
    await market.owner.execute("insert into suppression (key, reason, source) values ($1, 'asked', 'test')", key)
    second = await ask_again(market)
    assert (second.state, await joined_lead(market, second.id)) == ("suppressed", None)
    assert await market.value("select revision from lead where id = $1", first.id) == 0


async def test_the_same_submission_twice_joins_once_and_gets_its_answer_again(market: Marketplace) -> None:
    first = await market.submit()
    by = await market.another_provider()
    raw = msgspec.json.encode(roofing_body(1, clock.now(), provider_reference="one"))
    body = decode_inquiry(raw)
    assert not isinstance(body, tuple)
    joined, again = [await market.intake.receive(by, body, raw, None) for _ in range(2)]
    assert (again.id, again.state, again.replayed) == (joined.id, joined.state, True)
    assert await market.value("select revision from lead where id = $1", first.id) == 1


async def test_inquiries_at_once_join_one_after_the_other(market: Marketplace) -> None:
    first = await market.submit()
    by = await market.another_provider()
    receipts = await asyncio.gather(*(ask_again(market, by=by) for _ in range(5)))
    assert [receipt.state for receipt in receipts] == ["duplicate"] * 5
    assert await market.value("select count(*) from inquiry where joined_lead_id = $1", first.id) == 5
    assert await market.value("select revision from lead where id = $1", first.id) == 5


async def test_a_lead_is_joined_by_so_many_and_no_more(market: Marketplace) -> None:
    first = await market.submit()
    by = await market.another_provider()
    receipts = [await ask_again(market, by=by) for _ in range(MOST_JOINED + 1)]
    assert {receipt.state for receipt in receipts} == {"duplicate"}
    assert await market.value("select revision from lead where id = $1", first.id) == MOST_JOINED


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        (roofing(), None),
        (JOINING, None),
        (msgspec.structs.replace(JOINING, provider_may_know=True), "joined"),
        (roofing(provider_may_know=True), None),
    ],
)
async def test_the_provider_of_the_second_inquiry_is_told_that_it_joined_only_where_it_may_know(
    settings: Settings, definition: Any, reason: str | None
) -> None:
    """In every other respect its answers are those of a vertical that joins nothing."""
    async with marketplace(settings, definition) as market:
        async with Receiver(status(200)) as receiver:
            await market.buyer(receiver.url)
            await market.sold()
        by = await market.another_provider()
        second = await ask_again(market, by=by)
        assert (second.state, second.replayed) == ("duplicate", False)
        async with market.api.acquire() as connection:
            shown = await intake_store.find_status(connection, second.id, by.owner, "live")
        assert shown is not None
        assert shown.reason == reason
        unset = ("qualified_at", "due_at", "awarded_at", "exposed_at", "payout_minor", "return_state")
        assert [getattr(shown, name) for name in unset] == [None] * len(unset)


async def test_a_provider_gets_the_same_answers_whether_its_inquiry_joined_or_not(settings: Settings) -> None:
    async with serve(settings) as api, marketplace(settings, JOINING) as market:
        await market.submit(1)
        await market.submit(2)
        mixed = roofing_body(1)["contact"] | {"email": roofing_body(2)["contact"]["email"]}
        by = await market.another_provider()
        key = await api.key("provider", by.owner)
        answers = []
        for contact, reference in ((roofing_body(1)["contact"], "form-1"), (mixed, "form-2")):
            body = roofing_body(1, clock.now(), contact=contact, provider_reference=reference)
            taken = await api.call("POST", "/v1/inquiries", body, key=key)
            lead = taken.json()["id"]
            touches = {"touches": [{"kind": "call", "at": clock.now().isoformat()}]}
            replies = [
                taken,
                await api.call("GET", f"/v1/inquiries/{lead}", key=key),
                await api.call("GET", f"/v1/leads/{lead}/trace", key=key),
                await api.call("PATCH", f"/v1/inquiries/{lead}", {"bant": {"timing": None}}, key=key),
                await api.call("POST", f"/v1/inquiries/{lead}/touches", touches, key=key),
            ]
            answers.append([(reply.status_code, VARYING.sub("", reply.text)) for reply in replies])
        assert await market.value("select count(*) from inquiry where joined_lead_id is not null") == 1
    assert answers[0] == answers[1]


async def test_operators_alone_see_in_the_trace_which_lead_was_joined(market: Marketplace) -> None:
    first = await market.submit()
    by = await market.another_provider()
    second = await ask_again(market, by=by)
    operator = Principal(key_id="test", kind=CallerKind.operator, owner_id=None, mode="live")
    async with market.api.acquire() as connection:
        traces = [await load_trace(connection, reader, second.id) for reader in (operator, by)]
    assert [trace.joined for trace in traces] == [ids.encode("lead", first.id), None]


async def test_the_provider_of_the_lead_does_not_see_inquiries_of_other_providers(market: Marketplace) -> None:
    first = await market.submit()
    await ask_again(market)
    own = await ask_again(market, by=market.provider)
    assert own.state == "duplicate"
    async with market.api.acquire() as connection:
        everything = await journey_store.list_entries(connection, first.id)
        entries = await journey_store.list_provider_entries(connection, first.id, market.provider.owner)
    assert (len(everything), len(entries)) == (2, 1)
    joined = await market.value("select joined_touch from inquiry where id = $1", own.id)
    touches = [entry.touch for entry in entries if isinstance(entry, TouchEntry)]
    assert [journey_store.fingerprint(touch) for touch in touches] == [joined]
