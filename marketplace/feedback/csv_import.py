"""A file of dispositions, as a CRM writes it: each row a report of its own, so that a bad one harms no other."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from marketplace import clock, errors
from marketplace.db import Connection, Pool, session
from marketplace.errors import InvalidInput, MarketplaceError
from marketplace.faults import Code, Fault, read
from marketplace.feedback import flow, store
from marketplace.feedback.flow import Holder, Recorded, Told
from marketplace.feedback.store import Disposition, Source
from marketplace.feedback.wire import FileMapping, ReportBody, lead_ids
from marketplace.imports.amounts import decide_decimal, read_amount
from marketplace.imports.cells import CellFault, RowFault, clean, read_id
from marketplace.imports.questions import open_faults
from marketplace.imports.store import Import, JudgedRow
from marketplace.imports.table import Line, Table, column_faults
from marketplace.imports.times import decide_order, read_moment
from marketplace.imports.wire import RowOutcome
from marketplace.problems import describe
from routing.subscription import is_zone

VALUE: Final = "value"
"A column besides the fields of a report: what the job is worth as people write it, such as $8,400."
COLUMNS: Final = frozenset((*ReportBody.__struct_fields__, VALUE))
LONGEST_DIGITS: Final = 19
"What is longer is no amount of money; it stays text, and is refused as such."
LONGEST_LABEL: Final = 60


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row by its number: what it tells, or what is wrong with it."""

    number: int
    label: str
    told: Told | None = None
    fault: RowFault | None = None


class DispositionFile:
    """One file of dispositions, as its business means it. Raises InvalidInput for its header or its mapping."""

    def __init__(self, table: Table, stated: FileMapping, holder: Holder, currency: str, zone: str) -> None:
        self.table, self._holder, self._currency = table, holder, currency
        self.header = tuple(name.lower() for name in table.header)
        check_header(self.header)
        self.names: Mapping[str, str] = {}
        self._places = {name: place for place, name in enumerate(self.header)}
        self.mapping, self.open_questions = self._decide(msgspec.structs.replace(stated, zone=stated.zone or zone))
        if not is_zone(self.mapping.zone or ""):
            detail = "Name an IANA zone such as America/Chicago."
            raise InvalidInput((Fault(pointer="/zone", code="zone_unknown", detail=detail),))
        self._zone = ZoneInfo(self.mapping.zone or "")
        self._earlier: dict[str, Disposition] = {}

    def check_complete(self) -> None:
        """Raises InvalidInput for what the rows leave open."""
        if faults := open_faults(self.open_questions):
            raise InvalidInput(faults)

    def read(self, lines: Iterable[Line]) -> list[Row]:
        """Return what each row tells, or what is wrong with it, in their order."""
        return [self._row(line) for line in lines]

    async def judge(self, connection: Connection, rows: Sequence[Row]) -> list[JudgedRow]:
        """What would become of the rows, those that this file has brought before counting as kept."""
        told = [row.told for row in rows if row.told is not None]
        outcomes = await flow.judge_reports(connection, self._holder, Source.csv, told, clock.now(), self._earlier)
        return _judged(rows, outcomes)

    async def keep(self, connection: Connection, one: Import, rows: Sequence[Row]) -> list[JudgedRow]:
        """Records the good rows, as rows of the import."""
        told = [row.told for row in rows if row.told is not None]
        outcomes = await flow.record_reports(connection, self._holder, Source.csv, told, clock.now(), one.id)
        return _judged(rows, outcomes)

    def _decide(self, stated: FileMapping) -> tuple[FileMapping, tuple[str, ...]]:
        left_open: list[str] = []
        if stated.dates is None:
            order, undecided = decide_order(self._cells("happened_at"))
            stated = msgspec.structs.replace(stated, dates=order)
            left_open += ["dates"] * undecided
        if stated.decimal is None:
            decimal, undecided = decide_decimal(self._cells(VALUE), self._currency)
            stated = msgspec.structs.replace(stated, decimal=decimal)
            left_open += ["decimal"] * undecided
        return stated, tuple(left_open)

    def _cells(self, name: str) -> Iterable[str]:
        if name not in self._places:
            return ()
        place = self._places[name]
        return (line.cells[place] for line in self.table.lines() if line.cells)

    def _row(self, line: Line) -> Row:
        if line.fault is not None:
            return Row(number=line.number, label="", fault=line.fault)
        given = {name: text for name, cell in zip(self.header, line.cells, strict=True) if (text := cell.strip())}
        label = given.get("lead_id", given.get("assignment_id", ""))[:LONGEST_LABEL]
        try:
            document = self._document(given)
        except _Refusal as refusal:
            return Row(number=line.number, label=label, fault=refusal.fault)
        report = read(msgspec.json.encode(document), ReportBody)
        if isinstance(report, tuple):
            return Row(number=line.number, label=label, fault=_row_fault(report[0]))
        lead_id, assignment_id = lead_ids(report)
        body = msgspec.structs.replace(report, event_id=report.event_id or _event(given))
        return Row(number=line.number, label=label, told=Told(body=body, lead_id=lead_id, assignment_id=assignment_id))

    def _document(self, given: dict[str, str]) -> dict[str, str | int]:
        """The report that a row is, as JSON would have it."""
        document: dict[str, str | int] = {name: text for name, text in given.items() if name != VALUE}
        if "happened_at" not in given:
            raise _Refusal("happened_at", Code.field_missing, "Say when it happened, such as 2026-11-21T10:00:00Z.")
        for name, text in given.items():
            try:
                match name:
                    case "happened_at":
                        moment = read_moment(text, self.mapping.dates or "iso", self._zone)
                        if moment.whole_day:
                            raise CellFault("time_missing", "Write the time of day too, such as 2026-11-21 14:05.")
                        document[name] = moment.at.isoformat()
                    case "value":
                        if "value_minor" in given:
                            raise CellFault(Code.value_not_allowed, "Say the value once: as value, or as value_minor.")
                        document["value_minor"] = read_amount(text, self._currency, self.mapping.decimal or ".")
                    case "value_minor":
                        document[name] = _whole(text)
                    case "lead_id" | "assignment_id" | "event_id":
                        document[name] = read_id(clean(text))
            except CellFault as fault:
                raise _Refusal(name, fault.code, fault.detail) from None
        return document


