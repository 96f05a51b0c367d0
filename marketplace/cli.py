"""The `marketplace` command.

Commands are imported when they run, so that --help is fast and a fault in one leaves the others usable. A command that
cannot go on prints a sentence and a remedy, and exits with 1. The traceback of an unexpected error goes to a log file,
without the error's text, which may hold values.
"""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Coroutine
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from marketplace.runtime.settings import MOST_PROCESSES, StartError, load, load_existing
from marketplace.runtime.terminal import JSON_FILE, write_json

ELSEWHERE = {
    "audit": ("marketplace.receipts.command:audit_", "Check the record of who changed what."),
    "cards": ("marketplace.learning.command:cards", "Train scorecards, and decide which one ranks."),
    "demo": ("marketplace.demo.command:demo", "Show the whole marketplace at work on a live stream of inquiries."),
    "fence": ("marketplace.operations.fence:command", "Make a database restored from a backup safe to route on."),
    "key": ("marketplace.directory.command:key", "Make and revoke the keys that callers use."),
    "lists": ("marketplace.suppression_lists.command:lists", "Import lists of people who must not be contacted."),
    "mail": ("marketplace.delivery.command:mail", "Read e-mail that came back."),
    "member": ("marketplace.portal.command:member", "Let people into the portal."),
    "receipt": ("marketplace.receipts.command:receipt", "Check a receipt of who was shown a lead."),
    "replay": ("marketplace.replay.command:replay", "Submit a file of leads through the public interface."),
    "simulate": ("marketplace.simulations.command:simulate", "Try changes of the rules on past leads."),
    "verify": (
        "marketplace.operations.verify:command",
        "Recompute every promise from scratch and name what does not hold.",
    ),
}


