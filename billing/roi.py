"""Does an exclusive lead pay better than a shared one? Figures with intervals, and a sentence that claims no more.

What lives here: the evidence of two sources of leads, the estimates and their intervals, the break-even rule, the
verdict. What may not: a clock, a query, a currency's sign. How each figure is made and what was measured of it is in
docs/ROI.md. None of it says that exclusivity is the cause: businesses choose whom they buy from.

The break-even rule. Let a lead cost p, work on each lead c, and a won job be worth v whatever its source. Then a source
earns w·v / (p + c) per unit spent, where w is its win rate, and exclusive leads bring more per unit spent exactly when
(p_e + c) / (p_s + c) < w_e / w_s. So the price at which the two are equal is (p_s + c) · w_e / w_s - c.
"""

import msgspec
import numpy as np

from billing.estimates import Estimator
from billing.evidence import (
    LEAST_BUSINESSES,
    LEAST_OVERLAP,
    LEAST_WINS,
    Assumed,
    Basis,
    Evidence,
    Side,
    Speed,
    enough,
    horizon_of,
)
from billing.findings import BreakEven, Matched, PriceCase, Roi, SourceFigures, SpeedBand, SpeedEffect, Verdict
from billing.intervals import Figure, resampling
from billing.lifetable import Cells, per_lead
from billing.wording import answer, notes, price_sentence, speed_sentence


def assess(evidence: Evidence, seed: int) -> Roi:
    """The answer to "do exclusive leads pay better than shared ones?", from `evidence` alone.

    An import decides if it has enough outcomes, else what is declared or assumed. `seed` fixes the draws.
    """
    shared = evidence.shared
    if shared is not None and evidence.assumed is not None and not enough(shared):
        shared = None
    horizon = horizon_of(evidence.exclusive, shared)
    tries = resampling(evidence.businesses, seed) if evidence.businesses > 1 else None
    estimator = Estimator(evidence.businesses, max(horizon, 1), tries)
    worked = _with_labour(evidence.exclusive, evidence.labour_minor)
    ours = _figures(worked, Basis.records, estimator, bool(horizon))
    theirs, ratio, break_even, matched = None, None, None, None
    if shared is not None:
        other = _with_labour(shared, evidence.labour_minor)
        theirs = _figures(other, Basis.imported, estimator, bool(horizon))
        if horizon and ours.wins and theirs.wins:
            ratio = estimator.revenue_ratio(worked, other)
            win_ratio = estimator.win_ratio(worked, other)
            break_even = _break_even(ours, theirs, win_ratio, evidence.labour_minor)
            matched = _matched(evidence, estimator)
    elif evidence.assumed is not None:
        theirs = _assumed(evidence.assumed, evidence.labour_minor, ours)
        if ours.revenue_per_unit and ours.win_rate and theirs.revenue_per_unit and theirs.revenue_per_unit.value > 0:
            ratio = _over(ours.revenue_per_unit, theirs.revenue_per_unit.value)
            win_ratio = _over(ours.win_rate, evidence.assumed.win_rate)
            break_even = _break_even(ours, theirs, win_ratio, evidence.labour_minor)
    verdict = _verdict(evidence, shared, horizon, theirs, ratio, matched)
    prices = () if verdict in UNANSWERED else _prices(ours, theirs, ratio, matched, evidence.labour_minor)
    return Roi(
        verdict=verdict, sentence=answer(verdict, evidence, ours, theirs), horizon_weeks=horizon,
        businesses=evidence.all_businesses, exclusive=ours, shared=theirs, ratio=ratio, break_even=break_even,
        matched=matched, speed=_speed(evidence, estimator), prices=prices,
        notes=notes(evidence, shared, horizon, matched),
    )  # fmt: skip


def _with_labour(side: Side, labour_minor: int) -> Side:
    return msgspec.structs.replace(side, cost_minor=side.cost_minor + labour_minor * side.leads)


def _figures(side: Side, basis: Basis, estimator: Estimator, known: bool) -> SourceFigures:
    """`known` is False where no week has been observed by enough leads: then there are counts and no rates."""
    leads, spent = float(side.leads.sum()), float(side.cost_minor.sum())
    counts = SourceFigures(
        basis=basis, leads=round(leads), outcomes=side.outcomes, open=round(leads) - side.outcomes,
        wins=side.won.events, spent_minor=round(spent), spent_per_lead_minor=spent / leads if leads else 0.0,
    )  # fmt: skip
    if not (known and leads and spent):
        return counts
    won = (side.won, estimator.rate(side.won))
    qualified = _larger((side.qualified, estimator.rate(side.qualified)), won)
    contacted = _larger((side.contacted, estimator.rate(side.contacted)), qualified)
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
"A step of the funnel: its life table, and the rate that it gives."


def _larger(step: Step, following: Step) -> Step:
    """The step, or the following one where its rate is larger or the only one known.

    With few leads, life tables may cross by chance; and where all old leads were contacted at once, nobody is left to
    be watched in the last weeks.
    """
    rate, next_rate = step[1], following[1]
    lower = next_rate is not None and (rate is None or next_rate.value > rate.value)
    return following if lower else step


def _assumed(assumed: Assumed, labour_minor: int, ours: SourceFigures) -> SourceFigures:
    """What is taken to be so, as figures without intervals; a job is worth what it is worth with exclusive leads."""
    value = assumed.value_minor or ours.value_per_win_minor
    spent = assumed.cost_minor + labour_minor
    return SourceFigures(
        basis=assumed.basis, leads=0, outcomes=0, open=0, wins=0, spent_minor=0, spent_per_lead_minor=spent,
        win_rate=Figure(value=assumed.win_rate), per_won_minor=Figure(value=spent / assumed.win_rate),
        value_per_win_minor=value,
        revenue_per_unit=Figure(value=assumed.win_rate * value / spent) if value else None,
    )  # fmt: skip


