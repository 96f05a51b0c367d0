"""Report on unsold leads: reasons and widenings, compared lead by lead."""

from datetime import timedelta
from urllib.parse import parse_qsl

from marketplace.reports.rows import find_ids, read_filters
from marketplace.reports.unsold import UnsoldReport, load_unsold
from tests.marketplace.reports.conftest import DAY, Ledger, asked, failure

NOON = DAY + timedelta(hours=12)


async def story(ledger: Ledger) -> UnsoldReport:
    """Seven unsold leads and one sold; Ann misses some by distance alone, Bob by budget or by two rules."""
    for km in (2.0, 4.9, 5.1, 60.0):
        lead = await ledger.lead("unsold", NOON, reason="outside_area")
        await ledger.decided(
            lead,
            "unsold",
            {"who": "Ann", "failures": [failure("outside_area", km, "km", "km outside")]},
            {"who": "Bob", "failures": [failure("outside_area", km, "km"), failure("closed", 30, "minutes")]},
        )
    lead = await ledger.lead("unsold", NOON, reason="outside_area")  # both would have had this one
    near = [failure("outside_area", 1.0, "km")]
    await ledger.decided(lead, "unsold", {"who": "Ann", "failures": near}, {"who": "Cat", "failures": near})
    lead = await ledger.lead("unsold", NOON + timedelta(hours=1), reason="budget_minimum", provider="Slow")
    await ledger.decided(lead, "unsold", {"who": "Bob", "failures": [failure("budget_minimum", 30_000, "minor")]})
    lead = await ledger.lead("unsold", NOON, reason="attribute")
    by_size = failure("attribute", 7, "square_metres", "square_metres 7 below")
    await ledger.decided(lead, "unsold", {"who": "Cat", "failures": [by_size]})
    sold = await ledger.sold("Cat", NOON)
    await ledger.decided(sold, "held", {"who": "Cat", "position": 1}, {"who": "Ann", "failures": near})
    await ledger.keep()
    return await load_unsold(ledger.reports, asked())


async def test_unsold_leads_are_counted_by_the_rule_of_the_nearest_miss(ledger: Ledger) -> None:
    report = await story(ledger)
    assert (report.unsold, report.qualified) == (7, 8)
    assert {loss.why: loss.leads for loss in report.reasons} == {"outside_area": 5, "budget_minimum": 1, "attribute": 1}


async def test_a_step_brings_the_leads_that_it_alone_would_have_brought(ledger: Ledger) -> None:
    report = await story(ledger)
    anns = {(each.rule, each.by): (each.leads, each.contested) for each in report.widenings if each.business == "Ann"}
    assert anns == {("outside_area", 5): (3, 1), ("outside_area", 10): (4, 1)}  # 25 km bring no more
    bobs = {(each.rule, each.by): each.leads for each in report.widenings if each.business == "Bob"}
    assert bobs == {("budget_minimum", 50_000): 1}  # two rules failed for the others
    cats = {(each.rule, each.unit): each.leads for each in report.widenings if each.business == "Cat"}
    assert cats == {("outside_area", "km"): 1, ("attribute", "square_metres"): 1}


async def test_overall_a_lead_that_several_would_have_had_counts_once(ledger: Ledger) -> None:
    report = await story(ledger)
    overall = {(each.rule, each.by): (each.leads, each.contested) for each in report.overall}
    assert overall[("outside_area", 5)] == (3, 1)
    assert overall[("outside_area", 10)] == (4, 1)


async def test_a_widening_is_a_sentence_with_its_leads_a_week(ledger: Ledger) -> None:
    report = await story(ledger)
    sentences = {each.sentence for each in report.widenings}
    assert "Widening the area by 5 km: +21 leads a week (1 more went to another business)." in sentences
    assert "Lowering the least budget by USD 500: +7 leads a week." in sentences
    assert "Widening square_metres: +7 leads a week." in sentences


async def test_a_cap_and_a_wallet_say_by_how_much_they_were_too_low(ledger: Ledger) -> None:
    """Of four leads that a cap kept away, one went to another business, and three came on one day in UTC."""
    full = failure("cap_reached", 1, "leads", "cap 2 of 2 a day")
    for hours in (-13, 0, 1):
        lead = await ledger.lead("unsold", NOON + timedelta(hours=hours), reason="cap_reached")
        await ledger.decided(lead, "unsold", {"who": "Ann", "failures": [full]})
    sold = await ledger.sold("Cat", NOON)
    await ledger.decided(sold, "held", {"who": "Cat", "position": 1}, {"who": "Ann", "failures": [full]})
    for minor in (1_200, 4_000):
        lead = await ledger.lead("unsold", NOON, reason="wallet_empty")
        await ledger.decided(lead, "unsold", {"who": "Bob", "failures": [failure("wallet_empty", minor, "minor")]})
    await ledger.keep()
    question = asked(first=(DAY - timedelta(days=6)).date())
    report = await load_unsold(ledger.reports, question)
    assert {each.sentence for each in report.widenings} == {
        "Raising the cap: +3 leads a week (1 more went to another business). "
        "It was too low by up to 3 leads on one day.",
        "Topping up the wallet: +2 leads a week. It was too low by up to USD 40.",
    }
    assert {each.sentence for each in report.overall} == {
        "Raising the cap: +3 leads a week (1 more went to another business).",
        "Topping up the wallet: +2 leads a week.",
    }


async def test_every_widening_leads_to_exactly_its_unsold_leads(ledger: Ledger) -> None:
    report = await story(ledger)
    for each in (*report.overall, *report.widenings):
        filters = read_filters(dict(parse_qsl(each.rows.partition("?")[2])))
        assert len(await find_ids(ledger.reports, asked(), filters)) == each.leads, each.rows


async def test_a_business_sees_what_its_own_subscriptions_missed(ledger: Ledger) -> None:
    await story(ledger)
    report = await load_unsold(ledger.reports, asked(business_id=ledger.businesses["Bob"]))
    assert {each.business for each in report.widenings} == {"Bob"}
    assert [each.rule for each in report.overall] == ["budget_minimum"]
    assert report.reasons == ()


async def test_a_provider_sees_why_its_own_were_unsold_and_no_names(ledger: Ledger) -> None:
    await story(ledger)
    report = await load_unsold(ledger.reports, asked(provider_id=ledger.providers["Slow"]))
    assert (report.unsold, report.widenings) == (1, ())
    assert [(each.rule, each.leads, each.business) for each in report.overall] == [("budget_minimum", 1, None)]
