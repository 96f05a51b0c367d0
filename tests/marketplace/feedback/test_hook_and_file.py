"""Dispositions from a business's own systems: a signed webhook, and a file whose faulty rows are returned."""

import asyncio
import csv
import io
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from marketplace.runtime import clock
from marketplace.webhook.signing import new_secret, sign
from tests.builders.feedback import Desk, ago
from tests.waiting import PATIENCE

# --- the webhook ------------------------------------------------------------------------------------------------------


async def secret_of(shop: Desk) -> str:
    made = await shop.call("POST", "/v1/feedback-hook")
    assert (made.status_code, made.json()["path"]) == (201, f"/in/feedback/{shop.business_id}")
    secret: str = made.json()["secret"]
    return secret


async def send(
    shop: Desk,
    secret: str,
    body: dict[str, Any] | bytes,
    event: str = "evt-1",
    *,
    age: float = 0,
    path: str | None = None,
) -> httpx.Response:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    headers = sign((secret,), event, clock.now() - timedelta(seconds=age), raw)
    return await shop.api.call("POST", path or f"/in/feedback/{shop.business_id}", raw, key="", headers=headers)


async def test_a_signed_report_is_recorded_once_however_often_it_is_sent(shop: Desk) -> None:
    lead, secret = await shop.sold(), await secret_of(shop)
    body = {"lead_id": lead, "kind": "won", "value_minor": 900_000}
    replies = await asyncio.gather(*(send(shop, secret, body) for _ in range(3)))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 201]
    [one] = (await shop.shown(lead))["dispositions"]
    assert (one["source"], one["event_id"], one["value_minor"]) == ("webhook", "evt-1", 900_000)
    other = await send(shop, secret, body | {"value_minor": 1})
    assert (other.status_code, other.json()["code"]) == (409, "event_id_reused")


async def test_a_report_names_its_lead_by_the_assignment_too_and_in_the_businesss_words(shop: Desk) -> None:
    lead, secret = await shop.sold(), await secret_of(shop)
    await shop.call("PUT", "/v1/pipeline", {"stages": [{"stage": "Signed", "kind": "won"}]})
    body = {"assignment_id": (await shop.shown(lead))["assignment_id"], "stage": "Signed", "value_minor": 1}
    assert (await send(shop, secret, body)).json()["kind"] == "won"


async def test_a_secret_that_leaked_signs_nothing_once_it_is_ended(shop: Desk) -> None:
    lead, old, new = await shop.sold(), await secret_of(shop), await secret_of(shop)
    body = {"lead_id": lead, "kind": "contacted"}
    ended = await shop.call("DELETE", "/v1/feedback-hook/previous-secret")
    assert (ended.status_code, ended.json()["previous_secret_until"]) == (200, None)
    assert (await send(shop, old, body, "evt-1")).status_code == 401
    assert (await send(shop, new, body, "evt-2")).status_code == 201


async def test_the_secret_before_is_good_for_a_day(shop: Desk) -> None:
    lead, old = await shop.sold(), await secret_of(shop)
    new = await secret_of(shop)
    body = {"lead_id": lead, "kind": "contacted"}
    assert (await send(shop, old, body, "a")).status_code == 201
    assert (await send(shop, new, body, "b")).status_code == 201
    await shop.market.owner.execute("update feedback_hook set previous_until = now() - interval '1 minute'")
    assert (await send(shop, old, body, "c")).status_code == 401
    assert (await shop.audited()).count("feedback_hook.make") == 2


