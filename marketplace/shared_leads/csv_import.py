"""Reader of a file of shared leads, as vendors export it. Columns are guessed or mapped; each row is read by itself.

`now` is an argument and nothing else is read from outside, so the preview and the import read a file identically.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Map
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from marketplace.imports.amounts import decide_decimal, name_currency, read_amount
from marketplace.imports.cells import CellFault, RowFault, check_characters, clean, read_id
from marketplace.imports.table import Table, TableRow
from marketplace.imports.times import EARLIEST, decide_order, read_moment
from marketplace.runtime.errors import InvalidInput
from marketplace.shared_leads.wire import REQUIRED, Field, SharedLeadMapping, Status
from marketplace.text.faults import Fault, FaultCode
from marketplace.text.values import MOST_MINOR
from routing.inquiry import CLOCK_TOLERANCE, is_later
from routing.subscription import is_zone

LONGEST: Final = {"vendor": 100, "external_id": 100, "vertical": 40, "postal_code": 16, "status": 100}
MOST_STATUSES: Final = 50
"Most unknown words of a status column that a preview lists."

GUESSES: Final[dict[Field, str]] = {
    "vendor": r"vendor|source|provider|bought from|supplier",
    "external_id": r"(external|lead|vendor|reference|order)?[ _-]*(id|ref|reference|number|no)",
    "vertical": r"vertical|service|category|trade|job type",
    "postal_code": r"zip|zip ?code|postal ?code|post ?code|plz",
    "received_at": r"received( at| on)?|created( at| on)?|date|lead date|purchased( at| on)?|timestamp",
    "cost": r"cost|price|lead (cost|price|fee)|amount|fee|charge[d]?|spend",
    "contacted_at": r"(first )?(contacted|contact|called|call)( at| on| date)?",
    "qualified": r"(is )?qualified",
    "won_at": r"(won|sold|closed won|converted)( at| on| date)?|sale date",
    "won_value": r"(won|sale|job|deal|contract)[ _]*(value|amount|total|minor)|revenue|value",
    "lost_at": r"(lost|closed lost|dead)( at| on| date)?",
    "status": r"(lead |job |deal )?(status|outcome|result|stage|disposition)",
    "currency": r"(currency|cur)( code)?",
}
"Common headings of each field. The first column that fits is used, and the preview shows it."
STATUSES: Final[dict[str, Status]] = {
    **dict.fromkeys(
        ("won", "closed won", "sold", "sale", "converted", "signed", "booked", "completed", "hired"), "won"
    ),
    **dict.fromkeys(("lost", "closed lost", "dead", "not sold", "no sale", "declined", "not interested"), "lost"),
    **dict.fromkeys(
        ("open", "new", "pending", "in progress", "contacted", "quoted", "working", "scheduled", "follow up", "active"),
        "open",
    ),
}
"Words of a status column with a generally known meaning. The mapping gives the meaning of others."
_YES: Final = frozenset(("yes", "y", "true", "1", "x", "qualified"))
_NO: Final = frozenset(("no", "n", "false", "0", "unqualified", "not qualified"))
_NAMED_CURRENCY: Final = re.compile(r"^(.+?)[ _]*[(\[]([^)\]]{1,8})[)\]]$|^(.+?)[ _]([A-Za-z]{3}|[$€£¥])$")


class SharedLeadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A valid row. A win whose day is unknown has a value and no `won_at`; `lost` is a loss whose day is unknown."""

    number: int
    vendor: str
    external_id: str
    vertical: str | None
    postal_code: str | None
    received_at: datetime
    cost_minor: int
    contacted_at: datetime | None = None
    qualified: bool | None = None
    won_at: datetime | None = None
    won_minor: int | None = None
    lost_at: datetime | None = None
    lost: bool = False


class SharedLeadRowFault(msgspec.Struct, frozen=True, kw_only=True):
    """A row with a fault. `won` is true if it says that the lead was won."""

    number: int
    label: str
    fault: RowFault
    won: bool = False


class _SharedLeadRefusal(Exception):
    def __init__(self, field: str | None, code: str, detail: str) -> None:
        super().__init__(code)
        self.fault = RowFault(field=field, code=code, detail=detail)


