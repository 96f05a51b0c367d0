"""Composition root of the api: its services, its routes, and its way of refusing requests."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import msgspec
from litestar import Litestar, MediaType, Response, get
from litestar.datastructures import State
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from marketplace.database.db import NOT_NOW, Pool, open_pool, session
from marketplace.database.embedded import Engines
from marketplace.deletions import http as deletions_http
from marketplace.delivery.event import AssignmentEvent
from marketplace.directory import http as directory_http
from marketplace.directory.challenge import ChallengeEvent
from marketplace.distribution import http as distribution_http
from marketplace.erasure import http as erasure_http
from marketplace.feed import http as feed_http
from marketplace.feedback import http as feedback_http
from marketplace.feedback import pipeline_http
from marketplace.feedback.csv_import import Dispositions
from marketplace.feedback.event import StageChangedEvent
from marketplace.funds import http as funds_http
from marketplace.imports import http as imports_http
from marketplace.imports.flow import Importer, Imports
from marketplace.imports.wire import ImportSubject
from marketplace.intake import http as intake_http
from marketplace.intake.admission import Admission
from marketplace.intake.contact import Contact
from marketplace.intake.flow import Intake
from marketplace.intake.postal import PostalBook
from marketplace.intake.refusals import Refusals
from marketplace.journey import http as journey_http
from marketplace.journey.flow import Journey
from marketplace.journey.joining import join_lead
from marketplace.learning import http as learning_http
from marketplace.notices import http as notices_http
from marketplace.notices.event import ErasureEvent, LeadUpdateEvent, RevocationEvent
from marketplace.nurturing import http as nurturing_http
from marketplace.people import http as people_http
from marketplace.portal import frame
from marketplace.portal import http as portal_http
from marketplace.receipts import http as receipts_http
from marketplace.reports import http as reports_http
from marketplace.reports import roi_http
from marketplace.revocations import http as revocations_http
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.log import logger
from marketplace.runtime.queue import Notifier
from marketplace.runtime.settings import Docs, Settings
from marketplace.security.auth import mark_seen_in_url
from marketplace.security.sealing import Sealer
from marketplace.shared_leads import http as shared_leads_http
from marketplace.shared_leads.flow import SharedLeads
from marketplace.simulations import http as simulations_http
from marketplace.suppression_lists import http as lists_http
from marketplace.web import metrics, openapi
from marketplace.web.api import answer_options
from marketplace.web.gate import NO_CONTENT_POLICY, ON_EVERY_ANSWER, gate
from marketplace.web.http import BODY_LIMIT, AnyRequest, Services, answer, demand_plain_query, services
from marketplace.web.limiting import Limiter, RateStatus
from marketplace.web.problems import render
from marketplace.webhook.address import guard_of
from routing.qualification import Verdict

log = logger("api")

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")

ROUTER: Final = "router"
"The option of an application that holds its router, around which `furnish` puts everything else."

EVENTS: Final = (
    AssignmentEvent,
    LeadUpdateEvent,
    ErasureEvent,
    RevocationEvent,
    StageChangedEvent,
    ChallengeEvent,
)
"All events that are sent to businesses, for the OpenAPI document."

REPORTS_AT_ONCE: Final = 3
"Reports in progress at once in one process; further ones wait up to two seconds and are then refused as unavailable."


def create_app(settings: Settings, engines: Engines) -> Litestar:
    """Return the ASGI application, which opens its pools when the server starts it and closes them when it stops.

    Operational pages are not in it: `create_ops_app` serves them at an address of their own.
    """
    return furnish(create_routes(settings.docs), settings, engines)


def create_routes(docs: Docs) -> Litestar:
    """Return the application's routes without what answers behind them; `furnish` adds that.

    Takes 200 ms of processor time, and is the same for all settings but `docs`.
    """
    handlers: list[Any] = [
        *intake_http.handlers,
        *journey_http.handlers,
        *nurturing_http.handlers,
        *distribution_http.handlers,
        *directory_http.handlers,
        *funds_http.handlers,
        *erasure_http.handlers,
        *notices_http.handlers,
        *revocations_http.handlers,
        *deletions_http.handlers,
        *people_http.handlers,
        *receipts_http.handlers,
        *feedback_http.handlers,
        *pipeline_http.handlers,
        *feed_http.handlers,
        *reports_http.handlers,
        *roi_http.handlers,
        *shared_leads_http.handlers,
        *imports_http.handlers,
        *lists_http.handlers,
        *simulations_http.handlers,
        *learning_http.handlers,
        *(openapi.handlers() if docs is Docs.public else ()),
        healthz,
        readyz,
    ]
    app = Litestar(
        route_handlers=[*answer_options(handlers), *handlers, *portal_http.handlers],
        exception_handlers={Exception: _render},
        before_request=demand_plain_query,
        lifespan=[_running],
        request_max_body_size=BODY_LIMIT,
        openapi_config=None,
        logging_config=None,  # log.py configures it; Litestar's own would log the full messages of libraries
        debug=False,
    )
    app.opt[ROUTER] = app.asgi_handler
    return app


def furnish(app: Litestar, settings: Settings, engines: Engines) -> Litestar:
    """Give `app`, made by `create_routes` for the same `docs`, what it runs with, and return it.

    An application that has stopped may be furnished anew: nothing of its last run is left in it.
    """
    held = {"settings": settings, "engines": engines, "openapi": _document(app, settings)}
    app.state = State(held, deep_copy=False)
    # Around the router, which answers some requests itself.
    app.asgi_handler = _observe(
        gate(
            app.opt[ROUTER],
            settings,
            report_key=lambda text: _flag_key(app, text),
            turn_away=lambda scope: intake_http.turn_away(app, scope),
        )
    )
    return app


_DOCUMENTS: Final[dict[tuple[str, Docs], bytes]] = {}
"OpenAPI documents of this process, by public URL and by whether their own routes are in them."


def _document(app: Litestar, settings: Settings) -> bytes:
    """Return the OpenAPI document of the routes, encoded once for all applications of this process."""
    key = (settings.public_url, settings.docs)
    if key not in _DOCUMENTS:
        document = openapi.describe(app.routes, settings.public_url, EVENTS, (Contact, Verdict))
        _DOCUMENTS[key] = msgspec.json.encode(document)
    return _DOCUMENTS[key]


def create_ops_app(settings: Settings, engines: Engines, document: bytes) -> Litestar:
    """Return the ASGI application of the operational address: metrics, the OpenAPI `document` and its page, a probe.

    It has a connection of its own, so that a busy API can still be observed.
    """
    app = Litestar(
        route_handlers=[healthz, metrics_page, *(openapi.handlers() if settings.docs is not Docs.off else ())],
        exception_handlers={Exception: render},
        lifespan=[lambda app: _ops_pool(app, settings, engines)],
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    app.state.openapi = document
    app.asgi_handler = _observe(gate(app.asgi_handler, without_proxies(settings), _ignore_key, _turn_nobody_away))
    return app


def without_proxies(settings: Settings) -> Settings:
    """Return the settings for a listener that callers reach directly, by any name of this machine."""
    return msgspec.structs.replace(settings, trusted_proxies=())


@asynccontextmanager
async def _ops_pool(app: Litestar, settings: Settings, engines: Engines) -> AsyncIterator[None]:
    """Open the pool of the operational application, and close it at the end."""
    app.state.pool = await open_pool(
        engines.database_url, "marketplace_api", size=1, at_once=0, master_key=settings.master_key
    )
    try:
        yield
    finally:
        await app.state.pool.close()


async def _ignore_key(text: str) -> None:
    """Ignore a key in a URL of the operational address, where keys are not used."""


def _turn_nobody_away(scope: object) -> None:
    """Return None: the operational address has capacity for every request."""


async def _flag_key(app: Litestar, text: str) -> None:
    """Flag a key that was sent in a URL, unless the database is away; the request is refused anyway."""
    shared: Services = app.state.services
    with suppress(*NOT_NOW, errors.Unavailable):
        await mark_seen_in_url(shared.pool, shared.sealer, text, clock.now())


def _render(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Return the answer for an exception: a problem, or an error page for a browser in the portal."""
    return frame.render(request, error) if portal_http.asks_for_page(request) else render(request, error)