async def test_what_is_not_signed_just_now_by_that_business_is_refused_alike(shop: Desk) -> None:
    lead, secret = await shop.sold(), await secret_of(shop)
    body = msgspec.json.encode({"lead_id": lead, "kind": "contacted"})
    elsewhere = "/in/feedback/biz_00000000000000000000000000"
    replies = [
        await send(shop, new_secret(), body),
        await send(shop, secret, body, age=301),
        await send(shop, secret, body, age=-301),
        await send(shop, secret, body, path=elsewhere),
        await send(shop, secret, body, path="/in/feedback/nobody"),
        await shop.api.call("POST", f"/in/feedback/{shop.business_id}", body, key=""),
    ]
    for signature in ("v1,é".encode().decode("latin-1"), "v1", "v1,", "v2,AAAA", "v1,AAA", ","):
        headers = sign((secret,), "evt-1", clock.now(), body) | {"webhook-signature": signature}
        replies.append(await shop.api.call("POST", f"/in/feedback/{shop.business_id}", body, key="", headers=headers))
    headers = sign((secret,), "evt-1", clock.now(), body)
    for broken in ({"webhook-timestamp": "nan"}, {"webhook-timestamp": "9" * 400}, {"webhook-id": "evt-2"}):
        replies.append(
            await shop.api.call("POST", f"/in/feedback/{shop.business_id}", body, key="", headers=headers | broken)
        )
    for other in (body + b" ", b"\xff"):
        path = f"/in/feedback/{shop.business_id}"
        replies.append(await shop.api.call("POST", path, other, key="", headers=headers))
    assert {(reply.status_code, reply.json()["code"]) for reply in replies} == {(401, "signature_invalid")}
    assert len({reply.json()["detail"] for reply in replies}) == 1
    assert await shop.market.value("select count(*) from disposition") == 0


async def test_a_signed_report_that_cannot_be_taken_says_why(shop: Desk) -> None:
    lead, secret = await shop.sold(), await secret_of(shop)
    rows: tuple[tuple[dict[str, Any] | bytes, int, str], ...] = (
        (b"{", 400, "json_invalid"),
        ({"kind": "contacted"}, 404, "not_found"),
        ({"lead_id": "lead_1", "kind": "contacted"}, 404, "not_found"),
        ({"lead_id": lead, "kind": "contacted", "business_id": shop.business_id}, 422, "validation_failed"),
        ({"lead_id": lead}, 422, "validation_failed"),
    )
    for body, status, code in rows:
        reply = await send(shop, secret, body)
        assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    long = await send(shop, secret, {"lead_id": lead, "kind": "contacted"}, "e" * 256)
    assert (long.status_code, long.json()["errors"][0]["pointer"]) == (422, "/webhook-id")


async def test_a_webhook_is_not_given_another_businesss_lead(shop: Desk) -> None:
    lead = await shop.sold()
    made = await shop.call("POST", "/v1/feedback-hook", by="other")
    reply = await send(shop, made.json()["secret"], {"lead_id": lead, "kind": "contacted"}, path=made.json()["path"])
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


# --- the file ---------------------------------------------------------------------------------------------------------


async def load(shop: Desk, text: str | bytes, *, by: str = "business", kind: str = "text/csv") -> httpx.Response:
    raw = text if isinstance(text, bytes) else text.encode()
    return await shop.call("POST", "/v1/dispositions:import", raw, by=by, content_type=kind)


