"""The answer in words. They say what the figures say, and no more."""

from typing import Final

from billing.evidence import LEAST_BUSINESSES, LEAST_OUTCOMES, LEAST_OVERLAP, LEAST_WINS, Basis, Evidence, Side
from billing.findings import Matched, SourceFigures, Verdict
from billing.intervals import MANY_BUSINESSES, Figure

NOTHING: Final = (
    "There is nothing to compare with yet. Bring in the shared leads you bought, or tell us what they cost and how "
    "many of them you win."
)
VERDICTS: Final = {
    Verdict.likely_yes: "Most likely yes",
    Verdict.likely_no: "Most likely no",
    Verdict.cannot_tell: "We cannot tell yet",
}


def answer(verdict: Verdict, evidence: Evidence, ours: SourceFigures, theirs: SourceFigures | None) -> str:
    """The verdict as an owner would say it: both figures, what they rest on, and how much is still open."""
    if verdict is Verdict.nothing_to_compare or theirs is None:
        return NOTHING
    if verdict is Verdict.not_enough_data:
        return _too_early(evidence, ours, theirs)
    kind = {Basis.declared: " (as you told us)", Basis.benchmark: " (the operator's benchmark)"}.get(theirs.basis, "")
    chance = "; the difference may be chance" if verdict is Verdict.cannot_tell else ""
    still_open = f"; {_many(ours.open, 'lead')} may still be won" if ours.open else ""
    return (
        f"{VERDICTS[verdict]}: each 1 spent on exclusive leads brought back {_per_unit(ours)}, and on shared leads "
        f"{_per_unit(theirs)}{kind}{chance}. This rests on {_many(ours.outcomes, 'lead')} of which the outcome is "
        f"known{still_open}."
    )


def _too_early(evidence: Evidence, ours: SourceFigures, theirs: SourceFigures) -> str:
    if evidence.businesses > 1 and evidence.fewest < LEAST_BUSINESSES:
        counted = _many(evidence.fewest, "business")
        return f"Too early to say: {counted} told what became of leads, and {LEAST_BUSINESSES} are needed."
    counted = f"the outcome of {_many(ours.outcomes, 'exclusive lead')} is known, {ours.wins} of them won"
    if theirs.basis is Basis.imported:
        counted += f", and of {_many(theirs.outcomes, 'shared lead')}, {theirs.wins} of them won"
    return f"Too early to say: {counted}. {LEAST_OUTCOMES} of each are needed, {LEAST_WINS} of them won."


def price_sentence(verdict: Verdict, ours: Figure, theirs: Figure) -> str:
    """The answer at another price, in the words of the verdict."""
    than = {
        Verdict.likely_yes: "most likely more than shared leads",
        Verdict.likely_no: "most likely less than shared leads",
    }.get(verdict, "and we cannot tell whether that is more or less than shared leads")
    return f"each 1 spent would bring back {_short(ours.value)}, {than} ({_short(theirs.value)})"


def _per_unit(figures: SourceFigures) -> str:
    return _short(figures.revenue_per_unit.value) if figures.revenue_per_unit else "an unknown amount"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _many(count: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count} {word if count == 1 else plural}"


def speed_sentence(band: str, ratio: Figure | None) -> str:
    """What goes with a quick contact, without calling it the cause."""
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"Too few leads were won to compare those that were reached within {band} with those reached later."
    often = (
        f"Leads that were reached within {band} were won {_short(ratio.value)} times as often as those reached later"
    )
    if ratio.low <= 1 <= ratio.high:
        return f"{often}, but that may be chance."
    return f"{often}. That need not be because of the speed: who is easy to reach may be easy to win."


def notes(evidence: Evidence, shared: Side | None, horizon: int, matched: Matched | None) -> tuple[str, ...]:
    """Sentences that a reader needs to read the figures rightly."""
    told = []
    if horizon:
        told.append(
            f"A job counts if it was won within {_many(horizon, 'week')} of the lead's arrival. Younger leads are open."
        )
    if evidence.businesses > 1 and evidence.fewest < MANY_BUSINESSES:
        told.append(
            f"Only {_many(evidence.fewest, 'business')} told what became of leads, so that the ranges are wide: each "
            "is made by leaving out one business at a time."
        )
    if evidence.shared is not None and shared is None:
        told.append(
            "Of the shared leads brought in, too few have a known outcome; what was told of them stands instead."
        )
    if shared is not None and matched is None:
        told.append(
            f"{evidence.overlap:.0%} of the exclusive leads have shared leads of the same market and area beside them, "
            "too few to compare like with like."
            if evidence.overlap < LEAST_OVERLAP
            else "Too few leads of the same market and area have a known outcome to compare like with like."
        )
    if evidence.assumed is not None and shared is None:
        told.append(f"Figures of shared leads are from: {evidence.assumed.source}. They are taken as given.")
    if evidence.assumed is not None and shared is None and evidence.assumed.value_minor is None:
        told.append("A job from a shared lead is taken to be worth what one from an exclusive lead is.")
    if evidence.silent and evidence.businesses > 1:
        told.append(f"{_many(evidence.silent, 'business')} told nothing about any lead, and is left out.")
    if evidence.labour_minor:
        told.append("What it costs to work on a lead counts as spent, for both kinds.")
    told.append("Businesses choose what they buy. The comparison does not prove that exclusivity is the cause.")
    return tuple(told)
