"""Giving a lead back: judged by the record or by a person, refunded once, and both sides see why."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from marketplace import clock, ids
from marketplace.verify import verify
from tests.builders.feedback import Desk, uuid_of
from tests.builders.inquiries import roofing_body
from tests.builders.service import until
from tests.receivers import drop_after_read, refuse
from tests.waiting import PATIENCE


async def books_are_right(told: Desk) -> bool:
    connection = await asyncpg.connect(told.market.settings.database_url)
    try:
        return (await verify(connection)).findings == 0
    finally:
        await connection.close()


async def money_of(told: Desk) -> tuple[int, int, int]:
    """Available, held, and what the provider is owed."""
    available, held = await told.market.wallet(told.buyer)
    owed = (await told.call("GET", "/v1/earnings", by="provider")).json()["data"]
    return available, held, owed[0]["owed_minor"] if owed else 0


async def rewrite(told: Desk, table: str, sql: str, *values: Any) -> None:
    """Changes what is never changed, as a fault in our own rules would have written it from the start."""
    owner = told.market.owner
    await owner.execute(f"alter table {table} disable trigger {table}_is_final")
    await owner.execute(sql, *values)


GRANTED, DENIED, DESK = ("granted", "machine"), ("denied", "machine"), ("requested", None)


async def filed(reply: httpx.Response, state: tuple[str, str | None]) -> dict[str, Any]:
    assert reply.status_code == 201, reply.text
    asked: dict[str, Any] = reply.json()
    assert (asked["state"], asked["judged_by"]) == state, asked
    assert (asked["finding"] is None) == (state == DESK)
    return asked


# --- what the record settles ------------------------------------------------------------------------------------------


async def test_a_second_lead_of_the_same_person_is_taken_back_at_once(told: Desk) -> None:
    first, second, third = [await told.sold(number) for number in (1, 2, 3)]
    known = "insert into person_key (lead_id, key) select $2, key from person_key where lead_id = $1"
    await told.market.owner.execute(known, uuid_of(first), uuid_of(second))
    before = await money_of(told)
    asked = await filed(await told.give_back(second, reason="duplicate"), GRANTED)
    assert "was shown the same person" in asked["finding"]
    assert await money_of(told) == (before[0] + 5_000, 0, before[2] - 3_000)
    await filed(await told.give_back(first, reason="duplicate"), DESK)  # it was the first of the two
    await filed(await told.give_back(third, reason="duplicate"), DESK)  # a person may have given another number
    assert (await told.shown(second))["state"] == "returned"
    assert (await told.shown(second))["contact"] is None
    assert await books_are_right(told)


async def test_the_same_mailbox_in_another_spelling_is_the_same_person(told: Desk) -> None:
    person = roofing_body(1)["contact"] | {"email": "jane.doe@gmail.com"}
    again = person | {"email": "JaneDoe+roof@googlemail.com", "phone": "+1 312 555 0199"}
    await told.sold(1, contact=person)
    await told.market.owner.execute("delete from person_window")  # its window is over
    second = await told.sold(2, contact=again)
    await filed(await told.give_back(second, reason="duplicate"), GRANTED)


async def test_a_lead_of_a_person_who_was_erased_is_compared_by_a_person(told: Desk) -> None:
    lead = await told.sold()
    await told.call("POST", "/v1/erasures", {"lead_id": lead, "reason": "asked"}, by="operator")
    await filed(await told.give_back(lead, reason="duplicate"), DESK)


async def test_a_lead_from_outside_the_area_that_was_ordered_is_taken_back(told: Desk) -> None:
    inside, outside = await told.sold(1), await told.sold(2)
    await filed(await told.give_back(inside, reason="outside_area"), DENIED)
    area = """update subscription_version set definition = jsonb_set(definition, '{area}', '{"prefixes": ["90"]}')"""
    await rewrite(told, "subscription_version", area)
    asked = await filed(await told.give_back(outside, reason="outside_area"), GRANTED)
    assert "outside the area" in asked["finding"]


async def test_a_postal_code_that_was_ordered_in_another_country_is_outside_the_area(told: Desk) -> None:
    home, abroad = await told.sold(1), await told.sold(2)
    area = """update subscription_version
        set definition = jsonb_set(definition, '{area}', '{"postal_codes": ["60614"]}')"""
    await rewrite(told, "subscription_version", area)
    moved = """update inquiry set facts = jsonb_set(facts, '{place,country}', '"IN"') where id = $1"""
    await rewrite(told, "inquiry", moved, uuid_of(abroad))
    await filed(await told.give_back(home, reason="outside_area"), DENIED)
    await filed(await told.give_back(abroad, reason="outside_area"), GRANTED)


async def test_a_number_is_judged_by_what_intake_kept_of_it(told: Desk) -> None:
    good, unwanted = await told.sold(1), await told.sold(2)
    calls = [{"at": "2026-01-01T00:00:00Z", "outcome": "not_in_service"}]
    asked = await filed(await told.give_back(good, reason="invalid_number", calls=calls), DESK)
    assert [call["outcome"] for call in asked["calls"]] == ["not_in_service"]
    judged = await told.judge(asked["id"], "granted", "We called it too: the number is not in service.")
    assert judged.json()["state"] == "granted"
    persona = """update subscription_version
        set definition = jsonb_set(definition, '{persona}', '{"phone_types": ["voip"]}')"""
    await rewrite(told, "subscription_version", persona)
    await filed(await told.give_back(unwanted, reason="invalid_number"), GRANTED)


async def test_a_verdict_is_judged_as_it_was_shipped(told: Desk) -> None:
    stated, wrong, heard = await told.sold(1), await told.sold(2), await told.sold(4)
    bant = {"budget": {"minor": 1_200_000, "currency": "USD"}, "authority": "decision_maker",
            "need": {"fields": {"roof_type": "tile"}}, "timing": {"within_days": 14}}  # fmt: skip
    inferred = await told.sold(3, bant=bant | {"evidence": {"budget": "inferred"}})
    claim = {"dimension": "budget", "result": "fails"}
    await filed(await told.give_back(stated, reason="bant_mismatch", claim=claim), DENIED)
    spoke = [{"at": "2026-01-01T00:00:00Z", "outcome": "spoke"}]
    await filed(await told.give_back(heard, reason="bant_mismatch", claim=claim, calls=spoke), DESK)
    await filed(await told.give_back(inferred, reason="bant_mismatch", claim=claim), DESK)
    fails = """update decision set verdict = jsonb_set(verdict, '{findings,0,result}', '"fails"') where lead_id = $1"""
    await rewrite(told, "decision", fails, uuid_of(wrong))
    asked = await told.give_back(wrong, reason="bant_mismatch", claim=claim | {"result": "meets"})
    shown = await filed(asked, GRANTED)
    assert "shipped as “fails”, and the inquiry gives “meets”" in shown["finding"]
    assert shown["claim"] == claim | {"result": "meets"}


# --- what a person judges ---------------------------------------------------------------------------------------------


async def test_an_operator_grants_and_both_sides_read_why(told: Desk) -> None:
    lead = await told.sold()
    before = await money_of(told)
    asked = await filed(await told.give_back(lead, reason="wrong_person", note="It is a bakery."), DESK)
    assert await money_of(told) == before
    waiting = (await told.call("GET", "/v1/returns?state=requested", by="operator")).json()["data"]
    assert [(one["id"], one["note"], one["business_id"]) for one in waiting] == [
        (asked["id"], "It is a bakery.", told.business_id)
    ]
    granted = await told.judge(asked["id"], "granted", "The number belongs to a bakery.")
    assert (granted.status_code, granted.json()["state"]) == (200, "granted")
    mine = (await told.shown(lead))["returned"]
    assert (mine["finding"], mine["judged_by"], mine["provider_id"]) == (
        "The number belongs to a bakery.",
        "operator",
        None,
    )
    theirs = await told.inquiry(lead)
    assert (theirs["state"], theirs["reasons"], theirs["payout"]["minor"]) == ("returned", ["wrong_person"], 0)
    assert (theirs["returned"]["reason"], theirs["returned"]["finding"]) == (
        "wrong_person", "The number belongs to a bakery.",
    )  # fmt: skip
    assert "biz_" not in str(theirs)
    assert "bakery." not in str((await told.call("GET", "/v1/returns", by="other")).json())
    assert await money_of(told) == (before[0] + 5_000, 0, before[2] - 3_000)
    assert [action for action in await told.audited() if "return" in action] == ["return.request", "return.judge"]
    assert await books_are_right(told)


async def test_a_denied_return_moves_nothing_and_stands(told: Desk) -> None:
    lead = await told.sold()
    before = await money_of(told)
    asked = await filed(await told.give_back(lead, reason="fraud", note="A made-up name."), DESK)
    assert (await told.judge(asked["id"], "denied", "The person answered us.")).json()["state"] == "denied"
    stored = await told.judge(asked["id"], "granted", "Changed my mind.")
    assert (stored.status_code, stored.json()["finding"]) == (200, "The person answered us.")
    assert (await money_of(told), (await told.shown(lead))["state"]) == (before, "delivered")
    assert (await told.inquiry(lead))["returned"]["state"] == "denied"
    assert (await told.inquiry(lead))["payout"]["minor"] == 3_000


async def test_an_operator_may_overrule_a_machine_that_denied_and_nothing_else(told: Desk) -> None:
    lead = await told.sold()
    asked = await filed(await told.give_back(lead, reason="outside_area"), DENIED)
    assert (await told.judge(asked["id"], "denied")).json()["judged_by"] == "machine"
    assert (await told.judge(asked["id"], "granted", "The job is elsewhere.")).json()["state"] == "granted"
    assert (await told.judge(asked["id"], "denied")).json()["state"] == "granted"
    assert (await told.shown(lead))["returned"]["finding"] == "The job is elsewhere."
    assert await books_are_right(told)


async def test_a_rehearsal_is_given_back_without_money(told: Desk) -> None:
    lead = await told.rehearse()
    before = await money_of(told)
    asked = (await told.give_back(lead, by="test business", reason="other", note="Just trying.")).json()
    assert (await told.judge(asked["id"], "granted")).json()["mode"] == "test"
    assert (await money_of(told), (await told.shown(lead, by="test business"))["state"]) == (before, "returned")
    assert (await told.call("GET", "/v1/returns")).json()["data"] == []
    assert await books_are_right(told)


async def test_a_test_operator_neither_sees_nor_judges_what_is_live(told: Desk) -> None:
    lead = await told.sold()
    asked = (await told.give_back(lead, reason="other", note="No.")).json()
    assert (await told.call("GET", "/v1/returns", by="test operator")).json()["data"] == []
    body = {"state": "granted", "finding": "Yes."}
    reply = await told.call("POST", f"/v1/returns/{asked['id']}/judge", body, by="test operator")
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


# --- what may not be given back ---------------------------------------------------------------------------------------


async def test_a_lead_is_given_back_once_in_time_and_only_when_it_was_charged(told: Desk) -> None:
    lead, late = await told.sold(1), await told.sold(2)
    await told.delivered_at(late, clock.now() - timedelta(days=7, minutes=1))
    told.behave(refuse("other", 409))
    refused = await told.sold(3)
    told.behave(drop_after_read)
    lapsed = await told.sold(4)
    await told.market.owner.execute("update assignment set evidence_until = now() where lead_id = $1", uuid_of(lapsed))
    await told.market.delivery.deliver(
        await told.market.value("select id from assignment where lead_id = $1", uuid_of(lapsed))
    )
    exposed = await told.sold(5)
    await filed(await told.give_back(lead, reason="other", note="No."), DESK)
    rows = (
        (lead, "already_returned"), (late, "return_window_closed"), (refused, "nothing_charged"),
        (lapsed, "nothing_charged"), (exposed, "nothing_charged"),
    )  # fmt: skip
    for which, code in rows:
        reply = await told.give_back(which, reason="duplicate")
        assert (reply.status_code, reply.json()["code"]) == (409, code), reply.text
        assert (await told.give_back(which, reason="duplicate", by="other")).status_code == 404
    asked = (await told.call("GET", "/v1/returns")).json()["data"][0]
    await told.judge(asked["id"], "granted")
    again = await told.tell(lead, kind="won", value_minor=1)
    assert (again.status_code, again.json()["code"]) == (409, "already_returned")


async def test_no_more_are_given_back_than_the_quota_allows(told: Desk) -> None:
    leads = [await told.sold(number) for number in range(1, 8)]
    for lead in leads[:2]:
        await filed(await told.give_back(lead, reason="other", note="No."), DESK)
    await filed(await told.give_back(leads[2], reason="outside_area"), DENIED)  # does not count
    async with told.market.owner.acquire() as connection:
        async with connection.transaction():  # all four stand at the door of the last place, and are let in at once
            await connection.execute("select from lead for no key update")
            running = [asyncio.create_task(told.give_back(lead, reason="other", note="No.")) for lead in leads[3:]]
            waiting = """select count(*) = 4 from pg_stat_activity
                where wait_event_type = 'Lock' and datname = current_database()"""
            assert await until(lambda: told.market.value(waiting), seconds=PATIENCE)
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
        ({"reason": "bant_mismatch", "claim": {"dimension": "age", "result": "fails"}}, "/claim/dimension",
         "value_not_allowed"),
        ({"reason": "duplicate", "state": "granted"}, "/state", "unknown_field"),
        ({"reason": "duplicate", "note": "x" * 1_001}, "/note", "too_long"),
        ({"reason": "duplicate", "calls": [{"at": "2026-11-20T10:00:00Z", "outcome": "spoke", "number": "his mobile"}]},
         "/calls/0/number", "phone_invalid"),
        ({"reason": "duplicate", "calls": [{"at": "2099-01-01T00:00:00Z", "outcome": "spoke"}]}, "/calls/0/at",
         "value_not_allowed"),
        ({"reason": "duplicate", "calls": [{"at": "2026-01-01T00:00:00Z", "outcome": "sang"}]}, "/calls/0/outcome",
         "value_not_allowed"),
    ],
)  # fmt: skip
async def test_a_faulty_return_says_what_to_mend(told: Desk, body: dict[str, Any], pointer: str, code: str) -> None:
    reply = await told.give_back(await told.sold(), **body)
    assert reply.status_code == 422, reply.text
    assert [(fault["pointer"], fault["code"]) for fault in reply.json()["errors"]] == [(pointer, code)]


async def test_a_call_by_a_clock_a_little_ahead_of_ours_is_taken(told: Desk) -> None:
    calls = [
        {"at": (clock.now() + timedelta(minutes=4)).isoformat(), "outcome": "no_answer", "number": "+1 312 555 0147"}
    ]
    reply = await told.give_back(await told.sold(), reason="fraud", note="Made up.", calls=calls)
    assert reply.status_code == 201, reply.text


async def test_calls_come_back_with_two_digits_of_the_number_and_in_their_order(told: Desk) -> None:
    calls = [{"at": "2026-01-02T00:00:00Z", "outcome": "no_answer", "number": "+1 312 555 0147"},
             {"at": "2026-01-01T00:00:00Z", "outcome": "voicemail"}]  # fmt: skip
    asked = (await told.give_back(await told.sold(), reason="fraud", note="Made up.", calls=calls)).json()
    assert asked["calls"] == [
        {"at": "2026-01-01T00:00:00Z", "outcome": "voicemail", "ending": ""},
        {"at": "2026-01-02T00:00:00Z", "outcome": "no_answer", "ending": "47"},
    ]
    assert asked["claim"] == {}


async def test_only_an_operator_judges_and_in_words(told: Desk) -> None:
    asked = (await told.give_back(await told.sold(), reason="other", note="No.")).json()
    path, body = f"/v1/returns/{asked['id']}/judge", {"state": "granted", "finding": "Yes."}
    for by in ("business", "other", "provider"):
        assert (await told.call("POST", path, body, by=by)).status_code == 403
    for faulty in ({"state": "granted"}, body | {"finding": " "}, body | {"state": "requested"}):
        assert (await told.call("POST", path, faulty, by="operator")).status_code == 422
    unknown = f"/v1/returns/{ids.encode('ret', clock.new_id())}/judge"
    for absent in (unknown, "/v1/returns/ret_1/judge"):
        assert (await told.call("POST", absent, body, by="operator")).status_code == 404


# --- races ------------------------------------------------------------------------------------------------------------


async def test_however_many_ask_and_judge_at_once_it_is_one_refund(told: Desk) -> None:
    lead = await told.sold()
    before = await money_of(told)
    replies = await asyncio.gather(*(told.give_back(lead, reason="other", note="No.") for _ in range(4)))
    assert sorted(reply.status_code for reply in replies) == [201, 409, 409, 409]
    asked = next(reply.json()["id"] for reply in replies if reply.status_code == 201)
    judged = await asyncio.gather(*(told.judge(asked, state) for state in ("granted", "denied", "granted", "denied")))
    assert {reply.status_code for reply in judged} == {200}
    [outcome] = {reply.json()["state"] for reply in judged}
    refunds = await told.market.value("select count(*) from transfer where kind = 'refund'")
    assert refunds == (outcome == "granted")
    moved = (before[0] + 5_000, 0, before[2] - 3_000) if outcome == "granted" else before
    assert await money_of(told) == moved
    assert await books_are_right(told)


async def test_a_provider_paid_nothing_has_nothing_taken_back(told: Desk) -> None:
    payout = """update provider set payout = '{"type": "fixed", "minor": 0}'"""
    await told.market.owner.execute(payout)
    lead = await told.sold()
    asked = (await told.give_back(lead, reason="other", note="No.")).json()
    assert (await told.judge(asked["id"], "granted")).json()["state"] == "granted"
    assert (await told.inquiry(lead))["payout"] is None
    assert await books_are_right(told)
