from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.consent import ConsentTerms
from routing.inquiry import CLOCK_TOLERANCE, Authority, Budget, EvidenceKind, Facts, NeedValue, Timing
from routing.qualification import (
    AuthorityPolicy,
    BudgetPolicy,
    Dimension,
    DimensionResult,
    NeedPolicy,
    Nurture,
    Points,
    Prospect,
    QualificationPolicy,
    Rejection,
    RejectionReason,
    ResultConsequence,
    TimingPolicy,
    WaitsFor,
    qualify,
)
from tests.builders.inquiries import (
    EDUCATION_NEEDS,
    NOW,
    ROOFING_NEEDS,
    education_facts,
    education_policy,
    points,
    roofing_facts,
    roofing_policy,
)

Reason = RejectionReason


def usd(minor: int, maximum_minor: int | None = None) -> Budget:
    return Budget(minor=minor, maximum_minor=maximum_minor, currency="USD")


def judge(
    facts: Facts, policy: QualificationPolicy | None = None, now: datetime = NOW
) -> Prospect | Nurture | Rejection:
    return qualify(facts, ROOFING_NEEDS, policy or roofing_policy(), now)


def result_of(facts: Facts, dimension: Dimension, policy: QualificationPolicy | None = None) -> DimensionResult:
    return next(f.result for f in judge(facts, policy).verdict.findings if f.dimension is dimension)


STRICT: dict[str, Any] = {"on_unknown": ResultConsequence.reject}
STRICT_POLICY = roofing_policy(
    budget=BudgetPolicy(minimum_minor=500_000, points=points(), **STRICT),
    authority=AuthorityPolicy(accepted=(Authority.decision_maker,), points=points(), **STRICT),
    need=NeedPolicy(wanted={"roof_type": ("tile",)}, points=points(), **STRICT),
    timing=TimingPolicy(within_days=60, points=points(), **STRICT),
)


def test_a_lead_that_meets_all_four_is_a_prospect_with_full_points() -> None:
    outcome = judge(roofing_facts())
    assert isinstance(outcome, Prospect)
    assert outcome.verdict.score == 100
    assert outcome.verdict.policy_version == 3
    assert [finding.dimension for finding in outcome.verdict.findings] == list(Dimension)


def test_findings_say_value_and_threshold_in_plain_words() -> None:
    findings = {f.dimension: (f.value, f.threshold) for f in judge(roofing_facts()).verdict.findings}
    assert findings == {
        Dimension.budget: ("USD 12,000", "at least USD 5,000"),
        Dimension.authority: ("decision maker", "decision maker or influencer"),
        Dimension.need: ("roof_type: tile", "roof_type: tile or shingle"),
        Dimension.timing: ("within 14 days", "within 60 days"),
    }


def test_findings_carry_their_evidence_and_what_is_unknown_has_none() -> None:
    facts = roofing_facts(authority=None, evidence={"budget": EvidenceKind.verified})
    evidence = {f.dimension: f.evidence for f in judge(facts).verdict.findings}
    assert evidence == {
        Dimension.budget: EvidenceKind.verified,
        Dimension.authority: None,
        Dimension.need: EvidenceKind.stated,
        Dimension.timing: EvidenceKind.stated,
    }


LEAST: dict[str, Any] = {"points": points(), "least_evidence": EvidenceKind.stated}


@pytest.mark.parametrize(
    ("evidence", "minor", "expected"),
    [
        (EvidenceKind.inferred, 500_000, DimensionResult.unknown),
        (EvidenceKind.stated, 500_000, DimensionResult.meets),
        (EvidenceKind.verified, 500_000, DimensionResult.meets),
        (EvidenceKind.inferred, 499_999, DimensionResult.fails),
    ],
)
def test_a_good_answer_on_weaker_evidence_than_the_policy_takes_is_unknown_and_a_bad_one_fails(
    evidence: EvidenceKind, minor: int, expected: DimensionResult
) -> None:
    policy = roofing_policy(budget=BudgetPolicy(minimum_minor=500_000, **LEAST))
    [finding, *_] = judge(roofing_facts(budget=usd(minor), evidence={"budget": evidence}), policy).verdict.findings
    assert (finding.result, finding.evidence) == (expected, evidence)
    assert finding.threshold == "at least USD 5,000, stated or verified"
    expected_points = {DimensionResult.meets: 25, DimensionResult.unknown: 10, DimensionResult.fails: 0}
    assert finding.points == expected_points[expected]


