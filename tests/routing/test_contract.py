"""Response contracts: the meaning of an answer by rules, and the checks of a contract before it is saved."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.contract import (
    OWN_FORMAT,
    AnswerRule,
    AnswerSample,
    Contract,
    Meaning,
    Reading,
    read_answer,
    shape_of,
    steps,
)
from routing.contract import text_matches as matches
from routing.delivery import AnswerReason, AnswerReceived, AttemptOutcome, RefusalReason, classify
from routing.sample_answers import find_disagreements

CRM = Contract(
    refused=(AnswerRule(path="result.errors[0].code", values=("BLOCKED",)),),
    duplicate=(AnswerRule(status="409"), AnswerRule(path="result.errors[0].code", values=("DUPLICATE",))),
    try_later=(AnswerRule(status="401"), AnswerRule(status="500", text="*record is locked*")),
    accepted=(AnswerRule(status="201", path="result.id"),),
    reason="result.errors[0].why",
    reference="result.id",
    price="result.price",
)


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (201, '{"result":{"id":4711}}', Meaning.accepted),
        (200, '{"result":{"id":4711}}', Meaning.not_understood),
        (201, '{"result":{"id":null}}', Meaning.not_understood),
        (201, '{"result":[{"id":4711}]}', Meaning.not_understood),
        (201, '{"result":{"id":4711,"errors":[{"code":"blocked"}]}}', Meaning.refused),
        (200, '{"result":{"errors":[{"code":" Duplicate "}]}}', Meaning.duplicate),
        (409, "", Meaning.duplicate),
        (401, '{"result":{"id":4711}}', Meaning.try_later),
        (500, "the record is Locked by another user", Meaning.try_later),
        (500, '{"result":{"errors":[{"code":"BLOCKED"}]}}', Meaning.not_understood),
        (429, '{"result":{"errors":[{"code":"BLOCKED"}]}}', Meaning.not_understood),
        (201, "", Meaning.not_understood),
        (201, "[" * 50_000, Meaning.not_understood),
    ],
)
def test_the_first_list_with_a_matching_rule_decides(status: int, body: str, meaning: Meaning) -> None:
    assert read_answer(CRM, status, body.encode()).meaning is meaning


def test_an_answer_names_its_reference_and_price_as_texts() -> None:
    assert read_answer(CRM, 201, b'{"result":{"id":4711,"price":"49.50 USD"}}') == Reading(
        meaning=Meaning.accepted, reference="4711", price="49.50 USD"
    )
    longest = read_answer(CRM, 201, b'{"result":{"id":"%s"}}' % (b"x" * 200))
    assert longest.reference == "x" * 100


def test_a_refusal_of_a_contract_has_its_reason_and_duplicates_have_theirs() -> None:
    blocked = AnswerReceived(
        status=422, body=b'{"result":{"errors":[{"code":"blocked","why":"outside_area"}]}}', content_type="text/plain"
    )
    assert classify(blocked, True, CRM).reason is RefusalReason.outside_area
    assert classify(AnswerReceived(status=409), True, CRM).reason is RefusalReason.duplicate


def test_a_contract_may_ask_to_be_tried_again_where_a_status_alone_would_refuse() -> None:
    answer = AnswerReceived(status=401, retry_after_seconds=30)
    assert classify(answer, True).outcome is AttemptOutcome.refused
    classified = classify(answer, True, CRM)
    assert (classified.outcome, classified.reason) == (AttemptOutcome.busy, AnswerReason.try_later)
    assert classified.retry_after_seconds == 30


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("OK", "ok", True),
        ("ok", '"OK."', True),
        ("ok", "ok, refused", False),
        ("*success*", "<result>SUCCESS</result>", True),
        ("lead * created", "lead 17 created", True),
        ("lead*created", "leadcreated", True),
        ("ab*bc", "abc", False),
        ("*", "", True),
        ("a*b*c", "axxbyyc!", False),
        ("Straße*", "STRASSE 12", True),
    ],
)
def test_a_pattern_knows_no_sign_but_the_star(pattern: str, text: str, fits: bool) -> None:
    assert matches(pattern, text.casefold()) is fits


@given(st.lists(st.text("ab<", max_size=5), min_size=2, max_size=6), st.lists(st.text("abx", max_size=4), max_size=6))
def test_every_text_made_from_a_pattern_fits_it(parts: list[str], fillings: list[str]) -> None:
    filled = parts[0] + "".join(
        filling + part for part, filling in zip(parts[1:], [*fillings, *[""] * len(parts)], strict=False)
    )
    assert matches("*".join(parts), filled)


def test_a_pattern_of_many_stars_takes_time_in_proportion_to_the_text() -> None:
    assert not matches("a*" * 90 + "b", "a" * 65_536)


@given(st.integers(100, 599), st.binary(max_size=80), st.sampled_from([OWN_FORMAT, CRM, Contract()]))
def test_no_contract_accepts_anything_but_a_success(status: int, body: bytes, contract: Contract) -> None:
    if read_answer(contract, status, body).meaning is Meaning.accepted:
        assert 200 <= status <= 299


def test_without_rules_nothing_is_ever_accepted() -> None:
    assert read_answer(Contract(accepted=(AnswerRule(),)), 200, b"").meaning is Meaning.not_understood


def test_a_path_has_names_and_positions() -> None:
    assert list(steps("data.items[0].id")) == ["data", "items", 0, "id"]
    assert list(steps("[2].id")) == [2, "id"]


@pytest.mark.parametrize("path", ["", ".a", "a..b", "a[b]", "a.b]", "$" * 65, "a" + ".b" * 8, "a b", "a[1000]"])
def test_a_path_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"reference": path}), type=Contract)


def test_a_contract_is_held_to_its_samples_and_to_answers_that_are_never_a_sale() -> None:
    right = AnswerSample(expected=Meaning.accepted, status=201, body='{"result":{"id":1}}')
    wrong = AnswerSample(expected=Meaning.refused, status=409)
    assert list(find_disagreements(msgspec.structs.replace(CRM, samples=(right,)))) == []
    (disagreement,) = find_disagreements(msgspec.structs.replace(CRM, samples=(right, wrong)))
    assert (disagreement.position, disagreement.actual) == (1, Meaning.duplicate)
    accepts_pages = find_disagreements(Contract(accepted=(AnswerRule(text="*html*"),)))
    assert [disagreement.position for disagreement in accepts_pages] == [None]
    assert len(list(find_disagreements(Contract(accepted=(AnswerRule(status="2xx"),))))) == 3


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (b'{"id":1,"status":"ok"}', b'{"status":"new","id":99}', True),
        (b'{"id":1}', b'{"id":"1"}', False),
        (b'{"id":1}', b'{"id":1,"warning":"x"}', False),
        (b'{"items":[{"a":1}]}', b'{"items":[{"a":2},{"b":3}]}', True),
        (b'{"items":[{"a":1}]}', b'{"items":[]}', False),
        (b"thank you", b"received", True),
        (b"thank you", b"", False),
    ],
)
def test_a_shape_is_made_of_names_and_kinds(first: bytes, second: bytes, same: bool) -> None:
    assert (shape_of("text/plain", first) == shape_of("text/plain", second)) is same


def test_the_media_type_is_part_of_the_shape() -> None:
    assert shape_of("text/html", b"{}") != shape_of("application/json", b"{}")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda part: st.lists(part) | st.dictionaries(st.text(max_size=3), part),
    )
)
def test_every_json_answer_has_a_shape(document: object) -> None:
    assert len(shape_of("application/json", msgspec.json.encode(document))) in (5, 16)
