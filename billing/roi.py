"""Comparison of exclusive with shared leads: figures with intervals, the break-even price, and a verdict.

docs/ROI.md gives the method of each figure and its measured coverage. The comparison does not show that exclusivity is
the cause of a difference, because businesses choose what they buy.

Break-even rule: let a lead cost p, the work on it c, and let a won job be worth v whatever its source. A source with
win rate w brings w·v / (p + c) per unit spent, so exclusive leads bring more per unit spent exactly when (p_e + c) /
(p_s + c) < w_e / w_s. Both bring the same at the exclusive price (p_s + c) · w_e / w_s - c.
"""

import msgspec

from billing.estimates import Estimator
from billing.evidence import (
    LEAST_BUSINESSES,
    LEAST_OVERLAP,
    LEAST_WINS,
    EvidenceBasis,
    RoiEvidence,
    SharedLeadAssumption,
    Side,
    has_enough_outcomes,
    horizon_of,
)
from billing.findings import (
    BreakEven,
    ComparedLeads,
    DelayEffect,
    MatchedComparison,
    PriceCase,
    Roi,
    RoiVerdict,
    SourceFigures,
    SpeedBand,
    SpeedEffect,
    Unevenness,
)
from billing.intervals import LEAST_EVEN, Figure, Ratio, counted_rate, resample, share
from billing.lifetable import Cells, per_lead
from billing.wording import delay_sentence, notes, price_sentence, speed_sentence, verdict_sentence


def assess(evidence: RoiEvidence, seed: int) -> Roi:
    """Answer "do exclusive leads pay better than shared ones?" from `evidence` alone.

    Imported shared leads are compared if they have enough outcomes, otherwise the declared or assumed figures. `seed`
    fixes the bootstrap draws.
    """
    shared = _usable_import(evidence)
    horizon = _horizon(evidence, shared)
    resampling = resample(evidence.businesses, seed) if evidence.businesses > 1 else None
    estimator = Estimator(evidence.businesses, max(horizon, 1), resampling, heavy_tailed=evidence.heavy_tailed)
    exclusive = _with_labour(evidence.exclusive, evidence.labour_minor)
    ours = _figures(exclusive, EvidenceBasis.records, estimator, horizon)
    comparison = _Comparison()
    if shared is not None:
        comparison = _compare_with_import(evidence, shared, estimator, horizon)
    elif evidence.assumed is not None:
        comparison = _compare_with_assumption(evidence, evidence.assumed, exclusive, ours, estimator)
    verdict = _verdict(evidence, shared, horizon, comparison)
    return Roi(
        verdict=verdict,
        sentence=verdict_sentence(verdict, evidence, ours, comparison.theirs, comparison.within, comparison.uneven),
        horizon_weeks=horizon,
        businesses=evidence.all_businesses,
        exclusive=ours,
        shared=comparison.theirs,
        compared=comparison.within,
        ratio=comparison.ratio,
        break_even=comparison.break_even,
        matched=comparison.matched,
        speed=_speed(evidence, estimator),
        delay=_delay(evidence, estimator),
        prices=_prices(verdict, comparison, evidence.labour_minor),
        notes=notes(evidence, shared, horizon, comparison.matched),
    )


def _horizon(evidence: RoiEvidence, shared: Side | None) -> int:
    """Return the weeks within which a job counts: no more than the stated win rate of shared leads allows, if used."""
    horizon = horizon_of(evidence.exclusive, shared)
    if shared is None and evidence.assumed is not None and evidence.assumed.weeks is not None:
        return min(horizon, evidence.assumed.weeks)
    return horizon