def test_an_answer_without_its_evidence_counts_as_stated() -> None:
    policy = roofing_policy(authority=AuthorityPolicy(accepted=tuple(Authority), **LEAST))
    assert result_of(roofing_facts(), Dimension.authority, policy) is DimensionResult.meets


def test_an_early_wish_on_evidence_that_will_not_do_is_rejected_at_once() -> None:
    policy = roofing_policy(timing=TimingPolicy(within_days=60, **LEAST))
    facts = roofing_facts(timing=Timing(within_days=90), evidence={"timing": EvidenceKind.inferred})
    outcome = judge(facts, policy)
    assert isinstance(outcome, Rejection)
    assert outcome.reason is Reason.timing_unknown
    assert isinstance(judge(msgspec.structs.replace(facts, evidence={}), policy), Nurture)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (usd(500_000), DimensionResult.meets),
        (usd(499_999), DimensionResult.fails),
        (usd(100_000, 500_000), DimensionResult.meets),
        (usd(100_000, 499_999), DimensionResult.fails),
        (usd(0), DimensionResult.fails),
        (None, DimensionResult.unknown),
        (Budget(minor=9_000_000, currency="EUR"), DimensionResult.unknown),
    ],
)
def test_a_budget_meets_when_its_top_reaches_the_minimum_in_the_same_currency(
    budget: Budget | None, expected: DimensionResult
) -> None:
    assert result_of(roofing_facts(budget=budget), Dimension.budget) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"roof_type": "shingle"}, DimensionResult.meets),
        ({"roof_type": "metal"}, DimensionResult.fails),
        ({}, DimensionResult.unknown),
        ({"square_metres": 80}, DimensionResult.unknown),
    ],
)
def test_need_is_unknown_while_unanswered_and_fails_on_an_unwanted_value(
    fields: dict[str, str | int | bool], expected: DimensionResult
) -> None:
    assert result_of(roofing_facts(need_fields=fields), Dimension.need) is expected


def test_one_unwanted_value_fails_even_when_another_field_is_unanswered() -> None:
    policy = roofing_policy(need=NeedPolicy(wanted={"roof_type": ("tile",), "owns_home": (True,)}, points=points()))
    assert result_of(roofing_facts(need_fields={"owns_home": False}), Dimension.need, policy) is DimensionResult.fails


def test_yes_is_not_the_integer_one() -> None:
    policy = roofing_policy(need=NeedPolicy(wanted={"square_metres": (1,)}, points=points()))
    facts = roofing_facts(need_fields={"roof_type": "tile", "square_metres": True})
    assert result_of(facts, Dimension.need, policy) is DimensionResult.fails


WANTED: dict[str, tuple[NeedValue, ...]] = {
    "roof_type": ("tile",),
    "owns_home": (True,),
    "square_metres": (80,),
    "storeys": (1,),
}
NEEDED: dict[str, NeedValue] = {"roof_type": "tile", "owns_home": True, "square_metres": 80, "storeys": 1}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 25),
        ({"storeys": 2}, 7),
        ({"storeys": 2, "owns_home": False}, 5),
        ({"storeys": 2, "owns_home": False, "square_metres": 9}, 2),
        ({"storeys": 2, "owns_home": False, "square_metres": 9, "roof_type": "metal"}, 0),
    ],
)
def test_a_need_that_fails_earns_the_share_that_fits_of_the_points_of_no_answer(
    changes: dict[str, str | int | bool], expected: int
) -> None:
    need = NeedPolicy(wanted=WANTED, points=points(), on_fails=ResultConsequence.accept)
    outcome = judge(roofing_facts(need_fields=NEEDED | changes), roofing_policy(need=need))
    assert outcome.verdict.findings[2].points == expected
    assert judge(roofing_facts(need_fields={}), roofing_policy(need=need)).verdict.findings[2].points == 10