class SharedLeadReader:
    """Reads the rows of one table by one mapping. What the mapping leaves out is guessed or decided from the rows.

    `open_questions` names what the rows do not decide; `unknown_statuses` fills as rows are read. Raises InvalidInput
    for a mapping that does not fit the file.
    """

    def __init__(
        self,
        table: Table,
        mapping: SharedLeadMapping | None,
        zone: str,
        currency: str,
        verticals: frozenset[str],
        now: datetime,
    ) -> None:
        self.table, self._currency, self._verticals, self._now = table, currency, verticals, now
        stated = mapping or SharedLeadMapping(columns=guess(table.header), zone=zone)
        check_mapping(stated, table.header)
        self._places: dict[str, int] = {field: table.header.index(name) for field, name in stated.columns.items()}
        self.mapping, self.open_questions = self._decide(stated)
        self._zone = ZoneInfo(self.mapping.zone)
        self._statuses = STATUSES | {clean(word).lower(): meaning for word, meaning in stated.statuses.items()}
        self._column_fault = self._other_currency()
        self.unknown_statuses: dict[str, None] = {}

    def read(self, lines: Iterable[TableRow]) -> list[SharedLeadRow | SharedLeadRowFault]:
        """Return each row as understood, or its fault, in the order of the lines."""
        return [self._read(line) for line in lines]

    def _read(self, line: TableRow) -> SharedLeadRow | SharedLeadRowFault:
        if line.fault is not None:
            return SharedLeadRowFault(number=line.number, label="", fault=line.fault)
        cells = {field: clean(line.cells[place]) for field, place in self._places.items()}
        try:
            return self._row(line.number, cells)
        except _SharedLeadRefusal as refusal:
            won = bool(cells.get("won_at")) or self._statuses.get(cells.get("status", "").lower()) == "won"
            return SharedLeadRowFault(
                number=line.number, label=cells.get("external_id", "")[:100], fault=refusal.fault, won=won
            )

    def _decide(self, stated: SharedLeadMapping) -> tuple[SharedLeadMapping, tuple[str, ...]]:
        """Decide the order of dates and the decimal mark from all rows; return the mapping and what stays undecided."""
        days = [
            self._places[field]
            for field in ("received_at", "won_at", "contacted_at", "lost_at")
            if field in self._places
        ]
        amounts = [
            self._places[field]
            for field in ("cost", "won_value")
            if field in self._places and not _is_minor(stated.columns[field])
        ]
        undecided_fields: list[str] = []
        if stated.dates is None:
            order, undecided = decide_order(self._cells(days))
            stated = msgspec.structs.replace(stated, dates=order)
            undecided_fields += ["dates"] * undecided
        if stated.decimal is None:
            decimal, undecided = decide_decimal(self._cells(amounts), self._currency)
            stated = msgspec.structs.replace(stated, decimal=decimal)
            undecided_fields += ["decimal"] * undecided
        return stated, tuple(undecided_fields)

    def _cells(self, places: Sequence[int]) -> Iterator[str]:
        return (line.cells[place] for line in self.table.lines() if line.cells for place in places)

    def _other_currency(self) -> RowFault | None:
        """Return a fault of all rows if the heading of an amount names another currency."""
        for field in ("cost", "won_value"):
            place = self._places.get(field)
            currencies = None if place is None else _heading(self.table.header[place])[1]
            if currencies is not None and self._currency not in currencies:
                detail = f"The heading names another currency. Give amounts in {self._currency}, the wallet's currency."
                return RowFault(field=field, code="currency_differs", detail=detail)
        return None

    def _row(self, number: int, cells: Map[str, str]) -> SharedLeadRow:
        texts = {field: text for field, text in cells.items() if text}
        self._complete(texts)
        self._check_texts(texts)
        received_at = self._moment("received_at", texts, None)
        assert received_at is not None
        won_at, lost_at = self._moment("won_at", texts, received_at), self._moment("lost_at", texts, received_at)
        won, lost = self._end(texts.get("status"), won_at, lost_at, texts)
        value = self._amount("won_value", texts["won_value"]) if won and "won_value" in texts else None
        row = SharedLeadRow(
            number=number,
            vendor=texts["vendor"],
            external_id=texts["external_id"],
            vertical=texts.get("vertical", "").lower() or None,
            postal_code=texts.get("postal_code"),
            received_at=received_at,
            cost_minor=self._amount("cost", texts["cost"]),
            contacted_at=self._moment("contacted_at", texts, received_at),
            qualified=_yes_or_no(texts.get("qualified")),
            won_at=won_at,
            won_minor=value,
            lost_at=lost_at,
            lost=lost and lost_at is None,
        )
        if won and value is None:
            raise _SharedLeadRefusal(
                "won_value", FaultCode.field_missing, "A win has a value. Say what the job was worth."
            )
        if fault := subscription_fault(row, self._now):
            raise _SharedLeadRefusal(fault.pointer.strip("/"), fault.code, fault.detail)
        return row

    def _complete(self, texts: dict[str, str]) -> None:
        """Add the vendor and vertical of the mapping. Raises _Refusal for a required field without a value."""
        for field, default in (("vendor", self.mapping.vendor), ("vertical", self.mapping.vertical)):
            if field not in texts and default:
                texts[field] = default
        for field in ("vendor", *REQUIRED):
            if field not in texts:
                raise _SharedLeadRefusal(field, FaultCode.field_missing, f"Every row needs its {field}.")

    def _check_texts(self, texts: Map[str, str]) -> None:
        for field, text in texts.items():
            try:
                check_characters(text)
                if field in ("external_id", "postal_code", "vendor"):
                    read_id(text)
            except CellFault as fault:
                raise _SharedLeadRefusal(field, fault.code, fault.detail) from None
            if len(text) > LONGEST.get(field, len(text)):
                raise _SharedLeadRefusal(field, FaultCode.too_long, f"At most {LONGEST[field]} characters.")
        if (vertical := texts.get("vertical")) is not None and vertical.lower() not in self._verticals:
            detail = "There is no such vertical; leave the cell empty or name one."
            raise _SharedLeadRefusal("vertical", "vertical_unknown", detail)
        currencies = name_currency(texts["currency"]) if "currency" in texts else frozenset((self._currency,))
        if currencies is None or self._currency not in currencies:
            detail = f"This is in another currency. Give amounts in {self._currency}, the wallet's currency."
            raise _SharedLeadRefusal("currency", "currency_differs", detail)
        if self._column_fault is not None:
            raise _SharedLeadRefusal(self._column_fault.field, self._column_fault.code, self._column_fault.detail)

    def _end(
        self, status: str | None, won_at: datetime | None, lost_at: datetime | None, texts: Map[str, str]
    ) -> tuple[bool, bool]:
        """Return whether the lead was won and whether it was lost.

        Without a status, a lead with a value above zero that was not lost was won, even if the day is unknown. With a
        status, the value of a lead that was not won is an expected one and is ignored.
        """
        if status is None:
            value = self._amount("won_value", texts["won_value"]) if "won_value" in texts else 0
            won = won_at is not None or (lost_at is None and value > 0)
            return won, lost_at is not None
        meaning = self._statuses.get(status.lower())
        if meaning is None:
            if len(self.unknown_statuses) < MOST_STATUSES:
                self.unknown_statuses[status] = None
            raise _SharedLeadRefusal(
                "status", "status_unknown", "Say in the mapping what this status means: won, lost or open."
            )
        if (won_at is not None and meaning != "won") or (lost_at is not None and meaning != "lost"):
            raise _SharedLeadRefusal("status", "status_contradicts", "The status and the dates contradict each other.")
        return meaning == "won", meaning == "lost"

    def _moment(self, field: str, texts: Map[str, str], received_at: datetime | None) -> datetime | None:
        """Return the time in a cell. A day alone means its start, or the time of receipt if that is on the same day."""
        if field not in texts:
            return None
        try:
            moment = read_moment(texts[field], self.mapping.dates or "iso", self._zone)
        except CellFault as fault:
            raise _SharedLeadRefusal(field, fault.code, fault.detail) from None
        if received_at is not None and moment.whole_day and moment.at < received_at:
            same_day = received_at.astimezone(self._zone).date() == moment.at.astimezone(self._zone).date()
            return received_at if same_day else moment.at
        return moment.at

    def _amount(self, field: Field, text: str) -> int:
        try:
            if not _is_minor(self.mapping.columns[field]):
                return read_amount(text, self._currency, self.mapping.decimal or ".")
            if not (text.isascii() and text.isdecimal() and len(text) <= 15):
                raise CellFault("amount_invalid", "Write a whole number of the smallest unit, such as 4550.")
            if int(text) > MOST_MINOR:
                raise CellFault(FaultCode.out_of_range, "This is more than any lead costs or brings.")
        except CellFault as fault:
            raise _SharedLeadRefusal(field, fault.code, fault.detail) from None
        return int(text)


