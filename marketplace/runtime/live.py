"""Notifications between processes that something of a topic has changed, without its content.

A topic is a tenant (`biz_…`, `prov_…`), a feed (`feed_…`) or `operators`. Valkey transfers the notification; a listener
reads the rows itself, with its own rights. While Valkey is away only speed is lost: listeners poll every few seconds.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from marketplace.runtime import clock, ids
from marketplace.runtime.log import logger

log = logger("live")

CHANNEL: Final = "live"
OPERATORS: Final = "operators"
PUBLISH_LIMIT_S: Final = 0.25
"Longest time that publishing may take."
BACK_OFF_S: Final = 1.0
"Time after a failure for which nothing is published."
RETRY_S: Final = 1.0
"Time between two attempts of a listener to reconnect."
MOST_TOPIC: Final = 64


def feed_topic(business_id: UUID) -> str:
    """Return the topic of a business's feed, so that other changes do not wake its readers."""
    return ids.encode("feed", business_id)


_AWAY: Final = (RedisError, OSError, TimeoutError, RuntimeError)
_TOPIC: Final = re.compile(r"[a-z]+(_[0-9a-z]{26})?")


class Publisher:
    """Sender of notifications. Close it when the process ends."""

    def __init__(self, valkey_url: str) -> None:
        self._valkey = Redis.from_url(re.sub("^valkey", "redis", valkey_url), max_connections=8)
        self._backed_off_until = 0.0

    async def publish(self, *topics: str) -> None:
        """Wake the listeners of these topics. Never raises, and takes at most PUBLISH_LIMIT_S."""
        if clock.monotonic() < self._backed_off_until:
            return
        try:
            async with asyncio.timeout(PUBLISH_LIMIT_S):
                await self._valkey.publish(CHANNEL, " ".join(topics))
        except _AWAY:
            self._backed_off_until = clock.monotonic() + BACK_OFF_S

    async def close(self) -> None:
        """Close the connections."""
        await self._valkey.aclose()


class Listener:
    """Receiver of notifications for a whole process, over one connection."""

    def __init__(self, valkey_url: str) -> None:
        self._url = re.sub("^valkey", "redis", valkey_url)
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self.hears = False

    @asynccontextmanager
    async def subscribe(self, *topics: str) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set whenever one of `topics` has changed; the caller clears it."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen())
        woken = asyncio.Event()
        for topic in topics:
            self._waiting.setdefault(topic, set()).add(woken)
        try:
            yield woken
        finally:
            for topic in topics:
                self._waiting[topic].discard(woken)
                if not self._waiting[topic]:
                    del self._waiting[topic]

    def wake(self, topics: str) -> None:
        """Set the events of these topics, which are separated by spaces; anything else in the text is ignored."""
        for topic in topics.split(" "):
            if len(topic) <= MOST_TOPIC and _TOPIC.fullmatch(topic):
                for woken in self._waiting.get(topic, ()):
                    woken.set()

    async def _listen(self) -> None:
        """Receive notifications, and reconnect after an outage, until cancelled."""
        while True:
            with contextlib.suppress(*_AWAY):
                async with (
                    Redis.from_url(self._url) as valkey,
                    valkey.pubsub(ignore_subscribe_messages=True) as subscription,
                ):
                    await subscription.subscribe(CHANNEL)
                    self.hears = True
                    self._wake_all()  # notifications may have been missed before
                    async for message in subscription.listen():
                        self._take(message)
            if self.hears:
                log.warning("live_updates_slower")
            self.hears = False
            await asyncio.sleep(RETRY_S)

    def _take(self, message: Any) -> None:
        data = message.get("data")
        if isinstance(data, bytes) and len(data) <= 8 * MOST_TOPIC:
            self.wake(data.decode("ascii", "replace"))

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for woken in events:
                woken.set()

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
