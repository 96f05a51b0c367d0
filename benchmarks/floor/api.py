"""API of the bare pipeline: inserts an inquiry, enqueues its job, and answers 202.

python -m benchmarks.floor.api DATABASE_URL VALKEY_URL PORT POOL_SIZE
"""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
import uvicorn
import uvloop
from arq.connections import RedisSettings, create_pool
from litestar import Litestar, get, post
from litestar.datastructures import State

from benchmarks.floor.store import SQL, open_pool
from marketplace.operations.processes import ApiServer, told_to_stop
from marketplace.runtime import clock


class Inquiry(msgspec.Struct, frozen=True, kw_only=True):
    """Inquiry in the form that the marketplace's API takes. Contents of the parts are not checked."""

    vertical: str
    provider_reference: str
    submitted_at: datetime
    contact: dict[str, str]
    bant: dict[str, Any]
    attribution: dict[str, Any]
    touches: list[dict[str, Any]]
    consent: dict[str, Any]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Stored parts of an inquiry besides its contact."""

    vertical: str
    provider_reference: str
    bant: dict[str, Any]
    attribution: dict[str, Any]
    touches: list[dict[str, Any]]
    consent: dict[str, Any]


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to an accepted inquiry."""

    id: str


@post("/v1/inquiries", status_code=202)
async def submit(data: Inquiry, state: State) -> Accepted:
    """Insert the inquiry, enqueue the job that delivers it, and return its id."""
    received_at, id = clock.now(), clock.new_id()
    facts = msgspec.json.encode(msgspec.convert(data, Facts, from_attributes=True))
    contact = msgspec.json.encode(data.contact)
    await state.pool.execute(SQL["insert_lead"], id, data.submitted_at, received_at, contact, facts)
    await state.valkey.enqueue_job("deliver", str(id), _job_id=str(id))
    return Accepted(id=str(id))


@get("/readyz")
async def readyz() -> None:
    """Answer 200 once the pools are open."""


def create_app(database_url: str, valkey_url: str, pool_size: int) -> Litestar:
    """Return the application, which opens its pools at its start."""

    @asynccontextmanager
    async def running(app: Litestar) -> AsyncIterator[None]:
        app.state.pool = await open_pool(database_url, pool_size)
        app.state.valkey = await create_pool(RedisSettings.from_dsn(valkey_url))
        try:
            yield
        finally:
            await app.state.valkey.aclose(close_connection_pool=True)
            await app.state.pool.close()

    return Litestar([submit, readyz], lifespan=[running], openapi_config=None, logging_config=None)


async def serve(database_url: str, valkey_url: str, port: int, pool_size: int) -> None:
    """Serve until told to stop, by the HTTP server and with the frozen start-up objects of the marketplace's API."""
    app = create_app(database_url, valkey_url, pool_size)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, http="httptools", ws="none", log_config=None, access_log=False
    )
    gc.collect()
    gc.freeze()
    async with told_to_stop() as stopping:
        server = ApiServer(config)
        leaving = asyncio.create_task(server.leave(stopping))
        await server.serve()
        leaving.cancel()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
