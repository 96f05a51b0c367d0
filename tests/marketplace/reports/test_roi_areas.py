"""Areas of the comparison of exclusive and shared leads: a postal code means nothing without its country."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from marketplace.database.db import open_pool
from marketplace.database.migrate import migrations_directory
from marketplace.reports.roi import RECORD
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from routing.subscription import ZIP_COUNTRIES
from tests.builders.feedback import Desk, desk
from tests.builders.inquiries import roofing_body
from tests.builders.service import follow_outcomes
from tests.marketplace.journey.test_corrections import correct


@pytest.fixture
async def buying(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)


def contact(number: int, country: str, code: str) -> dict[str, Any]:
    made: dict[str, Any] = roofing_body(number)["contact"]
    return made | {"country": country, "postal_code": code}


def shared(number: int, postal_code: str | None) -> dict[str, Any]:
    return {
        "vendor": "BigLeads",
        "external_id": f"x{number}",
        "received_at": (clock.now() - timedelta(days=2)).isoformat(),
        "vertical": "roofing",
        "postal_code": postal_code,
        "cost_minor": 3_000,
        "currency": "USD",
    }


async def test_a_lead_from_another_country_is_in_no_area_of_the_verticals(buying: Desk) -> None:
    """Two in Chicago, one in San Juan, which shares the ZIP codes, and one with Chicago's code in India."""
    lead = await buying.sold(1)
    await buying.sold(2)
    await buying.sold(3, contact=contact(3, "PR", "00901"))
    await buying.sold(4, contact=contact(4, "IN", "606140"))
    codes = await buying.market.owner.fetch("select postal_code from exclusive_outcome order by postal_code")
    assert [row["postal_code"] for row in codes] == ["00901", "60614", "60614", None]
    assert (await buying.tell(lead, kind="contacted", happened_at=clock.now().isoformat())).status_code == 201
    bought = [
        shared(1, "60614") | {"contacted_at": clock.now().isoformat()},
        shared(2, "60601-1234"),
        shared(3, "00901"),
        shared(4, "606"),
        shared(5, None),
    ]
    imported = await buying.call("POST", "/v1/shared-leads", {"leads": bought})
    assert imported.json()["added"] == len(bought), imported.text
    report = (await buying.call("GET", "/v1/reports/roi")).json()
    strata = {(one["area"], one["exclusive"], one["shared"]) for one in report["strata"]}
    assert strata == {("606", 2, 3), ("009", 1, 1)}


async def test_kept_records_of_leads_from_elsewhere_lose_their_area_in_an_upgrade(buying: Desk) -> None:
    """What an older release kept: the area of every code, whichever its country."""
    await buying.sold(1)
    await buying.sold(2, contact=contact(2, "IN", "606140"))
    owner = buying.market.owner
    async with await open_pool(buying.market.settings.database_url or "", "marketplace_worker", size=1) as pool:
        await follow_outcomes(pool, owner)
    kept = "select string_agg(records, '' order by run) from kept_outcome_run"
    today = await owner.fetchval(kept)
    await owner.execute(
        "update kept_outcome set record = overlay(record placing int4send(area_number('60614')) from 9 for 4); "
        "update kept_outcome_run set records = (select string_agg(record, '' order by number) from kept_outcome)"
    )
    assert await owner.fetchval(kept) != today
    migration = (migrations_directory() / "0044_old_rows_and_areas.sql").read_text()
    await owner.execute(migration[migration.index("update kept_outcome k set") :])
    assert await owner.fetchval(kept) == today
    assert len(today) == 2 * RECORD.itemsize


async def test_a_lead_moves_to_its_corrected_area_and_budget(buying: Desk) -> None:
    """One of two leads of Chicago was recorded with the wrong postal code and budget."""
    lead = await buying.sold(1)
    assert (await buying.tell(lead, kind="contacted", happened_at=clock.now().isoformat())).status_code == 201
    lead_id = ids.decode("lead", await buying.sold(2))
    assert lead_id is not None
    owner = buying.market.owner
    async with await open_pool(buying.market.settings.database_url or "", "marketplace_worker", size=1) as pool:
        await follow_outcomes(pool, owner)
        changes = {"bant": {"budget": {"minor": 5, "currency": "USD"}}, "contact": {"postal_code": "10001-1234"}}
        await correct(buying.market, lead_id, changes)
        rows = await owner.fetch("select postal_code, budget_minor from exclusive_outcome order by postal_code")
        assert tuple(rows[0]) == ("10001", 5)
        assert rows[1]["postal_code"] == "60614"
        contacted = shared(1, "60614") | {"contacted_at": clock.now().isoformat()}
        bought = {"leads": [contacted, shared(2, "10001")]}
        assert (await buying.call("POST", "/v1/shared-leads", bought)).json()["added"] == 2
        at_once = (await buying.call("GET", "/v1/reports/roi")).json()["strata"]
        await follow_outcomes(pool, owner)
        assert (await buying.call("GET", "/v1/reports/roi")).json()["strata"] == at_once
    bands = await owner.fetch("select get_byte(record, 46) as band from kept_outcome order by band")
    assert bands[0]["band"] == 3
    assert {(row["area"], row["exclusive"], row["shared"]) for row in at_once} == {("100", 1, 1), ("606", 1, 1)}


async def test_the_schema_knows_the_countries_of_zip_codes(buying: Desk) -> None:
    countries = [*sorted(ZIP_COUNTRIES), "CA", "GB", "IN", "AQ"]
    rows = await buying.market.owner.fetch(
        "select a, b, shares_codes(a, b) as alike from unnest($1::text[]) a cross join unnest($1::text[]) b", countries
    )
    for row in rows:
        assert row["alike"] is (row["a"] == row["b"] or {row["a"], row["b"]} <= ZIP_COUNTRIES)