class _Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of shared leads, and of exclusive leads relative to them. None for a figure that cannot be estimated.

    `within` has the revenue per unit spent of both sources in the leads that are compared, `spent` the cost of an
    exclusive lead among them. `longer` is true if wins of shared leads were counted for more weeks than the horizon:
    then a higher win rate of theirs proves nothing. `uneven` says why the ratio has no interval, if it is for that.
    """

    theirs: SourceFigures | None = None
    within: ComparedLeads | None = None
    spent: float = 0.0
    ratio: Ratio | None = None
    break_even: BreakEven | None = None
    matched: MatchedComparison | None = None
    longer: bool = False
    uneven: Unevenness | None = None


def _usable_import(evidence: RoiEvidence) -> Side | None:
    """Return the imported shared leads, or None if too few have ended and an assumption can take their place."""
    shared = evidence.shared
    if shared is not None and evidence.assumed is not None and not has_enough_outcomes(shared):
        return None
    return shared


def _compare_with_import(evidence: RoiEvidence, shared: Side, estimator: Estimator, horizon: int) -> _Comparison:
    """Compare with imported leads in the businesses with both sources; only the imported leads' own figures if there is
    no horizon, no such business, or a source has no win."""
    theirs = _figures(_with_labour(shared, evidence.labour_minor), EvidenceBasis.imported, estimator, horizon)
    if evidence.compared is None or not horizon:
        return _Comparison(theirs=theirs)
    exclusive, imported = (_with_labour(side, evidence.labour_minor) for side in evidence.compared)
    if horizon_of(exclusive, imported) < horizon or not (exclusive.won.events and imported.won.events):
        return _Comparison(theirs=theirs)
    return _Comparison(
        theirs=theirs,
        within=ComparedLeads(
            businesses=evidence.fewest,
            exclusive_per_unit=estimator.revenue(exclusive),
            shared_per_unit=estimator.revenue(imported),
        ),
        spent=exclusive.cost_per_lead,
        ratio=estimator.revenue_ratio(exclusive, imported),
        break_even=_break_even(
            exclusive.cost_per_lead / imported.cost_per_lead,
            estimator.win_ratio(exclusive, imported),
            estimator.equal_cost(exclusive, imported),
            evidence.labour_minor,
        ),
        matched=_matched(evidence, estimator),
        uneven=_unevenness(evidence, (exclusive, imported), values=True),
    )


def _compare_with_assumption(
    evidence: RoiEvidence,
    assumed: SharedLeadAssumption,
    exclusive: Side,
    ours: SourceFigures,
    estimator: Estimator,
) -> _Comparison:
    """Compare with declared or assumed figures. Without the numbers they were counted from there are no intervals."""
    labour_minor = evidence.labour_minor
    theirs = _assumed_figures(assumed, labour_minor, ours)
    revenue = theirs.revenue_per_unit
    if not (ours.revenue_per_unit and ours.win_rate and revenue and revenue.value > 0):
        return _Comparison(theirs=theirs)
    cost = theirs.spent_per_lead_minor
    win_ratio = Figure(value=ours.win_rate.value / assumed.win_rate)
    ratio = Ratio(value=ours.revenue_per_unit.value / revenue.value)
    if assumed.leads and assumed.won:
        counted = counted_rate(assumed.won, assumed.leads)
        win_ratio = estimator.win_ratio_over(exclusive, counted)
        ratio = estimator.revenue_over(exclusive, counted, cost, assumed.value_minor)
    return _Comparison(
        theirs=theirs,
        within=ComparedLeads(
            businesses=evidence.buyers, exclusive_per_unit=ours.revenue_per_unit, shared_per_unit=revenue
        ),
        spent=ours.spent_per_lead_minor,
        ratio=ratio,
        break_even=_break_even(ours.spent_per_lead_minor / cost, win_ratio, _divide(win_ratio, 1 / cost), labour_minor),
        longer=(assumed.weeks or 0) > estimator.horizon,
        uneven=_unevenness(evidence, (exclusive,), values=assumed.value_minor is not None),
    )


def _unevenness(evidence: RoiEvidence, sides: tuple[Side, ...], *, values: bool) -> Unevenness | None:
    """Return why leads are too uneven to compare. `values` says whether the values of jobs enter the comparison."""
    if evidence.businesses > 1 and min(side.clusters for side in sides) < LEAST_EVEN:
        return Unevenness.businesses
    return Unevenness.jobs if values and evidence.heavy_tailed else None


def _with_labour(side: Side, labour_minor: int) -> Side:
    """Add the cost of working on each lead to the cost of a side."""
    return msgspec.structs.replace(side, cost_minor=side.cost_minor + labour_minor * side.leads)


def _figures(side: Side, basis: EvidenceBasis, estimator: Estimator, horizon: int) -> SourceFigures:
    """Return the figures of one source: only counts and costs if the horizon is 0 or nothing was bought."""
    leads, spent = float(side.leads.sum()), float(side.cost_minor.sum())
    counts = SourceFigures(
        basis=basis,
        leads=round(leads),
        outcomes=side.outcomes,
        open=round(leads) - side.outcomes,
        wins=side.won.events,
        spent_minor=round(spent),
        spent_per_lead_minor=spent / leads if leads else 0.0,
    )
    if not (horizon and leads and spent):
        return counts
    won = (side.won, estimator.rate(side.won))
    qualified = _at_least((side.qualified, estimator.rate(side.qualified)), won)
    contacted = _at_least((side.contacted, estimator.rate(side.contacted)), qualified)
    wins, value = per_lead(side.won.counted(), estimator.horizon), per_lead(side.won, estimator.horizon)
    return msgspec.structs.replace(
        counts,
        contact_rate=contacted[1],
        qualify_rate=qualified[1],
        win_rate=won[1],
        per_contacted_minor=estimator.per_event(side, *contacted),
        per_qualified_minor=estimator.per_event(side, *qualified),
        per_won_minor=estimator.per_event(side, *won),
        value_per_win_minor=value.estimate / wins.estimate if wins.estimate else None,
        revenue_per_unit=estimator.revenue(side),
    )


Step = tuple[Cells, Figure | None]
"A step of the funnel: its cells and its rate."


def _at_least(step: Step, next_step: Step) -> Step:
    """Return the step, or the next one if its rate is larger or the only one known.

    The life tables of few leads may cross by chance, and if all older leads were contacted in their first weeks, none
    is left at risk in the last ones.
    """
    rate, next_rate = step[1], next_step[1]
    lower = next_rate is not None and (rate is None or next_rate.value > rate.value)
    return next_step if lower else step


def _assumed_figures(assumed: SharedLeadAssumption, labour_minor: int, ours: SourceFigures) -> SourceFigures:
    """Return declared or assumed figures; only a win rate with the numbers it was counted from has an interval.

    Without a stated value, a won job is taken to be worth as much as one from an exclusive lead.
    """
    value = assumed.value_minor or ours.value_per_win_minor
    spent = assumed.cost_minor + labour_minor
    revenue = Figure(value=assumed.win_rate * value / spent) if value else None
    rate = Figure(value=assumed.win_rate)
    if assumed.leads:
        rate = share(assumed.win_rate, 0.0, assumed.leads)
    return SourceFigures(
        basis=assumed.basis,
        leads=0,
        outcomes=0,
        open=0,
        wins=0,
        spent_minor=0,
        spent_per_lead_minor=spent,
        win_rate=rate,
        per_won_minor=Figure(value=spent / assumed.win_rate),
        value_per_win_minor=value,
        revenue_per_unit=revenue,
    )


def _divide(figure: Figure, divisor: float) -> Figure:
    """Divide an estimate and its interval by a constant."""
    low, high = figure.low, figure.high
    return Figure(
        value=figure.value / divisor,
        low=None if low is None else low / divisor,
        high=None if high is None else high / divisor,
    )


def _break_even(price_ratio: float, win_ratio: Figure, equal_cost: Figure, labour_minor: int) -> BreakEven:
    """Apply the break-even rule of the module's docstring; `equal_cost` is an equal price with its labour."""

    def price(cost: float | None) -> float | None:
        return None if cost is None else cost - labour_minor

    return BreakEven(
        price_ratio=price_ratio,
        win_ratio=win_ratio,
        price_minor=Figure(
            value=equal_cost.value - labour_minor, low=price(equal_cost.low), high=price(equal_cost.high)
        ),
    )


