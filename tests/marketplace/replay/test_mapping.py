import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketplace.replay.mapping import (
    Bounds,
    ConsentRule,
    MappingField,
    MappingPlan,
    NumberRule,
    TouchRule,
    ValueCase,
    draft,
    load_mapping,
)
from marketplace.replay.rows import read_rows
from marketplace.runtime.settings import StartError
from routing.inquiry import EvidenceKind

AS_OF = datetime(2026, 11, 21, tzinfo=UTC)
CONSENT = ConsentRule(text="yes", page_url="https://www.example.com/")


def plan(*fields: MappingField, **more: Any) -> MappingPlan:
    return MappingPlan(vertical="v", id_column="Id", fields=fields, consent=CONSENT, unanswered=("", "Select"), **more)


def body(mapping: MappingPlan, **row: str) -> Any:
    return msgspec.json.decode(draft(mapping, {"Id": "a", **row}, 1, AS_OF).body)


def test_a_field_may_be_a_constant_a_column_a_look_up_or_a_number() -> None:
    mapping = plan(
        MappingField(to="attribution.campaign", constant="replay"),
        MappingField(to="contact.role", column="Role"),
        MappingField(to="bant.need.fields.topic", column="Topic", lookup={"Money": "finance"}, otherwise="other"),
        MappingField(to="bant.budget.minor", column="Budget", number=NumberRule(times=100, at_least=1_000)),
        MappingField(to="bant.timing.within_days", column="Days", number=NumberRule(at_most=30)),
    )
    inquiry = body(mapping, Role="Owner", Topic="Money", Budget="12.5", Days="90.0")
    assert inquiry["attribution"] == {"campaign": "replay"}
    assert inquiry["contact"]["role"] == "Owner"
    assert inquiry["bant"]["need"]["fields"] == {"topic": "finance"}
    assert inquiry["bant"]["budget"] == {"minor": 1_250}
    assert inquiry["bant"]["timing"] == {"within_days": 30}
    assert body(mapping, Role="", Topic="Else", Budget="1", Days="1")["bant"]["need"]["fields"] == {"topic": "other"}


@pytest.mark.parametrize("text", ["", "Select", " Select "])
def test_what_means_not_answered_leaves_the_field_out(text: str) -> None:
    mapping = plan(
        MappingField(to="bant.authority", column="Who", lookup={"me": "decision_maker"}, otherwise="researcher")
    )
    assert "authority" not in body(mapping, Who=text)["bant"]


def test_the_first_case_whose_conditions_all_hold_is_taken() -> None:
    cases = (
        ValueCase(value="decision_maker", when={"Job": ("Boss",)}),
        ValueCase(value="decision_maker", when={"Job": ("Clerk",), "Seconds": Bounds(at_least=300)}),
        ValueCase(value="researcher", when={"Job": ("Clerk",)}),
    )
    mapping = plan(MappingField(to="bant.authority", cases=cases))
    assert body(mapping, Job="Boss", Seconds="")["bant"]["authority"] == "decision_maker"
    assert body(mapping, Job="Clerk", Seconds="300")["bant"]["authority"] == "decision_maker"
    assert body(mapping, Job="Clerk", Seconds="299.9")["bant"]["authority"] == "researcher"
    assert body(mapping, Job="Clerk", Seconds="")["bant"]["authority"] == "researcher"
    assert "authority" not in body(mapping, Job="Guest", Seconds="900")["bant"]


def test_evidence_is_stated_only_where_there_is_a_value() -> None:
    field = MappingField(to="bant.authority", column="Who", evidence=EvidenceKind.inferred)
    assert body(plan(field), Who="decision_maker")["bant"]["evidence"] == {"authority": "inferred"}
    assert "evidence" not in body(plan(field), Who="")["bant"]


