"""The language and the shape of the code in figures, beside those of ten codebases that are read with ease.

python -m tests.house.measure --json build/measure.json

Counts marketplace, routing and billing. The figures of the others were taken from h11, procrastinate, River, pgqueuer,
TigerBeetle, Polar's server, structlog, httpx, starlette and warehouse.
"""

import ast
import functools
import io
import re
import subprocess
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import click
import msgspec

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("marketplace", "routing", "billing")
CLAUSE: Final = re.compile(
    r"(What|Whoever|Whatever|Whom|Whose|Where|When|Whether|How|Why|Which|Who|Of|As|In|For|At|By|With|Without|To|From|"
    r"Those|That|These|Beside|Between|Behind|On|After|Before|Until|Since|While|If|Under|Among|Amid|Besides)\b"
)
"The first word of a docstring that opens with a relative clause or a preposition."
VAGUE: Final = frozenset({
    "asked", "chosen", "found", "given", "good", "kept", "known", "one", "others", "rest", "said", "seen", "shown",
    "stood", "told", "wanted", "written",
})  # fmt: skip
"Participles and pronouns that say nothing about what a variable holds."
BRANCHES: Final = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.comprehension,
    ast.match_case,
    ast.Assert,
)
"Each of these adds a way through a function."
COMMITS: Final = 200

Function = ast.FunctionDef | ast.AsyncFunctionDef
Named = ast.Module | ast.ClassDef | Function


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A finding: the file, the line, and the words that were found there."""

    file: str
    line: int
    text: str


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: ours, and the span of the others."""

    name: str
    ours: str
    others: str


def read_sources() -> Iterator[tuple[str, ast.Module]]:
    """Yield the path and the syntax tree of each file of the three packages, one after another.

    All trees together take over 200 MB, and whatever the interpreter does then searches them for garbage.
    """
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


@functools.lru_cache(maxsize=1)
def nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Return all nodes of a file; those of the last file are stored, for one check after another."""
    return tuple(ast.walk(tree))


def dotted_name(expression: ast.expr) -> str:
    """Return a name with its attributes as it is written, such as `os.path.join`.

    Whatever else attributes are taken of is left out: `.join` for `f().join`. To write all calls of the packages out
    with `ast.unparse` takes seconds.
    """
    parts: list[str] = []
    while isinstance(expression, ast.Attribute):
        parts.append(expression.attr)
        expression = expression.value
    parts.append(expression.id if isinstance(expression, ast.Name) else "")
    return ".".join(reversed(parts))


def functions(trees: Mapping[str, ast.Module]) -> Iterator[tuple[str, Function]]:
    """Yield each function with its file, nested ones too."""
    for file, tree in trees.items():
        for node in nodes(tree):
            if isinstance(node, Function):
                yield file, node


def length(function: Function) -> int:
    """Return the lines of a function, its decorators apart."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def complexity(function: Function) -> int:
    """Return the cyclomatic complexity (McCabe, 1976): decisions plus one, boolean operators included."""
    count = 1
    for node in ast.walk(function):
        count += isinstance(node, BRANCHES)
        count += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
    return count


def docstrings(trees: Mapping[str, ast.Module]) -> Iterator[Place]:
    """Yield the first line of each docstring of a module, class or function."""
    for file, tree in trees.items():
        for node in nodes(tree):
            if isinstance(node, Named) and (text := ast.get_docstring(node)):
                yield Place(file=file, line=getattr(node, "lineno", 1), text=text.splitlines()[0])


