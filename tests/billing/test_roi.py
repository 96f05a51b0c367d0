"""The comparison of exclusive with shared leads: its verdict, its sentences, and the cases without a verdict."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from billing.evidence import EvidenceBasis, LeadOrigin, SharedLeadAssumption
from billing.findings import Roi, RoiVerdict
from billing.outcomes import LeadOutcome, WonJobs, last_report, leads_of, observed_until, tabulate, won_so_far
from billing.roi import assess

NOW = datetime(2026, 11, 22, tzinfo=UTC)
OLD = NOW - timedelta(weeks=20)
DECLARED = SharedLeadAssumption(
    basis=EvidenceBasis.declared, source="last year's invoices", cost_minor=3_000, win_rate=0.05
)


def lead(source: LeadOrigin, **changes: Any) -> LeadOutcome:
    usual: dict[str, Any] = {
        "business": "b",
        "received_at": OLD,
        "observed_until": NOW,
        "stratum": 1,
        "cost_minor": 8_000 if source is LeadOrigin.exclusive else 3_000,
    }
    return LeadOutcome(source=source, **(usual | changes))


def bought(source: LeadOrigin, leads: int, wins: int, value: int = 200_000, **changes: Any) -> list[LeadOutcome]:
    """Return old leads of which `wins` were won after three weeks and all others lost."""
    won = {"won_at": OLD + timedelta(weeks=3, hours=1), "won_minor": value, "contacted_at": OLD}
    ended = [lead(source, **(won | changes)) for _ in range(wins)]
    return ended + [lead(source, **({"lost_at": NOW} | changes)) for _ in range(leads - wins)]


def answer(*leads: list[LeadOutcome], assumed: SharedLeadAssumption | None = None, labour: int = 0) -> Roi:
    return assess(tabulate([lead for part in leads for lead in part], assumed, labour), seed=1)


def test_a_clear_advantage_is_likely_yes_with_both_figures_and_their_intervals() -> None:
    result = answer(bought(LeadOrigin.exclusive, 1_600, 240), bought(LeadOrigin.shared, 1_600, 48))
    assert result.verdict is RoiVerdict.likely_yes
    assert result.exclusive.revenue_per_unit is not None
    assert result.exclusive.revenue_per_unit.value == pytest.approx(60 * 200_000 / (400 * 8_000))
    assert result.sentence == (
        "Most likely yes: each 1 spent on exclusive leads brought back 3.8, and on shared leads 2.0. "
        "This rests on 1600 leads with a known outcome."
    )


def test_a_verdict_needs_a_wider_interval_than_the_95_percent_because_people_look_every_week() -> None:
    result = answer(bought(LeadOrigin.exclusive, 400, 60), bought(LeadOrigin.shared, 400, 12))
    assert result.ratio is not None
    assert result.ratio.low is not None
    assert result.ratio.verdict_low is not None
    assert result.ratio.verdict_low < 1 < result.ratio.low
    assert result.verdict is RoiVerdict.cannot_tell
    # many wins: Student's t is nearly normal, and the bounds are 1.96 and 2.81 standard errors away
    many = answer(bought(LeadOrigin.exclusive, 40_000, 6_000), bought(LeadOrigin.shared, 40_000, 1_200)).ratio
    assert many is not None
    assert many.low is not None
    assert many.verdict_low is not None
    assert np.log(many.value / many.verdict_low) / np.log(many.value / many.low) == pytest.approx(2.81 / 1.96, rel=2e-3)


def test_a_clear_disadvantage_is_likely_no() -> None:
    assert (
        answer(bought(LeadOrigin.exclusive, 400, 24), bought(LeadOrigin.shared, 400, 40)).verdict
        is RoiVerdict.likely_no
    )


def test_intervals_that_hold_both_answers_are_not_told_apart() -> None:
    result = answer(bought(LeadOrigin.exclusive, 400, 60), bought(LeadOrigin.shared, 400, 20))
    assert result.verdict is RoiVerdict.cannot_tell
    assert result.sentence.startswith("We cannot tell yet: ")
    assert "may be chance" in result.sentence


def test_a_win_without_its_day_counts_as_one_with_it_while_leads_are_as_old_as_the_horizon() -> None:
    dated = bought(LeadOrigin.shared, 400, 40)
    undated = bought(LeadOrigin.shared, 400, 40, won_at=None, won_undated=True)
    for shared in (dated, undated[:40] + dated[40:]):
        result = answer(bought(LeadOrigin.exclusive, 400, 60), shared)
        assert result.shared is not None
        assert result.shared.win_rate is not None
        assert result.shared.wins == 40
        assert result.shared.win_rate.value == pytest.approx(0.1)


def test_a_win_without_its_day_counts_within_a_horizon_that_young_exclusive_leads_make_short() -> None:
    """The last week that counts is the horizon's, though the shared leads are far older."""
    young = NOW - timedelta(weeks=5, hours=1)
    ours = [*bought(LeadOrigin.exclusive, 400, 0, received_at=young)]
    ours += [
        lead(LeadOrigin.exclusive, received_at=young, won_at=young + timedelta(weeks=1), won_minor=1) for _ in range(40)
    ]
    undated = bought(LeadOrigin.shared, 400, 40, won_at=None, won_undated=True)[:40] + bought(LeadOrigin.shared, 360, 0)
    result = answer(ours, undated)
    assert result.horizon_weeks == 5
    assert result.shared is not None
    assert result.shared.win_rate is not None
    assert result.shared.win_rate.value == pytest.approx(0.1)


