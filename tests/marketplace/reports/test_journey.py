"""From inquiry to prospect to won: each step says what it counts, and touches are compared with their absence."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.reports.grouping import LeadGrouping
from marketplace.reports.journey import (
    KINDS_OF_TOUCH,
    LEAST_LEADS,
    TouchComparison,
    compare_touch,
    load_journey,
)
from marketplace.reports.refresh import SETTLED, close_months, refresh
from marketplace.runtime import clock
from routing.inquiry import TouchKind
from tests.marketplace.reports.conftest import DAY, Ledger, asked

BACKFILL = (
    Path("migrations/0074_unready_columns.sql").read_text().partition("-- What is stored already")[2].partition("\n")[2]
)
NOON = DAY + timedelta(hours=12)
HOUR_MS = 3_600_000


async def touched(ledger: Ledger, lead: UUID, kind: str, after: timedelta = timedelta(minutes=1)) -> None:
    """A touch of a lead, recorded so long after its receipt."""
    await ledger.owner.execute(
        """insert into touch (lead_id, fingerprint, revision, kind, at, recorded_at)
        select id, $2, 1, $3, received_at + $4, received_at + $4 from lead where id = $1""",
        lead,
        uuid4().bytes,
        kind,
        after,
    )


async def promoted(ledger: Ledger, first: str, hours: int, **about: Any) -> UUID:
    """A lead whose first decision was `first`, and that was sold as a prospect so many hours after its receipt."""
    lead = await ledger.sold("Ann", NOON, qualified_ms=hours * HOUR_MS, **about)
    await ledger.decided(lead, first)
    await ledger.decided(lead, "held", {"who": "Ann", "position": 1})
    return lead


async def test_each_step_says_what_it_counts(ledger: Ledger) -> None:
    await ledger.lead("duplicate", NOON)
    for state in ("rejected", "nurturing", "unsold"):
        await ledger.lead(state, NOON)
    await ledger.sold("Ann", NOON, state="refused")
    won = await ledger.sold("Ann", NOON)
    await ledger.tells(won, "won", NOON + timedelta(days=1), value=1)
    await ledger.keep()
    report = await load_journey(ledger.reports, asked())
    assert [(step.name, step.counts.value, step.number, step.share) for step in report.steps] == [
        ("received", "inquiries", 6, None),
        ("valid", "leads", 5, 1.0),
        ("qualified", "prospects", 3, 0.6),
        ("awarded", "prospects", 2, 0.4),
        ("delivered", "prospects", 1, 0.2),
        ("contacted", "prospects", 1, 0.2),
        ("won", "prospects", 1, 0.2),
    ]


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "computed"])
async def test_time_until_promotion_is_of_leads_that_were_not_ready_at_first(ledger: Ledger, stored: bool) -> None:
    for hours in (1, 2, 3, 4):
        await promoted(ledger, "nurturing", hours)
    await promoted(ledger, "rejected", 5, provider="Slow")
    await promoted(ledger, "waiting", 9)  # a prospect from the first decision on
    await ledger.decided(await ledger.lead("rejected", NOON), "rejected")
    if stored:
        await ledger.keep()
    else:
        await ledger.owner.execute("update report_progress set frontier = $1", DAY)
    report = await load_journey(ledger.reports, asked(), LeadGrouping.provider)
    assert report.not_ready == 6
    assert (report.promotion.leads, report.promotion.median_seconds, report.promotion.p90_seconds) == (
        5,
        3 * 3600,
        4.6 * 3600,
    )
    assert [(group.name, group.leads, group.promoted, group.promotion.median_seconds) for group in report.groups] == [
        ("Quick", 6, 4, 2.5 * 3600),
        ("Slow", 1, 1, 5 * 3600),
    ]


async def test_a_touch_counts_if_it_came_before_the_promotion(ledger: Ledger) -> None:
    early, late = await promoted(ledger, "nurturing", 1), await promoted(ledger, "nurturing", 1)
    waiting = await ledger.lead("nurturing", NOON)
    await ledger.decided(waiting, "nurturing")
    ready = await ledger.sold("Ann", NOON)
    await touched(ledger, early, "call")
    await touched(ledger, early, "call", timedelta(minutes=2))
    await touched(ledger, late, "call", timedelta(hours=2))
    await touched(ledger, waiting, "fax", timedelta(days=2))
    await touched(ledger, ready, "chat")
    await ledger.keep()
    report = await load_journey(ledger.reports, asked())
    assert [
        (effect.vertical, effect.kind, effect.leads_with, effect.promoted_with, effect.leads_without)
        for effect in report.touches
    ] == [("roofing", "call", 1, 1, 2), ("roofing", "other", 1, 0, 2)]


async def test_a_touch_without_a_move_reaches_the_stored_hour(ledger: Ledger) -> None:
    lead = await ledger.lead("nurturing", NOON)
    await ledger.decided(lead, "nurturing")
    await ledger.keep()
    assert (await load_journey(ledger.reports, asked())).touches == ()
    await touched(ledger, lead, "page_view")
    assert await refresh(ledger.worker, clock.now()) == 1
    [effect] = (await load_journey(ledger.reports, asked())).touches
    assert (effect.kind, effect.leads_with, effect.comparison) == ("page_view", 1, TouchComparison.not_enough_data)


async def test_each_kind_of_touch_has_its_own_figure(ledger: Ledger) -> None:
    for kind in TouchKind:
        lead = await ledger.lead("nurturing", NOON)
        await ledger.decided(lead, "nurturing")
        await touched(ledger, lead, kind)
    await ledger.keep()
    effects = (await load_journey(ledger.reports, asked())).touches
    assert [(effect.kind, effect.leads_with) for effect in effects] == [(kind, 1) for kind in KINDS_OF_TOUCH[:-1]]


@given(
    leads=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    parts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_difference_is_stated_only_where_the_intervals_are_apart(
    leads: tuple[int, int], parts: tuple[float, float]
) -> None:
    touched_leads, untouched = [(many, round(many * part)) for many, part in zip(leads, parts, strict=True)]
    effect = compare_touch("roofing", "call", touched_leads, untouched)
    if min(leads) < LEAST_LEADS:
        assert (effect.comparison, effect.share_with, effect.share_without) == ("not_enough_data", None, None)
        return
    assert effect.share_with is not None
    assert effect.share_without is not None
    ranges = [(figure.low or 0.0, figure.high or 0.0) for figure in (effect.share_with, effect.share_without)]
    apart = ranges[0][0] > ranges[1][1] or ranges[0][1] < ranges[1][0]
    assert (effect.comparison is not TouchComparison.unclear) == apart
    if apart:
        more = effect.share_with.value > effect.share_without.value
        assert effect.comparison is (TouchComparison.more if more else TouchComparison.fewer)


async def test_the_migration_stores_what_the_refresher_stores(ledger: Ledger) -> None:
    await touched(ledger, await promoted(ledger, "nurturing", 1), "call")
    await ledger.decided(await ledger.lead("rejected", NOON + timedelta(hours=3)), "rejected")
    await ledger.keep()
    while await close_months(ledger.worker, clock.now() + SETTLED + timedelta(minutes=1)):
        pass
    hours = "select part, field, hour, data from report_column where field like 'unready%' order by 1, 2, 3"
    months = "select part, field, month, data, lengths from report_month where field like 'unready%' order by 1, 2, 3"
    stored = [await ledger.owner.fetch(hours), await ledger.owner.fetch(months)]
    assert all(stored)
    for name in ("report_column", "report_month"):
        await ledger.owner.execute(f"delete from {name} where field like 'unready%'")
    await ledger.owner.execute(BACKFILL)
    assert [await ledger.owner.fetch(hours), await ledger.owner.fetch(months)] == stored
