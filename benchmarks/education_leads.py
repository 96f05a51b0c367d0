"""Show what a mapping of the education leads makes of them, beside what became of each: leads and customers by outcome.

Run: python benchmarks/education_leads.py [FILE.csv] [--mapping MAP.toml] [--json FILE]

Each row is read by the mapping, checked as intake checks it, and qualified by the mapping's own vertical, without a
service. The column `Converted`, which no mapping reads, says who became a customer. People who must not be contacted
are counted apart. Without the file, it says so and ends.
"""

import argparse
import csv
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from marketplace.intake.reading import decode_inquiry, read_inquiry
from marketplace.intake.shapes import InquiryBody
from marketplace.replay.mapping import DraftRow, MappingPlan, load_mapping
from marketplace.replay.rows import read_rows
from routing.inquiry import Mode
from routing.qualification import Nurture, Prospect, qualify

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT.parent / "shared" / "data" / "education_leads_half.csv"
MAPPING = ROOT / "marketplace" / "replay" / "education_leads.toml"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
"""Day of the run. The file has no times, so that any day gives the same."""
OUTCOME = "Converted"


def outcome_of(plan: MappingPlan, draft: DraftRow) -> str:
    """Return the outcome of a row in words. Raises ValueError for a row that intake would not accept."""
    if draft.suppressed:
        return "suppressed"
    assert plan.definition is not None
    body = decode_inquiry(draft.body)
    if not isinstance(body, InquiryBody):
        raise ValueError(f"row {draft.number}: {body}")
    accepted = read_inquiry(body, plan.definition.intake_rules(plan.vertical), None, mode=Mode.live, now=NOW)
    if isinstance(accepted, tuple):
        raise ValueError(f"row {draft.number}: {accepted}")
    definition = plan.definition.under_current_rules()
    outcome = qualify(accepted.facts, definition.needs, definition.policy(1), NOW)
    if isinstance(outcome, Prospect):
        return f"qualified, score {outcome.verdict.score // 10 * 10:3} or more"
    return "nurtured" if isinstance(outcome, Nurture) else f"rejected: {outcome.reason}"


def count(file: Path, plan: MappingPlan) -> dict[str, dict[str, int]]:
    """Return the numbers of leads and customers by outcome."""
    with file.open(encoding=plan.encoding, newline="") as rows:
        customers = {row[plan.id_column] for row in csv.DictReader(rows) if float(row[OUTCOME])}
    leads: Counter[str] = Counter()
    bought: Counter[str] = Counter()
    for draft in read_rows(file, plan, NOW):
        outcome = outcome_of(plan, draft)
        leads[outcome] += 1
        bought[outcome] += draft.id in customers
    return {outcome: {"leads": leads[outcome], "customers": bought[outcome]} for outcome in sorted(leads)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=FILE)
    parser.add_argument("--mapping", type=Path, default=MAPPING)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.file.exists():
        print(f"Skipped: the file of leads is not at {options.file}.")
        return
    counts = count(options.file, load_mapping(options.mapping))
    for outcome, numbers in counts.items():
        share = numbers["customers"] / numbers["leads"]
        print(f"{outcome:32}{numbers['leads']:6,} leads{numbers['customers']:6,} customers{share:8.1%}")
    if options.json:
        options.json.write_text(json.dumps(counts, indent=2) + "\n")


if __name__ == "__main__":
    main()
