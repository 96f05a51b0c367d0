"""Dispositions: recorded once per event, and never about a lead that the business does not have."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from marketplace.runtime import clock, ids
from tests.builders.feedback import Desk, ago, uuid_of
from tests.builders.inquiries import iso
from tests.receivers import drop_after_read, refuse


async def test_a_disposition_is_recorded_and_the_latest_by_its_time_is_where_the_lead_stands(shop: Desk) -> None:
    lead = await shop.sold()
    await shop.delivered_at(lead, clock.now() - timedelta(hours=3))
    won = await shop.tell(lead, kind="won", value_minor=1_250_000, happened_at=ago(minutes=1))
    late = await shop.tell(lead, kind="contacted", happened_at=ago(hours=2), note="will think about it")
    assert (won.status_code, late.status_code) == (201, 201)
    assert late.json()["source"] == "api"
    listed = (await shop.call("GET", "/v1/leads")).json()["data"]
    assert [(row["id"], row["disposition"], row["value_minor"]) for row in listed] == [(lead, "won", 1_250_000)]
    every = (await shop.call("GET", f"/v1/leads/{lead}/dispositions")).json()["data"]
    assert [(one["kind"], one["note"]) for one in every] == [("contacted", "will think about it"), ("won", None)]
    assert (await shop.audited()).count("lead.disposition") == 2


async def test_the_same_event_is_recorded_once_and_never_with_something_else_in_it(shop: Desk) -> None:
    lead = await shop.sold()
    body = {"kind": "won", "value_minor": 5, "event_id": "crm-7"}
    path = f"/v1/leads/{lead}/dispositions"
    replies = await asyncio.gather(*(shop.call("POST", path, body) for _ in range(4)))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 200, 201]
    assert len({reply.text for reply in replies}) == 1
    other = await shop.call("POST", path, body | {"value_minor": 6})
    assert (other.status_code, other.json()["code"]) == (409, "event_id_reused")
    by_header = [await shop.call("POST", path, {"kind": "quoted"}, Idempotency_Key="k-1") for _ in range(2)]
    assert [reply.status_code for reply in by_header] == [201, 200]
    assert by_header[1].headers["idempotency-replayed"] == "true"
    assert await shop.market.value("select count(*) from disposition") == 2


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/kind", "kind_missing"),
        ({"stage": "Signed"}, "/stage", "stage_unknown"),
        ({"kind": "sold"}, "/kind", "value_not_allowed"),
        ({"kind": "won"}, "/value_minor", "value_missing"),
        ({"kind": "won", "value_minor": -1}, "/value_minor", "out_of_range"),
        ({"kind": "won", "value_minor": 1.5}, "/value_minor", "type_wrong"),
        ({"kind": "won", "value_minor": 10**13}, "/value_minor", "out_of_range"),
        ({"kind": "quoted", "value_minor": 1}, "/value_minor", "value_not_allowed"),
        ({"kind": "won", "value_minor": 1, "reason": "price"}, "/reason", "value_not_allowed"),
        ({"kind": "appointment"}, "/starts_at", "starts_at_missing"),
        ({"kind": "contacted", "starts_at": "2026-11-21T10:00:00Z"}, "/starts_at", "value_not_allowed"),
        ({"kind": "appointment", "starts_at": "2026-11-21T10:00:00"}, "/starts_at", "offset_missing"),
        ({"kind": "appointment", "starts_at": "1999-01-01T00:00:00Z"}, "/starts_at", "starts_at_out_of_range"),
        ({"kind": "appointment", "starts_at": "2206-01-01T00:00:00Z"}, "/starts_at", "starts_at_out_of_range"),
        ({"kind": "lost", "reason": "because"}, "/reason", "value_not_allowed"),
        ({"kind": "contacted", "note": "x" * 1001}, "/note", "too_long"),
        ({"kind": "contacted", "note": "a\x00b"}, "/note", "character_not_allowed"),
        ({"kind": "contacted", "happened_at": "2026-11-21T10:00:00"}, "/happened_at", "offset_missing"),
        ({"kind": "contacted", "happened_at": "2999-01-01T00:00:00Z"}, "/happened_at", "happened_in_future"),
        ({"kind": "contacted", "happened_at": "1971-01-01T00:00:00+14:00"}, "/happened_at", "happened_before_delivery"),
        ({"kind": "contacted", "happened_at": "0001-01-01T00:00:00+14:00"}, "/happened_at", "out_of_range"),
        ({"kind": "contacted", "event_id": " "}, "/event_id", "value_not_allowed"),
        ({"kind": "contacted", "state": "won"}, "/state", "unknown_field"),
    ],
)
async def test_a_faulty_disposition_says_what_to_mend_and_records_nothing(
    shop: Desk, body: dict[str, Any], pointer: str, code: str
) -> None:
    lead = await shop.sold()
    reply = await shop.tell(lead, **body)
    assert reply.status_code == 422, reply.text
    assert [(fault["pointer"], fault["code"]) for fault in reply.json()["errors"]] == [(pointer, code)]
    assert await shop.market.value("select count(*) from disposition") == 0


async def test_nothing_is_recorded_of_a_lead_that_was_not_delivered(shop: Desk) -> None:
    held = ids.encode("lead", (await shop.market.submit(1)).id)
    await shop.market.distribution.distribute(uuid_of(held))
    shop.behave(refuse("other", 409))
    refused = await shop.sold(2)
    for lead, word in ((held, "not been delivered yet"), (refused, "refused")):
        reply = await shop.tell(lead, kind="contacted")
        assert (reply.status_code, reply.json()["code"]) == (409, "not_delivered")
        assert word in reply.json()["detail"]


async def test_a_lead_that_the_endpoint_took_without_a_word_may_be_reported_on(shop: Desk) -> None:
    shop.behave(drop_after_read)
    lead = await shop.sold()
    assert (await shop.tell(lead, kind="contacted")).status_code == 201
    assert (await shop.shown(lead))["contact"] is None


async def test_another_business_and_another_mode_find_no_such_lead(shop: Desk) -> None:
    lead = await shop.sold()
    test_lead = await shop.rehearse()
    assert (await shop.tell(test_lead, by="test business", kind="contacted")).status_code == 201
    for which, by in ((lead, "other"), (lead, "test business"), (test_lead, "business")):
        for method, path in (("GET", ""), ("GET", "/dispositions"), ("POST", "/dispositions"), ("POST", "/return")):
            body = {"kind": "contacted"} if path == "/dispositions" else {"reason": "duplicate"}
            reply = await shop.call(method, f"/v1/leads/{which}{path}", body if method == "POST" else None, by=by)
            assert (reply.status_code, reply.json()["code"]) == (404, "not_found"), (by, path)
    assert [row["id"] for row in (await shop.call("GET", "/v1/leads", by="test business")).json()["data"]] == [
        test_lead
    ]


# --- stages -----------------------------------------------------------------------------------------------------------


def words_of(pipeline: dict[str, Any]) -> list[tuple[str, str]]:
    """The name and kind of each stage of an answer, in order."""
    return [(stage["stage"], stage["kind"]) for stage in pipeline["stages"]]


async def test_a_business_reports_in_its_own_words(shop: Desk) -> None:
    lead = await shop.sold()
    stages = [{"stage": "Angebot", "kind": "quoted"}, {"stage": "Auftrag", "kind": "won"}]
    set_stages = await shop.call("PUT", "/v1/pipeline", {"stages": stages})
    assert words_of(set_stages.json()) == [("Angebot", "quoted"), ("Auftrag", "won")]
    assert (await shop.call("GET", "/v1/pipeline")).json() == set_stages.json()
    said = (await shop.tell(lead, stage="angebot")).json()
    assert (said["kind"], said["stage"]) == ("quoted", "angebot")
    assert (await shop.tell(lead, stage="Auftrag")).json()["errors"][0]["code"] == "value_missing"
    twice = await shop.call("PUT", "/v1/pipeline", {"stages": [stages[0], stages[0] | {"stage": "ANGEBOT"}]})
    assert (twice.status_code, twice.json()["errors"][0]["pointer"]) == (422, "/stages/1/stage")
    assert (await shop.call("PUT", "/v1/pipeline", {"stages": []})).json() == {"stages": []}
    assert (await shop.call("GET", f"/v1/leads/{lead}")).json()["dispositions"][0]["kind"] == "quoted"


async def test_two_who_set_the_stages_at_once_leave_one_of_both(shop: Desk) -> None:
    bodies = [{"stages": [{"stage": f"{name} {at}", "kind": "won"} for at in range(9)]} for name in "ab"]
    replies = await asyncio.gather(*(shop.call("PUT", "/v1/pipeline", bodies[at % 2]) for at in range(6)))
    assert {reply.status_code for reply in replies} == {200}
    both = [[(stage["stage"], stage["kind"]) for stage in body["stages"]] for body in bodies]
    assert words_of((await shop.call("GET", "/v1/pipeline")).json()) in both


async def test_how_a_business_reports_is_not_set_up_by_a_test_key(shop: Desk) -> None:
    for method, path, body in (("PUT", "/v1/pipeline", {"stages": []}), ("POST", "/v1/feedback-hook", None)):
        reply = await shop.call(method, path, body, by="test business")
        assert (reply.status_code, reply.json()["code"]) == (403, "key_wrong_mode")


# --- what a business is shown -----------------------------------------------------------------------------------------


async def test_a_delivered_lead_is_shown_with_all_that_was_shipped(shop: Desk) -> None:
    lead = await shop.sold()
    shown = await shop.shown(lead)
    assert shown["contact"]["email"] == "robin.1@example.com"
    assert (shown["price_minor"], shown["currency"], shown["state"]) == (5_000, "USD", "delivered")
    assert [finding["dimension"] for finding in shown["verdict"]["findings"]] == [
        "budget",
        "authority",
        "need",
        "timing",
    ]
    assert shown["facts"]["place"]["postal_code"] == "60614"
    assert (shown["dispositions"], shown["returned"], shown["clock"]["to_first_touch"]) == ([], None, None)


async def test_an_erased_person_is_shown_to_nobody_and_no_note_is_left(shop: Desk) -> None:
    lead = await shop.sold()
    await shop.tell(lead, kind="contacted", note="spoke with Robin")
    await shop.give_back(lead, reason="other", note="Robin is not at home")
    assert (await shop.call("POST", "/v1/erasures", {"lead_id": lead, "reason": "asked"}, by="operator")).is_success
    assert (await shop.tell(lead, kind="lost", note="Robin again")).status_code == 201
    shown = await shop.shown(lead)
    assert (shown["contact"], shown["erased"]) == (None, True)
    assert [one["note"] for one in shown["dispositions"]] == [None, None]
    assert shown["returned"]["note"] is None
    kept = await shop.market.value(
        "select string_agg(d::text, '') || (select r::text from return_request r) from disposition d"
    )
    assert "Robin" not in kept


async def test_first_touch_and_first_contact_are_told_by_the_wall_and_by_the_open_hours(shop: Desk) -> None:
    lead = await shop.sold()
    shown_at = clock.now() - timedelta(days=2)
    await shop.delivered_at(lead, shown_at)
    await shop.market.owner.execute("alter table subscription_version disable trigger subscription_version_is_final")
    never = """update subscription_version
        set definition = definition || '{"hours": {"spec": "2020 Jan 1 00:00-24:00", "zone": "America/Chicago"}}'"""
    await shop.market.owner.execute(never)
    for kind, minutes in (("quoted", 90), ("unreachable", 30), ("contacted", 60)):
        await shop.tell(lead, kind=kind, happened_at=iso(shown_at + timedelta(minutes=minutes)))
    times = (await shop.shown(lead))["clock"]
    assert times["to_first_touch"] == {"wall_seconds": 1_800, "open_seconds": 0}
    assert times["to_first_contact"] == {"wall_seconds": 3_600, "open_seconds": 0}
    await shop.market.owner.execute("update subscription_version set definition = definition - 'hours'")
    assert (await shop.shown(lead))["clock"]["to_first_contact"] == {"wall_seconds": 3_600, "open_seconds": 3_600}


async def test_an_appointment_has_a_time_and_counts_as_the_first_contact(shop: Desk) -> None:
    lead = await shop.sold()
    await shop.delivered_at(lead, clock.now() - timedelta(hours=3))
    starts_at = iso(clock.now() + timedelta(days=2))
    booked = await shop.tell(lead, kind="appointment", starts_at=starts_at, happened_at=ago(hours=2))
    assert (booked.status_code, booked.json()["starts_at"]) == (201, starts_at)
    assert (await shop.shown(lead))["clock"]["to_first_contact"]["wall_seconds"] == pytest.approx(3_600, abs=2)
    [row] = (await shop.call("GET", "/v1/leads?disposition=appointment")).json()["data"]
    assert (row["starts_at"], row["first_contact_at"] is None) == (starts_at, False)
    outcome = "select contacted_at is not null, qualified is not null from exclusive_outcome"
    assert tuple(await shop.market.owner.fetchrow(outcome)) == (True, False)


async def test_the_list_is_filtered_paged_and_written_as_a_file(shop: Desk) -> None:
    leads = [await shop.sold(number) for number in range(1, 6)]
    await shop.tell(leads[0], kind="won", value_minor=1)
    await shop.tell(leads[1], stage="=cmd()", kind="contacted")

    async def ids_of(query: str) -> list[str]:
        reply = await shop.call("GET", f"/v1/leads?{query}")
        assert reply.status_code == 200, reply.text
        return [row["id"] for row in reply.json()["data"]]

    assert await ids_of("") == leads[::-1]
    assert await ids_of("disposition=won") == leads[:1]
    assert await ids_of("disposition=none") == leads[:1:-1]
    assert await ids_of("state=lapsed") == []
    assert await ids_of(f"since={ago(hours=1)}") == leads[::-1]
    assert await ids_of(f"since={iso(clock.now() + timedelta(hours=1))}") == []
    page = (await shop.call("GET", "/v1/leads?limit=2")).json()
    assert page["has_more"] is True
    assert await ids_of(f"limit=2&cursor={page['next_cursor']}") == leads[2:0:-1]
    file = await shop.call("GET", "/v1/leads?format=csv&limit=4")
    lines = file.text.splitlines()
    assert (len(lines), lines[0].split(",")[0], 'rel="next"' in file.headers["link"]) == (5, "id", True)
    assert ",'=cmd()," in file.text
    assert "robin" not in file.text.lower()
    assert (await shop.call("GET", "/v1/leads", accept="text/csv")).text.count("\n") == 6


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("state=held", "/state"),
        ("disposition=sold", "/disposition"),
        ("since=yesterday", "/since"),
        ("since=2026-11-21T10:00:00", "/since"),
        ("cursor=lead_1", "/cursor"),
        ("limit=0", "/limit"),
    ],
)
async def test_a_filter_that_means_nothing_is_refused(shop: Desk, query: str, pointer: str) -> None:
    reply = await shop.call("GET", f"/v1/leads?{query}")
    assert (reply.status_code, reply.json()["errors"][0]["pointer"]) == (422, pointer)