def guess(header: Sequence[str]) -> dict[Field, str]:
    """Return the column of each field, guessed from the headings."""
    columns: dict[Field, str] = {}
    for field, pattern in GUESSES.items():
        names = [name for name in header if name and name not in columns.values()]
        exact = [name for name in names if name.lower() in (field, f"{field}_minor")]
        alike = [name for name in names if re.fullmatch(pattern, _heading(name)[0].lower().replace("_", " "))]
        if exact or alike:
            columns[field] = (exact or alike)[0]
    return columns


def check_mapping(mapping: SharedLeadMapping, header: Sequence[str]) -> None:
    """Check a mapping against a file.

    Raises InvalidInput for columns that are missing or repeated in the file, for required fields without a column, and
    for an unknown time zone.
    """
    faults = [
        Fault(pointer=f"/columns/{field}", code="column_missing", detail=f"The file has no column “{name[:100]}”.")
        for field, name in mapping.columns.items()
        if name not in header
    ]
    repeated = {name for name in mapping.columns.values() if header.count(name) > 1}
    faults += [
        Fault(pointer="/columns", code="column_repeated", detail=f"The file has several columns “{name[:100]}”.")
        for name in sorted(repeated)
    ]
    needed = (*REQUIRED, *(() if mapping.vendor else ("vendor",)))
    faults += [
        Fault(pointer=f"/columns/{field}", code=FaultCode.field_missing, detail=f"Say which column holds the {field}.")
        for field in needed
        if field not in mapping.columns
    ]
    if not is_zone(mapping.zone):
        faults.append(Fault(pointer="/zone", code="zone_unknown", detail="Name an IANA zone such as America/Chicago."))
    if faults:
        raise InvalidInput(faults)


