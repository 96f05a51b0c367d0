"""What changes by itself: one stream of server-sent events per tab, carrying the parts that its page shows.

A part is a piece of a page with a name and a way to make it. The page shows it when it is made, and again whenever the
stream brings it anew; without a script it just stays as it was. The stream wakes when something of the viewer's topic
has changed, and by itself now and then: so it heals what a lost word would have left old, and goes on, slower, while
Valkey is away. It ends within seconds of its session.
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
"A comment, so that nothing between us and the browser takes the silence for an end; parts are looked at again then."
LOOK_SECONDS: Final = 4.0
"How soon a session that has ended is noticed, and how often parts are made while nobody hears the wakes."
PAUSE_SECONDS: Final = 0.05
"After a wake: of many at once, one rendering serves them all."
MOST_STREAMS: Final = 12
"Of one member, in one process: two browsers with six tabs each, all that HTTP/1.1 gives them."
MOST_PARTS: Final = 8

Make = Callable[[AnyRequest, Viewer], Awaitable[str]]


class LivePart(msgspec.Struct, frozen=True, kw_only=True):
    """A live piece of a page: `name` as its page and the stream call it, for `kinds` of members, made by `make`."""

    name: str
    kinds: tuple[CallerKind, ...]
    make: Make


class LiveUpdates:
    """All parts, the wakes of this process, and who has how many streams; they end when `stopping` is set."""

    def __init__(self, listener: Listener, parts: Iterable[LivePart], stopping: asyncio.Event | None) -> None:
        self.listener = listener
        self.parts = {part.name: part for part in parts}
        self.streams: Counter[str] = Counter()
        self.stopping = stopping or asyncio.Event()


async def show_part(request: AnyRequest, viewer: Viewer, part: LivePart) -> Markup:
    """The part as its page first shows it, in the element that the stream fills again."""
    return Markup('<div data-live="{}">{}</div>').format(part.name, Markup(await part.make(request, viewer)))


def topics_of(viewer: Viewer) -> tuple[str, ...]:
    """What wakes this viewer's streams."""
    return (OPERATORS if viewer.kind is CallerKind.operator else viewer.account,)


@get("/live")
async def live(request: AnyRequest) -> Stream:
    """The stream of a tab; `?parts=` names what its page shows, with commas between."""
    viewer = await visitor(request)
    found: LiveUpdates = request.app.state.live
    names = [name for name in request.query_params.get("parts", "").split(",") if name]
    parts = [found.parts[name] for name in dict.fromkeys(names) if name in found.parts]
    if not parts or len(parts) != len(names) or len(parts) > MOST_PARTS:
        raise errors.NotFound("There is no such part of a page.")
    if any(viewer.kind not in part.kinds for part in parts):
        raise errors.RoleMissing("This part of a page is not for you.")
    if found.streams[viewer.actor] >= MOST_STREAMS:
        raise errors.RateLimited(f"You have {MOST_STREAMS} live pages open. Close some.", int(PING_SECONDS))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(_events(request, found, viewer, parts), media_type="text/event-stream", headers=headers)


async def _events(
    request: AnyRequest, found: LiveUpdates, viewer: Viewer, parts: list[LivePart]
) -> AsyncIterator[bytes]:
    sent: dict[str, bytes] = {}
    found.streams[viewer.actor] += 1
    try:
        async with found.listener.subscribe(*topics_of(viewer)) as woken:
            yield b"retry: 2000\n\n"
            woken.set()
            pinged_at = looked_at = clock.monotonic()
            while not found.stopping.is_set():
                if woken.is_set():
                    woken.clear()
                    began = clock.monotonic()
                    for event in [event async for event in _changed(request, viewer, parts, sent)]:
                        yield event
                    await _wait(found.stopping, pause_after(clock.monotonic() - began))
                await _wait_for_either(woken, found.stopping, looked_at + LOOK_SECONDS - clock.monotonic())
                now = clock.monotonic()
                if now - looked_at >= LOOK_SECONDS:
                    looked_at = now
                    if not await _goes_on(request, viewer):
                        return
                    if not found.listener.hears:
                        woken.set()
                if now - pinged_at >= PING_SECONDS:
                    pinged_at = now
                    woken.set()
                    yield b": still here\n\n"
    finally:
        found.streams[viewer.actor] -= 1


def pause_after(seconds: float) -> float:
    """The pause after a rendering that took so long, so that a tab takes 5 % of one processor however much happens.

    A session is still looked at within LOOK_SECONDS.
    """
    return min(max(PAUSE_SECONDS, REST * seconds), LOOK_SECONDS)


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


async def _wait_for_either(woken: asyncio.Event, stopping: asyncio.Event, seconds: float) -> None:
    """Until one of the two, or so many seconds."""
    tasks = [asyncio.ensure_future(event.wait()) for event in (woken, stopping)]
    try:
        await asyncio.wait(tasks, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _changed(
    request: AnyRequest, viewer: Viewer, parts: list[LivePart], sent: dict[str, bytes]
) -> AsyncIterator[bytes]:
    """Each part that is not as it was sent before, as an event; none while the database is away."""
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


async def _goes_on(request: AnyRequest, viewer: Viewer) -> bool:
    """Whether the session is still open; while the database is away nobody knows, and nothing is shown either."""
    try:
        async with session(services(request).pool) as connection:
            found = await store.find_session(connection, viewer.session, IDLE_MINUTES)
    except errors.Unavailable:
        return True
    return found is not None and found.state == viewer.state


handlers = (live,)