def test_earlier_rules_gave_a_failing_need_its_share_of_all_points() -> None:
    need = NeedPolicy(wanted=WANTED, points=points(), on_fails=ResultConsequence.accept)
    facts = roofing_facts(need_fields=NEEDED | {"storeys": 2})
    assert judge(facts, roofing_policy(need=need, rules_version=1)).verdict.findings[2].points == 18


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"budget": usd(1)}, Reason.budget_below_minimum),
        ({"budget": usd(1), "authority": Authority.researcher}, Reason.budget_below_minimum),
        ({"authority": Authority.researcher}, Reason.authority_not_accepted),
        ({"need_fields": {"roof_type": "metal"}}, Reason.need_not_wanted),
        ({"timing": Timing(within_days=60 + 181)}, Reason.timing_too_late),
        ({"budget": None}, Reason.budget_unknown),
        ({"budget": None, "need_fields": {"roof_type": "metal"}}, Reason.need_not_wanted),
        ({"authority": None, "timing": None}, Reason.authority_unknown),
        ({"need_fields": {}}, Reason.need_unknown),
        ({"timing": None}, Reason.timing_unknown),
    ],
)
def test_the_first_reason_in_order_is_the_one_given(changes: dict[str, Any], expected: RejectionReason) -> None:
    outcome = judge(roofing_facts(**changes), STRICT_POLICY)
    assert isinstance(outcome, Rejection)
    assert outcome.reason is expected
    assert len(outcome.verdict.findings) == 4


def test_unknown_costs_only_its_points_unless_the_policy_rejects_it() -> None:
    outcome = judge(roofing_facts(budget=None))
    assert isinstance(outcome, Prospect)
    assert outcome.verdict.score == 85


def test_leaving_out_a_bad_budget_is_a_sale_only_where_the_policy_says_that_unknown_is_accepted() -> None:
    silent = BudgetPolicy(minimum_minor=500_000, points=points())
    outspoken = msgspec.structs.replace(silent, on_unknown=ResultConsequence.accept)
    bad, hidden = roofing_facts(budget=usd(1)), roofing_facts(budget=None)
    assert isinstance(judge(bad, roofing_policy(budget=silent)), Rejection)
    outcome = judge(hidden, roofing_policy(budget=silent))
    assert isinstance(outcome, Rejection)
    assert outcome.reason is Reason.budget_unknown
    assert outcome.verdict.findings[0].result is DimensionResult.unknown
    assert isinstance(judge(hidden, roofing_policy(budget=outspoken)), Prospect)


HEAVY: dict[str, Any] = {"points": Points(meets=100, unknown=50), "on_unknown": ResultConsequence.accept}
HEAVY_POLICY = roofing_policy(
    budget=BudgetPolicy(minimum_minor=500_000, **HEAVY),
    authority=AuthorityPolicy(accepted=(Authority.decision_maker,), **HEAVY),
    need=NeedPolicy(wanted={"roof_type": ("tile",)}, **HEAVY),
    timing=TimingPolicy(within_days=60, **HEAVY),
)


@pytest.mark.parametrize(
    ("changes", "expected", "earlier"),
    [
        ({}, 100, 100),
        ({"budget": None}, 87, 100),
        ({"budget": None, "authority": None}, 75, 100),
        ({"budget": None, "authority": None, "timing": None}, 62, 100),
        ({"budget": usd(1)}, 75, 100),
    ],
)
def test_points_that_add_up_to_more_than_100_are_scaled_where_earlier_rules_cut_them(
    changes: dict[str, Any], expected: int, earlier: int
) -> None:
    facts = roofing_facts(**changes)
    assert judge(facts, HEAVY_POLICY).verdict.score == expected
    assert judge(facts, msgspec.structs.replace(HEAVY_POLICY, rules_version=1)).verdict.score == earlier


def test_too_few_points_reject_a_lead_that_no_dimension_rejects() -> None:
    outcome = judge(roofing_facts(budget=None, authority=None, timing=None))
    assert isinstance(outcome, Rejection)
    assert (outcome.reason, outcome.verdict.score) == (Reason.score_below_minimum, 55)


