"""Composition root of the worker: processes leads when notified, and finds due work without a notification.

The queue starts new leads within milliseconds. The sweeper reads due rows from Postgres, without the queue, so that
routing, retries and deadlines continue while Valkey is away. Retries have slots of their own, so that an endpoint that
is down does not delay new leads.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final
from uuid import UUID

import msgspec

from marketplace.certificates.flow import Claims, accounts_of
from marketplace.database.db import Connection, Pool, Queries, open_pool, rehearse, session
from marketplace.database.embedded import Engines
from marketplace.database.journal import Journal
from marketplace.deletions.flow import keep_completing
from marketplace.delivery import store as delivery_store
from marketplace.delivery.flow import Announce, AttemptResult, Delivery
from marketplace.delivery.mailing import MailSender
from marketplace.delivery.store import DeliveryCase
from marketplace.distribution import store as distribution_store
from marketplace.distribution.flow import LEASE, Distribution
from marketplace.feedback import stage_changes, stages_store
from marketplace.feedback.flow import UNMAPPED_AGE
from marketplace.feedback.stage_changes import StageChangeSender
from marketplace.learning import job as learning_job
from marketplace.mail import outbox
from marketplace.notices import store as notices_store
from marketplace.notices.flow import Notices
from marketplace.operations.processes import COMMAND
from marketplace.quarantine import failing
from marketplace.quarantine.failing import WorkKind
from marketplace.reports import refresh, roi
from marketplace.rules.arrivals import keep_learning
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock, failpoints, ids, queue
from marketplace.runtime.errors import Unavailable
from marketplace.runtime.live import Publisher
from marketplace.runtime.log import logger
from marketplace.runtime.settings import Settings, StartError
from marketplace.security import audit
from marketplace.security.sealing import Sealer
from marketplace.simulations import store as simulations_store
from marketplace.simulations.flow import RESULT_AGE, keep_simulating
from marketplace.suppression_lists.job import keep_refreshing
from marketplace.web import metrics
from marketplace.web_push.encryption import load_private_key
from marketplace.web_push.flow import NewLead, PushSender
from marketplace.webhook.address import AddressRules, guard_of
from marketplace.webhook.kept import KeptConnections
from marketplace.webhook.transport import Reservations

SQL = Queries(__file__, "worker.sql")
log = logger("worker")

WALK_SLOTS: Final = 200
"New leads in progress at once; each mostly waits for the network, not for the processor."
RETRY_SLOTS: Final = 50
"Retries and deadlines in progress at once, apart from new leads."
SWEEP_SECONDS: Final = 0.25
"Interval of the search for due rows: without Valkey a lead waits its grace of one second and at most this."
MOST_NOTICES: Final = 5
"Notices to businesses started in one sweep: they have days, leads have seconds."
SWEEP_SLOTS: Final = 100
"New leads in progress at once that the sweeper found, apart from retries: without Valkey, that is all of them."
MOST_HOPS: Final = 12
"Businesses that are tried in one run before the lead is left to the sweeper."
PAUSES_WHEN_AWAY: Final = (0.5, 1.0, 2.0, 4.0)
"Seconds before the retries while the database is away: waiting for the end of the lease would take longer."
HOUSEKEEPING_SECONDS: Final = 3600.0
SIMULATE: Final = (*COMMAND, "simulate", "--job")
"Command that computes the simulation whose id follows it."
REFRESH: Final = (*COMMAND, "lists", "refresh", "--job")
"Command that refreshes the list whose id follows it."


class Walker:
    """Processes one lead as far as is possible now."""

    def __init__(self, distribution: Distribution, delivery: Delivery) -> None:
        self._distribution = distribution
        self._delivery = delivery

    async def walk(self, lead_id: UUID) -> None:
        """Distribute the lead and attempt delivery at once; when a business is unreachable, go on to the next.

        Retries a few times while the database is away. Raises Unavailable when it stays away.
        """
        for pause in PAUSES_WHEN_AWAY:
            try:
                return await self._walk(lead_id)
            except Unavailable:
                await asyncio.sleep(pause)
        return await self._walk(lead_id)

    async def _walk(self, lead_id: UUID) -> None:
        for _hop in range(MOST_HOPS):
            assignment_id = await self._distribution.distribute(lead_id)
            if assignment_id is None or await self.attempt(assignment_id) is not AttemptResult.released:
                return

    async def attempt(self, assignment_id: UUID) -> AttemptResult:
        """Make and count one delivery attempt of an assignment."""
        result = await self._delivery.deliver(assignment_id)
        metrics.DELIVERIES.labels(result=result).inc()
        return result

    async def attempt_and_walk_on(self, assignment_id: UUID, lead_id: UUID) -> None:
        """Retry a delivery; if the assignment is released, distribute the lead to the next business."""
        if await self.attempt(assignment_id) is AttemptResult.released:
            await self.walk(lead_id)


class Sweeper:
    """Finds due work in Postgres. Several may run: each row is claimed by one of them, under a lease."""

    def __init__(self, pool: Pool, walker: Walker, notices: Notices) -> None:
        self._pool = pool
        self._failures = failing.WorkRunner(pool)
        self._walker = walker
        self._notices = notices
        self._running: set[asyncio.Task[None]] = set()
        self._slots_taken: Counter[str] = Counter()

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until `stopping` is set, then wait for work in progress. Continues through outages of the engines."""
        last_housekeeping = 0.0
        while not stopping.is_set():
            try:
                if clock.monotonic() - last_housekeeping > HOUSEKEEPING_SECONDS:
                    await self._do_housekeeping()
                    last_housekeeping = clock.monotonic()
                await self.sweep()
            except Unavailable:
                metrics.SWEEPS_FAILED.inc()
            try:
                await asyncio.wait_for(stopping.wait(), SWEEP_SECONDS)
            except TimeoutError:
                continue
        if self._running:
            await asyncio.wait(self._running, timeout=LEASE.total_seconds())

    async def sweep(self) -> int:
        """Start due work in the free slots, and return the number of rows claimed."""
        retry_slots = RETRY_SLOTS - self._slots_taken["retry"]
        sweep_slots = SWEEP_SLOTS - self._slots_taken["sweep"]
        async with session(self._pool) as connection:
            assignments = await delivery_store.claim_due(connection, LEASE, retry_slots)
            rows = await connection.fetch(SQL["claim_due_leads"], LEASE, sweep_slots)
            notices = await notices_store.claim_due_notices(connection, LEASE, MOST_NOTICES)
            await failing.take_retries(connection)
        if assignments or rows:
            await failpoints.reach("after_claim_due")
        for assignment_id, lead_id in assignments:
            retry = partial(self._walker.attempt_and_walk_on, assignment_id, lead_id)
            self._start("retry", lead_id, self._failures.run_again(WorkKind.assignment, assignment_id, lead_id, retry))
        for row in rows:
            walk = partial(self._walker.walk, row["id"])
            self._start("sweep", row["id"], self._failures.run_again(WorkKind.lead, row["id"], row["id"], walk))
        for notice_id, lead_id in notices:
            send = partial(self._notices.send, notice_id)
            self._start("notice", lead_id, self._failures.run_again(WorkKind.notice, notice_id, lead_id, send))
        return len(assignments) + len(rows) + len(notices)

    def _start(self, job: str, lead_id: UUID, work: Awaitable[object]) -> None:
        task = asyncio.create_task(_logged(job, lead_id, work))
        self._running.add(task)
        self._slots_taken[job] += 1
        task.add_done_callback(lambda done: self._free(job, done))

    def _free(self, job: str, done: asyncio.Task[None]) -> None:
        self._running.discard(done)
        self._slots_taken[job] -= 1

    async def _do_housekeeping(self) -> None:
        """Create partitions for the coming months, and delete old records of failures, simulations and reports."""
        async with session(self._pool) as connection:
            await connection.execute(SQL["make_partitions"], 3)
            await failing.forget_old(connection)
            await simulations_store.delete_old(connection, clock.now() - RESULT_AGE)
            await stages_store.delete_old_unmapped(connection, clock.now() - UNMAPPED_AGE)
            await stage_changes.delete_old(connection, clock.now() - stage_changes.KEPT_FOR)
            await outbox.delete_old(connection, clock.now() - outbox.KEPT_FOR)