def lines(*rows: tuple[object, ...]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue()


HEADER = ("lead_id", "assignment_id", "kind", "stage", "value_minor", "reason", "happened_at", "note")


async def test_good_rows_are_recorded_and_bad_ones_come_back_with_what_to_mend(shop: Desk) -> None:
    leads = [await shop.sold(number) for number in (1, 2, 3)]
    assignment = (await shop.shown(leads[1]))["assignment_id"]
    now = ago()
    text = lines(
        HEADER,
        (leads[0], "", "won", "", 125000, "", now, "a, b\nc"),
        ("", assignment, "lost", "", "", "price", now, ""),
        (leads[2], "", "won", "", "1250.00", "", now, ""),
        (leads[2], "", "", "Signed", "", "", now, ""),
        ("lead_1", "", "won", "", 1, "", now, ""),
        (leads[0], assignment, "contacted", "", "", "", now, ""),
        (),
        (leads[2], "", "contacted", "", "", "", "yesterday", ""),
        (leads[2], "", "contacted", "", "", "", "", ""),
        (leads[2], "", "contacted"),
        (leads[2], "", "contacted", "", "", "", now, "x\x00"),
        (leads[2], "", "won", "", "9" * 30, "", now, ""),
        (leads[2], "", "won", "", "9" * 19, "", now, ""),
    )
    reply = await load(shop, text)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert (found["recorded"], found["repeated"]) == (2, 0)
    assert [(row["row"], row["column"], row["code"]) for row in found["rejected"]] == [
        (4, "value_minor", "type_wrong"),
        (5, "stage", "stage_unknown"),
        (6, None, "not_found"),
        (7, None, "not_found"),
        (9, "happened_at", "date_invalid"),
        (10, "happened_at", "field_missing"),
        (11, "happened_at", "field_missing"),
        (12, "note", "character_not_allowed"),
        (13, "value_minor", "type_wrong"),
        (14, "value_minor", "out_of_range"),
    ]
    assert all(row["detail"].endswith((".", "?")) for row in found["rejected"])
    [won] = (await shop.shown(leads[0]))["dispositions"]
    assert (won["value_minor"], won["note"], won["source"]) == (125_000, "a, b\nc", "csv")
    assert (await shop.shown(leads[2]))["dispositions"] == []
    again = (await load(shop, text)).json()
    assert (again["recorded"], again["repeated"], len(again["rejected"])) == (0, 2, 10)
    assert (await shop.audited()).count("disposition.import") == 2


async def test_a_file_may_have_semicolons_a_byte_order_mark_and_its_columns_in_any_order(shop: Desk) -> None:
    lead = await shop.sold()
    text = f"\ufeffHappened_At;kind;LEAD_ID;event_id\r\n{ago()};contacted;{lead};7\r\n"
    assert (await load(shop, text)).json()["recorded"] == 1
    changed = (await load(shop, text.replace("contacted", "quoted"))).json()
    assert changed["rejected"][0]["code"] == "event_id_reused"
    twice = text.replace(";7", ";8") + f"{ago()};contacted;{lead};9\r\n{ago()};quoted;{lead};9\r\n"
    found = (await load(shop, twice)).json()
    assert (found["recorded"], [row["row"] for row in found["rejected"]]) == (2, [4])


@pytest.mark.parametrize(
    ("text", "status", "code", "pointers"),
    [
        (b"", 400, "csv_unreadable", [""]),
        (b"lead_id,kind,happened_at,colour\n", 422, "validation_failed", ["/3"]),
        (b"lead_id,kind,happened_at,kind\n", 422, "validation_failed", ["/3"]),
        (b"\xff\xfe", 400, "csv_unreadable", [""]),
        (b'lead_id,kind,happened_at\n"unfinished', 400, "csv_unreadable", [""]),
        (b"lead_id,kind,happened_at\n" + b"x" * 140_000, 400, "csv_unreadable", [""]),
    ],
)
async def test_a_file_that_cannot_be_read_is_refused_whole(
    shop: Desk, text: bytes, status: int, code: str, pointers: list[str]
) -> None:
    reply = await load(shop, text)
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    assert [fault["pointer"] for fault in reply.json()["errors"]] == pointers


async def test_a_file_too_large_too_long_or_of_another_kind_is_refused(shop: Desk) -> None:
    for text, kind, status, code in (
        (b"lead_id,kind,happened_at\n" + b"a,b,c\n" * 100_001, "text/csv", 413, "body_too_large"),
        (b"x" * (16 * 2**20 + 1), "text/csv", 413, "body_too_large"),
        (b"{}", "application/json", 415, "media_type_not_supported"),
    ):
        reply = await load(shop, text, kind=kind)
        assert (reply.status_code, reply.json()["code"]) == (status, code)


async def test_five_thousand_rows_are_imported_within_one_call(shop: Desk) -> None:
    lead = await shop.sold()
    row = ",".join((lead, "contacted", ago(), "note {}"))
    text = "lead_id,kind,happened_at,note\n" + "\n".join(row.format(number) for number in range(5_000))
    began = clock.monotonic()
    found = (await load(shop, text)).json()
    assert (found["recorded"], found["rejected"]) == (5_000, [])
    assert clock.monotonic() - began < PATIENCE
