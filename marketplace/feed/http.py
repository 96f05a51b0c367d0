"""HTTP API of the feed: a stream of server-sent events, a long poll, acknowledgements, and tickets for browsers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Litestar, get, post
from litestar.di import Provide
from litestar.params import FromPath
from litestar.response import Stream
from msgspec import Meta

from marketplace.database.db import Connection, open_pool
from marketplace.database.embedded import Engines
from marketplace.database.journal import Journal
from marketplace.feed.flow import (
    AcknowledgementOutcome,
    AcknowledgementTotals,
    Feed,
    FeedItem,
    FeedPosition,
    FeedReader,
)
from marketplace.feed.store import EventKind
from marketplace.feed.streams import FeedStreams
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.live import Listener
from marketplace.runtime.log import logger
from marketplace.runtime.settings import StartError
from marketplace.security.auth import Principal, Scope
from marketplace.text.faults import INTEGER_LIMIT, Fault, FaultCode
from marketplace.text.values import read_count
from marketplace.web.api import BodyProvider, Caller, CallerProvider, Injected, api_router, require
from marketplace.web.http import AnyRequest, Services, body, count_failure, path_id, principal
from marketplace.web.openapi import QueryParameter, RouteDoc
from routing.lifecycle import AssignmentState

log = logger("api")

EXPOSING_AT_ONCE: Final = 4
"Connections of one process for exposing and settling leads; each use takes a few milliseconds."
PING_SECONDS: Final = 15.0
"Interval of the comments in a silent stream, which keep proxies on the way from closing it."
RETRY_MS: Final = 3_000
"Delay after which a browser's EventSource connects again."
LONGEST_STREAM: Final = 1_800
"Longest life of a stream in seconds; then the reader connects again, and its key is checked again."
LONGEST_WAIT: Final = 30
"Longest time in seconds for which a poll waits for an event."
PAUSE_SECONDS: Final = 1.0
"Pause before a stream tries again after an error of the database or the journal."
MOST_EVENTS: Final = 100
LAST_PLACE: Final = INTEGER_LIMIT - 1


class FeedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event: `sequence` is its position in the feed, `event` the body of the webhook of the same name."""

    sequence: int
    type: EventKind
    event: msgspec.Raw


class FeedPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events after a position. `next_after` is the position to continue after; it also skips entries that ended."""

    data: tuple[FeedEvent, ...]
    next_after: int
    has_more: bool


class AcknowledgementBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/feed/acknowledgements: every event up to the position `through` has been received."""

    through: Annotated[int, Meta(ge=0, le=LAST_PLACE)]


class AcknowledgementResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of an acknowledgement: `state` is the lead's, `receipt` says whether this call changed it."""

    lead_id: str
    receipt: AcknowledgementOutcome
    state: AssignmentState


class FeedTicket(msgspec.Struct, frozen=True, kw_only=True):
    """Ticket that opens one stream before it expires: `GET /v1/feed?ticket=…`, for browsers, which send no headers."""

    ticket: str
    expires_at: datetime


def _up_to(most: int, least: int = 0) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


AFTER: Final = QueryParameter(
    name="after",
    about="The last sequence that was received. Without it: all unacknowledged events, then new ones.",
    schema=_up_to(LAST_PLACE),
)
LASTS: Final = QueryParameter(name="lasts", about="Seconds after which the stream ends.", schema=_up_to(LONGEST_STREAM))
WAIT: Final = QueryParameter(name="wait", about="Seconds to wait for the next event.", schema=_up_to(LONGEST_WAIT))
LIMIT: Final = QueryParameter(name="limit", about="Events in one answer.", schema=_up_to(MOST_EVENTS, least=1))
TICKET: Final = QueryParameter(name="ticket", about="A ticket, used once in place of a key.")
LAST_EVENT_ID: Final = QueryParameter(
    name="Last-Event-ID",
    where="header",
    about="Same as `after`; a browser sends it by itself.",
    schema=_up_to(LAST_PLACE),
)


