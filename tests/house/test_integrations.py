"""The examples of docs/INTEGRATIONS.md, each executed."""

import re
from pathlib import Path

import msgspec

from marketplace.directory.contracts import contract_faults
from marketplace.directory.endpoints import ContractChange, MappingChange
from marketplace.mapping.presets import load_presets
from marketplace.mapping.requests import mapping_faults
from marketplace.mapping.shapes import BodyFormat, Credentials
from marketplace.mapping.template import BodyTemplate
from marketplace.mapping.variables import EXAMPLES
from marketplace.portal.business.rule_lines import read_rule

PAGE = (Path(__file__).parents[2] / "docs" / "INTEGRATIONS.md").read_text()


def examples(kind: str) -> list[str]:
    """Return the examples of a kind, which follows the language of their fence."""
    return re.findall(rf"^```\w+ {kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_contract_is_one_that_would_be_saved() -> None:
    [text] = examples("contract")
    change = msgspec.json.decode(text, type=ContractChange)
    assert list(contract_faults(change.contract)) == []


def test_the_lines_of_rules_can_be_read() -> None:
    [sentence] = re.findall(r"a rule is a line: (.*)\.", PAGE)
    lines = re.findall(r"`([^`]+)`", sentence)
    assert len(lines) == 6
    assert all(read_rule(line).says_something for line in lines)


def test_the_mapping_is_one_that_would_be_saved() -> None:
    [text] = examples("mapping")
    change = msgspec.json.decode(text, type=MappingChange)
    assert change.mapping is not None
    assert change.credentials is not None
    assert not isinstance(change.credentials, msgspec.UnsetType)
    assert list(mapping_faults(change.mapping, change.credentials)) == []


def test_every_kind_of_credentials_can_be_read() -> None:
    [text] = examples("credentials")
    credentials = msgspec.json.decode(text, type=list[Credentials])
    assert len({type(login) for login in credentials}) == 4


def test_each_line_of_the_language_can_be_used() -> None:
    table = PAGE.partition("| write | for |")[2].partition("\n\n")[0]
    sources = [source.replace("\\|", "|") for source in re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)]
    assert len(sources) == 5
    for source in sources:
        template = BodyTemplate(BodyFormat.json, f"[{source}]" if "json" in source else f'"{source}"')
        for example in EXAMPLES:
            template.render(example)


def test_the_table_of_presets_is_whole() -> None:
    table = PAGE.partition("| preset | request |")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(load_presets())