PRICE_CHANGES = (-0.2, 0.0, 0.2, 0.5, 1.0)
"""Changes of the exclusive price for which the verdict is repeated, from 20 % less to twice the price."""


def _prices(verdict: RoiVerdict, comparison: _Comparison, labour_minor: int) -> tuple[PriceCase, ...]:
    """Return the verdict at other exclusive prices; none if there is no verdict at today's price.

    Revenue stays the same. The cost of a lead is its changed price plus the unchanged labour.
    """
    within = comparison.within
    if verdict in UNANSWERED or within is None:
        return ()
    spent = comparison.spent
    cases = []
    for change in PRICE_CHANGES:
        factor = spent / (spent + (spent - labour_minor) * change)
        revenue = _divide(within.exclusive_per_unit, 1 / factor)
        changed = _judge_ratios(comparison, factor)
        sentence = price_sentence(changed, revenue, within.shared_per_unit)
        cases.append(PriceCase(change=change, verdict=changed, revenue_per_unit=revenue, sentence=sentence))
    return tuple(cases)


def _matched(evidence: RoiEvidence, estimator: Estimator) -> MatchedComparison | None:
    """Compare leads of the same vertical and area; None if they are too few, or too few of all leads."""
    if evidence.matched is None or evidence.overlap < LEAST_OVERLAP:
        return None
    exclusive, shared = (_with_labour(side, evidence.labour_minor) for side in evidence.matched)
    if min(horizon_of(exclusive), horizon_of(shared)) < estimator.horizon:
        return None
    if not (has_enough_outcomes(exclusive) and has_enough_outcomes(shared)):
        return None
    return MatchedComparison(
        overlap=evidence.overlap,
        exclusive_per_unit=estimator.revenue(exclusive),
        shared_per_unit=estimator.revenue(shared),
        ratio=estimator.revenue_ratio(exclusive, shared),
        win_ratio=estimator.win_ratio(exclusive, shared),
    )


