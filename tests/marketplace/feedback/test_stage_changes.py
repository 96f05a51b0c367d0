"""Changes of stage are sent once to the endpoint that a business chose, and never back to where they came from."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from marketplace.feedback.stage_changes import StageChangeSender
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from tests.builders.feedback import Desk, ago, desk
from tests.builders.portal import Browser, signed_in
from tests.marketplace.feedback.test_hook_and_file import secret_of, send
from tests.receivers import Visit, answer, ok, status


class Software:
    """The business's own software: the changes that it was sent."""

    def __init__(self, shop: Desk) -> None:
        self.events: list[dict[str, Any]] = []
        self.answer = ok
        shop.behave(self.receive)

    async def receive(self, visit: Visit) -> None:
        await visit.read_request()
        body = msgspec.json.decode(visit.body)
        if body.get("type") == "lead.stage_changed":
            self.events.append(body["data"])
        await (self.answer if body.get("type") == "lead.stage_changed" else ok)(visit)


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)


@pytest.fixture
async def office(shop: Desk) -> Browser:
    return await signed_in(shop.api, "business", shop.buyer.business_id)


@pytest.fixture
def sender(shop: Desk) -> StageChangeSender:
    return StageChangeSender(shop.market.worker, shop.market.sealer, shop.market.guard)


async def choose(shop: Desk, office: Browser) -> None:
    endpoint = ids.encode("whe", shop.buyer.endpoint_id)
    reply = await office.post("/business/board/stages/changes", {"endpoint": endpoint})
    assert reply.status_code == 303, reply.text


async def test_a_change_is_sent_once_and_its_undoing_is_a_change_back(
    shop: Desk, office: Browser, sender: StageChangeSender
) -> None:
    software, lead = Software(shop), await shop.sold()
    await choose(shop, office)
    await shop.tell(lead, kind="contacted", note="secret")
    await office.post(f"/business/leads/{lead}/outcome", {"kind": "won", "value": "10"})
    while await sender.send_due():
        pass
    assert sorted((event["previous_stage"] or "", event["stage"]) for event in software.events) == [
        ("", "contacted"),
        ("contacted", "won"),
    ]
    won = (await shop.shown(lead))["dispositions"][-1]["id"]
    await office.post(f"/business/leads/{lead}/undo-move", {"disposition": won})
    await sender.send_due()
    last = software.events[-1]
    assert (last["previous_stage"], last["stage"], last["undone"]) == ("won", "contacted", True)
    assert "secret" not in str(software.events)
    assert await shop.market.value("select count(*) from stage_change where state <> 'received'") == 0


async def test_what_the_software_reported_and_what_changes_no_stage_is_not_sent(
    shop: Desk, office: Browser, sender: StageChangeSender
) -> None:
    software, lead, secret = Software(shop), await shop.sold(), await secret_of(shop)
    await shop.delivered_at(lead, clock.now() - timedelta(hours=3))
    await choose(shop, office)
    await send(shop, secret, {"lead_id": lead, "kind": "contacted"})
    await shop.tell(lead, kind="contacted")
    await shop.tell(lead, kind="quoted", happened_at=ago(hours=2))
    assert (await sender.send_due(), software.events) == (0, [])


async def test_a_change_that_is_not_taken_is_tried_again_and_given_up_after_a_day(
    shop: Desk, office: Browser, sender: StageChangeSender
) -> None:
    software, lead = Software(shop), await shop.sold()
    software.answer = status(500)
    await choose(shop, office)
    await shop.tell(lead, kind="contacted")
    await sender.send_due()
    row = await shop.market.owner.fetchrow("select state, attempts, result, due_at > now() from stage_change")
    assert tuple(row) == ("due", 1, "status_500", True)
    software.answer = answer(200, b"<html>thanks</html>")
    await shop.market.owner.execute("update stage_change set due_at = now()")
    await sender.send_due()
    assert await shop.market.value("select result from stage_change") == "not_understood"
    await shop.market.owner.execute("update stage_change set due_at = now(), made_at = now() - interval '25 hours'")
    await sender.send_due()
    assert await shop.market.value("select state from stage_change") == "given_up"
    assert "Given up" in (await office.get("/business/board/stages")).text


async def test_changes_go_to_no_endpoint_of_another_business_and_nowhere_unless_chosen(
    shop: Desk, office: Browser, sender: StageChangeSender
) -> None:
    lead = await shop.sold()
    theirs = await shop.market.owner.fetchval(
        "select id from endpoint where business_id <> $1 limit 1", shop.buyer.business_id
    )
    reply = await office.post("/business/board/stages/changes", {"endpoint": ids.encode("whe", theirs)})
    assert reply.status_code == 404
    await shop.tell(lead, kind="contacted")
    assert await sender.send_due() == 0