@pytest.mark.parametrize(
    ("timing", "until"),
    [
        (Timing(within_days=61), NOW + timedelta(days=1)),
        (Timing(within_days=60 + 180), NOW + timedelta(days=180)),
        (Timing(not_before=date(2027, 3, 1)), datetime(2026, 12, 31, tzinfo=UTC)),
    ],
)
def test_a_lead_whose_time_has_not_come_waits_until_it_is_near_enough(timing: Timing, until: datetime) -> None:
    outcome = judge(roofing_facts(timing=timing))
    assert isinstance(outcome, Nurture)
    assert outcome.until == until
    assert outcome.why == f"{until:%-d %b %Y}, 60 days before the person wants it"
    assert outcome.verdict.findings[3].result is DimensionResult.fails


def test_a_lead_that_something_else_rejects_is_not_nurtured() -> None:
    outcome = judge(roofing_facts(timing=Timing(within_days=90), budget=usd(1)))
    assert isinstance(outcome, Rejection)
    assert outcome.reason is Reason.budget_below_minimum


def test_an_early_lead_is_judged_by_the_score_it_will_have_when_its_time_comes() -> None:
    early = roofing_facts(timing=Timing(within_days=90), budget=None)  # 60 points now, 85 then
    assert isinstance(judge(early, roofing_policy(minimum_score=85)), Nurture)
    assert isinstance(judge(early, roofing_policy(minimum_score=86)), Rejection)


def test_timing_beyond_the_limit_is_a_mere_failure_where_failing_is_accepted() -> None:
    facts = education_facts(timing=Timing(within_days=3_000))
    outcome = qualify(facts, EDUCATION_NEEDS, education_policy(), NOW)
    assert isinstance(outcome, Prospect)
    assert outcome.verdict.findings[3].result is DimensionResult.fails


AHEAD = NOW + timedelta(seconds=1)
"""Submission by a clock that is a second ahead of ours."""


@pytest.mark.parametrize(("days", "expected"), [(60, Prospect), (60 + 180, Nurture), (60 + 181, Rejection)])
def test_a_providers_clock_that_is_ahead_changes_nothing_at_exactly_the_policys_days(days: int, expected: type) -> None:
    facts = roofing_facts(timing=Timing(within_days=days), submitted_at=AHEAD, received_at=NOW)
    assert isinstance(judge(facts), expected)


def test_a_version_saved_under_earlier_rules_is_judged_by_them() -> None:
    facts = roofing_facts(timing=Timing(within_days=60), submitted_at=AHEAD, received_at=NOW)
    outcome = judge(facts, roofing_policy(rules_version=1))
    assert isinstance(outcome, Nurture)
    assert outcome.until == AHEAD


@pytest.mark.parametrize(
    ("days", "age", "expected"),
    [
        (0, timedelta(days=7, hours=23), DimensionResult.meets),
        (0, timedelta(days=8), DimensionResult.unknown),
        (1, timedelta(days=8), DimensionResult.meets),
        (1, timedelta(days=89), DimensionResult.unknown),
        (82, timedelta(days=89), DimensionResult.meets),
        (90, timedelta(days=89), DimensionResult.meets),
    ],
)
def test_a_wish_whose_time_passed_more_than_a_week_ago_is_unknown(
    days: int, age: timedelta, expected: DimensionResult
) -> None:
    outcome = judge(roofing_facts(timing=Timing(within_days=days)), now=NOW + age)
    assert outcome.verdict.findings[3].result is expected


def test_how_long_a_wish_is_overdue_is_said_and_the_policy_says_how_long_it_may_be() -> None:
    facts, late = roofing_facts(timing=Timing(within_days=1)), NOW + timedelta(days=89)
    patient = roofing_policy(timing=TimingPolicy(within_days=60, overdue_days=88, points=points()))
    assert judge(facts, now=late).verdict.findings[3].value == "within 1 day, 88 days overdue"
    for policy in (patient, roofing_policy(rules_version=1)):
        assert judge(facts, policy, late).verdict.findings[3].result is DimensionResult.meets


