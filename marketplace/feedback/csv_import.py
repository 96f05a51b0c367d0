"""Import a CSV file of dispositions from a CRM. Each row is one report; a faulty row does not stop the others."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from marketplace.database.db import Connection, Pool, session
from marketplace.feedback import flow as feedback_flow
from marketplace.feedback import stages_store
from marketplace.feedback import store as feedback_store
from marketplace.feedback.flow import DispositionReport, LeadHolder, RecordedDisposition
from marketplace.feedback.store import Disposition, DispositionSource
from marketplace.feedback.wire import DispositionMapping, ReportBody, lead_ids
from marketplace.imports.amounts import decide_decimal, read_amount
from marketplace.imports.cells import CellFault, RowFault, clean, read_id
from marketplace.imports.questions import open_faults
from marketplace.imports.store import Import, RowJudgement
from marketplace.imports.table import Table, TableRow, column_faults
from marketplace.imports.times import decide_order, read_moment
from marketplace.imports.wire import RowOutcome
from marketplace.runtime import clock, errors
from marketplace.runtime.errors import InvalidInput, MarketplaceError
from marketplace.text.faults import Fault, FaultCode, read
from marketplace.web.problems import describe
from routing.subscription import is_zone

VALUE: Final = "value"
"Column for the value of the job as people write it, such as $8,400; an alternative to `value_minor`."
COLUMNS: Final = frozenset((*ReportBody.__struct_fields__, VALUE))
LONGEST_DIGITS: Final = 19
"Most digits of `value_minor` that are read as a number. Longer text is kept as it is, and refused as no number."
LONGEST_LABEL: Final = 60


class DispositionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the file: its report, or its fault. `label` is the id of its lead or assignment, as written."""

    number: int
    label: str
    report: DispositionReport | None = None
    fault: RowFault | None = None


class DispositionFile:
    """One file of dispositions, and how its columns, dates and amounts are read.

    Raises InvalidInput for faults of its header or mapping. Times without an offset are in `zone` unless the mapping
    names another; amounts are in `currency`.
    """

    def __init__(self, table: Table, stated: DispositionMapping, holder: LeadHolder, currency: str, zone: str) -> None:
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
        """Raise InvalidInput if the rows do not show how dates or amounts are written and the mapping does not say."""
        if faults := open_faults(self.open_questions):
            raise InvalidInput(faults)

    def read(self, lines: Iterable[TableRow]) -> list[DispositionRow]:
        """Return each line's report or fault, in order."""
        return [self._read_row(line) for line in lines]

    async def judge(self, connection: Connection, rows: Sequence[DispositionRow]) -> list[RowJudgement]:
        """Return the outcome that an import of the rows would have; nothing is written.

        Rows of this file that were judged before count as imported.
        """
        reports = [row.report for row in rows if row.report is not None]
        outcomes = await feedback_flow.judge_reports(
            connection, self._holder, DispositionSource.csv, reports, clock.now(), self._earlier
        )
        return _judged(rows, outcomes)

    async def keep(
        self, connection: Connection, file_import: Import, rows: Sequence[DispositionRow]
    ) -> list[RowJudgement]:
        """Record the valid rows as rows of the import, and return the outcome of each row."""
        reports = [row.report for row in rows if row.report is not None]
        outcomes = await feedback_flow.record_reports(
            connection, self._holder, DispositionSource.csv, reports, clock.now(), file_import.id
        )
        return _judged(rows, outcomes)

    def _decide(self, stated: DispositionMapping) -> tuple[DispositionMapping, tuple[str, ...]]:
        """Complete the stated mapping from the rows, and return it with the names of what the rows leave open."""
        left_open: list[str] = []
        if stated.dates is None:
            order, undecided = decide_order(chain(self._cells("happened_at"), self._cells("starts_at")))
            stated = msgspec.structs.replace(stated, dates=order)
            left_open += ["dates"] * undecided
        if stated.decimal is None:
            decimal, undecided = decide_decimal(self._cells(VALUE), self._currency)
            stated = msgspec.structs.replace(stated, decimal=decimal)
            left_open += ["decimal"] * undecided
        return stated, tuple(left_open)

    def _cells(self, name: str) -> Iterable[str]:
        """Yield the cells of a column, if the file has it."""
        if name not in self._places:
            return ()
        place = self._places[name]
        return (line.cells[place] for line in self.table.lines() if line.cells)

    def _read_row(self, line: TableRow) -> DispositionRow:
        """Return the line's report, or the first fault in it."""
        if line.fault is not None:
            return DispositionRow(number=line.number, label="", fault=line.fault)
        cells = {name: text for name, cell in zip(self.header, line.cells, strict=True) if (text := cell.strip())}
        label = cells.get("lead_id", cells.get("assignment_id", ""))[:LONGEST_LABEL]
        try:
            document = self._document(cells)
        except _DispositionRefusal as refusal:
            return DispositionRow(number=line.number, label=label, fault=refusal.fault)
        report = read(msgspec.json.encode(document), ReportBody)
        if isinstance(report, tuple):
            return DispositionRow(number=line.number, label=label, fault=_row_fault(report[0]))
        lead_id, assignment_id = lead_ids(report)
        body = msgspec.structs.replace(report, event_id=report.event_id or _event(cells))
        return DispositionRow(
            number=line.number,
            label=label,
            report=DispositionReport(body=body, lead_id=lead_id, assignment_id=assignment_id),
        )

    def _document(self, cells: dict[str, str]) -> dict[str, str | int]:
        """Return the row as the JSON body of a report, with amounts, times and ids read. Raises _Refusal."""
        document: dict[str, str | int] = {name: text for name, text in cells.items() if name != VALUE}
        if "happened_at" not in cells:
            raise _DispositionRefusal(
                "happened_at", FaultCode.field_missing, "Write when it happened, such as 2026-11-21T10:00:00Z."
            )
        for name, text in cells.items():
            try:
                match name:
                    case "happened_at" | "starts_at":
                        moment = read_moment(text, self.mapping.dates or "iso", self._zone)
                        if moment.whole_day:
                            raise CellFault("time_missing", "Write the time of day too, such as 2026-11-21 14:05.")
                        document[name] = moment.at.isoformat()
                    case "value":
                        if "value_minor" in cells:
                            raise CellFault(
                                FaultCode.value_not_allowed, "Give the value once: as value, or as value_minor."
                            )
                        document["value_minor"] = read_amount(text, self._currency, self.mapping.decimal or ".")
                    case "value_minor":
                        document[name] = _read_integer(text)
                    case "lead_id" | "assignment_id" | "event_id":
                        document[name] = read_id(clean(text))
            except CellFault as fault:
                raise _DispositionRefusal(name, fault.code, fault.detail) from None
        return document


