"""`marketplace fence`: makes a database that was restored from a backup safe to route on, with the exposure journal.

A backup lacks the exposures that came after it. Each of them is written again with the worker's role and under every
constraint: the lead is exposed to the same business, and lapses in the same transaction, because the evidence of
receipt is lost. Nobody is charged, and no other business gets the lead. An exposure whose lead or business the backup
lacks is stored in `fenced_lead`, which protects the person from being sold again.

Leads that are not in the journal were not shown to anybody, because an exposure is journaled before any contact data is
sent. They continue as they are.
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

from marketplace.database import journal
from marketplace.database.commands import command_pool
from marketplace.database.db import Connection, Pool, Queries, session
from marketplace.database.journal import JournalDamage, JournalExposure, JournalUnusable
from marketplace.delivery import store as delivery_store
from marketplace.distribution import store as distribution_store
from marketplace.ledger import money
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings, load_existing
from marketplace.runtime.terminal import JSON_FILE, write_json
from marketplace.security import audit
from routing.calendar import window_starts
from routing.delivery import EVIDENCE_WINDOW, HOLD_WINDOW
from routing.inquiry import amount_in_words
from routing.lifecycle import WAITING_LEAD, LeadState
from routing.qualification import qualify

SQL: Final = Queries(__file__, "fence.sql")

REASON: Final = "restored"
"Reason of the leads and assignments that a fence ended."
SHOWN: Final = 20
"Leads and damages listed on the screen; the JSON has all."


class FenceOutcome(StrEnum):
    """Results of fencing one exposure that the database lacks."""

    put_back = "put_back"
    "The lead was exposed to the same business again and lapsed: nobody is charged, no other business gets it."
    closed = "closed"
    "The lead is in the database but its business is not: the lead ended without exposure, its person is protected."
    absent = "absent"
    "The lead is not in the database: its person is protected."
    contradicted = "contradicted"
    "The lead was also exposed under another assignment, because routing went on without a fence. Cannot be repaired."


class FencedExposure(msgspec.Struct, frozen=True, kw_only=True):
    """One fenced exposure. `also_closed` are newer leads of the same person that were still waiting."""

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
    """Upper limit of what a business was charged, and providers are owed, for leads that the restore lost."""

    business_id: str
    currency: str
    leads: int
    price_minor: int
    payout_minor: int


class FenceReport(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of the journal and result of the fence; in a dry run, the result that it would have."""

    dry_run: bool
    lines: int
    forgotten: int
    outcomes: dict[str, int]
    fenced: tuple[FencedExposure, ...]
    losses: tuple[RestoreLoss, ...]
    damages: tuple[JournalDamage, ...]

    @property
    def beyond_repair(self) -> bool:
        """Return whether there are damaged lines or leads that two businesses saw."""
        return bool(self.damages) or self.outcomes[FenceOutcome.contradicted] > 0


async def fence(pool: Pool, directories: Sequence[Path], now: datetime, *, dry_run: bool = False) -> FenceReport:
    """Fence every journaled exposure that the database lacks, oldest first, each in its own transaction.

    It may be interrupted and repeated: exposures already fenced are skipped. The newest come last, so that workers
    refuse to start until all are fenced. `pool` acts as the worker. Raises StartError.
    """
    lines, forgotten, damages = await _compare(pool, directories)
    catalog = Catalog(pool)
    fenced = []
    for exposure in sorted(forgotten, key=lambda exposure: exposure.exposed_at):
        async with _change(pool, dry_run=dry_run) as connection:
            if done := await _fence(connection, catalog, exposure, now):
                fenced.append(done)
    counts = Counter(exposure.outcome for exposure in fenced)
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
    """Return the number of lines, the exposures that the database lacks, each once, and the damages."""
    lines, damages = 0, list[JournalDamage]()
    forgotten: dict[tuple[UUID, UUID], JournalExposure] = {}
    async with session(pool) as connection:
        for batch in _batches(directories, damages):
            lines += len(batch)
            for exposure in await journal.missing(connection, batch):
                forgotten.setdefault((exposure.lead_id, exposure.assignment_id), exposure)
    return lines, tuple(forgotten.values()), tuple(damages)


def _batches(directories: Iterable[Path], damages: list[JournalDamage]) -> Iterable[list[JournalExposure]]:
    """Yield the journaled exposures in batches and add damages to `damages`. Raises JournalUnusable."""
    batch: list[JournalExposure] = []
    for directory in directories:
        try:
            for entry in journal.read(directory):
                if isinstance(entry, JournalDamage):
                    damages.append(entry)
                    continue
                batch.append(entry)
                if len(batch) == journal.BATCH:
                    yield batch
                    batch = []
        except OSError as error:
            raise JournalUnusable(directory, error) from error
    yield batch


