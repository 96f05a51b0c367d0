"""What is known of a lead before it is contacted, by which the time to contact is compared among like leads."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import numpy as np
import pytest

from marketplace.database.db import open_pool
from marketplace.database.migrate import migrations_directory
from marketplace.reports.roi import RECORD, _kinds
from marketplace.runtime.settings import Settings
from tests.builders.feedback import Desk, desk
from tests.builders.inquiries import roofing_body
from tests.builders.service import follow_outcomes


@pytest.fixture
async def buying(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)


async def test_a_record_has_the_doublings_of_the_budget_and_an_upgrade_adds_them_to_stored_ones(buying: Desk) -> None:
    await buying.sold(1)
    bant = roofing_body()["bant"]
    await buying.sold(2, bant=bant | {"budget": {"minor": 2_400_000, "currency": "USD"}})
    owner = buying.market.owner
    async with await open_pool(buying.market.settings.database_url or "", "marketplace_worker", size=1) as pool:
        await follow_outcomes(pool, owner)
    stored = "select string_agg(records, '' order by run) from kept_outcome_run"
    records = await owner.fetchval(stored)
    bands = [int(told) >> 8 for told in np.frombuffer(records, RECORD)["told"]]
    assert sorted(bands) == [21, 22]  # 2^20 <= 1,200,000 < 2^21, and twice as much
    await owner.execute(
        "update kept_outcome set record = set_byte(record, 46, 0); "
        "update kept_outcome_run set records = (select string_agg(record, '' order by number) from kept_outcome)"
    )
    migration = (migrations_directory() / "0056_budget_bands.sql").read_text()
    await owner.execute(migration[migration.index("update kept_outcome k set") :])
    assert await owner.fetchval(stored) == records


async def test_a_record_says_whether_a_lead_was_held_back_at_random_or_could_have_been(buying: Desk) -> None:
    owner = buying.market.owner
    for number in (1, 2):
        await buying.sold(number)

    async def delayed() -> list[tuple[bool | None, int]]:
        rows = await owner.fetch(
            "select o.delayed, get_byte(r.record, 47) & 96 as bits "
            "from exclusive_outcome o join exclusive_record r using (assignment_id) order by r.received_at"
        )
        return [(row["delayed"], row["bits"]) for row in rows]

    assert await delayed() == [(None, 0)] * 2
    await owner.execute(
        "alter table vertical_version disable trigger user; "
        """update vertical_version set definition = definition || '{"delay_per_mille": 50}'"""
    )
    await owner.execute(
        "insert into decision (id, lead_id, made_at, outcome, reason, vertical_version, catalog_version, verdict) "
        "select gen_random_uuid(), lead_id, made_at - interval '1 minute', 'waiting', 'delayed', vertical_version, "
        "catalog_version, verdict from decision where lead_id = (select id from lead order by received_at desc limit 1)"
    )
    assert await delayed() == [(False, 32), (True, 64)]


def test_leads_are_of_one_kind_by_vertical_budget_part_of_the_day_and_weekend() -> None:
    def kind(at: datetime, vertical: int = 1, budget: int = 20, zone: str = "America/Chicago") -> int:
        received = np.array([int(at.timestamp())])
        return int(_kinds(np.array([vertical]), np.array([budget]), received, zone)[0])

    tuesday = datetime(2026, 3, 10, 15, tzinfo=UTC)  # 10:00 in Chicago
    assert kind(tuesday) == kind(tuesday.replace(day=11, hour=16))
    unlike = [
        kind(tuesday),
        kind(tuesday, vertical=2),
        kind(tuesday, budget=21),
        kind(tuesday.replace(hour=19)),
        kind(tuesday.replace(hour=23)),
        kind(tuesday.replace(hour=9)),
        kind(tuesday.replace(day=14)),
    ]
    assert len(set(unlike)) == len(unlike)
    assert kind(tuesday, zone="Asia/Kolkata") == kind(tuesday.replace(hour=23))  # an evening in both places
