"""The answer in words. They say what the figures say, and no more."""

from typing import Final

from billing.evidence import LEAST_BUSINESSES, LEAST_OUTCOMES, LEAST_OVERLAP, LEAST_WINS, Basis, Evidence, Side
from billing.findings import Matched, SourceFigures, Verdict
from billing.intervals import MANY_BUSINESSES, Figure

NOTHING: Final = (
    "Nothing to compare with yet: import the shared leads you bought, or say what they cost and how many you win."
)


def answer(verdict: Verdict, evidence: Evidence, ours: SourceFigures, theirs: SourceFigures | None) -> str:
    """The verdict as a sentence: both figures with their intervals, what they rest on, and how much is still open."""
    if verdict is Verdict.nothing_to_compare or theirs is None:
        return NOTHING
    if verdict is Verdict.not_enough_data:
        if evidence.businesses > 1 and evidence.fewest < LEAST_BUSINESSES:
            return f"Not enough data yet: {_many(evidence.fewest, 'business')}, and {LEAST_BUSINESSES} are needed."
        counted = f"{_many(ours.outcomes, 'outcome')} with {_many(ours.wins, 'win')}"
        if theirs.basis is Basis.imported:
            counted += f", against {theirs.outcomes} with {_many(theirs.wins, 'win')} for shared leads"
        return f"Not enough data yet: {counted}; {LEAST_OUTCOMES} with {LEAST_WINS} wins are needed of each."
    words = {Verdict.likely_yes: "Likely yes", Verdict.likely_no: "Likely no"}.get(verdict, "Cannot tell yet")
    kind = {Basis.declared: " (as you declared)", Basis.benchmark: " (the operator's benchmark)"}.get(theirs.basis, "")
    return (
        f"{words}: {_per_unit(ours)} per 1 spent against {_per_unit(theirs)} for shared leads{kind}; "
        f"{_many(ours.outcomes, 'lead')} with outcomes, {ours.open} still open."
    )


def _per_unit(figures: SourceFigures) -> str:
    return spoken(figures.revenue_per_unit) if figures.revenue_per_unit else "an unknown amount"


def spoken(figure: Figure) -> str:
    """`3.1 (2.4-3.9)`, or the value alone where there is no interval."""
    if figure.low is None or figure.high is None:
        return _short(figure.value)
    return f"{_short(figure.value)} ({_short(figure.low)}-{_short(figure.high)})"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _many(count: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count} {word if count == 1 else plural}"


def speed_sentence(band: str, ratio: Figure | None) -> str:
    """What time to contact goes with; never that it is the cause."""
    if ratio is None or ratio.low is None:
        return f"Not enough leads were won to compare those contacted within {band} with the rest."
    return (
        f"Leads first contacted within {band} were won {spoken(ratio)} times as often as those contacted later: "
        "an association, not a cause."
    )


def notes(evidence: Evidence, shared: Side | None, horizon: int, matched: Matched | None) -> tuple[str, ...]:
    """What a reader must know to read the figures rightly."""
    told = []
    if horizon:
        told.append(f"A win counts if it came within {_many(horizon, 'week')} of receipt; younger leads are open.")
    if evidence.businesses > 1 and evidence.fewest < MANY_BUSINESSES:
        told.append(f"Only {_many(evidence.fewest, 'business')}: the intervals leave out one at a time, and are wider.")
    if evidence.shared is not None and shared is None:
        told.append("The imported shared leads have too few outcomes; what is assumed of them stands instead.")
    if shared is not None and matched is None:
        told.append(
            f"{evidence.overlap:.0%} of exclusive leads have shared ones of the same vertical and area beside them, "
            "too few to compare like with like."
            if evidence.overlap < LEAST_OVERLAP
            else "Too few matched leads have outcomes to compare like with like."
        )
    if evidence.assumed is not None and shared is None:
        told.append(f"Shared leads: {evidence.assumed.source}. Taken as given, without an interval.")
    if evidence.assumed is not None and shared is None and evidence.assumed.value_minor is None:
        told.append("A job from a shared lead is taken to be worth what one from an exclusive lead is.")
    if evidence.silent and evidence.businesses > 1:
        told.append(f"{_many(evidence.silent, 'business')} told nothing about any lead and counted nowhere.")
    if evidence.labour_minor:
        told.append("What it costs to work on a lead is counted as spent, for both sources.")
    told.append("Businesses choose what they buy: this compares, and proves no cause.")
    return tuple(told)
