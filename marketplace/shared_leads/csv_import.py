"""A file of shared leads, as any vendor exports it: columns are guessed or mapped, and a bad row harms no other.

Pure but for the clock's `now`, which is an argument: the preview and the import read a file in exactly the same way.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from marketplace.errors import BodyTooLarge, InvalidInput, UnreadableBody
from marketplace.faults import Code, Fault
from marketplace.shared_leads.wire import MOST_MINOR, REQUIRED, Field, Mapping, RefusedRow
from routing.subscription import is_zone

MOST_ROWS: Final = 20_000
SAMPLE: Final = 200
"Rows by which the spelling of dates is guessed."
LONGEST: Final = {"vendor": 100, "external_id": 100, "vertical": 40, "postal_code": 16}
WHOLE_UNITS: Final = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF")
)
"Currencies without cents (ISO 4217)."

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
}
"Headers by what they commonly say; the first column that fits a field is taken, and the preview shows which."
_DAY: Final = re.compile(
    r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?(?: ?([ap])\.?m\.?)?)?", re.I
)
_AMOUNT: Final = re.compile(r"\d{1,13}(\.\d{1,4})?")
_YES: Final = frozenset(("yes", "y", "true", "1", "x", "qualified"))
_NO: Final = frozenset(("no", "n", "false", "0", "unqualified", "not qualified"))


class SharedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was understood."""

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


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it was read."""

    mapping: Mapping
    header: tuple[str, ...]
    good: tuple[SharedRow, ...]
    refused: tuple[RefusedRow, ...]


class _Refusal(Exception):
    def __init__(self, field: str, code: str, detail: str) -> None:
        super().__init__(code)
        self.field, self.code, self.detail = field, code, detail


def read_file(
    raw: bytes, mapping: Mapping | None, zone: str, currency: str, verticals: frozenset[str], now: datetime
) -> File:
    """Every row, blank ones left out; columns and spellings are guessed where no `mapping` is given.

    Raises UnreadableBody for what is no CSV in UTF-8, InvalidInput for a mapping that does not fit, BodyTooLarge.
    """
    header, lines = _lines(raw)
    chosen = mapping or guess(header, [cells for _, cells in lines[:SAMPLE]], zone)
    _check(chosen, header)
    names: dict[str, str] = {field: name for field, name in chosen.columns.items()}
    good, refused = [], []
    for number, cells in lines:
        try:
            good.append(_row(number, header, cells, chosen, currency, verticals, now))
        except _Refusal as fault:
            column = names.get(fault.field)
            refused.append(RefusedRow(row=number, column=column, code=fault.code, detail=fault.detail))
    return File(mapping=chosen, header=header, good=tuple(good), refused=tuple(refused))


def _lines(raw: bytes) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    try:
        text = raw.decode("utf-8-sig")
        if "\0" in text:
            raise csv.Error
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        found = [cells for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        detail = "Send CSV in UTF-8 with a header line and quotes where a cell holds a comma, a quote or a line end."
        raise UnreadableBody((Fault(pointer="", code="csv_unreadable", detail=detail),), detail) from error
    header = tuple(name.strip() for name in found[0]) if found else ()
    if not any(header):
        detail = "Send a header line that names the columns."
        raise UnreadableBody((Fault(pointer="", code="csv_unreadable", detail=detail),), detail)
    lines = [(number, cells) for number, cells in enumerate(found[1:], 2) if any(cell.strip() for cell in cells)]
    if len(lines) > MOST_ROWS:
        raise BodyTooLarge(f"Send at most {MOST_ROWS:,} rows in one file.")
    return header, lines


def guess(header: Sequence[str], sample: Sequence[Sequence[str]], zone: str) -> Mapping:
    """The mapping that the names of the columns and the first rows suggest."""
    columns: dict[Field, str] = {}
    for field, pattern in GUESSES.items():
        names = [name for name in header if name and name not in columns.values()]
        exact = [name for name in names if name.lower() in (field, f"{field}_minor")]
        alike = [name for name in names if re.fullmatch(pattern, name.lower().replace("_", " "))]
        if exact or alike:
            columns[field] = (exact or alike)[0]

    def cells(*fields: Field) -> Iterator[str]:
        places = [header.index(columns[field]) for field in fields if field in columns]
        return (row[place].strip() for row in sample for place in places if place < len(row))

    days = [found for text in cells("received_at", "won_at", "contacted_at") if (found := _DAY.fullmatch(text))]
    american = zone.startswith("America/")
    if any(int(day[1]) > 12 for day in days):
        american = False
    elif any(int(day[2]) > 12 for day in days):
        american = True
    comma = any(re.search(r",\d{1,2}\D*$", text) for text in cells("cost", "won_value"))
    return Mapping(
        columns=columns, dates="iso" if not days else "mdy" if american else "dmy", decimal="," if comma else ".",
        zone=zone,
    )  # fmt: skip


def _check(mapping: Mapping, header: Sequence[str]) -> None:
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
        Fault(pointer=f"/columns/{field}", code=Code.field_missing, detail=f"Say which column holds the {field}.")
        for field in needed
        if field not in mapping.columns
    ]
    if not is_zone(mapping.zone):
        faults.append(Fault(pointer="/zone", code="zone_unknown", detail="Name an IANA zone such as America/Chicago."))
    if faults:
        raise InvalidInput(faults)


def _row(
    number: int, header: Sequence[str], cells: Sequence[str], mapping: Mapping, currency: str,
    verticals: frozenset[str], now: datetime,
) -> SharedRow:  # fmt: skip
    if len(cells) != len(header):
        detail = f"This row has {len(cells)} cells and the header {len(header)}; put cells with commas in quotes."
        raise _Refusal("", "cells_differ", detail)
    by_name = dict(zip(header, cells, strict=True))
    given: dict[str, str] = {field: by_name[name].strip() for field, name in mapping.columns.items()}
    for standing, usual in (("vendor", mapping.vendor), ("vertical", mapping.vertical)):
        given[standing] = given.get(standing) or usual or ""
    given = {field: text for field, text in given.items() if text}
    for field in ("vendor", *REQUIRED):
        if field not in given:
            raise _Refusal(field, Code.field_missing, f"Every row needs its {field}.")
    for field, limit in LONGEST.items():
        if len(given.get(field, "")) > limit:
            raise _Refusal(field, Code.too_long, f"At most {limit} characters.")
    vertical = given.get("vertical", "").lower() or None
    if vertical is not None and vertical not in verticals:
        raise _Refusal("vertical", "vertical_unknown", "There is no such vertical; leave the cell empty or name one.")
    received_at = _moment("received_at", given["received_at"], mapping, None)
    times = {
        field: _moment(field, given[field], mapping, received_at) if field in given else None
        for field in ("contacted_at", "won_at", "lost_at")
    }
    row = SharedRow(
        number=number, vendor=given["vendor"], external_id=given["external_id"], vertical=vertical,
        postal_code=given.get("postal_code"), received_at=received_at,
        cost_minor=_minor("cost", given["cost"], mapping, currency), qualified=_yes_or_no(given.get("qualified")),
        won_minor=_minor("won_value", given["won_value"], mapping, currency) if "won_value" in given else None,
        **times,
    )  # fmt: skip
    if row.won_at is None and not row.won_minor:
        row = msgspec.structs.replace(row, won_minor=None)  # a value of zero in the row of a lead that was not won
    if fault := order_fault(row, now):
        raise _Refusal(fault.pointer.strip("/"), fault.code, fault.detail)
    return row


def order_fault(lead: "SharedRow", now: datetime) -> Fault | None:
    """What cannot have been so: in the future, before receipt, won without a value, both won and lost."""
    if lead.received_at > now:
        return Fault(pointer="/received_at", code="in_future", detail="This lies in the future.")
    for field in ("contacted_at", "won_at", "lost_at"):
        at = getattr(lead, field)
        if at is not None and at > now:
            return Fault(pointer=f"/{field}", code="in_future", detail="This lies in the future.")
        if at is not None and at < lead.received_at:
            return Fault(pointer=f"/{field}", code="before_received", detail="This lies before the lead was received.")
    if (lead.won_at is None) != (lead.won_minor is None):
        field, detail = ("won_value", "Say what the job was worth.") if lead.won_at else ("won_at", "Say when.")
        return Fault(pointer=f"/{field}", code=Code.field_missing, detail=f"A win has a time and a value. {detail}")
    if lead.won_at is not None and lead.lost_at is not None:
        return Fault(pointer="/lost_at", code="won_and_lost", detail="A lead is won or lost, not both.")
    return None


def _moment(field: str, text: str, mapping: Mapping, received_at: datetime | None) -> datetime:
    """The moment that a cell means. A day without a time is its beginning, or the receipt's moment on the same day."""
    zone = ZoneInfo(mapping.zone)
    try:
        local = datetime.fromisoformat(text) if mapping.dates == "iso" else _of_day(text, mapping.dates == "mdy")
        moment = (local if local.tzinfo else local.replace(tzinfo=zone)).astimezone(UTC)
        whole_day = not re.search(r"\d:\d", text)
    except (ValueError, OverflowError) as error:
        like = {"iso": "2026-11-21 14:05", "mdy": "11/21/2026 2:05 pm", "dmy": "21.11.2026 14:05"}[mapping.dates]
        raise _Refusal(field, "date_invalid", f"Write it like {like}.") from error
    if received_at is not None and whole_day and moment < received_at:
        same_day = received_at.astimezone(zone).date() == moment.astimezone(zone).date()
        return received_at if same_day else moment
    return moment


