"""`make mutants`: break the code in one place at a time, and demand that the named test fails.

python -m tests.mutants.command --only NAME --json build/mutants.json

The breaks are listed in mutants.toml: a file, the text to replace, the text in its place, and the test that must fail.
Each is tried on a copy of the working tree; the tree itself is never changed.
"""

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

import click
import msgspec

ROOT: Final = Path(__file__).parents[2]
LIST: Final = Path(__file__).with_name("mutants.toml")
TEST_SECONDS: Final = 240.0
"Time for one test with its set-up; a break that makes its test run longer has not been noticed in time."


class Mutant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deliberate break: `before`, which stands once in `file`, becomes `after`, and `test` must fail."""

    name: str
    file: str
    before: str
    after: str
    test: str


class Verdict(StrEnum):
    """The outcome of one break."""

    killed = "killed"
    "The test failed, as it must."
    survived = "survived"
    "The test passed: nobody would notice this break."
    slow = "slow"
    "The test did not end in time."
    invalid = "invalid"
    "The text to replace does not stand there once, or the test could not run."


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one break, in how many seconds; `detail` names the test that failed."""

    name: str
    verdict: Verdict
    seconds: float
    detail: str


def load_mutants() -> tuple[Mutant, ...]:
    """Return all breaks of the list. Raises msgspec.ValidationError for an entry with other fields."""
    return msgspec.convert(tomllib.loads(LIST.read_text())["mutant"], tuple[Mutant, ...])


def apply(mutant: Mutant, tree: Path) -> None:
    """Put the break into `tree`. Raises ValueError where its text does not stand exactly once."""
    path = tree / mutant.file
    text = path.read_text()
    count = text.count(mutant.before)
    if count != 1:
        raise ValueError(f"the text to replace stands {count} times in {mutant.file}")
    path.write_text(text.replace(mutant.before, mutant.after))


def run_tests(tree: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Return pytest's exit code and its first failure, or without one the first line that it printed.

    Raises subprocess.TimeoutExpired.
    """
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    arguments = ("-m", "pytest", "-n", "0", "-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", *tests)
    with subprocess.Popen(
        (sys.executable, *arguments), cwd=tree, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as running:  # fmt: skip
        try:
            output, _ = running.communicate(timeout=TEST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, 9)
            raise
    lines = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return running.returncode, (lines or output.splitlines() or [""])[0].partition(" - ")[0]


def judge(mutant: Mutant, tree: Path) -> Outcome:
    """Try one break in `tree` and leave the tree as it was."""
    began = time.monotonic()
    path = tree / mutant.file
    original = path.read_text() if path.exists() else ""
    try:
        apply(mutant, tree)
        code, line = run_tests(tree, [mutant.test])
    except ValueError as error:
        return Outcome(name=mutant.name, verdict=Verdict.invalid, seconds=0.0, detail=str(error))
    except subprocess.TimeoutExpired:
        return Outcome(name=mutant.name, verdict=Verdict.slow, seconds=TEST_SECONDS, detail=mutant.test)
    finally:
        if original:
            path.write_text(original)
    verdict = Verdict.survived if code == 0 else Verdict.invalid
    if code == 1 and line.startswith("FAILED"):
        verdict = Verdict.killed
    return Outcome(name=mutant.name, verdict=verdict, seconds=round(time.monotonic() - began, 1), detail=line)


@contextmanager
def copies(count: int) -> Iterator["queue.SimpleQueue[Path]"]:
    """Copies of the working tree, without what is ignored; removed at the end."""
    listed = subprocess.run(
        ("git", "ls-files", "-co", "--exclude-standard"), cwd=ROOT, check=True, capture_output=True, text=True
    )
    directory = Path(tempfile.mkdtemp(prefix="marketplace-mutants-"))
    directory.chmod(0o755)  # the engines of the tests may run as another account
    trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
    try:
        for number in range(count):
            tree = directory / str(number)
            for name in listed.stdout.splitlines():
                if (ROOT / name).is_file():
                    (tree / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / name, tree / name)
            trees.put(tree)
        yield trees
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run(mutants: Sequence[Mutant], jobs: int) -> Iterator[Outcome]:
    """Try all breaks, `jobs` at a time, and yield each outcome as it is known."""
    with copies(jobs) as trees, ThreadPoolExecutor(jobs) as pool:

        def take_tree(mutant: Mutant) -> Outcome:
            tree = trees.get()
            try:
                return judge(mutant, tree)
            finally:
                trees.put(tree)

        yield from pool.map(take_tree, mutants)


def check_baseline(mutants: Iterable[Mutant]) -> None:
    """Run the named tests without any break. Raises click.ClickException unless all pass."""
    with copies(1) as trees:
        tree, tests = trees.get(), sorted({mutant.test for mutant in mutants})
        try:
            code, line = run_tests(tree, tests)
        except subprocess.TimeoutExpired:
            code, line = 1, "they did not end in time"
    if code != 0:
        raise click.ClickException(f"Without any break the named tests must pass, and they do not: {line}")


@click.command()
@click.option("--only", multiple=True, help="Names of the breaks to try; all if left out.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="How many at a time.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the outcomes to this file too.")
@click.option("--list", "listing", is_flag=True, help="List the breaks and try none.")
def main(only: tuple[str, ...], jobs: int, json_file: Path | None, listing: bool) -> None:
    """Try every break of mutants.toml; exit with 1 if a test did not notice its break."""
    mutants = load_mutants()
    unknown = set(only) - {mutant.name for mutant in mutants}
    if unknown:
        raise click.UsageError(f"There is no break named {', '.join(sorted(unknown))}; --list names them all.")
    mutants = tuple(mutant for mutant in mutants if not only or mutant.name in only)
    if listing:
        for mutant in mutants:
            click.echo(f"{mutant.name}\t{mutant.file}\t{mutant.test}")
        return
    outcomes = []
    for outcome in run(mutants, jobs):
        outcomes.append(outcome)
        click.echo(f"{len(outcomes):3}/{len(mutants)} {outcome.verdict:9} {outcome.name} ({outcome.detail})")
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes)))
    unnoticed = [outcome for outcome in outcomes if outcome.verdict is not Verdict.killed]
    click.echo(f"{len(outcomes) - len(unnoticed)} of {len(outcomes)} breaks were noticed by their tests.")
    for outcome in unnoticed:
        click.echo(f"  {outcome.verdict}: {outcome.name} ({outcome.detail})")
    check_baseline(mutants)
    if unnoticed:
        sys.exit(1)


if __name__ == "__main__":
    main()