def test_a_date_after_which_the_person_wants_it_does_not_pass() -> None:
    facts = roofing_facts(timing=Timing(not_before=NOW.date()))
    assert judge(facts, now=NOW + timedelta(days=89)).verdict.findings[3].result is DimensionResult.meets


def test_points_that_fall_from_unknown_to_meets_are_refused() -> None:
    with pytest.raises(ValueError, match="Points must rise"):
        Points(meets=1, unknown=2)


def test_outcomes_survive_json_unchanged() -> None:
    for facts in (roofing_facts(), roofing_facts(budget=usd(1)), roofing_facts(timing=Timing(within_days=90))):
        outcome = judge(facts)
        raw = msgspec.json.encode(outcome)
        assert msgspec.json.decode(raw, type=Prospect | Nurture | Rejection) == outcome


# Properties.

amounts = st.integers(0, 10**12)
budgets = st.none() | st.builds(
    Budget, minor=amounts, currency=st.sampled_from(["USD", "EUR", "JPY"]), maximum_minor=st.none() | amounts
)
timings = st.none() | st.builds(
    Timing, within_days=st.none() | st.integers(0, 7_301) | st.integers(0, 10**9), not_before=st.none() | st.dates()
)
need_values = st.sampled_from(["tile", "metal"]) | st.integers(-5, 5) | st.booleans()
facts_strategy = st.builds(
    lambda **changes: roofing_facts(**changes),
    budget=budgets,
    authority=st.none() | st.sampled_from(Authority),
    need_fields=st.dictionaries(st.sampled_from([*ROOFING_NEEDS, "other"]), need_values),
    timing=timings,
    evidence=st.dictionaries(st.sampled_from(Dimension), st.sampled_from(EvidenceKind)),
)
points_strategy = st.lists(st.integers(-100, 100), min_size=3, max_size=3).map(
    lambda three: Points(fails=sorted(three)[0], unknown=sorted(three)[1], meets=sorted(three)[2])
)
on_result = st.sampled_from(ResultConsequence)
rule = {
    "points": points_strategy,
    "on_fails": on_result,
    "on_unknown": st.none() | on_result,
    "least_evidence": st.sampled_from(EvidenceKind),
}
policies = st.builds(
    QualificationPolicy,
    version=st.just(1),
    currency=st.sampled_from(["USD", "EUR"]),
    budget=st.builds(BudgetPolicy, minimum_minor=amounts, **rule),
    authority=st.builds(AuthorityPolicy, accepted=st.lists(st.sampled_from(Authority)).map(tuple), **rule),
    need=st.builds(
        NeedPolicy,
        wanted=st.dictionaries(
            st.sampled_from([*ROOFING_NEEDS, "other"]), st.lists(need_values, max_size=2).map(tuple)
        ),
        **rule,
    ),
    timing=st.builds(
        TimingPolicy,
        within_days=st.integers(0, 3650),
        nurture_limit_days=st.integers(0, 3650),
        overdue_days=st.integers(0, 3650),
        **rule,
    ),
    minimum_score=st.integers(0, 100),
)


@given(facts_strategy, policies)
def test_qualify_always_answers_and_always_the_same(facts: Facts, policy: QualificationPolicy) -> None:
    outcome = judge(facts, policy)
    assert outcome == judge(facts, policy)
    assert 0 <= outcome.verdict.score <= 100
    assert [finding.dimension for finding in outcome.verdict.findings] == list(Dimension)


@given(facts_strategy, policies)
def test_what_was_not_said_is_unknown_and_never_fails(facts: Facts, policy: QualificationPolicy) -> None:
    silent = msgspec.structs.replace(facts, budget=None, authority=None, need_fields={}, timing=None)
    results = {finding.result for finding in judge(silent, policy).verdict.findings}
    assert DimensionResult.fails not in results


