"""Print the whole schema that the migrations make, for people to read: `make schema` writes migrations/schema.sql.

Definitions come from the catalogs of a migrated database, comments and the order of subjects from the files of
the migrations.
"""

import asyncio
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg

from marketplace.database.db import Queries
from marketplace.database.embedded import Postgres
from marketplace.database.migrate import SCHEMA_FILE, migrate, migrations_directory

WIDTH: Final = 120
MASTER_KEY: Final = bytes(32)
"""Of an installation that lives as long as this command: the names of its logins are not part of the schema."""
HEADING: Final = """\
-- The schema as all migrations together make it, for reading. Nothing applies this file.
-- Written by `make schema`; do not edit it. A change of the schema is a new migration.
--
-- A table stands with its indexes, triggers, policies and grants, under the migration that made it. Partitions are
-- left out: make_partitions() makes one for each month.
"""
DEFINITION: Final = re.compile(
    r"((?:^ *--.*\n)*)^ *create (?:or replace )?(?:constraint )?(?:unique )?"
    r"(?:table|view|function|index|trigger|policy) (?:concurrently )?(?:if not exists )?(\w+)(?:\(\s*(\w+) )?",
    re.MULTILINE,
)
QUOTED_OR_WORD: Final = re.compile(r"'(?:[^']|'')*'|[A-Za-z_]+")
TEXT: Final = re.compile(r"('(?:[^']|'')*')::text\b(?!\[)")
ANY_OF: Final = re.compile(r"= any \(array\[([^\]]*)\]\)")
PIECE: Final = re.compile(r"(?:'(?:[^']|'')*'|[^\s'])+")
SHORT_TYPES: Final = {"timestamp with time zone": "timestamptz", "integer": "int", "boolean": "bool"}

_queries = Queries(__file__, "schema.sql")

Rows = Mapping[int, list[asyncpg.Record]]
"""Rows of one catalog by the table they belong to."""


class Source(NamedTuple):
    """Place at which the migrations define an object: file, position, and comment of the last definition."""

    file: str
    position: int
    comment: str


RUNNER: Final = Source(file="0000_applied_migrations", position=0, comment="-- Kept by `marketplace migrate` itself.\n")


async def render(connection: "asyncpg.Connection[Any]") -> str:
    """Return the schema of the database as SQL, the same for every database that has the same migrations."""
    sources = read_sources(migrations_directory())
    texts = [*await _render_relations(connection, sources), *await _render_functions(connection)]
    parts, file = [HEADING], ""
    for source, text in sorted((sources.get(name, RUNNER), text) for name, text in texts):
        if source.file != file:
            file = source.file
            parts.append(_section(file))
        parts.append(source.comment + text)
    return "\n".join(parts)


def read_sources(directory: Path) -> dict[str, Source]:
    """Return where each object is defined first, with the last comment that a definition of it has."""
    sources: dict[str, Source] = {}
    for path in sorted(directory.glob("[0-9]*.sql")):
        for definition in DEFINITION.finditer(path.read_text()):
            comment, name = re.sub("^ +", "", definition[1], flags=re.MULTILINE), signature(*definition.groups()[1:])
            first = sources.get(name, Source(file=path.stem, position=definition.start(), comment=""))
            sources[name] = first._replace(comment=comment or first.comment)
    return sources


def signature(name: str, first_argument: str | None = None) -> str:
    """Return the name of an object; that of a function with its first argument, by which two of one name differ."""
    return f"{name}({first_argument}" if first_argument else name


def _section(file: str) -> str:
    number, _, subject = file.partition("_")
    title = subject.replace("_", " ").capitalize()
    if file != RUNNER.file:
        title += f" (migration {number})"
    return f"\n-- {title} {'-' * (WIDTH - 4 - len(title))}\n"


def _comment(sources: Mapping[str, Source], name: str) -> str:
    return sources[name].comment if name in sources else ""


async def _render_relations(
    connection: "asyncpg.Connection[Any]", sources: Mapping[str, Source]
) -> list[tuple[str, str]]:
    columns, constraints = (
        await _by_relation(connection, "list_columns"),
        await _by_relation(connection, "list_constraints"),
    )
    additions = [
        await _by_relation(connection, f"list_{kind}") for kind in ("indexes", "triggers", "policies", "grants")
    ]
    texts = []
    for relation in await connection.fetch(_queries["list_relations"]):
        oid = relation["oid"]
        if relation["is_view"]:
            text = f"create view {relation['name']} as\n{_view(relation['query'])}\n"
        else:
            lines = ",\n".join([*_columns(columns[oid]), *_constraints(constraints[oid])])
            ending = relation["partitions"].lower() + relation["options"]
            text = f"create table {relation['name']} (\n{lines}\n){ending};\n"
        if relation["has_policies"]:
            text += f"alter table {relation['name']} enable row level security;\n"
        texts.append((relation["name"], text + "".join(_additions(oid, additions, sources))))
    return texts


