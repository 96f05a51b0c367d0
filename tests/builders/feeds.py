"""Readers of a feed, over real HTTP: a stream's events one by one, and what a poll brings."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from tests.builders.service import Served, new_client
from tests.waiting import PATIENCE


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One event as a reader has it."""

    sequence: int
    name: str
    body: dict[str, Any]


class Reading:
    """An open stream. `lines` has everything that came besides events, such as pings."""

    def __init__(self, reply: httpx.Response) -> None:
        self.reply = reply
        self.lines: list[str] = []
        self._events = self._read()

    async def next(self, seconds: float = PATIENCE) -> Heard:
        async with asyncio.timeout(seconds):
            return await anext(self._events)

    async def nothing(self, seconds: float = 0.3) -> bool:
        """Return whether no event arrives for so long. Ends the reading."""
        try:
            await self.next(seconds)
        except TimeoutError:
            return True
        return False

    async def ends(self, seconds: float = PATIENCE) -> bool:
        """Return whether the server ends the stream within so many seconds, without another event."""
        try:
            await self.next(seconds)
        except StopAsyncIteration:
            return True
        except TimeoutError:
            return False
        return False

    async def _read(self) -> AsyncIterator[Heard]:
        block: dict[str, str] = {}
        async for line in self.reply.aiter_lines():
            if line and ": " in line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                block[name] = value
            elif line:
                self.lines.append(line)
            elif "event" in block:
                yield Heard(sequence=int(block["id"]), name=block["event"], body=msgspec.json.decode(block["data"]))
                block = {}


@asynccontextmanager
async def reading(
    api: Served, key: str, query: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[Reading]:
    """A stream of whoever has `key`; without one, of whoever `query` says."""
    sent = ({"authorization": f"Bearer {key}"} if key else {}) | (headers or {})
    async with (
        new_client() as client,
        client.stream("GET", f"http://127.0.0.1:{api.port}/v1/feed{query}", headers=sent) as reply,
    ):
        assert reply.status_code == 200, await reply.aread()
        yield Reading(reply)


async def refusal_of(api: Served, query: str) -> tuple[int, str]:
    """Return the status and the code of a stream that is refused; a stream that opens fails the test at once."""
    async with (
        new_client() as client,
        client.stream("GET", f"http://127.0.0.1:{api.port}/v1/feed{query}") as reply,
    ):
        assert reply.status_code != 200, f"a stream was opened by {query}"
        return reply.status_code, str(msgspec.json.decode(await reply.aread())["code"])
