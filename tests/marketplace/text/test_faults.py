import json
from datetime import date, datetime
from enum import StrEnum
from time import process_time
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from marketplace.runtime.errors import InvalidInput
from marketplace.text.faults import MAXIMUM_FAULTS, BoundedList, Fault, pointer, read

MARK = "zq7f3a"
"In every value that no sentence may repeat, and in no sentence of ours."


class Colour(StrEnum):
    red = "red"
    green = "green"


class Fixed(msgspec.Struct, frozen=True, kw_only=True, tag="fixed", forbid_unknown_fields=True):
    minor: Annotated[int, Meta(ge=0)]


class Share(msgspec.Struct, frozen=True, kw_only=True, tag="share", forbid_unknown_fields=True):
    percent: int


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1, le=10)]
    name: Annotated[str, Meta(min_length=1, max_length=5)] = "x"


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str = ""
    code: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "ABC"
    ratio: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    flag: bool = False
    at: Annotated[datetime, Meta(tz=True)] | None = None
    day: date | None = None
    key: UUID | None = None
    colour: Colour | None = None
    size: Literal["s", "m"] = "s"
    part: Part | None = None
    parts: Annotated[tuple[Part, ...], Meta(max_length=3)] = ()
    pairs: Annotated[dict[Annotated[str, Meta(max_length=3)], str | int | bool], Meta(max_length=2)] = {}
    colours: dict[Colour, int] = {}
    payout: Fixed | Share | None = None
    free: Any = None


class Rising(msgspec.Struct, frozen=True, kw_only=True):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("Low must not lie above high.")


class Outer(msgspec.Struct, frozen=True, kw_only=True):
    ranges: tuple[Rising, ...] = ()


def faults(raw: bytes | dict[str, Any], shape: type[msgspec.Struct] = Body) -> list[tuple[str, str]]:
    outcome = read(raw if isinstance(raw, bytes) else json.dumps(raw).encode(), shape)
    return [(fault.pointer, fault.code) for fault in outcome] if isinstance(outcome, tuple) else []


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "json_invalid"),
        (b"{", "json_invalid"),
        (b'{"text":"\xff"}', "json_invalid"),
        (b'{"text":"a\nb"}', "json_invalid"),
        (b'\xef\xbb\xbf{"text":"a"}', "json_invalid"),
        (b'{"text":"a"} x', "json_invalid"),
        (b"[]", "body_not_object"),
        (b'"text"', "body_not_object"),
        (b"null", "body_not_object"),
        (b"[" * 5_000, "json_too_deep"),
        (b'{"free":' * 21 + b"1" + b"}" * 21, "json_too_deep"),
        (b'{"free":{' + b",".join(b'"k%d":1' % n for n in range(200)) + b"}}", "json_too_many_keys"),
    ],
)
def test_a_document_that_cannot_be_read_has_one_fault_of_the_whole(raw: bytes, code: str) -> None:
    outcome = read(raw, Body)
    assert isinstance(outcome, tuple)
    assert [(fault.pointer, fault.code, fault.unreadable) for fault in outcome] == [("", code, True)]


@pytest.mark.parametrize(
    ("raw", "places"),
    [
        pytest.param(b'{"text":"a","text":"b"}', ["/text"], id="twice"),
        pytest.param(b'{"text":"a","text":"a","text":"a"}', ["/text", "/text"], id="three times, with one value"),
        pytest.param(b'{"text":"a","te\\u0078t":"b"}', ["/text"], id="in another spelling"),
        pytest.param(b'{"part":{"count":1,"count":2}}', ["/part/count"], id="in an object"),
        pytest.param(b'{"parts":[{"count":1},{"count":1,"coun\\u0074":2}]}', ["/parts/1/count"], id="in a list"),
        pytest.param(b'{"free":[[{"a":{"b":1,"b":2}}]]}', ["/free/0/0/a/b"], id="in what is not read"),
        pytest.param(b'{"pairs":{"a":1,"a":1},"price":0}', ["/pairs/a"], id="beside another fault"),
        pytest.param(b'{"nobody":1,"nobody":2}', ["/nobody"], id="unknown as well"),
        pytest.param(b'{"":1,"":2}', ["/"], id="an empty key"),
    ],
)
def test_a_key_that_an_object_has_twice_is_told_with_its_place(raw: bytes, places: list[str]) -> None:
    outcome = read(raw, Body)
    assert isinstance(outcome, tuple)
    assert [(fault.pointer, fault.code, fault.unreadable) for fault in outcome] == [
        (place, "json_duplicate_key", True) for place in places
    ]


def test_the_same_key_in_two_objects_is_none_that_comes_twice() -> None:
    assert isinstance(read(b'{"part":{"count":1},"parts":[{"count":1},{"count":2}],"free":{"part":1}}', Body), Body)


