"""Every event that businesses are sent is in the document, with the schema of what is sent."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import msgspec
import pytest

import marketplace
from marketplace.app import EVENTS
from marketplace.feed.store import EventKind
from marketplace.feedback.stage_changes import StageChangeSender
from marketplace.notices.event import FEED_TYPE, WEBHOOK_TYPE, LeadUpdateData, compose_notice
from marketplace.notices.store import NoticeEvent, NoticeKind
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from marketplace.web.openapi import event_names
from routing.journey import LeadUpdate
from tests.builders.feedback import Desk, desk
from tests.receivers import Visit, ok

SENDERS: Final = {
    "delivery/flow.py": {"lead.assigned"},
    "portal/business/delivery_trial.py": {"lead.assigned"},
    "notices/flow.py": set(WEBHOOK_TYPE.values()),
    "feedback/stage_changes.py": {"lead.stage_changed"},
    "directory/challenge.py": {"endpoint.challenge"},
    "directory/mappings.py": set(),  # a test lead in the form of the business's own software
}
"Modules that sign a message, and the events that they send."


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)


def test_every_event_that_is_sent_or_read_in_a_feed_is_listed() -> None:
    root = Path(marketplace.__file__).parent
    signing = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"^from marketplace\.webhook\.signing import .*\bsign\b", path.read_text(), re.MULTILINE)
    }
    assert signing == set(SENDERS)
    sent = set().union(*SENDERS.values(), EventKind, FEED_TYPE.values())
    assert {name for event in EVENTS for name in event_names(event)} == sent


def test_an_update_is_sent_with_everything_that_is_stored_of_it() -> None:
    assert set(LeadUpdate.__struct_fields__) <= set(LeadUpdateData.__struct_fields__)


async def test_what_is_sent_has_the_schema_of_its_event(shop: Desk) -> None:
    document = (await shop.api.call("GET", "/openapi.json", key="")).json()
    bodies: list[dict[str, Any]] = []

    async def receive(visit: Visit) -> None:
        await visit.read_request()
        bodies.append(msgspec.json.decode(visit.body))
        await ok(visit)

    shop.behave(receive)
    await send_everything(shop)
    names = {body["type"] for body in bodies}
    assert names == set().union(*SENDERS.values()) - {"endpoint.challenge"}
    bodies += compose_feed_notices()
    for body in bodies:
        check_schema(document, body)
    [update] = [body for body in bodies if body["type"] == "lead.updated" and "contact" in body["data"]]
    assert update["data"]["contact"]["street"] == "2 New Street"
    with pytest.raises(jsonschema_rs.ValidationError):
        check_schema(document, {**update, "timestamp": None})


async def send_everything(shop: Desk) -> None:
    """Deliver a lead, move it to another stage, correct it, revoke its consent, and erase its person."""
    market = shop.market
    lead = await shop.sold(1)
    await market.owner.execute(
        "insert into stage_hook (business_id, endpoint_id, set_at) values ($1, $2, now())",
        shop.buyer.business_id,
        shop.buyer.endpoint_id,
    )
    await shop.tell(lead, kind="contacted")
    await StageChangeSender(market.worker, market.sealer, market.guard).send_due()
    correction = {"contact": {"street": "2 New Street"}, "bant": {"timing": {"within_days": 5}}}
    corrected = await shop.call("PATCH", f"/v1/inquiries/{lead}", correction, by="provider", Idempotency_Key="once")
    assert corrected.status_code == 200, corrected.text
    await sweep(shop)
    assert (
        await shop.call("POST", "/v1/revocations", {"lead_id": lead, "reason": "said stop"}, by="operator")
    ).is_success
    await sweep(shop)
    assert (await shop.call("POST", "/v1/erasures", {"lead_id": lead, "reason": "asked"}, by="operator")).is_success
    await sweep(shop)


async def sweep(shop: Desk) -> None:
    """Send the notices that wait."""
    await shop.market.owner.execute("update notice set due_at = clock_timestamp() where due_at is not null")
    await shop.market.sweeper.sweep()
    await asyncio.gather(*shop.market.sweeper._running)


def compose_feed_notices() -> list[dict[str, Any]]:
    """Return the events that a feed has of an erasure, a revoked consent and a change."""
    now = clock.now()
    details: dict[NoticeKind, dict[str, Any]] = {
        NoticeKind.erased: {},
        NoticeKind.revoked: {"channels": ["call"]},
        NoticeKind.updated: {
            "revision": 2,
            "touches": [{"kind": "call", "at": "2026-11-21T10:00:00Z", "detail": "", "seconds": 90}],
            "changes": [
                {"name": "budget", "before": {"minor": 100, "currency": "USD"}, "after": None},
                {"name": "need.roof_type", "before": "tile", "after": True},
            ],
            "contact_changed": [],
        },
    }
    notices = [
        NoticeEvent(
            id=clock.new_id(),
            lead_id=clock.new_id(),
            kind=kind,
            assignment_id=clock.new_id(),
            business_id=clock.new_id(),
            mode="live",
            made_at=now,
            detail=detail,
            deadline_at=now + timedelta(days=3),
        )
        for kind, detail in details.items()
    ]
    return [msgspec.json.decode(compose_notice(notice, FEED_TYPE[notice.kind], now, None)) for notice in notices]


def check_schema(document: dict[str, Any], body: dict[str, Any]) -> None:
    """Raise ValidationError if a body is not as the document describes the event of its type."""
    content = document["webhooks"][body["type"]]["post"]["requestBody"]["content"]["application/json"]
    schema = {**content["schema"], "components": document["components"]}
    jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(body)
