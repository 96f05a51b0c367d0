"""HTTP by hand, for readers of a feed: every byte that came is had, of an answer that was cut off too."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

HOST: Final = "127.0.0.1"
CHUNK: Final = 65_536
HEAD_SECONDS: Final = 8.0
"""The longest that a reader waits for a connection, and for an answer to begin."""
GONE: Final = (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError)
"""How a call that was not answered looks."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a feed as it came: its place, what it tells of, whose lead it is, and its JSON."""

    sequence: int
    kind: str
    lead_id: str
    raw: bytes


class Events:
    """A stream's bytes, taken apart into its events. `rest` is what has come of the next one."""

    def __init__(self) -> None:
        self.rest = b""

    def take(self, piece: bytes) -> list[Told]:
        """The events that are whole now."""
        *blocks, self.rest = (self.rest + piece).split(b"\n\n")
        fields = [dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line) for block in blocks]
        return [
            told(int(event[b"id"]), event[b"event"].decode(), event[b"data"]) for event in fields if b"data" in event
        ]


class _Body(msgspec.Struct, frozen=True):
    data: dict[str, object]


def told(sequence: int, kind: str, raw: bytes) -> Told:
    data = msgspec.json.decode(raw, type=_Body).data
    return Told(sequence=sequence, kind=kind, lead_id=str(data.get("lead_id")), raw=raw)


class Answer:
    """An answer whose head has come."""

    def __init__(self, reader: asyncio.StreamReader, head: bytes) -> None:
        self.status = int(head[9:12])
        self._reader = reader
        self._chunked = b"transfer-encoding: chunked" in head.lower()
        self._length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )

    async def pieces(self, most: int = CHUNK) -> AsyncIterator[bytes]:
        """The body as it comes, `most` bytes at once; ends where the connection does. Raises OSError."""
        while left := await self._next_chunk():
            while left:
                piece = await self._reader.read(min(left, most))
                if not piece:
                    return
                left -= len(piece)
                yield piece
            if not self._chunked:
                return
            await self._reader.readline()

    async def _next_chunk(self) -> int:
        return int(await self._reader.readline() or b"0", 16) if self._chunked else self._length

    async def whole(self) -> bytes:
        """Return the part of the body that arrives within the time for a call."""
        body = b""
        with contextlib.suppress(*GONE):
            async with asyncio.timeout(HEAD_SECONDS):
                async for piece in self.pieces():
                    body += piece
        return body


@asynccontextmanager
async def calling(
    port: int, method: str, path: str, key: str, *headers: str, body: bytes = b""
) -> AsyncIterator[Answer]:
    """One call on a connection of its own. Raises GONE."""
    async with asyncio.timeout(HEAD_SECONDS):
        reader, writer = await asyncio.open_connection(HOST, port)
    try:
        kind = ("Content-Type: application/json", f"Content-Length: {len(body)}") if method == "POST" else ()
        lines = (
            f"{method} {path} HTTP/1.1", f"Host: {HOST}", "Connection: close", f"Authorization: Bearer {key}", *kind,
            *headers, "", "",
        )  # fmt: skip
        writer.write("\r\n".join(lines).encode() + body)
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        yield Answer(reader, head)
    finally:
        writer.transport.abort()
