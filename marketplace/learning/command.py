"""The command `marketplace cards`: train scorecards of a vertical, look at them, and decide which one ranks."""

import os
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import rich_click as click

from marketplace.database.commands import command_pool, run_command
from marketplace.database.db import Pool, session
from marketplace.learning import flow as learning_flow
from marketplace.learning import job
from marketplace.learning import store as learning_store
from marketplace.learning.http import ScorecardSummary, ScorecardView, summarise, view_card
from marketplace.learning.job import TrainingResult
from marketplace.learning.store import StoredCard
from marketplace.runtime import errors
from marketplace.runtime.settings import Settings, StartError, load_existing
from marketplace.runtime.terminal import JSON_FILE, write_json
from marketplace.security import audit
from routing.scorecard import NumberFeature

T = TypeVar("T")

BY: Final = audit.COMMAND_LINE
MOST_LISTED: Final = 1_000
VERTICAL: Final = click.option("--vertical", required=True, metavar="SLUG", help="The vertical.")
VERSION: Final = click.option("--version", required=True, type=click.IntRange(1), help="The version of the card.")
REASON: Final = click.option("--reason", required=True, help="The reason, which the audit trail keeps.")


@click.group()
def cards() -> None:
    """Train scorecards that tell how likely a lead is to be won, and decide which one ranks."""


@cards.command()
@VERTICAL
@JSON_FILE
def train(vertical: str, json_file: Path | None) -> None:
    """Train a card from the leads of a vertical and what became of them. It begins in shadow if no other card is there.

    Exits with 1 if no card was trained.
    """
    settings = load_existing(os.environ)
    if not job.can_train():
        raise StartError("learning_missing", "This installation cannot train scorecards.", job.NO_LIBRARY)
    result = _run(_train(settings, vertical))
    write_json(json_file, result)
    if result.version is None:
        raise StartError("card_not_trained", f"No card was trained from {result.leads:,} leads.", result.detail or "")
    click.echo(
        f"Version {result.version} of {vertical}: {result.leads:,} leads, {result.wins:,} won;"
        f" AUC {result.auc:.3f}, chances off by {result.calibration_error:.3f}."
    )


@cards.command("list")
@VERTICAL
@JSON_FILE
def list_(vertical: str, json_file: Path | None) -> None:
    """List the cards of a vertical, newest first."""
    rows = _run(_list(load_existing(os.environ), vertical))
    for row in rows:
        trained_on = row.trained_on
        click.echo(
            f"{row.version:>4}  {row.state:9}  {row.trained_at:%Y-%m-%d}  {trained_on.leads:>7,} leads"
            f"  {trained_on.wins:>6,} won  AUC {row.auc:.3f}"
        )
    if not rows:
        click.echo("There is no card yet.")
    write_json(json_file, rows)


@cards.command()
@VERTICAL
@VERSION
@JSON_FILE
def show(vertical: str, version: int, json_file: Path | None) -> None:
    """Show the points of a card, and how it has done since it was computed for leads."""
    view = _run(_show(load_existing(os.environ), vertical, version))
    click.echo(f"Version {view.version} is {view.state}.")
    for feature in view.features:
        bins = feature.bins if isinstance(feature, NumberFeature) else (*feature.bins.values(), feature.other)
        for each in (*bins, feature.unknown):
            click.echo(f"{each.points:+7.2f}  {feature.title}: {each.label}")
    click.echo(
        f"Computed for {view.shadow.leads:,} sold leads, of which the outcome of {view.shadow.ended:,} is known;"
        f" {view.shadow.needed:,} are needed to sign it off."
    )
    if view.shadow.figures is not None:
        click.echo(f"AUC {view.shadow.figures.auc:.3f}, chances off by {view.shadow.figures.calibration_error:.3f}.")
    write_json(json_file, view)


@cards.command("sign-off")
@VERTICAL
@VERSION
@click.option("--member", "email", required=True, metavar="EMAIL", help="The operator who signs it off.")
@JSON_FILE
def sign_off(vertical: str, version: int, email: str, json_file: Path | None) -> None:
    """Let a card in shadow rank, in place of the one that ranks now."""
    card = _run(_sign_off(load_existing(os.environ), vertical, version, email))
    click.echo(f"Version {card.version} of {vertical} ranks from now on.")
    write_json(json_file, summarise(card))


@cards.command("roll-back")
@VERTICAL
@REASON
@JSON_FILE
def roll_back(vertical: str, reason: str, json_file: Path | None) -> None:
    """Let the card rank again that ranked before the present one."""
    card = _run(_with_pool(load_existing(os.environ), lambda pool: learning_flow.roll_back(pool, BY, vertical, reason)))
    click.echo(f"Version {card.version} of {vertical} ranks again.")
    write_json(json_file, summarise(card))


@cards.command()
@VERTICAL
@VERSION
@REASON
@JSON_FILE
def retire(vertical: str, version: int, reason: str, json_file: Path | None) -> None:
    """Give a card up. If it ranks, leads are ranked without a card from now on."""
    settings = load_existing(os.environ)
    card = _run(_with_pool(settings, lambda pool: learning_flow.retire(pool, BY, vertical, version, reason)))
    click.echo(f"Version {card.version} of {vertical} is retired.")
    write_json(json_file, summarise(card))


async def _with_pool(settings: Settings, work: Callable[[Pool], Awaitable[T]]) -> T:
    async with command_pool(settings, "marketplace_api") as pool:
        return await work(pool)


async def _train(settings: Settings, vertical: str) -> TrainingResult:
    def tell(text: str) -> None:
        click.echo(text, err=True)

    return await _with_pool(settings, lambda pool: job.train_card(pool, BY, vertical, tell))


async def _list(settings: Settings, vertical: str) -> tuple[ScorecardSummary, ...]:
    """Return up to MOST_LISTED cards of a vertical, newest first."""
    async with command_pool(settings, "marketplace_api") as pool, session(pool) as connection:
        vertical_id = await learning_flow.load_vertical(connection, vertical)
        rows: tuple[StoredCard, ...] = await learning_store.list_cards(connection, vertical_id, None, MOST_LISTED)
    return tuple(map(summarise, rows))


async def _show(settings: Settings, vertical: str, version: int) -> ScorecardView:
    return await _with_pool(settings, lambda pool: view_card(pool, vertical, version, settings.shadow_leads))


async def _sign_off(settings: Settings, vertical: str, version: int, email: str) -> StoredCard:
    async with command_pool(settings, "marketplace_api") as pool:
        async with session(pool) as connection:
            member_id = await learning_store.find_operator(connection, email.strip().lower())
        if member_id is None:
            raise errors.NotFound("No operator who may change things has this e-mail address.")
        return await learning_flow.sign_off(pool, member_id, vertical, version, settings.shadow_leads)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command. Raises StartError for what the marketplace refuses."""
    help_text = "See: marketplace cards --help"
    return run_command(work, "cards_refused", input_help=help_text, help=help_text)
