"""HTTP API of simulations: request one, read its progress and result, cancel it, list them. Operators only."""

from typing import Final

from litestar import Response, delete, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory.wire import BODY_LIMIT as RULES_LIMIT
from marketplace.directory.wire import OPERATOR, OPERATOR_READING, SLUG, path_slug, provide_configuration
from marketplace.runtime import ids
from marketplace.simulations import flow as simulations_flow
from marketplace.simulations import store as simulations_store
from marketplace.simulations.comparison import BusinessComparison
from marketplace.simulations.store import StoredSimulation
from marketplace.simulations.wire import (
    BusinessComparisonView,
    SimulationRequest,
    SimulationView,
    show_business,
    show_result,
)
from marketplace.web.api import Caller, Injected, JsonAnswer, api_router, list_page
from marketplace.web.http import AnyRequest, Page, Services, csv_page, page_cursor, page_limit, path_id, wants_csv
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged

PATH: Final = "/simulations"
ONE: Final = f"{PATH}/{{simulation_id:str}}"
VERTICAL: Final = QueryParameter(
    name="vertical", about="Only simulations of this vertical.", schema={"type": "string", "pattern": SLUG}
)
CSV_LINES: Final = 10_000


@post(
    PATH,
    status_code=202,
    tags=["simulations"],
    dependencies={"caller": OPERATOR, "draft": provide_configuration(SimulationRequest)},
    request_max_body_size=RULES_LIMIT,
)
async def create_simulation(
    caller: Caller, draft: Injected[SimulationRequest], services: Injected[Services]
) -> Response[SimulationView]:
    """Starts to try changes of the rules on the past leads of a vertical. Nothing is changed. Operators only.

    The answer comes at once; Location has the address of the simulation, which has its progress and then its result.
    """
    rules = await services.catalog.current()
    simulation_id = await simulations_flow.create(services.pool, rules, caller.key_id, draft)
    simulation = await simulations_flow.load(services.pool, simulation_id)
    headers = {"Location": f"/v1{PATH}/{ids.encode('sim', simulation_id)}"}
    return JsonAnswer(show_simulation(simulation), status_code=202, headers=headers)


@get(
    PATH,
    tags=["simulations"],
    dependencies={"caller": OPERATOR_READING},
    doc=RouteDoc(query=(*paged(id_of("sim")), VERTICAL)),
)
async def list_simulations(request: AnyRequest, services: Injected[Services]) -> Page[SimulationView]:
    """Lists simulations of the last 30 days, newest first, without the businesses of their results. Operators only."""
    limit, before = page_limit(request), page_cursor(request, "sim")
    vertical = request.query_params.get("vertical")
    if vertical is not None:
        path_slug(vertical)
    async with session(services.pool) as connection:
        rows = await simulations_store.list_simulations(connection, vertical, before, limit + 1)
    return list_page(rows, limit, show_simulation, lambda row: ids.encode("sim", row.id))


@get(ONE, tags=["simulations"], dependencies={"caller": OPERATOR_READING})
async def show(simulation_id: FromPath[str], services: Injected[Services]) -> SimulationView:
    """Shows a simulation: its state, its progress in leads, and its result once it is done. Operators only."""
    return show_simulation(await _load(services, simulation_id))


@get(
    f"{ONE}/businesses",
    tags=["simulations"],
    dependencies={"caller": OPERATOR_READING},
    doc=RouteDoc(answers={200: (Page[BusinessComparisonView], "text/csv")}, query=paged(id_of("biz"))),
)
async def list_businesses(
    request: AnyRequest, simulation_id: FromPath[str], services: Injected[Services]
) -> Page[BusinessComparisonView] | Response[bytes]:
    """Lists the businesses of a result, those with the largest change first; as CSV if the caller accepts `text/csv`.

    Operators only.
    """
    simulation = await _load(services, simulation_id)
    comparison = simulation.result.comparison if simulation.result else None
    rows = comparison.businesses if comparison else ()
    last = page_cursor(request, "biz")
    position = next((number for number, row in enumerate(rows, 1) if row.business_id == last), 0)
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    page = rows[position : position + limit + 1]
    if as_file:
        fields = BusinessComparisonView.__struct_fields__
        return await csv_page(request, page, limit, show_business, _cursor, fields, "simulation-businesses")
    return list_page(page, limit, show_business, _cursor)


def _cursor(row: BusinessComparison) -> str:
    return ids.encode("biz", row.business_id)


@delete(ONE, status_code=200, tags=["simulations"], dependencies={"caller": OPERATOR})
async def cancel_simulation(
    simulation_id: FromPath[str], caller: Caller, services: Injected[Services]
) -> SimulationView:
    """Cancels a simulation that waits or runs; one that has ended stays as it is. Operators only."""
    key = path_id("sim", simulation_id)
    return show_simulation(await simulations_flow.cancel(services.pool, caller.key_id, key))


def show_simulation(simulation: StoredSimulation) -> SimulationView:
    """Return a simulation in the form that the API returns."""
    return SimulationView(
        id=ids.encode("sim", simulation.id),
        vertical=simulation.vertical,
        state=simulation.state,
        since=simulation.since,
        until=simulation.until,
        changes=simulation.request.changes,
        suggest=simulation.request.suggest,
        leads=simulation.leads,
        leads_done=simulation.leads_done,
        made_at=simulation.made_at,
        ended_at=simulation.ended_at,
        failure=simulation.failure,
        result=show_result(simulation.result) if simulation.result else None,
    )


async def _load(services: Services, simulation_id: str) -> StoredSimulation:
    return await simulations_flow.load(services.pool, path_id("sim", simulation_id))


handlers: Final = (api_router(create_simulation, list_simulations, show, list_businesses, cancel_simulation),)
