"""Plain words and small functions: checked in every package that is listed as plain.

Each finding names the place and what to write instead. A package joins PLAIN when it has no finding, and never leaves.
"""

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import pytest

from tests.house.measure import (
    ROOT,
    VAGUE,
    classes,
    complexity,
    docstrings,
    functions,
    length,
    names,
    nodes,
    opens_with_a_clause,
    read_sources,
)

PLAIN: Final = ("billing/", "marketplace/", "routing/")
"Beginnings of the paths in which nothing may be found."
JSON_NAMES: Final = frozenset(
    {
        ("marketplace/directory/subscriptions.py", "shown"),
        ("marketplace/feedback/wire.py", "good"),
        ("marketplace/reports/funnel.py", "stood"),
        ("marketplace/shared_leads/wire.py", "good"),
        ("marketplace/shared_leads/wire.py", "known"),
        ("routing/qualification.py", "wanted"),
    }
)
"Fields that callers read by this name, or that rules in force are stored with."
LONGEST_FUNCTION: Final = 60
"Lines of a function, its decorators apart."
MOST_COMPLEX: Final = 15
"McCabe's cyclomatic complexity of a function."
FORMATTER_OFF: Final = "# fmt: skip"
MOST_FORMATTER_OFF: Final = 17
"Tables of marketplace, routing and billing that the formatter leaves alone. The bound falls with the count."
PLAIN_WORDS: Final[Mapping[str, str]] = {
    "belt": "constraint",
    "belts": "constraints",
    "books": "ledger",
    "breath": "interval",
    "door": "endpoint",
    "doorman": "worker",
    "doors": "endpoints",
    "floor": "overview",
    "gossip": "message",
    "hush": "back off",
    "knock": "notify",
    "knocks": "notifications",
    "market": "vertical",
    "markets": "verticals",
    "mouth": "caller",
    "purse": "wallet",
    "purses": "wallets",
    "riddle": "question",
    "soul": "person",
    "stranger": "other party",
    "strangers": "other parties",
    "tape": "recent decisions",
    "undertaker": "worker",
}
"Metaphors, each with the plain word for it."


