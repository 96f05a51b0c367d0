"""The nurture lane in a world counted by hand: what became of each lead, and what those that were sold earned."""

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import msgspec
import pytest

from marketplace.reports.grouping import LeadGrouping
from marketplace.reports.lane import LANE_COUNTS, LaneFigures, LaneMoney, load_lane
from marketplace.reports.question import Question, read_question
from marketplace.reports.rows import Filters, find_ids, read_filters
from marketplace.runtime import ids
from marketplace.runtime.errors import InvalidInput
from tests.marketplace.reports.conftest import DAY, PAYOUT, PRICE, Ledger, asked

NOON = DAY + timedelta(hours=12)


async def nurtured(ledger: Ledger, state: str, **about: Any) -> UUID:
    """A lead that was nurtured by its first decision, and is in `state` now."""
    lead = await ledger.lead(state, NOON, **about)
    await ledger.decided(lead, "nurturing")
    return lead


async def returning(ledger: Ledger, business: str, **about: Any) -> UUID:
    """A nurtured lead that became a prospect and was sold."""
    lead = await ledger.sold(business, about.pop("at", NOON), **about)
    await ledger.decided(lead, "nurturing")
    await ledger.decided(lead, "held", {"who": business, "position": 1})
    return lead


async def story(ledger: Ledger) -> None:
    """Eleven leads in the lane, and three that were never in it."""
    for _ in range(2):
        await nurtured(ledger, "nurturing")
    await nurtured(ledger, "expired", reason="nurture_ended")
    await nurtured(ledger, "expired", reason="given_back")
    await nurtured(ledger, "expired", reason="revoked")
    await nurtured(ledger, "rejected", reason="budget_fails")
    await nurtured(ledger, "unsold", reason="outside_area")
    for business in ("Ann", "Bob"):
        await returning(ledger, business)
    await returning(ledger, "Ann", provider="Slow", state="returned")
    await returning(ledger, "Ann", provider="Slow", state="refused")
    await ledger.sold("Ann", NOON)
    await ledger.lead("rejected", NOON)
    await ledger.lead("duplicate", NOON)


def counts(figures: LaneFigures) -> dict[str, int]:
    names = ("waiting", "reentered", "expired", "given_back", "withdrawn", "rejected")
    assert sum(getattr(figures, name) for name in names) == figures.entered  # each lead counts in one place
    return {name: getattr(figures, name) for name in ("entered", "sold", "returned", *names)}


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "computed"])
async def test_each_lead_of_the_lane_counts_in_one_place(ledger: Ledger, stored: bool) -> None:
    await story(ledger)
    if stored:
        await ledger.keep()
    else:
        await ledger.owner.execute("update report_progress set frontier = $1", DAY)
    report = await load_lane(ledger.reports, asked())
    assert counts(report.total) == {
        "entered": 11,
        "waiting": 2,
        "reentered": 5,
        "sold": 3,
        "returned": 1,
        "expired": 1,
        "given_back": 1,
        "withdrawn": 1,
        "rejected": 1,
    }
    assert report.total.conversion == round(3 / 11, 4)


@pytest.mark.parametrize("by", LeadGrouping)
async def test_each_figure_links_to_the_leads_that_it_counts(ledger: Ledger, by: LeadGrouping) -> None:
    await story(ledger)
    await ledger.keep()
    report = await load_lane(ledger.reports, asked(), by)
    for group in (report.total, *report.groups):
        for figure in LANE_COUNTS:
            question, filters = read_link(getattr(group.rows, figure))
            leads = await find_ids(ledger.reports, question, filters)
            assert len(leads) == getattr(group, figure), (group.name, figure)


def read_link(url: str) -> tuple[Question, Filters]:
    """Return what the list of leads reads from the address of a link."""
    parameters = dict(parse_qsl(urlsplit(url).query))
    question = read_question(parameters, NOON)
    provider_id = ids.decode("prov", parameters["provider_id"]) if "provider_id" in parameters else None
    return msgspec.structs.replace(question, provider_id=provider_id), read_filters(parameters)


def test_a_list_is_not_by_the_lane_and_by_a_missed_rule_at_once() -> None:
    with pytest.raises(InvalidInput) as refusal:
        read_filters({"lane": "sold", "missed": "outside_area"})
    assert [fault.pointer for fault in refusal.value.faults] == ["/lane"]


async def test_money_is_that_of_sold_leads_that_were_not_returned(ledger: Ledger) -> None:
    await story(ledger)
    await ledger.keep()
    report = await load_lane(ledger.reports, asked(), LeadGrouping.provider)
    earned = LaneMoney(
        currency="USD", revenue_minor=2 * PRICE, payout_minor=2 * PAYOUT, margin_minor=2 * (PRICE - PAYOUT)
    )
    assert report.total.money == (earned,)
    assert [(group.name, group.entered, group.money) for group in report.groups] == [
        ("Quick", 9, (earned,)),
        ("Slow", 2, ()),
    ]


async def test_a_week_begins_on_the_monday_of_the_zone(ledger: Ledger) -> None:
    for hours in (-25, 36, 24 * 7):  # Monday 23:00, Wednesday noon, Tuesday of the next week, all in UTC
        await returning(ledger, "Ann", at=DAY + timedelta(hours=hours))
    await ledger.keep()
    wide = {"first": (DAY - timedelta(days=9)).date(), "last": (DAY + timedelta(days=9)).date()}
    weeks = await load_lane(ledger.reports, asked(**wide), LeadGrouping.week)
    assert [(group.key, group.entered) for group in weeks.groups] == [
        ("2026-03-02", 1),
        ("2026-03-09", 1),
        ("2026-03-16", 1),
    ]
    weeks = await load_lane(ledger.reports, asked(**wide, zone="Asia/Kolkata"), LeadGrouping.week)
    assert [(group.key, group.entered) for group in weeks.groups] == [("2026-03-09", 2), ("2026-03-16", 1)]


async def test_a_lane_without_leads_has_no_conversion_and_no_money(ledger: Ledger) -> None:
    await ledger.sold("Ann", NOON)
    await ledger.keep()
    report = await load_lane(ledger.reports, asked())
    assert (report.total.entered, report.total.conversion, report.total.money, report.groups) == (0, None, (), ())
