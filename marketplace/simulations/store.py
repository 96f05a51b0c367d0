"""The statements of simulations as typed functions: one per query."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row
from marketplace.simulations.wire import SimulationRequest, SimulationResult, SimulationState

SQL = Queries(__file__)


class StoredSimulation(msgspec.Struct, frozen=True, kw_only=True):
    """A simulation and its progress."""

    id: UUID
    vertical: str
    currency: str
    state: SimulationState
    actor: str
    request: SimulationRequest
    since: datetime
    until: datetime
    leads: int
    leads_done: int
    result: SimulationResult | None
    failure: str | None
    tries: int
    made_at: datetime
    ended_at: datetime | None


class NewSimulation(msgspec.Struct, frozen=True, kw_only=True):
    """A simulation to be stored; it is due at once."""

    id: UUID
    vertical_id: UUID
    actor: str
    request: bytes
    since: datetime
    until: datetime
    made_at: datetime


class ClaimedSimulation(NamedTuple):
    """A simulation that this worker computes, and the times that it has been begun."""

    id: UUID
    tries: int


async def insert_simulation(connection: Connection, new: NewSimulation) -> None:
    await connection.execute(SQL["insert_simulation"], *msgspec.structs.astuple(new))


async def count_open(connection: Connection) -> int:
    """Return the number of simulations that wait or run."""
    count: int = await connection.fetchval(SQL["count_open"])
    return count


async def find_simulation(connection: Connection, simulation_id: UUID) -> StoredSimulation | None:
    return await find_row(connection, SQL["find_simulation"], StoredSimulation, simulation_id)


async def list_simulations(
    connection: Connection, vertical: str | None, before: UUID | None, limit: int
) -> tuple[StoredSimulation, ...]:
    """Return simulations, newest first, after the simulation `before`, with no businesses in their results."""
    return await fetch_rows(connection, SQL["list_simulations"], StoredSimulation, vertical, before, limit)


async def claim_due(connection: Connection, until: datetime, now: datetime) -> ClaimedSimulation | None:
    """Lease one simulation that is due until a time; None if none is due or another is being computed."""
    row = await connection.fetchrow(SQL["claim_due"], until, now)
    return None if row is None else ClaimedSimulation(row["id"], row["tries"])


async def advance(connection: Connection, simulation_id: UUID, leads_done: int, leads: int, due_at: datetime) -> bool:
    """Record the progress and extend the lease; return False if the simulation is not running any more."""
    if leads_done == 0:
        return await connection.fetchval(SQL["begin"], simulation_id, leads, due_at) is not None
    return await connection.fetchval(SQL["advance"], simulation_id, leads_done, due_at) is not None


async def end_simulation(connection: Connection, simulation_id: UUID, result: bytes, now: datetime) -> bool:
    """Store the result; return False if the simulation is not running any more."""
    return await connection.fetchval(SQL["end_simulation"], simulation_id, result, now) is not None


async def give_up(connection: Connection, simulation_id: UUID, failure: str, now: datetime) -> None:
    """End a simulation as failed, for a reason in a sentence."""
    await connection.execute(SQL["give_up"], simulation_id, now, failure)


async def make_due(connection: Connection, simulation_id: UUID, at: datetime) -> None:
    """Let any worker begin a running simulation anew from `at`."""
    await connection.execute(SQL["make_due"], simulation_id, at)


async def cancel(connection: Connection, simulation_id: UUID, now: datetime) -> bool:
    """Cancel a simulation; return False if it has ended."""
    return await connection.fetchval(SQL["cancel"], simulation_id, now) is not None


async def delete_old(connection: Connection, before: datetime) -> None:
    """Delete the simulations that were requested before a time and have ended."""
    await connection.execute(SQL["delete_old"], before)