class Dispositions:
    """Importer of disposition files: opens one, and undoes an import."""

    async def open(
        self, pool: Pool, business_id: UUID, mode: str | None, raw: bytes, mapping: bytes
    ) -> DispositionFile:
        """Return the file `raw`, ready to be read by the stated `mapping` (JSON, or empty).

        Raises NotFound for an unknown business, InvalidInput for a header or mapping with faults, and the errors of
        Table.
        """
        async with session(pool) as connection:
            party = await feedback_store.find_money_and_zone(connection, business_id)
        if party is None:
            raise errors.NotFound("There is no such business.")
        stated = msgspec.json.decode(mapping, type=DispositionMapping) if mapping else DispositionMapping()
        holder = LeadHolder(business_id=business_id, mode=mode, actor="")

        def read_file() -> DispositionFile:
            return DispositionFile(Table(raw), stated, holder, *party)

        return await asyncio.to_thread(read_file)

    async def undo(self, connection: Connection, file_import: Import, most: int) -> int | None:
        """Undo up to `most` dispositions of the import, and return their number; None if none is left.

        Its reports that wait for a stage are deleted.
        """
        await stages_store.delete_unmapped_of_import(connection, file_import.id, file_import.business_id)
        undone = await feedback_store.undo_dispositions(
            connection, file_import.id, file_import.business_id, most, clock.now()
        )
        return undone or None


class _DispositionRefusal(Exception):
    """Raised for a cell that cannot be read; carries the fault of its row."""

    def __init__(self, field: str | None, code: str, detail: str) -> None:
        super().__init__(code)
        self.fault = RowFault(field=field, code=code, detail=detail)


def check_header(header: tuple[str, ...]) -> None:
    """Raise InvalidInput for columns that are unknown, named twice or missing."""
    faults = list(column_faults(header, COLUMNS))
    if not {"lead_id", "assignment_id"} & set(header):
        detail = "Add a column lead_id or assignment_id, which says which lead each row is about."
        faults.append(Fault(pointer="/lead_id", code=FaultCode.field_missing, detail=detail))
    if not {"kind", "stage"} & set(header):
        detail = "Add a column kind or stage, which says what became of each lead."
        faults.append(Fault(pointer="/kind", code=FaultCode.field_missing, detail=detail))
    if "happened_at" not in header:
        detail = "Add a column happened_at, which says when it happened, such as 2026-11-21T10:00:00Z."
        faults.append(Fault(pointer="/happened_at", code=FaultCode.field_missing, detail=detail))
    if faults:
        raise InvalidInput(faults[:100])


def _read_integer(text: str) -> int | str:
    """Return a whole number; any other text is returned as it is, and refused later as no number."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) <= LONGEST_DIGITS else text


def _event(cells: dict[str, str]) -> str:
    """Return an event id made of the row's content, so that the same row imported again is recorded once."""
    return f"csv:{sha256(msgspec.json.encode(sorted(cells.items()))).hexdigest()[:40]}"


def _row_fault(fault: Fault) -> RowFault:
    return RowFault(field=fault.pointer.removeprefix("/") or None, code=fault.code, detail=fault.detail)


def _judged(
    rows: Sequence[DispositionRow], outcomes: Sequence[RecordedDisposition | MarketplaceError]
) -> list[RowJudgement]:
    """Return the outcome of each row. `outcomes` are those of the rows that have a report, in order."""
    readable = iter(outcomes)
    judged = []
    for row in rows:
        fault, outcome = row.fault, RowOutcome.refused
        if fault is None:
            match next(readable):
                case RecordedDisposition(fresh=fresh):
                    outcome = RowOutcome.taken if fresh else RowOutcome.repeated
                case InvalidInput(faults=faults):
                    fault = _row_fault(faults[0])
                case refused:
                    problem = describe(refused, "")
                    fault = RowFault(field=None, code=problem.code, detail=problem.detail)
                    if isinstance(refused, errors.EventReused):
                        outcome = RowOutcome.conflict
        field, code, detail = (None, None, None) if fault is None else (fault.field, fault.code, fault.detail)
        judged.append(
            RowJudgement(number=row.number, outcome=outcome, label=row.label, field=field, code=code, detail=detail)
        )
    return judged