@asynccontextmanager
async def _running(app: Litestar) -> AsyncIterator[None]:
    """Run the services; an error at their start is stored in the state, because the server does not report it."""
    try:
        async with _services(app, app.state.settings, app.state.engines):
            yield
    except Exception as error:
        app.state.failure = error
        raise


@asynccontextmanager
async def _services(app: Litestar, settings: Settings, engines: Engines) -> AsyncIterator[None]:
    """Open pools and clients, run the background work of this process, and close all of them at the end."""
    key = settings.master_key
    pool = await open_pool(engines.database_url, "marketplace_api", size=settings.pool_size, master_key=key)
    reports_pool = await open_pool(engines.database_url, "marketplace_reports", size=REPORTS_AT_ONCE, master_key=key)
    shared = _make_services(settings, engines, pool, reports_pool)
    app.state.services = shared
    app.state.admission = Admission()
    postal = PostalBook()
    app.state.intake = Intake(pool, shared.catalog, postal, shared.sealer, shared.notifier, join=join_lead)
    app.state.journey = Journey(pool, shared.catalog, postal, shared.sealer, shared.notifier)
    app.state.refusals = refusals = Refusals(pool)
    importers: dict[ImportSubject, Importer] = {
        ImportSubject.shared_leads: SharedLeads(),
        ImportSubject.dispositions: Dispositions(),
    }
    app.state.imports = import_runs = Imports(pool, shared.sealer, importers)
    stopping = asyncio.Event()
    background = [
        asyncio.create_task(shared.catalog.keep(stopping)),
        asyncio.create_task(refusals.keep(stopping)),
        asyncio.create_task(import_runs.keep_working(stopping)),
    ]
    log.info("started", port=settings.port)
    try:
        async with (
            portal_http.ready(app, shared, engines.valkey_url),
            feed_http.ready(app, shared, engines, app.state.live.listener),
        ):
            yield
    finally:
        stopping.set()
        await asyncio.gather(*background)
        await reports_pool.close()
        await shared.notifier.close()
        await shared.limiter.close()
        await pool.close()
        log.info("stopped")


