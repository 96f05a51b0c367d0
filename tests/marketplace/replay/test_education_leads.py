"""The shipped mapping, and where the public file lies beside the project, every row of it."""

import csv
import re
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from marketplace.intake.reading import decode_inquiry, read_inquiry
from marketplace.intake.shapes import InquiryBody
from marketplace.replay.mapping import DraftRow, MappingPlan, load_mapping
from marketplace.replay.rows import read_rows
from marketplace.rules.hours import check_hours
from routing.inquiry import Mode
from routing.qualification import Nurture, Prospect, Rejection, qualify
from routing.subscription import validate

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT.parent / "shared" / "data" / "education_leads_half.csv"
MAPPING = ROOT / "marketplace" / "replay" / "education_leads.toml"
NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
LEAKS = ("Tags", "Lead Quality", "Lead Profile", "Last Notable Activity")
"""Columns that a salesperson filled in."""
LATER = ("Last Activity",)
"""The column that says what a salesperson did."""

needs_file = pytest.mark.skipif(not FILE.exists(), reason=f"the public file of leads is not at {FILE}")


@cache
def mapping() -> MappingPlan:
    return load_mapping(MAPPING)


@cache
def drafts() -> list[DraftRow]:
    return read_rows(FILE, mapping(), NOW.replace(hour=0))


def test_the_shipped_mapping_reads_nothing_that_a_salesperson_did_or_wrote() -> None:
    read = mapping().columns()
    assert "Converted" not in read
    assert not any(column in (*LEAKS, *LATER) or column.startswith("Asymmetrique") for column in read)


def test_a_replay_with_the_shipped_mapping_can_furnish_a_service() -> None:
    definition = mapping().definition
    assert definition is not None
    assert len(mapping().businesses) >= 5
    for business in mapping().businesses:
        assert business.vertical == mapping().vertical
        assert business.definition.currency == definition.currency
        assert validate(business.definition, definition.needs) == ()
        assert business.definition.hours is None or check_hours(business.definition.hours) is None


def test_every_value_that_the_shipped_mapping_can_give_is_one_that_the_vertical_takes() -> None:
    definition = mapping().definition
    assert definition is not None
    for field in mapping().fields:
        if field.to.startswith("bant.need.fields."):
            need = definition.needs[field.to.removeprefix("bant.need.fields.")]
            values = {*(field.lookup or {}).values(), *(case.value for case in field.cases)}
            values |= set() if field.otherwise is None else {field.otherwise}
            assert values <= ({True, False} if need.kind == "boolean" else set(need.choices))


@needs_file
def test_every_row_of_the_file_would_be_taken_in() -> None:
    definition = mapping().definition
    assert definition is not None
    rules = definition.intake_rules(mapping().vertical)
    outcomes: Counter[type] = Counter()
    for draft in drafts():
        body = decode_inquiry(draft.body)
        assert isinstance(body, InquiryBody), (draft.number, body)
        accepted = read_inquiry(body, rules, None, mode=Mode.live, now=NOW)
        assert not isinstance(accepted, tuple), (draft.number, accepted)
        outcomes[type(qualify(accepted.facts, definition.needs, definition.under_current_rules().policy(1), NOW))] += 1
    assert outcomes.total() == len(drafts())
    assert outcomes[Prospect] > outcomes[Nurture] > 0
    assert outcomes[Rejection] > 0


@needs_file
def test_every_row_has_a_person_of_its_own_from_reserved_ranges() -> None:
    contacts = [draft.contact for draft in drafts()]
    for field in ("phone", "email"):
        assert len({contact[field] for contact in contacts}) == len(contacts)
    assert all(re.fullmatch(r"\+1[2-9]\d\d55501\d\d", contact["phone"]) for contact in contacts)
    assert all(re.search(r"@example\.(com|net|org)$", contact["email"]) for contact in contacts)


@needs_file
def test_whoever_must_not_be_contacted_is_marked_and_nobody_else() -> None:
    with FILE.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [row["Do Not Email"] == "Yes" or row["Do Not Call"] == "Yes" for row in rows]
    assert [draft.suppressed for draft in drafts()] == wanted


@needs_file
def test_no_body_depends_on_the_outcome_or_on_what_a_salesperson_did_or_wrote(tmp_path: Path) -> None:
    with FILE.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows, names = list(reader), list(reader.fieldnames or ())
    hidden = [name for name in names if name in (*LEAKS, *LATER, "Converted") or name.startswith("Asymmetrique")]
    assert len(hidden) == 10
    with (tmp_path / "hidden.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(row | dict.fromkeys(hidden, "?") for row in rows)
    assert read_rows(tmp_path / "hidden.csv", mapping(), NOW.replace(hour=0)) == drafts()
