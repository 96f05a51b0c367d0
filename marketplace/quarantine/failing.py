"""Work that keeps failing: retried at growing intervals, then quarantined, so that it blocks nothing and is noticed.

A row of work is a lead, an assignment or a notice to a business. When its job ends in an error other than Unavailable,
the class of the error is recorded. After MOST_FAILURES in a row it is quarantined: `verify` finds it, metrics and log
raise an alarm, and an operator may retry it. Quarantined work still ends in time: held money is released, and a lead
that was not shown to anybody ends unsold.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Pool, Queries, fetch_rows, find_row, session, transaction
from marketplace.delivery import store as delivery_store
from marketplace.ledger import money
from marketplace.notices import store as notices_store
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.errors import Unavailable
from marketplace.runtime.log import logger
from marketplace.security import audit
from routing.lifecycle import AssignmentState

SQL = Queries(__file__, "failing.sql")
log = logger("worker")

FIRST_PAUSE: Final = timedelta(seconds=30)
"Pause before the second try; doubled with each failure in a row."
LONGEST_PAUSE: Final = timedelta(minutes=15)
MOST_FAILURES: Final = 8
SHORTEST_TRIAL: Final = timedelta(minutes=30)
"Least time from the first failure to quarantine; with these pauses it takes some 45 minutes."
TIME_TO_MEND: Final = timedelta(hours=22)
"Time from its first failure to the end of a quarantined lead: less than the 25 hours in which every lead ends."
REASON: Final = "work_failed"
"Reason of a lead that ended, or an assignment that was released, because its work kept failing."
NEXT_BUSINESS_GRACE: Final = timedelta(seconds=1)


class WorkKind(StrEnum):
    """Kinds of work that the sweeper retries."""

    lead = "lead"
    assignment = "assignment"
    notice = "notice"


class FailedWork(msgspec.Struct, frozen=True, kw_only=True):
    """Work that has just failed again."""

    kind: WorkKind
    id: UUID
    failures: int
    first_failed_at: datetime
    last_failed_at: datetime
    quarantined_at: datetime | None


class QuarantinedWork(msgspec.Struct, frozen=True, kw_only=True):
    """Quarantined work as an operator sees it; `ended_at` is when it was given up."""

    kind: WorkKind
    id: UUID
    lead_id: UUID
    mode: str
    lead_state: str
    failure: str
    failures: int
    first_failed_at: datetime
    last_failed_at: datetime
    quarantined_at: datetime
    retry_at: datetime | None
    ended_at: datetime | None


def next_try_at(failing: FailedWork) -> datetime | None:
    """Return the time of the next try; None when the work must be quarantined."""
    trial = failing.last_failed_at - failing.first_failed_at
    if failing.quarantined_at is not None or (failing.failures >= MOST_FAILURES and trial >= SHORTEST_TRIAL):
        return None
    doublings: int = min(failing.failures - 1, 16)
    return failing.last_failed_at + min(FIRST_PAUSE * (1 << doublings), LONGEST_PAUSE)


def is_failure(error: Exception) -> bool:
    """Return whether an error counts against the work: a slow statement does, an absent engine does not."""
    return not isinstance(error, Unavailable) or isinstance(error.__cause__, asyncpg.QueryCanceledError)


class WorkRunner:
    """Runs the work of a worker and records what fails."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def run(self, lead_id: UUID, work: Awaitable[object], *, notice_id: UUID | None = None) -> None:
        """Await `work` on this lead, or on a notice about it; record an error and raise it again."""
        try:
            await work
        except Exception as error:
            if is_failure(error):
                await self._note(lead_id, type(error).__name__, notice_id)
            raise

    async def run_again(self, kind: WorkKind, id: UUID, lead_id: UUID, work: Callable[[], Awaitable[object]]) -> None:
        """Run work that the sweeper found due; quarantined work is ended instead of tried."""
        async with session(self._pool) as connection:
            record = await connection.fetchrow(SQL["find_failing"], kind, id)
        if record is not None and record["quarantined"]:
            return await self._give_up(kind, id, lead_id, record["first_failed_at"])
        await self.run(lead_id, work(), notice_id=id if kind is WorkKind.notice else None)
        if record is not None:
            async with session(self._pool) as connection:
                await connection.execute(SQL["forget"], kind, id)

    async def _note(self, lead_id: UUID, failure: str, notice_id: UUID | None) -> None:
        """Record a failure, then set the next try or quarantine the work."""
        async with transaction(self._pool) as connection:
            failing = await find_row(connection, SQL["note_failure"], FailedWork, lead_id, failure, notice_id)
            if failing is None:
                return
            again_at = next_try_at(failing)
            if again_at is not None:
                await connection.execute(SQL["put_off"], failing.kind, failing.id, again_at)
                return
            await self._quarantine(connection, failing)
        log.error("work_quarantined", job=failing.kind, id=str(failing.id), error=failure, count=failing.failures)

    async def _quarantine(self, connection: Connection, failing: FailedWork) -> None:
        """Quarantine the work until its end. An assignment that was not shown ends now, so that no money stays held."""
        await connection.execute(SQL["mark_quarantined"], failing.kind, failing.id)
        await connection.execute(SQL["put_to_end"], failing.kind, failing.id, failing.first_failed_at + TIME_TO_MEND)
        if failing.kind is WorkKind.assignment and await _release(connection, failing.id):
            await connection.execute(SQL["mark_ended"], failing.kind, failing.id)

    async def _give_up(self, kind: WorkKind, id: UUID, lead_id: UUID, first_failed_at: datetime) -> None:
        """End quarantined work whose time is over, using plain columns only: others may be unreadable."""
        async with transaction(self._pool) as connection:
            match kind:
                case WorkKind.lead:
                    await connection.execute(SQL["end_lead"], id, REASON)
                case WorkKind.notice:
                    await notices_store.mark_overdue(connection, id, None)
                case WorkKind.assignment:
                    if not await _release(connection, id):
                        await connection.execute(SQL["put_to_end"], kind, id, first_failed_at + TIME_TO_MEND)
                        return
                case _:
                    assert_never(kind)
            await connection.execute(SQL["mark_ended"], kind, id)
        log.error("work_given_up", job=kind, id=str(id), lead=str(lead_id))