@given(facts_strategy, policies, amounts, amounts)
def test_more_budget_never_lowers_the_score(facts: Facts, policy: QualificationPolicy, first: int, second: int) -> None:
    less, more = sorted((first, second))
    scores = [
        judge(
            msgspec.structs.replace(facts, budget=Budget(minor=minor, currency=policy.currency)), policy
        ).verdict.score
        for minor in (less, more)
    ]
    assert scores[0] <= scores[1]


scores = st.lists(st.integers(0, 25), min_size=3, max_size=3).map(
    lambda three: Points(fails=sorted(three)[0], unknown=sorted(three)[1], meets=sorted(three)[2])
)
"""Points of which four together make 100 at most, so that no difference is cut off."""
yes_or_no = st.dictionaries(st.sampled_from(list(WANTED)), st.booleans(), min_size=1)


@given(yes_or_no, scores)
def test_an_unwanted_answer_never_scores_more_than_no_answer_nor_than_a_wanted_one(
    fields: dict[str, bool], need_points: Points
) -> None:
    wanted: dict[str, tuple[NeedValue, ...]] = {name: (True,) for name in WANTED}
    policy = roofing_policy(need=NeedPolicy(wanted=wanted, points=need_points))

    def score(answers: dict[str, bool]) -> int:
        return judge(roofing_facts(need_fields=answers), policy).verdict.score

    for name in [name for name, answer in fields.items() if not answer]:
        without = {other: answer for other, answer in fields.items() if other != name}
        assert score(fields) <= min(score(without), score(fields | {name: True}))


@given(facts_strategy, policies, st.integers(0, 7_301), st.integers(0, 7_301))
def test_who_asks_for_it_sooner_never_scores_less(
    facts: Facts, policy: QualificationPolicy, first: int, second: int
) -> None:
    later, sooner = (
        judge(msgspec.structs.replace(facts, timing=Timing(within_days=days)), policy).verdict.score
        for days in sorted((first, second), reverse=True)
    )
    assert later <= sooner


@given(facts_strategy, policies, st.sampled_from(Authority), st.sampled_from(Authority))
def test_an_accepted_authority_never_scores_less_than_another(
    facts: Facts, policy: QualificationPolicy, first: Authority, second: Authority
) -> None:
    other, accepted = (
        judge(msgspec.structs.replace(facts, authority=authority), policy).verdict.score
        for authority in sorted((first, second), key=lambda authority: authority in policy.authority.accepted)
    )
    assert other <= accepted


@given(facts_strategy, policies)
def test_only_a_lead_that_earns_all_points_has_a_score_of_100(facts: Facts, policy: QualificationPolicy) -> None:
    verdict = judge(facts, policy).verdict
    if verdict.score == 100:
        assert sum(finding.points for finding in verdict.findings) >= max(100, policy.most_points)


def rank_of(outcome: Prospect | Nurture | Rejection) -> tuple[int, int]:
    """Place of an outcome among better and worse ones, and its score."""
    return (Rejection, Nurture, Prospect).index(type(outcome)), outcome.verdict.score


LEFT_OUT: dict[Dimension, dict[str, Any]] = {
    Dimension.budget: {"budget": None},
    Dimension.authority: {"authority": None},
    Dimension.need: {"need_fields": {}},
    Dimension.timing: {"timing": None},
}
UNFIT: dict[Dimension, dict[str, Any]] = {
    Dimension.budget: {"budget": usd(1)},
    Dimension.authority: {"authority": Authority.researcher},
    Dimension.need: {"need_fields": {"roof_type": "metal"}},
    Dimension.timing: {"timing": Timing(within_days=60 + 181)},
}


@st.composite
def tolerant_policies(draw: st.DrawFn) -> QualificationPolicy:
    """A policy by whose consequences nobody is rejected: its points and its minimum score alone decide."""
    standard = roofing_policy(minimum_score=draw(st.integers(0, 100)))
    accept = {"on_fails": ResultConsequence.accept, "on_unknown": ResultConsequence.accept}
    rules = {
        dimension.value: msgspec.structs.replace(rule, points=draw(scores), **accept)
        for dimension, rule in zip(Dimension, standard.rules, strict=True)
    }
    return msgspec.structs.replace(standard, **rules)


