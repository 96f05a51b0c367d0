"""`marketplace fence`: makes a restored, older database safe to route on, from the exposure journal.

A backup does not know the exposures that came after it. Each of them is put back by legal means only, under every
constraint and as the worker's role: the lead is shown again to the business that had seen it, and lapses in the same
transaction, because the evidence of receipt was lost with the exposure. Nobody is charged, and nobody else ever gets
it. What the backup cannot hold is remembered in `fenced_lead`, and its person protected there.

Leads that are not in the journal were not shown to anybody, whatever happened to them after the backup, because no
contact leaves before its exposure is journaled. They go on as they are.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

from marketplace.cli import JSON_FILE
from marketplace.database import journal
from marketplace.database.db import Connection, Pool, Queries, open_pool, session
from marketplace.database.embedded import engines
from marketplace.database.journal import JournalDamage, JournalExposure, JournalUnusable
from marketplace.database.migrate import migrate
from marketplace.delivery import store as delivery_store
from marketplace.distribution import store as distribution_store
from marketplace.ledger import money
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings, load_existing
from marketplace.security import audit
from routing.calendar import window_starts
from routing.delivery import EVIDENCE_WINDOW, HOLD_WINDOW
from routing.inquiry import amount_in_words
from routing.lifecycle import WAITING_LEAD, LeadState
from routing.qualification import qualify

SQL: Final = Queries(__file__, "fence.sql")

REASON: Final = "restored"
"Why a lead ended that a restore had brought back."
SHOWN: Final = 20
"Leads named on the screen; the JSON has all."


class FenceOutcome(StrEnum):
    """What became of an exposure that the database had forgotten."""

    put_back = "put_back"
    "Its lead is exposed to the same business again, and lapsed: nobody is charged, nobody else gets it."
    closed = "closed"
    "Its lead is here but its business is not: the lead ended unseen, and its person is protected."
    absent = "absent"
    "Its lead is not in this database: its person is protected."
    contradicted = "contradicted"
    "Its lead was exposed under another assignment too: routing had gone on without a fence. No fence mends that."


class FencedExposure(msgspec.Struct, frozen=True, kw_only=True):
    """One forgotten exposure. `also_closed` are newer leads of the same person that were still waiting."""

    lead_id: str
    assignment_id: str
    business_id: str
    provider_id: str
    mode: str
    price_minor: int
    payout_minor: int
    currency: str
    exposed_at: datetime
    outcome: FenceOutcome
    also_closed: tuple[str, ...] = ()


class RestoreLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What one business may have been charged, and providers be owed, by what the restore took away: at most this."""

    business_id: str
    currency: str
    leads: int
    price_minor: int
    payout_minor: int


class FenceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal holds and what was done about it; in a dry run, what would be."""

    dry_run: bool
    lines: int
    forgotten: int
    outcomes: dict[str, int]
    fenced: tuple[FencedExposure, ...]
    losses: tuple[RestoreLoss, ...]
    damages: tuple[JournalDamage, ...]

    @property
    def beyond_repair(self) -> bool:
        """Whether there is something that no fence can mend."""
        return bool(self.damages) or self.outcomes[FenceOutcome.contradicted] > 0


async def fence(pool: Pool, directories: Sequence[Path], now: datetime, *, dry_run: bool = False) -> FenceReport:
    """Every exposure in the journals that the database has forgotten, oldest first, in a transaction each.

    May be repeated and interrupted: what is done is not found again. The oldest come first, so that until the end the
    newest are missing and no worker starts. `pool` acts as the worker. Raises StartError.
    """
    lines, forgotten, damages = await _compare(pool, directories)
    catalog = Catalog(pool)
    fenced = []
    for exposure in sorted(forgotten, key=lambda one: one.exposed_at):
        async with _change(pool, dry_run=dry_run) as connection:
            if done := await _fence(connection, catalog, exposure, now):
                fenced.append(done)
    counts = Counter(one.outcome for one in fenced)
    outcomes = {outcome.value: counts[outcome] for outcome in FenceOutcome}
    if fenced:
        async with _change(pool, dry_run=dry_run) as connection:
            await audit.record(connection, now, audit.COMMAND_LINE, "database.fence", "exposure", **outcomes)
    return FenceReport(
        dry_run=dry_run,
        lines=lines,
        forgotten=len(forgotten),
        outcomes=outcomes,
        fenced=tuple(fenced),
        losses=_losses(fenced),
        damages=damages,
    )


async def _compare(
    pool: Pool, directories: Sequence[Path]
) -> tuple[int, tuple[JournalExposure, ...], tuple[JournalDamage, ...]]:
    """How many lines there are, the forgotten exposures once each, and what is damaged. Holds one batch in memory."""
    lines, damages = 0, list[JournalDamage]()
    forgotten: dict[tuple[UUID, UUID], JournalExposure] = {}
    async with session(pool) as connection:
        for batch in _batches(directories, damages):
            lines += len(batch)
            for one in await journal.missing(connection, batch):
                forgotten.setdefault((one.lead_id, one.assignment_id), one)
    return lines, tuple(forgotten.values()), tuple(damages)


def _batches(directories: Iterable[Path], damages: list[JournalDamage]) -> Iterable[list[JournalExposure]]:
    batch: list[JournalExposure] = []
    for directory in directories:
        try:
            for found in journal.read(directory):
                if isinstance(found, JournalDamage):
                    damages.append(found)
                    continue
                batch.append(found)
                if len(batch) == journal.BATCH:
                    yield batch
                    batch = []
        except OSError as error:
            raise JournalUnusable(directory, error) from error
    yield batch


@asynccontextmanager
async def _change(pool: Pool, *, dry_run: bool) -> AsyncIterator[Connection]:
    """One transaction, which a dry run takes back at the end: what it tells is what would have been done."""
    async with session(pool) as connection:
        change = connection.transaction()
        await change.start()
        try:
            yield connection
        except BaseException:
            await change.rollback()
            raise
        await (change.rollback() if dry_run else change.commit())


async def _fence(
    connection: Connection, catalog: Catalog, exposure: JournalExposure, now: datetime
) -> FencedExposure | None:
    state = await _lock_lead(connection, exposure.lead_id)
    if not await journal.missing(connection, (exposure,)):
        return None  # somebody else has just done it
    if state is LeadState.held:
        state = await _yield_hold(connection, exposure, now)
    also_closed: tuple[UUID, ...] = ()
    if await _is_remembered(connection, exposure.lead_id):
        outcome = FenceOutcome.contradicted
    elif state is None:
        outcome = FenceOutcome.absent
    else:
        outcome = await _put_back(connection, catalog, exposure, state, now)
    if outcome is not FenceOutcome.put_back:
        also_closed = await _remember(connection, exposure, outcome, now)
    return FencedExposure(
        lead_id=ids.encode("lead", exposure.lead_id),
        assignment_id=ids.encode("asg", exposure.assignment_id),
        business_id=ids.encode("biz", exposure.business_id),
        provider_id=ids.encode("prov", exposure.provider_id),
        mode=exposure.mode,
        price_minor=exposure.price_minor,
        payout_minor=exposure.payout_minor,
        currency=exposure.currency,
        exposed_at=exposure.exposed_at,
        outcome=outcome,
        also_closed=tuple(ids.encode("lead", lead_id) for lead_id in also_closed),
    )


async def _lock_lead(connection: Connection, lead_id: UUID) -> LeadState | None:
    state = await connection.fetchval(SQL["lock_lead"], lead_id)
    return None if state is None else LeadState(state)


async def _yield_hold(connection: Connection, exposure: JournalExposure, now: datetime) -> LeadState:
    """A claim that the backup has and that was released after it makes way; the exposed one stays."""
    held = await connection.fetchval(SQL["find_held"], exposure.lead_id)
    if held == exposure.assignment_id:
        return LeadState.held
    await _release(connection, held, now)
    return LeadState.prospect


async def _release(connection: Connection, assignment_id: UUID, now: datetime) -> None:
    case = await delivery_store.find_delivery(connection, assignment_id)
    assert case is not None
    await delivery_store.mark_released(connection, case, REASON, now, now)
    if case.mode == "live":
        await money.release(connection, case.price, now)


async def _put_back(
    connection: Connection, catalog: Catalog, exposure: JournalExposure, state: LeadState, now: datetime
) -> FenceOutcome:
    """The lead shown again and lapsed, where its state and the backup's parties allow it."""
    if state is LeadState.held:
        await _expose_again(connection, exposure, now)
        if exposure.mode == "live":
            await money.release(connection, _price(exposure), now)
        return FenceOutcome.put_back
    if state not in WAITING_LEAD:
        return FenceOutcome.closed  # it has ended unseen
    zone = await connection.fetchval(
        SQL["find_zone"], exposure.subscription_id, exposure.subscription_version, exposure.endpoint_id,
        exposure.business_id, exposure.mode, exposure.currency,
    )  # fmt: skip
    if zone is None:
        await _close(connection, exposure.lead_id, state, now)
        return FenceOutcome.closed
    await _award_again(connection, catalog, exposure, zone, now)
    await _expose_again(connection, exposure, now)
    return FenceOutcome.put_back