async def _release(connection: Connection, assignment_id: UUID) -> bool:
    """Release the business's held money if possible; return whether the assignment has ended.

    A lead that was not shown goes to the next business; one that was shown lapses once its evidence deadline has come.
    """
    claim = await delivery_store.find_claim(connection, assignment_id)
    if claim is None:
        return True
    now, state = claim.read_at, await delivery_store.lock_delivery(connection, claim)
    if state is AssignmentState.held:
        await delivery_store.mark_released(connection, claim, REASON, now + NEXT_BUSINESS_GRACE, now)
    elif state is AssignmentState.exposed and claim.evidence_until is not None:
        if now < claim.evidence_until:
            return False
        await delivery_store.mark_settled(connection, claim, AssignmentState.lapsed, REASON, None, now)
    else:
        return True
    if claim.mode == "live":
        await money.release(connection, claim.price, now)
    return True


async def take_retries(connection: Connection) -> None:
    """Make work due for which an operator requested another try."""
    await connection.execute(SQL["take_retries"])


async def forget_old(connection: Connection) -> None:
    """Delete records of failures that did not recur for two days."""
    await connection.execute(SQL["forget_old"])


async def list_quarantined(connection: Connection, limit: int) -> tuple[QuarantinedWork, ...]:
    """Return quarantined work, newest first."""
    return await fetch_rows(connection, SQL["list_quarantined"], QuarantinedWork, limit)


async def ask_for_retry(pool: Pool, actor: str, kind: WorkKind, id: UUID) -> None:
    """Retry quarantined work within a second, with no failures counted. Raises NotFound."""
    await _change(pool, actor, kind, id, "ask_for_retry", "work.retry")


async def dismiss(pool: Pool, actor: str, kind: WorkKind, id: UUID) -> None:
    """Remove work that was given up from the list. Raises NotFound when it is still open."""
    await _change(pool, actor, kind, id, "dismiss", "work.dismiss")


async def _change(pool: Pool, actor: str, kind: WorkKind, id: UUID, statement: str, action: str) -> None:
    async with transaction(pool) as connection:
        lead_id = await connection.fetchval(SQL[statement], kind, id)
        if lead_id is None:
            raise errors.NotFound("This work is no longer quarantined. Reload the page.")
        await audit.record(connection, clock.now(), actor, action, ids.encode("lead", lead_id), kind=kind)
