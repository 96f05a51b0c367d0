"""Mapping of the columns of a file to inquiries: a declarative TOML file with a small fixed set of derivations.

A mapping contains no code. Its whole syntax is in the Structs below, and docs/REPLAY.md shows each with an example.
Turning one row into one body is a pure function of the row and the mapping.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from marketplace.demo import contacts
from marketplace.demo.world import DemoBusiness
from marketplace.runtime.clock import seeded
from marketplace.runtime.settings import StartError
from routing.inquiry import EvidenceKind
from routing.qualification import Dimension
from routing.vertical import VerticalDefinition

Row = Mapping[str, str]
Value = str | int | bool

TARGETS: Final = (
    "contact.country",
    "contact.postal_code",
    "contact.street",
    "contact.role",
    "contact.company_size",
    "bant.budget.minor",
    "bant.budget.maximum_minor",
    "bant.budget.currency",
    "bant.authority",
    "bant.need.summary",
    "bant.timing.within_days",
    "attribution.source",
    "attribution.form",
    "attribution.campaign",
)
"""Fields of an inquiry that a mapping may set, besides those with a prefix of NESTS."""
NESTS: Final = ("bant.need.fields.", "attribution.sub_ids.", "metadata.")


class UnreadableRow(Exception):
    """Raised for a row that the mapping cannot read. The message names the column and the value."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Condition on a number: at least `at_least` and less than `below`."""

    at_least: float | None = None
    below: float | None = None


When = dict[str, tuple[str, ...] | Bounds]
"""Conditions by column, all of which must hold: one of several texts, or a number within bounds."""


class ValueCase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Value of the rows for which all conditions hold; without conditions, of every row."""

    value: Value
    when: When = {}


class NumberRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whole number from a column: multiplied by `times`, rounded, and limited to the bounds."""

    times: float = 1.0
    at_least: int | None = None
    at_most: int | None = None


