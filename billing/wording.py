"""Sentences of the comparison of exclusive with shared leads, for owners of businesses."""

from collections.abc import Iterator
from typing import Final

from billing.evidence import (
    LEAST_BUSINESSES,
    LEAST_OUTCOMES,
    LEAST_OVERLAP,
    LEAST_WINS,
    EvidenceBasis,
    RoiEvidence,
    Side,
    weeks_until_enough,
)
from billing.findings import ComparedLeads, MatchedComparison, RoiVerdict, SourceFigures, Unevenness
from billing.intervals import MANY_BUSINESSES, Figure

MOST_WEEKS: Final = 104
"Weeks beyond which a pace is called more than two years."
QUIET_DAYS: Final = 7
"Days without a report after which a note says so."
NOTHING: Final = (
    "There is nothing to compare with yet. Import the shared leads you bought, or tell us what they cost and how "
    "many of them you win."
)
VERDICTS: Final = {
    RoiVerdict.likely_yes: "Most likely yes",
    RoiVerdict.likely_no: "Most likely no",
    RoiVerdict.cannot_tell: "We cannot tell yet",
    RoiVerdict.too_uneven: "Too uneven to say",
}
UNEVEN: Final = {
    Unevenness.businesses: "a few businesses bought most of the leads, and they alone would decide the answer.",
    Unevenness.jobs: "a few jobs make up so much of the revenue that the next large one could change the answer.",
}


def verdict_sentence(
    verdict: RoiVerdict,
    evidence: RoiEvidence,
    ours: SourceFigures,
    theirs: SourceFigures | None,
    compared: ComparedLeads | None,
    uneven: Unevenness | None = None,
) -> str:
    """Return the verdict in words: revenue per unit spent of both sources, leads it rests on, and leads still open."""
    if verdict is RoiVerdict.nothing_to_compare or theirs is None:
        return NOTHING
    if verdict is RoiVerdict.not_enough_data:
        return _too_early(evidence, ours, theirs)
    basis = {EvidenceBasis.declared: " (as you told us)", EvidenceBasis.benchmark: " (the operator's benchmark)"}.get(
        theirs.basis, ""
    )
    where = ""
    if evidence.businesses > 1 and theirs.basis is EvidenceBasis.imported:
        where = f"in the {_count(evidence.fewest, 'business')} with both, "
    chance = "; the difference may be chance" if verdict is RoiVerdict.cannot_tell else ""
    still_open = f"; {_count(ours.open, 'lead')} may still be won" if ours.open else ""
    exclusive = _per_unit(compared.exclusive_per_unit if compared else ours.revenue_per_unit)
    shared = _per_unit(compared.shared_per_unit if compared else theirs.revenue_per_unit)
    if verdict is RoiVerdict.too_uneven and uneven is not None:
        where = f"{UNEVEN[uneven]} So far "
        chance = ""
    return (
        f"{VERDICTS[verdict]}: {where}each 1 spent on exclusive leads brought back {exclusive}, and on shared leads "
        f"{shared}{basis}{chance}. This rests on {_count(ours.outcomes, 'lead')} with a known outcome{still_open}."
    )


def _too_early(evidence: RoiEvidence, ours: SourceFigures, theirs: SourceFigures) -> str:
    if evidence.businesses > 1 and evidence.fewest < LEAST_BUSINESSES:
        businesses = _count(evidence.fewest, "business")
        reported = "reported what became of their leads"
        if theirs.basis is EvidenceBasis.imported:
            reported = "bought both kinds of lead and reported what became of them"
        return f"Too early to say: {businesses} {reported}, and {LEAST_BUSINESSES} are needed."
    outcomes = f"the outcome of {_count(ours.outcomes, 'exclusive lead')} is known, {ours.wins} of them won"
    if theirs.basis is EvidenceBasis.imported:
        outcomes += f", and of {_count(theirs.outcomes, 'shared lead')}, {theirs.wins} of them won"
    needed = f"{LEAST_OUTCOMES} of each are needed, {LEAST_WINS} of them won."
    return f"Too early to say: {outcomes}. {needed}{_pace(evidence)}"


def _pace(evidence: RoiEvidence) -> str:
    """Return when there will be enough outcomes of each source at the pace so far, as a sentence; "" if unknown."""
    sides = [evidence.exclusive]
    if evidence.shared is not None and evidence.assumed is None:
        sides.append(evidence.shared)
    weeks = [weeks_until_enough(side) for side in sides]
    longest = max((each for each in weeks if each is not None), default=0)
    if None in weeks or not longest:
        return ""
    if longest > MOST_WEEKS:
        return " At the pace so far that takes more than two years."
    return f" At the pace so far that takes about {_count(longest, 'more week')}."


def price_sentence(verdict: RoiVerdict, ours: Figure, theirs: Figure) -> str:
    """Return the verdict at another price in words, from the revenue per unit spent of both sources."""
    comparison = {
        RoiVerdict.likely_yes: "most likely more than shared leads",
        RoiVerdict.likely_no: "most likely less than shared leads",
    }.get(verdict, "and we cannot tell whether that is more or less than shared leads")
    return f"each 1 spent would bring back {_short(ours.value)}, {comparison} ({_short(theirs.value)})"