class LazyGroup(click.RichGroup):
    """Group that lists every command without importing it, and imports the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ELSEWHERE:
            return click.Command(cmd_name, help=ELSEWHERE[cmd_name][1])
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, arguments = super().resolve_command(ctx, args)
        if name in ELSEWHERE:
            module, attribute = ELSEWHERE[name][0].split(":")
            try:
                command = getattr(import_module(module), attribute)
            except ModuleNotFoundError as error:
                raise StartError(
                    "command_missing", f"The command {name} needs {error.name}, which is missing.", "Install it."
                ) from error
        return name, command, arguments


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def marketplace() -> None:
    """Leadline: each live inquiry, qualified, to exactly one business."""


@marketplace.command()
@click.option(
    "--api",
    "api_processes",
    type=click.IntRange(1, MOST_PROCESSES),
    show_default="1 for every 5 processors",
    help="API processes.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, MOST_PROCESSES),
    show_default="1 for every 3 processors, at least 2",
    help="Worker processes.",
)
def up(api_processes: int | None, workers: int | None) -> None:
    """Run everything on this machine: engines, the API, the workers. Ctrl-C drains."""
    from marketplace.operations.processes import up

    settings = load(os.environ)
    settings = msgspec.structs.replace(
        settings,
        api_processes=api_processes or settings.api_processes,
        workers=settings.workers if workers is None else workers,
    )
    if settings.embedded and not (settings.data_dir / "engines.lock").exists():
        click.echo(f"Making a new installation in {settings.data_dir}.", err=True)
    _run(up(settings))


@marketplace.command()
def serve() -> None:
    """Run the API."""
    from marketplace.operations.processes import serve

    _run(serve(load_existing(os.environ)))


@marketplace.command()
def work() -> None:
    """Run a worker."""
    from marketplace.operations.processes import work

    _run(work(load_existing(os.environ)))


@marketplace.command()
@click.option("--status", "only_status", is_flag=True, help="Show what is applied and what is missing.")
@click.option("--to", type=int, metavar="NUMBER", help="Stop after this migration.")
@click.option("--dry-run", is_flag=True, help="Name what would be applied, and apply nothing.")
@click.option("--roles", is_flag=True, help="Print SQL that makes the roles, for who may create some; change nothing.")
@JSON_FILE
def migrate(only_status: bool, to: int | None, dry_run: bool, roles: bool, json_file: Path | None) -> None:
    """Bring the roles and the schema up to date, as the owner of the database."""
    if roles:
        click.echo(_script_of_roles(), nl=False)
        return
    rows = _run(_migrate(to, only_status=only_status, dry_run=dry_run))
    for row in rows:
        click.echo(f"{row['name']}  {row['state']}")
    if not rows:
        click.echo("The schema is up to date.")
    write_json(json_file, rows)


@marketplace.command()
@JSON_FILE
def doctor(json_file: Path | None) -> None:
    """Look for what would break a promise; exit 1 where the service must not run so."""
    from marketplace.database.doctor import unsafe
    from marketplace.operations.processes import tell

    findings = _run(_examine())
    tell(findings)
    write_json(json_file, findings)
    if unsafe(findings):
        sys.exit(1)
    click.echo("Safe to run.")


def _name_state(name: str, *, applied: bool) -> dict[str, str]:
    state = "applied" if applied else "missing"
    return {"name": name, "state": state}


async def _migrate(to: int | None, *, only_status: bool, dry_run: bool) -> list[dict[str, str]]:
    """Apply the missing migrations, or only list them, and return name and state of each."""
    from marketplace.database.embedded import engines
    from marketplace.database.migrate import migrate, status

    settings = load(os.environ)
    async with engines(settings) as running:
        if only_status:
            migrations = await status(running.database_url)
            return [_name_state(migration.name, applied=migration.applied) for migration in migrations]
        if dry_run:
            missing = [migration for migration in await status(running.database_url) if not migration.applied]
            return [
                {"name": migration.name, "state": "waiting"}
                for migration in missing
                if to is None or migration.version <= to
            ]
        return [
            {"name": migration.name, "state": "applied"}
            for migration in await migrate(running.database_url, settings.master_key, to=to)
        ]


def _script_of_roles() -> str:
    """Return SQL that creates the roles and logins. Raises StartError when DATABASE_URL has no user."""
    from urllib.parse import unquote, urlsplit

    from marketplace.database.logins import script

    settings = load(os.environ)
    owner = urlsplit(settings.database_url or "").username
    if not owner:
        raise StartError(
            "owner_unknown",
            "DATABASE_URL names no user.",
            "Set it to the URL that migrate is run with: its user is the one who will own the schema.",
        )
    return script(settings.master_key, unquote(owner))


async def _examine() -> Any:
    """Return the findings of the doctor; an error that keeps it from running is a finding too."""
    from marketplace.database.doctor import DoctorFinding, examine
    from marketplace.database.embedded import engines

    try:
        settings = load_existing(os.environ)
        async with engines(settings) as running:
            return await examine(settings, running)
    except Exception as caught:
        error = _explain(caught)
        return (DoctorFinding(code=error.code, severity="unsafe", sentence=error.sentence, remedy=error.remedy),)


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import uvloop

    return uvloop.run(coroutine)


def main() -> None:
    """Run the command line; ends with SystemExit.

    SIGTERM stops a command and the processes it started, like Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Messages of libraries, tracebacks included, go to the handler of log.py or nowhere.
    logging.lastResort = logging.NullHandler()
    try:
        marketplace(prog_name="marketplace")
    except (Exception, BaseExceptionGroup) as caught:
        error = caught if isinstance(caught, StartError) else _explain(caught)
        click.echo(f"{error.sentence} {error.remedy}".strip(), err=True)
        sys.exit(1)


def _explain(error: BaseException) -> StartError:
    """Return the error for people; an unexpected one is written to the log and named by its class."""
    from marketplace.database.engine_errors import leaves_of, plain_error

    plain = plain_error(error)
    if plain is not None:
        return plain
    first = next(leaves_of(error))
    name = type(first).__name__
    return StartError(
        "unexpected", f"The command ended on an error that should not happen ({name}).", _log_traceback(first, name)
    )


def _log_traceback(error: BaseException, name: str) -> str:
    """Write the traceback of `error`, without its text, to the data directory's log; return how to report it."""
    frames = traceback.format_tb(error.__traceback__)
    log = Path(os.environ.get("MARKETPLACE_DATA", "").strip() or ".data").expanduser() / "logs" / "errors.log"
    try:
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "a") as file:
            file.write(f"{name} in: {' '.join(sys.argv[1:2])}\n{''.join(frames)}\n")
    except OSError:
        return f"Please report it, with this place: {' '.join(frames[-1:]).strip().splitlines()[0]}"
    return f"Please report it, with the end of {log}."


if __name__ == "__main__":
    main()
