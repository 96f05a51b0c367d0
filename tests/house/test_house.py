"""The rules of the house that a machine can check."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.house.measure import dotted_name, nodes

ROOT = Path(__file__).parents[2]
PACKAGES = ("marketplace", "routing", "billing")
LOCKS = ("requirements.lock", "requirements-embedded.lock", "requirements-dev.lock", "requirements-browser.lock")
"""Each holds all of the one before it and more."""
LEARNING_LOCK = "requirements-learning.lock"
"""What trains points cards, beside an installation without engines."""
IMPURE = frozenset(
    (
        *(
            "asyncio",
            "ftplib",
            "http",
            "io",
            "logging",
            "multiprocessing",
            "os",
            "pathlib",
            "random",
            "secrets",
            "select",
        ),
        *(
            "selectors",
            "shutil",
            "signal",
            "smtplib",
            "socket",
            "sqlite3",
            "ssl",
            "subprocess",
            "tempfile",
            "threading",
        ),
        *("time", "urllib.request"),
    )
)
CLOCKS = frozenset(
    (
        *("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "os.urandom", "uuid.uuid1", "uuid.uuid4"),
        *("uuid4", "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter"),
    )
)
CHANCE = frozenset(("random", "secrets", "uuid_utils"))
NO_NAMES = frozenset(["utils", "helpers", "common", "models", "types", "base", "manager", "service"])
NOT_OURS = (
    "cl" + "aude",
    "anth" + "ropic",
    "chat" + "gpt",
    "open" + "ai",
    "/wo" + "rk/",
    "/tm" + "p/probe",
    "/sha" + "red/",
)
TEXT = {".py", ".sql", ".md", ".toml", ".yaml", ".yml", ".html", ".css", ".js", ".lock", ".txt", ""}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def texts() -> list[Path]:
    """Every file that we ship, as the version control sees it or else as it lies there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / line for line in listed.stdout.splitlines()]
    else:
        folders = ("marketplace", "routing", "billing", "migrations", "tests", "docs", "benchmarks")
        paths = [*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    return [path for path in paths if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts]


def imported(tree: ast.Module) -> Iterator[str]:
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module)


def test_the_import_contracts_hold() -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("core", ["routing", "billing"])
def test_a_core_knows_only_itself_msgspec_and_the_pure_part_of_the_standard_library(core: str) -> None:
    allowed = sys.stdlib_module_names | {core, "msgspec"} | ({"numpy"} if core == "billing" else set())
    strangers = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(core)
        for name in imported(ast.parse(path.read_text()))
        if name.split(".")[0] not in allowed or {name, name.split(".")[0]} & IMPURE
    ]
    assert strangers == []


def test_time_chance_and_ids_come_from_the_clock_alone() -> None:
    findings = []
    for path in sources(*PACKAGES):
        if path == ROOT / "marketplace" / "runtime/clock.py":
            continue
        tree = ast.parse(path.read_text())
        names = {dotted_name(node.func) for node in nodes(tree) if isinstance(node, ast.Call)}
        findings += [f"{path.relative_to(ROOT)}: {name}" for name in names if ".".join(name.split(".")[-2:]) in CLOCKS]
        findings += [f"{path.relative_to(ROOT)}: {name}" for name in imported(tree) if name.split(".")[0] in CHANCE]
    assert findings == []


def test_processes_connect_with_logins_of_their_own_and_only_migrations_as_the_owner() -> None:
    as_owner = {
        "database/db.py",
        "database/migrate.py",
        "database/doctor.py",
        "database/embedded.py",
        "demo/history/loading.py",
    }
    loose = []
    for path, call, name in _calls("marketplace"):
        inside = str(path.relative_to(ROOT / "marketplace"))
        keys = {keyword.arg for keyword in call.keywords}
        ours = not isinstance(call.func, ast.Attribute)
        keyless = (
            (name in ("open_pool", "connect") and ours and "master_key" not in keys)
            or (name == "migrate" and ours and len(call.args) < 2)
            or dotted_name(call.func) in ("asyncpg.connect", "asyncpg.create_pool")
            or name == "connect_owner"
        )
        if keyless and inside not in as_owner:
            loose.append(f"{inside}: {ast.unparse(call)}")
    assert loose == []


def _calls(package: str) -> Iterator[tuple[Path, ast.Call, str]]:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path, node, dotted_name(node.func).rpartition(".")[2]


def test_no_module_is_named_for_nothing() -> None:
    assert [str(path.relative_to(ROOT)) for path in sources(*PACKAGES) if path.stem in NO_NAMES] == []


def test_the_lock_pins_by_hash_and_names_no_host() -> None:
    for lock in ("requirements-build.lock", LEARNING_LOCK, *LOCKS):
        lines = (ROOT / lock).read_text().splitlines()
        pins = [number for number, line in enumerate(lines) if "==" in line]
        assert len(pins) > (3 if lock == "requirements-build.lock" else 50)
        assert all("--hash=sha256:" in lines[number + 1] for number in pins)
        assert not [line for line in lines if "://" in line or line.startswith(("-", "django=="))]


def pins(lock: str) -> set[str]:
    """Each package of a lock with its version, as `name==version`."""
    return {line.split(" ")[0] for line in (ROOT / lock).read_text().splitlines() if "==" in line}


def packages(lock: str) -> set[str]:
    return {pin.partition("==")[0] for pin in pins(lock)}


def test_each_lock_holds_all_of_the_one_before_it() -> None:
    for smaller, larger in pairwise(LOCKS):
        assert pins(smaller) <= pins(larger), larger
    assert pins("requirements.lock") <= pins(LEARNING_LOCK) <= pins("requirements-dev.lock")


def test_an_image_has_neither_engines_nor_build_tools_nor_what_trains() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    engines = set(project["project"]["optional-dependencies"]["embedded"])
    tools = set(project["build-system"]["requires"])
    assert set(project["dependency-groups"]["build"]) == tools
    learning = set(project["project"]["optional-dependencies"]["learning"])
    assert not (engines | tools | learning) & packages("requirements.lock")
    assert learning <= packages(LEARNING_LOCK)
    assert engines <= packages("requirements-embedded.lock")
    assert tools <= packages("requirements-build.lock")
    dockerfile = (ROOT / "Dockerfile").read_text()
    installed = re.findall(r"(\S+)/bin/pip install .*-r (\S+)", dockerfile)
    assert installed == [("/srv/venv", "requirements.lock"), ("/build/venv", "requirements-build.lock")]
    assert re.findall(r"COPY --from=build (\S+)", dockerfile) == ["/srv/venv"]
    assert {f"!{lock}" for _, lock in installed} <= set((ROOT / ".dockerignore").read_text().split())


def test_the_project_speaks_of_itself_alone() -> None:
    findings = []
    for path in texts():
        if path == Path(__file__):
            continue
        text = path.read_text(errors="replace").lower()
        findings += [f"{path.relative_to(ROOT)}: {word}" for word in NOT_OURS if word in text]
    assert findings == []


def test_nothing_is_left_to_do_later() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "X" * 3)
    findings = [
        f"{path.relative_to(ROOT)}: {mark}"
        for path in texts()
        if path.suffix in (".py", ".sql")
        for mark in marks
        if mark in path.read_text()
    ]
    assert findings == []
