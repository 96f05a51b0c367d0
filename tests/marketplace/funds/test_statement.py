"""A wallet's statement: one line for each lead that was charged or refunded, the same in JSON, CSV and on the page."""

import csv
import io
from typing import Any

from tests.builders.feedback import Desk
from tests.builders.marketplaces import PRICE_MINOR
from tests.builders.portal import signed_in
from tests.receivers import ok, refuse, status

PAID_MINOR = 1_000_000
"Booked by the builder before any lead."


async def statement(buying: Desk, query: str = "") -> list[dict[str, Any]]:
    reply = await buying.call("GET", f"/v1/wallet/statement{query}")
    assert reply.status_code == 200, reply.text
    lines: list[dict[str, Any]] = reply.json()["data"]
    return lines


async def wallet(buying: Desk) -> dict[str, Any]:
    shown: dict[str, Any] = (await buying.call("GET", "/v1/wallet")).json()
    return shown


def figures(lines: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(line["kind"], line["amount_minor"], line["balance_minor"]) for line in lines]


async def test_a_lead_is_one_line_with_its_price_in_the_api_however_it_ended(buying: Desk) -> None:
    charged = await buying.sold(1)
    buying.behave(refuse("other"))
    await buying.sold(2)
    buying.behave(status(503))
    await buying.sold(3)
    lines = await statement(buying)
    assert figures(lines) == [
        ("capture", -PRICE_MINOR, PAID_MINOR - PRICE_MINOR),
        ("top_up", PAID_MINOR, PAID_MINOR),
    ]
    assert (lines[0]["lead_id"], lines[0]["event_id"]) == (charged, None)
    assert lines[0]["assignment_id"] == (await buying.shown(charged))["assignment_id"]
    assert (lines[1]["lead_id"], lines[1]["assignment_id"], lines[1]["event_id"] is not None) == (None, None, True)
    shown = await wallet(buying)
    assert (shown["available_minor"], shown["held_minor"]) == (PAID_MINOR - 2 * PRICE_MINOR, PRICE_MINOR)
    assert shown["balance_minor"] == lines[0]["balance_minor"]


async def test_a_refund_is_a_line_of_its_own_and_the_lines_add_up_to_the_balance(buying: Desk) -> None:
    lead = await buying.sold(1)
    asked = (await buying.give_back(lead, reason="other", note="They never asked.")).json()
    assert (await buying.judge(asked["id"], "granted")).status_code == 200
    lines = await statement(buying)
    assert figures(lines) == [
        ("refund", PRICE_MINOR, PAID_MINOR),
        ("capture", -PRICE_MINOR, PAID_MINOR - PRICE_MINOR),
        ("top_up", PAID_MINOR, PAID_MINOR),
    ]
    assert {line["lead_id"] for line in lines[:2]} == {lead}
    assert sum(line["amount_minor"] for line in lines) == (await wallet(buying))["balance_minor"]
    for line in lines:  # the two columns from before: what a line did, the hold of its lead counted with it
        assert (line["available_minor"], line["held_minor"]) == (line["amount_minor"], 0)


async def test_json_csv_and_page_show_the_same_lines_and_balances_on_every_page(buying: Desk) -> None:
    for number in range(3):
        await buying.sold(number)
    buying.behave(status(503))
    await buying.sold(3)
    buying.behave(ok)
    lines = await statement(buying)
    assert [line["balance_minor"] for line in lines] == [
        PAID_MINOR - 3 * PRICE_MINOR, PAID_MINOR - 2 * PRICE_MINOR, PAID_MINOR - PRICE_MINOR, PAID_MINOR,
    ]  # fmt: skip
    first = (await buying.call("GET", "/v1/wallet/statement?limit=2")).json()
    assert first["data"] + await statement(buying, f"?cursor={first['next_cursor']}") == lines
    file = await buying.call("GET", "/v1/wallet/statement", accept="text/csv")
    rows = list(csv.DictReader(io.StringIO(file.text, newline="")))
    assert list(rows[0]) == [
        "id", "kind", "available_minor", "held_minor", "currency", "assignment_id", "event_id", "made_at",
        "amount_minor", "balance_minor", "lead_id",
    ]  # fmt: skip
    assert [(row["kind"], int(row["amount_minor"]), int(row["balance_minor"])) for row in rows] == figures(lines)
    browser = await signed_in(buying.api, "business", buying.buyer.business_id)
    page = (await browser.get("/business/wallet?format=csv")).text
    own = list(csv.DictReader(io.StringIO(page, newline="")))
    assert [(int(row["amount_minor"]), int(row["balance_minor"]), row["lead"]) for row in own] == [
        (line["amount_minor"], line["balance_minor"], line["lead_id"] or "") for line in lines
    ]