def test_a_win_without_its_day_among_young_leads_is_weighed_against_those_of_its_age() -> None:
    """Half of the leads are two weeks old and open: what the old half won is not diluted by them."""
    young = [lead(LeadOrigin.shared, received_at=NOW - timedelta(weeks=2, hours=1)) for _ in range(400)]
    undated = bought(LeadOrigin.shared, 400, 80, won_at=None, won_undated=True)
    result = answer(bought(LeadOrigin.exclusive, 400, 60), [*undated[:80], *bought(LeadOrigin.shared, 320, 0), *young])
    assert result.shared is not None
    assert result.shared.win_rate is not None
    assert result.shared.win_rate.value == pytest.approx(0.2)


@pytest.mark.parametrize(("outcomes", "wins"), [(14, 10), (29, 10), (200, 9), (0, 0)])
def test_few_outcomes_or_wins_are_not_enough_data(outcomes: int, wins: int) -> None:
    result = answer(bought(LeadOrigin.exclusive, outcomes, wins), bought(LeadOrigin.shared, 400, 40))
    assert result.verdict is RoiVerdict.not_enough_data
    assert result.sentence.startswith(
        f"Too early to say: the outcome of {outcomes} exclusive leads is known, {wins} of"
    )
    assert result.prices == ()


def test_too_early_says_when_there_will_be_enough_at_the_pace_so_far() -> None:
    shared = bought(LeadOrigin.shared, 400, 40)
    assert answer(bought(LeadOrigin.exclusive, 20, 4), shared).sentence == (
        "Too early to say: the outcome of 20 exclusive leads is known, 4 of them won, and of 400 shared leads, 40 of "
        "them won. 30 of each are needed, 10 of them won. At the pace so far that takes about 30 more weeks."
    )  # 4 wins in 20 weeks: the 6 that are missing take 30
    assert answer(bought(LeadOrigin.exclusive, 20, 1), shared).sentence.endswith("that takes more than two years.")
    assert answer(bought(LeadOrigin.exclusive, 20, 0), shared).sentence.endswith("10 of them won.")


def test_with_nothing_bought_elsewhere_and_nothing_declared_there_is_no_comparison() -> None:
    result = answer(bought(LeadOrigin.exclusive, 400, 60))
    assert (result.verdict, result.shared, result.ratio) == (RoiVerdict.nothing_to_compare, None, None)
    assert result.exclusive.revenue_per_unit is not None


def test_what_is_declared_stands_where_too_few_shared_leads_have_ended_and_is_labelled() -> None:
    result = answer(bought(LeadOrigin.exclusive, 400, 60), bought(LeadOrigin.shared, 20, 5), assumed=DECLARED)
    assert result.shared is not None
    assert (result.shared.basis, result.shared.revenue_per_unit) != (EvidenceBasis.imported, None)
    assert result.shared.revenue_per_unit is not None
    assert result.shared.revenue_per_unit.value == pytest.approx(0.05 * 200_000 / 3_000)
    assert result.shared.revenue_per_unit.low is None
    assert "(as you told us)" in result.sentence
    assert any("last year's invoices" in note for note in result.notes)