class Dispositions:
    """The importer of dispositions."""

    async def open(
        self, pool: Pool, business_id: UUID, mode: str | None, raw: bytes, mapping: bytes
    ) -> DispositionFile:
        """Raises NotFound, what Table raises, and InvalidInput for a header or a mapping that does not fit."""
        async with session(pool) as connection:
            party = await store.find_money_and_zone(connection, business_id)
        if party is None:
            raise errors.NotFound("There is no such business.")
        stated = msgspec.json.decode(mapping, type=FileMapping) if mapping else FileMapping()
        holder = Holder(business_id=business_id, mode=mode, actor="")

        def read_file() -> DispositionFile:
            return DispositionFile(Table(raw), stated, holder, *party)

        return await asyncio.to_thread(read_file)

    async def undo(self, connection: Connection, one: Import, most: int) -> int | None:
        """Takes back some `most` of the dispositions of the import."""
        return await store.undo_dispositions(connection, one.id, one.business_id, most, clock.now()) or None


class _Refusal(Exception):
    def __init__(self, field: str | None, code: str, detail: str) -> None:
        super().__init__(code)
        self.fault = RowFault(field=field, code=code, detail=detail)


def check_header(header: tuple[str, ...]) -> None:
    """Raises InvalidInput for columns that are unknown or come twice, and for those that are missing."""
    faults = list(column_faults(header, COLUMNS))
    if not {"lead_id", "assignment_id"} & set(header):
        detail = "Say which lead is meant: a column lead_id or assignment_id."
        faults.append(Fault(pointer="/lead_id", code=Code.field_missing, detail=detail))
    if not {"kind", "stage"} & set(header):
        detail = "Say what became of it: a column kind or stage."
        faults.append(Fault(pointer="/kind", code=Code.field_missing, detail=detail))
    if "happened_at" not in header:
        detail = "Say when it happened: a column happened_at, such as 2026-11-21T10:00:00Z."
        faults.append(Fault(pointer="/happened_at", code=Code.field_missing, detail=detail))
    if faults:
        raise InvalidInput(faults[:100])


def _whole(text: str) -> int | str:
    """A whole number; anything else stays text, and is refused as such."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) <= LONGEST_DIGITS else text


def _event(given: dict[str, str]) -> str:
    """What the row says is what it is known by, so that the same file sent again records nothing twice."""
    return f"csv:{sha256(msgspec.json.encode(sorted(given.items()))).hexdigest()[:40]}"


def _row_fault(fault: Fault) -> RowFault:
    return RowFault(field=fault.pointer.removeprefix("/") or None, code=fault.code, detail=fault.detail)


def _judged(rows: Sequence[Row], outcomes: Sequence[Recorded | MarketplaceError]) -> list[JudgedRow]:
    """What became of each row; `outcomes` are those of the rows that could be read, in their order."""
    readable = iter(outcomes)
    judged = []
    for row in rows:
        fault, outcome = row.fault, RowOutcome.refused
        if fault is None:
            match next(readable):
                case Recorded(fresh=fresh):
                    outcome = RowOutcome.taken if fresh else RowOutcome.known
                case InvalidInput(faults=faults):
                    fault = _row_fault(faults[0])
                case refused:
                    problem = describe(refused, "")
                    fault = RowFault(field=None, code=problem.code, detail=problem.detail)
                    if isinstance(refused, errors.EventReused):
                        outcome = RowOutcome.conflict
        field, code, detail = (None, None, None) if fault is None else (fault.field, fault.code, fault.detail)
        judged.append(
            JudgedRow(number=row.number, outcome=outcome, label=row.label, field=field, code=code, detail=detail)
        )
    return judged
