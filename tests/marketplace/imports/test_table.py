"""CSV files from various programs: cells, blank rows, and limits."""

import contextlib
import time
from collections.abc import Callable

import pytest

from marketplace.imports.table import LARGEST_FILE, MOST_COLUMNS, Table
from marketplace.runtime.errors import BodyTooLarge, InvalidInput, UnreadableBody


def rows(raw: bytes) -> list[tuple[int, tuple[str, ...] | str]]:
    return [(line.number, line.fault.code if line.fault else line.cells) for line in Table(raw).lines()]


@pytest.mark.parametrize(
    ("raw", "header", "first"),
    [
        (b"a,b\n1,2\n", ("a", "b"), ("1", "2")),
        (b"a;b;c\n1,5;2;3\n", ("a", "b", "c"), ("1,5", "2", "3")),
        (b"a\tb\n1\t2\n", ("a", "b"), ("1", "2")),
        (b"a|b\r1|2\r", ("a", "b"), ("1", "2")),
        (b'"a;b;c;d",x\n1,2\n', ("a;b;c;d", "x"), ("1", "2")),
        (b'"Name; first, last";"Price"\n1;2\n', ("Name; first, last", "Price"), ("1", "2")),
        (b"sep=;\r\na;b\r\n1,5;2\r\n", ("a", "b"), ("1,5", "2")),
        (b"SEP=|\na,b|c\n1|2\n", ("a,b", "c"), ("1", "2")),
        ("\ufeffa,b\n1,2\n".encode(), ("a", "b"), ("1", "2")),
        ("\ufeffsep=;\na;b\n1,5;2\n".encode(), ("a", "b"), ("1,5", "2")),
        ("a\tb\n1\tè\n".encode("utf-16"), ("a", "b"), ("1", "è")),
        ("\ufeffa,b\n1,2\n".encode("utf-16-be"), ("a", "b"), ("1", "2")),
        (b"\r\n\r\na,b\n1,2\n", ("a", "b"), ("1", "2")),
        ("\u00a0a\u202f, b \n1,2\n".encode(), ("a", "b"), ("1", "2")),
        (b"a,b,,\n1,2,,\n", ("a", "b"), ("1", "2")),
        (b'5" pipe,price\nx,1\n', ('5" pipe', "price"), ("x", "1")),
    ],
)
def test_a_file_is_read_as_the_program_meant_that_wrote_it(
    raw: bytes, header: tuple[str, ...], first: tuple[str, ...]
) -> None:
    table = Table(raw)
    assert table.header == header
    assert [line.cells for line in table.lines()] == [first]
    assert table.rows == 1


def test_rows_may_leave_out_empty_cells_at_their_end_and_keep_their_numbers() -> None:
    raw = b'a,b,c\n1\n1,2,3,,\n\n ,\n1,2,3,4\n"x\ny",2\n'
    assert rows(raw) == [(2, ("1", "", "")), (3, ("1", "2", "3")), (6, "cells_differ"), (7, ("x\ny", "2", ""))]
    assert Table(raw).rows == 4


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "header line"),
        (b"\n\n", "header line"),
        (b"\xff\xfe", "header line"),
        (b"a,b\n\xe9,1\n", "Byte 5 is not UTF-8"),
        (b'a,b\n"1,2\n', "quotes"),
        (b"PK\x03\x04\x00", "another kind"),
        (b"a\0b,c\n1,2\n", "quotes"),
        (b"x" * 300_000, "quotes"),
        (b'a\n"' + b"x\n" * 200_000, "quotes"),
    ],
)
def test_what_is_no_table_is_refused_with_what_to_do(raw: bytes, words: str) -> None:
    with pytest.raises(UnreadableBody) as raised:
        Table(raw)
    assert words in raised.value.detail
    assert [fault.code for fault in raised.value.faults] == ["csv_unreadable"]


def test_columns_and_rows_are_bounded() -> None:
    for header in (b",".join(b"c%d" % number for number in range(30_000)), b",".join([b"same"] * 50_000)):
        with pytest.raises(InvalidInput) as raised:
            Table(header + b"\n")
        assert [fault.code for fault in raised.value.faults] == ["too_many_columns"]
    assert len(Table(b",".join([b"c"] * MOST_COLUMNS)).header) == MOST_COLUMNS
    with pytest.raises(BodyTooLarge):
        Table(b"a\n" + b"1\n" * 11, most_rows=10)


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "many rows": lambda size: b"a,b\n" + b"1,2\n" * (size // 4),
    "equal columns": lambda size: b",".join([b"same"] * (size // 5)),
    "quotes": lambda size: b"a,b\n" + b'"x""",1\n' * (size // 8),
    "open quote in the header": lambda size: b'"a,b\n' + b"x,\n" * (size // 3),
    "wide rows": lambda size: b"a,b\n" + (b'"\n"' + b"," * 20_000 + b"\n") * (size // 20_004),
    "blank rows": lambda size: b"a,b\n" + b" ,\n" * (size // 3),
    "separators": lambda size: b"sep=;" * (size // 5),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_reading_a_hostile_file_takes_time_in_proportion_to_its_size(kind: str) -> None:
    def seconds(size: int) -> float:
        raw, spent = HOSTILE[kind](size), []
        for _ in range(3):
            began = time.process_time()
            with contextlib.suppress(InvalidInput, BodyTooLarge):
                sum(1 for _ in Table(raw, most_rows=size).lines())
            spent.append(time.process_time() - began)
        return min(spent)

    small, large = seconds(LARGEST_FILE // 128), seconds(LARGEST_FILE // 32)
    assert large < 8 * small + 0.05  # four times the size; twice that is noise, sixteen times would be its square