@given(tolerant_policies(), st.sampled_from(Dimension), on_result, st.sets(st.sampled_from(Dimension)))
def test_leaving_an_answer_out_turns_no_rejection_into_a_sale_unless_the_policy_says_so(
    policy: QualificationPolicy, dimension: Dimension, on_fails: ResultConsequence, unfit: set[Dimension]
) -> None:
    rule = getattr(policy, dimension)
    equal = msgspec.structs.replace(rule.points, unknown=rule.points.fails)
    silent = msgspec.structs.replace(rule, on_fails=on_fails, on_unknown=None, points=equal)
    policy = msgspec.structs.replace(policy, **{dimension: silent})  # a policy says so in on_unknown and in the points
    bad: dict[str, Any] = {}
    for other in {dimension, *unfit}:
        bad |= UNFIT[other]
    with_answer, without = (judge(roofing_facts(**bad | left_out), policy) for left_out in ({}, LEFT_OUT[dimension]))
    assert with_answer.verdict.score >= without.verdict.score
    if isinstance(with_answer, Rejection):
        assert isinstance(without, Rejection)


@given(tolerant_policies(), st.sampled_from(Dimension), on_result, st.sampled_from(EvidenceKind), st.booleans())
def test_stronger_evidence_never_makes_a_lead_worse(
    policy: QualificationPolicy, dimension: Dimension, on_fails: ResultConsequence, least: EvidenceKind, bad: bool
) -> None:
    rule = msgspec.structs.replace(getattr(policy, dimension), on_fails=on_fails, on_unknown=None, least_evidence=least)
    policy = msgspec.structs.replace(policy, **{dimension: rule})
    answer = UNFIT[dimension] if bad else {}
    ranks = [
        rank_of(judge(roofing_facts(evidence={dimension: kind}, **answer), policy))
        for kind in (EvidenceKind.inferred, EvidenceKind.stated, EvidenceKind.verified)
    ]
    assert ranks == sorted(ranks)


@given(st.integers(0, 300), st.timedeltas(timedelta(0), CLOCK_TOLERANCE), st.integers(0, 90))
def test_the_clock_of_a_provider_changes_no_outcome(days: int, ahead: timedelta, later: int) -> None:
    facts = roofing_facts(timing=Timing(within_days=days))
    now = NOW + timedelta(days=later)
    assert judge(msgspec.structs.replace(facts, submitted_at=NOW + ahead), now=now) == judge(facts, now=now)


@given(facts_strategy, policies)
def test_an_early_lead_qualified_again_at_its_time_is_a_prospect(facts: Facts, policy: QualificationPolicy) -> None:
    outcome = judge(facts, policy)
    if isinstance(outcome, Nurture) and not outcome.missing and not outcome.lacking_points:
        assert NOW < outcome.until <= NOW + policy.longest_wait
        assert isinstance(judge(facts, policy, outcome.until), Prospect)
        assert isinstance(judge(facts, policy, outcome.until - timedelta(microseconds=1)), Nurture)


consent_ends = st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=900)).map(lambda span: NOW + span)


@given(facts_strategy, policies, consent_ends, st.integers(1, 548))
def test_no_lead_waits_without_an_end(
    facts: Facts, policy: QualificationPolicy, expires_at: datetime | None, days: int
) -> None:
    facts = msgspec.structs.replace(facts, consent=ConsentTerms(expires_at=expires_at))
    policy = msgspec.structs.replace(policy, nurture_days=days, on_low_score=ResultConsequence.nurture)
    outcome = judge(facts, policy)
    if not isinstance(outcome, Nurture):
        return
    assert outcome.waits_for
    assert (WaitsFor.date in outcome.waits_for) == (outcome.starts_at is not None)
    assert (WaitsFor.points in outcome.waits_for) == (outcome.lacking_points > 0)
    dimensions = [Dimension(wait) for wait in outcome.waits_for if wait in list(map(str, Dimension))]
    assert dimensions == list(outcome.missing)
    assert NOW < outcome.until <= min(NOW + timedelta(days=548), expires_at or outcome.until)
    again = judge(facts, policy, outcome.until)
    if isinstance(again, Nurture) and outcome.until != expires_at:
        is_over = again.until <= outcome.until
        is_late = again.starts_at is not None and again.starts_at > NOW + policy.longest_wait
        assert is_over or is_late


