"""Files of lists: phone numbers, e-mail addresses and SHA-256 hashes, read row by row into keys of persons.

A file is CSV with or without a header, of any length; one batch of it is in memory. A key is the first 16 bytes of the
keyed hash that intake stores for each lead. With 10,000,000 members, a lead is taken for another person with a
probability below 1e-30, so that half of the hash suffices.

A list asks less of a number than intake does: it must have a length that its country uses. A number that nobody has
matches no lead.
"""

import csv
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

import msgspec
import phonenumbers
from phonenumbers import ValidationResult

from marketplace.intake.contact import marks_of_email, marks_of_phone, read_email
from marketplace.runtime.errors import InvalidInput
from marketplace.security.sealing import Sealer
from marketplace.text.characters import read_number
from marketplace.text.faults import Fault, FaultCode

KEY_BYTES: Final = 16
BATCH_ROWS: Final = 20_000
"Rows of one transaction: about 80 ms of reading, and 2 MB."
LONGEST_ROW: Final = 4_096
"Limit of one row in bytes."
DELIMITERS: Final = (",", ";", "\t", "|")

_PHONE_COLUMNS: Final = ("phone", "phone_number", "phonenumber", "telephone", "mobile", "cell", "number", "msisdn")
_EMAIL_COLUMNS: Final = ("email", "e-mail", "email_address", "mail")
_HASH_COLUMNS: Final = ("hash", "sha256", "phone_sha256", "email_sha256", "hashed_phone", "hashed_email")
COLUMNS: Final = frozenset((*_PHONE_COLUMNS, *_EMAIL_COLUMNS, *_HASH_COLUMNS))
"Headings of columns that are read, in lower case; all other columns of a file with a header are left out."
AREA_COLUMNS: Final = (frozenset(("area", "area_code", "areacode")), frozenset(("number", "phone", "phone_number")))

_AMERICAN: Final = re.compile(r"(?:\+?1)?([2-9][0-9]{9})")
"A number of the North American plan without marks, which libphonenumber reads in this one way for US and CA."
_HASH: Final = re.compile(r"[0-9A-Fa-f]{64}")
_HASH_LIKE: Final = re.compile(r"[0-9A-Fa-f]{32,128}")


class ListRowFault(msgspec.Struct, frozen=True):
    """A row of a list that could not be read: its number in the file, and a code."""

    row: int
    code: str


class ListBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of some rows, with the number of those rows, how many of them were read, and the faults of the others.

    `text` are the bytes of the rows, and `last_row` is the number of the last one in the file. `is_cut`: it has no line
    end.
    """

    keys: list[bytes]
    rows: int
    readable: int
    faults: tuple[ListRowFault, ...]
    text: bytes
    last_row: int
    is_cut: bool = False


class RowReader:
    """Reader of the rows of one file. `country` is that of numbers in national form.

    `head` is the first line of the file, which decides about the delimiter and the columns. Raises InvalidInput for a
    header without a column that can be read.
    """

    def __init__(self, head: bytes, sealer: Sealer, country: str = "US") -> None:
        self._hash: Callable[[str, str], bytes] = sealer.keyed_hash
        self._country = country
        self._is_american = country in ("US", "CA")
        text = head.decode("utf-8-sig", errors="replace").strip()
        self._delimiter = max(DELIMITERS, key=text.count)
        cells = [cell.strip().casefold() for cell in self._split(text)]
        has_values = any(character.isdigit() or character == "@" for character in text)
        self.has_header = bool(text) and (not has_values or any(cell in COLUMNS for cell in cells))
        self._columns = _columns_of(cells) if self.has_header else None
        self._has_area = self.has_header and len(cells) >= 2 and _is_area_header(cells)

    def read(self, row: bytes) -> list[bytes] | str | None:
        """Return the keys of the persons in a row, a code of its fault, or None for a blank row."""
        if len(row) > LONGEST_ROW:
            return "row_too_long"
        try:
            text = row.decode().strip("\r\n \ufeff")
        except UnicodeDecodeError:
            return "not_utf8"
        if not text:
            return None
        american = _AMERICAN.fullmatch(text) if self._is_american else None
        if american:
            return [self._key(f"phone:+1{american[1]}")]
        return self._read_cells([cell.strip() for cell in self._split(text)])

    def _read_cells(self, cells: list[str]) -> list[bytes] | str | None:
        """Return what `read` returns, for the cells of a row.

        With a header each named cell must be readable; without one, a readable cell suffices, beside a name perhaps.
        """
        if len(cells) >= 2 and self._joins(cells):
            cells = [cells[0] + cells[1]]
        elif self._columns is not None:
            cells = [cells[column] for column in self._columns if column < len(cells)]
        marks = {cell: self.mark(cell) for cell in cells if cell}
        keys = [self._key(mark) for mark in marks.values() if mark is not None]
        unreadable = [cell for cell, mark in marks.items() if mark is None]
        if unreadable and (self._columns is not None or not keys):
            return _fault_code(unreadable[0])
        return keys or None

    def mark(self, cell: str) -> str | None:
        """Return the mark of a cell, in the form that intake compares; None for one that cannot be read."""
        if "@" in cell:
            email = read_email(cell)
            return None if isinstance(email, Fault) else marks_of_email(email.address)[0]
        if _HASH.fullmatch(cell):
            return f"sha256:{cell.lower()}"
        if _HASH_LIKE.fullmatch(cell) and not cell.isdecimal():
            return None
        american = _AMERICAN.fullmatch(cell) if self._is_american else None
        return f"phone:+1{american[1]}" if american else self._other_phone(cell)

    def _other_phone(self, text: str) -> str | None:
        number_text = read_number(text)
        if number_text is None:
            return None
        try:
            number = phonenumbers.parse(number_text.dialled, self._country)
        except phonenumbers.NumberParseException:
            return None
        if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
            return None
        return marks_of_phone(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))[0]

    def _key(self, mark: str) -> bytes:
        return self._hash("suppression", mark)[:KEY_BYTES]

    def _split(self, text: str) -> list[str]:
        if '"' in text:
            try:
                return next(csv.reader([text], delimiter=self._delimiter), [])
            except csv.Error:  # a line end within the row
                return [text]
        return text.split(self._delimiter)

    def _joins(self, cells: list[str]) -> bool:
        """Return whether the first two cells are an area code and a number, as in the national list of the US."""
        sizes = len(cells[0]), len(cells[1])
        is_pair = self._is_american and sizes == (3, 7) and cells[0].isdecimal() and cells[1].isdecimal()
        return is_pair and (self._columns is None or self._has_area)


def _columns_of(cells: list[str]) -> tuple[int, ...]:
    columns = tuple(place for place, name in enumerate(cells) if name.replace(" ", "_") in COLUMNS)
    if not columns:
        detail = "Name a column phone, email or sha256 in the header, or send a file without a header."
        raise InvalidInput((Fault(pointer="", code=FaultCode.field_missing, detail=detail),), detail)
    return columns


def _is_area_header(cells: list[str]) -> bool:
    areas, numbers = AREA_COLUMNS
    return cells[0].replace(" ", "_") in areas and cells[1].replace(" ", "_") in numbers


def _fault_code(cell: str) -> str:
    if "@" in cell:
        return "email_invalid"
    return "hash_invalid" if _HASH_LIKE.fullmatch(cell) and not cell.isdecimal() else "phone_invalid"


def read_batches(stream: BinaryIO, reader: RowReader, row: int, most_rows: int = BATCH_ROWS) -> Iterator[ListBatch]:
    """Yield the rows of a file from the stream's position on, which is the start of row `row` (the first is 1).

    Blank rows and the header are no rows of a list, and count as none. A row is never longer in memory than
    LONGEST_ROW.
    """
    number, has_more = row, True
    while has_more:
        keys: list[bytes] = []
        faults: list[ListRowFault] = []
        lines: list[bytes] = []
        rows = readable = 0
        line = b"\n"
        while len(lines) < most_rows and (line := stream.readline(LONGEST_ROW + 2)):
            lines.append(line)
            result = None if number == 1 and reader.has_header else reader.read(line)
            if len(line) > LONGEST_ROW and not line.endswith(b"\n"):
                lines.extend(_skip_row(stream))
            match result:
                case None:
                    pass
                case str(code):
                    faults.append(ListRowFault(number, code))
                    rows += 1
                case _:
                    keys += result
                    rows += 1
                    readable += 1
            number += 1
        has_more = bool(line)
        if lines:
            is_cut = not lines[-1].endswith(b"\n")
            yield ListBatch(
                keys=keys,
                rows=rows,
                readable=readable,
                faults=tuple(faults),
                text=b"".join(lines),
                last_row=number - 1,
                is_cut=is_cut,
            )


def _skip_row(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the remainder of a row that is too long, in parts."""
    while part := stream.readline(LONGEST_ROW):
        yield part
        if part.endswith(b"\n"):
            return
