"""The list of deliberate breaks fits the code: each text stands where the list says, and each test exists."""

import ast

import pytest

from tests.mutants.command import ROOT, Mutant, load_mutants

MUTANTS = load_mutants()


def test_the_list_has_some_sixty_breaks_with_names_of_their_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names))
    assert len(names) >= 55


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_break_changes_one_place_and_names_a_test_that_exists(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.before) == 1
    assert mutant.before != mutant.after
    file, _, test = mutant.test.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert test.partition("[")[0] in defined
