"""The demo as people run it: real engines, real processes, real receivers, and real kills."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketplace.demo.installation import RECEIVERS
from marketplace.demo.receivers import read_visits
from tests.builders.forks import run

ROOT = Path(__file__).parents[3]
PARTS = ("rejected", "duplicates", "suppressed", "nurtured", "delivered", "turned_down", "unsold", "open")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the account of PostgreSQL may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="marketplace-demo-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def start(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    clean = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "VALKEY_URL")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "marketplace.cli",
        "demo",
        "--data",
        str(directory),
        *arguments,
        cwd=ROOT,
        env=clean,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def until_a_lead_has_arrived(directory: Path) -> None:
    async with asyncio.timeout(100):
        while not read_visits(directory / RECEIVERS):  # noqa: ASYNC110 - another process writes them
            await asyncio.sleep(0.1)


async def finish(process: asyncio.subprocess.Process) -> str:
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    return output.decode()


def check(result: dict[str, Any]) -> None:
    """Check a run: the counts add up, no promise was broken, and no business saw another one's lead."""
    assert result["received"] == sum(result[part] for part in PARTS)
    assert result["sent"] == result["received"] + result["refused"] + result["repeated"]
    assert result["verify"]["checked"] > 10
    assert result["verify"]["findings"] == 0
    sight = result["receivers"]
    assert (sight["seen_by_two"], sight["not_theirs"], sight["bad_signatures"]) == (0, 0, 0)
    assert result["failed"] == result["open"] == 0
    money = result["money"]
    assert money["held_minor"] == 0
    assert money["margin_minor"] == money["captured_minor"] - money["paid_to_providers_minor"]
    assert result["delivered"] > 0
    assert result["sound"]


async def test_a_demo_sells_leads_and_every_promise_is_kept(place: Path) -> None:
    directory, file = place / "demo", place / "out.json"
    process = await start(directory, "--duration", "3", "--rate", "30", "--weeks", "2", "--json", str(file))
    output = await finish(process)
    assert process.returncode == 0, output
    result = msgspec.json.decode(file.read_bytes())
    check(result)
    assert result["received"] < 200  # the live run alone
    assert "2 weeks of history, marked as demo data" in output
    assert result["latency_ms"]["p50"] <= result["latency_ms"]["p99"]
    assert result["nurture"]["waiting"] == result["nurtured"]
    assert result["nurture"]["sold_after_answer"] <= min(result["nurture"]["with_question"], result["nurture"]["sold"])
    assert result["nurture"]["sold"] <= min(result["nurture"]["reentered"], result["promoted"])
    assert result["certificates"]["claimed"] > 0
    joined = result["joined"]
    assert joined["shared_payouts"] <= joined["in_time"] <= joined["inquiries"] <= result["duplicates"]
    for words in (
        "Outcomes of the inquiries",
        "People who came back",
        "Unsold",
        "Money",
        "0 findings",
        "left for the marketplace",
    ):
        assert words in output


async def test_nothing_is_lost_when_a_worker_valkey_and_postgres_are_killed_in_the_middle(place: Path) -> None:
    directory, file = place / "demo", place / "out.json"
    process = await start(directory, "--duration", "6", "--rate", "8", "--weeks", "0", "--json", str(file))
    await until_a_lead_has_arrived(directory)
    for name in ("workers", "valkey", "postgres"):
        pids = msgspec.json.decode((directory / "pids.json").read_bytes())[name]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[0] if isinstance(pids, list) else pids, signal.SIGKILL)
        await asyncio.sleep(1.0)
    output = await finish(process)
    assert process.returncode == 0, output
    result = msgspec.json.decode(file.read_bytes())
    check(result)
    assert result["restarts"] >= 1


async def test_ctrl_c_ends_a_demo_early_with_its_report(place: Path) -> None:
    directory, file = place / "demo", place / "out.json"
    process = await start(directory, "--duration", "300", "--rate", "20", "--weeks", "0", "--json", str(file))
    await until_a_lead_has_arrived(directory)
    process.send_signal(signal.SIGINT)
    output = await finish(process)
    assert process.returncode == 0, output
    result = msgspec.json.decode(file.read_bytes())
    check(result)
    assert result["seconds"] < 200


async def refuse(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a demo that ends before it has started anything."""
    ran = await run("demo", "--data", str(directory), *arguments, **environment)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran


async def test_a_demo_refuses_a_database_that_may_be_somebody_elses(place: Path) -> None:
    ran = await refuse(place / "demo", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert "--on-external-engines" in ran.stderr


async def test_a_demo_refuses_a_directory_that_holds_something_else(place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "letter.txt").write_text("dear")
    ran = await refuse(place / "mine")
    assert "holds something else" in " ".join(ran.stderr.split())
    assert (place / "mine" / "letter.txt").read_text() == "dear"


async def test_a_demo_longer_than_there_are_reserved_numbers_is_refused(place: Path) -> None:
    ran = await refuse(place / "demo", "--duration", "1000000")
    assert "telephone numbers" in " ".join(ran.stderr.split())
