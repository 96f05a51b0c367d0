"""Every preset can be saved as it is, and names its sources and the way back of outcomes."""

import json

import pytest

from marketplace.directory.contracts import contract_faults
from marketplace.mapping.presets import load_presets
from marketplace.mapping.requests import mapping_faults
from marketplace.mapping.sending import example_body
from marketplace.portal.business.rule_lines import write_rule
from marketplace.webhook.address import UrlRefusal, check_url

PRESETS = load_presets()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_be_saved_as_it_is(name: str) -> None:
    preset = PRESETS[name]
    assert list(mapping_faults(preset.mapping, None)) == []
    assert list(contract_faults(preset.contract)) == []
    assert not isinstance(check_url(preset.url), UrlRefusal)
    rules = (
        *preset.contract.accepted,
        *preset.contract.refused,
        *preset.contract.duplicate,
        *preset.contract.try_later,
    )
    assert all(write_rule(rule) for rule in rules)
    assert preset.sources
    assert preset.stages.endswith(".")


def test_the_presets_are_those_of_the_documents() -> None:
    names = {"adf", "automation", "gohighlevel", "hubspot", "pipedrive", "salesforce_web_to_lead", "zoho"}
    assert names == set(PRESETS)


def test_a_preset_fills_in_the_lead() -> None:
    assert json.loads(example_body(PRESETS["hubspot"].mapping))["properties"]["phone"] == "+13125550142"
    assert b"last_name=Example" in example_body(PRESETS["salesforce_web_to_lead"].mapping)
