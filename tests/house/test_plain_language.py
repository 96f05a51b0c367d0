"""Plain words and small functions (HOUSE.md 1): checked in every package that is listed as plain.

Each finding names the place and what to write instead. A package joins PLAIN when it has no finding, and never leaves.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import pytest

from tests.house.measure import (
    VAGUE,
    complexity,
    docstrings,
    functions,
    length,
    names,
    opens_with_a_clause,
    shared_classes,
    sources,
)

PLAIN: Final = (
    "billing/",
    "routing/",
    "marketplace/delivery/",
    "marketplace/erasure/",
    "marketplace/feed/",
    "marketplace/feedback/",
    "marketplace/funds/",
    "marketplace/portal/business/",
    "marketplace/portal/operator/",
    "marketplace/portal/__init__.py",
    "marketplace/portal/account_access.py",
    "marketplace/portal/assets.py",
    "marketplace/portal/charts.py",
    "marketplace/portal/command.py",
    "marketplace/portal/flow.py",
    "marketplace/portal/forms.py",
    "marketplace/portal/frame.py",
    "marketplace/portal/http.py",
    "marketplace/portal/listing.py",
    "marketplace/portal/live.py",
    "marketplace/portal/members.py",
    "marketplace/portal/navigation.py",
    "marketplace/portal/passwords.py",
    "marketplace/portal/session.py",
    "marketplace/portal/signin.py",
    "marketplace/portal/store.py",
    "marketplace/portal/provider/",
    "marketplace/receipts/",
    "marketplace/reports/",
    "marketplace/webhook/",
)
"Beginnings of the paths in which nothing may be found."
JSON_NAMES: Final = frozenset(
    {
        ("marketplace/feedback/wire.py", "good"),
        ("marketplace/reports/funnel.py", "stood"),
        ("routing/qualification.py", "wanted"),
    }
)
"Fields that callers read by this name, or that rules in force are stored with."
LONGEST_FUNCTION: Final = 60
"Lines of a function, its decorators apart."
MOST_COMPLEX: Final = 15
"McCabe's cyclomatic complexity of a function."


def plain_sources() -> dict[str, ast.Module]:
    """Return the syntax tree of each file that must be plain, by path."""
    return {file: tree for file, tree in sources().items() if file.startswith(PLAIN)}


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


@pytest.mark.parametrize("find", [clause_docstrings, vague_names, long_functions])
def test_nothing_is_found_in_plain_packages(find: Callable[[Mapping[str, ast.Module]], Iterable[str]]) -> None:
    assert list(find(plain_sources())) == []


def test_every_class_has_a_name_of_its_own() -> None:
    assert shared_classes(sources()) == {}


def test_the_checks_find_what_they_are_for() -> None:
    branches = "\n".join(f"    if found == {number}: pass" for number in range(LONGEST_FUNCTION))
    tree = {"a.py": ast.parse(f'def look(found):\n    """What is told of one."""\n{branches}\n')}
    assert [len(list(find(tree))) for find in (clause_docstrings, vague_names, long_functions)] == [1, 1, 2]
