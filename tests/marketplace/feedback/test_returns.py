"""Returns: judged by the record or by an operator, refunded once, with a reason that both sides see."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from marketplace.operations.verify import verify
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from routing.person import SamePerson
from tests.builders.feedback import Desk, desk, uuid_of
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import roofing
from tests.builders.service import until
from tests.receivers import drop_after_read, refuse
from tests.waiting import PATIENCE


async def ledger_is_right(shop: Desk) -> bool:
    connection = await asyncpg.connect(shop.market.settings.database_url)
    try:
        return (await verify(connection)).findings == 0
    finally:
        await connection.close()


async def money_of(shop: Desk) -> tuple[int, int, int]:
    """Return the available and held amounts of the business, and the amount owed to the provider."""
    available, held = await shop.market.wallet(shop.buyer)
    owed = (await shop.call("GET", "/v1/earnings", by="provider")).json()["data"]
    return available, held, owed[0]["owed_minor"] if owed else 0


async def rewrite(shop: Desk, table: str, sql: str, *values: Any) -> None:
    """Change a row that never changes, as if a fault in our own rules had written it so from the start."""
    owner = shop.market.owner
    await owner.execute(f"alter table {table} disable trigger {table}_is_final")
    await owner.execute(sql, *values)


GRANTED, DENIED, DESK = ("granted", "machine"), ("denied", "machine"), ("requested", None)


async def filed(reply: httpx.Response, state: tuple[str, str | None]) -> dict[str, Any]:
    assert reply.status_code == 201, reply.text
    request: dict[str, Any] = reply.json()
    assert (request["state"], request["judged_by"]) == state, request
    assert (request["finding"] is None) == (state == DESK)
    return request


# --- returns that the record decides ----------------------------------------------------------------------------------


async def test_a_second_lead_of_the_same_person_is_taken_back_at_once(shop: Desk) -> None:
    first, second, third = [await shop.sold(number) for number in (1, 2, 3)]
    same_person = "insert into person_key (lead_id, key) select $2, key from person_key where lead_id = $1"
    await shop.market.owner.execute(same_person, uuid_of(first), uuid_of(second))
    before = await money_of(shop)
    request = await filed(await shop.give_back(second, reason="duplicate"), GRANTED)
    assert "was shown the same person" in request["finding"]
    assert await money_of(shop) == (before[0] + 5_000, 0, before[2] - 3_000)
    await filed(await shop.give_back(first, reason="duplicate"), DESK)  # it was the first of the two
    await filed(await shop.give_back(third, reason="duplicate"), DESK)  # a person may have given another number
    assert (await shop.shown(second))["state"] == "returned"
    assert (await shop.shown(second))["contact"] is None
    assert await ledger_is_right(shop)


async def test_the_same_mailbox_in_another_spelling_is_the_same_person(shop: Desk) -> None:
    person = roofing_body(1)["contact"] | {"email": "jane.doe@gmail.com"}
    again = person | {"email": "JaneDoe+roof@googlemail.com", "phone": "+1 312 555 0199"}
    await shop.sold(1, contact=person)
    await shop.market.owner.execute("delete from person_window")  # its window is over
    second = await shop.sold(2, contact=again)
    await filed(await shop.give_back(second, reason="duplicate"), GRANTED)


async def test_a_telephone_that_people_share_is_a_duplicate_only_where_it_makes_the_person(settings: Settings) -> None:
    shared = roofing_body(1)["contact"]
    async with AsyncExitStack() as stack:
        shop = await desk(stack, settings, vertical=roofing(same_person=SamePerson.both))
        await shop.sold(1, contact=shared)
        second = await shop.sold(2, contact=shared | {"email": "somebody.else@example.com"})
        await filed(await shop.give_back(second, reason="duplicate"), DESK)
        await shop.market.owner.execute(
            "update person_window set during = tstzrange(lower(during), lower(during), '[]')"
        )
        third = await shop.sold(3, contact=shared)
        await filed(await shop.give_back(third, reason="duplicate"), GRANTED)


async def test_a_lead_of_a_person_who_was_erased_is_compared_by_a_person(shop: Desk) -> None:
    lead = await shop.sold()
    await shop.call("POST", "/v1/erasures", {"lead_id": lead, "reason": "asked"}, by="operator")
    await filed(await shop.give_back(lead, reason="duplicate"), DESK)


async def test_a_lead_from_outside_the_area_that_was_ordered_is_taken_back(shop: Desk) -> None:
    inside, outside = await shop.sold(1), await shop.sold(2)
    await filed(await shop.give_back(inside, reason="outside_area"), DENIED)
    area = """update subscription_version set definition = jsonb_set(definition, '{area}', '{"prefixes": ["90"]}')"""
    await rewrite(shop, "subscription_version", area)
    request = await filed(await shop.give_back(outside, reason="outside_area"), GRANTED)
    assert "outside the area" in request["finding"]


async def test_a_postal_code_that_was_ordered_in_another_country_is_outside_the_area(shop: Desk) -> None:
    home, abroad = await shop.sold(1), await shop.sold(2)
    area = """update subscription_version
        set definition = jsonb_set(definition, '{area}', '{"postal_codes": ["60614"]}')"""
    await rewrite(shop, "subscription_version", area)
    moved = """update inquiry set facts = jsonb_set(facts, '{place,country}', '"IN"') where id = $1"""
    await rewrite(shop, "inquiry", moved, uuid_of(abroad))
    await filed(await shop.give_back(home, reason="outside_area"), DENIED)
    await filed(await shop.give_back(abroad, reason="outside_area"), GRANTED)


async def test_a_number_is_judged_by_what_intake_kept_of_it(shop: Desk) -> None:
    reachable, unwanted = await shop.sold(1), await shop.sold(2)
    calls = [{"at": "2026-01-01T00:00:00Z", "outcome": "not_in_service"}]
    request = await filed(await shop.give_back(reachable, reason="invalid_number", calls=calls), DESK)
    assert [call["outcome"] for call in request["calls"]] == ["not_in_service"]
    judged = await shop.judge(request["id"], "granted", "We called it too: the number is not in service.")
    assert judged.json()["state"] == "granted"
    persona = """update subscription_version
        set definition = jsonb_set(definition, '{persona}', '{"phone_types": ["voip"]}')"""
    await rewrite(shop, "subscription_version", persona)
    await filed(await shop.give_back(unwanted, reason="invalid_number"), GRANTED)


async def test_a_verdict_is_judged_as_it_was_shipped(shop: Desk) -> None:
    stated, wrong, heard = await shop.sold(1), await shop.sold(2), await shop.sold(4)
    bant = {
        "budget": {"minor": 1_200_000, "currency": "USD"},
        "authority": "decision_maker",
        "need": {"fields": {"roof_type": "tile"}},
        "timing": {"within_days": 14},
    }
    inferred = await shop.sold(3, bant=bant | {"evidence": {"budget": "inferred"}})
    claim = {"dimension": "budget", "result": "fails"}
    await filed(await shop.give_back(stated, reason="bant_mismatch", claim=claim), DENIED)
    spoke = [{"at": "2026-01-01T00:00:00Z", "outcome": "spoke"}]
    await filed(await shop.give_back(heard, reason="bant_mismatch", claim=claim, calls=spoke), DESK)
    await filed(await shop.give_back(inferred, reason="bant_mismatch", claim=claim), DESK)
    fails = """update decision set verdict = jsonb_set(verdict, '{findings,0,result}', '"fails"') where lead_id = $1"""
    await rewrite(shop, "decision", fails, uuid_of(wrong))
    reply = await shop.give_back(wrong, reason="bant_mismatch", claim=claim | {"result": "meets"})
    returned = await filed(reply, GRANTED)
    assert "delivered as “fails”, and the inquiry gives “meets”" in returned["finding"]
    assert returned["claim"] == claim | {"result": "meets"}


async def test_a_verdict_is_judged_by_the_rules_of_qualification_that_gave_it(shop: Desk) -> None:
    earlier, current = await shop.sold(1), await shop.sold(2)
    old = (
        """update inquiry set facts = jsonb_set(facts, '{submitted_at}', to_jsonb(received_at - interval '60 days'))"""
    )
    await rewrite(shop, "inquiry", old)
    claim = {"dimension": "timing", "result": "unknown"}
    version = "update vertical_version set definition = jsonb_set(definition, '{rules_version}', $1::text::jsonb)"
    await rewrite(shop, "vertical_version", version, "1")
    await filed(await shop.give_back(earlier, reason="bant_mismatch", claim=claim), DENIED)
    await rewrite(shop, "vertical_version", version, "2")
    await filed(await shop.give_back(current, reason="bant_mismatch", claim=claim), GRANTED)


# --- returns that an operator judges ----------------------------------------------------------------------------------


async def test_an_operator_grants_and_both_sides_read_why(shop: Desk) -> None:
    lead = await shop.sold()
    before = await money_of(shop)
    request = await filed(await shop.give_back(lead, reason="wrong_person", note="It is a bakery."), DESK)
    assert await money_of(shop) == before
    waiting = (await shop.call("GET", "/v1/returns?state=requested", by="operator")).json()["data"]
    assert [(row["id"], row["note"], row["business_id"]) for row in waiting] == [
        (request["id"], "It is a bakery.", shop.business_id)
    ]
    granted = await shop.judge(request["id"], "granted", "The number belongs to a bakery.")
    assert (granted.status_code, granted.json()["state"]) == (200, "granted")
    mine = (await shop.shown(lead))["returned"]
    assert (mine["finding"], mine["judged_by"], mine["provider_id"]) == (
        "The number belongs to a bakery.",
        "operator",
        None,
    )
    theirs = await shop.inquiry(lead)
    assert (theirs["state"], theirs["reasons"], theirs["payout"]["minor"]) == ("returned", ["wrong_person"], 0)
    assert (theirs["returned"]["reason"], theirs["returned"]["finding"]) == (
        "wrong_person",
        "The number belongs to a bakery.",
    )
    assert "biz_" not in str(theirs)
    assert "bakery." not in str((await shop.call("GET", "/v1/returns", by="other")).json())
    assert await money_of(shop) == (before[0] + 5_000, 0, before[2] - 3_000)
    assert [action for action in await shop.audited() if "return" in action] == ["return.request", "return.judge"]
    assert await ledger_is_right(shop)


async def test_a_denied_return_moves_nothing_and_stands(shop: Desk) -> None:
    lead = await shop.sold()
    before = await money_of(shop)
    request = await filed(await shop.give_back(lead, reason="fraud", note="A made-up name."), DESK)
    assert (await shop.judge(request["id"], "denied", "The person answered us.")).json()["state"] == "denied"
    stored = await shop.judge(request["id"], "granted", "Changed my mind.")
    assert (stored.status_code, stored.json()["finding"]) == (200, "The person answered us.")
    assert (await money_of(shop), (await shop.shown(lead))["state"]) == (before, "delivered")
    assert (await shop.inquiry(lead))["returned"]["state"] == "denied"
    assert (await shop.inquiry(lead))["payout"]["minor"] == 3_000


async def test_an_operator_may_overrule_a_machine_that_denied_and_nothing_else(shop: Desk) -> None:
    lead = await shop.sold()
    request = await filed(await shop.give_back(lead, reason="outside_area"), DENIED)
    assert (await shop.judge(request["id"], "denied")).json()["judged_by"] == "machine"
    assert (await shop.judge(request["id"], "granted", "The job is elsewhere.")).json()["state"] == "granted"
    assert (await shop.judge(request["id"], "denied")).json()["state"] == "granted"
    assert (await shop.shown(lead))["returned"]["finding"] == "The job is elsewhere."
    assert await ledger_is_right(shop)


async def test_a_rehearsal_is_given_back_without_money(shop: Desk) -> None:
    lead = await shop.rehearse()
    before = await money_of(shop)
    request = (await shop.give_back(lead, by="test business", reason="other", note="Just trying.")).json()
    assert (await shop.judge(request["id"], "granted")).json()["mode"] == "test"
    assert (await money_of(shop), (await shop.shown(lead, by="test business"))["state"]) == (before, "returned")
    assert (await shop.call("GET", "/v1/returns")).json()["data"] == []
    assert await ledger_is_right(shop)


async def test_a_test_operator_neither_sees_nor_judges_what_is_live(shop: Desk) -> None:
    lead = await shop.sold()
    request = (await shop.give_back(lead, reason="other", note="No.")).json()
    assert (await shop.call("GET", "/v1/returns", by="test operator")).json()["data"] == []
    body = {"state": "granted", "finding": "Yes."}
    reply = await shop.call("POST", f"/v1/returns/{request['id']}/judge", body, by="test operator")
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


# --- leads that may not be returned -----------------------------------------------------------------------------------


async def test_a_lead_is_given_back_once_in_time_and_only_when_it_was_charged(shop: Desk) -> None:
    lead, late = await shop.sold(1), await shop.sold(2)
    await shop.delivered_at(late, clock.now() - timedelta(days=7, minutes=1))
    shop.behave(refuse("other", 409))
    refused = await shop.sold(3)
    shop.behave(drop_after_read)
    lapsed = await shop.sold(4)
    await shop.market.owner.execute("update assignment set evidence_until = now() where lead_id = $1", uuid_of(lapsed))
    await shop.market.delivery.deliver(
        await shop.market.value("select id from assignment where lead_id = $1", uuid_of(lapsed))
    )
    exposed = await shop.sold(5)
    await filed(await shop.give_back(lead, reason="other", note="No."), DESK)
    rows = (
        (lead, "already_returned"),
        (late, "return_window_closed"),
        (refused, "nothing_charged"),
        (lapsed, "nothing_charged"),
        (exposed, "nothing_charged"),
    )
    for which, code in rows:
        reply = await shop.give_back(which, reason="duplicate")
        assert (reply.status_code, reply.json()["code"]) == (409, code), reply.text
        assert (await shop.give_back(which, reason="duplicate", by="other")).status_code == 404
    request = (await shop.call("GET", "/v1/returns")).json()["data"][0]
    await shop.judge(request["id"], "granted")
    again = await shop.tell(lead, kind="won", value_minor=1)
    assert (again.status_code, again.json()["code"]) == (409, "already_returned")


async def test_no_more_are_given_back_than_the_quota_allows(shop: Desk) -> None:
    leads = [await shop.sold(number) for number in range(1, 8)]
    for lead in leads[:2]:
        await filed(await shop.give_back(lead, reason="other", note="No."), DESK)
    await filed(await shop.give_back(leads[2], reason="outside_area"), DENIED)  # does not count
    async with shop.market.owner.acquire() as connection:
        async with connection.transaction():  # all four wait for the lock, and then compete for the last place
            await connection.execute("select from lead for no key update")
            running = [asyncio.create_task(shop.give_back(lead, reason="other", note="No.")) for lead in leads[3:]]
            waiting = """select count(*) = 4 from pg_stat_activity
                where wait_event_type = 'Lock' and datname = current_database()"""
            assert await until(lambda: shop.market.value(waiting), seconds=PATIENCE)
        replies = await asyncio.gather(*running)
    assert sorted(reply.status_code for reply in replies) == [201, 409, 409, 409]
    over = next(reply for reply in replies if reply.status_code == 409)
    assert over.json()["code"] == "return_quota_reached"
    assert "Of 7 leads delivered in the last 30 days, 3 may be returned, and 3 were" in over.json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/reason", "field_missing"),
        ({"reason": "too dear"}, "/reason", "value_not_allowed"),
        ({"reason": "fraud"}, "/note", "field_missing"),
        ({"reason": "other", "note": " "}, "/note", "field_missing"),
        ({"reason": "bant_mismatch"}, "/claim", "field_missing"),
        ({"reason": "duplicate", "claim": {"dimension": "need", "result": "fails"}}, "/claim", "value_not_allowed"),
        (
            {"reason": "bant_mismatch", "claim": {"dimension": "age", "result": "fails"}},
            "/claim/dimension",
            "value_not_allowed",
        ),
        ({"reason": "duplicate", "state": "granted"}, "/state", "unknown_field"),
        ({"reason": "duplicate", "note": "x" * 1_001}, "/note", "too_long"),
        (
            {
                "reason": "duplicate",
                "calls": [{"at": "2026-11-20T10:00:00Z", "outcome": "spoke", "number": "his mobile"}],
            },
            "/calls/0/number",
            "phone_invalid",
        ),
        (
            {"reason": "duplicate", "calls": [{"at": "2099-01-01T00:00:00Z", "outcome": "spoke"}]},
            "/calls/0/at",
            "value_not_allowed",
        ),
        (
            {"reason": "duplicate", "calls": [{"at": "2026-01-01T00:00:00Z", "outcome": "sang"}]},
            "/calls/0/outcome",
            "value_not_allowed",
        ),
    ],
)
async def test_a_faulty_return_says_what_to_mend(shop: Desk, body: dict[str, Any], pointer: str, code: str) -> None:
    reply = await shop.give_back(await shop.sold(), **body)
    assert reply.status_code == 422, reply.text
    assert [(fault["pointer"], fault["code"]) for fault in reply.json()["errors"]] == [(pointer, code)]


async def test_a_call_by_a_clock_a_little_ahead_of_ours_is_taken(shop: Desk) -> None:
    calls = [
        {"at": (clock.now() + timedelta(minutes=4)).isoformat(), "outcome": "no_answer", "number": "+1 312 555 0147"}
    ]
    reply = await shop.give_back(await shop.sold(), reason="fraud", note="Made up.", calls=calls)
    assert reply.status_code == 201, reply.text


async def test_calls_come_back_with_two_digits_of_the_number_and_in_their_order(shop: Desk) -> None:
    calls = [
        {"at": "2026-01-02T00:00:00Z", "outcome": "no_answer", "number": "+1 312 555 0147"},
        {"at": "2026-01-01T00:00:00Z", "outcome": "voicemail"},
    ]
    request = (await shop.give_back(await shop.sold(), reason="fraud", note="Made up.", calls=calls)).json()
    assert request["calls"] == [
        {"at": "2026-01-01T00:00:00Z", "outcome": "voicemail", "ending": ""},
        {"at": "2026-01-02T00:00:00Z", "outcome": "no_answer", "ending": "47"},
    ]
    assert request["claim"] == {}


async def test_only_an_operator_judges_and_in_words(shop: Desk) -> None:
    request = (await shop.give_back(await shop.sold(), reason="other", note="No.")).json()
    path, body = f"/v1/returns/{request['id']}/judge", {"state": "granted", "finding": "Yes."}
    for by in ("business", "other", "provider"):
        assert (await shop.call("POST", path, body, by=by)).status_code == 403
    for faulty in ({"state": "granted"}, body | {"finding": " "}, body | {"state": "requested"}):
        assert (await shop.call("POST", path, faulty, by="operator")).status_code == 422
    unknown = f"/v1/returns/{ids.encode('ret', clock.new_id())}/judge"
    for absent in (unknown, "/v1/returns/ret_1/judge"):
        assert (await shop.call("POST", absent, body, by="operator")).status_code == 404


# --- races ------------------------------------------------------------------------------------------------------------


async def test_however_many_ask_and_judge_at_once_it_is_one_refund(shop: Desk) -> None:
    lead = await shop.sold()
    before = await money_of(shop)
    replies = await asyncio.gather(*(shop.give_back(lead, reason="other", note="No.") for _ in range(4)))
    assert sorted(reply.status_code for reply in replies) == [201, 409, 409, 409]
    request = next(reply.json()["id"] for reply in replies if reply.status_code == 201)
    judged = await asyncio.gather(*(shop.judge(request, state) for state in ("granted", "denied", "granted", "denied")))
    assert {reply.status_code for reply in judged} == {200}
    [outcome] = {reply.json()["state"] for reply in judged}
    refunds = await shop.market.value("select count(*) from transfer where kind = 'refund'")
    assert refunds == (outcome == "granted")
    moved = (before[0] + 5_000, 0, before[2] - 3_000) if outcome == "granted" else before
    assert await money_of(shop) == moved
    assert await ledger_is_right(shop)


async def test_a_provider_paid_nothing_has_nothing_taken_back(shop: Desk) -> None:
    payout = """update provider set payout = '{"type": "fixed", "minor": 0}'"""
    await shop.market.owner.execute(payout)
    lead = await shop.sold()
    request = (await shop.give_back(lead, reason="other", note="No.")).json()
    assert (await shop.judge(request["id"], "granted")).json()["state"] == "granted"
    assert (await shop.inquiry(lead))["payout"] is None
    assert await ledger_is_right(shop)