def _over(figure: Figure, given: float) -> Figure:
    low, high = figure.low, figure.high
    return Figure(
        value=figure.value / given,
        low=None if low is None else low / given,
        high=None if high is None else high / given,
    )


def _break_even(ours: SourceFigures, theirs: SourceFigures, win_ratio: Figure, labour_minor: int) -> BreakEven:
    def equal(ratio: float | None) -> float | None:
        return None if ratio is None else theirs.spent_per_lead_minor * ratio - labour_minor

    return BreakEven(
        price_ratio=ours.spent_per_lead_minor / theirs.spent_per_lead_minor,
        win_ratio=win_ratio,
        price_minor=Figure(
            value=theirs.spent_per_lead_minor * win_ratio.value - labour_minor,
            low=equal(win_ratio.low),
            high=equal(win_ratio.high),
        ),
    )


PRICE_CHANGES = (-0.2, 0.0, 0.2, 0.5, 1.0)
"""Changes of the exclusive price that are answered too: a fifth less to twice as much."""


def _prices(
    ours: SourceFigures, theirs: SourceFigures | None, ratio: Figure | None, matched: Matched | None, labour_minor: int
) -> tuple[PriceCase, ...]:
    """The verdict at other prices. What is earned stays; what is spent is the price, changed, and the labour."""
    if ours.revenue_per_unit is None or theirs is None or theirs.revenue_per_unit is None:
        return ()
    spent = ours.spent_per_lead_minor
    cases = []
    for change in PRICE_CHANGES:
        factor = spent / (spent + (spent - labour_minor) * change)
        revenue, verdict = _over(ours.revenue_per_unit, 1 / factor), _compare(ratio, matched, factor)
        sentence = price_sentence(verdict, revenue, theirs.revenue_per_unit)
        cases.append(PriceCase(change=change, verdict=verdict, revenue_per_unit=revenue, sentence=sentence))
    return tuple(cases)


def _matched(evidence: Evidence, estimator: Estimator) -> Matched | None:
    if evidence.matched is None or evidence.overlap < LEAST_OVERLAP:
        return None
    one, other = (_with_labour(side, evidence.labour_minor) for side in evidence.matched)
    if min(horizon_of(one), horizon_of(other)) < estimator.horizon or not (enough(one) and enough(other)):
        return None
    return Matched(
        overlap=evidence.overlap,
        exclusive_per_unit=estimator.revenue(one),
        shared_per_unit=estimator.revenue(other),
        ratio=estimator.revenue_ratio(one, other),
        win_ratio=estimator.win_ratio(one, other),
    )


def _speed(evidence: Evidence, estimator: Estimator) -> SpeedEffect | None:
    """Association, not cause: leads that are easy to win may also be easy to reach."""
    bands = []
    for each in evidence.speed:
        rate = estimator.rate(each.cells, 1)
        if rate is not None:
            leads = round(float(each.cells.leads.sum()))
            bands.append(SpeedBand(band=each.band, leads=leads, wins=each.cells.events, win_rate=rate))
    if not bands:
        return None
    fast, slow = (_one_side(part, evidence.businesses) for part in
                  (evidence.speed[: evidence.fast_bands], evidence.speed[evidence.fast_bands :]))  # fmt: skip
    ratio = None
    if fast and slow and min(fast.won.events, slow.won.events) >= LEAST_WINS:
        ratio = Estimator(estimator.businesses, 1, estimator.tries).win_ratio(fast, slow)
    named = evidence.speed[evidence.fast_bands - 1].band
    return SpeedEffect(bands=tuple(bands), fast=named, ratio=ratio, sentence=speed_sentence(named, ratio))


def _one_side(bands: tuple[Speed, ...], businesses: int) -> Side | None:
    kept = [band.cells for band in bands if len(band.cells.leads)]
    if not kept:
        return None
    names = Cells.__struct_fields__
    cells = Cells(**{name: np.concatenate([getattr(each, name) for each in kept]) for name in names})
    leads = np.bincount(cells.business, cells.leads, businesses).astype(float)
    return Side(leads=leads, cost_minor=leads, outcomes=0, won=cells, contacted=cells, qualified=cells)


def _verdict(
    evidence: Evidence,
    shared: Side | None,
    horizon: int,
    theirs: SourceFigures | None,
    ratio: Figure | None,
    matched: Matched | None,
) -> Verdict:
    if theirs is None:
        return Verdict.nothing_to_compare
    sides = [side for side in (evidence.exclusive, shared) if side is not None]
    few = evidence.businesses > 1 and evidence.fewest < LEAST_BUSINESSES
    if not horizon or few or not all(enough(side) for side in sides):
        return Verdict.not_enough_data
    return _compare(ratio, matched)


UNANSWERED = (Verdict.nothing_to_compare, Verdict.not_enough_data)
"""Verdicts that say nothing of which source pays better."""


def _compare(ratio: Figure | None, matched: Matched | None, factor: float = 1.0) -> Verdict:
    """Judge which source pays better, if exclusive leads brought `factor` times what they do, by whole intervals."""
    told = [figure for figure in (ratio, matched.ratio if matched else None) if figure is not None]
    if not told or any(figure.low is None or figure.high is None for figure in told):
        return Verdict.cannot_tell
    if all(figure.low is not None and figure.low * factor > 1 for figure in told):
        return Verdict.likely_yes
    if all(figure.high is not None and figure.high * factor < 1 for figure in told):
        return Verdict.likely_no
    return Verdict.cannot_tell
