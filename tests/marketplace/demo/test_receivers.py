import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec
import pytest
from standardwebhooks import Webhook

from marketplace.demo.receivers import (
    FAILURES,
    SLOW_SECONDS,
    ReceivedRequest,
    Receiver,
    ReceiverReport,
    look,
    read_visits,
)
from marketplace.demo.world import Behaviour
from tests.builders.service import free_port
from tests.waiting import PATIENCE, tries

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ"


def visit(business: str, lead: str, webhook_id: str = "asg_1", *, signed: bool = True) -> ReceivedRequest:
    return ReceivedRequest(business=business, webhook_id=webhook_id, signed=signed, status=200, lead_id=lead)


def test_a_retry_to_the_same_business_is_no_second_owner() -> None:
    sight = look([visit("a", "lead_1"), visit("a", "lead_1")], {("lead_1", "a")})
    assert sight == ReceiverReport(
        requests=2, leads=1, repeated_ids=1, bad_signatures=0, seen_by_two=0, not_theirs=0, notices=0
    )


def test_a_lead_seen_by_two_businesses_and_not_exposed_to_one_of_them_is_told() -> None:
    sight = look([visit("a", "lead_1"), visit("b", "lead_1", "asg_2")], {("lead_1", "a")})
    assert (sight.seen_by_two, sight.not_theirs) == (1, 1)


def test_a_bad_signature_is_told() -> None:
    assert look([visit("a", "lead_1", signed=False)], {("lead_1", "a")}).bad_signatures == 1


def test_a_line_torn_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    whole = msgspec.json.encode(visit("a", "lead_1"))
    (tmp_path / "visits.jsonl").write_bytes(b"\n" + whole[:20] + b"\n" + whole + b"\n")
    assert read_visits(tmp_path) == [visit("a", "lead_1")]


def test_before_the_first_visit_there_are_none(tmp_path: Path) -> None:
    assert read_visits(tmp_path) == []


class Doors:
    """The receivers as a real process, and a sender that signs."""

    def __init__(self, directory: Path, receivers: dict[str, Receiver], session: aiohttp.ClientSession) -> None:
        self.directory = directory
        self.receivers = receivers
        self.session = session

    async def send(self, business: str, kind: str, data: dict[str, str], secret: str = SECRET) -> tuple[int, object]:
        body, now = msgspec.json.encode({"type": kind, "data": data}).decode(), datetime.now(UTC)
        headers = {
            "webhook-id": "asg_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign("asg_1", now, body),
        }
        async with self.session.post(self.receivers[business].url, data=body, headers=headers) as response:
            return response.status, msgspec.json.decode(await response.read())

    async def lead(self, business: str, lead: str = "lead_1", secret: str = SECRET) -> int:
        return (await self.send(business, "lead.assigned", {"lead_id": lead}, secret))[0]


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    receivers = {}
    for behaviour in Behaviour:
        receivers[behaviour.value] = Receiver(business=behaviour, port=free_port(), behaviour=behaviour)
    (tmp_path / "receivers.json").write_bytes(msgspec.json.encode(tuple(receivers.values())))
    (tmp_path / "secrets.json").write_bytes(msgspec.json.encode(dict.fromkeys(receivers, SECRET)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "marketplace.demo.receivers", str(tmp_path), cwd=Path(__file__).parents[3]
    )
    async with aiohttp.ClientSession() as session:
        for receiver in receivers.values():
            for _ in tries("the receivers to listen"):
                try:
                    async with session.get(receiver.url):
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.02)
        yield Doors(tmp_path, receivers, session)
    process.terminate()
    assert await process.wait() == 0


async def test_each_receiver_behaves_as_it_is_meant_to_and_notes_what_it_saw(doors: Doors) -> None:
    assert await doors.lead("takes") == 200
    assert await doors.lead("takes", secret=OTHER_SECRET) == 401
    assert [await doors.lead("recovers") for _ in range(FAILURES + 1)] == [500] * FAILURES + [200]
    assert {await doors.lead("picky", f"lead_{number}") for number in range(40)} == {200, 409}
    began = asyncio.get_running_loop().time()
    assert await doors.lead("slow") == 200
    assert asyncio.get_running_loop().time() - began >= SLOW_SECONDS
    notes = read_visits(doors.directory)
    assert len(notes) == 2 + FAILURES + 1 + 40 + 1
    assert [note.signed for note in notes[:2]] == [True, False]


async def test_a_challenge_is_sent_back_and_the_one_that_dies_listens_no_more(doors: Doors) -> None:
    for business in ("takes", "dies"):
        assert await doors.send(business, "endpoint.challenge", {"challenge": "c"}) == (200, {"challenge": "c"})
    assert (await doors.send("takes", "endpoint.challenge", {"challenge": "c"}, OTHER_SECRET))[0] == 401

    async def until_refused() -> None:
        while True:
            await doors.lead("dies")
            await asyncio.sleep(0.05)

    with pytest.raises(aiohttp.ClientConnectionError):
        await asyncio.wait_for(until_refused(), PATIENCE)
    assert await doors.lead("takes") == 200
