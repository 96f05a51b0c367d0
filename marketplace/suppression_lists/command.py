"""The command `marketplace lists`: import files into lists, refresh lists from their sources, look at them, undo."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import rich_click as click
from rich.console import Console

from marketplace.database.commands import command_pool, run_command
from marketplace.database.db import Pool, session
from marketplace.runtime import clock, errors
from marketplace.runtime.settings import Settings, StartError, load_existing
from marketplace.runtime.terminal import JSON_FILE, write_json
from marketplace.security import audit
from marketplace.security.sealing import Sealer
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists import store as lists_store
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.http import ListImportView, ListView, show_import, show_list
from marketplace.suppression_lists.store import ContactList, ImportWay, ListImport, ListKind, ListTerms

T = TypeVar("T")

BY: Final = audit.COMMAND_LINE
MOST_LISTED: Final = 1_000
NAME: Final = click.option("--name", required=True, help="The name of the list.")
console = Console(stderr=True, highlight=False)


@click.group()
def lists() -> None:
    """Import lists of people who must not be contacted."""


@lists.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--kind", type=click.Choice(["do-not-contact"]), required=True, help="The kind of the list.")
@NAME
@click.option("--add", is_flag=True, help="Add the rows; otherwise the file replaces the list.")
@click.option("--country", default="US", metavar="CODE", help="Country of numbers without +.", show_default=True)
@click.option("--rows", type=click.IntRange(1), help="The number of rows that the maker of the file states.")
@click.option("--smaller", is_flag=True, help="The file is complete, although it has less than half of the list.")
@click.option("--refresh-hours", type=click.IntRange(1, 8_760), help="Read the file again after so many hours.")
@click.option("--maximum-age-days", type=click.IntRange(1, 3_650), help="Days until the list counts as outdated.")
@click.option("--stop-when-outdated", is_flag=True, help="No lead is sold while the list is outdated.")
@JSON_FILE
def import_(
    file: Path,
    kind: str,
    name: str,
    add: bool,
    country: str,
    rows: int | None,
    smaller: bool,
    refresh_hours: int | None,
    maximum_age_days: int | None,
    stop_when_outdated: bool,
    json_file: Path | None,
) -> None:
    """Import a file of phone numbers, e-mail addresses or SHA-256 hashes into a list, which is made if it is new.

    An import that was interrupted continues where it was, if the same command is given again.
    """
    options = ImportOptions(
        way=ImportWay.add if add else ImportWay.whole,
        country=country,
        expected_rows=rows,
        accepts_smaller=smaller,
    )
    terms = ListTerms(
        source=str(file.resolve()) if refresh_hours else None,
        refresh_hours=refresh_hours,
        maximum_age_days=maximum_age_days or ListTerms().maximum_age_days,
        stops_sales=stop_when_outdated,
    )
    view = _run(_import(load_existing(os.environ), ListKind(kind.replace("-", "_")), name, terms, file, options))
    _print_import(view)
    write_json(json_file, view)


@lists.command()
@JSON_FILE
def refresh(json_file: Path | None) -> None:
    """Read the sources of all lists that are due.

    Exits with 1 if one of them cannot be read; its list stays as it was.
    """
    views, failures = _run(_refresh(load_existing(os.environ)))
    for view in views:
        _print_import(view)
    write_json(json_file, views)
    if failures:
        raise StartError("list_not_refreshed", " ".join(failures), "Check the files, and run the command again.")
    if not views:
        click.echo("No list is due.")


@lists.command("list")
@JSON_FILE
def list_(json_file: Path | None) -> None:
    """List the lists of people who must not be contacted, newest first."""
    rows = _run(_list(load_existing(os.environ)))
    for row in rows:
        age = f"{row.refreshed_at:%Y-%m-%d}" if row.refreshed_at else "never filled"
        outdated = "  outdated" if row.is_stale else ""
        click.echo(f"{row.id}  {row.members:>12,} members  version {row.version:<4} {age:12}  {row.name}{outdated}")
    if not rows:
        click.echo("There is no list yet.")
    write_json(json_file, rows)


@lists.command()
@NAME
@JSON_FILE
def undo(name: str, json_file: Path | None) -> None:
    """Undo the last import into a list."""
    view = _run(_undo(load_existing(os.environ), name))
    click.echo(f"Version {view.version} of {name} is undone.")
    write_json(json_file, view)


async def _import(
    settings: Settings, kind: ListKind, name: str, terms: ListTerms, file: Path, options: ImportOptions
) -> ListImportView:
    async with command_pool(settings, "marketplace_api") as pool:
        async with session(pool) as connection:
            contact_list = await lists_store.find_named_list(connection, kind, None, name)
        if contact_list is None:
            contact_list = await lists_flow.make_list(pool, BY, kind, None, name, terms)
        elif terms != ListTerms():
            contact_list = await lists_flow.change_list(pool, BY, contact_list.id, terms)
        return show_import(await _import_patiently(pool, settings, contact_list, file, options))


async def _import_patiently(
    pool: Pool, settings: Settings, contact_list: ContactList, file: Path, options: ImportOptions
) -> ListImport:
    """Import a file with a line of progress. An interrupted import is free LEASE after its last batch."""
    size = (await asyncio.to_thread(file.stat)).st_size
    sealer = Sealer(settings.master_key, settings.pepper)
    deadline = clock.monotonic() + lists_flow.LEASE.total_seconds() + 1
    with console.status(f"Reading {file.name}") as line:

        def show(run: ListImport) -> None:
            share = run.position / size if size else 1.0
            line.update(f"{share:.0%} of {file.name}: {run.rows:,} rows, {run.faulty:,} of them cannot be read")

        while True:
            try:
                return await lists_flow.import_path(pool, sealer, BY, contact_list, file, options, show)
            except errors.Conflict:
                if clock.monotonic() > deadline:
                    raise
            line.update("Waiting for an interrupted import of this list to be given up")
            await asyncio.sleep(1)


async def _refresh(settings: Settings) -> tuple[list[ListImportView], list[str]]:
    """Refresh the lists that are due; return their imports, and a sentence for each that failed."""
    views, failures = [], []
    async with command_pool(settings, "marketplace_api") as pool:
        async with session(pool) as connection:
            due = await lists_store.list_due(connection, clock.now())
        for contact_list in due:
            try:
                source = Path(contact_list.source or "")
                run = await _import_patiently(pool, settings, contact_list, source, ImportOptions())
            except (errors.MarketplaceError, OSError) as error:
                failures.append(f"{contact_list.name}: {getattr(error, 'detail', '') or error}")
            else:
                views.append(show_import(run))
    return views, failures


async def _list(settings: Settings) -> tuple[ListView, ...]:
    now = clock.now()
    async with command_pool(settings, "marketplace_api") as pool, session(pool) as connection:
        rows = await lists_store.list_lists(connection, ListKind.do_not_contact, None, None, MOST_LISTED)
    return tuple(show_list(row, now) for row in rows)


async def _undo(settings: Settings, name: str) -> ListImportView:
    async with command_pool(settings, "marketplace_api") as pool:
        async with session(pool) as connection:
            contact_list = await lists_store.find_named_list(connection, ListKind.do_not_contact, None, name)
        if contact_list is None:
            raise errors.NotFound("There is no list of this name.")
        return show_import(await lists_flow.undo_last(pool, BY, contact_list))


def _print_import(view: ListImportView) -> None:
    click.echo(
        f"{view.rows:,} rows: {view.added:,} new, {view.repeated:,} repeated, {view.faulty:,} unreadable;"
        f" {view.removed:,} left the list."
    )


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command. Raises StartError for what the marketplace refuses."""
    return run_command(
        work,
        "list_refused",
        input_help="See: marketplace lists import --help",
        help="See: marketplace lists --help",
    )
