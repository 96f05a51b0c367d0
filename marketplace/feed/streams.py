"""Who waits at a feed in this process, and the one look a second that serves them all.

A stream that has nothing to tell holds a socket and a few objects, no database connection: it sleeps until its feed's
topic is heard, or until the look finds that the feed has come further, its key has ended or its business is frozen.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from marketplace import clock, errors
from marketplace.db import Pool, session
from marketplace.feed import store
from marketplace.feed.flow import Reader
from marketplace.live import Listener, feed_topic

LOOK_SECONDS: Final = 0.9
"What a lost word costs at most, and how soon a revoked key's streams are closed."
MOST_OF_KEY: Final = 5
"Streams and waits of one key in one process: a server, its successor during a release, and somebody who looks."
MOST_STREAMS: Final = 1_500
"Of one process, which has 2,000 connections: the rest is for those who ask and go."


class Stream:
    """One reader who waits. `woken` is set when there may be news, `closed` when the stream must end."""

    def __init__(self, reader: Reader, woken: asyncio.Event) -> None:
        self.reader = reader
        self.woken = woken
        self.closed = False

    async def wait(self, seconds: float) -> None:
        """Until there may be news, or so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.woken.wait(), max(0.0, seconds))

    def close(self) -> None:
        self.closed = True
        self.woken.set()


class Streams:
    """All of one process. `pool` is the api's; all end when `stopping` is set."""

    def __init__(self, pool: Pool, listener: Listener, stopping: asyncio.Event) -> None:
        self._pool = pool
        self._listener = listener
        self._stopping = stopping
        self._streams: set[Stream] = set()
        self._of_key: Counter[str] = Counter()
        self._lasts: dict[tuple[UUID, str], int] = {}

    def demand_room(self, key_id: str) -> None:
        """Raises TooManyStreams, and Unavailable where the whole process has no room."""
        if self._of_key[key_id] >= MOST_OF_KEY:
            raise errors.TooManyStreams(f"This key has {MOST_OF_KEY} streams open. Close one, or use what they bring.")
        if len(self._streams) >= MOST_STREAMS:
            raise errors.Unavailable("streams")

    @asynccontextmanager
    async def open(self, reader: Reader) -> AsyncIterator[Stream]:
        """A stream of this reader's, woken once to begin with. Raises as `demand_room`."""
        self.demand_room(reader.name)
        self._of_key[reader.name] += 1
        try:
            async with self._listener.subscribe(feed_topic(reader.business_id)) as woken:
                stream = Stream(reader, woken)
                self._streams.add(stream)
                woken.set()
                try:
                    yield stream
                finally:
                    self._streams.discard(stream)
        finally:
            self._of_key[reader.name] -= 1
            if not self._of_key[reader.name]:
                del self._of_key[reader.name]

    async def watch(self) -> None:
        """Looks for all, once in LOOK_SECONDS, until stopping; then ends every stream."""
        while not self._stopping.is_set():
            with contextlib.suppress(errors.Unavailable):
                await self._look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOOK_SECONDS)
        for stream in self._streams:
            stream.close()

    async def _look(self) -> None:
        if not self._streams:
            return
        feeds = {(stream.reader.business_id, stream.reader.mode) for stream in self._streams}
        async with session(self._pool) as connection:
            ended = await store.list_ended(connection, tuple(self._of_key), clock.now())
            lasts = await store.list_lasts(connection, tuple(feeds))
        for stream in self._streams:
            feed = stream.reader.business_id, stream.reader.mode
            if stream.reader.name in ended:
                stream.close()
            elif lasts.get(feed, 0) != self._lasts.get(feed, 0):
                stream.woken.set()
        self._lasts = dict(lasts)
