"""Verticals: versions, what each kind of caller sees, and the posting spec."""

import asyncio
from typing import Any

import msgspec
import pytest

from marketplace.directory.spec import posting_spec
from marketplace.intake.reading import AcceptedInquiry, read_inquiry
from marketplace.intake.shapes import InquiryBody
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock
from routing.inquiry import EvidenceKind, Mode
from routing.qualification import (
    RULES_VERSION,
    AuthorityPolicy,
    BudgetPolicy,
    NeedPolicy,
    Prospect,
    ResultConsequence,
    qualify,
)
from routing.vertical import VerticalDefinition
from tests.builders.inquiries import find_area, points
from tests.builders.marketplaces import roofing
from tests.builders.service import Served


async def test_each_change_of_a_vertical_is_a_new_version_and_the_old_one_stays(api: Served) -> None:
    await api.vertical()
    body = {"definition": roofing(minimum_score=40), "version": 1}
    changed = await api.call("PUT", "/v1/verticals/roofing", body)
    assert (changed.status_code, changed.json()["version"], changed.headers["etag"]) == (200, 2, '"2"')
    versions = await api.pool.fetch("select version from vertical_version order by version")
    assert [row["version"] for row in versions] == [1, 2]


async def test_a_version_is_judged_by_the_rules_of_the_day_it_was_saved_on(api: Served) -> None:
    earlier = msgspec.to_builtins(roofing())
    del earlier["rules_version"]
    assert msgspec.convert(earlier, VerticalDefinition).policy(1).rules_version == 1
    created = await api.call("POST", "/v1/verticals", {"slug": "roofing", "definition": earlier})
    assert created.json()["definition"]["rules_version"] == RULES_VERSION
    body = {"definition": earlier | {"rules_version": 1}, "version": 1}
    revised = await api.call("PUT", "/v1/verticals/roofing", body)
    assert revised.json()["definition"]["rules_version"] == RULES_VERSION


async def test_an_operator_is_warned_of_a_policy_by_which_leaving_an_answer_out_pays(api: Served) -> None:
    created = await api.vertical()
    budget = next(warning for warning in created["warnings"] if warning["dimension"] == "budget")
    assert budget["code"] == "leaving_out_pays"
    assert 'a lead with the budget "USD 2,500" is rejected' in budget["detail"]
    assert (await api.call("GET", "/v1/verticals/roofing")).json()["warnings"] == created["warnings"]
    strict = msgspec.structs.replace(roofing().budget, on_unknown=ResultConsequence.reject)
    body = {"definition": roofing(budget=strict), "version": 1}
    revised = (await api.call("PUT", "/v1/verticals/roofing", body)).json()["warnings"]
    assert "budget" not in {warning["dimension"] for warning in revised}
    _, provider = await api.provider()
    assert "warnings" not in (await api.call("GET", "/v1/verticals/roofing", key=provider)).text


async def test_of_two_editors_who_read_the_same_version_one_is_told(api: Served) -> None:
    await api.vertical()
    body = {"definition": roofing()}
    edits = [api.call("PUT", "/v1/verticals/roofing", body, headers={"if-match": '"1"'}) for _ in range(2)]
    replies = sorted(await asyncio.gather(*edits), key=lambda reply: reply.status_code)
    assert [reply.status_code for reply in replies] == [200, 409]
    assert "version 2" in replies[1].json()["detail"]


async def test_a_change_that_does_not_say_which_version_it_replaces_is_refused(api: Served) -> None:
    await api.vertical()
    for headers in ({}, {"if-match": "anything"}, {"if-match": '"99999999999"'}):
        refused = await api.call("PUT", "/v1/verticals/roofing", {"definition": roofing()}, headers=headers)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/version")


async def test_a_vertical_keeps_its_currency(api: Served) -> None:
    await api.vertical()
    body = {"definition": roofing(currency="EUR"), "version": 1}
    refused = await api.call("PUT", "/v1/verticals/roofing", body)
    assert refused.json()["errors"][0]["code"] == "currency_fixed"


async def test_a_slug_names_one_vertical(api: Served) -> None:
    await api.vertical()
    again = await api.call("POST", "/v1/verticals", {"slug": "roofing", "definition": roofing()})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_only_operators_see_how_answers_are_scored(api: Served) -> None:
    await api.vertical()
    _, provider = await api.provider()
    _, business = await api.business()
    assert "minimum_score" in (await api.call("GET", "/v1/verticals/roofing")).text
    for key in (provider, business):
        for path in ("/v1/verticals/roofing", "/v1/verticals", "/v1/spec/roofing"):
            reply = await api.call("GET", path, key=key)
            assert "points" not in reply.text
            assert "minimum_score" not in reply.text


async def test_the_example_of_the_posting_spec_passes_the_dry_run(api: Served) -> None:
    await api.vertical()
    _, key = await api.provider()
    spec = (await api.call("GET", "/v1/spec/roofing", key=key)).json()
    assert spec["required_contact"] == ["full_name", "phone", "email", "postal_code"]
    assert spec["need_fields"]["roof_type"]["required"] is True
    tried = await api.call("POST", "/v1/inquiries:validate", spec["example"], key=key)
    assert (tried.status_code, tried.json()["would"]) == (200, "prospect"), tried.text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"needs": {}, "need": NeedPolicy(points=points())},
        {"requires_phone": False, "requires_email": False},
        {"authority": AuthorityPolicy(accepted=(), points=points())},
        {"currency": "EUR"},
        {"budget": BudgetPolicy(minimum_minor=1, points=points(), least_evidence=EvidenceKind.verified)},
    ],
)
def test_the_example_is_accepted_whatever_the_vertical_asks(changes: dict[str, Any]) -> None:
    definition = roofing(**changes)
    vertical = Vertical(id=clock.new_id(), slug="roofing", version=1, definition=definition)
    now = clock.now()
    example = msgspec.json.encode(posting_spec(vertical, now).example)
    body = msgspec.json.decode(example, type=InquiryBody)
    rules = definition.intake_rules("roofing")
    outcome = read_inquiry(body, rules, find_area(body.contact), mode=Mode.test, now=now)
    assert isinstance(outcome, AcceptedInquiry), outcome
    qualified = qualify(outcome.facts, definition.needs, definition.policy(1), now)
    assert isinstance(qualified, Prospect) or not definition.authority.accepted
