"""The funnel, the shares and the starved, in a world counted by hand."""

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest

from marketplace.reports.funnel import RoutingReport, gini, load_routing
from marketplace.reports.money_report import load_money_report
from marketplace.reports.quality import load_quality
from marketplace.reports.rows import Filters, find_ids, read_filters
from marketplace.reports.speed import SpeedGrouping, load_speed
from marketplace.reports.unsold import load_unsold
from tests.marketplace.reports.conftest import DAY, PAYOUT, PRICE, Ledger, asked, failure

NOON = DAY + timedelta(hours=12)


async def story(ledger: Ledger) -> RoutingReport:
    """Sixteen leads, one or more stopping at each step."""
    await ledger.lead("duplicate", NOON)
    await ledger.lead("suppressed", NOON)
    for _ in range(2):
        await ledger.lead("rejected", NOON, reason="budget_fails")
    await ledger.lead("nurturing", NOON)
    await ledger.lead("received", NOON)
    unsold = await ledger.lead("unsold", NOON, reason="outside_area")
    await ledger.decided(unsold, "unsold", {"who": "Ann", "failures": [failure("outside_area", 2, "km")]})
    raced = await ledger.lead("unsold", NOON, reason="cap_race")
    await ledger.decided(raced, "unsold", {"who": "Ann", "position": 1, "failures": [failure("cap_race")]})
    for state in ("refused", "lapsed"):
        await ledger.sold("Ann", NOON, state=state)
    await ledger.sold("Ann", NOON)  # no word
    returned = await ledger.sold("Ann", NOON, state="returned")
    gone = await ledger.sold("Bob", NOON)
    await ledger.tells(gone, "unreachable", NOON + timedelta(hours=1))
    lost, won, back = [await ledger.sold("Bob", NOON) for _ in range(3)]
    await ledger.tells(lost, "contacted", NOON + timedelta(hours=1))
    await ledger.tells(lost, "lost", NOON + timedelta(days=1), reason="price")
    await ledger.tells(won, "won", NOON + timedelta(days=1), value=900_000)
    await ledger.tells(back, "won", NOON + timedelta(days=1), value=900_000)
    await ledger.tells(back, "lost", NOON + timedelta(days=2))  # the latest word counts
    await ledger.keep()
    assert returned
    return await load_routing(ledger.reports, asked())


async def test_every_lead_is_counted_at_each_step_that_it_reached(ledger: Ledger) -> None:
    report = await story(ledger)
    assert {step.name: (step.leads, step.lost, step.open) for step in report.funnel} == {
        "received": (16, 2, 0),
        "valid": (14, 2, 2),
        "qualified": (10, 1, 0),
        "eligible": (9, 1, 0),
        "awarded": (8, 2, 0),
        "delivered": (6, 2, 1),
        "contacted": (3, 2, 0),
        "won": (1, 0, 0),
    }


async def test_what_was_lost_at_each_step_has_its_reason(ledger: Ledger) -> None:
    report = await story(ledger)
    losses = {step.name: {loss.why: loss.leads for loss in step.losses} for step in report.funnel}
    assert losses == {
        "received": {"duplicate": 1, "suppressed": 1},
        "valid": {"budget_fails": 2, "nurturing": 1, "open": 1},
        "qualified": {"outside_area": 1},
        "eligible": {"cap_race": 1},
        "awarded": {"refused": 1, "lapsed": 1},
        "delivered": {"no_word": 1, "returned": 1, "unreachable": 1},
        "contacted": {"price": 1, "lost": 1},
        "won": {},
    }


async def test_a_lead_that_one_business_did_not_get_and_another_did_counts_once(ledger: Ledger) -> None:
    lead = await ledger.sold("Bob", NOON)
    await ledger.released(lead, "Ann", NOON - timedelta(seconds=9))
    await ledger.released(lead, "Cat", NOON - timedelta(seconds=5))
    await ledger.tells(lead, "won", NOON + timedelta(days=1), value=900_000)
    await ledger.keep()
    routing = await load_routing(ledger.reports, asked())
    assert {step.leads for step in routing.funnel} == {1}
    assert len(await find_ids(ledger.reports, asked(), Filters())) == 1
    speed = await load_speed(ledger.reports, asked(), SpeedGrouping.business)
    assert {each.name: each.leads for each in speed.groups} == {"Bob": 1}
    [line] = (await load_money_report(ledger.reports, asked())).lines
    assert (line.gross_minor, line.payouts_minor, line.held_minor) == (PRICE, PAYOUT, 0)


REPORTS = (load_routing, load_speed, load_quality, load_unsold)