def _per_unit(figure: Figure | None) -> str:
    return _short(figure.value) if figure else "an unknown amount"


def _short(value: float) -> str:
    """Format a ratio with two significant digits if it is below ten."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _count(count: int, word: str) -> str:
    """Format a count with its noun in the singular or plural."""
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count} {word if count == 1 else plural}"


def speed_sentence(band: str, leads: int, ratio: Figure | None) -> str:
    """Return the win ratio of fast to slow first contacts in words, without calling the speed its cause.

    `leads` is the number of leads that could be compared with like ones.
    """
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"Too few leads were won to compare those that were reached within {band} with like ones reached later."
    comparison = (
        f"Of leads with the same vertical, budget and time of day, those that were reached within {band} were won "
        f"{_short(ratio.value)} times as often as those reached later ({_count(leads, 'lead')} compared)"
    )
    if ratio.low <= 1 <= ratio.high:
        return f"{comparison}, but that may be chance."
    return f"{comparison}. The speed need not be the reason: people who are easy to reach may be easy to win."


def delay_sentence(leads: int, ratio: Figure | None) -> str:
    """Return the win ratio of leads that were sold at once to those held back at random, in words."""
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"Too few leads were won to say what a delay costs ({_count(leads, 'lead')} compared)."
    comparison = (
        f"Some leads, drawn at random, were held back for a while. Those that were not were won {_short(ratio.value)} "
        f"times as often ({_count(leads, 'lead')} compared)"
    )
    if ratio.low <= 1 <= ratio.high:
        return f"{comparison}, but that may be chance."
    between = f"{_short(ratio.low)} and {_short(ratio.high)}"
    return f"{comparison}. The delay is the reason; the true figure is likely between {between}."


def notes(
    evidence: RoiEvidence, shared: Side | None, horizon: int, matched: MatchedComparison | None
) -> tuple[str, ...]:
    """Return sentences on how to read the figures: what counts, what is missing, and what they do not prove.

    `shared` is None if imported leads are not compared.
    """
    sentences = [*_notes_on_data(evidence, horizon), *_note_on_silence(evidence)]
    if shared is None:
        sentences += _notes_on_assumption(evidence, horizon)
    elif matched is None:
        sentences.append(_note_on_matching(evidence))
    if evidence.silent and evidence.businesses > 1:
        sentences.append(f"Left out: {_count(evidence.silent, 'business')} without a report on any lead.")
    if evidence.labour_minor:
        sentences.append("The cost of working on a lead counts as spent, for both sources.")
    sentences.append("Businesses choose what they buy. The comparison does not prove that exclusivity is the cause.")
    return tuple(sentences)


def _notes_on_data(evidence: RoiEvidence, horizon: int) -> Iterator[str]:
    if horizon:
        weeks = _count(horizon, "week")
        yield f"A job counts if it was won within {weeks} of the lead's arrival. Younger leads are open."
    if evidence.heavy_tailed:
        yield "A few jobs make up most of the revenue. It has no range, because the next large job could change it."
    if evidence.businesses > 1 and evidence.fewest < MANY_BUSINESSES:
        businesses = _count(evidence.fewest, "business")
        yield f"Only {businesses} reported outcomes of leads, so the ranges are wide."


def _note_on_silence(evidence: RoiEvidence) -> Iterator[str]:
    if evidence.businesses > 1:
        yield "Leads are followed up to the last report of their business. A missing report counts as no failure."
    elif evidence.silent_days >= QUIET_DAYS:
        days = _count(evidence.silent_days, "day")
        yield (
            f"The last outcome was reported {days} ago, and leads are followed up to then. A missing report is not "
            "counted as a failure."
        )
    if evidence.businesses == 1 and evidence.late_days:
        days = _count(evidence.late_days, "day")
        yield (
            f"Outcomes are often reported {days} late. So not all that happened in the {days} before the last report "
            "is known yet, and leads are followed up to then."
        )


def _notes_on_assumption(evidence: RoiEvidence, horizon: int) -> Iterator[str]:
    if evidence.shared is not None:
        yield "Too few of the imported shared leads have a known outcome, so stated figures are used instead."
    if evidence.assumed is not None:
        yield f"Figures of shared leads are from: {evidence.assumed.source}. They are used as stated."
        if evidence.assumed.leads is None:
            yield (
                "How many shared leads that share was counted from is not stated, so it may be chance. State how many "
                "of how many were won, and within how many weeks."
            )
        elif evidence.assumed.weeks is not None and evidence.assumed.weeks > horizon:
            weeks = _count(evidence.assumed.weeks, "week")
            yield f"Shared leads were counted for {weeks}, which is longer, so that they may look better than they are."
        if evidence.assumed.value_minor is None:
            yield "A job from a shared lead is assumed to be worth as much as one from an exclusive lead."


def _note_on_matching(evidence: RoiEvidence) -> str:
    where = "business, vertical and area" if evidence.businesses > 1 else "vertical and area"
    if evidence.overlap < LEAST_OVERLAP:
        return (
            f"Only {evidence.overlap:.0%} of the exclusive leads have shared leads of the same {where}, too few to "
            "compare like with like."
        )
    return f"Too few leads of the same {where} have a known outcome to compare like with like."
