"""Many stored leads: an installation whose database holds them, the disk they need, and the pages that are timed."""

import asyncpg
import pytest

from benchmarks import growth, million, pages
from benchmarks.end_to_end import SearchPlan
from benchmarks.growth import GrowthPlan
from marketplace.database.embedded import Engines
from marketplace.database.migrate import migrate
from marketplace.reports.catalogue import REPORTS
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError

LEADS = 2_000
PLAN = GrowthPlan(
    sizes=(LEADS,),
    seconds=1.0,
    search=SearchPlan(first_rate=20.0, seconds=1.0, probe_seconds=1.0, most_rate=20.0),
    rates=(20,),
    warm_up_seconds=0.5,
    repeat=1,
    workers=1,
)


async def store_leads_alone(running: Engines, leads: int) -> None:
    """Write the leads of the year without its hours in the reports, which take half a minute for any number."""
    await migrate(running.database_url)
    connection = await asyncpg.connect(running.database_url, server_settings={"session_replication_role": "replica"})
    try:
        await million.write_parties(connection)
        await million.write_leads(connection, leads, clock.now())
    finally:
        await connection.close()


@pytest.mark.slow
async def test_new_leads_reports_and_pages_are_measured_beside_stored_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "prepare", store_leads_alone)
    figures = (await growth.measure(PLAN, lambda words: None))[str(LEADS)]
    step = figures["rates"]["20"]
    assert 0 < step["accepted_to_acknowledged_ms"]["p50"] <= step["accepted_to_acknowledged_ms"]["p99"]
    assert all(step["cpu_ms_per_lead"].values())
    assert figures["highest_rate"] == 20
    assert {words.partition(",")[0] for words in figures["reports_p50_ms"]} == set(REPORTS)
    assert len(figures["reports_p50_ms"]) == 2 * len(REPORTS)
    assert figures["pages_p50_ms"].keys() == growth.MAIN_PAGES
    assert figures["database_gigabytes"] > 0.01


def test_the_main_pages_are_pages_of_the_portal() -> None:
    assert {page.path for page in growth.main_pages()} == growth.MAIN_PAGES


def test_too_little_disk_is_said_in_one_sentence_before_the_start() -> None:
    growth.check_disk((0, 1_000_000), free=200_000_000_000)
    with pytest.raises(StartError, match=r"10,000,000 leads need \d+ GB in .*, which has 5 GB\. Free some space"):
        growth.check_disk((0, 10_000_000), free=5_000_000_000)
