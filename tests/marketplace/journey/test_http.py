"""Touches and corrections over HTTP, as a provider's server sends them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from tests.builders.feedback import Desk, desk


@pytest.fixture
async def office(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)


async def call(office: Desk, method: str, path: str, body: Any, **headers: str) -> httpx.Response:
    return await office.api.call(method, path, body, key=office.keys["provider"], headers=headers)


async def test_each_touch_has_its_answer_beside_the_status_of_the_inquiry(office: Desk) -> None:
    lead = await office.sold(1)
    now = clock.now()
    touches = [
        {"kind": "page_view", "at": now, "detail": "/pricing?email=robin@example.com", "touch_id": "view-1"},
        {"kind": "page_view", "at": now, "touch_id": "view-1"},
        {"kind": "call", "at": "2036-01-01T00:00:00Z"},
    ]
    reply = await call(office, "POST", f"/v1/inquiries/{lead}/touches", {"touches": touches})
    assert reply.status_code == 201, reply.text
    answer = reply.json()
    assert (answer["id"], answer["state"]) == (lead, "delivered")
    assert [each["result"] for each in answer["touches"]] == ["added", "repeated", "refused"]
    assert answer["touches"][2]["faults"][0]["code"] == "touch_in_future"
    assert await office.market.value("select detail from touch") == "/pricing"


async def test_a_correction_is_answered_with_the_status_and_counts_once_under_its_key(office: Desk) -> None:
    lead = await office.sold(1)
    body = {"bant": {"timing": None, "need": {"fields": {"square_metres": 90}}}}
    for _ in range(2):
        reply = await call(office, "PATCH", f"/v1/inquiries/{lead}", body, **{"idempotency-key": "k"})
        assert (reply.status_code, reply.json()["id"]) == (200, lead), reply.text
    assert await office.market.value("select array_agg(clears) from correction") == [["timing"]]
    other = {"bant": {"timing": {"within_days": 3}}}
    reply = await call(office, "PATCH", f"/v1/inquiries/{lead}", other, **{"idempotency-key": "k"})
    assert (reply.status_code, reply.json()["type"].rpartition("/")[2]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"contact": {"phone": None}}, "/contact/phone", "type_wrong"),
        ({"state": "sold"}, "/state", "unknown_field"),
        ({"bant": {"budget": {"minor": -1, "currency": "USD"}}}, "/bant/budget/minor", "out_of_range"),
        ({"contact": {"email": "nobody"}}, "/contact/email", "email_invalid"),
    ],
)
async def test_a_faulty_correction_is_named_at_its_place(office: Desk, body: Any, pointer: str, code: str) -> None:
    lead = await office.sold(1)
    reply = await call(office, "PATCH", f"/v1/inquiries/{lead}", body)
    assert reply.status_code == 422, reply.text
    assert [(fault["pointer"], fault["code"]) for fault in reply.json()["errors"]] == [(pointer, code)]