def _of_day(text: str, month_first: bool) -> datetime:
    found = _DAY.fullmatch(text)
    if found is None:
        raise ValueError(text)
    month, day = (found[1], found[2]) if month_first else (found[2], found[1])
    hour = int(found[4] or 0)
    if found[7]:
        hour = hour % 12 + (12 if found[7].lower() == "p" else 0)
    return datetime(int(found[3]), int(month), int(day), hour, int(found[5] or 0), int(found[6] or 0))


def _minor(field: Literal["cost", "won_value"], text: str, mapping: Mapping, currency: str) -> int:
    """An amount in whole units, as people write it, in minor units; nothing is rounded away."""
    if mapping.columns.get(field, "").lower().endswith("_minor"):
        plain, digits = text, 0
    else:
        other = "," if mapping.decimal == "." else "."
        plain = re.sub(r"^[A-Z]{3} ?|^[$€£¥] ?| ?[$€£¥]$| ?[A-Z]{3}$", "", text).replace(other, "").replace(" ", "")
        plain, digits = plain.replace(mapping.decimal, "."), 0 if currency in WHOLE_UNITS else 2
    whole, _, cents = plain.partition(".")
    if not _AMOUNT.fullmatch(plain) or len(cents.rstrip("0")) > digits:
        raise _Refusal(field, "amount_invalid", "Write an amount such as 45.50, without words.")
    minor = int(whole + cents[:digits].ljust(digits, "0"))
    if minor > MOST_MINOR:
        raise _Refusal(field, Code.out_of_range, "This is more than any lead costs or brings.")
    return minor


def _yes_or_no(text: str | None) -> bool | None:
    if text is None:
        return None
    if text.lower() not in _YES | _NO:
        raise _Refusal("qualified", Code.value_not_allowed, "Write yes or no.")
    return text.lower() in _YES