def clause_docstrings(trees: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield the docstrings that open with a relative clause or a preposition."""
    for place in docstrings(trees):
        if opens_with_a_clause(place):
            yield f"{place.file}:{place.line}: {place.text!r}: begin with a verb or a noun, as in 'Return the lead'"


def vague_names(trees: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield the parameters, fields and variables that are named by a participle or pronoun."""
    for place in names(trees):
        if place.text in VAGUE and (place.file, place.text) not in JSON_NAMES:
            yield f"{place.file}:{place.line}: {place.text}: name what it holds, as in 'lead', 'rows', 'cursor'"


def long_functions(trees: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield the functions with too many lines or ways through them."""
    for file, function in functions(trees):
        if length(function) > LONGEST_FUNCTION:
            yield f"{file}:{function.lineno}: {function.name} has {length(function)} lines: take a step out of it"
        if complexity(function) > MOST_COMPLEX:
            yield f"{file}:{function.lineno}: {function.name} has complexity {complexity(function)}: split it"


def metaphors(trees: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield the metaphors in docstrings and in the names of classes, functions, parameters, fields and variables."""
    for file, tree in trees.items():
        for line, text in _own_words(tree):
            for word in _words(text):
                if word in PLAIN_WORDS:
                    yield f"{file}:{line}: {word}: write {PLAIN_WORDS[word]!r}"


def _own_words(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in nodes(tree):
        match node:
            case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text) | ast.ClassDef(name=text):
                yield node.lineno, text
            case ast.arg(arg=text) | ast.Name(id=text, ctx=ast.Store()) | ast.Attribute(attr=text, ctx=ast.Store()):
                yield node.lineno, text
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def _words(text: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return re.findall(r"[a-z]+", apart.lower())


def formatter_off_elsewhere(trees: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield the places outside of literal tables at which the formatter is switched off."""
    for file, tree in trees.items():
        yield from formatted_by_hand(file, (ROOT / file).read_text(), tree)


def formatted_by_hand(file: str, text: str, tree: ast.Module) -> Iterator[str]:
    """Yield the lines that switch the formatter off and do not end the statement of a literal table."""
    tables = {node.end_lineno for node in nodes(tree) if isinstance(node, ast.stmt) and is_literal_table(node)}
    for line, content in enumerate(text.splitlines(), start=1):
        if content.endswith(FORMATTER_OFF) and line not in tables:
            yield f"{file}:{line}: {FORMATTER_OFF}: only a literal table keeps its layout; take it out"


def is_literal_table(statement: ast.stmt) -> bool:
    """Return whether a statement consists of a list, tuple, set or dict that is written out.

    It may be assigned, returned, or passed as the only argument of a call. Comprehensions and conditions make no table.
    """
    if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.Return | ast.Expr):
        return False
    value = statement.value
    if isinstance(value, ast.Call) and len(value.args) == 1 and not value.keywords:
        value = value.args[0]
    if not isinstance(value, ast.List | ast.Tuple | ast.Set | ast.Dict):
        return False
    return not any(isinstance(node, ast.IfExp | ast.comprehension | ast.Lambda) for node in ast.walk(value))


Check = Callable[[Mapping[str, ast.Module]], Iterable[str]]
CHECKS: Final[tuple[Check, ...]] = (clause_docstrings, vague_names, long_functions, metaphors, formatter_off_elsewhere)


class Review:
    """Findings of each check, files of each class name, and places at which the formatter is switched off."""

    def __init__(self) -> None:
        self.findings: dict[Check, list[str]] = {check: [] for check in CHECKS}
        self.classes: dict[str, list[str]] = defaultdict(list)
        self.formatter_off = 0


@functools.cache
def review() -> Review:
    """Read every file once and return what all checks of a tree have to say about it."""
    review = Review()
    for file, tree in read_sources():
        review.formatter_off += (ROOT / file).read_text().count(FORMATTER_OFF)
        for name, files in classes({file: tree}).items():
            review.classes[name] += files
        if file.startswith(PLAIN):
            for check in CHECKS:
                review.findings[check] += check({file: tree})
    return review


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_found_in_plain_packages(check: Check) -> None:
    assert review().findings[check] == []


def test_every_class_has_a_name_of_its_own() -> None:
    assert len(review().classes) > 500
    assert {name: files for name, files in review().classes.items() if len(files) > 1} == {}


def test_the_formatter_is_switched_off_at_few_places() -> None:
    """Keep the count in the whole distribution within today's bound. The aim is 60, all at literal tables."""
    count = review().formatter_off
    assert count <= MOST_FORMATTER_OFF, f"{count} places; let the formatter lay out all but literal tables"


def test_a_metaphor_is_found_by_whole_words() -> None:
    text = '''class DoorKeeper:
    """Keep the ledger of the supermarket."""

    purse_minor: int
    "Money at the belt."

    def knock(self, floor: int) -> None:
        self._breath = market(floor)
'''
    findings = {finding.split(": ")[1] for finding in metaphors({"a.py": ast.parse(text)})}
    assert findings == {"door", "purse", "belt", "knock", "floor", "breath"}


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("NAMES = (1, 2)", True),
        ("NAMES: Final = frozenset({1, 2})", True),
        ("rows.append((1, row.name))", True),
        ("NAMES = tuple(row for row in rows)", False),
        ("NAMES = (1, 2 if rows else 3)", False),
        ("send(1, key=2)", False),
        ("if rows: pass", False),
    ],
)
def test_the_formatter_leaves_literal_tables_alone(code: str, allowed: bool) -> None:
    text = f"{code}  {FORMATTER_OFF}"
    findings = list(formatted_by_hand("a.py", text, ast.parse(text)))
    assert (findings == []) is allowed


def test_the_checks_find_what_they_are_for() -> None:
    branches = "\n".join(f"    if found == {number}: pass" for number in range(LONGEST_FUNCTION))
    tree = {"a.py": ast.parse(f'def look(found):\n    """What is told of one."""\n{branches}\n')}
    assert [len(list(find(tree))) for find in (clause_docstrings, vague_names, long_functions)] == [1, 1, 2]
