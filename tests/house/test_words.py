"""Each state and each reason that the rules can name explains itself, because the manual shows those very lines."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORES = ("routing", "billing")


def enums() -> Iterator[tuple[str, ast.ClassDef]]:
    for core in CORES:
        for path in sorted((ROOT / core).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and "StrEnum" in {ast.unparse(base) for base in node.bases}:
                    yield f"{path.stem}.{node.name}", node


def members(of: ast.ClassDef) -> Iterator[tuple[str, str, str | None]]:
    """Name, value and the line beneath each member."""
    for statement, below in zip(of.body, [*of.body[1:], None], strict=True):
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            name = ast.unparse(statement.targets[0])
            match below:
                case ast.Expr(value=ast.Constant(value=str(line))):
                    yield name, str(statement.value.value), line
                case _:
                    yield name, str(statement.value.value), None


@pytest.mark.parametrize("node", [pytest.param(node, id=name) for name, node in enums()])
def test_every_word_of_the_rules_has_a_line_that_explains_it(node: ast.ClassDef) -> None:
    own_members = list(members(node))
    assert own_members
    assert [name for name, _, line in own_members if not line or not line.strip().endswith(".")] == []


@pytest.mark.parametrize("node", [pytest.param(node, id=name) for name, node in enums()])
def test_every_word_is_stored_as_it_is_spelt(node: ast.ClassDef) -> None:
    assert [name for name, value, _ in members(node) if name != value] == []


def test_every_module_says_what_it_is_for() -> None:
    packages = ("marketplace", "routing", "billing")
    paths = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    assert [str(path.relative_to(ROOT)) for path in paths if not ast.get_docstring(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize("core", CORES)
def test_every_public_name_of_a_core_says_what_it_promises(core: str) -> None:
    silent = []
    for path in sorted((ROOT / core).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node) and not _is_list_of_words(node):
                silent.append(f"{path.stem}.{node.name}")
    assert silent == []


def _is_list_of_words(node: ast.stmt) -> bool:
    """An enum whose members explain themselves needs no more."""
    return isinstance(node, ast.ClassDef) and all(line for _, _, line in members(node)) and any(members(node))
