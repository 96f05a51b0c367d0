"""Waking whoever looks: a word across processes that something of a topic has changed, never what.

A topic is a tenant (`biz_…`, `prov_…`), a feed (`feed_…`) or `operators`. Valkey carries the word; a listener reads the
rows itself, with its own rights. While Valkey is away nothing is lost but the speed: listeners look by themselves every
few seconds.
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
"Nobody waits longer to say that something has changed."
BACK_OFF_S: Final = 1.0
"After a failure nobody tries to say anything for so long."
RETRY_S: Final = 1.0
"Between two tries of a listener to hear again."
MOST_TOPIC: Final = 64


def feed_topic(business_id: UUID) -> str:
    """The topic of a business's feed alone: what changes elsewhere need not wake whoever reads it."""
    return ids.encode("feed", business_id)


_AWAY: Final = (RedisError, OSError, TimeoutError, RuntimeError)
_TOPIC: Final = re.compile(r"[a-z]+(_[0-9a-z]{26})?")


class Publisher:
    """Says that topics have changed. Close it when the process ends."""

    def __init__(self, valkey_url: str) -> None:
        self._valkey = Redis.from_url(re.sub("^valkey", "redis", valkey_url), max_connections=8)
        self._backed_off_until = 0.0

    async def publish(self, *topics: str) -> None:
        """Wakes whoever looks at one of these. Never raises, and never takes longer than PUBLISH_LIMIT_S."""
        if clock.monotonic() < self._backed_off_until:
            return
        try:
            async with asyncio.timeout(PUBLISH_LIMIT_S):
                await self._valkey.publish(CHANNEL, " ".join(topics))
        except _AWAY:
            self._backed_off_until = clock.monotonic() + BACK_OFF_S

    async def close(self) -> None:
        """Let go of the connections."""
        await self._valkey.aclose()


class Listener:
    """Hears for a whole process, over one connection, and wakes those of it who wait for a topic."""

    def __init__(self, valkey_url: str) -> None:
        self._url = re.sub("^valkey", "redis", valkey_url)
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self.hears = False

    @asynccontextmanager
    async def subscribe(self, *topics: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever one of `topics` has changed; whoever waits for it clears it."""
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
        """Sets the events of these topics, given with spaces between them; anything else in the text is ignored."""
        for topic in topics.split(" "):
            if len(topic) <= MOST_TOPIC and _TOPIC.fullmatch(topic):
                for woken in self._waiting.get(topic, ()):
                    woken.set()

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(*_AWAY):
                async with Redis.from_url(self._url) as valkey, valkey.pubsub(ignore_subscribe_messages=True) as heard:
                    await heard.subscribe(CHANNEL)
                    self.hears = True
                    self._wake_all()  # who knows what was missed before
                    async for message in heard.listen():
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
