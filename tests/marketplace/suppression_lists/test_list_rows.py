"""Rows of lists: what is read in which format, and that the fast reading of numbers agrees with the slow one."""

from hashlib import sha256
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.intake.contact import Phone, marks_of_email, marks_of_phone, marks_with_hashes, read_phone
from marketplace.runtime.errors import InvalidInput
from marketplace.security.sealing import Sealer
from marketplace.suppression_lists.reading import KEY_BYTES, LONGEST_ROW, ListBatch, RowReader, read_batches

SEALER = Sealer(bytes(32), bytes(32))
PHONE, EMAIL = "phone:+13125550142", "email:janedoe@gmail.com"


def key(mark: str) -> bytes:
    return SEALER.keyed_hash("suppression", mark)[:KEY_BYTES]


def read(text: bytes, country: str = "US", most_rows: int = 1_000) -> list[ListBatch]:
    stream = BytesIO(text)
    reader = RowReader(text.split(b"\n", 1)[0], SEALER, country)
    return list(read_batches(stream, reader, 1, most_rows))


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("+13125550142", PHONE),
        ("3125550142", PHONE),
        ("13125550142", PHONE),
        ("(312) 555-0142", PHONE),
        ("+1 312.555.0142 x7", PHONE),
        ("312,5550142", PHONE),
        ('"(312) 555-0142"', PHONE),
        ("\ufeff3125550142", PHONE),
        ("Jane Doe,3125550142", PHONE),
        ("Jane.Doe+x@Gmail.com", EMAIL),
        (digest("+13125550142"), f"sha256:{digest('+13125550142')}"),
        (digest("+13125550142").upper(), f"sha256:{digest('+13125550142')}"),
        ("+44 7911 123456", "phone:+447911123456"),
    ],
)
def test_a_row_is_read_in_any_of_its_formats(text: str, mark: str) -> None:
    (batch,) = read(text.encode() + b"\n")
    assert (batch.keys, batch.rows, batch.readable, batch.faults) == ([key(mark)], 1, 1, ())


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"31255501", "phone_invalid"),
        (b"call me", "phone_invalid"),
        (b"jane@", "email_invalid"),
        (digest("x")[:40].encode(), "hash_invalid"),
        (b"\xff\xfe3125550142", "not_utf8"),
        (b'"a"\rb', "phone_invalid"),
        (b'"312', "phone_invalid"),
        (b"3" * (LONGEST_ROW + 10), "row_too_long"),
        (b"3" * (3 * LONGEST_ROW), "row_too_long"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_by_its_number_and_the_next_is_read(text: bytes, code: str) -> None:
    (batch,) = read(b"3125550142\n\n" + text + b"\n3125550143\n")
    assert [(fault.row, fault.code) for fault in batch.faults] == [(3, code)]
    assert (batch.rows, batch.readable) == (3, 2)
    assert batch.keys[1] == key("phone:+13125550143")


def test_a_header_says_which_columns_are_read() -> None:
    text = b"name;Phone Number;age;email\nJane;3125550142;44;jane@@x\nJoe;;5;\nAnn;12;1;ann@example.com\n"
    (batch,) = read(text)
    assert batch.rows == 2  # the row of Joe names nobody
    assert [(fault.row, fault.code) for fault in batch.faults] == [(2, "email_invalid"), (4, "phone_invalid")]
    with pytest.raises(InvalidInput):
        read(b"name,age\nJane,44\n")


def test_the_national_list_of_the_us_has_area_code_and_number_in_two_columns() -> None:
    for header in (b"", b"area_code,number\n"):
        (batch,) = read(header + b"312,5550142\n773,5550100\n")
        assert batch.keys == [key(PHONE), key("phone:+17735550100")]


def test_a_file_in_parts_has_the_same_keys_and_numbers() -> None:
    rows = [b"31255501%02d\n" % number if number % 7 else b"?\n" for number in range(100)]
    text = b"phone\n" + b"".join(rows)
    whole, parts = read(text), read(text, most_rows=9)
    assert [key for batch in parts for key in batch.keys] == [key for batch in whole for key in batch.keys]
    assert [fault for batch in parts for fault in batch.faults] == list(whole[0].faults)
    assert b"".join(batch.text for batch in parts) == text


def test_a_file_that_ends_within_a_row_says_so() -> None:
    assert [batch.is_cut for batch in read(b"3125550142\n31255", most_rows=1)] == [False, True]


@given(st.from_regex(r"(\+?1)?[2-9][0-9]{9}", fullmatch=True), st.sampled_from(("US", "CA")))
def test_the_fast_reading_of_american_numbers_is_that_of_intake(text: str, country: str) -> None:
    mark = RowReader(b"", SEALER, country).mark(text)
    phone = read_phone(text, country)
    if isinstance(phone, Phone):
        assert mark == marks_of_phone(phone.e164)[0]
    slow = RowReader(b"", SEALER, "US")._other_phone(text)
    assert mark == slow


def test_hashes_are_those_of_the_person_in_the_usual_forms() -> None:
    marks = marks_with_hashes((*marks_of_phone("+13125550142"), *marks_of_email("Jane.Doe@gmail.com")))
    for text in ("+13125550142", "13125550142", "jane.doe@gmail.com", "janedoe@gmail.com"):
        assert f"sha256:{digest(text)}" in marks