WAITS: dict[str, Any] = {"on_unknown": ResultConsequence.nurture, "points": points()}
WAITING_POLICY = roofing_policy(budget=BudgetPolicy(minimum_minor=500_000, **WAITS), nurture_days=30)


def test_a_lead_whose_budget_is_unknown_waits_for_it_where_the_policy_says_so() -> None:
    outcome = judge(roofing_facts(budget=None), WAITING_POLICY)
    assert isinstance(outcome, Nurture)
    assert (outcome.missing, outcome.starts_at, outcome.lacking_points) == ((Dimension.budget,), None, 0)
    assert outcome.until == NOW + timedelta(days=30)
    assert outcome.why == "a better answer about the budget"
    assert isinstance(judge(roofing_facts(), WAITING_POLICY), Prospect)
    low = judge(roofing_facts(budget=usd(100)), WAITING_POLICY)
    assert isinstance(low, Rejection), "a budget that is too low is no unknown one"


def test_a_lead_that_waits_for_an_answer_is_rejected_for_any_other_reason() -> None:
    facts = roofing_facts(budget=None, authority=Authority.researcher)
    outcome = judge(facts, WAITING_POLICY)
    assert isinstance(outcome, Rejection)
    assert outcome.reason is Reason.authority_not_accepted
    hopeless = judge(
        roofing_facts(budget=None, timing=None, authority=None),
        msgspec.structs.replace(WAITING_POLICY, minimum_score=80),
    )
    assert isinstance(hopeless, Rejection), "not even the best budget would reach the minimum score"


def test_a_lead_that_waits_for_an_answer_is_judged_by_the_score_that_it_will_have() -> None:
    policy = msgspec.structs.replace(WAITING_POLICY, minimum_score=90)
    outcome = judge(roofing_facts(budget=None), policy)
    assert isinstance(outcome, Nurture)
    assert outcome.verdict.score == 85


def test_a_lead_whose_score_is_low_waits_for_the_points_that_it_lacks() -> None:
    policy = roofing_policy(minimum_score=90, on_low_score=ResultConsequence.nurture)
    outcome = judge(roofing_facts(budget=None), policy)
    assert isinstance(outcome, Nurture)
    assert (outcome.missing, outcome.lacking_points) == ((), 5)
    assert outcome.until == NOW + timedelta(days=90)
    assert outcome.why == "5 points more"


def test_a_lead_that_waits_for_its_date_and_an_answer_waits_until_the_later_of_both_ends() -> None:
    early = {"timing": Timing(within_days=70), "budget": None}
    outcome = judge(roofing_facts(**early), WAITING_POLICY)
    assert isinstance(outcome, Nurture)
    assert (outcome.starts_at, outcome.until) == (NOW + timedelta(days=10), NOW + timedelta(days=30))
    assert outcome.waits_for == (WaitsFor.date, WaitsFor.budget)


def test_no_lead_waits_beyond_the_end_of_its_consent_and_earlier_rules_do_not_know_it() -> None:
    end = NOW + timedelta(days=5)
    facts = roofing_facts(timing=Timing(within_days=70), consent=ConsentTerms(expires_at=end))
    outcome, earlier = judge(facts), judge(facts, roofing_policy(rules_version=2))
    assert isinstance(outcome, Nurture)
    assert isinstance(earlier, Nurture)
    assert (outcome.until, earlier.until) == (end, NOW + timedelta(days=10))


def test_no_lead_waits_for_more_than_eighteen_months() -> None:
    timing = TimingPolicy(within_days=60, nurture_limit_days=3_650, points=points())
    for days, expected in ((60 + 548, Nurture), (60 + 549, Rejection)):
        facts = roofing_facts(timing=Timing(within_days=days))
        assert isinstance(judge(facts, roofing_policy(timing=timing)), expected)
        assert isinstance(judge(facts, roofing_policy(timing=timing, rules_version=2)), Nurture)