@asynccontextmanager
async def ready(app: Litestar, services: Services, engines: Engines, listener: Listener) -> AsyncIterator[None]:
    """Keep the feed and its streams in the application's state while the application runs. Raises StartError."""
    journal = await Journal.open(services.settings.journal_dir)

    async def refuse_if_set_back(connection: Connection) -> None:
        """Refuse a database that was restored from a backup and lacks exposures that the journal has.

        Nothing is shown from it; everything else goes on. Raises Unavailable.
        """
        try:
            await journal.check(connection)
        except StartError as error:
            log.error("feed_closed", code=error.code)
            raise errors.Unavailable(error.code) from error

    exposing = await open_pool(
        engines.database_url,
        "marketplace_feeder",
        size=EXPOSING_AT_ONCE,
        at_once=0,
        master_key=services.settings.master_key,
        on_connect=refuse_if_set_back,
    )
    stopping = app.state.get("stopping") or asyncio.Event()
    app.state.feed = Feed(services.pool, exposing, services.sealer, journal)
    app.state.streams = streams = FeedStreams(services.pool, listener, stopping)
    watching = asyncio.create_task(streams.watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait((watching,))
        await exposing.close()
        await journal.close()


def provide_feed(request: AnyRequest, services: Injected[Services]) -> Feed:
    """Return the application's feed."""
    feed: Feed = request.app.state.feed
    return feed


def provide_streams(request: AnyRequest, feed: Injected[Feed]) -> FeedStreams:
    """Return the open streams of this process."""
    streams: FeedStreams = request.app.state.streams
    return streams


async def provide_acknowledgement(request: AnyRequest, feed: Injected[Feed]) -> AcknowledgementBody:
    """Return the acknowledgement in the body. Raises the errors of `http.body`."""
    return await body(request, AcknowledgementBody)


def _reader(caller: Principal) -> FeedReader:
    return FeedReader(business_id=caller.owner, mode=caller.mode, name=caller.key_id, opened=caller.opened)


def _read_number(text: str | None, name: str, default: int | None, most: int, least: int = 0) -> int | None:
    """Return a whole number of the query or a header, or `default` without one. Raises InvalidInput."""
    if text is None:
        return default
    number = read_count(text, least, most)
    if number is None:
        detail = f"Give a whole number from {least} to {most}."
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code=FaultCode.out_of_range, detail=detail),))
    return number


async def admit_reader(request: AnyRequest) -> Principal:
    """Return the caller of the stream, who has a ticket or a key that may read leads."""
    ticket = request.query_params.get("ticket")
    if ticket is None:
        return await principal(request, Scope.leads_read)
    return await _redeem_ticket(request, ticket)


async def _redeem_ticket(request: AnyRequest, text: str) -> Principal:
    """Return the caller to whom the ticket was issued, with the checks that `principal` makes for a key.

    The rate limit is not applied here, because it was when the ticket was issued. Raises NotAuthenticated,
    KeyRevoked, KeyExpired, OwnerSuspended, and an error for a missing scope.
    """
    feed: Feed = request.app.state.feed
    try:
        caller = await feed.redeem_ticket(text)
    except errors.NotAuthenticated:
        await count_failure(request)
        raise
    request.scope["state"]["key_id"] = caller.key_id
    caller.demand(Scope.leads_read)
    if caller.owner_state != "active":
        raise errors.OwnerSuspended("This account is suspended. Ask the operator of the marketplace why.")
    return caller


@get(
    "/feed",
    tags=["feed"],
    dependencies={"caller": CallerProvider(admit_reader)},
    doc=RouteDoc(answers={200: "text/event-stream"}, query=(AFTER, LAST_EVENT_ID, LASTS, TICKET)),
)
async def stream_feed(
    request: AnyRequest, caller: Caller, feed: Injected[Feed], streams: Injected[FeedStreams]
) -> Stream:
    """Streams the business's leads as they are awarded, as server-sent events. Each id is a position to resume after.

    A lead is exposed to the business just before its event is sent, and charged when it is acknowledged. What was not
    acknowledged comes again with the next stream.
    """
    last_seen = _read_number(request.headers.get("last-event-id") or None, "Last-Event-ID", None, LAST_PLACE)
    after = _read_number(request.query_params.get("after"), "after", None, LAST_PLACE)
    lasts = _read_number(request.query_params.get("lasts"), "lasts", LONGEST_STREAM, LONGEST_STREAM)
    reader = _reader(caller)
    streams.demand_room(reader.name)
    start_after = after if last_seen is None else last_seen
    place = await feed.begin(reader, start_after)
    # A ticket is sent explicitly, unlike a cookie, so a page of any origin may read with one.
    cors = {} if "ticket" not in request.query_params else {"Access-Control-Allow-Origin": "*"}
    return Stream(
        _events(feed, streams, reader, place, clock.monotonic() + (lasts or 0)),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **cors},
    )