async def _logged(job: str, lead_id: UUID, work: Awaitable[object]) -> None:
    """Await work and log it; an error is logged and ends here."""
    started = clock.monotonic()
    error: str | None = None
    try:
        await work
    except Exception as caught:  # a failing job must not end the sweeper
        error = type(caught).__name__
    note_job(job, lead_id, 0.0, 1000 * (clock.monotonic() - started), error)


def note_job(job: str, id: UUID, waited_ms: float, took_ms: float, error: str | None) -> None:
    """Log one line for a job, and count it. Only the error's class is named: its text may hold values."""
    outcome = "error" if error else "done"
    metrics.JOBS.labels(job=job, outcome=outcome).inc()
    metrics.JOB_SECONDS.labels(job=job).observe(took_ms / 1000)
    write = log.warning if error else log.info
    write("job", job=job, id=str(id), waited_ms=round(waited_ms, 2), ms=round(took_ms, 2), error=error)


async def run(settings: Settings, engines: Engines, stopping: asyncio.Event | None = None) -> None:
    """Run the worker until `stopping` is set, then drain: no new job is started, running ones end.

    Raises StartError, at the start or after a reconnection, when the database lacks journaled exposures.
    """
    stopping = stopping or asyncio.Event()
    journal = await Journal.open(settings.journal_dir)
    try:
        await _work(settings, engines, journal, stopping)
    except ExceptionGroup as group:
        if (refusal := group.subgroup(StartError)) is not None:
            raise refusal.exceptions[0] from None
        raise
    finally:
        await journal.close()