@asynccontextmanager
async def _change(pool: Pool, *, dry_run: bool) -> AsyncIterator[Connection]:
    """Run one transaction; in a dry run it is rolled back at the end."""
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
    """Fence one exposure; None when another process has just done it."""
    state = await _lock_lead(connection, exposure.lead_id)
    if not await journal.missing(connection, (exposure,)):
        return None  # another process has just done it
    if state is LeadState.held:
        state = await _release_other_hold(connection, exposure, now)
    also_closed: tuple[UUID, ...] = ()
    if await _is_remembered(connection, exposure.lead_id):
        outcome = FenceOutcome.contradicted
    elif state is None:
        outcome = FenceOutcome.absent
    else:
        outcome = await _put_back(connection, catalog, exposure, state, now)
    if outcome is not FenceOutcome.put_back:
        also_closed = await _remember(connection, exposure, outcome, now)
    await connection.execute(SQL["lock_credits"], [exposure.lead_id, *also_closed])
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
    """Lock a lead and return its state; None when the database lacks it."""
    state = await connection.fetchval(SQL["lock_lead"], lead_id)
    return None if state is None else LeadState(state)


async def _release_other_hold(connection: Connection, exposure: JournalExposure, now: datetime) -> LeadState:
    """Return the lead's state after releasing the hold of an assignment other than the exposed one."""
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
    """Expose the lead again and let it lapse, if its state and the parties in the backup allow it."""
    if state is LeadState.held:
        await _expose_again(connection, exposure, now)
        if exposure.mode == "live":
            await money.release(connection, _price(exposure), now)
        return FenceOutcome.put_back
    if state not in WAITING_LEAD:
        return FenceOutcome.closed  # it ended without exposure
    zone = await connection.fetchval(
        SQL["find_zone"],
        exposure.subscription_id,
        exposure.subscription_version,
        exposure.endpoint_id,
        exposure.business_id,
        exposure.mode,
        exposure.currency,
    )
    if zone is None:
        await _close(connection, exposure.lead_id, state, now)
        return FenceOutcome.closed
    await _award_again(connection, catalog, exposure, zone, now)
    await _expose_again(connection, exposure, now)
    return FenceOutcome.put_back


async def _is_remembered(connection: Connection, lead_id: UUID) -> bool:
    """Return whether the lead was exposed under any assignment, which is then another than the journaled one."""
    return bool(await connection.fetch(journal.SQL["list_remembered"], [lead_id]))


async def _award_again(
    connection: Connection, catalog: Catalog, exposure: JournalExposure, zone: str, now: datetime
) -> None:
    """Write the journaled award again: decision, lead and assignment held, caps counted, money held and released."""
    await connection.execute(SQL["lock_subscription"], exposure.subscription_id)
    starts = window_starts(exposure.awarded_at, zone)
    await connection.execute(
        SQL["award_again"],
        exposure.assignment_id,
        exposure.lead_id,
        exposure.business_id,
        exposure.subscription_id,
        exposure.subscription_version,
        exposure.endpoint_id,
        exposure.provider_id,
        exposure.currency,
        exposure.price_minor,
        exposure.payout_minor,
        exposure.awarded_at,
        exposure.awarded_at,
        exposure.awarded_at + HOLD_WINDOW,
        *(starts[window] for window in distribution_store.CALENDAR),
        exposure.mode == "live",
    )
    await _decide_again(connection, catalog, exposure)
    if exposure.mode == "live":
        await connection.execute(
            SQL["hold_and_release"],
            clock.new_id(),
            clock.new_id(),
            exposure.price_minor,
            exposure.currency,
            exposure.business_id,
            exposure.assignment_id,
            now,
        )


async def _decide_again(connection: Connection, catalog: Catalog, exposure: JournalExposure) -> None:
    """Insert the decision of the journaled award, with the verdict calculated again from the stored facts."""
    case = await distribution_store.find_case(connection, exposure.lead_id)
    assert case is not None
    rules = await catalog.at_least(case.catalog_version)
    vertical = rules.verticals[case.vertical_id]
    definition = vertical.definition
    verdict = qualify(case.facts, definition.needs, definition.policy(vertical.version), exposure.awarded_at).verdict
    decision = distribution_store.Decision(
        id=clock.new_id(),
        lead_id=exposure.lead_id,
        made_at=exposure.awarded_at,
        outcome="held",
        reason=REASON,
        vertical_version=vertical.version,
        catalog_version=rules.version,
        strategy=None,
        verdict=msgspec.json.encode(verdict),
        candidates=b"[]",
        left_out=0,
        subscription_id=exposure.subscription_id,
        assignment_id=exposure.assignment_id,
        revision=case.revision,
    )
    await distribution_store.insert_decision(connection, decision)