def test_a_declared_share_without_its_numbers_is_shown_and_decides_nothing() -> None:
    result = answer(bought(LeadOrigin.exclusive, 400, 120), assumed=DECLARED)
    assert result.verdict is RoiVerdict.cannot_tell
    assert result.ratio is not None
    assert (result.ratio.value > 1, result.ratio.low) == (True, None)
    assert any("is not stated, so it may be chance" in note for note in result.notes)


def test_a_declared_share_is_as_certain_as_the_leads_it_was_counted_from() -> None:
    few, many = (
        msgspec.structs.replace(DECLARED, win_rate=0.05, leads=leads, won=leads // 20, weeks=13)
        for leads in (40, 4_000)
    )
    verdicts = [answer(bought(LeadOrigin.exclusive, 1_600, 480), assumed=assumed) for assumed in (few, many)]
    assert [result.verdict for result in verdicts] == [RoiVerdict.cannot_tell, RoiVerdict.likely_yes]
    ratio = verdicts[1].break_even.win_ratio if verdicts[1].break_even else None
    assert ratio is not None
    assert ratio.low is not None
    # by hand: the variance of the logarithm of a ratio of two shares
    error = (1 / 480 - 1 / 1_600 + 1 / 200 - 1 / 4_000) ** 0.5
    assert np.log(ratio.value / ratio.low) == pytest.approx(1.96 * error, rel=0.02)


def test_a_declared_share_is_compared_over_its_own_weeks() -> None:
    """Exclusive leads are won in their fourth week: within three weeks none is, within thirteen all are."""
    counted = msgspec.structs.replace(DECLARED, win_rate=0.05, leads=4_000, won=200, weeks=13)
    ours = bought(LeadOrigin.exclusive, 400, 60)
    assert answer(ours, assumed=counted).horizon_weeks == 13
    short = answer(ours, assumed=msgspec.structs.replace(counted, weeks=3))
    assert short.horizon_weeks == 3
    assert short.exclusive.win_rate is not None
    assert short.exclusive.win_rate.value == 0


def test_shared_leads_that_had_more_time_are_not_called_better() -> None:
    counted = msgspec.structs.replace(DECLARED, win_rate=0.9, leads=1_000, won=900, weeks=26)
    ours = bought(LeadOrigin.exclusive, 400, 60)
    result = answer(ours, assumed=counted)
    assert result.verdict is RoiVerdict.cannot_tell
    assert any("counted for 26 weeks" in note for note in result.notes)
    assert answer(ours, assumed=msgspec.structs.replace(counted, weeks=13)).verdict is RoiVerdict.likely_no


def test_an_import_with_enough_outcomes_comes_before_what_was_declared() -> None:
    result = answer(bought(LeadOrigin.exclusive, 400, 60), bought(LeadOrigin.shared, 400, 12), assumed=DECLARED)
    assert result.shared is not None
    assert result.shared.basis is EvidenceBasis.imported


def test_exclusive_leads_pay_exactly_when_the_price_ratio_is_below_the_win_ratio() -> None:
    for labour in (0, 1_500):
        for wins in (12, 24, 31, 33, 48):
            result = answer(bought(LeadOrigin.exclusive, 400, wins), bought(LeadOrigin.shared, 400, 12), labour=labour)
            assert result.break_even is not None
            assert result.ratio is not None
            rule = result.break_even
            assert rule.price_ratio == pytest.approx((8_000 + labour) / (3_000 + labour))
            assert rule.win_ratio.value == pytest.approx(wins / 12)
            assert (result.ratio.value > 1) == (rule.price_ratio < rule.win_ratio.value)
            equal = rule.price_minor.value
            assert (equal + labour) / (3_000 + labour) == pytest.approx(rule.win_ratio.value)


def test_young_leads_are_neither_won_nor_lost() -> None:
    old = bought(LeadOrigin.exclusive, 400, 60)
    fresh = [lead(LeadOrigin.exclusive, received_at=NOW - timedelta(days=3), contacted_at=NOW) for _ in range(400)]
    alone, with_young = (answer(old, bought(LeadOrigin.shared, 400, 12), young) for young in ([], fresh))
    assert alone.exclusive.win_rate is not None
    assert with_young.exclusive.win_rate is not None
    assert with_young.exclusive.win_rate.value == pytest.approx(alone.exclusive.win_rate.value)
    assert with_young.exclusive.open == 400


def test_a_win_counts_at_once_beside_an_estimate_that_waits_for_whole_weeks() -> None:
    estimated = bought(LeadOrigin.exclusive, 40, 12)
    fresh, late = NOW - timedelta(days=3), NOW - timedelta(weeks=40)
    recent = [
        lead(LeadOrigin.exclusive, received_at=fresh, won_at=NOW, won_minor=7),
        lead(LeadOrigin.exclusive, received_at=late, won_at=late + timedelta(weeks=13), won_minor=5),
        lead(LeadOrigin.exclusive, received_at=fresh, won_at=NOW, won_minor=3, cost_minor=0),
    ]
    result = won_so_far(leads_of([*estimated, *recent], {"b": 0}))
    assert result == WonJobs(jobs=14, value_minor=12 * 200_000 + 12, open_jobs=1, late_jobs=1)
    assert answer(estimated, recent).exclusive.wins == result.jobs - result.open_jobs - result.late_jobs
    assert won_so_far(leads_of([], {})) == WonJobs(jobs=0, value_minor=0, open_jobs=0, late_jobs=0)


def test_a_business_that_tells_nothing_is_silent_and_not_unsuccessful() -> None:
    silent = [lead(LeadOrigin.exclusive, business="mute") for _ in range(500)]
    result = tabulate([*bought(LeadOrigin.exclusive, 40, 10), *silent])
    assert (result.all_businesses, result.silent) == (1, 1)
    assert float(result.exclusive.leads.sum()) == 40


def test_a_returned_lead_costs_and_counts_nothing() -> None:
    returned = bought(LeadOrigin.exclusive, 50, 0, cost_minor=0)
    both = [answer(bought(LeadOrigin.exclusive, 400, 60), more) for more in ([], returned)]
    assert both[0].exclusive == both[1].exclusive


def test_leads_are_matched_to_the_exclusive_leads_mix_and_the_overlap_is_shown() -> None:
    ours = [
        *bought(LeadOrigin.exclusive, 300, 60, stratum=1),
        *bought(LeadOrigin.exclusive, 100, 12, stratum=2),
        *bought(LeadOrigin.exclusive, 100, 10, stratum=3),
    ]
    theirs = [*bought(LeadOrigin.shared, 100, 10, stratum=1), *bought(LeadOrigin.shared, 300, 60, stratum=2)]
    evidence = tabulate([*ours, *theirs])
    result = assess(evidence, 1)
    assert result.matched is not None
    assert result.matched.overlap == pytest.approx(0.8)
    # by hand: shared leads win 10 % and 20 % in the two strata, which weigh three to one among exclusive leads
    assert result.matched.win_ratio.value == pytest.approx((72 / 400) / (0.75 * 0.1 + 0.25 * 0.2))
    assert [(each.exclusive, each.shared) for each in evidence.strata] == [(300, 100), (100, 300), (100, 0)]


def test_where_like_with_like_says_otherwise_nothing_is_claimed() -> None:
    # exclusive leads are bought where everything is won, shared ones mostly where nothing is
    ours = [*bought(LeadOrigin.exclusive, 300, 90, stratum=1), *bought(LeadOrigin.exclusive, 100, 1, stratum=2)]
    theirs = [
        *bought(LeadOrigin.shared, 100, 34, stratum=1, cost_minor=8_000),
        *bought(LeadOrigin.shared, 900, 9, stratum=2, cost_minor=8_000),
    ]
    result = answer(ours, theirs)
    assert result.ratio is not None
    assert result.ratio.low is not None
    assert result.ratio.low > 1
    assert result.verdict is RoiVerdict.cannot_tell


def test_too_few_businesses_are_named_and_never_judged() -> None:
    def many(count: int) -> list[LeadOutcome]:
        leads = []
        for number in range(count):
            leads += bought(LeadOrigin.exclusive, 40, 8 + number % 3, business=f"b{number}")
            leads += bought(LeadOrigin.shared, 40, 2, business=f"b{number}")
        return leads

    few, enough, plenty = answer(many(7)), answer(many(10)), answer(many(20))
    assert few.verdict is RoiVerdict.not_enough_data
    assert few.sentence == (
        "Too early to say: 7 businesses bought both kinds of lead and reported what became of them, and 8 are needed."
    )
    assert enough.verdict is RoiVerdict.likely_yes
    assert any("Only 10 businesses" in note for note in enough.notes)
    assert not any("Only" in note for note in plenty.notes)
    assert plenty.businesses == 20


def test_a_business_that_wins_more_of_all_its_leads_decides_nothing_by_buying_more_of_one_source() -> None:
    """In every business an exclusive lead brings 0.8 of a shared one. Good businesses buy mostly exclusive leads."""
    leads = []
    for number in range(20):
        good = number < 10
        wins = (48, 15) if good else (4, 12)  # of 240 and 60, or of 60 and 144: 20 and 25 %, or 6.7 and 8.3 %
        counts = (240, 60) if good else (60, 144)
        leads += bought(LeadOrigin.exclusive, counts[0], wins[0], business=f"b{number}", cost_minor=8_000)
        leads += bought(LeadOrigin.shared, counts[1], wins[1], business=f"b{number}", cost_minor=8_000)
    result = answer(leads)
    assert result.exclusive.win_rate is not None
    assert result.shared is not None
    assert result.shared.win_rate is not None
    assert result.exclusive.win_rate.value > 1.2 * result.shared.win_rate.value
    assert result.ratio is not None
    assert result.ratio.value == pytest.approx(0.8)
    assert result.compared is not None
    assert result.compared.businesses == 20
    assert result.verdict is RoiVerdict.likely_no
    assert "in the 20 businesses with both, each 1 spent" in result.sentence


def test_businesses_with_one_source_are_no_part_of_the_comparison() -> None:
    pairs = []
    for number in range(10):
        for source, wins in ((LeadOrigin.exclusive, 12), (LeadOrigin.shared, 2)):
            pairs += bought(source, 40, wins, business=f"b{number}")
    alone = bought(LeadOrigin.exclusive, 2_000, 0, business="c1") + bought(LeadOrigin.shared, 2_000, 900, business="c2")
    both, more = answer(pairs), answer(pairs, alone)
    assert both.ratio is not None
    assert more.ratio is not None
    assert more.ratio.value == pytest.approx(both.ratio.value)


def test_jobs_of_which_a_few_make_up_the_revenue_get_no_range_and_no_verdict() -> None:
    """The largest of 68 jobs are 3, 9, 27 … times a usual one: whether there is one more decides the revenue."""
    usual = bought(LeadOrigin.exclusive, 800, 120)
    large = [msgspec.structs.replace(lead, won_minor=200_000 * 3**power) for power, lead in enumerate(usual[:8])]
    shared = bought(LeadOrigin.shared, 800, 48)
    result = answer([*large, *usual[60:]], shared)
    assert result.verdict is RoiVerdict.too_uneven
    assert result.ratio is not None
    assert (result.ratio.low, result.ratio.verdict_low) == (None, None)
    assert result.exclusive.revenue_per_unit is not None
    assert result.exclusive.revenue_per_unit.low is None
    assert result.exclusive.win_rate is not None
    assert result.exclusive.win_rate.low is not None
    assert result.sentence.startswith(
        "Too uneven to say: a few jobs make up so much of the revenue that the next large one could change the answer. "
        "So far each 1 spent on exclusive leads brought back "
    )
    assert result.prices == ()
    assert any("has no range" in note for note in result.notes)
    # a stated share without a value compares how often leads are won, which jobs do not change
    counted = msgspec.structs.replace(DECLARED, win_rate=0.01, leads=4_000, won=40, weeks=13)
    assert answer([*large, *usual[60:]], assumed=counted).verdict is RoiVerdict.likely_yes


def test_two_businesses_with_most_of_the_leads_do_not_answer_for_twenty() -> None:
    def bought_by(leads: tuple[int, ...]) -> Roi:
        both = []
        for number, count in enumerate(leads):
            both += bought(LeadOrigin.exclusive, count, count // 4 + number % 3, business=f"b{number}")
            both += bought(LeadOrigin.shared, count, count // 20 + number % 2, business=f"b{number}")
        return answer(both)

    even, uneven = bought_by((40,) * 20), bought_by((320, 320, *[9] * 18))
    assert even.verdict is RoiVerdict.likely_yes
    assert uneven.verdict is RoiVerdict.too_uneven
    assert uneven.exclusive.win_rate is not None
    assert uneven.exclusive.win_rate.low is None
    assert uneven.sentence.startswith(
        "Too uneven to say: a few businesses bought most of the leads, and they alone would decide the answer. So far "
    )


def test_leads_of_one_business_that_are_alike_within_a_week_make_the_range_wider() -> None:
    """The same leads and wins: once spread evenly over twelve weeks, once all wins in three of them."""

    def over_weeks(wins: tuple[int, ...]) -> list[LeadOutcome]:
        leads = []
        for number, won in enumerate(wins):
            for lead in bought(LeadOrigin.exclusive, 40, won):
                later = {name: getattr(lead, name) for name in ("received_at", "won_at", "contacted_at")}
                moved = {name: at - timedelta(weeks=number) for name, at in later.items() if at is not None}
                leads.append(msgspec.structs.replace(lead, **moved))
        return leads

    shared = bought(LeadOrigin.shared, 400, 40)
    even, alike = (answer(over_weeks(wins), shared) for wins in ((5,) * 12, (20, 0, 0, 0) * 3))
    rates = [result.exclusive.win_rate for result in (even, alike)]
    widths = [rate.high - rate.low for rate in rates if rate and rate.low is not None and rate.high is not None]
    assert [rate.value for rate in rates if rate] == pytest.approx([60 / 480] * 2)
    # by hand: weeks win 0 or 1/2, on average 1/8, so that a week's share has the standard deviation 0.226
    error = 0.2261 / 12**0.5
    assert widths[1] == pytest.approx(2 * 2.228 * error, rel=0.1)  # t with 12 - 2 degrees of freedom
    assert widths[0] == pytest.approx(2 * 1.96 * (0.125 * 0.875 / 480) ** 0.5, rel=0.03)


def test_time_to_contact_is_told_as_an_association() -> None:
    fast = bought(LeadOrigin.exclusive, 100, 30, contacted_at=OLD + timedelta(minutes=4))
    slow = bought(LeadOrigin.exclusive, 100, 10, contacted_at=OLD + timedelta(hours=5))
    never = bought(LeadOrigin.exclusive, 100, 0)
    result = answer(fast, slow, never).speed
    assert result is not None
    assert [(band.band, band.leads, band.wins) for band in result.bands] == [("5 minutes", 100, 30), ("1 day", 100, 10)]
    assert result.ratio is not None
    assert result.ratio.value == pytest.approx(3.0)
    # by hand: the interval of a risk ratio after Katz, a little wider for few wins
    error = (1 / 30 - 1 / 100 + 1 / 10 - 1 / 100) ** 0.5
    assert result.ratio.low == pytest.approx(3 * np.exp(-1.96 * error), rel=0.05)
    assert result.sentence.endswith(
        "The speed need not be the reason: people who are easy to reach may be easy to win."
    )


def test_speed_is_compared_among_leads_of_one_kind() -> None:
    """Of good leads 40 % are won and most contacted soon; of poor ones 10 % and few. Speed itself does nothing."""
    soon, later = OLD + timedelta(minutes=4), OLD + timedelta(hours=5)
    leads = [
        *bought(LeadOrigin.exclusive, 200, 80, kind=1, contacted_at=soon),
        *bought(LeadOrigin.exclusive, 50, 20, kind=1, contacted_at=later),
        *bought(LeadOrigin.exclusive, 50, 5, kind=2, contacted_at=soon),
        *bought(LeadOrigin.exclusive, 200, 20, kind=2, contacted_at=later),
        *bought(
            LeadOrigin.exclusive, 90, 90, kind=3, contacted_at=soon
        ),  # none was contacted later: nothing to compare
    ]
    result = answer(leads).speed
    assert result is not None
    assert result.bands[0].win_rate.value > 2 * result.bands[1].win_rate.value
    assert result.ratio is not None
    assert result.ratio.value == pytest.approx(1.0)
    assert result.leads == 500
    assert result.sentence == (
        "Of leads with the same vertical, budget and time of day, those that were reached within 30 minutes were won "
        "1.0 times as often as those reached later (500 leads compared), but that may be chance."
    )


def test_a_delay_that_was_given_at_random_is_told_as_the_cause() -> None:
    at_once = bought(LeadOrigin.exclusive, 900, 270, delayed=False)
    later = bought(LeadOrigin.exclusive, 100, 15, delayed=True)
    others = bought(LeadOrigin.exclusive, 90, 90)  # of a vertical that holds no lead back
    result = answer(at_once, later, others).delay
    assert result is not None
    assert result.leads == 1_000
    assert result.ratio is not None
    assert result.ratio.value == pytest.approx(2.0)
    assert result.sentence.startswith(
        "Some leads, drawn at random, were held back for a while. Those that were not were won 2.0 times as often "
        "(1000 leads compared). The delay is the reason;"
    )
    assert answer(at_once, others).delay is None
    few = answer(at_once, bought(LeadOrigin.exclusive, 100, 2, delayed=True)).delay
    assert few is not None
    assert few.ratio is None
    assert few.sentence.startswith("Too few leads were won to say what a delay costs")


def test_the_same_evidence_gets_the_same_answer() -> None:
    leads = [*bought(LeadOrigin.exclusive, 90, 20), *bought(LeadOrigin.shared, 90, 12)]
    leads = [msgspec.structs.replace(lead, business=str(number)) for number in range(20) for lead in leads]
    assert answer(leads) == answer(leads)


def test_a_difference_in_speed_that_may_be_chance_is_called_so() -> None:
    fast = bought(LeadOrigin.exclusive, 100, 16, contacted_at=OLD + timedelta(minutes=4))
    slow = bought(LeadOrigin.exclusive, 100, 14, contacted_at=OLD + timedelta(hours=5))
    result = answer(fast, slow).speed
    assert result is not None
    assert result.sentence.endswith("but that may be chance.")


# --- one verdict for one question


@pytest.mark.parametrize("shared_wins", [12, 20, 40, 60, 90])
@pytest.mark.parametrize("labour", [0, 3_000])
def test_todays_price_has_the_verdict_of_the_answer_and_a_dearer_one_none_that_is_better(
    shared_wins: int, labour: int
) -> None:
    result = answer(bought(LeadOrigin.exclusive, 400, 60), bought(LeadOrigin.shared, 400, shared_wins), labour=labour)
    by_change = {case.change: case for case in result.prices}
    assert by_change[0.0].verdict is result.verdict
    assert result.exclusive.revenue_per_unit is not None
    assert by_change[0.0].revenue_per_unit.value == pytest.approx(result.exclusive.revenue_per_unit.value)
    order = [RoiVerdict.likely_yes, RoiVerdict.cannot_tell, RoiVerdict.likely_no]
    ranks = [order.index(by_change[change].verdict) for change in sorted(by_change)]
    assert ranks == sorted(ranks)
    for case in result.prices:
        assert ("we cannot tell" in case.sentence) == (case.verdict is RoiVerdict.cannot_tell)


def test_twice_the_price_brings_back_half_where_work_costs_nothing_and_more_where_it_does() -> None:
    leads = bought(LeadOrigin.exclusive, 400, 60), bought(LeadOrigin.shared, 400, 12)
    for labour, share in ((0, 0.5), (8_000, 2 / 3)):
        result = answer(*leads, labour=labour)
        today, double = ({case.change: case.revenue_per_unit.value for case in result.prices}[at] for at in (0.0, 1.0))
        assert double == pytest.approx(share * today)


# --- the funnel


def made_up(generator: Random, source: LeadOrigin) -> LeadOutcome:
    """Return a lead of any age with any reports, in any order."""
    received = NOW - timedelta(days=generator.uniform(0, 200))

    def later() -> datetime:
        return received + generator.random() * (NOW - received)

    won = later() if generator.random() < 0.3 else None
    return lead(
        source,
        received_at=received,
        contacted_at=later() if generator.random() < 0.4 else None,
        qualified=generator.choice((None, True, False)),
        won_at=won,
        won_minor=100_000 if won else 0,
        lost_at=None if won else later(),
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("count", [40, 400])
def test_whoever_was_won_was_qualified_and_whoever_was_qualified_was_contacted(seed: int, count: int) -> None:
    generator = Random(seed)
    result = answer(*([made_up(generator, source) for _ in range(count)] for source in LeadOrigin))
    for figures in (result.exclusive, result.shared):
        if figures is None or figures.win_rate is None:
            continue
        assert figures.contact_rate is not None
        assert figures.qualify_rate is not None
        assert figures.contact_rate.value >= figures.qualify_rate.value >= figures.win_rate.value
        costs = (figures.per_contacted_minor, figures.per_qualified_minor, figures.per_won_minor)
        values = [cost.value for cost in costs if cost is not None]
        assert values == sorted(values)


def test_qualified_leads_without_a_contact_are_contacted_and_do_not_count_as_quick() -> None:
    qualified_only = [lead(LeadOrigin.exclusive, qualified=True, lost_at=NOW) for _ in range(60)]
    result = answer(qualified_only, bought(LeadOrigin.exclusive, 100, 20), bought(LeadOrigin.shared, 400, 40))
    assert result.exclusive.contact_rate is not None
    assert result.exclusive.contact_rate.value >= 80 / 160 - 0.01
    assert result.speed is not None
    assert sum(band.leads for band in result.speed.bands) == 20


def test_life_tables_that_cross_by_chance_still_show_a_funnel() -> None:
    quick = {"contacted_at": OLD + timedelta(days=2), "won_at": OLD + timedelta(weeks=5), "won_minor": 100_000}
    won = [lead(LeadOrigin.exclusive, **quick) for _ in range(30)]
    young = [lead(LeadOrigin.exclusive, received_at=NOW - timedelta(weeks=3)) for _ in range(70)]
    figures = answer(won, young, bought(LeadOrigin.shared, 400, 40)).exclusive
    assert figures.win_rate is not None
    assert figures.contact_rate is not None
    assert figures.qualify_rate is not None
    assert figures.win_rate.value > 0.9  # of those who were watched for long enough
    assert figures.contact_rate.value >= figures.qualify_rate.value >= figures.win_rate.value


def test_where_every_lead_was_contacted_a_contacted_lead_costs_its_price() -> None:
    """Also where none of the older leads is left that could still be contacted in the last weeks."""
    ours = bought(LeadOrigin.exclusive, 100, 20, contacted_at=OLD + timedelta(days=2))
    result = answer(ours, bought(LeadOrigin.shared, 400, 40)).exclusive
    assert result.contact_rate is not None
    assert result.contact_rate.value == 1.0
    assert result.contact_rate.low is not None
    assert 0.95 < result.contact_rate.low < 0.99  # Jeffreys' bound of 100 of 100
    assert result.per_contacted_minor is not None
    assert result.per_contacted_minor.value == pytest.approx(8_000)


def test_prices_that_differ_widen_what_is_computed_from_them() -> None:
    cheap = bought(LeadOrigin.exclusive, 200, 30, cost_minor=1_000)
    dear = bought(LeadOrigin.exclusive, 200, 30, cost_minor=15_000)
    uneven, even = (
        answer(ours, bought(LeadOrigin.shared, 400, 40)).exclusive
        for ours in (cheap + dear, bought(LeadOrigin.exclusive, 400, 60))
    )
    assert uneven.per_won_minor is not None
    assert even.per_won_minor is not None
    widths = []
    for figure in (uneven.per_won_minor, even.per_won_minor):
        assert figure.low is not None
        assert figure.high is not None
        assert figure.value == pytest.approx(400 * 8_000 / 60)
        widths.append(np.log(figure.high / figure.value))
    # by hand: the mean price is known to 7,000 / sqrt(399) of 8,000, and the two half widths add as squares
    assert widths[0] ** 2 - widths[1] ** 2 == pytest.approx((1.966 * 7_000 / 399**0.5 / 8_000) ** 2, rel=0.01)


def test_a_win_reported_without_a_contact_before_it_says_nothing_about_the_time_to_contact() -> None:
    timed = bought(LeadOrigin.exclusive, 100, 30, contacted_at=OLD + timedelta(minutes=4))
    slow = bought(LeadOrigin.exclusive, 100, 20, contacted_at=OLD + timedelta(hours=5))
    won_at = OLD + timedelta(weeks=2)
    untimed = [lead(LeadOrigin.exclusive, won_at=won_at, contacted_at=won_at, won_minor=1) for _ in range(50)]
    with_them, without = (answer(timed, slow, more).speed for more in (untimed, []))
    assert with_them == without


def test_leads_are_followed_up_to_the_last_report_of_their_business() -> None:
    business = np.array([0, 1, 1, 3])
    reports = {0: last_report(500, ()), 1: last_report(2_000, ())}
    assert list(observed_until(business, reports, 1_000)) == [500, 1_000, 1_000, 0]
    assert list(observed_until(np.array([], int), reports, 10)) == []


def test_leads_of_a_business_whose_reports_are_late_are_followed_up_to_before_its_last_one() -> None:
    late = [0] * 10 + [60] * 35 + [900] * 5
    assert last_report(10_000, late).told_until == 10_000 - 60
    assert last_report(10_000, [*late, 900]).told_until == 10_000 - 900
    assert last_report(10_000, [0] * 50).told_until == 10_000
    business = np.array([0, 1])
    assert list(observed_until(business, {0: last_report(10_000, late)}, 20_000)) == [9_940, 0]
    noted = tabulate([*bought(LeadOrigin.exclusive, 40, 12)])
    sentences = assess(msgspec.structs.replace(noted, late_days=9), 1).notes
    assert any("Outcomes are often reported 9 days late" in note for note in sentences)
