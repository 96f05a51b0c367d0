"""The command `marketplace simulate`: try changes of the rules on past leads. It changes nothing."""

import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import rich_click as click

from marketplace.database.commands import command_pool, run_command
from marketplace.database.db import Pool, session
from marketplace.database.logins import Role
from marketplace.directory.wire import closed
from marketplace.rules.catalog import load_rules
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.settings import Settings, load_existing
from marketplace.runtime.terminal import JSON_FILE, write_json
from marketplace.simulations import flow as simulations_flow
from marketplace.simulations.changes import (
    WhatIf,
    WhatIfPause,
    WhatIfPolicy,
    WhatIfPrice,
    WhatIfStrategy,
    simulated_time,
)
from marketplace.simulations.wire import UNKNOWN, SimulationRequest, SimulationResult, show_result
from marketplace.text.faults import read
from routing.ranking import Strategy

T = TypeVar("T")

LOWEST_PRIORITY: Final = 19
LINE_SECONDS: Final = 2.0
"Interval of the lines of progress."


class ChangesFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """File of `--changes`: the changes as the API takes them."""

    changes: tuple[WhatIf, ...]


@click.command("simulate")
@click.argument("vertical", required=False)
@click.option(
    "--from", "since", type=click.DateTime(["%Y-%m-%d"]), help="First day, UTC; 13 weeks before the end if left out."
)
@click.option("--to", "until", type=click.DateTime(["%Y-%m-%d"]), help="Day after the last, UTC; now if left out.")
@click.option("--minimum-score", type=click.IntRange(0, 100), help="Another minimum score of the vertical.")
@click.option("--strategy", type=click.Choice([each.value for each in Strategy]), help="Another way of ranking.")
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="SUB=MINOR",
    help="Another price of a subscription (sub_…), in minor units.",
)
@click.option("--pause", "pauses", multiple=True, metavar="SUB", help="A subscription (sub_…) paused.")
@click.option(
    "--changes",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help='More changes, as JSON: {"changes": [...]} as in POST /v1/simulations.',
)
@click.option("--suggest", is_flag=True, help="Try small changes one by one, and list those that make a difference.")
@click.option("--job", metavar="ID", hidden=True, help="Compute a stored simulation (sim_…), as workers do.")
@JSON_FILE
def simulate(
    vertical: str | None,
    since: datetime | None,
    until: datetime | None,
    minimum_score: int | None,
    strategy: str | None,
    prices: tuple[str, ...],
    pauses: tuple[str, ...],
    file: Path | None,
    suggest: bool,
    job: str | None,
    json_file: Path | None,
) -> None:
    """Try changes of a vertical's rules on its past leads, and print the difference. Nothing is changed.

    Both the unchanged and the changed rules decide again about each lead, with caps, wallets and the order of arrival.
    """
    settings = load_existing(os.environ)
    if job is not None:
        _run(_compute(settings, job))
        return
    if vertical is None:
        raise click.UsageError("Name a vertical by its slug.")
    changes: list[WhatIf] = [] if file is None else list(_read_file(file))
    if minimum_score is not None:
        changes.append(WhatIfPolicy(minimum_score=minimum_score))
    if strategy is not None:
        changes.append(WhatIfStrategy(strategy=Strategy(strategy)))
    changes += map(_read_price, prices)
    changes += (WhatIfPause(subscription_id=key) for key in pauses)
    request = SimulationRequest(
        vertical=vertical, since=_midnight(since), until=_midnight(until), changes=tuple(changes), suggest=suggest
    )
    result = _run(_simulate(settings, request))
    for sentence in result.sentences:
        click.echo(sentence)
    for suggestion in result.suggestions:
        click.echo(f"- {suggestion.sentence}")
    click.echo(UNKNOWN)
    write_json(json_file, show_result(result))


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)


def _read_price(text: str) -> WhatIfPrice:
    key, separator, amount = text.partition("=")
    if not separator or not (amount.isascii() and amount.isdecimal() and len(amount) <= 10):
        raise click.BadParameter("Write it as sub_…=5000.", param_hint="--price")
    return WhatIfPrice(subscription_id=key, price_minor=int(amount))


def _read_file(file: Path) -> tuple[WhatIf, ...]:
    """Return the changes of a file. Raises BadParameter with every fault."""
    raw = file.read_bytes()
    faults = read(raw, closed(ChangesFile))
    if isinstance(faults, tuple):
        detail = " ".join(f"{fault.pointer}: {fault.detail}" for fault in faults)
        raise click.BadParameter(detail, param_hint="--changes")
    return msgspec.json.decode(raw, type=ChangesFile).changes


async def _simulate(settings: Settings, request: SimulationRequest) -> SimulationResult:
    """Compute a simulation here, with lines of progress on stderr."""
    shown_at = clock.monotonic()

    async def report(leads_done: int, leads: int) -> None:
        nonlocal shown_at
        if clock.monotonic() - shown_at >= LINE_SECONDS:
            shown_at = clock.monotonic()
            click.echo(f"{leads_done:,} of {leads:,} leads", err=True)

    async with _pools(settings, "marketplace_api") as (pool, reports):
        async with session(pool) as connection:
            rules = await load_rules(connection)
        time_of_leads = simulated_time(request.since, request.until, clock.now())
        checked = simulations_flow.plan(rules, request, time_of_leads)
        await simulations_flow.check_leads(reports, checked, suggest=request.suggest)
        return await simulations_flow.compute_plan(reports, checked, report, suggest=request.suggest)


async def _compute(settings: Settings, job: str) -> None:
    """Compute a stored simulation at the lowest priority. Raises NotFound."""
    simulation_id = ids.decode("sim", job)
    if simulation_id is None:
        raise errors.NotFound("There is no such simulation.")
    os.nice(LOWEST_PRIORITY)
    async with _pools(settings, "marketplace_worker") as (worker, reports):
        await simulations_flow.run_simulation(worker, reports, simulation_id)


@asynccontextmanager
async def _pools(settings: Settings, role: Role) -> AsyncIterator[tuple[Pool, Pool]]:
    """Open a pool of the role, and one of the role of reports."""
    async with command_pool(settings, role) as first, command_pool(settings, "marketplace_reports") as second:
        yield first, second


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of the command. Raises StartError for what the marketplace refuses."""
    help = "See: marketplace simulate --help"
    return run_command(work, "simulation_refused", input_help=help, help=help)
