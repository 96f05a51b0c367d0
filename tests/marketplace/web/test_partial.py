"""Faults of the content are reported together with faults of the shape, once, for readable fields."""

import json
from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from marketplace.runtime.errors import InvalidInput
from marketplace.text.faults import MAXIMUM_FAULTS, Fault, read
from marketplace.web.partial import add_content_faults, read_partly


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=3, le=10)]
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")]
    at: Annotated[datetime, Meta(tz=True)]
    day: date | None = None


class Fixed(msgspec.Struct, frozen=True, kw_only=True, tag="fixed"):
    minor: int


class Share(msgspec.Struct, frozen=True, kw_only=True, tag="share"):
    percent: Annotated[int, Meta(ge=1)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=2)]
    part: Part | None = None
    parts: Annotated[tuple[Part, ...], Meta(min_length=1)]
    size: Literal["s", "m"]
    payout: Fixed | Share
    pairs: Annotated[dict[str, int], Meta(max_length=2)] = {}


GOOD: dict[str, Any] = {
    "name": "Robin", "size": "m", "payout": {"type": "share", "percent": 2}, "pairs": {"a": 1},
    "parts": [{"count": 4, "currency": "EUR", "at": "2026-11-21T10:00:00Z"}],
}  # fmt: skip


def encode(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in (GOOD | changes).items() if value is not None}).encode()


def test_a_good_body_is_read_whole() -> None:
    assert read_partly(encode(), Body) == read(encode(), Body)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None}, {"name": 7}, {"name": "x"}, {"other": 1}, {"parts": None}, {"parts": []}, {"parts": "x"},
        {"parts": [{"count": 1, "currency": "eur"}]}, {"parts": [7, None, {"more": 1}]}, {"size": "xl"},
        {"payout": {"type": "share", "percent": 0}}, {"payout": {"type": "gift"}}, {"payout": 7}, {"pairs": {"a": "x"}},
        {"pairs": {"a": 1, "b": 2, "c": 3}}, {"part": {"day": "0001-01-01"}}, {"part": {"at": "never"}}, {"part": 7},
    ],
)  # fmt: skip
def test_what_has_a_fault_is_left_out_or_stood_in_for_and_the_rest_is_as_it_was_sent(changes: dict[str, Any]) -> None:
    raw = encode(**changes)
    assert isinstance(read(raw, Body), tuple)
    partial = read_partly(raw, Body)
    assert partial is not None
    assert isinstance(read(msgspec.json.encode(partial), Body), Body)
    for name in GOOD.keys() - changes.keys():
        assert getattr(partial, name) == getattr(read(encode(), Body), name)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"7", b"null", b'{"a":' * 50])
def test_nothing_is_read_of_what_is_no_object(raw: bytes) -> None:
    assert read_partly(raw, Body) is None


def complain(body: Body) -> Iterator[Fault]:
    """Yield a fault for each of these fields, as a rule would, whatever the field holds."""
    for place in ("/name", "/parts", "/parts/0/currency", "/payout", "/pairs/a", "/part/day"):
        yield Fault(pointer=place, code="rule", detail="Mend it.")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"other": 1}, ["/name", "/parts", "/parts/0/currency", "/payout", "/pairs/a", "/part/day"]),
        ({"name": 7}, ["/parts", "/parts/0/currency", "/payout", "/pairs/a", "/part/day"]),
        ({"parts": None}, ["/name", "/payout", "/pairs/a", "/part/day"]),
        ({"parts": [{"count": 4, "currency": "eur", "at": "2026-11-21T10:00:00Z"}]},
         ["/name", "/payout", "/pairs/a", "/part/day"]),
        ({"part": 7, "payout": 7}, ["/name", "/parts", "/parts/0/currency", "/pairs/a"]),
    ],
)  # fmt: skip
def test_faults_of_the_content_come_after_those_of_the_shape_and_never_of_the_same_field(
    changes: dict[str, Any], expected: list[str]
) -> None:
    raw = encode(**changes)
    shape = read(raw, Body)
    assert isinstance(shape, tuple)
    every = add_content_faults(shape, raw, Body, complain)
    assert every[: len(shape)] == shape
    assert [fault.pointer for fault in every[len(shape) :]] == expected


def test_a_check_that_raises_is_as_good_as_one_that_yields() -> None:
    def refuse(body: Body) -> Iterator[Fault]:
        raise InvalidInput(complain(body))

    raw = encode(other=1)
    shape = read(raw, Body)
    assert isinstance(shape, tuple)
    assert add_content_faults(shape, raw, Body, refuse) == add_content_faults(shape, raw, Body, complain)


class Choosy(msgspec.Struct, frozen=True, kw_only=True):
    size: Literal["s", "m"]
    shape: Literal["flat", "round"] = "flat"
    width: int | None = None
    tone: Literal["dark", "light"] = "light"


def of_choices(body: Choosy) -> Iterator[Fault]:
    if body.size == "m" and body.width is None:
        yield Fault(pointer="/width", code="field_missing", detail="Give its width.")
    if body.size == "s" and body.width is None:
        yield Fault(pointer="/width", code="too_thin", detail="Give its width.")
    if body.shape == "flat":
        yield Fault(pointer="/depth", code="field_missing", detail="Give its depth.")
    if body.tone == "light":
        yield Fault(pointer="/colour", code="rule", detail="Mend it.")
    yield Fault(pointer="/height", code="rule", detail="Mend it.")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"size": "xl"}, ["/size", "/depth", "/colour", "/height"]),
        ({}, ["/size", "/depth", "/colour", "/height"]),
        ({"size": "m", "shape": "odd"}, ["/shape", "/width", "/colour", "/height"]),
        ({"size": 1, "shape": 1, "tone": 1}, ["/size", "/shape", "/tone", "/height"]),
        ({"size": "s", "shape": "flat", "width": "1"}, ["/width", "/depth", "/colour", "/height"]),
    ],
)
def test_what_depends_on_a_faulty_choice_is_not_told(body: dict[str, Any], expected: list[str]) -> None:
    raw = json.dumps(body).encode()
    shape = read(raw, Choosy)
    assert isinstance(shape, tuple)
    assert [fault.pointer for fault in add_content_faults(shape, raw, Choosy, of_choices)] == expected


def test_both_together_are_a_hundred_at_most() -> None:
    raw = encode(**{f"other{number}": 1 for number in range(90)})
    shape = read(raw, Body)
    assert isinstance(shape, tuple)
    many = (Fault(pointer=f"/name/{number}", code="rule", detail="Mend it.") for number in range(200))
    assert len(add_content_faults(shape, raw, Body, lambda _: many)) == MAXIMUM_FAULTS


def test_a_body_that_cannot_be_read_has_no_content() -> None:
    raw = b'{"name":"Robin","name":"Robin"}'
    shape = read(raw, Body)
    assert isinstance(shape, tuple)
    assert add_content_faults(shape, raw, Body, complain) == shape


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "part", "count", "at"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "part", "other"]), JSON))
def test_whatever_is_sent_what_is_read_of_it_is_a_body(changes: dict[str, Any]) -> None:
    partial = read_partly(json.dumps(GOOD | changes).encode(), Body)
    assert partial is None or isinstance(read(msgspec.json.encode(partial), Body), Body)
