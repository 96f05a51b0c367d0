"""Simulations as rows: requested and cancelled by operators, computed by one process at a time.

    create → waiting → a worker claims it and starts a process → running, page by page of leads → done

The process that computes a simulation extends its lease with each page, and stops when it is cancelled. If it dies, the
lease ends and a worker begins the simulation anew. It runs at the lowest priority of the system, so that leads do not
wait for it.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Pool, session, transaction
from marketplace.rules.catalog import Rules, load_rules
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.jobs import run_process
from marketplace.runtime.log import logger
from marketplace.security import audit
from marketplace.simulations import computing, loading
from marketplace.simulations import store as simulations_store
from marketplace.simulations.changes import (
    SimulatedTime,
    SimulationFault,
    apply_changes,
    rules_of,
    simulated_time,
)
from marketplace.simulations.simulator import SimulatedRules
from marketplace.simulations.store import ClaimedSimulation, NewSimulation, StoredSimulation
from marketplace.simulations.wire import OPEN, SimulationRequest, SimulationResult
from marketplace.simulations.wording import describe_changes
from marketplace.text.faults import Fault

log = logger("simulations")

MOST_OPEN: Final = 20
"Simulations that wait or run at a time."
LEASE: Final = timedelta(seconds=60)
"Longer than any page of leads takes, also with the suggestions' many sets of rules on a busy machine."
MOST_TRIES: Final = 3
"Tries of a simulation whose process dies each time."
LOOK_SECONDS: Final = 1.0
"Pause between two searches for due simulations."
RESULT_AGE: Final = timedelta(days=30)
"Age at which a simulation is deleted."
PROCESS_ENDED: Final = "The process that computed it ended with an error. Choose a shorter time, or read the log."


class SimulationCancelled(Exception):
    """Raised in the process that computes a simulation when it was cancelled, or begun anew by another worker."""


class SimulationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request: the rules in force, the changed ones with the change in words, and the time."""

    before: SimulatedRules
    after: SimulatedRules
    change: str
    time: SimulatedTime


def plan(rules: Rules, request: SimulationRequest, time: SimulatedTime | tuple[Fault, ...]) -> SimulationPlan:
    """Return what a request means by the rules in force. Raises InvalidInput with every fault at once."""
    faults = list(time) if isinstance(time, tuple) else []
    vertical = rules.by_slug.get(request.vertical)
    if vertical is None:
        detail = "Name a vertical by its slug; GET /v1/verticals has them."
        faults.append(Fault(pointer="/vertical", code=SimulationFault.vertical_unknown, detail=detail))
        raise errors.InvalidInput(faults)
    if request.suggest == bool(request.changes):
        detail = "Send changes, or set suggest to have small changes tried."
        faults.append(Fault(pointer="/changes", code=SimulationFault.not_exactly_one, detail=detail))
    before = rules_of(rules, vertical)
    after = apply_changes(before, request.changes)
    if isinstance(after, tuple):
        faults += after
    if faults or isinstance(after, tuple) or isinstance(time, tuple):
        raise errors.InvalidInput(faults)
    change = describe_changes(request.changes, vertical.definition.currency)
    return SimulationPlan(before=before, after=after, change=change, time=time)


async def create(pool: Pool, rules: Rules, actor: str, request: SimulationRequest) -> UUID:
    """Store a simulation and return its id. Raises InvalidInput, and Conflict if too many wait."""
    now = clock.now()
    checked = plan(rules, request, simulated_time(request.since, request.until, now))
    new = NewSimulation(
        id=clock.new_id(),
        vertical_id=checked.before.vertical.id,
        actor=actor,
        request=msgspec.json.encode(request),
        since=checked.time.since,
        until=checked.time.until,
        made_at=now,
    )
    await check_leads(pool, checked, suggest=request.suggest)
    async with transaction(pool) as connection:
        if await simulations_store.count_open(connection) >= MOST_OPEN:
            raise errors.Conflict(f"{MOST_OPEN} simulations wait already. Wait for one to end, or cancel one.")
        await simulations_store.insert_simulation(connection, new)
        subject = ids.encode("sim", new.id)
        await audit.record(connection, now, actor, "simulation.create", subject, vertical=request.vertical)
    return new.id


async def check_leads(pool: Pool, checked: SimulationPlan, *, suggest: bool) -> None:
    """Raise InvalidInput if the time has too many leads. `pool` is of the role of the api or of reports."""
    async with session(pool) as connection:
        counts = await loading.count_leads(connection, checked.before.vertical.id, checked.time)
    if faults := computing.lead_faults(counts.replayable, suggest=suggest):
        raise errors.InvalidInput(faults)