@pytest.mark.parametrize("year", ["1971", "1999", "2000", "2026", "2999"])
def test_every_year_that_the_rules_can_compute_with_is_taken(year: str) -> None:
    assert isinstance(read(b'{"day":"%b-01-01","at":"%b-12-31T23:59:59+14:00"}' % ((year.encode(),) * 2), Body), Body)


def test_a_year_cannot_hide_behind_an_escape() -> None:
    assert faults(b'{"day":"\\u0030001-01-01"}') == [("/day", "out_of_range")]


def test_no_more_than_a_hundred_faults_leave_however_many_are_found() -> None:
    many = [Fault(pointer=f"/{number}", code="x", detail="Mend it.") for number in range(200_000)]
    for offered in (many, tuple(many), iter(many), BoundedList(many)):
        error = InvalidInput(offered)
        assert (len(error.faults), error.faults[0]) == (MAXIMUM_FAULTS, many[0])
        assert error.detail == "More than 100 fields need attention."
    assert InvalidInput(many[:MAXIMUM_FAULTS]).detail == "100 fields need attention."


def test_a_bounded_list_keeps_the_first_and_counts_the_others() -> None:
    bounded = BoundedList[int](most=3)
    for number in range(10):
        assert bounded.is_full == (number >= 3)
        bounded.append(number)
    assert (list(bounded), len(bounded), bounded.left_out) == ([0, 1, 2], 3, 7)
    endless = BoundedList(iter(int, 1), most=2)
    assert (list(endless), endless.left_out) == ([0, 0], 1)


def test_marks_inside_strings_count_neither_as_depth_nor_as_keys() -> None:
    text = '[{"\\' * 100 + ":" * 1_000
    outcome = read(json.dumps({"text": text}).encode(), Body)
    assert isinstance(outcome, Body)
    assert outcome.text == text


@pytest.mark.parametrize("raw", [b'{"text":"' + b'\\"' * 32_000, b'"' * 65_000, b"[" * 65_000, b"9" * 65_000])
def test_a_hostile_body_costs_time_in_proportion_to_its_size(raw: bytes) -> None:
    started = process_time()
    assert faults(raw)
    assert process_time() - started < 2  # where each byte cost as much as all before it, it would be minutes


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"price": 0}, ("/price", "unknown_field")),
        ({"part": {}}, ("/part/count", "field_missing")),
        ({"part": []}, ("/part", "type_wrong")),
        ({"part": {"count": True}}, ("/part/count", "type_wrong")),
        ({"part": {"count": 1.5}}, ("/part/count", "type_wrong")),
        ({"part": {"count": 11}}, ("/part/count", "out_of_range")),
        ({"part": {"count": 10**26}}, ("/part/count", "out_of_range")),
        ({"part": {"count": 1, "name": "abcdef"}}, ("/part/name", "too_long")),
        ({"part": {"count": 1, "name": ""}}, ("/part/name", "value_not_allowed")),
        ({"text": None}, ("/text", "type_wrong")),
        ({"code": "abc"}, ("/code", "value_not_allowed")),
        ({"ratio": 1}, ("/ratio", "out_of_range")),
        ({"ratio": "1"}, ("/ratio", "type_wrong")),
        ({"flag": 1}, ("/flag", "type_wrong")),
        ({"at": "yesterday"}, ("/at", "type_wrong")),
        ({"at": "2026-11-21T10:00:00"}, ("/at", "offset_missing")),
        ({"at": "2016-12-31T23:59:60Z"}, ("/at", "type_wrong")),
        ({"day": "2026-02-30"}, ("/day", "type_wrong")),
        ({"day": "0001-01-01"}, ("/day", "out_of_range")),
        ({"day": "1970-12-31"}, ("/day", "out_of_range")),
        ({"day": "3000-01-01"}, ("/day", "out_of_range")),
        ({"day": "9999-12-31"}, ("/day", "out_of_range")),
        ({"at": "0001-01-01T00:00:00+14:00"}, ("/at", "out_of_range")),
        ({"at": "9999-12-31T23:59:59-12:00"}, ("/at", "out_of_range")),
        ({"at": "1066-10-14 09:00:00Z"}, ("/at", "out_of_range")),
        ({"key": "1"}, ("/key", "type_wrong")),
        ({"colour": "blue"}, ("/colour", "value_not_allowed")),
        ({"size": "xl"}, ("/size", "value_not_allowed")),
        ({"parts": [{"count": 1}] * 4}, ("/parts", "too_long")),
        ({"parts": [{"count": 1}, {"count": 0}]}, ("/parts/1/count", "out_of_range")),
        ({"parts": {}}, ("/parts", "type_wrong")),
        ({"pairs": {"a": 1, "b": 2, "c": 3}}, ("/pairs", "too_long")),
        ({"pairs": {"abcd": 1}}, ("/pairs/abcd", "too_long")),
        ({"pairs": {"a": 1.5}}, ("/pairs/a", "type_wrong")),
        ({"pairs": {"a": None}}, ("/pairs/a", "type_wrong")),
        ({"pairs": {"a/b~": []}}, ("/pairs/a~1b~0", "too_long")),
        ({"colours": {"blue": 1}}, ("/colours/blue", "value_not_allowed")),
        ({"payout": {"type": "gift"}}, ("/payout/type", "value_not_allowed")),
        ({"payout": {"type": "fixed", "minor": -1}}, ("/payout/minor", "out_of_range")),
        ({"payout": {"type": "share"}}, ("/payout/percent", "field_missing")),
        ({"payout": 7}, ("/payout", "type_wrong")),
        ({"text": "a\x00b"}, ("/text", "character_not_allowed")),
        ({"text": "a\x0cb"}, ("/text", "character_not_allowed")),
        ({"text": "a\ud800b"}, ("/text", "character_not_allowed")),
        ({"free": {"a": ["\x1b"]}}, ("/free/a/0", "character_not_allowed")),
        ({"free": 2**63}, ("/free", "out_of_range")),
    ],
)
def test_each_fault_has_its_place_and_code(body: dict[str, Any], expected: tuple[str, str]) -> None:
    assert expected in faults(body)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"9" * 5_000])
