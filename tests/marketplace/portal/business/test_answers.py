"""The page on which a business says what the answers of its server mean."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.portal.business.answers import STARTS
from marketplace.portal.business.rule_lines import RuleFault, read_rule, write_rule
from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from routing.contract import OWN_FORMAT, AnswerRule, Contract
from routing.sample_answers import find_disagreements
from tests.builders.feedback import Desk, desk
from tests.builders.portal import Browser, signed_in
from tests.receivers import answer, html_page

SAMPLE = {"expected_0": "accepted", "status_0": "201", "content_type_0": "application/json", "body_0": '{"id": 7}'}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("empty", AnswerRule(empty=True)),
        ("201", AnswerRule(status="201")),
        ("2xx empty", AnswerRule(status="2xx", empty=True)),
        ("status = accepted, ok", AnswerRule(path="status", values=("accepted", "ok"))),
        ("201 result.items[0].id", AnswerRule(status="201", path="result.items[0].id")),
        ("$.empty", AnswerRule(path="empty")),
        ("text: *thank you, *", AnswerRule(text="*thank you, *")),
        ("409 text: *exists*", AnswerRule(status="409", text="*exists*")),
    ],
)
def test_a_rule_is_a_line(line: str, rule: AnswerRule) -> None:
    assert read_rule(line) == rule
    assert read_rule(write_rule(rule) or "") == rule


@pytest.mark.parametrize("line", ["", "a b", "= x", "a..b", "text:", "status = "])
def test_a_line_that_cannot_be_read_says_what_to_write(line: str) -> None:
    with pytest.raises(RuleFault, match="Write"):
        read_rule(line)


@given(st.text(max_size=40))
def test_every_line_is_a_rule_or_a_fault(line: str) -> None:
    try:
        rule = read_rule(line)
    except RuleFault:
        return
    assert msgspec.convert(msgspec.to_builtins(rule), AnswerRule) == rule


@pytest.mark.parametrize(
    "rule", [AnswerRule(path="a", text="b"), AnswerRule(path="a", values=("x, y",)), AnswerRule(empty=True, path="a")]
)
def test_a_rule_that_no_line_states_is_not_written(rule: AnswerRule) -> None:
    assert write_rule(rule) is None


@pytest.mark.parametrize("contract", [start[1] for start in STARTS.values()])
def test_every_start_agrees_with_its_samples(contract: Contract) -> None:
    assert not list(find_disagreements(contract))
    assert all(write_rule(rule) for rule in (*contract.accepted, *contract.refused))


class Answers:
    """A business with one webhook, and the page of its answers."""

    def __init__(self, shop: Desk, browser: Browser) -> None:
        self.shop, self.browser = shop, browser
        self.path = f"/business/delivery/{ids.encode('whe', shop.buyer.endpoint_id)}/answers"

    async def page(self, path: str = "") -> str:
        reply = await self.browser.get(path or self.path)
        assert reply.status_code == 200, reply.text
        return unescape(reply.text)

    async def stored(self) -> Contract | None:
        document = await self.shop.market.value(
            "select contract from endpoint where id = $1", self.shop.buyer.endpoint_id
        )
        return None if document is None else msgspec.json.decode(document, type=Contract)


@pytest.fixture
async def answers(settings: Settings) -> AsyncIterator[Answers]:
    async with AsyncExitStack() as stack:
        shop = await desk(stack, settings)
        yield Answers(shop, await signed_in(shop.api, "business", shop.buyer.business_id))


async def test_rules_are_tried_saved_and_taken_back(answers: Answers) -> None:
    form = {"version": "1", "accepted": "201 id\r\nempty", "refused": "error", "reference": "id", **SAMPLE}
    tried = await answers.browser.post(answers.path, form | {"act": "try"})
    assert "As expected" in tried.text
    assert await answers.stored() is None
    saved = await answers.browser.post(answers.path, form)
    assert saved.status_code == 303, saved.text
    stored = await answers.stored()
    assert stored is not None
    assert stored.accepted == (AnswerRule(status="201", path="id"), AnswerRule(empty=True))
    assert stored.reference == "id"
    assert "201 id" in await answers.page()
    stale = await answers.browser.post(answers.path, form)
    assert stale.status_code == 409
    assert (await answers.browser.post(answers.path, {"version": "2", "act": "reset"})).status_code == 303
    assert await answers.stored() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accepted": "a b"}, "cannot be read"),
        ({"accepted": "other"}, "means: not understood"),
        ({"accepted": "2xx"}, "may be an error"),
        ({"expected_0": ""}, "no lead would ever be charged"),
        ({"reference": "a b"}, "Write places such as"),
        ({"status_0": "9"}, ""),
    ],
)
async def test_rules_that_disagree_are_shown_again(answers: Answers, change: dict[str, str], words: str) -> None:
    form = {"version": "1", "accepted": "201 id", "refused": "error", **SAMPLE} | change
    reply = await answers.browser.post(answers.path, form)
    assert reply.status_code == 422
    assert words in unescape(reply.text)
    assert await answers.stored() is None


async def test_an_alarm_is_shown_to_the_owner_and_the_operator_until_the_rules_change(answers: Answers) -> None:
    answers.shop.behave(html_page)
    await answers.shop.sold(1)
    operator = await signed_in(answers.shop.api, "operator")
    for text in (await answers.page("/business"), await answers.page()):
        assert "was not covered by its rules" in text
        assert "<title>Sign in</title>" in text
    assert "1 endpoint gave answers" in unescape((await operator.get("/operator")).text)
    assert "<title>Sign in</title>" in unescape((await operator.get("/operator/deliveries")).text)
    await answers.browser.post(answers.path, {"version": "1", "accepted": "201 id", **SAMPLE})
    assert "was not covered by its rules" not in await answers.page("/business")
    assert "Every endpoint's answers are understood." in unescape((await operator.get("/operator")).text)


async def test_an_answer_of_a_new_kind_can_be_called_fine(answers: Answers) -> None:
    answers.shop.behave(answer(200))
    await answers.shop.sold(1)
    answers.shop.behave(answer(200, b'{"status":"accepted"}'))
    await answers.shop.sold(2)
    assert "looks unlike the ones before" in await answers.page()
    await answers.browser.post(answers.path, {"version": "1", "act": "seen"})
    assert "looks unlike the ones before" not in await answers.page()


async def test_a_test_lead_is_judged_by_the_contract(answers: Answers) -> None:
    answers.shop.behave(answer(201, b'{"id":7}'))
    path = answers.path.removesuffix("/answers")
    assert "cannot tell from it whether you have the lead" in unescape(
        (await answers.browser.post(path, {"act": "test"})).text
    )
    await answers.browser.post(answers.path, {"version": "1", "accepted": "201 id", **SAMPLE})
    assert "cannot tell" not in unescape((await answers.browser.post(path, {"act": "test"})).text)


def test_our_own_format_is_the_first_start() -> None:
    assert msgspec.structs.replace(STARTS["own"][1], samples=()) == OWN_FORMAT