class MappingField(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field of the inquiry, named by `to`.

    Its value is a constant, a column's text, a column looked up in a table (`otherwise` for texts not in the table), a
    column as a number, or the first case that applies. `evidence` is how a dimension is known; `why` is for readers.
    """

    to: str
    why: str = ""
    constant: Value | None = None
    column: str | None = None
    lookup: dict[str, Value] | None = None
    otherwise: Value | None = None
    number: NumberRule | None = None
    cases: tuple[ValueCase, ...] = ()
    evidence: EvidenceKind | None = None

    def __post_init__(self) -> None:
        if self.to not in TARGETS and not self.to.startswith(NESTS):
            raise ValueError(f"{self.to} is no field of an inquiry")
        if sum((self.constant is not None, self.column is not None, bool(self.cases))) != 1:
            raise ValueError(f"{self.to}: give exactly one of constant, column and cases")
        if self.lookup is not None and self.number is not None:
            raise ValueError(f"{self.to}: give lookup or number, not both")
        if self.evidence is not None and self.to.split(".")[1] not in set(Dimension):
            raise ValueError(f"{self.to}: evidence belongs to a field of bant")


class TouchRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Touches of the person: of the stated `kind`, or the kind looked up from `column`.

    There are as many as the number in the column `repeat`, at most `most`. The last was `hours_before` the time of the
    run, and each earlier one `hours_apart` before the next. `detail` may contain column names in braces.
    """

    kind: str = ""
    column: str | None = None
    lookup: dict[str, str] = {}
    when: When = {}
    repeat: str | None = None
    most: int = 10
    hours_before: float = 24.0
    hours_apart: float = 24.0
    detail: str = ""

    def __post_init__(self) -> None:
        if bool(self.kind) == (self.column is not None):
            raise ValueError("a touch has either a kind or a column with a lookup")


class ConsentRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Consent in place of the record that the file lacks: text, page, and hours before the time of the run."""

    text: str
    page_url: str
    hours_before: float = 24.0


class MappingPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"id_column": "id"}):
    """A whole mapping, as it is written in TOML.

    `unanswered` are texts that mean no answer. `unused` are columns that must not be read, by reason. A row with one of
    the texts of `suppress` in that column is of a person who must not be contacted.
    """

    vertical: str
    id_column: str
    fields: tuple[MappingField, ...]
    consent: ConsentRule
    encoding: str = "utf-8-sig"
    delimiter: str = ","
    unanswered: tuple[str, ...] = ("",)
    unused: dict[str, tuple[str, ...]] = {}
    suppress: dict[str, tuple[str, ...]] = {}
    touches: tuple[TouchRule, ...] = ()
    definition: VerticalDefinition | None = None
    businesses: tuple[DemoBusiness, ...] = ()

    def __post_init__(self) -> None:
        forbidden = {column: why for why, columns in self.unused.items() for column in columns}
        for column in self.columns():
            if column in forbidden:
                raise ValueError(f"the column {column} must not be read: {forbidden[column]}")

    def columns(self) -> tuple[str, ...]:
        """Return every column that this mapping reads, in the order of first use."""
        columns = [self.id_column, *self.suppress]
        for field in self.fields:
            columns += [field.column] if field.column else []
            columns += [column for case in field.cases for column in case.when]
        for touch in self.touches:
            columns += [column for column in (touch.column, touch.repeat) if column]
            columns += [*touch.when, *_named_in(touch.detail)]
        return tuple(dict.fromkeys(columns))


def load_mapping(path: Path) -> MappingPlan:
    """Load a mapping from a file. Raises StartError if it cannot be read or is not valid."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=MappingPlan)
    except OSError as error:
        raise StartError("mapping_missing", f"{path} cannot be read ({error.strerror}).", "Name a mapping.") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise StartError(
            "mapping_invalid", f"{path}: {error}.", "docs/REPLAY.md shows what a mapping may say."
        ) from error


class DraftRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row, ready to be sent: its number from 1, its own id, the body, and whether its person is suppressed."""

    number: int
    id: str
    contact: dict[str, str]
    body: bytes
    suppressed: bool


def draft(mapping: MappingPlan, row: Row, number: int, as_of: datetime) -> DraftRow:
    """Return the inquiry of one row. The same row, number and time give the same bytes.

    Raises RowFault for a value that the mapping cannot read, IndexError if there are no more invented people.
    """
    row = {column: (text or "").strip() for column, text in row.items() if column is not None}
    row_id = row[mapping.id_column]
    contact = contacts.person(seeded(f"row {row_id}"), number - 1, "row")
    inquiry: dict[str, Any] = {
        "vertical": mapping.vertical,
        "provider_reference": row_id,
        "contact": dict(contact),
        "bant": {},
        "consent": {
            "text": mapping.consent.text,
            "page_url": mapping.consent.page_url,
            "given_at": as_of - timedelta(hours=mapping.consent.hours_before),
        },
        "touches": [touch for rule in mapping.touches for touch in _touches(rule, mapping, row, as_of)],
    }
    for field in mapping.fields:
        value = _value(field, mapping, row)
        if value is not None:
            _put(inquiry, field.to, value)
            if field.evidence is not None:
                inquiry["bant"].setdefault("evidence", {})[field.to.split(".")[1]] = field.evidence
    return DraftRow(
        number=number,
        id=row_id,
        contact=contact,
        body=msgspec.json.encode(inquiry),
        suppressed=any(row[column] in texts for column, texts in mapping.suppress.items()),
    )


def _value(field: MappingField, mapping: MappingPlan, row: Row) -> Value | None:
    """Return the value of a field for a row; None if it was not answered."""
    if field.constant is not None:
        return field.constant
    if field.column is None:
        return next((case.value for case in field.cases if _holds(case.when, mapping, row)), None)
    text = row[field.column]
    if text in mapping.unanswered:
        return None
    if field.lookup is not None:
        return field.lookup.get(text, field.otherwise)
    if field.number is not None:
        return _bounded(_number(field.column, row) * field.number.times, field.number)
    return text


def _bounded(value: float, number: NumberRule) -> int:
    whole = round(value)
    if number.at_least is not None:
        whole = max(whole, number.at_least)
    return whole if number.at_most is None else min(whole, number.at_most)


def _holds(when: When, mapping: MappingPlan, row: Row) -> bool:
    for column, condition in when.items():
        if not isinstance(condition, Bounds):
            if row[column] not in condition:
                return False
            continue
        if row[column] in mapping.unanswered:
            return False
        value = _number(column, row)
        if (condition.at_least is not None and value < condition.at_least) or (
            condition.below is not None and value >= condition.below
        ):
            return False
    return True


def _number(column: str, row: Row) -> float:
    try:
        return float(row[column])
    except ValueError:
        raise UnreadableRow(f"the column {column} holds “{row[column][:40]}”, which is no number") from None


def _touches(rule: TouchRule, mapping: MappingPlan, row: Row, as_of: datetime) -> Iterator[dict[str, Any]]:
    kind = rule.kind if rule.column is None else rule.lookup.get(row[rule.column], "")
    if not kind or not _holds(rule.when, mapping, row):
        return
    times = 1
    if rule.repeat is not None:
        times = 0 if row[rule.repeat] in mapping.unanswered else min(rule.most, int(_number(rule.repeat, row)))
    for place in range(times):
        before = timedelta(hours=rule.hours_before + place * rule.hours_apart)
        yield {"kind": kind, "at": as_of - before, "detail": rule.detail.format_map(row)}


def _named_in(template: str) -> Iterable[str]:
    return (part.split("}", 1)[0] for part in template.split("{")[1:])


def _put(inquiry: dict[str, Any], path: str, value: Value) -> None:
    for nest in NESTS:
        if path.startswith(nest):
            steps = [*nest[:-1].split("."), path.removeprefix(nest)]
            break
    else:
        steps = path.split(".")
    inside = inquiry
    for step in steps[:-1]:
        inside = inside.setdefault(step, {})
    inside[steps[-1]] = value
