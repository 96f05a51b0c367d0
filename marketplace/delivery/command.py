"""The command `marketplace mail`: read the messages that came back."""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import rich_click as click

from marketplace.database.commands import command_pool, run_command
from marketplace.database.db import Pool
from marketplace.delivery.bounces import MOST_BYTES, BounceOutcome, record_bounce
from marketplace.mail.tokens import Tokens
from marketplace.runtime.settings import Settings, StartError, load_existing
from marketplace.runtime.supervisor import stop_at_signals
from marketplace.runtime.terminal import JSON_FILE, write_json

LOOK_SECONDS: Final = 5.0
"Interval of the search for new messages with --follow."

WORDS: Final = {
    BounceOutcome.recorded: "could not be delivered",
    BounceOutcome.delayed: "are delayed",
    BounceOutcome.repeated: "were recorded before",
    BounceOutcome.ignored: "are no bounces",
}


@click.group()
def mail() -> None:
    """Read e-mail that came back."""


@mail.command()
@click.argument("source", metavar="MAILDIR|-")
@click.option("--follow", is_flag=True, help="Look for new messages every 5 seconds, until Ctrl-C.")
@JSON_FILE
def bounces(source: str, follow: bool, json_file: Path | None) -> None:
    """Record the bounces in a Maildir, whose messages then count as read; with -, one message from standard input.

    The address of MARKETPLACE_MAIL_BOUNCES must deliver there, with every tag. Each bounce is recorded once.
    """
    settings = load_existing(os.environ)
    maildir = None if source == "-" else Path(source)
    if maildir is not None and not (maildir / "new").is_dir():
        raise StartError("no_maildir", f"There is no Maildir in {maildir}.", "Give the directory that has new and cur.")
    work = _read(settings, maildir, follow=follow)
    totals = run_command(work, "bounces_unread", input_help="Check the Maildir.", help="Try again later.")
    click.echo(f"{sum(totals.values()):,} messages: " + ", ".join(f"{totals[o]:,} {WORDS[o]}" for o in BounceOutcome))
    write_json(json_file, {outcome.value: totals[outcome] for outcome in BounceOutcome})


async def _read(settings: Settings, maildir: Path | None, *, follow: bool) -> Counter[BounceOutcome]:
    tokens, totals = Tokens(settings.master_key), Counter[BounceOutcome]()
    stopping = asyncio.Event()
    if follow:
        stop_at_signals(stopping)
    async with command_pool(settings, "marketplace_worker") as pool:
        if maildir is None:
            totals[await record_bounce(pool, tokens, sys.stdin.buffer.read(MOST_BYTES))] += 1
            return totals
        while True:
            totals += await read_maildir(pool, tokens, maildir)
            if not follow or stopping.is_set():
                return totals
            await _wait(stopping)


async def _wait(stopping: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)
    except TimeoutError:
        return


async def read_maildir(pool: Pool, tokens: Tokens, maildir: Path) -> Counter[BounceOutcome]:
    """Record the new messages of a Maildir, and move each to `cur` as read once it is recorded."""
    totals = Counter[BounceOutcome]()
    (maildir / "cur").mkdir(exist_ok=True)
    for file in sorted((maildir / "new").iterdir()):
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES)
        totals[await record_bounce(pool, tokens, content)] += 1
        file.rename(maildir / "cur" / f"{file.name}:2,S")
    return totals
