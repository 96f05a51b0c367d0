"""Ids: their order, and the one text form of each."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.runtime import clock, ids


@given(st.uuids())
def test_every_id_survives_its_text_form(value: UUID) -> None:
    text = ids.encode("lead", value)
    assert len(text) == len("lead_") + 26
    assert ids.decode("lead", text) == value


@given(st.uuids(), st.uuids())
def test_text_forms_sort_as_their_ids_do(one: UUID, other: UUID) -> None:
    assert (one < other) == (ids.encode("lead", one) < ids.encode("lead", other))


@given(st.text())
def test_any_text_is_an_id_only_if_it_is_written_exactly_so(text: str) -> None:
    for candidate in (text, f"lead_{text}"):
        value = ids.decode("lead", candidate)
        assert value is None or ids.encode("lead", value) == candidate


@pytest.mark.parametrize(
    "text",
    [
        "lead_",
        "offer_01h455vb4pex5vsknk084sn02q",
        "lead_01h455vb4pex5vsknk084sn02",
        "lead_01H455VB4PEX5VSKNK084SN02Q",
        "lead_81h455vb4pex5vsknk084sn02q",
        "lead_01h455vb4pex5vsknk084sn02u",
        "lead_0\N{ARABIC-INDIC DIGIT ONE}h455vb4pex5vsknk084sn02q",
    ],
)
def test_a_text_of_another_kind_length_or_alphabet_is_no_id(text: str) -> None:
    assert ids.decode("lead", text) is None


def test_later_ids_sort_after_earlier_ones() -> None:
    made = [clock.new_id() for _ in range(1000)]
    assert made == sorted(made)
    assert {value.version for value in made} == {7}


def test_the_time_is_aware_and_utc() -> None:
    offset = clock.now().utcoffset()
    assert offset is not None
    assert not offset
