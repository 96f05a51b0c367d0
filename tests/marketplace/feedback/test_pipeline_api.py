"""The software of a business sets next actions and reads changes of stage, of its own leads and none twice."""

import asyncio
from datetime import timedelta
from typing import Any

from marketplace.feedback.store import SQL
from marketplace.runtime import clock, ids
from tests.builders.feedback import Desk, ago
from tests.builders.inquiries import iso
from tests.waiting import tries


def in_days(days: float) -> str:
    return iso(clock.now() + timedelta(days=days))


async def changes(shop: Desk, after: str = "", *, by: str = "business", limit: int = 50) -> dict[str, Any]:
    """Return one page of changes of stage."""
    query = f"limit={limit}" + (f"&after={after}" if after else "")
    reply = await shop.call("GET", f"/v1/stage-changes?{query}", by=by)
    assert reply.status_code == 200, reply.text
    page: dict[str, Any] = reply.json()
    return page


async def test_a_next_action_is_set_replaced_shown_and_done(shop: Desk) -> None:
    lead = await shop.sold()
    path = f"/v1/leads/{lead}/next-action"
    assert (await shop.call("GET", path)).status_code == 404
    first = await shop.call("PUT", path, {"note": "Call", "due_at": in_days(1)})
    second = await shop.call("PUT", path, {"note": "Call again", "due_at": in_days(2)})
    assert (first.status_code, second.status_code) == (200, 200)
    shown = (await shop.call("GET", path)).json()
    assert shown == second.json()
    assert (shown["lead_id"], shown["note"]) == (lead, "Call again")
    assert (await shop.call("DELETE", path)).json() == shown
    assert (await shop.call("DELETE", path)).status_code == 404
    assert (await shop.call("GET", path)).status_code == 404
    assert [action for action in await shop.audited() if action.startswith("next_action")] == [
        "next_action.set",
        "next_action.set",
        "next_action.done",
    ]


async def test_a_next_action_that_cannot_be_kept_is_refused_with_what_to_do(shop: Desk) -> None:
    lead = await shop.sold()
    path = f"/v1/leads/{lead}/next-action"
    past = await shop.call("PUT", path, {"note": "Call", "due_at": ago(days=1)})
    assert (past.status_code, past.json()["errors"][0]["code"]) == (422, "due_at_out_of_range")
    assert (await shop.call("PUT", path, {"note": " ", "due_at": in_days(1)})).status_code == 422
    assert (await shop.call("PUT", path, {"note": "Call", "due_at": in_days(1)}, by="other")).status_code == 404
    assert (await shop.call("PUT", path, {"note": "Call", "due_at": in_days(1)}, by="provider")).status_code == 403
    assert (await shop.call("GET", "/v1/next-actions?due_before=soon")).status_code == 422


async def test_open_actions_are_listed_page_by_page_those_that_are_due_alone(shop: Desk) -> None:
    leads = [await shop.sold(number) for number in range(1, 4)]
    for lead, days in zip(leads, (3, 1, 2), strict=True):
        await shop.call("PUT", f"/v1/leads/{lead}/next-action", {"note": "Call", "due_at": in_days(days)})
    page = (await shop.call("GET", "/v1/next-actions?limit=2")).json()
    following = (await shop.call("GET", f"/v1/next-actions?cursor={page['next_cursor']}")).json()
    assert [row["lead_id"] for row in (*page["data"], *following["data"])] == leads[::-1]
    assert (page["has_more"], following["has_more"]) == (True, False)
    moment = in_days(2.5).replace("+", "%2B")
    due = (await shop.call("GET", f"/v1/next-actions?due_before={moment}")).json()
    assert [row["lead_id"] for row in due["data"]] == [leads[2], leads[1]]
    for stranger in ("other", "test business"):
        assert (await shop.call("GET", "/v1/next-actions", by=stranger)).json()["data"] == []


async def test_changes_of_stage_are_listed_one_after_another_without_an_endpoint(shop: Desk) -> None:
    leads = [await shop.sold(number) for number in (1, 2)]
    for lead in leads:
        await shop.tell(lead, kind="contacted", note="secret")
    await shop.tell(leads[0], kind="quoted")
    first = await changes(shop, limit=2)
    assert (first["has_more"], len(first["data"])) == (True, 2)
    second = await changes(shop, first["next_cursor"])
    stages = [(row["data"]["lead_id"], row["data"]["previous_stage"], row["data"]["stage"]) for row in second["data"]]
    assert stages == [(leads[0], "contacted", "quoted")]
    assert (await changes(shop, second["data"][-1]["id"]))["data"] == []
    assert "secret" not in str(first)
    assert await shop.market.value("select array_agg(distinct state) from stage_change") == ["listed"]
    for stranger in ("other", "test business"):
        assert (await changes(shop, by=stranger))["data"] == []


async def test_a_change_whose_transaction_ends_late_is_not_left_out(shop: Desk) -> None:
    early, late = [await shop.sold(number) for number in (1, 2)]
    await shop.tell(early, kind="contacted")
    owner, business_id = shop.market.owner, shop.buyer.business_id
    async with owner.acquire() as connection, connection.transaction():
        await connection.execute(SQL["lock_changes"], business_id)
        await connection.execute(
            """insert into stage_change (id, position, business_id, disposition_id, undone, state, made_at)
            select $1, position + 1, business_id, disposition_id, true, 'listed', made_at from stage_change""",
            clock.new_id(),
        )
        waiting = asyncio.create_task(shop.tell(late, kind="contacted"))
        for _ in tries("the second change to wait for the first"):
            if await is_waiting(shop):
                break
        page = await changes(shop)
        assert [row["data"]["lead_id"] for row in page["data"]] == [early]
    await waiting
    following = await changes(shop, page["data"][-1]["id"])
    assert [row["data"]["lead_id"] for row in following["data"]] == [early, late]


async def is_waiting(shop: Desk) -> bool:
    """Return whether a transaction waits for the lock of the positions."""
    waiting = """select count(*) from pg_locks join pg_database d on d.oid = database
        where locktype = 'advisory' and not granted and d.datname = current_database()"""
    return bool(await shop.market.value(waiting))


async def test_the_place_in_the_list_must_be_one_of_the_business_that_is_listed_still(shop: Desk) -> None:
    lead = await shop.sold()
    await shop.tell(lead, kind="contacted")
    [change] = (await changes(shop))["data"]
    for after, by in ((change["id"], "other"), (ids.encode("evt", clock.new_id()), "business")):
        assert (await shop.call("GET", f"/v1/stage-changes?after={after}", by=by)).status_code == 404
    malformed = await shop.call("GET", "/v1/stage-changes?after=first")
    assert (malformed.status_code, malformed.json()["errors"][0]["code"]) == (422, "cursor_invalid")


async def test_a_stage_has_the_colour_that_was_chosen_and_no_other(shop: Desk) -> None:
    rows = [{"stage": "Called", "kind": "contacted", "colour": "teal"}, {"stage": "Sold", "kind": "won"}]
    saved = (await shop.call("PUT", "/v1/pipeline", {"stages": rows})).json()["stages"]
    assert [stage["colour"] for stage in saved] == ["teal", None]
    rows[0]["colour"] = "invisible"
    assert (await shop.call("PUT", "/v1/pipeline", {"stages": rows})).status_code == 422
