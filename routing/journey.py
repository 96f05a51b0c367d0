"""Journey of a person: what later touches and corrections make of the facts of an inquiry.

An inquiry never changes. A touch is a later interaction of the person, and may supply answers; a correction replaces or
removes answers that were recorded wrongly. `revise` is the fold of both over the inquiry's facts. It depends on the
entries alone, never on the order in which they arrived.

The rule for each value (decision 54): a correction supersedes everything that was stated up to its time. Of what is
left, the newest value that was stated or verified counts; a value that was only inferred counts if there is no other.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from routing.inquiry import (
    Authority,
    Budget,
    EvidenceKind,
    Facts,
    NeedValue,
    Place,
    Signals,
    Timing,
    Touch,
    ValueSource,
)
from routing.qualification import EVIDENCE_STRENGTH, Dimension

MOST_TOUCHES: Final = 1_000
"Most touches of one lead after its inquiry. Every decision about the lead reads all of them: 1,000 take some 3 ms."

NEED_PREFIX: Final = "need."
"Beginning of the name of a need field among the names of values, such as `need.roof_type`."

FactValue = Budget | Timing | NeedValue
"""Value of one fact that the journey can change."""


class Supplied(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answers that a touch or a correction supplies. `evidence` is keyed by dimension; without it, they were stated."""

    budget: Budget | None = None
    authority: Authority | None = None
    need_fields: dict[str, NeedValue] = {}
    timing: Timing | None = None
    evidence: dict[str, EvidenceKind] = {}
    company_size: int | None = None
    role: str | None = None


class TouchEntry(msgspec.Struct, frozen=True, kw_only=True, tag="touch"):
    """A touch, and the answers that it supplies. `revision` is that of the lead once the touch was stored."""

    revision: int
    touch: Touch
    supplies: Supplied = Supplied()

    @property
    def at(self) -> datetime:
        """Time of the touch."""
        return self.touch.at


class CorrectionEntry(msgspec.Struct, frozen=True, kw_only=True, tag="correction"):
    """A correction: values that replace the earlier ones, and the names of values that are removed.

    `signals` are those of a corrected phone number or e-mail address, `place` is that of a corrected postal code.
    `contact` are the names of the contact fields that it corrected; their values are not here.
    """

    revision: int
    at: datetime
    supplies: Supplied = Supplied()
    clears: tuple[str, ...] = ()
    signals: Signals | None = None
    place: Place | None = None
    contact: tuple[str, ...] = ()


JourneyEntry = TouchEntry | CorrectionEntry
"""One step of a journey."""


class StoredJourney(msgspec.Struct, frozen=True, kw_only=True):
    """Journey of a lead as the database adds it to the facts of its inquiry."""

    journey: tuple[JourneyEntry, ...] = ()


class FactChange(msgspec.Struct, frozen=True, kw_only=True):
    """One value before and after a part of the journey; None if it was or is unknown."""

    name: str
    before: FactValue | None
    after: FactValue | None


class LeadUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """News about a lead for the business that has it: new touches, changed values, and corrected contact fields.

    It has no contact data: of a corrected field it has the name.
    """

    revision: int
    touches: tuple[Touch, ...] = ()
    changes: tuple[FactChange, ...] = ()
    contact_changed: tuple[str, ...] = ()


class _Statement(NamedTuple):
    """One value at one time. None is a value that a correction removed."""

    name: str
    value: FactValue | None
    at: datetime
    evidence: EvidenceKind
    origin: str
    is_correction: bool = False


_FACTS: Final = msgspec.json.Decoder(Facts)
_JOURNEY: Final = msgspec.json.Decoder(StoredJourney)

_DIMENSIONS: Final = frozenset(map(str, Dimension))

INQUIRY: Final = "inquiry"
"Origin of a value that came with the inquiry."

CORRECTION: Final = "correction"
"Origin of a value that a correction set."


def revise(facts: Facts, entries: Iterable[JourneyEntry]) -> Facts:
    """Return the facts of an inquiry after its journey; `facts` themselves without entries.

    A touch that has the identity of another counts once. Never raises, and any order of the entries gives the same.
    """
    entries = _distinct(entries)
    if not entries:
        return facts
    by_name: dict[str, list[_Statement]] = {}
    for statement in _statements(facts, entries):
        by_name.setdefault(statement.name, []).append(statement)
    counting = {name: _current(statements) for name, statements in sorted(by_name.items())}
    current = {name: statement for name, statement in counting.items() if statement is not None}
    revised = _with_values(facts, current, _all_touches(facts, entries))
    corrections = [entry for entry in entries if isinstance(entry, CorrectionEntry)]
    signals = [entry.signals for entry in corrections if entry.signals is not None]
    places = [entry.place for entry in corrections if entry.place is not None]
    return msgspec.structs.replace(
        revised,
        signals=signals[-1] if signals else facts.signals,
        place=places[-1] if places else facts.place,
    )


def read_facts(raw: bytes) -> Facts:
    """Return the facts in the JSON of an inquiry, revised by the journey in it if there is one.

    Raises msgspec.ValidationError.
    """
    return revise(_FACTS.decode(raw), _JOURNEY.decode(raw).journey)


def identity(touch: Touch) -> bytes:
    """Return what makes a touch the same as another: its `touch_id`, or else its whole content."""
    if touch.touch_id is not None:
        return b"id:" + touch.touch_id.encode()
    return msgspec.json.encode(touch)


def values_of(facts: Facts) -> dict[str, FactValue]:
    """Return the values that a journey can change, by their names; unknown ones are left out."""
    values: dict[str, FactValue | None] = {
        "budget": facts.budget,
        "authority": facts.authority,
        "timing": facts.timing,
        "company_size": facts.company_size,
        "role": facts.role,
    }
    values |= {NEED_PREFIX + name: value for name, value in facts.need_fields.items()}
    return {name: value for name, value in values.items() if value is not None}