async def _is_remembered(connection: Connection, lead_id: UUID) -> bool:
    """Whether it was exposed under another assignment than the one in question."""
    return bool(await connection.fetch(journal.SQL["list_remembered"], [lead_id]))


async def _award_again(
    connection: Connection, catalog: Catalog, exposure: JournalExposure, zone: str, now: datetime
) -> None:
    """The award as the journal has it: decision, caps and hold too. The verdict is made anew from the stored facts."""
    case = await distribution_store.find_case(connection, exposure.lead_id)
    assert case is not None
    rules = await catalog.at_least(case.catalog_version)
    vertical = rules.verticals[case.vertical_id]
    definition = vertical.definition
    verdict = qualify(case.facts, definition.needs, definition.policy(vertical.version), exposure.awarded_at).verdict
    await connection.execute(SQL["lock_subscription"], exposure.subscription_id)
    starts = window_starts(exposure.awarded_at, zone)
    await connection.execute(
        SQL["award_again"], exposure.assignment_id, exposure.lead_id, exposure.business_id, exposure.subscription_id,
        exposure.subscription_version, exposure.endpoint_id, exposure.provider_id, exposure.currency,
        exposure.price_minor, exposure.payout_minor, exposure.awarded_at, exposure.awarded_at,
        exposure.awarded_at + HOLD_WINDOW, *(starts[window] for window in distribution_store.CALENDAR),
        exposure.mode == "live",
    )  # fmt: skip
    await distribution_store.insert_decision(connection, distribution_store.Decision(
        id=clock.new_id(), lead_id=exposure.lead_id, made_at=exposure.awarded_at, outcome="held", reason=REASON,
        vertical_version=vertical.version, catalog_version=rules.version, strategy=None,
        verdict=msgspec.json.encode(verdict), candidates=b"[]", left_out=0, subscription_id=exposure.subscription_id,
        assignment_id=exposure.assignment_id,
    ))  # fmt: skip
    if exposure.mode == "live":
        await connection.execute(
            SQL["hold_and_release"], clock.new_id(), clock.new_id(), exposure.price_minor, exposure.currency,
            exposure.business_id, exposure.assignment_id, now,
        )  # fmt: skip


async def _expose_again(connection: Connection, exposure: JournalExposure, now: datetime) -> None:
    await connection.execute(
        SQL["expose_again"], exposure.lead_id, exposure.assignment_id, exposure.business_id, exposure.channel,
        exposure.endpoint_id, exposure.url_sha256, exposure.address, exposure.tls_sha256, exposure.attempt_no,
        exposure.exposed_at, exposure.exposed_at + EVIDENCE_WINDOW,
    )  # fmt: skip
    await connection.execute(SQL["lapse"], exposure.lead_id, exposure.assignment_id, now)


async def _remember(
    connection: Connection, exposure: JournalExposure, outcome: FenceOutcome, now: datetime
) -> tuple[UUID, ...]:
    """The person is taken from here on; newer leads of the same person that still wait are closed, and named."""
    protected_until = exposure.protected_until or exposure.exposed_at
    await connection.execute(SQL["lock_windows"])
    await connection.execute(
        SQL["remember"], exposure.lead_id, exposure.assignment_id, exposure.business_id, exposure.vertical_id, outcome,
        exposure.persons, exposure.exposed_at, protected_until, now,
    )  # fmt: skip
    rows = await connection.fetch(
        SQL["list_waiting_of_persons"], exposure.vertical_id, exposure.persons, exposure.exposed_at, protected_until
    )
    closed = tuple(row["id"] for row in rows)
    for lead_id in closed:
        state = await _lock_lead(connection, lead_id)
        if state is LeadState.held:
            await _release(connection, await connection.fetchval(SQL["find_held"], lead_id), now)
        if state in WAITING_LEAD or state is LeadState.held:
            await _close(connection, lead_id, state, now)
    return closed