async def _preload_rules(catalog: Catalog) -> None:
    """Load the rules before the first lead; when they cannot be read, the worker starts anyway for its other work."""
    try:
        await catalog.current()
    except (Unavailable, msgspec.ValidationError) as error:
        log.warning("rules_not_read", error=type(error).__name__)


def _open_push(
    settings: Settings, pool: Pool, catalog: Catalog, sealer: Sealer, guard: AddressRules
) -> PushSender | None:
    """Return the sender of push messages; None without a key for them."""
    if settings.vapid_private_key is None:
        return None
    key = load_private_key(settings.vapid_private_key)
    return PushSender(pool, catalog, sealer, guard, key, settings.public_url)


def announce_by(push: PushSender | None) -> Announce | None:
    """Return what tells the members of a business of a lead in their inbox; None without push messages."""
    if push is None:
        return None

    def announce(case: DeliveryCase) -> None:
        push.announce(
            NewLead(
                business_id=case.business_id,
                assignment_id=case.assignment_id,
                vertical=case.facts.vertical,
                mode=case.mode,
                hold_until=case.hold_until,
            )
        )

    return announce


async def _open_pool(settings: Settings, engines: Engines, journal: Journal) -> Pool:
    """Open the worker's pool, each of whose connections has the statements of a walk prepared."""

    async def prepare(connection: Connection) -> None:
        await journal.check(connection)
        for statement in (*distribution_store.OF_A_WALK, *delivery_store.OF_A_WALK):
            await rehearse(connection, statement)

    return await open_pool(
        engines.database_url,
        "marketplace_worker",
        size=settings.pool_size,
        master_key=settings.master_key,
        on_connect=prepare,
    )


async def _work(settings: Settings, engines: Engines, journal: Journal, stopping: asyncio.Event) -> None:
    pool = await _open_pool(settings, engines, journal)
    sealer, guard = Sealer(settings.master_key, settings.pepper), guard_of(settings)
    publisher, connections = Publisher(engines.valkey_url), KeptConnections()
    catalog = Catalog(pool)
    await _preload_rules(catalog)
    load = queue.LoadReporter(engines.valkey_url, ids.encode("wrk", clock.new_id()))
    push = _open_push(settings, pool, catalog, sealer, guard)
    claims = Claims(pool, catalog, sealer, guard, accounts_of(settings))
    mail = MailSender.of(pool, settings)
    delivery = Delivery(pool, sealer, guard, journal, publisher, connections, announce_by(push), mail)
    walker = Walker(
        Distribution(pool, catalog, load.note, Reservations(guard, connections), claims.claim),
        delivery,
    )
    failures = failing.WorkRunner(pool)
    jobs: dict[str, Callable[[UUID], Awaitable[None]]] = {
        "walk": lambda lead_id: failures.run(lead_id, walker.walk(lead_id))
    }
    metrics_server = metrics.serve(settings.worker_metrics_port)
    log.info("started")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(Sweeper(pool, walker, Notices(pool, sealer, guard, publisher)).run(stopping))
            group.create_task(metrics.close_at(stopping, metrics_server))
            group.create_task(load.keep_reporting(stopping))
            group.create_task(catalog.keep(stopping))
            group.create_task(refresh.keep_fresh(pool, stopping))
            group.create_task(keep_learning(pool, catalog, stopping))
            group.create_task(roi.keep_following(pool, stopping))
            group.create_task(StageChangeSender(pool, sealer, guard).keep_sending(stopping))
            if mail is not None:
                group.create_task(mail.outbox.keep_sending(stopping))
            group.create_task(keep_completing(pool, stopping))
            group.create_task(keep_simulating(pool, SIMULATE, stopping))
            group.create_task(keep_refreshing(pool, REFRESH, stopping))
            group.create_task(learning_job.keep_learning(pool, stopping))
            group.create_task(audit.keep_sealing(pool, audit.seal_key(settings.master_key), stopping))
            group.create_task(
                queue.answer(engines.valkey_url, jobs, slots=WALK_SLOTS, stopping=stopping, on_job=note_job)
            )
    finally:
        if push is not None:
            await push.close()
        connections.close()
        if mail is not None:
            await mail.close()
        delivery.close()
        await load.close()
        await publisher.close()
        await pool.close()
        log.info("stopped")
