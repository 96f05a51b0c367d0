"""Requests to be deleted: what is erased, when a request is done, what its proof says, and what stays of the person."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from click.testing import CliRunner

from marketplace.deletions.flow import complete_requests, keep_completing
from marketplace.deletions.store import DeletionRefusal, DeletionState
from marketplace.notices.flow import mark_acknowledged
from marketplace.receipts import command
from marketplace.receipts.flow import DeletionProof, ReceiptFault, Signer, check
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from tests.builders.inquiries import iso, roofing_body
from tests.builders.marketplaces import Marketplace, marketplace
from tests.builders.service import Served, serve, until
from tests.receivers import Receiver, ok
from tests.waiting import PATIENCE

PATH = "/v1/deletion-requests"
UNKNOWN = "+13125550999"


class Scene:
    """A served API on a marketplace in which the test itself moves each lead."""

    def __init__(self, api: Served, market: Marketplace) -> None:
        self.api, self.market = api, market

    async def take(self, **body: Any) -> str:
        made: str = (await self.api.make(PATH, body))["id"]
        return made

    async def call(self, method: str, request: str, rest: str = "", body: Any = None, status: int = 200) -> Any:
        reply = await self.api.call(method, f"{PATH}/{request}{rest}", body)
        assert reply.status_code == status, reply.text
        return reply.json()

    async def carry_out(self, request: str, status: int = 200) -> Any:
        return await self.call("POST", request, "/carry-out", status=status)

    async def state(self, request: str) -> str:
        shown: str = (await self.call("GET", request))["request"]["state"]
        return shown

    async def value(self, sql: str, *arguments: object) -> Any:
        return await self.market.value(sql, *arguments)


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with serve(settings) as api, marketplace(settings) as market:
        yield Scene(api, market)


def phone_of(number: int) -> str:
    phone: str = roofing_body(number)["contact"]["phone"]
    return phone


def text(lead_id: UUID) -> str:
    return ids.encode("lead", lead_id)


async def test_a_request_is_done_when_the_business_that_has_the_lead_acknowledged_it(scene: Scene) -> None:
    async with Receiver(ok) as receiver:
        buyer = await scene.market.buyer(receiver.url)
        sold = await scene.market.sold(1)
        request = await scene.take(phone=phone_of(1))
        assert await scene.value("select count(*) from erasure") == 0
        detail = await scene.carry_out(request)
        assert detail["request"]["state"] == "erased"
        assert [lead["lead_id"] for lead in detail["leads"]] == [text(sold)]
        assert detail["leads"][0]["business"] == ids.encode("biz", buyer.business_id)
        assert await scene.value("select count(*) from suppression") > 0
        assert await complete_requests(scene.market.worker) == 0
        await scene.call("GET", request, "/proof", status=409)
        notice = await scene.value("select id from notice")
        async with scene.market.worker.acquire() as connection:
            await mark_acknowledged(connection, notice, "whe_x")
        assert await complete_requests(scene.market.worker) == 1
        shown = (await scene.call("GET", request))["request"]
        assert (shown["state"], shown["notices"], shown["acknowledged"], shown["overdue"]) == ("done", 1, 1, 0)
        actions = [row[0] for row in await scene.market.owner.fetch("select action from audit order by at")]
        assert [action for action in actions if action.startswith("deletion.")] == [
            "deletion.request",
            "deletion.carry_out",
            "deletion.complete",
        ]


async def test_an_overdue_notice_ends_the_request_and_the_proof_says_so(scene: Scene, tmp_path: Path) -> None:
    async with Receiver(ok) as receiver:
        await scene.market.buyer(receiver.url)
        sold = await scene.market.sold(1)
        request = await scene.take(lead_id=text(sold), also_suppress=False)
        await scene.carry_out(request)
        await scene.market.owner.execute("update notice set state = 'overdue'")
        assert await complete_requests(scene.market.worker) == 1
        reply = await scene.api.call("GET", f"{PATH}/{request}/proof")
        key = Signer(scene.market.settings.master_key).public.public_key
        proof = check(reply.content, base64.b64decode(key))
        assert isinstance(proof, DeletionProof)
        assert (proof.deletion_request, proof.suppressed) == (request, False)
        [lead] = proof.leads
        assert (lead.lead, lead.notice, lead.acknowledged_at) == (text(sold), "overdue", None)
        assert lead.business is not None
        assert lead.business.name == "Example Business"
        assert check(reply.content.replace(b"overdue", b"acknowl"), base64.b64decode(key)) is ReceiptFault.changed
        file = tmp_path / "proof.json"
        file.write_bytes(reply.content)
        result = CliRunner().invoke(command.receipt, ["verify", str(file), "--key", key])
        assert result.exit_code == 0, result.output
        assert "The proof holds." in result.output
        assert "not acknowledged in time" in result.output
        assert await scene.value("select count(*) from suppression") == 0


async def test_leads_that_wait_end_and_a_request_without_a_holder_is_done_at_once(scene: Scene) -> None:
    waiting = [(await scene.market.submit(number)).id for number in (1, 2)]
    request = await scene.take(phone=phone_of(1), email=roofing_body(2)["contact"]["email"])
    detail = await scene.carry_out(request)
    assert detail["request"]["state"] == "done"
    assert [lead["lead_id"] for lead in detail["leads"]] == sorted(map(text, waiting))
    assert await scene.value("select count(*) from person_key") == 0
    assert await scene.carry_out(request) == detail


async def test_a_request_of_an_unknown_person_is_done_without_leads_and_keeps_no_contact(scene: Scene) -> None:
    request = await scene.take(phone=UNKNOWN)
    row = await scene.market.row("select keys, contact from deletion_request")
    assert row["contact"] is not None
    assert UNKNOWN[1:].encode() not in row["contact"] + b"".join(row["keys"])
    detail = await scene.carry_out(request)
    assert (detail["request"]["state"], detail["leads"]) == ("done", [])
    assert await scene.value("select contact from deletion_request") is None
    assert (await scene.call("GET", request, "/proof"))["suppressed"] is True
    assert await scene.value("select count(*) from suppression") > 0


async def test_a_test_key_deletes_test_leads_alone_and_suppresses_nobody(scene: Scene) -> None:
    live = (await scene.market.submit(1)).id
    key = await scene.api.key(mode="test")
    request = (await scene.api.make(PATH, {"phone": phone_of(1)}, key=key))["id"]
    detail = (await scene.api.call("POST", f"{PATH}/{request}/carry-out", key=key)).json()
    assert (detail["request"]["state"], detail["request"]["mode"], detail["leads"]) == ("done", "test", [])
    assert await scene.market.state(live) == "received"
    assert await scene.value("select count(*) from suppression") == 0


async def test_a_request_is_carried_out_and_refused_in_its_own_mode_alone(scene: Scene) -> None:
    """A live operator sees a request of test mode and must not act on it; a test key does not see a live one."""
    test_key = await scene.api.key(mode="test")
    lead_id = (await scene.market.submit(1)).id
    live = await scene.take(phone=phone_of(1))
    test = (await scene.api.make(PATH, {"phone": phone_of(1)}, key=test_key))["id"]
    for rest, body in (("/carry-out", None), ("/refuse", {"refusal": "not_found"})):
        refusal = await scene.call("POST", test, rest, body, status=403)
        assert refusal["code"] == "key_wrong_mode"
        reply = await scene.api.call("POST", f"{PATH}/{live}{rest}", body, key=test_key)
        assert reply.status_code == 404
    assert (await scene.state(test), await scene.state(live)) == ("open", "open")
    assert await scene.value("select count(*) from deletion_lead") == 0
    assert await scene.market.state(lead_id) == "received"
    assert (await scene.carry_out(live))["request"]["state"] == "done"
    assert await scene.state(test) == "open"


async def test_a_worker_ends_requests_in_a_pass_of_its_own(scene: Scene) -> None:
    async with Receiver(ok) as receiver:
        await scene.market.buyer(receiver.url)
        await scene.market.sold(1)
        request = await scene.take(phone=phone_of(1))
        await scene.carry_out(request)
        await scene.market.owner.execute("update notice set state = 'overdue'")
        stopping = asyncio.Event()
        running = asyncio.create_task(keep_completing(scene.market.worker, stopping))

        async def is_done() -> bool:
            return await scene.state(request) == "done"

        assert await until(is_done, PATIENCE)
        stopping.set()
        await running


@pytest.mark.parametrize("refusal", DeletionRefusal)
async def test_an_open_request_is_refused_for_a_reason_of_the_list(scene: Scene, refusal: DeletionRefusal) -> None:
    request = await scene.take(phone=UNKNOWN)
    shown = await scene.call("POST", request, "/refuse", {"refusal": refusal})
    assert (shown["state"], shown["refusal"]) == ("refused", refusal)
    assert await scene.value("select contact from deletion_request") is None
    for rest, body in (("/carry-out", None), ("/refuse", {"refusal": refusal})):
        await scene.call("POST", request, rest, body, status=409)
    await scene.call("GET", request, "/proof", status=409)


async def test_an_interrupted_request_is_continued_and_cannot_be_refused(scene: Scene) -> None:
    lead_ids = [(await scene.market.submit(number)).id for number in (1, 2)]
    request = await scene.take(phone=phone_of(1))
    request_id = ids.decode("del", request)
    await scene.market.owner.executemany(
        "insert into deletion_lead values ($1, $2)", [(request_id, lead_id) for lead_id in lead_ids]
    )
    await scene.call("POST", request, "/refuse", {"refusal": "not_found"}, status=409)
    assert len((await scene.carry_out(request))["leads"]) == 2
    assert await scene.value("select count(*) from erasure") == 2


async def test_two_who_carry_out_the_same_request_make_each_erasure_once(scene: Scene) -> None:
    await scene.market.submit(1)
    request = await scene.take(phone=phone_of(1))
    results = await asyncio.gather(*(scene.carry_out(request) for _ in range(3)))
    assert [result["request"]["state"] for result in results] == ["done"] * 3
    assert await scene.value("select count(*) from erasure") == 1
    assert await scene.value("select count(*) from audit where action = 'deletion.carry_out'") == 1


async def test_requests_that_wait_come_first_by_their_deadline_and_late_ones_are_marked(scene: Scene) -> None:
    now = clock.now()
    ended = await scene.take(phone=UNKNOWN, deadline_days=1)
    await scene.carry_out(ended)
    later = await scene.take(phone=UNKNOWN)
    soon = await scene.take(phone=UNKNOWN, deadline_days=30)
    late = await scene.take(phone=UNKNOWN, received_at=iso(now - timedelta(days=46)))
    first = (await scene.api.call("GET", f"{PATH}?limit=2")).json()
    rest = (await scene.api.call("GET", f"{PATH}?limit=2&cursor={first['next_cursor']}")).json()
    assert [row["id"] for row in first["data"] + rest["data"]] == [late, soon, later, ended]
    assert [row["late"] for row in first["data"]] == [True, False]
    for state, expected in (("late", [late]), ("done", [ended]), ("refused", [])):
        listed = (await scene.api.call("GET", f"{PATH}?state={state}")).json()["data"]
        assert [row["id"] for row in listed] == expected


async def test_a_request_with_a_fault_is_refused_with_its_place(scene: Scene) -> None:
    now = clock.now()
    nobody = ids.encode("lead", clock.new_id())
    for body, pointer in (
        ({}, ""),
        ({"phone": "1"}, "/phone"),
        ({"phone": UNKNOWN, "lead_id": nobody}, "/lead_id"),
        ({"phone": UNKNOWN, "deadline_days": 91}, "/deadline_days"),
        ({"phone": UNKNOWN, "received_at": iso(now + timedelta(days=1))}, "/received_at"),
        ({"phone": UNKNOWN, "received_at": iso(now - timedelta(days=400))}, "/received_at"),
    ):
        reply = await scene.api.call("POST", PATH, body)
        assert reply.status_code == 422, reply.text
        assert [fault["pointer"] for fault in reply.json()["errors"]] == [pointer]
    assert (await scene.api.call("POST", PATH, {"lead_id": nobody})).status_code == 404
    assert await scene.value("select count(*) from deletion_request") == 0


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("state = 'done', erased_at = now(), ended_at = now(), contact = null", "deletion_request_moves"),
        ("state = 'erased', erased_at = now()", "deletion_request_erased"),
        ("state = 'refused', refusal = 'not_found', ended_at = now(), contact = null", "deletion_request_begun"),
        ("deadline_at = received_at", "deletion_request_moves"),
    ],
)
async def test_the_database_lets_no_request_end_before_its_leads_are_erased(
    scene: Scene, change: str, constraint: str
) -> None:
    lead_id = (await scene.market.submit(1)).id
    request = await scene.take(phone=phone_of(1))
    await scene.market.owner.execute("insert into deletion_lead values ($1, $2)", ids.decode("del", request), lead_id)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await scene.market.owner.execute(f"update deletion_request set {change}")
    assert caught.value.constraint_name == constraint
    assert await scene.state(request) == DeletionState.open


async def test_the_database_adds_no_lead_to_a_request_that_has_ended(scene: Scene) -> None:
    lead_id = (await scene.market.submit(1)).id
    request = await scene.take(phone=UNKNOWN)
    await scene.carry_out(request)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await scene.market.owner.execute(
            "insert into deletion_lead values ($1, $2)", ids.decode("del", request), lead_id
        )
    assert caught.value.constraint_name == "deletion_lead_open"


async def test_the_database_lets_no_request_be_done_while_a_business_has_time(scene: Scene) -> None:
    async with Receiver(ok) as receiver:
        await scene.market.buyer(receiver.url)
        await scene.market.sold(1)
        await scene.carry_out(await scene.take(phone=phone_of(1)))
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await scene.market.owner.execute(
                "update deletion_request set state = 'done', ended_at = now(), contact = null"
            )
        assert caught.value.constraint_name == "deletion_request_announced"
