"""The examples of docs/INTEGRATIONS.md, each executed."""

import re
from pathlib import Path

import msgspec

from marketplace.directory.contracts import contract_faults
from marketplace.directory.endpoints import ContractChange
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
