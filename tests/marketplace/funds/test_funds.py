"""Top-ups, wallets, statements and earnings over HTTP."""

import asyncio
import csv
import io
from typing import Any
from uuid import UUID

from marketplace.runtime import ids
from tests.builders.service import Served
from tests.waiting import tries


def payment(business: str, event: str = "pay-1", amount: int = 10_000, currency: str = "USD") -> dict[str, Any]:
    return {"business_id": business, "amount_minor": amount, "currency": currency, "event_id": event}


async def wallet(api: Served, key: str) -> tuple[int, int, int]:
    body = (await api.call("GET", "/v1/wallet", key=key)).json()
    return body["available_minor"], body["held_minor"], body["credit_limit_minor"]


async def test_a_payment_sent_again_is_booked_once_and_answered_alike(api: Served) -> None:
    business, key = await api.business()
    replies = await asyncio.gather(*(api.call("POST", "/v1/top-ups", payment(business)) for _ in range(5)))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 200, 200, 201]
    assert len({reply.text for reply in replies}) == 1
    assert await wallet(api, key) == (10_000, 0, 0)
    assert [action for action, _ in await api.audited()].count("wallet.top_up") == 1


async def test_an_event_id_never_stands_for_two_payments(api: Served) -> None:
    business, key = await api.business()
    other, _ = await api.business()
    await api.make("/v1/top-ups", payment(business))
    for body in (payment(business, amount=9_999), payment(other)):
        refused = await api.call("POST", "/v1/top-ups", body)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert await wallet(api, key) == (10_000, 0, 0)


async def test_a_payment_that_cannot_be_booked_is_refused(api: Served) -> None:
    business, key = await api.business()
    unknown = ids.encode("biz", UUID(int=7))
    table = (
        (payment(unknown), 404, "not_found"),
        (payment(business, currency="EUR"), 404, "not_found"),
        (payment(business, amount=0), 422, "validation_failed"),
        (payment(business, amount=-1), 422, "validation_failed"),
        (payment(business, amount=10**9 + 1), 422, "validation_failed"),
        (payment(business, event=" "), 422, "validation_failed"),
        (payment(business, event="x" * 256), 422, "validation_failed"),
        (payment(business) | {"kind": "refund"}, 422, "validation_failed"),
    )
    for body, status, code in table:
        refused = await api.call("POST", "/v1/top-ups", body)
        assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
    assert await wallet(api, key) == (0, 0, 0)


async def test_a_credit_limit_is_set_and_never_below_what_is_owed(api: Served) -> None:
    business, key = await api.business()
    set_to = {"business_id": business, "credit_limit_minor": 5_000}
    assert (await api.call("PATCH", "/v1/wallet", set_to)).json()["credit_limit_minor"] == 5_000
    await api.pool.execute("update wallet set available_minor = -3000")
    refused = await api.call("PATCH", "/v1/wallet", set_to | {"credit_limit_minor": 2_999})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert await wallet(api, key) == (-3_000, 0, 5_000)


async def test_an_operator_says_whose_wallet(api: Served) -> None:
    business, _ = await api.business()
    for path in ("/v1/wallet", "/v1/wallet/statement"):
        refused = await api.call("GET", path)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/business_id")
        assert (await api.call("GET", f"{path}?business_id={business}")).status_code == 200


async def test_a_frozen_business_still_sees_its_money(api: Served) -> None:
    business, key = await api.business()
    await api.call("PATCH", f"/v1/businesses/{business}", {"state": "frozen"})
    for path in ("/v1/wallet", "/v1/wallet/statement"):
        assert (await api.call("GET", path, key=key)).status_code == 200
    assert (await api.call("GET", "/v1/subscriptions", key=key)).status_code == 403


async def test_a_statement_adds_up_to_the_wallet_page_by_page(api: Served) -> None:
    business, key = await api.business()
    for number in range(5):
        await api.make("/v1/top-ups", payment(business, f"pay-{number}", 1_000 + number))
    lines: list[dict[str, Any]] = []
    cursor = ""
    for _ in tries("the last page"):
        page = (await api.call("GET", f"/v1/wallet/statement?limit=2{cursor}", key=key)).json()
        lines += page["data"]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [line["event_id"] for line in lines] == [f"pay-{number}" for number in (4, 3, 2, 1, 0)]
    available, held, _ = await wallet(api, key)
    assert sum(line["available_minor"] for line in lines) == available == 5_010
    assert sum(line["held_minor"] for line in lines) == held == 0


async def test_a_statement_opens_in_a_spreadsheet_and_runs_nothing(api: Served) -> None:
    business, key = await api.business()
    events = ['=HYPERLINK("http://example.com")', "+1", "-1", "@x", "plain, with comma"]
    for event in events:
        await api.make("/v1/top-ups", payment(business, event, 1_000))
    reply = await api.call("GET", "/v1/wallet/statement", key=key, headers={"accept": "text/csv"})
    assert reply.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(reply.text, newline="")))
    assert [row["event_id"] for row in rows] == ["plain, with comma", "'@x", "'-1", "'+1", "'" + events[0]]
    assert {row["available_minor"] for row in rows} == {"1000"}
    cut = await api.call("GET", "/v1/wallet/statement?limit=2", key=key, headers={"accept": "text/csv"})
    following = cut.headers["link"].removeprefix("<").partition(">")[0]
    following_page = await api.call("GET", following, key=key, headers={"accept": "text/csv"})
    assert [row["event_id"] for row in csv.DictReader(io.StringIO(following_page.text, newline=""))] == ["'-1", "'+1"]


async def test_a_provider_without_sales_is_owed_nothing(api: Served) -> None:
    _, key = await api.provider()
    reply = (await api.call("GET", "/v1/earnings", key=key)).json()
    assert reply == {"data": [], "next_cursor": None, "has_more": False}
