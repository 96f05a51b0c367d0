"""Waiting leads on the pages of provider and operator."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from routing.interest import InterestCriterion, UnmetConsequence
from routing.qualification import ResultConsequence
from tests.builders.feedback import Desk, desk
from tests.builders.inquiries import roofing_body, roofing_policy
from tests.builders.marketplaces import roofing
from tests.builders.portal import signed_in

TIMING = msgspec.structs.replace(roofing_policy().timing, on_unknown=ResultConsequence.nurture)


@pytest.fixture
async def office(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings, vertical=roofing(timing=TIMING))


def undated() -> dict[str, Any]:
    answers: dict[str, Any] = roofing_body()["bant"]
    return {name: answer for name, answer in answers.items() if name != "timing"}


async def test_a_waiting_lead_is_shown_with_its_question_and_can_be_given_back(office: Desk) -> None:
    provider = await signed_in(office.api, "provider", ids.encode("prov", office.market.provider.owner))
    assert "None of your leads is waiting." in (await provider.get("/provider/waiting")).text
    lead = ids.encode("lead", await office.market.sold(1, bant=undated()))
    text = (await provider.get("/provider/waiting")).text
    assert "A better answer about the timing" in text
    assert "When is it wanted? 2 subscriptions would take it." in text
    assert lead in text
    assert "No waiting lead matches" in (await provider.get("/provider/waiting?vertical=other")).text
    assert lead in (await provider.get("/provider/waiting?waits_for=timing")).text
    assert "No waiting lead matches" in (await provider.get("/provider/waiting?waits_for=budget")).text
    unknown = await provider.get("/provider/waiting?waits_for=luck")
    assert (unknown.status_code, "Choose one of date, budget" in unknown.text) == (422, True)
    assert "a better answer" in (await provider.get("/provider/waiting?format=csv")).text.lower()
    home = f"/provider/submissions/{lead}"
    assert "Give this lead back" in (await provider.get(home)).text
    await provider.post(f"{home}/give-back")
    assert "You gave it back before its time." in (await provider.get(home)).text
    assert "None of your leads is waiting." in (await provider.get("/provider/waiting")).text


async def test_an_operator_sees_the_waiting_leads_of_every_provider(office: Desk) -> None:
    operator = await signed_in(office.api, "operator")
    assert "No lead is waiting." in (await operator.get("/operator/waiting")).text
    lead = ids.encode("lead", await office.market.sold(1, bant=undated()))
    text = (await operator.get("/operator/waiting")).text
    assert lead in text
    assert "When is it wanted?" in text
    assert lead in (await operator.get("/operator/waiting?format=csv")).text
    assert (await operator.get("/operator/waiting?provider=nobody")).status_code == 404
    other = ids.encode("prov", office.market.vertical_id)
    assert "No waiting lead matches" in (await operator.get(f"/operator/waiting?provider={other}")).text


async def test_a_lead_that_is_wanted_later_says_the_day_from_which_businesses_get_it(office: Desk) -> None:
    """The vertical takes what is wanted within 60 days."""
    await office.market.sold(1, bant=roofing_body()["bant"] | {"timing": {"not_before": "2099-03-02"}})
    wanted = (clock.now() + timedelta(days=100)).date()
    await office.market.sold(2, bant=roofing_body(2)["bant"] | {"timing": {"not_before": wanted.isoformat()}})
    text = (await (await signed_in(office.api, "operator")).get("/operator/waiting")).text
    assert f"{wanted - timedelta(days=60):%-d %b %Y}, 60 days before the person wants it" in text
    assert "2099" not in text


async def test_answer_and_touch_that_a_lead_needs_together_are_named(settings: Settings) -> None:
    reply = InterestCriterion(name="replied", kinds=("email_reply",), required=True, otherwise=UnmetConsequence.nurture)
    async with AsyncExitStack() as stack:
        office = await desk(stack, settings, vertical=roofing(timing=TIMING, interest=(reply,)))
        await office.market.sold(1, bant=undated())
        text = (await (await signed_in(office.api, "operator")).get("/operator/waiting")).text
        assert "A better answer about the timing; email reply" in text
        assert "Needed together: timing, replied. 2 subscriptions would take it." in text
