"""Verification of every promise on a running system, computed from scratch by independent SQL.

All figures belong to one instant: one REPEATABLE READ, READ ONLY transaction reads them, as the role that cannot see
contact data. It takes no lock that writers wait for, and uses one core. Each check is one query of verify.sql.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final, Literal

import asyncpg
import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

from marketplace.database.background import REST
from marketplace.database.db import Connection, Queries, connect
from marketplace.database.embedded import engines
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError, load_existing
from marketplace.runtime.terminal import JSON_FILE, write_json

ROWS_SHOWN: Final = 20
"Rows listed for each check: enough to see what they have in common, and few enough to read."

STATEMENT_SECONDS: Final = 65.0
"Limit for a server that does not answer at all; the server itself cancels a statement after 60 s."

WARNINGS: Final = frozenset({"record_has_its_month", "deletion_is_in_time"})
"Checks whose rows break no promise yet, but need attention."

SQL: Final = Queries(__file__, "verify.sql")
CHECKS: Final = tuple(name for name in SQL.statements if name != "prepare_snapshot")

Row = dict[str, str | int | bool | None]


class PromiseCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One promise: the number of rows examined and of rows that break it, and the first ROWS_SHOWN of those."""

    name: str
    promise: str
    severity: Literal["finding", "warning"]
    examined: int
    findings: int
    rows: tuple[Row, ...]


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """Result of all checks at one instant. `checked` counts checks, `examined` rows; `findings` excludes warnings."""

    checked: int
    examined: int
    findings: int
    warnings: int
    seconds: float
    checks: tuple[PromiseCheck, ...]


async def verify(connection: Connection) -> VerifyReport:
    """Run every check on one snapshot of the database, changing nothing.

    `connection` must be outside a transaction and its login a member of marketplace_reports. Raises asyncpg's errors.
    """
    began = clock.monotonic()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.fetchrow(SQL["prepare_snapshot"])
        checks = tuple([await _check(connection, name) for name in CHECKS])
    return VerifyReport(
        checked=len(checks),
        examined=sum(check.examined for check in checks),
        findings=sum(check.findings for check in checks if check.severity == "finding"),
        warnings=sum(check.findings for check in checks if check.severity == "warning"),
        seconds=round(clock.monotonic() - began, 3),
        checks=checks,
    )


async def _check(connection: Connection, name: str) -> PromiseCheck:
    """Run one check; rows are fetched only when there are findings, so that a clean check needs no memory."""
    rows_of = f"from (\n{SQL[name]}\n) as row_of"
    [counted] = await connection.fetch(
        f"select count(*) as examined, count(fault) as findings {rows_of}", timeout=STATEMENT_SECONDS
    )
    rows: list[asyncpg.Record] = []
    if counted["findings"]:
        rows = await connection.fetch(
            f"select to_jsonb(row_of)::text as row {rows_of} where fault is not null order by 1 limit {ROWS_SHOWN}",
            timeout=STATEMENT_SECONDS,
        )
    severity: Literal["finding", "warning"] = "warning" if name in WARNINGS else "finding"
    return PromiseCheck(
        name=name,
        promise=promise(name),
        severity=severity,
        examined=counted["examined"],
        findings=counted["findings"],
        rows=tuple(msgspec.json.decode(row["row"], type=Row) for row in rows),
    )


def promise(name: str) -> str:
    """Return the promise of a check: the comment above its statement."""
    lines = SQL[name].splitlines()
    return " ".join(line.removeprefix("-- ") for line in lines if line.startswith("-- "))


def show(report: VerifyReport, console: Console) -> None:
    """Print a table of all checks, then the rows of each with findings."""
    table = Table(box=None, pad_edge=False)
    table.add_column("check")
    table.add_column("examined", justify="right")
    table.add_column("findings", justify="right")
    for check in report.checks:
        colour = "" if not check.findings else "yellow" if check.severity == "warning" else "bold red"
        table.add_row(check.name, f"{check.examined:,}", f"{check.findings:,}", style=colour)
    console.print(table)
    for check in report.checks:
        if check.findings:
            _show_rows(check, console)
    warned = f", {report.warnings:,} warnings" if report.warnings else ""
    console.print(
        f"{report.findings:,} findings{warned} in {report.examined:,} rows by {report.checked} checks,"
        f" {report.seconds:.2f} s."
    )


def _show_rows(check: PromiseCheck, console: Console) -> None:
    console.print(f"\n{check.severity}: {check.name}. {check.promise}", style="bold", highlight=False)
    for row in check.rows:
        values = "  ".join(f"{name}={value}" for name, value in row.items() if name != "fault" and value is not None)
        console.print(f"  {row['fault']}: {values}", soft_wrap=True, highlight=False, markup=False)
    if check.findings > len(check.rows):
        console.print(f"  and {check.findings - len(check.rows):,} more")


@click.command()
@JSON_FILE
@click.option(
    "--watch",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Verify again and again, so long apart or 19 times as long as it took, until something is found or Ctrl-C.",
)
def command(json_file: Path | None, watch: float | None) -> None:
    """Recompute every promise from scratch and name what does not hold.

    Safe on a live system. Exits 1 with the exact rows on any finding; a warning does not count as one.
    """
    try:
        report = asyncio.run(_run(json_file, watch))
    except KeyboardInterrupt:
        status = 0 if watch else 130
        sys.exit(status)
    if report.findings:
        sys.exit(1)


async def _run(json_file: Path | None, watch: float | None) -> VerifyReport:
    settings = load_existing(os.environ)
    async with engines(settings) as running:
        while True:
            took = 0.0
            try:
                report = await _verify_at(running.database_url, settings.master_key)
            except StartError as error:
                if watch is None:
                    raise
                click.echo(f"{error.sentence} Trying again.", err=True)
            else:
                took = report.seconds
                show(report, Console())
                write_json(json_file, report)
                if watch is None or report.findings:
                    return report
            # a verification reads the whole database, so the pause grows with the time it took
            await asyncio.sleep(max(watch, REST * took))


async def _verify_at(database_url: str, master_key: bytes) -> VerifyReport:
    """Verify over a new connection, so that `--watch` survives a restart of the server. Raises StartError."""
    try:
        connection = await connect(
            database_url, "marketplace_reports", master_key=master_key, name="marketplace_verify"
        )
        try:
            return await verify(connection)
        finally:
            connection.terminate()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError) as error:
        raise StartError(
            "verify_impossible",
            f"The database cannot be verified ({type(error).__name__}).",
            "Run: marketplace doctor, which names the problem.",
        ) from error