async def _close(connection: Connection, lead_id: UUID, state: LeadState, now: datetime) -> None:
    """Ended without anybody having seen it, as the life table allows from `state`."""
    routed = state in (LeadState.prospect, LeadState.held)
    await distribution_store.mark_ended(
        connection, lead_id, LeadState.unsold if routed else LeadState.rejected, REASON, now
    )


def _price(exposure: JournalExposure) -> money.AssignmentPrice:
    return money.AssignmentPrice(
        assignment_id=exposure.assignment_id,
        business_id=exposure.business_id,
        provider_id=exposure.provider_id,
        price_minor=exposure.price_minor,
        payout_minor=exposure.payout_minor,
        currency=exposure.currency,
    )


def _losses(fenced: Iterable[FencedExposure]) -> tuple[RestoreLoss, ...]:
    """By business and currency, rehearsals left out."""
    groups: dict[tuple[str, str], list[FencedExposure]] = {}
    for one in fenced:
        if one.mode == "live":
            groups.setdefault((one.business_id, one.currency), []).append(one)
    return tuple(
        RestoreLoss(
            business_id=business_id,
            currency=currency,
            leads=len(group),
            price_minor=sum(one.price_minor for one in group),
            payout_minor=sum(one.payout_minor for one in group),
        )
        for (business_id, currency), group in sorted(groups.items())
    )


def show(report: FenceReport, console: Console) -> None:
    """The report for people: what was done, the money to settle by hand, and what nobody can mend."""
    done = "would be fenced" if report.dry_run else "fenced"
    console.print(f"{report.lines:,} lines, {report.forgotten:,} forgotten exposures, {len(report.fenced):,} {done}.")
    for outcome, count in report.outcomes.items():
        if count:
            console.print(f"  {outcome:13} {count:,}")
    for one in [one for one in report.fenced if one.outcome is not FenceOutcome.put_back][:SHOWN]:
        console.print(f"  {one.outcome}: {one.lead_id}, shown to {one.business_id}", soft_wrap=True, highlight=False)
    for damage in report.damages[:SHOWN]:
        console.print(f"  damaged: {damage.file}, line {damage.line}: {damage.what}", soft_wrap=True, highlight=False)
    if report.losses:
        table = Table("business", "leads", "price", "payout", box=None, pad_edge=False)
        table.title = "Charged and owed since the backup, at most, and booked nowhere now"
        for loss in report.losses:
            sums = (amount_in_words(minor, loss.currency) for minor in (loss.price_minor, loss.payout_minor))
            table.add_row(loss.business_id, f"{loss.leads:,}", *sums)
        console.print(table)


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing; exit 1 if there is anything.")
@click.option(
    "--journal",
    "directories",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    metavar="DIR",
    help="A journal of another machine; give all. Unless said: this machine's.",
)
@JSON_FILE
def command(dry_run: bool, directories: tuple[Path, ...], json_file: Path | None) -> None:
    """Make a database that was restored from a backup safe to route on.

    Stop all workers first. Exits 1 on what no fence can mend: damaged journal lines, leads that two businesses saw.
    """
    import uvloop

    report = uvloop.run(_run(load_existing(os.environ), directories, dry_run=dry_run))
    show(report, Console())
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if report.beyond_repair or (dry_run and report.forgotten):
        raise SystemExit(1)


async def _run(settings: Settings, directories: tuple[Path, ...], *, dry_run: bool) -> FenceReport:
    async with engines(settings) as running:
        if settings.embedded:
            await migrate(running.database_url, settings.master_key)
        pool = await open_pool(running.database_url, "marketplace_worker", size=2, master_key=settings.master_key)
        try:
            return await fence(pool, directories or (settings.journal_dir,), clock.now(), dry_run=dry_run)
        finally:
            await pool.close()
