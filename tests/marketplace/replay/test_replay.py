"""Replays as people run them: a small file, a real installation, and the same file again."""

import asyncio
import csv
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from marketplace.demo.furnishing import OperatorClient, furnish
from marketplace.demo.installation import fresh_directory, running
from marketplace.demo.provider import SubmissionAnswer, open_session
from marketplace.replay.mapping import DraftRow, load_mapping
from marketplace.replay.replay import Replay, ReplayOutcome, ReplayRowResult, outcome_of, total
from marketplace.replay.rows import read_rows
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError
from tests.builders.forks import run
from tests.receivers import Receiver, status

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "marketplace" / "replay" / "education_leads.toml"
COLUMNS = load_mapping(SHIPPED).columns()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the account of PostgreSQL may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="marketplace-replay-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def write_file(path: Path) -> Path:
    """Ten rows: six to sell, one unsold, one too early, one rejected, one not to be contacted."""
    row = dict.fromkeys(COLUMNS, "")
    good = row | {
        "Specialization": "Finance Management",
        "What is your current occupation": "Working Professional",
        "Country": "India",
        "Do Not Call": "No",
        "Do Not Email": "No",
        "Lead Origin": "Landing Page Submission",
    }
    rows = [good | {"Prospect ID": f"good-{number}"} for number in range(6)]
    rows.append(good | {"Prospect ID": "nowhere", "Country": "Uganda", "Specialization": "Rural and Agribusiness"})
    rows.append(good | {"Prospect ID": "early", "Lead Origin": "Lead Import"})
    rows.append(row | {"Prospect ID": "thin", "Total Time Spent on Website": "60.0", "Country": "India"})
    rows.append(good | {"Prospect ID": "leave-alone", "Do Not Email": "Yes"})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def drafts_of(path: Path) -> list[DraftRow]:
    return read_rows(path, load_mapping(SHIPPED), clock.now().replace(hour=0, minute=0, second=0, microsecond=0))


async def test_a_file_is_replayed_with_a_result_per_row_and_counts_that_add_up(place: Path) -> None:
    file, results, out = write_file(place / "rows.csv"), place / "results.csv", place / "out.json"
    ran = await run(
        "replay",
        str(file),
        "--mapping",
        "education_leads.toml",
        "--data",
        str(place / "data"),
        "--json",
        str(out),
        "--results",
        str(results),
        **os.environ,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = msgspec.json.decode(out.read_bytes())
    assert result["rows"] == 10
    assert result["rows"] == sum(result[name] for name in ("accepted", "duplicate", "suppressed", "refused", "failed"))
    assert result["accepted"] == sum(
        result[name] for name in ("rejected", "nurtured", "delivered", "turned_down", "unsold", "open")
    )
    parts = ("delivered", "unsold", "nurtured", "rejected", "suppressed")
    assert [result[name] for name in parts] == [6, 1, 1, 1, 1]
    assert result["verify"]["findings"] == 0
    with results.open(newline="") as lines:
        outcomes = {line["id"]: line["outcome"] for line in csv.DictReader(lines)}
    assert outcomes["good-0"] == "delivered"
    assert outcomes["leave-alone"] == "suppressed"
    assert "invented" in ran.stdout + ran.stderr


async def test_the_same_file_again_gives_every_row_the_same_answer_and_sells_nobody_twice(place: Path) -> None:
    plan, drafts = load_mapping(SHIPPED), drafts_of(write_file(place / "rows.csv"))
    assert plan.definition is not None
    behaviours = {business.slug: business.behaviour for business in plan.businesses}
    with fresh_directory(place / "data") as directory:
        async with running(directory, behaviours, 1) as installation, open_session() as session:
            operator = OperatorClient(session, installation.url, installation.operator_key)
            made = await furnish(
                operator, directory, {plan.vertical: plan.definition}, plan.businesses, expected_leads=20
            )
            runs = []
            for _ in range(2):
                sender = Replay(session, installation.url, made.provider_keys[0])
                assert await sender.suppress(drafts) == 1
                await sender.send(drafts, 0.0, asyncio.Event(), lambda: None)
                await sender.settle(asyncio.Event())
                runs.append(sender.results(drafts))
    assert runs[0] == runs[1]
    assert sum(result.outcome is ReplayOutcome.delivered for result in runs[0]) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{missing}", "--mapping", "education_leads.toml"), "none.csv cannot be read"),
        (("{file}", "--mapping", "none.toml"), "none.toml cannot be read"),
        (("{file}", "--mapping", "education_leads.toml", "--url", "http://127.0.0.1:9"), "takes a provider's key"),
    ],
)
async def test_what_cannot_be_replayed_is_said_in_a_sentence(
    arguments: tuple[str, ...], words: str, place: Path
) -> None:
    names = {"file": str(write_file(place / "rows.csv")), "missing": str(place / "none.csv")}
    ran = await run("replay", *(argument.format_map(names) for argument in arguments), **os.environ)
    assert ran.returncode == 1
    assert words in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("status", "state", "outcome"),
    [
        (200, "delivered", ReplayOutcome.delivered),
        (200, "refused", ReplayOutcome.turned_down),
        (202, "received", ReplayOutcome.open),
        (200, "duplicate", ReplayOutcome.duplicate),
        (422, None, ReplayOutcome.refused),
        (503, None, ReplayOutcome.failed),
        (0, None, ReplayOutcome.failed),
    ],
)
def test_each_answer_has_one_outcome(status: int, state: str | None, outcome: ReplayOutcome) -> None:
    assert outcome_of(SubmissionAnswer(status=status, state=state)) is outcome


def test_totals_add_up_whatever_the_outcomes() -> None:
    rows = [
        ReplayRowResult(row=number, id=str(number), inquiry="", status=200, outcome=outcome, reasons=())
        for number, outcome in enumerate(ReplayOutcome)
    ]
    result = msgspec.to_builtins(total(rows, 1.0))
    assert result["rows"] == len(ReplayOutcome)
    assert result["accepted"] == len(ReplayOutcome) - 4


async def test_a_service_that_is_busy_is_asked_again_to_suppress_a_person() -> None:
    person = {"phone": "+15550100", "email": "ann@example.com"}
    draft = DraftRow(number=1, id="leave-alone", contact=person, body=b"{}", suppressed=True)
    async with Receiver(status(503), status(201)) as server, open_session() as session:
        replay = Replay(session, server.url.removesuffix("/hook"), "lk_test")
        assert await replay.suppress([draft]) == 1
    assert [visit.raw.split(b" ")[1] for visit in server.visits] == [b"/v1/suppressions"] * 2


async def test_a_refusal_to_suppress_a_person_ends_the_replay_before_the_first_row() -> None:
    draft = DraftRow(number=1, id="x", contact={"phone": "1", "email": "2"}, body=b"{}", suppressed=True)
    async with Receiver(status(422)) as server, open_session() as session:
        with pytest.raises(StartError, match=r"could not be suppressed \(422\)"):
            await Replay(session, server.url.removesuffix("/hook"), "lk_test").suppress([draft])
