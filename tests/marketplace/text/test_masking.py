"""Masked shapes of refused values."""

import pytest

from marketplace.text.masking import LONGEST, ending_of, shape_at, shape_of

DOCUMENT = {"contact": {"phone": "x1", "a/b~c": 7}, "touches": [{"at": None}, {"at": True}]}


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("+1 (312) 555-0142", "“+0 (000) 000-0000”"), ("Ann O'Neil", "“Xxx X'Xxxx”"), ("", "“”"),
        ("2026-11-21 10:00", "“0000-00-00 00:00”"), ("Ünal 中٣½", "“Xxxx x00”"), ("a\x00b\n\u202e", "“x·x·x”"),
        (12, "00"), (-1.5, "-0.0"), (None, "null"), (True, "true or false"), ([1, 2], "a list of 2"),
        ({"a": 1}, "an object of 1"),
    ],
)  # fmt: skip
def test_letters_and_digits_of_any_script_are_gone_and_the_rest_stays(value: object, shape: str) -> None:
    assert shape_of(value) == shape


def test_a_long_text_is_cut() -> None:
    assert shape_of("a" * 1_000) == f"“{'x' * LONGEST}…”"


@pytest.mark.parametrize(
    ("pointer", "shape"),
    [
        ("/contact/phone", "“x0”"), ("/contact/a~1b~0c", "0"), ("/touches/1/at", "true or false"),
        ("/touches/0/at", "null"), ("/touches/2/at", "nothing"), ("/touches/x", "nothing"),
        ("/contact/email", "nothing"), ("/contact/phone/deeper", "nothing"), ("", "an object of 2"),
    ],
)  # fmt: skip
def test_a_value_is_found_by_its_pointer(pointer: str, shape: str) -> None:
    assert shape_at(DOCUMENT, pointer) == shape


@pytest.mark.parametrize(
    ("number", "ending"),
    [
        ("+1 (312) 555-0147", "47"),
        ("٣١٢", "12"),
        ("12", ""),
        ("withheld", ""),
        ("", ""),
        ("312 555 0147 ext. 98", "47"),
        ("club 908 conyers", ""),
    ],
)
def test_two_digits_of_a_number_are_kept_unless_they_are_all_of_it(number: str, ending: str) -> None:
    assert ending_of(number) == ending