async def _events(
    feed: Feed, streams: FeedStreams, reader: FeedReader, place: FeedPosition, until: float
) -> AsyncIterator[bytes]:
    """Yield the text of the stream. A lead is exposed only after the reader has taken the events before it."""
    async with streams.open(reader) as stream:
        yield b"retry: %d\n\n" % RETRY_MS
        ping_at = clock.monotonic() + PING_SECONDS
        while not stream.closed and clock.monotonic() < until:
            stream.woken.clear()
            try:
                entries = await feed.entries(reader, place, MOST_EVENTS)
                for entry in entries:
                    event = await feed.show(reader, entry)
                    if event is not None:
                        yield _format_event(event)
                    place = msgspec.structs.replace(place, after=entry.position)
                    if stream.closed:
                        return
            except errors.Unavailable:
                await asyncio.sleep(PAUSE_SECONDS)
                stream.woken.set()
                entries = ()
            if not entries:
                await stream.wait(min(ping_at, until) - clock.monotonic())
            if clock.monotonic() >= ping_at:
                ping_at = clock.monotonic() + PING_SECONDS
                yield b": still here\n\n"


def _format_event(event: FeedItem) -> bytes:
    """Return the event in the text format of server-sent events."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.sequence, event.kind.encode(), event.body)


@get(
    "/feed/events",
    tags=["feed"],
    dependencies={"caller": require(Scope.leads_read)},
    doc=RouteDoc(query=(AFTER, WAIT, LIMIT)),
)
async def poll_feed(
    request: AnyRequest, caller: Caller, feed: Injected[Feed], streams: Injected[FeedStreams]
) -> FeedPage:
    """Returns the events after a position. If there are none, waits up to `wait` seconds for the first one."""
    after = _read_number(request.query_params.get("after"), "after", None, LAST_PLACE)
    wait = _read_number(request.query_params.get("wait"), "wait", 0, LONGEST_WAIT) or 0
    limit = _read_number(request.query_params.get("limit"), "limit", MOST_EVENTS, MOST_EVENTS, least=1) or MOST_EVENTS
    reader = _reader(caller)
    until = clock.monotonic() + wait
    async with streams.open(reader) as stream:
        place = await feed.begin(reader, after)
        if after is not None:
            place = FeedPosition(after=after, last_seen=after)
        while True:
            stream.woken.clear()
            batch = await feed.read(reader, place, limit)
            place = batch.place
            if batch.events or batch.has_more or stream.closed or clock.monotonic() >= until:
                break
            await stream.wait(until - clock.monotonic())
    events = tuple(FeedEvent(sequence=event.sequence, type=event.kind, event=event.body) for event in batch.events)
    return FeedPage(data=events, next_after=place.after, has_more=batch.has_more)


@post(
    "/feed/acknowledgements",
    status_code=200,
    tags=["feed"],
    dependencies={
        "caller": require(Scope.feedback_write),
        "acknowledgement": BodyProvider(provide_acknowledgement, AcknowledgementBody),
    },
)
async def acknowledge_feed(
    caller: Caller, acknowledgement: Injected[AcknowledgementBody], feed: Injected[Feed]
) -> AcknowledgementTotals:
    """Acknowledges every event up to a position: its leads are delivered and charged. A repeat changes nothing.

    A lead that has lapsed before is recorded as acknowledged late, and not charged.
    """
    return await feed.acknowledge(_reader(caller), acknowledgement.through)


@post(
    "/leads/{lead_id:str}/acknowledge",
    status_code=200,
    tags=["feed"],
    dependencies={"caller": require(Scope.feedback_write)},
)
async def acknowledge_lead(lead_id: FromPath[str], caller: Caller, feed: Injected[Feed]) -> AcknowledgementResult:
    """Acknowledges one lead that the business was shown: it is delivered and charged. A repeat changes nothing."""
    lead_uuid = path_id("lead", lead_id)
    receipt, state = await feed.acknowledge_lead(_reader(caller), lead_uuid)
    return AcknowledgementResult(lead_id=ids.encode("lead", lead_uuid), receipt=receipt, state=state)


@post("/feed/tickets", tags=["feed"], dependencies={"caller": require(Scope.leads_read)})
async def issue_ticket(caller: Caller, feed: Injected[Feed]) -> FeedTicket:
    """Issues a ticket that opens one stream within a minute, so that no key has to be in a URL."""
    ticket, expires_at = await feed.issue_ticket(caller)
    return FeedTicket(ticket=ticket, expires_at=expires_at)


handlers: Final = (
    api_router(
        stream_feed,
        poll_feed,
        acknowledge_feed,
        acknowledge_lead,
        issue_ticket,
        feed=Provide(provide_feed, sync_to_thread=False),
        streams=Provide(provide_streams, sync_to_thread=False),
    ),
)