@pytest.mark.parametrize("load", REPORTS, ids=[load.__name__ for load in REPORTS])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "computed"])
async def test_every_report_says_that_some_of_it_is_demo_data(ledger: Ledger, load: Any, kept: bool) -> None:
    lead = await ledger.sold("Ann", NOON)
    assert not (await load(ledger.reports, asked())).basis.demo
    await ledger.tells(lead, "contacted", NOON + timedelta(hours=1), source="demo")
    if kept:
        await ledger.keep()
    else:
        await ledger.owner.execute("update report_progress set frontier = $1", DAY)
    assert (await load(ledger.reports, asked())).basis.demo


async def test_every_figure_leads_to_exactly_its_rows(ledger: Ledger) -> None:
    report = await story(ledger)
    figures = [(step.rows, step.leads) for step in report.funnel]
    figures += [(loss.rows, loss.leads) for step in report.funnel for loss in step.losses]
    for rows, leads in figures:
        filters = read_filters(dict(parse_qsl(rows.partition("?")[2])))
        assert filters != Filters()
        assert len(await find_ids(ledger.reports, asked(), filters)) == leads, rows
    assert len(figures) > 20


async def test_subscriptions_of_one_business_divide_what_is_due_to_it(ledger: Ledger) -> None:
    """Ann's and Bob's subscriptions belong to Ann here: of equal weight, she and Cat are due 1 of 3 and 2 of 3."""
    ledger.businesses["Bob"] = ledger.businesses["Ann"]
    lead = await ledger.sold("Ann", NOON)
    standing = [{"who": who, "position": place} for place, who in enumerate(("Ann", "Bob", "Cat"), start=1)]
    await ledger.decided(lead, "held", *standing)
    await ledger.keep()
    report = await load_routing(ledger.reports, asked())
    due = sorted(round(each.due, 3) for each in report.shares if each.due is not None)
    assert due == [0.167, 0.167, 0.667]


async def test_a_share_is_set_against_what_was_due_by_weight(ledger: Ledger) -> None:
    for winner in ("Ann", "Ann", "Ann", "Cat"):
        lead = await ledger.sold(winner, NOON)
        others = [name for name in ("Ann", "Cat") if name != winner]
        outranked = [failure("outranked", 1, "places")]
        await ledger.decided(
            lead,
            "held",
            {"who": winner, "position": 1},
            *({"who": name, "position": 2, "failures": outranked} for name in others),
        )
    lead = await ledger.sold("Bob", NOON)
    await ledger.decided(lead, "held", {"who": "Bob", "position": 1}, strategy="highest_price")
    await ledger.keep()
    report = await load_routing(ledger.reports, asked())
    shares = {each.business: (each.stood, each.won, each.due, each.deviation) for each in report.shares}
    # weights 1 and 2: a third and two thirds of four awards
    assert shares == {"Ann": (4, 3, 1.333, 1.2506), "Cat": (4, 1, 2.667, -0.625), "Bob": (1, 1, None, None)}
    assert (report.gini, report.gini_due) == (gini([3, 1, 1]), gini([1.333, 2.667]))


def test_gini_is_0_for_equal_parts_and_near_1_where_one_has_all() -> None:
    assert gini([5, 5, 5]) == 0
    assert gini([0, 0, 0, 12]) == 0.75
    assert gini([1, 3]) == 0.25
    assert gini([]) is gini([0, 0]) is None


async def test_who_got_nothing_for_a_week_is_told_why(ledger: Ledger) -> None:
    for _ in range(3):
        lead = await ledger.sold("Bob", NOON)
        await ledger.decided(
            lead,
            "held",
            {"who": "Bob", "position": 1},
            {"who": "Ann", "position": 2, "failures": [failure("outranked")]},
            {"who": "Cat", "failures": [failure("closed"), failure("wallet_empty")]},
        )
    await ledger.keep()
    starved = {
        each.business: (each.stood, each.why, each.since)
        for each in (await load_routing(ledger.reports, asked())).starved
    }
    assert starved == {
        "Ann": (3, "outranked: 3 of the newest 3 leads of its vertical.", None),
        "Cat": (0, "closed: 3 of the newest 3 leads of its vertical.", None),
    }


async def test_a_tenant_sees_its_own_funnel_and_nobodys_share(ledger: Ledger) -> None:
    await story(ledger)
    mine = await load_routing(ledger.reports, asked(business_id=ledger.businesses["Bob"]))
    assert mine.funnel[0].leads == 4
    assert {each.business for each in mine.shares} | {each.business for each in mine.starved} <= {"Bob"}
    provider = await load_routing(ledger.reports, asked(provider_id=ledger.providers["Quick"]))
    assert provider.funnel[0].leads == 16
    assert (provider.shares, provider.starved) == ((), ())