def _make_services(settings: Settings, engines: Engines, pool: Pool, reports_pool: Pool) -> Services:
    return Services(
        settings=settings,
        pool=pool,
        reports=reports_pool,
        sealer=Sealer(settings.master_key, settings.pepper),
        catalog=Catalog(pool),
        notifier=Notifier(engines.valkey_url),
        guard=guard_of(settings),
        limiter=Limiter(engines.valkey_url),
    )


def _observe(app: ASGIApp) -> ASGIApp:
    """Return `app` with an id, a log line, a count and the security headers for every request."""

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        started, status = clock.monotonic(), 500
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = _request_id(scope)

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_more_headers(message["headers"], state)]
            await send(message)

        try:
            await app(scope, receive, send_observed)
        finally:
            _record(scope, state, status, clock.monotonic() - started)

    return observed


def _more_headers(headers: Iterable[tuple[bytes, bytes]], state: dict[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers that are added to `headers` of every answer: security, request id and rate limit."""
    yield from ON_EVERY_ANSWER
    if not any(name.lower() == NO_CONTENT_POLICY[0] for name, _ in headers):
        yield NO_CONTENT_POLICY
    yield b"request-id", state["request_id"].encode()
    standing: RateStatus | None = state.get("standing")
    if standing:
        yield from standing.headers


def _record(scope: HTTPScope, state: dict[str, Any], status: int, seconds: float) -> None:
    """Count a request and write its log line."""
    route = scope.get("path_template") or "other"
    count, duration = metrics.of_requests(route, scope["method"], status)
    count.inc()
    duration.observe(seconds)
    log.info(
        "request",
        request_id=state["request_id"],
        method=scope["method"],
        route=route,
        status=status,
        ms=round(1000 * seconds, 2),
        key_id=state.get("key_id"),
        lead=state.get("lead"),
        code=state.get("code"),
    )


def _request_id(scope: Scope) -> str:
    """Return the caller's X-Request-Id if it matches REQUEST_ID, else a new id."""
    text = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
    return text if REQUEST_ID.fullmatch(text) else ids.encode("req", clock.new_id())


@get("/healthz", media_type=MediaType.TEXT)
async def healthz() -> str:
    """Reports that the process runs, without looking at the engines."""
    return "ok"


@get("/readyz")
async def readyz(request: AnyRequest) -> Response[bytes]:
    """Reports whether inquiries can be taken: the database answers. Without Valkey, leads only take a second longer."""
    async with session(services(request).pool) as connection:
        await connection.execute("select 1")
    return answer({"ready": True})


@get("/metrics", media_type=MediaType.TEXT)
async def metrics_page(request: AnyRequest) -> Response[bytes]:
    """Prometheus metrics in the words of the business."""
    text = await metrics.page(request.app.state.pool)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
