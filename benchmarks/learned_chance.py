"""Measure a learned chance of winning on the education leads: out of fold, forward in time, and beside BANT.

Run: python -m benchmarks.learned_chance [FILE.csv] [--judge OTHER.csv] [--mapping MAP.toml] [--seed N] [--json FILE]

Each row is read by the mapping and checked as intake checks it; people who must not be contacted are left out. The
column `Converted`, which no mapping reads, says who was won. With `--judge`, the card of the first file is judged on a
second one. Without the file, it says so and ends. Takes about a quarter of a minute.
"""

import argparse
import csv
import time
import timeit
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from benchmarks.education_leads import FILE, MAPPING, NOW, OUTCOME
from marketplace.intake.reading import decode_inquiry, read_inquiry
from marketplace.intake.shapes import InquiryBody
from marketplace.learning.evaluation import (
    HORIZON_WEEKS,
    CardEvaluation,
    FollowedOutcome,
    JudgedLead,
    OutcomeKind,
    evaluate,
)
from marketplace.learning.policy_points import JudgedVerdict, SuggestedPoints, suggest_points
from marketplace.learning.training import TrainedCard, TrainingPlan, TrainingRow, plan_for, train
from marketplace.replay.mapping import MappingPlan, load_mapping
from marketplace.replay.rows import read_rows
from routing.inquiry import Facts, Mode
from routing.qualification import Dimension, qualify
from routing.scorecard import Scorecard, chance, chance_in_words, compile_scorecard, feature_values

TOTALS: Final = frozenset({"need.visits", "need.seconds_on_site", "need.pages_per_visit", "need.reading"})
"""Features read off totals that may have gone on counting after a salesperson began."""
GROUPS: Final = ("form", "source", "need.city")
BEST: Final = 1_000


class FileLead(msgspec.Struct, frozen=True, kw_only=True):
    """Lead of the file: its number in the order of arrival, its facts, its verdict, and what is learned from."""

    number: float
    facts: Facts
    verdict: JudgedVerdict
    row: TrainingRow


def read_leads(file: Path, plan: MappingPlan) -> list[FileLead]:
    """Return the leads of a file that may be contacted. Raises ValueError for a row that intake would not accept."""
    assert plan.definition is not None
    definition = plan.definition.under_current_rules()
    with file.open(encoding=plan.encoding, newline="") as lines:
        columns = {line[plan.id_column]: line for line in csv.DictReader(lines)}
    leads = []
    for draft in read_rows(file, plan, NOW):
        if draft.suppressed:
            continue
        body = decode_inquiry(draft.body)
        if not isinstance(body, InquiryBody):
            raise ValueError(f"row {draft.number}: {body}")
        accepted = read_inquiry(body, definition.intake_rules(plan.vertical), None, mode=Mode.live, now=NOW)
        if isinstance(accepted, tuple):
            raise ValueError(f"row {draft.number}: {accepted}")
        verdict = qualify(accepted.facts, definition.needs, definition.policy(1), NOW).verdict
        kind = OutcomeKind.won if float(columns[draft.id][OUTCOME]) else OutcomeKind.not_won
        outcome = FollowedOutcome(outcome=kind, weeks=HORIZON_WEEKS)
        budget, authority, need, timing = (finding.result for finding in verdict.findings)
        results = (budget, authority, need, timing)
        leads.append(
            FileLead(
                number=float(columns[draft.id]["Lead Number"]),
                facts=accepted.facts,
                verdict=JudgedVerdict(results=results, score=verdict.score, outcome=outcome),
                row=TrainingRow(values=feature_values(accepted.facts, provider="file"), outcome=outcome),
            )
        )
    return leads


def learn(leads: Sequence[FileLead], plan: TrainingPlan) -> TrainedCard:
    """Return the card that the leads teach. Raises ValueError with the reason if there is none."""
    result = train([lead.row for lead in leads], plan)
    if not isinstance(result, TrainedCard):
        raise ValueError(result.detail)
    return result


def judge(card: Scorecard, leads: Sequence[FileLead]) -> CardEvaluation:
    """Return the judgement of a card on leads that had no part in it."""
    compiled = compile_scorecard(card)
    judged = [
        JudgedLead(
            values=lead.row.values,
            probability=chance(compiled, lead.row.values).probability,
            outcome=lead.row.outcome,
        )
        for lead in leads
    ]
    return evaluate(judged, group_features=GROUPS, best=BEST)


def judge_bant(leads: Sequence[FileLead]) -> tuple[SuggestedPoints, float]:
    """Return the points that the outcomes suggest, and the share won of the leads with the highest scores by BANT.

    Leads with the same score at the end of the best count in part, as if one of them were drawn.
    """
    scores = np.array([lead.verdict.score for lead in leads])
    won = np.array([lead.row.outcome.outcome is OutcomeKind.won for lead in leads])
    last = np.sort(scores)[::-1][min(BEST, len(scores)) - 1]
    above, equal = scores > last, scores == last
    share = (won[above].sum() + (BEST - above.sum()) * won[equal].mean()) / BEST
    return suggest_points([lead.verdict for lead in leads]), float(share)