async def _expose_again(connection: Connection, exposure: JournalExposure, now: datetime) -> None:
    await connection.execute(
        SQL["expose_again"],
        exposure.lead_id,
        exposure.assignment_id,
        exposure.business_id,
        exposure.channel,
        exposure.endpoint_id,
        exposure.url_sha256,
        exposure.address,
        exposure.tls_sha256,
        exposure.attempt_no,
        exposure.exposed_at,
        exposure.exposed_at + EVIDENCE_WINDOW,
    )
    await connection.execute(SQL["lapse"], exposure.lead_id, exposure.assignment_id, now)


async def _remember(
    connection: Connection, exposure: JournalExposure, outcome: FenceOutcome, now: datetime
) -> tuple[UUID, ...]:
    """Protect the person of an exposure; close and return newer leads of the person that still wait."""
    protected_until = exposure.protected_until or exposure.exposed_at
    await connection.execute(SQL["lock_windows"])
    await connection.execute(
        SQL["remember"],
        exposure.lead_id,
        exposure.assignment_id,
        exposure.business_id,
        exposure.vertical_id,
        outcome,
        exposure.persons,
        exposure.exposed_at,
        protected_until,
        now,
    )
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
    """End a lead that was not exposed, in the end state that its current state allows."""
    routed = state in (LeadState.prospect, LeadState.held)
    end = LeadState.unsold if routed else LeadState.rejected
    await distribution_store.mark_ended(connection, lead_id, end, REASON, now)


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
    """Return the losses by business and currency, without test mode."""
    groups: dict[tuple[str, str], list[FencedExposure]] = {}
    for exposure in fenced:
        if exposure.mode == "live":
            groups.setdefault((exposure.business_id, exposure.currency), []).append(exposure)
    return tuple(
        RestoreLoss(
            business_id=business_id,
            currency=currency,
            leads=len(group),
            price_minor=sum(exposure.price_minor for exposure in group),
            payout_minor=sum(exposure.payout_minor for exposure in group),
        )
        for (business_id, currency), group in sorted(groups.items())
    )


def show(report: FenceReport, console: Console) -> None:
    """Print the report: what was done, the money to settle by hand, and what cannot be repaired."""
    done = "would be fenced" if report.dry_run else "fenced"
    console.print(f"{report.lines:,} lines, {report.forgotten:,} forgotten exposures, {len(report.fenced):,} {done}.")
    for outcome, count in report.outcomes.items():
        if count:
            console.print(f"  {outcome:13} {count:,}")
    for fenced in [fenced for fenced in report.fenced if fenced.outcome is not FenceOutcome.put_back][:SHOWN]:
        line = f"  {fenced.outcome}: {fenced.lead_id}, shown to {fenced.business_id}"
        console.print(line, soft_wrap=True, highlight=False)
    for damage in report.damages[:SHOWN]:
        console.print(f"  damaged: {damage.file}, line {damage.line}: {damage.what}", soft_wrap=True, highlight=False)
    if report.losses:
        table = Table("business", "leads", "price", "payout", box=None, pad_edge=False)
        table.title = "Upper limit of charges and payouts since the backup, which the ledger lacks"
        for loss in report.losses:
            sums = (amount_in_words(minor, loss.currency) for minor in (loss.price_minor, loss.payout_minor))
            table.add_row(loss.business_id, f"{loss.leads:,}", *sums)
        console.print(table)


@click.command()
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing; exit 1 if there is anything.")
@click.option(
    "--journal",
    "directories",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    metavar="DIR",
    help="The journal of another machine; name all journals. Default: this machine's.",
)
@JSON_FILE
def command(dry_run: bool, directories: tuple[Path, ...], json_file: Path | None) -> None:
    """Make a database that was restored from a backup safe to route on.

    Stop all workers first. Exits 1 on what cannot be repaired: damaged journal lines, leads that two businesses saw.
    """
    import uvloop

    report = uvloop.run(_run(load_existing(os.environ), directories, dry_run=dry_run))
    show(report, Console())
    write_json(json_file, report)
    if report.beyond_repair or (dry_run and report.forgotten):
        raise SystemExit(1)


async def _run(settings: Settings, directories: tuple[Path, ...], *, dry_run: bool) -> FenceReport:
    async with command_pool(settings, "marketplace_worker") as pool:
        return await fence(pool, directories or (settings.journal_dir,), clock.now(), dry_run=dry_run)
