"""`marketplace demo`: starts an installation, sends a live stream of inquiries, and prints a report."""

import asyncio
import math
import os
import sys
from pathlib import Path

import rich_click as click
import uvloop
from rich.console import Console

from marketplace.demo.display import Display
from marketplace.demo.furnishing import POOR_PROVIDER
from marketplace.demo.installation import empty, fresh_directory, refuse_external
from marketplace.demo.report import print_report, summary
from marketplace.demo.run import DemoRun, DemoScene, RunOptions, RunResult, furnished
from marketplace.demo.visitors import link_in
from marketplace.runtime import clock
from marketplace.runtime.supervisor import stop_at_signals
from marketplace.runtime.terminal import JSON_FILE, write_json

SEED = 2026
GENTLY = 5 / 60
"""Inquiries per second after the run with --stay: few enough to follow them in the portal."""


DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Directory for all data of the run.",
)
EXTERNAL = click.option(
    "--on-external-engines", is_flag=True, help="Write invented people to DATABASE_URL and VALKEY_URL."
)


@click.command()
@click.option(
    "--duration", type=click.FloatRange(min=1), default=20.0, metavar="SECONDS", help="Duration of the stream."
)
@click.option("--rate", type=click.FloatRange(min=0.1), default=50.0, metavar="N", help="Inquiries per second.")
@click.option("--seed", type=int, default=SEED, metavar="N", help="Seed of the businesses and the stream.")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Worker processes.")
@click.option(
    "--weeks",
    type=click.FloatRange(0, 26),
    default=6.0,
    metavar="N",
    help="Weeks of invented history before the run; 0 for none.",
)
@click.option("--stay", is_flag=True, help="Keep running afterwards with few inquiries, until Ctrl-C.")
@DATA
@EXTERNAL
@JSON_FILE
def demo(
    duration: float,
    rate: float,
    seed: int,
    workers: int | None,
    weeks: float,
    stay: bool,
    data: Path | None,
    on_external_engines: bool,
    json_file: Path | None,
) -> None:
    """Show the whole marketplace at work on a live stream of invented people.

    Starts engines, API, workers and the receivers of 37 businesses as real processes, sends inquiries for some seconds,
    and reports their outcomes. Exits with 1 if a promise was broken. Ctrl-C ends the stream early, with the report.
    """
    refuse_external(os.environ, allowed=on_external_engines)
    wish = RunOptions(
        duration=duration,
        rate=rate,
        seed=seed,
        workers=workers,
        external=on_external_engines,
        weeks=weeks,
        returning=True,
        certified=True,
    )
    with fresh_directory(data or default_directory("demo")) as directory:
        sound = uvloop.run(_demo(directory, wish, json_file, stay=stay))
    if not sound:
        sys.exit(1)


def default_directory(name: str) -> Path:
    """Return the default directory of a run: a subdirectory of MARKETPLACE_DATA, or of .data."""
    return Path(os.environ.get("MARKETPLACE_DATA", "").strip() or ".data") / name


async def _demo(directory: Path, wish: RunOptions, json_file: Path | None, *, stay: bool) -> bool:
    """Run the demo. Return whether no promise was seen broken."""
    console, began = Console(), clock.monotonic()
    console.print(f"Starting engines, API, workers and receivers in {directory} …", highlight=False)
    await empty(directory)
    stopping, hurrying = asyncio.Event(), asyncio.Event()
    stop_at_signals(stopping, hurrying)
    async with furnished(directory, wish) as scene:
        _print_scene(scene, wish, console, clock.monotonic() - began)
        with Display(console) as display:
            run = DemoRun(scene, wish, display.show)
            result = await run.perform(stopping, hurrying)
        print_report(result, console)
        write_json(json_file, summary(result))
        if stay:
            await _print_ways(scene, result, console)
            stopping.clear()
            run.stream.rate = GENTLY
            await run.stream.run(math.inf, stopping)
    if not stay:
        console.print(
            "\nTo look around, signed in as a business, a provider and the operator: make demo STAY=1, or --stay."
            f" Logs and data: {directory}.",
            highlight=False,
            soft_wrap=True,
        )
    return result.sound


def _print_scene(scene: DemoScene, wish: RunOptions, console: Console, seconds: float) -> None:
    installation = scene.installation
    console.print(
        f"Up in {seconds:.1f} s: {len(scene.world.verticals)} verticals, {len(scene.world.businesses)} businesses,"
        f" {len(scene.furnished.providers)} providers, {installation.settings.workers} workers."
        f" Handbook {installation.settings.public_url}/docs\n"
        f"{_history_in_words(scene, wish)}"
        f"Sending {wish.rate:g} inquiries a second for {wish.duration:g} s, seed {wish.seed}."
        f" Process ids are in {installation.directory / 'pids.json'}.",
        highlight=False,
        soft_wrap=True,
    )


def _history_in_words(scene: DemoScene, wish: RunOptions) -> str:
    """Describe the history before the stream in one line; empty if none was requested."""
    past = scene.past
    if past is None:
        return "No history: only a superuser of the database can write it.\n" if wish.weeks else ""
    return (
        f"{wish.weeks:g} weeks of history, marked as demo data: {past.leads:,} leads, {past.delivered:,} delivered,"
        f" {past.won:,} won, in {past.seconds:.1f} s."
        f" Of the leads of {POOR_PROVIDER} {past.poor_won:.0%} were won, of the others {past.other_won:.0%}.\n"
    )


async def _print_ways(scene: DemoScene, result: RunResult, console: Console) -> None:
    """Print links that sign a visitor in, and commands to copy."""
    installation = scene.installation
    lines = ["", f"[bold]Everything stays up until Ctrl-C, with {60 * GENTLY:.0f} inquiries a minute.[/]"]
    for visitor in scene.visitors:
        url = await link_in(
            installation.engines.database_url,
            installation.settings.master_key,
            installation.settings.public_url,
            visitor,
        )
        lines.append(f"{f'As {visitor.whose}':<31} {url}")
    if scene.visitors:
        lines.append(
            f"Each link works once. Another: MARKETPLACE_DATA={installation.directory}"
            f" MARKETPLACE_PUBLIC_URL={installation.settings.public_url} .venv/bin/marketplace member link"
            f" --email {scene.visitors[0].email}"
        )
    lines += [
        f"Handbook                        {installation.settings.public_url}/docs",
        f"Health, figures                 {installation.url}/readyz  {installation.settings.ops_url}/metrics",
        f"Operator's key                  {installation.operator_key}",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    if result.example:
        console.print(
            "Decisions on one lead:\n"
            f"  curl -s -H 'Authorization: Bearer {installation.operator_key}'"
            f" {installation.url}/v1/leads/{result.example}/trace",
            highlight=False,
            soft_wrap=True,
        )
