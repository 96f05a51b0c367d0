"""Metrics of a process in the words of the business; labels are outcomes and reasons, never an id.

Each process counts for itself: the api at its operational address, each worker at a port of its own. Figures that only
the database has (leads by state, the oldest waiting lead, held money) are read when the api's page is requested.
"""

import asyncio
from functools import lru_cache
from typing import Any, Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest, start_http_server

from marketplace.database.background import REST
from marketplace.database.db import Connection, Pool, Queries, load_record, session
from marketplace.runtime import clock
from marketplace.runtime.errors import Unavailable

SQL = Queries(__file__, "metrics.sql")

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)

REQUESTS: Final = Counter("requests_total", "HTTP requests", ["route", "method", "status"])
REQUEST_SECONDS: Final = Histogram("request_seconds", "Time to answer a request", ["route"], buckets=SECONDS)
INQUIRIES: Final = Counter("inquiries_total", "Inquiries answered, by the outcome of intake", ["outcome"])
JOBS: Final = Counter("jobs_total", "Jobs run", ["job", "outcome"])
JOB_SECONDS: Final = Histogram("job_seconds", "Time that a job took", ["job"], buckets=SECONDS)
DELIVERIES: Final = Counter("delivery_attempts_total", "Delivery attempts, by result", ["result"])
REFUSED: Final = Counter("connections_refused_total", "Connections ended before a request was read", ["reason"])
PUSH_MESSAGES: Final = Counter("push_messages_total", "Messages to members' browsers, by result", ["result"])
JOURNAL_FAILED: Final = Counter("journal_failed_total", "Attempts not made because the exposure journal failed")
SWEEPS_FAILED: Final = Counter("sweeps_failed_total", "Sweeps that found no database")

LEADS: Final = Gauge("leads", "Leads received in the last 24 hours, by state", ["state"])
OLDEST: Final = Gauge("oldest_due_seconds", "How long the most overdue lead or assignment has been due")
ADMISSION_LIMIT: Final = Gauge("admission_limit_per_second", "Inquiries taken in per second; 0 while all are")
HELD: Final = Gauge("wallet_held_minor", "Money held for open assignments", ["currency"])
QUARANTINED: Final = Gauge("work_quarantined", "Work set aside because it keeps failing", ["kind"])
PASS_FAILURES: Final = Gauge("background_pass_failures", "Failures in a row of a background pass", ["name"])
LIST_SOURCES: Final = Gauge("list_sources", "Sources of lists on the web, by their last refresh", ["result"])
ACK_SECONDS: Final = Gauge("accepted_to_acknowledged_seconds", "Over the last hour", ["quantile"])


@lru_cache(maxsize=1024)
def of_requests(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    """Return the count and the duration of requests with these labels, looked up once: a lookup takes seven
    microseconds, as long as all else that is counted of a request.
    """
    return REQUESTS.labels(route=route, method=method, status=status), REQUEST_SECONDS.labels(route=route)


CHEAP_SECONDS: Final = 0.1
"""Reading the database's figures scans the leads of a day. When that takes longer than this, the figures are reused for
REST times as long, so that it takes at most 5 % of one processor."""


class _Figures:
    """Monotonic time at which this process next reads the database's figures."""

    stale_at = 0.0


async def page(pool: Pool) -> bytes:
    """Return the Prometheus text, with the database's current figures; without them while the database is away."""
    if clock.monotonic() >= _Figures.stale_at:
        began = clock.monotonic()
        try:
            async with session(pool) as connection:
                await _read(connection)
        except Unavailable:
            LEADS.clear()
            HELD.clear()
        took = clock.monotonic() - began
        _Figures.stale_at = clock.monotonic() + (REST * took if took > CHEAP_SECONDS else 0.0)
    return generate_latest(REGISTRY)


async def _read(connection: Connection) -> None:
    LEADS.clear()
    for row in await connection.fetch(SQL["count_leads"]):
        LEADS.labels(state=row["state"]).set(row["count"])
    HELD.clear()
    for row in await connection.fetch(SQL["sum_held"]):
        HELD.labels(currency=row["currency"]).set(row["held_minor"])
    for row in await connection.fetch(SQL["count_quarantined"]):
        QUARANTINED.labels(kind=row["kind"]).set(row["count"])
    for row in await connection.fetch(SQL["list_passes"]):
        PASS_FAILURES.labels(name=row["name"]).set(row["failures"])
    for row in await connection.fetch(SQL["count_list_sources"]):
        LIST_SOURCES.labels(result=row["result"]).set(row["count"])
    OLDEST.set(await connection.fetchval(SQL["find_oldest_due"]))
    speed = await load_record(connection, SQL["find_speed"])
    for quantile, value in (("0.5", speed["p50"]), ("0.95", speed["p95"]), ("0.99", speed["p99"])):
        ACK_SECONDS.labels(quantile=quantile).set(value or 0.0)


def serve(port: int | None) -> Any:
    """Serve a worker's metrics on the loopback address, and return the server; None without a port."""
    if port is None:
        return None
    server, _thread = start_http_server(port, addr="127.0.0.1")
    return server


async def close_at(stopping: asyncio.Event, server: Any) -> None:
    """Close a server of `serve` once `stopping` is set, so that a successor of this process can have the port."""
    await stopping.wait()
    if server is not None:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
