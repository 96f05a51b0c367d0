"""Reports over HTTP: what may be asked, by whom, and how it comes as a file."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from tests.builders.service import Served, serve, until
from tests.marketplace.reports.conftest import DAY, Ledger
from tests.waiting import PATIENCE

REPORTS = ("speed", "routing", "journey", "nurturing", "unsold", "quality", "money", "leads")
TENTH = "from=2026-03-10&to=2026-03-10"
NOON = DAY + timedelta(hours=12)
CSV = {"accept": "text/csv"}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


async def get(api: Served, path: str, key: str | None = None, **headers: str) -> Any:
    return await api.call("GET", f"/v1/reports/{path}", key=key, headers=headers)


async def test_a_question_that_makes_no_sense_is_refused_with_its_code(api: Served) -> None:
    table = {
        "from=yesterday": ("/from", "date_invalid"),
        "from=2026-02-30": ("/from", "date_invalid"),
        "to=20260310": ("/to", "date_invalid"),
        "to=2026-W10-2": ("/to", "date_invalid"),
        "from=0001-01-01": ("/from", "date_invalid"),
        "to=9999-12-31": ("/to", "date_invalid"),
        "from=2026-03-11&to=2026-03-10": ("/from", "range_reversed"),
        "from=2025-01-01&to=2026-03-10": ("/from", "range_too_long"),
        "zone=Chicago": ("/zone", "zone_unknown"),
        "zone=../etc/passwd": ("/zone", "zone_unknown"),
        "zone=%00": ("/zone", "character_not_allowed"),
        "vertical=%00": ("/vertical", "character_not_allowed"),
        "vertical=No": ("/vertical", "value_not_allowed"),
        "mode=both": ("/mode", "value_not_allowed"),
    }
    for report in REPORTS:
        for query, (pointer, code) in table.items():
            refused = await get(api, f"{report}?{query}")
            assert refused.status_code == 422, query
            assert [(each["pointer"], each["code"]) for each in refused.json()["errors"]] == [(pointer, code)], query
        assert (await get(api, f"{report}?from=2025-02-05&to=2026-03-11")).status_code == 200  # 400 days


NO_FILTERS = [
    "leads?reached=sold",
    "leads?stopped=1",
    "leads?state=gone",
    "leads?channel=fax",
    "leads?hour=24",
    "leads?hour=-1",
    "leads?hour=nan",
    "leads?within=1e99",
    "leads?within=x",
    "leads?subscription_id=7",
    "leads?missed_by=sub_7",
    "leads?limit=0",
    "leads?limit=201",
    "leads?cursor=7",
    "leads?cursor=lead_01m7zxrk0zezh9kk0e0qy31s5c",
    "leads?sub_id=%00",
    "leads?why=%01",
    "speed?by=moon",
    "money?period=hour",
    "money?by=vertical",
    "journey?by=business",
    "nurturing?by=hour",
]


async def test_a_filter_that_does_not_exist_is_refused(api: Served) -> None:
    for query in NO_FILTERS:
        assert (await get(api, query)).status_code == 422, query


async def test_a_word_that_nothing_has_finds_nothing(api: Served) -> None:
    for query in ("leads?why=%27%3B--", "leads?sub_id=none", "unsold?vertical=other"):
        assert (await get(api, query)).status_code == 200, query


async def test_the_usual_days_are_the_last_thirty_in_utc_and_live(api: Served) -> None:
    before = clock.now().date()
    told = (await get(api, "speed")).json()["basis"]
    today = clock.now().date()
    assert told["last"] in (str(before), str(today))
    assert told["first"] in (str(before - timedelta(days=29)), str(today - timedelta(days=29)))
    assert (told["zone"], told["mode"], told["demo"]) == ("UTC", "live", False)
    assert told["words"].startswith("by received time, UTC, ")


async def test_a_test_key_sees_test_leads_and_no_others(api: Served, ledger: Ledger) -> None:
    await ledger.lead("unsold", NOON, mode="test")
    await ledger.lead("unsold", NOON)
    await ledger.lead("unsold", NOON)
    await ledger.keep()
    key = await api.key("provider", ledger.providers["Quick"], "test")
    for query, who, count in ((TENTH, key, 1), (TENTH, None, 2), (f"{TENTH}&mode=test", None, 1)):
        assert (await get(api, f"routing?{query}", who)).json()["funnel"][0]["leads"] == count
    refused = await get(api, f"routing?{TENTH}&mode=live", key)
    assert (refused.status_code, refused.json()["code"]) == (403, "key_wrong_mode")


async def test_neither_side_learns_who_stands_on_the_other(api: Served, ledger: Ledger) -> None:
    lead = await ledger.sold("Ann", NOON)
    await ledger.decided(lead, "held", {"who": "Ann", "position": 1}, {"who": "Bob", "position": 2})
    await ledger.keep()
    provider = await api.key("provider", ledger.providers["Quick"])
    business = await api.key("business", ledger.businesses["Ann"])
    for by in ("business", "provider"):
        for key in (provider, business):
            assert (await get(api, f"speed?by={by}", key)).status_code == 422
            assert (await get(api, f"money?by={by}", key)).status_code == 422
    assert (await get(api, "journey?by=provider", provider)).status_code == 422
    assert (await get(api, "journey", business)).status_code == 403
    assert (await get(api, "nurturing", provider)).status_code == 403
    for report in REPORTS:
        shown = await get(api, f"{report}?{TENTH}", provider)
        assert not any(name in shown.text for name in ("Ann", "Bob", "Cat", "biz_")), report
    for report in ("speed", "routing", "unsold", "money", "leads"):
        shown = await get(api, f"{report}?{TENTH}", business)
        assert not any(name in shown.text for name in ("Bob", "Cat", "Quick", "Slow", "prov_")), report
    assert [row["id"] for row in (await get(api, f"leads?{TENTH}", business)).json()["data"]] == [
        ids.encode("lead", lead)
    ]


async def test_a_link_of_a_figure_is_answered_with_its_rows(api: Served, ledger: Ledger) -> None:
    for minute in range(5):
        await ledger.lead("unsold", NOON + timedelta(minutes=minute), reason="outside_area")
    await ledger.lead("rejected", NOON, reason="score_below")
    await ledger.keep()
    funnel = (await get(api, f"routing?{TENTH}&zone=America/Chicago")).json()["funnel"]
    link = next(loss["rows"] for loss in funnel[2]["losses"] if loss["why"] == "outside_area")
    seen: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        reply = await api.call("GET", f"{link}&limit=2{cursor}")
        page = reply.json()
        seen += page["data"]
        cursor = f"&cursor={page['next_cursor']}" if page["has_more"] else None
    assert [row["received_at"] for row in seen] == [f"2026-03-10T12:0{minute}:00Z" for minute in (4, 3, 2, 1, 0)]
    assert {(row["step"], row["why"], row["provider"], row["business"]) for row in seen} == {
        ("qualified", "outside_area", "Quick", None)
    }


async def test_every_report_comes_as_a_file(api: Served, ledger: Ledger) -> None:
    await ledger.sold("Ann", NOON)
    await ledger.keep()
    for report in REPORTS:
        await comes_as_a_file(api, report)


async def test_the_files_of_lane_and_journey_have_their_figures(api: Served, ledger: Ledger) -> None:
    lead = await ledger.sold("Ann", NOON, qualified_ms=7_200_000)
    await ledger.decided(lead, "nurturing")
    await ledger.keep()
    [total, roofing] = csv.DictReader(io.StringIO((await get(api, f"nurturing?{TENTH}&format=csv")).text))
    assert (total["key"], roofing["key"]) == ("all", "roofing")
    assert (roofing["sold"], roofing["currency"], roofing["margin_minor"]) == ("1", "USD", "2000")
    [roofing] = csv.DictReader(io.StringIO((await get(api, f"journey?{TENTH}&format=csv")).text))
    assert (roofing["prospects"], roofing["promoted"], roofing["median_seconds"]) == ("1", "1", "7200.0")


async def comes_as_a_file(api: Served, report: str) -> None:
    for reply in (
        await get(api, f"{report}?{TENTH}", accept="text/csv"),
        await get(api, f"{report}?{TENTH}&format=csv"),
    ):
        assert reply.headers["content-type"].startswith("text/csv")
        assert "attachment" in reply.headers["content-disposition"]
        lines = list(csv.reader(io.StringIO(reply.text, newline="")))
        assert len(lines) > 1 or report == "unsold"
        assert {len(line) for line in lines} == {len(lines[0])}


async def test_a_file_of_leads_runs_nothing_and_goes_on_behind_its_link(api: Served, ledger: Ledger) -> None:
    for place, text in enumerate(("=1+1", "+1", "-1", "@x", "\tx", "＝1")):  # noqa: RUF001 - as some type it
        await ledger.lead("unsold", NOON + timedelta(minutes=place), reason=text)
    await ledger.owner.execute("update provider set name = '=cmd'")
    await ledger.keep()
    first = await get(api, f"leads?{TENTH}&limit=4", accept="text/csv")
    rest = await api.call("GET", first.headers["link"].removeprefix("<").partition(">")[0], headers=CSV)
    rows = [row for reply in (first, rest) for row in csv.DictReader(io.StringIO(reply.text, newline=""))]
    assert [row["why"] for row in rows] == ["'＝1", "'\tx", "'@x", "'-1", "'+1", "'=1+1"]  # noqa: RUF001
    assert {row["provider"] for row in rows} == {"'=cmd"}
    page = (await get(api, f"leads?{TENTH}")).json()["data"]
    assert [(row["id"], row["provider_id"]) for row in rows] == [(row["id"], row["provider_id"]) for row in page]
    assert {row["received_at"][-1] for row in rows} == {"Z"}


async def test_a_refused_inquiry_is_counted_for_its_provider(api: Served) -> None:
    await api.vertical()
    provider, key = await api.provider()
    refused = await api.call("POST", "/v1/inquiries", {"vertical": "roofing", "provider_reference": "x"}, key=key)
    assert refused.status_code == 422

    async def counted() -> bool:
        return bool(await api.pool.fetchval("select count(*) from refusal_count"))

    assert await until(counted, PATIENCE)
    report = (await get(api, "quality", key)).json()
    told = {(fault["pointer"], fault["code"]) for fault in report["faults"]}
    assert report["total"]["refused"] == 1
    assert ("/contact", "field_missing") in told
    assert [row["key"] for row in report["providers"]] == [provider]