def names(trees: Mapping[str, ast.Module]) -> Iterator[Place]:
    """Yield each parameter, field and variable where it gets its value."""
    for file, tree in trees.items():
        for node in nodes(tree):
            if isinstance(node, Function):
                arguments = node.args
                for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                    yield Place(file=file, line=argument.lineno, text=argument.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield Place(file=file, line=node.lineno, text=node.id)


def opens_with_a_clause(docstring: Place) -> bool:
    """Return whether the docstring begins with a relative clause or a preposition."""
    return CLAUSE.match(docstring.text) is not None


def classes(trees: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """Return the files of each class name, a file once for each of its classes of that name."""
    files: dict[str, list[str]] = defaultdict(list)
    for file, tree in trees.items():
        for node in nodes(tree):
            if isinstance(node, ast.ClassDef):
                files[node.name].append(file)
    return files


def shared_classes(trees: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """Return the class names that several files use, each with its files."""
    return {name: places for name, places in classes(trees).items() if len(places) > 1}


def code_lines(text: str) -> tuple[int, int]:
    """Return how many lines of a file have code, and how many tokens are on them."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in silent]
    return len({line for token in tokens for line in range(token.start[0], token.end[0] + 1)}), len(tokens)


def import_cycles(trees: Mapping[str, ast.Module]) -> int:
    """Return the number of modules that import each other in a circle, at import time."""
    module_of = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in trees}
    imports = {module: set(_imported(trees[file], module_of)) for module, file in module_of.items()}
    reached = {module: _reach(module, imports) for module in imports}
    return sum(module in reached[module] for module in imports)


def _imported(tree: ast.Module, modules: Iterable[str]) -> Iterator[str]:
    names_of_modules = set(modules)
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names_of_modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in names_of_modules or node.module in names_of_modules:
                    yield whole if whole in names_of_modules else node.module


def _reach(module: str, imports: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(imports[module])
    while waiting:
        current = waiting.pop()
        if current not in reached:
            reached.add(current)
            waiting += imports[current]
    return reached


def commit_sizes() -> list[int]:
    """Return the inserted lines of the last commits, lock files apart; empty outside a repository."""
    command = ("git", "log", f"-{COMMITS}", "--no-merges", "--numstat", "--format=%x00", "--", ".", ":!*.lock")
    log = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    rows = (re.findall(r"^(\d+)\t", commit, re.MULTILINE) for commit in log.stdout.split("\0")[1:])
    return sorted(sum(map(int, row)) for row in rows)


def percentile(values: list[int], share: float) -> int:
    """Return the value below which `share` of the sorted values lie."""
    return values[min(int(len(values) * share), len(values) - 1)] if values else 0


def measure() -> tuple[Figure, ...]:
    """Return all rows of the table."""
    trees = dict(read_sources())
    texts = {file: (ROOT / file).read_text() for file in trees}
    lengths = sorted(length(function) for _, function in functions(trees))
    lines, tokens = (sum(counts) for counts in zip(*map(code_lines, texts.values()), strict=True))
    openings = list(docstrings(trees))
    variables = Counter(place.text for place in names(trees))
    vague = sum(variables[name] for name in VAGUE)
    shared = shared_classes(trees)
    conditional = sum(isinstance(node, ast.IfExp) for tree in trees.values() for node in nodes(tree))
    sizes = commit_sizes()
    long = 1_000 * sum(each > 40 for each in lengths) / len(lengths)
    worst = max(complexity(function) for _, function in functions(trees))
    clauses = sum(map(opens_with_a_clause, openings))
    skips = sum(text.count("# fmt: skip") for text in texts.values())
    rows = (
        ("longest function, lines; 99th percentile", f"{lengths[-1]}; {percentile(lengths, 0.99)}", "95-764; 65-143"),
        ("functions over 40 lines per 1,000", f"{long:.1f}", "45-119"),
        ("highest cyclomatic complexity", f"{worst}", ""),
        ("longest file, lines", f"{max(text.count(chr(10)) for text in texts.values())}", "748-4,216"),
        ("modules in an import cycle", f"{import_cycles(trees)}", ""),
        ("docstrings that open with a clause", f"{100 * clauses / len(openings):.1f} % of {len(openings)}", "0-3 %"),
        ("variables named by a participle or pronoun", f"{100 * vague / variables.total():.1f} %", "0-1.3 %"),
        ("# fmt: skip", f"{skips}", "0"),
        ("tokens per code line", f"{tokens / lines:.1f}", "4-7"),
        ("conditional expressions per 1,000 lines", f"{1_000 * conditional / lines:.1f}", "0.5-12"),
        ("class names of several classes", f"{len(shared)} for {sum(map(len, shared.values()))}", "rare"),
        (
            f"inserted lines of the last {len(sizes)} commits, median; 90th percentile",
            f"{percentile(sizes, 0.5)}; {percentile(sizes, 0.9)}",
            "70; 372 (River)",
        ),
    )
    return tuple(Figure(name=name, ours=ours, others=others) for name, ours, others in rows)


@click.command()
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file too.")
@click.option("--where", is_flag=True, help="List each docstring, variable and class name that is counted.")
def main(json_file: Path | None, where: bool) -> None:
    """Print the figures of the code beside those of ten others."""
    figures = measure()
    width = max(len(figure.name) for figure in figures)
    click.echo(f"{'':{width}}  {'here':>16}  others")
    for figure in figures:
        click.echo(f"{figure.name:{width}}  {figure.ours:>16}  {figure.others}")
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    if where:
        trees = dict(read_sources())
        places = [place for place in docstrings(trees) if opens_with_a_clause(place)]
        places += [place for place in names(trees) if place.text in VAGUE]
        for place in places:
            click.echo(f"{place.file}:{place.line}: {place.text}")
        for name, files in sorted(shared_classes(trees).items()):
            click.echo(f"class {name}: {', '.join(files)}")


if __name__ == "__main__":
    main()
