"""`marketplace replay`: submits a file of leads through the API and reports a result per row."""

import asyncio
import contextlib
import csv
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec
import rich_click as click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from marketplace.demo.command import DATA, default_directory
from marketplace.demo.furnishing import OperatorClient, furnish
from marketplace.demo.installation import empty, fresh_directory, running
from marketplace.demo.provider import open_session
from marketplace.demo.run import verify_at
from marketplace.replay.mapping import DraftRow, MappingPlan, load_mapping
from marketplace.replay.replay import Replay, ReplayOutcome, ReplayRowResult, Totals, outcome_of, total
from marketplace.replay.rows import read_rows
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError
from marketplace.runtime.supervisor import stop_at_signals
from marketplace.runtime.terminal import JSON_FILE, write_json
from marketplace.text.spreadsheet import cell

SHIPPED: Final = files("marketplace.replay")
LINE_SECONDS: Final = 5.0
WORDS: Final = {
    ReplayOutcome.delivered: "delivered to one business each",
    ReplayOutcome.unsold: "qualified, and nobody could take them",
    ReplayOutcome.turned_down: "refused or never acknowledged by the one business that saw them",
    ReplayOutcome.nurtured: "too early, qualified again later",
    ReplayOutcome.rejected: "accepted, and rejected by the vertical's rules",
    ReplayOutcome.duplicate: "the same person as in an earlier row",
    ReplayOutcome.suppressed: "must not be contacted",
    ReplayOutcome.open: "not decided yet",
    ReplayOutcome.refused: "not accepted, because fields were not valid",
    ReplayOutcome.failed: "no answer",
}


class ReplayTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Service to which the rows are sent. `database_url` is set if the installation was started for the run."""

    url: str
    key: str
    database_url: str | None = None
    master_key: bytes = b""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--mapping",
    required=True,
    metavar="MAP.toml",
    help="Mapping of columns to fields: a file, or the name of a shipped mapping.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="N",
    help="Rows per second; 0 for as fast as possible.",
)
@click.option("--url", metavar="URL", help="URL of a running service; otherwise one is started.")
@click.option("--key", envvar="MARKETPLACE_KEY", metavar="KEY", help="API key of a provider of that service.")
@click.option("--as-of", type=click.DateTime(["%Y-%m-%d"]), help="Day from which relative times are counted.  [today]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Send only the first N rows.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="Write one line per row to this file.",
)
@DATA
@JSON_FILE
def replay(
    file: Path,
    mapping: str,
    speed: float,
    url: str | None,
    key: str | None,
    as_of: datetime | None,
    limit: int | None,
    results: Path | None,
    data: Path | None,
    json_file: Path | None,
) -> None:
    """Submit a file of leads through the API, row by row, and report the outcome of each.

    Without --url, a service is started for the run, with the vertical and the businesses of the mapping. The whole file
    is read before the first row is sent. An interrupted run can be repeated: a row that was accepted gets the same
    answer again. docs/REPLAY.md describes mappings.
    """
    plan = load_mapping(_mapping_path(mapping))
    day = (as_of or clock.now()).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC)
    drafts = read_rows(file, plan, day, limit)
    if url is not None and not key:
        raise StartError("key_missing", "Sending to a service takes a provider's key.", "Give it with --key.")
    with contextlib.ExitStack() as stack:
        if url and key:
            place: Path | ReplayTarget = ReplayTarget(url=url.rstrip("/"), key=key)
        else:
            place = stack.enter_context(fresh_directory(data or default_directory("replay")))
        sound = uvloop.run(_replay(plan, drafts, speed, place, results, json_file))
    if not sound:
        sys.exit(1)


def _mapping_path(named: str) -> Path:
    shipped = Path(str(SHIPPED)) / named
    return shipped if not Path(named).exists() and shipped.suffix == ".toml" and shipped.exists() else Path(named)


async def _replay(
    plan: MappingPlan,
    drafts: list[DraftRow],
    speed: float,
    place: Path | ReplayTarget,
    results: Path | None,
    json_file: Path | None,
) -> bool:
    """Run the replay. Return whether every row got an answer and verify, if the database is ours, found nothing."""
    console = Console()
    console.print(
        f"{len(drafts):,} rows. The people's names, telephone numbers and e-mail addresses are invented:"
        " one of each per row, from ranges reserved for that.",
        highlight=False,
    )
    stopping, hurrying = asyncio.Event(), asyncio.Event()
    stop_at_signals(stopping, hurrying)
    async with _target(plan, drafts, place, console) as target:
        async with open_session() as session:
            replay = Replay(session, target.url, target.key)
            marked = await replay.suppress(drafts)
            if marked:
                console.print(f"Suppressed first: {marked:,} who must not be contacted.", highlight=False)
            began = clock.monotonic()
            await _send(replay, drafts, speed, stopping, console)
            seconds = clock.monotonic() - began
            await replay.settle(hurrying)
        rows = replay.results(drafts)
        totals = total(rows, seconds)
        verification = await verify_at(target.database_url, target.master_key) if target.database_url else None
    _print(totals, rows, len(drafts), console)
    document: dict[str, Any] = msgspec.to_builtins(totals)
    if verification is not None:
        document["verify"] = {"checked": verification.checked, "findings": verification.findings}
        console.print(f"Verify: {verification.findings} findings by {verification.checked} checks.", highlight=False)
    write_json(json_file, document)
    _write_results(results, rows)
    return not totals.failed and not (verification and verification.findings)


@asynccontextmanager
async def _target(
    plan: MappingPlan, drafts: list[DraftRow], place: Path | ReplayTarget, console: Console
) -> AsyncIterator[ReplayTarget]:
    """Yield the service with the given URL, or start one with the mapping's vertical and businesses.

    Raises StartError if the mapping has neither, or the service does not start.
    """
    if isinstance(place, ReplayTarget):
        yield place
        return
    if plan.definition is None or not plan.businesses:
        raise StartError(
            "mapping_without_world",
            "This mapping has neither a definition nor businesses to start a service with.",
            "Add them, or name a running service with --url.",
        )
    console.print(f"Starting engines, API, workers and receivers in {place} …", highlight=False)
    await empty(place)
    behaviours = {business.slug: business.behaviour for business in plan.businesses}
    async with running(place, behaviours, None) as installation:
        async with open_session() as session:
            operator = OperatorClient(session, installation.url, installation.operator_key)
            made = await furnish(
                operator, place, {plan.vertical: plan.definition}, plan.businesses, expected_leads=len(drafts)
            )
        yield ReplayTarget(
            url=installation.url,
            key=made.provider_keys[0],
            database_url=installation.engines.database_url,
            master_key=installation.settings.master_key,
        )


async def _send(
    replay: Replay, drafts: list[DraftRow], speed: float, stopping: asyncio.Event, console: Console
) -> None:
    """Send the rows and show progress: a bar on a terminal, otherwise a line every few seconds."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("sending", total=len(drafts))
        line_at = clock.monotonic()

        def on_answer() -> None:
            nonlocal line_at
            progress.update(task, completed=len(replay.answers), description=_so_far(replay))
            if not console.is_terminal and clock.monotonic() - line_at > LINE_SECONDS:
                line_at = clock.monotonic()
                console.print(f"{len(replay.answers):,}/{len(drafts):,} rows  {_so_far(replay)}", highlight=False)

        await replay.send(drafts, speed, stopping, on_answer)


def _so_far(replay: Replay) -> str:
    counts = Counter(outcome_of(answer) for answer in replay.answers.values())
    return "  ".join(f"{outcome} {counts[outcome]:,}" for outcome in ReplayOutcome if counts[outcome])


def _print(totals: Totals, rows: list[ReplayRowResult], drafts: int, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for heading, justify in (("", "left"), ("rows", "right"), ("", "left"), ("most often because", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for outcome in ReplayOutcome:
        among = [row for row in rows if row.outcome is outcome]
        if among:
            reasons = Counter(
                reason for row in among for reason in row.reasons if outcome is not ReplayOutcome.delivered
            )
            why = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common(3))
            table.add_row(
                outcome, f"{len(among):,}", WORDS[outcome], why if outcome is not ReplayOutcome.nurtured else ""
            )
    console.print(table)
    left = f" of {drafts:,}" if drafts != totals.rows else ""
    console.print(
        f"{totals.rows:,}{left} rows in {totals.seconds:.1f} s,"
        f" {totals.rows / max(totals.seconds, 0.001):,.0f} a second; {totals.accepted:,} accepted.",
        highlight=False,
    )


def _write_results(path: Path | None, rows: list[ReplayRowResult]) -> None:
    """Write one line per row, with texts escaped so that no spreadsheet runs them as formulas."""
    if path is None:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("row", "id", "inquiry", "status", "outcome", "reasons"))
        for row in rows:
            values = (row.row, row.id, row.inquiry, row.status, row.outcome, " ".join(row.reasons))
            writer.writerow([cell(value) for value in values])