def subscription_fault(lead: SharedLeadRow, now: datetime) -> Fault | None:
    """Return the first impossible thing: a future time, a time before receipt, a win without value, or won and lost."""
    if is_later(lead.received_at, now, CLOCK_TOLERANCE):
        return Fault(pointer="/received_at", code="in_future", detail="This lies in the future.")
    if lead.received_at < EARLIEST:
        return Fault(pointer="/received_at", code=FaultCode.out_of_range, detail="This is before the year 2000.")
    for field in ("contacted_at", "won_at", "lost_at"):
        at = getattr(lead, field)
        if at is not None and is_later(at, now, CLOCK_TOLERANCE):
            return Fault(pointer=f"/{field}", code="in_future", detail="This lies in the future.")
        if at is not None and at < lead.received_at:
            return Fault(pointer=f"/{field}", code="before_received", detail="This lies before the lead was received.")
    if lead.won_at is not None and lead.won_minor is None:
        detail = "A win has a value. Say what the job was worth."
        return Fault(pointer="/won_value", code=FaultCode.field_missing, detail=detail)
    if lead.won_minor is not None and (lead.lost_at is not None or lead.lost):
        return Fault(pointer="/lost_at", code="won_and_lost", detail="A lead is won or lost, not both.")
    return None


def _is_minor(name: str) -> bool:
    return name.lower().endswith("_minor")


def _heading(name: str) -> tuple[str, frozenset[str] | None]:
    """Split a heading such as `Price (EUR)`, `cost_usd` or `Value €` into its words and the currencies it may name."""
    match = _NAMED_CURRENCY.fullmatch(name)
    if match is None:
        return name, None
    words, mark = (match[1], match[2]) if match[1] else (match[3], match[4])
    currencies = name_currency(mark) if len(mark) == 3 or not mark.isalpha() else None
    return (words, currencies) if currencies is not None else (name, None)


def _yes_or_no(text: str | None) -> bool | None:
    if text is None:
        return None
    if text.lower() not in _YES | _NO:
        raise _SharedLeadRefusal("qualified", FaultCode.value_not_allowed, "Write yes or no.")
    return text.lower() in _YES
