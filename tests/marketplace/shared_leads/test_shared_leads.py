"""Shared leads over the wire: files as vendors export them, and what the comparison makes of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest

from marketplace.database.db import open_pool
from marketplace.reports import roi
from marketplace.reports.question import Question
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from tests.builders.service import Served, follow_outcomes, serve
from tests.builders.world import World

VENDOR_FILE = """\
\ufeffLead ID;Source;Zip;Created;Price;Called on;Sold on;Job value;Lost
A-1;BigLeads;60614;21.03.2026 10:00;$1.234,50;21.03.2026;02.04.2026;9.800,00;
A-2;BigLeads;60614;22.03.2026;35,00;;;;30.03.2026
A-3;BigLeads;60614;31.02.2026;35,00;;;;
A-4;BigLeads;60614;22.03.2026;a lot;;;;
A-5;BigLeads;60614;22.03.2026;35,00;;20.03.2026;100;
A-6;BigLeads;60614;22.03.2026;35,00;;25.03.2026;;
A-7;BigLeads;60614;22.03.2199;35,00;;;;
;BigLeads;60614;22.03.2026;35,00;;;;
A-8;BigLeads;60614
A-1;BigLeads;60614;21.03.2026;35,00;;;;
"""


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


async def send(api: Served, what: str, text: str | bytes, key: str, mapping: object = None) -> httpx.Response:
    raw = text.encode() if isinstance(text, str) else text
    query = f"?mapping={quote(json.dumps(mapping))}" if mapping is not None else ""
    return await api.call("POST", f"/v1/shared-leads:{what}{query}", raw, key=key, headers={"content-type": "text/csv"})


def a_lead(number: int, **known: Any) -> dict[str, Any]:
    return {
        "vendor": "BigLeads",
        "external_id": f"x{number}",
        "received_at": "2026-03-01T10:00:00Z",
        "cost_minor": 3_000,
        "currency": "USD",
    } | known


async def test_a_vendors_file_is_understood_as_it_is_before_anything_is_kept(api: Served) -> None:
    _, key = await api.business()
    seen = (await send(api, "preview", VENDOR_FILE, key)).json()
    assert seen["mapping"]["columns"] == {
        "vendor": "Source",
        "external_id": "Lead ID",
        "postal_code": "Zip",
        "received_at": "Created",
        "cost": "Price",
        "contacted_at": "Called on",
        "won_at": "Sold on",
        "won_value": "Job value",
        "lost_at": "Lost",
    }
    assert (seen["mapping"]["dates"], seen["mapping"]["decimal"]) == ("dmy", ",")
    assert seen["mapping"]["zone"] == "America/Chicago"
    assert (seen["rows"], seen["good"], seen["conflict_count"], seen["refused_count"]) == (10, 2, 1, 7)
    assert seen["warning"].startswith("2 rows of won leads are refused.")
    first = seen["leads"][0]
    assert (first["cost_minor"], first["won_minor"]) == (123_450, 980_000)
    assert first["received_at"] == "2026-03-21T15:00:00Z"  # ten o'clock in Chicago
    assert first["contacted_at"] == first["received_at"]  # a day without a time, the day of receipt
    assert (await api.call("GET", "/v1/shared-leads", key=key)).json()["data"] == []


async def test_the_good_rows_of_a_file_are_taken_and_the_bad_ones_given_back_with_reasons(api: Served) -> None:
    _, key = await api.business()
    taken = (await send(api, "import", VENDOR_FILE, key)).json()
    assert (taken["state"], taken["added"], taken["known"]) == ("done", 2, 0)
    assert [(row["row"], row["column"], row["code"]) for row in taken["refused"]] == [
        (4, "Created", "date_invalid"),
        (5, "Price", "amount_invalid"),
        (6, "Sold on", "before_received"),
        (7, "Job value", "field_missing"),
        (8, "Created", "in_future"),
        (9, "Lead ID", "field_missing"),
        (10, "Created", "field_missing"),
    ]
    assert [(row["row"], row["code"]) for row in taken["conflicts"]] == [(11, "same_id_other_contents")]
    assert "another received at, cost, contacted at, won at, won value" in taken["conflicts"][0]["detail"]
    assert all(row["detail"].endswith(".") for row in taken["refused"])
    again = (await send(api, "import", VENDOR_FILE, key)).json()
    assert (again["added"], again["known"], again["conflict_count"], len(again["refused"])) == (0, 2, 1, 7)
    kept = (await api.call("GET", "/v1/shared-leads", key=key)).json()["data"]
    assert [lead["external_id"] for lead in kept] == ["A-2", "A-1"]
    assert [action for action, _ in await api.audited()].count("shared_leads.import") == 2


async def test_a_mapping_says_what_the_guess_cannot_know(api: Served) -> None:
    _, key = await api.business()
    text = "nr,when,paid\n1,03/04/2026 2:05 pm,30\n"
    unsure = await send(api, "preview", text, key)
    assert (unsure.status_code, {fault["pointer"] for fault in unsure.json()["errors"]}) == (
        422,
        {"/columns/external_id", "/columns/received_at", "/columns/cost", "/columns/vendor"},
    )
    columns = {"external_id": "nr", "received_at": "when", "cost": "paid"}
    mapping: dict[str, Any] = {"columns": columns, "vendor": "BigLeads", "dates": "mdy", "zone": "UTC"}
    seen = (await send(api, "preview", text, key, mapping)).json()
    assert seen["leads"][0]["received_at"] == "2026-03-04T14:05:00Z"
    for wrong, pointer in (
        (mapping | {"dates": "ymd"}, "/mapping/dates"),
        (mapping | {"zone": "Mars"}, "/zone"),
        (mapping | {"columns": columns | {"cost": "none"}}, "/columns/cost"),
        (mapping | {"vendor": ""}, "/mapping/vendor"),
        (mapping | {"what": 1}, "/mapping/what"),
    ):
        refused = await send(api, "preview", text, key, wrong)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "csv_unreadable"),
        (b"\n\n", 400, "csv_unreadable"),
        (b"id,cost\n\xff\xfe,1\n", 400, "csv_unreadable"),
        (b'id,cost\n"1,2\n', 400, "csv_unreadable"),
        (b"PK\x03\x04\x00\x00", 400, "csv_unreadable"),
        (b"id,received,cost,vendor\n" + b"1,2026-01-01,1,v\n" * 100_001, 413, "body_too_large"),
        (b"x" * (16 * 2**20 + 1), 413, "body_too_large"),
        (b"id,id,received,cost,vendor\n1,2,2026-01-01,1,v\n", 422, "validation_failed"),
    ],
)
async def test_what_is_no_such_file_is_refused_before_any_row_is_taken(
    api: Served, raw: bytes, status: int, code: str
) -> None:
    _, key = await api.business()
    refused = await send(api, "import", raw, key)
    assert (refused.status_code, refused.json()["code"]) == (status, code)


async def test_leads_sent_one_by_one_are_kept_once_however_often_they_come(api: Served) -> None:
    _, key = await api.business()
    body = {"leads": [a_lead(number) for number in range(200)]}
    replies = await asyncio.gather(*(api.call("POST", "/v1/shared-leads", body, key=key) for _ in range(4)))
    assert sum(reply.json()["added"] for reply in replies) == 200
    assert sum(reply.json()["known"] for reply in replies) == 600
    page = (await api.call("GET", "/v1/shared-leads?limit=150", key=key)).json()
    rest = (await api.call("GET", f"/v1/shared-leads?limit=150&cursor={page['next_cursor']}", key=key)).json()
    assert len({lead["external_id"] for lead in page["data"] + rest["data"]}) == 200


async def test_the_same_id_of_another_business_is_neither_known_nor_a_conflict(api: Served) -> None:
    (_, key), (_, other) = await api.business(), await api.business()
    assert (await api.call("POST", "/v1/shared-leads", {"leads": [a_lead(1)]}, key=key)).json()["added"] == 1
    reply = (await api.call("POST", "/v1/shared-leads", {"leads": [a_lead(1, cost_minor=1)]}, key=other)).json()
    assert (reply["added"], reply["known"]) == (1, 0)


async def test_faults_of_shape_and_content_of_leads_sent_are_told_together(api: Served) -> None:
    business, key = await api.business()
    leads = [a_lead(0, price=1), a_lead(1, currency="EUR"), a_lead(2, cost_minor="x", vertical="unknown")]
    places = {"/leads/0/price", "/leads/1/currency", "/leads/2/cost_minor", "/leads/2/vertical"}
    refused = await api.call("POST", "/v1/shared-leads", {"leads": leads}, key=key)
    assert (refused.status_code, {fault["pointer"] for fault in refused.json()["errors"]}) == (422, places)
    refused = await api.call("POST", "/v1/shared-leads", {"leads": leads, "business_id": business})
    assert {fault["pointer"] for fault in refused.json()["errors"]} == places
    whole = await api.call("POST", "/v1/shared-leads", b"{", key=key)
    assert [fault["code"] for fault in whole.json()["errors"]] == ["json_invalid"]


async def test_a_fault_in_one_lead_sent_refuses_all_of_them_and_names_each(api: Served) -> None:
    _, key = await api.business()
    soon = (clock.now() + timedelta(hours=1)).isoformat()
    won = {"won_at": "2026-03-02T00:00:00Z", "won_minor": 1}
    table = {
        "/leads/1/currency": a_lead(1, currency="EUR"),
        "/leads/2/vertical": a_lead(2, vertical="unknown"),
        "/leads/3/received_at": a_lead(3, received_at=soon),
        "/leads/4/won_minor": a_lead(4, won_at=won["won_at"]),
        "/leads/5/lost_at": a_lead(5, won_minor=1, lost=True),
        "/leads/6/lost_at": a_lead(6, lost_at=won["won_at"], **won),
        "/leads/7/contacted_at": a_lead(7, contacted_at="2026-02-01T00:00:00Z"),
    }
    refused = await api.call("POST", "/v1/shared-leads", {"leads": [a_lead(0), *table.values()]}, key=key)
    assert {fault["pointer"] for fault in refused.json()["errors"]} == set(table)
    for leads in ([], [a_lead(n) for n in range(501)], [a_lead(1, price=1)]):
        assert (await api.call("POST", "/v1/shared-leads", {"leads": leads}, key=key)).status_code == 422
    assert (await api.call("GET", "/v1/shared-leads", key=key)).json()["data"] == []


async def test_a_list_of_shared_leads_opens_in_a_spreadsheet_and_runs_nothing(api: Served) -> None:
    _, key = await api.business()
    await api.call("POST", "/v1/shared-leads", {"leads": [a_lead(1, external_id="=1+1", vendor="@cmd")]}, key=key)
    text = (await api.call("GET", "/v1/shared-leads?format=csv", key=key)).text
    assert "'=1+1" in text
    assert "'@cmd" in text


async def test_a_shared_lead_is_never_changed(api: Served) -> None:
    import asyncpg

    _, key = await api.business()
    await api.call("POST", "/v1/shared-leads", {"leads": [a_lead(1)]}, key=key)
    with pytest.raises(asyncpg.RestrictViolationError):
        await api.pool.execute("update shared_lead set cost_minor = 1")


# --- the report ---------------------------------------------------------------------------------------------------


async def told(
    pool: Any, world: World, days_old: int, *events: tuple[str, int, int | None], source: str = "api", reported: int = 0
) -> UUID:
    """A delivered lead of so many days ago, and what its business said, `reported` days ago: kind, days after receipt,
    value."""
    lead = await world.lead("delivered")
    at = clock.now() - timedelta(days=days_old)
    await pool.execute("update assignment set exposed_at = $2 where id = $1", lead.assignment_id, at)
    for kind, after, value in events:
        await pool.execute(
            """insert into disposition (id, assignment_id, lead_id, business_id, kind, value_minor, happened_at,
                recorded_at, source) values ($1, $2, $3, $4, $5, $6, $7, now() - make_interval(days => $9), $8)""",
            clock.new_id(),
            lead.assignment_id,
            lead.id,
            world.business,
            kind,
            value,
            at + timedelta(days=after),
            source,
            reported,
        )
    assert lead.assignment_id is not None
    return lead.assignment_id


async def a_world(api: Served) -> World:
    connection = await api.pool.acquire()
    world = World(connection)
    await world.make()
    await world.top_up(world.business, 1_000_000)
    return world


async def test_a_business_sees_its_own_leads_told_from_what_it_said_last(api: Served) -> None:
    world = await a_world(api)
    key = await api.key("business", world.business)
    won = (("contacted", 0, None), ("won", 20, 900_000))
    for _ in range(12):
        await told(api.pool, world, 120, *won)
    for _ in range(20):
        await told(api.pool, world, 120, ("contacted", 1, None), ("lost", 30, None))
    await told(api.pool, world, 120, *won, ("lost", 25, None))  # cancelled after it was won
    await told(api.pool, world, 2, ("contacted", 0, None))
    await world.lead("returned")
    report = (await api.call("GET", "/v1/reports/roi", key=key)).json()
    ours = report["answer"]["exclusive"]
    assert (ours["leads"], ours["outcomes"], ours["wins"], ours["open"]) == (34, 33, 12, 1)
    assert ours["spent_minor"] == 34 * 4_000
    assert ours["win_rate"]["value"] == pytest.approx(12 / 33)
    assert ours["revenue_per_unit"]["value"] == pytest.approx(12 / 33 * 900_000 / 4_000)
    assert (report["returned"], report["currency"], report["answer"]["verdict"]) == (1, "USD", "nothing_to_compare")
    assert report["basis"]["words"].startswith("by time at which the business received the lead, UTC, ")
    await api.pool.release(world.connection)


async def test_leads_that_came_after_the_last_report_of_their_business_are_no_failures(api: Served) -> None:
    world = await a_world(api)
    key = await api.key("business", world.business)
    for number in range(40):
        await told(api.pool, world, 170, ("won", 20, 100_000) if number < 12 else ("lost", 30, None), reported=70)
    before = (await api.call("GET", "/v1/reports/roi", key=key)).json()["answer"]
    for days_old in (65, 90):
        for _ in range(40):
            await told(api.pool, world, days_old)
    after = (await api.call("GET", "/v1/reports/roi", key=key)).json()["answer"]
    assert (before["exclusive"]["leads"], after["exclusive"]["leads"]) == (40, 120)
    assert after["exclusive"]["win_rate"]["value"] == pytest.approx(12 / 40, abs=0.02)
    assert any("reported 70 days ago" in note for note in after["notes"])
    await api.pool.release(world.connection)


async def test_a_comparison_with_demo_leads_in_it_says_so(api: Served) -> None:
    world = await a_world(api)
    key = await api.key("business", world.business)
    await told(api.pool, world, 120, ("contacted", 1, None))
    assert (await api.call("GET", "/v1/reports/roi", key=key)).json()["basis"]["demo"] is False
    await told(api.pool, world, 120, ("contacted", 1, None), source="demo")
    assert (await api.call("GET", "/v1/reports/roi", key=key)).json()["basis"]["demo"] is True
    await api.pool.release(world.connection)


async def test_declared_figures_are_labelled_and_give_way_to_an_import(api: Served) -> None:
    world = await a_world(api)
    key = await api.key("business", world.business)
    for number in range(40):
        await told(api.pool, world, 120, ("won", 5, 100_000) if number < 15 else ("lost", 5, None))
    benchmark = {"source": "trade survey", "currency": "USD", "shared_cost_minor": 3_000}
    bare = benchmark | {"shared_win_rate": 0.05}
    assert (await api.call("PUT", "/v1/roi-assumptions", bare)).status_code == 200
    result = (await api.call("GET", "/v1/reports/roi", key=key)).json()["answer"]
    assert (result["shared"]["basis"], result["verdict"]) == ("benchmark", "cannot_tell")
    benchmark |= {"shared_leads": 2_000, "shared_won": 100, "shared_weeks": 13}
    assert (await api.call("PUT", "/v1/roi-assumptions", benchmark)).status_code == 200
    result = (await api.call("GET", "/v1/reports/roi", key=key)).json()["answer"]
    assert (result["shared"]["basis"], result["verdict"]) == ("benchmark", "likely_yes")
    assert "the operator's benchmark" in result["sentence"]
    own = benchmark | {"source": "our invoices", "shared_won": 1_800, "labour_minor": 1_000}
    assert (await api.call("PUT", "/v1/roi-assumptions", own, key=key)).status_code == 200
    result = (await api.call("GET", "/v1/reports/roi", key=key)).json()["answer"]
    assert (result["shared"]["basis"], result["verdict"]) == ("declared", "likely_no")
    assert result["exclusive"]["spent_minor"] == 40 * 5_000
    leads = [a_lead(n, received_at=(clock.now() - timedelta(days=130)).isoformat()) for n in range(60)]
    ended = {"lost_at": (clock.now() - timedelta(days=90)).isoformat()}
    won = {"won_at": ended["lost_at"], "won_minor": 50_000}
    sent = [lead | (won if n < 12 else ended) for n, lead in enumerate(leads)]
    assert (await api.call("POST", "/v1/shared-leads", {"leads": sent}, key=key)).json()["added"] == 60
    result = (await api.call("GET", "/v1/reports/roi", key=key)).json()["answer"]
    assert (result["shared"]["basis"], result["shared"]["wins"]) == ("imported", 12)
    assert result["shared"]["win_rate"]["value"] == pytest.approx(0.2)
    text = (await api.call("GET", "/v1/reports/roi?format=csv", key=key)).text
    assert text.startswith("about,figure,value,low,high\r\n")
    assert "shared,basis,imported" in text
    await api.pool.release(world.connection)


async def test_what_is_kept_for_the_whole_marketplace_is_what_a_recount_gives(api: Served, settings: Settings) -> None:
    world = await a_world(api)
    for number in range(8):
        await told(api.pool, world, 100 + number, ("won", 5, 1_000) if number % 2 else ("contacted", 1, None))
    worker = await open_pool(settings.database_url or "", "marketplace_worker", size=2)
    async with worker:
        await follow_outcomes(worker, api.pool, changes=7)
        await told(api.pool, world, 100, ("lost", 50, None))
        late = await api.pool.fetchval("select id from assignment order by id limit 1")
        await api.pool.execute(
            """insert into disposition (id, assignment_id, lead_id, business_id, kind, happened_at, recorded_at, source)
            select gen_random_uuid(), id, lead_id, business_id, 'lost', now(), now(), 'api'
            from assignment where id = $1""",
            late,
        )
        await follow_outcomes(worker, api.pool, changes=1_000)
    assert await api.pool.fetchval("select count(*) from kept_outcome") == 9
    sizes = "select sum(length(records)) / 48 from kept_outcome_run"
    assert await api.pool.fetchval(sizes) == 9
    today = datetime.now(UTC).date()
    question = Question(first=today - timedelta(days=199), last=today, zone="America/Chicago")
    reports = await open_pool(settings.database_url or "", "marketplace_reports", size=1)
    async with reports:
        pooled = await roi.load_roi(reports, question)
        own = await roi.load_roi(
            reports, Question(first=question.first, last=question.last, zone=question.zone, business_id=world.business)
        )
    assert pooled.answer.exclusive == own.answer.exclusive
    assert pooled.business_id is None
    await api.pool.release(world.connection)


async def test_a_business_sees_at_once_what_no_worker_has_followed_yet(api: Served, settings: Settings) -> None:
    world = await a_world(api)
    for number in range(6):
        await told(api.pool, world, 100 + number, ("contacted", 1, None))
    worker = await open_pool(settings.database_url or "", "marketplace_worker", size=2)
    reports = await open_pool(settings.database_url or "", "marketplace_reports", size=1)
    span = (world.business, "USD", clock.now() - timedelta(days=199), clock.now())

    async def own() -> tuple[list[bytes], list[bytes]]:
        """Return the records that the report reads, and those of a recount."""
        packed = await reports.fetchval(roi.SQL["list_own"], *span)
        rows = await api.pool.fetch(
            "select record from exclusive_record where business_id = $1 and currency = $2 and received_at >= $3 "
            "and received_at < $4",
            *span,
        )
        size = roi.RECORD.itemsize
        return sorted(packed[at : at + size] for at in range(0, len(packed), size)), sorted(row[0] for row in rows)

    async with worker, reports:
        await follow_outcomes(worker, api.pool, changes=1_000)
        before, truth = await own()
        assert before == truth
        assert len(truth) == 6
        await api.pool.execute(
            """insert into disposition (id, assignment_id, lead_id, business_id, kind, value_minor, happened_at,
                recorded_at, source)
            select gen_random_uuid(), id, lead_id, business_id, 'won', 9000, now(), now(), 'api'
            from assignment order by id limit 1"""
        )
        await told(api.pool, world, 90, ("won", 5, 1_000))  # one that is not kept at all
        after, truth = await own()
        assert after == truth != before
        assert len(truth) == 7
    await api.pool.release(world.connection)


async def test_questions_that_have_no_answer_are_refused(api: Served) -> None:
    _, key = await api.business()
    for query in ("mode=test", "basis=won", "currency=usd", "from=2026-02-30", "zone=Mars", "from=2020-01-01"):
        assert (await api.call("GET", f"/v1/reports/roi?{query}", key=key)).status_code == 422, query
    assert (await api.call("GET", "/v1/reports/roi?vertical=unknown", key=key)).status_code == 404
    stranger = ids.encode("biz", UUID(int=7))
    assert (await api.call("GET", f"/v1/reports/roi?business_id={stranger}")).status_code == 404
    for body in (
        {"source": "x", "currency": "USD", "shared_cost_minor": 1},
        {"source": "x", "currency": "USD", "shared_cost_minor": 0, "shared_win_rate": 0.1},
        {"source": "x", "currency": "USD", "shared_cost_minor": 1, "shared_win_rate": 1.1},
        {"source": "x", "currency": "USD", "shared_cost_minor": 1, "shared_leads": 9, "shared_won": 1},
        {"source": "x", "currency": "USD", "shared_leads": 9, "shared_won": 1, "shared_weeks": 13},
        {
            "source": "x",
            "currency": "USD",
            "shared_cost_minor": 1,
            "shared_leads": 9,
            "shared_won": 10,
            "shared_weeks": 13,
        },
        {
            "source": "x",
            "currency": "USD",
            "shared_cost_minor": 1,
            "shared_leads": 9,
            "shared_won": 1,
            "shared_weeks": 13,
            "shared_win_rate": 0.1,
        },
        {"source": " ", "currency": "USD"},
        {"source": "x", "currency": "USD", "labour_minor": -1},
    ):
        assert (await api.call("PUT", "/v1/roi-assumptions", body, key=key)).status_code == 422, body
    unknown = {"source": "x", "currency": "USD", "vertical": "unknown"}
    assert (await api.call("PUT", "/v1/roi-assumptions", unknown, key=key)).status_code == 404
