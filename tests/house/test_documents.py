"""Statements of the documents, each held to the code: diagrams, variables, commands, targets, routes, names, links."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from marketplace import BRAND
from marketplace.app import create_app
from marketplace.cli import marketplace
from marketplace.database.embedded import Engines
from marketplace.runtime.settings import load
from routing.lifecycle import ASSIGNMENT_MOVES, LEAD_MOVES, diagram
from tests.conftest import SECRETS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "ARCHITECTURE.md"
COMMANDS = ROOT / "docs" / "COMMANDS.md"
CONFIGURATION = ROOT / "docs" / "CONFIGURATION.md"
LONGEST_README = 10_000
"""Characters, so that it is read to its end. What people look up is in docs/."""
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})
SOURCES = ("marketplace", "routing", "billing", "migrations", "tests")
TOP_FOLDERS = (*SOURCES, "benchmarks", "docs")
HEADINGS = ["Context", "Decision", "Consequences", "Alternatives", "Enforced by"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
VARIABLE = re.compile(r"\b(?:MARKETPLACE_[A-Z_]+|DATABASE_URL|VALKEY_URL)\b")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
CALL = re.compile(r"(?:as \$\w+ |\$API)(/[^\s\"')]*)([^|\n]*)")
ROUTE = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) (/[^\s`\"?]+)")

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(document.relative_to(ROOT)) for document in DOCUMENTS]
)


def fences(document: Path, language: str) -> list[str]:
    return [text for name, text in FENCE.findall(document.read_text()) if name == language]


def prose(document: Path) -> str:
    return FENCE.sub("", document.read_text())


def code_spans(document: Path) -> list[str]:
    return CODE_SPAN.findall(prose(document))


def commands(group: click.Command, name: str = "marketplace") -> Iterator[str]:
    """Every command that does something, by its whole name."""
    if not isinstance(group, click.Group):
        yield name
        return
    context = click.Context(group)
    for one in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [one])
        assert command is not None
        yield from commands(command, f"{name} {one}")


def answers(described: str, path: str) -> bool:
    """Return whether a path with names in it, `$LEAD` or `{id}` or `roofing`, is among the described paths."""
    return re.fullmatch(re.sub(r"\{[^}]*\}", "[^/:]+", described), path.partition("?")[0]) is not None


def test_the_life_tables_in_the_architecture_are_those_of_the_code() -> None:
    drawn = [text.strip() for text in fences(ARCHITECTURE, "mermaid") if text.startswith("stateDiagram")]
    assert drawn == [diagram(LEAD_MOVES), diagram(ASSIGNMENT_MOVES)]


def test_the_configuration_page_explains_exactly_the_variables_that_the_settings_read() -> None:
    read = set(VARIABLE.findall((ROOT / "marketplace" / "runtime/settings.py").read_text()))
    rows = [line.split("|")[1] for line in CONFIGURATION.read_text().splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in VARIABLE.findall(row)} == read
    for page in (README, COMMANDS, CONFIGURATION):
        assert set(VARIABLE.findall(page.read_text())) <= read


def test_the_commands_page_names_every_command() -> None:
    spans = {" ".join(span.split()) for span in code_spans(COMMANDS)}
    assert [name for name in commands(marketplace) if name not in spans] == []


def test_the_readme_is_short_bears_the_name_of_the_product_and_leads_to_every_page() -> None:
    text = README.read_text()
    assert text.startswith(f"# {BRAND}\n")
    assert len(text) <= LONGEST_README
    linked = {(ROOT / path).resolve() for path, _ in LINK.findall(text)}
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page not in linked] == []


@each_document
def test_every_command_that_a_document_names_exists(document: Path) -> None:
    names = {name.split()[1] for name in commands(marketplace)}
    text = "\n".join([*fences(document, "sh"), *code_spans(document)])
    named = set(re.findall(r"(?:^|[/(]|\b)marketplace ([a-z]+)\b", text, re.MULTILINE))
    assert named <= names


@each_document
def test_every_make_target_that_a_document_names_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join([*fences(document, "sh"), *code_spans(document)])
    assert set(re.findall(r"(?:^|\s)make ([a-z]+)\b", text, re.MULTILINE)) <= targets


@each_document
def test_every_link_inside_the_project_leads_somewhere(document: Path) -> None:
    lost = []
    for path, anchor in LINK.findall(prose(document)):
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(f"{path}#{anchor}")
    assert lost == []


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_document
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    named = {
        span.split(" ")[0] for span in code_spans(document) if span.startswith(tuple(f"{top}/" for top in TOP_FOLDERS))
    }
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_constraint_limit_and_function_that_the_architecture_names_is_in_the_source() -> None:
    names = {span.removesuffix("()") for span in code_spans(ARCHITECTURE)}
    names = {name for name in names if re.fullmatch(r"[A-Za-z]+(_[A-Za-z]+)+", name)}
    texts = [path.read_text() for top in SOURCES for path in (ROOT / top).rglob("*") if path.suffix in (".py", ".sql")]
    words = set(re.findall(r"\w+", "\n".join(texts)))
    assert len(names) > 50
    assert sorted(names - words) == []


def test_every_call_in_the_documents_is_one_that_the_service_answers() -> None:
    settings = load(SECRETS | {"DATABASE_URL": "postgresql://nowhere/none", "VALKEY_URL": "unix:///nowhere"})
    app = create_app(settings, Engines(database_url="postgresql://nowhere/none", valkey_url="unix:///nowhere"))
    document = msgspec.json.decode(app.state.openapi)
    assert document["info"]["title"] == BRAND
    described = document["paths"]
    answered = [(method.upper(), path) for path, methods in described.items() for method in methods]
    answered += [("GET", f"/{name}") for name in ("healthz", "readyz", "metrics", "docs", "openapi.json")]
    called = {call for document in DOCUMENTS for call in calls(document)}
    assert len(called) > 10
    lost = [
        f"{method} {path}"
        for method, path in called
        if not any(method == verb and answers(form, path) for verb, form in answered)
    ]
    assert lost == []


def calls(document: Path) -> Iterator[tuple[str, str]]:
    """Method and path of every example, and of every route that the prose names."""
    for path, options in CALL.findall("\n".join(fences(document, "sh"))):
        stated = re.search(r"-X ([A-Z]+)", options)
        yield stated[1] if stated else "POST" if " -d " in options else "GET", path
    for method, path in ROUTE.findall("\n".join(code_spans(document))):
        yield method, path


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    titles = [page.read_text().splitlines()[0] for page in DECISIONS]
    assert [title.split(".")[0] for title in titles] == [f"# {number}" for number in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("page", DECISIONS, ids=[page.stem for page in DECISIONS])
def test_a_decision_has_its_five_parts_in_order(page: Path) -> None:
    assert re.findall(r"^\*\*([^*]+)\.\*\*", page.read_text(), re.MULTILINE) == HEADINGS
