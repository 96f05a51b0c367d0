"""Live parts of pages: one stream of server-sent events per tab, which sends each part again when it has changed.

A page is rendered with its live parts, and its script replaces each part that the stream sends; without the script the
parts stay as they were. The stream renders its parts after a wake-up for one of the viewer's topics, and every
PING_SECONDS in case a wake-up was lost; while Valkey cannot be reached, every LOOK_SECONDS. It ends within
LOOK_SECONDS after its session has ended.
"""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC
from typing import Final

import msgspec
from litestar import get
from litestar.response import Stream
from markupsafe import Markup

from marketplace.database.background import REST
from marketplace.database.db import session
from marketplace.portal import store
from marketplace.portal.session import IDLE_MINUTES, Viewer, visitor
from marketplace.runtime import clock, errors
from marketplace.runtime.live import OPERATORS, Listener
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services

PING_SECONDS: Final = 15.0
"Interval of comments that keep proxies from closing an idle stream; parts are rendered again then."
LOOK_SECONDS: Final = 4.0
"Interval of checking the session, and of rendering the parts while no wake-ups can be received."
PAUSE_SECONDS: Final = 0.05
"Shortest pause after a rendering, so that one rendering serves many wake-ups."
MOST_STREAMS: Final = 12
"Streams of one member in one process: two browsers with six tabs each, the limit of HTTP/1.1."
MOST_PARTS: Final = 8

Make = Callable[[AnyRequest, Viewer], Awaitable[str]]


class LivePart(msgspec.Struct, frozen=True, kw_only=True):
    """A live part of a page. `make` renders it; `kinds` are the kinds of members who may see it."""

    name: str
    kinds: tuple[CallerKind, ...]
    make: Make


class LiveUpdates:
    """All live parts, the listener for wake-ups, and the streams of each member; they end when `stopping` is set."""

    def __init__(self, listener: Listener, parts: Iterable[LivePart], stopping: asyncio.Event | None) -> None:
        self.listener = listener
        self.parts = {part.name: part for part in parts}
        self.streams: Counter[str] = Counter()
        self.stopping = stopping or asyncio.Event()


async def show_part(request: AnyRequest, viewer: Viewer, part: LivePart) -> Markup:
    """Return a part for the first rendering of its page, in the element that the stream replaces."""
    return Markup('<div data-live="{}">{}</div>').format(part.name, Markup(await part.make(request, viewer)))


def topics_of(viewer: Viewer) -> tuple[str, ...]:
    """Return the topics whose wake-ups concern this viewer."""
    return (OPERATORS if viewer.kind is CallerKind.operator else viewer.account,)


@get("/live")
async def live(request: AnyRequest) -> Stream:
    """Return the stream of a tab; `?parts=` names the live parts of its page, separated by commas."""
    viewer = await visitor(request)
    updates: LiveUpdates = request.app.state.live
    names = [name for name in request.query_params.get("parts", "").split(",") if name]
    parts = [updates.parts[name] for name in dict.fromkeys(names) if name in updates.parts]
    if not parts or len(parts) != len(names) or len(parts) > MOST_PARTS:
        raise errors.NotFound("This page has no such live part.")
    if any(viewer.kind not in part.kinds for part in parts):
        raise errors.RoleMissing("You have no access to this part of the page.")
    if updates.streams[viewer.actor] >= MOST_STREAMS:
        raise errors.RateLimited(f"You have {MOST_STREAMS} live pages open. Close some.", int(PING_SECONDS))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(_events(request, updates, viewer, parts), media_type="text/event-stream", headers=headers)


async def _events(
    request: AnyRequest, updates: LiveUpdates, viewer: Viewer, parts: list[LivePart]
) -> AsyncIterator[bytes]:
    sent: dict[str, bytes] = {}
    updates.streams[viewer.actor] += 1
    try:
        async with updates.listener.subscribe(*topics_of(viewer)) as woken:
            yield b"retry: 2000\n\n"
            woken.set()
            pinged_at = looked_at = clock.monotonic()
            while not updates.stopping.is_set():
                if woken.is_set():
                    woken.clear()
                    began = clock.monotonic()
                    for event in [event async for event in _changed(request, viewer, parts, sent)]:
                        yield event
                    await _wait(updates.stopping, pause_after(clock.monotonic() - began))
                await _wait_for_either(woken, updates.stopping, looked_at + LOOK_SECONDS - clock.monotonic())
                now = clock.monotonic()
                if now - looked_at >= LOOK_SECONDS:
                    looked_at = now
                    if not await _is_open(request, viewer):
                        return
                    if not updates.listener.hears:
                        woken.set()
                if now - pinged_at >= PING_SECONDS:
                    pinged_at = now
                    woken.set()
                    yield b": still here\n\n"
    finally:
        updates.streams[viewer.actor] -= 1


def pause_after(seconds: float) -> float:
    """Return the pause after a rendering of this length, by which a tab takes at most 5 % of one processor.

    It is at most LOOK_SECONDS, so that the session is checked in time.
    """
    return min(max(PAUSE_SECONDS, REST * seconds), LOOK_SECONDS)


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


async def _wait_for_either(woken: asyncio.Event, stopping: asyncio.Event, seconds: float) -> None:
    """Wait until one of the two events is set, at most `seconds`."""
    tasks = [asyncio.ensure_future(event.wait()) for event in (woken, stopping)]
    try:
        await asyncio.wait(tasks, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _changed(
    request: AnyRequest, viewer: Viewer, parts: list[LivePart], sent: dict[str, bytes]
) -> AsyncIterator[bytes]:
    """Yield an event for each part that has changed since it was sent; none while the database cannot be reached."""
    for part in parts:
        try:
            text = await part.make(request, viewer)
        except errors.Unavailable:
            continue
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if sent.get(part.name) != digest:
            first = part.name not in sent
            sent[part.name] = digest
            at = clock.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            lines = "".join(f"data: {line}\n" for line in text.splitlines())
            yield f"event: {part.name}\nid: {'first' if first else at}\n{lines}\n".encode()


async def _is_open(request: AnyRequest, viewer: Viewer) -> bool:
    """Return whether the session is still open; True while the database cannot be reached, as no part is sent then."""
    try:
        async with session(services(request).pool) as connection:
            row = await store.find_session(connection, viewer.session, IDLE_MINUTES)
    except errors.Unavailable:
        return True
    return row is not None and row.state == viewer.state


handlers = (live,)
