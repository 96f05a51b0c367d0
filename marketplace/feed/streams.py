"""Open streams and polls of this process, and the one database check per second that serves them all.

A waiting stream holds a socket and a few objects, but no database connection. It sleeps until its feed's topic is
published, or until the check finds that the feed has grown, its key has ended or its business is frozen.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from marketplace.database.db import Pool, session
from marketplace.feed import store
from marketplace.feed.flow import FeedReader
from marketplace.runtime import clock, errors
from marketplace.runtime.live import Listener, feed_topic

LOOK_SECONDS: Final = 0.9
"Interval of the check: the longest delay after a lost wake-up, and until a revoked key's streams are closed."
MOST_OF_KEY: Final = 5
"Limit of streams and polls of one key in one process: enough for a server, its successor in a release, and a person."
MOST_STREAMS: Final = 1_500
"Limit of streams of one process. It has 2,000 connections; the remainder serves short requests."


class FeedStream:
    """One waiting reader. `woken` is set when there may be new events, `closed` when the stream must end."""

    def __init__(self, reader: FeedReader, woken: asyncio.Event) -> None:
        self.reader = reader
        self.woken = woken
        self.closed = False

    async def wait(self, seconds: float) -> None:
        """Wait until there may be new events, or for `seconds`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.woken.wait(), max(0.0, seconds))

    def close(self) -> None:
        """Tell the stream to end, and wake it."""
        self.closed = True
        self.woken.set()


class FeedStreams:
    """All streams of one process. `pool` is the API's; the streams end when `stopping` is set."""

    def __init__(self, pool: Pool, listener: Listener, stopping: asyncio.Event) -> None:
        self._pool = pool
        self._listener = listener
        self._stopping = stopping
        self._streams: set[FeedStream] = set()
        self._of_key: Counter[str] = Counter()
        self._lasts: dict[tuple[UUID, str], int] = {}

    def demand_room(self, key_id: str) -> None:
        """Raise TooManyStreams if the key has MOST_OF_KEY streams, Unavailable if the process has MOST_STREAMS."""
        if self._of_key[key_id] >= MOST_OF_KEY:
            raise errors.TooManyStreams(
                f"This key has {MOST_OF_KEY} streams open. Close one, or read from an open one."
            )
        if len(self._streams) >= MOST_STREAMS:
            raise errors.Unavailable("streams")

    @asynccontextmanager
    async def open(self, reader: FeedReader) -> AsyncIterator[FeedStream]:
        """Register a stream for this reader, woken once at the start. Raises the errors of `demand_room`."""
        self.demand_room(reader.name)
        self._of_key[reader.name] += 1
        try:
            async with self._listener.subscribe(feed_topic(reader.business_id)) as woken:
                stream = FeedStream(reader, woken)
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
        """Check for all streams every LOOK_SECONDS until the process stops; then end them."""
        while not self._stopping.is_set():
            with contextlib.suppress(errors.Unavailable):
                await self._check()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOOK_SECONDS)
        for stream in self._streams:
            stream.close()

    async def _check(self) -> None:
        """Wake the streams whose feed has grown, and close those whose key or business has ended."""
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