def time_scoring(card: Scorecard, leads: Sequence[FileLead]) -> tuple[float, float]:
    """Return the microseconds of processor time for a lead's values and for its chance: the best of seven rounds."""
    compiled = compile_scorecard(card)
    values = [lead.row.values for lead in leads]

    def read() -> None:
        for lead in leads:
            feature_values(lead.facts, provider="file")

    def score() -> None:
        for each in values:
            chance(compiled, each)

    rounds = [timeit.repeat(run, timer=time.process_time, number=1, repeat=7) for run in (read, score)]
    reading, scoring = (min(seconds) / len(leads) * 1e6 for seconds in rounds)
    return reading, scoring


def measure(file: Path, other: Path | None, mapping: MappingPlan, seed: int) -> dict[str, Any]:
    """Return all figures of one file, by name. The seed decides which leads are in one fold."""
    assert mapping.definition is not None
    leads = read_leads(file, mapping)
    plan = msgspec.structs.replace(
        plan_for(mapping.vertical, mapping.definition, seed),
        groups=GROUPS,
        excluded=frozenset({"mode", "hour", "weekday"}),
    )  # the file has no times
    result = learn(leads, plan)
    evaluation = result.evaluation
    without = learn(leads, msgspec.structs.replace(plan, excluded=plan.excluded | TOTALS)).evaluation
    in_order = sorted(leads, key=lambda lead: lead.number)
    earlier, later = in_order[: len(leads) * 2 // 3], in_order[len(leads) * 2 // 3 :]
    forward = judge(learn(earlier, plan).card, later)
    suggestion, best_of_bant = judge_bant(leads)
    reading, scoring = time_scoring(result.card, leads)
    traced = max(range(len(leads)), key=lambda place: (result.out_of_fold[place] < 0.7, result.out_of_fold[place]))
    return {
        "leads": evaluation.leads,
        "won": evaluation.wins,
        "out_of_fold": evaluation,
        "without_totals": without,
        "forward": forward,
        "other_file": judge(result.card, read_leads(other, mapping)) if other else None,
        "bant": suggestion,
        "best_of_bant": best_of_bant,
        "reading_us": reading,
        "scoring_us": scoring,
        "features": len(result.card.features),
        "trace": chance_in_words(chance(compile_scorecard(result.card), leads[traced].row.values)),
        "card": result.card,
    }


def show(figures: dict[str, Any]) -> None:
    """Print the figures for people."""
    print(f"{figures['leads']:,} leads, {figures['won']:,} won; {figures['features']} features")
    print(f"\n{'':36}{'AUC':>5}{'ECE':>8}{'Brier':>8}{'slope':>7}{'best ' + str(BEST):>11}")
    names = {
        "out_of_fold": "card, out of fold",
        "without_totals": "card without totals of the site",
        "forward": "older two thirds on the newer third",
        "other_file": "card on the other file",
    }
    for name, words in names.items():
        if row := figures[name]:
            best = f"{row.won_of_best:.1%}" if row.leads > 2 * BEST else "-"
            print(
                f"{words:36}{row.auc:5.3f}{row.calibration_error:8.3f}{row.brier:8.3f}"
                f"{row.calibration.slope:7.2f}{best:>11}"
            )
    bant = figures["bant"]
    print(f"{'BANT, score of the policy':36}{bant.auc_of_score:5.3f}{'':23}{figures['best_of_bant']:>11.1%}")
    print(f"{'BANT, suggested points, out of fold':36}{bant.auc:5.3f}")
    print(f"{'BANT, limit of the four results':36}{bant.auc_limit:5.3f}")
    print("\nSuggested points: meets, unknown, fails")
    for dimension in Dimension:
        points = bant.points[dimension]
        print(f"  {dimension:12}{points.meets:5}{points.unknown:5}{points.fails:5}")
    print("\nTenth by chance        leads   won   predicted   won")
    for place, decile in enumerate(figures["out_of_fold"].deciles, start=1):
        span = f"{decile.lowest:.0%} to {decile.highest:.0%}"
        print(f"{place:>2}  {span:17}{decile.leads:7}{decile.wins:6}{decile.predicted:12.1%}{decile.won:8.1%}")
    print("\nGroup                              leads   won   predicted   won     AUC")
    for group in figures["out_of_fold"].groups:
        area = "-" if group.auc is None else f"{group.auc:.3f}"
        name = f"{group.feature}: {'not known' if group.value is None else group.value}"
        print(f"{name:33}{group.leads:7}{group.wins:6}{group.predicted:12.1%}{group.won:8.1%}{area:>8}")
    print(f"\nA lead: {figures['trace']}")
    print(f"\nReading the values {figures['reading_us']:.1f} µs, scoring {figures['scoring_us']:.1f} µs per lead")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=FILE)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--mapping", type=Path, default=MAPPING)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for file in (options.file, options.judge):
        if file is not None and not file.exists():
            print(f"Skipped: the file of leads is not at {file}.")
            return
    figures = measure(options.file, options.judge, load_mapping(options.mapping), options.seed)
    show(figures)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")


if __name__ == "__main__":
    main()
