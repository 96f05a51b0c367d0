"""Read the rows of a CSV file from any program, one after the other, so that a large file is never in memory as rows.

The whole file is read once before the first row is yielded, so that nothing is imported from a file with a broken end.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from marketplace.imports.cells import RowFault, clean
from marketplace.runtime.errors import BodyTooLarge, InvalidInput, UnreadableBody
from marketplace.text.faults import Fault, FaultCode

LARGEST_FILE: Final = 16 * 2**20
"Limit of a file in bytes: 100,000 rows of 160 bytes."
MOST_ROWS: Final = 100_000
MOST_COLUMNS: Final = 200
LONGEST_ROW: Final = 262_144
"Limit of characters of one row, with its line ends; the csv module limits each cell to 131,072."
HEAD: Final = 65_536
"Number of characters at the beginning of the file from which the delimiter is detected."
DELIMITERS: Final = ",;\t|"

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHER_KINDS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"%PDF", b"\x1f\x8b")
_QUOTED: Final = re.compile(r'(?:(?<=[,;\t|\r\n])|^)"(?:[^"]++|"")*+"?')
_SEPARATOR_LINE: Final = re.compile(r'"?sep=([^\r\n"])"?[,;\t|]*(?:\r\n|\r|\n)', re.IGNORECASE)
ADVICE: Final = "Send CSV in UTF-8 with a header line and quotes where a cell holds a comma, a quote or a line end."


class TableRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row: its number in the file (the first record is 1), and a cell for each column, or the row's fault."""

    number: int
    cells: tuple[str, ...] = ()
    fault: RowFault | None = None


class Table:
    """A CSV file that was read to its end once: its header, and the number of its rows without blank ones.

    Raises UnreadableBody (`csv_unreadable`) if it is not CSV, InvalidInput (`too_many_columns`), and BodyTooLarge for
    more than `most_rows`.
    """

    def __init__(
        self, raw: bytes, *, encoding: str | None = None, delimiter: str | None = None, most_rows: int = MOST_ROWS
    ) -> None:
        if raw.startswith(_OTHER_KINDS):
            raise unreadable(
                "This is no CSV but another kind of file, such as a workbook. Save it as CSV and send that."
            )
        self._raw = raw
        self._encoding = encoding or next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
        if self._encoding == "utf-8" and raw.startswith(codecs.BOM_UTF8):
            self._encoding = "utf-8-sig"
        try:
            head = self._text().read(HEAD)
            separator = _SEPARATOR_LINE.match(head)
            self._skipped = separator.end() if separator else 0
            self._delimiter = delimiter or (separator[1] if separator else _delimiter(head[self._skipped :]))
            self.header, self.rows = self._examine(most_rows)
        except UnicodeError as error:
            raise unreadable(self._encoding_advice()) from error
        except csv.Error as error:
            raise unreadable(ADVICE) from error

    def lines(self) -> Iterator[TableRow]:
        """Yield every row that is not blank. A row may lack cells at its end, or have additional empty ones."""
        width = len(self.header)
        for number, cells in self._records():
            if number <= self._header_number or is_blank(cells):
                continue
            if len(cells) > width and not is_blank(cells[width:]):
                detail = f"This row has {len(cells)} cells and the header {width}; put cells with commas in quotes."
                yield TableRow(number=number, fault=RowFault(field=None, code="cells_differ", detail=detail))
                continue
            yield TableRow(number=number, cells=(*cells[:width], *("",) * (width - len(cells))))

    def _text(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(self._raw), self._encoding, newline="")

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each record with its number. Raises UnreadableBody for one longer than LONGEST_ROW."""
        text, length = self._text(), 0
        text.read(self._skipped)

        def physical_lines() -> Iterator[str]:
            nonlocal length
            while line := text.readline(LONGEST_ROW + 1):
                length += len(line)
                if length > LONGEST_ROW:
                    raise unreadable(
                        f"A row has more than {LONGEST_ROW:,} characters. Check that all quotes are closed."
                    )
                yield line

        reader = csv.reader(physical_lines(), delimiter=self._delimiter, strict=True)
        for number, cells in enumerate(reader, 1):
            length = 0
            yield number, cells

    def _examine(self, most_rows: int) -> tuple[tuple[str, ...], int]:
        """Read the whole file, and return its header and the number of its rows."""
        records = self._records()
        self._header_number, first = next((record for record in records if not is_blank(record[1])), (1, []))
        if any("\0" in name for name in first):
            raise csv.Error
        names = [clean(name) for name in first]
        while names and not names[-1]:
            names.pop()
        if not names:
            raise unreadable("Send a header line that names the columns.")
        if len(names) > MOST_COLUMNS:
            fault = Fault(pointer="", code="too_many_columns", detail=f"Send at most {MOST_COLUMNS} columns.")
            raise InvalidInput((fault,))
        rows = 0
        for _, cells in records:
            rows += not is_blank(cells)
            if rows > most_rows:
                raise BodyTooLarge(f"Send at most {most_rows:,} rows in one file.")
        return tuple(names), rows

    def _encoding_advice(self) -> str:
        """Return a sentence that names the first byte which is not in the file's encoding."""
        try:
            self._raw.decode(self._encoding)
        except UnicodeDecodeError as error:
            place = f"Byte {error.start + 1:,} is not {self._encoding.removesuffix('-sig').upper()}."
            return f"{place} Save the file as “CSV UTF-8” and send that."
        return ADVICE


def is_blank(cells: list[str]) -> bool:
    """Return whether all cells are empty; a row with more than MOST_COLUMNS cells counts as not blank."""
    return len(cells) <= MOST_COLUMNS and not (any(cells) and any(map(clean, cells)))


def unreadable(detail: str) -> UnreadableBody:
    """Return the error for a file that is not CSV."""
    return UnreadableBody((Fault(pointer="", code="csv_unreadable", detail=detail),), detail)


def column_faults(header: tuple[str, ...], allowed: frozenset[str]) -> tuple[Fault, ...]:
    """Return one fault for each column that is not `allowed`, or that is named a second time."""
    earlier: set[str] = set()
    faults = []
    detail = f"Name each column once, among {', '.join(sorted(allowed))}."
    for place, name in enumerate(header):
        if name not in allowed or name in earlier:
            faults.append(Fault(pointer=f"/{place}", code=FaultCode.unknown_field, detail=detail))
        earlier.add(name)
    return tuple(faults)


def _delimiter(head: str) -> str:
    """Return the delimiter that occurs most often in the header, outside of quotes; a comma if none occurs."""
    header = re.split(r"[\r\n]", _QUOTED.sub("", head.lstrip("\r\n")), maxsplit=1)[0]
    return max(DELIMITERS, key=header.count)
