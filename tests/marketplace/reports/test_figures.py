"""Stored columns equal those of the schema's functions: after every change, for every zone, byte for byte."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from marketplace.reports.figures import (
    KINDS,
    WORDED,
    grouped,
    load_leads,
    load_money,
    load_unready,
    load_weighed,
    local_hours,
)
from marketplace.reports.funnel import count_funnel
from marketplace.reports.refresh import SETTLED, close_months, refresh
from marketplace.runtime import clock
from tests.marketplace.reports.conftest import DAY, Ledger, asked, failure

SAID = "select part, field, hour, encode(data, 'hex') as data from report_columns($1, $2) order by 1, 2, 3"
KEPT = "select part, field, hour, encode(data, 'hex') as data from report_column order by 1, 2, 3"


async def said(ledger: Ledger) -> list[tuple[Any, ...]]:
    rows = await ledger.owner.fetch(SAID, DAY - timedelta(days=30), DAY + timedelta(days=30))
    return [tuple(row) for row in rows]


async def kept(ledger: Ledger) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await ledger.owner.fetch(KEPT)]


async def tell_a_story(ledger: Ledger) -> Any:
    """Leads in several hours, of all kinds, in two modes."""
    first = await ledger.sold("Ann", DAY + timedelta(hours=1), sub_ids={"ad": "7"})
    await ledger.decided(first, "held", {"who": "Ann", "position": 1}, {"who": "Bob", "position": 2})
    await ledger.lead("rejected", DAY + timedelta(hours=1, minutes=5), reason="budget_fails", provider="Slow")
    lost = await ledger.lead("unsold", DAY + timedelta(hours=9), reason="outside_area")
    await ledger.decided(lost, "unsold", {"who": "Cat", "failures": [failure("outside_area", 3.5, "km")]})
    await ledger.lead("unsold", DAY + timedelta(hours=9), mode="test")
    await ledger.lead("duplicate", DAY + timedelta(hours=23, minutes=59))
    return first


async def test_what_is_kept_equals_a_computation_from_scratch(ledger: Ledger) -> None:
    await tell_a_story(ledger)
    assert await ledger.keep() >= 3
    assert await kept(ledger) == await said(ledger)
    assert len(await kept(ledger)) > 40


async def test_a_late_change_reaches_the_hour_that_it_belongs_to(ledger: Ledger) -> None:
    first = await tell_a_story(ledger)
    await ledger.keep()
    before = await kept(ledger)
    await ledger.tells(first, "won", DAY + timedelta(days=3), value=100)
    await ledger.sold("Bob", DAY - timedelta(days=2))  # an old lead that comes in late
    assert await ledger.owner.fetchval("select count(*) from report_changed") == 2
    assert await kept(ledger) == before != await said(ledger)
    await ledger.keep()
    assert await kept(ledger) == await said(ledger)
    assert await ledger.owner.fetchval("select count(*) from report_changed") == 0


async def test_a_pass_with_nothing_new_writes_nothing(ledger: Ledger) -> None:
    await tell_a_story(ledger)
    await ledger.keep()
    before = await ledger.owner.fetch("select hour, xmin::text from report_column order by 1, 2")
    assert await refresh(ledger.worker, clock.now()) == 0
    assert await ledger.owner.fetch("select hour, xmin::text from report_column order by 1, 2") == before


async def everything(ledger: Ledger) -> list[Any]:
    """All that reports can read of a few months, in the order in which they get it."""
    wide = asked(first=(DAY - timedelta(days=60)).date(), last=(DAY + timedelta(days=60)).date())
    money = await load_money(ledger.reports, wide.since, wide.until, [name for name in KINDS if "money" in name])
    fields = [name for name in KINDS if name.split("_")[0] not in ("share", "miss", "unready", "money")]
    missed = [name for name in KINDS if name.split("_")[0] in ("share", "miss")]
    waited = [name for name in KINDS if name.split("_")[0] == "unready"]
    weighed = await load_weighed(ledger.reports, wide, fields, missed)
    unready = await load_unready(ledger.reports, wide, fields, waited)
    result: list[Any] = []
    columns = [(weighed.leads.columns, fields), (weighed.candidates, missed), (unready.columns, waited)]
    columns += [(each, list(KINDS)[-5:]) for each in money.by_currency.values()]
    for column, names in columns:
        for name in names:
            hours, counts = column.counts(name)
            words = column.words(name) if name in WORDED else (np.zeros(0), ())
            result.append((name, column[name].tobytes(), hours.tolist(), counts.tolist(), words[0].tolist(), words[1]))
    return result


async def test_a_closed_month_says_what_its_hours_said_and_opens_when_one_of_them_changes(ledger: Ledger) -> None:
    first = await tell_a_story(ledger)
    await ledger.sold("Bob", DAY - timedelta(days=35))
    await ledger.keep()
    by_hour = await everything(ledger)
    assert await close_months(ledger.worker, clock.now()) == 0  # it was written this moment
    later, closed = clock.now() + SETTLED + timedelta(minutes=1), 0
    while await close_months(ledger.worker, later):
        closed += 1
    assert closed >= 2
    assert await everything(ledger) == by_hour
    await ledger.tells(first, "won", DAY + timedelta(days=3), value=100)
    await ledger.keep()
    changed = await everything(ledger)
    assert changed != by_hour
    still = {row["month"].month for row in await ledger.owner.fetch("select distinct month from report_month")}
    assert 3 not in still
    assert 2 in still
    assert await close_months(ledger.worker, later) == 1
    assert await everything(ledger) == changed


async def test_only_one_worker_refreshes_at_a_time(ledger: Ledger) -> None:
    await tell_a_story(ledger)
    async with ledger.owner.acquire() as other, other.transaction():
        await other.execute("select pg_advisory_xact_lock(hashtext('marketplace.reports.refresh'))")
        assert await refresh(ledger.worker, clock.now()) == 0
    assert await refresh(ledger.worker, clock.now()) > 0


async def test_the_newest_hours_are_computed_and_come_behind_the_kept_ones(ledger: Ledger) -> None:
    await tell_a_story(ledger)
    whole = await load_leads(ledger.reports, asked(), ["step", "why", "provider"])
    assert len(whole) == 0  # these hours were over before anything was kept: nobody has looked yet
    await ledger.owner.execute("update report_progress set frontier = $1", DAY + timedelta(hours=9))
    live = await load_leads(ledger.reports, asked(), ["step", "why"])
    assert live["step"].tolist() == [3, 1]
    await ledger.owner.execute(
        "insert into report_column select * from report_columns($1, $2)", DAY, DAY + timedelta(hours=9)
    )
    both = await load_leads(ledger.reports, asked(), ["step", "why"])
    places, words = both.words("why")
    assert both["step"].tolist() == [6, 2, 3, 1]
    assert [words[place] for place in places] == ["no_word", "budget_fails", "outside_area", "duplicate"]


async def test_a_new_hour_is_kept_once_it_is_over_and_settled(ledger: Ledger) -> None:
    await ledger.owner.execute("update report_progress set frontier = $1", DAY)
    await ledger.sold("Ann", DAY + timedelta(minutes=59))
    assert await refresh(ledger.worker, DAY + timedelta(hours=1, seconds=119)) == 0
    assert await refresh(ledger.worker, DAY + timedelta(hours=1, seconds=121)) == 1
    assert await ledger.owner.fetchval("select frontier from report_progress") == DAY + timedelta(hours=1)
    assert await kept(ledger) == await said(ledger)


@pytest.mark.parametrize(
    ("zone", "begins"),
    [
        ("UTC", timedelta()),
        ("America/Chicago", timedelta(hours=5)),
        ("Asia/Kolkata", -timedelta(hours=5.5)),
        ("Asia/Kathmandu", -timedelta(hours=5.75)),
        ("Pacific/Apia", -timedelta(hours=13)),
    ],
)
async def test_a_day_is_the_zones_own_to_the_minute(ledger: Ledger, zone: str, begins: timedelta) -> None:
    minute = timedelta(minutes=1)
    for at in (begins - minute, begins, begins + timedelta(hours=24) - minute, begins + timedelta(hours=24)):
        await ledger.lead("unsold", DAY + at, reason="closed")
    await ledger.keep()
    leads = await load_leads(ledger.reports, asked(zone=zone), ["step", "why"])
    assert len(leads) == 2
    assert count_funnel(asked(zone=zone), leads)[0].leads == 2
    assert local_hours(leads.minutes(), zone).tolist() == [0, 23]


async def test_a_day_on_which_clocks_change_has_its_own_length(ledger: Ledger) -> None:
    day = datetime(2026, 3, 8, tzinfo=UTC)  # 23 hours in Chicago, from 06:00 to 05:00 UTC
    for hours in (5.99, 6, 28.9, 29):
        await ledger.lead("unsold", day + timedelta(hours=hours))
    await ledger.keep()
    question = asked(first=day.date(), last=day.date(), zone="America/Chicago")
    assert len(await load_leads(ledger.reports, question, ["step"])) == 2


async def test_a_question_about_a_party_gets_its_rows_alone(ledger: Ledger) -> None:
    await tell_a_story(ledger)
    await ledger.keep()

    async def count(**changes: Any) -> int:
        return len(await load_leads(ledger.reports, asked(**changes), ["step"]))

    assert await count() == 4
    assert await count(provider_id=ledger.providers["Slow"]) == 1
    assert await count(business_id=ledger.businesses["Ann"]) == 1
    assert await count(business_id=ledger.providers["Slow"]) == 0
    assert await count(vertical="roofing") == 4
    assert await count(vertical="solar") == 0
    assert await count(vertical="nothing") == 0
    assert await count(mode="test") == 1


def test_equal_codes_are_brought_together_whatever_their_size() -> None:
    for codes in ([3, 1, 3, 2, 1], [70_000, 1, 70_000, 2, 1]):
        order, stretches = grouped(np.array(codes))
        assert {code: order[stretch].tolist() for code, stretch in stretches} == {
            codes[0]: [0, 2],
            1: [1, 4],
            2: [3],
        }
    assert grouped(np.zeros(0, np.int64))[1] == []