def test_numbers_that_are_none_are_out_of_range(number: bytes) -> None:
    assert faults(b'{"ratio":' + number + b"}") == [("/ratio", "out_of_range")]


def test_all_faults_are_told_at_once() -> None:
    body = {"text": 1, "flag": "no", "part": {"extra": 1}, "parts": [{"count": 0}, {"count": "1"}], "sold": True}
    assert set(faults(body)) == {
        ("/text", "type_wrong"),
        ("/flag", "type_wrong"),
        ("/part/extra", "unknown_field"),
        ("/part/count", "field_missing"),
        ("/parts/0/count", "out_of_range"),
        ("/parts/1/count", "type_wrong"),
        ("/sold", "unknown_field"),
    }


def test_field_faults_are_not_faults_of_the_whole_document() -> None:
    outcome = read(b'{"text":1}', Body)
    assert isinstance(outcome, tuple)
    assert not outcome[0].unreadable


def test_a_rule_across_fields_is_told_in_its_own_words_at_its_place() -> None:
    outcome = read(b'{"ranges":[{"low":1,"high":2},{"low":3,"high":2}]}', Outer)
    assert outcome == (Fault(pointer="/ranges/1", code="value_not_allowed", detail="Low must not lie above high."),)


def test_line_ends_tabs_and_escaped_emoji_are_welcome() -> None:
    outcome = read(rb'{"text":"a\r\n\tb\u000d\u000a\ud83d\ude00"}', Body)
    assert isinstance(outcome, Body)
    assert outcome.text == "a\r\n\tb\r\n😀"


def test_what_only_looks_suspicious_is_accepted() -> None:
    text = "C:\\bin\\u0000 4111111111111111111111"
    outcome = read(json.dumps({"text": text}).encode(), Body)
    assert isinstance(outcome, Body)
    assert outcome.text == text


def test_the_number_of_faults_told_is_limited() -> None:
    assert len(faults({f"k{number}": 1 for number in range(150)})) == MAXIMUM_FAULTS


def test_a_pointer_can_always_be_written_as_json() -> None:
    assert json.loads(msgspec.json.encode(pointer("a", "\ud800" * 300, 3))).count("?") == 100


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
field_names = st.sampled_from([*Body.__struct_fields__, "unknown"])


@given(st.dictionaries(field_names, json_values))
def test_a_body_is_read_exactly_when_it_has_no_fault_and_every_fault_is_explained(body: dict[str, Any]) -> None:
    outcome = read(json.dumps(body).encode(), Body)
    if isinstance(outcome, tuple):
        assert outcome
        assert all(fault.pointer.startswith("/") for fault in outcome)
        msgspec.json.encode(outcome)
    else:
        assert msgspec.convert(body, Body) == outcome


@given(st.binary(max_size=200))
def test_no_bytes_raise(raw: bytes) -> None:
    assert isinstance(read(raw, Body), tuple | Body)


@given(st.text().map(MARK.__add__), st.sampled_from(["code", "at", "colour", "size", "key", "day", "flag", "payout"]))
def test_no_sentence_repeats_a_value(value: str, field: str) -> None:
    outcome = read(json.dumps({field: value}).encode(), Body)
    details = " ".join(fault.detail for fault in outcome) if isinstance(outcome, tuple) else ""
    assert value not in details