def _speed(evidence: RoiEvidence, estimator: Estimator) -> SpeedEffect | None:
    """Return win rates by time to first contact; None without contacted leads that are old enough.

    The ratio compares leads of one business, vertical, budget and time of day. It is an association and not a cause:
    people who are easy to win may also be easy to reach.
    """
    bands = []
    for speed in evidence.speed:
        rate = estimator.rate(speed.cells, 1)
        if rate is not None:
            leads = round(float(speed.cells.leads.sum()))
            bands.append(SpeedBand(band=speed.band, leads=leads, wins=speed.cells.events, win_rate=rate))
    if not bands:
        return None
    compared, ratio = evidence.speed_compared, None
    if compared is not None and min(compared.fast_wins, compared.slow_wins) >= LEAST_WINS:
        ratio = estimator.speed_ratio(compared)
    limit = evidence.speed[evidence.fast_bands - 1].band
    leads = compared.leads if compared else 0
    return SpeedEffect(
        bands=tuple(bands), fast=limit, leads=leads, ratio=ratio, sentence=speed_sentence(limit, leads, ratio)
    )


def _delay(evidence: RoiEvidence, estimator: Estimator) -> DelayEffect | None:
    """Return the effect of holding leads back at random; None where none that are old enough were."""
    compared = evidence.delay_compared
    if compared is None:
        return None
    ratio = None
    if min(compared.fast_wins, compared.slow_wins) >= LEAST_WINS:
        ratio = estimator.speed_ratio(compared)
    return DelayEffect(leads=compared.leads, ratio=ratio, sentence=delay_sentence(compared.leads, ratio))


def _verdict(evidence: RoiEvidence, shared: Side | None, horizon: int, comparison: _Comparison) -> RoiVerdict:
    """Judge which source pays better, if there is enough data of both."""
    if comparison.theirs is None:
        return RoiVerdict.nothing_to_compare
    sides = [side for side in (evidence.exclusive, shared) if side is not None]
    few = evidence.businesses > 1 and evidence.fewest < LEAST_BUSINESSES
    if not horizon or few or not all(has_enough_outcomes(side) for side in sides):
        return RoiVerdict.not_enough_data
    return RoiVerdict.too_uneven if comparison.uneven else _judge_ratios(comparison)


UNANSWERED = (RoiVerdict.nothing_to_compare, RoiVerdict.not_enough_data, RoiVerdict.too_uneven)
"""Verdicts that do not compare the sources."""


def _judge_ratios(comparison: _Comparison, factor: float = 1.0) -> RoiVerdict:
    """Judge which source pays better if exclusive leads brought `factor` times their revenue per unit spent.

    The ratio of all leads and that of matched leads, if there is one, must lie on the same side of 1 with their whole
    intervals: the wide ones, because the same report is looked at again and again.
    """
    matched = comparison.matched
    ratios = [comparison.ratio] if matched is None else [comparison.ratio, matched.ratio]
    lows = [ratio.verdict_low * factor for ratio in ratios if ratio is not None and ratio.verdict_low is not None]
    highs = [ratio.verdict_high * factor for ratio in ratios if ratio is not None and ratio.verdict_high is not None]
    if len(lows) < len(ratios) or len(highs) < len(ratios):
        return RoiVerdict.cannot_tell
    if min(lows) > 1:
        return RoiVerdict.likely_yes
    if max(highs) < 1 and not comparison.longer:
        return RoiVerdict.likely_no
    return RoiVerdict.cannot_tell