async def load(pool: Pool, simulation_id: UUID) -> StoredSimulation:
    """Return a simulation. Raises NotFound."""
    async with session(pool) as connection:
        simulation = await simulations_store.find_simulation(connection, simulation_id)
    if simulation is None:
        raise errors.NotFound("There is no such simulation. Results are deleted after 30 days.")
    return simulation


async def cancel(pool: Pool, actor: str, simulation_id: UUID) -> StoredSimulation:
    """Cancel a simulation and return it; one that has ended stays as it is. Raises NotFound."""
    await load(pool, simulation_id)
    now = clock.now()
    async with transaction(pool) as connection:
        if await simulations_store.cancel(connection, simulation_id, now):
            await audit.record(connection, now, actor, "simulation.cancel", ids.encode("sim", simulation_id))
    return await load(pool, simulation_id)


# The process that computes.


async def run_simulation(worker: Pool, reports: Pool, simulation_id: UUID) -> None:
    """Compute a claimed simulation and store its result, or that it failed; end early if it was cancelled.

    `worker` and `reports` are pools of these roles.
    """
    simulation = await load(worker, simulation_id)
    if simulation.state not in OPEN:
        return

    async def report(leads_done: int, leads: int) -> None:
        async with session(worker) as connection:
            due_at = clock.now() + LEASE
            if not await simulations_store.advance(connection, simulation_id, leads_done, leads, due_at):
                raise SimulationCancelled

    try:
        result = await _compute(worker, reports, simulation, report)
    except SimulationCancelled:
        return
    except errors.InvalidInput as error:
        log.warning("simulation_failed", id=ids.encode("sim", simulation_id), error=type(error).__name__)
        failure = f"The rules have changed since: {' '.join(fault.detail for fault in error.faults)}"
        async with session(worker) as connection:
            await simulations_store.give_up(connection, simulation_id, failure, clock.now())
        return
    async with session(worker) as connection:
        encoded = msgspec.json.encode(result)
        await simulations_store.end_simulation(connection, simulation_id, encoded, clock.now())


async def _compute(
    worker: Pool, reports: Pool, simulation: StoredSimulation, report: computing.Report
) -> SimulationResult:
    """Return the result by the rules as they are now. Raises InvalidInput if the changes do not fit them any more."""
    async with session(worker) as connection:
        rules = await load_rules(connection)
    time = SimulatedTime(simulation.since, simulation.until)
    checked = plan(rules, simulation.request, time)
    return await compute_plan(reports, checked, report, suggest=simulation.request.suggest)


async def compute_plan(
    reports: Pool, checked: SimulationPlan, report: computing.Report, *, suggest: bool
) -> SimulationResult:
    """Compute a simulation, or the suggestions for its vertical. `reports` is of that role."""
    if not suggest:
        return await computing.simulate(reports, checked.before, checked.change, checked.after, checked.time, report)
    async with session(reports) as connection:
        businesses = {each.business_id for each in checked.before.subscriptions}
        names = await loading.list_business_names(connection, businesses)
    return await computing.suggest(reports, checked.before, names, checked.time, report)


# The worker that starts such processes.


async def keep_simulating(pool: Pool, command: Sequence[str], stopping: asyncio.Event) -> None:
    """Start a process for each simulation that is due, one at a time, until `stopping`; then end the one that runs.

    `command` computes the simulation whose id follows it. `pool` is of the worker's role.
    """
    while not stopping.is_set():
        try:
            now = clock.now()
            async with transaction(pool) as connection:
                claimed = await simulations_store.claim_due(connection, now + LEASE, now)
            if claimed is not None:
                await _run_process(pool, command, claimed, stopping)
                continue
        except errors.Unavailable as error:
            log.warning("simulations_unavailable", error=error.detail)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)


async def _run_process(pool: Pool, command: Sequence[str], claimed: ClaimedSimulation, stopping: asyncio.Event) -> None:
    """Run the process of a simulation to its end. After a failure it is due again, MOST_TRIES times in all."""
    code = await run_process((*command, ids.encode("sim", claimed.id)), stopping)
    if code == 0:
        return
    now = clock.now()
    async with session(pool) as connection:
        if stopping.is_set() or claimed.tries < MOST_TRIES:
            await simulations_store.make_due(connection, claimed.id, now)
        else:
            log.error("simulation_given_up", id=ids.encode("sim", claimed.id))
            await simulations_store.give_up(connection, claimed.id, PROCESS_ENDED, now)
