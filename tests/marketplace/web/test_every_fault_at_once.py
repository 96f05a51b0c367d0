"""An unknown field hides no fault: whatever is wrong with a body is told in one answer, over every interface that reads
one."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import roofing
from tests.builders.service import Served, an_order, serve


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


async def faults(api: Served, method: str, path: str, body: Any, key: str) -> set[tuple[str, str]]:
    answer = await api.call(method, path, body, key=key)
    assert answer.status_code == 422, answer.text
    return {(each["pointer"], each["code"]) for each in answer.json()["errors"]}


CONTENT = {
    ("/contact/phone", "phone_invalid"), ("/contact/email", "email_invalid"),
    ("/consent/page_url", "consent_page_invalid"), ("/bant/timing", "timing_ambiguous"),
}  # fmt: skip


def inquiry() -> dict[str, Any]:
    """An inquiry whose shape is right, with the four faults of CONTENT."""
    body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(roofing_body(1, clock.now())))
    body["contact"] |= {"phone": "1", "email": "x"}
    body["consent"] |= {"page_url": "x"}
    body["bant"]["timing"] = {"within_days": 1, "not_before": "2027-01-01"}
    return body


@pytest.mark.parametrize("path", ["/v1/inquiries", "/v1/inquiries:validate"])
async def test_an_inquiry_is_told_the_faults_of_its_shape_and_of_its_content_together(api: Served, path: str) -> None:
    await api.vertical()
    _, key = await api.provider()
    headers = {"idempotency-key": "1"}

    async def told(body: dict[str, Any]) -> set[tuple[str, str]]:
        answer = await api.call("POST", path, body, key=key, headers=headers)
        assert answer.status_code == 422, answer.text
        return {(each["pointer"], each["code"]) for each in answer.json()["errors"]}

    assert await told(inquiry()) == CONTENT
    assert await told(inquiry() | {"price": 1}) == CONTENT | {("/price", "unknown_field")}
    unnamed = inquiry()
    del unnamed["contact"]["full_name"]
    unnamed["touches"] = [{"kind": "call", "at": "yesterday"}]
    assert await told(unnamed) == CONTENT | {
        ("/contact/full_name", "field_missing"), ("/touches/0/at", "type_wrong"),
    }  # fmt: skip
    unread = inquiry()
    unread["contact"]["phone"] = 1
    unread["consent"] = 7
    assert await told(unread) == {
        ("/contact/phone", "type_wrong"), ("/contact/email", "email_invalid"), ("/consent", "type_wrong"),
        ("/bant/timing", "timing_ambiguous"),
    }  # fmt: skip
    assert await told(inquiry() | {"vertical": "nowhere", "price": 1}) == CONTENT | {
        ("/vertical", "vertical_unknown"), ("/price", "unknown_field"),
    }  # fmt: skip


async def test_every_other_body_is_told_both_together(api: Served) -> None:
    await api.vertical()
    now, unknown = clock.now(), ("/other", "unknown_field")
    _, provider = await api.provider()
    _, business = await api.business()
    endpoint = await api.endpoint(business)
    late = (now + timedelta(days=1)).isoformat()
    wrong = {"slug": "x1", "definition": msgspec.to_builtins(roofing()) | {"window_days": 0}, "other": 1}
    order = an_order(endpoint["id"])
    order["definition"] |= {"price_minor": -1}
    table: tuple[tuple[str, str, Any, str, set[tuple[str, str]]], ...] = (
        ("POST", "/v1/verticals", wrong, api.operator, {("/definition/window_days", "out_of_range")}),
        ("POST", "/v1/subscriptions", order | {"other": 1}, business, {("/definition/price_minor", "*")}),
        ("POST", "/v1/businesses", {"name": "x", "zone": "Mars", "currency": "USD", "other": 1}, api.operator,
         {("/zone", "*")}),
        ("POST", "/v1/keys",
         {"kind": "provider", "mode": "live", "name": "x", "expires_at": "2020-01-01T00:00:00Z", "other": 1},
         api.operator, {("/owner_id", "field_missing"), ("/expires_at", "in_the_past")}),
        ("POST", "/v1/endpoints", {"kind": "feed", "url": "https://x.example", "other": 1}, business,
         {("/url", "value_not_allowed")}),
        ("POST", "/v1/suppressions", {"phone": "1", "email": "x", "reason": "asked", "other": 1}, provider,
         {("/phone", "phone_invalid"), ("/email", "email_invalid")}),
        ("POST", "/v1/erasures", {"phone": "1", "reason": "asked", "other": 1}, provider,
         {("/phone", "phone_invalid")}),
        ("PUT", "/v1/pipeline", {"stages": [{"stage": "a", "kind": "won"}] * 2, "other": 1}, business,
         {("/stages/1/stage", "value_not_allowed")}),
        ("POST", "/v1/leads/lead_01m7zxrk0zezh9kk0e0qy31s5c/dispositions",
         {"kind": "won", "reason": "price", "happened_at": late, "other": 1}, business,
         {("/value_minor", "value_missing"), ("/reason", "value_not_allowed"), ("/happened_at", "happened_in_future")}),
        ("POST", "/v1/leads/lead_01m7zxrk0zezh9kk0e0qy31s5c/return",
         {"reason": "other", "calls": [{"at": late, "outcome": "no_answer"}], "other": 1}, business,
         {("/note", "field_missing"), ("/calls/0/at", "value_not_allowed")}),
        ("POST", "/v1/inquiries/lead_01m7zxrk0zezh9kk0e0qy31s5c/touches",
         {"touches": [{"kind": "call", "at": late}], "other": 1}, provider, {("/touches/0/at", "touch_in_future")}),
    )  # fmt: skip
    lost = []
    for method, path, body, key, expected in table:
        reported = await faults(api, method, path, body, key)
        places = {place for place, _ in reported}
        missed = {fault for fault in expected if fault not in reported and not (fault[1] == "*" and fault[0] in places)}
        if missed or unknown not in reported or len(reported) != len(expected) + 1:
            lost.append(f"{method} {path}: {reported}")
    assert lost == []