async def _by_relation(connection: "asyncpg.Connection[Any]", query: str) -> Rows:
    rows: dict[int, list[asyncpg.Record]] = defaultdict(list)
    for row in await connection.fetch(_queries[query]):
        rows[row["relation"]].append(row)
    return rows


def _columns(columns: Iterable[asyncpg.Record]) -> Iterator[str]:
    for column in columns:
        words = [column["name"], SHORT_TYPES.get(column["type"], column["type"])]
        if column["is_external"]:
            words.append("storage external")
        if column["required"]:
            words.append("not null")
        if column["is_identity"]:
            words.append("generated always as identity")
        elif column["is_generated"]:
            words.append(f"generated always as ({_plain(column['expression'])}) stored")
        elif column["expression"]:
            words.append(f"default {_plain(column['expression'])}")
        yield wrap(" ".join(words), "    ")


def _constraints(constraints: Iterable[asyncpg.Record]) -> Iterator[str]:
    for constraint in constraints:
        yield wrap(f"constraint {constraint['name']} {_plain(constraint['text'])}", "    ")


def _additions(relation: int, additions: Iterable[Rows], sources: Mapping[str, Source]) -> Iterator[str]:
    for rows in additions:
        for row in rows[relation]:
            yield f"{_comment(sources, row['name'])}{wrap(_plain(row['text']))};\n"


def _view(query: str) -> str:
    lines = _plain(query).splitlines()
    return "\n".join(wrap(line.strip(), line[: -len(line.lstrip())]) for line in lines)


async def _render_functions(connection: "asyncpg.Connection[Any]") -> list[tuple[str, str]]:
    texts = []
    for function in await connection.fetch(_queries["list_functions"]):
        head, _, body = function["text"].partition("\nAS $function$")
        head = " ".join(head.replace("CREATE OR REPLACE", "CREATE", 1).split())
        text = f"{wrap(_plain(head))} as $${body.strip().removesuffix('$function$')}$$;\n"
        if body.startswith("\n"):
            text = text.replace(" as $$", " as $$\n", 1)
        if not function["is_open"]:
            text += f"revoke all on function {function['name']} from public;\n"
        if function["callers"]:
            text += wrap(f"grant execute on function {function['name']} to {', '.join(function['callers'])}") + ";\n"
        texts.append((signature(function["name"], function["first_argument"]), text))
    return texts


def _plain(text: str) -> str:
    """Return a definition as the migrations write it: small letters, `in` for lists, no schema, no needless types."""
    text = QUOTED_OR_WORD.sub(lambda word: word[0] if word[0].startswith("'") else word[0].lower(), text)
    text = text.replace("public.", "").replace(" using btree ", " ")
    text = TEXT.sub(r"\1", text)
    text = ANY_OF.sub(r"in (\1)", text)
    for name, short in SHORT_TYPES.items():
        text = re.sub(rf"\b{name}\b", short, text)
    return text


def wrap(text: str, indent: str = "") -> str:
    """Return `text` in lines of at most WIDTH characters, broken between words and never inside a literal."""
    lines, line = [], indent
    for piece in PIECE.findall(text):
        if line.strip() and len(line) + 1 + len(piece) > WIDTH - 1:
            lines.append(line)
            line = indent + "    "
        line += f" {piece}" if line.strip() else piece
    return "\n".join([*lines, line])


async def _print_schema(home: Path) -> str:
    """Return the schema of a database made for this run in `home`."""
    postgres = Postgres(home)
    await postgres.start()
    try:
        await migrate(postgres.url, MASTER_KEY, reference_data=())
        connection = await asyncpg.connect(postgres.url)
        try:
            return await render(connection)
        finally:
            await connection.close()
    finally:
        await postgres.stop()


def main() -> None:
    """Write migrations/schema.sql anew."""
    with tempfile.TemporaryDirectory(prefix="marketplace-schema-") as directory:
        home = Path(directory)
        home.chmod(0o755)  # PostgreSQL may run as another account
        text = asyncio.run(_print_schema(home))
    (migrations_directory() / SCHEMA_FILE).write_text(text)


if __name__ == "__main__":
    main()