def test_touches_are_repeated_looked_up_and_described_from_the_row() -> None:
    mapping = plan(
        touches=(
            TouchRule(kind="visit", repeat="Visits", most=3, hours_before=2, hours_apart=24, detail="{Pages} pages"),
            TouchRule(column="Last", lookup={"Mail": "email_opened"}, hours_before=1),
        )
    )
    touches = body(mapping, Visits="9.0", Pages="2", Last="Mail")["touches"]
    assert [touch["kind"] for touch in touches] == ["visit", "visit", "visit", "email_opened"]
    assert [touch["at"] for touch in touches[:2]] == ["2026-11-20T22:00:00Z", "2026-11-19T22:00:00Z"]
    assert touches[0]["detail"] == "2 pages"
    assert body(mapping, Visits="", Pages="", Last="Else")["touches"] == []


def test_the_same_row_gives_the_same_bytes_and_another_row_another_person() -> None:
    mapping = plan()
    first = draft(mapping, {"Id": "a"}, 1, AS_OF)
    assert draft(mapping, {"Id": "a"}, 1, AS_OF) == first
    assert draft(mapping, {"Id": "b"}, 2, AS_OF).contact["phone"] != first.contact["phone"]


def test_a_row_of_somebody_not_to_be_contacted_is_marked() -> None:
    mapping = plan(suppress={"Do Not Call": ("Yes",)})
    assert draft(mapping, {"Id": "a", "Do Not Call": "Yes"}, 1, AS_OF).suppressed
    assert not draft(mapping, {"Id": "a", "Do Not Call": "No"}, 1, AS_OF).suppressed


MINIMUM = """
vertical = "v"
id = "Id"
fields = [{fields}]
consent = {{ text = "yes", page_url = "https://www.example.com/" }}
{more}
"""


@pytest.mark.parametrize(
    ("fields", "more", "words"),
    [
        ('{ to = "bant.price", constant = 1 }', "", "bant.price is no field"),
        ('{ to = "bant.authority" }', "", "exactly one of constant, column and cases"),
        ('{ to = "bant.authority", constant = "x", column = "y" }', "", "exactly one of"),
        ('{ to = "attribution.source", constant = "x", evidence = "inferred" }', "", "evidence belongs"),
        (
            '{ to = "contact.role", column = "Tags" }',
            '[unused]\n"it leaks" = ["Tags"]',
            "Tags must not be read: it leaks",
        ),
        ("", '[suppress]\nTags = ["x"]\n[unused]\n"it leaks" = ["Tags"]', "Tags must not be read"),
        ("", "colour = 1", "colour"),
        ("", "= nonsense", "MAP.toml"),
    ],
)
def test_a_mapping_that_says_what_none_may_is_refused_in_words(
    fields: str, more: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "MAP.toml"
    path.write_text(MINIMUM.format(fields=fields, more=more))
    with pytest.raises(StartError) as refusal:
        load_mapping(path)
    assert words in refusal.value.sentence


def test_a_mapping_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"none\.toml"):
        load_mapping(tmp_path / "none.toml")


def write(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_rows_are_read_in_order_up_to_the_limit(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", ("Id", "Role"), ("a", "x"), ("b", "y"), ("c", "z"))
    assert [inquiry.id for inquiry in read_rows(file, plan(), AS_OF)] == ["a", "b", "c"]
    assert [inquiry.number for inquiry in read_rows(file, plan(), AS_OF, limit=2)] == [1, 2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Name\nx\n", "has no column Id, Days"),
        (b"", "rows.csv is no table"),
        (b"Id,Days\n", "has no rows"),
        (b"Id,Days\na,1\na,2\n", "row 2: has the id of row 1"),
        (b"Id,Days\n,1\n", "row 1: has no Id"),
        (b"Id,Days\na,soon\n", "row 1: the column Days holds “soon”, which is no number"),
        (b"Id,Days\na,1,2\n", "row 1: This row has 3 cells and the header 2"),
        (b"Id,Days\n\xe9,1\n", "is not utf-8-sig: byte 8"),
    ],
)
def test_whatever_is_wrong_with_a_file_is_said_before_anything_is_sent(
    content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    mapping = plan(MappingField(to="bant.timing.within_days", column="Days", number=NumberRule()))
    with pytest.raises(StartError) as refusal:
        read_rows(tmp_path / "rows.csv", mapping, AS_OF)
    assert words in refusal.value.sentence


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"none\.csv"):
        read_rows(tmp_path / "none.csv", plan(), AS_OF)