def changes(before: Facts, after: Facts) -> tuple[FactChange, ...]:
    """Return the values that differ, in the order of their names."""
    old, new = values_of(before), values_of(after)
    return tuple(
        FactChange(name=name, before=old.get(name), after=new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def update_of(before: Facts, after: Facts, entries: Iterable[JourneyEntry]) -> LeadUpdate:
    """Return the news that new entries are, one batch with one revision, which made `after` of `before`.

    Raises ValueError without entries.
    """
    batch = tuple(entries)
    return LeadUpdate(
        revision=max(entry.revision for entry in batch),
        touches=tuple(entry.touch for entry in batch if isinstance(entry, TouchEntry)),
        changes=changes(before, after),
        contact_changed=tuple(name for entry in batch if isinstance(entry, CorrectionEntry) for name in entry.contact),
    )


def _distinct(entries: Iterable[JourneyEntry]) -> tuple[JourneyEntry, ...]:
    """Return the entries in order of time, each touch once."""
    ordered = sorted(entries, key=lambda entry: (entry.at, msgspec.json.encode(entry)))
    touches: set[bytes] = set()
    distinct: list[JourneyEntry] = []
    for entry in ordered:
        if isinstance(entry, TouchEntry):
            key = identity(entry.touch)
            if key in touches:
                continue
            touches.add(key)
        distinct.append(entry)
    return tuple(distinct)


def _all_touches(facts: Facts, entries: Iterable[JourneyEntry]) -> tuple[Touch, ...]:
    """Return the touches of the inquiry and of the entries in order of time, each once."""
    own = {identity(touch) for touch in facts.touches}
    later = [entry.touch for entry in entries if isinstance(entry, TouchEntry) and identity(entry.touch) not in own]
    return tuple(sorted((*facts.touches, *later), key=lambda touch: (touch.at, identity(touch))))


def _statements(facts: Facts, entries: Iterable[JourneyEntry]) -> Iterator[_Statement]:
    """Yield every value of the inquiry and of the entries."""
    yield from _named(values_of(facts), facts.evidence, facts.asked_at, INQUIRY)
    for entry in entries:
        if isinstance(entry, TouchEntry):
            yield from _named(supplied_values(entry.supplies), entry.supplies.evidence, entry.at, entry.touch.kind)
            continue
        for statement in _named(supplied_values(entry.supplies), entry.supplies.evidence, entry.at, CORRECTION):
            yield statement._replace(is_correction=True)
        for name in entry.clears:
            yield _Statement(name, None, entry.at, EvidenceKind.stated, CORRECTION, is_correction=True)


def supplied_values(supplied: Supplied) -> dict[str, FactValue]:
    """Return the supplied values by their names."""
    values: dict[str, FactValue | None] = {
        "budget": supplied.budget,
        "authority": supplied.authority,
        "timing": supplied.timing,
        "company_size": supplied.company_size,
        "role": supplied.role,
    }
    values |= {NEED_PREFIX + name: value for name, value in supplied.need_fields.items()}
    return {name: value for name, value in values.items() if value is not None}


def _named(
    values: Mapping[str, FactValue], evidence: Mapping[str, EvidenceKind], at: datetime, origin: str
) -> Iterator[_Statement]:
    for name, value in values.items():
        yield _Statement(name, value, at, evidence.get(name.partition(".")[0], EvidenceKind.stated), origin)


def _current(statements: Iterable[_Statement]) -> _Statement | None:
    """Return the statement of one value that counts, or None if the value is unknown."""
    group = list(statements)
    correction = max((each for each in group if each.is_correction), key=_order, default=None)
    valid = [each for each in group if not each.is_correction and (correction is None or each.at > correction.at)]
    if correction is not None and correction.value is not None:
        valid.append(correction)
    confirmed = [each for each in valid if each.evidence is not EvidenceKind.inferred]
    return max(confirmed or valid, key=_order, default=None)


def _order(statement: _Statement) -> tuple[datetime, int, bytes]:
    """Sort by time, then by evidence; at the same time by content, so that any order of arrival gives the same."""
    return statement.at, EVIDENCE_STRENGTH[statement.evidence], msgspec.json.encode(statement)


def _with_values(facts: Facts, current: Mapping[str, _Statement], touches: tuple[Touch, ...]) -> Facts:
    """Return the facts with the values that count. A dimension's evidence is the weakest of its values."""
    fields = {name: getattr(facts, name) for name in Facts.__struct_fields__}
    values = {name: statement.value for name, statement in current.items()}
    fields |= {name: values.get(name) for name in ("budget", "authority", "timing", "company_size", "role")}
    fields["need_fields"] = {
        name.removeprefix(NEED_PREFIX): value for name, value in values.items() if name.startswith(NEED_PREFIX)
    }
    sources = {
        name: ValueSource(origin=each.origin, at=each.at, evidence=each.evidence) for name, each in current.items()
    }
    return Facts(**fields | {"evidence": _evidence(current), "touches": touches, "sources": sources})


def _evidence(current: Mapping[str, _Statement]) -> dict[str, EvidenceKind]:
    weakest: dict[str, EvidenceKind] = {}
    for name, statement in current.items():
        dimension = name.partition(".")[0]
        if dimension not in _DIMENSIONS:
            continue
        evidence = weakest.get(dimension, statement.evidence)
        weakest[dimension] = min(evidence, statement.evidence, key=EVIDENCE_STRENGTH.__getitem__)
    return weakest
