"""The command `marketplace lists`: import files into lists, refresh lists from their sources, look at them, undo."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import rich_click as click
from rich.console import Console

from marketplace.database.commands import command_pool, run_command
from marketplace.database.db import Pool, session
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.settings import Settings, StartError, load_existing
from marketplace.runtime.terminal import JSON_FILE, write_json
from marketplace.security import audit
from marketplace.security.sealing import Sealer
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists import sources
from marketplace.suppression_lists import store as lists_store
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.http import ListImportView, ListView, show_import, show_list
from marketplace.suppression_lists.sources import RefreshResult, SourceRefresh
from marketplace.suppression_lists.store import ContactList, ImportWay, ListImport, ListKind, ListTerms
from marketplace.webhook.address import guard_of

T = TypeVar("T")

BY: Final = audit.COMMAND_LINE
MOST_LISTED: Final = 1_000
LOWEST_PRIORITY: Final = 19
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
    click.echo(_describe_import(view))
    write_json(json_file, view)


@lists.command()
@click.option("--name", help="Refresh the list of this name from its source on the web, due or not.")
@click.option("--job", metavar="ID", hidden=True, help="Refresh the list (list_…) that a worker has claimed.")
@JSON_FILE
def refresh(name: str | None, job: str | None, json_file: Path | None) -> None:
    """Refresh all lists that are due, from their files and their sources on the web.

    Exits with 1 if one of them cannot be refreshed; its list stays as it was.
    """
    settings = load_existing(os.environ)
    if job is not None:
        _run(_refresh_claimed(settings, job))
        return
    views = _run(_refresh(settings, name))
    for view in views:
        click.echo(_describe_refresh(view))
    write_json(json_file, views)
    failures = [f"{view.name}: {view.detail or view.failure}" for view in views if view.failure is not None]
    if failures:
        raise StartError("list_not_refreshed", "; ".join(failures), "Check the sources, and run the command again.")
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


class RefreshView(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the refresh of one list; `detail` explains the failure of a file."""

    name: str
    result: RefreshResult
    failure: str | None = None
    detail: str | None = None
    run: ListImportView | None = None


async def _refresh(settings: Settings, name: str | None) -> list[RefreshView]:
    """Refresh the lists that are due, or the one of a name from its source on the web."""
    async with command_pool(settings, "marketplace_api") as pool:
        if name is not None:
            return [await _refresh_named(pool, settings, name)]
        return [*await _refresh_files(pool, settings), *[view async for view in _refresh_sources(pool, settings)]]


async def _refresh_named(pool: Pool, settings: Settings, name: str) -> RefreshView:
    contact_list = await _load_named(pool, name)
    sealer, guard = Sealer(settings.master_key, settings.pepper), guard_of(settings)
    with console.status(f"Refreshing {name}"):
        return _show_refresh(await sources.refresh_now(pool, sealer, guard, contact_list))


async def _refresh_files(pool: Pool, settings: Settings) -> list[RefreshView]:
    """Import the files of the lists that are due."""
    views = []
    async with session(pool) as connection:
        due = await lists_store.list_due(connection, clock.now())
    for contact_list in due:
        try:
            source = Path(contact_list.source or "")
            run = await _import_patiently(pool, settings, contact_list, source, ImportOptions())
        except (errors.MarketplaceError, OSError) as error:
            code = error.faults[0].code if isinstance(error, errors.InvalidInput) else "not_read"
            detail = getattr(error, "detail", "") or str(error)
            views.append(RefreshView(name=contact_list.name, result=RefreshResult.failed, failure=code, detail=detail))
        else:
            views.append(RefreshView(name=contact_list.name, result=RefreshResult.published, run=show_import(run)))
    return views


async def _refresh_sources(pool: Pool, settings: Settings) -> AsyncIterator[RefreshView]:
    """Refresh the lists whose sources on the web are due."""
    sealer, guard = Sealer(settings.master_key, settings.pepper), guard_of(settings)
    with console.status("Refreshing lists from the web"):
        while (refreshed := await sources.refresh_due(pool, sealer, guard)) is not None:
            yield _show_refresh(refreshed)


async def _refresh_claimed(settings: Settings, job: str) -> None:
    """Refresh a claimed list at the lowest priority. Raises NotFound."""
    list_id = ids.decode("list", job)
    if list_id is None:
        raise errors.NotFound("There is no such list.")
    os.nice(LOWEST_PRIORITY)
    sealer, guard = Sealer(settings.master_key, settings.pepper), guard_of(settings)
    async with command_pool(settings, "marketplace_api") as pool:
        await sources.refresh_claimed(pool, sealer, guard, list_id)


def _show_refresh(refreshed: SourceRefresh) -> RefreshView:
    run = None if refreshed.run is None else show_import(refreshed.run)
    return RefreshView(name=refreshed.name, result=refreshed.result, failure=refreshed.failure, run=run)


def _describe_refresh(view: RefreshView) -> str:
    """Return a refresh as a line."""
    if view.run is not None:
        return f"{view.name}: {_describe_import(view.run)}"
    words = {
        RefreshResult.unchanged: "unchanged",
        RefreshResult.replaced: "its source was changed meanwhile",
        RefreshResult.smaller: "the file has less than half of the list; confirm it on the page of the sources",
    }
    return f"{view.name}: {words.get(view.result, f'failed ({view.failure})')}."


async def _load_named(pool: Pool, name: str) -> ContactList:
    """Return the list of people who must not be contacted that has this name. Raises NotFound."""
    async with session(pool) as connection:
        contact_list = await lists_store.find_named_list(connection, ListKind.do_not_contact, None, name)
    if contact_list is None:
        raise errors.NotFound("There is no list of this name.")
    return contact_list


async def _list(settings: Settings) -> tuple[ListView, ...]:
    now = clock.now()
    async with command_pool(settings, "marketplace_api") as pool, session(pool) as connection:
        rows = await lists_store.list_lists(connection, ListKind.do_not_contact, None, None, MOST_LISTED)
    return tuple(show_list(row, now) for row in rows)


async def _undo(settings: Settings, name: str) -> ListImportView:
    async with command_pool(settings, "marketplace_api") as pool:
        return show_import(await lists_flow.undo_last(pool, BY, await _load_named(pool, name)))


def _describe_import(view: ListImportView) -> str:
    return (
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
