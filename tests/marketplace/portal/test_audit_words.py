"""Every action in the audit trail is shown in plain words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args, get_type_hints

import marketplace
from marketplace.portal.audit_words import ACTIONS, describe_action
from marketplace.portal.operator.unroutable import RescheduleForm
from marketplace.portal.store import Purpose

ACTION: Final = re.compile(r"[a-z_]+\.(?!sql|html)[a-z_]+")
VARIED: Final = {
    "member.link_": tuple(Purpose),
    "lead.": get_args(get_type_hints(RescheduleForm)["act"]),
}
"The endings of the actions that are put together, by their beginnings."


def recorders() -> Iterator[ast.Module]:
    """Yield the modules that write to the audit trail."""
    for path in Path(marketplace.__file__).parent.rglob("*.py"):
        text = path.read_text()
        if "audit" not in text:
            continue
        module = ast.parse(text)
        imports = (node for node in ast.walk(module) if isinstance(node, ast.ImportFrom))
        names = {name.name for node in imports if node.module == "marketplace.security" for name in node.names}
        if "audit" in names:
            yield module


def recorded_actions(module: ast.Module) -> Iterator[str]:
    """Yield every action that a module names. Types of events, which look the same, are no actions."""
    events = [node.value for node in ast.walk(module) if isinstance(node, ast.keyword) and node.arg == "type"]
    fields = [node for node in ast.walk(module) if isinstance(node, ast.AnnAssign)]
    events += [field.value for field in fields if field.value and ast.unparse(field.target) == "type"]
    tables = (field.value for field in fields if field.value and ast.unparse(field.target).endswith("_TYPE"))
    events += [value for table in tables for value in ast.walk(table) if isinstance(value, ast.expr)]
    for node in ast.walk(module):
        match node:
            case ast.Constant(value=str(text)) if ACTION.fullmatch(text) and node not in events:
                if text not in VARIED:
                    yield text
            case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]) if re.fullmatch(r"[a-z_]+\.[a-z_]*", start):
                yield from (f"{start}{ending}" for ending in VARIED[start])


def test_every_action_that_is_recorded_has_its_words_and_every_word_its_action() -> None:
    actions = {action for module in recorders() for action in recorded_actions(module)}
    assert len(actions) > 60
    assert actions == ACTIONS.keys()


def test_words_are_sentences_without_the_names_of_actions() -> None:
    for action, text in ACTIONS.items():
        assert text[0].isupper(), action
        assert not set("._") & set(text), action
    assert len(set(ACTIONS.values())) == len(ACTIONS)


def test_an_action_of_an_older_version_is_shown_by_its_name() -> None:
    assert describe_action("subscription.pause_all") == "Subscription pause all"
